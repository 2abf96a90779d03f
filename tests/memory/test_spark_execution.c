/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: execution memory is shared among tasks as in the cases of Spark's MemoryManagerSuite, which
 * holds for every policy. Which test answers to which case: docs/spark-cases.md.
 */
#include "spark_case.h"

static const cb_policy policies[] = {CB_POLICY_UNIFIED, CB_POLICY_STATIC};
enum { POLICIES = sizeof policies / sizeof policies[0] };

/** No storage memory in use; the static policy has none at all. */
static cb_manager *make_shared(size_t policy, uint64_t heap, uint64_t off_heap) {
    return make_case(policies[policy], heap, off_heap,
                     policies[policy] == CB_POLICY_UNIFIED ? 0.5 : 0);
}

typedef struct pair {
    cb_manager *manager;
    cb_task *tasks[2];
    cb_consumer *consumers[2];
} pair;

static pair make_pair(size_t policy) {
    pair p = {.manager = make_shared(policy, 1000, 0)};
    for (int i = 0; i < 2; i++) {
        p.tasks[i] = make_task(p.manager, (uint64_t)i + 1);
        p.consumers[i] = make_stiff(p.tasks[i], CB_HEAP);
    }
    return p;
}

static void end_pair(pair *p) {
    for (int i = 0; i < 2; i++) {
        (void)cb_task_end(p->tasks[i], NULL, 0);
    }
    cb_manager_destroy(p->manager);
}

/** Both ask for as much at once, each on a thread of its own. */
static void acquire_both(pair *p, uint64_t bytes, uint64_t granted) {
    waiting w[2];
    for (int i = 0; i < 2; i++) {
        start(&w[i], p->consumers[i], bytes);
    }
    for (int i = 0; i < 2; i++) {
        finish(&w[i]);
        assert_int_equal(w[i].status, CB_OK);
        assert_int_equal(w[i].granted, granted);
    }
}

static void test_one_task_may_have_all_and_no_more(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        cb_manager *m = make_shared(policy, 1000, 0);
        cb_task *t = make_task(m, 0);
        cb_consumer *c = make_stiff(t, CB_HEAP);
        assert_int_equal(acquire(c, 100), 100);
        assert_int_equal(acquire(c, 400), 400);
        assert_int_equal(acquire(c, 400), 400);
        assert_int_equal(acquire(c, 200), 100);
        assert_int_equal(acquire(c, 100), 0);
        assert_int_equal(acquire(c, 100), 0);
        cb_consumer_release(c, 500);
        assert_int_equal(acquire(c, 300), 300);
        assert_int_equal(acquire(c, 300), 200);
        assert_int_equal(cb_task_end(t, NULL, 0), 1000);
        t = make_task(m, 0); /* what it held is there again */
        c = make_stiff(t, CB_HEAP);
        assert_int_equal(acquire(c, 1000), 1000);
        assert_int_equal(acquire(c, 100), 0);
        (void)cb_task_end(t, NULL, 0);
        cb_manager_destroy(m);
    }
}

static void test_two_tasks_that_have_their_half_get_nothing_more(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        pair p = make_pair(policy);
        acquire_both(&p, 500, 500);
        acquire_both(&p, 500, 0);
        end_pair(&p);
    }
}

static void test_two_tasks_cannot_grow_beyond_half(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        pair p = make_pair(policy);
        acquire_both(&p, 250, 250);
        acquire_both(&p, 500, 250);
        end_pair(&p);
    }
}

static void test_task_waits_for_a_quarter_when_another_has_all(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        pair p = make_pair(policy);
        assert_int_equal(acquire(p.consumers[0], 1000), 1000);
        waiting w;
        start(&w, p.consumers[1], 250);
        await_waiting(p.manager, 1);
        assert_false(w.done);
        cb_consumer_release(p.consumers[0], 250);
        finish(&w);
        assert_int_equal(w.granted, 250);
        assert_int_equal(acquire(p.consumers[1], 100), 0); /* it has 1/2N: at once */
        end_pair(&p);
    }
}

typedef struct partial {
    cb_consumer *consumer;
    uint64_t spilled;
} partial;

static int64_t spill_what_is_asked(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)asker;
    partial *p = ctx;
    uint64_t used = cb_consumer_used(p->consumer);
    uint64_t released = bytes < used ? bytes : used;
    cb_consumer_release(p->consumer, released);
    p->spilled += released;
    return (int64_t)released;
}

