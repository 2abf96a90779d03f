/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of sharing one by one, and what the two rule sets do differently. */
#include "memory_test.h"

#include "memory/arbiter.h"

typedef struct party {
    cbi_party party;
    cbi_request request;
} party;

static cbi_arbiter make(cb_rules rules, uint64_t heap, uint64_t region, uint64_t off_heap) {
    cbi_arbiter a;
    const uint64_t total[CB_MODE_COUNT] = {heap, off_heap}, regions[CB_MODE_COUNT] = {region, 0};
    cbi_arbiter_init(&a, rules, CB_POLICY_UNIFIED, total, regions);
    return a;
}

static cbi_verdict ask(cbi_arbiter *a, party *p, uint64_t bytes, cb_mode mode) {
    p->request = (cbi_request){.party = &p->party, .mode = mode, .bytes = bytes, .may_wait = true};
    cbi_verdict verdict = cbi_arbiter_acquire(a, &p->request);
    cbi_arbiter_check(a);
    return verdict;
}

static uint64_t granted(cbi_arbiter *a, party *p, uint64_t bytes) {
    assert_int_equal(ask(a, p, bytes, CB_HEAP), CBI_GRANTED);
    return p->request.granted;
}

static cbi_verdict store(cbi_arbiter *a, cbi_request *r, uint64_t bytes) {
    *r = (cbi_request){.mode = CB_HEAP, .bytes = bytes};
    return cbi_arbiter_acquire_storage(a, r);
}

static void settle(cbi_arbiter *a, cbi_request *r, uint64_t dropped) {
    cbi_arbiter_marked(a, r, dropped);
    (void)cbi_arbiter_settle(a, r, dropped);
    cbi_arbiter_check(a);
}

static void test_one_task_may_have_everything(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 0, 0);
    party p;
    cbi_arbiter_join(&a, &p.party);
    assert_int_equal(granted(&a, &p, 1500), 1000);
    assert_int_equal(granted(&a, &p, 1), 0);
}

static void test_each_of_n_tasks_gets_at_most_its_share(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 0, 0);
    party p[4];
    for (int i = 0; i < 4; i++) {
        cbi_arbiter_join(&a, &p[i].party);
        assert_int_equal(granted(&a, &p[i], 100), 100);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(granted(&a, &p[i], 1000), 150); /* 1000 / 4 */
    }
}

static void test_task_below_half_its_share_waits(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 0, 0);
    party p, q;
    cbi_arbiter_join(&a, &p.party);
    cbi_arbiter_join(&a, &q.party);
    assert_int_equal(granted(&a, &p, 800), 800);
    assert_int_equal(ask(&a, &q, 300, CB_HEAP), CBI_BLOCKED);
    (void)cbi_arbiter_release(&a, &p.party, CB_HEAP, 49);
    assert_null(cbi_arbiter_next(&a)); /* 249 of 250 */
    (void)cbi_arbiter_release(&a, &p.party, CB_HEAP, 1);
    assert_ptr_equal(cbi_arbiter_next(&a), &q.request);
    assert_int_equal(q.request.granted, 250);
    assert_null(cbi_arbiter_next(&a));
    cbi_arbiter_check(&a);
}

static void test_small_request_of_a_poor_task_does_not_wait_when_it_fits(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 0, 0);
    party p, q;
    cbi_arbiter_join(&a, &p.party);
    cbi_arbiter_join(&a, &q.party);
    assert_int_equal(granted(&a, &p, 990), 990);
    assert_int_equal(granted(&a, &q, 10), 10);
}

static void test_new_task_lowers_the_floors_and_wakes(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1200, 0, 0);
    party p, q, r;
    cbi_arbiter_join(&a, &p.party);
    cbi_arbiter_join(&a, &q.party);
    cbi_arbiter_join(&a, &r.party);
    assert_int_equal(granted(&a, &p, 1000), 1000);
    assert_int_equal(ask(&a, &q, 400, CB_HEAP), CBI_BLOCKED); /* 200 free, the floor is 300 */
    assert_int_equal(ask(&a, &r, 400, CB_HEAP),
                     CBI_GRANTED); /* the floor is 200 now; it came last and is first */
    assert_int_equal(r.request.granted, 200);
    assert_null(cbi_arbiter_next(&a));
    (void)cbi_arbiter_release(&a, &p.party, CB_HEAP, 200);
    assert_ptr_equal(cbi_arbiter_next(&a), &q.request);
    assert_int_equal(q.request.granted, 200);
}

