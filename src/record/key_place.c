/* SPDX-License-Identifier: Apache-2.0 */
#include "record/key_private.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/*
 * Where a part's bytes lie in a row. GNU's rules for positions: without a separator a field is a
 * run of blanks and the run of other bytes after it (so fields begin with their blanks); with one,
 * fields lie between separators. A position past the end of the row is its end, and an end before
 * the start makes an empty key.
 */

static inline const uint8_t *skip_blanks(const uint8_t *p, const uint8_t *end) {
    while (p < end && cbi_key_is_blank(*p))
        p++;
    return p;
}

/*
 * Fields end at events: a separator, or without one a blank after something else. The row is looked
 * at 16 bytes at a time as a bit mask of events. Nothing is read past the row's end; before its
 * start there may be nothing to read either, so rows shorter than 16 bytes go byte by byte.
 */
typedef struct events {
    int separator;
    unsigned carry; /* without a separator: the byte before was a blank (so is the row's start) */
} events;

static inline bool is_event(events *e, uint8_t c) {
    if (e->separator >= 0)
        return c == e->separator;
    unsigned blank = cbi_key_is_blank(c), found = blank & ~e->carry;
    e->carry = blank;
    return found;
}

#ifdef __SSE2__
static inline unsigned block_events(events *e, const uint8_t *at, unsigned skip) {
    __m128i v = _mm_loadu_si128((const __m128i *)(const void *)at);
    if (e->separator >= 0)
        return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8((char)e->separator))) >>
               skip;
    __m128i blanks = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(' ')),
                                  _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')),
                                               _mm_cmpeq_epi8(v, _mm_set1_epi8('\n'))));
    unsigned mask = (unsigned)_mm_movemask_epi8(blanks) >> skip,
             found = mask & ~(mask << 1 | e->carry);
    e->carry = mask >> (15 - skip) & 1;
    return found;
}
#endif

/* The count-th event from p on, or the end. */
static const uint8_t *find_event(const uint8_t *p, const uint8_t *end, size_t count,
                                 int separator) {
    events e = {separator, 1};
    if (count == 0)
        return p;
#ifdef __SSE2__
    if (end - p >= 16) {
        for (unsigned skip = 0; p < end; p += 16 - skip, skip = 0) {
            if (end - p < 16) { /* the last block overlaps what has been seen */
                skip = 16 - (unsigned)(end - p);
            }
            unsigned found = block_events(&e, p - skip, skip);
            for (; found; found &= found - 1) {
                if (--count == 0)
                    return p + __builtin_ctz(found);
            }
        }
        return end;
    }
#endif
    for (; p < end; p++) {
        if (is_event(&e, *p) && --count == 0)
            return p;
    }
    return end;
}

static inline const uint8_t *advance(const uint8_t *p, const uint8_t *end, size_t count) {
    return (size_t)(end - p) < count ? end : p + count;
}

/* The start of field `count`, its blanks included. */
static const uint8_t *skip_fields(const uint8_t *p, const uint8_t *end, size_t count,
                                  int separator) {
    p = find_event(p, end, count, separator);
    return separator >= 0 && count && p < end ? p + 1 : p;
}

static const uint8_t *words_end(const cbi_key_words *words, const uint8_t *p, const uint8_t *end) {
    if (words->end_word == SIZE_MAX)
        return end;
    p = skip_fields(p, end, words->end_word, words->separator);
    if (words->end_char == 0)
        return find_event(p, end, 1, words->separator);
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
    if (words->end_word == words->start_word && words->end_char == 0 && words->start_char == 0 &&
        !words->start_blanks && words->end_word != SIZE_MAX)
        text->end = find_event(p, end, 1, words->separator);
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
    if (part->place == CBI_KEY_AT_CHARS) {
        cbi_key_text field = cbi_key_field(part, rows, i);
        find_chars(&part->words, &field);
        return field;
    }
    const uint8_t *row = rows->base + rows->rows[i].offset;
    size_t bytes = CBI_SPAN_BYTES(rows->rows[i]);
    cbi_key_text text = {row, row + bytes, rows->base, false};
    if (part->place == CBI_KEY_AT_WORDS) {
        find_words(&part->words, &text);
    } else if (part->place == CBI_KEY_AT_FIXED) {
        /* Records have the size that was checked at create; a shorter one still must not be read
         * past its end. */
        text.begin = advance(row, row + bytes, part->offset);
        text.end = advance(text.begin, row + bytes, part->bytes);
    }
    return text;
}
