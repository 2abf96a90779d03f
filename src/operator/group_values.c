/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_lists.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * Aggregates made from the rows of a group. Rows come in input order, so the first, the last and
 * what is collected need no sorting; quantiles are selected; equal values are found by their
 * hashes, and compared where hashes agree.
 */

size_t list_eval_bytes(const cb_group *g) {
    return cbi_round_up(g->aggs->state_bytes, 16) +
           cbi_round_up(g->aggs->column_count * sizeof(cbi_value), 16) +
           cbi_round_up((g->aggs->count + 1) * sizeof(list_text), 16) + APPROX_REGISTERS + 32;
}

uint8_t *list_eval_init(list_eval *e, cb_group *g, uint8_t *memory) {
    uint8_t *at = memory + (-(uintptr_t)memory & 15);
    *e = (list_eval){.g = g};
    e->state = (uint64_t *)(void *)at;
    at += cbi_round_up(g->aggs->state_bytes, 16);
    e->values = (cbi_value *)(void *)at;
    at += cbi_round_up(g->aggs->column_count * sizeof(cbi_value), 16);
    e->texts = (list_text *)(void *)at;
    at += cbi_round_up((g->aggs->count + 1) * sizeof(list_text), 16);
    e->registers = at;
    return at + APPROX_REGISTERS;
}

/* ---- what a row has ---- */

list_text list_text_of(const cb_group *g, const uint8_t *body, size_t column) {
    const cbi_aggregates *a = g->aggs;
    const uint8_t *p = body;
    for (size_t i = 0; i < a->column_count; i++)
        if (a->columns[i].packed)
            p = cbi_packed_skip(p);
    for (size_t i = 0;; i++) {
        uint32_t bytes;
        if (!a->columns[i].text)
            continue;
        p = cbi_varint_get(p, &bytes);
        if (i == column)
            return (list_text){.at = bytes > 0 ? p : NULL, .bytes = bytes};
        p += bytes;
    }
}

cb_status list_number_of(list_eval *e, const uint8_t *body, size_t column, cbi_i128 *v, bool *null,
                         cb_error *err) {
    const cb_group *g = e->g;
    const uint8_t *p = body;
    cbi_decimal d = {.value = 0};
    for (size_t i = 0; i < column; i++)
        if (g->aggs->columns[i].packed)
            p = cbi_packed_skip(p);
    (void)cbi_packed_get(p, &d, null);
    if (*null || cbi_decimal_shift(d.value, (unsigned)g->scales[column] - d.scale, v))
        return CB_OK;
    return group_overflow(g, e->key, e->key_bytes, column, err);
}

/* ---- selecting and sorting numbers ---- */

static void swap_values(cbi_i128 *a, cbi_i128 *b) {
    cbi_i128 t = *a;
    *a = *b;
    *b = t;
}

static void sift_down(cbi_i128 *v, size_t root, size_t n) {
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && v[child] < v[child + 1])
            child++;
        if (v[root] >= v[child])
            return;
        swap_values(&v[root], &v[child]);
    }
}

static void heap_sort(cbi_i128 *v, size_t n) {
    for (size_t i = n / 2; i-- > 0;)
        sift_down(v, i, n);
    for (size_t i = n; i-- > 1;) {
        swap_values(&v[0], &v[i]);
        sift_down(v, 0, i);
    }
}

/* Puts the value that belongs at `place` there, smaller ones before it, larger ones behind. */
static void select_value(cbi_i128 *v, size_t n, size_t place) {
    unsigned rounds = 0;
    while (n > 16) {
        if (++rounds > 96) { /* somebody has chosen the values */
            heap_sort(v, n);
            return;
        }
        cbi_i128 a = v[0], b = v[n / 2], c = v[n - 1];
        cbi_i128 pivot = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
        size_t i = 0, k = n - 1;
        for (;;) {
            while (v[i] < pivot)
                i++;
            while (v[k] > pivot)
                k--;
            if (i >= k)
                break;
            swap_values(&v[i++], &v[k--]);
        }
        /* [0, i) are at most the pivot, [i, n) at least */
        size_t left = i > 0 ? i : 1;
        if (place < left) {
            n = left;
        } else {
            v += left;
            n -= left;
            place -= left;
        }
    }
    for (size_t i = 1; i < n; i++)
        for (size_t k = i; k > 0 && v[k] < v[k - 1]; k--)
            swap_values(&v[k], &v[k - 1]);
}

