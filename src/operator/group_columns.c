/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_lists.h"
#include "record/narrow.h"

/*
 * Lists of numbers only, as medians and what else has a state are made from: not rows of a group
 * but its columns are put side by side, as integers at one scale.
 *
 *     | evaluation | narrow state | text | columns by group | the same as they came | table |
 *
 * Nothing here asks who came first but the group itself, so pieces need no order. A number that 63
 * bits do not hold (or 47, where squares are wanted) sends the partition to group_lists.c.
 */

enum { COLUMNS_MAX = 4, AT_ONCE = 128 };

static const int64_t MISSING = INT64_MIN;

typedef struct columns_work {
    cb_group *g;
    cbi_job_worker *w;
    list_eval eval;
    cbi_narrow *narrow;
    uint64_t *state; /* a narrow one */
    uint8_t *text;
    int64_t *sorted, *came; /* column by column, `rows` each */
    uint32_t *group_of;
    group_table table;
    size_t rows;
} columns_work;

typedef struct waiting {
    cbi_stored record;
    group_payload payload;
    uint64_t hash;
} waiting;

bool group_columns_possible(const cb_group *g) {
    const cbi_aggregates *a = g->aggs;
    if (g->row_is_key || g->text_count > 0 || a->column_count < 1 || a->column_count > COLUMNS_MAX)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const cbi_aggregate *item = &a->items[i];
        bool quantile = item->kind == CBI_AGG_QUANTILE && item->type == CBI_VALUE_NUM;
        if (!quantile && !cbi_aggregate_fixed(item))
            return false;
    }
    return a->count > 0;
}

static void *carve(uint8_t **at, size_t bytes) {
    uint8_t *piece = *at;
    *at += cbi_round_up(bytes, 16);
    return piece;
}

/* False: the memory is too small. */
static bool lay_out(columns_work *c, cb_group *g, cbi_job_worker *w, size_t rows) {
    const cbi_aggregates *a = g->aggs;
    bool nulls[COLUMNS_MAX] = {true, true, true, true};
    *c = (columns_work){.g = g, .w = w, .rows = rows};
    uint8_t *at = list_eval_init(&c->eval, g, w->work), *end = w->work + w->job->sizes.work;
    at += -(uintptr_t)at & 15;
    size_t each = a->column_count * 2 * sizeof(int64_t) + sizeof(uint32_t);
    size_t fixed = sizeof(cbi_narrow) + a->state_bytes + a->text_bytes + 6 * 16;
    size_t table = group_list_table_bytes(rows);
    if (fixed + rows * each + table > (size_t)(end - at))
        return false;
    c->narrow = carve(&at, sizeof *c->narrow);
    c->state = carve(&at, a->state_bytes); /* a narrow one is smaller */
    c->text = carve(&at, a->text_bytes);
    c->sorted = carve(&at, rows * a->column_count * sizeof(int64_t));
    c->came = carve(&at, rows * a->column_count * sizeof(int64_t));
    c->group_of = carve(&at, rows * sizeof(uint32_t));
    (void)group_table_init(&c->table, at, table, sizeof(uint64_t), rows, 0);
    return cbi_narrow_init(c->narrow, a, g->scales, nulls);
}

/* ---- rows in ---- */

/* The row's numbers, its own place being i; false: one is too large. */
static inline bool put_values(columns_work *c, const uint8_t *body, size_t i) {
    for (size_t k = 0; k < c->g->aggs->column_count; k++) {
        cbi_decimal d;
        bool null;
        int64_t *to = &c->came[k * c->rows + i];
        body = cbi_packed_get(body, &d, &null);
        if (CBI_UNLIKELY(null)) {
            *to = MISSING;
            continue;
        }
        int64_t v = (int64_t)d.value;
        unsigned shift = (unsigned)c->g->scales[k] - d.scale;
        if (CBI_UNLIKELY(v != d.value || v == INT64_MIN ||
                         (uint64_t)(v < 0 ? -v : v) > c->narrow->columns[k].want.limit[shift]))
            return false;
        *to = CBI_LIKELY(shift == 0) ? v : v * cbi_pow10_64[shift];
    }
    return true;
}

