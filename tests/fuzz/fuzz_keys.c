/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any key texts over any bytes: creating either says why not or works; keys have the size they are
 * told to have, never write past their room and are the same each time.
 *
 * Input: one byte of format and switches, one of the separator, key texts separated by LF up to an
 * empty line, then rows of up to 9 columns: a byte of length before each column.
 */

#include <stdlib.h>
#include <string.h>

#include "carbide/sort.h"
#include "record/key.h"

enum { KEYS_MAX = 6, COLUMNS = 9, ROWS_MAX = 3, TEXT_MAX = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct scene {
    char text[TEXT_MAX];
    const char *keys[KEYS_MAX];
    size_t key_count;
    uint8_t *chunk; /* exactly as large as its rows, for the sanitizer */
    cbi_span rows[ROWS_MAX], columns[ROWS_MAX][COLUMNS];
    size_t row_count;
} scene;

static void read_keys(scene *s, const uint8_t **data, size_t *size) {
    size_t n = 0;
    const char *start = s->text;
    while (*size && n < TEXT_MAX - 1) {
        uint8_t c = *(*data)++;
        (*size)--;
        if (c != '\n' && c != 0) {
            s->text[n++] = (char)c;
            continue;
        }
        if (s->text + n == start)
            return;
        s->text[n++] = 0;
        if (s->key_count < KEYS_MAX)
            s->keys[s->key_count++] = start;
        start = s->text + n;
    }
}

static bool read_rows(scene *s, const uint8_t *data, size_t size, uint8_t flags) {
    s->chunk = malloc(size ? size : 1);
    if (!s->chunk)
        return false;
    size_t at = 0, used = 0;
    for (size_t r = 0; r < ROWS_MAX; r++) {
        s->rows[r].offset = (uint32_t)used;
        for (size_t c = 0; c < COLUMNS; c++) {
            size_t n = at < size ? data[at++] : 0;
            n = n > size - at ? size - at : n;
            memcpy(s->chunk + used, data + at, n);
            s->columns[r][c] =
                (cbi_span){(uint32_t)used, (uint32_t)n | (flags & 0x80 ? CBI_SPAN_ESCAPED : 0)};
            at += n;
            used += n;
        }
        s->rows[r].bytes = (uint32_t)used - s->rows[r].offset;
    }
    s->row_count = ROWS_MAX;
    uint8_t *exact = realloc(s->chunk, used ? used : 1);
    s->chunk = exact ? exact : s->chunk;
    return true;
}

static size_t encode_twice(const cbi_keys *keys, const cbi_rows *rows, size_t i, uint8_t **key) {
    size_t n = cbi_keys_encode(keys, rows, i, NULL, 0), room = n + 20;
    *key = malloc(room);
    if (!*key)
        abort();
    memset(*key, 0xa5, room);
    if (cbi_keys_encode(keys, rows, i, *key, room) != n)
        abort();
    size_t cap = n / 2;
    uint8_t *part = malloc(cap ? cap : 1);
    if (!part || cbi_keys_encode(keys, rows, i, part, cap) != n || memcmp(part, *key, cap) != 0)
        abort();
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact || cbi_keys_encode(keys, rows, i, exact, n) != n || memcmp(exact, *key, n) != 0)
        abort();
    free(part);
    free(exact);
    return n;
}

static int compare(const uint8_t *a, size_t an, const uint8_t *b, size_t bn) {
    int order = memcmp(a, b, an < bn ? an : bn);
    return order ? order : (an > bn) - (an < bn);
}

static void use_keys(const cbi_keys *keys, const scene *s) {
    static cbi_span rows[ROWS_MAX], fields[ROWS_MAX * COLUMNS];
    const uint32_t *columns;
    size_t count = cbi_keys_columns(keys, &columns);
    for (size_t i = 0; i < count; i++) {
        if (columns[i] >= COLUMNS)
            return;
    }
    for (size_t r = 0; r < s->row_count; r++) {
        rows[r] = s->rows[r];
        for (size_t i = 0; i < count; i++)
            fields[r * count + i] = s->columns[r][columns[i]];
    }
    cbi_rows view = {.base = s->chunk,
                     .count = s->row_count,
                     .capacity = ROWS_MAX,
                     .rows = rows,
                     .fields = fields,
                     .field_count = count};
    uint8_t *key[ROWS_MAX];
    size_t bytes[ROWS_MAX];
    for (size_t r = 0; r < s->row_count; r++)
        bytes[r] = encode_twice(keys, &view, r, &key[r]);
    for (size_t r = 0; r + 1 < s->row_count; r++) { /* rows of the same bytes have the same key */
        bool same =
            rows[r].bytes == rows[r + 1].bytes && count == 0 &&
            memcmp(s->chunk + rows[r].offset, s->chunk + rows[r + 1].offset, rows[r].bytes) == 0;
        if (same && compare(key[r], bytes[r], key[r + 1], bytes[r + 1]) != 0)
            abort();
    }
    for (size_t r = 0; r < s->row_count; r++)
        free(key[r]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const names[] = {"a", "b", "price", "2", "x:y", "", "city", "time", "z"};
    static const char *const globals[] = {NULL, "",   "n", "r", "bdf", "V",
                                          "g",  "hr", "M", "R", "ff",  "Vi"};
    static const int formats[] = {CB_FORMAT_LINES, CB_FORMAT_CSV, CB_FORMAT_TSV, CB_FORMAT_FIXED};
    if (size < 3)
        return 0;
    uint8_t flags = data[0], separator = data[1], global = data[2];
    scene s = {0};
    data += 3;
    size -= 3;
    read_keys(&s, &data, &size);
    if (!read_rows(&s, data, size, flags))
        return 0;
    int format = formats[flags & 3];
    cbi_keys_options options = {.keys = s.keys,
                                .key_count = s.key_count,
                                .global_order = globals[global % 12],
                                .field_separator = flags & 4 ? separator : -1,
                                .gnu = (flags & 8) && format == CB_FORMAT_LINES,
                                .stable = flags & 16,
                                .unique = flags & 32,
                                .format = format,
                                .record_bytes = 40};
    cbi_keys *keys = NULL;
    cb_error err;
    if (cbi_keys_create(&options, &keys, &err) == CB_OK) {
        if (cbi_keys_bind(keys, names, flags & 64 ? COLUMNS : 0, &err) == CB_OK)
            use_keys(keys, &s);
        cbi_keys_destroy(keys);
    }
    free(s.chunk);
    return 0;
}
