/* SPDX-License-Identifier: Apache-2.0 */
#include "memory_test.h"

#include "memory/pool.h"

static void test_pool_counts_what_is_taken_and_given(void **state) {
    (void)state;
    cbi_pool p = {.size = 100};
    cbi_pool_take(&p, 60);
    assert_int_equal(cbi_pool_free(&p), 40);
    assert_int_equal(cbi_pool_give(&p, 20), 20);
    assert_int_equal(p.used, 40);
    assert_int_equal(p.used_peak, 60);
    cbi_pool_check(&p);
}

static void test_pool_giving_more_than_is_used_is_clamped(void **state) {
    (void)state;
    cbi_pool p = {.size = 100};
    cbi_pool_take(&p, 10);
    assert_int_equal(cbi_pool_give(&p, 25), 10);
    assert_int_equal(p.used, 0);
}

static void test_pool_shrinking_below_used_is_an_error(void **state) {
    (void)state;
    cb_error err = {0};
    cbi_pool p = {.size = 100};
    cbi_pool_take(&p, 60);
    assert_int_equal(cbi_pool_shrink(&p, 41, &err), CB_EINVAL);
    assert_int_equal(p.size, 100);
    assert_int_equal(err.bytes_asked, 41);
    assert_int_equal(err.bytes_had, 40);
    assert_int_equal(cbi_pool_shrink(&p, 40, &err), CB_OK);
    assert_int_equal(p.size, 60);
    assert_int_equal(cbi_pool_free(&p), 0);
}

static void test_pool_promised_bytes_are_neither_free_nor_used(void **state) {
    (void)state;
    cbi_pool p = {.size = 100};
    cbi_pool_take(&p, 30);
    cbi_pool_hold(&p, 50);
    assert_int_equal(cbi_pool_free(&p), 20);
    assert_int_equal(cbi_pool_shrink(&p, 21, NULL), CB_EINVAL);
    cb_pool_stats stats;
    cbi_pool_stats(&p, &stats);
    assert_int_equal(stats.held, 50);
    assert_int_equal(stats.free, 20);
    cbi_pool_unhold(&p, 50);
    assert_int_equal(cbi_pool_free(&p), 70);
}

static void test_pool_gives_everything_back_but_what_is_leaving(void **state) {
    (void)state;
    cbi_pool p = {.size = 100};
    cbi_pool_take(&p, 80);
    p.leaving = 20;
    cbi_pool_give_all(&p);
    assert_int_equal(p.used, 20);
}

static void test_pool_size_moves_to_its_neighbour(void **state) {
    (void)state;
    cbi_pool a = {.size = 100}, b = {.size = 10};
    cbi_pool_move(&a, &b, 100);
    cbi_pool_grow(&b, 5);
    assert_int_equal(a.size, 0);
    assert_int_equal(b.size, 115);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_counts_what_is_taken_and_given),
        cmocka_unit_test(test_pool_giving_more_than_is_used_is_clamped),
        cmocka_unit_test(test_pool_shrinking_below_used_is_an_error),
        cmocka_unit_test(test_pool_promised_bytes_are_neither_free_nor_used),
        cmocka_unit_test(test_pool_gives_everything_back_but_what_is_leaving),
        cmocka_unit_test(test_pool_size_moves_to_its_neighbour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
