/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_block.h"

/*
 * The table that rows are added to while they are read, where groups are few.
 *
 * It is made for caches. A key of up to 16 bytes lies in its entry, so a look at a group is one
 * look at memory, and the entries of a block of rows are on their way at the same time. Its memory
 * is a large piece that nobody has touched: entries fill it from the front, and slots are doubled
 * in place when they fill up, from a few thousand on, so a hundred groups are a hundred entries.
 *
 * Is it worth having? Only if rows meet. By the time it doubles its slots it has seen n rows with
 * so and so many meetings, and if groups come at random, n * n / (2 D) of n rows meet where there
 * are D groups (birthdays). With fewer meetings than a D as large as the table's capacity would
 * give it will fill up and be no help: better to stop at eight thousand rows than at a million.
 * Input that is in order of its key meets itself at once, whatever D is.
 */

enum { SLOTS_FIRST = 4096, JUDGED_FROM = 8192, PLACE_BITS = 22 };
static const double CHANCE = 0.85;
static const uint32_t PLACE_MASK = (1u << PLACE_BITS) - 1;

bool narrow_table_init(narrow_table *t, void *memory, size_t bytes, size_t words, uint64_t seed) {
    *t = (narrow_table){.slots = memory, .seed = seed};
    t->entry_bytes = sizeof(narrow_entry) + words * sizeof(uint64_t);
    if (t->entry_bytes > 32 && t->entry_bytes < 64)
        t->entry_bytes = cbi_round_up(t->entry_bytes, 16);
    size_t slots = 1024;
    while (slots < (size_t)1 << PLACE_BITS && slots * 2 * 4 + slots * t->entry_bytes <= bytes)
        slots *= 2;
    size_t front = cbi_round_up(slots * sizeof *t->slots, 64);
    if (front + 64 * t->entry_bytes > bytes)
        return false;
    size_t most = cbi_min(slots - slots / 8, (size_t)PLACE_MASK - 1);
    t->capacity = (uint32_t)cbi_min((bytes - front) / t->entry_bytes, most);
    t->slots_max = slots;
    t->entries = (uint8_t *)memory + front;
    t->limit = (uint8_t *)memory + bytes;
    t->mask = cbi_min(slots, SLOTS_FIRST) - 1;
    narrow_table_empty(t);
    return true;
}

void narrow_table_empty(narrow_table *t) {
    memset(t->slots, 0, (t->mask + 1) * sizeof *t->slots);
    t->count = 0;
    t->rows = 0;
    t->keys = t->limit;
}

bool narrow_table_worth(const narrow_table *t) {
    return !t->hopeless && t->rows >= 2 * (uint64_t)t->count;
}

static bool is_hopeless(const narrow_table *t) {
    double rows = (double)t->rows, meetings = rows - (double)t->count;
    double most = (double)t->capacity / CHANCE; /* fewer may be here by bad luck */
    return t->count >= JUDGED_FROM && meetings < rows * rows / (2.0 * most);
}

/* ---- hashes ---- */

