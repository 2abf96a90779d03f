/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds which segments.
 *
 * A segment's two links, which thread the stack of free ones, thread the list of its owner while it
 * is taken: so giving back all of an owner's, or one out of the middle, needs no table but a stamp
 * a segment. The stamp counts up whenever the segment gets an owner (odd) or loses it (even). A
 * handle carries the stamp it was made with; a handle of older times does not match, whoever has
 * the segment now. That is all there is to catching use after free, and it costs a load and a
 * compare.
 */
#include "memory/segment.h"

#include "base/alloc.h"

#define NONE CBI_SEGMENT_NONE

static uint32_t count_of(const cb_segment_owner *o) {
    return atomic_load_explicit(&o->count, memory_order_relaxed);
}

static void add_to_count(cb_segment_owner *o, int64_t delta) {
    atomic_store_explicit(&o->count, (uint32_t)(count_of(o) + delta), memory_order_relaxed);
}

uint32_t cbi_segment_owned(const cb_segment_pool *p) {
    uint32_t count = 0;
    for (const cb_segment_owner *o = p->owners; o != NULL; o = o->next) {
        count += count_of(o);
    }
    return count;
}

/* ---- owners ---- */

cb_status cb_segment_owner_create(cb_segment_pool *p, const char *name, cb_segment_owner **owner,
                                  cb_error *err) {
    void *raw = cbi_calloc(1, sizeof(cb_segment_owner) + CBI_CACHE_LINE);
    uint32_t *stamps = NULL;
    cbi_lock_take(&p->lock);
    bool first = p->stamps == NULL;
    cbi_lock_give(&p->lock);
    if (first) {
        stamps = cbi_calloc(p->count, sizeof *stamps);
    }
    if (raw == NULL || (first && stamps == NULL)) {
        cbi_free(raw);
        cbi_free(stamps);
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for an owner of segments.");
    }
    cb_segment_owner *o =
        (cb_segment_owner *)cbi_round_up((uintptr_t)raw, CBI_CACHE_LINE); /* see its struct */
    o->raw = raw;
    o->pool = p;
    o->first = NONE;
    cbi_name_copy(o->name, name != NULL ? name : "owner");
    cbi_lock_take(&p->lock);
    if (p->stamps == NULL) {
        p->stamps = stamps;
        stamps = NULL;
    }
    o->next = p->owners;
    if (p->owners != NULL) {
        p->owners->previous = o;
    }
    p->owners = o;
    cbi_lock_give(&p->lock);
    cbi_free(stamps); /* another thread was first */
    *owner = o;
    return CB_OK;
}

void cb_segment_owner_destroy(cb_segment_owner *o) {
    if (o == NULL) {
        return;
    }
    (void)cb_segment_owner_give_all(o);
    cb_segment_pool *p = o->pool;
    cbi_lock_take(&p->lock);
    *(o->previous != NULL ? &o->previous->next : &p->owners) = o->next;
    if (o->next != NULL) {
        o->next->previous = o->previous;
    }
    cbi_lock_give(&p->lock);
    cbi_free(o->raw);
}

void cbi_segment_owners_free(cb_segment_pool *p) {
    while (p->owners != NULL) {
        cb_segment_owner *next = p->owners->next;
        cbi_free(p->owners->raw);
        p->owners = next;
    }
}

const char *cb_segment_owner_name(const cb_segment_owner *o) {
    return o->name;
}

size_t cb_segment_owner_segment_bytes(const cb_segment_owner *o) {
    return (size_t)1 << o->pool->shift;
}

size_t cb_segment_owner_count(const cb_segment_owner *o) {
    return count_of(o);
}

static inline void fill_handle(cb_segment *s, cb_segment_owner *o, const cb_segment_pool *p,
                               uint32_t i) {
    s->data = cbi_segment_at(p, i);
    s->stamp = &p->stamps[i];
    s->generation = p->stamps[i];
    s->bytes = (uint32_t)1 << p->shift;
    s->owner = o;
}

