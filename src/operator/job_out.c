/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/job.h"

/*
 * Results lie in ranges: of input positions when they come out in the order in which they first
 * appeared, of keys when they are wanted sorted. Each range's place in the output is known before
 * it is written, so all workers write at once; streams are written in turns.
 */

static cb_status open_output(cbi_job *job, const char *path, uint64_t bytes_expected,
                             cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    uint8_t *shared = job->ground.scratch + z->worker * z->threads + z->staging;
    cbi_sink_options options = {.path = path,
                                .io = job->ground.spill,
                                .writers = z->threads,
                                .edge_memory = shared,
                                .block_memory = shared + cbi_sink_edge_bytes(z->threads),
                                .bytes_expected = bytes_expected};
    cbi_sink *sink;
    CB_TRY(cbi_sink_open(&options, &sink, err));
    cbi_mutex_lock(&job->mutex);
    job->sink = sink;
    cbi_mutex_unlock(&job->mutex);
    return CB_OK;
}

static size_t overhead(const cbi_job *job) {
    return job->no_terminator ? 0 : 1;
}

static uint8_t terminator(const cbi_job *job) {
    return job->o.zero_terminated ? 0 : '\n';
}

/* Results go to the caller's function: in turns, as to a stream. */
static bool calls_back(const cbi_job *job) {
    return job->o.write != NULL && job->sink == NULL;
}

static bool takes_turns(const cbi_job *job) {
    return calls_back(job) || !cbi_sink_positional(job->sink);
}

static cb_status write_header(cbi_job *job, cb_error *err) {
    cbi_job_worker *w = &job->workers[0];
    if (job->header_bytes == 0)
        return CB_OK;
    if (calls_back(job))
        return job->o.write(job->o.write_ctx, job->header, job->header_bytes - overhead(job), err);
    CB_TRY(cbi_writer_begin(&w->writer, 0, err));
    CB_TRY(cbi_writer_put(&w->writer, job->header, job->header_bytes, err));
    CB_TRY(cbi_writer_end(&w->writer, err));
    return cbi_writer_drain(&w->writer, err);
}

/* A range may be ordered in so many: each looks at all of its rows. */
enum { SLICES_MAX = 32 };

static bool range_fits(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info) {
    (void)ctx;
    (void)index;
    uint64_t slices = job->short_keys ? SLICES_MAX : 1;
    return info->rows <= slices * job->sizes.entries;
}

/* Waits for the turn of `range`; false when the job has stopped. */
static bool wait_turn(cbi_job *job, uint32_t range) {
    cbi_mutex_lock(&job->mutex);
    while (job->turn != range && !cbi_job_stopped(job))
        cbi_cond_wait(&job->changed, &job->mutex);
    cbi_mutex_unlock(&job->mutex);
    return !cbi_job_stopped(job);
}

static void pass_turn(cbi_job *job) {
    cbi_mutex_lock(&job->mutex);
    job->turn++;
    cbi_cond_broadcast(&job->changed);
    cbi_mutex_unlock(&job->mutex);
}

static cb_status begin_range(cbi_job_worker *w, uint32_t range, cb_error *err) {
    cbi_job *job = w->job;
    if (takes_turns(job) && !wait_turn(job, range))
        return cbi_fail(err, CB_ECANCELED, "cancelled");
    w->range = range;
    return calls_back(job) ? CB_OK : cbi_writer_begin(&w->writer, job->offsets[range], err);
}

static cb_status end_range(cbi_job_worker *w, cb_error *err) {
    if (!calls_back(w->job))
        CB_TRY(cbi_writer_end(&w->writer, err));
    if (takes_turns(w->job))
        pass_turn(w->job);
    return CB_OK;
}

static cb_status give_row(cbi_job_worker *w, const cbi_stored *row, cb_error *err) {
    const cbi_job *job = w->job;
    return job->put_result != NULL ? job->put_result(w, row, err)
                                   : job->o.write(job->o.write_ctx, row->row, row->row_bytes, err);
}

static bool gives_rows(const cbi_job *job) {
    return calls_back(job) || job->put_result != NULL;
}

/* cbi_prefix, with one load for keys that are places: two bytes of a record stand before its key.
 */
static inline uint64_t prefix_of(const cbi_stored *row) {
    if (CBI_LIKELY(row->key_bytes >= 6 && row->key_bytes < 8))
        return cbi_load_be64(row->key + row->key_bytes - 8) << (8 * (8 - row->key_bytes));
    return cbi_prefix(row->key, row->key_bytes, 0);
}

