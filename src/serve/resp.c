/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/resp.h"

#include <string.h>

enum { DIGITS_MAX = 18 };

/* ---- finding ---- */

/** One look at a request. */
typedef struct scan {
    const uint8_t *bytes;
    size_t at, count;
    const char *why;
} scan;

static cbi_resp_found bad(scan *s, const char *why) {
    s->why = why;
    return CBI_RESP_BAD;
}

static cbi_resp_found take_line_end(scan *s) {
    size_t there = s->count - s->at;
    if ((there > 0 && s->bytes[s->at] != '\r') || (there > 1 && s->bytes[s->at + 1] != '\n')) {
        return bad(s, "a line ends with CR and LF");
    }
    if (there < 2) {
        return CBI_RESP_MORE;
    }
    s->at += 2;
    return CBI_RESP_WHOLE;
}

/** `kind`, digits, and the end of the line; a negative number is -1. */
static cbi_resp_found take_count(scan *s, uint8_t kind, int64_t *value) {
    if (s->at == s->count) {
        return CBI_RESP_MORE;
    }
    if (s->bytes[s->at] != kind) {
        return bad(s, kind == '$' ? "expected '$'" : "expected '*'");
    }
    size_t at = s->at + 1;
    bool negative = at < s->count && s->bytes[at] == '-';
    at += negative;
    size_t first = at;
    int64_t number = 0;
    for (; at < s->count && s->bytes[at] >= '0' && s->bytes[at] <= '9'; at++) {
        if (at - first == DIGITS_MAX) {
            return bad(s, "invalid length");
        }
        number = number * 10 + (s->bytes[at] - '0');
    }
    if (at == s->count) {
        return CBI_RESP_MORE;
    }
    if (at == first) {
        return bad(s, "invalid length");
    }
    s->at = at;
    *value = negative ? -1 : number;
    return take_line_end(s);
}

/** The next arguments; *whole counts them. */
static cbi_resp_found take_args(scan *s, uint32_t args, uint32_t *whole, uint64_t *long_bytes) {
    for (; *whole < args; ++*whole) {
        int64_t length = 0;
        cbi_resp_found found = take_count(s, '$', &length);
        if (found != CBI_RESP_WHOLE) {
            return found;
        }
        if (length < 0) {
            return bad(s, "invalid length");
        }
        if (length > CBI_RESP_ARG_MAX) {
            *long_bytes = (uint64_t)length;
            return CBI_RESP_LONG;
        }
        if (s->count - s->at < (size_t)length) {
            return CBI_RESP_MORE;
        }
        s->at += (size_t)length;
        found = take_line_end(s);
        if (found != CBI_RESP_WHOLE) {
            return found;
        }
    }
    return CBI_RESP_WHOLE;
}

static bool is_blank(uint8_t byte) {
    return byte == ' ' || byte == '\t' || byte == '\r';
}

/** Words of a line that somebody typed. Quotes are none of it. */
static cbi_resp_found find_line(scan *s, cbi_resp_request *r) {
    const uint8_t *end = memchr(s->bytes, '\n', s->count);
    if (end == NULL) {
        return CBI_RESP_MORE;
    }
    size_t length = (size_t)(end - s->bytes);
    *r = (cbi_resp_request){.is_line = true, .taken = length + 1};
    for (size_t i = 0, word = 0; i < length; i++) {
        uint8_t byte = s->bytes[i];
        word = is_blank(byte) ? 0 : word + 1;
        if (word > CBI_RESP_ARG_MAX) {
            return bad(s, "too long an argument; send an array");
        }
        if (byte == '"' || byte == '\'' || byte == '\0') {
            return bad(s, "no quotes and no zero bytes in a line; send an array");
        }
        r->count += !is_blank(byte) && (i == 0 || is_blank(s->bytes[i - 1]));
    }
    r->whole = r->count;
    return r->count <= CBI_RESP_ARGS_MAX ? CBI_RESP_WHOLE : bad(s, "too many arguments");
}

