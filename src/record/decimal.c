/* SPDX-License-Identifier: Apache-2.0 */
#include "record/decimal.h"

#include <stdio.h>
#include <stdlib.h>

#include "record/key_private.h"

const int64_t cbi_pow10_64[19] = {1,
                                  10,
                                  100,
                                  1000,
                                  10000,
                                  100000,
                                  1000000,
                                  10000000,
                                  100000000,
                                  1000000000,
                                  10000000000,
                                  100000000000,
                                  1000000000000,
                                  10000000000000,
                                  100000000000000,
                                  1000000000000000,
                                  10000000000000000,
                                  100000000000000000,
                                  1000000000000000000};

cbi_i128 cbi_pow10_128(unsigned n) {
    cb_assert(n <= CBI_SCALE_MAX);
    cbi_i128 p = cbi_pow10_64[n < 18 ? n : 18];
    for (; n > 18; n -= n - 18 > 18 ? 18 : n - 18)
        p *= cbi_pow10_64[n - 18 > 18 ? 18 : n - 18];
    return p;
}

bool cbi_decimal_shift(cbi_i128 value, unsigned shift, cbi_i128 *out) {
    if (CBI_LIKELY(shift <= 18 && (int64_t)value == value)) {
        *out = value * cbi_pow10_64[shift];
        return true;
    }
    if (value == 0) {
        *out = 0;
        return true;
    }
    if (shift > CBI_SCALE_MAX)
        return false;
    static const cbi_u128 top = (cbi_u128)1 << 127;
    cbi_u128 magnitude = value < 0 ? -(cbi_u128)value : (cbi_u128)value;
    cbi_u128 power = (cbi_u128)cbi_pow10_128(shift);
    if (magnitude > (top - 1) / power)
        return false;
    magnitude *= power;
    *out = value < 0 ? -(cbi_i128)magnitude : (cbi_i128)magnitude;
    return true;
}

/* ---- parsing ---- */

/* 8 digits as values (load_digits) -> a number. */
static inline uint64_t join_digits(uint64_t v) {
    v = (v * 10 + (v >> 8)) & UINT64_C(0x00ff00ff00ff00ff);
    v = (v * 100 + (v >> 16)) & UINT64_C(0x0000ffff0000ffff);
    return (v * 10000 + (v >> 32)) & UINT64_C(0xffffffff);
}

/* n <= 16 digits that end at `end`. */
static inline uint64_t digits_value(const uint8_t *end, size_t n, const uint8_t *base) {
    size_t low = cbi_min(n, 8);
    uint64_t v = low > 0 ? join_digits(cbi_key_load_digits(end, low, base)) : 0;
    if (n > 8)
        v += join_digits(cbi_key_load_digits(end - 8, n - 8, base)) * 100000000;
    return v;
}

/* Digits of any number: false when they do not fit. Leading zeros do not count; zeros at the end
 * are kept back and only taken when another digit follows. */
typedef struct digit_sum {
    cbi_u128 value;
    unsigned digits; /* that count */
    int64_t zeros;   /* kept back */
} digit_sum;

static bool add_digits(digit_sum *s, const uint8_t *p, const uint8_t *end) {
    for (; p < end; p++) {
        unsigned digit = *p - (unsigned)'0';
        if (digit == 0) {
            s->zeros += s->digits > 0;
            continue;
        }
        if (s->digits + (uint64_t)s->zeros + 1 > CBI_SCALE_MAX)
            return false;
        for (; s->zeros > 0; s->zeros--, s->digits++)
            s->value *= 10;
        s->value = s->value * 10 + digit;
        s->digits++;
    }
    return true;
}

static cbi_number_kind parse_slowly(const uint8_t *base, const uint8_t *begin, size_t bytes,
                                    cbi_decimal *d) {
    cbi_key_text whole = {.begin = begin, .end = begin + bytes, .base = base};
    cbi_key_text text = cbi_key_trim(&whole);
    if (text.begin == text.end)
        return CBI_NUMBER_NULL;
    const uint8_t *at = text.begin;
    cbi_key_decimal k;
    if (!cbi_key_scan_decimal(&at, &text, true, true, &k) || at != text.end)
        return CBI_NUMBER_BAD;
    digit_sum s = {.value = 0};
    if (!add_digits(&s, k.digits, k.point) || !add_digits(&s, k.fraction, k.end))
        return CBI_NUMBER_WIDE;
    int64_t scale = (k.end - k.fraction) - k.exponent - s.zeros;
    if (s.value == 0)
        scale = 0;
    if (scale > CBI_SCALE_MAX || scale < -CBI_SCALE_MAX ||
        (scale < 0 && s.digits + (uint64_t)-scale > CBI_SCALE_MAX))
        return CBI_NUMBER_WIDE;
    if (scale < 0) {
        s.value *= (cbi_u128)cbi_pow10_128((unsigned)-scale);
        scale = 0;
    }
    d->value = k.negative ? -(cbi_i128)s.value : (cbi_i128)s.value;
    d->scale = (uint8_t)scale;
    return CBI_NUMBER;
}

