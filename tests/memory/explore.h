/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MEMORY_EXPLORE_H
#define MEMORY_EXPLORE_H

/* What the tests share that walk through every order of a few actors' steps: the set of states that
 * were seen, as hashes, and how far to go. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory/arbiter.h"

typedef struct seen_states {
    uint64_t *slots; /* 0: free */
    size_t size;     /* a power of two */
    uint64_t count;
} seen_states;

static inline void seen_grow(seen_states *s) {
    size_t size = s->size > 0 ? s->size * 2 : (size_t)1 << 16;
    uint64_t *slots = calloc(size, sizeof *slots);
    assert_non_null(slots);
    for (size_t i = 0; i < s->size; i++) {
        if (s->slots[i] != 0) {
            size_t at = (s->slots[i] >> 1) & (size - 1);
            while (slots[at] != 0) {
                at = (at + 1) & (size - 1);
            }
            slots[at] = s->slots[i];
        }
    }
    free(s->slots);
    s->slots = slots;
    s->size = size;
}

/** False the first time. */
static inline bool seen_before(seen_states *s, uint64_t hash) {
    if (s->count * 10 >= s->size * 7) {
        seen_grow(s);
    }
    hash |= 1;
    size_t at = (hash >> 1) & (s->size - 1);
    while (s->slots[at] != 0) {
        if (s->slots[at] == hash) {
            return true;
        }
        at = (at + 1) & (s->size - 1);
    }
    s->slots[at] = hash;
    s->count++;
    return false;
}

static inline void seen_forget(seen_states *s) {
    free(s->slots);
    *s = (seen_states){0};
}

static inline void mix(uint64_t *hash, uint64_t value) {
    *hash = (*hash ^ value) * 0x9e3779b97f4a7c15u;
    *hash ^= *hash >> 29;
}

/** Tasks are interchangeable: the hash of a state must not depend on which is which. */
static inline void mix_unordered(uint64_t *hash, uint64_t *parts, size_t count) {
    for (size_t i = 1; i < count; i++) {
        for (size_t j = i; j > 0 && parts[j - 1] > parts[j]; j--) {
            uint64_t part = parts[j];
            parts[j] = parts[j - 1];
            parts[j - 1] = part;
        }
    }
    for (size_t i = 0; i < count; i++) {
        mix(hash, parts[i]);
    }
}

/** Of those who came before a request, waiting or away: order counts, numbers do not. */
static inline uint64_t rank_among(const cbi_arbiter *a, const cbi_request *request) {
    uint64_t rank = 0;
    for (const cbi_request *r = a->first; r != NULL; r = r->next) {
        rank += r->sequence < request->sequence;
    }
    return rank;
}

/** CARBIDE_TEST_LONG: walk through all of it, for as long as it takes. */
static inline bool explores_all(void) {
    return getenv("CARBIDE_TEST_LONG") != NULL;
}

/** Sanitizers take their time, and what is explored has no threads. */
static inline bool explores_little(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    return true;
#else
    return false;
#endif
#else
    return false;
#endif
}

#endif
