/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks of blocks (Spark: BlockInfoManager): many readers or one writer, each lock a cb_block_ref
 * in the holder's memory and in a list of its task, so that a task's end finds them all and nothing
 * is allocated. A task may read a block more than once; each is a ref.
 *
 * A block's lock is its entry's pins: readers and the writer count. An eviction is a third kind of
 * holder (entry.marked), that comes only when there are no pins. Who has to wait parks in the
 * block's list; whoever lets go wakes all of it, and each looks the name up again, since the block
 * may be gone. That is no queue: a writer may wait while readers come and go, as in Spark. Who
 * wants nothing but that a block goes need not wait: it is found by nobody from then on, and its
 * last reader ends it.
 */
#include <string.h>

#include "base/alloc.h"
#include "store/blocks.h"

void cbi_node_wake(cbi_node *n) {
    cbi_block_waiter *w = n->waiters;
    n->waiters = NULL;
    while (w != NULL) {
        cbi_block_waiter *next = w->next; /* it may be gone once it is open */
        cbi_parker_open(&w->parker);
        w = next;
    }
}

/** [locked] Until somebody wakes the block's waiters; the lock is not held meanwhile. */
static cb_status await(cb_blocks *b, cbi_node *n, uint64_t deadline_ns, cb_error *err) {
    cbi_block_waiter w = {.next = n->waiters};
    char name[CB_BLOCK_NAME_MAX + 1];
    memcpy(name, n->name, (size_t)n->name_bytes + 1);
    n->waiters = &w;
    cbi_lock_give(cbi_blocks_lock_of(b));
    (void)cbi_parker_wait(&w.parker, deadline_ns);
    cbi_lock_take(cbi_blocks_lock_of(b));
    if (atomic_load_explicit(&w.parker.word, memory_order_acquire) != 0) {
        return CB_OK;
    }
    cbi_block_waiter **at = &n->waiters; /* not woken: the block is still there, and so are we */
    while (*at != &w) {
        at = &(*at)->next;
    }
    *at = w.next;
    return cbi_fail(err, CB_EDEADLINE, "A lock on block %s was waited for until the deadline.",
                    name);
}

static bool holds(const cb_block_task *task, const cbi_node *n) {
    for (const cb_block_ref *r = task->refs; r != NULL; r = r->next) {
        if (r->block == n) {
            return true;
        }
    }
    return false;
}

static bool is_free(const cbi_node *n, bool write) {
    if (n->entry.marked || n->writer != NULL) {
        return false;
    }
    return write ? n->entry.pins == 0 : !n->doomed;
}

void cbi_ref_fill(cb_block_task *task, cbi_node *n, bool writing, cb_block_ref *ref) {
    bool bytes = n->kind == CBI_SMALL || n->kind == CBI_CHUNKS;
    ref->data = bytes ? cbi_contents_run(n->kind, n->contents) : NULL;
    ref->bytes = n->kind != CBI_ABSENT ? n->entry.bytes : 0;
    ref->level = n->level;
    ref->in_memory = n->kind != CBI_ABSENT;
    ref->on_disk = n->disk.bytes > 0;
    ref->deserialised = n->kind == CBI_RECORDS;
    ref->writing = writing;
    ref->block = n;
    ref->blocks = task->blocks;
    ref->task = task;
    ref->prev = NULL;
    ref->next = task->refs;
    if (task->refs != NULL) {
        task->refs->prev = ref;
    }
    task->refs = ref;
}

cb_status cbi_node_acquire(cb_blocks *b, cb_block_task *task, const char *name, bool write,
                           bool wait, bool use, cb_block_ref *ref, cbi_node **node, cb_error *err) {
    size_t bytes = strlen(name);
    uint32_t hash = cbi_index_hash(name, bytes);
    cbi_lock_take(cbi_blocks_lock_of(b));
    for (;;) {
        cb_status status = CB_OK;
        cbi_node *n = cbi_index_find(&b->index, name, bytes, hash);
        if (n == NULL || (n->removed && !write)) {
            b->stats.misses += use && wait; /* cb_blocks_get */
            cbi_lock_give(cbi_blocks_lock_of(b));
            return cbi_fail_name(err, CB_ENOTFOUND, "There is no block ", name, ".");
        }
        if (CBI_LIKELY(is_free(n, write))) {
            n->entry.pins++;
            n->writer = write ? task : NULL;
            if (use && n->kind != CBI_ABSENT) {
                cbi_lru_touch(&b->accounts.lru, &n->entry);
            }
            cbi_ref_fill(task, n, write, ref);
            *node = n;
            return CB_OK;
        } else if (!wait) {
            status = cbi_fail(err, CB_EAGAIN, "Block %s is locked by others.", n->name);
        } else if (holds(task, n)) {
            status = cbi_fail(err, CB_EMISUSE,
                              "Task %llu would wait for itself: it holds a lock on block %s.",
                              (unsigned long long)task->id, n->name);
        } else {
            status = await(b, n, task->deadline_ns, err);
        }
        if (status != CB_OK) {
            cbi_lock_give(cbi_blocks_lock_of(b));
            return status;
        }
    }
}

cb_status cb_blocks_lock(cb_blocks *b, cb_block_task *task, const char *name, bool write, bool wait,
                         cb_block_ref *ref, cb_error *err) {
    cbi_node *n = NULL;
    CB_TRY(cbi_node_acquire(b, task, name, write, wait, false, ref, &n, err));
    cbi_lock_give(cbi_blocks_lock_of(b));
    return CB_OK;
}

