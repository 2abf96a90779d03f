/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEMORY_WAITING_H
#define MEMORY_WAITING_H

/* Requests on threads of their own: begun, seen waiting, finished. */

#include "memory_test.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct waiting {
    pthread_t thread;
    cb_consumer *consumer;
    uint64_t bytes, granted;
    cb_status status;
    cb_error err;
    atomic_bool done;
} waiting;

static inline void *wait_for_memory(void *ctx) {
    waiting *w = ctx;
    w->status = cb_consumer_acquire(w->consumer, w->bytes, &w->granted, &w->err);
    w->done = true;
    return NULL;
}

static inline void start(waiting *w, cb_consumer *c, uint64_t bytes) {
    *w = (waiting){.consumer = c, .bytes = bytes};
    assert_int_equal(pthread_create(&w->thread, NULL, wait_for_memory, w), 0);
}

/** Until the tree says that the task waits: no sleeping and hoping. */
static inline void await_waiting(const cb_manager *m, unsigned count) {
    for (;;) {
        char tree[4096];
        (void)cb_manager_tree(m, tree, sizeof tree);
        unsigned found = 0;
        for (const char *at = tree; (at = strstr(at, ", waiting")) != NULL; at++) {
            found++;
        }
        if (found >= count) {
            return;
        }
        cbi_sys_sleep_ns(100000);
    }
}

static inline void finish(waiting *w) {
    assert_int_equal(pthread_join(w->thread, NULL), 0);
}

#endif
