/* SPDX-License-Identifier: Apache-2.0 */
#include "memory_test.h"

#include "memory/allocator.h"

static cb_allocator *make(cb_mode mode, bool fill, uint64_t idle_max) {
    cb_allocator_options options = {
        .struct_size = sizeof options, .mode = mode, .debug_fill = fill, .idle_max = idle_max};
    cb_allocator *a = NULL;
    assert_ok(cb_allocator_create(&options, &a, err));
    return a;
}

static cb_page allocate(cb_allocator *a, size_t bytes) {
    cb_page page;
    assert_ok(cb_allocator_allocate(a, bytes, &page, err));
    return page;
}

static void test_heap_page_has_a_base_and_off_heap_page_an_address(void **state) {
    (void)state;
    cb_allocator *heap = make(CB_HEAP, false, 0), *off = make(CB_OFF_HEAP, false, 0);
    cb_page a = allocate(heap, 1001), b = allocate(off, 1001);
    assert_non_null(a.base);
    assert_int_equal(a.offset, 0);
    assert_null(b.base);
    assert_int_not_equal(b.offset, 0);
    assert_int_equal(a.bytes, 1001);
    assert_int_equal(b.bytes, 1001);
    assert_int_equal(a.number, CB_PAGE_NONE);
    assert_int_equal((uintptr_t)cb_page_data(&a) % 64, 0);
    assert_int_equal((uintptr_t)cb_page_data(&b) % 4096, 0);
    assert_int_equal(cb_allocator_used(heap), 1008); /* backed by a multiple of 8 */
    memset(cb_page_data(&a), 1, a.bytes);
    memset(cb_page_data(&b), 1, b.bytes);
    assert_ok(cb_allocator_free(heap, &a, err));
    assert_ok(cb_allocator_free(off, &b, err));
    assert_null(cb_page_data(&a));
    assert_null(cb_page_data(&b));
    assert_int_equal(a.number, CB_PAGE_FREED_BY_ALLOCATOR);
    assert_int_equal(cb_allocator_used(heap) + cb_allocator_used(off), 0);
    cb_allocator_destroy(heap);
    cb_allocator_destroy(off);
}

static void test_freed_heap_page_of_a_mebibyte_is_reused_most_recent_first(void **state) {
    (void)state;
    cb_allocator *a = make(CB_HEAP, false, 0);
    cb_page first = allocate(a, MIB), second = allocate(a, MIB), other = allocate(a, 2 * MIB);
    uint8_t *first_base = first.base, *second_base = second.base;
    assert_ok(cb_allocator_free(a, &first, err));
    assert_ok(cb_allocator_free(a, &other, err));
    assert_ok(cb_allocator_free(a, &second, err));
    assert_int_equal(cb_allocator_idle(a), 4 * MIB);
    cb_page x = allocate(a, MIB), y = allocate(a, MIB);
    assert_ptr_equal(x.base, second_base);
    assert_ptr_equal(y.base, first_base);
    assert_int_equal(cb_allocator_idle(a), 2 * MIB);
    assert_ok(cb_allocator_free(a, &x, err));
    assert_ok(cb_allocator_free(a, &y, err));
    cb_allocator_destroy(a);
}

static void test_small_heap_page_is_not_pooled(void **state) {
    (void)state;
    cb_allocator *a = make(CB_HEAP, false, 0);
    cb_page p = allocate(a, MIB - 4096), q = allocate(a, 100);
    assert_ok(cb_allocator_free(a, &p, err));
    assert_ok(cb_allocator_free(a, &q, err));
    assert_int_equal(cb_allocator_idle(a), 0);
    cb_allocator_destroy(a);
}

