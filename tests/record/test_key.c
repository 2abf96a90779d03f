/* SPDX-License-Identifier: Apache-2.0 */
#include "keys.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/sys.h"

/* ---- messages ---- */

static void check_refusal(int format, const char *text, const char *words) {
    cbi_keys *keys = NULL;
    cb_error err = {0};
    if (test_try_keys(format, &text, 1, &keys, &err) == CB_OK)
        fail_msg("'%s' was accepted", text);
    assert_int_equal(err.status, CB_EINVAL);
    if (!strstr(err.message, words))
        fail_msg("'%s': \"%s\" does not say \"%s\"", text, err.message, words);
    assert_null(keys);
}

static void test_keys_say_what_is_wrong_and_where(void **state) {
    (void)state;
    check_refusal(
        CB_FORMAT_CSV, "price:nmu",
        "key 1 'price:nmu', character 7: 'nmu' is no type and no option (did you mean 'num'?)");
    check_refusal(CB_FORMAT_CSV, "price:num:dsc",
                  "character 11: 'dsc' is no type and no option (did you mean 'desc'?)");
    check_refusal(CB_FORMAT_CSV, "price:", "character 7: a type or an option is missing");
    check_refusal(CB_FORMAT_CSV, "price:num:int", "character 11: the key has a type already");
    check_refusal(CB_FORMAT_CSV, "price:asc:desc", "character 11: the key has a direction");
    check_refusal(CB_FORMAT_CSV, "price:nulls=first:nulls=last", "character 19");
    check_refusal(CB_FORMAT_CSV, "price:num:fold", "character 11: fold is for str and ver");
    check_refusal(CB_FORMAT_CSV, "", "the column's name is missing");
    check_refusal(CB_FORMAT_CSV, ":num", "the column's name is missing");
    check_refusal(CB_FORMAT_CSV, "\"a", "the quote is not closed");
    check_refusal(CB_FORMAT_CSV, "\"a\"b", "should follow the closing quote");
    check_refusal(CB_FORMAT_CSV, "price:u32le", "binary types are for fixed records");
    check_refusal(CB_FORMAT_CSV, "price:str@4", "@OFFSET is for fixed records");
    check_refusal(CB_FORMAT_CSV, "0:num", "columns are counted from 1");
    check_refusal(CB_FORMAT_CSV, "2nd", "incompatible");
    check_refusal(CB_FORMAT_CSV, "2th", "name=2th");
    check_refusal(CB_FORMAT_CSV, "9999999", "counted up to");
    check_refusal(CB_FORMAT_CSV, "1,9999", "may span 256 columns");
    check_refusal(CB_FORMAT_LINES, "price:num", "lines have no column names");
    check_refusal(CB_FORMAT_LINES, "1,2q", "key 1 '1,2q', character 4");
    check_refusal(CB_FORMAT_FIXED, "price", "keys of fixed records are TYPE@OFFSET");
    check_refusal(CB_FORMAT_FIXED, "u23@4", "there is no such type");
    check_refusal(CB_FORMAT_FIXED, "u32@4", "there is no such type");
    check_refusal(CB_FORMAT_FIXED, "u32le@", "the offset");
    check_refusal(CB_FORMAT_FIXED, "u32le@97", "bytes 97 to 101 are outside a record of 100 bytes");
    check_refusal(CB_FORMAT_FIXED, "str@4", "a length is missing");
    check_refusal(CB_FORMAT_FIXED, "str@4+0", "at least 1");
    check_refusal(CB_FORMAT_FIXED, "u8@4+1", "a length of its own");
    check_refusal(CB_FORMAT_FIXED, "u8@4,desc", "':' and an option");
    check_refusal(CB_FORMAT_FIXED, "u8@4:nulls=last", "have no nulls");
    check_refusal(CB_FORMAT_FIXED, "str@99999999999999999999+1", "too large");
}

