/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks from two sources, one bookkeeping.
 *
 * Heap blocks below CBI_MAPPED_BYTES_MIN come from the process heap, larger ones are mapped, as a C
 * library does by itself; the difference to off-heap is what Spark makes of it: the heap allocator
 * keeps freed blocks of 1 MiB and more (idle_min; a store of blocks lowers it) by size and reuses
 * the most recent one, and what it keeps is held weakly, which here means that the budget may take
 * it at any time (cbi_allocator_shed). Off-heap blocks have exactly the size of their page; when
 * freed they are gone in the accounts, while the mapping may wait in a cache with a limit: a fault
 * costs 1.7 us per 4 KiB, an munmap and mmap 4 us.
 *
 * Idle blocks lie in stacks by size: the top is reused, and of all bottoms the oldest is dropped.
 * What is ready (ready.h) is idle as well, but was no page yet: pages of any size are cut from it,
 * and what the budget wants back is cut from it first, to the byte.
 */
#include "memory/allocator.h"

#include "base/alloc.h"
#include "base/sys.h"

enum { HEAP_ALIGNMENT = 64, HUGE_BYTES = 2 * 1024 * 1024, SLAB_BLOCKS = 64 };

#ifdef CARBIDE_DEBUG
static const bool fill_always = true;
#else
static const bool fill_always = false;
#endif

cb_status cbi_allocator_create(const cb_allocator_options *options, cbi_lock *lock,
                               cb_allocator **allocator, cb_error *err) {
    if (options->mode != CB_HEAP && options->mode != CB_OFF_HEAP) {
        return cbi_fail(err, CB_EINVAL,
                        "An allocator's mode must be CB_HEAP or CB_OFF_HEAP, not %d.",
                        (int)options->mode);
    }
    cb_allocator *a = cbi_calloc(1, sizeof *a);
    if (a == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for an allocator.");
    }
    cbi_lock_init(&a->own_lock, CBI_RANK_ALLOCATOR);
    a->lock = lock != NULL ? lock : &a->own_lock;
    a->mode = options->mode;
    a->debug_fill = options->debug_fill || fill_always;
    a->huge_pages = options->huge_pages;
    a->idle_min = options->mode == CB_HEAP ? CB_POOLED_BYTES_MIN : 0; /* as Spark's */
    a->idle_max = options->mode == CB_HEAP ? UINT64_MAX : options->idle_max;
    *allocator = a;
    return CB_OK;
}

cb_status cb_allocator_create(const cb_allocator_options *options, cb_allocator **allocator,
                              cb_error *err) {
    return cbi_allocator_create(options, NULL, allocator, err);
}

void *cbi_map_pages(size_t bytes, bool huge) {
    if (!huge || bytes < HUGE_BYTES) {
        return cbi_sys_map(bytes);
    }
    uint8_t *base = cbi_sys_map(bytes + HUGE_BYTES);
    if (base == NULL) {
        return NULL;
    }
    uint8_t *aligned = base + (-(uintptr_t)base & (HUGE_BYTES - 1));
    size_t before = (size_t)(aligned - base), behind = HUGE_BYTES - before;
    if (before > 0) {
        cbi_sys_unmap(base, before);
    }
    if (behind > 0) {
        cbi_sys_unmap(aligned + bytes, behind);
    }
    cbi_sys_advise_huge(aligned, bytes);
    return aligned;
}

/** Bytes of all allocators' pages that lie in small objects (cbi_alloc): they are pages, not
 * objects. */
static _Atomic size_t pages_in_small_objects;

size_t cbi_allocator_small_bytes(void) {
    return atomic_load_explicit(&pages_in_small_objects, memory_order_relaxed);
}

void *cbi_allocator_small(size_t bytes, size_t *held) {
    void *piece = cbi_alloc(bytes);
    if (piece != NULL) {
        *held = cbi_alloc_held(piece);
        atomic_fetch_add_explicit(&pages_in_small_objects, *held, memory_order_relaxed);
    }
    return piece;
}

size_t cbi_allocator_small_free(void *piece) {
    size_t held = piece != NULL ? cbi_alloc_held(piece) : 0;
    atomic_fetch_sub_explicit(&pages_in_small_objects, held, memory_order_relaxed);
    cbi_free(piece);
    return held;
}

/* ---- descriptors ---- */

static void descriptor_put(cb_allocator *a, cbi_block *block) {
    block->base = NULL;
    block->raw = NULL;
    block->capacity = 0;
    block->stamp = 0;
    block->below = a->spare;
    a->spare = block;
}

