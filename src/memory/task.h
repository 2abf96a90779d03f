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
    uint64_t peak;
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

/** True in a spill function's thread. */
bool cbi_task_is_spilling(void);

/**
 * [locked] Gets up to `bytes` for the consumer and accounts them to it: asks the arbiter, has
 * consumers spill, waits. Answers as cb_consumer_acquire does.
 */
cb_status cbi_task_acquire(cb_consumer *consumer, uint64_t bytes, uint64_t *granted, cb_error *err);

/** What fits now: no spilling, no waiting, all or nothing. Takes the lock itself. */
bool cbi_task_try_acquire(cb_consumer *consumer, uint64_t bytes);

/** [locked] Takes bytes off the consumer and gives them back; answers what it really held. */
uint64_t cbi_task_release(cb_consumer *consumer, uint64_t bytes);

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
