/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what one executor's machine does with each thing that can happen to it. Method: events one
 * by one, in made time, and a look at the actions. What several of them do together is
 * test_cluster_sim.c's.
 */
#include "store/replica_kit.h"
#include "store/replica_private.h"

/* ---- puts ---- */

static void test_replica__copies_go_to_another_rack_then_to_another_host(void **state) {
    (void)state;
    kit k;
    open_kit(&k, "me");
    const cb_executor_view views[] = {peer("port", "h0", "r0", 1), peer("host", "h1", "r0", 2),
                                      peer("rack", "h2", "r1", 3)};
    see(&k, views, 3);
    assert_ok(put(&k, "x", 5, 4));
    assert_string_equal(wanted(&k, CBI_REPLICA_SEND, 0)->peer, "rack");
    assert_string_equal(wanted(&k, CBI_REPLICA_SEND, 1)->peer, "host");
    assert_string_equal(wanted(&k, CBI_REPLICA_SEND, 2)->peer, "port");
    cbi_replica_destroy(k.r);
}

static void test_replica__a_put_is_done_when_the_right_copies_are_there(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 2));
    char name[32];
    uint64_t generation = asks(&k, name);
    want_none(&k, CBI_REPLICA_PUT_DONE);
    sent(&k, name, generation, 4, 7, CBI_REPLICA_OK); /* of another generation */
    want_none(&k, CBI_REPLICA_PUT_DONE);
    sent(&k, name, generation - 1, 5, 7, CBI_REPLICA_OK); /* by one who is no more */
    want_none(&k, CBI_REPLICA_PUT_DONE);
    sent(&k, "nobody", 1, 5, 7, CBI_REPLICA_OK);
    want_none(&k, CBI_REPLICA_PUT_DONE);
    sent(&k, name, generation, 5, 7, CBI_REPLICA_OK);
    assert_int_equal(want(&k, CBI_REPLICA_PUT_DONE)->copies, 2);
    sent(&k, name, generation, 5, 7, CBI_REPLICA_OK); /* twice */
    assert_int_equal(k.count, 0);
    cbi_replica_destroy(k.r);
}

static void test_replica__who_refuses_or_is_silent_is_followed_by_the_next(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    char tried[3][8];
    assert_ok(put(&k, "x", 5, 2));
    for (int i = 0; i < 3; i++) {
        const cbi_replica_action *a = want(&k, CBI_REPLICA_SEND);
        (void)snprintf(tried[i], sizeof tried[i], "%s", a->peer);
        uint64_t generation = a->peer_generation;
        want_none(&k, CBI_REPLICA_PUT_DONE);
        if (i == 0) {
            sent(&k, tried[i], generation, 5, 9, CBI_REPLICA_OK); /* a wrong checksum */
        } else if (i == 1) {
            sent(&k, tried[i], generation, 5, 7, CBI_REPLICA_FULL);
        } else {
            pass(&k, 31 * SECOND);
        }
    }
    assert_string_not_equal(tried[0], tried[1]);
    assert_string_not_equal(tried[1], tried[2]);
    assert_int_equal(want(&k, CBI_REPLICA_PUT_DONE)->copies, 1);
    want_none(&k, CBI_REPLICA_SEND);
    pass(&k, SECOND); /* and it is looked after from now on */
    assert_string_equal(want(&k, CBI_REPLICA_LOCATE)->name, "x");
    cbi_replica_destroy(k.r);
}

static void test_replica__actions_that_do_not_fit_come_with_the_next_step(void **state) {
    (void)state;
    kit k;
    char name[32];
    size_t reports = 0;
    open_kit(&k, "me");
    for (int i = 0; i < 8; i++) {
        (void)snprintf(name, sizeof name, "x%d", i);
        assert_ok(put(&k, name, 5, 1));
    }
    assert_status(put(&k, "one more", 5, 1), CB_EBUDGET);
    assert_status(put(&k, "x1", 6, 1), CB_EEXISTS);
    cbi_replica_event event = {.kind = CBI_REPLICA_ENTERED, .now_ns = k.now_ns, .generation = 10};
    do {
        assert_ok(
            cbi_replica_step(k.r, &event, k.actions, CBI_REPLICA_ACTIONS_MIN, &k.count, NULL));
        reports += k.count;
        event.kind = CBI_REPLICA_TICK;
    } while (k.count == CBI_REPLICA_ACTIONS_MIN);
    assert_int_equal(reports, 8);
    cbi_replica_destroy(k.r);
}

/* ---- offers ---- */

static void test_replica__room_is_reserved_before_the_bytes_come(void **state) {
    (void)state;
    kit k;
    cbi_replica_figures f;
    open_kit(&k, "me");
    offer(&k, "x", 5, 600);
    uint64_t ticket = want(&k, CBI_REPLICA_ACCEPT)->ticket;
    offer(&k, "y", 5, 600);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_FULL);
    offer(&k, "x", 5, 100);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_IS_BUSY);
    offer(&k, "huge", 5, UINT64_MAX - 10);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_FULL);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_MISSED, .ticket = ticket}));
    offer(&k, "y", 5, 600);
    ticket = want(&k, CBI_REPLICA_ACCEPT)->ticket;
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.reserved_bytes, 600);
    assert_int_equal(f.room_bytes, 400);
    arrive(&k, ticket, 7);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_STORED, .ticket = ticket}));
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.reserved_bytes, 0);
    assert_int_equal(f.bytes, 600);
    cbi_replica_destroy(k.r);
}

