/* SPDX-License-Identifier: Apache-2.0 */
#define LZ4F_STATIC_LINKING_ONLY
#define ZSTD_STATIC_LINKING_ONLY
#include "format/decompress.h"

#include <inttypes.h>
#include <lz4frame.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "base/alloc.h"
#include "format/codec_memory.h"

/*
 * One loop for three codecs: refill the compressed side, let the codec take a step, and know at any
 * moment whether a frame is open, since the end of the input inside one is a file that was cut off.
 * What a frame will need is read from its header before the codec sees it, so that a window of
 * gigabytes is refused by us with a figure and not by the system with a kill.
 */

enum {
    DECODER_INPUT_BYTES = 64 * 1024,
    DECODER_HEADER_BYTES = 32 /* enough of any frame to know what memory it wants */
};

struct cbi_decoder {
    cbi_compression codec;
    const char *name;
    cbi_decoder_read_fn read;
    void *ctx;
    size_t bytes_max;
    union {
        z_stream gzip;
        ZSTD_DCtx *zstd;
        LZ4F_dctx *lz4;
    } state;
    bool ready; /* state is there */
    bool input_ended;
    bool in_frame;
    bool ended;
    uint64_t frame_bytes;  /* that the open frame's header promises; UINT64_MAX: it does not say */
    uint64_t frame_given;  /* of them */
    size_t header_bytes;   /* of the open frame's header that zstd has not had yet */
    uint64_t input_offset; /* of input[0] in the file */
    size_t input_at, input_bytes;
    uint8_t input[DECODER_INPUT_BYTES];
};

static const char *codec_name(cbi_compression c) {
    switch (c) {
        case CBI_COMPRESSION_GZIP: return "gzip";
        case CBI_COMPRESSION_ZSTD: return "zstd";
        case CBI_COMPRESSION_LZ4: return "lz4";
        case CBI_COMPRESSION_NONE: break;
    }
    return "plain";
}

cbi_compression cbi_compression_of_magic(const uint8_t *magic, size_t bytes) {
    if (bytes < CBI_MAGIC_BYTES)
        return CBI_COMPRESSION_NONE;
    if (magic[0] == 0x1f && magic[1] == 0x8b && magic[2] == 8 && (magic[3] & 0xe0) == 0)
        return CBI_COMPRESSION_GZIP;
    if (magic[0] == 0x28 && magic[1] == 0xb5 && magic[2] == 0x2f && magic[3] == 0xfd)
        return CBI_COMPRESSION_ZSTD;
    if ((magic[0] & 0xf0) == 0x50 && magic[1] == 0x2a && magic[2] == 0x4d && magic[3] == 0x18)
        return CBI_COMPRESSION_ZSTD; /* a skippable frame: how parallel compressors begin */
    if (magic[0] == 0x04 && magic[1] == 0x22 && magic[2] == 0x4d && magic[3] == 0x18)
        return CBI_COMPRESSION_LZ4;
    return CBI_COMPRESSION_NONE;
}

static cb_status decoder_ready(cbi_decoder *d, cb_error *err) {
    bool ok = false;
    if (d->codec == CBI_COMPRESSION_GZIP) {
        d->state.gzip.zalloc = cbi_codec_calloc_items;
        d->state.gzip.zfree = cbi_codec_free;
        ok = inflateInit2(&d->state.gzip, 15 + 16) == Z_OK;
    } else if (d->codec == CBI_COMPRESSION_ZSTD) {
        d->state.zstd =
            ZSTD_createDCtx_advanced((ZSTD_customMem){cbi_codec_alloc, cbi_codec_free, NULL});
        ok = d->state.zstd && !ZSTD_isError(ZSTD_DCtx_setParameter(
                                  d->state.zstd, ZSTD_d_windowLogMax, ZSTD_WINDOWLOG_MAX));
    } else {
        d->state.lz4 = LZ4F_createDecompressionContext_advanced(
            (LZ4F_CustomMem){cbi_codec_alloc, cbi_codec_calloc, cbi_codec_free, NULL},
            LZ4F_VERSION);
        ok = d->state.lz4 != NULL;
    }
    d->ready = ok;
    return ok ? CB_OK
              : cbi_fail(err, CB_ENOMEM, "no memory for reading %s data of %s",
                         codec_name(d->codec), d->name);
}

cb_status cbi_decoder_create(cbi_compression c, const char *name, size_t bytes_max,
                             cbi_decoder_read_fn read, void *ctx, cbi_decoder **decoder,
                             cb_error *err) {
    cb_assert(c != CBI_COMPRESSION_NONE);
    cbi_decoder *d = cbi_calloc(1, sizeof *d);
    if (!d)
        return cbi_fail(err, CB_ENOMEM, "no memory for reading %s data of %s", codec_name(c), name);
    d->codec = c;
    d->name = name;
    d->bytes_max = bytes_max;
    d->read = read;
    d->ctx = ctx;
    cb_status status = decoder_ready(d, err);
    if (status != CB_OK) {
        cbi_decoder_destroy(d);
        return status;
    }
    *decoder = d;
    return CB_OK;
}

