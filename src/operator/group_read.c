/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_block.h"

#include <stdio.h>

#include "base/alloc.h"

/*
 * The read pass: rows in, records out.
 *
 * Where groups are few, rows are added to a small table first, and only its states go on to the
 * partitions. The table lies in segments that rows will want later. When it is full it is looked
 * at: if it has taken in less than twice as many rows as it has groups it was not worth it, and
 * from then on each row goes to its partition by itself; otherwise it is emptied and goes on.
 *
 * Rows are looked at in batches: first all keys are found and hashed, then their places in the
 * table are fetched from memory at the same time, then they are used. One after the other each
 * would wait for memory alone.
 */

enum { TABLE_WORTH = 2, TABLE_MAX_BYTES = 96 << 20 };

/* ---- one row ---- */

typedef struct found_key {
    const uint8_t *key;
    uint32_t key_bytes;
    uint32_t number; /* of the row in its chunk */
    uint32_t index;  /* of the row among those scanned */
    uint64_t hash;
} found_key;

static group_row row_at(const cbi_job_worker *w, uint32_t i) {
    const group_worker *own = w->own;
    const cbi_rows *rows = &w->rows;
    const cbi_span *fields =
        own->group->delimited ? rows->fields + i * rows->field_count : own->line_fields;
    return (group_row){.base = rows->base, .row = rows->rows[i], .fields = fields};
}

/* Field `number` (from 0) of a line. */
static cbi_span line_field(const cb_group *g, const uint8_t *base, cbi_span row, uint32_t number) {
    const uint8_t *p = base + row.offset, *end = p + row.bytes, *from;
    if (g->line_separator >= 0) {
        while (number > 0 && (from = memchr(p, g->line_separator, (size_t)(end - p))) != NULL) {
            p = from + 1;
            number--;
        }
        if (number > 0)
            return (cbi_span){.offset = (uint32_t)(end - base), .bytes = 0};
        const uint8_t *to = memchr(p, g->line_separator, (size_t)(end - p));
        return (cbi_span){.offset = (uint32_t)(p - base),
                          .bytes = (uint32_t)((to != NULL ? to : end) - p)};
    }
    for (;; number--) {
        while (p < end && (*p == ' ' || *p == '\t'))
            p++;
        from = p;
        while (p < end && *p != ' ' && *p != '\t')
            p++;
        if (number == 0 || p == end)
            break;
    }
    if (number > 0)
        from = end;
    return (cbi_span){.offset = (uint32_t)(from - base), .bytes = (uint32_t)(p - from)};
}

static void find_line_fields(cbi_job_worker *w, uint32_t i) {
    group_worker *own = w->own;
    const cb_group *g = own->group;
    if (g->delimited)
        return;
    for (size_t k = 0; k < g->column_count; k++)
        own->line_fields[k] = line_field(g, w->rows.base, w->rows.rows[i], g->columns[k]);
}

/* The normalised key: its size, at most `cap` bytes of it written. */
static size_t typed_key(cbi_job_worker *w, uint32_t i, uint8_t *out, size_t cap) {
    group_worker *own = w->own;
    const cb_group *g = own->group;
    group_row row = row_at(w, i);
    cbi_rows rows = {.base = w->rows.base,
                     .count = 1,
                     .capacity = 1,
                     .rows = &w->rows.rows[i],
                     .fields = own->typed_fields,
                     .field_count = g->delimited ? g->typed_count : 0};
    for (size_t k = 0; k < rows.field_count; k++)
        own->typed_fields[k] = row.fields[g->typed_slots[k]];
    return cbi_keys_encode(g->typed, &rows, 0, out, cap);
}

static uint8_t *put_payload(cbi_job_worker *w, const group_row *row, const cbi_value *values,
                            uint32_t number, size_t display_bytes, uint8_t *p) {
    const cb_group *g = ((group_worker *)w->own)->group;
    cbi_store_u32(p, number);
    p += 4;
    if (g->display) {
        p = cbi_varint_put(p, (uint32_t)display_bytes);
        p = group_put_display(g, row, p);
    }
    return group_put_body(g, row, values, p);
}

/* The row's bytes are known when they are written; their number stands before them. It takes as
 * many bytes as a bound of it does. */
static uint8_t *put_row_bytes(uint8_t *p, uint32_t bytes, size_t width) {
    for (size_t i = 1; i < width; i++) {
        *p++ = (uint8_t)(bytes | 0x80);
        bytes >>= 7;
    }
    *p++ = (uint8_t)(bytes & 0x7f);
    return p;
}

