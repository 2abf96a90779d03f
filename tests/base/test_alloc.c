/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "support/test.h"

static void test_what_is_held_is_counted_and_what_is_freed_is_not(void **state) {
    (void)state;
    size_t before = cbi_alloc_bytes();
    void *a = cbi_alloc(1000);
    void *b = cbi_calloc(10, 100);
    char *c = cbi_strdup("carbide");
    assert_non_null(a);
    assert_non_null(b);
    assert_string_equal(c, "carbide");
    size_t held = cbi_alloc_bytes() - before;
    assert_true(held >= 2008 && held < 4096);
    cbi_free(a);
    cbi_free(b);
    cbi_free(c);
    assert_int_equal(cbi_alloc_bytes(), before);
}

static void test_growing_and_shrinking_keeps_bytes_and_accounts(void **state) {
    (void)state;
    size_t before = cbi_alloc_bytes();
    char *p = cbi_realloc(NULL, 10);
    memcpy(p, "123456789", 10);
    for (size_t bytes = 20; bytes < CBI_MIB; bytes *= 3) {
        p = cbi_realloc(p, bytes);
        assert_non_null(p);
        assert_string_equal(p, "123456789");
        assert_true(cbi_alloc_bytes() - before >= bytes);
    }
    p = cbi_realloc(p, 10);
    assert_string_equal(p, "123456789");
    assert_true(cbi_alloc_bytes() - before < CBI_MIB);
    cbi_free(p);
    assert_int_equal(cbi_alloc_bytes(), before);
}

static void test_nothing_at_all_can_be_asked_for_and_freed(void **state) {
    (void)state;
    size_t before = cbi_alloc_bytes();
    void *a = cbi_alloc(0);
    void *b = cbi_calloc(0, 8);
    assert_non_null(a);
    assert_non_null(b);
    a = cbi_realloc(a, 0);
    assert_non_null(a);
    cbi_free(a);
    cbi_free(b);
    cbi_free(NULL);
    assert_int_equal(cbi_alloc_bytes(), before);
}

static void test_what_cannot_be_had_is_null_and_changes_nothing(void **state) {
    (void)state;
    size_t before = cbi_alloc_bytes();
    volatile size_t half = SIZE_MAX / 2;
    assert_null(cbi_calloc(half, 4));
    assert_null(cbi_alloc(half));
    char *p = cbi_strdup("stays");
    assert_null(cbi_realloc(p, half));
    assert_string_equal(p, "stays");
    cbi_free(p);
    assert_int_equal(cbi_alloc_bytes(), before);
}

static void allocate_a_lot(void *ctx) {
    (void)ctx;
    for (int i = 0; i < 20000; i++) {
        void *p = cbi_alloc((size_t)(i % 300));
        p = cbi_realloc(p, (size_t)(i % 700));
        cbi_free(p);
    }
}

static void test_threads_leave_the_count_exact(void **state) {
    (void)state;
    size_t before = cbi_alloc_bytes();
    cbi_thread threads[4];
    for (int i = 0; i < 4; i++) {
        assert_ok(cbi_thread_start(&threads[i], allocate_a_lot, NULL, "test", NULL));
    }
    for (int i = 0; i < 4; i++) {
        cbi_thread_join(&threads[i]);
    }
    assert_int_equal(cbi_alloc_bytes(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_held_is_counted_and_what_is_freed_is_not),
        cmocka_unit_test(test_growing_and_shrinking_keeps_bytes_and_accounts),
        cmocka_unit_test(test_nothing_at_all_can_be_asked_for_and_freed),
        cmocka_unit_test(test_what_cannot_be_had_is_null_and_changes_nothing),
        cmocka_unit_test(test_threads_leave_the_count_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