static void test_replica__only_what_was_offered_is_stored(void **state) {
    (void)state;
    kit k;
    open_kit(&k, "me");
    offer(&k, "x", 5, 100);
    arrive(&k, want(&k, CBI_REPLICA_ACCEPT)->ticket, 8);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_CORRUPT);
    want_none(&k, CBI_REPLICA_STORE);
    offer(&k, "x", 5, 100);
    uint64_t ticket = want(&k, CBI_REPLICA_ACCEPT)->ticket;
    arrive(&k, ticket, 7);
    assert_int_equal(want(&k, CBI_REPLICA_STORE)->generation, 5);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_STORED, .ticket = ticket}));
    offer(&k, "x", 5, 100); /* again: it is here */
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_OK);
    offer(&k, "x", 6, 100);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_CONFLICT);
    assert_true(cbi_replica_holds(k.r, "x", 5, NULL));
    assert_false(cbi_replica_holds(k.r, "x", 6, NULL));
    uint64_t generation = 0;
    assert_true(cbi_replica_holds(k.r, "x", 0, &generation));
    assert_int_equal(generation, 5);
    cbi_replica_destroy(k.r);
}

/* ---- deaths ---- */

static void test_replica__a_sender_that_began_anew_has_no_copy(void **state) {
    (void)state;
    for (uint64_t life = 1; life <= 9; life += 8) {
        kit k;
        const cb_executor_view views[] = {peer("a", "h1", "r0", life), peer("b", "h2", "r0", 2),
                                          peer("c", "h3", "r0", 3)};
        settle_in(&k, "me");
        offer(&k, "x", 5, 100);
        uint64_t ticket = want(&k, CBI_REPLICA_ACCEPT)->ticket;
        see(&k, views, 3); /* died and back again between two looks */
        arrive(&k, ticket, 7);
        want(&k, CBI_REPLICA_STORE);
        assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_STORED, .ticket = ticket}));
        pass(&k, 20 * SECOND);
        assert_int_equal(wanted(&k, CBI_REPLICA_LOCATE, 0) != NULL, life == 9);
        cbi_replica_destroy(k.r);
    }
}

static void test_replica__an_answer_about_a_block_that_has_gone_is_none(void **state) {
    (void)state;
    enum { LITTLE = CBI_REPLICA_ACTIONS_MIN, BURIED_BLOCKS = 3 * LITTLE };
    kit k;
    open_kit_for(&k, "me", 64);
    settle(&k);
    for (unsigned i = 0; i < BURIED_BLOCKS; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "rdd_1_%u", i);
        assert_ok(put(&k, name, 20 + i, 1));
    }
    assert_ok(put(&k, "x", 5, 2));
    for (unsigned i = 0; i < 3; i++) {
        char to[8];
        (void)snprintf(to, sizeof to, "%s", want(&k, CBI_REPLICA_SEND)->peer);
        sent(&k, to, want(&k, CBI_REPLICA_SEND)->peer_generation, 5, 7, CBI_REPLICA_FULL);
    }
    pass(&k, 20 * SECOND);
    assert_string_equal(want(&k, CBI_REPLICA_LOCATE)->name, "x");
    /* There is room for so few actions that the report about x is still to come. */
    cbi_replica_event events[] = {
        {.kind = CBI_REPLICA_BURIED, .grave = CBI_GRAVE_DATA_SET, .number = 1, .generation = 90},
        {.kind = CBI_REPLICA_GONE, .name = "x", .generation = 5},
        {.kind = CBI_REPLICA_LOCATED, .name = "x"}};
    for (unsigned i = 0; i < 3; i++) {
        events[i].now_ns = k.now_ns;
        assert_ok(cbi_replica_step(k.r, &events[i], k.actions, LITTLE, &k.count, NULL));
    }
    for (unsigned i = 0; i < 20; i++) {
        pass(&k, 10 * SECOND);
        want_none(&k, CBI_REPLICA_SEND);
        want_none(&k, CBI_REPLICA_LOCATE);
    }
    cbi_replica_destroy(k.r);
}

/** Whether that executor, a holder beside "a" when "b" has died, sends a copy to "c". */
static bool mends(const char *name, bool is_named) {
    kit k;
    settle_in(&k, name);
    assert_ok(put(&k, "x", 5, 3));
    sent(&k, "a", 1, 5, 7, CBI_REPLICA_OK);
    sent(&k, "b", 2, 5, 7, CBI_REPLICA_OK);
    if (wanted(&k, CBI_REPLICA_PUT_DONE, 0) == NULL) {
        sent(&k, "c", 3, 5, 7, CBI_REPLICA_FULL);
    }
    pass(&k, 5 * SECOND);
    const cb_executor_view views[] = {peer("a", "h1", "r0", 1), peer("c", "h3", "r0", 3)};
    see(&k, views, 2);
    assert_string_equal(want(&k, CBI_REPLICA_LOCATE)->name, "x");
    const cb_location locations[] = {at("a", 1, 5), at(name, 10, 5)};
    locate(&k, locations, is_named ? 2 : 1);
    const cbi_replica_action *a = wanted(&k, CBI_REPLICA_SEND, 0);
    if (a != NULL) {
        assert_string_equal(a->peer, "c");
    }
    cbi_replica_destroy(k.r);
    return a != NULL;
}

