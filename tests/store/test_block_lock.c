/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: locks of blocks are those of Spark's BlockInfoManager: many readers or one writer, held by
 * tasks, released when these end. Method: its suite's cases, with tasks of one thread where nobody
 * waits and with threads where somebody must; then readers, writers, evictions and removals at
 * once.
 */
#include "block_kit.h"

#include "base/sys.h"

#define SER CB_LEVEL_MEMORY_ONLY_SER

typedef struct locks {
    kit k;
    cb_block_task *one, *two;
} locks;

static void open_locks(locks *l) {
    kit_open(&l->k, (kit_options){.heap = 1 << 20});
    assert_ok(cb_block_task_create(l->k.blocks, 1, 0, &l->one, NULL));
    assert_ok(cb_block_task_create(l->k.blocks, 2, 0, &l->two, NULL));
    assert_ok(kit_put(&l->k, "block", SER, 100));
}

static void close_locks(locks *l) {
    (void)cb_block_task_end(l->one);
    (void)cb_block_task_end(l->two);
    kit_close(&l->k);
}

static cb_status try_lock(locks *l, cb_block_task *task, bool write, cb_block_ref *ref) {
    return cb_blocks_lock(l->k.blocks, task, "block", write, false, ref, NULL);
}

static void test_block_lock__what_is_not_there_cannot_be_locked(void **state) {
    (void)state;
    locks l;
    cb_block_ref ref;
    open_locks(&l);
    assert_status(cb_blocks_lock(l.k.blocks, l.one, "x", false, true, &ref, NULL), CB_ENOTFOUND);
    assert_status(cb_blocks_lock(l.k.blocks, l.one, "x", true, true, &ref, NULL), CB_ENOTFOUND);
    assert_status(cb_blocks_remove(l.k.blocks, l.one, "x", NULL), CB_ENOTFOUND);
    close_locks(&l);
}

static void test_block_lock__readers_share_and_reenter(void **state) {
    (void)state;
    locks l;
    cb_block_ref a, b, c, w;
    open_locks(&l);
    assert_ok(try_lock(&l, l.one, false, &a));
    assert_ok(try_lock(&l, l.one, false, &b));
    assert_ok(try_lock(&l, l.two, false, &c));
    assert_status(try_lock(&l, l.two, true, &w), CB_EAGAIN);
    cb_block_release(&a);
    cb_block_release(&a); /* does nothing */
    assert_status(try_lock(&l, l.two, true, &w), CB_EAGAIN);
    cb_block_release(&b);
    cb_block_release(&c);
    assert_ok(try_lock(&l, l.two, true, &w));
    close_locks(&l);
}

static void test_block_lock__one_writer_and_downgrade(void **state) {
    (void)state;
    locks l;
    cb_block_ref w, r, other;
    open_locks(&l);
    assert_ok(try_lock(&l, l.one, true, &w));
    assert_true(w.writing);
    assert_status(try_lock(&l, l.one, true, &other), CB_EAGAIN);
    assert_status(try_lock(&l, l.two, false, &other), CB_EAGAIN);
    assert_status(cb_blocks_lock(l.k.blocks, l.one, "block", true, true, &other, NULL), CB_EMISUSE);
    assert_status(cb_blocks_lock(l.k.blocks, l.one, "block", false, true, &other, NULL),
                  CB_EMISUSE);
    assert_ok(cb_block_downgrade(&w, NULL));
    assert_status(cb_block_downgrade(&w, NULL), CB_EMISUSE);
    assert_ok(try_lock(&l, l.two, false, &r));
    assert_status(try_lock(&l, l.two, true, &other), CB_EAGAIN);
    assert_int_equal(cb_block_task_end(l.one), 1);
    l.one = NULL;
    cb_block_release(&w); /* its task has let go of it */
    cb_block_release(&r);
    assert_ok(try_lock(&l, l.two, true, &other));
    assert_int_equal(cb_block_task_end(l.two), 1);
    l.two = NULL;
    close_locks(&l);
}

static void test_block_lock__removal_waits_for_others_and_refuses_to_wait_for_itself(void **state) {
    (void)state;
    locks l;
    cb_block_ref r;
    cb_error err;
    open_locks(&l);
    assert_ok(try_lock(&l, l.one, false, &r));
    assert_status(cb_blocks_remove(l.k.blocks, l.one, "block", &err), CB_EMISUSE);
    assert_non_null(strstr(err.message, "wait for itself"));
    assert_true(kit_exists(&l.k, "block"));
    cb_block_release(&r);
    assert_ok(cb_blocks_remove(l.k.blocks, l.one, "block", &err));
    assert_false(kit_exists(&l.k, "block"));
    close_locks(&l);
}

