/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Spark's readers unwrap. lz4: the blocks of lz4-java's LZ4BlockOutputStream, 21 bytes of
 * header each {"LZ4Block", method and block size, compressed length, length, xxhash32}, a block of
 * length 0 at the end; zstd: frames. Readers of both take what is appended for more of the same, so
 * the pieces of a partition that were spilled are never unpacked again.
 */
#define ZSTD_STATIC_LINKING_ONLY
#define XXH_INLINE_ALL
#include <lz4.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "base/alloc.h"
#include "operator/shuffle_private.h"

enum {
    LZ4_HEADER_BYTES = 21,
    LZ4_METHOD_RAW = 0x10,
    LZ4_METHOD_LZ4 = 0x20,
    LZ4_LEVEL_BASE = 10,
    RAW_CHUNK_BYTES = 64 * 1024,
    ZSTD_CHUNK_BYTES = 64 * 1024,
    TRIALS_FIRST = 2,
    TRIALS_EVERY = 128,
    TRIALS_KEPT = 4,
    ROW_END_SAVES = 256
};

static const uint8_t LZ4_MAGIC[8] = {'L', 'Z', '4', 'B', 'l', 'o', 'c', 'k'};

/** lz4-java keeps 28 bits of the hash, to look like a java.util.zip.Checksum. */
static const uint32_t LZ4_HASH_SEED = 0x9747b28c, LZ4_HASH_MASK = 0x0fffffff;

size_t cbi_encoder_chunk_max(cb_shuffle_codec codec, uint32_t block_bytes) {
    switch (codec) {
        case CB_SHUFFLE_LZ4_BLOCK:
            return LZ4_HEADER_BYTES + (size_t)LZ4_compressBound((int)block_bytes);
        case CB_SHUFFLE_ZSTD: return ZSTD_CHUNK_BYTES;
        case CB_SHUFFLE_RAW: break;
    }
    return RAW_CHUNK_BYTES;
}

/** A level that there is not is the nearest, as zstd itself takes it: its estimate does not. */
static bool init_zstd(cbi_encoder *e, int level) {
    int least = ZSTD_minCLevel(), most = ZSTD_maxCLevel();
    level = level < least ? least : level > most ? most : level;
    e->state_bytes = ZSTD_estimateCStreamSize(level);
    e->state = cbi_alloc(e->state_bytes);
    e->zstd = e->state != NULL ? ZSTD_initStaticCStream(e->state, e->state_bytes) : NULL;
    return e->zstd != NULL &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(e->zstd, ZSTD_c_compressionLevel, level));
}

cb_status cbi_encoder_init(cbi_encoder *e, cb_shuffle_codec codec, uint32_t block_bytes, int level,
                           cb_error *err) {
    *e = (cbi_encoder){.codec = codec, .block_bytes = block_bytes, .way = CBI_WAY_LZ4};
    bool ready = true;
    if (codec == CB_SHUFFLE_LZ4_BLOCK) {
        e->state_bytes = (size_t)LZ4_sizeofState();
        e->state = cbi_alloc(e->state_bytes);
        e->block = cbi_alloc(block_bytes);
        e->rows = cbi_alloc(cbi_rows_state_bytes());
        ready = e->state != NULL && e->block != NULL && e->rows != NULL;
    } else if (codec == CB_SHUFFLE_ZSTD) {
        ready = init_zstd(e, level);
    }
    if (!ready) {
        cbi_encoder_fini(e);
        return cbi_fail_bytes(err, CB_ENOMEM, e->state_bytes, 0,
                              "There is no memory for compressing a shuffle's output.");
    }
    return CB_OK;
}

void cbi_encoder_fini(cbi_encoder *e) {
    cbi_free(e->rows);
    cbi_free(e->block);
    cbi_free(e->state);
    *e = (cbi_encoder){0};
}

/* ---- lz4 ---- */

