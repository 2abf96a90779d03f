/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hiredis reads replies, and no more of it is used: bytes come and go through base/sys.h, where
 * they have deadlines and can be made to fail, and values go to room that is there. So a server
 * that announces two billion items, or a string without end, meets a limit and not our memory:
 * hiredis holds the bytes of one reply at most, and makes no object of its own.
 */
#include "net/redis_link.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#include "net/redis_scripts.h"

/* ---- what hiredis builds replies with ---- */

static cbi_redis_link *link_of(const redisReadTask *task) {
    return task->privdata;
}

/** The place of the value that is read now. */
static cbi_redis_value *place_of(const redisReadTask *task) {
    if (task->parent == NULL) {
        return &link_of(task)->root;
    }
    const cbi_redis_value *array = task->parent->obj;
    return (cbi_redis_value *)(uintptr_t)&array->items[task->idx];
}

static void *put_text(const redisReadTask *task, char *text, size_t bytes) {
    cbi_redis_link *l = link_of(task);
    if (bytes >= sizeof l->texts - l->text_bytes) {
        l->full = true;
        return NULL;
    }
    char *to = l->texts + l->text_bytes;
    memcpy(to, text, bytes);
    to[bytes] = '\0';
    l->text_bytes += bytes + 1;
    cbi_redis_value *v = place_of(task);
    *v = (cbi_redis_value){.kind =
                               task->type == REDIS_REPLY_ERROR ? CBI_REDIS_ERROR : CBI_REDIS_TEXT,
                           .count = (uint32_t)bytes,
                           .text = to};
    return v;
}

#if defined(HIREDIS_MAJOR) && HIREDIS_MAJOR >= 1
static void *put_array(const redisReadTask *task, size_t count) {
#else
static void *put_array(const redisReadTask *task, int count) {
#endif
    cbi_redis_link *l = link_of(task);
    if ((uint64_t)count > CBI_REDIS_VALUES_MAX - l->value_count) {
        l->full = true;
        return NULL;
    }
    cbi_redis_value *items = &l->values[l->value_count];
    memset(items, 0, (size_t)count * sizeof *items);
    l->value_count += (uint32_t)count;
    cbi_redis_value *v = place_of(task);
    *v = (cbi_redis_value){.kind = CBI_REDIS_ARRAY, .count = (uint32_t)count, .items = items};
    return v;
}

static void *put_integer(const redisReadTask *task, long long integer) {
    cbi_redis_value *v = place_of(task);
    *v = (cbi_redis_value){.kind = CBI_REDIS_INTEGER, .integer = integer};
    return v;
}

static void *put_nil(const redisReadTask *task) {
    cbi_redis_value *v = place_of(task);
    *v = (cbi_redis_value){.kind = CBI_REDIS_NOTHING};
    return v;
}

static void put_away(void *value) {
    (void)value; /* it lies in the link */
}

/* Kinds of RESP3 have no function: who sends them was not asked for them, and says nothing. */
static redisReplyObjectFunctions builders = {.createString = put_text,
                                             .createArray = put_array,
                                             .createInteger = put_integer,
                                             .createNil = put_nil,
                                             .freeObject = put_away};

/* ---- where it is ---- */

static cb_status bad_url(cb_error *err) {
    return cbi_fail(
        err, CB_EINVAL,
        "This is no address of a directory. It wants redis://[[USER]:PASSWORD@]HOST:PORT"
        "[/DATABASE] with HOST in digits or localhost, or "
        "unix://[[USER]:PASSWORD@]/PATH.");
}

static int digit_of(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/** A piece of a URL without its escapes; false: too long, or no escape. */
static bool unescape(const char *from, size_t count, char to[CBI_REDIS_TEXT_MAX + 1]) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        char c = from[i];
        if (c == '%') {
            int high = i + 2 < count ? digit_of(from[i + 1]) : -1;
            int low = high >= 0 ? digit_of(from[i + 2]) : -1;
            if (low < 0) {
                return false;
            }
            c = (char)(high * 16 + low);
            i += 2;
        }
        if (bytes == CBI_REDIS_TEXT_MAX || c == '\0') {
            return false;
        }
        to[bytes++] = c;
    }
    to[bytes] = '\0';
    return true;
}

