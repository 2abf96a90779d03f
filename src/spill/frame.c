/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include <lz4.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "spill/delta.h"
#include "spill/frame.h"
#include "spill/nibble.h"

/*
 * Frames: how a segment looks on disk, and how it is known again.
 *
 * A damaged spill must never turn into a wrong answer, whatever did the damage: a flipped bit, a
 * write that was lost, torn or sent elsewhere, a read from the wrong place, bytes of an earlier
 * process in the same blocks. So each frame says who it is (owner, sequence, index), where it lies
 * and how long it is, under a checksum of its own, and its payload is under a second one. Both are
 * seeded with a number that differs from spill to spill: an old frame, intact and with all the
 * right numbers, is still a stranger. The header is checked before a single length of it is
 * believed; the payload is hashed where it ends up, or before it is decompressed.
 *
 * Raw frames are read without knowing their lengths. The caller keeps 16 bytes for an extent,
 * however many segments are in it, so nobody remembers how full each one was. One vectored read
 * therefore fills the caller's segments back to back, as if all had been full, which is nearly
 * always the truth: full segments are what leaves memory. Where one was not, the frames behind it
 * lie too early, by whole blocks, and cbi_frames_settle moves them up, last block of the last frame
 * first. A block never moves down, so no block is overwritten before it was moved. No second
 * buffer, no second read.
 *
 * The padding up to the block's end is zeroed and hashed with the payload: it costs at most 4 KiB
 * per segment and means that there is no byte of a spill file that nobody looks at.
 */

static_assert(sizeof(cbi_frame) == CBI_FRAME_HEADER_BYTES, "the header on disk");
static_assert(offsetof(cbi_frame, check) == CBI_FRAME_HEADER_BYTES - 8,
              "the check covers all before it");

enum { CHECKED_BYTES = CBI_FRAME_HEADER_BYTES - 8 };

uint64_t cbi_frame_hash(const uint8_t *bytes, size_t count, uint64_t salt) {
    return XXH3_64bits_withSeed(bytes, count, salt);
}

void cbi_frame_put(uint8_t *at, cbi_frame frame, uint64_t salt) {
    frame.magic = CBI_FRAME_MAGIC;
    frame.reserved = 0;
    memcpy(at, &frame, sizeof frame);
    cbi_store_u64(at + CHECKED_BYTES, cbi_frame_hash(at, CHECKED_BYTES, salt));
}

size_t cbi_frame_raw_bytes(uint32_t payload_bytes) {
    return cbi_round_up((size_t)CBI_FRAME_HEADER_BYTES + payload_bytes, CBI_SPILL_ALIGN);
}

size_t cbi_frame_packed_bytes(uint32_t stored_bytes) {
    return cbi_round_up((size_t)CBI_FRAME_HEADER_BYTES + stored_bytes, CBI_FRAME_PACKED_ALIGN);
}

/* ---- making ---- */

size_t cbi_frame_seal(const cbi_spill_segment *segment, const cbi_frame_origin *origin,
                      uint16_t index, uint64_t offset) {
    size_t bytes = cbi_frame_raw_bytes(segment->used);
    size_t filled = (size_t)CBI_FRAME_HEADER_BYTES + segment->used;
    cb_assert(bytes <= segment->capacity);
    memset(segment->base + filled, 0, bytes - filled);
    cbi_frame frame = {
        .payload_bytes = segment->used,
        .stored_bytes = segment->used,
        .owner = origin->owner,
        .sequence = origin->sequence,
        .index = index,
        .codec = CB_CODEC_NONE,
        .position = origin->position + offset,
        .hash = cbi_frame_hash(segment->base + CBI_FRAME_HEADER_BYTES,
                               bytes - CBI_FRAME_HEADER_BYTES, origin->salt),
    };
    cbi_frame_put(segment->base, frame, origin->salt);
    return bytes;
}

/* Room for one frame at its worst: stored as it is. */
static bool fits_packed(uint32_t payload_bytes, size_t room) {
    return cbi_frame_packed_bytes(payload_bytes) <= room;
}