void cbi_decoder_destroy(cbi_decoder *d) {
    if (!d)
        return;
    if (d->codec == CBI_COMPRESSION_GZIP) {
        if (d->ready)
            (void)inflateEnd(&d->state.gzip);
    } else if (d->codec == CBI_COMPRESSION_ZSTD) {
        (void)ZSTD_freeDCtx(d->state.zstd);
    } else if (d->state.lz4) {
        (void)LZ4F_freeDecompressionContext(d->state.lz4);
    }
    cbi_free(d);
}

/* ---- the compressed side ---- */

/* At least `want` bytes in the buffer unless the input ends before. */
static cb_status decoder_refill(cbi_decoder *d, size_t want, cb_error *err) {
    if (d->input_bytes - d->input_at >= want)
        return CB_OK;
    memmove(d->input, d->input + d->input_at, d->input_bytes - d->input_at);
    d->input_offset += d->input_at;
    d->input_bytes -= d->input_at;
    d->input_at = 0;
    while (d->input_bytes < want && !d->input_ended) {
        size_t got = 0;
        CB_TRY(d->read(d->ctx, d->input + d->input_bytes, sizeof d->input - d->input_bytes, &got,
                       err));
        d->input_bytes += got;
        d->input_ended = got == 0;
    }
    return CB_OK;
}

static uint64_t decoder_offset(const cbi_decoder *d) {
    return d->input_offset + d->input_at;
}

static cb_status decoder_damaged(const cbi_decoder *d, const char *why, cb_error *err) {
    return cbi_fail(err, CB_EDATA, "%s: the %s data is damaged near byte %" PRIu64 ": %s", d->name,
                    codec_name(d->codec), decoder_offset(d), why);
}

/* What the frame at the input's place will need and give; refuses what is above the limit. */
static cb_status decoder_read_header(cbi_decoder *d, const uint8_t *p, size_t bytes,
                                     cb_error *err) {
    uint64_t need = 0;
    d->frame_bytes = UINT64_MAX;
    d->frame_given = 0;
    d->header_bytes = 0;
    if (d->codec == CBI_COMPRESSION_ZSTD) {
        ZSTD_frameHeader header;
        if (ZSTD_getFrameHeader(&header, p, bytes) == 0 && header.frameType == ZSTD_frame) {
            need = header.windowSize > SIZE_MAX / 4
                       ? UINT64_MAX
                       : ZSTD_estimateDStreamSize((size_t)header.windowSize);
            if (header.frameContentSize != ZSTD_CONTENTSIZE_UNKNOWN)
                d->frame_bytes = header.frameContentSize;
            d->header_bytes = header.headerSize;
        }
    } else if (d->codec == CBI_COMPRESSION_LZ4 && bytes >= 6 && p[0] == 0x04) {
        unsigned id = (p[5] >> 4) & 7;
        if (id >= 4)
            need = ((uint64_t)1 << (8 + 2 * id)) * 2 + 160 * CBI_KIB;
    }
    if (need <= d->bytes_max)
        return CB_OK;
    return cbi_fail_bytes(err, CB_EBUDGET, need, d->bytes_max,
                          "%s: reading its %s data takes %" PRIu64
                          " bytes of memory, %zu are allowed; give more memory or "
                          "compress it with a smaller window or block size",
                          d->name, codec_name(d->codec), need, d->bytes_max);
}

/* Between frames: is there one more? */
static cb_status decoder_begin_frame(cbi_decoder *d, cb_error *err) {
    CB_TRY(decoder_refill(d, DECODER_HEADER_BYTES, err));
    const uint8_t *p = d->input + d->input_at;
    size_t bytes = d->input_bytes - d->input_at;
    if (bytes == 0) {
        d->ended = true;
        return CB_OK;
    }
    if (d->codec == CBI_COMPRESSION_GZIP) {
        if (p[0] == 0 && decoder_offset(d) != 0) { /* padding of tapes and block devices */
            while (d->input_bytes != d->input_at) {
                if (d->input[d->input_at] != 0)
                    return decoder_damaged(
                        d, "something that is not gzip data follows the last member", err);
                d->input_at++;
                CB_TRY(decoder_refill(d, 1, err));
            }
            d->ended = true;
            return CB_OK;
        }
        if (p[0] != 0x1f || (bytes > 1 && p[1] != 0x8b))
            return decoder_damaged(d, "something that is not gzip data follows the last member",
                                   err);
        if (inflateReset(&d->state.gzip) != Z_OK)
            return decoder_damaged(d, "the decoder cannot start again", err);
    }
    CB_TRY(decoder_read_header(d, p, bytes, err));
    d->in_frame = true;
    return CB_OK;
}

