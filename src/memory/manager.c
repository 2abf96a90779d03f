/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads' side of the arbiter: one lock around it, a place to wait for each request, and
 * everything that calls out (store, parent, listener) with the lock not held.
 *
 * How a request goes: the arbiter says granted, and that is all. Or it says evict: the lock is
 * given, the store chooses and drops, the lock is taken, the arbiter settles. Or it says blocked:
 * the request lies on its thread's stack, in the arbiter's queue, and the thread parks; whoever
 * releases passes answers on and opens that thread's parker, nobody else's. What an answer grants
 * is the waiter's from then on, so nobody can take it between the wake and the running of the
 * thread.
 */
#include "memory/manager.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "memory/task.h"

/* Spark: page size = execution pool / cores / this, to the next power of two. */
enum { PAGE_SAFETY_FACTOR = 16 };

/* Spark 2.4: spark.storage.unrollFraction */
#define UNROLL_FRACTION 0.2

void cbi_name_copy(char out[CBI_NAME_BYTES], const char *name) {
    size_t bytes = name != NULL ? strlen(name) : 0;
    bytes = cbi_min(bytes, CBI_NAME_BYTES - 1);
    if (bytes > 0) {
        memcpy(out, name, bytes);
    }
    out[bytes] = '\0';
}

void cbi_manager_warn(const cb_manager *m, const char *fmt, ...) {
    if (m->warn == NULL) {
        return;
    }
    char sentence[256];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(sentence, sizeof sentence, fmt, args);
    va_end(args);
    m->warn(m->warn_ctx, sentence);
}

/* ---- from beginning to end ---- */

cb_manager_options cb_manager_options_native(uint64_t bytes) {
    return (cb_manager_options){.struct_size = sizeof(cb_manager_options),
                                .rules = CB_RULES_NATIVE,
                                .mode = CB_OFF_HEAP,
                                .off_heap_bytes = bytes,
                                .idle_max = UINT64_MAX};
}

static cb_status check_options(const cb_manager_options *o, const uint64_t region[CB_MODE_COUNT],
                               cb_error *err) {
    if (o->struct_size != sizeof *o) {
        return cbi_fail(err, CB_EINVAL,
                        "cb_manager_options has %zu bytes here, struct_size says %zu.", sizeof *o,
                        o->struct_size);
    }
    if ((o->policy != CB_POLICY_UNIFIED && o->policy != CB_POLICY_STATIC) ||
        (o->mode != CB_HEAP && o->mode != CB_OFF_HEAP)) {
        return cbi_fail(err, CB_EINVAL, "There is no such policy or mode.");
    }
    if (!(o->storage_fraction <= 1)) {
        return cbi_fail(err, CB_EINVAL, "The storage fraction must be in [0, 1], not %g.",
                        o->storage_fraction);
    }
    if (!(o->unroll_fraction <= 1)) {
        return cbi_fail(err, CB_EINVAL, "The unroll fraction must be in [0, 1], not %g.",
                        o->unroll_fraction);
    }
    if (o->page_bytes > 0 && (o->page_bytes & (o->page_bytes - 1)) != 0) {
        return cbi_fail(err, CB_EINVAL, "The page size must be a power of two, not %zu.",
                        o->page_bytes);
    }
    if (o->heap_bytes > INT64_MAX / 4 || o->off_heap_bytes > INT64_MAX / 4) {
        return cbi_fail(err, CB_EINVAL, "A budget of more than 2^61 bytes is not one.");
    }
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        uint64_t bytes = mode == CB_HEAP ? o->heap_bytes : o->off_heap_bytes;
        if (region[mode] > bytes) {
            return cbi_fail(err, CB_EINVAL,
                            "The storage region of %llu bytes must not be larger than the %llu "
                            "bytes %s that it is a part of.",
                            (unsigned long long)region[mode], (unsigned long long)bytes,
                            mode == CB_HEAP ? "on the heap" : "off-heap");
        }
    }
    if (o->rules == CB_RULES_SPARK && o->policy == CB_POLICY_UNIFIED &&
        region[CB_HEAP] >= o->heap_bytes) {
        return cbi_fail(
            err, CB_EINVAL,
            "onHeapExecutionMemory must be > 0: the storage region takes all the heap.");
    }
    if (o->policy == CB_POLICY_STATIC && o->parent != NULL) {
        return cbi_fail(err, CB_EINVAL,
                        "The static policy splits its bytes at the start, so it cannot draw them "
                        "from a parent step by step.");
    }
    if (o->mode == CB_OFF_HEAP && o->off_heap_bytes == 0) {
        return cbi_fail(err, CB_EINVAL,
                        "The off-heap size must be > 0 when off-heap memory is enabled.");
    }
    return CB_OK;
}

