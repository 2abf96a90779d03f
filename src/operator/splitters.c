/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/splitters.h"

#include "base/alloc.h"

/*
 * Finding the range of a key looks at the 8 bytes of it that follow what all splitters share. URLs
 * share long beginnings, random keys share nothing: both cost the same. A table over the top bits
 * of the distance from the first splitter says between which splitters these 8 bytes can lie;
 * mostly that is one place and the search is over (5 ns a key where a binary search took 45). Only
 * a key that equals a splitter in its 8 bytes is compared in full.
 *
 * Borders: with splitters s0 < s1 < ... range j holds the keys of (s(j-1), s(j)]. A splitter that
 * was drawn more than once is heavy: it gets a range of its own right after range j, which then
 * holds (s(j-1), s(j)).
 */

typedef struct splitter {
    const uint8_t *key;
    uint32_t bytes;
    uint32_t range; /* of keys up to this splitter; heavy: keys equal to it go to range + 1 */
    bool heavy;
} splitter;

struct cbi_splitters {
    uint64_t *prefixes;
    splitter *all;
    uint8_t *bytes;
    uint32_t *table; /* [i]: splitters less than first + (i << shift); one entry more than there are
                        steps */
    uint64_t first, last; /* prefixes of the first and the last splitter */
    unsigned shift;
    uint32_t count, ranges;
    uint32_t shared; /* bytes that all splitters begin with */
    bool inverted;
};

void cbi_sample_init(cbi_sample *s, uint8_t *memory, size_t bytes) {
    *s = (cbi_sample){.entries = (cbi_entry *)(void *)memory,
                      .memory = memory,
                      .memory_bytes = bytes & ~(size_t)15};
    s->keys = memory + s->memory_bytes;
}

bool cbi_sample_add(cbi_sample *s, const uint8_t *key, size_t bytes, bool inverted) {
    bytes = cbi_min(bytes, CBI_SAMPLE_KEY_MAX);
    size_t need = 1 + cbi_varint_bytes((uint32_t)bytes) + bytes;
    size_t used =
        (s->count + 1) * sizeof(cbi_entry) + (size_t)(s->memory + s->memory_bytes - s->keys);
    if (used + need > s->memory_bytes)
        return false;
    s->keys -= need;
    cbi_layout layout = {.shape = CBI_KEY_ENCODED};
    cbi_stored_put(&layout, s->keys, key, (uint32_t)bytes, key, 0, 0);
    uint64_t prefix = cbi_prefix(key, bytes, 0);
    s->entries[s->count++] = (cbi_entry){.prefix = inverted ? ~prefix : prefix,
                                         .ref = cbi_ref(0, (uint64_t)(s->keys - s->memory))};
    s->key_bytes += bytes;
    return true;
}

static cbi_stored sample_key(const cbi_sample *s, size_t i) {
    static const cbi_layout layout = {.shape = CBI_KEY_ENCODED};
    cbi_stored stored;
    cbi_stored_get(&layout, cbi_ref_row(s->memory, s->entries[i].ref), &stored);
    return stored;
}

static size_t shared_bytes(const splitter *all, uint32_t count) {
    if (count == 0)
        return 0;
    size_t shared = all[0].bytes;
    for (uint32_t i = 1; i < count; i++) {
        size_t n = cbi_min(shared, all[i].bytes), k = 0;
        while (k < n && all[i].key[k] == all[0].key[k])
            k++;
        shared = k;
    }
    return shared;
}

static void fill_table(cbi_splitters *s, uint32_t steps) {
    s->first = s->count > 0 ? s->prefixes[0] : 0;
    s->last = s->count > 0 ? s->prefixes[s->count - 1] : 0;
    uint64_t span = s->last - s->first;
    s->shift = 0;
    while (span >> s->shift >= steps)
        s->shift++;
    uint32_t at = 0;
    for (uint32_t i = 0; i <= steps + 1; i++) {
        uint64_t from = (uint64_t)i << s->shift;
        bool beyond = from >> s->shift != i; /* more than 64 bits: past every splitter */
        while (at < s->count && (beyond || s->prefixes[at] - s->first < from))
            at++;
        s->table[i] = at;
    }
}

