/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XXH3 of a frame with the wider registers, where the processor has them: twice as fast as what all
 * of them have, and the checksum is a sixth of what a block to or from disk takes.
 */
#if defined(__x86_64__)
#include <immintrin.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define XXH_VECTOR 2 /* XXH_AVX2 */
#endif
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "store/disk.h"

uint64_t cbi_disk_sum_avx2(const void *stored, size_t bytes, uint64_t seed) {
    return XXH3_64bits_withSeed(stored, bytes, seed);
}

#if defined(__x86_64__) && defined(__clang__)
#pragma clang attribute pop
#endif
