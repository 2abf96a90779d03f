/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients of Redis may ask for, and what blocks make of it: a key is a block's name, a value
 * its bytes. What would be something else here than there (a time to live, a key that grows) is
 * refused, not imitated.
 */
#include <stdio.h>
#include <string.h>

#include "serve/serve.h"

enum {
    COPY_MAX = 1024, /* bytes of a block that go by way of the replies' room */
    WRONG_MAX = 3,   /* passwords, then the connection ends */
    SCAN_COUNT = 10,
    SCAN_COUNT_MIN = 32,
    SCAN_COUNT_MAX = 200,
    SCAN_PATTERN_MAX = 255,
    ANY = CBI_RESP_ARGS_MAX
};

enum { ASKS_ALL, ASKS_RANGE, ASKS_LENGTH };

static uint8_t *out_of(cbi_connection *c) {
    return c->out + c->out_end;
}

void cbi_resp_say(cbi_connection *c, const char *word) {
    c->out_end += cbi_resp_put_line(out_of(c), '+', word, strlen(word));
}

void cbi_resp_say_number(cbi_connection *c, int64_t number) {
    c->out_end += cbi_resp_put_number(out_of(c), ':', number);
}

void cbi_resp_say_nil(cbi_connection *c) {
    c->out_end += cbi_resp_put_nil(out_of(c), c->resp->resp3);
}

void cbi_resp_say_bulk(cbi_connection *c, const void *bytes, size_t count) {
    c->out_end += cbi_resp_put_bulk(out_of(c), bytes, count);
}

static void say_text(cbi_connection *c, const char *text) {
    cbi_resp_say_bulk(c, text, strlen(text));
}

/** The items follow. */
void cbi_resp_say_array(cbi_connection *c, int64_t count) {
    c->out_end += cbi_resp_put_number(out_of(c), '*', count);
}

/** So many names, each with what it names: in RESP2 an array of twice as many. */
void cbi_resp_say_map(cbi_connection *c, int64_t count) {
    bool resp3 = c->resp->resp3;
    c->out_end += cbi_resp_put_number(out_of(c), resp3 ? '%' : '*', resp3 ? count : 2 * count);
}

void cbi_resp_say_error(cbi_connection *c, const char *kind, const char *sentence) {
    char text[CBI_RESP_TEXT_MAX + 32];
    int length = snprintf(text, sizeof text, "%s %s", kind, sentence);
    c->out_end += cbi_resp_put_line(out_of(c), '-', text, cbi_min((size_t)length, sizeof text - 1));
}

static void say_error(cbi_connection *c, const char *sentence) {
    cbi_resp_say_error(c, "ERR", sentence);
}

void cbi_resp_say_failed(cbi_connection *c) {
    cb_status status = c->resp->status;
    bool full = status == CB_EBUDGET || status == CB_ENOMEM || status == CB_ENOSPC;
    bool busy = status == CB_EAGAIN || status == CB_EDEADLINE;
    const char *kind = full ? "OOM" : busy ? "BUSY" : "ERR";
    if (c->resp->puts) { /* who sends copies tells these apart */
        kind = status == CB_ECORRUPT    ? "CORRUPT"
               : status == CB_EEXISTS   ? "CONFLICT"
               : status == CB_ENOTFOUND ? "BURIED"
                                        : kind;
    }
    cbi_resp_say_error(c, kind, c->resp->text);
}

/* ---- names ---- */

typedef cbi_resp_args args;

static cbi_resp_word next(args *a) {
    return cbi_resp_next(a->bytes, a->request, &a->at);
}

static bool can_be_name(cbi_resp_word w) {
    return w.count > 0 && w.count <= CB_BLOCK_NAME_MAX && cbi_name_check(w.bytes, w.count);
}

static void take_name(cbi_connection *c, cbi_resp_word w) {
    memcpy(c->name, w.bytes, w.count);
    c->name[w.count] = '\0';
}

/* ---- reading ---- */

/** What GETRANGE means of so many bytes; answers how many, from *from on. Redis lets an end that
 *  lies before the beginning be the beginning, but for two of them in the wrong order. */
