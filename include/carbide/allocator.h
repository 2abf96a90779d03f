/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_ALLOCATOR_H
#define CARBIDE_ALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "carbide/status.h"

CB_EXTERN_C_BEGIN

/** Where bytes come from (Spark: MemoryMode, Flink: MemoryType). */
typedef enum cb_mode { CB_HEAP = 0, CB_OFF_HEAP = 1 } cb_mode;

enum { CB_MODE_COUNT = 2 };

/** What a page's number says when it is not a place in a task's page table (Tungsten's
 *  MemoryBlock). */
enum {
    CB_PAGE_NONE = -1,              /**< not a task's page: it came straight from an allocator */
    CB_PAGE_FREED_BY_TASK = -2,     /**< on its way from the task to the allocator */
    CB_PAGE_FREED_BY_ALLOCATOR = -3 /**< freed; a second free finds this */
};

/**
 * A contiguous run of bytes. The struct lies in the caller's memory and is filled by who allocates;
 * freeing clears base and offset and leaves the number that says who freed. Copies are allowed:
 * freeing a second one is caught. Heap: base is the backing memory and offset 0. Off-heap: base is
 * NULL and offset the absolute address. Use cb_page_data for both.
 */
typedef struct cb_page {
    uint8_t *base;
    uint64_t offset;
    size_t bytes;        /**< as asked; what backs it may be larger */
    int32_t number;      /**< 0..8191 in a task's page table, or CB_PAGE_* */
    uint32_t generation; /**< with `block`: tells a page from an older one at the same place */
    void *block;         /**< the allocator's; opaque */
} cb_page;

/** The first byte of a page, either mode; NULL when it was freed. */
static inline uint8_t *cb_page_data(const cb_page *page) {
    return page->base ? page->base + page->offset : (uint8_t *)(uintptr_t)page->offset;
}

typedef struct cb_allocator cb_allocator;

typedef struct cb_allocator_options {
    size_t struct_size;
    cb_mode mode;
    /** New bytes are 0xa5, freed ones 0x5a (spark.memory.debugFill). Always on in debug builds. */
    bool debug_fill;
    /** Off-heap: ask for transparent huge pages where a page holds at least 2 MiB. */
    bool huge_pages;
    /** Off-heap: freed bytes kept mapped for reuse; 0 = none. Heap: no limit but the budget's. */
    uint64_t idle_max;
} cb_allocator_options;

/** From this size on a freed page is kept and reused by pages of the same size
 *  (HeapMemoryAllocator). */
#define CB_POOLED_BYTES_MIN ((size_t)1024 * 1024)

/** An allocator keeps no budget; managers do, and own one of each mode. Owned by the caller.
 *  CB_ENOMEM, CB_EINVAL. */
CB_API CB_MUST_USE cb_status cb_allocator_create(const cb_allocator_options *options,
                                                 cb_allocator **allocator, cb_error *err);

/**
 * A page of exactly `bytes` (0 is refused), backed by a multiple of 8 bytes (heap) or of the
 * system's pages (off-heap), aligned to 64 bytes at least, off-heap and from 64 KiB on to 4096.
 * Heap pages of CB_POOLED_BYTES_MIN and more, and off-heap pages while some are idle, are taken
 * from those freed before, most recent first; then their content is whatever it was. Any thread.
 * CB_ENOMEM when the system refuses.
 */
CB_API CB_MUST_USE cb_status cb_allocator_allocate(cb_allocator *allocator, size_t bytes,
                                                   cb_page *page, cb_error *err);

/**
 * Frees. CB_EMISUSE, and nothing happens, for a page freed already, a task's page, or a page of the
 * other mode; the messages are those of Spark's allocators. Any thread.
 */
CB_API CB_MUST_USE cb_status cb_allocator_free(cb_allocator *allocator, cb_page *page,
                                               cb_error *err);

/** Bytes in pages that are out, and bytes that are mapped but idle. Any thread. */
CB_API uint64_t cb_allocator_used(const cb_allocator *allocator);
CB_API uint64_t cb_allocator_idle(const cb_allocator *allocator);

/** Gives idle pages back to the system until at most `idle_bytes` are left; answers what was given
 *  back. Any thread. */
CB_API uint64_t cb_allocator_trim(cb_allocator *allocator, uint64_t idle_bytes);

/** NULL is fine. Pages still out are the caller's mistake: they stay mapped and the debug build
 *  asserts. */
CB_API void cb_allocator_destroy(cb_allocator *allocator);

CB_EXTERN_C_END

#endif
