/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `carbide doctor`: what this machine or container gives, and what a sort would make of it. What
 * carbide chooses by itself is not computed again here: an empty sort is planned, and its plan is
 * shown.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "carbide/sort.h"
#include "cli.h"
#include "disk.h"
#include "host.h"
#include "options.h"
#include "text.h"

enum { DOCTOR_TEMP = 1, DOCTOR_SIZE, DOCTOR_JSON, DOCTOR_HELP };

static const cli_option options[] = {
    {.id = DOCTOR_TEMP,
     .letter = 'T',
     .name = "temporary-directory",
     .arg = CLI_ARG_NEEDED,
     .meta = "DIR",
     .values = "@dir",
     .help = "the folder to look at; CARBIDE_TMPDIR, TMPDIR or\n/var/tmp otherwise"},
    {.id = DOCTOR_SIZE,
     .name = "disk-size",
     .arg = CLI_ARG_NEEDED,
     .meta = "SIZE",
     .help = "of the file that measures the disk; 256M otherwise,\n0 = do not measure"},
    {.id = DOCTOR_JSON, .name = "json", .help = "for machines"},
    {.id = DOCTOR_HELP, .letter = 'h', .name = "help", .help = "this"},
};
static const cli_group groups[] = {{"Options", options, CLI_COUNT(options)}};
const cli_verb cli_verb_doctor = {
    .name = "doctor",
    .summary = "looks at memory, disk and CPU: what carbide will use",
    .usage = "doctor [OPTION]...",
    .examples = "carbide doctor                  this machine, and the usual temporary folder\n"
                "carbide doctor -T /mnt/fast     how fast is that disk?\n"
                "carbide doctor --json | jq .    for machines",
    .words = "",
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct findings {
    cli_host host;
    cli_disk disk;
    const char *folder;
    bool planned;
    cb_sort_plan plan;
    cb_error plan_error;
} findings;

static void plan_nothing(findings *f) {
    static const char *const inputs[] = {"/dev/null"};
    cb_sort *sort = NULL;
    cb_sort_options o = {.struct_size = sizeof o,
                         .inputs = inputs,
                         .input_count = 1,
                         .format = CB_FORMAT_LINES,
                         .field_separator = -1,
                         .temp_dirs = &f->folder,
                         .temp_dir_count = 1};
    f->plan.struct_size = sizeof f->plan;
    cb_status status = cb_sort_create(&o, &sort, &f->plan_error);
    if (status == CB_OK)
        status = cb_sort_explain(sort, &f->plan, &f->plan_error);
    f->planned = status == CB_OK;
    cb_sort_destroy(sort);
}

static void say_memory(cli_text *out, const findings *f) {
    char a[CLI_FIGURE_MAX], b[CLI_FIGURE_MAX];
    const cli_host *h = &f->host;
    cli_text_add(out, "memory   machine %s, available %s\n", cli_size_text(h->memory_total, a),
                 cli_size_text(h->memory_available, b));
    if (h->cgroup_version == 0)
        cli_text_add(out, "cgroup   none to be seen\n");
    else if (h->cgroup_limit == UINT64_MAX)
        cli_text_add(out, "cgroup   v%u, no memory limit (%s)\n", h->cgroup_version,
                     h->cgroup_path);
    else
        cli_text_add(out, "cgroup   v%u, limit %s, in use %s (%s)\n", h->cgroup_version,
                     cli_size_text(h->cgroup_limit, a), cli_size_text(h->cgroup_used, b),
                     h->cgroup_path);
}

static void say_cpu(cli_text *out, const findings *f) {
    const cli_host *h = &f->host;
    cli_text_add(out, "CPU      %u of %u allowed", h->cpus_allowed, h->cpus_online);
    if (h->cpu_quota > 0)
        cli_text_add(out, ", quota of %.1f", h->cpu_quota);
    cli_text_add(out, "; AVX2 %s, AVX-512 %s\n", h->avx2 ? "yes" : "no", h->avx512 ? "yes" : "no");
}

static void say_disk(cli_text *out, const findings *f) {
    char a[CLI_FIGURE_MAX], b[CLI_FIGURE_MAX];
    const cli_disk *d = &f->disk;
    cli_text_add(out, "temp     %s: %s, %s free\n", f->folder, d->file_system,
                 cli_size_text(d->free_bytes, a));
    if (d->message[0] != '\0')
        cli_text_add(out, "         %s\n", d->message);
    if (d->in_memory)
        cli_text_add(out, "         WARNING: this file system lives in memory; name a folder on a "
                          "disk with -T\n");
    else if (d->usable)
        cli_text_add(out, "         direct I/O %s, nameless files %s\n", d->direct ? "yes" : "no",
                     d->nameless ? "yes" : "no");
    if (d->read_bytes_s > 0)
        cli_text_add(out, "disk     write %s/s, read %s/s (%s, %s)\n",
                     cli_size_text((uint64_t)d->write_bytes_s, a),
                     cli_size_text((uint64_t)d->read_bytes_s, b),
                     d->direct ? "direct" : "through the page cache",
                     "two threads, requests of 1 MiB");
}

static void say_choice(cli_text *out, const findings *f) {
    char a[CLI_FIGURE_MAX], b[CLI_FIGURE_MAX];
    if (f->planned)
        cli_text_add(
            out, "carbide  will use %s (--memory auto) and %u threads; the smallest budget is %s\n",
            cli_size_text(f->plan.budget_bytes, a), f->plan.threads,
            cli_size_text(f->plan.budget_min_bytes, b));
    else
        cli_text_add(out, "carbide  cannot plan a sort here: %s\n", f->plan_error.message);
}

static int tell(const findings *f) {
    char data[4096];
    cli_text out;
    cli_text_init(&out, data, sizeof data);
    cli_text_add(&out, "carbide  %s\n", CARBIDE_VERSION);
    say_memory(&out, f);
    say_cpu(&out, f);
    say_disk(&out, f);
    say_choice(&out, f);
    return cli_print(data);
}

static int tell_json(const findings *f) {
    char data[8192];
    cli_text j;
    const cli_host *h = &f->host;
    const cli_disk *d = &f->disk;
    cli_text_init(&j, data, sizeof data);
    cli_json_open(&j, NULL, '{');
    cli_json_string(&j, "version", CARBIDE_VERSION);
    cli_json_uint(&j, "memory_total_bytes", h->memory_total);
    cli_json_uint(&j, "memory_available_bytes", h->memory_available);
    cli_json_uint(&j, "cgroup_version", h->cgroup_version);
    cli_json_string(&j, "cgroup_path", h->cgroup_path);
    if (h->cgroup_limit == UINT64_MAX)
        cli_json_null(&j, "cgroup_limit_bytes");
    else
        cli_json_uint(&j, "cgroup_limit_bytes", h->cgroup_limit);
    cli_json_uint(&j, "cgroup_used_bytes", h->cgroup_used);
    cli_json_uint(&j, "cpus_online", h->cpus_online);
    cli_json_uint(&j, "cpus_allowed", h->cpus_allowed);
    cli_json_real(&j, "cpu_quota", h->cpu_quota, 2);
    cli_json_bool(&j, "avx2", h->avx2);
    cli_json_bool(&j, "avx512", h->avx512);
    cli_json_string(&j, "temp_folder", f->folder);
    cli_json_string(&j, "temp_file_system", d->file_system);
    cli_json_bool(&j, "temp_in_memory", d->in_memory);
    cli_json_bool(&j, "temp_usable", d->usable);
    cli_json_uint(&j, "temp_free_bytes", d->free_bytes);
    cli_json_bool(&j, "direct_io", d->direct);
    cli_json_bool(&j, "nameless_files", d->nameless);
    cli_json_real(&j, "disk_write_bytes_s", d->write_bytes_s, 0);
    cli_json_real(&j, "disk_read_bytes_s", d->read_bytes_s, 0);
    cli_json_string(&j, "temp_message", d->message);
    if (f->planned) {
        cli_json_uint(&j, "budget_auto_bytes", f->plan.budget_bytes);
        cli_json_uint(&j, "budget_min_bytes", f->plan.budget_min_bytes);
        cli_json_uint(&j, "threads", f->plan.threads);
    } else {
        cli_json_string(&j, "plan_error", f->plan_error.message);
    }
    cli_json_close(&j, '}');
    cli_text_add(&j, "\n");
    return cli_print(data);
}

static const char *usual_folder(void) {
    static const char *const names[] = {"CARBIDE_TMPDIR", "TMPDIR"};
    for (size_t i = 0; i < CLI_COUNT(names); i++) {
        const char *folder = getenv(names[i]);
        if (folder != NULL && folder[0] != '\0')
            return folder;
    }
    return "/var/tmp";
}

int cli_doctor_main(int argc, char **argv) {
    static findings f;
    cli_parser parser;
    const char *value = NULL;
    uint64_t disk_bytes = UINT64_C(256) << 20;
    bool json = false;
    int id;
    f.folder = usual_folder();
    cli_parser_init(&parser, &cli_verb_doctor, argc, argv);
    while ((id = cli_parser_next(&parser, &value)) != CLI_PARSE_END) {
        if (id == CLI_PARSE_ERROR)
            return CLI_EXIT_TROUBLE;
        if (id == DOCTOR_HELP)
            return cli_help(&cli_verb_doctor);
        if (id == DOCTOR_TEMP)
            f.folder = value;
        else if (id == DOCTOR_JSON)
            json = true;
        else if (cli_size_parse(value, 1, 0, &disk_bytes) != CLI_NUMBER_OK)
            return cli_usage_error("doctor", "invalid %s argument '%s'", parser.seen, value);
    }
    if (parser.operand_count > 0)
        return cli_usage_error("doctor", "extra operand '%s'", parser.argv[0]);
    cli_host_look(&f.host);
    plan_nothing(&f); /* before the disk is measured: what is available counts */
    cli_disk_look(&f.disk, f.folder, disk_bytes);
    int code = json ? tell_json(&f) : tell(&f);
    return code == CLI_EXIT_OK && !f.disk.usable ? CLI_EXIT_TROUBLE : code;
}
