/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/sys.h"
#include "support/test.h"

static void test_the_figures_of_this_machine_make_sense(void **state) {
    (void)state;
    assert_true(cbi_sys_cpus() >= 1);
    assert_true(cbi_sys_memory_total() > 16 * CBI_MIB);
    assert_true(cbi_sys_memory_available() <= cbi_sys_memory_total());
    if (cbi_sys_cgroup_limit() != UINT64_MAX) {
        assert_true(cbi_sys_cgroup_limit() > 0);
    }
}

static void test_resident_memory_follows_what_is_touched(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* shadow memory */
#else
    enum { BYTES = 32 * 1024 * 1024, SLACK = 1024 * 1024 };
    uint64_t before = cbi_sys_rss();
    assert_true(before > 0);
    char *base = cbi_sys_map(BYTES);
    assert_non_null(base);
    memset(base, 1, BYTES);
    assert_true(cbi_sys_rss() >= before + BYTES - SLACK);
    cbi_sys_discard(base, BYTES);
    assert_int_equal(base[0], 0);
    assert_int_equal(base[BYTES - 1], 0);
    assert_true(cbi_sys_rss() <= before + SLACK);
    assert_true(cbi_sys_rss_peak() >= before + BYTES - SLACK);
    cbi_sys_unmap(base, BYTES);
    cbi_sys_unmap(NULL, 0);
#endif
}

static void test_what_the_system_does_not_have_is_refused(void **state) {
    (void)state;
    assert_null(cbi_sys_map(SIZE_MAX / 4));
}

static void test_a_lower_cpu_can_be_asked_for(void **state) {
    (void)state;
    assert_int_equal(setenv("CARBIDE_CPU", "baseline", 1), 0); /* before the first look */
    assert_false(cbi_sys_cpu()->avx2);
    assert_false(cbi_sys_cpu()->avx512);
}

static void test_the_file_mode_mask_is_read_and_not_changed(void **state) {
    (void)state;
    mode_t before = umask(027);
    assert_int_equal(cbi_sys_umask(), 027);
    assert_int_equal(cbi_sys_umask(), 027);
    assert_int_equal(umask(0777), 027);
    assert_int_equal(cbi_sys_umask(), 0777);
    assert_int_equal(umask(before), 0777);
    assert_int_equal(cbi_sys_umask(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_figures_of_this_machine_make_sense),
        cmocka_unit_test(test_resident_memory_follows_what_is_touched),
        cmocka_unit_test(test_what_the_system_does_not_have_is_refused),
        cmocka_unit_test(test_the_file_mode_mask_is_read_and_not_changed),
        cmocka_unit_test(test_a_lower_cpu_can_be_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
