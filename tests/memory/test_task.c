/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: who spills, in which order, who waits, and how waits end. Method: consumers that release
 * what they are told to and write down who was asked.
 */
#include "waiting.h"

/* ---- consumers that write down what they were asked ---- */

static char asked[256]; /* "a:40 b:10 " */

typedef struct actor {
    const char *name;
    cb_consumer *consumer;
    uint64_t most;      /* releases at most so much at a time */
    int64_t fails;      /* answers this status instead */
    bool lies;          /* says it released, and did not */
    cb_consumer *asker; /* who asked last */
    void (*meanwhile)(struct actor *a);
    void *ctx;
} actor;

static int64_t spill(void *ctx, uint64_t bytes, cb_consumer *asker) {
    actor *a = ctx;
    size_t length = strlen(asked);
    (void)snprintf(asked + length, sizeof asked - length, "%s:%llu ", a->name,
                   (unsigned long long)bytes);
    a->asker = asker;
    if (a->meanwhile != NULL) {
        a->meanwhile(a);
    }
    if (a->fails != 0) {
        return a->fails;
    }
    uint64_t used = cb_consumer_used(a->consumer);
    uint64_t released = bytes < used ? bytes : used;
    released = released < a->most ? released : a->most;
    if (a->lies) {
        return 1;
    }
    cb_consumer_release(a->consumer, released);
    return (int64_t)released;
}

static void enter(actor *a, cb_task *t, const char *name, cb_mode mode) {
    *a = (actor){.name = name, .most = UINT64_MAX};
    a->consumer = make_consumer_of(t, name, mode, spill, a);
    asked[0] = '\0';
}

/** Releases all it has, whatever it was asked for. */
static int64_t spill_all(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)bytes;
    (void)asker;
    actor *a = ctx;
    uint64_t used = cb_consumer_used(a->consumer);
    cb_consumer_release(a->consumer, used);
    return (int64_t)used;
}

/* ---- one task ---- */

static void test_acquiring_accounts_to_the_consumer_and_the_task(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    actor a, b;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 300), 300);
    assert_int_equal(acquire(b.consumer, 200), 200);
    cb_consumer_release(a.consumer, 100);
    assert_int_equal(cb_consumer_used(a.consumer), 200);
    assert_int_equal(cb_consumer_peak(a.consumer), 300);
    assert_int_equal(cb_task_used(t), 400);
    assert_int_equal(cb_task_peak(t), 500);
    assert_int_equal(pool_of(m, CB_EXECUTION, CB_OFF_HEAP).used, 400);
    cb_consumer_destroy(a.consumer);
    assert_int_equal(cb_task_used(t), 200);
    assert_int_equal(cb_task_end(t, NULL, 0), 200);
    assert_int_equal(pool_of(m, CB_EXECUTION, CB_OFF_HEAP).used, 0);
    cb_manager_destroy(m);
}

static void test_smallest_consumer_that_suffices_spills_first(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    actor a, b, c, d;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    enter(&c, t, "c", CB_OFF_HEAP);
    enter(&d, t, "d", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 500), 500);
    assert_int_equal(acquire(b.consumer, 200), 200);
    assert_int_equal(acquire(c.consumer, 300), 300);
    assert_int_equal(acquire(d.consumer, 250), 250);
    assert_string_equal(asked, "c:250 ");
    assert_ptr_equal(c.asker, d.consumer);
    assert_int_equal(cb_consumer_used(c.consumer), 50);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_largest_spills_when_none_suffices_and_the_asker_last(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    actor a, b, c;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    enter(&c, t, "c", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 200), 200);
    assert_int_equal(acquire(b.consumer, 300), 300);
    assert_int_equal(acquire(c.consumer, 500), 500);
    assert_int_equal(acquire(c.consumer, 600), 600);
    assert_string_equal(asked, "b:600 a:300 c:100 ");
    assert_int_equal(cb_consumer_used(c.consumer), 1000);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_consumers_of_the_other_mode_are_not_asked(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(100 + 8 * KIB);
    options.heap_bytes = 100;
    cb_manager *m = make_manager(&options);
    cb_task *t = make_task(m, 1);
    actor a, b;
    enter(&a, t, "a", CB_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 100), 100);
    assert_int_equal(acquire(b.consumer, 100), 100);
    assert_int_equal(acquire(b.consumer, 50), 50);
    assert_string_equal(asked, "b:50 ");
    assert_int_equal(cb_consumer_used(a.consumer), 100);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void
