/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that come from elsewhere piece by piece, and may come slowly or not at all. Nobody sees
 * one before it is whole, so nobody waits for who sends it; and it takes memory from others only as
 * its bytes really arrive: who announces a terabyte and sends nothing evicts a megabyte. Where the
 * bytes go is mapped at once in one run; what was not written there takes no memory. A page that
 * was used before, or made ready, does: it is acquired as a whole, which evicts nobody, for it lay
 * idle; so large ones are not taken, nor more of them at a time than a quarter of what there is for
 * blocks: who announces and sends nothing would hold what others need.
 */
#include <string.h>

#include "store/blocks.h"

enum { USED_BYTES_MAX = 64 * 1024 * 1024, USED_PART = 8, ANNOUNCED_PART = 4 };

static uint64_t storage_max(const cbi_fill *f) {
    return cb_manager_storage_max(f->blocks->manager, f->mode);
}

/** It may take a page that was used before. false: too much was announced that has not come. */
static bool announce(cbi_fill *f) {
    uint64_t most = storage_max(f) / ANNOUNCED_PART;
    uint64_t before = atomic_load(&f->blocks->announced);
    do {
        if (before > most || f->bytes > most - before) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&f->blocks->announced, &before, before + f->bytes));
    f->announced = f->bytes;
    return true;
}

void cbi_fill_add(cbi_fill *f, size_t count) {
    uint64_t part = cbi_min((uint64_t)count, f->announced);
    f->filled += count;
    if (part > 0) {
        atomic_fetch_sub(&f->blocks->announced, part);
        f->announced -= part;
    }
}

static void announce_end(cbi_fill *f) {
    if (f->announced > 0) {
        atomic_fetch_sub(&f->blocks->announced, f->announced);
        f->announced = 0;
    }
}

static void release(cbi_fill *f) {
    cbi_contents_free(&f->blocks->home, &f->contents);
    announce_end(f);
    if (f->reserved > 0) {
        cb_manager_release_unroll(f->blocks->manager, f->mode, f->reserved);
        f->task->unroll[f->mode] -= f->reserved;
        f->reserved = 0;
    }
    f->first = NULL;
}

/** The room that was reserved is touched in one call: a fault a page takes longer than the bytes.
 * What was used before is there; going through it would take a third of what copying does. */
static void touch(const cbi_fill *f) {
    uintptr_t page = (uintptr_t)CBI_SYSTEM_PAGE_BYTES - 1;
    uintptr_t first = (uintptr_t)(f->first + f->filled), end = (uintptr_t)(f->first + f->reserved);
    if (f->bytes >= CBI_MAPPED_BYTES_MIN && end > first && !cbi_contents_is_used(&f->contents)) {
        first -= first & page;
        (void)cbi_sys_populate((void *)first, end - first);
    }
}

/** What has come so far goes to disk, and so will the rest. */
static cb_status go_to_disk(cbi_fill *f, cb_error *err) {
    f->on_disk = true;
    CB_TRY(cbi_disk_writer_open(&f->blocks->disk, f->name, &f->writer, err));
    if (f->filled > 0) {
        CB_TRY(cbi_disk_append_run(&f->writer, f->first, (size_t)f->filled, err));
    }
    release(f);
    return CB_OK;
}

static cb_status reserve(cbi_fill *f, cb_error *err) {
    const cb_blocks *b = f->blocks;
    uint64_t more = (uint64_t)((double)f->filled * (b->unroll_growth - 1));
    more = more > b->unroll_bytes ? more : b->unroll_bytes;
    uint64_t left = f->bytes - f->reserved;
    more = more < left ? more : left;
    CB_TRY(cb_manager_acquire_unroll(b->manager, f->mode, more, &f->data_set, err));
    f->reserved += more;
    f->task->unroll[f->mode] += more;
    return CB_OK;
}

