/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The scanners, written once and compiled once a level: each scan_LEVEL.c defines the macros below
 * and includes this file. There is no include guard for that reason.
 *
 *   KERNEL         what stands before each function: static, and the target attribute of the level
 *   KERNEL_INLINE  the same for what must vanish into its caller
 *   kernel_load    64 bytes -> kernel_block
 *   kernel_eq      kernel_block, byte -> 64-bit mask of the places where it stands
 *   kernel_flatten mask, base, out -> writes base + the place of every bit, may write 64 entries,
 * answers how many count
 *
 * How a delimited row is found. Stage 1 goes over blocks of 64 bytes: one mask of everything that
 * ends a field, its bits written out as positions; for each row end, its ordinal among them. A
 * block with quotes takes a prefix XOR of the quote mask, which says for every byte whether it
 * stands inside quotes, and masks off what does. Stage 2 looks only at row ends: a row with the
 * right number of fields is one whose end is exactly `columns` ordinals behind the last one, so the
 * check for ragged rows costs one subtraction a row, and only the columns asked for are ever
 * touched.
 *
 * A quote is allowed at the start of a field, at its end, and doubled. The masks check that for a
 * whole block at once; what breaks the rule, and every row that has the wrong number of fields,
 * goes to the exact reader (csv.c), which is slow and says what is wrong. So this file never has to
 * describe an error, it has only to notice one.
 */

#include <string.h>

enum {
    KERNEL_POSITIONS =
        1024,         /* of the batch: 4 KiB of stack, in L1 together with what it points into */
    KERNEL_SLACK = 72 /* what one block can add, and the end that a last row lacks */
};

/* Each bit says: an odd number of quotes up to and including here. */
KERNEL_INLINE uint64_t kernel_prefix_xor(uint64_t m) {
    m ^= m << 1;
    m ^= m << 2;
    m ^= m << 4;
    m ^= m << 8;
    m ^= m << 16;
    m ^= m << 32;
    return m;
}

/* What one block hands to the next: bit 0 or all bits. */
typedef struct kernel_carry {
    uint64_t inside;     /* all ones inside quotes */
    uint64_t structural; /* 1: the byte before ended a field or a row */
    uint64_t closing;    /* 1: the byte before was a quote that ended a quoted part */
    uint64_t closing_cr; /* 1: the byte before was a CR behind such a quote */
} kernel_carry;

/**
 * A block with quotes in it or around it: what ends fields outside quotes; *bad are the places that
 * break the rule.
 */
KERNEL_INLINE uint64_t kernel_quoted(kernel_block block, uint64_t quote, uint64_t ends,
                                     uint64_t term, bool strip_cr, kernel_carry *carry,
                                     uint64_t *bad) {
    uint64_t inside = kernel_prefix_xor(quote) ^ carry->inside;
    uint64_t opening = quote & inside, closing = quote & ~inside;
    uint64_t structural = ends & ~inside;
    uint64_t after_structural = structural << 1 | carry->structural;
    uint64_t after_closing = closing << 1 | carry->closing;
    uint64_t cr = strip_cr ? kernel_eq(block, '\r') : 0;
    uint64_t cr_end = after_closing & cr & ~inside;
    uint64_t after_cr_end = cr_end << 1 | carry->closing_cr;

    *bad = (opening & ~(after_structural | after_closing)) |
           (after_closing & ~(structural | opening | cr_end)) |
           (after_cr_end & ~(structural & term));
    carry->inside = 0 - (inside >> 63);
    carry->structural = structural >> 63;
    carry->closing = closing >> 63;
    carry->closing_cr = cr_end >> 63;
    return structural;
}

/* The span of one field without its quotes. */
KERNEL_INLINE cbi_span kernel_field(const uint8_t *base, uint32_t start, uint32_t end, bool quotes,
                                    bool strip_cr) {
    if (strip_cr && end > start && base[end - 1] == '\r')
        end--;
    cbi_span span = {start, end - start};
    if (quotes && end > start && base[start] == '"') {
        span.offset = start + 1;
        span.bytes = end - start - 2;
        if (memchr(base + span.offset, '"', span.bytes))
            span.bytes |= CBI_SPAN_ESCAPED;
    }
    return span;
}

