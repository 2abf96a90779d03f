/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The fast scanners against the exact reader: at every level, on bytes made to be awkward, the rows
 * and fields found must be those that the exact reader finds one at a time, and a scanner may stop
 * only where the exact reader finds fault, a blank, or a row it is allowed not to like.
 */

#include "format/input_kit.h"

#include "format/simd.h"

enum { ROWS_MAX = 300, FIELDS_MAX = 4 };

static size_t make_bytes(kit_random *r, uint8_t *buf, size_t cap) {
    static const char letters[] = "abc,,,,\n\n\r\"\"xyz0123";
    size_t n = 1 + kit_below(r, cap - 1);
    unsigned mode = (unsigned)kit_below(r, 4);
    for (size_t i = 0; i < n; i++)
        buf[i] = mode == 0 ? (uint8_t)letters[kit_below(r, sizeof letters - 1)]
                           : (uint8_t)('a' + kit_below(r, 20));
    if (mode == 0)
        return n;
    /* well-formed rows of three fields with something odd now and then */
    n = 0;
    while (n + 200 < cap && kit_below(r, 60) != 0) {
        for (int f = 0; f < 3; f++) {
            bool quoted = mode == 2 && kit_below(r, 2);
            size_t bytes = kit_below(r, 30);
            if (f > 0)
                buf[n++] = ',';
            if (quoted)
                buf[n++] = '"';
            for (size_t i = 0; i < bytes; i++) {
                uint8_t c = quoted ? (uint8_t)letters[kit_below(r, sizeof letters - 1)]
                                   : (uint8_t)('a' + kit_below(r, 26));
                if (c == '"')
                    buf[n++] = c;
                buf[n++] = c;
            }
            if (quoted)
                buf[n++] = '"';
        }
        if (kit_below(r, 40) == 0)
            buf[n++] = (uint8_t)letters[kit_below(r, sizeof letters - 1)];
        if (kit_below(r, 2))
            buf[n++] = '\r';
        buf[n++] = '\n';
    }
    return n ? n : 1;
}

typedef struct found {
    size_t count;
    cbi_span rows[ROWS_MAX * 8];
    cbi_span fields[ROWS_MAX * 8 * FIELDS_MAX];
} found;

static void find_exact(const cbi_dialect *d, const uint8_t *base, size_t bytes,
                       const uint32_t *wanted, size_t wanted_count, found *f) {
    f->count = 0;
    for (size_t at = 0; at < bytes;) {
        cbi_csv_row row;
        cbi_csv_read_row(d, base, at, bytes, wanted, wanted_count,
                         f->fields + f->count * wanted_count, &row);
        if (row.flaw == CBI_FLAW_NONE && !row.blank)
            f->rows[f->count++] = (cbi_span){(uint32_t)at, (uint32_t)(row.end - at)};
        at = row.next;
    }
}

static void find_fast(const cbi_scan_ops *ops, const cbi_dialect *d, const uint8_t *base,
                      size_t bytes, const uint32_t *wanted, size_t wanted_count, size_t capacity,
                      found *f, size_t *exact) {
    const cbi_delimited fast = {
        base, bytes, d->separator, d->terminator, d->strip_cr, (uint32_t)d->columns, wanted};
    size_t at = 0;
    f->count = 0;
    while (at < bytes) {
        cbi_rows rows = {.base = base,
                         .rows = f->rows + f->count,
                         .fields = f->fields + f->count * wanted_count,
                         .field_count = wanted_count,
                         .capacity = capacity};
        cbi_scan_stop stop = d->quoting ? ops->csv(&fast, &at, &rows) : ops->tsv(&fast, &at, &rows);
        assert_true(rows.count <= capacity);
        f->count += rows.count;
        if (stop == CBI_SCAN_END)
            assert_int_equal(at, bytes);
        if (stop == CBI_SCAN_FULL)
            assert_int_equal(rows.count, capacity);
        if (stop == CBI_SCAN_EXACT) {
            cbi_csv_row row;
            cbi_csv_read_row(d, base, at, bytes, wanted, wanted_count,
                             f->fields + f->count * wanted_count, &row);
            if (row.flaw == CBI_FLAW_NONE && !row.blank)
                f->rows[f->count++] = (cbi_span){(uint32_t)at, (uint32_t)(row.end - at)};
            at = row.next;
            ++*exact;
        }
    }
}

