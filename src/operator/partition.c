/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/partition_private.h"

/*
 * Partition first.
 *
 * A partition is a list of full segments, one open segment that rows are appended to, and a list of
 * extents that have left for disk. Workers bring the rows of a chunk grouped by partition, so that
 * a lock is taken once for some thirty rows and each group is one sequential copy.
 *
 * Who leaves. Everything below the frontier stays in memory as long as it can: with a budget of
 * half the data, half of the partitions never touch the disk. At or above the frontier the
 * partition with most full segments goes, as one extent, if it has enough of them to be worth a
 * request; otherwise the frontier moves down by one partition. Only when it has reached the bottom
 * do small extents go. Writing starts at the low-water mark, not when memory has run out, so the
 * disk works while rows still come in; a worker that finds no free segment waits for one that is on
 * its way.
 *
 * Locks: p->mutex (victims, requests, waiting) before a partition's lock. Neither is held over a
 * call into the spill, whose callbacks take both.
 */

size_t cbi_partitions_bytes(uint32_t count, size_t batch_segments_max) {
    return sizeof(cbi_partitions) + count * sizeof(partition) +
           REQUESTS * (sizeof(request) + batch_segments_max * sizeof(cbi_spill_segment));
}

cb_status cbi_partitions_create(const cbi_partitions_options *o, cbi_partitions **out,
                                cb_error *err) {
    cbi_partitions *p = cbi_calloc(1, sizeof *p);
    if (p == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the partition table");
    p->o = *o;
    p->payload = (uint32_t)(o->segment_bytes - CBI_FRAME_HEADER_BYTES);
    p->frontier = o->count;
    p->load_first = p->load_last = PARTITION_NONE;
    p->failed = CB_OK;
    p->parts = cbi_calloc(o->count, sizeof *p->parts);
    p->requests = cbi_calloc(REQUESTS, sizeof *p->requests);
    p->request_segments = cbi_calloc(REQUESTS * o->batch_segments_max, sizeof *p->request_segments);
    if (p->parts == NULL || p->requests == NULL || p->request_segments == NULL) {
        cbi_free(p->request_segments);
        cbi_free(p->requests);
        cbi_free(p->parts);
        cbi_free(p);
        return cbi_fail(err, CB_ENOMEM, "no memory for %u partitions", o->count);
    }
    atomic_init(&p->tier, o->tier);
    atomic_init(&p->low_water, o->low_water);
    cbi_mutex_init(&p->ending_tier, CBI_RANK_TIER_END);
    cbi_mutex_init(&p->mutex, CBI_RANK_PARTITIONS);
    cbi_cond_init(&p->changed);
    cbi_lock_init(&p->slab.lock, CBI_RANK_EXTENTS);
    for (uint32_t i = 0; i < o->count; i++)
        cbi_mutex_init(&p->parts[i].lock, CBI_RANK_PARTITION);
    for (unsigned i = 0; i < REQUESTS; i++) {
        request *r = &p->requests[i];
        r->p = p;
        r->segments = p->request_segments + i * o->batch_segments_max;
        r->next = p->idle;
        p->idle = r;
        p->idle_count++;
    }
    *out = p;
    return CB_OK;
}

void cbi_segments_give(cb_segment_pool *pool, cbi_segment *list) {
    while (list != NULL) {
        cbi_segment *next = list->next;
        cb_segment_pool_give(pool, list, list->units);
        list = next;
    }
}

void cbi_partitions_destroy(cbi_partitions *p) {
    if (p == NULL)
        return;
    cbi_mutex_lock(&p->mutex);
    p->closing = true;
    while (p->under_way > 0)
        cbi_cond_wait(&p->changed, &p->mutex);
    cbi_mutex_unlock(&p->mutex);
    for (uint32_t i = 0; i < p->o.count; i++) {
        partition *part = &p->parts[i];
        cbi_segments_give(p->o.pool, part->first);
        cbi_segments_give(p->o.pool, part->back);
        cbi_segments_give(p->o.pool, part->reserved);
        if (part->open != NULL) {
            part->open->next = NULL;
            cbi_segments_give(p->o.pool, part->open);
        }
        cbi_extents_clear(&part->extents, &p->slab);
        cbi_mutex_fini(&part->lock);
    }
    cbi_extent_slab_fini(&p->slab);
    cbi_cond_fini(&p->changed);
    cbi_mutex_fini(&p->mutex);
    cbi_mutex_fini(&p->ending_tier);
    cbi_free(p->request_segments);
    cbi_free(p->requests);
    cbi_free(p->parts);
    cbi_free(p);
}

cb_status cbi_partitions_failure(cbi_partitions *p, cb_error *err) {
    cbi_mutex_lock(&p->mutex);
    cb_status status = p->failed;
    if (status != CB_OK && err != NULL)
        *err = p->failure;
    cbi_mutex_unlock(&p->mutex);
    return status;
}

/* p->mutex held. */
static void note_failure(cbi_partitions *p, cb_status status, const cb_error *err) {
    if (p->failed != CB_OK)
        return;
    p->failed = status;
    if (err != NULL)
        p->failure = *err;
    p->failure.status = status;
}

/* ---- leaving and coming back: requests to the spill ---- */

/* A write's segments are free; its place is known when the books say so, which is the last thing
 * that happens here: whoever waits for it may destroy everything at once. */
static void write_done(request *r, cb_status status, const cbi_extent *extent) {
    cbi_partitions *p = r->p;
    partition *part = &p->parts[r->index];
    if (status == CB_OK) {
        cbi_mutex_lock(&part->lock);
        uint32_t shape = cbi_extent_at(&part->extents, r->extent)->segments;
        *cbi_extent_at(&part->extents, r->extent) = *extent;
        if (shape & EXTENT_JUMBO)
            cbi_extent_at(&part->extents, r->extent)->segments = shape;
        cbi_mutex_unlock(&part->lock);
    }
    for (uint32_t i = 0; i < r->count;
         i++) /* together with the next line, or they would count twice for a moment */
        cb_segment_pool_give(p->o.pool, r->segments[i].base,
                             r->segments[i].capacity / p->o.segment_bytes);
    p->leaving -= r->units;
}

/* What was read goes to the partition's list, in the order of the extent. */
static void read_done(request *r, cb_status status) {
    cbi_partitions *p = r->p;
    partition *part = &p->parts[r->index];
    cbi_mutex_lock(&part->lock);
    for (uint32_t i = 0; i < r->count; i++) {
        cbi_segment *segment = (cbi_segment *)(void *)r->segments[i].base;
        segment->used = status == CB_OK ? r->segments[i].used : 0;
        segment->units = (uint32_t)(r->segments[i].capacity / p->o.segment_bytes);
        segment->next = NULL;
        if (part->back_last != NULL)
            part->back_last->next = segment;
        else
            part->back = segment;
        part->back_last = segment;
    }
    cbi_mutex_unlock(&part->lock);
    part->loading--;
}

void parts_request_done(void *ctx, cb_status status, const cbi_extent *extent,
                        const cb_error *err) {
    request *r = ctx;
    cbi_partitions *p = r->p;
    if (!r->write && status == CB_OK && r->last_read)
        cbi_spill_free(p->o.spill, extent);
    cbi_mutex_lock(&p->mutex);
    if (status != CB_OK)
        note_failure(p, status, err);
    bool in_between = false; /* of a partition that comes back whole: nobody waits for that */
    if (r->write) {
        write_done(r, status, extent);
    } else {
        read_done(r, status);
        in_between = !r->last_read && p->parts[r->index].loading > 0;
    }
    parts_request_idle(p, r);
    /* One for one, so that callbacks never have more under way than there was room for. */
    if (!p->closing)
        parts_continue_loading(p, 1);
    if (!in_between || p->wanting > 0 || p->under_way == 0 || p->failed != CB_OK)
        cbi_cond_broadcast(&p->changed);
    cbi_mutex_unlock(&p->mutex);
}

request *parts_request_take(cbi_partitions *p) {
    p->wanting++;
    while (p->idle == NULL)
        cbi_cond_wait(&p->changed, &p->mutex);
    p->wanting--;
    request *r = p->idle;
    p->idle = r->next;
    p->idle_count--;
    p->under_way++;
    return r;
}

void parts_request_idle(cbi_partitions *p, request *r) {
    p->under_way--;
    r->next = p->idle;
    p->idle = r;
    p->idle_count++;
}

/* The request did not start: as if it had never been taken. p->mutex not held. */
void parts_request_return(cbi_partitions *p, request *r, cb_status status, const cb_error *err) {
    cbi_mutex_lock(&p->mutex);
    note_failure(p, status, err);
    for (uint32_t i = 0; i < r->count; i++)
        cb_segment_pool_give(p->o.pool, r->segments[i].base,
                             r->segments[i].capacity / p->o.segment_bytes);
    if (r->write)
        p->leaving -= r->units;
    else
        p->parts[r->index].loading--;
    parts_request_idle(p, r);
    cbi_cond_broadcast(&p->changed);
    cbi_mutex_unlock(&p->mutex);
}

/* Detaches full segments of a partition (oldest first) into the request. part->lock held. */
static void detach_batch(cbi_partitions *p, partition *part, request *r) {
    r->count = 0;
    r->units = 0;
    while (part->first != NULL && r->count < p->o.batch_segments_max) {
        cbi_segment *segment = part->first;
        bool jumbo = segment->units > 1;
        if (jumbo && r->count > 0)
            break;
        part->first = segment->next;
        if (part->first == NULL)
            part->last = NULL;
        r->segments[r->count++] =
            (cbi_spill_segment){.base = (uint8_t *)segment,
                                .capacity = segment->units * (uint32_t)p->o.segment_bytes,
                                .used = segment->used};
        r->units += segment->units;
        if (jumbo)
            break;
    }
    atomic_fetch_sub_explicit(&part->full, r->units, memory_order_relaxed);
}

/* Lets one batch of a partition go. p->mutex held on entry and exit, not meanwhile. */
cb_status parts_spill_batch(cbi_partitions *p, uint32_t index, cb_error *err) {
    request *r = parts_request_take(p);
    partition *part = &p->parts[index];
    cbi_mutex_lock(&part->lock);
    bool slot = part->first == NULL || cbi_extents_add(&part->extents, &p->slab);
    r->count = 0;
    r->units = 0;
    r->write = true;
    r->index = index;
    if (slot) {
        detach_batch(p, part, r);
        if (r->count > 0) {
            r->extent = part->extents.count - 1;
            *cbi_extent_at(&part->extents, r->extent) =
                (cbi_extent){.segments = r->units > r->count ? EXTENT_JUMBO | r->units : r->count};
            part->segments_out += r->units;
        }
    }
    cbi_mutex_unlock(&part->lock);
    p->leaving += r->units;
    if (!slot || r->count == 0) {
        parts_request_idle(p, r);
        if (!slot) {
            cb_status status = cbi_fail(err, CB_ENOMEM, "no memory for the index of spilled data");
            note_failure(p, status, err);
            cbi_cond_broadcast(&p->changed);
            return status;
        }
        return CB_OK;
    }
    cbi_mutex_unlock(&p->mutex);
    cb_error local;
    cb_status status = cbi_spill_write(p->o.spill, index, r->extent, r->segments, r->count,
                                       parts_request_done, r, &local);
    if (status != CB_OK) {
        parts_request_return(p, r, status, &local);
        if (err != NULL)
            *err = local;
    }
    cbi_mutex_lock(&p->mutex);
    return status;
}

/* The partition that should leave next, or UINT32_MAX. `worth` segments make a request worth its
 * while. p->mutex held. */
static uint32_t choose_victim(cbi_partitions *p, unsigned worth) {
    uint32_t best = UINT32_MAX;
    unsigned most = 0;
    worth = worth > 0 ? worth : 1; /* or the frontier would never move */
    for (uint32_t i = p->frontier; i < p->o.count; i++) {
        unsigned full = atomic_load_explicit(&p->parts[i].full, memory_order_relaxed);
        if (full > most) {
            most = full;
            best = i;
        }
    }
    while (most < worth && p->frontier > 0) {
        uint32_t i = --p->frontier;
        unsigned full = atomic_load_explicit(&p->parts[i].full, memory_order_relaxed);
        if (full > most) {
            most = full;
            best = i;
        }
    }
    return best;
}

/* Puts a segment that takes no more rows into the list. part->lock held. */
void parts_retire_open(partition *part) {
    cbi_segment *open = part->open;
    open->next = NULL;
    if (part->last != NULL)
        part->last->next = open;
    else
        part->first = open;
    part->last = open;
    part->open = NULL;
    part->piece = NULL;
    atomic_fetch_add_explicit(&part->full, open->units, memory_order_relaxed);
}

/* Closes the open segments of partitions at or above the frontier, so that they can leave. p->mutex
 * held. */
bool parts_close_open(cbi_partitions *p, uint32_t from) {
    bool any = false;
    for (uint32_t i = from; i < p->o.count; i++) {
        partition *part = &p->parts[i];
        cbi_mutex_lock(&part->lock);
        if (part->open != NULL && part->open->used > 0) {
            parts_retire_open(part);
            any = true;
        }
        cbi_mutex_unlock(&part->lock);
    }
    return any;
}

cb_status parts_stopped(cbi_partitions *p, cb_error *err) {
    if (p->failed != CB_OK) {
        if (err != NULL)
            *err = p->failure;
        return p->failed;
    }
    if (p->o.cancelled != NULL && atomic_load_explicit(p->o.cancelled, memory_order_relaxed))
        return cbi_fail(err, CB_ECANCELED, "cancelled");
    return CB_OK;
}

void cbi_partitions_keep_free(cbi_partitions *p, size_t segments) {
    atomic_store(&p->low_water, segments);
}

void cbi_partitions_set_yields(cbi_partitions *p, cbi_partitions *yields) {
    cbi_mutex_lock(&p->mutex);
    p->o.yields = yields;
    cbi_mutex_unlock(&p->mutex);
}

size_t cbi_partitions_tier(const cbi_partitions *p) {
    return atomic_load_explicit(&p->tier, memory_order_relaxed);
}

cb_status cbi_partitions_end_tier(cbi_partitions *p, cb_error *err) {
    if (cbi_partitions_tier(p) == 0)
        return CB_OK;
    cbi_mutex_lock(&p->ending_tier);
    uint8_t *base;
    cb_status status = cbi_spill_give_back(p->o.spill, &base, err);
    if (status == CB_OK && base != NULL) {
        size_t tier = atomic_load(&p->tier);
        cb_segment_pool_give(p->o.pool, base, tier);
        atomic_fetch_add(&p->low_water, tier);
        atomic_store(&p->tier, 0);
    }
    cbi_mutex_unlock(&p->ending_tier);
    return status;
}

cb_status cbi_partitions_relieve(cbi_partitions *p, cb_error *err) {
    size_t low_water = atomic_load_explicit(&p->low_water, memory_order_relaxed);
    if (p->o.spill == NULL || cb_segment_pool_free_count(p->o.pool) >= low_water)
        return CB_OK;
    unsigned worth = (unsigned)p->o.batch_segments_max / 2;
    cbi_mutex_lock(&p->mutex);
    cb_status status = parts_stopped(p, err);
    while (status == CB_OK && p->idle != NULL &&
           cb_segment_pool_free_count(p->o.pool) + p->leaving < low_water) {
        uint32_t victim = choose_victim(p, worth);
        if (victim == UINT32_MAX)
            break;
        status = parts_spill_batch(p, victim, err);
    }
    cbi_mutex_unlock(&p->mutex);
    return status;
}

cb_status cbi_partitions_let_leave(cbi_partitions *p, size_t segments, cb_error *err) {
    unsigned worth = (unsigned)p->o.batch_segments_max / 2;
    if (p->o.spill == NULL)
        return CB_OK;
    cbi_mutex_lock(&p->mutex);
    cb_status status = parts_stopped(p, err);
    while (status == CB_OK && cb_segment_pool_free_count(p->o.pool) < segments) {
        uint32_t victim = UINT32_MAX;
        if (cb_segment_pool_free_count(p->o.pool) + p->leaving < segments)
            victim = choose_victim(p, worth);
        if (victim != UINT32_MAX)
            status = parts_spill_batch(p, victim, err);
        else if (p->leaving > 0)
            cbi_cond_wait(&p->changed, &p->mutex);
        else
            break;
        if (status == CB_OK)
            status = parts_stopped(p, err);
    }
    cbi_mutex_unlock(&p->mutex);
    return status;
}

/* What somebody waits for. */
typedef struct memory_need {
    size_t units;
    bool claim, others_asked;
} memory_need;

/* Waits until nobody has a claim (see parts_wait_for_memory), and takes it when `claims`. p->mutex
 * held on entry and exit. */
static cb_status wait_for_claim(cbi_partitions *p, bool claims, bool *claim, cb_error *err) {
    cb_status status = parts_stopped(p, err);
    while (status == CB_OK && p->claimed) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = parts_stopped(p, err);
    }
    *claim = status == CB_OK && claims;
    if (*claim) {
        p->claimed = true;
        atomic_store(&p->claim, true);
    }
    return status;
}

