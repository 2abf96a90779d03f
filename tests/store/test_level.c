/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: levels mean what Spark's StorageLevel means. Method: the named ones by their flags as Spark
 * documents them, then every combination there is through both forms and back.
 */
#include "carbide/level.h"

#include <string.h>

#include "support/test.h"

static void expect(const char *name, int disk, int memory, int off_heap, int deserialised,
                   unsigned replicas) {
    cb_level level = 0;
    assert_ok(cb_level_parse(name, &level, NULL));
    assert_int_equal((level & CB_LEVEL_ON_DISK) != 0, disk);
    assert_int_equal((level & CB_LEVEL_IN_MEMORY) != 0, memory);
    assert_int_equal((level & CB_LEVEL_IN_OFF_HEAP) != 0, off_heap);
    assert_int_equal((level & CB_LEVEL_IS_DESERIALISED) != 0, deserialised);
    assert_int_equal(cb_level_replicas(level), replicas);
    assert_string_equal(cb_level_name(level), name);
    assert_int_equal(cb_level_is_valid(level), strcmp(name, "NONE") != 0);
}

static void test_level__the_named_ones_are_sparks(void **state) {
    (void)state;
    expect("NONE", 0, 0, 0, 0, 1);
    expect("DISK_ONLY", 1, 0, 0, 0, 1);
    expect("DISK_ONLY_2", 1, 0, 0, 0, 2);
    expect("DISK_ONLY_3", 1, 0, 0, 0, 3);
    expect("MEMORY_ONLY", 0, 1, 0, 1, 1);
    expect("MEMORY_ONLY_2", 0, 1, 0, 1, 2);
    expect("MEMORY_ONLY_SER", 0, 1, 0, 0, 1);
    expect("MEMORY_ONLY_SER_2", 0, 1, 0, 0, 2);
    expect("MEMORY_AND_DISK", 1, 1, 0, 1, 1);
    expect("MEMORY_AND_DISK_2", 1, 1, 0, 1, 2);
    expect("MEMORY_AND_DISK_SER", 1, 1, 0, 0, 1);
    expect("MEMORY_AND_DISK_SER_2", 1, 1, 0, 0, 2);
    expect("OFF_HEAP", 1, 1, 1, 0, 1);
    assert_int_equal(cb_level_mode(CB_LEVEL_OFF_HEAP), CB_OFF_HEAP);
    assert_int_equal(cb_level_mode(CB_LEVEL_MEMORY_ONLY), CB_HEAP);
}

static void test_level__text_as_spark_writes_it(void **state) {
    (void)state;
    char text[CB_LEVEL_TEXT_MAX];
    cb_level_format(CB_LEVEL_MEMORY_AND_DISK_2, text);
    assert_string_equal(text, "StorageLevel(disk, memory, deserialized, 2 replicas)");
    cb_level_format(CB_LEVEL_NONE, text);
    assert_string_equal(text, "StorageLevel(1 replicas)");
    cb_level_describe(CB_LEVEL_OFF_HEAP, text);
    assert_string_equal(text, "Disk Memory (off heap) Serialized 1x Replicated");
    cb_level_describe(CB_LEVEL_MEMORY_ONLY_2, text);
    assert_string_equal(text, "Memory Deserialized 2x Replicated");
}

static void test_level__every_combination_goes_there_and_back(void **state) {
    (void)state;
    int allowed = 0;
    for (unsigned bits = 0; bits < 65536; bits++) {
        cb_level level = (cb_level)bits, back = 0;
        uint8_t bytes[2];
        char text[CB_LEVEL_TEXT_MAX];
        bool may_be = (bits & 0xf0) == 0 && bits >> 8 < 40;
        assert_int_equal(cb_level_check(level, NULL) == CB_OK, may_be);
        cb_level_encode(level, bytes);
        assert_int_equal(cb_level_decode(bytes, &back, NULL) == CB_OK, may_be);
        if (may_be) {
            assert_int_equal(back, level);
            cb_level_format(level, text);
            assert_ok(cb_level_parse(text, &back, NULL));
            assert_int_equal(back, level);
            allowed++;
        }
    }
    assert_int_equal(allowed, 16 * 40);
}

static void test_level__what_is_no_level_is_refused(void **state) {
    (void)state;
    cb_error err;
    cb_level level = 7;
    assert_status(cb_level_parse("MEMORY_ONLY_4", &level, &err), CB_EINVAL);
    assert_non_null(strstr(err.message, "MEMORY_ONLY_4"));
    assert_status(cb_level_parse("StorageLevel(memory, 40 replicas)", &level, &err), CB_EINVAL);
    assert_int_equal(level, 7);
    assert_null(cb_level_name(CB_LEVEL(CB_LEVEL_ON_DISK, 7)));
    assert_false(cb_level_is_valid(CB_LEVEL(CB_LEVEL_ON_DISK, 0)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_level__the_named_ones_are_sparks),
        cmocka_unit_test(test_level__text_as_spark_writes_it),
        cmocka_unit_test(test_level__every_combination_goes_there_and_back),
        cmocka_unit_test(test_level__what_is_no_level_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
