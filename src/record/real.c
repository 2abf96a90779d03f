/* SPDX-License-Identifier: Apache-2.0 */
#include "record/real.h"

#include "record/key_private.h"

/*
 * Bit 0 of a sum's integer is 2^-1074, the least double; of a sum of products its square, 2^-2148.
 * What comes of sums (n * squares - sum * sum, a quotient) is an integer as well, with zeros put
 * behind it where digits are missing; what a division leaves over only says "and some more". So
 * each result is the exact one, rounded once. A correlation alone is made of the first 64 bits of
 * three such integers.
 */

enum { LEAST = -1074, SUM = CBI_REAL_SUM - 1, SQUARE = CBI_REAL_SQUARE - 1 };
/* Of a moment: n times a sum of squares. Behind it room for what is divided, and for a root. */
enum { MOMENT = SQUARE + 1, BEHIND = 4 };

enum { SEEN_INF = 1, SEEN_MINUS_INF = 2, SEEN_NAN = 4 };

static const uint64_t MAGNITUDE = UINT64_MAX >> 1, INFINITE = UINT64_C(0x7ff) << 52;

/* ---- numbers ---- */

static double double_of(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static double not_a_number(void) {
    return double_of(INFINITE | UINT64_C(1) << 51);
}

static double infinity_of(bool negative) {
    return double_of(INFINITE | (uint64_t)negative << 63);
}

cbi_number_kind cbi_real_parse(const uint8_t *base, const uint8_t *begin, size_t bytes,
                               cbi_decimal *d) {
    cbi_key_text whole = {.begin = begin, .end = begin + bytes, .base = base};
    cbi_key_text text = cbi_key_trim(&whole);
    if (text.begin == text.end)
        return CBI_NUMBER_NULL;
    double v;
    uint64_t bits;
    if (!cbi_key_read_float(&text, &v))
        return CBI_NUMBER_BAD;
    memcpy(&bits, &v, sizeof bits);
    uint64_t magnitude = bits & MAGNITUDE;
    if (magnitude > INFINITE)
        bits = magnitude = INFINITE | UINT64_C(1) << 51;
    d->value = bits >> 63 != 0 ? -(int64_t)magnitude : (int64_t)magnitude;
    d->scale = 0;
    return CBI_NUMBER;
}

static inline uint64_t magnitude_of(cbi_i128 rank) {
    return rank < 0 ? (uint64_t)-rank : (uint64_t)rank;
}

double cbi_real_of_rank(cbi_i128 rank) {
    return double_of(magnitude_of(rank) | (uint64_t)(rank < 0) << 63);
}

/* A finite magnitude is mantissa * 2^(LEAST + answer). */
static inline unsigned take_apart(uint64_t magnitude, uint64_t *mantissa) {
    unsigned exponent = (unsigned)(magnitude >> 52);
    *mantissa = magnitude & (UINT64_MAX >> 12);
    if (exponent == 0)
        return 0;
    *mantissa |= UINT64_C(1) << 52;
    return exponent - 1;
}

/* ---- sums ---- */

/* w (n words) +-= v << at; they are wide enough for that. */
static inline void add_bits(uint64_t *w, unsigned n, cbi_u128 v, unsigned at, bool negative) {
    unsigned shift = at % 64, i = at / 64;
    uint64_t low = (uint64_t)v, high = (uint64_t)(v >> 64), carry = 0;
    uint64_t part[3] = {low << shift, high << shift, 0};
    if (shift > 0) {
        part[1] |= low >> (64 - shift);
        part[2] = high >> (64 - shift);
    }
    for (unsigned k = 0; k < 3; k++, i++) {
        cbi_u128 s = negative ? (cbi_u128)w[i] - part[k] - carry : (cbi_u128)w[i] + part[k] + carry;
        w[i] = (uint64_t)s;
        carry = (uint64_t)(s >> 64) & 1;
    }
    for (; carry != 0 && i < n; i++) {
        carry = w[i] == (negative ? 0 : UINT64_MAX);
        w[i] += negative ? UINT64_MAX : 1;
    }
}

static uint64_t seen(uint64_t magnitude, bool negative) {
    if (CBI_LIKELY(magnitude < INFINITE))
        return 0;
    return magnitude > INFINITE ? SEEN_NAN : negative ? SEEN_MINUS_INF : SEEN_INF;
}

/* += v * by, `by` being small. */
static void add_times(uint64_t *sum, cbi_i128 rank, uint64_t by) {
    uint64_t magnitude = magnitude_of(rank), mantissa, special = seen(magnitude, rank < 0);
    if (special != 0) {
        sum[0] |= special;
        return;
    }
    unsigned at = take_apart(magnitude, &mantissa);
    add_bits(sum + 1, SUM, (cbi_u128)mantissa * by, at, rank < 0);
}

void cbi_real_add(uint64_t *sum, cbi_i128 rank) {
    add_times(sum, rank, 1);
}

void cbi_real_add_product(uint64_t *sum, cbi_i128 x, cbi_i128 y) {
    uint64_t a = magnitude_of(x), b = magnitude_of(y), m, n;
    if (CBI_UNLIKELY((seen(a, false) | seen(b, false)) != 0)) {
        sum[0] |= SEEN_NAN; /* nothing is made of it but a spread */
        return;
    }
    unsigned at = take_apart(a, &m);
    at += take_apart(b, &n);
    add_bits(sum + 1, SQUARE, (cbi_u128)m * n, at, (x < 0) != (y < 0));
}

void cbi_real_merge(uint64_t *sum, const uint64_t *other, unsigned words) {
    sum[0] |= other[0];
    cbi_wide_add(sum + 1, other + 1, words - 1);
}

/* ---- integers of many words ---- */

static bool make_positive(uint64_t *w, unsigned n) {
    if (!cbi_wide_negative(w, n))
        return false;
    uint64_t carry = 1;
    for (unsigned i = 0; i < n; i++) {
        w[i] = ~w[i] + carry;
        carry = carry != 0 && w[i] == 0;
    }
    return true;
}

/* w /= by; is anything left over? */
static bool divide(uint64_t *w, unsigned n, uint64_t by) {
    cbi_u128 rest = 0;
    while (n > 0 && w[n - 1] == 0)
        n--;
    for (unsigned i = n; by > 1 && i-- > 0;) {
        rest = rest << 64 | w[i];
        w[i] = (uint64_t)(rest / by);
        rest %= by;
    }
    return rest != 0;
}

/* w +-= |v| * by << 64 * at */
static void add_multiple(uint64_t *w, unsigned n, const uint64_t *v, unsigned count, uint64_t by,
                         unsigned at, bool negative) {
    for (unsigned i = 0; i < count; i++) {
        if (v[i] == 0)
            continue;
        cbi_u128 product = (cbi_u128)v[i] * by;
        uint64_t part[2] = {(uint64_t)product, (uint64_t)(product >> 64)}, carry = 0;
        unsigned k = i + at;
        for (unsigned j = 0; k < n && (j < 2 || carry != 0); j++, k++) {
            uint64_t p = j < 2 ? part[j] : 0;
            cbi_u128 s = negative ? (cbi_u128)w[k] - p - carry : (cbi_u128)w[k] + p + carry;
            w[k] = (uint64_t)s;
            carry = (uint64_t)(s >> 64) & 1;
        }
    }
}

/* Bits, the highest one counts as the last of them; 0: there is none. */
static unsigned bits_of(const uint64_t *w, unsigned n) {
    while (n > 0 && w[n - 1] == 0)
        n--;
    return n == 0 ? 0 : 64 * n - (unsigned)__builtin_clzll(w[n - 1]);
}

/* `count` bits from `at` on, at most 128. */
static cbi_u128 bits_at(const uint64_t *w, unsigned n, unsigned at, unsigned count) {
    cbi_u128 v = 0;
    for (unsigned i = at / 64 + 3;
         i-- > at / 64;) { /* the third word's are shifted in from above */
        uint64_t word = i < n ? w[i] : 0;
        unsigned low = at % 64;
        if (i == at / 64)
            v |= word >> low;
        else if (i == at / 64 + 1)
            v |= (cbi_u128)word << (64 - low);
        else if (low > 0)
            v |= (cbi_u128)word << (128 - low);
    }
    return count >= 128 ? v : v & (((cbi_u128)1 << count) - 1);
}

static bool any_below(const uint64_t *w, unsigned n, unsigned at) {
    for (unsigned i = 0; i < at / 64 && i < n; i++)
        if (w[i] != 0)
            return true;
    return at % 64 != 0 && at / 64 < n && w[at / 64] << (64 - at % 64) != 0;
}

/* w * 2^exponent, and `more` of what is less than its last bit, to the nearest double. */
static double rounded(const uint64_t *w, unsigned n, int exponent, bool more, bool negative) {
    int bits = (int)bits_of(w, n), last = exponent + bits - 53;
    if (bits == 0)
        return 0; /* the little more there may be is less than half of the least double */
    last = last < LEAST ? LEAST : last;
    int cut = last - exponent;
    uint64_t mantissa;
    if (cut <= 0) {
        mantissa = (uint64_t)bits_at(w, n, 0, 64) << -cut;
    } else {
        mantissa = cut <= bits ? (uint64_t)bits_at(w, n, (unsigned)cut, 64) : 0;
        bool half = cut <= bits && bits_at(w, n, (unsigned)cut - 1, 1) != 0;
        more |= any_below(w, n, (unsigned)(cut <= bits ? cut - 1 : bits));
        mantissa += half && (more || (mantissa & 1) != 0);
    }
    /* 2^52 of the mantissa count as one more in the exponent */
    if (last - LEAST >= 0x7ff)
        return infinity_of(negative);
    uint64_t magnitude = ((uint64_t)(last - LEAST) << 52) + mantissa;
    if (magnitude == 0)
        return 0; /* never -0 */
    return magnitude >= INFINITE ? infinity_of(negative)
                                 : double_of(magnitude | (uint64_t)negative << 63);
}

/* The floor of v's root. */
static uint64_t root_of(cbi_u128 v) {
    uint64_t root = 0;
    for (unsigned i = 64; i-- > 0;) {
        uint64_t next = root | UINT64_C(1) << i;
        if ((cbi_u128)next * next <= v)
            root = next;
    }
    return root;
}

/* ---- results ---- */

static bool special(uint64_t flags, double *result) {
    if (CBI_LIKELY(flags == 0))
        return false;
    *result = flags == SEEN_INF || flags == SEEN_MINUS_INF ? infinity_of(flags == SEEN_MINUS_INF)
                                                           : not_a_number();
    return true;
}

double cbi_real_mean(const uint64_t *sum, uint64_t n) {
    enum { WORDS = SUM + 2 };
    uint64_t w[WORDS] = {0};
    double result;
    if (special(sum[0], &result))
        return result;
    memcpy(w + 2, sum + 1, SUM * sizeof *w);
    bool negative = make_positive(w, WORDS), more = divide(w, WORDS, n);
    return rounded(w, WORDS, LEAST - 128, more, negative);
}

double cbi_real_between(cbi_i128 low, cbi_i128 high, uint64_t part, uint64_t whole) {
    uint64_t sum[CBI_REAL_SUM] = {0};
    add_times(sum, low, whole - part);
    add_times(sum, high, part);
    return cbi_real_mean(sum, whole);
}

/* n * xy - x * y into MOMENT words; x and y are positive, their product has the sign `negative`. */
static void put_moment(uint64_t *w, uint64_t n, const uint64_t *xy, const uint64_t *x,
                       const uint64_t *y, bool negative) {
    uint64_t magnitude[SQUARE];
    memcpy(magnitude, xy, sizeof magnitude);
    bool minus = make_positive(magnitude, SQUARE);
    memset(w, 0, MOMENT * sizeof *w);
    add_multiple(w, MOMENT, magnitude, SQUARE, n, 0, minus);
    for (unsigned i = 0; i < SUM; i++)
        if (y[i] != 0)
            add_multiple(w, MOMENT, x, SUM, y[i], i, !negative);
}

static bool magnitude_of_sum(const uint64_t *sum, uint64_t *w) {
    memcpy(w, sum + 1, SUM * sizeof *w);
    return make_positive(w, SUM);
}

double cbi_real_spread(uint64_t n, const uint64_t *square, const uint64_t *sum, bool sample,
                       bool root) {
    enum { WORDS = MOMENT + BEHIND };
    uint64_t w[WORDS] = {0}, x[SUM];
    if ((square[0] | sum[0]) != 0)
        return not_a_number();
    (void)magnitude_of_sum(sum, x);
    put_moment(w + BEHIND, n, square + 1, x, x, false);
    bool more = divide(w, WORDS, n);
    more |= divide(w, WORDS, sample ? n - 1 : n);
    int exponent = 2 * LEAST - 64 * BEHIND;
    if (!root)
        return rounded(w, WORDS, exponent, more, false);
    unsigned bits = bits_of(w, WORDS), cut = bits > 126 ? bits - 126 : 0;
    cut += cut & 1; /* the exponent stays even */
    cbi_u128 v = bits_at(w, WORDS, cut, 128);
    uint64_t r = root_of(v);
    more |= any_below(w, WORDS, cut) || (cbi_u128)r * r != v;
    return rounded(&r, 1, (exponent + (int)cut) / 2, more, false);
}

/* The first 64 bits of a positive number, *exponent of the last of them. */
static uint64_t leading(const uint64_t *w, int *exponent) {
    unsigned bits = bits_of(w, MOMENT), cut = bits > 64 ? bits - 64 : 0;
    uint64_t v = (uint64_t)bits_at(w, MOMENT, cut, 64);
    unsigned up = v != 0 ? (unsigned)__builtin_clzll(v) : 0;
    *exponent = (int)cut - (int)up;
    return v << up;
}

bool cbi_real_correlation(uint64_t n, const uint64_t *xx, const uint64_t *yy, const uint64_t *xy,
                          const uint64_t *x, const uint64_t *y, double *result) {
    uint64_t a[SUM], b[SUM], w[MOMENT];
    *result = not_a_number();
    if ((xx[0] | yy[0] | xy[0] | x[0] | y[0]) != 0)
        return true;
    bool negative = magnitude_of_sum(x, a) != magnitude_of_sum(y, b);
    int of_x, of_y, of_both;
    put_moment(w, n, xx + 1, a, a, false);
    uint64_t p = leading(w, &of_x);
    put_moment(w, n, yy + 1, b, b, false);
    uint64_t q = leading(w, &of_y);
    put_moment(w, n, xy + 1, a, b, negative);
    negative = make_positive(w, MOMENT);
    uint64_t r = leading(w, &of_both);
    if (p == 0 || q == 0)
        return false;
    cbi_u128 product = (cbi_u128)p * q;
    int exponent = of_x + of_y;
    if (exponent % 2 != 0) {
        product >>= 1;
        exponent++;
    }
    cbi_u128 ratio = ((cbi_u128)r << 64) / root_of(product);
    uint64_t both[2] = {(uint64_t)ratio, (uint64_t)(ratio >> 64)};
    *result = rounded(both, 2, of_both - 64 - exponent / 2, false, negative);
    if (*result > 1 || *result < -1)
        *result = negative ? -1 : 1;
    return true;
}
