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
    size_t room;
};

int cli_blanks_open(const char *path, bool zero_terminated, cli_blanks **blanks) {
    cli_blanks *b = calloc(1, sizeof *b);
    if (b == NULL) {
        cli_complain("memory exhausted");
        return CLI_EXIT_TROUBLE;
    }
    b->path = path;
    b->terminator = zero_terminated ? '\0' : '\n';
    b->file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
    if (b->file == NULL) {
        cli_complain("cannot open %s: %s", path, strerror(errno));
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

cb_status cli_blanks_read(void *ctx, const void **row, size_t *bytes, bool *more, cb_error *err) {
    cli_blanks *b = ctx;
    errno = 0;
    ssize_t got = getdelim(&b->row, &b->room, b->terminator, b->file);
    *more = got > 0;
    if (*more) {
        size_t n = (size_t)got;
        if (b->row[n - 1] == (char)b->terminator)
            n--;
        *row = b->row;
        *bytes = squeeze(b->row, n);
        return CB_OK;
    }
    if (feof(b->file) && !ferror(b->file))
        return CB_OK;
    if (err != NULL)
        (void)snprintf(err->message, sizeof err->message, "cannot read %s: %s", b->path,
                       strerror(errno));
    return CB_EIO;
}
