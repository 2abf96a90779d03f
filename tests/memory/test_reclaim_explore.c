/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: no order of what the threads of a few tasks do breaks the memory of these tasks: no byte is
 * lost, nobody hangs, no wake-up goes missing, and nobody below 1/2N is sent away while others
 * could release. Method: every order is walked through. A step is what happens between two moments
 * in which a thread does not hold the manager's lock: it begins to acquire or release, wakes with
 * an answer, gets its task's turn, its victim's spill function releases something, all it has or
 * nothing, or comes back. The arbiter and the reclaiming are the real ones; what is played here is
 * only the carrying out of their steps (task.c).
 *
 * Four tasks of three consumers, each of which, asked to spill, lets go of all it has, of one byte
 * or of nothing. A task has one thread, as Spark's have, or one for each consumer. Tasks that
 * change places make no new state, and neither do consumers of a task with one thread. With
 * CARBIDE_TEST_LONG all of it is walked through, otherwise what takes a few seconds.
 *
 * ctest-timeout: 300
 */
#include "explore.h"

#include "memory/reclaim.h"

enum { TASKS_MAX = 4, CONSUMERS = 3, DEPTH_MAX = 1000, CALM_STEPS_MAX = 5000 };

typedef enum phase {
    RUNS,
    WAITS_FOR_TURN,
    HAS_TURN,   /* it was given the turn, and has still to wake */
    WAITS,      /* for the arbiter */
    ANSWERED,   /* the same */
    SPILLS,     /* its victim's spill function has begun */
    HAS_SPILLED /* and has released what it will */
} phase;

typedef enum choice {
    ACQUIRE_1,
    ACQUIRE_3,
    ACQUIRE_6,
    RELEASE_1,
    RELEASE_ALL,
    GO_ON,
    SPILL_NOTHING,
    SPILL_1,
    SPILL_ALL,
    SPILL_FAILS,
    CANCEL,
    CHOICES
} choice;

typedef struct worker {
    phase phase;
    cbi_request request;
    cbi_reclaim reclaim; /* .asker: for whom it works */
    bool reclaims;       /* the first attempt is over */
    uint32_t place;      /* in the queue for the turn */
} worker;

typedef struct unit { /* a task */
    cbi_party party;
    cb_consumer consumers[CONSUMERS];
    cb_consumer *list;
    worker workers[CONSUMERS];
    bool turn_taken;
    uint32_t queue; /* last place given */
    uint32_t left;  /* operations that may still begin */
} unit;

typedef struct world {
    cbi_arbiter arbiter;
    unit units[TASKS_MAX];
} world;

typedef struct plan {
    cb_rules rules;
    uint32_t tasks, workers;
    uint32_t operations; /* that each task may begin; 0: any number */
    uint64_t budget;
    uint32_t choices; /* bit set */
} plan;

static const plan *the_plan;
static seen_states seen;
static size_t deepest;
static bool asked; /* the step has asked the arbiter */
static uint64_t steps_taken, waits_seen, spills_seen, turns_seen;

/* The state that is looked at, always at the same place: its lists lead into itself. And those on
 * the way to it. */
static world here;
static world *saved;

/* ---- states ---- */

static uint64_t hash_of_worker(const unit *u, const worker *w) {
    uint64_t h = 3;
    mix(&h, (uint64_t)w->phase);
    if (w->phase == RUNS) {
        return h;
    }
    const cbi_reclaim *r = &w->reclaim;
    /* How much was asked for is left out, and the arbiter's hint that goes into it: spill functions
     * here do the same whatever they are asked for. */
    mix(&h, r->bytes << 48 | r->got << 40 | (uint64_t)r->phase << 24 | (uint64_t)w->reclaims << 17 |
                (uint64_t)r->reclaims << 16 | (uint64_t)r->has_turn << 8 |
                (uint64_t)(r->released > 0));
    if (w->phase == WAITS_FOR_TURN) {
        uint64_t before = 0;
        for (uint32_t i = 0; i < CONSUMERS; i++) {
            before += u->workers[i].phase == WAITS_FOR_TURN && u->workers[i].place < w->place;
        }
        mix(&h, before);
    }
    if (w->phase == WAITS || w->phase == ANSWERED) {
        mix(&h, w->request.bytes << 40 | w->request.held << 32 | (uint64_t)w->request.passed << 16 |
                    w->request.granted << 8 | (uint64_t)w->request.verdict);
        mix(&h, w->phase == WAITS ? rank_among(&here.arbiter, &w->request) : 0);
    }
    return h;
}

