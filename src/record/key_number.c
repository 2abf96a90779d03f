/* SPDX-License-Identifier: Apache-2.0 */
#include "record/key_private.h"

/*
 * Numbers as bytes, exactly.
 *
 * A number is written as 0.d1 d2 d3 ... times 100^E with base-100 digits, d1 not zero, no zeros at
 * the end. Then the order of positive numbers is the order of E and after that the order of the
 * digit strings. The bytes are
 *
 *     0x80                       zero
 *     0x82 + (E + 24)            positive, E from -24 to 63: all that people write
 *     0x81 / 0xda, E + 2^63      positive, a smaller or larger E; 8 bytes, most significant first
 *       then 2d + 1 for each digit but the last, 2d for the last
 *     the complement of all that for a negative number
 *
 * The last digit's even byte ends the number without a mark of its own: "12" is a beginning of
 * "1234" as digits, but 2*12 is less than 2*12 + 1, so the shorter one comes first, as it should.
 * 0x00 and 0xff are left over for nulls.
 *
 * Base 100 makes short keys (12.50 takes three bytes), and because integer digits are paired from
 * the point to the left and fraction digits from the point to the right, nothing has to be
 * multiplied or divided: up to 16 digits on each side are paired inside a register. An exponent
 * shifts the point, after which pairs no longer lie side by side; such numbers and long ones take
 * the way digit by digit. Either way costs no more than reading the digits.
 *
 * Exponents beyond +-10^18 are treated as +-10^18: among such numbers only the digits decide.
 */

enum {
    HEAD_TINY = 0x81,
    HEAD_SMALLEST = 0x82,
    HEAD_HUGE = 0xda,
    HEAD_ZERO = 0x80,
    E_MIN = -24,
    E_MAX = 63
};

__extension__ typedef unsigned __int128 u128;

static const uint64_t ONES = CBI_KEY_ONES;

/* 8 digits -> 4 base-100 digits, in memory order. */
static inline uint32_t pair_digits(uint64_t v) {
    v = (v * 10 + (v >> 8)) & UINT64_C(0x00ff00ff00ff00ff);
    v = (v | v >> 8) & UINT64_C(0x0000ffff0000ffff);
    return (uint32_t)(v | v >> 16);
}

static inline uint64_t load_pairs(const uint8_t *end, size_t n, const uint8_t *base, bool integer) {
    size_t low = cbi_min(n, 8), high = n - low;
    if (integer) /* [high][low], right-aligned */
        return (uint64_t)pair_digits(cbi_key_load_digits(end, low, base)) << 32 |
               (high ? pair_digits(cbi_key_load_digits(end - 8, high, base)) : 0);
    /* A fraction is left-aligned: its first 8 digits, then the rest. */
    if (high == 0)
        return low ? pair_digits(cbi_key_load_digits(end, low, base) >> (64 - 8 * low)) : 0;
    return pair_digits(cbi_key_load_digits(end - high, 8, base)) |
           (uint64_t)pair_digits(cbi_key_load_digits(end, high, base) >> (64 - 8 * high)) << 32;
}

/* At most 8 digits on each side of the point: everything in one register. */
static inline void put_short(cbi_key_writer *w, uint8_t flip, const cbi_key_decimal *d) {
    size_t whole = (size_t)(d->point - d->digits), part = (size_t)(d->end - d->fraction);
    uint64_t fraction = part ? cbi_key_load_digits(d->end, part, d->base) >> (64 - 8 * part) : 0;
    uint64_t c = pair_digits(cbi_key_load_digits(d->point, whole, d->base)) |
                 (uint64_t)pair_digits(fraction) << 32;
    if (CBI_UNLIKELY(c == 0)) {
        cbi_key_put(w, HEAD_ZERO ^ (unsigned)flip);
        return;
    }
    flip ^= d->negative ? 0xff : 0;
    unsigned skip = (unsigned)__builtin_ctzll(c) / 8,
             count = 8 - skip - (unsigned)__builtin_clzll(c) / 8;
    c = (c >> (8 * skip)) * 2 + ONES - (UINT64_C(1) << (8 * (count - 1)));
    uint8_t *out = w->out + w->bytes;
    out[0] = (uint8_t)((unsigned)(HEAD_SMALLEST - E_MIN + 4 - (int)skip) ^ flip);
    cbi_store_u64(out + 1, c ^ ONES * flip);
    w->bytes += 1 + count;
}