/** "[[USER]:PASSWORD@]"; answers what follows, NULL when it cannot be. */
static const char *parse_user(const char *text, cbi_redis_url *url) {
    const char *at = strrchr(text, '@');
    if (at == NULL) {
        return text;
    }
    const char *colon = memchr(text, ':', (size_t)(at - text));
    if (colon == NULL || !unescape(text, (size_t)(colon - text), url->user) ||
        !unescape(colon + 1, (size_t)(at - colon) - 1, url->password) || url->password[0] == '\0') {
        return NULL;
    }
    return at + 1;
}

static bool parse_database(const char *text, unsigned *database) {
    enum { MOST = 1000000 };
    unsigned number = 0;
    for (; *text >= '0' && *text <= '9' && number < MOST; text++) {
        number = number * 10 + (unsigned)(*text - '0');
    }
    *database = number;
    return *text == '\0' && number < MOST;
}

cb_status cbi_redis_url_parse(const char *text, cbi_redis_url *url, cb_error *err) {
    static const char tcp[] = "redis://", local[] = "unix://";
    char host[CBI_SYS_ADDRESS_MAX + 16];
    cbi_redis_url u = {.is_unix = strncmp(text, local, sizeof local - 1) == 0};
    if (!u.is_unix && strncmp(text, tcp, sizeof tcp - 1) != 0) {
        return bad_url(err);
    }
    const char *rest = parse_user(text + (u.is_unix ? sizeof local : sizeof tcp) - 1, &u);
    if (rest == NULL) {
        return bad_url(err);
    }
    if (u.is_unix) {
        size_t bytes = strlen(rest);
        if (rest[0] != '/' || bytes > CBI_REDIS_TEXT_MAX) {
            return bad_url(err);
        }
        memcpy(u.path, rest, bytes + 1);
        *url = u;
        return CB_OK;
    }
    size_t length = strcspn(rest, "/");
    if (length >= sizeof host ||
        (rest[length] == '/' && !parse_database(rest + length + 1, &u.database))) {
        return bad_url(err);
    }
    memcpy(host, rest, length);
    host[length] = '\0';
    if (cbi_sys_address_parse(host, &u.address) < 0 || u.address.port == 0) {
        return bad_url(err);
    }
    *url = u;
    return CB_OK;
}

void cbi_redis_channel(const cbi_redis_url *url, char channel[CBI_REDIS_CHANNEL_MAX + 1]) {
    const size_t room = CBI_REDIS_CHANNEL_MAX + 1;
    if (url->database == 0) {
        (void)snprintf(channel, room, "%s", CBI_REDIS_CHANGES);
    } else {
        (void)snprintf(channel, room, "%s:%u", CBI_REDIS_CHANGES, url->database);
    }
}

/* ---- bytes ---- */

static int milliseconds_to(uint64_t deadline_ns) {
    uint64_t now = cbi_sys_clock_ns();
    return now < deadline_ns ? (int)((deadline_ns - now) / 1000000) + 1 : 0;
}

static cb_status wait_for(const cbi_redis_link *l, bool writable, uint64_t deadline_ns,
                          cb_error *err) {
    int left = milliseconds_to(deadline_ns);
    int ready = left > 0 ? cbi_sys_wait_for(l->fd, writable, left) : 0;
    if (ready < 0) {
        return cbi_fail_sys(err, CB_EIO, ready, "the directory's server cannot be waited for");
    }
    return ready > 0 || milliseconds_to(deadline_ns) > 0
               ? CB_OK
               : cbi_fail(err, CB_EIO, "The directory's server does not answer in time.");
}

static cb_status send_all(cbi_redis_link *l, uint64_t deadline_ns, cb_error *err) {
    size_t at = 0;
    while (at < l->out_bytes) {
        const struct iovec rest = {.iov_base = l->out + at, .iov_len = l->out_bytes - at};
        ssize_t sent = cbi_sys_send(l->fd, &rest, 1, -1);
        if (sent == -EAGAIN) {
            CB_TRY(wait_for(l, true, deadline_ns, err));
        } else if (sent < 0) {
            return cbi_fail_sys(err, CB_EIO, (int)sent, "the directory's server hears nothing");
        } else {
            at += (size_t)sent;
        }
    }
    return CB_OK;
}

