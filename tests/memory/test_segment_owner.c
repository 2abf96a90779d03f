/* SPDX-License-Identifier: Apache-2.0 */
/* Segments with owners: what Flink 1.9.3's MemoryManager does, and what it does not catch. */
#include "memory_test.h"

#include <math.h>
#include <pthread.h>

enum { PAGE = 32 * 1024, PAGES = 128, OWNERS = 16 };

typedef struct fixture {
    cb_manager *manager;
    cb_task *task;
    cb_segment_pool *pool;
} fixture;

static const cb_segment_pool_options PREALLOCATED = {
    .struct_size = sizeof PREALLOCATED, .segments_max = PAGES, .preallocate = true};
static const cb_segment_pool_options LAZY = {.struct_size = sizeof LAZY, .segments_max = PAGES};

static fixture make(cb_segment_pool_options options, cb_mode mode) {
    cb_manager_options manager = {.struct_size = sizeof manager,
                                  .mode = mode,
                                  .heap_bytes = 64 * MIB,
                                  .off_heap_bytes = 64 * MIB,
                                  .storage_fraction = 0};
    fixture f = {.manager = make_manager(&manager)};
    f.task = make_task(f.manager, 1);
    options.task = f.task;
    assert_ok(cb_segment_pool_create(&options, &f.pool, err));
    return f;
}

static void finish(fixture *f) {
    cb_segment_pool_destroy(f->pool);
    assert_int_equal(cb_task_end(f->task, NULL, 0), 0);
    cb_manager_destroy(f->manager);
}

static cb_segment_owner *make_owner(const fixture *f, const char *name) {
    cb_segment_owner *owner = NULL;
    assert_ok(cb_segment_owner_create(f->pool, name, &owner, err));
    return owner;
}

static bool is_empty(const fixture *f) {
    cb_segment_pool_stats stats;
    cb_segment_pool_get_stats(f->pool, &stats);
    return stats.empty;
}

static uint64_t random_next(uint64_t *x) {
    *x ^= *x << 13, *x ^= *x >> 7, *x ^= *x << 17;
    return *x;
}

/** Each of the four kinds of pool. */
static void in_every_pool(void (*body)(fixture *f)) {
    for (int k = 0; k < 4; k++) {
        fixture f = make((k & 1) != 0 ? LAZY : PREALLOCATED, (k & 2) != 0 ? CB_OFF_HEAP : CB_HEAP);
        body(&f);
        assert_true(is_empty(&f));
        finish(&f);
    }
}

static void take_all_one_by_one(fixture *f) {
    cb_segment_owner *o = make_owner(f, "all");
    for (int i = 0; i < PAGES; i++) {
        cb_segment s = {0};
        assert_ok(cb_segment_take(o, 1, &s, err));
        assert_non_null(s.data);
        assert_int_equal(s.bytes, PAGE);
        assert_ptr_equal(s.owner, o);
        memset(s.data, i, PAGE);
    }
    assert_false(is_empty(f));
    assert_int_equal(cb_segment_owner_give_all(o), PAGES);
}

static void test_whole_pool_is_taken_one_by_one(void **state) {
    (void)state;
    in_every_pool(take_all_one_by_one);
}

static void take_all_at_once(fixture *f) {
    cb_segment_owner *o = make_owner(f, "all");
    cb_segment s[PAGES];
    assert_ok(cb_segment_take(o, PAGES, s, err));
    for (int i = 0; i < PAGES; i++) {
        memset(s[i].data, i, PAGE);
    }
    for (int i = 0; i < PAGES; i++) { /* no two are the same memory */
        assert_int_equal(s[i].data[0], i);
        assert_int_equal(s[i].data[PAGE - 1], i);
    }
    assert_int_equal(cb_segment_owner_count(o), PAGES);
    assert_ok(cb_segment_give_list(s, PAGES, err));
    assert_null(s[0].data);
    assert_int_equal(cb_segment_owner_count(o), 0);
}

static void test_whole_pool_is_taken_at_once(void **state) {
    (void)state;
    in_every_pool(take_all_at_once);
}

static void many_owners(fixture *f) {
    cb_segment_owner *o[OWNERS];
    size_t held[OWNERS] = {0}, left = PAGES;
    uint64_t x = 643196033469871;
    for (int i = 0; i < OWNERS; i++) {
        o[i] = make_owner(f, "one of many");
    }
    while (left > 0) {
        size_t who = random_next(&x) % OWNERS;
        cb_segment s;
        assert_ok(cb_segment_take(o[who], 1, &s, err));
        held[who]++;
        left--;
    }
    for (int i = 0; i < OWNERS; i++) {
        assert_int_equal(cb_segment_owner_count(o[i]), held[i]);
        assert_int_equal(cb_segment_owner_give_all(o[i]), held[i]);
    }
}

