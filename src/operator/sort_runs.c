/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/sort_private.h"

/*
 * Sorting by runs and one merge: for what comes as a stream, whose key ranges nobody can know, and
 * for single ranges that turned out too large.
 *
 * Each worker fills a builder with rows, orders it and writes it out as a run. In the end all runs
 * are merged at once. The merge needs two batches of memory a run; batches are a 256th of the
 * memory, so about a hundred runs go at a time. If there are more, the smallest are merged into one
 * first, as few as will do. The table of runs has a fixed number of slots; a worker that finds it
 * nearly full merges some with the memory of its own (empty) builder.
 *
 * Rows in runs carry their place in the input where that decides ties, so the merge is stable
 * whoever made which run.
 */

cb_status cbi_sort_open_runs(cb_sort *s, uint32_t slots, size_t batch, cb_error *err) {
    cbi_partitions_options options = {.count = slots,
                                      .layout = &s->run_layout,
                                      .pool = s->ground.pool,
                                      .segment_bytes = s->sizes.segment,
                                      .segments_max = s->sizes.segments,
                                      .spill = s->ground.spill,
                                      .batch_segments_max = batch,
                                      .cancelled = &s->stop};
    s->runs.mutex = &s->mutex;
    s->runs.unique = s->o.unique;
    s->runs.width_max = (uint32_t)cbi_min(s->o.merge_width_max, UINT32_MAX);
    return cbi_run_table_open(&s->runs, &options, err);
}

static cb_status flush_builder(sort_worker *w, cb_error *err) {
    cb_sort *s = w->sort;
    if (w->builder.count == 0)
        return CB_OK;
    cbi_builder_sort(&w->builder);
    cbi_mutex_lock(&s->mutex);
    while (s->claiming && !cbi_sort_stopped(s)) /* what is written now must not take its place */
        cbi_cond_wait(&s->changed, &s->mutex);
    uint32_t slot = cbi_run_table_take(&s->runs);
    s->stats.runs++;
    s->flushing++;
    cbi_mutex_unlock(&s->mutex);
    cb_status status = cbi_run_table_flush(&s->runs, &w->builder, slot, err);
    cbi_mutex_lock(&s->mutex);
    s->flushing--;
    cbi_cond_broadcast(&s->changed);
    cbi_mutex_unlock(&s->mutex);
    return status;
}

cb_status cbi_sort_emit(void *ctx, const cbi_stored *row, cb_error *err) {
    sort_worker *w = ctx;
    cb_sort *s = w->sort;
    size_t overhead = cbi_row_overhead(s);
    atomic_fetch_add_explicit(&s->bytes_out, row->row_bytes + overhead, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->rows_out, 1, memory_order_relaxed);
    if (s->split != NULL)
        return cbi_split_put(s->split, w->index, row, err);
    return cbi_writer_put_row(&w->writer, row->row, row->row_bytes, overhead > 0,
                              s->format.terminator, err);
}

cb_status cbi_sort_merge_runs(sort_worker *w, cb_error *err) {
    cb_sort *s = w->sort;
    uint32_t width = cbi_run_table_width(&s->runs, s->sizes.segments - s->sizes.segments / 8);
    if (s->runs.count > width) {
        s->passes = s->passes < 2 ? 2 : s->passes;
        cbi_sort_phase(s, CB_PHASE_MERGE);
        CB_TRY(cbi_run_table_narrow(&s->runs, width, err));
    }
    cbi_sort_phase(s, CB_PHASE_WRITE);
    return cbi_run_table_merge(&s->runs, cbi_sort_emit, w, err);
}

/* ---- streams ---- */

static size_t run_reserve(const cb_sort *s, unsigned threads) {
    return cbi_clamp(threads * 4 * s->sizes.run_batch, s->sizes.segments / 6,
                     s->sizes.segments / 2);
}

/* What each worker fills: segments outside are for runs on their way out. */
static size_t stream_builder_units(const cb_sort *s) {
    return (s->sizes.segments - run_reserve(s, s->sizes.threads)) / s->sizes.threads;
}

static cb_status take_builder(sort_worker *w, cb_error *err) {
    cb_sort *s = w->sort;
    void *base;
    CB_TRY(cbi_partitions_take(s->runs.runs, w->builder_units, &base, err));
    cbi_builder_init(&w->builder, &s->run_layout, base, w->builder_units * s->sizes.segment);
    return CB_OK;
}

