/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_MANAGER_H
#define CBI_MANAGER_H

#include "base/lock.h"
#include "carbide/ledger.h"
#include "carbide/manager.h"
#include "carbide/task.h"
#include "memory/allocator.h"
#include "memory/arbiter.h"

enum { CBI_NAME_BYTES = 48 };

struct cb_ledger_entry {
    cb_manager *manager;
    cb_ledger_entry *next;
    char name[CBI_NAME_BYTES];
    cb_ledger_measure_fn measure;
    void *ctx;
    uint64_t bytes, peak; /* guarded by the manager's lock */
};

/**
 * One lock guards a manager: its arbiter, its allocators' lists, the accounts and page tables of
 * its tasks. Sections are short and never call out; a page costs one of them. It is the innermost
 * lock of the library but for none.
 */
struct cb_manager {
    cbi_lock lock;
    cbi_arbiter arbiter;
    cb_allocator *allocators[CB_MODE_COUNT];
    cb_task *tasks;
    cb_ledger_entry *ledger;
    uint64_t ledger_bytes;
    uint64_t accounted_peak;
    uint64_t limit[CB_MODE_COUNT]; /* with a parent: at most so much is drawn */
    uint64_t drawn[CB_MODE_COUNT];
    /* immutable after create */
    cb_mode mode;
    cb_rules rules;
    size_t page_bytes;
    bool no_off_heap_storage; /* static policy under Spark's rules */
    bool has_parent;
    cb_parent parent;
    cb_warning_fn warn;
    void *warn_ctx;
    cb_store store;          /* choose NULL: none */
    cb_ledger_entry *tables; /* page tables of all tasks */
};

/** A request with the thread that waits for it. On that thread's stack. */
typedef struct cbi_waiter {
    cbi_request request; /* first: a request's waiter is found by a cast */
    cbi_parker parker;
    cb_task *task;     /* NULL: storage */
    const void *block; /* storage: what the store is told */
    size_t capacity;   /* storage: of an idle page that is wanted with it; 0: none is */
    uint64_t whole;  /* storage: bytes to be had instead, where that page is there; 0: no matter */
    cbi_block *idle; /* granted: that page, or NULL */
    struct cbi_waiter *next;
} cbi_waiter;

/* [locked]: the manager's lock is held, before and after. */

/** [locked] Passes answers on to those who waited. After every operation on the arbiter. */
static inline void cbi_manager_pass_on(cb_manager *m) {
    if (CBI_UNLIKELY(m->arbiter.first != NULL)) {
        cbi_request *r;
        while ((r = cbi_arbiter_next(&m->arbiter)) != NULL) {
            cbi_parker_open(&((cbi_waiter *)r)->parker);
        }
    }
    cb_assert_slow((cbi_arbiter_check(&m->arbiter), true));
}

/** [locked] Everything that is accounted: ledger, pools, idle pages; without what lies in a hand,
 *  which is no memory now. */
static inline uint64_t cbi_manager_accounted(const cb_manager *m) {
    const cbi_arbiter *a = &m->arbiter;
    uint64_t bytes = m->ledger_bytes;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        bytes += a->pools[CB_EXECUTION][mode].used + a->pools[CB_STORAGE][mode].used -
                 a->hands[mode] + m->allocators[mode]->idle;
    }
    return bytes;
}

/** [locked] After anything that can have raised it, and after cbi_manager_shed. */
static inline void cbi_manager_note_peak(cb_manager *m) {
    uint64_t bytes = cbi_manager_accounted(m);
    if (bytes > m->accounted_peak) {
        m->accounted_peak = bytes;
    }
}

/** [locked] What nobody uses of the budget: idle pages lie in it. */
static inline uint64_t cbi_manager_unused(const cb_manager *m, cb_mode mode) {
    const cbi_arbiter *a = &m->arbiter;
    uint64_t unused = a->total[mode] + a->hands[mode] - a->pools[CB_EXECUTION][mode].used -
                      a->pools[CB_STORAGE][mode].used;
    return unused - (a->debt[mode] < unused ? a->debt[mode] : unused);
}

/** [locked] Idle pages that are more than that come out as a chain to be dropped without the lock.
 */
static inline cbi_block *cbi_manager_shed(cb_manager *m, cb_mode mode) {
    uint64_t unused = cbi_manager_unused(m, mode);
    cb_allocator *allocator = m->allocators[mode];
    return CBI_UNLIKELY(allocator->idle > unused) ? cbi_allocator_shed(allocator, unused) : NULL;
}

/** [locked] Draws from the parent what is missing for a request of so many bytes. */
void cbi_manager_draw(cb_manager *m, cb_mode mode, uint64_t bytes);

/** [locked] The long way of cbi_manager_acquire, after the arbiter's first answer. */
cb_status cbi_manager_finish(cb_manager *m, cbi_waiter *w, cb_error *err);

/**
 * [locked] Runs an execution request to its end: evicts and waits as the arbiter says, the lock not
 * held meanwhile. The request's party, mode, bytes, may_wait and the waiter's task are set. CB_OK:
 * see request.granted and spill_bytes. CB_ECANCELED, CB_EDEADLINE, CB_ENOTFOUND (Spark's rules, the
 * task was emptied): nothing was granted.
 */
static inline cb_status cbi_manager_acquire(cb_manager *m, cbi_waiter *w, cb_error *err) {
    if (CBI_UNLIKELY(m->has_parent)) {
        cbi_manager_draw(m, w->request.mode, w->request.bytes);
    }
    cbi_verdict verdict = cbi_arbiter_acquire(&m->arbiter, &w->request);
    cbi_manager_pass_on(m);
    return CBI_LIKELY(verdict == CBI_GRANTED) ? CB_OK : cbi_manager_finish(m, w, err);
}

/** Returns to the parent what is free beyond a step or two. Takes the lock itself; nothing without
 *  a parent. */
void cbi_manager_return_spare_slow(cb_manager *m, cb_mode mode);
static inline void cbi_manager_return_spare(cb_manager *m, cb_mode mode) {
    if (CBI_UNLIKELY(m->has_parent)) {
        cbi_manager_return_spare_slow(m, mode);
    }
}

/** [locked] The entry has so many bytes from now on, come what may. */
void cbi_ledger_force(cb_ledger_entry *entry, uint64_t bytes);

/** Tells who listens; no lock held. */
void cbi_manager_warn(const cb_manager *m, const char *fmt, ...) CBI_PRINTF(2, 3);

/** [locked] Writes the tree, or one task's part of it; answers as cb_manager_tree. */
size_t cbi_tree_write(const cb_manager *m, const cb_task *only, char *text, size_t bytes);

/** A name that fits, cut if it must be. */
void cbi_name_copy(char out[CBI_NAME_BYTES], const char *name);

/** As cb_manager_acquire_storage; *idle: a block of that capacity that was idle and backs them now,
 *  or NULL. */
cb_status cbi_manager_acquire_storage(cb_manager *manager, cb_mode mode, uint64_t bytes,
                                      const void *block, size_t capacity, cbi_block **idle,
                                      cb_error *err);

/** As cb_manager_acquire_unroll of `least` bytes; but where an idle block of that capacity is
 *  there, which is resident as a whole, of all `bytes`, and *idle is that block. *got: how many. */
cb_status cbi_manager_acquire_fill(cb_manager *manager, cb_mode mode, uint64_t least,
                                   uint64_t bytes, const void *block, size_t capacity,
                                   uint64_t *got, cbi_block **idle, cb_error *err);

#endif
