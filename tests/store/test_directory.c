/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the directory knows who has what, and believes nobody of an older generation. Method: its
 * calls one by one, with two and three executors; leases that pass; a watcher that counts.
 */
#include "store/directory.h"

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
    s->gone += location->place.level == CB_LEVEL_NONE;
}

static size_t holders(const cb_directory *d, const char *block, cb_location at[4]) {
    size_t count = 99;
    assert_ok(d->locate(d->ctx, block, at, 4, &count, NULL));
    return count;
}

static cb_status enter(const cb_directory *d, const char *name, uint64_t memory_max,
                       uint64_t *generation) {
    const cb_executor_entry entry = {.name = name, .memory_max = memory_max};
    return d->enter(d->ctx, &entry, generation, NULL);
}

static cb_status report(const cb_directory *d, const char *name, uint64_t generation,
                        const char *block, cb_level level, uint64_t memory_bytes,
                        uint64_t disk_bytes) {
    const cb_place place = {.level = level, .memory_bytes = memory_bytes, .disk_bytes = disk_bytes};
    return d->report(d->ctx, name, generation, block, &place, NULL);
}

static void test_directory__knows_who_has_what(void **state) {
    (void)state;
    seen s = {0};
    cb_local_directory *local = NULL;
    cb_location at[4];
    uint64_t a = 0, b = 0;
    assert_ok(cb_local_directory_create(0, watch, &s, &local, NULL));
    cb_directory d = cb_local_directory_interface(local);
    assert_ok(enter(&d, "a", 1000, &a));
    assert_ok(enter(&d, "b", 5000, &b));
    assert_true(a != b);
    assert_int_equal(holders(&d, "rdd_0_0", at), 0);
    assert_ok(report(&d, "a", a, "rdd_0_0", CB_LEVEL_DISK_ONLY, 0, 700));
    assert_ok(report(&d, "b", b, "rdd_0_0", SER, 600, 0));
    assert_int_equal(holders(&d, "rdd_0_0", at), 2);
    assert_string_equal(at[0].executor, "b"); /* in memory: first */
    assert_int_equal(at[0].place.memory_bytes, 600);
    assert_string_equal(at[1].executor, "a");
    assert_int_equal(at[1].place.disk_bytes, 700);
    assert_ok(report(&d, "a", a, "rdd_0_0", SER, 50, 700)); /* changed, not added */
    assert_int_equal(holders(&d, "rdd_0_0", at), 2);
    assert_ok(report(&d, "b", b, "rdd_0_0", CB_LEVEL_NONE, 0, 0));
    assert_int_equal(holders(&d, "rdd_0_0", at), 1);
    assert_string_equal(at[0].executor, "a");
    assert_ok(report(&d, "b", b, "never_had", CB_LEVEL_NONE, 0, 0));
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
    assert_ok(enter(&d, "a", 1000, &first));
    for (int i = 0; i < 2000; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "rdd_0_%d", i);
        assert_ok(report(&d, "a", first, name, SER, 10, 0));
    }
    assert_ok(enter(&d, "a", 1000, &second));
    assert_int_equal(s.gone, 2000);
    assert_int_equal(holders(&d, "rdd_0_7", at), 0);
    assert_status(report(&d, "a", first, "rdd_0_7", SER, 10, 0), CB_ENOTFOUND);
    assert_status(d.renew(d.ctx, "a", first, NULL), CB_ENOTFOUND);
    d.leave(d.ctx, "a", first); /* does nothing */
    assert_ok(report(&d, "a", second, "rdd_0_7", SER, 10, 0));
    d.leave(d.ctx, "a", second);
    assert_int_equal(holders(&d, "rdd_0_7", at), 0);
    assert_status(enter(&d, "", 0, &first), CB_EINVAL);
    cb_local_directory_destroy(local);
}

