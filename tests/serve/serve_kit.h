/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_SERVE_KIT_H
#define CARBIDE_SERVE_KIT_H

/* What tests of the server share: one that runs in a thread, blocks whose bytes are known, a raw
 * connection to say anything on. */

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "carbide/client.h"
#include "serve/serve.h"
#include "support/test.h"

typedef struct kit {
    cb_server *server;
    pthread_t thread;
    char path[108];
    cb_server_stats end; /* when it had ended */
} kit;

static inline void *kit_run(void *ctx) {
    kit *k = ctx;
    cb_status status = cb_server_run(k->server, NULL);
    return (void *)(intptr_t)status;
}

static inline cb_server_options kit_options(kit *k, uint64_t memory) {
    char folder[80]; /* short enough for a socket */
    (void)snprintf(folder, sizeof folder, "/tmp/carbide-serve-%d", (int)getpid());
    (void)mkdir(folder, 0700);
    (void)snprintf(k->path, sizeof k->path, "%s/s", folder);
    return (cb_server_options){
        .struct_size = sizeof(cb_server_options), .socket = k->path, .memory_bytes = memory};
}

static inline void kit_folder_end(const kit *k) {
    char folder[108];
    (void)snprintf(folder, sizeof folder, "%s", k->path);
    *strrchr(folder, '/') = '\0';
    (void)rmdir(folder);
}

static inline void kit_open(kit *k, const cb_server_options *o) {
    cb_error err = {.message = ""};
    if (cb_server_create(o, &k->server, &err) != CB_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(pthread_create(&k->thread, NULL, kit_run, k), 0);
}

static inline void kit_close(kit *k) {
    void *status = NULL;
    cb_server_stop(k->server);
    assert_int_equal(pthread_join(k->thread, &status), 0);
    assert_int_equal((intptr_t)status, CB_OK);
    cb_server_stats_get(k->server, &k->end);
    cb_server_destroy(k->server);
    assert_int_equal(access(k->path, F_OK), -1);
}

static inline cb_client *kit_client(const kit *k) {
    cb_client *c = NULL;
    cb_error err = {.message = ""};
    if (cb_client_open(k->path, 0, &c, &err) != CB_OK) {
        fail_msg("%s", err.message);
    }
    return c;
}

static inline uint8_t kit_byte(uint32_t seed, uint64_t i) {
    return (uint8_t)(seed * 31 + i * 7 + i / 4096);
}

static inline cb_status kit_put_or(cb_client *c, const char *name, cb_level level, uint32_t seed,
                                   size_t bytes, cb_error *err) {
    uint8_t *data = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = kit_byte(seed, i);
    }
    cb_status status = cb_client_put(c, name, level, data, bytes, err);
    free(data);
    return status;
}

static inline cb_status kit_put(cb_client *c, const char *name, cb_level level, uint32_t seed,
                                size_t bytes) {
    return kit_put_or(c, name, level, seed, bytes, NULL);
}

static inline void kit_same(const uint8_t *data, uint32_t seed, size_t bytes) {
    for (size_t i = 0; i < bytes; i++) {
        if (data[i] != kit_byte(seed, i)) {
            fail_msg("byte %zu of %zu differs", i, bytes);
        }
    }
}

/** Gets it and compares; answers whether it was a lease. */
static inline bool kit_check(cb_client *c, const char *name, uint32_t seed, size_t bytes) {
    cb_client_block b = {0};
    cb_error err = {.message = ""};
    if (cb_client_get(c, name, &b, &err) != CB_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(b.bytes, bytes);
    kit_same(b.data, seed, bytes);
    bool leased = b.leased;
    cb_client_release(c, &b);
    return leased;
}

static inline cb_server_stats kit_stats(cb_client *c) {
    cb_server_stats s;
    assert_ok(cb_client_stats(c, &s, NULL));
    return s;
}

static inline int kit_raw(const kit *k) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memcpy(a.sun_path, k->path, sizeof k->path);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/** false: the server has ended the connection. */
static inline bool kit_try_head(int fd, const cbi_head *h, const char *name) {
    uint8_t bytes[CBI_REQUEST_BYTES_MAX];
    cbi_head head = *h;
    head.name_bytes = (uint16_t)strlen(name);
    cbi_head_encode(&head, bytes);
    memcpy(bytes + CBI_HEAD_BYTES, name, head.name_bytes);
    size_t count = (size_t)CBI_HEAD_BYTES + head.name_bytes;
    return send(fd, bytes, count, MSG_NOSIGNAL) == (ssize_t)count;
}

static inline void kit_send_head(int fd, const cbi_head *h, const char *name) {
    assert_true(kit_try_head(fd, h, name));
}

/** Over TCP. */
static inline int kit_dial(const kit *k) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(cb_server_port(k->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        abort();
    }
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

static inline void kit_say(int fd, const char *words) {
    assert_int_equal(send(fd, words, strlen(words), MSG_NOSIGNAL), strlen(words));
}

#endif
