/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spilled runs: channels (carbide/channel.h), each with all partitions in order, encoded already.
 * A run is read from its start to its end, all runs side by side, so nobody has to know where a
 * partition lies in it. Their memory is a small budget of their own, taken at the first spill: a
 * spill must not ask the parent for any.
 *
 * They go through the page cache, as spills of Spark's own writers do: it is no part of Spark's
 * budget, a run lives for seconds, and most are gone before the kernel writes them out. So a
 * transfer is a copy, and the task's own thread makes it: handed to others it took half more of
 * the kernel's time, and reading back, segment by segment, was waiting for two thirds of its own.
 */
#include "base/alloc.h"
#include "operator/shuffle_private.h"

enum {
    SEGMENTS = CBI_RUN_WRITER_SEGMENTS + CBI_RUNS_MAX * CBI_RUN_READER_SEGMENTS,
    SLACK_BYTES = 64 * 1024
};

cb_status cbi_shuffle_runs_open(cbi_runs *r, const char *const *dirs, size_t dir_count,
                                cb_error *err) {
    if (r->channels != NULL) {
        return CB_OK;
    }
    cbi_shuffle_runs_close(r);
    cb_manager_options manager =
        cb_manager_options_native((uint64_t)SEGMENTS * CBI_RUN_SEGMENT_BYTES + SLACK_BYTES);
    CB_TRY(cb_manager_create(&manager, &r->manager, err));
    cb_task_options task = {.struct_size = sizeof task, .name = "spilled runs"};
    CB_TRY(cb_task_create(r->manager, &task, &r->task, err));
    cb_segment_pool_options pool = {.struct_size = sizeof pool,
                                    .task = r->task,
                                    .name = "runs",
                                    .segment_bytes = CBI_RUN_SEGMENT_BYTES,
                                    .segments_max = SEGMENTS};
    CB_TRY(cb_segment_pool_create(&pool, &r->pool, err));
    CB_TRY(cb_segment_owner_create(r->pool, "runs", &r->owner, err));
    CB_TRY(cb_segment_take(r->owner, CBI_RUN_WRITER_SEGMENTS, r->segments, err));
    cb_channels_options channels = {.struct_size = sizeof channels,
                                    .pool = r->pool,
                                    .dirs = dirs,
                                    .dir_count = dir_count,
                                    .codec = CB_CODEC_NONE,
                                    .no_threads = true,
                                    .allow_memory_fs = true,
                                    .page_cache = true};
    return cb_channels_open(&channels, &r->channels, err);
}

void cbi_shuffle_runs_close(cbi_runs *r) {
    cb_channel_writer_close(r->writer);
    cbi_runs_read_end(r, 0, r->count);
    for (uint32_t i = 0; i < r->count; i++) {
        cb_channel_destroy(r->items[i].channel);
    }
    cb_channels_close(r->channels);
    cb_segment_owner_destroy(r->owner);
    cb_segment_pool_destroy(r->pool);
    (void)cb_task_end(r->task, NULL, 0);
    cb_manager_destroy(r->manager);
    *r = (cbi_runs){0};
}

/* ---- writing ---- */

cb_status cbi_runs_begin(cbi_runs *r, cb_channel **channel, cbi_out *out, cb_error *err) {
    CB_TRY(cb_channel_create(r->channels, channel, err));
    cb_status status =
        cb_channel_writer_open(*channel, r->segments, CBI_RUN_WRITER_SEGMENTS, &r->writer, err);
    if (status != CB_OK) {
        cb_channel_destroy(*channel);
        return status;
    }
    out->view = cb_channel_writer_view(r->writer);
    out->used = 0;
    out->offset = 0;
    return CB_OK;
}

static cb_status finish_writer(cbi_runs *r, cbi_out *out, cb_error *err) {
    CB_TRY(cbi_out_flush(out, err));
    CB_TRY(cb_channel_writer_finish(r->writer, err));
    cb_channel_writer_close(r->writer);
    r->writer = NULL;
    out->view = NULL;
    return CB_OK;
}

cb_status cbi_runs_finish(cbi_runs *r, cb_channel *channel, cbi_out *out, uint64_t *bytes,
                          cb_error *err) {
    cb_assert(r->count < CBI_RUNS_MAX);
    CB_TRY(finish_writer(r, out, err));
    *bytes = cb_channel_bytes(channel);
    r->items[r->count++] = (cbi_run){.channel = channel};
    return CB_OK;
}

void cbi_runs_abandon(cbi_runs *r, cb_channel *channel) {
    cb_channel_writer_close(r->writer);
    r->writer = NULL;
    cb_channel_destroy(channel);
}

