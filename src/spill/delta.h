/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_DELTA_H
#define CBI_DELTA_H

#include "base/base.h"

/*
 * The light codec of spilled frames: a byte that can be told from the one before it and the row
 * above it costs a bit at most. delta.c says how and why. All functions are pure and may be called
 * from any thread.
 */

enum {
    CBI_DELTA_BLOCK_BYTES = 64,
    CBI_DELTA_WORST_BLOCK_BYTES = 73, /* a block of which nothing can be told */
    CBI_DELTA_DISTANCE_MAX = 1024
};

/** How far above each row its predecessor lies in bytes like these: 0 when there seem to be no rows
 * of one length, else from CBI_DELTA_BLOCK_BYTES to CBI_DELTA_DISTANCE_MAX. */
size_t cbi_delta_distance(const uint8_t *from, size_t count);

/** Bytes that cbi_delta_pack would need for `count` bytes, without writing them. */
size_t cbi_delta_measure(const uint8_t *from, size_t count, size_t distance);

/** Packs `count` bytes into at most `room`; answers the bytes used, 0 when they do not fit (room is
 * then in any state) or there are none. Never writes at or behind to + room. Any distance that
 * cbi_delta_distance may answer will do; one that suits the bytes makes less of them. */
size_t cbi_delta_pack(const uint8_t *from, size_t count, size_t distance, uint8_t *to, size_t room);

/** Undoes it: true if the `stored` bytes are exactly `count` bytes packed. Reads nothing behind
 * from + stored and writes nothing behind to + count, whatever the bytes are. */
bool cbi_delta_unpack(const uint8_t *from, size_t stored, uint8_t *to, size_t count);

#endif
