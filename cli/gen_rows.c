/* SPDX-License-Identifier: Apache-2.0 */
#include "gen.h"

#include <string.h>

#include "gen_draw.h"

enum {
    RECORD_BYTES = 100,
    RECORD_KEY_BYTES = 10,
    DRAWS_A_ROW = 16, /* random words set aside for each row */
    GROUP_ROW_BYTES_MAX = 160
};

static inline unsigned log2_floor(uint64_t n) {
    return 63 - (unsigned)__builtin_clzll(n);
}

/**
 * Which key row `row` has: with a limited number of keys one of these, evenly or skewed. Skewed
 * means first an octave is drawn, then one in it: each octave of ranks is as likely as the next, so
 * rank k comes up as 1/k.
 */
static inline uint64_t key_number(const gen_rows *rows, uint64_t row) {
    if (rows->keys == 0)
        return row;
    uint64_t word = gen_draw(rows->seed ^ UINT64_C(0x6b657973), row);
    if (!rows->skewed)
        return gen_pick(word, rows->keys);
    unsigned octave = (unsigned)gen_pick(word, log2_floor(rows->keys) + 1);
    uint64_t low = UINT64_C(1) << octave;
    uint64_t end = low * 2 < rows->keys + 1 ? low * 2 : rows->keys + 1;
    return low - 1 + gen_pick(gen_draw(rows->seed ^ UINT64_C(0x6b657974), row), end - low);
}

static inline void put_hex(char *out, uint64_t value) {
    static const char digits[] = "0123456789ABCDEF";
    for (int i = 15; i >= 0; i--, value >>= 4)
        out[i] = digits[value & 15];
}

/** Letters by fours: what real data has in repetition. */
static inline void put_filler(char *out, uint64_t word, int groups) {
    static const char digits[] = "0123456789ABCDEF";
    for (int g = 0; g < groups; g++, word >>= 4)
        memset(out + 4 * g, digits[word & 15], 4);
}

static inline void put_printable(char *out, uint64_t word, int count) {
    for (int i = 0; i < count; i++) {
        gen_u128 wide = (gen_u128)word * 95;
        out[i] = (char)(0x20 + (int)(wide >> 64));
        word = (uint64_t)wide;
    }
}

static size_t fill_ascii(const gen_rows *rows, uint64_t first, uint64_t count, char *out) {
    static const char pattern[RECORD_BYTES + 1] =
        "..........  "
        "00000000000000000000000000000000  "
        "....................................................\r\n";
    for (uint64_t i = first; i < first + count; i++, out += RECORD_BYTES) {
        uint64_t key = key_number(rows, i) * DRAWS_A_ROW;
        memcpy(out, pattern, RECORD_BYTES);
        put_printable(out, gen_draw(rows->seed, key), 5);
        put_printable(out + 5, gen_draw(rows->seed, key + 1), 5);
        put_hex(out + 28, i);
        put_filler(out + 46, gen_draw(rows->seed, i * DRAWS_A_ROW + 2), 13);
    }
    return (size_t)count * RECORD_BYTES;
}

void gen_rows_init_ascii(gen_rows *rows) {
    *rows = (gen_rows){.fill = fill_ascii, .row_bytes_max = RECORD_BYTES, .fixed = true};
}

static size_t fill_binary(const gen_rows *rows, uint64_t first, uint64_t count, char *out) {
    static const unsigned char marks[3][4] = {
        {0x00, 0x01, 0, 0}, {0xc4, 0xb1, 0xde, 0x01}, {0xc4, 0xb1, 0xde, 0x02}};
    for (uint64_t i = first; i < first + count; i++, out += RECORD_BYTES) {
        uint64_t key = key_number(rows, i) * DRAWS_A_ROW;
        uint64_t head = gen_draw(rows->seed, key), tail = gen_draw(rows->seed, key + 1);
        memcpy(out, &head, 8);
        memcpy(out + 8, &tail, 2);
        memcpy(out + 10, marks[0], 2);
        memset(out + 12, '0', 16);
        put_hex(out + 28, i);
        memcpy(out + 44, marks[1], 4);
        put_filler(out + 48, gen_draw(rows->seed, i * DRAWS_A_ROW + 2), 12);
        memcpy(out + 96, marks[2], 4);
    }
    return (size_t)count * RECORD_BYTES;
}

void gen_rows_init_binary(gen_rows *rows) {
    *rows = (gen_rows){.fill = fill_binary, .row_bytes_max = RECORD_BYTES, .fixed = true};
}

/** Eight bytes of text from a random word: each byte picks a letter or, one time in six, a blank.
 */
static inline void put_letters(char *out, uint64_t word) {
    static const char alphabet[65] = " abcdefghijklmnopqrstuvwxyz "
                                     " etaoinshrdlucmfwypgbvkxjqz       ae";
    char text[8];
    for (int i = 0; i < 8; i++)
        text[i] = alphabet[word >> 8 * i & 63];
    memcpy(out, text, sizeof text);
}

static size_t fill_lines(const gen_rows *rows, uint64_t first, uint64_t count, char *out) {
    char *p = out;
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t seed = rows->seed ^ key_number(rows, i) * UINT64_C(0xff51afd7ed558ccd);
        size_t length = (size_t)gen_pick(gen_draw(seed, 0), rows->length_max + 1);
        for (size_t n = 0; n < length; n += 8)
            put_letters(p + n,
                        gen_draw(seed, n / 8 + 1)); /* up to 7 bytes too many, overwritten next */
        p += length;
        *p++ = '\n';
    }
    return (size_t)(p - out);
}

void gen_rows_init_lines(gen_rows *rows) {
    *rows = (gen_rows){.fill = fill_lines, .length_max = 120, .row_bytes_max = 121 + 7};
}

/** Where a value is missing its field is empty. */
static inline char *end_field(const gen_rows *rows, uint64_t n, char *start, char *end) {
    if (rows->missing > 0 &&
        gen_pick(gen_draw(rows->seed ^ UINT64_C(0x6e6f6e65), n), 100) < rows->missing)
        end = start;
    *end = ',';
    return end + 1;
}

static size_t fill_group(const gen_rows *rows, uint64_t first, uint64_t count, char *out) {
    char *p = out;
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t n = i * DRAWS_A_ROW;
        const uint64_t fine = rows->groups_fine, coarse = rows->groups;
        const uint64_t kinds[] = {coarse, coarse, fine, coarse, coarse, fine, 5, 15};
        for (unsigned c = 0; c < 8; c++) {
            uint64_t value = 1 + gen_pick(gen_draw(rows->seed, n + c), kinds[c]);
            char *end = p;
            if (c < 3) {
                *end++ = 'i';
                *end++ = 'd';
            }
            end = gen_put_number(end, value, c < 2 ? 3 : c == 2 ? 10 : 1);
            p = end_field(rows, n + c, p, end);
        }
        uint64_t v3 = gen_pick(gen_draw(rows->seed, n + 8), UINT64_C(100000000));
        p = end_field(rows, n + 8, p, gen_put_value(p, v3));
        p[-1] = '\n';
    }
    return (size_t)(p - out);
}

void gen_rows_init_group(gen_rows *rows) {
    *rows = (gen_rows){.fill = fill_group,
                       .row_bytes_max = GROUP_ROW_BYTES_MAX,
                       .header = "id1,id2,id3,id4,id5,id6,v1,v2,v3\n",
                       .groups = 100};
}
