/* SPDX-License-Identifier: Apache-2.0 */
#include "memory_test.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/** A consumer that keeps one page and frees it when asked. */
typedef struct holder {
    cb_consumer *consumer;
    cb_page page;
    int spills;
} holder;

static int64_t free_the_page(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)bytes;
    (void)asker;
    holder *h = ctx;
    h->spills++;
    if (h->page.number < 0) {
        return 0;
    }
    int64_t released = (int64_t)h->page.bytes;
    assert_ok(cb_page_free(h->consumer, &h->page, err));
    return released;
}

static cb_page alloc(cb_consumer *c, size_t bytes) {
    cb_page page;
    assert_ok(cb_page_alloc(c, bytes, &page, err));
    return page;
}

static void test_page_is_accounted_entered_and_freed(void **state) {
    (void)state;
    cb_manager *m = make_native(4 * MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_page p = alloc(c, MIB), q = alloc(c, 5000);
    assert_int_equal(p.number, 0);
    assert_int_equal(q.number, 1);
    assert_int_equal(q.bytes, 5000);
    assert_int_equal(cb_consumer_used(c), MIB + 8192); /* native rules count what really backs it */
    memset(cb_page_data(&p), 7, p.bytes);
    uint8_t *const *table = cb_task_page_table(t);
    assert_ptr_equal(table[0], cb_page_data(&p));
    assert_ok(cb_page_free(c, &p, err));
    assert_null(cb_page_data(&p));
    assert_null(table[0]);
    cb_page r = alloc(c, 4096);
    assert_int_equal(r.number, 0); /* the lowest free number */
    assert_ok(cb_page_free(c, &q, err));
    assert_ok(cb_page_free(c, &r, err));
    assert_int_equal(cb_task_used(t), 0);
    assert_int_equal(cb_task_end(t, NULL, 0), 0);
    cb_manager_destroy(m);
}

static void test_sparks_rules_account_what_was_asked(void **state) {
    (void)state;
    cb_manager *m = make_spark(MIB, 0);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_HEAP, NULL, NULL);
    cb_page p = alloc(c, 5001);
    assert_int_equal(cb_consumer_used(c), 5001);
    assert_int_equal(cb_manager_accounted(m), 5001);
    assert_ok(cb_page_free(c, &p, err));
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_address_means_the_same_byte_in_both_modes(void **state) {
    (void)state;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_manager_options options = cb_manager_options_native(MIB);
        options.mode = (cb_mode)mode;
        options.heap_bytes = MIB;
        cb_manager *m = make_manager(&options);
        cb_task *t = make_task(m, 1);
        cb_consumer *c = make_consumer_of(t, "c", (cb_mode)mode, NULL, NULL);
        cb_page p = alloc(c, 4096), q = alloc(c, 4096);
        cb_address a = cb_address_of(&q, 100);
        assert_int_equal(cb_address_page(a), 1);
        assert_int_equal(cb_address_offset(a), 100);
        assert_ptr_equal(cb_address_data(cb_task_page_table(t), a), cb_page_data(&q) + 100);
        assert_int_equal(cb_address_of(&p, 0), 0);
        assert_int_equal(cb_address_of_byte(&q, cb_page_data(&q) + 100), a);
        assert_int_equal(cb_address_page(cb_address_of(&q, ((uint64_t)1 << 51) + 10)), 1);
        assert_int_equal(cb_address_offset(cb_address_of(&q, ((uint64_t)1 << 51) + 10)), 10);
        (void)cb_task_end(t, NULL, 0);
        cb_manager_destroy(m);
    }
}

static void test_all_page_numbers_can_be_used_and_no_more(void **state) {
    (void)state;
    cb_manager_options options = cb_manager_options_native(64 * MIB);
    options.mode = CB_HEAP;
    options.heap_bytes = 64 * MIB;
    cb_manager *m = make_manager(&options);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_HEAP, NULL, NULL);
    static cb_page pages[CB_PAGE_TABLE_SIZE];
    for (int i = 0; i < CB_PAGE_TABLE_SIZE; i++) {
        pages[i] = alloc(c, 16);
        assert_int_equal(pages[i].number, i);
    }
    cb_page more;
    cb_error err = {0};
    assert_int_equal(cb_page_alloc(c, 16, &more, &err), CB_EBUDGET);
    assert_non_null(strstr(err.message, "maximum of 8192 pages"));
    assert_int_equal(cb_consumer_used(c), 16 * CB_PAGE_TABLE_SIZE);
    cb_address last = cb_address_of(&pages[CB_PAGE_TABLE_SIZE - 1], 15);
    assert_ptr_equal(cb_address_data(cb_task_page_table(t), last),
                     cb_page_data(&pages[CB_PAGE_TABLE_SIZE - 1]) + 15);
    assert_int_equal(cb_page_free(c, &pages[77], NULL), CB_OK);
    more = alloc(c, 16);
    assert_int_equal(more.number, 77);
    assert_int_equal(cb_task_end(t, NULL, 0), 16 * CB_PAGE_TABLE_SIZE);
    assert_int_equal(pool_of(m, CB_EXECUTION, CB_HEAP).used, 0);
    cb_manager_destroy(m);
}

