/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_lists.h"

/*
 * A partition of rows that does not fit. Its records are sorted by key and place, so that groups
 * come one after another. A group that fits the worker's memory is copied there and done as usual.
 *
 * A giant group, larger than that, goes to a second external sort while it streams by: for each
 * aggregate that needs an order, each value becomes a record whose key is {number of the aggregate,
 * value} in a form that memcmp orders. When the group ends they come back in order, and each
 * aggregate reads its quantiles, its distinct values, its most frequent one off the stream. What
 * needs no order (sums, the first, the last, the row with the largest ...) is kept as it streams.
 */

typedef struct giant_item { /* of one aggregate, in a giant group */
    uint8_t *kept;          /* a text that is kept, bytes of it */
    uint32_t kept_bytes;
    bool has;
    cbi_i128 best;
    uint8_t *best_text; /* argmax by text */
    uint32_t best_bytes;
    uint64_t n;         /* values in the sort */
    uint64_t place;     /* of the value that streams by */
    uint64_t low, high; /* places that are wanted */
    cbi_i128 low_value, high_value;
    uint64_t distinct, run, most, run_first, most_first;
} giant_item;

typedef struct giant_work {
    cb_group *g;
    cbi_job_worker *w;
    list_eval eval;
    cbi_runs outer;

    /* the group that streams by */
    bool any;
    uint8_t *key; /* key and display, as in a record: key, then the row's start up to its body */
    size_t key_room;
    uint32_t key_bytes, display_bytes;
    uint64_t first, rows;

    /* while it fits: bodies from the front, where they are from the back */
    uint8_t *memory;
    size_t memory_bytes, used;

    /* when it does not */
    bool giant;
    cbi_runs inner;
    giant_item *items;
    size_t text_room; /* of a kept text */
    uint8_t *scratch; /* a key and a text for the sort */
    size_t scratch_room;
    uint8_t *last_key; /* of the stream: to tell values apart */
    uint32_t last_bytes, last_item;
    /* the result row that is put together */
    uint8_t *text, *at, *end;
} giant_work;

/* ---- values as keys ---- */

/* 16 bytes whose order is the number's. */
static void put_ordered(uint8_t *p, cbi_i128 v) {
    cbi_u128 u = (cbi_u128)v ^ (cbi_u128)1 << 127;
    cbi_store_u64(p, __builtin_bswap64((uint64_t)(u >> 64)));
    cbi_store_u64(p + 8, __builtin_bswap64((uint64_t)u));
}

static cbi_i128 get_ordered(const uint8_t *p) {
    cbi_u128 u = (cbi_u128)cbi_load_be64(p) << 64 | cbi_load_be64(p + 8);
    return (cbi_i128)(u ^ (cbi_u128)1 << 127);
}

static bool needs_sort(const cbi_aggregate *item) {
    return item->kind == CBI_AGG_QUANTILE || item->kind == CBI_AGG_DISTINCT ||
           item->kind == CBI_AGG_MODE || item->kind == CBI_AGG_TOP ||
           item->kind == CBI_AGG_BOTTOM || item->kind == CBI_AGG_COLLECT;
}

static cb_status no_room(const giant_work *b, const char *what, uint64_t bytes, uint64_t had,
                         cb_error *err) {
    (void)b;
    return cbi_fail_bytes(err, CB_EBUDGET, bytes, had,
                          "%s of %llu bytes in a group that is larger than memory", what,
                          (unsigned long long)bytes);
}

/* ---- one row of a giant group ---- */

static cb_status value_to_sort(giant_work *b, size_t i, const uint8_t *body, uint64_t position,
                               cb_error *err) {
    const cbi_aggregate *item = &b->g->aggs->items[i];
    bool number = item->type == CBI_VALUE_NUM, null = true;
    list_text text = {.at = NULL};
    cbi_i128 v = 0;
    if (number) {
        CB_TRY(list_number_of(&b->eval, body, item->a, &v, &null, err));
    } else {
        text = list_text_of(b->g, body, item->a);
        null = text.at == NULL;
    }
    if (null)
        return CB_OK;
    bool collect = item->kind == CBI_AGG_COLLECT;
    size_t bytes = 4 + (number ? 16 : text.bytes);
    if (bytes > b->scratch_room)
        return no_room(b, "a value", bytes, b->scratch_room, err);
    cbi_store_u32(b->scratch, __builtin_bswap32((uint32_t)i));
    if (number)
        put_ordered(b->scratch + 4, v);
    else
        memcpy(b->scratch + 4, text.at, text.bytes);
    cbi_stored record = {.key = b->scratch,
                         .key_bytes = (uint32_t)(collect ? 4 : bytes),
                         .row = b->scratch + 4,
                         .row_bytes = collect ? text.bytes : 0,
                         .order = position};
    b->items[i].n++;
    return cbi_runs_add(&b->inner, &record, err);
}

