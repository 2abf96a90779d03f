/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes to other executors: copies of blocks, and what was removed. RESP, as anybody speaks it
 * to a server: CARBIDE.OFFER says what would come, so that a peer that has it, or no room, takes
 * nothing; CARBIDE.PUT brings it, from where the block lies to the socket. A block is locked for
 * reading meanwhile. A peer that moves nothing for a few seconds has failed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "serve/copies_private.h"

enum { CONNECT_MS = 2000, STILL_MS = 5000, LOOK_MS = 200, HEAD_BYTES = 1024 };

static const uint64_t ms = 1000000;

/* ---- bytes ---- */

/** What moves them, until it has stood still for too long. */
typedef struct wire {
    cbi_copies *copies;
    int fd;
    uint64_t moved_ns;
} wire;

/** Waits until the socket is ready; false: it has been too long, or we are to end. */
static bool wait_for(const wire *w, bool writable) {
    for (;;) {
        if (atomic_load(&w->copies->quit) || cbi_sys_clock_ns() > w->moved_ns + STILL_MS * ms) {
            return false;
        }
        int ready = cbi_sys_wait_for(w->fd, writable, LOOK_MS);
        if (ready != 0) {
            return ready > 0;
        }
    }
}

static bool send_bytes(wire *w, const void *bytes, size_t count) {
    const uint8_t *at = bytes;
    w->moved_ns = cbi_sys_clock_ns();
    while (count > 0) {
        const struct iovec piece = {(void *)(uintptr_t)at, count};
        ssize_t sent = cbi_sys_send(w->fd, &piece, 1, -1);
        if (sent == -EAGAIN) {
            if (!wait_for(w, true)) {
                return false;
            }
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        at += sent;
        count -= (size_t)sent;
        w->moved_ns = cbi_sys_clock_ns();
    }
    return true;
}

/** A reply of one line, without its end. */
static bool receive_line(wire *w, char line[CBI_COPIES_LINE]) {
    size_t length = 0;
    w->moved_ns = cbi_sys_clock_ns();
    while (length < CBI_COPIES_LINE - 1) {
        ssize_t got = cbi_sys_receive(w->fd, line + length, CBI_COPIES_LINE - 1 - length);
        if (got == -EAGAIN) {
            if (!wait_for(w, false)) {
                return false;
            }
            continue;
        }
        if (got <= 0) {
            return false;
        }
        length += (size_t)got;
        if (length >= 2 && line[length - 2] == '\r' && line[length - 1] == '\n') {
            line[length - 2] = '\0';
            return true;
        }
    }
    return false; /* nobody of ours says so much */
}

/** A request of words, each of which may be a number; its last one may come after it. */
typedef struct request {
    char bytes[HEAD_BYTES];
    size_t count;
} request;

static void begin(request *r, unsigned words) {
    r->count = (size_t)snprintf(r->bytes, sizeof r->bytes, "*%u\r\n", words);
}

static void add_word(request *r, const char *word) {
    size_t length = strlen(word);
    r->count +=
        (size_t)snprintf(r->bytes + r->count, sizeof r->bytes - r->count, "$%zu\r\n", length);
    cb_assert(r->count + length + 2 < sizeof r->bytes);
    memcpy(r->bytes + r->count, word, length);
    memcpy(r->bytes + r->count + length, "\r\n", 2);
    r->count += length + 2;
}

static void add_number(request *r, uint64_t number) {
    char text[24];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    add_word(r, text);
}

static bool ask(wire *w, const request *r, char line[CBI_COPIES_LINE]) {
    return send_bytes(w, r->bytes, r->count) && receive_line(w, line);
}

/* ---- connections ---- */

static bool log_in(wire *w, const char *password) {
    enum { LONGEST = CBI_RESP_ARG_MAX };
    char line[CBI_COPIES_LINE], head[64];
    size_t length = strlen(password);
    int bytes = snprintf(head, sizeof head, "*2\r\n$4\r\nAUTH\r\n$%zu\r\n", length);
    return length <= LONGEST && send_bytes(w, head, (size_t)bytes) &&
           send_bytes(w, password, length) && send_bytes(w, "\r\n", 2) && receive_line(w, line) &&
           line[0] == '+';
}

static bool open_wire(cbi_copies *cp, const char *address, wire *w) {
    cbi_sys_address a;
    *w = (wire){.copies = cp, .fd = -1, .moved_ns = cbi_sys_clock_ns()};
    if (cbi_sys_address_parse(address, &a) < 0) {
        return false;
    }
    w->fd = cbi_sys_connect_tcp(&a, CONNECT_MS);
    if (w->fd < 0) {
        return false;
    }
    if (cp->server->password != NULL && !log_in(w, cp->server->password)) {
        (void)cbi_sys_close(w->fd);
        w->fd = -1;
        return false;
    }
    return true;
}

static void close_wire(wire *w) {
    if (w->fd >= 0) {
        (void)cbi_sys_close(w->fd);
        w->fd = -1;
    }
}

/** Nothing has come that was not asked for, its end for one. */
static bool is_alive(int fd) {
    return cbi_sys_wait_for(fd, false, 0) == 0;
}

/* ---- a copy ---- */

static cbi_replica_answer answer_of(const char *line) {
    static const struct {
        const char *word;
        cbi_replica_answer answer;
    } known[] = {{"-FULL ", CBI_REPLICA_FULL},        {"-OOM ", CBI_REPLICA_FULL},
                 {"-CORRUPT ", CBI_REPLICA_CORRUPT},  {"-CONFLICT ", CBI_REPLICA_CONFLICT},
                 {"-BURIED ", CBI_REPLICA_IS_BURIED}, {"-BUSY ", CBI_REPLICA_IS_BUSY},
                 {"-ERR ", CBI_REPLICA_FULL},         {"+OK", CBI_REPLICA_OK}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strncmp(line, known[i].word, strlen(known[i].word)) == 0) {
            return known[i].answer;
        }
    }
    return CBI_REPLICA_FAILED;
}

