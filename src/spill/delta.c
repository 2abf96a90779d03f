/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/sys.h"
#include "spill/delta.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/*
 * Bytes that can be told from the byte before them and the row above them, left out.
 *
 * A general compressor is no help against a fast disk: on the records of the sort benchmark lz4
 * makes 1.85 of 1 at 0.76 GB/s a core, while the disk takes 1.8 GB/s and the core has other work.
 * But what is spilled is rows, often of one length, full of padding (zeroes, blanks, filler) and of
 * columns that hardly change, and to leave that out needs no search. A byte is XORed with its
 * neighbour on the left, and the result with the same of the row above, which is a fixed distance
 * back (0: there are no such rows; a sample says, codec.c). What is zero then is left out:
 *
 *     block of 64 bytes  ->  64 bits of mask, saying which results are not zero | those, in order
 *
 * Masks of such rows resemble each other as well. So they are XORed with the mask that far back,
 * and are written as a byte that says which of their eight bytes are not zero, and those:
 *
 *     distance, two bytes | for each block: 1 byte | up to 8 bytes of mask | up to 64 of results
 *
 * The same records become 2.9 times smaller at memory speed (2.15 with no row above), so two
 * thirds of the disk's work go away for next to nothing. Text without padding or columns gains
 * nothing, is seen to gain nothing by the sample, and stays raw.
 *
 * XOR and not the bytes themselves, because undoing it is then a prefix XOR, which goes by
 * doubling: three shifts within eight bytes, one more step across the eight words of a block; the
 * row above is one more XOR for 64 bytes at once, since it ends before they begin (a distance is 64
 * at least, and of shorter rows it is that of several). The byte before the first one counts as
 * zero. Whole blocks at the beginning that have no row above go without. The last block is filled
 * up with what costs nothing.
 *
 * Three kernels, the same bytes: AVX-512 (compress and expand), BMI2 (pext and pdep, eight bytes at
 * a time) and plain C. The fast ones move whole words and vectors, so they stop where less than a
 * block at its worst is left, and plain C does the rest.
 */

enum {
    BLOCK = CBI_DELTA_BLOCK_BYTES,
    HEADER = 2,
    MASKS = 32 /* as many as the farthest row above needs, and a power of two */
};

static_assert(CBI_DELTA_DISTANCE_MAX / BLOCK + 2 <= MASKS,
              "masks of the row above are still there");

/* How far packing or unpacking has come. */
typedef struct progress {
    size_t raw, packed;
    size_t distance; /* 0: no row above, or not yet */
    uint64_t masks[MASKS];
} progress;

/* Mask of the 64 bytes that lie `distance` before those of the block to come. */
static inline uint64_t mask_above(const uint64_t *masks, size_t raw, size_t distance) {
    size_t block = raw / BLOCK - distance / BLOCK;
    unsigned shift = distance % BLOCK;
    uint64_t near = masks[block % MASKS], far = masks[(block - 1) % MASKS];
    return near << shift | far >> 1 >> (63 - shift);
}

static inline void keep_mask(uint64_t *masks, size_t raw, uint64_t mask) {
    masks[raw / BLOCK % MASKS] = mask;
}

/* ---- plain C: a block, with exact ends ---- */

/* What is written for byte `i`. */
static uint8_t result_of(const uint8_t *from, size_t i, size_t distance) {
    uint8_t x = from[i] ^ (i > 0 ? from[i - 1] : 0);
    return distance == 0 ? x : x ^ from[i - distance] ^ from[i - distance - 1];
}

static uint64_t low_bits(size_t count) {
    return count < 64 ? ((uint64_t)1 << count) - 1 : UINT64_MAX;
}

/* The next block as it is written; answers its bytes and steps over it. */
static size_t make_block(progress *p, const uint8_t *from, size_t count, uint8_t *to) {
    uint8_t results[BLOCK];
    uint64_t mask = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t x = result_of(from, p->raw + i, p->distance);
        results[bytes] = x;
        bytes += x != 0;
        mask |= (uint64_t)(x != 0) << i;
    }
    uint64_t news = (p->distance > 0 ? mask ^ mask_above(p->masks, p->raw, p->distance) : mask) &
                    low_bits(count);
    size_t at = 1;
    to[0] = 0;
    for (size_t k = 0; k < 8; k++) {
        uint8_t byte = (uint8_t)(news >> 8 * k);
        to[0] |= (uint8_t)((byte != 0) << k);
        to[at] = byte;
        at += byte != 0;
    }
    memcpy(to + at, results, bytes);
    keep_mask(p->masks, p->raw, mask);
    p->raw += count;
    return at + bytes;
}

