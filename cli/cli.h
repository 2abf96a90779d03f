/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_H
#define CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "carbide/status.h"

#ifndef CARBIDE_VERSION
#define CARBIDE_VERSION "0.1.0"
#endif

#define CLI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define CLI_COUNT(array) (sizeof(array) / sizeof(array)[0])

/** How the command ends. On a signal it ends with that signal (128 + n to a shell). */
enum {
    CLI_EXIT_OK = 0,
    CLI_EXIT_DISORDER = 1, /* sort -c, -C */
    CLI_EXIT_TROUBLE = 2,  /* usage, input or output */
    CLI_EXIT_DATA = 3,     /* malformed rows */
    CLI_EXIT_SPACE = 4,    /* temporary space */
    CLI_EXIT_BUDGET = 5    /* the budget is too small */
};

/** The name in front of every message: "carbide", or "sort" in the GNU personality. */
extern const char *cli_program;

/** One line to standard error: "PROGRAM: MESSAGE". */
void cli_complain(const char *fmt, ...) CLI_PRINTF(1, 2);
/** The same for a usage error, with a pointer to the help; answers CLI_EXIT_TROUBLE. */
int cli_usage_error(const char *verb, const char *fmt, ...) CLI_PRINTF(2, 3);
/** Writes all of it with write(2); false and errno when that failed. */
bool cli_write_all(int fd, const char *data, size_t bytes);
/** Writes a text of this command to standard output; the exit code, with a message when it failed.
 */
int cli_print(const char *text);
/** The exit code of a status (CB_ECANCELED is the caller's business). */
int cli_exit_code(cb_status status);

/* The verbs; each gets its own argv, [0] being the verb's name. */
int cli_sort_main(int argc, char **argv, bool gnu);
int cli_group_main(int argc, char **argv);
int cli_join_main(int argc, char **argv);
int cli_dedupe_main(int argc, char **argv);
int cli_partition_main(int argc, char **argv);
int cli_gen_main(int argc, char **argv);
int cli_simulate_main(int argc, char **argv);
int cli_serve_main(int argc, char **argv);
int cli_block_main(int argc, char **argv);
int cli_top_main(int argc, char **argv);
int cli_doctor_main(int argc, char **argv);
int cli_completions_main(int argc, char **argv);

#endif
