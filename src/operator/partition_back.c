/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "operator/partition_private.h"

/* ---- coming back ---- */

cb_status cbi_partitions_make_room(cbi_partitions *p, uint32_t above, size_t segments,
                                   cb_error *err) {
    if (p->o.spill == NULL)
        return CB_OK;
    cb_status status = CB_OK;
    cbi_mutex_lock(&p->mutex);
    parts_close_open(p, above + 1);
    uint32_t i = p->o.count;
    for (;;) {
        status = parts_stopped(p, err);
        size_t free_now = cb_segment_pool_free_count(p->o.pool);
        if (status != CB_OK || free_now >= segments)
            break;
        while (i > above + 1 &&
               atomic_load_explicit(&p->parts[i - 1].full, memory_order_relaxed) == 0)
            i--;
        if (free_now + p->leaving < segments && i > above + 1) {
            status = parts_spill_batch(p, i - 1, err);
            if (status != CB_OK)
                break;
        } else if (p->leaving > 0) { /* what has just come back may be counted twice: looked at
                                        again after that */
            cbi_cond_wait(&p->changed, &p->mutex);
        } else {
            break;
        }
    }
    cbi_mutex_unlock(&p->mutex);
    return status;
}

/* Free segments for one extent, as the request's list; false when there are not enough (none kept).
 */
static bool take_for_extent(cbi_partitions *p, uint32_t shape, request *r) {
    if (shape & EXTENT_JUMBO) {
        uint32_t units = shape & EXTENT_UNITS;
        void *base = cb_segment_pool_take(p->o.pool, units);
        if (base == NULL)
            return false;
        r->segments[0] =
            (cbi_spill_segment){.base = base, .capacity = units * (uint32_t)p->o.segment_bytes};
        r->count = 1;
        r->units = units;
        return true;
    }
    for (uint32_t i = 0; i < shape; i++) {
        void *base = cb_segment_pool_take(p->o.pool, 1);
        if (base == NULL) {
            while (i-- > 0)
                cb_segment_pool_give(p->o.pool, r->segments[i].base, 1);
            return false;
        }
        r->segments[i] =
            (cbi_spill_segment){.base = base, .capacity = (uint32_t)p->o.segment_bytes};
    }
    r->count = r->units = shape;
    return true;
}

/* Starts what the request says. p->mutex not held: a thread may wait here for room in the queue. */
static cb_status read_extent(cbi_partitions *p, request *r, cbi_extent place, cb_error *err) {
    if (place.segments & EXTENT_JUMBO)
        place.segments = 1;
    cb_error local;
    cb_status status = cbi_spill_read(p->o.spill, r->index, r->extent, &place, r->segments,
                                      r->count, parts_request_done, r, &local);
    if (status != CB_OK) {
        parts_request_return(p, r, status, &local);
        if (err != NULL)
            *err = local;
    }
    return status;
}

/* Reads one extent behind the caller's back. CB_EAGAIN: no memory now. p->mutex held on entry and
 * exit. */
static cb_status load_extent(cbi_partitions *p, uint32_t index, uint32_t extent, bool last_read,
                             cb_error *err) {
    partition *part = &p->parts[index];
    request *r = parts_request_take(p);
    cbi_extent place = *cbi_extent_at(&part->extents, extent);
    r->write = false;
    r->last_read = last_read;
    r->index = index;
    r->extent = extent;
    if (!take_for_extent(p, place.segments, r)) {
        parts_request_idle(p, r);
        return CB_EAGAIN;
    }
    part->loading++;
    cbi_mutex_unlock(&p->mutex);
    cb_status status = read_extent(p, r, place, err);
    cbi_mutex_lock(&p->mutex);
    return status;
}

/* Giant rows that are not in yet: each wants segments in one piece. p->mutex held. */
static cb_status load_giants(cbi_partitions *p, uint32_t index, cb_error *err) {
    partition *part = &p->parts[index];
    for (uint32_t i = 0; part->units_max > 1 && i < part->extents.count; i++) {
        uint32_t shape = cbi_extent_at(&part->extents, i)->segments;
        if ((shape & EXTENT_LOADED) != 0 || (shape & EXTENT_JUMBO) == 0)
            continue;
        CB_TRY(load_extent(p, index, i, false, err));
        cbi_extent_at(&part->extents, i)->segments |= EXTENT_LOADED;
        part->segments_out -= shape & EXTENT_UNITS;
    }
    return CB_OK;
}

