/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_block.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * A block is read in columns, not in rows: first where all keys are, then all numbers of the first
 * column, then of the next. Each loop does one thing, knows where its next item is without having
 * finished with the last, and asks nothing that is the same for all rows.
 */

/* Odd rows come behind the others of their block: for some it matters who was first. */
static bool in_any_order(const cbi_aggregates *a) {
    for (size_t i = 0; i < a->count; i++)
        if (a->items[i].kind == CBI_AGG_MODE)
            return false;
    return true;
}

bool group_block_possible(const cb_group *g) {
    if (g->aggs->lists && !in_any_order(g->aggs))
        return false;
    if (!g->delimited || !g->plain || g->row_is_key || g->text_count > 0)
        return false;
    cbi_narrow n;
    return cbi_narrow_init(&n, g->aggs, g->sample_scales, g->sample_nulls);
}

static size_t columns_of(const cb_group *g) {
    return cbi_min(g->aggs->column_count, CBI_NARROW_COLUMNS_MAX);
}

size_t group_block_bytes(const cb_group *g) {
    size_t briefs = g->brief ? GROUP_BLOCK * (CBI_BRIEF_TEXT_MAX + 1) + CBI_BRIEF_SLACK : 0;
    return columns_of(g) * GROUP_BLOCK * (sizeof(int64_t) + 1) + briefs;
}

void group_block_init(group_block *b, const cb_group *g, uint8_t *memory) {
    bool possible = cbi_narrow_init(&b->narrow, g->aggs, g->sample_scales, g->sample_nulls);
    cb_assert(possible);
    b->table_on = false;
    b->values = (int64_t *)(void *)memory;
    b->nulls = memory + columns_of(g) * GROUP_BLOCK * sizeof(int64_t);
    b->briefs = b->nulls + columns_of(g) * GROUP_BLOCK;
}

/* ---- keys ---- */

/* Up to 16 bytes of a key as two words; `safe`: 16 bytes can be read there. */
static inline void short_key(uint64_t *word, const uint8_t *p, uint32_t bytes, bool safe) {
    uint64_t a = 0, b = 0;
    if (CBI_LIKELY(safe)) {
        a = cbi_load_u64(p);
        b = cbi_load_u64(p + 8);
        uint32_t high = bytes > 8 ? bytes - 8 : 0, low = bytes < 8 ? bytes : 8;
        a = low == 0 ? 0 : a & UINT64_MAX >> (64 - 8 * low);
        b = high == 0 ? 0 : b & UINT64_MAX >> (64 - 8 * high);
    } else {
        memcpy(&a, p, cbi_min(bytes, 8));
        if (bytes > 8)
            memcpy(&b, p + 8, bytes - 8);
    }
    word[0] = a;
    word[1] = b;
}

/* The key columns of a row, which are no piece of it, put together at *at; false: odd. */
static bool join_key(const cb_group *g, const group_row *row, uint8_t **at, const uint8_t *end,
                     const uint8_t **key, uint32_t *key_bytes) {
    uint8_t *p = *at;
    for (size_t k = 0; k < g->key_count; k++) {
        cbi_span span = row->fields[g->key_columns[k].slot];
        if ((span.bytes & CBI_SPAN_ESCAPED) != 0 || span.bytes + 1 > (size_t)(end - p) ||
            group_keeps_quotes(g, row->base, span))
            return false;
        if (k > 0)
            *p++ = g->separator;
        memcpy(p, row->base + span.offset, span.bytes);
        p += span.bytes;
    }
    *key = *at;
    *key_bytes = (uint32_t)(p - *at);
    *at = p;
    return true;
}

