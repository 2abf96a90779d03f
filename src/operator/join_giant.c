/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/join_private.h"

/*
 * A partition that does not fit: by chance, or because one key has more rows than memory has room
 * for. One worker sorts the rows of both sides together, by hash, key and side (job_runs.c), so
 * that all rows of a key come one after the other, the right ones first.
 *
 * Of each key the right rows are kept in an arena, and every left row is joined with all of them as
 * it comes. If the arena is too small they go to a temporary partition instead, and left rows
 * gather in the arena; whenever that is full, and at the key's end, the right rows are read from
 * one temporary partition and written to another, joined with all left rows of the arena on the
 * way. So a key may be larger than memory on both sides, and what it costs is what its result costs
 * anyway.
 */

enum { HASH_BYTES = 8, LENGTH_BYTES = 4, PREFIX_BYTES = HASH_BYTES + LENGTH_BYTES };
enum { RIGHT_FIRST = 0, LEFT_SECOND = 1 };

typedef struct giant {
    cb_join *j;
    cbi_job_worker *w;
    cbi_runs runs;
    cbi_partitions *temp; /* two slots */
    uint8_t *arena;
    size_t arena_units, arena_bytes, used;
    uint8_t *key; /* of the present group, with its prefix; in the arena's beginning */
    size_t key_bytes, key_room;
    uint32_t slot; /* of temp: where the right rows are */
    bool overflow; /* the right rows are in temp, the left ones in the arena */
    bool any;
    uint64_t right_rows, left_rows;
    cbi_room row; /* on its way from an input */
} giant;

/* A row in the arena: {position, bytes, row}. */
enum { KEPT_BYTES = 12 };

static bool keep(giant *g, const cbi_stored *row) {
    if (row->row_bytes + KEPT_BYTES > g->arena_bytes - g->used)
        return false;
    uint8_t *at = g->arena + g->used;
    cbi_store_u64(at, row->order);
    cbi_store_u32(at + 8, row->row_bytes);
    if (row->row_bytes > 0)
        memcpy(at + KEPT_BYTES, row->row, row->row_bytes);
    g->used += KEPT_BYTES + row->row_bytes;
    return true;
}

static const uint8_t *kept_row(const giant *g, unsigned side, const uint8_t *at, join_row *row) {
    cbi_stored stored = {.row = at + KEPT_BYTES, .row_bytes = cbi_load_u32(at + 8)};
    *row = join_row_of(g->j, side, &stored, 0);
    row->position = cbi_load_u64(at);
    return stored.row + stored.row_bytes;
}

static join_row plain_row(const giant *g, unsigned side, const cbi_stored *stored) {
    join_row row = join_row_of(g->j, side, stored, 0);
    row.position = stored->order;
    return row;
}

static cb_status put_temp(giant *g, uint32_t slot, const cbi_stored *row, cb_error *err) {
    cbi_stored bare = *row;
    bare.key_bytes = 0; /* the group's */
    return cbi_partition_put(g->temp, slot, &bare, err);
}

/* The arena's right rows leave; left ones will take their place. */
static cb_status begin_overflow(giant *g, cb_error *err) {
    g->overflow = true;
    for (const uint8_t *at = g->arena + g->key_room; at < g->arena + g->used;) {
        cbi_stored row = {.key = g->key,
                          .row = at + KEPT_BYTES,
                          .row_bytes = cbi_load_u32(at + 8),
                          .order = cbi_load_u64(at)};
        CB_TRY(put_temp(g, g->slot, &row, err));
        at = row.row + row.row_bytes;
    }
    g->used = g->key_room;
    return CB_OK;
}

static cb_status put_right(giant *g, const cbi_stored *row, cb_error *err) {
    g->right_rows++;
    if (!g->overflow) {
        if (keep(g, row))
            return CB_OK;
        CB_TRY(begin_overflow(g, err));
    }
    return put_temp(g, g->slot, row, err);
}

/* One left row and all right rows that are kept. */
static cb_status join_kept(giant *g, const join_row *left, cb_error *err) {
    uint32_t ordinal = 0;
    for (const uint8_t *at = g->arena + g->key_room; at < g->arena + g->used; ordinal++) {
        join_row right;
        at = kept_row(g, JOIN_RIGHT, at, &right);
        CB_TRY(join_emit_pair(g->j, g->w, left, &right, ordinal, err));
    }
    return CB_OK;
}

