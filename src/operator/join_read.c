/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/join_private.h"

/* Rows of one side in: their keys, and of the rest what the result will show. */

/* ---- what is stored of a row ---- */

/* Bytes [*begin, *end) of a field as it stands in the row, quotes included. */
static inline void raw_field(const join_side *s, const cbi_rows *rows, size_t i, int slot,
                             uint32_t *begin, uint32_t *end) {
    cbi_span field = rows->fields[i * rows->field_count + (size_t)slot];
    bool quoted = s->format.kind == CB_FORMAT_CSV && field.offset > rows->rows[i].offset &&
                  rows->base[field.offset - 1] == '"';
    *begin = field.offset - quoted;
    *end = field.offset + CBI_SPAN_BYTES(field) + quoted;
}

static inline uint32_t row_end(const cbi_rows *rows, size_t i) {
    cbi_span row = rows->rows[i];
    uint32_t bytes = row.bytes;
    if (bytes > 0 && rows->base[row.offset + bytes - 1] == '\r')
        bytes--; /* it belonged to the line end */
    return row.offset + bytes;
}

void join_raw_run(const join_side *s, const cbi_rows *rows, size_t i, const join_run *run,
                  uint32_t *begin, uint32_t *end) {
    uint32_t ignored;
    if (run->first < 0)
        *begin = rows->rows[i].offset;
    else
        raw_field(s, rows, i, run->first, begin, &ignored);
    if (run->last < 0)
        *end = row_end(rows, i);
    else
        raw_field(s, rows, i, run->last, &ignored, end);
}

/* A field in the rules of the result: answers its bytes, writes when `at` is not NULL. */
static size_t put_converted(const cb_join *j, const cbi_rows *rows, size_t i, int slot,
                            uint8_t *at) {
    cbi_span field = rows->fields[i * rows->field_count + (size_t)slot];
    const uint8_t *p = rows->base + field.offset, *end = p + CBI_SPAN_BYTES(field);
    bool escaped = (field.bytes & CBI_SPAN_ESCAPED) != 0, quote = false;
    if (p == end && j->o.missing_if_empty && j->o.missing != NULL) {
        p = (const uint8_t *)j->o.missing;
        end = p + strlen(j->o.missing);
    }
    for (const uint8_t *q = p; j->quoting && q < end && !quote; q++)
        quote = *q == j->separator || *q == '"' || *q == '\n' || *q == '\r';
    size_t bytes = 0;
    if (quote && at != NULL)
        at[bytes] = '"';
    bytes += quote;
    for (; p < end; p++) {
        if (escaped && *p == '"' && p + 1 < end && p[1] == '"')
            p++;
        for (unsigned n = quote && *p == '"' ? 2 : 1; n > 0; n--, bytes++)
            if (at != NULL)
                at[bytes] = *p;
    }
    if (quote && at != NULL)
        at[bytes] = '"';
    return bytes + quote;
}

/* One run; writes when `at` is not NULL. */
static inline size_t put_run(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i,
                             const join_run *run, uint8_t *at) {
    if (CBI_UNLIKELY(s->convert))
        return put_converted(j, rows, i, run->first, at);
    uint32_t begin, end;
    join_raw_run(s, rows, i, run, &begin, &end);
    if (at != NULL)
        cbi_copy_short(at, rows->base + begin, end - begin);
    return end - begin;
}

static size_t put_key_field(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i,
                            size_t key, uint8_t *at) {
    join_run run = {.first = s->key_slots[key], .last = s->key_slots[key]};
    return put_run(j, s, rows, i, &run, at);
}

/* Bytes of the piece whose runs begin at `run`; *run goes behind it. */
static size_t piece_bytes(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i,
                          size_t *run) {
    size_t bytes = 0;
    for (bool ends = false; !ends; (*run)++) {
        bytes += put_run(j, s, rows, i, &s->runs[*run], NULL);
        ends = s->runs[*run].ends_piece;
        bytes += !ends; /* a separator */
    }
    return bytes;
}

size_t join_payload_bytes(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i) {
    size_t bytes = 0, run = 0;
    if (CBI_LIKELY(s->plain))
        return put_run(j, s, rows, i, &s->runs[0], NULL);
    for (size_t k = 0; s->keep_keys && k < j->o.key_count; k++) {
        size_t n = put_key_field(j, s, rows, i, k, NULL);
        bytes += cbi_varint_bytes((uint32_t)n) + n;
    }
    for (size_t p = 0; p < s->piece_count; p++) {
        size_t n = piece_bytes(j, s, rows, i, &run);
        bytes += n + (p + 1 < s->piece_count ? cbi_varint_bytes((uint32_t)n) : 0);
    }
    return bytes;
}