static cb_status too_large(size_t bytes, cb_error *err) {
    return cbi_fail(err, CB_EUNSUPPORTED, "a row needs a record of %zu bytes; they may have %llu",
                    bytes, (unsigned long long)CBI_STORED_MAX);
}

/* The key in its brief form, what it takes before it; answers where it begins. There is room for
 * the text and 11 bytes. */
static uint8_t *put_brief_key(const cb_group *g, const found_key *k, const group_row *row,
                              size_t text_bytes, uint8_t *p, size_t *key_bytes) {
    uint8_t text[CBI_BRIEF_TEXT_MAX], brief[CBI_BRIEF_TEXT_MAX + 1 + CBI_BRIEF_SLACK];
    const uint8_t *from = k->key;
    if (text_bytes > CBI_BRIEF_TEXT_MAX) { /* its brief form is a mark and the text */
        *key_bytes = cbi_brief_most(text_bytes);
        p = cbi_varint_put(p, (uint32_t)*key_bytes);
        p[0] = CBI_BRIEF_MARK;
        if (from != NULL)
            memcpy(p + 1, from, text_bytes);
        else
            (void)group_put_display(g, row, p + 1);
        return p;
    }
    if (from == NULL) {
        (void)group_put_display(g, row, text);
        from = text;
    }
    *key_bytes = cbi_brief_put(&g->alphabet, from, text_bytes, brief);
    p = cbi_varint_put(p, (uint32_t)*key_bytes);
    memcpy(p, brief, *key_bytes);
    return p;
}

/* A record of one row into its partition. A key of NULL is still to be made. */
static cb_status put_row(cbi_job_worker *w, found_key *k, const cbi_value *values, cb_error *err) {
    const cb_group *g = ((group_worker *)w->own)->group;
    group_row row = row_at(w, k->index);
    bool measure = g->display || (g->plain && k->key == NULL);
    size_t display = measure ? group_display_bytes(g, &row) : 0;
    size_t key_bytes = k->key != NULL ? k->key_bytes
                       : g->plain     ? display
                                      : typed_key(w, k->index, NULL, 0);
    size_t payload = group_row_payload_bytes(g, &row, display);
    if (payload + key_bytes + 10 > CBI_STORED_MAX)
        return too_large(payload + key_bytes, err);
    size_t width = cbi_varint_bytes((uint32_t)payload);
    uint8_t *start, *p;
    cbi_batch *b = &w->batch;
    CB_TRY(cbi_batch_begin(b, 0, payload + key_bytes + 11, &start, err));
    p = start + width;
    if (g->brief) {
        p = put_brief_key(g, k, &row, key_bytes, p, &key_bytes);
    } else {
        p = cbi_varint_put(p, (uint32_t)key_bytes);
        if (k->key != NULL)
            memcpy(p, k->key, key_bytes);
        else if (g->plain)
            (void)group_put_display(g, &row, p);
        else
            (void)typed_key(w, k->index, p, key_bytes);
    }
    uint64_t hash = k->key != NULL && !g->brief ? k->hash : cbi_job_hash(w->job, p, key_bytes);
    b->dest[b->count] = cbi_job_part(hash, b->parts);
    uint8_t *body = p + key_bytes;
    uint8_t *end = put_payload(w, &row, values, k->number, display, body);
    (void)put_row_bytes(start, (uint32_t)(end - body), width);
    return cbi_batch_end(b, end, err);
}

/* ---- numbers that do not fit ---- */

/*
 * Whether a sum fits must not depend on where it was made: in a table at the scale of the numbers
 * so far two large ones may cancel before a small one comes, as records at the scale of all of
 * them they may not. So it is not asked of groups: the largest number of a column must fit at the
 * scale of its finest one, then everything does that is kept of them on any way (and sums are
 * looked at when they are written down, cbi_state_format).
 */

static cb_status scales_differ(const cb_group *g, size_t column, cb_error *err) {
    return cbi_fail(err, CB_EDATA,
                    "the numbers of column '%.80s' do not fit in 128 bits together: some are too "
                    "large for so many decimal places as others have; as floats (COLUMN:float) "
                    "they do fit",
                    g->aggs->columns[column].name);
}

/* `largest` from one scale to another that is not smaller; false: not in 128 bits. */
static bool raise_largest(cbi_i128 *largest, unsigned by, bool reckons) {
    return !reckons || cbi_decimal_shift(*largest, by, largest);
}

