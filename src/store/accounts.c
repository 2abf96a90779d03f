/* SPDX-License-Identifier: Apache-2.0 */
#include "store/accounts.h"

#include "base/sys.h"
#include "memory/manager.h"

static uint64_t choose(void *ctx, cb_mode mode, uint64_t bytes, const void *block, void **victims) {
    cbi_accounts *a = ctx;
    const int64_t *data_set = block; /* of the block that asks; NULL: execution */
    cbi_lru_entry *chain = NULL;
    cbi_lock_take(&a->lock);
    uint64_t sum = cbi_lru_choose(&a->lru, mode, bytes,
                                  data_set != NULL ? *data_set : CBI_NO_DATA_SET, &chain);
    for (cbi_lru_entry *e = chain; e != NULL; e = e->next_victim) {
        cbi_lru_remove(&a->lru, e);
    }
    cbi_lock_give(&a->lock);
    *victims = chain;
    return sum;
}

void cbi_accounts_enter(cbi_accounts *a, cbi_lru_entry *entry) {
    entry->marked = false;
    cbi_lru_add(&a->lru, entry);
}

/** Those that stay were not used meanwhile, but going to the old end again would have them asked
 *  next: they become the newest. */
static void keep(cbi_accounts *a, cbi_lru_entry *e) {
    cbi_lock_take(&a->lock);
    cbi_accounts_enter(a, e);
    if (a->stay != NULL) {
        a->stay(a->ctx, e);
    }
    cbi_lock_give(&a->lock);
}

/* ---- letting go ---- */

/** Victims that are let go by one thread, or by several where they go to disk: while some wait for
 *  the disk another gets the next file ready. */
typedef struct dropping {
    cbi_accounts *accounts;
    bool many;                    /* several threads are at it */
    uint64_t idle[CB_MODE_COUNT]; /* bytes of each mode that lay idle before; set once */
    cbi_lru_entry *next;          /* guarded by the accounts' lock, as is what follows */
    uint64_t gone;
} dropping;

static cbi_lru_entry *next_victim(dropping *d) {
    cbi_lock_take(&d->accounts->lock);
    cbi_lru_entry *e = d->next;
    if (e != NULL) {
        d->next = e->next_victim;
    }
    cbi_lock_give(&d->accounts->lock);
    return e;
}

/** What many leave behind is of no use as it is to who needed it, and giving it back takes time: it
 *  is done here, where time is spent waiting for the disk. */
static void give_back(const dropping *d, cb_mode mode) {
    if (d->many) {
        (void)cb_allocator_trim(d->accounts->manager->allocators[mode], d->idle[mode]);
    }
}

static void drop_all(void *ctx) {
    dropping *d = ctx;
    cbi_accounts *a = d->accounts;
    for (cbi_lru_entry *e = NULL; (e = next_victim(d)) != NULL;) {
        uint64_t bytes = e->bytes; /* before it is the callee's */
        cb_mode mode = e->mode;
        if (!a->drop(a->ctx, e)) {
            keep(a, e);
            continue;
        }
        give_back(d, mode);
        cbi_lock_take(&a->lock);
        d->gone += bytes;
        a->evicted++;
        cbi_lock_give(&a->lock);
    }
}

enum { HELPERS_MAX = 5 };

/** How many threads beside this one are worth their start for what leaves: a request of a block's
 *  size is short, and the disk is busy when some are on their way (256 KiB: 0.9 GB/s with three
 *  threads, 1.2 with six). */
static int helpers_for(const cbi_accounts *a, const cbi_lru_entry *victims) {
    enum { TWO_BYTES = 4 * 1024 * 1024, ALL_BYTES = 16 * 1024 * 1024 };
    uint64_t bytes = 0;
    int others = -1;
    for (const cbi_lru_entry *e = victims; a->overhead != NULL && e != NULL; e = e->next_victim) {
        bytes += e->bytes;
        others++;
    }
    int most = bytes < TWO_BYTES ? 0 : bytes < ALL_BYTES ? 2 : HELPERS_MAX;
    return others < most ? (others > 0 ? others : 0) : most;
}

