/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/join_private.h"

/*
 * Rows of the result. Each goes into the range of the output that its left position belongs to,
 * with a key that is unique and orders them: the position, and behind it the number of the partner
 * from the second one on. So with unique keys on the right the key is 8 bytes. What the right has
 * alone follows in ranges of its own.
 *
 * When the left is late (join_late.c) the position counts from its range's start, in few bytes, and
 * a row whose left pieces are away is what the right gives to it.
 */

enum { POSITION_BYTES = 8, ORDINAL_BYTES = 4, RIGHT_ALONE = 0x80 };

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

static uint32_t right_range(const cb_join *j, uint64_t position) {
    uint32_t ranges = j->job.sizes.ranges - j->left_ranges;
    uint32_t range = (uint32_t)((double)position * j->sides[JOIN_RIGHT].range_scale);
    return j->left_ranges + (range < ranges ? range : ranges - 1);
}

typedef struct target {
    uint8_t key[32]; /* POSITION_BYTES + ORDINAL_BYTES, and what compilers believe is copied */
    uint32_t key_bytes, range;
} target;

/* ---- rows that are written as they come: they gather in the batch, with their ends ---- */

cb_status join_direct_flush(cb_join *j, cbi_job_worker *w, cb_error *err) {
    cbi_batch *b = &w->batch;
    (void)j;
    size_t bytes = (size_t)(b->at - b->bytes);
    b->at = b->bytes;
    return bytes > 0 ? cbi_writer_put(&w->writer, b->bytes, bytes, err) : CB_OK;
}

static cb_status direct_begin(cb_join *j, cbi_job_worker *w, size_t row_bytes, uint8_t **at,
                              cb_error *err) {
    cbi_batch *b = &w->batch;
    if (CBI_UNLIKELY(row_bytes + 1 > (size_t)(b->end - b->at))) {
        CB_TRY(join_direct_flush(j, w, err));
        if (row_bytes + 1 > (size_t)(b->end - b->at)) {
            void *base;
            b->big_units = row_bytes / j->job.sizes.segment + 1;
            CB_TRY(cbi_partitions_take(b->to, b->big_units, &base, err));
            b->big = base;
        }
    }
    *at = b->big != NULL ? b->big : b->at;
    return CB_OK;
}

static cb_status direct_end(cb_join *j, cbi_job_worker *w, uint8_t *end, cb_error *err) {
    cbi_job *job = &j->job;
    cbi_batch *b = &w->batch;
    uint8_t *start = b->big != NULL ? b->big : b->at;
    size_t bytes = (size_t)(end - start) + 1;
    atomic_fetch_add_explicit(&job->rows_out, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&job->bytes_out, bytes, memory_order_relaxed);
    if (job->o.write != NULL)
        CB_TRY(job->o.write(job->o.write_ctx, start, bytes - 1, err));
    *end = job->o.zero_terminated ? 0 : '\n';
    if (b->big != NULL) {
        cb_status status =
            job->o.write != NULL ? CB_OK : cbi_writer_put(&w->writer, start, bytes, err);
        cb_segment_pool_give(job->ground.pool, b->big, b->big_units);
        b->big = NULL;
        return status;
    }
    if (job->o.write == NULL)
        b->at = end + 1;
    return CB_OK;
}

static inline cb_status end_row(cb_join *j, cbi_job_worker *w, uint8_t *end, cb_error *err) {
    return CBI_UNLIKELY(j->direct) ? direct_end(j, w, end, err)
                                   : cbi_batch_end(&w->batch, end, err);
}

/* `text`: bytes that come out for it. */
static inline cb_status begin_row(cb_join *j, cbi_job_worker *w, const target *t,
                                  uint32_t row_bytes, uint64_t text, uint8_t **at, cb_error *err) {
    if (CBI_UNLIKELY(j->direct))
        return direct_begin(j, w, row_bytes, at, err);
    if (j->late)
        join_late_count(j, w, t->range, text + 1);
    CB_TRY(
        cbi_batch_begin(&w->batch, t->range, cbi_record_bytes(t->key_bytes, row_bytes), at, err));
    *at = cbi_record_put_key(*at, t->key, t->key_bytes, row_bytes);
    return CB_OK;
}