test_consumer_that_gives_little_is_asked_again_and_who_gives_nothing_is_not(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    actor a, b, c;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    enter(&c, t, "c", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 600), 600);
    assert_int_equal(acquire(b.consumer, 400), 400);
    a.most = 40;
    b.most = 0;
    assert_int_equal(acquire(c.consumer, 100), 100);
    assert_string_equal(asked, "b:100 a:100 a:60 a:20 ");
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_spill_that_only_says_so_does_not_loop(void **state) {
    (void)state;
    cb_manager *m = make_native(100, 1);
    cb_task *t = make_task(m, 1);
    actor a, b;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 100), 100);
    a.lies = true;
    assert_int_equal(acquire(b.consumer, 50), 0);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_asker_that_holds_nothing_is_not_asked(void **state) {
    (void)state;
    for (int spark = 0; spark < 2; spark++) {
        cb_manager *m = spark ? make_spark(100, 0) : make_native(100, 1);
        cb_mode mode = spark ? CB_HEAP : CB_OFF_HEAP;
        cb_task *t = make_task(m, 1);
        actor a, b;
        enter(&a, t, "a", mode);
        enter(&b, t, "b", mode);
        assert_int_equal(acquire(a.consumer, 100), 100);
        a.most = 0;
        assert_int_equal(acquire(b.consumer, 50), 0);
        assert_string_equal(asked, "a:50 ");
        (void)cb_task_end(t, NULL, 0);
        cb_manager_destroy(m);
    }
}

/** Spark goes on with the sizes that consumers had when it began, the native rules with what they
 *  have now. */
static void test_sparks_rules_order_by_the_sizes_at_the_beginning(void **state) {
    (void)state;
    for (int spark = 0; spark < 2; spark++) {
        cb_manager *m = spark ? make_spark(1000, 0) : make_native(1000, 1);
        cb_mode mode = spark ? CB_HEAP : CB_OFF_HEAP;
        cb_task *t = make_task(m, 1);
        actor a, b, c;
        enter(&a, t, "a", mode);
        enter(&b, t, "b", mode);
        enter(&c, t, "c", mode);
        assert_int_equal(acquire(a.consumer, 550), 550);
        assert_int_equal(acquire(b.consumer, 450), 450);
        a.most = 200;
        assert_int_equal(acquire(c.consumer, 500), 500);
        assert_string_equal(asked, spark ? "a:500 b:300 " : "a:500 a:300 a:100 ");
        if (spark) {
            a.most = 60; /* it has 350 and b 150 */
            asked[0] = '\0';
            assert_int_equal(acquire(c.consumer, 400), 400);
            assert_string_equal(asked, "a:400 a:340 a:280 a:220 a:160 b:100 ");
        }
        (void)cb_task_end(t, NULL, 0);
        cb_manager_destroy(m);
    }
}

static void test_consumer_can_be_told_to_spill(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    actor a;
    enter(&a, t, "a", CB_OFF_HEAP);
    cb_consumer *stiff = make_consumer_of(t, "stiff", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(a.consumer, 600), 600);
    uint64_t released = 77;
    assert_ok(cb_consumer_spill(a.consumer, 100, &released, err));
    assert_int_equal(released, 100);
    assert_ptr_equal(a.asker, a.consumer);
    assert_ok(cb_consumer_spill(a.consumer, UINT64_MAX, &released, err));
    assert_int_equal(released, 500);
    assert_ok(cb_consumer_spill(stiff, 1, &released, err));
    assert_int_equal(released, 0);
    a.fails = CB_ENOSPC;
    assert_int_equal(cb_consumer_spill(a.consumer, 1, &released, NULL), CB_ENOSPC);
    assert_int_equal(cb_task_end(t, NULL, 0), 0);
    cb_manager_destroy(m);
}

