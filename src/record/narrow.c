/* SPDX-License-Identifier: Apache-2.0 */
#include "record/narrow.h"

static const uint32_t NONE = CBI_NARROW_NONE;

/* A pair: rows with both, sums of x and y, of their squares and of their product. */
enum { PAIR_N = 0, PAIR_X = 1, PAIR_Y = 3, PAIR_XX = 5, PAIR_YY = 7, PAIR_XY = 9, PAIR_WORDS = 11 };

static const uint64_t SQUARE_ROOT_MAX = (uint64_t)1 << 47;

/* ---- layout ---- */

static uint32_t take(cbi_narrow *n, bool wanted, uint32_t words) {
    uint32_t at = (uint32_t)n->words;
    if (!wanted)
        return NONE;
    n->words += words;
    return at;
}

static bool is_wide(uint32_t offset) {
    return offset != NONE;
}

static bool is_pair(const cbi_aggregate *item) {
    return item->kind == CBI_AGG_CORR;
}

/* Of aggregates that look at two columns. */
static bool in_pair(const cbi_aggregates *a, size_t column) {
    for (size_t i = 0; i < a->count; i++)
        if (is_pair(&a->items[i]) && (a->items[i].a == column || a->items[i].b == column))
            return true;
    return false;
}

void cbi_narrow_rescale(cbi_narrow *n, size_t column, unsigned scale) {
    bool squares = is_wide(n->columns[column].square) || in_pair(n->aggs, column);
    cbi_numbers_want_init(&n->columns[column].want, scale, squares ? SQUARE_ROOT_MAX : INT64_MAX);
}

bool cbi_narrow_init(cbi_narrow *n, const cbi_aggregates *a, const uint8_t *scales,
                     const bool *nulls) {
    if (a->column_count > CBI_NARROW_COLUMNS_MAX || a->count > CBI_NARROW_COLUMNS_MAX)
        return false;
    *n = (cbi_narrow){.aggs = a};
    for (size_t i = 0; i < a->column_count; i++) {
        const cbi_agg_column *c = &a->columns[i];
        cbi_narrow_column *to = &n->columns[i];
        if (c->row || c->text || c->real || scales[i] > CBI_NUMBERS_SCALE_MAX)
            return false;
        to->nullable = nulls[i] || !c->number;
        to->n = take(n, to->nullable && is_wide(c->n), 1);
        to->sum = take(n, is_wide(c->sum), 2);
        to->square = take(n, is_wide(c->square), 2);
        to->min = take(n, is_wide(c->min), 1);
        to->max = take(n, is_wide(c->max), 1);
        cbi_narrow_rescale(n, i, scales[i]);
    }
    for (size_t i = 0; i < a->count; i++)
        n->own[i] =
            take(n, a->items[i].own != NONE, is_pair(&a->items[i]) ? PAIR_WORDS : a->items[i].n);
    return true;
}

void cbi_narrow_clear(const cbi_narrow *n, uint64_t *state) {
    memset(state, 0, n->words * sizeof *state);
    for (size_t i = 0; i < n->aggs->column_count; i++) {
        const cbi_narrow_column *c = &n->columns[i];
        if (c->min != NONE)
            state[c->min] = (uint64_t)INT64_MAX;
        if (c->max != NONE)
            state[c->max] = (uint64_t)INT64_MIN;
    }
    for (size_t i = 0; i < n->aggs->count; i++)
        for (uint32_t k = 0; cbi_aggregate_best(&n->aggs->items[i]) && k < n->aggs->items[i].n; k++)
            state[n->own[i] + k] = (uint64_t)INT64_MIN; /* none is that small */
}

/* ---- adding ---- */

static inline void add_wide(uint64_t *at, cbi_i128 v) {
    cbi_u128 sum;
    memcpy(&sum, at, sizeof sum);
    sum += (cbi_u128)v;
    memcpy(at, &sum, sizeof sum);
}

static inline void add_square(uint64_t *at, int64_t x, int64_t y) {
    add_wide(at, (cbi_i128)x * y);
}

static void add_extremes(const cbi_narrow_column *c, uint64_t *const *states, size_t count,
                         const int64_t *values, const uint8_t *nulls) {
    for (size_t i = 0; c->min != NONE && i < count; i++) {
        int64_t *kept = (int64_t *)(void *)(states[i] + c->min);
        *kept = values[i] < *kept && !nulls[i] ? values[i] : *kept;
    }
    for (size_t i = 0; c->max != NONE && i < count; i++) {
        int64_t *kept = (int64_t *)(void *)(states[i] + c->max);
        *kept = values[i] > *kept && !nulls[i] ? values[i] : *kept;
    }
}

/* Nulls are zeros, so they add nothing. */
static void add_column(const cbi_narrow_column *c, uint64_t *const *states, size_t count,
                       const int64_t *values, const uint8_t *nulls) {
    for (size_t i = 0; c->n != NONE && i < count; i++)
        states[i][c->n] += !nulls[i];
    for (size_t i = 0; c->sum != NONE && i < count; i++)
        add_wide(states[i] + c->sum, values[i]);
    for (size_t i = 0; c->square != NONE && i < count; i++)
        add_square(states[i] + c->square, values[i], values[i]);
    add_extremes(c, states, count, values, nulls);
}

