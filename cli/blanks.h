/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_BLANKS_H
#define CLI_BLANKS_H

#include "carbide/job.h"

/** Rows of a file whose fields end with blanks, as GNU join reads them: blanks at the start do not
 * count, several are one. They come out with one blank between fields. */
typedef struct cli_blanks cli_blanks;

/** "-" is standard input; rows of more than row_max bytes are refused (CB_EBUDGET), and so
 * many are resident from now on: before the baseline is measured, it counts them. CLI_GO_ON, or an
 * exit code when it has complained. */
int cli_blanks_open(const char *path, bool zero_terminated, size_t row_max, cli_blanks **blanks);
/** A cb_row_read_fn. */
cb_status cli_blanks_read(void *ctx, const void **row, size_t *bytes, bool *more, cb_error *err);
/** NULL is fine. */
void cli_blanks_close(cli_blanks *blanks);

#endif
