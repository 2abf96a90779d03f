/* SPDX-License-Identifier: Apache-2.0 */
#include "record/key.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "carbide/sort.h"
#include "record/key_private.h"

/*
 * From the texts of keys to parts, from parts to the shape of the whole: the row itself, a slice of
 * it, or bytes that cbi_keys_encode makes by writing one part after the other. key_private.h has
 * the law that all parts follow.
 */

/* ---- parts ---- */

cb_status cbi_keys_add_part(cbi_keys *keys, const cbi_key_part *part, cb_error *err) {
    if (keys->part_count == keys->part_capacity) {
        size_t capacity = keys->part_capacity ? 2 * keys->part_capacity : 4;
        cbi_key_part *parts = cbi_realloc(keys->parts, capacity * sizeof *parts);
        if (!parts)
            return cbi_fail(err, CB_ENOMEM, "no memory for %zu keys", capacity);
        keys->parts = parts;
        keys->part_capacity = capacity;
    }
    keys->parts[keys->part_count++] = *part;
    return CB_OK;
}

/* GNU's tables: fold to upper case, keep letters, digits and blanks (-d), keep what is printable
 * (-i). */
static void fill_maps(cbi_keys *keys) {
    for (unsigned flags = 0; flags < 8; flags++) {
        for (unsigned c = 0; c < 256; c++) {
            bool word = cbi_key_is_digit(c) || cbi_key_is_alpha(c) || cbi_key_is_blank(c);
            bool printable = c >= 0x20 && c < 0x7f;
            bool ignored = ((flags & CBI_MAP_DICTIONARY) && !word) ||
                           ((flags & CBI_MAP_PRINTABLE) && !printable);
            unsigned mapped = (flags & CBI_MAP_FOLD) ? cbi_key_upper(c) : c;
            keys->maps[flags][c] = (uint16_t)(ignored ? (unsigned)CBI_KEY_IGNORED : mapped);
        }
    }
}

/* ---- shape ---- */

static bool is_bytes(const cbi_key_part *part) {
    return part->type == CBI_KEY_STR && !part->map && part->nulls == CBI_NULLS_NONE;
}

/* Fixed bytes that are in order as they are. */
static bool is_slice(const cbi_key_part *part) {
    bool number = part->type == CBI_KEY_BINARY && part->binary == CBI_BINARY_UNSIGNED &&
                  (part->big_endian || part->bytes == 1);
    return part->place == CBI_KEY_AT_FIXED && (number || is_bytes(part));
}

static void choose_shape(cbi_keys *keys) {
    const cbi_key_part *parts = keys->parts;
    size_t n = keys->part_count;
    keys->shape = CBI_KEY_ENCODED;
    if (n == 0)
        return;
    keys->inverted = parts[0].flip != 0;
    if (parts[0].place == CBI_KEY_AT_ROW &&
        is_bytes(&parts[0])) { /* whatever follows has nothing left to decide */
        keys->shape = CBI_KEY_ROW;
        return;
    }
    size_t end = parts[0].offset;
    for (size_t i = 0; i < n; i++) {
        if (!is_slice(&parts[i]) || parts[i].offset != end || parts[i].flip != parts[0].flip) {
            keys->inverted = false;
            return;
        }
        end += parts[i].bytes;
    }
    keys->shape = CBI_KEY_SLICE;
    keys->slice_offset = parts[0].offset;
    keys->slice_bytes = end - parts[0].offset;
}

static void choose_raw(cbi_keys *keys) {
    for (size_t i = 0; i < keys->part_count; i++) {
        cbi_key_part *part = &keys->parts[i];
        bool last = i + 1 == keys->part_count;
        bool same_size = part->place == CBI_KEY_AT_FIXED && is_bytes(part);
        part->raw = part->type == CBI_KEY_STR && !part->flip && (last || same_size);
    }
}

/* ---- columns ---- */

static bool uses_field(const cbi_key_part *part) {
    return part->place == CBI_KEY_AT_FIELD || part->place == CBI_KEY_AT_CHARS;
}

/* Once every part knows its column: the list for the scanner, ascending, and each part's place in
 * it. */