/* One right row of temp and all left rows that are kept. */
static cb_status join_temp_row(giant *g, const cbi_stored *row, uint64_t ordinal, cb_error *err) {
    join_row right = plain_row(g, JOIN_RIGHT, row);
    if (ordinal >= UINT32_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED, "a row has more than %u partners", UINT32_MAX - 1);
    if (g->left_rows == 0)
        return join_wants_right(g->j) ? join_emit_right(g->j, g->w, &right, err) : CB_OK;
    for (const uint8_t *at = g->arena + g->key_room; at < g->arena + g->used;) {
        join_row left;
        at = kept_row(g, JOIN_LEFT, at, &left);
        CB_TRY(join_emit_pair(g->j, g->w, &left, &right, (uint32_t)ordinal, err));
    }
    return CB_OK;
}

/* Results take whatever memory is free; what is read next must find some. */
static cb_status leave_room(giant *g, cb_error *err) {
    cbi_job *job = &g->j->job;
    if (g->j->direct)
        return CB_OK;
    size_t need = 4 * cbi_max(g->runs.batch, job->sizes.run_batch) + 8;
    if (CBI_LIKELY(cb_segment_pool_free_count(job->ground.pool) >= need))
        return CB_OK;
    return cbi_partitions_make_room(job->results, UINT32_MAX,
                                    cbi_max(need, job->sizes.segments / 16), err);
}

/* The right rows from one slot; `again`: they will be needed once more, and go to the other. */
static cb_status pass_temp(giant *g, bool again, cb_error *err) {
    uint32_t from = g->slot, to = 1 - g->slot;
    uint64_t ordinal = 0;
    cbi_run_source source;
    CB_TRY(cbi_partition_put_end(g->temp, from, err));
    cbi_run_source_init(&source, g->temp, g->j->job.ground.pool, &cbi_record_run_layout, from);
    cb_status status = CB_OK;
    for (;;) {
        cbi_stored row;
        bool more = false;
        status = source.source.next(&source.source, &row, &more, err);
        if (status != CB_OK || !more)
            break;
        status = join_temp_row(g, &row, ordinal++, err);
        if (status == CB_OK && again)
            status = put_temp(g, to, &row, err);
        if (status != CB_OK)
            break;
        status = leave_room(g, err);
        if (status != CB_OK)
            break;
    }
    cbi_run_source_fini(&source);
    if (status == CB_OK)
        cbi_partition_reset(g->temp, from);
    g->slot = to;
    return status;
}

static cb_status put_left(giant *g, const cbi_stored *row, cb_error *err) {
    join_row left = plain_row(g, JOIN_LEFT, row);
    bool partner = g->right_rows > 0;
    g->left_rows++;
    if (!partner || !join_wants_pairs(g->j)) {
        bool wanted = partner ? g->j->o.how == CB_JOIN_SEMI : join_wants_left(g->j);
        return wanted ? join_emit_left(g->j, g->w, &left, err) : CB_OK;
    }
    if (!g->overflow)
        return join_kept(g, &left, err);
    bool kept = keep(g, row);
    if (kept && !g->j->direct)
        return CB_OK;
    if (!kept || g->used > g->key_room) {
        CB_TRY(pass_temp(g, true, err));
        g->used = g->key_room;
    }
    if (kept || keep(g, row))
        return CB_OK;
    return cbi_fail_bytes(err, CB_EBUDGET, row->row_bytes, g->arena_bytes,
                          "a row of %u bytes does not fit beside its partners", row->row_bytes);
}

static cb_status end_group(giant *g, cb_error *err) {
    if (!g->any)
        return CB_OK;
    g->any = false;
    if (g->overflow) {
        bool needed = g->left_rows == 0 ? join_wants_right(g->j) : join_wants_pairs(g->j);
        if (needed && (!g->j->direct || g->left_rows == 0))
            return pass_temp(g, false, err);
        CB_TRY(cbi_partition_put_end(g->temp, g->slot, err));
        cbi_segment *part;
        do { /* read and forgotten: there is no other way to give its places back */
            CB_TRY(cbi_partition_next_part(g->temp, g->slot, &part, err));
            cbi_segments_give(g->j->job.ground.pool, part);
        } while (part != NULL);
        cbi_partition_reset(g->temp, g->slot);
        return CB_OK;
    }
    if (g->left_rows > 0 || !join_wants_right(g->j))
        return CB_OK;
    for (const uint8_t *at = g->arena + g->key_room; at < g->arena + g->used;) {
        join_row right;
        at = kept_row(g, JOIN_RIGHT, at, &right);
        CB_TRY(join_emit_right(g->j, g->w, &right, err));
    }
    return CB_OK;
}