/* A scan between two batches. positions[0] is the end of the row before the first. */
typedef struct kernel_scan {
    size_t cursor;   /* of the next block */
    uint32_t bad_at; /* the first place that breaks the rules, UINT32_MAX without one */
    bool quotes;     /* seen so far: fields may have some */
    kernel_carry carry;
    uint32_t count, row_count;
    uint32_t positions[KERNEL_POSITIONS + KERNEL_SLACK];
    uint16_t rows[KERNEL_POSITIONS + KERNEL_SLACK]; /* ordinals of row ends */
} kernel_scan;

/* The block at the cursor; *valid are the bytes that are there, copied so that nobody reads beyond
 * them. */
KERNEL_INLINE kernel_block kernel_next(const cbi_delimited *d, const kernel_scan *s,
                                       uint64_t *valid) {
    const uint8_t *p = d->base + s->cursor;
    size_t left = d->bytes - s->cursor;
    uint8_t tail[64] = {0};
    *valid = ~(uint64_t)0;
    if (CBI_LIKELY(left >= 64))
        return kernel_load(p);
    memcpy(tail, p, left);
    *valid = ((uint64_t)1 << left) - 1;
    return kernel_load(tail);
}

/* Stage 1: blocks until the batch is full, or has more rows than there is room for, or something is
 * bad. */
KERNEL_INLINE void kernel_collect(const cbi_delimited *d, kernel_scan *s, size_t room,
                                  const bool quoting) {
    s->row_count = 0;
    while (s->cursor < d->bytes && s->count <= KERNEL_POSITIONS && s->row_count <= room) {
        uint64_t valid;
        kernel_block block = kernel_next(d, s, &valid);
        uint64_t term = kernel_eq(block, d->terminator) & valid;
        uint64_t ends = (kernel_eq(block, d->separator) & valid) | term;
        if (quoting) {
            uint64_t quote = kernel_eq(block, '"') & valid, bad = 0;
            if (quote | s->carry.inside | s->carry.closing | s->carry.closing_cr) {
                s->quotes = true;
                ends = kernel_quoted(block, quote, ends, term, d->strip_cr, &s->carry, &bad);
                if (CBI_UNLIKELY((bad & valid) != 0))
                    s->bad_at = (uint32_t)s->cursor + (uint32_t)__builtin_ctzll(bad);
            } else {
                s->carry.structural = ends >> 63;
            }
        }
        for (uint64_t m = ends & term; m != 0; m &= m - 1) {
            uint64_t below = (m & (0 - m)) - 1;
            s->rows[s->row_count++] =
                (uint16_t)(s->count + (uint32_t)__builtin_popcountll(ends & below));
        }
        s->count += kernel_flatten(ends, (uint32_t)s->cursor, s->positions + s->count);
        if (CBI_UNLIKELY(s->bad_at != UINT32_MAX))
            return; /* positions behind it mean nothing */
        s->cursor += 64;
    }
}

/* The last row of a file may lack its terminator, but not the end of its quotes. */
KERNEL_INLINE void kernel_finish(const cbi_delimited *d, kernel_scan *s, const bool quoting) {
    uint32_t last = s->positions[s->row_count ? s->rows[s->row_count - 1] : 0];
    if (quoting && s->carry.inside) {
        s->bad_at = (uint32_t)d->bytes;
    } else if (last + 1 != (uint32_t)d->bytes) {
        s->rows[s->row_count++] = (uint16_t)s->count;
        s->positions[s->count++] = (uint32_t)d->bytes;
    }
}

/* Stage 2: the rows of the batch up to the bad place. *done is the ordinal of the last row end that
 * was taken; anything but END is why there was no next. */
KERNEL_INLINE cbi_scan_stop kernel_emit(const cbi_delimited *d, const kernel_scan *s,
                                        const bool quoting, cbi_rows *rows, uint32_t *done) {
    const uint8_t *base = d->base;
    const uint32_t *positions = s->positions;
    const size_t fields = rows->field_count;
    const bool quotes = quoting && s->quotes;
    uint32_t previous = 0;

    *done = 0;
    for (uint32_t r = 0; r < s->row_count; r++) {
        uint32_t ordinal = s->rows[r];
        uint32_t start = positions[previous] + 1, end = positions[ordinal];
        if (CBI_UNLIKELY(end >= s->bad_at))
            return CBI_SCAN_EXACT;
        if (CBI_UNLIKELY(rows->count == rows->capacity))
            return CBI_SCAN_FULL;
        if (CBI_UNLIKELY(ordinal - previous != d->columns)) {
            bool cr = d->strip_cr && end == start + 1 && base[start] == '\r';
            if (ordinal - previous != 1 || (end != start && !cr))
                return CBI_SCAN_EXACT;
            *done = previous = ordinal; /* a blank line is no row */
            continue;
        }
        cbi_span *out = rows->fields + rows->count * fields;
        rows->rows[rows->count++] = (cbi_span){start, end - start};
        for (size_t i = 0; i < fields; i++) {
            uint32_t c = d->wanted[i];
            if (CBI_UNLIKELY(c >= d->columns))
                out[i] = (cbi_span){end, 0};
            else
                out[i] =
                    kernel_field(base, positions[previous + c] + 1, positions[previous + c + 1],
                                 quotes, d->strip_cr && c + 1 == d->columns);
        }
        *done = previous = ordinal;
    }
    return s->bad_at == UINT32_MAX ? CBI_SCAN_END : CBI_SCAN_EXACT;
}