static size_t next_power_of_two(uint64_t n) {
    size_t power = 1;
    while (power < n) {
        power *= 2;
    }
    return power;
}

/** Native: a 64th of the budget for each core's one page in hand and one at the disk, 64 KiB to 64
 *  MiB. */
static size_t page_bytes_by_rules(const cb_manager_options *o, uint64_t total, uint64_t execution) {
    unsigned cores = o->cores > 0 ? o->cores : cbi_sys_cpus();
    if (o->rules == CB_RULES_SPARK) {
        return cbi_clamp(next_power_of_two(execution / cores / PAGE_SAFETY_FACTOR), CBI_MIB,
                         64 * CBI_MIB);
    }
    return cbi_clamp(next_power_of_two(total / cores / 64 + 1) / 2, 64 * CBI_KIB, 64 * CBI_MIB);
}

static cb_status create_parts(cb_manager *m, const cb_manager_options *o, cb_error *err) {
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_allocator_options options = {.struct_size = sizeof options,
                                        .mode = (cb_mode)mode,
                                        .debug_fill = o->debug_fill,
                                        .huge_pages = o->huge_pages,
                                        .idle_max = o->idle_max};
        CB_TRY(cbi_allocator_create(&options, &m->lock, &m->allocators[mode], err));
    }
    return cb_ledger_add(m, "task page tables", NULL, NULL, &m->tables, err);
}

cb_status cb_manager_create(const cb_manager_options *o, cb_manager **manager, cb_error *err) {
    const uint64_t total[CB_MODE_COUNT] = {o->heap_bytes, o->off_heap_bytes};
    double fraction = o->storage_fraction >= 0 ? o->storage_fraction : 0.5;
    uint64_t region[CB_MODE_COUNT] = {o->heap_storage_bytes, o->off_heap_storage_bytes};
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        if (region[mode] == 0 && fraction <= 1) {
            region[mode] = (uint64_t)((double)total[mode] * fraction);
        }
    }
    if (o->policy == CB_POLICY_STATIC && o->rules == CB_RULES_SPARK) {
        region[CB_OFF_HEAP] = 0; /* all of it is for execution there */
    }
    CB_TRY(check_options(o, region, err));
    cb_manager *m = cbi_calloc(1, sizeof *m);
    if (m == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a manager.");
    }
    cbi_lock_init(&m->lock, CBI_RANK_MANAGER);
    m->mode = o->mode;
    m->rules = o->rules;
    m->no_off_heap_storage = o->policy == CB_POLICY_STATIC && o->rules == CB_RULES_SPARK;
    m->page_bytes = o->page_bytes > 0
                        ? o->page_bytes
                        : page_bytes_by_rules(o, total[o->mode], total[o->mode] - region[o->mode]);
    m->warn = o->warn;
    m->warn_ctx = o->warn_ctx;
    cbi_arbiter_init(&m->arbiter, o->rules, o->policy, total, region);
    if (o->policy == CB_POLICY_STATIC) {
        double unroll = o->unroll_fraction == 0 ? UNROLL_FRACTION : o->unroll_fraction;
        for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
            m->arbiter.unroll_evict_max[mode] =
                unroll > 0 ? (uint64_t)((double)region[mode] * unroll) : 0;
        }
    }
    if (o->parent != NULL) {
        static const uint64_t nothing[CB_MODE_COUNT];
        m->has_parent = true;
        m->parent = *o->parent;
        cbi_arbiter_init(&m->arbiter, o->rules, o->policy, nothing, nothing);
        for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
            m->limit[mode] = total[mode];
            m->arbiter.region[mode] = region[mode];
        }
    }
    cb_status status = create_parts(m, o, err);
    if (status != CB_OK) {
        cb_manager_destroy(m);
        return status;
    }
    *manager = m;
    return CB_OK;
}

