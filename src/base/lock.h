/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_LOCK_H
#define CBI_LOCK_H

#include <stdatomic.h>

#include "base/rank.h"

/*
 * A lock of four bytes for sections of a few dozen instructions, and a parker for those who must
 * wait longer. Both sleep in the kernel (futex) and touch it only when somebody really waits:
 * taking and giving a free lock are two atomic instructions, about half of what pthread_mutex_lock
 * and _unlock take. The accounts of memory live under such a lock (40 ns for an acquire and a
 * release together leave no room for more).
 *
 * Not recursive. A zeroed lock is a free one that only lacks its rank (cbi_lock_init); nothing to
 * destroy.
 */
typedef struct cbi_lock {
    _Atomic uint32_t word; /* 0 free, 1 held, more: held or spoken for, and somebody sleeps */
#ifdef CARBIDE_DEBUG
    cbi_rank rank;
#endif
} cbi_lock;

/** Of a zeroed one. */
static inline void cbi_lock_init(cbi_lock *lock, cbi_rank rank) {
#ifdef CARBIDE_DEBUG
    lock->rank = rank;
#else
    (void)lock;
    (void)rank;
#endif
}

void cbi_lock_take_slow(cbi_lock *lock);
/** It is free now; `was` more than 1. */
void cbi_lock_give_slow(cbi_lock *lock, uint32_t was);

static inline void cbi_lock_take(cbi_lock *lock) {
#ifdef CARBIDE_DEBUG
    cbi_rank_take(lock, lock->rank);
#endif
    uint32_t is_free = 0;
    if (CBI_UNLIKELY(!atomic_compare_exchange_strong_explicit(
            &lock->word, &is_free, 1, memory_order_acquire, memory_order_relaxed))) {
        cbi_lock_take_slow(lock);
    }
}

static inline void cbi_lock_give(cbi_lock *lock) {
#ifdef CARBIDE_DEBUG
    cbi_rank_give(lock); /* before: it may be gone after */
#endif
    uint32_t was = atomic_exchange_explicit(&lock->word, 0, memory_order_release);
    if (CBI_UNLIKELY(was > 1)) {
        cbi_lock_give_slow(lock, was);
    }
}

static inline bool cbi_lock_is_held(const cbi_lock *lock) {
    return atomic_load_explicit(&lock->word, memory_order_relaxed) != 0;
}

/** One thread waits, any other opens. Zeroed or after cbi_parker_close it is closed. */
typedef struct cbi_parker {
    _Atomic uint32_t word; /* 0 closed, 1 open */
} cbi_parker;

static inline void cbi_parker_close(cbi_parker *parker) {
    atomic_store_explicit(&parker->word, 0, memory_order_relaxed);
}

/** What was written before it is seen by who waited. */
void cbi_parker_open(cbi_parker *parker);

/**
 * Waits until it is open; false when `deadline_ns` (of cbi_sys_clock_ns; 0 = none) passed first.
 */
bool cbi_parker_wait(cbi_parker *parker, uint64_t deadline_ns);

#endif