KERNEL_INLINE cbi_scan_stop kernel_delimited(const cbi_delimited *d, size_t *at, cbi_rows *rows,
                                             const bool quoting) {
    kernel_scan s;
    if (CBI_UNLIKELY(*at >= d->bytes))
        return CBI_SCAN_END;
    if (CBI_UNLIKELY(d->columns == 0 || d->columns > KERNEL_POSITIONS / 2))
        return CBI_SCAN_EXACT;
    s.cursor = *at;
    s.bad_at = UINT32_MAX;
    s.quotes = false;
    s.carry = (kernel_carry){.structural = 1};
    s.positions[0] = (uint32_t)*at - 1;
    s.count = 1;
    for (;;) {
        uint32_t done = 0;
        kernel_collect(d, &s, rows->capacity - rows->count, quoting);
        if (s.cursor >= d->bytes && s.bad_at == UINT32_MAX)
            kernel_finish(d, &s, quoting);
        cbi_scan_stop stop = kernel_emit(d, &s, quoting, rows, &done);
        *at = (size_t)(uint32_t)(s.positions[done] + 1);
        if (stop != CBI_SCAN_END)
            return stop;
        if (s.cursor >= d->bytes) {
            *at = d->bytes;
            return CBI_SCAN_END;
        }
        s.count -= done;
        if (s.count > KERNEL_POSITIONS / 2 + KERNEL_SLACK)
            return CBI_SCAN_EXACT; /* wider than any row may be here: ragged */
        memmove(s.positions, s.positions + done, s.count * sizeof s.positions[0]);
    }
}

KERNEL cbi_scan_stop kernel_csv(const cbi_delimited *d, size_t *at, cbi_rows *rows) {
    return kernel_delimited(d, at, rows, true);
}

KERNEL cbi_scan_stop kernel_tsv(const cbi_delimited *d, size_t *at, cbi_rows *rows) {
    return kernel_delimited(d, at, rows, false);
}

KERNEL size_t kernel_count(const uint8_t *p, size_t bytes, uint8_t byte) {
    size_t n = 0, i = 0;
    for (; i + 64 <= bytes; i += 64)
        n += (size_t)__builtin_popcountll(kernel_eq(kernel_load(p + i), byte));
    for (; i < bytes; i++)
        n += p[i] == byte;
    return n;
}

#ifndef KERNEL_HAS_LINES
/* A span for each line; the place of the bit is the only thing that has to be computed. */
KERNEL cbi_scan_stop kernel_lines(const uint8_t *base, size_t bytes, uint8_t terminator, size_t *at,
                                  cbi_rows *rows) {
    size_t count = rows->count, start = *at, cursor = *at;
    cbi_span *out = rows->rows;

    for (; cursor + 64 <= bytes && count + 64 <= rows->capacity; cursor += 64) {
        uint64_t m = kernel_eq(kernel_load(base + cursor), terminator);
        for (; m != 0; m &= m - 1) {
            size_t end = cursor + (size_t)__builtin_ctzll(m);
            out[count++] = (cbi_span){(uint32_t)start, (uint32_t)(end - start)};
            start = end + 1;
        }
    }
    rows->count = count;
    *at = start;
    return cbi_scan_lines_rest(base, bytes, terminator, at, rows);
}
#endif

#define KERNEL_OPS(text)                                                                           \
    {.name = (text),                                                                               \
     .lines = kernel_lines,                                                                        \
     .csv = kernel_csv,                                                                            \
     .tsv = kernel_tsv,                                                                            \
     .count = kernel_count}
