/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "batch.h"
#include "spill/file.h"

static const char *folder_of_test;

static cbi_spill_options options_with(cb_codec codec) {
    return (cbi_spill_options){.dirs = &folder_of_test, .dir_count = 1, .codec = codec};
}

static int set_up(void **state) {
    (void)state;
    folder_of_test = test_folder();
    return 0;
}

/* ---- round trips ---- */

static void round_trip(cbi_spill_options options, uint32_t count, uint32_t capacity,
                       uint32_t used_of_each) {
    test_spill t;
    assert_ok(test_spill_open(&t, options, NULL));
    batch out = batch_make(count, capacity);
    batch in = batch_make(count, capacity);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t used = used_of_each != 0 ? used_of_each : (i * 7919u + 13) % batch_room(&out, i);
        batch_fill(&out, i, used, i);
    }
    cbi_extent extent;
    assert_ok(write_and_wait(t.spill, 7, 3, &out, &extent, NULL));
    assert_int_equal(extent.segments, count);
    assert_ok(read_and_wait(t.spill, 7, 3, &extent, &in, NULL));
    assert_same_payload(&out, &in);
    cbi_spill_free(t.spill, &extent);
    cbi_spill_stats stats;
    cbi_spill_get_stats(t.spill, &stats);
    assert_int_equal(stats.live_bytes, 0);
    assert_int_equal(stats.stored_bytes, (uint64_t)extent.blocks * CBI_SPILL_ALIGN);
    assert_int_equal(stats.read_bytes, stats.stored_bytes);
    batch_free(&out);
    batch_free(&in);
    test_spill_close(&t);
}

static void test_full_segments_come_back_as_they_were(void **state) {
    (void)state;
    round_trip(options_with(CB_CODEC_NONE), 32, TEST_SEGMENT_BYTES,
               TEST_SEGMENT_BYTES - CBI_FRAME_HEADER_BYTES);
}

static void test_partly_filled_segments_come_back_each_in_its_own(void **state) {
    (void)state;
    round_trip(options_with(CB_CODEC_NONE), 32, TEST_SEGMENT_BYTES, 0);
    round_trip(options_with(CB_CODEC_NONE), 5, 64 * 1024, 1);
    round_trip(options_with(CB_CODEC_NONE), 1, 4096, 0);
}

static void test_more_segments_than_one_vector_holds(void **state) {
    (void)state;
    round_trip(options_with(CB_CODEC_NONE), 96, TEST_SEGMENT_BYTES, 0);
    round_trip(options_with(CB_CODEC_LZ4), 96, TEST_SEGMENT_BYTES, 0);
    round_trip(options_with(CB_CODEC_DELTA), 96, TEST_SEGMENT_BYTES, 0);
    round_trip(options_with(CB_CODEC_NIBBLE), 96, TEST_SEGMENT_BYTES, 0);
}

static void test_packed_segments_come_back_as_they_were(void **state) {
    (void)state;
    round_trip(options_with(CB_CODEC_DELTA), 16, TEST_SEGMENT_BYTES, 0);
    round_trip(options_with(CB_CODEC_AUTO), 32, TEST_SEGMENT_BYTES, 0);
    round_trip(options_with(CB_CODEC_LZ4), 16, TEST_SEGMENT_BYTES, 0);
    round_trip(options_with(CB_CODEC_LZ4), 32, TEST_SEGMENT_BYTES,
               TEST_SEGMENT_BYTES - CBI_FRAME_HEADER_BYTES);
}

/* Neighbours in memory are moved as one piece. */
static void test_segments_that_touch_come_back_as_they_were(void **state) {
    (void)state;
    test_spill t;
    assert_ok(test_spill_open(&t, options_with(CB_CODEC_NONE), NULL));
    batch wide[2] = {batch_make(1, 8 * 8192), batch_make(1, 8 * 8192)};
    batch out = {.count = 8};
    batch in = {.count = 8};
    for (uint32_t i = 0; i < 8; i++) {
        out.segments[i] = (cbi_spill_segment){wide[0].segments[0].base + (size_t)i * 8192, 8192, 0};
        in.segments[i] = (cbi_spill_segment){wide[1].segments[0].base + (size_t)i * 8192, 8192, 0};
    }
    cbi_extent extent;
    for (uint32_t used = 8192 - 48; used > 3000; used -= 2500) {
        for (uint32_t i = 0; i < 8; i++) {
            batch_fill(&out, i, i == 3 ? 5 : used, i);
        }
        assert_ok(write_and_wait(t.spill, 1, used, &out, &extent, NULL));
        assert_ok(read_and_wait(t.spill, 1, used, &extent, &in, NULL));
        assert_same_payload(&out, &in);
    }
    batch_free(&wide[0]);
    batch_free(&wide[1]);
    test_spill_close(&t);
}

