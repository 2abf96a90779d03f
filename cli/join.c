/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/join.h"

#include <stdlib.h>
#include <string.h>

#include "job.h"
#include "text.h"

enum {
    JOIN_KEY = 1,
    JOIN_LEFT_KEY,
    JOIN_RIGHT_KEY,
    JOIN_HOW,
    JOIN_SELECT,
    JOIN_SUFFIX,
    JOIN_MATCH_NULLS,
    JOIN_MISSING
};

#define HOWS "inner left right full semi anti"

static const cli_option what[] = {
    {.id = JOIN_KEY,
     .letter = 'k',
     .name = "key",
     .arg = CLI_ARG_NEEDED,
     .meta = "KEY",
     .help = "where that column is equal: NAME[:TYPE][:fold], as for\nsort; several are all to be "
             "equal"},
    {.id = JOIN_LEFT_KEY,
     .name = "left-key",
     .arg = CLI_ARG_NEEDED,
     .meta = "KEY",
     .help = "the key of the left, with --right-key the one of the\nright, where names differ"},
    {.id = JOIN_RIGHT_KEY,
     .name = "right-key",
     .arg = CLI_ARG_NEEDED,
     .meta = "KEY",
     .help = "the key of the right that belongs to it"},
    {.id = JOIN_HOW,
     .name = "how",
     .arg = CLI_ARG_NEEDED,
     .meta = "HOW",
     .values = HOWS,
     .help = "inner (the default); left, right, full: rows of that\nside without a partner, too; "
             "semi: left rows that have\na partner; anti: those that have none"},
    {.id = JOIN_MATCH_NULLS,
     .name = "match-empty",
     .help = "empty keys equal each other; otherwise they (and what\na key's type cannot read) "
             "have no partner, as in SQL"},
};
static const cli_option shape[] = {
    {.id = JOIN_SELECT,
     .name = "select",
     .arg = CLI_ARG_NEEDED,
     .meta = "COLUMNS",
     .help = "the columns of the result, by commas: NAME,\nleft.NAME, right.NAME, 1.N, 2.N; all of "
             "the left and\nthose of the right that are no keys, otherwise"},
    {.id = JOIN_SUFFIX,
     .name = "suffix",
     .arg = CLI_ARG_NEEDED,
     .meta = "TEXT",
     .help = "of names from the right that the left has as well;\n_right otherwise"},
    {.id = JOIN_MISSING,
     .letter = 'e',
     .name = "missing",
     .arg = CLI_ARG_NEEDED,
     .meta = "TEXT",
     .help = "in the fields of a row that is not there"},
};
static const cli_group groups[] = {{"What belongs together", what, CLI_COUNT(what)},
                                   {"Columns of the result", shape, CLI_COUNT(shape)},
                                   CLI_JOB_OUTPUT_GROUP,
                                   CLI_JOB_GROUPS};

