/* SPDX-License-Identifier: Apache-2.0 */
/* A map task's output comes back as it went in, whatever the parent gives, in any framing. */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <zlib.h>

#include "operator/shuffle_private.h"
#include "shuffle_kit.h"
#include "support/test.h"

enum {
    BATCH_BYTES = 32 * 1024,
    RECORD_BYTES_MAX = 900,
    BLOCK_BYTES = 4096,
    TABLES_BYTES_MAX = 64 * 1024
};

static cb_shuffle_options options_of(source *parent, uint32_t partitions, cb_shuffle_codec codec) {
    static const char *folder;
    folder = folder != NULL ? folder : test_folder();
    return (cb_shuffle_options){.struct_size = sizeof(cb_shuffle_options),
                                .partitions = partitions,
                                .codec = codec,
                                .block_bytes = BLOCK_BYTES,
                                .checksum = CB_CHECKSUM_ADLER32,
                                .parent = {source_acquire, source_release, parent},
                                .page_bytes = 256 * 1024,
                                .dirs = &folder,
                                .dir_count = 1};
}

static uint64_t mix(uint64_t x) {
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u, x ^= x >> 27, x *= 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static uint32_t partition_of(uint64_t i, uint32_t partitions) {
    return i % 7 == 0 ? 0 : (uint32_t)(mix(i) % partitions); /* one is larger than the others */
}

static uint32_t length_of(uint64_t i) {
    return (uint32_t)(mix(i + 77) % RECORD_BYTES_MAX);
}

/** Record i: its number over and over. */
static void fill(uint8_t *to, uint64_t i) {
    uint32_t length = length_of(i);
    for (uint32_t at = 0; at < length; at++) {
        to[at] = (uint8_t)(i >> 8 * (at % 8));
    }
}

static cb_status append(cb_shuffle *s, uint64_t records, uint32_t partitions, cb_error *err) {
    static _Thread_local uint8_t batch[BATCH_BYTES];
    size_t used = 0;
    for (uint64_t i = 0; i < records; i++) {
        uint32_t head[2] = {partition_of(i, partitions), length_of(i)};
        if (used + sizeof head + head[1] > sizeof batch) {
            cb_status status = cb_shuffle_append(s, batch, used, err);
            if (status != CB_OK) {
                return status;
            }
            used = 0;
        }
        memcpy(batch + used, head, sizeof head);
        fill(batch + used + sizeof head, i);
        used += sizeof head + head[1];
    }
    return cb_shuffle_append(s, batch, used, err);
}

static void check_file(const char *path, const cb_shuffle_options *o, uint64_t records,
                       const int64_t *lengths, const int64_t *checksums) {
    size_t bytes, room = records * RECORD_BYTES_MAX + 1, at = 0;
    char *file = test_read_file(path, &bytes);
    uint8_t *out = malloc(room), *expected = malloc(RECORD_BYTES_MAX);
    assert_true(out != NULL && expected != NULL);
    for (uint32_t p = 0; p < o->partitions; p++) {
        const uint8_t *in = (const uint8_t *)file + at;
        assert_true((size_t)lengths[p] <= bytes - at);
        assert_int_equal(checksums[p], adler32(1, in, (uInt)lengths[p]));
        size_t count = unpack(o, in, (size_t)lengths[p], out, room), seen = 0;
        for (uint64_t i = 0; i < records; i++) {
            if (partition_of(i, o->partitions) == p) {
                fill(expected, i);
                assert_true(length_of(i) <= count - seen);
                assert_memory_equal(out + seen, expected, length_of(i));
                seen += length_of(i);
            }
        }
        assert_int_equal(seen, count);
        at += (size_t)lengths[p];
    }
    assert_int_equal(at, bytes);
    free(expected);
    free(out);
    free(file);
}

/** Records through a shuffle with a parent of `limit` bytes, and out again; answers its spills. */
static uint64_t round_trip(cb_shuffle_codec codec, uint32_t partitions, uint64_t records,
                           uint64_t limit) {
    source parent = {.limit = limit};
    cb_shuffle_options o = options_of(&parent, partitions, codec);
    cb_shuffle *s;
    cb_error err;
    char path[TEST_PATH_MAX];
    int64_t *lengths = calloc(partitions, sizeof *lengths);
    int64_t *checksums = calloc(partitions, sizeof *checksums);
    assert_true(lengths != NULL && checksums != NULL);
    assert_ok(cb_shuffle_create(&o, &s, &err));
    assert_ok(append(s, records, partitions, &err));
    test_path(path, o.dirs[0], "shuffle.data");
    assert_ok(cb_shuffle_write(s, path, lengths, checksums, &err));
    assert_true(atomic_load(&parent.used) <= TABLES_BYTES_MAX);
    check_file(path, &o, records, lengths, checksums);
    cb_shuffle_figures f;
    cb_shuffle_get_figures(s, &f);
    assert_true(f.pages_peak <= limit);
    assert_status(cb_shuffle_write(s, path, lengths, checksums, &err), CB_EMISUSE);
    cb_shuffle_destroy(s);
    assert_int_equal(atomic_load(&parent.used), 0);
    free(checksums);
    free(lengths);
    return f.spills;
}

/* ---- tests ---- */

static void comes_back_from_memory_in_every_framing(void **state) {
    (void)state;
    for (int codec = CB_SHUFFLE_RAW; codec <= CB_SHUFFLE_ZSTD; codec++) {
        assert_int_equal(round_trip((cb_shuffle_codec)codec, 13, 3000, 1 << 30), 0);
        assert_int_equal(round_trip((cb_shuffle_codec)codec, 1, 500, 1 << 30), 0);
        assert_int_equal(round_trip((cb_shuffle_codec)codec, 700, 600, 1 << 30), 0);
        assert_int_equal(round_trip((cb_shuffle_codec)codec, 5, 0, 1 << 30), 0);
    }
}

static void comes_back_through_spills_in_every_framing(void **state) {
    (void)state;
    for (int codec = CB_SHUFFLE_RAW; codec <= CB_SHUFFLE_ZSTD; codec++) {
        uint64_t limit = codec == CB_SHUFFLE_LZ4_BLOCK ? 96 * 1024 : 256 * 1024;
        assert_true(round_trip((cb_shuffle_codec)codec, 13, 3000, limit) > 3);
    }
}

/** Nine to one: what does not fit as it came does when it is compressed as it comes. */
static void what_is_compressed_as_it_comes_need_not_leave(void **state) {
    (void)state;
    assert_true(round_trip(CB_SHUFFLE_RAW, 13, 3000, 512 * 1024) > 0);
    assert_int_equal(round_trip(CB_SHUFFLE_LZ4_BLOCK, 13, 3000, 512 * 1024), 0);
}

/** From raw pieces to blocks and back, refused at every step of the way. */
static void any_limit_gives_the_same_bytes(void **state) {
    (void)state;
    for (uint64_t limit = 48; limit < 420; limit += 11) {
        (void)round_trip(CB_SHUFFLE_LZ4_BLOCK, 13, 700, limit * 1024);
        (void)round_trip(CB_SHUFFLE_LZ4_BLOCK, 40, 1500, limit * 1024);
    }
}

/** 48 KiB hold a batch and hardly more: each goes to a run, and runs are merged before the end. */
static void comes_back_through_more_runs_than_are_read_at_once(void **state) {
    (void)state;
    assert_true(round_trip(CB_SHUFFLE_LZ4_BLOCK, 9, 4000, 48 * 1024) > 32);
}

static void what_is_short_of_little_spills_little(void **state) {
    (void)state;
    enum { RECORDS = 60000, PARTITIONS = 10 };
    source ample = {.limit = 256 * CBI_MIB}, parent = {0};
    cb_shuffle_options o = options_of(&ample, PARTITIONS, CB_SHUFFLE_LZ4_BLOCK);
    o.page_bytes = 64 * 1024;
    o.block_bytes = 512; /* what is packed shall take many pages */
    cb_shuffle *s;
    cb_error err;
    cb_shuffle_figures f;
    for (int round = 0; round < 2; round++) {
        assert_ok(cb_shuffle_create(&o, &s, &err));
        assert_ok(append(s, RECORDS, PARTITIONS, &err));
        cb_shuffle_get_figures(s, &f);
        if (round == 0) { /* what it draws when it can, and less than that */
            assert_int_equal(f.spills, 0);
            parent.limit = f.pages_peak * 6 / 10;
            o.parent.ctx = &parent;
            cb_shuffle_destroy(s);
        }
    }
    assert_int_equal(f.spills, 1);
    assert_in_range(f.spilled_bytes, 1, parent.limit * 2 / 3);
    int64_t lengths[PARTITIONS], checksums[PARTITIONS];
    char path[TEST_PATH_MAX];
    test_path(path, o.dirs[0], "shuffle.data");
    assert_ok(cb_shuffle_write(s, path, lengths, checksums, &err));
    check_file(path, &o, RECORDS, lengths, checksums);
    cb_shuffle_destroy(s);
    assert_int_equal(atomic_load(&parent.used), 0);
}

static void time_goes_to_one_thing_at_a_time(void **state) {
    (void)state;
    enum { RECORDS = 20000, PARTITIONS = 10 };
    source parent = {.limit = 192 * 1024};
    cb_shuffle_options o = options_of(&parent, PARTITIONS, CB_SHUFFLE_LZ4_BLOCK);
    cb_shuffle *s;
    cb_error err;
    int64_t lengths[PARTITIONS], checksums[PARTITIONS];
    char path[TEST_PATH_MAX];
    uint64_t start = cbi_sys_clock_ns();
    assert_ok(cb_shuffle_create(&o, &s, &err));
    assert_ok(append(s, RECORDS, PARTITIONS, &err));
    test_path(path, o.dirs[0], "shuffle.data");
    assert_ok(cb_shuffle_write(s, path, lengths, checksums, &err));
    uint64_t elapsed = cbi_sys_clock_ns() - start;
    cb_shuffle_figures f;
    cb_shuffle_get_figures(s, &f);
    assert_true(f.spills > 0);
    assert_true(f.copy_ns > 0 && f.compress_ns > 0 && f.spill_ns > 0 && f.merge_ns > 0);
    assert_in_range(f.write_ns, 1, elapsed);
    assert_true(f.copy_ns + f.compress_ns + f.spill_ns + f.merge_ns + f.write_ns <= elapsed);
    cb_shuffle_destroy(s);
}

/** Spark's page cache takes its own writers' spills, and is not what its off-heap budget counts. */
static void no_spill_goes_past_the_page_cache(void **state) {
    (void)state;
    enum { FILES_MAX = 1024 };
    source parent = {.limit = CBI_MIB};
    cb_shuffle_options o = options_of(&parent, 10, CB_SHUFFLE_LZ4_BLOCK);
    cb_shuffle *s;
    cb_error err;
    uint64_t released;
    assert_ok(cb_shuffle_create(&o, &s, &err));
    assert_ok(append(s, 1000, 10, &err));
    assert_ok(cb_shuffle_spill(s, &released, &err));
    assert_true(released > 0);
    for (int fd = 0; fd < FILES_MAX; fd++) {
        int flags = fcntl(fd, F_GETFL);
        assert_true(flags < 0 || (flags & O_PATH) != 0 || (flags & O_DIRECT) == 0);
    }
    cb_shuffle_destroy(s);
}

static void a_parent_with_nothing_is_a_refusal(void **state) {
    (void)state;
    source parent = {.limit = 0};
    cb_shuffle_options o = options_of(&parent, 3, CB_SHUFFLE_RAW);
    cb_shuffle *s;
    cb_error err;
    assert_ok(cb_shuffle_create(&o, &s, &err));
    assert_status(append(s, 10, 3, &err), CB_EBUDGET);
    cb_shuffle_destroy(s);
}

static void what_cannot_be_in_a_batch_is_refused(void **state) {
    (void)state;
    source parent = {.limit = 1 << 20};
    cb_shuffle_options o = options_of(&parent, 3, CB_SHUFFLE_RAW);
    cb_shuffle *s;
    cb_error err;
    assert_ok(cb_shuffle_create(&o, &s, &err));
    uint32_t good[3] = {2, 4, 7}, no_partition[3] = {3, 4, 7}, too_long[3] = {2, 5, 7};
    assert_ok(cb_shuffle_append(s, good, sizeof good, &err));
    assert_status(cb_shuffle_append(s, no_partition, sizeof good, &err), CB_EINVAL);
    assert_status(cb_shuffle_append(s, too_long, sizeof good, &err), CB_EINVAL);
    assert_status(cb_shuffle_append(s, good, 7, &err), CB_EINVAL);
    cb_shuffle_destroy(s);
    o.partitions = 0;
    assert_status(cb_shuffle_create(&o, &s, &err), CB_EINVAL);
}

typedef struct spiller {
    cb_shuffle *shuffle;
    _Atomic bool stop;
} spiller;

static void *spill_often(void *ctx) {
    spiller *work = ctx;
    while (!atomic_load(&work->stop)) {
        uint64_t released;
        cb_error err;
        if (cb_shuffle_spill(work->shuffle, &released, &err) != CB_OK) {
            return ctx;
        }
    }
    return NULL;
}

static void another_thread_may_spill_at_any_moment(void **state) {
    (void)state;
    enum { RECORDS = 60000, PARTITIONS = 6 };
    source parent = {.limit = 1 << 20};
    cb_shuffle_options o = options_of(&parent, PARTITIONS, CB_SHUFFLE_LZ4_BLOCK);
    spiller work = {0};
    cb_error err;
    char path[TEST_PATH_MAX];
    int64_t lengths[PARTITIONS], checksums[PARTITIONS];
    assert_ok(cb_shuffle_create(&o, &work.shuffle, &err));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, spill_often, &work), 0);
    assert_ok(append(work.shuffle, RECORDS, PARTITIONS, &err));
    test_path(path, o.dirs[0], "spilled.data");
    assert_ok(cb_shuffle_write(work.shuffle, path, lengths, checksums, &err));
    atomic_store(&work.stop, true);
    void *failed;
    assert_int_equal(pthread_join(thread, &failed), 0);
    assert_null(failed);
    check_file(path, &o, RECORDS, lengths, checksums);
    cb_shuffle_destroy(work.shuffle);
    assert_int_equal(atomic_load(&parent.used), 0);
}

