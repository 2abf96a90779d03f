/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_private.h"

/*
 * The work pass for aggregates of a fixed size: a partition comes back, its records are added up in
 * a table that fits in the cache, and each group becomes a row of the result.
 *
 * Where groups are many most of them are alone: one row, or one state that the read pass has made.
 * Such a group needs no state here; its entry says where the record is, and only when another one
 * of the same key comes do both of them go into a state, from the other end of the table's memory.
 * There are half as many states as records at most. A row that has stayed alone is its own sum,
 * smallest and largest number: it is written down from its record.
 *
 * A partition that does not fit is read in parts, through the same table. If its groups are few
 * (one key that fills half the input) that is all; otherwise the table's states go into sorted runs
 * each time it is full, and equal keys meet again in the merge. States that are much larger than
 * records (hundreds of aggregates) do not go anywhere: keys that found no place in the table go
 * into the runs as they came, those in it stay there until the end.
 */

typedef struct states_work {
    cb_group *g;
    cbi_job_worker *w;
    group_table table;
    uint8_t *scales; /* of the table: all there are */
    uint8_t *text;   /* a row of the result */
    uint64_t *state; /* one, aligned */
    cbi_value *values;
    bool late;     /* key columns need not be kept with results */
    bool as_it_is; /* of a row that is alone results are its numbers, or how many there are */
    uint8_t *rest; /* memory for the table */
    size_t rest_bytes;
} states_work;

typedef struct waiting {
    cbi_stored record;
    group_payload payload;
    uint64_t hash;
} waiting;

enum {
    KEY_USUAL = 1024, /* with what is written out of it */
    STATE_LARGE = 4096
};

/* A record with a state in it, but for its key. */
static size_t state_row_bytes(const cb_group *g) {
    return 4 + 8 + g->aggs->column_count + g->aggs->state_bytes;
}

static size_t overhead_bytes(const cb_group *g) {
    return g->aggs->text_bytes + g->aggs->state_bytes +
           g->aggs->column_count * (sizeof(cbi_value) + 1) + 5 * 16 + 256;
}

static void lay_out(states_work *s, cb_group *g, cbi_job_worker *w) {
    uint8_t *at = w->work + (-(uintptr_t)w->work & 15), *end = w->work + w->job->sizes.work;
    *s = (states_work){.g = g, .w = w, .scales = g->scales};
    s->state = (uint64_t *)(void *)at;
    at += cbi_round_up(g->aggs->state_bytes, 16);
    s->values = (cbi_value *)(void *)at;
    at += cbi_round_up(g->aggs->column_count * sizeof(cbi_value), 16);
    s->text = at;
    at += cbi_round_up(g->aggs->text_bytes + 1, 16);
    s->rest = at;
    s->rest_bytes = (size_t)(end - at) & ~(size_t)15;
    s->as_it_is = !g->guarded && cbi_aggregates_as_is(g->aggs, s->scales);
}

static bool states_fit(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info) {
    (void)index;
    const cb_group *g = ctx;
    uint64_t slots = 16, states = info->rows / 2 * g->aggs->state_bytes;
    while (slots < info->rows + info->rows / 2)
        slots *= 2;
    return slots * 8 + (info->rows + 1) * sizeof(group_entry) + states + overhead_bytes(g) <=
           job->sizes.work;
}

cb_status group_overflow(const cb_group *g, const uint8_t *key, size_t key_bytes, size_t column,
                         cb_error *err) {
    uint32_t bytes = (uint32_t)key_bytes;
    if (g->display)
        key = cbi_varint_get(key + key_bytes + 4, &bytes);
    if (g->key_count == 0)
        return cbi_fail(err, CB_EDATA,
                        "the numbers of column '%.80s', or their sum, do not fit in 128 bits; as "
                        "floats (COLUMN:float) they do",
                        g->aggs->columns[column].name);
    return cbi_fail(err, CB_EDATA,
                    "the numbers of column '%.80s', or their sum, do not fit in 128 bits; it "
                    "happened in the group '%.*s'; as floats (COLUMN:float) they do fit",
                    g->aggs->columns[column].name, (int)cbi_min(bytes, 80), (const char *)key);
}

