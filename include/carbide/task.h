/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_TASK_H
#define CARBIDE_TASK_H

#include "carbide/manager.h"

CB_EXTERN_C_BEGIN

/*
 * A task is one unit of work: a page table of 8192 pages, consumers that hold its memory, and the
 * right to a share: at least 1/(2N) and at most 1/N of the execution memory when N tasks hold some
 * (Spark: TaskMemoryManager, MemoryConsumer).
 *
 * When memory is short an acquiring thread asks the task's other consumers of the same mode to
 * spill, the smallest that suffices first, the asker last; then it waits for other tasks if the
 * task is below its floor; then it is refused. All functions may be called by any thread, several
 * at once. Those that may wait or spill say so.
 */

typedef struct cb_task cb_task;
typedef struct cb_consumer cb_consumer;

typedef struct cb_task_options {
    size_t struct_size;
    uint64_t id;          /**< for the tree and for messages */
    const char *name;     /**< copied; NULL is fine */
    uint64_t deadline_ns; /**< monotonic clock; a wait ends then with CB_EDEADLINE; 0 = none */
} cb_task_options;

CB_API CB_MUST_USE cb_status cb_task_create(cb_manager *manager, const cb_task_options *options,
                                            cb_task **task, cb_error *err);

/**
 * Ends a task: frees its pages and gives back everything it held. Answers the bytes that had not
 * been given back (a leak) and, when `report` is not NULL, says in it who held them. Then the task
 * and its consumers are gone. NULL answers 0. No thread is inside; a waiting one has been cancelled
 * and has returned.
 */
CB_API uint64_t cb_task_end(cb_task *task, char *report, size_t report_bytes);

/** Every wait of the task ends with CB_ECANCELED, now and from now on; what fits without waiting is
 *  still granted. */
CB_API void cb_task_cancel(cb_task *task);

/** As in the options; waits under way follow. */
CB_API void cb_task_set_deadline(cb_task *task, uint64_t deadline_ns);

/** Bytes the task holds, both modes: now, and at most so far. */
CB_API uint64_t cb_task_used(const cb_task *task);
CB_API uint64_t cb_task_peak(const cb_task *task);

/** The same of one mode (Spark: getPeakOnHeapExecutionMemory, getPeakOffHeapExecutionMemory). */
CB_API uint64_t cb_task_used_in(const cb_task *task, cb_mode mode);
CB_API uint64_t cb_task_peak_in(const cb_task *task, cb_mode mode);
CB_API cb_manager *cb_task_manager(const cb_task *task);

/**
 * Asks a consumer to let go of at least `bytes` if it can; answers how many bytes it has released
 * (with cb_consumer_release, cb_page_free) before it returned; 0: would not. Called with no lock
 * held, by the thread of the asker, never twice at once for one consumer, also while other threads
 * use the consumer. `asker` may be the consumer itself, or NULL (a shrink). It must not acquire:
 * that is CB_EMISUSE, and a debug build ends. A negative cb_status: it failed, and so does who
 * asked.
 */
typedef int64_t (*cb_spill_fn)(void *ctx, uint64_t bytes, cb_consumer *asker);

typedef struct cb_consumer_options {
    size_t struct_size;
    const char *name;  /**< copied, for the tree */
    cb_mode mode;      /**< of what it acquires; pages come in the manager's mode only */
    cb_spill_fn spill; /**< NULL: cannot spill */
    void *ctx;
} cb_consumer_options;

/** Owned by the task: ends with it, or by cb_consumer_destroy. */
CB_API CB_MUST_USE cb_status cb_consumer_create(cb_task *task, const cb_consumer_options *options,
                                                cb_consumer **consumer, cb_error *err);

/** Gives back what it still holds (pages included). NULL is fine. Not while its spill function
 *  runs. */
CB_API void cb_consumer_destroy(cb_consumer *consumer);

/**
 * Has the consumer spill at least `bytes` if it can, as if it had asked itself (Spark:
 * MemoryConsumer.spill()); *released: what its spill function answered, 0 without one. UINT64_MAX:
 * all it can. CB_EMISUSE in a spill function; what a failed spill function answered. Waits until
 * no other thread of the task reclaims.
 */
CB_API CB_MUST_USE cb_status cb_consumer_spill(cb_consumer *consumer, uint64_t bytes,
                                               uint64_t *released, cb_error *err);

CB_API uint64_t cb_consumer_used(const cb_consumer *consumer);
CB_API uint64_t cb_consumer_peak(const cb_consumer *consumer);

/**
 * Accounts up to `bytes` to the consumer and answers in *granted how many (Spark:
 * acquireExecutionMemory): perhaps fewer, perhaps 0, which is CB_OK too. For memory that the caller
 * holds itself. May spill and wait. CB_ECANCELED, CB_EDEADLINE: nothing is granted. CB_EMISUSE:
 * called by a spill function, or 0 bytes. What a failed spill function answered.
 */