static void test_all_of_one_owner_come_back_together(void **state) {
    (void)state;
    in_every_pool(many_owners);
}

static void refuse_too_many(fixture *f) {
    cb_segment_owner *o = make_owner(f, "greedy");
    cb_segment s[PAGES], one = {0};
    assert_ok(cb_segment_take(o, PAGES - 10, s, err));
    cb_error why = {0};
    assert_int_equal(cb_segment_take(o, 11, &s[PAGES - 10], &why), CB_EBUDGET);
    assert_non_null(strstr(why.message, "Could not allocate 11 segments of 32768 bytes. Only 10 "));
    assert_int_equal(why.bytes_asked, 11 * PAGE);
    assert_int_equal(why.bytes_had, 10 * PAGE);
    assert_ok(cb_segment_take(o, 10, &s[PAGES - 10], err));
    assert_int_equal(cb_segment_take(o, 1, &one, NULL), CB_EBUDGET);
    assert_null(one.data);
    assert_ok(cb_segment_take(o, 0, &one, err));
    assert_int_equal(cb_segment_owner_count(o), PAGES);
    assert_int_equal(cb_segment_owner_give_all(o), PAGES);
}

static void test_more_than_is_free_is_refused_with_the_figures(void **state) {
    (void)state;
    in_every_pool(refuse_too_many);
}

static void catch_misuse(fixture *f) {
    cb_segment_owner *a = make_owner(f, "a"), *b = make_owner(f, "b");
    cb_segment s, copy, again, list[3];
    assert_ok(cb_segment_take(a, 1, &s, err));
    copy = s;
    assert_ok(cb_segment_give(&s, err));
    cb_error why = {0};
    assert_int_equal(cb_segment_give(&s, &why), CB_EMISUSE);
    assert_non_null(strstr(why.message, "given back before"));
    assert_int_equal(cb_segment_give(&copy, NULL), CB_EMISUSE);
    assert_ok(cb_segment_take(b, 1, &again, err));
    assert_ptr_equal(again.data, copy.data); /* the same memory with another owner */
    assert_int_equal(cb_segment_give(&copy, NULL), CB_EMISUSE);
    assert_int_equal(cb_segment_owner_count(b), 1);
    list[0] = list[2] = again;
    assert_ok(cb_segment_take(a, 1, &list[1], err));
    assert_int_equal(cb_segment_give_list(list, 3, &why), CB_EMISUSE);
    assert_non_null(strstr(why.message, "Segment 2 of the 3"));
    assert_int_equal(cb_segment_owner_count(a) + cb_segment_owner_count(b), 2);
    assert_ok(cb_segment_give_list(list, 2, err));
    assert_int_equal(cb_segment_give_list(&list[2], 1, NULL), CB_EMISUSE);
    cb_segment none = {0};
    assert_int_equal(cb_segment_give(&none, &why), CB_EMISUSE);
    assert_non_null(strstr(why.message, "never filled"));
    assert_int_equal(cb_segment_give_list(&none, 1, NULL), CB_EMISUSE);
    assert_ok(cb_segment_give_list(NULL, 0, err));
}

static void test_second_give_is_caught_through_any_copy(void **state) {
    (void)state;
    in_every_pool(catch_misuse);
}

static void one_out_of_the_middle(fixture *f) {
    cb_segment_owner *o = make_owner(f, "o");
    cb_segment s[5], held[5];
    assert_ok(cb_segment_take(o, 5, s, err));
    assert_int_equal(cb_segment_owner_list(o, held, 5), 5);
    assert_ok(cb_segment_give(&s[2], err));
    assert_ok(cb_segment_give(&s[4], err));
    assert_ok(cb_segment_give(&s[0], err));
    assert_int_equal(cb_segment_owner_list(o, held, 1), 2);
    assert_int_equal(cb_segment_owner_list(o, held, 5), 2);
    assert_true((held[0].data == s[3].data) != (held[0].data == s[1].data));
    assert_true((held[1].data == s[3].data) != (held[1].data == s[1].data));
    assert_ok(cb_segment_give_list(held, 2, err));
    assert_int_equal(cb_segment_give(&s[1], NULL), CB_EMISUSE);
}

static void test_owner_knows_what_it_holds(void **state) {
    (void)state;
    in_every_pool(one_out_of_the_middle);
}

