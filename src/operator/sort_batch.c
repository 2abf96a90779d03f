/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/sort_private.h"

/*
 * What every worker does whatever the method: its scratch, its chunks, rows and their keys.
 *
 * A worker's scratch is used twice. While rows come in it holds the chunk and what was found in it;
 * while results go out it holds entries and output buffers.
 *
 *     in   | chunk | rows | fields | keys | range_of | which | counts | key bytes ...|
 *     out  | output buffers | entries, pieces ...                                     |
 */

static uint8_t *carve(uint8_t **at, size_t bytes) {
    uint8_t *piece = *at;
    *at += cbi_round_up(bytes, 64);
    return piece;
}

void cbi_worker_layout(sort_worker *w) {
    const sort_sizes *z = &w->sort->sizes;
    uint8_t *at = w->scratch;
    size_t rows = z->batch_rows;
    w->chunk = (cbi_chunk){.buf = carve(&at, z->chunk), .capacity = z->chunk};
    w->chunk_home = w->chunk.buf;
    const uint32_t *columns; /* those of the sort, which every worker shares */
    size_t fields = cbi_keys_columns(w->sort->keys, &columns);
    w->rows = (cbi_rows){.capacity = rows, .field_count = fields};
    w->rows.rows = (cbi_span *)(void *)carve(&at, rows * sizeof(cbi_span));
    w->rows.fields = (cbi_span *)(void *)carve(&at, rows * fields * sizeof(cbi_span));
    w->keys = (cbi_span *)(void *)carve(
        &at, w->sort->layout.shape == CBI_KEY_ENCODED ? rows * sizeof(cbi_span) : 0);
    w->range_of = (uint32_t *)(void *)carve(&at, rows * sizeof(uint32_t));
    w->which = (uint32_t *)(void *)carve(&at, rows * sizeof(uint32_t));
    w->counts = (uint32_t *)(void *)carve(&at, (z->ranges + 2) * sizeof(uint32_t));
    w->key_bytes = at;
    w->keys_base = w->key_bytes;
    w->key_capacity = z->batch_keys;
    w->big_key = NULL;
    cb_assert((size_t)(at + z->batch_keys - w->scratch) <= z->worker);
    w->big = NULL;
    w->big_units = 0;

    at = w->scratch + z->writer_buffers * z->writer_buffer;
    w->entries = (cbi_entry *)(void *)at;
}

void cbi_sort_fail(cb_sort *s, cb_status status, const cb_error *err) {
    cbi_mutex_lock(&s->mutex);
    if (s->failed == CB_OK) {
        s->failed = status;
        if (err != NULL)
            s->failure = *err;
        s->failure.status = status;
    }
    atomic_store(&s->stop, true);
    cbi_cond_broadcast(&s->changed);
    cbi_input *input = s->input;
    cbi_mutex_unlock(&s->mutex);
    if (input != NULL)
        cbi_input_cancel(input);
}

bool cbi_sort_stopped(cb_sort *s) {
    return atomic_load_explicit(&s->stop, memory_order_relaxed);
}

void cbi_sort_phase(cb_sort *s, cb_phase phase) {
    if (s->phase_ns[phase] == 0)
        s->phase_ns[phase] = cbi_sys_clock_ns();
    atomic_store_explicit(&s->phase, (int)phase,
                          memory_order_release); /* cb_sort_progress looks at what it needs */
}

size_t cbi_row_overhead(const cb_sort *s) {
    return s->format.kind == CB_FORMAT_FIXED ? 0 : 1;
}