/** A parent in whose release one thread stays until another has asked for a spill, and waits or has
 * its answer. */
typedef struct slow_source {
    source bytes; /* first: it is what source_acquire() takes */
    cb_shuffle *shuffle;
    bool armed;
    pthread_t thread;
    _Atomic int asking; /* the thread's number */
    _Atomic bool answered;
    cb_status status;
    uint64_t heard;
} slow_source;

static void *ask_for_a_spill(void *ctx) {
    slow_source *slow = ctx;
    cb_error err;
    atomic_store(&slow->asking, (int)syscall(SYS_gettid));
    slow->status = cb_shuffle_spill(slow->shuffle, &slow->heard, &err);
    atomic_store(&slow->answered, true);
    return NULL;
}

static bool sleeps(int thread) {
    char path[64], text[256] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    FILE *file = fopen(path, "re");
    size_t count = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file != NULL) {
        (void)fclose(file);
    }
    text[count] = 0;
    const char *end = strrchr(text, ')');
    return end != NULL && strncmp(end, ") S", 3) == 0;
}

static void slow_release(void *ctx, cb_mode mode, uint64_t bytes) {
    slow_source *slow = ctx;
    if (slow->armed) {
        slow->armed = false;
        assert_int_equal(pthread_create(&slow->thread, NULL, ask_for_a_spill, slow), 0);
        int thread;
        do {
            (void)sched_yield();
            thread = atomic_load(&slow->asking);
        } while (!atomic_load(&slow->answered) && (thread == 0 || !sleeps(thread)));
    }
    source_release(ctx, mode, bytes);
}

