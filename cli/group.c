/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/group.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "job.h"

enum { GROUP_KEY = 1, GROUP_AGGREGATE, GROUP_SORTED, GROUP_NULL };

static const cli_option group_options[] = {
    {GROUP_KEY, 'k', "key", CLI_ARG_NEEDED, "KEY[,KEY]...", NULL,
     "a column by name, or by number; NAME:TYPE when values\n"
     "that are written differently may be the same: num int\n"
     "float ver human month time; without any key all rows are\none group",
     false, false},
    {GROUP_AGGREGATE, 'a', "aggregate", CLI_ARG_NEEDED, "WHAT", NULL,
     "[NAME=]FUNCTION(COLUMN), as the operands that look so", false, false},
    {GROUP_SORTED, 0, "sorted-output", CLI_ARG_NONE, NULL, NULL,
     "by key; otherwise as groups first appear", false, false},
    {GROUP_NULL, 0, "null", CLI_ARG_NEEDED, "TEXT", NULL,
     "values written so are missing for aggregates, as empty\nones are: --null NA", false, false},
};

static const cli_group groups[] = {
    {"What is grouped", group_options, CLI_COUNT(group_options)},
    CLI_JOB_OUTPUT_GROUP,
    CLI_JOB_GROUPS,
};

const cli_verb cli_verb_group = {
    .name = "group",
    .summary = "groups rows by keys: sums, means, quantiles, distinct values ...",
    .usage = "group [-k KEY]... [OPTION]... AGGREGATE... [FILE]...",
    .examples =
        "carbide group -k carrier 'count()' 'mean(delay)' a.csv\n"
        "carbide group -k origin,dest n='count()' 'p95(delay)' a.csv     a name for a result\n"
        "carbide group 'sum(distance)' a.csv                             one group: all rows\n"
        "carbide group -k tail 'argmax(dest,delay)' -S 64M -o b.csv a.csv  in 64 MiB\n"
        "carbide group -k price:num --sorted-output 'count()' a.csv      1.0 and 1 are the same\n"
        "carbide group -k id --format tsv < a.tsv                        distinct keys",
    .notes =
        "Operands that look like FUNCTION(COLUMN) or NAME=FUNCTION(COLUMN) are aggregates, others "
        "are files.\n"
        "  count() rows; count(x) values that are there; sum mean min max var sd varp sdp;\n"
        "  median p95 p99.9 (exact, between two values in proportion); corr(x,y);\n"
        "  countdistinct (exact), approxdistinct (within some 2%); first last mode collect;\n"
        "  top3 bottom3; argmax(x,by) argmin(row,by): x, or the whole row, by the largest or least "
        "BY.\n"
        "A column may be COLUMN:num, COLUMN:float or COLUMN:str; names with commas or colons are\n"
        "written in double quotes.\n"
        "Numbers are exact decimals: sums of up to 38 digits, means to 17. Missing values do not\n"
        "count. Floats of any exponent are summed exactly and rounded once.\n"
        "\n" CLI_JOB_NOTES,
    .words = NULL,
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct group_args {
    cli_job job;
    cb_group_options options;
    const char **keys, **aggregates;
} group_args;

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.';
}

/** FUNCTION(...), NAME=FUNCTION(...), or FUNCTION:COLUMN that is no file. */
static bool is_aggregate(const char *text) {
    const char *open = strchr(text, '(');
    size_t bytes = strlen(text);
    if (open != NULL && bytes > 0 && text[bytes - 1] == ')') {
        const char *from = open;
        while (from > text && is_letter(from[-1]))
            from--;
        return from < open && (from == text || from[-1] == '=');
    }
    struct stat st;
    const char *colon = strchr(text, ':'), *p = text;
    while (is_letter(*p))
        p++;
    return colon != NULL && p == colon && p > text && stat(text, &st) != 0;
}