static cbi_resp_found find_array(scan *s, cbi_resp_request *r) {
    int64_t args = 0;
    cbi_resp_found found = take_count(s, '*', &args);
    if (found != CBI_RESP_WHOLE) {
        return found;
    }
    if (args > CBI_RESP_ARGS_MAX) {
        return bad(s, "too many arguments");
    }
    *r = (cbi_resp_request){.count = args > 0 ? (uint32_t)args : 0, .start = s->at};
    found = take_args(s, r->count, &r->whole, &r->long_bytes);
    r->taken = s->at;
    return found;
}

cbi_resp_found cbi_resp_find(const uint8_t *bytes, size_t count, cbi_resp_request *request,
                             const char **why) {
    scan s = {.bytes = bytes, .count = count};
    cbi_resp_request r = {0};
    if (count == 0) {
        return CBI_RESP_MORE;
    }
    cbi_resp_found found = bytes[0] == '*' ? find_array(&s, &r) : find_line(&s, &r);
    if (found == CBI_RESP_WHOLE || found == CBI_RESP_LONG) {
        *request = r;
    } else if (found == CBI_RESP_BAD) {
        *why = s.why;
    }
    return found;
}

cbi_resp_found cbi_resp_find_rest(const uint8_t *bytes, size_t count, uint32_t args,
                                  cbi_resp_request *request, const char **why) {
    scan s = {.bytes = bytes, .count = count};
    cbi_resp_request r = {.count = args, .start = 2};
    cbi_resp_found found = take_line_end(&s);
    if (found == CBI_RESP_WHOLE) {
        found = take_args(&s, args, &r.whole, &r.long_bytes);
    }
    if (found == CBI_RESP_LONG) {
        found = bad(&s, "an option is too long");
    }
    r.taken = s.at;
    if (found == CBI_RESP_WHOLE) {
        *request = r;
    } else if (found == CBI_RESP_BAD) {
        *why = s.why;
    }
    return found;
}

cbi_resp_word cbi_resp_next(const uint8_t *bytes, const cbi_resp_request *r, size_t *at) {
    size_t i = *at;
    if (r->is_line) {
        while (is_blank(bytes[i])) {
            i++;
        }
        size_t first = i;
        while (!is_blank(bytes[i]) && bytes[i] != '\n') {
            i++;
        }
        *at = i;
        return (cbi_resp_word){bytes + first, i - first};
    }
    size_t length = 0;
    for (i++; bytes[i] != '\r'; i++) {
        length = length * 10 + (size_t)(bytes[i] - '0');
    }
    cb_assert(length <= CBI_RESP_ARG_MAX);
    i += 2;
    *at = i + length + 2;
    return (cbi_resp_word){bytes + i, length};
}

/* ---- what an argument says ---- */

bool cbi_resp_is(cbi_resp_word arg, const char *word) {
    size_t i = 0;
    for (; i < arg.count && word[i] != '\0'; i++) {
        uint8_t byte = arg.bytes[i];
        byte = byte >= 'a' && byte <= 'z' ? (uint8_t)(byte - 'a' + 'A') : byte;
        if (byte != (uint8_t)word[i]) {
            return false;
        }
    }
    return i == arg.count && word[i] == '\0';
}

bool cbi_resp_integer(cbi_resp_word arg, int64_t *value) {
    bool negative = arg.count > 0 && arg.bytes[0] == '-';
    size_t first = negative;
    int64_t number = 0; /* below zero: there is one more of these than above */
    if (arg.count == first || (arg.bytes[first] == '0' && arg.count > 1)) {
        return false;
    }
    for (size_t i = first; i < arg.count; i++) {
        int digit = arg.bytes[i] - '0';
        if (digit < 0 || digit > 9 || number < (INT64_MIN + digit) / 10) {
            return false;
        }
        number = number * 10 - digit;
    }
    if (!negative && number == INT64_MIN) {
        return false;
    }
    *value = negative ? number : -number;
    return true;
}

