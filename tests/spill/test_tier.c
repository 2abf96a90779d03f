/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: extents that lie in left-over memory come back as those on disk do, before and after the
 * memory was given back, whoever reads or writes meanwhile; and a tier that cannot be written out
 * stays where it is. Method: every extent has contents of its own; the tier is used first, as where
 * the disk is slow.
 *
 * ctest-timeout: 120
 */
#include <stdlib.h>

#include "batch.h"
#include "spill/file.h"

enum { EXTENTS = 40, SEGMENTS = 6, TIER_BYTES = 1024 * 1024 };

static const char *folder;
static batch contents[EXTENTS], back;

typedef struct scene {
    test_spill t;
    uint8_t *tier;
    cbi_extent extents[EXTENTS];
} scene;

static void scene_open(scene *s, cb_codec codec, size_t tier_bytes, uint64_t limit_bytes) {
    void *tier = NULL;
    assert_int_equal(posix_memalign(&tier, CBI_SPILL_ALIGN, tier_bytes), 0);
    s->tier = tier;
    cbi_spill_options options = {.dirs = &folder,
                                 .dir_count = 1,
                                 .codec = codec,
                                 .limit_bytes = limit_bytes,
                                 .tier = s->tier,
                                 .tier_bytes = tier_bytes,
                                 .tier_first = true};
    assert_ok(test_spill_open(&s->t, options, NULL));
}

static void scene_close(scene *s) {
    test_spill_close(&s->t);
    free(s->tier);
}

static void put(scene *s, uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to; i++) {
        assert_ok(write_and_wait(s->t.spill, i, i, &contents[i], &s->extents[i], NULL));
    }
}

static void all_are_there(scene *s, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        assert_ok(read_and_wait(s->t.spill, i, i, &s->extents[i], &back, NULL));
        assert_same_payload(&contents[i], &back);
    }
}

static cbi_spill_stats stats_of(const scene *s) {
    cbi_spill_stats stats;
    cbi_spill_get_stats(s->t.spill, &stats);
    return stats;
}

static const cb_codec codecs[] = {CB_CODEC_NONE, CB_CODEC_LZ4, CB_CODEC_DELTA};
enum { CODECS = sizeof codecs / sizeof *codecs };

static void test_what_lies_in_memory_never_sees_the_disk(void **state) {
    (void)state;
    for (unsigned c = 0; c < CODECS; c++) {
        scene s;
        scene_open(&s, codecs[c], TIER_BYTES, 0);
        put(&s, 0, 8);
        all_are_there(&s, 8);
        assert_int_equal(stats_of(&s).stored_bytes, 0);
        assert_int_equal(stats_of(&s).read_bytes, 0);
        assert_true(stats_of(&s).raw_bytes > 0);
        scene_close(&s);
    }
}

static void test_what_has_no_room_there_goes_to_disk(void **state) {
    (void)state;
    for (unsigned c = 0; c < CODECS; c++) {
        scene s;
        scene_open(&s, codecs[c], TIER_BYTES, 0);
        put(&s, 0, EXTENTS);
        assert_true(stats_of(&s).stored_bytes > 0);
        all_are_there(&s, EXTENTS);
        scene_close(&s);
    }
}

static void test_memory_is_given_back_once_and_extents_stay_readable(void **state) {
    (void)state;
    for (unsigned c = 0; c < CODECS; c++) {
        scene s;
        scene_open(&s, codecs[c], TIER_BYTES, 0);
        put(&s, 0, 10);
        uint64_t before = stats_of(&s).stored_bytes;
        uint8_t *given;
        assert_ok(cbi_spill_give_back(s.t.spill, &given, NULL));
        assert_ptr_equal(given, s.tier);
        memset(given, 0x5a, TIER_BYTES); /* it is ours again */
        assert_true(stats_of(&s).stored_bytes > before);
        all_are_there(&s, 10);
        assert_ok(cbi_spill_give_back(s.t.spill, &given, NULL));
        assert_null(given);
        put(&s, 10, 20);
        all_are_there(&s, 20);
        for (uint32_t i = 0; i < 20; i++) {
            cbi_spill_free(s.t.spill, &s.extents[i]);
        }
        assert_int_equal(stats_of(&s).live_bytes, 0); /* also what moved is free again on disk */
        scene_close(&s);
    }
}

static void test_an_unused_tier_is_given_back_without_a_write(void **state) {
    (void)state;
    scene s;
    scene_open(&s, CB_CODEC_NONE, TIER_BYTES, 0);
    uint8_t *given;
    assert_ok(cbi_spill_give_back(s.t.spill, &given, NULL));
    assert_ptr_equal(given, s.tier);
    assert_int_equal(stats_of(&s).stored_bytes, 0);
    scene_close(&s);
    test_spill none;
    assert_ok(test_spill_open(&none, (cbi_spill_options){.dirs = &folder, .dir_count = 1}, NULL));
    assert_ok(cbi_spill_give_back(none.spill, &given, NULL));
    assert_null(given);
    test_spill_close(&none);
}

