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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graves__the_table_grows_with_them_and_finds_each),
        cmocka_unit_test(test_graves__all_of_a_crowd_are_told),
        cmocka_unit_test(test_graves__who_waits_for_a_slot_gets_one_and_knows_what_he_knew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