/** Of a page that was used before and may hold all of it; 0: none may. */
static size_t used_capacity(const cbi_fill *f) {
    uint64_t most = cbi_min((uint64_t)USED_BYTES_MAX, storage_max(f) / USED_PART);
    return f->bytes > most
               ? 0
               : cbi_contents_capacity(&f->blocks->home, f->mode, (size_t)f->bytes, f->own);
}

/** Its first bytes, or all of them and where they lie. */
static cb_status reserve_first(cbi_fill *f, cbi_block **used, cb_error *err) {
    const cb_blocks *b = f->blocks;
    uint64_t least = cbi_min(b->unroll_bytes, f->bytes), got = 0;
    size_t capacity = used_capacity(f);
    capacity = capacity > 0 && announce(f) ? capacity : 0;
    cb_status status = cbi_manager_acquire_fill(b->manager, f->mode, least, f->bytes, &f->data_set,
                                                capacity, &got, used, err);
    if (status != CB_OK || *used == NULL) {
        announce_end(f);
    }
    CB_TRY(status);
    f->reserved += got;
    f->task->unroll[f->mode] += got;
    return CB_OK;
}

static cb_status begin_in_memory(cbi_fill *f, cb_error *err) {
    if (f->bytes > storage_max(f)) {
        return cbi_fail_bytes(err, CB_EBUDGET, f->bytes, storage_max(f),
                              "A block of %llu bytes is larger than all memory for blocks, %llu.",
                              (unsigned long long)f->bytes, (unsigned long long)storage_max(f));
    }
    cbi_block *used = NULL;
    CB_TRY(reserve_first(f, &used, err));
    CB_TRY(cbi_contents_bytes_to_come(&f->blocks->home, f->mode, (size_t)f->bytes, used, f->own,
                                      &f->contents, &f->first, err));
    touch(f);
    return CB_OK;
}

cb_status cbi_fill_begin(cb_block_task *task, const char *name, cb_level level, uint64_t bytes,
                         cbi_fill *f, cb_error *err) {
    cb_block_status there;
    if (cb_blocks_status(task->blocks, name, &there, NULL) == CB_OK) {
        return cbi_fail_name(err, CB_EEXISTS, "There is a block ", name, " already.");
    }
    return cbi_fill_begin_over(task, name, level, bytes, false, f, err);
}

cb_status cbi_fill_begin_over(cb_block_task *task, const char *name, cb_level level, uint64_t bytes,
                              bool own, cbi_fill *f, cb_error *err) {
    cb_blocks *b = task->blocks;
    size_t length = strlen(name);
    CB_TRY(cbi_put_check(b, level, NULL, err));
    if (length == 0 || length > CB_BLOCK_NAME_MAX) {
        return cbi_fail(err, CB_EINVAL, "A block's name has 1 to %d bytes, not %zu.",
                        CB_BLOCK_NAME_MAX, length);
    }
    *f = (cbi_fill){.blocks = b,
                    .task = task,
                    .data_set = cbi_block_data_set(name),
                    .mode = cb_level_mode(level),
                    .level = level,
                    .bytes = bytes,
                    .own = own};
    memcpy(f->name, name, length + 1);
    f->writer.fd = -1;
    cb_status status = CB_EBUDGET;
    if (level & CB_LEVEL_IN_MEMORY) {
        status = begin_in_memory(f, err);
    }
    if (cbi_is_refusal(status) && (level & CB_LEVEL_ON_DISK)) {
        release(f);
        status = go_to_disk(f, err);
    }
    if (status != CB_OK) {
        cbi_fill_cancel(f);
    }
    return status;
}

cb_status cbi_fill_room(cbi_fill *f, uint8_t **to, size_t *room, cb_error *err) {
    *to = NULL;
    *room = 0;
    if (!f->on_disk && f->filled == f->reserved && f->filled < f->bytes) {
        cb_status status = reserve(f, err);
        if (status == CB_OK) {
            touch(f);
        } else if (cbi_is_refusal(status) && (f->level & CB_LEVEL_ON_DISK)) {
            status = go_to_disk(f, err);
        }
        CB_TRY(status);
    }
    if (!f->on_disk) {
        *to = f->first + f->filled;
        *room = (size_t)(f->reserved - f->filled);
    }
    return CB_OK;
}

