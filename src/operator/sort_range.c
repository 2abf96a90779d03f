/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/sort_private.h"

/*
 * Sorting by range partition, without a merge.
 *
 * In: workers take chunks, find the range of each row's key, order the chunk's rows by range (a
 * counting sort of numbers) and append each range's share to it. What memory cannot hold leaves
 * behind their backs (partition.c).
 *
 * Out: how many bytes each range will take in the output is known, so its place is. Ranges are
 * handed out in order; each worker waits until its range is back in memory, makes entries, orders
 * them and copies the rows to their place, while the next ranges are read. Where the place is not
 * known (unique rows) or there are no places (pipes, compressed files) workers take turns for the
 * last step only.
 *
 * A range too large for its memory waits until the worker is alone and goes through runs and a
 * merge.
 */

/* ---- in ---- */

static void count_ranges(sort_worker *w) {
    cb_sort *s = w->sort;
    memset(w->counts, 0, (s->sizes.ranges + 1) * sizeof *w->counts);
    if (s->layout.shape == CBI_KEY_ROW) {
        for (size_t i = 0; i < w->rows.count; i++) {
            uint32_t range = cbi_splitters_find(s->splitters, w->rows.base + w->rows.rows[i].offset,
                                                w->rows.rows[i].bytes);
            w->range_of[i] = range;
            w->counts[range]++;
        }
        return;
    }
    for (size_t i = 0; i < w->rows.count; i++) {
        cbi_stored row = cbi_worker_row(w, i);
        uint32_t range = cbi_splitters_find(s->splitters, row.key, row.key_bytes);
        w->range_of[i] = range;
        w->counts[range]++;
    }
}

static cb_status partition_rows(sort_worker *w, uint64_t order, cb_error *err) {
    cb_sort *s = w->sort;
    count_ranges(w);
    uint32_t sum = 0;
    for (uint32_t r = 0; r < s->sizes.ranges; r++) {
        uint32_t n = w->counts[r];
        w->counts[r] = sum;
        sum += n;
    }
    for (size_t i = 0; i < w->rows.count; i++)
        w->which[w->counts[w->range_of[i]]++] = (uint32_t)i;
    cbi_group group = {.base = w->rows.base, .rows = w->rows.rows, .order = order};
    if (s->layout.shape == CBI_KEY_ENCODED) {
        group.key_base = w->keys_base;
        group.keys = w->keys;
    }
    /* Workers start at different ranges, so that they seldom meet at a lock. */
    uint32_t ranges = s->sizes.ranges,
             first = (uint32_t)((uint64_t)ranges * w->index / s->sizes.threads);
    for (uint32_t k = 0; k < ranges; k++) {
        uint32_t r = first + k < ranges ? first + k : first + k - ranges;
        uint32_t from = r == 0 ? 0 : w->counts[r - 1];
        group.count = w->counts[r] - from;
        if (group.count == 0)
            continue;
        group.which = w->which + from;
        CB_TRY(cbi_partition_append(s->parts, r, &group, err));
    }
    return CB_OK;
}

static cb_status read_chunk(sort_worker *w, cb_error *err) {
    cb_sort *s = w->sort;
    size_t at = 0;
    uint64_t row = 0;
    for (;;) {
        CB_TRY(cbi_worker_next_rows(w, &at, err));
        if (w->rows.count == 0)
            break;
        cb_assert(row + w->rows.count < (uint64_t)1 << CBI_ORDER_ROW_BITS);
        CB_TRY(partition_rows(w, w->chunk.sequence << CBI_ORDER_ROW_BITS | row, err));
        row += w->rows.count;
        if (cbi_sort_stopped(s))
            return CB_ECANCELED;
    }
    atomic_fetch_add_explicit(&s->rows_in, row, memory_order_relaxed);
    return cbi_partitions_relieve(s->parts, err);
}

static void read_in(void *ctx) {
    sort_worker *w = ctx;
    cb_error err;
    cbi_worker_layout(w);
    while (!cbi_sort_stopped(w->sort)) {
        cb_status status = cbi_worker_next_chunk(w, &err);
        if (status == CB_OK && w->chunk.bytes == 0)
            break;
        if (status == CB_OK)
            status = read_chunk(w, &err);
        if (status != CB_OK) {
            if (!cbi_sort_stopped(w->sort))
                cbi_sort_fail(w->sort, status, &err);
            break;
        }
    }
    cbi_worker_end_input(w);
}

