/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharing memory among tasks and blocks.
 *
 * The problem. Two kinds of use share the bytes of a mode: execution (working memory of N tasks)
 * and storage (blocks that could be dropped). Nobody knows beforehand who needs what. Fixed parts
 * waste memory; first come, first served lets one task starve the others, which then spill all the
 * time.
 *
 * The idea (Spark's UnifiedMemoryManager and ExecutionMemoryPool). Two pools with a movable border.
 * Storage may use what execution leaves free, and the other way round; execution may have blocks
 * evicted until storage is down to its region, storage never takes from execution. Among N tasks
 * nobody gets more than 1/N of what execution could have at most, and who is below 1/(2N) waits for
 * the others instead of spilling:
 *
 *     share = (total - min(storage used, region)) / N        what execution could have, divided
 *     floor = size of the execution pool / (2N)              as the border is now
 *     grant = min(asked, share - mine, free)
 *     wait when grant < asked and mine + grant < floor
 *
 * No deadlock within a mode: if all N were below the floor less than half of the pool would be
 * used, and the other half is enough for each to get there. Across the two modes there is one (A
 * holds heap and waits for off-heap, B the reverse); end_standstill finds it and answers the newest
 * waiter, who then has to spill.
 *
 * The static policy (Spark's StaticMemoryManager) has the same two pools with a border that never
 * moves: the share is the pool's size, storage evicts for itself only, and unrolling has no more
 * evicted than unroll_evict_max, less what is free and what is unrolled already.
 *
 * Rule sets. Spark's behaviour is the base, with its peculiarities: a task stays one of the N after
 * a grant of 0; a release of storage wakes nobody; a wake reaches waiters of both modes. The native
 * rules are switches that add to it (cbi_rule_set); there is no second arbiter.
 *
 * Eviction takes time and calls foreign code, so it cannot happen in here. A request that needs it
 * gets CBI_EVICT; while it is away, what it may use is `held` and what will be evicted is
 * `leaving`, so that no two requests count on the same bytes. settle then decides in one step:
 * freed bytes go straight to who asked.
 *
 * Ageing. Waiters are looked at in order of arrival, and a later, smaller one may pass an earlier
 * one that still cannot go on, but only PASSES_MAX times: from then on the earlier one keeps
 * (holds) what becomes free until it has enough.
 */
#include "memory/arbiter.h"

enum { PASSES_MAX = 16 };

const cbi_rule_set cbi_rules_spark = {0};
const cbi_rule_set cbi_rules_native = {.wake_on_any_release = true,
                                       .count_only_active = true,
                                       .keep_emptied_waiters = true,
                                       .tell_to_spill = true,
                                       .hand_over = true,
                                       .age_waiters = true,
                                       .end_standstill = true,
                                       .evict_only_if_enough = true,
                                       .trust_the_books = true};

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/** a - b, or 0. */
static uint64_t above(uint64_t a, uint64_t b) {
    return a > b ? a - b : 0;
}

static cbi_pool *execution(cbi_arbiter *a, cb_mode mode) {
    return &a->pools[CB_EXECUTION][mode];
}

static cbi_pool *storage(cbi_arbiter *a, cb_mode mode) {
    return &a->pools[CB_STORAGE][mode];
}

void cbi_arbiter_init(cbi_arbiter *a, cb_rules rules, cb_policy policy,
                      const uint64_t total[CB_MODE_COUNT], const uint64_t region[CB_MODE_COUNT]) {
    *a = (cbi_arbiter){.rules = rules == CB_RULES_SPARK ? &cbi_rules_spark : &cbi_rules_native,
                       .policy = policy};
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_assert(region[mode] <= total[mode]);
        a->total[mode] = total[mode];
        a->region[mode] = region[mode];
        a->unroll_evict_max[mode] = UINT64_MAX;
        a->pools[CB_EXECUTION][mode].size = total[mode] - region[mode];
        a->pools[CB_STORAGE][mode].size = region[mode];
    }
}

/* ---- who takes part ---- */

void cbi_arbiter_join(cbi_arbiter *a, cbi_party *party) {
    *party = (cbi_party){.next = a->parties};
    if (a->parties != NULL) {
        a->parties->prev = party;
    }
    a->parties = party;
}

void cbi_arbiter_leave(cbi_arbiter *a, cbi_party *party) {
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_assert(party->bytes[mode] == 0 && party->waits[mode] == 0 && party->reclaims[mode] == 0);
        cb_assert(!party->counted[mode]);
    }
    *(party->prev != NULL ? &party->prev->next : &a->parties) = party->next;
    if (party->next != NULL) {
        party->next->prev = party->prev;
    }
}

