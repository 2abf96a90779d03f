/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A client of a server of blocks: one socket, one request at a time. What the server sends is not
 * believed further than it is checked: a reply must answer the request, a descriptor must be sealed
 * memory of the size that is said, so that nothing can change or end under who reads it.
 */
#include "carbide/client.h"

#include <errno.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "serve/protocol.h"

enum { PIECE_BYTES = 64 * 1024, LIST_BYTES = 64 * 1024, PAUSE_NS = 1000 * 1000, LOOK_MS = 1000 };

static const uint64_t default_timeout_ns = UINT64_C(30) * 1000000000;
static const uint64_t late_ns = UINT64_C(3) * 1000000000;
static const uint8_t nothing[1];

struct cb_client {
    int fd; /* -1: the connection is lost */
    char *path;
    uint64_t timeout_ns, deadline_ns;
    uint64_t looked_ns;  /* at the clock, the last time */
    uint64_t leases;     /* on this connection */
    uint64_t connection; /* which one it is, 1 2 3 ... */
    uint32_t tag;
    cbi_head request, reply;
    int passed; /* descriptor that came with the reply, or -1 */
};

/* ---- bytes ---- */

static void lose(cb_client *c) {
    if (c->fd >= 0) {
        (void)cbi_sys_close(c->fd);
        c->fd = -1;
        c->leases = 0;
    }
    if (c->passed >= 0) {
        (void)cbi_sys_close(c->passed);
        c->passed = -1;
    }
}

static cb_status gone(cb_client *c, int sys, cb_error *err) {
    lose(c);
    if (sys == 0 || sys == -EPIPE || sys == -ECONNRESET) {
        return cbi_fail(err, CB_EIO, "The server at %s has ended the connection.", c->path);
    }
    return cbi_fail_sys(err, CB_EIO, sys, "the connection to the server at %s failed", c->path);
}

static void hurry(cb_client *c) {
    c->looked_ns = cbi_sys_clock_ns();
    c->deadline_ns = c->looked_ns + c->timeout_ns;
}

/** A client that was stopped for a while cannot know whether the server was in time: what it
 *  missed is not counted. */
static uint64_t time_left_ms(cb_client *c) {
    uint64_t now = cbi_sys_clock_ns(), since = now - c->looked_ns;
    c->looked_ns = now;
    if (since > late_ns) { /* it looks each second */
        c->deadline_ns += since;
    }
    return now < c->deadline_ns ? (c->deadline_ns - now) / 1000000 + 1 : 0;
}

/** Until the socket is ready. CB_EDEADLINE; the connection is lost then, for what comes late would
 *  be taken for something else. */
static cb_status await(cb_client *c, bool writable, cb_error *err) {
    for (;;) {
        uint64_t left = time_left_ms(c);
        int ready = left > 0 ? cbi_sys_wait_for(c->fd, writable, (int)cbi_min(left, LOOK_MS)) : 0;
        if (ready == 1) {
            return CB_OK;
        }
        if (ready < 0) {
            return gone(c, ready, err);
        }
        if (left == 0) {
            lose(c);
            return cbi_fail(err, CB_EDEADLINE, "The server at %s did not answer in time.", c->path);
        }
    }
}

static cb_status send_all(cb_client *c, struct iovec *iov, int count, cb_error *err) {
    while (count > 0) {
        if (iov->iov_len == 0) {
            iov++;
            count--;
            continue;
        }
        ssize_t sent = cbi_sys_send(c->fd, iov, count, -1);
        if (sent == -EAGAIN) {
            CB_TRY(await(c, true, err));
            continue;
        }
        if (sent < 0) {
            return (sent == -EPIPE || sent == -ECONNRESET) ? CB_EAGAIN : gone(c, (int)sent, err);
        }
        hurry(c);
        size_t part = (size_t)sent;
        while (count > 0 && part >= iov->iov_len) {
            part -= iov->iov_len;
            iov++;
            count--;
        }
        if (count > 0 && part > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + part;
            iov->iov_len -= part;
        }
    }
    return CB_OK;
}