static bool pack_block(progress *p, const uint8_t *from, size_t count, uint8_t *to, size_t room) {
    uint8_t block[CBI_DELTA_WORST_BLOCK_BYTES];
    size_t bytes = make_block(p, from, count, block);
    if (bytes > room - p->packed)
        return false;
    memcpy(to + p->packed, block, bytes);
    p->packed += bytes;
    return true;
}

/* False for what no packer writes. */
static bool unpack_block(progress *p, const uint8_t *from, size_t stored, uint8_t *to,
                         size_t count) {
    size_t room = stored - p->packed;
    from += p->packed;
    if (room == 0)
        return false;
    size_t at = 1;
    uint64_t mask = 0;
    for (size_t k = 0; k < 8; k++) {
        if ((from[0] >> k & 1) == 0)
            continue;
        if (at == room)
            return false;
        mask |= (uint64_t)from[at++] << 8 * k;
    }
    if ((mask & ~low_bits(count)) != 0)
        return false;
    mask = (p->distance > 0 ? mask ^ mask_above(p->masks, p->raw, p->distance) : mask) &
           low_bits(count);
    if ((size_t)__builtin_popcountll(mask) > room - at)
        return false;
    for (size_t i = p->raw; i < p->raw + count; i++) {
        to[i] = 0;
        uint8_t result = (mask >> (i - p->raw) & 1) != 0 ? from[at++] : 0;
        to[i] = result ^ result_of(to, i, p->distance);
    }
    keep_mask(p->masks, p->raw, mask);
    p->raw += count;
    p->packed += at;
    return true;
}

/* ---- whole blocks, fast: as far as they come ---- */

typedef void (*pack_fn)(progress *p, const uint8_t *from, size_t end, uint8_t *to, size_t room);
typedef void (*unpack_fn)(progress *p, const uint8_t *from, size_t stored, uint8_t *to, size_t end);

static void pack_none(progress *p, const uint8_t *from, size_t end, uint8_t *to, size_t room) {
    (void)p, (void)from, (void)end, (void)to, (void)room;
}

static void unpack_none(progress *p, const uint8_t *from, size_t stored, uint8_t *to, size_t end) {
    (void)p, (void)from, (void)stored, (void)to, (void)end;
}

#if defined(__x86_64__)
#define WITH_BMI2 __attribute__((target("bmi,bmi2,popcnt,lzcnt")))
#define WITH_AVX512                                                                                \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2,bmi2,"        \
                          "popcnt")))

static const uint64_t LOW_BITS = 0x0101010101010101;
static const uint64_t HIGH_BITS = 0x8080808080808080;

static inline uint64_t prefix_xor(uint64_t word) {
    word ^= word << 8;
    word ^= word << 16;
    return word ^ word << 32;
}

/* The high bit of each byte that is not zero. */
static inline uint64_t bytes_not_zero(uint64_t word) {
    return (((word & ~HIGH_BITS) + ~HIGH_BITS) | word) & HIGH_BITS;
}

/* The mask of the next block, written at `to`; answers its bytes. Eight more may be written. */
WITH_BMI2 static inline size_t put_mask(uint64_t *masks, size_t raw, size_t distance, uint64_t mask,
                                        uint8_t *to) {
    uint64_t news = distance > 0 ? mask ^ mask_above(masks, raw, distance) : mask;
    keep_mask(masks, raw, mask);
    uint64_t some = bytes_not_zero(news);
    to[0] = (uint8_t)_pext_u64(some, HIGH_BITS);
    cbi_store_u64(to + 1, _pext_u64(news, (some >> 7) * 255));
    return 1 + (size_t)__builtin_popcountll(some);
}