/** The next bytes of a reply go to hiredis. */
static cb_status feed(cbi_redis_link *l, uint64_t deadline_ns, cb_error *err) {
    ssize_t got = cbi_sys_receive(l->fd, l->in, sizeof l->in);
    if (got == -EAGAIN) {
        return wait_for(l, false, deadline_ns, err);
    }
    if (got <= 0) {
        return got < 0 ? cbi_fail_sys(err, CB_EIO, (int)got, "the directory's server says nothing")
                       : cbi_fail(err, CB_EIO, "The directory's server has ended the connection.");
    }
    l->fed += (size_t)got;
    if (l->fed > CBI_REDIS_REPLY_BYTES_MAX) {
        return cbi_fail(err, CB_EIO, "The directory's server answers more than was asked for.");
    }
    if (redisReaderFeed(l->reader, l->in, (size_t)got) != REDIS_OK) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a reply.");
    }
    return CB_OK;
}

static void begin_reply(cbi_redis_link *l) {
    l->root = (cbi_redis_value){.kind = CBI_REDIS_NOTHING};
    l->value_count = 0;
    l->text_bytes = l->fed = 0;
    l->full = false;
}

/** *reply: NULL as long as it is not all there. */
static cb_status take_reply(cbi_redis_link *l, void **reply, cb_error *err) {
    *reply = NULL;
    return redisReaderGetReply(l->reader, reply) == REDIS_OK
               ? CB_OK
               : cbi_fail(err, CB_EIO, "The directory's server does not speak RESP2: %.100s",
                          l->full ? "too large a reply" : l->reader->errstr);
}

static cb_status receive(cbi_redis_link *l, uint64_t deadline_ns, cb_error *err) {
    begin_reply(l);
    for (;;) {
        void *reply = NULL;
        CB_TRY(take_reply(l, &reply, err));
        if (reply != NULL && l->reader->len > l->reader->pos) {
            return cbi_fail(err, CB_EIO, "The directory's server answers what was not asked.");
        }
        if (reply != NULL) {
            return CB_OK;
        }
        CB_TRY(feed(l, deadline_ns, err));
    }
}

/* ---- requests ---- */

size_t cbi_redis_room(const cbi_redis_link *l) {
    return sizeof l->out - l->out_bytes;
}

static void put_head(cbi_redis_link *l, char kind, size_t count) {
    cb_assert(cbi_redis_room(l) >= CBI_REDIS_WORD_BYTES);
    int bytes =
        snprintf((char *)l->out + l->out_bytes, CBI_REDIS_WORD_BYTES, "%c%zu\r\n", kind, count);
    l->out_bytes += (size_t)bytes;
}

void cbi_redis_begin(cbi_redis_link *l, size_t words) {
    l->out_bytes = 0;
    put_head(l, '*', words);
}

void cbi_redis_word(cbi_redis_link *l, const void *bytes, size_t count) {
    put_head(l, '$', count);
    cb_assert(cbi_redis_room(l) >= count + 2);
    memcpy(l->out + l->out_bytes, bytes, count);
    l->out_bytes += count;
    memcpy(l->out + l->out_bytes, "\r\n", 2);
    l->out_bytes += 2;
}

void cbi_redis_text(cbi_redis_link *l, const char *text) {
    cbi_redis_word(l, text, strlen(text));
}

void cbi_redis_number(cbi_redis_link *l, uint64_t number) {
    char text[24];
    int bytes = snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    cbi_redis_word(l, text, (size_t)bytes);
}

cb_status cbi_redis_ask(cbi_redis_link *l, const cbi_redis_value **reply, cb_error *err) {
    uint64_t deadline_ns = cbi_sys_clock_ns() + l->timeout_ns;
    cb_status status = send_all(l, deadline_ns, err);
    if (status == CB_OK) {
        status = receive(l, deadline_ns, err);
    }
    if (status == CB_OK && l->root.kind == CBI_REDIS_ERROR) {
        /* what Redis says to strangers who come with much before it says NOAUTH */
        static const char stranger[] = "ERR Protocol error: unauthenticated";
        bool unknown = strncmp(l->root.text, stranger, sizeof stranger - 1) == 0;
        /* of a script in the midst of a line */
        bool no_memory = strstr(l->root.text, "OOM command not allowed") != NULL;
        status = cbi_fail(err, no_memory ? CB_EBUDGET : CB_EIO, "The directory's server %s: %.200s",
                          unknown ? "wants a password" : "answers", l->root.text);
    }
    if (status != CB_OK && status != CB_EBUDGET) {
        cbi_redis_link_close(l);
    }
    if (status == CB_OK && reply != NULL) {
        *reply = &l->root;
    }
    return status;
}

