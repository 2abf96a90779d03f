/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/job.h"

/*
 * Rows in, records out: what every worker does while it reads, and the batch by which it hands
 * records on. A row too large for the usual buffers gets segments of its own, as does a result;
 * only one worker at a time has such memory, or two could each wait for what the other holds.
 */

static uint8_t *carve(uint8_t **at, size_t bytes) {
    uint8_t *piece = *at;
    *at += cbi_round_up(bytes, 64);
    return piece;
}

/* ---- batches ---- */

/* Records of less than this on average fill the tables before the bytes. */
enum { BATCH_RECORD_BYTES = 32 };

size_t cbi_batch_memory(size_t batch_bytes, uint32_t parts) {
    size_t records = batch_bytes / BATCH_RECORD_BYTES;
    return cbi_round_up(batch_bytes + records * (sizeof(cbi_span) + 2 * sizeof(uint32_t)) +
                            ((size_t)parts + 2) * sizeof(uint32_t) + 5 * 64,
                        64);
}

uint8_t *cbi_batch_init(cbi_batch *b, cbi_job_worker *w, cbi_partitions *to, uint32_t parts,
                        uint8_t *memory) {
    size_t bytes = w->job->sizes.batch;
    uint8_t *at = memory;
    *b = (cbi_batch){.job = w->job, .to = to, .parts = parts};
    b->capacity = (uint32_t)(bytes / BATCH_RECORD_BYTES);
    b->first = (unsigned)((uint64_t)parts * w->index / w->job->sizes.threads);
    b->bytes = b->at = carve(&at, bytes);
    b->end = b->bytes + bytes;
    b->spans = (cbi_span *)(void *)carve(&at, b->capacity * sizeof(cbi_span));
    b->dest = (uint32_t *)(void *)carve(&at, b->capacity * sizeof(uint32_t));
    b->which = (uint32_t *)(void *)carve(&at, b->capacity * sizeof(uint32_t));
    b->counts = (uint32_t *)(void *)carve(&at, ((size_t)parts + 2) * sizeof(uint32_t));
    cb_assert((size_t)(at - memory) <= w->job->sizes.batch_memory);
    return memory + w->job->sizes.batch_memory;
}

cb_status cbi_batch_flush(cbi_batch *b, cb_error *err) {
    if (b->count == 0)
        return CB_OK;
    uint32_t *counts = b->counts;
    memset(counts, 0, (b->parts + 1) * sizeof *counts);
    for (uint32_t i = 0; i < b->count; i++)
        counts[b->dest[i]]++;
    uint32_t sum = 0;
    for (uint32_t p = 0; p < b->parts; p++) {
        uint32_t n = counts[p];
        counts[p] = sum;
        sum += n;
    }
    for (uint32_t i = 0; i < b->count; i++)
        b->which[counts[b->dest[i]]++] = i;
    cbi_group group = {.base = b->bytes,
                       .rows = b->spans,
                       .stored = true,
                       .counted = b->counted,
                       .order = b->order};
    for (uint32_t k = 0; k < b->parts; k++) {
        uint32_t p = b->first + k < b->parts ? b->first + k : b->first + k - b->parts;
        uint32_t from = p == 0 ? 0 : counts[p - 1];
        group.count = counts[p] - from;
        if (group.count == 0)
            continue;
        group.which = b->which + from;
        CB_TRY(cbi_partition_append(b->to, p, &group, err));
    }
    b->count = 0;
    b->at = b->bytes;
    return cbi_job_stopped(b->job) ? cbi_fail(err, CB_ECANCELED, "cancelled") : CB_OK;
}

/* A large record that is put together here: here, in its partition, and on its way. */
enum { TIMES_HERE = 3 };

/* Can a record of so many bytes, `times` of it at once, be in memory at all? */
static cb_status check_big(const cbi_batch *b, size_t bytes, size_t times, cb_error *err) {
    const cbi_job_sizes *z = &b->job->sizes;
    size_t units = (bytes + z->segment - 1) / z->segment;
    if (bytes > CBI_STORED_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "a record of %zu bytes: they may have %llu", bytes,
                        (unsigned long long)CBI_STORED_MAX);
    if (units * times > z->segments)
        return cbi_fail_bytes(err, CB_EBUDGET, bytes, z->segments * z->segment,
                              "a %s of %zu bytes, with %zu bytes of page memory in all",
                              b->to == b->job->results ? "result" : "record", bytes,
                              z->segments * z->segment);
    return CB_OK;
}