/** All who wait look again. */
static void notify(cbi_arbiter *a) {
    for (cbi_request *w = a->first; w != NULL; w = w->next) {
        w->recheck = a->recheck = true;
        w->evicted = false;
    }
}

/** The same after an eviction that brought nothing: they look at what is free, but do not evict, or
 *  they would send each other round for ever. */
static void notify_quietly(cbi_arbiter *a) {
    for (cbi_request *w = a->first; w != NULL; w = w->next) {
        w->evicted = w->evicted || !w->recheck;
        w->recheck = a->recheck = true;
    }
}

static void count_in(cbi_arbiter *a, cbi_party *party, cb_mode mode) {
    if (!party->counted[mode]) {
        party->counted[mode] = true;
        a->tasks[mode]++;
        notify(a); /* floors are lower now */
    }
}

/** Takes the party out of the N when it has no business there any more. */
static void count_out(cbi_arbiter *a, cbi_party *party, cb_mode mode) {
    bool waits = a->rules->keep_emptied_waiters && party->waits[mode] > 0;
    if (party->counted[mode] && party->bytes[mode] == 0 && !waits) {
        party->counted[mode] = false;
        a->tasks[mode]--;
    }
}

/* ---- who waits ---- */

static void wait_begin(cbi_arbiter *a, cbi_request *r) {
    r->verdict = CBI_BLOCKED;
    r->recheck = false;
    if (r->sequence ==
        UINT64_MAX) { /* else it waited before its eviction and goes back to its place */
        r->sequence = ++a->sequence;
        r->passed = 0;
    }
    cbi_request *before = a->last;
    while (before != NULL && before->sequence > r->sequence) {
        before = before->prev;
    }
    r->prev = before;
    r->next = before != NULL ? before->next : a->first;
    *(r->prev != NULL ? &r->prev->next : &a->first) = r;
    *(r->next != NULL ? &r->next->prev : &a->last) = r;
    r->party->waits[r->mode]++;
}

static void wait_end(cbi_arbiter *a, cbi_request *r) {
    *(r->prev != NULL ? &r->prev->next : &a->first) = r->next;
    *(r->next != NULL ? &r->next->prev : &a->last) = r->prev;
    r->next = r->prev = NULL;
    r->party->waits[r->mode]--;
}

/**
 * Holds so many bytes for the request, no more and no less; they are free or held by it already.
 */
static void hold(cbi_arbiter *a, cbi_request *r, uint64_t bytes) {
    cbi_pool *pool = &a->pools[r->party != NULL ? CB_EXECUTION : CB_STORAGE][r->mode];
    cbi_pool_unhold(pool, r->held);
    cbi_pool_hold(pool, bytes);
    r->held = bytes;
}

/* ---- execution ---- */

static cbi_verdict ask_to_evict(cbi_arbiter *a, cbi_request *r, uint64_t bytes) {
    cbi_pool *stor = storage(a, r->mode);
    r->evict_bytes = bytes;
    r->marked = least(bytes, above(stor->used, stor->leaving));
    stor->leaving += r->marked;
    a->evicting++;
    return r->verdict = CBI_EVICT;
}

/**
 * Moves the border for an execution request: free storage at once, borrowed storage by eviction.
 * True when there is something to evict; then the request is away until settled.
 */
static bool make_room(cbi_arbiter *a, cbi_request *r) {
    cbi_pool *exec = execution(a, r->mode), *stor = storage(a, r->mode);
    if (a->policy == CB_POLICY_STATIC) {
        return false;
    }
    uint64_t missing = above(r->bytes, cbi_pool_free(exec) + r->held);
    uint64_t spare = cbi_pool_free(stor);
    uint64_t borrowed = above(stor->size - stor->leaving, a->region[r->mode]);
    uint64_t wanted = least(missing, spare > borrowed ? spare : borrowed);
    if (wanted == 0) {
        return false;
    }
    uint64_t at_once = least(wanted, spare);
    cbi_pool_move(stor, exec, at_once);
    r->moved = at_once;
    if (wanted == at_once || r->evicted) {
        return false;
    }
    hold(a, r, least(r->bytes, cbi_pool_free(exec) + r->held));
    (void)ask_to_evict(a, r, wanted - at_once);
    return true;
}

