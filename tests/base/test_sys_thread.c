/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "support/test.h"

typedef struct seen {
    sigset_t mask;
    size_t stack_bytes;
    char name[16];
} seen;

static void look_around(void *ctx) {
    seen *s = ctx;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &s->mask);
    pthread_attr_t attr;
    (void)pthread_getattr_np(pthread_self(), &attr);
    void *low = NULL;
    (void)pthread_attr_getstack(&attr, &low, &s->stack_bytes);
    (void)pthread_attr_destroy(&attr);
    (void)pthread_getname_np(pthread_self(), s->name, sizeof s->name);
}

static void test_a_thread_has_its_name_a_fixed_stack_and_no_signals(void **state) {
    (void)state;
    seen s;
    cbi_thread thread;
    assert_ok(cbi_thread_start(&thread, look_around, &s, "a name that is too long", NULL));
    cbi_thread_join(&thread);
    assert_int_equal(sigismember(&s.mask, SIGINT), 1);
    assert_int_equal(sigismember(&s.mask, SIGTERM), 1);
    assert_int_equal(sigismember(&s.mask, SIGUSR1), 1);
    assert_true(s.stack_bytes <= (size_t)8 * CBI_THREAD_STACK_BYTES);
    assert_string_equal(s.name, "a name that is ");
    sigset_t mine;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mine);
    assert_int_equal(sigismember(&mine, SIGTERM), 0); /* the starter keeps its own */
}

static void test_joining_twice_or_what_never_ran_does_nothing(void **state) {
    (void)state;
    seen s;
    cbi_thread never = {.running = false};
    cbi_thread_join(&never);
    cbi_thread thread;
    assert_ok(cbi_thread_start(&thread, look_around, &s, "x", NULL));
    cbi_thread_join(&thread);
    cbi_thread_join(&thread);
}

typedef struct gate {
    cbi_mutex lock;
    cbi_cond changed;
    int waiting, passed;
    bool open;
} gate;

static void pass_through(void *ctx) {
    gate *g = ctx;
    cbi_mutex_lock(&g->lock);
    g->waiting++;
    cbi_cond_broadcast(&g->changed);
    while (!g->open) {
        cbi_cond_wait(&g->changed, &g->lock);
    }
    g->passed++;
    cbi_mutex_unlock(&g->lock);
}

static void test_a_broadcast_wakes_all_who_wait(void **state) {
    (void)state;
    gate g = {.open = false};
    cbi_mutex_init(&g.lock, CBI_RANK_OUTER);
    cbi_cond_init(&g.changed);
    cbi_thread threads[3];
    for (int i = 0; i < 3; i++) {
        assert_ok(cbi_thread_start(&threads[i], pass_through, &g, "waiter", NULL));
    }
    cbi_mutex_lock(&g.lock);
    while (g.waiting < 3) {
        cbi_cond_wait(&g.changed, &g.lock);
    }
    g.open = true;
    cbi_cond_broadcast(&g.changed);
    cbi_mutex_unlock(&g.lock);
    for (int i = 0; i < 3; i++) {
        cbi_thread_join(&threads[i]);
    }
    assert_int_equal(g.passed, 3);
    cbi_cond_fini(&g.changed);
    cbi_mutex_fini(&g.lock);
}

static void test_a_wait_ends_at_its_deadline_and_not_before(void **state) {
    (void)state;
    cbi_mutex lock;
    cbi_cond cond;
    cbi_mutex_init(&lock, CBI_RANK_OUTER);
    cbi_cond_init(&cond);
    cbi_mutex_lock(&lock);
    uint64_t deadline = cbi_sys_clock_ns() + 20000000;
    while (cbi_cond_wait_until(&cond, &lock, deadline)) { /* spurious wake-ups are allowed */
    }
    assert_true(cbi_sys_clock_ns() >= deadline);
    assert_false(cbi_cond_wait_until(&cond, &lock, 0)); /* long past: answers at once */
    cbi_mutex_unlock(&lock);
    cbi_cond_fini(&cond);
    cbi_mutex_fini(&lock);
}

static void test_sleeping_takes_as_long_as_was_said(void **state) {
    (void)state;
    uint64_t before = cbi_sys_clock_ns();
    cbi_sys_sleep_ns(10000000);
    assert_true(cbi_sys_clock_ns() - before >= 10000000);
}

static void test_starting_threads_keeps_no_small_objects(void **state) {
    (void)state;
    size_t before = cbi_alloc_bytes();
    for (int i = 0; i < 50; i++) {
        seen s;
        cbi_thread thread;
        assert_ok(cbi_thread_start(&thread, look_around, &s, "x", NULL));
        cbi_thread_join(&thread);
    }
    assert_int_equal(cbi_alloc_bytes(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_thread_has_its_name_a_fixed_stack_and_no_signals),
        cmocka_unit_test(test_joining_twice_or_what_never_ran_does_nothing),
        cmocka_unit_test(test_a_broadcast_wakes_all_who_wait),
        cmocka_unit_test(test_a_wait_ends_at_its_deadline_and_not_before),
        cmocka_unit_test(test_sleeping_takes_as_long_as_was_said),
        cmocka_unit_test(test_starting_threads_keeps_no_small_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
