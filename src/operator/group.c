/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "operator/group_block.h"

/*
 * Group-by as an object: options in, work done, figures out. The work is in group_read.c (rows in),
 * group_states.c and group_lists.c (partitions), job_out.c (results).
 */

/* ---- keys ---- */

/* Splits "a,b" at commas outside of double quotes. */
cb_status group_split_keys(cb_group *g, const char *const *keys, size_t count, cb_error *err) {
    size_t bytes = 1, most = 1;
    for (size_t i = 0; i < count; i++) {
        bytes += strlen(keys[i]) + 1;
        for (const char *p = keys[i]; *p != 0; p++)
            most += *p == ',';
        most++;
    }
    g->strings = cbi_alloc(bytes);
    g->keys = cbi_calloc(most, sizeof *g->keys);
    g->key_columns = cbi_calloc(most, sizeof *g->key_columns);
    if (g->strings == NULL || g->keys == NULL || g->key_columns == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu keys", count);
    char *at = g->strings;
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(keys[i]) + 1;
        memcpy(at, keys[i], n);
        bool quoted = false;
        char *from = at;
        for (char *p = at; p < at + n; p++) {
            quoted ^= *p == '"';
            if (*p != 0 && (*p != ',' || quoted))
                continue;
            *p = 0;
            if (p == from)
                return cbi_fail(err, CB_EINVAL, "key '%.120s' has an empty name in it", keys[i]);
            g->keys[g->key_count++] = from;
            from = p + 1;
        }
        at += n;
    }
    return CB_OK;
}

static cb_status check_options(const cb_group_options *o, cb_error *err) {
    if (o->struct_size != sizeof *o)
        return cbi_fail(err, CB_EINVAL,
                        "cb_group_options: struct_size is %zu, this library knows %zu",
                        o->struct_size, sizeof *o);
    if ((o->key_count > 0 && o->keys == NULL) || (o->aggregate_count > 0 && o->aggregates == NULL))
        return cbi_fail(err, CB_EINVAL, "keys or aggregates are counted but not given");
    if (o->key_count == 0 && o->aggregate_count == 0)
        return cbi_fail(err, CB_EINVAL, "a group needs keys, or aggregates, or both");
    if (o->job.format == CB_FORMAT_FIXED)
        return cbi_fail(err, CB_EUNSUPPORTED, "records of a fixed size cannot be grouped");
    return CB_OK;
}

