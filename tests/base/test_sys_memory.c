/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"

/** Does the kernel keep this flag (two letters of smaps' VmFlags) for the mapping of `base`? */
static bool has_flag(const void *base, const char *flag) {
    FILE *f = fopen("/proc/self/smaps", "r");
    assert_non_null(f);
    char line[512];
    bool here = false, found = false;
    while (fgets(line, sizeof line, f) != NULL) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
            here = from <= (uintptr_t)base && (uintptr_t)base < to;
        } else if (here && strncmp(line, "VmFlags:", 8) == 0) {
            found = strstr(line, flag) != NULL;
        }
    }
    (void)fclose(f);
    return found;
}

static void test_map_takes_huge_pages_only_when_asked(void **state) {
    (void)state;
    if (access("/sys/kernel/mm/transparent_hugepage", F_OK) != 0) {
        skip(); /* this kernel has none */
    }
    const size_t bytes = 4 << 20;
    void *base = cbi_sys_map(bytes);
    assert_non_null(base);
    assert_true(has_flag(base, " nh"));
    cbi_sys_advise_huge(base, bytes);
    assert_true(has_flag(base, " hg"));
    assert_false(has_flag(base, " nh"));
    cbi_sys_unmap(base, bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_takes_huge_pages_only_when_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