/** A later request went on: those that came before it have been passed once more. */
static void count_passes(cbi_arbiter *a, const cbi_request *r) {
    for (cbi_request *w = a->first; w != NULL; w = w->next) {
        if (w->mode == r->mode && w->sequence < r->sequence) {
            w->passed++;
        }
    }
}

static cbi_verdict grant(cbi_arbiter *a, cbi_request *r, uint64_t bytes, uint64_t share) {
    cbi_pool *exec = execution(a, r->mode);
    cbi_party *party = r->party;
    cbi_pool_unhold(exec, r->held);
    r->held = 0;
    cbi_pool_take(exec, bytes);
    party->bytes[r->mode] += bytes;
    r->granted = bytes;
    if (CBI_UNLIKELY(bytes < r->bytes)) {
        if (a->rules->tell_to_spill) {
            uint64_t rest = r->bytes - bytes, over = above(party->bytes[r->mode] + rest, share);
            r->spill_bytes = rest > over ? rest : over;
        }
        if (a->rules->count_only_active) {
            count_out(a, party, r->mode);
        }
    }
    if (CBI_UNLIKELY(a->first != NULL) && a->rules->age_waiters) {
        count_passes(a, r);
    }
    return r->verdict = CBI_GRANTED;
}

/**
 * One attempt. True when the request has an answer (granted, evict, lost); false: it has to wait.
 */
static bool consider(cbi_arbiter *a, cbi_request *r, bool must_answer) {
    cb_mode mode = r->mode;
    cbi_party *party = r->party;
    cbi_pool *exec = execution(a, mode);
    if (CBI_UNLIKELY(!party->counted[mode])) {
        r->verdict = CBI_LOST;
        return true;
    }
    if (CBI_UNLIKELY(r->bytes > cbi_pool_free(exec) + r->held) && make_room(a, r)) {
        return true;
    }
    uint64_t n = a->tasks[mode], mine = party->bytes[mode];
    uint64_t share = a->policy == CB_POLICY_STATIC
                         ? exec->size
                         : a->total[mode] - least(storage(a, mode)->used, a->region[mode]);
    share = CBI_LIKELY(n == 1) ? share : share / n;
    uint64_t spare = cbi_pool_free(exec) + r->held;
    uint64_t bytes = least(least(r->bytes, above(share, mine)), spare);
    if (CBI_LIKELY(bytes == r->bytes) || must_answer || !r->may_wait ||
        mine + bytes >= exec->size / (2 * n)) {
        (void)grant(a, r, bytes, share);
        return true;
    }
    uint64_t enough = least(r->bytes, exec->size / (2 * n) - mine);
    bool collects = a->rules->age_waiters && r->passed >= PASSES_MAX;
    hold(a, r, collects ? least(enough, spare) : 0);
    return false;
}

cbi_verdict cbi_arbiter_acquire_shared(cbi_arbiter *a, cbi_request *r) {
    cb_assert_debug(r->bytes > 0 && r->party != NULL);
    r->granted = r->evict_bytes = r->spill_bytes = r->held = r->marked = r->moved = 0;
    r->evicted = false;
    r->sequence = UINT64_MAX; /* newer than all who wait */
    r->next = r->prev = NULL;
    count_in(a, r->party, r->mode);
    if (CBI_UNLIKELY(!consider(a, r, false))) {
        wait_begin(a, r);
    }
    return r->verdict;
}

/* ---- storage ---- */

static cbi_verdict storage_decide(cbi_arbiter *a, cbi_request *r) {
    cbi_pool *stor = storage(a, r->mode);
    hold(a, r, 0);
    if (r->bytes > cbi_pool_free(stor)) {
        return r->verdict = CBI_REFUSED;
    }
    cbi_pool_take(stor, r->bytes);
    a->unroll[r->mode] += r->unroll ? r->bytes : 0;
    r->granted = r->bytes;
    return r->verdict = CBI_GRANTED;
}

/** Static policy: no border moves; what unrolling may evict has a limit, what it may hold has none.
 */