static void lz4_header(uint8_t *to, uint8_t method, uint32_t block_bytes, uint32_t stored,
                       uint32_t count, uint32_t hash) {
    unsigned bits = 32u - (unsigned)__builtin_clz(block_bytes - 1);
    unsigned level = bits > LZ4_LEVEL_BASE ? bits - LZ4_LEVEL_BASE : 0;
    memcpy(to, LZ4_MAGIC, sizeof LZ4_MAGIC);
    to[8] = (uint8_t)(method | level);
    cbi_store_u32(to + 9, stored);
    cbi_store_u32(to + 13, count);
    cbi_store_u32(to + 17, hash);
}

/** Compressed one way; its size, or 0. */
static size_t compress_way(cbi_encoder *e, unsigned way, uint8_t *to, const uint8_t *bytes,
                           uint32_t count) {
    static const uint32_t PERIODS[] = {
        [CBI_WAY_ROWS] = 0, [CBI_WAY_ROWS_HALF] = 2, [CBI_WAY_ROWS_ALL] = 1};
    if (way != CBI_WAY_LZ4) {
        return cbi_rows_encode(e->rows, PERIODS[way], to, bytes, count);
    }
    int stored = LZ4_compress_fast_extState(e->state, (const char *)bytes, (char *)to, (int)count,
                                            LZ4_compressBound((int)count), 1);
    return stored > 0 ? (size_t)stored : 0;
}

/**
 * Goes all ways with a block, and chooses the cheapest from now on that does not take more than
 * LZ4's own search, or hardly more: a block that ends where a row does saves as much.
 */
static size_t compress_and_choose(cbi_encoder *e, uint8_t *to, const uint8_t *bytes,
                                  uint32_t count) {
    for (unsigned way = 0; way < CBI_WAYS; way++) {
        size_t stored = compress_way(e, way, to, bytes, count);
        e->tried[way] += (stored > 0 ? stored : count) - e->tried[way] / TRIALS_KEPT;
    }
    uint64_t most = e->tried[CBI_WAY_LZ4] + e->tried[CBI_WAY_LZ4] / ROW_END_SAVES;
    for (e->way = 0; e->way < CBI_WAY_LZ4 && e->tried[e->way] > most;) {
        e->way++;
    }
    return compress_way(e, e->way, to, bytes, count);
}

static size_t compress_block(cbi_encoder *e, uint8_t *to, const uint8_t *bytes, uint32_t count) {
    bool tries = count >= CBI_ROWS_BYTES_MIN && count <= UINT16_MAX &&
                 (e->blocks < TRIALS_FIRST || e->blocks % TRIALS_EVERY == 0);
    e->blocks++;
    size_t stored = tries ? compress_and_choose(e, to, bytes, count)
                          : compress_way(e, e->way, to, bytes, count);
    return stored > 0 ? stored : compress_way(e, CBI_WAY_LZ4, to, bytes, count);
}

size_t cbi_encoder_block(cbi_encoder *e, uint8_t *to, const uint8_t *bytes, uint32_t count) {
    cb_assert(bytes != NULL);
    cbi_phase before = cbi_phase_enter(e->phases, CBI_COMPRESSING);
    size_t stored = compress_block(e, to + LZ4_HEADER_BYTES, bytes, count);
    uint8_t method = LZ4_METHOD_LZ4;
    if (stored == 0 || stored >= count) {
        method = LZ4_METHOD_RAW;
        stored = count;
        memcpy(to + LZ4_HEADER_BYTES, bytes, count);
    }
    uint32_t hash = XXH32(bytes, count, LZ4_HASH_SEED) & LZ4_HASH_MASK;
    lz4_header(to, method, e->block_bytes, (uint32_t)stored, count, hash);
    (void)cbi_phase_enter(e->phases, before);
    return LZ4_HEADER_BYTES + stored;
}

static cb_status lz4_block(cbi_encoder *e, cbi_out *out, const uint8_t *bytes, uint32_t count,
                           cb_error *err) {
    uint8_t *to;
    CB_TRY(
        cbi_out_reserve(out, LZ4_HEADER_BYTES + (size_t)LZ4_compressBound((int)count), &to, err));
    cbi_out_commit(out, cbi_encoder_block(e, to, bytes, count));
    return CB_OK;
}