/** All of its bytes, from where they lie. *mine: they could not be read. */
static bool send_block(wire *w, cbi_copy_sender *x, const cb_block_ref *ref, bool *mine) {
    cb_block_reader *reader = NULL;
    uint64_t left = ref->bytes;
    if (ref->data != NULL || left == 0) {
        return send_bytes(w, ref->data, (size_t)left);
    }
    *mine = cb_block_reader_open(ref, &reader, NULL) != CB_OK;
    while (left > 0 && !*mine) {
        size_t got = 0;
        size_t most = (size_t)cbi_min(left, sizeof x->buffer);
        *mine = cb_block_reader_read(reader, x->buffer, most, &got, NULL) != CB_OK;
        if (!*mine && !send_bytes(w, x->buffer, got)) {
            break;
        }
        left -= got;
    }
    cb_block_reader_close(reader);
    return left == 0;
}

static cbi_replica_answer put(wire *w, cbi_copy_sender *x, const cbi_wish *wish,
                              const cb_block_ref *ref) {
    char line[CBI_COPIES_LINE];
    request r;
    bool mine = false;
    begin(&r, CBI_RESP_PUT_ARGS);
    add_word(&r, "CARBIDE.PUT");
    add_word(&r, wish->name);
    add_number(&r, wish->generation);
    add_number(&r, ref->level);
    add_number(&r, wish->checksum);
    r.count += (size_t)snprintf(r.bytes + r.count, sizeof r.bytes - r.count, "$%llu\r\n",
                                (unsigned long long)ref->bytes);
    if (send_bytes(w, r.bytes, r.count) && send_block(w, x, ref, &mine) &&
        send_bytes(w, "\r\n", 2) && receive_line(w, line)) {
        return answer_of(line);
    }
    close_wire(w);
    return mine ? CBI_REPLICA_CORRUPT : CBI_REPLICA_FAILED;
}

static cbi_replica_answer offer(wire *w, cbi_copy_sender *x, const cbi_wish *wish,
                                const cb_block_ref *ref) {
    char line[CBI_COPIES_LINE];
    request r;
    begin(&r, 7);
    add_word(&r, "CARBIDE.OFFER");
    add_word(&r, wish->name);
    add_number(&r, wish->generation);
    add_number(&r, ref->level);
    add_number(&r, wish->checksum);
    add_number(&r, ref->bytes);
    add_word(&r, x->copies->server->me.name);
    if (!ask(w, &r, line)) {
        close_wire(w);
        return CBI_REPLICA_FAILED;
    }
    return strcmp(line, "+SEND") == 0 ? put(w, x, wish, ref) : answer_of(line);
}

/** BUSY is what is said when there is nothing to send (any more), and nobody is to blame. */
static cbi_replica_answer send_copy(wire *w, cbi_copy_sender *x, const cbi_wish *wish) {
    cb_block_ref ref;
    x->task->deadline_ns = cbi_sys_clock_ns() + STILL_MS * ms;
    cb_status status =
        cbi_blocks_get_as_is(x->copies->server->blocks, x->task, wish->name, &ref, NULL);
    x->task->deadline_ns = 0;
    if (status != CB_OK) {
        return CBI_REPLICA_IS_BUSY;
    }
    cbi_replica_answer answer = CBI_REPLICA_IS_BUSY;
    if (cbi_node_identity(ref.block).generation == wish->generation) {
        answer = offer(w, x, wish, &ref);
    }
    cb_block_release(&ref);
    return answer;
}

