/* SPDX-License-Identifier: Apache-2.0 */
#include "keys.h"

enum { COLUMNS = 4, CELL_MAX = 80, ROUNDS = 40000 };

/* A row: its cells as they are and as CSV has them. */
typedef struct row {
    uint8_t cells[COLUMNS][CELL_MAX];
    size_t bytes[COLUMNS];
    uint8_t text[COLUMNS * (2 * CELL_MAX + 3)];
    size_t text_bytes;
    cbi_span span, fields[COLUMNS];
} row;

static void make_cell(row *r, size_t column) {
    static const char *const alphabets[] = {"ab",  "\1\1\1\1", "aB\"", "\377\376a",
                                            "\2a", "~.1a",     "\"\""};
    const char *alphabet = alphabets[test_random_below(7)];
    size_t n = test_random_below(test_random_below(8) ? 5 : 60), letters = strlen(alphabet);
    for (size_t i = 0; i < n; i++)
        r->cells[column][i] =
            test_random_below(12) ? (uint8_t)alphabet[test_random_below(letters)] : 0;
    r->bytes[column] = n;
}

static void write_row(row *r) {
    uint8_t *at = r->text;
    for (size_t c = 0; c < COLUMNS; c++) {
        bool quoted = memchr(r->cells[c], '"', r->bytes[c]) != NULL, doubled = false;
        if (quoted)
            *at++ = '"';
        uint32_t start = (uint32_t)(at - r->text);
        for (size_t i = 0; i < r->bytes[c]; i++) {
            *at++ = r->cells[c][i];
            if (r->cells[c][i] == '"') {
                *at++ = '"';
                doubled = true;
            }
        }
        r->fields[c] = (cbi_span){start, (uint32_t)(at - r->text) - start};
        if (doubled)
            r->fields[c].bytes |= CBI_SPAN_ESCAPED;
        if (quoted)
            *at++ = '"';
        if (c + 1 < COLUMNS)
            *at++ = ',';
    }
    r->text_bytes = (size_t)(at - r->text);
    r->span = (cbi_span){0, (uint32_t)r->text_bytes};
}

static int compare_bytes(const uint8_t *a, size_t an, const uint8_t *b, size_t bn) {
    int order = memcmp(a, b, an < bn ? an : bn);
    return order ? (order > 0) - (order < 0) : (an > bn) - (an < bn);
}

typedef struct rule {
    size_t column;
    bool descending, fold;
    int nulls;       /* 0 none, 1 first, 2 last */
    size_t from, to; /* characters [from, to) */
} rule;

static int compare_rows(const row *a, const row *b, const rule *rules, size_t count) {
    for (size_t i = 0; i < count; i++) {
        uint8_t x[CELL_MAX], y[CELL_MAX];
        size_t c = rules[i].column, from = rules[i].from;
        size_t an = a->bytes[c] < rules[i].to ? a->bytes[c] : rules[i].to;
        size_t bn = b->bytes[c] < rules[i].to ? b->bytes[c] : rules[i].to;
        an = an > from ? an - from : 0;
        bn = bn > from ? bn - from : 0;
        memcpy(x, a->cells[c] + (an ? from : 0), an);
        memcpy(y, b->cells[c] + (bn ? from : 0), bn);
        for (size_t k = 0; rules[i].fold && k < CELL_MAX; k++) {
            if (k < an && x[k] >= 'a' && x[k] <= 'z')
                x[k] -= 32;
            if (k < bn && y[k] >= 'a' && y[k] <= 'z')
                y[k] -= 32;
        }
        if (rules[i].nulls && (an == 0) != (bn == 0))
            return (an == 0) == (rules[i].nulls == 1) ? -1 : 1;
        int order = compare_bytes(x, an, y, bn);
        if (order)
            return rules[i].descending ? -order : order;
    }
    return 0;
}

static void encode_row(const cbi_keys *keys, const row *r, test_key *key) {
    cbi_span wanted[COLUMNS];
    const uint32_t *columns;
    size_t count = cbi_keys_columns(keys, &columns);
    for (size_t i = 0; i < count; i++)
        wanted[i] = r->fields[columns[i]];
    uint8_t *exact = malloc(r->text_bytes ? r->text_bytes : 1);
    assert_non_null(exact);
    memcpy(exact, r->text, r->text_bytes);
    cbi_span span = r->span;
    cbi_rows rows = {.base = exact,
                     .count = 1,
                     .capacity = 1,
                     .rows = &span,
                     .fields = wanted,
                     .field_count = count};
    test_encode(keys, &rows, key);
    free(exact);
}

/* Several text keys of any direction over cells with zeros, ones, quotes: as if compared one after
 * the other. */