/** Spark would go on to the next, or to a refusal, though the bytes are there in a moment. */
static void who_asks_while_pages_are_given_back_hears_of_them(void **state) {
    (void)state;
    slow_source slow = {.bytes = {.limit = 1 << 20}};
    cb_shuffle_options o = options_of(&slow.bytes, 10, CB_SHUFFLE_LZ4_BLOCK);
    o.parent = (cb_parent){source_acquire, slow_release, &slow};
    cb_error err;
    uint64_t released;
    assert_ok(cb_shuffle_create(&o, &slow.shuffle, &err));
    assert_ok(append(slow.shuffle, 1000, 10, &err));
    slow.armed = true;
    assert_ok(cb_shuffle_spill(slow.shuffle, &released, &err));
    assert_false(slow.armed);
    assert_int_equal(pthread_join(slow.thread, NULL), 0);
    assert_ok(slow.status);
    assert_true(released > 0);
    assert_true(slow.heard > 0);
    assert_ok(cb_shuffle_spill(slow.shuffle, &released, &err));
    assert_int_equal(released, 0);
    cb_shuffle_destroy(slow.shuffle);
    assert_int_equal(atomic_load(&slow.bytes.used), 0);
}

static void crc32c_is_the_one_of_the_books(void **state) {
    (void)state;
    source parent = {.limit = 1 << 20};
    cb_shuffle_options o = options_of(&parent, 1, CB_SHUFFLE_RAW);
    o.checksum = CB_CHECKSUM_CRC32C;
    cb_shuffle *s;
    cb_error err;
    char path[TEST_PATH_MAX];
    int64_t length, checksum;
    uint8_t batch[17] = {0, 0, 0, 0, 9, 0, 0, 0, '1', '2', '3', '4', '5', '6', '7', '8', '9'};
    assert_ok(cb_shuffle_create(&o, &s, &err));
    assert_ok(cb_shuffle_append(s, batch, sizeof batch, &err));
    test_path(path, o.dirs[0], "crc.data");
    assert_ok(cb_shuffle_write(s, path, &length, &checksum, &err));
    assert_int_equal(length, 9);
    assert_int_equal(checksum, 0xe3069283);
    cb_shuffle_destroy(s);
}

