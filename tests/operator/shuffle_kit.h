/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_TESTS_SHUFFLE_KIT_H
#define CARBIDE_TESTS_SHUFFLE_KIT_H

/* What stands around a shuffle: a parent that owns so many bytes, and what Spark's readers do. */

#include <lz4.h>
#include <stdatomic.h>
#include <string.h>
#include <zstd.h>

#include "base/base.h"
#include "carbide/shuffle.h"

typedef struct source {
    _Atomic uint64_t used;
    uint64_t limit;
} source;

static inline uint64_t source_acquire(void *ctx, cb_mode mode, uint64_t bytes) {
    source *p = ctx;
    (void)mode;
    uint64_t used = atomic_load(&p->used), got;
    do {
        got = p->limit - used < bytes ? p->limit - used : bytes;
    } while (!atomic_compare_exchange_weak(&p->used, &used, used + got));
    return got;
}

static inline void source_release(void *ctx, cb_mode mode, uint64_t bytes) {
    source *p = ctx;
    (void)mode;
    uint64_t before = atomic_fetch_sub(&p->used, bytes);
    cb_assert(bytes <= before);
}

/** lz4-java's LZ4BlockInputStream, concatenated streams too: the bytes that were put in. */
static inline size_t unpack_lz4(const uint8_t *in, size_t count, uint32_t block_bytes, uint8_t *out,
                                size_t room) {
    enum { HEADER = 21, METHOD_RAW = 1 };
    size_t done = 0;
    for (size_t at = 0; at < count;) {
        cb_assert(count - at >= HEADER && memcmp(in + at, "LZ4Block", 8) == 0);
        uint32_t stored = cbi_load_u32(in + at + 9), bytes = cbi_load_u32(in + at + 13);
        cb_assert(stored <= count - at - HEADER && bytes <= block_bytes && bytes <= room - done);
        cb_assert((uint32_t)1 << ((in[at + 8] & 0x0f) + 10) >= block_bytes);
        if (in[at + 8] >> 4 == METHOD_RAW) {
            cb_assert(stored == bytes);
            memcpy(out + done, in + at + HEADER, bytes);
        } else {
            int got = LZ4_decompress_safe((const char *)in + at + HEADER, (char *)out + done,
                                          (int)stored, (int)bytes);
            cb_assert(got >= 0 && (uint32_t)got == bytes);
        }
        at += HEADER + stored;
        done += bytes;
    }
    return done;
}

static inline size_t unpack(const cb_shuffle_options *o, const uint8_t *in, size_t count,
                            uint8_t *out, size_t room) {
    if (count == 0) {
        return 0;
    }
    if (o->codec == CB_SHUFFLE_LZ4_BLOCK) {
        return unpack_lz4(in, count, o->block_bytes, out, room);
    }
    if (o->codec == CB_SHUFFLE_ZSTD) {
        size_t got = ZSTD_decompress(out, room, in, count);
        cb_assert(!ZSTD_isError(got));
        return got;
    }
    cb_assert(count <= room);
    memcpy(out, in, count);
    return count;
}

#endif
