/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: blocks that wait are looked at again when they are due and not before, however many there
 * are, and no step goes through all of them. What waits for others to be sent goes on with the next
 * step that wants more, whatever the time. Method: blocks for which nobody is there to take a copy,
 * or not yet, in made time, and a look at where they lie.
 */
#include <stdlib.h>

#include "store/replica_kit.h"
#include "store/replica_private.h"

enum { MANY = 300 };

/** Nobody is there, and it is known. */
static void open_alone(kit *k, cbi_replica_options options) {
    options.blocks_max = 2 * MANY;
    options.mending_max = 4 * MANY;
    open_kit_with(k, options);
    enter(k, 10);
    see(k, NULL, 0);
    pass(k, 20 * SECOND);
}

static void put_one(kit *k, unsigned i) {
    char name[32];
    (void)snprintf(name, sizeof name, "x%u", i);
    assert_ok(put(k, name, 5, 2));
}

static bool has_woken(const cbi_tracked *b) {
    return b->state == CBI_BLOCK_CHECK || b->state == CBI_BLOCK_LOCATING;
}

static unsigned count_woken(const kit *k) {
    unsigned count = 0;
    for (size_t i = 0; i < k->r->buckets.count; i++) {
        for (const cbi_tracked *b = *cbi_tracked_bucket(k->r, i); b != NULL; b = b->chain) {
            count += has_woken(b);
        }
    }
    return count;
}

/** The directory knows nobody else: each rests again, longer. */
static void answer_all(kit *k) {
    const cb_location me[] = {at("me", 10, 5)};
    for (unsigned i = 0; i < MANY; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "x%u", i);
        const cbi_tracked *b = cbi_tracked_find(k->r, name);
        if (b != NULL && b->state == CBI_BLOCK_LOCATING) {
            assert_ok(step(
                k, (cbi_replica_event){
                       .kind = CBI_REPLICA_LOCATED, .name = name, .locations = me, .count = 1}));
        }
    }
}

/* Also beyond what the ring of queues reaches. */
static void test_wait__each_is_looked_at_with_the_first_tick_after_it_is_due(void **state) {
    (void)state;
    for (uint64_t retry_ns = SECOND / 50; retry_ns <= 20 * SECOND; retry_ns *= 10) {
        kit k;
        uint64_t due_ns[MANY] = {0};
        open_alone(&k, (cbi_replica_options){.retry_ns = retry_ns, .settle_ns = 1});
        for (unsigned tick = 0; tick < 6 * MANY; tick++) {
            if (tick < MANY) {
                put_one(&k, tick);
            }
            answer_all(&k);
            for (unsigned i = 0; i < MANY && i <= tick; i++) {
                char name[32];
                (void)snprintf(name, sizeof name, "x%u", i);
                const cbi_tracked *b = cbi_tracked_find(k.r, name);
                due_ns[i] = b->state == CBI_BLOCK_RESTING ? b->due_ns : 0;
            }
            pass(&k, retry_ns / 7 + tick % 5);
            for (unsigned i = 0; i < MANY && i <= tick; i++) {
                char name[32];
                (void)snprintf(name, sizeof name, "x%u", i);
                const cbi_tracked *b = cbi_tracked_find(k.r, name);
                assert_int_equal(due_ns[i] != 0 && has_woken(b),
                                 due_ns[i] != 0 && due_ns[i] <= k.now_ns);
            }
        }
        cbi_replica_destroy(k.r);
    }
}

static void test_wait__what_is_due_at_once_is_looked_at_some_at_a_time(void **state) {
    enum { A_TICK = 16 };
    (void)state;
    kit k;
    open_alone(&k, (cbi_replica_options){.retry_ns = SECOND, .audit_ns = SECOND, .sweep_max = 1});
    for (unsigned i = 0; i < MANY; i++) {
        put_one(&k, i);
    }
    unsigned woken = 0;
    for (int i = 0; i < MANY && woken < MANY; i++) {
        pass(&k, i == 0 ? 10 * SECOND : SECOND / 10);
        assert_in_range(count_woken(&k), woken + 1, woken + A_TICK);
        woken = count_woken(&k);
        put_one(&k, MANY + (unsigned)i); /* any step goes on with it */
        if (woken < MANY) {
            assert_in_range(count_woken(&k), woken + 1, woken + A_TICK);
            woken = count_woken(&k);
        }
    }
    assert_int_equal(woken, MANY);
    cbi_replica_destroy(k.r);
}