WITH_BMI2 static inline uint64_t get_mask(uint64_t *masks, size_t raw, size_t distance,
                                          const uint8_t *from, size_t *bytes) {
    uint64_t some = _pdep_u64(from[0], LOW_BITS);
    uint64_t mask = _pdep_u64(cbi_load_u64(from + 1), some * 255);
    mask = distance > 0 ? mask ^ mask_above(masks, raw, distance) : mask;
    keep_mask(masks, raw, mask);
    *bytes = 1 + (size_t)__builtin_popcountll(some);
    return mask;
}

WITH_BMI2 static inline void pack_words(progress *p, const uint8_t *from, size_t end, bool rows,
                                        uint8_t *to, size_t room) {
    const size_t distance = rows ? p->distance : 0;
    size_t raw = p->raw, packed = p->packed; /* not where stores of bytes may change them */
    uint64_t before = raw == 0 ? 0 : from[raw - 1] ^ (rows ? from[raw - 1 - distance] : 0);
    while (raw + BLOCK <= end && packed + CBI_DELTA_WORST_BLOCK_BYTES <= room) {
        uint64_t mask = 0, results[BLOCK / 8];
        for (unsigned i = 0; i < BLOCK / 8; i++) {
            const uint8_t *at = from + raw + i * 8;
            uint64_t word = cbi_load_u64(at) ^ (rows ? cbi_load_u64(at - distance) : 0);
            results[i] = word ^ (word << 8 | before);
            before = word >> 56;
            mask |= _pext_u64(bytes_not_zero(results[i]), HIGH_BITS) << i * 8;
        }
        uint8_t *out = to + packed;
        out += put_mask(p->masks, raw, distance, mask, out);
        for (unsigned i = 0; i < BLOCK / 8; i++) {
            uint64_t some = _pdep_u64(mask >> i * 8, LOW_BITS);
            cbi_store_u64(out, _pext_u64(results[i], some * 255));
            out += __builtin_popcountll(some);
        }
        raw += BLOCK;
        packed = (size_t)(out - to);
    }
    p->raw = raw;
    p->packed = packed;
}

WITH_BMI2 static void pack_bmi2(progress *p, const uint8_t *from, size_t end, uint8_t *to,
                                size_t room) {
    if (p->distance > 0)
        pack_words(p, from, end, true, to, room);
    else
        pack_words(p, from, end, false, to, room);
}

WITH_BMI2 static inline void unpack_words(progress *p, const uint8_t *from, size_t stored,
                                          bool rows, uint8_t *to, size_t end) {
    const size_t distance = rows ? p->distance : 0;
    size_t raw = p->raw, packed = p->packed; /* not where stores of bytes may change them */
    uint64_t before = raw == 0 ? 0 : to[raw - 1] ^ (rows ? to[raw - 1 - distance] : 0);
    before *= LOW_BITS; /* in all eight bytes */
    while (raw + BLOCK <= end && packed + CBI_DELTA_WORST_BLOCK_BYTES <= stored) {
        const uint8_t *in = from + packed;
        size_t bytes;
        uint64_t mask = get_mask(p->masks, raw, distance, in, &bytes);
        in += bytes;
        for (unsigned i = 0; i < BLOCK; i += 8) {
            uint64_t some = _pdep_u64(mask >> i, LOW_BITS);
            uint64_t word = prefix_xor(_pdep_u64(cbi_load_u64(in), some * 255)) ^ before;
            in += __builtin_popcountll(some);
            before = (word >> 56) * LOW_BITS;
            uint8_t *at = to + raw + i;
            cbi_store_u64(at, rows ? word ^ cbi_load_u64(at - distance) : word);
        }
        raw += BLOCK;
        packed = (size_t)(in - from);
    }
    p->raw = raw;
    p->packed = packed;
}

WITH_BMI2 static void unpack_bmi2(progress *p, const uint8_t *from, size_t stored, uint8_t *to,
                                  size_t end) {
    if (p->distance > 0)
        unpack_words(p, from, stored, true, to, end);
    else
        unpack_words(p, from, stored, false, to, end);
}