static cbi_verdict acquire_fixed_storage(cbi_arbiter *a, cbi_request *r) {
    const cbi_pool *stor = storage(a, r->mode);
    if (!r->unroll && r->bytes > stor->size) {
        return r->verdict = CBI_REFUSED;
    }
    uint64_t spare = cbi_pool_free(stor), missing = above(r->bytes, spare);
    uint64_t most =
        r->unroll ? above(a->unroll_evict_max[r->mode], a->unroll[r->mode] + spare) : UINT64_MAX;
    uint64_t wanted = least(missing, most);
    if (wanted == 0 || (wanted < missing && a->rules->evict_only_if_enough)) {
        return storage_decide(a, r);
    }
    hold(a, r, spare);
    return ask_to_evict(a, r, wanted);
}

cbi_verdict cbi_arbiter_acquire_storage(cbi_arbiter *a, cbi_request *r) {
    cb_assert_debug(r->party == NULL);
    r->granted = r->evict_bytes = r->spill_bytes = r->held = r->marked = r->moved = 0;
    r->next = r->prev = NULL;
    if (a->policy == CB_POLICY_STATIC) {
        return acquire_fixed_storage(a, r);
    }
    cbi_pool *exec = execution(a, r->mode), *stor = storage(a, r->mode);
    if (r->bytes > cbi_arbiter_storage_max(a, r->mode)) {
        return r->verdict = CBI_REFUSED; /* no eviction for what cannot fit anyway */
    }
    if (r->bytes > cbi_pool_free(stor)) { /* the border moves, whether or not it will suffice */
        cbi_pool_move(exec, stor, least(cbi_pool_free(exec), r->bytes - cbi_pool_free(stor)));
        if (a->rules->wake_on_any_release) {
            notify(a); /* a smaller execution pool has lower floors */
        }
    }
    uint64_t missing = above(r->bytes, cbi_pool_free(stor));
    if (missing == 0) {
        return storage_decide(a, r);
    }
    hold(a, r, cbi_pool_free(stor));
    return ask_to_evict(a, r, missing);
}

uint64_t cbi_arbiter_storage_max(const cbi_arbiter *a, cb_mode mode) {
    return a->policy == CB_POLICY_STATIC ? a->pools[CB_STORAGE][mode].size
                                         : a->total[mode] - a->pools[CB_EXECUTION][mode].used;
}

/* ---- eviction ---- */

void cbi_arbiter_marked(cbi_arbiter *a, cbi_request *r, uint64_t bytes) {
    cbi_pool *stor = storage(a, r->mode);
    stor->leaving = stor->leaving - r->marked + bytes;
    r->marked = bytes;
}

cbi_verdict cbi_arbiter_settle(cbi_arbiter *a, cbi_request *r, uint64_t dropped) {
    cb_assert(r->verdict == CBI_EVICT && a->evicting > 0);
    cbi_pool *exec = execution(a, r->mode), *stor = storage(a, r->mode);
    a->evicting--;
    stor->leaving -= r->marked;
    r->marked = 0;
    uint64_t claimed = dropped;
    dropped = cbi_pool_give(stor, dropped);
    if (r->party == NULL) {
        (void)storage_decide(a, r);
    } else if (dropped < claimed && !a->rules->trust_the_books) {
        hold(a, r, 0);
        cbi_pool_move(exec, stor, r->moved);
        r->verdict = CBI_BROKEN;
    } else {
        cbi_pool_move(stor, exec, dropped); /* all of it, also what exceeds the wish */
        r->evicted = true;
        if (!consider(a, r, false)) {
            wait_begin(a, r);
        }
    }
    if (a->rules->wake_on_any_release) {
        if (dropped > 0) {
            notify(a);
        } else {
            notify_quietly(a); /* what was held meanwhile is free again */
        }
    }
    return r->verdict;
}

/* ---- going on ---- */

static bool has_business(const cbi_party *party) {
    return party->waits[CB_HEAP] + party->waits[CB_OFF_HEAP] == 0 ||
           party->reclaims[CB_HEAP] + party->reclaims[CB_OFF_HEAP] > 0;
}

/** Somebody who holds bytes of the mode could still release them: `live` says so of the modes known
 *  so far. */
