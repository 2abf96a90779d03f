/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: cbi_order puts entries exactly where a comparison sort of the whole definition would,
 * whatever the keys. Method: rows of many hostile kinds are stored, ordered by both, and compared
 * place by place.
 */
#include "operator/order.h"
#include "operator_kit.h"

typedef struct table {
    cbi_layout layout;
    kit_text bytes;
    uint64_t *offsets;
    size_t count, capacity;
} table;

static void add(table *t, const void *key, size_t key_bytes, const void *row, size_t row_bytes,
                uint64_t order) {
    if (t->count == t->capacity) {
        t->capacity = t->capacity * 2 + 64;
        t->offsets = realloc(t->offsets, t->capacity * sizeof *t->offsets);
        assert_non_null(t->offsets);
    }
    size_t bytes = cbi_stored_bytes(&t->layout, (uint32_t)key_bytes, (uint32_t)row_bytes);
    uint8_t *place = malloc(bytes);
    assert_non_null(place);
    cbi_stored_put(&t->layout, place, key, (uint32_t)key_bytes, row, (uint32_t)row_bytes, order);
    t->offsets[t->count++] = t->bytes.count;
    kit_add(&t->bytes, place, bytes);
    free(place);
}

static const table *sorted_now;

static int by_definition(const void *a, const void *b) {
    const cbi_layout *layout = &sorted_now->layout;
    uint64_t i = *(const uint64_t *)a, k = *(const uint64_t *)b;
    cbi_stored x, y;
    cbi_stored_get(layout, cbi_ref_row(sorted_now->bytes.bytes, i), &x);
    cbi_stored_get(layout, cbi_ref_row(sorted_now->bytes.bytes, k), &y);
    size_t common = cbi_min(x.key_bytes, y.key_bytes);
    int c = common > 0 ? memcmp(x.key, y.key, common) : 0;
    if (c == 0)
        c = x.key_bytes < y.key_bytes ? -1 : x.key_bytes > y.key_bytes;
    if (c != 0)
        return layout->inverted ? -c : c;
    if (layout->tie == CBI_TIE_ROW) {
        common = cbi_min(x.row_bytes, y.row_bytes);
        c = common > 0 ? memcmp(x.row, y.row, common) : 0;
        if (c == 0)
            c = x.row_bytes < y.row_bytes ? -1 : x.row_bytes > y.row_bytes;
        if (c != 0)
            return layout->tie_inverted ? -c : c;
    }
    if (x.order != y.order)
        return x.order < y.order ? -1 : 1;
    return i < k ? -1 : i > k;
}

/* Orders the table's rows, which come in the order of `from` (shuffled), by both ways; in place and
 * with room for twice as many and counters. */
static void check(table *t, kit_random *r) {
    size_t room = kit_below(r, 2) == 0 ? t->count : 2 * t->count + t->count / 8 + 2;
    cbi_entry *entries = malloc((room + 1) * sizeof *entries);
    uint64_t *want = malloc((t->count + 1) * sizeof *want);
    assert_non_null(entries);
    assert_non_null(want);
    for (size_t i = 0; i < t->count; i++)
        want[i] = cbi_ref(i % 5 == 0 ? 0 : i / 1000, t->offsets[i]);
    for (size_t i = t->count; i > 1; i--) { /* entries of one range come in any order of pieces */
        size_t k = kit_below(r, i);
        uint64_t swap = want[i - 1];
        want[i - 1] = want[k];
        want[k] = swap;
    }
    for (size_t i = 0; i < t->count; i++) {
        cbi_stored s;
        cbi_stored_get(&t->layout, cbi_ref_row(t->bytes.bytes, want[i]), &s);
        entries[i] = (cbi_entry){.prefix = cbi_entry_prefix(&t->layout, &s), .ref = want[i]};
    }
    sorted_now = t;
    qsort(want, t->count, sizeof *want, by_definition);
    cbi_order_within(entries, t->count, room, &t->layout, t->bytes.bytes);
    for (size_t i = 0; i < t->count; i++)
        if (entries[i].ref != want[i])
            fail_msg("place %zu of %zu differs", i, t->count);
    free(entries);
    free(want);
}

