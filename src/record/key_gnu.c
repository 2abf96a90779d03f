/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/sort.h"
#include "record/key_private.h"

#include <stdio.h>
#include <string.h>

/*
 * GNU KEYDEFs: F[.C][OPTS][,F[.C][OPTS]], and what their letters mean. Source of semantics: the
 * manual of coreutils 9.1 and the behaviour of its sort in the C locale, which
 * tests/record/test_key_gnu.c compares with.
 */

enum { QUOTED_MAX = 200 };

/* As GNU quotes in the C locale: 'text', with what is not printable as in C. */
static const char *quote(const char *text, char out[QUOTED_MAX]) {
    static const char plain[] = "'\\\a\b\f\n\r\t\v", letters[] = "'\\abfnrtv";
    size_t n = 0;
    out[n++] = '\'';
    for (; *text && n < QUOTED_MAX - 8; text++) {
        unsigned char c = (unsigned char)*text;
        const char *found = strchr(plain, c);
        if (found) {
            out[n++] = '\\';
            out[n++] = letters[found - plain];
        } else if (c < 0x20 || c > 0x7e) {
            n += (size_t)snprintf(out + n, 5, "\\%03o", c);
        } else {
            out[n++] = (char)c;
        }
    }
    out[n++] = '\'';
    out[n] = 0;
    return out;
}

typedef struct reader {
    const cbi_keys_options *options;
    size_t key;
    const char *text, *at;
    cb_error *err;
} reader;

/* GNU's words for GNU; for everybody else the place and what would be right. */
static cb_status bad(const reader *r, const char *gnu_words, const char *advice) {
    char quoted[QUOTED_MAX];
    if (r->options->gnu)
        return cbi_fail(r->err, CB_EINVAL, "%s: invalid field specification %s", gnu_words,
                        quote(r->text, quoted));
    return cbi_fail(r->err, CB_EINVAL,
                    "key %zu %s, character %zu: %s. A key that begins with a digit is "
                    "F[.C][bdfgiMhnRrV][,F[.C][...]] or "
                    "F:TYPE:OPTION; a column whose name begins with a digit is written name=%.40s",
                    r->key + 1, quote(r->text, quoted), (size_t)(r->at - r->text) + 1, advice,
                    r->text);
}

/* A count, as strtoumax would read it; too large ones are SIZE_MAX. */
static cb_status read_count(reader *r, size_t *count, const char *where) {
    const char *p = r->at;
    char quoted[QUOTED_MAX];
    while (*p == ' ' || (*p >= '\t' && *p <= '\r'))
        p++;
    if (*p == '+')
        p++;
    if (!cbi_key_is_digit((unsigned char)*p)) {
        if (r->options->gnu)
            return cbi_fail(r->err, CB_EINVAL, "%s: invalid count at start of %s", where,
                            quote(r->at, quoted));
        return bad(r, where, "a number should be here");
    }
    size_t n = 0;
    for (; cbi_key_is_digit((unsigned char)*p); p++) {
        if (__builtin_mul_overflow(n, (size_t)10, &n) ||
            __builtin_add_overflow(n, (size_t)(*p - '0'), &n)) {
            n = SIZE_MAX;
            while (cbi_key_is_digit((unsigned char)p[1]))
                p++;
        }
    }
    r->at = p;
    *count = n;
    return CB_OK;
}

/* One letter; false for what is none. */
static bool read_letter(char letter, cbi_key_order *order, bool start, bool end) {
    switch (letter) {
        case 'b':
            order->start_blanks |= start;
            order->end_blanks |= end;
            return true;
        case 'd':
            order->dictionary = true;
            order->printable = false; /* GNU: -d overrides -i, in either order */
            return true;
        case 'f': order->fold = true; return true;
        case 'g': order->general = true; return true;
        case 'h': order->human = true; return true;
        case 'i': order->printable = !order->dictionary; return true;
        case 'M': order->month = true; return true;
        case 'n': order->numeric = true; return true;
        case 'R': order->random = true; return true;
        case 'r': order->reverse = true; return true;
        case 'V': order->version = true; return true;
        default: return false;
    }
}

