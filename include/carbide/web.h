/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_WEB_H
#define CARBIDE_WEB_H

#include "carbide/redis_directory.h"
#include "carbide/server.h"

CB_EXTERN_C_BEGIN

/*
 * A server of blocks, and the executors of its directory, as web pages to be looked at: Storage and
 * Executors, as in Spark's UI, and the server's figures as /status.json and /metrics (OpenMetrics).
 * In libcarbide-net, where libmicrohttpd was when carbide was built.
 *
 * Nothing can be changed by it: it takes GET and HEAD alone. A page has no script and loads nothing
 * from anywhere, so that hostile names of blocks stay text. At a loopback address it answers only
 * who calls it by such an address or as localhost, so that no web site can read it through a
 * browser that it got to take a name of its own for this machine. One thread does all; what a slow
 * or stopped reader can hold is a page of a fixed number of pages, and when these are out others
 * are asked to come again.
 */

typedef struct cb_web cb_web;

/** Zero-initialise, set struct_size and what is wanted. Borrowed for the call, but `directory`. */
typedef struct cb_web_options {
    size_t struct_size;
    const char *listen;   /**< as "127.0.0.1:8080"; port 0: a free one */
    const char *password; /**< asked for, with any user name; needed where the address is not
                             loopback; NULL: none */
    cb_redis_directory *directory; /**< NULL: the server alone is shown */
} cb_web_options;

/** What it takes at most beside what it has when cb_web_create has answered: what the system and
 *  libmicrohttpd hold for connections, and a stack. For cb_server_options.beside_bytes. */
#define CB_WEB_BESIDE_BYTES (UINT64_C(1280) << 10)

/** Begins a thread and listens. CB_EINVAL: no such address, or one that needs a password;
 *  CB_EEXISTS: another one listens there; CB_EIO, CB_ENOMEM, CB_ETHREAD. */
CB_API CB_MUST_USE cb_status cb_web_create(const cb_web_options *options, cb_web **web,
                                           cb_error *err);

/** From now on it shows that server, which goes by `name`; until then there is nothing to be seen.
 *  NULL: it shows none any more, and when this returns it does not look at the last one. */
CB_API void cb_web_show(cb_web *web, const cb_server *server, const char *name);

/** Where it listens. */
CB_API uint16_t cb_web_port(const cb_web *web);

/** Before its directory ends. NULL is fine. */
CB_API void cb_web_destroy(cb_web *web);

CB_EXTERN_C_END

#endif