/* The column's scale has been noted. */
static inline bool note_number(const group_worker *own, size_t column, cbi_i128 v, unsigned scale) {
    cbi_i128 magnitude = v < 0 ? -v : v;
    if (!own->reckons[column])
        return true;
    if (!raise_largest(&magnitude, own->scales_seen[column] - scale, own->reckons[column]))
        return false;
    if (magnitude > own->largest[column])
        own->largest[column] = magnitude;
    return true;
}

static cb_status note_scale(const group_worker *own, size_t column, uint8_t scale, cb_error *err) {
    if (scale <= own->scales_seen[column])
        return CB_OK;
    unsigned by = (unsigned)scale - own->scales_seen[column];
    own->scales_seen[column] = scale;
    return raise_largest(&own->largest[column], by, own->reckons[column])
               ? CB_OK
               : scales_differ(own->group, column, err);
}

/* What a worker has seen of its rows. */
static cb_status tell_group(const group_worker *own, cb_error *err) {
    cb_group *g = own->group;
    for (size_t i = 0; i < g->aggs->column_count; i++) {
        uint8_t mine = own->scales_seen[i], scale = (uint8_t)cbi_max(mine, g->scales[i]);
        bool fits = raise_largest(&own->largest[i], (unsigned)scale - mine, own->reckons[i]) &&
                    raise_largest(&g->largest[i], (unsigned)scale - g->scales[i], own->reckons[i]);
        if (!fits)
            return scales_differ(g, i, err);
        if (own->largest[i] > g->largest[i])
            g->largest[i] = own->largest[i];
        g->scales[i] = scale;
    }
    return CB_OK;
}

/* ---- the table ---- */

cb_status group_put_state(cb_group *g, cbi_batch *batch, const group_table *t, const group_entry *e,
                          cb_error *err) {
    size_t columns = g->aggs->column_count, display = 0;
    const uint8_t *kept = e->key + e->key_bytes + 4;
    if (g->display) {
        uint32_t bytes;
        display = (size_t)(cbi_varint_get(kept, &bytes) - kept) + bytes;
    }
    size_t row = 4 + display + 8 + columns + g->aggs->state_bytes;
    uint8_t *p;
    uint32_t dest = cbi_job_part(cbi_job_hash(&g->job, e->key, e->key_bytes), batch->parts);
    CB_TRY(cbi_batch_begin(batch, dest, cbi_record_bytes(e->key_bytes, (uint32_t)row), &p, err));
    p = cbi_record_put_key(p, e->key, e->key_bytes, (uint32_t)row);
    cbi_store_u32(p, GROUP_STATE_BIT);
    p += 4;
    memcpy(p, kept, display);
    p += display;
    cbi_store_u64(p, e->first);
    p += 8;
    memcpy(p, t->scales, columns);
    p += columns;
    memcpy(p, e->state, g->aggs->state_bytes);
    return cbi_batch_end(batch, p + g->aggs->state_bytes, err);
}

static cb_status flush_table(cbi_job_worker *w, cb_error *err) {
    group_worker *own = w->own;
    group_table *t = &own->table;
    for (uint32_t i = 0; i < t->count; i++)
        CB_TRY(group_put_state(own->group, &w->batch, t, group_table_at(t, i), err));
    group_table_empty(t);
    own->rows_since = 0;
    return CB_OK;
}

static void give_table(cbi_job_worker *w) {
    group_worker *own = w->own;
    if (own->table_base != NULL)
        cb_segment_pool_give(w->job->ground.pool, own->table_base, own->table_units);
    own->table_base = NULL;
    own->tables = false;
    if (own->block != NULL)
        own->block->table_on = false;
}

static cb_status table_is_full(cbi_job_worker *w, cb_error *err) {
    group_worker *own = w->own;
    bool worth = own->rows_since >= (uint64_t)own->table.count * TABLE_WORTH;
    CB_TRY(flush_table(w, err));
    if (!worth)
        give_table(w);
    return CB_OK;
}

static void take_table(cbi_job_worker *w) {
    group_worker *own = w->own;
    cb_group *g = own->group;
    const cbi_job_sizes *z = &w->job->sizes;
    if (g->aggs->lists)
        return;
    /* the rest is for what is odd, or is no help in a table; a giant row gets it back (yield) */
    size_t units = z->segments / 16 * 13 / z->threads;
    units = cbi_min(units, TABLE_MAX_BYTES / z->segment);
    if (g->table_units_max > 0)
        units = cbi_min(units, g->table_units_max);
    own->table_base = units > 0 ? cb_segment_pool_take(w->job->ground.pool, units) : NULL;
    own->table_units = units;
    if (own->table_base == NULL)
        return;
    size_t key = 24 + (g->display ? 16 : 0), bytes = units * z->segment;
    if (own->block != NULL) {
        group_block *b = own->block;
        b->table_on =
            narrow_table_init(&b->table, own->table_base, bytes, b->narrow.words, w->job->seed);
        if (!b->table_on)
            give_table(w);
        return;
    }
    own->tables = group_table_init(&own->table, own->table_base, bytes, g->aggs->state_bytes,
                                   SIZE_MAX / 2, key) >= 16;
    if (!own->tables)
        give_table(w);
}

