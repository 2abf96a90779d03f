/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/splitters.h"

#include "base/alloc.h"

/*
 * Finding the range of a key costs one branch-free binary search over the 8 bytes of each splitter that follow what all
 * splitters share; only a key that equals a splitter there is compared in full. Keys such as URLs share long
 * beginnings, random ones share nothing: both cost the same.
 *
 * Borders: with splitters s0 < s1 < ... range j holds the keys of (s(j-1), s(j)]. A splitter that was drawn more than once
 * is heavy: it gets a range of its own right after range j, which then holds (s(j-1), s(j)).
 */

typedef struct splitter {
    const uint8_t *key;
    uint32_t bytes;
    uint32_t range; /* of keys up to this splitter; heavy: keys equal to it go to range + 1 */
    bool heavy;
} splitter;

struct cbi_splitters {
    uint64_t *prefixes; /* count, padded to a power of two with the greatest value */
    splitter *all;
    uint8_t *bytes;
    uint32_t count, ranges;
    uint32_t steps;     /* of the binary search: the padded size */
    uint32_t shared;    /* bytes that all splitters begin with */
    bool inverted;
};

void cbi_sample_init(cbi_sample *s, uint8_t *memory, size_t bytes) {
    *s = (cbi_sample){.entries = (cbi_entry *)(void *)memory, .memory = memory, .memory_bytes = bytes & ~(size_t)15};
    s->keys = memory + s->memory_bytes;
}

bool cbi_sample_add(cbi_sample *s, const uint8_t *key, size_t bytes, bool inverted) {
    bytes = cbi_min(bytes, CBI_SAMPLE_KEY_MAX);
    size_t need = 1 + cbi_varint_bytes((uint32_t)bytes) + bytes;
    size_t used = (s->count + 1) * sizeof(cbi_entry) + (size_t)(s->memory + s->memory_bytes - s->keys);
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

cb_status cbi_splitters_create(cbi_sample *sample, uint32_t ranges, bool inverted, cbi_splitters **out,
                               cb_error *err) {
    cbi_layout layout = {.shape = CBI_KEY_ENCODED, .inverted = inverted};
    cbi_order(sample->entries, sample->count, &layout, sample->memory);
    uint32_t picks = sample->count == 0 || ranges == 0 ? 0 : (uint32_t)cbi_min(ranges - 1, sample->count);
    size_t bytes = 0;
    for (uint32_t i = 0; i < picks; i++)
        bytes += sample_key(sample, (size_t)(((uint64_t)i + 1) * sample->count / ((uint64_t)picks + 1))).key_bytes;

    cbi_splitters *s = cbi_calloc(1, sizeof *s);
    uint32_t padded = 1;
    while (padded < picks + 1)
        padded *= 2;
    if (s != NULL) {
        s->prefixes = cbi_alloc(padded * sizeof *s->prefixes);
        s->all = cbi_alloc((picks + 1) * sizeof *s->all);
        s->bytes = cbi_alloc(bytes + 1);
    }
    if (s == NULL || s->prefixes == NULL || s->all == NULL || s->bytes == NULL) {
        cbi_splitters_destroy(s);
        return cbi_fail(err, CB_ENOMEM, "no memory for %u key ranges", ranges);
    }
    uint8_t *at = s->bytes;
    for (uint32_t i = 0; i < picks; i++) {
        cbi_stored key = sample_key(sample, (size_t)(((uint64_t)i + 1) * sample->count / ((uint64_t)picks + 1)));
        splitter *last = s->count > 0 ? &s->all[s->count - 1] : NULL;
        if (last != NULL && last->bytes == key.key_bytes && memcmp(last->key, key.key, key.key_bytes) == 0) {
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
    s->steps = padded;
    uint32_t range = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        uint64_t prefix = cbi_prefix(s->all[i].key, s->all[i].bytes, s->shared);
        s->prefixes[i] = inverted ? ~prefix : prefix;
        s->all[i].range = range;
        range += s->all[i].heavy ? 2 : 1;
    }
    for (uint32_t i = s->count; i < padded; i++)
        s->prefixes[i] = UINT64_MAX;
    s->ranges = range + 1;
    *out = s;
    return CB_OK;
}

void cbi_splitters_destroy(cbi_splitters *s) {
    if (s == NULL)
        return;
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

static inline int compare(const cbi_splitters *s, const splitter *a, const uint8_t *key, size_t bytes) {
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
    const uint64_t *base = s->prefixes;
    for (uint32_t half = s->steps / 2; half > 0; half /= 2)
        base += base[half - 1] < prefix ? half : 0;
    at = (uint32_t)(base - s->prefixes);
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
