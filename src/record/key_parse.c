/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "carbide/sort.h"
#include "record/key_private.h"

#include <string.h>

/*
 * Native keys: NAME[:TYPE][:OPTION]..., N[:TYPE]..., and for fixed records
 * TYPE@OFFSET[+LENGTH][:OPTION]... A name that holds a colon or begins with a digit or a quote is
 * written in double quotes (doubled inside), or name=NAME if only its first character is the
 * trouble.
 */

typedef struct type_name {
    const char *name;
    cbi_key_type type;
    bool integer;
} type_name;

static const type_name type_names[] = {
    {"str", CBI_KEY_STR, false},     {"num", CBI_KEY_NUM, false},   {"int", CBI_KEY_NUM, true},
    {"float", CBI_KEY_FLOAT, false}, {"ver", CBI_KEY_VER, false},   {"human", CBI_KEY_HUMAN, false},
    {"month", CBI_KEY_MONTH, false}, {"time", CBI_KEY_TIME, false},
};
enum { TYPE_COUNT = sizeof type_names / sizeof type_names[0] };

static const char *const words[] = {"str",   "num",         "int",       "float", "ver",
                                    "human", "month",       "time",      "desc",  "asc",
                                    "fold",  "nulls=first", "nulls=last"};
#define WORDS_TEXT                                                                                 \
    "types are str num int float ver human month time, options asc desc fold nulls=first "         \
    "nulls=last"
#define FIXED_TEXT                                                                                 \
    "keys of fixed records are TYPE@OFFSET, as u32le@4 or f64be@16:desc (u8 i8, u i 16 32 64 and " \
    "f 32 64 with le or "                                                                          \
    "be), or TYPE@OFFSET+LENGTH with a type for text, as str@0+10"

typedef struct parser {
    cbi_keys *keys;
    size_t key;
    const char *text, *at; /* the whole key; what is still to be read */
    bool fixed;
    bool typed, directed; /* what the key has said so far */
    bool fold;
    cbi_key_part part;
    cb_error *err;
} parser;

/* ---- helping with mistakes ---- */

static size_t distance(const char *a, size_t an, const char *b, size_t bn) {
    enum { MAX = 48 };
    if (an > MAX || bn > MAX)
        return MAX;
    size_t row[MAX + 1];
    for (size_t j = 0; j <= bn; j++)
        row[j] = j;
    for (size_t i = 1; i <= an; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= bn; j++) {
            size_t above = row[j];
            bool same =
                cbi_key_upper((unsigned char)a[i - 1]) == cbi_key_upper((unsigned char)b[j - 1]);
            row[j] = cbi_min(cbi_min(row[j - 1], above) + 1, diagonal + !same);
            diagonal = above;
        }
    }
    return row[bn];
}

const char *cbi_key_did_you_mean(const char *word, size_t bytes, const char *const *candidates,
                                 size_t count) {
    const char *best = NULL;
    size_t best_distance = bytes <= 2 ? 2 : 3; /* at most 1 or 2 changes */
    for (size_t i = 0; i < count; i++) {
        size_t n = strlen(candidates[i]), d = distance(word, bytes, candidates[i], n);
        if (d < best_distance && d < cbi_max(bytes, n)) {
            best = candidates[i];
            best_distance = d;
        }
    }
    return best;
}

static cb_status bad_at(const parser *p, const char *at, const char *what) {
    return cbi_fail(p->err, CB_EINVAL, "key %zu '%.120s', character %zu: %s", p->key + 1, p->text,
                    (size_t)(at - p->text) + 1, what);
}

