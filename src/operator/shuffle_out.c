/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded bytes on their way to a file or a spilled run, and the checksums of what went by. */
#include <string.h>
#include <zlib.h>

#include "operator/shuffle_private.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { CHUNK_HEADER_BYTES = 4, ADLER_MODULUS = 65521, ADLER_BYTES = 4096 };

/* ---- CRC32C: the processor's, or a table ---- */

static uint32_t crc32c_byte(uint32_t crc, uint8_t byte) {
    crc ^= byte;
    for (int bit = 0; bit < 8; bit++) {
        crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return crc;
}

static uint32_t crc32c_portable(uint32_t crc, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        crc = crc32c_byte(crc, bytes[i]);
    }
    return crc;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *bytes,
                                                               size_t count) {
    uint64_t wide = crc;
    for (; count >= 8; bytes += 8, count -= 8) {
        wide = __builtin_ia32_crc32di(wide, cbi_load_u64(bytes));
    }
    crc = (uint32_t)wide;
    for (; count > 0; bytes++, count--) {
        crc = __builtin_ia32_crc32qi(crc, *bytes);
    }
    return crc;
}
#endif

static uint32_t crc32c(uint32_t checksum, const uint8_t *bytes, size_t count) {
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc32c_sse42(~checksum, bytes, count);
    }
#endif
    return ~crc32c_portable(~checksum, bytes, count);
}

/* ---- Adler-32: zlib's, or sixteen bytes at a time ---- */

#ifdef __SSE2__
static uint64_t lanes_sum(__m128i lanes) {
    uint32_t lane[4];
    _mm_storeu_si128((__m128i_u *)(void *)lane, lanes);
    return (uint64_t)lane[0] + lane[1] + lane[2] + lane[3];
}

/**
 * The low half sums the bytes, the high half what the low one was behind each of them: a byte
 * counts as often as there are bytes from it to the end. `count` is a multiple of 16, at most
 * ADLER_BYTES, so that no lane overflows.
 */
static uint32_t adler32_part(uint32_t adler, const uint8_t *bytes, size_t count) {
    const __m128i zero = _mm_setzero_si128();
    const __m128i first = _mm_setr_epi16(16, 15, 14, 13, 12, 11, 10, 9);
    const __m128i second = _mm_setr_epi16(8, 7, 6, 5, 4, 3, 2, 1);
    __m128i sums = zero, before = zero, within = zero;
    for (size_t i = 0; i < count; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i_u *)(const void *)(bytes + i));
        before = _mm_add_epi32(before, sums);
        sums = _mm_add_epi32(sums, _mm_sad_epu8(x, zero));
        within = _mm_add_epi32(within, _mm_madd_epi16(_mm_unpacklo_epi8(x, zero), first));
        within = _mm_add_epi32(within, _mm_madd_epi16(_mm_unpackhi_epi8(x, zero), second));
    }
    uint64_t low = adler & UINT16_MAX, high = adler >> 16;
    high += count * low + 16 * lanes_sum(before) + lanes_sum(within);
    low += lanes_sum(sums);
    return (uint32_t)(high % ADLER_MODULUS << 16 | low % ADLER_MODULUS);
}

static uint32_t adler32_of(uint32_t adler, const uint8_t *bytes, size_t count) {
    while (count >= 16) {
        size_t part = cbi_min(count - count % 16, ADLER_BYTES);
        adler = adler32_part(adler, bytes, part);
        bytes += part;
        count -= part;
    }
    return (uint32_t)adler32_z(adler, bytes, count);
}
#else
static uint32_t adler32_of(uint32_t adler, const uint8_t *bytes, size_t count) {
    return (uint32_t)adler32_z(adler, bytes, count);
}
#endif

uint32_t cbi_checksum_start(cb_shuffle_checksum algorithm) {
    return algorithm == CB_CHECKSUM_ADLER32 ? 1 : 0;
}

uint32_t cbi_checksum_update(cb_shuffle_checksum algorithm, uint32_t checksum, const uint8_t *bytes,
                             size_t count) {
    switch (algorithm) {
        case CB_CHECKSUM_ADLER32: return adler32_of(checksum, bytes, count);
        case CB_CHECKSUM_CRC32: return (uint32_t)crc32_z(checksum, bytes, count);
        case CB_CHECKSUM_CRC32C: return crc32c(checksum, bytes, count);
        case CB_CHECKSUM_NONE: break;
    }
    return 0;
}

/* ---- bytes ---- */

cb_status cbi_out_flush(cbi_out *out, cb_error *err) {
    if (out->used == 0) {
        return CB_OK;
    }
    if (out->view != NULL) {
        CB_TRY(cb_output_view_write(out->view, out->buffer, out->used, err));
    } else {
        cbi_phase before = cbi_phase_enter(out->phases, CBI_WRITING);
        int failed = cbi_sys_pwrite(out->fd, out->buffer, out->used, out->offset);
        (void)cbi_phase_enter(out->phases, before);
        if (failed != 0) {
            return cbi_fail_sys(err, CB_ENOSPC, failed,
                                "%zu bytes of a shuffle file cannot be written at %llu", out->used,
                                (unsigned long long)out->offset);
        }
    }
    out->offset += out->used;
    out->used = 0;
    return CB_OK;
}

cb_status cbi_out_reserve(cbi_out *out, size_t bytes, uint8_t **place, cb_error *err) {
    size_t header = out->view != NULL ? CHUNK_HEADER_BYTES : 0;
    cb_assert(bytes <= out->size - header);
    if (out->size - out->used < bytes + header) {
        CB_TRY(cbi_out_flush(out, err));
    }
    *place = out->buffer + out->used + header;
    return CB_OK;
}

void cbi_out_commit(cbi_out *out, size_t bytes) {
    if (out->view != NULL) {
        cbi_store_u32(out->buffer + out->used, (uint32_t)bytes);
        out->used += CHUNK_HEADER_BYTES;
    } else {
        out->checksum =
            cbi_checksum_update(out->algorithm, out->checksum, out->buffer + out->used, bytes);
    }
    out->used += bytes;
}

cb_status cbi_out_end_partition(cbi_out *out, cb_error *err) {
    if (out->view == NULL) {
        return CB_OK;
    }
    uint8_t *place;
    CB_TRY(cbi_out_reserve(out, 0, &place, err));
    cbi_out_commit(out, 0);
    return CB_OK;
}
