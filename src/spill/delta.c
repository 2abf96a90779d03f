/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/sys.h"
#include "spill/delta.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/*
 * Bytes that repeat the byte before them, left out.
 *
 * A general compressor is no help against a fast disk: on the records of the sort benchmark lz4
 * makes 1.85 of 1 at 0.76 GB/s a core, while the disk takes 1.8 GB/s and the core has other work.
 * But rows of fixed width are full of padding (zeroes, blanks, filler), and to leave that out needs
 * no search: a byte is XORed with its neighbour on the left, 64 bytes give 64 bits saying which of
 * the results are not zero, and only those follow:
 *
 *     block of 64 bytes  ->  64 bits of mask, little endian | the XORs that are not zero, in order
 *
 * The same records become 2.05 times smaller at memory speed, so half of the disk's work goes away
 * for next to nothing. Text without padding gains nothing, is seen to gain nothing by a sample
 * (codec.c), and stays raw.
 *
 * XOR and not the byte itself, because undoing it is then a prefix XOR, which goes by doubling:
 * three shifts within eight bytes, one more step across the eight words of a block. The byte before
 * the first one counts as zero. The last block is filled up with its last byte, which costs
 * nothing.
 *
 * Three kernels, the same bytes: AVX-512 (compress and expand), BMI2 (pext and pdep, eight bytes at
 * a time) and plain C. The fast ones move whole words and vectors, so they stop where less than a
 * block at its worst is left, and plain C does the rest.
 */

enum { BLOCK = CBI_DELTA_BLOCK_BYTES };

/* ---- plain C: a block, with exact ends ---- */

/* The XORs of up to 64 bytes. */
static uint64_t mask_of(const uint8_t *from, size_t count, uint8_t before, uint8_t *xors) {
    uint64_t mask = 0;
    for (size_t i = 0; i < count; i++) {
        xors[i] = from[i] ^ before;
        before = from[i];
        mask |= (uint64_t)(xors[i] != 0) << i;
    }
    return mask;
}

static size_t pack_block(const uint8_t *from, size_t count, uint8_t before, uint8_t *to,
                         size_t room) {
    uint8_t xors[BLOCK];
    uint64_t mask = mask_of(from, count, before, xors);
    size_t bytes = 8 + (size_t)__builtin_popcountll(mask);
    if (bytes > room) {
        return 0;
    }
    cbi_store_u64(to, mask);
    to += 8;
    for (size_t i = 0; i < count; i++) {
        if (xors[i] != 0) {
            *to++ = xors[i];
        }
    }
    return bytes;
}

/* Answers the bytes read, 0 for what no packer writes. */
static size_t unpack_block(const uint8_t *from, size_t room, uint8_t before, uint8_t *to,
                           size_t count) {
    if (room < 8) {
        return 0;
    }
    uint64_t mask = cbi_load_u64(from);
    size_t bytes = 8 + (size_t)__builtin_popcountll(mask);
    if (bytes > room || (count < BLOCK && mask >> count != 0)) {
        return 0;
    }
    from += 8;
    for (size_t i = 0; i < count; i++) {
        if ((mask >> i & 1) != 0) {
            before ^= *from++;
        }
        to[i] = before;
    }
    return bytes;
}

/* ---- whole blocks, fast ---- */

/* How far a kernel came; the rest is plain C's. */
typedef struct progress {
    size_t raw, packed;
} progress;

static progress pack_none(const uint8_t *from, size_t count, uint8_t *to, size_t room) {
    (void)from, (void)count, (void)to, (void)room;
    return (progress){0, 0};
}

static progress unpack_none(const uint8_t *from, size_t stored, uint8_t *to, size_t count) {
    (void)from, (void)stored, (void)to, (void)count;
    return (progress){0, 0};
}

#if defined(__x86_64__)
#define WITH_BMI2 __attribute__((target("bmi,bmi2,popcnt,lzcnt")))
#define WITH_AVX512                                                                                \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2,"        \
                          "popcnt")))

static const uint64_t LOW_BITS = 0x0101010101010101;
static const uint64_t HIGH_BITS = 0x8080808080808080;

static uint64_t prefix_xor(uint64_t word) {
    word ^= word << 8;
    word ^= word << 16;
    return word ^ word << 32;
}

/* The high bit of each byte that is not zero. */
static uint64_t bytes_not_zero(uint64_t word) {
    return (((word & ~HIGH_BITS) + ~HIGH_BITS) | word) & HIGH_BITS;
}

WITH_BMI2 static progress pack_bmi2(const uint8_t *from, size_t count, uint8_t *to, size_t room) {
    progress p = {0, 0};
    uint64_t before = 0;
    while (p.raw + BLOCK <= count && p.packed + CBI_DELTA_WORST_BLOCK_BYTES <= room) {
        uint64_t mask = 0;
        uint8_t *out = to + p.packed + 8;
        for (unsigned i = 0; i < BLOCK; i += 8) {
            uint64_t word = cbi_load_u64(from + p.raw + i);
            uint64_t xors = word ^ (word << 8 | before);
            before = word >> 56;
            uint64_t high = bytes_not_zero(xors);
            cbi_store_u64(out, _pext_u64(xors, (high >> 7) * 255));
            out += __builtin_popcountll(high);
            mask |= _pext_u64(high, HIGH_BITS) << i;
        }
        cbi_store_u64(to + p.packed, mask);
        p.raw += BLOCK;
        p.packed = (size_t)(out - to);
    }
    return p;
}