static cb_status gather_numbers(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                                size_t count, cbi_i128 **values, size_t *n, cb_error *err) {
    cbi_i128 *v = (cbi_i128 *)(void *)e->scratch;
    *n = 0;
    *values = v;
    for (size_t i = 0; i < count; i++) {
        bool null;
        CB_TRY(list_number_of(e, rows[i], item->a, &v[*n], &null, err));
        *n += !null;
    }
    return CB_OK;
}

uint8_t *list_put_number(const cb_group *g, const cbi_aggregate *item, cbi_i128 v, uint8_t *p) {
    return cbi_column_format(&g->aggs->columns[item->a], v, g->scales[item->a], p);
}

/* ---- quantiles ---- */

void list_quantile_places(const cbi_aggregate *item, uint64_t n, uint64_t *low, uint64_t *high) {
    cbi_u128 rank = (cbi_u128)(n - 1) * item->part;
    *low = (uint64_t)(rank / item->whole);
    *high = *low + (rank % item->whole != 0);
}

uint8_t *list_put_quantile(const cb_group *g, const cbi_aggregate *item, cbi_i128 low,
                           cbi_i128 high, uint64_t n, uint8_t *p) {
    uint64_t rest = (uint64_t)((cbi_u128)(n - 1) * item->part % item->whole);
    if (rest == 0)
        return list_put_number(g, item, low, p);
    if (g->aggs->columns[item->a].real)
        return cbi_real_format(p, cbi_real_between(low, high, rest, item->whole));
    /* (low * (whole - rest) + high * rest) / whole */
    uint64_t a[3] = {(uint64_t)low, (uint64_t)((cbi_u128)low >> 64), low < 0 ? UINT64_MAX : 0};
    uint64_t b[3] = {(uint64_t)high, (uint64_t)((cbi_u128)high >> 64), high < 0 ? UINT64_MAX : 0};
    uint64_t x[2] = {item->whole - rest, 0}, y[2] = {rest, 0}, left[5], right[5];
    cbi_wide_multiply(a, 3, x, 2, left);
    cbi_wide_multiply(b, 3, y, 2, right);
    cbi_wide_add(left, right, 5);
    return cbi_quotient_format(p, left, 5, item->whole, g->scales[item->a]);
}

static cb_status put_quantile(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                              size_t count, uint8_t **p, cb_error *err) {
    cbi_i128 *v;
    size_t n;
    CB_TRY(gather_numbers(e, item, rows, count, &v, &n, err));
    if (n == 0)
        return CB_OK;
    uint64_t low, high;
    list_quantile_places(item, n, &low, &high);
    select_value(v, n, low);
    cbi_i128 next = v[low];
    if (high > low) { /* the smallest of those behind it */
        next = v[high];
        for (size_t i = high; i < n; i++)
            next = v[i] < next ? v[i] : next;
    }
    *p = list_put_quantile(e->g, item, v[low], next, n, *p);
    return CB_OK;
}

/* ---- texts in order ---- */

static int compare_texts(list_text a, list_text b) {
    return cbi_compare_bytes(a.at, a.bytes, b.at, b.bytes, 0);
}

static void sift_text(list_text *v, size_t root, size_t n) {
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && compare_texts(v[child], v[child + 1]) < 0)
            child++;
        if (compare_texts(v[root], v[child]) >= 0)
            return;
        list_text t = v[root];
        v[root] = v[child];
        v[child] = t;
    }
}

static size_t sorted_texts(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                           size_t count, list_text **values) {
    list_text *v = (list_text *)(void *)e->scratch;
    size_t n = 0;
    static_assert(sizeof(list_text) <= LIST_ROW_BYTES, "texts fit the scratch");
    for (size_t i = 0; i < count; i++) {
        v[n] = list_text_of(e->g, rows[i], item->a);
        n += v[n].at != NULL;
    }
    for (size_t i = n / 2; i-- > 0;)
        sift_text(v, i, n);
    for (size_t i = n; i-- > 1;) {
        list_text t = v[0];
        v[0] = v[i];
        v[i] = t;
        sift_text(v, 0, i);
    }
    *values = v;
    return n;
}

/* ---- equal values ---- */

