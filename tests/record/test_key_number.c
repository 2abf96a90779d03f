/* SPDX-License-Identifier: Apache-2.0 */
#include "keys.h"

#include <math.h>

__extension__ typedef __int128 i128;

static void test_num_orders_by_exact_value(void **state) {
    (void)state;
    TEST_LADDER("num", "-1e999999999999999999999", "-1e1000", "-1e126", "-1e125",
                "-123456789012345678901234567890", "-100000000", "-12345678.5", "-12345678", "-2",
                "-1.00000000000000000000000000000000000001", "-1.0", "=-1", "=-01.000", "-.5",
                "-1e-49", "-1e-400", "0", "=-0", "=0e5", "=0.000", "=00000000000000000000",
                "1e-400", "1e-50", "1e-49", "1e-48", "0.00000000000000000001", "0.0000000000000001",
                "0.001", "0.01", "0.05", "0.1", "=.1", "=0.10", "=1e-1", "0.5", "0.99",
                "0.999999999999999999999", "1", "=1.", "=+1", "=01", "=10e-1",
                "1.00000000000000001", "1.0000000000000001", "9", "9.9", "10", "=1e1", "=1.0E+1",
                "11", "99", "99.99", "100", "12345678.87654321", "12345678.876543211", "99999999",
                "100000000", "=1e8", "1234567890123456", "1234567890123456.5", "12345678901234567",
                "99999999999999999999", "1e20", "1e125", "1e126", "1e127", "1e1000",
                "1e999999999999999999");
}

/* m * 10^e in one of its spellings. */
static size_t spell(char *out, size_t cap, int64_t m, int e) {
    char digits[32];
    const char *sign = m < 0 ? "-" : test_random_below(4) ? "" : "+";
    int n = snprintf(digits, sizeof digits, "%lld", (long long)(m < 0 ? -m : m));
    switch (test_random_below(3)) {
        case 0: { /* plain */
            if (e >= 0)
                return (size_t)snprintf(out, cap, "%s%s%.*s%s", sign,
                                        test_random_below(3) ? "" : "00", n, digits,
                                        &"0000000000000"[13 - e]);
            if (n > -e)
                return (size_t)snprintf(out, cap, "%s%.*s.%s", sign, n + e, digits, digits + n + e);
            return (size_t)snprintf(out, cap, "%s%s.%.*s%s", sign, test_random_below(2) ? "0" : "",
                                    -e - n, "0000000000000", digits);
        }
        case 1: return (size_t)snprintf(out, cap, "%s%se%d", sign, digits, e);
        default:
            return (size_t)snprintf(out, cap, "%s%c.%sE%+d", sign, digits[0], digits + 1,
                                    e + n - 1);
    }
}

static void test_num_of_random_spellings_orders_by_value(void **state) {
    (void)state;
    const char *const texts[] = {"1:num"}, *const down[] = {"1:num:desc"};
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, texts, 1),
             *reverse = test_keys(CB_FORMAT_CSV, down, 1);
    static test_key a, b;
    i128 before = 0;
    for (int round = 0; round < 200000; round++) {
        static const int64_t sizes[] = {10, 1000, 100000, 100000000, 1000000000000};
        int64_t size = sizes[test_random_below(5)], m = (int64_t)test_random_below((size_t)size);
        int e = (int)test_random_below(27) - 13;
        if (test_random_below(3) == 0)
            e = 0;
        if (test_random_below(2))
            m = -m;
        i128 value = m;
        for (int i = -13; i < e; i++)
            value *= 10;
        char text[128];
        size_t n = spell(text, sizeof text, m, e);
        const cbi_keys *by = round & 1024 ? reverse : keys;
        if (round % 1024 == 0)
            before = 0;
        test_encode_field(by, text, n, test_random_below(30), &b);
        if (round % 1024) {
            int expected = (value > before) - (value < before);
            if (test_compare(&b, &a) != (by == keys ? expected : -expected))
                fail_msg("'%s' is in the wrong place (should be %d to the one before)", text,
                         expected);
        }
        before = value;
        a = b;
    }
    cbi_keys_destroy(keys);
    cbi_keys_destroy(reverse);
}

