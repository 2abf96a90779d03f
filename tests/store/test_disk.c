/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what comes back from disk is what went there or an error that says so, and nothing is left
 * or lost. Method: blocks of all sizes through all codecs; every byte of a file changed, every
 * length cut; a limit that is reached while blocks must leave.
 */
#include "block_kit.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/sum.h"

#define DISK CB_LEVEL_DISK_ONLY
#define BOTH_SER CB_LEVEL_MEMORY_AND_DISK_SER

/** The files below a folder, but the owner's; the last one's path into `path`. */
static int count_files(const char *folder, char path[TEST_PATH_MAX]) {
    int count = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char below[TEST_PATH_MAX];
        struct stat st;
        if (e->d_name[0] == '.') {
            continue;
        }
        test_path(below, folder, e->d_name);
        assert_int_equal(lstat(below, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            count += count_files(below, path);
        } else if (strcmp(e->d_name, "owner") != 0) {
            (void)snprintf(path, TEST_PATH_MAX, "%s", below);
            count++;
        }
    }
    (void)closedir(d);
    return count;
}

static void test_disk__every_size_through_every_codec(void **state) {
    const size_t sizes[] = {0,      1,      100,    4095,   65535,   65536,
                            262143, 262144, 262145, 524288, 1000000, 3 << 20};
    (void)state;
    for (int codec = 0; codec < 3; codec++) {
        kit k;
        kit_open(&k, (kit_options){.heap = 8 << 20, .disk = true, .codec = (cb_block_codec)codec});
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char on_disk[32], both[32];
            (void)snprintf(on_disk, sizeof on_disk, "disk_%zu", i);
            (void)snprintf(both, sizeof both, "both_%zu", i);
            assert_ok(kit_put(&k, on_disk, DISK, sizes[i]));
            assert_ok(kit_check(&k, on_disk, sizes[i]));
            assert_ok(kit_put(&k, both, BOTH_SER, sizes[i]));
            assert_ok(kit_check(&k, both, sizes[i])); /* memory and disk read the same */
        }
        kit_close(&k);
        char path[TEST_PATH_MAX];
        assert_int_equal(count_files(k.folder, path), 0);
    }
}

static void test_disk__sizes_are_tracked_and_files_go_with_their_blocks(void **state) {
    (void)state;
    kit k;
    char path[TEST_PATH_MAX];
    struct stat st;
    cb_block_status status;
    kit_open(&k, (kit_options){.heap = 1 << 20, .disk = true, .files = true});
    assert_ok(kit_put(&k, "rdd_1_2", DISK, 60000));
    assert_int_equal(count_files(k.folder, path), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_ok(cb_blocks_status(k.blocks, "rdd_1_2", &status, NULL));
    assert_int_equal(status.disk_bytes, st.st_size);
    assert_ok(cb_blocks_remove(k.blocks, k.task, "rdd_1_2", NULL));
    assert_int_equal(count_files(k.folder, path), 0);
    cb_blocks_stats stats;
    cb_blocks_stats_get(k.blocks, &stats);
    assert_int_equal(stats.disk_bytes, 0);
    kit_close(&k);
}

static void flip(const char *path, size_t at, uint8_t mask) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    (void)fseek(f, (long)at, SEEK_SET);
    int c = fgetc(f);
    (void)fseek(f, (long)at, SEEK_SET);
    (void)fputc(c ^ mask, f);
    (void)fclose(f);
}