cb_status cbi_fill_append(cbi_fill *f, const void *bytes, size_t count, cb_error *err) {
    CB_TRY(cbi_disk_append(&f->writer, bytes, count, err));
    f->filled += count;
    return CB_OK;
}

cb_status cbi_fill_level(cbi_fill *f, cb_level level, cb_error *err) {
    CB_TRY(cbi_put_check(f->blocks, level, NULL, err));
    cb_assert(cb_level_mode(level) == f->mode);
    if (f->on_disk && !(level & CB_LEVEL_ON_DISK)) {
        return cbi_fail_bytes(err, CB_EBUDGET, f->bytes, storage_max(f),
                              "There is no memory for block %s of %llu bytes, and no disk at its "
                              "level.",
                              f->name, (unsigned long long)f->bytes);
    }
    f->level = level;
    return f->on_disk || (level & CB_LEVEL_IN_MEMORY) ? CB_OK : go_to_disk(f, err);
}

static cb_status seal(cbi_fill *f, cb_error *err) {
    cb_assert(f->filled == f->bytes);
    if (!f->sealed) { /* what can fail does so before another block gives its place */
        CB_TRY(f->on_disk ? cbi_disk_writer_settle(&f->writer, f->level, err)
                          : cbi_contents_seal(&f->contents, err));
        f->sealed = true;
    }
    return CB_OK;
}

/** The node is there, and the task its writer. `over`: it was another block before. */
static cb_status enter(cbi_fill *f, cbi_node *n, bool over, cb_error *err) {
    cb_blocks *b = f->blocks;
    if (f->on_disk) { /* the name is ours from here on, and the file with it */
        cb_status status = cbi_disk_writer_finish(&f->writer, f->level, &f->file, err);
        if (status != CB_OK) {
            if (over) {
                cbi_blocks_report(b, n, true);
            }
            cbi_put_failed(b, n);
            return status;
        }
    } else {
        f->contents.mode = f->mode;
        cb_manager_finish_unroll(b->manager, f->mode, f->reserved, f->bytes);
        f->task->unroll[f->mode] -= f->reserved;
        f->reserved = 0;
    }
    cbi_lock_take(cbi_blocks_lock_of(b));
    if (over && !f->handed_over) { /* newer than the one it replaces, whoever's clock that had */
        f->identity.generation =
            cbi_max(f->identity.generation, cbi_node_identity(n).generation + 1);
    }
    cbi_node_identify(&b->index, n, f->identity);
    n->entry.cold = f->cold;
    cbi_lock_give(cbi_blocks_lock_of(b));
    cbi_put_done(f->task, n, &f->contents, f->file, f->ref);
    f->contents = (cbi_contents){0};
    cbi_fill_cancel(f);
    return CB_OK;
}

cb_status cbi_fill_finish(cbi_fill *f, cb_error *err) {
    cbi_node *n = NULL;
    CB_TRY(seal(f, err));
    CB_TRY(cbi_put_begin(f->blocks, f->task, f->name, f->level, NULL, &n, err));
    return enter(f, n, false, err);
}

cb_status cbi_fill_replace(cbi_fill *f, bool wait, cb_error *err) {
    cbi_node *n = NULL;
    CB_TRY(seal(f, err));
    for (;;) { /* until it is there and ours, or not there */
        cb_status status = cbi_put_begin(f->blocks, f->task, f->name, f->level, NULL, &n, err);
        if (status != CB_EEXISTS) {
            return status == CB_OK ? enter(f, n, false, err) : status;
        }
        uint64_t newest = f->handed_over ? f->identity.generation : UINT64_MAX;
        status = cbi_blocks_empty(f->blocks, f->task, f->name, f->level, newest, wait, &n, err);
        if (status != CB_ENOTFOUND) {
            return status == CB_OK ? enter(f, n, true, err) : status;
        }
    }
}

