/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_MERGE_H
#define CBI_MERGE_H

#include "operator/order.h"
#include "operator/partition.h"

/*
 * Sorted runs and their merge: for what cannot be partitioned by range.
 */

/* ---- a run in the making ---- */

/** Rows grow from the front of a piece of memory, their entries from the back. Plain data. */
typedef struct cbi_builder {
    const cbi_layout *layout;
    uint8_t *base;
    size_t bytes, used;
    cbi_entry *entries; /* the last one added; `count` of them up to the end */
    size_t count;
    uint64_t row_bytes;
    bool sorted; /* ordering changes prefixes, so it must not happen twice */
} cbi_builder;

void cbi_builder_init(cbi_builder *b, const cbi_layout *layout, uint8_t *memory, size_t bytes);
/** false: full; nothing was added. */
bool cbi_builder_add(cbi_builder *b, const cbi_stored *row);
/** Orders what is there, if it is not ordered yet. */
void cbi_builder_sort(cbi_builder *b);
/** Puts everything, which is ordered, at the end of run `index` and empties the builder. */
cb_status cbi_builder_flush(cbi_builder *b, cbi_partitions *runs, uint32_t index, bool unique,
                            cb_error *err);
void cbi_builder_reset(cbi_builder *b);

/* ---- a source of rows in order ---- */

typedef struct cbi_source cbi_source;

/** Moves to the next row: *more false at the end. The row stays valid until the next move; if the
 * source `keeps`, until cbi_source_release_fn after that. */
typedef cb_status (*cbi_source_next_fn)(cbi_source *source, cbi_stored *row, bool *more,
                                        cb_error *err);
/** Whatever the source kept for rows handed out before the current one may go. */
typedef void (*cbi_source_release_fn)(cbi_source *source);

struct cbi_source {
    cbi_source_next_fn next;
    cbi_source_release_fn release; /* may be NULL */
    cbi_stored row;                /* current */
    uint64_t prefix;
    bool live;
    bool keeps; /* rows are looked at after the move to the next; set by cbi_merge */
    bool kept;  /* something waits for release */
};

/** Over a run. */
typedef struct cbi_run_source {
    cbi_source source;
    cbi_partitions *runs;
    cb_segment_pool *pool;
    const cbi_layout *layout;
    uint32_t index;
    cbi_segment *segment; /* being read, and those behind it */
    cbi_segment *done;    /* read, but their rows may still be looked at */
    const uint8_t *at, *piece_end, *segment_end;
} cbi_run_source;
void cbi_run_source_init(cbi_run_source *s, cbi_partitions *runs, cb_segment_pool *pool,
                         const cbi_layout *layout, uint32_t index);
void cbi_run_source_fini(cbi_run_source *s);

/** Over a sorted builder. */
typedef struct cbi_builder_source {
    cbi_source source;
    const cbi_builder *builder;
    size_t at;
} cbi_builder_source;
void cbi_builder_source_init(cbi_builder_source *s, const cbi_builder *builder);

/* ---- the merge ---- */

/** Takes a row. */
typedef cb_status (*cbi_row_fn)(void *ctx, const cbi_stored *row, cb_error *err);

/**
 * Merges `count` sources; rows that compare equal come from the lower source first. `unique`: the
 * first of equal keys only. `tree`: count numbers of scratch. Looks at `cancelled` now and then.
 */
cb_status cbi_merge(cbi_source **sources, uint32_t count, uint32_t *tree, const cbi_layout *layout,
                    bool unique, const atomic_bool *cancelled, cbi_row_fn row, void *ctx,
                    cb_error *err);

#endif