static void test_peaks_are_kept_for_each_mode(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(1000 + 8 * KIB);
    options.heap_bytes = 1000;
    cb_manager *m = make_manager(&options);
    cb_task *t = make_task(m, 1);
    actor heap, off, other;
    enter(&heap, t, "heap", CB_HEAP);
    enter(&off, t, "off", CB_OFF_HEAP);
    enter(&other, t, "other", CB_OFF_HEAP);
    assert_int_equal(acquire(off.consumer, 500), 500);
    assert_int_equal(acquire(heap.consumer, 400), 400);
    cb_consumer_release(off.consumer, 300);
    assert_int_equal(acquire(heap.consumer, 100), 100);
    assert_int_equal(cb_task_used_in(t, CB_HEAP), 500);
    assert_int_equal(cb_task_peak_in(t, CB_HEAP), 500);
    assert_int_equal(cb_task_used_in(t, CB_OFF_HEAP), 200);
    assert_int_equal(cb_task_peak_in(t, CB_OFF_HEAP), 500);
    assert_int_equal(cb_task_peak(t), 900);
    /* What is granted while others still spill for the rest is no peak. */
    assert_int_equal(acquire(off.consumer, 500), 500);
    assert_int_equal(acquire(other.consumer, 600), 600);
    assert_int_equal(cb_task_peak_in(t, CB_OFF_HEAP), 1000);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_failed_spill_fails_the_asker_and_keeps_nothing(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    actor a, b;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 900), 900);
    a.fails = CB_ENOSPC;
    uint64_t granted = 77;
    cb_error err = {0};
    assert_int_equal(cb_consumer_acquire(b.consumer, 500, &granted, &err), CB_ENOSPC);
    assert_int_equal(granted, 77);
    assert_non_null(strstr(err.message, "\"a\""));
    assert_int_equal(cb_task_used(t), 900);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_nothing_to_spill_is_a_partial_grant(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "stiff", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 1500), 1000);
    assert_int_equal(acquire(c, 1), 0);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_all_or_nothing_refusal_prints_the_tree(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "stiff", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 900), 900);
    cb_error err = {0};
    assert_int_equal(cb_consumer_acquire_all(c, 200, &err), CB_EBUDGET);
    assert_int_equal(err.bytes_asked, 200);
    assert_int_equal(err.bytes_had, 100);
    assert_non_null(strstr(err.message, "stiff"));
    assert_non_null(strstr(err.message, "cannot spill"));
    assert_int_equal(cb_consumer_used(c), 900);
    assert_int_equal(cb_consumer_acquire_all(c, 200, NULL), CB_EBUDGET);
    assert_int_equal(cb_consumer_acquire_all(c, 100, NULL), CB_OK);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_acquiring_nothing_is_misuse(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    uint64_t granted;
    assert_int_equal(cb_consumer_acquire(c, 0, &granted, NULL), CB_EMISUSE);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

#ifndef CARBIDE_DEBUG
static cb_status inner_status;

static void acquire_inside(actor *a) {
    uint64_t granted;
    inner_status = cb_consumer_acquire(a->ctx, 1, &granted, NULL);
}

static void test_acquiring_in_a_spill_function_is_misuse(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    actor a, b;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 1000), 1000);
    a.meanwhile = acquire_inside;
    a.ctx = b.consumer;
    assert_int_equal(acquire(b.consumer, 10), 10);
    assert_int_equal(inner_status, CB_EMISUSE);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}
#endif

static char warning[256];

static void hear(void *ctx, const char *sentence) {
    (void)ctx;
    (void)snprintf(warning, sizeof warning, "%s", sentence);
}

