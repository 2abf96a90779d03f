/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection that speaks RESP: requests are found where they arrived, in 8 KiB that the
 * connection has, and short replies gather in 8 KiB more, so that who sends many requests at once
 * has many replies at once. What is large stays out of both: a SET's value goes from the socket to
 * where the block will lie, a GET's reply from where the block lies to the socket. No more requests
 * are read while a reply is on its way: who does not read his replies fills his own socket.
 *
 * A SET's level comes after its value. So its bytes are taken at the server's own level, and when
 * the level is known they go to disk, or are refused, if they lie where it does not allow them.
 */
#include <string.h>

#include "serve/serve.h"

enum {
    REPLY_ROOM = 2048,         /* a short reply never needs more */
    DROP_MAX = 4 * 1024 * 1024 /* of a value that is refused are read, to hear the next request */
};

static_assert(REPLY_ROOM >= CBI_RESP_ARG_MAX + CBI_RESP_HEAD_MAX, "an argument can be a reply");
static_assert(CBI_RESP_OUT_BYTES >= 2 * REPLY_ROOM, "there is room for one and more");

/** There is no telling where the next request begins. */
static void give_up(cb_server *s, cbi_connection *c, const char *why) {
    char text[CBI_RESP_TEXT_MAX] = "Protocol error: ";
    size_t at = strlen(text);
    memcpy(text + at, why, strlen(why) + 1);
    cbi_resp_say_error(c, "ERR", text);
    s->stats.connections_refused++;
    c->close_after = true;
    c->in_at = c->in_end = 0;
    c->state = CBI_REPLY;
}

/** What follows a SET's value. false: it is not there yet, or it is none. */
static bool serve_rest(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    const uint8_t *bytes = c->in + c->in_at;
    size_t there = c->in_end - c->in_at;
    const char *why = NULL;
    cbi_resp_request rest = {0};
    if (r->request.is_line) { /* it was looked at as a whole */
        rest.taken = r->line_left;
    } else {
        uint32_t args = r->request.count - (r->puts ? CBI_RESP_PUT_ARGS : 3);
        cbi_resp_found found = cbi_resp_find_rest(bytes, there, args, &rest, &why);
        if (found == CBI_RESP_BAD || (found == CBI_RESP_MORE && there == c->in_max)) {
            give_up(s, c, found == CBI_RESP_BAD ? why : "too long a request");
            return false;
        }
        if (found == CBI_RESP_MORE) {
            return false;
        }
    }
    r->in_rest = false;
    c->in_at += (uint32_t)rest.taken;
    if (r->status != CB_OK) {
        cbi_resp_say_failed(c);
        cbi_resp_go_on(c);
    } else if (cbi_resp_set_options(s, c, bytes, &rest)) {
        cbi_put_submit(s, c, CBI_JOB_FINISH);
    } else {
        c->job = CBI_JOB_CANCEL;
        cbi_server_submit(s, c);
    }
    return true;
}

/** Whether its long argument is a value. */
static bool is_set(const cbi_connection *c) {
    const cbi_resp_request *r = &c->resp->request;
    size_t at = r->start;
    if (!c->trusted || r->whole == 0 || r->is_line) {
        return false;
    }
    cbi_resp_word name = cbi_resp_next(c->in + c->in_at, r, &at);
    return (r->whole == 2 && r->count >= 3 && cbi_resp_is(name, "SET")) ||
           (r->whole == CBI_RESP_PUT_ARGS - 1 && r->count == CBI_RESP_PUT_ARGS &&
            cbi_resp_is(name, "CARBIDE.PUT"));
}

/** The next request. false: it is not there. */
static bool serve_one(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    if (r->in_rest) {
        return serve_rest(s, c);
    }
    size_t there = c->in_end - c->in_at;
    const char *why = NULL;
    cbi_resp_found found = cbi_resp_find(c->in + c->in_at, there, &r->request, &why);
    if (found == CBI_RESP_MORE) {
        if (there == c->in_max) {
            give_up(s, c, "too long a request");
        }
        return false;
    }
    if (found == CBI_RESP_LONG && !is_set(c)) {
        why = "too long an argument";
    }
    if (why != NULL) {
        give_up(s, c, why);
        return false;
    }
    if (r->request.count == 0) {
        c->in_at += (uint32_t)r->request.taken;
        return true;
    }
    cbi_idle_leave(s, c);
    s->stats.requests++;
    r->status = CB_OK;
    r->puts = false;
    r->computes = false;
    cbi_resp_execute(s, c);
    return true;
}

void cbi_resp_serve(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    r->serving = true;
    while (c->state == CBI_HEAD && !c->ending && !c->close_after &&
           CBI_RESP_OUT_BYTES - c->out_end >= REPLY_ROOM && serve_one(s, c)) {
    }
    r->serving = false;
    if (c->state != CBI_HEAD) {
        return;
    }
    if (c->in_at > 0) {
        memmove(c->in, c->in + c->in_at, c->in_end - c->in_at);
        c->in_end -= c->in_at;
        c->in_at = 0;
    }
    if (c->out_end > 0) {
        c->state = CBI_REPLY;
        cbi_connection_hurry(s, c, 0);
    } else if (c->in_end == 0 && (!c->idle || !c->trusted) && !r->in_rest) {
        cbi_connection_rest(s, c); /* what came was nothing */
    }
}

