/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the directory knows who has what, and believes nobody of an older generation. Method: its
 * calls one by one, with two and three executors; leases that pass; a watcher that counts.
 */
#include "carbide/directory.h"

#include <stdio.h>
#include <string.h>

#include "base/sys.h"
#include "support/test.h"

#define SER CB_LEVEL_MEMORY_ONLY_SER

typedef struct seen {
    int changes, gone;
} seen;

static void watch(void *ctx, const char *block, const cb_location *location) {
    seen *s = ctx;
    assert_true(strlen(block) > 0);
    s->changes++;
    s->gone += location->level == CB_LEVEL_NONE;
}

static size_t holders(const cb_directory *d, const char *block, cb_location at[4]) {
    size_t count = 99;
    assert_ok(d->locate(d->ctx, block, at, 4, &count, NULL));
    return count;
}

static void test_directory__knows_who_has_what(void **state) {
    (void)state;
    seen s = {0};
    cb_local_directory *local = NULL;
    cb_location at[4];
    uint64_t a = 0, b = 0;
    assert_ok(cb_local_directory_create(0, watch, &s, &local, NULL));
    cb_directory d = cb_local_directory_interface(local);
    assert_ok(d.enter(d.ctx, "a", 1000, &a, NULL));
    assert_ok(d.enter(d.ctx, "b", 5000, &b, NULL));
    assert_true(a != b);
    assert_int_equal(holders(&d, "rdd_0_0", at), 0);
    assert_ok(d.report(d.ctx, "a", a, "rdd_0_0", CB_LEVEL_DISK_ONLY, 0, 700, NULL));
    assert_ok(d.report(d.ctx, "b", b, "rdd_0_0", SER, 600, 0, NULL));
    assert_int_equal(holders(&d, "rdd_0_0", at), 2);
    assert_string_equal(at[0].executor, "b"); /* in memory: first */
    assert_int_equal(at[0].memory_bytes, 600);
    assert_string_equal(at[1].executor, "a");
    assert_int_equal(at[1].disk_bytes, 700);
    assert_ok(d.report(d.ctx, "a", a, "rdd_0_0", SER, 50, 700, NULL)); /* changed, not added */
    assert_int_equal(holders(&d, "rdd_0_0", at), 2);
    assert_ok(d.report(d.ctx, "b", b, "rdd_0_0", CB_LEVEL_NONE, 0, 0, NULL));
    assert_int_equal(holders(&d, "rdd_0_0", at), 1);
    assert_string_equal(at[0].executor, "a");
    assert_ok(d.report(d.ctx, "b", b, "never_had", CB_LEVEL_NONE, 0, 0, NULL));
    assert_int_equal(s.changes, 5);
    assert_int_equal(s.gone, 2);
    cb_local_directory_destroy(local);
}

static void test_directory__a_new_generation_makes_the_old_one_a_stranger(void **state) {
    (void)state;
    seen s = {0};
    cb_local_directory *local = NULL;
    cb_location at[4];
    uint64_t first = 0, second = 0;
    assert_ok(cb_local_directory_create(0, watch, &s, &local, NULL));
    cb_directory d = cb_local_directory_interface(local);
    assert_ok(d.enter(d.ctx, "a", 1000, &first, NULL));
    for (int i = 0; i < 2000; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "rdd_0_%d", i);
        assert_ok(d.report(d.ctx, "a", first, name, SER, 10, 0, NULL));
    }
    assert_ok(d.enter(d.ctx, "a", 1000, &second, NULL));
    assert_int_equal(s.gone, 2000);
    assert_int_equal(holders(&d, "rdd_0_7", at), 0);
    assert_status(d.report(d.ctx, "a", first, "rdd_0_7", SER, 10, 0, NULL), CB_ENOTFOUND);
    assert_status(d.renew(d.ctx, "a", first, NULL), CB_ENOTFOUND);
    d.leave(d.ctx, "a", first); /* does nothing */
    assert_ok(d.report(d.ctx, "a", second, "rdd_0_7", SER, 10, 0, NULL));
    d.leave(d.ctx, "a", second);
    assert_int_equal(holders(&d, "rdd_0_7", at), 0);
    assert_status(d.enter(d.ctx, "", 0, &first, NULL), CB_EINVAL);
    cb_local_directory_destroy(local);
}

static void test_directory__peers_with_the_most_room_come_first(void **state) {
    (void)state;
    cb_local_directory *local = NULL;
    cb_executor_view views[2];
    uint64_t g[4];
    size_t count = 0;
    const char *const names[] = {"a", "b", "c", "d"};
    const uint64_t sizes[] = {1000, 4000, 3000, 2000};
    assert_ok(cb_local_directory_create(0, NULL, NULL, &local, NULL));
    cb_directory d = cb_local_directory_interface(local);
    for (int i = 0; i < 4; i++) {
        assert_ok(d.enter(d.ctx, names[i], sizes[i], &g[i], NULL));
    }
    assert_ok(d.report(d.ctx, "b", g[1], "x", SER, 2500, 0, NULL));
    assert_ok(d.peers(d.ctx, "a", views, 2, &count, NULL));
    assert_int_equal(count, 3);
    assert_string_equal(views[0].name, "c");
    assert_string_equal(views[1].name, "d");
    assert_ok(d.peers(d.ctx, "c", views, 2, &count, NULL));
    assert_string_equal(views[0].name, "d");
    assert_string_equal(views[1].name, "b");
    assert_int_equal(views[1].memory_bytes, 2500);
    assert_int_equal(views[1].blocks, 1);
    cb_local_directory_destroy(local);
}

static void test_directory__leases_end(void **state) {
    (void)state;
    cb_local_directory *local = NULL;
    cb_location at[4];
    uint64_t a = 0, b = 0;
    size_t count = 0;
    assert_ok(cb_local_directory_create(200000000, NULL, NULL, &local, NULL));
    cb_directory d = cb_local_directory_interface(local);
    assert_ok(d.enter(d.ctx, "a", 0, &a, NULL));
    assert_ok(d.report(d.ctx, "a", a, "x", SER, 1, 0, NULL));
    cbi_sys_sleep_ns(210000000);
    assert_ok(d.enter(d.ctx, "b", 0, &b, NULL));
    assert_int_equal(holders(&d, "x", at), 0);
    assert_status(d.renew(d.ctx, "a", a, NULL), CB_ENOTFOUND);
    assert_status(d.report(d.ctx, "a", a, "y", SER, 1, 0, NULL), CB_ENOTFOUND);
    assert_ok(d.peers(d.ctx, "b", NULL, 0, &count, NULL));
    assert_int_equal(count, 0);
    assert_int_equal(cb_local_directory_expire(local), 1);
    assert_int_equal(cb_local_directory_expire(local), 0);
    cb_local_directory_destroy(local);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory__knows_who_has_what),
        cmocka_unit_test(test_directory__a_new_generation_makes_the_old_one_a_stranger),
        cmocka_unit_test(test_directory__peers_with_the_most_room_come_first),
        cmocka_unit_test(test_directory__leases_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
