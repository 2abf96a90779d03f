/* SPDX-License-Identifier: Apache-2.0 */
#include "record/aggregate.h"

static const uint32_t NONE = UINT32_MAX;

/* A pair's state: rows with both numbers, their sums, squares and product. */
enum {
    PAIR_N = 0,
    PAIR_X = 1,
    PAIR_Y = PAIR_X + CBI_WIDE_SUM,
    PAIR_XX = PAIR_Y + CBI_WIDE_SUM,
    PAIR_YY = PAIR_XX + CBI_WIDE_SQUARE,
    PAIR_XY = PAIR_YY + CBI_WIDE_SQUARE,
    PAIR_WORDS = PAIR_XY + CBI_WIDE_SQUARE
};

enum {
    REAL_X = 1,
    REAL_Y = REAL_X + CBI_REAL_SUM,
    REAL_XX = REAL_Y + CBI_REAL_SUM,
    REAL_YY = REAL_XX + CBI_REAL_SQUARE,
    REAL_XY = REAL_YY + CBI_REAL_SQUARE,
    REAL_WORDS = REAL_XY + CBI_REAL_SQUARE
};
static_assert((int)PAIR_WORDS == (int)CBI_PAIR_WORDS && (int)REAL_WORDS == (int)CBI_REAL_PAIR_WORDS,
              "as they are laid out");

/* The largest or smallest few: how many there are, then the numbers, the best first. */
enum { BEST_N = 0, BEST_FIRST = 1 };

bool cbi_agg_column_reckons(const cbi_aggregates *a, size_t column) {
    const cbi_agg_column *c = &a->columns[column];
    bool kept = c->sum != NONE || c->min != NONE || c->max != NONE;
    for (size_t i = 0; i < a->count; i++) {
        const cbi_aggregate *item = &a->items[i];
        if (item->own == NONE)
            continue;
        kept |= item->a == column || (item->kind == CBI_AGG_CORR && item->b == column);
    }
    return kept && !c->real;
}

/* ---- adding ---- */

static inline bool scaled(const cbi_value *v, uint8_t scale, cbi_i128 *out) {
    unsigned shift = (unsigned)scale - v->number.scale;
    cb_assert_debug(scale >= v->number.scale);
    if (CBI_LIKELY(shift == 0)) {
        *out = v->number.value;
        return true;
    }
    return cbi_decimal_shift(v->number.value, shift, out);
}

static void add_product(uint64_t *w, cbi_i128 x, cbi_i128 y) {
    if (CBI_LIKELY((int64_t)x == x && (int64_t)y == y)) {
        cbi_wide_add_i128(w, CBI_WIDE_SQUARE, x * y);
        return;
    }
    uint64_t a[2] = {(uint64_t)x, (uint64_t)((cbi_u128)x >> 64)};
    uint64_t b[2] = {(uint64_t)y, (uint64_t)((cbi_u128)y >> 64)}, product[CBI_WIDE_SQUARE];
    cbi_wide_multiply(a, 2, b, 2, product);
    product[4] = cbi_wide_negative(product, 4) ? UINT64_MAX : 0;
    cbi_wide_add(w, product, CBI_WIDE_SQUARE);
}

static inline uint64_t *at(uint64_t *state, uint32_t offset) {
    return state + offset / 8;
}

static void add_extremes(const cbi_agg_column *c, uint64_t *state, cbi_i128 x) {
    bool first = *at(state, c->n) == 0;
    cbi_i128 kept;
    if (c->min != NONE) {
        memcpy(&kept, at(state, c->min), sizeof kept);
        if (first || x < kept)
            memcpy(at(state, c->min), &x, sizeof x);
    }
    if (c->max != NONE) {
        memcpy(&kept, at(state, c->max), sizeof kept);
        if (first || x > kept)
            memcpy(at(state, c->max), &x, sizeof x);
    }
}