cb_status cbi_splitters_create(cbi_sample *sample, uint32_t ranges, bool inverted,
                               cbi_splitters **out, cb_error *err) {
    cbi_layout layout = {.shape = CBI_KEY_ENCODED, .inverted = inverted};
    cbi_order(sample->entries, sample->count, &layout, sample->memory);
    uint32_t picks =
        sample->count == 0 || ranges == 0 ? 0 : (uint32_t)cbi_min(ranges - 1, sample->count);
    size_t bytes = 0;
    for (uint32_t i = 0; i < picks; i++)
        bytes +=
            sample_key(sample, (size_t)(((uint64_t)i + 1) * sample->count / ((uint64_t)picks + 1)))
                .key_bytes;

    cbi_splitters *s = cbi_calloc(1, sizeof *s);
    uint32_t steps = 64;
    while (steps < 8 * picks)
        steps *= 2;
    if (s != NULL) {
        s->prefixes = cbi_alloc((picks + 1) * sizeof *s->prefixes);
        s->table = cbi_alloc((steps + 2) * sizeof *s->table);
        s->all = cbi_alloc((picks + 1) * sizeof *s->all);
        s->bytes = cbi_alloc(bytes + 1);
    }
    if (s == NULL || s->prefixes == NULL || s->table == NULL || s->all == NULL ||
        s->bytes == NULL) {
        cbi_splitters_destroy(s);
        return cbi_fail(err, CB_ENOMEM, "no memory for %u key ranges", ranges);
    }
    uint8_t *at = s->bytes;
    for (uint32_t i = 0; i < picks; i++) {
        cbi_stored key =
            sample_key(sample, (size_t)(((uint64_t)i + 1) * sample->count / ((uint64_t)picks + 1)));
        splitter *last = s->count > 0 ? &s->all[s->count - 1] : NULL;
        if (last != NULL && last->bytes == key.key_bytes &&
            memcmp(last->key, key.key, key.key_bytes) == 0) {
            if (key.key_bytes < CBI_SAMPLE_KEY_MAX) /* a cut key may stand for many */
                last->heavy = true;
            continue;
        }
        memcpy(at, key.key, key.key_bytes);
        s->all[s->count++] = (splitter){.key = at, .bytes = key.key_bytes};
        at += key.key_bytes;
    }
    s->inverted = inverted;
    s->shared = (uint32_t)shared_bytes(s->all, s->count);
    uint32_t range = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        uint64_t prefix = cbi_prefix(s->all[i].key, s->all[i].bytes, s->shared);
        s->prefixes[i] = inverted ? ~prefix : prefix;
        s->all[i].range = range;
        range += s->all[i].heavy ? 2 : 1;
    }
    fill_table(s, steps);
    s->ranges = range + 1;
    *out = s;
    return CB_OK;
}

void cbi_splitters_destroy(cbi_splitters *s) {
    if (s == NULL)
        return;
    cbi_free(s->table);
    cbi_free(s->bytes);
    cbi_free(s->all);
    cbi_free(s->prefixes);
    cbi_free(s);
}

uint32_t cbi_splitters_ranges(const cbi_splitters *s) {
    return s->ranges;
}

bool cbi_splitters_single(const cbi_splitters *s, uint32_t range) {
    for (uint32_t i = 0; i < s->count; i++)
        if (s->all[i].heavy && s->all[i].range + 1 == range)
            return true;
    return false;
}

static inline int compare(const cbi_splitters *s, const splitter *a, const uint8_t *key,
                          size_t bytes) {
    int c = cbi_compare_bytes(a->key, a->bytes, key, bytes, 0);
    return s->inverted ? -c : c;
}

uint32_t cbi_splitters_find(const cbi_splitters *s, const uint8_t *key, size_t bytes) {
    uint32_t at = 0; /* splitters that are less than the key */
    if (CBI_UNLIKELY(s->count == 0))
        return 0;
    if (s->shared > 0) {
        size_t n = cbi_min(bytes, s->shared);
        int c = memcmp(key, s->all[0].key, n);
        if (c == 0 && bytes < s->shared)
            c = -1;
        if (c != 0)
            return (c < 0) == !s->inverted ? 0 : s->ranges - 1;
    }
    uint64_t prefix = cbi_prefix(key, bytes, s->shared);
    if (s->inverted)
        prefix = ~prefix;
    if (prefix > s->last)
        return s->ranges - 1;
    if (prefix > s->first) {
        uint64_t step = (prefix - s->first) >> s->shift;
        at = s->table[step];
        for (uint32_t end = s->table[step + 1]; at < end;) {
            uint32_t middle = at + (end - at) / 2;
            if (s->prefixes[middle] < prefix)
                at = middle + 1;
            else
                end = middle;
        }
    }
    while (at < s->count && s->prefixes[at] == prefix) {
        int c = compare(s, &s->all[at], key, bytes);
        if (c == 0)
            return s->all[at].range + (s->all[at].heavy ? 1 : 0);
        if (c > 0)
            break;
        at++;
    }
    if (CBI_UNLIKELY(at >= s->count))
        return s->ranges - 1;
    return s->all[at].range;
}
