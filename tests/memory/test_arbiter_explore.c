/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: no order of operations breaks the arbiter. Method: every order of a few tasks' and a
 * store's operations is walked through, states that were seen are not walked again, nor are those
 * in which tasks have changed places. An eviction takes two steps, so that anything can happen in
 * between.
 *
 * Checked in each state: the books (sum of what is held <= budget, pools add up), no lost wake-up
 * (nobody waits who could go on), the floor (nobody is sent to spill below 1/2N while others could
 * release), the share, and progress: when all who run end, nobody is left waiting; and under the
 * native rules not all wait for each other.
 *
 * ctest-timeout: 300
 */
#include "explore.h"

enum { TASKS_MAX = 4, DEPTH_MAX = 64, STORE = TASKS_MAX, ACTORS = TASKS_MAX + 1 };

typedef enum kind {
    ACQUIRE_1,
    ACQUIRE_3,
    ACQUIRE_OFF_3,
    RELEASE_1,
    RELEASE_ALL,
    SIBLING_RELEASES, /* another thread of a waiting task */
    RECLAIM,          /* begin; the next release stays in the hand */
    TAKE,             /* what is in the hand, and end */
    CANCEL,
    STORE_2,
    UNSTORE_1,
    SETTLE_ALL, /* the eviction under way drops what was wished */
    SETTLE_NONE,
    KINDS
} kind;

typedef enum phase { RUNS, WAITS, EVICTS } phase;

typedef struct actor {
    cbi_party party;
    cbi_request request;
    phase phase;
    bool reclaims;
    uint32_t left; /* operations it may still begin */
} actor;

typedef struct world {
    cbi_arbiter arbiter;
    actor actors[ACTORS];
} world;

typedef struct step {
    uint8_t actor, kind;
} step;

/** What is explored. */
typedef struct plan {
    cb_rules rules;
    uint32_t tasks, operations;
    uint64_t heap, region, off_heap;
    uint32_t kinds; /* bit set */
} plan;

static const plan *the_plan;
static uint64_t steps_taken, blocked_seen, standstills;
static seen_states seen;

static uint64_t hash_of_actor(const world *w, const actor *a) {
    uint64_t h = 7;
    mix(&h, a->party.bytes[0] << 48 | a->party.bytes[1] << 40 | a->party.hand[0] << 32 |
                a->party.hand[1] << 24 | (uint64_t)a->party.counted[0] << 17 |
                (uint64_t)a->party.counted[1] << 16 | (uint64_t)a->phase << 8 |
                (uint64_t)a->reclaims << 4 | a->left);
    if (a->phase != RUNS) {
        const cbi_request *r = &a->request;
        mix(&h, r->bytes << 32 | r->held << 24 | r->marked << 16 | (uint64_t)r->mode << 8 |
                    r->evict_bytes);
        mix(&h, (uint64_t)r->passed << 8 | rank_among(&w->arbiter, r));
    }
    return h;
}

static uint64_t hash_of(const world *w) {
    uint64_t h = 42;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        for (int region = 0; region < 2; region++) {
            const cbi_pool *p = &w->arbiter.pools[region][mode];
            mix(&h, p->size << 32 | p->used << 16 | p->held << 8 | p->leaving);
        }
        mix(&h, w->arbiter.tasks[mode]);
    }
    uint64_t tasks[TASKS_MAX];
    for (int i = 0; i < TASKS_MAX; i++) {
        tasks[i] = hash_of_actor(w, &w->actors[i]);
    }
    mix_unordered(&h, tasks, TASKS_MAX);
    mix(&h, hash_of_actor(w, &w->actors[STORE]));
    return h;
}

/* ---- invariants ---- */

static uint64_t share_of(const cbi_arbiter *a, cb_mode mode, uint64_t n) {
    uint64_t stored = a->pools[CB_STORAGE][mode].used;
    return (a->total[mode] - (stored < a->region[mode] ? stored : a->region[mode])) / n;
}

static bool all_tasks_wait(const world *w) {
    for (uint32_t i = 0; i < the_plan->tasks; i++) {
        if (w->actors[i].phase != WAITS) {
            return false;
        }
    }
    return w->actors[STORE].phase == RUNS;
}

/** After a grant of less than was asked: only above the floor, or because nobody could have
 *  released. */
static void check_grant(const world *w, const actor *a, bool waited) {
    const cbi_request *r = &a->request;
    const cbi_arbiter *b = &w->arbiter;
    uint64_t mine = a->party.bytes[r->mode],
             n = b->tasks[r->mode] + (a->party.counted[r->mode] ? 0 : 1);
    if (r->granted > 0) {
        assert_true(mine <= share_of(b, r->mode, n));
    }
    if (r->granted < r->bytes && mine < b->pools[CB_EXECUTION][r->mode].size / (2 * n)) {
        assert_true(waited && b->rules->end_standstill);
        standstills++;
    }
}