static void
test_block_lock__what_is_retired_is_found_by_nobody_and_goes_with_its_last_reader(void **state) {
    (void)state;
    locks l;
    cb_block_ref a, b, other;
    cb_block_status s;
    open_locks(&l);
    assert_ok(try_lock(&l, l.one, true, &a));
    assert_status(cbi_blocks_retire(l.k.blocks, l.two, "block", 0, NULL), CB_EAGAIN);
    assert_ok(cb_block_downgrade(&a, NULL));
    assert_ok(try_lock(&l, l.two, false, &b));
    assert_ok(cbi_blocks_retire(l.k.blocks, l.two, "block", 0, NULL));
    assert_int_equal(l.k.gone, 1); /* told at once */
    assert_status(cbi_blocks_retire(l.k.blocks, l.two, "block", 0, NULL), CB_ENOTFOUND);
    assert_status(cb_blocks_get(l.k.blocks, l.two, "block", &other, NULL), CB_ENOTFOUND);
    assert_status(cb_blocks_status(l.k.blocks, "block", &s, NULL), CB_ENOTFOUND);
    assert_status(try_lock(&l, l.two, true, &other), CB_EAGAIN); /* its name is taken */
    assert_status(kit_put(&l.k, "block", SER, 100), CB_EEXISTS);
    cb_block_release(&b);
    assert_int_equal(kit_storage(&l.k, CB_HEAP), 100);
    assert_int_equal(a.bytes, 100); /* the last one has what he had */
    cb_block_release(&a);
    assert_int_equal(kit_storage(&l.k, CB_HEAP), 0);
    assert_ok(kit_put(&l.k, "block", SER, 200));
    assert_ok(cbi_blocks_retire(l.k.blocks, l.two, "block", 0, NULL)); /* read by nobody */
    assert_int_equal(kit_storage(&l.k, CB_HEAP), 0);
    assert_status(cbi_blocks_retire(l.k.blocks, l.two, "block", 0, NULL), CB_ENOTFOUND);
    close_locks(&l);
}

static void test_block_lock__a_wait_has_a_deadline(void **state) {
    (void)state;
    locks l;
    cb_block_ref w, r;
    cb_block_task *hasty = NULL;
    open_locks(&l);
    assert_ok(try_lock(&l, l.one, true, &w));
    assert_ok(cb_block_task_create(l.k.blocks, 3, cbi_sys_clock_ns() + 20000000, &hasty, NULL));
    assert_status(cb_blocks_get(l.k.blocks, hasty, "block", &r, NULL), CB_EDEADLINE);
    cb_block_release(&w);
    assert_ok(cb_blocks_get(l.k.blocks, hasty, "block", &r, NULL));
    assert_int_equal(cb_block_task_end(hasty), 1);
    close_locks(&l);
}

/* ---- with threads ---- */

typedef struct waiter {
    locks *l;
    bool write;
    cb_status status;
    _Atomic bool done;
} waiter;

static void wait_for_lock(void *ctx) {
    waiter *w = ctx;
    cb_block_task *task = NULL;
    cb_block_ref ref;
    assert_ok(cb_block_task_create(w->l->k.blocks, 7, 0, &task, NULL));
    w->status = cb_blocks_lock(w->l->k.blocks, task, "block", w->write, true, &ref, NULL);
    (void)cb_block_task_end(task);
    w->done = true;
}

static void test_block_lock__waiters_go_on_or_find_it_gone(void **state) {
    (void)state;
    for (int round = 0; round < 4; round++) {
        bool first_writes = round & 1, removes = round & 2;
        locks l;
        cb_block_ref ref;
        cbi_thread threads[4];
        waiter waiters[4];
        open_locks(&l);
        assert_ok(try_lock(&l, l.one, first_writes, &ref));
        for (int i = 0; i < 4; i++) {
            waiters[i] = (waiter){.l = &l, .write = !first_writes || i % 2 == 0};
            assert_ok(cbi_thread_start(&threads[i], wait_for_lock, &waiters[i], "waiter", NULL));
        }
        cbi_sys_sleep_ns(5000000);
        for (int i = 0; i < 4; i++) {
            assert_false(waiters[i].done);
        }
        if (removes) {
            (void)cb_block_task_end(l.one);
            l.one = NULL;
            assert_ok(cb_blocks_remove(l.k.blocks, l.two, "block", NULL));
        } else {
            cb_block_release(&ref);
        }
        for (int i = 0; i < 4; i++) {
            cbi_thread_join(&threads[i]);
            assert_true(waiters[i].status == CB_OK ||
                        (removes && waiters[i].status == CB_ENOTFOUND));
        }
        close_locks(&l);
    }
}

typedef struct racer {
    cb_block_ref *refs;
    int count;
    _Atomic bool *go;
} racer;

static void release_all(void *ctx) {
    racer *r = ctx;
    while (!*r->go) {
    }
    for (int i = 0; i < r->count; i++) {
        cb_block_release(&r->refs[i]);
    }
}

