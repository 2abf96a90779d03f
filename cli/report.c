/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

/* A path of control characters still fits; only what is written takes memory. */
enum { JSON_BYTES = 64 * 1024 };

static const char *plural(uint64_t n) {
    return n == 1 ? "" : "s";
}

void cli_report_truth(const cb_sort_stats *s) {
    char a[CLI_FIGURE_MAX], b[CLI_FIGURE_MAX], c[CLI_FIGURE_MAX];
    char data[512];
    cli_text out;
    cli_text_init(&out, data, sizeof data);
    cli_text_add(&out, "%s: %s in %s", cli_program, cli_size_text(s->bytes_in, a),
                 cli_time_text(s->elapsed_ns, b));
    if (s->rows_bad > 0)
        cli_text_add(&out, ", %s bad row%s left out", cli_count_text(s->rows_bad, a),
                     plural(s->rows_bad));
    cli_text_add(&out, " | budget %s, accounted %s, peak RSS %s", cli_size_text(s->budget_bytes, a),
                 cli_size_text(s->accounted_peak_bytes, b), cli_size_text(s->rss_peak_bytes, c));
    if (s->spilled_bytes == 0) {
        cli_text_add(&out, " | in memory");
    } else {
        cli_text_add(&out, " | spilled %s", cli_size_text(s->spilled_bytes, a));
        if (s->spilled_stored_bytes < s->spilled_bytes)
            cli_text_add(&out, " as %s", cli_size_text(s->spilled_stored_bytes, a));
        cli_text_add(&out, ", %u run%s, %u pass%s", s->runs, plural(s->runs), s->passes,
                     s->passes == 1 ? "" : "es");
        if (s->ranges > 0)
            cli_text_add(&out, ", %u range%s", s->ranges, plural(s->ranges));
    }
    cli_text_add(&out, "\n");
    (void)cli_write_all(STDERR_FILENO, out.data, out.used);
}

int cli_report_plan(const cb_sort_plan *p) {
    char a[CLI_FIGURE_MAX], b[CLI_FIGURE_MAX];
    char data[2048];
    cli_text out;
    cli_text_init(&out, data, sizeof data);
    cli_text_add(&out, "method   %s%s, %u thread%s\n", p->method, p->in_memory ? ", in memory" : "",
                 p->threads, plural(p->threads));
    if (p->input_bytes > 0) {
        cli_text_add(&out, "input    %s", cli_size_text(p->input_bytes, a));
        if (p->rows_estimate > 0)
            cli_text_add(&out, ", about %s rows", cli_count_text(p->rows_estimate, a));
        cli_text_add(&out, "\n");
    } else {
        cli_text_add(&out, "input    not known beforehand\n");
    }
    cli_text_add(&out, "memory   budget %s; the smallest that will do is %s\n",
                 cli_size_text(p->budget_bytes, a), cli_size_text(p->budget_min_bytes, b));
    if (p->ranges > 0)
        cli_text_add(&out, "ranges   %u, in segments of %s\n", p->ranges,
                     cli_size_text(p->segment_bytes, a));
    if (p->runs_estimate > 0)
        cli_text_add(&out, "runs     about %u\n", p->runs_estimate);
    if (p->temp_bytes_estimate > 0)
        cli_text_add(&out, "temp     about %s of %s free, written %u time%s\n",
                     cli_size_text(p->temp_bytes_estimate, a), cli_size_text(p->temp_bytes_free, b),
                     p->passes_estimate, plural(p->passes_estimate));
    else if (p->input_bytes > 0 || p->in_memory)
        cli_text_add(&out, "temp     none\n");
    else
        cli_text_add(&out, "temp     what does not fit into memory\n");
    return cli_print(out.data);
}

static void add_options(cli_text *json, const cli_sort_args *args) {
    static const char *const actions[] = {"sort", "check", "merge"};
    static const char *const formats[] = {"auto", "lines", "csv", "tsv", "fixed"};
    static const char *const headers[] = {"auto", "yes", "no"};
    static const char *const bad_rows[] = {"error", "skip", "file"};
    static const char *const codecs[] = {"auto", "none", "lz4", "delta", "nibble"};
    const cb_sort_options *o = &args->options;
    cli_json_open(json, "options", '{');
    cli_json_string(json, "action", actions[o->action]);
    cli_json_string(json, "output", o->output != NULL ? o->output : "-");
    cli_json_uint(json, "inputs", o->input_count);
    cli_json_open(json, "keys", '[');
    for (size_t i = 0; i < o->key_count && json->used < JSON_BYTES / 2; i++)
        cli_json_string(json, NULL, o->keys[i]);
    cli_json_close(json, ']');
    cli_json_string(json, "order", o->global_order != NULL ? o->global_order : "");
    cli_json_string(json, "format", formats[o->format]);
    cli_json_uint(json, "record_bytes", o->record_bytes);
    cli_json_string(json, "header", headers[o->header]);
    cli_json_string(json, "bad_rows", bad_rows[o->bad_rows]);
    cli_json_bool(json, "gnu", o->gnu);
    cli_json_bool(json, "unique", o->unique);
    cli_json_bool(json, "stable", o->stable);
    cli_json_bool(json, "zero_terminated", o->zero_terminated);
    cli_json_uint(json, "memory_bytes", o->memory_bytes);
    cli_json_uint(json, "threads", o->threads);
    cli_json_uint(json, "merge_width_max", o->merge_width_max);
    cli_json_uint(json, "temp_limit_bytes", o->temp_limit_bytes);
    cli_json_string(json, "spill_codec", codecs[o->spill_codec]);
    cli_json_close(json, '}');
}

