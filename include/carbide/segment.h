/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_SEGMENT_H
#define CARBIDE_SEGMENT_H

#include "carbide/task.h"

CB_EXTERN_C_BEGIN

/*
 * Segments: pages of one fixed size (Flink: MemorySegment), here the buffers of spill files and
 * partitions. All of a pool lie in one contiguous range of addresses, so that an offset from its
 * base is an address, and a run of neighbours is one piece. The range is reserved at once; memory
 * is resident only where it was touched.
 */

typedef struct cb_segment_pool cb_segment_pool;

typedef struct cb_segment_pool_options {
    size_t struct_size;
    cb_task *task;        /**< where the bytes come from */
    const char *name;     /**< of its consumer in the memory tree; copied */
    size_t segment_bytes; /**< a power of two, at least 4096 */
    size_t segments_max;
    bool preallocate; /**< all bytes now; otherwise in steps as segments are first taken */
    bool huge_pages;
} cb_segment_pool_options;

/**
 * Owned by the caller. CB_EINVAL names the rule that is broken. CB_EBUDGET: preallocated and the
 * task cannot have it all. CB_ENOMEM. May spill and wait, as cb_page_alloc.
 */
CB_API CB_MUST_USE cb_status cb_segment_pool_create(const cb_segment_pool_options *options,
                                                    cb_segment_pool **pool, cb_error *err);

/** All segments are gone with it, taken ones too; the bytes go back to the task. NULL is fine. */
CB_API void cb_segment_pool_destroy(cb_segment_pool *pool);

/**
 * `count` contiguous segments, aligned to 4 KiB at least; NULL = refused now. One: the most
 * recently given first, so that touched memory is reused. Several: first fit from the low end.
 * Content is whatever it was. Any thread. Never waits; a pool that is not preallocated takes only
 * what its task can have without spilling and waiting.
 */
CB_API void *cb_segment_pool_take(cb_segment_pool *pool, size_t count);

/** Gives segments back, a whole run or a part of it. A second give ends the process (assert). Any
 *  thread. */
CB_API void cb_segment_pool_give(cb_segment_pool *pool, void *base, size_t count);

CB_API size_t cb_segment_pool_free_count(const cb_segment_pool *pool);
CB_API size_t cb_segment_pool_segment_bytes(const cb_segment_pool *pool);

/** All segments lie in [base, base + segments_max * segment_bytes). */
CB_API uint8_t *cb_segment_pool_base(const cb_segment_pool *pool);

CB_EXTERN_C_END

#endif
