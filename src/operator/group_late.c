/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/group_private.h"

/*
 * Results leave their text in the input.
 *
 * What a group shows of its key is text of its first row, and what stays of a deduplication is
 * rows. Where groups are many that text is most of a result: it would go to a range of results, to
 * the disk and back, only to be copied once more. But results come out in the order of the rows
 * they begin with. So where the input is a file that can be read anywhere, positions are places in
 * it: of the key columns, if they stand there as they are shown, or of the row. A result takes its
 * place along, how many bytes there are, and what is not in the input (the aggregates); when a
 * range is written that part of the input is read once more from one end to the other. Nothing is
 * looked for in it.
 *
 * Whether that pays is seen partition by partition, when groups are known and before results are
 * made (group_late_worth); both kinds of results may stand in one range, told apart by the last bit
 * of their places. Rows whose text is not there as it is shown, and those that a buffer might not
 * hold, are known by the last bit of their positions, and bring it. A range's size in the output
 * must be known before it is written: each worker counts.
 */

typedef struct group_again {
    uint32_t range;
    cbi_reread from;
    cbi_chunk chunk; /* bytes of the input as they are */
} group_again;

/* ---- before ---- */

bool group_late_possible(const cb_group *g) {
    const cbi_job *job = &g->job;
    return !g->sorted && (g->delimited || g->late_rows) && job->o.input_count == 1 &&
           job->o.write == NULL && cbi_input_seekable(job->input);
}

static uint64_t range_bytes(const cbi_job *job, uint32_t range) {
    const cb_group *g = (const cb_group *)(const void *)job;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < job->sizes.threads; i++)
        bytes += g->range_bytes[(size_t)i * cbi_job_outputs(job) * job->sizes.ranges + range];
    return bytes;
}

static cb_status put_result(cbi_job_worker *w, const cbi_stored *row, cb_error *err);