static void test_replica__one_of_the_holders_mends(void **state) {
    (void)state;
    int mending = 0;
    char name[32];
    for (int i = 0; i < 40; i++) { /* each with its own place in the order, beside a's */
        (void)snprintf(name, sizeof name, "e%d", i);
        mending += mends(name, true);
        assert_false(mends(name, false)); /* such a directory does not know enough */
    }
    assert_in_range(mending, 1, 39);
}

static void test_replica__the_others_step_in_when_nothing_comes_of_it(void **state) {
    (void)state;
    kit k;
    char name[32];
    for (int i = 0; i < 40; i++) {
        (void)snprintf(name, sizeof name, "e%d", i);
        if (!mends(name, true)) {
            break;
        }
    }
    settle_in(&k, name);
    assert_ok(put(&k, "x", 5, 3));
    sent(&k, "a", 1, 5, 7, CBI_REPLICA_OK);
    sent(&k, "b", 2, 5, 7, CBI_REPLICA_OK);
    sent(&k, "c", 3, 5, 7, CBI_REPLICA_FULL);
    pass(&k, 5 * SECOND);
    const cb_executor_view views[] = {peer("a", "h1", "r0", 1), peer("c", "h3", "r0", 3)};
    const cb_location locations[] = {at("a", 1, 5), at(name, 10, 5)};
    see(&k, views, 2);
    int looks = 0;
    for (int i = 0; i < 1000 && wanted(&k, CBI_REPLICA_SEND, 0) == NULL; i++) {
        if (wanted(&k, CBI_REPLICA_LOCATE, 0) != NULL) {
            looks++;
            locate(&k, locations, 2);
            continue;
        }
        pass(&k, SECOND / 2);
    }
    want(&k, CBI_REPLICA_SEND);
    assert_in_range(looks, 3, 20);
    cbi_replica_destroy(k.r);
}

/* His connection to the directory was lost: then he says anew what he has, and that takes a while.
 */
static void test_replica__who_enters_anew_is_not_taken_for_dead_at_once(void **state) {
    (void)state;
    for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
        kit k;
        settle_in(&k, "me");
        assert_ok(put(&k, "x", 5, 2));
        char name[32];
        uint64_t generation = asks(&k, name);
        sent(&k, name, generation, 5, 7, CBI_REPLICA_OK);
        pass(&k, 10 * SECOND);
        cb_executor_view views[] = {peer("a", "h1", "r0", 1), peer("b", "h2", "r0", 2),
                                    peer("c", "h3", "r0", 3)};
        cb_executor_view *he = &views[name[0] - 'a'];
        for (size_t i = 0; i < 3; i++) { /* the others would be asked before him */
            (void)snprintf(views[i].rack, sizeof views[i].rack, "%s",
                           &views[i] == he ? "r0" : "r1");
        }
        he->generation += 10;
        (void)snprintf(he->address, sizeof he->address, elsewhere != 0 ? "another" : "");
        see(&k, views, 3);
        if (elsewhere == 0) { /* else it is another process */
            pass(&k, SECOND);
            want_none(&k, CBI_REPLICA_LOCATE);
            he->generation += 10; /* and once more */
            see(&k, views, 3);
            pass(&k, 3 * SECOND);
        }
        assert_string_equal(want(&k, CBI_REPLICA_LOCATE)->name, "x");
        const cb_location here = at("me", 10, 5); /* the directory does not know it yet */
        locate(&k, &here, 1);
        if (elsewhere == 0) { /* he has it, most probably */
            assert_string_equal(want(&k, CBI_REPLICA_SEND)->peer, name);
            assert_int_equal(want(&k, CBI_REPLICA_SEND)->peer_generation, he->generation);
        }
        cbi_replica_destroy(k.r);
    }
}

static void test_replica__a_copy_that_was_there_is_not_counted_as_mended(void **state) {
    (void)state;
    for (int there = 0; there < 2; there++) {
        kit k;
        settle_in(&k, "me");
        assert_ok(put(&k, "x", 5, 1));
        cbi_tracked *b = cbi_tracked_find(k.r, "x");
        b->copies = 2;
        cbi_tracked_check(k.r, b);
        pass(&k, 3 * SECOND);
        const cb_location here = at("me", 10, 5);
        locate(&k, &here, 1);
        char name[32];
        uint64_t generation = asks(&k, name);
        assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_SENT,
                                               .name = "x",
                                               .peer = name,
                                               .peer_generation = generation,
                                               .generation = 5,
                                               .checksum = 7,
                                               .sequence = k.asked[name[0] & 127],
                                               .was_there = there != 0,
                                               .answer = CBI_REPLICA_OK}));
        cbi_replica_figures f;
        cbi_replica_figures_get(k.r, &f);
        assert_int_equal(f.mended, there == 0);
        assert_int_equal(f.sent, there == 0);
        cbi_replica_destroy(k.r);
    }
}

