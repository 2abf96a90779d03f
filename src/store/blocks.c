/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store of blocks: what it is made of, evicting, ending, looking.
 *
 * A block's life. It is entered in the index with its writer's lock before its first byte is there
 * (block_put.c), so whoever asks for it waits and nobody makes it twice. Its bytes are acquired
 * before they are filled, which may make others leave. Then it is in the order of use, until
 * somebody removes it or the manager wants memory: choose (accounts.c) marks the least recently
 * used blocks that nobody has locked, and drop, here, lets each go: to disk, when its level has
 * that and it is not there yet, then out of memory. Between the two no lock is held; who asks for a
 * marked block waits until it has left or stayed. It stays, in memory and in the accounts, when its
 * file cannot be written: the request that needed its bytes is refused, and nothing is lost.
 */
#include "store/blocks.h"

#include <string.h>

#include "base/alloc.h"

enum { UNROLL_PERIOD = 16, BLOCKS_LEAST = 1 << 24, BLOCK_COST = 112, SETTLE_BYTES = 64 * 1024 };

#define UNROLL_BYTES CBI_MIB
#define UNROLL_GROWTH 1.5

/* ---- overhead ---- */

/** What the index is about to take. */
static bool charge_index(void *ctx, int64_t bytes, cb_error *err) {
    cb_blocks *b = ctx;
    cbi_mutex_lock(&b->charge_mutex);
    int64_t index = b->charged_index + bytes;
    cb_status status = CB_OK;
    if (b->charges) {
        status = cb_ledger_set(b->ledger, (uint64_t)(index + b->charged_slack), err);
    }
    b->charged_index = status == CB_OK ? index : b->charged_index;
    cbi_mutex_unlock(&b->charge_mutex);
    return status == CB_OK;
}

/** What there is beside blocks and index, and nobody has paid for. */
static int64_t slack_of(const cb_blocks *b, int64_t paid) {
    int64_t staging = atomic_load_explicit(&b->home.staging, memory_order_relaxed) - paid;
    int64_t slack = atomic_load_explicit(&b->home.overhead, memory_order_relaxed);
    slack += staging > 0 ? staging : 0;
    return slack > 0 ? slack : 0;
}

void cbi_blocks_settle(cb_blocks *b) {
    int64_t slack = slack_of(b, b->home.staging_paid);
    int64_t was = b->charges ? __atomic_load_n(&b->charged_slack, __ATOMIC_RELAXED) : slack;
    if (slack - was < SETTLE_BYTES && was - slack < SETTLE_BYTES) {
        return;
    }
    cbi_mutex_lock(&b->charge_mutex);
    slack = slack_of(b, b->home.staging_paid);
    __atomic_store_n(&b->charged_slack, slack, __ATOMIC_RELAXED);
    cb_ledger_force(b->ledger, (uint64_t)(b->charged_index + slack));
    cbi_mutex_unlock(&b->charge_mutex);
}

/* ---- a store ---- */

static cb_status check_options(const cb_blocks_options *o, cb_error *err) {
    if (o->struct_size < sizeof *o || o->manager == NULL) {
        return cbi_fail(err, CB_EINVAL, "A store of blocks needs its options' size and a manager.");
    }
    if (o->unroll_growth != 0 && !(o->unroll_growth > 1)) {
        return cbi_fail(err, CB_EINVAL, "Unrolling must grow by more than 1, not %g.",
                        o->unroll_growth);
    }
    return CB_OK;
}

static size_t most_blocks(const cb_blocks_options *o) {
    if (o->blocks_max > 0) {
        return o->blocks_max;
    }
    uint64_t bytes = cb_manager_storage_max(o->manager, CB_HEAP) +
                     cb_manager_storage_max(o->manager, CB_OFF_HEAP);
    return cbi_max(BLOCKS_LEAST, (size_t)(bytes / BLOCK_COST));
}

/** Blocks come and go: what one leaves mapped is the next one's, also below the megabyte from which
 *  on tasks' pages are kept. The budget takes it back as it takes those. */
static void keep_pages(cb_manager *m) {
    cbi_lock_take(&m->lock);
    m->allocators[CB_HEAP]->idle_min = CBI_MAPPED_BYTES_MIN;
    cbi_lock_give(&m->lock);
}

