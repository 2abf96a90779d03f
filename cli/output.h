/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include "cli.h"

/** Where made data goes: standard output, a device or pipe, or a file that appears whole or not at
 * all. */
typedef struct cli_output {
    const char *path; /* NULL = standard output */
    const char *name; /* for messages */
    char *resolved;   /* owned; where the path leads to, when it exists */
    int fd;
    bool seekable; /* writes may come in any order */
    bool hidden;   /* the file has no name until it is finished */
    uint64_t base; /* where byte 0 goes */
} cli_output;

/** false after a message. */
bool cli_output_open(cli_output *output, const char *path);
/** Writes all of it; any thread when seekable, in order and one at a time otherwise. 0 or errno. */
int cli_output_write(cli_output *output, const char *data, size_t bytes, uint64_t offset);
/** Gives the file its name. 0 or errno. */
int cli_output_finish(cli_output *output, uint64_t bytes);
void cli_output_fini(cli_output *output);

#endif