/* ---- one step of a codec: what it took and gave, and whether the frame is over ---- */

typedef struct decoder_step {
    size_t took, gave;
    bool frame_over;
    bool no_memory;
    const char *damage; /* NULL: fine */
} decoder_step;

static decoder_step step_gzip(cbi_decoder *d, const uint8_t *in, size_t in_bytes, uint8_t *out,
                              size_t out_bytes) {
    z_stream *z = &d->state.gzip;
    uint8_t none = 0;
    uInt in_now = (uInt)in_bytes, out_now = (uInt)cbi_min(out_bytes, CBI_GIB);
    z->next_in = (z_const Bytef *)(uintptr_t)(in_bytes ? in : &none);
    z->avail_in = in_now;
    z->next_out = out;
    z->avail_out = out_now;
    int r = inflate(z, Z_NO_FLUSH);
    decoder_step step = {.took = in_now - z->avail_in,
                         .gave = out_now - z->avail_out,
                         .frame_over = r == Z_STREAM_END};
    step.no_memory = r == Z_MEM_ERROR;
    if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR)
        step.damage = z->msg ? z->msg : "it cannot be decoded";
    return step;
}

static decoder_step step_zstd(cbi_decoder *d, const uint8_t *in, size_t in_bytes, uint8_t *out,
                              size_t out_bytes) {
    /* A frame that lies before it as a whole goes another way in zstd, which refuses blocks that
     * the way of pieces takes. What a file holds must not depend on how it comes: the header goes
     * in alone, and every frame the way of pieces. */
    ZSTD_inBuffer i = {in, d->header_bytes ? cbi_min(d->header_bytes, in_bytes) : in_bytes, 0};
    ZSTD_outBuffer o = {out, out_bytes, 0};
    size_t r = ZSTD_decompressStream(d->state.zstd, &o, &i);
    d->header_bytes -= cbi_min(d->header_bytes, i.pos);
    decoder_step step = {.took = i.pos, .gave = o.pos, .frame_over = r == 0};
    if (ZSTD_isError(r)) {
        step.no_memory = ZSTD_getErrorCode(r) == ZSTD_error_memory_allocation;
        step.damage = ZSTD_getErrorName(r);
    }
    return step;
}

static decoder_step step_lz4(cbi_decoder *d, const uint8_t *in, size_t in_bytes, uint8_t *out,
                             size_t out_bytes) {
    size_t took = in_bytes, gave = out_bytes;
    size_t r = LZ4F_decompress(d->state.lz4, out, &gave, in, &took, NULL);
    decoder_step step = {0};
    if (LZ4F_isError(r)) {
        step.no_memory = LZ4F_getErrorCode(r) == LZ4F_ERROR_allocation_failed;
        step.damage = LZ4F_getErrorName(r);
        return step;
    }
    step.took = took;
    step.gave = gave;
    step.frame_over = r == 0;
    return step;
}

cb_status cbi_decoder_read(cbi_decoder *d, uint8_t *buf, size_t bytes, size_t *got, cb_error *err) {
    size_t done = 0;
    while (done < bytes && !d->ended) {
        if (!d->in_frame) {
            CB_TRY(decoder_begin_frame(d, err));
            continue;
        }
        CB_TRY(decoder_refill(d, 1, err));
        const uint8_t *in = d->input + d->input_at;
        size_t in_bytes = d->input_bytes - d->input_at;
        decoder_step step = d->codec == CBI_COMPRESSION_GZIP
                                ? step_gzip(d, in, in_bytes, buf + done, bytes - done)
                            : d->codec == CBI_COMPRESSION_ZSTD
                                ? step_zstd(d, in, in_bytes, buf + done, bytes - done)
                                : step_lz4(d, in, in_bytes, buf + done, bytes - done);
        if (step.no_memory)
            return cbi_fail(err, CB_ENOMEM, "no memory for reading %s data of %s",
                            codec_name(d->codec), d->name);
        if (step.damage)
            return decoder_damaged(d, step.damage, err);
        d->input_at += step.took;
        done += step.gave;
        d->frame_given += step.gave;
        d->in_frame = !step.frame_over;
        /* zstd itself does not look when the last block is empty. */
        if (step.frame_over && d->frame_bytes != UINT64_MAX && d->frame_given != d->frame_bytes)
            return decoder_damaged(d, "a frame holds less or more than its header says", err);
        if (d->in_frame && step.took == 0 && step.gave == 0) {
            if (in_bytes != 0)
                return decoder_damaged(d, "the decoder does not go on", err);
            return cbi_fail(err, CB_EDATA, "%s: the %s data is cut off after %" PRIu64 " bytes",
                            d->name, codec_name(d->codec), decoder_offset(d));
        }
    }
    *got = done;
    return CB_OK;
}
