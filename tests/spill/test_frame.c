/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames in memory: what is sealed comes back, and nothing else does. Method: make an extent of a
 * few frames, damage one bit (every bit of every header, one bit in each 512 bytes of the rest,
 * padding included), and ask for it back.
 */
#include <lz4.h>

#include "batch.h"
#include "spill/frame.h"

static const cbi_frame_origin origin = {
    .salt = 0x1234567890abcdefu, .owner = 77, .sequence = 5, .position = (3ull << 56) + 8192};

enum { EXTENT_MAX = 1024 * 1024 };

typedef struct extent {
    uint8_t *bytes;
    size_t count;
    bool packed;
} extent;

/* The frames' contents one after another, as a raw write puts them on disk. */
static extent make_raw(batch *b) {
    extent e = {.bytes = malloc(EXTENT_MAX)};
    assert_non_null(e.bytes);
    for (uint32_t i = 0; i < b->count; i++) {
        size_t length = cbi_frame_seal(&b->segments[i], &origin, (uint16_t)i, e.count);
        memcpy(e.bytes + e.count, b->segments[i].base, length);
        e.count += length;
    }
    return e;
}

static extent make_packed_with(const batch *b, cb_codec codec) {
    extent e = {.bytes = malloc(EXTENT_MAX), .packed = true};
    void *state = malloc((size_t)LZ4_sizeofState());
    assert_non_null(e.bytes);
    assert_non_null(state);
    cbi_packing packing = {.codec = codec, .distance = 100, .state = state};
    size_t used = cbi_frames_pack(b->segments, b->count, &origin, &packing, e.bytes, EXTENT_MAX);
    assert_true(used > 0);
    e.count = cbi_frames_seal_packed(e.bytes, used, &origin);
    free(state);
    return e;
}

static extent make_packed(const batch *b) {
    return make_packed_with(b, CB_CODEC_LZ4);
}

/* As a raw read leaves it: back to back into the segments, each to its capacity. */
static void scatter(const extent *e, const batch *b) {
    size_t at = 0;
    for (uint32_t i = 0; i < b->count && at < e->count; i++) {
        size_t length = cbi_min(b->segments[i].capacity, e->count - at);
        memcpy(b->segments[i].base, e->bytes + at, length);
        at += length;
    }
    assert_int_equal(at, e->count);
}

static cb_status take_back(const extent *e, batch *b, const cbi_frame_origin *from, cb_error *err) {
    if (e->packed) {
        return cbi_frames_unpack(e->bytes, e->count, b->segments, b->count, from, err);
    }
    scatter(e, b);
    return cbi_frames_settle(b->segments, b->count, e->count, from, err);
}

/* Full, empty, nearly empty and half full, in segments of different sizes. */
static batch make_uneven(void) {
    batch b = {.count = 6};
    const uint32_t capacities[] = {8192, 16384, 4096, 16384, 8192, 4096};
    const uint32_t used[] = {8192 - 48, 5000, 0, 1, 4096 - 48, 100};
    for (uint32_t i = 0; i < b.count; i++) {
        batch one = batch_make(1, capacities[i]);
        b.segments[i] = one.segments[0];
        batch_fill(&b, i, used[i], i + 1);
    }
    return b;
}

static batch make_empty_like(const batch *a) {
    batch b = {.count = a->count};
    for (uint32_t i = 0; i < b.count; i++) {
        batch one = batch_make(1, a->segments[i].capacity);
        b.segments[i] = one.segments[0];
    }
    return b;
}

static void test_frames_come_back_each_in_its_own_segment(void **state) {
    (void)state;
    batch out = make_uneven();
    batch in = make_empty_like(&out);
    extent raw = make_raw(&out);
    extent packed = make_packed(&out);
    assert_int_equal(raw.count % CBI_SPILL_ALIGN, 0);
    assert_int_equal(packed.count % CBI_SPILL_ALIGN, 0);
    assert_true(packed.count < raw.count);
    assert_ok(take_back(&raw, &in, &origin, NULL));
    assert_same_payload(&out, &in);
    assert_ok(take_back(&packed, &in, &origin, NULL));
    assert_same_payload(&out, &in);
    free(raw.bytes);
    free(packed.bytes);
    batch_free(&out);
    batch_free(&in);
}

static void test_random_fillings_settle(void **state) {
    (void)state;
    uint64_t seed = 20261121;
    for (unsigned round = 0; round < 300; round++) {
        batch out = {.count = 1 + round % 9};
        for (uint32_t i = 0; i < out.count; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            batch one = batch_make(1, (uint32_t)((seed >> 33) % 6 + 1) * 4096);
            out.segments[i] = one.segments[0];
            batch_fill(&out, i, (uint32_t)((seed >> 40) % (batch_room(&out, i) + 1)), seed);
        }
        batch in = make_empty_like(&out);
        extent raw = make_raw(&out);
        assert_ok(take_back(&raw, &in, &origin, NULL));
        assert_same_payload(&out, &in);
        free(raw.bytes);
        batch_free(&out);
        batch_free(&in);
    }
}

