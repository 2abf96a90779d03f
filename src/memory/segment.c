/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A range of addresses cut into segments.
 *
 * Which are free is in a bitmap (the truth, and what runs of several are found in) and, for those
 * that were given back, also in a stack threaded through an array of links, so that a single one is
 * taken in a few instructions and is the one whose memory was used last. Segments from `frontier`
 * on were never taken and are in the bitmap only: a fresh pool of a million segments touches none
 * of its tables but the bitmap.
 *
 * Bytes come from the task: all at once (preallocate), or a step of neighbouring segments at a
 * time. A step stays paid for when its segments come back, since their memory is resident; when the
 * task asks its consumers to spill, steps that are wholly free are given back to the system and to
 * the task.
 */
#include "memory/segment.h"

#include <inttypes.h>

#include "base/alloc.h"
#include "base/sys.h"

enum { STEP_BYTES = 256 * 1024, BITS = 64 };

#define NONE CBI_SEGMENT_NONE

/* ---- bits ---- */

static bool bit_get(const uint64_t *bits, uint32_t i) {
    return (bits[i / BITS] >> (i % BITS)) & 1;
}

static void bit_set(uint64_t *bits, uint32_t i) {
    bits[i / BITS] |= (uint64_t)1 << (i % BITS);
}

static void bit_clear(uint64_t *bits, uint32_t i) {
    bits[i / BITS] &= ~((uint64_t)1 << (i % BITS));
}

/** The first bit from `i` on that is `value`, or `end`. */
static uint32_t bit_find(const uint64_t *bits, uint32_t i, uint32_t end, bool value) {
    while (i < end) {
        uint64_t word = (value ? bits[i / BITS] : ~bits[i / BITS]) >> (i % BITS);
        if (word != 0) {
            uint32_t found = i + (uint32_t)__builtin_ctzll(word);
            return found < end ? found : end;
        }
        i = (i / BITS + 1) * BITS;
    }
    return end;
}

/* ---- from beginning to end ---- */

static uint32_t steps_of(const cb_segment_pool *p) {
    return (uint32_t)(((uint64_t)p->count + (1u << p->step_shift) - 1) >> p->step_shift);
}

static int64_t spill_steps(void *ctx, uint64_t bytes, cb_consumer *asker);

/** Fills in the defaults, or names the rule that is broken; Flink's rules, in its order. */
static cb_status check_options(cb_segment_pool_options *o, cb_error *err) {
    if (o->struct_size != sizeof *o || o->task == NULL || o->type > CB_SEGMENTS_OFF_HEAP) {
        return cbi_fail(err, CB_EINVAL,
                        "A segment pool needs a task, a type, and options of %zu bytes.",
                        sizeof *o);
    }
    if (o->segment_bytes == 0) {
        o->segment_bytes = CB_SEGMENT_BYTES_DEFAULT;
    }
    if (o->segments_max == 0 && o->bytes == 0) {
        return cbi_fail(err, CB_EINVAL, "A segment pool needs bytes: it was given 0.");
    }
    if (o->segment_bytes < CB_SEGMENT_BYTES_MIN ||
        (o->segment_bytes & (o->segment_bytes - 1)) != 0) {
        return cbi_fail(err, CB_EINVAL,
                        "A segment must have a power of two of at least %d bytes, not %zu.",
                        (int)CB_SEGMENT_BYTES_MIN, o->segment_bytes);
    }
    if (o->segments_max == 0 && o->bytes < o->segment_bytes) {
        return cbi_fail(err, CB_EINVAL,
                        "The %" PRIu64 " bytes of a segment pool are less than one segment of %zu.",
                        o->bytes, o->segment_bytes);
    }
    uint64_t count = o->segments_max > 0 ? o->segments_max : o->bytes / o->segment_bytes;
    if (count > INT32_MAX || count > INT64_MAX / o->segment_bytes) {
        return cbi_fail(err, CB_EINVAL,
                        "A pool cannot have %" PRIu64 " segments of %zu bytes: at most %d.", count,
                        o->segment_bytes, INT32_MAX);
    }
    o->segments_max = (size_t)count;
    o->slots = o->slots > 0 ? o->slots : 1;
    return CB_OK;
}

