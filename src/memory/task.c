/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks and their consumers: who must spill when memory is short.
 *
 * An acquiring thread asks the arbiter first; that may evict blocks and wait for other tasks (below
 * the task's floor). If it still has less than it wants, the task's own consumers are asked to
 * spill: the smallest that holds what is missing (else the largest), the asker itself last. The
 * order is Spark's TaskMemoryManager's: a consumer that has just been spilled is small and not
 * asked again, so there are few and large spill files.
 *
 * What differs from the original is how. There, one lock is held over everything, spill functions
 * included, which deadlocked with the locks of consumers (SPARK-27341). Here no lock is held while
 * a spill function runs; threads of one task that reclaim take turns instead (a turn is not a lock:
 * nothing but reclaiming needs it). What is released during a turn stays in the task's hand until
 * the asker has what it wanted (native rules), so no other task takes it in between (SPARK-35486),
 * and when others' arrival has lowered the share, the arbiter says how much to let go instead of
 * granting 0 (SPARK-31720).
 *
 * A spill function must not acquire: it would wait for memory in order to free memory
 * (SPARK-32901). A thread-local mark catches it.
 */
#include "memory/task.h"

#include <stdio.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "memory/reclaim.h"

_Thread_local uint32_t cbi_spill_depth;

/* This thread has that task's turn. */
static _Thread_local const cb_task *turn_held __attribute__((tls_model("initial-exec")));

/* ---- from beginning to end ---- */

cb_status cb_task_create(cb_manager *m, const cb_task_options *options, cb_task **task,
                         cb_error *err) {
    cb_task *t = cbi_calloc(1, sizeof *t);
    if (t == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a task.");
    }
    t->manager = m;
    t->id = options->id;
    t->deadline_ns = options->deadline_ns;
    cbi_name_copy(t->name, options->name);
    cb_status status = cbi_page_table_create(t, err);
    if (status != CB_OK) {
        cbi_free(t);
        return status;
    }
    cbi_lock_take(&m->lock);
    cbi_arbiter_join(&m->arbiter, &t->party);
    t->next = m->tasks;
    m->tasks = t;
    cbi_lock_give(&m->lock);
    *task = t;
    return CB_OK;
}

/* ---- turns ---- */

/** [locked] */
static void turn_take(cb_manager *m, cb_task *t) {
    if (t->turn_taken) {
        cbi_turn_waiter w = {0};
        *(t->turn_last != NULL ? &t->turn_last->next : &t->turn_first) = &w;
        t->turn_last = &w;
        cbi_lock_give(&m->lock);
        (void)cbi_parker_wait(&w.parker, 0);
        cbi_lock_take(&m->lock);
    }
    t->turn_taken = true;
    turn_held = t;
}

/** [locked] */
static void turn_give(cb_task *t) {
    cbi_turn_waiter *w = t->turn_first;
    turn_held = NULL;
    if (w == NULL) {
        t->turn_taken = false;
        return;
    }
    t->turn_first = w->next;
    if (w->next == NULL) {
        t->turn_last = NULL;
    }
    cbi_parker_open(&w->parker); /* turn_taken stays: it is the next one's */
}

uint64_t cb_task_end(cb_task *t, char *report, size_t report_bytes) {
    if (t == NULL) {
        return 0;
    }
    cb_manager *m = t->manager;
    cbi_lock_take(&m->lock);
    for (cb_task **at = &m->tasks; *at != NULL; at = &(*at)->next) {
        if (*at == t) {
            *at = t->next;
            break;
        }
    }
    turn_take(m, t); /* a shrink may be at our consumers; nobody new finds us */
    turn_held = NULL;
    cb_assert(t->waiters == NULL);
    uint64_t leaked = t->party.bytes[CB_HEAP] + t->party.bytes[CB_OFF_HEAP] - t->aside;
    if (report != NULL && report_bytes > 0) {
        report[0] = '\0';
        if (leaked > 0) {
            (void)cbi_tree_write(m, t, report, report_bytes);
        }
    }
    cbi_lock_give(&m->lock);
    (void)cbi_page_free_all(t, NULL);
    cbi_lock_take(&m->lock);
    (void)cbi_arbiter_release_all(&m->arbiter, &t->party);
    cbi_arbiter_leave(&m->arbiter, &t->party);
    cbi_manager_pass_on(m);
    cbi_lock_give(&m->lock);
    cbi_page_table_destroy(t);
    while (t->consumers != NULL) {
        cb_consumer *next = t->consumers->next;
        cbi_free(t->consumers);
        t->consumers = next;
    }
    cbi_manager_return_spare(m, CB_HEAP);
    cbi_manager_return_spare(m, CB_OFF_HEAP);
    cbi_free(t);
    return leaked;
}

/** [locked] Whoever waits for this task looks again at what has changed. */
static void wake_waiters(cb_task *t) {
    for (cbi_waiter *w = t->waiters; w != NULL; w = w->next) {
        cbi_parker_open(&w->parker);
    }
}

void cb_task_cancel(cb_task *t) {
    cbi_lock_take(&t->manager->lock);
    t->cancelled = true;
    wake_waiters(t);
    cbi_lock_give(&t->manager->lock);
}

void cb_task_set_deadline(cb_task *t, uint64_t deadline_ns) {
    cbi_lock_take(&t->manager->lock);
    t->deadline_ns = deadline_ns;
    wake_waiters(t);
    cbi_lock_give(&t->manager->lock);
}

uint64_t cb_task_used(const cb_task *t) {
    cbi_lock_take(&t->manager->lock);
    uint64_t bytes = t->party.bytes[CB_HEAP] + t->party.bytes[CB_OFF_HEAP];
    cbi_lock_give(&t->manager->lock);
    return bytes;
}

uint64_t cb_task_peak(const cb_task *t) {
    cbi_lock_take(&t->manager->lock);
    uint64_t bytes = t->peak;
    cbi_lock_give(&t->manager->lock);
    return bytes;
}

uint64_t cb_task_used_in(const cb_task *t, cb_mode mode) {
    cbi_lock_take(&t->manager->lock);
    uint64_t bytes = t->party.bytes[mode];
    cbi_lock_give(&t->manager->lock);
    return bytes;
}

uint64_t cb_task_peak_in(const cb_task *t, cb_mode mode) {
    cbi_lock_take(&t->manager->lock);
    uint64_t bytes = t->peaks[mode];
    cbi_lock_give(&t->manager->lock);
    return bytes;
}

cb_manager *cb_task_manager(const cb_task *t) {
    return t->manager;
}

/* ---- consumers ---- */

cb_status cb_consumer_create(cb_task *t, const cb_consumer_options *options, cb_consumer **consumer,
                             cb_error *err) {
    if (options->mode != CB_HEAP && options->mode != CB_OFF_HEAP) {
        return cbi_fail(err, CB_EINVAL, "A consumer's mode must be CB_HEAP or CB_OFF_HEAP, not %d.",
                        (int)options->mode);
    }
    cb_consumer *c = cbi_calloc(1, sizeof *c);
    if (c == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a consumer.");
    }
    c->task = t;
    c->mode = options->mode;
    c->spill = options->spill;
    c->ctx = options->ctx;
    cbi_name_copy(c->name, options->name);
    cbi_lock_take(&t->manager->lock);
    cb_consumer **at = &t->consumers;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = c;
    cbi_lock_give(&t->manager->lock);
    *consumer = c;
    return CB_OK;
}

void cb_consumer_destroy(cb_consumer *c) {
    if (c == NULL) {
        return;
    }
    cb_task *t = c->task;
    cb_manager *m = t->manager;
    cb_mode mode = c->mode;
    (void)cbi_page_free_all(t, c);
    cbi_lock_take(&m->lock);
    bool mine = turn_held == t; /* a spill function does away with another consumer */
    if (!mine) {
        turn_take(m, t); /* who reclaims may be looking at it */
    }
    (void)cbi_task_release(c, cbi_consumer_used(c));
    for (cb_consumer **at = &t->consumers; *at != NULL; at = &(*at)->next) {
        if (*at == c) {
            *at = c->next;
            break;
        }
    }
    if (!mine) {
        turn_give(t);
    }
    cbi_lock_give(&m->lock);
    cbi_manager_return_spare(m, mode);
    cbi_free(c);
}

uint64_t cb_consumer_used(const cb_consumer *c) {
    return cbi_consumer_used(c);
}

uint64_t cb_consumer_peak(const cb_consumer *c) {
    return atomic_load_explicit(&c->peak, memory_order_relaxed);
}

/* ---- acquiring ---- */

/** [locked] Runs a spill function without the lock. *released: what it says it released. */
static cb_status spill(cb_consumer *c, uint64_t bytes, cb_consumer *asker, uint64_t *released,
                       cb_error *err) {
    cb_manager *m = c->task->manager;
    int64_t answer = 0;
    if (c->spill != NULL) {
        c->spilling = true;
        cbi_lock_give(&m->lock);
        cbi_spill_depth++;
        answer = c->spill(c->ctx, bytes, asker);
        cbi_spill_depth--;
        cbi_lock_take(&m->lock);
        c->spilling = false;
    }
    if (answer < 0) {
        return cbi_fail(err, (cb_status)answer,
                        "Consumer \"%s\" of task %llu failed to spill %llu bytes: %s.", c->name,
                        (unsigned long long)c->task->id, (unsigned long long)bytes,
                        cb_status_text((cb_status)answer));
    }
    *released = (uint64_t)answer;
    c->spilled += *released;
    c->refusals += *released == 0;
    return CB_OK;
}

/** [locked] Carries out one step. */
static cb_status reclaim_step(cbi_reclaim *r, cbi_reclaim_step step, cb_error *err) {
    cb_task *t = r->asker->task;
    switch (step) {
        case CBI_RECLAIM_TAKE_TURN: turn_take(t->manager, t); return CB_OK;
        case CBI_RECLAIM_ATTEMPT:
            return cbi_task_attempt(r->asker, r->attempt_bytes, r->may_wait, &r->got, &r->hint,
                                    err);
        case CBI_RECLAIM_SPILL:
            return spill(r->victim, r->spill_bytes, r->asker, &r->released, err);
        case CBI_RECLAIM_GIVE_TURN:
            cbi_manager_pass_on(t->manager);
            turn_give(t);
            return CB_OK;
        case CBI_RECLAIM_DONE: break;
    }
    return CB_OK;
}

cb_status cbi_task_acquire_rest(cb_consumer *c, uint64_t bytes, uint64_t *got, uint64_t hint,
                                cb_error *err) {
    cb_task *t = c->task;
    cb_manager *m = t->manager;
    cbi_reclaim r = {.arbiter = &m->arbiter,
                     .party = &t->party,
                     .consumers = &t->consumers,
                     .asker = c,
                     .native = m->rules == CB_RULES_NATIVE,
                     .bytes = bytes,
                     .got = *got,
                     .hint = hint};
    cb_status status = CB_OK;
    cbi_reclaim_step step;
    while (status == CB_OK && (step = cbi_reclaim_next(&r, t->cancelled)) != CBI_RECLAIM_DONE) {
        status = reclaim_step(&r, step, err);
    }
    if (status != CB_OK) {
        cbi_reclaim_abandon(&r);
        if (r.has_turn) {
            turn_give(t);
        }
        (void)cbi_arbiter_release(&m->arbiter, &t->party, c->mode, r.got);
        cbi_manager_pass_on(m);
        return status;
    }
    *got = r.got;
    return CB_OK;
}

bool cbi_task_try_acquire(cb_consumer *c, uint64_t bytes) {
    cb_manager *m = c->task->manager;
    uint64_t got = 0, hint = 0;
    cbi_lock_take(&m->lock);
    bool granted = cbi_task_attempt(c, bytes, false, &got, &hint, NULL) == CB_OK;
    cbi_consumer_account(c, got);
    if (got < bytes) {
        (void)cbi_task_release(c, got);
        granted = false;
    }
    cbi_block *chain = cbi_manager_shed(m, c->mode);
    cbi_manager_note_peak(m);
    cbi_lock_give(&m->lock);
    (void)cbi_allocator_drop(m->allocators[c->mode], chain);
    return granted;
}

cb_status cb_consumer_spill(cb_consumer *c, uint64_t bytes, uint64_t *released, cb_error *err) {
    cb_task *t = c->task;
    cb_manager *m = t->manager;
    if (cbi_task_is_spilling()) {
        return cbi_fail(err, CB_EMISUSE, "Consumer \"%s\" was told to spill by a spill function.",
                        c->name);
    }
    cbi_lock_take(&m->lock);
    turn_take(m, t);
    cb_status status = spill(c, bytes, c, released, err);
    turn_give(t);
    cbi_lock_give(&m->lock);
    cbi_manager_return_spare(m, c->mode);
    return status;
}

static cb_status misuse_while_spilling(const cb_consumer *c, cb_error *err) {
    cb_assert_debug(!cbi_task_is_spilling()); /* spilling never acquires */
    return cbi_fail(
        err, CB_EMISUSE,
        "Consumer \"%s\" was asked for memory by a spill function: spilling must not acquire.",
        c->name);
}

cb_status cb_consumer_acquire(cb_consumer *c, uint64_t bytes, uint64_t *granted, cb_error *err) {
    cb_manager *m = c->task->manager;
    if (CBI_UNLIKELY(bytes == 0 || bytes > INT64_MAX)) {
        return cbi_fail(err, CB_EMISUSE, "invalid number of bytes requested: %lld",
                        (long long)bytes);
    }
    if (CBI_UNLIKELY(cbi_task_is_spilling())) {
        return misuse_while_spilling(c, err);
    }
    cbi_lock_take(&m->lock);
    cb_status status = cbi_task_acquire(c, bytes, granted, err);
    cbi_block *chain = cbi_manager_shed(m, c->mode);
    cbi_manager_note_peak(m);
    cbi_lock_give(&m->lock);
    if (CBI_UNLIKELY(chain != NULL)) {
        (void)cbi_allocator_drop(m->allocators[c->mode], chain);
    }
    return status;
}

cb_status cbi_task_refuse(cb_consumer *c, uint64_t asked, uint64_t had, cb_error *err) {
    if (err == NULL) {
        return CB_EBUDGET;
    }
    cb_manager *m = c->task->manager;
    char tree[CB_ERROR_MESSAGE_MAX - 256];
    cbi_lock_take(&m->lock);
    (void)cbi_tree_write(m, NULL, tree, sizeof tree);
    cbi_lock_give(&m->lock);
    return cbi_fail_bytes(err, CB_EBUDGET, asked, had,
                          "Consumer \"%s\" of task %llu asked for %llu bytes and could have had "
                          "%llu, with all spilled "
                          "that would.\n%s",
                          c->name, (unsigned long long)c->task->id, (unsigned long long)asked,
                          (unsigned long long)had, tree);
}

cb_status cb_consumer_acquire_all(cb_consumer *c, uint64_t bytes, cb_error *err) {
    uint64_t granted = 0;
    CB_TRY(cb_consumer_acquire(c, bytes, &granted, err));
    if (granted < bytes) {
        cb_consumer_release(c, granted);
        return cbi_task_refuse(c, bytes, granted, err);
    }
    return CB_OK;
}

void cb_consumer_release(cb_consumer *c, uint64_t bytes) {
    cb_manager *m = c->task->manager;
    cbi_lock_take(&m->lock);
    uint64_t given = cbi_task_release(c, bytes);
    cbi_lock_give(&m->lock);
    if (CBI_UNLIKELY(given < bytes)) {
        cbi_manager_warn(m,
                         "Internal error: release called on %llu bytes but consumer \"%s\" of task "
                         "%llu only has %llu.",
                         (unsigned long long)bytes, c->name, (unsigned long long)c->task->id,
                         (unsigned long long)given);
    }
    cbi_manager_return_spare(m, c->mode);
}

/* ---- when the whole manager must shrink ---- */

/**
 * [locked] The consumer with most of the mode, over all tasks, that has not been asked in this
 * round. Tasks whose turn another thread has are passed over and not waited for: that thread may be
 * asking the same parent for memory, and each would wait for the other.
 */
static cb_consumer *pick_any(const cb_manager *m, cb_mode mode, uint64_t round) {
    cb_consumer *largest = NULL;
    for (const cb_task *t = m->tasks; t != NULL; t = t->next) {
        bool busy = t->turn_taken && turn_held != t;
        for (cb_consumer *c = t->consumers; c != NULL && !busy; c = c->next) {
            if (c->mode == mode && c->spill != NULL && !c->spilling && c->shrink_round != round &&
                cbi_consumer_used(c) > 0 &&
                (largest == NULL || cbi_consumer_used(c) > cbi_consumer_used(largest))) {
                largest = c;
            }
        }
    }
    return largest;
}

bool cbi_task_spill_any(cb_manager *m, cb_mode mode, uint64_t bytes) {
    static _Atomic uint64_t rounds;
    uint64_t round = atomic_fetch_add_explicit(&rounds, 1, memory_order_relaxed) + 1;
    if (cbi_task_is_spilling()) {
        return false; /* a spill function asked for memory in a roundabout way */
    }
    uint64_t released = 0;
    cbi_lock_take(&m->lock);
    cb_consumer *c;
    while (released == 0 && (c = pick_any(m, mode, round)) != NULL) {
        cb_task *t = c->task;
        const cb_task *mine = turn_held; /* a parent may ask us while we reclaim */
        if (mine != t) {
            turn_take(m, t); /* free, or it would not have been picked */
        }
        c->shrink_round = round;
        if (spill(c, bytes, NULL, &released, NULL) != CB_OK) {
            released = 0;
        }
        if (mine != t) {
            turn_give(t);
            turn_held = mine;
        }
    }
    cbi_manager_pass_on(m);
    cbi_lock_give(&m->lock);
    return released > 0;
}