static cb_status keep_text(giant_work *b, uint8_t *to, uint32_t *to_bytes, list_text text,
                           cb_error *err) {
    if (text.bytes > b->text_room)
        return no_room(b, "a text", text.bytes, b->text_room, err);
    memcpy(to, text.at, text.bytes);
    *to_bytes = text.bytes;
    return CB_OK;
}

static cb_status keep_extreme(giant_work *b, size_t i, const uint8_t *body, cb_error *err) {
    const cbi_aggregate *item = &b->g->aggs->items[i];
    giant_item *kept = &b->items[i];
    bool arg = item->kind == CBI_AGG_ARGMAX || item->kind == CBI_AGG_ARGMIN;
    bool up = item->kind == CBI_AGG_ARGMAX || item->kind == CBI_AGG_MAX, null = false;
    size_t by = arg ? item->b : item->a;
    int c = 1;
    cbi_i128 v = 0;
    list_text text = {.at = NULL};
    if (item->type == CBI_VALUE_NUM) {
        CB_TRY(list_number_of(&b->eval, body, by, &v, &null, err));
        c = (v > kept->best) - (v < kept->best);
    } else {
        text = list_text_of(b->g, body, by);
        null = text.at == NULL;
        if (!null)
            c = cbi_compare_bytes(text.at, text.bytes, kept->best_text, kept->best_bytes, 0);
    }
    if (null || (kept->has && !(up ? c > 0 : c < 0)))
        return CB_OK;
    kept->has = true;
    kept->best = v;
    if (text.at != NULL)
        CB_TRY(keep_text(b, kept->best_text, &kept->best_bytes, text, err));
    kept->kept_bytes = 0;
    text = list_text_of(b->g, body, item->a);
    return text.at != NULL ? keep_text(b, kept->kept, &kept->kept_bytes, text, err) : CB_OK;
}

static cb_status giant_value(giant_work *b, size_t i, const uint8_t *body, uint64_t position,
                             cb_error *err) {
    const cbi_aggregate *item = &b->g->aggs->items[i];
    giant_item *kept = &b->items[i];
    if (cbi_aggregate_fixed(item))
        return CB_OK;
    if (needs_sort(item))
        return value_to_sort(b, i, body, position, err);
    if (item->kind == CBI_AGG_APPROX) {
        bool null = false;
        cbi_i128 v;
        list_text text = {.at = (const uint8_t *)&v, .bytes = sizeof v};
        if (item->type == CBI_VALUE_NUM)
            CB_TRY(list_number_of(&b->eval, body, item->a, &v, &null, err));
        else
            text = list_text_of(b->g, body, item->a);
        if (!null && text.at != NULL)
            list_approx_add(kept->kept, text.at, text.bytes);
        return CB_OK;
    }
    if (item->kind == CBI_AGG_FIRST || item->kind == CBI_AGG_LAST) {
        list_text text = list_text_of(b->g, body, item->a);
        if (text.at == NULL || (kept->has && item->kind == CBI_AGG_FIRST))
            return CB_OK;
        kept->has = true;
        return keep_text(b, kept->kept, &kept->kept_bytes, text, err);
    }
    return keep_extreme(b, i, body, err);
}

static cb_status giant_row(giant_work *b, const uint8_t *body, uint64_t position, cb_error *err) {
    cb_group *g = b->g;
    size_t column = 0;
    (void)group_values_get(g, body, b->eval.values);
    if (!cbi_state_add(g->aggs, g->scales, b->eval.state, b->eval.values, &column))
        return group_overflow(g, b->key, b->key_bytes, column, err);
    for (size_t i = 0; i < g->aggs->count; i++)
        CB_TRY(giant_value(b, i, body, position, err));
    return CB_OK;
}