/* p->mutex held. */
static void give_claim(cbi_partitions *p, bool *claim) {
    if (!*claim)
        return;
    *claim = p->claimed = false;
    atomic_store(&p->claim, false);
    cbi_cond_broadcast(&p->changed);
}

/* They may need memory themselves before they have some to give: no claim keeps them from it.
 * p->mutex held on entry and exit, not meanwhile. */
static cb_status ask_others(cbi_partitions *p, memory_need *n, bool *gave, cb_error *err) {
    bool claims = n->claim, again = n->others_asked;
    give_claim(p, &n->claim);
    n->others_asked = true;
    cbi_mutex_unlock(&p->mutex);
    cb_status status = p->o.give_way(p->o.give_way_ctx, again, gave, err);
    cbi_mutex_lock(&p->mutex);
    return status == CB_OK && claims ? wait_for_claim(p, true, &n->claim, err) : status;
}

static cb_status never_enough(const cbi_partitions *p, size_t units, cb_error *err) {
    size_t segment = p->o.segment_bytes, asked = units * segment;
    size_t all = p->o.segments_max * segment;
    if (asked > all)
        return cbi_fail_bytes(err, CB_EBUDGET, asked, all,
                              "%zu bytes of page memory in one piece are needed, and there are %zu "
                              "in all",
                              asked, all);
    return cbi_fail_bytes(err, CB_EBUDGET, asked, all,
                          "%zu bytes of page memory in one piece are needed; of %zu in all %zu are "
                          "free, here and there: fewer threads or more memory may do",
                          asked, all, cb_segment_pool_free_count(p->o.pool) * segment);
}

