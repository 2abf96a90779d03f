/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/job.h"

/*
 * Partitions that do not fit are divided.
 *
 * There can only be so many partitions while rows are read, for each has a segment open. With much
 * data and little memory each of them is too large for a worker. So the pass leaves them until the
 * others are done. Then some of them are read and their records scattered, by all workers, among
 * pieces that further bits of the hash tell apart, and the pieces are partitions of a pass of their
 * own. What is still too large there is divided again.
 *
 * A few partitions are taken at a time, as many as fit in a part of memory: then the pieces never
 * see the disk and dividing costs no more than a copy. One that does not fit is scattered to disk,
 * as rows are when they are read.
 *
 * A key with very many rows cannot be divided. Its partition is larger than others, since all the
 * rest is even, and goes to one worker alone (pass->big), as do rows larger than a segment.
 */

enum {
    BLOCK = 1024,
    PIECES_EACH = 64,     /* of one partition, at most */
    EVEN = 3,             /* times the mean: nothing but a heavy key makes a partition larger */
    MARGIN_PERCENT = 15,  /* by which a piece may be larger than the others */
    SHARE_OF_8 = 3,       /* of memory: partitions that are divided in memory */
    SHARE_OF_8_ALONE = 4, /* the same for a single one */
    SEGMENT_SHARE = 8     /* a piece is no larger than this part of memory */
};

typedef struct cbi_job_division {
    const cbi_job_pass *pass;
    cbi_partitions *from, *to;
    uint32_t first, end, pieces; /* partitions; pieces of each */
    unsigned workers;
    bool counted, spills;
    cbi_mutex mutex; /* below */
    uint32_t next;
} cbi_job_division;

typedef struct block {
    cbi_span spans[BLOCK];
    uint64_t orders[BLOCK];
    uint32_t dest[BLOCK], which[BLOCK];
    uint32_t source[BLOCK]; /* the how-manieth piece of its segment it comes from */
    uint32_t counts[PIECES_EACH + 1];
    uint32_t count;
} block;

static cbi_partition_info info_of(const cbi_job_pass *pass, uint32_t index) {
    cbi_partition_info info;
    cbi_partition_get_info(pass->parts, index, &info);
    if (pass->partner != NULL) {
        cbi_partition_info other;
        cbi_partition_get_info(pass->partner, index, &other);
        info.segments += other.segments;
        info.units_max = (uint32_t)cbi_max(info.units_max, other.units_max);
    }
    return info;
}

bool cbi_job_divides(const cbi_job *job, const cbi_job_pass *pass, uint32_t index) {
    cbi_partition_info info = info_of(pass, index);
    uint64_t count = pass->count - pass->first;
    (void)job;
    return pass->depth < CBI_DEPTH_MAX && info.units_max == 1 &&
           (count == 1 ? pass->depth == 0 : info.segments * count <= EVEN * pass->segments);
}

/* ---- how much at a time ---- */

/* Pieces that are written to at the same time. */
static uint32_t open_most(const cbi_job_sizes *z, unsigned depth) {
    size_t most = depth == 0 ? CBI_PIECES_MAX : CBI_PIECES_MAX / CBI_DEEPER_SHARE;
    return (uint32_t)cbi_clamp(z->segments / SEGMENT_SHARE, 2, most);
}

/* Pieces that fit. */
static uint32_t pieces_of(cbi_job *job, const cbi_job_pass *pass, uint32_t index) {
    const cbi_job_sizes *z = &job->sizes;
    cbi_partition_info all = info_of(pass, index);
    uint64_t segments = all.segments * (100 + MARGIN_PERCENT) / 100;
    uint64_t aimed = pass->partner != NULL ? z->part_bytes / z->segment : UINT64_MAX;
    aimed = cbi_clamp(aimed, 1, z->segments / SEGMENT_SHARE);
    uint32_t pieces = 2, most = open_most(z, pass->depth);
    for (; pieces < PIECES_EACH && pieces * 2 <= most; pieces *= 2) {
        cbi_partition_info each = all;
        each.rows = all.rows * (100 + MARGIN_PERCENT) / 100 / pieces + 1;
        each.segments = segments / pieces + 1;
        each.row_bytes = all.row_bytes * (100 + MARGIN_PERCENT) / 100 / pieces + 1;
        if (each.segments <= aimed &&
            (pass->partner != NULL || pass->fits(job, pass->ctx, index, &each)))
            break;
    }
    return pieces;
}

