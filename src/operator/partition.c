/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/partition.h"

#include "base/alloc.h"

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

enum {
    REQUESTS = 64,
    EXTENT_JUMBO = 0x40000000,
    EXTENT_LOADED = 0x20000000,
    EXTENT_UNITS = 0x1fffffff
};

typedef struct partition {
    cbi_mutex lock;
    cbi_segment *open;             /* being filled; not in the list */
    cbi_segment *first, *last;     /* full, oldest first */
    cbi_segment *back, *back_last; /* came back from disk */
    uint8_t *piece;                /* cbi_partition_put: the piece that grows in the open segment */
    atomic_uint full;              /* pool segments in the list */
    uint64_t rows, row_bytes, pieces, segments, segments_out;
    cbi_extent *extents; /* .segments: EXTENT_JUMBO | units for a giant row, EXTENT_LOADED */
    uint32_t extent_count, extent_capacity;
    uint32_t next_extent; /* cbi_partition_next_part */
    uint32_t units_max;   /* of one row */
    uint32_t loading;     /* read requests under way */
} partition;

typedef struct request {
    cbi_partitions *p;
    struct request *next;
    uint32_t index, extent;
    uint32_t count;
    bool write;
    bool last_read;              /* nobody will read that extent again */
    uint32_t units;              /* pool segments in the batch */
    cbi_spill_segment *segments; /* batch_segments_max */
} request;

struct cbi_partitions {
    cbi_partitions_options o;
    uint32_t payload; /* of one segment */
    partition *parts;
    request *requests;
    cbi_spill_segment *request_segments;