/* One step towards `units` segments: lets something leave, or waits for what is on its way.
 * p->mutex held. */
static cb_status gain_memory(cbi_partitions *p, memory_need *n, cb_error *err) {
    size_t units = n->units;
    uint32_t victim = UINT32_MAX;
    if (p->o.spill != NULL && (p->leaving < units + p->o.batch_segments_max || units > 1))
        victim = choose_victim(p, units > 1 ? 1 : (unsigned)p->o.batch_segments_max / 2);
    if (victim != UINT32_MAX)
        return parts_spill_batch(p, victim, err);
    if (p->under_way > 0) {
        cbi_cond_wait(&p->changed, &p->mutex);
        return CB_OK;
    }
    bool in_hand =
        atomic_load(&p->in_hand) > 0; /* looked at first: they are in a partition when it is 0 */
    if (p->o.spill != NULL && parts_close_open(p, 0))
        return CB_OK;
    if (in_hand) {
        (void)cbi_cond_wait_until(&p->changed, &p->mutex, cbi_sys_clock_ns() + 1000000);
        return CB_OK;
    }
    bool gave = false;
    if (p->o.give_way != NULL)
        CB_TRY(ask_others(p, n, &gave, err));
    return gave ? CB_OK : never_enough(p, units, err);
}

/*
 * Waits until `units` contiguous segments could be taken. Who needs more than one claims the pool:
 * nobody else takes from it (in this object) until it has them, or what leaves would never be in
 * one piece.
 *
 * `for_partition`: the caller will put them into a partition and count in_hand down. Until then
 * nobody can make them leave, which is no reason for another one to give up.
 */
