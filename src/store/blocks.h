/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_BLOCKS_H
#define CBI_BLOCKS_H

#include "base/sys.h"
#include "carbide/ledger.h"
#include "store/accounts.h"
#include "store/contents.h"
#include "store/disk.h"
#include "store/index.h"
#include "store/manifest.h"
#include "store/report.h"
#include "store/sizes.h"

/*
 * The store from inside. accounts.lock is the one lock of index, locks of blocks, order of use,
 * tasks and statistics; functions marked [locked] are called with it held. What a block consists of
 * is changed only by who has it for himself: its writer (node->writer), or an eviction
 * (entry.marked); everybody else waits for these. So no memory is acquired, no file touched and no
 * callback called with the lock held.
 */

enum { CBI_CLASSES_MAX = 255 };

/** What there is of blocks that were put at one level, replicas apart. */
typedef struct cbi_of_level {
    uint64_t memory_blocks, memory_bytes, disk_blocks, disk_bytes;
} cbi_of_level;

/** What outlives the store. */
typedef struct cbi_keep {
    bool on, ready;
    cbi_mutex mutex; /* of the manifest; files are written and synced under it, accounts.lock is
                        taken under it, locks of blocks are not */
    cbi_manifest manifest;
} cbi_keep;

struct cb_blocks {
    cb_manager *manager;
    cbi_accounts accounts;
    cbi_home home;
    cbi_index index;
    cbi_disk disk;
    cbi_keep keep;
    cbi_reporting reporting;
    /* immutable */
    uint64_t unroll_bytes;
    uint32_t unroll_period;
    double unroll_growth;
    cb_block_listener_fn listener;
    void *listener_ctx;
    bool charges;               /* native rules: overhead goes to the ledger */
    _Atomic uint64_t announced; /* bytes still to come of fills in pages that were used before */
    /* guarded by accounts.lock */
    const cb_record_class *classes[CBI_CLASSES_MAX + 1]; /* [0] NULL */
    uint32_t class_count;
    uint32_t task_count;
    cbi_of_level levels[CB_LEVEL_FLAGS + 1];
    cb_blocks_stats stats; /* but for what is computed when asked */
    /* guarded by charge_mutex, which is taken alone; the manager's lock is taken under it */
    cbi_mutex charge_mutex;
    cb_ledger_entry *ledger;
    int64_t charged_index, charged_slack;
};

struct cb_block_task {
    cb_blocks *blocks;
    uint64_t id, deadline_ns;
    cb_block_ref *refs;             /* guarded by accounts.lock */
    uint64_t unroll[CB_MODE_COUNT]; /* its own */
    uint32_t rests;                 /* its own */
};

/** [locked] */
static inline cbi_of_level *cbi_node_level(cb_blocks *b, const cbi_node *n) {
    return &b->levels[n->level & CB_LEVEL_FLAGS];
}

static inline cbi_lock *cbi_blocks_lock_of(cb_blocks *b) {
    return &b->accounts.lock;
}

static inline const cb_record_class *cbi_node_class(const cb_blocks *b, const cbi_node *n) {
    return b->classes[n->record_class];
}

/** Whether it is a refusal of memory, after which a block may go to disk instead. */
static inline bool cbi_is_refusal(cb_status status) {
    return status == CB_EBUDGET || status == CB_ENOMEM || status == CB_EUNSUPPORTED;
}

/* ---- blocks.c ---- */

/** Charges what overhead has changed by, when it is worth it. No lock is held. */
void cbi_blocks_settle(cb_blocks *blocks);
/** Where it is now. [locked], or the caller has it for himself. */
cb_block_status cbi_node_status(const cbi_node *node);
/** Whether anybody is told of changes. */
static inline bool cbi_blocks_is_heard(const cb_blocks *b) {
    return b->listener != NULL || b->reporting.on;
}
/** Tells the listener what the block is now; the caller has it for himself. `gone`: nothing. */
void cbi_blocks_report(cb_blocks *blocks, const cbi_node *node, bool gone);
/** Its number, for cbi_node.record_class. */
cb_status cbi_blocks_class(cb_blocks *blocks, const cb_record_class *record_class, uint16_t *number,
                           cb_error *err);
/** Writes a block to disk. */
cb_status cbi_blocks_write(cb_blocks *blocks, const cbi_node *node, cbi_on_disk *on_disk,
                           cb_error *err);
/** Evicts: as cbi_accounts_drop_fn. */
bool cbi_blocks_drop(void *blocks, cbi_lru_entry *entry);
/** Ends a block that the caller has for himself as its writer. */
void cbi_blocks_end(cb_blocks *blocks, cbi_node *node);
/** The block by that name loses what it is and becomes the task's to write, as one of cbi_put_begin
 *  is; who asks for it waits. CB_ENOTFOUND; CB_EAGAIN, or with `wait` CB_EDEADLINE: it is being
 *  read. CB_EINVAL: its generation is above `newest`, and it stays. */
