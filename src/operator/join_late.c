/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/join_private.h"

/*
 * The left is read twice.
 *
 * Most of what a join carries about is text that nobody looks at before it is written: to its
 * partition, to the disk and back, then with its partner into a range of the result, to the disk
 * and back once more. The left rows' part of that is not needed, for results come out in the order
 * of the left input. So when that is a file that can be read anywhere, a left row goes to its
 * partition with its key and its place alone; what comes out for it is the place, and the partner's
 * text; and when a range of results is ordered and written, the left rows of that range are read
 * once more, one after the other, and each stands before its partners again. That costs a second
 * scan of one input and saves more than half of all that is stored.
 *
 * Where a range begins in the input was noted when its rows were read. Rows that a buffer might not
 * hold (JOIN_AWAY_MAX, and all of a chunk that grew) bring their text from the start, and their
 * results are whole rows among the others. How long each range comes out must be known before it is
 * written: each left row carries the length of its text, and each worker counts.
 */

struct join_reader {
    uint32_t range;
    cbi_reread from;
    cbi_chunk chunk;
    cbi_rows rows;
    size_t at, row; /* scanned up to; the row that is looked at */
    uint8_t *text;  /* of that row, when it must be put together: JOIN_AWAY_MAX */
};

/* ---- before ---- */

static cb_status make_missing(cb_join *j, cb_error *err) {
    size_t bytes = 0, shown = 0;
    j->missing = cbi_calloc(j->piece_count + 1, sizeof *j->missing);
    for (size_t i = 0; i < j->piece_count; i++)
        if (j->pieces[i].side == JOIN_RIGHT)
            bytes += join_missing_text(j, i, NULL, &(bool){false});
    j->missing_text = cbi_alloc(bytes + 1);
    if (j->missing == NULL || j->missing_text == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu bytes of missing fields", bytes);
    uint8_t *at = j->missing_text;
    for (size_t i = 0; i < j->piece_count; i++) {
        join_text *text = &j->missing[i];
        text->shown = true;
        text->bytes = at;
        if (j->pieces[i].side == JOIN_RIGHT)
            text->count = (uint32_t)join_missing_text(j, i, at, &text->shown);
        at += text->count;
        shown += text->shown;
    }
    j->missing_bytes = bytes + shown - 1;
    return CB_OK;
}

static uint64_t range_bytes(const cbi_job *job, uint32_t range) {
    const cb_join *j = (const cb_join *)(const void *)job;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < job->sizes.threads; i++)
        bytes += j->range_bytes[(size_t)i * job->sizes.ranges + range];
    return bytes;
}

static cb_status put_result(cbi_job_worker *w, const cbi_stored *row, cb_error *err);