/* Of floats. */
static void add_real_pair(uint64_t *w, cbi_i128 x, cbi_i128 y) {
    cbi_real_add(w + REAL_X, x);
    cbi_real_add(w + REAL_Y, y);
    cbi_real_add_product(w + REAL_XX, x, x);
    cbi_real_add_product(w + REAL_YY, y, y);
    cbi_real_add_product(w + REAL_XY, x, y);
    w[PAIR_N]++;
}

static bool add_pair(const cbi_aggregate *item, bool real, const uint8_t *scales, uint64_t *state,
                     const cbi_value *values, size_t *column) {
    const cbi_value *a = &values[item->a], *b = &values[item->b];
    if (a->null || b->null)
        return true;
    cbi_i128 x, y;
    uint64_t *w = at(state, item->own);
    if (real) {
        add_real_pair(w, a->number.value, b->number.value);
        return true;
    }
    *column = item->a;
    if (!scaled(a, scales[item->a], &x))
        return false;
    *column = item->b;
    if (!scaled(b, scales[item->b], &y))
        return false;
    add_product(w + PAIR_XX, x, x);
    add_product(w + PAIR_YY, y, y);
    add_product(w + PAIR_XY, x, y);
    cbi_wide_add_i128(w + PAIR_X, CBI_WIDE_SUM, x);
    cbi_wide_add_i128(w + PAIR_Y, CBI_WIDE_SUM, y);
    w[PAIR_N]++;
    return true;
}

static cbi_i128 best_at(const uint64_t *w, uint64_t i) {
    cbi_i128 x;
    memcpy(&x, w + BEST_FIRST + 2 * i, sizeof x);
    return x;
}

static void add_best(const cbi_aggregate *item, uint64_t *w, cbi_i128 x) {
    bool top = item->kind == CBI_AGG_TOP;
    uint64_t place = w[BEST_N];
    while (place > 0 && (top ? best_at(w, place - 1) < x : best_at(w, place - 1) > x))
        place--;
    if (place == item->n)
        return;
    uint64_t behind = cbi_min(w[BEST_N], item->n - 1) - place;
    uint64_t *to = w + BEST_FIRST + 2 * place;
    memmove(to + 2, to, behind * sizeof x);
    memcpy(to, &x, sizeof x);
    w[BEST_N] += w[BEST_N] < item->n;
}

/* What aggregates keep for themselves. */
static bool add_own(const cbi_aggregate *item, bool real, const uint8_t *scales, uint64_t *state,
                    const cbi_value *values, size_t *column) {
    if (item->kind == CBI_AGG_CORR)
        return add_pair(item, real, scales, state, values, column);
    cbi_i128 x;
    if (!cbi_aggregate_best(item) || values[item->a].null)
        return true;
    *column = item->a;
    if (!scaled(&values[item->a], scales[item->a], &x))
        return false;
    add_best(item, at(state, item->own), x);
    return true;
}

static bool is_real(const cbi_aggregates *a, const cbi_aggregate *item) {
    return a->columns[item->a].real;
}

static void add_real(const cbi_agg_column *c, uint64_t *state, cbi_i128 x) {
    if (c->sum != NONE)
        cbi_real_add(at(state, c->sum), x);
    if (c->square != NONE)
        cbi_real_add_product(at(state, c->square), x, x);
    ++*at(state, c->n);
}

bool cbi_state_add(const cbi_aggregates *a, const uint8_t *scales, uint64_t *state,
                   const cbi_value *values, size_t *column) {
    state[0]++;
    for (size_t i = 0; i < a->column_count; i++) {
        const cbi_agg_column *c = &a->columns[i];
        if (c->n == NONE || values[i].null)
            continue;
        cbi_i128 x = 0;
        if (c->sum != NONE || c->min != NONE || c->max != NONE) {
            if (!scaled(&values[i], scales[i], &x)) {
                *column = i;
                return false;
            }
        }
        if (c->min != NONE || c->max != NONE)
            add_extremes(c, state, x);
        if (CBI_UNLIKELY(c->real)) {
            add_real(c, state, x);
            continue;
        }
        if (c->sum != NONE)
            cbi_wide_add_i128(at(state, c->sum), CBI_WIDE_SUM, x);
        if (c->square != NONE)
            add_product(at(state, c->square), x, x);
        ++*at(state, c->n);
    }
    for (size_t i = 0; i < a->count; i++)
        if (a->items[i].own != NONE &&
            !add_own(&a->items[i], is_real(a, &a->items[i]), scales, state, values, column))
            return false;
    return true;
}

