/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: removals are found however many are remembered, and everybody hears of them, however many
 * executors there are. Method: events one by one, in made time, and a look at the table.
 */
#include <stdlib.h>

#include "store/replica_kit.h"
#include "store/replica_private.h"

static void name_of(char name[32], unsigned i) {
    (void)snprintf(name, 32, "x%u", i);
}

static void test_graves__the_table_grows_with_them_and_finds_each(void **state) {
    (void)state;
    enum { MANY = 20000 };
    kit k;
    char name[32];
    open_kit_for(&k, "me", 2 * MANY);
    settle(&k); /* others are there, and do not answer */
    for (unsigned i = 0; i < MANY; i++) {
        name_of(name, i);
        bury(&k, CBI_GRAVE_BLOCK, name, 0, 5);
        if (i % 3 == 0) { /* once more, and later */
            bury(&k, CBI_GRAVE_BLOCK, name, 0, 6);
        }
    }
    bury(&k, CBI_GRAVE_DATA_SET, "", 7, 5);
    unsigned longest = 0, all = 0;
    for (size_t i = 0; i < k.r->grave_table.count; i++) {
        unsigned here = 0;
        for (const cbi_grave *g = (const cbi_grave *)*cbi_buckets_head(&k.r->grave_table, i);
             g != NULL; g = g->chain) {
            here++;
        }
        all += here;
        longest = here > longest ? here : longest;
    }
    assert_int_equal(all, MANY + 1);
    assert_true(longest < 24);
    for (unsigned i = 0; i < MANY; i++) {
        name_of(name, i);
        assert_true(cbi_replica_is_buried(k.r, name, 5));
        assert_int_equal(cbi_replica_is_buried(k.r, name, 6), i % 3 == 0);
    }
    assert_true(cbi_replica_is_buried(k.r, "rdd_7_1", 5));
    pass(&k, 25 * 3600 * SECOND);
    for (int i = 0; i < 10; i++) {
        pass(&k, SECOND);
    }
    assert_false(cbi_replica_is_buried(k.r, "x0", 5));
    cbi_replica_destroy(k.r);
}

enum { CROWD = 100 };

static size_t crowd(cb_executor_view *views, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) {
        char name[32];
        name_of(name, (unsigned)i);
        views[i - from] = peer(name, name, "", i + 1);
    }
    return to - from;
}

static void test_graves__all_of_a_crowd_are_told(void **state) {
    (void)state;
    kit k;
    cbi_replica_figures f;
    cb_executor_view views[CROWD];
    bool told[CROWD] = {false};
    unsigned count = 0;
    open_kit_for(&k, "me", 64);
    enter(&k, 10);
    see(&k, views, crowd(views, 0, CROWD));
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.peers, CROWD);
    assert_ok(
        step(&k, (cbi_replica_event){.kind = CBI_REPLICA_REMOVE, .name = "b", .generation = 5}));
    for (int turn = 0; turn < 200 && count < CROWD; turn++) {
        const cbi_replica_action *a = wanted(&k, CBI_REPLICA_TELL, 0);
        if (a == NULL) {
            pass(&k, SECOND);
            continue;
        }
        unsigned who = (unsigned)strtoul(a->peer + 1, NULL, 10);
        assert_false(told[who]); /* and each is believed */
        told[who] = true;
        count++;
        char name[32];
        (void)snprintf(name, sizeof name, "%s", a->peer);
        assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_TOLD,
                                               .peer = name,
                                               .peer_generation = a->peer_generation,
                                               .sequence = a->sequence}));
        pass(&k, SECOND);
    }
    assert_int_equal(count, CROWD);
    pass(&k, SECOND);
    want_none(&k, CBI_REPLICA_TELL);
    cbi_replica_destroy(k.r);
}

static void test_graves__who_waits_for_a_slot_gets_one_and_knows_what_he_knew(void **state) {
    (void)state;
    kit k;
    cb_executor_view views[CROWD];
    open_kit_for(&k, "me", 64);
    enter(&k, 10);
    see(&k, views, crowd(views, 0, CROWD));
    pass(&k, 10 * SECOND);
    cbi_peer *late = cbi_replica_anyone(k.r, "x99");
    assert_non_null(late);
    assert_null(cbi_replica_peer(k.r, "x99"));
    late->told = late->told + 5;
    uint64_t knew = late->told;
    see(&k, views, crowd(views, 50, CROWD)); /* half of them have died */
    see(&k, views, crowd(views, 50, CROWD));
    late = cbi_replica_peer(k.r, "x99");
    assert_non_null(late);
    assert_true(late->told == knew);
    for (unsigned i = 0; i < CROWD; i++) {
        char name[32];
        name_of(name, i);
        assert_int_equal(cbi_replica_anyone(k.r, name) != NULL, i >= 50);
    }
    cbi_replica_destroy(k.r);
}

/** A block of two copies that nobody takes, until the directory is asked about it. */
static void put_alone(kit *k, uint64_t generation) {
    assert_ok(put(k, "x", generation, 2));
    for (unsigned i = 0; i < 3; i++) {
        char to[32];
        uint64_t life = asks(k, to);
        sent(k, to, life, generation, 7, CBI_REPLICA_FULL);
    }
    pass(k, 20 * SECOND);
    assert_string_equal(want(k, CBI_REPLICA_LOCATE)->name, "x");
}

static void test_graves__of_two_blocks_with_a_name_the_older_is_removed(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    put_alone(&k, 5);
    const cb_location newer[] = {at("me", 10, 5), at("a", 1, 9)};
    locate(&k, newer, 2);
    assert_int_equal(want(&k, CBI_REPLICA_DROP)->generation, 5);
    assert_int_equal(want(&k, CBI_REPLICA_TELL)->generation, 5);
    assert_false(cbi_replica_holds(k.r, "x", 5, NULL));
    assert_int_equal(cbi_replica_buried(k.r), 5);
    assert_ok(
        step(&k, (cbi_replica_event){.kind = CBI_REPLICA_GONE, .name = "x", .generation = 5}));

    put_alone(&k, 20);
    const cb_location older[] = {at("b", 2, 12), at("me", 10, 20), at("unseen", 4, 15)};
    locate(&k, older, 3);
    want_none(&k, CBI_REPLICA_DROP);
    assert_true(cbi_replica_holds(k.r, "x", 20, NULL));
    assert_true(cbi_replica_is_buried(k.r, "x", 15) && !cbi_replica_is_buried(k.r, "x", 16));
    assert_int_equal(cbi_replica_buried(k.r), 15);
    cbi_replica_destroy(k.r);
}

static void test_graves__lives_that_are_over_remove_nothing(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    put_alone(&k, 20);
    const cb_location over[] = {at("me", 10, 20), at("me", 9, 30), at("c", 2, 30)};
    locate(&k, over, 3);
    want_none(&k, CBI_REPLICA_DROP);
    want_none(&k, CBI_REPLICA_TELL);
    assert_true(cbi_replica_holds(k.r, "x", 20, NULL));
    cbi_replica_destroy(k.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graves__the_table_grows_with_them_and_finds_each),
        cmocka_unit_test(test_graves__all_of_a_crowd_are_told),
        cmocka_unit_test(test_graves__who_waits_for_a_slot_gets_one_and_knows_what_he_knew),
        cmocka_unit_test(test_graves__of_two_blocks_with_a_name_the_older_is_removed),
        cmocka_unit_test(test_graves__lives_that_are_over_remove_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