/* ---- results ---- */

/* A key as it is stored. */
static cb_status overflow(const cb_group *g, const uint8_t *key, uint32_t key_bytes, size_t column,
                          cb_error *err) {
    uint8_t text[CBI_BRIEF_TEXT_MAX];
    if (!g->brief)
        return group_overflow(g, key, key_bytes, column, err);
    if (key[0] == CBI_BRIEF_MARK)
        return group_overflow(g, key + 1, key_bytes - 1, column, err);
    cbi_brief_get(&g->alphabet, key, key_bytes, text);
    return group_overflow(g, text, cbi_brief_text_bytes(key, key_bytes), column, err);
}

/* What is written out of a group's key; a brief one is still brief. */
static const uint8_t *display_of(const cb_group *g, const uint8_t *key, uint32_t key_bytes,
                                 uint32_t *bytes) {
    *bytes = g->brief ? (uint32_t)cbi_brief_text_bytes(key, key_bytes) : key_bytes;
    return !g->display ? key : cbi_varint_get(key + key_bytes + 4, bytes);
}

/* `key` with its display behind it. */
static cb_status put_result(states_work *s, uint64_t first, const uint8_t *key, uint32_t key_bytes,
                            const uint64_t *state, cb_error *err) {
    cb_group *g = s->g;
    uint8_t *text = s->text;
    for (size_t i = 0; i < g->aggs->count; i++) {
        if (i > 0 || g->key_count > 0)
            *text++ = g->separator;
        const cbi_aggregate *item = &g->aggs->items[i];
        uint8_t *from = text;
        if (cbi_state_format(g->aggs, item, s->scales, state, text, &text) != CBI_RESULT_OK)
            return overflow(g, key, key_bytes, item->a, err);
        text = group_guard_number(g, from, text);
    }
    uint32_t display_bytes;
    const uint8_t *display = display_of(g, key, key_bytes, &display_bytes);
    size_t text_bytes = (size_t)(text - s->text);
    group_result r;
    uint8_t *p;
    group_result_place(g, first, key, key_bytes, &r);
    group_result_count(g, s->w, r.range, display_bytes + text_bytes);
    bool left = s->late && group_result_leave(&r, first, display_bytes);
    size_t kept = left ? cbi_varint_bytes(group_left(display_bytes, false)) : display_bytes;
    uint32_t row_bytes = (uint32_t)(kept + text_bytes);
    CB_TRY(cbi_batch_begin(&s->w->batch, r.range, cbi_record_bytes(r.order_bytes, row_bytes), &p,
                           err));
    p = cbi_record_put_key(p, r.order, r.order_bytes, row_bytes);
    if (left)
        (void)cbi_varint_put(p, group_left(display_bytes, false));
    else if (!g->brief)
        memcpy(p, display, display_bytes);
    else
        cbi_brief_get(&g->alphabet, key, key_bytes, p);
    p += kept;
    cbi_copy_short(p, s->text, text_bytes);
    return cbi_batch_end(&s->w->batch, p + text_bytes, err);
}

/* Bytes that key columns take in the result, on average. */
static double mean_display(const states_work *s) {
    enum { LOOKED_AT = 64 };
    uint32_t n = (uint32_t)cbi_min(s->table.count, LOOKED_AT);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        const group_entry *e = group_table_at(&s->table, i);
        uint32_t bytes;
        (void)display_of(s->g, e->key, e->key_bytes, &bytes);
        sum += bytes;
    }
    return (double)sum / (n + (n == 0));
}

enum { AHEAD = 8 };