static void test_task_granted_nothing_counts_for_spark_only(void **state) {
    (void)state;
    for (int rules = 0; rules < 2; rules++) {
        cbi_arbiter a = make((cb_rules)rules, 1000, 0, 1000);
        party p, q;
        cbi_arbiter_join(&a, &p.party);
        cbi_arbiter_join(&a, &q.party);
        assert_int_equal(granted(&a, &p, 1000), 1000);
        q.request =
            (cbi_request){.party = &q.party, .mode = CB_HEAP, .bytes = 10, .may_wait = false};
        assert_int_equal(cbi_arbiter_acquire(&a, &q.request), CBI_GRANTED);
        assert_int_equal(q.request.granted, 0);
        assert_int_equal(a.tasks[CB_HEAP], rules == CB_RULES_SPARK ? 2 : 1);
    }
}

static void test_release_of_storage_wakes_under_native_rules_only(void **state) {
    (void)state;
    for (int rules = 0; rules < 2; rules++) {
        cbi_arbiter a = make((cb_rules)rules, 1000, 1000, 0);
        cbi_request s;
        party p, q;
        cbi_arbiter_join(&a, &p.party);
        cbi_arbiter_join(&a, &q.party);
        assert_int_equal(store(&a, &s, 400), CBI_GRANTED);
        assert_int_equal(granted(&a, &p, 600), 600);
        assert_int_equal(ask(&a, &q, 300, CB_HEAP), CBI_BLOCKED);
        (void)cbi_arbiter_release_storage(&a, CB_HEAP, 400);
        cbi_request *woken = cbi_arbiter_next(&a);
        if (rules == CB_RULES_SPARK) {
            assert_null(woken);
        } else {
            assert_ptr_equal(woken, &q.request);
            assert_int_equal(q.request.granted, 300);
        }
    }
}

static void test_sparks_wake_crosses_the_modes(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 1000, 1000);
    cbi_request s;
    party p, q, r;
    cbi_arbiter_join(&a, &p.party);
    cbi_arbiter_join(&a, &q.party);
    cbi_arbiter_join(&a, &r.party);
    assert_int_equal(store(&a, &s, 400), CBI_GRANTED);
    assert_int_equal(granted(&a, &p, 600), 600);
    assert_int_equal(ask(&a, &q, 300, CB_HEAP), CBI_BLOCKED);
    (void)cbi_arbiter_release_storage(&a, CB_HEAP, 400);
    assert_null(cbi_arbiter_next(&a));
    assert_int_equal(ask(&a, &r, 5, CB_OFF_HEAP), CBI_GRANTED); /* a new task off-heap */
    assert_ptr_equal(cbi_arbiter_next(&a), &q.request);
    assert_int_equal(q.request.granted, 300);
}

static void test_refused_storage_has_moved_the_border_all_the_same(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 500, 0);
    cbi_request s;
    assert_int_equal(store(&a, &s, 600), CBI_GRANTED);
    assert_int_equal(store(&a, &s, 500), CBI_EVICT);
    settle(&a, &s, 0);
    assert_int_equal(s.verdict, CBI_REFUSED);
    assert_int_equal(a.pools[CB_EXECUTION][CB_HEAP].size, 0);
    assert_int_equal(a.pools[CB_STORAGE][CB_HEAP].size, 1000);
}

static void test_share_counts_what_could_be_evicted(void **state) {
    (void)state; /* SPARK-12155: all of storage above the region is as good as free */
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 200, 0);
    cbi_request s;
    party p, q;
    cbi_arbiter_join(&a, &p.party);
    cbi_arbiter_join(&a, &q.party);
    assert_int_equal(store(&a, &s, 900), CBI_GRANTED);
    assert_int_equal(granted(&a, &p, 50), 50);
    assert_int_equal(granted(&a, &q, 10), 10);
    assert_int_equal(ask(&a, &p, 500, CB_HEAP), CBI_EVICT);
    assert_int_equal(p.request.evict_bytes, 460);
    settle(&a, &p.request, 460);
    assert_int_equal(p.request.granted, 350); /* to 400 = (1000 - 200) / 2 */
}