static void test_replica__what_outlived_a_process_is_looked_for(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_STORED,
                                           .returned = true,
                                           .name = "x",
                                           .generation = 5,
                                           .checksum = 7,
                                           .bytes = 100,
                                           .copies = 2}));
    want_none(&k, CBI_REPLICA_SEND); /* somebody may have the other one */
    pass(&k, 3 * SECOND);
    assert_string_equal(want(&k, CBI_REPLICA_LOCATE)->name, "x");
    const cb_location here = at("me", 10, 5);
    locate(&k, &here, 1);
    char name[32];
    uint64_t generation = asks(&k, name);
    sent(&k, name, generation, 5, 7, CBI_REPLICA_OK);
    want_none(&k, CBI_REPLICA_PUT_DONE); /* nobody waits for it */
    cbi_replica_destroy(k.r);
}

static void test_replica__a_copy_at_somebody_unknown_is_looked_for_again(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 2));
    char to[32];
    (void)snprintf(to, sizeof to, "%s", want(&k, CBI_REPLICA_SEND)->peer);
    sent(&k, to, want(&k, CBI_REPLICA_SEND)->peer_generation, 5, 7, CBI_REPLICA_OK);
    pass(&k, 5 * SECOND);
    const cb_executor_view all[] = {peer("a", "h1", "r0", 1), peer("b", "h2", "r0", 2),
                                    peer("c", "h3", "r0", 3)};
    cb_executor_view left[2];
    size_t count = 0;
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(all[i].name, to) != 0) {
            left[count++] = all[i];
        }
    }
    see(&k, left, 2); /* who had the copy has died; then somebody has it who is in no list */
    want(&k, CBI_REPLICA_LOCATE);
    const cb_location locations[] = {at("me", 10, 5), at("stranger", 4, 5)};
    locate(&k, locations, 2);
    want_none(&k, CBI_REPLICA_SEND); /* there are two */
    for (int look = 0; look < 3; look++) {
        int seconds = 0;
        while (wanted(&k, CBI_REPLICA_LOCATE, 0) == NULL && seconds < 60) {
            pass(&k, SECOND);
            seconds++;
        }
        want(&k, CBI_REPLICA_LOCATE); /* no death would tell that it has gone */
        locate(&k, locations, look < 2 ? 2 : 1);
    }
    want(&k, CBI_REPLICA_SEND);
    cbi_replica_destroy(k.r);
}

/* ---- the directory ---- */

static void test_replica__a_directory_that_came_back_is_told_everything(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 2));
    const cb_place *place = &want(&k, CBI_REPLICA_REPORT)->place;
    assert_int_equal(place->block_generation, 5);
    assert_int_equal(place->checksum, 7);
    sent(&k, "a", 1, 5, 7, CBI_REPLICA_OK);
    sent(&k, "b", 2, 5, 7, CBI_REPLICA_FULL);
    sent(&k, "c", 3, 5, 7, CBI_REPLICA_FULL);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_LOST}));
    assert_ok(put(&k, "y", 6, 1));
    want_none(&k, CBI_REPLICA_REPORT);
    enter(&k, 20);
    assert_string_equal(wanted(&k, CBI_REPLICA_REPORT, 0)->name, "y");
    assert_string_equal(wanted(&k, CBI_REPLICA_REPORT, 1)->name, "x");
    see(&k, NULL, 0); /* the others are not back yet: nobody is missed */
    pass(&k, 3 * SECOND);
    want_none(&k, CBI_REPLICA_LOCATE);
    pass(&k, 10 * SECOND);
    see(&k, NULL, 0);
    want(&k, CBI_REPLICA_LOCATE);
    cbi_replica_destroy(k.r);
}

static void test_replica__what_has_gone_is_reported_once(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 1));
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_MOVED,
                                           .name = "x",
                                           .generation = 5,
                                           .level = CB_LEVEL_DISK_ONLY,
                                           .disk_bytes = 90}));
    assert_int_equal(want(&k, CBI_REPLICA_REPORT)->place.disk_bytes, 90);
    cbi_replica_event gone = {.kind = CBI_REPLICA_GONE, .name = "x", .generation = 4};
    assert_ok(step(&k, gone)); /* of another generation */
    assert_int_equal(k.count, 0);
    gone.generation = 5;
    assert_ok(step(&k, gone));
    assert_int_equal(want(&k, CBI_REPLICA_REPORT)->place.level, CB_LEVEL_NONE);
    assert_ok(step(&k, gone));
    assert_int_equal(k.count, 0);
    cbi_replica_destroy(k.r);
}

/* ---- removals ---- */