/* The value as bytes that are equal when it is: a text, or 16 bytes of a number. */
static cb_status value_bytes(list_eval *e, const cbi_aggregate *item, const uint8_t *body,
                             cbi_i128 *number, list_text *text, cb_error *err) {
    if (item->type == CBI_VALUE_STR) {
        *text = list_text_of(e->g, body, item->a);
        return CB_OK;
    }
    bool null;
    CB_TRY(list_number_of(e, body, item->a, number, &null, err));
    *text = (list_text){.at = null ? NULL : (const uint8_t *)number, .bytes = sizeof *number};
    return CB_OK;
}

static cb_status same_value(list_eval *e, const cbi_aggregate *item, const uint8_t *a,
                            const uint8_t *b, bool *same, cb_error *err) {
    cbi_i128 x, y;
    list_text s, t;
    CB_TRY(value_bytes(e, item, a, &x, &s, err));
    CB_TRY(value_bytes(e, item, b, &y, &t, err));
    *same = s.bytes == t.bytes && memcmp(s.at, t.at, s.bytes) == 0;
    return CB_OK;
}

typedef struct value_tally {
    uint64_t distinct;
    uint64_t most;     /* rows of the most frequent value */
    uint64_t most_row; /* its first */
} value_tally;

/* Rows whose values have one hash: nearly always one value. Those that differ from the first are
 * moved to the front of the rest and looked at again. */
static cb_status tally_hash(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                            cbi_entry *v, size_t n, value_tally *tally, cb_error *err) {
    while (n > 0) {
        size_t others = 0;
        uint64_t first = v[0].ref, count = 1;
        for (size_t i = 1; i < n; i++) {
            bool same;
            CB_TRY(same_value(e, item, rows[v[0].ref], rows[v[i].ref], &same, err));
            if (same) {
                count++;
                first = v[i].ref < first ? v[i].ref : first;
            } else {
                cbi_entry t = v[1 + others];
                v[1 + others++] = v[i];
                v[i] = t;
            }
        }
        tally->distinct++;
        if (count > tally->most || (count == tally->most && first < tally->most_row)) {
            tally->most = count;
            tally->most_row = first;
        }
        v++;
        n = others;
    }
    return CB_OK;
}

static cb_status tally_values(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                              size_t count, value_tally *tally, cb_error *err) {
    cbi_entry *v = (cbi_entry *)(void *)e->scratch;
    static_assert(sizeof(cbi_entry) <= LIST_ROW_BYTES, "entries fit the scratch");
    size_t n = 0;
    *tally = (value_tally){.distinct = 0};
    for (size_t i = 0; i < count; i++) {
        cbi_i128 number;
        list_text text;
        CB_TRY(value_bytes(e, item, rows[i], &number, &text, err));
        if (text.at == NULL)
            continue;
        v[n++] = (cbi_entry){.prefix = cbi_job_hash(&e->g->job, text.at, text.bytes), .ref = i};
    }
    cbi_order_by_prefix(v, n);
    for (size_t i = 0, k; i < n; i = k) {
        for (k = i + 1; k < n && v[k].prefix == v[i].prefix; k++) {
        }
        CB_TRY(tally_hash(e, item, rows, v + i, k - i, tally, err));
    }
    return CB_OK;
}

/* ---- about how many: HyperLogLog, a fixed seed, since its result shows ---- */

void list_approx_add(uint8_t *registers, const void *bytes, size_t count) {
    uint64_t hash = XXH3_64bits(bytes, count);
    size_t r = hash >> (64 - APPROX_BITS);
    uint8_t rank = (uint8_t)(__builtin_clzll(hash << APPROX_BITS | 1 << (APPROX_BITS - 1)) + 1);
    if (registers[r] < rank)
        registers[r] = rank;
}

/* Of x >= 1; libm would be one more library in every budget. */
static double natural_log(double x) {
    double log = 0;
    while (x >= 2) {
        x /= 2;
        log += 0.69314718055994530942;
    }
    double y = (x - 1) / (x + 1), power = y, sum = 0; /* ln x = 2 atanh y */
    for (int k = 1; k < 40; k += 2) {
        sum += power / k;
        power *= y * y;
    }
    return log + 2 * sum;
}

