/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Goal: the limit that will end the process is the one that is found, wherever it hides. Method:
 * small folders that look like /proc and /sys of machines with v1, v2, both, in and outside of
 * containers.
 */
#include <stdio.h>

#include "base/cgroup.h"
#include "support/test.h"

static const char *root;

static int new_root(void **state) {
    (void)state;
    root = test_folder();
    return 0;
}

static void put(const char *path, const char *text) {
    char full[TEST_PATH_MAX];
    test_write_text(test_path(full, root, path), text);
}

static const char v1_mounts[] =
    "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

static void test_a_machine_without_groups_has_no_limit(void **state) {
    (void)state;
    cbi_cgroup group;
    cbi_cgroup_read(root, &group);
    assert_true(group.memory_limit == UINT64_MAX);
    assert_int_equal(group.memory_used, 0);
    assert_int_equal(group.cpus, 0);
    assert_int_equal(group.version, 0);
}

static void test_v1_finds_the_tightest_ancestor(void **state) {
    (void)state;
    put("proc/self/mountinfo", v1_mounts);
    put("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a/b\n1:name=systemd:/\n");
    put("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "300000000\n");
    put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "100000000\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "50000000\n");
    put("sys/fs/cgroup/memory/a/memory.stat",
        "dirty 1\ntotal_dirty 3000000\ntotal_writeback 1000000\ntotal_inactive_file 20000000\n"
        "total_active_file 4000000\n");
    put("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "150000\n");
    put("sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    cbi_cgroup group;
    cbi_cgroup_read(root, &group);
    assert_int_equal(group.memory_limit, 100000000);
    assert_int_equal(group.memory_used, 50000000 - (24000000 - 4000000));
    assert_int_equal(group.cpus, 2);
    assert_int_equal(group.version, 1);
}

static void test_v1_in_a_container_that_sees_its_own_group_as_the_top(void **state) {
    (void)state;
    put("proc/self/mountinfo",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("proc/self/cgroup", "4:memory:/docker/abc/sub\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "64000000\n");
    put("sys/fs/cgroup/memory/sub/memory.limit_in_bytes", "32000000\n");
    cbi_cgroup group;
    cbi_cgroup_read(root, &group);
    assert_int_equal(group.memory_limit, 32000000);
}

static void test_a_path_outside_of_the_mount_falls_back_to_its_top(void **state) {
    (void)state;
    put("proc/self/mountinfo",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "64000000\n");
    cbi_cgroup group;
    put("proc/self/cgroup", "4:memory:/somewhere/else\n");
    cbi_cgroup_read(root, &group);
    assert_int_equal(group.memory_limit, 64000000);
    put("proc/self/cgroup", "4:memory:/../other\n");
    cbi_cgroup_read(root, &group);
    assert_int_equal(group.memory_limit, 64000000);
}

static void test_v2_counts_max_and_high_of_all_ancestors(void **state) {
    (void)state;
    put("proc/self/mountinfo", "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
    put("proc/self/cgroup", "0::/user.slice/run.scope\n");
    put("sys/fs/cgroup/user.slice/run.scope/memory.max", "max\n");
    put("sys/fs/cgroup/user.slice/run.scope/memory.high", "70000000\n");
    put("sys/fs/cgroup/user.slice/run.scope/memory.current", "10000000\n");
    put("sys/fs/cgroup/user.slice/run.scope/memory.stat",
        "anon 1\nfile_dirty 1000000\nfile_writeback 0\ninactive_file 2000000\nactive_file 0\n");
    put("sys/fs/cgroup/user.slice/memory.max", "90000000\n");
    put("sys/fs/cgroup/user.slice/run.scope/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/user.slice/cpu.max", "50000 100000\n");
    cbi_cgroup group;
    cbi_cgroup_read(root, &group);
    assert_int_equal(group.memory_limit, 70000000);
    assert_int_equal(group.memory_used, 9000000);
    assert_int_equal(group.cpus, 1);
    assert_int_equal(group.version, 2);
}

static void test_the_tighter_of_v1_and_v2_counts(void **state) {
    (void)state;
    char mounts[1024];
    (void)snprintf(mounts, sizeof mounts, "%s%s", v1_mounts,
                   "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n");
    put("proc/self/mountinfo", mounts);
    put("proc/self/cgroup", "4:memory:/\n0::/x\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "200\n");
    put("sys/fs/cgroup/unified/x/memory.max", "100\n");
    cbi_cgroup group;
    cbi_cgroup_read(root, &group);
    assert_int_equal(group.memory_limit, 100);
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "50\n");
    cbi_cgroup_read(root, &group);
    assert_int_equal(group.memory_limit, 50);
    assert_int_equal(group.version, 1);
}

static void test_nonsense_is_no_limit(void **state) {
    (void)state;
    put("proc/self/mountinfo", "x\n35 31 0:32 / /sys/fs/cgroup/memory ro - \n\n- - -\n");
    put("proc/self/cgroup", "memory\n:::\n4:memory\n");
    cbi_cgroup group;
    cbi_cgroup_read(root, &group);
    assert_true(group.memory_limit == UINT64_MAX);
    put("proc/self/mountinfo", v1_mounts);
    put("proc/self/cgroup", "4:memory:/\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "lots\n");
    cbi_cgroup_read(root, &group);
    assert_true(group.memory_limit == UINT64_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_a_machine_without_groups_has_no_limit, new_root),
        cmocka_unit_test_setup(test_v1_finds_the_tightest_ancestor, new_root),
        cmocka_unit_test_setup(test_v1_in_a_container_that_sees_its_own_group_as_the_top, new_root),
        cmocka_unit_test_setup(test_a_path_outside_of_the_mount_falls_back_to_its_top, new_root),
        cmocka_unit_test_setup(test_v2_counts_max_and_high_of_all_ancestors, new_root),
        cmocka_unit_test_setup(test_the_tighter_of_v1_and_v2_counts, new_root),
        cmocka_unit_test_setup(test_nonsense_is_no_limit, new_root),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
