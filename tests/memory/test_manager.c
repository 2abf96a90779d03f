/* SPDX-License-Identifier: Apache-2.0 */
/* The manager's side: storage with a store that evicts, the ledger, a parent, shrinking, the tree,
 * refused options. */
#include "memory_test.h"

#include <pthread.h>

#include "memory/manager.h"

/* ---- a store: blocks in LRU order, evicted in two phases ---- */

enum { BLOCKS_MAX = 16 };

typedef struct store {
    cb_manager *manager;
    struct {
        char name[16];
        cb_mode mode;
        uint64_t bytes;
        bool marked, stays; /* stays: its drop fails */
    } blocks[BLOCKS_MAX];
    int count;
    int chosen, dropped, undone;
    void (*meanwhile)(struct store *s); /* between choose and drop */
} store;

static uint64_t choose(void *ctx, cb_mode mode, uint64_t bytes, const void *block, void **victims) {
    store *s = ctx;
    assert_false(cbi_lock_is_held(&s->manager->lock)); /* no callback under a lock */
    uint64_t found = 0;
    uintptr_t mine = 0; /* a bit a block */
    for (int i = 0; i < s->count && found < bytes; i++) {
        if (s->blocks[i].mode == mode && !s->blocks[i].marked && s->blocks[i].bytes > 0 &&
            (block == NULL || strcmp(block, s->blocks[i].name) != 0)) {
            mine |= (uintptr_t)1 << i;
            found += s->blocks[i].bytes;
        }
    }
    if (found < bytes) {
        return 0;
    }
    for (int i = 0; i < s->count; i++) {
        s->blocks[i].marked = s->blocks[i].marked || (mine >> i & 1) != 0;
    }
    s->chosen++;
    *victims = (void *)mine;
    return found;
}

static uint64_t drop(void *ctx, void *victims) {
    store *s = ctx;
    assert_false(cbi_lock_is_held(&s->manager->lock));
    if (s->meanwhile != NULL) {
        s->meanwhile(s);
    }
    uint64_t dropped = 0;
    for (int i = 0; i < s->count; i++) {
        if (((uintptr_t)victims >> i & 1) != 0) {
            assert_true(s->blocks[i].marked);
            s->blocks[i].marked = false;
            if (!s->blocks[i].stays) {
                dropped += s->blocks[i].bytes;
                s->blocks[i].bytes = 0;
            }
        }
    }
    s->dropped++;
    return dropped;
}

static void undo(void *ctx, void *victims) {
    (void)victims;
    store *s = ctx;
    s->undone++;
}

static void attach(store *s, cb_manager *m) {
    *s = (store){.manager = m};
    cb_store interface = {.choose = choose, .drop = drop, .undo = undo, .ctx = s};
    cb_manager_set_store(m, &interface);
}

static bool put(store *s, const char *name, uint64_t bytes, cb_mode mode) {
    if (cb_manager_acquire_storage(s->manager, mode, bytes, name, NULL) != CB_OK) {
        return false;
    }
    int i = s->count++;
    (void)snprintf(s->blocks[i].name, sizeof s->blocks[i].name, "%s", name);
    s->blocks[i].mode = mode;
    s->blocks[i].bytes = bytes;
    return true;
}

/* ---- storage ---- */

static void test_storage_borrows_free_execution_memory(void **state) {
    (void)state;
    cb_manager *m = make_spark(1000, 500);
    store s;
    attach(&s, m);
    assert_true(put(&s, "a", 700, CB_HEAP));
    cb_pool_stats stor = pool_of(m, CB_STORAGE, CB_HEAP), exec = pool_of(m, CB_EXECUTION, CB_HEAP);
    assert_int_equal(stor.size, 700);
    assert_int_equal(exec.size, 300);
    assert_int_equal(s.chosen, 0);
    cb_manager_release_storage(m, CB_HEAP, 700);
    assert_int_equal(pool_of(m, CB_STORAGE, CB_HEAP).used, 0);
    cb_manager_destroy(m);
}

