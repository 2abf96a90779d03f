/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removals are remembered, as graves: {what, all generations up to this one}. Each executor keeps
 * those it has heard of in the order in which it heard of them, and tells every peer all of them,
 * one after the other, each until it is answered; somebody new, and somebody who was away and
 * entered again, is told from the beginning. So a removal reaches all who can be reached, whoever
 * asked for it and whoever dies meanwhile, with nothing kept in the directory. A copy that arrives
 * late finds the grave and is refused. A later removal of the same thing takes the earlier one's
 * place.
 *
 * The last graves_max of them are remembered, and beyond that those that somebody who is there has
 * still to hear of: a client removes faster than others are told, and what nobody tells them would
 * come back from them. The table of them grows one bucket at a time. Those are at most as many as
 * blocks are tracked, and take no more memory than graves_bytes_max: who asks for removals names
 * what he likes, and a peer may never answer.
 */
#include <string.h>

#include "base/alloc.h"
#include "store/replica_private.h"

static cbi_grave **ring_at(const cbi_replica *r, uint64_t sequence) {
    return &r->ring[sequence % r->ring_size];
}

static uint64_t hash_of(cbi_grave_kind kind, uint64_t number, const char *name) {
    uint64_t h = kind == CBI_GRAVE_BLOCK ? cbi_replica_hash(name) : number + 1;
    return (h + (uint64_t)kind) * UINT64_C(0x9e3779b97f4a7c15);
}

static cbi_grave **bucket(const cbi_replica *r, size_t i) {
    return (cbi_grave **)cbi_buckets_head(&r->grave_table, i);
}

static cbi_grave **find(const cbi_replica *r, cbi_grave_kind kind, uint64_t number,
                        const char *name) {
    uint64_t hash = hash_of(kind, number, name);
    cbi_grave **at = bucket(r, cbi_buckets_index(&r->grave_table, hash >> 32));
    while (*at != NULL && ((*at)->hash != hash || (*at)->kind != kind || (*at)->number != number ||
                           strcmp((*at)->name, name) != 0)) {
        at = &(*at)->chain;
    }
    return at;
}

/** The grave of all its kin: kind and number. false: it has none. */
static bool kin_of(const char *name, cbi_grave_kind *kind, uint64_t *number) {
    cb_block_id id;
    if ((name[0] != 'r' && name[0] != 'b') || cb_block_id_parse(name, &id, NULL) != CB_OK ||
        (id.kind != CB_BLOCK_RDD && id.kind != CB_BLOCK_BROADCAST)) {
        return false;
    }
    *kind = id.kind == CB_BLOCK_RDD ? CBI_GRAVE_DATA_SET : CBI_GRAVE_BROADCAST;
    *number = id.numbers[0];
    return true;
}

bool cbi_grave_covers(cbi_grave_kind kind, uint64_t number, const char *grave_name,
                      const char *name) {
    if (kind == CBI_GRAVE_BLOCK) {
        return strcmp(grave_name, name) == 0;
    }
    cbi_grave_kind kin = CBI_GRAVE_BLOCK;
    uint64_t kin_number = 0;
    return kin_of(name, &kin, &kin_number) && kin == kind && kin_number == number;
}

bool cbi_graves_cover(const cbi_replica *r, const char *name, uint64_t generation) {
    if (r->grave_count == 0) {
        return false;
    }
    const cbi_grave *g = *find(r, CBI_GRAVE_BLOCK, 0, name);
    return (g != NULL && g->generation >= generation) || cbi_graves_cover_kin(r, name, generation);
}

bool cbi_graves_cover_kin(const cbi_replica *r, const char *name, uint64_t generation) {
    cbi_grave_kind kin = CBI_GRAVE_BLOCK;
    uint64_t number = 0;
    const cbi_grave *g = kin_of(name, &kin, &number) ? *find(r, kin, number, "") : NULL;
    return g != NULL && g->generation >= generation;
}

bool cbi_replica_is_buried(const cbi_replica *r, const char *name, uint64_t generation) {
    return cbi_graves_cover(r, name, generation);
}

/** With its places in the ring and the table. */
static size_t bytes_of(const char *name) {
    return sizeof(cbi_grave) + strlen(name) + 1 + 3 * sizeof(void *);
}

static void remove_grave(cbi_replica *r, cbi_grave *g) {
    *find(r, g->kind, g->number, g->name) = g->chain;
    *ring_at(r, g->sequence) = NULL;
    r->grave_count--;
    r->grave_bytes -= bytes_of(g->name);
    cbi_replica_retire(r, g);
}

/** The oldest goes. */
static void advance(cbi_replica *r) {
    cbi_grave *g = *ring_at(r, r->grave_first);
    if (g != NULL) {
        r->graves_lost += r->now_ns - g->heard_ns < r->options.grave_ns;
        remove_grave(r, g);
    }
    r->grave_first++;
}

/** Whether everybody who is there was told of the oldest. */
static bool oldest_is_told(const cbi_replica *r) {
    for (const cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_TOLD_MAX; p++) {
        if (p->used && p->told <= r->grave_first) {
            return false;
        }
    }
    return true;
}

/** Twice as large. false: it is as large as it may be, or there is no memory. */
static bool grow_ring(cbi_replica *r) {
    uint64_t size = r->ring_size * 2;
    cbi_grave **ring = size <= cbi_max(r->options.graves_max, r->options.blocks_max)
                           ? cbi_calloc(size, sizeof(cbi_grave *))
                           : NULL;
    if (ring == NULL) {
        return false;
    }
    for (uint64_t at = r->grave_first; at < r->grave_next; at++) {
        ring[at % size] = *ring_at(r, at);
    }
    cbi_free(r->ring);
    r->ring = ring;
    r->ring_size = size;
    return true;
}

