/* SPDX-License-Identifier: Apache-2.0 */
#include "spill/nibble.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/test.h"

enum { COUNT_MAX = 9000, PACKED_MAX = 16 + COUNT_MAX / 2 + COUNT_MAX + 80 };

static uint32_t random_state = 1;

static uint32_t draw(uint32_t below) {
    random_state = random_state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

/* One byte in `every` is any byte, the others are of `letters` characters. */
static void fill(uint8_t *bytes, size_t count, uint32_t letters, uint32_t every) {
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(draw(every) == 0 ? draw(256) : 40 + draw(letters));
}

/* The definition, read off the comment in nibble.c and nothing else. */
static size_t unpack_by_definition(const uint8_t *from, uint8_t *to, size_t count) {
    const uint8_t *alphabet = from;
    size_t at = 16;
    for (size_t block = 0; block < count; block += 64) {
        size_t n = count - block < 64 ? count - block : 64, codes = at;
        at += (n + 1) / 2;
        for (size_t i = 0; i < n; i++) {
            unsigned pair = from[codes + i / 2], code = i % 2 == 0 ? pair & 15 : pair >> 4;
            to[block + i] = code == 15 ? from[at++] : alphabet[code];
        }
    }
    return at;
}

static void every_length_and_mixture_packs_as_defined_and_comes_back(void **state) {
    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        size_t count = round < 400 ? round : draw(COUNT_MAX);
        uint8_t *raw = malloc(count + 1); /* exact: the sanitizer sees what lies behind */
        fill(raw, count, 1 + draw(20), 1 + draw(30));
        size_t bytes = cbi_nibble_measure(raw, count);
        uint8_t *packed = malloc(bytes + 1), *back = malloc(count + 1), *again = malloc(count + 1);
        packed[bytes] = back[count] = 0xee;
        assert_int_equal(cbi_nibble_pack(raw, count, packed, bytes), bytes);
        assert_int_equal(packed[bytes], 0xee);
        assert_int_equal(unpack_by_definition(packed, again, count), bytes);
        assert_memory_equal(again, raw, count);
        assert_true(cbi_nibble_unpack(packed, bytes, back, count));
        assert_memory_equal(back, raw, count);
        assert_int_equal(back[count], 0xee);
        free(raw);
        free(packed);
        free(back);
        free(again);
    }
}

static void numbers_become_half_as_long(void **state) {
    (void)state;
    char text[6000];
    size_t n = 0;
    while (n + 40 < sizeof text)
        n += (size_t)sprintf(text + n, "%u,%u.%02u\n", draw(100000), draw(1000), draw(100));
    assert_true(cbi_nibble_measure((const uint8_t *)text, n) <= n / 2 + 17);
}

static void too_little_room_is_refused_and_nothing_behind_it_touched(void **state) {
    (void)state;
    uint8_t raw[700], whole[PACKED_MAX];
    fill(raw, sizeof raw, 10, 5);
    size_t bytes = cbi_nibble_pack(raw, sizeof raw, whole, sizeof whole);
    assert_true(bytes > 0);
    for (size_t room = 0; room < bytes; room++) {
        uint8_t *to = malloc(room + 1);
        to[room] = 0xee;
        assert_int_equal(cbi_nibble_pack(raw, sizeof raw, to, room), 0);
        assert_int_equal(to[room], 0xee);
        free(to);
    }
}

static void what_no_packer_wrote_is_refused_or_harmless(void **state) {
    (void)state;
    for (unsigned round = 0; round < 5000; round++) {
        size_t stored = draw(400), count = draw(900);
        uint8_t *from = malloc(stored + 1), *to = malloc(count + 1);
        for (size_t i = 0; i < stored; i++)
            from[i] = (uint8_t)draw(256);
        to[count] = 0xee;
        (void)cbi_nibble_unpack(from, stored, to, count);
        assert_int_equal(to[count], 0xee);
        free(from);
        free(to);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length_and_mixture_packs_as_defined_and_comes_back),
        cmocka_unit_test(numbers_become_half_as_long),
        cmocka_unit_test(too_little_room_is_refused_and_nothing_behind_it_touched),
        cmocka_unit_test(what_no_packer_wrote_is_refused_or_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