static void test_owner_that_ends_gives_all_back(void **state) {
    (void)state;
    fixture f = make(PREALLOCATED, CB_OFF_HEAP);
    cb_segment_owner *a = make_owner(&f, "a"), *b = make_owner(&f, "b"), *c = make_owner(&f, "c");
    cb_segment s[2], t;
    assert_ok(cb_segment_take(b, 2, s, err));
    assert_ok(cb_segment_take(c, 1, &t, err));
    assert_string_equal(cb_segment_owner_name(b), "b");
    cb_segment_owner_destroy(b);
    assert_int_equal(cb_segment_give(&s[0], NULL), CB_EMISUSE);
    assert_int_equal(cb_segment_pool_free_count(f.pool), PAGES - 1);
    cb_segment_owner_destroy(c);
    cb_segment_owner_destroy(a);
    cb_segment_owner_destroy(NULL);
    assert_true(is_empty(&f));
    cb_segment_owner *still = make_owner(&f, NULL);
    assert_ok(cb_segment_take(still, 2, s, err)); /* the pool's end ends it */
    finish(&f);
}

static void test_nothing_comes_from_a_pool_that_is_shut_down(void **state) {
    (void)state;
    for (int lazy = 0; lazy < 2; lazy++) {
        fixture f = make(lazy != 0 ? LAZY : PREALLOCATED, CB_HEAP);
        cb_segment_owner *o = make_owner(&f, "o");
        cb_segment s[3], kept;
        assert_ok(cb_segment_take(o, 3, s, err));
        kept = s[1];
        void *raw = cb_segment_pool_take(f.pool, 1);
        cb_error why = {0};
        assert_int_equal(cb_segment_pool_shutdown(f.pool, &why), CB_EMISUSE);
        assert_non_null(strstr(why.message, "1 segments are out that have no owner"));
        cb_segment_pool_give(f.pool, raw, 1);
        assert_ok(cb_segment_give(&s[0], err));
        assert_ok(cb_segment_pool_shutdown(f.pool, err));
        assert_ok(cb_segment_pool_shutdown(f.pool, err));
        cb_segment_pool_stats stats;
        cb_segment_pool_get_stats(f.pool, &stats);
        assert_true(stats.shut_down);
        assert_false(stats.empty);
        assert_int_equal(stats.taken + stats.owned, 0);
        assert_int_equal(stats.segments, PAGES);
        assert_int_equal(cb_task_used(f.task), 0);
        assert_int_equal(cb_segment_take(o, 1, &s[0], &why), CB_EMISUSE);
        assert_string_equal(why.message, "The segment pool has been shut down.");
        assert_null(cb_segment_pool_take(f.pool, 1));
        assert_int_equal(cb_segment_give(&kept, NULL), CB_EMISUSE);
        assert_int_equal(cb_segment_owner_give_all(o), 0);
        finish(&f);
    }
}

static void test_share_of_a_slot_is_rounded_down(void **state) {
    (void)state;
    const cb_segment_pool_options options = {.struct_size = sizeof options,
                                             .bytes = 1000000,
                                             .segment_bytes = 4096,
                                             .slots = 3,
                                             .type = CB_SEGMENTS_OFF_HEAP};
    fixture f = make(options, CB_HEAP);
    cb_segment_pool_stats stats;
    cb_segment_pool_get_stats(f.pool, &stats);
    assert_int_equal(stats.segments, 244);
    assert_int_equal(stats.mode, CB_OFF_HEAP);
    assert_false(stats.preallocated);
    size_t pages = 0;
    assert_ok(cb_segment_pool_share(f.pool, 0.3, &pages, err));
    assert_int_equal(pages, 24);
    assert_ok(cb_segment_pool_share(f.pool, 1, &pages, err));
    assert_int_equal(pages, 81);
    const double bad[] = {0, -0.1, 1.0001, (double)NAN, (double)INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(cb_segment_pool_share(f.pool, bad[i], &pages, NULL), CB_EINVAL);
    }
    assert_int_equal(pages, 81);
    assert_int_equal(cb_segment_pool_round_down(f.pool, 10000), 8192);
    assert_int_equal(cb_segment_pool_round_down(f.pool, 4095), 0);
    assert_int_equal(cb_segment_pool_round_down(f.pool, UINT64_MAX), UINT64_MAX - 4095);
    finish(&f);
}

