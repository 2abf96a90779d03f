/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order of spilling. Spark's TaskMemoryManager asks the smallest consumer that holds what is
 * missing, else the largest, the asker itself last and only if it holds something: so there are few
 * and large spill files, and a consumer that has just been spilled is not asked again. Who answers
 * 0 is out of it; who answers more is asked again while bytes are missing.
 *
 * Two differences between the rules. Spark's keep the sizes that consumers had when it began, ask
 * the arbiter again after each spill, and wait there if need be. The native ones look at sizes
 * anew, take what was spilled out of the task's hand first, and wait only when all have spilled.
 *
 * One difference from the original in both: a consumer that says it released bytes while neither
 * the task's bytes fell nor any were gained is treated as one that released nothing. Spark's loop
 * would ask it for ever.
 */
#include "memory/reclaim.h"

static uint64_t missing(const cbi_reclaim *r) {
    return r->bytes - r->got;
}

/** Who could spill, and how much each is good for. */
static void note_candidates(const cbi_reclaim *r) {
    for (cb_consumer *c = *r->consumers; c != NULL; c = c->next) {
        c->key = c->mode == r->asker->mode ? cbi_consumer_used(c) : 0;
    }
}

/** The smallest that holds what is missing, else the largest, else the asker; the later one of two
 *  that are equal. NULL: nobody is left. */
static cb_consumer *pick_victim(const cbi_reclaim *r) {
    cb_consumer *suffices = NULL, *largest = NULL;
    for (cb_consumer *c = *r->consumers; c != NULL; c = c->next) {
        if (c == r->asker || c->key == 0 || c->spilling) {
            continue;
        }
        if (c->key >= missing(r) && (suffices == NULL || c->key <= suffices->key)) {
            suffices = c;
        }
        if (largest == NULL || c->key >= largest->key) {
            largest = c;
        }
    }
    if (largest == NULL) {
        return r->asker->key > 0 && !r->asker->spilling ? r->asker : NULL;
    }
    return suffices != NULL ? suffices : largest;
}

static cbi_reclaim_step attempt(cbi_reclaim *r, cbi_reclaim_phase phase, bool may_wait) {
    r->phase = phase;
    r->attempt_bytes = missing(r);
    r->may_wait = may_wait;
    return CBI_RECLAIM_ATTEMPT;
}

static cbi_reclaim_step give_turn(cbi_reclaim *r) {
    cbi_reclaim_abandon(r);
    r->phase = CBI_RECLAIM_TURN_GIVEN;
    r->has_turn = false;
    return CBI_RECLAIM_GIVE_TURN;
}

static cbi_reclaim_step pick(cbi_reclaim *r, bool cancelled) {
    r->victim = missing(r) > 0 && !cancelled ? pick_victim(r) : NULL;
    if (r->victim == NULL) {
        return give_turn(r);
    }
    r->spill_bytes = r->native && r->hint > missing(r) ? r->hint : missing(r);
    r->released = 0;
    r->got_before = r->got;
    r->held = r->party->bytes[r->asker->mode];
    r->phase = CBI_RECLAIM_SPILLED;
    return CBI_RECLAIM_SPILL;
}

/** After a spill and what followed: is the same one worth asking again? */
static void rate_victim(cbi_reclaim *r) {
    cb_consumer *victim = r->victim;
    bool gained = r->got > r->got_before;
    if (!r->native) {
        gained = r->released > 0 && (gained || r->party->bytes[r->asker->mode] < r->held);
    }
    if (!gained) {
        victim->key = 0;
    } else if (r->native) {
        victim->key = cbi_consumer_used(victim);
    }
}

cbi_reclaim_step cbi_reclaim_next(cbi_reclaim *r, bool cancelled) {
    switch (r->phase) {
        case CBI_RECLAIM_BEGINS:
            r->phase = CBI_RECLAIM_TURN_TAKEN;
            r->has_turn = true;
            return CBI_RECLAIM_TAKE_TURN;
        case CBI_RECLAIM_TURN_TAKEN:
            if (r->native) { /* a sibling may have released while we waited for the turn */
                return attempt(r, CBI_RECLAIM_LOOKED, false);
            }
            break;
        case CBI_RECLAIM_LOOKED:
            if (missing(r) == 0) {
                return give_turn(r);
            }
            break;
        case CBI_RECLAIM_SPILLED:
            r->got += cbi_arbiter_take_hand(r->arbiter, r->party, r->asker->mode, missing(r));
            if (r->released > 0 && missing(r) > 0) {
                /* Spark's rules may wait here, with the turn held, as the original does under its
                 * lock. */
                return attempt(r, CBI_RECLAIM_ATTEMPTED, !r->native);
            }
            rate_victim(r);
            return pick(r, cancelled);
        case CBI_RECLAIM_ATTEMPTED: rate_victim(r); return pick(r, cancelled);
        case CBI_RECLAIM_TURN_GIVEN:
            if (r->native && missing(r) > 0) {
                /* All have spilled what they could: the task may be below its floor now and has a
                 * right to wait. */
                return attempt(r, CBI_RECLAIM_ENDED, true);
            }
            r->phase = CBI_RECLAIM_ENDED;
            return CBI_RECLAIM_DONE;
        case CBI_RECLAIM_ENDED: return CBI_RECLAIM_DONE;
    }
    cbi_arbiter_reclaim_begin(r->arbiter, r->party, r->asker->mode);
    r->reclaims = true;
    note_candidates(r);
    return pick(r, cancelled);
}

void cbi_reclaim_abandon(cbi_reclaim *r) {
    if (r->reclaims) {
        cbi_arbiter_reclaim_end(r->arbiter, r->party, r->asker->mode);
        r->reclaims = false;
    }
}