size_t cb_segment_owner_list(const cb_segment_owner *owner, cb_segment *segments, size_t max) {
    cb_segment_owner *o = (cb_segment_owner *)owner; /* handles are for changing it */
    cb_segment_pool *p = o->pool;
    cbi_lock_take(&p->lock);
    size_t count = count_of(o), written = 0;
    for (uint32_t i = o->first; i != NONE && written < max; i = p->links[i].below) {
        fill_handle(&segments[written++], o, p, i);
    }
    cbi_lock_give(&p->lock);
    return count;
}

/* ---- taking ---- */

/** [locked] Whose `count` segments [first, last] were on the stack one after the other and are the
 *  owner's now: they stay linked as they were. */
static void splice_to_owner(cb_segment_owner *o, uint32_t first, uint32_t last, size_t count) {
    cbi_segment_link *links = o->pool->links;
    links[first].above = NONE;
    links[last].below = o->first;
    if (o->first != NONE) {
        links[o->first].above = last;
    }
    o->first = first;
    add_to_count(o, (int64_t)count);
}

/** [locked] `count` > 0 segments from the top of the stack, which has them, paid for. */
static inline void take_stacked(cb_segment_owner *o, size_t count, cb_segment *segments) {
    cb_segment_pool *p = o->pool;
    uint32_t first = p->top, last = first, i = first;
    for (size_t k = 0; k < count; k++) {
        cbi_stamp_set(&p->stamps[i], p->stamps[i] + 1);
        p->free_bits[i / 64] &= ~((uint64_t)1 << (i % 64));
        fill_handle(&segments[k], o, p, i);
        last = i;
        i = p->links[i].below;
    }
    p->top = i;
    if (i != NONE) {
        p->links[i].above = NONE;
    }
    cbi_segment_count_free(p, -(int64_t)count);
    splice_to_owner(o, first, last, count);
}

/** [locked] The same for one, which is what most ask for. */
static inline void take_top(cb_segment_owner *o, cb_segment_pool *p, cb_segment *segment) {
    cbi_segment_link *links = p->links;
    uint32_t i = p->top, below = links[i].below, first = o->first;
    p->top = below;
    if (below != NONE) {
        links[below].above = NONE;
    }
    links[i].below = first; /* above it is nothing, in the stack as in the list */
    if (first != NONE) {
        links[first].above = i;
    }
    o->first = i;
    uint32_t *stamp = &p->stamps[i], generation = *stamp + 1;
    cbi_stamp_set(stamp, generation);
    p->free_bits[i / 64] &= ~((uint64_t)1 << (i % 64));
    cbi_segment_count_free(p, -1);
    add_to_count(o, 1);
    segment->data = cbi_segment_at(p, i);
    segment->stamp = stamp;
    segment->generation = generation;
    segment->bytes = (uint32_t)1 << p->shift;
    segment->owner = o;
}

/** [locked] Up to `count`, as a list through both links; answers how many. */
static size_t take_list(cb_segment_pool *p, size_t count, uint32_t *first, uint32_t *last,
                        uint64_t *credit) {
    size_t got = 0;
    *first = *last = NONE;
    for (; got < count; got++) {
        uint32_t i = cbi_segment_take_one(p, credit);
        if (i == NONE) {
            break;
        }
        p->links[i] = (cbi_segment_link){.above = *last, .below = NONE};
        *(*last != NONE ? &p->links[*last].below : first) = i;
        *last = i;
    }
    return got;
}

static cb_status refuse(const cb_segment_pool *p, size_t count, uint32_t free_now, bool shut_down,
                        cb_error *err) {
    if (shut_down) {
        return cbi_fail(err, CB_EMISUSE, "The segment pool has been shut down.");
    }
    uint64_t asked = (uint64_t)count << p->shift;
    if (count > free_now) {
        return cbi_fail_bytes(err, CB_EBUDGET, asked, (uint64_t)free_now << p->shift,
                              "Could not allocate %zu segments of %zu bytes. Only %u of the pool's "
                              "%u are free: give some back, or make the pool larger.",
                              count, (size_t)1 << p->shift, free_now, p->count);
    }
    return cbi_fail_bytes(err, CB_EBUDGET, asked, 0,
                          "Could not allocate %zu segments of %zu bytes. %u of the pool's %u are "
                          "free, but its task cannot have the bytes now.",
                          count, (size_t)1 << p->shift, free_now, p->count);
}

