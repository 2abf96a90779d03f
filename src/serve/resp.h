/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_RESP_H
#define CBI_RESP_H

#include "base/base.h"

/*
 * RESP2, the protocol of Redis, as a server sees it: requests found in bytes that may be anybody's,
 * replies written to room that is there. Pure functions, no state and no allocation: an incomplete
 * request is looked at again, from its beginning, when more of it has come. Nothing that a request
 * announces takes memory: arguments stay where they arrived, and one that is too long for that
 * (a SET's value) is only measured; its bytes go where the caller wants them.
 */

enum {
    CBI_RESP_ARGS_MAX = 1024,
    CBI_RESP_ARG_MAX = 1024, /* bytes of an argument that is held whole */
    CBI_RESP_HEAD_MAX =
        32 /* of ":-9223372036854775808\r\n" and its like; with a bulk, its end too */
};

/** "*3\r\n$3\r\nSET\r\n..." or, as one types it, "SET a b\r\n". */
typedef struct cbi_resp_request {
    uint32_t count; /* arguments, the command among them; 0: nothing was asked */
    uint32_t whole; /* so many of them are here, from the first on */
    bool is_line;
    size_t start;        /* where they begin */
    size_t taken;        /* all its bytes; or those before the first one of the long argument */
    uint64_t long_bytes; /* CBI_RESP_LONG: of argument number `whole` */
} cbi_resp_request;

typedef enum cbi_resp_found {
    CBI_RESP_MORE,  /* it is not all there */
    CBI_RESP_WHOLE, /* it is */
    CBI_RESP_LONG,  /* up to an argument that is not held whole */
    CBI_RESP_BAD    /* it cannot be one, and there is no telling where the next one begins */
} cbi_resp_found;

/** What the bytes begin with. *request is set for WHOLE and LONG, *why (a constant) for BAD. */
cbi_resp_found cbi_resp_find(const uint8_t *bytes, size_t count, cbi_resp_request *request,
                             const char **why);
/** What comes after a long argument: the end of its line and `args` more of at most
 *  CBI_RESP_ARG_MAX bytes. Not LONG. */
cbi_resp_found cbi_resp_find_rest(const uint8_t *bytes, size_t count, uint32_t args,
                                  cbi_resp_request *request, const char **why);

/** A piece of what arrived; not terminated. */
typedef struct cbi_resp_word {
    const uint8_t *bytes;
    size_t count;
} cbi_resp_word;

/** The argument at *at, which is request->start for the first, and moves on; no more often than
 *  request->whole. The bytes are those in which the request was found. */
cbi_resp_word cbi_resp_next(const uint8_t *bytes, const cbi_resp_request *request, size_t *at);

/** Whether it is that word, in capitals or not; `word` is in capitals. */
bool cbi_resp_is(cbi_resp_word arg, const char *word);
/** A whole number in decimal, as Redis takes them: no sign but '-', no zeros before it. */
bool cbi_resp_integer(cbi_resp_word arg, int64_t *value);
/** Whether the text fits a pattern of '*', '?', "[a-z]", "[^a-z]" and '\'; at most `pattern` times
 *  `text` steps. */
bool cbi_resp_matches(cbi_resp_word pattern, cbi_resp_word text);

/* ---- replies: each answers the bytes written; room is the caller's business ---- */

/** ':' and a number, '$', '*' or '%' and a count; at most CBI_RESP_HEAD_MAX. */
size_t cbi_resp_put_number(uint8_t *to, char kind, int64_t value);
/** "$-1\r\n", of RESP3 "_\r\n" */
size_t cbi_resp_put_nil(uint8_t *to, bool resp3);
/** CBI_RESP_HEAD_MAX and count at most. */
size_t cbi_resp_put_bulk(uint8_t *to, const void *bytes, size_t count);
/** '+' and a word, or '-' and a sentence, whose line ends become blanks; count and 3 bytes. */
size_t cbi_resp_put_line(uint8_t *to, char kind, const char *text, size_t count);

#endif