static uint64_t range_of(const cbi_resp *r, uint64_t bytes, uint64_t *from) {
    int64_t length = (int64_t)bytes, first = r->first, last = r->last;
    bool none = length == 0 || (first < 0 && last < 0 && first > last);
    first = first < 0 ? first + length : first;
    last = last < 0 ? last + length : last;
    first = first < 0 ? 0 : first;
    last = last < 0 ? 0 : last >= length ? length - 1 : last;
    none = none || first > last;
    *from = none ? 0 : (uint64_t)first;
    return none ? 0 : (uint64_t)(last - first) + 1;
}

/** An answer whose bytes are sent from where they lie. */
static void send_body(cb_server *s, cbi_connection *c, const uint8_t *bytes, uint64_t count) {
    c->out_end += cbi_resp_put_number(out_of(c), '$', (int64_t)count);
    c->body = bytes;
    c->body_left = count;
    c->trailer = 2;
    c->state = CBI_REPLY;
    s->stats.copies++;
    cbi_connection_hurry(s, c, count);
}

void cbi_resp_got_block(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    if (r->generation != 0 && cbi_node_identity(c->own.block).generation != r->generation) {
        r->status = CB_ENOTFOUND; /* another block has the name */
        cbi_resp_missed_block(s, c);
        return;
    }
    uint64_t from = 0, count = c->own.bytes;
    if (r->asks == ASKS_RANGE) {
        count = range_of(r, c->own.bytes, &from);
    }
    bool here = c->own.data != NULL || count == 0 || r->asks == ASKS_LENGTH;
    if (here && (count <= COPY_MAX || r->asks == ASKS_LENGTH)) {
        if (r->asks == ASKS_LENGTH) {
            cbi_resp_say_number(c, (int64_t)count);
        } else {
            cbi_resp_say_bulk(c, count > 0 ? c->own.data + from : (const uint8_t *)"",
                              (size_t)count);
        }
        cb_block_release(&c->own);
        cbi_resp_go_on(c);
    } else if (here) {
        send_body(s, c, c->own.data + from, count);
    } else if (cbi_stream_take(s, c)) {
        c->skip = from;
        c->want = count;
        c->job = CBI_JOB_READ;
        s->stats.copies++;
        cbi_server_submit(s, c);
    }
}

void cbi_resp_fetched_block(cb_server *s, cbi_connection *c) {
    if (c->own.block != NULL) { /* it stays here */
        cbi_resp_got_block(s, c);
        return;
    }
    uint64_t from = 0, count = c->fill.bytes;
    if (c->resp->asks == ASKS_RANGE) {
        count = range_of(c->resp, c->fill.bytes, &from);
    }
    if (count <= COPY_MAX) {
        cbi_resp_say_bulk(c, count > 0 ? c->fill.first + from : (const uint8_t *)"", (size_t)count);
        cbi_fill_cancel(&c->fill);
        cbi_resp_go_on(c);
        return;
    }
    c->resp->lent = true;
    send_body(s, c, c->fill.first + from, count);
}

/** What is not here, or cannot be read here, may be elsewhere. Who names a generation asks this
 *  executor and no other. */
static bool fetches(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    bool bad = r->status == CB_ECORRUPT || r->status == CB_EIO;
    if (s->copies == NULL || r->fetched || r->generation != 0 || r->asks == ASKS_LENGTH ||
        (r->status != CB_ENOTFOUND && !bad)) {
        return false;
    }
    r->fetched = true;
    c->job = CBI_JOB_FETCH;
    c->state = CBI_BUSY;
    c->busy_ns = cbi_sys_clock_ns();
    if (cbi_copies_fetch(s->copies, c)) {
        return true;
    }
    c->job = CBI_JOB_NONE;
    c->state = CBI_HEAD;
    c->busy_ns = 0;
    return false;
}

void cbi_resp_missed_block(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    cb_block_reader_close(c->reader);
    c->reader = NULL;
    cb_block_release(&c->own);
    cbi_stream_give(s, c);
    if (fetches(s, c)) {
        return;
    }
    if (r->status != CB_ENOTFOUND) {
        cbi_resp_say_failed(c);
    } else if (r->asks == ASKS_ALL) {
        cbi_resp_say_nil(c);
    } else if (r->asks == ASKS_RANGE) {
        say_text(c, "");
    } else {
        cbi_resp_say_number(c, 0);
    }
    cbi_resp_go_on(c);
}

