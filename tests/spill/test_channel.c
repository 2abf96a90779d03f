/* SPDX-License-Identifier: Apache-2.0 */
/* Streams on disk: what was written through one view comes back through others. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "carbide/carbide.h"
#include "support/test.h"

enum { SEGMENT = 16 * 1024, SEGMENTS = 256 };

typedef struct stage {
    cb_manager *manager;
    cb_task *task;
    cb_segment_pool *pool;
    cb_segment_owner *owner;
    cb_channels *channels;
    cb_channel *channel;
    cb_segment s[16];
} stage;

static bool no_threads; /* of the next stage's */

static cb_status open_stage(stage *g, cb_codec codec, uint64_t limit, cb_error *err) {
    *g = (stage){0};
    cb_manager_options manager = cb_manager_options_native((SEGMENTS + 8) * SEGMENT);
    CB_TRY(cb_manager_create(&manager, &g->manager, err));
    cb_task_options task = {.struct_size = sizeof task, .id = 1};
    CB_TRY(cb_task_create(g->manager, &task, &g->task, err));
    cb_segment_pool_options pool = {.struct_size = sizeof pool,
                                    .task = g->task,
                                    .segment_bytes = SEGMENT,
                                    .segments_max = SEGMENTS};
    CB_TRY(cb_segment_pool_create(&pool, &g->pool, err));
    CB_TRY(cb_segment_owner_create(g->pool, "channels", &g->owner, err));
    static const char *folder;
    folder = folder != NULL ? folder : test_folder();
    cb_channels_options options = {.struct_size = sizeof options,
                                   .pool = g->pool,
                                   .dirs = &folder,
                                   .dir_count = 1,
                                   .limit_bytes = limit,
                                   .codec = codec,
                                   .no_threads = no_threads,
                                   .allow_memory_fs = true};
    CB_TRY(cb_channels_open(&options, &g->channels, err));
    CB_TRY(cb_channel_create(g->channels, &g->channel, err));
    return cb_segment_take(g->owner, 16, g->s, err);
}

static void close_stage(stage *g) {
    cb_channel_destroy(g->channel);
    cb_channels_close(g->channels);
    if (g->owner != NULL) {
        (void)cb_segment_owner_give_all(g->owner);
        assert_int_equal(cb_segment_pool_free_count(g->pool), SEGMENTS);
    }
    cb_segment_pool_destroy(g->pool);
    assert_int_equal(cb_task_end(g->task, NULL, 0), 0);
    cb_manager_destroy(g->manager);
}

static uint64_t mix(uint64_t x) {
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u, x ^= x >> 27, x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/** Records {u64 number, u32 length, bytes}; lengths below `length_max`. */
static cb_status write_records(cb_output_view *v, uint64_t count, uint32_t length_max,
                               cb_error *err) {
    static uint8_t bytes[200000];
    for (uint64_t i = 0; i < count; i++) {
        uint32_t length = (uint32_t)(mix(i) % length_max);
        memset(bytes, (int)(i % 251), length);
        CB_TRY(cb_output_view_write_u64(v, i, err));
        CB_TRY(cb_output_view_write_u32(v, length, err));
        CB_TRY(cb_output_view_write(v, bytes, length, err));
    }
    return CB_OK;
}

static void read_records(cb_input_view *v, uint64_t count, uint32_t length_max) {
    static uint8_t bytes[200000], expected[200000];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t number = 0;
        uint32_t length = 0;
        assert_ok(cb_input_view_read_u64(v, &number, NULL));
        assert_ok(cb_input_view_read_u32(v, &length, NULL));
        assert_int_equal(number, i);
        assert_int_equal(length, mix(i) % length_max);
        assert_ok(cb_input_view_read_fully(v, bytes, length, NULL));
        memset(expected, (int)(i % 251), length);
        assert_memory_equal(bytes, expected, length);
    }
}

static void write_channel(stage *g, size_t segments, uint64_t count, uint32_t length_max) {
    cb_channel_writer *w = NULL;
    assert_ok(cb_channel_writer_open(g->channel, g->s, segments, &w, NULL));
    assert_ok(write_records(cb_channel_writer_view(w), count, length_max, NULL));
    assert_ok(cb_channel_writer_finish(w, NULL));
    cb_channel_writer_close(w);
}