/* ---- reading ---- */

static void give_segments(cbi_run *run) {
    cb_status status = cb_segment_give_list(run->segments, CBI_RUN_READER_SEGMENTS, NULL);
    cb_assert(status == CB_OK);
}

cb_status cbi_runs_read(cbi_runs *r, uint32_t first, uint32_t count, cb_error *err) {
    for (uint32_t i = first; i < first + count; i++) {
        cbi_run *run = &r->items[i];
        cb_status status = cb_segment_take(r->owner, CBI_RUN_READER_SEGMENTS, run->segments, err);
        if (status == CB_OK) {
            status = cb_channel_reader_open(run->channel, run->segments, CBI_RUN_READER_SEGMENTS,
                                            &run->reader, err);
            if (status != CB_OK) {
                give_segments(run);
            }
        }
        if (status != CB_OK) {
            cbi_runs_read_end(r, first, i - first);
            return status;
        }
    }
    return CB_OK;
}

void cbi_runs_read_end(cbi_runs *r, uint32_t first, uint32_t count) {
    for (uint32_t i = first; i < first + count; i++) {
        cbi_run *run = &r->items[i];
        if (run->reader != NULL) {
            cb_channel_reader_close(run->reader);
            run->reader = NULL;
            give_segments(run);
        }
    }
}

cb_status cbi_runs_copy_partition(cbi_runs *r, uint32_t first, uint32_t count, cbi_out *out,
                                  size_t chunk_max, cb_error *err) {
    for (uint32_t i = first; i < first + count; i++) {
        cb_input_view *view = cb_channel_reader_view(r->items[i].reader);
        for (;;) {
            uint32_t bytes;
            uint8_t *to;
            CB_TRY(cb_input_view_read_fully(view, &bytes, sizeof bytes, err));
            if (bytes == 0) {
                break;
            }
            if (bytes > chunk_max) {
                return cbi_fail(err, CB_ECORRUPT,
                                "A spilled run has a chunk of %u bytes, where at most %zu can be.",
                                bytes, chunk_max);
            }
            CB_TRY(cbi_out_reserve(out, bytes, &to, err));
            CB_TRY(cb_input_view_read_fully(view, to, bytes, err));
            cbi_out_commit(out, bytes);
        }
    }
    return CB_OK;
}

/* ---- when there are too many ---- */

/** Neighbours, because a partition's bytes keep their order; the cheapest ones. */
static uint32_t cheapest(const cbi_runs *r) {
    uint64_t least = UINT64_MAX;
    uint32_t first = 0;
    for (uint32_t i = 0; i + CBI_RUNS_MERGED <= r->count; i++) {
        uint64_t bytes = 0;
        for (uint32_t j = i; j < i + CBI_RUNS_MERGED; j++) {
            bytes += cb_channel_bytes(r->items[j].channel);
        }
        if (bytes < least) {
            least = bytes;
            first = i;
        }
    }
    return first;
}

static cb_status copy_runs(cbi_runs *r, uint32_t first, uint32_t partitions, cbi_out *out,
                           size_t chunk_max, cb_error *err) {
    for (uint32_t p = 0; p < partitions; p++) {
        CB_TRY(cbi_runs_copy_partition(r, first, CBI_RUNS_MERGED, out, chunk_max, err));
        CB_TRY(cbi_out_end_partition(out, err));
    }
    return finish_writer(r, out, err);
}

cb_status cbi_runs_merge_some(cbi_runs *r, uint32_t partitions, cbi_out *out, size_t chunk_max,
                              cb_error *err) {
    if (r->count < CBI_RUNS_MAX) {
        return CB_OK;
    }
    uint32_t first = cheapest(r);
    cb_channel *merged;
    CB_TRY(cbi_runs_read(r, first, CBI_RUNS_MERGED, err));
    cb_status status = cbi_runs_begin(r, &merged, out, err);
    if (status == CB_OK) {
        status = copy_runs(r, first, partitions, out, chunk_max, err);
        if (status != CB_OK) {
            cbi_runs_abandon(r, merged);
        }
    }
    cbi_runs_read_end(r, first, CBI_RUNS_MERGED);
    if (status != CB_OK) {
        return status;
    }
    for (uint32_t i = first; i < first + CBI_RUNS_MERGED; i++) {
        cb_channel_destroy(r->items[i].channel);
    }
    r->items[first] = (cbi_run){.channel = merged};
    for (uint32_t i = first + CBI_RUNS_MERGED; i < r->count; i++) {
        r->items[i - CBI_RUNS_MERGED + 1] = r->items[i];
    }
    r->count -= CBI_RUNS_MERGED - 1;
    return CB_OK;
}
