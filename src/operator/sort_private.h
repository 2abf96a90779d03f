/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SORT_PRIVATE_H
#define CBI_SORT_PRIVATE_H

#include "carbide/sort.h"
#include "format/format.h"
#include "operator/given.h"
#include "operator/ground.h"
#include "operator/merge.h"
#include "operator/order.h"
#include "operator/partition.h"
#include "operator/run_table.h"
#include "operator/sink.h"
#include "operator/split.h"
#include "operator/splitters.h"

/* How a sort divides its budget: made before it starts, so that results and peak do not depend on
 * timing. In bytes. */
typedef struct sort_sizes {
    uint64_t budget;
    uint64_t fixed;  /* baseline, stacks, small objects, tables, headroom */
    uint64_t usable; /* pages */
    unsigned threads, io_threads;
    size_t chunk;      /* a worker's input buffer */
    size_t batch_rows; /* rows looked at together */
    size_t batch_keys; /* bytes for their encoded keys */
    size_t writer_buffer;
    unsigned writer_buffers;
    size_t entries; /* rows a worker can order at once */
    size_t worker;  /* scratch a worker, the larger of its two uses */
    size_t staging; /* the spill's */
    size_t shared;  /* staging + output blocks */
    size_t segment;
    size_t segments;
    size_t spare;          /* of these, left untouched while there is no need (sort_plan.c) */
    size_t tier;           /* of the spare ones: for what is spilled, until a giant comes */
    size_t batch_segments; /* of one spill request */
    size_t run_batch;      /* the same for runs: smaller, so that many can be merged at once */
    uint32_t ranges;
    uint64_t range_bytes; /* aimed at */
    bool in_memory;
} sort_sizes;

/* What sampling found. */
typedef struct sort_sample {
    uint64_t rows;       /* looked at */
    double row_bytes;    /* mean, without terminator */
    double key_bytes;    /* mean of encoded keys, 0 otherwise */
    double stored_bytes; /* mean */
    uint64_t row_bytes_max;
} sort_sample;

typedef struct sort_worker {
    cb_sort *sort;
    cbi_input *input; /* the sort's, or one of several sorted ones */
    cbi_thread thread;
    unsigned index;
    uint8_t *scratch; /* sizes.worker */
    cbi_chunk chunk;
    uint8_t *chunk_home; /* where chunk.buf is when no large row is there */
    cbi_rows rows;
    cbi_span *keys;
    uint32_t *range_of, *which, *counts;
    uint8_t *key_bytes;
    size_t key_capacity;
    cbi_writer writer;
    cbi_entry *entries;
    uint8_t *big; /* segments taken for a row that the chunk buffer cannot hold */
    size_t big_units;
    bool big_token;   /* only one worker at a time holds such memory */
    uint8_t *big_key; /* the same for its key */
    size_t big_key_units;
    const uint8_t *keys_base;
    cbi_builder builder;
    size_t builder_units;
} sort_worker;

struct cb_sort {
    cb_sort_options o; /* every pointer is the sort's own copy */
    char *strings;

    cbi_input *input;
    cbi_keys *keys;
    const uint32_t *columns;
    cbi_layout layout;
    cbi_layout run_layout;
    bool needs_order; /* equal keys can be told apart: input order matters */
    cbi_format format;
    sort_sample sample;
    sort_sizes sizes;

    cbi_ground ground;
    cbi_splitters *splitters;
    cbi_partitions *parts;
    cbi_run_table runs;
    cbi_sink *sink;
    cbi_given given;  /* rows of an iterator instead of inputs */
    cbi_split *split; /* many files instead of one; NULL: an ordinary sort. The owner's */
    sort_worker *workers;

    /* the second phase */
    cbi_mutex mutex;
    cbi_cond changed;
    uint64_t *offsets; /* of ranges in the output */
    uint32_t next_load, next_range, turn;
    unsigned busy;
    bool exclusive;
    bool claiming;     /* a worker wants its builder's memory back: no run is begun */
    unsigned flushing; /* workers that write a run of a stream */
    bool big_taken;    /* a worker has the token for large rows */
    uint64_t cursor;   /* output bytes placed so far */
    cb_status failed;
    cb_error failure;

