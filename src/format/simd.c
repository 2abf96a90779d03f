/* SPDX-License-Identifier: Apache-2.0 */
#include "format/simd.h"

#include "base/sys.h"

cbi_simd cbi_simd_best(void) {
#if defined(__x86_64__)
    const cbi_cpu *cpu = cbi_sys_cpu();
    if (cpu->avx512)
        return CBI_SIMD_AVX512;
    if (cpu->avx2)
        return CBI_SIMD_AVX2;
#endif
    return CBI_SIMD_BASELINE;
}

const cbi_scan_ops *cbi_scan_ops_get(cbi_simd level) {
    if (level > cbi_simd_best())
        return NULL;
    switch (level) {
        case CBI_SIMD_BASELINE: return &cbi_scan_ops_baseline;
#if defined(__x86_64__)
        case CBI_SIMD_AVX2: return &cbi_scan_ops_avx2;
        case CBI_SIMD_AVX512: return &cbi_scan_ops_avx512;
#else
        case CBI_SIMD_AVX2:
        case CBI_SIMD_AVX512:
#endif
        case CBI_SIMD_LEVELS: break;
    }
    return NULL;
}