static void merge_extremes(const cbi_agg_column *c, uint64_t *state, const uint64_t *other) {
    uint64_t *from = (uint64_t *)(uintptr_t)other;
    if (*at(from, c->n) == 0)
        return;
    bool first = *at(state, c->n) == 0;
    cbi_i128 kept, x;
    if (c->min != NONE) {
        memcpy(&kept, at(state, c->min), sizeof kept);
        memcpy(&x, at(from, c->min), sizeof x);
        if (first || x < kept)
            memcpy(at(state, c->min), &x, sizeof x);
    }
    if (c->max != NONE) {
        memcpy(&kept, at(state, c->max), sizeof kept);
        memcpy(&x, at(from, c->max), sizeof x);
        if (first || x > kept)
            memcpy(at(state, c->max), &x, sizeof x);
    }
}

static void merge_real_pair(uint64_t *w, const uint64_t *v) {
    w[PAIR_N] += v[PAIR_N];
    cbi_real_merge(w + REAL_X, v + REAL_X, CBI_REAL_SUM);
    cbi_real_merge(w + REAL_Y, v + REAL_Y, CBI_REAL_SUM);
    cbi_real_merge(w + REAL_XX, v + REAL_XX, CBI_REAL_SQUARE);
    cbi_real_merge(w + REAL_YY, v + REAL_YY, CBI_REAL_SQUARE);
    cbi_real_merge(w + REAL_XY, v + REAL_XY, CBI_REAL_SQUARE);
}

static void merge_own(const cbi_aggregate *item, bool real, uint64_t *w, const uint64_t *v) {
    if (item->kind != CBI_AGG_CORR) {
        for (uint64_t i = 0; i < v[BEST_N]; i++)
            add_best(item, w, best_at(v, i));
        return;
    }
    if (real) {
        merge_real_pair(w, v);
        return;
    }
    w[PAIR_N] += v[PAIR_N];
    cbi_wide_add(w + PAIR_X, v + PAIR_X, CBI_WIDE_SUM);
    cbi_wide_add(w + PAIR_Y, v + PAIR_Y, CBI_WIDE_SUM);
    cbi_wide_add(w + PAIR_XX, v + PAIR_XX, CBI_WIDE_SQUARE);
    cbi_wide_add(w + PAIR_YY, v + PAIR_YY, CBI_WIDE_SQUARE);
    cbi_wide_add(w + PAIR_XY, v + PAIR_XY, CBI_WIDE_SQUARE);
}

static void merge_real(const cbi_agg_column *c, uint64_t *state, uint64_t *from) {
    if (c->sum != NONE)
        cbi_real_merge(at(state, c->sum), at(from, c->sum), CBI_REAL_SUM);
    if (c->square != NONE)
        cbi_real_merge(at(state, c->square), at(from, c->square), CBI_REAL_SQUARE);
    *at(state, c->n) += *at(from, c->n);
}

void cbi_state_merge(const cbi_aggregates *a, uint64_t *state, const uint64_t *other) {
    uint64_t *from = (uint64_t *)(uintptr_t)other;
    state[0] += other[0];
    for (size_t i = 0; i < a->column_count; i++) {
        const cbi_agg_column *c = &a->columns[i];
        if (c->n == NONE)
            continue;
        merge_extremes(c, state, other);
        if (CBI_UNLIKELY(c->real)) {
            merge_real(c, state, from);
            continue;
        }
        if (c->sum != NONE)
            cbi_wide_add(at(state, c->sum), at(from, c->sum), CBI_WIDE_SUM);
        if (c->square != NONE)
            cbi_wide_add(at(state, c->square), at(from, c->square), CBI_WIDE_SQUARE);
        *at(state, c->n) += *at(from, c->n);
    }
    for (size_t i = 0; i < a->count; i++) {
        const cbi_aggregate *item = &a->items[i];
        if (item->own != NONE)
            merge_own(item, is_real(a, item), at(state, item->own), at(from, item->own));
    }
}