static void test_segments_larger_than_the_staging_memory_are_written_raw(void **state) {
    (void)state;
    round_trip(options_with(CB_CODEC_NONE), 1, 8 * 1024 * 1024, 0);
    round_trip(options_with(CB_CODEC_LZ4), 2, 8 * 1024 * 1024, 7 * 1024 * 1024 + 5);
}

static void test_buffered_and_named_files_do_the_same(void **state) {
    (void)state;
    cbi_spill_options options = options_with(CB_CODEC_LZ4);
    options.buffered = true;
    round_trip(options, 32, TEST_SEGMENT_BYTES, 0);
    options.named_files = true;
    round_trip(options, 32, TEST_SEGMENT_BYTES, 0);
    options.codec = CB_CODEC_NONE;
    round_trip(options, 32, TEST_SEGMENT_BYTES, 0);
}

static void test_lz4_takes_less_space_and_noise_is_kept_raw(void **state) {
    (void)state;
    test_spill t;
    assert_ok(test_spill_open(&t, options_with(CB_CODEC_LZ4), NULL));
    batch out = batch_make(16, TEST_SEGMENT_BYTES);
    batch in = batch_make(16, TEST_SEGMENT_BYTES);
    batch_fill_all(&out, 1);
    cbi_extent words, noise;
    assert_ok(write_and_wait(t.spill, 1, 1, &out, &words, NULL));
    assert_true(words.blocks < 16 * TEST_SEGMENT_BYTES / CBI_SPILL_ALIGN * 3 / 4);
    for (uint32_t i = 0; i < out.count; i++) {
        batch_fill_noise(&out, i, batch_room(&out, i), i);
    }
    assert_ok(write_and_wait(t.spill, 1, 2, &out, &noise, NULL));
    assert_int_equal(noise.blocks, 16 * TEST_SEGMENT_BYTES / CBI_SPILL_ALIGN);
    assert_ok(read_and_wait(t.spill, 1, 2, &noise, &in, NULL));
    assert_same_payload(&out, &in);
    batch_free(&out);
    batch_free(&in);
    test_spill_close(&t);
}

/* Padding beyond the next block's start is the caller's memory and is neither written nor touched.
 */
static void test_only_the_padding_of_the_last_block_is_touched(void **state) {
    (void)state;
    test_spill t;
    assert_ok(test_spill_open(&t, options_with(CB_CODEC_NONE), NULL));
    batch out = batch_make(1, 16 * 1024);
    batch_fill(&out, 0, 100, 1);
    cbi_extent extent;
    assert_ok(write_and_wait(t.spill, 1, 1, &out, &extent, NULL));
    assert_int_equal(extent.blocks, 1);
    assert_int_equal(out.segments[0].base[4095], 0);
    assert_int_equal(out.segments[0].base[4096], 0xa5);
    batch_free(&out);
    test_spill_close(&t);
}

static void test_several_folders_are_striped(void **state) {
    (void)state;
    const char *dirs[3] = {test_folder(), test_folder(), test_folder()};
    cbi_spill_options options = {.dirs = dirs, .dir_count = 3, .codec = CB_CODEC_NONE};
    test_spill t;
    assert_ok(test_spill_open(&t, options, NULL));
    enum { EXTENTS = 9 };
    batch out = batch_make(4, TEST_SEGMENT_BYTES);
    batch in = batch_make(4, TEST_SEGMENT_BYTES);
    cbi_extent extents[EXTENTS];
    uint32_t files_seen[EXTENTS];
    for (uint32_t i = 0; i < EXTENTS; i++) {
        batch_fill_all(&out, i * 100);
        assert_ok(write_and_wait(t.spill, 0, i, &out, &extents[i], NULL));
        files_seen[i] = cbi_place_file(extents[i].place);
    }
    for (uint32_t i = 0; i < EXTENTS; i++) {
        assert_int_equal(files_seen[i], files_seen[i % 3]);
        batch_fill_all(&out, i * 100);
        assert_ok(read_and_wait(t.spill, 0, i, &extents[i], &in, NULL));
        assert_same_payload(&out, &in);
    }
    assert_int_not_equal(files_seen[0], files_seen[1]);
    assert_int_not_equal(files_seen[1], files_seen[2]);
    batch_free(&out);
    batch_free(&in);
    test_spill_close(&t);
}

