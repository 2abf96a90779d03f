/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a task's memory behaves as in the cases of Spark's TaskMemoryManagerSuite: pages and their
 * numbers, addresses, leaks, and who of its consumers spills for whom. Which test answers to which
 * case: docs/spark-cases.md.
 */
#include "spark_case.h"

#include "carbide/settings.h"

enum { CONSUMERS_MAX = 4 };

/** One task with 100 bytes and up to four consumers, each of which spills all it has. */
typedef struct fixture {
    cb_manager *manager;
    cb_task *task;
    cb_consumer *c[CONSUMERS_MAX];
} fixture;

static void make(fixture *f) {
    f->manager = make_case(CB_POLICY_UNIFIED, 100, 0, 0);
    f->task = make_task(f->manager, 0);
    for (int i = 0; i < CONSUMERS_MAX; i++) {
        f->c[i] = make_consumer_of(f->task, "c", CB_HEAP, spill_everything, &f->c[i]);
    }
}

static void end(fixture *f, uint64_t leaked) {
    assert_int_equal(cb_task_end(f->task, NULL, 0), leaked);
    cb_manager_destroy(f->manager);
}

/** Consumer `who` acquires so many bytes, or releases them when below 0; then all four have that.
 */
typedef struct step {
    int who;
    int64_t bytes;
    uint64_t then[CONSUMERS_MAX];
} step;

#define PLAY(leaked, ...)                                                                          \
    play((const step[]){__VA_ARGS__}, sizeof((const step[]){__VA_ARGS__}) / sizeof(step), leaked)

static void play(const step *steps, size_t count, uint64_t leaked) {
    fixture f;
    make(&f);
    for (size_t i = 0; i < count; i++) {
        cb_consumer *c = f.c[steps[i].who];
        if (steps[i].bytes > 0) {
            (void)acquire(c, (uint64_t)steps[i].bytes);
        } else {
            cb_consumer_release(c, (uint64_t)-steps[i].bytes);
        }
        for (int k = 0; k < CONSUMERS_MAX; k++) {
            assert_int_equal(cb_consumer_used(f.c[k]), steps[i].then[k]);
        }
    }
    end(&f, leaked);
}

/* ---- pages ---- */

static cb_manager *make_paged(cb_mode mode) {
    cb_manager_options options = {.struct_size = sizeof options,
                                  .rules = CB_RULES_SPARK,
                                  .mode = mode,
                                  .heap_bytes = MIB,
                                  .off_heap_bytes = mode == CB_OFF_HEAP ? MIB : 0};
    return make_manager(&options);
}

static void test_leaked_page_is_found_at_the_end_of_the_task(void **state) {
    (void)state;
    cb_manager *m = make_paged(CB_HEAP);
    cb_task *t = make_task(m, 0);
    cb_page p;
    assert_ok(cb_page_alloc(make_stiff(t, CB_HEAP), 4096, &p, err));
    assert_int_equal(cb_task_used(t), 4096);
    char report[512];
    assert_int_equal(cb_task_end(t, report, sizeof report), 4096);
    assert_non_null(strstr(report, "stiff"));
    cb_manager_destroy(m);
}