static void test_replica__what_was_removed_does_not_come_back(void **state) {
    (void)state;
    kit k;
    open_kit(&k, "me");
    assert_ok(put(&k, "rdd_3_1", 5, 1));
    assert_ok(put(&k, "rdd_31_1", 5, 1));
    offer(&k, "rdd_3_2", 6, 10);
    uint64_t ticket = want(&k, CBI_REPLICA_ACCEPT)->ticket;
    bury(&k, CBI_GRAVE_DATA_SET, "", 3, 8);
    assert_string_equal(want(&k, CBI_REPLICA_DROP)->name, "rdd_3_1");
    assert_false(cbi_replica_holds(k.r, "rdd_3_1", 5, NULL));
    assert_true(cbi_replica_holds(k.r, "rdd_31_1", 5, NULL));
    arrive(&k, ticket, 7); /* was on its way */
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_IS_BURIED);
    offer(&k, "rdd_3_7", 8, 10);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_IS_BURIED);
    offer(&k, "rdd_3_7", 9, 10); /* was put later */
    want(&k, CBI_REPLICA_ACCEPT);
    bury(&k, CBI_GRAVE_BLOCK, "x", 0, 20);
    assert_status(put(&k, "x", 20, 1), CB_ENOTFOUND);
    assert_true(cbi_replica_mint(k.r, k.now_ns) > 20);
    cbi_replica_destroy(k.r);
}

static void test_replica__everybody_is_told_of_a_removal_until_he_answers(void **state) {
    (void)state;
    kit k;
    open_kit(&k, "me");
    const cb_executor_view views[] = {peer("a", "h1", "r0", 1), peer("b", "h2", "r0", 2)};
    const cb_executor_view again[] = {peer("a", "h1", "r0", 9), peer("b", "h2", "r0", 2)};
    see(&k, views, 2);
    assert_ok(
        step(&k, (cbi_replica_event){.kind = CBI_REPLICA_REMOVE, .name = "x", .generation = 5}));
    assert_string_equal(wanted(&k, CBI_REPLICA_TELL, 0)->peer, "a");
    assert_string_equal(wanted(&k, CBI_REPLICA_TELL, 1)->peer, "b");
    uint64_t sequence = want(&k, CBI_REPLICA_TELL)->sequence;
    cbi_replica_event told = {
        .kind = CBI_REPLICA_TOLD, .peer = "a", .peer_generation = 1, .sequence = sequence};
    assert_ok(step(&k, told));
    assert_int_equal(k.count, 0);
    pass(&k, SECOND);
    assert_string_equal(want(&k, CBI_REPLICA_TELL)->peer, "b"); /* has not answered */
    told.peer = "b";
    told.peer_generation = 2;
    assert_ok(step(&k, told));
    pass(&k, SECOND);
    want_none(&k, CBI_REPLICA_TELL);
    see(&k, again, 2); /* a was away, or is somebody new */
    assert_string_equal(want(&k, CBI_REPLICA_TELL)->peer, "a");
    told.peer = "a"; /* an answer of the one before */
    told.peer_generation = 1;
    assert_ok(step(&k, told));
    pass(&k, SECOND);
    assert_string_equal(want(&k, CBI_REPLICA_TELL)->peer, "a");
    cbi_replica_destroy(k.r);
}

static void test_replica__an_answer_to_one_life_is_none_to_the_next(void **state) {
    (void)state;
    const cb_executor_view view = peer("a", "h1", "r0", 1);
    uint64_t sequences[2] = {0};
    for (int life = 0; life < 2; life++) {
        kit k = {.now_ns = SECOND};
        const cbi_replica_options options = {.name = "me", .wall_ms = 1000 + (uint64_t)life};
        assert_ok(cbi_replica_create(&options, &k.r, NULL));
        see(&k, &view, 1);
        assert_ok(step(
            &k, (cbi_replica_event){.kind = CBI_REPLICA_REMOVE, .name = "x", .generation = 5}));
        sequences[life] = want(&k, CBI_REPLICA_TELL)->sequence;
        assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_TOLD,
                                               .peer = "a",
                                               .peer_generation = 1,
                                               .sequence = sequences[0]})); /* late */
        pass(&k, SECOND);
        assert_int_equal(wanted(&k, CBI_REPLICA_TELL, 0) != NULL, life == 1);
        cbi_replica_destroy(k.r);
    }
}

static void test_replica__removals_that_are_too_many_are_counted(void **state) {
    (void)state;
    kit k;
    cbi_replica_figures f;
    char name[32];
    open_kit(&k, "me"); /* remembers four */
    for (int i = 0; i < 6; i++) {
        (void)snprintf(name, sizeof name, "x%d", i);
        bury(&k, CBI_GRAVE_BLOCK, name, 0, 5);
    }
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.graves, 4);
    assert_int_equal(f.graves_lost, 2);
    pass(&k, 25 * 3600 * SECOND);
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.graves, 0);
    assert_int_equal(f.graves_lost, 2);
    cbi_replica_destroy(k.r);
}

static void test_replica__a_removal_is_remembered_until_all_have_heard_of_it(void **state) {
    (void)state;
    kit k;
    cbi_replica_figures f;
    char name[32];
    settle_in(&k, "me"); /* remembers four, and as many as blocks for who has not heard */
    for (int i = 0; i < 6; i++) {
        (void)snprintf(name, sizeof name, "x%d", i);
        bury(&k, CBI_GRAVE_BLOCK, name, 0, 5);
    }
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.graves, 6);
    assert_int_equal(f.graves_lost, 0);
    for (int heard = 0; heard < 6 * 3; heard++) {
        pass(&k, SECOND);
        const cbi_replica_action *a = want(&k, CBI_REPLICA_TELL);
        (void)snprintf(name, sizeof name, "%s", a->peer);
        assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_TOLD,
                                               .peer = name,
                                               .peer_generation = a->peer_generation,
                                               .sequence = a->sequence}));
    }
    pass(&k, SECOND);
    want_none(&k, CBI_REPLICA_TELL);
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.graves, 4);
    cbi_replica_destroy(k.r);
}