/** What a consumer has, and what it is to the threads that work. */
static uint64_t hash_of_consumer(const unit *u, uint32_t i) {
    const cb_consumer *c = &u->consumers[i];
    uint64_t h = 9, roles = 0;
    for (uint32_t k = 0; k < the_plan->workers; k++) {
        const worker *w = &u->workers[k];
        bool spills = w->phase == SPILLS || w->phase == HAS_SPILLED;
        roles = roles << 2 | (uint64_t)(w->phase != RUNS && w->reclaim.asker == c) << 1 |
                (uint64_t)(spills && w->reclaim.victim == c);
    }
    mix(&h, cbi_consumer_used(c) << 32 | (u->turn_taken ? c->key << 16 : 0) | roles << 1 |
                (uint64_t)c->spilling);
    return h;
}

static uint64_t hash_of_unit(const unit *u) {
    uint64_t h = 5, consumers[CONSUMERS];
    mix(&h, u->party.bytes[CB_HEAP] << 32 | u->party.hand[CB_HEAP] << 24 |
                (uint64_t)u->party.counted[CB_HEAP] << 16 | (uint64_t)u->turn_taken << 8 | u->left);
    for (uint32_t i = 0; i < the_plan->workers; i++) {
        mix(&h, hash_of_worker(u, &u->workers[i]));
    }
    for (uint32_t i = 0; i < CONSUMERS; i++) {
        consumers[i] = hash_of_consumer(u, i);
        if (the_plan->workers > 1) {
            mix(&h, consumers[i]);
        }
    }
    if (the_plan->workers == 1) {
        mix_unordered(&h, consumers, CONSUMERS);
    }
    return h;
}

static uint64_t hash_of_state(void) {
    uint64_t h = 42, units[TASKS_MAX];
    const cbi_pool *p = &here.arbiter.pools[CB_EXECUTION][CB_HEAP];
    mix(&h, p->used << 16 | p->held << 8 | here.arbiter.tasks[CB_HEAP]);
    for (uint32_t i = 0; i < TASKS_MAX; i++) {
        units[i] = hash_of_unit(&here.units[i]);
    }
    mix_unordered(&h, units, TASKS_MAX);
    return h;
}

/* ---- invariants ---- */

/** Every byte that the arbiter gave a task is a consumer's, a request's under way or in the hand.
 */
static void check_books(void) {
    cbi_arbiter_check(&here.arbiter);
    for (uint32_t t = 0; t < the_plan->tasks; t++) {
        const unit *u = &here.units[t];
        uint64_t bytes = u->party.hand[CB_HEAP];
        uint32_t turns = 0;
        for (uint32_t i = 0; i < CONSUMERS; i++) {
            const worker *w = &u->workers[i];
            bytes += cbi_consumer_used(&u->consumers[i]);
            bytes += w->phase != RUNS ? w->reclaim.got : 0;
            bytes +=
                w->phase == ANSWERED && w->request.verdict == CBI_GRANTED ? w->request.granted : 0;
            turns += w->phase != RUNS && w->phase != WAITS_FOR_TURN && w->reclaim.has_turn;
        }
        assert_int_equal(bytes, u->party.bytes[CB_HEAP]);
        assert_int_equal(turns, u->turn_taken);
    }
}

/** Nobody waits who could go on, and not all wait for each other. */
static void check_waiters(void) {
    const cbi_arbiter *a = &here.arbiter;
    const cbi_pool *exec = &a->pools[CB_EXECUTION][CB_HEAP];
    for (const cbi_request *r = a->first; r != NULL; r = r->next) {
        uint64_t n = a->tasks[CB_HEAP], mine = r->party->bytes[CB_HEAP], share = a->total[0] / n;
        uint64_t room = share > mine ? share - mine : 0, spare = cbi_pool_free(exec) + r->held;
        uint64_t could = r->bytes < room ? r->bytes : room;
        could = could < spare ? could : spare;
        assert_true(could < r->bytes && mine + could < exec->size / (2 * n));
    }
}

/** The answer to who may wait: never above the share, and less than all only from the floor on. */
static void check_answer(const unit *u, const cbi_request *r) {
    uint64_t n = here.arbiter.tasks[CB_HEAP] + (u->party.counted[CB_HEAP] ? 0 : 1);
    uint64_t mine = u->party.bytes[CB_HEAP], size = here.arbiter.pools[0][CB_HEAP].size;
    assert_true(r->granted == 0 || mine <= here.arbiter.total[CB_HEAP] / n);
    assert_true(r->granted == r->bytes || mine >= size / (2 * n));
}

