/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/pool.h"

cb_status cbi_pool_shrink(cbi_pool *pool, uint64_t bytes, cb_error *err) {
    uint64_t spare = cbi_pool_free(pool);
    if (bytes > spare) {
        return cbi_fail_bytes(err, CB_EINVAL, bytes, spare,
                              "A pool of %llu bytes cannot shrink by %llu: only %llu are free.",
                              (unsigned long long)pool->size, (unsigned long long)bytes,
                              (unsigned long long)spare);
    }
    pool->size -= bytes;
    return CB_OK;
}

void cbi_pool_give_all(cbi_pool *pool) {
    pool->used = pool->leaving; /* marked blocks leave by themselves */
}

void cbi_pool_stats(const cbi_pool *pool, cb_pool_stats *stats) {
    *stats = (cb_pool_stats){.size = pool->size,
                             .used = pool->used,
                             .held = pool->held,
                             .free = cbi_pool_free(pool),
                             .used_peak = pool->used_peak};
}

void cbi_pool_check(const cbi_pool *pool) {
    cb_assert(pool->used <= pool->size);
    cb_assert(pool->held <= pool->size - pool->used);
    cb_assert(pool->used <= pool->used_peak);
}
