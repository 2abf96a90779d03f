/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/join_private.h"

/*
 * One partition of both sides, in memory. The right rows become a table without chains: entries of
 * 8 bytes (24 bits of hash, 40 of place), those of a slot side by side and in the order of their
 * positions; so the partners of a left row come out in order, and a slot is one line of the cache
 * as a rule. Left rows are looked up 16 at a time, slots, entries and rows fetched before they are
 * looked at.
 *
 *     | entries | slots' starts | matched | entries and slots of rows, pieces, while it is made |
 */

enum { TAG_BITS = 24, PROBES = 16 };

typedef struct table {
    const uint8_t *base;
    uint64_t *entries; /* tag << 40 | offset */
    uint32_t *starts;  /* of slots, one more than there are */
    uint8_t *matched;  /* by entry */
    uint32_t count, mask;
    uint64_t *made;
    uint32_t *slots;
} table;

static uint32_t slots_for(uint64_t rows) {
    uint32_t slots = 16;
    while (slots < rows)
        slots *= 2;
    return slots;
}

static size_t table_bytes(uint64_t rows, uint64_t pieces) {
    return rows * (8 + 1 + 8 + 4) + ((size_t)slots_for(rows) + 3) * 4 + pieces * sizeof(cbi_entry) +
           6 * 64;
}

bool join_fits(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info) {
    (void)ctx;
    (void)info;
    cbi_partition_info right;
    cbi_partition_get_info(job->partner, index, &right);
    return right.rows < UINT32_MAX / 4 && right.pieces < CBI_REF_PIECES_MAX &&
           table_bytes(right.rows, right.pieces) <= job->sizes.work;
}

static uint8_t *carve(uint8_t **at, size_t bytes) {
    uint8_t *piece = *at;
    *at += cbi_round_up(bytes, 64);
    return piece;
}

static inline uint64_t tag_of(uint64_t hash) {
    return (hash >> 20) << 40;
}

/* The position of the first row of a piece. */
static uint64_t piece_position(const cb_join *j, const uint8_t *piece) {
    cbi_stored record;
    (void)cbi_stored_get(&cbi_record_layout, piece + CBI_PIECE_HEADER_BYTES, &record);
    return join_row_of(j, JOIN_RIGHT, &record, cbi_load_u64(piece)).position;
}

/* Pieces in the order of their positions. */
size_t join_list_pieces(const cb_join *j, const uint8_t *base, cbi_segment *list,
                        cbi_entry *pieces) {
    size_t count = 0;
    for (cbi_segment *g = list; g != NULL; g = g->next) {
        const uint8_t *at = cbi_segment_payload(g), *end = at + g->used;
        for (; at < end; at += CBI_PIECE_HEADER_BYTES + cbi_load_u32(at + 12))
            pieces[count++] =
                (cbi_entry){.prefix = piece_position(j, at), .ref = (uint64_t)(at - base)};
    }
    cbi_order_by_prefix(pieces, count);
    return count;
}

static void build(const cb_join *j, table *t, const cbi_entry *pieces, size_t piece_count) {
    uint32_t n = 0;
    memset(t->starts, 0, ((size_t)t->mask + 3) * sizeof *t->starts);
    for (size_t p = 0; p < piece_count; p++) {
        const uint8_t *piece = t->base + pieces[p].ref, *at = piece + CBI_PIECE_HEADER_BYTES;
        for (uint32_t rows = cbi_load_u32(piece + 8); rows > 0; rows--) {
            cbi_stored record;
            uint64_t place = (uint64_t)(at - t->base);
            at = cbi_stored_get(&cbi_record_layout, at, &record);
            uint64_t hash = join_hash(j, record.key, record.key_bytes);
            t->made[n] = tag_of(hash) | place;
            t->slots[n++] = (uint32_t)hash & t->mask;
            t->starts[((uint32_t)hash & t->mask) + 2]++;
        }
    }
    for (uint32_t s = 1; s <= t->mask + 1; s++)
        t->starts[s + 1] += t->starts[s];
    for (uint32_t i = 0; i < n; i++)
        t->entries[t->starts[t->slots[i] + 1]++] = t->made[i];
    cb_assert(n == t->count);
}

typedef struct probe {
    cbi_stored record;
    uint64_t order, hash;
} probe;

static inline const uint8_t *entry_row(const table *t, uint64_t entry) {
    return t->base + (entry & (((uint64_t)1 << 40) - 1));
}