static void give_builder(sort_worker *w) {
    if (w->builder.base != NULL)
        cb_segment_pool_give(w->sort->ground.pool, w->builder.base, w->builder_units);
    w->builder.base = NULL;
}

/* Runs that others were writing may lie where the builder was: they leave soon, and no more are
 * begun meanwhile. What stays (a giant row that another worker holds) leaves room for a smaller
 * one. */
static cb_status retake_builder(sort_worker *w, cb_error *err) {
    cb_sort *s = w->sort;
    w->builder_units = stream_builder_units(s);
    size_t least = w->builder_units / 4 + 1;
    for (;;) {
        cbi_mutex_lock(&s->mutex);
        bool alone = s->flushing == 0;
        cbi_mutex_unlock(&s->mutex);
        cb_status status = take_builder(w, err);
        if (status != CB_EBUDGET || cbi_sort_stopped(s))
            return status;
        if (!alone)
            cbi_sys_sleep_ns(1000000);
        else if (w->builder_units <= least)
            return status;
        else
            w->builder_units = cbi_max(w->builder_units - w->builder_units / 8 - 1, least);
    }
}

/* The table of runs is nearly full: this worker's builder (just emptied) becomes memory for a
 * merge. One worker at a time, until it has a builder again: another's merge would hold memory that
 * nothing makes leave. */
static cb_status make_slots(sort_worker *w, cb_error *err) {
    cb_sort *s = w->sort;
    cbi_mutex_lock(&s->mutex);
    while (s->exclusive && !cbi_sort_stopped(s))
        cbi_cond_wait(&s->changed, &s->mutex);
    bool needed = s->runs.idle_count < 2 * s->sizes.threads + 2 && s->runs.count > 1;
    uint32_t width = needed ? cbi_run_table_width(&s->runs, w->builder_units) : 0;
    if (needed)
        s->exclusive = true;
    cbi_mutex_unlock(&s->mutex);
    if (!needed)
        return CB_OK;
    give_builder(w);
    s->passes = 2;
    cb_status status = cbi_run_table_merge_some(&s->runs, width, err);
    if (status == CB_OK) {
        cbi_mutex_lock(&s->mutex);
        s->claiming = true;
        cbi_mutex_unlock(&s->mutex);
        status = retake_builder(w, err);
    }
    cbi_mutex_lock(&s->mutex);
    s->exclusive = s->claiming = false;
    cbi_cond_broadcast(&s->changed);
    cbi_mutex_unlock(&s->mutex);
    return status;
}

static cb_status add_row(sort_worker *w, const cbi_stored *row, cb_error *err) {
    if (CBI_LIKELY(cbi_builder_add(&w->builder, row)))
        return CB_OK;
    CB_TRY(flush_builder(w, err));
    if (w->sort->parts == NULL)
        CB_TRY(make_slots(w, err));
    if (cbi_builder_add(&w->builder, row))
        return CB_OK;
    uint64_t least = w->sort->sizes.budget + 8 * ((uint64_t)row->row_bytes + row->key_bytes);
    return cbi_fail_bytes(
        err, CB_EBUDGET, row->row_bytes, least,
        "a row of %u bytes is too much for a budget of %llu bytes; --memory %lluM will do",
        row->row_bytes, (unsigned long long)w->sort->sizes.budget,
        (unsigned long long)(least / CBI_MIB + 1));
}

static cb_status read_stream_chunk(sort_worker *w, cb_error *err) {
    size_t at = 0;
    uint64_t number = 0;
    for (;;) {
        CB_TRY(cbi_worker_next_rows(w, &at, err));
        if (w->rows.count == 0)
            break;
        for (size_t i = 0; i < w->rows.count; i++) {
            cbi_stored row = cbi_worker_row(w, i);
            row.order = w->chunk.sequence << CBI_ORDER_ROW_BITS | number++;
            CB_TRY(add_row(w, &row, err));
        }
    }
    atomic_fetch_add_explicit(&w->sort->rows_in, number, memory_order_relaxed);
    return CB_OK;
}