static cbi_block *descriptor_pop(cb_allocator *a) {
    cbi_block *block = a->spare;
    if (block != NULL) {
        a->spare = block->below;
        block->below = NULL;
    }
    return block;
}

cbi_block *cbi_allocator_descriptor(cb_allocator *a) {
    cbi_lock_take(a->lock);
    cbi_block *block = descriptor_pop(a);
    cbi_lock_give(a->lock);
    if (block != NULL) {
        return block;
    }
    cbi_block *slab = cbi_calloc(SLAB_BLOCKS, sizeof *slab);
    if (slab == NULL) {
        return NULL;
    }
    cbi_lock_take(a->lock);
    cbi_block **slabs = cbi_realloc(a->slabs, (a->slab_count + 1) * sizeof *slabs);
    if (slabs != NULL) {
        a->slabs = slabs;
        slabs[a->slab_count++] = slab;
        for (size_t i = SLAB_BLOCKS; i-- > 0;) {
            descriptor_put(a, &slab[i]);
        }
        block = descriptor_pop(a);
    }
    cbi_lock_give(a->lock);
    if (slabs == NULL) {
        cbi_free(slab);
    }
    return block;
}

void cbi_allocator_descriptor_back(cb_allocator *a, cbi_block *descriptor) {
    cbi_lock_take(a->lock);
    descriptor_put(a, descriptor);
    cbi_lock_give(a->lock);
}

/* ---- blocks ---- */

cb_status cbi_allocator_fresh(cb_allocator *a, size_t capacity, cbi_block **block, cb_error *err) {
    cbi_block *b = cbi_allocator_descriptor(a);
    if (b == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a page's descriptor.");
    }
    b->mapped = a->mode == CB_OFF_HEAP || capacity >= CBI_MAPPED_BYTES_MIN;
    b->raw =
        b->mapped ? cbi_map_pages(capacity, a->huge_pages) : cbi_alloc(capacity + HEAP_ALIGNMENT);
    cbi_lock_take(a->lock);
    if (b->raw == NULL) {
        descriptor_put(a, b);
        cbi_lock_give(a->lock);
        return cbi_fail_bytes(err, CB_ENOMEM, capacity, 0,
                              "The system refused a page of %zu bytes.", capacity);
    }
    a->used += capacity;
    cbi_lock_give(a->lock);
    if (!b->mapped) {
        atomic_fetch_add_explicit(&pages_in_small_objects, capacity, memory_order_relaxed);
    }
    b->capacity = capacity;
    b->base = b->mapped ? b->raw : (uint8_t *)b->raw + (-(uintptr_t)b->raw & (HEAP_ALIGNMENT - 1));
    *block = b;
    return CB_OK;
}

/** The stack of that size, or NULL. There are few sizes, and mostly it is the last one again. */
static cbi_size_class *class_find(cb_allocator *a, size_t capacity) {
    if (CBI_LIKELY(a->classes[a->class_hint].capacity == capacity)) {
        return &a->classes[a->class_hint];
    }
    for (uint32_t i = 0; i < CBI_SIZE_CLASSES_MAX; i++) {
        if (a->classes[i].capacity == capacity) {
            a->class_hint = i;
            return &a->classes[i];
        }
    }
    return NULL;
}

/** The same, or an empty one made that of this size; NULL when all are in use. */
static cbi_size_class *class_find_or_make(cb_allocator *a, size_t capacity) {
    cbi_size_class *class = class_find(a, capacity);
    for (uint32_t i = 0; class == NULL && i < CBI_SIZE_CLASSES_MAX; i++) {
        if (a->classes[i].top == NULL) {
            class = &a->classes[i];
            class->capacity = capacity;
        }
    }
    return class;
}

/* ---- what is ready ---- */

/** [locked] The first run that has so many bytes, or the end of the list. */
static cbi_block **ready_for(cb_allocator *a, size_t capacity) {
    cbi_block **at = &a->ready;
    bool pages = a->mode == CB_OFF_HEAP || capacity >= CBI_MAPPED_BYTES_MIN;
    while (*at != NULL && (!pages || (*at)->capacity < capacity)) {
        at = &(*at)->below;
    }
    return at;
}

