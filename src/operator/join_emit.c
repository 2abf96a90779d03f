/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/join_private.h"

/*
 * Rows of the result. Each goes into the range of the output that its left position belongs to,
 * with a key that is unique and orders them: the position, and behind it the number of the partner
 * from the second one on. So with unique keys on the right the key is 8 bytes. What the right has
 * alone follows in ranges of its own.
 */

enum { POSITION_BYTES = 8, ORDINAL_BYTES = 4, RIGHT_ALONE = 0x80 };

typedef struct part {
    const uint8_t *bytes;
    uint32_t count;
} part;

/* The next piece of a side's row. */
static inline part next_part(join_row *row, bool last) {
    uint32_t bytes = (uint32_t)(row->end - row->bytes);
    if (!last)
        row->bytes = cbi_varint_get(row->bytes, &bytes);
    part p = {row->bytes, bytes};
    row->bytes += bytes;
    return p;
}

/* Leaves the raw key fields behind; answers where they begin. */
static const uint8_t *skip_keys(const cb_join *j, join_row *right) {
    const uint8_t *keys = right->bytes;
    for (size_t k = 0; j->sides[JOIN_RIGHT].keep_keys && k < j->o.key_count; k++) {
        uint32_t bytes;
        right->bytes = cbi_varint_get(right->bytes, &bytes);
        right->bytes += bytes;
    }
    return keys;
}

/* Ranges of the same number of rows, about: a position is a chunk and a row in it, and chunks have
 * as many rows as the mean. */
static inline uint32_t range_of(const join_side *s, uint64_t position, uint32_t ranges) {
    double in_chunk = (double)(uint32_t)position * s->rows_scale;
    double place = (double)(position >> 32) + (in_chunk < 1 ? in_chunk : 1);
    uint32_t range = (uint32_t)(place * s->chunk_scale * ranges);
    return range < ranges ? range : ranges - 1;
}

static inline uint32_t left_range(const cb_join *j, uint64_t position) {
    return range_of(&j->sides[JOIN_LEFT], position, j->left_ranges);
}

static uint32_t right_range(const cb_join *j, uint64_t position) {
    return j->left_ranges +
           range_of(&j->sides[JOIN_RIGHT], position, j->job.sizes.ranges - j->left_ranges);
}

typedef struct target {
    uint8_t key[POSITION_BYTES + ORDINAL_BYTES];
    uint32_t key_bytes, range;
} target;

static inline cb_status begin_row(cbi_job_worker *w, const target *t, uint32_t row_bytes,
                                  uint8_t **at, cb_error *err) {
    CB_TRY(
        cbi_batch_begin(&w->batch, t->range, cbi_record_bytes(t->key_bytes, row_bytes), at, err));
    *at = cbi_record_put_key(*at, t->key, t->key_bytes, row_bytes);
    return CB_OK;
}

static inline target left_target(const cb_join *j, const join_row *left, uint32_t ordinal) {
    target t = {.key_bytes = POSITION_BYTES, .range = left_range(j, left->position)};
    cbi_store_u64(t.key, __builtin_bswap64(left->position));
    if (ordinal > 0) {
        t.key_bytes += ORDINAL_BYTES;
        cbi_store_u32(t.key + POSITION_BYTES, __builtin_bswap32(ordinal));
    }
    return t;
}

static inline uint8_t *put_part(uint8_t *at, part p) {
    memcpy(at, p.bytes, p.count);
    return at + p.count;
}

cb_status join_emit_pair(cb_join *j, cbi_job_worker *w, const join_row *left, const join_row *right,
                         uint32_t ordinal, cb_error *err) {
    enum { FEW = 64 };
    join_row rows[2] = {*left, *right};
    part few[FEW];
    uint64_t bytes = j->piece_count > 0 ? j->piece_count - 1 : 0;
    if (ordinal == UINT32_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "a row has more than %u partners", ordinal - 1);
    (void)skip_keys(j, &rows[JOIN_RIGHT]);
    join_row again[2] = {rows[JOIN_LEFT], rows[JOIN_RIGHT]};
    for (size_t i = 0; i < j->piece_count; i++) {
        part p = next_part(&rows[j->pieces[i].side], j->pieces[i].last);
        bytes += p.count;
        if (i < FEW)
            few[i] = p;
    }
    if (bytes > CBI_STORED_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "a row of the result would have %llu bytes",
                        (unsigned long long)bytes);
    target t = left_target(j, left, ordinal);
    uint8_t *at;
    CB_TRY(begin_row(w, &t, (uint32_t)bytes, &at, err));
    for (size_t i = 0; i < j->piece_count; i++) {
        if (i > 0)
            *at++ = j->separator;
        at = put_part(at, j->piece_count <= FEW
                              ? few[i]
                              : next_part(&again[j->pieces[i].side], j->pieces[i].last));
    }
    return cbi_batch_end(&w->batch, at, err);
}