cb_status group_set_null(cb_group *g, const char *text, cb_error *err) {
    if (text == NULL || *text == '\0')
        return CB_OK;
    g->null_text = cbi_strdup(text);
    if (g->null_text == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for what a missing value looks like");
    g->null_bytes = strlen(text);
    return CB_OK;
}

cb_status cb_group_create(const cb_group_options *o, cb_group **group, cb_error *err) {
    CB_TRY(check_options(o, err));
    cb_group *g = cbi_calloc(1, sizeof *g);
    if (g == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a group-by");
    cb_status status = cbi_job_init(&g->job, &o->job, "group", err);
    if (status == CB_OK)
        status = group_split_keys(g, o->keys, o->key_count, err);
    if (status == CB_OK)
        status = group_set_null(g, o->null_text, err);
    if (status == CB_OK)
        status = cbi_aggregates_parse(o->aggregates, o->aggregate_count, &g->aggs, err);
    if (status != CB_OK) {
        cb_group_destroy(g);
        return status;
    }
    g->sorted = o->sorted_output && g->key_count > 0;
    *group = g;
    return CB_OK;
}

/* The name at the start of a key, quotes undone in place of `name`; answers what follows it. */
static const char *key_name(const char *key, char *name, size_t cap, size_t *bytes) {
    size_t n = 0;
    const char *p = key;
    if (strncmp(p, "name=", 5) == 0)
        p += 5;
    if (*p == '"') {
        for (p++; *p != 0 && (*p != '"' || p[1] == '"'); p++) {
            p += *p == '"';
            if (n < cap)
                name[n++] = *p;
        }
        p += *p == '"';
    } else {
        for (; *p != 0 && *p != ':'; p++)
            if (n < cap)
                name[n++] = *p;
    }
    *bytes = n;
    return p;
}

static cb_status find_keys(cb_group *g, const char *const *names, size_t name_count, size_t columns,
                           cb_error *err) {
    g->plain = !g->sorted;
    for (size_t i = 0; i < g->key_count; i++) {
        char name[1024];
        size_t bytes;
        const char *rest = key_name(g->keys[i], name, sizeof name, &bytes);
        CB_TRY(cbi_column_find(name, bytes, names, name_count, columns, &g->key_columns[i].column,
                               err));
        if (*rest != 0 && strcmp(rest, ":str") != 0)
            g->plain = false;
    }
    g->display = !g->plain;
    return CB_OK;
}

/* ---- columns ---- */

static int compare_columns(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t slot_of(const cb_group *g, uint32_t column) {
    uint32_t low = 0, high = (uint32_t)g->column_count;
    while (low + 1 < high) {
        uint32_t middle = (low + high) / 2;
        if (g->columns[middle] <= column)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static cb_status collect_columns(cb_group *g, cb_error *err) {
    const cbi_aggregates *a = g->aggs;
    size_t n = 0, most = g->key_count + a->column_count;
    g->columns = cbi_calloc(most + 1, sizeof *g->columns);
    g->scales = cbi_calloc(a->column_count + 1, 1);
    g->largest = cbi_calloc(a->column_count + 1, sizeof *g->largest);
    g->sample_scales = cbi_calloc(a->column_count + 1, 1);
    g->sample_nulls = cbi_calloc(a->column_count + 1, sizeof *g->sample_nulls);
    if (g->columns == NULL || g->scales == NULL || g->largest == NULL || g->sample_scales == NULL ||
        g->sample_nulls == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu columns", most);
    for (size_t i = 0; i < g->key_count; i++)
        g->columns[n++] = g->key_columns[i].column;
    for (size_t i = 0; i < a->column_count; i++)
        if (!a->columns[i].row)
            g->columns[n++] = a->columns[i].column;
    qsort(g->columns, n, sizeof *g->columns, compare_columns);
    for (size_t i = 0; i < n; i++)
        if (g->column_count == 0 || g->columns[g->column_count - 1] != g->columns[i])
            g->columns[g->column_count++] = g->columns[i];
    for (size_t i = 0; i < g->key_count; i++)
        g->key_columns[i].slot = slot_of(g, g->key_columns[i].column);
    for (size_t i = 0; i < a->column_count; i++) {
        cbi_agg_column *c = &a->columns[i];
        c->slot = c->row ? 0 : slot_of(g, c->column);
        g->packed_max += c->packed ? CBI_PACKED_MAX : 0;
        g->text_count += c->text;
    }
    return CB_OK;
}

/* Keys whose values are the same though their bytes are not, or that must be in order. */
static cb_status make_typed_keys(cb_group *g, const char *const *names, size_t name_count,
                                 cb_error *err) {
    const cbi_format *f = cbi_input_format(g->job.input);
    char *memory;
    const char **texts;
    size_t bytes = g->key_count * (sizeof *texts + 32);
    for (size_t i = 0; i < g->key_count; i++)
        bytes += strlen(g->keys[i]);
    memory = cbi_alloc(bytes);
    if (memory == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for keys");
    texts = (const char **)(void *)memory;
    char *at = memory + g->key_count * sizeof *texts;
    for (size_t i = 0; i < g->key_count; i++) { /* by number: names have been found */
        char name[1024];
        size_t n;
        const char *rest = key_name(g->keys[i], name, sizeof name, &n);
        texts[i] = at;
        at += sprintf(at, "%u%s", g->key_columns[i].column + 1, *rest != 0 ? rest : ":str") + 1;
    }
    cbi_keys_options options = {
        .keys = texts,
        .key_count = g->key_count,
        .field_separator = g->delimited ? -1 : g->line_separator,
        .format = (int)f->kind,
    };
    cb_status status = cbi_keys_create(&options, &g->typed, err);
    if (status == CB_OK)
        status = cbi_keys_bind(g->typed, names, name_count, err);
    cbi_free(memory);
    CB_TRY(status);
    const uint32_t *columns;
    g->typed_count = cbi_keys_columns(g->typed, &columns);
    if (g->typed_count > sizeof g->typed_slots / sizeof g->typed_slots[0])
        return cbi_fail(err, CB_EUNSUPPORTED, "%zu keys with types; there can be %zu",
                        g->typed_count, sizeof g->typed_slots / sizeof g->typed_slots[0]);
    for (size_t i = 0; i < g->typed_count; i++)
        g->typed_slots[i] = slot_of(g, columns[i]);
    return CB_OK;
}

/* ---- the header ---- */

static cb_status make_header(cb_group *g, const char *const *names, size_t name_count,
                             cb_error *err) {
    if (name_count == 0)
        return CB_OK;
    size_t bytes = 2;
    for (size_t i = 0; i < g->key_count; i++)
        bytes += 2 * strlen(names[g->key_columns[i].column]) + 3;
    for (size_t i = 0; i < g->aggs->count; i++)
        bytes += 2 * strlen(g->aggs->items[i].name) + 3;
    g->header = cbi_alloc(bytes);
    if (g->header == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the header");
    uint8_t *p = g->header;
    for (size_t i = 0; i < g->key_count + g->aggs->count; i++) {
        const char *name = i < g->key_count ? names[g->key_columns[i].column]
                                            : g->aggs->items[i - g->key_count].name;
        if (i > 0)
            *p++ = g->separator;
        p = group_put_field(g, p, (const uint8_t *)name, strlen(name));
    }
    *p++ = g->job.o.zero_terminated ? 0 : '\n';
    g->job.header = g->header;
    g->job.header_bytes = (size_t)(p - g->header);
    return CB_OK;
}

/* ---- what is known before the start ---- */

cb_status group_bind(cb_group *g, cb_error *err) {
    cbi_input *input = g->job.input;
    const cbi_format *f = cbi_input_format(input);
    size_t name_count;
    const char *const *names = cbi_input_names(input, &name_count);
    if (f->kind == CB_FORMAT_FIXED && !g->row_is_key)
        return cbi_fail(err, CB_EUNSUPPORTED, "records of a fixed size cannot be grouped");
    g->delimited = f->kind == CB_FORMAT_CSV || f->kind == CB_FORMAT_TSV;
    g->quoting = f->kind == CB_FORMAT_CSV;
    g->line_separator = g->job.o.has_field_separator ? g->job.o.field_separator : -1;
    g->separator = g->delimited             ? f->separator
                   : g->line_separator >= 0 ? (uint8_t)g->line_separator
                                            : (uint8_t)'\t';
    g->guarded =
        g->quoting && g->separator != 0 && strchr("0123456789.+-einaf;", g->separator) != NULL;
    CB_TRY(find_keys(g, names, name_count, g->delimited ? f->columns : 0, err));
    CB_TRY(cbi_aggregates_bind(g->aggs, names, name_count, g->delimited ? f->columns : 0, err));
    CB_TRY(collect_columns(g, err));
    if (!g->plain && !g->row_is_key)
        CB_TRY(make_typed_keys(g, names, name_count, err));
    return make_header(g, names, name_count, err);
}

static void sample_number(cb_group *g, const group_row *row, size_t column, cbi_span span) {
    cbi_decimal d = {.scale = 0};
    g->sample_nulls[column] |= CBI_SPAN_BYTES(span) == 0;
    if (g->aggs->columns[column].number && !g->aggs->columns[column].real &&
        cbi_decimal_parse(row->base, row->base + span.offset, CBI_SPAN_BYTES(span), &d) ==
            CBI_NUMBER)
        g->sample_scales[column] = (uint8_t)cbi_max(g->sample_scales[column], d.scale);
}

/* Which characters keys are made of. */
static void sample_key(cb_group *g, const group_row *row, size_t bytes) {
    uint8_t text[256];
    g->sample_key_bytes += (double)bytes;
    if (!g->plain || g->row_is_key || bytes > sizeof text)
        return;
    (void)group_put_display(g, row, text);
    const uint8_t *from;
    size_t piece;
    g->sample_slices += group_key_slice(g, row, &from, &piece);
    for (size_t i = 0; i < bytes; i++)
        g->sample_times[text[i]]++;
    cbi_brief_see(&g->sample_common, text, bytes);
}

/* What a record of this row will take. */
static void sample_row(void *ctx, const cbi_rows *rows, size_t i) {
    cb_group *g = ctx;
    g->sample_rows++;
    g->sample_row_bytes += rows->rows[i].bytes + 1;
    if (!g->delimited && !g->row_is_key) {
        g->sample_record_bytes += 24 + rows->rows[i].bytes * 0.5 + (double)g->packed_max / 4;
        return;
    }
    group_row row = {
        .base = rows->base, .row = rows->rows[i], .fields = rows->fields + i * rows->field_count};
    size_t display = g->row_is_key ? 0 : group_display_bytes(g, &row);
    sample_key(g, &row, display);
    double bytes = 4 + 2 + (double)display;
    for (size_t k = 0; k < g->aggs->column_count; k++) {
        const cbi_agg_column *c = &g->aggs->columns[k];
        if (!c->row && !g->delimited)
            continue;
        cbi_span span = c->row ? row.row : row.fields[c->slot];
        if (c->packed) {
            bytes += c->real ? 9 : 1 + (double)CBI_SPAN_BYTES(span) * 0.45;
            sample_number(g, &row, k, span);
        }
        if (c->text)
            bytes += 1 + (double)CBI_SPAN_BYTES(span);
    }
    if (g->row_is_key) {
        bytes += (double)rows->rows[i].bytes;
        if (g->sample_memory != NULL)
            (void)cbi_sample_add(&g->sample, rows->base + rows->rows[i].offset, rows->rows[i].bytes,
                                 false);
    } else if (!g->plain) {
        uint8_t key[1024];
        cbi_span fields[1024];
        cbi_rows one = {.base = rows->base,
                        .count = 1,
                        .rows = &rows->rows[i],
                        .fields = fields,
                        .field_count = g->typed_count};
        for (size_t k = 0; k < g->typed_count; k++)
            fields[k] = row.fields[g->typed_slots[k]];
        size_t n = cbi_keys_encode(g->typed, &one, 0, key, sizeof key);
        bytes += 2 + (double)n;
        if (g->sample_memory != NULL)
            (void)cbi_sample_add(&g->sample, key, cbi_min(n, sizeof key), false);
    }
    g->sample_record_bytes += bytes;
}

/* Are keys made brief? Only where they can be found in the input again. */
static void choose_brief(cb_group *g, double rows) {
    static const double OTHERS_MAX = 0.1, WORTH_BYTES = 8, SLICES_LEAST = 0.9;
    double mean = g->sample_key_bytes / rows;
    double others = cbi_brief_init(&g->alphabet, g->sample_times, &g->sample_common);
    g->brief = g->places && g->plain && !g->row_is_key && others < OTHERS_MAX &&
               g->sample_slices > SLICES_LEAST * rows && mean >= WORTH_BYTES &&
               group_block_possible(g);
    if (g->brief)
        g->sample_record_bytes -=
            rows * (mean * (0.5 - others) - 1 + __builtin_popcountll(g->alphabet.fixed) / 2.0);
}

enum { SORT_SAMPLE_BYTES = 256 * 1024 };

cb_status group_make_plan(cb_group *g, double work_bytes, double result_bytes, cb_error *err) {
    cbi_job *job = &g->job;
    cbi_job_demand *d = &job->demand;
    cb_page page;
    bool page_taken = false;
    if (g->sorted && cbi_input_seekable(job->input)) {
        CB_TRY(cb_page_alloc(job->ground.consumer, SORT_SAMPLE_BYTES, &page, err));
        page_taken = true;
        g->sample_memory = cb_page_data(&page);
        cbi_sample_init(&g->sample, g->sample_memory, SORT_SAMPLE_BYTES);
    }
    cb_status status = cbi_job_sample(job, job->input, g->columns,
                                      g->delimited ? g->column_count : 0, sample_row, g, err);
    for (size_t i = 0; g->sample_rows < 1 && i < g->aggs->column_count; i++)
        g->sample_nulls[i] = true; /* nothing is known */
    double rows = g->sample_rows > 0 ? g->sample_rows : 1;
    choose_brief(g, rows);
    d->row_bytes = g->sample_rows > 0 ? g->sample_row_bytes / rows : 60;
    d->record_bytes = g->sample_rows > 0 ? g->sample_record_bytes / rows : 40;
    if (cbi_input_seekable(job->input))
        d->stored_bytes =
            (double)cbi_input_bytes(job->input) / d->row_bytes * (d->record_bytes + 0.5);
    if (d->stored_bytes < 1 && cbi_input_seekable(job->input))
        d->stored_bytes = 1;
    d->fields = g->delimited ? g->column_count : 0;
    d->rereads = g->places;
    d->read_extra = group_worker_bytes(g);
    d->work_factor = work_bytes / d->record_bytes;
    d->result_factor = (result_bytes + 12 + d->record_bytes * 0.9) / d->record_bytes;
    if (g->places) { /* results that keep their text are few */
        double few = GROUP_LATE_WORTH * d->row_bytes * 1.5, late = result_bytes + 12;
        d->result_factor = (late > few ? late : few) / d->record_bytes;
        d->result_rows = (double)cbi_input_bytes(job->input) / d->row_bytes;
    }
    if (status == CB_OK)
        status = cbi_job_size(job, err);
    if (status == CB_OK && g->sample_memory != NULL && g->sample.count > 0)
        status = cbi_splitters_create(&g->sample, job->sizes.ranges, false, &g->splitters, err);
    if (status == CB_OK && g->splitters != NULL &&
        cbi_splitters_ranges(g->splitters) > job->sizes.ranges) { /* heavy keys have their own */
        cbi_splitters_destroy(g->splitters);
        g->splitters = NULL;
        status = cbi_splitters_create(&g->sample, (job->sizes.ranges + 1) / 2, false, &g->splitters,
                                      err);
    }
    if (status == CB_OK && g->splitters != NULL)
        job->sizes.ranges = cbi_splitters_ranges(g->splitters);
    if (page_taken) {
        cb_error ignored;
        cb_status freed = cb_page_free(job->ground.consumer, &page, &ignored);
        cb_assert(freed == CB_OK);
        g->sample_memory = NULL;
    }
    return status;
}

/* At most: a digit, quotes around it, what stands before it. */
enum { EMPTY_TEXT = 4 };

static size_t put_empty_text(const cb_group *g, const uint64_t *state, uint8_t *text) {
    uint8_t *p = text;
    for (size_t i = 0; i < g->aggs->count; i++) {
        const cbi_aggregate *item = &g->aggs->items[i];
        if (i > 0)
            *p++ = g->separator;
        uint8_t *from = p;
        if (cbi_aggregate_fixed(item))
            (void)cbi_state_format(g->aggs, item, g->scales, state, p, &p);
        else if (item->kind == CBI_AGG_DISTINCT || item->kind == CBI_AGG_APPROX)
            *p++ = '0';
        p = group_guard_number(g, from, p);
    }
    return (size_t)(p - text);
}

static cb_status put_empty_row(cb_group *g, const uint8_t *text, uint32_t bytes, cb_error *err) {
    cbi_job *job = &g->job;
    cbi_job_worker *w = &job->workers[0];
    uint8_t *record;
    group_result r;
    (void)cbi_batch_init(&w->batch, w, job->results, job->sizes.ranges, w->scratch);
    group_result_place(g, 0, NULL, 0, &r);
    group_result_count(g, w, r.range, bytes);
    CB_TRY(
        cbi_batch_begin(&w->batch, r.range, cbi_record_bytes(r.order_bytes, bytes), &record, err));
    uint8_t *end = cbi_record_put_key(record, r.order, r.order_bytes, bytes);
    memcpy(end, text, bytes);
    CB_TRY(cbi_batch_end(&w->batch, end + bytes, err));
    return cbi_batch_flush(&w->batch, err);
}

/* No rows and no keys: one group of nothing, as in SQL. */
static cb_status put_empty(cb_group *g, cb_error *err) {
    if (g->key_count > 0 || atomic_load(&g->job.rows_in) > 0)
        return CB_OK;
    size_t state_bytes = g->aggs->state_bytes, most = g->aggs->count * EMPTY_TEXT;
    uint8_t *memory = cbi_calloc(1, state_bytes + most + CBI_AS_IS_SLACK);
    if (memory == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a row of %zu results", g->aggs->count);
    uint8_t *text = memory + state_bytes;
    size_t bytes = put_empty_text(g, (const uint64_t *)(const void *)memory, text);
    cb_status status = put_empty_row(g, text, (uint32_t)bytes, err);
    cbi_free(memory);
    return status;
}

static cb_status do_work(cb_group *g, cb_error *err) {
    cbi_job *job = &g->job;
    cbi_input *input;
    cbi_job_phase(job, CB_PHASE_SAMPLE);
    CB_TRY(cbi_job_open_input(job, &input, err));
    CB_TRY(group_bind(g, err));
    CB_TRY(cbi_job_make_memory(job, err));
    g->places = !g->aggs->lists && g->key_count > 0 && group_late_possible(g);
    double each = g->aggs->lists ? 96 : 36 + (double)g->aggs->state_bytes / 2;
    job->demand.work_least = g->aggs->lists ? group_lists_least(g) : group_states_least(g);
    job->demand.work_wanted = g->aggs->lists ? 0 : group_states_wanted(g);
    /* a record has no text but its key, once: half as much is enough */
    job->demand.row_times = g->aggs->lists || g->display ? 0 : 12;
    CB_TRY(group_make_plan(g, each, (double)g->aggs->count * 8, err));
    CB_TRY(cbi_job_make_ready(job, err));
    CB_TRY(group_late_begin(g, err));
    CB_TRY(group_read(g, err));
    group_late_know_starts(g);
    CB_TRY(cbi_input_finish(job->input, err));
    CB_TRY(group_work(g, err));
    CB_TRY(put_empty(g, err));
    return cbi_job_write_results(job, err);
}

cb_status cb_group_explain(cb_group *g, cb_job_plan *plan, cb_error *err) {
    cb_error local = {.status = CB_OK};
    CB_TRY(cbi_job_explain(&g->job, plan, err));
    return cbi_job_explained(&g->job, do_work(g, &local), &local, err);
}

cb_status cb_group_run(cb_group *g, cb_error *err) {
    cbi_job *job = &g->job;
    if (job->ran)
        return cbi_fail(err, CB_EMISUSE, "this group-by has been run already");
    job->ran = true;
    job->start_ns = cbi_sys_clock_ns();
    cb_error local = {.status = CB_OK};
    cb_status status = do_work(g, &local);
    return cbi_job_finish(job, status, &local, err);
}

void cb_group_progress(const cb_group *g, cb_progress *progress) {
    cbi_job_progress((cbi_job *)(uintptr_t)&g->job, progress);
}

void cb_group_cancel(cb_group *g) {
    cbi_job_cancel(&g->job);
}

void cb_group_get_stats(const cb_group *g, cb_job_stats *stats) {
    size_t size = stats->struct_size;
    *stats = g->job.stats;
    stats->struct_size = size;
}

void cb_group_memory_tree(const cb_group *g, char *text, size_t bytes) {
    cbi_job_memory_tree(&g->job, text, bytes);
}

void cb_group_figures(const cb_group *g, cb_figures *figures) {
    cbi_job_figures(&g->job, figures);
}

void cb_group_destroy(cb_group *g) {
    if (g == NULL)
        return;
    group_fini(g);
    cbi_free(g);
}

void group_fini(cb_group *g) {
    cbi_job_fini(&g->job);
    group_late_end(g);
    cbi_splitters_destroy(g->splitters);
    cbi_keys_destroy(g->typed);
    cbi_aggregates_destroy(g->aggs);
    cbi_free(g->header);
    cbi_free(g->scales);
    cbi_free(g->largest);
    cbi_free(g->sample_scales);
    cbi_free(g->sample_nulls);
    cbi_free(g->columns);
    cbi_free(g->key_columns);
    cbi_free(g->keys);
    cbi_free(g->strings);
    cbi_free(g->null_text);
}