static void test_simd_delimited_scanners_agree_with_the_exact_reader(void **state) {
    (void)state;
    static found want, got;
    kit_random r = {11};
    size_t exact = 0, rows = 0;
    for (int round = 0; round < 20000; round++) {
        uint8_t large[4096];
        size_t bytes = make_bytes(&r, large, round % 3 ? 300 : sizeof large);
        uint8_t *base = malloc(bytes); /* exact size, so that a sanitizer sees a read beyond it */
        memcpy(base, large, bytes);
        uint32_t wanted[FIELDS_MAX];
        size_t wanted_count = kit_below(&r, FIELDS_MAX + 1);
        cbi_dialect d = {',', '\n', kit_below(&r, 3) != 0, true, 1 + kit_below(&r, 4)};
        if (kit_below(&r, 10) == 0) {
            d.terminator = 'b';
            d.strip_cr = false;
        }
        for (size_t i = 0; i < wanted_count; i++)
            wanted[i] = (uint32_t)kit_below(&r, d.columns + 1);
        find_exact(&d, base, bytes, wanted, wanted_count, &want);
        rows += want.count;
        for (int level = 0; level < CBI_SIMD_LEVELS; level++) {
            const cbi_scan_ops *ops = cbi_scan_ops_get((cbi_simd)level);
            if (!ops)
                continue;
            find_fast(ops, &d, base, bytes, wanted, wanted_count, 1 + kit_below(&r, ROWS_MAX), &got,
                      &exact);
            assert_int_equal(got.count, want.count);
            if (got.count != 0)
                assert_memory_equal(got.rows, want.rows, got.count * sizeof got.rows[0]);
            if (got.count * wanted_count != 0)
                assert_memory_equal(got.fields, want.fields,
                                    got.count * wanted_count * sizeof got.fields[0]);
        }
        free(base);
    }
    assert_true(rows > 10000);
}

/* The fast path must be the usual one: a good file never goes to the exact reader. */
static void test_simd_good_rows_stay_on_the_fast_path(void **state) {
    (void)state;
    kit_text text = {0};
    for (int i = 0; i < 2000; i++)
        kit_add_string(&text, i % 3 ? "1,\"two, \"\"2\"\"\n\",3\r\n" : "a,,\"\"\n");
    static const uint32_t wanted[] = {0, 1, 2};
    for (int level = 0; level < CBI_SIMD_LEVELS; level++) {
        const cbi_scan_ops *ops = cbi_scan_ops_get((cbi_simd)level);
        if (!ops)
            continue;
        const cbi_delimited d = {text.bytes, text.count, ',', '\n', true, 3, wanted};
        cbi_span rows_out[64], fields_out[64 * 3];
        size_t at = 0, count = 0;
        while (at < text.count) {
            cbi_rows rows = {
                .rows = rows_out, .fields = fields_out, .field_count = 3, .capacity = 64};
            assert_int_not_equal(ops->csv(&d, &at, &rows), CBI_SCAN_EXACT);
            count += rows.count;
        }
        assert_int_equal(count, 2000);
    }
    kit_free(&text);
}

static void test_simd_rows_wider_than_a_batch_go_to_the_exact_reader(void **state) {
    (void)state;
    kit_text text = {0};
    for (int i = 0; i < 3000; i++)
        kit_add_string(&text, "x,");
    kit_add_string(&text, "\n1,2\n");
    for (int level = 0; level < CBI_SIMD_LEVELS; level++) {
        const cbi_scan_ops *ops = cbi_scan_ops_get((cbi_simd)level);
        if (!ops)
            continue;
        cbi_span rows_out[4];
        cbi_rows rows = {.rows = rows_out, .capacity = 4};
        size_t at = 0;
        cbi_delimited d = {text.bytes, text.count, ',', '\n', true, 2, NULL};
        assert_int_equal(ops->csv(&d, &at, &rows), CBI_SCAN_EXACT);
        assert_int_equal(at, 0);
        d.columns = 3001;
        assert_int_equal(ops->csv(&d, &at, &rows), CBI_SCAN_EXACT);
    }
    kit_free(&text);
}

static void test_simd_lines_agree_with_a_simple_search(void **state) {
    (void)state;
    kit_random r = {12};
    for (int round = 0; round < 5000; round++) {
        size_t bytes = 1 + kit_below(&r, 3000), often = 1 + kit_below(&r, 200);
        uint8_t *base = malloc(bytes);
        for (size_t i = 0; i < bytes; i++)
            base[i] = kit_below(&r, often) == 0 ? '\n' : (uint8_t)kit_next(&r);
        size_t capacity = 1 + kit_below(&r, 400);
        cbi_span *spans = malloc(capacity * sizeof *spans);
        for (int level = 0; level < CBI_SIMD_LEVELS; level++) {
            const cbi_scan_ops *ops = cbi_scan_ops_get((cbi_simd)level);
            if (!ops)
                continue;
            size_t at = 0, expect = 0;
            while (at < bytes) {
                cbi_rows rows = {.rows = spans, .capacity = capacity};
                (void)ops->lines(base, bytes, '\n', &at, &rows);
                assert_true(rows.count > 0 && rows.count <= capacity);
                for (size_t i = 0; i < rows.count; i++) {
                    size_t end = expect;
                    while (end < bytes && base[end] != '\n')
                        end++;
                    assert_int_equal(spans[i].offset, expect);
                    assert_int_equal(spans[i].bytes, end - expect);
                    expect = end + 1;
                }
                assert_int_equal(at, expect < bytes ? expect : bytes);
            }
            assert_int_equal(ops->count(base, bytes, '\n'),
                             cbi_scan_ops_get(CBI_SIMD_BASELINE)->count(base, bytes, '\n'));
        }
        free(spans);
        free(base);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simd_delimited_scanners_agree_with_the_exact_reader),
        cmocka_unit_test(test_simd_good_rows_stay_on_the_fast_path),
        cmocka_unit_test(test_simd_rows_wider_than_a_batch_go_to_the_exact_reader),
        cmocka_unit_test(test_simd_lines_agree_with_a_simple_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
