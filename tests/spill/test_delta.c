/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "spill/delta.h"
#include "support/test.h"

enum { COUNT_MAX = 9000, PACKED_MAX = COUNT_MAX + COUNT_MAX / 7 + 80 };

/* The definition, read off the comment in delta.c and nothing else. */
static size_t pack_by_definition(const uint8_t *from, size_t count, size_t distance, uint8_t *to) {
    static bool differs[COUNT_MAX];
    uint8_t results[64];
    size_t at = 2, begin = distance == 0 ? count : (distance + 64) / 64 * 64;
    to[0] = (uint8_t)(distance % 256);
    to[1] = (uint8_t)(distance / 256);
    for (size_t block = 0; block < count; block += 64) {
        size_t above = block < begin ? 0 : distance, found = 0;
        uint8_t mask[8] = {0};
        for (size_t i = block; i < count && i < block + 64; i++) {
            uint8_t x = (uint8_t)(from[i] ^ (i > 0 ? from[i - 1] : 0));
            if (above > 0) {
                x ^= (uint8_t)(from[i - above] ^ from[i - above - 1]);
            }
            differs[i] = x != 0;
            bool news = differs[i] != (above > 0 && differs[i - above]);
            mask[(i - block) / 8] |= (uint8_t)((unsigned)news << (i - block) % 8);
            if (x != 0) {
                results[found++] = x;
            }
        }
        size_t which_at = at++;
        to[which_at] = 0;
        for (unsigned k = 0; k < 8; k++) {
            if (mask[k] != 0) {
                to[which_at] |= (uint8_t)(1U << k);
                to[at++] = mask[k];
            }
        }
        memcpy(to + at, results, found);
        at += found;
    }
    return count == 0 ? 0 : at;
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

/* Rows of `row` bytes: some columns repeat the row above, some count, some are noise. */
static void fill_rows(uint8_t *bytes, size_t count, size_t row) {
    uint8_t kinds[CBI_DELTA_DISTANCE_MAX];
    fill(kinds, row, 4);
    for (size_t i = 0; i < count; i++) {
        uint8_t above = i >= row ? bytes[i - row] : (uint8_t)draw(256);
        uint8_t kind = kinds[i % row] % 4;
        bytes[i] = kind == 0 ? (uint8_t)draw(256) : kind == 1 ? (uint8_t)(above + 1) : above;
    }
}

static size_t draw_distance(void) {
    return draw(3) == 0 ? 0 : 64 + draw(draw(2) == 0 ? 40 : CBI_DELTA_DISTANCE_MAX - 63);
}

static void test_every_length_and_density_packs_as_defined_and_comes_back(void **state) {
    (void)state;
    for (unsigned round = 0; round < 3000; round++) {
        size_t count = round < 400 ? round : draw(COUNT_MAX);
        size_t distance = draw_distance();
        uint8_t *raw = malloc(count + 1); /* exact: the sanitizer sees what lies behind */
        uint8_t *want = malloc(PACKED_MAX);
        if (draw(2) == 0) {
            fill(raw, count, 1 + draw(9));
        } else {
            fill_rows(raw, count, distance > 0 ? distance : 100);
        }
        size_t bytes = pack_by_definition(raw, count, distance, want);
        assert_int_equal(cbi_delta_measure(raw, count, distance), bytes);
        uint8_t *packed = malloc(bytes + 1);
        uint8_t *back = malloc(count + 1);
        packed[bytes] = 0xee;
        back[count] = 0xee;
        assert_int_equal(cbi_delta_pack(raw, count, distance, packed, bytes), bytes);
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
    for (size_t distance = 0; distance < 200; distance += 70) {
        size_t bytes = cbi_delta_pack(raw, sizeof raw, distance, whole, sizeof whole);
        assert_true(bytes > 0);
        for (size_t room = 0; room < bytes; room++) {
            uint8_t *to = malloc(room + 1);
            to[room] = 0xee;
            assert_int_equal(cbi_delta_pack(raw, sizeof raw, distance, to, room), 0);
            assert_int_equal(to[room], 0xee);
            free(to);
        }
    }
}

static void test_what_no_packer_writes_is_refused(void **state) {
    (void)state;
    uint8_t raw[300];
    uint8_t packed[400];
    uint8_t back[400];
    fill(raw, sizeof raw, 3);
    size_t bytes = cbi_delta_pack(raw, sizeof raw, 0, packed, sizeof packed);
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
    /* Distances that are none. */
    for (unsigned distance = 1; distance < 65536; distance++) {
        packed[0] = (uint8_t)distance;
        packed[1] = (uint8_t)(distance >> 8);
        if (distance < 64 || distance > CBI_DELTA_DISTANCE_MAX) {
            assert_false(cbi_delta_unpack(packed, bytes, back, sizeof raw));
        }
    }
    /* Any bytes at all: an answer, and never a byte outside. */
    for (unsigned round = 0; round < 20000; round++) {
        size_t stored = draw(300);
        size_t count = draw(400);
        uint8_t *from = malloc(stored + 1);
        uint8_t *to = malloc(count + 1);
        fill(from, stored, 1 + draw(4));
        if (stored > 1) {
            size_t distance = draw_distance();
            from[0] = (uint8_t)distance;
            from[1] = (uint8_t)(distance >> 8);
        }
        to[count] = 0xee;
        (void)cbi_delta_unpack(from, stored, to, count);
        assert_int_equal(to[count], 0xee);
        free(from);
        free(to);
    }
}

static void test_padding_costs_a_bit_in_eight_bytes(void **state) {
    (void)state;
    uint8_t zeros[4096] = {0};
    uint8_t packed[1024];
    assert_int_equal(cbi_delta_pack(zeros, sizeof zeros, 0, packed, sizeof packed), 2 + 4096 / 64);
    memset(zeros, ' ', sizeof zeros);
    assert_int_equal(cbi_delta_pack(zeros, sizeof zeros, 0, packed, sizeof packed),
                     2 + 4096 / 64 + 2);
}

static void test_rows_of_one_length_are_found(void **state) {
    (void)state;
    enum { COUNT = 8192 };
    uint8_t *raw = malloc(COUNT);
    assert_non_null(raw);
    for (size_t row = 5; row <= 500; row += 9) {
        fill_rows(raw, COUNT, row);
        size_t distance = cbi_delta_distance(raw, COUNT);
        size_t alone = cbi_delta_measure(raw, COUNT, 0);
        size_t least = (row + 63) / row * row; /* a multiple that is far enough */
        if (row > 20) {                        /* else there may be no column that tells */
            assert_int_equal(distance % row, 0);
            assert_true(cbi_delta_measure(raw, COUNT, least) < alone);
        }
        assert_true(cbi_delta_measure(raw, COUNT, distance) <= alone + alone / 16);
    }
    fill(raw, COUNT, 1); /* noise has none that helps, and a few bytes say nothing */
    assert_true(cbi_delta_measure(raw, COUNT, cbi_delta_distance(raw, COUNT)) > COUNT);
    memset(raw, 'x', COUNT);
    assert_int_equal(cbi_delta_distance(raw, COUNT), 0);
    assert_int_equal(cbi_delta_distance(raw, 100), 0);
    assert_int_equal(cbi_delta_distance(raw, 0), 0);
    free(raw);
}

static int run_all(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length_and_density_packs_as_defined_and_comes_back),
        cmocka_unit_test(test_too_little_room_is_refused_and_nothing_behind_it_touched),
        cmocka_unit_test(test_what_no_packer_writes_is_refused),
        cmocka_unit_test(test_padding_costs_a_bit_in_eight_bytes),
        cmocka_unit_test(test_rows_of_one_length_are_found),
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