static void test_task_that_is_robbed_of_what_it_spilled_spills_again(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        cb_manager *m = make_shared(policy, 1000, 0);
        cb_task *t = make_task(m, 1), *u = make_task(m, 2);
        partial a = {0};
        a.consumer = make_consumer_of(t, "a", CB_HEAP, spill_what_is_asked, &a);
        cb_consumer *b = make_stiff(u, CB_HEAP);
        assert_int_equal(acquire(a.consumer, 1000), 1000);
        assert_int_equal(a.spilled, 0);
        waiting w;
        start(&w, b, 500);
        await_waiting(m, 1);
        assert_int_equal(acquire(a.consumer, 500), 500);
        finish(&w);
        assert_int_equal(w.granted, 500); /* the other got what the first spill freed */
        assert_int_equal(a.spilled, 1000);
        assert_int_equal(cb_consumer_used(a.consumer), 500);
        assert_int_equal(cb_consumer_used(b), 500);
        (void)cb_task_end(t, NULL, 0);
        (void)cb_task_end(u, NULL, 0);
        cb_manager_destroy(m);
    }
}

static void test_end_of_a_task_lets_who_waits_go_on(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        pair p = make_pair(policy);
        assert_int_equal(acquire(p.consumers[0], 1000), 1000);
        waiting w;
        start(&w, p.consumers[1], 500);
        await_waiting(p.manager, 1);
        assert_int_equal(cb_task_end(p.tasks[0], NULL, 0), 1000);
        p.tasks[0] = NULL;
        finish(&w);
        assert_int_equal(w.granted, 500);
        assert_int_equal(acquire(p.consumers[1], 500), 500);
        assert_int_equal(acquire(p.consumers[1], 500), 0);
        end_pair(&p);
    }
}

static void test_task_above_its_share_is_granted_nothing_and_not_less(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        pair p = make_pair(policy);
        assert_int_equal(acquire(p.consumers[0], 700), 700);
        assert_int_equal(acquire(p.consumers[1], 300), 300);
        assert_int_equal(acquire(p.consumers[0], 300), 0); /* SPARK-4715 */
        assert_int_equal(cb_consumer_used(p.consumers[0]), 700);
        end_pair(&p);
    }
}

static void test_off_heap_memory_has_its_own_limit(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        cb_manager *m = make_shared(policy, 2, 1000);
        cb_task *t = make_task(m, 1);
        cb_consumer *c = make_stiff(t, CB_OFF_HEAP);
        assert_int_equal(acquire(c, 1000), 1000);
        assert_int_equal(cb_task_used(t), 1000);
        assert_int_equal(acquire(c, 300), 0);
        assert_int_equal(cb_task_used(t), 1000);
        cb_consumer_release(c, 500);
        assert_int_equal(cb_task_used(t), 500);
        cb_consumer_release(c, 500);
        assert_int_equal(cb_task_used(t), 0);
        (void)cb_task_end(t, NULL, 0);
        cb_manager_destroy(m);
    }
}

static void test_task_knows_its_peak_of_each_mode(void **state) {
    (void)state;
    for (size_t policy = 0; policy < POLICIES; policy++) {
        cb_manager *m = make_shared(policy, 1000, 1000);
        cb_task *t = make_task(m, 1);
        assert_int_equal(acquire(make_stiff(t, CB_OFF_HEAP), 500), 500);
        assert_int_equal(acquire(make_stiff(t, CB_HEAP), 400), 400);
        assert_int_equal(cb_task_used(t), 900);
        assert_int_equal(cb_task_peak_in(t, CB_HEAP), 400);
        assert_int_equal(cb_task_peak_in(t, CB_OFF_HEAP), 500);
        (void)cb_task_end(t, NULL, 0);
        cb_manager_destroy(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_task_may_have_all_and_no_more),
        cmocka_unit_test(test_two_tasks_that_have_their_half_get_nothing_more),
        cmocka_unit_test(test_two_tasks_cannot_grow_beyond_half),
        cmocka_unit_test(test_task_waits_for_a_quarter_when_another_has_all),
        cmocka_unit_test(test_task_that_is_robbed_of_what_it_spilled_spills_again),
        cmocka_unit_test(test_end_of_a_task_lets_who_waits_go_on),
        cmocka_unit_test(test_task_above_its_share_is_granted_nothing_and_not_less),
        cmocka_unit_test(test_off_heap_memory_has_its_own_limit),
        cmocka_unit_test(test_task_knows_its_peak_of_each_mode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