/** Nobody waits who could go on. Spark's rules promise less: a release of storage wakes nobody. */
static void check_waiters(const world *w) {
    const cbi_arbiter *a = &w->arbiter;
    if (!a->rules->wake_on_any_release || a->evicting > 0) {
        return;
    }
    for (const cbi_request *r = a->first; r != NULL; r = r->next) {
        const cbi_pool *exec = &a->pools[CB_EXECUTION][r->mode];
        uint64_t n = a->tasks[r->mode], mine = r->party->bytes[r->mode],
                 share = share_of(a, r->mode, n);
        uint64_t room = share > mine ? share - mine : 0, spare = cbi_pool_free(exec) + r->held;
        uint64_t could = r->bytes < room ? r->bytes : room;
        could = could < spare ? could : spare;
        assert_true(could < r->bytes && mine + could < exec->size / (2 * n));
    }
    assert_false(all_tasks_wait(w));
}

/* ---- steps ---- */

static void pass_on(world *w) {
    cbi_request *r;
    while ((r = cbi_arbiter_next(&w->arbiter)) != NULL) {
        actor *a = (actor *)(void *)((char *)r - offsetof(actor, request));
        assert_int_equal(a->phase, WAITS);
        a->phase = r->verdict == CBI_EVICT ? EVICTS : RUNS;
        if (r->verdict == CBI_GRANTED) {
            check_grant(w, a, true);
        }
    }
}

static void note_verdict(world *w, actor *a) {
    switch (a->request.verdict) {
        case CBI_BLOCKED:
            a->phase = WAITS;
            blocked_seen++;
            break;
        case CBI_EVICT: a->phase = EVICTS; break;
        case CBI_GRANTED:
        case CBI_REFUSED:
        case CBI_LOST:
        case CBI_BROKEN:
            a->phase = RUNS;
            if (a->request.party != NULL && a->request.verdict == CBI_GRANTED) {
                check_grant(w, a, false);
            }
            break;
    }
}

static void acquire(world *w, actor *a, cb_mode mode, uint64_t bytes) {
    a->request =
        (cbi_request){.party = &a->party, .mode = mode, .bytes = bytes, .may_wait = !a->reclaims};
    (void)cbi_arbiter_acquire(&w->arbiter, &a->request);
    if (a->request.may_wait) {
        note_verdict(w, a);
    } else {
        a->phase = a->request.verdict == CBI_EVICT ? EVICTS : RUNS;
    }
}

static void settle(world *w, actor *a, bool all) {
    uint64_t wished = a->request.evict_bytes;
    /* The store has blocks of one byte, and those marked by others are not to be had. */
    const cbi_pool *stor = &w->arbiter.pools[CB_STORAGE][a->request.mode];
    uint64_t unmarked = stor->used - (stor->leaving - a->request.marked);
    uint64_t chosen = wished <= unmarked ? wished : 0;
    cbi_arbiter_marked(&w->arbiter, &a->request, chosen);
    (void)cbi_arbiter_settle(&w->arbiter, &a->request, all ? chosen : 0);
    if (a->request.party == NULL || a->request.may_wait || a->request.verdict != CBI_GRANTED) {
        note_verdict(w, a);
    } else {
        a->phase = RUNS;
    }
}

static void take_hand(world *w, actor *a) {
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        (void)cbi_arbiter_take_hand(&w->arbiter, &a->party, (cb_mode)mode, 1);
    }
    cbi_arbiter_reclaim_end(&w->arbiter, &a->party, CB_HEAP);
    a->reclaims = false;
}

static void run(world *w, step s) {
    actor *a = &w->actors[s.actor];
    switch ((kind)s.kind) {
        case ACQUIRE_1: acquire(w, a, CB_HEAP, 1); break;
        case ACQUIRE_3: acquire(w, a, CB_HEAP, 3); break;
        case ACQUIRE_OFF_3: acquire(w, a, CB_OFF_HEAP, 3); break;
        case RELEASE_1:
        case SIBLING_RELEASES: (void)cbi_arbiter_release(&w->arbiter, &a->party, CB_HEAP, 1); break;
        case RELEASE_ALL: (void)cbi_arbiter_release_all(&w->arbiter, &a->party); break;
        case RECLAIM:
            cbi_arbiter_reclaim_begin(&w->arbiter, &a->party, CB_HEAP);
            a->reclaims = true;
            break;
        case TAKE: take_hand(w, a); break;
        case CANCEL:
            cbi_arbiter_withdraw(&w->arbiter, &a->request);
            a->phase = RUNS;
            break;
        case STORE_2:
            a->request = (cbi_request){.mode = CB_HEAP, .bytes = 2};
            (void)cbi_arbiter_acquire_storage(&w->arbiter, &a->request);
            note_verdict(w, a);
            break;
        case UNSTORE_1: (void)cbi_arbiter_release_storage(&w->arbiter, CB_HEAP, 1); break;
        case SETTLE_ALL:
        case SETTLE_NONE: settle(w, a, s.kind == SETTLE_ALL); break;
        case KINDS: break;
    }
    pass_on(w);
}

