/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_JOIN_PRIVATE_H
#define CBI_JOIN_PRIVATE_H

#include "carbide/join.h"
#include "operator/job.h"

/*
 * A row of a side, as it is stored:
 *
 *     varint row number in its chunk | [raw key fields, each with its length] | pieces
 *
 * A piece is a run of the result's columns that come from one side, ready to be copied, separators
 * between its fields included. Each but the side's last has its length before it. The raw key
 * fields are there on the right when rows without a partner are wanted from it: the left's key
 * columns show them. The stored key is the normalised one; it has no bytes when it is null and
 * matches nothing.
 */

enum { JOIN_LEFT = 0, JOIN_RIGHT = 1, JOIN_KEYS_MAX = 64 };

typedef struct join_column {
    uint32_t side, column;
    int key; /* which key it is; -1: none */
} join_column;

/* Columns [first, first + count) of the result, all from one side. */
typedef struct join_piece {
    uint32_t side, first, count;
    bool last; /* of its side */
} join_piece;

/* Neighbouring columns of an input that are copied in one go. -1: from the row's start, to its end;
 * otherwise a slot in the fields that are scanned. */
typedef struct join_run {
    int first, last;
    bool ends_piece;
} join_run;

typedef struct join_side {
    cbi_input *input;
    cbi_keys *keys;
    cbi_format format;
    const char *const *names;
    size_t name_count;
    uint32_t *columns; /* scanned: those of the keys first */
    size_t field_count;
    join_run *runs;
    size_t run_count, piece_count;
    int key_slots[JOIN_KEYS_MAX]; /* where the key fields are among the scanned ones */
    bool convert;                 /* fields are written by other rules than they are read */
    bool keep_keys;               /* raw key fields are stored */
    bool keep_null, keep_rows;    /* rows without a partner are wanted */
    double rows_estimate, row_bytes, key_bytes;
    uint64_t sample_rows;
    atomic_ullong rows;
    atomic_ullong chunks;           /* the highest number and one */
    double chunk_scale, rows_scale; /* of a chunk in all, of a row in a chunk */
} join_side;

struct cb_join {
    cbi_job job;
    cb_join_options o; /* pointers are copies */
    char *strings;
    const char **lists;
    join_side sides[2];
    join_column *columns;
    size_t column_count;
    join_piece *pieces;
    size_t piece_count;
    uint8_t separator;
    bool quoting; /* the result is CSV */
    uint32_t left_ranges;
    unsigned reading; /* side */
};

/* A row of a side, taken apart. */
typedef struct join_row {
    uint64_t position;
    const uint8_t *bytes, *end; /* behind the row number */
} join_row;

/* join_columns.c */
/** Inputs are open: which columns the result has, what is scanned and stored. */
cb_status join_choose_columns(cb_join *j, cb_error *err);
void join_free_columns(cb_join *j);

/* join_read.c */
cb_status join_read_side(cb_join *j, unsigned side, cb_error *err);
/** Bytes of the side's row `i` as it would be stored, its key left out. */
size_t join_stored_bytes(const cb_join *j, unsigned side, const cbi_rows *rows, size_t i);

/* join_emit.c */
static inline join_row join_row_of(const cbi_stored *record, uint64_t order) {
    uint32_t number;
    const uint8_t *at = cbi_varint_get(record->row, &number);
    return (join_row){
        .position = order | number, .bytes = at, .end = record->row + record->row_bytes};
}
/** One row of the result. `ordinal`: how many partners this left row has had before. */
cb_status join_emit_pair(cb_join *j, cbi_job_worker *w, const join_row *left, const join_row *right,
                         uint32_t ordinal, cb_error *err);
/** A left row alone: without a partner, or all that is wanted of it. */
cb_status join_emit_left(cb_join *j, cbi_job_worker *w, const join_row *left, cb_error *err);
cb_status join_emit_right(cb_join *j, cbi_job_worker *w, const join_row *right, cb_error *err);
static inline bool join_wants_left(const cb_join *j) {
    return j->o.how == CB_JOIN_LEFT || j->o.how == CB_JOIN_FULL || j->o.how == CB_JOIN_ANTI;
}
static inline bool join_wants_right(const cb_join *j) {
    return j->o.how == CB_JOIN_RIGHT || j->o.how == CB_JOIN_FULL;
}
static inline bool join_wants_pairs(const cb_join *j) {
    return j->o.how != CB_JOIN_SEMI && j->o.how != CB_JOIN_ANTI;
}

/* join_work.c */
bool join_fits(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info);
cb_status join_work(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list, cb_error *err);

/* join_giant.c */
cb_status join_big(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err);

#endif