/* A column's numbers have more places than before. */
static cb_status raise_table(cbi_job_worker *w, size_t column, uint8_t scale, cb_error *err) {
    group_worker *own = w->own;
    group_table *t = &own->table;
    unsigned by = (unsigned)scale - t->scales[column];
    for (uint32_t i = 0; i < t->count; i++) {
        group_entry *e = group_table_at(t, i);
        if (!cbi_state_raise(own->group->aggs, e->state, column, by))
            return group_overflow(own->group, e->key, e->key_bytes, column, err);
    }
    t->scales[column] = scale;
    return CB_OK;
}

static group_entry *new_entry(cbi_job_worker *w, const found_key *k, size_t place) {
    group_worker *own = w->own;
    const cb_group *g = own->group;
    group_row row = {.base = NULL};
    size_t copy = k->key_bytes, display = 0;
    if (g->display) {
        row = row_at(w, k->index);
        display = group_display_bytes(g, &row);
        copy += 4 + cbi_varint_bytes((uint32_t)display) + display;
    }
    /* a key without bytes is still something to copy */
    group_entry *e = group_table_add(&own->table, k->hash, k->key, k->key_bytes, copy, place);
    if (e == NULL)
        return NULL;
    e->first = own->base + k->number;
    uint8_t *p = own->table.keys;
    memcpy(p, k->key, k->key_bytes);
    if (g->display) {
        p = cbi_varint_put(p + k->key_bytes + 4, (uint32_t)display);
        (void)group_put_display(g, &row, p);
    }
    return e;
}

static cb_status add_to_table(cbi_job_worker *w, found_key *k, const cbi_value *values,
                              cb_error *err) {
    group_worker *own = w->own;
    size_t place = 0, column = 0;
    group_entry *e = group_table_find(&own->table, k->hash, k->key, k->key_bytes, &place);
    if (e == NULL && (e = new_entry(w, k, place)) == NULL) {
        if (own->table.count == 0) /* a key larger than the table */
            return put_row(w, k, values, err);
        CB_TRY(table_is_full(w, err));
        return own->tables ? add_to_table(w, k, values, err) : put_row(w, k, values, err);
    }
    own->rows_since++;
    if (!cbi_state_add(own->group->aggs, own->table.scales, e->state, values, &column))
        return group_overflow(own->group, e->key, e->key_bytes, column, err);
    return CB_OK;
}

/* ---- batches of rows ---- */

static cb_status use_batch(cbi_job_worker *w, found_key *keys, uint32_t count, cb_error *err) {
    group_worker *own = w->own;
    size_t columns = own->group->aggs->column_count;
    if (own->tables) {
        for (uint32_t j = 0; j < count; j++)
            group_table_prefetch(&own->table, keys[j].hash);
        for (uint32_t j = 0; j < count; j++)
            group_table_prefetch_entry(&own->table, keys[j].hash);
        for (uint32_t j = 0; j < count; j++)
            group_table_prefetch_key(&own->table, keys[j].hash);
    }
    for (uint32_t j = 0; j < count; j++) {
        const cbi_value *values = own->values + j * columns;
        find_line_fields(w, keys[j].index);
        if (own->tables && keys[j].key_bytes <= GROUP_KEY_MAX / 4) {
            CB_TRY(add_to_table(w, &keys[j], values, err));
            continue;
        }
        CB_TRY(put_row(w, &keys[j], values, err));
    }
    return CB_OK;
}

static cb_status note_scales(cbi_job_worker *w, const cbi_value *values, cb_error *err) {
    group_worker *own = w->own;
    const cbi_aggregates *a = own->group->aggs;
    for (size_t i = 0; i < a->column_count; i++) {
        if (!a->columns[i].number || values[i].null)
            continue;
        const cbi_decimal *d = &values[i].number;
        if (CBI_UNLIKELY(d->scale > own->scales_seen[i])) {
            CB_TRY(note_scale(own, i, d->scale, err));
            if (own->tables)
                CB_TRY(raise_table(w, i, d->scale, err));
        }
        if (CBI_UNLIKELY(!note_number(own, i, d->value, d->scale)))
            return scales_differ(own->group, i, err);
    }
    return CB_OK;
}

