/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection as the loop sees it: which bytes come and go, and when it has had enough of a peer.
 *
 * A request's head goes into 295 bytes that each connection has; a put's body goes from the socket
 * to where the block will lie, a reply's body from where the block lies to the socket. So there are
 * no buffers that a peer could make grow: who does not read fills his own socket, who does not
 * write leaves it empty, and both are ended when the message under way takes longer than its size
 * warrants. Blocks that come from or go to disk take one of a few streams, and wait for it in line.
 */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "serve/serve.h"

enum { TURNS = 16 };

void cbi_idle_remove(cb_server *s, cbi_connection *c) {
    if (!c->idle) {
        return;
    }
    *(c->prev != NULL ? &c->prev->next : &s->idle_first) = c->next;
    *(c->next != NULL ? &c->next->prev : &s->idle_last) = c->prev;
    c->next = c->prev = NULL;
    c->idle = false;
}

void cbi_idle_leave(cb_server *s, cbi_connection *c) {
    bool must_log_in = c->resp != NULL && !c->trusted;
    if (!must_log_in) {
        cbi_idle_remove(s, c);
    }
}

static void idle_add(cb_server *s, cbi_connection *c) {
    if (c->idle || c->leases > 0) {
        return;
    }
    c->idle = true;
    c->next = NULL;
    c->prev = s->idle_last;
    *(s->idle_last != NULL ? &s->idle_last->next : &s->idle_first) = c;
    s->idle_last = c;
}

void cbi_connection_hurry(const cb_server *s, cbi_connection *c, uint64_t bytes) {
    const uint64_t second = UINT64_C(1000000000);
    uint64_t seconds = bytes / CBI_MIB;
    uint64_t whole = seconds < 86400 ? seconds * second : 86400 * second;
    c->deadline_ns = cbi_sys_clock_ns() + s->timeout_ns + whole;
    const cbi_resp *r = c->resp;
    if (r != NULL && r->login_ns != 0) { /* what he says before that does not make it last longer */
        c->deadline_ns = cbi_min(c->deadline_ns, r->login_ns + s->missed_ns);
    }
    bool offered = r != NULL && r->arrival.generation != 0;
    if (offered && !(r->puts && r->generation == r->arrival.generation)) {
        /* room is kept: what else he says does not make that last longer */
        c->deadline_ns = cbi_min(c->deadline_ns, r->arrival.until_ns + s->missed_ns);
    }
}

void cbi_connection_want(cb_server *s, cbi_connection *c) {
    bool readable = c->state == CBI_HEAD || c->state == CBI_BODY || c->state == CBI_DRAIN;
    bool writable = c->state == CBI_REPLY;
    cbi_state wanted = readable ? CBI_HEAD : writable ? CBI_REPLY : CBI_BUSY;
    if (wanted != c->wanted) {
        uint64_t token = (uint64_t)c->generation << 32 | (uint64_t)(c - s->connections);
        if (cbi_sys_poll_set(s->poll, c->fd, false, readable, writable, token) < 0) {
            c->ending = true; /* nothing would ever be heard of it */
        }
        c->wanted = wanted;
    }
}

/* ---- streams and leases ---- */

bool cbi_stream_take(cb_server *s, cbi_connection *c) {
    if (c->stream != NULL) {
        return true;
    }
    bool may = s->calling || s->stream_first == NULL; /* others wait already */
    may = may && (c->trusted || s->stranger_streams < CBI_STREAMS / 2);
    for (size_t i = 0; may && i < CBI_STREAMS; i++) {
        if (s->streams[i].owner == NULL) {
            c->stream = &s->streams[i];
            c->stream->owner = c;
            s->stranger_streams += !c->trusted;
            return true;
        }
    }
    c->state = CBI_QUEUED;
    c->deadline_ns = 0; /* not its fault */
    c->next_job = NULL;
    *(s->stream_last != NULL ? &s->stream_last->next_job : &s->stream_first) = c;
    s->stream_last = c;
    return false;
}

