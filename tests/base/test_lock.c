/* SPDX-License-Identifier: Apache-2.0 */
#include "base/lock.h"

#include <pthread.h>
#include <sched.h>

#include "support/test.h"

enum { THREADS = 8, TURNS = 20000, STARVED_TURNS = 20 };

typedef struct shared {
    cbi_lock lock;
    uint64_t plain; /* guarded by the lock */
    bool stop;      /* guarded by the lock */
} shared;

static void *add(void *ctx) {
    shared *s = ctx;
    for (int i = 0; i < TURNS; i++) {
        cbi_lock_take(&s->lock);
        s->plain++;
        if (i % 64 == 0) {
            sched_yield(); /* others find it held for so long that they sleep */
        }
        cbi_lock_give(&s->lock);
    }
    return NULL;
}

static void test_one_at_a_time_has_the_lock(void **state) {
    (void)state;
    static shared s;
    cbi_lock_init(&s.lock, CBI_RANK_INNER);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, add, &s), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(s.plain, THREADS * TURNS);
    assert_false(cbi_lock_is_held(&s.lock));
}

/** Holds it nearly all the time, and lets go of the CPU only while it does. */
static void *hog(void *ctx) {
    shared *s = ctx;
    for (bool stop = false; !stop;) {
        cbi_lock_take(&s->lock);
        sched_yield();
        stop = s->stop;
        cbi_lock_give(&s->lock);
    }
    return NULL;
}

static void test_nobody_waits_for_ever_beside_one_who_comes_back_at_once(void **state) {
    (void)state;
    static shared s;
    cbi_lock_init(&s.lock, CBI_RANK_INNER);
    pthread_t hogs[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&hogs[i], NULL, hog, &s), 0);
    }
    for (int i = 0; i < STARVED_TURNS; i++) {
        cbi_lock_take(&s.lock);
        s.stop = i == STARVED_TURNS - 1;
        cbi_lock_give(&s.lock);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(hogs[i], NULL), 0);
    }
    assert_false(cbi_lock_is_held(&s.lock));
}

static void *open_parker(void *ctx) {
    cbi_parker_open(ctx);
    return NULL;
}

static void test_parker_opens_once_and_a_deadline_ends_the_wait(void **state) {
    (void)state;
    cbi_parker parker = {0};
    assert_false(cbi_parker_wait(&parker, 1)); /* long past */
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, open_parker, &parker), 0);
    assert_true(cbi_parker_wait(&parker, 0));
    assert_int_equal(pthread_join(thread, NULL), 0);
    cbi_parker_close(&parker);
    assert_false(cbi_parker_wait(&parker, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_at_a_time_has_the_lock),
        cmocka_unit_test(test_nobody_waits_for_ever_beside_one_who_comes_back_at_once),
        cmocka_unit_test(test_parker_opens_once_and_a_deadline_ends_the_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
