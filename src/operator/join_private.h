/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_JOIN_PRIVATE_H
#define CBI_JOIN_PRIVATE_H

#include "carbide/join.h"
#include "operator/job.h"
#include "operator/join_pack.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * A row of a side, as it is stored:
 *
 *     [varint place] | [varint text] | [raw key fields, each with its length] | [pieces]
 *
 * Where a row begins in its input is its position: that of the first row of the batch, which all
 * pieces of the batch carry as their order, and the varint. The right needs it only if its rows may
 * be shown alone; for the order of equal keys that of pieces suffices.
 *
 * A piece is a run of the result's columns that come from one side, ready to be copied, separators
 * between its fields included. Each but the side's last has its length before it. The raw key
 * fields are there on the right when rows without a partner are wanted from it: the left's key
 * columns show them. The stored key is the normalised one; it has no bytes when it is null and
 * matches nothing.
 *
 * If the left can be read again (late), its rows leave their pieces behind and take only the bytes
 * these have: `text` is twice that number, or odd for a row that brings its pieces after all
 * (join_late.c).
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
    uint32_t *by_name; /* 1 + the first of that name, by its hash; while columns are chosen */
    size_t by_name_mask;
    uint32_t *columns; /* scanned: those of the keys first */
    size_t field_count;
    join_run *runs;
    size_t run_count, piece_count;
    int key_slots[JOIN_KEYS_MAX]; /* where the key fields are among the scanned ones */
    bool plain;                   /* one run, as it stands there, is all that is stored */
    bool convert;                 /* fields are written by other rules than they are read */
    bool keep_keys;               /* raw key fields are stored */
    bool keep_null;               /* rows without a partner are wanted */
    bool numbered;                /* rows know their positions */
    int raw_slot; /* the field there is the key as it stands, if nothing in it is escaped; -1 */
    atomic_ullong rows;
    atomic_ullong extent; /* behind the highest position */
    double range_scale;   /* of a position, to its range */
} join_side;

/* What a row of the side alone shows instead of a piece of the other one. */
typedef struct join_text {
    const uint8_t *bytes;
    uint32_t count;
    bool shown;
} join_text;

typedef struct join_reader join_reader;
typedef struct join_stream join_stream;

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
    bool direct;      /* results are written as they come (join_sorted.c) */

    /* join_late.c */
    bool late;
    atomic_ullong *starts; /* of left ranges, in the input, and one more */
    uint64_t *range_bytes; /* of the output, for each worker and range */
    join_reader *readers;  /* one a worker */
    join_text *missing;    /* for each piece of the right */
    uint8_t *missing_text;
    uint64_t missing_bytes; /* what a left row alone shows besides its own */
    join_stream *stream;    /* join_stream.c */
    join_pack *pack;        /* join_pack.h; NULL: nothing is packed */
    bool packed;            /* the right's text is */
};

/* A row of a side, taken apart. */
typedef struct join_row {
    uint64_t position;
    const uint8_t *bytes, *end; /* key fields and pieces */
    bool away;                  /* the pieces are in the input still, of so many bytes: */
    uint32_t text;
} join_row;

/* join_columns.c */
/** Inputs are open: which columns the result has, what is scanned and stored. */
cb_status join_choose_columns(cb_join *j, cb_error *err);
void join_free_columns(cb_join *j);

/** Seeded, as the partitions are. */
static inline uint64_t join_hash(const cb_join *j, const void *key, size_t bytes) {
    return XXH3_64bits_withSeed(key, bytes, j->job.seed);
}

static inline bool join_packs_keys(const cb_join *j) {
    return j->pack != NULL && j->pack->keys;
}

/** Bytes that a right row's text has when it comes out; for one piece alone if it is packed. */
static inline size_t join_right_bytes(const cb_join *j, const uint8_t *row, size_t bytes) {
    return j->packed ? join_pack_text_bytes(row, bytes) : bytes;
}