static cb_status probe_one(cb_join *j, cbi_job_worker *w, table *t, const probe *p, cb_error *err) {
    join_row left = join_row_of(j, JOIN_LEFT, &p->record, p->order);
    uint32_t slot = (uint32_t)p->hash & t->mask, partners = 0;
    uint64_t tag = tag_of(p->hash);
    bool pairs = join_wants_pairs(j);
    bool none = p->record.key_bytes == 0 && !j->o.match_nulls;
    for (uint32_t i = t->starts[slot]; !none && i < t->starts[slot + 1]; i++) {
        if ((t->entries[i] ^ tag) >> (64 - TAG_BITS) != 0)
            continue;
        cbi_stored record;
        (void)cbi_stored_get(&cbi_record_layout, entry_row(t, t->entries[i]), &record);
        if (!cbi_same_key(&record, &p->record))
            continue;
        if (t->matched != NULL)
            t->matched[i] = 1;
        if (!pairs) {
            partners = 1;
            if (t->matched == NULL)
                break;
            continue;
        }
        join_row right = join_row_of(j, JOIN_RIGHT, &record, 0);
        CB_TRY(join_emit_pair(j, w, &left, &right, partners++, err));
    }
    if (partners == 0 ? join_wants_left(j) : j->o.how == CB_JOIN_SEMI)
        return join_emit_left(j, w, &left, err);
    return CB_OK;
}

static cb_status probe_all(cb_join *j, cbi_job_worker *w, table *t, cbi_segment *list,
                           cb_error *err) {
    probe probes[PROBES];
    cbi_record_reader reader;
    cbi_record_reader_init(&reader, list);
    for (unsigned n = PROBES; n == PROBES;) {
        for (n = 0; n < PROBES && cbi_record_next(&reader, &probes[n].record) != NULL; n++) {
            probe *p = &probes[n];
            p->order = reader.order;
            p->hash = join_hash(j, p->record.key, p->record.key_bytes);
            __builtin_prefetch(&t->starts[(uint32_t)p->hash & t->mask]);
        }
        for (unsigned i = 0; i < n; i++)
            __builtin_prefetch(&t->entries[t->starts[(uint32_t)probes[i].hash & t->mask]]);
        for (unsigned i = 0; i < n; i++) {
            uint32_t slot = (uint32_t)probes[i].hash & t->mask;
            if (t->starts[slot] < t->starts[slot + 1])
                __builtin_prefetch(entry_row(t, t->entries[t->starts[slot]]));
        }
        for (unsigned i = 0; i < n; i++)
            CB_TRY(probe_one(j, w, t, &probes[i], err));
        if (cbi_job_stopped(w->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    return CB_OK;
}

/* What the right has alone. Rows come in the order in which build has seen them, so the next entry
 * of a row's slot is its own; nobody looks anything up any more. */
static cb_status emit_rest(cb_join *j, cbi_job_worker *w, table *t, const cbi_entry *pieces,
                           size_t piece_count, cb_error *err) {
    for (size_t p = 0; p < piece_count; p++) {
        const uint8_t *piece = t->base + pieces[p].ref, *at = piece + CBI_PIECE_HEADER_BYTES;
        for (uint32_t rows = cbi_load_u32(piece + 8); rows > 0; rows--) {
            cbi_stored record;
            at = cbi_stored_get(&cbi_record_layout, at, &record);
            uint64_t hash = join_hash(j, record.key, record.key_bytes);
            if (t->matched[t->starts[(uint32_t)hash & t->mask]++])
                continue;
            join_row right = join_row_of(j, JOIN_RIGHT, &record, cbi_load_u64(piece));
            CB_TRY(join_emit_right(j, w, &right, err));
        }
    }
    return CB_OK;
}

cb_status join_work(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                    cb_error *err) {
    cb_join *j = ctx;
    cbi_segment *right;
    cbi_partition_info info;
    CB_TRY(cbi_partition_wait(j->job.partner, index, &right, err));
    cbi_partition_get_info(j->job.partner, index, &info);
    uint32_t slots = slots_for(info.rows);
    uint8_t *at = w->work;
    table t = {.base = cb_segment_pool_base(j->job.ground.pool),
               .count = (uint32_t)info.rows,
               .mask = slots - 1};
    t.entries = (uint64_t *)(void *)carve(&at, info.rows * sizeof *t.entries);
    t.starts = (uint32_t *)(void *)carve(&at, ((size_t)slots + 2) * sizeof *t.starts);
    t.matched = carve(&at, info.rows);
    t.made = (uint64_t *)(void *)carve(&at, info.rows * sizeof *t.made);
    t.slots = (uint32_t *)(void *)carve(&at, info.rows * sizeof *t.slots);
    memset(t.matched, 0, info.rows);
    if (!join_wants_right(j))
        t.matched = NULL;
    cbi_entry *pieces = (cbi_entry *)(void *)carve(&at, info.pieces * sizeof *pieces);
    cb_assert((size_t)(at - w->work) <= w->job->sizes.work);
    size_t count = join_list_pieces(j, t.base, right, pieces);
    build(j, &t, pieces, count);
    CB_TRY(probe_all(j, w, &t, list, err));
    return join_wants_right(j) ? emit_rest(j, w, &t, pieces, count, err) : CB_OK;
}
