/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rank.h"

#ifdef CARBIDE_DEBUG

#include <stdio.h>

enum { HELD_MAX = 16 };

static const char *const names[] = {"no rank",
#define AS_TEXT(name, text) text,
                                    CBI_RANKS(AS_TEXT)
#undef AS_TEXT
};

typedef struct held_lock {
    const void *lock;
    cbi_rank rank;
} held_lock;

static _Thread_local struct {
    unsigned count;
    held_lock locks[HELD_MAX]; /* by rank, as that is how they were taken */
} held;

void cbi_rank_take(const void *lock, cbi_rank rank) {
    cb_assert(rank != CBI_RANK_NONE);
    if (held.count > 0 && held.locks[held.count - 1].rank >= rank) {
        char text[192];
        (void)snprintf(text, sizeof text, "\"%s\" is taken before \"%s\", not under it",
                       names[rank], names[held.locks[held.count - 1].rank]);
        cbi_assert_failed(text, __FILE__, __LINE__, __func__);
    }
    cb_assert(held.count < HELD_MAX);
    held.locks[held.count++] = (held_lock){.lock = lock, .rank = rank};
}

void cbi_rank_give(const void *lock) {
    unsigned i = held.count;
    while (i > 0 && held.locks[i - 1].lock != lock) {
        i--;
    }
    if (i == 0) {
        cbi_assert_failed("a lock is given by who holds it", __FILE__, __LINE__, __func__);
    }
    held.count--;
    for (; i <= held.count; i++) {
        held.locks[i - 1] = held.locks[i];
    }
}

unsigned cbi_rank_held(void) {
    return held.count;
}

#else

typedef int rank_is_not_checked; /* a file has something in it */

#endif