void cbi_resp_begin_read(cb_server *s, cbi_connection *c) {
    cb_error err;
    cb_status status = cbi_blocks_get_now(s->blocks, c->task, c->name, &c->own, &err);
    if (status == CB_OK) {
        cbi_resp_got_block(s, c);
    } else if (status == CB_EAGAIN) {
        c->job = CBI_JOB_GET;
        cbi_server_submit(s, c);
    } else {
        cbi_resp_note(c, status, &err);
        cbi_resp_missed_block(s, c);
    }
}

static void read_block(cb_server *s, cbi_connection *c, cbi_resp_word name, uint8_t asks,
                       uint64_t generation) {
    c->resp->asks = asks;
    c->resp->fetched = !can_be_name(name);
    c->resp->generation = generation;
    c->in_at += (uint32_t)c->resp->request.taken; /* what is needed of it is copied */
    if (!can_be_name(name)) {
        c->resp->status = CB_ENOTFOUND;
        cbi_resp_missed_block(s, c);
        return;
    }
    take_name(c, name);
    cbi_resp_begin_read(s, c);
}

void cbi_resp_read(cb_server *s, cbi_connection *c, cbi_resp_word name) {
    read_block(s, c, name, ASKS_ALL, 0);
}

static void do_get(cb_server *s, cbi_connection *c, args *a) {
    read_block(s, c, next(a), ASKS_ALL, 0);
}

static void do_length(cb_server *s, cbi_connection *c, args *a) {
    read_block(s, c, next(a), ASKS_LENGTH, 0);
}

static void finished(cbi_connection *c) {
    c->in_at += (uint32_t)c->resp->request.taken;
}

static void do_range(cb_server *s, cbi_connection *c, args *a) {
    cbi_resp_word name = next(a), first = next(a), last = next(a);
    if (!cbi_resp_integer(first, &c->resp->first) || !cbi_resp_integer(last, &c->resp->last)) {
        say_error(c, "value is not an integer or out of range");
        finished(c);
        return;
    }
    read_block(s, c, name, ASKS_RANGE, 0);
}

static void no_visit(void *ctx, const cb_block_status *status, cb_level level, uint32_t readers) {
    (void)ctx;
    (void)status;
    (void)level;
    (void)readers;
}

static bool exists(cb_server *s, cbi_connection *c, cbi_resp_word name) {
    if (!can_be_name(name)) {
        return false;
    }
    take_name(c, name);
    return cbi_blocks_look(s->blocks, c->name, no_visit, NULL, NULL) == CB_OK;
}

static void do_exists(cb_server *s, cbi_connection *c, args *a) {
    int64_t count = 0;
    for (uint32_t i = 1; i < a->request->count; i++) {
        count += exists(s, c, next(a));
    }
    cbi_resp_say_number(c, count);
    finished(c);
}

static void do_type(cb_server *s, cbi_connection *c, args *a) {
    cbi_resp_say(c, exists(s, c, next(a)) ? "string" : "none");
    finished(c);
}

/* ---- writing ---- */

/** The value is taken as bytes that are still to come, though they may be here already. `a` stands
 *  before it. */
static void take_value(cb_server *s, cbi_connection *c, args *a, bool good) {
    cbi_resp *r = c->resp;
    r->copies = 0;
    bool is_long = r->request.whole < r->request.count;
    cbi_resp_word value = {c->in + c->in_at + r->request.taken, 0};
    if (!is_long) {
        value = next(a);
    }
    c->left = c->head.bytes = is_long ? r->request.long_bytes : value.count;
    uint32_t before = (uint32_t)(value.bytes - (c->in + c->in_at));
    r->line_left = (uint32_t)r->request.taken - before - (uint32_t)value.count;
    c->in_at += before;
    cbi_connection_hurry(s, c, c->left); /* its own time, whatever came before it */
    if (good) {
        cbi_put_submit(s, c, CBI_JOB_BEGIN);
        return;
    }
    cb_error err;
    (void)cbi_fail(&err, CB_EINVAL,
                   "A block's name has 1 to %d bytes and no zero byte; options want an array%s.",
                   CB_BLOCK_NAME_MAX,
                   r->puts ? ", generation and checksum are numbers, the generation at most a "
                             "day ahead of the clock here, a level has a name, and only an "
                             "executor takes such blocks"
                           : "");
    cbi_resp_note(c, CB_EINVAL, &err);
    cbi_resp_done(s, c, CBI_JOB_BEGIN, true);
}

