/* SPDX-License-Identifier: Apache-2.0 */
#include "record/decimal.h"

#include <stdlib.h>

#include "support/test.h"

static cbi_number_kind parse(const char *text, cbi_decimal *d) {
    uint8_t padded[256] = {0};
    size_t n = strlen(text);
    memcpy(padded + 64, text, n);
    return cbi_decimal_parse(padded, padded + 64, n, d);
}

/* What is read is written as `expected`. */
static void reads_as(const char *text, const char *expected) {
    cbi_decimal d;
    uint8_t out[CBI_DECIMAL_TEXT_MAX + 1];
    assert_int_equal(parse(text, &d), CBI_NUMBER);
    *cbi_decimal_format(out, d.value, d.scale) = 0;
    assert_string_equal((char *)out, expected);
}

static void numbers_are_read_exactly(void **state) {
    (void)state;
    reads_as("0", "0");
    reads_as("-0.00", "0");
    reads_as("007", "7");
    reads_as("1.50", "1.5");
    reads_as("-12.25", "-12.25");
    reads_as("+3", "3");
    reads_as(" 42\r", "42");
    reads_as(".5", "0.5");
    reads_as("5.", "5");
    reads_as("9e-05", "0.00009");
    reads_as("1.5e3", "1500");
    reads_as("1e37", "10000000000000000000000000000000000000");
    reads_as("1234567890123456", "1234567890123456");
    reads_as("12345678.12345678", "12345678.12345678");
    reads_as("99999999999999999999999999999999999999", "99999999999999999999999999999999999999");
    reads_as("0.00000000000000000000000000000000000001",
             "0.00000000000000000000000000000000000001");
    reads_as("100000000000000000000000000000000000000000e-10", "10000000000000000000000000000000");
    reads_as("0e999999999999999999999", "0");
    reads_as("1.00000000000000000000000000000000000000000000000000000", "1");
}

/* The quick way for short numbers beside the one for all. */
static void same_text(int64_t value, unsigned scale) {
    uint8_t want[CBI_DECIMAL_TEXT_MAX + 1], got[64];
    *cbi_decimal_format(want, value, scale) = 0;
    memset(got, 'x', sizeof got);
    uint8_t *end = cbi_decimal_format_short(got, value, scale);
    assert_true(end <= got + 22);
    assert_int_equal(cbi_decimal_short_bytes(value, scale), end - got);
    assert_int_equal(got[31], 'x');
    *end = 0;
    assert_string_equal((char *)got, (char *)want);
}

static void short_numbers_have_the_same_text(void **state) {
    (void)state;
    uint64_t seed = 17;
    for (unsigned scale = 0; scale <= 18; scale++) {
        for (int64_t power = 1;; power *= 10) {
            for (int64_t v = power - 3; v <= power + 3; v++) {
                same_text(v, scale);
                same_text(-v, scale);
            }
            if (power == INT64_C(1000000000000000000))
                break;
        }
        same_text(INT64_MAX, scale);
        same_text(INT64_MIN, scale);
        for (unsigned i = 0; i < 20000; i++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            int64_t v = (int64_t)(seed ^ seed >> 29) >> (seed >> 58);
            same_text(v, scale);
            same_text(v / 1000 * 1000, scale);
        }
    }
}

static void what_is_no_number_or_too_wide_is_told_apart(void **state) {
    (void)state;
    cbi_decimal d;
    assert_int_equal(parse("", &d), CBI_NUMBER_NULL);
    assert_int_equal(parse("  ", &d), CBI_NUMBER_NULL);
    assert_int_equal(parse("x", &d), CBI_NUMBER_BAD);
    assert_int_equal(parse("-", &d), CBI_NUMBER_BAD);
    assert_int_equal(parse("1.2.3", &d), CBI_NUMBER_BAD);
    assert_int_equal(parse("1e", &d), CBI_NUMBER_BAD);
    assert_int_equal(parse("nan", &d), CBI_NUMBER_BAD);
    assert_int_equal(parse("12a", &d), CBI_NUMBER_BAD);
    assert_int_equal(parse("1e38", &d), CBI_NUMBER_WIDE);
    assert_int_equal(parse("1e300", &d), CBI_NUMBER_WIDE);
    assert_int_equal(parse("1e-39", &d), CBI_NUMBER_WIDE);
    assert_int_equal(parse("123456789012345678901234567890123456789", &d), CBI_NUMBER_WIDE);
}