static cb_status list_columns(cbi_keys *keys, cb_error *err) {
    cbi_free(keys->columns);
    keys->column_count = 0;
    keys->columns = cbi_alloc((keys->part_count + 1) * sizeof *keys->columns);
    if (!keys->columns)
        return cbi_fail(err, CB_ENOMEM, "no memory for the columns of %zu keys", keys->part_count);
    for (size_t i = 0; i < keys->part_count; i++) {
        if (!uses_field(&keys->parts[i]))
            continue;
        uint32_t column = keys->parts[i].column;
        size_t at = keys->column_count;
        while (at > 0 && keys->columns[at - 1] > column)
            at--;
        if (at > 0 && keys->columns[at - 1] == column)
            continue;
        memmove(keys->columns + at + 1, keys->columns + at,
                (keys->column_count - at) * sizeof *keys->columns);
        keys->columns[at] = column;
        keys->column_count++;
    }
    for (size_t i = 0; i < keys->part_count; i++) {
        for (uint32_t slot = 0; slot < keys->column_count; slot++) {
            if (uses_field(&keys->parts[i]) && keys->columns[slot] == keys->parts[i].column)
                keys->parts[i].slot = slot;
        }
    }
    keys->bound = true;
    return CB_OK;
}

static cb_status no_such_column(const cbi_keys *keys, const cbi_key_part *part,
                                const char *const *names, size_t count, cb_error *err) {
    char list[400];
    size_t n = 0;
    list[0] = 0;
    for (size_t i = 0; i < count && n < sizeof list - 80; i++) {
        bool cut = i + 1 < count && n > sizeof list - 160;
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%.60s", i ? ", " : "", names[i]);
        if (cut) {
            snprintf(list + n, sizeof list - n, ", and %zu more", count - i - 1);
            break;
        }
    }
    const char *near = cbi_key_did_you_mean(part->name, strlen(part->name), names, count);
    return cbi_fail(err, CB_EINVAL,
                    "key %zu '%.120s': there is no column '%.60s'%s%.60s%s; the columns are %s",
                    part->key + 1, keys->texts[part->key], part->name,
                    near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "", list);
}

/* 0 for what is no number from 1 to CBI_KEY_COLUMN_MAX. */
static size_t column_number(const char *name) {
    size_t n = 0;
    for (const char *p = name; *p; p++) {
        if (!cbi_key_is_digit((unsigned char)*p) || n > CBI_KEY_COLUMN_MAX)
            return 0;
        n = n * 10 + (size_t)(*p - '0');
    }
    return n > CBI_KEY_COLUMN_MAX ? 0 : n;
}

static cb_status bind_name(const cbi_keys *keys, cbi_key_part *part, const char *const *names,
                           size_t count, cb_error *err) {
    if (count == 0) {
        size_t n = column_number(part->name);
        if (n == 0)
            return cbi_fail(err, CB_EINVAL,
                            "key %zu '%.120s': there is no header, so columns have no names; say "
                            "which by number, as 2:num:desc",
                            part->key + 1, keys->texts[part->key]);
        part->column = (uint32_t)(n - 1);
        return CB_OK;
    }
    size_t found = count;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], part->name) != 0)
            continue;
        if (found < count)
            return cbi_fail(err, CB_EINVAL,
                            "key %zu '%.120s': columns %zu and %zu are both called '%.60s'; say "
                            "which by number, as %zu:num:desc",
                            part->key + 1, keys->texts[part->key], found + 1, i + 1, part->name,
                            found + 1);
        found = i;
    }
    if (found == count)
        return no_such_column(keys, part, names, count, err);
    part->column = (uint32_t)found;
    return CB_OK;
}

cb_status cbi_keys_bind(cbi_keys *keys, const char *const *names, size_t count, cb_error *err) {
    for (size_t i = 0; i < keys->part_count; i++) {
        cbi_key_part *part = &keys->parts[i];
        if (part->name)
            CB_TRY(bind_name(keys, part, names, count, err));
        if (uses_field(part) && count && part->column >= count)
            return cbi_fail(err, CB_EINVAL,
                            "key %zu '%.120s': there is no column %zu; rows have %zu",
                            part->key + 1, keys->texts[part->key], (size_t)part->column + 1, count);
    }
    return list_columns(keys, err);
}

/* ---- create ---- */

/* Begins like a KEYDEF: a digit (GNU itself allows blanks and + before it); but 2:num is a native
 * key. */
static bool is_keydef(const cbi_keys_options *options, const char *text) {
    if (options->gnu)
        return true;
    return cbi_key_is_digit((unsigned char)*text) && text[strspn(text, "0123456789")] != ':';
}

static cb_status parse_keys(cbi_keys *keys, const cbi_keys_options *options,
                            const cbi_key_order *global, cb_error *err) {
    /* GNU reads all keys before it looks at what they mean: the first message must be the same. */
    for (size_t i = 0; options->gnu && i < options->key_count; i++) {
        cbi_key_words words;
        cbi_key_order order;
        CB_TRY(cbi_key_read_gnu(options, i, &words, &order, err));
    }
    for (size_t i = 0; i < options->key_count; i++) {
        if (is_keydef(options, options->keys[i]))
            CB_TRY(cbi_key_parse_gnu(keys, options, global, i, err));
        else
            CB_TRY(cbi_key_parse_native(keys, options, global, i, err));
    }
    if (options->key_count == 0)
        return cbi_key_add_row(keys, global, err);
    return CB_OK;
}

