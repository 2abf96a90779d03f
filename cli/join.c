/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blanks.h"
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
    JOIN_MISSING,
    JOIN_FIELD_1,
    JOIN_FIELD_2,
    JOIN_FIELD,
    JOIN_ALSO,
    JOIN_ONLY,
    JOIN_FOLD,
    JOIN_SORTED,
    JOIN_CHECK_ORDER,
    JOIN_NOCHECK_ORDER
};

#define HOWS "inner left right full semi anti alone"

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
     .help =
         "inner (the default); left, right, full: rows of that\nside without a partner, too; "
         "semi: left rows that have\na partner; anti: those that have none; alone: what\neither "
         "side has alone"},
    {.id = JOIN_SORTED,
     .name = "sorted",
     .help = "both files are in the order of the key (as carbide\nsort has them): rows stream "
             "through, and the result is\nin that order; exit 1 where it is not true"},
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
static const cli_option gnu[] = {
    {.id = JOIN_FIELD_1,
     .letter = '1',
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "field N of the left; rows have no header then, their\nfields are not quoted (without "
             "-t they end with blanks),\nthe key comes first, and empty keys equal each other;\n"
             "-o takes 0,1.N,2.N or auto, -e empty fields, too"},
    {.id = JOIN_FIELD_2,
     .letter = '2',
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "field N of the right"},
    {.id = JOIN_FIELD,
     .letter = 'j',
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "of both; with -k it is --parallel"},
    {.id = JOIN_ALSO,
     .letter = 'a',
     .arg = CLI_ARG_NEEDED,
     .meta = "SIDE",
     .help = "1, 2: what that side has alone, too (the right's\ncome last)"},
    {.id = JOIN_ONLY,
     .letter = 'v',
     .arg = CLI_ARG_NEEDED,
     .meta = "SIDE",
     .help = "1, 2: only what that side has alone"},
    {.id = JOIN_FOLD,
     .letter = 'i',
     .name = "ignore-case",
     .help = "ASCII letters of keys are equal in both cases"},
    {.id = JOIN_CHECK_ORDER,
     .name = "check-order",
     .help = "with --sorted what happens anyway; the inputs need no\norder otherwise"},
    {.id = JOIN_NOCHECK_ORDER,
     .name = "nocheck-order",
     .help = "with --sorted: nobody looks, and rows out of order\nlack partners"},
};
static const cli_group groups[] = {{"What belongs together", what, CLI_COUNT(what)},
                                   {"Columns of the result", shape, CLI_COUNT(shape)},
                                   {"As GNU join has them", gnu, CLI_COUNT(gnu)},
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
        "carbide join -k id --how anti new.csv old.csv               what is only in new.csv\n"
        "carbide join -k id --sorted a.csv b.csv                     streams what is in order",
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
    char fields[2][32]; /* -1, -2 as keys */
    bool gnu, fold, also[2], only[2], unchecked;
    cli_blanks *blanks[2];  /* the files, when fields end with blanks */
    const char *gnu_format; /* -o 0,1.2 */
    const char *both;       /* -j: threads with -k, a field otherwise */
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
static cb_status explain(void *object, cb_job_plan *plan, cb_error *err) {
    return cb_join_explain(object, plan, err);
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
static void figures(const void *object, cb_figures *out) {
    cb_join_figures(object, out);
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

static int take_field(join_args *a, const char *seen, const char *value, bool left, bool right) {
    uint64_t n = 0;
    if (cli_integer_parse(value, &n) != CLI_NUMBER_OK || n == 0 || n > UINT32_MAX)
        return cli_usage_error("join", "invalid field number '%s' for '%s'", value, seen);
    for (unsigned side = 0; side < 2; side++)
        if (side == 0 ? left : right)
            (void)snprintf(a->fields[side], sizeof a->fields[side], "%u:str", (unsigned)n);
    a->gnu = true;
    return CLI_GO_ON;
}

static int take_side(join_args *a, const char *seen, const char *value, bool *sides) {
    if (strcmp(value, "1") != 0 && strcmp(value, "2") != 0)
        return cli_usage_error("join", "invalid file number '%s' for '%s'", value, seen);
    sides[value[0] - '1'] = true;
    a->gnu = true;
    return CLI_GO_ON;
}

/** "0,1.2,2.1": GNU's -o, which is an output file otherwise. */
static bool is_gnu_format(const char *text) {
    for (const char *p = text; *p != '\0';) {
        bool field = (p[0] == '1' || p[0] == '2') && p[1] == '.';
        size_t digits = field ? strspn(p + 2, "0123456789") : 0;
        if (digits == 0 && p[0] != '0')
            return false;
        p += digits > 0 ? 2 + digits : 1;
        if ((*p == ',' || *p == ' ' || *p == '\t') && p[1] != '\0')
            p++;
        else if (*p != '\0')
            return false;
    }
    return *text != '\0';
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
        case JOIN_FIELD_1: return take_field(a, seen, value, true, false);
        case JOIN_FIELD_2: return take_field(a, seen, value, false, true);
        case JOIN_FIELD: a->both = value; return CLI_GO_ON;
        case JOIN_ALSO: return take_side(a, seen, value, a->also);
        case JOIN_ONLY: return take_side(a, seen, value, a->only);
        case JOIN_FOLD: a->fold = true; return CLI_GO_ON;
        case JOIN_SORTED: o->order = CB_JOIN_SORTED; return CLI_GO_ON;
        case JOIN_CHECK_ORDER: a->unchecked = false; return CLI_GO_ON;
        case JOIN_NOCHECK_ORDER: a->unchecked = true; return CLI_GO_ON;
        case CLI_JOB_OUTPUT:
            if (!is_gnu_format(value))
                return cli_job_take(&a->job, id, seen, value);
            a->gnu_format = value;
            a->gnu = true;
            return CLI_GO_ON;
        default: return cli_job_take(&a->job, id, seen, value);
    }
}

/** As carbide's own list, but for blanks. */
static int take_gnu_format(join_args *a) {
    char *list = strdup(a->gnu_format);
    if (list == NULL) {
        cli_complain("memory exhausted");
        return CLI_EXIT_TROUBLE;
    }
    for (char *c = list; *c != '\0'; c++)
        if (*c == ' ' || *c == '\t')
            *c = ',';
    int answer = take_columns(a, list);
    free(list);
    return answer;
}

static cb_join_how gnu_how(const join_args *a) {
    if (a->only[0] && a->only[1])
        return CB_JOIN_ALONE;
    if (a->only[0] || a->only[1])
        return a->only[0] ? CB_JOIN_ALONE_LEFT : CB_JOIN_ALONE_RIGHT;
    if (a->also[0] && a->also[1])
        return CB_JOIN_FULL;
    return a->also[0] ? CB_JOIN_LEFT : a->also[1] ? CB_JOIN_RIGHT : a->options.how;
}

/** Without -t fields end with blanks: rows come from functions that leave one between them. */
static int open_blanks(join_args *a, char **paths) {
    cb_job_options *o = &a->job.options;
    enum { ROW_MAX = 32 << 20, ROW_UNKNOWN = 4 << 20 }; /* the budget is found out later */
    uint64_t row_max = o->memory_bytes != 0 ? o->memory_bytes / 64 : ROW_UNKNOWN;
    row_max = row_max > ROW_MAX ? ROW_MAX : row_max + 4096;
    for (unsigned side = 0; side < 2; side++) {
        int answer =
            cli_blanks_open(paths[side], o->zero_terminated, (size_t)row_max, &a->blanks[side]);
        if (answer != CLI_GO_ON)
            return answer;
    }
    o->has_field_separator = true;
    o->field_separator = ' ';
    o->read = a->options.right_read = cli_blanks_read;
    o->read_ctx = a->blanks[0];
    a->options.right_read_ctx = a->blanks[1];
    return CLI_GO_ON;
}

/** From GNU join's options to those above. */
static int finish_gnu(join_args *a, char **operands, size_t count) {
    cb_job_options *o = &a->job.options;
    bool keyed = a->left_count > 0 || a->right_count > 0;
    if (count == 2 && strcmp(operands[0], "-") == 0 && strcmp(operands[1], "-") == 0)
        return cli_usage_error("join", "both files cannot be standard input");
    if (a->unchecked && a->options.order == CB_JOIN_SORTED)
        a->options.order = CB_JOIN_SORTED_UNCHECKED;
    if (!keyed && o->output != NULL && strcmp(o->output, "auto") == 0) {
        a->gnu_format = o->output;
        o->output = NULL;
        a->gnu = true;
    }
    if (a->both != NULL) {
        int answer = keyed ? cli_job_take(&a->job, CLI_JOB_THREADS, "-j", a->both)
                           : take_field(a, "-j", a->both, true, true);
        if (answer != CLI_GO_ON)
            return answer;
    }
    if (!a->gnu)
        return CLI_GO_ON;
    if (keyed)
        return cli_usage_error("join", "-k does not go together with GNU join's options");
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the caller of read_args frees the keys */
    for (unsigned side = 0; side < 2; side++) {
        if (a->fields[side][0] == '\0')
            memcpy(a->fields[side], "1:str", 6);
        if (a->fold)
            memcpy(a->fields[side] + strlen(a->fields[side]), ":fold", 6);
    }
    a->left_keys[a->left_count++] = a->fields[0];
    a->right_keys[a->right_count++] = a->fields[1];
    a->options.how = gnu_how(a);
    a->options.match_nulls = a->options.keys_first = true;
    a->options.missing_if_empty = true;
    if (a->options.suffix == NULL)
        a->options.suffix = "";
    o->format = CB_FORMAT_TSV;
    if (o->header == CB_HEADER_AUTO)
        o->header = CB_HEADER_NO;
    if (!o->has_field_separator && count == 2) {
        int answer = open_blanks(a, operands);
        if (answer != CLI_GO_ON)
            return answer;
    }
    if (a->gnu_format != NULL && strcmp(a->gnu_format, "auto") == 0)
        a->options.whole_rows = true;
    else if (a->gnu_format != NULL)
        return take_gnu_format(a);
    return CLI_GO_ON;
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
        answer = finish_gnu(a, parser.argv, parser.operand_count);
    if (answer == CLI_GO_ON)
        answer = check(a, parser.operand_count);
    if (answer == CLI_GO_ON)
        answer = cli_job_finish(&a->job, (const char *const *)parser.argv,
                                a->blanks[1] != NULL ? 0 : parser.operand_count);
    a->options.job = a->job.options;
    a->options.left_keys = a->left_keys;
    a->options.right_keys = a->right_keys;
    a->options.key_count = a->left_count;
    return answer;
}

int cli_join_main(int argc, char **argv) {
    static const cli_work work = {.run = run,
                                  .explain = explain,
                                  .progress = progress,
                                  .cancel = cancel,
                                  .memory_tree = memory_tree,
                                  .figures = figures,
                                  .destroy = destroy};
    join_args args = {.columns = NULL};
    int code = read_args(&args, argc, argv);
    if (code == CLI_GO_ON)
        code = cli_job_run(&args.job, &args.options, create, work, get_stats);
    free(args.left_keys);
    free(args.right_keys);
    free(args.columns);
    free(args.column_list);
    for (unsigned side = 0; side < 2; side++)
        cli_blanks_close(args.blanks[side]);
    cli_job_fini(&args.job);
    return code;
}