static void packed_numbers_come_back(void **state) {
    (void)state;
    static const char *const texts[] = {"0",
                                        "1",
                                        "-1",
                                        "127",
                                        "128",
                                        "-128",
                                        "-129",
                                        "255",
                                        "32767",
                                        "-32768",
                                        "32768",
                                        "75.35152",
                                        "9223372036854775807",
                                        "-9223372036854775808",
                                        "9223372036854775808",
                                        "0.0000001",
                                        "0.00000000000000000001",
                                        "-99999999999999999999999999999999999999",
                                        "99999999999999999999999999999999999999"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        uint8_t memory[64] = {0};
        cbi_decimal in, out = {.value = 0};
        bool null;
        assert_int_equal(parse(texts[i], &in), CBI_NUMBER);
        uint8_t *end = cbi_packed_put(memory + 16, &in);
        assert_true(end - (memory + 16) <= CBI_PACKED_MAX);
        assert_ptr_equal(cbi_packed_skip(memory + 16), end);
        assert_ptr_equal(cbi_packed_get(memory + 16, &out, &null), end);
        assert_false(null);
        assert_true(in.value == out.value && in.scale == out.scale);
    }
    uint8_t memory[32] = {0};
    cbi_decimal d;
    bool null;
    uint8_t *end = cbi_packed_put_null(memory + 16);
    assert_ptr_equal(cbi_packed_get(memory + 16, &d, &null), end);
    assert_true(null);
}

static void quotient(cbi_i128 value, uint64_t divisor, unsigned scale, const char *expected) {
    uint64_t w[3] = {0};
    uint8_t out[CBI_DECIMAL_TEXT_MAX + 1];
    cbi_wide_add_i128(w, 3, value);
    *cbi_quotient_format(out, w, 3, divisor, scale) = 0;
    assert_string_equal((char *)out, expected);
}

static void quotients_have_17_digits_rounded_half_to_even(void **state) {
    (void)state;
    quotient(0, 3, 0, "0");
    quotient(6, 3, 0, "2");
    quotient(1, 3, 0, "0.33333333333333333");
    quotient(-2, 3, 0, "-0.66666666666666667");
    quotient(1, 8, 0, "0.125");
    quotient(75, 2, 1, "3.75");
    quotient(1, 3, 20, "0.0000000000000000000033333333333333333");
    quotient((cbi_i128)123456789012345678 * 100, 1, 0, "12345678901234568000");
    quotient(999999999999999999, 1, 0, "1000000000000000000");
    quotient((cbi_i128)100000000000000005, 1, 0, "100000000000000000"); /* half: to even */
    quotient((cbi_i128)100000000000000015, 1, 0, "100000000000000020");
}

static void wide_sums_do_not_care_about_order(void **state) {
    (void)state;
    cbi_i128 values[64];
    uint64_t a[3] = {0}, b[3] = {0};
    for (unsigned i = 0; i < 64; i++)
        values[i] = ((cbi_i128)rand() << 96 | (cbi_i128)rand() << 60 | rand()) * (i % 3 ? 1 : -1);
    for (unsigned i = 0; i < 64; i++) {
        cbi_wide_add_i128(a, 3, values[i]);
        cbi_wide_add_i128(b, 3, values[63 - i]);
    }
    assert_memory_equal(a, b, sizeof a);
    cbi_wide_subtract(a, b, 3);
    assert_true(a[0] == 0 && a[1] == 0 && a[2] == 0);
}

static void a_sum_that_left_128_bits_can_come_back(void **state) {
    (void)state;
    cbi_i128 big = ((cbi_i128)1 << 126), v;
    uint64_t w[3] = {0};
    for (unsigned i = 0; i < 4; i++)
        cbi_wide_add_i128(w, 3, big);
    assert_false(cbi_wide_fits_i128(w, 3, &v));
    for (unsigned i = 0; i < 4; i++)
        cbi_wide_add_i128(w, 3, -big);
    cbi_wide_add_i128(w, 3, -7);
    assert_true(cbi_wide_fits_i128(w, 3, &v));
    assert_true(v == -7);
}

static void products_are_exact(void **state) {
    (void)state;
    uint64_t a[3] = {0}, b[2] = {0}, p[5], q[5] = {0};
    cbi_wide_add_i128(a, 3, -((cbi_i128)1 << 100));
    cbi_wide_add_i128(b, 2, (cbi_i128)1 << 90);
    cbi_wide_multiply(a, 3, b, 2, p);
    q[2] = ~UINT64_C(0) << (190 - 128);
    q[3] = q[4] = ~UINT64_C(0);
    assert_memory_equal(p, q, sizeof p);
    assert_true(cbi_wide_shift10(a, 3, 20));
    assert_false(cbi_wide_shift10(a, 3, 38));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_read_exactly),
        cmocka_unit_test(short_numbers_have_the_same_text),
        cmocka_unit_test(what_is_no_number_or_too_wide_is_told_apart),
        cmocka_unit_test(packed_numbers_come_back),
        cmocka_unit_test(quotients_have_17_digits_rounded_half_to_even),
        cmocka_unit_test(wide_sums_do_not_care_about_order),
        cmocka_unit_test(a_sum_that_left_128_bits_can_come_back),
        cmocka_unit_test(products_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
