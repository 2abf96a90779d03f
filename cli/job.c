/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "report.h"
#include "text.h"

enum { TREE_BYTES = 8 * 1024, THREADS_MAX = 1024 };

const cli_option cli_job_output[CLI_JOB_OUTPUTS] = {
    {.id = CLI_JOB_OUTPUT,
     .letter = 'o',
     .name = "output",
     .arg = CLI_ARG_NEEDED,
     .meta = "FILE",
     .values = "@file",
     .help = "there instead of standard output; may be an input;\nappears whole or not at all"},
};

const cli_option cli_job_files[CLI_JOB_FILES] = {
    {.id = CLI_JOB_FORMAT,
     .name = "format",
     .arg = CLI_ARG_NEEDED,
     .meta = "FORMAT",
     .values = "lines csv tsv fixed:",
     .help = "lines, csv, tsv or fixed:BYTES; by the first file's\nname otherwise (.csv, .tsv, "
             "lines for all else)"},
    {.id = CLI_JOB_SEPARATOR,
     .letter = 't',
     .name = "field-separator",
     .arg = CLI_ARG_NEEDED,
     .meta = "C",
     .help = "fields end with C"},
    {.id = CLI_JOB_HEADER,
     .name = "header",
     .help = "the first row of each input is a header (csv and\ntsv: so anyway)"},
    {.id = CLI_JOB_NO_HEADER,
     .name = "no-header",
     .help = "the first row is a row like all others"},
    {.id = CLI_JOB_ZERO,
     .letter = 'z',
     .name = "zero-terminated",
     .help = "rows end with NUL, not with a line feed"},
    {.id = CLI_JOB_BAD_ROWS,
     .name = "bad-rows",
     .arg = CLI_ARG_NEEDED,
     .meta = "WHAT",
     .values = "error skip @file",
     .help = "malformed rows: error (exit 3, the default), skip,\nor a FILE that takes them"},
};

const cli_option cli_job_resources[CLI_JOB_RESOURCES] = {
    {.id = CLI_JOB_MEMORY,
     .letter = 'S',
     .name = "memory",
     .arg = CLI_ARG_NEEDED,
     .meta = "SIZE",
     .values = "auto",
     .help = "budget of the whole process: 64M, 2G, 50%, or auto\n"
             "(what the container or machine really leaves)"},
    {.id = CLI_JOB_THREADS,
     .letter = 'j',
     .name = "parallel",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "threads; one per usable CPU otherwise"},
    {.id = CLI_JOB_TEMP,
     .letter = 'T',
     .name = "temporary-directory",
     .arg = CLI_ARG_NEEDED,
     .meta = "DIR",
     .values = "@dir",
     .help = "temporary files there; several are used together;\n"
             "CARBIDE_TMPDIR, TMPDIR or the output's folder otherwise"},
    {.id = CLI_JOB_TEMP_LIMIT,
     .name = "temp-limit",
     .arg = CLI_ARG_NEEDED,
     .meta = "SIZE",
     .help = "no more temporary bytes than that (else exit 4)"},
    {.id = CLI_JOB_CODEC,
     .name = "spill-compress",
     .arg = CLI_ARG_NEEDED,
     .meta = "CODEC",
     .values = "auto none lz4 delta nibble",
     .help = "of temporary files: none, lz4, delta, nibble, or auto\n(measured)"},
};

const cli_option cli_job_telling[CLI_JOB_TELLING] = {
    {.id = CLI_JOB_PROGRESS,
     .name = "progress",
     .arg = CLI_ARG_NEEDED,
     .meta = "WHEN",
     .values = "auto always never json",
     .help = "auto (on a terminal), always, never, or json lines"},
    {.id = CLI_JOB_STATS,
     .name = "stats",
     .arg = CLI_ARG_OPTIONAL,
     .meta = "FILE",
     .values = "@file",
     .help = "figures as JSON, to standard error or FILE"},
    {.id = CLI_JOB_STATUS,
     .name = "status",
     .arg = CLI_ARG_NEEDED,
     .meta = "FILE",
     .values = "@file",
     .help = "publish who holds the memory in FILE, for carbide top"},
    {.id = CLI_JOB_EXPLAIN,
     .name = "explain",
     .help = "what it will take (partitions, memory, temporary\nbytes), and nothing is done"},
    {.id = CLI_JOB_QUIET, .letter = 'q', .name = "quiet", .help = "errors only"},
    {.id = CLI_JOB_VERBOSE,
     .name = "verbose",
     .help = "the closing figures even when not on a terminal, and\nwho holds the memory when it "
             "runs out"},
    {.id = CLI_JOB_HELP, .letter = 'h', .name = "help", .help = "this"},
};

