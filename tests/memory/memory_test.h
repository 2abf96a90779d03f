/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEMORY_TEST_H
#define MEMORY_TEST_H

/*
 * What the tests of the memory room share: cmocka with what it needs, and makers that cannot fail.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/sys.h"
#include "carbide/carbide.h"

static const uint64_t KIB = 1024, MIB = 1024 * 1024;

#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        cb_error test_error_ = {0};                                                                \
        cb_error *err = &test_error_;                                                              \
        cb_status test_status_ = (expr);                                                           \
        if (test_status_ != CB_OK)                                                                 \
            fail_msg("%s: %s", #expr, test_error_.message);                                        \
    } while (0)

static inline cb_manager *make_manager(const cb_manager_options *options) {
    cb_manager *m = NULL;
    assert_ok(cb_manager_create(options, &m, err));
    return m;
}

/** Native, off-heap: what each task takes for its page table is added, so that `bytes` are really
 *  there for `tasks`. */
static inline cb_manager *make_native(uint64_t bytes, unsigned tasks) {
    cb_manager_options options = cb_manager_options_native(bytes + tasks * 8 * KIB);
    return make_manager(&options);
}

/** Spark's rules, heap, all of it for execution but `region`. */
static inline cb_manager *make_spark(uint64_t bytes, uint64_t region) {
    cb_manager_options options = {.struct_size = sizeof options,
                                  .rules = CB_RULES_SPARK,
                                  .mode = CB_HEAP,
                                  .heap_bytes = bytes,
                                  .heap_storage_bytes = region};
    return make_manager(&options);
}

static inline cb_task *make_task(cb_manager *m, uint64_t id) {
    cb_task_options options = {.struct_size = sizeof options, .id = id};
    cb_task *t = NULL;
    assert_ok(cb_task_create(m, &options, &t, err));
    return t;
}

static inline cb_consumer *make_consumer_of(cb_task *t, const char *name, cb_mode mode,
                                            cb_spill_fn spill, void *ctx) {
    cb_consumer_options options = {
        .struct_size = sizeof options, .name = name, .mode = mode, .spill = spill, .ctx = ctx};
    cb_consumer *c = NULL;
    assert_ok(cb_consumer_create(t, &options, &c, err));
    return c;
}

static inline uint64_t acquire(cb_consumer *c, uint64_t bytes) {
    uint64_t granted = 0;
    assert_ok(cb_consumer_acquire(c, bytes, &granted, err));
    return granted;
}

static inline cb_pool_stats pool_of(const cb_manager *m, cb_region region, cb_mode mode) {
    cb_pool_stats stats;
    cb_manager_pool(m, region, mode, &stats);
    return stats;
}

#endif
