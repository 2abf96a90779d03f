/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_FRAME_H
#define CLI_FRAME_H

#include "cli.h"

/** What `carbide top` shows at one moment, line by line. */

enum { CLI_FRAME_BYTES = 64 * 1024, CLI_FRAME_WIDTH_MAX = 250 };

typedef struct cli_frame {
    char text[CLI_FRAME_BYTES];
    size_t used;
    int width, rows, rows_max; /* rows_max 0: no limit */
    bool terminal;
} cli_frame;

/** One line, cut to the width; what is no text in it is shown as question marks. */
void cli_frame_line(cli_frame *frame, const char *fmt, ...) CLI_PRINTF(2, 3);
/** "12.5M". */
const char *cli_frame_size(uint64_t bytes, char text[16]);

#endif