static void test_wait__who_comes_has_them_looked_at_some_at_a_time(void **state) {
    (void)state;
    kit k;
    open_alone(&k, (cbi_replica_options){.retry_ns = 1000 * SECOND, .sweep_max = 1});
    for (unsigned i = 0; i < MANY; i++) {
        put_one(&k, i);
    }
    pass(&k, 10 * SECOND); /* they have settled */
    assert_int_equal(count_woken(&k), 0);
    const cb_executor_view a = peer("a", "h1", "r0", 1);
    see(&k, &a, 1);
    unsigned woken = count_woken(&k);
    assert_in_range(woken, 1, 16);
    for (unsigned i = 0; i < MANY && woken < MANY; i++) {
        cb_executor_view more = a;
        more.memory_max += i; /* news again and again holds nothing up */
        see(&k, &more, 1);
        pass(&k, SECOND / 10);
        assert_in_range(count_woken(&k), woken + 1, woken + 32);
        woken = count_woken(&k);
    }
    assert_int_equal(woken, MANY);
    cbi_replica_destroy(k.r);
}

static unsigned count_looks(kit *k, unsigned seconds) {
    unsigned looks = 0;
    for (unsigned i = 0; i < 10 * seconds; i++) {
        pass(k, SECOND / 10);
        looks += count_woken(k);
        answer_all(k);
    }
    return looks;
}

/* Each look is a question to the directory, and nothing can have changed. */
static void test_wait__nobody_is_looked_for_as_long_as_nobody_is_there(void **state) {
    (void)state;
    kit k;
    open_alone(&k, (cbi_replica_options){.room_bytes = 100 * MANY});
    for (unsigned i = 0; i < MANY; i++) {
        put_one(&k, i);
    }
    assert_int_equal(count_looks(&k, 100), 0);
    const cb_executor_view a = peer("a", "h1", "r0", 1);
    see(&k, &a, 1);
    assert_true(count_looks(&k, 1) >= MANY);
    cbi_replica_destroy(k.r);
}

static void refuse_all(kit *k) {
    for (const cbi_replica_action *a = NULL; (a = wanted(k, CBI_REPLICA_SEND, 0)) != NULL;) {
        assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_SENT,
                                              .name = a->name,
                                              .peer = "a",
                                              .peer_generation = 1,
                                              .generation = 5,
                                              .checksum = 7,
                                              .sequence = a->sequence,
                                              .answer = CBI_REPLICA_FULL}));
    }
}

static void answer_one(kit *k, unsigned i, cbi_replica_answer answer) {
    char name[32];
    (void)snprintf(name, sizeof name, "x%u", i);
    assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_SENT,
                                          .name = name,
                                          .peer = "a",
                                          .peer_generation = 1,
                                          .generation = 5,
                                          .checksum = 7,
                                          .answer = answer}));
}

/* A thousandth of a second for each of those that wait. */
static void test_wait__who_refuses_many_is_asked_the_less_often(void **state) {
    (void)state;
    uint64_t pauses_ns[2] = {0};
    for (unsigned turn = 0; turn < 2; turn++) {
        unsigned count = turn == 0 ? 1 : MANY;
        kit k;
        open_alone(&k, (cbi_replica_options){.retry_ns = SECOND, .room_bytes = 1000 * MANY});
        const cb_executor_view a = peer("a", "h1", "r0", 1);
        see(&k, &a, 1);
        for (unsigned i = 0; i < count; i++) {
            put_one(&k, i);
            refuse_all(&k);
        }
        char name[32];
        (void)snprintf(name, sizeof name, "x%u", count - 1);
        const cbi_tracked *b = cbi_tracked_find(k.r, name);
        assert_int_equal(b->state, CBI_BLOCK_RESTING);
        pauses_ns[turn] = b->due_ns - k.now_ns;
        cbi_replica_destroy(k.r);
    }
    assert_in_range(pauses_ns[1] - pauses_ns[0], (MANY - 2) * SECOND / 1000, MANY * SECOND / 1000);
}

/* Whoever has not answered yet has refused nothing. */
static void test_wait__copies_under_way_keep_nobody_from_being_looked_for(void **state) {
    (void)state;
    kit k;
    open_alone(&k, (cbi_replica_options){.retry_ns = SECOND, .room_bytes = 1000 * MANY});
    const cb_executor_view a = peer("a", "h1", "r0", 1);
    see(&k, &a, 1);
    for (unsigned i = 0; i < MANY; i++) {
        put_one(&k, i);
        assert_non_null(wanted(&k, CBI_REPLICA_SEND, 0));
    }
    put_one(&k, MANY);
    refuse_all(&k);
    char name[32];
    (void)snprintf(name, sizeof name, "x%u", MANY);
    const cbi_tracked *b = cbi_tracked_find(k.r, name);
    assert_int_equal(b->state, CBI_BLOCK_RESTING);
    assert_int_equal(b->due_ns - k.now_ns, SECOND);
    cbi_replica_destroy(k.r);
}

