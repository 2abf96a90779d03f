/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gnu.h"
#include "report.h"
#include "sort_args.h"
#include "text.h"
#include "ticker.h"

enum { TREE_BYTES = 8 * 1024, RAISES_MAX = 4 };

/** May reading an input wait for somebody else? */
static bool has_streams(const cb_sort_options *o) {
    struct stat st;
    if (o->input_count == 0)
        return fstat(STDIN_FILENO, &st) == 0 && !S_ISREG(st.st_mode);
    for (size_t i = 0; i < o->input_count; i++) {
        bool there = strcmp(o->inputs[i], "-") == 0 ? fstat(STDIN_FILENO, &st) == 0
                                                    : stat(o->inputs[i], &st) == 0;
        if (there && !S_ISREG(st.st_mode))
            return true;
    }
    return false;
}

/** GNU sort knows no exit codes of 3 and above. */
static int exit_code(const cli_sort_args *args, cb_status status) {
    int code = cli_exit_code(status);
    return args->gnu && code > CLI_EXIT_TROUBLE ? CLI_EXIT_TROUBLE : code;
}

/** In GNU sort's words: standard input is "-", and the row ends as rows do. */
static void tell_disorder_gnu(const cli_sort_args *args, const char *message) {
    static const char standard[] = "standard input:";
    char line[CB_ERROR_MESSAGE_MAX + 64];
    cli_text out;
    bool piped = strncmp(message, standard, sizeof standard - 1) == 0;
    cli_text_init(&out, line, sizeof line - 1);
    cli_text_add(&out, "%s: %s%s", cli_program, piped ? "-:" : "",
                 piped ? message + sizeof standard - 1 : message);
    line[out.used++] = args->options.zero_terminated ? '\0' : '\n';
    (void)cli_write_all(STDERR_FILENO, line, out.used);
}

static void tell_failure(const cli_sort_args *args, const cb_sort *sort, const cb_error *err) {
    static char tree[TREE_BYTES];
    if (err->status == CB_EDISORDER && args->check_quiet)
        return;
    if (err->status == CB_EDISORDER && args->gnu) {
        tell_disorder_gnu(args, err->message);
        return;
    }
    cli_complain("%s", err->message[0] != '\0' ? err->message : cb_status_text(err->status));
    if (err->status != CB_EBUDGET)
        return;
    if (err->bytes_had > args->options.memory_bytes && strstr(err->message, "--memory") == NULL) {
        char figure[CLI_FIGURE_MAX];
        cli_complain("the smallest budget that will do is --memory %s",
                     cli_size_option(err->bytes_had, figure));
    }
    if (args->verbose && sort != NULL) {
        tree[0] = '\0';
        cb_sort_memory_tree(sort, tree, sizeof tree);
        (void)cli_write_all(STDERR_FILENO, tree, strlen(tree));
    }
}

/** Why a plan cannot be carried out: an exit code and a message, or CLI_EXIT_OK. */
static int judge_plan(const cli_sort_args *args, const cb_sort_plan *plan) {
    char a[CLI_FIGURE_MAX], b[CLI_FIGURE_MAX];
    uint64_t limit = args->options.temp_limit_bytes;
    if (plan->budget_bytes < plan->budget_min_bytes) {
        cli_complain("the budget of %s is too small; the smallest that will do is --memory %s",
                     cli_size_text(plan->budget_bytes, a),
                     cli_size_option(plan->budget_min_bytes, b));
        return exit_code(args, CB_EBUDGET);
    }
    if (plan->in_memory || plan->temp_bytes_estimate == 0)
        return CLI_EXIT_OK;
    if (limit > 0 && plan->temp_bytes_estimate > limit) {
        cli_complain("temporary files will take about %s, and --temp-limit allows %s",
                     cli_size_text(plan->temp_bytes_estimate, a), cli_size_text(limit, b));
        return exit_code(args, CB_ENOSPC);
    }
    if (plan->temp_bytes_estimate > plan->temp_bytes_free) {
        cli_complain(
            "temporary files will take about %s, and %s are free; name another folder with -T",
            cli_size_text(plan->temp_bytes_estimate, a), cli_size_text(plan->temp_bytes_free, b));
        return exit_code(args, CB_ENOSPC);
    }
    return CLI_EXIT_OK;
}

static int explain(const cli_sort_args *args) {
    cb_sort *sort = NULL;
    cb_sort_plan plan = {.struct_size = sizeof plan};
    cb_error err = {0};
    cb_status status = cb_sort_create(&args->options, &sort, &err);
    if (status == CB_OK)
        status = cb_sort_explain(sort, &plan, &err);
    int code = CLI_EXIT_OK;
    if (plan.method[0] != '\0') /* also of a refusal: it says what is known */
        code = cli_report_plan(&plan);
    if (code == CLI_EXIT_OK && args->stats)
        code = cli_report_stats(args, &plan, NULL, status, err.message);
    if (status != CB_OK) {
        tell_failure(args, sort, &err);
        code = exit_code(args, status);
    } else if (code == CLI_EXIT_OK) {
        code = judge_plan(args, &plan);
    }
    cb_sort_destroy(sort);
    return code;
}