/* Rows in the order of keys; the last byte of a key is the side. */
static cb_status take_row(void *ctx, const cbi_stored *row, cb_error *err) {
    giant *g = ctx;
    size_t bytes = row->key_bytes - 1;
    CB_TRY(leave_room(g, err));
    if (!g->any || bytes != g->key_bytes || memcmp(row->key, g->key, bytes) != 0) {
        CB_TRY(end_group(g, err));
        if (bytes > g->arena_bytes / 2)
            return cbi_fail_bytes(err, CB_EBUDGET, bytes, g->arena_bytes,
                                  "a key of %zu bytes does not fit in memory", bytes);
        g->key = g->arena;
        memcpy(g->key, row->key, bytes);
        g->key_bytes = bytes;
        g->used = g->key_room = cbi_round_up(bytes, 8);
        g->any = true;
        g->overflow = false;
        g->right_rows = g->left_rows = 0;
    }
    return row->key[bytes] == LEFT_SECOND ? put_left(g, row, err) : put_right(g, row, err);
}

/* ---- rows of both sides into runs ---- */

static cb_status alone(giant *g, unsigned side, const cbi_stored *record, uint64_t order,
                       cb_error *err) {
    join_row row = join_row_of(g->j, side, record, order);
    return side == JOIN_LEFT ? join_emit_left(g->j, g->w, &row, err)
                             : join_emit_right(g->j, g->w, &row, err);
}

static cb_status add_row(giant *g, unsigned side, const cbi_stored *record, uint64_t order,
                         cb_error *err) {
    cb_join *j = g->j;
    if (record->key_bytes == 0 && !j->o.match_nulls)
        return alone(g, side, record, order, err);
    size_t bytes = PREFIX_BYTES + record->key_bytes + 1;
    if (bytes > g->arena_bytes)
        return cbi_fail_bytes(err, CB_EBUDGET, bytes, g->arena_bytes,
                              "a key of %zu bytes does not fit in memory", bytes);
    uint64_t hash = cbi_job_hash(&j->job, record->key, record->key_bytes);
    uint8_t *key = g->arena;
    cbi_store_u64(key, __builtin_bswap64(hash));
    cbi_store_u32(key + HASH_BYTES, __builtin_bswap32(record->key_bytes));
    memcpy(key + PREFIX_BYTES, record->key, record->key_bytes);
    key[bytes - 1] = side == JOIN_RIGHT ? RIGHT_FIRST : LEFT_SECOND;
    cbi_stored row = {.key = key,
                      .key_bytes = (uint32_t)bytes,
                      .row = record->row,
                      .row_bytes = record->row_bytes,
                      .order = join_row_of(j, side, record, order).position};
    return cbi_runs_add(&g->runs, &row, err);
}