static void test_pool_that_breaks_a_rule_is_not_made(void **state) {
    (void)state;
    fixture f = make(PREALLOCATED, CB_HEAP);
    const struct {
        uint64_t bytes;
        size_t page;
        const char *rule;
    } bad[] = {{0, 4096, "was given 0"},
               {1000000, 5000, "power of two"},
               {1000000, 2048, "at least 4096"},
               {10, 4096, "less than one segment"},
               {(uint64_t)INT32_MAX * 4096 + 4096, 4096, "at most 2147483647"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cb_segment_pool_options o = {.struct_size = sizeof o,
                                     .task = f.task,
                                     .bytes = bad[i].bytes,
                                     .segment_bytes = bad[i].page};
        cb_segment_pool *pool = NULL;
        cb_error why = {0};
        assert_int_equal(cb_segment_pool_create(&o, &pool, &why), CB_EINVAL);
        assert_non_null(strstr(why.message, bad[i].rule));
        assert_null(pool);
    }
    finish(&f);
}

static void test_lazy_segments_are_refused_when_the_task_has_no_bytes(void **state) {
    (void)state;
    cb_manager *m = make_native(MIB, 1);
    fixture f = {.manager = m, .task = make_task(m, 1)};
    cb_segment_pool_options o = LAZY;
    o.task = f.task;
    assert_ok(cb_segment_pool_create(&o, &f.pool, err));
    cb_segment_owner *owner = make_owner(&f, "o");
    cb_segment s[PAGES];
    cb_error why = {0};
    assert_int_equal(cb_segment_take(owner, 33, s, &why), CB_EBUDGET);
    assert_non_null(strstr(why.message, "its task cannot have the bytes"));
    assert_int_equal(cb_segment_owner_count(owner), 0);
    assert_int_equal(cb_segment_pool_free_count(f.pool), PAGES);
    assert_ok(cb_segment_take(owner, 32, s, err));
    finish(&f);
}

/* ---- threads ---- */

typedef struct worker {
    pthread_t thread;
    cb_segment_owner *owner, *common;
    cb_segment *shared; /* copies of one list: each of its segments can be given by one thread */
    size_t given;
    uint8_t id;
    bool clash;
} worker;

static void take_fill_give(worker *w, cb_segment_owner *owner, size_t count) {
    cb_segment s[8];
    if (cb_segment_take(owner, count, s, NULL) != CB_OK) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        memset(s[i].data, w->id, 64);
    }
    for (size_t i = 0; i < count; i++) {
        w->clash = w->clash || s[i].data[0] != w->id || s[i].data[63] != w->id;
    }
    cb_status status = count % 2 == 0 ? cb_segment_give_list(s, count, NULL) : CB_OK;
    for (size_t i = 0; count % 2 != 0 && i < count && status == CB_OK; i++) {
        status = cb_segment_give(&s[i], NULL);
    }
    w->clash = w->clash || status != CB_OK;
}

static void *work(void *ctx) {
    worker *w = ctx;
    for (size_t i = 0; i < 20000; i++) {
        take_fill_give(w, i % 3 == 0 ? w->common : w->owner, 1 + i % 8);
    }
    for (size_t i = 0; i < PAGES / 2; i++) {
        w->given += cb_segment_give(&w->shared[i], NULL) == CB_OK;
    }
    return NULL;
}

static void test_threads_share_a_pool_and_an_owner(void **state) {
    (void)state;
    for (int lazy = 0; lazy < 2; lazy++) {
        enum { THREADS = 4 };
        fixture f = make(lazy != 0 ? LAZY : PREALLOCATED, CB_HEAP);
        cb_segment_owner *common = make_owner(&f, "common");
        cb_segment shared[THREADS][PAGES / 2];
        assert_ok(cb_segment_take(common, PAGES / 2, shared[0], err));
        worker w[THREADS];
        for (uint8_t i = 0; i < THREADS; i++) {
            memmove(shared[i], shared[0], sizeof shared[0]);
            w[i] = (worker){.owner = make_owner(&f, "own"), .common = common, .id = i};
            w[i].shared = shared[i];
        }
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
        }
        size_t given = 0;
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_join(w[i].thread, NULL), 0);
            assert_false(w[i].clash);
            given += w[i].given;
        }
        assert_int_equal(given, PAGES / 2); /* each once, whoever was first */
        assert_true(is_empty(&f));
        finish(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_pool_is_taken_one_by_one),
        cmocka_unit_test(test_whole_pool_is_taken_at_once),
        cmocka_unit_test(test_all_of_one_owner_come_back_together),
        cmocka_unit_test(test_more_than_is_free_is_refused_with_the_figures),
        cmocka_unit_test(test_second_give_is_caught_through_any_copy),
        cmocka_unit_test(test_owner_knows_what_it_holds),
        cmocka_unit_test(test_owner_that_ends_gives_all_back),
        cmocka_unit_test(test_nothing_comes_from_a_pool_that_is_shut_down),
        cmocka_unit_test(test_share_of_a_slot_is_rounded_down),
        cmocka_unit_test(test_pool_that_breaks_a_rule_is_not_made),
        cmocka_unit_test(test_lazy_segments_are_refused_when_the_task_has_no_bytes),
        cmocka_unit_test(test_threads_share_a_pool_and_an_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