static void add_plan(cli_text *json, const cb_sort_plan *p) {
    cli_json_open(json, "plan", '{');
    cli_json_string(json, "method", p->method);
    cli_json_bool(json, "in_memory", p->in_memory);
    cli_json_uint(json, "input_bytes", p->input_bytes);
    cli_json_uint(json, "rows_estimate", p->rows_estimate);
    cli_json_uint(json, "budget_bytes", p->budget_bytes);
    cli_json_uint(json, "budget_min_bytes", p->budget_min_bytes);
    cli_json_uint(json, "temp_bytes_estimate", p->temp_bytes_estimate);
    cli_json_uint(json, "temp_bytes_free", p->temp_bytes_free);
    cli_json_uint(json, "ranges", p->ranges);
    cli_json_uint(json, "runs_estimate", p->runs_estimate);
    cli_json_uint(json, "passes_estimate", p->passes_estimate);
    cli_json_uint(json, "threads", p->threads);
    cli_json_uint(json, "segment_bytes", p->segment_bytes);
    cli_json_close(json, '}');
}

static void add_seconds(cli_text *json, const char *name, uint64_t ns) {
    cli_json_real(json, name, (double)ns / 1e9, 6);
}

static void add_stats(cli_text *json, const cb_sort_stats *s) {
    cli_json_open(json, "stats", '{');
    cli_json_uint(json, "rows_in", s->rows_in);
    cli_json_uint(json, "rows_out", s->rows_out);
    cli_json_uint(json, "rows_bad", s->rows_bad);
    cli_json_uint(json, "bytes_in", s->bytes_in);
    cli_json_uint(json, "bytes_out", s->bytes_out);
    cli_json_uint(json, "budget_bytes", s->budget_bytes);
    cli_json_uint(json, "accounted_peak_bytes", s->accounted_peak_bytes);
    cli_json_uint(json, "rss_peak_bytes", s->rss_peak_bytes);
    cli_json_uint(json, "spilled_bytes", s->spilled_bytes);
    cli_json_uint(json, "spilled_stored_bytes", s->spilled_stored_bytes);
    cli_json_uint(json, "ranges", s->ranges);
    cli_json_uint(json, "runs", s->runs);
    cli_json_uint(json, "passes", s->passes);
    cli_json_uint(json, "divided", s->divided);
    cli_json_uint(json, "threads", s->threads);
    add_seconds(json, "elapsed_s", s->elapsed_ns);
    add_seconds(json, "sample_s", s->sample_ns);
    add_seconds(json, "read_s", s->read_ns);
    add_seconds(json, "merge_s", s->merge_ns);
    add_seconds(json, "write_s", s->write_ns);
    cli_json_string(json, "codec", s->codec != NULL ? s->codec : "none");
    cli_json_bool(json, "direct_temp", s->direct_temp);
    cli_json_bool(json, "direct_output", s->direct_output);
    cli_json_close(json, '}');
}

static int write_json(const char *path, const cli_text *json) {
    int fd = STDERR_FILENO;
    if (path != NULL)
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    bool written = fd >= 0 && cli_write_all(fd, json->data, json->used);
    int why = errno;
    if (fd >= 0 && fd != STDERR_FILENO && close(fd) != 0 && written) {
        written = false;
        why = errno;
    }
    if (written)
        return CLI_EXIT_OK;
    cli_complain("cannot write the figures to %s: %s", path != NULL ? path : "standard error",
                 strerror(why));
    return CLI_EXIT_TROUBLE;
}

int cli_report_stats(const cli_sort_args *args, const cb_sort_plan *plan,
                     const cb_sort_stats *stats, cb_status status, const char *message) {
    static char data[JSON_BYTES];
    cli_text json;
    cli_text_init(&json, data, sizeof data);
    cli_json_open(&json, NULL, '{');
    cli_json_string(&json, "program", "carbide sort");
    cli_json_string(&json, "version", CARBIDE_VERSION);
    cli_json_string(&json, "status", cb_status_name(status));
    if (status != CB_OK)
        cli_json_string(&json, "message", message);
    add_options(&json, args);
    if (plan != NULL)
        add_plan(&json, plan);
    if (stats != NULL)
        add_stats(&json, stats);
    cli_json_close(&json, '}');
    cli_text_add(&json, "\n");
    return write_json(args->stats_path, &json);
}

int cli_report_job(const char *verb, const char *path, const cb_sort_stats *stats,
                   const char *extra_name, uint64_t extra, cb_status status, const char *message) {
    static char data[JSON_BYTES];
    char program[40];
    cli_text json;
    (void)snprintf(program, sizeof program, "carbide %s", verb);
    cli_text_init(&json, data, sizeof data);
    cli_json_open(&json, NULL, '{');
    cli_json_string(&json, "program", program);
    cli_json_string(&json, "version", CARBIDE_VERSION);
    cli_json_string(&json, "status", cb_status_name(status));
    if (status != CB_OK)
        cli_json_string(&json, "message", message);
    if (extra_name != NULL)
        cli_json_uint(&json, extra_name, extra);
    add_stats(&json, stats);
    cli_json_close(&json, '}');
    cli_text_add(&json, "\n");
    return write_json(path, &json);
}
