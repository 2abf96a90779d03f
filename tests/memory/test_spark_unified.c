/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: execution and storage borrow from each other as in the cases of Spark's
 * UnifiedMemoryManagerSuite. Which test answers to which case: docs/spark-cases.md.
 */
#include "spark_case.h"

#include "carbide/ledger.h"
#include "carbide/settings.h"

static void make(spark_case *f, uint64_t heap, uint64_t off_heap, double fraction) {
    case_begin(f, make_case(CB_POLICY_UNIFIED, heap, off_heap, fraction));
}

static void test_execution_is_granted_up_to_all_and_released(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0.5);
    play_basic_execution(&f);
    case_end(&f);
}

static void test_storage_is_granted_up_to_all_and_evicts_for_the_rest(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0.5);
    play_basic_storage(&f);
    case_end(&f);
}

static void test_execution_evicts_down_to_the_storage_region(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0.5);
    assert_true(store_bytes(f.manager, CB_HEAP, 750));
    expect_eviction(&f.store, 0);
    assert_int_equal(acquire(f.heap, 100), 100);
    expect_eviction(&f.store, 0);
    expect_used(&f, 100, 750);
    assert_int_equal(acquire(f.heap, 200), 200); /* 150 are free */
    expect_eviction(&f.store, 50);
    expect_used(&f, 300, 700);
    cb_manager_release_all_storage(f.manager);
    assert_true(store_bytes(f.manager, CB_HEAP, 400));
    expect_eviction(&f.store, 0);
    assert_int_equal(acquire(f.heap, 400), 300); /* storage is within its region */
    expect_eviction(&f.store, 0);
    expect_used(&f, 600, 400);
    case_end(&f);
}

static void test_execution_evicts_also_what_it_needs_beyond_the_free_bytes(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0.5);
    assert_true(store_bytes(f.manager, CB_HEAP, 700));
    expect_eviction(&f.store, 0);
    assert_int_equal(acquire(f.heap, 500), 500); /* SPARK-12165 */
    expect_eviction(&f.store, 200);
    expect_used(&f, 500, 500);
    case_end(&f);
}

static void test_storage_does_not_evict_execution(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0.5);
    assert_int_equal(acquire(f.heap, 800), 800);
    assert_true(store_bytes(f.manager, CB_HEAP, 100));
    expect_used(&f, 800, 100);
    assert_false(store_bytes(f.manager, CB_HEAP, 250));
    expect_used(&f, 800, 100);
    expect_eviction(&f.store, 0);
    cb_consumer_release(f.heap, 1000);
    cb_manager_release_storage(f.manager, CB_HEAP, 1000);
    assert_int_equal(acquire(f.heap, 200), 200);
    assert_true(store_bytes(f.manager, CB_HEAP, 750));
    expect_used(&f, 200, 750);
    expect_eviction(&f.store, 0);
    assert_false(store_bytes(f.manager, CB_HEAP, 850));
    expect_used(&f, 200, 750);
    expect_eviction(&f.store, 0);
    case_end(&f);
}

static void test_several_tasks_can_have_blocks_evicted(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0);
    cb_task *u = make_task(f.manager, 1);
    assert_int_equal(acquire(f.heap, 100), 100);
    assert_int_equal(acquire(make_stiff(u, CB_HEAP), 100), 100);
    assert_true(store_bytes(f.manager, CB_HEAP, 800));
    expect_eviction(&f.store, 0);
    expect_used(&f, 200, 800);
    assert_int_equal(acquire(f.heap, 100), 100); /* SPARK-12155 */
    expect_eviction(&f.store, 100);
    expect_used(&f, 300, 700);
    (void)cb_task_end(u, NULL, 0);
    case_end(&f);
}

/** There the eviction throws and the request with it; here the store drops nothing, and the request
 *  is granted what there is. Either way the pools add up. */
static void test_eviction_that_fails_leaves_the_pools_whole(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0);
    f.store.fails = true;
    assert_true(store_bytes(f.manager, CB_HEAP, 1000));
    cb_manager_release_storage(f.manager, CB_HEAP, 600);
    assert_int_equal(acquire(f.heap, 1000), 600); /* SPARK-15260 */
    expect_eviction(&f.store, 400);
    cb_pool_stats exec = pool_of(f.manager, CB_EXECUTION, CB_HEAP);
    cb_pool_stats stor = pool_of(f.manager, CB_STORAGE, CB_HEAP);
    assert_int_equal(exec.size + stor.size, 1000);
    assert_int_equal(exec.held + stor.held, 0);
    expect_used(&f, 600, 400);
    case_end(&f);
}