/* Many at once, so that they are merged; each is an extent of its own all the same. */
static void test_small_batches_written_together_come_back_one_by_one(void **state) {
    (void)state;
    enum { BATCHES = 200, SEGMENTS = 3 };
    cbi_spill_options options = options_with(CB_CODEC_NONE);
    options.io_threads = 1;
    test_spill t;
    assert_ok(test_spill_open(&t, options, NULL));
    static batch out[BATCHES];
    static answer answers[BATCHES];
    for (uint32_t i = 0; i < BATCHES; i++) {
        out[i] = batch_make(SEGMENTS, 8192);
        for (uint32_t k = 0; k < SEGMENTS; k++) {
            batch_fill(&out[i], k, (i * 977 + k * 3001) % batch_room(&out[i], k), i * 8 + k);
        }
        answer_init(&answers[i]);
        assert_ok(cbi_spill_write(t.spill, i, i + 1, out[i].segments, SEGMENTS, answer_done,
                                  &answers[i], NULL));
    }
    batch in = batch_make(SEGMENTS, 8192);
    for (uint32_t i = 0; i < BATCHES; i++) {
        assert_ok(answer_wait(&answers[i]));
        assert_ok(read_and_wait(t.spill, i, i + 1, &answers[i].extent, &in, NULL));
        assert_same_payload(&out[i], &in);
        cbi_spill_free(t.spill, &answers[i].extent);
        batch_free(&out[i]);
    }
    cbi_spill_stats stats;
    cbi_spill_get_stats(t.spill, &stats);
    assert_int_equal(stats.live_bytes, 0);
    batch_free(&in);
    test_spill_close(&t);
}

/* ---- somebody else's extent ---- */

static void test_an_extent_of_another_owner_is_not_given_out(void **state) {
    (void)state;
    cb_error err;
    test_spill t;
    assert_ok(test_spill_open(&t, options_with(CB_CODEC_LZ4), NULL));
    batch out = batch_make(4, TEST_SEGMENT_BYTES);
    batch in = batch_make(4, TEST_SEGMENT_BYTES);
    batch_fill_all(&out, 5);
    cbi_extent a, b;
    assert_ok(write_and_wait(t.spill, 1, 1, &out, &a, NULL));
    assert_ok(write_and_wait(t.spill, 1, 2, &out, &b, NULL));
    assert_status(read_and_wait(t.spill, 2, 1, &a, &in, &err), CB_ECORRUPT);
    assert_non_null(strstr(err.message, "another one lies there"));
    assert_non_null(strstr(err.message, folder_of_test));
    assert_status(read_and_wait(t.spill, 1, 1, &b, &in, &err), CB_ECORRUPT);
    assert_status(read_and_wait(t.spill, 1, 2, &a, &in, &err), CB_ECORRUPT);
    assert_ok(read_and_wait(t.spill, 1, 2, &b, &in,
                            &err)); /* a failed read is not the end of the others */
    batch_free(&out);
    batch_free(&in);
    test_spill_close(&t);
}

static void test_nonsense_is_refused_at_once(void **state) {
    (void)state;
    test_spill t;
    assert_ok(test_spill_open(&t, options_with(CB_CODEC_NONE), NULL));
    batch b = batch_make(2, TEST_SEGMENT_BYTES);
    batch_fill_all(&b, 5);
    cbi_extent extent;
    assert_ok(write_and_wait(t.spill, 1, 1, &b, &extent, NULL));
    b.count = 1;
    assert_status(read_and_wait(t.spill, 1, 1, &extent, &b, NULL), CB_EMISUSE);
    b.count = 0;
    assert_status(write_and_wait(t.spill, 1, 1, &b, &extent, NULL), CB_EMISUSE);
    b.count = 2;
    b.segments[1].used = TEST_SEGMENT_BYTES;
    assert_status(write_and_wait(t.spill, 1, 1, &b, &extent, NULL), CB_EMISUSE);
    b.segments[1].used = 1;
    b.segments[1].base += 16;
    assert_status(write_and_wait(t.spill, 1, 1, &b, &extent, NULL), CB_EMISUSE);
    b.segments[1].base -= 16;
    batch_free(&b);
    test_spill_close(&t);
}

