/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block of rows as LZ4, for less work than LZ4's own search, and in no more bytes.
 *
 * Rows of one exchange have the same columns, so a row mostly differs from the last one of its size
 * in a few places, and always at the same ones. Instead of hashing what comes byte after byte, two
 * rows are compared 64 bytes at a time, and each run of equal bytes is a match whose distance is
 * that of the rows. A run that follows bytes which differ is looked up once, by those two bytes and
 * two of its own: where an earlier row had them too, the match begins two bytes sooner.
 *
 * Where rows begin is found in the bytes themselves: a row is framed by its size, big endian, a
 * multiple of eight, so one begins where several such frames follow each other. Nothing depends on
 * that being right: what is no row only leads to few matches, and the caller, who tries both from
 * time to time, takes LZ4's own search for such data.
 *
 * The format's rules: a match has at least 4 bytes, lies at most 65,535 back, and the last 5 bytes
 * are literals. That none begins in the last 16 (12 would do) lets literals be copied 16 at a time.
 */
#include <string.h>

#include "operator/shuffle_private.h"

#ifdef __SSE2__
#include <emmintrin.h>

enum {
    FRAME_BYTES = 4,
    ROW_BYTES_MIN = 16,
    FRAMES_SURE = 8, /* so many in a row are no accident */
    MATCH_MIN = 4,
    NO_MATCH_TAIL = 16,
    LITERAL_TAIL = 5,
    SIZES = 64,
    SEEN_BITS = 11,
    NIBBLE_MAX = 15,
    MASK_BYTES = 64,
    GAP_BYTES = 2 /* of what differs, in what is looked up */
};

typedef struct tables {
    uint16_t row[SIZES];           /* the last one of a size, plus one */
    uint16_t seen[1 << SEEN_BITS]; /* where a word was last */
} tables;

typedef struct writer {
    tables *t;
    const uint8_t *in;
    size_t count;
    size_t written; /* up to here */
    uint8_t *at;
    uint32_t period; /* of looking up, in rows; 0: never */
    bool looks_up;   /* in this row */
} writer;

size_t cbi_rows_state_bytes(void) {
    return sizeof(tables);
}

/* ---- what LZ4 is made of ---- */

/** The part of a length that does not fit in a nibble. */
static uint8_t *put_rest(uint8_t *at, size_t rest) {
    for (; rest >= UINT8_MAX; rest -= UINT8_MAX) {
        *at++ = UINT8_MAX;
    }
    *at++ = (uint8_t)rest;
    return at;
}

static inline uint8_t *put_literals(writer *w, size_t count) {
    const uint8_t *from = w->in + w->written;
    uint8_t *at = w->at + 1;
    if (CBI_UNLIKELY(count >= NIBBLE_MAX)) {
        *w->at = NIBBLE_MAX << 4;
        at = put_rest(at, count - NIBBLE_MAX);
    } else {
        *w->at = (uint8_t)(count << 4);
    }
    size_t i = 0;
    do { /* 16 at a time: what is too much is written over */
        memcpy(at + i, from + i, 16);
        i += 16;
    } while (CBI_UNLIKELY(i < count));
    return at + count;
}

/** Literals up to `start`, and the match from there to `stop`. */
static inline void put_match(writer *w, size_t start, size_t stop, size_t distance) {
    uint8_t *token = w->at, *at = put_literals(w, start - w->written);
    size_t length = stop - start - MATCH_MIN;
    *at++ = (uint8_t)distance;
    *at++ = (uint8_t)(distance >> 8);
    if (length < NIBBLE_MAX) {
        *token |= (uint8_t)length;
    } else {
        *token |= NIBBLE_MAX;
        at = put_rest(at, length - NIBBLE_MAX);
    }
    w->at = at;
    w->written = stop;
}

static void put_tail(writer *w) {
    size_t count = w->count - w->written;
    uint8_t *at = w->at + 1;
    *w->at = (uint8_t)(cbi_min(count, NIBBLE_MAX) << 4);
    if (count >= NIBBLE_MAX) {
        at = put_rest(at, count - NIBBLE_MAX);
    }
    memcpy(at, w->in + w->written, count);
    w->at = at + count;
}

/* ---- matches ---- */

/** How far what lies at `from` is the same as what lies so far before it. */
static inline size_t match_stop(const writer *w, size_t from, size_t distance) {
    size_t end = w->count - LITERAL_TAIL, at = from;
    for (; at + 8 <= end; at += 8) {
        uint64_t differs = cbi_load_u64(w->in + at) ^ cbi_load_u64(w->in + at - distance);
        if (differs != 0) {
            return at + ((unsigned)__builtin_ctzll(differs) >> 3);
        }
    }
    while (at < end && w->in[at] == w->in[at - distance]) {
        at++;
    }
    return at;
}

static inline uint64_t equal_bytes(const uint8_t *a, const uint8_t *b) {
    uint64_t mask = 0;
    for (unsigned i = 0; i < MASK_BYTES; i += 16) {
        __m128i equal = _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i_u *)(const void *)(a + i)),
                                       _mm_loadu_si128((const __m128i_u *)(const void *)(b + i)));
        mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(equal) << i;
    }
    return mask;
}

