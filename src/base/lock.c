/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who finds the lock held waits in three ways, each for longer than the one before.
 *
 * Spinning, looking seldom. The sections are a few dozen instructions, and a look takes the word's
 * cache line away from who is at work: two threads that look all the time both do little but pass
 * the line to and fro (measured with bench/originals: 180 ns an operation of 12 ns). So looks are
 * far apart, twice as far each time, and whoever has the lock gets through many short sections
 * meanwhile with the line to himself (28 ns with both threads at it).
 *
 * Sleeping, when a time as long as many sections has passed: the holder has been put off its CPU.
 * Who was woken spins again before it sleeps again; otherwise two threads that take turns would go
 * through the kernel for ever once one of them had slept.
 *
 * Starving. A lock that anybody may take who comes by is fast and not fair: a thread that shares a
 * CPU with one that takes the lock all the time finds it held each time it runs. After a
 * millisecond it says so in the word, and the next giver hands the lock to it instead of letting it
 * go: once in a millisecond that costs a sleep and a wake.
 */
#include "base/lock.h"

#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/sys.h"

/* In pauses of the CPU, of 10 to 40 ns each: until the first look, between looks at most, in all.
 */
enum { FIRST_LOOK_PAUSES = 16, LOOK_PAUSES_MAX = 256, SPIN_PAUSES_MAX = 1024 };

enum { STARVING_NS = 1000000 };

/* The lock's word. */
enum {
    FREE,
    HELD,
    HELD_SLEEPERS,
    HELD_STARVING, /* somebody has slept for too long: to be handed on */
    HANDED         /* nobody's but the starving thread's */
};

/* Who sleeps for what, as bits of the kernel's wake. */
enum { SLEEPER = 1, STARVING = 2, ANYBODY = SLEEPER | STARVING };

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/** Sleeps as one of `kind` while the word is `expected`; false when the deadline passed. Wakes for
 *  no reason too. */
static bool futex_wait(_Atomic uint32_t *word, uint32_t expected, uint32_t kind,
                       uint64_t deadline_ns) {
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / 1000000000u),
                             .tv_nsec = (long)(deadline_ns % 1000000000u)};
    /* The bit-set form takes an absolute time of the monotonic clock; the plain one a relative
     * time. */
    long rc = syscall(SYS_futex, word, FUTEX_WAIT_BITSET_PRIVATE, expected,
                      deadline_ns > 0 ? &until : NULL, NULL, kind);
    return rc == 0 || errno != ETIMEDOUT;
}

/** Wakes one of `kind`; false when nobody of it sleeps. */
static bool futex_wake_one(_Atomic uint32_t *word, uint32_t kind) {
    return syscall(SYS_futex, word, FUTEX_WAKE_BITSET_PRIVATE, 1, NULL, NULL, kind) > 0;
}

static bool change(cbi_lock *lock, uint32_t from, uint32_t to, memory_order order) {
    return atomic_compare_exchange_strong_explicit(&lock->word, &from, to, order,
                                                   memory_order_relaxed);
}

/** Looks at a held lock now and then, in the hope that it is given soon, and takes it as `word`. */
static bool take_spinning(cbi_lock *lock, uint32_t word) {
    for (size_t pauses = FIRST_LOOK_PAUSES, spent = 0; spent < SPIN_PAUSES_MAX; spent += pauses) {
        for (size_t i = 0; i < pauses; i++) {
            pause_briefly();
        }
        /* No load before it: that would fetch the line twice. */
        if (change(lock, FREE, word, memory_order_acquire)) {
            return true;
        }
        pauses = cbi_min(2 * pauses, LOOK_PAUSES_MAX);
    }
    return false;
}

/** Takes the lock, or sleeps until there is reason to look again. */
static bool take_or_sleep(cbi_lock *lock, bool starving) {
    uint32_t seen = atomic_load_explicit(&lock->word, memory_order_relaxed);
    if (seen == FREE || (starving && seen == HANDED)) {
        /* From here on the word says that others sleep: we cannot know whether they do. */
        return change(lock, seen, HELD_SLEEPERS, memory_order_acquire);
    }
    uint32_t wanted = starving ? HELD_STARVING : HELD_SLEEPERS;
    if (seen < wanted) {
        if (!change(lock, seen, wanted, memory_order_relaxed)) {
            return false;
        }
        seen = wanted;
    }
    (void)futex_wait(&lock->word, seen, starving ? STARVING : SLEEPER, 0);
    return !starving && take_spinning(lock, HELD_SLEEPERS);
}

void cbi_lock_take_slow(cbi_lock *lock) {
    if (take_spinning(lock, HELD)) {
        return;
    }
    uint64_t starving_ns = cbi_sys_clock_ns() + STARVING_NS;
    bool starving = false;
    while (!take_or_sleep(lock, starving)) {
        starving = starving || cbi_sys_clock_ns() >= starving_ns;
    }
}

void cbi_lock_give_slow(cbi_lock *lock, uint32_t was) {
    if (was == HELD_STARVING) { /* it is free now; mostly nobody was quicker than this */
        bool handed = change(lock, FREE, HANDED, memory_order_release);
        if (futex_wake_one(&lock->word, STARVING)) {
            return;
        }
        /* Who starved does not sleep any more, and may have had the lock and gone. */
        if (handed) {
            (void)change(lock, HANDED, FREE, memory_order_release);
        }
    }
    (void)futex_wake_one(&lock->word, ANYBODY);
}

void cbi_parker_open(cbi_parker *parker) {
    atomic_store_explicit(&parker->word, 1, memory_order_release);
    /* The word may be gone by now: then nobody sleeps on that address, no harm. */
    (void)futex_wake_one(&parker->word, ANYBODY);
}

bool cbi_parker_wait(cbi_parker *parker, uint64_t deadline_ns) {
    while (atomic_load_explicit(&parker->word, memory_order_acquire) == 0) {
        if (!futex_wait(&parker->word, 0, SLEEPER, deadline_ns)) {
            return atomic_load_explicit(&parker->word, memory_order_acquire) != 0;
        }
    }
    return true;
}