static void test_idle_pages_go_when_the_budget_wants_them_oldest_first(void **state) {
    (void)state;
    cb_allocator *a = make(CB_HEAP, false, 0);
    cb_page p[4];
    for (int i = 0; i < 4; i++) {
        p[i] = allocate(a, (size_t)(i + 1) * MIB);
    }
    for (int i = 0; i < 4; i++) {
        assert_ok(cb_allocator_free(a, &p[i], err));
    }
    assert_int_equal(cb_allocator_trim(a, 7 * MIB), 3 * MIB); /* 1 and 2, the oldest */
    assert_int_equal(cb_allocator_idle(a), 7 * MIB);
    assert_int_equal(cb_allocator_trim(a, 0), 7 * MIB);
    cb_allocator_destroy(a);
}

static void test_off_heap_cache_keeps_to_its_limit(void **state) {
    (void)state;
    cb_allocator *a = make(CB_OFF_HEAP, false, 3 * MIB), *none = make(CB_OFF_HEAP, false, 0);
    cb_page p = allocate(a, 2 * MIB), q = allocate(a, 2 * MIB), r = allocate(none, 2 * MIB);
    assert_ok(cb_allocator_free(a, &p, err));
    assert_ok(cb_allocator_free(a, &q, err));
    assert_ok(cb_allocator_free(none, &r, err));
    assert_int_equal(cb_allocator_idle(a), 2 * MIB);
    assert_int_equal(cb_allocator_idle(none), 0);
    cb_allocator_destroy(a);
    cb_allocator_destroy(none);
}

static void test_more_sizes_than_classes_are_allocated_all_the_same(void **state) {
    (void)state;
    cb_allocator *a = make(CB_OFF_HEAP, false, UINT64_MAX);
    for (int round = 0; round < 2; round++) {
        cb_page p[CBI_SIZE_CLASSES_MAX + 8];
        for (size_t i = 0; i < sizeof p / sizeof p[0]; i++) {
            p[i] = allocate(a, (i + 1) * 4096);
        }
        for (size_t i = 0; i < sizeof p / sizeof p[0]; i++) {
            assert_ok(cb_allocator_free(a, &p[i], err));
        }
    }
    assert_int_equal(cb_allocator_used(a), 0);
    assert_int_equal(cb_allocator_trim(a, 0),
                     4096 * CBI_SIZE_CLASSES_MAX * (CBI_SIZE_CLASSES_MAX + 1) / 2);
    cb_allocator_destroy(a);
}

static void expect_misuse(cb_allocator *a, cb_page *page, const char *message) {
    cb_error err = {0};
    cb_page before = *page;
    assert_int_equal(cb_allocator_free(a, page, &err), CB_EMISUSE);
    assert_non_null(strstr(err.message, message));
    assert_memory_equal(page, &before, sizeof before);
}

static void test_double_free_is_caught(void **state) {
    (void)state;
    cb_allocator *a = make(CB_HEAP, false, 0);
    cb_page p = allocate(a, MIB), copy = p;
    assert_ok(cb_allocator_free(a, &p, err));
    expect_misuse(a, &p, "page has already been freed");
    expect_misuse(a, &copy, "page has already been freed");
    cb_page again = allocate(a, MIB); /* the same memory, another page */
    expect_misuse(a, &copy, "page has already been freed");
    assert_ok(cb_allocator_free(a, &again, err));
    cb_allocator_destroy(a);
}

static void test_freeing_with_the_other_modes_allocator_is_caught(void **state) {
    (void)state;
    cb_allocator *heap = make(CB_HEAP, false, 0), *off = make(CB_OFF_HEAP, false, 0);
    cb_page a = allocate(heap, 4096), b = allocate(off, 4096);
    expect_misuse(heap, &b,
                  "baseObject was null; are you trying to use the on-heap allocator to free "
                  "off-heap memory?");
    expect_misuse(off, &a,
                  "baseObject not null; are you trying to use the off-heap allocator to free "
                  "on-heap memory?");
    assert_ok(cb_allocator_free(heap, &a, err));
    assert_ok(cb_allocator_free(off, &b, err));
    cb_allocator_destroy(heap);
    cb_allocator_destroy(off);
}