/* All rows, which are as many as can be ordered at most. */
static size_t take_rows(cbi_entry *entries, cbi_segment *list, const uint8_t *base) {
    size_t count = 0;
    cbi_record_reader reader;
    cbi_stored row;
    cbi_record_reader_init(&reader, list);
    for (const uint8_t *at; (at = cbi_record_next(&reader, &row)) != NULL; count++)
        entries[count] =
            (cbi_entry){.prefix = prefix_of(&row), .ref = cbi_ref(0, (uint64_t)(at - base))};
    return count;
}

static void order_rows(cbi_job_worker *w, size_t count, const uint8_t *base) {
    cb_assert(count <= w->job->sizes.entries);
    cbi_order_within(w->entries, count, w->job->sizes.entries, &cbi_record_layout, base);
}

/* One that was looked up a while ago. */
static inline cb_status write_row(cbi_job_worker *w, const uint8_t *at, bool given, bool terminated,
                                  uint8_t end, cb_error *err) {
    cbi_stored row;
    cbi_stored_get(&cbi_record_layout, at, &row);
    return CBI_UNLIKELY(given)
               ? give_row(w, &row, err)
               : cbi_writer_put_row(&w->writer, row.row, row.row_bytes, terminated, end, err);
}

enum { AHEAD = 12 };

/* A short row may lie across two lines. */
static inline void prefetch_row(const uint8_t *at) {
    __builtin_prefetch(at);
    __builtin_prefetch(at + 32);
}

/* Those that are in order. */
static cb_status write_rows(cbi_job_worker *w, size_t count, const uint8_t *base, cb_error *err) {
    cbi_job *job = w->job;
    const cbi_entry *entries = w->entries;
    bool terminated = overhead(job) > 0, given = gives_rows(job);
    uint8_t end = terminator(job);
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            __builtin_prefetch(cbi_ref_row(base, entries[i + AHEAD].ref));
        CB_TRY(write_row(w, cbi_ref_row(base, entries[i].ref), given, terminated, end, err));
    }
    atomic_fetch_add_explicit(&job->rows_out, count, memory_order_relaxed);
    return CB_OK;
}

/* ---- ranges whose keys are places ---- */

/* A word has the key's place above where the row lies, when both fit. */
static unsigned offset_bits(const cbi_job *job) {
    return 64 - (unsigned)__builtin_clzll(job->sizes.budget | 1); /* all segments are within it */
}

/* All rows as words; false: places do not decide alone, or do not fit. */
static bool take_places(const cbi_job *job, uint64_t *words, cbi_segment *list,
                        const uint8_t *base) {
    unsigned low = offset_bits(job), place_bytes = job->place_bytes;
    uint64_t most = UINT64_MAX >> low;
    cbi_record_reader reader;
    cbi_stored row;
    cbi_record_reader_init(&reader, list);
    for (const uint8_t *at; (at = cbi_record_next(&reader, &row)) != NULL; words++) {
        if (CBI_UNLIKELY(row.key_bytes != place_bytes))
            return false;
        uint64_t place = cbi_place_get(row.key, place_bytes);
        if (CBI_UNLIKELY(place > most))
            return false;
        *words = place << low | (uint64_t)(at - base);
    }
    return true;
}

/* The range's rows in order, as words in place of entries; false: not this way. */
static bool order_places(cbi_job_worker *w, cbi_segment *list, size_t count, const uint8_t *base) {
    size_t room = w->job->sizes.entries * (sizeof(cbi_entry) / sizeof(uint64_t));
    uint64_t *words = (uint64_t *)(void *)w->entries;
    unsigned low = offset_bits(w->job);
    if (w->job->place_bytes == 0 || room < cbi_order_numbers_room(count) ||
        !take_places(w->job, words, list, base))
        return false;
    cbi_order_numbers(words, count, room);
    bool same = false;
    for (size_t i = 1; i < count; i++)
        same |= words[i - 1] >> low == words[i] >> low;
    return !same;
}

