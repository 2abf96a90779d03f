/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "options.h"
#include "support/test.h"
#include "text.h"

static uint64_t size_of(const char *text, uint64_t unit, uint64_t whole) {
    uint64_t bytes = 0;
    assert_int_equal(cli_size_parse(text, unit, whole, &bytes), CLI_NUMBER_OK);
    return bytes;
}

static void test_size_letters_are_powers_of_1024_and_with_b_of_1000(void **state) {
    (void)state;
    assert_int_equal(size_of("5", 1, 0), 5);
    assert_int_equal(size_of("5", 1024, 0), 5120);
    assert_int_equal(size_of("5b", 1024, 0), 5);
    assert_int_equal(size_of("5k", 1, 0), 5120);
    assert_int_equal(size_of("64M", 1024, 0), 64 << 20);
    assert_int_equal(size_of("64MiB", 1, 0), 64 << 20);
    assert_int_equal(size_of("64MB", 1, 0), 64000000);
    assert_int_equal(size_of("1.5G", 1, 0), UINT64_C(3) << 29);
    assert_int_equal(size_of("15E", 1, 0), UINT64_C(15) << 60);
    assert_int_equal(size_of("0Y", 1, 0), 0);
}

static void test_size_percentages_are_of_the_whole_and_need_one(void **state) {
    (void)state;
    uint64_t bytes = 77;
    assert_int_equal(size_of("50%", 1, 1000), 500);
    assert_int_equal(size_of("0.5%", 1, 100000), 500);
    assert_int_equal(cli_size_parse("50%", 1, 0, &bytes), CLI_NUMBER_SUFFIX);
    assert_int_equal(bytes, 77);
}

static void test_size_what_is_no_size_is_told_by_kind(void **state) {
    (void)state;
    static const struct {
        const char *text;
        cli_number expected;
    } cases[] = {
        {"", CLI_NUMBER_INVALID},     {"x", CLI_NUMBER_INVALID},
        {"-1", CLI_NUMBER_INVALID},   {" 1", CLI_NUMBER_INVALID},
        {"M", CLI_NUMBER_INVALID},    {"1Q", CLI_NUMBER_SUFFIX},
        {"1MM", CLI_NUMBER_SUFFIX},   {"1bb", CLI_NUMBER_SUFFIX},
        {"1 M", CLI_NUMBER_SUFFIX},   {"16E", CLI_NUMBER_TOO_LARGE},
        {"1Z", CLI_NUMBER_TOO_LARGE}, {"99999999999999999999", CLI_NUMBER_TOO_LARGE},
    };
    for (size_t i = 0; i < CLI_COUNT(cases); i++) {
        uint64_t bytes = 77;
        assert_int_equal(cli_size_parse(cases[i].text, 1, 0, &bytes), cases[i].expected);
        assert_int_equal(bytes, 77);
    }
}

static void test_count_letters_are_powers_of_1000(void **state) {
    (void)state;
    uint64_t n = 0;
    assert_int_equal(cli_count_parse("20M", &n), CLI_NUMBER_OK);
    assert_int_equal(n, 20000000);
    assert_int_equal(cli_count_parse("1.5k", &n), CLI_NUMBER_OK);
    assert_int_equal(n, 1500);
    assert_int_equal(cli_count_parse("1.5", &n), CLI_NUMBER_INVALID);
    assert_int_equal(cli_count_parse("1Mi", &n), CLI_NUMBER_SUFFIX);
    assert_int_equal(cli_integer_parse("12", &n), CLI_NUMBER_OK);
    assert_int_equal(n, 12);
    assert_int_equal(cli_integer_parse("1.", &n), CLI_NUMBER_INVALID);
    assert_int_equal(cli_integer_parse("0x1", &n), CLI_NUMBER_INVALID);
}

static void test_figures_read_as_people_write_them(void **state) {
    (void)state;
    char text[CLI_FIGURE_MAX];
    assert_string_equal(cli_size_text(0, text), "0 B");
    assert_string_equal(cli_size_text(1023, text), "1023 B");
    assert_string_equal(cli_size_text(64 << 20, text), "64 MiB");
    assert_string_equal(cli_size_text(UINT64_C(1500) << 20, text), "1.5 GiB");
    assert_string_equal(cli_size_text(UINT64_MAX, text), "16 EiB");
    assert_string_equal(cli_count_text(1234567, text), "1,234,567");
    assert_string_equal(cli_count_text(123, text), "123");
    assert_string_equal(cli_time_text(UINT64_C(210000000), text), "0.21 s");
    assert_string_equal(cli_time_text(UINT64_C(2100000000), text), "2.1 s");
    assert_string_equal(cli_time_text(UINT64_C(185000000000), text), "3:05");
    assert_string_equal(cli_time_text(UINT64_C(7385000000000), text), "2:03:05");
}

static void test_a_budget_that_is_named_is_never_below_what_was_meant(void **state) {
    (void)state;
    char text[CLI_FIGURE_MAX];
    for (uint64_t bytes = 1; bytes < UINT64_C(1) << 40; bytes = bytes * 3 + 1) {
        uint64_t back = size_of(cli_size_option(bytes, text), 1, 0);
        assert_true(back >= bytes);
        assert_true(back < bytes + bytes / 10 + 1024);
    }
}

static void test_json_stays_whole_and_escaped(void **state) {
    (void)state;
    char data[200];
    cli_text json;
    cli_text_init(&json, data, sizeof data);
    cli_json_open(&json, NULL, '{');
    cli_json_string(&json, "a\"b", "x\\\n");
    cli_json_open(&json, "list", '[');
    cli_json_uint(&json, NULL, 1);
    cli_json_bool(&json, NULL, true);
    cli_json_close(&json, ']');
    cli_json_real(&json, "r", 1.5, 2);
    cli_json_null(&json, "n");
    cli_json_close(&json, '}');
    assert_string_equal(data,
                        "{\"a\\\"b\":\"x\\\\\\u000a\",\"list\":[1,true],\"r\":1.50,\"n\":null}");
}