CB_API CB_MUST_USE cb_status cb_consumer_acquire(cb_consumer *consumer, uint64_t bytes,
                                                 uint64_t *granted, cb_error *err);

/** The same, all or nothing: CB_EBUDGET with the memory tree in err->message when it cannot be. */
CB_API CB_MUST_USE cb_status cb_consumer_acquire_all(cb_consumer *consumer, uint64_t bytes,
                                                     cb_error *err);

/** More than the consumer holds is warned of and clamped. Never waits. */
CB_API void cb_consumer_release(cb_consumer *consumer, uint64_t bytes);

/**
 * One contiguous page of `bytes`, accounted to the consumer and entered in the task's page table.
 * All or nothing. May spill and wait. CB_EBUDGET with the tree; CB_ENOMEM when the system has less
 * than the budget says, after spilling what could be; CB_EINVAL above CB_PAGE_BYTES_MAX; CB_EBUDGET
 * when all 8192 page numbers are taken; others as cb_consumer_acquire.
 */
CB_API CB_MUST_USE cb_status cb_page_alloc(cb_consumer *consumer, size_t bytes, cb_page *page,
                                           cb_error *err);

/**
 * The same, and content with less: a page of at most `bytes` and at least `bytes_min`, as large as
 * what was granted allows; page->bytes says how large (Spark: MemoryConsumer.allocatePage asks for
 * a whole page and takes any that holds what is needed).
 */
CB_API CB_MUST_USE cb_status cb_page_alloc_least(cb_consumer *consumer, size_t bytes_min,
                                                 size_t bytes, cb_page *page, cb_error *err);

/** CB_EMISUSE, and nothing happens, when the page is not one of this consumer, or was freed; with
 *  Spark's messages. */
CB_API CB_MUST_USE cb_status cb_page_free(cb_consumer *consumer, cb_page *page, cb_error *err);

/** The largest page: (2^31 - 1) * 8 bytes, Spark's MAXIMUM_PAGE_SIZE_BYTES. */
#define CB_PAGE_BYTES_MAX ((uint64_t)0x7fffffff * 8)

/** 64-bit elements in a page of their own (Spark: LongArray). */
typedef struct cb_array {
    uint64_t *items;
    size_t count;
    cb_page page;
} cb_array;

CB_API CB_MUST_USE cb_status cb_array_alloc(cb_consumer *consumer, size_t count, cb_array *array,
                                            cb_error *err);
CB_API CB_MUST_USE cb_status cb_array_free(cb_consumer *consumer, cb_array *array, cb_error *err);

/* ---- addresses: 13 bits of page number, 51 of offset ---- */

enum {
    CB_PAGE_NUMBER_BITS = 13,
    CB_PAGE_OFFSET_BITS = 51,
    CB_PAGE_TABLE_SIZE = 1 << CB_PAGE_NUMBER_BITS
};

typedef uint64_t cb_address;

/** Ends the process: there is no address in a page that is not in a task's table. */
CB_API CB_NORETURN void cb_address_invalid(const cb_page *page);

/** `offset`: bytes from the page's first, of which 51 bits count. Both modes keep offsets that are
 *  relative to the page. The page is one of a task and not freed. */
static inline cb_address cb_address_of(const cb_page *page, uint64_t offset) {
    if (page->number < 0) {
        cb_address_invalid(page);
    }
    return ((uint64_t)(uint32_t)page->number << CB_PAGE_OFFSET_BITS) |
           (offset & (((uint64_t)1 << CB_PAGE_OFFSET_BITS) - 1));
}

/** Of a byte in the page: pointers may need more than 51 bits, their distance from the page's first
 *  byte does not. */
static inline cb_address cb_address_of_byte(const cb_page *page, const void *byte) {
    return cb_address_of(page, (uint64_t)((const uint8_t *)byte - cb_page_data(page)));
}
static inline uint32_t cb_address_page(cb_address address) {
    return (uint32_t)(address >> CB_PAGE_OFFSET_BITS);
}
static inline uint64_t cb_address_offset(cb_address address) {
    return address & (((uint64_t)1 << CB_PAGE_OFFSET_BITS) - 1);
}

/** The task's table of first bytes, CB_PAGE_TABLE_SIZE long, NULL where there is no page. Borrowed
 *  for the task's life. */
CB_API uint8_t *const *cb_task_page_table(const cb_task *task);

/** The byte an address means. One load; the page must be there. */
static inline uint8_t *cb_address_data(uint8_t *const *page_table, cb_address address) {
    return page_table[cb_address_page(address)] + cb_address_offset(address);
}

CB_EXTERN_C_END

#endif