static bool raise_extreme(uint64_t *w, unsigned by) {
    cbi_i128 x;
    memcpy(&x, w, sizeof x);
    bool fits = cbi_decimal_shift(x, by, &x);
    memcpy(w, &x, sizeof x);
    return fits;
}

bool cbi_state_raise(const cbi_aggregates *a, uint64_t *state, size_t column, unsigned by) {
    const cbi_agg_column *c = &a->columns[column];
    bool fits = true;
    cb_assert(!c->real); /* ranks have no places */
    if (c->sum != NONE)
        fits &= cbi_wide_shift10(at(state, c->sum), CBI_WIDE_SUM, by);
    if (c->square != NONE)
        fits &= cbi_wide_shift10(at(state, c->square), CBI_WIDE_SQUARE, 2 * by);
    if (c->min != NONE)
        fits &= raise_extreme(at(state, c->min), by);
    if (c->max != NONE)
        fits &= raise_extreme(at(state, c->max), by);
    for (size_t i = 0; i < a->count; i++) {
        const cbi_aggregate *item = &a->items[i];
        if (item->own == NONE)
            continue;
        uint64_t *w = at(state, item->own);
        if (item->kind != CBI_AGG_CORR) {
            for (uint64_t k = 0; item->a == column && k < w[BEST_N]; k++)
                fits &= raise_extreme(w + BEST_FIRST + 2 * k, by);
            continue;
        }
        unsigned x = item->a == column ? by : 0, y = item->b == column ? by : 0;
        fits &= cbi_wide_shift10(w + PAIR_X, CBI_WIDE_SUM, x) &&
                cbi_wide_shift10(w + PAIR_Y, CBI_WIDE_SUM, y) &&
                cbi_wide_shift10(w + PAIR_XX, CBI_WIDE_SQUARE, 2 * x) &&
                cbi_wide_shift10(w + PAIR_YY, CBI_WIDE_SQUARE, 2 * y) &&
                cbi_wide_shift10(w + PAIR_XY, CBI_WIDE_SQUARE, x + y);
    }
    return fits;
}

/* ---- results ---- */

/* libm would be one more library in every budget. Newton's method, from a power of two that is
 * near: the relative error is squared with every step. */
static long double square_root(long double v) {
    long double root = 1, scale = v;
    if (!(v > 0))
        return 0;
    while (scale >= 4) {
        scale /= 4;
        root *= 2;
    }
    while (scale < 1) {
        scale *= 4;
        root /= 2;
    }
    for (unsigned i = 0; i < 8; i++)
        root = (root + v / root) / 2;
    return root;
}

uint8_t *cbi_column_format(const cbi_agg_column *c, cbi_i128 value, unsigned scale, uint8_t *p) {
    return CBI_UNLIKELY(c->real) ? cbi_real_format(p, cbi_real_of_rank(value))
                                 : cbi_decimal_format(p, value, scale);
}

/* n * sum of products - sum of x * sum of y: exact; with n < 2^64 it fits in the first 6 words. */
enum { MOMENT = 2 * CBI_WIDE_SUM, MOMENT_WORDS = CBI_WIDE_SQUARE + 2 };
static_assert((int)MOMENT_WORDS >= (int)MOMENT, "or it is not");

static void moment(uint64_t n, const uint64_t *xy, const uint64_t *x, const uint64_t *y,
                   uint64_t *out) {
    uint64_t count[2] = {n, 0}, product[2 * CBI_WIDE_SUM];
    cbi_wide_multiply(xy, CBI_WIDE_SQUARE, count, 2, out);
    cbi_wide_multiply(x, CBI_WIDE_SUM, y, CBI_WIDE_SUM, product);
    cbi_wide_subtract(out, product, MOMENT);
}