static void test_directory__peers_with_the_most_room_come_first(void **state) {
    (void)state;
    cb_local_directory *local = NULL;
    cb_executor_view views[2];
    uint64_t g[4] = {0};
    size_t count = 0;
    const char *const names[] = {"a", "b", "c", "d"};
    const uint64_t sizes[] = {1000, 4000, 3000, 2000};
    assert_ok(cb_local_directory_create(0, NULL, NULL, &local, NULL));
    cb_directory d = cb_local_directory_interface(local);
    for (int i = 0; i < 4; i++) {
        assert_ok(enter(&d, names[i], sizes[i], &g[i]));
    }
    assert_ok(report(&d, "b", g[1], "x", SER, 2500, 0));
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

static uint64_t hand(void *ctx) {
    return *(const uint64_t *)ctx;
}

static void test_directory__leases_end(void **state) {
    (void)state;
    cb_local_directory *local = NULL;
    cb_location at[4];
    uint64_t a = 0, b = 0, now = 1000;
    size_t count = 0;
    assert_ok(cb_local_directory_create(1500000000, NULL, NULL, &local, NULL));
    cbi_local_directory_clock(local, hand, &now);
    cb_directory d = cb_local_directory_interface(local);
    assert_ok(enter(&d, "a", 0, &a));
    assert_ok(report(&d, "a", a, "x", SER, 1, 0));
    now += 1510000000;
    assert_ok(enter(&d, "b", 0, &b));
    assert_int_equal(holders(&d, "x", at), 0);
    assert_status(d.renew(d.ctx, "a", a, NULL), CB_ENOTFOUND);
    assert_status(report(&d, "a", a, "y", SER, 1, 0), CB_ENOTFOUND);
    assert_ok(d.peers(d.ctx, "b", NULL, 0, &count, NULL));
    assert_int_equal(count, 0);
    assert_int_equal(cb_local_directory_expire(local), 1);
    assert_int_equal(cb_local_directory_expire(local), 0);
    cb_local_directory_destroy(local);
}

static void test_directory__passes_on_what_makes_a_copy_the_right_one(void **state) {
    (void)state;
    cb_local_directory *local = NULL;
    cb_location at[4];
    cb_executor_view view;
    uint64_t a = 0, b = 0;
    size_t count = 0;
    assert_ok(cb_local_directory_create(0, NULL, NULL, &local, NULL));
    cb_directory d = cb_local_directory_interface(local);
    const cb_executor_entry entry = {
        .name = "a", .address = "h1:7", .host = "h1", .rack = "r1", .memory_max = 9};
    assert_ok(d.enter(d.ctx, &entry, &a, NULL));
    assert_ok(enter(&d, "b", 0, &b));
    const cb_place place = {.level = CB_LEVEL_MEMORY_ONLY_SER_2,
                            .memory_bytes = 5,
                            .block_generation = 77,
                            .checksum = 0xfeed};
    assert_ok(d.report(d.ctx, "a", a, "x", &place, NULL));
    assert_int_equal(holders(&d, "x", at), 1);
    assert_int_equal(at[0].place.block_generation, 77);
    assert_int_equal(at[0].place.checksum, 0xfeed);
    assert_int_equal(cb_level_replicas(at[0].place.level), 2);
    assert_ok(d.peers(d.ctx, "b", &view, 1, &count, NULL));
    assert_string_equal(view.address, "h1:7");
    assert_string_equal(view.host, "h1");
    assert_string_equal(view.rack, "r1");
    char longer[CB_EXECUTOR_NAME_MAX + 2];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    const cb_executor_entry bad = {.name = "a", .rack = longer};
    assert_status(d.enter(d.ctx, &bad, &a, NULL), CB_EINVAL);
    assert_ok(d.renew(d.ctx, "a", a, NULL)); /* nothing has changed */
    cb_local_directory_destroy(local);
}

/** What is still on its way from before a restart finds nobody with that generation. */
static void test_directory__generations_go_on_after_a_restart(void **state) {
    (void)state;
    cb_local_directory *local = NULL;
    uint64_t now = 5000000, old[2] = {0}, fresh = 0, returned = 0;
    assert_ok(cb_local_directory_create(0, NULL, NULL, &local, NULL));
    cbi_local_directory_clock(local, hand, &now);
    cb_directory d = cb_local_directory_interface(local);
    assert_ok(enter(&d, "a", 0, &old[0]));
    assert_ok(enter(&d, "b", 0, &old[1]));
    cb_local_directory_destroy(local);
    now += 10000000;
    assert_ok(cb_local_directory_create(0, NULL, NULL, &local, NULL));
    cbi_local_directory_clock(local, hand, &now);
    d = cb_local_directory_interface(local);
    assert_ok(enter(&d, "a", 0, &fresh)); /* has forgotten what it was */
    assert_true(fresh > old[1]);
    returned = fresh + 1000; /* knows more than the clock says */
    assert_ok(enter(&d, "b", 0, &returned));
    assert_true(returned > fresh + 1000);
    assert_status(report(&d, "a", old[0], "x", SER, 1, 0), CB_ENOTFOUND);
    cb_local_directory_destroy(local);
}

static bool claims(const cb_directory *d, const char *name, uint64_t generation, uint64_t *wait) {
    bool granted = false;
    assert_ok(d->claim(d->ctx, name, generation, "x", 100, &granted, wait, NULL));
    return granted;
}

static void test_directory__one_claims_and_the_next_when_it_is_gone(void **state) {
    (void)state;
    cb_local_directory *local = NULL;
    uint64_t now = 1000, a = 0, b = 0, wait = 0;
    bool granted = false;
    assert_ok(cb_local_directory_create(500, NULL, NULL, &local, NULL));
    cbi_local_directory_clock(local, hand, &now);
    cb_directory d = cb_local_directory_interface(local);
    assert_ok(enter(&d, "a", 0, &a));
    assert_ok(enter(&d, "b", 0, &b));
    assert_true(claims(&d, "a", a, &wait));
    assert_false(claims(&d, "b", b, &wait));
    assert_int_equal(wait, 100);
    now += 60;
    assert_true(claims(&d, "a", a, &wait)); /* again: begins anew */
    now += 60;
    assert_false(claims(&d, "b", b, &wait));
    assert_int_equal(wait, 40);
    now += 40;
    assert_true(claims(&d, "b", b, &wait));         /* a has let it pass */
    assert_ok(d.unclaim(d.ctx, "a", a, "x", NULL)); /* not its own */
    assert_int_equal(d.unclaim(d.ctx, "a", a + 1, "x", NULL), CB_ENOTFOUND);
    assert_false(claims(&d, "a", a, &wait));
    assert_ok(d.unclaim(d.ctx, "b", b, "x", NULL));
    assert_true(claims(&d, "a", a, &wait));
    d.leave(d.ctx, "a", a);
    assert_true(claims(&d, "b", b, &wait));
    assert_status(d.claim(d.ctx, "a", a, "x", 100, &granted, &wait, NULL), CB_ENOTFOUND);
    cb_local_directory_destroy(local);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_directory__knows_who_has_what),
        cmocka_unit_test(test_directory__a_new_generation_makes_the_old_one_a_stranger),
        cmocka_unit_test(test_directory__peers_with_the_most_room_come_first),
        cmocka_unit_test(test_directory__leases_end),
        cmocka_unit_test(test_directory__passes_on_what_makes_a_copy_the_right_one),
        cmocka_unit_test(test_directory__generations_go_on_after_a_restart),
        cmocka_unit_test(test_directory__one_claims_and_the_next_when_it_is_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
