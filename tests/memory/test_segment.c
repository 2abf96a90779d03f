/* SPDX-License-Identifier: Apache-2.0 */
#include "memory_test.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory/segment.h"

typedef struct fixture {
    cb_manager *manager;
    cb_task *task;
    cb_segment_pool *pool;
} fixture;

static fixture make(size_t segment_bytes, size_t segments_max, bool preallocate, uint64_t budget) {
    fixture f = {.manager = make_native(budget, 1)};
    f.task = make_task(f.manager, 1);
    cb_segment_pool_options options = {.struct_size = sizeof options,
                                       .task = f.task,
                                       .name = "segments",
                                       .segment_bytes = segment_bytes,
                                       .segments_max = segments_max,
                                       .preallocate = preallocate};
    assert_ok(cb_segment_pool_create(&options, &f.pool, err));
    return f;
}

static void finish(fixture *f) {
    cb_segment_pool_destroy(f->pool);
    assert_int_equal(cb_task_end(f->task, NULL, 0), 0);
    cb_manager_destroy(f->manager);
}

static size_t index_of(const fixture *f, const void *segment) {
    size_t offset = (size_t)((const uint8_t *)segment - cb_segment_pool_base(f->pool));
    assert_int_equal(offset % cb_segment_pool_segment_bytes(f->pool), 0);
    return offset / cb_segment_pool_segment_bytes(f->pool);
}

static void test_preallocated_pool_takes_all_its_bytes_at_once(void **state) {
    (void)state;
    fixture f = make(16 * KIB, 100, true, 4 * MIB);
    assert_int_equal(cb_task_used(f.task), 100 * 16 * KIB);
    assert_int_equal(cb_segment_pool_free_count(f.pool), 100);
    void *s = cb_segment_pool_take(f.pool, 1);
    assert_int_equal((uintptr_t)s % 4096, 0);
    assert_int_equal(cb_task_used(f.task), 100 * 16 * KIB);
    assert_int_equal(cb_segment_pool_free_count(f.pool), 99);
    memset(s, 1, 16 * KIB);
    cb_segment_pool_give(f.pool, s, 1);
    finish(&f);
}

static void test_last_given_segment_is_taken_first(void **state) {
    (void)state;
    fixture f = make(4096, 10, true, MIB);
    void *a = cb_segment_pool_take(f.pool, 1), *b = cb_segment_pool_take(f.pool, 1),
         *c = cb_segment_pool_take(f.pool, 1);
    assert_int_equal(index_of(&f, c), 2); /* fresh ones from the low end */
    cb_segment_pool_give(f.pool, b, 1);
    cb_segment_pool_give(f.pool, a, 1);
    assert_ptr_equal(cb_segment_pool_take(f.pool, 1), a);
    assert_ptr_equal(cb_segment_pool_take(f.pool, 1), b);
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 1)), 3);
    finish(&f);
}

static void test_lowest_first_leaves_large_pieces_free(void **state) {
    (void)state;
    fixture f = make(4096, 10, true, MIB);
    void *all[10];
    for (int i = 0; i < 10; i++) {
        all[i] = cb_segment_pool_take(f.pool, 1);
    }
    for (int i = 0; i < 10; i++) {
        cb_segment_pool_give(f.pool, all[i], 1);
    }
    cbi_segment_pool_lowest_first(f.pool);
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 1)), 0); /* not 9, the last given */
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 1)), 1);
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 8)), 2);
    assert_null(cb_segment_pool_take(f.pool, 1));
    finish(&f);
}

static void test_highest_run_leaves_what_lies_below_in_one_piece(void **state) {
    (void)state;
    fixture f = make(4096, 100, true, MIB);
    void *low = cb_segment_pool_take(f.pool, 2);
    void *high = cbi_segment_pool_take_highest(f.pool, 30);
    assert_int_equal(index_of(&f, high), 70);
    assert_int_equal(index_of(&f, cbi_segment_pool_take_highest(f.pool, 5)), 65);
    cb_segment_pool_give(f.pool, high, 30);
    assert_int_equal(index_of(&f, cbi_segment_pool_take_highest(f.pool, 10)), 90);
    cb_segment_pool_give(f.pool, low, 2);
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 65)), 0);
    assert_null(cbi_segment_pool_take_highest(f.pool, 21));
    assert_int_equal(cb_segment_pool_free_count(f.pool), 20);
    uint8_t taken[100] = {0};
    for (int i = 0; i < 20; i++) { /* each of the others once, though none was ever taken */
        size_t index = index_of(&f, cb_segment_pool_take(f.pool, 1));
        assert_true(index >= 70 && index < 90 && taken[index]++ == 0);
    }
    assert_null(cb_segment_pool_take(f.pool, 1));
    finish(&f);
}

