/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what no executor has is computed by one of them, and the others read it there. Method:
 * several stores on one directory, threads that all ask at once; executors that claim and are never
 * heard of again; reads that break off. What the simulator does with the same machine in made time
 * is in test_cluster_sim.c.
 */
#include "store/block_shared.h"

#include "base/sys.h"
#include "store/block_kit.h"

enum { STORES = 3, RECORDS = 40, RECORD_BYTES = 100 };
#define MEM CB_LEVEL_MEMORY_ONLY
#define BOTH CB_LEVEL_MEMORY_AND_DISK

typedef struct office {
    cb_local_directory *local;
    cb_directory directory;
    kit kits[STORES];
    _Atomic int computed, at_once, at_once_most, fetched, closed;
    _Atomic int failures, breaks; /* so many computations fail, so many reads break off */
    uint64_t slow_ns;
} office;

static const char *const names[STORES] = {"one", "two", "three"};

static void open_store(office *o, int i) {
    static const char *folder;
    kit *k = &o->kits[i];
    folder = folder != NULL ? folder : test_folder();
    *k = (kit){.manager = NULL};
    k->class = (cb_record_class){.struct_size = sizeof k->class,
                                 .size = kit_size,
                                 .write = kit_write,
                                 .read = kit_read,
                                 .destroy = kit_destroy,
                                 .ctx = k};
    const cb_manager_options m = {.struct_size = sizeof m,
                                  .rules = CB_RULES_NATIVE,
                                  .mode = CB_HEAP,
                                  .heap_bytes = 4 * CBI_MIB,
                                  .storage_fraction = 0.5};
    assert_ok(cb_manager_create(&m, &k->manager, NULL));
    const cb_executor_entry as = {.name = names[i], .address = names[i]};
    const cb_blocks_options b = {.struct_size = sizeof b,
                                 .manager = k->manager,
                                 .folder = folder,
                                 .directory = &o->directory,
                                 .executor = &as};
    assert_ok(cb_blocks_create(&b, &k->blocks, NULL));
    assert_ok(cb_block_task_create(k->blocks, 0, 0, &k->task, NULL));
}

static _Atomic int claims; /* that were asked for */
static cb_directory real;

static cb_status count_claim(void *ctx, const char *executor, uint64_t generation,
                             const char *block, uint64_t claim_ns, bool *granted, uint64_t *wait_ns,
                             cb_error *err) {
    claims++;
    return real.claim(ctx, executor, generation, block, claim_ns, granted, wait_ns, err);
}

static void office_open(office *o) {
    *o = (office){.local = NULL};
    assert_ok(cb_local_directory_create(0, NULL, NULL, &o->local, NULL));
    o->directory = real = cb_local_directory_interface(o->local);
    o->directory.claim = count_claim;
    for (int i = 0; i < STORES; i++) {
        open_store(o, i);
    }
}

static void office_close(office *o) {
    for (int i = 0; i < STORES; i++) {
        kit_close(&o->kits[i]);
    }
    cb_local_directory_destroy(o->local);
}

/* ---- where records come from ---- */

typedef struct origin {
    office *o;
    kit *k;        /* who asks: records are his */
    kit_list list; /* computed; */
    kit *from;     /* or read here */
    cb_block_task *task;
    cb_block_ref ref;
    cb_block_cursor *cursor;
    bool breaks;
} origin;

static cb_status compute_next(void *ctx, void **record, cb_error *err) {
    origin *from = ctx;
    return kit_list_next(&from->list, record, err);
}

static cb_status compute(void *ctx, const char *name, cb_record_source *source, cb_error *err) {
    origin *to = ctx;
    office *o = to->o;
    (void)err;
    (void)name;
    o->computed++;
    int now = ++o->at_once, most = o->at_once_most;
    while (now > most && !atomic_compare_exchange_weak(&o->at_once_most, &most, now)) {
    }
    if (o->slow_ns > 0) {
        cbi_sys_sleep_ns(o->slow_ns);
    }
    o->at_once--;
    if (o->failures > 0) {
        o->failures--;
        return CB_EDATA;
    }
    to->list = (kit_list){.kit = to->k, .count = RECORDS, .bytes = RECORD_BYTES};
    *source = (cb_record_source){.next = compute_next, .ctx = to};
    return CB_OK;
}

static cb_status fetch_next(void *ctx, void **record, cb_error *err) {
    origin *from = ctx;
    const void *there = NULL;
    if (from->breaks) {
        return CB_EIO;
    }
    cb_status status = cb_block_cursor_next(from->cursor, &there, err);
    if (status == CB_OK) {
        const kit_record *r = there;
        *record = kit_record_new(from->k, r->bytes, r->number);
    }
    return status;
}

