/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_KEYS_H
#define TEST_KEYS_H

/* What tests of keys share: keys from a few words, the key of one text, ladders of texts in order.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "carbide/sort.h"
#include "record/key.h"

enum { KEY_MAX = 16 * 1024 };

typedef struct test_key {
    uint8_t bytes[KEY_MAX];
    size_t size;
} test_key;

static inline uint64_t test_random(void) {
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state >> 7;
}

static inline size_t test_random_below(size_t n) {
    return (size_t)test_random() % n;
}

static inline cb_status test_try_keys(int format, const char *const *texts, size_t count,
                                      cbi_keys **keys, cb_error *err) {
    cbi_keys_options options = {.keys = texts,
                                .key_count = count,
                                .field_separator = -1,
                                .format = format,
                                .record_bytes = 100};
    return cbi_keys_create(&options, keys, err);
}

/* Keys by numbers only: nothing to bind. */
static inline cbi_keys *test_keys(int format, const char *const *texts, size_t count) {
    cbi_keys *keys = NULL;
    cb_error err = {0};
    if (test_try_keys(format, texts, count, &keys, &err) != CB_OK ||
        cbi_keys_bind(keys, NULL, 0, &err) != CB_OK)
        fail_msg("%s", err.message);
    return keys;
}

static inline int test_compare(const test_key *a, const test_key *b) {
    int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    return order ? (order > 0) - (order < 0) : (a->size > b->size) - (a->size < b->size);
}

/*
 * The key of a row. Memory around the row belongs to nobody (a sanitizer sees it); and whatever the
 * room, the size is the same and nothing is written past it.
 */
static inline void test_encode(const cbi_keys *keys, const cbi_rows *rows, test_key *key) {
    static uint8_t again[KEY_MAX];
    key->size = cbi_keys_encode(keys, rows, 0, key->bytes, sizeof key->bytes);
    assert_true(key->size < sizeof key->bytes);
    memset(again, 0x5c, key->size + 1);
    size_t cap = test_random_below(key->size + 1);
    assert_int_equal(cbi_keys_encode(keys, rows, 0, again, cap), key->size);
    assert_memory_equal(again, key->bytes, cap);
    for (size_t i = cap; i <= key->size; i++)
        assert_int_equal(again[i], 0x5c);
}

/* One row that is one field; `before` bytes of room in front of it. */
static inline void test_encode_field(const cbi_keys *keys, const char *text, size_t bytes,
                                     size_t before, test_key *key) {
    uint8_t *chunk = malloc(before + bytes + 1);
    assert_non_null(chunk);
    memset(chunk, '9', before);
    uint8_t *exact = realloc(chunk, before + bytes ? before + bytes : 1);
    assert_non_null(exact);
    if (bytes)
        memcpy(exact + before, text, bytes);
    cbi_span span = {(uint32_t)before, (uint32_t)bytes};
    const uint32_t *columns;
    cbi_rows rows = {.base = exact,
                     .count = 1,
                     .capacity = 1,
                     .rows = &span,
                     .fields = &span,
                     .field_count = cbi_keys_columns(keys, &columns)};
    test_encode(keys, &rows, key);
    free(exact);
}

/*
 * Texts in ascending order by "1:TYPE"; one that begins with '=' is equal to the one before. All
 * pairs are compared, and so are their reverses by desc. Nulls are left to other tests.
 */
static inline void test_ladder(const char *type, const char *const *texts, size_t count) {
    char ascending[64], descending[64];
    snprintf(ascending, sizeof ascending, "1:%s", type);
    snprintf(descending, sizeof descending, "1:%s:desc", type);
    const char *const up[] = {ascending}, *const down[] = {descending};
    cbi_keys *up_keys = test_keys(CB_FORMAT_CSV, up, 1),
             *down_keys = test_keys(CB_FORMAT_CSV, down, 1);
    size_t rank_i = 0;
    for (size_t i = 0; i < count; i++) {
        rank_i += texts[i][0] != '=';
        size_t rank_j = 0;
        for (size_t j = 0; j <= i; j++) {
            static test_key a, b;
            rank_j += texts[j][0] != '=';
            const char *x = texts[i] + (texts[i][0] == '='), *y = texts[j] + (texts[j][0] == '=');
            int expected = rank_i > rank_j;
            test_encode_field(up_keys, x, strlen(x), test_random_below(40), &a);
            test_encode_field(up_keys, y, strlen(y), test_random_below(40), &b);
            if (test_compare(&a, &b) != expected)
                fail_msg("%s: '%s' against '%s'", ascending, x, y);
            test_encode_field(down_keys, x, strlen(x), test_random_below(40), &a);
            test_encode_field(down_keys, y, strlen(y), test_random_below(40), &b);
            if (test_compare(&a, &b) != -expected)
                fail_msg("%s: '%s' against '%s'", descending, x, y);
        }
    }
    cbi_keys_destroy(up_keys);
    cbi_keys_destroy(down_keys);
}
#define TEST_LADDER(type, ...)                                                                     \
    do {                                                                                           \
        static const char *const texts_[] = {__VA_ARGS__};                                         \
        test_ladder(type, texts_, sizeof texts_ / sizeof texts_[0]);                               \
    } while (0)

/* Texts that a type cannot read. */
static inline void test_nulls(const char *type, const char *const *texts, size_t count) {
    static test_key null, key;
    char ascending[64];
    snprintf(ascending, sizeof ascending, "1:%s", type);
    const char *const up[] = {ascending};
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, up, 1);
    test_encode_field(keys, "", 0, 0, &null);
    for (size_t i = 0; i < count; i++) {
        test_encode_field(keys, texts[i], strlen(texts[i]), 20, &key);
        if (test_compare(&null, &key) != 0)
            fail_msg("%s: '%s' was read", ascending, texts[i]);
    }
    cbi_keys_destroy(keys);
}
#define TEST_NULLS(type, ...)                                                                      \
    do {                                                                                           \
        static const char *const texts_[] = {__VA_ARGS__};                                         \
        test_nulls(type, texts_, sizeof texts_ / sizeof texts_[0]);                                \
    } while (0)

#endif
