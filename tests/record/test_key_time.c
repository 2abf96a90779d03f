/* SPDX-License-Identifier: Apache-2.0 */
#include "keys.h"

#include <time.h>

static void test_time_orders_moments(void **state) {
    (void)state;
    TEST_LADDER("time", "0000-01-01", "0001-01-01", "1582-10-15", "1969-12-31T23:59:59.5Z", "=-0.5",
                "=@-0.50", "1969-12-31T23:59:59.75Z", "=-0.25", "1970-01-01", "=@0", "=0", "=-0",
                "=00:00", "=19700101", "=1970", "=1970-01", "=1970/01/01 00:00:00 Z",
                "=1970-01-01T01:00+01:00", "0.000000000000000000000000001",
                "1970-01-01T00:00:00.1Z", "=0.1", "=1970-01-01 00:00:00,100", "1",
                "=1970-01-01T00:00:01", "12:34", "=1970-01-01T12:34:00Z", "12:34:56.7",
                "2000-02-29", "2000-03-01", "2024-02-29T23:59:59.999999999",
                "=20240229T235959.999999999Z", "=2024-03-01T01:29:59.999999999+0130",
                "=2024-02-29 18:59:59.999999999 -05", "2024-02-29T23:59:60", "=2024-02-29T24:00",
                "=2024-03-01", "=1709251200", "=@1709251200.0", "9999-12-31", "4611686018427387");
}

static void test_time_refuses_what_is_none(void **state) {
    (void)state;
    TEST_NULLS("time", "x", "2024-13-01", "2024-00-01", "2023-02-29", "1900-02-29", "2024-01-32",
               "2024-1-1", "24:01", "12:60", "12:34:61", "2024-01-01T", "2024-01-01T25:00",
               "2024-01-01x", "2024-01-01T12:00+24", "2024-01-01T12:00Zx", "99999999",
               "2024-01-01-01", "20240101T", "@", "@x", "--5", "99999999999999999999",
               "2024-01-01T12:00 x");
}

/* Against the C library, for seconds of the last and next thousand years. */
static void test_time_of_random_moments_is_their_second(void **state) {
    (void)state;
    const char *const texts[] = {"1:time"};
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, texts, 1);
    static test_key a, b;
    for (int round = 0; round < 20000; round++) {
        time_t t = (time_t)test_random_below(62000000000u) - 30000000000;
        struct tm tm;
        char date[64], seconds[64];
        gmtime_r(&t, &tm);
        size_t n = strftime(date, sizeof date,
                            test_random_below(2) ? "%Y-%m-%dT%H:%M:%SZ" : "%Y%m%d %H%M%S", &tm);
        int m = snprintf(seconds, sizeof seconds, "@%lld", (long long)t);
        test_encode_field(keys, date, n, 0, &a);
        test_encode_field(keys, seconds, (size_t)m, 0, &b);
        if (test_compare(&a, &b) != 0)
            fail_msg("'%s' is not '%s'", date, seconds);
    }
    cbi_keys_destroy(keys);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_orders_moments),
        cmocka_unit_test(test_time_refuses_what_is_none),
        cmocka_unit_test(test_time_of_random_moments_is_their_second),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