static void round_trip(cb_codec codec, size_t segments, uint64_t count, uint32_t length_max) {
    stage g;
    assert_ok(open_stage(&g, codec, 0, NULL));
    write_channel(&g, segments, count, length_max);
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < count; i++) {
        bytes += 12 + mix(i) % length_max;
    }
    assert_int_equal(cb_channel_bytes(g.channel), bytes);
    for (int again = 0; again < 2; again++) {
        cb_channel_reader *r = NULL;
        assert_ok(cb_channel_reader_open(g.channel, g.s, segments, &r, NULL));
        cb_input_view *v = cb_channel_reader_view(r);
        read_records(v, count, length_max);
        uint8_t c = 0;
        for (int i = 0; i < 3; i++) { /* the end stays the end */
            assert_status(cb_input_view_read_u8(v, &c, NULL), CB_EEND);
        }
        cb_channel_reader_close(r);
    }
    close_stage(&g);
}

static void test_small_records_come_back(void **state) {
    (void)state;
    round_trip(CB_CODEC_NONE, 4, 20000, 100);
    round_trip(CB_CODEC_LZ4, 4, 20000, 100);
    round_trip(CB_CODEC_AUTO, 16, 20000, 100);
}

static void test_records_longer_than_a_segment_come_back(void **state) {
    (void)state;
    round_trip(CB_CODEC_NONE, 3, 60, 200000);
    round_trip(CB_CODEC_LZ4, 3, 60, 200000);
}

static void test_one_segment_is_enough(void **state) {
    (void)state;
    round_trip(CB_CODEC_NONE, 1, 5000, 300);
}

static size_t threads_of_process(void) {
    DIR *folder = opendir("/proc/self/task");
    size_t count = 0;
    assert_non_null(folder);
    if (folder != NULL) {
        while (readdir(folder) != NULL) {
            count++;
        }
        (void)closedir(folder);
    }
    return count;
}

static void test_who_asks_may_move_the_bytes(void **state) {
    (void)state;
    no_threads = true;
    for (size_t segments = 1; segments < 5; segments += 3) {
        round_trip(CB_CODEC_NONE, segments, 5000, 300);
        round_trip(CB_CODEC_NONE, segments, 60, 200000);
        round_trip(CB_CODEC_NONE, segments, 0, 10);
    }
    stage g;
    size_t before = threads_of_process();
    assert_ok(open_stage(&g, CB_CODEC_NONE, 0, NULL));
    write_channel(&g, 2, 1000, 300);
    assert_int_equal(threads_of_process(), before);
    close_stage(&g);
    assert_ok(open_stage(&g, CB_CODEC_NONE, 64 * 1024, NULL)); /* the limit */
    cb_channel_writer *w = NULL;
    assert_ok(cb_channel_writer_open(g.channel, g.s, 2, &w, NULL));
    assert_status(write_records(cb_channel_writer_view(w), 5000, 300, NULL), CB_ENOSPC);
    cb_channel_writer_close(w);
    close_stage(&g);
    assert_status(open_stage(&g, CB_CODEC_LZ4, 0, NULL), CB_EINVAL); /* it has no memory for one */
    close_stage(&g);
    no_threads = false;
}

static void test_channel_of_nothing_and_of_less_than_a_segment(void **state) {
    (void)state;
    round_trip(CB_CODEC_NONE, 4, 0, 10);
    round_trip(CB_CODEC_NONE, 4, 1, 10);
}

static void test_reader_need_not_read_all(void **state) {
    (void)state;
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_NONE, 0, NULL));
    write_channel(&g, 4, 10000, 100);
    cb_channel_reader *r = NULL, *second = NULL;
    assert_ok(cb_channel_reader_open(g.channel, g.s, 4, &r, NULL));
    read_records(cb_channel_reader_view(r), 4000, 100);
    assert_ok(cb_channel_reader_open(g.channel, g.s + 4, 12, &second, NULL)); /* both at a time */
    read_records(cb_channel_reader_view(second), 10000, 100);
    cb_channel_reader_close(r);
    cb_channel_reader_close(second);
    close_stage(&g);
}

