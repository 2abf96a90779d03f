/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/base.h"
#include "support/test.h"

static void test_every_status_has_its_own_name_and_text(void **state) {
    (void)state;
    static const cb_status all[] = {
#define VALUE(name, value, text) name,
        CB_STATUS_MAP(VALUE)
#undef VALUE
    };
    size_t count = sizeof all / sizeof all[0];
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(strncmp(cb_status_name(all[i]), "CB_", 3), 0);
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(cb_status_name(all[i]), cb_status_name(all[j]));
            assert_string_not_equal(cb_status_text(all[i]), cb_status_text(all[j]));
        }
    }
}

static void test_an_unknown_status_is_named_as_such(void **state) {
    (void)state;
    assert_string_equal(cb_status_name((cb_status)-999), "CB_UNKNOWN");
    assert_non_null(cb_status_text((cb_status)-999));
}

static void test_failing_without_an_error_object_only_answers(void **state) {
    (void)state;
    assert_status(cbi_fail(NULL, CB_EDATA, "line %d", 3), CB_EDATA);
    assert_status(cbi_fail_sys(NULL, CB_EIO, EIO, "x"), CB_EIO);
    assert_status(cbi_fail_bytes(NULL, CB_EBUDGET, 2, 1, "x"), CB_EBUDGET);
}

static void test_a_name_is_in_the_middle_of_its_message(void **state) {
    (void)state;
    cb_error err = {.sys_errno = 1, .bytes_asked = 2};
    char name[400];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    assert_status(cbi_fail_name(NULL, CB_EEXISTS, "a", "b", "c"), CB_EEXISTS);
    assert_status(cbi_fail_name(&err, CB_ENOTFOUND, "There is no ", "thing", "."), CB_ENOTFOUND);
    assert_string_equal(err.message, "There is no thing.");
    assert_int_equal(err.status, CB_ENOTFOUND);
    assert_int_equal(err.sys_errno + (int)err.bytes_asked, 0);
    assert_status(cbi_fail_name(&err, CB_EEXISTS, "<", name, ">"), CB_EEXISTS);
    assert_int_equal(strlen(err.message), 257); /* a name may be anything: it is cut */
    assert_int_equal(err.message[256], '>');
}

static void test_failing_fills_every_field(void **state) {
    (void)state;
    cb_error err;
    memset(&err, 0x5a, sizeof err);
    assert_status(cbi_fail_bytes(&err, CB_EBUDGET, 20, 10, "need %d", 20), CB_EBUDGET);
    assert_int_equal(err.status, CB_EBUDGET);
    assert_int_equal(err.sys_errno, 0);
    assert_int_equal(err.bytes_asked, 20);
    assert_int_equal(err.bytes_had, 10);
    assert_string_equal(err.message, "need 20");
    assert_status(cbi_fail(&err, CB_EINVAL, "plain"), CB_EINVAL);
    assert_int_equal(err.bytes_asked, 0);
    assert_int_equal(err.bytes_had, 0);
}

static void test_a_system_error_ends_with_its_reason(void **state) {
    (void)state;
    cb_error err;
    assert_status(cbi_fail_sys(&err, CB_EIO, ENOENT, "open %s", "a.txt"), CB_EIO);
    assert_string_equal(err.message, "open a.txt: No such file or directory");
    assert_int_equal(err.sys_errno, ENOENT);
    assert_status(cbi_fail_sys(&err, CB_EIO, -ENOENT, "open"), CB_EIO);
    assert_int_equal(err.sys_errno, ENOENT);
    assert_status(cbi_fail_sys(&err, CB_EIO, 4095, "open"), CB_EIO);
    assert_string_equal(err.message, "open: error 4095");
}

static void test_errno_decides_the_class_of_a_failed_temporary_write(void **state) {
    (void)state;
    assert_status(cbi_fail_sys(NULL, CB_ENOSPC, ENOSPC, "x"), CB_ENOSPC);
    assert_status(cbi_fail_sys(NULL, CB_ENOSPC, EDQUOT, "x"), CB_ENOSPC);
    assert_status(cbi_fail_sys(NULL, CB_ENOSPC, EFBIG, "x"), CB_ENOSPC);
    assert_status(cbi_fail_sys(NULL, CB_ENOSPC, EIO, "x"), CB_EIO);
    assert_status(cbi_fail_sys(NULL, CB_EIO, ENOSPC, "x"), CB_EIO);
    assert_status(cbi_fail_sys(NULL, CB_EIO, ENOMEM, "x"), CB_ENOMEM);
}

static void test_a_message_that_is_too_long_is_cut_and_terminated(void **state) {
    (void)state;
    char text[3 * CB_ERROR_MESSAGE_MAX];
    memset(text, 'a', sizeof text);
    text[sizeof text - 1] = '\0';
    cb_error err;
    memset(&err, 0x5a, sizeof err);
    assert_status(cbi_fail_sys(&err, CB_EIO, EIO, "%s", text), CB_EIO);
    assert_int_equal(strlen(err.message), CB_ERROR_MESSAGE_MAX - 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_status_has_its_own_name_and_text),
        cmocka_unit_test(test_an_unknown_status_is_named_as_such),
        cmocka_unit_test(test_failing_without_an_error_object_only_answers),
        cmocka_unit_test(test_a_name_is_in_the_middle_of_its_message),
        cmocka_unit_test(test_failing_fills_every_field),
        cmocka_unit_test(test_a_system_error_ends_with_its_reason),
        cmocka_unit_test(test_errno_decides_the_class_of_a_failed_temporary_write),
        cmocka_unit_test(test_a_message_that_is_too_long_is_cut_and_terminated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