/** All of them; a descriptor may come with the first ones of a reply. */
static cb_status receive_all(cb_client *c, void *to, size_t bytes, bool head, cb_error *err) {
    for (size_t done = 0; done < bytes;) {
        int passed = -1;
        ssize_t got = head ? cbi_sys_receive_fd(c->fd, (uint8_t *)to + done, bytes - done, &passed)
                           : cbi_sys_receive(c->fd, (uint8_t *)to + done, bytes - done);
        if (got == -EAGAIN) {
            CB_TRY(await(c, false, err));
            continue;
        }
        if (got <= 0) {
            return gone(c, (int)got, err);
        }
        if (passed >= 0) {
            if (c->passed >= 0) {
                (void)cbi_sys_close(c->passed);
            }
            c->passed = passed;
        }
        hurry(c);
        done += (size_t)got;
    }
    return CB_OK;
}

/* ---- requests ---- */

static cb_status connect_to(cb_client *c, cb_error *err) {
    pid_t pid = 0;
    uid_t uid = 0;
    int fd = cbi_sys_connect(c->path);
    while (fd == -EAGAIN && cbi_sys_clock_ns() < c->deadline_ns) { /* others wait there, too */
        cbi_sys_sleep_ns(PAUSE_NS);
        fd = cbi_sys_connect(c->path);
    }
    if (fd == -ENOENT || fd == -ECONNREFUSED) {
        return cbi_fail(err, CB_ENOTFOUND, "No server of blocks listens at %s.", c->path);
    }
    if (fd == -EAGAIN) {
        return cbi_fail(err, CB_EAGAIN, "The server at %s has too many who wait.", c->path);
    }
    if (fd < 0) {
        return cbi_fail_sys(err, CB_EIO, fd, "the server at %s cannot be reached", c->path);
    }
    int known = cbi_sys_peer(fd, &pid, &uid);
    if (known < 0 || (uid != cbi_sys_uid() && uid != 0)) {
        (void)cbi_sys_close(fd);
        return cbi_fail(err, CB_EIO,
                        "The server at %s belongs to user %llu, neither ours nor root: it is not "
                        "trusted.",
                        c->path, (unsigned long long)uid);
    }
    c->fd = fd;
    c->leases = 0;
    c->connection++;
    return CB_OK;
}

/** A connection that the server ended while nothing was under way is made again. */
static cb_status be_connected(cb_client *c, cb_error *err) {
    hurry(c);
    if (c->fd >= 0 && c->leases == 0 && cbi_sys_wait_for(c->fd, false, 0) != 0) {
        lose(c);
    }
    return c->fd >= 0 ? CB_OK : connect_to(c, err);
}

/** The request's head and name, and `count` bytes of its body. */
static cb_status send_request(cb_client *c, const cbi_head *request, const char *name,
                              const void *bytes, size_t count, cb_error *err) {
    uint8_t head[CBI_HEAD_BYTES];
    size_t length = name != NULL ? strlen(name) : 0;
    if (name != NULL && (length == 0 || length > CB_BLOCK_NAME_MAX)) {
        return cbi_fail(err, CB_EINVAL, "A block's name has 1 to %d bytes, not %zu.",
                        CB_BLOCK_NAME_MAX, length);
    }
    CB_TRY(be_connected(c, err));
    c->request = *request;
    c->request.tag = ++c->tag;
    c->request.name_bytes = (uint16_t)length;
    cbi_head_encode(&c->request, head);
    struct iovec iov[3] = {
        {head, sizeof head}, {(void *)(uintptr_t)name, length}, {(void *)(uintptr_t)bytes, count}};
    return send_all(c, iov, 3, err);
}

/** Its reply's head; a refusal becomes the status it says. */
static cb_status receive_reply(cb_client *c, cb_error *err) {
    uint8_t head[CBI_HEAD_BYTES];
    CB_TRY(receive_all(c, head, sizeof head, true, err));
    cb_status status = cbi_head_decode(head, &c->reply, err);
    if (status == CB_OK) {
        status = cbi_reply_check(&c->reply, &c->request, err);
    }
    bool leased =
        status == CB_OK && (c->reply.flags & CBI_FLAG_LEASE) != 0 && c->reply.op == CBI_OP_GET;
    if (status == CB_OK && leased != (c->passed >= 0)) {
        status = cbi_fail(err, CB_EDATA, "The server's answer lacks what it says it has.");
    }
    if (status != CB_OK) {
        lose(c);
        return status;
    }
    if (c->reply.code == CB_OK) {
        return CB_OK;
    }
    char text[CBI_REPLY_TEXT_MAX + 1];
    CB_TRY(receive_all(c, text, (size_t)c->reply.bytes, false, err));
    text[c->reply.bytes] = '\0';
    return cbi_fail(err, (cb_status)c->reply.code, "%s", text);
}

