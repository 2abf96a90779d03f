/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes to a server that speaks RESP, cut anywhere, read or not read: what it answers is RESP,
 * a connection that behaves gets its block back, and when all have gone nothing is read, half put
 * or waiting. Method: the input is a list of deeds on four connections of a server without workers,
 * some of which have said no password yet. It is an executor, alone in its directory, so that what
 * executors say to each other is tried, too.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz/fuzz_server.h"
#include "serve/serve.h"

enum { PEERS = 4, HONEST = PEERS, DEEDS_MAX = 200, PIECE = 4096, HONEST_BYTES = 90000 };

/** A client's side of a connection, and where it is in what comes. */
typedef struct peer {
    int fd;
    uint64_t skip; /* of a bulk that comes */
    char line[600];
    size_t length;
} peer;

static cb_server *server;
static cb_local_directory *directory;
static peer peers[PEERS + 1];
static char folder[] = "/tmp/fuzz-resp-XXXXXX";

static void remove_folder(void) {
    cb_server_destroy(server);
    cb_local_directory_destroy(directory);
    (void)rmdir(folder);
}

static void make_server(void) {
    char path[64];
    cb_error err;
    cb_assert(mkdtemp(folder) != NULL);
    cb_assert(cb_local_directory_create(0, NULL, NULL, &directory, NULL) == CB_OK);
    cb_directory interface = cb_local_directory_interface(directory);
    (void)snprintf(path, sizeof path, "%s/s", folder);
    cb_server_options o = {.struct_size = sizeof o,
                           .socket = path,
                           .listen = "127.0.0.1:0",
                           .directory = &interface,
                           .name = "me",
                           .password = "sesame",
                           .folder = folder,
                           .memory_bytes = 1,
                           .disk_max = 4u << 20,
                           .connections_max = 2 * (PEERS + 1),
                           .leases_max = 8,
                           .workers = CBI_NO_WORKERS};
    cb_assert(cb_server_create(&o, &server, &err) == CB_EBUDGET);
    o.memory_bytes = err.bytes_had + (UINT64_C(8) << 20); /* evictions, now and then */
    if (cb_server_create(&o, &server, &err) != CB_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        abort();
    }
    (void)atexit(remove_folder);
}

/** Blocks that the directory believes to be here. */
static uint64_t told_blocks(void) {
    cb_directory d = cb_local_directory_interface(directory);
    cb_executor_view me;
    size_t count = 0;
    cb_assert(d.peers(d.ctx, "", &me, 1, &count, NULL) == CB_OK && count == 1);
    return me.blocks;
}

static void step(void) {
    cb_assert(cbi_server_step(server, 0, NULL) == CB_OK);
}

static void open_peer(peer *p, bool trusted) {
    int ends[2];
    cb_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    *p = (peer){.fd = ends[0]};
    if (!cbi_server_adopt(server, ends[1], trusted, true)) {
        (void)close(p->fd);
        p->fd = -1;
    }
}

static void close_peer(peer *p) {
    if (p->fd >= 0) {
        (void)close(p->fd);
    }
    p->fd = -1;
}

/** A reply's first line, without its end. */
static void check_line(peer *p) {
    cb_assert(p->length >= 2 && p->line[p->length - 1] == '\r');
    p->line[p->length - 1] = '\0';
    char kind = p->line[0];
    cb_assert(kind != '\0' && strchr("+-:$*", kind) != NULL);
    if (kind == '$' && strcmp(p->line + 1, "-1") != 0) {
        char *end = NULL;
        p->skip = strtoull(p->line + 1, &end, 10) + 2;
        cb_assert(*end == '\0');
    }
    p->length = 0;
}

