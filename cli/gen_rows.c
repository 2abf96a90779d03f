/* SPDX-License-Identifier: Apache-2.0 */
#include "gen.h"

#include <string.h>

#define GEN_GOLDEN UINT64_C(0x9e3779b97f4a7c15)

enum {
    RECORD_BYTES = 100,
    RECORD_KEY_BYTES = 10,
    DRAWS_A_ROW = 16, /* random words set aside for each row */
    GROUP_ROW_BYTES_MAX = 160
};

__extension__ typedef unsigned __int128 gen_u128;

/** The n-th random word of a seed: a counter, mixed until no bit of it can be told. */
static inline uint64_t draw(uint64_t seed, uint64_t n) {
    uint64_t z = seed * GEN_GOLDEN ^ (n + 1) * UINT64_C(0xd1342543de82ef95);
    z = (z ^ z >> 32) * UINT64_C(0xe9846af9b1a615d5);
    z = (z ^ z >> 29) * GEN_GOLDEN;
    z = (z ^ z >> 32) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ z >> 30;
}

/** One of 0 .. n - 1, as even as 64 bits allow. */
static inline uint64_t pick(uint64_t word, uint64_t n) {
    return (uint64_t)((gen_u128)word * n >> 64);
}

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
    uint64_t word = draw(rows->seed ^ UINT64_C(0x6b657973), row);
    if (!rows->skewed)
        return pick(word, rows->keys);
    unsigned octave = (unsigned)pick(word, log2_floor(rows->keys) + 1);
    uint64_t low = UINT64_C(1) << octave;
    uint64_t end = low * 2 < rows->keys + 1 ? low * 2 : rows->keys + 1;
    return low - 1 + pick(draw(rows->seed ^ UINT64_C(0x6b657974), row), end - low);
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
        put_printable(out, draw(rows->seed, key), 5);
        put_printable(out + 5, draw(rows->seed, key + 1), 5);
        put_hex(out + 28, i);
        put_filler(out + 46, draw(rows->seed, i * DRAWS_A_ROW + 2), 13);
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
        uint64_t head = draw(rows->seed, key), tail = draw(rows->seed, key + 1);
        memcpy(out, &head, 8);
        memcpy(out + 8, &tail, 2);
        memcpy(out + 10, marks[0], 2);
        memset(out + 12, '0', 16);
        put_hex(out + 28, i);
        memcpy(out + 44, marks[1], 4);
        put_filler(out + 48, draw(rows->seed, i * DRAWS_A_ROW + 2), 12);
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
        size_t length = (size_t)pick(draw(seed, 0), rows->length_max + 1);
        for (size_t n = 0; n < length; n += 8)
            put_letters(p + n,
                        draw(seed, n / 8 + 1)); /* up to 7 bytes too many, overwritten next */
        p += length;
        *p++ = '\n';
    }
    return (size_t)(p - out);
}

void gen_rows_init_lines(gen_rows *rows) {
    *rows = (gen_rows){.fill = fill_lines, .length_max = 120, .row_bytes_max = 121 + 7};
}

/** `value`, below 10^10, in decimal, with leading zeros up to `width` (10 at most). */
static inline char *put_number(char *out, uint64_t value, int width) {
    static const char pairs[] = "00010203040506070809101112131415161718192021222324"
                                "25262728293031323334353637383940414243444546474849"
                                "50515253545556575859606162636465666768697071727374"
                                "75767778798081828384858687888990919293949596979899";
    char digits[10];
    int first = 10;
    while (value >= 100) {
        memcpy(digits + (first -= 2), pairs + 2 * (value % 100), 2);
        value /= 100;
    }
    memcpy(digits + (first -= 2), pairs + 2 * value, 2);
    first += value < 10;
    while (10 - first < width)
        digits[--first] = '0';
    memcpy(out, digits + first, (size_t)(10 - first));
    return out + (10 - first);
}

static inline char *put_id(char *out, uint64_t value, int width) {
    *out++ = 'i';
    *out++ = 'd';
    out = put_number(out, value, width);
    *out++ = ',';
    return out;
}

static inline char *put_field(char *out, uint64_t value) {
    out = put_number(out, value, 1);
    *out++ = ',';
    return out;
}

static size_t fill_group(const gen_rows *rows, uint64_t first, uint64_t count, char *out) {
    char *p = out;
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t n = i * DRAWS_A_ROW;
        p = put_id(p, 1 + pick(draw(rows->seed, n), rows->groups), 3);
        p = put_id(p, 1 + pick(draw(rows->seed, n + 1), rows->groups), 3);
        p = put_id(p, 1 + pick(draw(rows->seed, n + 2), rows->groups_fine), 10);
        p = put_field(p, 1 + pick(draw(rows->seed, n + 3), rows->groups));
        p = put_field(p, 1 + pick(draw(rows->seed, n + 4), rows->groups));
        p = put_field(p, 1 + pick(draw(rows->seed, n + 5), rows->groups_fine));
        p = put_field(p, 1 + pick(draw(rows->seed, n + 6), 5));
        p = put_field(p, 1 + pick(draw(rows->seed, n + 7), 15));
        uint64_t v3 = pick(draw(rows->seed, n + 8), UINT64_C(100000000));
        p = put_number(p, v3 / 1000000, 1);
        *p++ = '.';
        p = put_number(p, v3 % 1000000, 6);
        *p++ = '\n';
    }
    return (size_t)(p - out);
}

void gen_rows_init_group(gen_rows *rows) {
    *rows = (gen_rows){.fill = fill_group,
                       .row_bytes_max = GROUP_ROW_BYTES_MAX,
                       .header = "id1,id2,id3,id4,id5,id6,v1,v2,v3\n",
                       .groups = 100};
}