/** Of a request without a body. Made again once if the server had just ended the connection. */
static cb_status ask(cb_client *c, const cbi_head *request, const char *name, cb_error *err) {
    for (int turn = 0;; turn++) {
        uint64_t held = c->leases;
        cb_status status = send_request(c, request, name, NULL, 0, err);
        if (status == CB_OK) {
            status = receive_reply(c, err);
        } else if (status == CB_EAGAIN && c->fd >= 0) {
            status = gone(c, 0, err);
        }
        if (status != CB_EIO || c->fd >= 0 || held > 0 || turn > 0) {
            return status;
        }
    }
}

cb_status cb_client_open(const char *socket, uint64_t timeout_ns, cb_client **client,
                         cb_error *err) {
    cb_client *c = cbi_calloc(1, sizeof *c);
    if (c == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a client.");
    }
    const cbi_head hello = {.op = CBI_OP_HELLO};
    c->fd = c->passed = -1;
    c->timeout_ns = timeout_ns > 0 ? timeout_ns : default_timeout_ns;
    c->path = cbi_strdup(socket);
    cb_status status = c->path != NULL
                           ? ask(c, &hello, NULL, err)
                           : cbi_fail(err, CB_ENOMEM, "The system has no memory for a path.");
    if (status != CB_OK) {
        cb_client_close(c);
        return status;
    }
    *client = c;
    return CB_OK;
}

void cb_client_close(cb_client *c) {
    if (c == NULL) {
        return;
    }
    lose(c);
    cbi_free(c->path);
    cbi_free(c);
}

/* ---- put ---- */

/** After the body, or as much of it as the server would have. */
static cb_status put_answer(cb_client *c, cb_status sent, cb_error *err) {
    if (sent != CB_OK && (sent != CB_EAGAIN || c->fd < 0)) {
        return sent;
    }
    cb_status status = receive_reply(c, err);
    if (sent == CB_EAGAIN) {
        lose(c); /* it has said why, and ended */
        return status != CB_OK ? status : gone(c, 0, err);
    }
    return status;
}

cb_status cb_client_put(cb_client *c, const char *name, cb_level level, const void *bytes,
                        uint64_t count, cb_error *err) {
    const cbi_head request = {.op = CBI_OP_PUT,
                              .flags = CBI_FLAG_SUM,
                              .code = level,
                              .bytes = count,
                              .value = XXH3_64bits(count > 0 ? bytes : nothing, (size_t)count)};
    cb_status status = send_request(c, &request, name, bytes, (size_t)count, err);
    return put_answer(c, status, err);
}

static cb_status send_source(cb_client *c, const cb_byte_source *source, uint64_t count,
                             uint8_t *piece, cb_error *err) {
    while (count > 0) {
        size_t got = 0;
        cb_status status = source->read(
            source->ctx, piece, count < PIECE_BYTES ? (size_t)count : PIECE_BYTES, &got, err);
        if (status != CB_OK) {
            lose(c); /* it can only be ended in the middle */
            return status != CB_EEND
                       ? status
                       : cbi_fail(err, CB_EDATA, "A block's bytes ended %llu before their end.",
                                  (unsigned long long)count);
        }
        hurry(c);
        struct iovec one = {piece, got};
        CB_TRY(send_all(c, &one, 1, err));
        count -= got;
    }
    return CB_OK;
}

cb_status cb_client_put_from(cb_client *c, const char *name, cb_level level,
                             const cb_byte_source *source, uint64_t count, cb_error *err) {
    const cbi_head request = {.op = CBI_OP_PUT, .code = level, .bytes = count};
    uint8_t *piece = cbi_alloc(PIECE_BYTES);
    if (piece == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a block on its way.");
    }
    cb_status status = send_request(c, &request, name, NULL, 0, err);
    if (status == CB_OK) {
        status = send_source(c, source, count, piece, err);
    }
    cbi_free(piece);
    return put_answer(c, status, err);
}

/* ---- get ---- */

static void let_go(cb_client *c, uint64_t lease) {
    const cbi_head request = {.op = CBI_OP_RELEASE, .value = lease, .tag = ++c->tag};
    uint8_t head[CBI_HEAD_BYTES];
    struct iovec one = {head, sizeof head};
    cbi_head_encode(&request, head);
    hurry(c);
    if (c->leases > 0) {
        c->leases--;
    }
    cb_status status = send_all(c, &one, 1, NULL);
    if (status != CB_OK) {
        lose(c); /* with the connection all leases end */
    }
}

