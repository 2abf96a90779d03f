/* SPDX-License-Identifier: Apache-2.0 */
#include "serve_web.h"

#include <string.h>

#include "cli.h"
#include "options.h"

#ifdef CARBIDE_HAVE_WEB
#include "carbide/web.h"

static cb_web *web; /* NULL: there are no pages */
static const char *web_listen;

int cli_serve_web_begin(const char *listen, struct cb_redis_directory *directory,
                        cb_server_options *options) {
    cb_error err;
    const cb_web_options o = {.struct_size = sizeof o,
                              .listen = listen,
                              .password = options->password,
                              .directory = directory};
    cb_status status = cb_web_create(&o, &web, &err);
    if (status != CB_OK) {
        cli_complain("%s", err.message);
        return cli_exit_code(status);
    }
    web_listen = listen;
    options->beside_bytes = CB_WEB_BESIDE_BYTES;
    return 0;
}

void cli_serve_web_show(const cb_server *server, const char *name, bool quiet) {
    if (web == NULL)
        return;
    cb_web_show(web, server, name);
    if (!quiet)
        cli_complain("web pages at http://%.*s:%u/", (int)(strrchr(web_listen, ':') - web_listen),
                     web_listen, (unsigned)cb_web_port(web));
}

void cli_serve_web_hide(void) {
    if (web != NULL)
        cb_web_show(web, NULL, NULL);
}

void cli_serve_web_end(void) {
    cb_web_destroy(web);
    web = NULL;
}
#else
int cli_serve_web_begin(const char *listen, struct cb_redis_directory *directory,
                        cb_server_options *options) {
    (void)listen;
    (void)directory;
    (void)options;
    return cli_usage_error("serve", "--web is not there: carbide was built without libmicrohttpd");
}
void cli_serve_web_show(const cb_server *server, const char *name, bool quiet) {
    (void)server;
    (void)name;
    (void)quiet;
}
void cli_serve_web_hide(void) {}
void cli_serve_web_end(void) {}
#endif