static void test_disk__no_changed_byte_gets_through(void **state) {
    (void)state;
    for (int codec = 0; codec < 3; codec++) {
        kit k;
        char path[TEST_PATH_MAX];
        struct stat st;
        kit_open(&k,
                 (kit_options){
                     .heap = 1 << 20, .disk = true, .files = true, .codec = (cb_block_codec)codec});
        assert_ok(kit_put(&k, "b", DISK, 900));
        assert_int_equal(count_files(k.folder, path), 1);
        assert_int_equal(stat(path, &st), 0);
        size_t bytes = (size_t)st.st_size;
        for (size_t at = 0; at < bytes; at++) {
            flip(path, at, (uint8_t)(1u << at % 8));
            cb_status status = kit_check(&k, "b", 900);
            assert_int_equal(status, CB_ECORRUPT);
            assert_false(kit_exists(&k, "b")); /* it is gone, and may be put again */
            assert_ok(kit_put(&k, "b", DISK, 900));
        }
        for (size_t cut = 0; cut < bytes; cut += 7) {
            assert_int_equal(truncate(path, (off_t)cut), 0);
            assert_status(kit_check(&k, "b", 900), CB_ECORRUPT);
            assert_ok(kit_put(&k, "b", DISK, 900));
        }
        assert_ok(kit_check(&k, "b", 900));
        kit_close(&k);
    }
}

/** Blocks that go past the page cache: where memory for blocks is large, from a full frame on. */
static void test_disk__large_blocks_go_straight_to_disk_and_come_back(void **state) {
    const size_t sizes[] = {262143, 262144, 300000, 1 << 20, 1113520, 1 << 21, 5000001};
    (void)state;
    for (int codec = 0; codec < 3; codec++) {
        kit k;
        char path[TEST_PATH_MAX];
        struct stat st;
        cb_block_status status;
        kit_open(
            &k, (kit_options){
                    .heap = 64 << 20, .disk = true, .files = true, .codec = (cb_block_codec)codec});
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            assert_ok(kit_put(&k, "b", DISK, sizes[i]));
            assert_ok(kit_check(&k, "b", sizes[i]));
            assert_int_equal(count_files(k.folder, path), 1);
            assert_int_equal(stat(path, &st), 0);
            assert_ok(cb_blocks_status(k.blocks, "b", &status, NULL));
            assert_int_equal(status.disk_bytes, st.st_size);
            size_t bytes =
                (size_t)st.st_size; /* header, some of the middle, the zeros at the end */
            for (size_t n = 0; n < 40; n++) {
                size_t at = n < 10 ? n * 51 : n < 30 ? bytes / 30 * n : bytes - 1 - (n - 30);
                flip(path, at, (uint8_t)(1u << n % 8));
                assert_status(kit_check(&k, "b", sizes[i]), CB_ECORRUPT);
                assert_false(kit_exists(&k, "b"));
                assert_ok(kit_put(&k, "b", DISK, sizes[i]));
            }
            assert_int_equal(truncate(path, (off_t)bytes - 1), 0);
            assert_status(kit_check(&k, "b", sizes[i]), CB_ECORRUPT);
        }
        kit_close(&k);
    }
}

static void test_disk__many_that_leave_at_once_are_all_there(void **state) {
    (void)state;
    kit k;
    char name[32];
    cb_blocks_stats s;
    kit_open(&k, (kit_options){.heap = 40 << 20, .rules = CB_RULES_SPARK, .disk = true});
    for (int i = 0; i < 38; i++) {
        (void)snprintf(name, sizeof name, "b%d", i);
        assert_ok(kit_put(&k, name, BOTH_SER, 1 << 20));
    }
    assert_ok(kit_put(&k, "big", CB_LEVEL_MEMORY_ONLY_SER, 30 << 20));
    cb_blocks_stats_get(k.blocks, &s);
    assert_int_equal(s.evicted, 28);
    assert_int_equal(s.disk_blocks, 28);
    for (int i = 0; i < 38; i++) {
        (void)snprintf(name, sizeof name, "b%d", i);
        assert_ok(kit_check(&k, name, 1 << 20));
    }
    kit_close(&k);
}

