/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "base/alloc.h"
#include "carbide/dedupe.h"
#include "operator/group_lists.h"

/*
 * Deduplication: a group-by whose groups become one of their rows. Rows are read as a group-by
 * reads them (group_read.c), with the whole row among their texts, or as their key. A partition
 * that is back is one walk with a table of the best row so far for each key; whoever loses against
 * it is a duplicate and known to be one at once. A partition that does not fit is sorted by key and
 * walked in the same way, one key after another.
 */

struct cb_dedupe {
    cb_group g; /* first: what group_*.c sees */
    cb_keep keep;
    bool counts;
    char *duplicates, *aggregate;
    size_t row_column, by_column; /* of g.aggs; SIZE_MAX: none */
    bool by_text;
    uint8_t *header;
};

/* ---- which row stays ---- */

typedef struct candidate {
    const uint8_t *row; /* its text */
    uint32_t row_bytes;
    uint64_t position;
    bool has; /* a value to compare by */
    cbi_decimal number;
    list_text text;
} candidate;

static int compare_numbers(const cbi_decimal *a, const cbi_decimal *b) {
    if (a->scale == b->scale)
        return (a->value > b->value) - (a->value < b->value);
    uint64_t x[CBI_WIDE_SQUARE] = {0}, y[CBI_WIDE_SQUARE] = {0};
    cbi_wide_add_i128(x, CBI_WIDE_SQUARE, a->value);
    cbi_wide_add_i128(y, CBI_WIDE_SQUARE, b->value);
    bool fits = a->scale < b->scale
                    ? cbi_wide_shift10(x, CBI_WIDE_SQUARE, (unsigned)b->scale - a->scale)
                    : cbi_wide_shift10(y, CBI_WIDE_SQUARE, (unsigned)a->scale - b->scale);
    cb_assert(fits); /* 10^38 times 10^38 is less than 2^255 */
    cbi_wide_subtract(x, y, CBI_WIDE_SQUARE);
    bool zero = (x[0] | x[1] | x[2] | x[3]) == 0;
    return zero ? 0 : cbi_wide_negative(x, CBI_WIDE_SQUARE) ? -1 : 1;
}

static void open_candidate(const cb_dedupe *d, const cbi_stored *record, uint64_t order,
                           candidate *c) {
    group_payload payload;
    group_payload_get(&d->g, record, order, &payload);
    *c = (candidate){.row = record->key, .row_bytes = record->key_bytes, .has = false};
    c->position = payload.position;
    if (!d->g.row_is_key) {
        list_text row = list_text_of(&d->g, payload.body, d->row_column);
        c->row = row.at != NULL ? row.at : payload.body;
        c->row_bytes = row.bytes;
    }
    if (d->by_column == SIZE_MAX)
        return;
    if (d->by_text) {
        c->text = list_text_of(&d->g, payload.body, d->by_column);
        c->has = c->text.at != NULL;
    } else {
        bool null; /* the only number there is */
        (void)cbi_packed_get(payload.body, &c->number, &null);
        c->has = !null;
    }
}

/* Does `c` stay rather than `best`? */
static bool is_better(const cb_dedupe *d, const candidate *c, const candidate *best) {
    bool earlier = c->position < best->position;
    if (d->keep == CB_KEEP_LAST)
        return !earlier;
    if (d->by_column == SIZE_MAX)
        return earlier;
    if (!c->has || !best->has)
        return c->has != best->has ? c->has : earlier;
    int order = d->by_text ? cbi_compare_bytes(c->text.at, c->text.bytes, best->text.at,
                                               best->text.bytes, 0)
                           : compare_numbers(&c->number, &best->number);
    if (order == 0)
        return earlier;
    return d->keep == CB_KEEP_MAX ? order > 0 : order < 0;
}

/* ---- results ---- */

enum { COUNT_TEXT_MAX = 24 };