cb_status cb_block_downgrade(cb_block_ref *ref, cb_error *err) {
    if (ref->block == NULL || !ref->writing) {
        return cbi_fail(err, CB_EMISUSE,
                        "A lock can be downgraded from writing only, by who holds it.");
    }
    cbi_lock *lock = cbi_blocks_lock_of(ref->blocks);
    cbi_node *n = ref->block;
    cbi_lock_take(lock);
    ref->writing = false;
    n->writer = NULL;
    cbi_node_wake(n);
    cbi_lock_give(lock);
    return CB_OK;
}

/** [locked] Undoes what acquire did; true when the block was to go with its last reader, and is the
 *  caller's to end now, as its writer. */
static bool let_go(cb_block_ref *ref) {
    cbi_node *n = ref->block;
    cb_assert(n != NULL && ref->task != NULL);
    *(ref->prev != NULL ? &ref->prev->next : &ref->task->refs) = ref->next;
    if (ref->next != NULL) {
        ref->next->prev = ref->prev;
    }
    cb_block_task *task = ref->task;
    ref->block = NULL;
    ref->task = NULL;
    ref->data = NULL;
    cb_assert(n->entry.pins > 0);
    if (CBI_UNLIKELY((n->doomed || n->removed) && n->entry.pins == 1)) {
        n->writer = task;
        return true;
    }
    n->entry.pins--;
    if (ref->writing) {
        n->writer = NULL;
    }
    if (CBI_UNLIKELY(n->waiters != NULL)) {
        cbi_node_wake(n);
    }
    return false;
}

void cb_block_release(cb_block_ref *ref) {
    if (ref == NULL || ref->blocks == NULL) {
        return;
    }
    cb_blocks *b = ref->blocks; /* not the task's: that may be ending just now */
    cbi_lock_take(cbi_blocks_lock_of(b));
    cbi_node *n = ref->block;
    bool ends = n != NULL && let_go(ref);
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (CBI_UNLIKELY(ends)) {
        cbi_blocks_end(b, n);
    }
}

void cbi_node_doom(cb_blocks *b, cbi_node *n) {
    cbi_lock_take(cbi_blocks_lock_of(b));
    cb_assert(n->entry.pins > 0);
    n->doomed = n->kind == CBI_ABSENT; /* else it has come back to memory: its file is not read */
    cbi_lock_give(cbi_blocks_lock_of(b));
}

cb_status cbi_blocks_retire(cb_blocks *b, cb_block_task *task, const char *name, uint64_t newest,
                            cb_error *err) {
    size_t bytes = strlen(name);
    uint32_t hash = cbi_index_hash(name, bytes);
    cb_block_ref ref;
    cbi_lock_take(cbi_blocks_lock_of(b));
    cbi_node *n = cbi_index_find(&b->index, name, bytes, hash);
    bool there = n != NULL && !n->removed;
    bool newer = there && cbi_node_identity(n).generation > newest;
    bool held = there && (n->writer != NULL || n->entry.marked);
    bool stays = there && n->entry.pins > 0;
    if (there && !newer && !held) {
        n->removed = true;
        n->entry.pins++; /* told first: nobody can put another one by that name before */
        cbi_ref_fill(task, n, false, &ref);
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (!there) {
        return cbi_fail_name(err, CB_ENOTFOUND, "There is no block ", name, ".");
    }
    if (held && !newer) {
        return cbi_fail(err, CB_EAGAIN, "Block %.255s is being written or evicted.", name);
    }
    if (!newer) {
        if (stays) {
            cbi_keep_forget_removed(b, n);
        }
        cbi_blocks_report(b, n, true);
        cb_block_release(&ref);
    }
    return CB_OK;
}

/* ---- tasks ---- */

cb_status cb_block_task_create(cb_blocks *b, uint64_t id, uint64_t deadline_ns,
                               cb_block_task **task, cb_error *err) {
    cb_block_task *t = cbi_calloc(1, sizeof *t);
    if (t == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a task.");
    }
    *t = (cb_block_task){.blocks = b, .id = id, .deadline_ns = deadline_ns};
    cbi_lock_take(cbi_blocks_lock_of(b));
    b->task_count++;
    cbi_lock_give(cbi_blocks_lock_of(b));
    *task = t;
    return CB_OK;
}

uint64_t cb_block_task_end(cb_block_task *t) {
    if (t == NULL) {
        return 0;
    }
    cb_blocks *b = t->blocks;
    cb_assert(t->rests == 0);
    uint64_t released = 0;
    cbi_lock_take(cbi_blocks_lock_of(b));
    while (t->refs != NULL) {
        cb_block_ref *ref = t->refs;
        cbi_node *n = ref->block;
        released++;
        if (let_go(ref)) {
            cbi_lock_give(cbi_blocks_lock_of(b));
            cbi_blocks_end(b, n);
            cbi_lock_take(cbi_blocks_lock_of(b));
        }
    }
    b->task_count--;
    cbi_lock_give(cbi_blocks_lock_of(b));
    cbi_free(t);
    return released;
}

uint64_t cb_block_task_unroll(const cb_block_task *t) {
    return t->unroll[CB_HEAP] + t->unroll[CB_OFF_HEAP];
}