/** The figures of a run that came to an end of its own. */
static int tell_figures(const cli_sort_args *args, const cb_sort *sort, cb_status status,
                        const char *message) {
    cb_sort_stats stats = {.struct_size = sizeof stats};
    cb_sort_get_stats(sort, &stats);
    bool wanted =
        args->verbose || args->progress == CLI_PROGRESS_ALWAYS ||
        (!args->gnu && args->progress != CLI_PROGRESS_NEVER && isatty(STDERR_FILENO) == 1);
    if (status == CB_OK && wanted && !args->quiet)
        cli_report_truth(&stats);
    return args->stats ? cli_report_stats(args, NULL, &stats, status, message) : CLI_EXIT_OK;
}

/** What was written may still be refused when the file is closed (quotas, network file systems). */
static int close_output(const cli_sort_args *args) {
    const char *output = args->options.output;
    bool standard = output == NULL || strcmp(output, "-") == 0;
    if (!standard || args->options.action == CB_SORT_CHECK || close(STDOUT_FILENO) == 0)
        return CLI_EXIT_OK;
    cli_complain("write failed: 'standard output': %s", strerror(errno));
    return CLI_EXIT_TROUBLE;
}

static cb_status work_run(void *object, cb_error *err) {
    return cb_sort_run(object, err);
}
static void work_progress(const void *object, cb_progress *progress) {
    cb_sort_progress(object, progress);
}
static void work_cancel(void *object) {
    cb_sort_cancel(object);
}
static void work_memory_tree(const void *object, char *text, size_t bytes) {
    cb_sort_memory_tree(object, text, bytes);
}
static void work_destroy(void *object) {
    cb_sort_destroy(object);
}
static void work_figures(const void *object, cb_figures *figures) {
    cb_sort_figures(object, figures);
}

/** One try; *sort is the caller's to destroy, whatever the answer. Ends the process when a signal
 * ended the work. */
static cb_status attempt(const cli_sort_args *args, bool streams, cb_status_page *page,
                         const sigset_t *before, cb_sort **sort, cb_error *err) {
    *sort = NULL;
    cb_status status = cb_sort_create(&args->options, sort, err);
    if (status == CB_OK) {
        const cli_work work = {.object = *sort,
                               .run = work_run,
                               .progress = work_progress,
                               .cancel = work_cancel,
                               .memory_tree = work_memory_tree,
                               .destroy = work_destroy,
                               .figures = work_figures,
                               .page = page,
                               .what = "sort"};
        status =
            cli_ticker_watch(&work, args->progress, args->quiet || args->gnu, streams, before, err);
    }
    return status;
}

/**
 * GNU sort takes -S as a wish and takes more where that is not enough. In its personality a budget
 * that turns out too small is therefore raised to what will do, as long as the inputs can be read
 * again. (A sort that is refused for its budget has written nothing.)
 */
static bool raise_budget(cli_sort_args *args, bool streams, cb_status status, const cb_error *err) {
    uint64_t now = args->options.memory_bytes;
    if (!args->gnu || streams || status != CB_EBUDGET || now == 0 || err->bytes_had <= now)
        return false;
    args->options.memory_bytes = err->bytes_had;
    return true;
}

static int run(cli_sort_args *args) {
    cb_sort *sort = NULL;
    cb_status_page *page = NULL;
    cb_error err = {0};
    sigset_t before;
    bool streams = has_streams(&args->options);
    if (args->status_path != NULL &&
        cb_status_page_create(args->status_path, &page, &err) != CB_OK) {
        cli_complain("%s", err.message);
        return CLI_EXIT_TROUBLE;
    }
    cli_signals_block(&before);
    cb_status status = attempt(args, streams, page, &before, &sort, &err);
    for (int tries = 0; tries < RAISES_MAX && raise_budget(args, streams, status, &err); tries++) {
        cb_sort_destroy(sort);
        status = attempt(args, streams, page, &before, &sort, &err);
    }
    cb_status_page_destroy(page); /* a signal that came late ends the process now */
    cli_signals_restore(&before);
    if (status != CB_OK)
        tell_failure(args, sort, &err);
    int code = exit_code(args, status);
    int told = sort != NULL ? tell_figures(args, sort, status, err.message) : CLI_EXIT_OK;
    if (code == CLI_EXIT_OK)
        code = close_output(args);
    if (code == CLI_EXIT_OK)
        code = told;
    cb_sort_destroy(sort);
    return code;
}

int cli_sort_main(int argc, char **argv, bool gnu) {
    cli_sort_args args;
    int code = cli_sort_args_read(&args, argc, argv, gnu);
    if (code < 0 && args.gnu && !cli_gnu_check(&args))
        code = CLI_EXIT_TROUBLE;
    if (code < 0)
        code = args.explain ? explain(&args) : run(&args);
    cli_sort_args_fini(&args);
    return code;
}