static void test_disk__one_blocks_file_is_not_anothers(void **state) {
    (void)state;
    kit k;
    char first[TEST_PATH_MAX], second[TEST_PATH_MAX];
    kit_open(&k, (kit_options){.heap = 1 << 20, .disk = true, .files = true});
    assert_ok(kit_put(&k, "b1", DISK, 900));
    assert_int_equal(count_files(k.folder, first), 1);
    assert_ok(cb_blocks_remove(k.blocks, k.task, "b1", NULL));
    assert_ok(kit_put(&k, "b2", DISK, 900));
    assert_int_equal(count_files(k.folder, second), 1);
    size_t count = 0;
    char *bytes = test_read_file(second, &count);
    assert_ok(kit_put(&k, "b1", DISK, 900));
    test_write_file(first, bytes, count);
    free(bytes);
    assert_status(kit_check(&k, "b1", 900), CB_ECORRUPT);
    assert_ok(kit_check(&k, "b2", 900));
    kit_close(&k);
}

static void test_disk__a_file_that_is_missing_is_a_block_that_is_gone(void **state) {
    (void)state;
    kit k;
    char path[TEST_PATH_MAX];
    kit_open(&k, (kit_options){.heap = 4096, .rules = CB_RULES_SPARK, .disk = true, .files = true});
    assert_ok(kit_put(&k, "b", BOTH_SER, 4000));
    assert_ok(kit_put(&k, "c", CB_LEVEL_MEMORY_ONLY_SER, 4000));
    assert_false(kit_in_memory(&k, "b"));
    assert_int_equal(count_files(k.folder, path), 1);
    assert_int_equal(unlink(path), 0);
    assert_status(kit_check(&k, "b", 4000), CB_EIO);
    assert_false(kit_exists(&k, "b"));
    assert_int_equal(k.last.level, CB_LEVEL_NONE);
    assert_status(kit_check(&k, "b", 4000), CB_ENOTFOUND);
    kit_close(&k);
}

static void test_disk__a_block_that_cannot_be_dropped_stays(void **state) {
    (void)state;
    kit k;
    cb_blocks_stats s;
    char path[TEST_PATH_MAX];
    kit_open(
        &k,
        (kit_options){
            .heap = 12000, .rules = CB_RULES_SPARK, .disk = true, .files = true, .disk_max = 5000});
    assert_ok(kit_put(&k, "a1", BOTH_SER, 4000));
    assert_ok(kit_put(&k, "a2", BOTH_SER, 4000));
    assert_ok(kit_put(&k, "a3", BOTH_SER, 4000));
    assert_ok(kit_put(&k, "a4", BOTH_SER, 4000)); /* a1 fits on disk */
    assert_true(kit_on_disk(&k, "a1"));
    cb_error err = {.message = ""};
    uint8_t bytes[4000] = {0};
    assert_status(cb_blocks_put_bytes(k.blocks, k.task, "a5", BOTH_SER, NULL, bytes, sizeof bytes,
                                      NULL, &err),
                  CB_ENOSPC);
    assert_non_null(strstr(err.message, "may take 5000 bytes"));
    assert_true(kit_in_memory(&k, "a2") && kit_in_memory(&k, "a3") && kit_in_memory(&k, "a4"));
    assert_false(kit_exists(&k, "a5"));
    cb_blocks_stats_get(k.blocks, &s);
    assert_true(s.drops_failed > 0);
    assert_int_equal(count_files(k.folder, path), 1); /* nothing half-written */
    /* all are readable, and those in memory are not marked for ever */
    assert_ok(kit_check(&k, "a2", 4000));
    assert_ok(kit_check(&k, "a3", 4000));
    assert_ok(kit_check(&k, "a4", 4000));
    assert_ok(cb_blocks_remove(k.blocks, k.task, "a1", NULL));
    assert_ok(kit_put(&k, "a5", BOTH_SER, 4000)); /* there is room again */
    for (int i = 2; i <= 5; i++) {
        char name[4] = {'a', (char)('0' + i), 0, 0};
        assert_ok(kit_check(&k, name, 4000));
    }
    kit_close(&k);
}

