/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/order.h"

/*
 * Sorting {8-byte prefix, ref} pairs in cache.
 *
 * First by prefix: an in-place radix sort from the top (American flag), whose digit is taken from
 * the highest bits in which the prefixes of the group really differ. The rows of one range share
 * their leading bits, so a fixed first byte would put them all in one bucket. Where entries can be
 * moved to other memory one pass does it: so many buckets that two or three entries are in each,
 * and the last step is an insertion sort that hardly moves anything. A few hundred have that memory
 * on the stack; all of them have it if the caller has some to spare (measured, for 68,000 entries:
 * 20 ns an entry in place, 8 with room).
 *
 * Then every group of equal prefixes by what follows. A small group is compared; a large one has
 * the length that all its keys share measured first (one pass at memory speed), takes the 8 bytes
 * after that as its new prefixes and goes round again: a million keys that agree in 4 KiB cost one
 * pass and not 512. Keys that end inside a prefix look like keys with zeros there; groups with such
 * keys are compared in full, so the padding can never decide.
 *
 * At the end only equal keys are left together: they are ordered by input (the order they carry, or
 * ref) or by the rows' bytes, with the same machinery, the row taking the key's place.
 *
 * Recursion: radix at most 8 deep in digits; groups at most DEPTH_MAX, then comparison (a heap
 * sort, since hostile keys could make a quicksort quadratic). DEPTH_MAX only bites for keys that
 * differ ever later.
 */

enum {
    INSERTION_MAX = 24,
    COMPARE_MAX = 16,
    DEPTH_MAX = 48,
    RADIX_BITS = 8,
    BUCKETS = 1 << RADIX_BITS,
    SCATTER_ON_STACK = 512, /* 8 KiB */
    SCATTER_BITS_MAX = 15   /* counters that a cache of the second level holds beside entries */
};

typedef struct order_ctx {
    const cbi_layout *layout;
    const uint8_t *base;
    bool by_row; /* the tie level: rows' bytes take the keys' place */
    bool inverted;
} order_ctx;

static inline void swap_entries(cbi_entry *a, cbi_entry *b) {
    cbi_entry t = *a;
    *a = *b;
    *b = t;
}

/* From where they lie, which may be `e` itself. */
static inline void insertion_from(cbi_entry *e, const cbi_entry *from, size_t n) {
    for (size_t i = 0; i < n; i++) {
        cbi_entry x = from[i];
        size_t j = i;
        for (; j > 0 && e[j - 1].prefix > x.prefix; j--)
            e[j] = e[j - 1];
        e[j] = x;
    }
}

/* The bits in which prefixes differ; 0: they are in order already. */
static uint64_t differing_bits(const cbi_entry *e, size_t n) {
    uint64_t differ = 0, first = e[0].prefix, last = first;
    bool sorted = true;
    for (size_t i = 1; i < n; i++) {
        differ |= e[i].prefix ^ first;
        sorted &= last <= e[i].prefix;
        last = e[i].prefix;
    }
    return sorted ? 0 : differ;
}

/* How far the highest of the bits that differ must go to be the highest of so many. */
static unsigned shift_of(uint64_t differ, unsigned bits) {
    unsigned top = 64 - (unsigned)__builtin_clzll(differ);
    return top > bits ? top - bits : 0;
}

static void order_in_place(cbi_entry *e, size_t n, bool scatters);

/*
 * Entries go to `other` by their highest differing bits, of which there are 2^bits values with a
 * counter each, and come back in order. When a bucket is too large for that all are ordered in
 * place; `again`: the stack's memory is free for them.
 */
static void scatter(cbi_entry *e, size_t n, uint64_t differ, cbi_entry *other, uint32_t *counters,
                    unsigned bits, bool again) {
    unsigned shift = shift_of(differ, bits);
    size_t buckets = (size_t)1 << bits, mask = buckets - 1;
    memset(counters, 0, buckets * sizeof *counters);
    for (size_t i = 0; i < n; i++)
        counters[(e[i].prefix >> shift) & mask]++;
    uint32_t sum = 0, most = 0;
    for (size_t b = 0; b < buckets; b++) {
        uint32_t count = counters[b];
        most = count > most ? count : most;
        counters[b] = sum;
        sum += count;
    }
    for (size_t i = 0; i < n; i++)
        other[counters[(e[i].prefix >> shift) & mask]++] = e[i];
    if (most > INSERTION_MAX) {
        memcpy(e, other, n * sizeof *e);
        for (size_t b = 0, from = 0; shift > 0 && b < buckets; from = counters[b++])
            if (counters[b] - from > 1)
                order_in_place(e + from, counters[b] - from, again);
        return;
    }
    insertion_from(e, other, n);
}

