/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_DISK_H
#define CLI_DISK_H

#include "cli.h"

/** What a folder for temporary files is worth. */
typedef struct cli_disk {
    char file_system[24]; /* "ext4", or its magic number */
    bool in_memory;
    bool usable;   /* a file could be made there */
    bool nameless; /* O_TMPFILE: nothing is left behind by a kill */
    bool direct;   /* O_DIRECT */
    uint64_t free_bytes;
    double write_bytes_s, read_bytes_s; /* 0 = not measured */
    char message[160];                  /* what went wrong, or empty */
} cli_disk;

/** Looks, and measures with a temporary file of `bytes` (less when there is no room; 0 = not at
 * all). */
void cli_disk_look(cli_disk *disk, const char *folder, uint64_t bytes);

#endif
