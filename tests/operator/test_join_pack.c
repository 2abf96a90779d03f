/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/join_pack.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "support/test.h"

enum { ROOM = JOIN_PACK_MAX + 2 + JOIN_PACK_SLACK };

/* A table of "0123456789,.-id" for keys and text, 16 times as often as any other byte. */
static join_pack *make(void) {
    static const char seen[] = "0123456789,.-id";
    join_letters letters = {.key_rows = 100, .text_rows = 100};
    for (size_t i = 0; i < sizeof seen - 1; i++)
        letters.keys[(uint8_t)seen[i]] = letters.text[(uint8_t)seen[i]] = 500 + i;
    return join_pack_choose(&letters);
}

static void make_text(unsigned *state, uint8_t *text, size_t bytes, bool other) {
    static const char seen[] = "0123456789,.-id";
    for (size_t i = 0; i < bytes; i++) {
        *state = *state * 1103515245u + 12345u;
        text[i] = (uint8_t)seen[(*state >> 16) % (sizeof seen - 1)];
    }
    if (other && bytes > 0) {
        static const uint8_t others[] = {'x', 0, 0x80, 0xff, 0xb0, 'O'};
        text[(*state >> 8) % bytes] = others[(*state >> 20) % sizeof others];
    }
}

static void what_is_packed_comes_back(void **state) {
    (void)state;
    join_pack *k = make();
    assert_non_null(k);
    assert_true(k->keys && k->text);
    unsigned random = 7;
    static uint8_t text[ROOM], packed[2][ROOM], back[ROOM];
    for (size_t round = 0; round < 4000; round++) {
        size_t bytes = round < 300 ? round : (round * 37) % JOIN_PACK_MAX;
        bool other = round % 5 == 4 && bytes > 0, wide = k->wide;
        make_text(&random, text, bytes, other);
        assert_int_equal(join_pack_try(k, text, bytes, packed[0]), !other);
        k->wide = false; /* plain C answers the same bytes */
        assert_int_equal(join_pack_try(k, text, bytes, packed[1]), !other);
        k->wide = wide;
        if (other)
            continue;
        size_t half = join_pack_half(bytes);
        assert_memory_equal(packed[0], packed[1], half);
        assert_int_equal(join_pack_text_bytes(packed[0], half), bytes);
        assert_ptr_equal(join_pack_get(k, packed[0], half, back), back + bytes);
        assert_memory_equal(back, text, bytes);
        k->wide = false;
        assert_ptr_equal(join_pack_get(k, packed[0], half, back), back + bytes);
        k->wide = wide;
        assert_memory_equal(back, text, bytes);
        assert_true(half == 0 || packed[0][0] != JOIN_PACK_RAW);
    }
    cbi_free(k);
}

static void other_characters_and_long_keys_stay_as_they_are(void **state) {
    (void)state;
    join_pack *k = make();
    assert_non_null(k);
    static uint8_t key[ROOM], put[ROOM], back[ROOM];
    unsigned random = 3;
    for (size_t bytes = 1; bytes < 300; bytes++) {
        bool other = bytes <= JOIN_PACK_KEY_MAX;
        make_text(&random, key, bytes, other);
        assert_int_equal(join_pack_put(k, key, bytes, put), bytes + 1);
        assert_int_equal(put[0], JOIN_PACK_RAW);
        assert_int_equal(join_pack_text_bytes(put, bytes + 1), bytes);
        assert_ptr_equal(join_pack_get(k, put, bytes + 1, back), back + bytes);
        assert_memory_equal(back, key, bytes);
    }
    assert_int_equal(join_pack_put(k, key, 0, put), 0);
    cbi_free(k);
}

static void text_of_many_characters_is_not_worth_it(void **state) {
    (void)state;
    join_letters letters = {.key_rows = 10, .text_rows = 10};
    for (unsigned c = 'a'; c <= 'z'; c++)
        letters.text[c] = letters.keys[c] = 10;
    assert_null(join_pack_choose(&letters));
    for (unsigned c = 'k'; c <= 'z'; c++)
        letters.text[c] = 0;
    join_pack *k = join_pack_choose(&letters);
    assert_non_null(k);
    assert_true(k->text && !k->keys);
    cbi_free(k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_packed_comes_back),
        cmocka_unit_test(other_characters_and_long_keys_stay_as_they_are),
        cmocka_unit_test(text_of_many_characters_is_not_worth_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
