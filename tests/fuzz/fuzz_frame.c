/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoders of raw and packed extents on bytes that nobody wrote. Random bytes never get past a
 * checksum, so the first bytes of the input say how much of it to make right: headers are given a
 * good check (and owner, position ...) and payloads a good hash, and what is left wrong are
 * lengths, codecs and contents. Nothing may be read or written outside of the segments, and what is
 * accepted must be what the headers say.
 */
#include <stdlib.h>
#include <string.h>

#include "spill/frame.h"

enum { SEGMENTS_MAX = 6, EXTENT_MAX = 96 * 1024, CONTROL_BYTES = 8 };

static const cbi_frame_origin origin = {
    .salt = 99, .owner = 7, .sequence = 3, .position = 1ull << 56};

typedef struct control {
    uint32_t count;
    bool packed, mend_headers, mend_hashes, mend_lengths;
    uint8_t capacities[SEGMENTS_MAX]; /* in blocks, 1 to 8 */
} control;

static control read_control(const uint8_t *data) {
    control c = {
        .count = 1 + data[0] % SEGMENTS_MAX,
        .packed = (data[1] & 1) != 0,
        .mend_headers = (data[1] & 2) != 0,
        .mend_hashes = (data[1] & 4) != 0,
        .mend_lengths = (data[1] & 8) != 0,
    };
    for (uint32_t i = 0; i < SEGMENTS_MAX; i++) {
        c.capacities[i] = 1 + data[2 + i] % 8;
    }
    return c;
}

/* Makes a header believable as far as `c` says; answers where the next one would be. */
static size_t mend(uint8_t *bytes, size_t count, size_t at, uint32_t index, const control *c) {
    cbi_frame frame;
    memcpy(&frame, bytes + at, sizeof frame);
    frame.owner = origin.owner;
    frame.sequence = origin.sequence;
    frame.index = (uint16_t)index;
    frame.position = origin.position + at;
    static const cb_codec codecs[] = {CB_CODEC_NIBBLE, CB_CODEC_LZ4, CB_CODEC_NONE, CB_CODEC_DELTA};
    frame.codec = (uint8_t)(c->packed ? codecs[frame.codec % 4] : CB_CODEC_NONE);
    if (c->mend_lengths) {
        frame.stored_bytes %= 9000;
        frame.payload_bytes =
            frame.codec == CB_CODEC_NONE ? frame.stored_bytes : frame.payload_bytes % 33000;
    }
    size_t length = c->packed ? cbi_frame_packed_bytes(frame.stored_bytes)
                              : cbi_frame_raw_bytes(frame.stored_bytes);
    if (c->mend_hashes && length <= count - at) {
        frame.hash = cbi_frame_hash(bytes + at + CBI_FRAME_HEADER_BYTES,
                                    length - CBI_FRAME_HEADER_BYTES, origin.salt);
    }
    cbi_frame_put(bytes + at, frame, origin.salt);
    return at + length;
}

static void mend_all(uint8_t *bytes, size_t count, const control *c) {
    size_t at = 0;
    for (uint32_t i = 0; i < c->count && at + CBI_FRAME_HEADER_BYTES <= count; i++) {
        at = mend(bytes, count, at, i, c);
    }
}

static void make_segments(cbi_spill_segment *segments, const control *c) {
    for (uint32_t i = 0; i < c->count; i++) {
        uint32_t capacity = c->capacities[i] * (uint32_t)CBI_SPILL_ALIGN;
        segments[i] = (cbi_spill_segment){aligned_alloc(CBI_SPILL_ALIGN, capacity), capacity, 0};
        if (segments[i].base == NULL) {
            abort();
        }
        memset(segments[i].base, 0, capacity);
    }
}

static cb_status decode(uint8_t *bytes, size_t count, cbi_spill_segment *segments, const control *c,
                        cb_error *err) {
    if (c->packed) {
        return cbi_frames_unpack(bytes, count, segments, c->count, &origin, err);
    }
    size_t at = 0;
    for (uint32_t i = 0; i < c->count && at < count; i++) {
        size_t length = cbi_min(segments[i].capacity, count - at);
        memcpy(segments[i].base, bytes + at, length);
        at += length;
    }
    return cbi_frames_settle(segments, c->count, at, &origin, err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < CONTROL_BYTES + 1) {
        return 0;
    }
    control c = read_control(data);
    size_t given = cbi_min(size - CONTROL_BYTES, EXTENT_MAX);
    size_t count = cbi_round_up(given, CBI_SPILL_ALIGN);
    uint8_t *bytes = calloc(1, count); /* exactly, so that one byte too far is seen */
    if (bytes == NULL) {
        abort();
    }
    memcpy(bytes, data + CONTROL_BYTES, given);
    if (c.mend_headers) {
        mend_all(bytes, count, &c);
    }
    cbi_spill_segment segments[SEGMENTS_MAX];
    make_segments(segments, &c);
    cb_error err;
    cb_status status = decode(bytes, count, segments, &c, &err);
    cb_assert(status == CB_OK || status == CB_ECORRUPT);
    for (uint32_t i = 0; i < c.count; i++) {
        cb_assert(status != CB_OK ||
                  segments[i].used + (size_t)CBI_FRAME_HEADER_BYTES <= segments[i].capacity);
        free(segments[i].base);
    }
    free(bytes);
    return 0;
}