/* ---- the end of a giant group: values stream by in order ---- */

static cb_status put_bytes(giant_work *b, const uint8_t *p, size_t bytes, cb_error *err) {
    if (bytes > (size_t)(b->end - b->at))
        return no_room(b, "a row of the result", (uint64_t)(b->at - b->text) + bytes,
                       (uint64_t)(b->end - b->text), err);
    memcpy(b->at, p, bytes);
    b->at += bytes;
    return CB_OK;
}

static cb_status put_text(giant_work *b, const uint8_t *p, size_t bytes, cb_error *err) {
    size_t all = group_field_bytes(b->g, p, bytes);
    if (all > (size_t)(b->end - b->at))
        return no_room(b, "a row of the result", (uint64_t)(b->at - b->text) + all,
                       (uint64_t)(b->end - b->text), err);
    b->at = group_put_field(b->g, b->at, p, bytes);
    return CB_OK;
}

/* What an aggregate wants to see of its n sorted values. */
static void want_places(giant_work *b, size_t i) {
    const cbi_aggregate *item = &b->g->aggs->items[i];
    giant_item *kept = &b->items[i];
    kept->place = kept->distinct = kept->run = kept->most = 0;
    if (kept->n == 0)
        return;
    if (item->kind == CBI_AGG_QUANTILE && item->type == CBI_VALUE_NUM) {
        list_quantile_places(item, kept->n, &kept->low, &kept->high);
    } else if (item->kind == CBI_AGG_QUANTILE) {
        uint64_t rank =
            (uint64_t)(((cbi_u128)kept->n * item->part + item->whole - 1) / item->whole);
        kept->low = kept->high = rank > 0 ? rank - 1 : 0;
    } else if (item->kind == CBI_AGG_TOP) {
        kept->low = kept->n > item->n ? kept->n - item->n : 0;
        kept->high = UINT64_MAX;
    } else if (item->kind == CBI_AGG_BOTTOM) {
        kept->low = 0;
        kept->high = item->n - 1;
    } else {
        kept->low = 0;
        kept->high = UINT64_MAX;
    }
}

/* Fields of the result up to that of item i, which are made without the stream. */
static cb_status put_fields(giant_work *b, size_t from, size_t to, cb_error *err);

/* A run of equal values has ended. */
static void end_run(giant_work *b, size_t i) {
    giant_item *kept = &b->items[i];
    if (kept->run == 0)
        return;
    kept->distinct++;
    if (kept->run > kept->most || (kept->run == kept->most && kept->run_first < kept->most_first)) {
        kept->most = kept->run;
        kept->most_first = kept->run_first;
        kept->kept_bytes = b->last_bytes <= b->text_room ? b->last_bytes : 0;
        memcpy(kept->kept, b->last_key, kept->kept_bytes);
    }
    kept->run = 0;
}

/* top3 is kept in ascending order and turned round at the end, at most that many values. */
static cb_status append_value(giant_work *b, const cbi_aggregate *item, giant_item *kept,
                              const uint8_t *value, uint32_t bytes, cb_error *err) {
    uint8_t text[CBI_DECIMAL_TEXT_MAX];
    if (item->type == CBI_VALUE_NUM) {
        uint8_t *end = cbi_decimal_format(text, get_ordered(value), b->g->scales[item->a]);
        value = text;
        bytes = (uint32_t)(end - text);
    }
    size_t all = kept->kept_bytes + bytes + 1;
    if (all > b->text_room)
        return no_room(b, "a result", all, b->text_room, err);
    if (item->kind == CBI_AGG_TOP) { /* before the others */
        memmove(kept->kept + bytes + kept->has, kept->kept, kept->kept_bytes);
        memcpy(kept->kept, value, bytes);
        if (kept->has)
            kept->kept[bytes] = ';';
    } else {
        if (kept->has)
            kept->kept[kept->kept_bytes] = ';';
        memcpy(kept->kept + kept->kept_bytes + kept->has, value, bytes);
    }
    kept->kept_bytes += bytes + kept->has;
    kept->has = true;
    return CB_OK;
}

