/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/job.h"

#include <stdio.h>

#include "base/alloc.h"
#include "memory/segment.h"
#include "spill/codec.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

/*
 * The life of a job, from options to figures. What an operator does is in its own files; what all
 * of them do in the same way is here and in job_*.c.
 */

const cbi_layout cbi_record_layout = {.shape = CBI_KEY_ENCODED, .tie = CBI_TIE_INPUT};
const cbi_layout cbi_record_run_layout = {
    .shape = CBI_KEY_ENCODED, .tie = CBI_TIE_INPUT, .ordered = true};

uint64_t cbi_job_hash(const cbi_job *job, const void *key, size_t bytes) {
    return XXH3_64bits_withSeed(key, bytes, job->seed);
}

/* ---- options ---- */

static cb_status copy_options(cbi_job *job, const cb_job_options *o, cb_error *err) {
    size_t slots = o->input_count + o->temp_dir_count + 2;
    size_t bytes = cbi_list_bytes(o->inputs, o->input_count) +
                   cbi_list_bytes(o->temp_dirs, o->temp_dir_count) + cbi_text_bytes(o->output) +
                   cbi_text_bytes(o->bad_rows_path);
    job->strings = cbi_alloc(bytes);
    if (job->strings == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the options");
    const char **lists = (const char **)(void *)job->strings;
    char *at = (char *)(lists + slots);
    job->o = *o;
    job->o.inputs = cbi_list_copy(&lists, &at, o->inputs, o->input_count);
    job->o.temp_dirs = cbi_list_copy(&lists, &at, o->temp_dirs, o->temp_dir_count);
    job->o.output = cbi_text_copy(&at, o->output);
    job->o.bad_rows_path = cbi_text_copy(&at, o->bad_rows_path);
    return CB_OK;
}

static cb_status check_options(const cb_job_options *o, cb_error *err) {
    if (o->format == CB_FORMAT_FIXED && (o->record_bytes == 0 || o->record_bytes > CBI_GIB))
        return cbi_fail(err, CB_EINVAL, "fixed records must have 1 to %zu bytes, not %zu", CBI_GIB,
                        o->record_bytes);
    if (o->read != NULL && o->input_count > 0)
        return cbi_fail(err, CB_EINVAL,
                        "rows are given and inputs are named: it is one or the other");
    if (o->bad_rows == CB_BAD_ROWS_FILE && o->bad_rows_path == NULL)
        return cbi_fail(err, CB_EINVAL, "no file is named for malformed rows");
    if ((o->input_count > 0 && o->inputs == NULL) ||
        (o->temp_dir_count > 0 && o->temp_dirs == NULL))
        return cbi_fail(err, CB_EINVAL, "inputs or temporary folders are counted but not given");
    if ((unsigned)o->format > CB_FORMAT_FIXED || (unsigned)o->header > CB_HEADER_NO ||
        (unsigned)o->bad_rows > CB_BAD_ROWS_FILE || (unsigned)o->spill_codec > CB_CODEC_NIBBLE)
        return cbi_fail(err, CB_EINVAL,
                        "a format, header, bad_rows or spill_codec that does not exist");
    return CB_OK;
}

cb_status cbi_job_init(cbi_job *job, const cb_job_options *o, const char *name, cb_error *err) {
    cbi_sys_start();
    *job = (cbi_job){.name = name, .failed = CB_OK};
    CB_TRY(check_options(o, err));
    CB_TRY(copy_options(job, o, err));
    cbi_given_init(&job->given[0], o->read, o->read_ctx, o->format, o->zero_terminated);
    cbi_mutex_init(&job->mutex, CBI_RANK_JOB);
    cbi_cond_init(&job->changed);
    job->ground.baseline = o->baseline_bytes != 0 ? o->baseline_bytes : cbi_sys_rss();
    if (job->o.memory_bytes == 0)
        job->o.memory_bytes = cbi_ground_auto_budget();
    uint64_t mix[3] = {cbi_sys_clock_ns(), (uint64_t)(uintptr_t)job, cbi_sys_cpu_ns()};
    job->seed = XXH3_64bits(mix, sizeof mix);
    return CB_OK;
}

/* ---- what it stands on ---- */

/* Each input looks at itself; what one of several would lose, nobody has looked at yet. */
static cb_status check_bad_rows_path(const cbi_job *job, cb_error *err) {
    struct stat bad, input;
    const char *path = job->o.bad_rows_path;
    if (job->o.bad_rows != CB_BAD_ROWS_FILE || cbi_sys_stat(path, &bad) < 0)
        return CB_OK;
    for (size_t i = 0; i < job->o.input_count; i++)
        if (cbi_sys_stat(job->o.inputs[i], &input) >= 0 && input.st_dev == bad.st_dev &&
            input.st_ino == bad.st_ino && S_ISREG(bad.st_mode))
            return cbi_fail(err, CB_EINVAL, "%s is an input and cannot take malformed rows", path);
    return CB_OK;
}

static cb_status open_input(cbi_job *job, cbi_input_options options, cbi_input **input,
                            cb_error *err) {
    options.format = job->o.format;
    options.record_bytes = job->o.record_bytes;
    options.zero_terminated = job->o.zero_terminated;
    options.field_separator = job->o.has_field_separator ? job->o.field_separator : -1;
    options.header = job->o.header;
    options.bad_rows = job->o.bad_rows;
    options.bad_rows_path = job->o.bad_rows_path;
    options.decoder_bytes_max = cbi_ground_decoder_bytes(job->o.memory_bytes);
    options.decoder_budget = cbi_ground_decoder_budget;
    options.direct_cold = true;
    cbi_input *opened;
    CB_TRY(check_bad_rows_path(job, err));
    CB_TRY(cbi_input_open(&options, &opened, err));
    cbi_mutex_lock(&job->mutex);
    job->input = opened;
    cbi_mutex_unlock(&job->mutex);
    *input = opened;
    return CB_OK;
}

cb_status cbi_job_open_given(cbi_job *job, unsigned which, cbi_input **input, cb_error *err) {
    static const char *const names[] = {"the given rows", "the right rows given"};
    return open_input(job,
                      (cbi_input_options){.read = cbi_given_read,
                                          .read_ctx = &job->given[which],
                                          .paths = &names[which],
                                          .path_count = 1,
                                          .bad_rows_more = which > 0},
                      input, err);
}

cb_status cbi_job_open_paths(cbi_job *job, size_t first, size_t count, cbi_input **input,
                             cb_error *err) {
    return open_input(job,
                      (cbi_input_options){.paths = job->o.inputs + first,
                                          .path_count = count,
                                          .bad_rows_more = first > 0 || job->given[0].read != NULL},
                      input, err);
}

cb_status cbi_job_open_input(cbi_job *job, cbi_input **input, cb_error *err) {
    static const char *const standard[] = {"-"};
    if (job->given[0].read != NULL)
        return cbi_job_open_given(job, 0, input, err);
    if (job->o.input_count == 0)
        return open_input(job, (cbi_input_options){.paths = standard, .path_count = 1}, input, err);
    return cbi_job_open_paths(job, 0, job->o.input_count, input, err);
}

cb_status cbi_job_make_memory(cbi_job *job, cb_error *err) {
    return cbi_ground_open(&job->ground, job->o.memory_bytes, job->name, err);
}

static cb_status check_space(cbi_job *job, cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    double need = job->demand.stored_bytes - (double)z->segments * (double)z->segment;
    if (z->in_memory || need <= 0)
        return CB_OK;
    uint64_t bytes_free = 0;
    bool in_memory = false;
    CB_TRY(cbi_spill_space(job->o.temp_dirs, job->o.temp_dir_count, &bytes_free, &in_memory, err));
    if (job->o.temp_limit_bytes != 0 && job->o.temp_limit_bytes < bytes_free)
        bytes_free = job->o.temp_limit_bytes;
    if (need * 0.3 <= (double)bytes_free) /* compressed, with luck; and groups may be few */
        return CB_OK;
    return cbi_ground_no_space((uint64_t)need, bytes_free, job->o.temp_dirs[0], err);
}

/* ---- explaining: everything up to the plan, then the end ---- */

static cb_status fill_plan(cbi_job *job, cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    const cbi_job_demand *d = &job->demand;
    cb_job_plan *plan = job->plan;
    double pages = (double)z->segments * (double)z->segment;
    double results = d->stored_bytes * d->result_factor;
    double leaves = d->stored_bytes + results - pages / 2;
    bool in_memory = false;
    plan->input_bytes = job->bytes_in_before + cbi_input_bytes(job->input);
    plan->budget_bytes = z->budget;
    plan->budget_min_bytes = cbi_job_smallest_budget(job);
    plan->threads = z->threads;
    plan->segment_bytes = z->segment;
    plan->ranges = z->parts;
    plan->in_memory = z->in_memory;
    if (d->stored_bytes > 0) {
        plan->rows_estimate = (uint64_t)(d->stored_bytes / d->record_bytes);
        plan->passes_estimate = z->in_memory ? 0 : z->tight ? 2 : 1;
        if (!z->in_memory)
            plan->temp_bytes_estimate = leaves > 0 ? (uint64_t)leaves : 0;
    }
    (void)snprintf(plan->method, sizeof plan->method, "%s",
                   job->method != NULL ? job->method : "hash partition");
    return cbi_spill_space(job->o.temp_dirs, job->o.temp_dir_count, &plan->temp_bytes_free,
                           &in_memory, err);
}

cb_status cbi_job_explain(cbi_job *job, cb_job_plan *plan, cb_error *err) {
    if (job->ran)
        return cbi_fail(err, CB_EMISUSE, "this %s has been run or explained already", job->name);
    job->ran = true;
    job->plan = plan;
    job->start_ns = cbi_sys_clock_ns();
    size_t size = plan->struct_size;
    memset(plan, 0, sizeof *plan);
    plan->struct_size = size;
    return CB_OK;
}

cb_status cbi_job_explained(cbi_job *job, cb_status status, cb_error *local, cb_error *err) {
    if (status == CB_EAGAIN)
        status = CB_OK;
    cbi_job_end(job, status, local);
    if (status != CB_OK && err != NULL)
        *err = *local;
    return status;
}

cb_status cbi_job_make_ready(cbi_job *job, cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    CB_TRY(cbi_ground_temp_dirs(&job->ground, job->o.output, &job->o.temp_dirs,
                                &job->o.temp_dir_count, err));
    if (job->plan != NULL)
        CB_TRY(fill_plan(job, err));
    CB_TRY(check_space(job, err));
    if (job->plan != NULL)
        return CB_EAGAIN;
    cbi_ground_sizes sizes = {.budget = z->budget,
                              .threads = z->threads,
                              .io_threads = z->io_threads,
                              .worker = z->worker,
                              .shared = z->shared,
                              .staging = z->staging,
                              .segment = z->segment,
                              .segments = z->segments,
                              .in_memory = z->in_memory,
                              .huge_always = job->demand.looks_up};
    cbi_spill_options spill = {.dirs = job->o.temp_dirs,
                               .dir_count = job->o.temp_dir_count,
                               .limit_bytes = job->o.temp_limit_bytes,
                               .codec = job->o.spill_codec,
                               .allow_memory_fs = z->in_memory};
    CB_TRY(cbi_ground_build(&job->ground, &sizes, spill, err));
    /* Results of more than a segment each lie in one piece: partitions that come in beside them
     * must not be strewn about. */
    if (job->demand.result_factor * job->demand.record_bytes > (double)z->segment / 2)
        cbi_segment_pool_lowest_first(job->ground.pool);
    job->workers = cbi_calloc(z->threads, sizeof *job->workers);
    if (job->workers == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %u workers", z->threads);
    for (unsigned i = 0; i < z->threads; i++)
        job->workers[i] = (cbi_job_worker){
            .job = job, .index = i, .scratch = job->ground.scratch + i * z->worker};
    return CB_OK;
}

/* ---- workers ---- */

void cbi_job_fail(cbi_job *job, cb_status status, const cb_error *err) {
    cbi_mutex_lock(&job->mutex);
    if (job->failed == CB_OK) {
        job->failed = status;
        if (err != NULL)
            job->failure = *err;
        job->failure.status = status;
    }
    atomic_store(&job->stop, true);
    cbi_cond_broadcast(&job->changed);
    cbi_input *input = job->input;
    if (input != NULL)
        cbi_input_cancel(input);
    cbi_mutex_unlock(&job->mutex);
}

void cbi_job_phase(cbi_job *job, cb_phase phase) {
    if (job->phase_ns[phase] == 0)
        job->phase_ns[phase] = cbi_sys_clock_ns();
    atomic_store_explicit(&job->phase, (int)phase, memory_order_release);
}

cb_status cbi_job_in_workers(cbi_job *job, unsigned count, cbi_thread_fn fn, cb_error *err) {
    for (unsigned i = 1; i < count; i++) {
        cb_error local;
        cb_status status =
            cbi_thread_start(&job->workers[i].thread, fn, &job->workers[i], "carbide-work", &local);
        if (status != CB_OK) {
            cbi_job_fail(job, status, &local);
            break;
        }
    }
    fn(&job->workers[0]);
    for (unsigned i = 1; i < count; i++)
        cbi_thread_join(&job->workers[i].thread);
    cbi_mutex_lock(&job->mutex);
    cb_status failed = job->failed;
    if (failed != CB_OK && err != NULL)
        *err = job->failure;
    cbi_mutex_unlock(&job->mutex);
    return failed;
}

/* ---- the end ---- */

static void collect_stats(cbi_job *job) {
    cb_job_stats *t = &job->stats;
    job->end_ns = cbi_sys_clock_ns();
    t->rows_in = atomic_load(&job->rows_in);
    t->rows_out = atomic_load(&job->rows_out);
    t->rows_bad = job->rows_bad_before + (job->input != NULL ? cbi_input_rows_bad(job->input) : 0);
    t->bytes_in =
        job->bytes_in_before + (job->input != NULL ? cbi_input_bytes_done(job->input) : 0);
    t->bytes_out = job->cursor;
    t->budget_bytes = job->o.memory_bytes;
    t->threads = job->sizes.threads;
    t->ranges = job->sizes.parts;
    t->runs = job->runs;
    t->divided = job->divided;
    cbi_ground_figures figures;
    cbi_ground_measure(&job->ground, &figures);
    t->accounted_peak_bytes = figures.accounted_peak_bytes;
    t->spilled_bytes = figures.spilled_bytes;
    t->spilled_stored_bytes = figures.spilled_stored_bytes;
    t->direct_temp = figures.direct_temp;
    t->codec = figures.codec;
    t->direct_output = job->sink != NULL && cbi_sink_direct(job->sink);
    t->passes = job->passes != 0 ? job->passes : t->spilled_bytes > 0;
    const uint64_t *at = job->phase_ns;
    uint64_t read = at[CB_PHASE_READ], merge = at[CB_PHASE_MERGE], write = at[CB_PHASE_WRITE];
    t->sample_ns = (read != 0 ? read : job->end_ns) - job->start_ns;
    if (read != 0)
        t->read_ns = (merge != 0 ? merge : write != 0 ? write : job->end_ns) - read;
    if (merge != 0)
        t->merge_ns = (write > merge ? write : job->end_ns) - merge;
    if (write != 0)
        t->write_ns = job->end_ns - write;
}

/* In the order in which nobody can be surprised. */
static void take_down(cbi_job *job) {
    cbi_ground_close_spill(&job->ground);
    cbi_sink_close(job->sink);
    job->sink = NULL;
    cbi_partitions_destroy(job->parts);
    cbi_partitions_destroy(job->partner);
    cbi_partitions_destroy(job->results);
    job->parts = job->partner = job->results = NULL;
    cbi_free(job->offsets);
    job->offsets = NULL;
    cbi_free(job->workers);
    job->workers = NULL;
    cbi_ground_close_pool(&job->ground);
}

static void name_budget(const cbi_job *job, cb_error *err) {
    if (err->status == CB_EBUDGET && err->bytes_had <= job->o.memory_bytes &&
        job->sizes.threads != 0)
        cbi_ground_name_budget(job->o.memory_bytes, cbi_job_least_budget(job, err->bytes_asked),
                               err);
}

void cbi_job_end(cbi_job *job, cb_status status, cb_error *err) {
    if (status != CB_OK)
        atomic_store(&job->stop, true);
    if (status != CB_OK)
        name_budget(job, err);
    cbi_mutex_lock(&job->mutex); /* from here on progress looks at the figures only */
    collect_stats(job);
    atomic_store(&job->phase, CB_PHASE_DONE);
    cbi_mutex_unlock(&job->mutex);
    take_down(job);
    cbi_mutex_lock(&job->mutex);
    job->end_ns = cbi_sys_clock_ns();
    job->stats.elapsed_ns = job->end_ns - job->start_ns;
    job->stats.rss_peak_bytes = cbi_sys_rss_peak();
    cbi_mutex_unlock(&job->mutex);
}

cb_status cbi_job_finish(cbi_job *job, cb_status status, cb_error *local, cb_error *err) {
    if (status == CB_OK && atomic_load(&job->cancelled))
        status = cbi_fail(local, CB_ECANCELED, "cancelled");
    if (status == CB_OK && job->sink != NULL)
        status = cbi_sink_finish(job->sink, job->cursor, local);
    if (status != CB_OK && atomic_load(&job->cancelled))
        status = cbi_fail(local, CB_ECANCELED, "cancelled");
    cbi_job_end(job, status, local);
    if (status != CB_OK && err != NULL)
        *err = *local;
    return status;
}

void cbi_job_fini(cbi_job *job) {
    take_down(job);
    cbi_input_close(job->input);
    cbi_ground_fini(&job->ground);
    if (job->strings != NULL) {
        cbi_cond_fini(&job->changed);
        cbi_mutex_fini(&job->mutex);
    }
    cbi_free(job->strings);
}

/* ---- seen from outside ---- */

void cbi_job_progress(cbi_job *job, cb_progress *p) {
    size_t size = p->struct_size;
    memset(p, 0, sizeof *p);
    p->struct_size = size;
    cbi_mutex_lock(&job->mutex);
    p->phase = (cb_phase)atomic_load(&job->phase);
    p->rows_in = atomic_load(&job->rows_in);
    p->fraction = -1;
    if (p->phase == CB_PHASE_DONE) {
        p->bytes_in = p->bytes_in_total = job->stats.bytes_in;
        p->bytes_out = p->bytes_out_total = job->stats.bytes_out;
        p->spilled_bytes = job->stats.spilled_bytes;
        p->elapsed_ns = job->stats.elapsed_ns;
        p->fraction = 1;
    } else if (p->phase >= CB_PHASE_READ) {
        cbi_spill_stats spill;
        cbi_spill_get_stats(job->ground.spill, &spill);
        p->bytes_in = job->input != NULL ? cbi_input_bytes_done(job->input) : 0;
        p->bytes_in_total = job->input != NULL ? cbi_input_bytes(job->input) : 0;
        p->bytes_out = job->sink != NULL ? cbi_sink_bytes(job->sink) : 0;
        p->bytes_out_total = job->bytes_out_total;
        p->spilled_bytes = spill.raw_bytes;
        p->elapsed_ns = cbi_sys_clock_ns() - job->start_ns;
        if (p->bytes_in_total > 0) { /* reading is about half of it, working and writing the rest */
            double in = (double)p->bytes_in / (double)p->bytes_in_total;
            p->fraction = 0.5 * (in < 1 ? in : 1);
            if (job->parts_count > 0)
                p->fraction += 0.3 * (double)job->parts_done / (double)job->parts_count;
            if (p->phase == CB_PHASE_WRITE && job->bytes_out_total > 0)
                p->fraction = 0.8 + 0.2 * (double)p->bytes_out / (double)(job->bytes_out_total + 1);
        }
    }
    cbi_mutex_unlock(&job->mutex);
}

void cbi_job_cancel(cbi_job *job) {
    atomic_store(&job->cancelled, true);
    cb_error err;
    cbi_job_fail(job, cbi_fail(&err, CB_ECANCELED, "cancelled"), &err);
}

void cbi_job_memory_tree(const cbi_job *job, char *text, size_t bytes) {
    cbi_ground_tree(&job->ground, text, bytes);
}

void cbi_job_figures(const cbi_job *job, cb_figures *f) {
    cb_progress p = {.struct_size = sizeof p};
    cbi_job_progress((cbi_job *)(uintptr_t)job, &p);
    cbi_ground_figures_now(&job->ground, &p, f);
}
