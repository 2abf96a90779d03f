/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that wait until a moment. There may be a million, when nobody is there to take copies, and
 * each tick would go through all of them; and a million may be due at the same moment, when a
 * directory is believed again.
 *
 * So they lie in a ring of queues, each for those that are due within the same eighth of a second;
 * what is due later than the ring reaches lies in the last one and is put where it belongs when its
 * turn comes. A tick goes on to now: what it comes by is due, or goes back to the end of its queue
 * and is looked at with the next tick. It stops after so many blocks, and each step goes on a
 * little from there, as far as that tick would have come.
 */
#include "base/base.h"
#include "store/replica_private.h"

enum { SHIFT = 27 /* of nanoseconds: the time of a queue */, TICK_SWEEPS = 8 };

static cbi_waiting *queue_at(cbi_replica *r, uint64_t number) {
    return &r->waiting[number % CBI_WAITING_QUEUES];
}

void cbi_wait_begin(cbi_replica *r) {
    r->wait_at = r->now_ns >> SHIFT;
}

void cbi_wait_add(cbi_replica *r, cbi_tracked *b) {
    uint64_t last = r->wait_at + CBI_WAITING_QUEUES - 1;
    uint64_t number = cbi_min(cbi_max(b->due_ns >> SHIFT, r->wait_at), last);
    cbi_waiting *w = queue_at(r, number);
    b->slot = (uint8_t)(number % CBI_WAITING_QUEUES);
    cbi_queue_append(&w->queue, b);
    w->count++;
    r->wait_count++;
}

void cbi_wait_remove(cbi_replica *r, cbi_tracked *b) {
    cbi_waiting *w = &r->waiting[b->slot];
    cbi_queue_remove(&w->queue, b);
    w->count--;
    r->wait_count--;
}

static void add_again(cbi_replica *r, cbi_tracked *b) {
    cbi_wait_remove(r, b);
    cbi_wait_add(r, b);
}

/** It is due. */
static void wake(cbi_replica *r, cbi_tracked *b) {
    if (b->state == CBI_BLOCK_SENDING) { /* those who have not answered */
        b->tried |= b->sending;
        b->sending = 0;
        cbi_tracked_queue(r, b, CBI_QUEUE_READY);
    } else {
        cbi_tracked_check(r, b);
    }
}

/** Goes through so many blocks of those that are to be hurried; of each queue only through what it
 *  had at first, for what stays goes to its end. */
static void hurry_some(cbi_replica *r, size_t most) {
    while (r->hurry_queues > 0 && most > 0) {
        cbi_tracked *b = r->waiting[r->hurry_at].queue.first;
        if (r->hurry_left == 0 || b == NULL) {
            r->hurry_queues--;
            r->hurry_at = (r->hurry_at + 1) % CBI_WAITING_QUEUES;
            r->hurry_left = r->waiting[r->hurry_at].count;
            continue;
        }
        if (b->state == CBI_BLOCK_RESTING) {
            wake(r, b);
        } else {
            add_again(r, b);
        }
        r->hurry_left--;
        most--;
    }
}

void cbi_wait_hurry(cbi_replica *r) {
    if (r->wait_count == 0) {
        return;
    }
    if (r->hurry_queues == 0) {
        r->hurry_left = r->waiting[r->hurry_at].count;
    }
    r->hurry_queues = CBI_WAITING_QUEUES + 1; /* the one under way has come by some already */
}

/** Each look costs the same as one for which nobody had to be hurried. */
static void hurry_if_wanted(cbi_replica *r) {
    if (r->hurry_wanted && r->now_ns >= r->hurry_ns) {
        r->hurry_wanted = false;
        r->hurry_ns = r->now_ns + r->options.retry_ns + r->wait_count * CBI_LOOK_NS;
        cbi_wait_hurry(r);
    }
}

void cbi_wait_hurry_seldom(cbi_replica *r) {
    r->hurry_wanted = true;
    hurry_if_wanted(r);
}

void cbi_wait_some(cbi_replica *r, size_t most) {
    const uint64_t now = r->tick_ns >> SHIFT;
    hurry_some(r, most);
    if (r->wait_count == 0) {
        r->wait_at = cbi_max(r->wait_at, now);
        r->wait_left = 0;
    }
    while (most > 0 && (r->wait_left > 0 || r->wait_at < now)) {
        cbi_waiting *w = queue_at(r, r->wait_at);
        cbi_tracked *b = w->queue.first;
        if (b == NULL && r->wait_at < now) {
            r->wait_at++;
            r->wait_left = queue_at(r, r->wait_at)->count;
            continue;
        }
        if (b == NULL) {
            r->wait_left = 0;
            break;
        }
        if (b->due_ns <= r->tick_ns) {
            wake(r, b);
        } else {
            add_again(r, b);
        }
        r->wait_left -= r->wait_left > 0;
        most--;
    }
}

void cbi_wait_tick(cbi_replica *r) {
    hurry_if_wanted(r);
    r->wait_left = queue_at(r, r->wait_at)->count;
    cbi_wait_some(r, (size_t)TICK_SWEEPS * r->options.sweep_max);
}
