/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_TASK_H
#define CBI_TASK_H

#include "memory/manager.h"

struct cb_consumer {
    cb_task *task;
    cb_consumer *next;
    char name[CBI_NAME_BYTES];
    cb_mode mode;
    cb_spill_fn spill;
    void *ctx;
    /* written under the manager's lock, read by anybody */
    _Atomic uint64_t used, peak;
    /* guarded by the manager's lock */
    uint64_t spilled;  /* bytes that its spills have released */
    uint64_t refusals; /* times it was asked and released nothing */
    uint64_t key; /* while the task reclaims: what it may still give; 0 = not to be asked (again) */
    uint64_t shrink_round; /* the shrink in which it last refused */
    bool spilling;
};

/** Threads that reclaim for one task take turns; the task's end takes the last. Handed on in order
 *  of arrival. */
typedef struct cbi_turn_waiter {
    cbi_parker parker;
    struct cbi_turn_waiter *next;
} cbi_turn_waiter;

typedef struct cbi_page_entry {
    cbi_block *block;
    cb_consumer *consumer;
    size_t bytes, charge;
} cbi_page_entry;

/* Rows of the page table that are charged to the ledger at a time: 4 KiB of entries. */
enum { CBI_TABLE_STEP_ROWS = 4096 / sizeof(cbi_page_entry) };

struct cb_task {
    cb_manager *manager;
    uint64_t id;
    char name[CBI_NAME_BYTES];
    uint8_t **bases; /* CB_PAGE_TABLE_SIZE, mapped; rows are resident once touched */
    cbi_page_entry *entries;
    /* guarded by the manager's lock */
    cb_task *next;
    cbi_party party;
    uint64_t peak, peaks[CB_MODE_COUNT]; /* of both modes together, of each */
    uint64_t deadline_ns;
    bool cancelled;
    cbi_waiter *waiters;
    cb_consumer *consumers;
    bool turn_taken;
    cbi_turn_waiter *turn_first, *turn_last;
    uint64_t page_bits[CB_PAGE_TABLE_SIZE / 64];
    uint32_t page_hint; /* words below have no free number */
    uint32_t table_rows, pages;
    uint64_t
        aside; /* granted, but the system had no memory: kept so that nobody tries with it again */
};

/** Spill functions that this thread is in. One instruction to read, also in a shared library: the
 *  word fits the space that loaders keep for late comers. */
extern _Thread_local uint32_t cbi_spill_depth __attribute__((tls_model("initial-exec")));

static inline bool cbi_task_is_spilling(void) {
    return cbi_spill_depth > 0;
}

static inline uint64_t cbi_consumer_used(const cb_consumer *c) {
    return atomic_load_explicit(&c->used, memory_order_relaxed);
}

/** [locked] The party has the bytes already. What a task was granted counts for its peak from here
 *  on, as in the original: not while it is still being spilled for. */
static inline void cbi_consumer_account(cb_consumer *c, uint64_t bytes) {
    cb_task *t = c->task;
    uint64_t used = cbi_consumer_used(c) + bytes;
    atomic_store_explicit(&c->used, used, memory_order_relaxed);
    if (used > atomic_load_explicit(&c->peak, memory_order_relaxed)) {
        atomic_store_explicit(&c->peak, used, memory_order_relaxed);
    }
    uint64_t mine = t->party.bytes[c->mode], both = mine + t->party.bytes[CB_OFF_HEAP - c->mode];
    t->peaks[c->mode] = mine > t->peaks[c->mode] ? mine : t->peaks[c->mode];
    t->peak = both > t->peak ? both : t->peak;
}

/** [locked] One request to the arbiter, with its waiting and evicting. Adds to *got. */
static inline cb_status cbi_task_attempt(cb_consumer *c, uint64_t bytes, bool may_wait,
                                         uint64_t *got, uint64_t *hint, cb_error *err) {
    cb_task *t = c->task;
    cbi_waiter w; /* on the fast path only what the arbiter reads is set */
    w.request.party = &t->party;
    w.request.mode = c->mode;
    w.request.bytes = bytes;
    w.request.may_wait = may_wait;
    w.task = t;
    w.block = NULL;
    w.next = NULL;
    CB_TRY(cbi_manager_acquire(t->manager, &w, err));
    *got += w.request.granted;
    *hint = w.request.spill_bytes;
    return CB_OK;
}

/** [locked] The rest of cbi_task_acquire when the first request brought too little: *got and `hint`
 *  are what it answered. On failure nothing is kept. */
cb_status cbi_task_acquire_rest(cb_consumer *consumer, uint64_t bytes, uint64_t *got, uint64_t hint,
                                cb_error *err);

/**
 * [locked] Gets up to `bytes` for the consumer and accounts them to it: asks the arbiter, has
 * consumers spill, waits. Answers as cb_consumer_acquire does.
 */
static inline cb_status cbi_task_acquire(cb_consumer *c, uint64_t bytes, uint64_t *granted,
                                         cb_error *err) {
    uint64_t got = 0, hint = 0;
    CB_TRY(cbi_task_attempt(c, bytes, true, &got, &hint, err));
    if (CBI_UNLIKELY(got < bytes)) {
        CB_TRY(cbi_task_acquire_rest(c, bytes, &got, hint, err));
    }
    cbi_consumer_account(c, got);
    *granted = got;
    return CB_OK;
}

/** [locked] Takes bytes off the consumer and gives them back; answers what it really held. */
static inline uint64_t cbi_task_release(cb_consumer *c, uint64_t bytes) {
    cb_manager *m = c->task->manager;
    uint64_t used = cbi_consumer_used(c);
    uint64_t given = bytes < used ? bytes : used;
    atomic_store_explicit(&c->used, used - given, memory_order_relaxed);
    (void)cbi_arbiter_release(&m->arbiter, &c->task->party, c->mode, given);
    cbi_manager_pass_on(m);
    return given;
}

/** What fits now: no spilling, no waiting, all or nothing. Takes the lock itself. */
bool cbi_task_try_acquire(cb_consumer *consumer, uint64_t bytes);

/** CB_EBUDGET with the memory tree. Takes the lock itself. */
cb_status cbi_task_refuse(cb_consumer *consumer, uint64_t asked, uint64_t had, cb_error *err);

/** Has one consumer of any task spill; true when something was released. For a manager that must
 *  shrink. */
bool cbi_task_spill_any(cb_manager *m, cb_mode mode, uint64_t bytes);

cb_status cbi_page_table_create(cb_task *task, cb_error *err);
void cbi_page_table_destroy(cb_task *task);

/** Frees the pages of one consumer, or all when NULL; answers their bytes as they were charged.
 *  Takes the lock itself. */
uint64_t cbi_page_free_all(cb_task *task, const cb_consumer *consumer);

#endif