static void leave_queue(cb_server *s, const cbi_connection *c) {
    cbi_connection *before = NULL;
    for (cbi_connection *w = s->stream_first; w != NULL; before = w, w = w->next_job) {
        if (w == c) {
            *(before != NULL ? &before->next_job : &s->stream_first) = w->next_job;
            s->stream_last = s->stream_last == w ? before : s->stream_last;
            return;
        }
    }
}

static bool has_stream(const cb_server *s) {
    for (size_t i = 0; i < CBI_STREAMS; i++) {
        if (s->streams[i].owner == NULL) {
            return true;
        }
    }
    return false;
}

cbi_connection *cbi_stream_next(cb_server *s) {
    for (cbi_connection *w = s->stream_first; w != NULL && has_stream(s); w = w->next_job) {
        if (w->trusted || s->stranger_streams < CBI_STREAMS / 2) {
            leave_queue(s, w);
            w->next_job = NULL;
            return w;
        }
    }
    return NULL;
}

void cbi_stream_give(cb_server *s, cbi_connection *c) {
    if (c->stream == NULL) {
        return;
    }
    s->stranger_streams -= !c->trusted;
    c->stream->owner = NULL;
    c->stream = NULL;
    c->staged = 0;
}

cbi_lease *cbi_lease_take(cb_server *s, cbi_connection *c) {
    if (s->free_lease == 0 || c->leases >= s->leases_max / 2) {
        return NULL;
    }
    cbi_lease *l = &s->lease_table[s->free_lease - 1];
    s->free_lease = l->next;
    *l = (cbi_lease){.owner = c};
    return l;
}

void cbi_lease_give(cb_server *s, cbi_lease *l) {
    if (l->given) {
        s->stats.leases--;
        s->stats.leased_bytes -= l->ref.bytes;
        l->owner->leases--;
    }
    cb_block_release(&l->ref);
    l->given = false;
    l->owner = NULL;
    l->next = s->free_lease;
    s->free_lease = 1 + (uint32_t)(l - s->lease_table);
}

void cbi_connection_let_go(cb_server *s, cbi_connection *c) {
    cb_block_reader_close(c->reader);
    c->reader = NULL;
    cb_block_release(&c->own);
    if (c->lease != NULL) {
        cbi_lease_give(s, c->lease);
        c->lease = NULL;
    }
    c->pass = -1;
    c->body = NULL;
    c->body_left = c->stream_left = 0;
    c->trailer = 0;
    cbi_stream_give(s, c);
}

/* ---- its end ---- */

/** The worker's part of it is CBI_JOB_CLOSE. */
void cbi_connection_end(cb_server *s, cbi_connection *c) {
    c->ending = true;
    if (c->state == CBI_BUSY && c->takes) { /* its number could be another's in a moment */
        cbi_sys_poll_forget(s->poll, c->fd);
        return;
    }
    if (c->fd >= 0) {
        (void)cbi_sys_close(c->fd); /* and it is polled for no more */
        c->fd = -1;
        c->generation++;
    }
    if (c->state == CBI_BUSY && c->job == CBI_JOB_COPIES) {
        cbi_copies_give_up(s->copies, &c->resp->wait);
    }
    if (c->state == CBI_BUSY && c->job == CBI_JOB_FETCH && cbi_copies_unpark(s->copies, c)) {
        cbi_server_hand_back(s, c);
    }
    if (c->state == CBI_BUSY || c->state == CBI_FREE) {
        return;
    }
    if (c->state == CBI_QUEUED) {
        leave_queue(s, c);
    }
    c->job = CBI_JOB_CLOSE;
    s->closing++;
    cbi_server_submit(s, c);
}

void cbi_connection_rest(cb_server *s, cbi_connection *c) {
    cbi_connection_let_go(s, c);
    if (c->close_after || c->ending) {
        c->state = CBI_HEAD;
        cbi_connection_end(s, c);
        return;
    }
    c->state = CBI_HEAD;
    c->out_at = c->out_end = 0;
    bool known = c->resp == NULL || c->resp->login_ns == 0;
    c->deadline_ns = known ? 0 : c->resp->login_ns + s->missed_ns;
    /* also one who has been promised room for a copy, as long as he does not begin to send it */
    bool begun = c->in_at < c->in_end ||
                 (c->resp != NULL && (c->resp->in_rest || c->resp->arrival.generation != 0));
    if (c->in_at == c->in_end) {
        c->in_at = c->in_end = 0;
    }
    if (begun) {
        cbi_connection_hurry(s, c, 0);
    } else {
        idle_add(s, c);
    }
}