static void test_releasing_too_much_is_warned_of_and_clamped(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(1000 + 8 * KIB);
    options.warn = hear;
    cb_manager *m = make_manager(&options);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 100), 100);
    cb_consumer_release(c, 101);
    assert_non_null(strstr(warning, "101"));
    assert_int_equal(cb_task_used(t), 0);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_end_of_a_task_reports_its_leaks(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *t = make_task(m, 42), *u = make_task(m, 43);
    cb_consumer *tidy = make_consumer_of(t, "tidy", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *leaky = make_consumer_of(t, "leaky", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(tidy, 100), 100);
    assert_int_equal(acquire(leaky, 70), 70);
    cb_consumer_release(tidy, 100);
    char report[512];
    assert_int_equal(cb_task_end(t, report, sizeof report), 70);
    assert_non_null(strstr(report, "task 42"));
    assert_non_null(strstr(report, "leaky: 70 B used"));
    assert_int_equal(cb_task_end(u, report, sizeof report), 0);
    assert_string_equal(report, "");
    assert_int_equal(cb_task_end(NULL, NULL, 0), 0);
    cb_manager_destroy(m);
}

/* ---- several tasks ---- */

static void test_task_over_its_new_share_is_told_how_much_to_spill(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    actor a, b;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, u, "b", CB_OFF_HEAP);
    assert_int_equal(acquire(a.consumer, 700), 700);
    assert_int_equal(acquire(b.consumer, 300), 300); /* the share is 500 now */
    assert_int_equal(acquire(a.consumer, 100), 100); /* not a 0 to die of */
    assert_string_equal(asked, "a:300 ");
    assert_int_equal(cb_consumer_used(a.consumer), 500);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void test_sparks_rules_grant_nothing_above_the_share(void **state) {
    (void)state;
    cb_manager *m = make_spark(1000, 0);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    actor a, b;
    enter(&a, t, "a", CB_HEAP);
    enter(&b, u, "b", CB_HEAP);
    assert_int_equal(acquire(a.consumer, 700), 700);
    assert_int_equal(acquire(b.consumer, 300), 300);
    a.most = 0;
    assert_int_equal(acquire(a.consumer, 100), 0); /* SPARK-31720 */
    assert_string_equal(asked, "a:100 ");
    assert_int_equal(cb_consumer_used(a.consumer), 700);
    asked[0] = '\0';
    a.most = UINT64_MAX; /* the original asks in pieces, until one brings it below the share */
    assert_int_equal(acquire(a.consumer, 100), 100);
    assert_string_equal(asked, "a:100 a:100 a:100 ");
    assert_int_equal(cb_consumer_used(a.consumer), 500);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void test_task_below_its_floor_waits_for_a_release(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    cb_consumer *a = make_consumer_of(t, "a", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *b = make_consumer_of(u, "b", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(a, 1000), 1000);
    waiting w;
    start(&w, b, 400);
    await_waiting(m, 1);
    cb_consumer_release(a, 100); /* below the floor of 250 */
    assert_false(w.done);
    cb_consumer_release(a, 200);
    finish(&w);
    assert_int_equal(w.status, CB_OK);
    assert_in_range(w.granted, 250, 400);
    cb_consumer_release(a, 700);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void test_waiting_task_can_be_cancelled(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    cb_consumer *a = make_consumer_of(t, "a", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *b = make_consumer_of(u, "b", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(a, 1000), 1000);
    waiting w;
    start(&w, b, 400);
    await_waiting(m, 1);
    cb_task_cancel(u);
    finish(&w);
    assert_int_equal(w.status, CB_ECANCELED);
    assert_int_equal(w.granted, 0);
    uint64_t granted;
    assert_int_equal(cb_consumer_acquire(b, 400, &granted, NULL), CB_ECANCELED); /* from now on */
    cb_consumer_release(a, 1000);
    assert_int_equal(acquire(b, 400), 400); /* what needs no waiting is granted */
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void test_wait_ends_at_the_deadline(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    cb_consumer *a = make_consumer_of(t, "a", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *b = make_consumer_of(u, "b", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(a, 1000), 1000);
    uint64_t begin = cbi_sys_clock_ns(), granted;
    cb_task_set_deadline(u, begin + 20000000);
    assert_int_equal(cb_consumer_acquire(b, 400, &granted, NULL), CB_EDEADLINE);
    assert_true(cbi_sys_clock_ns() - begin >= 20000000);
    cb_task_set_deadline(u, 0);
    waiting w;
    start(&w, b, 400);
    await_waiting(m, 1);
    cb_task_set_deadline(u, cbi_sys_clock_ns() + 1000000); /* the wait under way follows */
    finish(&w);
    assert_int_equal(w.status, CB_EDEADLINE);
    cb_consumer_release(a, 1000);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void test_waiter_whose_task_is_emptied_by_a_sibling_waits_on(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    cb_consumer *a = make_consumer_of(t, "a", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *b = make_consumer_of(u, "b", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *sibling = make_consumer_of(u, "sibling", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(a, 990), 990);
    assert_int_equal(acquire(sibling, 1), 1);
    waiting w;
    start(&w, b, 400);
    await_waiting(m, 1);
    cb_consumer_release(sibling, 1); /* the task's last byte: SPARK-59444 */
    assert_false(w.done);
    cb_consumer_release(a, 990);
    finish(&w);
    assert_int_equal(w.status, CB_OK);
    assert_int_equal(w.granted, 400);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void test_sparks_rules_lose_a_waiter_whose_task_was_emptied(void **state) {
    (void)state;
    cb_manager *m = make_spark(1000, 0);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    cb_consumer *a = make_consumer_of(t, "a", CB_HEAP, NULL, NULL);
    cb_consumer *b = make_consumer_of(u, "b", CB_HEAP, NULL, NULL);
    assert_int_equal(acquire(a, 990), 990);
    waiting w;
    start(&w, b, 400);
    await_waiting(m, 1);
    cb_consumer *sibling = make_consumer_of(u, "sibling", CB_HEAP, NULL, NULL);
    cb_consumer_release(sibling, 0); /* nothing: the entry of 0 bytes goes with it */
    finish(&w);
    assert_int_equal(w.status, CB_ENOTFOUND);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

typedef struct thief {
    cb_consumer *consumer;
    waiting waiting;
    cb_manager *manager;
} thief;

/** While `a` spills, another task's thread already waits for what it will release. */
static void let_the_thief_wait(actor *a) {
    thief *th = a->ctx;
    if (th->waiting.consumer == NULL) {
        start(&th->waiting, th->consumer, 200);
        await_waiting(th->manager, 1);
    }
}

static void test_what_a_spill_frees_goes_to_who_asked(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    actor a, b;
    enter(&a, t, "a", CB_OFF_HEAP);
    enter(&b, t, "b", CB_OFF_HEAP);
    thief th = {.consumer = make_consumer_of(u, "thief", CB_OFF_HEAP, NULL, NULL), .manager = m};
    assert_int_equal(acquire(a.consumer, 1000), 1000);
    a.meanwhile = let_the_thief_wait;
    a.ctx = &th;
    a.most = 300;
    assert_int_equal(acquire(b.consumer, 300), 300); /* SPARK-35486 */
    assert_false(th.waiting.done);
    cb_consumer_release(a.consumer, 700);
    finish(&th.waiting);
    assert_int_equal(th.waiting.granted, 200);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void test_two_tasks_that_wait_across_modes_do_not_hang(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(1000 + 16 * KIB);
    options.heap_bytes = 1000;
    cb_manager *m = make_manager(&options);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    cb_consumer *a_heap = make_consumer_of(t, "a heap", CB_HEAP, NULL, NULL);
    cb_consumer *a_off = make_consumer_of(t, "a off", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *b_heap = make_consumer_of(u, "b heap", CB_HEAP, NULL, NULL);
    cb_consumer *b_off = make_consumer_of(u, "b off", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(a_heap, 1000), 1000);
    assert_int_equal(acquire(b_off, 1000), 1000);
    waiting w, v;
    start(&w, a_off, 400);
    await_waiting(m, 1);
    start(&v, b_heap, 400);
    finish(&v); /* the newest is answered: it has to do with what there is */
    assert_int_equal(v.status, CB_OK);
    assert_int_equal(v.granted, 0);
    cb_consumer_release(b_off, 1000);
    finish(&w);
    assert_int_equal(w.granted, 400);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void *acquire_with_spilling(void *ctx) {
    waiting *w = ctx;
    for (int i = 0; i < 200; i++) {
        w->status = cb_consumer_acquire(w->consumer, w->bytes, &w->granted, &w->err);
        if (w->status != CB_OK) {
            return NULL;
        }
        cb_consumer_release(w->consumer, w->granted);
    }
    return NULL;
}

static void test_threads_of_one_task_reclaim_in_turns(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    actor hoard;
    hoard = (actor){.name = "hoard", .most = UINT64_MAX};
    hoard.consumer = make_consumer_of(t, "hoard", CB_OFF_HEAP, spill_all, &hoard);
    waiting w[3];
    for (int i = 0; i < 3; i++) {
        w[i] = (waiting){.consumer = make_consumer_of(t, "thread", CB_OFF_HEAP, NULL, NULL),
                         .bytes = 300};
        assert_int_equal(pthread_create(&w[i].thread, NULL, acquire_with_spilling, &w[i]), 0);
    }
    for (int i = 0; i < 500; i++) {
        (void)acquire(hoard.consumer, 900);
    }
    for (int i = 0; i < 3; i++) {
        finish(&w[i]);
        assert_int_equal(w[i].status, CB_OK);
    }
    cb_consumer_release(hoard.consumer, cb_consumer_used(hoard.consumer));
    assert_int_equal(cb_task_end(t, NULL, 0), 0);
    cb_manager_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acquiring_accounts_to_the_consumer_and_the_task),
        cmocka_unit_test(test_smallest_consumer_that_suffices_spills_first),
        cmocka_unit_test(test_largest_spills_when_none_suffices_and_the_asker_last),
        cmocka_unit_test(test_consumers_of_the_other_mode_are_not_asked),
        cmocka_unit_test(
            test_consumer_that_gives_little_is_asked_again_and_who_gives_nothing_is_not),
        cmocka_unit_test(test_spill_that_only_says_so_does_not_loop),
        cmocka_unit_test(test_asker_that_holds_nothing_is_not_asked),
        cmocka_unit_test(test_sparks_rules_order_by_the_sizes_at_the_beginning),
        cmocka_unit_test(test_consumer_can_be_told_to_spill),
        cmocka_unit_test(test_peaks_are_kept_for_each_mode),
        cmocka_unit_test(test_failed_spill_fails_the_asker_and_keeps_nothing),
        cmocka_unit_test(test_nothing_to_spill_is_a_partial_grant),
        cmocka_unit_test(test_all_or_nothing_refusal_prints_the_tree),
        cmocka_unit_test(test_acquiring_nothing_is_misuse),
#ifndef CARBIDE_DEBUG
        cmocka_unit_test(test_acquiring_in_a_spill_function_is_misuse),
#endif
        cmocka_unit_test(test_releasing_too_much_is_warned_of_and_clamped),
        cmocka_unit_test(test_end_of_a_task_reports_its_leaks),
        cmocka_unit_test(test_task_over_its_new_share_is_told_how_much_to_spill),
        cmocka_unit_test(test_sparks_rules_grant_nothing_above_the_share),
        cmocka_unit_test(test_task_below_its_floor_waits_for_a_release),
        cmocka_unit_test(test_waiting_task_can_be_cancelled),
        cmocka_unit_test(test_wait_ends_at_the_deadline),
        cmocka_unit_test(test_waiter_whose_task_is_emptied_by_a_sibling_waits_on),
        cmocka_unit_test(test_sparks_rules_lose_a_waiter_whose_task_was_emptied),
        cmocka_unit_test(test_what_a_spill_frees_goes_to_who_asked),
        cmocka_unit_test(test_two_tasks_that_wait_across_modes_do_not_hang),
        cmocka_unit_test(test_threads_of_one_task_reclaim_in_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