void cb_manager_destroy(cb_manager *m) {
    if (m == NULL) {
        return;
    }
    cb_assert(m->tasks == NULL);
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_allocator_destroy(m->allocators[mode]);
        if (m->drawn[mode] > 0) {
            m->parent.release(m->parent.ctx, (cb_mode)mode, m->drawn[mode]);
        }
    }
    while (m->ledger != NULL) {
        cb_ledger_entry *next = m->ledger->next;
        cbi_free(m->ledger);
        m->ledger = next;
    }
    cbi_free(m);
}

void cb_manager_set_store(cb_manager *m, const cb_store *store) {
    cbi_lock_take(&m->lock);
    m->store = store != NULL ? *store : (cb_store){0};
    cbi_lock_give(&m->lock);
}

/* ---- waiting and evicting ---- */

/** [locked] The two phases of an eviction; the lock is not held while the store works. */
static void evict(cb_manager *m, cbi_waiter *w) {
    cbi_request *r = &w->request;
    void *victims = NULL;
    uint64_t chosen = 0, dropped = 0;
    if (m->store.choose != NULL) {
        cbi_lock_give(&m->lock);
        chosen = m->store.choose(m->store.ctx, r->mode, r->evict_bytes, w->block, &victims);
        cbi_lock_take(&m->lock);
    }
    if (chosen > 0) {
        cbi_arbiter_marked(&m->arbiter, r, chosen);
        cbi_lock_give(&m->lock);
        dropped = m->store.drop(m->store.ctx, victims);
        cb_assert(dropped <= chosen);
        cbi_lock_take(&m->lock);
    }
    (void)cbi_arbiter_settle(&m->arbiter, r, dropped);
    cbi_manager_pass_on(m);
}

/** [locked] Parks until there is an answer. */
static cb_status await(cb_manager *m, cbi_waiter *w, cb_error *err) {
    cb_task *t = w->task;
    cbi_request *r = &w->request;
    cb_status status = CB_OK;
    w->next = t->waiters;
    t->waiters = w;
    while (r->verdict == CBI_BLOCKED && status == CB_OK) {
        uint64_t deadline = t->deadline_ns;
        if (t->cancelled) {
            status = cbi_fail(err, CB_ECANCELED,
                              "Task %llu was cancelled while it waited for %llu bytes.",
                              (unsigned long long)t->id, (unsigned long long)r->bytes);
        } else if (deadline > 0 && cbi_sys_clock_ns() >= deadline) {
            status =
                cbi_fail(err, CB_EDEADLINE, "Task %llu waited for %llu bytes until its deadline.",
                         (unsigned long long)t->id, (unsigned long long)r->bytes);
        } else {
            cbi_parker_close(&w->parker);
            cbi_lock_give(&m->lock);
            (void)cbi_parker_wait(&w->parker, deadline);
            cbi_lock_take(&m->lock);
        }
    }
    for (cbi_waiter **at = &t->waiters;; at = &(*at)->next) {
        if (*at == w) {
            *at = w->next;
            break;
        }
    }
    if (status != CB_OK) {
        cbi_arbiter_withdraw(&m->arbiter, r);
        cbi_manager_pass_on(m);
    }
    return status;
}

