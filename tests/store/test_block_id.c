/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: block names mean what Spark's BlockId makes of them. Method: one name of each form, taken
 * apart and put together again; names of no form; numbers that are too large.
 */
#include "carbide/block.h"

#include <string.h>

#include "support/test.h"

static void expect(const char *name, cb_block_kind kind, const uint64_t numbers[4],
                   const char *text) {
    cb_block_id id;
    char back[CB_BLOCK_NAME_MAX + 1];
    assert_ok(cb_block_id_parse(name, &id, NULL));
    assert_int_equal(id.kind, kind);
    assert_memory_equal(id.numbers, numbers, sizeof id.numbers);
    assert_int_equal(id.text_bytes, strlen(text));
    assert_memory_equal(id.text, text, id.text_bytes);
    assert_ok(cb_block_id_format(&id, back, NULL));
    assert_string_equal(back, name);
}

#define N(...) ((const uint64_t[4]){__VA_ARGS__})

static void test_block_id__every_form_of_spark(void **state) {
    (void)state;
    expect("rdd_1_2", CB_BLOCK_RDD, N(1, 2), "");
    expect("shuffle_1_2_3", CB_BLOCK_SHUFFLE, N(1, 2, 3), "");
    expect("shuffle_1_9223372036854775807_3_4", CB_BLOCK_SHUFFLE_BATCH, N(1, INT64_MAX, 3, 4), "");
    expect("shuffle_4_5_6.data", CB_BLOCK_SHUFFLE_DATA, N(4, 5, 6), "");
    expect("shuffle_7_8_9.index", CB_BLOCK_SHUFFLE_INDEX, N(7, 8, 9), "");
    expect("shuffle_7_8_9.checksum", CB_BLOCK_SHUFFLE_CHECKSUM, N(7, 8, 9), "");
    expect("shufflePush_1_2_3_4", CB_BLOCK_SHUFFLE_PUSH, N(1, 2, 3, 4), "");
    expect("shuffleMerged_1_2_3", CB_BLOCK_SHUFFLE_MERGED, N(1, 2, 3), "");
    expect("shuffleMerged_app_000_7_8_9.data", CB_BLOCK_SHUFFLE_MERGED_DATA, N(7, 8, 9), "app_000");
    expect("shuffleMerged_app_7_8_9.index", CB_BLOCK_SHUFFLE_MERGED_INDEX, N(7, 8, 9), "app");
    expect("shuffleMerged_app_7_8_9.meta", CB_BLOCK_SHUFFLE_MERGED_META, N(7, 8, 9), "app");
    expect("shuffleChunk_1_2_3_4", CB_BLOCK_SHUFFLE_CHUNK, N(1, 2, 3, 4), "");
    expect("broadcast_42", CB_BLOCK_BROADCAST, N(42), "");
    expect("broadcast_123_piece0", CB_BLOCK_BROADCAST, N(123), "piece0");
    expect("taskresult_60", CB_BLOCK_TASK_RESULT, N(60), "");
    expect("input-1-100", CB_BLOCK_STREAM, N(1, 100), "");
    expect("python-stream-1-100", CB_BLOCK_PYTHON_STREAM, N(1, 100), "");
    expect("temp_local_7b9a2c-00", CB_BLOCK_TEMP_LOCAL, N(0), "7b9a2c-00");
    expect("temp_shuffle_7b9a2c-00", CB_BLOCK_TEMP_SHUFFLE, N(0), "7b9a2c-00");
    expect("test_log_5_driver", CB_BLOCK_TEST_LOG, N(5), "driver");
    expect("test_", CB_BLOCK_TEST, N(0), "");
    expect("test_abc", CB_BLOCK_TEST, N(0), "abc");
    expect("cache_x_y", CB_BLOCK_CACHE, N(0), "x_y");
}

static void test_block_id__names_of_no_form_are_refused(void **state) {
    (void)state;
    const char *const names[] = {"",
                                 "myblock",
                                 "rdd_1",
                                 "rdd_1_",
                                 "rdd_1_2_",
                                 "rdd_-1_2",
                                 "rdd_1_2147483648",
                                 "shuffle_1_2",
                                 "rdd_x_1",
                                 "temp_local_",
                                 "taskresult_9223372036854775808",
                                 "shuffle_1_2_3xdata",
                                 "broadcast_"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        cb_error err;
        cb_block_id id = {.kind = CB_BLOCK_RDD};
        assert_status(cb_block_id_parse(names[i], &id, &err), CB_EINVAL);
        assert_int_equal(id.kind, CB_BLOCK_RDD);
        assert_non_null(strstr(err.message, "Failed to parse"));
    }
}

static void test_block_id__names_that_do_not_fit_are_refused(void **state) {
    (void)state;
    char long_text[300], name[CB_BLOCK_NAME_MAX + 1] = "as before";
    memset(long_text, 'x', sizeof long_text);
    cb_block_id id = {.kind = CB_BLOCK_TEST, .text = long_text, .text_bytes = 250};
    assert_ok(cb_block_id_format(&id, name, NULL));
    assert_int_equal(strlen(name), 255);
    id.text_bytes = 251;
    assert_status(cb_block_id_format(&id, name, NULL), CB_EINVAL);
    id.text_bytes = 300;
    assert_status(cb_block_id_format(&id, name, NULL), CB_EINVAL);
    id.kind = CB_BLOCK_OTHER;
    assert_status(cb_block_id_format(&id, name, NULL), CB_EINVAL);
    cb_block_name_rdd(UINT32_MAX, 7, name);
    assert_string_equal(name, "rdd_4294967295_7");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_id__every_form_of_spark),
        cmocka_unit_test(test_block_id__names_of_no_form_are_refused),
        cmocka_unit_test(test_block_id__names_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
