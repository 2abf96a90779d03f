/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the static policy keeps execution and storage apart as in the cases of Spark 2.4's
 * StaticMemoryManagerSuite. Which test answers to which case: docs/spark-cases.md.
 */
#include "spark_case.h"

static void make(spark_case *f, uint64_t execution, uint64_t storage) {
    cb_manager_options options = {.struct_size = sizeof options,
                                  .rules = CB_RULES_SPARK,
                                  .policy = CB_POLICY_STATIC,
                                  .heap_bytes = execution + storage,
                                  .heap_storage_bytes = storage,
                                  .unroll_fraction = 0.4};
    case_begin(f, make_manager(&options));
}

static bool unroll_bytes(const spark_case *f, uint64_t bytes) {
    return cb_manager_acquire_unroll(f->manager, CB_HEAP, bytes, NULL, NULL) == CB_OK;
}

static void test_execution_is_granted_its_part(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 1000000);
    play_basic_execution(&f);
    case_end(&f);
}

static void test_storage_is_granted_its_part_and_evicts_within_it(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000000, 1000);
    play_basic_storage(&f);
    case_end(&f);
}

static void test_execution_and_storage_do_not_touch_each_other(void **state) {
    (void)state;
    spark_case f;
    make(&f, 200, 1000);
    assert_int_equal(acquire(f.heap, 100), 100);
    expect_used(&f, 100, 0);
    assert_int_equal(acquire(f.heap, 1000), 100);
    expect_used(&f, 200, 0);
    assert_true(store_bytes(f.manager, CB_HEAP, 50));
    expect_eviction(&f.store, 0);
    expect_used(&f, 200, 50);
    cb_consumer_release(f.heap, 133);
    expect_used(&f, 67, 50);
    cb_manager_release_all_storage(f.manager);
    expect_used(&f, 67, 0);
    case_end(&f);
}

/** There releasing unroll memory is releasing storage memory; here the manager knows which bytes
 * are unrolled, and no more than these go. */
static void test_unrolling_evicts_within_its_fraction(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000000, 1000);
    assert_true(unroll_bytes(&f, 100));
    expect_eviction(&f.store, 0);
    expect_used(&f, 0, 100);
    cb_manager_release_unroll(f.manager, CB_HEAP, 40);
    expect_used(&f, 0, 60);
    assert_true(store_bytes(f.manager, CB_HEAP, 800));
    expect_eviction(&f.store, 0);
    expect_used(&f, 0, 860);
    assert_true(unroll_bytes(&f, 240)); /* 300 are unrolled then, 400 may be */
    expect_eviction(&f.store, 100);
    expect_used(&f, 0, 1000);
    assert_false(unroll_bytes(&f, 150)); /* 100 more may be evicted, and are; it does not suffice */
    expect_eviction(&f.store, 100);
    expect_used(&f, 0, 900);
    cb_manager_release_unroll(f.manager, CB_HEAP, 1000);
    expect_used(&f, 0, 600);
    cb_manager_release_storage(f.manager, CB_HEAP, 1000);
    expect_used(&f, 0, 0);
    case_end(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_execution_is_granted_its_part),
        cmocka_unit_test(test_storage_is_granted_its_part_and_evicts_within_it),
        cmocka_unit_test(test_execution_and_storage_do_not_touch_each_other),
        cmocka_unit_test(test_unrolling_evicts_within_its_fraction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
