/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every call to the system that a spill makes fails at n = 1, 2, 3 ... , once and for ever after,
 * until the scene plays through without meeting the failure. Each time: the data come back equal or
 * there is a clean error; no memory, descriptor or name is left. In builds without faults there is
 * one test, which says so.
 *
 * ctest-labels: fault
 * ctest-timeout: 300
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "base/alloc.h"
#include "batch.h"

#ifndef CARBIDE_FAULTS

static void test_this_build_cannot_fail_on_purpose(void **state) {
    (void)state;
    skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_this_build_cannot_fail_on_purpose)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

enum { EXTENTS = 5, SEGMENTS = 6 };

static const char *folder;
static batch contents[EXTENTS], back;
static int output;

static unsigned names_in(const char *path) {
    DIR *stream = opendir(path);
    assert_non_null(stream);
    unsigned count = 0;
    for (struct dirent *e; (e = readdir(stream)) != NULL;) {
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 ? 1 : 0;
    }
    (void)closedir(stream);
    return count;
}

static cb_status put_and_get(cbi_spill *spill, cb_error *err) {
    cbi_extent extents[EXTENTS];
    for (uint32_t i = 0; i < EXTENTS; i++) {
        CB_TRY(write_and_wait(spill, i * 16, i, &contents[i], &extents[i], err));
    }
    uint8_t *given; /* with a tier: if it cannot be written out everything stays as it was */
    cb_error refusal;
    cb_status left = cbi_spill_give_back(spill, &given, &refusal);
    if (left != CB_OK) {
        assert_true(cbi_fault_fired());
        assert_null(given);
    }
    for (uint32_t i = 0; i < EXTENTS; i++) {
        CB_TRY(read_and_wait(spill, i * 16, i, &extents[i], &back, err));
        assert_same_payload(&contents[i], &back);
        cbi_spill_free(spill, &extents[i]);
    }
    answer a;
    answer_init(&a);
    cb_status status = cbi_spill_pwrite(spill, output, contents[0].segments[0].base, 4096, 0,
                                        answer_done, &a, err);
    if (status == CB_OK) {
        status = answer_wait(&a);
        *err = a.err;
    }
    return status;
}

static cb_status play(cbi_spill_options options, cb_error *err) {
    test_spill t;
    CB_TRY(test_spill_open(&t, options, err));
    cb_status status = put_and_get(t.spill, err);
    test_spill_close(&t);
    return status;
}

/* Answers how many failures were met. */
static unsigned fail_each_call(cbi_spill_options options, unsigned kinds, bool for_ever,
                               int number) {
    unsigned n = 0;
    for (bool fired = true; fired;) {
        n++;
        size_t bytes_before = cbi_alloc_bytes();
        unsigned descriptors_before = names_in("/proc/self/fd");
        cb_error err = {.status = CB_OK};
        cbi_fault_arm(kinds, n, for_ever, number);
        cb_status status = play(options, &err);
        fired = cbi_fault_fired();
        cbi_fault_arm(0, 0, false, 0);
        if (status != CB_OK) {
            assert_true(fired);
            assert_int_equal(err.status, status);
            assert_true(err.message[0] != '\0');
            assert_int_not_equal(status, CB_EINTERNAL);
            assert_int_not_equal(status, CB_ECORRUPT);
        }
        assert_int_equal(cbi_alloc_bytes(), bytes_before);
        assert_int_equal(names_in("/proc/self/fd"), descriptors_before);
        if (names_in(folder) > 0) { /* removing them was what failed; the next start does it */
            assert_true((kinds & (CBI_FAULT_FILE | CBI_FAULT_OPEN)) != 0);
            assert_ok(play(options, &err));
            assert_int_equal(names_in(folder), 0);
        }
    }
    return n - 1;
}

