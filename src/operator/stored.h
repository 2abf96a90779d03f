/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_STORED_H
#define CBI_STORED_H

/*
 * A row as operators keep it, in segments and in runs:
 *
 *     varint row bytes | [varint key bytes | key] | [order] | row
 *
 * The key is there when it is encoded; otherwise it is a part of the row itself. The order (8
 * bytes) is there in runs when input order decides ties, since runs are merged long after their
 * rows have lost their places. Rows of one chunk that go to one range lie together as a piece:
 * {order, bytes, rows} and then the rows. `order` is the place of the first row in the input: 32
 * bits of chunk, 32 bits of row within that chunk's share of the range. So input order costs 16
 * bytes a piece and nothing a row.
 */

#include <string.h>

#include "record/key.h"

enum {
    CBI_PIECE_HEADER_BYTES = 16,
    CBI_VARINT_MAX = 5,
    CBI_ORDER_ROW_BITS =
        32, /* a chunk that grew for a giant row may hold any number of small ones */
    CBI_ORDER_BYTES = 8
};

/** Row and key together: sizes in segments are 32 bits, and a segment's own bytes and rounding up
 * come on top. */
#define CBI_STORED_MAX ((uint64_t)4000 * CBI_MIB)

/** What is needed to find keys in stored rows and to compare them. Plain data, immutable. */
typedef struct cbi_layout {
    cbi_key_shape shape;
    size_t slice_offset, slice_bytes; /* CBI_KEY_SLICE */
    bool inverted;                    /* ROW and SLICE: descending */
    cbi_key_tie tie;
    bool tie_inverted;
    bool ordered; /* rows carry their order (runs) */
} cbi_layout;

typedef struct cbi_stored {
    const uint8_t *key, *row;
    uint32_t key_bytes, row_bytes;
    uint64_t order; /* 0 when the layout has none */
} cbi_stored;

static inline size_t cbi_varint_bytes(uint32_t v) {
    return v < (1u << 7) ? 1 : v < (1u << 14) ? 2 : v < (1u << 21) ? 3 : v < (1u << 28) ? 4 : 5;
}