/* ---- what task.c does ---- */

static void pass_on(void) {
    cbi_request *r;
    while ((r = cbi_arbiter_next(&here.arbiter)) != NULL) {
        worker *w = (worker *)(void *)((char *)r - offsetof(worker, request));
        assert_int_equal(w->phase, WAITS);
        w->phase = ANSWERED;
        if (r->verdict == CBI_GRANTED && the_plan->rules == CB_RULES_NATIVE) {
            check_answer((unit *)(void *)((char *)r->party - offsetof(unit, party)), r);
        }
    }
}

static void release(unit *u, cb_consumer *c, uint64_t bytes) {
    uint64_t used = cbi_consumer_used(c);
    assert_true(bytes <= used);
    atomic_store_explicit(&c->used, used - bytes, memory_order_relaxed);
    assert_int_equal(cbi_arbiter_release(&here.arbiter, &u->party, CB_HEAP, bytes), bytes);
    pass_on();
}

static void turn_give(unit *u) {
    worker *next = NULL;
    for (uint32_t i = 0; i < CONSUMERS; i++) {
        worker *w = &u->workers[i];
        if (w->phase == WAITS_FOR_TURN && (next == NULL || w->place < next->place)) {
            next = w;
        }
    }
    u->turn_taken = next != NULL;
    if (next != NULL) {
        next->phase = HAS_TURN;
    }
}

/** The request is over, one way or the other. */
static void finish(unit *u, worker *w, bool failed) {
    cbi_reclaim *r = &w->reclaim;
    w->phase = RUNS;
    if (failed) {
        cbi_reclaim_abandon(r);
        if (r->has_turn) {
            turn_give(u);
        }
        (void)cbi_arbiter_release(&here.arbiter, &u->party, CB_HEAP, r->got);
        pass_on();
    } else {
        assert_true(r->got <= r->bytes);
        /* Who is sent away with less has had an answer that might have been to wait. */
        assert_true(r->got == r->bytes || w->request.may_wait);
        atomic_store_explicit(&r->asker->used, cbi_consumer_used(r->asker) + r->got,
                              memory_order_relaxed);
    }
    w->reclaim = (cbi_reclaim){0};
    w->reclaims = false;
}

/** False: it waits. */
static bool attempt(unit *u, worker *w, uint64_t bytes, bool may_wait) {
    w->request =
        (cbi_request){.party = &u->party, .mode = CB_HEAP, .bytes = bytes, .may_wait = may_wait};
    cbi_verdict verdict = cbi_arbiter_acquire(&here.arbiter, &w->request);
    asked = true;
    pass_on();
    if (verdict == CBI_BLOCKED && w->phase != ANSWERED) {
        waits_seen++;
    }
    if (verdict == CBI_GRANTED && may_wait && the_plan->rules == CB_RULES_NATIVE) {
        check_answer(u, &w->request);
    }
    return verdict == CBI_GRANTED;
}

static void take_answer(worker *w) {
    w->reclaim.got += w->request.granted;
    w->reclaim.hint = w->request.spill_bytes;
}

/** False: the thread stops here for now. */
static bool carry_out(unit *u, worker *w, cbi_reclaim_step step) {
    cbi_reclaim *r = &w->reclaim;
    switch (step) {
        case CBI_RECLAIM_TAKE_TURN:
            if (u->turn_taken) {
                w->phase = WAITS_FOR_TURN;
                w->place = ++u->queue;
                turns_seen++;
                return false;
            }
            u->turn_taken = true;
            return true;
        case CBI_RECLAIM_ATTEMPT:
            w->phase = WAITS;
            if (!attempt(u, w, r->attempt_bytes, r->may_wait)) {
                return false;
            }
            take_answer(w);
            return true;
        case CBI_RECLAIM_SPILL:
            r->victim->spilling = true;
            w->phase = SPILLS;
            spills_seen++;
            return false;
        case CBI_RECLAIM_GIVE_TURN:
            pass_on();
            turn_give(u);
            return true;
        case CBI_RECLAIM_DONE: break;
    }
    return false;
}