static cb_status create_parts(cb_segment_pool *p, const cb_segment_pool_options *o, cb_error *err) {
    size_t words = ((size_t)p->count + BITS - 1) / BITS;
    p->free_bits = cbi_calloc(words, sizeof *p->free_bits);
    p->links = cbi_calloc(p->count, sizeof *p->links);
    p->paid_bits = cbi_calloc(((size_t)steps_of(p) + BITS - 1) / BITS, sizeof *p->paid_bits);
    if (p->free_bits == NULL || p->links == NULL || p->paid_bits == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for the tables of %u segments.",
                        p->count);
    }
    for (uint32_t i = 0; i < p->count; i++) {
        bit_set(p->free_bits, i);
    }
    cb_consumer_options consumer = {.struct_size = sizeof consumer,
                                    .name = o->name != NULL ? o->name : "segments",
                                    .mode = p->mode,
                                    .spill = o->preallocate ? NULL : spill_steps,
                                    .ctx = p};
    CB_TRY(cb_consumer_create(o->task, &consumer, &p->consumer, err));
    if (o->preallocate) {
        CB_TRY(cb_consumer_acquire_all(p->consumer, p->bytes, err));
    }
    p->base = cbi_map_pages(p->bytes, o->huge_pages);
    if (p->base == NULL) {
        return cbi_fail_bytes(err, CB_ENOMEM, p->bytes, 0,
                              "The system refused %zu bytes of addresses.", p->bytes);
    }
    return CB_OK;
}

static cb_mode mode_of(const cb_segment_pool_options *o) {
    if (o->type == CB_SEGMENTS_AS_MANAGER) {
        return cb_task_manager(o->task)->mode;
    }
    return o->type == CB_SEGMENTS_HEAP ? CB_HEAP : CB_OFF_HEAP;
}

cb_status cb_segment_pool_create(const cb_segment_pool_options *options, cb_segment_pool **pool,
                                 cb_error *err) {
    cb_segment_pool_options filled = *options, *o = &filled;
    CB_TRY(check_options(o, err));
    cb_segment_pool *p = cbi_calloc(1, sizeof *p);
    if (p == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a segment pool.");
    }
    cbi_lock_init(&p->lock, CBI_RANK_SEGMENTS);
    p->count = (uint32_t)o->segments_max;
    p->bytes = o->segments_max * o->segment_bytes;
    p->shift = (uint32_t)__builtin_ctzll(o->segment_bytes);
    while (o->segment_bytes << p->step_shift < STEP_BYTES) {
        p->step_shift++;
    }
    p->preallocated = o->preallocate;
    p->slots = o->slots;
    p->mode = mode_of(o);
    p->top = NONE;
    p->stack_is_paid = true;
    p->free_count = p->count;
    cb_status status = create_parts(p, o, err);
    if (status != CB_OK) {
        cb_segment_pool_destroy(p);
        return status;
    }
    *pool = p;
    return CB_OK;
}

void cb_segment_pool_destroy(cb_segment_pool *p) {
    if (p == NULL) {
        return;
    }
    if (p->base != NULL) {
        cbi_sys_unmap(p->base, p->bytes);
    }
    cb_consumer_destroy(p->consumer);
    cbi_segment_owners_free(p);
    cbi_free(p->stamps);
    cbi_free(p->free_bits);
    cbi_free(p->paid_bits);
    cbi_free(p->links);
    cbi_free(p);
}

/* ---- paying ---- */

static uint64_t step_bytes(const cb_segment_pool *p, uint32_t step) {
    uint64_t begin = (uint64_t)step << p->step_shift << p->shift;
    uint64_t bytes = (uint64_t)1 << p->step_shift << p->shift;
    return begin + bytes <= p->bytes ? bytes : p->bytes - begin;
}

/** Bytes of the steps of segments [first, first + count) that are not paid for; they are from now
 *  on when `pay`. */
static uint64_t unpaid(cb_segment_pool *p, uint32_t first, uint32_t count, bool pay) {
    if (p->preallocated) {
        return 0;
    }
    uint32_t begin = first >> p->step_shift, end = ((first + count - 1) >> p->step_shift) + 1;
    uint64_t bytes = 0;
    for (uint32_t step = begin; step < end; step++) {
        bytes += bit_get(p->paid_bits, step) ? 0 : step_bytes(p, step);
        if (pay) {
            bit_set(p->paid_bits, step);
        }
    }
    return bytes;
}

static bool step_is_free(const cb_segment_pool *p, uint32_t step) {
    uint32_t begin = step << p->step_shift, end = begin + (1u << p->step_shift);
    end = end < p->count ? end : p->count;
    return bit_find(p->free_bits, begin, end, false) == end;
}

static int64_t spill_steps(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)asker;
    cb_segment_pool *p = ctx;
    uint64_t released = 0;
    cbi_lock_take(&p->lock);
    for (uint32_t step = steps_of(p); step-- > 0 && released < bytes;) {
        if (bit_get(p->paid_bits, step) && step_is_free(p, step)) {
            bit_clear(p->paid_bits, step);
            p->stack_is_paid = false;
            cbi_sys_discard(p->base + ((size_t)step << p->step_shift << p->shift),
                            step_bytes(p, step));
            released += step_bytes(p, step);
        }
    }
    cbi_lock_give(&p->lock);
    if (released > 0) {
        cb_consumer_release(p->consumer, released);
    }
    return (int64_t)released;
}

