/* SPDX-License-Identifier: Apache-2.0 */
/* Rows as they are kept: what is put is what is got, sizes are as foretold, comparisons are
 * memcmp's. */
#include "operator_kit.h"

static const uint32_t sizes[] = {0, 1, 127, 128, 129, 16383, 16384, 16385, 2097151, 2097152};
enum { SIZES = sizeof sizes / sizeof *sizes };

static void test_varints_come_back_at_every_edge(void **state) {
    (void)state;
    static const uint32_t more[] = {268435455, 268435456, 0x7fffffff, 0x80000000, 0xffffffff};
    uint8_t bytes[8];
    for (size_t i = 0; i < SIZES + sizeof more / sizeof *more; i++) {
        uint32_t v = i < SIZES ? sizes[i] : more[i - SIZES], back = ~v;
        uint8_t *end = cbi_varint_put(bytes, v);
        assert_int_equal(end - bytes, cbi_varint_bytes(v));
        assert_true(end - bytes <= CBI_VARINT_MAX);
        assert_ptr_equal(cbi_varint_get(bytes, &back), end);
        assert_int_equal(back, v);
    }
}

static void round_trip(const cbi_layout *layout, uint32_t key_bytes, uint32_t row_bytes,
                       const uint8_t *source, uint8_t *place) {
    uint64_t order = 0x0123456789abcdefu;
    uint8_t *end = cbi_stored_put(layout, place, source, key_bytes, source + 7, row_bytes, order);
    assert_int_equal(end - place, cbi_stored_bytes(layout, key_bytes, row_bytes));
    cbi_stored s;
    assert_ptr_equal(cbi_stored_get(layout, place, &s), end);
    assert_int_equal(s.row_bytes, row_bytes);
    assert_memory_equal(s.row, source + 7, row_bytes);
    assert_int_equal(s.order, layout->ordered ? order : 0);
    if (layout->shape == CBI_KEY_ENCODED) {
        assert_int_equal(s.key_bytes, key_bytes);
        assert_memory_equal(s.key, source, key_bytes);
    } else if (layout->shape == CBI_KEY_ROW) {
        assert_int_equal(s.key_bytes, row_bytes);
        assert_ptr_equal(s.key, s.row);
    } else {
        size_t from = cbi_min(layout->slice_offset, row_bytes);
        assert_ptr_equal(s.key, s.row + from);
        assert_int_equal(s.key_bytes, cbi_min(layout->slice_bytes, row_bytes - from));
    }
}

static void test_rows_come_back_in_every_layout(void **state) {
    (void)state;
    size_t most = (size_t)sizes[SIZES - 1];
    uint8_t *source = malloc(most + 64), *place = malloc(2 * most + 64);
    assert_non_null(source);
    assert_non_null(place);
    kit_random r = {1};
    for (size_t i = 0; i < most + 64; i++)
        source[i] = (uint8_t)kit_next(&r);
    for (unsigned ordered = 0; ordered < 2; ordered++)
        for (unsigned shape = 0; shape < 3; shape++)
            for (size_t k = 0; k < SIZES; k++)
                for (size_t n = 0; n < SIZES; n++) {
                    cbi_layout layout = {.shape = (cbi_key_shape)shape,
                                         .slice_offset = 100,
                                         .slice_bytes = 50,
                                         .ordered = ordered != 0};
                    round_trip(&layout, sizes[k], sizes[n], source, place);
                }
    free(source);
    free(place);
}

static int sign(int c) {
    return (c > 0) - (c < 0);
}

/* The definition: byte by byte. */
static int slow_compare(const uint8_t *a, size_t a_bytes, const uint8_t *b, size_t b_bytes) {
    for (size_t i = 0; i < a_bytes && i < b_bytes; i++)
        if (a[i] != b[i])
            return a[i] < b[i] ? -1 : 1;
    return a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
}

static void test_prefixes_never_contradict_the_comparison(void **state) {
    (void)state;
    kit_random r = {2};
    for (unsigned round = 0; round < 200000; round++) {
        uint8_t a[12], b[12];
        size_t a_bytes = kit_below(&r, 13), b_bytes = kit_below(&r, 13);
        for (size_t i = 0; i < 12; i++) { /* few values, so that equal beginnings are common */
            a[i] = (uint8_t)(kit_below(&r, 3) * 0x7f);
            b[i] = (uint8_t)(kit_below(&r, 3) * 0x7f);
        }
        int c = slow_compare(a, a_bytes, b, b_bytes);
        assert_int_equal(sign(cbi_compare_bytes(a, a_bytes, b, b_bytes, 0)), c);
        uint64_t x = cbi_prefix(a, a_bytes, 0), y = cbi_prefix(b, b_bytes, 0);
        if (x != y)
            assert_int_equal(x < y ? -1 : 1, c);
        else
            assert_true(c == 0 || a_bytes < 8 || b_bytes < 8 || (a_bytes >= 8 && b_bytes >= 8));
    }
}

static void test_ties_go_by_row_or_by_order(void **state) {
    (void)state;
    cbi_stored a = kit_stored("k", 1, "aa", 2, 9), b = kit_stored("k", 1, "ab", 2, 3);
    cbi_layout layout = kit_ordered;
    assert_true(cbi_compare_stored(&layout, &a, &b) > 0);
    layout.inverted = true; /* the direction of keys is none of the order's business */
    assert_true(cbi_compare_stored(&layout, &a, &b) > 0);
    layout.tie = CBI_TIE_ROW;
    assert_true(cbi_compare_stored(&layout, &a, &b) < 0);
    layout.tie_inverted = true;
    assert_true(cbi_compare_stored(&layout, &a, &b) > 0);
    assert_int_equal(cbi_compare_stored(&layout, &a, &a), 0);
    b = kit_stored("l", 1, "a", 1, 3);
    assert_true(cbi_compare_stored(&layout, &a, &b) > 0); /* inverted keys */
    assert_false(cbi_same_key(&a, &b));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_varints_come_back_at_every_edge),
        cmocka_unit_test(test_rows_come_back_in_every_layout),
        cmocka_unit_test(test_prefixes_never_contradict_the_comparison),
        cmocka_unit_test(test_ties_go_by_row_or_by_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
