/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a sort and cached blocks live in one budget: blocks give way for the sort down to the
 * storage region and not below, are all still there, and fill memory up again when it has ended.
 * Method: a real sort as the guest of a manager whose storage is full of blocks, at several
 * budgets, the pools looked at before, with the sort's memory taken, after its run and at the end.
 */
#include "../store/block_kit.h"

#include "carbide/sort.h"

enum {
    MIB = 1 << 20,
    TOTAL = 64 * MIB,
    REGION = TOTAL / 2,
    BLOCK = MIB,
    BLOCKS = 80,
    ROWS = 400000
};

static void name_of(int i, char name[16]) {
    (void)snprintf(name, 16, "rdd_1_%d", i);
}

static cb_pool_stats pool_of(const kit *k, cb_region region) {
    cb_pool_stats stats;
    cb_manager_pool(k->manager, region, CB_HEAP, &stats);
    return stats;
}

static void put_all(kit *k) {
    for (int i = 0; i < BLOCKS; i++) {
        char name[16];
        name_of(i, name);
        assert_ok(kit_put(k, name, CB_LEVEL_MEMORY_AND_DISK_SER, BLOCK));
    }
}

/** All are there and right; reading brings those that left back where there is room. */
static void read_all(kit *k) {
    for (int i = 0; i < BLOCKS; i++) {
        char name[16];
        name_of(i, name);
        assert_ok(kit_check(k, name, BLOCK));
    }
}

static void write_rows(const char *path) {
    FILE *f = fopen(path, "w");
    uint32_t random = 5;
    assert_non_null(f);
    for (int i = 0; i < ROWS; i++) {
        random = random * 1664525u + 1013904223u;
        (void)fprintf(f, "%010u a row of some length, that there is more than fits\n", random);
    }
    assert_int_equal(fclose(f), 0);
}

static void check_sorted(const char *path) {
    char before[128] = "", line[128];
    int count = 0;
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    for (; fgets(line, sizeof line, f) != NULL; count++) {
        assert_true(strcmp(before, line) <= 0);
        memcpy(before, line, sizeof line);
    }
    (void)fclose(f);
    assert_int_equal(count, ROWS);
}

static cb_sort *guest_of(const kit *k, const char *input, const char *output, uint64_t bytes) {
    cb_sort *sort = NULL;
    cb_error err = {.message = ""};
    const cb_sort_options o = {.struct_size = sizeof o,
                               .inputs = &input,
                               .input_count = 1,
                               .output = output,
                               .format = CB_FORMAT_LINES,
                               .field_separator = -1,
                               .memory_bytes = bytes,
                               .threads = 2,
                               .temp_dirs = &k->folder,
                               .temp_dir_count = 1,
                               .manager = k->manager};
    if (cb_sort_create(&o, &sort, &err) != CB_OK) {
        fail_msg("%s", err.message);
    }
    return sort;
}

/** Blocks hold what the sort left them, and no less than their region. */
static void check_border(const kit *k) {
    cb_pool_stats execution = pool_of(k, CB_EXECUTION), storage = pool_of(k, CB_STORAGE);
    assert_true(storage.used >= (uint64_t)REGION - BLOCK); /* whole blocks leave */
    assert_true(storage.used + execution.used <= TOTAL);
    assert_true(execution.used <= TOTAL - REGION + BLOCK);
}

static void test_guest__blocks_give_way_to_their_region_and_fill_up_again(void **state) {
    static const uint64_t wanted[] = {12 * MIB, 24 * MIB, TOTAL};
    char input[TEST_PATH_MAX], output[TEST_PATH_MAX];
    kit k;
    (void)state;
    kit_open(&k, (kit_options){.heap = TOTAL, .disk = true});
    test_path(input, test_folder(), "in");
    test_path(output, test_folder(), "out");
    write_rows(input);
    put_all(&k);
    uint64_t full = pool_of(&k, CB_STORAGE).used;
    assert_true(full > (uint64_t)TOTAL - 4 * MIB); /* borrowed: all that execution does not use */
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        cb_error err = {.message = ""};
        cb_sort *sort = guest_of(&k, input, output, wanted[i]);
        uint64_t granted = pool_of(&k, CB_EXECUTION).used;
        assert_int_equal(granted, wanted[i] < REGION ? wanted[i] : granted);
        assert_true(granted > (wanted[i] < REGION ? wanted[i] : REGION) - 4 * MIB);
        check_border(&k);
        read_all(&k); /* in what is left */
        check_border(&k);
        if (cb_sort_run(sort, &err) != CB_OK) {
            fail_msg("%s", err.message);
        }
        cb_sort_stats stats = {.struct_size = sizeof stats};
        cb_sort_get_stats(sort, &stats);
        assert_true(stats.accounted_peak_bytes <= granted);
        check_border(&k);
        cb_sort_destroy(sort);
        check_sorted(output);
        assert_int_equal(pool_of(&k, CB_EXECUTION).used, 0);
        read_all(&k);
        /* again, but for the buffers of three threads that let many go at once */
        assert_true(pool_of(&k, CB_STORAGE).used + 5 * (uint64_t)BLOCK > full);
    }
    kit_close(&k);
}

static void test_guest__is_refused_like_anybody(void **state) {
    const char *input = "/dev/null";
    cb_sort *sort = NULL;
    cb_error err;
    kit k;
    (void)state;
    kit_open(&k, (kit_options){.heap = TOTAL, .disk = true});
    cb_sort_options o = {.struct_size = sizeof o,
                         .inputs = &input,
                         .input_count = 1,
                         .field_separator = -1,
                         .manager = k.manager};
    assert_int_equal(cb_sort_create(&o, &sort, &err), CB_EINVAL);
    o.memory_bytes = 100000; /* granted, and too little */
    assert_ok(cb_sort_create(&o, &sort, &err));
    assert_int_equal(cb_sort_run(sort, &err), CB_EBUDGET);
    cb_sort_destroy(sort);
    assert_int_equal(pool_of(&k, CB_EXECUTION).used, 0);
    kit_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest__blocks_give_way_to_their_region_and_fill_up_again),
        cmocka_unit_test(test_guest__is_refused_like_anybody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