static void stay(void *ctx, cbi_lru_entry *entry) {
    (void)ctx;
    cbi_node_wake((cbi_node *)entry);
}

cb_status cb_blocks_create(const cb_blocks_options *o, cb_blocks **blocks, cb_error *err) {
    CB_TRY(check_options(o, err));
    cb_blocks *b = cbi_calloc(1, sizeof *b);
    if (b == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a store of blocks.");
    }
    b->manager = b->home.manager = o->manager;
    b->home.share_min = o->share_bytes_min;
    keep_pages(o->manager);
    b->home.shares_max = o->shares_max;
    b->unroll_bytes = o->unroll_bytes > 0 ? o->unroll_bytes : UNROLL_BYTES;
    b->unroll_period = o->unroll_period > 0 ? o->unroll_period : UNROLL_PERIOD;
    b->unroll_growth = o->unroll_growth > 0 ? o->unroll_growth : UNROLL_GROWTH;
    b->listener = o->listener;
    b->listener_ctx = o->listener_ctx;
    b->charges = o->manager->rules == CB_RULES_NATIVE;
    cbi_mutex_init(&b->charge_mutex, CBI_RANK_CHARGE);
    cbi_accounts_init(&b->accounts, o->manager, cbi_blocks_drop, b);
    b->accounts.stay = stay;
    b->accounts.overhead = o->folder != NULL ? &b->home.staging : NULL;
    cb_status status = cb_ledger_add(b->manager, "blocks", NULL, NULL, &b->ledger, err);
    if (status == CB_OK) {
        status = cbi_index_init(&b->index, &b->accounts.lock, most_blocks(o), charge_index, b, err);
        b->index.identities = o->identities;
    }
    if (status == CB_OK) {
        status = cbi_disk_init(&b->disk, o, &b->home, err);
    }
    if (status == CB_OK) {
        status = cbi_keep_open(b, o, err);
    }
    if (status == CB_OK) {
        status = cbi_report_open(b, o, err);
    }
    if (status != CB_OK) {
        cb_blocks_destroy(b);
        return status;
    }
    *blocks = b;
    return CB_OK;
}

static void free_node(cb_blocks *b, cbi_node *n) {
    cb_assert(n->entry.pins == 0 && n->waiters == NULL);
    if (n->kind != CBI_ABSENT) {
        cbi_contents contents = {
            .kind = n->kind, .mode = n->entry.mode, .bytes = n->entry.bytes, .data = n->contents};
        cbi_accounts_leave(&b->accounts, &n->entry);
        cbi_contents_free(&b->home, &contents);
        cb_manager_release_storage(b->manager, n->entry.mode, n->entry.bytes);
    }
}

/** Nobody is inside any more: without locks, files and reports. */
static void free_all(cb_blocks *b) {
    size_t at = 0;
    cbi_node *n = NULL;
    while ((n = cbi_index_scan(&b->index, &at)) != NULL) {
        for (; n != NULL; n = n->next) {
            free_node(b, n);
        }
    }
    b->index.count = 0; /* the nodes go with their slabs */
}

void cb_blocks_destroy(cb_blocks *b) {
    if (b == NULL) {
        return;
    }
    cb_assert(b->task_count == 0);
    cbi_report_close(b);
    cbi_keep_close(b);
    if (b->index.buckets != NULL) {
        free_all(b);
        cbi_index_fini(&b->index);
    }
    cbi_disk_fini(&b->disk);
    cbi_accounts_fini(&b->accounts);
    cb_ledger_remove(b->ledger);
    cbi_mutex_fini(&b->charge_mutex);
    cbi_free(b);
}