static void test_options_that_cannot_be_are_refused(void **state) {
    (void)state;
    cb_error err;
    cbi_spill *spill = NULL;
    cbi_spill_options options = {
        .dirs = &folder_of_test, .dir_count = 1, .io_threads = 2, .segment_bytes = 16384};
    options.codec = CB_CODEC_LZ4; /* without staging memory */
    assert_status(cbi_spill_open(&options, &spill, &err), CB_EINVAL);
    options.codec = CB_CODEC_NONE;
    options.io_threads = 9;
    assert_status(cbi_spill_open(&options, &spill, &err), CB_EINVAL);
    options.codec = CB_CODEC_LZ4; /* nobody there to compress */
    options.io_threads = 0;
    assert_status(cbi_spill_open(&options, &spill, &err), CB_EINVAL);
    options.codec = CB_CODEC_NONE;
    options.io_threads = 1;
    options.dir_count = 0;
    assert_status(cbi_spill_open(&options, &spill, &err), CB_EINVAL);
    const char *nowhere = "/nonexistent/carbide";
    options.dirs = &nowhere;
    options.dir_count = 1;
    assert_status(cbi_spill_open(&options, &spill, &err), CB_EIO);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_non_null(strstr(err.message, nowhere));
    assert_null(spill);
    cbi_spill_close(NULL);
}

/* ---- space ---- */

static void test_the_limit_stops_the_spill_and_says_what_to_do(void **state) {
    (void)state;
    cb_error err;
    cbi_spill_options options = options_with(CB_CODEC_NONE);
    options.limit_bytes = 1024 * 1024;
    test_spill t;
    assert_ok(test_spill_open(&t, options, NULL));
    batch out = batch_make(16, TEST_SEGMENT_BYTES);
    batch_fill_all(&out, 5);
    cbi_extent extents[5];
    for (uint32_t i = 0; i < 4; i++) {
        assert_ok(write_and_wait(t.spill, i * 40, 1, &out, &extents[i], &err));
    }
    assert_status(write_and_wait(t.spill, 1, 1, &out, &extents[4], &err), CB_ENOSPC);
    assert_non_null(strstr(err.message, "--temp-limit"));
    assert_int_equal(err.bytes_asked, 16 * TEST_SEGMENT_BYTES);
    /* What failed once fails at once. */
    cb_error again;
    assert_status(
        cbi_spill_write(t.spill, 1, 1, out.segments, out.count, answer_done, NULL, &again),
        CB_ENOSPC);
    assert_string_equal(err.message, again.message);
    /* Reading goes on. */
    assert_ok(read_and_wait(t.spill, 40, 1, &extents[1], &out, &err));
    batch_free(&out);
    test_spill_close(&t);
}

static void test_freed_places_are_used_again(void **state) {
    (void)state;
    cbi_spill_options options = options_with(CB_CODEC_NONE);
    options.limit_bytes = 1024 * 1024;
    test_spill t;
    assert_ok(test_spill_open(&t, options, NULL));
    batch out = batch_make(16, TEST_SEGMENT_BYTES);
    batch in = batch_make(16, TEST_SEGMENT_BYTES);
    cbi_extent extents[4];
    for (uint32_t i = 0; i < 100; i++) {
        if (i >= 4) {
            cbi_spill_free(t.spill, &extents[i % 4]);
        }
        batch_fill_all(&out, i);
        assert_ok(write_and_wait(t.spill, i, i, &out, &extents[i % 4], NULL));
        assert_ok(read_and_wait(t.spill, i, i, &extents[i % 4], &in, NULL));
        assert_same_payload(&out, &in);
    }
    batch_free(&out);
    batch_free(&in);
    test_spill_close(&t);
}

static void test_free_space_counts_a_file_system_once(void **state) {
    (void)state;
    const char *dirs[2] = {folder_of_test, folder_of_test};
    uint64_t one = 0, both = 0;
    bool in_memory = false;
    assert_ok(cbi_spill_space(dirs, 1, &one, &in_memory, NULL));
    assert_ok(cbi_spill_space(dirs, 2, &both, &in_memory, NULL));
    assert_true(one > 0);
    assert_true(both < one + one / 2);
    const char *nowhere = "/nonexistent/carbide";
    assert_status(cbi_spill_space(&nowhere, 1, &one, &in_memory, NULL), CB_EIO);
}

