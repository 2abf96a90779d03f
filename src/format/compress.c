/* SPDX-License-Identifier: Apache-2.0 */
#define LZ4F_STATIC_LINKING_ONLY
#define ZSTD_STATIC_LINKING_ONLY
#include <lz4frame.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "base/alloc.h"
#include "format/codec_memory.h"
#include "format/format.h"

/*
 * Every block becomes a frame of its own. That costs a few bytes and one per cent of ratio; it buys
 * output that is the same however many threads wrote it, and blocks that can be compressed at the
 * same time.
 */

enum {
    COMPRESS_GZIP_LEVEL = 6, /* what gzip does unasked */
    COMPRESS_ZSTD_LEVEL = 3, /* what zstd does unasked */
    COMPRESS_GZIP_BYTES = 272 * 1024,
    COMPRESS_LZ4_BYTES = 20 * 1024
};

struct cbi_compressor {
    cbi_compression codec;
    bool ready;
    union {
        z_stream gzip;
        ZSTD_CCtx *zstd; /* inside workspace */
        LZ4F_cctx *lz4;
    } state;
    void *workspace;
};

static bool name_ends(const char *name, const char *suffix) {
    size_t n = strlen(name), s = strlen(suffix);
    return n > s && strcmp(name + n - s, suffix) == 0;
}

cbi_compression cbi_compression_of_name(const char *path) {
    if (name_ends(path, ".gz"))
        return CBI_COMPRESSION_GZIP;
    if (name_ends(path, ".zst"))
        return CBI_COMPRESSION_ZSTD;
    if (name_ends(path, ".lz4"))
        return CBI_COMPRESSION_LZ4;
    return CBI_COMPRESSION_NONE;
}

static LZ4F_preferences_t lz4_preferences(size_t bytes) {
    LZ4F_preferences_t p;
    memset(&p, 0, sizeof p);
    p.frameInfo.blockSizeID = LZ4F_max1MB;
    p.frameInfo.blockMode = LZ4F_blockIndependent;
    p.frameInfo.contentChecksumFlag = LZ4F_contentChecksumEnabled;
    p.frameInfo.contentSize = bytes;
    p.autoFlush = 1; /* so that no buffer is needed between */
    return p;
}

size_t cbi_compress_bound(cbi_compression c, size_t bytes) {
    LZ4F_preferences_t prefs = lz4_preferences(bytes);
    switch (c) {
        case CBI_COMPRESSION_GZIP: return compressBound(bytes) + 32;
        case CBI_COMPRESSION_ZSTD: return ZSTD_compressBound(bytes) + 32;
        case CBI_COMPRESSION_LZ4: return LZ4F_compressBound(bytes, &prefs) + LZ4F_HEADER_SIZE_MAX;
        case CBI_COMPRESSION_NONE: break;
    }
    return bytes;
}

size_t cbi_compressor_bytes(cbi_compression c) {
    switch (c) {
        case CBI_COMPRESSION_GZIP: return COMPRESS_GZIP_BYTES;
        case CBI_COMPRESSION_ZSTD: return ZSTD_estimateCCtxSize(COMPRESS_ZSTD_LEVEL) + CBI_KIB;
        case CBI_COMPRESSION_LZ4: return COMPRESS_LZ4_BYTES;
        case CBI_COMPRESSION_NONE: break;
    }
    return 0;
}

static bool compressor_ready_zstd(cbi_compressor *c) {
    size_t bytes = ZSTD_estimateCCtxSize(COMPRESS_ZSTD_LEVEL);
    c->workspace = cbi_alloc(bytes);
    c->state.zstd = c->workspace ? ZSTD_initStaticCCtx(c->workspace, bytes) : NULL;
    return c->state.zstd &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(c->state.zstd, ZSTD_c_compressionLevel,
                                                COMPRESS_ZSTD_LEVEL)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(c->state.zstd, ZSTD_c_checksumFlag, 1));
}