cbi_number_kind cbi_decimal_parse(const uint8_t *base, const uint8_t *begin, size_t bytes,
                                  cbi_decimal *d) {
    cbi_key_decimal k;
    if (CBI_UNLIKELY(!cbi_key_whole_decimal(begin, begin + bytes, base, &k)))
        return parse_slowly(base, begin, bytes, d);
    size_t whole = (size_t)(k.point - k.digits), part = (size_t)(k.end - k.fraction);
    uint64_t v = digits_value(k.point, whole, base);
    if (part > 0)
        v = v * (uint64_t)cbi_pow10_64[part] + digits_value(k.end, part, base);
    d->value = k.negative ? -(int64_t)v : (int64_t)v;
    d->scale = (uint8_t)part;
    return CBI_NUMBER;
}

/* ---- packed ---- */

uint8_t *cbi_packed_put_slow(uint8_t *p, const cbi_decimal *d) {
    cbi_i128 v = d->value;
    unsigned bytes = 0;
    uint8_t *head = p;
    *p++ = 0;
    if (d->scale >= 7)
        *p++ = d->scale;
    while (v != 0 && v != -1) {
        p[bytes++] = (uint8_t)v;
        v >>= 8;
    }
    bool negative = d->value < 0;
    if (d->value != 0 && (bytes == 0 || (p[bytes - 1] >= 0x80) != negative))
        p[bytes++] = negative ? 0xff : 0; /* the sign */
    *head = (uint8_t)(bytes | (unsigned)(d->scale >= 7 ? 7 : d->scale) << 5);
    return p + bytes;
}

const uint8_t *cbi_packed_get_slow(const uint8_t *p, cbi_decimal *d) {
    unsigned head = *p++, bytes = head & 0x1f;
    d->scale = head >> 5 == 7 ? *p++ : (uint8_t)(head >> 5);
    cbi_u128 v = bytes > 0 && p[bytes - 1] >= 0x80 ? ~(cbi_u128)0 : 0;
    for (unsigned i = bytes; i-- > 0;)
        v = v << 8 | p[i];
    d->value = (cbi_i128)v;
    return p + bytes;
}

/* ---- wide ---- */

void cbi_wide_add(uint64_t *w, const uint64_t *v, unsigned n) {
    cbi_u128 s = 0;
    for (unsigned i = 0; i < n; i++) {
        s = (s >> 64) + w[i] + v[i];
        w[i] = (uint64_t)s;
    }
}

void cbi_wide_subtract(uint64_t *w, const uint64_t *v, unsigned n) {
    cbi_u128 s = 1;
    for (unsigned i = 0; i < n; i++) {
        s += (cbi_u128)w[i] + ~v[i];
        w[i] = (uint64_t)s;
        s >>= 64;
    }
}

static void wide_negate(uint64_t *w, unsigned n) {
    uint64_t carry = 1;
    for (unsigned i = 0; i < n; i++) {
        w[i] = ~w[i] + carry;
        carry = carry && w[i] == 0;
    }
}

static uint64_t multiply_word(uint64_t *w, unsigned n, uint64_t by) {
    cbi_u128 s = 0;
    for (unsigned i = 0; i < n; i++) {
        s = (s >> 64) + (cbi_u128)w[i] * by;
        w[i] = (uint64_t)s;
    }
    return (uint64_t)(s >> 64);
}

static uint64_t divide_word(uint64_t *w, unsigned n, uint64_t by) {
    cbi_u128 rest = 0;
    for (unsigned i = n; i-- > 0;) {
        rest = rest << 64 | w[i];
        w[i] = (uint64_t)(rest / by);
        rest %= by;
    }
    return (uint64_t)rest;
}