/** The key of row `i` where it lies; false: it must be encoded. */
static inline bool join_raw_key(const join_side *s, const cbi_rows *rows, size_t i,
                                const uint8_t **key, size_t *bytes) {
    if (s->raw_slot < 0)
        return false;
    cbi_span span = rows->fields[i * rows->field_count + (size_t)s->raw_slot];
    *key = rows->base + span.offset;
    *bytes = CBI_SPAN_BYTES(span);
    return (span.bytes & CBI_SPAN_ESCAPED) == 0;
}

/* join_read.c */
cb_status join_read_side(cb_join *j, unsigned side, cb_error *err);
/** A side's row `i` as it is stored, from its key fields on: bytes, the end. */
size_t join_payload_bytes(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i);
uint8_t *join_put_payload(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i,
                          uint8_t *at);
/** A run of the row as it stands there. */
void join_raw_run(const join_side *s, const cbi_rows *rows, size_t i, const join_run *run,
                  uint32_t *begin, uint32_t *end);

/* join_emit.c */
static inline join_row join_row_of(const cb_join *j, unsigned side, const cbi_stored *record,
                                   uint64_t order) {
    join_row row = {
        .position = order, .bytes = record->row, .end = record->row + record->row_bytes};
    uint32_t n;
    if (j->sides[side].numbered) {
        row.bytes = cbi_varint_get(row.bytes, &n);
        row.position += n;
    }
    if (side == JOIN_LEFT && j->late) {
        row.bytes = cbi_varint_get(row.bytes, &n);
        row.away = (n & 1) == 0;
        row.text = n >> 1;
    }
    return row;
}
/** Ranges are of the same number of bytes of their input, about. */
static inline uint32_t join_left_range(const cb_join *j, uint64_t position) {
    uint32_t range = (uint32_t)((double)position * j->sides[JOIN_LEFT].range_scale);
    return range < j->left_ranges ? range : j->left_ranges - 1;
}

/* A part of a result's row. */
typedef struct join_part {
    const uint8_t *bytes;
    uint32_t count;
} join_part;

/** The next piece of a side's row. */
static inline join_part join_next_part(join_row *row, bool last) {
    uint32_t bytes = (uint32_t)(row->end - row->bytes);
    if (!last)
        row->bytes = cbi_varint_get(row->bytes, &bytes);
    join_part p = {row->bytes, bytes};
    row->bytes += bytes;
    return p;
}
/** One row of the result. `ordinal`: how many partners this left row has had before. */
cb_status join_emit_pair(cb_join *j, cbi_job_worker *w, const join_row *left, const join_row *right,
                         uint32_t ordinal, cb_error *err);
/** A left row alone: without a partner, or all that is wanted of it. */
cb_status join_emit_left(cb_join *j, cbi_job_worker *w, const join_row *left, cb_error *err);
cb_status join_emit_right(cb_join *j, cbi_job_worker *w, const join_row *right, cb_error *err);
/** What a left row alone shows of piece `i`: bytes, written when `at` is not NULL; whether it shows
 * the piece at all. */
size_t join_missing_text(const cb_join *j, size_t i, uint8_t *at, bool *shown);
/** What is left in worker 0's batch goes to the writer (j->direct). */
cb_status join_direct_flush(cb_join *j, cbi_job_worker *w, cb_error *err);
static inline bool join_is_one_of(const cb_join *j, unsigned hows) {
    return (hows >> j->o.how & 1) != 0;
}
static inline bool join_wants_left(const cb_join *j) {
    return join_is_one_of(j, 1U << CB_JOIN_LEFT | 1U << CB_JOIN_FULL | 1U << CB_JOIN_ANTI |
                                 1U << CB_JOIN_ALONE | 1U << CB_JOIN_ALONE_LEFT);
}
static inline bool join_wants_right(const cb_join *j) {
    return join_is_one_of(j, 1U << CB_JOIN_RIGHT | 1U << CB_JOIN_FULL | 1U << CB_JOIN_ALONE |
                                 1U << CB_JOIN_ALONE_RIGHT);
}
/** The result has columns of the right. */
static inline bool join_shows_right(const cb_join *j) {
    return !join_is_one_of(j, 1U << CB_JOIN_SEMI | 1U << CB_JOIN_ANTI);
}
static inline bool join_wants_pairs(const cb_join *j) {
    return join_is_one_of(j, 1U << CB_JOIN_INNER | 1U << CB_JOIN_LEFT | 1U << CB_JOIN_RIGHT |
                                 1U << CB_JOIN_FULL);
}

