/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The web pages' thread: libmicrohttpd reads requests and sends pages, which are made here.
 *
 * Bounds. Connections are few and each has a pool of fixed size; every answer ends its connection;
 * one that says nothing for a while ends too. A page is made in a slot of a fixed number of slots
 * and lies there until it is sent or its connection is gone, so readers who stop hold what they
 * hold and not more: who comes meanwhile is told to come again. Everything is allocated at the
 * beginning but what libmicrohttpd and the system hold for connections (CB_WEB_BESIDE_BYTES).
 */
#include "carbide/web.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "net/web_page.h"

enum {
    CONNECTIONS = 8,
    CONNECTION_BYTES = 16 * 1024,
    RECEIVE_BYTES = 8 * 1024, /* the system doubles them */
    SEND_BYTES = 32 * 1024,
    BACKLOG = 16,
    QUIET_S = 5,
    SLOTS = 3,
    PAGE_BYTES = 256 * 1024,
    NAME_BYTES = 128,
    PASSWORD_MAX = 1024
};

static_assert(CONNECTIONS * (2 * (RECEIVE_BYTES + SEND_BYTES) + 2 * CONNECTION_BYTES) +
                      CBI_STACK_TOUCHED_BYTES <=
                  CB_WEB_BESIDE_BYTES,
              "what connections may take");

/** A page on its way. The text comes first: libmicrohttpd gives its address back. */
typedef struct slot {
    char text[PAGE_BYTES];
    bool taken;
} slot;

struct cb_web {
    cb_redis_directory *directory;
    cbi_sys_address address;
    char *password; /* NULL: none is asked for */
    struct MHD_Daemon *daemon;
    int listener, bell, poll;
    cbi_thread thread;
    _Atomic bool stop;
    /* guarded by mutex, which is held while a page is made */
    cbi_mutex mutex;
    const cb_server *server;
    char name[NAME_BYTES];
    /* the thread's */
    cb_figures figures;
    cbi_cluster cluster;
    slot slots[SLOTS];
};

/* ---- answers ---- */

static void give_slot(void *text) {
    slot *s = text;
    s->taken = false;
}

static slot *take_slot(cb_web *web) {
    for (size_t i = 0; i < SLOTS; i++) {
        if (!web->slots[i].taken) {
            web->slots[i].taken = true;
            return &web->slots[i];
        }
    }
    return NULL;
}

static enum MHD_Result send_response(struct MHD_Connection *connection, unsigned status,
                                     const char *type, struct MHD_Response *response) {
    static const char *const fields[][2] = {
        {"Cache-Control", "no-store"},
        {"Content-Security-Policy",
         "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
         "form-action 'none'; frame-ancestors 'none'"},
        {"X-Content-Type-Options", "nosniff"},
        {"X-Frame-Options", "DENY"},
        {"Referrer-Policy", "no-referrer"},
        {"Cross-Origin-Resource-Policy", "same-origin"},
        {"Connection", "close"},
    };
    bool good = MHD_add_response_header(response, "Content-Type", type) == MHD_YES;
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        good = MHD_add_response_header(response, fields[i][0], fields[i][1]) == MHD_YES && good;
    }
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        good = MHD_add_response_header(response, "Allow", "GET, HEAD") == MHD_YES && good;
    } else if (status == MHD_HTTP_SERVICE_UNAVAILABLE) {
        good = MHD_add_response_header(response, "Retry-After", "2") == MHD_YES && good;
    } else if (status == MHD_HTTP_UNAUTHORIZED) {
        good = MHD_add_response_header(response, "WWW-Authenticate",
                                       "Basic realm=\"carbide\", charset=\"UTF-8\"") == MHD_YES &&
               good;
    }
    enum MHD_Result result = good ? MHD_queue_response(connection, status, response) : MHD_NO;
    MHD_destroy_response(response); /* the connection has a reference of its own */
    return result;
}

