/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_MANAGER_H
#define CARBIDE_MANAGER_H

#include "carbide/pool.h"

CB_EXTERN_C_BEGIN

/**
 * Who decides what happens when bytes are short. Both run on the same code.
 * SPARK: exactly what Spark 4.2's UnifiedMemoryManager and its pools answer, warts too.
 * NATIVE: any release wakes who can go on; a task above its share is told to spill instead of given
 * nothing; what a spill frees goes to who asked; a wait in which nobody could ever release ends.
 */
typedef enum cb_rules { CB_RULES_NATIVE = 0, CB_RULES_SPARK } cb_rules;

/**
 * How a mode's bytes are split. UNIFIED: execution and storage borrow from each other (Spark:
 * UnifiedMemoryManager). STATIC: each keeps its own, and unrolling has a limited part of storage
 * evicted (Spark 2.4: StaticMemoryManager; under SPARK rules there is no off-heap storage).
 */
typedef enum cb_policy { CB_POLICY_UNIFIED = 0, CB_POLICY_STATIC } cb_policy;

/**
 * Where a manager gets its bytes from when it does not own them: a host program, Spark's
 * TaskMemoryManager. Both are called with no lock held, by any thread, perhaps several at once.
 */
typedef struct cb_parent {
    /** Answers what it gives, 0..bytes. */
    uint64_t (*acquire)(void *ctx, cb_mode mode, uint64_t bytes);
    void (*release)(void *ctx, cb_mode mode, uint64_t bytes);
    void *ctx;
} cb_parent;

/** Bytes taken from and returned to a parent at a time: requests are rounded up to this. */
#define CB_PARENT_STEP_BYTES ((uint64_t)1024 * 1024)

/**
 * Eviction, implemented by who keeps blocks. Two phases, none under a lock of the manager: `choose`
 * picks and marks victims (marked blocks are neither free nor to be chosen again), `drop` lets them
 * go.
 */
typedef struct cb_store {
    /**
     * Marks blocks of `mode` of at least `bytes` together, none of which may be `block`'s kin, and
     * answers their bytes; or marks none and answers 0. *victims is the store's own, passed to drop
     * or undo. block NULL: execution asks.
     */
    uint64_t (*choose)(void *ctx, cb_mode mode, uint64_t bytes, const void *block, void **victims);
    /** Drops the marked blocks and answers the bytes of those that left; others stay and are
     *  unmarked. Must not call the manager for these bytes: its answer is the release. */
    uint64_t (*drop)(void *ctx, void *victims);
    void (*undo)(void *ctx, void *victims); /**< unmarks them all */
    void *ctx;
} cb_store;

/** A sentence about something that was survived, such as a release of more than was held. No lock
 *  is held. */
typedef void (*cb_warning_fn)(void *ctx, const char *sentence);

/** Zero-initialise, set struct_size and what is wanted. Pointers inside are borrowed for the
 *  manager's life. */
typedef struct cb_manager_options {
    size_t struct_size;
    cb_rules rules;
    cb_policy policy;
    /** Where tasks' pages come from, and what the ledger is charged to (tungstenMemoryMode). */
    cb_mode mode;
    uint64_t heap_bytes;     /**< the two heap pools together: the budget of that mode */
    uint64_t off_heap_bytes; /**< the two off-heap pools together */
    /** Storage up to here is never evicted for execution; of each mode. Bytes win over the fraction
     *  when not 0. */
    uint64_t heap_storage_bytes, off_heap_storage_bytes;
    double storage_fraction; /**< 0..1; SPARK: negative = 0.5 */
    /** STATIC: how much of storage unrolling may have evicted, beyond what is free; 0..1, 0 =
     * Spark's 0.2, negative = nothing. */
    double unroll_fraction;
    size_t page_bytes; /**< what cb_manager_page_bytes answers; 0 = by the rules' formula */
    unsigned cores;    /**< for that formula; 0 = the process's */
    bool debug_fill;   /**< see cb_allocator_options */
    bool huge_pages;
    /** Freed off-heap pages kept for reuse, at most; the budget may take them at any time. */
    uint64_t idle_max;
    /** NULL: the bytes are the manager's own. Otherwise the sizes above are upper limits. */
    const cb_parent *parent;
    cb_warning_fn warn; /**< NULL: nobody listens */
    void *warn_ctx;
} cb_manager_options;

typedef struct cb_manager cb_manager;

