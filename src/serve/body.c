/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of a large put. Who sends them fast has a worker for himself, who reads from the socket
 * and makes room as they come: the loop and a worker that hand a connection to each other each
 * megabyte have the processor wait for both. Each piece goes into the sum while it is still in the
 * cache. Who makes the worker wait is the loop's again, which waits for all of them at once; so a
 * slow sender costs a worker a millisecond for each megabyte at most.
 */
#include <errno.h>
#include <string.h>

#include "serve/serve.h"

enum {
    PIECE = 256 * 1024,         /* stays in a processor's cache until it is summed */
    AT_ONCE = 64 * 1024 * 1024, /* then it is others' turn, with room for what comes next */
    WORTH = 16 * 1024,          /* who brings so much is waited for again */
    PATIENCE_MS = 1
};

void cbi_body_sum(cbi_connection *c, const uint8_t *bytes, uint64_t count) {
    if (c->summed) {
        cbi_sum_add(&c->sum, bytes, (size_t)count);
    }
}

void cbi_body_sum_memory(cbi_connection *c) {
    if (!c->fill.on_disk) {
        cbi_body_sum(c, c->fill.first + c->hashed, c->fill.filled - c->hashed);
        c->hashed = c->fill.filled;
    }
}

static void took(cbi_connection *c, size_t count) {
    c->left -= count;
    c->to += count;
    c->room -= count;
    cbi_fill_add(&c->fill, count);
    cbi_body_sum_memory(c);
}

/** What came together with the head. */
static void take_rest(cbi_connection *c) {
    size_t part = cbi_min(cbi_min(c->room, (size_t)(c->in_end - c->in_at)), (size_t)c->left);
    memcpy(c->to, c->in + c->in_at, part);
    c->in_at += (uint32_t)part;
    took(c, part);
}

/** Whether more comes in a moment; not when others have work for this worker. */
static bool comes(cb_server *s, const cbi_connection *c, size_t since) {
    return since >= WORTH && !cbi_server_has_jobs(s) &&
           cbi_sys_wait_for(c->fd, false, PATIENCE_MS) > 0;
}

cb_status cbi_body_take(cb_server *s, cbi_connection *c, cb_error *err) {
    if (c->fill.on_disk || c->left == 0) {
        return CB_OK;
    }
    take_rest(c);
    for (size_t taken = 0, since = WORTH; c->left > 0 && (taken < AT_ONCE || c->room == 0);) {
        if (c->room == 0) {
            CB_TRY(cbi_fill_room(&c->fill, &c->to, &c->room, err));
        }
        size_t most = cbi_min(cbi_min(c->room, (size_t)PIECE), (size_t)c->left);
        ssize_t got = most > 0 ? cbi_sys_receive(c->fd, c->to, most) : -EAGAIN;
        if (got == -EAGAIN) {
            if (most == 0 || !comes(s, c, since)) { /* it goes to disk; he is slow */
                break;
            }
            since = 0;
            continue;
        }
        if (got <= 0) {
            c->broken = true;
            break;
        }
        taken += (size_t)got;
        since += (size_t)got;
        took(c, (size_t)got);
    }
    return CB_OK;
}