static int bad_value(const cli_job *job, const char *seen, const char *value) {
    return cli_usage_error(job->verb->name, "invalid %s argument '%s'", seen, value);
}

static int bad_word(const cli_job *job, const char *seen, const char *value, const char *words) {
    return cli_usage_error(job->verb->name, "invalid argument '%s' for '%s'; valid are: %s", value,
                           seen, words);
}

int cli_job_init(cli_job *job, const cli_verb *verb, int argc) {
    *job = (cli_job){.verb = verb};
    job->temp_dirs = calloc((size_t)argc + 1, sizeof *job->temp_dirs);
    job->options.temp_dirs = job->temp_dirs;
    if (job->temp_dirs != NULL)
        return CLI_GO_ON;
    cli_complain("memory exhausted");
    return CLI_EXIT_TROUBLE;
}

void cli_job_fini(cli_job *job) {
    free(job->temp_dirs);
    *job = (cli_job){.verb = job->verb};
}

int cli_job_separator(const cli_job *job, const char *value, unsigned char *byte) {
    bool one = value[0] != '\0' && value[1] == '\0';
    if (!one && strcmp(value, "\\t") != 0 && strcmp(value, "\\0") != 0)
        return cli_usage_error(job->verb->name, "a separator is one byte, not '%s'", value);
    *byte = (unsigned char)(one ? value[0] : value[1] == 't' ? '\t' : '\0');
    return CLI_GO_ON;
}

static int take_format(cli_job *job, const char *seen, const char *value) {
    static const cb_format_kind kinds[] = {CB_FORMAT_LINES, CB_FORMAT_CSV, CB_FORMAT_TSV};
    uint64_t bytes = 0;
    if (strncmp(value, "fixed:", 6) == 0) {
        if (cli_integer_parse(value + 6, &bytes) != CLI_NUMBER_OK || bytes == 0)
            return bad_value(job, seen, value);
        job->options.format = CB_FORMAT_FIXED;
        job->options.record_bytes = (size_t)bytes;
        return CLI_GO_ON;
    }
    int place = cli_word_find("lines csv tsv", value);
    if (place < 0)
        return bad_word(job, seen, value, "lines csv tsv fixed:BYTES");
    job->options.format = kinds[place];
    return CLI_GO_ON;
}

static void take_bad_rows(cli_job *job, const char *value) {
    cb_job_options *o = &job->options;
    o->bad_rows = strcmp(value, "error") == 0  ? CB_BAD_ROWS_ERROR
                  : strcmp(value, "skip") == 0 ? CB_BAD_ROWS_SKIP
                                               : CB_BAD_ROWS_FILE;
    o->bad_rows_path = o->bad_rows == CB_BAD_ROWS_FILE ? value : NULL;
}

static int take_resource(cli_job *job, int id, const char *seen, const char *value) {
    static const cb_codec codecs[] = {CB_CODEC_AUTO, CB_CODEC_NONE, CB_CODEC_LZ4, CB_CODEC_DELTA,
                                      CB_CODEC_NIBBLE};
    cb_job_options *o = &job->options;
    uint64_t n = 0;
    if (id == CLI_JOB_TEMP) {
        job->temp_dirs[o->temp_dir_count++] = value;
    } else if (id == CLI_JOB_CODEC) {
        int place = cli_word_find("auto none lz4 delta nibble", value);
        if (place < 0)
            return bad_word(job, seen, value, "auto none lz4 delta nibble");
        o->spill_codec = codecs[place];
    } else if (id == CLI_JOB_THREADS) {
        if (cli_integer_parse(value, &n) != CLI_NUMBER_OK || n == 0)
            return bad_value(job, seen, value);
        o->threads = n < THREADS_MAX ? (unsigned)n : THREADS_MAX;
    } else {
        if (cli_size_parse(value, 1, 0, &n) != CLI_NUMBER_OK || n == 0)
            return bad_value(job, seen, value);
        o->temp_limit_bytes = n;
    }
    return CLI_GO_ON;
}