/* Answers the packed bytes, at most `room`; 0 when they do not fit. */
static uint32_t pack_payload(const cbi_packing *packing, const uint8_t *payload, uint32_t count,
                             uint8_t *to, size_t room) {
    if (packing->codec == CB_CODEC_DELTA) {
        return (uint32_t)cbi_delta_pack(payload, count, packing->distance, to, room);
    }
    if (packing->codec == CB_CODEC_NIBBLE) {
        return (uint32_t)cbi_nibble_pack(payload, count, to, room);
    }
    if (count > LZ4_MAX_INPUT_SIZE) {
        return 0;
    }
    int packed = LZ4_compress_fast_extState(packing->state, (const char *)payload, (char *)to,
                                            (int)count, (int)room, 1);
    return packed > 0 ? (uint32_t)packed : 0;
}

static bool unpack_payload(const cbi_frame *frame, const uint8_t *from, uint8_t *to) {
    if (frame->codec == CB_CODEC_DELTA) {
        return cbi_delta_unpack(from, frame->stored_bytes, to, frame->payload_bytes);
    }
    if (frame->codec == CB_CODEC_NIBBLE) {
        return cbi_nibble_unpack(from, frame->stored_bytes, to, frame->payload_bytes);
    }
    return frame->payload_bytes <= LZ4_MAX_INPUT_SIZE &&
           LZ4_decompress_safe((const char *)from, (char *)to, (int)frame->stored_bytes,
                               (int)frame->payload_bytes) == (int)frame->payload_bytes;
}

/* One frame at `at`; answers its bytes, 0 when there is no room. */
static size_t pack_one(const cbi_spill_segment *segment, const cbi_frame_origin *origin,
                       uint16_t index, const cbi_packing *packing, uint8_t *at, size_t room) {
    if (room <= CBI_FRAME_HEADER_BYTES + CBI_FRAME_PACKED_ALIGN) {
        return 0;
    }
    const uint8_t *payload = segment->base + CBI_FRAME_HEADER_BYTES;
    uint8_t *body = at + CBI_FRAME_HEADER_BYTES;
    size_t body_room = cbi_min(
        (room - CBI_FRAME_HEADER_BYTES) & ~(size_t)(CBI_FRAME_PACKED_ALIGN - 1), segment->used);
    cb_codec codec = packing->codec;
    uint32_t stored = pack_payload(packing, payload, segment->used, body, body_room);
    if (stored == 0 || stored >= segment->used) {
        if (!fits_packed(segment->used, room)) {
            return 0;
        }
        memcpy(body, payload, segment->used);
        stored = segment->used;
        codec = CB_CODEC_NONE;
    }
    size_t bytes = cbi_frame_packed_bytes(stored);
    memset(body + stored, 0, bytes - CBI_FRAME_HEADER_BYTES - stored);
    cbi_frame frame = {
        .payload_bytes = segment->used,
        .stored_bytes = stored,
        .owner = origin->owner,
        .sequence = origin->sequence,
        .index = index,
        .codec = (uint8_t)codec,
        .hash = cbi_frame_hash(body, bytes - CBI_FRAME_HEADER_BYTES, origin->salt),
    };
    memcpy(at, &frame, sizeof frame);
    return bytes;
}

size_t cbi_frames_pack(const cbi_spill_segment *segments, uint32_t count,
                       const cbi_frame_origin *origin, const cbi_packing *packing, uint8_t *staging,
                       size_t capacity) {
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_t bytes =
            pack_one(&segments[i], origin, (uint16_t)i, packing, staging + at, capacity - at);
        if (bytes == 0) {
            return 0;
        }
        at += bytes;
    }
    return at;
}

size_t cbi_frames_seal_packed(uint8_t *staging, size_t bytes, const cbi_frame_origin *origin) {
    for (size_t at = 0; at < bytes;) {
        cbi_frame frame;
        memcpy(&frame, staging + at, sizeof frame);
        frame.position = origin->position + at;
        cbi_frame_put(staging + at, frame, origin->salt);
        at += cbi_frame_packed_bytes(frame.stored_bytes);
    }
    size_t whole = cbi_round_up(bytes, CBI_SPILL_ALIGN);
    memset(staging + bytes, 0, whole - bytes);
    return whole;
}

/* ---- knowing again ---- */