static void test_room_that_was_freed_is_used_again(void **state) {
    (void)state;
    scene s;
    scene_open(&s, CB_CODEC_NONE, TIER_BYTES, 0);
    for (unsigned round = 0; round < 20; round++) {
        put(&s, 0, 8);
        for (uint32_t i = 0; i < 8; i++) {
            cbi_spill_free(s.t.spill, &s.extents[round % 2 == 0 ? i : 7 - i]);
        }
    }
    assert_int_equal(stats_of(&s).stored_bytes, 0);
    scene_close(&s);
}

/* A limit of the disk that the tier itself is beyond. */
static void test_a_tier_that_cannot_be_written_out_stays(void **state) {
    (void)state;
    scene s;
    scene_open(&s, CB_CODEC_NONE, TIER_BYTES, 64 * 1024);
    put(&s, 0, 8);
    uint8_t *given;
    cb_error err = {.message = ""};
    assert_int_equal(cbi_spill_give_back(s.t.spill, &given, &err), CB_ENOSPC);
    assert_null(given);
    assert_non_null(strstr(err.message, "--temp-limit"));
    all_are_there(&s, 8);
    scene_close(&s);
}

static void test_damage_in_memory_is_found_and_said_to_be_there(void **state) {
    (void)state;
    for (unsigned c = 0; c < CODECS; c++) {
        scene s;
        scene_open(&s, codecs[c], TIER_BYTES, 0);
        put(&s, 0, 1);
        s.tier[100] ^= 4;
        cb_error err = {.message = ""};
        assert_int_equal(read_and_wait(s.t.spill, 0, 0, &s.extents[0], &back, &err), CB_ECORRUPT);
        assert_non_null(strstr(err.message, "memory"));
        scene_close(&s);
    }
}

/* ---- others at work meanwhile ---- */

typedef struct user {
    scene *s;
    uint32_t from, to;
    batch mine;
    cb_status status;
    cbi_thread thread;
} user;

static void use(void *ctx) {
    user *u = ctx;
    for (uint32_t round = 0; round < 4 && u->status == CB_OK; round++) {
        for (uint32_t i = u->from; i < u->to && u->status == CB_OK; i++) {
            if (round % 2 == 0) {
                u->status =
                    write_and_wait(u->s->t.spill, i, i, &contents[i], &u->s->extents[i], NULL);
            }
            if (u->status == CB_OK) {
                u->status = read_and_wait(u->s->t.spill, i, i, &u->s->extents[i], &u->mine, NULL);
            }
            if (u->status == CB_OK) {
                assert_same_payload(&contents[i], &u->mine);
            }
        }
    }
}

static void test_others_write_and_read_while_it_is_given_back(void **state) {
    (void)state;
    enum { USERS = 3, ROUNDS = 6 };
    for (unsigned round = 0; round < ROUNDS; round++) {
        scene s;
        scene_open(&s, codecs[round % CODECS], TIER_BYTES, 0);
        user users[USERS];
        for (uint32_t i = 0; i < USERS; i++) {
            users[i] = (user){.s = &s,
                              .from = EXTENTS * i / USERS,
                              .to = EXTENTS * (i + 1) / USERS,
                              .mine = batch_make(SEGMENTS, TEST_SEGMENT_BYTES),
                              .status = CB_OK};
            assert_ok(cbi_thread_start(&users[i].thread, use, &users[i], "user", NULL));
        }
        unsigned times = 0;
        for (unsigned k = 0; k < 50; k++) {
            uint8_t *given;
            assert_ok(cbi_spill_give_back(s.t.spill, &given, NULL));
            times += given != NULL ? 1 : 0;
        }
        assert_int_equal(times, 1);
        for (uint32_t i = 0; i < USERS; i++) {
            cbi_thread_join(&users[i].thread);
            assert_int_equal(users[i].status, CB_OK);
            batch_free(&users[i].mine);
        }
        all_are_there(&s, EXTENTS);
        scene_close(&s);
    }
}

static int set_up(void **state) {
    (void)state;
    folder = test_folder();
    back = batch_make(SEGMENTS, TEST_SEGMENT_BYTES);
    for (uint32_t i = 0; i < EXTENTS; i++) {
        contents[i] = batch_make(SEGMENTS, TEST_SEGMENT_BYTES);
        batch_fill_all(&contents[i], i);
        batch_fill(&contents[i], i % SEGMENTS, 3000, i);
        batch_fill_noise(&contents[i], (i + 1) % SEGMENTS, 9000, i);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    batch_free(&back);
    for (uint32_t i = 0; i < EXTENTS; i++) {
        batch_free(&contents[i]);
    }
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_lies_in_memory_never_sees_the_disk),
        cmocka_unit_test(test_what_has_no_room_there_goes_to_disk),
        cmocka_unit_test(test_memory_is_given_back_once_and_extents_stay_readable),
        cmocka_unit_test(test_an_unused_tier_is_given_back_without_a_write),
        cmocka_unit_test(test_room_that_was_freed_is_used_again),
        cmocka_unit_test(test_a_tier_that_cannot_be_written_out_stays),
        cmocka_unit_test(test_damage_in_memory_is_found_and_said_to_be_there),
        cmocka_unit_test(test_others_write_and_read_while_it_is_given_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
