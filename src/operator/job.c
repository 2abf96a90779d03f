/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/job.h"

#include <stdlib.h>

#include "base/alloc.h"
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

static const char *copy_text(char **at, const char *text) {
    if (text == NULL)
        return NULL;
    size_t bytes = strlen(text) + 1;
    char *copy = *at;
    memcpy(copy, text, bytes);
    *at += bytes;
    return copy;
}

static const char *const *copy_list(const char ***slots, char **at, const char *const *list,
                                    size_t count) {
    const char **copy = *slots;
    *slots += count + 1;
    for (size_t i = 0; i < count; i++)
        copy[i] = copy_text(at, list[i]);
    copy[count] = NULL;
    return copy;
}

static cb_status copy_options(cbi_job *job, const cb_job_options *o, cb_error *err) {
    size_t slots = o->input_count + o->temp_dir_count + 2;
    size_t bytes = slots * sizeof(char *) + 1;
    for (size_t i = 0; i < o->input_count; i++)
        bytes += strlen(o->inputs[i]) + 1;
    for (size_t i = 0; i < o->temp_dir_count; i++)
        bytes += strlen(o->temp_dirs[i]) + 1;
    bytes += o->output != NULL ? strlen(o->output) + 1 : 0;
    bytes += o->bad_rows_path != NULL ? strlen(o->bad_rows_path) + 1 : 0;
    job->strings = cbi_alloc(bytes);
    if (job->strings == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the options");
    const char **lists = (const char **)(void *)job->strings;
    char *at = (char *)(lists + slots);
    job->o = *o;
    job->o.inputs = copy_list(&lists, &at, o->inputs, o->input_count);
    job->o.temp_dirs = copy_list(&lists, &at, o->temp_dirs, o->temp_dir_count);
    job->o.output = copy_text(&at, o->output);
    job->o.bad_rows_path = copy_text(&at, o->bad_rows_path);
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
        (unsigned)o->bad_rows > CB_BAD_ROWS_FILE || (unsigned)o->spill_codec > CB_CODEC_LZ4)
        return cbi_fail(err, CB_EINVAL,
                        "a format, header, bad_rows or spill_codec that does not exist");
    return CB_OK;
}

static uint64_t auto_budget(void) {
    uint64_t available = cbi_sys_memory_available(), limit = cbi_sys_cgroup_limit();
    if (limit == UINT64_MAX)
        return available / 2;
    uint64_t used = cbi_sys_cgroup_used();
    uint64_t left = limit > used ? limit - used : 0;
    return (left < available ? left : available) / 10 * 9; /* in a container that is ours */
}

cb_status cbi_job_init(cbi_job *job, const cb_job_options *o, const char *name, cb_error *err) {
    cbi_sys_start();
    *job = (cbi_job){.name = name, .failed = CB_OK};
    CB_TRY(check_options(o, err));
    CB_TRY(copy_options(job, o, err));
    cbi_mutex_init(&job->mutex);
    cbi_cond_init(&job->changed);
    job->baseline = o->baseline_bytes != 0 ? o->baseline_bytes : cbi_sys_rss();
    if (job->o.memory_bytes == 0)
        job->o.memory_bytes = auto_budget();
    uint64_t mix[3] = {cbi_sys_clock_ns(), (uint64_t)(uintptr_t)job, cbi_sys_cpu_ns()};
    job->seed = XXH3_64bits(mix, sizeof mix);
    return CB_OK;
}

/* ---- what it stands on ---- */

static size_t decoder_bytes_max(const cbi_job *job) {
    uint64_t memory = job->o.memory_bytes;
    uint64_t most = memory < 256 * CBI_MIB ? 9 * CBI_MIB + CBI_MIB / 2
                    : memory < CBI_GIB     ? 40 * CBI_MIB
                                           : 160 * CBI_MIB;
    return (size_t)(memory / 8 * 3 < most ? memory / 8 * 3 : most);
}

/* The caller's rows as the bytes of a file. */
static cb_status read_given(void *ctx, uint8_t *buf, size_t bytes, size_t *got, cb_error *err) {
    cbi_job *job = ctx;
    size_t n = 0;
    while (n < bytes) {
        if (job->given.bytes > 0) {
            size_t part = cbi_min(job->given.bytes, bytes - n);
            memcpy(buf + n, job->given.at, part);
            job->given.at += part;
            job->given.bytes -= part;
            n += part;
            continue;
        }
        if (job->given.ending) {
            buf[n++] = job->o.zero_terminated ? 0 : '\n';
            job->given.ending = false;
            continue;
        }
        const void *row = NULL;
        bool more = false;
        size_t row_bytes = 0;
        CB_TRY(job->o.read(job->o.read_ctx, &row, &row_bytes, &more, err));
        if (!more)
            break;
        job->given.at = row;
        job->given.bytes = row_bytes;
        job->given.ending = job->o.format != CB_FORMAT_FIXED;
    }
    *got = n;
    return CB_OK;
}

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