/** With the lock, until it is given or the request is over. */
static void go_on(unit *u, worker *w) {
    cbi_reclaim_step step;
    if (!w->reclaims && w->reclaim.got == w->reclaim.bytes) {
        finish(u, w, false);
        return;
    }
    w->reclaims = true;
    w->phase = HAS_TURN; /* whatever it waited for is over */
    while ((step = cbi_reclaim_next(&w->reclaim, false)) != CBI_RECLAIM_DONE) {
        if (!carry_out(u, w, step)) {
            return;
        }
    }
    finish(u, w, false);
}

static void acquire(unit *u, worker *w, cb_consumer *c, uint64_t bytes) {
    w->reclaim = (cbi_reclaim){.arbiter = &here.arbiter,
                               .party = &u->party,
                               .consumers = &u->list,
                               .asker = c,
                               .native = the_plan->rules == CB_RULES_NATIVE,
                               .bytes = bytes};
    w->phase = WAITS;
    if (attempt(u, w, bytes, true)) {
        take_answer(w);
        go_on(u, w);
    }
}

/* ---- steps ---- */

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static void spill_some(unit *u, worker *w, uint64_t bytes) {
    cbi_reclaim *r = &w->reclaim;
    r->released = least(bytes, cbi_consumer_used(r->victim));
    w->phase = HAS_SPILLED;
    release(u, r->victim, r->released);
}

static void take_step(unit *u, worker *w, cb_consumer *c, choice what) {
    switch (what) {
        case ACQUIRE_1: acquire(u, w, c, 1); break;
        case ACQUIRE_3: acquire(u, w, c, 3); break;
        case ACQUIRE_6: acquire(u, w, c, 6); break;
        case RELEASE_1: release(u, c, 1); break;
        case RELEASE_ALL:
            if (c != NULL) { /* it always is; gcc -O3 wants to be told */
                release(u, c, cbi_consumer_used(c));
            }
            break;
        case GO_ON:
            if (w->phase == ANSWERED) {
                if (w->request.verdict == CBI_LOST) {
                    finish(u, w, true);
                    break;
                }
                take_answer(w);
            } else if (w->phase == HAS_SPILLED) {
                w->reclaim.victim->spilling = false;
            }
            go_on(u, w);
            break;
        case SPILL_NOTHING: spill_some(u, w, 0); break;
        case SPILL_1: spill_some(u, w, 1); break;
        case SPILL_ALL: spill_some(u, w, UINT64_MAX); break;
        case SPILL_FAILS:
            w->reclaim.victim->spilling = false;
            finish(u, w, true);
            break;
        case CANCEL:
            cbi_arbiter_withdraw(&here.arbiter, &w->request);
            pass_on();
            finish(u, w, true);
            break;
        case CHOICES: break;
    }
    steps_taken++;
}

static bool is_enabled(const unit *u, const worker *w, const cb_consumer *c, choice what) {
    uint64_t used = cbi_consumer_used(c);
    bool begins = w->phase == RUNS && u->left > 0;
    if (what != GO_ON && (the_plan->choices & 1u << what) == 0) {
        return false;
    }
    switch (what) {
        case ACQUIRE_1:
        case ACQUIRE_3:
        case ACQUIRE_6: return begins;
        case RELEASE_1: return begins && used > 1;
        case RELEASE_ALL: return begins && used > 0;
        case GO_ON: return w->phase == HAS_TURN || w->phase == ANSWERED || w->phase == HAS_SPILLED;
        case SPILL_ALL:
        case SPILL_1:
        case SPILL_NOTHING:
        case SPILL_FAILS: return w->phase == SPILLS;
        case CANCEL: return w->phase == WAITS;
        case CHOICES: break;
    }
    return false;
}

static bool is_operation(choice what) {
    return what <= RELEASE_ALL;
}

/* ---- walking ---- */

static void begin(void) {
    memset(&here, 0, sizeof here);
    const uint64_t total[CB_MODE_COUNT] = {the_plan->budget, 0}, region[CB_MODE_COUNT] = {0, 0};
    cbi_arbiter_init(&here.arbiter, the_plan->rules, CB_POLICY_UNIFIED, total, region);
    for (uint32_t t = 0; t < the_plan->tasks; t++) {
        unit *u = &here.units[t];
        cbi_arbiter_join(&here.arbiter, &u->party);
        u->left = the_plan->operations > 0 ? the_plan->operations : 1;
        u->list = &u->consumers[0];
        for (uint32_t i = 0; i + 1 < CONSUMERS; i++) {
            u->consumers[i].next = &u->consumers[i + 1];
        }
    }
}