static cb_status bad_value(cbi_job_worker *w, const group_row *row, cbi_number_kind kind,
                           size_t column, cb_error *err) {
    const cb_group *g = ((group_worker *)w->own)->group;
    const cbi_agg_column *c = &g->aggs->columns[column];
    cbi_span span = c->row ? row->row : row->fields[c->slot];
    char what[256];
    snprintf(
        what, sizeof what, "'%.*s' in column '%.80s' %s", (int)cbi_min(CBI_SPAN_BYTES(span), 60),
        (const char *)row->base + span.offset, c->name,
        kind == CBI_NUMBER_BAD
            ? "is no number"
            : "is a number that 38 decimal digits do not hold; as a float (COLUMN:float) it can be "
              "reckoned with");
    return cbi_input_bad_value(w->input, &w->chunk, row->row, span.offset, what, err);
}

/* The key of row k->index: in the row itself, or in own->key_memory from *used on. NULL: no room.
 */
static void find_key(cbi_job_worker *w, const group_row *row, found_key *k, size_t *used) {
    group_worker *own = w->own;
    const cb_group *g = own->group;
    uint8_t *at = own->key_memory + *used;
    size_t room = GROUP_KEY_MAX - *used, bytes;
    if (g->row_is_key) {
        k->key = row->base + row->row.offset;
        k->key_bytes = row->row.bytes;
        k->hash = cbi_job_hash(w->job, k->key, k->key_bytes);
        return;
    }
    if (g->plain) {
        bytes = group_display_bytes(g, row);
        if (bytes <= room)
            (void)group_put_display(g, row, at);
    } else {
        bytes = typed_key(w, k->index, at, room);
    }
    k->key = bytes <= room ? at : NULL;
    k->key_bytes = (uint32_t)cbi_min(bytes, UINT32_MAX);
    if (k->key != NULL) {
        *used += bytes;
        k->hash = cbi_job_hash(w->job, k->key, bytes);
    }
}

static cb_status use_rows(cbi_job_worker *w, uint32_t from, uint32_t to, uint64_t *number,
                          cb_error *err) {
    group_worker *own = w->own;
    const cb_group *g = own->group;
    found_key keys[GROUP_BATCH];
    uint32_t count = 0;
    size_t used = 0, columns = g->aggs->column_count;
    for (uint32_t i = from; i < to; i++) {
        cbi_value *values = own->values + count * columns;
        find_line_fields(w, i);
        group_row row = row_at(w, i);
        size_t bad = 0;
        cbi_number_kind kind = group_read_values(g, &row, values, &bad);
        if (CBI_UNLIKELY(kind != CBI_NUMBER)) {
            CB_TRY(bad_value(w, &row, kind, bad, err));
            continue;
        }
        CB_TRY(note_scales(w, values, err));
        found_key *k = &keys[count];
        k->index = i;
        k->number =
            g->places ? (uint32_t)(group_position_at(g, w, i) - own->base) : (uint32_t)*number;
        cb_assert(++*number < GROUP_STATE_BIT);
        find_key(w, &row, k, &used);
        if (CBI_UNLIKELY(k->key == NULL)) { /* those before it first, then by itself */
            found_key large = *k;
            memcpy(own->values + GROUP_BATCH * columns, values, columns * sizeof *values);
            CB_TRY(use_batch(w, keys, count, err));
            count = 0;
            used = 0;
            find_line_fields(w, i);
            CB_TRY(put_row(w, &large, own->values + GROUP_BATCH * columns, err));
            continue;
        }
        if (++count == GROUP_BATCH) {
            CB_TRY(use_batch(w, keys, count, err));
            count = 0;
            used = 0;
        }
    }
    return use_batch(w, keys, count, err);
}

/* ---- blocks of rows ---- */