/* From `first` on, how many at once; *segments: what they take. */
static uint32_t choose_some(cbi_job *job, const cbi_job_pass *pass, uint32_t first, uint32_t pieces,
                            uint64_t *segments) {
    uint64_t most = job->sizes.segments / 8 * SHARE_OF_8;
    uint32_t end = first + 1;
    *segments = info_of(pass, first).segments;
    for (; end < pass->count && pass->divided[end] &&
           (end + 1 - first) * pieces <= open_most(&job->sizes, pass->depth);
         end++) {
        uint64_t more = info_of(pass, end).segments;
        if (*segments + more > most)
            break;
        *segments += more;
    }
    return end;
}

/* ---- scattering ---- */

static cb_status put_block(const cbi_job_division *d, uint32_t index, const uint8_t *base, block *b,
                           cb_error *err) {
    uint32_t sum = 0;
    for (uint32_t i = 0; i <= d->pieces; i++) {
        uint32_t n = b->counts[i];
        b->counts[i] = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < b->count; i++)
        b->which[b->counts[b->dest[i]]++] = i;
    /* What came in one piece of a segment stays together, and nothing else does: of two pieces with
     * the same order the later rows may come first. */
    for (uint32_t i = 0; i < b->count;) {
        uint32_t first = b->which[i], end = i + 1;
        while (end < b->count && b->dest[b->which[end]] == b->dest[first] &&
               b->source[b->which[end]] == b->source[first])
            end++;
        cbi_group group = {.base = base,
                           .rows = b->spans,
                           .which = b->which + i,
                           .count = end - i,
                           .stored = true,
                           .counted = d->counted,
                           .order = b->orders[first]};
        CB_TRY(cbi_partition_append(d->to, (index - d->first) * d->pieces + b->dest[first], &group,
                                    err));
        i = end;
    }
    b->count = 0;
    memset(b->counts, 0, sizeof b->counts);
    return CB_OK;
}

static cb_status scatter(cbi_job_worker *w, uint32_t index, cbi_segment *list, cb_error *err) {
    const cbi_job_division *d = w->job->division;
    const cbi_job_pass *pass = d->pass;
    uint32_t scale = pass->scale * d->pieces;
    block *b = (block *)(void *)w->scratch;
    cb_assert(sizeof *b <= w->job->sizes.worker);
    b->count = 0;
    memset(b->counts, 0, sizeof b->counts);
    for (; list != NULL; list = list->next) {
        cbi_segment one = *list;
        one.next = NULL;
        const uint8_t *base = cbi_segment_payload(list);
        cbi_record_reader reader = {
            .segment = &one, .at = base, .piece_end = base, .segment_end = base + list->used};
        cbi_stored record;
        const uint8_t *source_end = NULL;
        uint64_t ordinal = 0;
        uint32_t source = 0;
        for (const uint8_t *at; (at = cbi_record_next(&reader, &record)) != NULL;) {
            bool same = reader.piece_end == source_end;
            ordinal = same ? ordinal + 1 : 0;
            source += !same;
            source_end = reader.piece_end;
            uint32_t i = b->count++, part = cbi_job_part(pass->hash(w->job, &record), scale);
            b->spans[i] =
                (cbi_span){.offset = (uint32_t)(at - base), .bytes = (uint32_t)(reader.at - at)};
            b->source[i] = source;
            b->orders[i] = reader.order + (d->counted ? ordinal : 0);
            b->dest[i] = part & (d->pieces - 1);
            b->counts[b->dest[i]]++;
            if (b->count == BLOCK)
                CB_TRY(put_block(d, index, base, b, err));
        }
        CB_TRY(put_block(d, index, base, b, err));
    }
    if (d->spills)
        CB_TRY(cbi_partitions_relieve(d->to, err));
    return cbi_job_stopped(w->job) ? cbi_fail(err, CB_ECANCELED, "cancelled") : CB_OK;
}