static void read_letters(reader *r, cbi_key_order *order, bool start) {
    while (*r->at && read_letter(*r->at, order, start, !start))
        r->at++;
}

cb_status cbi_key_order_parse(const char *letters, cbi_key_order *order, cb_error *err) {
    *order = (cbi_key_order){0};
    for (const char *p = letters ? letters : ""; *p; p++) {
        if (!read_letter(*p, order, true, true))
            return cbi_fail(err, CB_EINVAL,
                            "ordering letters '%.40s', character %zu: '%c' is none of bdfgiMhnRrV",
                            letters, (size_t)(p - letters) + 1, *p);
    }
    return CB_OK;
}

bool cbi_key_order_plain(const cbi_key_order *o) {
    return !(o->start_blanks || o->end_blanks || o->dictionary || o->printable || o->fold ||
             o->general || o->human || o->month || o->numeric || o->random || o->version);
}

cb_status cbi_key_order_check(const cbi_key_order *o, cb_error *err) {
    int kinds = o->numeric + o->general + o->human + o->month +
                (o->version || o->random || o->dictionary || o->printable);
    if (kinds <= 1)
        return CB_OK;
    char letters[16];
    size_t n = 0;
    const struct {
        bool on;
        char letter;
    } all[] = {{o->dictionary, 'd'}, {o->fold, 'f'},      {o->general, 'g'},
               {o->human, 'h'},      {o->printable, 'i'}, {o->month, 'M'},
               {o->numeric, 'n'},    {o->random, 'R'},    {o->version, 'V'}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i].on)
            letters[n++] = all[i].letter;
    }
    letters[n] = 0;
    return cbi_fail(err, CB_EINVAL, "options '-%s' are incompatible", letters);
}

void cbi_key_order_apply(const cbi_keys *keys, const cbi_key_order *o, cbi_key_part *part) {
    part->flip = o->reverse ? 0xff : 0;
    unsigned map = (o->fold ? CBI_MAP_FOLD : 0) | (o->dictionary ? CBI_MAP_DICTIONARY : 0) |
                   (o->printable ? CBI_MAP_PRINTABLE : 0);
    part->map = map ? keys->maps[map] : NULL;
    part->fold = map == CBI_MAP_FOLD;
    if (o->numeric)
        part->type = CBI_KEY_GNU_NUM;
    else if (o->general)
        part->type = CBI_KEY_GNU_GENERAL;
    else if (o->human)
        part->type = CBI_KEY_GNU_HUMAN;
    else if (o->month)
        part->type = CBI_KEY_GNU_MONTH;
    else if (o->random)
        part->type = CBI_KEY_GNU_RANDOM;
    else
        part->type = o->version ? CBI_KEY_VER : CBI_KEY_STR;
}

cb_status cbi_key_read_gnu(const cbi_keys_options *options, size_t key, cbi_key_words *words,
                           cbi_key_order *order, cb_error *err) {
    reader r = {options, key, options->keys[key], options->keys[key], err};
    cbi_key_words w = {.separator = options->field_separator};
    *order = (cbi_key_order){0};
    CB_TRY(read_count(&r, &w.start_word, "invalid number at field start"));
    if (w.start_word == 0)
        return bad(&r, "field number is zero", "fields are counted from 1");
    w.start_word--;
    if (*r.at == '.') {
        r.at++;
        CB_TRY(read_count(&r, &w.start_char, "invalid number after '.'"));
        if (w.start_char == 0)
            return bad(&r, "character offset is zero", "characters are counted from 1");
        w.start_char--;
    }
    if (w.start_word == 0 && w.start_char == 0)
        w.start_word = SIZE_MAX;
    read_letters(&r, order, true);
    w.end_word = SIZE_MAX;
    if (*r.at == ',') {
        r.at++;
        CB_TRY(read_count(&r, &w.end_word, "invalid number after ','"));
        if (w.end_word == 0)
            return bad(&r, "field number is zero", "fields are counted from 1");
        w.end_word--;
        if (*r.at == '.') {
            r.at++;
            CB_TRY(read_count(&r, &w.end_char, "invalid number after '.'"));
        }
        read_letters(&r, order, false);
    }
    if (*r.at)
        return bad(&r, "stray character in field spec", "this is no ordering letter (bdfgiMhnRrV)");
    *words = w;
    return CB_OK;
}

