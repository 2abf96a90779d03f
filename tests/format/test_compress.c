/* SPDX-License-Identifier: Apache-2.0 */

/* Both directions of the codecs: what was compressed comes back, the library's own tools agree,
 * damage and missing ends are found wherever they are, and memory is what was announced. */

#include "format/input_kit.h"

#include <lz4frame.h>
#include <zlib.h>
#include <zstd.h>

#include "base/alloc.h"
#include "format/decompress.h"

static const cbi_compression codecs[] = {CBI_COMPRESSION_GZIP, CBI_COMPRESSION_ZSTD,
                                         CBI_COMPRESSION_LZ4};

typedef struct memory_source {
    const uint8_t *bytes;
    size_t count, at, step;
} memory_source;

static cb_status memory_read(void *ctx, uint8_t *buf, size_t bytes, size_t *got, cb_error *err) {
    memory_source *s = ctx;
    (void)err;
    size_t n = cbi_min(cbi_min(bytes, s->step), s->count - s->at);
    if (n != 0)
        memcpy(buf, s->bytes + s->at, n);
    s->at += n;
    *got = n;
    return CB_OK;
}

static cb_status decode(cbi_compression c, const uint8_t *bytes, size_t count, size_t step,
                        size_t piece, kit_text *out, size_t bytes_max, cb_error *err) {
    memory_source source = {bytes, count, 0, step};
    cbi_decoder *decoder = NULL;
    uint8_t *buf = malloc(piece);
    cb_status status =
        cbi_decoder_create(c, "test", bytes_max, memory_read, &source, &decoder, err);
    assert_int_equal(status, CB_OK);
    for (size_t got = piece; got == piece && status == CB_OK;) {
        got = 0;
        status = cbi_decoder_read(decoder, buf, piece, &got, err);
        if (status == CB_OK)
            kit_add(out, buf, got);
    }
    cbi_decoder_destroy(decoder);
    free(buf);
    return status;
}

static void make_text(kit_random *r, size_t bytes, kit_text *text) {
    while (text->count < bytes)
        kit_add_byte(text, kit_below(r, 3) ? (char)('a' + kit_below(r, 4)) : (char)kit_next(r));
}

static void compress_blocks(cbi_compression c, const kit_text *text, size_t block, kit_text *out) {
    cbi_compressor *compressor = NULL;
    assert_int_equal(cbi_compressor_create(c, &compressor, NULL), CB_OK);
    uint8_t *buf = malloc(cbi_compress_bound(c, block));
    for (size_t at = 0; at < text->count; at += block) {
        size_t n = cbi_min(block, text->count - at), got = 0;
        assert_int_equal(cbi_compress(compressor, text->bytes + at, n, buf,
                                      cbi_compress_bound(c, n), &got, NULL),
                         CB_OK);
        kit_add(out, buf, got);
    }
    free(buf);
    cbi_compressor_destroy(compressor);
}

static void test_compress_comes_back_in_any_pieces(void **state) {
    (void)state;
    kit_random r = {31};
    for (size_t i = 0; i < 3; i++)
        for (int round = 0; round < 60; round++) {
            kit_text text = {0}, packed = {0}, got = {0};
            cb_error err = {0};
            make_text(&r, kit_below(&r, 100000), &text);
            compress_blocks(codecs[i], &text, 1 + kit_below(&r, 70000), &packed);
            if (packed.count != 0)
                assert_int_equal(cbi_compression_of_magic(packed.bytes, packed.count), codecs[i]);
            cb_status status = decode(codecs[i], packed.bytes, packed.count,
                                      1 + kit_below(&r, round % 2 ? 20 : 100000),
                                      1 + kit_below(&r, 30000), &got, SIZE_MAX, &err);
            if (status != CB_OK)
                fail_msg("%s", err.message);
            kit_same(&got, &text, "decoded");
            kit_free(&text);
            kit_free(&packed);
            kit_free(&got);
        }
}

static void test_compress_block_depends_on_its_bytes_only(void **state) {
    (void)state;
    kit_random r = {32};
    for (size_t i = 0; i < 3; i++) {
        kit_text text = {0}, once = {0}, twice = {0};
        make_text(&r, CBI_COMPRESS_BLOCK_BYTES, &text);
        compress_blocks(codecs[i], &text, 50000, &once);
        cbi_compressor *compressor = NULL;
        assert_int_equal(cbi_compressor_create(codecs[i], &compressor, NULL), CB_OK);
        uint8_t *buf = malloc(cbi_compress_bound(codecs[i], CBI_COMPRESS_BLOCK_BYTES));
        size_t got = 0, cap = cbi_compress_bound(codecs[i], CBI_COMPRESS_BLOCK_BYTES);
        /* a large block before must leave no trace */
        assert_int_equal(cbi_compress(compressor, text.bytes, text.count, buf, cap, &got, NULL),
                         CB_OK);
        for (size_t at = 0; at < text.count; at += 50000) {
            size_t n = cbi_min(50000, text.count - at);
            assert_int_equal(cbi_compress(compressor, text.bytes + at, n, buf, cap, &got, NULL),
                             CB_OK);
            kit_add(&twice, buf, got);
        }
        kit_same(&twice, &once, "the same blocks");
        free(buf);
        cbi_compressor_destroy(compressor);
        kit_free(&text);
        kit_free(&once);
        kit_free(&twice);
    }
}