static int take_telling(cli_job *job, int id, const char *seen, const char *value) {
    static const cli_progress whens[] = {CLI_PROGRESS_AUTO, CLI_PROGRESS_ALWAYS, CLI_PROGRESS_NEVER,
                                         CLI_PROGRESS_JSON};
    int place = 0;
    switch (id) {
        case CLI_JOB_PROGRESS:
            place = cli_word_find("auto always never json", value);
            if (place < 0)
                return bad_word(job, seen, value, "auto always never json");
            job->progress = whens[place];
            break;
        case CLI_JOB_STATS:
            job->stats = true;
            job->stats_path = value != NULL && strcmp(value, "-") != 0 ? value : NULL;
            break;
        case CLI_JOB_STATUS: job->status_path = value; break;
        case CLI_JOB_EXPLAIN: job->explain = true; break;
        case CLI_JOB_QUIET: job->quiet = true; break;
        case CLI_JOB_VERBOSE: job->verbose = true; break;
        default: return cli_help(job->verb);
    }
    return CLI_GO_ON;
}

int cli_job_take(cli_job *job, int id, const char *seen, const char *value) {
    cb_job_options *o = &job->options;
    switch (id) {
        case CLI_JOB_OUTPUT: o->output = value; return CLI_GO_ON;
        case CLI_JOB_FORMAT: return take_format(job, seen, value);
        case CLI_JOB_SEPARATOR:
            o->has_field_separator = true;
            return cli_job_separator(job, value, &o->field_separator);
        case CLI_JOB_HEADER: o->header = CB_HEADER_YES; return CLI_GO_ON;
        case CLI_JOB_NO_HEADER: o->header = CB_HEADER_NO; return CLI_GO_ON;
        case CLI_JOB_ZERO: o->zero_terminated = true; return CLI_GO_ON;
        case CLI_JOB_BAD_ROWS: take_bad_rows(job, value); return CLI_GO_ON;
        case CLI_JOB_MEMORY:
            job->memory = value;
            job->memory_seen = seen[1] == 'S' ? "-S" : "--memory";
            return CLI_GO_ON;
        case CLI_JOB_THREADS:
        case CLI_JOB_TEMP:
        case CLI_JOB_TEMP_LIMIT:
        case CLI_JOB_CODEC: return take_resource(job, id, seen, value);
        case CLI_JOB_PROGRESS:
        case CLI_JOB_STATS:
        case CLI_JOB_STATUS:
        case CLI_JOB_EXPLAIN:
        case CLI_JOB_QUIET:
        case CLI_JOB_VERBOSE:
        case CLI_JOB_HELP: return take_telling(job, id, seen, value);
        default: return CLI_NOT_MINE;
    }
}

int cli_job_finish(cli_job *job, const char *const *inputs, size_t count) {
    const char *text = job->memory, *from = job->memory_seen;
    job->options.inputs = inputs;
    job->options.input_count = count;
    if (text == NULL) {
        text = getenv("CARBIDE_MEMORY");
        from = "CARBIDE_MEMORY";
    }
    if (text == NULL || *text == '\0' || strcmp(text, "auto") == 0)
        return CLI_GO_ON;
    uint64_t whole = strchr(text, '%') != NULL ? cli_host_memory_whole() : 0;
    uint64_t bytes = 0;
    if (cli_size_parse(text, 1, whole, &bytes) != CLI_NUMBER_OK)
        return bad_value(job, from, text);
    job->options.memory_bytes = bytes > 0 ? bytes : 1;
    return CLI_GO_ON;
}

/* ---- the run ---- */

static bool is_stream(const char *path) {
    struct stat st;
    bool there = strcmp(path, "-") == 0 ? fstat(STDIN_FILENO, &st) == 0 : stat(path, &st) == 0;
    return there && !S_ISREG(st.st_mode);
}