    atomic_bool claim;     /* the same for those who look without the lock */
    atomic_uint appending; /* threads that may hold a segment nobody can see yet */
    atomic_uint waiting;   /* threads in wait_for_memory */
    cbi_mutex mutex;       /* guards all below */
    cbi_cond changed;
    request *idle;
    uint32_t frontier;
    size_t leaving;      /* pool segments on their way out */
    bool claimed;        /* somebody collects contiguous segments */
    unsigned under_way;  /* requests */
    atomic_uint in_hand; /* segments on their way from wait_for_memory into a partition */
    cb_status failed;
    cb_error failure;
};

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
    cbi_mutex_init(&p->mutex);
    cbi_cond_init(&p->changed);
    for (uint32_t i = 0; i < o->count; i++)
        cbi_mutex_init(&p->parts[i].lock);
    for (unsigned i = 0; i < REQUESTS; i++) {
        request *r = &p->requests[i];
        r->p = p;
        r->segments = p->request_segments + i * o->batch_segments_max;
        r->next = p->idle;
        p->idle = r;
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
    while (p->under_way > 0)
        cbi_cond_wait(&p->changed, &p->mutex);
    cbi_mutex_unlock(&p->mutex);
    for (uint32_t i = 0; i < p->o.count; i++) {
        partition *part = &p->parts[i];
        cbi_segments_give(p->o.pool, part->first);
        cbi_segments_give(p->o.pool, part->back);
        if (part->open != NULL) {
            part->open->next = NULL;
            cbi_segments_give(p->o.pool, part->open);
        }
        cbi_free(part->extents);
        cbi_mutex_fini(&part->lock);
    }
    cbi_cond_fini(&p->changed);
    cbi_mutex_fini(&p->mutex);
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
        uint32_t shape = part->extents[r->extent].segments;
        part->extents[r->extent] = *extent;
        if (shape & EXTENT_JUMBO)
            part->extents[r->extent].segments = shape;
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

static void request_done(void *ctx, cb_status status, const cbi_extent *extent,
                         const cb_error *err) {
    request *r = ctx;
    cbi_partitions *p = r->p;
    if (!r->write && status == CB_OK && r->last_read)
        cbi_spill_free(p->o.spill, extent);
    cbi_mutex_lock(&p->mutex);
    if (status != CB_OK)
        note_failure(p, status, err);
    if (r->write)
        write_done(r, status, extent);
    else
        read_done(r, status);
    p->under_way--;
    r->next = p->idle;
    p->idle = r;
    cbi_cond_broadcast(&p->changed);
    cbi_mutex_unlock(&p->mutex);
}

/* Takes a request, waiting for one. p->mutex held. NULL after a failure. */
static request *request_take(cbi_partitions *p) {
    while (p->idle == NULL)
        cbi_cond_wait(&p->changed, &p->mutex);
    request *r = p->idle;
    p->idle = r->next;
    p->under_way++;
    return r;
}

/* The request did not start: as if it had never been taken. p->mutex not held. */
static void request_return(cbi_partitions *p, request *r, cb_status status, const cb_error *err) {
    cbi_mutex_lock(&p->mutex);
    note_failure(p, status, err);
    if (r->write)
        p->leaving -= r->units;
    else
        p->parts[r->index].loading--;
    p->under_way--;
    r->next = p->idle;
    p->idle = r;
    cbi_cond_broadcast(&p->changed);
    cbi_mutex_unlock(&p->mutex);
}

/* Room for one more extent. part->lock held. */
static bool extent_slot(partition *part) {
    if (part->extent_count < part->extent_capacity)
        return true;
    uint32_t capacity = part->extent_capacity + part->extent_capacity / 2 + 16;
    cbi_extent *extents = cbi_realloc(part->extents, capacity * sizeof *extents);
    if (extents == NULL)
        return false;
    part->extents = extents;
    part->extent_capacity = capacity;
    return true;
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
static cb_status spill_batch(cbi_partitions *p, uint32_t index, cb_error *err) {
    request *r = request_take(p);
    partition *part = &p->parts[index];
    cbi_mutex_lock(&part->lock);
    bool slot = extent_slot(part);
    r->count = 0;
    r->units = 0;
    r->write = true;
    r->index = index;
    if (slot) {
        detach_batch(p, part, r);
        if (r->count > 0) {
            r->extent = part->extent_count++;
            part->extents[r->extent] =
                (cbi_extent){.segments = r->units > r->count ? EXTENT_JUMBO | r->units : r->count};
            part->segments_out += r->units;
        }
    }
    cbi_mutex_unlock(&part->lock);
    p->leaving += r->units;
    if (!slot || r->count == 0) {
        p->under_way--;
        r->next = p->idle;
        p->idle = r;
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
                                       request_done, r, &local);
    if (status != CB_OK) {
        for (uint32_t i = 0; i < r->count; i++)
            cb_segment_pool_give(p->o.pool, r->segments[i].base,
                                 r->segments[i].capacity / p->o.segment_bytes);
        request_return(p, r, status, &local);
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
static void retire_open(partition *part) {
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
static bool close_open(cbi_partitions *p, uint32_t from) {
    bool any = false;
    for (uint32_t i = from; i < p->o.count; i++) {
        partition *part = &p->parts[i];
        cbi_mutex_lock(&part->lock);
        if (part->open != NULL && part->open->used > 0) {
            retire_open(part);
            any = true;
        }
        cbi_mutex_unlock(&part->lock);
    }
    return any;
}

static cb_status stopped(cbi_partitions *p, cb_error *err) {
    if (p->failed != CB_OK) {
        if (err != NULL)
            *err = p->failure;
        return p->failed;
    }
    if (p->o.cancelled != NULL && atomic_load_explicit(p->o.cancelled, memory_order_relaxed))
        return cbi_fail(err, CB_ECANCELED, "cancelled");
    return CB_OK;
}

cb_status cbi_partitions_relieve(cbi_partitions *p, cb_error *err) {
    if (p->o.spill == NULL || cb_segment_pool_free_count(p->o.pool) >= p->o.low_water)
        return CB_OK;
    unsigned worth = (unsigned)p->o.batch_segments_max / 2;
    cbi_mutex_lock(&p->mutex);
    cb_status status = stopped(p, err);
    while (status == CB_OK && p->idle != NULL &&
           cb_segment_pool_free_count(p->o.pool) + p->leaving < p->o.low_water) {
        uint32_t victim = choose_victim(p, worth);
        if (victim == UINT32_MAX)
            break;
        status = spill_batch(p, victim, err);
    }
    cbi_mutex_unlock(&p->mutex);
    return status;
}

/* One step towards `units` segments: lets something leave, or waits for what is on its way.
 * p->mutex held. */
static cb_status gain_memory(cbi_partitions *p, size_t units, cb_error *err) {
    uint32_t victim = UINT32_MAX;
    if (p->o.spill != NULL && (p->leaving < units + p->o.batch_segments_max || units > 1))
        victim = choose_victim(p, units > 1 ? 1 : (unsigned)p->o.batch_segments_max / 2);
    if (victim != UINT32_MAX)
        return spill_batch(p, victim, err);
    if (p->under_way > 0) {
        cbi_cond_wait(&p->changed, &p->mutex);
        return CB_OK;
    }
    bool in_hand =
        atomic_load(&p->in_hand) > 0; /* looked at first: they are in a partition when it is 0 */
    if (p->o.spill != NULL && close_open(p, 0))
        return CB_OK;
    if (in_hand) {
        (void)cbi_cond_wait_until(&p->changed, &p->mutex, cbi_sys_clock_ns() + 1000000);
        return CB_OK;
    }
    size_t asked = units * p->o.segment_bytes, all = p->o.segments_max * p->o.segment_bytes;
    return cbi_fail_bytes(
        err, CB_EBUDGET, asked, all,
        "%zu bytes of page memory in one piece are needed, and there are %zu in all", asked, all);
}

/*
 * Waits until `units` contiguous segments could be taken. Who needs more than one claims the pool:
 * nobody else takes from it (in this object) until it has them, or what leaves would never be in
 * one piece.
 *
 * `for_partition`: the caller will put them into a partition and count in_hand down. Until then
 * nobody can make them leave, which is no reason for another one to give up.
 */
static cb_status wait_for_memory(cbi_partitions *p, size_t units, bool for_partition, void **base,
                                 cb_error *err) {
    atomic_fetch_add(&p->waiting, 1);
    cbi_mutex_lock(&p->mutex);
    cb_status status = stopped(p, err);
    while (status == CB_OK && p->claimed) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = stopped(p, err);
    }
    bool claim = status == CB_OK && units > 1;
    if (claim) {
        p->claimed = true;
        atomic_store(&p->claim, true);
    }
    *base = NULL;
    while (status == CB_OK && (*base = cb_segment_pool_take(p->o.pool, units)) == NULL) {
        status = gain_memory(p, units, err);
        if (status == CB_OK)
            status = stopped(p, err);
    }
    if (claim) {
        p->claimed = false;
        atomic_store(&p->claim, false);
        cbi_cond_broadcast(&p->changed);
    }
    if (status == CB_OK && for_partition)
        atomic_fetch_add(&p->in_hand, 1);
    cbi_mutex_unlock(&p->mutex);
    return status;
}

/* The quick way, which respects a claim. */
static inline void *take_quickly(cbi_partitions *p, size_t units) {
    return atomic_load_explicit(&p->claim, memory_order_relaxed)
               ? NULL
               : cb_segment_pool_take(p->o.pool, units);
}

cb_status cbi_partitions_take(cbi_partitions *p, size_t units, void **base, cb_error *err) {
    return wait_for_memory(p, units, false, base, err);
}

/* ---- rows come in ---- */

static inline size_t group_row_bytes(const cbi_layout *layout, const cbi_group *g, uint32_t i) {
    uint32_t row = g->which[i];
    return cbi_stored_bytes(layout, g->keys != NULL ? g->keys[row].bytes : 0, g->rows[row].bytes);
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
    for (; i < g->count; i++) {
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
    cbi_store_u64(start, g->order + *at);
    cbi_store_u32(start + 8, rows);
    cbi_store_u32(start + 12, (uint32_t)(out - start - CBI_PIECE_HEADER_BYTES));
    open->used += (uint32_t)(out - start);
    part->rows += rows;
    part->row_bytes += row_bytes;
    part->pieces++;
    *at = i;
}

/* This thread has published what it took; who waits for that is told. */
static void end_appending(cbi_partitions *p) {
    atomic_fetch_sub(&p->appending, 1);
    if (atomic_load(&p->waiting) == 0)
        return;
    cbi_mutex_lock(&p->mutex);
    cbi_cond_broadcast(&p->changed);
    cbi_mutex_unlock(&p->mutex);
}

static cb_status append_group(cbi_partitions *p, uint32_t index, const cbi_group *g,
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
            retire_open(part);
        }
        size_t units =
            need <= p->payload
                ? 1
                : (need + CBI_FRAME_HEADER_BYTES + p->o.segment_bytes - 1) / p->o.segment_bytes;
        void *base = take_quickly(p, units);
        bool waited = base == NULL;
        if (waited) {
            cbi_mutex_unlock(&part->lock);
            CB_TRY(wait_for_memory(p, units, true, &base, err));
            cbi_mutex_lock(&part->lock);
        }
        cbi_segment *segment = base;
        if (p->o.populate)
            cbi_sys_populate(base, units * p->o.segment_bytes);
        *segment = (cbi_segment){.next = NULL, .used = 0, .units = (uint32_t)units};
        if (part->open != NULL) /* somebody else was here meanwhile */
            retire_open(part);
        part->open = segment;
        part->segments += units;
        part->units_max = (uint32_t)cbi_max(part->units_max, units);
        if (waited)
            atomic_fetch_sub(&p->in_hand, 1);
    }
    if (part->open != NULL && part->open->units > 1)
        retire_open(part); /* giant rows stay alone, so that they leave and come back alone */
    cbi_mutex_unlock(&part->lock);
    return CB_OK;
}

cb_status cbi_partition_append(cbi_partitions *p, uint32_t index, const cbi_group *g,
                               cb_error *err) {
    atomic_fetch_add(&p->appending, 1);
    cb_status status = append_group(p, index, g, err);
    end_appending(p);
    return status;
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

/* ---- coming back ---- */

cb_status cbi_partitions_make_room(cbi_partitions *p, uint32_t above, size_t segments,
                                   cb_error *err) {
    if (p->o.spill == NULL)
        return CB_OK;
    cb_status status = CB_OK;
    cbi_mutex_lock(&p->mutex);
    close_open(p, above + 1);
    uint32_t i = p->o.count;
    for (;;) {
        status = stopped(p, err);
        size_t free_now = cb_segment_pool_free_count(p->o.pool);
        if (status != CB_OK || free_now >= segments)
            break;
        while (i > above + 1 &&
               atomic_load_explicit(&p->parts[i - 1].full, memory_order_relaxed) == 0)
            i--;
        if (free_now + p->leaving < segments && i > above + 1) {
            status = spill_batch(p, i - 1, err);
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

/* Reads one extent behind the caller's back. CB_EAGAIN: no memory now. p->mutex held on entry and
 * exit. */
static cb_status load_extent(cbi_partitions *p, uint32_t index, uint32_t extent, bool last_read,
                             cb_error *err) {
    partition *part = &p->parts[index];
    request *r = request_take(p);
    cbi_extent place = part->extents[extent];
    r->write = false;
    r->last_read = last_read;
    r->index = index;
    r->extent = extent;
    if (!take_for_extent(p, place.segments, r)) {
        p->under_way--;
        r->next = p->idle;
        p->idle = r;
        return CB_EAGAIN;
    }
    part->loading++;
    cbi_mutex_unlock(&p->mutex);
    if (place.segments & EXTENT_JUMBO)
        place.segments = 1;
    cb_error local;
    cb_status status = cbi_spill_read(p->o.spill, index, extent, &place, r->segments, r->count,
                                      request_done, r, &local);
    if (status != CB_OK) {
        for (uint32_t i = 0; i < r->count; i++)
            cb_segment_pool_give(p->o.pool, r->segments[i].base,
                                 r->segments[i].capacity / p->o.segment_bytes);
        request_return(p, r, status, &local);
        if (err != NULL)
            *err = local;
    }
    cbi_mutex_lock(&p->mutex);
    return status;
}

/* Extents of one kind that are not in yet. p->mutex held. */
static cb_status load_kind(cbi_partitions *p, uint32_t index, uint32_t kind, cb_error *err) {
    partition *part = &p->parts[index];
    for (uint32_t i = 0; i < part->extent_count; i++) {
        uint32_t shape = part->extents[i].segments;
        if ((shape & EXTENT_LOADED) != 0 || (shape & EXTENT_JUMBO) != kind)
            continue;
        CB_TRY(load_extent(p, index, i, false, err));
        part->extents[i].segments |= EXTENT_LOADED;
        part->segments_out -= shape & EXTENT_UNITS;
    }
    return CB_OK;
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
    cb_status status = stopped(p, err);
    while (status == CB_OK && p->leaving > 0) {
        bool known = true;
        for (uint32_t i = part->extent_count; known && i-- > 0;)
            known = part->extents[i].blocks > 0;
        if (known)
            break;
        cbi_cond_wait(&p->changed, &p->mutex);
        status = stopped(p, err);
    }
    if (status == CB_OK) /* giant rows first, while there is room in one piece */
        status = load_kind(p, index, EXTENT_JUMBO, err);
    if (status == CB_OK)
        status = load_kind(p, index, 0, err);
    cbi_mutex_unlock(&p->mutex);
    return status;
}

cb_status cbi_partition_unload(cbi_partitions *p, uint32_t index, cb_error *err) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&p->mutex);
    cb_status status = stopped(p, err);
    while (status == CB_OK && part->loading > 0) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = stopped(p, err);
    }
    for (uint32_t i = 0; status == CB_OK && i < part->extent_count; i++) {
        if ((part->extents[i].segments & EXTENT_LOADED) != 0)
            part->segments_out += part->extents[i].segments & EXTENT_UNITS;
        part->extents[i].segments &= ~(uint32_t)EXTENT_LOADED;
    }
    cbi_segment *list = NULL;
    if (status == CB_OK) {
        list = part->back;
        part->back = part->back_last = NULL;
    }
    cbi_mutex_unlock(&p->mutex);
    cbi_segments_give(p->o.pool, list);
    return status;
}

cb_status cbi_partition_wait(cbi_partitions *p, uint32_t index, cbi_segment **segments,
                             cb_error *err) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&p->mutex);
    cb_status status = stopped(p, err);
    while (status == CB_OK && part->loading > 0) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = stopped(p, err);
    }
    cbi_mutex_unlock(&p->mutex);
    if (status != CB_OK)
        return status;
    cbi_mutex_lock(&part->lock);
    if (part->open != NULL)
        retire_open(part);
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
    cbi_free(part->extents);
    part->extents = NULL;
    part->extent_count = part->extent_capacity = 0;
    cbi_mutex_unlock(&part->lock);
    cbi_segments_give(p->o.pool, list);
    cbi_mutex_lock(&p->mutex);
    cbi_cond_broadcast(&p->changed);
    cbi_mutex_unlock(&p->mutex);
}

/* Places of extents are known once their writes are done. p->mutex held. */
static cb_status wait_until_written(cbi_partitions *p, const partition *part, cb_error *err) {
    cb_status status = stopped(p, err);
    while (status == CB_OK && p->leaving > 0 && part->next_extent < part->extent_count &&
           part->extents[part->next_extent].blocks == 0) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = stopped(p, err);
    }
    return status;
}