static void test_text_keys_follow_each_other_in_order(void **state) {
    (void)state;
    static row a, b;
    static test_key x, y;
    for (int round = 0; round < ROUNDS; round++) {
        rule rules[3];
        char texts[3][64];
        const char *pointers[3];
        size_t count = 1 + test_random_below(3);
        for (size_t i = 0; i < count; i++) {
            rules[i] = (rule){test_random_below(COLUMNS),
                              test_random_below(2),
                              test_random_below(4) == 0,
                              test_random_below(4) ? 0 : (int)test_random_below(3),
                              0,
                              SIZE_MAX};
            snprintf(texts[i], sizeof texts[i], "%zu:%s%s%s", rules[i].column + 1,
                     rules[i].descending ? "desc" : "str", rules[i].fold ? ":fold" : "",
                     rules[i].nulls == 1 ? ":nulls=first"
                     : rules[i].nulls    ? ":nulls=last"
                                         : "");
            pointers[i] = texts[i];
            if (test_random_below(6) == 0) { /* a KEYDEF: part of a column */
                rules[i].nulls = 0;
                rules[i].from = test_random_below(4);
                rules[i].to = 1 + test_random_below(5);
                snprintf(texts[i], sizeof texts[i], "%zu.%zu%s%s,%zu.%zu", rules[i].column + 1,
                         rules[i].from + 1, rules[i].descending ? "r" : "",
                         rules[i].fold ? "f" : "", rules[i].column + 1, rules[i].to);
            }
        }
        cbi_keys *keys = test_keys(CB_FORMAT_CSV, pointers, count);
        for (size_t c = 0; c < COLUMNS; c++) {
            make_cell(&a, c);
            make_cell(&b, c);
            if (test_random_below(2)) {
                memcpy(b.cells[c], a.cells[c], a.bytes[c]);
                b.bytes[c] = a.bytes[c] - (a.bytes[c] && test_random_below(3) == 0);
            }
        }
        write_row(&a);
        write_row(&b);
        encode_row(keys, &a, &x);
        encode_row(keys, &b, &y);
        if (test_compare(&x, &y) != compare_rows(&a, &b, rules, count))
            fail_msg("%zu keys: %s %s %s", count, texts[0], count > 1 ? texts[1] : "",
                     count > 2 ? texts[2] : "");
        cbi_keys_destroy(keys);
    }
}

/* A KEYDEF over columns compares them one after the other. */
static void test_keydef_over_columns_is_one_after_the_other(void **state) {
    (void)state;
    const char *const one[] = {"2,4"}, *const three[] = {"2,2", "3,3", "4,4"};
    cbi_keys *span = test_keys(CB_FORMAT_CSV, one, 1),
             *columns = test_keys(CB_FORMAT_CSV, three, 3);
    static row a;
    static test_key x, y;
    for (int round = 0; round < 2000; round++) {
        for (size_t c = 0; c < COLUMNS; c++)
            make_cell(&a, c);
        write_row(&a);
        encode_row(span, &a, &x);
        encode_row(columns, &a, &y);
        assert_int_equal(test_compare(&x, &y), 0);
    }
    cbi_keys_destroy(span);
    cbi_keys_destroy(columns);
}

static void test_last_text_is_itself(void **state) {
    (void)state;
    const char *const texts[] = {"1"};
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, texts, 1);
    static test_key key;
    test_encode_field(keys, "a\0\1b", 4, 0, &key);
    assert_int_equal(key.size, 4);
    assert_memory_equal(key.bytes, "a\0\1b", 4);
    cbi_keys_destroy(keys);
}

static void test_ver_is_natural(void **state) {
    (void)state;
    TEST_LADDER("ver", "", ".", "..", ".a", "1.0~rc1", "1.0", "=1.00", "1.0-1", "1.2", "1.10",
                "1.10.1", "2", "10", "a1", "a2", "a10", "a10b", "b", "x2.tar.gz", "x10.tar",
                "x10.tar.gz", "x18446744073709551616", "x18446744073709551617");
}

/* 20 MB in one field: the size is told without room, and in one pass. */
static void test_giant_fields_are_measured(void **state) {
    (void)state;
    enum { BYTES = 20 * 1000 * 1000 };
    static const char *const kinds[] = {"1:str:desc", "1:num", "1:float", "1:ver", "1:human",
                                        "1:fold",     "1,1g",  "1,1V",    "1,1h",  "1:time"};
    uint8_t *text = malloc(BYTES);
    assert_non_null(text);
    memset(text, '7', BYTES);
    cbi_span span = {0, BYTES};
    cbi_rows rows = {
        .base = text, .count = 1, .capacity = 1, .rows = &span, .fields = &span, .field_count = 1};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        cbi_keys *keys = test_keys(CB_FORMAT_CSV, &kinds[i], 1);
        uint8_t out[64];
        size_t n = cbi_keys_encode(keys, &rows, 0, out, sizeof out);
        assert_true(n >= 1 && n <= 2u * BYTES + 64);
        if (i == 0)
            assert_int_equal(n, BYTES + 1);
        if (i == 1)
            assert_int_equal(n, BYTES / 2 + 9);
        cbi_keys_destroy(keys);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_keys_follow_each_other_in_order),
        cmocka_unit_test(test_keydef_over_columns_is_one_after_the_other),
        cmocka_unit_test(test_last_text_is_itself),
        cmocka_unit_test(test_ver_is_natural),
        cmocka_unit_test(test_giant_fields_are_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
