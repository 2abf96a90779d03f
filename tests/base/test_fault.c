/* SPDX-License-Identifier: Apache-2.0 */

/* ctest-labels: fault */
#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "support/test.h"

static int disarm(void **state) {
    (void)state;
    cbi_fault_arm(0, 0, false, 0);
    return 0;
}

#ifndef CARBIDE_FAULTS

static void test_builds_without_faults_never_fail_on_purpose(void **state) {
    (void)state;
    cbi_fault_arm(CBI_FAULT_ALL, 1, true, ENOMEM);
    void *p = cbi_alloc(1);
    assert_non_null(p);
    cbi_free(p);
    assert_false(cbi_fault_fired());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_builds_without_faults_never_fail_on_purpose, disarm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void test_the_nth_call_fails_once(void **state) {
    (void)state;
    cbi_fault_arm(CBI_FAULT_ALLOC, 2, false, ENOMEM);
    void *a = cbi_alloc(1);
    void *b = cbi_alloc(1);
    void *c = cbi_alloc(1);
    assert_non_null(a);
    assert_null(b);
    assert_non_null(c);
    assert_true(cbi_fault_fired());
    assert_int_equal(cbi_fault_count(), 3);
    cbi_free(a);
    cbi_free(c);
}

static void test_for_ever_means_from_then_on(void **state) {
    (void)state;
    cbi_fault_arm(CBI_FAULT_ALLOC, 2, true, ENOMEM);
    void *a = cbi_alloc(1);
    assert_non_null(a);
    assert_null(cbi_alloc(1));
    assert_null(cbi_sys_map(4096));
    assert_null(cbi_realloc(a, 100));
    cbi_free(a);
}

static void test_only_the_chosen_kinds_are_counted(void **state) {
    (void)state;
    cbi_fault_arm(CBI_FAULT_OPEN, 1, true, EMFILE);
    void *a = cbi_alloc(1);
    assert_non_null(a);
    assert_int_equal(cbi_fault_count(), 0);
    assert_int_equal(cbi_sys_open("/dev/null", O_RDONLY, 0), -EMFILE);
    cbi_free(a);
}

static void test_interruptions_and_short_transfers_are_not_failures(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    char text[] = "0123456789";
    char back[sizeof text];
    test_path(path, test_folder(), "f");
    const unsigned kinds[] = {CBI_FAULT_READ | CBI_FAULT_WRITE | CBI_FAULT_OPEN | CBI_FAULT_FILE,
                              CBI_FAULT_SHORT};
    for (int i = 0; i < 2; i++) {
        cbi_fault_arm(kinds[i], 1, true, EINTR);
        int fd = cbi_sys_open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        assert_true(fd >= 0);
        assert_int_equal(cbi_sys_pwrite(fd, text, sizeof text, 0), 0);
        memset(back, 0, sizeof back);
        assert_int_equal(cbi_sys_pread(fd, back, sizeof back, 0), sizeof back);
        assert_string_equal(back, text);
        struct iovec iov[2] = {{text, 4}, {text + 4, sizeof text - 4}};
        assert_int_equal(cbi_sys_pwritev(fd, iov, 2, 100), 0);
        struct iovec in[2] = {{back, 3}, {back + 3, sizeof text - 3}};
        memset(back, 0, sizeof back);
        assert_int_equal(cbi_sys_preadv(fd, in, 2, 100), 0);
        assert_string_equal(back, text);
        assert_int_equal(cbi_sys_close(fd), 0);
        assert_true(cbi_fault_fired());
    }
}

static void do_nothing(void *ctx) {
    (void)ctx;
}

static void test_a_refused_thread_is_told_apart_from_refused_memory(void **state) {
    (void)state;
    cb_error err;
    cbi_thread thread;
    size_t before = cbi_alloc_bytes();
    cbi_fault_arm(CBI_FAULT_THREAD, 1, false, EAGAIN);
    assert_status(cbi_thread_start(&thread, do_nothing, NULL, "x", &err), CB_ETHREAD);
    assert_int_equal(err.sys_errno, EAGAIN);
    assert_false(thread.running);
    cbi_fault_arm(CBI_FAULT_THREAD, 1, false, ENOMEM);
    assert_status(cbi_thread_start(&thread, do_nothing, NULL, "x", &err), CB_ETHREAD);
    assert_int_equal(err.status, CB_ETHREAD);
    cbi_fault_arm(CBI_FAULT_ALLOC, 1, false, ENOMEM);
    assert_status(cbi_thread_start(&thread, do_nothing, NULL, "x", &err), CB_ENOMEM);
    assert_int_equal(cbi_alloc_bytes(), before);
}

static void test_a_close_that_fails_has_closed(void **state) {
    (void)state;
    int fd = cbi_sys_open("/dev/null", O_RDONLY, 0);
    assert_true(fd >= 0);
    cbi_fault_arm(CBI_FAULT_FILE, 1, false, EIO);
    assert_int_equal(cbi_sys_close(fd), -EIO);
    assert_int_equal(cbi_sys_close(fd), -EBADF);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_the_nth_call_fails_once, disarm),
        cmocka_unit_test_teardown(test_for_ever_means_from_then_on, disarm),
        cmocka_unit_test_teardown(test_only_the_chosen_kinds_are_counted, disarm),
        cmocka_unit_test_teardown(test_interruptions_and_short_transfers_are_not_failures, disarm),
        cmocka_unit_test_teardown(test_a_refused_thread_is_told_apart_from_refused_memory, disarm),
        cmocka_unit_test_teardown(test_a_close_that_fails_has_closed, disarm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
