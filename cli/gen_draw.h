/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_GEN_DRAW_H
#define CLI_GEN_DRAW_H

#include <stdint.h>
#include <string.h>

/* Random words by number, and numbers as text: what every kind of made data is made of. */

#define GEN_GOLDEN UINT64_C(0x9e3779b97f4a7c15)

__extension__ typedef unsigned __int128 gen_u128;

/** The n-th random word of a seed: a counter, mixed until no bit of it can be told. */
static inline uint64_t gen_draw(uint64_t seed, uint64_t n) {
    uint64_t z = seed * GEN_GOLDEN ^ (n + 1) * UINT64_C(0xd1342543de82ef95);
    z = (z ^ z >> 32) * UINT64_C(0xe9846af9b1a615d5);
    z = (z ^ z >> 29) * GEN_GOLDEN;
    z = (z ^ z >> 32) * UINT64_C(0xbf58476d1ce4e5b9);
    return z ^ z >> 30;
}

/** One of 0 .. n - 1, as even as 64 bits allow. */
static inline uint64_t gen_pick(uint64_t word, uint64_t n) {
    return (uint64_t)((gen_u128)word * n >> 64);
}

/** `value`, below 10^10, in decimal, with leading zeros up to `width` (10 at most). */
static inline char *gen_put_number(char *out, uint64_t value, int width) {
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

/**
 * A value below 100 in millionths, as R's fwrite writes a number rounded to six decimals: without
 * zeros at the end, and with an exponent where that is shorter ("9e-05" among "23.5749").
 */
static inline char *gen_put_value(char *out, uint64_t millionths) {
    if (millionths > 0 && millionths < 1000 &&
        (millionths < 100 || millionths % 100 == 0)) { /* 1.2e-05, 9e-05, 1e-04 */
        unsigned exponent = 6;
        while (millionths % 10 == 0) {
            millionths /= 10;
            exponent--;
        }
        if (millionths >= 10) {
            *out++ = (char)('0' + millionths / 10);
            *out++ = '.';
            millionths %= 10;
            exponent--;
        }
        *out++ = (char)('0' + millionths);
        *out++ = 'e';
        *out++ = '-';
        *out++ = '0';
        *out = (char)('0' + exponent);
        return out + 1;
    }
    out = gen_put_number(out, millionths / 1000000, 1);
    if (millionths % 1000000 == 0)
        return out;
    *out++ = '.';
    out = gen_put_number(out, millionths % 1000000, 6);
    while (out[-1] == '0')
        out--;
    return out;
}

#endif