cb_status cbi_compressor_create(cbi_compression codec, cbi_compressor **compressor, cb_error *err) {
    cbi_compressor *c = cbi_calloc(1, sizeof *c);
    if (!c)
        goto refused;
    c->codec = codec;
    switch (codec) {
        case CBI_COMPRESSION_GZIP:
            c->state.gzip.zalloc = cbi_codec_calloc_items;
            c->state.gzip.zfree = cbi_codec_free;
            c->ready = deflateInit2(&c->state.gzip, COMPRESS_GZIP_LEVEL, Z_DEFLATED, 15 + 16, 8,
                                    Z_DEFAULT_STRATEGY) == Z_OK;
            break;
        case CBI_COMPRESSION_ZSTD: c->ready = compressor_ready_zstd(c); break;
        case CBI_COMPRESSION_LZ4:
            c->state.lz4 = LZ4F_createCompressionContext_advanced(
                (LZ4F_CustomMem){cbi_codec_alloc, cbi_codec_calloc, cbi_codec_free, NULL},
                LZ4F_VERSION);
            c->ready = c->state.lz4 != NULL;
            break;
        case CBI_COMPRESSION_NONE: c->ready = true; break;
    }
    if (!c->ready)
        goto refused;
    *compressor = c;
    return CB_OK;
refused:
    cbi_compressor_destroy(c);
    return cbi_fail_bytes(err, CB_ENOMEM, cbi_compressor_bytes(codec), 0,
                          "no memory for compressing the output");
}

void cbi_compressor_destroy(cbi_compressor *c) {
    if (!c)
        return;
    if (c->codec == CBI_COMPRESSION_GZIP && c->ready)
        (void)deflateEnd(&c->state.gzip);
    if (c->codec == CBI_COMPRESSION_LZ4)
        (void)LZ4F_freeCompressionContext(c->state.lz4);
    cbi_free(c->workspace);
    cbi_free(c);
}

static cb_status compress_failed(const char *why, cb_error *err) {
    return cbi_fail(err, CB_EINTERNAL, "compressing a block of output failed: %s", why);
}

static cb_status compress_gzip(cbi_compressor *c, const uint8_t *in, size_t bytes, uint8_t *out,
                               size_t cap, size_t *out_bytes, cb_error *err) {
    z_stream *z = &c->state.gzip;
    if (deflateReset(z) != Z_OK)
        return compress_failed("it cannot start again", err);
    z->next_in = (z_const Bytef *)(uintptr_t)in;
    z->avail_in = (uInt)bytes;
    z->next_out = out;
    z->avail_out = (uInt)cbi_min(cap, CBI_GIB);
    size_t room = z->avail_out;
    if (deflate(z, Z_FINISH) != Z_STREAM_END)
        return compress_failed("the buffer is too small", err);
    *out_bytes = room - z->avail_out;
    return CB_OK;
}

static cb_status compress_lz4(cbi_compressor *c, const uint8_t *in, size_t bytes, uint8_t *out,
                              size_t cap, size_t *out_bytes, cb_error *err) {
    LZ4F_preferences_t prefs = lz4_preferences(bytes);
    size_t n = LZ4F_compressBegin(c->state.lz4, out, cap, &prefs), m = 0;
    if (!LZ4F_isError(n)) {
        m = LZ4F_compressUpdate(c->state.lz4, out + n, cap - n, in, bytes, NULL);
        n = LZ4F_isError(m) ? m : n + m;
    }
    if (!LZ4F_isError(n)) {
        m = LZ4F_compressEnd(c->state.lz4, out + n, cap - n, NULL);
        n = LZ4F_isError(m) ? m : n + m;
    }
    if (LZ4F_isError(n))
        return compress_failed(LZ4F_getErrorName(n), err);
    *out_bytes = n;
    return CB_OK;
}

cb_status cbi_compress(cbi_compressor *c, const uint8_t *in, size_t bytes, uint8_t *out, size_t cap,
                       size_t *out_bytes, cb_error *err) {
    cb_assert(bytes <= CBI_COMPRESS_BLOCK_BYTES);
    cb_assert(cap >= cbi_compress_bound(c->codec, bytes));
    switch (c->codec) {
        case CBI_COMPRESSION_GZIP: return compress_gzip(c, in, bytes, out, cap, out_bytes, err);
        case CBI_COMPRESSION_ZSTD: {
            size_t n = ZSTD_compress2(c->state.zstd, out, cap, in, bytes);
            if (ZSTD_isError(n))
                return compress_failed(ZSTD_getErrorName(n), err);
            *out_bytes = n;
            return CB_OK;
        }
        case CBI_COMPRESSION_LZ4: return compress_lz4(c, in, bytes, out, cap, out_bytes, err);
        case CBI_COMPRESSION_NONE:
            memcpy(out, in, bytes);
            *out_bytes = bytes;
            return CB_OK;
    }
    return compress_failed("there is no such codec", err);
}
