/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "base/alloc.h"
#include "operator/sort_private.h"
#include "spill/codec.h"

/*
 * The sort as an object: options in, work done, figures out. What is here is the order of things;
 * the work is in sort_plan.c (sizes), sort_range.c (range partition), sort_runs.c (runs and merge),
 * sort_merge.c (sorted inputs).
 *
 * Everything large is taken from one task of one manager before the first row is read, so a run
 * cannot fail for memory half-way except by a row that is too large for the plan.
 */

/* ---- options ---- */

static cb_status copy_options(cb_sort *s, const cb_sort_options *o, cb_error *err) {
    const char *texts[] = {o->output, o->bad_rows_path, o->global_order};
    size_t slots = o->input_count + o->key_count + o->temp_dir_count + 3;
    size_t bytes = cbi_list_bytes(o->inputs, o->input_count) +
                   cbi_list_bytes(o->keys, o->key_count) +
                   cbi_list_bytes(o->temp_dirs, o->temp_dir_count);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        bytes += cbi_text_bytes(texts[i]);
    s->strings = cbi_alloc(bytes + 1);
    if (s->strings == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the options");
    const char **lists = (const char **)(void *)s->strings;
    char *at = (char *)(lists + slots);
    s->o = *o;
    s->o.inputs = cbi_list_copy(&lists, &at, o->inputs, o->input_count);
    s->o.keys = cbi_list_copy(&lists, &at, o->keys, o->key_count);
    s->o.temp_dirs = cbi_list_copy(&lists, &at, o->temp_dirs, o->temp_dir_count);
    s->o.output = cbi_text_copy(&at, o->output);
    s->o.bad_rows_path = cbi_text_copy(&at, o->bad_rows_path);
    s->o.global_order = cbi_text_copy(&at, o->global_order);
    return CB_OK;
}

static bool in_range(unsigned value, unsigned last) {
    return value <= last;
}

static cb_status check_options(const cb_sort_options *o, cb_error *err) {
    if (o->struct_size != sizeof *o)
        return cbi_fail(err, CB_EINVAL,
                        "cb_sort_options: struct_size is %zu, this library knows %zu",
                        o->struct_size, sizeof *o);
    if (o->format == CB_FORMAT_FIXED && (o->record_bytes == 0 || o->record_bytes > CBI_GIB))
        return cbi_fail(err, CB_EINVAL, "fixed records must have 1 to %zu bytes, not %zu", CBI_GIB,
                        o->record_bytes);
    if (o->action == CB_SORT_CHECK && o->input_count > 1)
        return cbi_fail(err, CB_EINVAL, "only one input can be checked, and %zu are named",
                        o->input_count);
    if (o->bad_rows == CB_BAD_ROWS_FILE && o->bad_rows_path == NULL)
        return cbi_fail(err, CB_EINVAL, "no file is named for malformed rows");
    if ((o->input_count > 0 && o->inputs == NULL) || (o->key_count > 0 && o->keys == NULL) ||
        (o->temp_dir_count > 0 && o->temp_dirs == NULL))
        return cbi_fail(err, CB_EINVAL,
                        "inputs, keys or temporary folders are counted but not given");
    if (!in_range(o->action, CB_SORT_MERGE) || !in_range(o->format, CB_FORMAT_FIXED) ||
        !in_range(o->header, CB_HEADER_NO) || !in_range(o->bad_rows, CB_BAD_ROWS_FILE) ||
        !in_range(o->spill_codec, CB_CODEC_NIBBLE))
        return cbi_fail(err, CB_EINVAL,
                        "an action, format, header, bad_rows or spill_codec that does not exist");
    if (o->manager != NULL && o->memory_bytes == 0)
        return cbi_fail(err, CB_EINVAL, "a sort that is a manager's guest must say memory_bytes");
    if (o->field_separator < -1 || o->field_separator > 255)
        return cbi_fail(err, CB_EINVAL, "the field separator must be one byte");
    return CB_OK;
}

cb_status cb_sort_create(const cb_sort_options *o, cb_sort **sort, cb_error *err) {
    cbi_sys_start();
    CB_TRY(check_options(o, err));
    cb_sort *s = cbi_calloc(1, sizeof *s);
    if (s == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a sort");
    s->failed = CB_OK;
    cbi_mutex_init(&s->mutex, CBI_RANK_SORT);
    cbi_cond_init(&s->changed);
    cb_status status = copy_options(s, o, err);
    s->ground.baseline =
        o->baseline_bytes != 0 || o->manager != NULL ? o->baseline_bytes : cbi_sys_rss();
    if (status == CB_OK && o->manager != NULL)
        status = cbi_ground_lodge(&s->ground, o->manager, "sort", &s->o.memory_bytes, err);
    if (status != CB_OK) {
        cb_sort_destroy(s);
        return status;
    }
    if (s->o.memory_bytes == 0)
        s->o.memory_bytes = cbi_ground_auto_budget();
    *sort = s;
    return CB_OK;
}

/* ---- what it stands on ---- */

cb_status cbi_sort_open_input(cb_sort *s, size_t first, size_t count, cbi_input **input,
                              cb_error *err) {
    static const char *const standard[] = {"-"}, *const given[] = {"the given rows"};
    bool rows = s->given.read != NULL, none = s->o.input_count == 0;
    cbi_input_options options = {.read = rows ? cbi_given_read : NULL,
                                 .read_ctx = &s->given,
                                 .paths = rows   ? given
                                          : none ? standard
                                                 : s->o.inputs + first,
                                 .path_count = none ? 1 : count,
                                 .format = s->o.format,
                                 .record_bytes = s->o.record_bytes,
                                 .zero_terminated = s->o.zero_terminated,
                                 .as_is = s->o.gnu,
                                 .direct_cold = true,
                                 .field_separator = s->o.field_separator,
                                 .header = s->o.header,
                                 .bad_rows = s->o.bad_rows,
                                 .bad_rows_path = s->o.bad_rows_path,
                                 .decoder_bytes_max = cbi_ground_decoder_bytes(s->o.memory_bytes),
                                 .decoder_budget = cbi_ground_decoder_budget};
    if (first > 0) { /* further sorted inputs are read as the first one is */
        options.format = s->format.kind;
        options.record_bytes = s->format.record_bytes;
    }
    return cbi_input_open(&options, input, err);
}

static cb_status make_keys(cb_sort *s, cb_error *err) {
    cbi_keys_options options = {.keys = s->o.keys,
                                .key_count = s->o.key_count,
                                .global_order = s->o.global_order,
                                .field_separator = s->o.field_separator,
                                .gnu = s->o.gnu,
                                .stable = s->o.stable,
                                .unique = s->o.unique,
                                .format = (int)s->format.kind,
                                .record_bytes = s->format.record_bytes};
    CB_TRY(cbi_keys_create(&options, &s->keys, err));
    size_t count;
    const char *const *names = cbi_input_names(s->input, &count);
    CB_TRY(cbi_keys_bind(s->keys, names, count, err));
    cbi_layout *layout = &s->layout;
    layout->shape = s->split != NULL ? CBI_KEY_ENCODED : cbi_keys_shape(s->keys);
    if (layout->shape == CBI_KEY_SLICE)
        cbi_keys_slice(s->keys, &layout->slice_offset, &layout->slice_bytes);
    layout->inverted = layout->shape != CBI_KEY_ENCODED && cbi_keys_inverted(s->keys);
    layout->tie = cbi_keys_tie(s->keys);
    layout->tie_inverted = cbi_keys_tie_inverted(s->keys);
    /* rows whose keys are their own bytes cannot be told apart when they are equal */
    s->needs_order = layout->tie == CBI_TIE_INPUT && layout->shape != CBI_KEY_ROW;
    s->run_layout = *layout;
    s->run_layout.ordered = s->needs_order;
    (void)cbi_keys_columns(s->keys, &s->columns);
    return s->split != NULL ? cbi_split_bind(s->split, s->keys, s->input, err) : CB_OK;
}

/* Everything that needs the plan: pages, segments, spill, workers. */
static cb_status make_ready(cb_sort *s, cb_error *err) {
    const sort_sizes *z = &s->sizes;
    cbi_ground_sizes sizes = {.budget = z->budget,
                              .threads = z->threads,
                              .io_threads = z->io_threads,
                              .worker = z->worker,
                              .shared = z->shared,
                              .staging = z->staging,
                              .segment = z->segment,
                              .segments = z->segments,
                              .tier = z->tier,
                              .in_memory = z->in_memory};
    cbi_spill_options spill = {.dirs = s->o.temp_dirs,
                               .dir_count = s->o.temp_dir_count,
                               .limit_bytes = s->o.temp_limit_bytes,
                               .codec = s->o.spill_codec,
                               .tier_first = s->enough_bytes != 0,
                               .allow_memory_fs = z->in_memory || s->o.action == CB_SORT_CHECK};
    CB_TRY(cbi_ground_build(&s->ground, &sizes, spill, err));
    s->workers = cbi_calloc(z->threads, sizeof *s->workers);
    if (s->workers == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %u workers", z->threads);
    for (unsigned i = 0; i < z->threads; i++)
        s->workers[i] = (sort_worker){
            .sort = s, .input = s->input, .index = i, .scratch = s->ground.scratch + i * z->worker};
    return CB_OK;
}

cb_status cbi_sort_open_output(cb_sort *s, uint64_t bytes_expected, cb_error *err) {
    const sort_sizes *z = &s->sizes;
    uint8_t *shared = s->ground.scratch + z->worker * z->threads + z->staging;
    if (s->split != NULL) {
        size_t edges = cbi_sink_edge_bytes(z->threads);
        return cbi_split_open(s->split, s->ground.spill, z->threads, s->workers[0].scratch,
                              z->worker, z->writer_buffers * z->writer_buffer, shared + edges,
                              (z->shared - z->staging - edges) / z->threads, shared, err);
    }
    cbi_sink_options options = {.path = s->o.output,
                                .as_is = s->o.gnu,
                                .io = s->ground.spill,
                                .writers = s->sizes.threads,
                                .edge_memory = shared,
                                .block_memory = shared + cbi_sink_edge_bytes(s->sizes.threads),
                                .bytes_expected = bytes_expected};
    cbi_sink *sink;
    CB_TRY(cbi_sink_open(&options, &sink, err));
    cbi_mutex_lock(&s->mutex);
    s->sink = sink;
    cbi_mutex_unlock(&s->mutex);
    return CB_OK;
}

static cb_status check_space(cb_sort *s, cb_sort_plan *plan, cb_error *err) {
    if (plan->temp_bytes_estimate == 0)
        return CB_OK;
    bool in_memory = false;
    CB_TRY(cbi_spill_space(s->o.temp_dirs, s->o.temp_dir_count, &plan->temp_bytes_free, &in_memory,
                           err));
    if (s->o.temp_limit_bytes != 0 && s->o.temp_limit_bytes < plan->temp_bytes_free)
        plan->temp_bytes_free = s->o.temp_limit_bytes;
    if (plan->temp_bytes_estimate <= plan->temp_bytes_free)
        return CB_OK;
    return cbi_ground_no_space(plan->temp_bytes_estimate, plan->temp_bytes_free, s->o.temp_dirs[0],
                               err);
}

/* Everything up to the plan; opens inputs, writes nothing. */
static cb_status prepare(cb_sort *s, cb_error *err) {
    if (s->prepared)
        return CB_OK;
    bool alone = s->o.action == CB_SORT_MERGE;
    cbi_sort_phase(s, CB_PHASE_SAMPLE);
    cbi_input *input;
    CB_TRY(cbi_sort_open_input(s, 0, alone && s->o.input_count > 0 ? 1 : s->o.input_count, &input,
                               err));
    cbi_mutex_lock(&s->mutex);
    s->input = input;
    cbi_mutex_unlock(&s->mutex);
    s->format = *cbi_input_format(s->input);
    CB_TRY(make_keys(s, err));
    CB_TRY(
        cbi_ground_temp_dirs(&s->ground, s->o.output, &s->o.temp_dirs, &s->o.temp_dir_count, err));
    CB_TRY(cbi_ground_open(&s->ground, s->o.memory_bytes, "sort", err));
    CB_TRY(cbi_sort_measure(s, err));
    if (s->splitters == NULL)
        CB_TRY(cbi_sort_size(s, err));
    cbi_sort_fill_plan(s, &s->plan);
    CB_TRY(check_space(s, &s->plan, err));
    s->prepared = true;
    return CB_OK;
}

cb_status cb_sort_explain(cb_sort *s, cb_sort_plan *plan, cb_error *err) {
    if (s->ran)
        return cbi_fail(err, CB_EMISUSE, "this sort has been run already");
    cb_status status = prepare(s, err);
    size_t size = plan->struct_size;
    *plan = s->plan;
    plan->struct_size = size;
    if (status != CB_OK && !s->prepared)
        s->ran = true; /* half prepared: good for nothing else */
    return status;
}

/* ---- the run ---- */

static cb_status do_work(cb_sort *s, cb_error *err) {
    CB_TRY(prepare(s, err));
    CB_TRY(make_ready(s, err));
    s->stats.threads = s->sizes.threads;
    if (s->o.action == CB_SORT_CHECK)
        return cbi_sort_check(s, err);
    bool ranges = cbi_sort_by_range(s);
    s->stats.ranges = ranges ? s->sizes.ranges : 0;
    if (s->o.action == CB_SORT_MERGE)
        CB_TRY(cbi_sort_merge_inputs(s, err));
    else if (ranges)
        CB_TRY(cbi_sort_ranges(s, err));
    else
        CB_TRY(cbi_sort_stream(s, err));
    CB_TRY(cbi_input_finish(s->input, err));
    if (atomic_load(&s->cancelled))
        return cbi_fail(err, CB_ECANCELED, "cancelled");
    if (s->split != NULL) {
        s->cursor = atomic_load(&s->split->bytes);
        return cbi_split_finish(s->split, err);
    }
    return cbi_sink_finish(s->sink, s->cursor, err);
}

static void collect_stats(cb_sort *s) {
    cb_sort_stats *t = &s->stats;
    s->end_ns = cbi_sys_clock_ns();
    t->rows_in = atomic_load(&s->rows_in);
    t->rows_out = atomic_load(&s->rows_out);
    t->rows_bad = s->input != NULL ? cbi_input_rows_bad(s->input) : 0;
    t->bytes_in = s->input != NULL ? cbi_input_bytes_done(s->input) : 0;
    t->bytes_out = s->cursor;
    t->budget_bytes = s->o.memory_bytes;
    cbi_ground_figures figures;
    cbi_ground_measure(&s->ground, &figures);
    t->accounted_peak_bytes = figures.accounted_peak_bytes;
    t->spilled_bytes = figures.spilled_bytes;
    t->spilled_stored_bytes = figures.spilled_stored_bytes;
    t->direct_temp = figures.direct_temp;
    t->codec = figures.codec;
    t->direct_output = s->sink != NULL && cbi_sink_direct(s->sink);
    t->passes = s->passes != 0 ? s->passes : t->spilled_bytes > 0 ? 1 : 0;
    t->elapsed_ns = s->end_ns - s->start_ns;
    uint64_t *at = s->phase_ns;
    uint64_t read = at[CB_PHASE_READ], write = at[CB_PHASE_WRITE], merge = at[CB_PHASE_MERGE];
    t->sample_ns = (read != 0 ? read : s->end_ns) - s->start_ns;
    if (read != 0)
        t->read_ns = (merge != 0 ? merge : write != 0 ? write : s->end_ns) - read;
    if (merge != 0 && write > merge)
        t->merge_ns = write - merge;
    if (write != 0)
        t->write_ns = s->end_ns - write;
    t->rss_peak_bytes = cbi_sys_rss_peak();
}

/* Ends everything that was begun, in the order in which nobody can be surprised. */
static void take_down(cb_sort *s) {
    cbi_ground_close_spill(&s->ground);
    cbi_sink_close(s->sink);
    s->sink = NULL;
    cbi_split_clear(s->split);
    cbi_run_table_close(&s->runs);
    cbi_partitions_destroy(s->parts);
    s->parts = NULL;
    cbi_free(s->offsets);
    s->offsets = NULL;
    cbi_splitters_destroy(s->splitters);
    s->splitters = NULL;
    cbi_free(s->workers);
    s->workers = NULL;
    cbi_ground_close_pool(&s->ground);
}

static void name_budget(const cb_sort *s, cb_error *err) {
    if (err->status == CB_EBUDGET && err->bytes_had <= s->o.memory_bytes && s->sizes.threads != 0)
        cbi_ground_name_budget(s->o.memory_bytes, cbi_sort_least_budget(s, err->bytes_asked), err);
}

cb_status cb_sort_run(cb_sort *s, cb_error *err) {
    if (s->ran)
        return cbi_fail(err, CB_EMISUSE, "this sort has been run already");
    s->ran = true;
    s->start_ns = cbi_sys_clock_ns();
    cb_error local = {.status = CB_OK};
    cb_status status = do_work(s, &local);
    if (status != CB_OK)
        atomic_store(&s->stop, true);
    name_budget(s, &local);
    if (atomic_load(&s->cancelled) && status != CB_OK)
        status = cbi_fail(&local, CB_ECANCELED, "cancelled");
    cbi_mutex_lock(&s->mutex); /* from here on progress looks at the figures only */
    collect_stats(s);
    atomic_store(&s->phase, CB_PHASE_DONE);
    cbi_mutex_unlock(&s->mutex);
    take_down(s);
    cbi_mutex_lock(&s->mutex);
    s->end_ns = cbi_sys_clock_ns();
    s->stats.elapsed_ns = s->end_ns - s->start_ns;
    s->stats.rss_peak_bytes = cbi_sys_rss_peak();
    cbi_mutex_unlock(&s->mutex);
    if (status != CB_OK && err != NULL)
        *err = local;
    return status;
}

/* ---- seen from outside ---- */

static double done_fraction(const cb_sort *s, const cb_progress *p) {
    if (p->phase == CB_PHASE_DONE)
        return 1;
    if (p->bytes_in_total == 0)
        return -1;
    double in = (double)p->bytes_in / (double)p->bytes_in_total;
    if (s->o.action != CB_SORT_SORT)
        return in < 1 ? in : 1;
    uint64_t total = p->bytes_out_total != 0 ? p->bytes_out_total : p->bytes_in_total;
    double out = (double)p->bytes_out / (double)total;
    double share = s->sizes.in_memory ? 0.4 : 0.35; /* of the time that reading takes */
    double f = share * (in < 1 ? in : 1) + (1 - share) * (out < 1 ? out : 1);
    return f < 1 ? f : 1;
}

void cb_sort_progress(const cb_sort *s, cb_progress *p) {
    size_t size = p->struct_size;
    cb_sort *live = (cb_sort *)(uintptr_t)s;
    memset(p, 0, sizeof *p);
    p->struct_size = size;
    cbi_mutex_lock(&live->mutex);
    p->phase = (cb_phase)atomic_load(&live->phase);
    p->rows_in = atomic_load(&live->rows_in);
    if (p->phase == CB_PHASE_DONE) {
        p->bytes_in = p->bytes_in_total = s->stats.bytes_in;
        p->bytes_out = p->bytes_out_total = s->stats.bytes_out;
        p->spilled_bytes = s->stats.spilled_bytes;
        p->elapsed_ns = s->stats.elapsed_ns;
    } else if (p->phase >= CB_PHASE_READ) {
        cbi_spill_stats spill;
        cbi_spill_get_stats(s->ground.spill, &spill);
        p->bytes_in = cbi_input_bytes_done(s->input);
        p->bytes_in_total = cbi_input_bytes(s->input);
        p->bytes_out = s->split != NULL  ? atomic_load(&s->split->bytes)
                       : s->sink != NULL ? cbi_sink_bytes(s->sink)
                                         : 0;
        p->bytes_out_total = s->bytes_out_total;
        p->spilled_bytes = spill.raw_bytes;
        p->elapsed_ns = cbi_sys_clock_ns() - s->start_ns;
    }
    p->fraction = done_fraction(s, p);
    cbi_mutex_unlock(&live->mutex);
}

void cb_sort_cancel(cb_sort *s) {
    atomic_store(&s->cancelled, true);
    cb_error err;
    cbi_sort_fail(s, cbi_fail(&err, CB_ECANCELED, "cancelled"), &err);
}

void cb_sort_get_stats(const cb_sort *s, cb_sort_stats *stats) {
    size_t size = stats->struct_size;
    *stats = s->stats;
    stats->struct_size = size;
}

void cb_sort_memory_tree(const cb_sort *s, char *text, size_t bytes) {
    cbi_ground_tree(&s->ground, text, bytes);
}

void cb_sort_figures(const cb_sort *s, cb_figures *f) {
    cb_progress p = {.struct_size = sizeof p};
    cb_sort_progress(s, &p);
    cbi_ground_figures_now(&s->ground, &p, f);
}

void cb_sort_destroy(cb_sort *s) {
    if (s == NULL)
        return;
    take_down(s);
    cbi_keys_destroy(s->keys);
    cbi_input_close(s->input);
    cbi_ground_fini(&s->ground);
    cbi_free(s->strings);
    cbi_cond_fini(&s->changed);
    cbi_mutex_fini(&s->mutex);
    cbi_free(s);
}
