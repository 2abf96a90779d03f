/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/join.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/test.h"

/* Rows of one side, made as they are asked for: "id,NAME" and then (i * step) % keys. */
typedef struct side {
    const char *name;
    unsigned count, keys, step;
    unsigned next;
    unsigned fails_at; /* 0: never */
    char row[64];
} side;

typedef struct result {
    char text[4096]; /* each row with a line end */
    size_t used, rows;
    unsigned long long sum; /* of the columns' products, for many rows */
    bool fails;
} result;

static cb_status next_row(void *ctx, const void **row, size_t *bytes, bool *more, cb_error *err) {
    side *s = ctx;
    *more = s->next <= s->count;
    if (!*more)
        return CB_OK;
    if (s->fails_at != 0 && s->next == s->fails_at) {
        if (err != NULL)
            (void)snprintf(err->message, sizeof err->message, "the %s has no more", s->name);
        return CB_EIO;
    }
    if (s->next == 0)
        *bytes = (size_t)snprintf(s->row, sizeof s->row, "id,%s", s->name);
    else
        *bytes =
            (size_t)snprintf(s->row, sizeof s->row, "%u,%u",
                             (unsigned)((unsigned long long)s->next * s->step % s->keys), s->next);
    *row = s->row;
    s->next++;
    return CB_OK;
}

static cb_status take_row(void *ctx, const void *row, size_t bytes, cb_error *err) {
    result *r = ctx;
    if (r->fails) {
        if (err != NULL)
            (void)snprintf(err->message, sizeof err->message, "no more room here");
        return CB_EIO;
    }
    char text[64];
    unsigned id, left, right;
    r->rows++;
    assert_true(bytes < sizeof text);
    memcpy(text, row, bytes);
    text[bytes] = 0;
    if (sscanf(text, "%u,%u,%u", &id, &left, &right) == 3)
        r->sum += (unsigned long long)left * right;
    if (r->used + bytes + 2 < sizeof r->text) {
        memcpy(r->text + r->used, row, bytes);
        r->used += bytes;
        r->text[r->used++] = '\n';
        r->text[r->used] = 0;
    }
    return CB_OK;
}

static const char *const by_id[] = {"id"};

static cb_join_options options_of(side *left, side *right, result *out, uint64_t memory) {
    return (cb_join_options){.struct_size = sizeof(cb_join_options),
                             .job = {.read = next_row,
                                     .read_ctx = left,
                                     .write = take_row,
                                     .write_ctx = out,
                                     .format = CB_FORMAT_CSV,
                                     .memory_bytes = memory},
                             .right_read = next_row,
                             .right_read_ctx = right,
                             .left_keys = by_id,
                             .key_count = 1};
}

static cb_status join(const cb_join_options *o, cb_error *err) {
    cb_join *j = NULL;
    cb_status status = cb_join_create(o, &j, err);
    if (status == CB_OK)
        status = cb_join_run(j, err);
    cb_join_destroy(j);
    return status;
}

enum { ENOUGH = 64 << 20 };

static void rows_of_both_sides_go_in_and_come_out_by_iterators(void **state) {
    (void)state;
    side left = {.name = "a", .count = 4, .keys = 3, .step = 1};
    side right = {.name = "b", .count = 3, .keys = 2, .step = 1};
    result out = {.rows = 0};
    cb_join_options o = options_of(&left, &right, &out, ENOUGH);
    o.how = CB_JOIN_FULL;
    cb_error err = {.message = ""};
    assert_int_equal(join(&o, &err), CB_OK);
    assert_string_equal(out.text, "id,a,b\n1,1,1\n1,1,3\n2,2,\n0,3,2\n1,4,1\n1,4,3\n");
}

