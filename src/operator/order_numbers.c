/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/order.h"

/*
 * Where a row's place and its key fit into one word together there are half as many bytes to move
 * as with entries (order.c), and the order of the words is all there is to find: they go to other
 * memory by the highest bits in which they differ, two or three to a bucket, and come back through
 * an insertion sort that hardly moves anything. A bucket that is too large for that goes round
 * again by its next 8 bits, so no input is worse than eight rounds.
 */

enum { INSERTION_MAX = 24, BITS_MIN = 8, BITS_MAX = 15, BUCKETS = 1 << BITS_MIN };

/* From where they lie, which may be `v` itself. */
static inline void insertion_from(uint64_t *v, const uint64_t *from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t x = from[i];
        size_t j = i;
        for (; j > 0 && v[j - 1] > x; j--)
            v[j] = v[j - 1];
        v[j] = x;
    }
}

/* The bits in which they differ; 0: they are in order already. */
static uint64_t differing_bits(const uint64_t *v, size_t n) {
    uint64_t differ = 0, descents = 0;
    for (size_t i = 1; i < n; i++) {
        differ |= v[i] ^ v[0];
        descents += v[i] < v[i - 1];
    }
    return descents == 0 ? 0 : differ;
}

static void order_bucket(uint64_t *v, size_t n, uint64_t *other);

/* By the 2^bits values of the highest bits that differ, each with a counter. */
static void scatter(uint64_t *v, size_t n, uint64_t *other, uint32_t *counters, unsigned bits) {
    uint64_t differ = differing_bits(v, n);
    if (differ == 0)
        return;
    unsigned top = 64 - (unsigned)__builtin_clzll(differ), shift = top > bits ? top - bits : 0;
    size_t buckets = (size_t)1 << bits, mask = buckets - 1;
    memset(counters, 0, buckets * sizeof *counters);
    for (size_t i = 0; i < n; i++)
        counters[(v[i] >> shift) & mask]++;
    uint32_t sum = 0, most = 0;
    for (size_t b = 0; b < buckets; b++) {
        uint32_t count = counters[b];
        most = count > most ? count : most;
        counters[b] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        other[counters[(v[i] >> shift) & mask]++] = v[i];
    if (most <= INSERTION_MAX) {
        insertion_from(v, other, n);
        return;
    }
    memcpy(v, other, n * sizeof *v);
    for (size_t b = 0, from = 0; shift > 0 && b < buckets; from = counters[b++])
        order_bucket(v + from, counters[b] - from, other);
}

static void order_bucket(uint64_t *v, size_t n, uint64_t *other) {
    uint32_t counters[BUCKETS];
    if (n <= INSERTION_MAX)
        insertion_from(v, v, n);
    else
        scatter(v, n, other, counters, BITS_MIN);
}

void cbi_order_numbers(uint64_t *v, size_t n, size_t room) {
    cb_assert(n <= UINT32_MAX && room >= cbi_order_numbers_room(n));
    if (n <= INSERTION_MAX) {
        insertion_from(v, v, n);
        return;
    }
    size_t spare = (room - 2 * n) * sizeof *v / sizeof(uint32_t);
    unsigned bits = BITS_MIN;
    while (bits < BITS_MAX && (size_t)4 << bits < n && (size_t)2 << bits <= spare)
        bits++;
    scatter(v, n, v + n, (uint32_t *)(void *)(v + n + n), bits);
}