/* A record of each row from `from` on into its partition. */
static cb_status put_block(cbi_job_worker *w, uint32_t from, cb_error *err) {
    group_block *b = ((group_worker *)w->own)->block;
    const cb_group *g = ((group_worker *)w->own)->group;
    if (g->brief)
        group_block_brief(b, g, from);
    size_t payload = 4 + g->packed_max, width = cbi_varint_bytes((uint32_t)payload);
    for (uint32_t i = from; i < b->count; i++) {
        uint32_t key_bytes = b->key_bytes[i];
        const uint8_t *key = b->key[i];
        uint8_t *start;
        uint32_t dest = cbi_job_part(cbi_job_hash(w->job, key, key_bytes), w->batch.parts);
        CB_TRY(cbi_batch_begin(&w->batch, dest, payload + key_bytes + 10, &start, err));
        uint8_t *p = cbi_varint_put(start + width, key_bytes);
        cbi_copy_short(p, key, key_bytes);
        uint8_t *body = p + key_bytes;
        cbi_store_u32(body, b->number[i]);
        p = body + 4;
        for (size_t c = 0; c < g->aggs->column_count; c++) {
            const cbi_decimal d = {.value = b->values[c * GROUP_BLOCK + i],
                                   .scale = (uint8_t)b->narrow.columns[c].want.scale};
            p = b->nulls[c * GROUP_BLOCK + i] ? cbi_packed_put_null(p) : cbi_packed_put(p, &d);
        }
        (void)put_row_bytes(start, (uint32_t)(p - body), width);
        CB_TRY(cbi_batch_end(&w->batch, p, err));
    }
    return CB_OK;
}

/* The narrow table's groups go to their partitions. */
static cb_status flush_narrow(cbi_job_worker *w, cb_error *err) {
    group_worker *own = w->own;
    group_block *b = own->block;
    size_t columns = own->group->aggs->column_count, state_bytes = own->group->aggs->state_bytes;
    uint32_t row = (uint32_t)(4 + 8 + columns + state_bytes);
    for (uint32_t i = 0; i < b->table.count; i++) {
        const narrow_entry *e = narrow_table_at(&b->table, i);
        const uint8_t *key = narrow_entry_key(e);
        uint32_t key_bytes = e->key_bytes;
        if (own->group->brief)
            group_block_brief_one(b, own->group, &key, &key_bytes);
        uint32_t dest = cbi_job_part(cbi_job_hash(w->job, key, key_bytes), w->batch.parts);
        uint8_t *p;
        CB_TRY(cbi_batch_begin(&w->batch, dest, cbi_record_bytes(key_bytes, row), &p, err));
        p = cbi_record_put_key(p, key, key_bytes, row);
        cbi_store_u32(p, GROUP_STATE_BIT);
        cbi_store_u64(p + 4, e->first);
        p += 12;
        for (size_t c = 0; c < columns; c++)
            *p++ = (uint8_t)b->narrow.columns[c].want.scale;
        cbi_narrow_widen(&b->narrow, e->state, e->rows, own->state);
        memcpy(p, own->state, state_bytes);
        CB_TRY(cbi_batch_end(&w->batch, p + state_bytes, err));
    }
    narrow_table_empty(&b->table);
    return CB_OK;
}

/* From now on the column has numbers of that scale; its rows are read again. */
static cb_status rescale_block(cbi_job_worker *w, const uint8_t *above, bool *again,
                               cb_error *err) {
    enum { SCALE_MAX = 9 }; /* beyond it little would be left for what stands before the point */
    group_worker *own = w->own;
    group_block *b = own->block;
    *again = false;
    for (size_t c = 0; c < own->group->aggs->column_count; c++) {
        if (CBI_LIKELY(above[c] <= b->narrow.columns[c].want.scale || above[c] > SCALE_MAX))
            continue;
        if (b->table_on)
            CB_TRY(flush_narrow(w, err));
        cbi_narrow_rescale(&b->narrow, c, above[c]);
        CB_TRY(note_scale(own, c, above[c], err));
        *again = true;
    }
    return CB_OK;
}

/* Odd ones have been dropped. */
static cb_status note_block(const group_worker *own, cb_error *err) {
    const group_block *b = own->block;
    for (size_t c = 0; c < own->group->aggs->column_count; c++) {
        const int64_t *values = b->values + c * GROUP_BLOCK;
        int64_t most = 0, least = 0;
        if (!own->reckons[c])
            continue;
        for (uint32_t i = 0; i < b->count; i++) {
            most = values[i] > most ? values[i] : most;
            least = values[i] < least ? values[i] : least;
        }
        unsigned scale = b->narrow.columns[c].want.scale;
        if (!note_number(own, c, most, scale) || !note_number(own, c, least, scale))
            return scales_differ(own->group, c, err);
    }
    return CB_OK;
}

/* The block's rows go into the table while there is one, then into partitions. */
static cb_status add_block(cbi_job_worker *w, cb_error *err) {
    group_block *b = ((group_worker *)w->own)->block;
    uint32_t done = 0;
    while (b->table_on) {
        done = narrow_table_add(b, done, ((group_worker *)w->own)->base);
        if (done == b->count)
            return CB_OK;
        bool worth = b->table.count > 0 && narrow_table_worth(&b->table);
        CB_TRY(flush_narrow(w, err));
        if (!worth)
            give_table(w);
    }
    return put_block(w, done, err);
}

