/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the static policy keeps execution and storage apart as in the cases of Spark 2.4's
 * StaticMemoryManagerSuite. Which test answers to which case: docs/spark-cases.md.
 */
#include "spark_case.h"

typedef struct fixture {
    cb_manager *manager;
    mock_store store;
    cb_task *task;
    cb_consumer *consumer;
} fixture;

static void make(fixture *f, uint64_t execution, uint64_t storage) {
    cb_manager_options options = {.struct_size = sizeof options,
                                  .rules = CB_RULES_SPARK,
                                  .policy = CB_POLICY_STATIC,
                                  .heap_bytes = execution + storage,
                                  .heap_storage_bytes = storage,
                                  .unroll_fraction = 0.4};
    f->manager = make_manager(&options);
    set_mock_store(f->manager, &f->store);
    f->task = make_task(f->manager, 0);
    f->consumer = make_stiff(f->task, CB_HEAP);
}

static void end(fixture *f) {
    (void)cb_task_end(f->task, NULL, 0);
    cb_manager_release_all_storage(f->manager);
    cb_manager_destroy(f->manager);
}

static void expect_used(const fixture *f, uint64_t execution, uint64_t storage) {
    assert_int_equal(used_of(f->manager, CB_EXECUTION), execution);
    assert_int_equal(used_of(f->manager, CB_STORAGE), storage);
}

static bool unroll_bytes(const fixture *f, uint64_t bytes) {
    return cb_manager_acquire_unroll(f->manager, CB_HEAP, bytes, NULL, NULL) == CB_OK;
}

static void test_execution_is_granted_its_part(void **state) {
    (void)state;
    fixture f;
    make(&f, 1000, 1000000);
    assert_int_equal(acquire(f.consumer, 10), 10);
    assert_int_equal(acquire(f.consumer, 100), 100);
    assert_int_equal(acquire(f.consumer, 1000), 890);
    expect_used(&f, 1000, 0);
    assert_int_equal(acquire(f.consumer, 1), 0);
    cb_consumer_release(f.consumer, 800);
    assert_int_equal(acquire(f.consumer, 1), 1);
    expect_used(&f, 201, 0);
    cb_consumer_release(f.consumer, 1000);
    expect_used(&f, 0, 0);
    end(&f);
}

static void test_storage_is_granted_its_part_and_evicts_within_it(void **state) {
    (void)state;
    fixture f;
    make(&f, 1000000, 1000);
    assert_true(store_bytes(f.manager, CB_HEAP, 10));
    assert_true(store_bytes(f.manager, CB_HEAP, 100));
    expect_used(&f, 0, 110);
    assert_false(store_bytes(f.manager, CB_HEAP, 1001));
    expect_eviction(&f.store, 0);
    assert_true(store_bytes(f.manager, CB_HEAP, 1000));
    expect_eviction(&f.store, 110);
    assert_true(store_bytes(f.manager, CB_HEAP, 1));
    expect_eviction(&f.store, 1);
    expect_used(&f, 0, 1000);
    cb_manager_release_storage(f.manager, CB_HEAP, 800);
    assert_true(store_bytes(f.manager, CB_HEAP, 1));
    expect_eviction(&f.store, 0);
    expect_used(&f, 0, 201);
    cb_manager_release_all_storage(f.manager);
    assert_true(store_bytes(f.manager, CB_HEAP, 1));
    expect_eviction(&f.store, 0);
    cb_manager_release_storage(f.manager, CB_HEAP, 100);
    expect_used(&f, 0, 0);
    end(&f);
}

static void test_execution_and_storage_do_not_touch_each_other(void **state) {
    (void)state;
    fixture f;
    make(&f, 200, 1000);
    assert_int_equal(acquire(f.consumer, 100), 100);
    expect_used(&f, 100, 0);
    assert_int_equal(acquire(f.consumer, 1000), 100);
    expect_used(&f, 200, 0);
    assert_true(store_bytes(f.manager, CB_HEAP, 50));
    expect_eviction(&f.store, 0);
    expect_used(&f, 200, 50);
    cb_consumer_release(f.consumer, 133);
    expect_used(&f, 67, 50);
    cb_manager_release_all_storage(f.manager);
    expect_used(&f, 67, 0);
    end(&f);
}

/** There releasing unroll memory is releasing storage memory; here the manager knows which bytes
 * are unrolled, and no more than these go. */
static void test_unrolling_evicts_within_its_fraction(void **state) {
    (void)state;
    fixture f;
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
    end(&f);
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
