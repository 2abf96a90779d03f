/* SPDX-License-Identifier: Apache-2.0 */
#include "spill/nibble.h"

#include <string.h>

#include "base/sys.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/*
 * Half a byte for each of the fifteen most frequent bytes.
 *
 * Rows of numbers and codes use ten digits and a handful of other characters. A general compressor
 * finds little in them at half a gigabyte a second; but the fifteen characters that a frame uses
 * most can be written in four bits each, and the sixteenth code says that a byte follows as it is:
 *
 *     alphabet: 15 bytes and a zero, then
 *     block of 64 bytes  ->  32 bytes of codes, the first in the low half | bytes with code 15
 *
 * The last block has as many codes as bytes are left. The alphabet is that of the frame's own
 * beginning, middle and end, so nothing has to be remembered from frame to frame. Records of the
 * group-by benchmark become 1.5 times smaller at memory speed, and with them what the disk has to
 * do, twice. Where that is not so a sample says it (codec.c).
 *
 * With AVX-512 a block is a look-up in two registers, a multiplication that joins neighbours and a
 * compressing move; backwards a shuffle and an expanding move. Elsewhere it is plain C.
 */

enum { BLOCK = CBI_NIBBLE_BLOCK_BYTES, LETTERS = 15, OTHER = 15, ASCII = 128 };

/* ---- the alphabet ---- */

/* The most frequent bytes below 128, in the order of their numbers of times. */
static void choose_alphabet(const uint8_t *from, size_t count, uint8_t *alphabet) {
    enum { PIECES = 4, PIECE = 128 };
    uint32_t times[256] = {0};
    size_t piece = cbi_min(count / PIECES, PIECE);
    for (size_t k = 0; k < PIECES; k++) {
        const uint8_t *p = from + (count - piece) / (PIECES - 1) * k;
        for (size_t i = 0; i < piece; i++)
            times[p[i]]++;
    }
    for (size_t i = 0; i < LETTERS; i++) {
        uint32_t best = 0;
        for (uint32_t c = 1; c < ASCII; c++)
            best = times[c] > times[best] ? c : best;
        alphabet[i] = (uint8_t)best;
        times[best] = 0;
    }
    alphabet[LETTERS] = 0;
}

/* codes[c] of byte c. What stands in an alphabet twice has the first code. */
static void make_codes(const uint8_t *alphabet, uint8_t *codes) {
    memset(codes, OTHER, 256);
    for (size_t i = LETTERS; i-- > 0;)
        codes[alphabet[i]] = (uint8_t)i;
}

/* ---- plain C: a block, with exact ends ---- */

static size_t pack_block(const uint8_t *codes, const uint8_t *from, size_t count, uint8_t *to,
                         size_t room) {
    size_t half = (count + 1) / 2, at = half;
    if (half > room)
        return 0;
    memset(to, 0, half);
    for (size_t i = 0; i < count; i++) {
        uint8_t code = codes[from[i]];
        to[i / 2] |= (uint8_t)(code << i % 2 * 4);
        if (code != OTHER)
            continue;
        if (at == room)
            return 0;
        to[at++] = from[i];
    }
    return at;
}

/* Answers the bytes read, 0 for what no packer writes. */
static size_t unpack_block(const uint8_t *alphabet, const uint8_t *from, size_t room, uint8_t *to,
                           size_t count) {
    size_t half = (count + 1) / 2, at = half;
    if (half > room)
        return 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t code = from[i / 2] >> i % 2 * 4 & 15;
        if (code == OTHER && at == room)
            return 0;
        to[i] = code == OTHER ? from[at++] : alphabet[code];
    }
    return at;
}

/* ---- whole blocks, fast ---- */

/* How far a kernel came; the rest is plain C's. */
typedef struct progress {
    size_t raw, packed;
} progress;

#if defined(__x86_64__)
#define WITH_AVX512                                                                                \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2,"        \
                          "popcnt")))

WITH_AVX512 static progress pack_avx512(const uint8_t *codes, const uint8_t *from, size_t count,
                                        uint8_t *to, size_t room) {
    progress p = {0, 0};
    const __m512i low = _mm512_loadu_si512(codes), high = _mm512_loadu_si512(codes + 64);
    const __m512i other = _mm512_set1_epi8(OTHER), join = _mm512_set1_epi16(0x1001);
    while (p.raw + BLOCK <= count && p.packed + CBI_NIBBLE_WORST_BLOCK_BYTES <= room) {
        __m512i bytes = _mm512_loadu_si512(from + p.raw);
        __m512i code = _mm512_permutex2var_epi8(low, bytes, high);
        code = _mm512_mask_mov_epi8(code, _mm512_movepi8_mask(bytes), other); /* from 128 on */
        uint64_t others = _mm512_cmpeq_epi8_mask(code, other);
        __m256i halves = _mm512_cvtepi16_epi8(_mm512_maddubs_epi16(code, join));
        _mm256_storeu_si256((__m256i *)(void *)(to + p.packed), halves);
        _mm512_storeu_si512(to + p.packed + 32, _mm512_maskz_compress_epi8(others, bytes));
        p.raw += BLOCK;
        p.packed += 32 + (size_t)__builtin_popcountll(others);
    }
    return p;
}