static cb_status create(const void *options, void **object, cb_error *err) {
    cb_group *group = NULL;
    cb_status status = cb_group_create(options, &group, err);
    if (status == CB_OK)
        *object = group;
    return status;
}
static cb_status run(void *object, cb_error *err) {
    return cb_group_run(object, err);
}
static cb_status explain(void *object, cb_job_plan *plan, cb_error *err) {
    return cb_group_explain(object, plan, err);
}
static void progress(const void *object, cb_progress *p) {
    cb_group_progress(object, p);
}
static void cancel(void *object) {
    cb_group_cancel(object);
}
static void memory_tree(const void *object, char *text, size_t bytes) {
    cb_group_memory_tree(object, text, bytes);
}
static void figures(const void *object, cb_figures *out) {
    cb_group_figures(object, out);
}
static void destroy(void *object) {
    cb_group_destroy(object);
}
static void get_stats(const void *object, cb_job_stats *stats, const char **name,
                      uint64_t *groups_out) {
    cb_group_get_stats(object, stats);
    *name = "groups";
    *groups_out = stats->rows_out;
}

static int take(group_args *a, int id, const char *seen, const char *value) {
    cb_group_options *o = &a->options;
    switch (id) {
        case GROUP_KEY: a->keys[o->key_count++] = value; return CLI_GO_ON;
        case GROUP_AGGREGATE: a->aggregates[o->aggregate_count++] = value; return CLI_GO_ON;
        case GROUP_SORTED: o->sorted_output = true; return CLI_GO_ON;
        case GROUP_NULL: o->null_text = value; return CLI_GO_ON;
        default: return cli_job_take(&a->job, id, seen, value);
    }
}

/** Operands that are aggregates leave the list of files. */
static void take_aggregates(group_args *a, cli_parser *parser) {
    size_t files = 0;
    for (size_t i = 0; i < parser->operand_count; i++) {
        if (is_aggregate(parser->argv[i]))
            a->aggregates[a->options.aggregate_count++] = parser->argv[i];
        else
            parser->argv[files++] = parser->argv[i];
    }
    parser->operand_count = files;
}

static int read_args(group_args *a, int argc, char **argv) {
    cli_parser parser;
    const char *value = NULL;
    int id;
    a->options.struct_size = sizeof a->options;
    int answer = cli_job_init(&a->job, &cli_verb_group, argc);
    a->keys = calloc((size_t)argc + 1, sizeof *a->keys);
    a->aggregates = calloc((size_t)argc + 1, sizeof *a->aggregates);
    if (answer == CLI_GO_ON && (a->keys == NULL || a->aggregates == NULL)) {
        cli_complain("memory exhausted");
        answer = CLI_EXIT_TROUBLE;
    }
    cli_parser_init(&parser, &cli_verb_group, argc, argv);
    while (answer == CLI_GO_ON && (id = cli_parser_next(&parser, &value)) != CLI_PARSE_END)
        answer = id == CLI_PARSE_ERROR ? CLI_EXIT_TROUBLE : take(a, id, parser.seen, value);
    if (answer == CLI_GO_ON) {
        take_aggregates(a, &parser);
        if (a->options.key_count == 0 && a->options.aggregate_count == 0)
            return cli_usage_error("group", "what? -k KEY, aggregates as 'sum(price)', or both");
        answer = cli_job_finish(&a->job, (const char *const *)parser.argv, parser.operand_count);
    }
    a->options.job = a->job.options;
    a->options.keys = a->keys;
    a->options.aggregates = a->aggregates;
    return answer;
}

int cli_group_main(int argc, char **argv) {
    static const cli_work work = {.run = run,
                                  .explain = explain,
                                  .progress = progress,
                                  .cancel = cancel,
                                  .memory_tree = memory_tree,
                                  .figures = figures,
                                  .destroy = destroy};
    group_args args = {.keys = NULL};
    int code = read_args(&args, argc, argv);
    if (code == CLI_GO_ON)
        code = cli_job_run(&args.job, &args.options, create, work, get_stats);
    free(args.keys);
    free(args.aggregates);
    cli_job_fini(&args.job);
    return code;
}