WITH_AVX512 static inline void pack_vectors(progress *p, const uint8_t *from, size_t end, bool rows,
                                            uint8_t *to, size_t room) {
    const size_t distance = rows ? p->distance : 0;
    size_t raw = p->raw, packed = p->packed; /* not where stores of bytes may change them */
    while (raw + BLOCK <= end && packed + CBI_DELTA_WORST_BLOCK_BYTES <= room) {
        const uint8_t *at = from + raw;
        __m512i x = _mm512_loadu_si512(at);
        __m512i left =
            raw == 0 ? _mm512_maskz_loadu_epi8(~(__mmask64)1, at - 1) : _mm512_loadu_si512(at - 1);
        if (rows) {
            x = _mm512_xor_si512(x, _mm512_loadu_si512(at - distance));
            left = _mm512_xor_si512(left, _mm512_loadu_si512(at - distance - 1));
        }
        x = _mm512_xor_si512(x, left);
        uint64_t mask = _mm512_test_epi8_mask(x, x);
        packed += put_mask(p->masks, raw, distance, mask, to + packed);
        _mm512_storeu_si512(to + packed, _mm512_maskz_compress_epi8(mask, x));
        packed += (size_t)__builtin_popcountll(mask);
        raw += BLOCK;
    }
    p->raw = raw;
    p->packed = packed;
}

WITH_AVX512 static void pack_avx512(progress *p, const uint8_t *from, size_t end, uint8_t *to,
                                    size_t room) {
    if (p->distance > 0)
        pack_vectors(p, from, end, true, to, room);
    else
        pack_vectors(p, from, end, false, to, room);
}

/* Each word's last byte, all eight of them, as one word; and a word's bytes each eight times. */
WITH_AVX512 static inline __m512i gather_lasts(void) {
    return _mm512_set1_epi64(0x3f372f271f170f07);
}

WITH_AVX512 static inline __m512i spread_bytes(void) {
    return _mm512_set_epi64(0x0707070707070707, 0x0606060606060606, 0x0505050505050505,
                            0x0404040404040404, 0x0303030303030303, 0x0202020202020202,
                            0x0101010101010101, 0);
}

WITH_AVX512 static inline void unpack_vectors(progress *p, const uint8_t *from, size_t stored,
                                              bool rows, uint8_t *to, size_t end) {
    const size_t distance = rows ? p->distance : 0;
    size_t raw = p->raw, packed = p->packed; /* not where stores of bytes may change them */
    uint64_t before = raw == 0 ? 0 : to[raw - 1] ^ (rows ? to[raw - 1 - distance] : 0);
    while (raw + BLOCK <= end && packed + CBI_DELTA_WORST_BLOCK_BYTES <= stored) {
        size_t bytes;
        uint64_t mask = get_mask(p->masks, raw, distance, from + packed, &bytes);
        packed += bytes;
        __m512i x = _mm512_maskz_expand_epi8(mask, _mm512_loadu_si512(from + packed));
        packed += (size_t)__builtin_popcountll(mask);
        x = _mm512_xor_si512(x, _mm512_slli_epi64(x, 8));
        x = _mm512_xor_si512(x, _mm512_slli_epi64(x, 16));
        x = _mm512_xor_si512(x, _mm512_slli_epi64(x, 32));
        __m512i lasts = _mm512_permutexvar_epi8(gather_lasts(), x);
        uint64_t sums = prefix_xor((uint64_t)_mm_cvtsi128_si64(_mm512_castsi512_si128(lasts)));
        uint64_t carries = sums << 8 ^ before * LOW_BITS;
        before ^= sums >> 56;
        x = _mm512_xor_si512(
            x, _mm512_permutexvar_epi8(spread_bytes(), _mm512_set1_epi64((long long)carries)));
        uint8_t *at = to + raw;
        _mm512_storeu_si512(at, rows ? _mm512_xor_si512(x, _mm512_loadu_si512(at - distance)) : x);
        raw += BLOCK;
    }
    p->raw = raw;
    p->packed = packed;
}

WITH_AVX512 static void unpack_avx512(progress *p, const uint8_t *from, size_t stored, uint8_t *to,
                                      size_t end) {
    if (p->distance > 0)
        unpack_vectors(p, from, stored, true, to, end);
    else
        unpack_vectors(p, from, stored, false, to, end);
}
#endif

