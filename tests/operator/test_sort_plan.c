/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a plan for less than the budget, whose rest is the spill's tier, sorts what GNU sort sorts,
 * with rows of any size in it, and keeps the budget. Method: the plan's memory is set from inside;
 * the tier is used first, as where the disk is slow.
 *
 * ctest-timeout: 300
 */
#include <sys/stat.h>
#include <unistd.h>

#include "operator/sort_private.h"
#include "operator_kit.h"

static const char *temp_folder, *folder;
static char in_path[TEST_PATH_MAX], out_path[TEST_PATH_MAX], want_path[TEST_PATH_MAX];

static int set_up(void **state) {
    (void)state;
    temp_folder = test_folder();
    folder = test_folder();
    test_path(in_path, folder, "in.txt");
    test_path(out_path, folder, "out.txt");
    test_path(want_path, folder, "want.txt");
    return 0;
}

/* Lines of some 100 bytes; after `giant_every` of them (0: never) one of `giant_bytes`. */
static uint64_t make_input(size_t count, size_t giant_every, size_t giant_bytes) {
    kit_random r = {count};
    FILE *file = fopen(in_path, "w");
    assert_non_null(file);
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        char row[160];
        int n = snprintf(row, sizeof row, "%010zu  %032zx  %052d", kit_below(&r, 1 << 30), i, 0);
        size_t more = giant_every != 0 && i % giant_every == giant_every / 2 ? giant_bytes : 0;
        (void)fwrite(row, 1, (size_t)n, file);
        bytes += (uint64_t)n + more + 1;
        for (; more > 0; more--)
            (void)fputc((int)('a' + kit_below(&r, 26)), file);
        (void)fputc('\n', file);
    }
    assert_int_equal(fclose(file), 0);
    char command[3 * TEST_PATH_MAX];
    (void)snprintf(command, sizeof command, "LC_ALL=C sort -o '%s' '%s'", want_path, in_path);
    assert_int_equal(system(command), 0);
    return bytes;
}

static cb_sort_stats sorts_the_same(uint64_t memory, uint64_t enough, unsigned threads,
                                    bool unique) {
    const char *input = in_path;
    cb_sort_options options = {.struct_size = sizeof options,
                               .inputs = &input,
                               .input_count = 1,
                               .output = out_path,
                               .field_separator = -1,
                               .memory_bytes = memory,
                               .threads = threads,
                               .unique = unique,
                               .temp_dirs = &temp_folder,
                               .temp_dir_count = 1,
                               .baseline_bytes = CBI_MIB / 2};
    cb_sort *sort = NULL;
    cb_error err = {.message = ""};
    assert_ok(cb_sort_create(&options, &sort, &err));
    sort->enough_bytes = enough;
    if (cb_sort_run(sort, &err) != CB_OK)
        fail_msg("%s", err.message);
    cb_sort_stats stats = {.struct_size = sizeof stats};
    cb_sort_get_stats(sort, &stats);
    cb_sort_destroy(sort);
    assert_true(stats.accounted_peak_bytes <= memory);
    assert_int_equal(kit_names_in(temp_folder), 0);
    char command[3 * TEST_PATH_MAX];
    (void)snprintf(command, sizeof command, "cmp '%s' '%s'", want_path, out_path);
    assert_int_equal(system(command), 0);
    assert_int_equal(unlink(out_path), 0);
    return stats;
}

static void test_packed_rows_lie_in_what_the_plan_left_over(void **state) {
    (void)state;
    uint64_t bytes = make_input(300000, 0, 0);
    for (unsigned threads = 1; threads <= 3; threads += 2) {
        cb_sort_stats all = sorts_the_same(48 * CBI_MIB, 12 * CBI_MIB, threads, false);
        assert_true(all.spilled_bytes > bytes / 2);
        assert_int_equal(all.spilled_stored_bytes, 0);
        cb_sort_stats some = sorts_the_same(20 * CBI_MIB, 12 * CBI_MIB, threads, false);
        assert_true(some.spilled_bytes > bytes / 2);
        cb_sort_stats none = sorts_the_same(12 * CBI_MIB, 12 * CBI_MIB, threads, false);
        assert_true(some.spilled_stored_bytes < none.spilled_stored_bytes);
    }
    (void)sorts_the_same(40 * CBI_MIB, 12 * CBI_MIB, 2, true); /* no two rows are equal */
}

static void test_giant_rows_get_the_memory_back(void **state) {
    (void)state;
    (void)make_input(150000, 50000, 3 * CBI_MIB);
    for (unsigned threads = 1; threads <= 3; threads += 2) {
        cb_sort_stats stats = sorts_the_same(48 * CBI_MIB, 12 * CBI_MIB, threads, false);
        assert_true(stats.spilled_stored_bytes > 0);
    }
    (void)make_input(60000, 400, 100 * CBI_KIB);
    (void)sorts_the_same(32 * CBI_MIB, 12 * CBI_MIB, 2, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_packed_rows_lie_in_what_the_plan_left_over),
        cmocka_unit_test(test_giant_rows_get_the_memory_back),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
