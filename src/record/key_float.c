/* SPDX-License-Identifier: Apache-2.0 */
#include "record/decimal.h"
#include "record/key_private.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

/*
 * Binary floating point as bytes: sign and magnitude with the sign bit turned and negative values
 * complemented, most significant byte first, which is IEEE 754's total order.
 *
 * Text becomes a number by the shortest way that rounds correctly. Up to 19 digits are an exact
 * integer m, and for a power of ten up to 27 (exact too in the 64 bits of an x87 number) m * 10^k
 * or m / 10^k is one rounding of the true value. For a double that would be rounded a second time,
 * which is right unless the first rounding ended exactly half way between two doubles. Everything
 * else goes to strtod or strtold, with a text of ours that depends on no locale: the digits as an
 * integer, cut (with a last digit that says "and some more") where further digits cannot change the
 * result.
 */

#if LDBL_MANT_DIG == 64
enum { POWER_MAX = 27, LONG_DOUBLE_BYTES = 10 };
#elif LDBL_MANT_DIG == 113
enum { POWER_MAX = 27, LONG_DOUBLE_BYTES = 16 };
#else
enum { POWER_MAX = 22, LONG_DOUBLE_BYTES = 8 };
#endif

/* Exactly half way between two long doubles (subnormal ones) takes up to 11,600 digits to say. */
enum { DIGITS_MAX = 11700, HEX_DIGITS_MAX = 40 };

static const long double powers[] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,
                                     1e7L,  1e8L,  1e9L,  1e10L, 1e11L, 1e12L, 1e13L,
                                     1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L, 1e20L,
                                     1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L};

/* ---- the short way ---- */

/* Up to 16 digits that end at `end`. */
static inline uint64_t digits_value(const uint8_t *end, size_t n, const uint8_t *base) {
    size_t low = cbi_min(n, 8), high = n - low;
    uint64_t v = cbi_key_load_digits(end, low, base);
    v = (v * 10 + (v >> 8)) & UINT64_C(0x00ff00ff00ff00ff);
    v = (v * 100 + (v >> 16)) & UINT64_C(0x0000ffff0000ffff);
    v = (v * 10000 + (v >> 32)) & UINT32_MAX;
    return high ? digits_value(end - 8, high, base) * 100000000 + v : v;
}

/* The digits as an integer; false when there are more than 19 significant ones. */
static bool read_integer(const cbi_key_decimal *d, uint64_t *value) {
    const uint8_t *p = d->digits;
    size_t whole = (size_t)(d->point - p), part = (size_t)(d->end - d->fraction);
    if (CBI_LIKELY(whole + part <= 19 && whole <= 16 && part <= 16)) {
        *value = digits_value(d->point, whole, d->base) * (uint64_t)cbi_pow10_64[part] +
                 digits_value(d->end, part, d->base);
        return true;
    }
    while (p < d->point && *p == '0')
        p++;
    if ((d->point - p) + (d->end - d->fraction) > 19)
        return false;
    uint64_t m = 0;
    for (; p < d->point; p++)
        m = m * 10 + (unsigned)(*p - '0');
    for (p = d->fraction; p < d->end; p++)
        m = m * 10 + (unsigned)(*p - '0');
    *value = m;
    return true;
}

/* m * 10^power, correctly rounded to long double; false when this way does not do. */
static bool short_long_double(uint64_t m, int64_t power, long double *value) {
    if (power < -POWER_MAX || power > POWER_MAX || (LDBL_MANT_DIG < 64 && m >> 53))
        return false;
    *value = power < 0 ? (long double)m / powers[-power] : (long double)m * powers[power];
    return true;
}

static bool short_double(const cbi_key_decimal *d, double *value) {
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    uint64_t m;
    if (!read_integer(d, &m))
        return false;
    int64_t power = m ? d->exponent - (d->end - d->fraction) : 0;
    if (CBI_LIKELY(m >> 53 == 0 && power >= -22 && power <= 22)) { /* both exact, so one rounding */
        *value = power < 0 ? (double)m / tens[-power] : (double)m * tens[power];
        return true;
    }
#if LDBL_MANT_DIG == 64
    long double v;
    uint64_t mantissa;
    if (!short_long_double(m, power, &v))
        return false;
    memcpy(&mantissa, &v, sizeof mantissa);
    if ((mantissa & 0x7ff) == 0x400) /* half way between two doubles, perhaps only after rounding */
        return false;
    *value = (double)v;
    return true;
#else
    return false;
#endif
}