static void flip(extent *e, size_t byte, unsigned bit) {
    e->bytes[byte] ^= (uint8_t)(1u << bit);
}

static unsigned assert_found(extent *e, batch *in, size_t byte, unsigned bit) {
    cb_error err;
    flip(e, byte, bit);
    cb_status status = take_back(e, in, &origin, &err);
    flip(e, byte, bit);
    if (status != CB_ECORRUPT) {
        fail_msg("bit %u of byte %zu was flipped and not found", bit, byte);
    }
    assert_int_equal(err.status, CB_ECORRUPT);
    return 1;
}

/* Every bit of the headers; they begin where the magic stands. */
static unsigned flip_headers(extent *e, batch *in) {
    unsigned found = 0;
    size_t step = e->packed ? CBI_FRAME_PACKED_ALIGN : CBI_SPILL_ALIGN;
    for (size_t at = 0; at + CBI_FRAME_HEADER_BYTES <= e->count; at += step) {
        for (size_t bit = 0;
             cbi_load_u32(e->bytes + at) == CBI_FRAME_MAGIC && bit < CBI_FRAME_HEADER_BYTES * 8;
             bit++) {
            found += assert_found(e, in, at + bit / 8, bit % 8);
        }
    }
    return found;
}

static void flip_all(extent e, batch *in, uint32_t frames) {
    assert_int_equal(flip_headers(&e, in), frames * CBI_FRAME_HEADER_BYTES * 8);
    for (size_t at = 0; at < e.count; at += 64) {
        (void)assert_found(&e, in, at + at / 64 % 64, (unsigned)(at / 64 % 8));
    }
    assert_ok(take_back(&e, in, &origin, NULL)); /* and all is as it was */
}

static void test_a_flipped_bit_anywhere_is_found(void **state) {
    (void)state;
    batch out = make_uneven();
    batch in = make_empty_like(&out);
    extent raw = make_raw(&out);
    extent packed = make_packed(&out);
    flip_all(raw, &in, out.count);
    flip_all(packed, &in, out.count);
    free(raw.bytes);
    free(packed.bytes);
    batch_free(&out);
    batch_free(&in);
}

static void expect_stranger(const extent *e, batch *in, cbi_frame_origin other) {
    cb_error err;
    assert_status(take_back(e, in, &other, &err), CB_ECORRUPT);
}

static void test_a_good_frame_of_somebody_else_is_found(void **state) {
    (void)state;
    batch out = make_uneven();
    batch in = make_empty_like(&out);
    extent extents[2] = {make_raw(&out), make_packed(&out)};
    for (int i = 0; i < 2; i++) {
        cbi_frame_origin other = origin;
        other.owner++;
        expect_stranger(&extents[i], &in, other);
        other = origin;
        other.sequence--;
        expect_stranger(&extents[i], &in, other);
        other = origin;
        other.position += CBI_SPILL_ALIGN; /* a write that went to another place */
        expect_stranger(&extents[i], &in, other);
        other = origin;
        other.position += 1ull << 56; /* or to another file */
        expect_stranger(&extents[i], &in, other);
        other = origin;
        other.salt++; /* left there by an earlier process */
        expect_stranger(&extents[i], &in, other);
        free(extents[i].bytes);
    }
    batch_free(&out);
    batch_free(&in);
}

static void test_frames_in_another_order_are_found(void **state) {
    (void)state;
    batch out = batch_make(3, 8192);
    batch in = batch_make(3, 8192);
    batch_fill_all(&out, 1);
    extent e = make_raw(&out);
    uint8_t frame[8192];
    memcpy(frame, e.bytes, 8192);
    memmove(e.bytes, e.bytes + 8192, 8192);
    memcpy(e.bytes + 8192, frame, 8192);
    cb_error err;
    assert_status(take_back(&e, &in, &origin, &err), CB_ECORRUPT);
    free(e.bytes);
    batch_free(&out);
    batch_free(&in);
}