static void test_compress_holds_what_it_says(void **state) {
    (void)state;
    kit_random r = {33};
    kit_text text = {0};
    make_text(&r, CBI_COMPRESS_BLOCK_BYTES, &text);
    for (size_t i = 0; i < 3; i++) {
        size_t before = cbi_alloc_bytes(), got = 0,
               cap = cbi_compress_bound(codecs[i], CBI_COMPRESS_BLOCK_BYTES);
        cbi_compressor *compressor = NULL;
        uint8_t *buf = malloc(cap);
        assert_int_equal(cbi_compressor_create(codecs[i], &compressor, NULL), CB_OK);
        assert_int_equal(cbi_compress(compressor, text.bytes, text.count, buf, cap, &got, NULL),
                         CB_OK);
        assert_in_range(cbi_alloc_bytes() - before, 1, cbi_compressor_bytes(codecs[i]));
        cbi_compressor_destroy(compressor);
        assert_int_equal(cbi_alloc_bytes(), before);
        free(buf);
    }
    kit_free(&text);
}

static void test_decompress_finds_every_missing_end(void **state) {
    (void)state;
    kit_random r = {34};
    for (size_t i = 0; i < 3; i++) {
        kit_text text = {0}, packed = {0};
        make_text(&r, 2000, &text);
        compress_blocks(codecs[i], &text, 2000, &packed);
        for (size_t n = 1; n < packed.count; n++) {
            kit_text got = {0};
            cb_error err = {0};
            assert_int_equal(decode(codecs[i], packed.bytes, n, 999, 100, &got, SIZE_MAX, &err),
                             CB_EDATA);
            assert_non_null(strstr(err.message, "cut off"));
            kit_free(&got);
        }
        kit_free(&text);
        kit_free(&packed);
    }
}

static void test_decompress_finds_flipped_bits(void **state) {
    (void)state;
    kit_random r = {35};
    for (size_t i = 0; i < 3; i++) {
        kit_text text = {0}, packed = {0};
        make_text(&r, 3000, &text);
        compress_blocks(codecs[i], &text, 3000, &packed);
        for (size_t bit = 0; bit < packed.count * 8; bit++) {
            kit_text got = {0};
            cb_error err = {0};
            packed.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            cb_status status =
                decode(codecs[i], packed.bytes, packed.count, 999, 100, &got, 64 * CBI_MIB, &err);
            if (status == CB_OK) /* a bit of the header that means nothing */
                kit_same(&got, &text, "with a flipped bit");
            packed.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            kit_free(&got);
        }
        kit_free(&text);
        kit_free(&packed);
    }
}

static void test_decompress_refuses_windows_that_do_not_fit(void **state) {
    (void)state;
    kit_text got = {0};
    cb_error err = {0};
    uint8_t packed[200];
    ZSTD_CCtx *cctx = ZSTD_createCCtx();
    (void)ZSTD_CCtx_setParameter(cctx, ZSTD_c_windowLog, 27);
    ZSTD_outBuffer out = {packed, sizeof packed, 0};
    ZSTD_inBuffer in = {"hello", 5, 0};
    assert_int_equal(ZSTD_compressStream2(cctx, &out, &in, ZSTD_e_flush),
                     0); /* before the size can be known */
    assert_int_equal(ZSTD_compressStream2(cctx, &out, &in, ZSTD_e_end), 0);
    ZSTD_freeCCtx(cctx);
    assert_int_equal(decode(CBI_COMPRESSION_ZSTD, packed, out.pos, 200, 100, &got, CBI_MIB, &err),
                     CB_EBUDGET);
    assert_true(err.bytes_asked > 128 * CBI_MIB);
    assert_int_equal(err.bytes_had, CBI_MIB);
    size_t before = cbi_alloc_bytes();
    got.count = 0;
    assert_int_equal(
        decode(CBI_COMPRESSION_ZSTD, packed, out.pos, 200, 100, &got, 160 * CBI_MIB, &err), CB_OK);
    assert_memory_equal(got.bytes, "hello", 5);
    assert_int_equal(cbi_alloc_bytes(), before);

    static const uint8_t text[6000];
    uint8_t frame[8 * 1024];
    LZ4F_preferences_t prefs = {.frameInfo = {.blockSizeID = LZ4F_max4MB}};
    LZ4F_cctx *lz4 = NULL;
    assert_false(LZ4F_isError(LZ4F_createCompressionContext(&lz4, LZ4F_VERSION)));
    size_t n = LZ4F_compressBegin(lz4, frame, sizeof frame, &prefs);
    n += LZ4F_compressEnd(lz4, frame + n, sizeof frame - n, NULL);
    (void)LZ4F_freeCompressionContext(lz4);
    assert_int_equal(decode(CBI_COMPRESSION_LZ4, frame, n, 200, 100, &got, CBI_MIB, &err),
                     CB_EBUDGET);
    assert_in_range(err.bytes_asked, 8 * CBI_MIB, 9 * CBI_MIB);
    n = LZ4F_compressFrame(frame, sizeof frame, text, sizeof text, NULL);
    got.count = 0;
    assert_int_equal(decode(CBI_COMPRESSION_LZ4, frame, n, 200, 100, &got, CBI_MIB, &err), CB_OK);
    assert_int_equal(got.count, sizeof text);
    kit_free(&got);
}

