/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_TEST_H
#define CARBIDE_TEST_H

/* What every unit test starts with: cmocka and what it wants before it, and a few helpers. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "carbide/status.h"

enum { TEST_PATH_MAX = 4096 };

/** A new empty folder below $CARBIDE_TEST_DIR, $TMPDIR or the current one; borrowed until the test
 * program ends, when it is removed with all that is in it. */
const char *test_folder(void);

/** FOLDER/NAME into `path` (of TEST_PATH_MAX bytes), which is returned. */
char *test_path(char *path, const char *folder, const char *name);

/** Writes `text` as the whole of the file, making the folders on the way. */
void test_write_file(const char *path, const void *bytes, size_t count);
void test_write_text(const char *path, const char *text);

/** The whole file, owned by the caller (free), terminated; its size into *count where that is not
 * NULL. */
char *test_read_file(const char *path, size_t *count);

/** assert_int_equal with names. */
#define assert_status(actual, expected)                                                            \
    do {                                                                                           \
        cb_status test_actual_ = (actual);                                                         \
        cb_status test_expected_ = (expected);                                                     \
        if (test_actual_ != test_expected_) {                                                      \
            fail_msg("%s answered %s, expected %s", #actual, cb_status_name(test_actual_),         \
                     cb_status_name(test_expected_));                                              \
        }                                                                                          \
    } while (0)
#define assert_ok(actual) assert_status(actual, CB_OK)

#endif