/** The pages that came, if they are what they are said to be. */
static cb_status take_lease(cb_client *c, cb_client_block *block, cb_error *err) {
    struct stat st;
    uint64_t bytes = c->reply.extra, lease = c->reply.value;
    int fd = c->passed;
    bool right = bytes > 0 && cbi_sys_is_sealed(fd) && cbi_sys_fstat(fd, &st) == 0 &&
                 (uint64_t)st.st_size == bytes;
    c->leases++;
    c->passed = -1;
    void *base = right ? cbi_sys_map_file(fd, (size_t)bytes, false) : NULL;
    (void)cbi_sys_close(fd);
    if (base == NULL) {
        let_go(c, lease);
        return right ? cbi_fail_bytes(err, CB_ENOMEM, bytes, 0,
                                      "The system refused to map a block of %llu bytes.",
                                      (unsigned long long)bytes)
                     : cbi_fail(err, CB_EDATA, "The server gave memory that can change.");
    }
    *block = (cb_client_block){.data = base,
                               .bytes = bytes,
                               .leased = true,
                               .lease = lease,
                               .mapped = bytes,
                               .connection = c->connection};
    return CB_OK;
}

static cb_status take_copy(cb_client *c, cb_client_block *block, cb_error *err) {
    uint64_t bytes = c->reply.bytes;
    if (bytes == 0) {
        *block = (cb_client_block){.data = nothing};
        return CB_OK;
    }
    void *base = cbi_sys_map((size_t)bytes);
    if (base == NULL) {
        lose(c); /* its bytes are on their way */
        return cbi_fail_bytes(err, CB_ENOMEM, bytes, 0,
                              "The system has no memory for a block of %llu bytes.",
                              (unsigned long long)bytes);
    }
    cb_status status = receive_all(c, base, (size_t)bytes, false, err);
    if (status != CB_OK) {
        cbi_sys_unmap(base, (size_t)bytes);
        return status;
    }
    *block = (cb_client_block){.data = base, .bytes = bytes, .mapped = bytes};
    return CB_OK;
}

cb_status cb_client_get(cb_client *c, const char *name, cb_client_block *block, cb_error *err) {
    const cbi_head request = {.op = CBI_OP_GET, .flags = CBI_FLAG_LEASE};
    CB_TRY(ask(c, &request, name, err));
    return c->reply.flags & CBI_FLAG_LEASE ? take_lease(c, block, err) : take_copy(c, block, err);
}

void cb_client_release(cb_client *c, cb_client_block *block) {
    if (block == NULL || block->data == NULL) {
        return;
    }
    if (block->mapped > 0) {
        cbi_sys_unmap((void *)(uintptr_t)block->data, (size_t)block->mapped);
    }
    if (block->leased && c->fd >= 0 && block->connection == c->connection) {
        let_go(c, block->lease);
    }
    *block = (cb_client_block){0};
}

static cb_status pass_copy(cb_client *c, const cb_byte_sink *sink, cb_error *err) {
    uint8_t *piece = cbi_alloc(PIECE_BYTES);
    cb_status status = CB_OK;
    if (piece == NULL) {
        status = cbi_fail(err, CB_ENOMEM, "The system has no memory for a block on its way.");
    }
    for (uint64_t left = c->reply.bytes; status == CB_OK && left > 0;) {
        size_t part = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        status = receive_all(c, piece, part, false, err);
        if (status == CB_OK) {
            status = sink->write(sink->ctx, piece, part, err);
        }
        left -= part;
    }
    cbi_free(piece);
    if (status != CB_OK) {
        lose(c); /* the rest is on its way */
    }
    return status;
}

cb_status cb_client_read(cb_client *c, const char *name, const cb_byte_sink *sink, uint64_t *bytes,
                         cb_error *err) {
    const cbi_head request = {.op = CBI_OP_GET, .flags = CBI_FLAG_LEASE};
    CB_TRY(ask(c, &request, name, err));
    uint64_t count = c->reply.extra;
    cb_status status = CB_OK;
    if (c->reply.flags & CBI_FLAG_LEASE) {
        cb_client_block block = {0};
        CB_TRY(take_lease(c, &block, err));
        status = sink->write(sink->ctx, block.data, (size_t)block.bytes, err);
        cb_client_release(c, &block);
    } else {
        status = pass_copy(c, sink, err);
    }
    if (status == CB_OK) {
        *bytes = count;
    }
    return status;
}

