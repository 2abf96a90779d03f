/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_POOL_H
#define CARBIDE_POOL_H

#include <stdint.h>

#include "carbide/allocator.h"

CB_EXTERN_C_BEGIN

/** What a pool's bytes are for. Execution: working memory of tasks. Storage: blocks and their
 *  unrolling. */
typedef enum cb_region { CB_EXECUTION = 0, CB_STORAGE = 1 } cb_region;

/**
 * One of a manager's four pools {execution, storage} x {heap, off-heap} at one moment (Spark:
 * MemoryPool). A pool is bookkeeping only. The sizes of the two pools of a mode move against each
 * other; their sum is the mode's.
 */
typedef struct cb_pool_stats {
    uint64_t size; /**< bytes it may hand out now */
    uint64_t used;
    uint64_t held; /**< promised to requests under way; 0 with nobody inside */
    uint64_t free; /**< size - used - held */
    uint64_t used_peak;
} cb_pool_stats;

CB_EXTERN_C_END

#endif
