/* SPDX-License-Identifier: Apache-2.0 */
#include "record/numbers.h"

#include "base/sys.h"

/*
 * Sixteen digits at once. The 16 bytes that end where the field ends are taken, whatever stands
 * before it is masked off, and a shuffle closes the gap that the point leaves. Then neighbours are
 * joined three times: digits to pairs, pairs to fours, fours to eights. No branch depends on the
 * number of digits or on where the point is.
 */

void cbi_numbers_want_init(cbi_numbers_want *want, unsigned scale, uint64_t largest) {
    cb_assert(scale <= CBI_NUMBERS_SCALE_MAX && largest <= INT64_MAX);
    want->scale = scale;
    for (unsigned i = 0; i <= CBI_NUMBERS_SCALE_MAX; i++)
        want->limit[i] = largest / (uint64_t)cbi_pow10_64[i];
}

/* magnitude / 10^scale at the wanted scale; false: odd. */
static inline bool take(const cbi_numbers_want *want, uint64_t magnitude, unsigned scale,
                        bool negative, int64_t *value, unsigned *above) {
    if (CBI_UNLIKELY(scale > want->scale)) {
        *above = scale > *above ? scale : *above;
        return false;
    }
    unsigned shift = want->scale - scale;
    if (CBI_UNLIKELY(magnitude > want->limit[shift]))
        return false;
    int64_t v = (int64_t)magnitude * cbi_pow10_64[shift];
    *value = negative ? -v : v;
    return true;
}

static unsigned read_portable(const cbi_numbers_want *want, const uint8_t *base,
                              const cbi_span *fields, size_t stride, size_t count, int64_t *values,
                              uint8_t *nulls, uint8_t *odd) {
    unsigned above = 0;
    for (size_t i = 0; i < count; i++) {
        cbi_span span = fields[i * stride];
        cbi_decimal d;
        values[i] = 0;
        nulls[i] = span.bytes == 0;
        if (span.bytes == 0)
            continue;
        if (span.bytes > 16 ||
            cbi_decimal_parse(base, base + span.offset, span.bytes, &d) != CBI_NUMBER ||
            (int64_t)d.value != d.value || d.value == INT64_MIN) {
            odd[i] = 1;
            continue;
        }
        int64_t v = (int64_t)d.value;
        if (!take(want, v < 0 ? (uint64_t)-v : (uint64_t)v, d.scale, v < 0, &values[i], &above))
            odd[i] = 1;
    }
    return above <= CBI_NUMBERS_SCALE_MAX ? above : 0;
}

#if defined(__x86_64__)
#include <immintrin.h>

#define WITH_AVX2 __attribute__((target("avx2,bmi,bmi2,popcnt")))

/* Row p: byte p goes, those before it move up by one. Row 16: nothing moves. */
static const int8_t close_gap[17][16] = {
    {-1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15},
    {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14},
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
};
/* Loaded at 16 - n: the mask of the last n bytes. */
static const int8_t last_bytes[32] = {0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,
                                      0,  0,  0,  0,  0,  -1, -1, -1, -1, -1, -1,
                                      -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};

WITH_AVX2 static inline uint64_t join_sixteen(__m128i digits) {
    __m128i pairs = _mm_maddubs_epi16(
        digits, _mm_setr_epi8(10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1, 10, 1));
    __m128i fours = _mm_madd_epi16(pairs, _mm_setr_epi16(100, 1, 100, 1, 100, 1, 100, 1));
    __m128i packed = _mm_packus_epi32(fours, fours);
    __m128i eights = _mm_madd_epi16(packed, _mm_setr_epi16(10000, 1, 10000, 1, 10000, 1, 10000, 1));
    uint64_t both = (uint64_t)_mm_cvtsi128_si64(eights);
    return (both & UINT64_C(0xffffffff)) * 100000000 + (both >> 32);
}

WITH_AVX2 static unsigned read_avx2(const cbi_numbers_want *want, const uint8_t *base,
                                    const cbi_span *fields, size_t stride, size_t count,
                                    int64_t *values, uint8_t *nulls, uint8_t *odd) {
    unsigned above = 0;
    for (size_t i = 0; i < count; i++) {
        cbi_span span = fields[i * stride];
        const uint8_t *begin = base + span.offset;
        size_t n = span.bytes;
        values[i] = 0;
        nulls[i] = n == 0;
        if (CBI_UNLIKELY(n - 1 >= 16 || span.offset + n < 16)) {
            if (n != 0 && n <= 16) /* at the very start of a chunk */
                (void)read_portable(want, base, &fields[i * stride], 1, 1, &values[i], &nulls[i],
                                    &odd[i]);
            else
                odd[i] |= n != 0;
            continue;
        }
        const uint8_t *end = begin + n;
        bool negative = *begin == '-';
        n -= negative;
        __m128i v = _mm_sub_epi8(_mm_loadu_si128((const __m128i *)(const void *)(end - 16)),
                                 _mm_set1_epi8('0'));
        v = _mm_and_si128(v, _mm_loadu_si128((const __m128i *)(const void *)(last_bytes + n)));
        unsigned others = 0xffff ^ (unsigned)_mm_movemask_epi8(
                                       _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(9)), v));
        unsigned place = (unsigned)__builtin_ctz(others | 0x10000);
        bool point = others != 0;
        if (CBI_UNLIKELY(n == 0 || (point && ((others & (others - 1)) != 0 || n == 1 ||
                                              end[(int)place - 16] != '.')))) {
            odd[i] = 1;
            continue;
        }
        v = _mm_shuffle_epi8(v, _mm_loadu_si128((const __m128i *)(const void *)close_gap[place]));
        if (CBI_UNLIKELY(
                !take(want, join_sixteen(v), point ? 15 - place : 0, negative, &values[i], &above)))
            odd[i] = 1;
    }
    return above <= CBI_NUMBERS_SCALE_MAX ? above : 0;
}
#endif

unsigned cbi_numbers_read(const cbi_numbers_want *want, const uint8_t *base, const cbi_span *fields,
                          size_t stride, size_t count, int64_t *values, uint8_t *nulls,
                          uint8_t *odd) {
#if defined(__x86_64__)
    if (cbi_sys_cpu()->avx2)
        return read_avx2(want, base, fields, stride, count, values, nulls, odd);
#endif
    return read_portable(want, base, fields, stride, count, values, nulls, odd);
}