/** An answer that is a constant. */
static enum MHD_Result say(struct MHD_Connection *connection, unsigned status,
                           const char *sentence) {
    struct MHD_Response *response = MHD_create_response_from_buffer(
        strlen(sentence), (void *)(uintptr_t)sentence, MHD_RESPMEM_PERSISTENT);
    return response != NULL
               ? send_response(connection, status, "text/plain; charset=utf-8", response)
               : MHD_NO;
}

typedef enum page { PAGE_NONE = 0, PAGE_STORAGE, PAGE_EXECUTORS, PAGE_JSON, PAGE_METRICS } page;

static page find_page(const char *url) {
    static const struct {
        const char *url;
        page what;
    } pages[] = {{"/", PAGE_EXECUTORS},
                 {"/storage", PAGE_STORAGE},
                 {"/executors", PAGE_EXECUTORS},
                 {"/status.json", PAGE_JSON},
                 {"/metrics", PAGE_METRICS}};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        if (strcmp(url, pages[i].url) == 0) {
            return pages[i].what;
        }
    }
    return PAGE_NONE;
}

/** A value after the URL's ?; NULL: none, or an empty one. */
static const char *argument(struct MHD_Connection *connection, const char *name) {
    const char *value = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/** [mutex] Answers its bytes; 0: there is nothing to be seen. */
static size_t make_page(cb_web *web, struct MHD_Connection *connection, page what, char *text) {
    cbi_html h = {.text = text, .room = PAGE_BYTES};
    if (web->server == NULL) {
        return 0;
    }
    memset(&web->figures, 0, sizeof web->figures);
    cb_server_figures(web->server, &web->figures);
    web->figures.pid = getpid();
    web->figures.time_ns = cbi_sys_clock_ns();
    if (what == PAGE_JSON || what == PAGE_METRICS) {
        size_t bytes = cb_figures_write(
            &web->figures, what == PAGE_JSON ? CB_FIGURES_JSON : CB_FIGURES_OPENMETRICS, text,
            PAGE_BYTES);
        return cbi_min(bytes, PAGE_BYTES - 1);
    }
    web->cluster.only_set = argument(connection, "set");
    web->cluster.only_executor = argument(connection, "executor");
    cbi_cluster_collect(&web->cluster, web->directory, web->server, web->name, &web->figures,
                        what == PAGE_STORAGE);
    if (what == PAGE_STORAGE) {
        cbi_web_storage(&h, &web->cluster);
    } else {
        cbi_web_executors(&h, &web->cluster, &web->figures);
    }
    return h.used;
}

static enum MHD_Result answer(cb_web *web, struct MHD_Connection *connection, page what) {
    static const char *const types[] = {
        [PAGE_STORAGE] = "text/html; charset=utf-8",
        [PAGE_EXECUTORS] = "text/html; charset=utf-8",
        [PAGE_JSON] = "application/json",
        [PAGE_METRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8"};
    slot *s = take_slot(web);
    size_t bytes = 0;
    if (s != NULL) {
        cbi_mutex_lock(&web->mutex);
        bytes = make_page(web, connection, what, s->text);
        cbi_mutex_unlock(&web->mutex);
    }
    if (bytes == 0) {
        if (s != NULL) {
            s->taken = false;
        }
        return say(connection, MHD_HTTP_SERVICE_UNAVAILABLE,
                   "There is nothing to be seen, or too many look at it: come again.\n");
    }
    struct MHD_Response *response =
        MHD_create_response_from_buffer_with_free_callback(bytes, s->text, give_slot);
    if (response == NULL) {
        s->taken = false;
        return MHD_NO;
    }
    return send_response(connection, MHD_HTTP_OK, types[what], response);
}

/* ---- who may ask ---- */

/** Whether that is the name or the number of this machine as itself sees it, and perhaps a port. */
static bool is_own_name(const char *host) {
    const char *end = host;
    if (strncmp(host, "[::1]", 5) == 0) {
        end = host + 5;
    } else if (strncmp(host, "127.", 4) == 0) {
        end = host + strspn(host, "0123456789.");
    } else if (strncmp(host, "localhost", 9) == 0) {
        end = host + 9;
    }
    if (end == host || (*end != '\0' && *end != ':')) {
        return false;
    }
    end += *end == ':';
    return strspn(end, "0123456789") == strlen(end);
}

/** In a time that says nothing of where they differ. */
static bool is_password(const char *said, const char *password) {
    size_t bytes = strlen(password), said_bytes = strlen(said);
    unsigned differs = said_bytes != bytes;
    for (size_t i = 0; i < bytes; i++) {
        differs |= (unsigned char)password[i] ^ (unsigned char)(i < said_bytes ? said[i] : 0);
    }
    return differs == 0;
}

static bool is_let_in(const cb_web *web, struct MHD_Connection *connection) {
    char *said = NULL;
    if (web->password == NULL) {
        return true;
    }
    char *user = MHD_basic_auth_get_username_password(connection, &said);
    bool good = user != NULL && said != NULL && is_password(said, web->password);
    MHD_free(user);
    MHD_free(said);
    return good;
}

static enum MHD_Result handle(void *ctx, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *body,
                              size_t *body_bytes, void **state) {
    cb_web *web = ctx;
    const char *host = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Host");
    (void)version;
    (void)body;
    (void)body_bytes;
    (void)state; /* the answer is there before any body is */
    if (web->address.loopback && (host == NULL || !is_own_name(host))) {
        return say(connection, MHD_HTTP_FORBIDDEN,
                   "This is not the machine that was asked for: say localhost or 127.0.0.1.\n");
    }
    if (!is_let_in(web, connection)) {
        return say(connection, MHD_HTTP_UNAUTHORIZED, "The password, please.\n");
    }
    if (strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0) {
        return say(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "There is nothing but GET here.\n");
    }
    page what = find_page(url);
    return what != PAGE_NONE ? answer(web, connection, what)
                             : say(connection, MHD_HTTP_NOT_FOUND,
                                   "There is /storage, /executors, /status.json and /metrics.\n");
}

/* ---- the thread ---- */

static void work(void *ctx) {
    enum { LOOK_MS = 1000 };
    cb_web *web = ctx;
    bool quiet = false;
    while (!atomic_load(&web->stop)) {
        cbi_sys_event events[2];
        MHD_UNSIGNED_LONG_LONG wait_ms = 0;
        bool has_end = MHD_get_timeout(web->daemon, &wait_ms) == MHD_YES;
        /* When all connections were taken it listens again in the second turn after one has ended,
         * and says nothing of that turn. */
        int ms = has_end ? (int)cbi_min(wait_ms, (MHD_UNSIGNED_LONG_LONG)LOOK_MS) : quiet ? -1 : 0;
        quiet = !has_end;
        (void)cbi_sys_poll_wait(web->poll, events, 2, ms);
        (void)MHD_run(web->daemon);
    }
}

/** It says what is wrong with connections; nobody wants to know. */
static void be_silent(void *ctx, const char *fmt, va_list args) {
    (void)ctx;
    (void)fmt;
    (void)args;
}

static cb_status start_daemon(cb_web *web, cb_error *err) {
    web->listener = cbi_sys_listen_tcp(&web->address, RECEIVE_BYTES, SEND_BYTES, BACKLOG);
    if (web->listener < 0) {
        return cbi_fail_sys(err, web->listener == -EADDRINUSE ? CB_EEXISTS : CB_EIO, web->listener,
                            "the web page cannot listen at %s port %u", web->address.host,
                            (unsigned)web->address.port);
    }
    /* The logger comes first: it is told of the options after it. */
    web->daemon = MHD_start_daemon(
        MHD_USE_EPOLL, 0, NULL, NULL, handle, web, MHD_OPTION_EXTERNAL_LOGGER, be_silent, NULL,
        MHD_OPTION_LISTEN_SOCKET, web->listener, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)QUIET_S, MHD_OPTION_END);
    if (web->daemon == NULL) {
        web->listener = -1; /* it may have closed it */
        return cbi_fail(err, CB_EIO, "libmicrohttpd does not start.");
    }
    return CB_OK;
}

static cb_status start_thread(cb_web *web, cb_error *err) {
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(web->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    web->poll = cbi_sys_poll_create();
    web->bell = cbi_sys_bell_create();
    int result = info == NULL ? -EIO : web->poll < 0 ? web->poll : web->bell < 0 ? web->bell : 0;
    if (result == 0) {
        result = cbi_sys_poll_set(web->poll, info->epoll_fd, true, true, false, 0);
    }
    if (result == 0) {
        result = cbi_sys_poll_set(web->poll, web->bell, true, true, false, 1);
    }
    if (result < 0) {
        return cbi_fail_sys(err, CB_EIO, result, "the web page cannot wait for connections");
    }
    return cbi_thread_start(&web->thread, work, web, "carbide-web", err);
}

static cb_status check(const cb_web_options *o, cbi_sys_address *address, cb_error *err) {
    if (o->struct_size < sizeof *o || o->listen == NULL ||
        cbi_sys_address_parse(o->listen, address) < 0) {
        return cbi_fail(err, CB_EINVAL,
                        "This is no address for web pages: %.100s. It wants digits and a port, as "
                        "127.0.0.1:8080 or [::1]:8080.",
                        o->struct_size >= sizeof *o && o->listen != NULL ? o->listen : "none");
    }
    if (!address->loopback && o->password == NULL) {
        return cbi_fail(err, CB_EINVAL, "Other machines reach %.100s: pages there need a password.",
                        o->listen);
    }
    if (o->password != NULL && (o->password[0] == '\0' || strlen(o->password) > PASSWORD_MAX)) {
        return cbi_fail(err, CB_EINVAL, "A password has 1 to %d bytes.", PASSWORD_MAX);
    }
    return CB_OK;
}

cb_status cb_web_create(const cb_web_options *o, cb_web **web, cb_error *err) {
    cbi_sys_address address;
    CB_TRY(check(o, &address, err));
    cb_web *w = cbi_calloc(1, sizeof *w);
    if (w == NULL) {
        return cbi_fail_bytes(err, CB_ENOMEM, sizeof *w, 0,
                              "The system refused %zu bytes for web pages.", sizeof *w);
    }
    cbi_mutex_init(&w->mutex, CBI_RANK_WEB);
    w->address = address;
    w->directory = o->directory;
    w->listener = w->bell = w->poll = -1;
    w->password = o->password != NULL ? cbi_strdup(o->password) : NULL;
    cb_status status = CB_OK;
    if (o->password != NULL && w->password == NULL) {
        status = cbi_fail(err, CB_ENOMEM, "The system has no memory for a password.");
    }
    if (status == CB_OK) {
        status = start_daemon(w, err);
    }
    if (status == CB_OK) {
        status = start_thread(w, err);
    }
    if (status != CB_OK) {
        cb_web_destroy(w);
        return status;
    }
    *web = w;
    return CB_OK;
}

void cb_web_show(cb_web *web, const cb_server *server, const char *name) {
    cbi_mutex_lock(&web->mutex);
    web->server = server;
    (void)snprintf(web->name, sizeof web->name, "%s", name != NULL ? name : "");
    cbi_mutex_unlock(&web->mutex);
}

uint16_t cb_web_port(const cb_web *web) {
    return web->address.port;
}

void cb_web_destroy(cb_web *web) {
    if (web == NULL) {
        return;
    }
    atomic_store(&web->stop, true);
    if (web->bell >= 0) {
        cbi_sys_bell_ring(web->bell);
    }
    cbi_thread_join(&web->thread);
    if (web->daemon != NULL) {
        MHD_stop_daemon(web->daemon); /* and closes the listener */
    } else if (web->listener >= 0) {
        (void)cbi_sys_close(web->listener);
    }
    if (web->poll >= 0) {
        (void)cbi_sys_close(web->poll);
    }
    if (web->bell >= 0) {
        (void)cbi_sys_close(web->bell);
    }
    cbi_mutex_fini(&web->mutex);
    cbi_free(web->password);
    cbi_free(web);
}
