/* SPDX-License-Identifier: Apache-2.0 */

/* The scanners with what every x86-64 has (SSE2), or with plain C. */

#include "format/scan_rest.h"
#include "format/simd.h"

#define KERNEL static
#define KERNEL_INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__)
#include <emmintrin.h>

typedef struct kernel_block {
    __m128i part[4];
} kernel_block;

KERNEL_INLINE kernel_block kernel_load(const uint8_t *p) {
    kernel_block b;
    for (int i = 0; i < 4; i++)
        b.part[i] = _mm_loadu_si128((const void *)(p + 16 * i));
    return b;
}

KERNEL_INLINE uint64_t kernel_eq(kernel_block b, uint8_t byte) {
    const __m128i want = _mm_set1_epi8((char)byte);
    uint64_t m = 0;
    for (int i = 0; i < 4; i++)
        m |= (uint64_t)(uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(b.part[i], want)) << (16 * i);
    return m;
}
#else
typedef struct kernel_block {
    const uint8_t *p;
} kernel_block;

KERNEL_INLINE kernel_block kernel_load(const uint8_t *p) {
    return (kernel_block){p};
}

/* Eight bytes at a time: the classic zero-byte test, exact in its high bits, gathered by a
 * multiplication. */
KERNEL_INLINE uint64_t kernel_eq(kernel_block b, uint8_t byte) {
    const uint64_t low = 0x7f7f7f7f7f7f7f7fu, want = 0x0101010101010101u * byte;
    uint64_t m = 0;
    for (int i = 0; i < 8; i++) {
        uint64_t v = 0;
        for (int j = 0; j < 8; j++)
            v |= (uint64_t)b.p[8 * i + j] << (8 * j);
        v ^= want;
        uint64_t zero = ~(((v & low) + low) | v | low) >> 7;
        m |= ((zero * 0x0102040810204080u) >> 56) << (8 * i);
    }
    return m;
}
#endif

KERNEL_INLINE uint32_t kernel_flatten(uint64_t m, uint32_t base, uint32_t *out) {
    uint32_t n = 0;
    for (; m != 0; m &= m - 1)
        out[n++] = base + (uint32_t)__builtin_ctzll(m);
    return n;
}

#include "format/scan_kernels.h"

const cbi_scan_ops cbi_scan_ops_baseline = KERNEL_OPS("baseline");

cbi_scan_stop cbi_scan_lines_rest(const uint8_t *base, size_t bytes, uint8_t terminator, size_t *at,
                                  cbi_rows *rows) {
    size_t start = *at;
    while (start < bytes && rows->count < rows->capacity) {
        const uint8_t *end = memchr(base + start, terminator, bytes - start);
        size_t length = end ? (size_t)(end - base) - start : bytes - start;
        rows->rows[rows->count++] = (cbi_span){(uint32_t)start, (uint32_t)length};
        start += length + (end != NULL);
    }
    *at = start;
    return start < bytes ? CBI_SCAN_FULL : CBI_SCAN_END;
}
