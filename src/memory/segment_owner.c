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
    o->pool->owned = (uint32_t)(o->pool->owned + delta);
}

/* ---- owners ---- */

cb_status cb_segment_owner_create(cb_segment_pool *p, const char *name, cb_segment_owner **owner,
                                  cb_error *err) {
    cb_segment_owner *o = cbi_calloc(1, sizeof *o);
    uint32_t *stamps = NULL;
    cbi_lock_take(&p->lock);
    bool first = p->stamps == NULL;
    cbi_lock_give(&p->lock);
    if (first) {
        stamps = cbi_calloc(p->count, sizeof *stamps);
    }
    if (o == NULL || (first && stamps == NULL)) {
        cbi_free(o);
        cbi_free(stamps);
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for an owner of segments.");
    }
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
    cbi_free(o);
}

void cbi_segment_owners_free(cb_segment_pool *p) {
    while (p->owners != NULL) {
        cb_segment_owner *next = p->owners->next;
        cbi_free(p->owners);
        p->owners = next;
    }
}

const char *cb_segment_owner_name(const cb_segment_owner *o) {
    return o->name;
}

size_t cb_segment_owner_count(const cb_segment_owner *o) {
    return count_of(o);
}

static cb_segment handle_of(cb_segment_owner *o, uint32_t i) {
    const cb_segment_pool *p = o->pool;
    return (cb_segment){.data = cbi_segment_at(p, i),
                        .stamp = &p->stamps[i],
                        .generation = p->stamps[i],
                        .bytes = (uint32_t)1 << p->shift,
                        .owner = o};
}

size_t cb_segment_owner_list(const cb_segment_owner *owner, cb_segment *segments, size_t max) {
    cb_segment_owner *o = (cb_segment_owner *)owner; /* handles are for changing it */
    cb_segment_pool *p = o->pool;
    cbi_lock_take(&p->lock);
    size_t count = count_of(o), written = 0;
    for (uint32_t i = o->first; i != NONE && written < max; i = p->links[i].below) {
        segments[written++] = handle_of(o, i);
    }
    cbi_lock_give(&p->lock);
    return count;
}

/* ---- taking ---- */

static void adopt(cb_segment_owner *o, uint32_t i) {
    cb_segment_pool *p = o->pool;
    p->links[i] = (cbi_segment_link){.above = NONE, .below = o->first};
    if (o->first != NONE) {
        p->links[o->first].above = i;
    }
    o->first = i;
    cbi_stamp_set(&p->stamps[i], p->stamps[i] + 1);
}

/** [locked] Up to `count`, as a chain through `below`; answers how many. */
static size_t take_chain(cb_segment_pool *p, size_t count, uint32_t *chain, uint64_t *credit) {
    size_t got = 0;
    *chain = NONE;
    while (got < count) {
        uint32_t i = cbi_segment_take_one(p, credit);
        if (CBI_UNLIKELY(i == NONE)) {
            break;
        }
        p->links[i].below = *chain;
        *chain = i;
        got++;
    }
    return got;
}

/** [locked] The chain's segments are the owner's; handles in the order in which they were taken. */
static void adopt_chain(cb_segment_owner *o, uint32_t chain, size_t count, cb_segment *segments) {
    while (count > 0) {
        uint32_t next = o->pool->links[chain].below;
        adopt(o, chain);
        segments[--count] = handle_of(o, chain);
        chain = next;
    }
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

cb_status cb_segment_take(cb_segment_owner *o, size_t count, cb_segment *segments, cb_error *err) {
    cb_segment_pool *p = o->pool;
    uint64_t credit = 0;
    uint32_t chain = NONE;
    size_t got = 0;
    cbi_lock_take(&p->lock);
    uint32_t free_now = atomic_load_explicit(&p->free_count, memory_order_relaxed);
    bool shut_down = p->shut_down;
    if (CBI_LIKELY(count <= free_now)) {
        got = take_chain(p, count, &chain, &credit);
    }
    bool done = got == count && !shut_down;
    if (CBI_LIKELY(done)) {
        adopt_chain(o, chain, count, segments);
        add_to_count(o, (int64_t)count);
    } else {
        for (; got > 0; got--) {
            uint32_t next = p->links[chain].below;
            cbi_segment_put(p, chain);
            chain = next;
        }
        shut_down = p->shut_down;
        free_now = atomic_load_explicit(&p->free_count, memory_order_relaxed);
    }
    cbi_lock_give(&p->lock);
    if (CBI_UNLIKELY(credit > 0)) {
        cb_consumer_release(p->consumer, credit);
    }
    return CBI_LIKELY(done) ? CB_OK : refuse(p, count, free_now, shut_down, err);
}

/* ---- giving ---- */

/** [locked] Out of its owner's list and free. Its stamp has been raised. */
static void disown(cb_segment_owner *o, uint32_t i) {
    cb_segment_pool *p = o->pool;
    cbi_segment_link l = p->links[i];
    *(l.above != NONE ? &p->links[l.above].below : &o->first) = l.below;
    if (l.below != NONE) {
        p->links[l.below].above = l.above;
    }
    cbi_segment_put(p, i);
    add_to_count(o, -1);
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
        cbi_stamp_set(stamp, s->generation + 1);
        disown(o, (uint32_t)(stamp - p->stamps));
    }
    cbi_lock_give(&p->lock);
    if (CBI_UNLIKELY(!valid)) {
        return fail_stale(s, err);
    }
    clear(s);
    return CB_OK;
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
        for (size_t i = 0; i < count; i++) {
            disown(segments[i].owner, (uint32_t)(segments[i].stamp - p->stamps));
            clear(&segments[i]);
        }
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
    for (uint32_t i = o->first; i != NONE;) {
        uint32_t next = p->links[i].below;
        cbi_stamp_set(&p->stamps[i], p->stamps[i] + 1);
        cbi_segment_put(p, i);
        i = next;
    }
    o->first = NONE;
    add_to_count(o, -(int64_t)count);
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
