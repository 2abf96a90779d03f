/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_DELTA_H
#define CBI_DELTA_H

#include "base/base.h"

/*
 * The light codec of spilled frames: a byte that equals the one before it costs a bit and nothing
 * else. delta.c says how and why. All functions are pure and may be called from any thread.
 */

enum {
    CBI_DELTA_BLOCK_BYTES = 64,
    CBI_DELTA_WORST_BLOCK_BYTES = 72 /* a block in which no two neighbours are equal */
};

/** Bytes that cbi_delta_pack would need for `count` bytes, without writing them. */
size_t cbi_delta_measure(const uint8_t *from, size_t count);

/** Packs `count` bytes into at most `room`; answers the bytes used, 0 when they do not fit (room is
 * then in any state). Never writes at or behind to + room. */
size_t cbi_delta_pack(const uint8_t *from, size_t count, uint8_t *to, size_t room);

/** Undoes it: true if the `stored` bytes are exactly `count` bytes packed. Reads nothing behind
 * from + stored and writes nothing behind to + count, whatever the bytes are. */
bool cbi_delta_unpack(const uint8_t *from, size_t stored, uint8_t *to, size_t count);

#endif