/* ---- the long way ---- */

typedef enum number_kind {
    NUMBER_NONE,
    NUMBER_DECIMAL,
    NUMBER_HEX,
    NUMBER_INFINITY,
    NUMBER_NAN
} number_kind;

typedef struct number {
    number_kind kind;
    bool negative;
    uint64_t payload; /* NAN: of nan(payload) */
    cbi_key_decimal
        decimal; /* DECIMAL; HEX: digits, point, fraction, end, and the power of 2 as exponent */
} number;

/* Far beyond any type's range is far enough; and the digits (at most 11,701) cannot bring it back.
 */
static void write_power(char *text, char letter, int64_t power) {
    power = power > 1000000 ? 1000000 : power < -1000000 ? -1000000 : power;
    *text++ = letter;
    if (power < 0)
        *text++ = '-';
    uint64_t left = (uint64_t)(power < 0 ? -power : power);
    for (uint64_t unit = 1000000; unit; unit /= 10)
        *text++ = (char)('0' + left / unit % 10);
    *text = 0;
}

/* "digits" "e" power, as strtod likes it in any locale. */
static void write_decimal(char *text, const cbi_key_decimal *d) {
    size_t n = 0;
    bool more = false;
    int64_t power = d->exponent;
    for (int round = 0; round < 2; round++) {
        const uint8_t *end = round ? d->end : d->point;
        for (const uint8_t *p = round ? d->fraction : d->digits; p < end; p++) {
            if (n == DIGITS_MAX) {
                more |= *p != '0';
                power += round == 0;
                continue;
            }
            power -= round;
            if (n || *p != '0')
                text[n++] = (char)*p;
        }
    }
    if (more) {
        text[n++] = '1';
        power--;
    }
    if (n == 0)
        text[n++] = '0';
    write_power(text + n, 'e', power);
}

__attribute__((noinline)) static long double long_way(const cbi_key_decimal *d) {
    char text[DIGITS_MAX + 16];
    write_decimal(text, d);
    return strtold(text, NULL);
}

__attribute__((noinline)) static double long_way_double(const cbi_key_decimal *d) {
    char text[DIGITS_MAX + 16];
    write_decimal(text, d);
    return strtod(text, NULL);
}

static unsigned hex_digit(unsigned c) {
    return cbi_key_is_digit(c)                        ? c - '0'
           : cbi_key_is_alpha(c) && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                      : 16;
}

static long double hex_value(const cbi_key_decimal *d) {
    char text[HEX_DIGITS_MAX + 32] = "0x";
    size_t n = 2;
    bool more = false;
    int64_t power = d->exponent;
    for (int round = 0; round < 2; round++) {
        const uint8_t *end = round ? d->end : d->point;
        for (const uint8_t *p = round ? d->fraction : d->digits; p < end; p++) {
            if (n == HEX_DIGITS_MAX) {
                more |= *p != '0';
                power += round == 0 ? 4 : 0;
                continue;
            }
            power -= round ? 4 : 0;
            if (n > 2 || *p != '0')
                text[n++] = (char)*p;
        }
    }
    if (n == 2)
        return 0;
    if (more) {
        text[n++] = '1';
        power -= 4;
    }
    write_power(text + n, 'p', power);
    return strtold(text, NULL);
}

static long double decimal_value(const cbi_key_decimal *d) {
    long double value;
    uint64_t m;
    if (read_integer(d, &m) &&
        short_long_double(m, m ? d->exponent - (d->end - d->fraction) : 0, &value))
        return value;
    return long_way(d);
}

/* ---- what strtod takes for a number ---- */

static bool starts_with(const uint8_t *at, const uint8_t *end, const char *word, size_t bytes) {
    if ((size_t)(end - at) < bytes)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        if (cbi_key_upper(at[i]) != (unsigned char)word[i])
            return false;
    }
    return true;
}

