/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/join_private.h"

/*
 * A join of inputs that are in the order of their keys already: rows of both come one after the
 * other in that order, of equal keys the right ones first, and take the way of a partition that was
 * sorted because it did not fit (join_giant.c). Nothing is partitioned, nothing is kept but the
 * right rows of one key, and the result is written as it comes: in the order of keys, rows without
 * a partner included.
 *
 * One thread does it all; the two workers of the plan are two readers. That a key comes before the
 * one above it is found out on the way; what was written before goes away with the unfinished file.
 */

typedef struct stream {
    cb_join *j;
    join_side *side;
    cbi_job_worker *w;
    size_t at, row; /* in the chunk; in its rows that were scanned */
    uint64_t number;
    bool there, null;
    cbi_room key, before; /* of this row, and of the one above */
    size_t key_bytes, before_bytes;
    cbi_partitions *temp; /* takes memory for them */
} stream;

static cb_status make_key(stream *s, cb_error *err) {
    cbi_room room = s->before;
    s->before = s->key;
    s->before_bytes = s->key_bytes;
    s->key = room;
    for (;;) {
        size_t most = s->key.size > 0 ? s->key.size - 1 : 0; /* a byte behind it */
        s->key_bytes =
            cbi_keys_encode_null(s->side->keys, &s->w->rows, s->row, s->key.bytes, most, &s->null);
        if (s->key_bytes <= most && s->key.bytes != NULL)
            return CB_OK;
        CB_TRY(cbi_room_need(&s->key, &s->j->job, s->temp, s->key_bytes + 1, err));
    }
}

static cb_status check_order(const stream *s, cb_error *err) {
    if (s->number < 2 || s->j->o.order == CB_JOIN_SORTED_UNCHECKED ||
        cbi_compare_bytes(s->before.bytes, s->before_bytes, s->key.bytes, s->key_bytes, 0) <= 0)
        return CB_OK;
    unsigned long long row = s->number + (s->side->name_count > 0);
    return cbi_fail(err, CB_EDISORDER,
                    "%s: row %llu is out of order: its key comes before the one of the row above; "
                    "sort both inputs by the key, or leave --sorted out",
                    cbi_input_name(s->side->input, 0), row);
}

/* The next row; !there: none. */
static cb_status next(stream *s, cb_error *err) {
    cbi_job_worker *w = s->w;
    for (s->row++; s->row >= w->rows.count; s->row = 0) {
        CB_TRY(cbi_job_next_rows(w, &s->at, err));
        if (w->rows.count > 0)
            continue;
        if (cbi_job_stopped(w->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
        CB_TRY(cbi_job_next_chunk(w, err));
        s->at = 0;
        s->there = w->chunk.bytes > 0;
        if (!s->there)
            return CB_OK;
    }
    s->number++;
    atomic_store_explicit(&s->side->rows, s->number, memory_order_relaxed);
    atomic_fetch_add_explicit(&w->job->rows_in, 1, memory_order_relaxed);
    CB_TRY(make_key(s, err));
    return check_order(s, err);
}

static cb_status open_stream(stream *s, cb_join *j, unsigned side, cbi_partitions *temp,
                             cb_error *err) {
    *s = (stream){
        .j = j, .side = &j->sides[side], .w = &j->job.workers[side], .there = true, .temp = temp};
    cbi_job_read_layout(s->w, s->side->input, s->side->columns, s->side->field_count, temp, 2);
    s->w->rows.count = 0;
    return next(s, err);
}

static void close_stream(stream *s) {
    if (s->w == NULL)
        return;
    cbi_job_end_input(s->w);
    cbi_room_give(&s->key, &s->j->job);
    cbi_room_give(&s->before, &s->j->job);
}

/* Its row to the join; the next one. */
static cb_status give(stream *s, join_group *g, cb_error *err) {
    unsigned side = s->side == &s->j->sides[JOIN_LEFT] ? JOIN_LEFT : JOIN_RIGHT;
    bool apart = s->null && !s->j->o.match_nulls;
    if (!apart || s->side->keep_null)
        CB_TRY(join_group_put(g, side, apart ? NULL : s->key.bytes, s->key_bytes, &s->w->rows,
                              s->row, err));
    return next(s, err);
}

/* Below, equal to or above 0: whose row comes first; the right's of equal ones. */
static int compare(const stream *left, const stream *right) {
    if (!left->there || !right->there)
        return left->there ? -1 : 1;
    int order =
        cbi_compare_bytes(left->key.bytes, left->key_bytes, right->key.bytes, right->key_bytes, 0);
    return order == 0 ? 1 : order;
}

static cb_status merge(stream *left, stream *right, join_group *g, cb_error *err) {
    while (left->there || right->there)
        CB_TRY(give(compare(left, right) < 0 ? left : right, g, err));
    return join_group_end(g, err);
}

cb_status join_sorted(cb_join *j, cb_error *err) {
    cbi_job *job = &j->job;
    stream sides[2] = {{.w = NULL}, {.w = NULL}};
    join_group *g = NULL;
    cbi_partitions *temp;
    j->sides[JOIN_LEFT].numbered = j->sides[JOIN_RIGHT].numbered = false;
    j->direct = true;
    cbi_job_phase(job, CB_PHASE_READ);
    cb_status status = join_group_open(&g, j, &job->workers[0], &temp, err);
    for (unsigned side = 0; status == CB_OK && side < 2; side++)
        status = open_stream(&sides[side], j, side, temp, err);
    if (status == CB_OK)
        status = cbi_job_begin_rows(job, temp, err);
    if (status == CB_OK)
        status = merge(&sides[JOIN_LEFT], &sides[JOIN_RIGHT], g, err);
    if (status == CB_OK)
        status = join_direct_flush(j, &job->workers[0], err);
    if (status == CB_OK)
        status = cbi_job_end_rows(job, err);
    for (unsigned side = 0; side < 2; side++) {
        close_stream(&sides[side]);
        if (status == CB_OK)
            status = cbi_input_finish(j->sides[side].input, err);
    }
    unsigned other = job->input == j->sides[JOIN_LEFT].input ? JOIN_RIGHT : JOIN_LEFT;
    job->rows_bad_before = cbi_input_rows_bad(j->sides[other].input);
    job->bytes_in_before = cbi_input_bytes_done(j->sides[other].input);
    join_group_close(g);
    return status;
}