static void read_stream(void *ctx) {
    sort_worker *w = ctx;
    cb_sort *s = w->sort;
    cb_error err;
    cbi_worker_layout(w);
    cb_status status = CB_OK;
    while (status == CB_OK && !cbi_sort_stopped(s)) {
        status = cbi_worker_next_chunk(w, &err);
        if (status != CB_OK || w->chunk.bytes == 0)
            break;
        status = read_stream_chunk(w, &err);
    }
    if (status == CB_OK && !cbi_sort_stopped(s))
        cbi_builder_sort(&w->builder);
    cbi_worker_end_input(w);
    if (status != CB_OK && !cbi_sort_stopped(s))
        cbi_sort_fail(s, status, &err);
}

static void flush_rest(void *ctx) {
    sort_worker *w = ctx;
    cb_error err;
    cb_status status = flush_builder(w, &err);
    if (status != CB_OK && !cbi_sort_stopped(w->sort))
        cbi_sort_fail(w->sort, status, &err);
}

/* Nothing was written out: `count` workers' builders are merged where they are. */
static cb_status merge_builders(sort_worker *workers, unsigned count, sort_worker *writer,
                                cb_error *err) {
    cb_sort *s = writer->sort;
    cbi_builder_source sources[64];
    cbi_source *list[64];
    uint32_t tree[65];
    for (unsigned i = 0; i < count; i++) {
        cbi_builder_source_init(&sources[i], &workers[i].builder);
        list[i] = &sources[i].source;
    }
    return cbi_merge(list, count, tree, &s->run_layout, s->o.unique, &s->stop, cbi_sort_emit,
                     writer, err);
}

/* Opens the output, puts the header there, and leaves worker 0's pen ready for rows. */
cb_status cbi_sort_begin_output(cb_sort *s, cb_error *err) {
    CB_TRY(cbi_sort_open_output(s, 0, err));
    if (s->split != NULL)
        return CB_OK;
    sort_worker *w = &s->workers[0];
    cbi_writer_init(&w->writer, s->sink, w->scratch, s->sizes.writer_buffer,
                    s->sizes.writer_buffers);
    CB_TRY(cbi_writer_begin(&w->writer, 0, err));
    size_t bytes;
    const uint8_t *header = cbi_input_header(s->input, &bytes);
    s->cursor = bytes;
    return bytes > 0 ? cbi_writer_put(&w->writer, header, bytes, err) : CB_OK;
}

cb_status cbi_sort_end_output(cb_sort *s, cb_error *err) {
    sort_worker *w = &s->workers[0];
    if (s->split != NULL)
        return cbi_split_drain(s->split, w->index, err);
    CB_TRY(cbi_writer_end(&w->writer, err));
    CB_TRY(cbi_writer_drain(&w->writer, err));
    s->cursor += atomic_load(&s->bytes_out);
    return CB_OK;
}

static cb_status merge_stream(cb_sort *s, cb_error *err) {
    CB_TRY(cbi_sort_begin_output(s, err));
    if (s->runs.count == 0) {
        CB_TRY(merge_builders(s->workers, s->sizes.threads, &s->workers[0], err));
    } else {
        CB_TRY(cbi_sort_in_workers(s, s->sizes.threads, flush_rest, err));
        for (unsigned i = 0; i < s->sizes.threads; i++)
            give_builder(&s->workers[i]);
        CB_TRY(cbi_sort_merge_runs(&s->workers[0], err));
    }
    return cbi_sort_end_output(s, err);
}

cb_status cbi_sort_stream(cb_sort *s, cb_error *err) {
    unsigned threads = s->sizes.threads;
    /* Narrow merges (--batch-size) are begun early: there is no use in many runs. */
    size_t least = 8 + 4 * (size_t)threads, most = 8192;
    if (s->o.merge_width_max >= 2)
        most = cbi_clamp(4 * (size_t)s->o.merge_width_max, least, most);
    uint32_t slots = (uint32_t)cbi_clamp((size_t)(s->sizes.usable / (32 * CBI_KIB)), least, most);
    CB_TRY(cbi_sort_open_runs(s, slots, s->sizes.run_batch, err));
    cb_status status = CB_OK;
    for (unsigned i = 0; status == CB_OK && i < threads; i++) {
        s->workers[i].builder_units = stream_builder_units(s);
        status = take_builder(&s->workers[i], err);
    }
    cbi_sort_phase(s, CB_PHASE_READ);
    if (status == CB_OK)
        status = cbi_sort_in_workers(s, threads, read_stream, err);
    if (status == CB_OK && s->runs.count > 0 && s->passes == 0)
        s->passes = 1;
    cbi_sort_phase(s, CB_PHASE_WRITE);
    if (status == CB_OK)
        status = merge_stream(s, err);
    return status;
}