/* In GNU's default form a row alone has no fields for the other one, but the key. */
static bool is_shown(const cb_join *j, const join_column *column, const uint8_t *keys) {
    bool brief = j->o.keys_first && j->o.column_count == 0;
    return !brief || (keys != NULL && column->key >= 0);
}

static bool any_shown(const cb_join *j, const join_piece *piece, const uint8_t *keys) {
    for (uint32_t c = 0; c < piece->count; c++)
        if (is_shown(j, &j->columns[piece->first + c], keys))
            return true;
    return false;
}

/* The columns of a piece whose row is missing. `keys`: raw key fields of the right row, for the
 * left's key columns; NULL: none. Answers the bytes; writes when `at` is not NULL. */
static size_t put_missing(const cb_join *j, const join_piece *piece, const uint8_t *keys,
                          uint8_t *at) {
    size_t bytes = 0, shown = 0, fill = j->o.missing != NULL ? strlen(j->o.missing) : 0;
    for (uint32_t c = 0; c < piece->count; c++) {
        const join_column *column = &j->columns[piece->first + c];
        const uint8_t *text = (const uint8_t *)j->o.missing;
        uint32_t count = (uint32_t)fill;
        if (!is_shown(j, column, keys))
            continue;
        if (keys != NULL && column->key >= 0) {
            text = keys;
            for (int k = 0; k <= column->key; k++) {
                text = cbi_varint_get(k == 0 ? keys : text + count, &count);
            }
        }
        if (at != NULL) {
            if (shown > 0)
                *at++ = j->separator;
            if (count > 0)
                memcpy(at, text, count);
            at += count;
        }
        bytes += count + (shown++ > 0);
    }
    return bytes;
}

/* One row of `side` alone. */
static cb_status emit_alone(cb_join *j, cbi_job_worker *w, unsigned side, const join_row *row,
                            const target *t, cb_error *err) {
    join_row from = *row;
    const uint8_t *keys = NULL;
    if (side == JOIN_RIGHT)
        keys = skip_keys(j, &from);
    join_row again = from;
    uint64_t bytes = 0, shown = 0;
    for (size_t i = 0; i < j->piece_count; i++) {
        const join_piece *piece = &j->pieces[i];
        if (piece->side != side && !any_shown(j, piece, keys))
            continue;
        bytes += (shown++ > 0) + (piece->side == side ? next_part(&from, piece->last).count
                                                      : put_missing(j, piece, keys, NULL));
    }
    if (bytes > CBI_STORED_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "a row of the result would have %llu bytes",
                        (unsigned long long)bytes);
    uint8_t *at;
    CB_TRY(begin_row(w, t, (uint32_t)bytes, &at, err));
    shown = 0;
    for (size_t i = 0; i < j->piece_count; i++) {
        const join_piece *piece = &j->pieces[i];
        if (piece->side != side && !any_shown(j, piece, keys))
            continue;
        if (shown++ > 0)
            *at++ = j->separator;
        if (piece->side == side)
            at = put_part(at, next_part(&again, piece->last));
        else
            at += put_missing(j, piece, keys, at);
    }
    return cbi_batch_end(&w->batch, at, err);
}

cb_status join_emit_left(cb_join *j, cbi_job_worker *w, const join_row *left, cb_error *err) {
    target t = left_target(j, left, 0);
    return emit_alone(j, w, JOIN_LEFT, left, &t, err);
}

cb_status join_emit_right(cb_join *j, cbi_job_worker *w, const join_row *right, cb_error *err) {
    target t = {.key_bytes = POSITION_BYTES, .range = right_range(j, right->position)};
    cbi_store_u64(t.key, __builtin_bswap64(right->position));
    t.key[0] |= RIGHT_ALONE;
    return emit_alone(j, w, JOIN_RIGHT, right, &t, err);
}