/* Digits without end: the order is that of the digit strings. */
static void test_num_of_any_length_is_exact(void **state) {
    (void)state;
    const char *const texts[] = {"1:num"};
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, texts, 1);
    static char x[4096], y[4096];
    static test_key a, b;
    for (int round = 0; round < 3000; round++) {
        size_t n = 1 + test_random_below(2000), point = test_random_below(n + 1),
               change = test_random_below(n);
        for (size_t i = 0; i < n; i++)
            x[i] = (char)('1' + test_random_below(9));
        memcpy(y, x, n);
        y[change] = (char)('0' + test_random_below(10));
        int expected = (x[change] > y[change]) - (x[change] < y[change]);
        memmove(x + point + 1, x + point, n - point);
        memmove(y + point + 1, y + point, n - point);
        x[point] = y[point] = '.';
        test_encode_field(keys, x, n + 1, 0, &a);
        test_encode_field(keys, y, n + 1, 3, &b);
        assert_int_equal(test_compare(&a, &b), expected);
    }
    cbi_keys_destroy(keys);
}

static void test_num_needs_few_bytes(void **state) {
    (void)state;
    const char *const texts[] = {"1:num"};
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, texts, 1);
    static test_key key;
    test_encode_field(keys, "7", 1, 20, &key);
    assert_int_equal(key.size, 2);
    test_encode_field(keys, "-12.50", 6, 20, &key);
    assert_int_equal(key.size, 3);
    test_encode_field(keys, "1000000", 7, 20, &key);
    assert_int_equal(key.size, 2);
    cbi_keys_destroy(keys);
}

static void test_nulls_and_unreadable_values_go_where_they_are_sent(void **state) {
    (void)state;
    static const char *const types[] = {"num", "int", "float", "human", "month", "time"};
    static const char *const good[] = {"5", "5", "nan", "5K", "May", "2020-01-01"};
    static const char *const nothing[] = {"",   "  ",  "x",  "5x",    "--5",   ".",
                                          "e5", "1ee", "NA", "5\"\"", "1.2.3", "-"};
    for (size_t t = 0; t < 6; t++) {
        for (size_t where = 0; where < 6; where++) {
            static const char *const options[] = {"",
                                                  ":desc",
                                                  ":nulls=first",
                                                  ":nulls=first:desc",
                                                  ":nulls=last",
                                                  ":desc:nulls=last"};
            char text[64];
            snprintf(text, sizeof text, "1:%s%s", types[t], options[where]);
            const char *const texts[] = {text};
            cbi_keys *keys = test_keys(CB_FORMAT_CSV, texts, 1);
            static test_key value, null, first_null;
            test_encode_field(keys, good[t], strlen(good[t]), 0, &value);
            test_encode_field(keys, "", 0, 0, &first_null);
            for (size_t i = 0; i < sizeof nothing / sizeof nothing[0]; i++) {
                test_encode_field(keys, nothing[i], strlen(nothing[i]), 20, &null);
                assert_int_equal(test_compare(&null, &first_null), 0);
                if (test_compare(&null, &value) != (strstr(text, "first") ? -1 : 1))
                    fail_msg("%s: '%s'", text, nothing[i]);
            }
            cbi_keys_destroy(keys);
        }
    }
}

static void test_int_takes_whole_numbers_only(void **state) {
    (void)state;
    TEST_LADDER("int", "-99999999999999999999", "-5", "0", "5", "=5.0", "=5.", "=+5", "= 5 ",
                "=5\r", "99999999999999999999999");
    TEST_NULLS("int", "1.5", "1e5", "x", "5.01", "5 5");
}

static void test_float_is_in_total_order(void **state) {
    (void)state;
    TEST_LADDER("float", "-nan", "-inf", "=-1e400", "-1.7976931348623157e308", "-1", "-4.9e-324",
                "-0", "=-1e-400", "0", "=1e-400", "4.9e-324", "2.2250738585072014e-308", "0.1",
                "=0.1000000000000000055511151231257827", "=1e-1", "0.10000000000000002", "1",
                "=1.0000000000000001", "1.0000000000000002", "9007199254740992",
                "=9007199254740993", "9007199254740994", "1e22", "1e23", "1.7976931348623157e308",
                "inf", "=Infinity", "=1e309", "=1e99999999999999999999", "nan", "=NaN");
    TEST_NULLS("float", "x", "0x", "0x10", "infi", "nan(1)", "1e", "1 1", "- 1");
}