cb_status cbi_sort_in_workers(cb_sort *s, unsigned count, cbi_thread_fn fn, cb_error *err) {
    for (unsigned i = 1; i < count; i++) {
        cb_error local;
        cb_status status =
            cbi_thread_start(&s->workers[i].thread, fn, &s->workers[i], "carbide-work", &local);
        if (status != CB_OK) {
            cbi_sort_fail(s, status, &local);
            break;
        }
    }
    fn(&s->workers[0]);
    for (unsigned i = 1; i < count; i++)
        cbi_thread_join(&s->workers[i].thread);
    cbi_mutex_lock(&s->mutex); /* somebody may be cancelling just now */
    cb_status failed = s->failed;
    if (failed != CB_OK && err != NULL)
        *err = s->failure;
    cbi_mutex_unlock(&s->mutex);
    return failed;
}

/* One worker at a time holds memory for large rows: two could each wait for what the other has. */
static bool take_token(sort_worker *w) {
    cb_sort *s = w->sort;
    if (w->big_token ||
        s->o.action != CB_SORT_SORT) /* one thread reads sorted inputs, all of them */
        return true;
    cbi_mutex_lock(&s->mutex);
    while (s->big_taken && !cbi_sort_stopped(s))
        cbi_cond_wait(&s->changed, &s->mutex);
    if (!cbi_sort_stopped(s))
        s->big_taken = w->big_token = true;
    cbi_mutex_unlock(&s->mutex);
    return w->big_token;
}

static void give_token(sort_worker *w) {
    cb_sort *s = w->sort;
    if (!w->big_token || w->big != NULL || w->big_key != NULL)
        return;
    cbi_mutex_lock(&s->mutex);
    s->big_taken = w->big_token = false;
    cbi_cond_broadcast(&s->changed);
    cbi_mutex_unlock(&s->mutex);
}

static void give_big(sort_worker *w) {
    if (w->big != NULL) {
        cb_segment_pool_give(w->sort->ground.pool, w->big, w->big_units);
        w->big = NULL;
        w->chunk.buf = w->chunk_home;
        w->chunk.capacity = w->sort->sizes.chunk;
    }
    give_token(w);
}

static void give_big_key(sort_worker *w) {
    if (w->big_key != NULL)
        cb_segment_pool_give(w->sort->ground.pool, w->big_key, w->big_key_units);
    w->big_key = NULL;
    w->keys_base = w->key_bytes;
    give_token(w);
}

/* Contiguous segments for a row, or the key of one, that the usual buffers cannot hold. */
static cb_status take_segments(sort_worker *w, const char *what, uint64_t bytes, void **base,
                               size_t *units, cb_error *err) {
    cb_sort *s = w->sort;
    if (!take_token(w))
        return cbi_fail(err, CB_ECANCELED, "cancelled");
    *units = (size_t)((bytes + s->sizes.segment - 1) / s->sizes.segment);
    *base = NULL;
    cb_status status = CB_OK;
    bool fits = (double)*units * cbi_sort_row_factor(s) <= (double)s->sizes.segments;
    if (fits && s->parts != NULL)
        status = cbi_partitions_take(s->parts, *units, base, err);
    else if (fits)
        *base = cb_segment_pool_take(s->ground.pool, *units);
    if (status != CB_OK && status != CB_EBUDGET)
        return status;
    if (*base != NULL)
        return CB_OK;
    uint64_t least = cbi_sort_least_budget(s, bytes);
    return cbi_fail_bytes(err, CB_EBUDGET, bytes, least,
                          "%s: %s has %llu bytes or more, too much for a budget of %llu bytes; "
                          "--memory %lluM will do",
                          cbi_input_name(w->input, w->chunk.file), what, (unsigned long long)bytes,
                          (unsigned long long)s->sizes.budget,
                          (unsigned long long)(least / CBI_MIB));
}

static cb_status take_big(sort_worker *w, uint64_t bytes, cb_error *err) {
    cb_sort *s = w->sort;
    void *base;
    size_t units;
    CB_TRY(take_segments(w, "one row", bytes, &base, &units, err));
    if (cbi_chunk_pending(&w->chunk) > 0)
        memcpy(base, w->chunk.buf, cbi_min(w->chunk.capacity, units * s->sizes.segment));
    if (w->big != NULL)
        cb_segment_pool_give(s->ground.pool, w->big, w->big_units);
    w->big = base;
    w->big_units = units;
    w->chunk.buf = base;
    w->chunk.capacity = units * s->sizes.segment;
    return CB_OK;
}