static cb_status copy_texts(cbi_keys *keys, const cbi_keys_options *options, cb_error *err) {
    keys->texts = cbi_calloc(options->key_count + 1, sizeof *keys->texts);
    if (!keys->texts)
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu keys", options->key_count);
    keys->text_count = options->key_count;
    for (size_t i = 0; i < options->key_count; i++) {
        keys->texts[i] = cbi_strdup(options->keys[i]);
        if (!keys->texts[i])
            return cbi_fail(err, CB_ENOMEM, "no memory for key %zu", i + 1);
    }
    return CB_OK;
}

cb_status cbi_keys_create(const cbi_keys_options *options, cbi_keys **result, cb_error *err) {
    cb_assert(options->format != CB_FORMAT_AUTO);
    cbi_key_order global;
    cb_status status = cbi_key_order_parse(options->global_order, &global, err);
    if (status != CB_OK)
        return status;
    cbi_keys *keys = cbi_calloc(1, sizeof *keys);
    if (!keys)
        return cbi_fail(err, CB_ENOMEM, "no memory for keys");
    fill_maps(keys);
    status = copy_texts(keys, options, err);
    if (status == CB_OK)
        status = parse_keys(keys, options, &global, err);
    bool named = false;
    for (size_t i = 0; i < keys->part_count; i++)
        named |= keys->parts[i].name != NULL;
    if (status == CB_OK && !named)
        status = list_columns(keys, err);
    if (status != CB_OK) {
        cbi_keys_destroy(keys);
        return status;
    }
    choose_shape(keys);
    choose_raw(keys);
    bool last_resort =
        options->gnu && !options->stable && !options->unique && keys->shape != CBI_KEY_ROW;
    keys->tie = last_resort ? CBI_TIE_ROW : CBI_TIE_INPUT;
    keys->tie_inverted = global.reverse;
    *result = keys;
    return CB_OK;
}

void cbi_keys_destroy(cbi_keys *keys) {
    if (!keys)
        return;
    for (size_t i = 0; i < keys->part_count; i++)
        cbi_free(keys->parts[i].name);
    for (size_t i = 0; i < keys->text_count; i++)
        cbi_free(keys->texts[i]);
    cbi_free(keys->parts);
    cbi_free(keys->texts);
    cbi_free(keys->columns);
    cbi_free(keys);
}

cbi_key_shape cbi_keys_shape(const cbi_keys *keys) {
    return keys->shape;
}

void cbi_keys_slice(const cbi_keys *keys, size_t *offset, size_t *bytes) {
    cb_assert(keys->shape == CBI_KEY_SLICE);
    *offset = keys->slice_offset;
    *bytes = keys->slice_bytes;
}

bool cbi_keys_inverted(const cbi_keys *keys) {
    return keys->inverted && keys->shape != CBI_KEY_ENCODED;
}

cbi_key_tie cbi_keys_tie(const cbi_keys *keys) {
    return keys->tie;
}

bool cbi_keys_tie_inverted(const cbi_keys *keys) {
    return keys->tie_inverted;
}

size_t cbi_keys_columns(const cbi_keys *keys, const uint32_t **columns) {
    cb_assert(keys->bound);
    *columns = keys->columns;
    return keys->column_count;
}

/* ---- encode ---- */

/* A record that is too short (which formats do not deliver) reads as if zeros followed. */
static void put_fixed_number(cbi_key_writer *w, const cbi_key_part *part,
                             const cbi_key_text *text) {
    uint8_t padded[8] = {0};
    size_t n = (size_t)(text->end - text->begin);
    if (CBI_LIKELY(n == part->bytes)) {
        cbi_key_put_binary(w, part, text->begin);
        return;
    }
    memcpy(padded, text->begin, n);
    cbi_key_put_binary(w, part, padded);
}