/* ---- one range that is too large ---- */

static cb_status read_range(sort_worker *w, uint32_t range, uint32_t depth, cb_error *err) {
    cb_sort *s = w->sort;
    for (;;) {
        cbi_segment *segments;
        CB_TRY(cbi_partition_next_part(s->parts, range, &segments, err));
        if (segments == NULL)
            return CB_OK;
        cb_status status = cbi_partition_prefetch(s->parts, range, depth, err);
        for (cbi_segment *g = segments; g != NULL && status == CB_OK; g = g->next) {
            const uint8_t *at = cbi_segment_payload(g), *end = at + g->used;
            while (at < end && status == CB_OK) {
                uint64_t order = cbi_load_u64(at);
                uint32_t rows = cbi_load_u32(at + 8);
                at += CBI_PIECE_HEADER_BYTES;
                for (uint32_t i = 0; i < rows && status == CB_OK; i++) {
                    cbi_stored row;
                    at = cbi_stored_get(&s->layout, at, &row);
                    row.order = order + i;
                    status = add_row(w, &row, err);
                }
            }
        }
        cbi_segments_give(s->ground.pool, segments);
        if (status == CB_OK && cbi_sort_stopped(s))
            status = cbi_fail(err, CB_ECANCELED, "cancelled");
        CB_TRY(status);
    }
}

cb_status cbi_sort_big_range(sort_worker *w, uint32_t range, cb_error *err) {
    cb_sort *s = w->sort;
    cbi_partition_info info;
    cbi_partition_get_info(s->parts, range, &info);
    CB_TRY(cbi_partitions_make_room(s->parts, range - 1, s->sizes.segments, err));
    /* A third stays outside the builder: half of it for what is read, half for what is written. */
    size_t outside = cbi_max(s->sizes.segments / 3, 4 * s->sizes.batch_segments);
    if (info.units_max > 1) /* giant rows need their memory in one piece, both here and there */
        outside = cbi_clamp(outside, cbi_min(8 * (size_t)info.units_max, s->sizes.segments / 3 * 2),
                            s->sizes.segments);
    uint32_t depth = (uint32_t)cbi_clamp(outside / 2 / s->sizes.batch_segments, 2, 9) - 1;
    if (info.units_max > 1)
        depth = 1;
    outside = cbi_min(outside, s->sizes.segments / 4 * 3); /* large batches in a tiny pool */
    w->builder_units = s->sizes.segments - outside;
    cb_assert(w->builder_units > 0);
    uint64_t need =
        info.segments * s->sizes.segment + info.rows * (sizeof(cbi_entry) + CBI_ORDER_BYTES);
    uint64_t slots = 16 + 3 * (need / (w->builder_units * s->sizes.segment) + 1);
    /* A few runs, so larger batches than a stream of unknown length may use. */
    size_t runs = (size_t)(need / (w->builder_units * s->sizes.segment)) + 3;
    size_t batch =
        cbi_clamp(s->sizes.segments / (4 * runs), s->sizes.run_batch, cbi_max(outside / 8, 1));
    CB_TRY(cbi_sort_open_runs(s, (uint32_t)cbi_min((size_t)slots, 1 << 20), batch, err));
    CB_TRY(take_builder(w, err));
    cb_status status = read_range(w, range, depth, err);
    bool whole = s->runs.count == 0; /* it was too much for a worker's scratch only */
    if (status == CB_OK && whole) {
        cbi_builder_sort(&w->builder);
        status = merge_builders(w, 1, w, err);
    } else if (status == CB_OK) {
        s->passes = 2;
        status = flush_builder(w, err);
    }
    give_builder(w);
    if (status == CB_OK && !whole)
        status = cbi_sort_merge_runs(w, err);
    if (status != CB_OK)
        return status; /* requests may be under way: whoever closes the spill frees the rest */
    cbi_partition_drop(s->parts, range);
    cbi_run_table_close(&s->runs);
    return CB_OK;
}