/** Reads up to so many bytes; false: there are none now. */
static bool read_peer(peer *p, size_t most) {
    char bytes[PIECE];
    ssize_t got = p->fd < 0 ? 0 : cbi_sys_receive(p->fd, bytes, cbi_min(most, sizeof bytes));
    if (got <= 0) {
        cb_assert(got == 0 || got == -EAGAIN || got == -ECONNRESET);
        return false;
    }
    for (size_t i = 0; i < (size_t)got; i++) {
        if (p->skip > 0) {
            size_t part = cbi_min((size_t)p->skip, (size_t)got - i);
            p->skip -= part;
            i += part - 1;
        } else if (bytes[i] == '\n') {
            check_line(p);
        } else {
            cb_assert(p->length < sizeof p->line);
            p->line[p->length++] = bytes[i];
        }
    }
    return true;
}

static void send_bytes(const peer *p, const void *bytes, size_t count) {
    struct iovec one = {(void *)(uintptr_t)bytes, count};
    if (p->fd >= 0 && count > 0) {
        (void)cbi_sys_send(p->fd, &one, 1, -1);
    }
}

/* ---- the one that behaves ---- */

static uint8_t honest_byte(size_t i) {
    return (uint8_t)(i * 7 + i / 251);
}

static void honest_transfer(uint8_t *bytes, size_t count, bool out) {
    const peer *p = &peers[HONEST];
    int idle = 0;
    for (size_t done = 0; done < count;) {
        struct iovec one = {bytes + done, count - done};
        ssize_t part = out ? cbi_sys_send(p->fd, &one, 1, -1)
                           : cbi_sys_receive(p->fd, bytes + done, count - done);
        idle = part > 0 ? 0 : idle + 1;
        cb_assert(part > 0 || (part == -EAGAIN && idle < 1000));
        done += part > 0 ? (size_t)part : 0;
        step();
    }
}

static void honest_say(const char *text, const char *answer) {
    char bytes[80];
    (void)snprintf(bytes, sizeof bytes, "%s", text);
    honest_transfer((uint8_t *)bytes, strlen(text), true);
    honest_transfer((uint8_t *)bytes, strlen(answer), false);
    cb_assert(memcmp(bytes, answer, strlen(answer)) == 0);
}

static void honest_put(void) {
    static uint8_t body[HONEST_BYTES + 2];
    char head[] = "*3\r\n$3\r\nSET\r\n$23\r\nhonest-3f9a0c51d7e24b68\r\n$90000\r\n";
    for (size_t i = 0; i < HONEST_BYTES; i++) {
        body[i] = honest_byte(i);
    }
    body[HONEST_BYTES] = '\r';
    body[HONEST_BYTES + 1] = '\n';
    honest_transfer((uint8_t *)head, sizeof head - 1, true);
    honest_transfer(body, sizeof body, true);
    honest_say("", "+OK\r\n");
}

static void honest_get(void) {
    static uint8_t body[HONEST_BYTES + 2];
    honest_say("*2\r\n$3\r\nGET\r\n$23\r\nhonest-3f9a0c51d7e24b68\r\n", "$90000\r\n");
    honest_transfer(body, sizeof body, false);
    for (size_t i = 0; i < HONEST_BYTES; i++) {
        cb_assert(body[i] == honest_byte(i));
    }
}

/* ---- deeds ---- */

typedef struct input {
    const uint8_t *at, *end;
} input;

static uint8_t next(input *in) {
    return in->at < in->end ? *in->at++ : 0;
}