cb_status cbi_job_open_input(cbi_job *job, size_t first, size_t count, cbi_input **input,
                             cb_error *err) {
    static const char *const standard[] = {"-"}, *const given[] = {"the given rows"};
    bool rows = job->o.read != NULL, none = job->o.input_count == 0 || rows;
    cbi_input_options options = {.read = rows ? read_given : NULL,
                                 .read_ctx = job,
                                 .paths = rows   ? given
                                          : none ? standard
                                                 : job->o.inputs + first,
                                 .path_count = none ? 1 : count,
                                 .format = job->o.format,
                                 .record_bytes = job->o.record_bytes,
                                 .zero_terminated = job->o.zero_terminated,
                                 .field_separator =
                                     job->o.has_field_separator ? job->o.field_separator : -1,
                                 .header = job->o.header,
                                 .bad_rows = job->o.bad_rows,
                                 .bad_rows_path = job->o.bad_rows_path,
                                 .bad_rows_more = first > 0,
                                 .decoder_bytes_max = decoder_bytes_max(job),
                                 .direct_cold = true};
    cbi_input *opened;
    CB_TRY(check_bad_rows_path(job, err));
    CB_TRY(cbi_input_open(&options, &opened, err));
    cbi_mutex_lock(&job->mutex);
    job->input = opened;
    cbi_mutex_unlock(&job->mutex);
    *input = opened;
    return CB_OK;
}

cb_status cbi_job_make_memory(cbi_job *job, cb_error *err) {
    cb_manager_options options = cb_manager_options_native(job->o.memory_bytes);
    options.idle_max = 0; /* the sample's page goes before the plan's bytes come */
    CB_TRY(cb_manager_create(&options, &job->manager, err));
    CB_TRY(cb_ledger_add(job->manager, "baseline: code, libraries, main stack", NULL, NULL,
                         &job->ledger_baseline, err));
    cb_ledger_force(job->ledger_baseline, job->baseline);
    cb_task_options task = {.struct_size = sizeof task, .id = 1, .name = job->name};
    CB_TRY(cb_task_create(job->manager, &task, &job->task, err));
    cb_consumer_options consumer = {.struct_size = sizeof consumer,
                                    .name = "workers' scratch and staging",
                                    .mode = CB_OFF_HEAP};
    return cb_consumer_create(job->task, &consumer, &job->consumer, err);
}

/* ---- temporary folders ---- */

static cb_status choose_temp_dirs(cbi_job *job, cb_error *err) {
    if (job->o.temp_dir_count > 0)
        return CB_OK;
    const char *dir = getenv("CARBIDE_TMPDIR");
    if (dir == NULL || *dir == 0)
        dir = getenv("TMPDIR");
    const char *output = job->o.output;
    if ((dir == NULL || *dir == 0) && output != NULL && strcmp(output, "-") != 0 &&
        strncmp(output, "/dev/", 5) != 0) {
        const char *slash = strrchr(output, '/');
        job->temp_dir_text = cbi_strdup(slash == NULL ? "." : output);
        if (job->temp_dir_text == NULL)
            return cbi_fail(err, CB_ENOMEM, "no memory for a folder's name");
        if (slash != NULL)
            job->temp_dir_text[slash == output ? 1 : slash - output] = 0;
        dir = job->temp_dir_text;
    }
    uint64_t bytes_free;
    bool in_memory = false;
    if (dir != NULL &&
        dir == job->temp_dir_text && /* nobody asked for it: not when it lives in memory */
        (cbi_spill_space(&dir, 1, &bytes_free, &in_memory, NULL) != CB_OK || in_memory))
        dir = NULL;
    job->temp_dir_default[0] = dir != NULL && *dir != 0 ? dir : "/var/tmp";
    job->o.temp_dirs = job->temp_dir_default;
    job->o.temp_dir_count = 1;
    return CB_OK;
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
    return cbi_fail_bytes(err, CB_ENOSPC, (uint64_t)need, bytes_free,
                          "about %.0f bytes of temporary space will be needed and %llu are free in "
                          "%s; name a larger folder with -T, or give more memory",
                          need, (unsigned long long)bytes_free, job->o.temp_dirs[0]);
}

static uint64_t measure_objects(void *ctx) {
    (void)ctx;
    return cbi_alloc_bytes();
}