static void test_eviction_may_bring_more_than_was_wished(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 0, 0);
    cbi_request s;
    party p;
    cbi_arbiter_join(&a, &p.party);
    assert_int_equal(store(&a, &s, 1000), CBI_GRANTED);
    assert_int_equal(ask(&a, &p, 100, CB_HEAP), CBI_EVICT);
    settle(&a, &p.request, 700);
    assert_int_equal(p.request.granted, 100);
    assert_int_equal(a.pools[CB_EXECUTION][CB_HEAP].size, 700);
    assert_int_equal(a.pools[CB_STORAGE][CB_HEAP].used, 300);
}

static void test_bytes_that_leave_are_not_counted_on_twice(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_NATIVE, 1000, 400, 0);
    cbi_request s;
    party p, q;
    cbi_arbiter_join(&a, &p.party);
    cbi_arbiter_join(&a, &q.party);
    assert_int_equal(store(&a, &s, 1000), CBI_GRANTED);
    assert_int_equal(ask(&a, &p, 500, CB_HEAP), CBI_EVICT);
    assert_int_equal(p.request.evict_bytes, 500);
    assert_int_equal(ask(&a, &q, 500, CB_HEAP), CBI_EVICT);
    assert_int_equal(q.request.evict_bytes, 100); /* what is left above the region */
    settle(&a, &p.request, 500);
    settle(&a, &q.request, 100);
    assert_int_equal(a.pools[CB_STORAGE][CB_HEAP].used, 400);
    cbi_arbiter_check(&a);
}

static void test_passed_waiter_collects_in_the_end(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_NATIVE, 1000, 0, 0);
    party big, small, holder;
    cbi_arbiter_join(&a, &big.party);
    cbi_arbiter_join(&a, &small.party);
    cbi_arbiter_join(&a, &holder.party);
    assert_int_equal(granted(&a, &holder, 1000), 1000);
    assert_int_equal(ask(&a, &big, 250, CB_HEAP), CBI_BLOCKED);
    int passes = 0;
    while (big.request.verdict == CBI_BLOCKED && passes < 100) {
        (void)cbi_arbiter_release(&a, &holder.party, CB_HEAP, 10);
        while (cbi_arbiter_next(&a) != NULL) {
        }
        if (big.request.verdict == CBI_BLOCKED) { /* somebody small always takes what came free */
            small.request = (cbi_request){
                .party = &small.party, .mode = CB_HEAP, .bytes = 10, .may_wait = false};
            (void)cbi_arbiter_acquire(&a, &small.request);
            (void)cbi_arbiter_release(&a, &small.party, CB_HEAP, small.request.granted);
            small.request.granted = 0;
            while (cbi_arbiter_next(&a) != NULL) {
            }
        }
        cbi_arbiter_check(&a);
        passes++;
    }
    assert_int_equal(big.request.verdict, CBI_GRANTED);
    assert_true(passes < 100);
}

static void test_waiter_that_gives_up_leaves_what_it_collected(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_NATIVE, 1000, 0, 0);
    party big, holder;
    cbi_arbiter_join(&a, &big.party);
    cbi_arbiter_join(&a, &holder.party);
    assert_int_equal(granted(&a, &holder, 1000), 1000);
    assert_int_equal(ask(&a, &big, 250, CB_HEAP), CBI_BLOCKED);
    big.request.passed = 1000;
    (void)cbi_arbiter_release(&a, &holder.party, CB_HEAP, 100);
    assert_null(cbi_arbiter_next(&a));
    assert_int_equal(a.pools[CB_EXECUTION][CB_HEAP].held, 100);
    cbi_arbiter_withdraw(&a, &big.request);
    assert_int_equal(a.pools[CB_EXECUTION][CB_HEAP].held, 0);
    assert_int_equal(a.tasks[CB_HEAP], 1);
    cbi_arbiter_check(&a);
}