/* One kind of key after the other. */
typedef size_t (*make_key)(kit_random *r, size_t i, uint8_t *key);
enum { KEY_MAX = 5000 };

static size_t random_key(kit_random *r, size_t i, uint8_t *key) {
    (void)i;
    size_t n = kit_below(r, 40);
    for (size_t k = 0; k < n; k++)
        key[k] = (uint8_t)kit_next(r);
    return n;
}
static size_t long_beginning(kit_random *r, size_t i, uint8_t *key) {
    memset(key, 'p', 4096);
    (void)i;
    size_t n = kit_below(r, 12);
    for (size_t k = 0; k < n; k++)
        key[4096 + k] = (uint8_t)kit_below(r, 4);
    return 4096 + n;
}
static size_t beginning_of_another(kit_random *r, size_t i, uint8_t *key) {
    (void)i;
    size_t n = kit_below(r, 70);
    for (size_t k = 0; k < n; k++)
        key[k] = (uint8_t)("abcabcabd"[k % 9]);
    return n;
}
static size_t zeros(kit_random *r, size_t i, uint8_t *key) {
    (void)i;
    size_t n = kit_below(r, 40);
    memset(key, 0, n);
    if (n > 0 && kit_below(r, 3) == 0)
        key[kit_below(r, n)] = (uint8_t)kit_below(r, 2);
    return n;
}
static size_t equal(kit_random *r, size_t i, uint8_t *key) {
    (void)r, (void)i;
    memcpy(key, "the same for all", 16);
    return 16;
}
static size_t empty(kit_random *r, size_t i, uint8_t *key) {
    (void)r, (void)i, (void)key;
    return 0;
}
static size_t reversed(kit_random *r, size_t i, uint8_t *key) {
    (void)r;
    return (size_t)snprintf((char *)key, KEY_MAX, "%020zu", 1000000 - i);
}
/* Each pair agrees 8 bytes longer than the one before: more levels than DEPTH_MAX. */
static size_t ever_later(kit_random *r, size_t i, uint8_t *key) {
    (void)r;
    size_t same = (i / 4) * 9 % 4900;
    memset(key, 'z', same + 9);
    key[same] = (uint8_t)('a' + i % 3);
    return same + 1 + i % 8;
}
static size_t two_values(kit_random *r, size_t i, uint8_t *key) {
    (void)i;
    memset(key, 'v', 24);
    key[20] = (uint8_t)kit_below(r, 2);
    return 24;
}