/* At most 16 digits on each side. */
static void put_medium(cbi_key_writer *w, uint8_t flip, const cbi_key_decimal *d) {
    uint64_t whole = load_pairs(d->point, (size_t)(d->point - d->digits), d->base, true);
    uint64_t part = load_pairs(d->end, (size_t)(d->end - d->fraction), d->base, false);
    if ((whole | part) == 0) {
        cbi_key_put(w, HEAD_ZERO ^ (unsigned)flip);
        return;
    }
    flip ^= d->negative ? 0xff : 0;
    unsigned before =
        whole ? (unsigned)__builtin_ctzll(whole) / 8 : 8 + (unsigned)__builtin_ctzll(part) / 8;
    unsigned after =
        part ? (unsigned)__builtin_clzll(part) / 8 : 8 + (unsigned)__builtin_clzll(whole) / 8;
    unsigned count = 16 - before - after;
    u128 c = ((u128)part << 64 | whole) >> (8 * before);
    c = c * 2 + ((u128)ONES << 64 | ONES) - ((u128)1 << (8 * (count - 1)));
    uint8_t *out = w->out + w->bytes;
    out[0] = (uint8_t)((unsigned)(HEAD_SMALLEST - E_MIN + 8 - (int)before) ^ flip);
    cbi_store_u64(out + 1, (uint64_t)c ^ ONES * flip);
    cbi_store_u64(out + 9, (uint64_t)(c >> 64) ^ ONES * flip);
    w->bytes += 1 + count;
}

static void put_head(cbi_key_writer *w, uint8_t flip, int64_t e) {
    if (e >= E_MIN && e <= E_MAX) {
        cbi_key_put(w, (unsigned)(HEAD_SMALLEST - E_MIN + (int)e) ^ flip);
        return;
    }
    cbi_key_put(w, (unsigned)(e < 0 ? HEAD_TINY : HEAD_HUGE) ^ flip);
    cbi_key_put_be(w, ((uint64_t)e ^ UINT64_C(1) << 63) ^ (flip ? UINT64_MAX : 0), 8);
}

/* The digits of a number as one sequence, over the point. */
typedef struct digits {
    const uint8_t *at, *point, *fraction;
} digits;

static inline unsigned next_digit(digits *s) {
    if (s->at == s->point)
        s->at = s->fraction;
    return (unsigned)(*s->at++ - '0');
}

/* Any length, any exponent. */
static void put_long(cbi_key_writer *w, uint8_t flip, const cbi_key_decimal *d) {
    const uint8_t *first = d->digits, *point = d->point, *fraction = d->fraction, *end = d->end;
    while (first < point && *first == '0')
        first++;
    size_t zeros = 0; /* just after the point */
    if (first == point) {
        while (fraction < end && *fraction == '0')
            fraction++, zeros++;
    }
    while (end > fraction && end[-1] == '0')
        end--;
    int64_t exponent = (point - first) - (int64_t)zeros + d->exponent; /* 0.ddd times 10^exponent */
    if (fraction == end) {
        while (point > first && point[-1] == '0')
            point--;
    }
    size_t left = (size_t)(point - first) + (size_t)(end - fraction);
    if (left == 0) {
        cbi_key_put(w, HEAD_ZERO ^ (unsigned)flip);
        return;
    }
    flip ^= d->negative ? 0xff : 0;
    put_head(w, flip, (exponent + 1) >> 1);
    digits s = {first, point, fraction};
    unsigned pair = 0;
    if (exponent & 1) {
        pair = next_digit(&s);
        left--;
    } else {
        pair = next_digit(&s) * 10;
        left--;
        if (left) {
            pair += next_digit(&s);
            left--;
        }
    }
    while (left) {
        cbi_key_put(w, (pair * 2 + 1) ^ flip);
        pair = next_digit(&s) * 10;
        left--;
        if (left) {
            pair += next_digit(&s);
            left--;
        }
    }
    cbi_key_put(w, (pair * 2) ^ flip);
}