static target late_target(const cb_join *j, const join_row *left, unsigned tag, uint32_t ordinal) {
    target t = {.key_bytes = j->job.place_bytes, .range = join_left_range(j, left->position)};
    uint64_t start = atomic_load_explicit(&j->starts[t.range], memory_order_relaxed);
    uint64_t place = left->position - start;
    cbi_store_u64(t.key, __builtin_bswap64(place << (64 - 8 * t.key_bytes)));
    if (tag == JOIN_TAG_PAIR && ordinal == 0)
        return t;
    t.key[t.key_bytes++] = (uint8_t)tag;
    if (tag != JOIN_TAG_ALONE) {
        cbi_store_u32(t.key + t.key_bytes, __builtin_bswap32(ordinal));
        t.key_bytes += ORDINAL_BYTES;
    }
    return t;
}

static inline target left_target(const cb_join *j, const join_row *left, uint32_t ordinal) {
    if (j->late)
        return late_target(j, left, JOIN_TAG_WHOLE, ordinal);
    target t = {.key_bytes = POSITION_BYTES, .range = join_left_range(j, left->position)};
    cbi_store_u64(t.key, __builtin_bswap64(left->position));
    if (ordinal > 0) {
        t.key_bytes += ORDINAL_BYTES;
        cbi_store_u32(t.key + POSITION_BYTES, __builtin_bswap32(ordinal));
    }
    return t;
}

static inline uint8_t *put_part(uint8_t *at, join_part p) {
    cbi_copy_short(at, p.bytes, p.count);
    return at + p.count;
}

/* For a left row's first partner, whose key is the place alone. */
static inline cb_status emit_first(cb_join *j, cbi_job_worker *w, uint64_t position,
                                   const join_row *from, uint64_t text, cb_error *err) {
    uint32_t bytes = (uint32_t)(from->end - from->bytes), place_bytes = j->job.place_bytes;
    uint32_t range = join_left_range(j, position);
    uint64_t start = atomic_load_explicit(&j->starts[range], memory_order_relaxed);
    uint8_t *at;
    join_late_count(j, w, range, text + 1);
    CB_TRY(cbi_batch_begin(&w->batch, range,
                           cbi_record_bytes(place_bytes, bytes) + sizeof(uint64_t), &at, err));
    at = cbi_varint_put(at, bytes);
    *at++ = (uint8_t)place_bytes;
    cbi_store_u64(at, __builtin_bswap64((position - start) << (64 - 8 * place_bytes)));
    at += place_bytes;
    cbi_copy_short(at, from->bytes, bytes);
    return cbi_batch_end(&w->batch, at + bytes, err);
}

/* What the right gives to a left row that is away. */
static cb_status emit_right_part(cb_join *j, cbi_job_worker *w, const join_row *left,
                                 const join_row *right, uint32_t ordinal, cb_error *err) {
    join_row from = *right;
    (void)skip_keys(j, &from);
    size_t bytes = (size_t)(from.end - from.bytes), pieces = j->sides[JOIN_RIGHT].piece_count;
    uint64_t text = (uint64_t)left->text + join_right_bytes(j, from.bytes, bytes);
    text += j->piece_count - 1;
    join_row rest = from;
    for (size_t i = 1; i < pieces; i++) /* their lengths do not come out */
        text -= cbi_varint_bytes(join_next_part(&rest, false).count);
    if (CBI_LIKELY(ordinal == 0))
        return emit_first(j, w, left->position, &from, text, err);
    target t = late_target(j, left, JOIN_TAG_PAIR, ordinal);
    uint8_t *at;
    CB_TRY(begin_row(j, w, &t, (uint32_t)bytes, text, &at, err));
    cbi_copy_short(at, from.bytes, bytes);
    return end_row(j, w, at + bytes, err);
}