/*
 * A partition comes back as hundreds of small extents, more than there are requests. Whoever asked
 * for it must not stand and wait until the last one could be asked for: it has another partition
 * to work on. So the segments for all of it are set aside, the partition joins a list, and each
 * request that ends begins the next one.
 */
static bool reserve(cbi_partitions *p, partition *part, size_t segments) {
    for (; segments > 0; segments--) {
        cbi_segment *segment = cb_segment_pool_take(p->o.pool, 1);
        if (segment == NULL) {
            cbi_segments_give(p->o.pool, part->reserved);
            part->reserved = NULL;
            return false;
        }
        *segment = (cbi_segment){.next = part->reserved, .units = 1};
        part->reserved = segment;
    }
    return true;
}

static void use_reserved(cbi_partitions *p, partition *part, uint32_t count, request *r) {
    for (uint32_t i = 0; i < count; i++) {
        cbi_segment *segment = part->reserved;
        cb_assert(segment != NULL);
        part->reserved = segment->next;
        r->segments[i] = (cbi_spill_segment){.base = (uint8_t *)segment,
                                             .capacity = (uint32_t)p->o.segment_bytes};
    }
    r->count = r->units = count;
}

static void start_loading(cbi_partitions *p, uint32_t index) {
    partition *part = &p->parts[index];
    part->load_at = 0;
    part->load_next = PARTITION_NONE;
    part->load_pending = true;
    if (p->load_first == PARTITION_NONE)
        p->load_first = index;
    else
        p->parts[p->load_last].load_next = index;
    p->load_last = index;
}

/* Takes a partition out of the list. p->mutex held. */
static void stop_loading(cbi_partitions *p, uint32_t index) {
    partition *part = &p->parts[index];
    if (!part->load_pending)
        return;
    uint32_t before = PARTITION_NONE;
    for (uint32_t i = p->load_first; i != index; i = p->parts[i].load_next)
        before = i;
    if (before == PARTITION_NONE)
        p->load_first = part->load_next;
    else
        p->parts[before].load_next = part->load_next;
    if (p->load_last == index)
        p->load_last = before;
    part->load_pending = false;
}

/* The first in the list that has an extent to ask for; those that have none any more leave it. */
static partition *next_to_load(cbi_partitions *p, uint32_t *index) {
    while (p->load_first != PARTITION_NONE) {
        *index = p->load_first;
        partition *part = &p->parts[*index];
        while (part->load_at < part->extents.count &&
               (cbi_extent_at(&part->extents, part->load_at)->segments & EXTENT_LOADED) != 0)
            part->load_at++;
        if (part->load_at < part->extents.count)
            return part;
        stop_loading(p, *index);
    }
    return NULL;
}

void parts_continue_loading(cbi_partitions *p, unsigned most) {
    uint32_t index = 0;
    for (;;) {
        partition *part = next_to_load(p, &index);
        if (part == NULL || most == 0 || p->failed != CB_OK || p->idle_count <= REQUESTS_TO_WRITE)
            return;
        request *r = parts_request_take(p);
        most--;
        r->write = false;
        r->last_read = false;
        r->index = index;
        r->extent = part->load_at++;
        cbi_extent *extent = cbi_extent_at(&part->extents, r->extent);
        cbi_extent place = *extent;
        use_reserved(p, part, place.segments, r);
        extent->segments |= EXTENT_LOADED;
        part->segments_out -= place.segments;
        part->loading++;
        cbi_mutex_unlock(&p->mutex);
        (void)read_extent(p, r, place, NULL); /* a failure is noted for all */
        cbi_mutex_lock(&p->mutex);
    }
}