const cli_verb cli_verb_join = {
    .name = "join",
    .summary = "joins two files of any size and order by equal keys",
    .usage = "join -k KEY... [OPTION]... LEFT RIGHT",
    .examples =
        "carbide join -k id orders.csv items.csv -o all.csv          rows with the same id\n"
        "carbide join -k id:int --how left -S 64M a.csv b.csv        and what the left has alone\n"
        "carbide join --left-key carrier --right-key code f.csv c.csv names that differ\n"
        "carbide join -k a -k b --select a,b,right.x --how full l.tsv r.tsv\n"
        "carbide join -k id --how anti new.csv old.csv               what is only in new.csv",
    .notes = "The result is in the order of the left rows, and for one of them of the right rows; "
             "what the right\nhas alone comes last. Neither input need be sorted, and a key may "
             "come up any number of times on\nboth sides. - is standard input, for one of the "
             "two.\n"
             "\n" CLI_JOB_NOTES,
    .words = NULL,
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct join_args {
    cli_job job;
    cb_join_options options;
    const char **left_keys, **right_keys;
    size_t left_count, right_count;
    char *columns; /* a copy, cut at commas */
    const char **column_list;
} join_args;

static cb_status create(const void *options, void **object, cb_error *err) {
    cb_join *j;
    cb_status status = cb_join_create(options, &j, err);
    if (status == CB_OK)
        *object = j;
    return status;
}
static cb_status run(void *object, cb_error *err) {
    return cb_join_run(object, err);
}
static void progress(const void *object, cb_progress *p) {
    cb_join_progress(object, p);
}
static void cancel(void *object) {
    cb_join_cancel(object);
}
static void memory_tree(const void *object, char *text, size_t bytes) {
    cb_join_memory_tree(object, text, bytes);
}
static void destroy(void *object) {
    cb_join_destroy(object);
}
static void get_stats(const void *object, cb_job_stats *stats, const char **name, uint64_t *rows) {
    cb_join_stats s = {.struct_size = sizeof s};
    cb_join_get_stats(object, &s);
    *stats = s.job;
    *name = "rows_left";
    *rows = s.rows_left;
}

static int take_columns(join_args *a, const char *list) {
    size_t count = 1;
    for (const char *c = list; *c != '\0'; c++)
        count += *c == ',';
    free(a->columns);
    free(a->column_list);
    a->columns = strdup(list);
    a->column_list = calloc(count, sizeof *a->column_list);
    if (a->columns == NULL || a->column_list == NULL) {
        cli_complain("memory exhausted");
        return CLI_EXIT_TROUBLE;
    }
    char *at = a->columns;
    for (size_t i = 0; i < count; i++) {
        a->column_list[i] = at;
        at += strcspn(at, ",");
        *at++ = '\0';
    }
    a->options.columns = a->column_list;
    a->options.column_count = count;
    return CLI_GO_ON;
}

static int take(join_args *a, int id, const char *seen, const char *value) {
    cb_join_options *o = &a->options;
    int place;
    switch (id) {
        case JOIN_KEY:
            a->left_keys[a->left_count++] = value;
            a->right_keys[a->right_count++] = value;
            return CLI_GO_ON;
        case JOIN_LEFT_KEY: a->left_keys[a->left_count++] = value; return CLI_GO_ON;
        case JOIN_RIGHT_KEY: a->right_keys[a->right_count++] = value; return CLI_GO_ON;
        case JOIN_HOW:
            place = cli_word_find(HOWS, value);
            if (place < 0)
                return cli_usage_error("join", "invalid argument '%s' for '%s'; valid are: " HOWS,
                                       value, seen);
            o->how = (cb_join_how)place;
            return CLI_GO_ON;
        case JOIN_SELECT: return take_columns(a, value);
        case JOIN_SUFFIX: o->suffix = value; return CLI_GO_ON;
        case JOIN_MATCH_NULLS: o->match_nulls = true; return CLI_GO_ON;
        case JOIN_MISSING: o->missing = value; return CLI_GO_ON;
        default: return cli_job_take(&a->job, id, seen, value);
    }
}

static int check(const join_args *a, size_t operands) {
    if (operands != 2)
        return cli_usage_error("join", "two files are joined, and %zu are named", operands);
    if (a->left_count == 0 && a->right_count == 0)
        return cli_usage_error("join", "by which column? -k KEY");
    if (a->left_count != a->right_count)
        return cli_usage_error("join",
                               "%zu keys of the left and %zu of the right do not belong "
                               "together",
                               a->left_count, a->right_count);
    return CLI_GO_ON;
}

static int read_args(join_args *a, int argc, char **argv) {
    cli_parser parser;
    const char *value = NULL;
    int id;
    a->options.struct_size = sizeof a->options;
    int answer = cli_job_init(&a->job, &cli_verb_join, argc);
    a->left_keys = calloc((size_t)argc + 1, sizeof *a->left_keys);
    a->right_keys = calloc((size_t)argc + 1, sizeof *a->right_keys);
    if (answer == CLI_GO_ON && (a->left_keys == NULL || a->right_keys == NULL)) {
        cli_complain("memory exhausted");
        answer = CLI_EXIT_TROUBLE;
    }
    cli_parser_init(&parser, &cli_verb_join, argc, argv);
    while (answer == CLI_GO_ON && (id = cli_parser_next(&parser, &value)) != CLI_PARSE_END)
        answer = id == CLI_PARSE_ERROR ? CLI_EXIT_TROUBLE : take(a, id, parser.seen, value);
    if (answer == CLI_GO_ON)
        answer = check(a, parser.operand_count);
    if (answer == CLI_GO_ON)
        answer = cli_job_finish(&a->job, (const char *const *)parser.argv, parser.operand_count);
    a->options.job = a->job.options;
    a->options.left_keys = a->left_keys;
    a->options.right_keys = a->right_keys;
    a->options.key_count = a->left_count;
    return answer;
}

int cli_join_main(int argc, char **argv) {
    static const cli_work work = {.run = run,
                                  .progress = progress,
                                  .cancel = cancel,
                                  .memory_tree = memory_tree,
                                  .destroy = destroy};
    join_args args = {.columns = NULL};
    int code = read_args(&args, argc, argv);
    if (code == CLI_GO_ON)
        code = cli_job_run(&args.job, &args.options, create, work, get_stats);
    free(args.left_keys);
    free(args.right_keys);
    free(args.columns);
    free(args.column_list);
    cli_job_fini(&args.job);
    return code;
}