static void test_replica__removals_nobody_hears_of_take_no_more_than_their_share(void **state) {
    (void)state;
    kit k;
    cbi_replica_figures f;
    char name[32];
    const cbi_replica_options options = {.name = "me",
                                         .host = "h0",
                                         .rack = "r0",
                                         .wall_ms = 1000,
                                         .now_ns = SECOND,
                                         .room_bytes = 1000,
                                         .blocks_max = 1024,
                                         .graves_max = 4,
                                         .graves_bytes_max = 2000};
    k = (kit){.now_ns = SECOND};
    assert_ok(cbi_replica_create(&options, &k.r, NULL));
    settle(&k); /* others are there, and never answer */
    for (int i = 0; i < 1000; i++) {
        (void)snprintf(name, sizeof name, "x%d", i);
        bury(&k, CBI_GRAVE_BLOCK, name, 0, 5);
    }
    cbi_replica_figures_get(k.r, &f);
    assert_in_range(f.graves, 5, 40);
    assert_int_equal(f.graves + f.graves_lost, 1000);
    cbi_replica_destroy(k.r);
}

static void test_replica__generations_are_larger_than_all_that_were_heard_of(void **state) {
    (void)state;
    kit k, other;
    open_kit(&k, "me");
    open_kit(&other, "other");
    uint64_t first = cbi_replica_mint(k.r, k.now_ns), second = cbi_replica_mint(k.r, k.now_ns);
    assert_true(second > first);
    assert_true(cbi_replica_mint(other.r, k.now_ns) != first);
    uint64_t far = second + (UINT64_C(1000000) << 20);
    offer(&k, "x", far, 10);
    assert_true(cbi_replica_mint(k.r, k.now_ns) > far);
    uint64_t before = cbi_replica_mint(other.r, k.now_ns + 50 * SECOND);
    cbi_replica_destroy(other.r);
    other = (kit){0};
    const cbi_replica_options reborn = {
        .name = "other", .wall_ms = 1000 + 60000, .now_ns = 3, .room_bytes = 1};
    assert_ok(cbi_replica_create(&reborn, &other.r, NULL)); /* has forgotten everything */
    assert_true(cbi_replica_mint(other.r, 4) > before);
    kit again = {0}; /* one life more, and both have heard of what is far ahead of their clocks */
    const cbi_replica_options third = {.name = "other", .wall_ms = 62000, .room_bytes = 1};
    assert_ok(cbi_replica_create(&third, &again.r, NULL));
    offer(&other, "x", far, 10);
    offer(&again, "x", far, 10);
    assert_true(cbi_replica_mint(other.r, 0) != cbi_replica_mint(again.r, 0));
    cbi_replica_destroy(again.r);
    cbi_replica_destroy(other.r);
    cbi_replica_destroy(k.r);
}

/* ---- leaving ---- */

static void test_replica__whoever_leaves_moves_his_blocks_first(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 1));
    want(&k, CBI_REPLICA_PUT_DONE);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION}));
    want(&k, CBI_REPLICA_LOCATE);
    offer(&k, "y", 5, 10);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_FULL);
    const cb_location locations[] = {at("me", 10, 5)};
    locate(&k, locations, 1);
    char name[32];
    uint64_t generation = asks(&k, name);
    want_none(&k, CBI_REPLICA_MOVED_OUT);
    sent(&k, name, generation, 5, 7, CBI_REPLICA_OK);
    want(&k, CBI_REPLICA_MOVED_OUT);
    pass(&k, SECOND);
    want_none(&k, CBI_REPLICA_MOVED_OUT);
    cbi_replica_destroy(k.r);
}

static void test_replica__whoever_has_moved_out_is_asked_again(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    const cbi_replica_event leave = {.kind = CBI_REPLICA_DECOMMISSION};
    assert_ok(step(&k, leave));
    want(&k, CBI_REPLICA_MOVED_OUT);
    assert_ok(step(&k, leave));
    want(&k, CBI_REPLICA_MOVED_OUT);
    assert_ok(put(&k, "x", 5, 1)); /* its put was under way */
    char name[32];
    uint64_t generation = asks(&k, name);
    assert_ok(step(&k, leave));
    want_none(&k, CBI_REPLICA_MOVED_OUT);
    sent(&k, name, generation, 5, 7, CBI_REPLICA_OK);
    want(&k, CBI_REPLICA_MOVED_OUT);
    cbi_replica_destroy(k.r);
}

static const cbi_replica_action *leave(kit *k) {
    assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION}));
    return want(k, CBI_REPLICA_LOCATE);
}