static uint8_t *format_spread(const cbi_aggregate *item, const cbi_agg_column *c, unsigned scale,
                              uint64_t *state, uint8_t *p) {
    uint64_t n = *at(state, c->n), m[MOMENT_WORDS];
    bool sample = item->kind == CBI_AGG_VAR || item->kind == CBI_AGG_SD;
    bool root = item->kind == CBI_AGG_SD || item->kind == CBI_AGG_SDP;
    if (n < (sample ? 2 : 1))
        return p;
    moment(n, at(state, c->square), at(state, c->sum), at(state, c->sum), m);
    long double v = cbi_wide_to_real(m, MOMENT);
    v /= (long double)n;
    v /= (long double)(sample ? n - 1 : n);
    for (unsigned i = 0; i < 2 * scale; i++)
        v /= 10;
    return cbi_real_format(p, (double)(root ? square_root(v) : v));
}

static uint8_t *format_corr(const cbi_aggregate *item, bool real, uint64_t *state, uint8_t *p) {
    uint64_t *w = at(state, item->own), n = w[PAIR_N], m[MOMENT_WORDS];
    double exact;
    if (n < 2)
        return p;
    if (real)
        return cbi_real_correlation(n, w + REAL_XX, w + REAL_YY, w + REAL_XY, w + REAL_X,
                                    w + REAL_Y, &exact)
                   ? cbi_real_format(p, exact)
                   : p;
    moment(n, w + PAIR_XX, w + PAIR_X, w + PAIR_X, m);
    long double xx = cbi_wide_to_real(m, MOMENT);
    moment(n, w + PAIR_YY, w + PAIR_Y, w + PAIR_Y, m);
    long double yy = cbi_wide_to_real(m, MOMENT);
    moment(n, w + PAIR_XY, w + PAIR_X, w + PAIR_Y, m);
    long double xy = cbi_wide_to_real(m, MOMENT);
    if (xx <= 0 || yy <= 0)
        return p; /* a constant has no correlation */
    return cbi_real_format(p, (double)(xy / square_root(xx) / square_root(yy)));
}

/* Sums of floats, and what is made of them. */
static uint8_t *format_real(const cbi_aggregate *item, const cbi_agg_column *c, uint64_t *state,
                            uint8_t *p) {
    uint64_t n = *at(state, c->n);
    bool sample = item->kind == CBI_AGG_VAR || item->kind == CBI_AGG_SD;
    bool root = item->kind == CBI_AGG_SD || item->kind == CBI_AGG_SDP;
    if (item->kind == CBI_AGG_SUM || item->kind == CBI_AGG_MEAN)
        return cbi_real_format(p,
                               cbi_real_mean(at(state, c->sum), item->kind == CBI_AGG_SUM ? 1 : n));
    if (sample && n < 2)
        return p;
    return cbi_real_format(
        p, cbi_real_spread(n, at(state, c->square), at(state, c->sum), sample, root));
}

static uint8_t *format_best(const cbi_agg_column *c, const uint64_t *w, unsigned scale,
                            uint8_t *p) {
    for (uint64_t i = 0; i < w[BEST_N]; i++) {
        if (i > 0)
            *p++ = CBI_JOINT;
        p = cbi_column_format(c, best_at(w, i), scale, p);
    }
    return p;
}