/* 0x digits [. digits] [p exponent]; `at` is behind 0x. */
static bool scan_hex(const uint8_t **at, const uint8_t *end, cbi_key_decimal *d) {
    const uint8_t *p = *at;
    d->digits = p;
    while (p < end && hex_digit(*p) < 16)
        p++;
    d->point = d->fraction = d->end = p;
    if (p < end && *p == '.') {
        d->fraction = ++p;
        while (p < end && hex_digit(*p) < 16)
            p++;
        d->end = p;
    }
    if (d->point == d->digits && d->end == d->fraction)
        return false;
    d->exponent = 0;
    if (p < end && (*p | 0x20) == 'p') {
        const uint8_t *q = p + 1;
        bool negative = q < end && *q == '-';
        if (q < end && (*q == '-' || *q == '+'))
            q++;
        for (; q < end && cbi_key_is_digit(*q); q++, p = q) {
            if (d->exponent < CBI_EXPONENT_MAX / 100)
                d->exponent = d->exponent * 10 + (*q - '0');
        }
        if (negative)
            d->exponent = -d->exponent;
    }
    *at = p;
    return true;
}

/* What strtold makes of nan(CHARS), as strtoull would read them; 0 when they are no number. `at` is
 * behind nan. */
static uint64_t nan_payload(const uint8_t *at, const uint8_t *end) {
    if (at == end || *at != '(')
        return 0;
    const uint8_t *p = at + 1;
    unsigned base = 10;
    if (end - p > 2 && p[0] == '0' && (p[1] | 0x20) == 'x' && hex_digit(p[2]) < 16) {
        base = 16;
        p += 2;
    } else if (p < end && *p == '0') {
        base = 8;
    }
    uint64_t v = 0;
    for (; p < end && hex_digit(*p) < base; p++) {
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) ||
            __builtin_add_overflow(v, (uint64_t)hex_digit(*p), &v)) {
            v = UINT64_MAX;
            while (p + 1 < end && hex_digit(p[1]) < base)
                p++;
        }
    }
    return p < end && *p == ')' ? v : 0;
}

static const uint8_t *scan_number(const cbi_key_text *text, bool hex, number *n) {
    const uint8_t *at = text->begin, *end = text->end;
    n->kind = NUMBER_DECIMAL;
    if (CBI_LIKELY(cbi_key_whole_decimal(at, end, text->base, &n->decimal))) {
        n->negative = n->decimal.negative;
        return end;
    }
    if (CBI_LIKELY(cbi_key_scan_decimal(&at, text, true, true, &n->decimal))) {
        n->negative = n->decimal.negative;
        const uint8_t *after = n->decimal.point + 1;
        bool zero = n->decimal.point - n->decimal.digits == 1 && *n->decimal.digits == '0';
        if (hex && zero && after < end && (after[-1] | 0x20) == 'x' &&
            scan_hex(&after, end, &n->decimal)) {
            n->kind = NUMBER_HEX;
            at = after;
        }
        return at;
    }
    n->negative = at < end && *at == '-';
    if (at < end && (*at == '-' || *at == '+'))
        at++;
    if (starts_with(at, end, "INF", 3)) {
        n->kind = NUMBER_INFINITY;
        return at + (starts_with(at, end, "INFINITY", 8) ? 8 : 3);
    }
    if (starts_with(at, end, "NAN", 3)) {
        n->kind = NUMBER_NAN;
        n->payload = hex ? nan_payload(at + 3, end) : 0;
        return at + 3;
    }
    n->kind = NUMBER_NONE;
    return text->begin;
}

/* ---- keys ---- */

static inline uint64_t total_order(uint64_t bits, unsigned width) {
    uint64_t sign = UINT64_C(1) << (width - 1);
    return bits & sign ? ~bits : bits | sign;
}

static inline void put_double(cbi_key_writer *w, uint8_t flip, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    cbi_key_put_be(w, total_order(bits, 64) ^ (flip ? UINT64_MAX : 0), 8);
}

bool cbi_key_read_float(const cbi_key_text *text, double *out) {
    number n;
    const uint8_t *at = scan_number(text, false, &n);
    double value = 0;
    if (at != text->end || n.kind == NUMBER_NONE)
        return false;
    if (n.kind == NUMBER_INFINITY)
        value = __builtin_inf();
    else if (n.kind == NUMBER_NAN)
        value = __builtin_nan("");
    else if (!short_double(&n.decimal, &value))
        value = long_way_double(&n.decimal);
    *out = __builtin_copysign(value, n.negative ? -1.0 : 1.0);
    return true;
}

