/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_FRAME_H
#define CBI_FRAME_H

#include "spill/spill.h"

enum {
    CBI_FRAME_MAGIC = 0x31464243, /* "CBF1": the kind of file and the version of this layout */
    CBI_FRAME_PACKED_ALIGN = 16   /* frames of a packed extent begin at multiples of this */
};

/** What a frame says of itself: the first CBI_FRAME_HEADER_BYTES of it, in the byte order of the
 * machine (spill files never leave it). docs/spill-format.md has the picture. */
typedef struct cbi_frame {
    uint32_t magic;
    uint32_t payload_bytes; /* what the caller handed in */
    uint32_t stored_bytes;  /* what lies after the header; the same for CB_CODEC_NONE */
    uint32_t owner;
    uint32_t sequence;
    uint16_t index; /* of the frame in its extent */
    uint8_t codec;  /* cb_codec */
    uint8_t reserved;
    uint64_t position; /* cbi_extent.place of its extent without the flag, in bytes: 8 bits of file,
                          56 of offset */
    uint64_t hash;     /* XXH3-64 of what follows the header, padding included */
    uint64_t check;    /* XXH3-64 of the 40 bytes before it */
} cbi_frame;

/** Who an extent must belong to and where it lies: what its frames are checked against. */
typedef struct cbi_frame_origin {
    uint64_t salt; /* of this spill; what another process left on the disk never fits */
    uint32_t owner;
    uint32_t sequence;
    uint64_t position; /* of the extent's first byte */
} cbi_frame_origin;

/** XXH3-64 with the salt as seed. */
uint64_t cbi_frame_hash(const uint8_t *bytes, size_t count, uint64_t salt);

/** Completes magic, reserved and check, and stores the header at `at`. */
void cbi_frame_put(uint8_t *at, cbi_frame frame, uint64_t salt);

/** Bytes a raw frame takes in its extent. */
size_t cbi_frame_raw_bytes(uint32_t payload_bytes);
/** Bytes a packed frame takes. */
size_t cbi_frame_packed_bytes(uint32_t stored_bytes);

/**
 * Makes a raw frame of a segment in place: zeroes the padding, hashes, writes the header. `offset`
 * is the frame's distance from the extent's first byte. Answers the bytes to write from
 * segment->base on.
 */
size_t cbi_frame_seal(const cbi_spill_segment *segment, const cbi_frame_origin *origin,
                      uint16_t index, uint64_t offset);

/**
 * A raw extent of `bytes` has been read back to back into the segments, each filled to its
 * capacity. Puts each frame at the start of its own segment, checks everything and fills `used`.
 * CB_ECORRUPT says what differs.
 */
cb_status cbi_frames_settle(cbi_spill_segment *segments, uint32_t count, uint64_t bytes,
                            const cbi_frame_origin *origin, cb_error *err);

/** The same for a packed extent lying in `staging`: decompresses each frame into its segment. */
cb_status cbi_frames_unpack(const uint8_t *staging, size_t bytes, cbi_spill_segment *segments,
                            uint32_t count, const cbi_frame_origin *origin, cb_error *err);

/** How frames are made smaller. */
typedef struct cbi_packing {
    cb_codec codec;  /* cbi_frames_pack: not none */
    size_t distance; /* delta: how far above each other rows lie (delta.h) */
    void *state;     /* lz4: LZ4_sizeofState() bytes */
} cbi_packing;

/**
 * Packs the batch into `staging`, one frame after another, each raw if that is smaller.
 * Headers lack their position and check until cbi_frames_seal_packed. Answers the bytes used (not
 * rounded), or 0 when they do not fit.
 */
size_t cbi_frames_pack(const cbi_spill_segment *segments, uint32_t count,
                       const cbi_frame_origin *origin, const cbi_packing *packing, uint8_t *staging,
                       size_t capacity);
/** The second half, when the place is known: positions, checks, and zeroes up to the next
 * CBI_SPILL_ALIGN. Answers the bytes to write. */
size_t cbi_frames_seal_packed(uint8_t *staging, size_t bytes, const cbi_frame_origin *origin);

#endif