static void adler32_is_that_of_zlib(void **state) {
    (void)state;
    enum { BYTES = 20000 };
    static uint8_t bytes[BYTES];
    for (int full = 0; full < 2; full++) {
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = full ? UINT8_MAX : (uint8_t)mix(i);
        }
        for (size_t count = 0; count < sizeof bytes; count += 1 + count / 16) {
            const uint8_t *from = bytes + count % 16;
            size_t length = count - count % 16;
            uint32_t start = (uint32_t)adler32(1, bytes, (uInt)(count / 2));
            assert_int_equal(cbi_checksum_update(CB_CHECKSUM_ADLER32, start, from, length),
                             adler32(start, from, (uInt)length));
            assert_int_equal(cbi_checksum_update(CB_CHECKSUM_ADLER32, 1, bytes, count),
                             adler32(1, bytes, (uInt)count));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_from_memory_in_every_framing),
        cmocka_unit_test(comes_back_through_spills_in_every_framing),
        cmocka_unit_test(what_is_compressed_as_it_comes_need_not_leave),
        cmocka_unit_test(any_limit_gives_the_same_bytes),
        cmocka_unit_test(comes_back_through_more_runs_than_are_read_at_once),
        cmocka_unit_test(what_is_short_of_little_spills_little),
        cmocka_unit_test(time_goes_to_one_thing_at_a_time),
        cmocka_unit_test(no_spill_goes_past_the_page_cache),
        cmocka_unit_test(a_parent_with_nothing_is_a_refusal),
        cmocka_unit_test(what_cannot_be_in_a_batch_is_refused),
        cmocka_unit_test(another_thread_may_spill_at_any_moment),
        cmocka_unit_test(who_asks_while_pages_are_given_back_hears_of_them),
        cmocka_unit_test(adler32_is_that_of_zlib),
        cmocka_unit_test(crc32c_is_the_one_of_the_books),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