/*
 * Native float: -nan, -inf, ..., -0, 0, ..., inf, nan. The bit patterns made here never begin with
 * 0x00 or 0xff bytes alone (a quiet nan is 7ff8..., which becomes fff8...), so nulls are 8 bytes of
 * 0x00 or 0xff.
 */
void cbi_key_put_float(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    cbi_key_text t = cbi_key_trim(text);
    double value = 0;
    if (!cbi_key_read_float(&t, &value)) {
        cbi_key_put_be(w, part->nulls == CBI_NULLS_FIRST ? 0 : UINT64_MAX, 8);
        return;
    }
    put_double(w, part->flip, value);
}

/*
 * GNU -g: what strtold makes of the start of the key. No number comes first, then nans, then -inf
 * ... inf, with -0 and 0 equal. -inf begins with 00 00 7f (x87) or 00 00 ff or 00 0f; below that
 * there is room for the other two.
 */
static void put_long_double(cbi_key_writer *w, uint8_t flip, long double value) {
    uint8_t bytes[sizeof value];
    if (value == 0)
        value = 0; /* not -0 */
    memcpy(bytes, &value, sizeof value);
    uint8_t negative = bytes[LONG_DOUBLE_BYTES - 1] >> 7 ? 0xff : 0;
    uint64_t mask = (negative ^ flip) ? UINT64_MAX : 0;
#if LDBL_MANT_DIG == 64
    uint64_t mantissa = cbi_load_u64(bytes);
    unsigned high = (unsigned)bytes[8] | (unsigned)bytes[9] << 8;
    cbi_key_put_be(
        w,
        ((negative ? high : high | 0x8000) ^ (negative ? 0xffff : 0) ^ (flip ? 0xffffu : 0)) &
            0xffff,
        2);
    cbi_key_put_be(w, mantissa ^ mask, 8);
#else
    if (!negative)
        bytes[LONG_DOUBLE_BYTES - 1] |= 0x80;
    for (int i = LONG_DOUBLE_BYTES - 1; i >= 0; i--)
        cbi_key_put(w, bytes[i] ^ (unsigned)(mask & 0xff));
#endif
}

/* coreutils 9.1 compares two nans as they lie in memory: payload, lowest byte first, then the sign.
 */
static void put_nan(cbi_key_writer *w, uint8_t flip, const number *n) {
    uint64_t mask = flip ? UINT64_MAX : 0;
    uint64_t mantissa = n->payload | UINT64_C(3) << 62;
    cbi_key_put_be(w, 1 ^ (mask & 0xffffff), 3);
    cbi_key_put_be(w, __builtin_bswap64(mantissa) ^ mask, 8);
    cbi_key_put(w, (n->negative ? 0xffu : 0x7f) ^ flip);
}

void cbi_key_put_gnu_general(cbi_key_writer *w, const cbi_key_part *part,
                             const cbi_key_text *text) {
    cbi_key_text t = *text;
    while (t.begin < t.end &&
           (cbi_key_is_blank(*t.begin) || (*t.begin >= '\v' && *t.begin <= '\r')))
        t.begin++;
    number n;
    scan_number(&t, true, &n);
    if (n.kind == NUMBER_NONE) {
        cbi_key_put_be(w, part->flip ? 0xffffff : 0, 3);
        return;
    }
    if (n.kind == NUMBER_NAN) {
        put_nan(w, part->flip, &n);
        return;
    }
    long double value = __builtin_infl();
    if (n.kind == NUMBER_HEX)
        value = hex_value(&n.decimal);
    else if (n.kind == NUMBER_DECIMAL)
        value = decimal_value(&n.decimal);
    put_long_double(w, part->flip, n.negative ? -value : value);
}

/* Integers and floats as they lie in fixed records: no nulls, every bit pattern has its place. */
void cbi_key_put_binary(cbi_key_writer *w, const cbi_key_part *part, const uint8_t *bytes) {
    unsigned n = (unsigned)part->bytes;
    cb_assert(n >= 1 && n <= 8);
    uint64_t v = 0;
    for (unsigned i = 0; i < n; i++)
        v |= (uint64_t)bytes[part->big_endian ? n - 1 - i : i] << (8 * i);
    if (part->binary == CBI_BINARY_SIGNED)
        v ^= UINT64_C(1) << (8 * n - 1);
    else if (part->binary == CBI_BINARY_IEEE)
        v = total_order(v, 8 * n);
    cbi_key_put_be(w, part->flip ? ~v : v, n);
}