cbi_result cbi_state_format(const cbi_aggregates *a, const cbi_aggregate *item,
                            const uint8_t *scales, const uint64_t *state_, uint8_t *p,
                            uint8_t **end) {
    uint64_t *state = (uint64_t *)(uintptr_t)state_;
    const cbi_agg_column *c = item->a != NONE ? &a->columns[item->a] : NULL;
    cbi_i128 v;
    *end = p;
    if (item->kind == CBI_AGG_CORR) {
        *end = format_corr(item, is_real(a, item), state, p);
        return CBI_RESULT_OK;
    }
    if (item->kind == CBI_AGG_COUNT) {
        *end = cbi_u64_format(p, c != NULL ? *at(state, c->n) : state[0]);
        return CBI_RESULT_OK;
    }
    cb_assert(c != NULL); /* only count() has no column */
    if (cbi_aggregate_best(item)) {
        *end = format_best(c, at(state, item->own), scales[item->a], p);
        return CBI_RESULT_OK;
    }
    if (*at(state, c->n) == 0)
        return CBI_RESULT_OK;
    unsigned scale = scales[item->a];
    if (CBI_UNLIKELY(c->real) && item->kind != CBI_AGG_MIN && item->kind != CBI_AGG_MAX) {
        *end = format_real(item, c, state, p);
        return CBI_RESULT_OK;
    }
    switch (item->kind) {
        case CBI_AGG_SUM:
            if (!cbi_wide_fits_i128(at(state, c->sum), CBI_WIDE_SUM, &v))
                return CBI_RESULT_OVERFLOW;
            *end = cbi_decimal_format(p, v, scale);
            break;
        case CBI_AGG_MEAN:
            *end = cbi_quotient_format(p, at(state, c->sum), CBI_WIDE_SUM, *at(state, c->n), scale);
            break;
        case CBI_AGG_MIN:
        case CBI_AGG_MAX:
            memcpy(&v, at(state, item->kind == CBI_AGG_MIN ? c->min : c->max), sizeof v);
            *end = cbi_column_format(c, v, scale, p);
            break;
        case CBI_AGG_VAR:
        case CBI_AGG_SD:
        case CBI_AGG_VARP:
        case CBI_AGG_SDP: *end = format_spread(item, c, scale, state, p); break;
        case CBI_AGG_COUNT:
        case CBI_AGG_CORR:
        case CBI_AGG_QUANTILE:
        case CBI_AGG_DISTINCT:
        case CBI_AGG_APPROX:
        case CBI_AGG_FIRST:
        case CBI_AGG_LAST:
        case CBI_AGG_MODE:
        case CBI_AGG_COLLECT:
        case CBI_AGG_TOP:
        case CBI_AGG_BOTTOM:
        case CBI_AGG_ARGMAX:
        case CBI_AGG_ARGMIN: cb_assert(cbi_aggregate_fixed(item));
    }
    return CBI_RESULT_OK;
}

/* ---- groups of one row ---- */

/* 63 bits at such a scale and at another one are less than 2^127. */
enum { AS_IS_SCALE_MAX = 18 };

bool cbi_aggregates_as_is(const cbi_aggregates *a, const uint8_t *scales) {
    for (size_t i = 0; i < a->count; i++) {
        cbi_aggregate_kind kind = a->items[i].kind;
        if (kind != CBI_AGG_COUNT && kind != CBI_AGG_SUM && kind != CBI_AGG_MIN &&
            kind != CBI_AGG_MAX)
            return false;
    }
    for (size_t i = 0; i < a->column_count; i++)
        if (!a->columns[i].packed || a->columns[i].real || scales[i] > AS_IS_SCALE_MAX)
            return false;
    return true;
}

bool cbi_values_are_short(const cbi_aggregates *a, const cbi_value *values) {
    for (size_t i = 0; i < a->column_count; i++)
        if (!values[i].null && (int64_t)values[i].number.value != values[i].number.value)
            return false;
    return true;
}

uint8_t *cbi_as_is_format(const cbi_aggregate *item, const cbi_value *values, uint8_t *p) {
    bool null = item->a != NONE && values[item->a].null;
    if (item->kind == CBI_AGG_COUNT) {
        *p = null ? '0' : '1';
        return p + 1;
    }
    return null ? p
                : cbi_decimal_format_short(p, (int64_t)values[item->a].number.value,
                                           values[item->a].number.scale);
}

size_t cbi_as_is_bytes(const cbi_aggregate *item, const cbi_value *values) {
    if (item->kind == CBI_AGG_COUNT)
        return 1;
    const cbi_value *v = &values[item->a];
    return v->null ? 0 : cbi_decimal_short_bytes((int64_t)v->number.value, v->number.scale);
}
