/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: blocks and the manager agree on every byte, whoever evicts, refuses to go or comes and goes
 * meanwhile. Method: one thread for each rule; then four threads that add, read, remove and acquire
 * execution memory, and the books afterwards.
 */
#include "store/accounts.h"

#include <stdlib.h>

#include "base/sys.h"
#include "carbide/task.h"
#include "support/test.h"

enum { BLOCKS = 64, THREADS = 4, ROUNDS = 3000 };

typedef struct world {
    cb_manager *manager;
    cbi_accounts accounts;
    bool stubborn; /* blocks of data set 7 will not go */
    _Atomic uint64_t dropped;
} world;

/** Where a block is: of a thread, or in the accounts. */
typedef struct cell {
    cbi_lru_entry entry;
    _Atomic bool there;
} cell;

static bool drop(void *ctx, cbi_lru_entry *entry) {
    world *w = ctx;
    if (w->stubborn && entry->data_set == 7) {
        return false;
    }
    w->dropped++;
    ((cell *)entry)->there = false;
    return true;
}

static void open_world(world *w, cb_policy policy, cb_rules rules) {
    cb_error err;
    const cb_manager_options o = {.struct_size = sizeof o,
                                  .rules = rules,
                                  .policy = policy,
                                  .mode = CB_HEAP,
                                  .heap_bytes = 1000,
                                  .heap_storage_bytes = 500,
                                  .off_heap_bytes = 100};
    *w = (world){0};
    assert_ok(cb_manager_create(&o, &w->manager, &err));
    cbi_accounts_init(&w->accounts, w->manager, drop, w);
}

static void close_world(world *w) {
    cbi_accounts_fini(&w->accounts);
    cb_manager_destroy(w->manager);
}

static uint64_t storage_used(const world *w, cb_mode mode) {
    cb_pool_stats stats;
    cb_manager_pool(w->manager, CB_STORAGE, mode, &stats);
    return stats.used;
}

static cell block(uint64_t bytes, int64_t data_set) {
    return (cell){.entry = {.bytes = bytes, .data_set = data_set, .mode = CB_HEAP}, .there = true};
}

static void test_accounts__the_oldest_go_for_the_newest(void **state) {
    (void)state;
    world w;
    cell a = block(600, 1), b = block(400, 2), c = block(500, 3);
    open_world(&w, CB_POLICY_UNIFIED, CB_RULES_NATIVE);
    assert_ok(cbi_accounts_add(&w.accounts, &a.entry, NULL));
    assert_ok(cbi_accounts_add(&w.accounts, &b.entry, NULL));
    assert_true(cbi_accounts_pin(&w.accounts, &b.entry));
    assert_ok(cbi_accounts_add(&w.accounts, &c.entry, NULL));
    assert_false(a.there);
    assert_int_equal(storage_used(&w, CB_HEAP), 900);
    cbi_accounts_unpin(&w.accounts, &b.entry);
    assert_true(cbi_accounts_remove(&w.accounts, &b.entry));
    assert_true(cbi_accounts_remove(&w.accounts, &c.entry));
    assert_int_equal(storage_used(&w, CB_HEAP), 0);
    close_world(&w);
}

static void test_accounts__a_block_that_will_not_go_stays_and_is_paid_for(void **state) {
    (void)state;
    world w;
    cell a = block(600, 7), b = block(400, 2), c = block(900, 3);
    open_world(&w, CB_POLICY_UNIFIED, CB_RULES_NATIVE);
    w.stubborn = true;
    assert_ok(cbi_accounts_add(&w.accounts, &a.entry, NULL));
    assert_ok(cbi_accounts_add(&w.accounts, &b.entry, NULL));
    assert_status(cbi_accounts_add(&w.accounts, &c.entry, NULL), CB_EBUDGET);
    assert_true(a.there);
    assert_false(b.there);
    assert_int_equal(storage_used(&w, CB_HEAP), 600);
    assert_true(cbi_accounts_remove(&w.accounts, &a.entry));
    close_world(&w);
}