static bool is_live(const cbi_arbiter *a, int mode, const bool live[CB_MODE_COUNT]) {
    for (const cbi_party *p = a->parties; p != NULL; p = p->next) {
        if (p->bytes[mode] == 0) {
            continue;
        }
        bool stuck = (p->waits[CB_HEAP] > 0 && !live[CB_HEAP]) ||
                     (p->waits[CB_OFF_HEAP] > 0 && !live[CB_OFF_HEAP]);
        if (has_business(p) || !stuck) {
            return true;
        }
    }
    return false;
}

/** The newest of those who wait for a mode in which nobody can release any more; NULL when there is
 *  hope for all. */
static cbi_request *find_standstill(const cbi_arbiter *a) {
    if (a->evicting > 0) {
        return NULL;
    }
    bool live[CB_MODE_COUNT] = {false, false};
    for (int round = 0; round < CB_MODE_COUNT; round++) {
        for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
            live[mode] = live[mode] || is_live(a, mode, live);
        }
    }
    for (cbi_request *w = a->last; w != NULL; w = w->prev) {
        if (!live[w->mode]) {
            return w;
        }
    }
    return NULL;
}

static cbi_request *recheck_waiters(cbi_arbiter *a) {
    for (cbi_request *w = a->first; w != NULL; w = w->next) {
        if (w->recheck) {
            w->recheck = false;
            if (consider(a, w, false)) {
                return w;
            }
        }
    }
    a->recheck = false;
    return NULL;
}

cbi_request *cbi_arbiter_next(cbi_arbiter *a) {
    if (CBI_LIKELY(a->first == NULL)) {
        return NULL;
    }
    cbi_request *w = a->recheck ? recheck_waiters(a) : NULL;
    if (w == NULL && a->rules->end_standstill && (w = find_standstill(a)) != NULL) {
        (void)consider(a, w, true);
    }
    if (w != NULL) {
        wait_end(a, w);
        if (a->rules->count_only_active && w->verdict == CBI_GRANTED) {
            count_out(a, w->party, w->mode);
        }
    }
    return w;
}

void cbi_arbiter_withdraw(cbi_arbiter *a, cbi_request *r) {
    cb_assert(r->verdict == CBI_BLOCKED);
    bool held = r->held > 0;
    hold(a, r, 0);
    wait_end(a, r);
    if (a->rules->count_only_active) {
        count_out(a, r->party, r->mode);
    }
    if (held) {
        notify(a);
    }
}

/* ---- giving back ---- */

static void pay_debt(cbi_arbiter *a, cb_mode mode) {
    if (CBI_UNLIKELY(a->debt[mode] > 0)) {
        a->debt[mode] -= cbi_arbiter_shrink(a, mode, a->debt[mode]);
    }
}

uint64_t cbi_arbiter_release_shared(cbi_arbiter *a, cbi_party *party, cb_mode mode,
                                    uint64_t bytes) {
    bytes = least(bytes, party->bytes[mode] - party->hand[mode]);
    if (CBI_UNLIKELY(party->reclaims[mode] > 0)) {
        party->hand[mode] += bytes;
        a->hands[mode] += bytes;
        return bytes;
    }
    party->bytes[mode] -= bytes;
    (void)cbi_pool_give(execution(a, mode), bytes);
    count_out(a, party, mode);
    pay_debt(a, mode);
    if (CBI_UNLIKELY(a->first != NULL)) {
        notify(a);
    }
    return bytes;
}

uint64_t cbi_arbiter_release_all(cbi_arbiter *a, cbi_party *party) {
    uint64_t freed = 0;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_assert(party->reclaims[mode] == 0);
        freed += cbi_arbiter_release(a, party, (cb_mode)mode, party->bytes[mode]);
    }
    return freed;
}

static void storage_released(cbi_arbiter *a, cb_mode mode) {
    pay_debt(a, mode);
    if (a->rules->wake_on_any_release) {
        notify(a);
    }
}

uint64_t cbi_arbiter_release_storage(cbi_arbiter *a, cb_mode mode, uint64_t bytes) {
    uint64_t given = cbi_pool_give(storage(a, mode), bytes);
    storage_released(a, mode);
    return given;
}

uint64_t cbi_arbiter_release_unroll(cbi_arbiter *a, cb_mode mode, uint64_t bytes) {
    bytes = least(bytes, a->unroll[mode]);
    a->unroll[mode] -= bytes;
    (void)cbi_arbiter_release_storage(a, mode, bytes);
    return bytes;
}