uint64_t list_approx_result(const uint8_t *registers) {
    double sum = 0, m = APPROX_REGISTERS;
    unsigned zeros = 0;
    for (size_t i = 0; i < APPROX_REGISTERS; i++) {
        sum += 1.0 / (double)(UINT64_C(1) << registers[i]);
        zeros += registers[i] == 0;
    }
    double estimate = 0.7213 / (1 + 1.079 / m) * m * m / sum;
    if (estimate <= 2.5 * m && zeros > 0)
        estimate = m * natural_log(m / zeros);
    return (uint64_t)(estimate + 0.5);
}

static cb_status approx_values(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                               size_t count, cb_error *err) {
    memset(e->registers, 0, APPROX_REGISTERS);
    for (size_t i = 0; i < count; i++) {
        cbi_i128 number;
        list_text text;
        CB_TRY(value_bytes(e, item, rows[i], &number, &text, err));
        if (text.at != NULL)
            list_approx_add(e->registers, text.at, text.bytes);
    }
    return CB_OK;
}

/* ---- first: what texts there are, and how much room the rest needs ---- */

static cb_status find_extreme(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                              size_t count, list_text *found, cb_error *err) {
    bool arg = item->kind == CBI_AGG_ARGMAX || item->kind == CBI_AGG_ARGMIN;
    bool up = item->kind == CBI_AGG_ARGMAX || item->kind == CBI_AGG_MAX;
    cbi_aggregate by = *item;
    by.a = arg ? item->b : item->a;
    cbi_i128 best = 0;
    list_text best_text = {.at = NULL};
    const uint8_t *row = NULL;
    for (size_t i = 0; i < count; i++) {
        cbi_i128 number = 0;
        list_text text;
        CB_TRY(value_bytes(e, &by, rows[i], &number, &text, err));
        if (text.at == NULL)
            continue;
        int c = row == NULL                   ? 1
                : item->type == CBI_VALUE_STR ? compare_texts(text, best_text)
                                              : (number > best) - (number < best);
        if (row == NULL || (up ? c > 0 : c < 0)) {
            row = rows[i];
            best = number;
            best_text = text;
        }
    }
    *found = row != NULL ? list_text_of(e->g, row, item->a) : (list_text){.at = NULL};
    return CB_OK;
}

/* At most, of `most` of the texts. */
static uint64_t joined_bytes(const cb_group *g, const cbi_aggregate *item,
                             const uint8_t *const *rows, size_t count, uint64_t most) {
    uint64_t bytes = 2, longest = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t one = 2 * (uint64_t)list_text_of(g, rows[i], item->a).bytes + 1;
        longest = one > longest ? one : longest;
        bytes += one;
    }
    return most < count && most * longest + 2 < bytes ? most * longest + 2 : bytes;
}

static cb_status look_for_text(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                               size_t count, list_text *found, uint64_t *bound, cb_error *err) {
    const cb_group *g = e->g;
    *found = (list_text){.at = NULL};
    *bound = CBI_DECIMAL_TEXT_MAX;
    bool text = item->type == CBI_VALUE_STR;
    size_t i = 0;
    list_text *sorted;
    switch (item->kind) {
        case CBI_AGG_FIRST:
            for (; i < count && found->at == NULL; i++)
                *found = list_text_of(g, rows[i], item->a);
            break;
        case CBI_AGG_LAST:
            for (i = count; i > 0 && found->at == NULL; i--)
                *found = list_text_of(g, rows[i - 1], item->a);
            break;
        case CBI_AGG_ARGMAX:
        case CBI_AGG_ARGMIN: CB_TRY(find_extreme(e, item, rows, count, found, err)); break;
        case CBI_AGG_MIN:
        case CBI_AGG_MAX:
            if (text)
                CB_TRY(find_extreme(e, item, rows, count, found, err));
            break;
        case CBI_AGG_MODE:
            if (text) {
                value_tally tally;
                CB_TRY(tally_values(e, item, rows, count, &tally, err));
                if (tally.distinct > 0)
                    *found = list_text_of(g, rows[tally.most_row], item->a);
            }
            break;
        case CBI_AGG_QUANTILE:
            if (text) {
                uint64_t n = sorted_texts(e, item, rows, count, &sorted);
                uint64_t place =
                    (uint64_t)(((cbi_u128)n * item->part + item->whole - 1) / item->whole);
                if (n > 0)
                    *found = sorted[place > 0 ? place - 1 : 0];
            }
            break;
        case CBI_AGG_COLLECT: *bound = joined_bytes(g, item, rows, count, count); return CB_OK;
        case CBI_AGG_TOP:
        case CBI_AGG_BOTTOM:
            *bound = text ? joined_bytes(g, item, rows, count, item->n)
                          : (uint64_t)cbi_min(item->n, count) * (CBI_DECIMAL_TEXT_MAX + 1) + 2;
            return CB_OK;
        case CBI_AGG_COUNT:
        case CBI_AGG_SUM:
        case CBI_AGG_MEAN:
        case CBI_AGG_VAR:
        case CBI_AGG_SD:
        case CBI_AGG_VARP:
        case CBI_AGG_SDP:
        case CBI_AGG_CORR:
        case CBI_AGG_DISTINCT:
        case CBI_AGG_APPROX: break;
    }
    if (found->at != NULL)
        *bound = 2 * (uint64_t)found->bytes + 2;
    return CB_OK;
}