bool cbi_wide_shift10(uint64_t *w, unsigned n, unsigned shift) {
    bool negative = cbi_wide_negative(w, n), fits = true;
    if (negative)
        wide_negate(w, n);
    while (shift > 0 && fits) {
        unsigned step = shift > 18 ? 18 : shift;
        fits = multiply_word(w, n, (uint64_t)cbi_pow10_64[step]) == 0 && (int64_t)w[n - 1] >= 0;
        shift -= step;
    }
    if (negative)
        wide_negate(w, n);
    return fits;
}

bool cbi_wide_fits_i128(const uint64_t *w, unsigned n, cbi_i128 *v) {
    *v = (cbi_i128)((cbi_u128)w[1] << 64 | w[0]);
    uint64_t sign = *v < 0 ? UINT64_MAX : 0;
    for (unsigned i = 2; i < n; i++)
        if (w[i] != sign)
            return false;
    return true;
}

void cbi_wide_multiply(const uint64_t *a, unsigned a_n, const uint64_t *b, unsigned b_n,
                       uint64_t *product) {
    uint64_t x[CBI_WIDE_MAX], y[CBI_WIDE_MAX];
    cb_assert(a_n + b_n <= CBI_WIDE_MAX);
    memcpy(x, a, a_n * sizeof *x);
    memcpy(y, b, b_n * sizeof *y);
    bool negative = cbi_wide_negative(a, a_n) != cbi_wide_negative(b, b_n);
    if (cbi_wide_negative(a, a_n))
        wide_negate(x, a_n);
    if (cbi_wide_negative(b, b_n))
        wide_negate(y, b_n);
    memset(product, 0, (a_n + b_n) * sizeof *product);
    for (unsigned i = 0; i < a_n; i++) {
        uint64_t carry = 0;
        for (unsigned k = 0; k < b_n; k++) {
            cbi_u128 s = (cbi_u128)x[i] * y[k] + product[i + k] + carry;
            product[i + k] = (uint64_t)s;
            carry = (uint64_t)(s >> 64);
        }
        product[i + b_n] = carry;
    }
    if (negative)
        wide_negate(product, a_n + b_n);
}

long double cbi_wide_to_real(const uint64_t *w, unsigned n) {
    uint64_t m[CBI_WIDE_MAX];
    cb_assert(n <= CBI_WIDE_MAX);
    memcpy(m, w, n * sizeof *m);
    bool negative = cbi_wide_negative(w, n);
    if (negative)
        wide_negate(m, n);
    long double v = 0;
    for (unsigned i = n; i-- > 0;)
        v = v * 18446744073709551616.0L + (long double)m[i];
    return negative ? -v : v;
}

/* ---- text ---- */

static const char two_digits[] =
    "00010203040506070809101112131415161718192021222324252627282930313233"
    "34353637383940414243444546474849505152535455565758596061626364656667"
    "6869707172737475767778798081828384858687888990919293949596979899";

/* The digits of v, at least `least` of them, before `end`; answers where they begin. */
static uint8_t *digits_before(uint8_t *end, uint64_t v, unsigned least) {
    uint8_t *p = end;
    while (v >= 100) {
        p -= 2;
        memcpy(p, two_digits + 2 * (v % 100), 2);
        v /= 100;
    }
    if (v >= 10) {
        p -= 2;
        memcpy(p, two_digits + 2 * v, 2);
    } else if (v > 0) {
        *--p = (uint8_t)('0' + v);
    }
    while (end - p < (ptrdiff_t)least)
        *--p = '0';
    return p;
}

uint8_t *cbi_u64_format(uint8_t *p, uint64_t v) {
    uint8_t text[24];
    uint8_t *from = digits_before(text + sizeof text, v, 1);
    size_t n = (size_t)(text + sizeof text - from);
    cbi_copy_short(p, from, n);
    return p + n;
}

/* Digits with a point before the last `scale` of them; zeros at the end of the fraction go. */
static uint8_t *put_point(uint8_t *p, bool negative, const uint8_t *digits, size_t n,
                          unsigned scale) {
    while (scale > 0 && n > 0 && digits[n - 1] == '0') {
        n--;
        scale--;
    }
    if (negative)
        *p++ = '-';
    if (scale == 0) {
        cbi_copy_short(p, digits, n);
        return p + n;
    }
    if (n > scale) {
        cbi_copy_short(p, digits, n - scale);
        p += n - scale;
        digits += n - scale;
        n = scale;
    } else {
        *p++ = '0';
    }
    *p++ = '.';
    for (size_t zeros = scale - n; zeros > 0; zeros--)
        *p++ = '0';
    cbi_copy_short(p, digits, n);
    return p + n;
}

