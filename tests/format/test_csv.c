/* SPDX-License-Identifier: Apache-2.0 */

/* The exact rules: rows one by one, and that the four ways to look at the same bytes (a row, a
 * state, an end, a walk) never disagree. */

#include "format/input_kit.h"

static void expect_row(const char *text, size_t columns, cbi_flaw flaw, size_t flaw_at, size_t next,
                       bool blank) {
    const cbi_dialect d = {',', '\n', true, true, columns};
    cbi_csv_row row;
    cbi_csv_read_row(&d, (const uint8_t *)text, 0, strlen(text), NULL, 0, NULL, &row);
    if (row.flaw != flaw || row.next != next || row.blank != blank ||
        (flaw && row.flaw_at != flaw_at))
        fail_msg("'%s': flaw %d at %zu, next %zu, blank %d", text, (int)row.flaw, row.flaw_at,
                 row.next, row.blank);
}

static void test_csv_rules(void **state) {
    (void)state;
    expect_row("a,b\nc", 2, CBI_FLAW_NONE, 0, 4, false);
    expect_row("a,b", 2, CBI_FLAW_NONE, 0, 3, false);
    expect_row("\"a\",\"b\"\r\n", 2, CBI_FLAW_NONE, 0, 9, false);
    expect_row("\"a\",\"b\"\r", 2, CBI_FLAW_NONE, 0, 8, false);
    expect_row("\"a\n\"\"\",b\n", 2, CBI_FLAW_NONE, 0, 9, false);
    expect_row("\n", 2, CBI_FLAW_NONE, 0, 1, true);
    expect_row("\r\n", 2, CBI_FLAW_NONE, 0, 2, true);
    expect_row("\n", 1, CBI_FLAW_NONE, 0, 1, false);
    expect_row("\"\"\n", 2, CBI_FLAW_RAGGED, 2, 3, false);
    expect_row("a,b,c\n", 2, CBI_FLAW_RAGGED, 4, 6, false);
    expect_row("a\n", 2, CBI_FLAW_RAGGED, 1, 2, false);
    expect_row("a\"\nb", 1, CBI_FLAW_STRAY_QUOTE, 1, 3, false);
    expect_row("a\"\nb", 2, CBI_FLAW_STRAY_QUOTE, 1, 3, false);
    expect_row("\"a\"b\nc", 1, CBI_FLAW_AFTER_QUOTE, 3, 5, false);
    expect_row("\"a\"\rb\nc", 1, CBI_FLAW_AFTER_QUOTE, 3, 6, false);
    expect_row("\"a\"\r,c\n", 2, CBI_FLAW_AFTER_QUOTE, 3, 7, false);
    expect_row("x,\"a\nb", 2, CBI_FLAW_UNCLOSED, 2, 6, false);
    expect_row("\"", 1, CBI_FLAW_UNCLOSED, 0, 1, false);
}

static void test_csv_fields_lose_their_quotes(void **state) {
    (void)state;
    const char text[] = "\"a\"\"b\",,c\r\n";
    const cbi_dialect d = {',', '\n', true, true, 3};
    const uint32_t wanted[] = {2, 0, 1, 9};
    cbi_span f[4];
    cbi_csv_row row;
    cbi_csv_read_row(&d, (const uint8_t *)text, 0, strlen(text), wanted, 4, f, &row);
    assert_int_equal(f[0].offset, 8);
    assert_int_equal(f[0].bytes, 1);
    assert_int_equal(f[1].offset, 1);
    assert_int_equal(f[1].bytes, 4 | CBI_SPAN_ESCAPED);
    assert_int_equal(f[2].bytes, 0);
    assert_int_equal(f[3].bytes, 0);
    assert_int_equal(row.end, 10);
    uint8_t out[4];
    assert_int_equal(cbi_csv_unescape((const uint8_t *)text + 1, 4, out), 3);
    assert_memory_equal(out, "a\"b", 3);
}

/* Everything that knows where rows end, on the same random bytes. */
static void test_csv_views_of_the_same_bytes_agree(void **state) {
    (void)state;
    static const char letters[] = "a,,\n\n\r\"\"\"";
    kit_random r = {21};
    for (int round = 0; round < 50000; round++) {
        uint8_t text[60];
        size_t bytes = 1 + kit_below(&r, sizeof text - 1), last_end = 0, expect_last = 0;
        const cbi_dialect d = {',', '\n', kit_below(&r, 5) != 0, true, 1 + kit_below(&r, 3)};
        for (size_t i = 0; i < bytes; i++)
            text[i] = (uint8_t)letters[kit_below(&r, sizeof letters - 1)];
        /* the state in two steps is the state in one */
        size_t cut = kit_below(&r, bytes + 1);
        cbi_csv_state whole = cbi_csv_run(&d, CBI_CSV_START, text, bytes, &last_end);
        cbi_csv_state parts = cbi_csv_run(&d, cbi_csv_run(&d, CBI_CSV_START, text, cut, NULL),
                                          text + cut, bytes - cut, NULL);
        assert_int_equal(whole, parts);
        /* rows one by one: their ends by row, by search, by walk in pieces of one byte */
        cbi_csv_walk w;
        cbi_csv_walk_init(&w, &d, 0, 1);
        for (size_t at = 0; at < bytes;) {
            cbi_csv_row row;
            cbi_csv_read_row(&d, text, at, bytes, NULL, 0, NULL, &row);
            cbi_csv_state s = CBI_CSV_START;
            size_t end = cbi_csv_find_end(&d, &s, text + at, bytes - at);
            bool terminated = end != SIZE_MAX, ended = false;
            assert_int_equal(terminated ? at + end : bytes, row.next);
            for (size_t i = at; i < row.next; i++) {
                assert_false(ended);
                assert_int_equal(cbi_csv_walk_next(&w, text + i, 1, &ended), 1);
            }
            assert_int_equal(ended, terminated);
            if (!ended)
                cbi_csv_walk_finish(&w);
            assert_int_equal(w.flaw, row.flaw);
            if (row.flaw != CBI_FLAW_NONE) {
                uint64_t line = 1, start = 0;
                for (size_t i = 0; i < row.flaw_at; i++)
                    if (text[i] == '\n') {
                        line++;
                        start = i + 1;
                    }
                assert_int_equal(w.flaw_line, line);
                assert_int_equal(w.flaw_column, row.flaw_at - start + 1);
                if (row.flaw == CBI_FLAW_RAGGED)
                    assert_int_equal(w.fields + 1, row.fields);
            }
            if (terminated)
                expect_last = row.next;
            at = row.next;
        }
        assert_int_equal(last_end, expect_last);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv_rules),
        cmocka_unit_test(test_csv_fields_lose_their_quotes),
        cmocka_unit_test(test_csv_views_of_the_same_bytes_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