static void test_channels_do_not_mix(void **state) {
    (void)state;
    enum { CHANNELS = 5 };
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_LZ4, 0, NULL));
    cb_channel *c[CHANNELS];
    cb_channel_writer *w[CHANNELS];
    for (int i = 0; i < CHANNELS; i++) {
        assert_ok(cb_channel_create(g.channels, &c[i], NULL));
        assert_ok(cb_channel_writer_open(c[i], &g.s[i * 3], 3, &w[i], NULL));
    }
    for (uint32_t n = 0; n < 50000; n++) {
        assert_ok(cb_output_view_write_u32(cb_channel_writer_view(w[n % CHANNELS]), n, NULL));
    }
    for (int i = 0; i < CHANNELS; i++) {
        assert_ok(cb_channel_writer_finish(w[i], NULL));
        cb_channel_writer_close(w[i]);
    }
    for (int i = CHANNELS; i-- > 0;) {
        cb_channel_reader *r = NULL;
        assert_ok(cb_channel_reader_open(c[i], g.s, 2, &r, NULL));
        for (uint32_t n = (uint32_t)i; n < 50000; n += CHANNELS) {
            uint32_t value = 0;
            assert_ok(cb_input_view_read_u32(cb_channel_reader_view(r), &value, NULL));
            assert_int_equal(value, n);
        }
        cb_channel_reader_close(r);
        cb_channel_destroy(c[i]);
    }
    close_stage(&g);
}

static void test_channel_is_written_once_and_then_read(void **state) {
    (void)state;
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_NONE, 0, NULL));
    cb_channel_writer *w = NULL, *other = NULL;
    cb_channel_reader *r = NULL;
    cb_error why = {0};
    assert_status(cb_channel_reader_open(g.channel, g.s, 1, &r, &why), CB_EMISUSE);
    assert_non_null(strstr(why.message, "not been finished"));
    assert_ok(cb_channel_writer_open(g.channel, g.s, 2, &w, NULL));
    assert_status(cb_channel_writer_open(g.channel, g.s + 2, 2, &other, NULL), CB_EMISUSE);
    assert_ok(write_records(cb_channel_writer_view(w), 1000, 200, NULL));
    cb_channel_writer_close(w); /* given up: the channel is empty again */
    assert_int_equal(cb_channel_segments(g.channel), 0);
    assert_int_equal(cb_channel_bytes(g.channel), 0);
    assert_ok(cb_channel_writer_open(g.channel, g.s, 2, &w, NULL));
    assert_ok(write_records(cb_channel_writer_view(w), 1000, 200, NULL));
    assert_ok(cb_channel_writer_finish(w, NULL));
    assert_status(cb_channel_writer_finish(w, NULL), CB_EMISUSE);
    assert_status(cb_output_view_write_u8(cb_channel_writer_view(w), 1, &why), CB_EMISUSE);
    assert_non_null(strstr(why.message, "has been finished"));
    cb_channel_writer_close(w);
    assert_status(cb_channel_writer_open(g.channel, g.s, 2, &w, NULL), CB_EMISUSE);
    assert_ok(cb_channel_reader_open(g.channel, g.s, 2, &r, NULL));
    read_records(cb_channel_reader_view(r), 1000, 200);
    cb_channel_reader_close(r);
    cb_channel_reader_close(NULL);
    cb_channel_writer_close(NULL);
    cb_channel_destroy(NULL);
    cb_channels_close(NULL);
    close_stage(&g);
}