static void count_stacks(cbi_accounts *a, int64_t bytes) {
    if (bytes != 0) {
        atomic_fetch_add_explicit(a->overhead, bytes, memory_order_relaxed);
    }
}

static uint64_t drop(void *ctx, void *victims) {
    dropping d = {.accounts = ctx, .next = victims};
    cbi_thread helpers[HELPERS_MAX] = {{.running = false}};
    int count = helpers_for(d.accounts, victims);
    int64_t stacks = (int64_t)count * CBI_STACK_TOUCHED_BYTES;
    count_stacks(d.accounts, stacks);
    d.many = count > 0;
    for (int mode = 0; mode < CB_MODE_COUNT && d.many; mode++) {
        d.idle[mode] = cb_allocator_idle(d.accounts->manager->allocators[mode]);
    }
    bool started = true;
    for (int i = 0; i < count && started; i++) {
        started = cbi_thread_start(&helpers[i], drop_all, &d, "carbide-drop", NULL) == CB_OK;
    }
    drop_all(&d);
    for (int i = 0; i < HELPERS_MAX; i++) {
        cbi_thread_join(&helpers[i]);
    }
    count_stacks(d.accounts, -stacks);
    return d.gone;
}

static void undo(void *ctx, void *victims) {
    for (cbi_lru_entry *e = victims, *next = NULL; e != NULL; e = next) {
        next = e->next_victim;
        keep(ctx, e);
    }
}

void cbi_accounts_init(cbi_accounts *a, cb_manager *manager, cbi_accounts_drop_fn drop_fn,
                       void *ctx) {
    *a = (cbi_accounts){.manager = manager, .drop = drop_fn, .ctx = ctx};
    cbi_lock_init(&a->lock, CBI_RANK_STORE);
    const cb_store store = {.choose = choose, .drop = drop, .undo = undo, .ctx = a};
    cb_manager_set_store(manager, &store);
}

void cbi_accounts_fini(cbi_accounts *a) {
    cb_assert(a->lru.count == 0);
    cb_manager_set_store(a->manager, NULL);
}

cb_status cbi_accounts_add(cbi_accounts *a, cbi_lru_entry *entry, cb_error *err) {
    CB_TRY(
        cb_manager_acquire_storage(a->manager, entry->mode, entry->bytes, &entry->data_set, err));
    cbi_lock_take(&a->lock);
    entry->pins = 0;
    cbi_accounts_enter(a, entry);
    cbi_lock_give(&a->lock);
    return CB_OK;
}

void cbi_accounts_leave(cbi_accounts *a, cbi_lru_entry *entry) {
    cb_assert_debug(!entry->marked);
    cbi_lru_remove(&a->lru, entry);
}

cb_status cbi_accounts_acquire_unroll(cbi_accounts *a, cb_mode mode, uint64_t bytes,
                                      int64_t data_set, cb_error *err) {
    return cb_manager_acquire_unroll(a->manager, mode, bytes, &data_set, err);
}

bool cbi_accounts_remove(cbi_accounts *a, cbi_lru_entry *entry) {
    cbi_lock_take(&a->lock);
    bool ours = !entry->marked;
    if (ours) {
        cbi_lru_remove(&a->lru, entry);
    }
    cbi_lock_give(&a->lock);
    if (ours) {
        cb_manager_release_storage(a->manager, entry->mode, entry->bytes);
    }
    return ours;
}

bool cbi_accounts_pin(cbi_accounts *a, cbi_lru_entry *entry) {
    cbi_lock_take(&a->lock);
    bool ours = !entry->marked;
    if (ours) {
        entry->pins++;
        cbi_lru_touch(&a->lru, entry);
    }
    cbi_lock_give(&a->lock);
    return ours;
}

void cbi_accounts_unpin(cbi_accounts *a, cbi_lru_entry *entry) {
    cbi_lock_take(&a->lock);
    cb_assert(entry->pins > 0);
    entry->pins--;
    cbi_lock_give(&a->lock);
}