/* ---- what comes ---- */

/** false: it is not all there, or it is none. */
static bool take_head(cb_server *s, cbi_connection *c, cb_error *err) {
    size_t there = c->in_end - c->in_at;
    if (there < CBI_HEAD_BYTES) {
        return false;
    }
    const uint8_t *at = c->in + c->in_at;
    cb_status status = cbi_head_decode(at, &c->head, err);
    if (status == CB_OK) {
        status = cbi_request_check(&c->head, err);
    }
    if (status == CB_OK && there - CBI_HEAD_BYTES < c->head.name_bytes) {
        return false;
    }
    if (status == CB_OK && !cbi_name_check(at + CBI_HEAD_BYTES, c->head.name_bytes)) {
        status = cbi_fail(err, CB_EINVAL,
                          "A block's name cannot have a zero byte in it, nor begin as the "
                          "server's own do.");
    }
    if (status != CB_OK) {
        c->ending = true; /* there is no telling where the next request begins */
        s->stats.connections_refused++;
        return false;
    }
    memcpy(c->name, at + CBI_HEAD_BYTES, c->head.name_bytes);
    c->name[c->head.name_bytes] = '\0';
    c->in_at += CBI_HEAD_BYTES + c->head.name_bytes;
    return true;
}

/** Requests that are there already, one after the other. */
static void serve_head(cb_server *s, cbi_connection *c) {
    if (c->resp != NULL) {
        cbi_resp_serve(s, c);
        return;
    }
    while (c->state == CBI_HEAD && !c->ending && take_head(s, c, NULL)) {
        cbi_idle_leave(s, c);
        s->stats.requests++;
        cbi_request_begin(s, c);
    }
    if (c->state == CBI_HEAD && c->in_at > 0) {
        memmove(c->in, c->in + c->in_at, c->in_end - c->in_at);
        c->in_end -= c->in_at;
        c->in_at = 0;
    }
}

/** Where the next bytes of the socket belong. */
static void *place_of(cb_server *s, cbi_connection *c, size_t *room) {
    if (c->state == CBI_HEAD) {
        *room = c->in_max - c->in_end;
        return c->in + c->in_end;
    }
    if (c->state == CBI_DRAIN) {
        *room = c->left < sizeof s->scratch ? (size_t)c->left : sizeof s->scratch;
        return s->scratch;
    }
    *room = c->room < c->left ? c->room : (size_t)c->left;
    return c->to;
}

static void got_body(cb_server *s, cbi_connection *c, size_t count) {
    c->left -= count;
    if (c->state == CBI_DRAIN) {
        if (c->left == 0 && c->resp != NULL) {
            cbi_resp_value_done(s, c);
        } else if (c->left == 0) {
            c->state = CBI_REPLY;
            cbi_connection_hurry(s, c, 0);
        }
        return;
    }
    c->to += count;
    c->room -= count;
    if (c->fill.on_disk) {
        c->staged += count;
    } else {
        cbi_fill_add(&c->fill, count);
    }
    if (c->room == 0 || c->left == 0) {
        cbi_request_body(s, c);
    }
}

/** What came together with the head. */
static bool take_rest(cb_server *s, cbi_connection *c) {
    if ((c->state != CBI_BODY && c->state != CBI_DRAIN) || c->in_at == c->in_end) {
        return false; /* else it is a worker's, `in` too */
    }
    size_t room = 0, there = c->in_end - c->in_at;
    void *to = place_of(s, c, &room);
    size_t part = cbi_min(room, there);
    memcpy(to, c->in + c->in_at, part);
    c->in_at += (uint32_t)part;
    got_body(s, c, part);
    return true;
}