static void test_answer_says_how_much_to_spill(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_NATIVE, 1000, 0, 0);
    party p, q;
    cbi_arbiter_join(&a, &p.party);
    cbi_arbiter_join(&a, &q.party);
    assert_int_equal(granted(&a, &p, 700), 700);
    assert_int_equal(granted(&a, &q, 300), 300);
    assert_int_equal(granted(&a, &p, 100), 0);
    assert_int_equal(p.request.spill_bytes, 300);
    assert_int_equal(granted(&a, &q, 100), 0);
    assert_int_equal(q.request.spill_bytes, 100); /* within its share, nothing is free */
}

static void test_hand_keeps_what_a_spill_frees(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_NATIVE, 1000, 0, 0);
    party p, q;
    cbi_arbiter_join(&a, &p.party);
    cbi_arbiter_join(&a, &q.party);
    assert_int_equal(granted(&a, &p, 1000), 1000);
    assert_int_equal(ask(&a, &q, 300, CB_HEAP), CBI_BLOCKED);
    cbi_arbiter_reclaim_begin(&a, &p.party, CB_HEAP);
    assert_int_equal(cbi_arbiter_release(&a, &p.party, CB_HEAP, 500), 500);
    assert_null(cbi_arbiter_next(&a));
    assert_int_equal(cbi_arbiter_take_hand(&a, &p.party, CB_HEAP, 200), 200);
    cbi_arbiter_check(&a);
    cbi_arbiter_reclaim_end(&a, &p.party, CB_HEAP);
    assert_ptr_equal(cbi_arbiter_next(&a), &q.request);
    assert_int_equal(q.request.granted, 300);
    assert_int_equal(p.party.bytes[CB_HEAP], 700);
    cbi_arbiter_check(&a);
}

static void test_releasing_more_than_held_is_clamped(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_SPARK, 1000, 0, 0);
    party p;
    cbi_arbiter_join(&a, &p.party);
    assert_int_equal(granted(&a, &p, 10), 10);
    assert_int_equal(cbi_arbiter_release(&a, &p.party, CB_HEAP, 11), 10);
    assert_int_equal(cbi_arbiter_release(&a, &p.party, CB_HEAP, 1), 0);
    assert_int_equal(cbi_arbiter_release_all(&a, &p.party), 0);
    cbi_arbiter_leave(&a, &p.party);
    assert_null(a.parties);
}

static void test_growing_pays_the_debt_first(void **state) {
    (void)state;
    cbi_arbiter a = make(CB_RULES_NATIVE, 100, 0, 0);
    party p;
    cbi_arbiter_join(&a, &p.party);
    assert_int_equal(granted(&a, &p, 80), 80);
    cbi_arbiter_charge(&a, CB_HEAP, 50);
    assert_int_equal(a.debt[CB_HEAP], 30);
    cbi_arbiter_grow(&a, CB_HEAP, 40);
    assert_int_equal(a.debt[CB_HEAP], 0);
    assert_int_equal(granted(&a, &p, 80), 10);
    cbi_arbiter_check(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_task_may_have_everything),
        cmocka_unit_test(test_each_of_n_tasks_gets_at_most_its_share),
        cmocka_unit_test(test_task_below_half_its_share_waits),
        cmocka_unit_test(test_small_request_of_a_poor_task_does_not_wait_when_it_fits),
        cmocka_unit_test(test_new_task_lowers_the_floors_and_wakes),
        cmocka_unit_test(test_task_granted_nothing_counts_for_spark_only),
        cmocka_unit_test(test_release_of_storage_wakes_under_native_rules_only),
        cmocka_unit_test(test_sparks_wake_crosses_the_modes),
        cmocka_unit_test(test_refused_storage_has_moved_the_border_all_the_same),
        cmocka_unit_test(test_share_counts_what_could_be_evicted),
        cmocka_unit_test(test_eviction_may_bring_more_than_was_wished),
        cmocka_unit_test(test_bytes_that_leave_are_not_counted_on_twice),
        cmocka_unit_test(test_passed_waiter_collects_in_the_end),
        cmocka_unit_test(test_waiter_that_gives_up_leaves_what_it_collected),
        cmocka_unit_test(test_answer_says_how_much_to_spill),
        cmocka_unit_test(test_hand_keeps_what_a_spill_frees),
        cmocka_unit_test(test_releasing_more_than_held_is_clamped),
        cmocka_unit_test(test_growing_pays_the_debt_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