static inline uint8_t *cbi_varint_put(uint8_t *p, uint32_t v) {
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

static inline const uint8_t *cbi_varint_get(const uint8_t *p, uint32_t *v) {
    uint32_t byte = *p++;
    if (CBI_LIKELY(byte < 0x80)) {
        *v = byte;
        return p;
    }
    uint32_t value = byte & 0x7f;
    for (unsigned shift = 7; shift < 35; shift += 7) {
        byte = *p++;
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            break;
    }
    *v = value;
    return p;
}

static inline size_t cbi_stored_bytes(const cbi_layout *layout, uint32_t key_bytes,
                                      uint32_t row_bytes) {
    size_t bytes = cbi_varint_bytes(row_bytes) + row_bytes;
    if (layout->shape == CBI_KEY_ENCODED)
        bytes += cbi_varint_bytes(key_bytes) + key_bytes;
    if (layout->ordered)
        bytes += CBI_ORDER_BYTES;
    return bytes;
}

/** Writes one; answers the end. The key is looked at for encoded keys only, the order for ordered
 * layouts. */
static inline uint8_t *cbi_stored_put(const cbi_layout *layout, uint8_t *p, const uint8_t *key,
                                      uint32_t key_bytes, const uint8_t *row, uint32_t row_bytes,
                                      uint64_t order) {
    p = cbi_varint_put(p, row_bytes);
    if (layout->shape == CBI_KEY_ENCODED) {
        cb_assert_debug(key != NULL);
        p = cbi_varint_put(p, key_bytes);
        memcpy(p, key, key_bytes);
        p += key_bytes;
    }
    if (layout->ordered) {
        cbi_store_u64(p, order);
        p += CBI_ORDER_BYTES;
    }
    memcpy(p, row, row_bytes);
    return p + row_bytes;
}

static inline void cbi_slice(const cbi_layout *layout, cbi_stored *s) {
    if (layout->shape == CBI_KEY_SLICE) {
        size_t offset = cbi_min(layout->slice_offset, s->row_bytes);
        s->key = s->row + offset;
        s->key_bytes = (uint32_t)cbi_min(layout->slice_bytes, s->row_bytes - offset);
    } else {
        s->key = s->row;
        s->key_bytes = s->row_bytes;
    }
}

/** Reads one; answers the end. */
static inline const uint8_t *cbi_stored_get(const cbi_layout *layout, const uint8_t *p,
                                            cbi_stored *s) {
    p = cbi_varint_get(p, &s->row_bytes);
    if (layout->shape == CBI_KEY_ENCODED) {
        p = cbi_varint_get(p, &s->key_bytes);
        s->key = p;
        p += s->key_bytes;
    }
    s->order = 0;
    if (layout->ordered) {
        s->order = cbi_load_u64(p);
        p += CBI_ORDER_BYTES;
    }
    s->row = p;
    if (layout->shape != CBI_KEY_ENCODED)
        cbi_slice(layout, s);
    return s->row + s->row_bytes;
}

/** The first 8 bytes from `at` on as a number whose order is the keys' order; short keys read as if
 * zeros followed. */
static inline uint64_t cbi_prefix(const uint8_t *key, size_t key_bytes, size_t at) {
    if (CBI_LIKELY(key_bytes >= at + 8))
        return cbi_load_be64(key + at);
    uint64_t v = 0;
    if (key_bytes > at)
        memcpy(&v, key + at, key_bytes - at);
    return __builtin_bswap64(v);
}

/** memcmp order, the shorter first when one begins the other; the first `same` bytes are known to
 * be equal. */
static inline int cbi_compare_bytes(const uint8_t *a, size_t a_bytes, const uint8_t *b,
                                    size_t b_bytes, size_t same) {
    size_t common = cbi_min(a_bytes, b_bytes);
    if (same < common) {
        int c = memcmp(a + same, b + same, common - same);
        if (c != 0)
            return c;
    }
    return a_bytes < b_bytes ? -1 : a_bytes > b_bytes;
}

/** The keys alone, direction included: < 0, 0, > 0. */
static inline int cbi_compare_keys(const cbi_layout *layout, const cbi_stored *a,
                                   const cbi_stored *b) {
    int c = cbi_compare_bytes(a->key, a->key_bytes, b->key, b->key_bytes, 0);
    return layout->inverted ? -c : c;
}

/** Keys, then the tie rule: rows' bytes, or their order where they carry it. */
static inline int cbi_compare_stored(const cbi_layout *layout, const cbi_stored *a,
                                     const cbi_stored *b) {
    int c = cbi_compare_keys(layout, a, b);
    if (c != 0)
        return c;
    if (layout->tie == CBI_TIE_ROW) {
        c = cbi_compare_bytes(a->row, a->row_bytes, b->row, b->row_bytes, 0);
        return layout->tie_inverted ? -c : c;
    }
    return a->order < b->order ? -1 : a->order > b->order;
}

/** memcmp == 0 without a call for 4 to 16 bytes. */
static inline bool cbi_same_bytes(const uint8_t *a, const uint8_t *b, size_t bytes) {
    if (bytes - 8 <= 8) {
        size_t last = bytes - 8;
        return ((cbi_load_u64(a) ^ cbi_load_u64(b)) |
                (cbi_load_u64(a + last) ^ cbi_load_u64(b + last))) == 0;
    }
    if (bytes - 4 < 4) {
        size_t last = bytes - 4;
        return ((cbi_load_u32(a) ^ cbi_load_u32(b)) |
                (cbi_load_u32(a + last) ^ cbi_load_u32(b + last))) == 0;
    }
    return memcmp(a, b, bytes) == 0;
}

static inline bool cbi_same_key(const cbi_stored *a, const cbi_stored *b) {
    return a->key_bytes == b->key_bytes && cbi_same_bytes(a->key, b->key, a->key_bytes);
}

#endif