cb_status cbi_partition_prefetch(cbi_partitions *p, uint32_t index, uint32_t depth, cb_error *err) {
    partition *part = &p->parts[index];
    cb_status status = CB_OK;
    cbi_mutex_lock(&p->mutex);
    while (status == CB_OK && part->loading < depth && (depth > 1 || part->back == NULL) &&
           part->next_extent < part->extent_count && part->extents[part->next_extent].blocks > 0) {
        status = load_extent(p, index, part->next_extent, true, err);
        if (status == CB_OK)
            part->next_extent++;
    }
    cbi_mutex_unlock(&p->mutex);
    return status == CB_EAGAIN ? CB_OK : status;
}

/* Nothing is on its way: fetches the next extent, for which memory must be found. p->mutex held. */
static cb_status fetch_next(cbi_partitions *p, uint32_t index, cb_error *err) {
    partition *part = &p->parts[index];
    cb_status status = load_extent(p, index, part->next_extent, true, err);
    while (status == CB_EAGAIN && p->under_way > 0) { /* what is on its way out gives memory back */
        cbi_cond_wait(&p->changed, &p->mutex);
        status = stopped(p, err);
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
        part->next_extent < part->extent_count)
        status = fetch_next(p, index, err);
    while (status == CB_OK && part->loading > 0 && part->back == NULL) {
        cbi_cond_wait(&p->changed, &p->mutex);
        status = stopped(p, err);
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
            retire_open(part);
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
            retire_open(part);
    }
    if (part->open == NULL) {
        size_t need = bytes + CBI_PIECE_HEADER_BYTES;
        size_t units =
            need <= p->payload
                ? 1
                : (need + CBI_FRAME_HEADER_BYTES + p->o.segment_bytes - 1) / p->o.segment_bytes;
        void *base = take_quickly(p, units);
        bool waited = base == NULL;
        if (waited) {
            cbi_mutex_unlock(&part->lock);
            CB_TRY(wait_for_memory(p, units, true, &base, err));
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
        retire_open(part);
    bool relieve =
        atomic_load_explicit(&part->full, memory_order_relaxed) >= p->o.batch_segments_max;
    cbi_mutex_unlock(&part->lock);
    if (!relieve)
        return CB_OK;
    cbi_mutex_lock(&p->mutex);
    cb_status status = spill_batch(p, index, err);
    cbi_mutex_unlock(&p->mutex);
    return status;
}

cb_status cbi_partition_put_end(cbi_partitions *p, uint32_t index, cb_error *err) {
    partition *part = &p->parts[index];
    cbi_mutex_lock(&part->lock);
    if (part->open != NULL)
        retire_open(part);
    cbi_mutex_unlock(&part->lock);
    cb_status status = CB_OK;
    cbi_mutex_lock(&p->mutex);
    while (status == CB_OK && atomic_load_explicit(&part->full, memory_order_relaxed) > 0)
        status = spill_batch(p, index, err);
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
