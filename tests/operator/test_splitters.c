/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: whatever was sampled, every key has one range, ranges follow each other in key order, and a
 * range that is said to hold one key holds one. Method: samples of many kinds, then keys from the
 * same and from other sources, in order.
 */
#include "operator/splitters.h"
#include "operator_kit.h"

enum { MEMORY = 1 << 20, KEY_MAX = 400 };

typedef struct key {
    uint8_t bytes[KEY_MAX];
    size_t count;
} key;

static int ascending(const void *a, const void *b) {
    const key *x = a, *y = b;
    return cbi_compare_bytes(x->bytes, x->count, y->bytes, y->count, 0);
}

static cbi_splitters *make(const key *keys, size_t count, uint32_t ranges, bool inverted) {
    uint8_t *memory = aligned_alloc(64, MEMORY);
    assert_non_null(memory);
    cbi_sample sample;
    cbi_sample_init(&sample, memory, MEMORY);
    for (size_t i = 0; i < count; i++)
        assert_true(cbi_sample_add(&sample, keys[i].bytes, keys[i].count, inverted));
    cbi_splitters *s = NULL;
    assert_ok(cbi_splitters_create(&sample, ranges, inverted, &s, NULL));
    free(memory); /* nothing of the sample is needed any more */
    assert_true(cbi_splitters_ranges(s) >= 1);
    assert_true(cbi_splitters_ranges(s) <= cbi_max(ranges, 1) * 2);
    return s;
}

/* Ranges of keys in order never go back; equal keys share one; single ranges hold one key. */
static void check(const cbi_splitters *s, key *keys, size_t count, bool inverted) {
    qsort(keys, count, sizeof *keys, ascending);
    uint32_t before = 0;
    for (size_t k = 0; k < count; k++) {
        size_t i = inverted ? count - 1 - k : k;
        uint32_t range = cbi_splitters_find(s, keys[i].bytes, keys[i].count);
        assert_true(range < cbi_splitters_ranges(s));
        if (k > 0) {
            size_t last = inverted ? i + 1 : i - 1;
            bool same = ascending(&keys[i], &keys[last]) == 0;
            assert_true(same ? range == before : range >= before);
            if (!same && range == before)
                assert_false(cbi_splitters_single(s, range));
        }
        before = range;
    }
}

typedef void (*make_key)(kit_random *r, key *k);

static void random_key(kit_random *r, key *k) {
    k->count = kit_below(r, 24);
    for (size_t i = 0; i < k->count; i++)
        k->bytes[i] = (uint8_t)kit_next(r);
}
static void numbers(kit_random *r, key *k) {
    k->count = (size_t)snprintf((char *)k->bytes, KEY_MAX, "http://www.example.org/%06zu",
                                kit_below(r, 3000));
}
static void few(kit_random *r, key *k) {
    static const char *const words[] = {"", "a", "b", "bb", "c"};
    const char *word = words[kit_below(r, 5)];
    k->count = strlen(word);
    memcpy(k->bytes, word, k->count);
}
/* First and last splitter nearly 2^64 apart: the table's steps reach beyond 64 bits. */
static void both_ends(kit_random *r, key *k) {
    k->count = 8 + kit_below(r, 2);
    memset(k->bytes, kit_below(r, 2) ? 0xff : 0, k->count);
    if (kit_below(r, 2))
        k->bytes[kit_below(r, 9)] ^= (uint8_t)(1u << kit_below(r, 8));
}
static void long_keys(kit_random *r, key *k) { /* cut in the sample */
    memset(k->bytes, 'q', KEY_MAX);
    k->count = 200 + kit_below(r, 200);
    k->bytes[kit_below(r, 300)] = (uint8_t)kit_next(r);
}
static void short_and_zero(kit_random *r, key *k) {
    k->count = kit_below(r, 12);
    memset(k->bytes, 0, k->count);
}
static void one(kit_random *r, key *k) {
    (void)r;
    k->count = 5;
    memcpy(k->bytes, "equal", 5);
}

static const make_key kinds[] = {random_key, numbers,        few, both_ends,
                                 long_keys,  short_and_zero, one};
enum { KINDS = sizeof kinds / sizeof *kinds, SAMPLE = 1500, ASKED = 6000 };

static void each_kind(bool inverted) {
    key *keys = malloc(ASKED * sizeof *keys);
    assert_non_null(keys);
    static const uint32_t ranges[] = {1, 2, 3, 7, 64, 500, 4096};
    for (size_t kind = 0; kind < KINDS; kind++)
        for (size_t n = 0; n < sizeof ranges / sizeof *ranges; n++) {
            kit_random r = {kind * 100 + n};
            for (size_t i = 0; i < SAMPLE; i++)
                kinds[kind](&r, &keys[i]);
            cbi_splitters *s = make(keys, SAMPLE, ranges[n], inverted);
            for (size_t i = SAMPLE; i < ASKED; i++) /* the sample itself, its like, and strangers */
                kinds[i % 3 == 0 ? i / 3 % KINDS : kind](&r, &keys[i]);
            check(s, keys, ASKED, inverted);
            cbi_splitters_destroy(s);
        }
    free(keys);
}