static cb_status sorted_value(void *ctx, const cbi_stored *record, cb_error *err) {
    giant_work *b = ctx;
    size_t i = __builtin_bswap32(cbi_load_u32(record->key));
    const cbi_aggregate *item = &b->g->aggs->items[i];
    giant_item *kept = &b->items[i];
    const uint8_t *value = record->key + 4;
    uint32_t bytes = record->key_bytes - 4;
    bool wanted = kept->place >= kept->low && kept->place <= kept->high;
    kept->place++;
    switch ((int)item->kind) {
        case CBI_AGG_QUANTILE:
            if (!wanted)
                return CB_OK;
            if (item->type == CBI_VALUE_STR)
                return keep_text(b, kept->kept, &kept->kept_bytes,
                                 (list_text){.at = value, .bytes = bytes}, err);
            if (kept->place - 1 == kept->low)
                kept->low_value = get_ordered(value);
            kept->high_value = get_ordered(value);
            return CB_OK;
        case CBI_AGG_TOP:
        case CBI_AGG_BOTTOM: return wanted ? append_value(b, item, kept, value, bytes, err) : CB_OK;
        case CBI_AGG_COLLECT:
            return append_value(b, item, kept, record->row, record->row_bytes, err);
        default: break;
    }
    bool same = kept->run > 0 && b->last_item == i && b->last_bytes == bytes &&
                memcmp(b->last_key, value, bytes) == 0;
    if (!same) {
        if (b->last_item != UINT32_MAX)
            end_run(b, b->last_item);
        memcpy(b->last_key, value, bytes);
        b->last_bytes = bytes;
        b->last_item = (uint32_t)i;
        kept->run_first = record->order;
    }
    kept->run++;
    return CB_OK;
}

static cb_status put_field(giant_work *b, size_t i, cb_error *err) {
    cb_group *g = b->g;
    const cbi_aggregate *item = &g->aggs->items[i];
    giant_item *kept = &b->items[i];
    uint8_t text[CBI_DECIMAL_TEXT_MAX], *end = text;
    bool number = item->type == CBI_VALUE_NUM;
    uint8_t scale = item->a != UINT32_MAX ? g->scales[item->a] : 0;
    if (cbi_aggregate_fixed(item)) {
        if (cbi_state_format(g->aggs, item, g->scales, b->eval.state, text, &end) != CBI_RESULT_OK)
            return group_overflow(g, b->key, b->key_bytes, item->a, err);
    } else if (item->kind == CBI_AGG_DISTINCT) {
        end = cbi_u64_format(text, kept->distinct);
    } else if (item->kind == CBI_AGG_APPROX) {
        end = cbi_u64_format(text, list_approx_result(kept->kept));
    } else if (item->kind == CBI_AGG_QUANTILE && number) {
        if (kept->n > 0)
            end = list_put_quantile(item, kept->low_value, kept->high_value, kept->n, scale, text);
    } else if (item->kind == CBI_AGG_MODE && number) {
        if (kept->distinct > 0)
            end = cbi_decimal_format(text, get_ordered(kept->kept), scale);
    } else {
        return kept->kept_bytes > 0 ? put_text(b, kept->kept, kept->kept_bytes, err) : CB_OK;
    }
    return put_bytes(b, text, (size_t)(end - text), err);
}

static cb_status put_fields(giant_work *b, size_t from, size_t to, cb_error *err) {
    for (size_t i = from; i < to; i++) {
        if (i > 0 || b->g->key_count > 0)
            CB_TRY(put_bytes(b, &b->g->separator, 1, err));
        CB_TRY(put_field(b, i, err));
    }
    return CB_OK;
}

static const uint8_t *display_of(const giant_work *b, uint32_t *bytes) {
    *bytes = b->key_bytes;
    return !b->g->display ? b->key : cbi_varint_get(b->key + b->key_bytes + 4, bytes);
}

static cb_status put_giant(giant_work *b, cb_error *err) {
    cb_group *g = b->g;
    uint32_t display_bytes;
    const uint8_t *display = display_of(b, &display_bytes);
    b->at = b->text;
    CB_TRY(put_bytes(b, display, display_bytes, err));
    CB_TRY(put_fields(b, 0, g->aggs->count, err));
    group_result r;
    uint8_t *p;
    uint32_t row_bytes = (uint32_t)(b->at - b->text);
    group_result_place(g, b->first, b->key, b->key_bytes, &r);
    group_result_count(g, b->w, r.range, row_bytes);
    CB_TRY(cbi_batch_begin(&b->w->batch, r.range, cbi_record_bytes(r.order_bytes, row_bytes), &p,
                           err));
    p = cbi_record_put_key(p, r.order, r.order_bytes, row_bytes);
    memcpy(p, b->text, row_bytes);
    return cbi_batch_end(&b->w->batch, p + row_bytes, err);
}