/* ---- the others ---- */

cb_status cb_client_remove(cb_client *c, const char *name, cb_error *err) {
    const cbi_head request = {.op = CBI_OP_REMOVE};
    return ask(c, &request, name, err);
}

cb_status cb_client_keep(cb_client *c, const char *name, cb_error *err) {
    const cbi_head request = {.op = CBI_OP_KEEP};
    return ask(c, &request, name, err);
}

static cb_status bad_answer(cb_client *c, cb_error *err) {
    lose(c);
    return cbi_fail(err, CB_EDATA, "The server's answer is not as long as it should be.");
}

static cb_client_status status_of(const cbi_entry *e, const char *name) {
    return (cb_client_status){.name = name,
                              .level = e->level,
                              .now = e->now,
                              .memory_bytes = e->memory_bytes,
                              .disk_bytes = e->disk_bytes,
                              .readers = e->readers};
}

cb_status cb_client_status_get(cb_client *c, const char *name, cb_client_status *status,
                               cb_error *err) {
    const cbi_head request = {.op = CBI_OP_STATUS};
    uint8_t bytes[CBI_ENTRY_BYTES + CB_BLOCK_NAME_MAX];
    cbi_entry entry;
    CB_TRY(ask(c, &request, name, err));
    if (c->reply.bytes > sizeof bytes) {
        return bad_answer(c, err);
    }
    CB_TRY(receive_all(c, bytes, (size_t)c->reply.bytes, false, err));
    if (cbi_entry_decode(bytes, (size_t)c->reply.bytes, &entry) != c->reply.bytes) {
        return bad_answer(c, err);
    }
    *status = status_of(&entry, name);
    return CB_OK;
}

/** One page of it; CB_EEND: the visitor has had enough. */
static cb_status list_page(cb_client *c, uint64_t *at, uint8_t *page, cb_client_visit_fn fn,
                           void *ctx, cb_error *err) {
    const cbi_head request = {.op = CBI_OP_LIST, .value = *at};
    CB_TRY(ask(c, &request, NULL, err));
    size_t bytes = (size_t)c->reply.bytes;
    uint64_t next = c->reply.value; /* the visitor may ask for more */
    if (c->reply.bytes > LIST_BYTES || (next != 0 && next <= *at)) {
        return bad_answer(c, err);
    }
    CB_TRY(receive_all(c, page, bytes, false, err));
    for (size_t done = 0; done < bytes;) {
        char name[CB_BLOCK_NAME_MAX + 1];
        cbi_entry entry;
        size_t took = cbi_entry_decode(page + done, bytes - done, &entry);
        if (took == 0) {
            return bad_answer(c, err);
        }
        memcpy(name, entry.name, entry.name_bytes);
        name[entry.name_bytes] = '\0';
        const cb_client_status status = status_of(&entry, name);
        if (!fn(ctx, &status)) {
            return CB_EEND;
        }
        done += took;
    }
    *at = next;
    return CB_OK;
}

cb_status cb_client_list(cb_client *c, cb_client_visit_fn fn, void *ctx, cb_error *err) {
    uint8_t *page = cbi_alloc(LIST_BYTES);
    if (page == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a listing.");
    }
    uint64_t at = 0;
    cb_status status = CB_OK;
    do {
        status = list_page(c, &at, page, fn, ctx, err);
    } while (status == CB_OK && at != 0);
    cbi_free(page);
    return status == CB_EEND ? CB_OK : status;
}

cb_status cb_client_stats(cb_client *c, cb_server_stats *stats, cb_error *err) {
    const cbi_head request = {.op = CBI_OP_STATS};
    uint8_t bytes[CBI_REPLY_TEXT_MAX];
    CB_TRY(ask(c, &request, NULL, err));
    if (c->reply.bytes > sizeof bytes) {
        return bad_answer(c, err);
    }
    size_t count = (size_t)c->reply.bytes;
    CB_TRY(receive_all(c, bytes, count, false, err));
    *stats = (cb_server_stats){0}; /* an older server knows fewer */
    memcpy(stats, bytes, cbi_min(count, sizeof *stats));
    return CB_OK;
}