/* ---- news ---- */

/** MANY blocks of three copies, of which `a` takes one if he has room; nobody else is there. */
static void put_for_a(kit *k, cb_executor_view *a, uint64_t retry_ns, bool has_room) {
    *a = peer("a", "h1", "r0", 1);
    a->memory_bytes = has_room ? 500 : a->memory_max;
    open_alone(k, (cbi_replica_options){.retry_ns = retry_ns, .room_bytes = 1000 * MANY});
    see(k, a, 1);
    for (unsigned i = 0; i < MANY; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "x%u", i);
        assert_ok(put(k, name, 5, 3));
        if (has_room) {
            answer_one(k, i, CBI_REPLICA_OK);
        }
    }
    pass(k, 10 * SECOND); /* they have settled */
}

/** Something is put and removed again at `a`, five times a second. */
static unsigned count_looks_while_used(kit *k, cb_executor_view *a, unsigned seconds) {
    unsigned looks = 0;
    for (unsigned i = 0; i < 10 * seconds; i++) {
        a->memory_bytes -= i % 2 == 0 ? 1 : (uint64_t)-1;
        pass(k, SECOND / 10);
        see(k, a, 1);
        looks += count_woken(k);
        answer_all(k);
    }
    return looks;
}

static void test_news__room_where_none_was_lacking_is_none(void **state) {
    (void)state;
    kit k;
    cb_executor_view a;
    put_for_a(&k, &a, SECOND, true);
    assert_int_equal(count_looks_while_used(&k, &a, 20), 0);
    cbi_replica_destroy(k.r);
}

static void test_news__room_where_it_lacked_is_made_use_of_at_once(void **state) {
    (void)state;
    kit k;
    cb_executor_view a;
    put_for_a(&k, &a, 100 * SECOND, false);
    assert_int_equal(count_looks(&k, 20), 0);
    assert_int_equal(count_looks_while_used(&k, &a, 1), MANY);
    cbi_replica_destroy(k.r);
}

/* And is never enough, nor are looks more than a thousand in a second. */
static void
test_news__room_that_comes_again_and_again_is_looked_at_from_time_to_time(void **state) {
    (void)state;
    kit k;
    cb_executor_view a;
    put_for_a(&k, &a, 10 * SECOND, false);
    unsigned looks = count_looks_while_used(&k, &a, 100);
    assert_in_range(looks, 9 * MANY, 10 * MANY); /* each pause is 10.3 s */
    cbi_replica_destroy(k.r);
}

static void test_news__who_answers_again_is_offered_what_he_did_not_answer_for(void **state) {
    (void)state;
    kit k;
    const cb_executor_view a = peer("a", "h1", "r0", 1);
    open_alone(&k, (cbi_replica_options){.retry_ns = 100 * SECOND, .room_bytes = 1000 * MANY});
    see(&k, &a, 1);
    for (unsigned i = 0; i <= MANY; i++) {
        put_one(&k, i);
        assert_non_null(wanted(&k, CBI_REPLICA_SEND, 0));
    }
    for (unsigned i = 0; i < MANY; i++) {
        answer_one(&k, i, CBI_REPLICA_FAILED);
    }
    assert_int_equal(count_looks(&k, 10), 0);
    answer_one(&k, MANY, CBI_REPLICA_OK);
    assert_int_equal(count_looks(&k, 1), MANY);
    cbi_replica_destroy(k.r);
}

/* ---- copies that are held back ---- */

/** So many puts while no copy is wanted, every tenth of them awaited by somebody. */
static void put_held(kit *k, unsigned count) {
    const cb_executor_view a = peer("a", "h1", "r0", 1);
    open_alone(k, (cbi_replica_options){.room_bytes = 1000 * MANY, .silent = true});
    see(k, &a, 1);
    k->hold = UINT64_MAX;
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "x%u", i);
        assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_STORED,
                                              .name = name,
                                              .generation = 5,
                                              .checksum = 7,
                                              .bytes = 1,
                                              .copies = 2,
                                              .awaited = i % 10 == 9}));
        assert_int_equal(k->count, 0);
    }
}