static cb_status add_side(giant *g, unsigned side, uint32_t index, cb_error *err) {
    cb_join *j = g->j;
    cbi_partitions *parts = side == JOIN_LEFT ? j->job.parts : j->job.partner;
    for (;;) {
        cbi_segment *list;
        CB_TRY(cbi_partition_next_part(parts, index, &list, err));
        if (list == NULL)
            return CB_OK;
        cb_status status = cbi_partition_prefetch(parts, index, CBI_PARTS_AHEAD, err);
        cbi_record_reader reader;
        cbi_stored record;
        uint64_t piece = UINT64_MAX, at = 0; /* rows without a number are in order in their piece */
        cbi_record_reader_init(&reader, list);
        while (status == CB_OK && cbi_record_next(&reader, &record) != NULL) {
            at = reader.order == piece && !j->sides[side].numbered ? at + 1 : 0;
            piece = reader.order;
            status = add_row(g, side, &record, piece + at, err);
        }
        cbi_segments_give(j->job.ground.pool, list);
        CB_TRY(status);
        CB_TRY(leave_room(g, err));
        if (cbi_job_stopped(&j->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
    }
}

static cb_status open_temp(giant *g, size_t arena_units, cb_error *err) {
    cbi_job *job = &g->j->job;
    const cbi_job_sizes *z = &job->sizes;
    cbi_partitions_options options = {.count = 2,
                                      .layout = &cbi_record_run_layout,
                                      .pool = job->ground.pool,
                                      .segment_bytes = z->segment,
                                      .segments_max = z->segments,
                                      .spill = job->ground.spill,
                                      .batch_segments_max = cbi_max(z->run_batch, 1),
                                      .cancelled = &job->stop};
    CB_TRY(cbi_partitions_create(&options, &g->temp, err));
    void *arena;
    CB_TRY(cbi_partitions_take(g->temp, arena_units, &arena, err));
    g->arena = arena;
    g->arena_units = arena_units;
    g->arena_bytes = arena_units * z->segment;
    return CB_OK;
}

static cb_status open_giant(giant *g, uint32_t index, cb_error *err) {
    cb_join *j = g->j;
    const cbi_job_sizes *z = &j->job.sizes;
    cbi_partition_info left, right;
    CB_TRY(cbi_job_clear_memory(&j->job, index, err));
    cbi_partition_get_info(j->job.parts, index, &left);
    cbi_partition_get_info(j->job.partner, index, &right);
    uint64_t rows = left.rows + right.rows;
    uint64_t need =
        (left.segments + right.segments) * z->segment + rows * (sizeof(cbi_entry) + PREFIX_BYTES);
    uint32_t units_max = (uint32_t)cbi_max(left.units_max, right.units_max);
    CB_TRY(cbi_runs_open(&g->runs, &j->job, need, units_max, err));
    return open_temp(
        g, cbi_max(g->runs.outside / 4, cbi_min(3 * (size_t)units_max, g->runs.outside / 2)), err);
}

static void close_temp(giant *g) {
    if (g->arena != NULL)
        cb_segment_pool_give(g->j->job.ground.pool, g->arena, g->arena_units);
    cbi_partitions_destroy(g->temp);
}

cb_status join_big(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err) {
    cb_join *j = ctx;
    giant g = {.j = j, .w = w, .runs = {.job = &j->job}};
    cb_status status = open_giant(&g, index, err);
    if (status == CB_OK)
        status = add_side(&g, JOIN_RIGHT, index, err);
    if (status == CB_OK)
        status = add_side(&g, JOIN_LEFT, index, err);
    if (status == CB_OK)
        status = cbi_runs_merge(&g.runs, take_row, &g, err);
    if (status == CB_OK)
        status = end_group(&g, err);
    close_temp(&g);
    cbi_runs_close(&g.runs);
    return status;
}

/* ---- rows that come in order already (join_sorted.c) ---- */

cb_status join_group_open(join_group **group, cb_join *j, cbi_job_worker *w, cbi_partitions **temp,
                          cb_error *err) {
    giant *g = cbi_calloc(1, sizeof *g);
    if (g == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a join");
    g->j = j;
    g->w = w;
    *group = g;
    CB_TRY(open_temp(g, j->job.sizes.segments / 4, err));
    *temp = g->temp;
    return CB_OK;
}

/* What a row shows, and for the right its raw keys. */
static cb_status make_row(giant *g, unsigned side, const cbi_rows *rows, size_t i, cbi_stored *row,
                          cb_error *err) {
    const join_side *s = &g->j->sides[side];
    size_t bytes = join_payload_bytes(g->j, s, rows, i);
    CB_TRY(cbi_room_need(&g->row, &g->j->job, g->temp, bytes, err));
    (void)join_put_payload(g->j, s, rows, i, g->row.bytes);
    row->row = g->row.bytes;
    row->row_bytes = (uint32_t)bytes;
    return CB_OK;
}

cb_status join_group_put(join_group *g, unsigned side, uint8_t *key, size_t key_bytes,
                         const cbi_rows *rows, size_t i, cb_error *err) {
    cbi_stored row = {.key = key, .key_bytes = (uint32_t)key_bytes + 1};
    CB_TRY(make_row(g, side, rows, i, &row, err));
    if (key == NULL) {
        CB_TRY(end_group(g, err));
        return alone(g, side, &row, 0, err);
    }
    key[key_bytes] = side == JOIN_RIGHT ? RIGHT_FIRST : LEFT_SECOND;
    return take_row(g, &row, err);
}

cb_status join_group_end(join_group *g, cb_error *err) {
    return end_group(g, err);
}

void join_group_close(join_group *g) {
    if (g == NULL)
        return;
    cbi_room_give(&g->row, &g->j->job);
    close_temp(g);
    cbi_free(g);
}