static void test_a_folder_in_memory_is_refused(void **state) {
    (void)state;
    const char *memory = "/dev/shm";
    uint64_t bytes = 0;
    bool in_memory = false;
    if (cbi_spill_space(&memory, 1, &bytes, &in_memory, NULL) != CB_OK || !in_memory) {
        skip();
    }
    cb_error err;
    cbi_spill *spill = NULL;
    cbi_spill_options options = {
        .dirs = &memory, .dir_count = 1, .io_threads = 1, .codec = CB_CODEC_NONE};
    assert_status(cbi_spill_open(&options, &spill, &err), CB_EUNSUPPORTED);
    assert_non_null(strstr(err.message, memory));
    options.allow_memory_fs = true;
    if (cbi_spill_open(&options, &spill, &err) == CB_OK) {
        cbi_spill_close(spill);
    }
}

/* ---- output ---- */

static void test_output_is_written_where_it_was_asked(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, folder_of_test, "output");
    int fd = cbi_sys_open(path, O_CREAT | O_RDWR, 0600);
    assert_true(fd >= 0);
    test_spill t;
    assert_ok(test_spill_open(&t, options_with(CB_CODEC_NONE), NULL));
    uint8_t text[2][4] = {"abc", "xyz"};
    answer a[2];
    for (int i = 0; i < 2; i++) {
        answer_init(&a[i]);
        assert_ok(cbi_spill_pwrite(t.spill, fd, text[i], 3, (uint64_t)(1 - i) * 3, answer_done,
                                   &a[i], NULL));
    }
    assert_ok(answer_wait(&a[0]));
    assert_ok(answer_wait(&a[1]));
    size_t count = 0;
    char *all = test_read_file(path, &count);
    assert_int_equal(count, 6);
    assert_string_equal(all, "xyzabc");
    free(all);
    test_spill_close(&t);
    (void)cbi_sys_close(fd);
}

static void test_a_failed_output_stops_output_and_not_reading(void **state) {
    (void)state;
    cb_error err;
    test_spill t;
    assert_ok(test_spill_open(&t, options_with(CB_CODEC_NONE), NULL));
    batch out = batch_make(1, TEST_SEGMENT_BYTES);
    batch_fill_all(&out, 1);
    cbi_extent extent;
    assert_ok(write_and_wait(t.spill, 1, 1, &out, &extent, NULL));
    int fd = cbi_sys_open("/dev/full", O_WRONLY, 0);
    assert_true(fd >= 0);
    uint8_t text[4] = "abc";
    answer a;
    answer_init(&a);
    assert_ok(cbi_spill_pwrite(t.spill, fd, text, 3, 0, answer_done, &a, NULL));
    assert_status(answer_wait(&a), CB_EIO);
    assert_int_equal(a.err.sys_errno, ENOSPC);
    assert_status(cbi_spill_pwrite(t.spill, fd, text, 3, 0, answer_done, &a, &err), CB_EIO);
    assert_ok(read_and_wait(t.spill, 1, 1, &extent, &out, NULL));
    batch_free(&out);
    test_spill_close(&t);
    (void)cbi_sys_close(fd);
}

/* ---- all at once ---- */

typedef struct stress {
    test_spill *t;
    uint32_t number;
    int output;
} stress;

enum { STRESS_LIVE = 24, STRESS_ROUNDS = 150, STRESS_OUTPUT_BYTES = 8192 };

static void check_one(const stress *s, const cbi_extent *extent, uint32_t sequence, batch *expected,
                      batch *in) {
    cb_error err;
    for (uint32_t k = 0; k < expected->count; k++) {
        batch_fill(expected, k, (sequence * 131 + k * 977) % batch_room(expected, k),
                   sequence * 8 + k);
    }
    if (read_and_wait(s->t->spill, s->number, sequence, extent, in, &err) != CB_OK) {
        fail_msg("%s", err.message);
    }
    assert_same_payload(expected, in);
    cbi_spill_free(s->t->spill, extent);
}