static uint64_t remembered(const cbi_replica *r) {
    return r->grave_next - r->grave_first;
}

static bool may_be_more(const cbi_replica *r) {
    return r->options.graves_bytes_max == 0 || r->grave_bytes < r->options.graves_bytes_max;
}

/** For one more. What is too many goes by twos: whoever was the last to hear may leave a million.
 */
static void make_room(cbi_replica *r) {
    for (unsigned gone = 0; remembered(r) >= r->options.graves_max; gone++) {
        bool wanted = !oldest_is_told(r) && may_be_more(r);
        if (wanted && (remembered(r) < r->ring_size || grow_ring(r))) {
            return;
        }
        if (gone >= 2 && remembered(r) < r->ring_size) {
            return;
        }
        advance(r);
    }
}

/** One bucket more in the table, when it is full. */
static void grow_table(cbi_replica *r) {
    size_t from = 0;
    if (r->grave_count < r->grave_table.count || !cbi_buckets_add(&r->grave_table, &from)) {
        return;
    }
    cbi_grave *g = *bucket(r, from);
    *bucket(r, from) = NULL;
    for (cbi_grave *next = NULL; g != NULL; g = next) {
        cbi_grave **head = bucket(r, cbi_buckets_index(&r->grave_table, g->hash >> 32));
        next = g->chain;
        g->chain = *head;
        *head = g;
    }
}

cb_status cbi_graves_add(cbi_replica *r, const cbi_replica_event *event, bool *added,
                         cb_error *err) {
    bool is_block = event->grave == CBI_GRAVE_BLOCK;
    const char *name = is_block ? event->name : "";
    uint64_t number = is_block ? 0 : event->number;
    cbi_grave *old = *find(r, event->grave, number, name);
    *added = false;
    if (old != NULL && old->generation >= event->generation) {
        return CB_OK;
    }
    cbi_grave *g = cbi_calloc(1, bytes_of(name));
    if (g == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory to remember a removal.");
    }
    if (old != NULL) {
        remove_grave(r, old);
    }
    make_room(r);
    *g = (cbi_grave){.kind = event->grave,
                     .number = number,
                     .generation = event->generation,
                     .heard_ns = r->now_ns,
                     .sequence = r->grave_next++,
                     .hash = hash_of(event->grave, number, name)};
    memcpy(g->name, name, strlen(name) + 1);
    r->grave_bytes += bytes_of(name);
    *ring_at(r, g->sequence) = g;
    grow_table(r);
    *find(r, g->kind, number, name) = g;
    r->grave_count++;
    *added = true;
    return CB_OK;
}

void cbi_graves_expire(cbi_replica *r) {
    enum { A_STEP = 4096 };
    for (unsigned gone = 0; gone < A_STEP && r->grave_first < r->grave_next; gone++) {
        const cbi_grave *g = *ring_at(r, r->grave_first);
        bool many = remembered(r) > r->options.graves_max && oldest_is_told(r);
        if (g != NULL && r->now_ns - g->heard_ns < r->options.grave_ns && !many) {
            break;
        }
        advance(r);
    }
}

/** The next that it was not told of; NULL: none. */
static const cbi_grave *next_for(const cbi_replica *r, cbi_peer *p) {
    p->told = cbi_max(p->told, r->grave_first);
    while (p->told < r->grave_next && *ring_at(r, p->told) == NULL) {
        p->told++;
    }
    return p->told < r->grave_next ? *ring_at(r, p->told) : NULL;
}

void cbi_graves_tell(cbi_replica *r) {
    for (cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_TOLD_MAX; p++) {
        const cbi_grave *g = p->used && p->tell_ns <= r->now_ns ? next_for(r, p) : NULL;
        cbi_replica_action *a = g != NULL ? cbi_replica_emit(r, CBI_REPLICA_TELL) : NULL;
        if (a != NULL) {
            p->tell_ns = r->now_ns + r->options.retry_ns;
            a->peer = p->view.name;
            a->peer_address = p->view.address;
            a->peer_generation = p->view.generation;
            a->grave = g->kind;
            a->name = g->name;
            a->number = g->number;
            a->generation = g->generation;
            a->sequence = g->sequence;
        }
    }
}

void cbi_graves_told(cbi_replica *r, const cbi_replica_event *event) {
    cbi_peer *p = cbi_replica_anyone(r, event->peer);
    if (p != NULL && p->view.generation <= event->peer_generation && p->told == event->sequence) {
        p->told++;
        p->tell_ns = 0;
    }
}

bool cbi_graves_all_told(const cbi_replica *r) {
    for (const cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_TOLD_MAX; p++) {
        if (p->used && !p->missing && p->told < r->grave_next) {
            return false;
        }
    }
    return true;
}

cb_status cbi_graves_init(cbi_replica *r, cb_error *err) {
    /* of this life: a late answer to one before is none to this one */
    r->grave_first = r->grave_next = r->options.wall_ms << 16;
    r->ring_size = r->options.graves_max;
    r->ring = cbi_calloc(r->ring_size, sizeof(cbi_grave *));
    if (!cbi_buckets_init(&r->grave_table) || r->ring == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory to remember %u removals.",
                        r->options.graves_max);
    }
    return CB_OK;
}

void cbi_graves_fini(cbi_replica *r) {
    for (size_t i = 0; r->ring != NULL && i < r->ring_size; i++) {
        cbi_free(r->ring[i]);
    }
    cbi_free(r->ring);
    cbi_buckets_fini(&r->grave_table);
}
