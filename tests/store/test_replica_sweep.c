/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what concerns all blocks of an executor takes no step that everybody waits for, and misses
 * none, whatever comes meanwhile. Method: steps that look at one bucket each, and a look at how
 * many blocks they have come by.
 */
#include "store/replica_kit.h"
#include "store/replica_private.h"

enum { BLOCKS = 200, MOST = 1024 };

/** One bucket a step, sixteen a tick. */
static void open_slowly(kit *k) {
    open_kit_with(k, (cbi_replica_options){.blocks_max = MOST, .sweep_max = 1});
    settle(k);
}

static void put_many(kit *k, const char *prefix, unsigned from, unsigned count, uint32_t copies) {
    for (unsigned i = from; i < from + count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s%u", prefix, i);
        assert_ok(put(k, name, 5, copies));
    }
}

/** How many are in such a queue. */
static unsigned queued(const kit *k, cbi_replica_queue queue) {
    unsigned count = 0;
    if (queue == CBI_QUEUE_WAITING) {
        return (unsigned)k->r->wait_count;
    }
    for (const cbi_tracked *b = k->r->queues[queue].first; b != NULL; b = b->next) {
        count++;
    }
    return count;
}

static unsigned held(const kit *k, const char *prefix, unsigned count) {
    unsigned holds = 0;
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s%u", prefix, i);
        holds += cbi_replica_holds(k->r, name, 5, NULL);
    }
    return holds;
}

/** How many DROPs have come with this step; each has to be of a block that has that prefix. */
static unsigned dropped(const kit *k, const char *prefix) {
    unsigned count = 0;
    const cbi_replica_action *a = NULL;
    while ((a = wanted(k, CBI_REPLICA_DROP, count)) != NULL) {
        assert_memory_equal(a->name, prefix, strlen(prefix));
        count++;
    }
    return count;
}

static void test_sweep__a_data_set_goes_step_by_step_and_is_not_here_at_once(void **state) {
    (void)state;
    kit k;
    open_slowly(&k);
    put_many(&k, "rdd_3_", 0, BLOCKS, 1);
    put_many(&k, "rdd_31_", 0, BLOCKS, 1);
    bury(&k, CBI_GRAVE_DATA_SET, "", 3, 8);
    unsigned drops = dropped(&k, "rdd_3_");
    assert_true(drops + queued(&k, CBI_QUEUE_READY) < 20); /* of one bucket */
    assert_int_equal(held(&k, "rdd_3_", BLOCKS), 0);
    assert_int_equal(held(&k, "rdd_31_", BLOCKS), BLOCKS);
    for (int i = 0; i < 100; i++) {
        k.now_ns += SECOND / 10;
        assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_TICK}));
        drops += dropped(&k, "rdd_3_");
    }
    assert_int_equal(drops, BLOCKS);
    assert_true(cbi_sweep_is_over(k.r));
    cbi_replica_destroy(k.r);
}

static void test_sweep__what_is_put_meanwhile_makes_it_miss_none(void **state) {
    (void)state;
    for (unsigned before = 60; before < 68; before++) { /* splits begin at 64 */
        kit k;
        open_slowly(&k);
        put_many(&k, "rdd_3_", 0, before, 1);
        bury(&k, CBI_GRAVE_DATA_SET, "", 3, 8);
        unsigned drops = dropped(&k, "rdd_3_");
        for (unsigned i = 0; i < 300; i++) { /* a bucket a step, and one bucket more */
            put_many(&k, "other", i, 1, 1);
            drops += dropped(&k, "rdd_3_");
            if (i % 7 == 0) {
                bury(&k, CBI_GRAVE_DATA_SET, "", 100 + i, 8);
                drops += dropped(&k, "rdd_3_");
            }
        }
        for (int i = 0; i < 200; i++) {
            pass(&k, SECOND / 10);
            drops += dropped(&k, "rdd_3_");
        }
        assert_int_equal(drops, before);
        assert_int_equal(held(&k, "other", 300), 300);
        cbi_replica_destroy(k.r);
    }
}

static void test_sweep__the_table_grows_by_a_bucket_at_a_time(void **state) {
    (void)state;
    kit k;
    open_slowly(&k);
    for (unsigned i = 0; i < MOST; i++) {
        size_t before = k.r->buckets.count;
        put_many(&k, "x", i, 1, 1);
        assert_in_range(k.r->buckets.count, before, before + 1);
    }
    assert_in_range(k.r->buckets.count, MOST, MOST + 1);
    assert_int_equal(held(&k, "x", MOST), MOST);
    cbi_replica_destroy(k.r);
}

