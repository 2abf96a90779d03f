/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same as test_frame.c does in memory, with real files and through the whole way: damage done
 * to a spill file behind the spill's back is found by the next read of that place, by no other
 * read, and said with folder and position.
 */
#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#include "batch.h"
#include "spill/file.h"
#include "spill/frame.h"

typedef struct scene {
    const char *folder;
    test_spill t;
    batch out[2], in;
    cbi_extent extents[2];
    int file; /* the spill's first file, opened once more */
} scene;

static int open_spill_file(const char *folder) {
    DIR *stream = opendir(folder);
    assert_non_null(stream);
    char path[TEST_PATH_MAX] = "";
    for (struct dirent *e; (e = readdir(stream)) != NULL;) {
        if (e->d_name[0] != '.') {
            (void)snprintf(path, sizeof path, "%s/%s/spill.0", folder, e->d_name);
        }
    }
    (void)closedir(stream);
    int fd = cbi_sys_open(path, O_RDWR, 0);
    assert_true(fd >= 0);
    return fd;
}

static void scene_init(scene *s, cb_codec codec) {
    s->folder = test_folder();
    cbi_spill_options options = {
        .dirs = &s->folder, .dir_count = 1, .codec = codec, .named_files = true};
    assert_ok(test_spill_open(&s->t, options, NULL));
    s->in = batch_make(4, TEST_SEGMENT_BYTES);
    for (uint32_t i = 0; i < 2; i++) {
        s->out[i] = batch_make(4, TEST_SEGMENT_BYTES);
        batch_fill_all(&s->out[i], i * 10);
        batch_fill(&s->out[i], 2, 5000 + i, i); /* one that is not full */
        assert_ok(write_and_wait(s->t.spill, 1, i, &s->out[i], &s->extents[i], NULL));
        assert_int_equal(cbi_place_file(s->extents[i].place), 0);
    }
    s->file = open_spill_file(s->folder);
}

static void scene_fini(scene *s) {
    (void)cbi_sys_close(s->file);
    test_spill_close(&s->t);
    batch_free(&s->in);
    batch_free(&s->out[0]);
    batch_free(&s->out[1]);
}

static uint64_t start_of(const scene *s, uint32_t i) {
    return cbi_place_block(s->extents[i].place) * CBI_SPILL_ALIGN;
}

static void assert_intact(scene *s, uint32_t i) {
    assert_ok(read_and_wait(s->t.spill, 1, i, &s->extents[i], &s->in, NULL));
    assert_same_payload(&s->out[i], &s->in);
}

static void assert_damaged(scene *s, uint32_t i) {
    cb_error err;
    assert_status(read_and_wait(s->t.spill, 1, i, &s->extents[i], &s->in, &err), CB_ECORRUPT);
    assert_int_equal(err.status, CB_ECORRUPT);
    assert_non_null(strstr(err.message, s->folder));
}

static void flip_in_file(const scene *s, uint64_t at, unsigned bit) {
    uint8_t byte = 0;
    assert_int_equal(cbi_sys_pread(s->file, &byte, 1, at), 1);
    byte ^= (uint8_t)(1u << bit);
    assert_int_equal(cbi_sys_pwrite(s->file, &byte, 1, at), 0);
}

static void flip_everywhere(cb_codec codec) {
    scene s;
    scene_init(&s, codec);
    uint64_t start = start_of(&s, 0);
    uint64_t bytes = (uint64_t)s.extents[0].blocks * CBI_SPILL_ALIGN;
    for (uint64_t bit = 0; bit < CBI_FRAME_HEADER_BYTES * 8; bit++) {
        flip_in_file(&s, start + bit / 8, bit % 8);
        assert_damaged(&s, 0);
        flip_in_file(&s, start + bit / 8, bit % 8);
    }
    for (uint64_t at = 0; at < bytes; at += 512) {
        uint64_t byte = start + at + at / 512 * 37 % 512;
        flip_in_file(&s, byte, at / 512 % 8);
        assert_damaged(&s, 0);
        flip_in_file(&s, byte, at / 512 % 8);
    }
    assert_intact(&s, 1);
    assert_intact(&s, 0);
    scene_fini(&s);
}

static void test_a_flipped_bit_anywhere_in_the_file_is_found(void **state) {
    (void)state;
    flip_everywhere(CB_CODEC_NONE);
    flip_everywhere(CB_CODEC_LZ4);
    flip_everywhere(CB_CODEC_DELTA);
    flip_everywhere(CB_CODEC_NIBBLE);
}

static void test_extents_that_change_places_are_found(void **state) {
    (void)state;
    scene s;
    scene_init(&s, CB_CODEC_NONE);
    assert_int_equal(s.extents[0].blocks, s.extents[1].blocks);
    size_t bytes = (size_t)s.extents[0].blocks * CBI_SPILL_ALIGN;
    uint8_t *a = malloc(bytes);
    uint8_t *b = malloc(bytes);
    assert_int_equal(cbi_sys_pread(s.file, a, bytes, start_of(&s, 0)), bytes);
    assert_int_equal(cbi_sys_pread(s.file, b, bytes, start_of(&s, 1)), bytes);
    assert_int_equal(cbi_sys_pwrite(s.file, b, bytes, start_of(&s, 0)), 0);
    assert_int_equal(cbi_sys_pwrite(s.file, a, bytes, start_of(&s, 1)), 0);
    assert_damaged(&s, 0);
    assert_damaged(&s, 1);
    free(a);
    free(b);
    scene_fini(&s);
}

static void test_a_lost_write_is_found(void **state) {
    (void)state;
    scene s;
    scene_init(&s, CB_CODEC_NONE);
    uint8_t zeros[4096] = {0};
    assert_int_equal(cbi_sys_pwrite(s.file, zeros, sizeof zeros, start_of(&s, 0) + 8192), 0);
    assert_damaged(&s, 0);
    assert_intact(&s, 1);
    scene_fini(&s);
}

static void test_a_file_that_was_cut_off_is_found(void **state) {
    (void)state;
    for (cb_codec codec = CB_CODEC_NONE; codec <= CB_CODEC_NIBBLE; codec++) {
        scene s;
        scene_init(&s, codec);
        assert_int_equal(cbi_sys_truncate(s.file, start_of(&s, 1) + 4096), 0);
        assert_intact(&s, 0);
        assert_damaged(&s, 1);
        assert_int_equal(cbi_sys_truncate(s.file, 0), 0);
        assert_damaged(&s, 0);
        scene_fini(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_flipped_bit_anywhere_in_the_file_is_found),
        cmocka_unit_test(test_extents_that_change_places_are_found),
        cmocka_unit_test(test_a_lost_write_is_found),
        cmocka_unit_test(test_a_file_that_was_cut_off_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
