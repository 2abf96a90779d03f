/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/partition.h"

#include <stdio.h>
#include <string.h>

#include "support/test.h"

typedef struct rows {
    unsigned next, count, targets;
    char row[64];
    char text[4096]; /* "name: row" each */
    size_t used, out, names;
    char last[32];
    unsigned last_place;
    bool fails, disorder;
} rows;

static cb_status next_row(void *ctx, const void **row, size_t *bytes, bool *more, cb_error *err) {
    rows *r = ctx;
    (void)err;
    *more = r->next <= r->count;
    if (!*more)
        return CB_OK;
    if (r->next == 0)
        *bytes = (size_t)snprintf(r->row, sizeof r->row, "id,place");
    else
        *bytes =
            (size_t)snprintf(r->row, sizeof r->row, "k%u,%u", r->next * 7919 % r->targets, r->next);
    *row = r->row;
    r->next++;
    return CB_OK;
}

static cb_status take_row(void *ctx, const char *name, const void *row, size_t bytes,
                          cb_error *err) {
    rows *r = ctx;
    if (r->fails) {
        if (err != NULL)
            (void)snprintf(err->message, sizeof err->message, "no more room here");
        return CB_EIO;
    }
    char text[64];
    unsigned id, place = 0;
    assert_true(bytes < sizeof text);
    memcpy(text, row, bytes);
    text[bytes] = 0;
    r->out++;
    if (strcmp(name, r->last) != 0) {
        r->names++;
        (void)snprintf(r->last, sizeof r->last, "%s", name);
        r->last_place = 0;
        r->disorder |= strcmp(text, "id,place") != 0;
    } else {
        r->disorder |= sscanf(text, "k%u,%u", &id, &place) != 2 || place <= r->last_place;
        r->last_place = place;
    }
    if (r->used + bytes + strlen(name) + 4 < sizeof r->text)
        r->used +=
            (size_t)snprintf(r->text + r->used, sizeof r->text - r->used, "%s: %s\n", name, text);
    return CB_OK;
}

static const char *const by_id[] = {"id"};

static cb_partition_options options_of(rows *r, uint64_t memory) {
    return (cb_partition_options){
        .struct_size = sizeof(cb_partition_options),
        .job = {.read = next_row, .read_ctx = r, .format = CB_FORMAT_CSV, .memory_bytes = memory},
        .write = take_row,
        .write_ctx = r,
        .keys = by_id,
        .key_count = 1};
}

static cb_status partition(const cb_partition_options *o, cb_partition_stats *stats,
                           cb_error *err) {
    cb_partition *p = NULL;
    cb_status status = cb_partition_create(o, &p, err);
    if (status == CB_OK)
        status = cb_partition_run(p, err);
    if (status == CB_OK && stats != NULL)
        cb_partition_get_stats(p, stats);
    cb_partition_destroy(p);
    return status;
}

enum { ENOUGH = 64 << 20 };

static void rows_go_in_and_come_out_by_iterators_target_by_target(void **state) {
    (void)state;
    rows r = {.count = 5, .targets = 2};
    cb_partition_options o = options_of(&r, ENOUGH);
    cb_error err = {.message = ""};
    assert_int_equal(partition(&o, NULL, &err), CB_OK);
    assert_string_equal(r.text, "k0: id,place\nk0: k0,2\nk0: k0,4\n"
                                "k1: id,place\nk1: k1,1\nk1: k1,3\nk1: k1,5\n");
}

static void names_are_those_of_the_template(void **state) {
    (void)state;
    rows r = {.count = 2, .targets = 2};
    cb_partition_options o = options_of(&r, ENOUGH);
    o.name_template = "{id}-of.csv.gz";
    cb_error err = {.message = ""};
    assert_int_equal(partition(&o, NULL, &err), CB_OK);
    assert_string_equal(r.text, "k0-of.csv.gz: id,place\nk0-of.csv.gz: k0,2\n"
                                "k1-of.csv.gz: id,place\nk1-of.csv.gz: k1,1\n");
}

static void many_targets_in_little_memory_come_whole_and_in_order(void **state) {
    (void)state;
    rows r = {.count = 400000, .targets = 5000};
    cb_partition_options o = options_of(&r, (uint64_t)40 << 20);
    o.job.baseline_bytes = (uint64_t)28
                           << 20; /* what a sanitizer holds is not the test's subject */
    cb_partition_stats stats = {.struct_size = sizeof stats};
    cb_error err = {.message = ""};
    assert_int_equal(partition(&o, &stats, &err), CB_OK);
    assert_false(r.disorder);
    assert_int_equal(r.names, 5000);
    assert_int_equal(stats.files, 5000);
    assert_int_equal(r.out, 405000);
}

/* From a file several workers order ranges at the same time: they take turns to give rows away. */
static void a_files_targets_do_not_mix_whatever_the_number_of_threads(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/in.csv", test_folder());
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        fail();
        return;
    }
    assert_true(fputs("id,place\n", file) >= 0);
    for (unsigned i = 1; i <= 300000; i++)
        assert_true(fprintf(file, "k%u,%u\n", i * 7919 % 3000, i) > 0);
    assert_int_equal(fclose(file), 0);
    const char *const inputs[] = {path};
    for (unsigned threads = 1; threads <= 4; threads += 3)
        for (unsigned tight = 0; tight < 2; tight++) {
            rows r = {.count = 0};
            cb_partition_options o = options_of(&r, tight ? (uint64_t)38 << 20 : 0);
            o.job.read = NULL;
            o.job.inputs = inputs;
            o.job.input_count = 1;
            o.job.threads = threads;
            o.job.baseline_bytes = (uint64_t)28 << 20;
            cb_error err = {.message = ""};
            assert_int_equal(partition(&o, NULL, &err), CB_OK);
            assert_false(r.disorder);
            assert_int_equal(r.names, 3000);
            assert_int_equal(r.out, 303000);
        }
}

static void the_takers_failure_is_the_runs(void **state) {
    (void)state;
    rows r = {.count = 30, .targets = 3, .fails = true};
    cb_partition_options o = options_of(&r, ENOUGH);
    cb_error err = {.message = ""};
    assert_int_equal(partition(&o, NULL, &err), CB_EIO);
    assert_string_equal(err.message, "no more room here");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_go_in_and_come_out_by_iterators_target_by_target),
        cmocka_unit_test(names_are_those_of_the_template),
        cmocka_unit_test(many_targets_in_little_memory_come_whole_and_in_order),
        cmocka_unit_test(a_files_targets_do_not_mix_whatever_the_number_of_threads),
        cmocka_unit_test(the_takers_failure_is_the_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