static void test_freeing_a_tasks_page_straight_is_caught(void **state) {
    (void)state;
    static const char *const messages[] = {
        "TMM-allocated pages must first be freed via TMM.freePage(), not directly in allocator "
        "free()",
        "TMM-allocated pages must be freed via TMM.freePage(), not directly in allocator free()"};
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_allocator *a = make((cb_mode)mode, false, 0);
        cb_page p = allocate(a, 4096);
        p.number = 7;
        expect_misuse(a, &p, messages[mode]);
        p.number = CB_PAGE_FREED_BY_TASK;
        assert_ok(cb_allocator_free(a, &p, err));
        assert_int_equal(p.number, CB_PAGE_FREED_BY_ALLOCATOR);
        cb_allocator_destroy(a);
    }
}

static void test_debug_fill_marks_new_and_freed_bytes(void **state) {
    (void)state;
    cb_allocator *a = make(CB_HEAP, true, 0);
    cb_page p = allocate(a, MIB);
    uint8_t *data = cb_page_data(&p);
    assert_int_equal(data[0], 0xa5);
    assert_int_equal(data[MIB - 1], 0xa5);
    assert_ok(cb_allocator_free(a, &p, err));
    assert_int_equal(data[0], 0x5a); /* pooled: still mapped */
    assert_int_equal(data[MIB - 1], 0x5a);
    p = allocate(a, MIB);
    assert_int_equal(data[MIB / 2], 0xa5);
    assert_ok(cb_allocator_free(a, &p, err));
    cb_allocator_destroy(a);
}

static void test_page_of_no_bytes_is_refused(void **state) {
    (void)state;
    cb_allocator *a = make(CB_OFF_HEAP, false, 0);
    cb_page p;
    assert_int_equal(cb_allocator_allocate(a, 0, &p, NULL), CB_EINVAL);
    assert_int_equal(cb_allocator_allocate(a, SIZE_MAX, &p, NULL), CB_EINVAL);
    cb_allocator_destroy(a);
    cb_allocator_destroy(NULL);
}

static void test_more_than_the_machine_has_is_an_error(void **state) {
    (void)state;
    cb_allocator *a = make(CB_OFF_HEAP, false, 0);
    cb_page p;
    cb_error err = {0};
    assert_int_equal(cb_allocator_allocate(a, (size_t)1 << 60, &p, &err), CB_ENOMEM);
    assert_int_equal(err.bytes_asked, (size_t)1 << 60);
    assert_int_equal(cb_allocator_used(a), 0);
    cb_allocator_destroy(a);
}

static void test_huge_pages_are_aligned_for_them(void **state) {
    (void)state;
    cb_allocator_options options = {
        .struct_size = sizeof options, .mode = CB_OFF_HEAP, .huge_pages = true};
    cb_allocator *a = NULL;
    assert_ok(cb_allocator_create(&options, &a, err));
    cb_page p = allocate(a, 5 * MIB);
    assert_int_equal((uintptr_t)cb_page_data(&p) % (2 * MIB), 0);
    memset(cb_page_data(&p), 1, 5 * MIB);
    assert_ok(cb_allocator_free(a, &p, err));
    cb_allocator_destroy(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heap_page_has_a_base_and_off_heap_page_an_address),
        cmocka_unit_test(test_freed_heap_page_of_a_mebibyte_is_reused_most_recent_first),
        cmocka_unit_test(test_small_heap_page_is_not_pooled),
        cmocka_unit_test(test_idle_pages_go_when_the_budget_wants_them_oldest_first),
        cmocka_unit_test(test_off_heap_cache_keeps_to_its_limit),
        cmocka_unit_test(test_more_sizes_than_classes_are_allocated_all_the_same),
        cmocka_unit_test(test_double_free_is_caught),
        cmocka_unit_test(test_freeing_with_the_other_modes_allocator_is_caught),
        cmocka_unit_test(test_freeing_a_tasks_page_straight_is_caught),
        cmocka_unit_test(test_debug_fill_marks_new_and_freed_bytes),
        cmocka_unit_test(test_page_of_no_bytes_is_refused),
        cmocka_unit_test(test_more_than_the_machine_has_is_an_error),
        cmocka_unit_test(test_huge_pages_are_aligned_for_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
