/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_LRU_H
#define CBI_LRU_H

#include "base/base.h"
#include "carbide/allocator.h"

/*
 * Which block leaves first: the order of use, and Spark's rules of who may be evicted for whom
 * (MemoryStore.evictBlocksToFreeSpace). Entries lie inside the owner's blocks; nothing is allocated
 * and nothing is called. No lock of its own.
 */

#define CBI_NO_DATA_SET INT64_C(-1)

typedef struct cbi_lru_entry {
    struct cbi_lru_entry *older, *newer; /* NULL, NULL and not in a list: not stored */
    struct cbi_lru_entry *next_victim;
    uint64_t bytes;
    int64_t
        data_set; /* blocks of one data set never push each other out; CBI_NO_DATA_SET: no kin */
    cb_mode mode;
    uint32_t pins; /* readers: cannot be evicted meanwhile */
    bool marked;   /* chosen, on its way out */
    bool cold;     /* leaves before all that are not; set before it is added */
} cbi_lru_entry;

typedef struct cbi_lru_list {
    cbi_lru_entry *oldest, *newest;
} cbi_lru_list;

typedef struct cbi_lru {
    cbi_lru_list cold, others;
    size_t count;
} cbi_lru;

/** bytes, data_set, mode and cold are set; it becomes the newest. */
void cbi_lru_add(cbi_lru *lru, cbi_lru_entry *entry);
void cbi_lru_remove(cbi_lru *lru, cbi_lru_entry *entry);
/** It was read: the newest now. */
void cbi_lru_touch(cbi_lru *lru, cbi_lru_entry *entry);

/**
 * Marks the least recently used entries of `mode`, cold ones first, until they make `bytes`: none
 * that is pinned or marked, none of `data_set` (CBI_NO_DATA_SET: all may go). They come out in that
 * order, linked by next_victim, and the sum of their bytes is the answer. When they do not make
 * `bytes` nothing is marked, *victims is NULL and the answer 0.
 */
uint64_t cbi_lru_choose(cbi_lru *lru, cb_mode mode, uint64_t bytes, int64_t data_set,
                        cbi_lru_entry **victims);

/** The marks of a chain go; the entries stay where they are. */
void cbi_lru_unmark(cbi_lru_entry *victims);

#endif