static void read_keys(group_block *b, const cb_group *g, const cbi_rows *rows, size_t end_bytes,
                      uint32_t from, uint8_t *memory, size_t memory_bytes) {
    const uint8_t *limit = rows->base + end_bytes, *memory_end = memory + memory_bytes - 16;
    for (uint32_t i = 0; i < b->count; i++) {
        group_row row = {.base = rows->base,
                         .row = rows->rows[from + i],
                         .fields = rows->fields + (from + i) * rows->field_count};
        size_t bytes;
        b->slice[i] = group_key_slice(g, &row, &b->key[i], &bytes);
        if (CBI_LIKELY(b->slice[i])) {
            b->key_bytes[i] = (uint32_t)bytes;
        } else if (!join_key(g, &row, &memory, memory_end, &b->key[i], &b->key_bytes[i])) {
            b->odd[i] = 1;
            continue;
        }
        if (CBI_UNLIKELY(g->brief && b->key_bytes[i] > CBI_BRIEF_TEXT_MAX)) {
            b->odd[i] = 1;
            continue;
        }
        bool inside = b->key[i] >= rows->base && b->key[i] < limit;
        if (CBI_LIKELY(b->key_bytes[i] <= GROUP_BLOCK_SHORT))
            short_key(b->word[i], b->key[i], b->key_bytes[i],
                      !inside || limit - b->key[i] >= GROUP_BLOCK_SHORT);
        else if (b->table_on)
            b->word[i][1] = XXH3_64bits_withSeed(b->key[i], b->key_bytes[i], b->table.seed);
    }
}

/* ---- columns ---- */

static void read_presence(const cbi_rows *rows, uint32_t from, size_t slot, uint32_t count,
                          int64_t *values, uint8_t *nulls) {
    const cbi_span *fields = rows->fields + from * rows->field_count + slot;
    for (uint32_t i = 0; i < count; i++) {
        values[i] = 0;
        nulls[i] = CBI_SPAN_BYTES(fields[i * rows->field_count]) == 0;
    }
}

static void read_column(group_block *b, const cb_group *g, const cbi_rows *rows, uint32_t from,
                        size_t column, uint8_t *above) {
    const cbi_agg_column *c = &g->aggs->columns[column];
    const cbi_narrow_column *n = &b->narrow.columns[column];
    int64_t *values = b->values + column * GROUP_BLOCK;
    uint8_t *nulls = b->nulls + column * GROUP_BLOCK;
    if (!c->number) {
        read_presence(rows, from, c->slot, b->count, values, nulls);
        return;
    }
    *above = (uint8_t)cbi_numbers_read(&n->want, rows->base,
                                       rows->fields + from * rows->field_count + c->slot,
                                       rows->field_count, b->count, values, nulls, b->odd);
    for (uint32_t i = 0; !n->nullable && b->table_on && i < b->count; i++)
        b->odd[i] |= nulls[i];
}

void group_block_read(group_block *b, const cb_group *g, const cbi_rows *rows, size_t end_bytes,
                      uint32_t from, uint32_t count, uint32_t number, uint8_t *keys,
                      size_t keys_bytes, uint8_t *scales_above) {
    b->count = count;
    memset(b->odd, 0, count);
    for (uint32_t i = 0; i < count; i++)
        b->number[i] = number + i;
    read_keys(b, g, rows, end_bytes, from, keys, keys_bytes);
    for (size_t c = 0; c < g->aggs->column_count; c++)
        read_column(b, g, rows, from, c, &scales_above[c]);
}

void group_block_brief(group_block *b, const cb_group *g, uint32_t from) {
    (void)cbi_brief_put_all(&g->alphabet, b->key + from, b->key_bytes + from, b->count - from,
                            b->briefs);
}

void group_block_brief_one(group_block *b, const cb_group *g, const uint8_t **key,
                           uint32_t *bytes) {
    (void)cbi_brief_put_all(&g->alphabet, key, bytes, 1, b->briefs);
}

void group_block_drop_odd(group_block *b, size_t columns) {
    uint32_t to = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        if (b->odd[i])
            continue;
        b->key[to] = b->key[i];
        b->word[to][0] = b->word[i][0];
        b->word[to][1] = b->word[i][1];
        b->key_bytes[to] = b->key_bytes[i];
        b->number[to] = b->number[i];
        for (size_t c = 0; c < columns; c++) {
            b->values[c * GROUP_BLOCK + to] = b->values[c * GROUP_BLOCK + i];
            b->nulls[c * GROUP_BLOCK + to] = b->nulls[c * GROUP_BLOCK + i];
        }
        to++;
    }
    b->count = to;
}