/* ---- out ---- */

typedef struct range_work {
    cbi_partition_info info;
    size_t count;   /* entries */
    uint64_t bytes; /* in the output */
} range_work;

/* Entries of all rows of a piece. */
static inline cbi_entry *piece_entries(const cb_sort *s, const uint8_t *base, const uint8_t *piece,
                                       uint64_t ordinal, cbi_entry *out) {
    uint32_t rows = cbi_load_u32(piece + 8);
    const uint8_t *at = piece + CBI_PIECE_HEADER_BYTES;
    enum { AHEAD = 10 };
    for (uint32_t i = 0; i < rows; i++) {
        cbi_stored row;
        uint64_t ref = cbi_ref(ordinal, (uint64_t)(at - base));
        const uint8_t *next = cbi_stored_get(&s->layout, at, &row);
        __builtin_prefetch(at + AHEAD * (next - at)); /* rows are often of one length */
        at = next;
        *out++ = (cbi_entry){.prefix = cbi_entry_prefix(&s->layout, &row), .ref = ref};
    }
    return out;
}

static size_t make_entries(sort_worker *w, const cbi_segment *segments, const range_work *work) {
    cb_sort *s = w->sort;
    const uint8_t *base = cb_segment_pool_base(s->ground.pool);
    cbi_entry *out = w->entries;
    /* Pieces are put in input order first, if that matters; their list lies behind the entries. */
    cbi_entry *pieces = w->entries + work->info.rows;
    size_t count = 0;
    for (const cbi_segment *g = segments; g != NULL; g = g->next) {
        const uint8_t *at = cbi_segment_payload((cbi_segment *)(uintptr_t)g), *end = at + g->used;
        while (at < end) {
            if (s->needs_order)
                pieces[count++] =
                    (cbi_entry){.prefix = cbi_load_u64(at), .ref = (uint64_t)(at - base)};
            else
                out = piece_entries(s, base, at, 0, out);
            at += CBI_PIECE_HEADER_BYTES + cbi_load_u32(at + 12);
        }
    }
    if (s->needs_order) {
        cbi_order_by_prefix(pieces, count);
        for (size_t i = 0; i < count; i++)
            out = piece_entries(s, base, base + pieces[i].ref, i, out);
    }
    cb_assert((size_t)(out - w->entries) == work->info.rows);
    return work->info.rows;
}

/* Keeps the first of equal keys; counts again. */
static void keep_unique(sort_worker *w, range_work *work) {
    cb_sort *s = w->sort;
    const uint8_t *base = cb_segment_pool_base(s->ground.pool);
    size_t kept = 0;
    uint64_t bytes = 0;
    cbi_stored last = {.key = NULL};
    for (size_t i = 0; i < work->count; i++) {
        cbi_stored row;
        cbi_stored_get(&s->layout, cbi_ref_row(base, w->entries[i].ref), &row);
        if (last.key != NULL && cbi_same_key(&last, &row))
            continue;
        last = row;
        w->entries[kept++] = w->entries[i];
        bytes += row.row_bytes + cbi_row_overhead(s);
    }
    work->count = kept;
    work->bytes = bytes;
}

static cb_status write_rows(sort_worker *w, const range_work *work, cb_error *err) {
    enum { AHEAD = 12 };
    cb_sort *s = w->sort;
    const uint8_t *base = cb_segment_pool_base(s->ground.pool);
    bool terminated = cbi_row_overhead(s) > 0;
    uint8_t terminator = s->format.terminator;
    size_t last = cbi_min((size_t)s->sample.stored_bytes, 192); /* byte of a usual row */
    for (size_t i = 0; i < work->count; i++) {
        if (i + AHEAD < work->count) {
            const uint8_t *soon = cbi_ref_row(base, w->entries[i + AHEAD].ref);
            __builtin_prefetch(soon);
            __builtin_prefetch(soon + 64);
            __builtin_prefetch(soon + last);
        }
        cbi_stored row;
        cbi_stored_get(&s->layout, cbi_ref_row(base, w->entries[i].ref), &row);
        CB_TRY(cbi_writer_put_row(&w->writer, row.row, row.row_bytes, terminated, terminator, err));
    }
    atomic_fetch_add_explicit(&s->rows_out, work->count, memory_order_relaxed);
    return CB_OK;
}