/** "[...]" at p[0]; *length: of it. What is not closed ends with the pattern, as in Redis. */
static bool in_class(const uint8_t *p, size_t count, uint8_t byte, size_t *length) {
    bool inverted = count > 1 && p[1] == '^', found = false;
    size_t i = inverted ? 2 : 1;
    for (; i < count && p[i] != ']'; i++) {
        if (p[i] == '\\' && i + 1 < count) {
            i++;
            found = found || p[i] == byte;
        } else if (i + 2 < count && p[i + 1] == '-') {
            uint8_t low = p[i] < p[i + 2] ? p[i] : p[i + 2];
            uint8_t high = p[i] < p[i + 2] ? p[i + 2] : p[i];
            found = found || (byte >= low && byte <= high);
            i += 2;
        } else {
            found = found || p[i] == byte;
        }
    }
    *length = i < count ? i + 1 : count;
    return found != inverted;
}

/** How much of the pattern stands for that byte; 0: it does not. */
static size_t one(const uint8_t *p, size_t count, uint8_t byte) {
    size_t length = 0;
    switch (p[0]) {
        case '?': return 1;
        case '[': return in_class(p, count, byte, &length) ? length : 0;
        case '\\':
            if (count > 1) {
                return p[1] == byte ? 2 : 0;
            }
            return byte == '\\';
        default: return p[0] == byte;
    }
}

bool cbi_resp_matches(cbi_resp_word pattern, cbi_resp_word text) {
    size_t p = 0, t = 0, star = SIZE_MAX, mark = 0;
    while (t < text.count) {
        if (p < pattern.count && pattern.bytes[p] == '*') {
            star = ++p; /* what came before it is settled: only the last star is tried again */
            mark = t;
            continue;
        }
        size_t length =
            p < pattern.count ? one(pattern.bytes + p, pattern.count - p, text.bytes[t]) : 0;
        if (length > 0) {
            p += length;
            t++;
        } else if (star != SIZE_MAX) {
            p = star;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.count && pattern.bytes[p] == '*') {
        p++;
    }
    return p == pattern.count;
}

/* ---- writing ---- */

size_t cbi_resp_put_number(uint8_t *to, char kind, int64_t value) {
    uint8_t digits[20];
    size_t count = 0, at = 0;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[count++] = (uint8_t)('0' + left % 10);
        left /= 10;
    } while (left > 0);
    to[at++] = (uint8_t)kind;
    if (value < 0) {
        to[at++] = '-';
    }
    while (count > 0) {
        to[at++] = digits[--count];
    }
    to[at++] = '\r';
    to[at++] = '\n';
    return at;
}

size_t cbi_resp_put_nil(uint8_t *to, bool resp3) {
    static const uint8_t nil[] = {'$', '-', '1', '\r', '\n'}, null[] = {'_', '\r', '\n'};
    memcpy(to, resp3 ? null : nil, resp3 ? sizeof null : sizeof nil);
    return resp3 ? sizeof null : sizeof nil;
}

size_t cbi_resp_put_bulk(uint8_t *to, const void *bytes, size_t count) {
    size_t at = cbi_resp_put_number(to, '$', (int64_t)count);
    memcpy(to + at, bytes, count);
    at += count;
    to[at++] = '\r';
    to[at++] = '\n';
    return at;
}

size_t cbi_resp_put_line(uint8_t *to, char kind, const char *text, size_t count) {
    size_t at = 0;
    to[at++] = (uint8_t)kind;
    for (size_t i = 0; i < count; i++) {
        to[at++] = (uint8_t)(text[i] == '\r' || text[i] == '\n' ? ' ' : text[i]);
    }
    to[at++] = '\r';
    to[at++] = '\n';
    return at;
}