/* ---- taking and giving ---- */

static void stack_push(cb_segment_pool *p, uint32_t i) {
    p->links[i] = (cbi_segment_link){.above = NONE, .below = p->top};
    if (p->top != NONE) {
        p->links[p->top].above = i;
    }
    p->top = i;
}

static void stack_unlink(cb_segment_pool *p, uint32_t i) {
    cbi_segment_link l = p->links[i];
    if (l.above != NONE) {
        p->links[l.above].below = l.below;
    } else {
        p->top = l.below;
    }
    if (l.below != NONE) {
        p->links[l.below].above = l.above;
    }
}

/** Takes free segments out of bitmap and stack. */
static void mark_taken(cb_segment_pool *p, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++) {
        bit_clear(p->free_bits, i);
        if (i < p->frontier) {
            stack_unlink(p, i);
        }
    }
    if (first + count > p->frontier) {
        for (uint32_t i = first; i-- > p->frontier;) { /* a run from the top */
            stack_push(p, i);                          /* the lowest is taken next */
        }
        p->frontier = first + count;
    }
    cbi_segment_count_free(p, -(int64_t)count);
}

/** First fit; a single one: last given first, then a fresh one. NONE when there is no such run. */
static uint32_t find_run(const cb_segment_pool *p, uint32_t count) {
    if (count == 1) {
        uint32_t one = p->top != NONE ? p->top : p->frontier;
        if (CBI_UNLIKELY(p->lowest_first)) {
            one = bit_find(p->free_bits, 0, p->count, true);
        }
        return one < p->count ? one : NONE;
    }
    uint32_t i = bit_find(p->free_bits, 0, p->count, true);
    while (i < p->count && p->count - i >= count) {
        uint32_t end = bit_find(p->free_bits, i, i + count, false);
        if (end == i + count) {
            return i;
        }
        i = bit_find(p->free_bits, end, p->count, true);
    }
    return NONE;
}

/** Last fit. */
static uint32_t find_highest_run(const cb_segment_pool *p, uint32_t count) {
    uint32_t length = 0;
    for (uint32_t i = p->count; i-- > 0;) {
        length = bit_get(p->free_bits, i) ? length + 1 : 0;
        if (length == count) {
            return i;
        }
    }
    return NONE;
}

/** Any free one in a step that is paid for. */
static uint32_t find_paid(const cb_segment_pool *p) {
    uint32_t steps = steps_of(p);
    for (uint32_t step = bit_find(p->paid_bits, 0, steps, true); step < steps;
         step = bit_find(p->paid_bits, step + 1, steps, true)) {
        uint32_t begin = step << p->step_shift, end = begin + (1u << p->step_shift);
        end = end < p->count ? end : p->count;
        uint32_t i = bit_find(p->free_bits, begin, end, true);
        if (i < end && i <= p->frontier) {
            return i;
        }
    }
    return NONE;
}

/**
 * [pool's lock held] The lock is not held while the task is asked: an answer can take an eviction
 * or the parent, which may come back to this pool's spill function. What was got meanwhile is in
 * *credit, whatever the pool looks like by then.
 */
static uint32_t find_and_pay(cb_segment_pool *p, uint32_t count, bool highest, uint64_t *credit) {
    for (;;) {
        uint32_t i = highest ? find_highest_run(p, count) : find_run(p, count);
        uint64_t due = i != NONE ? unpaid(p, i, count, false) : 0;
        if (CBI_LIKELY(due <= *credit)) {
            if (i != NONE && due > 0) {
                *credit -= unpaid(p, i, count, true);
            }
            return i;
        }
        cbi_lock_give(&p->lock);
        bool granted = cbi_task_try_acquire(p->consumer, due - *credit);
        cbi_lock_take(&p->lock);
        if (!granted) {
            return count == 1 ? find_paid(p) : NONE;
        }
        *credit = due;
    }
}

void cbi_segment_pool_lowest_first(cb_segment_pool *p) {
    cbi_lock_take(&p->lock);
    p->lowest_first = true;
    cbi_lock_give(&p->lock);
}

uint32_t cbi_segment_take_one(cb_segment_pool *p, uint64_t *credit) {
    uint32_t i = find_and_pay(p, 1, false, credit);
    if (CBI_LIKELY(i != NONE)) {
        mark_taken(p, i, 1);
    }
    return i;
}

void cbi_segment_put(cb_segment_pool *p, uint32_t i) {
    cb_assert(!bit_get(p->free_bits, i) && "a segment was given back twice");
    bit_set(p->free_bits, i);
    stack_push(p, i);
    cbi_segment_count_free(p, 1);
}

