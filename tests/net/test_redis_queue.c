/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: reports that wait for a directory's server keep their order, none is lost or doubled, and
 * removals can be taken out without the others. Method: queues that are filled to their ends.
 */
#include "net/redis_queue.h"

#include <stdlib.h>
#include <string.h>

#include "support/test.h"

static cbi_redis_queue *new_queue(void) {
    cbi_redis_queue *q = calloc(1, sizeof *q);
    assert_non_null(q);
    return q;
}

static bool add(cbi_redis_queue *q, const char *block, bool there) {
    const cb_place p = {.level = there ? CB_LEVEL_MEMORY_ONLY : CB_LEVEL_NONE,
                        .memory_bytes = there};
    return cbi_redis_queue_add(q, block, &p);
}

/** What a request says from `at` on: the names, of those that are gone in brackets. */
static void says(const cbi_redis_queue *q, size_t at, bool removals, const char *wanted) {
    static cbi_redis_link l;
    char said[256] = "";
    size_t end = 0, count = cbi_redis_queue_fitting(q, at, sizeof l.out, removals, &end);
    assert_int_equal(end, q->bytes);
    cbi_redis_link_init(&l, 1);
    cbi_redis_begin(&l, count * 6);
    cbi_redis_queue_put(q, at, end, removals, &l);
    l.out[l.out_bytes] = 0;
    const char *p = (const char *)l.out;
    for (size_t i = 0; i < count; i++) {
        const char *words[6];
        for (int w = 0; w < 6; w++) { /* "$LENGTH", then the word */
            p = strchr(strchr(p, '$'), '\n') + 1;
            words[w] = p;
        }
        bool gone = *words[1] == '\r';
        (void)strcat(said, gone ? "(" : "");
        (void)strncat(said, words[0], strcspn(words[0], "\r"));
        (void)strcat(said, gone ? ")" : "");
    }
    assert_string_equal(said, wanted);
}

static void test_redis_queue__says_all_in_order_or_what_is_gone_alone(void **state) {
    (void)state;
    cbi_redis_queue *q = new_queue();
    says(q, 0, false, "");
    assert_true(add(q, "a", true) && add(q, "b", false) && add(q, "c", true) && add(q, "b", true));
    assert_true(add(q, "a", false) && add(q, "", true));
    says(q, 0, false, "a(b)cb(a)");
    says(q, 0, true, "(b)(a)");
    cbi_redis_queue_drop(q, 2 * cbi_redis_report_bytes(1));
    says(q, 0, false, "cb(a)");
    says(q, cbi_redis_report_bytes(1), true, "(a)");
    cbi_redis_queue_drop(q, q->bytes);
    assert_int_equal(q->bytes, 0);
    free(q);
}

static void test_redis_queue__one_comes_behind_the_other_whole_or_not_at_all(void **state) {
    (void)state;
    cbi_redis_queue *q = new_queue(), *from = new_queue();
    assert_true(add(q, "a", true) && add(from, "b", false) && add(from, "c", true));
    assert_true(cbi_redis_queue_append(q, from));
    assert_int_equal(from->bytes, 0);
    says(q, 0, false, "a(b)c");
    while (add(from, "d", true)) {
    }
    const size_t before = q->bytes, all = from->bytes;
    assert_false(cbi_redis_queue_append(q, from));
    assert_int_equal(q->bytes, before);
    assert_int_equal(from->bytes, all);
    q->bytes = 0;
    assert_true(cbi_redis_queue_append(q, from)); /* just as much as there is room for */
    assert_int_equal(q->bytes, all);
    assert_false(add(q, "e", true));
    free(q);
    free(from);
}

static void test_redis_queue__a_request_is_as_long_as_it_may_be(void **state) {
    (void)state;
    cbi_redis_queue *q = new_queue();
    size_t end = 0, count = 0, room = 3000;
    while (add(q, "a block", count++ % 2 == 0)) {
    }
    size_t some = cbi_redis_queue_fitting(q, 0, room, false, &end);
    assert_true(some > 1 && end == some * cbi_redis_report_bytes(7));
    assert_int_equal(cbi_redis_queue_fitting(q, 0, room, true, &end), some);
    assert_in_range(end, (2 * some - 1) * cbi_redis_report_bytes(7),
                    (2 * some + 1) * cbi_redis_report_bytes(7));
    free(q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redis_queue__says_all_in_order_or_what_is_gone_alone),
        cmocka_unit_test(test_redis_queue__one_comes_behind_the_other_whole_or_not_at_all),
        cmocka_unit_test(test_redis_queue__a_request_is_as_long_as_it_may_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
