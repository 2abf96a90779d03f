/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: whatever the system refuses, the memory core answers with an error and keeps its books.
 * Method: one scenario that uses everything is run with the first, second, third ... allocation
 * failing (once, and from then on), until nothing fails any more; afterwards nothing is held.
 */
#include "../memory/memory_test.h"

#include <errno.h>

#include "base/alloc.h"

typedef struct scene {
    cb_manager *manager;
    cb_task *task;
    cb_consumer *holder, *asker;
    cb_segment_pool *segments;
    cb_page held, page;
    cb_array array;
} scene;

static int64_t free_held(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)bytes;
    (void)asker;
    scene *s = ctx;
    if (s->held.number < 0) {
        return 0;
    }
    int64_t freed = (int64_t)s->held.bytes;
    return cb_page_free(s->holder, &s->held, NULL) == CB_OK ? freed : 0;
}

static cb_status set_up(scene *s, cb_mode mode, cb_error *err) {
    cb_manager_options options = cb_manager_options_native(4 * MIB);
    options.mode = mode;
    options.heap_bytes = 4 * MIB;
    CB_TRY(cb_manager_create(&options, &s->manager, err));
    cb_ledger_entry *entry;
    CB_TRY(cb_ledger_add(s->manager, "entry", NULL, NULL, &entry, err));
    CB_TRY(cb_ledger_set(entry, 1000, err));
    cb_task_options task = {.struct_size = sizeof task, .id = 1};
    CB_TRY(cb_task_create(s->manager, &task, &s->task, err));
    cb_consumer_options consumer = {.struct_size = sizeof consumer,
                                    .name = "holder",
                                    .mode = mode,
                                    .spill = free_held,
                                    .ctx = s};
    CB_TRY(cb_consumer_create(s->task, &consumer, &s->holder, err));
    consumer.name = "asker";
    consumer.spill = NULL;
    return cb_consumer_create(s->task, &consumer, &s->asker, err);
}

static cb_status use(scene *s, cb_error *err) {
    CB_TRY(cb_page_alloc(s->holder, 2 * MIB, &s->held, err));
    memset(cb_page_data(&s->held), 1, s->held.bytes);
    CB_TRY(cb_page_alloc(s->asker, 3 * MIB, &s->page, err)); /* the holder has to spill for it */
    memset(cb_page_data(&s->page), 2, s->page.bytes);
    CB_TRY(cb_page_free(s->asker, &s->page, err));
    CB_TRY(cb_array_alloc(s->asker, 100, &s->array, err));
    CB_TRY(cb_array_free(s->asker, &s->array, err));
    cb_segment_pool_options segments = {
        .struct_size = sizeof segments, .task = s->task, .segment_bytes = 4096, .segments_max = 64};
    CB_TRY(cb_segment_pool_create(&segments, &s->segments, err));
    void *segment = cb_segment_pool_take(s->segments, 2);
    if (segment == NULL) {
        return CB_ENOMEM;
    }
    memset(segment, 3, 8192);
    cb_segment_pool_give(s->segments, segment, 2);
    cb_segment_owner *owner;
    cb_segment owned[3];
    cb_segment_list list = {.items = &owned[1], .max = 2};
    cb_collecting_view view;
    CB_TRY(cb_segment_owner_create(s->segments, "owner", &owner, err));
    CB_TRY(cb_segment_take(owner, 1, owned, err));
    CB_TRY(cb_collecting_view_open(&view, owner, &list, err));
    CB_TRY(cb_output_view_skip(&view.view, 4097, err));
    return cb_segment_give(&owned[0], err);
}

static cb_status run(cb_mode mode) {
    scene s = {.held = {.number = CB_PAGE_NONE}};
    cb_error err = {0};
    cb_status status = set_up(&s, mode, &err);
    if (status == CB_OK) {
        status = use(&s, &err);
    }
    if (status != CB_OK) {
        assert_int_equal(status, CB_ENOMEM);
        assert_string_not_equal(err.message, "");
    }
    cb_segment_pool_destroy(s.segments);
    if (s.task != NULL) {
        (void)cb_task_end(s.task, NULL, 0);
        cb_pool_stats exec = pool_of(s.manager, CB_EXECUTION, mode);
        assert_int_equal(exec.used + exec.held, 0);
        assert_int_equal(cb_manager_debt(s.manager), 0);
    }
    cb_manager_destroy(s.manager);
    return status;
}

static void fail_each(cb_mode mode, bool for_ever) {
    size_t before = cbi_alloc_bytes();
    uint64_t n = 1, failed = 0;
    for (bool fired = true; fired; n++) {
        cbi_fault_arm(CBI_FAULT_ALLOC, n, for_ever, ENOMEM);
        cb_status status = run(mode);
        fired = cbi_fault_fired();
        cbi_fault_arm(0, 0, false, 0);
        assert_true(fired || status == CB_OK);
        assert_true(!for_ever || !fired || status != CB_OK);
        assert_int_equal(cbi_alloc_bytes(), before);
        failed += status != CB_OK;
    }
    assert_true(n > 8);
    assert_true(failed > 5);
}

static void test_every_allocation_may_fail_once(void **state) {
    (void)state;
    fail_each(CB_OFF_HEAP, false);
    fail_each(CB_HEAP, false);
}

static void test_every_allocation_may_fail_for_ever(void **state) {
    (void)state;
    fail_each(CB_OFF_HEAP, true);
    fail_each(CB_HEAP, true);
}

static void test_page_refused_once_is_got_in_the_next_round(void **state) {
    (void)state;
    cb_manager *m = make_native(4 * MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_page first, second;
    assert_ok(cb_page_alloc(c, 4096, &first, err)); /* descriptors are there now */
    cbi_fault_arm(CBI_FAULT_ALLOC, 1, false, ENOMEM);
    assert_ok(cb_page_alloc(c, MIB, &second, err));
    assert_true(cbi_fault_fired());
    cbi_fault_arm(0, 0, false, 0);
    assert_int_equal(cb_consumer_used(c), MIB + 4096); /* what was put aside is given back */
    assert_int_equal(cb_task_used(t), MIB + 4096);
    assert_int_equal(second.number, 1);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_sparks_rules_keep_aside_what_the_system_refused(void **state) {
    (void)state;
    cb_manager *m = make_spark(4 * MIB, 0);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_HEAP, NULL, NULL);
    cb_page first, second;
    assert_ok(cb_page_alloc(c, 4096, &first, err));
    cbi_fault_arm(CBI_FAULT_ALLOC, 1, false, ENOMEM);
    assert_ok(cb_page_alloc(c, MIB, &second, err));
    cbi_fault_arm(0, 0, false, 0);
    assert_int_equal(cb_consumer_used(c), MIB + 4096);
    assert_int_equal(cb_task_used(t), 2 * MIB + 4096);
    assert_int_equal(cb_task_end(t, NULL, 0), MIB + 4096);
    cb_manager_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_allocation_may_fail_once),
        cmocka_unit_test(test_every_allocation_may_fail_for_ever),
        cmocka_unit_test(test_page_refused_once_is_got_in_the_next_round),
        cmocka_unit_test(test_sparks_rules_keep_aside_what_the_system_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