/** From here all threads go on as they can, spilling all or nothing, and who has nothing to do lets
 *  go of what it holds. Nobody may be left waiting, and nothing may be left. */
static void check_progress(choice spilling) {
    uint32_t steps = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (uint32_t t = 0; t < the_plan->tasks; t++) {
            unit *u = &here.units[t];
            bool works = false;
            for (uint32_t i = 0; i < the_plan->workers; i++) {
                worker *w = &u->workers[i];
                assert_true(steps++ < CALM_STEPS_MAX);
                if (w->phase == SPILLS) {
                    take_step(u, w, NULL, spilling);
                    moved = true;
                } else if (is_enabled(u, w, &u->consumers[0], GO_ON)) {
                    take_step(u, w, NULL, GO_ON);
                    moved = true;
                }
                works = works || w->phase != RUNS;
            }
            for (uint32_t i = 0; i < CONSUMERS; i++) {
                bool idle = the_plan->workers == 1 ? !works : u->workers[i].phase == RUNS;
                uint64_t bytes = idle ? cbi_consumer_used(&u->consumers[i]) : 0;
                if (bytes > 0) {
                    release(u, &u->consumers[i], bytes);
                    moved = true;
                }
            }
        }
    }
    for (uint32_t t = 0; t < the_plan->tasks; t++) {
        for (uint32_t i = 0; i < the_plan->workers; i++) {
            assert_int_equal(here.units[t].workers[i].phase, RUNS);
        }
        assert_int_equal(here.units[t].party.bytes[CB_HEAP], 0);
        assert_int_equal(here.units[t].party.reclaims[CB_HEAP], 0);
    }
    assert_int_equal(here.arbiter.pools[CB_EXECUTION][CB_HEAP].used, 0);
}

static void note_enabled(uint32_t enabled[TASKS_MAX][CONSUMERS]) {
    for (uint32_t t = 0; t < the_plan->tasks; t++) {
        const unit *u = &here.units[t];
        for (uint32_t i = 0; i < CONSUMERS; i++) {
            /* One thread works for all consumers, or each has its own. */
            uint32_t thread = the_plan->workers == 1 ? 0 : i;
            enabled[t][i] = 0;
            for (uint32_t what = 0; what < CHOICES; what++) {
                bool ours = i == thread || is_operation((choice)what);
                if (ours && is_enabled(u, &u->workers[thread], &u->consumers[i], (choice)what)) {
                    enabled[t][i] |= 1u << what;
                }
            }
        }
    }
}

static void walk(size_t depth);

static void walk_on(size_t depth, uint32_t t, uint32_t i, choice what) {
    here = saved[depth];
    unit *u = &here.units[t];
    u->left -= is_operation(what) && the_plan->operations > 0;
    take_step(u, &u->workers[the_plan->workers == 1 ? 0 : i], &u->consumers[i], what);
    walk(depth + 1);
}

/** What one task's step may change for the others. */
static uint64_t hash_of_shared(void) {
    const cbi_pool *p = &here.arbiter.pools[CB_EXECUTION][CB_HEAP];
    uint64_t h = p->used << 32 | p->held << 16 | here.arbiter.tasks[CB_HEAP];
    for (const cbi_request *r = here.arbiter.first; r != NULL; r = r->next) {
        mix(&h, r->sequence);
    }
    return h;
}

/** All that the task can do next is its own business: no other task sees it, none can prevent it.
 */
static bool is_private(size_t depth, uint32_t t, uint32_t enabled) {
    uint64_t before = hash_of_shared(), steps = steps_taken;
    bool is = enabled != 0;
    for (uint32_t what = 0; is && what < CHOICES; what++) {
        if (enabled & 1u << what) {
            unit *u = &here.units[t];
            asked = false;
            take_step(u, &u->workers[0], NULL, (choice)what);
            is = !asked && hash_of_shared() == before;
            here = saved[depth];
        }
    }
    steps_taken = steps;
    return is;
}

/** Orders of steps that no other task sees need not be tried: if a task of one thread has only such
 *  ones, it goes first. Who begins something or waits is not such a task. */