cb_status parts_wait_for_memory(cbi_partitions *p, size_t units, bool for_partition, void **base,
                                cb_error *err) {
    if (units > 1) { /* where the disk has no room for the tier it stays, and this may fit beside */
        cb_error why;
        cb_status ended = cbi_partitions_end_tier(p, &why);
        if (ended != CB_OK && ended != CB_ENOSPC) {
            if (err != NULL)
                *err = why;
            return ended;
        }
    }
    cbi_mutex_lock(&p->mutex);
    memory_need n = {.units = units};
    cb_status status = wait_for_claim(p, units > 1, &n.claim, err);
    *base = NULL;
    while (status == CB_OK &&
           (*base = for_partition || units == 1
                        ? cb_segment_pool_take(p->o.pool, units)
                        : cbi_segment_pool_take_highest(p->o.pool, units)) == NULL) {
        status = gain_memory(p, &n, err);
        if (status == CB_OK)
            status = parts_stopped(p, err);
    }
    give_claim(p, &n.claim);
    if (status == CB_OK && for_partition)
        atomic_fetch_add(&p->in_hand, 1);
    cbi_mutex_unlock(&p->mutex);
    return status;
}

/* The quick way, which respects a claim. */
void *parts_take_quickly(cbi_partitions *p, size_t units) {
    return atomic_load_explicit(&p->claim, memory_order_relaxed)
               ? NULL
               : cb_segment_pool_take(p->o.pool, units);
}