static cb_status fetch(void *ctx, const char *name, const cb_location *at, cb_record_source *source,
                       cb_error *err) {
    origin *to = ctx;
    to->from = NULL;
    for (int i = 0; i < STORES; i++) {
        if (strcmp(names[i], at->executor) == 0) {
            to->from = &to->o->kits[i];
        }
    }
    if (to->from == NULL) {
        return CB_EIO;
    }
    assert_ptr_not_equal(to->from, to->k);
    assert_ok(cb_block_task_create(to->from->blocks, 7, 0, &to->task, NULL));
    cb_status status = /* two of them could wait for each other */
        cb_blocks_lock(to->from->blocks, to->task, name, false, false, &to->ref, err);
    if (status != CB_OK) {
        (void)cb_block_task_end(to->task);
        return status;
    }
    assert_ok(cb_block_cursor_open(&to->ref, &to->cursor, NULL));
    to->o->fetched++;
    to->breaks = to->o->breaks > 0;
    to->o->breaks -= to->breaks;
    *source = (cb_record_source){.next = fetch_next, .ctx = to};
    return CB_OK;
}

static void close_source(void *ctx, cb_record_source *source) {
    origin *from = ctx;
    (void)source;
    from->o->closed++;
    if (from->cursor != NULL) {
        cb_block_cursor_close(from->cursor);
        from->cursor = NULL;
        (void)cb_block_task_end(from->task);
    }
}

static cb_status ask(office *o, int store, const char *name, cb_level level, uint64_t wait_ns) {
    kit *k = &o->kits[store];
    cb_block_task *task = NULL;
    cb_block_ref ref;
    cb_block_rest *rest = NULL;
    origin from = {.o = o, .k = k};
    const cb_block_lineage how = {
        .compute = compute, .close = close_source, .fetch = fetch, .ctx = &from};
    uint64_t until_ns = wait_ns > 0 ? cbi_sys_clock_ns() + wait_ns : 0;
    assert_ok(cb_block_task_create(k->blocks, 1, until_ns, &task, NULL));
    cb_status status =
        cb_blocks_get_or_compute(k->blocks, task, name, level, &k->class, &how, &ref, &rest, NULL);
    (void)cb_block_task_end(task);
    return status;
}

typedef struct asker {
    office *o;
    int store;
    cb_status status;
} asker;

static void ask_once(void *ctx) {
    asker *a = ctx;
    a->status = ask(a->o, a->store, "rdd_0_0", BOTH, 0);
}

static void ask_all(office *o, asker *askers, int count) {
    cbi_thread threads[3 * STORES];
    for (int i = 0; i < count; i++) {
        askers[i] = (asker){.o = o, .store = i % STORES};
        assert_ok(cbi_thread_start(&threads[i], ask_once, &askers[i], "asker", NULL));
    }
    for (int i = 0; i < count; i++) {
        cbi_thread_join(&threads[i]);
    }
}

/* ---- */

static void test_shared__one_of_all_executors_computes(void **state) {
    enum { ASKERS = 3 * STORES };
    (void)state;
    office o;
    asker askers[ASKERS];
    office_open(&o);
    o.slow_ns = 30000000;
    ask_all(&o, askers, ASKERS);
    for (int i = 0; i < ASKERS; i++) {
        assert_ok(askers[i].status);
    }
    assert_int_equal(o.computed, 1);
    assert_int_equal(o.fetched, STORES - 1);
    assert_int_equal(o.closed, STORES);
    for (int i = 0; i < STORES; i++) {
        assert_ok(kit_check_records(&o.kits[i], "rdd_0_0", RECORDS, RECORD_BYTES));
    }
    office_close(&o);
}

static void test_shared__who_fails_is_followed_by_the_next(void **state) {
    (void)state;
    office o;
    asker askers[STORES];
    int failed = 0;
    office_open(&o);
    o.slow_ns = 5000000;
    o.failures = 2;
    ask_all(&o, askers, STORES);
    for (int i = 0; i < STORES; i++) {
        failed += askers[i].status == CB_EDATA;
    }
    assert_int_equal(failed, 2);
    assert_int_equal(o.computed, 3);
    assert_int_equal(o.at_once_most, 1);
    office_close(&o);
}