uint8_t *join_put_payload(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i,
                          uint8_t *at) {
    size_t run = 0;
    if (CBI_LIKELY(s->plain))
        return at + put_run(j, s, rows, i, &s->runs[0], at);
    for (size_t k = 0; s->keep_keys && k < j->o.key_count; k++) {
        at = cbi_varint_put(at, (uint32_t)put_key_field(j, s, rows, i, k, NULL));
        at += put_key_field(j, s, rows, i, k, at);
    }
    for (size_t p = 0; p < s->piece_count; p++) {
        if (p + 1 < s->piece_count) {
            size_t from = run;
            at = cbi_varint_put(at, (uint32_t)piece_bytes(j, s, rows, i, &from));
        }
        for (bool ends = false; !ends; run++) {
            at += put_run(j, s, rows, i, &s->runs[run], at);
            ends = s->runs[run].ends_piece;
            if (!ends)
                *at++ = j->separator;
        }
    }
    return at;
}

/* Of the pieces alone, when they are `payload` bytes with their lengths. */
static size_t text_bytes(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i,
                         size_t payload) {
    size_t bytes = 0, run = 0;
    if (CBI_LIKELY(s->piece_count <= 1))
        return payload;
    for (size_t p = 0; p < s->piece_count; p++)
        bytes += piece_bytes(j, s, rows, i, &run);
    return bytes;
}

/* ---- rows in ---- */

enum { KEY_SCRATCH = 8 * 1024 };

/* A right row with its text packed, if it can be. `room` bytes at `at`. */
static uint8_t *put_packed(const cb_join *j, const cbi_job_worker *w, const join_side *s, size_t i,
                           const uint8_t *key, size_t key_bytes, size_t text, uint8_t *at,
                           size_t room) {
    uint32_t begin = 0, end;
    uint8_t *start = at;
    const uint8_t *from = at + room - text;
    if (CBI_LIKELY(s->plain)) {
        join_raw_run(s, &w->rows, i, &s->runs[0], &begin, &end);
        from = w->rows.base + begin;
    } else {
        (void)join_put_payload(j, s, &w->rows, i, at + room - text);
    }
    at = cbi_record_put_key(at, key, (uint32_t)key_bytes, (uint32_t)join_pack_half(text));
    if (CBI_LIKELY(join_pack_try(j->pack, from, text, at)))
        return at + join_pack_half(text);
    at = cbi_record_put_key(start, key, (uint32_t)key_bytes, (uint32_t)text + 1);
    *at++ = JOIN_PACK_RAW;
    return join_put_payload(j, s, &w->rows, i, at);
}

static cb_status put_row(cb_join *j, cbi_job_worker *w, const join_side *s, size_t i,
                         uint64_t place, cb_error *err) {
    bool null, left = s == &j->sides[JOIN_LEFT];
    const uint8_t *key;
    size_t key_bytes;
    bool raw = join_raw_key(s, &w->rows, i, &key, &key_bytes);
    if (CBI_LIKELY(raw)) {
        null = key_bytes == 0;
    } else {
        key = w->extra;
        key_bytes = cbi_keys_encode_null(s->keys, &w->rows, i, w->extra, KEY_SCRATCH, &null);
    }
    bool apart = null && !j->o.match_nulls, packs = !left && j->packed;
    if (apart && !s->keep_null)
        return CB_OK;
    if (apart)
        key_bytes = 0;
    uint8_t code[JOIN_PACK_KEY_MAX + 1 + JOIN_PACK_SLACK];
    bool in_hand = raw || key_bytes <= KEY_SCRATCH, marked = false;
    if (join_packs_keys(j) && key_bytes <= JOIN_PACK_KEY_MAX) {
        key_bytes = join_pack_put(j->pack, key, key_bytes, code);
        key = code;
    } else if (join_packs_keys(j)) {
        key_bytes += marked = true;
    }
    size_t text = join_payload_bytes(j, s, &w->rows, i);
    bool away = left && j->late && text <= JOIN_AWAY_MAX && w->big == NULL;
    size_t room_for_text =
        packs && text <= JOIN_PACK_MAX ? 2 * text + 1 + JOIN_PACK_SLACK : text + (size_t)packs;
    size_t most = 2 * CBI_VARINT_MAX + (away ? 0 : room_for_text);
    if (key_bytes + most > CBI_STORED_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "%s: a row and its key have %zu bytes",
                        cbi_input_name(s->input, w->chunk.file), key_bytes + most);
    uint8_t *at;
    cbi_batch *batch = &w->batch;
    size_t room = cbi_record_bytes((uint32_t)key_bytes, (uint32_t)most);
    CB_TRY(cbi_batch_begin(batch, 0, room, &at, err));
    if (batch->count == 0)
        batch->order = place;
    if (CBI_LIKELY(packs && in_hand && !marked && text <= JOIN_PACK_MAX)) {
        batch->dest[batch->count] = cbi_job_part(join_hash(j, key, key_bytes), batch->parts);
        return cbi_batch_end(batch, put_packed(j, w, s, i, key, key_bytes, text, at, room), err);
    }
    uint32_t number = (uint32_t)(place - batch->order);
    uint32_t away_bytes = away ? (uint32_t)text_bytes(j, s, &w->rows, i, text) * 2 : 1;
    size_t row_bytes = away ? 0 : text;
    row_bytes += s->numbered ? cbi_varint_bytes(number) : 0;
    row_bytes += left && j->late ? cbi_varint_bytes(away_bytes) : 0;
    row_bytes += packs && text > 0;
    at = cbi_varint_put(at, (uint32_t)row_bytes);
    at = cbi_varint_put(at, (uint32_t)key_bytes);
    if (CBI_UNLIKELY(marked))
        at[0] = JOIN_PACK_RAW;
    if (CBI_LIKELY(in_hand))
        cbi_copy_short(at + marked, key, key_bytes - marked);
    else
        (void)cbi_keys_encode(s->keys, &w->rows, i, at + marked, key_bytes - marked);
    uint64_t hash = /* those that match nothing go anywhere */
        apart ? join_hash(j, &place, sizeof place) : join_hash(j, at, key_bytes);
    batch->dest[batch->count] = cbi_job_part(hash, batch->parts);
    at += key_bytes;
    if (s->numbered)
        at = cbi_varint_put(at, number);
    if (left && j->late)
        at = cbi_varint_put(at, away_bytes);
    if (packs && text > 0)
        *at++ = JOIN_PACK_RAW;
    return cbi_batch_end(batch, away ? at : join_put_payload(j, s, &w->rows, i, at), err);
}