static void check_double(const cbi_keys *keys, const char *text) {
    static test_key key;
    double value = strtod(text, NULL);
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = bits >> 63 ? ~bits : bits | UINT64_C(1) << 63;
    test_encode_field(keys, text, strlen(text), test_random_below(30), &key);
    assert_int_equal(key.size, 8);
    for (unsigned i = 0; i < 8; i++) {
        if (key.bytes[i] != (uint8_t)(bits >> (56 - 8 * i)))
            fail_msg("'%.100s' is not rounded as strtod rounds it", text);
    }
}

/* Half way between two doubles, a bit less and a bit more; digits of all numbers. */
static void test_float_rounds_as_strtod_does(void **state) {
    (void)state;
    const char *const texts[] = {"1:float"};
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, texts, 1);
    static char text[3000];
    for (int round = 0; round < 20000; round++) {
        uint64_t bits = test_random() << 7 ^ test_random();
        if (test_random_below(2)) /* a size at which the short ways work */
            bits = (bits & ~(UINT64_C(0x7ff) << 52)) |
                   (uint64_t)(1023 - 40 + test_random_below(100)) << 52;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        snprintf(text, sizeof text, "%.*g", (int)test_random_below(25), value);
        check_double(keys, text);
        snprintf(text, sizeof text, "%.*f", (int)test_random_below(20), fmod(value, 1e15));
        check_double(keys, text);
        if (round % 8)
            continue;
        long double middle = ((long double)value + (long double)nextafter(value, INFINITY)) / 2;
        int n = snprintf(text, sizeof text, "%.1100Lg",
                         middle); /* exact, as %g drops nothing but zeros */
        check_double(keys, text);
        if (!strchr(text, 'e') && strchr(text, '.')) {
            snprintf(text + n, sizeof text - (size_t)n, "0000000001");
            check_double(keys, text);
            text[n] = 0;
            text[n - 1]--; /* the last digit is not 0 */
            check_double(keys, text);
        }
    }
    cbi_keys_destroy(keys);
}

static void test_float_of_a_giant_number_is_right(void **state) {
    (void)state;
    const char *const texts[] = {"1:float"};
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, texts, 1);
    enum { DIGITS = 30000 };
    static char text[DIGITS + 32];
    memset(text, '0', DIGITS);
    memcpy(text, "9007199254740993", 16); /* half way, and a last digit decides */
    snprintf(text + DIGITS, 32, "e-%d", DIGITS - 16);
    check_double(keys, text);
    text[DIGITS - 1] = '1';
    check_double(keys, text);
    cbi_keys_destroy(keys);
}

static void test_human_orders_by_value(void **state) {
    (void)state;
    TEST_LADDER("human", "-1Gi", "-1G", "-5", "0", "=0K", "=-0Qi", "0.5", "5", "=5B", "= 5 b ",
                "512", "999", "1K", "=1000", "=1 kB", "=1k", "1Ki", "=1024", "=1 KiB", "1.5K",
                "2000", "999.99K", "1M", "=1000K", "1023Ki", "1Mi", "1G", "1Gi", "1.5T", "3Ti",
                "2P", "1E", "1Ei", "1Z", "1Y", "1Yi", "1R", "1Q", "1Qi",
                "=1267650600228229401496703205376", "1.0000000000000000000000000001Qi", "9999Qi");
    TEST_NULLS("human", "5m5", "K", "5KK", "5iB", "5Kb ib", "1e5", "5 x");
}

static void test_month_takes_names_and_numbers(void **state) {
    (void)state;
    TEST_LADDER("month", "jan", "=January", "=1", "=01", "FEB", "= feb. ", "3", "Apr", "may", "6",
                "Jul", "8", "=08", "sept", "10", "nov", "December", "=12");
    TEST_NULLS("month", "13", "0", "00", "ja", "j", "-1", "1.", "123");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_num_orders_by_exact_value),
        cmocka_unit_test(test_num_of_random_spellings_orders_by_value),
        cmocka_unit_test(test_num_of_any_length_is_exact),
        cmocka_unit_test(test_num_needs_few_bytes),
        cmocka_unit_test(test_nulls_and_unreadable_values_go_where_they_are_sent),
        cmocka_unit_test(test_int_takes_whole_numbers_only),
        cmocka_unit_test(test_float_is_in_total_order),
        cmocka_unit_test(test_float_rounds_as_strtod_does),
        cmocka_unit_test(test_float_of_a_giant_number_is_right),
        cmocka_unit_test(test_human_orders_by_value),
        cmocka_unit_test(test_month_takes_names_and_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
