/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_BUCKETS_H
#define CBI_BUCKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Heads of chains in a table that grows by one bucket at a time (linear hashing), so that no step
 * of who owns it takes long, however many entries there are: a table of a million that is doubled
 * at once holds everybody up for a tenth of a second. Heads never move: they lie in pieces, each as
 * large as all before it. Chains are the owner's business, who goes through one bucket when it is
 * split. One thread, or the owner's lock.
 */

enum { CBI_BUCKETS_FIRST = 64, CBI_BUCKETS_PIECES = 26 /* 2^31 buckets */ };

typedef struct cbi_buckets {
    void **pieces[CBI_BUCKETS_PIECES];
    size_t count;
} cbi_buckets;

/** CBI_BUCKETS_FIRST empty ones. false: there is no memory. */
bool cbi_buckets_init(cbi_buckets *buckets);
void cbi_buckets_fini(cbi_buckets *buckets); /* zeroed: fine */

/** The bucket of what has that hash. */
static inline size_t cbi_buckets_index(const cbi_buckets *b, uint64_t hash) {
    size_t all = (size_t)(UINT64_MAX >> __builtin_clzll(b->count - 1)); /* of a power of two */
    size_t i = (size_t)hash & all;
    return i < b->count ? i : i & (all >> 1);
}

/** The head of a bucket's chain. */
static inline void **cbi_buckets_head(const cbi_buckets *b, size_t i) {
    if (i < CBI_BUCKETS_FIRST) {
        return &b->pieces[0][i];
    }
    unsigned high = 63 - (unsigned)__builtin_clzll(i);
    return &b->pieces[high - 5][i - ((size_t)1 << high)]; /* 64 is the first of piece 1 */
}

/** One more, which is empty: entries of *from whose index is another one now belong there. false:
 *  there is no memory, or there are as many as there can be; chains just get longer. */
bool cbi_buckets_add(cbi_buckets *buckets, size_t *from);

#endif