/* Rows of the batch that was scanned. `range`: of the row before. */
static cb_status put_rows(cb_join *j, cbi_job_worker *w, join_side *s, uint32_t *range,
                          cb_error *err) {
    bool noting = j->late && s == &j->sides[JOIN_LEFT];
    for (size_t i = 0; i < w->rows.count; i++) {
        uint64_t place = w->chunk.file_offset + w->rows.rows[i].offset;
        if (noting && join_left_range(j, place) != *range) {
            *range = join_left_range(j, place);
            join_late_note(j, *range, place);
        }
        CB_TRY(put_row(j, w, s, i, place, err));
    }
    return cbi_job_stopped(w->job) ? cbi_fail(err, CB_ECANCELED, "cancelled") : CB_OK;
}

static cb_status read_chunk(cb_join *j, cbi_job_worker *w, join_side *s, cb_error *err) {
    size_t at = 0;
    uint64_t rows = 0;
    uint32_t range = UINT32_MAX;
    for (;;) {
        CB_TRY(cbi_job_next_rows(w, &at, err));
        if (w->rows.count == 0)
            break;
        rows += w->rows.count;
        CB_TRY(put_rows(j, w, s, &range, err));
    }
    CB_TRY(cbi_batch_flush(&w->batch, err));
    atomic_fetch_add_explicit(&j->job.rows_in, rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->rows, rows, memory_order_relaxed);
    unsigned long long seen = atomic_load(&s->extent), end = w->chunk.file_offset + w->chunk.bytes;
    while (seen < end && !atomic_compare_exchange_weak(&s->extent, &seen, end))
        continue;
    return cbi_partitions_relieve(w->batch.to, err);
}

static void read_in(void *ctx) {
    cbi_job_worker *w = ctx;
    cb_join *j = w->own;
    join_side *s = &j->sides[j->reading];
    cbi_partitions *to = j->reading == JOIN_LEFT ? j->job.parts : j->job.partner;
    cb_error err;
    cbi_job_read_layout(w, s->input, s->columns, s->field_count, to, j->job.sizes.parts);
    w->batch.counted = !s->numbered;
    while (!cbi_job_stopped(w->job)) {
        cb_status status = cbi_job_next_chunk(w, &err);
        if (status == CB_OK && w->chunk.bytes == 0)
            break;
        if (status == CB_OK)
            status = read_chunk(j, w, s, &err);
        if (status != CB_OK) {
            if (!cbi_job_stopped(w->job))
                cbi_job_fail(w->job, status, &err);
            break;
        }
    }
    cbi_job_end_input(w);
}

cb_status join_read_side(cb_join *j, unsigned side, cb_error *err) {
    cbi_job *job = &j->job;
    j->reading = side;
    cbi_mutex_lock(&job->mutex);
    job->input = j->sides[side].input;
    cbi_mutex_unlock(&job->mutex);
    for (unsigned i = 0; i < job->sizes.threads; i++)
        job->workers[i].own = j;
    CB_TRY(cbi_job_in_workers(job, job->sizes.threads, read_in, err));
    return cbi_input_finish(j->sides[side].input, err);
}