cb_status join_emit_pair(cb_join *j, cbi_job_worker *w, const join_row *left, const join_row *right,
                         uint32_t ordinal, cb_error *err) {
    enum { FEW = 64 };
    const size_t pieces = j->piece_count; /* nobody changes it meanwhile */
    join_row rows[2] = {*left, *right};
    join_part few[FEW];
    uint64_t bytes = pieces > 0 ? pieces - 1 : 0;
    if (ordinal == UINT32_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "a row has more than %u partners", ordinal - 1);
    if (left->away)
        return emit_right_part(j, w, left, right, ordinal, err);
    uint8_t room[JOIN_PACK_MAX + JOIN_PACK_SLACK];
    (void)skip_keys(j, &rows[JOIN_RIGHT]);
    rows[JOIN_RIGHT] = join_unpacked(j, &rows[JOIN_RIGHT], room);
    join_row again[2] = {rows[JOIN_LEFT], rows[JOIN_RIGHT]};
    for (size_t i = 0; i < pieces; i++) {
        join_part p = join_next_part(&rows[j->pieces[i].side], j->pieces[i].last);
        bytes += p.count;
        if (i < FEW)
            few[i] = p;
    }
    if (bytes > CBI_STORED_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "a row of the result would have %llu bytes",
                        (unsigned long long)bytes);
    target t = left_target(j, left, ordinal);
    uint8_t *at;
    CB_TRY(begin_row(j, w, &t, (uint32_t)bytes, bytes, &at, err));
    for (size_t i = 0; i < pieces; i++) {
        if (i > 0)
            *at++ = j->separator;
        at = put_part(at, pieces <= FEW
                              ? few[i]
                              : join_next_part(&again[j->pieces[i].side], j->pieces[i].last));
    }
    return end_row(j, w, at, err);
}

/* In GNU's default form a row alone has no fields for the other one, but the key. */
static bool is_shown(const cb_join *j, const join_column *column, const uint8_t *keys) {
    bool brief = j->o.keys_first && j->o.column_count == 0 && !j->o.whole_rows;
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

size_t join_missing_text(const cb_join *j, size_t i, uint8_t *at, bool *shown) {
    *shown = any_shown(j, &j->pieces[i], NULL);
    return put_missing(j, &j->pieces[i], NULL, at);
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
        bytes += (shown++ > 0) + (piece->side == side ? join_next_part(&from, piece->last).count
                                                      : put_missing(j, piece, keys, NULL));
    }
    if (bytes > CBI_STORED_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "a row of the result would have %llu bytes",
                        (unsigned long long)bytes);
    uint8_t *at;
    CB_TRY(begin_row(j, w, t, (uint32_t)bytes, bytes, &at, err));
    shown = 0;
    for (size_t i = 0; i < j->piece_count; i++) {
        const join_piece *piece = &j->pieces[i];
        if (piece->side != side && !any_shown(j, piece, keys))
            continue;
        if (shown++ > 0)
            *at++ = j->separator;
        if (piece->side == side)
            at = put_part(at, join_next_part(&again, piece->last));
        else
            at += put_missing(j, piece, keys, at);
    }
    return end_row(j, w, at, err);
}

cb_status join_emit_left(cb_join *j, cbi_job_worker *w, const join_row *left, cb_error *err) {
    if (left->away) {
        target alone = late_target(j, left, JOIN_TAG_ALONE, 0);
        uint8_t *at;
        CB_TRY(begin_row(j, w, &alone, 0, left->text + j->missing_bytes, &at, err));
        return end_row(j, w, at, err);
    }
    target t = left_target(j, left, 0);
    return emit_alone(j, w, JOIN_LEFT, left, &t, err);
}

cb_status join_emit_right(cb_join *j, cbi_job_worker *w, const join_row *right, cb_error *err) {
    target t = {.key_bytes = POSITION_BYTES, .range = right_range(j, right->position)};
    cbi_store_u64(t.key, __builtin_bswap64(right->position));
    t.key[0] |= RIGHT_ALONE;
    return emit_alone(j, w, JOIN_RIGHT, right, &t, err);
}
