/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SORT_ARGS_H
#define CLI_SORT_ARGS_H

#include "carbide/sort.h"
#include "cli.h"

typedef enum cli_progress {
    CLI_PROGRESS_AUTO = 0,
    CLI_PROGRESS_ALWAYS,
    CLI_PROGRESS_NEVER,
    CLI_PROGRESS_JSON
} cli_progress;

/** What `carbide sort` was told. The options' pointers lead into argv, the environment or the
 * arrays below. */
typedef struct cli_sort_args {
    cb_sort_options options;
    bool gnu;
    bool check_quiet; /* -C */
    bool explain, quiet, verbose;
    bool stats;
    const char *stats_path;  /* NULL = standard error */
    const char *status_path; /* NULL = none */
    cli_progress progress;

    const char **keys;
    const char **inputs;
    const char **temp_dirs;
    char *names; /* --files0-from's file, whole */
    char global_order[16];
} cli_sort_args;

/**
 * Reads the command line. Answers -1 to go on, or the exit code to end with (--help, or an error
 * that has been told). Fini is due in any case.
 */
int cli_sort_args_read(cli_sort_args *args, int argc, char **argv, bool gnu);
void cli_sort_args_fini(cli_sort_args *args);

#endif
