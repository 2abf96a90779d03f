/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What concerns all blocks: a death, a data set that was removed, this executor's leaving. There
 * may be a million, and everybody waits while a step lasts; so each step goes through some buckets.
 * One walk serves all of these, each for as many buckets as it still needs. What it has not come by
 * yet is harmless until then: a bit of `clearing` means nothing in a block, what a grave covers is
 * not said to be here, and nobody leaves before the rest of the walk is over.
 */
#include "base/base.h"
#include "store/replica_private.h"

void cbi_sweep_clear(cbi_replica *r) {
    r->clear_left = r->buckets.count;
}

void cbi_sweep_bury(cbi_replica *r) {
    r->bury_left = r->buckets.count;
}

void cbi_sweep_empty(cbi_replica *r) {
    r->empty_left = r->buckets.count;
}

void cbi_sweep_seek(cbi_replica *r) {
    r->seek_left = r->buckets.count;
}

/** Those who are no more are taken out: what they had is short of one. */
static void clear(cbi_replica *r, cbi_tracked *b) {
    bool had = (b->held & r->clearing) != 0, was_sent = (b->sending & r->clearing) != 0;
    uint64_t returning = (b->held | b->named) & r->clearing & r->returning;
    for (uint64_t left = returning; left != 0; left &= left - 1) { /* he is asked first */
        b->named |= UINT64_C(1) << r->returned_as[__builtin_ctzll(left)];
    }
    b->held = cbi_replica_living(r, b->held);
    b->sending = cbi_replica_living(r, b->sending);
    b->tried = cbi_replica_living(r, b->tried);
    b->named = cbi_replica_living(r, b->named);
    if (!b->present || b->state >= CBI_BLOCK_DROPPING) {
        return;
    }
    if ((had || was_sent) && b->state == CBI_BLOCK_SENDING) {
        cbi_tracked_queue(r, b, CBI_QUEUE_READY);
    } else if (had && b->state == CBI_BLOCK_SETTLED && (b->copies > 1 || r->draining)) {
        /* who had it entered anew, and may have to say first what he still has */
        b->stored_ns = returning != 0 ? r->now_ns : b->stored_ns;
        cbi_tracked_check(r, b);
    }
}

/** It counts upon somebody for whom that was to be found out. */
static void witness(cbi_replica *r, cbi_tracked *b) {
    for (uint64_t found = b->held & r->unwitnessed; found != 0; found &= found - 1) {
        r->peers[__builtin_ctzll(found)].witness = b;
        r->unwitnessed &= ~(found & -found);
    }
}

static void visit(cbi_replica *r, cbi_tracked *b) {
    if (r->clear_left > 0) {
        clear(r, b);
    }
    if (!b->present || b->state >= CBI_BLOCK_DROPPING) {
        return;
    }
    if (r->bury_left > 0 && cbi_graves_cover_kin(r, b->name, b->place.block_generation)) {
        cbi_tracked_drop(r, b);
        return;
    }
    if (r->empty_left > 0) {
        cbi_leave_visit(r, b);
    }
    if (r->seek_left > 0) {
        witness(r, b);
    }
}

static void visit_bucket(cbi_replica *r, size_t i) {
    for (cbi_tracked *b = *cbi_tracked_bucket(r, i); b != NULL; b = b->chain) {
        visit(r, b);
    }
}

void cbi_sweep_some(cbi_replica *r, size_t buckets) {
    for (; buckets > 0 && !cbi_sweep_is_over(r); buckets--) {
        r->sweep_at = (r->sweep_at + 1) % r->buckets.count;
        visit_bucket(r, r->sweep_at);
        r->clear_left -= r->clear_left > 0;
        r->bury_left -= r->bury_left > 0;
        r->empty_left -= r->empty_left > 0;
        r->seek_left -= r->seek_left > 0;
    }
    r->clearing = r->clear_left > 0 ? r->clearing : 0;
    r->returning &= r->clearing;
}

/* Blocks may have gone from a bucket that is still to come to one where the walk has been: they are
 * visited now. */
void cbi_sweep_split(cbi_replica *r, size_t from, size_t to) {
    if (cbi_sweep_is_over(r)) {
        return;
    }
    visit_bucket(r, from);
    visit_bucket(r, to);
    r->clear_left += r->clear_left > 0;
    r->bury_left += r->bury_left > 0;
    r->empty_left += r->empty_left > 0;
    r->seek_left += r->seek_left > 0;
}