static void test_off_heap_storage_borrows_and_evicts_too(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 1000, 0.5);
    assert_int_equal(acquire(f.off_heap, 400), 400);
    assert_false(store_bytes(f.manager, CB_OFF_HEAP, 700));
    expect_used(&f, 400, 0);
    assert_true(store_bytes(f.manager, CB_OFF_HEAP, 100));
    expect_eviction(&f.store, 0);
    assert_true(store_bytes(f.manager, CB_OFF_HEAP, 450));
    expect_eviction(&f.store, 0);
    expect_used(&f, 400, 550);
    assert_true(store_bytes(f.manager, CB_OFF_HEAP, 100));
    expect_eviction(&f.store, 50);
    expect_used(&f, 400, 600);
    case_end(&f);
}

/* ---- sizes from settings ---- */

static cb_settings make_settings(uint64_t system) {
    cb_settings s;
    cb_settings_init(&s);
    s.system_memory = system;
    s.reserved_memory = 300 * KIB;
    s.memory_fraction = 0.8;
    return s;
}

static void test_small_heap_is_refused_with_what_to_do(void **state) {
    (void)state;
    cb_settings s = make_settings(MIB);
    cb_manager_options options;
    assert_ok(cb_settings_resolve(&s, &options, err));
    assert_int_equal(options.heap_bytes, (uint64_t)(0.8 * (double)(724 * KIB)));
    s = make_settings(150 * KIB);
    cb_error err = {0};
    assert_int_equal(cb_settings_resolve(&s, &options, &err), CB_EINVAL);
    assert_non_null(strstr(err.message, "System memory of 153600 bytes must be at least"));
}

static void test_small_executor_is_refused_with_what_to_do(void **state) {
    (void)state;
    cb_settings s = make_settings(MIB);
    s.executor_memory = 150 * KIB;
    cb_manager_options options;
    cb_error err = {0};
    assert_int_equal(cb_settings_resolve(&s, &options, &err), CB_EINVAL);
    assert_non_null(strstr(err.message, "spark.executor.memory more"));
}

/* ---- memory that others hold: there a poller lowers the caps, here it is in the ledger ---- */

static uint64_t read_bytes(void *ctx) {
    return *(const uint64_t *)ctx;
}

static void test_what_others_hold_of_a_mode_is_missing_in_that_mode_only(void **state) {
    (void)state;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_manager_options options = {.struct_size = sizeof options,
                                      .rules = CB_RULES_SPARK,
                                      .mode = (cb_mode)mode,
                                      .heap_bytes = 1000,
                                      .off_heap_bytes = 1000,
                                      .storage_fraction = 0.5};
        cb_manager *m = make_manager(&options);
        cb_task *t = make_task(m, 0);
        cb_mode other = mode == CB_HEAP ? CB_OFF_HEAP : CB_HEAP;
        cb_consumer *c = make_stiff(t, (cb_mode)mode), *d = make_stiff(t, other);
        uint64_t held = 0;
        cb_ledger_entry *entry = NULL;
        assert_ok(cb_ledger_add(m, "native library", read_bytes, &held, &entry, err));
        held = 200;
        cb_ledger_refresh(m);
        assert_int_equal(acquire(d, 1000), 1000);
        assert_int_equal(acquire(c, 900), 800);
        cb_consumer_release(c, 800);
        held = 300;
        cb_ledger_refresh(m);
        assert_false(store_bytes(m, (cb_mode)mode, 800));
        assert_true(store_bytes(m, (cb_mode)mode, 600));
        cb_manager_release_all_storage(m);
        (void)cb_task_end(t, NULL, 0);
        cb_manager_destroy(m);
    }
}

static void test_holders_come_and_go_and_their_bytes_add_up(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0.5);
    uint64_t first_held = 100, second_held = 200;
    cb_ledger_entry *first = NULL, *second = NULL;
    assert_ok(cb_ledger_add(f.manager, "first", read_bytes, &first_held, &first, err));
    assert_ok(cb_ledger_add(f.manager, "second", read_bytes, &second_held, &second, err));
    cb_ledger_refresh(f.manager);
    assert_int_equal(cb_manager_accounted(f.manager), 300);
    cb_ledger_remove(first);
    assert_int_equal(cb_manager_accounted(f.manager), 200);
    cb_ledger_remove(second);
    assert_int_equal(cb_manager_accounted(f.manager), 0);
    case_end(&f);
}