static cb_status fail_frame(cb_error *err, const cbi_frame_origin *origin, uint32_t index,
                            const char *what) {
    return cbi_fail(err, CB_ECORRUPT, "frame %" PRIu32 " of part %" PRIu32 " of %" PRIu32 ": %s",
                    index, origin->sequence, origin->owner, what);
}

/* Reads the header at `at` and believes it only if everything that can be known beforehand is
 * right. */
static cb_status take_header(const uint8_t *at, uint32_t index, uint64_t offset,
                             const cbi_frame_origin *origin, cbi_frame *frame, cb_error *err) {
    memcpy(frame, at, sizeof *frame);
    if (frame->magic != CBI_FRAME_MAGIC) {
        return fail_frame(err, origin, index, "it is not the start of a frame");
    }
    if (frame->check != cbi_frame_hash(at, CHECKED_BYTES, origin->salt)) {
        return fail_frame(err, origin, index, "the checksum of its header differs");
    }
    if (frame->owner != origin->owner || frame->sequence != origin->sequence ||
        frame->index != index) {
        return cbi_fail(err, CB_ECORRUPT,
                        "frame %" PRIu32 " of part %" PRIu32 " of %" PRIu32
                        ": another one lies there (%u of %" PRIu32 " of %" PRIu32 ")",
                        index, origin->sequence, origin->owner, (unsigned)frame->index,
                        frame->sequence, frame->owner);
    }
    if (frame->position != origin->position + offset) {
        return fail_frame(err, origin, index, "it was written to another position");
    }
    bool raw = frame->codec == CB_CODEC_NONE && frame->stored_bytes == frame->payload_bytes;
    bool known = frame->codec == CB_CODEC_LZ4 || frame->codec == CB_CODEC_DELTA ||
                 frame->codec == CB_CODEC_NIBBLE;
    bool packed = known && frame->stored_bytes < frame->payload_bytes;
    if (frame->reserved != 0 || (!raw && !packed)) {
        return fail_frame(err, origin, index, "its header contradicts itself");
    }
    return CB_OK;
}

static cb_status check_payload(const uint8_t *body, size_t bytes, const cbi_frame *frame,
                               const cbi_frame_origin *origin, cb_error *err) {
    if (cbi_frame_hash(body, bytes, origin->salt) != frame->hash) {
        return fail_frame(err, origin, frame->index, "the checksum of its contents differs");
    }
    return CB_OK;
}

/* A place in the segments seen as one stretch of bytes. Block by block steps only: blocks never
 * straddle segments. */
typedef struct cursor {
    uint32_t segment;
    uint32_t offset;
} cursor;

static uint8_t *cursor_at(const cbi_spill_segment *segments, cursor c) {
    return segments[c.segment].base + c.offset;
}

static void cursor_forward(const cbi_spill_segment *segments, cursor *c, size_t bytes) {
    size_t offset = c->offset + bytes;
    while (offset >= segments[c->segment].capacity && offset > 0) {
        offset -= segments[c->segment].capacity;
        c->segment++;
        if (offset == 0) {
            break;
        }
    }
    c->offset = (uint32_t)offset;
}

static void cursor_back_block(const cbi_spill_segment *segments, cursor *c) {
    while (c->offset == 0) {
        cb_assert(c->segment > 0);
        c->segment--;
        c->offset = segments[c->segment].capacity;
    }
    c->offset -= CBI_SPILL_ALIGN;
}

/*
 * First pass: the headers in order, at the places where they lie now. Leaves each frame's payload
 * length in `used`, and in *end where the bytes read end. *early: some frame does not lie at the
 * start of its segment.
 */
static cb_status walk_headers(cbi_spill_segment *segments, uint32_t count, uint64_t bytes,
                              const cbi_frame_origin *origin, cursor *end, bool *early,
                              cb_error *err) {
    cursor at = {0, 0};
    uint64_t offset = 0;
    *early = false;
    for (uint32_t i = 0; i < count; i++) {
        if (offset >= bytes) {
            return fail_frame(err, origin, i, "its extent ends before it");
        }
        cbi_frame frame;
        CB_TRY(take_header(cursor_at(segments, at), i, offset, origin, &frame, err));
        size_t length = cbi_frame_raw_bytes(frame.payload_bytes);
        if (frame.codec != CB_CODEC_NONE || length > bytes - offset ||
            length > segments[i].capacity) {
            return fail_frame(err, origin, i, "its length does not fit");
        }
        *early = *early || at.segment != i || at.offset != 0;
        segments[i].used = frame.payload_bytes;
        cursor_forward(segments, &at, length);
        offset += length;
    }
    if (offset != bytes) {
        return fail_frame(err, origin, count - 1, "its extent goes on behind it");
    }
    *end = at;
    return CB_OK;
}