static void test_storage_never_takes_from_execution(void **state) {
    (void)state;
    cb_manager *m = make_spark(1000, 500);
    store s;
    attach(&s, m);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 800), 800);
    assert_int_equal(cb_manager_storage_max(m, CB_HEAP), 200);
    cb_error err = {0};
    assert_int_equal(cb_manager_acquire_storage(m, CB_HEAP, 201, NULL, &err), CB_EBUDGET);
    assert_int_equal(err.bytes_had, 200);
    assert_int_equal(s.chosen, 0); /* what cannot fit evicts nothing */
    assert_true(put(&s, "a", 200, CB_HEAP));
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_execution_evicts_what_storage_borrowed_and_no_more(void **state) {
    (void)state;
    cb_manager *m = make_spark(1000, 500);
    store s;
    attach(&s, m);
    for (int i = 0; i < 9; i++) {
        assert_true(put(&s, "b", 100, CB_HEAP));
    }
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 300), 300); /* 100 were free, 200 evicted */
    assert_int_equal(pool_of(m, CB_STORAGE, CB_HEAP).used, 700);
    assert_int_equal(acquire(c, 400), 200); /* down to the region */
    cb_pool_stats stor = pool_of(m, CB_STORAGE, CB_HEAP);
    assert_int_equal(stor.used, 500);
    assert_int_equal(stor.size, 500);
    assert_int_equal(stor.held, 0);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_storage_evicts_for_a_new_block(void **state) {
    (void)state;
    cb_manager *m = make_spark(1000, 500);
    store s;
    attach(&s, m);
    assert_true(put(&s, "a", 600, CB_HEAP));
    assert_true(put(&s, "b", 300, CB_HEAP));
    assert_true(put(&s, "c", 500, CB_HEAP)); /* a goes */
    assert_int_equal(s.blocks[0].bytes, 0);
    assert_int_equal(pool_of(m, CB_STORAGE, CB_HEAP).used, 800);
    assert_false(
        put(&s, "b", 800, CB_HEAP)); /* its own kin does not go, c alone does not suffice */
    assert_int_equal(pool_of(m, CB_STORAGE, CB_HEAP).used, 800);
    cb_manager_release_all_storage(m);
    assert_int_equal(pool_of(m, CB_STORAGE, CB_HEAP).used, 0);
    cb_manager_destroy(m);
}

static void test_block_whose_drop_fails_stays_and_is_still_counted(void **state) {
    (void)state;
    cb_manager *m = make_spark(1000, 0);
    store s;
    attach(&s, m);
    assert_true(put(&s, "a", 600, CB_HEAP));
    assert_true(put(&s, "b", 400, CB_HEAP));
    s.blocks[0].stays = true;
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 800), 400);
    cb_pool_stats stor = pool_of(m, CB_STORAGE, CB_HEAP);
    assert_int_equal(stor.used, 600);
    assert_int_equal(stor.size, 600);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static cb_status meanwhile_status;
static uint64_t meanwhile_granted;
static cb_consumer *meanwhile_consumer;

/** While blocks are on their way out somebody else asks for all there is. */
static void ask_for_more(store *s) {
    s->meanwhile = NULL;
    meanwhile_status = cb_consumer_acquire(meanwhile_consumer, 1000, &meanwhile_granted, NULL);
}

