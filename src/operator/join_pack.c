/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/join_pack.h"

#include "base/alloc.h"
#include "base/sys.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* ---- the alphabet ---- */

static bool has_letter(const uint8_t *alphabet, size_t count, uint32_t c) {
    return memchr(alphabet, (int)c, count) != NULL;
}

/* So few other characters that hardly a row has one. */
static bool worth_it(const uint64_t *times, uint64_t rows, const uint8_t *alphabet, size_t count) {
    uint64_t others = 0, all = 0;
    for (uint32_t c = 0; c < 256; c++) {
        all += times[c];
        others += has_letter(alphabet, count, c) ? 0 : times[c];
    }
    return rows > 0 && all >= 2 * rows && others * 16 <= rows;
}

static size_t choose(const join_letters *l, uint64_t key_weight, uint8_t *alphabet) {
    size_t count = 0;
    for (; count < JOIN_PACK_LETTERS; count++) {
        uint64_t most = 0;
        uint32_t best = 0;
        for (uint32_t c = 0; c < JOIN_PACK_ASCII; c++) {
            uint64_t times = l->keys[c] * key_weight + l->text[c];
            if (times <= most || has_letter(alphabet, count, c))
                continue;
            most = times;
            best = c;
        }
        if (most == 0)
            break;
        alphabet[count] = (uint8_t)best;
    }
    return count;
}

static void fill(join_pack *k, const uint8_t *alphabet, size_t count) {
    memset(k->codes, JOIN_PACK_LETTERS, sizeof k->codes);
    memset(k->pairs, JOIN_PACK_RAW, sizeof k->pairs);
    for (size_t a = 0; a < count; a++)
        k->codes[alphabet[a]] = (uint8_t)a;
    for (size_t a = 0; a < count; a++)
        for (size_t b = 0; b < count; b++)
            k->pairs[alphabet[a] | (unsigned)alphabet[b] << 7] = (uint8_t)(a | b << 4);
    memcpy(k->alphabet, alphabet, count);
    for (size_t i = 0; i < 256; i++) {
        const uint8_t two[2] = {k->alphabet[i & 15], k->alphabet[i >> 4]};
        memcpy(&k->letters[i], two, 2);
    }
}

join_pack *join_pack_choose(const join_letters *letters) {
    uint8_t alphabet[JOIN_PACK_LETTERS];
    size_t count = choose(letters, 1000, alphabet); /* keys first: they are stored on both sides */
    bool keys = worth_it(letters->keys, letters->key_rows, alphabet, count);
    if (!keys)
        count = choose(letters, 0, alphabet);
    bool text = worth_it(letters->text, letters->text_rows, alphabet, count);
    join_pack *k = keys || text ? cbi_calloc(1, sizeof *k) : NULL;
    if (k == NULL)
        return NULL;
    k->keys = keys;
    k->text = text;
    k->wide = cbi_sys_cpu()->avx512;
    fill(k, alphabet, count);
    return k;
}

/* ---- plain C ---- */

static bool pack(const join_pack *k, const uint8_t *text, size_t bytes, uint8_t *at) {
    unsigned high = 0, none = 0;
    size_t i = 0;
    for (; i + 2 <= bytes; i += 2) {
        unsigned both = text[i] | (unsigned)text[i + 1] << 8;
        unsigned pair = k->pairs[(both & 0x7f) | (both >> 1 & 0x3f80)];
        high |= both;
        none |= pair + 1;
        *at++ = (uint8_t)pair;
    }
    if (i < bytes) {
        uint8_t code = k->codes[text[i]];
        none |= code == JOIN_PACK_LETTERS ? 0x100 : 0;
        *at = (uint8_t)(code | 0xf0);
    }
    return ((high & 0x8080) | (none & 0x100)) == 0;
}

static void unpack(const join_pack *k, const uint8_t *packed, size_t bytes, uint8_t *at) {
    for (size_t i = 0; i < bytes; i++)
        memcpy(at + 2 * i, &k->letters[packed[i]], 2);
}

/* ---- the same, 64 characters at a time ---- */

#if defined(__x86_64__)
#define WITH_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,bmi2")))

WITH_AVX512 static bool pack_wide(const join_pack *k, const uint8_t *text, size_t bytes,
                                  uint8_t *at) {
    const __m512i low = _mm512_loadu_si512(k->codes), high = _mm512_loadu_si512(k->codes + 64);
    const __m512i none = _mm512_set1_epi8(JOIN_PACK_LETTERS), join = _mm512_set1_epi16(0x1001);
    for (size_t i = 0; i < bytes; i += 64) {
        __mmask64 in = _bzhi_u64(UINT64_MAX, (uint32_t)cbi_min(bytes - i, 64));
        __m512i letters = _mm512_maskz_loadu_epi8(in, text + i);
        __m512i found = _mm512_permutex2var_epi8(low, letters, high);
        __m512i codes = _mm512_mask_blend_epi8(in, none, found);
        if ((in & (_mm512_cmpeq_epi8_mask(codes, none) | _mm512_movepi8_mask(letters))) != 0)
            return false;
        __m512i pairs = _mm512_maddubs_epi16(codes, join);
        _mm256_storeu_si256((__m256i *)(void *)(at + i / 2), _mm512_cvtepi16_epi8(pairs));
    }
    return true;
}

WITH_AVX512 static void unpack_wide(const join_pack *k, const uint8_t *packed, size_t bytes,
                                    uint8_t *at) {
    const __m512i letters =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)k->alphabet));
    const __m512i half = _mm512_set1_epi8(15);
    for (size_t i = 0; i < bytes; i += 32) {
        __mmask32 in = _bzhi_u32(UINT32_MAX, (uint32_t)cbi_min(bytes - i, 32));
        __m512i pairs = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(in, packed + i));
        __m512i codes = _mm512_or_si512(pairs, _mm512_slli_epi16(pairs, 4));
        _mm512_storeu_si512(at + 2 * i,
                            _mm512_shuffle_epi8(letters, _mm512_and_si512(codes, half)));
    }
}
#endif

/* ---- from outside ---- */

bool join_pack_try(const join_pack *k, const uint8_t *text, size_t bytes, uint8_t *at) {
    if (CBI_UNLIKELY(bytes > JOIN_PACK_MAX))
        return false;
#if defined(__x86_64__)
    if (k->wide)
        return pack_wide(k, text, bytes, at);
#endif
    return pack(k, text, bytes, at);
}

uint8_t *join_pack_get(const join_pack *k, const uint8_t *packed, size_t bytes, uint8_t *at) {
    if (CBI_UNLIKELY(bytes == 0 || packed[0] == JOIN_PACK_RAW)) {
        if (bytes > 1)
            memcpy(at, packed + 1, bytes - 1);
        return at + bytes - (bytes > 0);
    }
    uint8_t *end = at + 2 * bytes - (packed[bytes - 1] >= 0xf0);
#if defined(__x86_64__)
    if (k->wide) {
        unpack_wide(k, packed, bytes, at);
        return end;
    }
#endif
    unpack(k, packed, bytes, at);
    return end;
}