/** There an answer of -1 takes a consumer off the list; here who has gone measures 0. */
static void test_holder_that_has_gone_holds_nothing(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0.5);
    uint64_t first_held = 100, second_held = 200;
    cb_ledger_entry *entry = NULL;
    assert_ok(cb_ledger_add(f.manager, "first", read_bytes, &first_held, &entry, err));
    assert_ok(cb_ledger_add(f.manager, "second", read_bytes, &second_held, &entry, err));
    cb_ledger_refresh(f.manager);
    assert_int_equal(cb_manager_accounted(f.manager), 300);
    first_held = 0;
    cb_ledger_refresh(f.manager);
    assert_int_equal(cb_manager_accounted(f.manager), 200);
    second_held = 0;
    cb_ledger_refresh(f.manager);
    assert_int_equal(acquire(f.heap, 1000), 1000);
    case_end(&f);
}

static void test_holder_that_is_never_measured_takes_nothing(void **state) {
    (void)state;
    spark_case f;
    make(&f, 1000, 0, 0.5);
    uint64_t held = 500;
    cb_ledger_entry *entry = NULL;
    assert_ok(cb_ledger_add(f.manager, "silent", read_bytes, &held, &entry, err));
    assert_int_equal(acquire(f.heap, 1000), 1000);
    case_end(&f);
}

static void test_what_others_hold_off_heap_leaves_the_heap_alone(void **state) {
    (void)state;
    cb_manager_options options = {.struct_size = sizeof options,
                                  .rules = CB_RULES_SPARK,
                                  .mode = CB_OFF_HEAP,
                                  .heap_bytes = 1000,
                                  .off_heap_bytes = 1500,
                                  .storage_fraction = 0.5};
    cb_manager *m = make_manager(&options);
    cb_task *t = make_task(m, 0);
    cb_consumer *heap = make_stiff(t, CB_HEAP), *off_heap = make_stiff(t, CB_OFF_HEAP);
    cb_ledger_entry *entry = NULL;
    assert_ok(cb_ledger_add(m, "library", NULL, NULL, &entry, err));
    cb_ledger_force(entry, 300);
    assert_int_equal(acquire(off_heap, 1400), 1200);
    cb_consumer_release(off_heap, 1200);
    cb_ledger_force(entry, 500);
    assert_false(store_bytes(m, CB_OFF_HEAP, 1100));
    assert_true(store_bytes(m, CB_OFF_HEAP, 900));
    cb_manager_release_storage(m, CB_OFF_HEAP, 900);
    assert_int_equal(acquire(heap, 600), 600);
    cb_consumer_release(heap, 600);
    cb_ledger_force(entry, 200);
    assert_int_equal(acquire(heap, 400), 400);
    assert_int_equal(acquire(off_heap, 1000), 1000);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_execution_is_granted_up_to_all_and_released),
        cmocka_unit_test(test_storage_is_granted_up_to_all_and_evicts_for_the_rest),
        cmocka_unit_test(test_execution_evicts_down_to_the_storage_region),
        cmocka_unit_test(test_execution_evicts_also_what_it_needs_beyond_the_free_bytes),
        cmocka_unit_test(test_storage_does_not_evict_execution),
        cmocka_unit_test(test_several_tasks_can_have_blocks_evicted),
        cmocka_unit_test(test_eviction_that_fails_leaves_the_pools_whole),
        cmocka_unit_test(test_off_heap_storage_borrows_and_evicts_too),
        cmocka_unit_test(test_small_heap_is_refused_with_what_to_do),
        cmocka_unit_test(test_small_executor_is_refused_with_what_to_do),
        cmocka_unit_test(test_what_others_hold_of_a_mode_is_missing_in_that_mode_only),
        cmocka_unit_test(test_holders_come_and_go_and_their_bytes_add_up),
        cmocka_unit_test(test_holder_that_has_gone_holds_nothing),
        cmocka_unit_test(test_holder_that_is_never_measured_takes_nothing),
        cmocka_unit_test(test_what_others_hold_off_heap_leaves_the_heap_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