static cb_status put_results(states_work *s, cb_error *err) {
    s->late = group_late_worth(s->g, s->table.count, mean_display(s));
    for (uint32_t i = 0; i < s->table.count; i++) {
        const group_entry *e = group_table_at(&s->table, i);
        if (i + AHEAD < s->table.count)
            __builtin_prefetch(group_table_at(&s->table, i + AHEAD)->key);
        CB_TRY(put_result(s, e->first, e->key, e->key_bytes, e->state, err));
    }
    return CB_OK;
}

/* ---- adding up ---- */

/* A state as it lies in a record -> s->state, at our scales. */
static cb_status open_state(states_work *s, const waiting *r, cb_error *err) {
    const cbi_aggregates *a = s->g->aggs;
    const uint8_t *scales = r->payload.body;
    memcpy(s->state, scales + a->column_count, a->state_bytes);
    for (size_t i = 0; i < a->column_count; i++) {
        if (CBI_LIKELY(scales[i] == s->scales[i]))
            continue;
        if (!cbi_state_raise(a, s->state, i, (unsigned)s->scales[i] - scales[i]))
            return overflow(s->g, r->record.key, r->record.key_bytes, i, err);
    }
    return CB_OK;
}

static cb_status add_record(states_work *s, const waiting *r, uint64_t *state, cb_error *err) {
    size_t column = 0;
    if (r->payload.state) {
        CB_TRY(open_state(s, r, err));
        cbi_state_merge(s->g->aggs, state, s->state);
        return CB_OK;
    }
    (void)group_values_get(s->g, r->payload.body, s->values);
    if (!cbi_state_add(s->g->aggs, s->scales, state, s->values, &column))
        return overflow(s->g, r->record.key, r->record.key_bytes, column, err);
    return CB_OK;
}

/* Keys do not stay where they are. *full: nothing was added. */
static cb_status add_to_table(states_work *s, const waiting *r, bool *full, cb_error *err) {
    const cbi_stored *k = &r->record;
    size_t place = 0, kept = k->key_bytes;
    group_entry *e = group_table_find(&s->table, r->hash, k->key, k->key_bytes, &place);
    *full = false;
    if (s->g->display)
        kept += (size_t)(r->payload.display - k->row) + r->payload.display_bytes;
    if (e == NULL) {
        e = group_table_add(&s->table, r->hash, k->key, k->key_bytes, kept, place);
        *full = e == NULL;
        if (*full)
            return CB_OK;
        e->first = r->payload.position;
        memcpy(s->table.keys, k->key, kept);     /* the row begins where the key ends */
    } else if (r->payload.position < e->first) { /* its key columns are the ones to show */
        if (s->g->display) {
            uint8_t *used = (uint8_t *)group_table_at(&s->table, s->table.count);
            *full = (size_t)(s->table.keys - used) < kept;
            if (*full)
                return CB_OK;
            s->table.keys -= kept;
            memcpy(s->table.keys, k->key, kept);
            e->key = s->table.keys;
        }
        e->first = r->payload.position;
    }
    return add_record(s, r, e->state, err);
}

/* Up to GROUP_BATCH records, their places in the table on their way from memory. */
static uint32_t next_batch(states_work *s, cbi_record_reader *reader, waiting *batch) {
    uint32_t n = 0;
    for (; n < GROUP_BATCH && cbi_record_next(reader, &batch[n].record) != NULL; n++) {
        waiting *r = &batch[n];
        group_payload_get(s->g, &r->record, reader->order, &r->payload);
        r->hash = cbi_job_hash(&s->g->job, r->record.key, r->record.key_bytes);
        group_table_prefetch(&s->table, r->hash);
    }
    for (uint32_t i = 0; i < n; i++)
        group_table_prefetch_entry(&s->table, batch[i].hash);
    for (uint32_t i = 0; i < n; i++)
        group_table_prefetch_key(&s->table, batch[i].hash);
    return n;
}

/* ---- groups that are alone, and others ---- */

static uint64_t *state_of(const states_work *s, const group_entry *e) {
    return (uint64_t *)(void *)s->table.limit - e->rows;
}