static size_t count_text(const cb_dedupe *d, uint64_t count, char *text) {
    if (!d->counts)
        return 0;
    if (d->g.delimited)
        return (size_t)snprintf(text, COUNT_TEXT_MAX, "%llu%c", (unsigned long long)count,
                                d->g.separator);
    return (size_t)snprintf(text, COUNT_TEXT_MAX, "%7llu ", (unsigned long long)count);
}

/* `key` orders the result where it is wanted sorted. */
static cb_status put_kept(const cb_dedupe *d, cbi_job_worker *w, const uint8_t *key,
                          uint32_t key_bytes, const candidate *c, uint64_t count, bool late,
                          cb_error *err) {
    char text[COUNT_TEXT_MAX];
    size_t text_bytes = count_text(d, count, text);
    group_result r;
    uint8_t *p;
    group_result_place(&d->g, c->position, d->g.sorted ? key : NULL, key_bytes, &r);
    group_result_count(&d->g, w, r.range, text_bytes + c->row_bytes);
    bool left = late && group_result_leave(&r, c->position, c->row_bytes);
    uint32_t kept = left ? (uint32_t)cbi_varint_bytes(c->row_bytes) : c->row_bytes;
    uint32_t bytes = (uint32_t)text_bytes + kept;
    CB_TRY(cbi_batch_begin(&w->batch, r.range, cbi_record_bytes(r.order_bytes, bytes), &p, err));
    p = cbi_record_put_key(p, r.order, r.order_bytes, bytes);
    if (left)
        p = cbi_varint_put(p, c->row_bytes);
    memcpy(p, text, text_bytes);
    p += text_bytes;
    if (!left)
        memcpy(p, c->row, c->row_bytes);
    return cbi_batch_end(&w->batch, left ? p : p + c->row_bytes, err);
}

static cb_status put_duplicate(const cb_dedupe *d, cbi_job_worker *w, const candidate *c,
                               cb_error *err) {
    if (d->duplicates == NULL)
        return CB_OK;
    group_result r;
    uint8_t *p;
    group_result_place(&d->g, c->position, NULL, 0, &r);
    uint32_t range = r.range + d->g.job.sizes.ranges;
    group_result_count(&d->g, w, range, c->row_bytes);
    CB_TRY(
        cbi_batch_begin(&w->batch, range, cbi_record_bytes(r.order_bytes, c->row_bytes), &p, err));
    p = cbi_record_put_key(p, r.order, r.order_bytes, c->row_bytes);
    memcpy(p, c->row, c->row_bytes);
    return cbi_batch_end(&w->batch, p + c->row_bytes, err);
}

/* ---- a partition ---- */

enum { BEST_RECORD, BEST_ORDER, BEST_COUNT, BEST_WORDS };

static size_t table_bytes(uint64_t rows) {
    uint64_t slots = 16;
    while (slots < rows + rows / 2)
        slots *= 2;
    return (size_t)(slots * 8 + (rows + 1) * (sizeof(group_entry) + BEST_WORDS * sizeof(uint64_t)) +
                    64);
}

static bool part_fits(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info) {
    (void)ctx;
    (void)index;
    return info->rows < UINT32_MAX / 2 && table_bytes(info->rows) <= job->sizes.work;
}

static void best_of(const cb_dedupe *d, const group_entry *e, candidate *best, cbi_stored *record) {
    (void)cbi_stored_get(&cbi_record_layout, (const uint8_t *)(uintptr_t)e->state[BEST_RECORD],
                         record);
    open_candidate(d, record, e->state[BEST_ORDER], best);
}