WITH_AVX512 static progress unpack_avx512(const uint8_t *alphabet, const uint8_t *from,
                                          size_t stored, uint8_t *to, size_t count) {
    progress p = {0, 0};
    const __m512i letters =
        _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)alphabet));
    const __m512i other = _mm512_set1_epi8(OTHER);
    while (p.raw + BLOCK <= count && p.packed + CBI_NIBBLE_WORST_BLOCK_BYTES <= stored) {
        __m512i pairs = _mm512_cvtepu8_epi16(
            _mm256_loadu_si256((const __m256i *)(const void *)(from + p.packed)));
        __m512i code = _mm512_or_si512(pairs, _mm512_slli_epi16(pairs, 4));
        code = _mm512_and_si512(code, other);
        uint64_t others = _mm512_cmpeq_epi8_mask(code, other);
        __m512i bytes = _mm512_shuffle_epi8(letters, code);
        bytes = _mm512_mask_expand_epi8(bytes, others, _mm512_loadu_si512(from + p.packed + 32));
        _mm512_storeu_si512(to + p.raw, bytes);
        p.raw += BLOCK;
        p.packed += 32 + (size_t)__builtin_popcountll(others);
    }
    return p;
}
#endif

static progress pack_fast(const uint8_t *codes, const uint8_t *from, size_t count, uint8_t *to,
                          size_t room) {
#if defined(__x86_64__)
    if (cbi_sys_cpu()->avx512)
        return pack_avx512(codes, from, count, to, room);
#endif
    (void)codes, (void)from, (void)count, (void)to, (void)room;
    return (progress){0, 0};
}

static progress unpack_fast(const uint8_t *alphabet, const uint8_t *from, size_t stored,
                            uint8_t *to, size_t count) {
#if defined(__x86_64__)
    if (cbi_sys_cpu()->avx512)
        return unpack_avx512(alphabet, from, stored, to, count);
#endif
    (void)alphabet, (void)from, (void)stored, (void)to, (void)count;
    return (progress){0, 0};
}

/* ---- the whole ---- */

size_t cbi_nibble_pack(const uint8_t *from, size_t count, uint8_t *to, size_t room) {
    uint8_t codes[256];
    if (room < CBI_NIBBLE_ALPHABET_BYTES)
        return 0;
    choose_alphabet(from, count, to);
    make_codes(to, codes);
    to += CBI_NIBBLE_ALPHABET_BYTES;
    room -= CBI_NIBBLE_ALPHABET_BYTES;
    progress p = pack_fast(codes, from, count, to, room);
    while (p.raw < count) {
        size_t piece = cbi_min(count - p.raw, BLOCK);
        size_t bytes = pack_block(codes, from + p.raw, piece, to + p.packed, room - p.packed);
        if (bytes == 0)
            return 0;
        p.raw += piece;
        p.packed += bytes;
    }
    return p.packed + CBI_NIBBLE_ALPHABET_BYTES;
}

bool cbi_nibble_unpack(const uint8_t *from, size_t stored, uint8_t *to, size_t count) {
    if (stored < CBI_NIBBLE_ALPHABET_BYTES)
        return false;
    const uint8_t *alphabet = from;
    from += CBI_NIBBLE_ALPHABET_BYTES;
    stored -= CBI_NIBBLE_ALPHABET_BYTES;
    progress p = unpack_fast(alphabet, from, stored, to, count);
    while (p.raw < count) {
        size_t piece = cbi_min(count - p.raw, BLOCK);
        size_t bytes =
            unpack_block(alphabet, from + p.packed, stored - p.packed, to + p.raw, piece);
        if (bytes == 0)
            return false;
        p.raw += piece;
        p.packed += bytes;
    }
    return p.packed == stored;
}

size_t cbi_nibble_measure(const uint8_t *from, size_t count) {
    uint8_t alphabet[CBI_NIBBLE_ALPHABET_BYTES], codes[256];
    choose_alphabet(from, count, alphabet);
    make_codes(alphabet, codes);
    size_t bytes = CBI_NIBBLE_ALPHABET_BYTES + (count + 1) / 2;
    for (size_t i = 0; i < count; i++)
        bytes += codes[from[i]] == OTHER;
    return bytes;
}
