/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/job.h"

/*
 * A range of results whose rows lie in memory, but are more than there is room to order: they are
 * ordered slice by slice, each slice being the rows between two keys. Counting rows in buckets of
 * equal width tells where to cut; a bucket that is too full is looked at more closely. A slice
 * costs one more look at all rows, which is much less than writing them to disk once more.
 */

typedef cbi_wide_key wide;

static wide wide_of(const cbi_stored *row) {
    uint8_t key[CBI_SHORT_KEY_MAX] = {0};
    cb_assert(row->key_bytes <= sizeof key);
    cbi_copy_short(key, row->key, row->key_bytes);
    return (wide)cbi_load_be64(key) << 64 | cbi_load_be64(key + 8);
}

void cbi_slices_init(cbi_slices *s, cbi_segment *list, uint64_t rows) {
    *s = (cbi_slices){.list = list, .left = rows};
    cbi_record_reader reader;
    cbi_stored row;
    cbi_record_reader_init(&reader, list);
    for (bool any = false; cbi_record_next(&reader, &row) != NULL; any = true) {
        wide key = wide_of(&row);
        s->low = !any || key < s->low ? key : s->low;
        s->last = key > s->last ? key : s->last;
    }
    s->next = CBI_SLICE_BUCKETS;
}

/* Counts rows from `low` up to `high` in buckets. */
static void count_rows(cbi_slices *s, wide high) {
    s->start = s->low;
    s->high = high;
    s->shift = 0;
    while ((high - s->low) >> s->shift >= CBI_SLICE_BUCKETS)
        s->shift++;
    memset(s->counts, 0, sizeof s->counts);
    s->next = 0;
    cbi_record_reader reader;
    cbi_stored row;
    cbi_record_reader_init(&reader, s->list);
    while (cbi_record_next(&reader, &row) != NULL) {
        wide key = wide_of(&row);
        if (key >= s->low && key <= high)
            s->counts[(key - s->low) >> s->shift]++;
    }
}

static wide end_of_bucket(const cbi_slices *s, uint32_t bucket) {
    wide width = (wide)1 << s->shift, rest = s->high - s->start;
    wide end = (wide)bucket * width + (width - 1);
    return end < rest ? s->start + end : s->high;
}

/* The last key of a slice of at most `most` rows. */
static wide cut(cbi_slices *s, size_t most) {
    if (s->next == CBI_SLICE_BUCKETS)
        count_rows(s, s->last);
    while (s->counts[s->next] > most) {
        cb_assert(s->shift > 0); /* keys differ */
        count_rows(s, end_of_bucket(s, s->next));
    }
    size_t rows = 0;
    wide end = s->low;
    while (s->next < CBI_SLICE_BUCKETS && s->counts[s->next] <= most - rows) {
        rows += s->counts[s->next];
        end = end_of_bucket(s, s->next++);
        if (end == s->high) /* what follows, if anything does, has not been counted */
            s->next = CBI_SLICE_BUCKETS;
    }
    return end;
}

size_t cbi_slices_next(cbi_slices *s, cbi_entry *entries, size_t most, const uint8_t *base) {
    size_t count = 0;
    while (count == 0 && s->left > 0) {
        wide end = cut(s, most);
        cbi_record_reader reader;
        cbi_stored row;
        cbi_record_reader_init(&reader, s->list);
        for (const uint8_t *at; (at = cbi_record_next(&reader, &row)) != NULL;) {
            wide key = wide_of(&row);
            if (key >= s->low && key <= end)
                entries[count++] = (cbi_entry){.prefix = (uint64_t)(key >> 64),
                                               .ref = cbi_ref(0, (uint64_t)(at - base))};
        }
        cb_assert(count <= most);
        s->low = end + 1;
        s->left -= count;
    }
    return count;
}