static cb_status unknown_word(const parser *p, const char *word, size_t bytes) {
    if (bytes == 0)
        return bad_at(p, word, "a type or an option is missing here; " WORDS_TEXT);
    const char *near = cbi_key_did_you_mean(word, bytes, words, sizeof words / sizeof words[0]);
    return cbi_fail(
        p->err, CB_EINVAL,
        "key %zu '%.120s', character %zu: '%.*s' is no type and no option%s%s%s; " WORDS_TEXT
        ". A column name that holds a colon is written in double quotes",
        p->key + 1, p->text, (size_t)(word - p->text) + 1, (int)cbi_min(bytes, 40), word,
        near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
}

/* ---- the pieces ---- */

static bool is_word(const char *at, size_t bytes, const char *word) {
    return bytes == strlen(word) && memcmp(at, word, bytes) == 0;
}

static const type_name *find_type(const char *at, size_t bytes) {
    for (size_t i = 0; i < TYPE_COUNT; i++) {
        if (is_word(at, bytes, type_names[i].name))
            return &type_names[i];
    }
    return NULL;
}

static void set_type(parser *p, const type_name *type) {
    p->part.type = type->type;
    p->part.integer = type->integer;
    p->typed = true;
}

/* u8, i16le, f64be ...; 0 bytes for what is none of them. */
static void find_binary(const char *at, size_t bytes, cbi_key_part *part) {
    part->bytes = 0;
    if (bytes < 2 || !strchr("uif", at[0]))
        return;
    bool wide =
        bytes >= 5 && at[bytes - 1] == 'e' && (at[bytes - 2] == 'l' || at[bytes - 2] == 'b');
    size_t digits = bytes - 1 - (wide ? 2 : 0);
    const char *width = at + 1;
    size_t n = is_word(width, digits, "8")    ? 1
               : is_word(width, digits, "16") ? 2
               : is_word(width, digits, "32") ? 4
               : is_word(width, digits, "64") ? 8
                                              : 0;
    if (n == 0 || wide != (n > 1) || (at[0] == 'f' && n < 4))
        return;
    part->type = CBI_KEY_BINARY;
    part->binary = at[0] == 'u'   ? CBI_BINARY_UNSIGNED
                   : at[0] == 'i' ? CBI_BINARY_SIGNED
                                  : CBI_BINARY_IEEE;
    part->big_endian = wide && at[bytes - 2] == 'b';
    part->bytes = n;
}

static bool read_size(parser *p, size_t *value) {
    if (!cbi_key_is_digit((unsigned char)*p->at))
        return false;
    size_t n = 0;
    for (; cbi_key_is_digit((unsigned char)*p->at); p->at++) {
        if (n > SIZE_MAX / 100)
            return false;
        n = n * 10 + (size_t)(*p->at - '0');
    }
    *value = n;
    return true;
}

static cb_status read_fixed(parser *p, size_t record_bytes) {
    const char *start = p->at;
    size_t n = strcspn(start, ":@");
    cbi_key_part *part = &p->part;
    if (start[n] != '@')
        return bad_at(p, start + n, FIXED_TEXT);
    part->place = CBI_KEY_AT_FIXED;
    find_binary(start, n, part);
    const type_name *type = n ? find_type(start, n) : &type_names[0]; /* @0+10 is str@0+10 */
    bool text = part->bytes == 0;
    if (text && !type)
        return bad_at(p, start, "there is no such type; " FIXED_TEXT);
    if (text)
        set_type(p, type);
    p->typed = true;
    p->at = start + n + 1;
    const char *numbers = p->at;
    if (!read_size(p, &part->offset))
        return bad_at(p, p->at, "the offset (a number of bytes, from 0) is missing or too large");
    if (*p->at == '+') {
        if (!text)
            return bad_at(p, p->at, "this type has a length of its own; leave +LENGTH out");
        p->at++;
        if (!read_size(p, &part->bytes) || part->bytes == 0)
            return bad_at(p, p->at, "the length must be a number of bytes, at least 1");
    } else if (text) {
        return bad_at(
            p, p->at,
            "a length is missing; text in fixed records is TYPE@OFFSET+LENGTH, as str@0+10");
    }
    if (*p->at && *p->at != ':')
        return bad_at(p, p->at, "':' and an option, or nothing, should be here; " FIXED_TEXT);
    if (part->offset > record_bytes || part->bytes > record_bytes - part->offset)
        return cbi_fail(
            p->err, CB_EINVAL,
            "key %zu '%.120s', character %zu: bytes %zu to %zu are outside a record of %zu bytes",
            p->key + 1, p->text, (size_t)(numbers - p->text) + 1, part->offset,
            part->offset + part->bytes, record_bytes);
    return CB_OK;
}

/* NAME, "NAME" or name=NAME up to the next colon. */
static cb_status read_name(parser *p) {
    if (strncmp(p->at, "name=", 5) == 0)
        p->at += 5;
    const char *start = p->at;
    bool quoted = *start == '"';
    size_t n = strlen(start);
    char *name = cbi_alloc(n + 1);
    if (!name)
        return cbi_fail(p->err, CB_ENOMEM, "no memory for a key's name of %zu bytes", n);
    p->part.name = name;
    n = 0;
    if (quoted) {
        for (p->at++; *p->at != '"' || p->at[1] == '"'; p->at++) {
            if (*p->at == 0)
                return bad_at(p, start, "the quote is not closed");
            p->at += *p->at == '"';
            name[n++] = *p->at;
        }
        p->at++;
    } else {
        while (*p->at && *p->at != ':')
            name[n++] = *p->at++;
    }
    name[n] = 0;
    if (*p->at && *p->at != ':')
        return bad_at(p, p->at, "':' or nothing should follow the closing quote");
    if (n == 0 && !quoted)
        return bad_at(p, start, "the column's name is missing; a key is NAME[:TYPE][:OPTION]...");
    p->part.place = CBI_KEY_AT_FIELD;
    return CB_OK;
}

/* N: a column by number (in lines a field, as GNU counts them). */
static cb_status read_number(parser *p, const cbi_keys_options *options) {
    const char *start = p->at;
    size_t n;
    if (!read_size(p, &n) || n > CBI_KEY_COLUMN_MAX)
        return bad_at(p, start, "columns are counted up to 1048576");
    if (n == 0)
        return bad_at(p, start, "columns are counted from 1");
    if (options->format == CB_FORMAT_CSV || options->format == CB_FORMAT_TSV) {
        p->part.place = CBI_KEY_AT_FIELD;
        p->part.column = (uint32_t)(n - 1);
    } else {
        p->part.place = CBI_KEY_AT_WORDS;
        p->part.words = (cbi_key_words){.start_word = n - 1,
                                        .end_word = n - 1,
                                        .start_blanks = options->field_separator < 0,
                                        .separator = options->field_separator};
    }
    return CB_OK;
}

static cb_status read_option(parser *p) {
    const char *word = p->at;
    size_t n = strcspn(word, ":");
    const type_name *type = find_type(word, n);
    p->at += n;
    if (type) {
        if (p->typed)
            return bad_at(p, word, "the key has a type already");
        set_type(p, type);
    } else if (is_word(word, n, "asc") || is_word(word, n, "desc")) {
        if (p->directed)
            return bad_at(p, word, "the key has a direction (asc or desc) already");
        p->directed = true;
        p->part.flip = word[0] == 'd' ? 0xff : 0;
    } else if (is_word(word, n, "fold")) {
        p->fold = true;
    } else if (is_word(word, n, "nulls=first") || is_word(word, n, "nulls=last")) {
        if (p->part.nulls != CBI_NULLS_NONE)
            return bad_at(p, word, "it has been said already where nulls go");
        p->part.nulls = word[6] == 'f' ? CBI_NULLS_FIRST : CBI_NULLS_LAST;
    } else {
        cbi_key_part binary = {.bytes = 0};
        find_binary(word, n, &binary);
        if (binary.bytes)
            return bad_at(p, word,
                          "binary types are for fixed records (--format fixed:N), as u32le@4; use "
                          "num or int for text");
        if (memchr(word, '@', n))
            return bad_at(p, word,
                          "@OFFSET is for fixed records (--format fixed:N); part of a column is "
                          "F.C,F.C as in 2.1,2.10");
        return unknown_word(p, word, n);
    }
    return CB_OK;
}

static cb_status check_options(const parser *p) {
    const cbi_key_part *part = &p->part;
    if (p->fold && part->type != CBI_KEY_STR && part->type != CBI_KEY_VER)
        return bad_at(p, strstr(p->text, ":fold") ? strstr(p->text, ":fold") + 1 : p->text,
                      "fold is for str and ver");
    if (part->type == CBI_KEY_BINARY && part->nulls != CBI_NULLS_NONE)
        return bad_at(p, strstr(p->text, "nulls=") ? strstr(p->text, "nulls=") : p->text,
                      "binary numbers have no nulls");
    return CB_OK;
}

/*
 * A key that has said nothing but its name takes the global letters; one with a type or an option
 * keeps to itself, but is still turned by a global r unless it says asc or desc.
 */
static cb_status finish(parser *p, const cbi_key_order *global) {
    cbi_key_part *part = &p->part;
    bool alone = !p->typed && !p->directed && !p->fold && part->nulls == CBI_NULLS_NONE;
    CB_TRY(check_options(p));
    if (alone && !cbi_key_order_plain(global)) {
        CB_TRY(cbi_key_order_check(global, p->err));
        cbi_key_order_apply(p->keys, global, part);
        if (global->start_blanks) {
            part->words.start_blanks = true;
            part->place = part->place == CBI_KEY_AT_FIELD ? CBI_KEY_AT_CHARS : part->place;
        }
    } else {
        if (!p->directed && global->reverse)
            part->flip = 0xff;
        part->map = p->fold ? p->keys->maps[CBI_MAP_FOLD] : NULL;
        part->fold = p->fold;
        bool nullable =
            part->type != CBI_KEY_STR && part->type != CBI_KEY_VER && part->type != CBI_KEY_BINARY;
        if (nullable && part->nulls == CBI_NULLS_NONE)
            part->nulls = CBI_NULLS_LAST;
    }
    return cbi_keys_add_part(p->keys, part, p->err);
}

cb_status cbi_key_parse_native(cbi_keys *keys, const cbi_keys_options *options,
                               const cbi_key_order *global, size_t key, cb_error *err) {
    const char *text = options->keys[key];
    parser p = {.keys = keys, .key = key, .text = text, .at = text, .err = err};
    p.fixed = options->format == CB_FORMAT_FIXED;
    p.part = (cbi_key_part){.type = CBI_KEY_STR, .nulls = CBI_NULLS_NONE, .key = key};
    cb_status status;
    if (cbi_key_is_digit((unsigned char)*text))
        status = read_number(&p, options);
    else if (p.fixed)
        status = read_fixed(&p, options->record_bytes);
    else if (options->format == CB_FORMAT_LINES)
        status = bad_at(&p, text,
                        "lines have no column names; a key is F[.C][bdfgiMhnRrV][,F[.C][...]] as "
                        "in 2,2n, or F:TYPE:OPTION as in "
                        "2:num:desc. For named columns say --format csv or tsv");
    else
        status = read_name(&p);
    while (status == CB_OK && *p.at) {
        p.at++; /* the colon */
        status = read_option(&p);
    }
    if (status == CB_OK)
        status = finish(&p, global);
    if (status != CB_OK)
        cbi_free(p.part.name);
    return status;
}
