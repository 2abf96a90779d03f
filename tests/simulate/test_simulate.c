/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a simulation answers as Spark 4.2's, Spark 2.4.8's and Flink 1.9.3's own classes did, and
 * says where a trace cannot be read. Method: traces with the originals' answers (traces/), compared
 * line by line; single lines for each rule that the traces do not show, their answers taken from
 * the classes by tests/oracle; what --summary advises is run again.
 */
#include "support/test.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "carbide/simulate.h"

static cb_simulation *create(bool summary, bool picture) {
    const cb_simulation_options o = {
        .struct_size = sizeof o, .summary = summary, .picture = picture};
    cb_simulation *s = NULL;
    cb_error err;
    assert_ok(cb_simulation_create(&o, &s, &err));
    return s;
}

static const char *answer(cb_simulation *s, const char *line) {
    const char *text = NULL;
    cb_error err = {0};
    cb_status status = cb_simulation_line(s, line, strlen(line), &text, &err);
    if (status != CB_OK) {
        fail_msg("%s: %s", line, err.message);
    }
    return text;
}

/** The answer between "-> " and " |". */
static const char *result(cb_simulation *s, const char *line) {
    static char text[512];
    const char *whole = answer(s, line);
    const char *from = strstr(whole, "-> ") + 3, *to = strstr(whole, " | ");
    (void)snprintf(text, sizeof text, "%.*s", (int)(to - from), from);
    return text;
}

/** Runs a text of several lines; the last answer. */
static const char *answer_all(cb_simulation *s, const char *lines) {
    const char *last = NULL;
    while (*lines != '\0') {
        char line[256];
        size_t length = strcspn(lines, "\n");
        (void)snprintf(line, sizeof line, "%.*s", (int)length, lines);
        last = answer(s, line);
        lines += length + (lines[length] == '\n');
    }
    return last;
}

/* ---- traces of the originals ---- */

static void run_trace(const char *name) {
    const char *source = getenv("CARBIDE_SOURCE");
    char path[TEST_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/tests/simulate/traces/%s.trace",
                   source != NULL ? source : ".", name);
    char *trace = test_read_file(path, NULL);
    (void)snprintf(path, sizeof path, "%s/tests/simulate/traces/%s.expected",
                   source != NULL ? source : ".", name);
    char *expected = test_read_file(path, NULL), *want = expected;
    cb_simulation *s = create(true, true);
    for (char *line = trace; *line != '\0';) {
        char *end = line + strcspn(line, "\n");
        const char *got = NULL;
        cb_error err;
        assert_ok(cb_simulation_line(s, line, (size_t)(end - line), &got, &err));
        if (got != NULL) {
            char *feed = strchr(want, '\n');
            assert_non_null(feed);
            *feed = '\0';
            assert_string_equal(got, want);
            want = feed + 1;
        }
        line = end + (*end == '\n');
    }
    assert_int_equal(*want, '\0');
    cb_simulation_destroy(s);
    free(trace);
    free(expected);
}

static void test_simulation__answers_as_the_originals_in_every_trace(void **state) {
    (void)state;
    static const char *const names[] = {"t1", "t2", "t3", "t4", "t5", "t6", "t7"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        run_trace(names[i]);
    }
}

/* ---- rules that no trace shows ---- */

static void test_simulation__pins_are_counted(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    answer_all(s, "config manager=unified heap=1000 storageRegion=400\n"
                  "acquireStorage rdd_0_0 900 on\npin rdd_0_0\npin rdd_0_0\nunpin rdd_0_0");
    assert_string_equal(result(s, "acquireStorage rdd_1_0 500 on"), "false");
    assert_string_equal(result(s, "unpin rdd_0_0"), "ok");
    assert_string_equal(result(s, "unpin rdd_0_0"), "error:AssertionError");
    assert_string_equal(result(s, "acquireStorage rdd_1_0 500 on"), "true evicted{rdd_0_0:900}");
    cb_simulation_destroy(s);
}

static void test_simulation__a_waiter_whose_task_is_emptied_gets_sparks_exception(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    answer_all(s, "config manager=unified heap=1000 storageRegion=0\nacquireExecution 1 1000 on");
    assert_string_equal(result(s, "acquireExecution 2 100 on"), "blocked");
    assert_string_equal(result(s, "releaseExecution 2 0 on"),
                        "ok woke{2=error:NoSuchElementException}");
    assert_string_equal(result(s, "acquireExecution 2 100 on"), "blocked");
    cb_simulation_destroy(s);
}