static void test_global_letters_are_checked(void **state) {
    (void)state;
    cbi_keys *keys = NULL;
    cb_error err = {0};
    cbi_keys_options options = {
        .global_order = "nx", .field_separator = -1, .format = CB_FORMAT_LINES};
    assert_int_equal(cbi_keys_create(&options, &keys, &err), CB_EINVAL);
    assert_non_null(strstr(err.message, "character 2"));
    options.global_order = "nM";
    assert_int_equal(cbi_keys_create(&options, &keys, &err), CB_EINVAL);
    assert_string_equal(err.message, "options '-Mn' are incompatible");
}

/* ---- columns ---- */

static const char *const names[] = {"id", "price", "a:b", "2", "twice", "twice", "city", ""};
enum { NAME_COUNT = sizeof names / sizeof names[0] };

static void check_column(const char *text, long expected, const char *words) {
    cbi_keys *keys = NULL;
    cb_error err = {0};
    if (test_try_keys(CB_FORMAT_CSV, &text, 1, &keys, &err) != CB_OK)
        fail_msg("%s", err.message);
    cb_status status = cbi_keys_bind(keys, names, NAME_COUNT, &err);
    if (words) {
        assert_int_equal(status, CB_EINVAL);
        if (!strstr(err.message, words))
            fail_msg("'%s': \"%s\" does not say \"%s\"", text, err.message, words);
    } else {
        const uint32_t *columns;
        assert_int_equal(status, CB_OK);
        assert_int_equal(cbi_keys_columns(keys, &columns), 1);
        assert_int_equal(columns[0], expected);
    }
    cbi_keys_destroy(keys);
}

static void test_names_are_found_in_the_header(void **state) {
    (void)state;
    check_column("id", 0, NULL);
    check_column("price:num", 1, NULL);
    check_column("\"a:b\":desc", 2, NULL);
    check_column("name=2:int", 3, NULL);
    check_column("2:int", 1, NULL);
    check_column("2,2n", 1, NULL);
    check_column("\"\"", 7, NULL);
    check_column("prise", 0,
                 "there is no column 'prise' (did you mean 'price'?); the columns are id, price, "
                 "a:b, 2, twice");
    check_column("twice:num", 0, "columns 5 and 6 are both called 'twice'");
    check_column("9", 0, "there is no column 9; rows have 8");
    check_column("name=3", 0, "there is no column '3'");
}

static void test_without_a_header_columns_have_numbers_only(void **state) {
    (void)state;
    const char *text = "name=3:num";
    const uint32_t *columns;
    cbi_keys *keys = test_keys(CB_FORMAT_CSV, &text, 1);
    assert_int_equal(cbi_keys_columns(keys, &columns), 1);
    assert_int_equal(columns[0], 2);
    cbi_keys_destroy(keys);
    cb_error err = {0};
    text = "price";
    assert_int_equal(test_try_keys(CB_FORMAT_TSV, &text, 1, &keys, &err), CB_OK);
    assert_int_equal(cbi_keys_bind(keys, NULL, 0, &err), CB_EINVAL);
    assert_non_null(strstr(err.message, "there is no header"));
    cbi_keys_destroy(keys);
}

static void test_columns_are_wanted_once_and_in_order(void **state) {
    (void)state;
    const char *const texts[] = {"city", "5,4", "2.2,3.1", "id:num", "city:fold", "7n"};
    cbi_keys *keys = NULL;
    const uint32_t *columns;
    assert_int_equal(test_try_keys(CB_FORMAT_CSV, texts, 6, &keys, NULL), CB_OK);
    assert_int_equal(cbi_keys_bind(keys, names, NAME_COUNT, NULL), CB_OK);
    assert_int_equal(cbi_keys_columns(keys, &columns), 4);
    static const uint32_t expected[] = {0, 1, 2, 6};
    assert_memory_equal(columns, expected, sizeof expected);
    cbi_keys_destroy(keys);
}

/* ---- shapes ---- */