static cb_status use_block(cbi_job_worker *w, uint32_t from, uint32_t count, uint32_t number,
                           uint64_t *rows, cb_error *err) {
    group_worker *own = w->own;
    group_block *b = own->block;
    size_t columns = own->group->aggs->column_count;
    uint8_t above[CBI_NARROW_COLUMNS_MAX] = {0};
    for (bool again = true; again;) {
        size_t end = (size_t)(w->chunk.rows + w->chunk.bytes - w->rows.base);
        group_block_read(b, own->group, &w->rows, end, from, count, number, own->key_memory,
                         GROUP_KEY_MAX, above);
        for (uint32_t i = 0; own->group->places && i < count; i++)
            b->number[i] =
                (uint32_t)(group_position_of(w, from + i, b->slice[i] ? b->key[i] : NULL) -
                           own->base);
        CB_TRY(rescale_block(w, above, &again, err));
    }
    bool odd = memchr(b->odd, 1, count) != NULL;
    if (CBI_UNLIKELY(odd))
        group_block_drop_odd(b, columns);
    *rows += b->count;
    CB_TRY(note_block(own, err));
    CB_TRY(add_block(w, err));
    for (uint32_t i = 0; CBI_UNLIKELY(odd) && i < count; i++) { /* they need the keys' memory */
        uint64_t next = number + i;
        if (!b->odd[i])
            continue;
        CB_TRY(use_rows(w, from + i, from + i + 1, &next, err));
        *rows += next - number - i;
    }
    return CB_OK;
}

/* Rows [from, to) of those scanned. */
static cb_status use_range(cbi_job_worker *w, uint32_t from, uint32_t to, uint64_t *number,
                           uint64_t *rows, cb_error *err) {
    const group_worker *own = w->own;
    uint64_t before = *number;
    if (own->block == NULL) {
        CB_TRY(use_rows(w, from, to, number, err));
        *rows += *number - before;
        return CB_OK;
    }
    *number += to - from;
    cb_assert(*number < GROUP_STATE_BIT);
    for (uint32_t i = from; i < to; i += GROUP_BLOCK)
        CB_TRY(use_block(w, i, (uint32_t)cbi_min(to - i, GROUP_BLOCK),
                         (uint32_t)before + (i - from), rows, err));
    return CB_OK;
}

static cb_status use_scanned(cbi_job_worker *w, uint64_t *number, uint64_t *rows, cb_error *err) {
    group_worker *own = w->own;
    uint32_t count = (uint32_t)w->rows.count;
    if (own->group->places)
        group_late_note(own->group, w, &own->range);
    if (!own->group->places || w->big == NULL)
        return use_range(w, 0, count, number, rows, err);
    for (uint32_t i = 0; i < count; i++) { /* a row's number may not reach from one to the next */
        CB_TRY(cbi_batch_flush(&w->batch, err));
        w->batch.order = own->base = group_position_at(own->group, w, i) & ~(uint64_t)1;
        CB_TRY(use_range(w, i, i + 1, number, rows, err));
    }
    return CB_OK;
}

