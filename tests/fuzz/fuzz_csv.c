/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Any bytes as CSV: every level of the fast scanners, helped by the exact reader, must find the
 * rows that the exact reader finds alone; the walk over pieces must see the same rows and the same
 * flaws; and no state may depend on where the pieces are cut. The first bytes of the input choose
 * the dialect.
 */

#include <stdlib.h>
#include <string.h>

#include "format/csv.h"
#include "format/simd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROWS_MAX = 4096, WANTED = 3 };

typedef struct found {
    size_t count;
    cbi_span rows[ROWS_MAX];
    cbi_span fields[ROWS_MAX * WANTED];
} found;

static const uint32_t wanted[WANTED] = {1, 0, 7};

static void add_exact(const cbi_dialect *d, const uint8_t *base, size_t bytes, size_t *at,
                      found *f) {
    cbi_csv_row row;
    cbi_csv_read_row(d, base, *at, bytes, wanted, WANTED, f->fields + f->count * WANTED, &row);
    cb_assert(row.next > *at && row.next <= bytes && row.end <= row.next);
    cb_assert(row.flaw == CBI_FLAW_NONE || (row.flaw_at >= *at && row.flaw_at <= row.end));
    if (row.flaw == CBI_FLAW_NONE && !row.blank)
        f->rows[f->count++] = (cbi_span){(uint32_t)*at, (uint32_t)(row.end - *at)};
    *at = row.next;
}

static void check_levels(const cbi_dialect *d, const uint8_t *base, size_t bytes, size_t capacity,
                         const found *want) {
    static found got;
    const cbi_delimited fast = {
        base, bytes, d->separator, d->terminator, d->strip_cr, (uint32_t)d->columns, wanted};
    for (int level = 0; level < CBI_SIMD_LEVELS; level++) {
        const cbi_scan_ops *ops = cbi_scan_ops_get((cbi_simd)level);
        if (!ops)
            continue;
        got.count = 0;
        for (size_t at = 0; at < bytes;) {
            cbi_rows rows = {.base = base,
                             .rows = got.rows + got.count,
                             .fields = got.fields + got.count * WANTED,
                             .field_count = WANTED,
                             .capacity = capacity};
            if (rows.capacity > ROWS_MAX - got.count)
                rows.capacity = ROWS_MAX - got.count;
            size_t before = at;
            cbi_scan_stop stop =
                d->quoting ? ops->csv(&fast, &at, &rows) : ops->tsv(&fast, &at, &rows);
            got.count += rows.count;
            cb_assert(at >= before && at <= bytes);
            if (stop == CBI_SCAN_EXACT)
                add_exact(d, base, bytes, &at, &got);
        }
        cb_assert(got.count == want->count);
        cb_assert(memcmp(got.rows, want->rows, got.count * sizeof got.rows[0]) == 0);
        cb_assert(memcmp(got.fields, want->fields, got.count * WANTED * sizeof got.fields[0]) == 0);
    }
}

static void check_walk(const cbi_dialect *d, const uint8_t *base, size_t bytes, size_t piece) {
    cbi_csv_walk w;
    size_t at = 0;
    bool ended = false;
    cbi_csv_walk_init(&w, d, 0, 1);
    while (at < bytes) {
        cbi_csv_row row;
        cbi_csv_read_row(d, base, at, bytes, NULL, 0, NULL, &row);
        for (ended = false; at < row.next;) {
            size_t n = row.next - at < piece ? row.next - at : piece;
            cb_assert(!ended);
            cb_assert(cbi_csv_walk_next(&w, base + at, n, &ended) == n);
            at += n;
        }
        if (!ended)
            cbi_csv_walk_finish(&w);
        cb_assert(w.flaw == row.flaw);
    }
}

static void check_state(const cbi_dialect *d, const uint8_t *base, size_t bytes, size_t cut) {
    size_t whole_end = 0, first_end = 0, second_end = 0;
    cbi_csv_state whole = cbi_csv_run(d, CBI_CSV_START, base, bytes, &whole_end);
    cbi_csv_state state = cbi_csv_run(d, CBI_CSV_START, base, cut, &first_end);
    state = cbi_csv_run(d, state, base + cut, bytes - cut, &second_end);
    cb_assert(state == whole);
    cb_assert(whole_end == (second_end ? cut + second_end : first_end));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static found want;
    if (size < 5 || size > ROWS_MAX)
        return 0;
    const cbi_dialect d = {.separator = data[0] & 1 ? ',' : '\t',
                           .terminator = data[0] & 2 ? '\n' : 0,
                           .quoting = (data[0] & 4) != 0,
                           .strip_cr = (data[0] & 2) != 0,
                           .columns = 1 + data[1] % 5};
    size_t bytes = size - 4;
    uint8_t *base = malloc(bytes);
    if (!base)
        return 0;
    memcpy(base, data + 4, bytes);
    want.count = 0;
    for (size_t at = 0; at < bytes;)
        add_exact(&d, base, bytes, &at, &want);
    check_levels(&d, base, bytes, 1 + data[2], &want);
    check_walk(&d, base, bytes, 1 + data[3] % 16);
    check_state(&d, base, bytes, data[3] * bytes / 256);
    free(base);
    return 0;
}