cb_status cbi_worker_next_chunk(sort_worker *w, cb_error *err) {
    /* Both, or the token stays here: who reads a large row of a stream has the turn while he waits
     * for the token, and we would wait for the turn. */
    give_big_key(w);
    give_big(w);
    for (;;) {
        cb_error local = {.bytes_asked = 0};
        cb_status status = cbi_input_next(w->input, &w->chunk, &local);
        if (status == CB_OK)
            break;
        if (status != CB_EBUDGET ||
            local.bytes_had != w->chunk.capacity) { /* not the buffer: a decoder's window */
            if (err != NULL)
                *err = local;
            return status;
        }
        CB_TRY(take_big(w, local.bytes_asked, err));
    }
    return CB_OK;
}

void cbi_worker_end_input(sort_worker *w) {
    give_big(w);
    give_big_key(w);
}

/* Encoded keys of the batch; answers in *encoded how many have one, fewer when the bytes for them
 * ran out. */
static cb_status encode_keys(sort_worker *w, size_t *encoded, cb_error *err) {
    size_t used = 0;
    give_big_key(w);
    for (size_t i = 0; i < w->rows.count; i++) {
        size_t room = w->key_capacity - used;
        size_t bytes = cbi_sort_key(w->sort, &w->rows, i, w->key_bytes + used, room);
        if (bytes > room && i > 0) {
            *encoded = i;
            return CB_OK;
        }
        if (bytes > room) { /* alone, in a place of its own */
            void *base;
            if (bytes > CBI_STORED_MAX - w->rows.rows[0].bytes)
                return cbi_fail(
                    err, CB_EUNSUPPORTED,
                    "%s: a row of %u bytes has a key of %zu; together they may have %llu",
                    cbi_input_name(w->input, w->chunk.file), w->rows.rows[0].bytes, bytes,
                    (unsigned long long)CBI_STORED_MAX);
            CB_TRY(take_segments(w, "the key of one row", bytes, &base, &w->big_key_units, err));
            w->keys_base = w->big_key = base;
            bytes = cbi_sort_key(w->sort, &w->rows, 0, w->big_key, bytes);
            w->keys[0] = (cbi_span){.offset = 0, .bytes = (uint32_t)bytes};
            *encoded = 1;
            return CB_OK;
        }
        w->keys[i] = (cbi_span){.offset = (uint32_t)used, .bytes = (uint32_t)bytes};
        used += bytes;
    }
    *encoded = w->rows.count;
    return CB_OK;
}

cb_status cbi_worker_next_rows(sort_worker *w, size_t *at, cb_error *err) {
    w->rows.count = 0;
    while (w->rows.count == 0 &&
           *at < w->chunk.bytes) /* rows that are left out leave empty batches */
        CB_TRY(cbi_input_scan(w->input, &w->chunk, at, w->sort->columns, &w->rows, err));
    if (w->sort->layout.shape != CBI_KEY_ENCODED || w->rows.count == 0)
        return CB_OK;
    size_t encoded = 0;
    CB_TRY(encode_keys(w, &encoded, err));
    if (encoded < w->rows.count) { /* the rest is scanned again next time */
        *at = w->rows.rows[encoded].offset;
        w->rows.count = encoded;
    }
    return CB_OK;
}

cbi_stored cbi_worker_row(const sort_worker *w, size_t i) {
    cbi_stored row = {.row = w->rows.base + w->rows.rows[i].offset,
                      .row_bytes = w->rows.rows[i].bytes};
    if (w->sort->layout.shape == CBI_KEY_ENCODED) {
        row.key = w->keys_base + w->keys[i].offset;
        row.key_bytes = w->keys[i].bytes;
    } else {
        cbi_slice(&w->sort->layout, &row);
    }
    return row;
}