static void
test_simulation__a_raw_release_of_a_blocks_bytes_breaks_the_next_eviction(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    answer_all(s, "config manager=unified heap=1000 storageRegion=400\n"
                  "acquireStorage rdd_0_0 900 on\nrawReleaseStorage 600 on\n"
                  "rawAcquireStorage test_a 500 on");
    assert_string_equal(result(s, "acquireExecution 1 600 on"),
                        "error:IllegalArgumentException evicted{rdd_0_0:900}");
    assert_string_equal(strstr(answer(s, "state"), "on{"),
                        "on{exec=0/100 stor=0/900} off{exec=0/0 stor=0/0} unroll=0 tasks{}");
    cb_simulation_destroy(s);
}

static void test_simulation__static_unrolling_evicts_what_it_may_and_is_refused(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    answer_all(s, "config manager=static exec=100 storage=1000 spark.storage.unrollFraction=0.3\n"
                  "acquireStorage rdd_0_0 300 on\nacquireStorage rdd_1_0 700 on");
    assert_string_equal(result(s, "acquireUnroll rdd_2_0 400 on"), "false evicted{rdd_0_0:300}");
    assert_string_equal(result(s, "acquireUnroll rdd_2_0 300 on"), "true");
    assert_string_equal(result(s, "unpin rdd_9_9"), "error:IllegalStateException");
    cb_simulation_destroy(s);
}

static void test_simulation__names_of_blocks_are_those_of_spark(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    answer_all(s, "config manager=unified heap=1000 storageRegion=400\n"
                  "acquireStorage rdd_01_002 10 on\nacquireStorage broadcast_7piece0 10 on");
    assert_string_equal(result(s, "acquireStorage rdd_1_2 10 on"), "error:exists");
    assert_string_equal(result(s, "touch broadcast_07_piece0"), "true");
    assert_string_equal(result(s, "acquireStorage test_ 990 on"), "true evicted{rdd_1_2:10}");
    cb_simulation_destroy(s);
}

static void test_simulation__flinks_pages_may_be_more_than_there_could_be(void **state) {
    (void)state;
    cb_simulation *s = create(true, false);
    answer(s, "config memory=8796093018112 page=4096");
    assert_string_equal(result(s, "allocate opA 2000000000"), "2000000000");
    assert_string_equal(result(s, "allocate opB 147483648"), "refused");
    assert_string_equal(result(s, "release opA 1"), "1");
    assert_string_equal(result(s, "allocate opB 147483648"), "147483648");
    assert_string_equal(result(s, "releaseAll opA"), "ok freed=1999999999");
    assert_string_equal(result(s, "config memory=8796093022208 page=4096"),
                        "error:IllegalArgumentException"); /* 2^31 pages */
    cb_simulation_destroy(s);
}

static void test_simulation__after_a_shutdown_owners_still_believe_what_they_had(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    answer_all(s, "config memory=131072\nallocate opA 3\nshutdown\nshutdown");
    assert_non_null(
        strstr(answer(s, "state"), "pages=3/4 page=32768 empty=false shutdown=true owners{opA=3}"));
    assert_string_equal(result(s, "releaseList opA 1"), "error:IllegalStateException");
    assert_string_equal(result(s, "releaseAll opA"), "error:IllegalStateException");
    assert_string_equal(result(s, "release opA 2"), "2");
    assert_string_equal(result(s, "numPages 0.5"), "2");
    cb_simulation_destroy(s);
}

static void test_simulation__a_config_may_name_sparks_settings(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    answer(s, "config manager=unified spark.executor.memory=1300m"); /* 0.6 of 1000 MiB */
    assert_non_null(
        strstr(answer(s, "state"), "on{exec=0/314572800 stor=0/314572800} off{exec=0/0"));
    answer(s, "config manager=static spark.executor.memory=1g spark.memory.offHeap.size=64m");
    assert_non_null(
        strstr(answer(s, "state"), "on{exec=0/171798691 stor=0/579820584} off{exec=0/67108864"));
    assert_string_equal(
        result(s, "config manager=unified heap=9 storageRegion=1 storageFraction=1"),
        "error:SparkIllegalArgumentException");
    assert_string_equal(result(s, "config manager=unified spark.executor.memory=400m"),
                        "error:SparkIllegalArgumentException");
    assert_string_equal(result(s, "config manager=static spark.executor.memory=31m"),
                        "error:IllegalArgumentException");
    cb_simulation_destroy(s);
}

/* ---- what cannot be read ---- */

static void assert_complaint(const char *before, const char *line, const char *complaint) {
    cb_simulation *s = create(false, false);
    const char *text = "untouched";
    cb_error err = {0};
    if (before != NULL) {
        answer(s, before);
    }
    assert_status(cb_simulation_line(s, line, strlen(line), &text, &err), CB_EDATA);
    assert_string_equal(text, "untouched");
    if (strncmp(err.message, complaint, strlen(complaint)) != 0) {
        fail_msg("'%s' instead of '%s'", err.message, complaint);
    }
    cb_simulation_destroy(s);
}

static const char spark[] = "config manager=unified heap=1000 storageRegion=500";
static const char flink[] = "config memory=131072";

