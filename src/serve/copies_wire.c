/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to another executor, in RESP as anybody speaks it to a server: small requests that
 * are made up in one piece, replies of one line, and bytes as they are. A peer that moves nothing
 * for a few seconds has failed. So has one that moves a little all the time, so that it would never
 * come to an end: whatever is asked has a deadline.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "serve/copies_private.h"

enum {
    CONNECT_MS = 2000,
    STILL_MS = CBI_WIRE_LINE_MS,
    LOOK_MS = 200,
    SILENT_MS = 1000,
    TIMES_MAX = 3
};

static const uint64_t ms = 1000000;

/* ---- bytes ---- */

/** Waits until the socket is ready; false: it has been too long, or we are to end. */
static bool wait_for(const cbi_wire *w, bool writable) {
    for (;;) {
        uint64_t now = cbi_sys_clock_ns();
        if (atomic_load(&w->copies->quit) || now > w->moved_ns + STILL_MS * ms ||
            now > w->deadline_ns) {
            return false;
        }
        int ready = cbi_sys_wait_for(w->fd, writable, LOOK_MS);
        if (ready != 0) {
            return ready > 0;
        }
    }
}

void cbi_wire_limit(cbi_wire *w, uint32_t answer_ms, uint64_t bytes) {
    w->deadline_ns = cbi_sys_clock_ns() + answer_ms * ms + bytes / CBI_MIB * 1000 * ms;
}

bool cbi_wire_send(cbi_wire *w, const void *bytes, size_t count) {
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

bool cbi_wire_receive(cbi_wire *w, void *to, size_t most, size_t *got) {
    w->moved_ns = cbi_sys_clock_ns();
    ssize_t count = cbi_sys_receive(w->fd, to, most);
    while (count == -EAGAIN && wait_for(w, false)) {
        count = cbi_sys_receive(w->fd, to, most);
    }
    *got = count > 0 ? (size_t)count : 0;
    return count > 0;
}

bool cbi_wire_line(cbi_wire *w, char line[CBI_COPIES_LINE]) {
    size_t length = 0, got = 0;
    while (length < CBI_COPIES_LINE - 1 &&
           cbi_wire_receive(w, line + length, CBI_COPIES_LINE - 1 - length, &got)) {
        length += got;
        if (length >= 2 && line[length - 2] == '\r' && line[length - 1] == '\n') {
            line[length - 2] = '\0';
            /* said before it heard the request, and it has ended: that is no answer */
            return strcmp(line, CBI_RESP_TOO_MANY) != 0;
        }
    }
    return false; /* nobody of ours says more */
}

void cbi_wire_begin(cbi_wire_request *r, unsigned words) {
    r->count = (size_t)snprintf(r->bytes, sizeof r->bytes, "*%u\r\n", words);
}

void cbi_wire_word(cbi_wire_request *r, const char *word) {
    size_t length = strlen(word);
    r->count +=
        (size_t)snprintf(r->bytes + r->count, sizeof r->bytes - r->count, "$%zu\r\n", length);
    cb_assert(r->count + length + 2 < sizeof r->bytes);
    memcpy(r->bytes + r->count, word, length);
    memcpy(r->bytes + r->count + length, "\r\n", 2);
    r->count += length + 2;
}

void cbi_wire_number(cbi_wire_request *r, uint64_t number) {
    char text[24];
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    cbi_wire_word(r, text);
}

bool cbi_wire_ask(cbi_wire *w, const cbi_wire_request *r, char line[CBI_COPIES_LINE]) {
    return cbi_wire_send(w, r->bytes, r->count) && cbi_wire_line(w, line);
}

/* ---- connections ---- */

static bool log_in(cbi_wire *w, const char *password) {
    enum { LONGEST = CBI_RESP_ARG_MAX };
    char line[CBI_COPIES_LINE], head[64];
    size_t length = strlen(password);
    int bytes = snprintf(head, sizeof head, "*2\r\n$4\r\nAUTH\r\n$%zu\r\n", length);
    return length <= LONGEST && cbi_wire_send(w, head, (size_t)bytes) &&
           cbi_wire_send(w, password, length) && cbi_wire_send(w, "\r\n", 2) &&
           cbi_wire_line(w, line) && line[0] == '+';
}

/** [mutex] NULL: nothing is held against it. */
static cbi_copy_silence *silence_of(cbi_copies *cp, const char *address) {
    for (cbi_copy_silence *s = cp->silences; s < cp->silences + CBI_COPY_SILENCES; s++) {
        if (s->times > 0 && strcmp(s->address, address) == 0) {
            return s;
        }
    }
    return NULL;
}

static bool is_left_alone(cbi_copies *cp, const char *address) {
    cbi_mutex_lock(&cp->mutex);
    const cbi_copy_silence *s = silence_of(cp, address);
    bool alone = s != NULL && cbi_sys_clock_ns() < s->until_ns;
    cbi_mutex_unlock(&cp->mutex);
    return alone;
}

void cbi_wire_came_to(cbi_copies *cp, const char *address, uint64_t begun_ns, bool good) {
    uint64_t now = cbi_sys_clock_ns();
    if (!good && now - begun_ns < SILENT_MS * ms) {
        return; /* it was refused, or had been left alone */
    }
    cbi_mutex_lock(&cp->mutex);
    cbi_copy_silence *s = silence_of(cp, address);
    if (good && s != NULL) {
        s->times = 0;
    } else if (!good) {
        for (cbi_copy_silence *x = cp->silences; s == NULL && x < cp->silences + CBI_COPY_SILENCES;
             x++) {
            s = x->times == 0 ? x : NULL;
        }
        s = s != NULL ? s : &cp->silences[now % CBI_COPY_SILENCES];
        bool more = s->times > 0 && strcmp(s->address, address) == 0;
        s->times = !more ? 1 : s->times < TIMES_MAX ? s->times + 1 : TIMES_MAX;
        s->until_ns = now + (SILENT_MS * ms << (s->times - 1));
        memcpy(s->address, address, strlen(address) + 1);
    }
    cbi_mutex_unlock(&cp->mutex);
}

bool cbi_wire_open(cbi_copies *cp, const char *address, cbi_wire *w) {
    cbi_sys_address a;
    *w = (cbi_wire){.copies = cp, .fd = -1, .moved_ns = cbi_sys_clock_ns()};
    if (cbi_sys_address_parse(address, &a) < 0 || is_left_alone(cp, address)) {
        return false;
    }
    w->fd = cbi_sys_connect_tcp(&a, CONNECT_MS);
    if (w->fd < 0) {
        return false;
    }
    cbi_wire_limit(w, CBI_WIRE_LINE_MS, 0);
    if (cp->server->password != NULL && !log_in(w, cp->server->password)) {
        (void)cbi_sys_close(w->fd);
        w->fd = -1;
        return false;
    }
    return true;
}

void cbi_wire_close(cbi_wire *w) {
    if (w->fd >= 0) {
        (void)cbi_sys_close(w->fd);
        w->fd = -1;
    }
}

bool cbi_wire_is_alive(const cbi_wire *w) {
    return cbi_sys_wait_for(w->fd, false, 0) == 0;
}