/* The record that an entry without a state is for. */
static waiting lone_record(const states_work *s, const group_entry *e) {
    waiting r = {
        .record = {.key = e->key, .key_bytes = e->key_bytes, .row = e->key + e->key_bytes}};
    group_payload_get(s->g, &r.record, 0, &r.payload);
    return r;
}

static cb_status give_state(states_work *s, group_entry *e, cb_error *err) {
    size_t bytes = s->g->aggs->state_bytes;
    waiting r = lone_record(s, e);
    s->table.keys -= bytes;
    cb_assert(s->table.keys >= (uint8_t *)group_table_at(&s->table, s->table.count));
    memset(s->table.keys, 0, bytes);
    e->rows = (uint32_t)((size_t)(s->table.limit - s->table.keys) / sizeof(uint64_t));
    return add_record(s, &r, state_of(s, e), err);
}

static cb_status add_where_they_lie(states_work *s, const waiting *r, cb_error *err) {
    const cbi_stored *k = &r->record;
    size_t place = 0;
    group_entry *e = group_table_find(&s->table, r->hash, k->key, k->key_bytes, &place);
    if (e == NULL) {
        e = group_table_add(&s->table, r->hash, k->key, k->key_bytes, 0, place);
        cb_assert(e != NULL);
        e->first = r->payload.position;
        return CB_OK;
    }
    if (e->rows == 0)
        CB_TRY(give_state(s, e, err));
    if (r->payload.position < e->first) { /* its key columns are the ones to show */
        e->first = r->payload.position;
        e->key = k->key;
    }
    return add_record(s, r, state_of(s, e), err);
}

/*
 * The result of a row that is alone, from its numbers, of which `packed` bytes are `body`; false:
 * it is too long for that. Where its key stays in the input they stay packed: text is made of them
 * when it is written, while the disk is waited for, and until then there is less to carry about.
 */
static bool put_numbers(states_work *s, const group_entry *e, const uint8_t *body, size_t packed,
                        cb_status *status, cb_error *err) {
    const cb_group *g = s->g;
    const cbi_aggregates *a = g->aggs;
    uint32_t display_bytes;
    const uint8_t *display = display_of(g, e->key, e->key_bytes, &display_bytes);
    group_result r;
    group_result_place(g, e->first, e->key, e->key_bytes, &r);
    bool left = s->late && group_result_leave(&r, e->first, display_bytes);
    size_t kept = left ? cbi_varint_bytes(group_left(display_bytes, true)) : display_bytes;
    size_t most = kept + (left ? packed : a->count * (1 + CBI_AS_IS_MAX));
    if (most >= 0x80 || r.order_bytes >= 0x80 || a->count > GROUP_LEFT_COLUMNS ||
        a->column_count > GROUP_LEFT_COLUMNS) /* sizes would be more than a byte */
        return false;
    uint8_t *start, *row, *p;
    *status = cbi_batch_begin(&s->w->batch, r.range, 2 + r.order_bytes + most + CBI_AS_IS_SLACK,
                              &start, err);
    if (*status != CB_OK)
        return true;
    start[1] = (uint8_t)r.order_bytes;
    cbi_copy_short(start + 2, r.order, r.order_bytes);
    row = start + 2 + r.order_bytes;
    if (left)
        (void)cbi_varint_put(row, group_left(display_bytes, true));
    else if (!g->brief)
        cbi_copy_short(row, display, display_bytes);
    else
        cbi_brief_get(&g->alphabet, e->key, e->key_bytes, row);
    p = row + kept;
    uint64_t text = 0;
    for (size_t i = 0; left && i < a->count; i++)
        text += 1 + cbi_as_is_bytes(&a->items[i], s->values);
    if (left) {
        cbi_copy_short(p, body, packed);
        p += packed;
    }
    for (size_t i = 0; !left && i < a->count; i++) {
        if (i > 0 || g->key_count > 0)
            *p++ = g->separator;
        p = cbi_as_is_format(&a->items[i], s->values, p);
    }
    start[0] = (uint8_t)(p - row);
    group_result_count(g, s->w, r.range, left ? display_bytes + text : (uint64_t)(p - row));
    *status = cbi_batch_end(&s->w->batch, p, err);
    return true;
}

