/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_CLAIM_H
#define CBI_CLAIM_H

#include "base/base.h"

/*
 * cb_blocks_get_or_compute across executors: one computes what nobody has, the others wait for it.
 * A pure state machine, one for each block that somebody asks for, in the asker's memory: it says
 * what to do next and is told what came of it. Among the threads of one executor the store already
 * lets one alone do this.
 */

typedef enum cbi_claim_action {
    CBI_CLAIM_LOOK,    /* is it here, or locate it and read it; then FOUND, MISSING or UNKNOWN */
    CBI_CLAIM_TAKE,    /* cb_directory.claim for claim_ns; then GRANTED, HELD or UNKNOWN */
    CBI_CLAIM_COMPUTE, /* then STORED or COMPUTE_FAILED; steps with PASSED meanwhile */
    CBI_CLAIM_RENEW, /* cb_directory.claim again; GRANTED, HELD or UNKNOWN, which change nothing */
    CBI_CLAIM_GIVE,  /* cb_directory.unclaim; then PASSED */
    CBI_CLAIM_WAIT,  /* until due_ns; then PASSED. A watch that sees the block may come earlier */
    CBI_CLAIM_DONE,  /* it is here */
    CBI_CLAIM_FAILED /* this one computed and failed; the next of the waiting computes */
} cbi_claim_action;

typedef enum cbi_claim_event {
    CBI_CLAIM_BEGUN, /* the first */
    CBI_CLAIM_PASSED,
    CBI_CLAIM_FOUND,   /* and read, its checksum the right one */
    CBI_CLAIM_MISSING, /* nobody has it, or none of the copies could be read */
    CBI_CLAIM_GRANTED,
    CBI_CLAIM_HELD,    /* by another one, for wait_ns */
    CBI_CLAIM_UNKNOWN, /* the directory cannot be asked */
    CBI_CLAIM_STORED,  /* computed and stored, and the directory was told */
    CBI_CLAIM_COMPUTE_FAILED
} cbi_claim_event;

typedef enum cbi_claim_state {
    CBI_CLAIM_NEW,
    CBI_CLAIM_LOOKING, /* without a claim */
    CBI_CLAIM_TAKING,
    CBI_CLAIM_LOOKING_AGAIN, /* with one: whoever had it before may have stored it */
    CBI_CLAIM_WAITING,
    CBI_CLAIM_COMPUTING,
    CBI_CLAIM_GIVING,
    CBI_CLAIM_ENDED
} cbi_claim_state;

/** Zero it, set the first group. */
typedef struct cbi_claim {
    uint64_t claim_ns;    /* how long a claim lasts without a renewal */
    uint64_t poll_ns;     /* between looks while another one computes, at most */
    uint64_t patience_ns; /* without a directory for so long: compute without a claim */
    /* its own */
    cbi_claim_state state;
    bool claimed, failed;
    uint64_t due_ns;     /* WAIT: until then */
    uint64_t renew_ns;   /* COMPUTE: step with PASSED from then on */
    uint64_t unknown_ns; /* no directory since; 0: there is one */
} cbi_claim;

/** What to do next. While COMPUTE is being done the answers to PASSED are RENEW or COMPUTE (go on).
 */
cbi_claim_action cbi_claim_step(cbi_claim *claim, cbi_claim_event event, uint64_t wait_ns,
                                uint64_t now_ns);

#endif