cb_status cbi_partitions_take(cbi_partitions *p, size_t units, void **base, cb_error *err) {
    return parts_wait_for_memory(p, units, false, base, err);
}

/* ---- rows come in ---- */

static inline size_t group_row_bytes(const cbi_layout *layout, const cbi_group *g, uint32_t i) {
    uint32_t row = g->which[i];
    if (g->stored)
        return g->rows[row].bytes;
    return cbi_stored_bytes(layout, g->keys != NULL ? g->keys[row].bytes : 0, g->rows[row].bytes);
}

/* Rows that are stored rows already, from *at on, as many as fit before `end`; answers the end of
 * what was put. */
static uint8_t *append_stored(uint8_t *out, const uint8_t *end, const cbi_group *g, uint32_t *at,
                              uint64_t *row_bytes) {
    uint32_t i = *at;
    for (; i < g->count; i++) {
        cbi_span span = g->rows[g->which[i]];
        if (out > end || span.bytes > (size_t)(end - out))
            break;
        const uint8_t *from = g->base + span.offset;
        uint32_t bytes;
        cbi_copy_short(out, from, span.bytes);
        (void)cbi_varint_get(from, &bytes);
        *row_bytes += bytes;
        out += span.bytes;
    }
    *at = i;
    return out;
}

/* Rows from *at on as one piece into the open segment, as many as fit. part->lock held. */
static void append_piece(cbi_partitions *p, partition *part, const cbi_group *g, uint32_t *at) {
    const cbi_layout *layout = p->o.layout;
    cbi_segment *open = part->open;
    size_t capacity = open->units * p->o.segment_bytes - CBI_FRAME_HEADER_BYTES;
    uint8_t *start = cbi_segment_payload(open) + open->used;
    uint8_t *end = cbi_segment_payload(open) + capacity;
    uint8_t *out = start + CBI_PIECE_HEADER_BYTES;
    uint32_t i = *at;
    uint64_t row_bytes = 0;
    if (g->stored)
        out = append_stored(out, end, g, &i, &row_bytes);
    for (; !g->stored && i < g->count; i++) {
        size_t bytes = group_row_bytes(layout, g, i);
        if (out > end || bytes > (size_t)(end - out))
            break;
        uint32_t row = g->which[i];
        const uint8_t *key = g->keys != NULL ? g->key_base + g->keys[row].offset : NULL;
        out = cbi_stored_put(layout, out, key, g->keys != NULL ? g->keys[row].bytes : 0,
                             g->base + g->rows[row].offset, g->rows[row].bytes, 0);
        row_bytes += g->rows[row].bytes;
    }
    uint32_t rows = i - *at;
    if (rows == 0)
        return;
    cbi_store_u64(start, g->stored && !g->counted ? g->order : g->order + *at);
    cbi_store_u32(start + 8, rows);
    cbi_store_u32(start + 12, (uint32_t)(out - start - CBI_PIECE_HEADER_BYTES));
    open->used += (uint32_t)(out - start);
    part->rows += rows;
    part->row_bytes += row_bytes;
    part->pieces++;
    *at = i;
}