/* ---- what is said without being asked for ---- */

cb_status cbi_redis_say(cbi_redis_link *l, cb_error *err) {
    cb_status status = send_all(l, cbi_sys_clock_ns() + l->timeout_ns, err);
    if (status != CB_OK) {
        cbi_redis_link_close(l);
    }
    return status;
}

/** Several messages may have come at once: they wait in the reader for their turn. */
static cb_status hear(cbi_redis_link *l, uint64_t deadline_ns, void **message, cb_error *err) {
    if (!l->midway) {
        begin_reply(l);
        l->midway = true;
    }
    for (;;) {
        CB_TRY(take_reply(l, message, err));
        if (*message != NULL) {
            l->midway = false;
            return CB_OK;
        }
        int left = milliseconds_to(deadline_ns);
        int ready = left > 0 ? cbi_sys_wait_for(l->fd, false, left) : 0;
        if (ready == 0) {
            return cbi_fail(err, CB_EAGAIN, "The directory's server says nothing now.");
        }
        CB_TRY(ready < 0
                   ? cbi_fail_sys(err, CB_EIO, ready, "the directory's server cannot be waited for")
                   : feed(l, deadline_ns, err));
    }
}

cb_status cbi_redis_hear(cbi_redis_link *l, uint64_t wait_ns, const cbi_redis_value **message,
                         cb_error *err) {
    void *whole = NULL;
    cb_status status = hear(l, cbi_sys_clock_ns() + wait_ns, &whole, err);
    if (status == CB_OK) {
        *message = &l->root;
    } else if (status != CB_EAGAIN) {
        cbi_redis_link_close(l);
    }
    return status;
}

/* ---- beginning and end ---- */

void cbi_redis_link_init(cbi_redis_link *l, uint64_t timeout_ns) {
    l->fd = -1;
    l->timeout_ns = timeout_ns;
    l->reader = NULL;
}

void cbi_redis_link_close(cbi_redis_link *l) {
    if (l->fd >= 0) {
        (void)cbi_sys_close(l->fd);
        l->fd = -1;
    }
    if (l->reader != NULL) {
        redisReaderFree(l->reader);
        l->reader = NULL;
    }
    l->midway = false;
}

static cb_status greet(cbi_redis_link *l, const cbi_redis_url *url, cb_error *err) {
    if (url->password[0] != '\0') {
        cbi_redis_begin(l, url->user[0] != '\0' ? 3 : 2);
        cbi_redis_text(l, "AUTH");
        if (url->user[0] != '\0') {
            cbi_redis_text(l, url->user);
        }
        cbi_redis_text(l, url->password);
        cb_status status = cbi_redis_ask(l, NULL, err);
        if (status != CB_OK) {
            return strstr(err != NULL ? err->message : "", url->password) == NULL
                       ? status /* a server that has no AUTH may say what came with it */
                       : cbi_fail(err, status, "The directory's server does not take a password.");
        }
    }
    if (url->database > 0) {
        cbi_redis_begin(l, 2);
        cbi_redis_text(l, "SELECT");
        cbi_redis_number(l, url->database);
        CB_TRY(cbi_redis_ask(l, NULL, err));
    }
    return CB_OK;
}

cb_status cbi_redis_link_open(cbi_redis_link *l, const cbi_redis_url *url, cb_error *err) {
    cbi_redis_link_close(l);
    l->fd = url->is_unix ? cbi_sys_connect(url->path)
                         : cbi_sys_connect_tcp(&url->address, (int)(l->timeout_ns / 1000000) + 1);
    if (l->fd < 0) {
        int why = l->fd;
        l->fd = -1;
        return cbi_fail_sys(err, CB_EIO, why, "the directory's server cannot be reached");
    }
    l->reader = redisReaderCreateWithFunctions(&builders);
    if (l->reader == NULL) {
        cbi_redis_link_close(l);
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a connection.");
    }
    l->reader->privdata = l;
    return greet(l, url, err);
}