/** As far as it goes without the socket. */
static void go_on(cb_server *s, cbi_connection *c) {
    do {
        serve_head(s, c);
    } while (!c->ending && take_rest(s, c));
}

void cbi_connection_receive(cb_server *s, cbi_connection *c) {
    for (int turn = 0; turn < TURNS && !c->ending; turn++) {
        go_on(s, c);
        if (c->ending || (c->state != CBI_HEAD && c->state != CBI_BODY && c->state != CBI_DRAIN)) {
            break;
        }
        size_t room = 0;
        void *to = place_of(s, c, &room);
        ssize_t got = cbi_sys_receive(c->fd, to, room);
        if (got == -EAGAIN) {
            break;
        }
        if (got <= 0) {
            c->ending = true;
        } else if (c->state == CBI_HEAD) {
            if (c->in_end == 0) {
                cbi_connection_hurry(s, c, 0);
            }
            c->in_end += (uint32_t)got;
            cbi_idle_leave(s, c);
        } else {
            got_body(s, c, (size_t)got);
        }
    }
    if (!c->ending) {
        go_on(s, c);
    }
    if (c->state == CBI_REPLY && !c->ending) {
        cbi_connection_send(s, c);
    }
}

/* ---- what goes ---- */

/** The descriptor cannot be passed on (too many are on their way): a copy will do. */
static void copy_instead(cbi_connection *c) {
    cbi_head head = {0};
    (void)cbi_head_decode(c->out, &head, NULL);
    head.flags &= (uint8_t)~CBI_FLAG_LEASE;
    head.bytes = head.extra;
    head.value = 0;
    cbi_head_encode(&head, c->out);
    c->pass = -1;
    c->body = c->lease->ref.data;
    c->body_left = head.bytes;
}

static void sent(cbi_connection *c, size_t count) {
    size_t head = cbi_min(count, c->out_end - c->out_at);
    c->out_at += head;
    c->pass = -1;
    size_t body = cbi_min(count - head, (size_t)c->body_left);
    if (c->body != NULL) {
        c->body += body;
    }
    c->body_left -= body;
    c->trailer -= (uint32_t)(count - head - body);
}

/** What goes next, in up to three pieces; answers how many. */
static int pieces(const cbi_connection *c, struct iovec iov[3]) {
    static const char end[2] = {'\r', '\n'};
    int count = 0;
    if (c->out_at < c->out_end) {
        iov[count++] = (struct iovec){c->out + c->out_at, c->out_end - c->out_at};
    }
    if (c->body_left > 0) {
        iov[count++] = (struct iovec){(void *)(uintptr_t)c->body, (size_t)c->body_left};
    }
    if (c->trailer > 0 && c->stream_left == 0) {
        const char *from = end + sizeof end - c->trailer;
        iov[count++] = (struct iovec){(void *)(uintptr_t)from, c->trailer};
    }
    return count;
}

/** The lease is the client's from here on. */
static void give_lease(cb_server *s, cbi_connection *c) {
    cbi_lease *l = c->lease;
    c->lease = NULL;
    l->given = true;
    c->leases++;
    s->stats.leases++;
    s->stats.leased_bytes += l->ref.bytes;
}

void cbi_connection_send(cb_server *s, cbi_connection *c) {
    for (int turn = 0; turn < TURNS && c->state == CBI_REPLY && !c->ending; turn++) {
        struct iovec iov[3];
        int parts = pieces(c, iov);
        if (parts > 0) {
            int pass = c->pass;
            ssize_t count = cbi_sys_send(c->fd, iov, parts, pass);
            if (count == -EAGAIN) {
                break;
            }
            if (count < 0 && pass >= 0 && count != -EPIPE && count != -ECONNRESET) {
                copy_instead(c);
                continue;
            }
            if (count < 0) {
                c->ending = true;
                break;
            }
            if (pass >= 0) {
                give_lease(s, c);
            }
            sent(c, (size_t)count);
        }
        if (pieces(c, iov) == 0) {
            cbi_request_sent(s, c);
        }
        if (c->state == CBI_HEAD && !c->ending) {
            go_on(s, c); /* the next one, if it is there: the socket may never tell of it again */
        }
    }
}