/** [locked] The front of a run, or all of it where it has no more; NULL: there is no descriptor. */
static cbi_block *cut(cb_allocator *a, cbi_block **at, size_t bytes) {
    cbi_block *run = *at;
    if (run->capacity <= bytes) {
        *at = run->below;
        run->below = NULL;
        return run;
    }
    cbi_block *piece = descriptor_pop(a);
    if (piece != NULL) {
        piece->raw = piece->base = run->base;
        piece->capacity = bytes;
        piece->mapped = true;
        piece->stamp = run->stamp;
        run->raw = run->base += bytes;
        run->capacity -= bytes;
    }
    return piece;
}

void cbi_allocator_make_ready(cb_allocator *a, cbi_block *descriptor, void *base, size_t bytes) {
    cbi_block **at = &a->ready;
    a->idle += bytes;
    for (; *at != NULL; at = &(*at)->below) {
        cbi_block *run = *at;
        bool behind = run->base + run->capacity == (uint8_t *)base;
        if (behind || (uint8_t *)base + bytes == run->base) {
            run->raw = run->base = behind ? run->base : base;
            run->capacity += bytes;
            descriptor_put(a, descriptor);
            return;
        }
    }
    descriptor->raw = descriptor->base = base;
    descriptor->capacity = bytes;
    descriptor->mapped = true;
    descriptor->stamp = ++a->frees; /* it is there, as what was used */
    *at = descriptor;
}

/* ---- idle blocks ---- */

bool cbi_allocator_has(cb_allocator *a, size_t capacity) {
    const cbi_size_class *class = a->idle > 0 ? class_find(a, capacity) : NULL;
    return (class != NULL && class->top != NULL) || *ready_for(a, capacity) != NULL;
}

cbi_block *cbi_allocator_reuse(cb_allocator *a, size_t capacity) {
    cbi_size_class *class = a->idle > 0 ? class_find(a, capacity) : NULL;
    cbi_block *b = class != NULL ? class->top : NULL;
    if (b != NULL) {
        class->top = b->below;
        *(b->below != NULL ? &b->below->above : &class->bottom) = NULL;
        b->below = NULL;
    } else if (a->ready != NULL) {
        cbi_block **at = ready_for(a, capacity);
        b = *at != NULL ? cut(a, at, capacity) : NULL;
    }
    if (b == NULL) {
        return NULL;
    }
    a->idle -= capacity;
    a->used += capacity;
    return b;
}

/** Whether a freed block of that capacity may stay mapped. */
static bool may_idle(const cb_allocator *a, const cbi_block *b) {
    return b->mapped && b->capacity >= a->idle_min &&
           b->capacity <= a->idle_max - cbi_min(a->idle_max, a->idle);
}

bool cbi_allocator_keep(cb_allocator *a, cbi_block *b) {
    b->generation++;
    cb_assert_debug(a->used >= b->capacity);
    a->used -= b->capacity;
    if (!may_idle(a, b)) {
        return false;
    }
    cbi_size_class *class = class_find_or_make(a, b->capacity);
    if (class == NULL) {
        return false;
    }
    b->stamp = ++a->frees;
    b->above = NULL;
    b->below = class->top;
    *(b->below != NULL ? &b->below->above : &class->bottom) = b;
    class->top = b;
    a->idle += b->capacity;
    return true;
}

/** The class whose bottom was freed before all others'; NULL: all are empty. */
static cbi_size_class *class_of_oldest(cb_allocator *a) {
    cbi_size_class *oldest = NULL;
    for (uint32_t i = 0; i < CBI_SIZE_CLASSES_MAX; i++) {
        cbi_size_class *class = &a->classes[i];
        if (class->bottom != NULL &&
            (oldest == NULL || class->bottom->stamp < oldest->bottom->stamp)) {
            oldest = class;
        }
    }
    return oldest;
}

/** [locked] Who was freed first, out of its stack; NULL: nobody is there. */
static cbi_block *take_oldest(cb_allocator *a) {
    cbi_size_class *class = class_of_oldest(a);
    if (class == NULL) {
        return NULL;
    }
    cbi_block *b = class->bottom;
    class->bottom = b->above;
    *(b->above != NULL ? &b->above->below : &class->top) = NULL;
    return b;
}

cbi_block *cbi_allocator_shed(cb_allocator *a, uint64_t idle) {
    cbi_block *chain = NULL;
    while (a->idle > idle) {
        size_t excess = cbi_round_up((size_t)(a->idle - idle), CBI_SYSTEM_PAGE_BYTES);
        cbi_block *b = a->ready != NULL ? cut(a, &a->ready, excess) : NULL;
        b = b != NULL ? b : take_oldest(a);
        b = b != NULL ? b : cut(a, &a->ready, SIZE_MAX); /* all of it: there is no descriptor */
        a->idle -= b->capacity;
        b->above = NULL;
        b->below = chain;
        chain = b;
    }
    return chain;
}

