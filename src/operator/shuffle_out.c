/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded bytes on their way to a file or a spilled run, and the checksums of what went by. */
#include <string.h>
#include <zlib.h>

#include "operator/shuffle_private.h"

enum { CHUNK_HEADER_BYTES = 4 };

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

uint32_t cbi_checksum_start(cb_shuffle_checksum algorithm) {
    return algorithm == CB_CHECKSUM_ADLER32 ? 1 : 0;
}

uint32_t cbi_checksum_update(cb_shuffle_checksum algorithm, uint32_t checksum, const uint8_t *bytes,
                             size_t count) {
    switch (algorithm) {
        case CB_CHECKSUM_ADLER32: return (uint32_t)adler32_z(checksum, bytes, count);
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
        uint64_t start = cbi_sys_clock_ns();
        int failed = cbi_sys_pwrite(out->fd, out->buffer, out->used, out->offset);
        out->write_ns += cbi_sys_clock_ns() - start;
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