static void test_segments_that_do_not_fit_are_refused(void **state) {
    (void)state;
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_NONE, 0, NULL));
    cb_channel_writer *w = NULL;
    cb_channel_reader *r = NULL;
    cb_segment two[2] = {g.s[0], g.s[1]}, stale = g.s[15];
    assert_status(cb_channel_writer_open(g.channel, g.s, 0, &w, NULL), CB_EINVAL);
    assert_ok(cb_segment_wrap(g.s[1].data, 4096, &two[1], NULL)); /* another size */
    assert_status(cb_channel_writer_open(g.channel, two, 2, &w, NULL), CB_EINVAL);
    assert_ok(cb_segment_wrap(g.s[1].data + 8, 8192, &two[0], NULL)); /* not aligned */
    assert_status(cb_channel_writer_open(g.channel, two, 1, &w, NULL), CB_EINVAL);
    assert_ok(cb_segment_give(&g.s[15], NULL));
    assert_status(cb_channel_writer_open(g.channel, &stale, 1, &w, NULL), CB_EMISUSE);
    write_channel(&g, 2, 1000, 100);
    assert_ok(cb_segment_wrap(g.s[1].data, 4096, &two[1], NULL)); /* smaller than when written */
    assert_status(cb_channel_reader_open(g.channel, &two[1], 1, &r, NULL), CB_EINVAL);
    assert_null(w);
    assert_null(r);
    cb_channels_options bad = {.struct_size = sizeof bad, .pool = g.pool};
    cb_channels *none = NULL;
    assert_status(cb_channels_open(&bad, &none, NULL), CB_EINVAL);
    const char *folder = test_folder();
    bad.dirs = &folder;
    bad.dir_count = 1;
    bad.codec = CB_CODEC_LZ4;
    bad.allow_memory_fs = true;
    void *rest = cb_segment_pool_take(g.pool, cb_segment_pool_free_count(g.pool));
    assert_non_null(rest);
    assert_status(cb_channels_open(&bad, &none, NULL), CB_EBUDGET);
    cb_segment_pool_give(g.pool, rest, SEGMENTS - 15);
    assert_null(none);
    close_stage(&g);
}

static void test_segment_given_back_under_a_writer_is_caught(void **state) {
    (void)state;
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_NONE, 0, NULL));
    cb_channel_writer *w = NULL;
    assert_ok(cb_channel_writer_open(g.channel, g.s, 1, &w, NULL));
    assert_ok(cb_output_view_write_u8(cb_channel_writer_view(w), 1, NULL));
    assert_ok(cb_segment_give(&g.s[0], NULL));
    assert_status(cb_output_view_write_u8(cb_channel_writer_view(w), 1, NULL), CB_EMISUSE);
    assert_status(cb_channel_writer_finish(w, NULL), CB_EMISUSE);
    cb_channel_writer_close(w);
    close_stage(&g);
}

static void test_disk_that_is_full_fails_the_writer_and_nothing_else(void **state) {
    (void)state;
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_NONE, 10 * SEGMENT, NULL));
    cb_channel_writer *w = NULL;
    assert_ok(cb_channel_writer_open(g.channel, g.s, 4, &w, NULL));
    cb_error why = {0};
    assert_status(write_records(cb_channel_writer_view(w), 100000, 100, &why), CB_ENOSPC);
    assert_string_not_equal(why.message, "");
    assert_status(cb_channel_writer_finish(w, NULL), CB_ENOSPC);
    cb_channel_reader *r = NULL;
    assert_status(cb_channel_reader_open(g.channel, g.s + 4, 1, &r, NULL), CB_EMISUSE);
    cb_channel_writer_close(w);
    assert_int_equal(cb_channel_segments(g.channel), 0);
    close_stage(&g);
}

static void test_any_place_of_a_channel_can_be_read(void **state) {
    (void)state;
    enum { COUNT = 40000 };
    for (size_t segments = 1; segments < 6; segments += 2) {
        stage g;
        assert_ok(open_stage(&g, CB_CODEC_AUTO, 0, NULL));
        cb_channel_writer *w = NULL;
        cb_channel_reader *r = NULL;
        assert_ok(cb_channel_writer_open(g.channel, g.s, 4, &w, NULL));
        for (uint64_t i = 0; i < COUNT; i++) {
            assert_ok(cb_output_view_write_u64(cb_channel_writer_view(w), i, NULL));
        }
        assert_ok(cb_channel_writer_finish(w, NULL));
        cb_channel_writer_close(w);
        assert_ok(cb_channel_reader_open(g.channel, g.s, segments, &r, NULL));
        for (uint64_t i = 0; i < 200; i++) {
            uint64_t k = i < 3 ? COUNT - 1 - i : mix(i) % COUNT, value = 0;
            assert_ok(cb_channel_reader_seek(r, k * 8, NULL));
            for (uint64_t n = k; n < COUNT && n < k + 3000; n++) {
                assert_ok(cb_input_view_read_u64(cb_channel_reader_view(r), &value, NULL));
                assert_int_equal(value, n);
            }
        }
        uint8_t c = 0;
        assert_ok(cb_channel_reader_seek(r, COUNT * 8, NULL));
        assert_status(cb_input_view_read_u8(cb_channel_reader_view(r), &c, NULL), CB_EEND);
        cb_error why = {0};
        assert_status(cb_channel_reader_seek(r, COUNT * 8 + 1, &why), CB_EINVAL);
        assert_non_null(strstr(why.message, "behind the end"));
        cb_channel_reader_close(r);
        close_stage(&g);
    }
}