/* ---- then: everything is written ---- */

/* Values joined; the whole is quoted if any of them would have been. */
static uint8_t *put_joined(const cb_group *g, const list_text *texts, size_t n, uint8_t *p) {
    bool quotes = g->quoting && g->separator == CBI_JOINT && n > 1;
    for (size_t i = 0; i < n && !quotes; i++)
        quotes = group_field_bytes(g, texts[i].at, texts[i].bytes) != texts[i].bytes;
    if (quotes)
        *p++ = '"';
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            *p++ = CBI_JOINT;
        for (uint32_t k = 0; k < texts[i].bytes; k++) {
            if (quotes && texts[i].at[k] == '"')
                *p++ = '"';
            *p++ = texts[i].at[k];
        }
    }
    if (quotes)
        *p++ = '"';
    return p;
}

static cb_status put_top(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                         size_t count, uint8_t **p, cb_error *err) {
    bool top = item->kind == CBI_AGG_TOP;
    if (item->type == CBI_VALUE_STR) {
        list_text *texts;
        size_t n = sorted_texts(e, item, rows, count, &texts), wanted = cbi_min(item->n, n);
        for (size_t i = 0; top && i < n / 2; i++) {
            list_text t = texts[i];
            texts[i] = texts[n - 1 - i];
            texts[n - 1 - i] = t;
        }
        *p = put_joined(e->g, texts, wanted, *p);
        return CB_OK;
    }
    cbi_i128 *v;
    size_t n;
    CB_TRY(gather_numbers(e, item, rows, count, &v, &n, err));
    size_t wanted = cbi_min(item->n, n);
    if (wanted == 0)
        return CB_OK;
    if (wanted < n) { /* those wanted into one end */
        select_value(v, n, top ? n - wanted : wanted);
        v += top ? n - wanted : 0;
    }
    heap_sort(v, wanted);
    for (size_t i = 0; i < wanted; i++) {
        if (i > 0)
            *(*p)++ = CBI_JOINT;
        *p = list_put_number(e->g, item, v[top ? wanted - 1 - i : i], *p);
    }
    return CB_OK;
}

static cb_status put_number_mode(list_eval *e, const cbi_aggregate *item,
                                 const uint8_t *const *rows, size_t count, uint8_t **p,
                                 cb_error *err) {
    value_tally tally;
    cbi_i128 v;
    bool null;
    CB_TRY(tally_values(e, item, rows, count, &tally, err));
    if (item->kind == CBI_AGG_DISTINCT) {
        *p = cbi_u64_format(*p, tally.distinct);
        return CB_OK;
    }
    if (tally.distinct == 0)
        return CB_OK;
    CB_TRY(list_number_of(e, rows[tally.most_row], item->a, &v, &null, err));
    *p = list_put_number(e->g, item, v, *p);
    return CB_OK;
}