static void test_an_extent_cut_or_grown_is_found(void **state) {
    (void)state;
    batch out = make_uneven();
    batch in = make_empty_like(&out);
    extent extents[2] = {make_raw(&out), make_packed(&out)};
    for (int i = 0; i < 2; i++) {
        extent e = extents[i];
        for (size_t count = CBI_SPILL_ALIGN; count < e.count; count += CBI_SPILL_ALIGN) {
            extent cut = {e.bytes, count, e.packed};
            assert_status(take_back(&cut, &in, &origin, NULL), CB_ECORRUPT);
        }
        memset(e.bytes + e.count, 0, CBI_SPILL_ALIGN);
        extent grown = {e.bytes, e.count + CBI_SPILL_ALIGN, e.packed};
        assert_status(take_back(&grown, &in, &origin, NULL), CB_ECORRUPT);
        free(e.bytes);
    }
    batch_free(&out);
    batch_free(&in);
}

static void test_a_frame_larger_than_its_segment_is_not_let_in(void **state) {
    (void)state;
    batch out = batch_make(2, 8192);
    batch_fill_all(&out, 3);
    extent extents[2] = {make_raw(&out), make_packed(&out)};
    batch in = {.count = 2};
    batch small = batch_make(1, 4096);
    batch large = batch_make(1, 65536);
    in.segments[0] = small.segments[0];
    in.segments[1] = large.segments[0];
    for (int i = 0; i < 2; i++) {
        assert_status(take_back(&extents[i], &in, &origin, NULL), CB_ECORRUPT);
        free(extents[i].bytes);
    }
    batch_free(&out);
    batch_free(&in);
}

/* Headers with a good check that say what cannot be: only a bug of ours could write them, and it is
 * found, too. */
static void test_contradictions_are_found(void **state) {
    (void)state;
    batch in = batch_make(1, 8192);
    uint8_t bytes[8192] = {0};
    const cbi_frame good = {.payload_bytes = 100,
                            .stored_bytes = 100,
                            .owner = origin.owner,
                            .sequence = origin.sequence,
                            .codec = CB_CODEC_NONE,
                            .position = origin.position};
    cbi_frame bad[5];
    for (int i = 0; i < 5; i++) {
        bad[i] = good;
    }
    bad[0].stored_bytes = 99;           /* raw, and yet shorter */
    bad[1].codec = CB_CODEC_LZ4;        /* packed, and yet not shorter */
    bad[2].codec = 7;                   /* no such codec */
    bad[3].payload_bytes = 0xfffffff0u; /* nothing has room for it */
    bad[3].stored_bytes = 0xfffffff0u;
    bad[4].codec = CB_CODEC_LZ4; /* zeroes are no lz4 block of 200 bytes */
    bad[4].payload_bytes = 200;
    for (int i = 0; i < 5; i++) {
        for (int packed = 0; packed < 2; packed++) {
            extent e = {bytes, 4096, packed == 1};
            size_t length = packed == 1 ? cbi_frame_packed_bytes(bad[i].stored_bytes) : 4096;
            bad[i].hash =
                cbi_frame_hash(bytes + CBI_FRAME_HEADER_BYTES,
                               cbi_min(length, 4096) - CBI_FRAME_HEADER_BYTES, origin.salt);
            cbi_frame_put(bytes, bad[i], origin.salt);
            assert_status(take_back(&e, &in, &origin, NULL), CB_ECORRUPT);
        }
    }
    batch_free(&in);
}

static void test_what_does_not_fit_in_the_staging_memory_is_not_packed(void **state) {
    (void)state;
    batch out = batch_make(4, 8192);
    void *lz4 = malloc((size_t)LZ4_sizeofState());
    cbi_packing packing = {.codec = CB_CODEC_LZ4, .state = lz4};
    uint8_t *staging = malloc(EXTENT_MAX);
    for (uint32_t i = 0; i < out.count; i++) {
        batch_fill_noise(&out, i, batch_room(&out, i), i);
    }
    assert_int_equal(cbi_frames_pack(out.segments, 4, &origin, &packing, staging, 4 * 8192),
                     4 * 8192);
    for (size_t capacity = 0; capacity < (size_t)4 * 8192; capacity += 997) {
        assert_int_equal(cbi_frames_pack(out.segments, 4, &origin, &packing, staging, capacity), 0);
    }
    free(lz4);
    free(staging);
    batch_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frames_come_back_each_in_its_own_segment),
        cmocka_unit_test(test_random_fillings_settle),
        cmocka_unit_test(test_a_flipped_bit_anywhere_is_found),
        cmocka_unit_test(test_a_good_frame_of_somebody_else_is_found),
        cmocka_unit_test(test_frames_in_another_order_are_found),
        cmocka_unit_test(test_an_extent_cut_or_grown_is_found),
        cmocka_unit_test(test_a_frame_larger_than_its_segment_is_not_let_in),
        cmocka_unit_test(test_contradictions_are_found),
        cmocka_unit_test(test_what_does_not_fit_in_the_staging_memory_is_not_packed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
