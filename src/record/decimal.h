/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_DECIMAL_H
#define CBI_DECIMAL_H

#include <string.h>

#include "record/record.h"

/*
 * Decimal numbers with which one can reckon: value / 10^scale, both exact. What does not fit
 * (more than 38 digits, a scale above 38) is refused, never rounded. Sums are kept in more bits
 * than that, so that the order of additions cannot matter.
 */

__extension__ typedef __int128 cbi_i128;
__extension__ typedef unsigned __int128 cbi_u128;

enum { CBI_SCALE_MAX = 38, CBI_DECIMAL_TEXT_MAX = 112 };

typedef struct cbi_decimal {
    cbi_i128 value; /* |value| < 10^38 */
    uint8_t scale;
} cbi_decimal;

typedef enum cbi_number_kind {
    CBI_NUMBER,
    CBI_NUMBER_NULL, /* nothing but blanks */
    CBI_NUMBER_BAD,  /* no number */
    CBI_NUMBER_WIDE  /* a number that 38 digits do not hold */
} cbi_number_kind;

/** Reads a whole text: [+-]digits[.digits][e[+-]digits], blanks around it do not count. Bytes from
 * `base` on may be read. */
cbi_number_kind cbi_decimal_parse(const uint8_t *base, const uint8_t *begin, size_t bytes,
                                  cbi_decimal *d);

/** 10^n for n up to 18, as 64 bits; for n up to 38. */
extern const int64_t cbi_pow10_64[19];
cbi_i128 cbi_pow10_128(unsigned n);

/** value * 10^shift; false when |it| would be 2^127 or more. */
bool cbi_decimal_shift(cbi_i128 value, unsigned shift, cbi_i128 *out);

/* ---- packed: how numbers lie in records ---- */

enum { CBI_PACKED_MAX = 18, CBI_PACKED_NULL = 0x1f };

/** At most CBI_PACKED_MAX bytes; answers the end. */
uint8_t *cbi_packed_put_slow(uint8_t *p, const cbi_decimal *d);
const uint8_t *cbi_packed_get_slow(const uint8_t *p, cbi_decimal *d);

static inline uint8_t *cbi_packed_put_null(uint8_t *p) {
    *p = CBI_PACKED_NULL;
    return p + 1;
}

/* 5 bits of length, 3 bits of scale (7: a byte of it follows), then the value, least significant
 * byte first. 8 bytes are written at once: there must be room for them. */
static inline uint8_t *cbi_packed_put(uint8_t *p, const cbi_decimal *d) {
    int64_t v = (int64_t)d->value;
    if (CBI_UNLIKELY(v != d->value || d->scale >= 7))
        return cbi_packed_put_slow(p, d);
    uint64_t magnitude = (uint64_t)(v ^ v >> 63);
    unsigned bytes =
        magnitude == 0 && v == 0 ? 0 : (71 - (unsigned)__builtin_clzll(magnitude << 1 | 1)) / 8;
    *p = (uint8_t)(bytes | (unsigned)d->scale << 5);
    cbi_store_u64(p + 1, (uint64_t)v);
    return p + 1 + bytes;
}

/** Reads up to 7 bytes before `p`, which must be there. false: null. */
static inline const uint8_t *cbi_packed_get(const uint8_t *p, cbi_decimal *d, bool *null) {
    unsigned head = *p++, bytes = head & 0x1f;
    *null = head == CBI_PACKED_NULL;
    if (*null)
        return p;
    if (CBI_UNLIKELY(bytes > 8 || head >> 5 == 7))
        return cbi_packed_get_slow(p - 1, d);
    d->scale = (uint8_t)(head >> 5);
    d->value = bytes == 0 ? 0 : (int64_t)cbi_load_u64(p + bytes - 8) >> (64 - 8 * bytes);
    return p + bytes;
}

static inline const uint8_t *cbi_packed_skip(const uint8_t *p) {
    unsigned head = *p++;
    return head == CBI_PACKED_NULL ? p : p + (head & 0x1f) + (head >> 5 == 7);
}

/* ---- wide: sums ---- */

/** A signed number of `n` words of 64 bits, two's complement, least significant first. 2^64 numbers
 * of 128 bits, or their squares, can be added up in so many. */
enum { CBI_WIDE_SUM = 3, CBI_WIDE_SQUARE = 5, CBI_WIDE_MAX = 10 };

static inline void cbi_wide_add_i128(uint64_t *w, unsigned n, cbi_i128 v) {
    uint64_t sign = v < 0 ? UINT64_MAX : 0;
    cbi_u128 s = (cbi_u128)w[0] + (uint64_t)v;
    w[0] = (uint64_t)s;
    s = (s >> 64) + w[1] + (uint64_t)((cbi_u128)v >> 64);
    w[1] = (uint64_t)s;
    for (unsigned i = 2; i < n; i++) {
        s = (s >> 64) + w[i] + sign;
        w[i] = (uint64_t)s;
    }
}
void cbi_wide_add(uint64_t *w, const uint64_t *v, unsigned n);
void cbi_wide_subtract(uint64_t *w, const uint64_t *v, unsigned n);
/** False on overflow, w is void then. */
bool cbi_wide_shift10(uint64_t *w, unsigned n, unsigned shift);
bool cbi_wide_fits_i128(const uint64_t *w, unsigned n, cbi_i128 *v);
/** product (a_n + b_n words) = a * b, signed. */
void cbi_wide_multiply(const uint64_t *a, unsigned a_n, const uint64_t *b, unsigned b_n,
                       uint64_t *product);
static inline bool cbi_wide_negative(const uint64_t *w, unsigned n) {
    return (int64_t)w[n - 1] < 0;
}
/** Nearest, to 64 bits of mantissa. */
long double cbi_wide_to_real(const uint64_t *w, unsigned n);

/* ---- text; answers the end, at most CBI_DECIMAL_TEXT_MAX bytes ---- */

/** Exact, without zeros at the end of the fraction. */
uint8_t *cbi_decimal_format(uint8_t *p, cbi_i128 value, unsigned scale);
/** The same for a scale of at most 18: at most 22 bytes; 30 from the first may be written. */
uint8_t *cbi_decimal_format_short(uint8_t *p, int64_t value, unsigned scale);
/** How many bytes that text has. */
size_t cbi_decimal_short_bytes(int64_t value, unsigned scale);
uint8_t *cbi_u64_format(uint8_t *p, uint64_t v);
/** value / (divisor * 10^scale), rounded to 17 significant digits, half to even. */
uint8_t *cbi_quotient_format(uint8_t *p, const uint64_t *w, unsigned n, uint64_t divisor,
                             unsigned scale);
/** The shortest text that reads as the same double. */
uint8_t *cbi_real_format(uint8_t *p, double v);

#endif
