/* SPDX-License-Identifier: Apache-2.0 */
#include "record/brief.h"

#include <string.h>

#include "base/sys.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/*
 * Keys of groups are mostly numbers and codes: ten digits, a few letters, a separator. Their brief
 * form is
 *
 *     u8 bytes of the text | a code of four bits for each, the first in the low half | bytes with
 *     code 15, as they are
 *
 * or, for texts of more than 64 bytes and for those that would not become shorter,
 *
 *     u8 255 | the text
 *
 * Which of them it is depends on the text alone, so equal brief forms mean equal texts. A segment
 * that leaves may be packed as well (spill/nibble.c); but what is made brief once, when it is read,
 * is less to copy, hash, compare and keep from then on, whether it leaves or not.
 *
 * With AVX-512 a text is a look-up in two registers, a multiplication that joins neighbours and a
 * compressing move. Elsewhere it is plain C.
 */

enum { OTHER = 15, ASCII = 128 };

double cbi_brief_init(cbi_brief *b, const uint64_t times[256]) {
    uint64_t all = 0, known = 0;
    bool taken[ASCII] = {false};
    memset(b->codes, OTHER, sizeof b->codes);
    for (size_t c = 0; c < 256; c++)
        all += times[c];
    for (size_t i = 0; i < CBI_BRIEF_LETTERS; i++) {
        size_t best = ASCII;
        for (size_t c = 0; c < ASCII; c++)
            if (!taken[c] && (best == ASCII || times[c] > times[best]))
                best = c;
        taken[best] = true;
        b->letters[i] = (uint8_t)best;
        b->codes[best] = (uint8_t)i;
        known += times[best];
    }
    b->letters[OTHER] = 0;
    return all > 0 ? 1 - (double)known / (double)all : 1;
}

static size_t put_raw(const uint8_t *text, size_t bytes, uint8_t *to) {
    to[0] = CBI_BRIEF_MARK;
    memcpy(to + 1, text, bytes);
    return bytes + 1;
}

size_t cbi_brief_put(const cbi_brief *b, const uint8_t *text, size_t bytes, uint8_t *to) {
    size_t half = (bytes + 1) / 2, at = 1 + half;
    if (bytes > CBI_BRIEF_TEXT_MAX)
        return put_raw(text, bytes, to);
    to[0] = (uint8_t)bytes;
    memset(to + 1, 0, half);
    for (size_t i = 0; i < bytes; i++) {
        uint8_t code = b->codes[text[i]];
        to[1 + i / 2] |= (uint8_t)(code << i % 2 * 4);
        if (code == OTHER)
            to[at++] = text[i];
    }
    return at <= bytes ? at : put_raw(text, bytes, to);
}

static uint8_t *put_all(const cbi_brief *b, const uint8_t **texts, uint32_t *bytes, size_t count,
                        uint8_t *to) {
    for (size_t i = 0; i < count; i++) {
        uint32_t n = (uint32_t)cbi_brief_put(b, texts[i], bytes[i], to);
        texts[i] = to;
        bytes[i] = n;
        to += n;
    }
    return to;
}

#if defined(__x86_64__)
#define WITH_AVX512                                                                                \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2,"        \
                          "popcnt")))

WITH_AVX512 static uint8_t *put_all_avx512(const cbi_brief *b, const uint8_t **texts,
                                           uint32_t *bytes, size_t count, uint8_t *to) {
    const __m512i low = _mm512_loadu_si512(b->codes), high = _mm512_loadu_si512(b->codes + 64);
    const __m512i other = _mm512_set1_epi8(OTHER), join = _mm512_set1_epi16(0x1001);
    for (size_t i = 0; i < count; i++) {
        size_t n = bytes[i], at = SIZE_MAX;
        if (CBI_LIKELY(n <= CBI_BRIEF_TEXT_MAX)) {
            __mmask64 all = n == 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
            __m512i text = _mm512_maskz_loadu_epi8(all, texts[i]);
            __m512i code = _mm512_permutex2var_epi8(low, text, high);
            code = _mm512_mask_mov_epi8(code, _mm512_movepi8_mask(text), other); /* from 128 on */
            code = _mm512_maskz_mov_epi8(all, code);
            uint64_t others = _mm512_cmpeq_epi8_mask(code, other);
            size_t half = (n + 1) / 2;
            at = 1 + half + (size_t)__builtin_popcountll(others);
            if (CBI_LIKELY(at <= n)) {
                __m256i halves = _mm512_cvtepi16_epi8(_mm512_maddubs_epi16(code, join));
                to[0] = (uint8_t)n;
                _mm256_storeu_si256((__m256i *)(void *)(to + 1), halves);
                if (others != 0)
                    _mm512_storeu_si512(to + 1 + half, _mm512_maskz_compress_epi8(others, text));
            }
        }
        if (CBI_UNLIKELY(at > n))
            at = put_raw(texts[i], n, to);
        texts[i] = to;
        bytes[i] = (uint32_t)at;
        to += at;
    }
    return to;
}
#endif

uint8_t *cbi_brief_put_all(const cbi_brief *b, const uint8_t **texts, uint32_t *bytes, size_t count,
                           uint8_t *to) {
#if defined(__x86_64__)
    if (cbi_sys_cpu()->avx512)
        return put_all_avx512(b, texts, bytes, count, to);
#endif
    return put_all(b, texts, bytes, count, to);
}

void cbi_brief_get(const cbi_brief *b, const uint8_t *brief, size_t bytes, uint8_t *text) {
    size_t n = brief[0];
    if (n > CBI_BRIEF_TEXT_MAX) {
        memcpy(text, brief + 1, bytes - 1);
        return;
    }
    const uint8_t *others = brief + 1 + (n + 1) / 2;
    for (size_t i = 0; i < n; i++) {
        uint8_t code = brief[1 + i / 2] >> i % 2 * 4 & 15;
        text[i] = code == OTHER ? *others++ : b->letters[code];
    }
}
