/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/partition.h"

#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "text.h"

enum { PARTITION_KEY = 1, PARTITION_COUNT, PARTITION_BOUNDS, PARTITION_TEMPLATE };

static const cli_option what[] = {
    {.id = PARTITION_KEY,
     .letter = 'k',
     .name = "key",
     .arg = CLI_ARG_NEEDED,
     .meta = "KEY",
     .help = "by that column: NAME[:TYPE][:OPTION]... or a GNU\nKEYDEF, as for sort; several are "
             "folders in each other"},
    {.id = PARTITION_COUNT,
     .letter = 'n',
     .name = "number",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "into N files by a hash of the key (of the row\nwithout one), the same in every run"},
    {.id = PARTITION_BOUNDS,
     .name = "bounds",
     .arg = CLI_ARG_NEEDED,
     .meta = "A,B,...",
     .help = "by range: below A, from A to below B, ..., in the\nkey's order; can be said again to "
             "go on"},
    {.id = PARTITION_TEMPLATE,
     .letter = 'o',
     .name = "template",
     .arg = CLI_ARG_NEEDED,
     .meta = "NAME",
     .values = "@file",
     .help = "the files' names: {} is the value or number, {NAME}\nor {2} that of one key; folders "
             "are made; .gz, .zst\nand .lz4 compress"},
};
static const cli_group groups[] = {{"Into which files", what, CLI_COUNT(what)}, CLI_JOB_GROUPS};

