/* SPDX-License-Identifier: Apache-2.0 */
#include "net/html.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void put_bytes(cbi_html *h, const char *bytes, size_t count) {
    if (h->full || count > h->room - h->used) {
        h->full = true;
        return;
    }
    memcpy(h->text + h->used, bytes, count);
    h->used += count;
}

void cbi_html_put(cbi_html *h, const char *fmt, ...) {
    char piece[2048];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(piece, sizeof piece, fmt, args);
    va_end(args);
    cb_assert(n >= 0 && (size_t)n < sizeof piece);
    put_bytes(h, piece, (size_t)n);
}

/** The character at `at`, and of how many bytes it is; 0: none of UTF-8. */
static size_t take_character(const unsigned char *at, uint32_t *character) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t count = at[0] < 0x80             ? 1
                   : (at[0] & 0xe0) == 0xc0 ? 2
                   : (at[0] & 0xf0) == 0xe0 ? 3
                   : (at[0] & 0xf8) == 0xf0 ? 4
                                            : 0;
    uint32_t c = count > 1 ? at[0] & (0x7fU >> count) : at[0];
    for (size_t i = 1; i < count; i++) {
        if ((at[i] & 0xc0) != 0x80) { /* the text's end too */
            return 0;
        }
        c = c << 6 | (at[i] & 0x3fU);
    }
    if (count == 0 || c < least[count] || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff) {
        return 0;
    }
    *character = c;
    return count;
}

/** Whether a reader sees what it is: no control, none that turns the writing's direction or has no
 *  width. */
static bool is_seen(uint32_t c) {
    return c >= 0x20 && (c < 0x7f || c >= 0xa0) && c != 0xad && c != 0x61c &&
           (c < 0x200b || c > 0x200f) && (c < 0x2028 || c > 0x202e) && (c < 0x2060 || c > 0x206f) &&
           c != 0xfeff && (c < 0xfff0 || c > 0xffff) && c < 0xe0000;
}

static void put_character(cbi_html *h, const char *at, size_t count, uint32_t c) {
    switch (c) {
        case '&': put_bytes(h, "&amp;", 5); return;
        case '<': put_bytes(h, "&lt;", 4); return;
        case '>': put_bytes(h, "&gt;", 4); return;
        case '"': put_bytes(h, "&quot;", 6); return;
        case '\'': put_bytes(h, "&#39;", 5); return;
        default: break;
    }
    if (is_seen(c)) {
        put_bytes(h, at, count);
    } else {
        cbi_html_put(h, c < 0x80 ? "\\x%02x" : "\\u{%x}", (unsigned)c);
    }
}

void cbi_html_text(cbi_html *h, const char *text) {
    while (*text != '\0') {
        uint32_t c = 0;
        size_t count = take_character((const unsigned char *)text, &c);
        if (count > 0) {
            put_character(h, text, count, c);
        } else {
            cbi_html_put(h, "\\x%02x", (unsigned)(unsigned char)*text);
        }
        text += count > 0 ? count : 1;
    }
}

void cbi_html_url(cbi_html *h, const char *text) {
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     c == '_' || c == '-' || c == '.';
        if (plain) {
            put_bytes(h, text, 1);
        } else {
            cbi_html_put(h, "%%%02X", (unsigned)c);
        }
    }
}

void cbi_html_bytes(cbi_html *h, uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    cbi_html_put(h, unit == 0 ? "%.0f %s" : value < 10 ? "%.2f %s" : "%.1f %s", value, units[unit]);
}