static bool is_free_of_charge(kind k) {
    return k == TAKE || k == SETTLE_ALL || k == SETTLE_NONE;
}

static bool is_enabled(const world *w, step s) {
    const actor *a = &w->actors[s.actor];
    kind k = (kind)s.kind;
    bool store = s.actor == STORE;
    if ((the_plan->kinds & (1u << k)) == 0 || (a->left == 0 && !is_free_of_charge(k))) {
        return false;
    }
    switch (k) {
        case ACQUIRE_1:
        case ACQUIRE_3:
        case ACQUIRE_OFF_3: return !store && a->phase == RUNS;
        case RELEASE_1:
            return !store && a->phase == RUNS &&
                   a->party.bytes[CB_HEAP] - a->party.hand[CB_HEAP] > 0;
        case RELEASE_ALL: return !store && a->phase == RUNS && !a->reclaims;
        case SIBLING_RELEASES:
            return !store && a->phase == WAITS &&
                   a->party.bytes[CB_HEAP] - a->party.hand[CB_HEAP] > 0;
        case RECLAIM:
            return !store && a->phase == RUNS && !a->reclaims && a->party.bytes[CB_HEAP] > 0;
        case TAKE: return !store && a->phase == RUNS && a->reclaims;
        case CANCEL: return !store && a->phase == WAITS;
        case STORE_2: return store && a->phase == RUNS;
        case UNSTORE_1:
            return store && a->phase == RUNS &&
                   w->arbiter.pools[CB_STORAGE][CB_HEAP].used >
                       w->arbiter.pools[CB_STORAGE][CB_HEAP].leaving;
        case SETTLE_ALL:
        case SETTLE_NONE: return a->phase == EVICTS;
        case KINDS: break;
    }
    return false;
}

/* ---- walking ---- */

static void begin(world *w) {
    memset(w, 0, sizeof *w);
    const uint64_t total[CB_MODE_COUNT] = {the_plan->heap, the_plan->off_heap};
    const uint64_t region[CB_MODE_COUNT] = {the_plan->region, 0};
    cbi_arbiter_init(&w->arbiter, the_plan->rules, CB_POLICY_UNIFIED, total, region);
    for (uint32_t i = 0; i < ACTORS; i++) {
        w->actors[i].left = the_plan->operations;
        if (i < the_plan->tasks) {
            cbi_arbiter_join(&w->arbiter, &w->actors[i].party);
        } else if (i != STORE) {
            w->actors[i].left = 0;
        }
    }
}

static void take_step(world *w, step s) {
    if (!is_free_of_charge((kind)s.kind)) {
        w->actors[s.actor].left--;
    }
    run(w, s);
    steps_taken++;
}

/** Evictions that bring nothing come to an end. */
static void check_calm(world *w) {
    for (int round = 0;; round++) {
        assert_true(round < 16);
        bool evicts = false;
        for (uint32_t i = 0; i < ACTORS; i++) {
            if (w->actors[i].phase == EVICTS) {
                evicts = true;
                run(w, (step){(uint8_t)i, SETTLE_NONE});
            }
        }
        if (!evicts) {
            return;
        }
    }
}

/** From here everybody who runs ends. Then nobody may be left waiting, and nothing may be held. */
static void check_progress(world *w) {
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t i = 0; i < ACTORS; i++) {
            actor *a = &w->actors[i];
            if (a->phase == EVICTS) {
                run(w, (step){(uint8_t)i, SETTLE_ALL});
                moved = true;
            }
            if (a->phase == RUNS && a->reclaims) {
                run(w, (step){(uint8_t)i, TAKE});
            }
            if (i < the_plan->tasks && a->phase == RUNS &&
                a->party.bytes[CB_HEAP] + a->party.bytes[CB_OFF_HEAP] > 0) {
                run(w, (step){(uint8_t)i, RELEASE_ALL});
                moved = true;
            }
        }
    }
    for (uint32_t i = 0; i < ACTORS; i++) {
        if (w->arbiter.rules->end_standstill) {
            assert_int_equal(w->actors[i].phase, RUNS);
        }
    }
}