static inline uint64_t hash_words(uint64_t a, uint64_t b, uint64_t seed) {
    cbi_u128 product =
        (cbi_u128)(a ^ seed) * (b ^ (seed << 32 | seed >> 32) ^ UINT64_C(0x9e3779b97f4a7c15));
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint32_t tag_of(uint64_t hash) {
    return (uint32_t)(hash >> 32) & ~PLACE_MASK;
}

/* The key's words have been set (group_block.c). */
static inline uint64_t hash_of(const narrow_table *t, const uint64_t *word, uint32_t key_bytes) {
    return hash_words(key_bytes <= GROUP_BLOCK_SHORT ? word[0] ^ (uint64_t)key_bytes << 59
                                                     : key_bytes,
                      word[1], t->seed);
}

/* ---- places ---- */

static void note(narrow_table *t, uint64_t hash, uint32_t number) {
    size_t i = hash & t->mask;
    while (t->slots[i] != 0)
        i = (i + 1) & t->mask;
    t->slots[i] = tag_of(hash) | (number + 1);
}

/* Twice as many slots, if there can be. */
static bool grow(narrow_table *t) {
    if (t->mask + 1 == t->slots_max)
        return true;
    t->hopeless = is_hopeless(t);
    if (t->hopeless)
        return false;
    t->mask = t->mask * 2 + 1;
    memset(t->slots, 0, (t->mask + 1) * sizeof *t->slots);
    for (uint32_t i = 0; i < t->count; i++) {
        const narrow_entry *e = narrow_table_at(t, i);
        note(t, hash_of(t, e->key, e->key_bytes), i);
    }
    return true;
}

static inline bool same_key(const narrow_entry *e, const uint64_t *word, const uint8_t *key,
                            uint32_t key_bytes) {
    if (e->key_bytes != key_bytes || e->key[1] != word[1])
        return false;
    if (CBI_LIKELY(key_bytes <= GROUP_BLOCK_SHORT))
        return e->key[0] == word[0];
    return memcmp((const void *)(uintptr_t)e->key[0], key, key_bytes) == 0;
}

static narrow_entry *add_entry(group_block *b, uint32_t i) {
    narrow_table *t = &b->table;
    if (t->count >= (t->mask + 1) / 8 * 5 && !grow(t))
        return NULL;
    uint8_t *at = (uint8_t *)narrow_table_at(t, t->count);
    size_t kept = b->key_bytes[i] <= GROUP_BLOCK_SHORT ? 0 : b->key_bytes[i];
    if (t->count == t->capacity || (size_t)(t->keys - at) < t->entry_bytes + kept)
        return NULL;
    narrow_entry *e = (narrow_entry *)(void *)at;
    e->key[0] = b->word[i][0];
    e->key[1] = b->word[i][1];
    if (kept > 0) {
        t->keys -= kept;
        memcpy(t->keys, b->key[i], kept);
        e->key[0] = (uint64_t)(uintptr_t)t->keys;
    }
    e->key_bytes = b->key_bytes[i];
    e->rows = 0;
    cbi_narrow_clear(&b->narrow, e->state);
    note(t, b->hash[i], t->count++);
    return e;
}

/* The first slot from *at on with the hash's bits, 0: none; *at becomes the place behind it. */
static inline uint32_t next_slot(const narrow_table *t, uint64_t hash, size_t *at) {
    uint32_t tag = tag_of(hash), slot;
    while ((slot = t->slots[*at & t->mask]) != 0) {
        ++*at;
        if ((slot & ~PLACE_MASK) == tag)
            return slot & PLACE_MASK;
    }
    return 0;
}

static narrow_entry *find(const narrow_table *t, const group_block *b, uint32_t i) {
    size_t at = b->hash[i];
    for (uint32_t place; (place = next_slot(t, b->hash[i], &at)) != 0;) {
        narrow_entry *e = narrow_table_at(t, place - 1);
        if (same_key(e, b->word[i], b->key[i], b->key_bytes[i]))
            return e;
    }
    return NULL;
}

/* Slots, then entries, of all rows at the same time. */
static void prefetch(group_block *b, uint32_t from) {
    const narrow_table *t = &b->table;
    for (uint32_t i = from; i < b->count; i++) {
        b->hash[i] = hash_of(t, b->word[i], b->key_bytes[i]);
        __builtin_prefetch(&t->slots[b->hash[i] & t->mask]);
    }
    for (uint32_t i = from; i < b->count; i++) {
        size_t at = b->hash[i];
        b->place[i] = next_slot(t, b->hash[i], &at);
        if (b->place[i] == 0)
            continue;
        const uint8_t *e = (const uint8_t *)narrow_table_at(t, b->place[i] - 1);
        __builtin_prefetch(e, 1);
        __builtin_prefetch(e + t->entry_bytes - 1, 1);
    }
}

uint32_t narrow_table_add(group_block *b, uint32_t from, uint64_t position) {
    narrow_table *t = &b->table;
    uint32_t i = from;
    prefetch(b, from);
    for (; i < b->count && t->rows < CBI_NARROW_ROWS_MAX; i++, t->rows++) {
        narrow_entry *e = narrow_table_at(t, b->place[i] - 1);
        if (CBI_UNLIKELY(b->place[i] == 0 || !same_key(e, b->word[i], b->key[i], b->key_bytes[i])))
            e = find(t, b, i);
        if (CBI_UNLIKELY(e == NULL)) {
            e = add_entry(b, i);
            if (e == NULL)
                break;
            e->first = position + b->number[i];
        }
        e->rows++;
        b->states[i] = e->state;
    }
    cbi_narrow_add(&b->narrow, b->states + from, i - from, b->values + from, b->nulls + from,
                   GROUP_BLOCK);
    return i;
}
