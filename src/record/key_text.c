/* SPDX-License-Identifier: Apache-2.0 */
#include "record/key_private.h"

#include <string.h>

/*
 * Text as bytes.
 *
 * The last part of an ascending key is the text itself: with nothing behind it, memcmp and "shorter
 * is less" already are its order. Everywhere else a text ends with 0x00, and so that 0x00 is less
 * than anything inside it, the bytes 0x00 and 0x01 are written as 01 01 and 01 02. Real text holds
 * neither, so the common way is one copy that looks for them while it copies.
 */

enum { END = 0x00, ESCAPE = 0x01 };

static const uint64_t ONES = CBI_KEY_ONES;

/* Not zero when a byte of v is 0x00 or 0x01. */
static inline uint64_t has_special(uint64_t v) {
    return (v - ONES * 2) & ~v & ONES * 0x80;
}

/* 16 bytes and more. */
static inline bool copy_long(uint8_t *to, const uint8_t *from, size_t n, uint8_t flip) {
#ifdef __SSE2__
    const __m128i mask = _mm_set1_epi8((char)flip), one = _mm_set1_epi8(1);
    __m128i seen = _mm_setzero_si128();
    for (size_t i = 0;; i = cbi_min(i + 16, n - 16)) {
        __m128i v = _mm_loadu_si128((const __m128i *)(const void *)(from + i));
        seen = _mm_or_si128(seen, _mm_cmpeq_epi8(_mm_min_epu8(v, one), v));
        _mm_storeu_si128((__m128i *)(void *)(to + i), _mm_xor_si128(v, mask));
        if (i + 16 == n)
            break;
    }
    return _mm_movemask_epi8(seen) != 0;
#else
    uint64_t seen = 0;
    for (size_t i = 0;; i = cbi_min(i + 8, n - 8)) {
        uint64_t v = cbi_load_u64(from + i);
        seen |= has_special(v);
        cbi_store_u64(to + i, v ^ ONES * flip);
        if (i + 8 == n)
            break;
    }
    return seen != 0;
#endif
}

/* Copies n bytes, complemented if flip says so; true when one of them needs an escape. */
static inline bool copy_plain(uint8_t *to, const uint8_t *from, size_t n, uint8_t flip) {
    if (n >= 16)
        return copy_long(to, from, n, flip);
    uint64_t seen = 0;
    if (n >= 8) {
        uint64_t a = cbi_load_u64(from), b = cbi_load_u64(from + n - 8);
        seen = has_special(a) | has_special(b);
        cbi_store_u64(to, a ^ ONES * flip);
        cbi_store_u64(to + n - 8, b ^ ONES * flip);
    } else if (n >= 4) {
        uint32_t a = cbi_load_u32(from), b = cbi_load_u32(from + n - 4);
        seen = has_special((uint64_t)b << 32 | a);
        cbi_store_u32(to, a ^ (uint32_t)(ONES * flip));
        cbi_store_u32(to + n - 4, b ^ (uint32_t)(ONES * flip));
    } else {
        for (size_t i = 0; i < n; i++) {
            seen |= from[i] <= ESCAPE;
            to[i] = from[i] ^ flip;
        }
    }
    return seen != 0;
}

static void put_bytes(cbi_key_writer *w, const uint8_t *from, size_t n) {
    if (w->bytes < w->cap && n)
        memcpy(w->out + w->bytes, from, cbi_min(n, w->cap - w->bytes));
    w->bytes += n;
}

/* 8 bytes to upper case. */
static inline uint64_t fold_word(uint64_t v) {
    uint64_t low = v & ONES * 0x7f; /* per byte: is it from 'a' to 'z'? sums stay below 0x100 */
    uint64_t lower =
        (low + ONES * (0x80 - 'a')) & ~(low + ONES * (0x80 - 'z' - 1)) & ~v & ONES * 0x80;
    return v ^ lower >> 2;
}

/* Folded text with room for it, ascending and last: 8 bytes at a time. */
static void put_folded(cbi_key_writer *w, const uint8_t *from, size_t n) {
    uint8_t *to = w->out + w->bytes;
    w->bytes += n;
    if (n < 8) {
        for (size_t i = 0; i < n; i++)
            to[i] = (uint8_t)cbi_key_upper(from[i]);
        return;
    }
    for (size_t i = 0;; i = cbi_min(i + 8, n - 8)) {
        cbi_store_u64(to + i, fold_word(cbi_load_u64(from + i)));
        if (i + 8 == n)
            return;
    }
}

/* What is neither raw nor plain bytes: maps, undone quotes, escapes, and a writer that is full. */
static void put_slowly(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    cbi_key_cursor c = cbi_key_cursor_of(text, part->map);
    if (part->raw) {
        for (int byte = cbi_key_next(&c); byte >= 0; byte = cbi_key_next(&c))
            cbi_key_put(w, (unsigned)byte);
        return;
    }
    unsigned flip = part->flip;
    for (int byte = cbi_key_next(&c); byte >= 0; byte = cbi_key_next(&c)) {
        if (CBI_UNLIKELY(byte <= ESCAPE)) {
            cbi_key_put(w, ESCAPE ^ flip);
            byte++;
        }
        cbi_key_put(w, (unsigned)byte ^ flip);
    }
    cbi_key_put(w, END ^ flip);
}