static void test_bytes_on_their_way_out_are_promised_to_who_asked(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(1000 + 8 * KIB);
    cb_manager *m = make_manager(&options);
    store s;
    attach(&s, m);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    meanwhile_consumer = make_consumer_of(t, "d", CB_OFF_HEAP, NULL, NULL);
    assert_true(put(&s, "a", 500, CB_OFF_HEAP));
    assert_true(put(&s, "b", 400, CB_OFF_HEAP));
    s.meanwhile = ask_for_more;
    assert_int_equal(acquire(c, 600), 600);
    assert_int_equal(meanwhile_status, CB_OK);
    assert_int_equal(meanwhile_granted, 400); /* the other block, not the promised bytes */
    cb_pool_stats exec = pool_of(m, CB_EXECUTION, CB_OFF_HEAP);
    assert_int_equal(exec.used, 1000);
    assert_int_equal(exec.held, 0);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

typedef struct waiting {
    pthread_t thread;
    cb_consumer *consumer;
    uint64_t granted;
    cb_status status;
} waiting;

static void *acquire_400(void *ctx) {
    waiting *w = ctx;
    w->status = cb_consumer_acquire(w->consumer, 400, &w->granted, NULL);
    return NULL;
}

static void test_release_of_storage_wakes_who_waits_for_execution(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(1000 + 16 * KIB);
    options.off_heap_storage_bytes = 600;
    cb_manager *m = make_manager(&options); /* no store: blocks cannot be evicted */
    cb_task *t = make_task(m, 1);
    cb_task *u = make_task(m, 2);
    cb_consumer *a = make_consumer_of(t, "a", CB_OFF_HEAP, NULL, NULL);
    assert_ok(cb_manager_acquire_storage(m, CB_OFF_HEAP, 600, "x", err));
    uint64_t all = pool_of(m, CB_EXECUTION, CB_OFF_HEAP).free;
    assert_int_equal(acquire(a, all), all);
    waiting w = {.consumer = make_consumer_of(u, "b", CB_OFF_HEAP, NULL, NULL)};
    assert_int_equal(pthread_create(&w.thread, NULL, acquire_400, &w), 0);
    char tree[2048];
    do {
        cbi_sys_sleep_ns(100000);
        (void)cb_manager_tree(m, tree, sizeof tree);
    } while (strstr(tree, ", waiting") == NULL);
    cb_manager_release_storage(m, CB_OFF_HEAP, 600);
    assert_int_equal(pthread_join(w.thread, NULL), 0);
    assert_int_equal(w.status, CB_OK);
    assert_int_equal(w.granted, 400);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static void test_refused_eviction_with_waiters_does_not_spin(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(1000 + 16 * KIB);
    cb_manager *m = make_manager(&options);
    store s;
    attach(&s, m);
    cb_task *t = make_task(m, 1), *u = make_task(m, 2);
    cb_consumer *a = make_consumer_of(t, "a", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *b = make_consumer_of(u, "b", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(a, 500), 500);
    assert_ok(cb_manager_acquire_storage(m, CB_OFF_HEAP, 500, "x",
                                         err)); /* not in the store: cannot be chosen */
    cb_task_set_deadline(u, cbi_sys_clock_ns() + 20000000);
    uint64_t granted;
    cb_status status = cb_consumer_acquire(b, 400, &granted, NULL);
    assert_true(status == CB_EDEADLINE || status == CB_OK);
    (void)cb_task_end(t, NULL, 0);
    (void)cb_task_end(u, NULL, 0);
    cb_manager_destroy(m);
}

static char warning[256];

static void hear(void *ctx, const char *sentence) {
    (void)ctx;
    (void)snprintf(warning, sizeof warning, "%s", sentence);
}

static void test_releasing_more_storage_than_used_is_warned_of(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(1000);
    options.warn = hear;
    cb_manager *m = make_manager(&options);
    assert_ok(cb_manager_acquire_unroll(m, CB_OFF_HEAP, 10, NULL, err));
    cb_manager_release_unroll(m, CB_OFF_HEAP, 11);
    assert_non_null(strstr(warning, "11 bytes"));
    assert_int_equal(pool_of(m, CB_STORAGE, CB_OFF_HEAP).used, 0);
    cb_manager_destroy(m);
}

/* ---- ledger ---- */

static void test_ledger_takes_from_the_budget(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_ledger_entry *stacks = NULL, *codecs = NULL;
    assert_ok(cb_ledger_add(m, "stacks", NULL, NULL, &stacks, err));
    assert_ok(cb_ledger_add(m, "codecs", NULL, NULL, &codecs, err));
    cb_task *t = make_task(m, 1);
    assert_ok(cb_ledger_set(stacks, 300, err));
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 1000), 700);
    cb_error err = {0};
    assert_int_equal(cb_ledger_set(codecs, 1, &err), CB_EBUDGET);
    assert_non_null(strstr(err.message, "codecs"));
    assert_int_equal(cb_ledger_bytes(codecs), 0);
    assert_int_equal(cb_ledger_set(stacks, 100, NULL), CB_OK);
    assert_int_equal(cb_ledger_set(codecs, 50, NULL), CB_OK);
    assert_int_equal(acquire(c, 1000), 150);
    assert_int_equal(cb_ledger_peak(stacks), 300);
    cb_ledger_remove(stacks);
    cb_ledger_remove(NULL);
    assert_int_equal(acquire(c, 1000), 100);
    assert_int_equal(cb_manager_accounted(m), 1000 + 8 * KIB);
    assert_int_equal(cb_manager_accounted_peak(m), 1000 + 8 * KIB);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_what_cannot_be_refused_is_a_debt_that_releases_pay(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    cb_ledger_entry *baseline = NULL;
    assert_ok(cb_ledger_add(m, "baseline", NULL, NULL, &baseline, err));
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 900), 900);
    cb_ledger_force(baseline, 300);
    assert_int_equal(cb_manager_debt(m), 200);
    char tree[2048];
    (void)cb_manager_tree(m, tree, sizeof tree);
    assert_non_null(strstr(tree, ", 200 B over it"));
    cb_consumer_release(c, 150);
    assert_int_equal(cb_manager_debt(m), 50);
    assert_int_equal(acquire(c, 10), 0);
    cb_consumer_release(c, 150);
    assert_int_equal(cb_manager_debt(m), 0);
    assert_int_equal(acquire(c, 1000), 100);
    cb_ledger_force(baseline, 0);
    assert_int_equal(acquire(c, 1000), 300);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static uint64_t measured;

static uint64_t measure(void *ctx) {
    (void)ctx;
    return measured;
}

static void test_measured_entry_follows_its_measure(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 0);
    cb_ledger_entry *e = NULL, *small = NULL;
    assert_ok(cb_ledger_add(m, "tables", measure, NULL, &e, err));
    measured = 123;
    cb_ledger_refresh(m);
    assert_int_equal(cb_ledger_bytes(e), 123);
    assert_int_equal(pool_of(m, CB_EXECUTION, CB_OFF_HEAP).size, 877);
    measured = 23;
    cb_ledger_refresh(m);
    assert_int_equal(pool_of(m, CB_EXECUTION, CB_OFF_HEAP).size, 977);
    assert_ok(cb_ledger_add(m, "small objects", cb_ledger_small_objects, NULL, &small, err));
    cb_ledger_refresh(m);
    uint64_t objects = cb_ledger_bytes(small);
    assert_true(objects > 0);
    cb_allocator_options options = {.struct_size = sizeof options, .mode = CB_HEAP};
    cb_allocator *heap = NULL;
    cb_page page;
    assert_ok(cb_allocator_create(&options, &heap, err));
    assert_ok(cb_allocator_allocate(heap, 60000, &page, err)); /* a page, not a small object */
    assert_in_range(cb_ledger_small_objects(NULL), objects, objects + 20000);
    assert_ok(cb_allocator_free(heap, &page, err));
    cb_allocator_destroy(heap);
    cb_manager_destroy(m);
}