/* Waits for the turn of `range`; false when the sort has stopped. */
static bool wait_turn(cb_sort *s, uint32_t range) {
    cbi_mutex_lock(&s->mutex);
    while (s->turn != range && !cbi_sort_stopped(s))
        cbi_cond_wait(&s->changed, &s->mutex);
    cbi_mutex_unlock(&s->mutex);
    return !cbi_sort_stopped(s);
}

static void pass_turn(cb_sort *s, uint64_t bytes) {
    cbi_mutex_lock(&s->mutex);
    s->turn++;
    s->cursor += bytes;
    cbi_cond_broadcast(&s->changed);
    cbi_mutex_unlock(&s->mutex);
}

/* One output for all workers that has no places known beforehand. */
static bool takes_turns(const cb_sort *s) {
    return s->split != NULL ? s->split->write != NULL
                            : s->o.unique || !cbi_sink_positional(s->sink);
}

static cb_status write_files(sort_worker *w, uint32_t range, const range_work *work,
                             cb_error *err) {
    cb_sort *s = w->sort;
    if (takes_turns(s) && !wait_turn(s, range))
        return CB_ECANCELED;
    const uint8_t *base = cb_segment_pool_base(s->ground.pool);
    for (size_t i = 0; i < work->count; i++) {
        cbi_stored row;
        cbi_stored_get(&s->layout, cbi_ref_row(base, w->entries[i].ref), &row);
        CB_TRY(cbi_split_put(s->split, w->index, &row, err));
    }
    atomic_fetch_add_explicit(&s->rows_out, work->count, memory_order_relaxed);
    CB_TRY(cbi_split_end(s->split, w->index, err));
    if (takes_turns(s))
        pass_turn(s, 0);
    return CB_OK;
}

static cb_status write_range(sort_worker *w, uint32_t range, range_work *work, cb_error *err) {
    cb_sort *s = w->sort;
    if (s->split != NULL)
        return write_files(w, range, work, err);
    bool positional = cbi_sink_positional(s->sink);
    uint64_t offset = s->offsets[range];
    bool turns = !positional || s->o.unique;
    if (turns && !wait_turn(s, range))
        return CB_ECANCELED;
    if (positional && turns) {
        offset = s->cursor;
        pass_turn(s, work->bytes);
    }
    CB_TRY(cbi_writer_begin(&w->writer, offset, err));
    CB_TRY(write_rows(w, work, err));
    CB_TRY(cbi_writer_end(&w->writer, err));
    if (!positional)
        pass_turn(s, work->bytes);
    return CB_OK;
}

static cb_status do_range(sort_worker *w, uint32_t range, cb_error *err) {
    cb_sort *s = w->sort;
    range_work work;
    cbi_segment *segments;
    CB_TRY(cbi_partition_wait(s->parts, range, &segments, err));
    cbi_partition_get_info(s->parts, range, &work.info);
    work.bytes = work.info.row_bytes + work.info.rows * cbi_row_overhead(s);
    work.count = make_entries(w, segments, &work);
    cbi_order_within(w->entries, work.count, s->sizes.entries, &s->layout,
                     cb_segment_pool_base(s->ground.pool));
    if (s->o.unique)
        keep_unique(w, &work);
    CB_TRY(write_range(w, range, &work, err));
    cbi_partition_drop(s->parts, range);
    return CB_OK;
}

/* Does a range fit what a worker has? */
static bool range_fits(const cb_sort *s, uint32_t range) {
    cbi_partition_info info;
    cbi_partition_get_info(s->parts, range, &info);
    uint64_t need = info.rows + (s->needs_order ? info.pieces : 0);
    return need <= s->sizes.entries && info.pieces < CBI_REF_PIECES_MAX &&
           info.segments + 2 <= s->sizes.segments;
}

/* Would the next range take memory that is better left alone? Not if all wait for it. */
static bool wants_spare(const cb_sort *s) {
    size_t spare = s->sizes.spare - cbi_partitions_tier(s->parts);
    if (spare == 0 || s->next_range == s->next_load)
        return false;
    cbi_partition_info info;
    cbi_partition_get_info(s->parts, s->next_load, &info);
    return info.segments_out + spare > cb_segment_pool_free_count(s->ground.pool);
}

