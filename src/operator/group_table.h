/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_GROUP_TABLE_H
#define CBI_GROUP_TABLE_H

#include "base/base.h"

#include <string.h>

/*
 * A table of groups in a fixed piece of memory: it is emptied when it is full, never grown.
 *
 *     | slots: tag, number | entries ->             <- copied keys |
 */

typedef struct group_entry {
    const uint8_t *key; /* what is written out lies behind it (group_private.h) */
    uint64_t first;     /* position */
    uint32_t key_bytes;
    uint32_t rows; /* lists: how many; states: where the state is, 0 none (group_states.c) */
    uint64_t state[];
} group_entry;

typedef struct group_table {
    uint64_t *slots; /* tag << 32 | number + 1; 0: free */
    size_t mask;
    uint8_t *entries;
    size_t entry_bytes;
    uint32_t count, capacity;
    uint8_t *limit, *keys; /* end of the memory; the lowest copied key */
    uint8_t *scales;       /* one a column */
} group_table;

static inline group_entry *group_table_at(const group_table *t, uint32_t i) {
    return (group_entry *)(void *)(t->entries + (size_t)i * t->entry_bytes);
}

/** `entries` of them at most are wanted; `key_bytes` a key are kept for copies. Answers how many it
 * can hold (less when the memory is small), 0: none. */
static inline uint32_t group_table_init(group_table *t, void *memory, size_t bytes,
                                        size_t state_bytes, size_t entries, size_t key_bytes) {
    *t = (group_table){.slots = memory, .entry_bytes = sizeof(group_entry) + state_bytes};
    size_t each = t->entry_bytes + key_bytes, slots = 16;
    while (slots < entries + entries / 2 && slots < (size_t)1 << 31)
        slots *= 2;
    while (slots > 16 && slots * 8 + (slots / 2 < entries ? slots / 2 : entries) * each > bytes)
        slots /= 2;
    if (slots * 8 + each > bytes)
        return 0;
    size_t fit = (bytes - slots * 8) / each, most = slots - slots / 4;
    t->mask = slots - 1;
    t->capacity = (uint32_t)(fit < most ? fit : most);
    t->entries = (uint8_t *)memory + slots * 8;
    t->limit = t->keys = (uint8_t *)memory + bytes;
    memset(t->slots, 0, slots * 8);
    return t->capacity;
}

static inline void group_table_empty(group_table *t) {
    memset(t->slots, 0, (t->mask + 1) * 8);
    t->count = 0;
    t->keys = t->limit;
}

static inline void group_table_prefetch(const group_table *t, uint64_t hash) {
    __builtin_prefetch(&t->slots[hash & t->mask]);
}

/* The first slot of a hash, if that is probably its own; 0 otherwise. */
static inline uint64_t group_table_own_slot(const group_table *t, uint64_t hash) {
    uint64_t slot = t->slots[hash & t->mask];
    return (slot ^ hash) >> 32 == 0 ? slot : 0;
}

static inline void group_table_prefetch_entry(const group_table *t, uint64_t hash) {
    uint64_t slot = group_table_own_slot(t, hash);
    if ((uint32_t)slot != 0)
        __builtin_prefetch(group_table_at(t, (uint32_t)slot - 1));
}

/** After that: the entry is near, its key and the rest of its state may not be. */
static inline void group_table_prefetch_key(const group_table *t, uint64_t hash) {
    uint64_t slot = group_table_own_slot(t, hash);
    if ((uint32_t)slot != 0) {
        const group_entry *e = group_table_at(t, (uint32_t)slot - 1);
        __builtin_prefetch((const uint8_t *)e + 64);
        __builtin_prefetch(e->key);
    }
}

/** The entry of a key, or NULL; *place is where it would have to be noted. */
static inline group_entry *group_table_find(const group_table *t, uint64_t hash, const uint8_t *key,
                                            uint32_t key_bytes, size_t *place) {
    uint64_t tag = hash & UINT64_C(0xffffffff00000000);
    size_t i = hash & t->mask;
    for (; t->slots[i] != 0; i = (i + 1) & t->mask) {
        if ((t->slots[i] & UINT64_C(0xffffffff00000000)) != tag)
            continue;
        group_entry *e = group_table_at(t, (uint32_t)t->slots[i] - 1);
        if (e->key_bytes == key_bytes && memcmp(e->key, key, key_bytes) == 0)
            return e;
    }
    *place = i;
    return NULL;
}

/** `copy`: bytes of the key, and what stands behind it, that are to be copied; 0: it stays where it
 * is. NULL: full. */
static inline group_entry *group_table_add(group_table *t, uint64_t hash, const uint8_t *key,
                                           uint32_t key_bytes, size_t copy, size_t place) {
    uint8_t *at = t->entries + (size_t)t->count * t->entry_bytes;
    if (t->count == t->capacity || (size_t)(t->keys - at) < t->entry_bytes + copy)
        return NULL;
    group_entry *e = (group_entry *)(void *)at;
    memset(e, 0, t->entry_bytes);
    e->key = key;
    e->key_bytes = key_bytes;
    if (copy > 0) {
        t->keys -= copy;
        e->key = t->keys;
    }
    t->slots[place] = (hash & UINT64_C(0xffffffff00000000)) | ++t->count;
    return e;
}

#endif