/* join_late.c */
enum {
    JOIN_AWAY_MAX = 4096 /* a row of more text does not leave it behind */
};
/** What follows the place in the key of a result: nothing for a row with its first partner. */
enum { JOIN_TAG_PAIR = 0, JOIN_TAG_ALONE = 1, JOIN_TAG_WHOLE = 2 };
/** Before the left is read: ranges are known. */
cb_status join_late_begin(cb_join *j, cb_error *err);
/** Behind it. */
void join_late_know_starts(cb_join *j);
void join_late_end(cb_join *j);

/** A right row as it comes out; `room`: JOIN_PACK_MAX + JOIN_PACK_SLACK bytes. */
join_row join_unpacked(const cb_join *j, const join_row *right, uint8_t *room);
/** Both parts of a pair, where there is room for all of it and JOIN_PACK_SLACK; the end. */
uint8_t *join_compose(const cb_join *j, join_row *rows, uint8_t *at);
/** The same part by part; a left row alone has the missing ones. Adds the bytes to *bytes. */
cb_status join_put_parts(const cb_join *j, cbi_writer *out, join_row *rows, bool alone,
                         uint64_t *bytes, cb_error *err);

/** A left row in `range` begins at `position`. */
static inline void join_late_note(cb_join *j, uint32_t range, uint64_t position) {
    unsigned long long least = atomic_load_explicit(&j->starts[range], memory_order_relaxed);
    while (position < least && !atomic_compare_exchange_weak(&j->starts[range], &least, position))
        continue;
}
/** So many bytes come out in `range`. */
static inline void join_late_count(cb_join *j, const cbi_job_worker *w, uint32_t range,
                                   uint64_t bytes) {
    j->range_bytes[(size_t)w->index * j->job.sizes.ranges + range] += bytes;
}

/* join_stream.c */
/** The right is in: if memory allows that, the rest of the join, up to the output's last byte. */
cb_status join_stream_try(cb_join *j, bool *streamed, cb_error *err);
void join_stream_end(cb_join *j);

/* join_work.c */
/** The pieces of a right partition in the order of their positions; answers how many. */
size_t join_list_pieces(const cb_join *j, const uint8_t *base, cbi_segment *list,
                        cbi_entry *pieces);
bool join_fits(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info);
cb_status join_work(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list, cb_error *err);

/* join_giant.c */
cb_status join_big(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err);
/** Rows of both sides in the order of their keys, of equal ones the right's first: their results go
 * where all results go. *temp is what it takes memory by, until it is closed. */
typedef struct giant join_group;
cb_status join_group_open(join_group **group, cb_join *j, cbi_job_worker *w, cbi_partitions **temp,
                          cb_error *err);
/** Row `i` of `rows`; key NULL: it matches nothing. The byte behind the key is written to. */
cb_status join_group_put(join_group *group, unsigned side, uint8_t *key, size_t key_bytes,
                         const cbi_rows *rows, size_t i, cb_error *err);
cb_status join_group_end(join_group *group, cb_error *err);
/** NULL is fine. */
void join_group_close(join_group *group);

/* join_sorted.c */
cb_status join_sorted(cb_join *j, cb_error *err);

#endif
