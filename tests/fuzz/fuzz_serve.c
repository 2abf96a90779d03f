/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes, split anywhere, on several connections of trusted and other users, with descriptors,
 * half closes and ends at any moment: the server answers in its protocol or ends the connection.
 * Method: an input is a list of deeds on eight connections of a server without threads. What it
 * answers is read and checked as a client would; one more connection behaves, and its block must be
 * there and the same afterwards. When all have gone nothing is leased, read, half put or waiting.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz/fuzz_server.h"
#include "serve/serve.h"

enum { PEERS = 8, HONEST = PEERS, DEEDS_MAX = 256, PIECE_MAX = 4096, HONEST_BYTES = 70000 };

static const char honest_name[] = "honest-3f9a0c51d7e24b68";

/** One side of a connection as its client sees it. */
typedef struct peer {
    int fd;
    bool came;     /* a descriptor, with the reply's head that is coming */
    uint64_t skip; /* of a body that comes */
    uint8_t in[CBI_HEAD_BYTES];
    size_t in_end;
} peer;

static cb_server *server;
static peer peers[PEERS + 1];
static char folder[] = "/tmp/fuzz-serve-XXXXXX";

static void remove_folder(void) {
    cb_server_destroy(server);
    (void)rmdir(folder);
}

static void make_server(void) {
    char path[64];
    cb_error err = {.message = ""};
    cb_assert(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof path, "%s/s", folder);
    cb_server_options o = {.struct_size = sizeof o,
                           .socket = path,
                           .folder = folder,
                           .memory_bytes = 1,
                           .disk_max = 4u << 20,
                           .connections_max = 2 * (PEERS + 1),
                           .leases_max = 8,
                           .others = true,
                           .workers = CBI_NO_WORKERS};
    cb_assert(cb_server_create(&o, &server, &err) == CB_EBUDGET);
    o.memory_bytes = err.bytes_had + (UINT64_C(8) << 20); /* evictions, now and then */
    if (cb_server_create(&o, &server, &err) != CB_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        abort();
    }
    (void)atexit(remove_folder);
}

static void step(void) {
    cb_assert(cbi_server_step(server, 0, NULL) == CB_OK);
}

