/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */

/*
 * Every call to the system below an input fails once, at n = 1, 2, 3 ... and for ever after, while
 * several threads read: the answer is an error with a message or the right rows, nobody waits for
 * ever, nothing is left open or allocated. In builds where calls cannot be made to fail each
 * scenario runs once, undisturbed.
 */

#include "format/input_kit.h"

#include "base/alloc.h"

typedef struct scenario {
    const char *const *paths;
    size_t count;
    cb_format_kind format;
    cb_header header;
    cb_bad_rows bad_rows;
    const char *bad_rows_path;
    size_t capacity;
} scenario;

static cb_status run(const scenario *s, unsigned threads, kit_text *got, cb_error *err) {
    cbi_input_options options = kit_options(s->paths, s->count, s->format);
    options.header = s->header;
    options.bad_rows = s->bad_rows;
    options.bad_rows_path = s->bad_rows_path;
    kit_reading r = {.capacity = s->capacity, .rows_capacity = 50};
    cb_status status = cbi_input_open(&options, &r.input, err);
    if (status != CB_OK)
        return status;
    status = kit_read(&r, threads, got);
    *err = r.error;
    if (status == CB_OK)
        status = cbi_input_finish(r.input, err);
    cbi_input_close(r.input);
    return status;
}

static void fail_everywhere(const scenario *s, unsigned kinds, bool for_ever, int sys_errno) {
    kit_text want = {0};
    cb_error err = {0};
    cbi_fault_arm(0, 0, false, 0);
    assert_int_equal(run(s, 0, &want, &err), CB_OK);
    size_t before = cbi_alloc_bytes();
    for (uint64_t n = 1; n < 100000; n++) {
        kit_text got = {0};
        memset(&err, 0, sizeof err);
        cbi_fault_arm(kinds, n, for_ever, sys_errno);
        cb_status status = run(s, 3, &got, &err);
        bool fired = cbi_fault_fired();
        cbi_fault_arm(0, 0, false, 0);
        assert_int_equal(cbi_alloc_bytes(), before);
        if (status == CB_OK)
            kit_same(&got, &want, "in spite of a fault");
        else if (!fired || err.message[0] == '\0')
            fail_msg("%s, fired %d, '%s'", cb_status_name(status), fired, err.message);
        kit_free(&got);
        if (!fired)
            break;
    }
    kit_free(&want);
}

static void fail_all_kinds(const scenario *s) {
    for (int ever = 0; ever < 2; ever++) {
        fail_everywhere(s, CBI_FAULT_ALLOC, ever, ENOMEM);
        fail_everywhere(s, CBI_FAULT_OPEN, ever, EMFILE);
        fail_everywhere(s, CBI_FAULT_READ, ever, EIO);
        fail_everywhere(s, CBI_FAULT_WRITE, ever, ENOSPC);
        fail_everywhere(s, CBI_FAULT_FILE, ever, EIO);
    }
    fail_everywhere(s, CBI_FAULT_READ | CBI_FAULT_WRITE | CBI_FAULT_FILE, false, EINTR);
    fail_everywhere(s, CBI_FAULT_SHORT, false, 0);
}

static void make_csv(kit_text *text, bool malformed) {
    kit_add_string(text, "key,value\n");
    for (int i = 0; i < 300; i++) {
        char row[64];
        (void)snprintf(row, sizeof row, "%d,\"some\n\"\"text\"\" %d\"\r\n", i, i);
        kit_add_string(text, row);
        if (malformed && i % 40 == 0)
            kit_add_string(text, "stray\"quote,1\n");
    }
    for (int i = 0; i < 3000; i++)
        kit_add_string(text, i == 0 ? "large,\"" : i == 2999 ? "\"\n" : "x");
}

static void test_faults_in_seekable_csv(void **state) {
    (void)state;
    kit_text text = {0};
    make_csv(&text, true);
    char bad[TEST_PATH_MAX], first[TEST_PATH_MAX], second[TEST_PATH_MAX];
    const char *paths[] = {strcpy(first, kit_write("f1.csv", text.bytes, text.count)),
                           strcpy(second, kit_write("f2.csv", text.bytes, text.count))};
    (void)strcpy(bad, kit_path("faults.bad"));
    const scenario left_out = {paths, 2,   CB_FORMAT_AUTO, CB_HEADER_YES, CB_BAD_ROWS_FILE,
                               bad,   1000};
    fail_all_kinds(&left_out);
    text.count = 0;
    make_csv(&text, false);
    (void)kit_write("f1.csv", text.bytes, text.count);
    const scenario strict = {paths, 1,   CB_FORMAT_AUTO, CB_HEADER_YES, CB_BAD_ROWS_ERROR,
                             NULL,  1000};
    fail_all_kinds(&strict);
    kit_free(&text);
}

static void test_faults_in_streams(void **state) {
    (void)state;
    static const char *const names[] = {"", "f.csv.gz", "f.csv.zst", "f.csv.lz4"};
    kit_text text = {0};
    make_csv(&text, true);
    for (int c = 1; c < 4; c++) {
        char bad[TEST_PATH_MAX], first[TEST_PATH_MAX], second[TEST_PATH_MAX];
        const char *packed =
            kit_write_compressed(names[c], text.bytes, text.count, (cbi_compression)c, 4000);
        const char *paths[] = {strcpy(first, packed),
                               strcpy(second, kit_write("f2.csv", text.bytes, text.count))};
        (void)strcpy(bad, kit_path("faults.bad"));
        const scenario s = {paths, 2, CB_FORMAT_AUTO, CB_HEADER_YES, CB_BAD_ROWS_FILE, bad, 1000};
        fail_all_kinds(&s);
    }
    kit_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults_in_seekable_csv),
        cmocka_unit_test(test_faults_in_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
