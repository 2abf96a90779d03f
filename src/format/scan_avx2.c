/* SPDX-License-Identifier: Apache-2.0 */

/* The scanners with AVX2 and bit manipulation instructions. */

#include "format/scan_rest.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define KERNEL_TARGET __attribute__((target("avx2,bmi,bmi2,popcnt,lzcnt")))
#define KERNEL KERNEL_TARGET static
#define KERNEL_INLINE KERNEL_TARGET static inline __attribute__((always_inline))

typedef struct kernel_block {
    __m256i part[2];
} kernel_block;

KERNEL_INLINE kernel_block kernel_load(const uint8_t *p) {
    kernel_block b;
    b.part[0] = _mm256_loadu_si256((const void *)p);
    b.part[1] = _mm256_loadu_si256((const void *)(p + 32));
    return b;
}

KERNEL_INLINE uint64_t kernel_eq(kernel_block b, uint8_t byte) {
    const __m256i want = _mm256_set1_epi8((char)byte);
    uint64_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b.part[0], want));
    uint64_t high = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(b.part[1], want));
    return low | high << 32;
}

/* Eight at a time without asking whether they are there: one branch that is nearly always foretold
 * right. */
KERNEL_INLINE uint32_t kernel_flatten(uint64_t m, uint32_t base, uint32_t *out) {
    uint32_t n = (uint32_t)__builtin_popcountll(m);
    for (uint32_t done = 0; done < n; done += 8)
        for (uint32_t i = 0; i < 8; i++) {
            out[done + i] = base + (uint32_t)_tzcnt_u64(m);
            m = _blsr_u64(m);
        }
    return n;
}

#include "format/scan_kernels.h"

const cbi_scan_ops cbi_scan_ops_avx2 = KERNEL_OPS("avx2");
#else
typedef int cbi_scan_avx2_is_for_x86_64;
#endif