/** Each copy that is wanted is taken at once; the order in which they were wanted. */
static unsigned take_all(kit *k, unsigned order[MANY]) {
    unsigned taken = 0;
    for (size_t wants = 1; wants > 0;) {
        cbi_replica_action all[ACTIONS];
        assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_TICK}));
        memcpy(all, k->actions, sizeof all);
        wants = k->count;
        for (size_t i = 0; i < wants; i++) {
            assert_int_equal(all[i].kind, CBI_REPLICA_SEND);
            order[taken++] = (unsigned)strtoul(all[i].name + 1, NULL, 10);
            k->hold = UINT64_MAX; /* the answer brings no more */
            assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_SENT,
                                                  .name = all[i].name,
                                                  .peer = "a",
                                                  .peer_generation = 1,
                                                  .generation = 5,
                                                  .checksum = 7,
                                                  .sequence = all[i].sequence,
                                                  .answer = CBI_REPLICA_OK}));
            assert_int_equal(want(k, CBI_REPLICA_PUT_DONE)->copies, 2);
            k->hold = 0;
        }
    }
    return taken;
}

static void test_held__all_go_on_as_soon_as_copies_are_wanted_again(void **state) {
    (void)state;
    kit k;
    unsigned order[MANY] = {0};
    put_held(&k, MANY);
    pass(&k, 100 * SECOND); /* no time ends it, nor is anybody held to have refused */
    assert_int_equal(k.count, 0);
    k.hold = 0;
    assert_int_equal(take_all(&k, order), MANY);
    cbi_replica_figures f;
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.watched, 0);
    assert_int_equal(f.sent, MANY);
    cbi_replica_destroy(k.r);
}

static void test_held__what_is_awaited_and_what_is_not_have_every_other_turn(void **state) {
    (void)state;
    kit k;
    unsigned order[MANY] = {0};
    put_held(&k, MANY);
    k.hold = 0;
    assert_int_equal(take_all(&k, order), MANY);
    unsigned awaited = 0, others = 0;
    for (unsigned i = 0; i < MANY; i++) {
        bool is_awaited = order[i] % 10 == 9;
        assert_int_equal(is_awaited, i % 2 == 0 && i < MANY / 5);
        assert_int_equal(order[i], is_awaited ? 10 * awaited + 9 : others + others / 9);
        awaited += is_awaited;
        others += !is_awaited;
    }
    cbi_replica_destroy(k.r);
}

static void test_held__it_is_removed_and_answered_all_the_same(void **state) {
    (void)state;
    kit k;
    put_held(&k, 3);
    bury(&k, CBI_GRAVE_BLOCK, "x1", 0, 5);
    assert_int_equal(want(&k, CBI_REPLICA_PUT_DONE)->copies, 0);
    assert_string_equal(want(&k, CBI_REPLICA_DROP)->name, "x1");
    see(&k, NULL, 0); /* whoever would have had the copies is no more, and is not waited for */
    want_none(&k, CBI_REPLICA_SEND);
    assert_string_equal(wanted(&k, CBI_REPLICA_PUT_DONE, 0)->name, "x0");
    assert_int_equal(wanted(&k, CBI_REPLICA_PUT_DONE, 0)->copies, 1);
    assert_string_equal(wanted(&k, CBI_REPLICA_PUT_DONE, 1)->name, "x2");
    cbi_replica_destroy(k.r);
}

/** The bit of a peer in `hold`. */
static uint64_t bit_of(const kit *k, const char *name) {
    return cbi_replica_bit(k->r, cbi_replica_peer(k->r, name));
}

/** Puts MANY blocks of so many copies, while `a`, one of two who are there, takes no more; answers
 *  how many SENDs to `b` there were. */
static unsigned put_for_two(kit *k, uint32_t copies) {
    const cb_executor_view views[] = {peer("a", "h1", "r0", 1), peer("b", "h2", "r0", 1)};
    unsigned to_b = 0;
    open_alone(k, (cbi_replica_options){.room_bytes = 1000 * MANY, .silent = true});
    see(k, views, 2);
    k->hold = bit_of(k, "a");
    for (unsigned i = 0; i < MANY; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "x%u", i);
        assert_ok(put(k, name, 5, copies));
        for (size_t n = 0; n < k->count; n++) {
            assert_int_equal(k->actions[n].kind, CBI_REPLICA_SEND);
            assert_string_equal(k->actions[n].peer, "b");
            assert_int_equal(UINT64_C(1) << k->actions[n].slot, bit_of(k, "b"));
            to_b++;
        }
    }
    return to_b;
}

/** The SENDs to that one that come with steps of which none takes any time. */
static unsigned count_sends_to(kit *k, const char *name) {
    unsigned sends = 0;
    do {
        pass(k, 0);
        for (size_t n = 0; n < k->count; n++) {
            sends +=
                k->actions[n].kind == CBI_REPLICA_SEND && strcmp(k->actions[n].peer, name) == 0;
        }
    } while (k->count > 0);
    return sends;
}