static void test_block_lock__a_lock_may_be_released_while_its_task_ends(void **state) {
    enum { REFS = 40 };
    (void)state;
    for (int round = 0; round < 60; round++) {
        locks l;
        cb_block_ref refs[REFS], write;
        _Atomic bool go = false;
        cbi_thread thread;
        racer r = {.refs = refs, .count = round % 2 ? 1 : REFS, .go = &go};
        open_locks(&l);
        for (int i = 0; i < r.count; i++) {
            assert_ok(try_lock(&l, l.one, round % 2, &refs[i]));
        }
        assert_ok(cbi_thread_start(&thread, release_all, &r, "racer", NULL));
        go = true;
        (void)cb_block_task_end(l.one);
        l.one = NULL;
        cbi_thread_join(&thread);
        assert_ok(try_lock(&l, l.two, true, &write));
        close_locks(&l);
    }
}

enum { THREADS = 4, ROUNDS = 1500, BLOCKS = 12, BLOCK_BYTES = 1000 };

typedef struct actor {
    kit *k;
    unsigned seed;
    uint64_t found;
} actor;

static unsigned next_random(actor *a) {
    a->seed = a->seed * 1103515245u + 12345u;
    return a->seed >> 16;
}

static void act(void *ctx) {
    actor *a = ctx;
    static uint8_t data[BLOCK_BYTES];
    cb_block_task *task = NULL;
    assert_ok(cb_block_task_create(a->k->blocks, a->seed, 0, &task, NULL));
    for (int round = 0; round < ROUNDS; round++) {
        cb_block_ref ref;
        char name[32];
        unsigned r = next_random(a);
        (void)snprintf(name, sizeof name, "rdd_%u_0", r % BLOCKS);
        cb_level level = r / 16 % 2 ? CB_LEVEL_MEMORY_AND_DISK_SER : SER;
        cb_status status = CB_OK;
        switch (r / 64 % 8) {
            case 0:
                status = r / 32 % 2 ? cb_blocks_remove(a->k->blocks, task, name, NULL)
                                    : cbi_blocks_retire(a->k->blocks, task, name, 0, NULL);
                assert_true(status == CB_OK || status == CB_ENOTFOUND ||
                            (status == CB_EAGAIN && r / 32 % 2 == 0));
                break;
            case 1:
                status = cb_blocks_lock(a->k->blocks, task, name, true, true, &ref, NULL);
                assert_true(status == CB_OK || status == CB_ENOTFOUND);
                if (status == CB_OK) {
                    assert_ok(cb_block_downgrade(&ref, NULL));
                    cb_block_release(&ref);
                }
                break;
            case 2:
            case 3:
            case 4:
                status = cb_blocks_put_bytes(a->k->blocks, task, name, level, NULL, data,
                                             sizeof data, r / 32 % 2 ? &ref : NULL, NULL);
                assert_true(status == CB_OK || status == CB_EEXISTS || status == CB_EBUDGET);
                if (status == CB_OK && r / 32 % 2) {
                    cb_block_release(&ref);
                }
                break;
            default:
                status = cb_blocks_get(a->k->blocks, task, name, &ref, NULL);
                assert_true(status == CB_OK || status == CB_ENOTFOUND);
                if (status == CB_OK) {
                    a->found++;
                    assert_int_equal(ref.bytes, BLOCK_BYTES);
                    if (ref.data != NULL) {
                        assert_memory_equal(ref.data, data, BLOCK_BYTES);
                    }
                    cb_block_release(&ref);
                }
                break;
        }
    }
    assert_int_equal(cb_block_task_end(task), 0);
}

static void test_block_lock__readers_writers_evictions_and_removals_at_once(void **state) {
    (void)state;
    kit k;
    cbi_thread threads[THREADS];
    actor actors[THREADS];
    /* room for five of the twelve */
    kit_open(&k, (kit_options){.heap = 5 * BLOCK_BYTES, .rules = CB_RULES_SPARK, .disk = true});
    for (unsigned i = 0; i < THREADS; i++) {
        actors[i] = (actor){.k = &k, .seed = i + 1};
        assert_ok(cbi_thread_start(&threads[i], act, &actors[i], "actor", NULL));
    }
    uint64_t found = 0;
    for (int i = 0; i < THREADS; i++) {
        cbi_thread_join(&threads[i]);
        found += actors[i].found;
    }
    cb_blocks_stats stats;
    cb_blocks_stats_get(k.blocks, &stats);
    assert_true(found > 100 && stats.evicted > 10 && stats.promoted > 10);
    assert_int_equal(kit_storage(&k, CB_HEAP), stats.memory_bytes);
    kit_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_lock__what_is_not_there_cannot_be_locked),
        cmocka_unit_test(test_block_lock__readers_share_and_reenter),
        cmocka_unit_test(test_block_lock__one_writer_and_downgrade),
        cmocka_unit_test(test_block_lock__removal_waits_for_others_and_refuses_to_wait_for_itself),
        cmocka_unit_test(
            test_block_lock__what_is_retired_is_found_by_nobody_and_goes_with_its_last_reader),
        cmocka_unit_test(test_block_lock__a_wait_has_a_deadline),
        cmocka_unit_test(test_block_lock__waiters_go_on_or_find_it_gone),
        cmocka_unit_test(test_block_lock__a_lock_may_be_released_while_its_task_ends),
        cmocka_unit_test(test_block_lock__readers_writers_evictions_and_removals_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