void cbi_fill_cancel(cbi_fill *f) {
    if (f->blocks == NULL) {
        return;
    }
    release(f);
    if (f->on_disk) {
        cbi_disk_writer_cancel(&f->writer);
    }
    f->blocks = NULL;
    f->on_disk = false;
}

/* ---- looking without waiting ---- */

cb_status cbi_blocks_get_now(cb_blocks *b, cb_block_task *task, const char *name, cb_block_ref *ref,
                             cb_error *err) {
    cbi_node *n = NULL;
    CB_TRY(cbi_node_acquire(b, task, name, false, false, true, ref, &n, err));
    bool there = ref->in_memory;
    b->stats.hits += there;
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (!there) {
        cb_block_release(ref);
        return cbi_fail(err, CB_EAGAIN, "Block %.255s lies on disk.", name);
    }
    return CB_OK;
}

int cb_block_descriptor(const cb_block_ref *ref) {
    const cbi_node *n = ref->block;
    return n != NULL && ref->in_memory ? cbi_contents_descriptor(n->kind, n->contents) : -1;
}

/** What is left of `room` after the bucket. */
static size_t visit(const cbi_node *n, size_t each, size_t room, cbi_blocks_visit_fn fn,
                    void *ctx) {
    for (; n != NULL; n = n->next) {
        size_t needed = each + n->name_bytes;
        bool there = n->kind != CBI_ABSENT || n->disk.bytes > 0; /* else it is being put or ended */
        if (there && !n->removed && needed <= room) {
            cb_block_status status = cbi_node_status(n);
            fn(ctx, &status, n->level, n->entry.pins);
            room -= needed;
        }
    }
    return room;
}

void cbi_blocks_walk(cb_blocks *b, uint64_t *at, size_t each, size_t room, cbi_blocks_visit_fn fn,
                     void *ctx) {
    enum { AT_A_TIME = 256 };
    uint64_t place = *at;
    size_t left = room;
    cbi_lock_take(cbi_blocks_lock_of(b));
    for (int i = 0; i < AT_A_TIME && place < CBI_INDEX_PLACES;) {
        uint64_t next = place;
        const cbi_node *n = cbi_index_look(&b->index, &next);
        size_t needed = 0;
        for (const cbi_node *m = n; m != NULL; m = m->next) {
            needed += each + m->name_bytes;
        }
        if (needed > left && left < room) {
            break; /* this bucket the next time; one that never fits is given as far as it does */
        }
        left = visit(n, each, left, fn, ctx);
        place = next;
        i += n != NULL;
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    *at = place < CBI_INDEX_PLACES ? place : 0;
}

cb_status cbi_blocks_look(cb_blocks *b, const char *name, cbi_blocks_visit_fn fn, void *ctx,
                          cb_error *err) {
    size_t bytes = strlen(name);
    uint32_t hash = cbi_index_hash(name, bytes);
    cbi_lock_take(cbi_blocks_lock_of(b));
    const cbi_node *n = cbi_index_find(&b->index, name, bytes, hash);
    bool there = n != NULL && !n->removed;
    if (there) {
        cb_block_status status = cbi_node_status(n);
        fn(ctx, &status, n->level, n->entry.pins);
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    return there ? CB_OK : cbi_fail_name(err, CB_ENOTFOUND, "There is no block ", name, ".");
}

bool cbi_blocks_is_leaving(cb_blocks *b, const char *name) {
    size_t bytes = strlen(name);
    uint32_t hash = cbi_index_hash(name, bytes);
    cbi_lock_take(cbi_blocks_lock_of(b));
    const cbi_node *n = cbi_index_find(&b->index, name, bytes, hash);
    bool leaving = n != NULL && n->removed;
    cbi_lock_give(cbi_blocks_lock_of(b));
    return leaving;
}