uint8_t *cbi_decimal_format(uint8_t *p, cbi_i128 value, unsigned scale) {
    uint8_t text[48];
    uint8_t *end = text + sizeof text, *at = end;
    bool negative = value < 0;
    cbi_u128 magnitude = negative ? -(cbi_u128)value : (cbi_u128)value;
    static const uint64_t chunk = UINT64_C(1000000000000000000);
    while (magnitude >= chunk) {
        at = digits_before(at, (uint64_t)(magnitude % chunk), 18);
        magnitude /= chunk;
    }
    at = digits_before(at, (uint64_t)magnitude, at == end ? 1 : 0);
    if (value == 0)
        scale = 0;
    return put_point(p, negative, at, (size_t)(end - at), scale);
}

/* The eight digits of v < 10^8 as bytes of 0 to 9, the first one lowest: halved three times. */
static inline uint64_t eight_digits(uint64_t v) {
    uint64_t high = v / 10000, x = high | (v - high * 10000) << 32;
    uint64_t q = (x * 10486 >> 20) & UINT64_C(0x0000007f0000007f); /* x / 100 */
    x = q | (x - q * 100) << 16;
    q = (x * 103 >> 10) & UINT64_C(0x000f000f000f000f); /* x / 10 */
    return q | (x - q * 10) << 8;
}

static const uint64_t EIGHT = 100000000, ZEROS = UINT64_C(0x3030303030303030);

/* As text without zeros before it. */
static uint8_t *put_whole(uint8_t *p, uint64_t v) {
    if (v >= EIGHT)
        return cbi_u64_format(p, v);
    uint64_t digits = eight_digits(v);
    unsigned zeros = v == 0 ? 7 : (unsigned)__builtin_ctzll(digits) / 8;
    cbi_store_u64(p, (digits | ZEROS) >> (8 * zeros));
    return p + 8 - zeros;
}

/* Up to eight digits and how the text has them: of the fraction there are `places`, zeros at its
 * end not counted, before the point `whole`. */
typedef struct few_digits {
    uint64_t text; /* all eight, the first one lowest */
    unsigned whole, places;
} few_digits;

/* For a scale of 0 to 7. */
static inline few_digits few_digits_of(uint64_t magnitude, unsigned scale) {
    uint64_t digits = eight_digits(magnitude), mark = UINT64_C(1) << (8 * (7 - scale));
    unsigned before = (unsigned)__builtin_ctzll(digits | mark) / 8; /* zeros; one digit stays */
    unsigned behind = (unsigned)__builtin_clzll(digits | 1) / 8;
    return (few_digits){.text = digits | ZEROS,
                        .whole = 8 - scale - before,
                        .places = scale - (behind < scale ? behind : scale)};
}

uint8_t *cbi_decimal_format_short(uint8_t *p, int64_t value, unsigned scale) {
    uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
    *p = '-';
    p += value < 0;
    if (CBI_LIKELY(magnitude < EIGHT && scale < 8)) {
        few_digits d = few_digits_of(magnitude, scale);
        cbi_store_u64(p, d.text >> (8 * (8 - scale - d.whole)));
        p += d.whole;
        *p = '.';
        cbi_store_u64(p + 1, scale == 0 ? 0 : d.text >> (8 * (8 - scale)));
        return p + d.places + (d.places > 0);
    }
    while (scale > 0 && magnitude % 10 == 0) {
        magnitude /= 10;
        scale--;
    }
    if (magnitude == 0)
        scale = 0;
    uint64_t unit = (uint64_t)cbi_pow10_64[scale], whole = magnitude / unit;
    p = put_whole(p, whole);
    if (scale == 0)
        return p;
    uint64_t part = magnitude - whole * unit;
    *p++ = '.';
    for (; scale > 8; scale -= 8, p += 8) {
        unit = (uint64_t)cbi_pow10_64[scale - 8];
        cbi_store_u64(p, eight_digits(part / unit) | ZEROS);
        part %= unit;
    }
    cbi_store_u64(p, eight_digits(part * (uint64_t)cbi_pow10_64[8 - scale]) | ZEROS);
    return p + scale;
}

/* Decimal digits; 1 for 0. */
static inline unsigned digits_of(uint64_t v) {
    unsigned bits = 64 - (unsigned)__builtin_clzll(v | 1), about = bits * 1233 >> 12;
    return about + (about == 0 || (about < 19 && v >= (uint64_t)cbi_pow10_64[about]) ||
                    (about == 19 && v >= UINT64_C(10000000000000000000)));
}