/* The state that is looked at, always at the same place: its lists lead into itself. And those on
 * the way to it. */
static world here, saved[DEPTH_MAX];

static void walk(size_t depth) {
    cbi_arbiter_check(&here.arbiter);
    check_waiters(&here);
    if (seen_before(&seen, hash_of(&here))) {
        return;
    }
    assert_true(depth < DEPTH_MAX);
    bool enabled[ACTORS][KINDS];
    for (uint32_t i = 0; i < ACTORS; i++) {
        for (uint32_t k = 0; k < KINDS; k++) {
            enabled[i][k] = is_enabled(&here, (step){(uint8_t)i, (uint8_t)k});
        }
    }
    saved[depth] = here;
    check_calm(&here);
    check_progress(&here);
    for (uint32_t i = 0; i < ACTORS; i++) {
        for (uint32_t k = 0; k < KINDS; k++) {
            if (enabled[i][k]) {
                here = saved[depth];
                take_step(&here, (step){(uint8_t)i, (uint8_t)k});
                walk(depth + 1);
            }
        }
    }
}

static void explore(const plan *p) {
    the_plan = p;
    steps_taken = blocked_seen = standstills = 0;
    begin(&here);
    walk(0);
    print_message("%llu states, %llu steps, blocked %llu times, %llu standstills ended\n",
                  (unsigned long long)seen.count, (unsigned long long)steps_taken,
                  (unsigned long long)blocked_seen, (unsigned long long)standstills);
    seen_forget(&seen);
    assert_true(blocked_seen > 0);
}

static const uint32_t execution_kinds = 1u << ACQUIRE_1 | 1u << ACQUIRE_3 | 1u << RELEASE_1 |
                                        1u << RELEASE_ALL | 1u << SIBLING_RELEASES | 1u << CANCEL |
                                        1u << SETTLE_ALL | 1u << SETTLE_NONE;

/** Operations of each actor: all of them, or what is walked through in seconds. */
static uint32_t operations(uint32_t all, uint32_t few) {
    return explores_all() ? all : few;
}

static void test_every_order_of_four_tasks_keeps_the_invariants(void **state) {
    (void)state;
    for (uint64_t heap = explores_all() ? 4 : 7; heap <= 8; heap++) {
        explore(&(plan){.rules = CB_RULES_NATIVE,
                        .tasks = 4,
                        .operations = operations(5, 4),
                        .heap = heap,
                        .kinds = execution_kinds});
    }
}

static void test_every_order_of_tasks_and_a_store_keeps_the_invariants(void **state) {
    (void)state;
    explore(&(plan){.rules = CB_RULES_NATIVE,
                    .tasks = explores_all() ? 4 : 3,
                    .operations = operations(4, 3),
                    .heap = 8,
                    .region = 3,
                    .kinds = execution_kinds | 1u << STORE_2 | 1u << UNSTORE_1});
}

static void test_every_order_with_spilling_keeps_the_invariants(void **state) {
    (void)state;
    explore(&(plan){.rules = CB_RULES_NATIVE,
                    .tasks = 4,
                    .operations = operations(4, 3),
                    .heap = 7,
                    .kinds = execution_kinds | 1u << RECLAIM | 1u << TAKE});
}

static void test_tasks_that_wait_across_modes_do_not_stand_still(void **state) {
    (void)state;
    explore(&(plan){.rules = CB_RULES_NATIVE,
                    .tasks = explores_all() ? 4 : 3,
                    .operations = operations(5, 4),
                    .heap = 6,
                    .off_heap = 6,
                    .kinds = execution_kinds | 1u << ACQUIRE_OFF_3});
}

static void test_every_order_under_sparks_rules_keeps_the_books(void **state) {
    (void)state;
    explore(&(plan){.rules = CB_RULES_SPARK,
                    .tasks = explores_all() ? 4 : 3,
                    .operations = operations(4, 3),
                    .heap = 8,
                    .region = 3,
                    .kinds = execution_kinds | 1u << STORE_2 | 1u << UNSTORE_1});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_order_of_four_tasks_keeps_the_invariants),
        cmocka_unit_test(test_every_order_of_tasks_and_a_store_keeps_the_invariants),
        cmocka_unit_test(test_every_order_with_spilling_keeps_the_invariants),
        cmocka_unit_test(test_tasks_that_wait_across_modes_do_not_stand_still),
        cmocka_unit_test(test_every_order_under_sparks_rules_keeps_the_books),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