/* Not inlined: its arrays would be in every frame of the recursion. */
__attribute__((noinline)) static void scatter_on_stack(cbi_entry *e, size_t n, uint64_t differ) {
    cbi_entry other[SCATTER_ON_STACK];
    uint32_t counters[SCATTER_ON_STACK / 2];
    scatter(e, n, differ, other, counters, 62 - (unsigned)__builtin_clzll(n), false);
}

/* `scatters`: this may take more of the stack, which is done once in a recursion. */
static void order_in_place(cbi_entry *e, size_t n, bool scatters) {
    if (n <= INSERTION_MAX) {
        insertion_from(e, e, n);
        return;
    }
    uint64_t differ = differing_bits(e, n);
    if (differ == 0)
        return;
    if (scatters && n <= SCATTER_ON_STACK) {
        scatter_on_stack(e, n, differ);
        return;
    }
    unsigned shift = shift_of(differ, RADIX_BITS);
    uint32_t count[BUCKETS] = {0};
    for (size_t i = 0; i < n; i++)
        count[(e[i].prefix >> shift) & (BUCKETS - 1)]++;
    uint32_t next[BUCKETS], end[BUCKETS], sum = 0;
    for (unsigned b = 0; b < BUCKETS; b++) {
        next[b] = sum;
        sum += count[b];
        end[b] = sum;
    }
    for (unsigned b = 0; b < BUCKETS; b++) {
        while (next[b] < end[b]) {
            cbi_entry x = e[next[b]];
            unsigned home = (unsigned)(x.prefix >> shift) & (BUCKETS - 1);
            while (home != b) {
                cbi_entry *slot = &e[next[home]++];
                cbi_entry y = *slot;
                *slot = x;
                x = y;
                home = (unsigned)(x.prefix >> shift) & (BUCKETS - 1);
            }
            e[next[b]++] = x;
        }
    }
    if (shift == 0)
        return;
    for (unsigned b = 0; b < BUCKETS; b++)
        if (count[b] > 1)
            order_in_place(e + end[b] - count[b], count[b], scatters);
}

void cbi_order_by_prefix(cbi_entry *e, size_t n) {
    order_in_place(e, n, true);
}

/* The same with memory for `room` entries from e on: all of them are scattered at once, if there is
 * enough for that. */
static void order_within(cbi_entry *e, size_t n, size_t room) {
    unsigned bits = n < 4 ? 1 : 62 - (unsigned)__builtin_clzll(n);
    bits = bits < SCATTER_BITS_MAX ? bits : SCATTER_BITS_MAX;
    size_t counters = ((size_t)1 << bits) * sizeof(uint32_t) / sizeof *e;
    if (n <= SCATTER_ON_STACK || n > UINT32_MAX || room < n || room - n < n + counters) {
        order_in_place(e, n, true);
        return;
    }
    uint64_t differ = differing_bits(e, n);
    if (differ != 0)
        scatter(e, n, differ, e + n, (uint32_t *)(void *)(e + n + n), bits, true);
}

static inline cbi_stored entry_open(const order_ctx *o, const cbi_entry *e) {
    cbi_stored s;
    cbi_stored_get(o->layout, cbi_ref_row(o->base, e->ref), &s);
    if (o->by_row) {
        s.key = s.row;
        s.key_bytes = s.row_bytes;
    }
    return s;
}

/* Everything decided: key from `same` bytes on, the tie rule, the ref. Never 0 for different
 * entries. */
static bool entry_less(const order_ctx *o, const cbi_entry *a, const cbi_entry *b, size_t same) {
    cbi_stored x = entry_open(o, a), y = entry_open(o, b);
    int c = cbi_compare_bytes(x.key, x.key_bytes, y.key, y.key_bytes, same);
    if (c != 0)
        return o->inverted ? c > 0 : c < 0;
    if (!o->by_row && o->layout->tie == CBI_TIE_ROW) {
        c = cbi_compare_bytes(x.row, x.row_bytes, y.row, y.row_bytes, 0);
        if (c != 0)
            return o->layout->tie_inverted ? c > 0 : c < 0;
    }
    return x.order != y.order ? x.order < y.order : a->ref < b->ref;
}

static void insertion_by_key(const order_ctx *o, cbi_entry *e, size_t n, size_t same) {
    for (size_t i = 1; i < n; i++) {
        cbi_entry x = e[i];
        size_t j = i;
        for (; j > 0 && entry_less(o, &x, &e[j - 1], same); j--)
            e[j] = e[j - 1];
        e[j] = x;
    }
}

static void sift_down(const order_ctx *o, cbi_entry *e, size_t root, size_t n, size_t same) {
    for (;;) {
        size_t child = 2 * root + 1;
        if (child >= n)
            return;
        if (child + 1 < n && entry_less(o, &e[child], &e[child + 1], same))
            child++;
        if (!entry_less(o, &e[root], &e[child], same))
            return;
        swap_entries(&e[root], &e[child]);
        root = child;
    }
}