/** [locked] Segments that were never taken, or have to be paid for. False: not so many can be had,
 *  and none is taken. */
static bool take_others(cb_segment_owner *o, size_t count, cb_segment *segments, uint64_t *credit) {
    cb_segment_pool *p = o->pool;
    uint32_t first, last;
    size_t got = take_list(p, count, &first, &last, credit);
    if (got < count || p->shut_down) {
        for (uint32_t i = last; got > 0; got--) {
            uint32_t above = p->links[i].above;
            cbi_segment_put(p, i);
            i = above;
        }
        return false;
    }
    uint32_t i = first;
    for (size_t k = 0; k < count; k++) {
        cbi_stamp_set(&p->stamps[i], p->stamps[i] + 1);
        fill_handle(&segments[k], o, p, i);
        i = p->links[i].below;
    }
    if (count > 0) {
        splice_to_owner(o, first, last, count);
    }
    return true;
}

static __attribute__((noinline)) cb_status take_slowly(cb_segment_owner *o, size_t count,
                                                       cb_segment *segments, cb_error *err) {
    cb_segment_pool *p = o->pool;
    uint64_t credit = 0;
    cbi_lock_take(&p->lock);
    bool done = count <= atomic_load_explicit(&p->free_count, memory_order_relaxed) &&
                take_others(o, count, segments, &credit);
    bool shut_down = p->shut_down;
    uint32_t free_now = atomic_load_explicit(&p->free_count, memory_order_relaxed);
    cbi_lock_give(&p->lock);
    if (credit > 0) {
        cb_consumer_release(p->consumer, credit);
    }
    return done ? CB_OK : refuse(p, count, free_now, shut_down, err);
}

cb_status cb_segment_take(cb_segment_owner *o, size_t count, cb_segment *segments, cb_error *err) {
    cb_segment_pool *p = o->pool;
    cbi_lock_take(&p->lock);
    bool stacked = count - 1 < cbi_segment_stacked(p) && p->stack_is_paid; /* and is not 0 */
    if (CBI_LIKELY(stacked)) {
        if (CBI_LIKELY(count == 1)) {
            take_top(o, p, segments);
        } else {
            take_stacked(o, count, segments);
        }
    }
    cbi_lock_give(&p->lock);
    return CBI_LIKELY(stacked) ? CB_OK : take_slowly(o, count, segments, err);
}

/* ---- giving ---- */

/** [locked] [first, last], `count` of them, follow one another in the owner's list and go to the
 *  stack as they are. Stamps and bits have been seen to. */
static inline void splice_to_stack(cb_segment_owner *o, uint32_t first, uint32_t last,
                                   size_t count) {
    cb_segment_pool *p = o->pool;
    cbi_segment_link *links = p->links;
    uint32_t above = links[first].above, below = links[last].below;
    if (above != NONE) {
        links[above].below = below;
    } else {
        o->first = below;
    }
    if (below != NONE) {
        links[below].above = above;
    }
    links[first].above = NONE;
    links[last].below = p->top;
    if (p->top != NONE) {
        links[p->top].above = last;
    }
    p->top = first;
    cbi_segment_count_free(p, (int64_t)count);
    add_to_count(o, -(int64_t)count);
}

/** [locked] Free from now on; its stamp is even already. */
static inline void mark_free(cb_segment_pool *p, uint32_t i) {
    p->free_bits[i / 64] |= (uint64_t)1 << (i % 64);
}

static void clear(cb_segment *s) {
    s->data = NULL;
    s->bytes = 0;
}

static cb_status fail_stale(const cb_segment *s, cb_error *err) {
    if (s->stamp == NULL) {
        return cbi_fail(err, CB_EMISUSE, "This is no segment: the handle was never filled.");
    }
    if (s->owner == NULL) {
        return cbi_fail(err, CB_EMISUSE,
                        "This segment is wrapped memory: no pool has given it, none takes it.");
    }
    return cbi_fail(err, CB_EMISUSE, "The segment has been given back before.");
}