void cbi_arbiter_finish_unroll(cbi_arbiter *a, cb_mode mode, uint64_t unroll, uint64_t kept) {
    cb_assert(unroll <= a->unroll[mode] && kept <= unroll);
    a->unroll[mode] -= unroll;
    (void)cbi_arbiter_release_storage(a, mode, unroll - kept);
}

void cbi_arbiter_release_all_storage(cbi_arbiter *a) {
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        a->unroll[mode] = 0;
        cbi_pool_give_all(storage(a, (cb_mode)mode));
        storage_released(a, (cb_mode)mode);
    }
}

void cbi_arbiter_reclaim_begin(cbi_arbiter *a, cbi_party *party, cb_mode mode) {
    if (a->rules->hand_over) {
        party->reclaims[mode]++;
    }
}

uint64_t cbi_arbiter_take_hand(cbi_arbiter *a, cbi_party *party, cb_mode mode, uint64_t bytes) {
    bytes = least(bytes, party->hand[mode]);
    party->hand[mode] -= bytes;
    a->hands[mode] -= bytes;
    return bytes;
}

void cbi_arbiter_reclaim_end(cbi_arbiter *a, cbi_party *party, cb_mode mode) {
    if (a->rules->hand_over) {
        cb_assert(party->reclaims[mode] > 0);
        party->reclaims[mode]--;
        if (party->reclaims[mode] == 0) {
            uint64_t rest = cbi_arbiter_take_hand(a, party, mode, UINT64_MAX);
            (void)cbi_arbiter_release(a, party, mode, rest);
        }
    }
}

/* ---- a budget that changes ---- */

void cbi_arbiter_grow(cbi_arbiter *a, cb_mode mode, uint64_t bytes) {
    uint64_t paid = least(bytes, a->debt[mode]);
    a->debt[mode] -= paid;
    a->total[mode] += bytes - paid;
    cbi_pool_grow(execution(a, mode), bytes - paid);
    if (a->rules->wake_on_any_release) {
        notify(a);
    }
}

uint64_t cbi_arbiter_shrink(cbi_arbiter *a, cb_mode mode, uint64_t bytes) {
    cbi_pool *exec = execution(a, mode), *stor = storage(a, mode);
    uint64_t from_exec = least(bytes, cbi_pool_free(exec));
    uint64_t from_stor = least(bytes - from_exec, cbi_pool_free(stor));
    exec->size -= from_exec;
    stor->size -= from_stor;
    a->total[mode] -= from_exec + from_stor;
    return from_exec + from_stor;
}

void cbi_arbiter_charge(cbi_arbiter *a, cb_mode mode, uint64_t bytes) {
    a->debt[mode] += bytes - cbi_arbiter_shrink(a, mode, bytes);
}

/* ---- invariants ---- */

static void check_mode(const cbi_arbiter *a, int mode) {
    const cbi_pool *exec = &a->pools[CB_EXECUTION][mode], *stor = &a->pools[CB_STORAGE][mode];
    cbi_pool_check(exec);
    cbi_pool_check(stor);
    cb_assert(exec->size + stor->size == a->total[mode]);
    uint64_t used = 0, held = 0, hands = 0;
    uint32_t tasks = 0, waits = 0;
    for (const cbi_party *p = a->parties; p != NULL; p = p->next) {
        cb_assert(p->hand[mode] <= p->bytes[mode]);
        cb_assert(p->bytes[mode] == 0 || p->counted[mode]);
        used += p->bytes[mode];
        hands += p->hand[mode];
        tasks += p->counted[mode];
        waits += p->waits[mode];
    }
    for (const cbi_request *w = a->first; w != NULL; w = w->next) {
        cb_assert(w->verdict == CBI_BLOCKED);
        cb_assert(w->next == NULL || w->next->sequence > w->sequence);
        if ((int)w->mode == mode) {
            held += w->held;
            waits--;
        }
    }
    cb_assert(used == exec->used);
    cb_assert(hands == a->hands[mode]);
    cb_assert(tasks == a->tasks[mode]);
    cb_assert(waits == 0);
    cb_assert(a->evicting > 0 || held == exec->held);
    cb_assert(a->evicting > 0 || stor->held == 0);
    cb_assert(a->evicting > 0 || stor->leaving == 0);
}

void cbi_arbiter_check(const cbi_arbiter *a) {
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        check_mode(a, mode);
    }
}