/* Before memory is taken for a large record: results are made one after another, where there is not
 * plenty for as many as there are workers. */
static void take_turn(cbi_batch *b, size_t bytes) {
    const cbi_job_sizes *z = &b->job->sizes;
    size_t units = (bytes + z->segment - 1) / z->segment;
    if (b->to == b->job->results && units > 1 &&
        cb_segment_pool_free_count(b->job->ground.pool) < TIMES_HERE * units * z->threads)
        b->turn = cbi_job_take_turn(b->job);
}

static void give_turn(cbi_batch *b) {
    if (b->turn)
        cbi_job_give_turn(b->job);
    b->turn = false;
}

cb_status cbi_batch_begin_slow(cbi_batch *b, size_t bytes, cb_error *err) {
    CB_TRY(cbi_batch_flush(b, err));
    if (bytes <= (size_t)(b->end - b->at))
        return CB_OK;
    size_t segment = b->job->sizes.segment, units = (bytes + segment - 1) / segment;
    void *base = NULL;
    CB_TRY(check_big(b, bytes, TIMES_HERE, err));
    take_turn(b, bytes);
    cb_status status = cbi_partitions_take(b->to, units, &base, err);
    if (status != CB_OK)
        give_turn(b);
    CB_TRY(status);
    b->big = base;
    b->big_units = units;
    return CB_OK;
}

static cb_status append_big(cbi_batch *b, uint32_t dest, const uint8_t *record, size_t bytes,
                            cb_error *err) {
    cbi_span span = {.offset = 0, .bytes = (uint32_t)bytes};
    uint32_t which = 0;
    cbi_group group = {.base = record,
                       .rows = &span,
                       .which = &which,
                       .count = 1,
                       .stored = true,
                       .order = b->order};
    return cbi_partition_append(b->to, dest, &group, err);
}

cb_status cbi_batch_end_big(cbi_batch *b, uint8_t *end, cb_error *err) {
    cb_status status = append_big(b, b->dest[0], b->big, (size_t)(end - b->big), err);
    cb_segment_pool_give(b->job->ground.pool, b->big, b->big_units);
    b->big = NULL;
    give_turn(b);
    return status;
}

cb_status cbi_batch_put(cbi_batch *b, uint32_t dest, const uint8_t *record, size_t bytes,
                        cb_error *err) {
    if (bytes > (size_t)(b->end - b->bytes)) {
        CB_TRY(cbi_batch_flush(b, err));
        CB_TRY(check_big(b, bytes, 2, err));
        take_turn(b, bytes);
        cb_status status = append_big(b, dest, record, bytes, err);
        give_turn(b);
        return status;
    }
    uint8_t *at;
    CB_TRY(cbi_batch_begin(b, dest, bytes, &at, err));
    memcpy(at, record, bytes);
    return cbi_batch_end(b, at + bytes, err);
}

/* ---- rooms ---- */

/* Of the size of small objects; five of them are no more than what the plan leaves for these. */
enum { ROOM_SMALL = 16 * 1024 };

void cbi_room_give(cbi_room *room, cbi_job *job) {
    if (room->units > 0)
        cb_segment_pool_give(job->ground.pool, room->bytes, room->units);
    else
        cbi_free(room->bytes);
    *room = (cbi_room){.bytes = NULL};
}