static void test_accounts__static_policy_keeps_its_border_and_limits_unrolling(void **state) {
    (void)state;
    world w;
    cell a = block(300, 1), b = block(200, 2), c = block(501, 3);
    open_world(&w, CB_POLICY_STATIC, CB_RULES_SPARK);
    assert_ok(cbi_accounts_add(&w.accounts, &a.entry, NULL));
    assert_ok(cbi_accounts_add(&w.accounts, &b.entry, NULL));
    assert_status(cbi_accounts_add(&w.accounts, &c.entry, NULL), CB_EBUDGET);
    assert_true(a.there);
    /* 0.2 of 500 may be evicted for unrolling; what is there is larger, so one block goes */
    assert_ok(cbi_accounts_acquire_unroll(&w.accounts, CB_HEAP, 100, 4, NULL));
    assert_false(a.there);
    assert_ok(cbi_accounts_acquire_unroll(&w.accounts, CB_HEAP, 200, 4, NULL)); /* free */
    assert_status(cbi_accounts_acquire_unroll(&w.accounts, CB_HEAP, 1, 4, NULL), CB_EBUDGET);
    assert_status(cbi_accounts_acquire_unroll(&w.accounts, CB_OFF_HEAP, 1, 4, NULL),
                  CB_EUNSUPPORTED);
    cb_manager_release_unroll(w.manager, CB_HEAP, 9999); /* no more than was unrolled */
    assert_int_equal(storage_used(&w, CB_HEAP), 200);
    assert_int_equal(cb_manager_storage_max(w.manager, CB_HEAP), 500);
    assert_int_equal(cb_manager_storage_max(w.manager, CB_OFF_HEAP), 0);
    assert_true(cbi_accounts_remove(&w.accounts, &b.entry));
    close_world(&w);
}

static void test_accounts__native_unrolling_evicts_nothing_in_vain(void **state) {
    (void)state;
    world w;
    cell a = block(500, 1);
    open_world(&w, CB_POLICY_STATIC, CB_RULES_NATIVE);
    assert_ok(cbi_accounts_add(&w.accounts, &a.entry, NULL));
    assert_status(cbi_accounts_acquire_unroll(&w.accounts, CB_HEAP, 101, 4, NULL), CB_EBUDGET);
    assert_true(a.there);
    assert_true(cbi_accounts_remove(&w.accounts, &a.entry));
    close_world(&w);
}

/* ---- threads ---- */

typedef struct actor {
    world *world;
    cell *cells; /* BLOCKS of its own */
    unsigned seed;
} actor;

static unsigned next_random(actor *a) {
    a->seed = a->seed * 1103515245u + 12345u;
    return a->seed >> 16;
}

static void act(void *ctx) {
    actor *a = ctx;
    world *w = a->world;
    for (int round = 0; round < ROUNDS; round++) {
        cell *c = &a->cells[next_random(a) % BLOCKS];
        unsigned what = next_random(a) % 4;
        if (!c->there) {
            *c = block(1 + next_random(a) % 300, (int64_t)(next_random(a) % 5));
            if (cbi_accounts_add(&w->accounts, &c->entry, NULL) != CB_OK) {
                c->there = false; /* else it may have been dropped by now */
            }
        } else if (what == 0 && cbi_accounts_remove(&w->accounts, &c->entry)) {
            c->there = false;
        } else if (what > 0 && cbi_accounts_pin(&w->accounts, &c->entry)) {
            cbi_accounts_unpin(&w->accounts, &c->entry);
        } else {
            while (c->there) { /* being evicted: not ours until it is gone */
                cbi_sys_sleep_ns(1000);
            }
        }
    }
}

static void test_accounts__threads_agree_on_every_byte(void **state) {
    (void)state;
    world w;
    actor actors[THREADS];
    cbi_thread threads[THREADS];
    cb_error err;
    open_world(&w, CB_POLICY_UNIFIED, CB_RULES_NATIVE);
    for (unsigned i = 0; i < THREADS; i++) {
        actors[i] = (actor){.world = &w, .cells = calloc(BLOCKS, sizeof(cell)), .seed = i + 1};
        assert_ok(cbi_thread_start(&threads[i], act, &actors[i], "actor", &err));
    }
    uint64_t there = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        cbi_thread_join(&threads[i]);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        for (int b = 0; b < BLOCKS; b++) {
            there += actors[i].cells[b].there ? actors[i].cells[b].entry.bytes : 0;
        }
    }
    assert_int_equal(storage_used(&w, CB_HEAP), there);
    assert_true(w.dropped > 0);
    for (unsigned i = 0; i < THREADS; i++) {
        for (int b = 0; b < BLOCKS; b++) {
            if (actors[i].cells[b].there) {
                assert_true(cbi_accounts_remove(&w.accounts, &actors[i].cells[b].entry));
            }
        }
        free(actors[i].cells);
    }
    assert_int_equal(storage_used(&w, CB_HEAP), 0);
    close_world(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accounts__the_oldest_go_for_the_newest),
        cmocka_unit_test(test_accounts__a_block_that_will_not_go_stays_and_is_paid_for),
        cmocka_unit_test(test_accounts__static_policy_keeps_its_border_and_limits_unrolling),
        cmocka_unit_test(test_accounts__native_unrolling_evicts_nothing_in_vain),
        cmocka_unit_test(test_accounts__threads_agree_on_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