cb_status cbi_manager_finish(cb_manager *m, cbi_waiter *w, cb_error *err) {
    cbi_request *r = &w->request;
    while (r->verdict != CBI_GRANTED) {
        if (r->verdict == CBI_EVICT) {
            evict(m, w);
        } else if (r->verdict == CBI_BLOCKED) {
            CB_TRY(await(m, w, err));
        } else {
            if (r->verdict == CBI_BROKEN) {
                return cbi_fail(
                    err, CB_EINVAL,
                    "The store evicted more bytes than storage used: some were released "
                    "with no block.");
            }
            cb_assert(r->verdict == CBI_LOST);
            return cbi_fail(err, CB_ENOTFOUND, "key not found: %llu",
                            (unsigned long long)w->task->id);
        }
    }
    return CB_OK;
}

/* ---- storage ---- */

static cb_status acquire_storage(cb_manager *m, cbi_waiter *w, cb_error *err) {
    cb_mode mode = w->request.mode;
    if (mode == CB_OFF_HEAP && m->no_off_heap_storage) {
        return cbi_fail(
            err, CB_EUNSUPPORTED,
            "The static policy does not support off-heap %s memory under Spark's rules.",
            w->request.unroll ? "unroll" : "storage");
    }
    cbi_lock_take(&m->lock);
    if (w->whole > 0 && w->capacity > 0 && cbi_allocator_has(m->allocators[mode], w->capacity)) {
        w->request.bytes = w->whole;
    } else if (w->whole > 0) {
        w->capacity = 0;
    }
    uint64_t bytes = w->request.bytes;
    if (CBI_UNLIKELY(m->has_parent)) {
        cbi_manager_draw(m, mode, bytes);
    }
    (void)cbi_arbiter_acquire_storage(&m->arbiter, &w->request);
    if (w->request.verdict == CBI_EVICT) {
        evict(m, w);
    }
    cbi_manager_pass_on(m);
    if (w->request.verdict == CBI_GRANTED && w->capacity > 0) { /* before it is too much */
        w->idle = cbi_allocator_reuse(m->allocators[mode], w->capacity);
    }
    cbi_block *chain = cbi_manager_shed(m, mode);
    cbi_manager_note_peak(m);
    uint64_t most = cbi_arbiter_storage_max(&m->arbiter, mode);
    cbi_lock_give(&m->lock);
    (void)cbi_allocator_drop(m->allocators[mode], chain);
    if (w->request.verdict != CBI_GRANTED) {
        return cbi_fail_bytes(
            err, CB_EBUDGET, bytes, most,
            "%llu bytes of storage memory cannot be had: at most %llu could be there, with every "
            "block evicted that may be.",
            (unsigned long long)bytes, (unsigned long long)most);
    }
    return CB_OK;
}

cb_status cb_manager_acquire_storage(cb_manager *m, cb_mode mode, uint64_t bytes, const void *block,
                                     cb_error *err) {
    cbi_waiter w = {.request = {.mode = mode, .bytes = bytes}, .block = block};
    return acquire_storage(m, &w, err);
}

cb_status cbi_manager_acquire_storage(cb_manager *m, cb_mode mode, uint64_t bytes,
                                      const void *block, size_t capacity, cbi_block **idle,
                                      cb_error *err) {
    cbi_waiter w = {
        .request = {.mode = mode, .bytes = bytes}, .block = block, .capacity = capacity};
    CB_TRY(acquire_storage(m, &w, err));
    *idle = w.idle;
    return CB_OK;
}

cb_status cb_manager_acquire_unroll(cb_manager *m, cb_mode mode, uint64_t bytes, const void *block,
                                    cb_error *err) {
    cbi_waiter w = {.request = {.mode = mode, .bytes = bytes, .unroll = true}, .block = block};
    return acquire_storage(m, &w, err);
}

cb_status cbi_manager_acquire_fill(cb_manager *m, cb_mode mode, uint64_t least, uint64_t bytes,
                                   const void *block, size_t capacity, uint64_t *got,
                                   cbi_block **idle, cb_error *err) {
    cbi_waiter w = {.request = {.mode = mode, .bytes = least, .unroll = true},
                    .block = block,
                    .capacity = capacity,
                    .whole = bytes};
    CB_TRY(acquire_storage(m, &w, err));
    *got = w.request.bytes;
    *idle = w.idle;
    return CB_OK;
}