static void test_text_that_is_full_stays_terminated(void **state) {
    (void)state;
    char data[8];
    cli_text text;
    cli_text_init(&text, data, sizeof data);
    for (int i = 0; i < 5; i++)
        cli_text_add(&text, "abc");
    assert_string_equal(data, "abcabca");
    assert_int_equal(text.used, 7);
}

/* ---- the parser ---- */

static const cli_option options[] = {
    {.id = 1, .letter = 'a', .name = "alpha", .gnu = true, .help = ""},
    {.id = 2, .letter = 'o', .name = "output", .arg = CLI_ARG_NEEDED, .gnu = true, .help = ""},
    {.id = 3, .letter = 'c', .name = "check", .arg = CLI_ARG_OPTIONAL, .gnu = true, .help = ""},
    {.id = 4, .name = "merge", .gnu = true, .help = ""},
    {.id = 5, .letter = 'S', .name = "memory", .arg = CLI_ARG_NEEDED, .help = ""},
    {.id = 5, .name = "member", .arg = CLI_ARG_NEEDED, .help = ""},
    {.id = 6, .name = "format", .arg = CLI_ARG_NEEDED, .help = ""},
    {.id = 7, .name = "fortune", .help = ""},
};
static const cli_group groups[] = {{"Options", options, CLI_COUNT(options)}};
static const cli_verb verb = {.name = "test", .groups = groups, .group_count = 1};

/** "id=value id ..." of the options, then "| operand ...". */
static void parse(char *out, size_t cap, char **argv) {
    cli_parser parser;
    cli_text text;
    const char *value = NULL;
    int argc = 0, id;
    while (argv[argc] != NULL)
        argc++;
    cli_text_init(&text, out, cap);
    cli_parser_init(&parser, &verb, argc, argv);
    parser.stop_at_operand = false;
    while ((id = cli_parser_next(&parser, &value)) > 0)
        cli_text_add(&text, value != NULL ? "%d=%s " : "%d ", id, value);
    cli_text_add(&text, id == CLI_PARSE_END ? "|" : "error");
    for (size_t i = 0; id == CLI_PARSE_END && i < parser.operand_count; i++)
        cli_text_add(&text, " %s", parser.argv[i]);
}

#define assert_parsed(expected, ...)                                                               \
    do {                                                                                           \
        char said_[256];                                                                           \
        char *argv_[] = {(char[]){"test"}, __VA_ARGS__, NULL};                                     \
        parse(said_, sizeof said_, argv_);                                                         \
        assert_string_equal(said_, expected);                                                      \
    } while (0)
#define W(text) ((char[]){text})

static void test_options_and_operands_come_in_any_order(void **state) {
    (void)state;
    assert_parsed("1 2=x | one two", W("one"), W("-a"), W("two"), W("-o"), W("x"));
    assert_parsed("1 2=x |", W("-aox"));
    assert_parsed("3 1 2=a |", W("-caoa"));
    assert_parsed("1 | - -a --", W("-a"), W("-"), W("--"), W("-a"), W("--"));
}

static void
test_long_options_take_values_both_ways_and_optional_ones_only_with_equals(void **state) {
    (void)state;
    assert_parsed("2=x 2=y |", W("--output=x"), W("--output"), W("y"));
    assert_parsed("2= 3=q 3 | q", W("--output="), W("--check=q"), W("--check"), W("q"));
    assert_parsed("error", W("--alpha=x"));
    assert_parsed("error", W("--output"));
    assert_parsed("error", W("-o"));
    assert_parsed("error", W("-x"));
    assert_parsed("error", W("--nothing"));
}

static void test_abbreviations_mean_gnu_options_first(void **state) {
    (void)state;
    assert_parsed("4 |", W("--me")); /* merge, although memory begins so too */
    assert_parsed("5=1 |", W("--memo=1"));
    assert_parsed("5=1 |", W("--mem=1")); /* two names of one option */
    assert_parsed("6=1 |", W("--form=1"));
    assert_parsed("error", W("--for=1")); /* format or fortune */
}

static void test_words_are_found_by_unique_abbreviation(void **state) {
    (void)state;
    assert_int_equal(cli_word_find("auto always never json", "never"), 2);
    assert_int_equal(cli_word_find("auto always never json", "al"), 1);
    assert_int_equal(cli_word_find("auto always never json", "a"), -2);
    assert_int_equal(cli_word_find("auto always never json", "maybe"), -1);
    assert_int_equal(cli_word_find("auto always never json", ""), -1);
    assert_int_equal(cli_word_find("num numeric", "num"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size_letters_are_powers_of_1024_and_with_b_of_1000),
        cmocka_unit_test(test_size_percentages_are_of_the_whole_and_need_one),
        cmocka_unit_test(test_size_what_is_no_size_is_told_by_kind),
        cmocka_unit_test(test_count_letters_are_powers_of_1000),
        cmocka_unit_test(test_figures_read_as_people_write_them),
        cmocka_unit_test(test_a_budget_that_is_named_is_never_below_what_was_meant),
        cmocka_unit_test(test_json_stays_whole_and_escaped),
        cmocka_unit_test(test_text_that_is_full_stays_terminated),
        cmocka_unit_test(test_options_and_operands_come_in_any_order),
        cmocka_unit_test(
            test_long_options_take_values_both_ways_and_optional_ones_only_with_equals),
        cmocka_unit_test(test_abbreviations_mean_gnu_options_first),
        cmocka_unit_test(test_words_are_found_by_unique_abbreviation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