static void check_shape(int format, const char *text, const char *second, cbi_key_shape shape,
                        size_t offset, size_t bytes, bool inverted) {
    const char *const texts[] = {text, second};
    cbi_keys *keys = test_keys(format, texts, (size_t)(text != NULL) + (second != NULL));
    assert_int_equal(cbi_keys_shape(keys), shape);
    assert_int_equal(cbi_keys_inverted(keys), inverted);
    assert_int_equal(cbi_keys_tie(keys), CBI_TIE_INPUT);
    if (shape == CBI_KEY_SLICE) {
        size_t o, b;
        cbi_keys_slice(keys, &o, &b);
        assert_int_equal(o, offset);
        assert_int_equal(b, bytes);
    }
    cbi_keys_destroy(keys);
}

static void test_shapes_avoid_encoding_where_bytes_will_do(void **state) {
    (void)state;
    check_shape(CB_FORMAT_LINES, NULL, NULL, CBI_KEY_ROW, 0, 0, false);
    check_shape(CB_FORMAT_CSV, NULL, NULL, CBI_KEY_ROW, 0, 0, false);
    check_shape(CB_FORMAT_LINES, "1", NULL, CBI_KEY_ROW, 0, 0, false);
    check_shape(CB_FORMAT_LINES, "1r", "2n", CBI_KEY_ROW, 0, 0, true);
    check_shape(CB_FORMAT_LINES, "1,1", NULL, CBI_KEY_ENCODED, 0, 0, false);
    check_shape(CB_FORMAT_LINES, "1b", NULL, CBI_KEY_ENCODED, 0, 0, false);
    check_shape(CB_FORMAT_CSV, "1", NULL, CBI_KEY_ENCODED, 0, 0, false);
    check_shape(CB_FORMAT_FIXED, NULL, NULL, CBI_KEY_ROW, 0, 0, false);
    check_shape(CB_FORMAT_FIXED, "str@0+10", NULL, CBI_KEY_SLICE, 0, 10, false);
    check_shape(CB_FORMAT_FIXED, "@0+10", NULL, CBI_KEY_SLICE, 0, 10, false);
    check_shape(CB_FORMAT_FIXED, "str@90+10:desc", NULL, CBI_KEY_SLICE, 90, 10, true);
    check_shape(CB_FORMAT_FIXED, "str@5+10", "u32be@15", CBI_KEY_SLICE, 5, 14, false);
    check_shape(CB_FORMAT_FIXED, "u8@5:desc", "u64be@6:desc", CBI_KEY_SLICE, 5, 9, true);
    check_shape(CB_FORMAT_FIXED, "str@5+10", "u32be@16", CBI_KEY_ENCODED, 0, 0, false);
    check_shape(CB_FORMAT_FIXED, "str@5+10:desc", "u32be@15", CBI_KEY_ENCODED, 0, 0, false);
    check_shape(CB_FORMAT_FIXED, "u32le@4", NULL, CBI_KEY_ENCODED, 0, 0, false);
    check_shape(CB_FORMAT_FIXED, "i32be@4", NULL, CBI_KEY_ENCODED, 0, 0, false);
    check_shape(CB_FORMAT_FIXED, "str@5+10:fold", NULL, CBI_KEY_ENCODED, 0, 0, false);
}

static void test_gnu_ties_go_to_the_row_unless_stable_or_unique(void **state) {
    (void)state;
    const char *text = "2,2";
    for (int i = 0; i < 4; i++) {
        cbi_keys_options options = {.keys = &text,
                                    .key_count = 1,
                                    .field_separator = -1,
                                    .format = CB_FORMAT_LINES,
                                    .gnu = true,
                                    .stable = i & 1,
                                    .unique = i & 2,
                                    .global_order = "r"};
        cbi_keys *keys = NULL;
        assert_int_equal(cbi_keys_create(&options, &keys, NULL), CB_OK);
        assert_int_equal(cbi_keys_tie(keys), i ? CBI_TIE_INPUT : CBI_TIE_ROW);
        assert_true(cbi_keys_tie_inverted(keys));
        cbi_keys_destroy(keys);
    }
}

/* ---- binary numbers ---- */