/** A bit for each of 64 bytes from `at` on: it is the same as the one so far before it. */
static inline uint64_t equal_mask(const writer *w, size_t at, size_t distance) {
    const uint8_t *bytes = w->in + at;
    if (CBI_LIKELY(at + MASK_BYTES <= w->count - LITERAL_TAIL)) {
        return equal_bytes(bytes, bytes - distance);
    }
    uint8_t here[MASK_BYTES] = {0}, before[MASK_BYTES] = {0};
    size_t left = w->count - LITERAL_TAIL - at;
    memcpy(here, bytes, left);
    memcpy(before, bytes - distance, left);
    return equal_bytes(here, before) & ((UINT64_C(1) << left) - 1);
}

/** An earlier match that also has the two bytes before a run, and goes as far: it is written. */
static inline bool put_longer(writer *w, size_t start, size_t *stop) {
    size_t place = start - GAP_BYTES;
    uint32_t word = cbi_load_u32(w->in + place);
    uint16_t *seen = &w->t->seen[(word * 2654435761u) >> (32 - SEEN_BITS)];
    size_t before = *seen;
    *seen = (uint16_t)place;
    if (before >= place || cbi_load_u32(w->in + before) != word) {
        return false;
    }
    size_t distance = place - before, end = match_stop(w, place + MATCH_MIN, distance);
    if (end < *stop) {
        return false;
    }
    put_match(w, place, end, distance);
    *stop = end;
    return true;
}

/** A run of equal bytes, or a longer match, is written; where it ends. */
static inline size_t put_run(writer *w, size_t start, size_t stop, size_t distance) {
    if (!w->looks_up || start < w->written + GAP_BYTES || !put_longer(w, start, &stop)) {
        put_match(w, start, stop, distance);
    }
    return stop;
}

/** The runs in 64 bytes from `base` on; where to go on. */
static inline size_t put_runs(writer *w, size_t base, uint64_t mask, size_t distance) {
    for (;;) {
        uint64_t starts = mask & (mask >> 1);
        starts &= starts >> 2;
        if (starts == 0) {
            return base + MASK_BYTES - (MATCH_MIN - 1);
        }
        unsigned first = (unsigned)__builtin_ctzll(starts);
        uint64_t ends = ~mask >> first;
        size_t start = base + first;
        if (start > w->count - NO_MATCH_TAIL) {
            return w->count;
        }
        size_t stop = ends != 0 ? start + (unsigned)__builtin_ctzll(ends)
                                : match_stop(w, base + MASK_BYTES, distance);
        stop = put_run(w, start, stop, distance);
        if (stop - base > MASK_BYTES - MATCH_MIN) {
            return stop;
        }
        mask &= UINT64_MAX << (stop - base);
    }
}

/* ---- rows ---- */

static inline size_t row_bytes(const uint8_t *frame) {
    return FRAME_BYTES + (size_t)__builtin_bswap32(cbi_load_u32(frame));
}

static inline bool is_frame(const writer *w, size_t at) {
    size_t bytes = row_bytes(w->in + at);
    return bytes % 8 == FRAME_BYTES && bytes >= FRAME_BYTES + ROW_BYTES_MIN && bytes < w->count;
}

/** Where the first row begins that begins here; `count`: none does. */
static size_t first_row(const writer *w) {
    for (size_t start = 0; start < w->count / FRAMES_SURE; start++) {
        size_t at = start, frames = 0;
        while (frames < FRAMES_SURE && at + FRAME_BYTES <= w->count && is_frame(w, at)) {
            at += row_bytes(w->in + at);
            frames++;
        }
        if (frames == FRAMES_SURE) {
            return start;
        }
    }
    return w->count;
}

static void put_rows(writer *w, size_t row) {
    size_t last_start = w->count - NO_MATCH_TAIL, before = 0; /* plus one */
    uint32_t rows = 0;
    while (row < last_start && is_frame(w, row)) {
        size_t bytes = row_bytes(w->in + row), end = cbi_min(row + bytes, last_start);
        uint16_t *same = &w->t->row[bytes / 8 % SIZES];
        size_t other = *same != 0 ? *same : before;
        *same = (uint16_t)(row + 1);
        before = row + 1;
        w->looks_up = w->period != 0 && rows++ % w->period == 0;
        if (other > 0) {
            size_t distance = row + 1 - other;
            for (size_t at = cbi_max(row, w->written); at < end;) {
                at = put_runs(w, at, equal_mask(w, at, distance), distance);
            }
        }
        row += bytes;
    }
}

size_t cbi_rows_encode(void *state, uint32_t period, uint8_t *to, const uint8_t *bytes,
                       uint32_t count) {
    if (count < CBI_ROWS_BYTES_MIN || count > UINT16_MAX) {
        return 0;
    }
    writer w = {.t = state, .in = bytes, .count = count, .at = to, .period = period};
    size_t row = first_row(&w);
    if (row == count) {
        return 0;
    }
    memset(state, 0, sizeof(tables));
    put_rows(&w, row);
    put_tail(&w);
    return (size_t)(w.at - to);
}

#else

size_t cbi_rows_state_bytes(void) {
    return 1;
}

size_t cbi_rows_encode(void *state, uint32_t period, uint8_t *to, const uint8_t *bytes,
                       uint32_t count) {
    (void)state;
    (void)period;
    (void)to;
    (void)bytes;
    (void)count;
    return 0;
}

#endif