static bool tell_grave(wire *w, const cbi_wish *wish) {
    static const char *const kinds[] = {"BLOCK", "DATASET", "BROADCAST"};
    char line[CBI_COPIES_LINE];
    request r;
    begin(&r, 4);
    add_word(&r, "CARBIDE.BURY");
    add_word(&r, kinds[wish->grave]);
    if (wish->grave == CBI_GRAVE_BLOCK) {
        add_word(&r, wish->name);
    } else {
        add_number(&r, wish->number);
    }
    add_number(&r, wish->generation);
    if (!ask(w, &r, line)) {
        close_wire(w);
        return false;
    }
    return strcmp(line, "+OK") == 0;
}

/* ---- the threads ---- */

/** [mutex] Its connection, or a place for one; NULL: none is free now. */
static cbi_copy_link *link_of(cbi_copies *cp, const char *peer) {
    cbi_copy_link *best = NULL;
    for (cbi_copy_link *l = cp->links; l < cp->links + CBI_REPLICA_PEERS_MAX; l++) {
        if (strcmp(l->peer, peer) == 0) {
            return l->busy ? NULL : l;
        }
        if (!l->busy && (best == NULL || l->used_ns < best->used_ns)) {
            best = l;
        }
    }
    return best;
}

/** [mutex] The first wish whose peer has no sender, taken out. */
static cbi_wish *take_remote(cbi_copies *cp, cbi_copy_link **link) {
    cbi_wish *before = NULL;
    for (cbi_wish *w = cp->remote.first; w != NULL; before = w, w = w->next) {
        *link = link_of(cp, w->peer);
        if (*link != NULL) {
            *(before != NULL ? &before->next : &cp->remote.first) = w->next;
            cp->remote.last = cp->remote.last == w ? before : cp->remote.last;
            return w;
        }
    }
    return NULL;
}

/** The link is this sender's meanwhile. */
static void carry_out(cbi_copy_sender *x, cbi_copy_link *l, const cbi_wish *wish) {
    cbi_copies *cp = x->copies;
    bool same = strcmp(l->peer, wish->peer) == 0 && strcmp(l->address, wish->address) == 0;
    wire w = {.copies = cp, .fd = l->fd};
    if (w.fd >= 0 && (!same || !is_alive(w.fd))) {
        close_wire(&w);
    }
    bool there = w.fd >= 0 || open_wire(cp, wish->address, &w);
    cbi_replica_event e = {.kind = CBI_REPLICA_SENT,
                           .name = wish->name,
                           .generation = wish->generation,
                           .checksum = wish->checksum,
                           .peer = wish->peer,
                           .peer_generation = wish->peer_generation,
                           .sequence = wish->sequence,
                           .answer = CBI_REPLICA_FAILED};
    if (wish->kind == CBI_REPLICA_SEND) {
        e.answer = there ? send_copy(&w, x, wish) : CBI_REPLICA_FAILED;
    } else {
        bool told = there && tell_grave(&w, wish);
        e.kind = told ? CBI_REPLICA_TOLD : CBI_REPLICA_UNREACHED;
    }
    cbi_mutex_lock(&cp->mutex);
    memcpy(l->address, wish->address, sizeof l->address);
    l->fd = w.fd;
    l->used_ns = cbi_sys_clock_ns();
    l->busy = false;
    if (w.fd < 0) { /* who is there? */
        cp->beat_ns = 0;
        cbi_cond_signal(&cp->wake_keeper);
    }
    (void)cbi_copies_step(cp, e, NULL);
    cbi_mutex_unlock(&cp->mutex);
}

void cbi_copies_send(void *ctx) {
    cbi_copy_sender *x = ctx;
    cbi_copies *cp = x->copies;
    cbi_mutex_lock(&cp->mutex);
    while (!atomic_load(&cp->quit)) {
        cbi_copy_link *link = NULL;
        cbi_wish *w = take_remote(cp, &link);
        if (w == NULL) {
            cbi_cond_wait(&cp->wake_senders, &cp->mutex);
            continue;
        }
        if (strcmp(link->peer, w->peer) != 0) { /* another one's place */
            memcpy(link->peer, w->peer, sizeof link->peer);
            link->address[0] = '\0';
        }
        link->busy = true;
        cbi_mutex_unlock(&cp->mutex);
        carry_out(x, link, w);
        cbi_free(w);
        cbi_mutex_lock(&cp->mutex);
        if (cp->remote.first != NULL) { /* others may go on with that peer */
            cbi_cond_signal(&cp->wake_senders);
        }
    }
    cbi_mutex_unlock(&cp->mutex);
}