/* Second pass, only when needed: from the last block to the first, each to its own segment. */
static void move_up(const cbi_spill_segment *segments, uint32_t count, cursor from) {
    for (uint32_t i = count; i-- > 0;) {
        for (size_t block = cbi_frame_raw_bytes(segments[i].used); block > 0;
             block -= CBI_SPILL_ALIGN) {
            cursor_back_block(segments, &from);
            uint8_t *to = segments[i].base + block - CBI_SPILL_ALIGN;
            const uint8_t *source = cursor_at(segments, from);
            if (to != source) {
                memcpy(to, source, CBI_SPILL_ALIGN);
            }
        }
    }
}

cb_status cbi_frames_settle(cbi_spill_segment *segments, uint32_t count, uint64_t bytes,
                            const cbi_frame_origin *origin, cb_error *err) {
    cb_assert(count > 0 && bytes % CBI_SPILL_ALIGN == 0);
    cursor end = {0, 0};
    bool early = false;
    CB_TRY(walk_headers(segments, count, bytes, origin, &end, &early, err));
    if (early) {
        move_up(segments, count, end);
    }
    for (uint32_t i = 0; i < count; i++) {
        cbi_frame frame;
        memcpy(&frame, segments[i].base, sizeof frame);
        size_t length = cbi_frame_raw_bytes(segments[i].used);
        CB_TRY(check_payload(segments[i].base + CBI_FRAME_HEADER_BYTES,
                             length - CBI_FRAME_HEADER_BYTES, &frame, origin, err));
    }
    return CB_OK;
}

static cb_status unpack_one(const uint8_t *at, size_t room, uint32_t index, uint64_t offset,
                            cbi_spill_segment *segment, const cbi_frame_origin *origin,
                            size_t *taken, cb_error *err) {
    cbi_frame frame;
    if (room < sizeof frame) {
        return fail_frame(err, origin, index, "its extent ends before it");
    }
    CB_TRY(take_header(at, index, offset, origin, &frame, err));
    size_t length = cbi_frame_packed_bytes(frame.stored_bytes);
    if (length > room || (size_t)CBI_FRAME_HEADER_BYTES + frame.payload_bytes > segment->capacity) {
        return fail_frame(err, origin, index, "its length does not fit");
    }
    const uint8_t *body = at + CBI_FRAME_HEADER_BYTES;
    CB_TRY(check_payload(body, length - CBI_FRAME_HEADER_BYTES, &frame, origin, err));
    uint8_t *payload = segment->base + CBI_FRAME_HEADER_BYTES;
    if (frame.codec == CB_CODEC_NONE) {
        memcpy(payload, body, frame.stored_bytes);
    } else if (!unpack_payload(&frame, body, payload)) {
        return fail_frame(err, origin, index, "its contents do not decompress to their length");
    }
    segment->used = frame.payload_bytes;
    *taken = length;
    return CB_OK;
}

cb_status cbi_frames_unpack(const uint8_t *staging, size_t bytes, cbi_spill_segment *segments,
                            uint32_t count, const cbi_frame_origin *origin, cb_error *err) {
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_t taken = 0;
        CB_TRY(unpack_one(staging + at, bytes - at, i, at, &segments[i], origin, &taken, err));
        at += taken;
    }
    if (cbi_round_up(at, CBI_SPILL_ALIGN) != bytes) {
        return fail_frame(err, origin, count - 1, "its extent goes on behind it");
    }
    for (; at < bytes; at++) {
        if (staging[at] != 0) {
            return fail_frame(err, origin, count - 1, "the end of its extent was written over");
        }
    }
    return CB_OK;
}
