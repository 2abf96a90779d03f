/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A look, a claim, and a second look: between the first look and the claim somebody may have
 * computed the block, stored it and let go. A claim has a lease, so one that computes and dies is
 * followed by the next of those who wait; one that is only slow renews. A claim is advice: were two
 * to compute, each would store a generation of its own, and readers take the one they name. So who
 * cannot ask a directory for long computes without one.
 */
#include "store/claim.h"

static cbi_claim_action wait_for(cbi_claim *c, uint64_t ns, uint64_t now_ns) {
    c->state = CBI_CLAIM_WAITING;
    c->due_ns = now_ns + (ns != 0 && ns < c->poll_ns ? ns : c->poll_ns);
    return CBI_CLAIM_WAIT;
}

static cbi_claim_action compute(cbi_claim *c, uint64_t now_ns) {
    c->state = CBI_CLAIM_COMPUTING;
    c->renew_ns = now_ns + c->claim_ns / 3;
    return CBI_CLAIM_COMPUTE;
}

/** Lets go of the claim, if there is one, and ends. */
static cbi_claim_action end(cbi_claim *c, bool failed) {
    c->failed = failed;
    if (c->claimed) {
        c->claimed = false;
        c->state = CBI_CLAIM_GIVING;
        return CBI_CLAIM_GIVE;
    }
    c->state = CBI_CLAIM_ENDED;
    return failed ? CBI_CLAIM_FAILED : CBI_CLAIM_DONE;
}

static cbi_claim_action unknown(cbi_claim *c, uint64_t now_ns) {
    c->unknown_ns = c->unknown_ns != 0 ? c->unknown_ns : now_ns;
    if (now_ns - c->unknown_ns >= c->patience_ns) {
        return compute(c, now_ns);
    }
    return wait_for(c, 0, now_ns);
}

static cbi_claim_action looked(cbi_claim *c, cbi_claim_event event, uint64_t now_ns) {
    if (event == CBI_CLAIM_FOUND) {
        return end(c, false);
    }
    if (event == CBI_CLAIM_UNKNOWN) {
        return unknown(c, now_ns);
    }
    if (c->state == CBI_CLAIM_LOOKING_AGAIN) {
        return compute(c, now_ns);
    }
    c->state = CBI_CLAIM_TAKING;
    return CBI_CLAIM_TAKE;
}

static cbi_claim_action computing(cbi_claim *c, cbi_claim_event event, uint64_t now_ns) {
    if (event == CBI_CLAIM_STORED || event == CBI_CLAIM_COMPUTE_FAILED) {
        return end(c, event == CBI_CLAIM_COMPUTE_FAILED);
    }
    if (event == CBI_CLAIM_PASSED && c->claimed && now_ns >= c->renew_ns) {
        c->renew_ns = now_ns + c->claim_ns / 3;
        return CBI_CLAIM_RENEW;
    }
    return CBI_CLAIM_COMPUTE;
}

static cbi_claim_action look(cbi_claim *c, cbi_claim_state state) {
    c->state = state;
    return CBI_CLAIM_LOOK;
}

cbi_claim_action cbi_claim_step(cbi_claim *c, cbi_claim_event event, uint64_t wait_ns,
                                uint64_t now_ns) {
    if (event == CBI_CLAIM_HELD ||
        event == CBI_CLAIM_GRANTED) { /* not one that only finds nothing */
        c->unknown_ns = 0;
    }
    switch (c->state) {
        case CBI_CLAIM_NEW: return look(c, CBI_CLAIM_LOOKING);
        case CBI_CLAIM_WAITING:
            c->claimed = false; /* had there been one, it is looked for from the beginning */
            return look(c, CBI_CLAIM_LOOKING);
        case CBI_CLAIM_LOOKING:
        case CBI_CLAIM_LOOKING_AGAIN: return looked(c, event, now_ns);
        case CBI_CLAIM_TAKING:
            if (event == CBI_CLAIM_GRANTED) {
                c->claimed = true;
                return look(c, CBI_CLAIM_LOOKING_AGAIN);
            }
            return event == CBI_CLAIM_HELD ? wait_for(c, wait_ns, now_ns) : unknown(c, now_ns);
        case CBI_CLAIM_COMPUTING: return computing(c, event, now_ns);
        case CBI_CLAIM_GIVING:
        case CBI_CLAIM_ENDED: break;
    }
    c->state = CBI_CLAIM_ENDED;
    return c->failed ? CBI_CLAIM_FAILED : CBI_CLAIM_DONE;
}