void cb_manager_release_storage(cb_manager *m, cb_mode mode, uint64_t bytes) {
    cbi_lock_take(&m->lock);
    uint64_t given = cbi_arbiter_release_storage(&m->arbiter, mode, bytes);
    cbi_manager_pass_on(m);
    cbi_lock_give(&m->lock);
    if (given < bytes) {
        cbi_manager_warn(m, "%llu bytes of storage memory were released where only %llu were used.",
                         (unsigned long long)bytes, (unsigned long long)given);
    }
    cbi_manager_return_spare(m, mode);
}

void cb_manager_release_unroll(cb_manager *m, cb_mode mode, uint64_t bytes) {
    cbi_lock_take(&m->lock);
    uint64_t given = cbi_arbiter_release_unroll(&m->arbiter, mode, bytes);
    cbi_manager_pass_on(m);
    cbi_lock_give(&m->lock);
    if (given < bytes) {
        cbi_manager_warn(m, "%llu bytes of unroll memory were released where only %llu were used.",
                         (unsigned long long)bytes, (unsigned long long)given);
    }
    cbi_manager_return_spare(m, mode);
}

void cb_manager_finish_unroll(cb_manager *m, cb_mode mode, uint64_t unroll_bytes,
                              uint64_t storage_bytes) {
    cbi_lock_take(&m->lock);
    cb_assert(storage_bytes <= unroll_bytes);
    cbi_arbiter_finish_unroll(&m->arbiter, mode, unroll_bytes, storage_bytes);
    cbi_manager_pass_on(m);
    cbi_lock_give(&m->lock);
    cbi_manager_return_spare(m, mode);
}

void cb_manager_release_all_storage(cb_manager *m) {
    cbi_lock_take(&m->lock);
    cbi_arbiter_release_all_storage(&m->arbiter);
    cbi_manager_pass_on(m);
    cbi_lock_give(&m->lock);
}

uint64_t cb_manager_storage_max(const cb_manager *m, cb_mode mode) {
    cbi_lock *lock = &((cb_manager *)(uintptr_t)m)->lock;
    cbi_lock_take(lock);
    uint64_t most = cbi_arbiter_storage_max(&m->arbiter, mode);
    cbi_lock_give(lock);
    return most;
}

/* ---- a budget that changes, and its source ---- */

void cbi_manager_draw(cb_manager *m, cb_mode mode, uint64_t bytes) {
    uint64_t spare = cbi_pool_free(&m->arbiter.pools[CB_EXECUTION][mode]);
    uint64_t room = m->limit[mode] - m->drawn[mode];
    if (bytes <= spare || room == 0) {
        return;
    }
    uint64_t steps = (bytes - spare - 1) / CB_PARENT_STEP_BYTES + 1;
    uint64_t asked = steps <= room / CB_PARENT_STEP_BYTES ? steps * CB_PARENT_STEP_BYTES : room;
    m->drawn[mode] += asked; /* before the lock goes: two threads must not count on one room */
    cbi_lock_give(&m->lock);
    uint64_t got = m->parent.acquire(m->parent.ctx, mode, asked);
    cb_assert(got <= asked);
    cbi_lock_take(&m->lock);
    m->drawn[mode] -= asked - got;
    cbi_arbiter_grow(&m->arbiter, mode, got);
    cbi_manager_pass_on(m);
}

void cbi_manager_return_spare_slow(cb_manager *m, cb_mode mode) {
    cbi_lock_take(&m->lock);
    uint64_t spare = cbi_pool_free(&m->arbiter.pools[CB_EXECUTION][mode]);
    uint64_t bytes = 0;
    cbi_block *chain = NULL;
    if (spare >= 2 * CB_PARENT_STEP_BYTES) {
        bytes = cbi_arbiter_shrink(&m->arbiter, mode,
                                   spare / CB_PARENT_STEP_BYTES * CB_PARENT_STEP_BYTES -
                                       CB_PARENT_STEP_BYTES);
        m->drawn[mode] -= bytes;
        chain = cbi_manager_shed(m, mode);
    }
    cbi_lock_give(&m->lock);
    (void)cbi_allocator_drop(m->allocators[mode], chain);
    if (bytes > 0) {
        m->parent.release(m->parent.ctx, mode, bytes);
    }
}