static const struct {
    make_key make;
    size_t count;
} kinds[] = {{random_key, 20000}, {long_beginning, 1500}, {beginning_of_another, 6000},
             {zeros, 6000},       {equal, 5000},          {empty, 3000},
             {reversed, 5000},    {ever_later, 2500},     {two_values, 8000}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static void each_kind(cbi_layout layout) {
    uint8_t key[KEY_MAX + 64], row[KEY_MAX + 64];
    for (size_t kind = 0; kind < KINDS; kind++) {
        kit_random r = {kind + 77};
        table t = {.layout = layout};
        for (size_t i = 0; i < kinds[kind].count; i++) {
            size_t key_bytes = kinds[kind].make(&r, i, key);
            bool whole = layout.shape != CBI_KEY_ENCODED;
            size_t row_bytes = whole ? key_bytes : kinds[kit_below(&r, 2) * 3].make(&r, i, row);
            uint64_t order = kit_below(&r, 4) == 0 ? kit_below(&r, 10) : kit_next(&r);
            add(&t, key, key_bytes, whole ? key : row, row_bytes, order);
        }
        check(&t, &r);
        free(t.offsets);
        kit_free(&t.bytes);
    }
}

static void test_encoded_keys_of_every_kind(void **state) {
    (void)state;
    each_kind(kit_encoded);
}
static void test_whole_rows_of_every_kind(void **state) {
    (void)state;
    each_kind(kit_by_row);
    each_kind((cbi_layout){.shape = CBI_KEY_ROW, .inverted = true});
}
static void test_slices_of_every_kind(void **state) {
    (void)state;
    each_kind((cbi_layout){.shape = CBI_KEY_SLICE, .slice_offset = 3, .slice_bytes = 14});
    each_kind((cbi_layout){
        .shape = CBI_KEY_SLICE, .slice_offset = 3, .slice_bytes = 14, .inverted = true});
}
static void test_rows_that_carry_their_order(void **state) {
    (void)state;
    each_kind(kit_ordered);
    each_kind(
        (cbi_layout){.shape = CBI_KEY_SLICE, .slice_bytes = 4, .ordered = true, .inverted = true});
}
static void test_ties_decided_by_rows(void **state) {
    (void)state;
    for (unsigned bits = 0; bits < 4; bits++)
        each_kind((cbi_layout){.shape = CBI_KEY_ENCODED,
                               .tie = CBI_TIE_ROW,
                               .tie_inverted = (bits & 1) != 0,
                               .ordered = (bits & 2) != 0});
    each_kind((cbi_layout){
        .shape = CBI_KEY_SLICE, .slice_bytes = 2, .inverted = true, .tie = CBI_TIE_ROW});
}

static void test_none_and_one_are_in_order(void **state) {
    (void)state;
    cbi_entry entry = {.prefix = 5, .ref = 7};
    cbi_order(&entry, 0, &kit_encoded, NULL);
    cbi_order(&entry, 1, &kit_encoded, NULL);
    assert_int_equal(entry.prefix, 5);
    assert_int_equal(entry.ref, 7);
}

static int by_prefix(const void *a, const void *b) {
    uint64_t x = ((const cbi_entry *)a)->prefix, y = ((const cbi_entry *)b)->prefix;
    return x < y ? -1 : x > y;
}

static void test_numbers_of_every_width(void **state) {
    (void)state;
    enum { COUNT = 30000 };
    kit_random r = {5};
    cbi_entry *a = malloc(COUNT * sizeof *a), *b = malloc(COUNT * sizeof *b);
    assert_non_null(a);
    assert_non_null(b);
    for (unsigned bits = 0; bits <= 64; bits++) {
        size_t count = 1 + kit_below(&r, COUNT - 1);
        uint64_t mask = bits == 0 ? 0 : UINT64_MAX >> (64 - bits), above = kit_next(&r) & ~mask;
        uint64_t sum = 0, sum_after = 0;
        for (size_t i = 0; i < count; i++) {
            a[i] = (cbi_entry){.prefix = above | (kit_next(&r) & mask)};
            a[i].ref = a[i].prefix * 3; /* the companion stays with its number */
            sum += a[i].prefix;
        }
        memcpy(b, a, count * sizeof *a);
        cbi_order_by_prefix(a, count);
        qsort(b, count, sizeof *b, by_prefix);
        for (size_t i = 0; i < count; i++) {
            assert_int_equal(a[i].prefix, b[i].prefix);
            assert_int_equal(a[i].ref, a[i].prefix * 3);
            sum_after += a[i].prefix;
        }
        assert_int_equal(sum, sum_after);
    }
    free(a);
    free(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encoded_keys_of_every_kind),
        cmocka_unit_test(test_whole_rows_of_every_kind),
        cmocka_unit_test(test_slices_of_every_kind),
        cmocka_unit_test(test_rows_that_carry_their_order),
        cmocka_unit_test(test_ties_decided_by_rows),
        cmocka_unit_test(test_none_and_one_are_in_order),
        cmocka_unit_test(test_numbers_of_every_width),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
