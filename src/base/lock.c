/* SPDX-License-Identifier: Apache-2.0 */
#include "base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/sys.h"

/* How often a taken lock is looked at before its waiter sleeps: the sections are short (measured:
 * bench/memory). */
enum { SPINS_MAX = 64 };

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/** Sleeps while the word is `expected`; false when the deadline passed. Wakes for no reason too. */
static bool futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t deadline_ns) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                             .tv_nsec = (long)(deadline_ns % 1000000000u)};
    /* The bit-set form takes an absolute time of the monotonic clock; the plain one a relative
     * time. */
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                      deadline_ns > 0 ? &until : NULL, NULL, FUTEX_BITSET_MATCH_ANY);
    return rc == 0 || errno != ETIMEDOUT;
}

static void futex_wake_one(_Atomic uint32_t *word) {
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/** Looks at a held lock for a while, in the hope that it is given soon, and takes it as `word`. */
static bool take_spinning(cbi_lock *lock, uint32_t word) {
    for (int spin = 0; spin < SPINS_MAX; spin++) {
        uint32_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
        if (seen == 0 &&
            atomic_compare_exchange_weak_explicit(&lock->word, &seen, word, memory_order_acquire,
                                                  memory_order_relaxed)) {
            return true;
        }
        pause_briefly();
    }
    return false;
}

/*
 * Who finds others asleep spins all the same, and so does who was woken: if both went to sleep at
 * once, two threads that take turns would do it through the kernel for ever after they once did
 * (measured: bench/originals with a busy machine, microseconds an operation instead of tens of
 * nanoseconds).
 */
void cbi_lock_take_slow(cbi_lock *lock) {
    if (take_spinning(lock, 1)) {
        return;
    }
    /* From here on the word says 2, also when we get it: we cannot know whether others sleep. */
    while (atomic_exchange_explicit(&lock->word, 2, memory_order_acquire) != 0) {
        (void)futex_wait(&lock->word, 2, 0);
        if (take_spinning(lock, 2)) {
            return;
        }
    }
}

void cbi_lock_give_slow(cbi_lock *lock) {
    futex_wake_one(&lock->word);
}

void cbi_parker_open(cbi_parker *parker) {
    atomic_store_explicit(&parker->word, 1, memory_order_release);
    futex_wake_one(
        &parker
             ->word); /* the word may be gone by now: then nobody sleeps on that address, no harm */
}

bool cbi_parker_wait(cbi_parker *parker, uint64_t deadline_ns) {
    while (atomic_load_explicit(&parker->word, memory_order_acquire) == 0) {
        if (!futex_wait(&parker->word, 0, deadline_ns)) {
            return atomic_load_explicit(&parker->word, memory_order_acquire) != 0;
        }
    }
    return true;
}
