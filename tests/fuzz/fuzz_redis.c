/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a directory's server answers: each reply is taken whole or the link is closed,
 * what was taken lies within the link, and texts end where they say. The first byte says how many
 * of them come in one piece; the rest of the first line is looked at as an address, too.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "net/redis_link.h"

enum { ASKED_MAX = 16, BYTES_MAX = 60000 };

static cbi_redis_link link_;

static void check_value(const cbi_redis_value *v, unsigned depth) {
    cb_assert(depth < 16);
    switch (v->kind) {
        case CBI_REDIS_TEXT:
        case CBI_REDIS_ERROR:
            cb_assert(v->text >= link_.texts &&
                      v->text + v->count < link_.texts + sizeof link_.texts);
            cb_assert(v->text[v->count] == '\0');
            break;
        case CBI_REDIS_ARRAY:
            cb_assert(v->count == 0 ||
                      (v->items >= link_.values &&
                       v->items + v->count <= link_.values + CBI_REDIS_VALUES_MAX));
            for (uint32_t i = 0; i < v->count; i++) {
                check_value(&v->items[i], depth + 1);
            }
            break;
        case CBI_REDIS_NOTHING:
        case CBI_REDIS_INTEGER: break;
        default: cb_assert(false);
    }
}

static void check_url(const uint8_t *data, size_t size) {
    char text[512];
    cbi_redis_url url;
    size_t count = size < sizeof text - 1 ? size : sizeof text - 1;
    memcpy(text, data, count);
    text[count] = '\0';
    if (cbi_redis_url_parse(text, &url, NULL) == CB_OK) {
        cb_assert(memchr(url.path, 0, sizeof url.path) != NULL);
        cb_assert(memchr(url.password, 0, sizeof url.password) != NULL);
    }
}

static cbi_redis_url server;
static int listener = -1;

/** A server at a socket in a folder, which only this process knows. */
static void listen_once(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (listener >= 0) {
        return;
    }
    server.is_unix = true;
    (void)snprintf(server.path, sizeof server.path, "/tmp/fuzz-redis-%d", (int)getpid());
    (void)snprintf(a.sun_path, sizeof a.sun_path, "%s", server.path);
    (void)unlink(server.path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool listens =
        bind(listener, (const struct sockaddr *)&a, sizeof a) == 0 && listen(listener, 8) == 0;
    cb_assert(listens);
}

static void unlist(void) __attribute__((destructor));
static void unlist(void) {
    (void)unlink(server.path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2 || size > BYTES_MAX) {
        return 0;
    }
    check_url(data + 1, size - 1);
    listen_once();
    cbi_redis_link_init(&link_, UINT64_C(1000000000));
    cb_status status = cbi_redis_link_open(&link_, &server, NULL);
    cb_assert(status == CB_OK);
    int fd = accept(listener, NULL, NULL);
    cb_assert(fd >= 0);
    for (size_t at = 1, piece = 1 + (size_t)data[0] * 8; at < size; at += piece) {
        if (send(fd, data + at, size - at < piece ? size - at : piece, MSG_DONTWAIT) < 0) {
            break; /* many small pieces fill the socket before its bytes do */
        }
    }
    (void)shutdown(fd, SHUT_WR);
    for (int i = 0; i < ASKED_MAX && link_.fd >= 0; i++) {
        const cbi_redis_value *reply = NULL;
        cbi_redis_begin(&link_, 1);
        cbi_redis_text(&link_, "PING");
        if (cbi_redis_ask(&link_, &reply, NULL) == CB_OK) {
            check_value(reply, 0);
        }
    }
    cbi_redis_link_close(&link_);
    (void)close(fd);
    return 0;
}
