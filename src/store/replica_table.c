/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocks that the machine keeps track of: the table by name, the queues of work, and the ways
 * from state to state. See the essay in replica.c.
 */
#include <string.h>

#include "base/alloc.h"
#include "store/replica_private.h"

enum { ROUNDS_MAX = 5 /* pauses are doubled so often */ };

static cbi_tracked **find_link(const cbi_replica *r, const char *name, uint64_t hash) {
    cbi_tracked **at = cbi_tracked_bucket(r, cbi_buckets_index(&r->buckets, hash));
    while (*at != NULL && ((*at)->hash != hash || strcmp((*at)->name, name) != 0)) {
        at = &(*at)->chain;
    }
    return at;
}

cbi_tracked *cbi_tracked_find(const cbi_replica *r, const char *name) {
    return *find_link(r, name, cbi_replica_hash(name));
}

/** The block, if it is here in that generation. */
cbi_tracked *cbi_tracked_here(const cbi_replica *r, const char *name, uint64_t generation) {
    cbi_tracked *b = cbi_tracked_find(r, name);
    return b != NULL && b->present && b->place.block_generation == generation ? b : NULL;
}

/** One bucket more; without memory for it chains just get longer. */
static void grow(cbi_replica *r) {
    size_t from = 0, to = r->buckets.count;
    if (!cbi_buckets_add(&r->buckets, &from)) {
        return;
    }
    cbi_tracked *b = *cbi_tracked_bucket(r, from);
    *cbi_tracked_bucket(r, from) = NULL;
    for (cbi_tracked *next = NULL; b != NULL; b = next) {
        cbi_tracked **head = cbi_tracked_bucket(r, cbi_buckets_index(&r->buckets, b->hash));
        next = b->chain;
        b->chain = *head;
        *head = b;
    }
    cbi_sweep_split(r, from, to);
}

cb_status cbi_tracked_enter(cbi_replica *r, const char *name, cbi_tracked **block, cb_error *err) {
    size_t bytes = strnlen(name, CB_BLOCK_NAME_MAX + 1);
    if (bytes == 0 || bytes > CB_BLOCK_NAME_MAX) {
        return cbi_fail(err, CB_EINVAL, "The name of a block has 1 to %d bytes.",
                        CB_BLOCK_NAME_MAX);
    }
    if (r->tracked >= r->options.blocks_max) {
        return cbi_fail(err, CB_EBUDGET, "This executor keeps track of %u blocks; no more will go.",
                        r->options.blocks_max);
    }
    cbi_tracked *b = cbi_calloc(1, sizeof *b + bytes + 1);
    if (b == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory to keep track of a block.");
    }
    if (r->tracked >= r->buckets.count) {
        grow(r);
    }
    memcpy(b->name, name, bytes + 1);
    b->hash = cbi_replica_hash(name);
    b->queue = CBI_QUEUE_NONE;
    *find_link(r, name, b->hash) = b;
    r->tracked++;
    *block = b;
    return CB_OK;
}

/* ---- queues ---- */

void cbi_queue_append(cbi_queue *q, cbi_tracked *b) {
    b->prev = q->last;
    *(q->last != NULL ? &q->last->next : &q->first) = b;
    q->last = b;
}

void cbi_queue_remove(cbi_queue *q, cbi_tracked *b) {
    *(b->prev != NULL ? &b->prev->next : &q->first) = b->next;
    *(b->next != NULL ? &b->next->prev : &q->last) = b->prev;
    b->next = b->prev = NULL;
}

static cbi_queue *queue_of(cbi_replica *r, const cbi_tracked *b) {
    return b->queue == CBI_QUEUE_AWAITED ? &r->lines[b->slot].awaited
           : b->queue == CBI_QUEUE_HELD  ? &r->lines[b->slot].others
                                         : &r->queues[b->queue];
}

void cbi_tracked_unqueue(cbi_replica *r, cbi_tracked *b) {
    if (b->queue == CBI_QUEUE_NONE) {
        return;
    }
    if (b->queue == CBI_QUEUE_WAITING) {
        cbi_wait_remove(r, b);
    } else {
        cbi_queue_remove(queue_of(r, b), b);
    }
    b->queue = CBI_QUEUE_NONE;
    r->watched--;
    r->unfound -= b->unfound;
    b->unfound = false;
}

void cbi_tracked_queue(cbi_replica *r, cbi_tracked *b, cbi_replica_queue queue) {
    cbi_tracked_unqueue(r, b);
    if (queue == CBI_QUEUE_WAITING) {
        cbi_wait_add(r, b);
    } else {
        cbi_queue_append(&r->queues[queue], b);
    }
    b->queue = (uint8_t)queue;
    r->watched++;
}

void cbi_tracked_hold(cbi_replica *r, cbi_tracked *b, uint64_t peers) {
    cbi_tracked_unqueue(r, b);
    b->queue = b->put_open && b->awaited ? CBI_QUEUE_AWAITED : CBI_QUEUE_HELD;
    b->slot = (uint8_t)__builtin_ctzll(peers);
    cbi_queue_append(queue_of(r, b), b);
    r->lined |= UINT64_C(1) << b->slot;
    r->watched++;
}