cb_status cbi_partition_load(cbi_partitions *p, uint32_t index, cb_error *err) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&p->mutex);
    if (part->segments_out > cb_segment_pool_free_count(p->o.pool)) {
        cbi_mutex_unlock(&p->mutex);
        return CB_EAGAIN;
    }
    /* Writes of this very partition may still be under way: their places are not known before they
     * are done. */
    cb_status status = parts_stopped(p, err);
    while (status == CB_OK && p->leaving > 0) {
        bool known = true;
        for (uint32_t i = part->extents.count; known && i-- > 0;)
            known = cbi_extent_at(&part->extents, i)->blocks > 0;
        if (known)
            break;
        cbi_cond_wait(&p->changed, &p->mutex);
        status = parts_stopped(p, err);
    }
    if (status == CB_OK) /* giant rows first, while there is room in one piece */
        status = load_giants(p, index, err);
    if (status == CB_OK && !reserve(p, part, (size_t)part->segments_out))
        status = CB_EAGAIN;
    if (status == CB_OK) {
        start_loading(p, index);
        parts_continue_loading(p, UINT32_MAX);
    }
    cbi_mutex_unlock(&p->mutex);
    return status;
}

cb_status cbi_partition_unload(cbi_partitions *p, uint32_t index, cb_error *err) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&p->mutex);
    stop_loading(p, index);
    cbi_segment *reserved = part->reserved;
    part->reserved = NULL;
    cb_status status = parts_stopped(p, err);
    while (status == CB_OK && part->loading > 0) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = parts_stopped(p, err);
    }
    for (uint32_t i = 0; status == CB_OK && i < part->extents.count; i++) {
        if ((cbi_extent_at(&part->extents, i)->segments & EXTENT_LOADED) != 0)
            part->segments_out += cbi_extent_at(&part->extents, i)->segments & EXTENT_UNITS;
        cbi_extent_at(&part->extents, i)->segments &= ~(uint32_t)EXTENT_LOADED;
    }
    cbi_segment *list = NULL;
    if (status == CB_OK) {
        list = part->back;
        part->back = part->back_last = NULL;
    }
    cbi_mutex_unlock(&p->mutex);
    cbi_segments_give(p->o.pool, reserved);
    cbi_segments_give(p->o.pool, list);
    return status;
}

cb_status cbi_partition_wait(cbi_partitions *p, uint32_t index, cbi_segment **segments,
                             cb_error *err) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&p->mutex);
    cb_status status = parts_stopped(p, err);
    while (status == CB_OK && (part->loading > 0 || part->load_pending)) {
        if (part->loading == 0) /* no request was idle when the last one ended */
            parts_continue_loading(p, UINT32_MAX);
        if (part->loading > 0 || part->load_pending)
            cbi_cond_wait(&p->changed, &p->mutex);
        status = parts_stopped(p, err);
    }
    cbi_mutex_unlock(&p->mutex);
    if (status != CB_OK)
        return status;
    cbi_mutex_lock(&part->lock);
    if (part->open != NULL)
        parts_retire_open(part);
    if (part->back != NULL) { /* all of it in one list: what came back is older */
        part->back_last->next = part->first;
        if (part->first == NULL)
            part->last = part->back_last;
        part->first = part->back;
        part->back = part->back_last = NULL;
    }
    *segments = part->first;
    cbi_mutex_unlock(&part->lock);
    return CB_OK;
}

void cbi_partition_drop(cbi_partitions *p, uint32_t index) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&part->lock);
    cbi_segment *list = part->first;
    part->first = part->last = NULL;
    atomic_store_explicit(&part->full, 0, memory_order_relaxed);
    cbi_extents_clear(&part->extents, &p->slab);
    cbi_mutex_unlock(&part->lock);
    cbi_segments_give(p->o.pool, list);
    cbi_mutex_lock(&p->mutex);
    cbi_cond_broadcast(&p->changed);
    cbi_mutex_unlock(&p->mutex);
}

/* Places of extents are known once their writes are done. p->mutex held. */
static cb_status wait_until_written(cbi_partitions *p, const partition *part, cb_error *err) {
    cb_status status = parts_stopped(p, err);
    while (status == CB_OK && p->leaving > 0 && part->next_extent < part->extents.count &&
           cbi_extent_at(&part->extents, part->next_extent)->blocks == 0) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = parts_stopped(p, err);
    }
    return status;
}