cb_status cbi_job_make_ready(cbi_job *job, cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    CB_TRY(choose_temp_dirs(job, err));
    CB_TRY(check_space(job, err));
    CB_TRY(cb_ledger_add(job->manager, "thread stacks", NULL, NULL, &job->ledger_stacks, err));
    cb_ledger_force(job->ledger_stacks, (uint64_t)(z->threads + z->io_threads) * 40 * CBI_KIB);
    CB_TRY(cb_ledger_add(job->manager, "small objects and codecs", measure_objects, NULL,
                         &job->ledger_objects, err));
    CB_TRY(cb_ledger_add(job->manager, "page tables", NULL, NULL, &job->ledger_tables, err));
    cb_ledger_force(job->ledger_tables, z->budget / 512);
    cb_ledger_refresh(job->manager);

    size_t scratch = z->worker * z->threads + z->shared;
    size_t scratch_segments = (scratch + z->segment - 1) / z->segment;
    cb_segment_pool_options pool = {.struct_size = sizeof pool,
                                    .task = job->task,
                                    .name = "row segments",
                                    .segment_bytes = z->segment,
                                    .segments_max = z->segments + scratch_segments,
                                    .preallocate = true,
                                    .huge_pages =
                                        !z->in_memory && z->budget >= CBI_HUGE_FROM_BYTES};
    CB_TRY(cb_segment_pool_create(&pool, &job->pool, err));
    uint8_t *base = cb_segment_pool_take(job->pool, scratch_segments);
    cb_assert(base != NULL);
    job->scratch = base;
    job->workers = cbi_calloc(z->threads, sizeof *job->workers);
    if (job->workers == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for %u workers", z->threads);
    for (unsigned i = 0; i < z->threads; i++)
        job->workers[i] = (cbi_job_worker){.job = job, .index = i, .scratch = base + i * z->worker};
    cbi_spill_options spill = {.dirs = job->o.temp_dirs,
                               .dir_count = job->o.temp_dir_count,
                               .limit_bytes = job->o.temp_limit_bytes,
                               .codec = job->o.spill_codec,
                               .io_threads = z->io_threads,
                               .segment_bytes = z->segment,
                               .staging = base + z->worker * z->threads,
                               .staging_bytes = z->staging,
                               .allow_memory_fs = z->in_memory};
    return cbi_spill_open(&spill, &job->spill, err);
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
    t->codec = "none";
    if (job->manager != NULL) {
        cb_ledger_refresh(job->manager);
        t->accounted_peak_bytes = cb_manager_accounted_peak(job->manager);
    }
    if (job->spill != NULL) {
        cbi_spill_stats spill;
        cbi_spill_get_stats(job->spill, &spill);
        t->spilled_bytes = spill.raw_bytes;
        t->spilled_stored_bytes = spill.stored_bytes;
        t->direct_temp = spill.direct;
        t->codec = cbi_codec_name(spill.codec);
    }
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
    cbi_spill_close(job->spill); /* waits for what is under way */
    job->spill = NULL;
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
    cb_segment_pool_destroy(job->pool);
    job->pool = NULL;
}

/* A refusal that came from deep below tells of pages; what helps is a budget. */
static void name_budget(cbi_job *job, cb_error *err) {
    if (err->status != CB_EBUDGET || err->bytes_had > job->o.memory_bytes ||
        job->sizes.threads == 0)
        return;
    uint64_t least = cbi_job_least_budget(job, err->bytes_asked);
    uint64_t more = cbi_round_up(job->o.memory_bytes / 4 * 5, CBI_MIB);
    least = cbi_max(least, more);
    cb_error why = *err;
    (void)cbi_fail_bytes(err, CB_EBUDGET, why.bytes_asked, least,
                         "%.800s; the budget is %llu bytes; --memory %lluM should do", why.message,
                         (unsigned long long)job->o.memory_bytes,
                         (unsigned long long)(least / CBI_MIB));
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
    (void)cb_task_end(job->task, NULL, 0);
    cb_manager_destroy(job->manager);
    cbi_free(job->temp_dir_text);
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
        cbi_spill_get_stats(job->spill, &spill);
        p->bytes_in = job->input != NULL ? cbi_input_bytes_done(job->input) : 0;
        p->bytes_in_total = job->input != NULL ? cbi_input_bytes(job->input) : 0;
        p->bytes_out = job->sink != NULL ? cbi_sink_bytes(job->sink) : 0;
        p->bytes_out_total = job->bytes_out_total;
        p->spilled_bytes = spill.raw_bytes;
        p->elapsed_ns = cbi_sys_clock_ns() - job->start_ns;
        if (p->bytes_in_total > 0) { /* reading is about half of it, working and writing the rest */
            double in = (double)p->bytes_in / (double)p->bytes_in_total;
            p->fraction = 0.5 * (in < 1 ? in : 1);
            const cbi_job_pass *pass = job->pass;
            if (pass != NULL)
                p->fraction += 0.3 * (double)pass->next / (double)pass->count;
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
    if (bytes == 0)
        return;
    text[0] = 0;
    if (job->manager != NULL)
        (void)cb_manager_tree(job->manager, text, bytes);
}
