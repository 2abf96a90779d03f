/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REDIS_LINK_H
#define CBI_REDIS_LINK_H

#include "base/sys.h"

/*
 * One connection to a Redis server: a request, then its reply, each within a deadline. It takes
 * what is in this struct and, in hiredis, the bytes of one reply (CBI_REDIS_REPLY_BYTES_MAX) and
 * its buffer's slack. Whatever goes wrong closes it. One thread at a time.
 */

enum {
    CBI_REDIS_OUT_BYTES = 64 * 1024,
    CBI_REDIS_REPLY_BYTES_MAX = 64 * 1024,
    CBI_REDIS_VALUES_MAX = 2048,
    CBI_REDIS_TEXT_MAX = 255
};

typedef enum cbi_redis_kind {
    CBI_REDIS_NOTHING = 0, /* nil too */
    CBI_REDIS_TEXT,
    CBI_REDIS_INTEGER,
    CBI_REDIS_ARRAY,
    CBI_REDIS_ERROR
} cbi_redis_kind;

typedef struct cbi_redis_value {
    cbi_redis_kind kind;
    uint32_t count;                      /* of items, or bytes of text */
    const char *text;                    /* terminated */
    const struct cbi_redis_value *items; /* ARRAY */
    int64_t integer;
} cbi_redis_value;

/** Where a server is, and what it wants to hear. */
typedef struct cbi_redis_url {
    bool is_unix;
    cbi_sys_address address;
    char path[CBI_REDIS_TEXT_MAX + 1];
    char user[CBI_REDIS_TEXT_MAX + 1], password[CBI_REDIS_TEXT_MAX + 1]; /* "": none */
    unsigned database;
} cbi_redis_url;

/** "cb:changes" and which database's. */
enum { CBI_REDIS_CHANNEL_MAX = 31 };
void cbi_redis_channel(const cbi_redis_url *url, char channel[CBI_REDIS_CHANNEL_MAX + 1]);

/** CB_EINVAL; the message has nothing of a password. */
cb_status cbi_redis_url_parse(const char *text, cbi_redis_url *url, cb_error *err);

typedef struct cbi_redis_link {
    int fd; /* -1: closed */
    uint64_t timeout_ns;
    struct redisReader *reader;
    size_t out_bytes;
    size_t fed; /* bytes of this reply */
    size_t text_bytes;
    uint32_t value_count;
    bool full;   /* the reply did not fit */
    bool midway; /* of a message that is not asked for, some has come */
    cbi_redis_value root;
    cbi_redis_value values[CBI_REDIS_VALUES_MAX];
    char texts[CBI_REDIS_REPLY_BYTES_MAX];
    char in[8 * 1024];
    uint8_t out[CBI_REDIS_OUT_BYTES];
} cbi_redis_link;

/** Closed. */
void cbi_redis_link_init(cbi_redis_link *link, uint64_t timeout_ns);
/** Connects, says the password, selects the database. CB_EIO, CB_ENOMEM. */
cb_status cbi_redis_link_open(cbi_redis_link *link, const cbi_redis_url *url, cb_error *err);
void cbi_redis_link_close(cbi_redis_link *link);

/** A request of so many words, which follow. */
void cbi_redis_begin(cbi_redis_link *link, size_t words);
void cbi_redis_word(cbi_redis_link *link, const void *bytes, size_t count);
void cbi_redis_text(cbi_redis_link *link, const char *text);
void cbi_redis_number(cbi_redis_link *link, uint64_t number);
/** Bytes that words may still take; a word takes CBI_REDIS_WORD_BYTES more than it has. */
enum { CBI_REDIS_WORD_BYTES = 32 };
size_t cbi_redis_room(const cbi_redis_link *link);

/** Sends the request and waits for its reply, valid until the next request. CB_EIO: the link is
 *  closed. An error that the server answers is one too, but for CB_EBUDGET: it has no memory for
 *  that (maxmemory), and the link stays. */
cb_status cbi_redis_ask(cbi_redis_link *link, const cbi_redis_value **reply, cb_error *err);

/** Sends the request; what comes of it is what comes next. CB_EIO: the link is closed. */
cb_status cbi_redis_say(cbi_redis_link *link, cb_error *err);
/** What the server says next, by itself, valid until the next call. CB_EAGAIN: nothing within that
 *  time; CB_EIO: the link is closed. */
cb_status cbi_redis_hear(cbi_redis_link *link, uint64_t wait_ns, const cbi_redis_value **message,
                         cb_error *err);

#endif