void cbi_key_put_str(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    size_t n = (size_t)(text->end - text->begin);
    if (part->nulls != CBI_NULLS_NONE) {
        if (n == 0) {
            cbi_key_put_null(w, part);
            return;
        }
        cbi_key_put(w, 0x80);
    }
    if (CBI_LIKELY(!part->map && !text->escaped)) {
        if (part->raw) {
            put_bytes(w, text->begin, n);
            return;
        }
        if (cbi_key_has_room(w, n + 1) &&
            !copy_plain(w->out + w->bytes, text->begin, n, part->flip)) {
            w->out[w->bytes + n] = END ^ part->flip;
            w->bytes += n + 1;
            return;
        }
    }
    if (part->fold && part->raw && !text->escaped && n && cbi_key_has_room(w, n)) {
        put_folded(w, text->begin, n);
        return;
    }
    put_slowly(w, part, text);
}

/* ---- months ---- */

/* 1..12 by the first three letters at `at`, any case; 0 for anything else. */
static unsigned month_of(const uint8_t *at, const uint8_t *end) {
    static const char names[] = "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC";
    if (end - at < 3)
        return 0;
    for (unsigned m = 0; m < 12; m++) {
        const char *name = names + 3 * (size_t)m;
        if (cbi_key_upper(at[0]) == (unsigned char)name[0] &&
            cbi_key_upper(at[1]) == (unsigned char)name[1] &&
            cbi_key_upper(at[2]) == (unsigned char)name[2])
            return m + 1;
    }
    return 0;
}

/* Native: a name of at least three letters (Sep, sept., September) or a number from 1 to 12. */
void cbi_key_put_month(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    cbi_key_text t = cbi_key_trim(text);
    unsigned month = month_of(t.begin, t.end);
    size_t n = (size_t)(t.end - t.begin);
    if (month == 0 && (n == 1 || n == 2) && cbi_key_is_digit(t.begin[0]) &&
        cbi_key_is_digit(t.end[-1])) {
        month = (unsigned)(t.end[-1] - '0') + (n == 2 ? (unsigned)(t.begin[0] - '0') * 10 : 0);
        month = month > 12 ? 0 : month;
    }
    if (month == 0)
        cbi_key_put_null(w, part);
    else
        cbi_key_put(w, month ^ part->flip);
}

/* GNU -M: what is no month comes before January. */
void cbi_key_put_gnu_month(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    const uint8_t *at = text->begin;
    while (at < text->end && cbi_key_is_blank(*at))
        at++;
    cbi_key_put(w, month_of(at, text->end) ^ part->flip);
}

/* ---- random order ---- */

/*
 * GNU -R orders by a keyed hash, equal keys side by side. Here it is SipHash-2-4 with 128 bits of
 * result and a fixed key, so that a sort can be repeated; keys that differ share a hash once in
 * 2^64 pairs at most.
 */
typedef struct sip {
    uint64_t v0, v1, v2, v3;
} sip;

static inline uint64_t rotate(uint64_t v, unsigned by) {
    return v << by | v >> (64 - by);
}

static inline void sip_rounds(sip *s, unsigned count) {
    for (; count; count--) {
        s->v0 += s->v1;
        s->v1 = rotate(s->v1, 13) ^ s->v0;
        s->v0 = rotate(s->v0, 32);
        s->v2 += s->v3;
        s->v3 = rotate(s->v3, 16) ^ s->v2;
        s->v0 += s->v3;
        s->v3 = rotate(s->v3, 21) ^ s->v0;
        s->v2 += s->v1;
        s->v1 = rotate(s->v1, 17) ^ s->v2;
        s->v2 = rotate(s->v2, 32);
    }
}

static inline void sip_word(sip *s, uint64_t word) {
    s->v3 ^= word;
    sip_rounds(s, 2);
    s->v0 ^= word;
}

void cbi_key_put_random(cbi_key_writer *w, const cbi_key_part *part, const cbi_key_text *text) {
    static const uint64_t key0 = UINT64_C(0x63617262696465), key1 = UINT64_C(0x9e3779b97f4a7c15);
    sip s = {key0 ^ UINT64_C(0x736f6d6570736575), key1 ^ UINT64_C(0x646f72616e646f6d) ^ 0xee,
             key0 ^ UINT64_C(0x6c7967656e657261), key1 ^ UINT64_C(0x7465646279746573)};
    cbi_key_cursor c = cbi_key_cursor_of(text, part->map);
    uint64_t word = 0, count = 0;
    for (int byte = cbi_key_next(&c); byte >= 0; byte = cbi_key_next(&c)) {
        word |= (uint64_t)byte << (count % 8 * 8);
        if (++count % 8 == 0) {
            sip_word(&s, word);
            word = 0;
        }
    }
    sip_word(&s, word | count << 56);
    s.v2 ^= 0xee;
    sip_rounds(&s, 4);
    uint64_t flip = part->flip ? UINT64_MAX : 0;
    cbi_key_put_be(w, s.v0 ^ s.v1 ^ s.v2 ^ s.v3 ^ flip, 8);
    s.v1 ^= 0xdd;
    sip_rounds(&s, 4);
    cbi_key_put_be(w, s.v0 ^ s.v1 ^ s.v2 ^ s.v3 ^ flip, 8);
}