uint64_t cbi_allocator_drop(cb_allocator *a, cbi_block *chain) {
    uint64_t bytes = 0;
    while (chain != NULL) {
        cbi_block *b = chain;
        chain = b->below;
        bytes += b->capacity;
        if (b->mapped) {
            cbi_sys_unmap(b->raw, b->capacity);
        } else {
            atomic_fetch_sub_explicit(&pages_in_small_objects, b->capacity, memory_order_relaxed);
            cbi_free(b->raw);
        }
        cbi_lock_take(a->lock);
        descriptor_put(a, b);
        cbi_lock_give(a->lock);
    }
    return bytes;
}

/* ---- pages ---- */

cb_status cb_allocator_allocate(cb_allocator *a, size_t bytes, cb_page *page, cb_error *err) {
    if (bytes == 0 || bytes > SIZE_MAX / 2) {
        return cbi_fail(err, CB_EINVAL, "A page cannot have %zu bytes.", bytes);
    }
    size_t capacity = cbi_allocator_capacity(a, bytes);
    cbi_lock_take(a->lock);
    cbi_block *block = cbi_allocator_reuse(a, capacity);
    cbi_lock_give(a->lock);
    if (block == NULL) {
        CB_TRY(cbi_allocator_fresh(a, capacity, &block, err));
    }
    cbi_allocator_enter(a, block, bytes, page);
    return CB_OK;
}

/** The messages are Spark's. That of a double free comes first: it is the one that helps. */
static const char *find_misuse(const cb_allocator *a, const cb_page *page) {
    bool heap = a->mode == CB_HEAP;
    if (page->number == CB_PAGE_FREED_BY_ALLOCATOR) {
        return "page has already been freed";
    }
    if (heap && page->base == NULL) {
        return "baseObject was null; are you trying to use the on-heap allocator to free off-heap "
               "memory?";
    }
    if (!heap && page->base != NULL) {
        return "baseObject not null; are you trying to use the off-heap allocator to free on-heap "
               "memory?";
    }
    if (page->number != CB_PAGE_NONE && page->number != CB_PAGE_FREED_BY_TASK) {
        return heap ? "TMM-allocated pages must first be freed via TMM.freePage(), not directly in "
                      "allocator free()"
                    : "TMM-allocated pages must be freed via TMM.freePage(), not directly in "
                      "allocator free()";
    }
    const cbi_block *block = page->block;
    return block == NULL || block->generation != page->generation ? "page has already been freed"
                                                                  : NULL;
}

cb_status cb_allocator_free(cb_allocator *a, cb_page *page, cb_error *err) {
    cbi_lock_take(a->lock);
    const char *misuse = find_misuse(a, page);
    if (CBI_UNLIKELY(misuse != NULL)) {
        cbi_lock_give(a->lock);
        return cbi_fail(err, CB_EMISUSE, "%s", misuse);
    }
    cbi_block *block = page->block;
    cbi_allocator_leave(a, block, page);
    bool kept = cbi_allocator_keep(a, block);
    cbi_lock_give(a->lock);
    if (!kept) {
        (void)cbi_allocator_drop(a, block);
    }
    return CB_OK;
}

static uint64_t read_locked(const cb_allocator *a, const uint64_t *field) {
    cbi_lock_take(a->lock);
    uint64_t value = *field;
    cbi_lock_give(a->lock);
    return value;
}

uint64_t cb_allocator_used(const cb_allocator *a) {
    return read_locked(a, &a->used);
}

uint64_t cb_allocator_idle(const cb_allocator *a) {
    return read_locked(a, &a->idle);
}

uint64_t cb_allocator_trim(cb_allocator *a, uint64_t idle_bytes) {
    cbi_lock_take(a->lock);
    cbi_block *chain = cbi_allocator_shed(a, idle_bytes);
    cbi_lock_give(a->lock);
    return cbi_allocator_drop(a, chain);
}

void cb_allocator_destroy(cb_allocator *a) {
    if (a == NULL) {
        return;
    }
    (void)cb_allocator_trim(a, 0);
    cb_assert_debug(a->used == 0);
    for (size_t i = 0; i < a->slab_count; i++) {
        cbi_free(a->slabs[i]);
    }
    cbi_free(a->slabs);
    cbi_free(a);
}