void cbi_tracked_unreport(cbi_replica *r, cbi_tracked *b) {
    if (!b->reporting) {
        return;
    }
    *(b->report_prev != NULL ? &b->report_prev->report_next : &r->reports.first) = b->report_next;
    *(b->report_next != NULL ? &b->report_next->report_prev : &r->reports.last) = b->report_prev;
    b->report_next = b->report_prev = NULL;
    b->reporting = false;
}

void cbi_tracked_report(cbi_replica *r, cbi_tracked *b) {
    if (b->reporting || r->options.silent || (b->present && b->state >= CBI_BLOCK_DROPPING)) {
        return;
    }
    b->report_prev = r->reports.last;
    *(r->reports.last != NULL ? &r->reports.last->report_next : &r->reports.first) = b;
    r->reports.last = b;
    b->reporting = true;
}

void cbi_tracked_stop_mending(cbi_replica *r, cbi_tracked *b) {
    r->mending -= b->mending;
    b->mending = false;
}

void cbi_tracked_set_moved(cbi_replica *r, cbi_tracked *b, bool moved) {
    r->moved += (uint64_t)moved - (uint64_t)b->moved;
    b->moved = moved;
}

/* ---- states ---- */

static void rest(cbi_replica *r, cbi_tracked *b, uint64_t due_ns) {
    cbi_tracked_stop_mending(r, b);
    b->state = CBI_BLOCK_RESTING;
    b->due_ns = due_ns;
    cbi_tracked_queue(r, b, CBI_QUEUE_WAITING);
}

/** After a failure: ever longer. */
void cbi_tracked_back_off(cbi_replica *r, cbi_tracked *b) {
    unsigned shift = b->rounds < ROUNDS_MAX ? b->rounds : ROUNDS_MAX;
    rest(r, b, r->now_ns + (r->options.retry_ns << shift));
    b->rounds = b->rounds < UINT8_MAX ? (uint8_t)(b->rounds + 1) : b->rounds;
}

void cbi_tracked_find_nobody(cbi_replica *r, cbi_tracked *b) {
    cbi_tracked_back_off(r, b);
    if (r->draining) {
        return;
    }
    if (cbi_replica_may_find(r, b)) {
        rest(r, b, b->due_ns + cbi_min(r->unfound * CBI_LOOK_NS, r->options.audit_ns));
        b->unfound = true;
        r->unfound++;
    } else { /* only news can change that, and they wake all who rest */
        rest(r, b, r->now_ns + r->options.audit_ns);
    }
}

void cbi_tracked_check(cbi_replica *r, cbi_tracked *b) {
    cbi_tracked_set_moved(r, b, false);
    uint64_t due_ns = cbi_max(r->quiet_ns, b->stored_ns + r->options.settle_ns);
    if (due_ns > r->now_ns && !r->draining) {
        rest(r, b, due_ns);
        return;
    }
    cbi_tracked_stop_mending(r, b);
    b->state = CBI_BLOCK_CHECK;
    cbi_tracked_queue(r, b, CBI_QUEUE_CHECKS);
}

void cbi_tracked_settle(cbi_replica *r, cbi_tracked *b) {
    cbi_tracked_stop_mending(r, b);
    cbi_tracked_unqueue(r, b);
    b->state = CBI_BLOCK_SETTLED;
    b->rounds = r->draining ? b->rounds : 0; /* who leaves has looked for more already */
    cbi_tracked_set_moved(r, b, r->draining);
}

void cbi_tracked_send(cbi_replica *r, cbi_tracked *b, bool mends) {
    b->state = CBI_BLOCK_SENDING;
    b->mends = mends;
    b->tried = b->sending = 0;
    cbi_tracked_queue(r, b, CBI_QUEUE_READY);
}

void cbi_tracked_drop(cbi_replica *r, cbi_tracked *b) {
    cbi_tracked_set_moved(r, b, false);
    cbi_tracked_stop_mending(r, b);
    cbi_tracked_unreport(r, b); /* what is said next is that it has gone */
    b->state = CBI_BLOCK_DROPPING;
    cbi_tracked_queue(r, b, CBI_QUEUE_READY);
}

/** It is not here any more, whatever is left to be said of that. */
void cbi_tracked_leave(cbi_replica *r, cbi_tracked *b) {
    for (cbi_peer *p = r->peers; r->draining && p < r->peers + CBI_REPLICA_PEERS_MAX; p++) {
        p->witness = p->witness != b ? p->witness : NULL;
    }
    cbi_tracked_set_moved(r, b, false);
    cbi_tracked_stop_mending(r, b);
    cbi_tracked_unqueue(r, b);
    r->blocks--;
    r->bytes -= b->bytes;
    b->present = false;
}

void cbi_tracked_forget(cbi_replica *r, cbi_tracked *b) {
    cbi_tracked_unreport(r, b);
    *find_link(r, b->name, b->hash) = b->chain;
    r->tracked--;
    cbi_replica_retire(r, b);
}