static cb_status put_lone(states_work *s, const group_entry *e, cb_error *err) {
    const cb_group *g = s->g;
    waiting r = lone_record(s, e);
    cb_status status;
    if (s->as_it_is && !r.payload.state) {
        const uint8_t *body = r.payload.body, *end = group_values_get(g, body, s->values);
        if (cbi_values_are_short(g->aggs, s->values) &&
            put_numbers(s, e, body, (size_t)(end - body), &status, err))
            return status;
    }
    if (r.payload.state) {
        CB_TRY(open_state(s, &r, err));
    } else {
        memset(s->state, 0, g->aggs->state_bytes);
        CB_TRY(add_record(s, &r, s->state, err));
    }
    return put_result(s, e->first, e->key, e->key_bytes, s->state, err);
}

static cb_status put_all(states_work *s, cb_error *err) {
    s->late = group_late_worth(s->g, s->table.count, mean_display(s));
    for (uint32_t i = 0; i < s->table.count; i++) {
        const group_entry *e = group_table_at(&s->table, i);
        if (i + AHEAD < s->table.count)
            __builtin_prefetch(group_table_at(&s->table, i + AHEAD)->key);
        if (e->rows == 0)
            CB_TRY(put_lone(s, e, err));
        else
            CB_TRY(put_result(s, e->first, e->key, e->key_bytes, state_of(s, e), err));
    }
    return CB_OK;
}

