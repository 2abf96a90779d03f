/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what is known to go wrong in the memory systems of others does not go wrong here. Which
 * test answers to which report, these and those in other files: docs/known-defects.md.
 */
#include "waiting.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/lock.h"

/** A consumer with a lock of its own, which its spill function takes as its other users do. */
typedef struct holder {
    cb_consumer *consumer;
    pthread_mutex_t lock;
    cbi_parker asked, may_go_on;
    bool waits; /* in its spill function, until it may go on */
    unsigned spills;
    void (*inside)(struct holder *h);
    void *ctx;
} holder;

static int64_t spill_under_lock(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)bytes;
    (void)asker;
    holder *h = ctx;
    cbi_parker_open(&h->asked);
    if (h->waits) {
        (void)cbi_parker_wait(&h->may_go_on, 0);
    }
    if (h->inside != NULL) {
        h->inside(h);
    }
    pthread_mutex_lock(&h->lock);
    uint64_t used = cb_consumer_used(h->consumer);
    cb_consumer_release(h->consumer, used);
    h->spills++;
    pthread_mutex_unlock(&h->lock);
    return (int64_t)used;
}

static void enter(holder *h, cb_task *t, uint64_t bytes) {
    *h = (holder){0};
    pthread_mutex_init(&h->lock, NULL);
    h->consumer = make_consumer_of(t, "holder", CB_OFF_HEAP, spill_under_lock, h);
    assert_int_equal(acquire(h->consumer, bytes), bytes);
}

