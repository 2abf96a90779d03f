/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "simulate/simulate.h"

/** Room for `more` bytes and the terminator. */
static bool reserve(cbi_sim_text *text, size_t more) {
    if (text->failed || more < text->cap - text->used) {
        return !text->failed;
    }
    size_t cap = cbi_max(cbi_max(256, 2 * text->cap), text->used + more + 1);
    char *data = cbi_realloc(text->data, cap);
    if (data == NULL) {
        text->failed = true;
        return false;
    }
    text->data = data;
    text->cap = cap;
    return true;
}

void cbi_sim_text_add(cbi_sim_text *text, const char *bytes, size_t count) {
    if (reserve(text, count)) {
        memcpy(text->data + text->used, bytes, count);
        text->used += count;
        text->data[text->used] = '\0';
    }
}

void cbi_sim_text_string(cbi_sim_text *text, const char *string) {
    cbi_sim_text_add(text, string, strlen(string));
}

void cbi_sim_text_number(cbi_sim_text *text, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    cbi_sim_text_add(text, digits + at, sizeof digits - at);
}

void cbi_sim_text_print(cbi_sim_text *text, const char *fmt, ...) {
    char piece[512];
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(piece, sizeof piece, fmt, args);
    va_end(args);
    cb_assert(length >= 0 && (size_t)length < sizeof piece);
    cbi_sim_text_add(text, piece, (size_t)length);
}

void cbi_sim_text_clear(cbi_sim_text *text) {
    text->used = 0;
    if (text->data != NULL) {
        text->data[0] = '\0';
    }
}

void cbi_sim_text_fini(cbi_sim_text *text) {
    cbi_free(text->data);
    *text = (cbi_sim_text){0};
}