static cb_status read_chunk(cbi_job_worker *w, cb_error *err) {
    cb_group *g = ((group_worker *)w->own)->group;
    uint64_t number = 0, rows = 0;
    size_t at = 0;
    CB_TRY(cbi_batch_flush(&w->batch, err));
    group_worker *own = w->own;
    own->base = g->places ? w->chunk.file_offset << 1 : w->chunk.sequence << CBI_ORDER_ROW_BITS;
    own->range = UINT32_MAX;
    w->batch.order = own->base;
    unsigned long long seen = atomic_load(&g->chunks);
    while (seen < w->chunk.sequence + 1 &&
           !atomic_compare_exchange_weak(&g->chunks, &seen, w->chunk.sequence + 1)) {
    }
    for (;;) {
        CB_TRY(cbi_job_next_rows(w, &at, err));
        if (w->rows.count == 0)
            break;
        CB_TRY(use_scanned(w, &number, &rows, err));
        if (cbi_job_stopped(w->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    atomic_fetch_add_explicit(&w->job->rows_in, rows, memory_order_relaxed);
    return cbi_partitions_relieve(w->job->parts, err);
}

/* ---- the pass ---- */

static void *carve(uint8_t **at, size_t bytes) {
    uint8_t *piece = *at;
    *at += cbi_round_up(bytes, 16);
    return piece;
}

size_t group_worker_bytes(const cb_group *g) {
    size_t columns = g->aggs->column_count;
    return GROUP_KEY_MAX + g->typed_count * sizeof(cbi_span) +
           (GROUP_BATCH + 1) * columns * sizeof(cbi_value) + g->aggs->state_bytes +
           columns * (3 + sizeof(cbi_i128)) + g->column_count * sizeof(cbi_span) +
           sizeof(group_worker) + 12 * 16 +
           (group_block_possible(g) ? sizeof(group_block) + group_block_bytes(g) : 0);
}

/* For good: where rows are so large nothing is won by a table. */
static cb_status yield_table(cbi_job_worker *w, cb_error *err) {
    group_worker *own = w->own;
    if (own->tables)
        CB_TRY(flush_table(w, err));
    if (own->block != NULL && own->block->table_on)
        CB_TRY(flush_narrow(w, err));
    CB_TRY(cbi_batch_flush(&w->batch, err));
    give_table(w);
    return CB_OK;
}

static void lay_out_worker(cbi_job_worker *w, cb_group *g) {
    uint8_t *at = w->extra;
    size_t columns = g->aggs->column_count;
    at += -(uintptr_t)at & 15;
    group_worker *own = carve(&at, sizeof *own);
    *own = (group_worker){.group = g};
    own->values = carve(&at, (GROUP_BATCH + 1) * columns * sizeof(cbi_value));
    own->state = carve(&at, g->aggs->state_bytes);
    own->key_memory = carve(&at, GROUP_KEY_MAX);
    own->typed_fields = carve(&at, g->typed_count * sizeof(cbi_span));
    own->line_fields = carve(&at, g->column_count * sizeof(cbi_span));
    own->scales_seen = carve(&at, columns);
    uint8_t *scales = carve(&at, columns);
    own->reckons = carve(&at, columns * sizeof *own->reckons);
    own->largest = carve(&at, columns * sizeof *own->largest);
    memset(own->reckons, 0, columns * sizeof *own->reckons);
    memset(own->largest, 0, columns * sizeof *own->largest);
    for (size_t i = 0; !g->aggs->lists && i < columns; i++) /* lists are made of all rows at once */
        own->reckons[i] = cbi_agg_column_reckons(g->aggs, i);
    memset(own->scales_seen, 0, columns);
    memset(scales, 0, columns);
    if (group_block_possible(g)) {
        own->block = carve(&at, sizeof *own->block);
        group_block_init(own->block, g, carve(&at, group_block_bytes(g)));
        memcpy(own->scales_seen, g->sample_scales, columns);
    }
    w->own = own;
    w->yield = yield_table;
    take_table(w);
    own->table.scales = scales;
}

static cb_status read_all(cbi_job_worker *w, cb_error *err) {
    group_worker *own = w->own;
    while (!cbi_job_stopped(w->job)) {
        CB_TRY(cbi_job_next_chunk(w, err));
        if (w->chunk.bytes == 0)
            break;
        CB_TRY(read_chunk(w, err));
    }
    if (cbi_job_stopped(w->job))
        return cbi_fail(err, CB_ECANCELED, "cancelled");
    if (own->tables)
        CB_TRY(flush_table(w, err));
    if (own->block != NULL && own->block->table_on)
        CB_TRY(flush_narrow(w, err));
    return cbi_batch_flush(&w->batch, err);
}

static void read_worker(void *ctx) {
    cbi_job_worker *w = ctx;
    cbi_job *job = w->job;
    cb_group *g = (cb_group *)(void *)((uint8_t *)job - offsetof(cb_group, job));
    cb_error err;
    cbi_job_read_layout(w, job->input, g->columns, g->delimited ? g->column_count : 0, job->parts,
                        job->sizes.parts);
    lay_out_worker(w, g);
    cb_status status = read_all(w, &err);
    cbi_job_end_input(w);
    give_table(w);
    group_worker *own = w->own;
    cbi_mutex_lock(&job->mutex);
    if (status == CB_OK)
        status = tell_group(own, &err);
    cbi_mutex_unlock(&job->mutex);
    w->own = NULL;
    w->yield = NULL;
    if (status != CB_OK && !cbi_job_stopped(job))
        cbi_job_fail(job, status, &err);
}

cb_status group_read(cb_group *g, cb_error *err) {
    cbi_job *job = &g->job;
    CB_TRY(cbi_job_open_partitions(job, job->sizes.parts, &job->parts, err));
    cbi_job_phase(job, CB_PHASE_READ);
    return cbi_job_in_workers(job, job->sizes.threads, read_worker, err);
}
