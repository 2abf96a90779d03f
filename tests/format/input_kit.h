/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INPUT_KIT_H
#define INPUT_KIT_H

/*
 * What the tests of this room share: text that grows, files in a folder of their own, and reading a
 * whole input with any number of threads into one text that says every row and field in order.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support/test.h"

#include "base/sys.h"
#include "format/csv.h"
#include "format/format.h"

/* ---- chance, the same every time ---- */

typedef struct kit_random {
    uint64_t state;
} kit_random;

static inline uint64_t kit_next(kit_random *r) {
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static inline size_t kit_below(kit_random *r, size_t n) {
    return (size_t)(kit_next(r) % n);
}

/* ---- text ---- */

typedef struct kit_text {
    uint8_t *bytes;
    size_t count, capacity;
} kit_text;

static inline void kit_add(kit_text *t, const void *p, size_t n) {
    if (t->count + n + 1 > t->capacity) {
        t->capacity = (t->count + n + 1) * 2;
        t->bytes = realloc(t->bytes, t->capacity);
        assert_non_null(t->bytes);
    }
    if (n != 0)
        memcpy(t->bytes + t->count, p, n);
    t->count += n;
    t->bytes[t->count] = 0;
}
static inline void kit_add_string(kit_text *t, const char *s) {
    kit_add(t, s, strlen(s));
}
static inline void kit_add_byte(kit_text *t, char c) {
    kit_add(t, &c, 1);
}
static inline void kit_free(kit_text *t) {
    free(t->bytes);
    *t = (kit_text){0};
}

static inline void kit_same(const kit_text *got, const kit_text *want, const char *what) {
    size_t n = got->count < want->count ? got->count : want->count, i = 0;
    while (i < n && got->bytes[i] == want->bytes[i])
        i++;
    if (i == got->count && i == want->count)
        return;
    size_t from = i > 60 ? i - 60 : 0;
    fail_msg("%s: %zu bytes, expected %zu; differ at %zu\n got: ...%.160s\nwant: ...%.160s", what,
             got->count, want->count, i, got->bytes ? (char *)got->bytes + from : "",
             want->bytes ? (char *)want->bytes + from : "");
}

/* ---- files ---- */

/* One of the last eight paths asked for. */
static inline const char *kit_path(const char *name) {
    static char paths[8][TEST_PATH_MAX];
    static unsigned next;
    static const char *folder;
    if (folder == NULL)
        folder = test_folder();
    return test_path(paths[next++ % 8], folder, name);
}
static inline const char *kit_write(const char *name, const void *bytes, size_t count) {
    const char *path = kit_path(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    if (count != 0)
        assert_int_equal(fwrite(bytes, 1, count, f), count);
    assert_int_equal(fclose(f), 0);
    return path;
}
static inline const char *kit_write_string(const char *name, const char *s) {
    return kit_write(name, s, strlen(s));
}

/* A file as compressed blocks of `block` bytes each. */
static inline const char *kit_write_compressed(const char *name, const void *bytes, size_t count,
                                               cbi_compression c, size_t block) {
    cbi_compressor *compressor = NULL;
    kit_text out = {0};
    uint8_t *buf = malloc(cbi_compress_bound(c, block));
    assert_non_null(buf);
    assert_int_equal(cbi_compressor_create(c, &compressor, NULL), CB_OK);
    for (size_t at = 0; at < count; at += block) {
        size_t n = cbi_min(block, count - at), got = 0;
        assert_int_equal(cbi_compress(compressor, (const uint8_t *)bytes + at, n, buf,
                                      cbi_compress_bound(c, n), &got, NULL),
                         CB_OK);
        kit_add(&out, buf, got);
    }
    cbi_compressor_destroy(compressor);
    free(buf);
    const char *path = kit_write(name, out.bytes, out.count);
    kit_free(&out);
    return path;
}

/* ---- reading everything ---- */

typedef struct kit_reading {
    cbi_input *input;
    size_t capacity, rows_capacity, field_count;
    const uint32_t *columns;
    /* under lock */
    cbi_mutex lock;
    struct kit_piece {
        uint64_t sequence;
        kit_text text;
    } *pieces;
    size_t piece_count;
    cb_status status;
    cb_error error;
    uint64_t rows;
} kit_reading;

/* One row as text: the row, then its fields as they are without quotes. */
static inline void kit_add_row(kit_text *t, const cbi_rows *rows, size_t i) {
    kit_add(t, rows->base + rows->rows[i].offset, rows->rows[i].bytes);
    for (size_t f = 0; f < rows->field_count; f++) {
        cbi_span span = rows->fields[i * rows->field_count + f];
        size_t n = CBI_SPAN_BYTES(span);
        uint8_t *copy = malloc(n + 1);
        assert_non_null(copy);
        memcpy(copy, rows->base + span.offset, n);
        if (span.bytes & CBI_SPAN_ESCAPED)
            n = cbi_csv_unescape(copy, n, copy);
        kit_add_byte(t, '\x01');
        kit_add(t, copy, n);
        free(copy);
    }
    kit_add_byte(t, '\x02');
}

static inline cb_status kit_scan(kit_reading *r, cbi_chunk *chunk, kit_text *text, uint64_t *count,
                                 cb_error *err) {
    cbi_rows rows = {.capacity = r->rows_capacity, .field_count = r->field_count};
    rows.rows = calloc(rows.capacity, sizeof *rows.rows);
    rows.fields = calloc(rows.capacity * (rows.field_count + 1), sizeof *rows.fields);
    size_t at = 0;
    cb_status status = CB_OK;
    while (at < chunk->bytes && status == CB_OK) {
        status = cbi_input_scan(r->input, chunk, &at, r->columns, &rows, err);
        if (status == CB_OK && rows.count > 3 &&
            rows.count % 3 == 0) { /* as if the rest did not fit */
            rows.count -= 2;
            at = rows.rows[rows.count].offset;
        }
        for (size_t i = 0; i < rows.count && status == CB_OK; i++)
            kit_add_row(text, &rows, i);
        *count += rows.count;
    }
    free(rows.rows);
    free(rows.fields);
    return status;
}

static inline void kit_worker(void *ctx) {
    kit_reading *r = ctx;
    cbi_chunk chunk = {.buf = malloc(r->capacity), .capacity = r->capacity};
    cb_error err = {0};
    for (;;) {
        cb_status status = cbi_input_next(r->input, &chunk, &err);
        if (status == CB_EBUDGET && err.bytes_asked < 64 * CBI_MIB) {
            assert_true(err.bytes_asked > chunk.capacity);
            uint8_t *larger = malloc((size_t)err.bytes_asked);
            memcpy(larger, chunk.buf, cbi_chunk_pending(&chunk));
            free(chunk.buf);
            chunk.buf = larger;
            chunk.capacity = (size_t)err.bytes_asked;
            continue;
        }
        kit_text text = {0};
        uint64_t count = 0;
        if (status == CB_OK && chunk.bytes == 0)
            break;
        if (status == CB_OK) {
            /* an exact copy, so that a sanitizer sees every read beyond the chunk */
            uint8_t *exact = malloc(chunk.bytes);
            memcpy(exact, chunk.rows, chunk.bytes);
            cbi_chunk copy = chunk;
            copy.rows = exact;
            status = kit_scan(r, &copy, &text, &count, &err);
            free(exact);
        }
        cbi_mutex_lock(&r->lock);
        if (status != CB_OK && r->status == CB_OK) {
            r->status = status;
            r->error = err;
        }
        r->pieces = realloc(r->pieces, (r->piece_count + 1) * sizeof *r->pieces);
        r->pieces[r->piece_count].sequence = chunk.sequence;
        r->pieces[r->piece_count++].text = text;
        r->rows += count;
        cbi_mutex_unlock(&r->lock);
        if (status != CB_OK) {
            cbi_input_cancel(r->input);
            break;
        }
    }
    free(chunk.buf);
}

static inline int kit_by_sequence(const void *a, const void *b) {
    uint64_t x = ((const struct kit_piece *)a)->sequence,
             y = ((const struct kit_piece *)b)->sequence;
    return x < y ? -1 : x > y;
}

/* Everything in order; threads 0: in this one. */
static inline cb_status kit_read(kit_reading *r, unsigned threads, kit_text *out) {
    cbi_thread workers[8];
    cbi_mutex_init(&r->lock, CBI_RANK_INNER);
    r->pieces = NULL;
    r->piece_count = 0;
    r->rows = 0;
    r->status = CB_OK;
    unsigned running = 0; /* one fewer when the system refuses one */
    for (unsigned i = 0; i < threads; i++)
        running += cbi_thread_start(&workers[running], kit_worker, r, "reader", NULL) == CB_OK;
    if (running == 0)
        kit_worker(r);
    for (unsigned i = 0; i < running; i++)
        cbi_thread_join(&workers[i]);
    if (r->piece_count != 0)
        qsort(r->pieces, r->piece_count, sizeof *r->pieces, kit_by_sequence);
    for (size_t i = 0; i < r->piece_count; i++) {
        if (i > 0 && r->status == CB_OK)
            assert_true(r->pieces[i].sequence > r->pieces[i - 1].sequence);
        kit_add(out, r->pieces[i].text.bytes, r->pieces[i].text.count);
        kit_free(&r->pieces[i].text);
    }
    free(r->pieces);
    cbi_mutex_fini(&r->lock);
    return r->status;
}

static inline cbi_input_options kit_options(const char *const *paths, size_t count,
                                            cb_format_kind format) {
    return (cbi_input_options){.paths = paths,
                               .path_count = count,
                               .format = format,
                               .field_separator = -1,
                               .header = CB_HEADER_NO};
}

/* Opens, reads, closes; what went wrong is in *err. */
static inline cb_status kit_read_all(const cbi_input_options *options, size_t capacity,
                                     unsigned threads, const uint32_t *columns, size_t field_count,
                                     kit_text *out, cb_error *err) {
    kit_reading r = {.capacity = capacity,
                     .rows_capacity = 7 + capacity % 190,
                     .columns = columns,
                     .field_count = field_count};
    cb_error local = {0};
    cb_status status = cbi_input_open(options, &r.input, &local);
    if (status == CB_OK) {
        status = kit_read(&r, threads, out);
        if (status == CB_OK)
            status = cbi_input_finish(r.input, &r.error);
        local = r.error;
        cbi_input_close(r.input);
    }
    if (err)
        *err = local;
    return status;
}

#endif
