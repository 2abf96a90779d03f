/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server that touches its memory before blocks come: by a thread of its own, so that the first
 * request is answered at once, and what the budget took back meanwhile is made ready again when it
 * is free.
 */
#include "serve/serve.h"

static void prepare(void *ctx) {
    cb_server *s = ctx;
    while (!atomic_load(&s->preparer_ends)) {
        if (!cbi_ready_step(&s->ready)) {
            (void)cbi_parker_wait(&s->preparer_wake,
                                  cbi_sys_clock_ns() + cbi_ready_pause_ns(&s->ready));
        }
    }
}

cb_status cbi_preallocate_begin(cb_server *s, cb_error *err) {
    s->ready.manager = s->manager;
    return s->preallocates ? cbi_thread_start(&s->preparer, prepare, s, "carbide-ready", err)
                           : CB_OK;
}

void cbi_preallocate_end(cb_server *s) {
    atomic_store(&s->preparer_ends, true);
    cbi_parker_open(&s->preparer_wake);
    cbi_thread_join(&s->preparer);
    cbi_ready_close(&s->ready);
}
