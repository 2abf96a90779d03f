/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/group.h"

#include <stdio.h>
#include <string.h>

#include "carbide/dedupe.h"
#include "support/test.h"

typedef struct rows {
    unsigned next, count, groups;
    char row[64];
    char text[4096]; /* what came out, each row with a line end */
    size_t used, out;
    bool fails;
} rows;

static cb_status next_row(void *ctx, const void **row, size_t *bytes, bool *more, cb_error *err) {
    rows *r = ctx;
    (void)err;
    *more = r->next <= r->count;
    if (!*more)
        return CB_OK;
    if (r->next == 0)
        *bytes = (size_t)snprintf(r->row, sizeof r->row, "id,x");
    else
        *bytes = (size_t)snprintf(r->row, sizeof r->row, "%u,%u.5", (r->next * 7919) % r->groups,
                                  r->next % 10);
    *row = r->row;
    r->next++;
    return CB_OK;
}

static cb_status take_row(void *ctx, const void *row, size_t bytes, cb_error *err) {
    rows *r = ctx;
    if (r->fails) {
        if (err != NULL)
            snprintf(err->message, sizeof err->message, "no more room here");
        return CB_EIO;
    }
    r->out++;
    if (r->used + bytes + 2 < sizeof r->text) {
        memcpy(r->text + r->used, row, bytes);
        r->text[r->used + bytes] = '\n';
        r->used += bytes + 1;
        r->text[r->used] = 0;
    }
    return CB_OK;
}

static cb_job_options job_of(rows *r, uint64_t memory) {
    return (cb_job_options){.read = next_row,
                            .read_ctx = r,
                            .write = take_row,
                            .write_ctx = r,
                            .format = CB_FORMAT_CSV,
                            .memory_bytes = memory};
}

static cb_status group(rows *r, uint64_t memory, const char *aggregate, cb_error *err) {
    static const char *const keys[] = {"id"};
    const char *const aggregates[] = {aggregate, "count()"};
    cb_group_options options = {.struct_size = sizeof options,
                                .job = job_of(r, memory),
                                .keys = keys,
                                .key_count = 1,
                                .aggregates = aggregates,
                                .aggregate_count = 2};
    cb_group *g = NULL;
    cb_status status = cb_group_create(&options, &g, err);
    if (status == CB_OK)
        status = cb_group_run(g, err);
    cb_group_destroy(g);
    return status;
}

static void rows_go_in_and_come_out_by_iterators(void **state) {
    (void)state;
    rows r = {.count = 30, .groups = 3};
    cb_error err = {.message = ""};
    assert_int_equal(group(&r, (uint64_t)64 << 20, "sum(x)", &err), CB_OK);
    assert_string_equal(r.text, "id,sum(x),count()\n2,50,10\n1,50,10\n0,50,10\n");
}

static void many_groups_in_little_memory_are_all_there(void **state) {
    (void)state;
    rows r = {.count = 400000, .groups = 200000};
    cb_error err = {.message = ""};
    uint64_t memory = (uint64_t)64 << 20; /* what the test itself holds is within it */
    assert_int_equal(group(&r, memory, "median(x)", &err), CB_OK);
    assert_int_equal(r.out, 200001);
}

static void the_writers_failure_is_the_runs(void **state) {
    (void)state;
    rows r = {.count = 30, .groups = 3, .fails = true};
    cb_error err = {.message = ""};
    assert_int_equal(group(&r, (uint64_t)64 << 20, "sum(x)", &err), CB_EIO);
    assert_string_equal(err.message, "no more room here");
}

static void mistakes_are_found_before_anything_is_read(void **state) {
    (void)state;
    rows r = {.count = 3, .groups = 3};
    cb_error err = {.message = ""};
    assert_int_equal(group(&r, (uint64_t)64 << 20, "som(x)", &err), CB_EINVAL);
    assert_int_equal(r.next, 0);
    assert_int_equal(group(&r, (uint64_t)1 << 20, "sum(x)", &err), CB_EBUDGET);
    assert_true(err.bytes_had > (uint64_t)1 << 20);
}

static void duplicates_by_iterators(void **state) {
    (void)state;
    static const char *const keys[] = {"id"};
    rows r = {.count = 10, .groups = 3};
    cb_error err = {.message = ""};
    cb_dedupe_options options = {.struct_size = sizeof options,
                                 .job = job_of(&r, (uint64_t)64 << 20),
                                 .keys = keys,
                                 .key_count = 1,
                                 .keep = CB_KEEP_LAST};
    cb_dedupe *d = NULL;
    assert_int_equal(cb_dedupe_create(&options, &d, &err), CB_OK);
    assert_int_equal(cb_dedupe_run(d, &err), CB_OK);
    cb_dedupe_destroy(d);
    assert_string_equal(r.text, "id,x\n1,8.5\n0,9.5\n2,0.5\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_go_in_and_come_out_by_iterators),
        cmocka_unit_test(many_groups_in_little_memory_are_all_there),
        cmocka_unit_test(the_writers_failure_is_the_runs),
        cmocka_unit_test(mistakes_are_found_before_anything_is_read),
        cmocka_unit_test(duplicates_by_iterators),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