/* A giant row that comes early may take the place that the one before it needs on its way out. */
static bool may_come_early(const cbi_partitions *p, uint32_t shape) {
    enum { TIMES = 5 }; /* a result of it lies twice in one piece beside that */
    return (shape & EXTENT_JUMBO) == 0 ||
           cb_segment_pool_free_count(p->o.pool) >= (size_t)TIMES * (shape & EXTENT_UNITS);
}

cb_status cbi_partition_prefetch(cbi_partitions *p, uint32_t index, uint32_t depth, cb_error *err) {
    partition *part = &p->parts[index];
    cb_status status = CB_OK;
    cbi_mutex_lock(&p->mutex);
    while (status == CB_OK && part->loading < depth && (depth > 1 || part->back == NULL) &&
           part->next_extent < part->extents.count &&
           cbi_extent_at(&part->extents, part->next_extent)->blocks > 0 &&
           may_come_early(p, cbi_extent_at(&part->extents, part->next_extent)->segments) &&
           (part->loading == 0 ||
            cb_segment_pool_free_count(p->o.pool) > atomic_load(&p->low_water))) {
        status = load_extent(p, index, part->next_extent, true, err);
        if (status == CB_OK)
            part->next_extent++;
    }
    cbi_mutex_unlock(&p->mutex);
    return status == CB_EAGAIN ? CB_OK : status;
}

/* Lets rows of others go: a few, then all. p->mutex held on entry and exit, not meanwhile. */
static cb_status others_leave(cbi_partitions *p, bool all, cb_error *err) {
    cbi_mutex_unlock(&p->mutex);
    size_t segments = all ? p->o.segments_max : 2 * p->o.batch_segments_max;
    cb_status status = cbi_partitions_make_room(p->o.yields, UINT32_MAX, segments, err);
    cbi_mutex_lock(&p->mutex);
    return status;
}

/* Nothing is on its way: fetches the next extent, for which memory must be found. p->mutex held. */
static cb_status fetch_next(cbi_partitions *p, uint32_t index, cb_error *err) {
    partition *part = &p->parts[index];
    unsigned asked = p->o.yields != NULL ? 0 : 2;
    cb_status status = load_extent(p, index, part->next_extent, true, err);
    while (status == CB_EAGAIN && (p->under_way > 0 || asked < 2)) {
        status = CB_OK;
        if (p->under_way > 0) /* what is on its way out gives memory back */
            cbi_cond_wait(&p->changed, &p->mutex);
        else
            status = others_leave(p, asked++ > 0, err);
        if (status == CB_OK)
            status = parts_stopped(p, err);
        if (status == CB_OK)
            status = load_extent(p, index, part->next_extent, true, err);
    }
    if (status == CB_OK)
        part->next_extent++;
    else if (status == CB_EAGAIN)
        status = cbi_fail_bytes(err, CB_EBUDGET, p->o.batch_segments_max * p->o.segment_bytes,
                                cb_segment_pool_free_count(p->o.pool) * p->o.segment_bytes,
                                "no page memory is left to read spilled rows back");
    return status;
}

cb_status cbi_partition_next_part(cbi_partitions *p, uint32_t index, cbi_segment **segments,
                                  cb_error *err) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&p->mutex);
    cb_status status = wait_until_written(p, part, err);
    if (status == CB_OK && part->loading == 0 && part->back == NULL &&
        part->next_extent < part->extents.count)
        status = fetch_next(p, index, err);
    while (status == CB_OK && part->loading > 0 && part->back == NULL) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = parts_stopped(p, err);
    }
    cbi_mutex_unlock(&p->mutex);
    if (status != CB_OK)
        return status;
    cbi_mutex_lock(&part->lock);
    if (part->back != NULL) {
        *segments = part->back;
        part->back = part->back_last = NULL;
    } else {
        if (part->open != NULL)
            parts_retire_open(part);
        *segments = part->first;
        part->first = part->last = NULL;
        atomic_store_explicit(&part->full, 0, memory_order_relaxed);
    }
    cbi_mutex_unlock(&part->lock);
    return CB_OK;
}

