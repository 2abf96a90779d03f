/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "options.h"

const char *cli_program = "carbide";

CLI_PRINTF(1, 0) static void complain(const char *fmt, va_list args) {
    char line[1600];
    int n = snprintf(line, sizeof line, "%s: ", cli_program);
    size_t used = n > 0 ? (size_t)n : 0;
    n = vsnprintf(line + used, sizeof line - used - 1, fmt, args);
    used += n > 0 ? (size_t)n : 0;
    if (used > sizeof line - 2)
        used = sizeof line - 2;
    line[used++] = '\n';
    (void)cli_write_all(STDERR_FILENO, line, used);
}

void cli_complain(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    complain(fmt, args);
    va_end(args);
}

int cli_usage_error(const char *verb, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    complain(fmt, args);
    va_end(args);
    char hint[128];
    bool own = strcmp(cli_program, "carbide") == 0 && verb != NULL;
    int n = snprintf(hint, sizeof hint, "Try '%s%s%s --help' for more information.\n", cli_program,
                     own ? " " : "", own ? verb : "");
    if (n > 0)
        (void)cli_write_all(STDERR_FILENO, hint, (size_t)n);
    return CLI_EXIT_TROUBLE;
}

bool cli_write_all(int fd, const char *data, size_t bytes) {
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        bytes -= (size_t)n;
    }
    return true;
}

int cli_print(const char *text) {
    if (cli_write_all(STDOUT_FILENO, text, strlen(text)))
        return CLI_EXIT_OK;
    cli_complain("write failed: 'standard output': %s", strerror(errno));
    return CLI_EXIT_TROUBLE;
}

int cli_exit_code(cb_status status) {
    switch ((int)status) {
        case CB_OK: return CLI_EXIT_OK;
        case CB_EDISORDER: return CLI_EXIT_DISORDER;
        case CB_EDATA: return CLI_EXIT_DATA;
        case CB_ENOSPC: return CLI_EXIT_SPACE;
        case CB_EBUDGET: return CLI_EXIT_BUDGET;
        default: return CLI_EXIT_TROUBLE;
    }
}

static int print_version(void) {
    return cli_print("carbide " CARBIDE_VERSION "\n"
                     "Licence: Apache-2.0. There is no warranty.\n");
}

static int verb_main(int argc, char **argv) {
    const char *verb = argv[0];
    if (strcmp(verb, "sort") == 0)
        return cli_sort_main(argc, argv, false);
    if (strcmp(verb, "gen") == 0)
        return cli_gen_main(argc, argv);
    if (strcmp(verb, "doctor") == 0)
        return cli_doctor_main(argc, argv);
    if (strcmp(verb, "completions") == 0)
        return cli_completions_main(argc, argv);
    if (strcmp(verb, "version") == 0 || strcmp(verb, "--version") == 0 || strcmp(verb, "-V") == 0)
        return print_version();
    if (strcmp(verb, "help") != 0 && strcmp(verb, "--help") != 0 && strcmp(verb, "-h") != 0)
        return cli_usage_error(NULL, "there is no command '%s'", verb);
    if (argc < 2)
        return cli_help(NULL);
    for (size_t i = 0; i < cli_verb_count; i++)
        if (strcmp(argv[1], cli_verbs[i]->name) == 0)
            return cli_help(cli_verbs[i]);
    return cli_usage_error(NULL, "there is no command '%s'", argv[1]);
}

/** So that no file opened later becomes standard input, output or error of a caller who closed
 * them. */
static void hold_standard_files(void) {
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)open("/dev/null",
                       fd == STDIN_FILENO ? O_WRONLY : O_RDONLY); /* using it stays an error */
}

int main(int argc, char **argv) {
    hold_standard_files();
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    const char *self = argc > 0 ? (slash != NULL ? slash + 1 : argv[0]) : "carbide";
    if (strcmp(self, "sort") == 0 || strcmp(self, "csort") == 0)
        return cli_sort_main(argc, argv, true);
    if (argc < 2) {
        (void)cli_usage_error(
            NULL, "a command is needed: sort, gen, doctor, help, version or completions");
        return CLI_EXIT_TROUBLE;
    }
    return verb_main(argc - 1, argv + 1);
}