/** There an off-heap offset is an absolute address; here it is a pointer, of as many bits. */
static void test_off_heap_address_holds_any_pointer_into_its_page(void **state) {
    (void)state;
    cb_manager *m = make_paged(CB_OFF_HEAP);
    cb_task *t = make_task(m, 0);
    cb_consumer *c = make_stiff(t, CB_OFF_HEAP);
    cb_page first, p;
    assert_ok(cb_page_alloc(c, 256, &first, err));
    assert_ok(cb_page_alloc(c, 256, &p, err));
    assert_null(p.base);
    uint8_t *byte = cb_page_data(&p) + 10;
    cb_address address = cb_address_of_byte(&p, byte);
    assert_int_equal(cb_address_page(address), 1);
    assert_ptr_equal(cb_address_data(cb_task_page_table(t), address), byte);
    /* A page that begins where addresses need 52 bits: the distance is what is kept. */
    cb_page far = {.offset = ((uint64_t)1 << 51) + 5, .number = 1, .bytes = 256};
    const void *there = (const void *)(uintptr_t)(((uint64_t)1 << 51) + 15);
    assert_int_equal(cb_address_offset(cb_address_of_byte(&far, there)), 10);
    assert_int_equal(cb_address_page(cb_address_of_byte(&far, there)), 1);
    assert_ok(cb_page_free(c, &p, err));
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_heap_address_holds_page_and_offset(void **state) {
    (void)state;
    cb_manager *m = make_paged(CB_HEAP);
    cb_task *t = make_task(m, 0);
    cb_page p;
    assert_ok(cb_page_alloc(make_stiff(t, CB_HEAP), 256, &p, err));
    cb_address address = cb_address_of(&p, 64);
    assert_ptr_equal(cb_task_page_table(t)[cb_address_page(address)], p.base);
    assert_int_equal(cb_address_offset(address), 64);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_freed_page_has_the_number_that_says_so(void **state) {
    (void)state;
    cb_manager *m = make_paged(CB_HEAP);
    cb_task *t = make_task(m, 0);
    cb_consumer *c = make_stiff(t, CB_HEAP);
    cb_page p;
    assert_ok(cb_page_alloc(c, 256, &p, err));
    assert_int_equal(p.number, 0);
    assert_ok(cb_page_free(c, &p, err));
    assert_int_equal(p.number, CB_PAGE_FREED_BY_ALLOCATOR);
    assert_int_equal(cb_task_end(t, NULL, 0), 0);
    cb_manager_destroy(m);
}

static cb_allocator *make_allocator(cb_mode mode) {
    cb_allocator_options options = {.struct_size = sizeof options, .mode = mode};
    cb_allocator *a = NULL;
    assert_ok(cb_allocator_create(&options, &a, err));
    return a;
}

static void test_tasks_page_freed_straight_to_an_allocator_is_caught(void **state) {
    (void)state;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_manager *m = make_paged((cb_mode)mode);
        cb_task *t = make_task(m, 0);
        cb_consumer *c = make_stiff(t, (cb_mode)mode);
        cb_allocator *a = make_allocator((cb_mode)mode);
        cb_page p;
        assert_ok(cb_page_alloc(c, 256, &p, err));
        cb_error err = {0};
        assert_int_equal(cb_allocator_free(a, &p, &err), CB_EMISUSE);
        assert_non_null(strstr(err.message, "freed via TMM.freePage()"));
        assert_int_equal(cb_page_free(c, &p, NULL), CB_OK); /* nothing had happened */
        cb_allocator_destroy(a);
        (void)cb_task_end(t, NULL, 0);
        cb_manager_destroy(m);
    }
}

static void test_page_of_an_allocator_freed_by_a_task_is_caught(void **state) {
    (void)state;
    cb_manager *m = make_paged(CB_HEAP);
    cb_task *t = make_task(m, 0);
    cb_consumer *c = make_stiff(t, CB_HEAP);
    cb_allocator *a = make_allocator(CB_HEAP);
    cb_page p;
    assert_ok(cb_allocator_allocate(a, 256, &p, err));
    cb_error err = {0};
    assert_int_equal(cb_page_free(c, &p, &err), CB_EMISUSE);
    assert_string_equal(err.message,
                        "Called freePage() on memory that wasn't allocated with allocatePage()");
    assert_int_equal(cb_allocator_free(a, &p, NULL), CB_OK);
    cb_allocator_destroy(a);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

/* ---- who spills ---- */

static void test_two_consumers_spill_for_each_other(void **state) {
    (void)state;
    PLAY(0, {0, 100, {100, 0}}, {1, 100, {0, 100}}, {0, 100, {100, 0}},
         {0, 50, {50, 0}}, /* spills itself */
         {1, 50, {50, 50}}, {0, 100, {100, 0}}, {0, -20, {80, 0}}, {1, 10, {80, 10}},
         {1, 100, {0, 100}}, {0, 0, {0, 100}}, {1, -100, {0, 0}});
}

static void test_consumer_that_holds_what_is_missing_spills_alone(void **state) {
    (void)state;
    PLAY(0, {0, 20, {20}}, {1, 80, {20, 80}}, {2, 80, {20, 0, 80}}, {1, 80, {20, 80}},
         {2, 10, {0, 80, 10}}, {0, 0, {0, 80, 10}}, {1, -80, {0, 0, 10}}, {2, -10, {0}});
}

static void test_asker_spills_last_however_much_it_holds(void **state) {
    (void)state;
    PLAY(100, {0, 50, {50}}, {1, 40, {50, 40}}, {2, 10, {50, 40, 10}}, {0, 50, {100}},
         {0, 50, {50}}, {1, 10, {50, 10}}, {0, 60, {60}}, {0, -60, {0}}, {0, 50, {50}},
         {1, 40, {50, 40}}, {2, 10, {50, 40, 10}}, {2, 50, {0, 40, 60}});
}

static void test_smallest_consumer_that_is_big_enough_spills(void **state) {
    (void)state;
    PLAY(96, {0, 50, {50}}, {1, 40, {50, 40}}, {2, 10, {50, 40, 10}},
         {3, 5, {50, 40, 0, 5}},  /* 10 was just enough */
         {2, 45, {50, 0, 45, 5}}, /* 5 are free */
         {1, 51, {0, 51, 45, 0}});
}

/** There both modes draw on one counter of the test's own; with a manager's pools off-heap has 20.
 */
static void test_consumers_of_the_other_mode_are_not_spilled(void **state) {
    (void)state;
    cb_manager *m = make_case(CB_POLICY_UNIFIED, 80, 20, 0);
    cb_task *t = make_task(m, 0);
    cb_consumer *a, *b;
    a = make_consumer_of(t, "a", CB_HEAP, spill_everything, &a);
    b = make_consumer_of(t, "b", CB_OFF_HEAP, spill_everything, &b);
    assert_int_equal(acquire(a, 80), 80);
    assert_int_equal(acquire(b, 80), 20);
    assert_int_equal(cb_consumer_used(a), 80);
    assert_int_equal(acquire(b, 10), 10);
    assert_int_equal(cb_consumer_used(b), 10); /* it spilled itself */
    assert_int_equal(cb_consumer_used(a), 80);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

/** There an old name of the setting is still taken; here, that the setting decides the mode. */
static void test_off_heap_setting_decides_the_mode_of_pages(void **state) {
    (void)state;
    cb_settings s;
    cb_settings_init(&s);
    assert_ok(cb_settings_set(&s, "spark.memory.offHeap.enabled", "true", err));
    assert_ok(cb_settings_set(&s, "spark.memory.offHeap.size", "1000", err));
    cb_manager_options options;
    assert_ok(cb_settings_resolve(&s, &options, err));
    assert_int_equal(options.mode, CB_OFF_HEAP);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leaked_page_is_found_at_the_end_of_the_task),
        cmocka_unit_test(test_off_heap_address_holds_any_pointer_into_its_page),
        cmocka_unit_test(test_heap_address_holds_page_and_offset),
        cmocka_unit_test(test_freed_page_has_the_number_that_says_so),
        cmocka_unit_test(test_tasks_page_freed_straight_to_an_allocator_is_caught),
        cmocka_unit_test(test_page_of_an_allocator_freed_by_a_task_is_caught),
        cmocka_unit_test(test_two_consumers_spill_for_each_other),
        cmocka_unit_test(test_consumer_that_holds_what_is_missing_spills_alone),
        cmocka_unit_test(test_asker_spills_last_however_much_it_holds),
        cmocka_unit_test(test_smallest_consumer_that_is_big_enough_spills),
        cmocka_unit_test(test_consumers_of_the_other_mode_are_not_spilled),
        cmocka_unit_test(test_off_heap_setting_decides_the_mode_of_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