static void test_ranges_follow_each_other_in_key_order(void **state) {
    (void)state;
    each_kind(false);
}
static void test_ranges_follow_each_other_in_descending_order(void **state) {
    (void)state;
    each_kind(true);
}

static void test_heavy_keys_get_ranges_of_their_own(void **state) {
    (void)state;
    enum { COUNT = 900 };
    for (unsigned inverted = 0; inverted < 2; inverted++) {
        key *keys = calloc(COUNT, sizeof *keys);
        assert_non_null(keys);
        kit_random r = {3};
        for (size_t i = 0; i < COUNT; i++) /* two of three are one of two words */
            (i % 3 == 0 ? numbers : i % 3 == 1 ? one : few)(&r, &keys[i]);
        cbi_splitters *s = make(keys, COUNT, 40, inverted != 0);
        uint32_t range = cbi_splitters_find(s, (const uint8_t *)"equal", 5);
        assert_true(cbi_splitters_single(s, range));
        assert_int_not_equal(cbi_splitters_find(s, (const uint8_t *)"equam", 5), range);
        assert_int_not_equal(cbi_splitters_find(s, (const uint8_t *)"equa", 4), range);
        assert_int_not_equal(cbi_splitters_find(s, (const uint8_t *)"equal\0", 6), range);
        cbi_splitters_destroy(s);
        free(keys);
    }
}

static void test_cut_keys_are_borders_and_never_single(void **state) {
    (void)state;
    key keys[200];
    for (size_t i = 0; i < 200; i++) { /* the same in all that a sample keeps */
        memset(keys[i].bytes, 'l', KEY_MAX);
        keys[i].bytes[390] = (uint8_t)i;
        keys[i].count = KEY_MAX;
    }
    cbi_splitters *s = make(keys, 200, 16, false);
    for (uint32_t i = 0; i < cbi_splitters_ranges(s); i++)
        assert_false(cbi_splitters_single(s, i));
    check(s, keys, 200, false);
    cbi_splitters_destroy(s);
}

static void test_without_a_sample_there_is_one_range(void **state) {
    (void)state;
    for (uint32_t ranges = 0; ranges < 3; ranges++) {
        cbi_splitters *s = make(NULL, 0, ranges, false);
        assert_int_equal(cbi_splitters_ranges(s), 1);
        assert_int_equal(cbi_splitters_find(s, (const uint8_t *)"x", 1), 0);
        assert_int_equal(cbi_splitters_find(s, (const uint8_t *)"", 0), 0);
        assert_false(cbi_splitters_single(s, 0));
        cbi_splitters_destroy(s);
    }
    cbi_splitters_destroy(NULL);
}

static void test_full_samples_say_so_and_stay_whole(void **state) {
    (void)state;
    uint8_t *memory = aligned_alloc(64, 4096);
    assert_non_null(memory);
    cbi_sample sample;
    cbi_sample_init(&sample, memory, 4096);
    kit_random r = {9};
    key k;
    size_t added = 0;
    do
        random_key(&r, &k);
    while (cbi_sample_add(&sample, k.bytes, k.count, false) && ++added < 10000);
    assert_in_range(added, 60, 4096 / 17);
    cbi_splitters *s = NULL;
    assert_ok(cbi_splitters_create(&sample, 10, false, &s, NULL));
    assert_in_range(cbi_splitters_ranges(s), 8, 20);
    cbi_splitters_destroy(s);
    free(memory);
}

static void test_ranges_of_a_fair_sample_are_of_like_size(void **state) {
    (void)state;
    enum { COUNT = 4000, RANGES = 20 };
    kit_random r = {4};
    key *keys = malloc(COUNT * sizeof *keys);
    assert_non_null(keys);
    for (size_t i = 0; i < COUNT; i++) {
        keys[i].count = 12;
        for (size_t b = 0; b < 12; b++)
            keys[i].bytes[b] = (uint8_t)kit_next(&r);
    }
    cbi_splitters *s = make(keys, COUNT, RANGES, false);
    assert_int_equal(cbi_splitters_ranges(s), RANGES);
    unsigned counts[RANGES] = {0};
    for (size_t i = 0; i < COUNT; i++)
        counts[cbi_splitters_find(s, keys[i].bytes, keys[i].count)]++;
    for (unsigned i = 0; i < RANGES; i++)
        assert_in_range(counts[i], COUNT / RANGES - 2, COUNT / RANGES + 2);
    cbi_splitters_destroy(s);
    free(keys);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_follow_each_other_in_key_order),
        cmocka_unit_test(test_ranges_follow_each_other_in_descending_order),
        cmocka_unit_test(test_heavy_keys_get_ranges_of_their_own),
        cmocka_unit_test(test_cut_keys_are_borders_and_never_single),
        cmocka_unit_test(test_without_a_sample_there_is_one_range),
        cmocka_unit_test(test_full_samples_say_so_and_stay_whole),
        cmocka_unit_test(test_ranges_of_a_fair_sample_are_of_like_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