    atomic_bool stop; /* somebody failed or cancelled: everyone ends */
    atomic_bool cancelled;
    atomic_int phase;
    atomic_ullong rows_in, rows_out, bytes_out, bytes_in_rows;
    uint64_t bytes_out_total, start_ns, phase_ns[CB_PHASE_DONE + 1], end_ns;
    uint32_t passes;
    cb_sort_stats stats;
    cb_sort_plan plan;
    bool prepared, ran;
    uint64_t enough_bytes; /* tests: the plan's memory, and the rest is used whatever the disk does;
                              0: as sort_plan.c finds */
};

/* sort_plan.c */
cb_status cbi_sort_measure(cb_sort *s,
                           cb_error *err); /* samples: s->sample and, for ranges, the splitters */
cb_status cbi_sort_size(cb_sort *s, cb_error *err);
void cbi_sort_fill_plan(cb_sort *s, cb_sort_plan *plan);
bool cbi_sort_by_range(const cb_sort *s);

/* The smallest budget whose plan can hold a row (or key) of that many bytes. */
uint64_t cbi_sort_least_budget(const cb_sort *s, uint64_t row_bytes);
/* How many times its own bytes of page memory a row takes on its way. */
double cbi_sort_row_factor(const cb_sort *s);

/* sort_batch.c */
void cbi_worker_layout(sort_worker *w);
/* The next chunk, whatever it takes; chunk.bytes == 0 at the end. */
cb_status cbi_worker_next_chunk(sort_worker *w, cb_error *err);
/* After the last chunk, or instead of it: gives back what large rows took. */
void cbi_worker_end_input(sort_worker *w);
/* The next batch of rows of the chunk with their keys; rows.count == 0 at its end. */
cb_status cbi_worker_next_rows(sort_worker *w, size_t *at, cb_error *err);
/* The key of a row: its place in the order, or its target. As cbi_keys_encode. */
static inline size_t cbi_sort_key(const cb_sort *s, const cbi_rows *rows, size_t i, uint8_t *out,
                                  size_t cap) {
    return s->split == NULL ? cbi_keys_encode(s->keys, rows, i, out, cap)
                            : cbi_split_key(s->split, rows, i, out, cap);
}
cbi_stored cbi_worker_row(const sort_worker *w, size_t i);
/* Runs `fn` in every worker and waits; the first failure is the answer. */
cb_status cbi_sort_in_workers(cb_sort *s, unsigned count, cbi_thread_fn fn, cb_error *err);
void cbi_sort_fail(cb_sort *s, cb_status status, const cb_error *err);
bool cbi_sort_stopped(cb_sort *s);
void cbi_sort_phase(cb_sort *s, cb_phase phase);
size_t cbi_row_overhead(
    const cb_sort *s); /* bytes a row has in the output besides its own: the terminator */

/* sort.c */
/* Paths [first, first + count) as one input. */
cb_status cbi_sort_open_input(cb_sort *s, size_t first, size_t count, cbi_input **input,
                              cb_error *err);
cb_status cbi_sort_open_output(cb_sort *s, uint64_t bytes_expected, cb_error *err);

/* sort_range.c, sort_runs.c, sort_merge.c */
cb_status cbi_sort_ranges(cb_sort *s, cb_error *err);
cb_status cbi_sort_stream(cb_sort *s, cb_error *err);
/* One range that does not fit or has too many rows, by runs and a merge; the caller is alone. */
cb_status cbi_sort_big_range(sort_worker *w, uint32_t range, cb_error *err);
cb_status cbi_sort_open_runs(cb_sort *s, uint32_t slots, size_t batch, cb_error *err);
/* Everything that is in runs -> the output, by w's pen. All page memory is free. */
cb_status cbi_sort_merge_runs(sort_worker *w, cb_error *err);
/* Worker 0 writes the output alone: header, rows by cbi_sort_emit, end. */
cb_status cbi_sort_begin_output(cb_sort *s, cb_error *err);
cb_status cbi_sort_end_output(cb_sort *s, cb_error *err);
cb_status cbi_sort_merge_inputs(cb_sort *s, cb_error *err);
cb_status cbi_sort_check(cb_sort *s, cb_error *err);
/* Rows of merged runs -> the output. `ctx` is the worker whose writer is used. */
cb_status cbi_sort_emit(void *ctx, const cbi_stored *row, cb_error *err);

#endif