static void test_places_are_not_counted_over_segments_that_are_not_full(void **state) {
    (void)state;
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_NONE, 0, NULL));
    cb_channel_writer *w = NULL;
    cb_channel_reader *r = NULL;
    assert_ok(cb_channel_writer_open(g.channel, g.s, 2, &w, NULL));
    for (uint32_t i = 0; i < 5; i++) {
        assert_ok(cb_output_view_write_u32(cb_channel_writer_view(w), i, NULL));
        assert_ok(cb_output_view_advance(cb_channel_writer_view(w), NULL));
    }
    assert_ok(cb_channel_writer_finish(w, NULL));
    cb_channel_writer_close(w);
    assert_int_equal(cb_channel_segments(g.channel), 5);
    assert_ok(cb_channel_reader_open(g.channel, g.s, 2, &r, NULL));
    assert_status(cb_channel_reader_seek(r, 4, NULL), CB_EINVAL);
    for (uint32_t i = 0; i < 5; i++) {
        uint32_t value = 0;
        assert_ok(cb_input_view_read_u32(cb_channel_reader_view(r), &value, NULL));
        assert_int_equal(value, i);
    }
    cb_channel_reader_close(r);
    close_stage(&g);
}

/** Writes `count` records to a stream that has `free_segments` for it, and reads them twice. */
static void spill_stream(size_t free_segments, uint64_t count, bool to_disk, uint64_t too_many) {
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_NONE, 0, NULL));
    size_t others = cb_segment_pool_free_count(g.pool) - free_segments;
    void *taken = cb_segment_pool_take(g.pool, others);
    assert_non_null(taken);
    cb_spilling *s = NULL;
    assert_ok(cb_spilling_create(g.channel, g.owner, &s, NULL));
    assert_ok(write_records(cb_spilling_view(s), count, 1000, NULL));
    assert_int_equal(cb_spilling_is_on_disk(s), to_disk);
    for (int i = 0; i < 2; i++) {
        cb_input_view *v = NULL;
        assert_ok(cb_spilling_read(s, &v, NULL));
        read_records(v, i == 0 ? count : count / 2, 1000);
        uint8_t c = 0;
        for (uint64_t k = 0; i == 0 && k < too_many; k++) {
            assert_status(cb_input_view_read_u8(v, &c, NULL), CB_EEND);
        }
    }
    assert_status(cb_output_view_write_u8(cb_spilling_view(s), 1, NULL), CB_EMISUSE);
    cb_spilling_destroy(s);
    assert_int_equal(cb_segment_owner_count(g.owner), 16);
    cb_segment_pool_give(g.pool, taken, others);
    close_stage(&g);
}

static void test_stream_stays_in_memory_while_there_is_some(void **state) {
    (void)state;
    spill_stream(100, 2000, false, 0);
    spill_stream(100, 2000, false, 3);
    spill_stream(1, 10, false, 3);
    spill_stream(1, 0, false, 3);
}

static void test_stream_goes_to_disk_when_memory_runs_out(void **state) {
    (void)state;
    spill_stream(20, 8000, true, 0);
    spill_stream(20, 8000, true, 3);
    spill_stream(1, 200, true, 3);
}

static void test_stream_needs_a_segment_and_an_empty_channel(void **state) {
    (void)state;
    stage g;
    assert_ok(open_stage(&g, CB_CODEC_NONE, 0, NULL));
    size_t others = cb_segment_pool_free_count(g.pool);
    void *taken = cb_segment_pool_take(g.pool, others);
    cb_spilling *s = NULL;
    assert_ok(cb_spilling_create(g.channel, g.owner, &s, NULL));
    assert_status(cb_output_view_write_u8(cb_spilling_view(s), 1, NULL), CB_EBUDGET);
    cb_spilling_destroy(s);
    cb_segment_pool_give(g.pool, taken, others);
    write_channel(&g, 1, 10, 10);
    assert_status(cb_spilling_create(g.channel, g.owner, &s, NULL), CB_EMISUSE);
    cb_spilling_destroy(NULL);
    close_stage(&g);
}

