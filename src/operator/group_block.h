/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_GROUP_BLOCK_H
#define CBI_GROUP_BLOCK_H

#include "operator/group_private.h"
#include "record/narrow.h"

/*
 * Rows a block at a time: keys as pieces of the input, numbers as columns of integers. What is
 * unusual about a row makes it `odd`; such a row takes the road that all rows took before there
 * were blocks (group_read.c).
 */

enum { GROUP_BLOCK = 128, GROUP_BLOCK_SHORT = 16 };

/** A table of groups with narrow states. It takes in more and more of its memory as groups come. */
typedef struct narrow_entry {
    uint64_t
        key[2];     /* its bytes, zeros behind them; longer than that: where they are, their hash */
    uint64_t first; /* position */
    uint32_t rows, key_bytes;
    uint64_t state[];
} narrow_entry;

typedef struct narrow_table {
    uint32_t *slots; /* some bits of the hash, number + 1 */
    size_t mask, slots_max;
    uint8_t *entries;
    size_t entry_bytes;
    uint32_t count, capacity;
    uint8_t *keys, *limit; /* the lowest long key; the end of the memory */
    uint64_t rows;         /* since it was empty */
    bool hopeless;         /* it has been judged */
    uint64_t seed;
} narrow_table;

typedef struct group_block {
    cbi_narrow narrow;
    narrow_table table;
    bool table_on;
    uint32_t count;
    const uint8_t *key[GROUP_BLOCK];
    uint64_t word[GROUP_BLOCK][2]; /* as in narrow_entry */
    uint64_t hash[GROUP_BLOCK];
    uint64_t *states[GROUP_BLOCK];
    uint32_t place[GROUP_BLOCK]; /* in the table, from 1; probably */
    uint32_t key_bytes[GROUP_BLOCK];
    uint32_t number[GROUP_BLOCK]; /* of the row in its chunk */
    uint8_t odd[GROUP_BLOCK];
    bool slice[GROUP_BLOCK]; /* the key is a piece of the row */
    int64_t *values;         /* column by column, GROUP_BLOCK each */
    uint8_t *nulls;
    uint8_t *briefs; /* of keys of up to CBI_BRIEF_TEXT_MAX bytes */
} group_block;

/** Can this group-by's rows be read in blocks? */
bool group_block_possible(const cb_group *g);
size_t group_block_bytes(const cb_group *g);
/** Lays it out at `memory`, aligned to 16. */
void group_block_init(group_block *b, const cb_group *g, uint8_t *memory);

/** Rows [from, from + count) of w->rows, which have numbers from `number` on: reads keys and
 * columns; `keys` is memory for keys that have to be put together. */
void group_block_read(group_block *b, const cb_group *g, const cbi_rows *rows, size_t end_bytes,
                      uint32_t from, uint32_t count, uint32_t number, uint8_t *keys,
                      size_t keys_bytes, uint8_t *scales_above);
/** Keys from `from` on become brief: their places and bytes. */
void group_block_brief(group_block *b, const cb_group *g, uint32_t from);
/** One key does; the last one before it is gone. */
void group_block_brief_one(group_block *b, const cb_group *g, const uint8_t **key, uint32_t *bytes);
/** Takes odd rows out. */
void group_block_drop_odd(group_block *b, size_t columns);

/* ---- group_narrow.c ---- */

/** False: the memory is too small for any. */
bool narrow_table_init(narrow_table *t, void *memory, size_t bytes, size_t words, uint64_t seed);
void narrow_table_empty(narrow_table *t);
static inline narrow_entry *narrow_table_at(const narrow_table *t, uint32_t i) {
    return (narrow_entry *)(void *)(t->entries + (size_t)i * t->entry_bytes);
}
static inline const uint8_t *narrow_entry_key(const narrow_entry *e) {
    return e->key_bytes <= GROUP_BLOCK_SHORT ? (const uint8_t *)e->key
                                             : (const uint8_t *)(uintptr_t)e->key[0];
}
/** Adds rows from `from` on; answers the first for which there is no place, or b->count. */
uint32_t narrow_table_add(group_block *b, uint32_t from, uint64_t position);
/** It is full: was it worth having, and will be again? */
bool narrow_table_worth(const narrow_table *t);

#endif
