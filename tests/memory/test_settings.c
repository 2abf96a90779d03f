/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: settings mean what they mean in Spark. Method: sizes computed by hand from Spark's
 * formulas, and every rule that a setting can break.
 */
#include "carbide/settings.h"

#include <string.h>

#include "support/test.h"

static const uint64_t mib = 1024 * 1024;

static cb_manager_options resolve(const cb_settings *s) {
    cb_manager_options o;
    cb_error err = {0};
    if (cb_settings_resolve(s, &o, &err) != CB_OK) {
        fail_msg("%s", err.message);
    }
    return o;
}

static void set(cb_settings *s, const char *name, const char *value) {
    cb_error err = {0};
    if (cb_settings_set(s, name, value, &err) != CB_OK) {
        fail_msg("%s=%s: %s", name, value, err.message);
    }
}

static void test_settings__defaults_are_sparks(void **state) {
    (void)state;
    cb_settings s;
    cb_settings_init(&s);
    cb_manager_options o = resolve(&s); /* (1024 - 300) MiB * 0.6, and half of it */
    assert_int_equal(o.policy, CB_POLICY_UNIFIED);
    assert_int_equal(o.rules, CB_RULES_SPARK);
    assert_int_equal(o.mode, CB_HEAP);
    assert_int_equal(o.heap_bytes, 455501414);
    assert_int_equal(o.heap_storage_bytes, 227750707);
    assert_int_equal(o.off_heap_bytes, 0);
    set(&s, "spark.memory.useLegacyMode", "true");
    o = resolve(&s);
    assert_int_equal(o.policy, CB_POLICY_STATIC);
    assert_int_equal(o.heap_storage_bytes, 579820584);                /* 1 GiB * 0.6 * 0.9 */
    assert_int_equal(o.heap_bytes - o.heap_storage_bytes, 171798691); /* 1 GiB * 0.2 * 0.8 */
}

static void test_settings__every_name_is_taken_as_it_is(void **state) {
    (void)state;
    cb_settings s;
    cb_settings_init(&s);
    set(&s, "spark.executor.memory", "4G");
    set(&s, "spark.memory.fraction", "0.75");
    set(&s, "spark.memory.storageFraction", "0.25");
    set(&s, "spark.memory.offHeap.enabled", "true");
    set(&s, "spark.memory.offHeap.size", "64mb");
    set(&s, "spark.executor.cores", "4");
    set(&s, "spark.memory.debugFill", "true");
    cb_manager_options o = resolve(&s);
    assert_int_equal(o.heap_bytes, (4096 - 300) * mib * 3 / 4);
    assert_int_equal(o.heap_storage_bytes, o.heap_bytes / 4);
    assert_int_equal(o.off_heap_bytes, 64 * mib);
    assert_int_equal(o.off_heap_storage_bytes, 16 * mib);
    assert_int_equal(o.mode, CB_OFF_HEAP);
    assert_true(o.debug_fill);
    cb_manager *m = NULL;
    cb_error err;
    assert_ok(cb_manager_create(&o, &m, &err));
    assert_int_equal(cb_manager_page_bytes(m), mib); /* 48 MiB / 4 cores / 16, 1 MiB at least */
    cb_manager_destroy(m);
    set(&s, "spark.executor.memory", "700"); /* MiB with no unit */
    set(&s, "spark.testing.memory", "1000000");
    set(&s, "spark.testing.reservedMemory", "0");
    set(&s, "spark.buffer.pageSize", "2m");
    o = resolve(&s);
    assert_int_equal(o.heap_bytes, 750000);
    assert_int_equal(o.page_bytes, 2 * mib);
}

static void assert_refused(const char *name, const char *value, const char *why) {
    cb_settings s;
    cb_manager_options o = {0};
    cb_error err = {0};
    cb_settings_init(&s);
    if (cb_settings_set(&s, name, value, &err) == CB_OK) {
        assert_status(cb_settings_resolve(&s, &o, &err), CB_EINVAL);
        assert_int_equal(o.heap_bytes, 0);
    }
    if (strstr(err.message, why) == NULL) {
        fail_msg("%s=%s: '%s' does not say '%s'", name, value, err.message, why);
    }
}

static void test_settings__what_breaks_a_rule_is_refused_with_the_rule(void **state) {
    (void)state;
    assert_refused("spark.memory.offHeap.enabled", "true", "spark.memory.offHeap.size must be > 0");
    assert_refused("spark.memory.fraction", "1.5", "must be a fraction in [0, 1]");
    assert_refused("spark.memory.fraction", "-0.1", "must be a fraction in [0, 1]");
    assert_refused("spark.memory.fraction", "nan", "must be a fraction in [0, 1]");
    assert_refused("spark.memory.storageFraction", "1.0", "[0, 1)");
    assert_refused("spark.memory.fraction", "0", "onHeapExecutionMemory must be > 0");
    assert_refused("spark.executor.memory", "449m", "at least 471859200");
    assert_refused("spark.executor.memory", "1.5g", "must be a size");
    assert_refused("spark.executor.memory", "99999999999t", "must be a size");
    assert_refused("spark.memory.offHeap.size", "-1", "must be a size");
    assert_refused("spark.buffer.pageSize", "3m", "power of two");
    assert_refused("spark.memory.useLegacyMode", "yes", "true or false");
    assert_refused("spark.memory.nonsense", "1", "no memory setting");
}

static void test_settings__a_manager_refuses_what_does_not_fit_together(void **state) {
    (void)state;
    static const struct {
        cb_manager_options o;
        const char *why;
    } cases[] = {
        {{.heap_bytes = 100, .heap_storage_bytes = 101}, "must not be larger"},
        {{.off_heap_bytes = 100, .off_heap_storage_bytes = 101}, "must not be larger"},
        {{.heap_bytes = 100, .storage_fraction = 1.5}, "[0, 1]"},
        {{.heap_bytes = 100, .unroll_fraction = 1.5}, "[0, 1]"},
        {{.heap_bytes = 100, .page_bytes = 3000}, "power of two"},
        {{.heap_bytes = 100, .heap_storage_bytes = 100, .rules = CB_RULES_SPARK}, "must be > 0"},
        {{.mode = CB_OFF_HEAP}, "must be > 0"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cb_manager *m = NULL;
        cb_error err = {0};
        cb_manager_options o = cases[i].o;
        o.struct_size = sizeof o;
        assert_status(cb_manager_create(&o, &m, &err), CB_EINVAL);
        assert_non_null(strstr(err.message, cases[i].why));
        assert_null(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings__defaults_are_sparks),
        cmocka_unit_test(test_settings__every_name_is_taken_as_it_is),
        cmocka_unit_test(test_settings__what_breaks_a_rule_is_refused_with_the_rule),
        cmocka_unit_test(test_settings__a_manager_refuses_what_does_not_fit_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