cb_status cbi_partition_append(cbi_partitions *p, uint32_t index, const cbi_group *g,
                               cb_error *err) {
    partition *part = &p->parts[index];
    uint32_t at = 0;
    cbi_mutex_lock(&part->lock);
    while (at < g->count) {
        size_t need = CBI_PIECE_HEADER_BYTES + group_row_bytes(p->o.layout, g, at);
        if (part->open != NULL) {
            size_t capacity = part->open->units * p->o.segment_bytes - CBI_FRAME_HEADER_BYTES;
            if (need <= capacity - part->open->used) {
                append_piece(p, part, g, &at);
                continue;
            }
            parts_retire_open(part);
        }
        size_t units =
            need <= p->payload
                ? 1
                : (need + CBI_FRAME_HEADER_BYTES + p->o.segment_bytes - 1) / p->o.segment_bytes;
        if (units > 1) /* more will come, here or when it is read again */
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
        cbi_segment *segment = base;
        if (p->o.populate)
            (void)cbi_sys_populate(base, units * p->o.segment_bytes);
        *segment = (cbi_segment){.next = NULL, .used = 0, .units = (uint32_t)units};
        if (part->open != NULL) /* somebody else was here meanwhile */
            parts_retire_open(part);
        part->open = segment;
        part->segments += units;
        part->units_max = (uint32_t)cbi_max(part->units_max, units);
        if (waited)
            atomic_fetch_sub(&p->in_hand, 1);
    }
    if (part->open != NULL && part->open->units > 1)
        parts_retire_open(part); /* giant rows stay alone, so that they leave and come back alone */
    cbi_mutex_unlock(&part->lock);
    return CB_OK;
}

void cbi_partition_get_info(const cbi_partitions *p, uint32_t index, cbi_partition_info *info) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&part->lock);
    *info = (cbi_partition_info){.rows = part->rows,
                                 .row_bytes = part->row_bytes,
                                 .pieces = part->pieces,
                                 .segments = part->segments,
                                 .segments_out = part->segments_out,
                                 .units_max = part->units_max > 0 ? part->units_max : 1};
    cbi_mutex_unlock(&part->lock);
}

uint32_t cbi_partition_units_max(const cbi_partitions *p, uint32_t index) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&part->lock);
    uint32_t units = part->units_max > 0 ? part->units_max : 1;
    cbi_mutex_unlock(&part->lock);
    return units;
}