static void check_binary(const char *text, const void *less, const void *more, size_t bytes) {
    char reverse[32];
    snprintf(reverse, sizeof reverse, "%s:desc", text);
    const char *const texts[] = {text, reverse};
    for (int i = 0; i < 2; i++) {
        cbi_keys *keys = test_keys(CB_FORMAT_FIXED, texts + i, 1);
        uint8_t a[100] = {0}, b[100] = {0};
        memcpy(a + 3, less, bytes);
        memcpy(b + 3, more, bytes);
        cbi_span span = {0, 100};
        cbi_rows rows = {.base = a, .count = 1, .capacity = 1, .rows = &span};
        static test_key x, y;
        test_encode(keys, &rows, &x);
        rows.base = b;
        test_encode(keys, &rows, &y);
        assert_int_equal(x.size, bytes);
        assert_int_equal(test_compare(&x, &y), i ? 1 : -1);
        cbi_keys_destroy(keys);
    }
}
#define CHECK_BINARY(text, type, less, more)                                                       \
    check_binary(text, &(const type){less}, &(const type){more}, sizeof(type))

static void test_binary_numbers_order_by_value(void **state) {
    (void)state;
    CHECK_BINARY("u8@3", uint8_t, 127, 128);
    CHECK_BINARY("i8@3", int8_t, -128, 127);
    CHECK_BINARY("u16le@3", uint16_t, 255, 256);
    CHECK_BINARY("u16be@3", uint16_t, 256, 255);
    CHECK_BINARY("i16le@3", int16_t, -1, 0);
    CHECK_BINARY("u32le@3", uint32_t, 1, 0x80000000);
    CHECK_BINARY("i32le@3", int32_t, INT32_MIN, INT32_MAX);
    CHECK_BINARY("i64le@3", int64_t, -256, 255);
    CHECK_BINARY("u64le@3", uint64_t, INT64_MAX, UINT64_MAX);
    CHECK_BINARY("f32le@3", float, -0.0f, 0.0f);
    CHECK_BINARY("f64le@3", double, -1e300, -1e-300);
    CHECK_BINARY("f64le@3", double, 1e300, (double)__builtin_inff());
    const uint8_t minus_two[] = {0xc0, 0, 0, 0}, one[] = {0x3f, 0x80, 0, 0};
    check_binary("f32be@3", minus_two, one, 4);
    const uint8_t minus_one[] = {0xff, 0xff, 0xff, 0xff}, two[] = {0, 0, 0, 2};
    check_binary("i32be@3", minus_one, two, 4);
}

/* ---- no memory ---- */

static void test_keys_refused_memory_leave_nothing_behind(void **state) {
    (void)state;
    const char *const texts[] = {"price:num", "\"a:b\":desc", "1,1n", "city",
                                 "2:ver",     "3,3",          "id",   "7"};
    size_t held = cbi_alloc_bytes();
    bool fired = true;
    for (uint64_t n = 1; fired; n++) {
        cbi_keys *keys = NULL;
        cb_error err = {0};
        cbi_fault_arm(CBI_FAULT_ALLOC, n, false, ENOMEM);
        cb_status status = test_try_keys(CB_FORMAT_CSV, texts, 8, &keys, &err);
        if (status == CB_OK)
            status = cbi_keys_bind(keys, names, NAME_COUNT, &err);
        fired = cbi_fault_fired();
        cbi_fault_arm(0, 0, false, 0);
        assert_int_equal(status, fired ? CB_ENOMEM : CB_OK);
        cbi_keys_destroy(keys);
        assert_int_equal(cbi_alloc_bytes(), held);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_say_what_is_wrong_and_where),
        cmocka_unit_test(test_global_letters_are_checked),
        cmocka_unit_test(test_names_are_found_in_the_header),
        cmocka_unit_test(test_without_a_header_columns_have_numbers_only),
        cmocka_unit_test(test_columns_are_wanted_once_and_in_order),
        cmocka_unit_test(test_shapes_avoid_encoding_where_bytes_will_do),
        cmocka_unit_test(test_gnu_ties_go_to_the_row_unless_stable_or_unique),
        cmocka_unit_test(test_binary_numbers_order_by_value),
        cmocka_unit_test(test_keys_refused_memory_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