static cb_status end_giant(giant_work *b, cb_error *err) {
    b->last_item = UINT32_MAX;
    for (size_t i = 0; i < b->g->aggs->count; i++)
        if (needs_sort(&b->g->aggs->items[i]))
            want_places(b, i);
    CB_TRY(cbi_runs_merge(&b->inner, sorted_value, b, err));
    if (b->last_item != UINT32_MAX)
        end_run(b, b->last_item);
    CB_TRY(put_giant(b, err));
    cbi_runs_close(&b->inner);
    b->giant = false;
    return CB_OK;
}

/* ---- memory: what a group that fits has in one piece is divided for one that does not ---- */

static uint8_t *carve(uint8_t **at, size_t bytes) {
    uint8_t *piece = *at;
    *at += cbi_round_up(bytes, 16);
    return piece;
}

/* The rows gathered so far begin the giant group; the memory they lie in is needed for it, so they
 * are in the sort's builder or added up when this returns. */
static cb_status begin_giant(giant_work *b, cb_error *err) {
    cb_group *g = b->g;
    size_t count = g->aggs->count;
    /* rows gathered lie in the first half of the memory, all else in the second */
    uint8_t *at = b->memory + b->memory_bytes / 2, *end = b->memory + b->memory_bytes;
    at += -(uintptr_t)at & 15;
    b->items = (giant_item *)(void *)carve(&at, (count + 1) * sizeof *b->items);
    if (at >= end)
        return no_room(b, "aggregates", count * sizeof *b->items, b->memory_bytes / 2, err);
    memset(b->items, 0, (count + 1) * sizeof *b->items);
    size_t rest = (size_t)(end - at);
    b->text_room = rest / (2 * count + 6) & ~(size_t)15;
    for (size_t i = 0; i < count; i++) {
        if (g->aggs->items[i].kind == CBI_AGG_APPROX && b->text_room < APPROX_REGISTERS)
            return no_room(b, "registers", APPROX_REGISTERS, b->text_room, err);
        b->items[i].kept = carve(&at, b->text_room);
        b->items[i].best_text = carve(&at, b->text_room);
        if (g->aggs->items[i].kind == CBI_AGG_APPROX)
            memset(b->items[i].kept, 0, APPROX_REGISTERS);
    }
    b->scratch = carve(&at, b->text_room);
    b->scratch_room = b->text_room;
    b->last_key = carve(&at, b->text_room);
    b->text = at;
    b->end = end;
    memset(b->eval.state, 0, g->aggs->state_bytes);
    size_t units = b->outer.outside / 2;
    CB_TRY(cbi_runs_open_inside(&b->inner, b->w->job, cbi_max(units, 2), err));
    b->giant = true;
    return CB_OK;
}

/* ---- groups ---- */

static size_t gathered_room(const giant_work *b) {
    return b->memory_bytes / 2 - b->used;
}

static uint8_t **place_of(const giant_work *b, uint64_t row) {
    uint8_t *end = b->memory + b->memory_bytes / 2;
    return (uint8_t **)(void *)(end - (row + 1) * sizeof(uint8_t *));
}

static cb_status end_group(giant_work *b, cb_error *err) {
    if (!b->any)
        return CB_OK;
    b->any = false;
    if (b->giant)
        return end_giant(b, err);
    /* places were noted from the back; the first row comes first */
    for (uint64_t i = 0, k = b->rows - 1; i < k; i++, k--) {
        uint8_t *t = *place_of(b, i);
        *place_of(b, i) = *place_of(b, k);
        *place_of(b, k) = t;
    }
    uint32_t display_bytes;
    const uint8_t *display = display_of(b, &display_bytes);
    b->eval.scratch = b->memory + b->memory_bytes / 2;
    return list_put_result(&b->eval, b->w, b->first, b->key, b->key_bytes, display, display_bytes,
                           (const uint8_t *const *)place_of(b, b->rows - 1), b->rows, err);
}

