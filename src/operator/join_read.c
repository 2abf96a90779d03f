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

static inline void raw_run(const join_side *s, const cbi_rows *rows, size_t i, const join_run *run,
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
    raw_run(s, rows, i, run, &begin, &end);
    if (at != NULL)
        memcpy(at, rows->base + begin, end - begin);
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

/* All but the row number. */
static size_t payload_bytes(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i) {
    size_t bytes = 0, run = 0;
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

static uint8_t *put_payload(const cb_join *j, const join_side *s, const cbi_rows *rows, size_t i,
                            uint8_t *at) {
    size_t run = 0;
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

size_t join_stored_bytes(const cb_join *j, unsigned side, const cbi_rows *rows, size_t i) {
    return payload_bytes(j, &j->sides[side], rows, i) + 3;
}

/* ---- rows in ---- */

enum { KEY_SCRATCH = 8 * 1024 };

static cb_status put_row(cb_join *j, cbi_job_worker *w, const join_side *s, size_t i,
                         uint32_t number, cb_error *err) {
    bool null;
    size_t key_bytes = cbi_keys_encode_null(s->keys, &w->rows, i, w->extra, KEY_SCRATCH, &null);
    bool apart = null && !j->o.match_nulls;
    if (apart && !s->keep_null)
        return CB_OK;
    if (apart)
        key_bytes = 0;
    size_t row_bytes = cbi_varint_bytes(number) + payload_bytes(j, s, &w->rows, i);
    if (key_bytes + row_bytes > CBI_STORED_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "%s: a row and its key have %zu bytes",
                        cbi_input_name(s->input, w->chunk.file), key_bytes + row_bytes);
    size_t bytes = cbi_record_bytes((uint32_t)key_bytes, (uint32_t)row_bytes);
    uint8_t *at;
    CB_TRY(cbi_batch_begin(&w->batch, 0, bytes, &at, err));
    at = cbi_varint_put(at, (uint32_t)row_bytes);
    at = cbi_varint_put(at, (uint32_t)key_bytes);
    if (CBI_LIKELY(key_bytes <= KEY_SCRATCH))
        memcpy(at, w->extra, key_bytes);
    else
        (void)cbi_keys_encode(s->keys, &w->rows, i, at, key_bytes);
    uint64_t place = w->batch.order | number; /* those that match nothing go anywhere */
    uint64_t hash =
        apart ? cbi_job_hash(&j->job, &place, sizeof place) : cbi_job_hash(&j->job, at, key_bytes);
    w->batch.dest[w->batch.count] = cbi_job_part(hash, w->batch.parts);
    at = cbi_varint_put(at + key_bytes, number);
    return cbi_batch_end(&w->batch, put_payload(j, s, &w->rows, i, at), err);
}

static cb_status read_chunk(cb_join *j, cbi_job_worker *w, join_side *s, cb_error *err) {
    size_t at = 0;
    uint64_t number = 0;
    w->batch.order = w->chunk.sequence << 32;
    if (w->chunk.sequence >= (uint64_t)1 << 31)
        return cbi_fail(err, CB_EUNSUPPORTED, "the input has too many chunks");
    for (;;) {
        CB_TRY(cbi_job_next_rows(w, &at, err));
        if (w->rows.count == 0)
            break;
        if (number + w->rows.count > UINT32_MAX)
            return cbi_fail(err, CB_EUNSUPPORTED, "a chunk has more than %u rows", UINT32_MAX);
        for (size_t i = 0; i < w->rows.count; i++)
            CB_TRY(put_row(j, w, s, i, (uint32_t)number++, err));
        if (cbi_job_stopped(w->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    CB_TRY(cbi_batch_flush(&w->batch, err));
    atomic_fetch_add_explicit(&j->job.rows_in, number, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->rows, number, memory_order_relaxed);
    unsigned long long seen = atomic_load(&s->chunks);
    while (seen <= w->chunk.sequence &&
           !atomic_compare_exchange_weak(&s->chunks, &seen, w->chunk.sequence + 1))
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
