/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_TOP_CLUSTER_H
#define CLI_TOP_CLUSTER_H

#include "frame.h"

/** `carbide top --directory`: the executors of a directory and their blocks, as the web pages show
 *  them. */

/** After a message, the exit code; 0. */
int cli_top_cluster_begin(const char *url);
void cli_top_cluster_end(void);
/** Asks the directory. CB_EIO: it does not answer. */
cb_status cli_top_cluster_look(cb_error *err);
void cli_top_cluster_draw(cli_frame *frame);
/** Prints what was seen as JSON; the exit code. */
int cli_top_cluster_tell(void);

#endif
