/* SPDX-License-Identifier: Apache-2.0 */
#include "blanks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "job.h"

struct cli_blanks {
    FILE *file;
    const char *path;
    int terminator;
    char *row;
    size_t row_max;
};

int cli_blanks_open(const char *path, bool zero_terminated, size_t row_max, cli_blanks **blanks) {
    cli_blanks *b = calloc(1, sizeof *b);
    char *row = malloc(row_max);
    if (b == NULL || row == NULL) {
        free(row);
        free(b);
        cli_complain("memory exhausted");
        return CLI_EXIT_TROUBLE;
    }
    memset(row, 0, row_max); /* resident when the baseline is measured, and so in the budget */
    b->path = path;
    b->row = row;
    b->row_max = row_max;
    b->terminator = zero_terminated ? '\0' : '\n';
    b->file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (b->file == NULL) {
        cli_complain("cannot open %s: %s", path, strerror(errno));
        free(row);
        free(b);
        return CLI_EXIT_TROUBLE;
    }
    *blanks = b;
    return CLI_GO_ON;
}

void cli_blanks_close(cli_blanks *b) {
    if (b == NULL)
        return;
    if (b->file != stdin)
        (void)fclose(b->file);
    free(b->row);
    free(b);
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t' || c == '\n';
}

/** In its place: answers what is left. */
static size_t squeeze(char *row, size_t bytes) {
    size_t used = 0;
    for (size_t i = 0; i < bytes;) {
        while (i < bytes && is_blank(row[i]))
            i++;
        if (i > 0 && used > 0)
            row[used++] = ' '; /* also at the end: an empty field follows, as GNU join has it */
        while (i < bytes && !is_blank(row[i]))
            row[used++] = row[i++];
    }
    return used;
}

static cb_status fail(cb_error *err, cb_status status, const char *what, const cli_blanks *b,
                      const char *why) {
    if (err != NULL) {
        err->status = status;
        (void)snprintf(err->message, sizeof err->message, "%s %s: %s", what, b->path, why);
    }
    return status;
}

cb_status cli_blanks_read(void *ctx, const void **row, size_t *bytes, bool *more, cb_error *err) {
    cli_blanks *b = ctx;
    size_t used = 0;
    int c;
    errno = 0;
    while ((c = getc_unlocked(b->file)) != EOF && c != b->terminator) {
        if (used == b->row_max)
            return fail(err, CB_EBUDGET, "a row is too large for the budget in", b,
                        "give more memory (-S)");
        b->row[used++] = (char)c;
    }
    if (c == EOF && ferror(b->file))
        return fail(err, CB_EIO, "cannot read", b, strerror(errno));
    *more = c != EOF || used > 0;
    *row = b->row;
    *bytes = squeeze(b->row, used);
    return CB_OK;
}
