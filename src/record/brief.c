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
 * or, if the text has at all the places of the pattern what all those have that were sampled
 * ("id", "id0000", commas between columns of one width), the same without these,
 *
 *     u8 128 + bytes of the text | codes of the others | bytes with code 15
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
 * compressing move, and so is leaving out the pattern. Elsewhere it is plain C.
 */

enum { OTHER = 15, ASCII = 128 };

void cbi_brief_see(cbi_brief_common *c, const uint8_t *text, size_t bytes) {
    bytes = cbi_min(bytes, CBI_BRIEF_TEXT_MAX);
    if (!c->any) {
        memcpy(c->first, text, bytes);
        c->same = UINT64_MAX;
        c->any = true;
    }
    for (size_t i = 0; i < CBI_BRIEF_TEXT_MAX; i++)
        if (i >= bytes || text[i] != c->first[i])
            c->same &= ~((uint64_t)1 << i);
}

static void set_pattern(cbi_brief *b, const cbi_brief_common *c) {
    memset(b->pattern, 0, sizeof b->pattern);
    b->fixed = c != NULL ? c->same : 0;
    b->pattern_bytes = b->fixed == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(b->fixed);
    for (size_t i = 0; i < b->pattern_bytes; i++)
        b->pattern[i] = (b->fixed >> i & 1) != 0 ? c->first[i] : 0;
}

double cbi_brief_init(cbi_brief *b, const uint64_t times[256], const cbi_brief_common *common) {
    set_pattern(b, common);
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

/* The places that its brief form leaves out. */
static uint64_t left_out(const cbi_brief *b, const uint8_t *text, size_t bytes) {
    if (bytes < b->pattern_bytes)
        return 0;
    for (size_t i = 0; i < b->pattern_bytes; i++)
        if ((b->fixed >> i & 1) != 0 && text[i] != b->pattern[i])
            return 0;
    return b->fixed;
}

size_t cbi_brief_put(const cbi_brief *b, const uint8_t *text, size_t bytes, uint8_t *to) {
    if (bytes > CBI_BRIEF_TEXT_MAX)
        return put_raw(text, bytes, to);
    uint64_t out = left_out(b, text, bytes);
    size_t coded = bytes - (size_t)__builtin_popcountll(out), half = (coded + 1) / 2, at = 1 + half;
    to[0] = (uint8_t)(bytes + (out != 0 ? CBI_BRIEF_FIXED : 0));
    memset(to + 1, 0, half);
    for (size_t i = 0, k = 0; i < bytes; i++) {
        if ((out >> i & 1) != 0)
            continue;
        uint8_t code = b->codes[text[i]];
        to[1 + k / 2] |= (uint8_t)(code << k % 2 * 4);
        if (code == OTHER)
            to[at++] = text[i];
        k++;
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
    const __m512i pattern = _mm512_loadu_si512(b->pattern);
    const size_t coded_less = (size_t)__builtin_popcountll(b->fixed);
    for (size_t i = 0; i < count; i++) {
        size_t n = bytes[i], at = SIZE_MAX;
        if (CBI_LIKELY(n <= CBI_BRIEF_TEXT_MAX)) {
            uint64_t all = _bzhi_u64(UINT64_MAX, (uint32_t)n);
            __m512i text = _mm512_maskz_loadu_epi8(all, texts[i]);
            size_t coded = n;
            bool has = b->fixed != 0 && n >= b->pattern_bytes &&
                       _mm512_mask_cmpneq_epi8_mask(b->fixed, text, pattern) == 0;
            if (has) {
                text = _mm512_maskz_compress_epi8(all & ~b->fixed, text);
                coded -= coded_less;
                all = _bzhi_u64(UINT64_MAX, (uint32_t)coded);
            }
            __m512i code = _mm512_permutex2var_epi8(low, text, high);
            code = _mm512_mask_mov_epi8(code, _mm512_movepi8_mask(text), other); /* from 128 on */
            code = _mm512_maskz_mov_epi8(all, code);
            uint64_t others = _mm512_cmpeq_epi8_mask(code, other);
            size_t half = (coded + 1) / 2;
            at = 1 + half + (size_t)__builtin_popcountll(others);
            if (CBI_LIKELY(at <= n)) {
                __m256i halves = _mm512_cvtepi16_epi8(_mm512_maddubs_epi16(code, join));
                to[0] = (uint8_t)(n + (has ? CBI_BRIEF_FIXED : 0));
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
    if (brief[0] == CBI_BRIEF_MARK) {
        memcpy(text, brief + 1, bytes - 1);
        return;
    }
    size_t n = brief[0] & (CBI_BRIEF_FIXED - 1);
    uint64_t out = (brief[0] & CBI_BRIEF_FIXED) != 0 ? b->fixed : 0;
    const uint8_t *others = brief + 1 + (n - (size_t)__builtin_popcountll(out) + 1) / 2;
    for (size_t i = 0, k = 0; i < n; i++) {
        if ((out >> i & 1) != 0) {
            text[i] = b->pattern[i];
            continue;
        }
        uint8_t code = brief[1 + k / 2] >> k % 2 * 4 & 15;
        text[i] = code == OTHER ? *others++ : b->letters[code];
        k++;
    }
}