WITH_BMI2 static progress unpack_bmi2(const uint8_t *from, size_t stored, uint8_t *to,
                                      size_t count) {
    progress p = {0, 0};
    uint64_t before = 0; /* in all eight bytes */
    while (p.raw + BLOCK <= count && p.packed + CBI_DELTA_WORST_BLOCK_BYTES <= stored) {
        uint64_t mask = cbi_load_u64(from + p.packed);
        const uint8_t *in = from + p.packed + 8;
        for (unsigned i = 0; i < BLOCK; i += 8) {
            uint64_t bits = mask >> i & 255;
            uint64_t bytes = _pdep_u64(bits, LOW_BITS) * 255;
            uint64_t word = prefix_xor(_pdep_u64(cbi_load_u64(in), bytes)) ^ before;
            in += __builtin_popcountll(bits);
            cbi_store_u64(to + p.raw + i, word);
            before = (word >> 56) * LOW_BITS;
        }
        p.raw += BLOCK;
        p.packed = (size_t)(in - from);
    }
    return p;
}

WITH_AVX512 static progress pack_avx512(const uint8_t *from, size_t count, uint8_t *to,
                                        size_t room) {
    progress p = {0, 0};
    while (p.raw + BLOCK <= count && p.packed + CBI_DELTA_WORST_BLOCK_BYTES <= room) {
        const uint8_t *at = from + p.raw;
        __m512i bytes = _mm512_loadu_si512(at);
        __m512i left = p.raw == 0 ? _mm512_maskz_loadu_epi8(~(__mmask64)1, at - 1)
                                  : _mm512_loadu_si512(at - 1);
        __m512i xors = _mm512_xor_si512(bytes, left);
        uint64_t mask = _mm512_test_epi8_mask(xors, xors);
        cbi_store_u64(to + p.packed, mask);
        _mm512_storeu_si512(to + p.packed + 8, _mm512_maskz_compress_epi8(mask, xors));
        p.raw += BLOCK;
        p.packed += 8 + (size_t)__builtin_popcountll(mask);
    }
    return p;
}

/* Each word's last byte, all eight of them, as one word; and a word's bytes each eight times. */
WITH_AVX512 static __m512i gather_lasts(void) {
    return _mm512_set1_epi64(0x3f372f271f170f07);
}

WITH_AVX512 static __m512i spread_bytes(void) {
    return _mm512_set_epi64(0x0707070707070707, 0x0606060606060606, 0x0505050505050505,
                            0x0404040404040404, 0x0303030303030303, 0x0202020202020202,
                            0x0101010101010101, 0);
}

WITH_AVX512 static progress unpack_avx512(const uint8_t *from, size_t stored, uint8_t *to,
                                          size_t count) {
    progress p = {0, 0};
    uint64_t before = 0;
    while (p.raw + BLOCK <= count && p.packed + CBI_DELTA_WORST_BLOCK_BYTES <= stored) {
        uint64_t mask = cbi_load_u64(from + p.packed);
        __m512i x = _mm512_maskz_expand_epi8(mask, _mm512_loadu_si512(from + p.packed + 8));
        x = _mm512_xor_si512(x, _mm512_slli_epi64(x, 8));
        x = _mm512_xor_si512(x, _mm512_slli_epi64(x, 16));
        x = _mm512_xor_si512(x, _mm512_slli_epi64(x, 32));
        __m512i lasts = _mm512_permutexvar_epi8(gather_lasts(), x);
        uint64_t sums = prefix_xor((uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(lasts)));
        uint64_t carries = sums << 8 ^ before * LOW_BITS;
        before ^= sums >> 56;
        x = _mm512_xor_si512(
            x, _mm512_permutexvar_epi8(spread_bytes(), _mm512_set1_epi64((long long)carries)));
        _mm512_storeu_si512(to + p.raw, x);
        p.raw += BLOCK;
        p.packed += 8 + (size_t)__builtin_popcountll(mask);
    }
    return p;
}
#endif

typedef struct kernels {
    progress (*pack)(const uint8_t *from, size_t count, uint8_t *to, size_t room);
    progress (*unpack)(const uint8_t *from, size_t stored, uint8_t *to, size_t count);
} kernels;

static kernels choose(void) {
    kernels k = {pack_none, unpack_none};
#if defined(__x86_64__)
    const cbi_cpu *cpu = cbi_sys_cpu();
    if (cpu->avx512) {
        k = (kernels){pack_avx512, unpack_avx512};
    } else if (cpu->avx2) {
        k = (kernels){pack_bmi2, unpack_bmi2};
    }
#endif
    return k;
}

/* ---- the whole ---- */

size_t cbi_delta_pack(const uint8_t *from, size_t count, uint8_t *to, size_t room) {
    progress p = choose().pack(from, count, to, room);
    while (p.raw < count) {
        size_t piece = cbi_min(count - p.raw, BLOCK);
        uint8_t before = p.raw > 0 ? from[p.raw - 1] : 0;
        size_t bytes = pack_block(from + p.raw, piece, before, to + p.packed, room - p.packed);
        if (bytes == 0) {
            return 0;
        }
        p.raw += piece;
        p.packed += bytes;
    }
    return p.packed;
}

bool cbi_delta_unpack(const uint8_t *from, size_t stored, uint8_t *to, size_t count) {
    progress p = choose().unpack(from, stored, to, count);
    while (p.raw < count) {
        size_t piece = cbi_min(count - p.raw, BLOCK);
        uint8_t before = p.raw > 0 ? to[p.raw - 1] : 0;
        size_t bytes = unpack_block(from + p.packed, stored - p.packed, before, to + p.raw, piece);
        if (bytes == 0) {
            return false;
        }
        p.raw += piece;
        p.packed += bytes;
    }
    return p.packed == stored;
}

size_t cbi_delta_measure(const uint8_t *from, size_t count) {
    size_t bytes = cbi_round_up(count, BLOCK) / BLOCK * 8;
    uint8_t before = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += from[i] != before;
        before = from[i];
    }
    return bytes;
}
