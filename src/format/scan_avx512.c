/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The scanners with AVX-512 (BW, VL, VBMI2). Places of bits come from a compressing move of the
 * numbers 0..63: no branch depends on how many there are as long as a block has at most sixteen,
 * and lines become spans in registers.
 */

#include "format/scan_rest.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define KERNEL_TARGET                                                                              \
    __attribute__((                                                                                \
        target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi2,avx2,bmi,bmi2,popcnt,lzcnt")))
#define KERNEL KERNEL_TARGET static
#define KERNEL_INLINE KERNEL_TARGET static inline __attribute__((always_inline))
#define KERNEL_HAS_LINES

typedef __m512i kernel_block;

KERNEL_INLINE kernel_block kernel_load(const uint8_t *p) {
    return _mm512_loadu_si512(p);
}

KERNEL_INLINE uint64_t kernel_eq(kernel_block b, uint8_t byte) {
    return _mm512_cmpeq_epi8_mask(b, _mm512_set1_epi8((char)byte));
}

KERNEL_INLINE __m512i kernel_numbers(void) {
    return _mm512_set_epi8(63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46,
                           45, 44, 43, 42, 41, 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28,
                           27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10,
                           9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
}

KERNEL_INLINE uint32_t kernel_flatten(uint64_t m, uint32_t base, uint32_t *out) {
    uint32_t n = (uint32_t)__builtin_popcountll(m);
    __m512i places = _mm512_maskz_compress_epi8(m, kernel_numbers());
    __m512i from = _mm512_set1_epi32((int)base);
    _mm512_storeu_si512(
        out, _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_castsi512_si128(places)), from));
    if (CBI_UNLIKELY(n > 16)) {
        _mm512_storeu_si512(
            out + 16,
            _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(places, 1)), from));
        _mm512_storeu_si512(
            out + 32,
            _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(places, 2)), from));
        _mm512_storeu_si512(
            out + 48,
            _mm512_add_epi32(_mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(places, 3)), from));
    }
    return n;
}

/* Up to eight ends -> eight spans: each starts behind the end before it. Answers the last end there
 * is. */
KERNEL_INLINE void kernel_spans8(__m256i ends, uint32_t count, uint32_t *previous, cbi_span *out) {
    const __m256i shift = _mm256_set_epi32(6, 5, 4, 3, 2, 1, 0, 7), one = _mm256_set1_epi32(1);
    __m256i before = _mm256_permutevar8x32_epi32(ends, shift);
    before = _mm256_mask_mov_epi32(before, 1, _mm256_set1_epi32((int)*previous));
    __m256i offset = _mm256_add_epi32(before, one);
    __m256i length = _mm256_sub_epi32(ends, offset);
    __m512i spans = _mm512_or_si512(_mm512_cvtepu32_epi64(offset),
                                    _mm512_slli_epi64(_mm512_cvtepu32_epi64(length), 32));
    _mm512_storeu_si512(out, spans);
    if (count != 0)
        *previous = out[count - 1].offset + out[count - 1].bytes;
}

KERNEL cbi_scan_stop kernel_lines(const uint8_t *base, size_t bytes, uint8_t terminator, size_t *at,
                                  cbi_rows *rows) {
    size_t count = rows->count, cursor = *at;
    uint32_t previous = (uint32_t)*at - 1;
    cbi_span *out = rows->rows;

    for (; cursor + 64 <= bytes && count + 64 <= rows->capacity; cursor += 64) {
        uint64_t m = kernel_eq(kernel_load(base + cursor), terminator);
        uint32_t n = (uint32_t)__builtin_popcountll(m);
        if (n <=
            2) { /* lines of 32 bytes and more: the common case has nothing to gain from vectors */
            for (; m != 0; m &= m - 1) {
                uint32_t end = (uint32_t)cursor + (uint32_t)_tzcnt_u64(m);
                out[count++] = (cbi_span){previous + 1, end - previous - 1};
                previous = end;
            }
            continue;
        }
        __m512i places = _mm512_maskz_compress_epi8(m, kernel_numbers());
        while (n != 0) {
            __m256i ends = _mm256_add_epi32(_mm256_cvtepu8_epi32(_mm512_castsi512_si128(places)),
                                            _mm256_set1_epi32((int)(uint32_t)cursor));
            uint32_t now = n < 8 ? n : 8;
            kernel_spans8(ends, now, &previous, out + count);
            count += now;
            n -= now;
            places = _mm512_alignr_epi64(_mm512_setzero_si512(), places, 1);
        }
    }
    rows->count = count;
    *at = (size_t)(uint32_t)(previous + 1);
    return cbi_scan_lines_rest(base, bytes, terminator, at, rows);
}

#include "format/scan_kernels.h"

const cbi_scan_ops cbi_scan_ops_avx512 = KERNEL_OPS("avx512");
#else
typedef int cbi_scan_avx512_is_for_x86_64;
#endif