static void test_replica__whoever_leaves_believes_only_who_has_the_copy(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        kit k;
        const char *holder = i == 0 ? "a" : i == 1 ? "b" : "c";
        uint64_t of = (uint64_t)i + 1;
        settle_in(&k, "me");
        assert_ok(put(&k, "x", 5, 1));
        want(&k, CBI_REPLICA_PUT_DONE);
        leave(&k);
        const cb_location locations[] = {at("me", 10, 5), at(holder, of, 5)};
        locate(&k, locations, 2);
        assert_string_equal(want(&k, CBI_REPLICA_SEND)->peer, holder); /* wherever it is */
        want_none(&k, CBI_REPLICA_MOVED_OUT);
        sent(&k, holder, of, 5, 7, CBI_REPLICA_FAILED);
        const cbi_replica_action *a = want(&k, CBI_REPLICA_SEND);
        assert_string_not_equal(a->peer, holder);
        want_none(&k, CBI_REPLICA_MOVED_OUT);
        sent(&k, holder, of, 5, 7, CBI_REPLICA_OK); /* late, but it is his word */
        want(&k, CBI_REPLICA_MOVED_OUT);
        cbi_replica_destroy(k.r);
    }
}

static void test_replica__whoever_leaves_asks_again_when_that_was_long_ago(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 1));
    want(&k, CBI_REPLICA_PUT_DONE);
    assert_ok(put(&k, "y", 5, 1));
    leave(&k);
    const cb_location locations[] = {at("me", 10, 5), at("a", 1, 5)};
    locate(&k, locations, 2);
    sent(&k, "a", 1, 5, 7, CBI_REPLICA_OK);
    want_none(&k, CBI_REPLICA_MOVED_OUT); /* for y */
    pass(&k, SECOND);
    assert_ok(
        step(&k, (cbi_replica_event){.kind = CBI_REPLICA_GONE, .name = "y", .generation = 5}));
    const cbi_replica_action *a = want(&k, CBI_REPLICA_SEND);
    assert_string_equal(a->name, "x");
    assert_string_equal(a->peer, "a");
    want_none(&k, CBI_REPLICA_MOVED_OUT);
    sent(&k, "a", 1, 5, 7, CBI_REPLICA_OK);
    want(&k, CBI_REPLICA_MOVED_OUT);
    cbi_replica_destroy(k.r);
}

static void test_replica__whoever_leaves_wants_a_word_that_he_asked_for_since(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 2));
    char name[32];
    uint64_t generation = asks(&k, name), asked = k.asked[name[0] & 127];
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION}));
    k.asked[name[0] & 127] = asked;
    sent(&k, name, generation, 5, 7, CBI_REPLICA_OK);
    assert_true(k.asked[name[0] & 127] > asked); /* it may have died since: it is asked again */
    want_none(&k, CBI_REPLICA_MOVED_OUT);
    cbi_replica_destroy(k.r);
}

static void test_replica__a_roll_call_that_takes_long_may_take_longer(void **state) {
    (void)state;
    kit k;
    int calls = 0;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 1));
    leave(&k);
    const cb_location locations[] = {at("me", 10, 5), at("a", 1, 5)};
    locate(&k, locations, 2);
    for (want(&k, CBI_REPLICA_SEND); wanted(&k, CBI_REPLICA_MOVED_OUT, 0) == NULL; calls++) {
        assert_string_equal(want(&k, CBI_REPLICA_SEND)->peer, "a");
        k.now_ns += SECOND / 5; /* so long is its answer on its way */
        sent(&k, "a", 1, 5, 7, CBI_REPLICA_OK);
    }
    assert_in_range(calls, 2, 5);
    cbi_replica_destroy(k.r);
}

static void test_replica__who_was_sent_nothing_is_not_to_blame(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 2));
    char name[32];
    uint64_t generation = asks(&k, name);
    sent(&k, name, generation, 5, 7, CBI_REPLICA_UNSENT); /* it cannot be read here */
    assert_int_equal(want(&k, CBI_REPLICA_PUT_DONE)->copies, 1);
    want_none(&k, CBI_REPLICA_SEND); /* for nobody else, then */
    want_none(&k, CBI_REPLICA_VERIFY);
    assert_ok(put(&k, "y", 5, 3));
    assert_non_null(wanted(&k, CBI_REPLICA_SEND, 1)); /* he too is asked, for others */
    pass(&k, 3 * SECOND);
    want(&k, CBI_REPLICA_LOCATE); /* and it is tried again */
    cbi_replica_destroy(k.r);
}

static void test_replica__two_that_leave_do_not_count_upon_each_other(void **state) {
    (void)state;
    kit k;
    settle_in(&k, "me");
    assert_ok(put(&k, "x", 5, 1));
    offer(&k, "x", 5, 100);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_OK);
    leave(&k);
    offer(&k, "x", 5, 100);
    assert_int_equal(want(&k, CBI_REPLICA_REFUSE)->answer, CBI_REPLICA_FULL);
    cbi_replica_destroy(k.r);
}

/* ---- the order of peers ---- */

