/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/dedupe.h"

#include <stdlib.h>
#include <string.h>

#include "job.h"

enum { DEDUPE_KEY = 1, DEDUPE_KEEP, DEDUPE_COUNT, DEDUPE_DUPLICATES, DEDUPE_SORTED, DEDUPE_NULL };

static const cli_option what[] = {
    {.id = DEDUPE_KEY,
     .letter = 'k',
     .name = "key",
     .arg = CLI_ARG_NEEDED,
     .meta = "KEY[,KEY]...",
     .help = "rows are duplicates when these columns are equal: by\nname, or number; NAME:TYPE as "
             "for group; the whole row\notherwise"},
    {.id = DEDUPE_KEEP,
     .name = "keep",
     .arg = CLI_ARG_NEEDED,
     .meta = "WHICH",
     .values = "first last none max: min:",
     .help = "first (so anyway), last, none (only rows without a\nduplicate), max:COLUMN or "
             "min:COLUMN, with COLUMN:str\nfor text"},
    {.id = DEDUPE_COUNT,
     .letter = 'c',
     .name = "count",
     .help = "how many there were before each row"},
    {.id = DEDUPE_DUPLICATES,
     .name = "duplicates",
     .arg = CLI_ARG_NEEDED,
     .meta = "FILE",
     .values = "@file",
     .help = "the rows that do not stay go there"},
    {.id = DEDUPE_SORTED,
     .name = "sorted-output",
     .help = "by key; otherwise as the rows stand in the input"},
    {.id = DEDUPE_NULL,
     .name = "null",
     .arg = CLI_ARG_NEEDED,
     .meta = "TEXT",
     .help = "values written so are missing for --keep max and min,\nas empty ones are: --null NA"},
};

static const cli_group groups[] = {
    {"What is a duplicate", what, CLI_COUNT(what)},
    CLI_JOB_OUTPUT_GROUP,
    CLI_JOB_GROUPS,
};

const cli_verb cli_verb_dedupe = {
    .name = "dedupe",
    .summary = "keeps one row of each set of duplicates, in input order",
    .usage = "dedupe [-k KEY]... [--keep WHICH] [OPTION]... [FILE]...",
    .examples =
        "carbide dedupe lines.txt                                  whole rows\n"
        "carbide dedupe -k id --keep last -S 64M -o new.csv a.csv  the last of each id, in 64 MiB\n"
        "carbide dedupe -k id --keep max:updated:str a.csv         the newest, by ISO date\n"
        "carbide dedupe -k email --duplicates twice.csv a.csv      what does not stay goes there\n"
        "carbide dedupe --keep none -c words.txt                   only what is there once",
    .notes =
        "Rows stay as they are and where they are. Values are compared by their text, quoted or "
        "not, or by\ntheir type. A missing value is neither large nor small: it stays only where "
        "all are missing.\n"
        "\n" CLI_JOB_NOTES,
    .words = NULL,
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct dedupe_args {
    cli_job job;
    cb_dedupe_options options;
    const char **keys;
} dedupe_args;

static cb_status create(const void *options, void **object, cb_error *err) {
    cb_dedupe *dedupe = NULL;
    cb_status status = cb_dedupe_create(options, &dedupe, err);
    if (status == CB_OK)
        *object = dedupe;
    return status;
}
static cb_status run(void *object, cb_error *err) {
    return cb_dedupe_run(object, err);
}
static cb_status explain(void *object, cb_job_plan *plan, cb_error *err) {
    return cb_dedupe_explain(object, plan, err);
}
static void progress(const void *object, cb_progress *p) {
    cb_dedupe_progress(object, p);
}
static void cancel(void *object) {
    cb_dedupe_cancel(object);
}
static void memory_tree(const void *object, char *text, size_t bytes) {
    cb_dedupe_memory_tree(object, text, bytes);
}
static void figures(const void *object, cb_figures *out) {
    cb_dedupe_figures(object, out);
}
static void destroy(void *object) {
    cb_dedupe_destroy(object);
}
static void get_stats(const void *object, cb_job_stats *stats, const char **name, uint64_t *rows) {
    cb_dedupe_get_stats(object, stats);
    *name = "rows_kept";
    *rows = stats->rows_out;
}

static int read_keep(dedupe_args *a, const char *value) {
    static const cb_keep kinds[] = {CB_KEEP_FIRST, CB_KEEP_LAST, CB_KEEP_NONE};
    cb_dedupe_options *o = &a->options;
    o->keep_column = NULL;
    if (strncmp(value, "max:", 4) == 0 || strncmp(value, "min:", 4) == 0) {
        o->keep = value[1] == 'a' ? CB_KEEP_MAX : CB_KEEP_MIN;
        o->keep_column = value + 4;
        return CLI_GO_ON;
    }
    int place = cli_word_find("first last none", value);
    if (place < 0)
        return cli_usage_error(
            "dedupe",
            "invalid --keep argument '%s'; valid are: first last none max:COLUMN min:COLUMN",
            value);
    o->keep = kinds[place];
    return CLI_GO_ON;
}

static int take(dedupe_args *a, int id, const char *seen, const char *value) {
    cb_dedupe_options *o = &a->options;
    switch (id) {
        case DEDUPE_KEY: a->keys[o->key_count++] = value; return CLI_GO_ON;
        case DEDUPE_KEEP: return read_keep(a, value);
        case DEDUPE_COUNT: o->counts = true; return CLI_GO_ON;
        case DEDUPE_DUPLICATES: o->duplicates = value; return CLI_GO_ON;
        case DEDUPE_SORTED: o->sorted_output = true; return CLI_GO_ON;
        case DEDUPE_NULL: o->null_text = value; return CLI_GO_ON;
        default: return cli_job_take(&a->job, id, seen, value);
    }
}

static int read_args(dedupe_args *a, int argc, char **argv) {
    cli_parser parser;
    const char *value = NULL;
    int id;
    a->options.struct_size = sizeof a->options;
    int answer = cli_job_init(&a->job, &cli_verb_dedupe, argc);
    a->keys = calloc((size_t)argc + 1, sizeof *a->keys);
    if (answer == CLI_GO_ON && a->keys == NULL) {
        cli_complain("memory exhausted");
        answer = CLI_EXIT_TROUBLE;
    }
    cli_parser_init(&parser, &cli_verb_dedupe, argc, argv);
    while (answer == CLI_GO_ON && (id = cli_parser_next(&parser, &value)) != CLI_PARSE_END)
        answer = id == CLI_PARSE_ERROR ? CLI_EXIT_TROUBLE : take(a, id, parser.seen, value);
    if (answer == CLI_GO_ON)
        answer = cli_job_finish(&a->job, (const char *const *)parser.argv, parser.operand_count);
    a->options.job = a->job.options;
    a->options.keys = a->keys;
    return answer;
}

int cli_dedupe_main(int argc, char **argv) {
    static const cli_work work = {.run = run,
                                  .explain = explain,
                                  .progress = progress,
                                  .cancel = cancel,
                                  .memory_tree = memory_tree,
                                  .figures = figures,
                                  .destroy = destroy};
    dedupe_args args = {.keys = NULL};
    int code = read_args(&args, argc, argv);
    if (code == CLI_GO_ON)
        code = cli_job_run(&args.job, &args.options, create, work, get_stats);
    free(args.keys);
    cli_job_fini(&args.job);
    return code;
}