cb_status cbi_blocks_empty(cb_blocks *blocks, cb_block_task *task, const char *name, cb_level level,
                           uint64_t newest, bool wait, cbi_node **node, cb_error *err);

/** [locked] It lies there now. */
void cbi_node_note_file(cb_blocks *blocks, cbi_node *node, cbi_on_disk on_disk);

/* ---- keep.c ---- */

/** Finds what was kept. Before anybody else is inside. */
cb_status cbi_keep_open(cb_blocks *blocks, const cb_blocks_options *options, cb_error *err);
/** After the last one was inside, before cbi_disk_fini: only kept files stay. */
void cbi_keep_close(cb_blocks *blocks);
/** The caller has the block for himself and is about to remove its file. */
void cbi_keep_forget(cb_blocks *blocks, cbi_node *node);
/** Of a block that is removed while others read it: it does not come back, even if the process is
 *  killed before they are through. Its file stays for them. The caller has a lock on it; others may
 *  be keeping it just now, and hear that it is gone. Writes, and may wait for another's keep. */
void cbi_keep_forget_removed(cb_blocks *blocks, cbi_node *node);

/* ---- block_lock.c ---- */

/** [locked] Lets those look again who wait for the block. */
void cbi_node_wake(cbi_node *node);
/** Locks as cb_blocks_lock does; on CB_OK accounts.lock is HELD and *node is the block. With use it
 *  becomes the most recently used; with both, that there is none is a miss. */
cb_status cbi_node_acquire(cb_blocks *blocks, cb_block_task *task, const char *name, bool write,
                           bool wait, bool use, cb_block_ref *ref, cbi_node **node, cb_error *err);
/** [locked] Fills a ref with what the block is now and gives it to the task. */
void cbi_ref_fill(cb_block_task *task, cbi_node *node, bool writing, cb_block_ref *ref);
/** The block's file is bad: it goes when its last reader has left. */
void cbi_node_doom(cb_blocks *blocks, cbi_node *node);

/** Removes a block whose generation is not above `newest`, without waiting: nobody finds it any
 *  more, that it is gone is reported, and it goes with its last reader. Until then its name is
 *  taken. CB_ENOTFOUND; CB_EAGAIN: it is being written or evicted just now. */
cb_status cbi_blocks_retire(cb_blocks *blocks, cb_block_task *task, const char *name,
                            uint64_t newest, cb_error *err);

/* ---- block_put.c ---- */

/** The data set of a name, or CBI_NO_DATA_SET. */
int64_t cbi_block_data_set(const char *name);
/** Whether anything can be stored at that level. CB_EINVAL. */
cb_status cbi_put_check(const cb_blocks *blocks, cb_level level,
                        const cb_record_class *record_class, cb_error *err);
/** A new block under that name, the task its writer. CB_EEXISTS. */
cb_status cbi_put_begin(cb_blocks *blocks, cb_block_task *task, const char *name, cb_level level,
                        const cb_record_class *record_class, cbi_node **node, cb_error *err);
/** It is there: in memory (contents, whose bytes are acquired), on disk (on_disk.bytes > 0). `ref`
 *  may be NULL. */
void cbi_put_done(cb_block_task *task, cbi_node *node, const cbi_contents *contents,
                  cbi_on_disk on_disk, cb_block_ref *ref);
/** It is not. */
void cbi_put_failed(cb_blocks *blocks, cbi_node *node);
/** Acquires storage memory for a block of so many bytes, in one request, and room for them. */
cb_status cbi_blocks_room(cb_blocks *blocks, const cbi_node *node, size_t count,
                          cbi_contents *contents, uint8_t **to, cb_error *err);
/** [locked] contents become the block's. */
void cbi_node_fill(cb_blocks *blocks, cbi_node *node, const cbi_contents *contents);

/* ---- block_fill.c ---- */

/**
 * Bytes of a size that is known, which come piece by piece, for a block that nobody sees before it
 * is whole. Memory is acquired as they come: half as much again each time, a megabyte at least.
 * Refused, all goes to disk if the level has it.
 */
typedef struct cbi_fill {
    cb_blocks *blocks;
    cb_block_task *task;
    int64_t data_set;
    cb_mode mode;
    cb_level level;
    bool on_disk, sealed, own;
    uint64_t bytes, reserved, filled; /* reserved: unroll memory */
    uint64_t announced;               /* of the store's, in a page that was used before */
    cbi_contents contents;
    uint8_t *first;
    cbi_disk_writer writer;
    cbi_on_disk file;
    cbi_identity identity; /* that it will have; to be set before finish or replace */
    bool handed_over;      /* its generation is another's: it takes no newer one's place */
    bool cold;             /* it leaves memory before those that are not */
    cb_block_ref *ref;     /* gets a reader's lock with finish or replace; NULL: nobody */
    char name[CB_BLOCK_NAME_MAX + 1];
} cbi_fill;

/** CB_EEXISTS, CB_EINVAL, and as cbi_fill_room. On failure there is nothing to cancel. */
cb_status cbi_fill_begin(cb_block_task *task, const char *name, cb_level level, uint64_t bytes,
                         cbi_fill *fill, cb_error *err);