/* What is made of numbers. */
static cb_status put_number(list_eval *e, const cbi_aggregate *item, const uint8_t *const *rows,
                            size_t count, uint8_t **p, cb_error *err) {
    cb_group *g = e->g;
    if (cbi_aggregate_fixed(item))
        return cbi_state_format(g->aggs, item, g->scales, e->state, *p, p) == CBI_RESULT_OK
                   ? CB_OK
                   : group_overflow(g, e->key, e->key_bytes, item->a, err);
    if (item->kind == CBI_AGG_APPROX) {
        CB_TRY(approx_values(e, item, rows, count, err));
        *p = cbi_u64_format(*p, list_approx_result(e->registers));
        return CB_OK;
    }
    bool number = item->type == CBI_VALUE_NUM;
    if (number && (item->kind == CBI_AGG_TOP || item->kind == CBI_AGG_BOTTOM))
        return put_top(e, item, rows, count, p, err);
    if (item->kind == CBI_AGG_QUANTILE && number)
        return put_quantile(e, item, rows, count, p, err);
    if (item->kind == CBI_AGG_DISTINCT || (item->kind == CBI_AGG_MODE && number))
        return put_number_mode(e, item, rows, count, p, err);
    return CB_OK; /* missing */
}

static cb_status put_value(list_eval *e, const cbi_aggregate *item, const list_text *found,
                           const uint8_t *const *rows, size_t count, uint8_t **p, cb_error *err) {
    cb_group *g = e->g;
    uint8_t *from = *p;
    if (found->at != NULL) {
        *p = group_put_field(g, *p, found->at, found->bytes);
        return CB_OK;
    }
    if (item->kind == CBI_AGG_COLLECT) {
        list_text *texts = (list_text *)(void *)e->scratch;
        size_t n = 0;
        for (size_t i = 0; i < count; i++) {
            texts[n] = list_text_of(g, rows[i], item->a);
            n += texts[n].at != NULL;
        }
        *p = put_joined(g, texts, n, *p);
        return CB_OK;
    }
    if (item->type == CBI_VALUE_STR && (item->kind == CBI_AGG_TOP || item->kind == CBI_AGG_BOTTOM))
        return put_top(e, item, rows, count, p, err);
    CB_TRY(put_number(e, item, rows, count, p, err));
    *p = group_guard_number(g, from, *p);
    return CB_OK;
}

static cb_status add_up(list_eval *e, const uint8_t *const *rows, size_t count, cb_error *err) {
    cb_group *g = e->g;
    size_t column = 0;
    memset(e->state, 0, g->aggs->state_bytes);
    for (size_t i = 0; i < count; i++) {
        (void)group_values_get(g, rows[i], e->values);
        if (!cbi_state_add(g->aggs, g->scales, e->state, e->values, &column))
            return group_overflow(g, e->key, e->key_bytes, column, err);
    }
    return CB_OK;
}

cb_status list_put_result(list_eval *e, cbi_job_worker *w, uint64_t first, const uint8_t *key,
                          uint32_t key_bytes, const uint8_t *display, uint32_t display_bytes,
                          const uint8_t *const *rows, size_t count, cb_error *err) {
    cb_group *g = e->g;
    uint64_t row_bound = display_bytes, bound;
    e->key = key;
    e->key_bytes = key_bytes;
    for (size_t i = 0; i < g->aggs->count; i++) {
        CB_TRY(look_for_text(e, &g->aggs->items[i], rows, count, &e->texts[i], &bound, err));
        row_bound += bound + 1;
    }
    group_result r;
    uint8_t *start, *p;
    group_result_place(g, first, key, key_bytes, &r);
    if (row_bound + r.order_bytes + 10 > CBI_STORED_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED,
                        "a row of the result may have %llu bytes; it can have %llu",
                        (unsigned long long)row_bound, (unsigned long long)CBI_STORED_MAX);
    CB_TRY(add_up(e, rows, count, err));
    CB_TRY(
        cbi_batch_begin(&w->batch, r.range, (size_t)row_bound + r.order_bytes + 10, &start, err));
    p = start + CBI_VARINT_MAX; /* how many bytes the row has is known when it is written */
    p = cbi_varint_put(p, r.order_bytes);
    memcpy(p, r.order, r.order_bytes);
    uint8_t *row = p + r.order_bytes;
    memcpy(row, display, display_bytes);
    p = row + display_bytes;
    for (size_t i = 0; i < g->aggs->count; i++) {
        if (i > 0 || g->key_count > 0)
            *p++ = g->separator;
        CB_TRY(put_value(e, &g->aggs->items[i], &e->texts[i], rows, count, &p, err));
    }
    uint32_t bytes = (uint32_t)(p - row);
    group_result_count(g, w, r.range, bytes);
    cbi_record_put_row_bytes(start, bytes);
    return cbi_batch_end(&w->batch, p, err);
}
