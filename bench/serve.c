/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve carbide|redis SOCKET COUNT BYTES [touch|read]: gets one block COUNT times over a Unix
 * socket and prints microseconds for each. Redis is asked by a client that does nothing but read
 * the answer into one buffer, which is the least that any client of it does. touch: one byte of
 * each page is looked at; read: all bytes are added up.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "carbide/client.h"

static volatile uint64_t looked;

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static _Noreturn void fail(const char *what) {
    (void)fprintf(stderr, "serve: %s\n", what);
    exit(1);
}

static void look(const uint8_t *data, size_t bytes, const char *how) {
    uint64_t sum = 0;
    if (how != NULL && strcmp(how, "touch") == 0) {
        for (size_t i = 0; i < bytes; i += 4096) {
            sum += data[i];
        }
    } else if (how != NULL) {
        for (size_t i = 0; i + 8 <= bytes; i += 8) {
            uint64_t v;
            memcpy(&v, data + i, 8);
            sum += v;
        }
    }
    looked += sum;
}

static double of_carbide(const char *socket_path, long count, size_t bytes, const char *how) {
    cb_client *c = NULL;
    cb_error err;
    uint8_t *data = calloc(1, bytes);
    if (data == NULL || cb_client_open(socket_path, 0, &c, &err) != CB_OK) {
        fail("no server");
    }
    cb_status status = cb_client_put(c, "bench", 0, data, bytes, &err);
    if (status != CB_OK && status != CB_EEXISTS) {
        fail(err.message);
    }
    double start = now_us();
    for (long i = 0; i < count; i++) {
        cb_client_block block = {0};
        if (cb_client_get(c, "bench", &block, &err) != CB_OK || block.bytes != bytes) {
            fail(err.message);
        }
        look(block.data, bytes, how);
        cb_client_release(c, &block);
    }
    double took = now_us() - start;
    cb_client_close(c);
    free(data);
    return took;
}

static void send_all(int fd, const void *bytes, size_t count) {
    for (const char *at = bytes; count > 0;) {
        ssize_t n = send(fd, at, count, MSG_NOSIGNAL);
        if (n <= 0) {
            fail("redis does not listen");
        }
        at += n;
        count -= (size_t)n;
    }
}

/** "$BYTES\r\n", the bytes, "\r\n": how many came is known by their number alone. */
static void read_bulk(int fd, uint8_t *to, size_t bytes, size_t digits) {
    size_t whole = 1 + digits + 2 + bytes + 2;
    for (size_t done = 0; done < whole;) {
        ssize_t n = recv(fd, to + done, whole - done, 0);
        if (n <= 0) {
            fail("redis ended the connection");
        }
        done += (size_t)n;
    }
    if (to[0] != '$') {
        fail("redis refused");
    }
}

static double of_redis(const char *socket_path, long count, size_t bytes, const char *how) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(a.sun_path, sizeof a.sun_path, "%s", socket_path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        fail("no redis there");
    }
    char head[64];
    int digits = snprintf(head, sizeof head, "%zu", bytes);
    uint8_t *data = calloc(1, bytes + 64);
    if (data == NULL) {
        fail("no memory");
    }
    int n = snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$5\r\nbench\r\n$%zu\r\n", bytes);
    send_all(fd, head, (size_t)n);
    send_all(fd, data, bytes);
    send_all(fd, "\r\n", 2);
    if (recv(fd, data, 5, MSG_WAITALL) != 5 || memcmp(data, "+OK\r\n", 5) != 0) {
        fail("redis refused");
    }
    static const char get[] = "*2\r\n$3\r\nGET\r\n$5\r\nbench\r\n";
    double start = now_us();
    for (long i = 0; i < count; i++) {
        send_all(fd, get, sizeof get - 1);
        read_bulk(fd, data, bytes, (size_t)digits);
        look(data + 3 + digits, bytes, how);
    }
    double took = now_us() - start;
    (void)close(fd);
    free(data);
    return took;
}

int main(int argc, char **argv) {
    if (argc < 5) {
        fail("serve carbide|redis SOCKET COUNT BYTES [touch|read]");
    }
    long count = strtol(argv[3], NULL, 10);
    size_t bytes = strtoul(argv[4], NULL, 10);
    const char *how = argc > 5 ? argv[5] : NULL;
    double took = strcmp(argv[1], "redis") == 0 ? of_redis(argv[2], count, bytes, how)
                                                : of_carbide(argv[2], count, bytes, how);
    (void)printf("%.3f\n", took / (double)count);
    return 0;
}
