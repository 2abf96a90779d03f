/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SEGMENT_H
#define CBI_SEGMENT_H

#include "carbide/segment.h"
#include "memory/task.h"

/*
 * What segment.c (the pool) and segment_owner.c (who holds what of it) share.
 */

static const uint32_t CBI_SEGMENT_NONE = UINT32_MAX;

/** A segment is in at most one list: of the free ones (`below` alone leads on from `top`), or of
 * its owner's. */
typedef struct cbi_segment_link {
    uint32_t above, below; /* CBI_SEGMENT_NONE at the ends */
} cbi_segment_link;

/** On a cache line of its own: owners that are next to each other belong to different threads. */
struct cb_segment_owner {
    _Alignas(CBI_CACHE_LINE) cb_segment_pool *pool;
    cb_segment_owner *next, *previous;
    uint32_t first;         /* of its segments; guarded by the pool's lock as all of this is */
    _Atomic uint32_t count; /* written under the lock, read by anybody */
    void *raw;              /* what was allocated */
    char name[CBI_NAME_BYTES];
};

struct cb_segment_pool {
    /* immutable after create */
    cb_consumer *consumer;
    uint8_t *base;
    size_t bytes;
    uint32_t count;
    uint32_t shift;      /* segment_bytes = 1 << shift */
    uint32_t step_shift; /* segments of a step = 1 << step_shift */
    uint32_t slots;
    bool preallocated;
    cb_mode mode;
    uint64_t
        *paid_bits; /* a bit a step; unused when preallocated. The tables' content is guarded */
    uint8_t padding[CBI_CACHE_LINE]; /* what follows is written all the time */
    /* guarded by the lock */
    cbi_lock lock;
    uint32_t top;                /* of the stack of free segments that were taken before */
    uint32_t frontier;           /* from here on none ever was */
    _Atomic uint32_t free_count; /* written under the lock, read by anybody */
    uint64_t *free_bits;         /* 1: free */
    cbi_segment_link *links;
    uint32_t *stamps; /* one a segment, odd = an owner's; NULL before the first owner. Written under
                         the lock, read by anybody */
    cb_segment_owner *owners;
    bool stack_is_paid; /* all on the stack are in steps that are paid for */
    bool lowest_first;
    bool shut_down;
};

/** From now on single segments are taken from the bottom, not as they were last given: then what is
 * free stays in large pieces for those who need many in one. A search through the map each time. */
void cbi_segment_pool_lowest_first(cb_segment_pool *pool);
/** As cb_segment_pool_take, the highest run that fits: for what stays taken for long beside runs
 * that come and go, so that it does not lie between them. Preallocated pools only. */
void *cbi_segment_pool_take_highest(cb_segment_pool *pool, size_t count);

/** [pool's lock held] Segments on the stack, which are taken first. */
static inline uint32_t cbi_segment_stacked(const cb_segment_pool *p) {
    return atomic_load_explicit(&p->free_count, memory_order_relaxed) - (p->count - p->frontier);
}

/** [pool's lock held] Not a read-modify-write: the lock is held, readers only need a whole word. */
static inline void cbi_segment_count_free(cb_segment_pool *p, int64_t delta) {
    uint32_t now = (uint32_t)(atomic_load_explicit(&p->free_count, memory_order_relaxed) + delta);
    atomic_store_explicit(&p->free_count, now, memory_order_relaxed);
}

/** [pool's lock held] One free segment, paid for and marked as taken, or CBI_SEGMENT_NONE. Lets go
 *  of the lock while the task is asked for bytes: *credit (0 before the first call) is what was got
 *  and not used, for cb_consumer_release in the end. */
uint32_t cbi_segment_take_one(cb_segment_pool *pool, uint64_t *credit);

/** [pool's lock held] It is free again, in the bitmap and on the stack. */
void cbi_segment_put(cb_segment_pool *pool, uint32_t i);

/** [pool's lock held] Segments that have an owner. */
uint32_t cbi_segment_owned(const cb_segment_pool *pool);

/** [pool's lock held] Frees all owners; their segments are gone already or with them. */
void cbi_segment_owners_free(cb_segment_pool *pool);

/** [pool's lock held] Every handle that is out is stale; owners hold nothing. */
void cbi_segment_owners_disown(cb_segment_pool *pool);

static inline uint8_t *cbi_segment_at(const cb_segment_pool *p, uint32_t i) {
    return p->base + ((size_t)i << p->shift);
}

static inline void cbi_stamp_set(uint32_t *stamp, uint32_t generation) {
    __atomic_store_n(stamp, generation, __ATOMIC_RELAXED);
}

static inline uint32_t cbi_stamp_get(const uint32_t *stamp) {
    return __atomic_load_n(stamp, __ATOMIC_RELAXED);
}

#endif