void cbi_key_put_decimal(cbi_key_writer *w, uint8_t flip, const cbi_key_decimal *d) {
    size_t whole = (size_t)(d->point - d->digits), part = (size_t)(d->end - d->fraction);
    if (CBI_LIKELY(d->exponent == 0 && whole <= 16 && part <= 16 && cbi_key_has_room(w, 17))) {
        if (whole <= 8 && part <= 8)
            put_short(w, flip, d);
        else
            put_medium(w, flip, d);
        return;
    }
    put_long(w, flip, d);
}

/* [+-]digits after an e. Nothing is taken unless there is a digit. */
static const uint8_t *scan_exponent(const uint8_t *at, const uint8_t *end, int64_t *exponent) {
    const uint8_t *p = at + 1;
    bool negative = false;
    if (p < end && (*p == '-' || *p == '+'))
        negative = *p++ == '-';
    if (p == end || !cbi_key_is_digit(*p))
        return at;
    int64_t e = 0;
    for (; p < end && cbi_key_is_digit(*p); p++)
        e = e < CBI_EXPONENT_MAX / 10 ? e * 10 + (*p - '0') : CBI_EXPONENT_MAX;
    *exponent = negative ? -e : e;
    return p;
}

bool cbi_key_scan_decimal(const uint8_t **at, const cbi_key_text *text, bool plus, bool exponent,
                          cbi_key_decimal *d) {
    const uint8_t *p = *at, *end = text->end;
    d->negative = p < end && *p == '-';
    if (p < end && (*p == '-' || (plus && *p == '+')))
        p++;
    d->base = text->base;
    d->exponent = 0;
    d->digits = p;
    while (p < end && cbi_key_is_digit(*p))
        p++;
    d->point = d->fraction = d->end = p;
    if (p < end && *p == '.') {
        const uint8_t *q = p + 1;
        while (q < end && cbi_key_is_digit(*q))
            q++;
        if (q - p > 1 || p > d->digits) {
            d->fraction = p + 1;
            d->end = p = q;
        }
    }
    if (d->point == d->digits && d->end == d->fraction)
        return false;
    if (exponent && p < end && (*p | 0x20) == 'e')
        p = scan_exponent(p, end, &d->exponent);
    *at = p;
    return true;
}

/* No fraction but zeros, and no exponent. */
static bool is_integral(const cbi_key_decimal *d) {
    const uint8_t *p = d->fraction;
    while (p < d->end && *p == '0')
        p++;
    return p == d->end && d->exponent == 0;
}

void cbi_key_put_num(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    cbi_key_decimal d;
    if (CBI_LIKELY(cbi_key_whole_decimal(text->begin, text->end, text->base, &d) &&
                   (!part->integer || d.point == d.end))) {
        cbi_key_put_decimal(w, part->flip, &d);
        return;
    }
    cbi_key_text t = cbi_key_trim(text);
    const uint8_t *at = t.begin;
    if (!cbi_key_scan_decimal(&at, &t, true, true, &d) || at != t.end ||
        (part->integer && !is_integral(&d))) {
        cbi_key_put_null(w, part);
        return;
    }
    cbi_key_put_decimal(w, part->flip, &d);
}

void cbi_key_put_gnu_num(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    const uint8_t *at = text->begin;
    while (at < text->end && cbi_key_is_blank(*at))
        at++;
    cbi_key_decimal d;
    if (!cbi_key_whole_decimal(at, text->end, text->base, &d) &&
        !cbi_key_scan_decimal(&at, text, false, false, &d)) {
        cbi_key_put(w, HEAD_ZERO ^ (unsigned)part->flip);
        return;
    }
    cbi_key_put_decimal(w, part->flip, &d);
}

/* ---- units ---- */

enum { GNU_UNITS = 8 }; /* 9.1 stops at Y */

/* 1 for K ... 10 for Q; 0 for what is no unit. */
static unsigned unit_power(unsigned c) {
    static const char units[] = "KMGTPEZYRQ";
    c = cbi_key_upper(c);
    for (unsigned i = 0; units[i]; i++) {
        if ((unsigned char)units[i] == c)
            return i + 1;
    }
    return 0;
}

/*
 * GNU -h: the unit's size first, then the number before it, so that 1000K comes before 1M whatever
 * a K is. Only K may be written small, and a number that is zero has no unit.
 */