static cb_status add_record(const cb_dedupe *d, cbi_job_worker *w, group_table *t,
                            const uint8_t *start, const cbi_stored *record, uint64_t order,
                            uint64_t hash, cb_error *err) {
    size_t place = 0;
    group_entry *e = group_table_find(t, hash, record->key, record->key_bytes, &place);
    if (e == NULL) {
        e = group_table_add(t, hash, record->key, record->key_bytes, 0, place);
        cb_assert(e != NULL);
    } else {
        candidate c, best;
        cbi_stored other;
        open_candidate(d, record, order, &c);
        best_of(d, e, &best, &other);
        if (!is_better(d, &c, &best)) {
            e->state[BEST_COUNT]++;
            return put_duplicate(d, w, &c, err);
        }
        CB_TRY(put_duplicate(d, w, &best, err));
    }
    e->state[BEST_RECORD] = (uint64_t)(uintptr_t)start;
    e->state[BEST_ORDER] = order;
    e->state[BEST_COUNT]++;
    return CB_OK;
}

static cb_status end_key(const cb_dedupe *d, cbi_job_worker *w, const uint8_t *key,
                         uint32_t key_bytes, const candidate *best, uint64_t count, bool late,
                         cb_error *err) {
    if (d->keep == CB_KEEP_NONE && count > 1)
        return put_duplicate(d, w, best, err);
    return put_kept(d, w, key, key_bytes, best, count, late, err);
}