static void test_sweep__whoever_leaves_asks_for_his_blocks_step_by_step(void **state) {
    (void)state;
    kit k;
    open_slowly(&k);
    put_many(&k, "x", 0, BLOCKS, 1);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION}));
    assert_true(queued(&k, CBI_QUEUE_CHECKS) + queued(&k, CBI_QUEUE_WAITING) < 20);
    for (int i = 0; i < 100; i++) {
        want_none(&k, CBI_REPLICA_MOVED_OUT);
        pass(&k, SECOND / 10);
    }
    assert_true(cbi_sweep_is_over(k.r));
    assert_int_equal(queued(&k, CBI_QUEUE_CHECKS) + queued(&k, CBI_QUEUE_LOCATING) +
                         queued(&k, CBI_QUEUE_WAITING),
                     BLOCKS);
    cbi_replica_destroy(k.r);
}

/** What steps wanted and has not been answered. */
typedef struct todo {
    cbi_replica_action_kind kind;
    char name[32], peer[32];
    uint64_t peer_generation, sequence;
} todo;

typedef struct todos {
    todo list[1000];
    size_t count;
    bool left; /* it has moved out */
} todos;

static void collect(const kit *k, todos *t) {
    for (size_t i = 0; i < k->count; i++) {
        const cbi_replica_action *a = &k->actions[i];
        t->left = t->left || a->kind == CBI_REPLICA_MOVED_OUT;
        if (a->kind == CBI_REPLICA_LOCATE || a->kind == CBI_REPLICA_SEND ||
            a->kind == CBI_REPLICA_TELL) {
            assert_true(t->count < sizeof t->list / sizeof *t->list);
            todo *x = &t->list[t->count++];
            *x = (todo){
                .kind = a->kind, .peer_generation = a->peer_generation, .sequence = a->sequence};
            (void)snprintf(x->name, sizeof x->name, "%s", a->name);
            (void)snprintf(x->peer, sizeof x->peer, "%s", a->peer != NULL ? a->peer : "");
        }
    }
}

/** The directory says that each block is at `holder` too, who says so himself; but nothing is said
 *  of the block `but` (NULL: of each). */
static void answer_all(kit *k, todos *t, const char *holder, const char *but) {
    const cb_location l[] = {at("me", 10, 5), at(holder, holder[0] == 'a' ? 1 : 2, 5)};
    for (size_t i = 0; i < t->count;) {
        const todo x = t->list[i];
        if (but != NULL && strcmp(x.name, but) == 0) {
            i++;
            continue;
        }
        memmove(&t->list[i], &t->list[i + 1], (--t->count - i) * sizeof x);
        const cbi_replica_event located = {
            .kind = CBI_REPLICA_LOCATED, .name = x.name, .locations = l, .count = 2};
        const cbi_replica_event sent_there = {.kind = CBI_REPLICA_SENT,
                                              .name = x.name,
                                              .peer = x.peer,
                                              .peer_generation = x.peer_generation,
                                              .generation = 5,
                                              .checksum = 7,
                                              .sequence = x.sequence,
                                              .answer = CBI_REPLICA_OK};
        const cbi_replica_event told = {.kind = CBI_REPLICA_TOLD,
                                        .peer = x.peer,
                                        .peer_generation = x.peer_generation,
                                        .sequence = x.sequence};
        assert_ok(step(k, x.kind == CBI_REPLICA_LOCATE ? located
                          : x.kind == CBI_REPLICA_TELL ? told
                                                       : sent_there));
        collect(k, t);
    }
}

/* The block by which he was known to be counted upon goes: another one is looked for, step by step,
 * and he is asked again by that. */
