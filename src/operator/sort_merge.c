/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/sort_private.h"

/*
 * Inputs that are sorted already: merging them (-m) and checking that one is (-c).
 *
 * Each input is read by a reader of two halves, used in turn, so that the row before the current
 * one stays readable even when the current one begins a new chunk. If the memory does not allow a
 * reader for every input, groups of them are merged into runs first.
 */

typedef struct reader {
    cbi_source source;
    cb_sort *sort;
    cbi_input *input;
    bool own_input;
    sort_worker half[2];
    unsigned now;
    size_t at, row; /* in the chunk, in the batch */
    uint64_t order;
    bool ended;
} reader;

static cb_status reader_next(cbi_source *source, cbi_stored *row, bool *more, cb_error *err) {
    reader *r = (reader *)source;
    *more = false;
    while (r->row == r->half[r->now].rows.count) {
        if (r->ended)
            return CB_OK;
        sort_worker *old = &r->half[r->now], *w = &r->half[r->now ^ 1];
        r->row = 0;
        if (r->at < old->chunk.bytes) {
            /* The same chunk goes on: the other half looks at it, so that the old batch's keys
             * stay. */
            w->chunk.rows = old->chunk.rows;
            w->chunk.bytes = old->chunk.bytes;
            w->chunk.file = old->chunk.file;
            w->chunk.file_offset = old->chunk.file_offset;
            w->chunk.sequence = old->chunk.sequence;
        } else {
            if (old->chunk.rows >= w->chunk.buf &&
                old->chunk.rows < w->chunk.buf + w->chunk.capacity) {
                /* The chunk lies in the other half's buffer: read into this one's. */
                uint8_t *buf = old->chunk.buf;
                size_t capacity = old->chunk.capacity, big_units = old->big_units;
                uint8_t *big = old->big, *home = old->chunk_home;
                old->chunk.buf = w->chunk.buf;
                old->chunk.capacity = w->chunk.capacity;
                old->big = w->big;
                old->big_units = w->big_units;
                old->chunk_home = w->chunk_home;
                w->chunk.buf = buf;
                w->chunk.capacity = capacity;
                w->big = big;
                w->big_units = big_units;
                w->chunk_home = home;
            }
            memset(w->chunk.pending, 0, sizeof w->chunk.pending);
            CB_TRY(cbi_worker_next_chunk(w, err));
            r->at = 0;
            if (w->chunk.bytes == 0) {
                r->ended = true;
                w->rows.count = 0;
                r->now ^= 1;
                return CB_OK;
            }
        }
        CB_TRY(cbi_worker_next_rows(w, &r->at, err));
        r->now ^= 1;
    }
    *row = cbi_worker_row(&r->half[r->now], r->row++);
    row->order = r->order++;
    *more = true;
    atomic_fetch_add_explicit(&r->sort->rows_in, 1, memory_order_relaxed);
    return CB_OK;
}

static void reader_init(reader *r, cb_sort *s, cbi_input *input, bool own, uint8_t *scratch,
                        uint64_t order) {
    *r = (reader){.source = {.next = reader_next},
                  .sort = s,
                  .input = input,
                  .own_input = own,
                  .order = order};
    for (unsigned h = 0; h < 2; h++) {
        r->half[h] =
            (sort_worker){.sort = s, .input = input, .scratch = scratch + h * s->sizes.worker};
        cbi_worker_layout(&r->half[h]);
    }
}

static void reader_fini(reader *r) {
    for (unsigned h = 0; h < 2 && r->sort != NULL; h++)
        cbi_worker_end_input(&r->half[h]);
    if (r->own_input)
        cbi_input_close(r->input);
    r->sort = NULL;
    r->own_input = false;
}

/* ---- merge ---- */

typedef struct merge_work {
    reader *readers;
    cbi_source **sources;
    uint32_t *tree;
    uint8_t *scratch;
    size_t units;   /* pool segments of all scratch */
    uint32_t width; /* readers at a time */
} merge_work;

static cb_status open_reader(cb_sort *s, merge_work *m, uint32_t slot, size_t path, cb_error *err) {
    cbi_input *input = s->input;
    if (path > 0) {
        CB_TRY(cbi_sort_open_input(s, path, 1, &input, err));
        size_t a_bytes, b_bytes;
        const uint8_t *a = cbi_input_header(s->input, &a_bytes),
                      *b = cbi_input_header(input, &b_bytes);
        if (a_bytes != b_bytes || (a_bytes > 0 && memcmp(a, b, a_bytes) != 0)) {
            cbi_input_close(input);
            return cbi_fail(err, CB_EDATA, "%s:1:1: the header differs from that of %s",
                            s->o.inputs[path], s->o.inputs[0]);
        }
    }
    reader_init(&m->readers[slot], s, input, path > 0,
                m->scratch + (size_t)slot * 2 * s->sizes.worker, (uint64_t)path << 44);
    m->sources[slot] = &m->readers[slot].source;
    return CB_OK;
}

static void close_readers(merge_work *m) {
    for (uint32_t i = 0; i < m->width; i++)
        reader_fini(&m->readers[i]);
}

static cb_status merge_groups(cb_sort *s, merge_work *m, cb_error *err) {
    for (size_t path = 0; path < s->o.input_count;) {
        uint32_t n = 0;
        for (; n < m->width && path < s->o.input_count; n++, path++)
            CB_TRY(open_reader(s, m, n, path, err));
        CB_TRY(cbi_run_table_merge_to_run(&s->runs, m->sources, n, m->tree, err));
        s->stats.runs++;
        close_readers(m);
    }
    s->passes = 1;
    return CB_OK;
}

