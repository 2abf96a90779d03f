/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spill/delta.h"
#include "support/test.h"

enum { COUNT_MAX = 9000, PACKED_MAX = COUNT_MAX + COUNT_MAX / 8 + 80 };

/* The definition, read off the comment in delta.c and nothing else. */
static size_t pack_by_definition(const uint8_t *from, size_t count, uint8_t *to) {
    size_t at = 0;
    for (size_t block = 0; block < count; block += 64) {
        size_t mask_at = at;
        memset(to + at, 0, 8);
        at += 8;
        for (size_t i = block; i < count && i < block + 64; i++) {
            uint8_t x = (uint8_t)(from[i] ^ (i > 0 ? from[i - 1] : 0));
            if (x != 0) {
                to[mask_at + (i - block) / 8] |= (uint8_t)(1U << (i - block) % 8);
                to[at++] = x;
            }
        }
    }
    return at;
}

static uint32_t random_state = 1;

static uint32_t draw(uint32_t below) {
    random_state = random_state * 1664525 + 1013904223;
    return (uint32_t)((uint64_t)random_state * below >> 32);
}

/* Bytes of which about one in `every` differs from the one before it. */
static void fill(uint8_t *bytes, size_t count, uint32_t every) {
    uint8_t byte = 0;
    for (size_t i = 0; i < count; i++) {
        byte = draw(every) == 0 ? (uint8_t)draw(256) : byte;
        bytes[i] = byte;
    }
}

static void test_every_length_and_density_packs_as_defined_and_comes_back(void **state) {
    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        size_t count = round < 400 ? round : draw(COUNT_MAX);
        uint8_t *raw = malloc(count + 1); /* exact: the sanitizer sees what lies behind */
        uint8_t *want = malloc(PACKED_MAX);
        fill(raw, count, 1 + draw(9));
        size_t bytes = pack_by_definition(raw, count, want);
        assert_int_equal(cbi_delta_measure(raw, count), bytes);
        uint8_t *packed = malloc(bytes + 1);
        uint8_t *back = malloc(count + 1);
        packed[bytes] = 0xee;
        back[count] = 0xee;
        assert_int_equal(cbi_delta_pack(raw, count, packed, bytes), bytes);
        assert_memory_equal(packed, want, bytes);
        assert_int_equal(packed[bytes], 0xee);
        assert_true(cbi_delta_unpack(packed, bytes, back, count));
        assert_memory_equal(back, raw, count);
        assert_int_equal(back[count], 0xee);
        free(raw);
        free(want);
        free(packed);
        free(back);
    }
}

static void test_too_little_room_is_refused_and_nothing_behind_it_touched(void **state) {
    (void)state;
    uint8_t raw[700];
    fill(raw, sizeof raw, 2);
    uint8_t whole[1000];
    size_t bytes = cbi_delta_pack(raw, sizeof raw, whole, sizeof whole);
    assert_true(bytes > 0);
    for (size_t room = 0; room < bytes; room++) {
        uint8_t *to = malloc(room + 1);
        to[room] = 0xee;
        assert_int_equal(cbi_delta_pack(raw, sizeof raw, to, room), 0);
        assert_int_equal(to[room], 0xee);
        free(to);
    }
}

static void test_what_no_packer_writes_is_refused(void **state) {
    (void)state;
    uint8_t raw[300];
    uint8_t packed[400];
    uint8_t back[400];
    fill(raw, sizeof raw, 3);
    size_t bytes = cbi_delta_pack(raw, sizeof raw, packed, sizeof packed);
    assert_true(cbi_delta_unpack(packed, bytes, back, sizeof raw));
    for (size_t cut = 0; cut < bytes; cut++) {
        assert_false(cbi_delta_unpack(packed, cut, back, sizeof raw));
    }
    assert_false(cbi_delta_unpack(packed, bytes + 1, back, sizeof raw));
    /* Other lengths: the last block's mask has bits, or there are bytes left. */
    assert_false(cbi_delta_unpack(packed, bytes, back, 256));
    assert_false(cbi_delta_unpack(packed, bytes, back, 64));
    assert_false(cbi_delta_unpack(packed, bytes, back, 0));
    assert_true(cbi_delta_unpack(packed, 0, back, 0));
    /* Any bytes at all: an answer, and never a byte outside. */
    for (unsigned round = 0; round < 20000; round++) {
        size_t stored = draw(300);
        size_t count = draw(400);
        uint8_t *from = malloc(stored + 1);
        uint8_t *to = malloc(count + 1);
        fill(from, stored, 1 + draw(4));
        to[count] = 0xee;
        (void)cbi_delta_unpack(from, stored, to, count);
        assert_int_equal(to[count], 0xee);
        free(from);
        free(to);
    }
}

static void test_padding_costs_a_bit_a_byte(void **state) {
    (void)state;
    uint8_t zeros[4096] = {0};
    uint8_t packed[1024];
    assert_int_equal(cbi_delta_pack(zeros, sizeof zeros, packed, sizeof packed), 4096 / 8);
    memset(zeros, ' ', sizeof zeros);
    assert_int_equal(cbi_delta_pack(zeros, sizeof zeros, packed, sizeof packed), 4096 / 8 + 1);
}

static int run_all(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length_and_density_packs_as_defined_and_comes_back),
        cmocka_unit_test(test_too_little_room_is_refused_and_nothing_behind_it_touched),
        cmocka_unit_test(test_what_no_packer_writes_is_refused),
        cmocka_unit_test(test_padding_costs_a_bit_a_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Once with each kernel there is: what the CPU can do is looked up once in a process. */
int main(void) {
    static const char *const levels[] = {"baseline", "avx2", "all"};
    int failed = 0;
    for (size_t i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            (void)setenv("CARBIDE_CPU", levels[i], 1);
            exit(run_all());
        }
        int status = -1;
        failed += child < 0 || waitpid(child, &status, 0) != child || status != 0;
    }
    return failed;
}