static void sort_by_key(const order_ctx *o, cbi_entry *e, size_t n, size_t same) {
    if (n <= COMPARE_MAX) {
        insertion_by_key(o, e, n, same);
        return;
    }
    for (size_t i = n / 2; i-- > 0;)
        sift_down(o, e, i, n, same);
    for (size_t i = n; i-- > 1;) {
        swap_entries(&e[0], &e[i]);
        sift_down(o, e, 0, i, same);
    }
}

static void order_groups(const order_ctx *o, cbi_entry *e, size_t n, size_t depth, unsigned level);

static void order_by_ref(cbi_entry *e, size_t n) {
    for (size_t i = 0; i < n; i++)
        e[i].prefix = e[i].ref;
    cbi_order_by_prefix(e, n);
}

/* All keys here are equal. */
static void order_equal(const order_ctx *o, cbi_entry *e, size_t n) {
    if (!o->by_row && o->layout->tie == CBI_TIE_ROW) {
        order_ctx rows = *o;
        rows.by_row = true;
        rows.inverted = o->layout->tie_inverted;
        for (size_t i = 0; i < n; i++) {
            cbi_stored s = entry_open(&rows, &e[i]);
            uint64_t prefix = cbi_prefix(s.key, s.key_bytes, 0);
            e[i].prefix = rows.inverted ? ~prefix : prefix;
        }
        cbi_order_by_prefix(e, n);
        order_groups(&rows, e, n, 8, 0);
        return;
    }
    if (!o->layout->ordered) {
        order_by_ref(e, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        e[i].prefix = entry_open(o, &e[i]).order;
    cbi_order_by_prefix(e, n);
    for (size_t i = 0, j; i < n; i = j) {
        for (j = i + 1; j < n && e[j].prefix == e[i].prefix; j++) {
        }
        if (j - i > 1)
            order_by_ref(e + i, j - i);
    }
}

static size_t common_bytes(const uint8_t *a, const uint8_t *b, size_t from, size_t to) {
    size_t i = from;
    for (; i + 8 <= to; i += 8) {
        uint64_t x = cbi_load_u64(a + i) ^ cbi_load_u64(b + i);
        if (x != 0)
            return i + (size_t)__builtin_ctzll(x) / 8;
    }
    while (i < to && a[i] == b[i])
        i++;
    return i;
}

/* A group whose keys agree in their first `depth` bytes (as padded). */
static void order_group(const order_ctx *o, cbi_entry *e, size_t n, size_t depth, unsigned level) {
    cbi_stored first = entry_open(o, &e[0]);
    if (n <= COMPARE_MAX || level >= DEPTH_MAX) {
        sort_by_key(o, e, n, 0);
        return;
    }
    bool same_length = true;
    size_t shortest = first.key_bytes;
    for (size_t i = 1; i < n; i++) {
        cbi_stored s = entry_open(o, &e[i]);
        same_length &= s.key_bytes == first.key_bytes;
        shortest = cbi_min(shortest, s.key_bytes);
    }
    if (shortest < depth && !same_length) { /* padding is in play */
        sort_by_key(o, e, n, 0);
        return;
    }
    size_t shared = shortest;
    for (size_t i = 1; i < n && shared > depth; i++) {
        cbi_stored s = entry_open(o, &e[i]);
        shared = common_bytes(first.key, s.key, cbi_min(depth, shared), shared);
    }
    if (shared >= shortest && same_length) {
        order_equal(o, e, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        cbi_stored s = entry_open(o, &e[i]);
        uint64_t prefix = cbi_prefix(s.key, s.key_bytes, shared);
        e[i].prefix = o->inverted ? ~prefix : prefix;
    }
    cbi_order_by_prefix(e, n);
    order_groups(o, e, n, shared + 8, level + 1);
}

/* Entries are in order of their prefixes; each group of equal ones is looked into. */
static void order_groups(const order_ctx *o, cbi_entry *e, size_t n, size_t depth, unsigned level) {
    for (size_t i = 0; i < n;) {
        size_t j = i + 1;
        while (j < n && e[j].prefix == e[i].prefix)
            j++;
        if (j - i > 1)
            order_group(o, e + i, j - i, depth, level);
        i = j;
    }
}

void cbi_order_within(cbi_entry *entries, size_t count, size_t room, const cbi_layout *layout,
                      const uint8_t *base) {
    if (count < 2)
        return;
    cb_assert(count <= UINT32_MAX);
    order_ctx o = {.layout = layout, .base = base, .by_row = false, .inverted = layout->inverted};
    order_within(entries, count, room);
    order_groups(&o, entries, count, 8, 0);
}

void cbi_order(cbi_entry *entries, size_t count, const cbi_layout *layout, const uint8_t *base) {
    cbi_order_within(entries, count, count, layout, base);
}
