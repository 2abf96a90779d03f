/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/run_table.h"

#include "base/alloc.h"

/*
 * The merge of a run needs two batches of memory: the one that is read from and the one on its
 * way. So as many runs go at once as memory has room for; when there are more, the smallest are
 * merged to one first, as few as will do.
 */

static void lock(const cbi_run_table *t) {
    if (t->mutex != NULL)
        cbi_mutex_lock(t->mutex);
}

static void unlock(const cbi_run_table *t) {
    if (t->mutex != NULL)
        cbi_mutex_unlock(t->mutex);
}

cb_status cbi_run_table_open(cbi_run_table *t, const cbi_partitions_options *o, cb_error *err) {
    cb_assert(t->runs == NULL && t->complete == NULL);
    t->o = *o;
    t->complete = cbi_alloc(2 * (size_t)o->count * sizeof *t->complete);
    if (t->complete == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %u runs", o->count);
    t->idle = t->complete + o->count;
    for (uint32_t i = 0; i < o->count; i++)
        t->idle[i] = o->count - 1 - i;
    t->count = 0;
    t->idle_count = o->count;
    return cbi_partitions_create(&t->o, &t->runs, err);
}

void cbi_run_table_close(cbi_run_table *t) {
    cbi_partitions_destroy(t->runs);
    t->runs = NULL;
    cbi_free(t->complete);
    t->complete = t->idle = NULL;
    t->count = t->idle_count = 0;
}

uint32_t cbi_run_table_take(cbi_run_table *t) {
    cb_assert(t->idle_count > 0);
    return t->idle[--t->idle_count];
}

void cbi_run_table_put(cbi_run_table *t, uint32_t slot) {
    lock(t);
    t->complete[t->count++] = slot;
    unlock(t);
}

cb_status cbi_run_table_flush(cbi_run_table *t, cbi_builder *builder, uint32_t slot,
                              cb_error *err) {
    CB_TRY(cbi_builder_flush(builder, t->runs, slot, t->unique, err));
    cbi_run_table_put(t, slot);
    return CB_OK;
}

/* ---- merging ---- */

typedef struct run_target {
    cbi_partitions *runs;
    uint32_t slot;
} run_target;

static cb_status put_in_run(void *ctx, const cbi_stored *row, cb_error *err) {
    run_target *target = ctx;
    return cbi_partition_put(target->runs, target->slot, row, err);
}

static cb_status merge(cbi_run_table *t, cbi_source **sources, uint32_t count, uint32_t *tree,
                       cbi_row_fn fn, void *ctx, cb_error *err) {
    return cbi_merge(sources, count, tree, t->o.layout, t->unique, t->o.cancelled, fn, ctx, err);
}

/* Merges the runs in `slots` and frees them. */
static cb_status merge_slots(cbi_run_table *t, const uint32_t *slots, uint32_t count, cbi_row_fn fn,
                             void *ctx, cb_error *err) {
    cbi_run_source *sources = cbi_calloc(count, sizeof *sources);
    cbi_source **list = cbi_calloc(count, sizeof *list);
    uint32_t *tree = cbi_calloc(count + 1, sizeof *tree);
    cb_status status = CB_OK;
    if (sources == NULL || list == NULL || tree == NULL)
        status = cbi_fail(err, CB_ENOMEM, "no memory to merge %u runs", count);
    for (uint32_t i = 0; status == CB_OK && i < count; i++) {
        cbi_run_source_init(&sources[i], t->runs, t->o.pool, t->o.layout, slots[i]);
        list[i] = &sources[i].source;
        status = cbi_partition_prefetch(t->runs, slots[i], 1, err);
    }
    if (status == CB_OK)
        status = merge(t, list, count, tree, fn, ctx, err);
    for (uint32_t i = 0; sources != NULL && i < count; i++)
        cbi_run_source_fini(&sources[i]);
    for (uint32_t i = 0; status == CB_OK && i < count; i++)
        cbi_partition_reset(t->runs, slots[i]);
    cbi_free(tree);
    cbi_free(list);
    cbi_free(sources);
    return status;
}

cb_status cbi_run_table_merge_to_run(cbi_run_table *t, cbi_source **sources, uint32_t count,
                                     uint32_t *tree, cb_error *err) {
    lock(t);
    run_target target = {.runs = t->runs, .slot = cbi_run_table_take(t)};
    unlock(t);
    CB_TRY(merge(t, sources, count, tree, put_in_run, &target, err));
    CB_TRY(cbi_partition_put_end(t->runs, target.slot, err));
    cbi_run_table_put(t, target.slot);
    return CB_OK;
}

/* Moves the `count` smallest runs to the front. The mutex is held. */
static void smallest_first(cbi_run_table *t, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t best = i;
        uint64_t best_rows = UINT64_MAX;
        for (uint32_t k = i; k < t->count; k++) {
            cbi_partition_info info;
            cbi_partition_get_info(t->runs, t->complete[k], &info);
            if (info.rows < best_rows) {
                best_rows = info.rows;
                best = k;
            }
        }
        uint32_t slot = t->complete[i];
        t->complete[i] = t->complete[best];
        t->complete[best] = slot;
    }
}

uint32_t cbi_run_table_width(const cbi_run_table *t, size_t segments) {
    size_t part = t->o.batch_segments_max, out = 0;
    for (uint32_t i = 0; i < t->count; i++) { /* the largest row may be a part of its own */
        cbi_partition_info info;
        cbi_partition_get_info(t->runs, t->complete[i], &info);
        part = cbi_max(part, info.units_max);
        if (info.units_max > 1)
            out = cbi_max(out, 2 * (size_t)info.units_max);
    }
    size_t most = (segments - cbi_min(segments, out)) / (2 * part + 1);
    if (t->width_max >= 2)
        most = cbi_min(most, t->width_max);
    return (uint32_t)cbi_clamp(most, 2, 1 << 16);
}

cb_status cbi_run_table_merge_some(cbi_run_table *t, uint32_t count, cb_error *err) {
    uint32_t *slots = cbi_alloc(count * sizeof *slots);
    if (slots == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory to merge %u runs", count);
    lock(t);
    count = count < t->count ? count : t->count;
    smallest_first(t, count);
    memcpy(slots, t->complete, count * sizeof *slots);
    t->count -= count;
    memmove(t->complete, t->complete + count, t->count * sizeof *slots);
    run_target target = {.runs = t->runs, .slot = cbi_run_table_take(t)};
    unlock(t);
    cb_status status = merge_slots(t, slots, count, put_in_run, &target, err);
    if (status == CB_OK)
        status = cbi_partition_put_end(t->runs, target.slot, err);
    lock(t);
    for (uint32_t i = 0; i < count; i++)
        t->idle[t->idle_count++] = slots[i];
    t->complete[t->count++] = target.slot;
    unlock(t);
    cbi_free(slots);
    return status;
}

cb_status cbi_run_table_narrow(cbi_run_table *t, uint32_t width, cb_error *err) {
    while (t->count > width) {
        uint32_t excess = t->count - width + 1;
        CB_TRY(cbi_run_table_merge_some(t, excess < width ? excess : width, err));
    }
    return CB_OK;
}

cb_status cbi_run_table_merge(cbi_run_table *t, cbi_row_fn fn, void *ctx, cb_error *err) {
    return merge_slots(t, t->complete, t->count, fn, ctx, err);
}