cb_status cb_segment_give(cb_segment *s, cb_error *err) {
    if (CBI_UNLIKELY(s->stamp == NULL || s->owner == NULL ||
                     cbi_stamp_get(s->stamp) != s->generation)) {
        return fail_stale(s, err); /* before the owner is looked at: it may be gone */
    }
    cb_segment_owner *o = s->owner;
    cb_segment_pool *p = o->pool;
    uint32_t *stamp = (uint32_t *)s->stamp;
    cbi_lock_take(&p->lock);
    bool valid = *stamp == s->generation;
    if (CBI_LIKELY(valid)) {
        uint32_t i = (uint32_t)(stamp - p->stamps);
        cbi_stamp_set(stamp, s->generation + 1);
        mark_free(p, i);
        splice_to_stack(o, i, i, 1);
    }
    cbi_lock_give(&p->lock);
    if (CBI_UNLIKELY(!valid)) {
        return fail_stale(s, err);
    }
    clear(s);
    return CB_OK;
}

/** [locked] Gives those back whose stamps were raised; those that stand in the list as in their
 *  owner's go together. */
static void give_retired(cb_segment_pool *p, cb_segment *segments, size_t count) {
    for (size_t k = 0; k < count;) {
        cb_segment_owner *o = segments[k].owner;
        uint32_t first = (uint32_t)(segments[k].stamp - p->stamps), last = first;
        size_t begin = k;
        for (;;) {
            mark_free(p, last);
            clear(&segments[k]);
            k++;
            uint32_t below = p->links[last].below;
            if (k == count || (uint32_t)(segments[k].stamp - p->stamps) != below) {
                break;
            }
            last = below;
        }
        splice_to_stack(o, first, last, k - begin);
    }
}

/** [locked] Raises the stamps of all, or of none: answers how many could be. */
static size_t retire_all(const cb_segment_pool *p, const cb_segment *segments, size_t count) {
    size_t i = 0;
    for (; i < count; i++) {
        const cb_segment *s = &segments[i];
        if (s->stamp == NULL || s->owner == NULL || cbi_stamp_get(s->stamp) != s->generation ||
            s->owner->pool != p) {
            break;
        }
        cbi_stamp_set((uint32_t *)s->stamp, s->generation + 1);
    }
    if (i < count) {
        for (size_t k = 0; k < i; k++) {
            cbi_stamp_set((uint32_t *)segments[k].stamp, segments[k].generation);
        }
    }
    return i;
}

cb_status cb_segment_give_list(cb_segment *segments, size_t count, cb_error *err) {
    if (count == 0) {
        return CB_OK;
    }
    if (segments[0].stamp == NULL || segments[0].owner == NULL ||
        cbi_stamp_get(segments[0].stamp) != segments[0].generation) {
        return fail_stale(&segments[0], err);
    }
    cb_segment_pool *p = segments[0].owner->pool;
    cbi_lock_take(&p->lock);
    size_t valid = retire_all(p, segments, count);
    if (valid == count) {
        give_retired(p, segments, count);
    }
    cbi_lock_give(&p->lock);
    if (valid < count) {
        return cbi_fail(err, CB_EMISUSE,
                        "Segment %zu of the %zu in the list has been given back before, is twice "
                        "in it, or is another pool's: none was given back.",
                        valid, count);
    }
    return CB_OK;
}

size_t cb_segment_owner_give_all(cb_segment_owner *o) {
    cb_segment_pool *p = o->pool;
    cbi_lock_take(&p->lock);
    size_t count = count_of(o);
    uint32_t last = o->first;
    for (uint32_t i = o->first; i != NONE; i = p->links[i].below) {
        cbi_stamp_set(&p->stamps[i], p->stamps[i] + 1);
        mark_free(p, i);
        last = i;
    }
    if (count > 0) {
        splice_to_stack(o, o->first, last, count);
    }
    cbi_lock_give(&p->lock);
    return count;
}

void cbi_segment_owners_disown(cb_segment_pool *p) {
    for (cb_segment_owner *o = p->owners; o != NULL; o = o->next) {
        for (uint32_t i = o->first; i != NONE; i = p->links[i].below) {
            cbi_stamp_set(&p->stamps[i], p->stamps[i] + 1);
        }
        o->first = NONE;
        add_to_count(o, -(int64_t)count_of(o));
    }
}