static void test_disk__records_that_cannot_be_written_stay(void **state) {
    (void)state;
    kit k;
    kit_open(&k,
             (kit_options){.heap = 12000, .rules = CB_RULES_SPARK, .disk = true, .unroll = 512});
    assert_ok(kit_put_records(&k, "a1", CB_LEVEL_MEMORY_AND_DISK, 40, 110, NULL));
    assert_ok(kit_put_records(&k, "a2", CB_LEVEL_MEMORY_AND_DISK, 40, 110, NULL));
    k.fail_writes = 1;
    assert_status(kit_put(&k, "a3", CB_LEVEL_MEMORY_ONLY_SER, 8000), CB_EBUDGET);
    assert_ok(kit_check_records(&k, "a1", 40, 110));
    assert_ok(kit_check_records(&k, "a2", 40, 110));
    k.fail_writes = 0;
    assert_ok(kit_put(&k, "a3", CB_LEVEL_MEMORY_ONLY_SER, 8000));
    assert_ok(kit_check_records(&k, "a1", 40, 110));
    assert_ok(kit_check_records(&k, "a2", 40, 110));
    kit_close(&k);
}

static void test_disk__a_store_without_a_folder_says_so(void **state) {
    (void)state;
    kit k;
    kit_open(&k, (kit_options){.heap = 1 << 20});
    assert_status(kit_put(&k, "b", DISK, 10), CB_EINVAL);
    assert_ok(kit_put(&k, "b", CB_LEVEL_MEMORY_ONLY_SER, 10));
    kit_close(&k);
    cb_blocks *blocks = NULL;
    cb_manager *m = NULL;
    cb_manager_options mo = {.struct_size = sizeof mo, .heap_bytes = 1 << 20, .mode = CB_HEAP};
    assert_ok(cb_manager_create(&mo, &m, NULL));
    cb_blocks_options o = {
        .struct_size = sizeof o, .manager = m, .folder = "/nowhere/that/there/is"};
    assert_status(cb_blocks_create(&o, &blocks, NULL), CB_EIO);
    assert_null(blocks);
    cb_manager_destroy(m);
}

static void test_sum__is_the_same_however_bytes_come(void **state) {
    (void)state;
    enum { BYTES = 100000 };
    static uint8_t bytes[BYTES];
    for (size_t i = 0; i < BYTES; i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 4096);
    }
    for (size_t piece = 1; piece < BYTES; piece = piece * 3 + 1) {
        XXH3_state_t sum;
        (void)XXH3_64bits_reset(&sum);
        for (size_t at = 0, count = 0; at < BYTES; at += count) { /* narrow pieces and wide ones */
            count = cbi_min(at % 3 == 0 ? 1 : piece, BYTES - at);
            cbi_sum_add(&sum, bytes + at, count);
        }
        assert_int_equal(XXH3_64bits_digest(&sum), XXH3_64bits(bytes, BYTES));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk__every_size_through_every_codec),
        cmocka_unit_test(test_disk__sizes_are_tracked_and_files_go_with_their_blocks),
        cmocka_unit_test(test_disk__no_changed_byte_gets_through),
        cmocka_unit_test(test_disk__large_blocks_go_straight_to_disk_and_come_back),
        cmocka_unit_test(test_disk__many_that_leave_at_once_are_all_there),
        cmocka_unit_test(test_disk__one_blocks_file_is_not_anothers),
        cmocka_unit_test(test_disk__a_file_that_is_missing_is_a_block_that_is_gone),
        cmocka_unit_test(test_disk__a_block_that_cannot_be_dropped_stays),
        cmocka_unit_test(test_disk__records_that_cannot_be_written_stay),
        cmocka_unit_test(test_disk__a_store_without_a_folder_says_so),
        cmocka_unit_test(test_sum__is_the_same_however_bytes_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
