/* SPDX-License-Identifier: Apache-2.0 */
#include "record/key_private.h"

#include <string.h>

/*
 * Where a part's bytes lie in a row. GNU's rules for positions: without a separator a field is a run of blanks and the
 * run of other bytes after it (so fields begin with their blanks); with one, fields lie between separators. A position
 * past the end of the row is its end, and an end before the start makes an empty key.
 */

static inline const uint8_t *skip_blanks(const uint8_t *p, const uint8_t *end) {
    while (p < end && cbi_key_is_blank(*p))
        p++;
    return p;
}

static inline const uint8_t *skip_word(const uint8_t *p, const uint8_t *end) {
    p = skip_blanks(p, end);
    while (p < end && !cbi_key_is_blank(*p))
        p++;
    return p;
}

/* The next separator, or the end. Fields are short; a call to memchr costs more than it saves until they are not. */
static inline const uint8_t *find_separator(const uint8_t *p, const uint8_t *end, uint8_t separator) {
    for (unsigned i = 0; i < 32; i++, p++) {
        if (p == end || *p == separator)
            return p;
    }
    const uint8_t *found = memchr(p, separator, (size_t)(end - p));
    return found ? found : end;
}

static inline const uint8_t *advance(const uint8_t *p, const uint8_t *end, size_t count) {
    return (size_t)(end - p) < count ? end : p + count;
}

/* The start of field `count`, blanks included. */
static const uint8_t *skip_fields(const uint8_t *p, const uint8_t *end, size_t count, int separator) {
    if (separator < 0) {
        for (; count && p < end; count--)
            p = skip_word(p, end);
        return p;
    }
    for (; count && p < end; count--) {
        p = find_separator(p, end, (uint8_t)separator);
        p += p < end;
    }
    return p;
}

static const uint8_t *words_end(const cbi_key_words *words, const uint8_t *p, const uint8_t *end) {
    if (words->end_word == SIZE_MAX)
        return end;
    p = skip_fields(p, end, words->end_word, words->separator);
    if (words->end_char == 0) {
        if (words->separator < 0)
            return skip_word(p, end);
        return find_separator(p, end, (uint8_t)words->separator);
    }
    if (words->end_blanks)
        p = skip_blanks(p, end);
    return advance(p, end, words->end_char);
}

static void find_words(const cbi_key_words *words, cbi_key_text *text) {
    const uint8_t *row = text->begin, *end = text->end, *p = row;
    if (words->start_word != SIZE_MAX)
        p = skip_fields(row, end, words->start_word, words->separator);
    if (words->start_blanks)
        p = skip_blanks(p, end);
    if (words->start_word != SIZE_MAX)
        p = advance(p, end, words->start_char);
    text->begin = p;
    /* Most keys end in the field they begin in: no need to walk the row a second time. */
    if (words->end_word == words->start_word && words->end_char == 0 && words->start_char == 0 && !words->start_blanks &&
        words->end_word != SIZE_MAX)
        text->end = words->separator < 0 ? skip_word(p, end) : find_separator(p, end, (uint8_t)words->separator);
    else
        text->end = words_end(words, row, end);
    if (text->end < p)
        text->end = p;
}

/* `count` characters on in a field; a doubled quote is one. */
static const uint8_t *advance_chars(const cbi_key_text *text, const uint8_t *p, size_t count) {
    if (!text->escaped)
        return advance(p, text->end, count);
    for (; count && p < text->end; count--) {
        bool pair = *p == '"' && text->end - p > 1 && p[1] == '"';
        p += pair ? 2 : 1;
    }
    return p;
}

static void find_chars(const cbi_key_words *words, cbi_key_text *text) {
    const uint8_t *field = text->begin, *p = field, *end = text->end;
    if (words->start_blanks)
        p = skip_blanks(p, end);
    p = advance_chars(text, p, words->start_char);
    if (words->end_char) {
        const uint8_t *q = words->end_blanks ? skip_blanks(field, end) : field;
        end = advance_chars(text, q, words->end_char);
    }
    text->begin = p;
    text->end = end < p ? p : end;
}

cbi_key_text cbi_key_locate(const cbi_key_part *part, const cbi_rows *rows, size_t i) {
    if (part->place == CBI_KEY_AT_FIELD || part->place == CBI_KEY_AT_CHARS) {
        cb_assert_debug(part->slot < rows->field_count);
        cbi_span span = rows->fields[i * rows->field_count + part->slot];
        const uint8_t *p = rows->base + span.offset;
        cbi_key_text field = {p, p + CBI_SPAN_BYTES(span), rows->base, (span.bytes & CBI_SPAN_ESCAPED) != 0};
        if (CBI_UNLIKELY(part->place == CBI_KEY_AT_CHARS))
            find_chars(&part->words, &field);
        return field;
    }
    const uint8_t *row = rows->base + rows->rows[i].offset;
    size_t bytes = CBI_SPAN_BYTES(rows->rows[i]);
    cbi_key_text text = {row, row + bytes, rows->base, false};
    if (part->place == CBI_KEY_AT_WORDS) {
        find_words(&part->words, &text);
    } else if (part->place == CBI_KEY_AT_FIXED) {
        /* Records have the size that was checked at create; a shorter one still must not be read past its end. */
        text.begin = advance(row, row + bytes, part->offset);
        text.end = advance(text.begin, row + bytes, part->bytes);
    }
    return text;
}
