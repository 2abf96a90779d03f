/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_POOL_H
#define CBI_POOL_H

#include "base/base.h"
#include "carbide/pool.h"

/**
 * The books of one region (Spark: MemoryPool). No lock of its own: the arbiter's owner has one.
 * size, used, held and leaving are bytes; used + held <= size and leaving <= used always.
 */
typedef struct cbi_pool {
    uint64_t size;
    uint64_t used;
    uint64_t held; /* promised to requests under way: neither used nor free */
    uint64_t
        leaving; /* storage: in marked blocks, on their way out; still used until they are gone */
    uint64_t used_peak;
} cbi_pool;

static inline uint64_t cbi_pool_free(const cbi_pool *pool) {
    return pool->size - pool->used - pool->held;
}

static inline void cbi_pool_take(cbi_pool *pool, uint64_t bytes) {
    cb_assert_debug(bytes <= cbi_pool_free(pool));
    pool->used += bytes;
    if (pool->used > pool->used_peak) {
        pool->used_peak = pool->used;
    }
}

/** Gives back at most what is used and answers how much that was (a caller that gave too much is
 *  warned by who knows it). */
static inline uint64_t cbi_pool_give(cbi_pool *pool, uint64_t bytes) {
    uint64_t given = bytes < pool->used ? bytes : pool->used;
    pool->used -= given;
    return given;
}

static inline void cbi_pool_hold(cbi_pool *pool, uint64_t bytes) {
    cb_assert_debug(bytes <= cbi_pool_free(pool));
    pool->held += bytes;
}

static inline void cbi_pool_unhold(cbi_pool *pool, uint64_t bytes) {
    cb_assert_debug(bytes <= pool->held);
    pool->held -= bytes;
}

static inline void cbi_pool_grow(cbi_pool *pool, uint64_t bytes) {
    pool->size += bytes;
}

/** CB_EINVAL, and nothing happens, when that went below what is used or promised. */
cb_status cbi_pool_shrink(cbi_pool *pool, uint64_t bytes, cb_error *err);

/** Moves free bytes from one pool's size to another's; the caller knows that they are free. */
static inline void cbi_pool_move(cbi_pool *from, cbi_pool *to, uint64_t bytes) {
    cb_assert_debug(bytes <= cbi_pool_free(from));
    from->size -= bytes;
    to->size += bytes;
}

void cbi_pool_give_all(cbi_pool *pool);
void cbi_pool_stats(const cbi_pool *pool, cb_pool_stats *stats);
void cbi_pool_check(const cbi_pool *pool);

#endif
