/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_RECLAIM_H
#define CBI_RECLAIM_H

#include "memory/task.h"

/*
 * What a task does when the arbiter gave one of its consumers too little: who spills, in which
 * order, when the arbiter is asked again. A pure state machine like the arbiter: it says what to do
 * next and is told what came of it; it takes no lock, calls nobody back and waits for nothing.
 * task.c carries the steps out, a test walks through every order of a few tasks' steps.
 */

typedef enum cbi_reclaim_step {
    CBI_RECLAIM_TAKE_TURN, /* threads of one task reclaim one after the other */
    CBI_RECLAIM_ATTEMPT,   /* ask the arbiter for attempt_bytes, may_wait; add to got, set hint */
    CBI_RECLAIM_SPILL,     /* have `victim` spill spill_bytes; set released */
    CBI_RECLAIM_GIVE_TURN,
    CBI_RECLAIM_DONE /* `got` is what there is */
} cbi_reclaim_step;

/* What it has just asked for. */
typedef enum cbi_reclaim_phase {
    CBI_RECLAIM_BEGINS,
    CBI_RECLAIM_TURN_TAKEN,
    CBI_RECLAIM_LOOKED, /* whether a sibling has released meanwhile */
    CBI_RECLAIM_SPILLED,
    CBI_RECLAIM_ATTEMPTED,
    CBI_RECLAIM_TURN_GIVEN,
    CBI_RECLAIM_ENDED
} cbi_reclaim_phase;

/** Zero it, set the first group. */
typedef struct cbi_reclaim {
    cbi_arbiter *arbiter;
    cbi_party *party;
    cb_consumer *const *consumers; /* the head of the task's list */
    cb_consumer *asker;
    bool native;
    uint64_t bytes; /* wanted in all */
    uint64_t got;   /* of these */
    uint64_t hint;  /* the arbiter's advice: to let go of so much */
    /* what to do */
    cb_consumer *victim;
    uint64_t spill_bytes, attempt_bytes;
    bool may_wait;
    /* what came of a spill: what the consumer says that it released */
    uint64_t released;
    /* its own */
    cbi_reclaim_phase phase;
    bool has_turn;
    bool reclaims;             /* between the arbiter's reclaim_begin and _end */
    uint64_t got_before, held; /* when the victim was asked */
} cbi_reclaim;

/** [locked] What to do next. `cancelled`: nobody is asked to spill any more. */
cbi_reclaim_step cbi_reclaim_next(cbi_reclaim *r, bool cancelled);

/** [locked] A step failed: ends the reclaiming. The owner gives the turn (has_turn) and what was
 * got back. */
void cbi_reclaim_abandon(cbi_reclaim *r);

#endif