typedef struct kernels {
    pack_fn pack;
    unpack_fn unpack;
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

static bool distance_is_known(size_t distance) {
    return distance == 0 || (distance >= BLOCK && distance <= CBI_DELTA_DISTANCE_MAX);
}

/* Where the first block begins whose bytes, and the one before them, all have a row above. */
static size_t rows_begin(size_t distance, size_t count) {
    return distance == 0 ? count : cbi_min(cbi_round_up(distance + 1, BLOCK), count);
}

/* From p->raw to `end` with p->distance. */
static bool pack_to(progress *p, const uint8_t *from, size_t end, uint8_t *to, size_t room) {
    if (p->raw < end) /* or there may be no row above to look at */
        choose().pack(p, from, end, to, room);
    while (p->raw < end) {
        if (!pack_block(p, from, cbi_min(end - p->raw, BLOCK), to, room))
            return false;
    }
    return true;
}

static bool unpack_to(progress *p, const uint8_t *from, size_t stored, uint8_t *to, size_t end) {
    if (p->raw < end)
        choose().unpack(p, from, stored, to, end);
    while (p->raw < end) {
        if (!unpack_block(p, from, stored, to, cbi_min(end - p->raw, BLOCK)))
            return false;
    }
    return true;
}

size_t cbi_delta_pack(const uint8_t *from, size_t count, size_t distance, uint8_t *to,
                      size_t room) {
    cb_assert(distance_is_known(distance));
    if (count == 0 || room < HEADER)
        return 0;
    to[0] = (uint8_t)distance;
    to[1] = (uint8_t)(distance >> 8);
    progress p;
    p.raw = 0;
    p.packed = HEADER;
    p.distance = 0;
    bool fits = pack_to(&p, from, rows_begin(distance, count), to, room);
    p.distance = distance;
    return fits && pack_to(&p, from, count, to, room) ? p.packed : 0;
}

bool cbi_delta_unpack(const uint8_t *from, size_t stored, uint8_t *to, size_t count) {
    if (count == 0 || stored < HEADER)
        return count == 0 && stored == 0;
    size_t distance = from[0] | (size_t)from[1] << 8;
    if (!distance_is_known(distance))
        return false;
    progress p;
    p.raw = 0;
    p.packed = HEADER;
    p.distance = 0;
    bool good = unpack_to(&p, from, stored, to, rows_begin(distance, count));
    p.distance = distance;
    return good && unpack_to(&p, from, stored, to, count) && p.packed == stored;
}

size_t cbi_delta_measure(const uint8_t *from, size_t count, size_t distance) {
    uint8_t block[CBI_DELTA_WORST_BLOCK_BYTES];
    progress p;
    p.raw = 0;
    p.distance = 0;
    size_t bytes = count > 0 ? HEADER : 0, begin = rows_begin(distance, count);
    while (p.raw < count) {
        p.distance = p.raw < begin ? 0 : distance;
        bytes += make_block(&p, from, cbi_min(count - p.raw, BLOCK), block);
    }
    return bytes;
}

/* How many of `count` bytes differ from those `distance` before them. */
static size_t differing(const uint8_t *at, size_t distance, size_t count) {
    const uint8_t *above = at - distance;
    size_t sum = 0;
    for (size_t i = 0; i < count;) {
        uint8_t same = 0; /* bytes, so that vectors of them are added */
        size_t end = cbi_min(count, i + UINT8_MAX);
        size_t piece = end - i;
        for (; i < end; i++)
            same = (uint8_t)(same + (at[i] == above[i]));
        sum += piece - same;
    }
    return sum;
}

size_t cbi_delta_distance(const uint8_t *from, size_t count) {
    enum { LOOK = 1024, FARTHEST = CBI_DELTA_DISTANCE_MAX };
    uint8_t left[FARTHEST + LOOK];
    if (count <= sizeof left)
        return 0;
    /* From the middle: there the rows are, whatever a segment begins with. */
    from += (count - sizeof left) / 2;
    for (size_t i = 0; i < sizeof left; i++)
        left[i] = result_of(from, i, 0);
    const uint8_t *at = left + FARTHEST;
    size_t best = 0, least = 0;
    for (size_t i = 0; i < LOOK; i++)
        least += at[i] != 0;
    for (size_t distance = BLOCK; distance <= FARTHEST; distance++) {
        size_t n = differing(at, distance, LOOK);
        if (n + n / 16 < least) { /* two rows up is not better because of a few bytes */
            least = n;
            best = distance;
        }
    }
    return best;
}