/* As write_rows. */
static cb_status write_places(cbi_job_worker *w, size_t count, const uint8_t *base, cb_error *err) {
    cbi_job *job = w->job;
    const uint64_t *words = (const uint64_t *)(const void *)w->entries;
    uint64_t mask = ((uint64_t)1 << offset_bits(job)) - 1;
    bool terminated = overhead(job) > 0, given = gives_rows(job);
    uint8_t end = terminator(job);
    for (size_t i = 0; i < count; i++) {
        if (i + AHEAD < count)
            prefetch_row(base + (words[i + AHEAD] & mask));
        CB_TRY(write_row(w, base + (words[i] & mask), given, terminated, end, err));
    }
    atomic_fetch_add_explicit(&job->rows_out, count, memory_order_relaxed);
    return CB_OK;
}

/* ---- ranges ---- */

static cb_status write_range(cbi_job_worker *w, void *ctx, uint32_t range, cbi_segment *list,
                             cb_error *err) {
    (void)ctx;
    cbi_job *job = w->job;
    const uint8_t *base = cb_segment_pool_base(job->ground.pool);
    cbi_partition_info info;
    cbi_partition_get_info(job->results, range, &info);
    cbi_slices slices;
    bool sliced = info.rows > job->sizes.entries;
    if (order_places(w, list, (size_t)info.rows, base)) {
        CB_TRY(begin_range(w, range, err));
        CB_TRY(write_places(w, (size_t)info.rows, base, err));
        return end_range(w, err);
    }
    if (sliced)
        cbi_slices_init(&slices, list, info.rows);
    size_t rows = sliced ? cbi_slices_next(&slices, w->entries, job->sizes.entries, base)
                         : take_rows(w->entries, list, base);
    order_rows(w, rows, base); /* before its turn, which others wait for */
    CB_TRY(begin_range(w, range, err));
    CB_TRY(write_rows(w, rows, base, err));
    while (sliced && (rows = cbi_slices_next(&slices, w->entries, job->sizes.entries, base)) > 0) {
        order_rows(w, rows, base);
        CB_TRY(write_rows(w, rows, base, err));
    }
    return end_range(w, err);
}

static cb_status put_row(void *ctx, const cbi_stored *row, cb_error *err) {
    cbi_job_worker *w = ctx;
    atomic_fetch_add_explicit(&w->job->rows_out, 1, memory_order_relaxed);
    if (gives_rows(w->job))
        return give_row(w, row, err);
    return cbi_writer_put_row(&w->writer, row->row, row->row_bytes, overhead(w->job) > 0,
                              terminator(w->job), err);
}

static cb_status write_big_range(cbi_job_worker *w, void *ctx, uint32_t range, cb_error *err) {
    (void)ctx;
    cbi_job *job = w->job;
    cbi_partition_info info;
    CB_TRY(cbi_job_clear_memory(job, range, err));
    cbi_partition_get_info(job->results, range, &info);
    uint64_t need = info.segments * job->sizes.segment + info.rows * sizeof(cbi_entry);
    cbi_runs runs = {.job = job};
    cb_status status = cbi_runs_open(&runs, job, need, info.units_max, err);
    while (status == CB_OK) {
        cbi_segment *list;
        status = cbi_partition_next_part(job->results, range, &list, err);
        if (status == CB_OK)
            status = cbi_partition_prefetch(job->results, range, CBI_PARTS_AHEAD, err);
        if (status != CB_OK || list == NULL)
            break;
        cbi_record_reader reader;
        cbi_stored row;
        cbi_record_reader_init(&reader, list);
        while (status == CB_OK && cbi_record_next(&reader, &row) != NULL)
            status = cbi_runs_add(&runs, &row, err);
        cbi_segments_give(job->ground.pool, list);
    }
    if (status == CB_OK)
        status = begin_range(w, range, err);
    if (status == CB_OK)
        status = cbi_runs_merge(&runs, put_row, w, err);
    if (status == CB_OK)
        status = end_range(w, err);
    cbi_runs_close(&runs);
    return status;
}