static void one_side_may_be_a_file_whichever_it_is(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/side.csv", test_folder());
    FILE *file = fopen(path, "w");
    if (file == NULL) {
        fail();
        return;
    }
    assert_true(fputs("id,f\n2,x\n1,y\n", file) >= 0);
    assert_int_equal(fclose(file), 0);
    const char *const inputs[] = {path};
    side given = {.name = "g", .count = 3, .keys = 3, .step = 1};
    result out = {.rows = 0};
    cb_join_options o = options_of(&given, NULL, &out, ENOUGH);
    o.right_read = NULL;
    o.job.inputs = inputs;
    o.job.input_count = 1;
    cb_error err = {.message = ""};
    assert_int_equal(join(&o, &err), CB_OK);
    assert_string_equal(out.text, "id,g,f\n1,1,y\n2,2,x\n");

    given.next = 0;
    out = (result){.rows = 0};
    o = options_of(NULL, &given, &out, ENOUGH);
    o.job.read = NULL;
    o.job.inputs = inputs;
    o.job.input_count = 1;
    assert_int_equal(join(&o, &err), CB_OK);
    assert_string_equal(out.text, "id,f,g\n2,x,2\n1,y,1\n");
}

static void many_rows_in_little_memory_are_all_there(void **state) {
    (void)state;
    enum { ROWS = 400000 };
    side left = {.name = "a", .count = ROWS, .keys = ROWS, .step = 7919};
    side right = {.name = "b", .count = ROWS, .keys = ROWS, .step = 104729};
    result out = {.rows = 0};
    cb_join_options o = options_of(&left, &right, &out, (uint64_t)48 << 20);
    o.job.baseline_bytes = (uint64_t)24
                           << 20; /* what a sanitizer holds is not the test's subject */
    cb_error err = {.message = ""};
    assert_int_equal(join(&o, &err), CB_OK);
    assert_int_equal(out.rows, ROWS + 1);
    /* The same figure from what is known of the rows: i * 7919 = k * 104729 modulo ROWS. */
    unsigned *place = calloc(ROWS, sizeof *place);
    assert_non_null(place);
    unsigned long long sum = 0;
    for (unsigned long long k = 1; k <= ROWS; k++)
        place[k * 104729 % ROWS] = (unsigned)k;
    for (unsigned long long i = 1; i <= ROWS; i++)
        sum += i * place[i * 7919 % ROWS];
    free(place);
    assert_true(out.sum == sum);
}

static void an_iterators_failure_is_the_runs(void **state) {
    (void)state;
    static const char *const says[] = {"the a has no more", "the b has no more",
                                       "no more room here"};
    for (unsigned i = 0; i < 3; i++) {
        side left = {.name = "a", .count = 9, .keys = 3, .step = 1, .fails_at = i == 0 ? 5 : 0};
        side right = {.name = "b", .count = 9, .keys = 3, .step = 1, .fails_at = i == 1 ? 5 : 0};
        result out = {.fails = i == 2};
        cb_join_options o = options_of(&left, &right, &out, ENOUGH);
        cb_error err = {.message = ""};
        assert_int_equal(join(&o, &err), CB_EIO);
        assert_string_equal(err.message, says[i]);
    }
}

static void sides_that_are_too_many_or_too_few_are_refused(void **state) {
    (void)state;
    side left = {.name = "a", .count = 1, .keys = 1, .step = 1}, right = left;
    result out = {.rows = 0};
    cb_error err = {.message = ""};
    static const char *const inputs[] = {"one.csv"};
    cb_join_options o = options_of(&left, &right, &out, ENOUGH);
    o.job.inputs = inputs;
    o.job.input_count = 1;
    assert_int_equal(join(&o, &err), CB_EINVAL);
    o = options_of(&left, &right, &out, ENOUGH);
    o.right_read = NULL;
    assert_int_equal(join(&o, &err), CB_EINVAL);
    assert_int_equal(left.next, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_both_sides_go_in_and_come_out_by_iterators),
        cmocka_unit_test(one_side_may_be_a_file_whichever_it_is),
        cmocka_unit_test(many_rows_in_little_memory_are_all_there),
        cmocka_unit_test(an_iterators_failure_is_the_runs),
        cmocka_unit_test(sides_that_are_too_many_or_too_few_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