static void test_sweep__who_is_counted_upon_is_asked_by_another_block(void **state) {
    (void)state;
    kit k;
    static todos t;
    open_slowly(&k);
    put_many(&k, "x", 0, 20, 1);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION}));
    collect(&k, &t);
    for (int i = 0; i < 100 && k.r->moved < 19; i++) {
        answer_all(&k, &t, "a", "x19");
        pass(&k, SECOND / 20);
        collect(&k, &t);
    }
    assert_int_equal(k.r->moved, 19);
    const cbi_peer *a = cbi_replica_peer(k.r, "a");
    assert_non_null(a->witness);
    char gone[32];
    (void)snprintf(gone, sizeof gone, "%s", a->witness->name);
    assert_ok(
        step(&k, (cbi_replica_event){.kind = CBI_REPLICA_GONE, .name = gone, .generation = 5}));
    assert_null(a->witness);
    pass(&k, SECOND);
    collect(&k, &t);
    answer_all(&k, &t, "b", NULL); /* x19 is at b: nothing brings a new word of a's by itself */
    assert_false(t.left);
    bool asked = false;
    for (int i = 0; i < 100 && !t.left; i++) {
        for (size_t j = 0; j < t.count; j++) {
            asked = asked || strcmp(t.list[j].peer, "a") == 0;
        }
        answer_all(&k, &t, "a", NULL);
        pass(&k, SECOND / 100);
        collect(&k, &t);
    }
    assert_true(t.left && asked);
    cbi_replica_destroy(k.r);
}

static void test_sweep__whoever_leaves_does_so_whatever_else_is_removed_meanwhile(void **state) {
    (void)state;
    kit k;
    static todos t;
    t = (todos){.count = 0};
    open_slowly(&k);
    put_many(&k, "x", 0, 20, 1);
    assert_ok(step(&k, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION}));
    collect(&k, &t);
    for (unsigned i = 0; i < 200 && !t.left; i++) {
        bury(&k, CBI_GRAVE_DATA_SET, "", 100 + i, 8); /* each begins a walk through all buckets */
        collect(&k, &t);
        answer_all(&k, &t, "a", NULL);
        pass(&k, SECOND / 100);
        collect(&k, &t);
        answer_all(&k, &t, "a", NULL);
    }
    assert_true(t.left);
    cbi_replica_destroy(k.r);
}

static void test_sweep__what_is_too_young_is_not_audited(void **state) {
    (void)state;
    kit k;
    cbi_replica_figures f;
    open_kit_with(&k, (cbi_replica_options){.audit_ns = SECOND / 10});
    settle(&k);
    assert_ok(put(&k, "x", 5, 2));
    char to[32];
    uint64_t generation = asks(&k, to);
    sent(&k, to, generation, 5, 7, CBI_REPLICA_OK);
    pass(&k, SECOND);
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.watched, 0); /* it lacks nothing, and nothing is waited for */
    pass(&k, 2 * SECOND);
    assert_string_equal(want(&k, CBI_REPLICA_LOCATE)->name, "x");
    cbi_replica_destroy(k.r);
}

/* As after a stop of the whole system. */
static void test_sweep__what_was_not_audited_for_long_is_audited_step_by_step(void **state) {
    (void)state;
    kit k;
    open_slowly(&k);
    for (unsigned i = 0; i < BLOCKS; i++) {
        char name[32], to[32];
        (void)snprintf(name, sizeof name, "x%u", i);
        assert_ok(put(&k, name, 5, 2));
        const cbi_replica_event stored_there = {.kind = CBI_REPLICA_SENT,
                                                .name = name,
                                                .peer_generation = asks(&k, to),
                                                .peer = to,
                                                .generation = 5,
                                                .checksum = 7,
                                                .sequence = k.r->asked,
                                                .answer = CBI_REPLICA_OK};
        assert_ok(step(&k, stored_there));
    }
    cbi_replica_figures f;
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.watched, 0);
    pass(&k, 3600 * SECOND);
    cbi_replica_figures_get(k.r, &f);
    assert_in_range(f.watched, 1, BLOCKS / 2);
    for (int i = 0; i < 20; i++) {
        pass(&k, SECOND / 100);
    }
    cbi_replica_figures_get(k.r, &f);
    assert_int_equal(f.watched, BLOCKS);
    cbi_replica_destroy(k.r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sweep__a_data_set_goes_step_by_step_and_is_not_here_at_once),
        cmocka_unit_test(test_sweep__what_is_put_meanwhile_makes_it_miss_none),
        cmocka_unit_test(test_sweep__the_table_grows_by_a_bucket_at_a_time),
        cmocka_unit_test(test_sweep__whoever_leaves_asks_for_his_blocks_step_by_step),
        cmocka_unit_test(test_sweep__who_is_counted_upon_is_asked_by_another_block),
        cmocka_unit_test(test_sweep__whoever_leaves_does_so_whatever_else_is_removed_meanwhile),
        cmocka_unit_test(test_sweep__what_is_too_young_is_not_audited),
        cmocka_unit_test(test_sweep__what_was_not_audited_for_long_is_audited_step_by_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
