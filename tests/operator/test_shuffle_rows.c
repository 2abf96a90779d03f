/* SPDX-License-Identifier: Apache-2.0 */
/* Rows as LZ4: liblz4 unpacks what was put in, whatever it was, from no more bytes than its own. */
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "operator/shuffle_private.h"
#include "support/test.h"

enum { BLOCK_BYTES = 32 * 1024, ROW_BYTES_MAX = 512 };

static uint64_t random_state;

static uint64_t any(void) {
    random_state ^= random_state << 13, random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

/** A frame and a row of a number, a hash, two texts, and at times a third; its size. */
static size_t make_row(uint8_t *to, uint64_t i) {
    char texts[3][ROW_BYTES_MAX / 4];
    uint64_t fields[6] = {i % 5 == 0 ? 32 : 0, i, i * 0x9e3779b97f4a7c15u};
    size_t bytes = sizeof fields;
    (void)snprintf(texts[0], sizeof texts[0], "%llu", (unsigned long long)i);
    (void)snprintf(texts[1], sizeof texts[1], "customer-%llu", (unsigned long long)(i % 10007));
    (void)snprintf(texts[2], sizeof texts[2], "https://example.org/a/path/of/a/page");
    memset(to, 0, ROW_BYTES_MAX);
    for (unsigned t = 0; t < (i % 5 == 0 ? 2 : 3); t++) {
        size_t length = strlen(texts[t]);
        fields[3 + t] = (uint64_t)bytes << 32 | length;
        memcpy(to + 4 + bytes, texts[t], length);
        bytes += cbi_round_up(length, 8);
    }
    memcpy(to + 4, fields, sizeof fields);
    cbi_store_u32(to, __builtin_bswap32((uint32_t)bytes));
    return 4 + bytes;
}

/** `count` bytes of rows, from the middle of one on. */
static void make_rows(uint8_t *to, size_t count) {
    uint8_t row[ROW_BYTES_MAX];
    uint64_t i = 3000000 + any() % 1000;
    size_t skipped = any() % 60;
    for (size_t at = 0; at < count;) {
        size_t bytes = make_row(row, i += 1 + any() % 399) - skipped;
        size_t piece = cbi_min(bytes, count - at);
        memcpy(to + at, row + skipped, piece);
        at += piece;
        skipped = 0;
    }
}

/** What it takes; 0: these are no rows. Out of memory that ends where the bytes do. */
static size_t checked(const uint8_t *bytes, size_t count, uint32_t period) {
    size_t room = (size_t)LZ4_compressBound((int)count);
    uint8_t *in = malloc(count), *out = malloc(room), *back = malloc(count);
    void *state = malloc(cbi_rows_state_bytes());
    assert_true(in != NULL && out != NULL && back != NULL && state != NULL);
    memcpy(in, bytes, count);
    size_t stored = cbi_rows_encode(state, period, out, in, (uint32_t)count);
    assert_true(stored <= room);
    if (stored > 0) {
        int got = LZ4_decompress_safe((const char *)out, (char *)back, (int)stored, (int)count);
        assert_int_equal(got, count);
        assert_memory_equal(back, in, count);
    }
    free(state);
    free(back);
    free(out);
    free(in);
    return stored;
}

static size_t by_liblz4(const uint8_t *bytes, size_t count) {
    char out[LZ4_COMPRESSBOUND(BLOCK_BYTES)];
    return (size_t)LZ4_compress_default((const char *)bytes, out, (int)count, (int)sizeof out);
}

static void rows_take_no_more_than_by_hashing(void **state) {
    (void)state;
    uint8_t bytes[BLOCK_BYTES];
    size_t all = 0, few = 0, theirs = 0;
    random_state = 1;
    for (int i = 0; i < 30; i++) {
        make_rows(bytes, sizeof bytes);
        all += checked(bytes, sizeof bytes, 1);
        few += checked(bytes, sizeof bytes, 0);
        theirs += by_liblz4(bytes, sizeof bytes);
    }
    if (all == 0) {
        skip(); /* this processor has no such search */
    }
    assert_true(all <= theirs && all <= few && few <= theirs + theirs / 20);
}

static void any_size_comes_back(void **state) {
    (void)state;
    static uint8_t bytes[UINT16_MAX + 2];
    random_state = 2;
    make_rows(bytes, sizeof bytes);
    for (size_t count = 1; count < 3000; count++) {
        (void)checked(bytes + count % 8, count, (uint32_t)(count % 3));
    }
    (void)checked(bytes, UINT16_MAX, 1);
    assert_int_equal(checked(bytes, CBI_ROWS_BYTES_MIN - 1, 1), 0);
    assert_int_equal(checked(bytes, UINT16_MAX + 1, 1), 0);
}

/** Sizes that lie, rows within rows, the same byte over and over. */
static void what_is_no_row_comes_back_too(void **state) {
    (void)state;
    uint8_t bytes[BLOCK_BYTES];
    random_state = 3;
    for (int i = 0; i < 300; i++) {
        size_t count = CBI_ROWS_BYTES_MIN + any() % (i % 10 == 0 ? BLOCK_BYTES - 256 : 4000);
        make_rows(bytes, count);
        for (uint64_t hits = any() % (count / 64); hits > 0; hits--) {
            bytes[any() % count] = any() % 2 == 0 ? 0 : (uint8_t)any();
        }
        size_t from = any() % count, length = any() % (count - from);
        memset(bytes + from, (int)(any() % 4) * 8, i % 3 == 0 ? length : 0);
        (void)checked(bytes, count, (uint32_t)(i % 3));
    }
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(checked(bytes, sizeof bytes, 1), 0);
}

/** Frames around what never repeats: nothing is saved, and nothing is written past the bound. */
static void rows_with_nothing_in_common_come_back(void **state) {
    (void)state;
    uint8_t bytes[BLOCK_BYTES];
    random_state = 4;
    for (size_t row = 16; row < 512; row += 8) {
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (uint8_t)(any() >> 32);
        }
        for (size_t at = 0; at + 4 + row <= sizeof bytes; at += 4 + row) {
            cbi_store_u32(bytes + at, __builtin_bswap32((uint32_t)row));
        }
        (void)checked(bytes, sizeof bytes, 1);
        (void)checked(bytes, 256 + row, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_take_no_more_than_by_hashing),
        cmocka_unit_test(any_size_comes_back),
        cmocka_unit_test(what_is_no_row_comes_back_too),
        cmocka_unit_test(rows_with_nothing_in_common_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