static void test_decompress_holds_a_zstd_frame_to_the_size_in_its_header(void **state) {
    (void)state;
    /* 8350 bytes promised, one empty last block: zstd finds it only when it has all in one piece.
     */
    static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x9e, 0x1f, 1, 0, 0};
    for (size_t step = 1; step <= sizeof frame; step++) {
        kit_text got = {0};
        cb_error err = {0};
        assert_int_equal(
            decode(CBI_COMPRESSION_ZSTD, frame, sizeof frame, step, 9000, &got, SIZE_MAX, &err),
            CB_EDATA);
        assert_int_equal(got.count, 0);
        kit_free(&got);
    }
}

static void test_decompress_answers_the_same_whatever_the_pieces_are(void **state) {
    (void)state;
    /* A frame of nothing with an empty block that says it is compressed: zstd 1.5.4 refuses it when
     * it has all of it at once, and takes it in pieces. */
    static const uint8_t frame[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 4, 0, 0, 1, 0, 0};
    kit_text got = {0};
    cb_error err = {0};
    cb_status first =
        decode(CBI_COMPRESSION_ZSTD, frame, sizeof frame, 1, 9000, &got, SIZE_MAX, &err);
    for (size_t step = 2; step <= sizeof frame; step++)
        assert_int_equal(
            decode(CBI_COMPRESSION_ZSTD, frame, sizeof frame, step, 9000, &got, SIZE_MAX, &err),
            first);
    assert_int_equal(got.count, 0);
    kit_free(&got);
}

static void test_decompress_says_what_follows_the_last_member(void **state) {
    (void)state;
    kit_text text = {0}, packed = {0}, got = {0};
    cb_error err = {0};
    kit_add_string(&text, "one member");
    compress_blocks(CBI_COMPRESSION_GZIP, &text, 100, &packed);
    size_t n = packed.count;
    kit_add(&packed, "\0\0\0\0", 4);
    assert_int_equal(
        decode(CBI_COMPRESSION_GZIP, packed.bytes, packed.count, 3, 100, &got, SIZE_MAX, &err),
        CB_OK);
    assert_int_equal(got.count, 10);
    kit_add(&packed, "rubbish", 7);
    assert_int_equal(
        decode(CBI_COMPRESSION_GZIP, packed.bytes, packed.count, 3, 100, &got, SIZE_MAX, &err),
        CB_EDATA);
    assert_non_null(strstr(err.message, "follows the last member"));
    packed.count = n;
    kit_add(&packed, "rubbish", 7);
    assert_int_equal(
        decode(CBI_COMPRESSION_GZIP, packed.bytes, packed.count, 100, 100, &got, SIZE_MAX, &err),
        CB_EDATA);
    kit_free(&text);
    kit_free(&packed);
    kit_free(&got);
}

static void test_compression_goes_by_name_and_magic(void **state) {
    (void)state;
    assert_int_equal(cbi_compression_of_name("a.csv.gz"), CBI_COMPRESSION_GZIP);
    assert_int_equal(cbi_compression_of_name("a.zst"), CBI_COMPRESSION_ZSTD);
    assert_int_equal(cbi_compression_of_name("a.lz4"), CBI_COMPRESSION_LZ4);
    assert_int_equal(cbi_compression_of_name(".gz"), CBI_COMPRESSION_NONE);
    assert_int_equal(cbi_compression_of_name("agz"), CBI_COMPRESSION_NONE);
    assert_int_equal(cbi_compression_of_magic((const uint8_t *)"\x1f\x8b\x08", 3),
                     CBI_COMPRESSION_NONE);
    assert_int_equal(cbi_compression_of_magic((const uint8_t *)"text", 4), CBI_COMPRESSION_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compress_comes_back_in_any_pieces),
        cmocka_unit_test(test_compress_block_depends_on_its_bytes_only),
        cmocka_unit_test(test_compress_holds_what_it_says),
        cmocka_unit_test(test_decompress_finds_every_missing_end),
        cmocka_unit_test(test_decompress_finds_flipped_bits),
        cmocka_unit_test(test_decompress_refuses_windows_that_do_not_fit),
        cmocka_unit_test(test_decompress_holds_a_zstd_frame_to_the_size_in_its_header),
        cmocka_unit_test(test_decompress_answers_the_same_whatever_the_pieces_are),
        cmocka_unit_test(test_decompress_says_what_follows_the_last_member),
        cmocka_unit_test(test_compression_goes_by_name_and_magic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