static bool has_streams(const cb_job_options *o) {
    if (o->input_count == 0)
        return is_stream("-");
    for (size_t i = 0; i < o->input_count; i++)
        if (is_stream(o->inputs[i]))
            return true;
    return false;
}

static void tell_failure(const cli_job *job, const cli_work *work, const cb_error *err) {
    static char tree[TREE_BYTES];
    cli_complain("%s", err->message[0] != '\0' ? err->message : cb_status_text(err->status));
    if (err->status != CB_EBUDGET)
        return;
    if (err->bytes_had > job->options.memory_bytes && strstr(err->message, "--memory") == NULL) {
        char figure[CLI_FIGURE_MAX];
        cli_complain("the smallest budget that will do is --memory %s",
                     cli_size_option(err->bytes_had, figure));
    }
    if (job->verbose && work->object != NULL) {
        tree[0] = '\0';
        work->memory_tree(work->object, tree, sizeof tree);
        (void)cli_write_all(STDERR_FILENO, tree, strlen(tree));
    }
}

/** What was written may still be refused when the file is closed (quotas, network file systems). */
static int close_output(const cli_job *job) {
    const char *output = job->options.output;
    if ((output != NULL && strcmp(output, "-") != 0) || close(STDOUT_FILENO) == 0)
        return CLI_EXIT_OK;
    cli_complain("write failed: 'standard output': %s", strerror(errno));
    return CLI_EXIT_TROUBLE;
}

static int tell_figures(const cli_job *job, const cli_work *work, cli_stats_fn get,
                        cb_status status, const char *message) {
    cb_job_stats stats = {.struct_size = sizeof stats};
    const char *extra_name = NULL;
    uint64_t extra = 0;
    get(work->object, &stats, &extra_name, &extra);
    bool wanted = job->verbose || job->progress == CLI_PROGRESS_ALWAYS ||
                  (job->progress != CLI_PROGRESS_NEVER && isatty(STDERR_FILENO) == 1);
    if (status == CB_OK && wanted && !job->quiet)
        cli_report_truth(&stats);
    return job->stats ? cli_report_job(job->verb->name, job->stats_path, &stats, extra_name, extra,
                                       status, message)
                      : CLI_EXIT_OK;
}

static int explain(const cli_job *job, const void *options, cli_create_fn create, cli_work work) {
    cb_job_plan plan = {.struct_size = sizeof plan};
    cb_error err = {0};
    work.object = NULL;
    cb_status status = create(options, &work.object, &err);
    if (status == CB_OK)
        status = work.explain(work.object, &plan, &err);
    int code = plan.method[0] != '\0' ? cli_report_plan(&plan) : CLI_EXIT_OK;
    if (status != CB_OK) {
        tell_failure(job, &work, &err);
        code = cli_exit_code(status);
    }
    if (work.object != NULL)
        work.destroy(work.object);
    return code;
}

int cli_job_run(const cli_job *job, const void *options, cli_create_fn create, cli_work work,
                cli_stats_fn stats) {
    if (job->explain)
        return explain(job, options, create, work);
    cb_error err = {0};
    sigset_t before;
    work.object = NULL;
    work.what = job->verb->name;
    if (job->status_path != NULL &&
        cb_status_page_create(job->status_path, &work.page, &err) != CB_OK) {
        cli_complain("%s", err.message);
        return CLI_EXIT_TROUBLE;
    }
    cli_signals_block(&before);
    cb_status status = create(options, &work.object, &err);
    if (status == CB_OK)
        status = cli_ticker_watch(&work, job->progress, job->quiet, has_streams(&job->options),
                                  &before, &err);
    cb_status_page_destroy(work.page); /* a signal that came late ends the process now */
    cli_signals_restore(&before);
    if (status != CB_OK)
        tell_failure(job, &work, &err);
    int code = cli_exit_code(status);
    int told =
        work.object != NULL ? tell_figures(job, &work, stats, status, err.message) : CLI_EXIT_OK;
    if (code == CLI_EXIT_OK)
        code = close_output(job);
    if (code == CLI_EXIT_OK)
        code = told;
    if (work.object != NULL)
        work.destroy(work.object);
    return code;
}