static cb_status place_ranges(cbi_job *job, uint32_t first, uint32_t ranges, cb_error *err) {
    cbi_free(job->offsets);
    job->offsets = cbi_alloc(((size_t)ranges + 1) * sizeof *job->offsets);
    if (job->offsets == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %u ranges", ranges);
    uint64_t at = job->header_bytes;
    for (uint32_t r = first; r < ranges; r++) {
        cbi_partition_info info;
        cbi_partition_get_info(job->results, r, &info);
        job->offsets[r] = at;
        at += job->range_bytes != NULL ? job->range_bytes(job, r)
                                       : info.row_bytes + info.rows * overhead(job);
    }
    job->offsets[ranges] = at;
    cbi_mutex_lock(&job->mutex);
    job->bytes_out_total = at;
    cbi_mutex_unlock(&job->mutex);
    return CB_OK;
}

/* The last thing a worker does: what it has put is on the disk before its buffers go. */
static void drain(void *ctx) {
    cbi_job_worker *w = ctx;
    cb_error err;
    cb_status status = cbi_writer_drain(&w->writer, &err);
    if (status != CB_OK && !cbi_job_stopped(w->job))
        cbi_job_fail(w->job, status, &err);
}

static cb_status write_ranges(cbi_job *job, uint32_t first, uint32_t end, const char *path,
                              cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    CB_TRY(place_ranges(job, first, end, err));
    cbi_job_phase(job, CB_PHASE_WRITE);
    if (path != NULL || job->o.write == NULL)
        CB_TRY(open_output(job, path, job->bytes_out_total, err));
    for (unsigned i = 0; i < z->threads; i++) {
        cbi_job_worker *w = &job->workers[i];
        cbi_writer_init(&w->writer, job->sink, w->scratch, z->writer_buffer, z->writer_buffers);
        w->reread = w->scratch + z->writer_buffers * z->writer_buffer;
        w->entries = (cbi_entry *)(void *)(w->reread + z->reread);
    }
    CB_TRY(write_header(job, err));
    cbi_job_pass pass = {.parts = job->results,
                         .first = first,
                         .count = end,
                         .fits = range_fits,
                         .work = write_range,
                         .big = write_big_range};
    job->turn = first;
    CB_TRY(cbi_job_each(job, &pass, NULL, 0, err));
    return calls_back(job) ? CB_OK : cbi_job_in_workers(job, z->threads, drain, err);
}

cb_status cbi_job_begin_output(cbi_job *job, uint64_t bytes_most, cb_error *err) {
    cbi_job_phase(job, CB_PHASE_WRITE);
    cb_status status = open_output(job, job->o.output, bytes_most, NULL);
    if (status != CB_OK) /* less may come than was to be reserved */
        CB_TRY(open_output(job, job->o.output, 0, err));
    for (unsigned i = 0; i < job->sizes.threads; i++)
        job->workers[i].writer.sink = job->sink;
    CB_TRY(write_header(job, err));
    job->cursor = job->header_bytes;
    return CB_OK;
}

cb_status cbi_job_begin_rows(cbi_job *job, cbi_partitions *parts, cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    cbi_job_worker *w = &job->workers[0];
    void *buffers;
    if (job->o.write != NULL)
        return write_header(job, err);
    size_t bytes = z->writer_buffers * z->writer_buffer;
    CB_TRY(cbi_partitions_take(parts, (bytes + z->segment - 1) / z->segment, &buffers, err));
    CB_TRY(open_output(job, job->o.output, 0, err));
    cbi_writer_init(&w->writer, job->sink, buffers, z->writer_buffer, z->writer_buffers);
    CB_TRY(cbi_writer_begin(&w->writer, 0, err));
    return job->header_bytes == 0 ? CB_OK
                                  : cbi_writer_put(&w->writer, job->header, job->header_bytes, err);
}

cb_status cbi_job_end_rows(cbi_job *job, cb_error *err) {
    cbi_job_worker *w = &job->workers[0];
    job->cursor = job->header_bytes + atomic_load(&job->bytes_out);
    if (job->o.write != NULL)
        return CB_OK;
    CB_TRY(cbi_writer_end(&w->writer, err));
    return cbi_writer_drain(&w->writer, err);
}

cb_status cbi_job_write_results(cbi_job *job, cb_error *err) {
    CB_TRY(
        write_ranges(job, 0, job->sizes.ranges, job->o.write != NULL ? NULL : job->o.output, err));
    job->cursor = job->bytes_out_total;
    return CB_OK;
}

cb_status cbi_job_write_ranges(cbi_job *job, uint32_t first, uint32_t end, const char *path,
                               cb_error *err) {
    CB_TRY(write_ranges(job, first, end, path, err));
    CB_TRY(cbi_sink_finish(job->sink, job->bytes_out_total, err));
    atomic_store(&job->rows_out, 0);
    cbi_mutex_lock(&job->mutex);
    cbi_sink *sink = job->sink;
    job->sink = NULL;
    cbi_mutex_unlock(&job->mutex);
    cbi_sink_close(sink);
    return CB_OK;
}
