/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_ORDER_H
#define CBI_ORDER_H

#include "operator/stored.h"

/**
 * What is really sorted: the first 8 bytes of the key and where the row lies. `ref` holds the place
 * of the row's piece in input order (24 bits) above its offset from a base (40 bits): so for rows
 * with equal keys a smaller ref is an earlier row, and nothing else is needed to be stable.
 */
typedef struct cbi_entry {
    uint64_t prefix;
    uint64_t ref;
} cbi_entry;

enum { CBI_REF_OFFSET_BITS = 40, CBI_REF_PIECES_MAX = 1 << 24 };

static inline uint64_t cbi_ref(uint64_t piece, uint64_t offset) {
    return piece << CBI_REF_OFFSET_BITS | offset;
}
static inline const uint8_t *cbi_ref_row(const uint8_t *base, uint64_t ref) {
    return base + (ref & (((uint64_t)1 << CBI_REF_OFFSET_BITS) - 1));
}

/** The prefix an entry starts with. */
static inline uint64_t cbi_entry_prefix(const cbi_layout *layout, const cbi_stored *s) {
    uint64_t prefix = cbi_prefix(s->key, s->key_bytes, 0);
    return layout->inverted ? ~prefix : prefix;
}

/**
 * Puts entries in order: key, then the tie rule, then the order that rows carry (runs), then ref.
 * In place, no allocation; prefixes are not what they were afterwards. Recursion is bounded. One
 * thread an array.
 */
void cbi_order(cbi_entry *entries, size_t count, const cbi_layout *layout, const uint8_t *base);

/** The same in less than half the time where there is memory for more than twice as many: `room`
 * entries from `entries` on, of which those behind the first `count` are scratch. */
void cbi_order_within(cbi_entry *entries, size_t count, size_t room, const cbi_layout *layout,
                      const uint8_t *base);

/**
 * Numbers, from the smallest. `room` of them have memory from `v` on, of which those behind the
 * first `n` are scratch: at least cbi_order_numbers_room(n).
 */
void cbi_order_numbers(uint64_t *v, size_t n, size_t room);
static inline size_t cbi_order_numbers_room(size_t n) {
    return 2 * n + 128;
}

/** By prefix alone, not stable: a plain sort of numbers with a companion. */
void cbi_order_by_prefix(cbi_entry *entries, size_t count);

#endif
