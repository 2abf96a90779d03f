/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CARBIDE.COMPUTE: a GET that is answered with a token when nobody has the block, and then it is
 * the client's to compute and to SET; with nil while another one does. What happens between is in
 * copies_claim.c.
 */
#include <string.h>

#include "serve/serve.h"

static cbi_resp_word next(cbi_resp_args *a) {
    return cbi_resp_next(a->bytes, a->request, &a->at);
}

static bool take_name(cbi_connection *c, cbi_resp_word w) {
    bool good = w.count > 0 && w.count <= CB_BLOCK_NAME_MAX && cbi_name_check(w.bytes, w.count);
    if (good) {
        memcpy(c->name, w.bytes, w.count);
        c->name[w.count] = '\0';
    }
    return good;
}

void cbi_resp_compute(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    enum { MOST_MS = 24 * 3600 * 1000, POLL_MS = 50 };
    const uint64_t ms = 1000000;
    cbi_resp *r = c->resp;
    uint64_t claim_ms = 0, wait_ms = 0, number = 0;
    cbi_resp_word name = next(a);
    bool good = s->copies != NULL && take_name(c, name) &&
                cbi_resp_take_number(next(a), &claim_ms) && claim_ms > 0 && claim_ms <= MOST_MS;
    if (good && a->request->count > 3) {
        good = cbi_resp_take_number(next(a), &wait_ms) && wait_ms <= MOST_MS;
    }
    if (good && a->request->count > 4) {
        good = cbi_resp_take_number(next(a), &number);
    }
    if (!good) {
        cbi_resp_say_error(c, "ERR",
                           "CARBIDE.COMPUTE NAME CLAIM-MS [WAIT-MS [NUMBER]], up to a day, at an "
                           "executor");
        c->in_at += (uint32_t)r->request.taken;
        return;
    }
    cbi_copies_arrival_end(s->copies, &r->arrival); /* who may wait for long sends no copy */
    r->computes = true;
    r->here = r->gone = false;
    r->token = r->asked_ns = r->due_ns = 0;
    r->number = number;
    r->until_ns = cbi_sys_clock_ns() + wait_ms * ms;
    r->claim =
        (cbi_claim){.claim_ns = claim_ms * ms, .poll_ns = POLL_MS * ms, .patience_ns = UINT64_MAX};
    cbi_resp_read(s, c, name);
}

void cbi_resp_computed(cb_server *s, cbi_connection *c, bool failed) {
    cbi_resp *r = c->resp;
    if (failed) {
        cbi_resp_missed_block(s, c);
    } else if (r->token != 0) {
        cbi_resp_say_number(c, (int64_t)r->token);
        cbi_resp_go_on(c);
    } else if (r->here) { /* if it goes again now, it is looked for from the beginning */
        r->here = r->fetched = false;
        r->claim.state = CBI_CLAIM_NEW;
        cbi_resp_begin_read(s, c);
    } else {
        cbi_resp_fetched_block(s, c);
    }
}

void cbi_resp_unclaim(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    uint64_t token = 0;
    cbi_resp_word name = next(a);
    bool good = s->copies != NULL && take_name(c, name) && cbi_resp_take_number(next(a), &token);
    if (good) {
        cbi_resp_say_number(c, cbi_copies_unclaim(s->copies, c->name, token));
    } else {
        cbi_resp_say_error(c, "ERR", "CARBIDE.UNCLAIM NAME TOKEN, at an executor");
    }
    c->in_at += (uint32_t)c->resp->request.taken;
}