void cbi_resp_go_on(cbi_connection *c) {
    c->state = c->resp->serving ? CBI_HEAD : CBI_REPLY;
}

/* ---- jobs ---- */

void cbi_resp_note(cbi_connection *c, cb_status status, const cb_error *err) {
    c->resp->status = status;
    if (status != CB_OK) {
        size_t length = strnlen(err->message, sizeof c->resp->text - 1);
        memcpy(c->resp->text, err->message, length);
        c->resp->text[length] = '\0';
    }
}

void cbi_resp_value_done(cb_server *s, cbi_connection *c) {
    (void)s;
    c->resp->in_rest = true;
    c->state = CBI_HEAD;
}

/** A value was refused while its bytes are on their way. */
static void drop_value(cb_server *s, cbi_connection *c) {
    cbi_stream_give(s, c); /* the next request is not to go where this one's bytes went */
    if (c->left == 0) {
        cbi_resp_value_done(s, c);
    } else if (c->left <= DROP_MAX) {
        c->state = CBI_DRAIN;
        cbi_connection_hurry(s, c, c->left);
    } else {
        cbi_resp_say_failed(c);
        c->close_after = true;
        c->in_at = c->in_end = 0;
        c->state = CBI_REPLY;
    }
}

/** Whether its answer has to wait for copies at others; then who brings them hands it back. */
static bool waits_for_copies(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    r->copies = 0;
    c->job = CBI_JOB_COPIES;
    c->state = CBI_BUSY;
    c->busy_ns = cbi_sys_clock_ns();
    if (r->wait.listed && cbi_copies_wait(s->copies, &r->wait, &r->copies)) {
        return true;
    }
    c->job = CBI_JOB_NONE;
    c->state = CBI_HEAD;
    c->busy_ns = 0;
    return false;
}

/** All copies are there, or nobody else takes one. */
static void copies_done(cb_server *s, cbi_connection *c) {
    (void)cbi_copies_wait(s->copies, &c->resp->wait, &c->resp->copies);
    cbi_resp_say(c, "OK");
    cbi_resp_go_on(c);
}

static void set_done(cb_server *s, cbi_connection *c, bool failed) {
    const cbi_resp *r = c->resp;
    cbi_stream_give(s, c);
    if (!failed && waits_for_copies(s, c)) {
        return;
    }
    if (!failed) {
        cbi_resp_say(c, "OK");
    } else if (r->status == CB_EEXISTS && !r->puts) {
        cbi_resp_say_nil(c);
    } else {
        cbi_resp_say_failed(c);
    }
    cbi_resp_go_on(c);
}

static void remove_done(cb_server *s, cbi_connection *c, bool failed) {
    cbi_resp *r = c->resp;
    if (failed && r->status != CB_ENOTFOUND) {
        cbi_resp_say_failed(c);
        c->in_at += (uint32_t)r->request.taken;
        cbi_resp_go_on(c);
        return;
    }
    r->removed += !failed;
    cbi_resp_remove_next(s, c);
}

void cbi_resp_done(cb_server *s, cbi_connection *c, cbi_job job, bool failed) {
    switch (job) {
        case CBI_JOB_GET: failed ? cbi_resp_missed_block(s, c) : cbi_resp_got_block(s, c); break;
        case CBI_JOB_READ:
            if (c->stream_left > 0) {
                cbi_request_more(c);
            } else if (failed) {
                cbi_resp_missed_block(s, c);
            } else {
                c->out_end += cbi_resp_put_number(c->out + c->out_end, '$', (int64_t)c->want);
                c->body = c->stream->buffer;
                c->body_left = c->staged;
                c->stream_left = c->want - c->staged;
                c->trailer = 2;
                c->state = CBI_REPLY;
                cbi_connection_hurry(s, c, c->want);
            }
            break;
        case CBI_JOB_BEGIN:
        case CBI_JOB_ROOM:
        case CBI_JOB_APPEND: failed ? drop_value(s, c) : cbi_put_room(s, c); break;
        case CBI_JOB_FINISH: set_done(s, c, failed); break;
        case CBI_JOB_CANCEL: /* the error is said already */
            cbi_stream_give(s, c);
            cbi_resp_go_on(c);
            break;
        case CBI_JOB_REMOVE: remove_done(s, c, failed); break;
        case CBI_JOB_COPIES: copies_done(s, c); break;
        case CBI_JOB_BURY: cbi_resp_buried(s, c); break;
        case CBI_JOB_FETCH:
            if (c->resp->computes) {
                cbi_resp_computed(s, c, failed);
            } else {
                failed ? cbi_resp_missed_block(s, c) : cbi_resp_fetched_block(s, c);
            }
            break;
        case CBI_JOB_NONE:
        case CBI_JOB_KEEP:
        case CBI_JOB_CLOSE:
        default: break;
    }
}

void cbi_resp_stream(cb_server *s, cbi_connection *c) {
    if (c->own.block != NULL) {
        cbi_resp_got_block(s, c);
    } else if (c->fill.blocks != NULL) {
        cbi_put_room(s, c);
    } else {
        cbi_resp_scan(s, c);
    }
}