static void fail_all_kinds(cbi_spill_options options) {
    const struct {
        unsigned kind;
        int number;
    } faults[] = {
        {CBI_FAULT_ALLOC, ENOMEM},    {CBI_FAULT_OPEN, EMFILE},
        {CBI_FAULT_OPEN, EACCES},     {CBI_FAULT_OPEN, EOPNOTSUPP},
        {CBI_FAULT_READ, EIO},        {CBI_FAULT_WRITE, ENOSPC},
        {CBI_FAULT_WRITE, EIO},       {CBI_FAULT_WRITE, EDQUOT},
        {CBI_FAULT_WRITE, EINVAL},    {CBI_FAULT_READ, EINVAL},
        {CBI_FAULT_FILE, ENOSPC},     {CBI_FAULT_FILE, EIO},
        {CBI_FAULT_FILE, EOPNOTSUPP}, {CBI_FAULT_FILE, EFBIG},
        {CBI_FAULT_THREAD, EAGAIN},   {CBI_FAULT_READ | CBI_FAULT_WRITE, EINTR},
    };
    unsigned points = 0;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        points += fail_each_call(options, faults[i].kind, false, faults[i].number);
        if (faults[i].number != EINTR) { /* for ever interrupted is for ever */
            points += fail_each_call(options, faults[i].kind, true, faults[i].number);
        }
    }
    assert_true(points > 100);
    (void)printf("%u failures met\n", points);
}

static cbi_spill_options options_with(cb_codec codec) {
    return (cbi_spill_options){.dirs = &folder, .dir_count = 1, .codec = codec};
}

static void test_raw_in_files_without_names(void **state) {
    (void)state;
    fail_all_kinds(options_with(CB_CODEC_NONE));
}

static void test_packed_in_files_with_names(void **state) {
    (void)state;
    cbi_spill_options options = options_with(CB_CODEC_LZ4);
    options.named_files = true;
    fail_all_kinds(options);
}

static void test_raw_and_buffered(void **state) {
    (void)state;
    cbi_spill_options options = options_with(CB_CODEC_NONE);
    options.buffered = true;
    fail_all_kinds(options);
}

static void test_through_a_tier_that_is_given_back(void **state) {
    (void)state;
    enum { TIER_BYTES = 192 * 1024 };
    cbi_spill_options options = options_with(CB_CODEC_LZ4);
    void *tier = NULL;
    assert_int_equal(posix_memalign(&tier, CBI_SPILL_ALIGN, TIER_BYTES), 0);
    options.tier = tier;
    options.tier_bytes = TIER_BYTES;
    options.tier_first = true;
    fail_all_kinds(options);
    free(tier);
}

static void test_short_and_interrupted_transfers_change_nothing(void **state) {
    (void)state;
    cb_error err;
    for (unsigned n = 1; n < 40; n++) {
        cbi_fault_arm(CBI_FAULT_SHORT, n, n % 2 == 0, EINTR);
        cbi_spill_options options = options_with(n % 3 == 0   ? CB_CODEC_LZ4
                                                 : n % 3 == 1 ? CB_CODEC_DELTA
                                                              : CB_CODEC_NONE);
        options.buffered = n % 5 == 0;
        assert_ok(play(options, &err));
        cbi_fault_arm(0, 0, false, 0);
    }
}

static int set_up(void **state) {
    (void)state;
    folder = test_folder();
    char path[TEST_PATH_MAX];
    output = cbi_sys_open(test_path(path, test_folder(), "output"), O_CREAT | O_RDWR, 0600);
    assert_true(output >= 0);
    back = batch_make(SEGMENTS, TEST_SEGMENT_BYTES);
    for (uint32_t i = 0; i < EXTENTS; i++) {
        contents[i] = batch_make(SEGMENTS, TEST_SEGMENT_BYTES);
        batch_fill_all(&contents[i], i);
        batch_fill(&contents[i], i, 3000, i);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    cbi_fault_arm(0, 0, false, 0);
    (void)cbi_sys_close(output);
    batch_free(&back);
    for (uint32_t i = 0; i < EXTENTS; i++) {
        batch_free(&contents[i]);
    }
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_raw_in_files_without_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_packed_in_files_with_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_raw_and_buffered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_through_a_tier_that_is_given_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_short_and_interrupted_transfers_change_nothing, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