static void test_shared__who_claimed_and_died_is_followed_by_the_next(void **state) {
    (void)state;
    office o;
    office_open(&o);
    const cb_executor_entry other = {.name = "other", .memory_max = 1};
    uint64_t life = 0, wait_ns = 0;
    bool granted = false;
    const cb_directory *d = &o.directory;
    assert_ok(d->enter(d->ctx, &other, &life, NULL));
    assert_ok(d->claim(d->ctx, "other", life, "x", UINT64_C(3600) * 1000000000, &granted, &wait_ns,
                       NULL));
    assert_true(granted);
    assert_status(ask(&o, 0, "x", BOTH, 50000000), CB_EDEADLINE); /* it lives, as far as is known */
    assert_false(kit_exists(&o.kits[0], "x"));
    d->leave(d->ctx, "other", life);
    assert_ok(ask(&o, 0, "x", BOTH, 0));
    assert_ok(d->enter(d->ctx, &other, &life, NULL));
    assert_ok(d->claim(d->ctx, "other", life, "y", 30000000, &granted, &wait_ns, NULL));
    assert_ok(ask(&o, 1, "y", BOTH, 0)); /* a claim that is not renewed ends by itself */
    assert_int_equal(o.computed, 2);
    d->leave(d->ctx, "other", life);
    office_close(&o);
}

static void test_shared__what_breaks_off_is_read_elsewhere_or_computed(void **state) {
    (void)state;
    office o;
    office_open(&o);
    assert_ok(ask(&o, 0, "x", BOTH, 0));
    assert_ok(ask(&o, 1, "x", BOTH, 0));
    o.breaks = 1;
    assert_ok(ask(&o, 2, "x", BOTH, 0)); /* from the other one */
    assert_int_equal(o.computed, 1);
    assert_int_equal(o.fetched, 3);
    assert_ok(kit_check_records(&o.kits[2], "x", RECORDS, RECORD_BYTES));
    assert_ok(ask(&o, 0, "y", BOTH, 0));
    o.breaks = 1;
    assert_ok(ask(&o, 1, "y", BOTH, 0)); /* there is no other one */
    assert_int_equal(o.computed, 3);
    assert_int_equal(o.closed, 7);
    office_close(&o);
}

static void test_shared__a_claim_is_renewed_as_long_as_the_computation_takes(void **state) {
    (void)state;
    office o;
    cbi_shared s;
    const cb_block_lineage how = {.fetch = fetch};
    cb_record_source source = {0};
    bool computes = false, granted = true;
    uint64_t wait_ns = 0, life = 0;
    const cb_executor_entry other = {.name = "other", .memory_max = 1};
    office_open(&o);
    assert_ok(o.directory.enter(o.directory.ctx, &other, &life, NULL));
    cbi_shared_init(&s, &how);
    s.claim.claim_ns = 60000000;
    claims = 0;
    assert_ok(cbi_shared_ask(&s, o.kits[0].task, "x", &source, &computes, NULL));
    assert_true(computes);
    cbi_shared_renew_begin(&s, o.kits[0].blocks, "x");
    while (claims < 4) { /* the first is not a renewal */
        cbi_sys_sleep_ns(1000000);
    }
    cbi_shared_renew_end(&s);
    cbi_shared_end(&s, o.kits[0].blocks, "x", true, false);
    assert_ok(o.directory.claim(o.directory.ctx, "other", life, "x", 1, &granted, &wait_ns, NULL));
    assert_true(granted); /* it was let go */
    o.directory.leave(o.directory.ctx, "other", life);
    office_close(&o);
}

static void test_shared__without_fetch_each_computes_for_himself(void **state) {
    (void)state;
    office o;
    office_open(&o);
    for (int i = 0; i < STORES; i++) {
        kit *k = &o.kits[i];
        origin from = {.o = &o, .k = k};
        const cb_block_lineage how = {.compute = compute, .close = close_source, .ctx = &from};
        cb_block_ref ref;
        cb_block_rest *rest = NULL;
        assert_ok(cb_blocks_get_or_compute(k->blocks, k->task, "x", MEM, &k->class, &how, &ref,
                                           &rest, NULL));
        cb_block_release(&ref);
    }
    assert_int_equal(o.computed, STORES);
    office_close(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared__one_of_all_executors_computes),
        cmocka_unit_test(test_shared__who_fails_is_followed_by_the_next),
        cmocka_unit_test(test_shared__who_claimed_and_died_is_followed_by_the_next),
        cmocka_unit_test(test_shared__what_breaks_off_is_read_elsewhere_or_computed),
        cmocka_unit_test(test_shared__a_claim_is_renewed_as_long_as_the_computation_takes),
        cmocka_unit_test(test_shared__without_fetch_each_computes_for_himself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