cb_status cbi_blocks_class(cb_blocks *b, const cb_record_class *class, uint16_t *number,
                           cb_error *err) {
    if (class == NULL) {
        *number = 0;
        return CB_OK;
    }
    if (class->struct_size < sizeof *class || class->size == NULL || class->write == NULL ||
        class->read == NULL || class->destroy == NULL) {
        return cbi_fail(err, CB_EINVAL, "A class of records needs its size and all functions.");
    }
    cbi_lock_take(cbi_blocks_lock_of(b));
    uint32_t i = 1;
    while (i <= b->class_count && b->classes[i] != class) {
        i++;
    }
    bool fits = i <= CBI_CLASSES_MAX;
    if (fits && i > b->class_count) {
        b->classes[i] = class;
        b->class_count = i;
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (!fits) {
        return cbi_fail(err, CB_EINVAL, "A store knows %d classes of records at most.",
                        CBI_CLASSES_MAX);
    }
    *number = (uint16_t)i;
    return CB_OK;
}

/* ---- what a block is ---- */

cb_block_status cbi_node_status(const cbi_node *n) {
    unsigned flags = (n->kind != CBI_ABSENT ? CB_LEVEL_IN_MEMORY : 0u) |
                     (n->kind == CBI_RECORDS ? CB_LEVEL_IS_DESERIALISED : 0u) |
                     (n->disk.bytes > 0 ? CB_LEVEL_ON_DISK : 0u);
    if (n->kind != CBI_ABSENT && n->entry.mode == CB_OFF_HEAP) {
        flags |= CB_LEVEL_IN_OFF_HEAP;
    }
    cbi_identity identity = cbi_node_identity(n);
    return (cb_block_status){.name = n->name,
                             .level = CB_LEVEL(flags, 1),
                             .memory_bytes = n->kind != CBI_ABSENT ? n->entry.bytes : 0,
                             .disk_bytes = n->disk.bytes,
                             .generation = identity.generation,
                             .checksum = identity.checksum,
                             .asked = n->level};
}

void cbi_blocks_report(cb_blocks *b, const cbi_node *n, bool gone) {
    if (!cbi_blocks_is_heard(b)) {
        return;
    }
    cb_block_status status = {.name = n->name, .level = CB_LEVEL_NONE};
    if (!gone) {
        cbi_lock_take(cbi_blocks_lock_of(b)); /* a reader may be bringing it back to memory */
        if (!n->removed) {
            status = cbi_node_status(n);
        }
        cbi_lock_give(cbi_blocks_lock_of(b));
    }
    if (b->listener != NULL) {
        b->listener(b->listener_ctx, &status);
    }
    cbi_report_change(b, &status);
}

/* ---- to disk ---- */

static cb_status append(void *ctx, const void *bytes, size_t count, cb_error *err) {
    return cbi_disk_append(ctx, bytes, count, err);
}

static cb_status write_chunks(cbi_disk_writer *w, const cbi_chunks *c, cb_error *err) {
    for (size_t i = 0; i < c->count; i++) {
        CB_TRY(cbi_disk_append_run(w, cb_page_data(&c->items[i].page), c->items[i].used, err));
    }
    return CB_OK;
}

static cb_status write_records(cbi_disk_writer *w, const cbi_records *r, cb_error *err) {
    const cb_byte_sink sink = {.write = append, .ctx = w};
    for (const cbi_record_chunk *c = r->first; c != NULL; c = c->next) {
        for (size_t i = 0; i < c->count; i++) {
            CB_TRY(r->class->write(r->class->ctx, c->items[i], &sink, err));
        }
    }
    return CB_OK;
}

cb_status cbi_blocks_write(cb_blocks *b, const cbi_node *n, cbi_on_disk *on_disk, cb_error *err) {
    cbi_disk_writer w = {0};
    const uint8_t *run = n->kind != CBI_RECORDS ? cbi_contents_run(n->kind, n->contents) : NULL;
    if (run != NULL && cbi_disk_pack(&b->disk, n->name, run, (size_t)n->entry.bytes, on_disk)) {
        return CB_OK;
    }
    cb_status status = cbi_disk_writer_open(&b->disk, n->name, &w, err);
    if (status == CB_OK) {
        switch (n->kind) {
            case CBI_SMALL:
                status = cbi_disk_append_run(&w, n->contents, (size_t)n->entry.bytes, err);
                break;
            case CBI_CHUNKS: status = write_chunks(&w, n->contents, err); break;
            default: status = write_records(&w, n->contents, err); break;
        }
    }
    if (status == CB_OK) {
        status = cbi_disk_writer_finish(&w, n->level, on_disk, err);
    }
    cbi_disk_writer_cancel(&w);
    return status;
}

/* ---- out of memory, out of the store ---- */

/** [locked] Its contents are the caller's. */
static cbi_contents take_contents(cb_blocks *b, cbi_node *n) {
    cbi_contents c = {
        .kind = n->kind, .mode = n->entry.mode, .bytes = n->entry.bytes, .data = n->contents};
    n->kind = CBI_ABSENT;
    n->contents = NULL;
    b->stats.memory_blocks--;
    b->stats.memory_bytes -= c.bytes;
    cbi_node_level(b, n)->memory_blocks--;
    cbi_node_level(b, n)->memory_bytes -= c.bytes;
    return c;
}

/** [locked] Its level and its file count no more. */
static void count_out(cb_blocks *b, cbi_node *n) {
    b->stats.replicas_missing -= cb_level_replicas(n->level) - 1;
    if (n->disk.bytes > 0) {
        b->stats.disk_blocks--;
        b->stats.disk_bytes -= n->disk.bytes;
        cbi_node_level(b, n)->disk_blocks--;
        cbi_node_level(b, n)->disk_bytes -= n->disk.bytes;
    }
    n->disk = (cbi_on_disk){0};
}

/** [locked] It is nobody's any more, and no more. */
static void leave_index(cb_blocks *b, cbi_node *n) {
    cbi_index_leave(&b->index, n);
    cbi_node_wake(n);
    cbi_index_free_now(&b->index, n);
}

void cbi_node_note_file(cb_blocks *b, cbi_node *n, cbi_on_disk on_disk) {
    n->disk = on_disk;
    b->stats.disk_blocks++;
    b->stats.disk_bytes += on_disk.bytes;
    cbi_node_level(b, n)->disk_blocks++;
    cbi_node_level(b, n)->disk_bytes += on_disk.bytes;
}

bool cbi_blocks_drop(void *ctx, cbi_lru_entry *entry) {
    cb_blocks *b = ctx;
    cbi_node *n = (cbi_node *)entry; /* marked: nobody else's */
    cbi_on_disk on_disk = {0};
    bool to_disk = (n->level & CB_LEVEL_ON_DISK) != 0 && n->disk.bytes == 0;
    bool failed = to_disk && cbi_blocks_write(b, n, &on_disk, NULL) != CB_OK;
    cbi_lock_take(cbi_blocks_lock_of(b));
    if (failed) {
        b->stats.drops_failed++;
        cbi_lock_give(cbi_blocks_lock_of(b));
        return false;
    }
    if (to_disk) {
        cbi_node_note_file(b, n, on_disk);
    }
    cbi_contents contents = take_contents(b, n);
    cbi_lock_give(cbi_blocks_lock_of(b));
    cbi_contents_free(&b->home, &contents);
    bool gone = n->disk.bytes == 0;
    cbi_blocks_report(b, n, gone);
    cbi_lock_take(cbi_blocks_lock_of(b));
    entry->marked = false;
    if (gone) {
        count_out(b, n);
        leave_index(b, n);
    } else {
        cbi_node_wake(n);
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    cbi_blocks_settle(b);
    return true;
}

/** [locked] What a block has in memory, to be dropped; its writer has it for himself. One that has
 *  no file counts no more. */
static cbi_contents detach(cb_blocks *b, cbi_node *n) {
    cbi_contents contents = {0};
    cb_assert(n->writer != NULL);
    if (n->kind != CBI_ABSENT) {
        cbi_accounts_leave(&b->accounts, &n->entry);
        contents = take_contents(b, n);
    }
    if (n->disk.bytes == 0) {
        count_out(b, n);
    }
    return contents;
}

/** That, and its file. From here on nobody who looks finds anything of it: that it has gone is
 *  reported later. */
static void drop_contents(cb_blocks *b, cbi_node *n, cbi_contents *contents) {
    if (contents->kind != CBI_ABSENT) {
        cb_mode mode = contents->mode;
        uint64_t bytes = contents->bytes;
        cbi_contents_free(&b->home, contents);
        cb_manager_release_storage(b->manager, mode, bytes);
    }
    if (n->disk.bytes > 0) {
        cbi_on_disk file = n->disk;
        cbi_keep_forget(b, n);
        cbi_lock_take(cbi_blocks_lock_of(b));
        count_out(b, n);
        cbi_lock_give(cbi_blocks_lock_of(b));
        cbi_disk_remove(&b->disk, n->name, file);
    }
}

static void end_detached(cb_blocks *b, cbi_node *n, cbi_contents *contents) {
    drop_contents(b, n, contents);
    cbi_blocks_report(b, n, true); /* of one that was retired once more: a reader may have said that
                                      it has come to memory meanwhile */
    cbi_lock_take(cbi_blocks_lock_of(b));
    leave_index(b, n);
    cbi_lock_give(cbi_blocks_lock_of(b));
    cbi_blocks_settle(b);
}

void cbi_blocks_end(cb_blocks *b, cbi_node *n) {
    cbi_lock_take(cbi_blocks_lock_of(b));
    cbi_contents contents = detach(b, n);
    cbi_lock_give(cbi_blocks_lock_of(b));
    end_detached(b, n, &contents);
}

/** [locked] The lock is no longer the ref's, but whose the block is. */
static void keep_lock(cb_block_ref *ref) {
    *(ref->prev != NULL ? &ref->prev->next : &ref->task->refs) = ref->next;
    if (ref->next != NULL) {
        ref->next->prev = ref->prev;
    }
    ref->block = NULL;
}

cb_status cbi_blocks_empty(cb_blocks *b, cb_block_task *task, const char *name, cb_level level,
                           uint64_t newest, bool wait, cbi_node **node, cb_error *err) {
    cb_block_ref ref;
    cbi_node *n = NULL;
    CB_TRY(cbi_node_acquire(b, task, name, true, wait, false, &ref, &n, err));
    if (cbi_node_identity(n).generation > newest) {
        cbi_lock_give(cbi_blocks_lock_of(b));
        cb_block_release(&ref);
        return cbi_fail(err, CB_EINVAL, "There is a newer block %.255s here.", name);
    }
    keep_lock(&ref);
    cbi_contents contents = detach(b, n);
    cbi_lock_give(cbi_blocks_lock_of(b));
    drop_contents(b, n, &contents);
    cbi_lock_take(cbi_blocks_lock_of(b));
    n->level = level;
    n->record_class = 0;
    n->entry.mode = cb_level_mode(level);
    cbi_lock_give(cbi_blocks_lock_of(b));
    *node = n;
    return CB_OK;
}

void cbi_blocks_end_locked(cb_block_ref *ref) {
    cb_blocks *b = ref->blocks;
    cbi_node *n = ref->block;
    cb_assert(n != NULL && ref->writing);
    cbi_lock_take(cbi_blocks_lock_of(b));
    keep_lock(ref);
    cbi_contents contents = detach(b, n);
    cbi_lock_give(cbi_blocks_lock_of(b));
    end_detached(b, n, &contents);
}

cb_status cb_blocks_remove(cb_blocks *b, cb_block_task *task, const char *name, cb_error *err) {
    cb_block_ref ref;
    cbi_node *n = NULL;
    CB_TRY(cbi_node_acquire(b, task, name, true, true, false, &ref, &n, err));
    keep_lock(&ref);
    cbi_contents contents = detach(b, n);
    cbi_lock_give(cbi_blocks_lock_of(b));
    end_detached(b, n, &contents);
    return CB_OK;
}

/* ---- looking ---- */

typedef struct search {
    cb_block_kind kind;
    uint64_t number;
} search;

static bool is_of(const cbi_node *n, const search *s) {
    if (s->kind == CB_BLOCK_RDD) {
        return n->entry.data_set == (int64_t)s->number;
    }
    cb_block_id id;
    return strncmp(n->name, "broadcast_", strlen("broadcast_")) == 0 &&
           cb_block_id_parse(n->name, &id, NULL) == CB_OK && id.kind == s->kind &&
           id.numbers[0] == s->number;
}

/** The name of one that is meant, from bucket *at on. */
static bool find_next(cb_blocks *b, const search *s, size_t *at, char name[CB_BLOCK_NAME_MAX + 1]) {
    enum { AT_A_TIME = 256 };
    for (;;) {
        cbi_lock_take(cbi_blocks_lock_of(b));
        const cbi_node *n = NULL;
        for (int i = 0; i < AT_A_TIME && (n = cbi_index_scan(&b->index, at)) != NULL; i++) {
            for (; n != NULL && !is_of(n, s); n = n->next) {
            }
            if (n != NULL) {
                memcpy(name, n->name, (size_t)n->name_bytes + 1);
                --*at; /* there may be more in this bucket */
                cbi_lock_give(cbi_blocks_lock_of(b));
                return true;
            }
        }
        bool more = *at < b->index.level_size + b->index.split;
        cbi_lock_give(cbi_blocks_lock_of(b));
        if (!more) {
            return false;
        }
    }
}

static cb_status remove_all(cb_blocks *b, cb_block_task *task, const search *s, uint64_t *count,
                            cb_error *err) {
    char name[CB_BLOCK_NAME_MAX + 1];
    uint64_t removed = 0, before = 0;
    do { /* buckets that were joined meanwhile may have hidden some: until a pass finds none */
        size_t at = 0;
        before = removed;
        while (find_next(b, s, &at, name)) {
            cb_status status = cb_blocks_remove(b, task, name, err);
            if (status != CB_OK && status != CB_ENOTFOUND) {
                return status;
            }
            removed += status == CB_OK;
        }
    } while (removed != before);
    *count = removed;
    return CB_OK;
}

cb_status cb_blocks_remove_data_set(cb_blocks *b, cb_block_task *task, uint32_t data_set,
                                    uint64_t *count, cb_error *err) {
    const search s = {.kind = CB_BLOCK_RDD, .number = data_set};
    return remove_all(b, task, &s, count, err);
}

cb_status cb_blocks_remove_broadcast(cb_blocks *b, cb_block_task *task, uint64_t broadcast,
                                     uint64_t *count, cb_error *err) {
    const search s = {.kind = CB_BLOCK_BROADCAST, .number = broadcast};
    return remove_all(b, task, &s, count, err);
}

cb_status cb_blocks_status(cb_blocks *b, const char *name, cb_block_status *status, cb_error *err) {
    size_t bytes = strlen(name);
    cbi_lock_take(cbi_blocks_lock_of(b));
    const cbi_node *n = cbi_index_find(&b->index, name, bytes, cbi_index_hash(name, bytes));
    cb_block_status found = {0};
    bool there = n != NULL && !n->removed;
    if (there) {
        found = cbi_node_status(n);
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (!there || found.level == CB_LEVEL(0, 1)) { /* nothing of it is there yet */
        return cbi_fail_name(err, CB_ENOTFOUND, "There is no block ", name, ".");
    }
    found.name = name;
    *status = found;
    return CB_OK;
}

typedef struct listed {
    cb_block_status status;
    char name[CB_BLOCK_NAME_MAX + 1];
} listed;

/** [locked] Copies a bucket; answers how many there are, of which at most `room` are copied. */
static size_t copy_bucket(const cbi_node *n, listed *out, size_t room) {
    size_t count = 0;
    for (; n != NULL; n = n->next) {
        if ((n->kind == CBI_ABSENT && n->disk.bytes == 0) || n->removed) {
            continue; /* being put, or to go */
        }
        if (count < room) {
            out[count].status = cbi_node_status(n);
            memcpy(out[count].name, n->name, (size_t)n->name_bytes + 1);
        }
        count++;
    }
    return count;
}

cb_status cb_blocks_list(cb_blocks *b, cb_block_visit_fn fn, void *ctx, cb_error *err) {
    size_t room = 16, at = 0;
    listed *batch = cbi_alloc(room * sizeof *batch);
    bool more = true;
    while (batch != NULL && more) {
        cbi_lock_take(cbi_blocks_lock_of(b));
        const cbi_node *n = cbi_index_scan(&b->index, &at);
        size_t count = copy_bucket(n, batch, room);
        cbi_lock_give(cbi_blocks_lock_of(b));
        if (count > room) {
            cbi_free(batch);
            room = 2 * count;
            batch = cbi_alloc(room * sizeof *batch);
            at--;
            continue;
        }
        more = n != NULL;
        for (size_t i = 0; i < count && more; i++) {
            batch[i].status.name = batch[i].name;
            more = fn(ctx, &batch[i].status);
        }
    }
    if (batch == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a list of blocks.");
    }
    cbi_free(batch);
    return CB_OK;
}

void cb_blocks_stats_get(cb_blocks *b, cb_blocks_stats *stats) {
    cbi_lock_take(cbi_blocks_lock_of(b));
    *stats = b->stats;
    stats->blocks = b->index.count;
    stats->evicted = b->accounts.evicted;
    stats->overhead_bytes = b->index.bytes + (uint64_t)slack_of(b, 0);
    cbi_lock_give(cbi_blocks_lock_of(b));
}