/** One life of a channel; what fails must say so and leave nothing. */
static cb_status whole_life(void) {
    stage g;
    cb_error err = {0};
    cb_channel_writer *w = NULL;
    cb_channel_reader *r = NULL;
    cb_status status = open_stage(&g, no_threads ? CB_CODEC_NONE : CB_CODEC_LZ4, 0, &err);
    if (status == CB_OK) {
        status = cb_channel_writer_open(g.channel, g.s, 3, &w, &err);
    }
    if (status == CB_OK) { /* more segments than there is room to note at first */
        status = write_records(cb_channel_writer_view(w), 400, 10000, &err);
    }
    if (status == CB_OK) {
        status = cb_channel_writer_finish(w, &err);
    }
    if (status == CB_OK) {
        status = cb_channel_reader_open(g.channel, g.s + 3, 2, &r, &err);
    }
    if (status == CB_OK) {
        uint64_t number = 1;
        status = cb_input_view_read_u64(cb_channel_reader_view(r), &number, &err);
    }
    cb_channel *channel = NULL;
    cb_spilling *s = NULL;
    cb_input_view *v = NULL;
    if (status == CB_OK) {
        status = cb_channel_create(g.channels, &channel, &err);
    }
    if (status == CB_OK) {
        status = cb_spilling_create(channel, g.owner, &s, &err);
    }
    if (status == CB_OK) { /* more than the pool has */
        status = write_records(cb_spilling_view(s), 1100, 10000, &err);
    }
    if (status == CB_OK) {
        status = cb_spilling_read(s, &v, &err);
    }
    if (status != CB_OK) {
        assert_string_not_equal(err.message, "");
    }
    cb_spilling_destroy(s);
    cb_channel_reader_close(r);
    cb_channel_writer_close(w);
    cb_channel_destroy(channel);
    close_stage(&g);
    return status;
}

static void fail_each(unsigned kinds, int sys_errno, bool for_ever) {
    assert_ok(whole_life()); /* what is made once is there */
    size_t before = cbi_alloc_bytes();
    uint64_t n = 1;
    for (bool fired = true; fired && n < 300; n++) {
        cbi_fault_arm(kinds, n, for_ever, sys_errno);
        cb_status status = whole_life();
        fired = cbi_fault_fired();
        cbi_fault_arm(0, 0, false, 0);
        assert_true(fired || status == CB_OK);
        assert_int_equal(cbi_alloc_bytes(), before);
    }
}

static void test_every_fault_is_answered_and_leaves_nothing(void **state) {
    (void)state;
    for (int way = 0; way < 4; way++) {
        bool for_ever = way % 2 != 0;
        no_threads = way >= 2;
        fail_each(CBI_FAULT_ALLOC, ENOMEM, for_ever);
        fail_each(CBI_FAULT_THREAD, EAGAIN, for_ever);
        fail_each(CBI_FAULT_OPEN, EACCES, for_ever);
        fail_each(CBI_FAULT_WRITE, EIO, for_ever);
        fail_each(CBI_FAULT_READ, EIO, for_ever);
    }
    no_threads = false;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_records_come_back),
        cmocka_unit_test(test_records_longer_than_a_segment_come_back),
        cmocka_unit_test(test_one_segment_is_enough),
        cmocka_unit_test(test_who_asks_may_move_the_bytes),
        cmocka_unit_test(test_channel_of_nothing_and_of_less_than_a_segment),
        cmocka_unit_test(test_reader_need_not_read_all),
        cmocka_unit_test(test_channels_do_not_mix),
        cmocka_unit_test(test_channel_is_written_once_and_then_read),
        cmocka_unit_test(test_segments_that_do_not_fit_are_refused),
        cmocka_unit_test(test_segment_given_back_under_a_writer_is_caught),
        cmocka_unit_test(test_disk_that_is_full_fails_the_writer_and_nothing_else),
        cmocka_unit_test(test_any_place_of_a_channel_can_be_read),
        cmocka_unit_test(test_places_are_not_counted_over_segments_that_are_not_full),
        cmocka_unit_test(test_stream_stays_in_memory_while_there_is_some),
        cmocka_unit_test(test_stream_goes_to_disk_when_memory_runs_out),
        cmocka_unit_test(test_stream_needs_a_segment_and_an_empty_channel),
        cmocka_unit_test(test_every_fault_is_answered_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