static cb_status begin_group(giant_work *b, const cbi_stored *record, const group_payload *payload,
                             cb_error *err) {
    size_t head = !b->g->display ? 0 : (size_t)(payload->body - record->row);
    if (record->key_bytes + head > b->key_room)
        return no_room(b, "a key", record->key_bytes + head, b->key_room, err);
    memcpy(b->key, record->key, record->key_bytes);
    memcpy(b->key + record->key_bytes, record->row, head);
    b->key_bytes = record->key_bytes;
    b->first = payload->position;
    b->rows = 0;
    b->used = 0;
    b->any = true;
    return CB_OK;
}

static cb_status merged_row(void *ctx, const cbi_stored *record, cb_error *err) {
    giant_work *b = ctx;
    group_payload payload;
    group_payload_get(b->g, record, group_run_order(record), &payload);
    if (!b->any || b->key_bytes != record->key_bytes ||
        memcmp(b->key, record->key, record->key_bytes) != 0) {
        CB_TRY(end_group(b, err));
        CB_TRY(begin_group(b, record, &payload, err));
    }
    size_t bytes = record->row_bytes - (size_t)(payload.body - record->row);
    size_t values = (b->rows + 2) * LIST_ROW_BYTES;
    size_t need = bytes + 16 + (b->rows + 2) * sizeof(uint8_t *);
    if (!b->giant && (need > gathered_room(b) || values > b->memory_bytes / 2)) {
        CB_TRY(begin_giant(b, err));
        for (uint64_t i = 0; i < b->rows; i++) /* any place that grows will do: order is by row */
            CB_TRY(giant_row(b, *place_of(b, i), b->first + i, err));
    }
    if (b->giant) {
        b->rows++;
        return giant_row(b, payload.body, payload.position, err);
    }
    /* what is unpacked may look at 8 bytes before a number */
    uint8_t *to = b->memory + b->used + 8;
    memcpy(to, payload.body, bytes);
    *place_of(b, b->rows++) = to;
    b->used += bytes + 8;
    return CB_OK;
}

static cb_status read_rows(giant_work *b, uint32_t index, cb_error *err) {
    cbi_job *job = b->w->job;
    for (;;) {
        cbi_segment *list;
        CB_TRY(cbi_partition_next_part(job->parts, index, &list, err));
        if (list == NULL)
            return CB_OK;
        cb_status status = cbi_partition_prefetch(job->parts, index, 2, err);
        cbi_record_reader reader;
        cbi_stored record;
        cbi_record_reader_init(&reader, list);
        while (status == CB_OK && cbi_record_next(&reader, &record) != NULL) {
            group_payload payload;
            group_payload_get(b->g, &record, reader.order, &payload);
            record.order = payload.position;
            status = cbi_runs_add(&b->outer, &record, err);
        }
        cbi_segments_give(job->ground.pool, list);
        if (status == CB_OK && cbi_job_stopped(job))
            status = cbi_fail(err, CB_ECANCELED, "cancelled");
        CB_TRY(status);
    }
}

cb_status group_lists_big(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err) {
    cb_group *g = ctx;
    cbi_job *job = w->job;
    giant_work b = {.g = g, .w = w, .outer = {.job = job}, .inner = {.job = job}};
    cbi_partition_info info;
    CB_TRY(cbi_job_clear_memory(job, index, err));
    cbi_partition_get_info(job->parts, index, &info);
    uint8_t *at = list_eval_init(&b.eval, g, w->work), *end = w->work + job->sizes.work;
    b.key = at;
    b.key_room = (size_t)(end - at) / 8 & ~(size_t)15;
    b.memory = at + b.key_room;
    b.memory += -(uintptr_t)b.memory & 15;
    b.memory_bytes = (size_t)(end - b.memory) & ~(size_t)31;
    uint64_t need =
        info.segments * job->sizes.segment + info.rows * (sizeof(cbi_entry) + CBI_ORDER_BYTES);
    cb_status status = cbi_runs_open(&b.outer, job, need, info.units_max, err);
    if (status == CB_OK)
        status = read_rows(&b, index, err);
    if (status == CB_OK)
        status = cbi_runs_merge(&b.outer, merged_row, &b, err);
    if (status == CB_OK)
        status = end_group(&b, err);
    cbi_runs_close(&b.inner);
    cbi_runs_close(&b.outer);
    return status;
}