/* Starts reading the next ranges as far as memory allows. s->mutex held. */
static cb_status load_ahead(cb_sort *s, cb_error *err) {
    while (s->next_load < s->sizes.ranges && !s->exclusive && range_fits(s, s->next_load) &&
           !wants_spare(s)) {
        cb_status status = cbi_partition_load(s->parts, s->next_load, err);
        if (status == CB_EAGAIN)
            return CB_OK;
        CB_TRY(status);
        s->next_load++;
    }
    return CB_OK;
}

static const uint32_t RANGE_NONE = UINT32_MAX;

/* The next range for this worker; RANGE_NONE when there is none. *alone: it must be done by runs.
 * s->mutex held. */
static cb_status next_range(cb_sort *s, uint32_t *range, bool *alone, cb_error *err) {
    *alone = false;
    for (;;) {
        *range = RANGE_NONE;
        if (cbi_sort_stopped(s) || s->next_range == s->sizes.ranges)
            return CB_OK;
        CB_TRY(load_ahead(s, err));
        if (s->next_range < s->next_load) {
            *range = s->next_range++;
            s->busy++;
            return CB_OK;
        }
        if (s->busy > 0 || s->exclusive) {
            cbi_cond_wait(&s->changed, &s->mutex);
            continue;
        }
        /* Nobody works and the next range cannot come in: higher ones still lie in memory, or it is
         * too large. */
        uint32_t want = s->next_range;
        if (range_fits(s, want)) {
            cbi_partition_info info;
            cbi_partition_get_info(s->parts, want, &info);
            s->exclusive =
                true; /* or another worker would come here for the same range meanwhile */
            cbi_mutex_unlock(&s->mutex);
            cb_status status = cbi_partitions_make_room(s->parts, want, info.segments_out + 1, err);
            if (status == CB_OK &&
                cb_segment_pool_free_count(s->ground.pool) < info.segments_out + 1)
                status = cbi_partitions_end_tier(s->parts, err);
            cbi_mutex_lock(&s->mutex);
            s->exclusive = false;
            cbi_cond_broadcast(&s->changed);
            CB_TRY(status);
            status = cbi_partition_load(s->parts, want, err);
            if (status == CB_OK) {
                s->next_load = want + 1;
                continue;
            }
            if (status != CB_EAGAIN)
                return status;
            CB_TRY(cbi_partition_unload(s->parts, want, err));
        }
        *range = s->next_range++;
        s->next_load = s->next_range;
        s->exclusive = true;
        s->busy++;
        *alone = true;
        return CB_OK;
    }
}

static cb_status do_big_range(sort_worker *w, uint32_t range, cb_error *err) {
    cb_sort *s = w->sort;
    CB_TRY(cbi_partitions_end_tier(s->parts, err));
    if ((s->split == NULL || takes_turns(s)) && !wait_turn(s, range))
        return CB_ECANCELED;
    if (s->split != NULL) {
        CB_TRY(cbi_sort_big_range(w, range, err));
        CB_TRY(cbi_split_end(s->split, w->index, err));
        if (takes_turns(s))
            pass_turn(s, 0);
        return CB_OK;
    }
    CB_TRY(cbi_writer_begin(&w->writer, s->o.unique ? s->cursor : s->offsets[range], err));
    uint64_t bytes_before = atomic_load(&s->bytes_out);
    CB_TRY(cbi_sort_big_range(w, range, err));
    CB_TRY(cbi_writer_end(&w->writer, err));
    pass_turn(s, atomic_load(&s->bytes_out) - bytes_before);
    return CB_OK;
}

