/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_lists.h"

/*
 * A partition of rows that does not fit. Its records are sorted by key and place, so that groups
 * come one after another. A group that fits the worker's memory is copied there and done as usual.
 *
 * A giant group, larger than that, goes to a second external sort while it streams by: for each
 * aggregate that needs an order, each value becomes a record whose key is {number of the aggregate,
 * value} in a form that memcmp orders. What needs no order (sums, the first, the last, the row with
 * the largest ...) is kept as it streams. When the group ends the values come back in order, those
 * of one aggregate after those of the other, as the fields of the result do: so the result is
 * written while they stream, and no aggregate needs room of its own for what it will show.
 *
 * Memory while a group streams, and when it has ended:
 *
 *     | kept texts, some of them out of date |  a value on its way to the sort |
 *     | kept texts | the result, field by field | the value that streamed by last; the best one |
 */

typedef struct giant_text { /* that is kept */
    uint32_t bytes;
    bool has;
    size_t at; /* in kept texts */
} giant_text;

typedef struct giant_item { /* of one aggregate, in a giant group */
    giant_text shown, by;   /* by: argmax by a text */
    bool has;
    cbi_i128 best;
    uint64_t n;     /* values in the sort */
    uint64_t bytes; /* of all of them, joined and quoted */
    uint64_t longest;
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
    cbi_room key_pages; /* it lies there, when it is large */
    uint32_t key_bytes, display_bytes;
    uint64_t first, rows;

    /* while it fits: bodies from the front, where they are from the back */
    uint8_t *memory;
    size_t memory_bytes, used;

    /* when it does not */
    bool giant;
    cbi_runs inner;
    giant_item *items;
    uint8_t *texts; /* kept: {owner, room}, bytes */
    size_t texts_bytes, texts_used;
    /* the result that is put together */
    uint8_t *record, *row, *at, *end;
    uint64_t likely; /* bytes it will need, at most */
    void *pages;     /* it lies there, when it is larger than the memory above */
    size_t page_units;
    size_t next;       /* the aggregate whose field is next, or under way */
    bool streaming;    /* it is under way */
    size_t raw_bytes;  /* of what a field joins */
    uint8_t *last_key; /* of the stream: to tell values apart */
    uint32_t last_bytes;
    uint8_t *mode;
    uint32_t mode_bytes;
    size_t value_room; /* of each of the two */
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

/* ---- texts that are kept ---- */

enum { TEXT_HEAD = 2 * sizeof(uint32_t) };

static giant_text *text_of_owner(const giant_work *b, uint32_t owner) {
    giant_item *item = &b->items[owner / 2];
    return owner % 2 == 0 ? &item->shown : &item->by;
}

/* Those that have been replaced by longer ones go. */
static void compact_texts(giant_work *b) {
    size_t to = 0;
    for (size_t at = 0; at < b->texts_used;) {
        size_t all = TEXT_HEAD + cbi_load_u32(b->texts + at + sizeof(uint32_t));
        giant_text *text = text_of_owner(b, cbi_load_u32(b->texts + at));
        if (text->has && text->at == at + TEXT_HEAD) {
            memmove(b->texts + to, b->texts + at, all);
            text->at = to + TEXT_HEAD;
            to += all;
        }
        at += all;
    }
    b->texts_used = to;
}

/* So many bytes behind the kept texts. */
static uint8_t *texts_room(giant_work *b, const char *what, size_t bytes, cb_error *err) {
    if (bytes > b->texts_bytes - b->texts_used)
        compact_texts(b);
    if (bytes <= b->texts_bytes - b->texts_used)
        return b->texts + b->texts_used;
    (void)no_room(b, what, b->texts_used + bytes, b->texts_bytes, err);
    return NULL;
}

static cb_status keep_text(giant_work *b, uint32_t owner, const uint8_t *from, uint32_t bytes,
                           cb_error *err) {
    giant_text *text = text_of_owner(b, owner);
    if (!text->has ||
        cbi_load_u32(b->texts + text->at - sizeof(uint32_t)) < bytes) { /* else in its place */
        text->has = false;
        uint8_t *to = texts_room(b, "a text", TEXT_HEAD + bytes, err);
        if (to == NULL)
            return CB_EBUDGET;
        cbi_store_u32(to, owner);
        cbi_store_u32(to + sizeof(uint32_t), bytes);
        text->at = (size_t)(to - b->texts) + TEXT_HEAD;
        b->texts_used += TEXT_HEAD + bytes;
    }
    if (from != NULL)
        memcpy(b->texts + text->at, from, bytes);
    else
        memset(b->texts + text->at, 0, bytes);
    text->bytes = bytes;
    text->has = true;
    return CB_OK;
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
    uint8_t *key = texts_room(b, "a value", bytes, err);
    if (key == NULL)
        return CB_EBUDGET;
    cbi_store_u32(key, __builtin_bswap32((uint32_t)i));
    if (number)
        put_ordered(key + 4, v);
    else
        memcpy(key + 4, text.at, text.bytes);
    cbi_stored record = {.key = key,
                         .key_bytes = (uint32_t)(collect ? 4 : bytes),
                         .row = key + 4,
                         .row_bytes = collect ? text.bytes : 0,
                         .order = position};
    giant_item *kept = &b->items[i];
    kept->n++;
    kept->longest = cbi_max(kept->longest, text.bytes);
    kept->bytes += text.bytes + 1;
    for (uint32_t k = 0; k < text.bytes; k++)
        kept->bytes += text.at[k] == '"';
    return cbi_runs_add(&b->inner, &record, err);
}

static cb_status keep_extreme(giant_work *b, size_t i, const uint8_t *body, cb_error *err) {
    const cbi_aggregate *item = &b->g->aggs->items[i];
    giant_item *kept = &b->items[i];
    bool arg = item->kind == CBI_AGG_ARGMAX || item->kind == CBI_AGG_ARGMIN;
    bool up = item->kind == CBI_AGG_ARGMAX || item->kind == CBI_AGG_MAX, null = false;
    size_t by = arg ? item->b : item->a;
    uint32_t owner = (uint32_t)(2 * i);
    const giant_text *best = arg ? &kept->by : &kept->shown;
    int c = 1;
    cbi_i128 v = 0;
    list_text text = {.at = NULL};
    if (item->type == CBI_VALUE_NUM) {
        CB_TRY(list_number_of(&b->eval, body, by, &v, &null, err));
        c = (v > kept->best) - (v < kept->best);
    } else {
        text = list_text_of(b->g, body, by);
        null = text.at == NULL;
        if (!null && kept->has)
            c = cbi_compare_bytes(text.at, text.bytes, b->texts + best->at, best->bytes, 0);
    }
    if (null || (kept->has && !(up ? c > 0 : c < 0)))
        return CB_OK;
    kept->has = true;
    kept->best = v;
    if (arg && text.at != NULL)
        CB_TRY(keep_text(b, owner + 1, text.at, text.bytes, err));
    text = list_text_of(b->g, body, item->a);
    if (text.at != NULL)
        return keep_text(b, owner, text.at, text.bytes, err);
    kept->shown.has = false;
    return CB_OK;
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
            list_approx_add(b->texts + kept->shown.at, text.at, text.bytes);
        return CB_OK;
    }
    if (item->kind == CBI_AGG_FIRST || item->kind == CBI_AGG_LAST) {
        list_text text = list_text_of(b->g, body, item->a);
        if (text.at == NULL || (kept->shown.has && item->kind == CBI_AGG_FIRST))
            return CB_OK;
        return keep_text(b, (uint32_t)(2 * i), text.at, text.bytes, err);
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

/* ---- the end of a giant group: fields are written as values stream by in order ---- */

static cb_status result_room(const giant_work *b, size_t bytes, cb_error *err) {
    if (bytes <= (size_t)(b->end - b->at))
        return CB_OK;
    uint64_t all = (uint64_t)(b->at - b->record) + b->texts_used + bytes;
    return no_room(b, "a result", all > b->likely ? all : b->likely, b->texts_bytes, err);
}

static cb_status put_bytes(giant_work *b, const uint8_t *p, size_t bytes, cb_error *err) {
    CB_TRY(result_room(b, bytes, err));
    memcpy(b->at, p, bytes);
    b->at += bytes;
    return CB_OK;
}

static cb_status put_text(giant_work *b, const uint8_t *p, size_t bytes, cb_error *err) {
    CB_TRY(result_room(b, group_field_bytes(b->g, p, bytes), err));
    b->at = group_put_field(b->g, b->at, p, bytes);
    return CB_OK;
}

/* What lies at the end of the room becomes the field at its front: quotes never catch up with what
 * they are put around. */
static cb_status put_raw(giant_work *b, cb_error *err) {
    const uint8_t *from = b->end - b->raw_bytes;
    size_t all = group_field_bytes(b->g, from, b->raw_bytes);
    CB_TRY(result_room(b, all, err));
    if (all == b->raw_bytes)
        memmove(b->at, from, all);
    else
        (void)group_put_field(b->g, b->at, from, b->raw_bytes);
    b->at += all;
    return CB_OK;
}

/* What an aggregate wants to see of its n sorted values. */
static void want_places(giant_work *b, size_t i) {
    const cbi_aggregate *item = &b->g->aggs->items[i];
    giant_item *kept = &b->items[i];
    if (kept->n == 0)
        return;
    kept->high = UINT64_MAX;
    if (item->kind == CBI_AGG_QUANTILE && item->type == CBI_VALUE_NUM) {
        list_quantile_places(item, kept->n, &kept->low, &kept->high);
    } else if (item->kind == CBI_AGG_QUANTILE) {
        uint64_t rank =
            (uint64_t)(((cbi_u128)kept->n * item->part + item->whole - 1) / item->whole);
        kept->low = kept->high = rank > 0 ? rank - 1 : 0;
    } else if (item->kind == CBI_AGG_TOP) {
        kept->low = kept->n > item->n ? kept->n - item->n : 0;
    } else if (item->kind == CBI_AGG_BOTTOM) {
        kept->high = item->n - 1;
    }
}

/* A run of equal values has ended. */
static void end_run(giant_work *b, giant_item *kept) {
    if (kept->run == 0)
        return;
    kept->distinct++;
    if (kept->run > kept->most || (kept->run == kept->most && kept->run_first < kept->most_first)) {
        kept->most = kept->run;
        kept->most_first = kept->run_first;
        b->mode_bytes = b->last_bytes;
        if (b->mode != NULL)
            memcpy(b->mode, b->last_key, b->last_bytes);
    }
    kept->run = 0;
}

/* Values joined, from the front of the room; of topN, which come in ascending order, from its end:
 * the last one goes before the others. */
static cb_status join_value(giant_work *b, const cbi_aggregate *item, giant_item *kept,
                            const uint8_t *value, uint32_t bytes, cb_error *err) {
    uint8_t text[CBI_DECIMAL_TEXT_MAX];
    if (item->type == CBI_VALUE_NUM) {
        uint8_t *end = list_put_number(b->g, item, get_ordered(value), text);
        value = text;
        bytes = (uint32_t)(end - text);
    }
    size_t joint = kept->has ? 1 : 0;
    CB_TRY(result_room(b, b->raw_bytes + bytes + joint, err));
    uint8_t *to = item->kind == CBI_AGG_TOP ? b->end - b->raw_bytes - joint - bytes
                                            : b->at + b->raw_bytes + joint;
    memcpy(to, value, bytes);
    if (joint > 0)
        *(item->kind == CBI_AGG_TOP ? to + bytes : to - 1) = CBI_JOINT;
    b->raw_bytes += bytes + joint;
    kept->has = true;
    return CB_OK;
}

static cb_status count_value(giant_work *b, giant_item *kept, const uint8_t *value, uint32_t bytes,
                             uint64_t order, cb_error *err) {
    if (kept->run == 0 || b->last_bytes != bytes || memcmp(b->last_key, value, bytes) != 0) {
        end_run(b, kept);
        if (bytes > b->value_room)
            CB_TRY(result_room(b, (size_t)(b->end - b->at) + 1, err));
        memcpy(b->last_key, value, bytes);
        b->last_bytes = bytes;
        kept->run_first = order;
    }
    kept->run++;
    return CB_OK;
}

/* The field of an aggregate that shows nothing but what was kept, or has seen no values. */
static cb_status put_kept(giant_work *b, size_t i, cb_error *err) {
    cb_group *g = b->g;
    const cbi_aggregate *item = &g->aggs->items[i];
    const giant_text *shown = &b->items[i].shown;
    uint8_t text[CBI_STATE_TEXT_MAX], *end = text;
    if (cbi_aggregate_fixed(item)) {
        if (cbi_state_format(g->aggs, item, g->scales, b->eval.state, text, &end) != CBI_RESULT_OK)
            return group_overflow(g, b->key, b->key_bytes, item->a, err);
    } else if (item->kind == CBI_AGG_DISTINCT) {
        end = cbi_u64_format(text, 0);
    } else if (item->kind == CBI_AGG_APPROX) {
        end = cbi_u64_format(text, list_approx_result(b->texts + shown->at));
    } else if (shown->has) {
        return put_text(b, b->texts + shown->at, shown->bytes, err);
    }
    return put_text(b, text, (size_t)(end - text), err);
}

/* The field whose values have streamed by. */
static cb_status end_field(giant_work *b, cb_error *err) {
    cb_group *g = b->g;
    const cbi_aggregate *item = &g->aggs->items[b->next];
    giant_item *kept = &b->items[b->next];
    uint8_t text[CBI_DECIMAL_TEXT_MAX], *end;
    bool number = item->type == CBI_VALUE_NUM;
    b->next++;
    b->streaming = false;
    if (item->kind == CBI_AGG_DISTINCT || item->kind == CBI_AGG_MODE)
        end_run(b, kept);
    if (item->kind == CBI_AGG_DISTINCT) {
        end = cbi_u64_format(text, kept->distinct);
    } else if (item->kind == CBI_AGG_QUANTILE && number) {
        end = list_put_quantile(g, item, kept->low_value, kept->high_value, kept->n, text);
    } else if (item->kind == CBI_AGG_MODE && number) {
        end = list_put_number(g, item, get_ordered(b->mode), text);
    } else if (item->kind == CBI_AGG_MODE) { /* the other half of the room, as if it were joined */
        b->raw_bytes = b->mode_bytes;
        memmove(b->end - b->raw_bytes, b->mode, b->raw_bytes);
        return put_raw(b, err);
    } else {
        if (item->kind != CBI_AGG_TOP)
            memmove(b->end - b->raw_bytes, b->at, b->raw_bytes);
        return put_raw(b, err);
    }
    return put_text(b, text, (size_t)(end - text), err);
}

/* Fields up to that of aggregate i, and what stands before it. */
static cb_status put_fields(giant_work *b, size_t i, cb_error *err) {
    if (b->streaming)
        CB_TRY(end_field(b, err));
    for (;;) {
        if ((b->next > 0 || b->g->key_count > 0) && b->next < b->g->aggs->count)
            CB_TRY(put_bytes(b, &b->g->separator, 1, err));
        if (b->next == i)
            return CB_OK;
        CB_TRY(put_kept(b, b->next++, err));
    }
}

static cb_status begin_field(giant_work *b, size_t i, cb_error *err) {
    CB_TRY(put_fields(b, i, err));
    b->streaming = true;
    b->raw_bytes = 0;
    b->value_room = (size_t)(b->end - b->at);
    b->last_key = b->at;
    b->mode = NULL;
    if (b->g->aggs->items[i].kind == CBI_AGG_MODE) {
        b->value_room /= 2;
        b->mode = b->at + b->value_room;
    }
    return CB_OK;
}

static cb_status sorted_value(void *ctx, const cbi_stored *record, cb_error *err) {
    giant_work *b = ctx;
    size_t i = __builtin_bswap32(cbi_load_u32(record->key));
    if (!b->streaming || i != b->next)
        CB_TRY(begin_field(b, i, err));
    const cbi_aggregate *item = &b->g->aggs->items[i];
    giant_item *kept = &b->items[i];
    const uint8_t *value = record->key + 4;
    uint32_t bytes = record->key_bytes - 4;
    bool wanted = kept->place >= kept->low && kept->place <= kept->high;
    kept->place++;
    if (item->kind == CBI_AGG_DISTINCT || item->kind == CBI_AGG_MODE)
        return count_value(b, kept, value, bytes, record->order, err);
    if (!wanted)
        return CB_OK;
    if (item->kind == CBI_AGG_COLLECT)
        return join_value(b, item, kept, record->row, record->row_bytes, err);
    if (item->kind != CBI_AGG_QUANTILE || item->type == CBI_VALUE_STR)
        return join_value(b, item, kept, value, bytes, err);
    if (kept->place - 1 == kept->low)
        kept->low_value = get_ordered(value);
    kept->high_value = get_ordered(value);
    return CB_OK;
}

static const uint8_t *display_of(const giant_work *b, uint32_t *bytes) {
    *bytes = b->key_bytes;
    return !b->g->display ? b->key : cbi_varint_get(b->key + b->key_bytes + 4, bytes);
}

/* Bytes of a field, and of what it takes to make it, at most. */
static uint64_t likely_bytes(const cbi_aggregate *item, const giant_item *kept) {
    uint64_t one = 2 * (kept->longest + kept->shown.bytes) + CBI_DECIMAL_TEXT_MAX + 3;
    if (item->kind == CBI_AGG_COLLECT)
        return kept->bytes + 3;
    if (item->kind != CBI_AGG_TOP && item->kind != CBI_AGG_BOTTOM)
        return one;
    uint64_t all = cbi_min(item->n, kept->n) * one;
    return item->type == CBI_VALUE_STR && all > kept->bytes ? kept->bytes + 3 : all;
}

static void give_pages(giant_work *b) {
    if (b->pages != NULL)
        cb_segment_pool_give(b->w->job->ground.pool, b->pages, b->page_units);
    b->pages = NULL;
}

/* A worker's memory goes by what partitions are to be, not by the budget: where a result may be
 * larger and there are pages to spare, beside those for the merge and for the result in its
 * partition, it is put together in these. */
static void take_pages(giant_work *b) {
    const cbi_job *job = b->w->job;
    size_t segment = job->sizes.segment, units = (size_t)(b->likely / segment) + 1;
    if (b->likely <= b->texts_bytes || units > job->sizes.segments ||
        2 * units + job->sizes.segments / 16 > cb_segment_pool_free_count(job->ground.pool))
        return;
    b->pages = cb_segment_pool_take(job->ground.pool, units);
    b->page_units = units;
    if (b->pages == NULL)
        return;
    b->record = b->at = b->pages;
    b->end = b->record + units * segment;
}

/* The record of the result begins behind the kept texts, with all that is known of it: how many
 * bytes its row has is not, so room is left for it. */
static cb_status begin_result(giant_work *b, group_result *r, cb_error *err) {
    cb_group *g = b->g;
    uint32_t display_bytes;
    const uint8_t *display = display_of(b, &display_bytes);
    compact_texts(b);
    b->record = b->at = b->texts + b->texts_used;
    b->end = b->texts + b->texts_bytes;
    group_result_place(g, b->first, b->key, b->key_bytes, r);
    uint64_t known = display_bytes + r->order_bytes + 2 * CBI_VARINT_MAX;
    b->likely = b->texts_used + known;
    for (size_t i = 0; i < g->aggs->count; i++) {
        const cbi_aggregate *item = &g->aggs->items[i];
        known += item->kind == CBI_AGG_COLLECT ? b->items[i].bytes : 0;
        b->likely += likely_bytes(item, &b->items[i]);
    }
    take_pages(b);
    CB_TRY(result_room(b, known, err));
    b->at = cbi_varint_put(b->at + CBI_VARINT_MAX, r->order_bytes);
    memcpy(b->at, r->order, r->order_bytes);
    b->row = b->at + r->order_bytes;
    memcpy(b->row, display, display_bytes);
    b->at = b->row + display_bytes;
    b->next = 0;
    b->streaming = false;
    return CB_OK;
}

static cb_status put_result(giant_work *b, const group_result *r, cb_error *err) {
    uint32_t bytes = (uint32_t)(b->at - b->row);
    group_result_count(b->g, b->w, r->range, bytes);
    cbi_record_put_row_bytes(b->record, bytes);
    return cbi_batch_put(&b->w->batch, r->range, b->record, (size_t)(b->at - b->record), err);
}

static cb_status end_giant(giant_work *b, cb_error *err) {
    group_result r;
    for (size_t i = 0; i < b->g->aggs->count; i++)
        if (needs_sort(&b->g->aggs->items[i]))
            want_places(b, i);
    CB_TRY(begin_result(b, &r, err));
    CB_TRY(cbi_runs_merge(&b->inner, sorted_value, b, err));
    CB_TRY(put_fields(b, b->g->aggs->count, err));
    cbi_runs_close(&b->inner); /* it may take all that it held to put the result away */
    CB_TRY(put_result(b, &r, err));
    give_pages(b);
    b->giant = false;
    return CB_OK;
}

/* ---- memory: what a group that fits has in one piece is divided for one that does not ---- */

static size_t gathered_room(const giant_work *b) {
    return b->memory_bytes / 2 - b->used;
}

static uint8_t **place_of(const giant_work *b, uint64_t row) {
    uint8_t *end = b->memory + b->memory_bytes / 2;
    return (uint8_t **)(void *)(end - (row + 1) * sizeof(uint8_t *));
}

/* The rows gathered so far begin the giant group; the memory they lie in is needed for it, so they
 * are in the sort's builder or added up when this returns. */
static cb_status begin_giant(giant_work *b, cb_error *err) {
    cb_group *g = b->g;
    size_t count = g->aggs->count;
    /* rows gathered lie in the first half of the memory, all else in the second */
    uint8_t *at = b->memory + b->memory_bytes / 2, *end = b->memory + b->memory_bytes;
    at += -(uintptr_t)at & 15;
    size_t items = (count + 1) * sizeof *b->items;
    if (items > (size_t)(end - at))
        return no_room(b, "aggregates", 2 * items, b->memory_bytes, err);
    b->items = (giant_item *)(void *)at;
    memset(b->items, 0, items);
    b->texts = at + items;
    b->texts_bytes = (size_t)(end - b->texts);
    b->texts_used = 0;
    for (size_t i = 0; i < count; i++)
        if (g->aggs->items[i].kind == CBI_AGG_APPROX)
            CB_TRY(keep_text(b, (uint32_t)(2 * i), NULL, APPROX_REGISTERS, err));
    memset(b->eval.state, 0, g->aggs->state_bytes);
    size_t units = b->outer.outside / 2;
    CB_TRY(cbi_runs_open_inside(&b->inner, b->w->job, cbi_max(units, 2), err));
    b->giant = true;
    for (uint64_t i = 0; i < b->rows; i++) /* any place that grows will do: order is by row */
        CB_TRY(giant_row(b, *place_of(b, i), b->first + i, err));
    size_t more = (size_t)((uint8_t *)b->items - b->memory) & ~(size_t)15; /* they are done with */
    memmove(b->memory, b->items, items + b->texts_used);
    b->items = (giant_item *)(void *)b->memory;
    b->texts = b->memory + items;
    b->texts_bytes += more;
    return CB_OK;
}

/* ---- groups ---- */

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
    if (CBI_UNLIKELY(record->key_bytes + head > b->key_room)) {
        b->key_room = 0;
        CB_TRY(cbi_room_need(&b->key_pages, b->w->job, b->outer.table.runs,
                             record->key_bytes + head, err));
        b->key = b->key_pages.bytes;
        b->key_room = b->key_pages.size;
    }
    memcpy(b->key, record->key, record->key_bytes);
    memcpy(b->key + record->key_bytes, record->row, head);
    b->key_bytes = record->key_bytes;
    b->eval.key = b->key;
    b->eval.key_bytes = b->key_bytes;
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
    if (!b->giant && (need > gathered_room(b) || values > b->memory_bytes / 2))
        CB_TRY(begin_giant(b, err));
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
    give_pages(&b);
    cbi_room_give(&b.key_pages, job);
    cbi_runs_close(&b.inner);
    cbi_runs_close(&b.outer);
    return status;
}