/* Workers read the same partition in turns. */
static cb_status next_part(cbi_job_division *d, uint32_t *index, cbi_segment **list,
                           cb_error *err) {
    cb_status status = CB_OK;
    *list = NULL;
    cbi_mutex_lock(&d->mutex);
    for (; status == CB_OK && *list == NULL && d->next < d->end; d->next += *list == NULL) {
        *index = d->next;
        status = cbi_partition_next_part(d->from, d->next, list, err);
        if (status == CB_OK && *list != NULL)
            status = cbi_partition_prefetch(d->from, d->next, CBI_PARTS_AHEAD, err);
    }
    cbi_mutex_unlock(&d->mutex);
    return status;
}

static void divide_worker(void *ctx) {
    cbi_job_worker *w = ctx;
    cbi_job *job = w->job;
    cb_error err;
    cb_status status = CB_OK;
    while (status == CB_OK && !cbi_job_stopped(job)) {
        uint32_t index = 0;
        cbi_segment *list;
        status = next_part(job->division, &index, &list, &err);
        if (list == NULL)
            break;
        if (status == CB_OK)
            status = scatter(w, index, list, &err);
        cbi_segments_give(job->ground.pool, list);
    }
    if (status != CB_OK && !cbi_job_stopped(job))
        cbi_job_fail(job, status, &err);
}

/* One side of partitions [first, end). */
static cb_status divide_side(cbi_job *job, cbi_job_division *d, cbi_partitions **to,
                             cb_error *err) {
    CB_TRY(cbi_job_open_pieces(job, (d->end - d->first) * d->pieces, d->pass->depth, to, err));
    if (!d->spills)
        cbi_partitions_keep_free(*to, 0);
    d->to = *to;
    d->next = d->first;
    cbi_mutex_init(&d->mutex, CBI_RANK_DIVISION);
    cbi_partitions_set_yields(d->from, d->to); /* pieces may be all there is in memory */
    job->division = d;
    cb_status status = cbi_job_in_workers(job, d->workers, divide_worker, err);
    job->division = NULL;
    cbi_partitions_set_yields(d->from, NULL);
    cbi_mutex_fini(&d->mutex);
    for (uint32_t i = d->first; i < d->end; i++)
        cbi_partition_drop(d->from, i);
    return status;
}

/* ---- a few partitions at a time ---- */

/* Memory for what is divided: results leave for it, the fullest first. */
static cb_status make_room(cbi_job *job, cbi_partitions *to, size_t segments, cb_error *err) {
    if (to == NULL)
        return CB_OK;
    CB_TRY(cbi_partitions_let_leave(to, segments, err));
    bool enough = cb_segment_pool_free_count(job->ground.pool) >= segments;
    return enough ? CB_OK : cbi_partitions_make_room(to, UINT32_MAX, segments, err);
}

/* Nobody would know of what they hold in memory. */
static cb_status clear(cbi_job *job, const cbi_job_pass *pass, cb_error *err) {
    size_t all = job->sizes.segments;
    CB_TRY(cbi_partitions_make_room(pass->parts, UINT32_MAX, all, err));
    return pass->partner == NULL ? CB_OK
                                 : cbi_partitions_make_room(pass->partner, UINT32_MAX, all, err);
}

/* What dividing so much takes: each worker has a list in hand. */
static size_t room_for(const cbi_job *job, const cbi_job_division *d, uint64_t segments) {
    return (size_t)(segments + segments / 8) + (size_t)(d->end - d->first) * d->pieces +
           job->sizes.reserve + (d->workers + 2) * job->sizes.batch_segments;
}