static cb_status work_on(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                         cb_error *err) {
    const cb_dedupe *d = ctx;
    cbi_partition_info info;
    cbi_partition_get_info(w->job->parts, index, &info);
    if (info.rows == 0)
        return CB_OK;
    group_table t;
    uint8_t *memory = w->work + (-(uintptr_t)w->work & 15);
    (void)group_table_init(&t, memory, w->job->sizes.work - 16, BEST_WORDS * sizeof(uint64_t),
                           (size_t)info.rows, 0);
    cbi_record_reader reader;
    cbi_record_reader_init(&reader, list);
    struct {
        const uint8_t *start;
        cbi_stored record;
        uint64_t order, hash;
    } batch[GROUP_BATCH];
    for (bool more = true; more;) {
        uint32_t n = 0;
        for (; n < GROUP_BATCH; n++) {
            batch[n].start = cbi_record_next(&reader, &batch[n].record);
            if (batch[n].start == NULL)
                break;
            batch[n].order = reader.order;
            batch[n].hash = cbi_job_hash(w->job, batch[n].record.key, batch[n].record.key_bytes);
            group_table_prefetch(&t, batch[n].hash);
        }
        more = n == GROUP_BATCH;
        for (uint32_t i = 0; i < n; i++)
            group_table_prefetch_entry(&t, batch[i].hash);
        for (uint32_t i = 0; i < n; i++)
            CB_TRY(add_record(d, w, &t, batch[i].start, &batch[i].record, batch[i].order,
                              batch[i].hash, err));
        if (cbi_job_stopped(w->job))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    bool late = group_late_worth(&d->g, t.count, w->job->demand.row_bytes);
    for (uint32_t i = 0; i < t.count; i++) {
        const group_entry *e = group_table_at(&t, i);
        candidate best;
        cbi_stored record;
        best_of(d, e, &best, &record);
        CB_TRY(end_key(d, w, record.key, record.key_bytes, &best, e->state[BEST_COUNT], late, err));
    }
    return CB_OK;
}

/* ---- a partition that does not fit ---- */

typedef struct big_dedupe {
    const cb_dedupe *d;
    cbi_job_worker *w;
    cbi_runs runs;
    uint8_t *record; /* the best so far, as it was stored */
    size_t room;
    cbi_room pages; /* it lies there, when it is larger than what the worker has */
    uint64_t order, count;
} big_dedupe;

static cb_status keep_record(big_dedupe *b, const cbi_stored *record, cb_error *err) {
    size_t bytes = cbi_record_bytes(record->key_bytes, record->row_bytes);
    if (CBI_UNLIKELY(bytes > b->room)) {
        b->room = 0;
        CB_TRY(cbi_room_need(&b->pages, b->w->job, b->runs.table.runs, bytes, err));
        b->record = b->pages.bytes;
        b->room = b->pages.size;
    }
    uint8_t *p = cbi_record_put_key(b->record, record->key, record->key_bytes, record->row_bytes);
    memcpy(p, record->row, record->row_bytes);
    b->order = group_run_order(record);
    return CB_OK;
}

static cb_status end_run(big_dedupe *b, cb_error *err) {
    candidate best;
    cbi_stored record;
    if (b->count == 0)
        return CB_OK;
    (void)cbi_stored_get(&cbi_record_layout, b->record, &record);
    open_candidate(b->d, &record, b->order, &best);
    uint64_t count = b->count;
    b->count = 0;
    return end_key(b->d, b->w, record.key, record.key_bytes, &best, count, false, err);
}

static cb_status merged_record(void *ctx, const cbi_stored *record, cb_error *err) {
    big_dedupe *b = ctx;
    cbi_stored kept;
    if (b->count > 0) {
        (void)cbi_stored_get(&cbi_record_layout, b->record, &kept);
        if (!cbi_same_key(&kept, record))
            CB_TRY(end_run(b, err));
    }
    if (b->count++ == 0)
        return keep_record(b, record, err);
    candidate c, best;
    open_candidate(b->d, record, group_run_order(record), &c);
    open_candidate(b->d, &kept, b->order, &best);
    if (!is_better(b->d, &c, &best))
        return put_duplicate(b->d, b->w, &c, err);
    CB_TRY(put_duplicate(b->d, b->w, &best, err));
    return keep_record(b, record, err);
}

static cb_status big_part(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err) {
    const cb_dedupe *d = ctx;
    cbi_job *job = w->job;
    big_dedupe b = {
        .d = d, .w = w, .runs = {.job = job}, .record = w->work, .room = job->sizes.work};
    cbi_partition_info info;
    CB_TRY(cbi_job_clear_memory(job, index, err));
    cbi_partition_get_info(job->parts, index, &info);
    uint64_t need =
        info.segments * job->sizes.segment + info.rows * (sizeof(cbi_entry) + CBI_ORDER_BYTES);
    cb_status status = cbi_runs_open(&b.runs, job, need, info.units_max, err);
    while (status == CB_OK) {
        cbi_segment *list;
        status = cbi_partition_next_part(job->parts, index, &list, err);
        if (status != CB_OK || list == NULL)
            break;
        status = cbi_partition_prefetch(job->parts, index, 2, err);
        cbi_record_reader reader;
        cbi_stored record;
        cbi_record_reader_init(&reader, list);
        while (status == CB_OK && cbi_record_next(&reader, &record) != NULL) {
            group_payload payload;
            group_payload_get(&d->g, &record, reader.order, &payload);
            record.order = payload.position;
            status = cbi_runs_add(&b.runs, &record, err);
        }
        cbi_segments_give(job->ground.pool, list);
        if (status == CB_OK && cbi_job_stopped(job))
            status = cbi_fail(err, CB_ECANCELED, "cancelled");
    }
    if (status == CB_OK)
        status = cbi_runs_merge(&b.runs, merged_record, &b, err);
    if (status == CB_OK)
        status = end_run(&b, err);
    cbi_room_give(&b.pages, job);
    cbi_runs_close(&b.runs);
    return status;
}

/* ---- the object ---- */

static cb_status check_options(const cb_dedupe_options *o, cb_error *err) {
    if (o->struct_size != sizeof *o)
        return cbi_fail(err, CB_EINVAL,
                        "cb_dedupe_options: struct_size is %zu, this library knows %zu",
                        o->struct_size, sizeof *o);
    if (o->key_count > 0 && o->keys == NULL)
        return cbi_fail(err, CB_EINVAL, "keys are counted but not given");
    if ((unsigned)o->keep > CB_KEEP_MIN)
        return cbi_fail(err, CB_EINVAL, "a way to keep rows that does not exist");
    bool by = o->keep == CB_KEEP_MAX || o->keep == CB_KEEP_MIN;
    if (o->duplicates != NULL && o->job.output != NULL && strcmp(o->duplicates, o->job.output) == 0)
        return cbi_fail(err, CB_EINVAL, "%s cannot take the rows that stay and those that do not",
                        o->duplicates);
    if (by != (o->keep_column != NULL))
        return cbi_fail(err, CB_EINVAL,
                        by ? "the row with the largest or smallest value of which column stays?"
                           : "a column is named that nothing is decided by");
    if (o->job.format == CB_FORMAT_FIXED && (o->key_count > 0 || by))
        return cbi_fail(err, CB_EUNSUPPORTED, "records of a fixed size have no columns");
    return CB_OK;
}

/* What records must carry, said as aggregates: the row, and the value that decides. */
static cb_status make_needs(cb_dedupe *d, const cb_dedupe_options *o, cb_error *err) {
    const char *list[2];
    size_t count = 0;
    if (o->key_count > 0)
        list[count++] = "first(row)";
    if (o->keep_column != NULL) {
        size_t bytes = strlen(o->keep_column) + 8;
        d->aggregate = cbi_alloc(bytes);
        if (d->aggregate == NULL)
            return cbi_fail(err, CB_ENOMEM, "no memory for a column's name");
        snprintf(d->aggregate, bytes, "max(%s)", o->keep_column);
        list[count++] = d->aggregate;
    }
    CB_TRY(cbi_aggregates_parse(list, count, &d->g.aggs, err));
    cbi_aggregates *a = d->g.aggs;
    a->lists = true; /* rows, no states */
    d->row_column = d->by_column = SIZE_MAX;
    for (size_t i = 0; i < a->column_count; i++)
        *(a->columns[i].row ? &d->row_column : &d->by_column) = i;
    d->by_text = d->by_column != SIZE_MAX && a->columns[d->by_column].text;
    return CB_OK;
}

cb_status cb_dedupe_create(const cb_dedupe_options *o, cb_dedupe **dedupe, cb_error *err) {
    CB_TRY(check_options(o, err));
    cb_dedupe *d = cbi_calloc(1, sizeof *d);
    if (d == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a deduplication");
    d->keep = o->keep;
    d->counts = o->counts;
    d->g.row_is_key = o->key_count == 0;
    d->g.sorted = o->sorted_output;
    cb_status status = cbi_job_init(&d->g.job, &o->job, "dedupe", err);
    if (status == CB_OK && o->duplicates != NULL) {
        d->duplicates = cbi_strdup(o->duplicates);
        if (d->duplicates == NULL)
            status = cbi_fail(err, CB_ENOMEM, "no memory for a file name");
    }
    if (status == CB_OK)
        status = group_split_keys(&d->g, o->keys, o->key_count, err);
    if (status == CB_OK)
        status = group_set_null(&d->g, o->null_text, err);
    if (status == CB_OK)
        status = make_needs(d, o, err);
    if (status != CB_OK) {
        cb_dedupe_destroy(d);
        return status;
    }
    *dedupe = d;
    return CB_OK;
}

/* The input's, with the count's name before it. */
static cb_status make_header(cb_dedupe *d, cb_error *err) {
    cbi_job *job = &d->g.job;
    size_t bytes;
    const uint8_t *header = cbi_input_header(job->input, &bytes);
    job->no_terminator = cbi_input_format(job->input)->kind == CB_FORMAT_FIXED;
    if (bytes == 0)
        return CB_OK;
    d->header = cbi_alloc(bytes + 8);
    if (d->header == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the header");
    size_t before = 0;
    if (d->counts && d->g.delimited) {
        memcpy(d->header, "count", 5);
        d->header[5] = d->g.separator;
        before = 6;
    }
    memcpy(d->header + before, header, bytes);
    job->header = d->header;
    job->header_bytes = before + bytes;
    return CB_OK;
}

static cb_status write_duplicates(cb_dedupe *d, cb_error *err) {
    cbi_job *job = &d->g.job;
    uint32_t ranges = job->sizes.ranges;
    if (d->duplicates == NULL)
        return CB_OK;
    size_t before = d->counts && d->g.delimited ? 6 : 0, bytes = job->header_bytes;
    job->header += before;
    job->header_bytes -= bytes > 0 ? before : 0;
    CB_TRY(cbi_job_write_ranges(job, ranges, 2 * ranges, d->duplicates, err));
    job->header -= before;
    job->header_bytes = bytes;
    return CB_OK;
}

static cb_status do_work(cb_dedupe *d, cb_error *err) {
    cb_group *g = &d->g;
    cbi_job *job = &g->job;
    cbi_input *input;
    cbi_job_phase(job, CB_PHASE_SAMPLE);
    CB_TRY(cbi_job_open_input(job, &input, err));
    CB_TRY(group_bind(g, err));
    g->display = false;
    CB_TRY(make_header(d, err));
    CB_TRY(cbi_job_make_memory(job, err));
    job->demand.outputs = d->duplicates != NULL ? 2 : 1;
    g->late_rows = true;
    g->places = !job->no_terminator && group_late_possible(g);
    CB_TRY(group_make_plan(g, 64, 8, err));
    CB_TRY(cbi_job_make_ready(job, err));
    CB_TRY(group_late_begin(g, err));
    CB_TRY(group_read(g, err));
    group_late_know_starts(g);
    CB_TRY(cbi_input_finish(job->input, err));
    uint32_t ranges = job->sizes.ranges * job->demand.outputs;
    CB_TRY(cbi_job_open_partitions(job, ranges, &job->results, err));
    cbi_job_phase(job, CB_PHASE_MERGE);
    cbi_job_pass pass = {.parts = job->parts,
                         .count = job->sizes.parts,
                         .ctx = d,
                         .fits = part_fits,
                         .work = work_on,
                         .big = big_part,
                         .hash = group_part_hash};
    job->short_keys = !g->sorted;
    CB_TRY(cbi_job_each(job, &pass, job->results, ranges, err));
    CB_TRY(write_duplicates(d, err));
    return cbi_job_write_results(job, err);
}

cb_status cb_dedupe_explain(cb_dedupe *d, cb_job_plan *plan, cb_error *err) {
    cb_error local = {.status = CB_OK};
    CB_TRY(cbi_job_explain(&d->g.job, plan, err));
    return cbi_job_explained(&d->g.job, do_work(d, &local), &local, err);
}

cb_status cb_dedupe_run(cb_dedupe *d, cb_error *err) {
    cbi_job *job = &d->g.job;
    if (job->ran)
        return cbi_fail(err, CB_EMISUSE, "this deduplication has been run already");
    job->ran = true;
    job->start_ns = cbi_sys_clock_ns();
    cb_error local = {.status = CB_OK};
    cb_status status = do_work(d, &local);
    return cbi_job_finish(job, status, &local, err);
}

void cb_dedupe_progress(const cb_dedupe *d, cb_progress *progress) {
    cbi_job_progress((cbi_job *)(uintptr_t)&d->g.job, progress);
}

void cb_dedupe_cancel(cb_dedupe *d) {
    cbi_job_cancel(&d->g.job);
}

void cb_dedupe_get_stats(const cb_dedupe *d, cb_job_stats *stats) {
    size_t size = stats->struct_size;
    *stats = d->g.job.stats;
    stats->struct_size = size;
}

void cb_dedupe_memory_tree(const cb_dedupe *d, char *text, size_t bytes) {
    cbi_job_memory_tree(&d->g.job, text, bytes);
}

void cb_dedupe_figures(const cb_dedupe *d, cb_figures *figures) {
    cbi_job_figures(&d->g.job, figures);
}

void cb_dedupe_destroy(cb_dedupe *d) {
    if (d == NULL)
        return;
    group_fini(&d->g);
    cbi_free(d->header);
    cbi_free(d->duplicates);
    cbi_free(d->aggregate);
    cbi_free(d);
}