static void *take(cb_segment_pool *p, size_t count, bool highest) {
    if (count == 0 || count > p->count) {
        return NULL;
    }
    uint64_t credit = 0;
    cbi_lock_take(&p->lock);
    uint32_t i = find_and_pay(p, (uint32_t)count, highest, &credit);
    if (i != NONE) {
        mark_taken(p, i, (uint32_t)count);
    }
    cbi_lock_give(&p->lock);
    if (CBI_UNLIKELY(credit > 0)) {
        cb_consumer_release(p->consumer, credit);
    }
    return i != NONE ? p->base + ((size_t)i << p->shift) : NULL;
}

void *cb_segment_pool_take(cb_segment_pool *p, size_t count) {
    return take(p, count, false);
}

void *cbi_segment_pool_take_highest(cb_segment_pool *p, size_t count) {
    cb_assert(p->preallocated); /* the stack would get segments that nobody has paid for */
    return take(p, count, true);
}

void cb_segment_pool_give(cb_segment_pool *p, void *base, size_t count) {
    size_t offset = (size_t)((uint8_t *)base - p->base);
    cb_assert((uint8_t *)base >= p->base && offset < p->bytes);
    cb_assert((offset & (((size_t)1 << p->shift) - 1)) == 0);
    uint32_t first = (uint32_t)(offset >> p->shift);
    cb_assert(count > 0 && count <= p->count - first);
    cbi_lock_take(&p->lock);
    for (uint32_t i = first + (uint32_t)count; i-- > first;) {
        cb_assert((p->stamps == NULL || (p->stamps[i] & 1) == 0) && "the segment has an owner");
        cbi_segment_put(p, i);
    }
    cbi_lock_give(&p->lock);
}

size_t cb_segment_pool_free_count(const cb_segment_pool *p) {
    return atomic_load_explicit(&p->free_count, memory_order_relaxed);
}

size_t cb_segment_pool_segment_bytes(const cb_segment_pool *p) {
    return (size_t)1 << p->shift;
}

uint8_t *cb_segment_pool_base(const cb_segment_pool *p) {
    return p->base;
}

/* ---- the pool as a whole ---- */

cb_status cb_segment_pool_shutdown(cb_segment_pool *p, cb_error *err) {
    cbi_lock_take(&p->lock);
    uint32_t out = p->shut_down ? 0 : p->count - atomic_load(&p->free_count) - cbi_segment_owned(p);
    bool now = !p->shut_down && out == 0;
    if (now) {
        p->shut_down = true;
        cbi_segment_owners_disown(p);
        memset(p->free_bits, 0, ((size_t)p->count + BITS - 1) / BITS * sizeof *p->free_bits);
        memset(p->paid_bits, 0, ((size_t)steps_of(p) + BITS - 1) / BITS * sizeof *p->paid_bits);
        p->top = NONE;
        p->frontier = p->count;
        atomic_store(&p->free_count, 0);
    }
    cbi_lock_give(&p->lock);
    if (out > 0) {
        return cbi_fail(err, CB_EMISUSE,
                        "The segment pool cannot be shut down: %u segments are out that have no "
                        "owner. Give them back first.",
                        out);
    }
    if (now) {
        cbi_sys_discard(p->base, p->bytes);
        cb_consumer_release(p->consumer, cb_consumer_used(p->consumer));
    }
    return CB_OK;
}

void cb_segment_pool_get_stats(const cb_segment_pool *pool, cb_segment_pool_stats *stats) {
    cb_segment_pool *p = (cb_segment_pool *)pool; /* for its lock */
    cbi_lock_take(&p->lock);
    uint32_t free_count = atomic_load_explicit(&p->free_count, memory_order_relaxed);
    *stats = (cb_segment_pool_stats){.segments = p->count,
                                     .taken = p->shut_down ? 0 : p->count - free_count,
                                     .owned = cbi_segment_owned(p),
                                     .segment_bytes = (size_t)1 << p->shift,
                                     .mode = p->mode,
                                     .preallocated = p->preallocated,
                                     .empty = free_count == p->count,
                                     .shut_down = p->shut_down};
    cbi_lock_give(&p->lock);
}

cb_status cb_segment_pool_share(const cb_segment_pool *p, double fraction, size_t *segments,
                                cb_error *err) {
    if (!(fraction > 0 && fraction <= 1)) {
        return cbi_fail(err, CB_EINVAL,
                        "A share of a segment pool must be above 0 and at most 1, not %g.",
                        fraction);
    }
    *segments = (size_t)(p->count * fraction / p->slots);
    return CB_OK;
}

uint64_t cb_segment_pool_round_down(const cb_segment_pool *p, uint64_t bytes) {
    return bytes >> p->shift << p->shift;
}