/** Options of a manager that owns `bytes` off-heap, all of it for execution, native rules: what the
 *  command runs on. */
CB_API cb_manager_options cb_manager_options_native(uint64_t bytes);

/** Owned by the caller. CB_EINVAL names the rule that the options break; CB_ENOMEM. */
CB_API CB_MUST_USE cb_status cb_manager_create(const cb_manager_options *options,
                                               cb_manager **manager, cb_error *err);

/** NULL is fine. All tasks have ended, no thread is inside. */
CB_API void cb_manager_destroy(cb_manager *manager);

/** Who evicts. Before the first storage request; NULL takes it away. Not while anyone is inside. */
CB_API void cb_manager_set_store(cb_manager *manager, const cb_store *store);

/**
 * Bytes for a block (Spark: acquireStorageMemory). Borrows free execution memory, then evicts
 * blocks, never execution. `block` is handed to the store. CB_EBUDGET when it cannot be; the border
 * between the pools may have moved all the same. Does not wait for others to release; blocks while
 * the store drops. Any thread, no lock of the store held.
 */
CB_API CB_MUST_USE cb_status cb_manager_acquire_storage(cb_manager *manager, cb_mode mode,
                                                        uint64_t bytes, const void *block,
                                                        cb_error *err);

/**
 * The same for unrolling: storage memory under another name, but in the static policy it has no
 * more evicted than the unroll fraction allows, less what is free and what is unrolled already.
 * CB_EUNSUPPORTED off-heap, for both, when the static policy runs under SPARK rules.
 */
CB_API CB_MUST_USE cb_status cb_manager_acquire_unroll(cb_manager *manager, cb_mode mode,
                                                       uint64_t bytes, const void *block,
                                                       cb_error *err);

/** A release of more than is used (unroll: than was acquired for unrolling) is warned of and
 *  clamped. Any thread. */
CB_API void cb_manager_release_storage(cb_manager *manager, cb_mode mode, uint64_t bytes);
CB_API void cb_manager_release_unroll(cb_manager *manager, cb_mode mode, uint64_t bytes);
CB_API void cb_manager_release_all_storage(cb_manager *manager);

/**
 * The end of an unrolling: of `unroll_bytes` acquired for it `storage_bytes`, not more, become
 * storage memory and the rest is given back, in one step that cannot fail and in which nobody else
 * gets them. Any thread.
 */
CB_API void cb_manager_finish_unroll(cb_manager *manager, cb_mode mode, uint64_t unroll_bytes,
                                     uint64_t storage_bytes);

/** Most that storage could have now: the mode's bytes without what execution uses (Spark:
 *  maxOnHeapStorageMemory). */
CB_API uint64_t cb_manager_storage_max(const cb_manager *manager, cb_mode mode);

/**
 * A request to shrink, from the parent or the host: gives back free bytes, idle pages, what storage
 * can evict and what consumers can spill, in this order, until `bytes` are there. Answers what was
 * given back (to the parent, when there is one); the mode's budget is smaller by that. Calls spill
 * functions: same rules as for cb_page_alloc. Any thread.
 */
CB_API uint64_t cb_manager_shrink(cb_manager *manager, cb_mode mode, uint64_t bytes);

/** The budget is larger from now on; waiting tasks may go on. */
CB_API void cb_manager_grow(cb_manager *manager, cb_mode mode, uint64_t bytes);

CB_API void cb_manager_pool(const cb_manager *manager, cb_region region, cb_mode mode,
                            cb_pool_stats *stats);

/** The size a page should have: native, a power of two of 64 KiB..64 MiB by the budget; Spark's
 *  formula, 1..64 MiB. */
CB_API size_t cb_manager_page_bytes(const cb_manager *manager);

/** Ledger + pools' used + idle pages, now and at most so far. In bytes, both modes. Any thread. */
CB_API uint64_t cb_manager_accounted(const cb_manager *manager);
CB_API uint64_t cb_manager_accounted_peak(const cb_manager *manager);

/** Bytes charged beyond the budget by cb_ledger_force and not yet paid back. */
CB_API uint64_t cb_manager_debt(const cb_manager *manager);

/**
 * The memory tree as text: manager -> ledger, pools, task -> consumer, used, peak, who would not
 * spill. As much as fits in `bytes`, always terminated; answers the bytes that all of it takes,
 * without the terminator. Any thread.
 */
CB_API size_t cb_manager_tree(const cb_manager *manager, char *text, size_t bytes);

CB_EXTERN_C_END

#endif
