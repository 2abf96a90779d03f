/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

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