static void test_replica__blocks_spread_and_few_move_when_somebody_comes(void **state) {
    (void)state;
    enum { BLOCKS = 600, PEERS = 6 };
    static int first[BLOCKS];
    cb_executor_view views[PEERS];
    char name[32];
    int counts[PEERS] = {0}, changed = 0;
    for (int i = 0; i < PEERS; i++) {
        (void)snprintf(name, sizeof name, "p%d", i);
        views[i] = peer(name, name, "", (uint64_t)i + 1);
    }
    for (int round = 0; round < 2; round++) {
        kit k;
        open_kit(&k, "me");
        see(&k, views, (size_t)(PEERS - 1 + round));
        for (int i = 0; i < BLOCKS; i++) {
            (void)snprintf(name, sizeof name, "block%d", i);
            assert_ok(put(&k, name, 5, 2));
            int to = want(&k, CBI_REPLICA_SEND)->peer[1] - '0';
            if (round == 1 && first[i] != to) {
                assert_int_equal(to, PEERS - 1); /* only to the one who came */
                changed++;
            }
            first[i] = to;
            counts[to] += round;
            assert_ok(step(
                &k, (cbi_replica_event){.kind = CBI_REPLICA_GONE, .name = name, .generation = 5}));
        }
        cbi_replica_destroy(k.r);
    }
    assert_in_range(changed, BLOCKS / PEERS / 2, BLOCKS / PEERS * 2);
    for (int i = 0; i < PEERS; i++) {
        assert_in_range(counts[i], BLOCKS / PEERS / 2, BLOCKS / PEERS * 2);
    }
}

static void test_replica__readers_take_the_right_generation_from_the_nearest(void **state) {
    (void)state;
    kit k;
    size_t order[5];
    open_kit(&k, "me");
    const cb_executor_view views[] = {peer("rack", "h2", "r1", 1), peer("host", "h1", "r0", 2),
                                      peer("port", "h0", "r0", 3)};
    see(&k, views, 3);
    cb_location locations[] = {at("rack", 1, 5), at("host", 2, 4), at("me", 9, 5),
                               at("stranger", 4, 5), at("port", 3, 5)};
    assert_int_equal(cbi_replica_sources(k.r, locations, 5, 5, 7, order), 3);
    assert_int_equal(order[0], 4);
    assert_int_equal(order[1], 0);
    assert_int_equal(order[2], 3);
    assert_int_equal(cbi_replica_sources(k.r, locations, 5, 5, 8, order), 0);
    assert_int_equal(cbi_replica_sources(k.r, locations, 5, 4, 0, order), 1);
    cbi_replica_destroy(k.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replica__copies_go_to_another_rack_then_to_another_host),
        cmocka_unit_test(test_replica__a_put_is_done_when_the_right_copies_are_there),
        cmocka_unit_test(test_replica__who_refuses_or_is_silent_is_followed_by_the_next),
        cmocka_unit_test(test_replica__actions_that_do_not_fit_come_with_the_next_step),
        cmocka_unit_test(test_replica__room_is_reserved_before_the_bytes_come),
        cmocka_unit_test(test_replica__only_what_was_offered_is_stored),
        cmocka_unit_test(test_replica__one_of_the_holders_mends),
        cmocka_unit_test(test_replica__the_others_step_in_when_nothing_comes_of_it),
        cmocka_unit_test(test_replica__who_enters_anew_is_not_taken_for_dead_at_once),
        cmocka_unit_test(test_replica__a_copy_that_was_there_is_not_counted_as_mended),
        cmocka_unit_test(test_replica__what_outlived_a_process_is_looked_for),
        cmocka_unit_test(test_replica__a_copy_at_somebody_unknown_is_looked_for_again),
        cmocka_unit_test(test_replica__a_directory_that_came_back_is_told_everything),
        cmocka_unit_test(test_replica__what_has_gone_is_reported_once),
        cmocka_unit_test(test_replica__what_was_removed_does_not_come_back),
        cmocka_unit_test(test_replica__everybody_is_told_of_a_removal_until_he_answers),
        cmocka_unit_test(test_replica__an_answer_to_one_life_is_none_to_the_next),
        cmocka_unit_test(test_replica__removals_that_are_too_many_are_counted),
        cmocka_unit_test(test_replica__a_removal_is_remembered_until_all_have_heard_of_it),
        cmocka_unit_test(test_replica__removals_nobody_hears_of_take_no_more_than_their_share),
        cmocka_unit_test(test_replica__generations_are_larger_than_all_that_were_heard_of),
        cmocka_unit_test(test_replica__a_sender_that_began_anew_has_no_copy),
        cmocka_unit_test(test_replica__an_answer_about_a_block_that_has_gone_is_none),
        cmocka_unit_test(test_replica__whoever_leaves_moves_his_blocks_first),
        cmocka_unit_test(test_replica__whoever_has_moved_out_is_asked_again),
        cmocka_unit_test(test_replica__whoever_leaves_believes_only_who_has_the_copy),
        cmocka_unit_test(test_replica__whoever_leaves_asks_again_when_that_was_long_ago),
        cmocka_unit_test(test_replica__whoever_leaves_wants_a_word_that_he_asked_for_since),
        cmocka_unit_test(test_replica__a_roll_call_that_takes_long_may_take_longer),
        cmocka_unit_test(test_replica__who_was_sent_nothing_is_not_to_blame),
        cmocka_unit_test(test_replica__two_that_leave_do_not_count_upon_each_other),
        cmocka_unit_test(test_replica__blocks_spread_and_few_move_when_somebody_comes),
        cmocka_unit_test(test_replica__readers_take_the_right_generation_from_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
