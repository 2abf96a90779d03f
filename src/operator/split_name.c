/* SPDX-License-Identifier: Apache-2.0 */
#include <limits.h>
#include <stdio.h>

#include "format/csv.h"
#include "operator/split.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * From values to names. A name must say what is in the file, be the same in every run, lead nowhere
 * else, and be another one for another value. So what a path cannot hold or a shell trips over is
 * written as %XX, as is % itself: different values stay different. What is not a value (nothing at
 * all, a value that was cut) begins with % and something that is no hexadecimal digit.
 */

typedef struct name_text {
    char *at, *end;
    bool full;
} name_text;

static void put_char(name_text *t, char c) {
    if (t->at < t->end)
        *t->at++ = c;
    else
        t->full = true;
}

static void put_text(name_text *t, const char *text, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        put_char(t, text[i]);
}

static bool is_plain(uint8_t c) {
    return c > 0x20 && c != 0x7f && c != '/' && c != '%';
}

/* `key` is hashed where the value is too long to be written whole. */
static void put_value(name_text *t, const uint8_t *value, size_t bytes, bool whole,
                      const cbi_stored *key) {
    static const char hex[] = "0123456789ABCDEF";
    if (bytes == 0) {
        put_text(t, "%empty", 6);
        return;
    }
    const char *limit = t->at + SPLIT_VALUE_MAX;
    for (size_t i = 0; i < bytes; i++) {
        if (t->at + 3 > limit || (!whole && i + 1 == bytes)) {
            char rest[40];
            XXH128_hash_t h =
                whole ? XXH3_128bits(value, bytes) : XXH3_128bits(key->key, key->key_bytes);
            int n = snprintf(rest, sizeof rest, "%%~%016llx%016llx", (unsigned long long)h.high64,
                             (unsigned long long)h.low64);
            put_text(t, rest, (size_t)n);
            return;
        }
        if (is_plain(value[i]) && (value[i] != '.' || i > 0)) {
            put_char(t, (char)value[i]);
            continue;
        }
        put_char(t, '%');
        put_char(t, hex[value[i] >> 4]);
        put_char(t, hex[value[i] & 15]);
    }
}

/* The fields of a row that has been scanned once already. */
static void find_fields(const cbi_split *s, const cbi_stored *row, cbi_span *fields) {
    if (s->column_count == 0)
        return;
    cbi_dialect dialect = {.separator = s->format.separator,
                           .terminator = s->format.terminator,
                           .quoting = s->format.kind == CB_FORMAT_CSV,
                           .strip_cr = s->format.terminator == '\n'};
    cbi_csv_row found;
    cbi_csv_read_row(&dialect, row->row, 0, row->row_bytes, s->columns, s->column_count, fields,
                     &found);
}

static void put_key(const cbi_split *s, const cbi_rows *rows, size_t part, const cbi_stored *row,
                    name_text *t) {
    uint8_t value[1024];
    size_t bytes = cbi_keys_text(s->keys, part, rows, 0, value, sizeof value);
    put_value(t, value, cbi_min(bytes, sizeof value), bytes <= sizeof value, row);
}

static void put_keys(const cbi_split *s, const cbi_rows *rows, int key, const cbi_stored *row,
                     name_text *t) {
    if (key >= 0) {
        put_key(s, rows, (size_t)key, row, t);
        return;
    }
    for (size_t i = 0; i < s->key_parts; i++) {
        if (i > 0)
            put_char(t, '/');
        put_key(s, rows, i, row, t);
    }
}

cb_status cbi_split_name(const cbi_split *s, const cbi_stored *row, char *path, size_t cap,
                         cb_error *err) {
    name_text t = {.at = path, .end = path + cap - 1};
    cbi_span fields[SPLIT_KEYS_MAX];
    cbi_span whole = {.offset = 0, .bytes = row->row_bytes};
    cbi_rows rows = {.base = row->row,
                     .count = 1,
                     .capacity = 1,
                     .rows = &whole,
                     .fields = fields,
                     .field_count = s->column_count};
    char number[16] = "";
    if (s->by == CB_PARTITION_VALUE)
        find_fields(s, row, fields);
    else
        (void)snprintf(number, sizeof number, "%0*u", (int)s->digits,
                       (unsigned)__builtin_bswap32(cbi_load_u32(row->key)));
    for (size_t i = 0; i < s->piece_count; i++) {
        const split_piece *p = &s->pieces[i];
        if (p->key == SPLIT_TEXT)
            put_text(&t, p->text, p->bytes);
        else if (s->by == CB_PARTITION_VALUE)
            put_keys(s, &rows, p->key, row, &t);
        else
            put_text(&t, number, strlen(number));
    }
    *t.at = 0;
    return t.full ? cbi_fail(err, CB_EINVAL, "a file's name would be too long: %.80s...", path)
                  : CB_OK;
}
