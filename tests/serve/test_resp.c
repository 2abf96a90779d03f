/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: requests are found wherever they are cut, what cannot be one is refused at the first byte
 * that shows it, and replies are what RESP2 says. */
#include "serve/resp.h"

#include <string.h>

#include "support/test.h"

static cbi_resp_found find(const char *text, size_t count, cbi_resp_request *r) {
    const char *why = NULL;
    cbi_resp_found found = cbi_resp_find((const uint8_t *)text, count, r, &why);
    assert_true((found == CBI_RESP_BAD) == (why != NULL));
    return found;
}

static cbi_resp_word word(const char *text) {
    return (cbi_resp_word){(const uint8_t *)text, strlen(text)};
}

static void same_word(cbi_resp_word w, const char *text) {
    assert_int_equal(w.count, strlen(text));
    assert_memory_equal(w.bytes, text, w.count);
}

static void test_find__a_request_is_whole_when_its_last_byte_is_there(void **state) {
    (void)state;
    static const char text[] = "*3\r\n$3\r\nGET\r\n$0\r\n\r\n$12\r\n\r\n*1\r\n$4\r\nPI\r\nPING";
    const size_t length = strlen("*3\r\n$3\r\nGET\r\n$0\r\n\r\n$12\r\n\r\n*1\r\n$4\r\nPI\r\n");
    cbi_resp_request r;
    for (size_t i = 0; i < length; i++) {
        assert_int_equal(find(text, i, &r), CBI_RESP_MORE);
    }
    assert_int_equal(find(text, sizeof text - 1, &r), CBI_RESP_WHOLE);
    assert_int_equal(r.taken, length);
    assert_int_equal(r.count, 3);
    assert_int_equal(r.whole, 3);
    size_t at = r.start;
    const uint8_t *bytes = (const uint8_t *)text;
    same_word(cbi_resp_next(bytes, &r, &at), "GET");
    same_word(cbi_resp_next(bytes, &r, &at), "");
    same_word(cbi_resp_next(bytes, &r, &at), "\r\n*1\r\n$4\r\nPI");
    assert_int_equal(at, length);
}

static void test_find__lines_are_requests_too(void **state) {
    (void)state;
    static const char text[] = "  set  a\tbc \r\nPING\n";
    cbi_resp_request r;
    assert_int_equal(find(text, 13, &r), CBI_RESP_MORE);
    assert_int_equal(find(text, sizeof text - 1, &r), CBI_RESP_WHOLE);
    assert_int_equal(r.taken, 14);
    assert_int_equal(r.count, 3);
    size_t at = r.start;
    same_word(cbi_resp_next((const uint8_t *)text, &r, &at), "set");
    same_word(cbi_resp_next((const uint8_t *)text, &r, &at), "a");
    same_word(cbi_resp_next((const uint8_t *)text, &r, &at), "bc");
    assert_int_equal(find("\r\n", 2, &r), CBI_RESP_WHOLE);
    assert_int_equal(r.count, 0);
    assert_int_equal(find("*0\r\n", 4, &r), CBI_RESP_WHOLE);
    assert_int_equal(r.count, 0);
    assert_int_equal(find("*-1\r\n", 5, &r), CBI_RESP_WHOLE);
    assert_int_equal(r.count, 0);
}

static void test_find__a_long_argument_is_only_measured(void **state) {
    (void)state;
    static const char text[] = "*5\r\n$3\r\nSET\r\n$1\r\na\r\n$1000000000000\r\nxyz";
    cbi_resp_request r;
    for (size_t i = 0; i < sizeof text - 1 - 3; i++) {
        assert_int_equal(find(text, i, &r), CBI_RESP_MORE);
    }
    assert_int_equal(find(text, sizeof text - 1, &r), CBI_RESP_LONG);
    assert_int_equal(r.taken, sizeof text - 1 - 3);
    assert_int_equal(r.count, 5);
    assert_int_equal(r.whole, 2);
    assert_int_equal(r.long_bytes, UINT64_C(1000000000000));
    static const char rest[] = "\r\n$5\r\nLEVEL\r\n$4\r\nNONE\r\n";
    const uint8_t *bytes = (const uint8_t *)rest;
    const char *why = NULL;
    for (size_t i = 0; i < sizeof rest - 1; i++) {
        assert_int_equal(cbi_resp_find_rest(bytes, i, 2, &r, &why), CBI_RESP_MORE);
    }
    assert_int_equal(cbi_resp_find_rest(bytes, sizeof rest - 1, 2, &r, &why), CBI_RESP_WHOLE);
    assert_int_equal(r.taken, sizeof rest - 1);
    size_t at = r.start;
    same_word(cbi_resp_next(bytes, &r, &at), "LEVEL");
    same_word(cbi_resp_next(bytes, &r, &at), "NONE");
    assert_int_equal(cbi_resp_find_rest((const uint8_t *)"\r\n", 2, 0, &r, &why), CBI_RESP_WHOLE);
    assert_null(why);
    assert_int_equal(cbi_resp_find_rest((const uint8_t *)"ab", 2, 0, &r, &why), CBI_RESP_BAD);
    assert_int_equal(cbi_resp_find_rest((const uint8_t *)"\r\n$1025\r\n", 9, 1, &r, &why),
                     CBI_RESP_BAD);
    assert_non_null(why);
}

