/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/job.h"

/*
 * An external sort for one worker that has the memory of all: records fill a builder, a full one
 * becomes a run, and in the end all runs are merged at once; the smallest first when they are too
 * many. What never left is read where it is.
 */

/* A builder is one piece. What is being read at the same time may lie in the middle of it: then it
 * is a smaller one, and there are more runs. */
static cb_status take_builder(cbi_runs *r, cb_error *err) {
    void *base;
    size_t least = r->builder_units / 4 + 1;
    cb_status status = cbi_partitions_take(r->runs, r->builder_units, &base, err);
    while (status == CB_EBUDGET && r->builder_units > least) {
        r->builder_units = cbi_max(r->builder_units - r->builder_units / 8 - 1, least);
        status = cbi_partitions_take(r->runs, r->builder_units, &base, err);
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
                                      .pool = job->pool,
                                      .segment_bytes = z->segment,
                                      .segments_max = z->segments,
                                      .spill = job->spill,
                                      .batch_segments_max = r->batch,
                                      .cancelled = &job->stop};
    r->slots = cbi_alloc(2 * slots * sizeof *r->slots);
    if (r->slots == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu runs", slots);
    r->free_slots = r->slots + slots;
    for (size_t i = 0; i < slots; i++)
        r->free_slots[i] = (uint32_t)(slots - 1 - i);
    r->free_count = (uint32_t)slots;
    CB_TRY(cbi_partitions_create(&options, &r->runs, err));
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
    r->outside = cbi_min(outside, z->segments / 4 * 3);
    r->builder_units = z->segments - r->outside;
    cb_assert(r->builder_units > 0);
    uint64_t builder = (uint64_t)r->builder_units * z->segment;
    size_t runs = (size_t)(need / builder) + 3;
    size_t slots = cbi_min(16 + 3 * runs, (size_t)1 << 20);
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
        cb_segment_pool_give(r->job->pool, r->builder.base, r->builder_units);
    r->builder.base = NULL;
}

void cbi_runs_close(cbi_runs *r) {
    if (r->runs != NULL)
        give_builder(r);
    cbi_partitions_destroy(r->runs);
    cbi_free(r->slots);
    *r = (cbi_runs){.job = r->job};
}

typedef struct run_target {
    cbi_runs *r;
    uint32_t slot;
} run_target;

static cb_status put_in_run(void *ctx, const cbi_stored *row, cb_error *err) {
    run_target *target = ctx;
    return cbi_partition_put(target->r->runs, target->slot, row, err);
}

static cb_status merge_slots(cbi_runs *r, const uint32_t *slots, uint32_t count, cbi_row_fn fn,
                             void *ctx, cb_error *err) {
    cbi_run_source *sources = cbi_calloc(count, sizeof *sources);
    cbi_source **list = cbi_calloc(count, sizeof *list);
    uint32_t *tree = cbi_calloc(count + 1, sizeof *tree);
    cb_status status = CB_OK;
    if (sources == NULL || list == NULL || tree == NULL)
        status = cbi_fail(err, CB_ENOMEM, "no memory to merge %u runs", count);
    for (uint32_t i = 0; status == CB_OK && i < count; i++) {
        cbi_run_source_init(&sources[i], r->runs, r->job->pool, r->layout, slots[i]);
        list[i] = &sources[i].source;
        status = cbi_partition_prefetch(r->runs, slots[i], 1, err);
    }
    if (status == CB_OK)
        status = cbi_merge(list, count, tree, r->layout, false, &r->job->stop, fn, ctx, err);
    for (uint32_t i = 0; sources != NULL && i < count; i++)
        cbi_run_source_fini(&sources[i]);
    for (uint32_t i = 0; status == CB_OK && i < count; i++)
        cbi_partition_reset(r->runs, slots[i]);
    cbi_free(tree);
    cbi_free(list);
    cbi_free(sources);
    return status;
}

static void smallest_first(cbi_runs *r, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t best = i;
        uint64_t best_rows = UINT64_MAX;
        for (uint32_t k = i; k < r->count; k++) {
            cbi_partition_info info;
            cbi_partition_get_info(r->runs, r->slots[k], &info);
            if (info.rows < best_rows) {
                best_rows = info.rows;
                best = k;
            }
        }
        uint32_t t = r->slots[i];
        r->slots[i] = r->slots[best];
        r->slots[best] = t;
    }
}

/* How many runs `segments` are enough for: each keeps two parts, and the largest row may be one. */
static uint32_t fan_in(const cbi_runs *r, size_t segments) {
    size_t part = r->batch, out = 0;
    for (uint32_t i = 0; i < r->count; i++) {
        cbi_partition_info info;
        cbi_partition_get_info(r->runs, r->slots[i], &info);
        part = cbi_max(part, info.units_max);
        if (info.units_max > 1)
            out = cbi_max(out, 2 * (size_t)info.units_max);
    }
    size_t most = (segments - cbi_min(segments, out)) / (2 * part + 1);
    return (uint32_t)cbi_clamp(most, 2, 1 << 16);
}

static cb_status merge_some(cbi_runs *r, uint32_t count, cb_error *err) {
    uint32_t *slots = cbi_alloc(count * sizeof *slots);
    if (slots == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory to merge %u runs", count);
    smallest_first(r, count);
    memcpy(slots, r->slots, count * sizeof *slots);
    r->count -= count;
    memmove(r->slots, r->slots + count, r->count * sizeof *slots);
    cb_assert(r->free_count > 0);
    run_target target = {.r = r, .slot = r->free_slots[--r->free_count]};
    cb_status status = merge_slots(r, slots, count, put_in_run, &target, err);
    if (status == CB_OK)
        status = cbi_partition_put_end(r->runs, target.slot, err);
    for (uint32_t i = 0; i < count; i++)
        r->free_slots[r->free_count++] = slots[i];
    r->slots[r->count++] = target.slot;
    cbi_free(slots);
    return status;
}

static cb_status flush_builder(cbi_runs *r, cb_error *err) {
    if (r->builder.count == 0)
        return CB_OK;
    cbi_builder_sort(&r->builder);
    cb_assert(r->free_count > 0);
    uint32_t slot = r->free_slots[--r->free_count];
    r->job->runs++;
    CB_TRY(cbi_builder_flush(&r->builder, r->runs, slot, false, err));
    r->slots[r->count++] = slot;
    /* What is on its way out holds memory that whoever reads the records cannot wait for. */
    return cbi_partitions_make_room(r->runs, UINT32_MAX, 2 * r->job->sizes.batch_segments, err);
}

/* The table of runs is full: the builder (just emptied) becomes memory for a merge. */
static cb_status make_slots(cbi_runs *r, cb_error *err) {
    if (r->free_count >= 3)
        return CB_OK;
    uint32_t width = fan_in(r, r->builder_units);
    give_builder(r);
    CB_TRY(merge_some(r, width < r->count ? width : r->count, err));
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
    if (r->count == 0) { /* it was too much for a worker's scratch only */
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
    uint32_t width = fan_in(r, r->merge_units);
    while (r->count > width) {
        uint32_t excess = r->count - width + 1;
        CB_TRY(merge_some(r, excess < width ? excess : width, err));
    }
    return merge_slots(r, r->slots, r->count, fn, ctx, err);
}