/** Takes up to `bytes` of what is free out of the budget. */
static uint64_t shrink_free(cb_manager *m, cb_mode mode, uint64_t bytes) {
    cbi_lock_take(&m->lock);
    uint64_t taken = cbi_arbiter_shrink(&m->arbiter, mode, bytes);
    if (m->has_parent) {
        taken = cbi_min(taken, m->drawn[mode]);
        m->drawn[mode] -= taken;
    }
    cbi_block *chain = cbi_manager_shed(m, mode);
    cbi_lock_give(&m->lock);
    (void)cbi_allocator_drop(m->allocators[mode], chain);
    return taken;
}

/** Has the store evict up to `bytes`; true when something left. */
static bool shrink_storage(cb_manager *m, cb_mode mode, uint64_t bytes) {
    cb_pool_stats stats;
    cb_manager_pool(m, CB_STORAGE, mode, &stats);
    uint64_t wanted = cbi_min(bytes, stats.used);
    if (m->store.choose == NULL || wanted == 0) {
        return false;
    }
    void *victims = NULL;
    uint64_t chosen = m->store.choose(m->store.ctx, mode, wanted, NULL, &victims);
    uint64_t dropped = chosen > 0 ? m->store.drop(m->store.ctx, victims) : 0;
    if (dropped > 0) {
        cb_manager_release_storage(m, mode, dropped);
    }
    return dropped > 0;
}

uint64_t cb_manager_shrink(cb_manager *m, cb_mode mode, uint64_t bytes) {
    uint64_t taken = shrink_free(m, mode, bytes);
    while (taken < bytes && shrink_storage(m, mode, bytes - taken)) {
        taken += shrink_free(m, mode, bytes - taken);
    }
    while (taken < bytes && cbi_task_spill_any(m, mode, bytes - taken)) {
        taken += shrink_free(m, mode, bytes - taken);
    }
    if (m->has_parent && taken > 0) {
        m->parent.release(m->parent.ctx, mode, taken);
    }
    return taken;
}

void cb_manager_grow(cb_manager *m, cb_mode mode, uint64_t bytes) {
    cbi_lock_take(&m->lock);
    if (m->has_parent) {
        m->drawn[mode] += bytes;
        m->limit[mode] += bytes;
    }
    cbi_arbiter_grow(&m->arbiter, mode, bytes);
    cbi_manager_pass_on(m);
    cbi_lock_give(&m->lock);
}

/* ---- looking ---- */

void cb_manager_pool(const cb_manager *m, cb_region region, cb_mode mode, cb_pool_stats *stats) {
    cbi_lock *lock = &((cb_manager *)(uintptr_t)m)->lock;
    cbi_lock_take(lock);
    cbi_pool_stats(&m->arbiter.pools[region][mode], stats);
    cbi_lock_give(lock);
}

size_t cb_manager_page_bytes(const cb_manager *m) {
    return m->page_bytes;
}

uint64_t cb_manager_accounted(const cb_manager *m) {
    cbi_lock *lock = &((cb_manager *)(uintptr_t)m)->lock;
    cbi_lock_take(lock);
    uint64_t bytes = cbi_manager_accounted(m);
    cbi_lock_give(lock);
    return bytes;
}

uint64_t cb_manager_accounted_peak(const cb_manager *m) {
    cbi_lock *lock = &((cb_manager *)(uintptr_t)m)->lock;
    cbi_lock_take(lock);
    uint64_t bytes = m->accounted_peak;
    cbi_lock_give(lock);
    return bytes;
}

uint64_t cb_manager_debt(const cb_manager *m) {
    cbi_lock *lock = &((cb_manager *)(uintptr_t)m)->lock;
    cbi_lock_take(lock);
    uint64_t bytes = m->arbiter.debt[CB_HEAP] + m->arbiter.debt[CB_OFF_HEAP];
    cbi_lock_give(lock);
    return bytes;
}
