/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/job.h"

/*
 * An external sort for one worker that has the memory of all: records fill a builder, a full one
 * becomes a run, and in the end all runs are merged at once; the smallest first when they are too
 * many. What never left is read where it is.
 */

enum { TABLE_SHARE = 128, SLOTS_LEAST = 256 };

/* A builder is one piece. What is being read at the same time may lie in the middle of it: then it
 * is a smaller one, and there are more runs. */
static cb_status take_builder(cbi_runs *r, cb_error *err) {
    void *base;
    size_t least = r->builder_units / (r->rows_large ? 4 : 16) + 1;
    cb_status status = cbi_partitions_take(r->table.runs, r->builder_units, &base, err);
    while (status == CB_EBUDGET && r->builder_units > least) {
        r->builder_units = cbi_max(r->builder_units - r->builder_units / 8 - 1, least);
        status = cbi_partitions_take(r->table.runs, r->builder_units, &base, err);
    }
    CB_TRY(status);
    cbi_builder_init(&r->builder, r->layout, base, r->builder_units * r->job->sizes.segment);
    return CB_OK;
}

static cb_status open_slots(cbi_runs *r, size_t slots, cb_error *err) {
    cbi_job *job = r->job;
    const cbi_job_sizes *z = &job->sizes;
    /* The worker is alone, and results are what takes memory while runs are merged. */
    bool results = job->pass != NULL && job->results != job->pass->parts;
    cbi_partitions_options options = {.count = (uint32_t)slots,
                                      .yields = results ? job->results : NULL,
                                      .layout = r->layout,
                                      .pool = job->ground.pool,
                                      .segment_bytes = z->segment,
                                      .segments_max = z->segments,
                                      .spill = job->ground.spill,
                                      .batch_segments_max = r->batch,
                                      .cancelled = &job->stop};
    CB_TRY(cbi_run_table_open(&r->table, &options, err));
    return take_builder(r, err);
}

cb_status cbi_runs_open(cbi_runs *r, cbi_job *job, uint64_t need, uint32_t units_max,
                        cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    *r = (cbi_runs){.job = job, .layout = &cbi_record_run_layout};
    /* A third stays outside of the builder: for what is read, what is written, and results. */
    size_t outside = cbi_max(z->segments / 3, 4 * z->batch_segments);
    if (units_max > 1)
        outside =
            cbi_clamp(outside, cbi_min(8 * (size_t)units_max, z->segments / 3 * 2), z->segments);
    r->rows_large = units_max > 1;
    r->outside = cbi_min(outside, z->segments / 4 * 3);
    r->builder_units = z->segments - r->outside;
    cb_assert(r->builder_units > 0);
    uint64_t builder = (uint64_t)r->builder_units * z->segment;
    size_t runs = (size_t)(need / builder) + 3;
    /* Their table is small beside the budget: where there may be more runs they are merged on the
     * way. */
    size_t each = cbi_partitions_bytes(2, 1) - cbi_partitions_bytes(1, 1);
    size_t most = cbi_max(z->budget / TABLE_SHARE / each, SLOTS_LEAST);
    size_t slots = cbi_min(16 + 3 * runs, most);
    r->batch = cbi_clamp(z->segments / (4 * runs), z->run_batch, cbi_max(r->outside / 8, 1));
    r->merge_units = z->segments - r->outside;
    return open_slots(r, slots, err);
}

cb_status cbi_runs_open_inside(cbi_runs *r, cbi_job *job, size_t units, cb_error *err) {
    *r = (cbi_runs){.job = job,
                    .layout = &cbi_record_run_layout,
                    .builder_units = units,
                    .merge_units = units,
                    .batch = 1};
    return open_slots(r, 256, err);
}
static void give_builder(cbi_runs *r) {
    if (r->builder.base != NULL)
        cb_segment_pool_give(r->job->ground.pool, r->builder.base, r->builder_units);
    r->builder.base = NULL;
}

void cbi_runs_close(cbi_runs *r) {
    if (r->table.runs != NULL)
        give_builder(r);
    cbi_run_table_close(&r->table);
    *r = (cbi_runs){.job = r->job};
}

static cb_status flush_builder(cbi_runs *r, cb_error *err) {
    if (r->builder.count == 0)
        return CB_OK;
    cbi_builder_sort(&r->builder);
    r->job->runs++;
    CB_TRY(cbi_run_table_flush(&r->table, &r->builder, cbi_run_table_take(&r->table), err));
    /* What is on its way out holds memory that whoever reads the records cannot wait for. */
    return cbi_partitions_make_room(r->table.runs, UINT32_MAX, 2 * r->job->sizes.batch_segments,
                                    err);
}

/* The table of runs is full: the builder (just emptied) becomes memory for a merge. */
static cb_status make_slots(cbi_runs *r, cb_error *err) {
    if (r->table.idle_count >= 3)
        return CB_OK;
    uint32_t width = cbi_run_table_width(&r->table, r->builder_units);
    give_builder(r);
    CB_TRY(cbi_run_table_merge_some(&r->table, width, err));
    return take_builder(r, err);
}

cb_status cbi_runs_add(cbi_runs *r, const cbi_stored *row, cb_error *err) {
    if (CBI_LIKELY(cbi_builder_add(&r->builder, row)))
        return CB_OK;
    CB_TRY(flush_builder(r, err));
    CB_TRY(make_slots(r, err));
    if (cbi_builder_add(&r->builder, row))
        return CB_OK;
    uint64_t bytes = (uint64_t)row->row_bytes + row->key_bytes;
    return cbi_fail_bytes(err, CB_EBUDGET, bytes * 2, r->builder.bytes,
                          "a record of %llu bytes does not fit in %zu bytes of memory",
                          (unsigned long long)bytes, r->builder.bytes);
}

cb_status cbi_runs_merge(cbi_runs *r, cbi_row_fn fn, void *ctx, cb_error *err) {
    if (r->table.count == 0) { /* it was too much for a worker's scratch only */
        cbi_builder_sort(&r->builder);
        cbi_builder_source source;
        cbi_source *list[1] = {&source.source};
        uint32_t tree[2];
        cbi_builder_source_init(&source, &r->builder);
        return cbi_merge(list, 1, tree, r->layout, false, &r->job->stop, fn, ctx, err);
    }
    r->job->passes = 2;
    CB_TRY(flush_builder(r, err));
    give_builder(r);
    CB_TRY(cbi_run_table_narrow(&r->table, cbi_run_table_width(&r->table, r->merge_units), err));
    return cbi_run_table_merge(&r->table, fn, ctx, err);
}