void cbi_key_put_gnu_human(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    const uint8_t *at = text->begin;
    while (at < text->end && cbi_key_is_blank(*at))
        at++;
    const uint8_t *p = at;
    cbi_key_decimal d;
    if (!cbi_key_scan_decimal(&p, text, false, false, &d)) {
        cbi_key_put(w, 0x80 ^ (unsigned)part->flip);
        cbi_key_put(w, HEAD_ZERO ^ (unsigned)part->flip);
        return;
    }
    bool zero = true;
    for (const uint8_t *q = d.digits; zero && q < p; q++)
        zero = *q == '0' || *q == '.';
    unsigned order = 0;
    if (!zero && p < text->end) {
        unsigned c = part->fold ? cbi_key_upper(*p) : *p;
        order = c == 'k' || c - 'a' >= 26 ? unit_power(c) : 0;
        if (order > GNU_UNITS)
            order = 0;
    }
    cbi_key_put(w, (d.negative ? 0x80 - order : 0x80 + order) ^ part->flip);
    cbi_key_put_decimal(w, part->flip, &d);
}

enum { HUMAN_DIGITS_MAX = 256, HUMAN_LIMBS_MAX = HUMAN_DIGITS_MAX / 9 + 6 };

/*
 * d times 1024^power: into decimal digits at `buffer` (HUMAN_LIMBS_MAX * 9 bytes) and d changed to
 * point there. Digits past the first 256 significant ones are dropped; nobody has units and more
 * digits than that.
 */
static void multiply_1024(cbi_key_decimal *d, unsigned power, uint8_t *buffer) {
    uint32_t limbs[HUMAN_LIMBS_MAX] = {0}; /* base 10^9, least significant first */
    size_t used = 1, taken = 0;
    int64_t exponent = d->exponent;
    digits s = {d->digits, d->point, d->fraction};
    size_t all = (size_t)(d->point - d->digits) + (size_t)(d->end - d->fraction);
    exponent -= d->end - d->fraction;
    for (size_t i = 0; i < all; i++) {
        uint64_t carry = next_digit(&s);
        if (taken == HUMAN_DIGITS_MAX) {
            exponent++;
            continue;
        }
        taken += taken > 0 || carry > 0;
        for (size_t k = 0; k < used; k++) {
            carry += (uint64_t)limbs[k] * 10;
            limbs[k] = (uint32_t)(carry % 1000000000);
            carry /= 1000000000;
        }
        if (carry)
            limbs[used++] = (uint32_t)carry;
    }
    for (; power; power--) {
        uint64_t carry = 0;
        for (size_t k = 0; k < used; k++) {
            carry += (uint64_t)limbs[k] * 1024;
            limbs[k] = (uint32_t)(carry % 1000000000);
            carry /= 1000000000;
        }
        if (carry)
            limbs[used++] = (uint32_t)carry;
    }
    cb_assert(used <= HUMAN_LIMBS_MAX);
    uint8_t *p = buffer + used * 9;
    for (size_t k = 0; k < used; k++) {
        for (unsigned i = 0; i < 9; i++, limbs[k] /= 10)
            *--p = (uint8_t)('0' + limbs[k] % 10);
    }
    d->base = d->digits = buffer;
    d->point = d->fraction = d->end = buffer + used * 9;
    d->exponent = exponent;
}

/* Native: a true value. K M G ... are powers of 1000, Ki Mi Gi ... of 1024; B may follow, blanks
 * may stand between. */
void cbi_key_put_human(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    cbi_key_text t = cbi_key_trim(text);
    const uint8_t *at = t.begin;
    cbi_key_decimal d;
    if (!cbi_key_scan_decimal(&at, &t, true, false, &d)) {
        cbi_key_put_null(w, part);
        return;
    }
    while (at < t.end && cbi_key_is_blank(*at))
        at++;
    unsigned power = at < t.end ? unit_power(*at) : 0;
    at += power > 0;
    bool binary = power && at < t.end && *at == 'i';
    at += binary;
    at += at < t.end && (*at | 0x20) == 'b';
    if (at != t.end) {
        cbi_key_put_null(w, part);
        return;
    }
    uint8_t buffer[HUMAN_LIMBS_MAX * 9];
    if (binary)
        multiply_1024(&d, power, buffer);
    else
        d.exponent = 3 * (int64_t)power;
    cbi_key_put_decimal(w, part->flip, &d);
}
