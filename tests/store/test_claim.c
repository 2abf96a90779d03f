/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: one computes what nobody has, and whoever waits gets it or is the next. Method: answers one
 * by one, in made time.
 */
#include "store/claim.h"

#include "support/test.h"

static cbi_claim begin(void) {
    cbi_claim c = {.claim_ns = 900, .poll_ns = 100, .patience_ns = 1000};
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_BEGUN, 0, 1), CBI_CLAIM_LOOK);
    return c;
}

static cbi_claim granted(void) {
    cbi_claim c = begin();
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_MISSING, 0, 1), CBI_CLAIM_TAKE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_GRANTED, 0, 1), CBI_CLAIM_LOOK);
    return c;
}

static void test_claim__what_somebody_has_is_not_computed(void **state) {
    (void)state;
    cbi_claim c = begin();
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_FOUND, 0, 1), CBI_CLAIM_DONE);
    c = granted(); /* was stored between the look and the claim */
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_FOUND, 0, 1), CBI_CLAIM_GIVE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, 1), CBI_CLAIM_DONE);
}

static void test_claim__who_computes_renews_and_lets_go(void **state) {
    (void)state;
    cbi_claim c = granted();
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_MISSING, 0, 10), CBI_CLAIM_COMPUTE);
    assert_int_equal(c.renew_ns, 310);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, 309), CBI_CLAIM_COMPUTE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, 310), CBI_CLAIM_RENEW);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_UNKNOWN, 0, 311), CBI_CLAIM_COMPUTE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_STORED, 0, 400), CBI_CLAIM_GIVE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, 400), CBI_CLAIM_DONE);
    c = granted();
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_MISSING, 0, 10), CBI_CLAIM_COMPUTE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_COMPUTE_FAILED, 0, 20), CBI_CLAIM_GIVE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, 20), CBI_CLAIM_FAILED);
}

static void test_claim__who_waits_looks_again_and_is_the_next(void **state) {
    (void)state;
    cbi_claim c = begin();
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_MISSING, 0, 1), CBI_CLAIM_TAKE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_HELD, 800, 1), CBI_CLAIM_WAIT);
    assert_int_equal(c.due_ns, 101); /* not longer than poll_ns */
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, 101), CBI_CLAIM_LOOK);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_MISSING, 0, 101), CBI_CLAIM_TAKE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_HELD, 30, 101), CBI_CLAIM_WAIT);
    assert_int_equal(c.due_ns, 131);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, 131), CBI_CLAIM_LOOK);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_MISSING, 0, 131), CBI_CLAIM_TAKE);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_GRANTED, 0, 131), CBI_CLAIM_LOOK);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_MISSING, 0, 131), CBI_CLAIM_COMPUTE);
}

static void test_claim__without_a_directory_patience_ends(void **state) {
    (void)state;
    cbi_claim c = begin();
    uint64_t now = 1;
    cbi_claim_action a = cbi_claim_step(&c, CBI_CLAIM_UNKNOWN, 0, now);
    for (int i = 0; i < 100 && a == CBI_CLAIM_WAIT; i++) {
        now = c.due_ns;
        assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, now), CBI_CLAIM_LOOK);
        a = cbi_claim_step(&c, CBI_CLAIM_UNKNOWN, 0, now);
    }
    assert_int_equal(a, CBI_CLAIM_COMPUTE);
    assert_in_range(now, 1001, 1101);
    assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_STORED, 0, now), CBI_CLAIM_DONE);
}

static void test_claim__patience_ends_with_a_directory_that_only_looks(void **state) {
    (void)state;
    cbi_claim c = begin();
    uint64_t now = 1;
    cbi_claim_action a = CBI_CLAIM_WAIT;
    for (int i = 0; i < 100 && a == CBI_CLAIM_WAIT; i++) {
        assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_MISSING, 0, now), CBI_CLAIM_TAKE);
        a = cbi_claim_step(&c, CBI_CLAIM_UNKNOWN, 0, now); /* it takes no writes, or knows us not */
        if (a == CBI_CLAIM_WAIT) {
            now = c.due_ns;
            assert_int_equal(cbi_claim_step(&c, CBI_CLAIM_PASSED, 0, now), CBI_CLAIM_LOOK);
        }
    }
    assert_int_equal(a, CBI_CLAIM_COMPUTE);
    assert_in_range(now, 1001, 1101);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_claim__what_somebody_has_is_not_computed),
        cmocka_unit_test(test_claim__who_computes_renews_and_lets_go),
        cmocka_unit_test(test_claim__who_waits_looks_again_and_is_the_next),
        cmocka_unit_test(test_claim__without_a_directory_patience_ends),
        cmocka_unit_test(test_claim__patience_ends_with_a_directory_that_only_looks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
