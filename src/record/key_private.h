/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_KEY_PRIVATE_H
#define CBI_KEY_PRIVATE_H

#include "record/key.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/*
 * What the files of keys share. A row's key is the concatenation of its parts; each part is found
 * by key_place.c and written by one cbi_key_put_*.
 *
 * The law for everything that writes a part: its byte string is prefix-free (no value's string is
 * the beginning of another value's), so that parts can follow each other and so that the complement
 * of every byte is the reverse order. `flip` (0x00 or 0xff) is that complement and is applied while
 * writing. The only exception is a text part that is the last of its key and not flipped: it may be
 * raw.
 */

typedef enum cbi_key_type {
    CBI_KEY_STR,
    CBI_KEY_NUM, /* also INT: `integer` */
    CBI_KEY_FLOAT,
    CBI_KEY_VER, /* GNU -V as well: the same order */
    CBI_KEY_HUMAN,
    CBI_KEY_MONTH,
    CBI_KEY_TIME,
    CBI_KEY_BINARY, /* u8 ... f64be in fixed records */
    CBI_KEY_GNU_NUM,
    CBI_KEY_GNU_GENERAL,
    CBI_KEY_GNU_HUMAN,
    CBI_KEY_GNU_MONTH,
    CBI_KEY_GNU_RANDOM
} cbi_key_type;

typedef enum cbi_key_place {
    CBI_KEY_AT_ROW,
    CBI_KEY_AT_WORDS, /* GNU: two positions counted in fields of the row */
    CBI_KEY_AT_FIELD, /* a field that the scanner delivers */
    CBI_KEY_AT_CHARS, /* some bytes of such a field */
    CBI_KEY_AT_FIXED  /* `offset`, `bytes` of the row */
} cbi_key_place;

typedef enum cbi_key_nulls { CBI_NULLS_NONE, CBI_NULLS_FIRST, CBI_NULLS_LAST } cbi_key_nulls;

typedef enum cbi_key_binary {
    CBI_BINARY_UNSIGNED,
    CBI_BINARY_SIGNED,
    CBI_BINARY_IEEE
} cbi_key_binary;

enum { CBI_KEY_IGNORED = 0x100 };

/* A GNU position pair. Counts are 0-based as GNU keeps them; SIZE_MAX means the row's start or end.
 */
typedef struct cbi_key_words {
    size_t start_word, start_char;
    size_t end_word, end_char;     /* end_char 0: to the end of end_word */
    bool start_blanks, end_blanks; /* b: leading blanks do not count */
    int separator;                 /* -1: runs of blanks */
} cbi_key_words;

typedef struct cbi_key_part {
    cbi_key_type type;
    cbi_key_place place;
    cbi_key_nulls nulls;
    uint8_t flip;    /* 0xff: descending */
    bool raw;        /* STR: nothing follows, so no escapes and no end mark */
    bool integer;    /* NUM */
    bool fold;       /* the map does nothing but fold to upper case (GNU_HUMAN: m becomes M) */
    bool big_endian; /* BINARY */
    cbi_key_binary binary;
    const uint16_t *map;   /* byte -> byte or CBI_KEY_IGNORED; NULL: as it is */
    cbi_key_words words;   /* AT_WORDS, AT_CHARS (characters and blanks only) */
    uint32_t column, slot; /* AT_FIELD, AT_CHARS: 0-based column and its place in cbi_rows.fields */
    size_t offset, bytes;  /* AT_FIXED */
    size_t key;            /* index of the key text it comes from */
    char *name;            /* column name still to be looked up; owned */
} cbi_key_part;

struct cbi_keys {
    cbi_key_part *parts;
    size_t part_count, part_capacity;
    uint32_t *columns; /* ascending, each once */
    size_t column_count;
    char **texts; /* the keys as they were given, for messages */
    size_t text_count;
    uint16_t maps[8][256]; /* by CBI_MAP_* combination; parts point into it */
    cbi_key_shape shape;
    size_t slice_offset, slice_bytes;
    bool inverted;
    cbi_key_tie tie;
    bool tie_inverted;
    bool bound;
};

/* ---- what is read ---- */

typedef struct cbi_key_text {
    const uint8_t *begin, *end;
    const uint8_t *base; /* bytes from here on may be read too (a chunk's start, at most `begin`) */
    bool escaped;        /* "" stands for " */
} cbi_key_text;

static inline bool cbi_key_is_digit(unsigned c) {
    return c - '0' <= 9;
}
/* The bytes that separate GNU's fields in the C locale. */
static inline bool cbi_key_is_blank(unsigned c) {
    return c == ' ' || c == '\t' || c == '\n';
}
static inline bool cbi_key_is_alpha(unsigned c) {
    return (c | 0x20u) - 'a' < 26;
}
static inline unsigned cbi_key_upper(unsigned c) {
    return c - 'a' < 26 ? c - 32 : c;
}

/** One byte after the other, quotes undone and the map applied; -1 at the end. Copies are
 * independent. */
typedef struct cbi_key_cursor {
    const uint8_t *at, *end;
    const uint16_t *map;
    bool escaped;
} cbi_key_cursor;

static inline cbi_key_cursor cbi_key_cursor_of(const cbi_key_text *text, const uint16_t *map) {
    return (cbi_key_cursor){text->begin, text->end, map, text->escaped};
}

static inline int cbi_key_next(cbi_key_cursor *c) {
    while (c->at < c->end) {
        unsigned byte = *c->at++;
        if (c->escaped && byte == '"' && c->at < c->end && *c->at == '"')
            c->at++;
        if (!c->map)
            return (int)byte;
        if (c->map[byte] != CBI_KEY_IGNORED)
            return c->map[byte];
    }
    return -1;
}

/* ---- what is written ---- */

typedef struct cbi_key_writer {
    uint8_t *out;
    size_t cap;
    size_t bytes; /* the size so far, also past cap; out is never written past cap */
} cbi_key_writer;

static inline bool cbi_key_has_room(const cbi_key_writer *w, size_t bytes) {
    return w->bytes <= w->cap && w->cap - w->bytes >= bytes;
}

static inline void cbi_key_put(cbi_key_writer *w, unsigned byte) {
    if (w->bytes < w->cap)
        w->out[w->bytes] = (uint8_t)byte;
    w->bytes++;
}

/** The low `bytes` (1..8) bytes of v, most significant first. */
static inline void cbi_key_put_be(cbi_key_writer *w, uint64_t v, unsigned bytes) {
    uint64_t first = __builtin_bswap64(v << (64 - 8 * bytes));
    if (CBI_LIKELY(cbi_key_has_room(w, 8))) {
        cbi_store_u64(w->out + w->bytes, first);
        w->bytes += bytes;
        return;
    }
    for (unsigned i = 0; i < bytes; i++)
        cbi_key_put(w, (unsigned)(first >> (8 * i)) & 0xff);
}

/* Null marks are written as they are, whatever the direction: no other string of a part begins with
 * them. */
enum { CBI_KEY_NULL_FIRST = 0x00, CBI_KEY_NULL_LAST = 0xff };

static inline void cbi_key_put_null(cbi_key_writer *w, const cbi_key_part *part) {
    cbi_key_put(w, part->nulls == CBI_NULLS_FIRST ? CBI_KEY_NULL_FIRST : CBI_KEY_NULL_LAST);
}

/* key_text.c */
void cbi_key_put_str(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
void cbi_key_put_month(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
void cbi_key_put_gnu_month(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
void cbi_key_put_random(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
/* key_version.c */
void cbi_key_put_version(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
/* key_number.c */
void cbi_key_put_num(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
void cbi_key_put_human(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
void cbi_key_put_gnu_num(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
void cbi_key_put_gnu_human(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
/* key_float.c */
/** The whole text (without blanks around it) as the nearest double; false: it is no number. */
bool cbi_key_read_float(const cbi_key_text *text, double *value);
void cbi_key_put_float(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
void cbi_key_put_gnu_general(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);
void cbi_key_put_binary(cbi_key_writer *w, const cbi_key_part *part, const uint8_t *bytes);
/* key_time.c */
void cbi_key_put_time(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text);

/**
 * A decimal number on its way into a key: digits [digits, point) before the point and [fraction,
 * end) after it, times 10^exponent. Any length; leading and trailing zeros do not matter.
 */
typedef struct cbi_key_decimal {
    const uint8_t *digits, *point, *fraction, *end;
    const uint8_t *base; /* as in cbi_key_text */
    int64_t exponent;    /* saturated to +-CBI_EXPONENT_MAX */
    bool negative;
} cbi_key_decimal;

#define CBI_EXPONENT_MAX INT64_C(1000000000000000000)

/** A whole text that is [-]digits[.digits] with at most 16 of these bytes, looked at in one go;
 * false for all others. */
static inline bool cbi_key_whole_decimal(const uint8_t *begin, const uint8_t *end,
                                         const uint8_t *base, cbi_key_decimal *d) {
#ifdef __SSE2__
    d->negative = begin < end && *begin == '-';
    begin += d->negative;
    size_t n = (size_t)(end - begin);
    if (n - 1 >= 16 || end - base < 16)
        return false;
    __m128i v = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(const void *)(end - 16)),
                             _mm_set1_epi8('0'));
    unsigned digits =
        (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v));
    unsigned others = ~digits & (0xffffu << (16 - n)) & 0xffffu;
    d->digits = begin;
    d->point = d->fraction = d->end = end;
    d->base = base;
    d->exponent = 0;
    if (others == 0)
        return true;
    const uint8_t *point = end - 16 + __builtin_ctz(others);
    d->point = point;
    d->fraction = point + 1;
    return *point == '.' && (others & (others - 1)) == 0 && n > 1;
#else
    (void)begin, (void)end, (void)base, (void)d;
    return false;
#endif
}

#define CBI_KEY_ONES UINT64_C(0x0101010101010101)

/* The n <= 8 digits that end at `end`, as values, right-aligned in memory order (the high bytes),
 * zeros before them. */
static inline uint64_t cbi_key_load_digits(const uint8_t *end, size_t n, const uint8_t *base) {
    if (n == 0)
        return 0;
    if (CBI_LIKELY(end - base >= 8))
        return (cbi_load_u64(end - 8) & (UINT64_MAX << (64 - 8 * n))) & (CBI_KEY_ONES * 0x0f);
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++)
        v |= (uint64_t)(end[-1 - (ptrdiff_t)i] & 0x0f) << (56 - 8 * i);
    return v;
}

/** Reads [+-]digits[.digits][(e|E)[+-]digits] from *at on and advances it; false (nothing moved)
 * when there is no digit. `exponent` allows that suffix, `plus` a leading +. */
bool cbi_key_scan_decimal(const uint8_t **at, const cbi_key_text *text, bool plus, bool exponent,
                          cbi_key_decimal *number);
void cbi_key_put_decimal(cbi_key_writer *w, uint8_t flip, const cbi_key_decimal *number);

/** Blanks, CR included, around a native value do not count. */
static inline cbi_key_text cbi_key_trim(const cbi_key_text *text) {
    cbi_key_text t = *text;
    while (t.begin < t.end && (cbi_key_is_blank(*t.begin) || *t.begin == '\r'))
        t.begin++;
    while (t.begin < t.end && (cbi_key_is_blank(t.end[-1]) || t.end[-1] == '\r'))
        t.end--;
    return t;
}

static inline cbi_key_text cbi_key_field(const cbi_key_part *part, const cbi_rows *rows, size_t i) {
    cb_assert_debug(part->slot < rows->field_count);
    cbi_span span = rows->fields[i * rows->field_count + part->slot];
    const uint8_t *p = rows->base + span.offset;
    return (cbi_key_text){p, p + CBI_SPAN_BYTES(span), rows->base,
                          (span.bytes & CBI_SPAN_ESCAPED) != 0};
}

/* key_place.c: every other place */
cbi_key_text cbi_key_locate(const cbi_key_part *part, const cbi_rows *rows, size_t i);

/* key.c */
enum { CBI_MAP_FOLD = 1, CBI_MAP_DICTIONARY = 2, CBI_MAP_PRINTABLE = 4 };

/* GNU's ordering letters. */
typedef struct cbi_key_order {
    bool start_blanks, end_blanks, dictionary, printable, fold, general, human, month, numeric,
        random, reverse, version;
} cbi_key_order;

/* key.c */
cb_status cbi_keys_add_part(cbi_keys *keys, const cbi_key_part *part, cb_error *err);

/* key_gnu.c */
/** Reads a KEYDEF; with `gnu` the messages are GNU's. Adds nothing anywhere. */
cb_status cbi_key_read_gnu(const cbi_keys_options *options, size_t key, cbi_key_words *words,
                           cbi_key_order *order, cb_error *err);
cb_status cbi_key_parse_gnu(cbi_keys *keys, const cbi_keys_options *options,
                            const cbi_key_order *global, size_t key, cb_error *err);
cb_status cbi_key_order_parse(const char *letters, cbi_key_order *order, cb_error *err);
/** The whole row, by the global letters. */
cb_status cbi_key_add_row(cbi_keys *keys, const cbi_key_order *global, cb_error *err);
/** No letter but r: bytes decide. */
bool cbi_key_order_plain(const cbi_key_order *order);
/** GNU's check, with its message. */
cb_status cbi_key_order_check(const cbi_key_order *order, cb_error *err);
/** Type, direction, map of a part by GNU's letters. */
void cbi_key_order_apply(const cbi_keys *keys, const cbi_key_order *order, cbi_key_part *part);
/** The columns of a CSV or TSV key may have numbers up to this. */
enum { CBI_KEY_COLUMN_MAX = 1 << 20, CBI_KEY_SPAN_MAX = 256 };

/* key_parse.c */
cb_status cbi_key_parse_native(cbi_keys *keys, const cbi_keys_options *options,
                               const cbi_key_order *global, size_t key, cb_error *err);
/** The candidate nearest to `word` if it is near enough to have been meant, or NULL. */
const char *cbi_key_did_you_mean(const char *word, size_t bytes, const char *const *candidates,
                                 size_t count);

#endif