static void leave_one_private(size_t depth, uint32_t enabled[TASKS_MAX][CONSUMERS]) {
    for (uint32_t t = 0; t < the_plan->tasks && the_plan->workers == 1; t++) {
        phase p = here.units[t].workers[0].phase;
        if (p != RUNS && p != WAITS && is_private(depth, t, enabled[t][0])) {
            uint32_t kept = enabled[t][0];
            memset(enabled, 0, sizeof enabled[0] * TASKS_MAX);
            enabled[t][0] = kept;
            return;
        }
    }
}

static void walk(size_t depth) {
    check_books();
    check_waiters();
    if (seen_before(&seen, hash_of_state())) {
        return;
    }
    assert_true(depth < DEPTH_MAX);
    deepest = depth > deepest ? depth : deepest;
    uint32_t enabled[TASKS_MAX][CONSUMERS];
    note_enabled(enabled);
    saved[depth] = here;
    leave_one_private(depth, enabled);
    check_progress(SPILL_NOTHING);
    here = saved[depth];
    check_progress(SPILL_ALL);
    for (uint32_t t = 0; t < the_plan->tasks; t++) {
        for (uint32_t i = 0; i < CONSUMERS; i++) {
            for (uint32_t what = 0; what < CHOICES; what++) {
                if (enabled[t][i] & 1u << what) {
                    walk_on(depth, t, i, (choice)what);
                }
            }
        }
    }
}

static void explore(const plan *p) {
    the_plan = p;
    steps_taken = waits_seen = spills_seen = turns_seen = 0;
    deepest = 0;
    saved = calloc(DEPTH_MAX, sizeof *saved);
    assert_non_null(saved);
    begin();
    walk(0);
    print_message("%u tasks, %u threads each, %u operations, %llu bytes: %llu states, %llu steps, "
                  "%llu waits, %llu spills, %llu waits for a turn, %zu deep\n",
                  p->tasks, p->workers, p->operations, (unsigned long long)p->budget,
                  (unsigned long long)seen.count, (unsigned long long)steps_taken,
                  (unsigned long long)waits_seen, (unsigned long long)spills_seen,
                  (unsigned long long)turns_seen, deepest);
    free(saved);
    seen_forget(&seen);
    assert_true(spills_seen > 0);
}

static const uint32_t all_choices = (1u << CHOICES) - 1;
static const uint32_t many_choices = 1u << ACQUIRE_1 | 1u << ACQUIRE_3 | 1u << RELEASE_ALL |
                                     1u << SPILL_ALL | 1u << SPILL_1 | 1u << SPILL_NOTHING;
static const uint32_t few_choices =
    1u << ACQUIRE_3 | 1u << RELEASE_ALL | 1u << SPILL_ALL | 1u << SPILL_NOTHING;

static void test_every_order_of_four_tasks_of_three_consumers(void **state) {
    (void)state;
    plan p = {.rules = CB_RULES_NATIVE, .tasks = 4, .workers = 1, .budget = 8};
    if (!explores_little()) {
        p.operations = explores_all() ? 3 : 2;
        p.choices = many_choices;
        explore(&p);
    }
    p.operations = explores_all() ? 4 : explores_little() ? 2 : 3;
    p.choices = few_choices;
    for (p.budget = explores_all() ? 6 : 8; p.budget <= 8; p.budget++) {
        explore(&p);
    }
}

static void test_every_order_of_two_tasks_with_a_thread_for_each_consumer(void **state) {
    (void)state;
    explore(&(plan){.rules = CB_RULES_NATIVE,
                    .tasks = 2,
                    .workers = CONSUMERS,
                    .operations = explores_all() ? 4 : 3,
                    .budget = 8,
                    .choices = explores_all() ? many_choices : few_choices});
}

static void test_every_order_with_failing_spills_and_cancelled_waits(void **state) {
    (void)state;
    explore(&(plan){.rules = CB_RULES_NATIVE,
                    .tasks = explores_little() ? 2 : 3,
                    .workers = 1,
                    .operations = explores_all() ? 3 : 2,
                    .budget = 8,
                    .choices = all_choices});
    explore(&(plan){.rules = CB_RULES_NATIVE,
                    .tasks = 2,
                    .workers = CONSUMERS,
                    .operations = explores_all() ? 3 : 2,
                    .budget = 6,
                    .choices = explores_little() ? many_choices : all_choices});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_order_of_four_tasks_of_three_consumers),
        cmocka_unit_test(test_every_order_of_two_tasks_with_a_thread_for_each_consumer),
        cmocka_unit_test(test_every_order_with_failing_spills_and_cancelled_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