/** A request that could be one, perhaps without the end of its value. */
static void send_request(const peer *p, input *in) {
    static const char *const words[] = {"GET a",
                                        "SET a ",
                                        "STRLEN b",
                                        "DEL a b c",
                                        "GETRANGE b 5 -3",
                                        "SCAN 0 COUNT 100",
                                        "SET b ",
                                        "INFO",
                                        "AUTH sesame",
                                        "EXISTS a b",
                                        "SET c ",
                                        "HELLO 2 AUTH default x",
                                        "CARBIDE.OFFER a 5 MEMORY_ONLY_SER_2 7 1500 you",
                                        "CARBIDE.PUT a 5 MEMORY_ONLY_SER_2 7 x",
                                        "CARBIDE.BURY BLOCK a 9",
                                        "CARBIDE.BURY DATASET 3 9",
                                        "CARBIDE.REMOVE BLOCK b",
                                        "CARBIDE.COMPUTE c 1",
                                        "CARBIDE.UNCLAIM c 1",
                                        "CARBIDE.GET a 5"};
    static const char *const levels[] = {"MEMORY_ONLY_SER", "DISK_ONLY", "NX", ""};
    static const unsigned sizes[] = {0, 1, 100, 1500, 3000, 66000, 300000, 5u << 20};
    static const char zeros[PIECE] = {0};
    uint8_t what = next(in), more = next(in);
    const char *word = words[what % (sizeof words / sizeof *words)];
    char text[200];
    if (strncmp(word, "SET", 3) != 0) {
        int length = snprintf(text, sizeof text, "%s\r\n", word);
        send_bytes(p, text, (size_t)length);
        return;
    }
    unsigned size = sizes[more % 8];
    const char *level = levels[more / 8 % 4];
    int args = level[0] == 'N' ? 4 : level[0] == '\0' ? 3 : 5;
    int length =
        snprintf(text, sizeof text, "*%d\r\n$3\r\nSET\r\n$1\r\n%c\r\n$%u\r\n", args, word[4], size);
    send_bytes(p, text, (size_t)length);
    send_bytes(p, zeros, cbi_min(size, more & 0x80 ? PIECE / 2 : PIECE));
    length = args == 3   ? snprintf(text, sizeof text, "\r\n")
             : args == 4 ? snprintf(text, sizeof text, "\r\n$2\r\nNX\r\n")
                         : snprintf(text, sizeof text, "\r\n$5\r\nLEVEL\r\n$%zu\r\n%s\r\n",
                                    strlen(level), level);
    if (size <= PIECE && !(more & 0x80)) {
        send_bytes(p, text, (size_t)length);
    }
}

static void do_deed(input *in) {
    static const uint8_t zeros[PIECE] = {0};
    uint8_t deed = next(in);
    peer *p = &peers[deed % PEERS];
    size_t count = 0;
    switch (deed / PEERS % 8) {
        case 0: /* raw bytes */
            count = cbi_min(next(in), (size_t)(in->end - in->at));
            send_bytes(p, in->at, count);
            in->at += count;
            break;
        case 1:
        case 2: send_request(p, in); break;
        case 3: send_bytes(p, zeros, cbi_min((size_t)next(in) * 16 + 1, PIECE)); break;
        case 4:
            for (int i = next(in); i > 0 && read_peer(p, PIECE); i--) {
            }
            break;
        case 5:
            if (p->fd >= 0) {
                (void)shutdown(p->fd, deed & 0x80 ? SHUT_RD : SHUT_WR);
            }
            break;
        case 6:
            close_peer(p);
            open_peer(p, deed & 0x80);
            break;
        default: step(); break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, data + size};
    cb_server_stats s;
    if (server == NULL) {
        make_server();
    }
    for (int i = 0; i <= PEERS; i++) {
        open_peer(&peers[i], i % 2 == 0);
    }
    honest_put();
    for (int i = 0; i < DEEDS_MAX && in.at < in.end; i++) {
        do_deed(&in);
        if (data[0] & 1) {
            step();
        }
    }
    honest_get();
    for (int i = 0; i < PEERS; i++) {
        close_peer(&peers[i]);
    }
    do {
        step();
        cb_server_stats_get(server, &s);
    } while (s.connections > 1);
    honest_say("DEL honest-3f9a0c51d7e24b68 a b c\r\n", ":");
    close_peer(&peers[HONEST]);
    do {
        step();
        cb_server_stats_get(server, &s);
    } while (s.connections > 0);
    cb_assert(s.unroll_bytes == 0 && s.leases == 0);
    cb_assert(server->stream_first == NULL && server->strangers == 0);
    fuzz_remove_all(server);
    cb_assert(told_blocks() == 0);
    return 0;
}