static bool put_row(columns_work *c, const waiting *r, size_t i) {
    const cbi_stored *k = &r->record;
    size_t place = 0;
    group_entry *e = group_table_find(&c->table, r->hash, k->key, k->key_bytes, &place);
    if (CBI_UNLIKELY(e == NULL)) {
        e = group_table_add(&c->table, r->hash, k->key, k->key_bytes, 0, place);
        cb_assert(e != NULL);
        e->first = r->payload.position;
    } else if (CBI_UNLIKELY(r->payload.position < e->first)) { /* its key columns are shown */
        e->first = r->payload.position;
        e->key = k->key;
    }
    e->rows++;
    c->group_of[i] = (uint32_t)((size_t)((uint8_t *)e - c->table.entries) / c->table.entry_bytes);
    return put_values(c, r->payload.body, i);
}

static uint32_t next_batch(columns_work *c, cbi_record_reader *reader, waiting *batch) {
    uint32_t n = 0;
    for (; n < GROUP_BATCH && cbi_record_next(reader, &batch[n].record) != NULL; n++) {
        waiting *r = &batch[n];
        group_payload_get(c->g, &r->record, reader->order, &r->payload);
        r->hash = cbi_job_hash(&c->g->job, r->record.key, r->record.key_bytes);
        group_table_prefetch(&c->table, r->hash);
    }
    for (uint32_t i = 0; i < n; i++)
        group_table_prefetch_entry(&c->table, batch[i].hash);
    return n;
}

static bool read_rows(columns_work *c, cbi_segment *list) {
    cbi_record_reader reader;
    waiting batch[GROUP_BATCH];
    size_t row = 0;
    cbi_record_reader_init(&reader, list);
    for (uint32_t n; (n = next_batch(c, &reader, batch)) > 0;)
        for (uint32_t i = 0; i < n; i++)
            if (!put_row(c, &batch[i], row++))
                return false;
    cb_assert(row == c->rows);
    return true;
}

/* Columns of each group side by side; its state says where they end. */
static void gather(columns_work *c) {
    uint64_t sum = 0;
    for (uint32_t k = 0; k < c->table.count; k++) {
        group_entry *e = group_table_at(&c->table, k);
        e->state[0] = sum;
        sum += e->rows;
    }
    size_t columns = c->g->aggs->column_count;
    for (size_t i = 0; i < c->rows; i++) {
        uint64_t to = group_table_at(&c->table, c->group_of[i])->state[0]++;
        for (size_t k = 0; k < columns; k++)
            c->sorted[k * c->rows + to] = c->came[k * c->rows + i];
    }
}

/* ---- results ---- */

static void add_up(columns_work *c, size_t from, size_t rows) {
    size_t columns = c->g->aggs->column_count;
    uint64_t *states[AT_ONCE];
    int64_t values[COLUMNS_MAX * AT_ONCE];
    uint8_t nulls[COLUMNS_MAX * AT_ONCE];
    cbi_narrow_clear(c->narrow, c->state);
    for (size_t i = 0; i < AT_ONCE; i++)
        states[i] = c->state;
    for (size_t done = 0; done < rows; done += AT_ONCE) {
        size_t n = cbi_min(rows - done, AT_ONCE);
        for (size_t k = 0; k < columns; k++) {
            const int64_t *v = c->sorted + k * c->rows + from + done;
            for (size_t i = 0; i < n; i++) {
                nulls[k * AT_ONCE + i] = v[i] == MISSING;
                values[k * AT_ONCE + i] = v[i] == MISSING ? 0 : v[i];
            }
        }
        cbi_narrow_add(c->narrow, states, n, values, nulls, AT_ONCE);
    }
    cbi_narrow_widen(c->narrow, c->state, rows, c->eval.state);
}

static size_t drop_missing(int64_t *v, size_t n) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        v[kept] = v[i];
        kept += v[i] != MISSING;
    }
    return kept;
}

static inline void swap_numbers(int64_t *a, int64_t *b) {
    int64_t t = *a;
    *a = *b;
    *b = t;
}

static void sift_down(int64_t *v, size_t root, size_t n) {
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && v[child] < v[child + 1])
            child++;
        if (v[root] >= v[child])
            return;
        swap_numbers(&v[root], &v[child]);
    }
}

/* For values that somebody has chosen. */
static void heap_sort(int64_t *v, size_t n) {
    for (size_t i = n / 2; i-- > 0;)
        sift_down(v, i, n);
    for (size_t i = n; i-- > 1;) {
        swap_numbers(&v[0], &v[i]);
        sift_down(v, 0, i);
    }
}