/** The same for a block that may take another's place: there is no CB_EEXISTS. `own`: in pages that
 *  no other process will map, which may have been used before. */
cb_status cbi_fill_begin_over(cb_block_task *task, const char *name, cb_level level, uint64_t bytes,
                              bool own, cbi_fill *fill, cb_error *err);
/** Where the next bytes belong, at least one, when they are not all there; fill->on_disk: nowhere,
 *  see append. CB_EBUDGET, CB_ENOMEM; then, and after each failure, cancel. */
cb_status cbi_fill_room(cbi_fill *fill, uint8_t **to, size_t *room, cb_error *err);
void cbi_fill_add(cbi_fill *fill, size_t count);
/** On disk: the next bytes. CB_ENOSPC, CB_EIO. */
cb_status cbi_fill_append(cbi_fill *fill, const void *bytes, size_t count, cb_error *err);
/** They are all there: the block can be seen. CB_EEXISTS, CB_EIO, CB_EBUDGET. */
cb_status cbi_fill_finish(cbi_fill *fill, cb_error *err);
/** The level becomes known after the bytes: what lies in memory goes to disk if it must. CB_EINVAL;
 *  CB_EBUDGET: it was refused memory, and the level has no disk; CB_ENOSPC, CB_EIO. */
cb_status cbi_fill_level(cbi_fill *fill, cb_level level, cb_error *err);
/** As finish, in the place of the block by that name if there is one: at no moment there is none.
 *  CB_EAGAIN: that is being read; it may be tried again. With `wait` CB_EDEADLINE. */
cb_status cbi_fill_replace(cbi_fill *fill, bool wait, cb_error *err);
/** Nothing is left of it; after finish it does nothing, and zeroed is fine. */
void cbi_fill_cancel(cbi_fill *fill);

/** As cb_blocks_get, but CB_EAGAIN where that would wait or read a disk. */
cb_status cbi_blocks_get_now(cb_blocks *blocks, cb_block_task *task, const char *name,
                             cb_block_ref *ref, cb_error *err);
/** As cb_blocks_get, but the block stays where it lies, and is not used by that. */
cb_status cbi_blocks_get_as_is(cb_blocks *blocks, cb_block_task *task, const char *name,
                               cb_block_ref *ref, cb_error *err);
/** Calls `fn` for some blocks from place *at on, under the store's lock: so many that `each` bytes
 *  and the name of each fit into `room`. *at moves on, and is 0 at the end. */
typedef void (*cbi_blocks_visit_fn)(void *ctx, const cb_block_status *status, cb_level level,
                                    uint32_t readers);
void cbi_blocks_walk(cb_blocks *blocks, uint64_t *at, size_t each, size_t room,
                     cbi_blocks_visit_fn fn, void *ctx);

/** The same for one block. CB_ENOTFOUND. */
cb_status cbi_blocks_look(cb_blocks *blocks, const char *name, cbi_blocks_visit_fn fn, void *ctx,
                          cb_error *err);
/** Whether one that nobody finds any more still has the name: it goes with its last reader, and no
 *  other one can be put until then. */
bool cbi_blocks_is_leaving(cb_blocks *blocks, const char *name);
/** Ends a block that is locked for writing; the lock goes with it. */
void cbi_blocks_end_locked(cb_block_ref *ref);

/* ---- block_unroll.c ---- */

typedef enum cbi_rest_state { CBI_REST_FRESH, CBI_REST_NEXT, CBI_REST_WRITTEN } cbi_rest_state;

struct cb_block_rest {
    cb_blocks *blocks;
    cb_block_task *task;
    int64_t data_set;
    cb_mode mode;
    uint64_t reserved; /* unroll memory */
    const cb_record_class *class;
    bool of_bytes;   /* a stream: bytes is its source, records otherwise */
    bool as_records; /* unrolled as records, in `records`; otherwise as bytes, in `builder` */
    bool source_ended;
    cb_record_source records_source;
    cb_byte_source bytes_source;
    cbi_records records;
    cbi_sizes *sizes; /* of these, where they are sampled; else NULL */
    cbi_builder builder;
    void *pending; /* read, but not unrolled: the system had no memory */
    cbi_rest_state state;
    cbi_record_chunk *next_chunk; /* for cb_block_rest_next */
    size_t next_item;             /* in it, or byte of the chunk */
    size_t next_page;
    cb_block_lineage lineage; /* whose source it is; close NULL: nothing to close */
};

/** What is to be unrolled into block `node`; records or bytes, one of the two. CB_ENOMEM. */
cb_status cbi_rest_create(cb_block_task *task, const cbi_node *node, cb_level level,
                          const cb_record_class *record_class, const cb_record_source *records,
                          const cb_byte_source *bytes, cb_block_rest **rest, cb_error *err);
/** CB_OK: *contents, acquired. CB_EBUDGET: refused, the rest has all. Others: failed. */
cb_status cbi_rest_unroll(cb_block_rest *rest, cbi_contents *contents, cb_error *err);

#endif