static void add_pair(uint32_t at, uint64_t *const *states, size_t count, const int64_t *x,
                     const uint8_t *x_nulls, const int64_t *y, const uint8_t *y_nulls) {
    for (size_t i = 0; i < count; i++) {
        uint64_t *w = states[i] + at;
        if (x_nulls[i] | y_nulls[i])
            continue;
        w[PAIR_N]++;
        add_wide(w + PAIR_X, x[i]);
        add_wide(w + PAIR_Y, y[i]);
        add_square(w + PAIR_XX, x[i], x[i]);
        add_square(w + PAIR_YY, y[i], y[i]);
        add_square(w + PAIR_XY, x[i], y[i]);
    }
}

/* The smallest are the largest of the numbers with the other sign. */
static void add_best(uint32_t at, const cbi_aggregate *item, uint64_t *const *states, size_t count,
                     const int64_t *values, const uint8_t *nulls) {
    uint32_t last = item->n - 1;
    for (size_t i = 0; i < count; i++) {
        int64_t *kept = (int64_t *)(void *)(states[i] + at);
        int64_t x = item->kind == CBI_AGG_TOP ? values[i] : -values[i];
        if (x <= kept[last] || nulls[i])
            continue;
        uint32_t place = last;
        for (; place > 0 && kept[place - 1] < x; place--)
            kept[place] = kept[place - 1];
        kept[place] = x;
    }
}

void cbi_narrow_add(const cbi_narrow *n, uint64_t *const *states, size_t count,
                    const int64_t *values, const uint8_t *nulls, size_t stride) {
    const cbi_aggregates *a = n->aggs;
    for (size_t i = 0; i < a->column_count; i++)
        add_column(&n->columns[i], states, count, values + i * stride, nulls + i * stride);
    for (size_t i = 0; i < a->count; i++) {
        const cbi_aggregate *item = &a->items[i];
        if (n->own[i] == NONE)
            continue;
        if (!is_pair(item))
            add_best(n->own[i], item, states, count, values + item->a * stride,
                     nulls + item->a * stride);
        else
            add_pair(n->own[i], states, count, values + item->a * stride, nulls + item->a * stride,
                     values + item->b * stride, nulls + item->b * stride);
    }
}

/* ---- back to states ---- */

static void widen(const uint64_t *from, uint64_t *to, unsigned words) {
    uint64_t sign = (int64_t)from[1] < 0 ? UINT64_MAX : 0;
    to[0] = from[0];
    to[1] = from[1];
    for (unsigned i = 2; i < words; i++)
        to[i] = sign;
}

static void widen_extreme(uint64_t from, uint64_t *to) {
    to[0] = from;
    to[1] = (int64_t)from < 0 ? UINT64_MAX : 0;
}

static void widen_best(const cbi_aggregate *item, const uint64_t *from, uint64_t *to) {
    uint64_t k = 0;
    for (; k < item->n && (int64_t)from[k] != INT64_MIN; k++) {
        int64_t x = (int64_t)from[k];
        widen_extreme((uint64_t)(item->kind == CBI_AGG_TOP ? x : -x), to + 1 + 2 * k);
    }
    to[0] = k;
}

void cbi_narrow_widen(const cbi_narrow *n, const uint64_t *narrow, uint64_t rows, uint64_t *state) {
    const cbi_aggregates *a = n->aggs;
    memset(state, 0, a->state_bytes);
    state[0] = rows;
    for (size_t i = 0; i < a->column_count; i++) {
        const cbi_narrow_column *c = &n->columns[i];
        const cbi_agg_column *w = &a->columns[i];
        if (!is_wide(w->n))
            continue;
        uint64_t seen = c->n != NONE ? narrow[c->n] : rows;
        state[w->n / 8] = seen;
        if (c->sum != NONE)
            widen(narrow + c->sum, state + w->sum / 8, CBI_WIDE_SUM);
        if (c->square != NONE)
            widen(narrow + c->square, state + w->square / 8, CBI_WIDE_SQUARE);
        if (c->min != NONE && seen > 0)
            widen_extreme(narrow[c->min], state + w->min / 8);
        if (c->max != NONE && seen > 0)
            widen_extreme(narrow[c->max], state + w->max / 8);
    }
    for (size_t i = 0; i < a->count; i++) {
        if (n->own[i] == NONE)
            continue;
        const uint64_t *p = narrow + n->own[i];
        uint64_t *w = state + a->items[i].own / 8;
        if (!is_pair(&a->items[i])) {
            widen_best(&a->items[i], p, w);
            continue;
        }
        *w++ = p[PAIR_N];
        for (unsigned k = PAIR_X; k < PAIR_WORDS; k += 2) {
            unsigned words = k < PAIR_XX ? CBI_WIDE_SUM : CBI_WIDE_SQUARE;
            widen(p + k, w, words);
            w += words;
        }
    }
}