static cb_status lz4_put(cbi_encoder *e, cbi_out *out, const uint8_t *bytes, size_t count,
                         cb_error *err) {
    while (count > 0) {
        size_t piece = cbi_min(count, e->block_bytes - e->filled);
        if (piece == e->block_bytes) { /* a whole block as it lies */
            CB_TRY(lz4_block(e, out, bytes, e->block_bytes, err));
        } else {
            memcpy(e->block + e->filled, bytes, piece);
            e->filled += (uint32_t)piece;
            if (e->filled == e->block_bytes) {
                e->filled = 0;
                CB_TRY(lz4_block(e, out, e->block, e->block_bytes, err));
            }
        }
        bytes += piece;
        count -= piece;
    }
    return CB_OK;
}

/* ---- zstd ---- */

static cb_status zstd_run(cbi_encoder *e, cbi_out *out, const uint8_t *bytes, size_t count,
                          ZSTD_EndDirective end, cb_error *err) {
    ZSTD_inBuffer in = {.src = bytes, .size = count};
    size_t left;
    do {
        uint8_t *to;
        CB_TRY(cbi_out_reserve(out, ZSTD_CHUNK_BYTES, &to, err));
        ZSTD_outBuffer to_zstd = {.dst = to, .size = ZSTD_CHUNK_BYTES};
        cbi_phase before = cbi_phase_enter(e->phases, CBI_COMPRESSING);
        left = ZSTD_compressStream2(e->zstd, &to_zstd, &in, end);
        (void)cbi_phase_enter(e->phases, before);
        if (ZSTD_isError(left)) {
            return cbi_fail(err, CB_EINTERNAL, "zstd cannot compress a shuffle's output: %s.",
                            ZSTD_getErrorName(left));
        }
        if (to_zstd.pos > 0) {
            cbi_out_commit(out, to_zstd.pos);
        }
    } while (end == ZSTD_e_end ? left > 0 : in.pos < in.size);
    return CB_OK;
}

/* ---- any ---- */

static cb_status raw_put(cbi_out *out, const uint8_t *bytes, size_t count, cb_error *err) {
    while (count > 0) {
        size_t piece = cbi_min(count, RAW_CHUNK_BYTES);
        uint8_t *to;
        CB_TRY(cbi_out_reserve(out, piece, &to, err));
        memcpy(to, bytes, piece);
        cbi_out_commit(out, piece);
        bytes += piece;
        count -= piece;
    }
    return CB_OK;
}

cb_status cbi_encoder_put(cbi_encoder *e, cbi_out *out, const uint8_t *bytes, size_t count,
                          cb_error *err) {
    switch (e->codec) {
        case CB_SHUFFLE_LZ4_BLOCK: return lz4_put(e, out, bytes, count, err);
        case CB_SHUFFLE_ZSTD:
            e->open = true;
            return zstd_run(e, out, bytes, count, ZSTD_e_continue, err);
        case CB_SHUFFLE_RAW: break;
    }
    return raw_put(out, bytes, count, err);
}

cb_status cbi_encoder_flush(cbi_encoder *e, cbi_out *out, cb_error *err) {
    if (e->filled > 0) {
        uint32_t count = e->filled;
        e->filled = 0;
        CB_TRY(lz4_block(e, out, e->block, count, err));
    }
    if (e->open) {
        e->open = false;
        CB_TRY(zstd_run(e, out, NULL, 0, ZSTD_e_end, err));
    }
    return CB_OK;
}

cb_status cbi_encoder_end(cbi_encoder *e, cbi_out *out, cb_error *err) {
    if (e->codec != CB_SHUFFLE_LZ4_BLOCK) {
        return CB_OK;
    }
    uint8_t *to;
    CB_TRY(cbi_out_reserve(out, LZ4_HEADER_BYTES, &to, err));
    lz4_header(to, LZ4_METHOD_RAW, e->block_bytes, 0, 0, 0);
    cbi_out_commit(out, LZ4_HEADER_BYTES);
    return CB_OK;
}
