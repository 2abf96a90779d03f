/* SPDX-License-Identifier: Apache-2.0 */
#include "record/real.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "support/test.h"

static uint64_t seed = 1;

static uint64_t draw(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

static cbi_number_kind parse(const char *text, cbi_decimal *d) {
    uint8_t padded[1024] = {0};
    size_t n = strlen(text);
    assert_true(n < sizeof padded - 128);
    memcpy(padded + 64, text, n + 1);
    return cbi_real_parse(padded, padded + 64, n, d);
}

static cbi_i128 rank_of_text(const char *text) {
    cbi_decimal d = {.value = 0};
    assert_int_equal(parse(text, &d), CBI_NUMBER);
    assert_int_equal(d.scale, 0);
    return d.value;
}

static cbi_i128 rank(double v) {
    char text[64];
    (void)snprintf(text, sizeof text, "%.17g", v);
    return rank_of_text(text);
}

static uint64_t bits_of(double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static bool same(double a, double b) {
    return bits_of(a) == bits_of(b);
}

static void ranks_are_ordered_as_numbers_are(void **state) {
    (void)state;
    static const char *const rising[] = {"-inf", "-1.7976931348623157e308",
                                         "-2",   "-1.5",
                                         "-1",   "-1e-320",
                                         "0",    "5e-324",
                                         "1e-9", "0.5",
                                         "1e22", "1e308",
                                         "inf",  "nan"};
    for (size_t i = 1; i < sizeof rising / sizeof *rising; i++)
        assert_true(rank_of_text(rising[i - 1]) < rank_of_text(rising[i]));
    assert_true(rank_of_text("-0") == rank_of_text("0"));
    assert_true(rank_of_text("-nan") == rank_of_text("NaN"));
    assert_true(rank_of_text("+Infinity") == rank_of_text("inf"));
    assert_true(rank_of_text("1e-400") == 0);
    assert_true(rank_of_text("1e400") == rank_of_text("inf"));
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = draw();
        double v;
        memcpy(&v, &bits, sizeof v);
        if (isfinite(v) && v != 0)
            assert_true(same(cbi_real_of_rank(rank(v)), v));
    }
}

static void what_is_no_number_is_told_apart(void **state) {
    (void)state;
    cbi_decimal d;
    assert_int_equal(parse("", &d), CBI_NUMBER_NULL);
    assert_int_equal(parse(" \r", &d), CBI_NUMBER_NULL);
    assert_int_equal(parse("many", &d), CBI_NUMBER_BAD);
    assert_int_equal(parse("1,5", &d), CBI_NUMBER_BAD);
    assert_int_equal(parse("1e", &d), CBI_NUMBER_BAD);
}

/* Of doubles: what stays in all orders, and cancels to the last bit. */
static void sums_are_exact_in_any_order_and_in_any_number_of_states(void **state) {
    (void)state;
    enum { N = 400 };
    static double v[N];
    for (int i = 0; i < N / 2; i++) {
        v[i] = ldexp((double)(int64_t)(draw() >> 12), (int)(draw() % 1900) - 1000);
        v[N / 2 + i] = -v[i];
    }
    v[0] = 1e-300;
    v[N / 2] = 0; /* all that is left in the end */
    for (int round = 0; round < 20; round++) {
        uint64_t sums[3][CBI_REAL_SUM] = {{0}};
        for (int i = N - 1; i > 0; i--) {
            int k = (int)(draw() % (uint64_t)(i + 1));
            double t = v[i];
            v[i] = v[k];
            v[k] = t;
        }
        for (int i = 0; i < N; i++)
            cbi_real_add(sums[draw() % 3], rank(v[i]));
        cbi_real_merge(sums[2], sums[0], CBI_REAL_SUM);
        cbi_real_merge(sums[2], sums[1], CBI_REAL_SUM);
        assert_true(same(cbi_real_mean(sums[2], 1), 1e-300));
    }
}

static double sum_of(const double *v, int n, uint64_t by) {
    uint64_t sum[CBI_REAL_SUM] = {0};
    for (int i = 0; i < n; i++)
        cbi_real_add(sum, rank(v[i]));
    return cbi_real_mean(sum, by);
}

static void results_are_rounded_once_half_to_even(void **state) {
    (void)state;
    double one = 1, ulp = DBL_EPSILON;
    assert_true(same(sum_of((double[]){1, ulp / 2}, 2, 1), one));               /* a half: even */
    assert_true(same(sum_of((double[]){1 + ulp, ulp / 2}, 2, 1), 1 + 2 * ulp)); /* likewise */
    assert_true(same(sum_of((double[]){1, ulp / 2, 1e-300}, 3, 1), 1 + ulp));   /* and some more */
    assert_true(same(sum_of((double[]){1, ulp / 2, -1e-300}, 3, 1), one));
    assert_true(same(sum_of((double[]){-1, -ulp / 2, -5e-324}, 3, 1), -1 - ulp));
    assert_true(same(sum_of((double[]){1, 1, 1}, 3, 3), one));
    assert_true(same(sum_of((double[]){1}, 1, 3), 1.0 / 3));
    assert_true(same(sum_of((double[]){-10}, 1, 7), -10.0 / 7));
    assert_true(same(sum_of((double[]){5e-324, 5e-324, 5e-324}, 3, 2), 1e-323)); /* 1.5 of them */
    assert_true(same(sum_of((double[]){5e-324}, 1, 2), 0));
    assert_true(same(sum_of((double[]){-5e-324}, 1, 4), 0)); /* not -0 */
    assert_true(same(sum_of((double[]){DBL_MAX, DBL_MAX}, 2, 2), DBL_MAX));
    assert_true(same(sum_of((double[]){DBL_MAX, DBL_MAX}, 2, 1), (double)INFINITY));
    assert_true(same(sum_of((double[]){-DBL_MAX, -DBL_MAX}, 2, 1), -(double)INFINITY));
    assert_true(same(sum_of((double[]){DBL_MAX, DBL_MAX, -DBL_MAX}, 3, 1), DBL_MAX));
    assert_true(same(sum_of((double[]){DBL_MIN, -5e-324}, 2, 1), DBL_MIN - 5e-324));
}

static void infinities_and_what_is_no_number_spread_to_the_result(void **state) {
    (void)state;
    double up = (double)INFINITY;
    assert_true(same(sum_of((double[]){1, up, -5}, 3, 3), up));
    assert_true(same(sum_of((double[]){-up, 7}, 2, 1), -up));
    assert_true(isnan(sum_of((double[]){-up, 7, up}, 3, 1)));
    uint64_t sum[CBI_REAL_SUM] = {0};
    cbi_real_add(sum, rank_of_text("nan"));
    cbi_real_add(sum, rank(1));
    assert_true(isnan(cbi_real_mean(sum, 2)));
    uint64_t square[CBI_REAL_SQUARE] = {0}, finite[CBI_REAL_SUM] = {0};
    cbi_real_add(finite, rank(1));
    cbi_real_add_product(square, rank(up), rank(1));
    assert_true(isnan(cbi_real_spread(2, square, finite, true, false)));
}

typedef struct pair {
    uint64_t xx[CBI_REAL_SQUARE], yy[CBI_REAL_SQUARE], xy[CBI_REAL_SQUARE];
    uint64_t x[CBI_REAL_SUM], y[CBI_REAL_SUM];
    uint64_t n;
} pair;

static void put(pair *p, double x, double y) {
    cbi_i128 a = rank(x), b = rank(y);
    cbi_real_add(p->x, a);
    cbi_real_add(p->y, b);
    cbi_real_add_product(p->xx, a, a);
    cbi_real_add_product(p->yy, b, b);
    cbi_real_add_product(p->xy, a, b);
    p->n++;
}

/* Around a number so large that squares of doubles would say nothing of what differs. */
static void spreads_do_not_cancel(void **state) {
    (void)state;
    static const double around[] = {0, 1, -1e9, 4503599627370496.0, 1e15};
    for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
        pair p = {.n = 0};
        for (int k = 1; k <= 5; k++) /* deviations -2 to 2: 10 in squares */
            put(&p, around[i] + k, around[i] - 2 * k);
        assert_true(same(cbi_real_spread(p.n, p.xx, p.x, true, false), 2.5));
        assert_true(same(cbi_real_spread(p.n, p.xx, p.x, false, false), 2));
        assert_true(same(cbi_real_spread(p.n, p.xx, p.x, false, true), sqrt(2)));
        assert_true(same(cbi_real_spread(p.n, p.yy, p.y, false, true), sqrt(8)));
        double r;
        assert_true(cbi_real_correlation(p.n, p.xx, p.yy, p.xy, p.x, p.y, &r));
        assert_true(fabs(r + 1) < 1e-15);
    }
    pair tiny = {.n = 0};
    put(&tiny, 1e-300, 1e300);
    put(&tiny, 3e-300, 1e300);
    assert_true(same(cbi_real_spread(tiny.n, tiny.xx, tiny.x, false, false), 0)); /* 1e-600 */
    assert_true(fabs(cbi_real_spread(tiny.n, tiny.xx, tiny.x, false, true) / 1e-300 - 1) < 1e-15);
    double r;
    assert_false(cbi_real_correlation(tiny.n, tiny.xx, tiny.yy, tiny.xy, tiny.x, tiny.y, &r));
}

static void what_lies_between_two_values_is_rounded_once(void **state) {
    (void)state;
    assert_true(same(cbi_real_between(rank(1), rank(2), 1, 2), 1.5));
    assert_true(same(cbi_real_between(rank(0.1), rank(0.1), 37, 100), 0.1));
    assert_true(same(cbi_real_between(rank(-3), rank(3), 1, 2), 0));
    assert_true(same(cbi_real_between(rank(0), rank(1), 1, 3), 1.0 / 3));
    assert_true(same(cbi_real_between(rank(DBL_MAX), rank(DBL_MAX), 99, 1000), DBL_MAX));
    assert_true(isnan(cbi_real_between(rank_of_text("-inf"), rank_of_text("inf"), 1, 2)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_are_ordered_as_numbers_are),
        cmocka_unit_test(what_is_no_number_is_told_apart),
        cmocka_unit_test(sums_are_exact_in_any_order_and_in_any_number_of_states),
        cmocka_unit_test(results_are_rounded_once_half_to_even),
        cmocka_unit_test(infinities_and_what_is_no_number_spread_to_the_result),
        cmocka_unit_test(spreads_do_not_cancel),
        cmocka_unit_test(what_lies_between_two_values_is_rounded_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