cb_status cbi_room_need(cbi_room *room, cbi_job *job, cbi_partitions *via, size_t bytes,
                        cb_error *err) {
    if (CBI_LIKELY(bytes <= room->size && room->bytes != NULL))
        return CB_OK;
    size_t segment = job->sizes.segment, size = cbi_max(bytes + bytes / 2, 256);
    if (size > ROOM_SMALL) /* there may be little more than that */
        size = cbi_max(bytes, ROOM_SMALL + 1);
    size_t units = size <= ROOM_SMALL ? 0 : (size + segment - 1) / segment;
    void *fresh = NULL;
    cbi_room_give(room, job);
    if (units > 0)
        CB_TRY(cbi_partitions_take(via, units, &fresh, err));
    else if ((fresh = cbi_alloc(size)) == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a row of %zu bytes", bytes);
    *room = (cbi_room){.bytes = fresh, .size = units > 0 ? units * segment : size, .units = units};
    return CB_OK;
}

/* ---- rows ---- */

void cbi_job_read_layout(cbi_job_worker *w, cbi_input *input, const uint32_t *columns,
                         size_t fields, cbi_partitions *to, uint32_t parts) {
    const cbi_job_sizes *z = &w->job->sizes;
    uint8_t *at = cbi_batch_init(&w->batch, w, to, parts, w->scratch);
    size_t rows = z->batch_rows;
    w->input = input;
    w->columns = columns;
    w->chunk = (cbi_chunk){.buf = carve(&at, z->chunk), .capacity = z->chunk};
    w->chunk_home = w->chunk.buf;
    w->rows = (cbi_rows){.capacity = rows, .field_count = fields};
    w->rows.rows = (cbi_span *)(void *)carve(&at, rows * sizeof(cbi_span));
    w->rows.fields = (cbi_span *)(void *)carve(&at, rows * fields * sizeof(cbi_span));
    w->extra = carve(&at, rows * w->job->demand.row_extra + w->job->demand.read_extra);
    cb_assert((size_t)(at - w->scratch) <= z->worker);
    w->big = NULL;
    w->big_units = 0;
    w->big_token = false;
}

static bool take_token(cbi_job_worker *w) {
    cbi_job *job = w->job;
    if (w->big_token)
        return true;
    cbi_mutex_lock(&job->mutex);
    while (job->big_taken && !cbi_job_stopped(job) && job->demand.workers == 0)
        cbi_cond_wait(&job->changed, &job->mutex);
    if (!cbi_job_stopped(job))
        job->big_taken = w->big_token = true;
    cbi_mutex_unlock(&job->mutex);
    return w->big_token;
}

static void give_big(cbi_job_worker *w) {
    cbi_job *job = w->job;
    if (w->big != NULL) {
        cb_segment_pool_give(job->ground.pool, w->big, w->big_units);
        w->big = NULL;
        w->chunk.buf = w->chunk_home;
        w->chunk.capacity = job->sizes.chunk;
    }
    if (!w->big_token)
        return;
    cbi_mutex_lock(&job->mutex);
    job->big_taken = w->big_token = false;
    cbi_cond_broadcast(&job->changed);
    cbi_mutex_unlock(&job->mutex);
}

static cb_status take_big(cbi_job_worker *w, uint64_t bytes, cb_error *err) {
    cbi_job *job = w->job;
    size_t segment = job->sizes.segment;
    if (!take_token(w))
        return cbi_fail(err, CB_ECANCELED, "cancelled");
    if (w->yield != NULL)
        CB_TRY(w->yield(w, err));
    size_t units = (size_t)((bytes + segment - 1) / segment);
    void *base = NULL;
    cb_status status = CB_EBUDGET;
    if (units * 4 <= job->sizes.segments) /* its chunk, its record, its partition */
        status = cbi_partitions_take(w->batch.to, units, &base, err);
    if (status == CB_EBUDGET) {
        uint64_t least = cbi_job_least_budget(job, bytes);
        return cbi_fail_bytes(err, CB_EBUDGET, bytes, least,
                              "%s: one row has %llu bytes or more, too much for a budget of %llu "
                              "bytes; --memory %lluM will do",
                              cbi_input_name(w->input, w->chunk.file), (unsigned long long)bytes,
                              (unsigned long long)job->sizes.budget,
                              (unsigned long long)(least / CBI_MIB));
    }
    CB_TRY(status);
    if (cbi_chunk_pending(&w->chunk) > 0)
        memcpy(base, w->chunk.buf, cbi_min(w->chunk.capacity, units * segment));
    if (w->big != NULL)
        cb_segment_pool_give(job->ground.pool, w->big, w->big_units);
    w->big = base;
    w->big_units = units;
    w->chunk.buf = base;
    w->chunk.capacity = units * segment;
    return CB_OK;
}

cb_status cbi_job_next_chunk(cbi_job_worker *w, cb_error *err) {
    give_big(w);
    for (;;) {
        cb_error local = {.bytes_asked = 0};
        cb_status status = cbi_input_next(w->input, &w->chunk, &local);
        if (status == CB_OK)
            return CB_OK;
        if (status != CB_EBUDGET || local.bytes_had != w->chunk.capacity) {
            if (err != NULL)
                *err = local;
            return status;
        }
        CB_TRY(take_big(w, local.bytes_asked, err));
    }
}

cb_status cbi_job_next_rows(cbi_job_worker *w, size_t *at, cb_error *err) {
    w->rows.count = 0;
    while (w->rows.count == 0 && *at < w->chunk.bytes)
        CB_TRY(cbi_input_scan(w->input, &w->chunk, at, w->columns, &w->rows, err));
    return CB_OK;
}

void cbi_job_end_input(cbi_job_worker *w) {
    give_big(w);
}