static void test_simulation__says_line_column_and_reason_of_what_it_cannot_read(void **state) {
    (void)state;
    assert_complaint(NULL, "acquireExecution 1 5 on", "1:1: there is no manager yet");
    assert_complaint(spark, "  frobnicate 1", "2:3: there is no operation 'frobnicate'");
    assert_complaint(spark, "acquireExecution 1 5", "2:21: a missing argument");
    assert_complaint(spark, "acquireExecution 1 5 on on", "2:25: an unexpected argument");
    assert_complaint(spark, "acquireExecution 1 -5 on", "2:20: a size must not be negative");
    assert_complaint(spark, "acquireExecution 1 5x on", "2:21: a size must be a whole number");
    assert_complaint(spark, "acquireExecution 1 9223372036854775808 on",
                     "2:20: a size is too large");
    assert_complaint(spark, "acquireExecution 1 5 heap", "2:22: the mode must be 'on' or 'off'");
    assert_complaint(spark, "acquireStorage rdd_1 5 on", "2:16: a block has a name");
    assert_complaint(spark, "acquireStorage rdd_2147483648_0 5 on", "2:16: a block has a name");
    assert_complaint(spark, "touch shuffle", "2:7: a block has a name");
    assert_complaint(spark, "allocate opA 1", "2:1: 'allocate' is no operation of Spark's");
    assert_complaint(flink, "touch rdd_0_0", "2:1: 'touch' is no operation of Flink's");
    assert_complaint(flink, "allocate opA 2147483648", "2:14: a number of pages is too large");
    assert_complaint(flink, "numPages -0.5", "2:10: a fraction must not be negative");
    assert_complaint(flink, "numPages nan", "2:10: a fraction must be a decimal number");
    assert_complaint(flink, "numPages 0x1p-1", "2:10: a fraction must be a decimal number");
    assert_complaint(NULL, "config", "1:7: manager=unified, manager=static or memory=BYTES is");
    assert_complaint(NULL, "config manager=unified heap=5", "1:30: storageRegion=BYTES is missing");
    assert_complaint(NULL, "config manager=both", "1:16: either unified or static");
    assert_complaint(NULL, "config memory=-1", "1:15: memory must not be negative");
    assert_complaint(NULL, "config memory=1 colour=red", "1:17: config does not know");
    assert_complaint(NULL, "config manager=static exec=1 storage=1 heap=1",
                     "1:40: a static manager");
    assert_complaint(NULL, "config manager=unified spark.memory.fraction=2", "1:24: spark.memory");
    assert_complaint(NULL, "config manager=unified spark.nonsense=2", "1:24: There is no memory");
}

static void test_simulation__goes_on_after_a_line_that_it_could_not_read(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    const char *text = NULL;
    cb_error err;
    answer(s, spark);
    assert_status(cb_simulation_line(s, "nonsense", 8, &text, &err), CB_EDATA);
    assert_status(cb_simulation_line(s, "a\0b", 3, &text, &err), CB_EDATA);
    const char *got = answer(s, "\tacquireExecution  1\t5 on \r"); /* as written */
    assert_ptr_equal(strstr(got, "4 acquireExecution  1\t5 on -> 5 | on{"), got);
    assert_null(answer(s, "   # nothing"));
    assert_null(answer(s, ""));
    cb_simulation_destroy(s);
}

/* ---- summary and picture ---- */

static const char crowded[] = "acquireExecution 1 700 on\nacquireExecution 2 300 on\n"
                              "acquireStorage rdd_0_0 600 on\nacquireExecution 3 200 off\n"
                              "acquireStorage rdd_1_0 500 on\nreleaseExecution 1 700 on\n"
                              "acquireUnroll rdd_2_0 300 on\nstate";

static const char *summary_of(cb_simulation *s) {
    static const char *text; /* static: gcc 12 takes what is answered for its address */
    cb_error err;
    assert_ok(cb_simulation_summary(s, &text, &err));
    return text;
}

static bool goes_well(const char *config, const char *trace) {
    cb_simulation *s = create(true, false);
    answer(s, config);
    answer_all(s, trace);
    bool well = strstr(summary_of(s), "nothing was refused, evicted or waited for") != NULL;
    cb_simulation_destroy(s);
    return well;
}

/** `first` is the word whose number is made one smaller. */
static void assert_advice_is_the_least(const char *config, const char *trace, const char *first) {
    cb_simulation *s = create(true, false);
    char advice[256], less[256];
    answer(s, config);
    answer_all(s, trace);
    const char *from = strstr(summary_of(s), "# enough: config ");
    assert_non_null(from);
    (void)snprintf(advice, sizeof advice, "%.*s", (int)strcspn(from + 10, "\n"), from + 10);
    cb_simulation_destroy(s);
    if (!goes_well(advice, trace)) {
        fail_msg("not enough: %s", advice);
    }
    const char *number = strstr(advice, first) + strlen(first);
    char *rest = NULL;
    uint64_t value = strtoull(number, &rest, 10);
    (void)snprintf(less, sizeof less, "%.*s%llu%s", (int)(number - advice), advice,
                   (unsigned long long)value - 1, rest);
    if (goes_well(less, trace)) {
        fail_msg("more than enough: %s", advice);
    }
}