/* Puts the value that belongs at `place` there, smaller ones before it, larger ones behind. */
static void select_number(int64_t *v, size_t n, size_t place) {
    for (unsigned rounds = 0; n > 16 && rounds < 96; rounds++) {
        int64_t a = v[0], b = v[n / 2], e = v[n - 1];
        int64_t pivot = a < b ? (b < e ? b : a < e ? e : a) : (a < e ? a : b < e ? e : b);
        size_t i = 0, k = n - 1;
        for (;;) {
            while (v[i] < pivot)
                i++;
            while (v[k] > pivot)
                k--;
            if (i >= k)
                break;
            swap_numbers(&v[i++], &v[k--]);
        }
        size_t left = i > 0 ? i : 1; /* those are at most the pivot, the others at least */
        if (place < left) {
            n = left;
        } else {
            v += left;
            n -= left;
            place -= left;
        }
    }
    if (n > 16)
        heap_sort(v, n);
    for (size_t i = 1; n <= 16 && i < n; i++)
        for (size_t k = i; k > 0 && v[k] < v[k - 1]; k--)
            swap_numbers(&v[k], &v[k - 1]);
}

static uint8_t *put_quantile(columns_work *c, const cbi_aggregate *item, int64_t *v, size_t n,
                             uint8_t *p) {
    if (n == 0)
        return p;
    uint64_t low, high;
    list_quantile_places(item, n, &low, &high);
    select_number(v, n, low);
    int64_t next = v[low];
    if (high > low) { /* the smallest of those behind it */
        next = v[high];
        for (size_t i = high; i < n; i++)
            next = v[i] < next ? v[i] : next;
    }
    return list_put_quantile(c->g, item, v[low], next, n, p);
}

static cb_status put_group(columns_work *c, const group_entry *e, cb_error *err) {
    cb_group *g = c->g;
    const cbi_aggregates *a = g->aggs;
    size_t from = e->state[0] - e->rows, n[COLUMNS_MAX];
    c->eval.state[0] = e->rows; /* all of the state when nothing is added up */
    if (c->narrow->words > 0)
        add_up(c, from, e->rows);
    for (size_t k = 0; k < a->column_count; k++)
        n[k] = drop_missing(c->sorted + k * c->rows + from, e->rows);
    uint8_t *text = c->text;
    for (size_t i = 0; i < a->count; i++) {
        const cbi_aggregate *item = &a->items[i];
        if (i > 0 || g->key_count > 0)
            *text++ = g->separator;
        uint8_t *at = text;
        if (item->kind == CBI_AGG_QUANTILE)
            text = put_quantile(c, item, c->sorted + item->a * c->rows + from, n[item->a], text);
        else if (cbi_state_format(a, item, g->scales, c->eval.state, text, &text) != CBI_RESULT_OK)
            return group_overflow(g, e->key, e->key_bytes, item->a, err);
        text = group_guard_number(g, at, text);
    }
    const uint8_t *display = e->key;
    uint32_t display_bytes = e->key_bytes;
    if (g->display)
        display = cbi_varint_get(e->key + e->key_bytes + 4, &display_bytes);
    uint32_t row_bytes = display_bytes + (uint32_t)(text - c->text);
    group_result r;
    uint8_t *p;
    group_result_place(g, e->first, e->key, e->key_bytes, &r);
    group_result_count(g, c->w, r.range, row_bytes);
    CB_TRY(cbi_batch_begin(&c->w->batch, r.range, cbi_record_bytes(r.order_bytes, row_bytes), &p,
                           err));
    p = cbi_record_put_key(p, r.order, r.order_bytes, row_bytes);
    memcpy(p, display, display_bytes);
    memcpy(p + display_bytes, c->text, (size_t)(text - c->text));
    return cbi_batch_end(&c->w->batch, p + row_bytes, err);
}

cb_status group_columns_work(cb_group *g, cbi_job_worker *w, cbi_segment *list, size_t rows,
                             bool *done, cb_error *err) {
    columns_work c;
    *done = lay_out(&c, g, w, rows) && read_rows(&c, list);
    if (!*done)
        return CB_OK;
    gather(&c);
    for (uint32_t k = 0; k < c.table.count; k++) {
        CB_TRY(put_group(&c, group_table_at(&c.table, k), err));
        if (cbi_job_stopped(w->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    return CB_OK;
}
