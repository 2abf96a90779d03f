/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the rules of eviction are Spark's. Method: a handful of entries and every rule by itself.
 */
#include "store/lru.h"

#include "support/test.h"

static cbi_lru_entry entry(uint64_t bytes, int64_t data_set, cb_mode mode) {
    return (cbi_lru_entry){.bytes = bytes, .data_set = data_set, .mode = mode};
}

static void test_lru__the_least_recently_used_leave_first(void **state) {
    (void)state;
    cbi_lru lru = {0};
    cbi_lru_entry e[3], *victims = NULL;
    for (int i = 0; i < 3; i++) {
        e[i] = entry(100, CBI_NO_DATA_SET, CB_HEAP);
        cbi_lru_add(&lru, &e[i]);
    }
    cbi_lru_touch(&lru, &e[0]);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 150, CBI_NO_DATA_SET, &victims), 200);
    assert_ptr_equal(victims, &e[1]);
    assert_ptr_equal(victims->next_victim, &e[2]);
    assert_null(victims->next_victim->next_victim);
    assert_true(e[1].marked && e[2].marked && !e[0].marked);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 101, CBI_NO_DATA_SET, &victims), 0);
    assert_null(victims); /* what is marked is not there for a second one */
    cbi_lru_unmark(&e[1]);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 101, CBI_NO_DATA_SET, &victims), 200);
}

static void test_lru__the_cold_leave_before_all_others(void **state) {
    (void)state;
    cbi_lru lru = {0};
    cbi_lru_entry e[4], *victims = NULL;
    for (int i = 0; i < 4; i++) {
        e[i] = entry(100, CBI_NO_DATA_SET, CB_HEAP);
        e[i].cold = i >= 2;
        cbi_lru_add(&lru, &e[i]);
    }
    cbi_lru_touch(&lru, &e[2]); /* among its like */
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 300, CBI_NO_DATA_SET, &victims), 300);
    assert_ptr_equal(victims, &e[3]);
    assert_ptr_equal(e[3].next_victim, &e[2]);
    assert_ptr_equal(e[2].next_victim, &e[0]);
    cbi_lru_unmark(victims);
    cbi_lru_remove(&lru, &e[3]);
    cbi_lru_remove(&lru, &e[0]);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 101, CBI_NO_DATA_SET, &victims), 200);
    assert_ptr_equal(victims, &e[2]);
    assert_ptr_equal(e[2].next_victim, &e[1]);
}

static void test_lru__all_or_nothing(void **state) {
    (void)state;
    cbi_lru lru = {0};
    cbi_lru_entry a = entry(100, 1, CB_HEAP), b = entry(100, 2, CB_OFF_HEAP), *victims = &a;
    cbi_lru_add(&lru, &a);
    cbi_lru_add(&lru, &b);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 101, CBI_NO_DATA_SET, &victims), 0);
    assert_null(victims);
    assert_false(a.marked);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 100, CBI_NO_DATA_SET, &victims), 100);
}

static void test_lru__neither_kin_nor_what_is_read_leaves(void **state) {
    (void)state;
    cbi_lru lru = {0};
    cbi_lru_entry a = entry(100, 1, CB_HEAP), b = entry(100, 2, CB_HEAP), *victims = NULL;
    cbi_lru_add(&lru, &a);
    cbi_lru_add(&lru, &b);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 1, 1, &victims), 100);
    assert_ptr_equal(victims, &b);
    cbi_lru_unmark(victims);
    b.pins = 1;
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 1, 1, &victims), 0);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 1, 3, &victims), 100);
    assert_ptr_equal(victims, &a);
}

static void test_lru__empty_blocks_leave_on_the_way(void **state) {
    (void)state;
    cbi_lru lru = {0};
    cbi_lru_entry a = entry(0, 1, CB_HEAP), b = entry(5, 2, CB_HEAP), *victims = NULL;
    cbi_lru_add(&lru, &a);
    cbi_lru_add(&lru, &b);
    assert_int_equal(cbi_lru_choose(&lru, CB_HEAP, 5, CBI_NO_DATA_SET, &victims), 5);
    assert_ptr_equal(victims, &a);
    cbi_lru_remove(&lru, &a);
    cbi_lru_remove(&lru, &b);
    assert_int_equal(lru.count, 0);
    assert_null(lru.others.oldest);
    assert_null(lru.others.newest);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lru__the_least_recently_used_leave_first),
        cmocka_unit_test(test_lru__the_cold_leave_before_all_others),
        cmocka_unit_test(test_lru__all_or_nothing),
        cmocka_unit_test(test_lru__neither_kin_nor_what_is_read_leaves),
        cmocka_unit_test(test_lru__empty_blocks_leave_on_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