static void write_out(void *ctx) {
    sort_worker *w = ctx;
    cb_sort *s = w->sort;
    cb_error err;
    if (s->split == NULL)
        cbi_writer_init(&w->writer, s->sink, w->scratch, s->sizes.writer_buffer,
                        s->sizes.writer_buffers);
    bool turns = takes_turns(s);
    for (;;) {
        uint32_t range;
        bool alone;
        cbi_mutex_lock(&s->mutex);
        cb_status status = next_range(s, &range, &alone, &err);
        cbi_mutex_unlock(&s->mutex);
        if (status == CB_OK && range == RANGE_NONE)
            break;
        if (status == CB_OK) {
            status = alone ? do_big_range(w, range, &err) : do_range(w, range, &err);
            cbi_mutex_lock(&s->mutex);
            s->busy--;
            if (alone)
                s->exclusive = false;
            if (!turns && !alone)
                s->turn++; /* only counts: nobody waits for it */
            cbi_cond_broadcast(&s->changed);
            cbi_mutex_unlock(&s->mutex);
        }
        if (status != CB_OK) {
            if (!cbi_sort_stopped(s))
                cbi_sort_fail(s, status, &err);
            break;
        }
    }
    if (s->split != NULL && cbi_sort_stopped(s))
        return;
    cb_status status = s->split != NULL ? cbi_split_drain(s->split, w->index, &err)
                                        : cbi_writer_drain(&w->writer, &err);
    if (status != CB_OK && !cbi_sort_stopped(s))
        cbi_sort_fail(s, status, &err);
}

/* Where each range goes, and memory for the first few. */
static cb_status prepare_output(cb_sort *s, cb_error *err) {
    size_t header;
    (void)cbi_input_header(s->input, &header);
    s->offsets = cbi_alloc((s->sizes.ranges + 1) * sizeof *s->offsets);
    if (s->offsets == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %u ranges", s->sizes.ranges);
    uint64_t at = header, segments = 0, out = 0;
    for (uint32_t r = 0; r < s->sizes.ranges; r++) {
        cbi_partition_info info;
        cbi_partition_get_info(s->parts, r, &info);
        s->offsets[r] = at;
        at += info.row_bytes + info.rows * cbi_row_overhead(s);
        segments += info.segments;
        out += info.segments_out;
    }
    s->offsets[s->sizes.ranges] = at;
    cbi_mutex_lock(&s->mutex); /* for those who look at the progress */
    s->bytes_out_total = at;
    cbi_mutex_unlock(&s->mutex);
    s->cursor = header;
    if (out == 0)
        return CB_OK;
    /* Room for what is worked on and what is on its way: the highest ranges leave entirely. */
    size_t room = (size_t)(segments / s->sizes.ranges * (s->sizes.threads + 2));
    return cbi_partitions_make_room(s->parts, s->sizes.threads,
                                    cbi_min(room, s->sizes.segments / 2), err);
}

static cb_status write_header(cb_sort *s, cb_error *err) {
    size_t bytes;
    const uint8_t *header = cbi_input_header(s->input, &bytes);
    if (bytes == 0 || s->split != NULL)
        return CB_OK;
    cbi_writer *w = &s->workers[0].writer;
    cbi_writer_init(w, s->sink, s->workers[0].scratch, s->sizes.writer_buffer,
                    s->sizes.writer_buffers);
    CB_TRY(cbi_writer_begin(w, 0, err));
    CB_TRY(cbi_writer_put(w, header, bytes, err));
    CB_TRY(cbi_writer_end(w, err));
    return cbi_writer_drain(w, err);
}

cb_status cbi_sort_ranges(cb_sort *s, cb_error *err) {
    cbi_partitions_options options = {
        .count = s->sizes.ranges,
        .layout = &s->layout,
        .pool = s->ground.pool,
        .segment_bytes = s->sizes.segment,
        .segments_max = s->sizes.segments,
        .spill = s->ground.spill,
        .batch_segments_max = s->sizes.batch_segments,
        .populate = s->sizes.in_memory && s->sizes.segment >= 32 * CBI_KIB,
        .low_water = s->sizes.spare - s->sizes.tier + (s->sizes.segments - s->sizes.spare) / 8,
        .tier = s->sizes.tier,
        .cancelled = &s->stop};
    CB_TRY(cbi_partitions_create(&options, &s->parts, err));
    cbi_sort_phase(s, CB_PHASE_READ);
    CB_TRY(cbi_sort_in_workers(s, s->sizes.threads, read_in, err));
    CB_TRY(prepare_output(s, err));
    cbi_sort_phase(s, CB_PHASE_WRITE);
    CB_TRY(cbi_sort_open_output(s, s->o.unique ? 0 : s->bytes_out_total, err));
    CB_TRY(write_header(s, err));
    CB_TRY(cbi_sort_in_workers(s, s->sizes.threads, write_out, err));
    if (s->split == NULL)
        s->cursor = s->o.unique || !cbi_sink_positional(s->sink) ? s->cursor : s->bytes_out_total;
    return CB_OK;
}