/* ---- parent ---- */

typedef struct parent {
    cb_manager *manager;
    uint64_t has, given;
    uint64_t shrink_on_acquire;
} parent;

static uint64_t parent_acquire(void *ctx, cb_mode mode, uint64_t bytes) {
    parent *p = ctx;
    assert_int_equal(mode, CB_OFF_HEAP);
    assert_int_equal(bytes % CB_PARENT_STEP_BYTES, 0);
    uint64_t got = bytes < p->has ? bytes : p->has;
    p->has -= got;
    p->given += got;
    if (p->shrink_on_acquire > 0) { /* as Spark would: it asks its other consumers, us among them */
        uint64_t wanted = p->shrink_on_acquire;
        p->shrink_on_acquire = 0;
        (void)cb_manager_shrink(p->manager, mode, wanted);
    }
    return got;
}

static void parent_release(void *ctx, cb_mode mode, uint64_t bytes) {
    (void)mode;
    parent *p = ctx;
    p->given -= bytes;
    p->has += bytes;
}

static cb_manager *make_child(parent *p, uint64_t limit) {
    static cb_parent interface;
    interface = (cb_parent){.acquire = parent_acquire, .release = parent_release, .ctx = p};
    cb_manager_options options = cb_manager_options_native(limit);
    options.parent = &interface;
    options.rules = CB_RULES_NATIVE;
    p->manager = make_manager(&options);
    return p->manager;
}