/* Writes, reads back and frees in an order of its own, with output in between. */
static void run_stress(void *ctx) {
    stress *s = ctx;
    cb_error err;
    batch out = batch_make(4, 8192);
    batch in = batch_make(4, 8192);
    cbi_extent extents[STRESS_LIVE];
    uint32_t sequences[STRESS_LIVE];
    uint32_t live = 0;
    uint64_t seed = s->number;
    for (uint32_t i = 0; i < STRESS_ROUNDS || live > 0; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t pick = live > 0 ? (uint32_t)(seed >> 33) % live : 0;
        if (live == STRESS_LIVE || i >= STRESS_ROUNDS || (live > 0 && (seed >> 20) % 3 == 0)) {
            check_one(s, &extents[pick], sequences[pick], &out, &in);
            live--;
            extents[pick] = extents[live];
            sequences[pick] = sequences[live];
            continue;
        }
        for (uint32_t k = 0; k < out.count; k++) {
            batch_fill(&out, k, (i * 131 + k * 977) % batch_room(&out, k), i * 8 + k);
        }
        assert_ok(write_and_wait(s->t->spill, s->number, i, &out, &extents[live], &err));
        sequences[live++] = i;
        answer a;
        answer_init(&a);
        uint64_t offset = (uint64_t)s->number * STRESS_OUTPUT_BYTES;
        assert_ok(cbi_spill_pwrite(s->t->spill, s->output, in.segments[0].base, STRESS_OUTPUT_BYTES,
                                   offset, answer_done, &a, &err));
        assert_ok(answer_wait(&a));
        cbi_spill_stats stats;
        cbi_spill_get_stats(s->t->spill, &stats);
        assert_true(stats.live_bytes <= stats.live_peak_bytes);
    }
    batch_free(&out);
    batch_free(&in);
}

static void test_many_threads_at_once(void **state) {
    (void)state;
    enum { THREADS = 6 };
    const char *dirs[2] = {folder_of_test, test_folder()};
    char path[TEST_PATH_MAX];
    int output = cbi_sys_open(test_path(path, folder_of_test, "output"), O_CREAT | O_RDWR, 0600);
    assert_true(output >= 0);
    const cb_codec codecs[] = {CB_CODEC_NONE, CB_CODEC_LZ4, CB_CODEC_AUTO};
    for (int c = 0; c < 3; c++) {
        cbi_spill_options options = {
            .dirs = dirs, .dir_count = 2, .codec = codecs[c], .io_threads = 4};
        test_spill t;
        assert_ok(test_spill_open(&t, options, NULL));
        cbi_thread threads[THREADS];
        stress parts[THREADS];
        for (uint32_t i = 0; i < THREADS; i++) {
            parts[i] = (stress){&t, i, output};
            assert_ok(cbi_thread_start(&threads[i], run_stress, &parts[i], "stress", NULL));
        }
        for (uint32_t i = 0; i < THREADS; i++) {
            cbi_thread_join(&threads[i]);
        }
        cbi_spill_stats stats;
        cbi_spill_get_stats(t.spill, &stats);
        assert_int_equal(stats.live_bytes, 0);
        test_spill_close(&t);
    }
    (void)cbi_sys_close(output);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_full_segments_come_back_as_they_were, set_up),
        cmocka_unit_test_setup(test_partly_filled_segments_come_back_each_in_its_own, set_up),
        cmocka_unit_test_setup(test_more_segments_than_one_vector_holds, set_up),
        cmocka_unit_test_setup(test_packed_segments_come_back_as_they_were, set_up),
        cmocka_unit_test_setup(test_segments_that_touch_come_back_as_they_were, set_up),
        cmocka_unit_test_setup(test_segments_larger_than_the_staging_memory_are_written_raw,
                               set_up),
        cmocka_unit_test_setup(test_buffered_and_named_files_do_the_same, set_up),
        cmocka_unit_test_setup(test_lz4_takes_less_space_and_noise_is_kept_raw, set_up),
        cmocka_unit_test_setup(test_only_the_padding_of_the_last_block_is_touched, set_up),
        cmocka_unit_test_setup(test_several_folders_are_striped, set_up),
        cmocka_unit_test_setup(test_small_batches_written_together_come_back_one_by_one, set_up),
        cmocka_unit_test_setup(test_an_extent_of_another_owner_is_not_given_out, set_up),
        cmocka_unit_test_setup(test_nonsense_is_refused_at_once, set_up),
        cmocka_unit_test_setup(test_options_that_cannot_be_are_refused, set_up),
        cmocka_unit_test_setup(test_the_limit_stops_the_spill_and_says_what_to_do, set_up),
        cmocka_unit_test_setup(test_freed_places_are_used_again, set_up),
        cmocka_unit_test_setup(test_free_space_counts_a_file_system_once, set_up),
        cmocka_unit_test_setup(test_a_folder_in_memory_is_refused, set_up),
        cmocka_unit_test_setup(test_output_is_written_where_it_was_asked, set_up),
        cmocka_unit_test_setup(test_a_failed_output_stops_output_and_not_reading, set_up),
        cmocka_unit_test_setup(test_many_threads_at_once, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