static void test_run_is_the_first_that_fits(void **state) {
    (void)state;
    fixture f = make(4096, 200, true, MIB);
    void *a = cb_segment_pool_take(f.pool, 3), *b = cb_segment_pool_take(f.pool, 2),
         *c = cb_segment_pool_take(f.pool, 70);
    assert_int_equal(index_of(&f, a), 0);
    assert_int_equal(index_of(&f, b), 3);
    assert_int_equal(index_of(&f, c), 5);
    cb_segment_pool_give(f.pool, a, 3);
    cb_segment_pool_give(f.pool, (uint8_t *)c + 10 * 4096, 50); /* a part of a run: 15..64 */
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 4)), 15);
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 3)), 0);
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 100)), 75);
    assert_null(cb_segment_pool_take(f.pool, 47));
    assert_int_equal(index_of(&f, cb_segment_pool_take(f.pool, 46)), 19);
    assert_int_equal(cb_segment_pool_free_count(f.pool), 25);
    for (int i = 0; i < 25; i++) {
        assert_non_null(cb_segment_pool_take(f.pool, 1));
    }
    assert_null(cb_segment_pool_take(f.pool, 1));
    assert_null(cb_segment_pool_take(f.pool, 0));
    assert_null(cb_segment_pool_take(f.pool, 201));
    finish(&f);
}

static void test_singles_and_runs_never_overlap(void **state) {
    (void)state;
    enum { COUNT = 300 };
    fixture f = make(4096, COUNT, true, 2 * MIB);
    static size_t owner_first[COUNT], owner_count[COUNT];
    static bool taken[COUNT];
    memset(taken, 0, sizeof taken);
    size_t owners = 0, in_use = 0;
    uint64_t random = 1234567;
    for (int i = 0; i < 200000; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        size_t count = (random >> 8) % 4 == 0 ? 1 + (random >> 20) % 9 : 1;
        if ((random & 1) != 0 && owners < COUNT) {
            void *s = cb_segment_pool_take(f.pool, count);
            if (s == NULL) {
                assert_true(count > 1 || in_use == COUNT);
                continue;
            }
            for (size_t k = index_of(&f, s); k < index_of(&f, s) + count; k++) {
                assert_false(taken[k]);
                taken[k] = true;
            }
            owner_first[owners] = index_of(&f, s);
            owner_count[owners++] = count;
            in_use += count;
        } else if (owners > 0) {
            size_t who = (random >> 32) % owners;
            cb_segment_pool_give(f.pool, cb_segment_pool_base(f.pool) + owner_first[who] * 4096,
                                 owner_count[who]);
            memset(&taken[owner_first[who]], 0, owner_count[who]);
            in_use -= owner_count[who];
            owner_first[who] = owner_first[--owners];
            owner_count[who] = owner_count[owners];
        }
        assert_int_equal(cb_segment_pool_free_count(f.pool), COUNT - in_use);
    }
    finish(&f);
}

static void test_lazy_pool_pays_in_steps_as_segments_are_touched(void **state) {
    (void)state;
    fixture f = make(64 * KIB, 40, false, 4 * MIB);
    assert_int_equal(cb_task_used(f.task), 0);
    void *s = cb_segment_pool_take(f.pool, 1);
    assert_int_equal(cb_task_used(f.task), 256 * KIB);
    cb_segment_pool_give(f.pool, s, 1);
    assert_int_equal(cb_task_used(f.task), 256 * KIB); /* its memory is resident */
    void *run = cb_segment_pool_take(f.pool, 9);
    assert_int_equal(cb_task_used(f.task), 3 * 256 * KIB);
    cb_segment_pool_give(f.pool, run, 9);
    finish(&f);
}

static void test_lazy_pool_gives_free_steps_back_when_asked(void **state) {
    (void)state;
    fixture f = make(64 * KIB, 16, false, MIB);
    void *s[16];
    for (int i = 0; i < 16; i++) {
        s[i] = cb_segment_pool_take(f.pool, 1);
        memset(s[i], 1, 64 * KIB);
    }
    for (int i = 0; i < 11; i++) {
        cb_segment_pool_give(f.pool, s[i], 1); /* two whole steps and three quarters */
    }
    cb_consumer *other = make_consumer_of(f.task, "other", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(other, 600 * KIB), 512 * KIB);
    assert_int_equal(cb_task_used(f.task), MIB);
    void *t = cb_segment_pool_take(f.pool, 1); /* only what is paid for can be had */
    assert_int_equal(index_of(&f, t) / 4, 2);
    assert_non_null(cb_segment_pool_take(f.pool, 1));
    assert_non_null(cb_segment_pool_take(f.pool, 1));
    assert_null(cb_segment_pool_take(f.pool, 1));
    cb_consumer_release(other, 512 * KIB);
    uint8_t *again = cb_segment_pool_take(f.pool, 4);
    assert_non_null(again);
    assert_int_equal(again[0], 0); /* it was given back to the system */
    finish(&f);
}

static void test_segment_that_is_paid_for_is_taken_when_nothing_else_can_be(void **state) {
    (void)state;
    fixture f = make(64 * KIB, 8, false, 512 * KIB);
    void *s[8];
    for (int i = 0; i < 8; i++) {
        s[i] = cb_segment_pool_take(f.pool, 1);
    }
    cb_segment_pool_give(f.pool, s[0], 1);
    for (int i = 4; i < 8; i++) {
        cb_segment_pool_give(f.pool, s[i], 1); /* the second step is free, and on top */
    }
    cb_consumer *other = make_consumer_of(f.task, "other", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(other, 256 * KIB), 256 * KIB);
    assert_ptr_equal(cb_segment_pool_take(f.pool, 1), s[0]);
    assert_null(cb_segment_pool_take(f.pool, 1));
    assert_null(cb_segment_pool_take(f.pool, 2));
    cb_consumer_release(other, 256 * KIB);
    assert_non_null(cb_segment_pool_take(f.pool, 4));
    finish(&f);
}