static cb_status states_work_on(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                                cb_error *err) {
    cb_group *g = ctx;
    states_work s;
    cbi_partition_info info;
    lay_out(&s, g, w);
    cbi_partition_get_info(w->job->parts, index, &info);
    if (info.rows == 0)
        return CB_OK;
    (void)group_table_init(&s.table, s.rest, s.rest_bytes, 0, (size_t)info.rows, 0);
    cbi_record_reader reader;
    cbi_record_reader_init(&reader, list);
    waiting batch[GROUP_BATCH];
    for (uint32_t n; (n = next_batch(&s, &reader, batch)) > 0;) {
        for (uint32_t i = 0; i < n; i++)
            CB_TRY(add_where_they_lie(&s, &batch[i], err));
        if (cbi_job_stopped(w->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    return put_all(&s, err);
}

/* ---- a partition that does not fit ---- */

typedef struct big_states {
    states_work s;
    cbi_runs runs;
    bool spilled;
    bool large; /* states stay in the table, whose keys are in no run */
    bool table; /* there is one */
    /* the merge: the group that is added up */
    uint8_t *key; /* its key and display, in s.rest; large ones in `room` */
    size_t key_room;
    cbi_room room;
    uint32_t key_bytes;
    uint64_t first;
    uint64_t *state;
    bool any;
} big_states;

/* Room for a key with its columns, or for a row; what was there is lost. The runs are open. */
static cb_status need_key_room(big_states *b, size_t bytes, cb_error *err) {
    if (CBI_LIKELY(bytes <= b->key_room))
        return CB_OK;
    b->key_room = 0;
    CB_TRY(cbi_room_need(&b->room, b->s.w->job, b->runs.table.runs, bytes, err));
    b->key = b->room.bytes;
    b->key_room = b->room.size;
    return CB_OK;
}

/* The table's states -> runs. */
static cb_status flush_to_runs(big_states *b, cb_error *err) {
    states_work *s = &b->s;
    const cb_group *g = s->g;
    size_t columns = g->aggs->column_count, state_bytes = g->aggs->state_bytes;
    for (uint32_t i = 0; i < s->table.count; i++) {
        const group_entry *e = group_table_at(&s->table, i);
        size_t display = 0;
        if (g->display) {
            uint32_t bytes;
            const uint8_t *at = e->key + e->key_bytes + 4;
            display = (size_t)(cbi_varint_get(at, &bytes) - at) + bytes;
        }
        /* a row needs to lie in one piece: over the state of another one that is done with */
        size_t bytes = display + state_row_bytes(g);
        CB_TRY(need_key_room(b, bytes, err));
        uint8_t *row = b->key, *p = row;
        cbi_store_u32(p, GROUP_STATE_BIT);
        memcpy(p + 4, e->key + e->key_bytes + 4, display);
        p += 4 + display;
        cbi_store_u64(p, e->first);
        memcpy(p + 8, s->scales, columns);
        memcpy(p + 8 + columns, e->state, state_bytes);
        cbi_stored record = {.key = e->key,
                             .key_bytes = e->key_bytes,
                             .row = row,
                             .row_bytes = (uint32_t)bytes,
                             .order = e->first};
        CB_TRY(cbi_runs_add(&b->runs, &record, err));
    }
    group_table_empty(&s->table);
    return CB_OK;
}

/* A record that no table holds: it goes as it is. */
static cb_status record_to_runs(big_states *b, const waiting *r, cb_error *err) {
    cbi_stored record = r->record;
    record.order = r->payload.position;
    return cbi_runs_add(&b->runs, &record, err);
}

size_t group_states_least(const cb_group *g) {
    return overhead_bytes(g);
}

/* The state that is added up; room for a row (a third), and a table of at least one entry, but
 * where states are large. */
size_t group_states_wanted(const cb_group *g) {
    size_t row = state_row_bytes(g);
    return overhead_bytes(g) + cbi_round_up(g->aggs->state_bytes, 16) +
           3 * ((row > STATE_LARGE ? 0 : row) + KEY_USUAL);
}

static cb_status open_runs(big_states *b, uint32_t index, cb_error *err) {
    cbi_partition_info info;
    cbi_job *job = b->s.w->job;
    if (b->spilled)
        return CB_OK;
    cbi_partition_get_info(job->parts, index, &info);
    b->spilled = true;
    size_t each = sizeof(cbi_entry) + (b->large ? 0 : b->s.g->aggs->state_bytes);
    uint64_t need = info.segments * job->sizes.segment + info.rows * each;
    return cbi_runs_open(&b->runs, job, need, info.units_max, err);
}

static cb_status add_part(big_states *b, uint32_t index, cbi_segment *list, cb_error *err) {
    cbi_record_reader reader;
    waiting batch[GROUP_BATCH];
    cbi_record_reader_init(&reader, list);
    for (uint32_t n; (n = next_batch(&b->s, &reader, batch)) > 0;) {
        for (uint32_t i = 0; i < n; i++) {
            bool full = !b->table;
            if (b->table)
                CB_TRY(add_to_table(&b->s, &batch[i], &full, err));
            if (!full)
                continue;
            CB_TRY(open_runs(b, index, err));
            if (!b->large) {
                CB_TRY(flush_to_runs(b, err));
                CB_TRY(add_to_table(&b->s, &batch[i], &full, err));
            }
            if (full)
                CB_TRY(record_to_runs(b, &batch[i], err));
        }
    }
    return CB_OK;
}

static cb_status end_group(big_states *b, cb_error *err) {
    return b->any ? put_result(&b->s, b->first, b->key, b->key_bytes, b->state, err) : CB_OK;
}

static cb_status merged_record(void *ctx, const cbi_stored *record, cb_error *err) {
    big_states *b = ctx;
    states_work *s = &b->s;
    waiting r = {.record = *record};
    group_payload_get(s->g, record, group_run_order(record), &r.payload);
    bool same = b->any && b->key_bytes == record->key_bytes &&
                memcmp(b->key, record->key, record->key_bytes) == 0;
    if (!same) {
        CB_TRY(end_group(b, err));
        size_t display = !s->g->display
                             ? 0
                             : (size_t)(r.payload.display - record->row) + r.payload.display_bytes;
        CB_TRY(need_key_room(b, record->key_bytes + display, err));
        memcpy(b->key, record->key, record->key_bytes);
        memcpy(b->key + record->key_bytes, record->row, display);
        memset(b->state, 0, s->g->aggs->state_bytes);
        b->key_bytes = record->key_bytes;
        b->first = r.payload.position;
        b->any = true;
    }
    b->first = b->first < r.payload.position ? b->first : r.payload.position;
    return add_record(s, &r, b->state, err);
}

static cb_status states_big(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err) {
    cb_group *g = ctx;
    big_states b = {.spilled = false, .runs = {.job = w->job}};
    states_work *s = &b.s;
    CB_TRY(cbi_job_clear_memory(w->job, index, err));
    lay_out(s, g, w);
    size_t state_bytes = cbi_round_up(g->aggs->state_bytes, 16);
    if (group_states_wanted(g) > w->job->sizes.work)
        return cbi_fail_bytes(err, CB_EBUDGET, 0, w->job->sizes.work, /* no piece of the pages */
                              "the results of a group, which take %zu bytes while they are added "
                              "up, do not fit in %zu bytes of memory",
                              group_states_wanted(g), w->job->sizes.work);
    b.state = (uint64_t *)(void *)s->rest;
    b.key = s->rest + state_bytes;
    b.key_room = (s->rest_bytes - state_bytes) / 3 & ~(size_t)15;
    b.large = state_row_bytes(g) > STATE_LARGE;
    uint32_t entries =
        group_table_init(&s->table, b.key + b.key_room, s->rest_bytes - state_bytes - b.key_room,
                         g->aggs->state_bytes, SIZE_MAX / 2, 32);
    if (entries == 0)
        s->table.slots[0] = 0; /* of no slots the first is still looked up ahead */
    b.table = entries > 0 && !(b.large && g->display); /* a display may grow past what there is */
    cb_assert(b.table || b.large);
    cb_status status = CB_OK;
    while (status == CB_OK) {
        cbi_segment *list;
        status = cbi_partition_next_part(w->job->parts, index, &list, err);
        if (status != CB_OK || list == NULL)
            break;
        status = cbi_partition_prefetch(w->job->parts, index, 2, err);
        if (status == CB_OK)
            status = add_part(&b, index, list, err);
        cbi_segments_give(w->job->ground.pool, list);
        if (status == CB_OK && cbi_job_stopped(w->job))
            status = cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    if (status == CB_OK && b.table && (b.large || !b.spilled))
        status = put_results(s, err);
    if (status == CB_OK && b.spilled && !b.large)
        status = flush_to_runs(&b, err);
    if (status == CB_OK && b.spilled)
        status = cbi_runs_merge(&b.runs, merged_record, &b, err);
    if (status == CB_OK && b.spilled)
        status = end_group(&b, err);
    cbi_room_give(&b.room, w->job);
    cbi_runs_close(&b.runs);
    return status;
}

static bool lists_fit(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info) {
    (void)index;
    return group_lists_fit(ctx, info, job->sizes.work);
}

uint64_t group_part_hash(const cbi_job *job, const cbi_stored *record) {
    return cbi_job_hash(job, record->key, record->key_bytes);
}

cb_status group_work(cb_group *g, cb_error *err) {
    cbi_job *job = &g->job;
    CB_TRY(cbi_job_open_partitions(job, job->sizes.ranges, &job->results, err));
    cbi_job_phase(job, CB_PHASE_MERGE);
    cbi_job_pass pass = {.parts = job->parts,
                         .count = job->sizes.parts,
                         .ctx = g,
                         .fits = g->aggs->lists ? lists_fit : states_fit,
                         .work = g->aggs->lists ? group_lists_work : states_work_on,
                         .big = g->aggs->lists ? group_lists_big : states_big,
                         .hash = group_part_hash,
                         /* texts have room for their quotes while they are put together */
                         .result_times = g->aggs->lists ? 3 : 2};
    job->short_keys = !g->sorted;
    return cbi_job_each(job, &pass, job->results, job->sizes.ranges, err);
}