static void test_summary__advises_the_least_that_suffices(void **state) {
    (void)state;
    static const char roomy[] = "config manager=unified heap=1000 storageRegion=500 offheap=100";
    static const char tight[] =
        "config manager=unified heap=1000 storageRegion=10 offheap=300 storageFraction=0.9";
    static const char fixed[] = "config manager=static exec=400 storage=900 offheap=100";
    assert_advice_is_the_least(roomy, crowded, " heap=");
    assert_advice_is_the_least(roomy, crowded, " offheap=");
    assert_advice_is_the_least(tight, crowded, " heap=");
    assert_advice_is_the_least(tight, crowded, " offheap=");
    assert_advice_is_the_least(fixed, crowded, " exec=");
    assert_advice_is_the_least(fixed, crowded, " storage=");
    assert_advice_is_the_least(
        "config memory=131072",
        "allocate a 3\nallocate b 2\nreleaseAll a\nallocate c 4\nallocate b 1", "memory=");
}

static void test_summary__counts_what_happened(void **state) {
    (void)state;
    cb_simulation *s = create(true, false);
    answer(s, "config manager=unified heap=1000 storageRegion=500");
    answer_all(s, "acquireStorage rdd_0_0 800 on\nacquireExecution 1 500 on\n"
                  "acquireExecution 2 100 on\nreleaseExecution 1 300 on");
    const char *text = summary_of(s);
    assert_non_null(strstr(text, "evicted: 1 blocks, 800"));
    assert_non_null(strstr(text, "execution on the heap: 2 calls"));
    cb_simulation_destroy(s);
}

static void test_picture__stays_small_whatever_the_trace(void **state) {
    (void)state;
    cb_simulation *s = create(false, true);
    const char *text = NULL;
    cb_error err;
    answer(s, "config manager=unified heap=1000 storageRegion=500");
    for (int i = 0; i < 5000; i++) {
        answer(s, i % 2 == 0 ? "acquireExecution 1 900 on" : "releaseExecution 1 900 on");
    }
    answer(s, flink);
    answer(s, "allocate opA 2");
    assert_ok(cb_simulation_picture(s, "a <title> & more", &text, &err));
    assert_true(strlen(text) < 300000);
    assert_non_null(strstr(text, "a &lt;title&gt; &amp; more"));
    assert_non_null(strstr(text, ">pages<"));
    assert_null(strstr(text, "nan"));
    cb_simulation_destroy(s);
}

static void test_simulation__options_must_ask_for_what_is_told(void **state) {
    (void)state;
    cb_simulation *s = create(false, false);
    const char *text = NULL;
    cb_error err;
    assert_status(cb_simulation_summary(s, &text, &err), CB_EINVAL);
    assert_status(cb_simulation_picture(s, "", &text, &err), CB_EINVAL);
    cb_simulation_destroy(s);
    cb_simulation_destroy(NULL);
    const cb_simulation_options o = {.struct_size = 1};
    assert_status(cb_simulation_create(&o, &s, &err), CB_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_simulation__answers_as_the_originals_in_every_trace),
        cmocka_unit_test(test_simulation__pins_are_counted),
        cmocka_unit_test(test_simulation__a_waiter_whose_task_is_emptied_gets_sparks_exception),
        cmocka_unit_test(test_simulation__a_raw_release_of_a_blocks_bytes_breaks_the_next_eviction),
        cmocka_unit_test(test_simulation__static_unrolling_evicts_what_it_may_and_is_refused),
        cmocka_unit_test(test_simulation__names_of_blocks_are_those_of_spark),
        cmocka_unit_test(test_simulation__flinks_pages_may_be_more_than_there_could_be),
        cmocka_unit_test(test_simulation__after_a_shutdown_owners_still_believe_what_they_had),
        cmocka_unit_test(test_simulation__a_config_may_name_sparks_settings),
        cmocka_unit_test(test_simulation__says_line_column_and_reason_of_what_it_cannot_read),
        cmocka_unit_test(test_simulation__goes_on_after_a_line_that_it_could_not_read),
        cmocka_unit_test(test_summary__advises_the_least_that_suffices),
        cmocka_unit_test(test_summary__counts_what_happened),
        cmocka_unit_test(test_picture__stays_small_whatever_the_trace),
        cmocka_unit_test(test_simulation__options_must_ask_for_what_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
