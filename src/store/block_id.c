/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of blocks by their forms. A form is literal text with %i (a number below 2^31), %l (below
 * 2^63), %w (word characters, perhaps none), %f (the same, with the underscore before it that
 * separates a field), %h (hexadecimal digits and dashes) and %s (anything, perhaps nothing); at
 * most one of the last four. Spark's patterns are regular expressions whose dots match any byte;
 * here a dot is a dot.
 */
#include "carbide/block.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"

static const char *const forms[CB_BLOCK_KIND_COUNT] = {[CB_BLOCK_OTHER] = NULL,
#define FORM(kind, form) [kind] = (form),
                                                       CB_BLOCK_KIND_MAP(FORM)
#undef FORM
};

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool may_be_in(char what, char c) {
    switch (what) {
        case 'w':
        case 'f': return is_digit(c) || is_letter(c) || c == '_';
        case 'h':
            return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F') || c == '-';
        default: return true;
    }
}

/** Reads digits; NULL when there are none or they are too many. */
static const char *read_number(const char *at, char what, uint64_t *number) {
    const uint64_t most = what == 'i' ? INT32_MAX : INT64_MAX;
    uint64_t n = 0;
    if (!is_digit(*at)) {
        return NULL;
    }
    for (; is_digit(*at); at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (n > (most - digit) / 10) {
            return NULL;
        }
        n = n * 10 + digit;
    }
    *number = n;
    return at;
}

/** A form's numbers and literals up to its end or its piece of text. NULL: it does not match;
 *  otherwise where it got to, and *form stands at the end or behind a '%'. */
static const char *match_plain(const char **form, const char *at, cb_block_id *id, size_t *count) {
    const char *f = *form;
    for (; *f != '\0'; f++) {
        if (*f != '%') {
            if (*at++ != *f) {
                return NULL;
            }
            continue;
        }
        f++;
        if (*f != 'i' && *f != 'l') {
            break;
        }
        at = read_number(at, *f, &id->numbers[*count]);
        if (at == NULL) {
            return NULL;
        }
        ++*count;
    }
    *form = f;
    return at;
}

static bool matches(const char *form, const char *name, cb_block_id *id) {
    size_t count = 0;
    const char *at = match_plain(&form, name, id, &count);
    id->text = "";
    id->text_bytes = 0;
    if (at == NULL || *form == '\0') {
        return at != NULL && *at == '\0';
    }
    char what = *form++;
    size_t most = 0;
    while (at[most] != '\0' && may_be_in(what, at[most])) {
        most++;
    }
    size_t least = what == 'h' ? 1 : 0;
    for (size_t bytes = most + 1; bytes-- > least;) { /* the longest that lets the rest match */
        const char *rest_form = form;
        size_t numbers = count;
        const char *end = match_plain(&rest_form, at + bytes, id, &numbers);
        if (end != NULL && *end == '\0') {
            bool field = what == 'f' && bytes > 0 && *at == '_';
            id->text = at + field;
            id->text_bytes = bytes - field;
            return true;
        }
    }
    return false;
}

cb_status cb_block_id_parse(const char *name, cb_block_id *id, cb_error *err) {
    for (int kind = CB_BLOCK_OTHER + 1; kind < CB_BLOCK_KIND_COUNT; kind++) {
        cb_block_id found = {.kind = (cb_block_kind)kind};
        if (matches(forms[kind], name, &found)) {
            *id = found;
            return CB_OK;
        }
    }
    return cbi_fail(err, CB_EINVAL, "Failed to parse %.300s into a block ID.", name);
}

static size_t add_piece(char what, const cb_block_id *id, size_t *count, char *out, size_t room) {
    int length = 0;
    if (what == 'i' || what == 'l') {
        length = snprintf(out, room, "%llu", (unsigned long long)id->numbers[(*count)++]);
    } else {
        const char *between = what == 'f' && id->text_bytes > 0 ? "_" : "";
        length = snprintf(out, room, "%s%.*s", between, (int)id->text_bytes,
                          id->text != NULL ? id->text : "");
    }
    return (size_t)length;
}

cb_status cb_block_id_format(const cb_block_id *id, char name[CB_BLOCK_NAME_MAX + 1],
                             cb_error *err) {
    if (id->kind <= CB_BLOCK_OTHER || id->kind >= CB_BLOCK_KIND_COUNT) {
        return cbi_fail(err, CB_EINVAL, "Block kind %d has no form of name.", (int)id->kind);
    }
    char text[CB_BLOCK_NAME_MAX + 1];
    size_t used = 0, count = 0;
    bool fits = id->text_bytes <= CB_BLOCK_NAME_MAX;
    for (const char *f = forms[id->kind]; *f != '\0' && fits; f++) {
        if (*f == '%') {
            f++;
            used += add_piece(*f, id, &count, text + used, sizeof text - used);
        } else {
            text[used++] = *f;
        }
        fits = used < sizeof text;
    }
    if (!fits) {
        return cbi_fail(err, CB_EINVAL, "The name of a block can have %d bytes at most.",
                        CB_BLOCK_NAME_MAX);
    }
    memcpy(name, text, used);
    name[used] = '\0';
    return CB_OK;
}

void cb_block_name_rdd(uint32_t data_set, uint32_t partition, char name[CB_BLOCK_NAME_MAX + 1]) {
    (void)snprintf(name, CB_BLOCK_NAME_MAX + 1, "rdd_%u_%u", data_set, partition);
}