static void do_set(cb_server *s, cbi_connection *c, args *a) {
    cbi_resp *r = c->resp;
    cbi_resp_word name = next(a);
    bool good = can_be_name(name) && (!r->request.is_line || r->request.count == 3);
    if (good) {
        take_name(c, name);
    }
    r->puts = false;
    r->generation = 0;
    c->head = (cbi_head){.op = CBI_OP_PUT};
    take_value(s, c, a, good);
}

bool cbi_resp_take_level(cbi_resp_word w, cb_level *level) {
    uint64_t number = 0;
    if (cbi_resp_take_number(w, &number)) {
        *level = (cb_level)number;
        return number <= UINT16_MAX && cb_level_check(*level, NULL) == CB_OK;
    }
    char text[CB_LEVEL_TEXT_MAX] = {0};
    for (size_t i = 0; i < w.count && i < sizeof text - 1; i++) {
        uint8_t byte = w.bytes[i];
        text[i] = (char)(byte >= 'a' && byte <= 'z' ? byte - 'a' + 'A' : byte);
    }
    return w.count < sizeof text && cb_level_parse(text, level, NULL) == CB_OK;
}

bool cbi_resp_take_number(cbi_resp_word w, uint64_t *number) {
    uint64_t value = 0;
    for (size_t i = 0; i < w.count; i++) {
        uint64_t digit = (uint64_t)(w.bytes[i] - '0');
        if (w.bytes[i] < '0' || digit > 9 || value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *number = value;
    return w.count > 0;
}

static void do_carbide_get(cb_server *s, cbi_connection *c, args *a) {
    uint64_t generation = 0;
    cbi_resp_word name = next(a);
    if (!cbi_resp_take_number(next(a), &generation) || generation == 0) {
        say_error(c, "a generation is a number from 1 on");
        finished(c);
        return;
    }
    read_block(s, c, name, ASKS_ALL, generation);
}

/** A block from who has it: what it is stands before its bytes. */
static void do_carbide_put(cb_server *s, cbi_connection *c, args *a) {
    cbi_resp *r = c->resp;
    cb_level level = CB_LEVEL_NONE;
    cbi_resp_word name = next(a), generation = next(a), as = next(a), sum = next(a);
    c->head = (cbi_head){.op = CBI_OP_PUT, .flags = CBI_FLAG_SUM};
    bool good = cbi_server_is_executor(s) && can_be_name(name) && !r->request.is_line &&
                cbi_resp_take_level(as, &level) &&
                cbi_resp_take_number(generation, &r->generation) && r->generation != 0 &&
                cbi_server_believes(r->generation) && cbi_resp_take_number(sum, &c->head.value);
    if (good) {
        cbi_server_heard_of(s, r->generation);
        take_name(c, name);
        c->head.code = cbi_resp_plain(level);
    } else if (s->copies != NULL) {
        cbi_copies_arrival_end(s->copies, &r->arrival); /* it is nothing that was offered */
    }
    r->puts = true;
    take_value(s, c, a, good);
}

bool cbi_resp_set_options(cb_server *s, cbi_connection *c, const uint8_t *bytes,
                          const cbi_resp_request *rest) {
    args a = {bytes, rest, rest->start};
    cb_level level = s->level;
    c->resp->only_new = false;
    if (c->resp->puts) {
        return true; /* all was said before */
    }
    for (uint32_t i = 0; i < rest->count; i++) {
        cbi_resp_word w = next(&a);
        if (cbi_resp_is(w, "NX")) {
            c->resp->only_new = true;
        } else if (cbi_resp_is(w, "LEVEL") && i + 1 < rest->count) {
            i++;
            if (!cbi_resp_take_level(next(&a), &level)) {
                say_error(c, "this is no storage level; MEMORY_ONLY_SER, MEMORY_AND_DISK_SER and "
                             "DISK_ONLY are some");
                return false;
            }
        } else {
            say_error(c, "syntax error: SET NAME VALUE [NX] [LEVEL LEVEL]; blocks have no time to "
                         "live");
            return false;
        }
    }
    c->head.code = cbi_resp_plain(level);
    return true;
}

void cbi_resp_remove_next(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    while (r->left > 0) {
        cbi_resp_word name = cbi_resp_next(c->in + c->in_at, &r->request, &r->at);
        r->left--;
        if (can_be_name(name)) {
            take_name(c, name);
            c->job = CBI_JOB_REMOVE;
            cbi_server_submit(s, c);
            return;
        }
    }
    cbi_resp_say_number(c, r->removed);
    finished(c);
    cbi_resp_go_on(c);
}

static void do_remove(cb_server *s, cbi_connection *c, args *a) {
    cbi_resp *r = c->resp;
    r->at = a->at;
    r->left = r->request.count - 1;
    r->removed = 0;
    cbi_resp_remove_next(s, c);
}

/* ---- listing ---- */

typedef struct scan {
    cbi_resp_word pattern;
    uint64_t at;
    int64_t count;
    bool strings; /* TYPE string, or none said */
} scan;

/** false: an error was said. */
static bool scan_options(cbi_connection *c, scan *sc) {
    const cbi_resp_request *r = &c->resp->request;
    args a = {c->in + c->in_at, r, r->start};
    *sc = (scan){.pattern = {(const uint8_t *)"*", 1}, .count = SCAN_COUNT, .strings = true};
    (void)next(&a);
    if (!cbi_resp_take_number(next(&a), &sc->at)) {
        say_error(c, "invalid cursor");
        return false;
    }
    for (uint32_t i = 2; i < r->count; i += 2) {
        cbi_resp_word w = next(&a), value = {0};
        if (i + 1 < r->count) {
            value = next(&a);
        }
        if (cbi_resp_is(w, "MATCH") && value.bytes != NULL && value.count <= SCAN_PATTERN_MAX) {
            sc->pattern = value;
        } else if (cbi_resp_is(w, "TYPE") && value.bytes != NULL) {
            sc->strings = cbi_resp_is(value, "STRING");
        } else if (!cbi_resp_is(w, "COUNT") || value.bytes == NULL ||
                   !cbi_resp_integer(value, &sc->count) || sc->count < 1) {
            say_error(c, "syntax error: SCAN CURSOR [MATCH PATTERN] [COUNT N] [TYPE T]");
            return false;
        }
    }
    return true;
}

typedef struct names {
    uint8_t *at;
    size_t bytes;
} names;

static void write_name(void *ctx, const cb_block_status *status, cb_level level, uint32_t readers) {
    names *n = ctx;
    (void)level;
    (void)readers;
    if (cbi_cached_is(status->name)) {
        return;
    }
    n->bytes += cbi_resp_put_bulk(n->at + n->bytes, status->name, strlen(status->name));
}

/** Those that match stay; answers how many. Not done while the store's lock is held. */
static int64_t filter(names *n, const scan *sc) {
    const cbi_resp_request all = {0};
    int64_t count = 0;
    size_t kept = 0;
    for (size_t at = 0; at < n->bytes;) {
        size_t first = at;
        cbi_resp_word name = cbi_resp_next(n->at, &all, &at);
        if (sc->strings && cbi_resp_matches(sc->pattern, name)) {
            memmove(n->at + kept, n->at + first, at - first);
            kept += at - first;
            count++;
        }
    }
    n->bytes = kept;
    return count;
}

void cbi_resp_scan(cb_server *s, cbi_connection *c) {
    scan sc;
    char cursor[24];
    if (!cbi_stream_take(s, c)) {
        return; /* and begins anew when there is one */
    }
    if (!scan_options(c, &sc)) {
        cbi_stream_give(s, c);
        finished(c);
        cbi_resp_go_on(c);
        return;
    }
    names n = {.at = c->stream->buffer};
    size_t each = CBI_RESP_HEAD_MAX;
    /* A few at least: the names of one place in the index belong to one answer. */
    size_t most = (size_t)cbi_min(cbi_max((uint64_t)sc.count, SCAN_COUNT_MIN), SCAN_COUNT_MAX);
    cbi_blocks_walk(s->blocks, &sc.at, each, most * (each + CB_BLOCK_NAME_MAX), write_name, &n);
    int64_t count = filter(&n, &sc);
    (void)snprintf(cursor, sizeof cursor, "%llu", (unsigned long long)sc.at);
    cbi_resp_say_array(c, 2);
    say_text(c, cursor);
    cbi_resp_say_array(c, count);
    c->body = c->stream->buffer;
    c->body_left = n.bytes;
    finished(c);
    c->state = CBI_REPLY;
    cbi_connection_hurry(s, c, n.bytes);
}

static_assert(SCAN_COUNT_MAX * (CBI_RESP_HEAD_MAX + CB_BLOCK_NAME_MAX) <= CBI_STREAM_BYTES,
              "the names of one SCAN fit into a stream");

static void do_scan(cb_server *s, cbi_connection *c, args *a) {
    (void)a;
    cbi_resp_scan(s, c);
}

/* ---- who one is ---- */

/** Takes as long whatever the word is. */
static bool is_password(const cb_server *s, cbi_resp_word w) {
    size_t length = strlen(s->password);
    size_t different = length ^ w.count;
    for (size_t i = 0; i < w.count; i++) {
        different |= (size_t)(w.bytes[i] ^ (uint8_t)s->password[i % length]);
    }
    return different == 0;
}

/** Whether the words are right; says what is wrong. `user` may be none. */
static bool log_in(cb_server *s, cbi_connection *c, cbi_resp_word user, cbi_resp_word password) {
    if (s->password == NULL) {
        say_error(c, "no password is set here");
        return false;
    }
    bool right = is_password(s, password);
    if (right && (user.bytes == NULL || cbi_resp_is(user, "DEFAULT"))) {
        cbi_server_trust(s, c);
        return true;
    }
    cbi_resp_say_error(c, "WRONGPASS", "invalid username-password pair or user is disabled.");
    s->stats.connections_refused++;
    c->close_after = ++c->resp->wrong >= WRONG_MAX;
    return false;
}

static void do_auth(cb_server *s, cbi_connection *c, args *a) {
    cbi_resp_word user = {0}, password = next(a);
    if (a->request->count == 3) {
        user = password;
        password = next(a);
    }
    if (log_in(s, c, user, password)) {
        cbi_resp_say(c, "OK");
    }
    finished(c);
}

static void say_hello(const cb_server *s, cbi_connection *c) {
    cbi_resp_say_map(c, 7);
    say_text(c, "server");
    say_text(c, "carbide");
    say_text(c, "version");
    say_text(c, CARBIDE_VERSION);
    say_text(c, "proto");
    cbi_resp_say_number(c, c->resp->resp3 ? 3 : 2);
    say_text(c, "id");
    cbi_resp_say_number(c, cbi_resp_id(s, c));
    say_text(c, "mode");
    say_text(c, "standalone");
    say_text(c, "role");
    say_text(c, "master");
    say_text(c, "modules");
    cbi_resp_say_array(c, 0);
}

static void do_hello(cb_server *s, cbi_connection *c, args *a) {
    uint32_t left = a->request->count - 1;
    bool good = true, resp3 = c->resp->resp3;
    if (left > 0) {
        left--;
        cbi_resp_word version = next(a);
        resp3 = cbi_resp_is(version, "3");
        good = resp3 || cbi_resp_is(version, "2");
        if (!good) {
            cbi_resp_say_error(c, "NOPROTO",
                               "unsupported protocol version: 2 and 3 are spoken here");
        }
    }
    while (good && left > 0) {
        cbi_resp_word w = next(a);
        if (cbi_resp_is(w, "AUTH") && left >= 3) {
            cbi_resp_word user = next(a);
            good = log_in(s, c, user, next(a));
            left -= 3;
        } else if (cbi_resp_is(w, "SETNAME") && left >= 2) {
            (void)next(a);
            left -= 2;
        } else {
            say_error(c, "syntax error in HELLO");
            good = false;
        }
    }
    if (good && !c->trusted) {
        cbi_resp_say_error(c, "NOAUTH", "HELLO wants AUTH here");
    } else if (good) {
        c->resp->resp3 = resp3; /* of what is said here only nil and maps look different */
        say_hello(s, c);
    }
    finished(c);
}

/* ---- the rest ---- */

static void do_ping(cb_server *s, cbi_connection *c, args *a) {
    (void)s;
    if (a->request->count == 2) {
        cbi_resp_word w = next(a);
        cbi_resp_say_bulk(c, w.bytes, w.count);
    } else {
        cbi_resp_say(c, "PONG");
    }
    finished(c);
}

static void do_quit(cb_server *s, cbi_connection *c, args *a) {
    (void)s;
    (void)a;
    cbi_resp_say(c, "OK");
    c->close_after = true;
    finished(c);
}

static void do_select(cb_server *s, cbi_connection *c, args *a) {
    (void)s;
    if (cbi_resp_is(next(a), "0")) {
        cbi_resp_say(c, "OK");
    } else {
        say_error(c, "DB index is out of range: there is one, 0");
    }
    finished(c);
}

static void do_size(cb_server *s, cbi_connection *c, args *a) {
    cb_server_stats stats;
    (void)a;
    cbi_server_stats(s, &stats);
    cbi_resp_say_number(c, (int64_t)stats.blocks);
    finished(c);
}

/* ---- which there are ---- */

typedef struct command {
    const char *name;
    void (*run)(cb_server *server, cbi_connection *c, args *a);
    uint32_t least, most; /* arguments, its name apart */
    bool strangers;       /* before the password */
} command;

static const command commands[] = {
    {"CARBIDE.GET", do_carbide_get, 2, 2, false},
    {"CARBIDE.PUT", do_carbide_put, 5, 5, false},
    {"CARBIDE.COMPUTE", cbi_resp_compute, 2, 4, false},
    {"CARBIDE.UNCLAIM", cbi_resp_unclaim, 2, 2, false},
    {"CARBIDE.OFFER", cbi_resp_offer, 6, 6, false},
    {"CARBIDE.BURY", cbi_resp_bury, 3, 3, false},
    {"CARBIDE.REMOVE", cbi_resp_remove_all, 2, 2, false},
    {"CARBIDE.DECOMMISSION", cbi_resp_decommission, 0, 0, false},
    {"WAIT", cbi_resp_wait, 2, 2, false},
    {"GET", do_get, 1, 1, false},
    {"SET", do_set, 2, 8, false},
    {"GETRANGE", do_range, 3, 3, false},
    {"STRLEN", do_length, 1, 1, false},
    {"EXISTS", do_exists, 1, ANY, false},
    {"DEL", do_remove, 1, ANY, false},
    {"UNLINK", do_remove, 1, ANY, false},
    {"SCAN", do_scan, 1, 7, false},
    {"TYPE", do_type, 1, 1, false},
    {"DBSIZE", do_size, 0, 0, false},
    {"PING", do_ping, 0, 1, false},
    {"ECHO", do_ping, 1, 1, false},
    {"INFO", cbi_resp_info, 0, ANY, false},
    {"SELECT", do_select, 1, 1, false},
    {"CLIENT", cbi_resp_client, 1, 4, false},
    {"CONFIG", cbi_resp_config, 2, ANY, false},
    {"COMMAND", cbi_resp_command, 0, ANY, false},
    {"HELLO", do_hello, 0, 6, true},
    {"AUTH", do_auth, 1, 2, true},
    {"QUIT", do_quit, 0, 0, true},
};

uint32_t cbi_resp_command_count(void) {
    return sizeof commands / sizeof *commands;
}

static const command *find_command(cbi_resp_word name) {
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        if (cbi_resp_is(name, commands[i].name)) {
            return &commands[i];
        }
    }
    return NULL;
}

/** What a browser sends that was lured here. */
static bool is_http(cbi_resp_word name) {
    return cbi_resp_is(name, "POST") || cbi_resp_is(name, "HOST:");
}

static void refuse(cbi_connection *c, const char *kind, const char *sentence) {
    cbi_resp_say_error(c, kind, sentence);
    if (c->resp->request.whole < c->resp->request.count) {
        c->close_after = true; /* the rest of it is not worth reading */
        c->in_at = c->in_end = 0;
        c->state = CBI_REPLY;
    } else {
        finished(c);
    }
}

void cbi_resp_execute(cb_server *s, cbi_connection *c) {
    args a = {c->in + c->in_at, &c->resp->request, c->resp->request.start};
    cbi_resp_word name = next(&a);
    const command *found = find_command(name);
    uint32_t count = a.request->count - 1;
    if (is_http(name)) {
        c->ending = true;
        s->stats.connections_refused++;
    } else if (!c->trusted && (found == NULL || !found->strangers)) {
        refuse(c, "NOAUTH", "Authentication required.");
    } else if (found == NULL) {
        char text[CBI_RESP_TEXT_MAX];
        (void)snprintf(text, sizeof text, "unknown command '%.*s'",
                       name.count < 64 ? (int)name.count : 64, (const char *)name.bytes);
        refuse(c, "ERR", text);
    } else if (count < found->least || count > found->most) {
        refuse(c, "ERR", "wrong number of arguments for this command");
    } else {
        found->run(s, c, &a);
    }
}
