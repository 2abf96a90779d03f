/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_ARBITER_H
#define CBI_ARBITER_H

#include "base/base.h"
#include "carbide/manager.h"
#include "memory/pool.h"

/*
 * Who gets how many bytes: a pure state machine. An operation goes in, an answer comes out; there
 * is no lock, no clock, no callback and no allocation inside. Threads put a lock and a place to
 * wait around it (manager.c), `carbide simulate` drives it from a text, and a test walks through
 * every order of a few tasks' operations.
 *
 * What an operation sets free may let waiting requests go on. After EVERY operation the owner
 * therefore asks cbi_arbiter_next until it answers NULL, and passes each answer on.
 */

/** The differences between the two rule sets, by name. Spark's classes have none of these. */
typedef struct cbi_rule_set {
    /* Storage's releases and a larger budget wake too; Spark: only execution's and new tasks. */
    bool wake_on_any_release;
    /* N counts who holds or waits; Spark keeps who was once granted 0. */
    bool count_only_active;
    /* A waiter whose task is emptied by a sibling waits on; Spark 4.2 throws (SPARK-59444). */
    bool keep_emptied_waiters;
    /* Answers say how much to spill; Spark gives 0 above the share (SPARK-31720). */
    bool tell_to_spill;
    /* What a spill frees is kept for who asked (SPARK-35486). */
    bool hand_over;
    /* A waiter that was passed too often collects what becomes free. */
    bool age_waiters;
    /* When all who hold bytes wait for each other, the newest is answered. */
    bool end_standstill;
    /* Unrolling evicts when that will be enough; Spark's static manager evicts as much as it may
       and refuses all the same. */
    bool evict_only_if_enough;
    /* An eviction for execution counts what really became free; Spark counts the blocks' sizes, and
       throws when storage's books (a release with no block) say that less was used. */
    bool trust_the_books;
} cbi_rule_set;

extern const cbi_rule_set cbi_rules_native;
extern const cbi_rule_set cbi_rules_spark;

/**
 * A task as the arbiter sees it. Zeroed memory of the owner, entered by cbi_arbiter_join. Bytes.
 */
typedef struct cbi_party {
    struct cbi_party *next, *prev;
    uint64_t bytes[CB_MODE_COUNT];
    uint64_t hand[CB_MODE_COUNT]; /* of these: freed by a spill and kept for who asked for it */
    uint32_t waits[CB_MODE_COUNT];
    uint32_t reclaims[CB_MODE_COUNT];
    bool counted[CB_MODE_COUNT]; /* one of the N */
} cbi_party;

typedef enum cbi_verdict {
    /* `granted` bytes, perhaps fewer than asked, perhaps 0: spill and come again, or give up. */
    CBI_GRANTED,
    /* Waits; cbi_arbiter_next will come with the answer. */
    CBI_BLOCKED,
    /* Have storage evict `evict_bytes`, say marked and settle, read the verdict again. */
    CBI_EVICT,
    /* Storage: cannot be. */
    CBI_REFUSED,
    /* Spark's rules: the waiter's task was emptied meanwhile (NoSuchElementException there). */
    CBI_LOST,
    /* Spark's rules: evicted blocks were larger than all that storage used (without
       trust_the_books; IllegalArgumentException there). */
    CBI_BROKEN
} cbi_verdict;

/** One request from its beginning to its last verdict. The owner's memory; stays where it is while
 *  BLOCKED or EVICT. */
typedef struct cbi_request {
    /* set by who asks */
    cbi_party *party; /* NULL: storage */
    cb_mode mode;
    uint64_t bytes;
    bool may_wait;
    bool unroll; /* storage: to unroll a block */
    /* the answer */
    cbi_verdict verdict;
    uint64_t granted;
    uint64_t evict_bytes;
    uint64_t spill_bytes; /* tell_to_spill: let go of so many and the rest can be had; else 0 */
    /* the arbiter's */
    struct cbi_request *next, *prev;
    uint64_t held;     /* in the pool's held */
    uint64_t marked;   /* in the storage pool's leaving */
    uint64_t moved;    /* from storage's size to execution's, before the eviction */
    uint64_t sequence; /* of arrival among those who wait */
    uint32_t passed;
    bool evicted; /* this attempt has had its eviction, or must do without */
    bool recheck;
} cbi_request;

typedef struct cbi_arbiter {
    const cbi_rule_set *rules;
    cb_policy policy;
    cbi_pool pools[2][CB_MODE_COUNT]; /* [cb_region][cb_mode] */
    uint64_t
        total[CB_MODE_COUNT]; /* of both regions: size of execution + size of storage, always */
    uint64_t region[CB_MODE_COUNT]; /* storage up to here is not evicted for execution */
    uint64_t unroll[CB_MODE_COUNT]; /* of what storage was given: for blocks being unrolled */
    uint64_t unroll_evict_max[CB_MODE_COUNT]; /* static policy: what unrolling may have evicted */
    uint64_t debt[CB_MODE_COUNT]; /* charged, but nothing was free; the next releases pay */
    uint64_t
        hands[CB_MODE_COUNT]; /* all parties' hands: used in the accounts, but nobody's memory */
    uint32_t tasks[CB_MODE_COUNT]; /* N */
    uint32_t evicting;             /* requests between CBI_EVICT and settle */
    bool recheck;                  /* some waiter has its recheck set */
    uint64_t sequence;
    cbi_party *parties;
    cbi_request *first, *last; /* who waits, in order of arrival */
} cbi_arbiter;