/** One thread asks, and the spill function wants the lock; who has it frees memory meanwhile. */
static void test_spill_may_want_a_lock_whose_holder_frees_memory(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    holder h;
    enter(&h, t, 1000);
    waiting w;
    pthread_mutex_lock(&h.lock);
    start(&w, make_consumer_of(t, "asker", CB_OFF_HEAP, NULL, NULL), 300);
    assert_true(cbi_parker_wait(&h.asked, 0));
    cb_consumer_release(h.consumer, 100); /* the other thread is in our spill function */
    assert_int_equal(cb_consumer_used(h.consumer), 900);
    pthread_mutex_unlock(&h.lock);
    finish(&w);
    assert_int_equal(w.status, CB_OK);
    assert_int_equal(w.granted, 300);
    assert_int_equal(h.spills, 1);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void look_around(holder *h) {
    cb_task *t = h->ctx;
    cb_manager *m = cb_task_manager(t);
    char tree[1024];
    (void)cb_manager_tree(m, tree, sizeof tree);
    (void)pool_of(m, CB_EXECUTION, CB_OFF_HEAP);
    assert_true(cb_task_used(t) > 0);
    cb_consumer *other = make_consumer_of(t, "other", CB_OFF_HEAP, NULL, NULL);
    cb_consumer_destroy(other);
    cb_task *u = make_task(m, 77);
    (void)cb_task_end(u, NULL, 0);
}

static void test_spill_may_call_whatever_does_not_acquire(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *t = make_task(m, 1);
    holder h;
    enter(&h, t, 1000);
    h.inside = look_around;
    h.ctx = t;
    assert_int_equal(acquire(make_consumer_of(t, "asker", CB_OFF_HEAP, NULL, NULL), 300), 300);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

#ifdef CARBIDE_DEBUG
static void acquire_inside(holder *h) {
    (void)acquire(h->ctx, 1);
}

static void test_spill_that_acquires_ends_a_debug_build(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    holder h;
    enter(&h, t, 1000);
    cb_consumer *asker = make_consumer_of(t, "asker", CB_OFF_HEAP, NULL, NULL);
    h.inside = acquire_inside;
    h.ctx = asker;
    pid_t child = fork();
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        (void)acquire(asker, 300);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}
#endif

/** Each waits in its spill function until the other has begun to spill too. */
static void test_tasks_spill_at_the_same_time(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 2);
    cb_task *tasks[2];
    holder h[2];
    waiting w[2];
    for (int i = 0; i < 2; i++) {
        tasks[i] = make_task(m, (uint64_t)i);
        enter(&h[i], tasks[i], 500);
        h[i].waits = true;
    }
    for (int i = 0; i < 2; i++) {
        start(&w[i], make_consumer_of(tasks[i], "asker", CB_OFF_HEAP, NULL, NULL), 300);
    }
    for (int i = 0; i < 2; i++) {
        assert_true(cbi_parker_wait(&h[i].asked, 0));
    }
    for (int i = 0; i < 2; i++) {
        cbi_parker_open(&h[i].may_go_on);
        finish(&w[i]);
        assert_int_equal(w[i].granted, 300);
    }
    for (int i = 0; i < 2; i++) {
        (void)cb_task_end(tasks[i], NULL, 0);
    }
    cb_manager_destroy(m);
}

/** Cancelling is a word that the task's threads find; nothing is taken from under them. */
static void test_cancelling_a_task_that_spills_takes_nothing_away(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    holder h;
    enter(&h, t, 1000);
    h.waits = true;
    waiting w;
    start(&w, make_consumer_of(t, "asker", CB_OFF_HEAP, NULL, NULL), 300);
    assert_true(cbi_parker_wait(&h.asked, 0));
    cb_task_cancel(t);
    assert_int_equal(cb_consumer_used(h.consumer), 1000);
    cbi_parker_open(&h.may_go_on);
    finish(&w);
    assert_int_equal(h.spills, 1);
    assert_int_equal(cb_task_used(t), w.granted);
    (void)cb_task_end(t, NULL, 0);
    assert_int_equal(pool_of(m, CB_EXECUTION, CB_OFF_HEAP).used, 0);
    cb_manager_destroy(m);
}

/** What cannot be spilled is never asked, and makes nobody spill in crumbs. */
static void test_unspillable_bytes_cause_no_small_spills(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *stiff = make_consumer_of(t, "stiff", CB_OFF_HEAP, NULL, NULL);
    holder h;
    enter(&h, t, 200);
    assert_int_equal(acquire(stiff, 800), 800);
    cb_consumer *asker = make_consumer_of(t, "asker", CB_OFF_HEAP, NULL, NULL);
    cb_error err = {0};
    assert_int_equal(cb_consumer_acquire_all(asker, 300, &err), CB_EBUDGET);
    assert_int_equal(h.spills, 1); /* all at once, once */
    assert_int_equal(err.bytes_had, 200);
    assert_non_null(strstr(err.message, "stiff: 800 B used, peak 800 B, cannot spill"));
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_bytes_can_move_from_one_mode_to_the_other(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(1000 + 8 * KIB);
    options.heap_bytes = 1000;
    cb_manager *m = make_manager(&options);
    cb_task *t = make_task(m, 1);
    cb_consumer *off_heap = make_consumer_of(t, "off-heap", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(off_heap, 500), 500);
    holder h = {.lock = PTHREAD_MUTEX_INITIALIZER};
    h.consumer = make_consumer_of(t, "heap", CB_HEAP, spill_under_lock, &h);
    assert_int_equal(acquire(h.consumer, 900), 900);
    assert_int_equal(cb_manager_shrink(m, CB_HEAP, 600), 600); /* who holds them spills */
    cb_manager_grow(m, CB_OFF_HEAP, 600);
    assert_int_equal(h.spills, 1);
    assert_int_equal(acquire(off_heap, 1100), 1100); /* 500 of 1600 are there */
    assert_int_equal(acquire(h.consumer, 1000), 400);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_idle_tasks_take_no_share(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 5);
    cb_task *tasks[5];
    cb_consumer *consumers[5];
    for (int i = 0; i < 5; i++) {
        tasks[i] = make_task(m, (uint64_t)i);
        consumers[i] = make_consumer_of(tasks[i], "c", CB_OFF_HEAP, NULL, NULL);
        assert_int_equal(acquire(consumers[i], 10), 10);
        cb_consumer_release(consumers[i], 10);
    }
    assert_int_equal(acquire(consumers[3], 1000), 1000);
    for (int i = 0; i < 5; i++) {
        (void)cb_task_end(tasks[i], NULL, 0);
    }
    cb_manager_destroy(m);
}

/** How many of a fixed series of requests are granted; most of what is held can be spilled. */
static int granted_with(uint64_t budget, uint64_t seed) {
    cb_manager *m = make_native(budget, 1);
    cb_task *t = make_task(m, 1);
    holder h[2];
    enter(&h[0], t, 1);
    enter(&h[1], t, 1);
    cb_consumer *stiff = make_consumer_of(t, "stiff", CB_OFF_HEAP, NULL, NULL);
    int granted = 0;
    for (; granted < 100; granted++) {
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        cb_consumer *c = seed % 8 == 0 ? stiff : h[seed % 2].consumer;
        uint64_t bytes = c == stiff ? 1 + (seed >> 8) % 30 : 1 + (seed >> 8) % 300;
        if (cb_consumer_acquire_all(c, bytes, NULL) != CB_OK) {
            break;
        }
    }
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
    return granted;
}

static void test_more_budget_is_never_worse(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        int before = 0;
        for (uint64_t budget = 100; budget <= 700; budget += 50) {
            int granted = granted_with(budget, seed * 0x9e3779b97f4a7c15u);
            assert_true(granted >= before);
            before = granted;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spill_may_want_a_lock_whose_holder_frees_memory),
        cmocka_unit_test(test_spill_may_call_whatever_does_not_acquire),
#ifdef CARBIDE_DEBUG
        cmocka_unit_test(test_spill_that_acquires_ends_a_debug_build),
#endif
        cmocka_unit_test(test_tasks_spill_at_the_same_time),
        cmocka_unit_test(test_cancelling_a_task_that_spills_takes_nothing_away),
        cmocka_unit_test(test_unspillable_bytes_cause_no_small_spills),
        cmocka_unit_test(test_bytes_can_move_from_one_mode_to_the_other),
        cmocka_unit_test(test_idle_tasks_take_no_share),
        cmocka_unit_test(test_more_budget_is_never_worse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