static void open_peer(peer *p, bool trusted) {
    int ends[2];
    cb_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    *p = (peer){.fd = ends[0]};
    if (!cbi_server_adopt(server, ends[1], trusted, false)) {
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

/** One reply's head has come; answers the body's bytes. */
static uint64_t check_head(const uint8_t bytes[CBI_HEAD_BYTES], bool passed) {
    cbi_head h;
    cb_assert(cbi_head_decode(bytes, &h, NULL) == CB_OK);
    cbi_head request = {.op = h.op, .tag = h.tag};
    cb_assert(cbi_reply_check(&h, &request, NULL) == CB_OK);
    bool leased = h.op == CBI_OP_GET && (h.flags & CBI_FLAG_LEASE) != 0;
    cb_assert(leased == passed);
    return h.bytes;
}

/** Reads up to so many bytes; false: there are none now. */
static bool read_peer(peer *p, size_t most) {
    uint8_t bytes[PIECE_MAX];
    bool in_body = p->skip > 0;
    size_t room = in_body ? most : CBI_HEAD_BYTES - p->in_end;
    int passed = -1;
    room = in_body && room > p->skip ? (size_t)p->skip : room;
    ssize_t got = p->fd < 0 ? 0 : cbi_sys_receive_fd(p->fd, bytes, room, &passed);
    if (got <= 0) {
        cb_assert(got == 0 || got == -EAGAIN || got == -ECONNRESET);
        return false;
    }
    if (passed >= 0) {
        cb_assert(!in_body && cbi_sys_is_sealed(passed));
        (void)close(passed);
    }
    if (in_body) {
        p->skip -= (uint64_t)got;
        return true;
    }
    memcpy(p->in + p->in_end, bytes, (size_t)got);
    p->in_end += (size_t)got;
    p->came = p->came || passed >= 0;
    if (p->in_end == CBI_HEAD_BYTES) {
        p->skip = check_head(p->in, p->came);
        p->in_end = 0;
        p->came = false;
    }
    return true;
}

static void send_bytes(const peer *p, const uint8_t *bytes, size_t count, bool pass) {
    struct iovec one = {(void *)(uintptr_t)bytes, count};
    if (p->fd >= 0 && count > 0) {
        (void)cbi_sys_send(p->fd, &one, 1, pass ? STDERR_FILENO : -1);
    }
}

/* ---- the one that behaves ---- */

static uint8_t honest_byte(size_t i) {
    return (uint8_t)(i * 7 + i / 251);
}

/** All of it, however long the server takes. */
static void honest_transfer(uint8_t *bytes, size_t count, bool out, int *passed) {
    const peer *p = &peers[HONEST];
    int idle = 0;
    for (size_t done = 0; done < count;) {
        struct iovec one = {bytes + done, count - done};
        int came = -1;
        ssize_t part = out ? cbi_sys_send(p->fd, &one, 1, -1)
                           : cbi_sys_receive_fd(p->fd, bytes + done, count - done, &came);
        if (came >= 0) {
            *passed = came;
        }
        idle = part > 0 ? 0 : idle + 1;
        cb_assert(part > 0 || (part == -EAGAIN && idle < 1000));
        done += part > 0 ? (size_t)part : 0;
        step();
    }
}

static cbi_head honest_ask(cbi_head h, uint8_t *body, size_t count, int *passed) {
    uint8_t bytes[CBI_REQUEST_BYTES_MAX];
    h.name_bytes = sizeof honest_name - 1;
    cbi_head_encode(&h, bytes);
    memcpy(bytes + CBI_HEAD_BYTES, honest_name, sizeof honest_name - 1);
    honest_transfer(bytes, CBI_HEAD_BYTES + sizeof honest_name - 1, true, passed);
    honest_transfer(body, count, true, passed);
    honest_transfer(bytes, CBI_HEAD_BYTES, false, passed);
    cb_assert(cbi_head_decode(bytes, &h, NULL) == CB_OK);
    return h;
}

static void honest_put(void) {
    static uint8_t body[HONEST_BYTES];
    int passed = -1;
    for (size_t i = 0; i < HONEST_BYTES; i++) {
        body[i] = honest_byte(i);
    }
    const cbi_head put = {.op = CBI_OP_PUT,
                          .flags = CBI_FLAG_SUM,
                          .bytes = HONEST_BYTES,
                          .value = XXH3_64bits(body, HONEST_BYTES)};
    cb_assert(honest_ask(put, body, HONEST_BYTES, &passed).code == CB_OK);
}

static void honest_get(void) {
    static uint8_t body[HONEST_BYTES];
    int passed = -1;
    const cbi_head get = {.op = CBI_OP_GET, .flags = CBI_FLAG_LEASE};
    cbi_head h = honest_ask(get, NULL, 0, &passed);
    cb_assert(h.code == CB_OK && h.extra == HONEST_BYTES);
    if (h.flags & CBI_FLAG_LEASE) {
        cb_assert(cbi_sys_is_sealed(passed));
        cb_assert(cbi_sys_pread(passed, body, HONEST_BYTES, 0) == HONEST_BYTES);
        (void)close(passed);
    } else {
        honest_transfer(body, HONEST_BYTES, false, &passed);
    }
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

/** A request that could be one, with the first bytes of its body. */
static void send_request(const peer *p, input *in, bool pass) {
    static const uint64_t sizes[] = {0, 1, 100, 3000, 66000, 200000, 5u << 20, UINT64_C(1) << 40};
    uint8_t bytes[CBI_REQUEST_BYTES_MAX + PIECE_MAX] = {0};
    uint8_t op = next(in), what = next(in), name = next(in);
    cbi_head h = {.op = (uint8_t)(op % CBI_OP_END), .tag = what};
    bool named = h.op == CBI_OP_PUT || h.op == CBI_OP_GET || h.op == CBI_OP_REMOVE ||
                 h.op == CBI_OP_STATUS || h.op == CBI_OP_KEEP;
    if (h.op == CBI_OP_PUT) {
        h.bytes = sizes[what % 8];
        h.code = (int32_t)(what / 8) | (name & 0x40 ? 1 << 8 : 0);
    } else if (h.op == CBI_OP_GET) {
        h.flags = what & 1 ? CBI_FLAG_LEASE : 0;
    } else {
        h.value = h.op == CBI_OP_RELEASE ? what % 8 : 0;
    }
    h.name_bytes = named;
    cbi_head_encode(&h, bytes);
    bytes[CBI_HEAD_BYTES] = (uint8_t)('a' + name % 8);
    size_t body = h.bytes < PIECE_MAX ? (size_t)h.bytes : PIECE_MAX;
    send_bytes(p, bytes, (size_t)CBI_HEAD_BYTES + named + (what & 0x80 ? body / 2 : body), pass);
}

static void do_deed(input *in) {
    static const uint8_t zeros[PIECE_MAX] = {0};
    uint8_t deed = next(in);
    peer *p = &peers[deed % PEERS];
    size_t count = 0;
    switch (deed / PEERS % 8) {
        case 0: /* raw bytes */
            count = next(in);
            count = cbi_min(count, (size_t)(in->end - in->at));
            send_bytes(p, in->at, count, false);
            in->at += count;
            break;
        case 1: send_request(p, in, false); break;
        case 2: send_request(p, in, true); break;
        case 3: /* more of a body */
            send_bytes(p, zeros, cbi_min((size_t)next(in) * 16 + 1, PIECE_MAX), false);
            break;
        case 4:
            for (int i = next(in); i > 0 && read_peer(p, PIECE_MAX); i--) {
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
    for (int i = 0; i <= PEERS; i++) {
        close_peer(&peers[i]);
    }
    do {
        step();
        cb_server_stats_get(server, &s);
    } while (s.connections > 0);
    cb_assert(s.leases == 0 && s.leased_bytes == 0 && s.unroll_bytes == 0);
    cb_assert(server->stream_first == NULL && server->strangers == 0);
    fuzz_remove_all(server);
    return 0;
}