cb_status group_late_begin(cb_group *g, cb_error *err) {
    const cbi_job_sizes *z = &g->job.sizes;
    if (!g->places)
        return CB_OK;
    g->starts = cbi_calloc((size_t)z->ranges + 1, sizeof *g->starts);
    g->range_bytes = cbi_calloc((size_t)z->ranges * cbi_job_outputs(&g->job) * z->threads,
                                sizeof *g->range_bytes);
    g->again = cbi_calloc(z->threads, sizeof *g->again);
    if (g->starts == NULL || g->range_bytes == NULL || g->again == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the starts of %u ranges", z->ranges);
    uint64_t bytes = cbi_input_bytes(g->job.input);
    g->range_scale = (double)z->ranges / ((double)bytes + 1);
    for (uint32_t r = 0; r <= z->ranges; r++)
        atomic_init(&g->starts[r], r < z->ranges ? UINT64_MAX : bytes);
    for (unsigned i = 0; i < z->threads; i++)
        g->again[i].range = UINT32_MAX;
    g->job.put_result = put_result;
    g->job.range_bytes = range_bytes;
    g->job.place_bytes = cbi_place_bytes(bytes, z->ranges);
    return CB_OK;
}

void group_late_end(cb_group *g) {
    cbi_free(g->starts);
    cbi_free(g->range_bytes);
    cbi_free(g->again);
}

/* ---- while rows are read ---- */

uint64_t group_position_at(const cb_group *g, const cbi_job_worker *w, size_t i) {
    group_row row = {.base = w->rows.base,
                     .row = w->rows.rows[i],
                     .fields = w->rows.fields + i * w->rows.field_count};
    const uint8_t *shown = row.base + row.row.offset;
    size_t bytes;
    if (!g->late_rows && !group_key_slice(g, &row, &shown, &bytes))
        shown = NULL;
    return group_position_of(w, i, shown);
}

/* The first row from `i` on that is not in `range`; rows.count if all are. */
static size_t next_range(const cb_group *g, const cbi_job_worker *w, size_t i, uint32_t range) {
    size_t end = w->rows.count;
    if (group_position_range(g, group_position_at(g, w, end - 1)) == range)
        return end;
    while (i < end) {
        size_t middle = i + (end - i) / 2;
        if (group_position_range(g, group_position_at(g, w, middle)) == range)
            i = middle + 1;
        else
            end = middle;
    }
    return i;
}

void group_late_note(cb_group *g, const cbi_job_worker *w, uint32_t *range) {
    size_t i = 0;
    if (w->rows.count > 0 && group_position_range(g, group_position_at(g, w, 0)) == *range)
        i = next_range(g, w, 0, *range);
    for (; i < w->rows.count; i = next_range(g, w, i, *range)) {
        uint64_t position = group_position_at(g, w, i);
        unsigned long long place = position >> 1, least;
        *range = group_position_range(g, position);
        least = atomic_load_explicit(&g->starts[*range], memory_order_relaxed);
        while (place < least && !atomic_compare_exchange_weak(&g->starts[*range], &least, place))
            continue;
    }
}

void group_late_know_starts(cb_group *g) {
    if (!g->places)
        return;
    for (uint32_t r = g->job.sizes.ranges; r-- > 0;)
        if (atomic_load(&g->starts[r]) == UINT64_MAX)
            atomic_store(&g->starts[r], atomic_load(&g->starts[r + 1]));
}

/* ---- while results are made ---- */

bool group_late_worth(const cb_group *g, uint64_t groups, double shown) {
    const cbi_job *job = &g->job;
    uint32_t parts = job->pass != NULL ? job->pass->scale : job->sizes.parts;
    return g->places &&
           (double)groups * parts * shown > GROUP_LATE_WORTH * (double)cbi_input_bytes(job->input);
}

uint32_t group_position_range(const cb_group *g, uint64_t position) {
    uint32_t ranges = g->job.sizes.ranges;
    if (g->places) {
        uint32_t range = (uint32_t)((double)(position >> 1) * g->range_scale);
        return range < ranges ? range : ranges - 1;
    }
    uint64_t chunks = atomic_load_explicit(&g->chunks, memory_order_relaxed);
    cbi_u128 part = (cbi_u128)(position >> CBI_ORDER_ROW_BITS) * ranges;
    return (uint32_t)(part / (chunks + (chunks == 0)));
}

void group_result_place(const cb_group *g, uint64_t first, const uint8_t *key, uint32_t key_bytes,
                        group_result *r) {
    if (g->sorted && key != NULL) {
        r->range = g->splitters != NULL ? cbi_splitters_find(g->splitters, key, key_bytes) : 0;
        r->order = key;
        r->order_bytes = key_bytes;
        return;
    }
    uint64_t order = first;
    r->range = group_position_range(g, first);
    r->order = r->position;
    r->order_bytes = sizeof r->position;
    if (g->places) { /* from the range's start on; the last bit: the text is here */
        order = (first >> 1) - atomic_load_explicit(&g->starts[r->range], memory_order_relaxed);
        r->order_bytes = g->job.place_bytes;
        order = (order << 1 | 1) << (64 - 8 * r->order_bytes);
    }
    cbi_store_u64(r->position, __builtin_bswap64(order));
}

bool group_result_leave(group_result *r, uint64_t first, size_t shown) {
    if ((first & 1) != 0 || shown > GROUP_LATE_MAX)
        return false;
    /* as one word: it is read as one right after this */
    uint64_t mask = ~((uint64_t)1 << (8 * (r->order_bytes - 1)));
    cbi_store_u64(r->position, cbi_load_u64(r->position) & mask);
    return true;
}

/* ---- rows again ---- */

static void open_range(const cb_group *g, const cbi_job_worker *w, group_again *r) {
    uint32_t range = w->range % g->job.sizes.ranges;
    *r = (group_again){.range = w->range, .from = {.end = atomic_load(&g->starts[range + 1])}};
    r->chunk = (cbi_chunk){.buf = w->reread, .capacity = g->job.sizes.chunk};
}

/* What stands behind a row, or behind one of its fields. */
static bool is_end(const cb_group *g, uint8_t byte) {
    const cbi_format *f = cbi_input_format(g->job.input);
    return byte == f->terminator || byte == '\r' || (g->delimited && byte == f->separator);
}

/* The `bytes` of the input at `place`, which were shown before to be a field's or a row's. */
static cb_status find_shown(const cb_group *g, group_again *r, uint64_t place, size_t bytes,
                            const uint8_t **shown, cb_error *err) {
    cbi_input *input = g->job.input;
    cbi_chunk *chunk = &r->chunk;
    uint64_t end = place + bytes, there = chunk->file_offset + chunk->bytes;
    if (CBI_UNLIKELY(bytes == 0)) { /* may be the input's end, behind which nothing can be read */
        *shown = chunk->buf;
        return CB_OK;
    }
    if (CBI_UNLIKELY(place < chunk->file_offset || end >= there)) {
        if (end != there || end != r->from.end) { /* nothing needs to follow what is last */
            r->from.at = place;
            CB_TRY(cbi_input_reread_bytes(input, &r->from, chunk, err));
            there = chunk->file_offset + chunk->bytes;
        }
    }
    *shown = chunk->buf + (place - chunk->file_offset);
    if (CBI_LIKELY(end < there ? is_end(g, (*shown)[bytes]) : end == there && end == r->from.end))
        return CB_OK;
    return cbi_fail(err, CB_EIO, "%s changed while it was being read: no field ends at byte %llu",
                    cbi_input_name(input, 0), (unsigned long long)end);
}

/* What a group of one row shows, then its numbers, which become text here. */
static cb_status put_numbers(const cb_group *g, cbi_writer *out, const uint8_t *shown, size_t bytes,
                             const uint8_t *packed, uint8_t end, cb_error *err) {
    enum { TEXT_MAX = GROUP_LEFT_COLUMNS * (1 + CBI_AS_IS_MAX) + 1 };
    const cbi_aggregates *a = g->aggs;
    cbi_value values[GROUP_LEFT_COLUMNS];
    uint8_t text[TEXT_MAX + CBI_AS_IS_SLACK], *p = text;
    bool here = bytes + sizeof text < (size_t)(out->end - out->at);
    (void)group_values_get(g, packed, values);
    if (CBI_LIKELY(here)) {
        cbi_copy_short(out->at, shown, bytes);
        p = out->at + bytes;
    }
    for (size_t i = 0; i < a->count; i++) {
        *p++ = g->separator;
        p = cbi_as_is_format(&a->items[i], values, p);
    }
    *p++ = end;
    if (CBI_LIKELY(here)) {
        out->at = p;
        return CB_OK;
    }
    CB_TRY(cbi_writer_put(out, shown, bytes, err));
    return cbi_writer_put(out, text, (size_t)(p - text), err);
}

static cb_status put_result(cbi_job_worker *w, const cbi_stored *row, cb_error *err) {
    const cb_group *g = (const cb_group *)(const void *)w->job;
    group_again *r = &g->again[w->index];
    cbi_writer *out = &w->writer;
    uint8_t end = w->job->o.zero_terminated ? 0 : '\n';
    uint64_t order = cbi_place_get(row->key, w->job->place_bytes);
    if ((order & 1) != 0)
        return cbi_writer_put_row(out, row->row, row->row_bytes, true, end, err);
    if (r->range != w->range)
        open_range(g, w, r);
    uint32_t left;
    const uint8_t *text = cbi_varint_get(row->row, &left), *shown = NULL;
    uint32_t bytes = g->late_rows ? left : left >> 1;
    size_t text_bytes = (size_t)(row->row + row->row_bytes - text);
    uint64_t start =
        atomic_load_explicit(&g->starts[w->range % w->job->sizes.ranges], memory_order_relaxed);
    CB_TRY(find_shown(g, r, (order >> 1) + start, bytes, &shown, err));
    if (g->late_rows) {
        CB_TRY(cbi_writer_put(out, text, text_bytes, err));
        return cbi_writer_put_row(out, shown, bytes, true, end, err);
    }
    if (CBI_LIKELY((left & 1) != 0))
        return put_numbers(g, out, shown, bytes, text, end, err);
    if (CBI_LIKELY(bytes + text_bytes < (size_t)(out->end - out->at))) {
        cbi_copy_short(out->at, shown, bytes);
        out->at += bytes;
        cbi_copy_short(out->at, text, text_bytes);
        out->at += text_bytes;
        *out->at++ = end;
        return CB_OK;
    }
    CB_TRY(cbi_writer_put(out, shown, bytes, err));
    return cbi_writer_put_row(out, text, text_bytes, true, end, err);
}