static cb_status merge_directly(cb_sort *s, merge_work *m, cb_error *err) {
    uint32_t n = (uint32_t)cbi_max(s->o.input_count, 1);
    for (uint32_t i = 0; i < n; i++)
        CB_TRY(open_reader(s, m, i, i, err));
    return cbi_merge(m->sources, n, m->tree, &s->run_layout, s->o.unique, &s->stop, cbi_sort_emit,
                     &s->workers[0], err);
}

cb_status cbi_sort_merge_inputs(cb_sort *s, cb_error *err) {
    merge_work m = {.width = 0};
    size_t each = cbi_round_up(2 * s->sizes.worker, s->sizes.segment);
    size_t inputs = cbi_max(s->o.input_count, 1);
    size_t most = s->sizes.segments * s->sizes.segment * 3 / 4 / each;
    if (s->o.merge_width_max >= 2)
        most = cbi_min(most, s->o.merge_width_max);
    m.width = (uint32_t)cbi_clamp(inputs, 1, cbi_max(most, 2));
    m.units = m.width * each / s->sizes.segment;
    m.readers = cbi_calloc(m.width, sizeof *m.readers);
    m.sources = cbi_calloc(m.width, sizeof *m.sources);
    m.tree = cbi_calloc(m.width + 1, sizeof *m.tree);
    cb_status status = CB_OK;
    if (m.readers == NULL || m.sources == NULL || m.tree == NULL)
        status = cbi_fail(err, CB_ENOMEM, "no memory to merge %zu inputs", inputs);
    if (status == CB_OK)
        status =
            cbi_sort_open_runs(s, (uint32_t)(inputs / m.width * 2 + 16), s->sizes.run_batch, err);
    if (status == CB_OK)
        m.scratch = cb_segment_pool_take(s->ground.pool, m.units);
    if (status == CB_OK && m.scratch == NULL)
        status = cbi_fail_bytes(err, CB_EBUDGET, m.units * s->sizes.segment, s->sizes.budget * 2,
                                "%zu inputs cannot be merged in a budget of %llu bytes", inputs,
                                (unsigned long long)s->sizes.budget);
    if (status == CB_OK)
        status = cbi_sort_begin_output(s, err);
    cbi_sort_phase(s, CB_PHASE_WRITE);
    bool grouped = inputs > m.width;
    if (status == CB_OK)
        status = grouped ? merge_groups(s, &m, err) : merge_directly(s, &m, err);
    if (m.readers != NULL)
        close_readers(&m);
    if (m.scratch != NULL)
        cb_segment_pool_give(s->ground.pool, m.scratch, m.units);
    if (status == CB_OK && grouped)
        status = cbi_sort_merge_runs(&s->workers[0], err);
    if (status == CB_OK)
        status = cbi_sort_end_output(s, err);
    cbi_free(m.tree);
    cbi_free(m.sources);
    cbi_free(m.readers);
    return status;
}

/* ---- check ---- */

/* The row's beginning as a string: a NUL byte becomes "\0" and ends nothing. */
static void show_row(const cbi_stored *row, char *out, size_t room) {
    size_t used = 0;
    for (size_t i = 0; i < row->row_bytes && used + 2 < room; i++) {
        if (row->row[i] == 0) {
            out[used++] = '\\';
            out[used++] = '0';
        } else {
            out[used++] = (char)row->row[i];
        }
    }
    out[used] = '\0';
}

static cb_status disorder(cb_sort *s, uint64_t number, const cbi_stored *row, cb_error *err) {
    char shown[401];
    show_row(row, shown, sizeof shown);
    size_t header;
    (void)cbi_input_header(s->input, &header);
    return cbi_fail(err, CB_EDISORDER, "%s:%llu: disorder: %s", cbi_input_name(s->input, 0),
                    (unsigned long long)(number + (header > 0 ? 1 : 0)), shown);
}

cb_status cbi_sort_check(cb_sort *s, cb_error *err) {
    reader r;
    size_t units = cbi_round_up(2 * s->sizes.worker, s->sizes.segment) / s->sizes.segment;
    uint8_t *scratch = cb_segment_pool_take(s->ground.pool, units);
    if (scratch == NULL)
        return cbi_fail_bytes(err, CB_EBUDGET, units * s->sizes.segment, s->sizes.budget * 2,
                              "a budget of %llu bytes is too small",
                              (unsigned long long)s->sizes.budget);
    reader_init(&r, s, s->input, false, scratch, 0);
    cbi_sort_phase(s, CB_PHASE_READ);
    cbi_stored before = {.key = NULL}, row;
    cb_status status = CB_OK;
    for (uint64_t n = 1; status == CB_OK; n++) {
        bool more;
        status = reader_next(&r.source, &row, &more, err);
        if (status != CB_OK || !more)
            break;
        if (before.key != NULL) {
            int c = cbi_compare_stored(&s->layout, &before, &row);
            if (c > 0 || (s->o.unique && cbi_same_key(&before, &row)))
                status = disorder(s, n, &row, err);
        }
        before = row;
        if ((n & 4095) == 0 && cbi_sort_stopped(s))
            status = cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    reader_fini(&r);
    cb_segment_pool_give(s->ground.pool, scratch, units);
    return status;
}