/** region <= total, each mode. Static policy: the owner sets unroll_evict_max after it. */
void cbi_arbiter_init(cbi_arbiter *a, cb_rules rules, cb_policy policy,
                      const uint64_t total[CB_MODE_COUNT], const uint64_t region[CB_MODE_COUNT]);

void cbi_arbiter_join(cbi_arbiter *a, cbi_party *party);
/** The party waits for nothing and holds nothing (cbi_arbiter_release_all). */
void cbi_arbiter_leave(cbi_arbiter *a, cbi_party *party);

/** Execution memory: fill party, mode, bytes (not 0), may_wait. Everything else is set here. */
cbi_verdict cbi_arbiter_acquire_shared(cbi_arbiter *a, cbi_request *r);

/**
 * The same, with the commonest case in place: nobody else holds or waits, and it fits. Then it is
 * within the share too, because share = total - min(storage used, region) >= size of the pool, or
 * the size itself in the static policy.
 */
static inline cbi_verdict cbi_arbiter_acquire(cbi_arbiter *a, cbi_request *r) {
    cbi_party *party = r->party;
    cbi_pool *exec = &a->pools[CB_EXECUTION][r->mode];
    bool alone = a->tasks[r->mode] == (uint32_t)party->counted[r->mode] && a->first == NULL;
    if (CBI_UNLIKELY(!alone || r->bytes > cbi_pool_free(exec))) {
        return cbi_arbiter_acquire_shared(a, r);
    }
    party->counted[r->mode] = true;
    a->tasks[r->mode] = 1;
    cbi_pool_take(exec, r->bytes);
    party->bytes[r->mode] += r->bytes;
    r->granted = r->bytes;
    r->spill_bytes = 0;
    return r->verdict = CBI_GRANTED;
}

/** Storage memory: fill mode, bytes and unroll, party NULL. Never blocks. */
cbi_verdict cbi_arbiter_acquire_storage(cbi_arbiter *a, cbi_request *r);

/** After CBI_EVICT: the store marked victims of so many bytes; then: so many of these have gone. */
void cbi_arbiter_marked(cbi_arbiter *a, cbi_request *r, uint64_t bytes);
cbi_verdict cbi_arbiter_settle(cbi_arbiter *a, cbi_request *r, uint64_t dropped);

/** The next request that waited and has its answer now (GRANTED, EVICT or LOST); NULL when there is
 *  none. */
cbi_request *cbi_arbiter_next(cbi_arbiter *a);

/** A blocked request gives up waiting. */
void cbi_arbiter_withdraw(cbi_arbiter *a, cbi_request *r);

/** Answers what was released: less than asked when the party held less (the caller warns). */
uint64_t cbi_arbiter_release_shared(cbi_arbiter *a, cbi_party *party, cb_mode mode, uint64_t bytes);

/** The same, with the commonest case in place: nobody waits, reclaims or is in debt. */
static inline uint64_t cbi_arbiter_release(cbi_arbiter *a, cbi_party *party, cb_mode mode,
                                           uint64_t bytes) {
    if (CBI_UNLIKELY(a->first != NULL || party->reclaims[mode] > 0 || a->debt[mode] > 0)) {
        return cbi_arbiter_release_shared(a, party, mode, bytes);
    }
    bytes = bytes < party->bytes[mode] ? bytes : party->bytes[mode];
    party->bytes[mode] -= bytes;
    a->pools[CB_EXECUTION][mode].used -= bytes;
    if (party->bytes[mode] == 0 && party->counted[mode]) {
        party->counted[mode] = false;
        a->tasks[mode]--;
    }
    return bytes;
}
uint64_t cbi_arbiter_release_all(cbi_arbiter *a, cbi_party *party);
uint64_t cbi_arbiter_release_storage(cbi_arbiter *a, cb_mode mode, uint64_t bytes);
/** The same for what was given for unrolling, and no more than that. */
uint64_t cbi_arbiter_release_unroll(cbi_arbiter *a, cb_mode mode, uint64_t bytes);
/** What was unrolled is a block now: `kept` bytes stay, the rest of `unroll` is given back. */
void cbi_arbiter_finish_unroll(cbi_arbiter *a, cb_mode mode, uint64_t unroll, uint64_t kept);
void cbi_arbiter_release_all_storage(cbi_arbiter *a);

/**
 * Between these two what the party releases in that mode stays in its hand (hand_over), from where
 * who asked takes it; the end gives the rest to all.
 */
void cbi_arbiter_reclaim_begin(cbi_arbiter *a, cbi_party *party, cb_mode mode);
uint64_t cbi_arbiter_take_hand(cbi_arbiter *a, cbi_party *party, cb_mode mode, uint64_t bytes);
void cbi_arbiter_reclaim_end(cbi_arbiter *a, cbi_party *party, cb_mode mode);

/** The budget changes: grow pays debt first; shrink takes what is free and answers how much; charge
 *  takes the rest as debt. */
void cbi_arbiter_grow(cbi_arbiter *a, cb_mode mode, uint64_t bytes);
uint64_t cbi_arbiter_shrink(cbi_arbiter *a, cb_mode mode, uint64_t bytes);
void cbi_arbiter_charge(cbi_arbiter *a, cb_mode mode, uint64_t bytes);

/** Most that storage could have now. */
uint64_t cbi_arbiter_storage_max(const cbi_arbiter *a, cb_mode mode);

/** Every invariant; for tests and slow builds. */
void cbi_arbiter_check(const cbi_arbiter *a);

#endif
