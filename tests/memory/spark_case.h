/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEMORY_SPARK_CASE_H
#define MEMORY_SPARK_CASE_H

/*
 * For the tests that answer to the cases of Spark's own suites (docs/spark-cases.md): managers as
 * these suites make them, their two consumers, and a store that evicts as their mocked one does,
 * any number of bytes up to what storage uses.
 */

#include "waiting.h"

/** Both pools of a mode together; storage's region is `fraction` of it. */
static inline cb_manager *make_case(cb_policy policy, uint64_t heap, uint64_t off_heap,
                                    double fraction) {
    cb_manager_options options = {.struct_size = sizeof options,
                                  .rules = CB_RULES_SPARK,
                                  .policy = policy,
                                  .heap_bytes = heap,
                                  .off_heap_bytes = off_heap,
                                  .storage_fraction = fraction,
                                  .cores = 1};
    return make_manager(&options);
}

/** A consumer that releases all it has when asked to spill. */
static inline int64_t spill_everything(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)bytes;
    (void)asker;
    cb_consumer *c = *(cb_consumer **)ctx;
    uint64_t used = cb_consumer_used(c);
    cb_consumer_release(c, used);
    return (int64_t)used;
}

static inline cb_consumer *make_stiff(cb_task *t, cb_mode mode) {
    return make_consumer_of(t, "stiff", mode, NULL, NULL);
}

static inline uint64_t used_of(const cb_manager *m, cb_region region) {
    return pool_of(m, region, CB_HEAP).used + pool_of(m, region, CB_OFF_HEAP).used;
}

/* ---- the store ---- */

typedef struct mock_store {
    cb_manager *manager;
    uint64_t asked; /* by the last call, until it is looked at */
    unsigned calls;
    bool fails; /* no block can be dropped */
} mock_store;

static inline uint64_t mock_choose(void *ctx, cb_mode mode, uint64_t bytes, const void *block,
                                   void **victims) {
    (void)block;
    mock_store *s = ctx;
    assert_int_equal(s->calls++, 0);
    assert_true(bytes > 0);
    s->asked = bytes;
    *victims = (void *)(uintptr_t)bytes;
    return bytes <= pool_of(s->manager, CB_STORAGE, mode).used ? bytes : 0;
}

static inline uint64_t mock_drop(void *ctx, void *victims) {
    return ((mock_store *)ctx)->fails ? 0 : (uintptr_t)victims;
}

static inline void mock_undo(void *ctx, void *victims) {
    (void)ctx;
    (void)victims;
}

static inline void set_mock_store(cb_manager *m, mock_store *s) {
    *s = (mock_store){.manager = m};
    const cb_store store = {.choose = mock_choose, .drop = mock_drop, .undo = mock_undo, .ctx = s};
    cb_manager_set_store(m, &store);
}

/** Eviction was asked for so many bytes, once, since the last look; 0: it was not asked. */
static inline void expect_eviction(mock_store *s, uint64_t bytes) {
    assert_int_equal(s->calls, bytes > 0);
    assert_int_equal(s->asked, bytes);
    s->calls = 0;
    s->asked = 0;
}

static inline bool store_bytes(cb_manager *m, cb_mode mode, uint64_t bytes) {
    return cb_manager_acquire_storage(m, mode, bytes, NULL, NULL) == CB_OK;
}

/* ---- one task beside one store ---- */

typedef struct spark_case {
    cb_manager *manager;
    mock_store store;
    cb_task *task;
    cb_consumer *heap, *off_heap; /* neither spills */
} spark_case;

static inline void case_begin(spark_case *f, cb_manager *m) {
    f->manager = m;
    set_mock_store(m, &f->store);
    f->task = make_task(m, 0);
    f->heap = make_stiff(f->task, CB_HEAP);
    f->off_heap = make_stiff(f->task, CB_OFF_HEAP);
}

static inline void case_end(spark_case *f) {
    (void)cb_task_end(f->task, NULL, 0);
    cb_manager_release_all_storage(f->manager);
    cb_manager_destroy(f->manager);
}

static inline void expect_used(const spark_case *f, uint64_t execution, uint64_t storage) {
    assert_int_equal(used_of(f->manager, CB_EXECUTION), execution);
    assert_int_equal(used_of(f->manager, CB_STORAGE), storage);
}

/** "basic execution memory": the task can have 1000 bytes of the heap. */
static inline void play_basic_execution(spark_case *f) {
    expect_used(f, 0, 0);
    assert_int_equal(acquire(f->heap, 10), 10);
    assert_int_equal(acquire(f->heap, 100), 100);
    assert_int_equal(acquire(f->heap, 1000), 890);
    expect_used(f, 1000, 0);
    assert_int_equal(acquire(f->heap, 1), 0);
    expect_used(f, 1000, 0);
    cb_consumer_release(f->heap, 800);
    expect_used(f, 200, 0);
    assert_int_equal(acquire(f->heap, 1), 1);
    expect_used(f, 201, 0);
    cb_consumer_release(f->heap, 1000); /* more than it has */
    expect_used(f, 0, 0);
}

/** "basic storage memory": blocks can have 1000 bytes of the heap. */
static inline void play_basic_storage(spark_case *f) {
    assert_true(store_bytes(f->manager, CB_HEAP, 10));
    assert_true(store_bytes(f->manager, CB_HEAP, 100));
    expect_used(f, 0, 110);
    assert_false(store_bytes(f->manager, CB_HEAP, 1001));
    expect_eviction(&f->store, 0); /* for what cannot fit nothing is evicted */
    expect_used(f, 0, 110);
    assert_true(store_bytes(f->manager, CB_HEAP, 1000));
    expect_eviction(&f->store, 110);
    expect_used(f, 0, 1000);
    assert_true(store_bytes(f->manager, CB_HEAP, 1));
    expect_eviction(&f->store, 1);
    expect_used(f, 0, 1000);
    cb_manager_release_storage(f->manager, CB_HEAP, 800);
    assert_true(store_bytes(f->manager, CB_HEAP, 1));
    expect_eviction(&f->store, 0);
    expect_used(f, 0, 201);
    cb_manager_release_all_storage(f->manager);
    expect_used(f, 0, 0);
    assert_true(store_bytes(f->manager, CB_HEAP, 1));
    expect_eviction(&f->store, 0);
    cb_manager_release_storage(f->manager, CB_HEAP, 100);
    expect_used(f, 0, 0);
}

#endif