static void test_find__what_cannot_be_a_request_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "*x",
        "*\r\n",
        "*--1\r\n",
        "*1025\r\n",
        "*1\r\n+OK",
        "*1\r\n$-1\r\n",
        "*1\r\n$\r\n",
        "*1\n",
        "*1\r\n$1\n",
        "*1\r\n$1\r\nab",
        "*1\r\n$1\r\na\rb",
        "*1\r\n$1234567890123456789",
        "SET \"a b\"\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        cbi_resp_request r;
        if (find(texts[i], strlen(texts[i]), &r) != CBI_RESP_BAD) {
            fail_msg("taken: %s", texts[i]);
        }
    }
}

static void test_integer__is_strict(void **state) {
    (void)state;
    int64_t v = 0;
    assert_true(cbi_resp_integer(word("0"), &v) && v == 0);
    assert_true(cbi_resp_integer(word("-1"), &v) && v == -1);
    assert_true(cbi_resp_integer(word("123456789012345678"), &v) && v == 123456789012345678);
    assert_true(cbi_resp_integer(word("9223372036854775807"), &v) && v == INT64_MAX);
    assert_true(cbi_resp_integer(word("-9223372036854775808"), &v) && v == INT64_MIN);
    static const char *const bad[] = {"",
                                      "-",
                                      "+1",
                                      "01",
                                      "-0",
                                      "1 ",
                                      "1e3",
                                      "9223372036854775808",
                                      "-9223372036854775809",
                                      "18446744073709551616"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(cbi_resp_integer(word(bad[i]), &v));
    }
    assert_true(cbi_resp_is(word("gEt"), "GET"));
    assert_false(cbi_resp_is(word("ge"), "GET"));
    assert_false(cbi_resp_is(word("gett"), "GET"));
}

static void test_matches__patterns_of_redis(void **state) {
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {
        {"*", "", true},
        {"*", "rdd_1_2", true},
        {"rdd_*_2", "rdd_1_2", true},
        {"rdd_*_2", "rdd_1_3", false},
        {"h?llo", "hello", true},
        {"h?llo", "hllo", false},
        {"h[ae]llo", "hallo", true},
        {"h[ae]llo", "hillo", false},
        {"h[^e]llo", "hello", false},
        {"h[^e]llo", "hxllo", true},
        {"h[a-c]llo", "hbllo", true},
        {"h[c-a]llo", "hbllo", true},
        {"h\\*llo", "h*llo", true},
        {"h\\*llo", "hxllo", false},
        {"", "", true},
        {"", "a", false},
        {"a*b*c", "aXbYbZc", true},
        {"a*b*c", "aXbYbZ", false},
        {"**", "abc", true},
        {"[", "a", false},
        {"[abc", "a", true},
        {"a\\", "a\\", true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cbi_resp_matches(word(cases[i].pattern), word(cases[i].text)) != cases[i].matches) {
            fail_msg("%s and %s", cases[i].pattern, cases[i].text);
        }
    }
}

static void test_put__is_as_the_protocol_says(void **state) {
    (void)state;
    uint8_t to[CBI_RESP_HEAD_MAX + 8];
    assert_int_equal(cbi_resp_put_number(to, ':', INT64_MIN), 23);
    assert_memory_equal(to, ":-9223372036854775808\r\n", 23);
    assert_int_equal(cbi_resp_put_number(to, '*', 0), 4);
    assert_memory_equal(to, "*0\r\n", 4);
    assert_int_equal(cbi_resp_put_bulk(to, "a\r\n", 3), 9);
    assert_memory_equal(to, "$3\r\na\r\n\r\n", 9);
    assert_int_equal(cbi_resp_put_line(to, '-', "a\r\nb", 4), 7);
    assert_memory_equal(to, "-a  b\r\n", 7);
    assert_int_equal(cbi_resp_put_nil(to, false), 5);
    assert_memory_equal(to, "$-1\r\n", 5);
    assert_int_equal(cbi_resp_put_nil(to, true), 3);
    assert_memory_equal(to, "_\r\n", 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find__a_request_is_whole_when_its_last_byte_is_there),
        cmocka_unit_test(test_find__lines_are_requests_too),
        cmocka_unit_test(test_find__a_long_argument_is_only_measured),
        cmocka_unit_test(test_find__what_cannot_be_a_request_is_refused),
        cmocka_unit_test(test_integer__is_strict),
        cmocka_unit_test(test_matches__patterns_of_redis),
        cmocka_unit_test(test_put__is_as_the_protocol_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
