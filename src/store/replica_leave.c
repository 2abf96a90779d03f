/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The problem. Whoever leaves takes good copies with him on purpose, so what he counts upon must be
 * there when he goes. The directory is behind, a lease outlives its executor, and an answer says
 * only that its executor lived when it was given: it may have been on its way for long.
 *
 * The idea. A copy counts when its executor has said itself that it has it, in answer to an offer
 * that was made after it was known that this one leaves. The word of an executor is as old as the
 * question: each SEND has a number that is the time too (`asked`), and its answer brings that
 * number back. When all blocks are elsewhere there is a roll call: everybody who is counted upon is
 * offered one of his blocks again, all in one step, and with the last answer this one goes, if the
 * oldest question is not older than a roll call may take. That begins with little, so that nobody
 * can have died for long unheard, and is doubled until answers come in time, up to twice retry_ns.
 *
 * One that leaves too does not say that it has a copy, so of two none counts upon the other.
 *
 * What remains: an executor that answers a roll call and dies before the last of the others has
 * answered. Nobody can know that. A block of several copies survives it, as long as two others
 * could take one: it counts as moved when it has all of its copies at others, and with fewer only
 * when nobody else has taken one three times in a row.
 */
#include "base/base.h"
#include "store/replica_private.h"

enum { ROLL_CALL_LEAST = 16 /* so little of retry_ns */, ROLL_CALL_SHIFT_MAX = 5 };

void cbi_leave_count_nobody(cbi_tracked *b, uint64_t named) {
    b->named = b->held | named;
    b->held = 0;
    b->elsewhere = 0;
}

void cbi_leave_begin(cbi_replica *r) {
    if (r->draining) { /* asked again: is there still nothing left? */
        r->moved_out = false;
        return;
    }
    r->draining = true;
    r->left_at = r->asked = cbi_max(r->asked, r->now_ns);
    cbi_sweep_empty(r);
}

void cbi_leave_visit(cbi_replica *r, cbi_tracked *b) {
    cbi_leave_count_nobody(b, 0);
    if (b->state == CBI_BLOCK_SENDING) {
        cbi_tracked_queue(r, b, CBI_QUEUE_READY); /* and then who answers is asked again */
    } else {
        cbi_tracked_check(r, b);
    }
}

/** Whether some block may count upon it: only who has given his word since then. */
static bool may_count(const cbi_replica *r, const cbi_peer *p) {
    return p->used && p->word > r->left_at;
}

/** Those whose word is too old, of those who may be counted upon. */
static uint64_t find_stale(const cbi_replica *r) {
    uint64_t lasts_ns = r->options.retry_ns / ROLL_CALL_LEAST << r->roll_calls, stale = 0;
    for (int i = 0; i < CBI_REPLICA_PEERS_MAX; i++) {
        const cbi_peer *p = &r->peers[i];
        stale |= may_count(r, p) && p->word + lasts_ns < r->now_ns ? UINT64_C(1) << i : 0;
    }
    return stale;
}

/** Those who may be counted upon, and of whom no block that does is known. */
static uint64_t find_unwitnessed(const cbi_replica *r) {
    uint64_t found = 0;
    for (const cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_PEERS_MAX; p++) {
        bool known = p->witness != NULL && (p->witness->held & cbi_replica_bit(r, p)) != 0;
        found |= may_count(r, p) && !known ? cbi_replica_bit(r, p) : 0;
    }
    return found;
}

/** Whether of each who is counted upon a block is known that does. Mostly so, for each answer
 * brings one; else all blocks are gone through, and who is found in none is counted upon by nobody.
 */
static bool know_whom_to_ask(cbi_replica *r) {
    uint64_t lacking = find_unwitnessed(r);
    if ((lacking & ~r->unwitnessed) != 0) {
        r->unwitnessed = lacking;
        cbi_sweep_seek(r);
        cbi_sweep_some(r, r->options.sweep_max);
        lacking = find_unwitnessed(r);
    }
    for (uint64_t left = cbi_sweep_counts(r) ? lacking : 0; left != 0; left &= left - 1) {
        r->peers[__builtin_ctzll(left)].word = 0;
    }
    return cbi_sweep_counts(r);
}

/** Offered again to those alone: others would be silent for too long meanwhile. */
static void ask_again(cbi_replica *r, cbi_tracked *b, uint64_t whom) {
    b->held &= ~whom;
    b->named |= whom;
    cbi_tracked_set_moved(r, b, false);
    cbi_tracked_send(r, b, true);
    b->tried = ~whom;
}

/** Whether nobody who is counted upon has to be asked again. */
static bool hear_all(cbi_replica *r) {
    uint64_t stale = find_stale(r);
    bool all = stale == 0;
    while (stale != 0) { /* one block may be at several of them */
        cbi_tracked *b = r->peers[__builtin_ctzll(stale)].witness;
        uint64_t whom = b->held & stale;
        stale &= ~whom;
        ask_again(r, b, whom);
    }
    return all;
}

void cbi_leave_serve(cbi_replica *r) {
    if (r->moved_out || !cbi_sweep_counts(r) || r->moved != r->blocks || r->offer_count != 0 ||
        r->reports.first != NULL || !cbi_graves_all_told(r) || r->count == r->max ||
        (r->hold & find_stale(r)) != 0 || !know_whom_to_ask(r)) {
        return;
    }
    if (hear_all(r)) {
        r->moved_out = cbi_replica_emit(r, CBI_REPLICA_MOVED_OUT) != NULL;
    } else {
        r->roll_calls += r->roll_calls < ROLL_CALL_SHIFT_MAX;
    }
}
