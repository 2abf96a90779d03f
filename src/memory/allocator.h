/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_ALLOCATOR_H
#define CBI_ALLOCATOR_H

#include <string.h>

#include "base/lock.h"
#include "carbide/allocator.h"

/*
 * The two allocators from inside. A page is backed by a block; the block's descriptor outlives it
 * (descriptors are only recycled, never freed before the allocator), so that a page freed twice,
 * even by way of a copy, meets a generation that does not match and not somebody else's memory.
 *
 * Functions marked [locked] are called with *allocator->lock held: an allocator of a manager shares
 * the manager's lock, so that a page costs one locked section and not three.
 */

enum {
    CBI_SIZE_CLASSES_MAX = 32,
    CBI_MAPPED_BYTES_MIN = 64 * 1024, /* heap blocks from here on are mapped */
    CBI_SYSTEM_PAGE_BYTES = 4096,
    CBI_DEBUG_NEW = 0xa5,
    CBI_DEBUG_FREED = 0x5a
};

typedef struct cbi_block {
    uint8_t *base;
    size_t capacity;     /* bytes behind it; what pages of a size class share */
    uint32_t generation; /* raised by each free */
    bool mapped;         /* from the system; otherwise from the process heap, `raw` */
    void *raw;
    uint64_t stamp;          /* when it was freed last, counted in frees; 0: never */
    struct cbi_block *above; /* idle: in the stack of its size */
    struct cbi_block *below; /* the same; otherwise chains of descriptors */
} cbi_block;

/** Idle blocks of one capacity: reused from the top, the most recent; dropped from the bottom. */
typedef struct cbi_size_class {
    size_t capacity;
    cbi_block *top, *bottom;
} cbi_size_class;

struct cb_allocator {
    cbi_lock own_lock;
    cbi_lock *lock; /* own_lock or the owner's; guards everything below */
    cb_mode mode;
    bool debug_fill, huge_pages;
    size_t idle_min; /* freed blocks from so many bytes on may stay mapped */
    uint64_t idle_max;
    uint64_t used, idle;
    cbi_size_class classes[CBI_SIZE_CLASSES_MAX];
    uint32_t class_hint; /* the one used last */
    cbi_block *ready;    /* idle too: runs that are there and that pages are cut from, by `below` */
    uint64_t frees;
    cbi_block *spare;  /* descriptors, by `below` */
    cbi_block **slabs; /* arrays of descriptors */
    size_t slab_count;
};

/** `lock` NULL: its own. */
cb_status cbi_allocator_create(const cb_allocator_options *options, cbi_lock *lock,
                               cb_allocator **allocator, cb_error *err);

/** What backs a page of so many bytes. */
static inline size_t cbi_allocator_capacity(const cb_allocator *allocator, size_t bytes) {
    bool small = allocator->mode == CB_HEAP && bytes < CBI_MAPPED_BYTES_MIN;
    return cbi_round_up(bytes, small ? 8 : CBI_SYSTEM_PAGE_BYTES);
}

/** The largest page that so many bytes can back; 0 when none can. */
static inline size_t cbi_allocator_within(const cb_allocator *allocator, size_t capacity) {
    bool small = allocator->mode == CB_HEAP && capacity < CBI_MAPPED_BYTES_MIN;
    return capacity & ~(size_t)(small ? 7 : CBI_SYSTEM_PAGE_BYTES - 1);
}

/** [locked] Whether there is one for reuse. */
bool cbi_allocator_has(cb_allocator *allocator, size_t capacity);

/** [locked] An idle block of exactly that capacity, if need be cut from what is ready, or NULL. It
 *  counts as used from now on. */
cbi_block *cbi_allocator_reuse(cb_allocator *allocator, size_t capacity);

/** A new block, counted as used. Takes the lock itself. CB_ENOMEM. */
cb_status cbi_allocator_fresh(cb_allocator *allocator, size_t capacity, cbi_block **block,
                              cb_error *err);

/** A descriptor for cbi_allocator_make_ready; NULL: the system has no memory. Takes the lock. */
cbi_block *cbi_allocator_descriptor(cb_allocator *allocator);
/** One that was not used. */
void cbi_allocator_descriptor_back(cb_allocator *allocator, cbi_block *descriptor);
/** [locked] Mapped memory that is there becomes idle: pages of any size are cut from its front. */
void cbi_allocator_make_ready(cb_allocator *allocator, cbi_block *descriptor, void *base,
                              size_t bytes);

/** [locked] A used block becomes idle; false when it is not to be kept: then the caller drops it,
 *  without the lock. */
bool cbi_allocator_keep(cb_allocator *allocator, cbi_block *block);

/** [locked] Takes idle blocks out, what is ready and then least recently used first, until at most
 *  `idle` bytes are left; a chain for drop. */
cbi_block *cbi_allocator_shed(cb_allocator *allocator, uint64_t idle);

/** Gives a chain (by `below`) back to the system. Takes the lock itself. Answers bytes. NULL is
 *  fine. */
uint64_t cbi_allocator_drop(cb_allocator *allocator, cbi_block *chain);

/** Makes a page of a block, as it is. */
static inline void cbi_allocator_enter_as_is(const cb_allocator *allocator, cbi_block *block,
                                             size_t bytes, cb_page *page) {
    bool heap = allocator->mode == CB_HEAP;
    page->base = heap ? block->base : NULL;
    page->offset = heap ? 0 : (uint64_t)(uintptr_t)block->base;
    page->bytes = bytes;
    page->number = CB_PAGE_NONE;
    page->generation = block->generation;
    page->block = block;
}

/** The same; fills it when debugging. */
static inline void cbi_allocator_enter(const cb_allocator *allocator, cbi_block *block,
                                       size_t bytes, cb_page *page) {
    cbi_allocator_enter_as_is(allocator, block, bytes, page);
    if (CBI_UNLIKELY(allocator->debug_fill)) {
        memset(block->base, CBI_DEBUG_NEW, bytes);
    }
}

/** Fills what is freed, when debugging, and marks the page freed by the allocator. */
static inline void cbi_allocator_leave(const cb_allocator *allocator, const cbi_block *block,
                                       cb_page *page) {
    if (CBI_UNLIKELY(allocator->debug_fill)) {
        memset(block->base, CBI_DEBUG_FREED, page->bytes);
    }
    page->base = NULL;
    page->offset = 0;
    page->number = CB_PAGE_FREED_BY_ALLOCATOR;
}

/** Bytes of pages, of all allocators, that lie in small objects (cbi_alloc) and so are in its
 *  figure too. */
size_t cbi_allocator_small_bytes(void);

/** A piece for data that is too small for a page of its own; counted as pages are, by who asked.
 *  *held: what it really takes. NULL when the system refuses. */
void *cbi_allocator_small(size_t bytes, size_t *held);
/** NULL is fine. Answers what it held. */
size_t cbi_allocator_small_free(void *piece);

/** Anonymous memory, aligned to 2 MiB and advised when `huge` and large enough; NULL when refused.
 *  Undo with cbi_sys_unmap. */
void *cbi_map_pages(size_t bytes, bool huge);

#endif
