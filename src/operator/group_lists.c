/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_lists.h"

/*
 * The work pass for aggregates that need the rows of their group. Pieces of the partition are put
 * in input order, each record gets the number of its group from a table, and a counting sort puts
 * the rows of each group side by side, still in input order. Nothing is copied but references.
 * (Lists of numbers only have a faster way, group_columns.c.)
 *
 *     | evaluation | rows by group | group of each row | bodies in input order | table | scratch |
 *
 * The list of pieces lies where the scratch will be.
 */

typedef struct lists_work {
    cb_group *g;
    cbi_job_worker *w;
    list_eval eval;
    const uint8_t **sorted; /* bodies, group by group */
    const uint8_t **bodies; /* in input order */
    uint32_t *group_of;
    group_table table;
    size_t rows;
} lists_work;

size_t group_list_table_bytes(uint64_t rows) {
    uint64_t slots = 16;
    while (slots < rows + rows / 2)
        slots *= 2;
    return (size_t)(slots * 8 + (rows + 1) * (sizeof(group_entry) + sizeof(uint64_t)));
}

static size_t lists_bytes(const cb_group *g, uint64_t rows) {
    return list_eval_bytes(g) + (size_t)rows * (2 * sizeof(void *) + sizeof(uint32_t)) +
           group_list_table_bytes(rows) + (size_t)(rows + 1) * LIST_ROW_BYTES + 256;
}

size_t group_lists_least(const cb_group *g) {
    return list_eval_bytes(g) + 16 * CBI_KIB;
}

bool group_lists_fit(const cb_group *g, const cbi_partition_info *info, size_t bytes) {
    return info->rows < UINT32_MAX / 2 && info->pieces <= info->rows &&
           lists_bytes(g, info->rows) <= bytes;
}

static uint8_t *carve(uint8_t **at, size_t bytes) {
    uint8_t *piece = *at;
    *at += cbi_round_up(bytes, 16);
    return piece;
}

static void lay_out(lists_work *l, cb_group *g, cbi_job_worker *w, size_t rows) {
    *l = (lists_work){.g = g, .w = w, .rows = rows};
    uint8_t *at = list_eval_init(&l->eval, g, w->work);
    l->sorted = (const uint8_t **)(void *)carve(&at, rows * sizeof(void *));
    l->bodies = (const uint8_t **)(void *)carve(&at, rows * sizeof(void *));
    l->group_of = (uint32_t *)(void *)carve(&at, rows * sizeof(uint32_t));
    uint8_t *table = carve(&at, group_list_table_bytes(rows));
    (void)group_table_init(&l->table, table, group_list_table_bytes(rows), sizeof(uint64_t), rows,
                           0);
    l->eval.scratch = at;
    cb_assert(at + (rows + 1) * LIST_ROW_BYTES <= w->work + w->job->sizes.work);
}

/* The pieces of a partition in input order, as references from the pool's base. */
static size_t order_pieces(lists_work *l, cbi_segment *list) {
    const uint8_t *base = cb_segment_pool_base(l->w->job->ground.pool);
    cbi_entry *pieces = (cbi_entry *)(void *)l->eval.scratch;
    size_t count = 0;
    for (cbi_segment *segment = list; segment != NULL; segment = segment->next) {
        const uint8_t *at = cbi_segment_payload(segment), *end = at + segment->used;
        while (at < end) {
            cbi_stored first;
            (void)cbi_stored_get(&cbi_record_layout, at + CBI_PIECE_HEADER_BYTES, &first);
            pieces[count++] = (cbi_entry){.prefix = cbi_load_u64(at) + cbi_load_u32(first.row),
                                          .ref = (uint64_t)(at - base)};
            at += CBI_PIECE_HEADER_BYTES + cbi_load_u32(at + 12);
        }
    }
    cbi_order_by_prefix(pieces, count);
    return count;
}

static void find_group(lists_work *l, const cbi_stored *record, uint64_t order, size_t i) {
    group_payload payload;
    size_t place = 0;
    group_payload_get(l->g, record, order, &payload);
    uint64_t hash = cbi_job_hash(&l->g->job, record->key, record->key_bytes);
    group_entry *e = group_table_find(&l->table, hash, record->key, record->key_bytes, &place);
    if (e == NULL) {
        e = group_table_add(&l->table, hash, record->key, record->key_bytes, 0, place);
        cb_assert(e != NULL);
        e->first = payload.position;
    }
    e->first = cbi_min(e->first, payload.position);
    e->rows++;
    l->bodies[i] = payload.body;
    l->group_of[i] = (uint32_t)((size_t)((uint8_t *)e - l->table.entries) / l->table.entry_bytes);
}

static void find_groups(lists_work *l, cbi_segment *list) {
    const uint8_t *base = cb_segment_pool_base(l->w->job->ground.pool);
    size_t count = order_pieces(l, list), i = 0;
    const cbi_entry *pieces = (const cbi_entry *)(const void *)l->eval.scratch;
    for (size_t k = 0; k < count; k++) {
        const uint8_t *at = base + pieces[k].ref;
        uint64_t order = cbi_load_u64(at);
        const uint8_t *end = at + CBI_PIECE_HEADER_BYTES + cbi_load_u32(at + 12);
        at += CBI_PIECE_HEADER_BYTES;
        while (at < end) {
            cbi_stored record;
            at = cbi_stored_get(&cbi_record_layout, at, &record);
            find_group(l, &record, order, i++);
        }
    }
    cb_assert(i == l->rows);
    uint64_t sum = 0;
    for (uint32_t k = 0; k < l->table.count; k++) {
        group_entry *e = group_table_at(&l->table, k);
        e->state[0] = sum;
        sum += e->rows;
    }
    for (i = 0; i < l->rows; i++) {
        group_entry *e = group_table_at(&l->table, l->group_of[i]);
        l->sorted[e->state[0]++] = l->bodies[i];
    }
}

cb_status group_lists_work(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                           cb_error *err) {
    cb_group *g = ctx;
    cbi_partition_info info;
    cbi_partition_get_info(w->job->parts, index, &info);
    if (info.rows == 0)
        return CB_OK;
    bool done = false;
    if (group_columns_possible(g))
        CB_TRY(group_columns_work(g, w, list, (size_t)info.rows, &done, err));
    if (done)
        return CB_OK;
    lists_work l;
    lay_out(&l, g, w, (size_t)info.rows);
    find_groups(&l, list);
    for (uint32_t k = 0; k < l.table.count; k++) {
        const group_entry *e = group_table_at(&l.table, k);
        const uint8_t *display = e->key;
        uint32_t display_bytes = e->key_bytes;
        if (g->display)
            display = cbi_varint_get(e->key + e->key_bytes + 4, &display_bytes);
        CB_TRY(list_put_result(&l.eval, w, e->first, e->key, e->key_bytes, display, display_bytes,
                               l.sorted + (e->state[0] - e->rows), e->rows, err));
        if (cbi_job_stopped(w->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    return CB_OK;
}