static inline void encode_part(cbi_key_writer *w, const cbi_key_part *part,
                               const cbi_key_text *text) {
    switch (part->type) {
        case CBI_KEY_STR: cbi_key_put_str(w, part, text); break;
        case CBI_KEY_NUM: cbi_key_put_num(w, part, text); break;
        case CBI_KEY_FLOAT: cbi_key_put_float(w, part, text); break;
        case CBI_KEY_VER: cbi_key_put_version(w, part, text); break;
        case CBI_KEY_HUMAN: cbi_key_put_human(w, part, text); break;
        case CBI_KEY_MONTH: cbi_key_put_month(w, part, text); break;
        case CBI_KEY_TIME: cbi_key_put_time(w, part, text); break;
        case CBI_KEY_BINARY: put_fixed_number(w, part, text); break;
        case CBI_KEY_GNU_NUM: cbi_key_put_gnu_num(w, part, text); break;
        case CBI_KEY_GNU_GENERAL: cbi_key_put_gnu_general(w, part, text); break;
        case CBI_KEY_GNU_HUMAN: cbi_key_put_gnu_human(w, part, text); break;
        case CBI_KEY_GNU_MONTH: cbi_key_put_gnu_month(w, part, text); break;
        case CBI_KEY_GNU_RANDOM: cbi_key_put_random(w, part, text); break;
    }
}

size_t cbi_keys_encode(const cbi_keys *keys, const cbi_rows *rows, size_t i, uint8_t *out,
                       size_t cap) {
    cb_assert_debug(keys->bound && i < rows->count);
    cbi_key_writer w = {out, cap, 0};
    for (size_t k = 0; k < keys->part_count; k++) {
        const cbi_key_part *part = &keys->parts[k];
        cbi_key_text text = CBI_LIKELY(part->place == CBI_KEY_AT_FIELD)
                                ? cbi_key_field(part, rows, i)
                                : cbi_key_locate(part, rows, i);
        encode_part(&w, part, &text);
    }
    return w.bytes;
}

size_t cbi_keys_encode_null(const cbi_keys *keys, const cbi_rows *rows, size_t i, uint8_t *out,
                            size_t cap, bool *null) {
    cbi_key_writer w = {out, cap, 0};
    *null = false;
    for (size_t k = 0; k < keys->part_count; k++) {
        const cbi_key_part *part = &keys->parts[k];
        cbi_key_text text = CBI_LIKELY(part->place == CBI_KEY_AT_FIELD)
                                ? cbi_key_field(part, rows, i)
                                : cbi_key_locate(part, rows, i);
        size_t before = w.bytes;
        encode_part(&w, part, &text);
        bool marked = part->type != CBI_KEY_STR && part->nulls != CBI_NULLS_NONE && before < cap &&
                      out[before] ==
                          (part->nulls == CBI_NULLS_FIRST ? CBI_KEY_NULL_FIRST : CBI_KEY_NULL_LAST);
        *null |= marked || text.begin == text.end;
    }
    return w.bytes;
}

int cbi_keys_raw_slot(const cbi_keys *keys) {
    const cbi_key_part *part = keys->parts;
    bool raw = keys->part_count == 1 && part->type == CBI_KEY_STR &&
               part->place == CBI_KEY_AT_FIELD && part->raw && part->map == NULL &&
               part->nulls == CBI_NULLS_NONE;
    return raw ? (int)part->slot : -1;
}

size_t cbi_keys_parts(const cbi_keys *keys) {
    return keys->part_count;
}

int64_t cbi_keys_part_column(const cbi_keys *keys, size_t part) {
    const cbi_key_part *p = &keys->parts[part];
    return p->place == CBI_KEY_AT_FIELD || p->place == CBI_KEY_AT_CHARS ? (int64_t)p->column : -1;
}

size_t cbi_keys_text(const cbi_keys *keys, size_t part, const cbi_rows *rows, size_t i,
                     uint8_t *out, size_t cap) {
    const cbi_key_part *p = &keys->parts[part];
    cbi_key_text text =
        p->place == CBI_KEY_AT_FIELD ? cbi_key_field(p, rows, i) : cbi_key_locate(p, rows, i);
    if (p->type != CBI_KEY_STR && p->type != CBI_KEY_VER && p->type != CBI_KEY_BINARY)
        text = cbi_key_trim(&text);
    cbi_key_cursor cursor = cbi_key_cursor_of(&text, NULL);
    size_t bytes = 0;
    for (int c; (c = cbi_key_next(&cursor)) >= 0; bytes++)
        if (bytes < cap)
            out[bytes] = (uint8_t)c;
    return bytes;
}

size_t cbi_keys_encode_text(const cbi_keys *keys, size_t part, const char *text, size_t bytes,
                            uint8_t *out, size_t cap) {
    const uint8_t *begin = (const uint8_t *)text;
    cbi_key_text whole = {.begin = begin, .end = begin + bytes, .base = begin};
    cbi_key_writer w = {out, cap, 0};
    encode_part(&w, &keys->parts[part], &whole);
    return w.bytes;
}