const cli_verb cli_verb_partition = {
    .name = "partition",
    .summary = "splits files by value, hash or range into any number of files",
    .usage = "partition -k KEY... -o TEMPLATE [OPTION]... [FILE]...\n"
             "partition [-k KEY] -n N -o TEMPLATE [OPTION]... [FILE]...\n"
             "partition -k KEY --bounds A,B,... -o TEMPLATE [OPTION]... [FILE]...",
    .examples =
        "carbide partition -k city -o 'out/{}.csv' a.csv              a file for each city\n"
        "carbide partition -k year -k month -o 'out/{}.csv.zst' *.csv  out/2013/1.csv.zst ...\n"
        "carbide partition -k id -n 64 -o 'shard-{}.tsv' big.tsv       shard-00.tsv ... by hash\n"
        "carbide partition -k price:num --bounds 10,100 -o '{}.csv' a.csv  0.csv 1.csv 2.csv",
    .notes = "Rows keep their order, each file has the header, and all files appear when the last "
             "is whole.\n"
             "In names a value's '/', '%', blanks and control characters become %XX, as does a dot "
             "at its start;\n"
             "an empty value is %empty. Files without rows are not made.\n"
             "\n" CLI_JOB_NOTES,
    .words = NULL,
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct partition_args {
    cli_job job;
    cb_partition_options options;
    const char **keys;
    char *bounds; /* copies, cut at commas */
    const char **bound_list;
} partition_args;

static cb_status create(const void *options, void **object, cb_error *err) {
    cb_partition *p;
    cb_status status = cb_partition_create(options, &p, err);
    if (status == CB_OK)
        *object = p;
    return status;
}
static cb_status run(void *object, cb_error *err) {
    return cb_partition_run(object, err);
}
static cb_status explain(void *object, cb_job_plan *plan, cb_error *err) {
    return cb_partition_explain(object, plan, err);
}
static void progress(const void *object, cb_progress *p) {
    cb_partition_progress(object, p);
}
static void cancel(void *object) {
    cb_partition_cancel(object);
}
static void memory_tree(const void *object, char *text, size_t bytes) {
    cb_partition_memory_tree(object, text, bytes);
}
static void figures(const void *object, cb_figures *out) {
    cb_partition_figures(object, out);
}
static void destroy(void *object) {
    cb_partition_destroy(object);
}
static void get_stats(const void *object, cb_job_stats *stats, const char **name, uint64_t *files) {
    cb_partition_stats s = {.struct_size = sizeof s};
    cb_partition_get_stats(object, &s);
    *stats = s.job;
    *name = "files";
    *files = s.files;
}

static int add_bounds(partition_args *a, const char *list) {
    size_t used = 0, bytes = strlen(list) + 1, count = 1;
    for (size_t i = 0; i < a->options.bound_count; i++)
        used += strlen(a->bound_list[i]) + 1;
    for (const char *c = list; *c != '\0'; c++)
        count += *c == ',';
    char *bounds = realloc(a->bounds, used + bytes);
    if (bounds != NULL)
        a->bounds = bounds;
    size_t all = a->options.bound_count + count;
    const char **slots = realloc(a->bound_list, all * sizeof *slots);
    if (slots != NULL)
        a->bound_list = slots;
    if (bounds == NULL || slots == NULL) {
        cli_complain("memory exhausted");
        return CLI_EXIT_TROUBLE;
    }
    memcpy(bounds + used, list, bytes);
    for (char *c = bounds + used; *c != '\0'; c++)
        if (*c == ',')
            *c = '\0';
    a->options.bound_count = all;
    for (size_t i = 0; i < all; i++, bounds += strlen(bounds) + 1)
        a->bound_list[i] = bounds;
    a->options.by = CB_PARTITION_RANGE;
    return CLI_GO_ON;
}

static int take(partition_args *a, int id, const char *seen, const char *value) {
    cb_partition_options *o = &a->options;
    uint64_t n = 0;
    switch (id) {
        case PARTITION_KEY: a->keys[o->key_count++] = value; return CLI_GO_ON;
        case PARTITION_BOUNDS: return add_bounds(a, value);
        case PARTITION_TEMPLATE: o->name_template = value; return CLI_GO_ON;
        case PARTITION_COUNT:
            if (cli_count_parse(value, &n) != CLI_NUMBER_OK || n == 0 || n > UINT32_MAX)
                return cli_usage_error("partition", "invalid %s argument '%s'", seen, value);
            o->count = (uint32_t)n;
            return CLI_GO_ON;
        default: return cli_job_take(&a->job, id, seen, value);
    }
}

static int check(partition_args *a) {
    cb_partition_options *o = &a->options;
    if (o->count > 0 && o->bound_count > 0)
        return cli_usage_error("partition", "-n and --bounds exclude each other");
    if (o->name_template == NULL)
        return cli_usage_error("partition", "the files' names are needed: -o 'out/{}.csv'");
    if (o->count > 0)
        o->by = CB_PARTITION_HASH;
    else if (o->key_count == 0)
        return cli_usage_error("partition", "by what? -k KEY, or -n N for a hash of the whole row");
    return CLI_GO_ON;
}

static int read_args(partition_args *a, int argc, char **argv) {
    cli_parser parser;
    const char *value = NULL;
    int id;
    a->options.struct_size = sizeof a->options;
    int answer = cli_job_init(&a->job, &cli_verb_partition, argc);
    a->keys = calloc((size_t)argc + 1, sizeof *a->keys);
    if (answer == CLI_GO_ON && a->keys == NULL) {
        cli_complain("memory exhausted");
        answer = CLI_EXIT_TROUBLE;
    }
    cli_parser_init(&parser, &cli_verb_partition, argc, argv);
    while (answer == CLI_GO_ON && (id = cli_parser_next(&parser, &value)) != CLI_PARSE_END)
        answer = id == CLI_PARSE_ERROR ? CLI_EXIT_TROUBLE : take(a, id, parser.seen, value);
    if (answer == CLI_GO_ON)
        answer = check(a);
    if (answer == CLI_GO_ON)
        answer = cli_job_finish(&a->job, (const char *const *)parser.argv, parser.operand_count);
    a->options.job = a->job.options;
    a->options.keys = a->keys;
    a->options.bounds = a->bound_list;
    return answer;
}

int cli_partition_main(int argc, char **argv) {
    static const cli_work work = {.run = run,
                                  .explain = explain,
                                  .progress = progress,
                                  .cancel = cancel,
                                  .memory_tree = memory_tree,
                                  .figures = figures,
                                  .destroy = destroy};
    partition_args args = {.keys = NULL};
    int code = read_args(&args, argc, argv);
    if (code == CLI_GO_ON) {
        args.job.options.output = args.options.name_template; /* nothing goes to standard output */
        code = cli_job_run(&args.job, &args.options, create, work, get_stats);
    }
    free(args.keys);
    free(args.bounds);
    free(args.bound_list);
    cli_job_fini(&args.job);
    return code;
}