static void test_too_large_page_is_refused(void **state) {
    (void)state;
    cb_manager *m = make_native(MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_page p;
    assert_int_equal(cb_page_alloc(c, CB_PAGE_BYTES_MAX + 1, &p, NULL), CB_EINVAL);
    assert_int_equal(cb_page_alloc(c, 0, &p, NULL), CB_EINVAL);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_page_beyond_the_budget_is_refused_with_the_tree(void **state) {
    (void)state;
    cb_manager *m = make_native(MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "greedy", CB_OFF_HEAP, NULL, NULL);
    cb_page p = alloc(c, 768 * KIB), q;
    cb_error err = {0};
    assert_int_equal(cb_page_alloc(c, 512 * KIB, &q, &err), CB_EBUDGET);
    assert_int_equal(err.bytes_had, 256 * KIB);
    assert_non_null(strstr(err.message, "greedy"));
    assert_int_equal(cb_consumer_used(c), 768 * KIB);
    assert_int_equal(cb_page_free(c, &p, NULL), CB_OK);
    q = alloc(c, MIB);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_allocating_has_other_consumers_free_their_pages(void **state) {
    (void)state;
    cb_manager *m = make_native(2 * MIB, 1);
    cb_task *t = make_task(m, 1);
    holder h = {.page = {.number = CB_PAGE_NONE}};
    h.consumer = make_consumer_of(t, "holder", CB_OFF_HEAP, free_the_page, &h);
    h.page = alloc(h.consumer, MIB + MIB / 2);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_page p = alloc(c, MIB);
    assert_int_equal(h.spills, 1);
    assert_int_equal(h.page.number, CB_PAGE_FREED_BY_ALLOCATOR);
    assert_ok(cb_page_free(c, &p, err));
    assert_int_equal(cb_task_end(t, NULL, 0), 0);
    cb_manager_destroy(m);
}

static void expect_misuse(cb_consumer *c, cb_page *page, const char *message) {
    cb_error err = {0};
    uint64_t used = cb_consumer_used(c);
    assert_int_equal(cb_page_free(c, page, &err), CB_EMISUSE);
    assert_non_null(strstr(err.message, message));
    assert_int_equal(cb_consumer_used(c), used);
}

static void test_misuse_of_pages_is_caught(void **state) {
    (void)state;
    cb_manager *m = make_native(4 * MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *d = make_consumer_of(t, "d", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *heap = make_consumer_of(t, "heap", CB_HEAP, NULL, NULL);
    cb_page p = alloc(c, MIB), copy = p;
    expect_misuse(d, &p, "another consumer");
    assert_ok(cb_page_free(c, &p, err));
    expect_misuse(c, &p, "Called freePage() on a memory block that has already been freed");
    expect_misuse(c, &copy, "Called freePage() on a memory block that has already been freed");
    cb_page again = alloc(c, MIB); /* the same number and the same memory */
    assert_int_equal(again.number, copy.number);
    expect_misuse(c, &copy, "Called freePage() on a memory block that has already been freed");
    cb_page stranger = {.number = CB_PAGE_NONE};
    expect_misuse(c, &stranger,
                  "Called freePage() on memory that wasn't allocated with allocatePage()");
    cb_page q;
    assert_int_equal(cb_page_alloc(heap, 4096, &q, NULL), CB_EMISUSE);
    assert_ok(cb_page_free(c, &again, err));
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_address_in_a_freed_page_ends_the_process(void **state) {
    (void)state;
    cb_manager *m = make_native(MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_page p = alloc(c, 4096);
    assert_ok(cb_page_free(c, &p, err));
    pid_t child = fork();
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        _exit((int)cb_address_of(&p, 0) & 0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) != 0);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);
}

static void test_page_can_be_smaller_when_that_is_enough(void **state) {
    (void)state;
    cb_manager *m = make_native(20000, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_page p, q;
    assert_int_equal(cb_page_alloc_least(c, 16385, 65536, &p, NULL), CB_EBUDGET);
    assert_int_equal(cb_consumer_used(c), 0);
    assert_int_equal(cb_page_alloc_least(c, 10, 65536, &p, NULL), CB_OK);
    assert_int_equal(p.bytes, 16384); /* whole pages of the system */
    assert_int_equal(cb_consumer_used(c), 16384);
    memset(cb_page_data(&p), 1, p.bytes);
    assert_ok(cb_page_free(c, &p, err));
    assert_int_equal(cb_page_alloc_least(c, 10, 4096, &p, NULL), CB_OK);
    assert_int_equal(p.bytes, 4096);
    assert_int_equal(cb_page_alloc_least(c, 11, 10, &q, NULL), CB_EINVAL);
    assert_int_equal(cb_page_alloc_least(c, 0, 10, &q, NULL), CB_EINVAL);
    (void)cb_task_end(t, NULL, 0);
    cb_manager_destroy(m);

    m = make_spark(1000, 0);
    t = make_task(m, 1);
    c = make_consumer_of(t, "c", CB_HEAP, NULL, NULL);
    assert_int_equal(cb_page_alloc_least(c, 600, 4096, &p, NULL), CB_OK);
    assert_int_equal(p.bytes, 1000); /* whatever was granted */
    assert_int_equal(cb_page_alloc_least(c, 1, 4096, &q, NULL), CB_EBUDGET);
    assert_int_equal(cb_task_end(t, NULL, 0), 1000);
    cb_manager_destroy(m);
}

/** Lets the process map so many bytes more; answers the limit that was. */
static struct rlimit limit_mappings(uint64_t more) {
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    assert_non_null(statm);
    assert_int_equal(fscanf(statm, "%lu", &pages), 1);
    (void)fclose(statm);
    struct rlimit before, now;
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    now = before;
    now.rlim_cur = pages * 4096 + more;
    assert_int_equal(setrlimit(RLIMIT_AS, &now), 0);
    return before;
}

/** The system has less than the budget says. What it refused is kept aside, so that the next try is
 *  made with other bytes: in the end with what a consumer spills. */
static void test_grant_that_the_system_refuses_is_kept_aside_and_another_is_tried(void **state) {
    (void)state;
    for (int spark = 0; spark < 2; spark++) {
        cb_manager *m = spark ? make_spark(128 * MIB, 0) : make_native(128 * MIB, 1);
        cb_mode mode = spark ? CB_HEAP : CB_OFF_HEAP;
        cb_task *t = make_task(m, 1);
        holder h = {.page = {.number = CB_PAGE_NONE}};
        h.consumer = make_consumer_of(t, "holder", mode, free_the_page, &h);
        h.page = alloc(h.consumer, 32 * MIB);
        cb_consumer *c = make_consumer_of(t, "c", mode, NULL, NULL);
        struct rlimit before = limit_mappings(16 * MIB);
        cb_page p;
        cb_error err = {0};
        cb_status status = cb_page_alloc(c, 32 * MIB, &p, &err);
        cb_error second = {0};
        cb_status none = cb_page_alloc(c, 32 * MIB + 4096, &(cb_page){0}, &second);
        assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
        assert_int_equal(status, CB_OK);
        assert_int_equal(h.spills, 1);
        assert_int_equal(cb_consumer_used(c), 32 * MIB);
        /* Native gives the bytes back when the call ends, Spark when the task does. */
        assert_int_equal(cb_task_used(t), spark ? 128 * MIB : 32 * MIB);
        assert_int_equal(none, spark ? CB_EBUDGET : CB_ENOMEM);
        assert_int_equal(cb_consumer_used(c), 32 * MIB);
        if (spark) {
            char tree[1024];
            (void)cb_manager_tree(m, tree, sizeof tree);
            assert_non_null(strstr(tree, "not of any consumer: 96.0 MiB"));
        }
        assert_int_equal(cb_page_free(c, &p, NULL), CB_OK);
        assert_int_equal(cb_task_end(t, NULL, 0), 0); /* what was kept aside is no leak */
        assert_int_equal(pool_of(m, CB_EXECUTION, mode).used, 0);
        cb_manager_destroy(m);
    }
}

static void test_freed_pages_idle_inside_the_budget_only(void **state) {
    (void)state;
    cb_manager *m = make_native(4 * MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_page p = alloc(c, 2 * MIB), q = alloc(c, 2 * MIB);
    uint8_t *data = cb_page_data(&q);
    assert_ok(cb_page_free(c, &p, err));
    assert_ok(cb_page_free(c, &q, err));
    assert_int_equal(cb_manager_accounted(m), 4 * MIB + 8 * KIB); /* idle, and counted */
    p = alloc(c, 2 * MIB);
    assert_ptr_equal(cb_page_data(&p), data);
    q = alloc(c, MIB); /* another size: an idle page has to go for it */
    assert_in_range(cb_manager_accounted(m), 3 * MIB, 4 * MIB + 8 * KIB);
    assert_int_equal(cb_manager_accounted_peak(m), 4 * MIB + 8 * KIB);
    assert_int_equal(cb_task_end(t, NULL, 0), 3 * MIB);
    cb_manager_destroy(m);
}

static void test_consumers_pages_go_with_it(void **state) {
    (void)state;
    cb_manager *m = make_native(4 * MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_consumer *d = make_consumer_of(t, "d", CB_OFF_HEAP, NULL, NULL);
    (void)alloc(c, MIB);
    cb_page kept = alloc(d, MIB);
    assert_int_equal(acquire(c, 1000), 1000);
    cb_consumer_destroy(c);
    assert_int_equal(cb_task_used(t), MIB);
    memset(cb_page_data(&kept), 1, MIB);
    assert_ok(cb_page_free(d, &kept, err));
    assert_int_equal(cb_task_end(t, NULL, 0), 0);
    cb_consumer_destroy(NULL);
    cb_manager_destroy(m);
}

static void test_array_has_its_elements(void **state) {
    (void)state;
    cb_manager *m = make_native(4 * MIB, 1);
    cb_task *t = make_task(m, 1);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    cb_array a;
    assert_ok(cb_array_alloc(c, 1000, &a, err));
    assert_int_equal(a.count, 1000);
    for (size_t i = 0; i < a.count; i++) {
        a.items[i] = i * i;
    }
    assert_int_equal(a.items[999], 999 * 999);
    assert_ok(cb_array_free(c, &a, err));
    assert_null(a.items);
    assert_int_equal(cb_array_free(c, &a, NULL), CB_EMISUSE);
    assert_int_equal(cb_array_alloc(c, SIZE_MAX / 8, &a, NULL), CB_EINVAL);
    assert_int_equal(cb_task_end(t, NULL, 0), 0);
    cb_manager_destroy(m);
}

static void test_page_table_grows_in_the_ledger(void **state) {
    (void)state;
    cb_manager *m = make_native(16 * MIB, 1);
    uint64_t before = cb_manager_accounted(m);
    cb_task *t = make_task(m, 1);
    assert_int_equal(cb_manager_accounted(m), before + 8 * KIB);
    cb_consumer *c = make_consumer_of(t, "c", CB_OFF_HEAP, NULL, NULL);
    for (int i = 0; i < 200; i++) {
        (void)alloc(c, 4096);
    }
    assert_int_equal(cb_manager_accounted(m), before + 12 * KIB + 200 * 4096);
    (void)cb_task_end(t, NULL, 0);
    assert_int_equal(cb_manager_debt(m), 0);
    char tree[1024];
    (void)cb_manager_tree(m, tree, sizeof tree);
    assert_non_null(strstr(tree, "page tables: 0 B used, peak 12.0 KiB"));
    cb_manager_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_is_accounted_entered_and_freed),
        cmocka_unit_test(test_sparks_rules_account_what_was_asked),
        cmocka_unit_test(test_address_means_the_same_byte_in_both_modes),
        cmocka_unit_test(test_all_page_numbers_can_be_used_and_no_more),
        cmocka_unit_test(test_too_large_page_is_refused),
        cmocka_unit_test(test_page_beyond_the_budget_is_refused_with_the_tree),
        cmocka_unit_test(test_allocating_has_other_consumers_free_their_pages),
        cmocka_unit_test(test_misuse_of_pages_is_caught),
        cmocka_unit_test(test_address_in_a_freed_page_ends_the_process),
        cmocka_unit_test(test_page_can_be_smaller_when_that_is_enough),
        cmocka_unit_test(test_grant_that_the_system_refuses_is_kept_aside_and_another_is_tried),
        cmocka_unit_test(test_freed_pages_idle_inside_the_budget_only),
        cmocka_unit_test(test_consumers_pages_go_with_it),
        cmocka_unit_test(test_array_has_its_elements),
        cmocka_unit_test(test_page_table_grows_in_the_ledger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