cb_status cbi_key_add_row(cbi_keys *keys, const cbi_key_order *global, cb_error *err) {
    cbi_key_part part = {.place = CBI_KEY_AT_ROW, .nulls = CBI_NULLS_NONE};
    CB_TRY(cbi_key_order_check(global, err));
    cbi_key_order_apply(keys, global, &part);
    if (global->start_blanks) {
        part.place = CBI_KEY_AT_WORDS;
        part.words =
            (cbi_key_words){.start_word = SIZE_MAX, .end_word = SIZE_MAX, .start_blanks = true};
    }
    return cbi_keys_add_part(keys, &part, err);
}

/*
 * In CSV and TSV, F is a column and .C counts inside its content. A key without an end is that
 * column alone (there is no text "to the end of the row" once quotes are undone); one that spans
 * columns compares them one after the other, and numbers and months are only looked for in the
 * first.
 */
static cb_status add_columns(cbi_keys *keys, const cbi_key_words *words, cbi_key_part *part,
                             cb_error *err) {
    size_t first = words->start_word == SIZE_MAX ? 0 : words->start_word;
    size_t last = words->end_word == SIZE_MAX ? first : words->end_word;
    bool text =
        part->type == CBI_KEY_STR || part->type == CBI_KEY_VER || part->type == CBI_KEY_GNU_RANDOM;
    if (first >= CBI_KEY_COLUMN_MAX)
        return cbi_fail(err, CB_EINVAL, "key %zu '%.80s': columns are counted up to %d",
                        part->key + 1, keys->texts[part->key], CBI_KEY_COLUMN_MAX);
    if (text && last > first && last - first >= CBI_KEY_SPAN_MAX)
        return cbi_fail(err, CB_EINVAL, "key %zu '%.80s': a key may span %d columns", part->key + 1,
                        keys->texts[part->key], CBI_KEY_SPAN_MAX);
    for (size_t column = first; column <= last; column++) {
        cbi_key_words w = {0};
        if (column == first) {
            w.start_char = words->start_char;
            w.start_blanks = words->start_blanks;
        }
        if (column == last && words->end_char) {
            w.end_char = words->end_char;
            w.end_blanks = words->end_blanks;
        }
        part->words = w;
        part->column = (uint32_t)column;
        part->place =
            w.start_char || w.start_blanks || w.end_char ? CBI_KEY_AT_CHARS : CBI_KEY_AT_FIELD;
        CB_TRY(cbi_keys_add_part(keys, part, err));
        if (!text)
            break;
    }
    return CB_OK;
}

cb_status cbi_key_parse_gnu(cbi_keys *keys, const cbi_keys_options *options,
                            const cbi_key_order *global, size_t key, cb_error *err) {
    cbi_key_words words = {0};
    cbi_key_order order = {0};
    CB_TRY(cbi_key_read_gnu(options, key, &words, &order, err));
    if (cbi_key_order_plain(&order) && !order.reverse)
        order = *global;
    CB_TRY(cbi_key_order_check(&order, err));
    words.start_blanks = order.start_blanks;
    words.end_blanks = order.end_blanks;
    cbi_key_part part = {.nulls = CBI_NULLS_NONE, .key = key};
    cbi_key_order_apply(keys, &order, &part);
    if (options->format == CB_FORMAT_CSV || options->format == CB_FORMAT_TSV)
        return add_columns(keys, &words, &part, err);
    part.words = words;
    bool row = words.start_word == SIZE_MAX && words.end_word == SIZE_MAX && !words.start_blanks;
    part.place = row ? CBI_KEY_AT_ROW : CBI_KEY_AT_WORDS;
    return cbi_keys_add_part(keys, &part, err);
}