/* ---- rows one by one, in order: runs ---- */

cb_status cbi_partition_put(cbi_partitions *p, uint32_t index, const cbi_stored *row,
                            cb_error *err) {
    partition *part = &p->parts[index];
    size_t bytes = cbi_stored_bytes(p->o.layout, row->key_bytes, row->row_bytes);
    cbi_mutex_lock(&part->lock);
    if (part->open != NULL) {
        size_t room =
            part->open->units * p->o.segment_bytes - CBI_FRAME_HEADER_BYTES - part->open->used;
        if (bytes + (part->piece == NULL ? CBI_PIECE_HEADER_BYTES : 0) > room)
            parts_retire_open(part);
    }
    if (part->open == NULL) {
        size_t need = bytes + CBI_PIECE_HEADER_BYTES;
        size_t units =
            need <= p->payload
                ? 1
                : (need + CBI_FRAME_HEADER_BYTES + p->o.segment_bytes - 1) / p->o.segment_bytes;
        if (units > 1)
            cbi_segment_pool_lowest_first(p->o.pool);
        void *base = NULL;
        if (units == 1 || cbi_partitions_tier(p) == 0)
            base = parts_take_quickly(p, units);
        bool waited = base == NULL;
        if (waited) {
            cbi_mutex_unlock(&part->lock);
            CB_TRY(parts_wait_for_memory(p, units, true, &base, err));
            cbi_mutex_lock(&part->lock);
        }
        part->open = base;
        *part->open = (cbi_segment){.next = NULL, .used = 0, .units = (uint32_t)units};
        if (waited)
            atomic_fetch_sub(&p->in_hand, 1);
        part->segments += units;
        part->units_max = (uint32_t)cbi_max(part->units_max, units);
        part->piece = NULL;
    }
    cbi_segment *open = part->open;
    if (part->piece == NULL) {
        part->piece = cbi_segment_payload(open) + open->used;
        memset(part->piece, 0, CBI_PIECE_HEADER_BYTES);
        open->used += CBI_PIECE_HEADER_BYTES;
        part->pieces++;
    }
    (void)cbi_stored_put(p->o.layout, cbi_segment_payload(open) + open->used, row->key,
                         row->key_bytes, row->row, row->row_bytes, row->order);
    open->used += (uint32_t)bytes;
    cbi_store_u32(part->piece + 8, cbi_load_u32(part->piece + 8) + 1);
    cbi_store_u32(part->piece + 12, cbi_load_u32(part->piece + 12) + (uint32_t)bytes);
    part->rows++;
    part->row_bytes += row->row_bytes;
    bool full = open->units > 1;
    if (full)
        parts_retire_open(part);
    bool relieve =
        atomic_load_explicit(&part->full, memory_order_relaxed) >= p->o.batch_segments_max;
    cbi_mutex_unlock(&part->lock);
    if (!relieve)
        return CB_OK;
    cbi_mutex_lock(&p->mutex);
    cb_status status = parts_spill_batch(p, index, err);
    cbi_mutex_unlock(&p->mutex);
    return status;
}

cb_status cbi_partition_put_end(cbi_partitions *p, uint32_t index, cb_error *err) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&part->lock);
    if (part->open != NULL)
        parts_retire_open(part);
    cbi_mutex_unlock(&part->lock);
    cb_status status = CB_OK;
    cbi_mutex_lock(&p->mutex);
    while (status == CB_OK && atomic_load_explicit(&part->full, memory_order_relaxed) > 0)
        status = parts_spill_batch(p, index, err);
    cbi_mutex_unlock(&p->mutex);
    return status;
}

void cbi_partition_reset(cbi_partitions *p, uint32_t index) {
    partition *part = &p->parts[index];
    cbi_partition_drop(p, index);
    cbi_mutex_lock(&part->lock);
    cb_assert(part->open == NULL && part->back == NULL && part->loading == 0);
    part->rows = part->row_bytes = part->pieces = part->segments = part->segments_out = 0;
    part->next_extent = part->units_max = 0;
    cbi_mutex_unlock(&part->lock);
}
