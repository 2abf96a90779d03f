/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_NIBBLE_H
#define CBI_NIBBLE_H

#include "base/base.h"

/*
 * The light codec for text made of few characters: numbers, codes, dates, and what separates them.
 * nibble.c says how and why. All functions are pure and may be called from any thread.
 */

enum {
    CBI_NIBBLE_BLOCK_BYTES = 64,
    CBI_NIBBLE_WORST_BLOCK_BYTES = 96, /* a block of nothing but other bytes */
    CBI_NIBBLE_ALPHABET_BYTES = 16
};

/** Bytes that cbi_nibble_pack would need for `count` bytes, without writing them. */
size_t cbi_nibble_measure(const uint8_t *from, size_t count);

/** Packs `count` bytes into at most `room`; answers the bytes used, 0 when they do not fit (room is
 * then in any state). Never writes at or behind to + room. */
size_t cbi_nibble_pack(const uint8_t *from, size_t count, uint8_t *to, size_t room);

/** Undoes it: true if the `stored` bytes are `count` bytes packed. Reads nothing behind
 * from + stored and writes nothing behind to + count, whatever the bytes are. */
bool cbi_nibble_unpack(const uint8_t *from, size_t stored, uint8_t *to, size_t count);

#endif