static void test_held__who_takes_no_more_holds_up_nobody_elses_copies(void **state) {
    (void)state;
    kit k;
    unsigned to_b = put_for_two(&k, 2);
    assert_in_range(to_b, 1, MANY - 1);
    pass(&k, SECOND);
    assert_int_equal(k.count, 0); /* they are his, however long it takes */
    k.hold = 0;
    assert_int_equal(count_sends_to(&k, "a"), MANY - to_b);
    cbi_replica_destroy(k.r);
    assert_int_equal(put_for_two(&k, 3), MANY); /* nor the other copies of his blocks */
    k.hold = 0;
    assert_int_equal(count_sends_to(&k, "a"), MANY);
    cbi_replica_destroy(k.r);
}

/* And is still held: what was sent to him has not all come back. */
static void test_held__another_one_is_asked_when_he_does_not_answer(void **state) {
    (void)state;
    kit k;
    unsigned to_b = put_for_two(&k, 2);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_UNREACHED, .peer = "a"}));
    unsigned sends = (unsigned)k.count;
    for (size_t n = 0; n < k.count; n++) {
        assert_string_equal(k.actions[n].peer, "b");
    }
    assert_int_equal(sends + count_sends_to(&k, "b"), MANY - to_b);
    cbi_replica_destroy(k.r);
}

/* A million may wait, and others step on meanwhile. */
static void test_held__nobody_looks_at_those_who_wait(void **state) {
    (void)state;
    kit k;
    (void)put_for_two(&k, 2);
    const cbi_line *l = &k.r->lines[__builtin_ctzll(k.hold)];
    const cbi_tracked *first = l->others.first, *last = l->others.last;
    assert_ptr_not_equal(first, last);
    for (unsigned i = 0; i < 3; i++) {
        pass(&k, SECOND);
        assert_ptr_equal(l->others.first, first);
        assert_ptr_equal(l->others.last, last);
    }
    cbi_replica_destroy(k.r);
}

/* Each of the two takes one now and then. */
static void test_held__each_who_takes_more_has_his_turn(void **state) {
    (void)state;
    kit k;
    const cb_executor_view views[] = {peer("a", "h1", "r0", 1), peer("b", "h2", "r0", 1)};
    open_alone(&k, (cbi_replica_options){.room_bytes = 1000 * MANY, .silent = true});
    see(&k, views, 2);
    k.hold = UINT64_MAX;
    for (unsigned i = 0; i < MANY; i++) {
        put_one(&k, i);
        assert_int_equal(k.count, 0);
    }
    k.hold = 0;
    pass(&k, 0);
    unsigned to_a = 0;
    for (size_t n = 0; n < k.count; n++) {
        to_a += strcmp(want(&k, CBI_REPLICA_SEND)->peer, k.actions[n].peer) == 0;
    }
    assert_int_equal(k.count, ACTIONS);
    assert_int_equal(to_a, ACTIONS / 2);
    cbi_replica_destroy(k.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait__each_is_looked_at_with_the_first_tick_after_it_is_due),
        cmocka_unit_test(test_wait__what_is_due_at_once_is_looked_at_some_at_a_time),
        cmocka_unit_test(test_wait__who_comes_has_them_looked_at_some_at_a_time),
        cmocka_unit_test(test_wait__nobody_is_looked_for_as_long_as_nobody_is_there),
        cmocka_unit_test(test_wait__who_refuses_many_is_asked_the_less_often),
        cmocka_unit_test(test_wait__copies_under_way_keep_nobody_from_being_looked_for),
        cmocka_unit_test(test_news__room_where_none_was_lacking_is_none),
        cmocka_unit_test(test_news__room_where_it_lacked_is_made_use_of_at_once),
        cmocka_unit_test(test_news__room_that_comes_again_and_again_is_looked_at_from_time_to_time),
        cmocka_unit_test(test_news__who_answers_again_is_offered_what_he_did_not_answer_for),
        cmocka_unit_test(test_held__all_go_on_as_soon_as_copies_are_wanted_again),
        cmocka_unit_test(test_held__what_is_awaited_and_what_is_not_have_every_other_turn),
        cmocka_unit_test(test_held__it_is_removed_and_answered_all_the_same),
        cmocka_unit_test(test_held__who_takes_no_more_holds_up_nobody_elses_copies),
        cmocka_unit_test(test_held__another_one_is_asked_when_he_does_not_answer),
        cmocka_unit_test(test_held__nobody_looks_at_those_who_wait),
        cmocka_unit_test(test_held__each_who_takes_more_has_his_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