typedef struct holder {
    cb_consumer *consumer;
} holder;

static int64_t release_to_anyone(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)asker;
    holder *h = ctx;
    uint64_t used = cb_consumer_used(h->consumer), released = bytes < used ? bytes : used;
    cb_consumer_release(h->consumer, released);
    return (int64_t)released;
}

static void test_manager_draws_from_its_parent_and_returns(void **state) {
    (void)state;
    parent p = {.has = 64 * MIB};
    cb_manager *m = make_child(&p, 10 * MIB);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 100), 100);
    assert_int_equal(p.given, MIB);
    assert_int_equal(acquire(c, 3 * MIB), 3 * MIB);
    assert_int_equal(p.given, 4 * MIB);
    assert_in_range(acquire(c, 20 * MIB), 6 * MIB, 7 * MIB); /* the limit */
    assert_int_equal(p.given, 10 * MIB);
    cb_consumer_release(c, cb_consumer_used(c));
    assert_in_range(p.given, 0, 2 * MIB); /* a step may stay */
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
    assert_int_equal(p.given, 0);
    assert_int_equal(p.has, 64 * MIB);
}

static void test_parent_that_has_nothing_is_a_refusal(void **state) {
    (void)state;
    parent p = {.has = 2 * MIB};
    cb_manager *m = make_child(&p, 10 * MIB);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    assert_in_range(acquire(c, 5 * MIB), MIB, 2 * MIB);
    assert_int_equal(cb_consumer_acquire_all(c, MIB, NULL), CB_EBUDGET);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
    assert_int_equal(p.has, 2 * MIB);
}

static void test_ledger_and_storage_draw_from_the_parent_too(void **state) {
    (void)state;
    parent p = {.has = 64 * MIB};
    cb_manager *m = make_child(&p, 10 * MIB);
    cb_ledger_entry *e = NULL;
    assert_ok(cb_ledger_add(m, "stacks", NULL, NULL, &e, err));
    assert_ok(cb_ledger_set(e, MIB + 1, err));
    assert_int_equal(p.given, 2 * MIB);
    assert_ok(cb_manager_acquire_storage(m, CB_OFF_HEAP, 3 * MIB, NULL, err));
    assert_in_range(p.given, 4 * MIB + 1, 5 * MIB);
    cb_manager_release_storage(m, CB_OFF_HEAP, 3 * MIB);
    cb_manager_destroy(m);
    assert_int_equal(p.has, 64 * MIB);
}

/** As Spark's TaskMemoryManager: before it gives, it has its other consumers spill, us too. */
static void test_parent_may_have_the_manager_shrink_while_it_is_asked(void **state) {
    (void)state;
    parent p = {.has = 4 * MIB};
    cb_manager *m = make_child(&p, 10 * MIB);
    cb_task *t = make_task(m, 1);
    holder h = {.consumer = NULL};
    h.consumer = make_consumer_of(t, "holder", CB_OFF_HEAP, release_to_anyone, &h);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(h.consumer, 3 * MIB), 3 * MIB);
    p.shrink_on_acquire = 2 * MIB;
    assert_in_range(acquire(c, 2 * MIB), MIB, 2 * MIB);
    assert_in_range(cb_consumer_used(h.consumer), 0, 2 * MIB);
    uint64_t given = p.given;
    assert_in_range(cb_manager_shrink(m, CB_OFF_HEAP, 64 * MIB), 1, given);
    assert_true(p.given < given);
    uint64_t before = p.given;
    cb_manager_grow(m, CB_OFF_HEAP, MIB); /* the parent gives without being asked */
    p.given += MIB;
    p.has -= MIB;
    assert_int_equal(p.given, before + MIB);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
    assert_int_equal(p.has, 4 * MIB);
}