/* As many workers as have something to do and leave room for what they do. */
static void choose_workers(const cbi_job *job, cbi_job_division *d, uint64_t segments) {
    const cbi_job_sizes *z = &job->sizes;
    size_t room = room_for(job, d, segments);
    size_t left = room < z->segments ? (z->segments - room) / z->batch_segments : 0;
    uint64_t lists = segments / z->batch_segments + 1;
    d->workers = (unsigned)cbi_clamp(cbi_min(lists, left), 1, z->threads);
}

/* The pieces of one side are in memory, if they did not have to leave; the other needs some. */
static cb_status make_room_beside(cbi_job *job, const cbi_job_division *d,
                                  const cbi_partitions *partner, cbi_partitions *parts,
                                  cb_error *err) {
    uint64_t segments = 0;
    for (uint32_t i = d->first; i < d->end; i++) {
        cbi_partition_info info;
        cbi_partition_get_info(partner, i, &info);
        segments += info.segments;
    }
    size_t room = cbi_min(room_for(job, d, segments), job->sizes.segments);
    return cb_segment_pool_free_count(job->ground.pool) >= room
               ? CB_OK
               : cbi_partitions_make_room(parts, UINT32_MAX, room, err);
}

static cb_status divide_some(cbi_job *job, cbi_job_pass *pass, cbi_job_division *d,
                             cbi_partitions *to, uint32_t to_parts, cb_error *err) {
    uint32_t count = (d->end - d->first) * d->pieces;
    cbi_partitions *parts = NULL, *partner = NULL;
    d->from = pass->parts;
    d->counted = false;
    cb_status status = divide_side(job, d, &parts, err);
    if (status == CB_OK && d->spills) /* for the other side */
        status = cbi_partitions_make_room(parts, UINT32_MAX, job->sizes.segments, err);
    else if (status == CB_OK && pass->partner != NULL)
        status = make_room_beside(job, d, pass->partner, parts, err);
    if (status == CB_OK && pass->partner != NULL) {
        d->from = pass->partner;
        d->counted = pass->partner_counted;
        status = divide_side(job, d, &partner, err);
    }
    cbi_job_pass inner = *pass;
    inner.parts = parts;
    inner.partner = partner;
    inner.first = 0;
    inner.count = count;
    inner.scale = pass->scale * d->pieces;
    inner.depth = pass->depth + 1;
    inner.divided = NULL;
    if (status == CB_OK && (inner.divided = cbi_calloc(count, 1)) == NULL)
        status = cbi_fail(err, CB_ENOMEM, "no memory for %u partitions", count);
    cbi_partitions *outer = job->parts, *outer_partner = job->partner;
    if (status == CB_OK) {
        job->parts = parts;
        job->partner = partner;
        job->divided += d->end - d->first;
        status = cbi_job_pass_once(job, &inner, to, to_parts, err);
        if (status == CB_OK)
            status = cbi_job_divide(job, &inner, to, to_parts, err);
        job->parts = outer;
        job->partner = outer_partner;
    }
    cbi_free(inner.divided);
    cbi_partitions_destroy(parts);
    cbi_partitions_destroy(partner);
    return status;
}

cb_status cbi_job_divide(cbi_job *job, cbi_job_pass *pass, cbi_partitions *to, uint32_t to_parts,
                         cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    bool cleared = false;
    for (uint32_t i = pass->first; pass->divided != NULL && i < pass->count;) {
        if (!pass->divided[i]) {
            i++;
            continue;
        }
        if (!cleared)
            CB_TRY(clear(job, pass, err));
        cleared = true;
        uint64_t segments;
        cbi_job_division d = {.pass = pass, .first = i, .pieces = pieces_of(job, pass, i)};
        d.end = choose_some(job, pass, i, d.pieces, &segments);
        choose_workers(job, &d, segments);
        size_t room = room_for(job, &d, segments);
        d.spills = segments > z->segments / 8 * SHARE_OF_8_ALONE || room > z->segments;
        CB_TRY(make_room(job, to, d.spills ? z->segments : room, err));
        CB_TRY(divide_some(job, pass, &d, to, to_parts, err));
        if (pass->depth == 0)
            cbi_job_parts_done(job, d.end - d.first);
        i = d.end;
    }
    return CB_OK;
}
