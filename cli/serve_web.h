/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SERVE_WEB_H
#define CLI_SERVE_WEB_H

#include "carbide/server.h"

/* Web pages of `carbide serve`, where the command has them (libmicrohttpd). */

struct cb_redis_directory;

/** Before the server is made; `directory` may be NULL. What it will take goes to options. An exit
 *  code, 0 when it listens; else a message was written. */
int cli_serve_web_begin(const char *listen, struct cb_redis_directory *directory,
                        cb_server_options *options);
/** The server is there, and goes by that name; says where the pages are unless quiet. Nothing
 *  without pages; so do the others. */
void cli_serve_web_show(const cb_server *server, const char *name, bool quiet);
/** Before the server ends. */
void cli_serve_web_hide(void);
/** Before the directory ends. */
void cli_serve_web_end(void);

#endif