/* ---- shrinking ---- */

static int64_t release_asked(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)asker;
    cb_consumer *c = *(cb_consumer **)ctx;
    uint64_t used = cb_consumer_used(c), released = bytes < used ? bytes : used;
    cb_consumer_release(c, released);
    return (int64_t)released;
}

static void test_shrink_takes_free_then_blocks_then_spills(void **state) {
    (void)state;
    cb_manager *m = make_native(1000, 1);
    store s;
    attach(&s, m);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = NULL;
    c = make_consumer_of(t, "c", CB_OFF_HEAP, release_asked, &c);
    assert_int_equal(acquire(c, 500), 500);
    assert_true(put(&s, "a", 200, CB_OFF_HEAP));
    assert_int_equal(cb_manager_shrink(m, CB_OFF_HEAP, 100), 100);
    assert_int_equal(s.dropped, 0);
    assert_int_equal(cb_manager_shrink(m, CB_OFF_HEAP, 300), 300);
    assert_int_equal(s.dropped, 1);
    assert_int_equal(cb_consumer_used(c), 500);
    assert_int_equal(cb_manager_shrink(m, CB_OFF_HEAP, 250), 250);
    assert_in_range(cb_consumer_used(c), 250, 350);
    assert_int_equal(cb_manager_shrink(m, CB_OFF_HEAP, 10000), 350);
    assert_int_equal(
        pool_of(m, CB_EXECUTION, CB_OFF_HEAP).size + pool_of(m, CB_STORAGE, CB_OFF_HEAP).size, 0);
    cb_manager_grow(m, CB_OFF_HEAP, 77);
    assert_int_equal(pool_of(m, CB_EXECUTION, CB_OFF_HEAP).free, 77);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

/* ---- settings, the tree ---- */

static void test_options_that_break_a_rule_are_refused(void **state) {
    (void)state;
    cb_manager *m = NULL;
    cb_error err = {0};
    cb_manager_options o = cb_manager_options_native(0);
    assert_int_equal(cb_manager_create(&o, &m, &err), CB_EINVAL);
    assert_non_null(strstr(err.message, "must be > 0"));
    o = cb_manager_options_native(1000);
    o.storage_fraction = 1.5;
    assert_int_equal(cb_manager_create(&o, &m, NULL), CB_EINVAL);
    o = cb_manager_options_native(1000);
    o.off_heap_storage_bytes = 1001;
    assert_int_equal(cb_manager_create(&o, &m, NULL), CB_EINVAL);
    o = cb_manager_options_native(1000);
    o.struct_size = 8;
    assert_int_equal(cb_manager_create(&o, &m, NULL), CB_EINVAL);
    o = (cb_manager_options){.struct_size = sizeof o,
                             .rules = CB_RULES_SPARK,
                             .heap_bytes = 500,
                             .heap_storage_bytes = 500};
    assert_int_equal(cb_manager_create(&o, &m, &err), CB_EINVAL);
    assert_non_null(strstr(err.message, "onHeapExecutionMemory must be > 0"));
    assert_null(m);
    cb_manager_destroy(NULL);
}

static void test_page_size_follows_the_rules(void **state) {
    (void)state;
    cb_manager_options o = cb_manager_options_native(8 * MIB);
    o.cores = 2;
    cb_manager *m = make_manager(&o);
    assert_int_equal(cb_manager_page_bytes(m), 64 * KIB);
    cb_manager_destroy(m);
    o.off_heap_bytes = 64 * 1024 * MIB;
    m = make_manager(&o);
    assert_int_equal(cb_manager_page_bytes(m), 64 * MIB);
    cb_manager_destroy(m);
    o = (cb_manager_options){.struct_size = sizeof o,
                             .rules = CB_RULES_SPARK,
                             .heap_bytes = 2 * 1024 * MIB,
                             .storage_fraction = -1,
                             .cores = 4};
    m = make_manager(&o); /* 1 GiB of execution / 4 / 16 */
    assert_int_equal(cb_manager_page_bytes(m), 16 * MIB);
    assert_int_equal(pool_of(m, CB_STORAGE, CB_HEAP).size, 1024 * MIB);
    cb_manager_destroy(m);
}

static void test_tree_shows_who_holds_what(void **state) {
    (void)state;
    cb_manager *m = make_native(MIB, 1);
    cb_ledger_entry *e = NULL;
    assert_ok(cb_ledger_add(m, "thread stacks", NULL, NULL, &e, err));
    assert_ok(cb_ledger_set(e, 100 * KIB, err));
    cb_task_options options = {.struct_size = sizeof options, .id = 7, .name = "sort"};
    cb_task *t = NULL;
    assert_ok(cb_task_create(m, &options, &t, err));
    cb_consumer *c = make_consumer_of(t, "ranges", CB_OFF_HEAP, NULL, NULL);
    assert_int_equal(acquire(c, 200 * KIB), 200 * KIB);
    char tree[2048];
    size_t bytes = cb_manager_tree(m, tree, sizeof tree);
    assert_int_equal(bytes, strlen(tree));
    assert_non_null(strstr(tree, "budget 1.0 MiB: 308.0 KiB used, peak 308.0 KiB\n"));
    assert_non_null(strstr(tree, "  thread stacks: 100.0 KiB used, peak 100.0 KiB\n"));
    assert_non_null(strstr(tree, "  off-heap execution: 200.0 KiB used"));
    assert_non_null(strstr(tree, "  task 7 sort: 200.0 KiB used, peak 200.0 KiB\n"));
    assert_non_null(strstr(tree, "    ranges: 200.0 KiB used, peak 200.0 KiB, cannot spill\n"));
    char little[20];
    assert_int_equal(cb_manager_tree(m, little, sizeof little), bytes);
    assert_int_equal(strlen(little), sizeof little - 1);
    assert_int_equal(cb_manager_tree(m, NULL, 0), bytes);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_storage_borrows_free_execution_memory),
        cmocka_unit_test(test_storage_never_takes_from_execution),
        cmocka_unit_test(test_execution_evicts_what_storage_borrowed_and_no_more),
        cmocka_unit_test(test_storage_evicts_for_a_new_block),
        cmocka_unit_test(test_block_whose_drop_fails_stays_and_is_still_counted),
        cmocka_unit_test(test_bytes_on_their_way_out_are_promised_to_who_asked),
        cmocka_unit_test(test_release_of_storage_wakes_who_waits_for_execution),
        cmocka_unit_test(test_refused_eviction_with_waiters_does_not_spin),
        cmocka_unit_test(test_releasing_more_storage_than_used_is_warned_of),
        cmocka_unit_test(test_ledger_takes_from_the_budget),
        cmocka_unit_test(test_what_cannot_be_refused_is_a_debt_that_releases_pay),
        cmocka_unit_test(test_measured_entry_follows_its_measure),
        cmocka_unit_test(test_manager_draws_from_its_parent_and_returns),
        cmocka_unit_test(test_parent_that_has_nothing_is_a_refusal),
        cmocka_unit_test(test_ledger_and_storage_draw_from_the_parent_too),
        cmocka_unit_test(test_parent_may_have_the_manager_shrink_while_it_is_asked),
        cmocka_unit_test(test_shrink_takes_free_then_blocks_then_spills),
        cmocka_unit_test(test_options_that_break_a_rule_are_refused),
        cmocka_unit_test(test_page_size_follows_the_rules),
        cmocka_unit_test(test_tree_shows_who_holds_what),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