cb_status join_late_begin(cb_join *j, cb_error *err) {
    const cbi_job_sizes *z = &j->job.sizes;
    j->starts = cbi_calloc((size_t)j->left_ranges + 1, sizeof *j->starts);
    j->range_bytes = cbi_calloc((size_t)z->ranges * z->threads, sizeof *j->range_bytes);
    j->readers = cbi_calloc(z->threads, sizeof *j->readers);
    if (j->starts == NULL || j->range_bytes == NULL || j->readers == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the starts of %u ranges", j->left_ranges);
    for (uint32_t r = 0; r <= j->left_ranges; r++)
        atomic_init(&j->starts[r], UINT64_MAX);
    for (unsigned i = 0; i < z->threads; i++)
        j->readers[i].range = UINT32_MAX;
    j->job.put_result = put_result;
    j->job.range_bytes = range_bytes;
    j->job.place_bytes =
        cbi_place_bytes(cbi_input_bytes(j->sides[JOIN_LEFT].input), j->left_ranges);
    return make_missing(j, err);
}

void join_late_know_starts(cb_join *j) {
    for (uint32_t r = j->left_ranges; r-- > 0;)
        if (atomic_load(&j->starts[r]) == UINT64_MAX)
            atomic_store(&j->starts[r], atomic_load(&j->starts[r + 1]));
}

void join_late_end(cb_join *j) {
    cbi_free(j->starts);
    cbi_free(j->range_bytes);
    cbi_free(j->readers);
    cbi_free(j->missing);
    cbi_free(j->missing_text);
}

/* ---- the left rows again ---- */

static void open_range(const cb_join *j, cbi_job_worker *w, join_reader *r) {
    const cbi_job_sizes *z = &j->job.sizes;
    const join_side *s = &j->sides[JOIN_LEFT];
    uint8_t *at = w->reread;
    *r = (join_reader){.range = w->range,
                       .from = {.at = atomic_load(&j->starts[w->range]),
                                .end = atomic_load(&j->starts[w->range + 1])}};
    r->chunk = (cbi_chunk){.buf = at, .capacity = z->chunk};
    at += cbi_round_up(z->chunk, 64);
    r->text = at;
    at += JOIN_AWAY_MAX;
    r->rows = (cbi_rows){.capacity = z->batch_rows, .rows = (cbi_span *)(void *)at};
    r->rows.fields = r->rows.rows + z->batch_rows;
    for (size_t i = 0; i < s->run_count && r->rows.field_count == 0; i++)
        if (s->runs[i].first >= 0 || s->runs[i].last >= 0)
            r->rows.field_count = s->field_count;
}

/* The row that begins at `place`. */
static cb_status find_row(const cb_join *j, join_reader *r, uint64_t place, cb_error *err) {
    const join_side *s = &j->sides[JOIN_LEFT];
    for (;;) {
        for (; r->row < r->rows.count; r->row++) {
            uint64_t at = r->chunk.file_offset + r->rows.rows[r->row].offset;
            if (at == place)
                return CB_OK;
            if (at > place)
                break;
        }
        if (r->row < r->rows.count)
            break;
        if (r->at >= r->chunk.bytes) {
            CB_TRY(cbi_input_reread(s->input, &r->from, &r->chunk, err));
            if (r->chunk.bytes == 0)
                break;
            r->at = 0;
        }
        r->row = 0;
        CB_TRY(cbi_input_scan(s->input, &r->chunk, &r->at, s->columns, &r->rows, err));
    }
    return cbi_fail(err, CB_EIO, "%s changed while it was being read: no row begins at byte %llu",
                    cbi_input_name(s->input, 0), (unsigned long long)place);
}

/* The row that was found, as it would have been stored. */
static join_row left_of(const cb_join *j, const join_reader *r) {
    const join_side *s = &j->sides[JOIN_LEFT];
    if (CBI_LIKELY(s->plain)) {
        uint32_t begin, end;
        join_raw_run(s, &r->rows, r->row, &s->runs[0], &begin, &end);
        return (join_row){.bytes = r->rows.base + begin, .end = r->rows.base + end};
    }
    if (join_payload_bytes(j, s, &r->rows, r->row) > JOIN_AWAY_MAX)
        return (join_row){.bytes = NULL};
    return (join_row){.bytes = r->text, .end = join_put_payload(j, s, &r->rows, r->row, r->text)};
}

/* ---- results ---- */

static inline uint8_t *put_bytes(uint8_t *at, const uint8_t *bytes, size_t count) {
    cbi_copy_short(at, bytes, count);
    return at + count;
}

join_row join_unpacked(const cb_join *j, const join_row *right, uint8_t *room) {
    join_row row = *right;
    size_t bytes = (size_t)(row.end - row.bytes);
    if (!j->packed)
        return row;
    if (bytes > 0 && row.bytes[0] == JOIN_PACK_RAW) { /* of any length */
        row.bytes++;
        return row;
    }
    row.end = join_pack_get(j->pack, row.bytes, bytes, room);
    row.bytes = room;
    return row;
}

/* Both parts, where there is room for all of it. */
uint8_t *join_compose(const cb_join *j, join_row *rows, uint8_t *at) {
    for (size_t i = 0; i < j->piece_count; i++) {
        join_part p = join_next_part(&rows[j->pieces[i].side], j->pieces[i].last);
        at = j->packed && j->pieces[i].side == JOIN_RIGHT
                 ? join_pack_get(j->pack, p.bytes, p.count, at)
                 : put_bytes(at, p.bytes, p.count);
        *at++ = j->separator;
    }
    return at - 1;
}

/* The same, part by part; a row alone has the missing ones. */
cb_status join_put_parts(const cb_join *j, cbi_writer *out, join_row *rows, bool alone,
                         uint64_t *bytes, cb_error *err) {
    uint8_t room[JOIN_PACK_MAX + JOIN_PACK_SLACK];
    if (!alone)
        rows[JOIN_RIGHT] = join_unpacked(j, &rows[JOIN_RIGHT], room);
    for (size_t i = 0, shown = 0; i < j->piece_count; i++) {
        const join_piece *piece = &j->pieces[i];
        const join_text *text = &j->missing[i];
        join_part p = {text->bytes, text->count};
        if (!alone || piece->side == JOIN_LEFT)
            p = join_next_part(&rows[piece->side], piece->last);
        else if (!text->shown)
            continue;
        *bytes += p.count + (shown > 0);
        if (shown++ > 0)
            CB_TRY(cbi_writer_put(out, &j->separator, 1, err));
        CB_TRY(cbi_writer_put(out, p.bytes, p.count, err));
    }
    return CB_OK;
}

static cb_status put_result(cbi_job_worker *w, const cbi_stored *row, cb_error *err) {
    cb_join *j = w->own;
    join_reader *r = &j->readers[w->index];
    cbi_writer *out = &w->writer;
    uint8_t end = w->job->o.zero_terminated ? 0 : '\n';
    unsigned place_bytes = w->job->place_bytes;
    unsigned tag = row->key_bytes > place_bytes ? row->key[place_bytes] : JOIN_TAG_PAIR;
    if (w->range >= j->left_ranges || tag == JOIN_TAG_WHOLE)
        return cbi_writer_put_row(out, row->row, row->row_bytes, true, end, err);
    if (r->range != w->range)
        open_range(j, w, r);
    uint64_t place = cbi_place_get(row->key, place_bytes);
    CB_TRY(find_row(j, r, place + atomic_load_explicit(&j->starts[r->range], memory_order_relaxed),
                    err));
    join_row rows[2] = {left_of(j, r), {.bytes = row->row, .end = row->row + row->row_bytes}};
    if (rows[JOIN_LEFT].bytes == NULL)
        return cbi_fail(err, CB_EIO, "%s changed while it was being read",
                        cbi_input_name(j->sides[JOIN_LEFT].input, 0));
    size_t most =
        (size_t)(rows[JOIN_LEFT].end - rows[JOIN_LEFT].bytes) + j->piece_count + JOIN_PACK_SLACK;
    most += join_right_bytes(j, row->row, row->row_bytes);
    if (CBI_LIKELY(tag == JOIN_TAG_PAIR && most <= (size_t)(out->end - out->at))) {
        out->at = join_compose(j, rows, out->at);
        *out->at++ = end;
        return CB_OK;
    }
    uint64_t bytes = 0;
    CB_TRY(join_put_parts(j, out, rows, tag == JOIN_TAG_ALONE, &bytes, err));
    return cbi_writer_put(out, &end, 1, err);
}
