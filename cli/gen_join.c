/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The H2O.ai join data: a table x of N rows and right tables of N/1e6, N/1e3 and N rows ("small",
 * "medium", "big"). Three key columns have n = N/1e6, N/1e3 and N values on each side: nine tenths
 * of them are common, one tenth is on the left only, one tenth on the right only. Where a table has
 * more rows than its column has values each value comes up once at least, the rest is drawn.
 *
 * What R does with shuffled arrays is done with permutations that can be asked for any one element,
 * so a row stays a function of its number: four rounds of a Feistel network on the next even number
 * of bits, walked on until the number is in range.
 *
 * "left" and "right" are the narrower pair that the join benchmark here runs on.
 */
#include <string.h>

#include "gen.h"
#include "gen_draw.h"

enum { JOIN_ROW_BYTES_MAX = 128, ROUNDS = 4, ONE_SMALL = 1000000, ONE_MEDIUM = 1000 };

/* A use of random words, so that no two columns share them. */
enum { USE_KEYS = 0x6b31, USE_LEFT = 0x6c31, USE_RIGHT = 0x7231, USE_DRAWN = 0x6431, USE_NONE = 1 };

static uint64_t permute(uint64_t seed, uint64_t i, uint64_t n) {
    unsigned half = n > 4 ? (65 - (unsigned)__builtin_clzll(n - 1)) / 2 : 1;
    uint64_t mask = (UINT64_C(1) << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (unsigned r = 0; r < ROUNDS; r++) {
            uint64_t word = left ^ (gen_draw(seed + r, right) >> 20 & mask);
            left = right;
            right = word;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}

static uint64_t use_of(const gen_rows *rows, uint64_t use, unsigned column) {
    return (rows->seed * 64 + column) * UINT64_C(0x10001) ^ use << 40;
}

/* The values that a column has on one side. */
static uint64_t column_values(uint64_t all, unsigned column) {
    uint64_t n = column == 0 ? all / ONE_SMALL : column == 1 ? all / ONE_MEDIUM : all;
    uint64_t least = all < 10 ? (all > 0 ? all : 1) : 10;
    return n < least ? least : n;
}

/** The value of a key column in row `row` of `count`; 0 where there is none. */
static uint64_t key_value(const gen_rows *rows, unsigned column, uint64_t row, uint64_t count,
                          bool right) {
    uint64_t n = column_values(rows->join_rows, column), common = n / 10 * 9 + n % 10 * 9 / 10;
    uint64_t use = use_of(rows, right ? USE_RIGHT : USE_LEFT, column);
    uint64_t place = permute(use, row, count);
    if (place >= n)
        place = gen_pick(gen_draw(use_of(rows, USE_DRAWN + right, column), place), n);
    if (!right && rows->missing > 0 &&
        gen_pick(gen_draw(use_of(rows, USE_NONE, column), place), 100) < rows->missing)
        return 0; /* the real generator takes whole values away as well */
    if (right && place >= common)
        place += n - common;
    return 1 + permute(use_of(rows, USE_KEYS, column), place, n + n - common);
}

static char *put_key(char *out, uint64_t value, const char *before) {
    if (value > 0) {
        while (*before != '\0')
            *out++ = *before++;
        out = gen_put_number(out, value, 1);
    }
    *out++ = ',';
    return out;
}

static size_t fill_join(const gen_rows *rows, uint64_t first, uint64_t count, char *out) {
    char *p = out;
    bool right = rows->join_table != GEN_JOIN_X;
    unsigned columns = rows->join_table == GEN_JOIN_SMALL    ? 1
                       : rows->join_table == GEN_JOIN_MEDIUM ? 2
                                                             : 3;
    uint64_t all = gen_join_rows(rows);
    uint64_t value_seed = use_of(rows, right ? USE_RIGHT : USE_LEFT, 3 + (unsigned)columns);
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t keys[3];
        for (unsigned c = 0; c < columns; c++) {
            keys[c] = key_value(rows, c, i, all, right);
            p = put_key(p, keys[c], "");
        }
        for (unsigned c = 0; c < columns; c++)
            p = put_key(p, keys[c], "id");
        bool none = !right && rows->missing > 0 &&
                    gen_pick(gen_draw(use_of(rows, USE_NONE, 3), i), 100) < rows->missing;
        if (!none)
            p = gen_put_value(p, gen_pick(gen_draw(value_seed, i), UINT64_C(100000000)));
        *p++ = '\n';
    }
    return (size_t)(p - out);
}

/* Keys may come up again on the left; on the right each comes once. */
static size_t fill_pair(const gen_rows *rows, uint64_t first, uint64_t count, char *out) {
    char *p = out;
    bool right = rows->join_table == GEN_JOIN_RIGHT;
    uint64_t n = rows->join_rows > 0 ? rows->join_rows : 1, common = n / 10 * 9 + n % 10 * 9 / 10;
    uint64_t value_seed = use_of(rows, right ? USE_RIGHT : USE_LEFT, 8);
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t place = right ? permute(use_of(rows, USE_RIGHT, 9), i, n)
                               : gen_pick(gen_draw(use_of(rows, USE_DRAWN, 9), i), n);
        if (right && place >= common)
            place += n - common;
        uint64_t key = 1 + permute(use_of(rows, USE_KEYS, 9), place, n + n - common);
        p = put_key(p, key, "");
        p[0] = 'i';
        p[1] = 'd';
        p = right ? gen_put_number(p + 2, key, 10)
                  : gen_put_number(p + 2, 1 + gen_pick(gen_draw(value_seed + 1, i), 100), 3);
        *p++ = ',';
        p = gen_put_value(p, gen_pick(gen_draw(value_seed, i), UINT64_C(100000000)));
        *p++ = '\n';
    }
    return (size_t)(p - out);
}

uint64_t gen_join_rows(const gen_rows *rows) {
    return rows->join_table == GEN_JOIN_SMALL    ? column_values(rows->join_rows, 0)
           : rows->join_table == GEN_JOIN_MEDIUM ? column_values(rows->join_rows, 1)
                                                 : rows->join_rows;
}

void gen_rows_init_join(gen_rows *rows, gen_join table, uint64_t join_rows) {
    static const char *const headers[] = {[GEN_JOIN_X] = "id1,id2,id3,id4,id5,id6,v1\n",
                                          [GEN_JOIN_SMALL] = "id1,id4,v2\n",
                                          [GEN_JOIN_MEDIUM] = "id1,id2,id4,id5,v2\n",
                                          [GEN_JOIN_BIG] = "id1,id2,id3,id4,id5,id6,v2\n",
                                          [GEN_JOIN_LEFT] = "id,g,v1\n",
                                          [GEN_JOIN_RIGHT] = "id,name,v2\n"};
    bool pair = table == GEN_JOIN_LEFT || table == GEN_JOIN_RIGHT;
    *rows = (gen_rows){.fill = pair ? fill_pair : fill_join,
                       .row_bytes_max = JOIN_ROW_BYTES_MAX,
                       .header = headers[table],
                       .join_table = table,
                       .join_rows = join_rows};
}
