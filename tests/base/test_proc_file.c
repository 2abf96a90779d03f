/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/proc_file.h"
#include "support/test.h"

static void test_lines_come_one_by_one_with_or_without_a_last_newline(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "f");
    test_write_text(path, "one\n\nthree");
    cbi_proc_file file;
    assert_true(cbi_proc_open(&file, path));
    assert_string_equal(cbi_proc_line(&file), "one");
    assert_string_equal(cbi_proc_line(&file), "");
    assert_string_equal(cbi_proc_line(&file), "three");
    assert_null(cbi_proc_line(&file));
    assert_null(cbi_proc_line(&file));
    cbi_proc_close(&file);
}

static void test_files_longer_than_the_buffer_lose_nothing(void **state) {
    (void)state;
    enum { LINES = 3000, LONG = 10000 };
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "f");
    char *text = malloc((size_t)LINES * 10 + LONG + 10);
    size_t used = 0;
    for (int i = 0; i < LINES; i++) {
        used += (size_t)sprintf(text + used, "line %04d\n", i);
    }
    memset(text + used, 'x', LONG);
    test_write_file(path, text, used + LONG);
    cbi_proc_file file;
    assert_true(cbi_proc_open(&file, path));
    for (int i = 0; i < LINES; i++) {
        const char *line = cbi_proc_line(&file);
        assert_non_null(line);
        assert_int_equal(atoi(line + 5), i);
    }
    size_t rest = 0;
    for (const char *piece; (piece = cbi_proc_line(&file)) != NULL;) {
        rest += strlen(piece);
    }
    assert_int_equal(rest, LONG);
    cbi_proc_close(&file);
    free(text);
}

static void test_a_number_is_found_by_its_whole_name(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "f");
    test_write_text(path, "file_dirty 5\nfile 7\nVmHWM:\t    1234 kB\n");
    uint64_t value = 0;
    assert_true(cbi_proc_number(path, "file", &value));
    assert_int_equal(value, 7);
    assert_true(cbi_proc_number(path, "VmHWM:", &value));
    assert_int_equal(value, 1234);
    assert_false(cbi_proc_number(path, "fil", &value));
    assert_false(cbi_proc_number("/nowhere", "file", &value));
    assert_int_equal(value, 1234);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_come_one_by_one_with_or_without_a_last_newline),
        cmocka_unit_test(test_files_longer_than_the_buffer_lose_nothing),
        cmocka_unit_test(test_a_number_is_found_by_its_whole_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