size_t cbi_decimal_short_bytes(int64_t value, unsigned scale) {
    uint64_t magnitude = value < 0 ? -(uint64_t)value : (uint64_t)value;
    if (CBI_LIKELY(magnitude < EIGHT && scale < 8)) {
        few_digits d = few_digits_of(magnitude, scale);
        return (value < 0) + d.whole + d.places + (d.places > 0);
    }
    if (value == 0)
        return 1;
    for (; scale > 0 && magnitude % 10 == 0; scale--)
        magnitude /= 10;
    unsigned digits = digits_of(magnitude), point = scale > 0;
    return (value < 0) + point + (digits > scale ? digits : scale + 1);
}

enum { SIGNIFICANT = 17 };

/* Decimal digits of a magnitude of n words, at most 10 * 20 of them, before `end`. */
static uint8_t *wide_digits(uint8_t *end, uint64_t *w, unsigned n) {
    uint8_t *at = end;
    for (;;) {
        while (n > 0 && w[n - 1] == 0)
            n--;
        if (n == 0)
            return at;
        uint64_t rest = divide_word(w, n, (uint64_t)cbi_pow10_64[18]);
        while (n > 0 && w[n - 1] == 0)
            n--;
        at = digits_before(at, rest, n > 0 ? 18 : 0);
    }
}

/* Up to n digits become SIGNIFICANT of them, half to even; `sticky`: something follows. Answers how
 * many there are now; *scale loses what was cut. */
static size_t round_digits(uint8_t *digits, size_t n, bool sticky, int *scale) {
    if (n <= SIGNIFICANT)
        return n;
    unsigned next = digits[SIGNIFICANT] - (unsigned)'0';
    for (size_t i = SIGNIFICANT + 1; i < n; i++)
        sticky |= digits[i] != '0';
    *scale -= (int)(n - SIGNIFICANT);
    bool up = next > 5 || (next == 5 && (sticky || (digits[SIGNIFICANT - 1] & 1) != 0));
    for (size_t i = SIGNIFICANT; up && i-- > 0;) {
        if (digits[i] != '9') {
            digits[i]++;
            up = false;
        } else {
            digits[i] = '0';
        }
    }
    if (up) { /* all nines */
        memmove(digits + 1, digits, SIGNIFICANT - 1);
        digits[0] = '1';
        (*scale)--;
    }
    return SIGNIFICANT;
}

uint8_t *cbi_quotient_format(uint8_t *p, const uint64_t *w, unsigned n, uint64_t divisor,
                             unsigned scale) {
    uint64_t m[CBI_WIDE_MAX + 2] = {0};
    uint8_t text[240];
    cb_assert(n <= CBI_WIDE_MAX && divisor > 0);
    memcpy(m, w, n * sizeof *m);
    bool negative = cbi_wide_negative(w, n);
    if (negative)
        wide_negate(m, n);
    /* 36 digits more than the quotient has before, so 17 of it are there: the divisor takes 20 off
     * at most. */
    m[n] = m[n + 1] = 0;
    n += 2;
    int places = (int)scale + 36;
    uint64_t lost = multiply_word(m, n, (uint64_t)cbi_pow10_64[18]);
    lost |= multiply_word(m, n, (uint64_t)cbi_pow10_64[18]);
    cb_assert(lost == 0);
    uint64_t rest = divide_word(m, n, divisor);
    uint8_t *end = text + sizeof text, *at = wide_digits(end, m, n);
    size_t digits = (size_t)(end - at);
    if (digits == 0) {
        *p = '0';
        return p + 1;
    }
    digits = round_digits(at, digits, rest != 0, &places);
    while (places < 0) { /* an integer of more than 17 digits */
        at[digits++] = '0';
        places++;
    }
    return put_point(p, negative, at, digits, (unsigned)places);
}

uint8_t *cbi_real_format(uint8_t *p, double v) {
    char text[40];
    int n = 0;
    if (v != v) {
        *p++ = 'n';
        *p++ = 'a';
        *p++ = 'n';
        return p;
    }
    for (int precision = 15; precision <= 17; precision++) {
        n = snprintf(text, sizeof text, "%.*g", precision, v);
        if (precision == 17 || strtod(text, NULL) == v)
            break;
    }
    memcpy(p, text, (size_t)n);
    return p + n;
}