static void test_last_step_may_be_smaller(void **state) {
    (void)state;
    fixture f = make(4096, 70, false, MIB); /* 64 segments a step */
    assert_non_null(cb_segment_pool_take(f.pool, 70));
    assert_int_equal(cb_task_used(f.task), 70 * 4096);
    finish(&f);
}

static void test_bad_options_are_refused(void **state) {
    (void)state;
    cb_manager *m = make_native(MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_segment_pool *pool = NULL;
    const cb_segment_pool_options good = {.struct_size = sizeof good,
                                          .task = t,
                                          .segment_bytes = 4096,
                                          .segments_max = 1,
                                          .preallocate = true};
    cb_segment_pool_options o = good;
    o.segment_bytes = 2048;
    assert_int_equal(cb_segment_pool_create(&o, &pool, NULL), CB_EINVAL);
    o.segment_bytes = 4097;
    assert_int_equal(cb_segment_pool_create(&o, &pool, NULL), CB_EINVAL);
    o = good;
    o.segments_max = 0;
    assert_int_equal(cb_segment_pool_create(&o, &pool, NULL), CB_EINVAL);
    o = good;
    o.segments_max = 257; /* more than the budget has */
    assert_int_equal(cb_segment_pool_create(&o, &pool, NULL), CB_EBUDGET);
    assert_null(pool);
    assert_int_equal(cb_task_used(t), 0);
    cb_segment_pool_destroy(NULL);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_second_give_ends_the_process(void **state) {
    (void)state;
    fixture f = make(4096, 4, true, MIB);
    void *s = cb_segment_pool_take(f.pool, 1);
    cb_segment_pool_give(f.pool, s, 1);
    pid_t child = fork();
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        cb_segment_pool_give(f.pool, s, 1);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
    finish(&f);
}

typedef struct worker {
    pthread_t thread;
    cb_segment_pool *pool;
    uint64_t id;
    bool clash;
} worker;

static void *take_and_give(void *ctx) {
    worker *w = ctx;
    uint64_t *held[8] = {NULL};
    for (int i = 0; i < 20000; i++) {
        int k = i % 8;
        if (held[k] != NULL) {
            w->clash = w->clash || held[k][0] != w->id || held[k][511] != w->id;
            cb_segment_pool_give(w->pool, held[k], 1);
            held[k] = NULL;
        } else if ((held[k] = cb_segment_pool_take(w->pool, 1)) != NULL) {
            held[k][0] = held[k][511] = w->id;
        }
        if (i % 64 == 0) {
            void *run = cb_segment_pool_take(w->pool, 3);
            if (run != NULL) {
                memset(run, (int)w->id, (size_t)3 * 4096);
                cb_segment_pool_give(w->pool, run, 3);
            }
        }
    }
    for (int k = 0; k < 8; k++) {
        if (held[k] != NULL) {
            cb_segment_pool_give(w->pool, held[k], 1);
        }
    }
    return NULL;
}

static void test_threads_never_share_a_segment(void **state) {
    (void)state;
    for (int lazy = 0; lazy < 2; lazy++) {
        fixture f = make(4096, 40, lazy == 0, MIB);
        worker w[4];
        for (size_t i = 0; i < 4; i++) {
            w[i] = (worker){.pool = f.pool, .id = i + 1};
            assert_int_equal(pthread_create(&w[i].thread, NULL, take_and_give, &w[i]), 0);
        }
        for (size_t i = 0; i < 4; i++) {
            assert_int_equal(pthread_join(w[i].thread, NULL), 0);
            assert_false(w[i].clash);
        }
        assert_int_equal(cb_segment_pool_free_count(f.pool), 40);
        finish(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preallocated_pool_takes_all_its_bytes_at_once),
        cmocka_unit_test(test_last_given_segment_is_taken_first),
        cmocka_unit_test(test_lowest_first_leaves_large_pieces_free),
        cmocka_unit_test(test_highest_run_leaves_what_lies_below_in_one_piece),
        cmocka_unit_test(test_run_is_the_first_that_fits),
        cmocka_unit_test(test_singles_and_runs_never_overlap),
        cmocka_unit_test(test_lazy_pool_pays_in_steps_as_segments_are_touched),
        cmocka_unit_test(test_lazy_pool_gives_free_steps_back_when_asked),
        cmocka_unit_test(test_segment_that_is_paid_for_is_taken_when_nothing_else_can_be),
        cmocka_unit_test(test_last_step_may_be_smaller),
        cmocka_unit_test(test_bad_options_are_refused),
        cmocka_unit_test(test_second_give_ends_the_process),
        cmocka_unit_test(test_threads_never_share_a_segment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
