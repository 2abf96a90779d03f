/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "store/block_shared.h"
#include "store/blocks.h"

/* ---- a new block ---- */

int64_t cbi_block_data_set(const char *name) {
    cb_block_id id;
    bool rdd = strncmp(name, "rdd_", 4) == 0 && cb_block_id_parse(name, &id, NULL) == CB_OK &&
               id.kind == CB_BLOCK_RDD;
    return rdd ? (int64_t)id.numbers[0] : CBI_NO_DATA_SET;
}

cb_status cbi_put_check(const cb_blocks *b, cb_level level, const cb_record_class *class,
                        cb_error *err) {
    CB_TRY(cb_level_check(level, err));
    const char *before = "Nothing can be stored at ", *after = NULL;
    if (!cb_level_is_valid(level)) {
        after = ": neither memory nor disk.";
    } else if ((level & CB_LEVEL_ON_DISK) && !cbi_disk_there(&b->disk)) {
        after = ": the store has no folder.";
    } else if ((level & CB_LEVEL_IS_DESERIALISED) && class == NULL) {
        before = "A block at ";
        after = " needs a class of records.";
    }
    if (CBI_LIKELY(after == NULL)) {
        return CB_OK;
    }
    char text[CB_LEVEL_TEXT_MAX];
    cb_level_format(level, text);
    return cbi_fail_name(err, CB_EINVAL, before, text, after);
}

static void begin_node(cbi_node *n, cb_level level, uint16_t record_class, cb_block_task *task,
                       int64_t data_set) {
    n->level = level;
    n->record_class = record_class;
    n->writer = task;
    n->entry.data_set = data_set;
    n->entry.mode = cb_level_mode(level);
    n->entry.pins = 1;
}

cb_status cbi_put_begin(cb_blocks *b, cb_block_task *task, const char *name, cb_level level,
                        const cb_record_class *class, cbi_node **node, cb_error *err) {
    uint16_t number = 0;
    cbi_node *n = NULL;
    CB_TRY(cbi_put_check(b, level, class, err));
    CB_TRY(cbi_blocks_class(b, class, &number, err));
    int64_t data_set = cbi_block_data_set(name);
    size_t bytes = strnlen(name, CB_BLOCK_NAME_MAX + 1);
    uint32_t hash = cbi_index_hash(name, bytes);
    cbi_lock_take(cbi_blocks_lock_of(b));
    bool exists = cbi_index_find(&b->index, name, bytes, hash) != NULL;
    n = exists ? NULL : cbi_index_node_now(&b->index, name, bytes, hash);
    if (!exists && n == NULL) { /* the system has to be asked for it */
        cbi_lock_give(cbi_blocks_lock_of(b));
        CB_TRY(cbi_index_node(&b->index, name, &n, err));
        cbi_lock_take(cbi_blocks_lock_of(b));
        exists = cbi_index_find(&b->index, name, bytes, hash) != NULL;
    }
    if (!exists) {
        begin_node(n, level, number, task, data_set);
        cbi_index_enter(&b->index, n);
    } else if (n != NULL) {
        cbi_index_free_now(&b->index, n);
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (exists) {
        return cbi_fail_name(err, CB_EEXISTS, "There is a block ", name, " already.");
    }
    *node = n;
    return CB_OK;
}

void cbi_node_fill(cb_blocks *b, cbi_node *n, const cbi_contents *contents) {
    n->kind = contents->kind;
    n->contents = contents->data;
    n->entry.bytes = contents->bytes;
    cbi_accounts_enter(&b->accounts, &n->entry);
    b->stats.memory_blocks++;
    b->stats.memory_bytes += contents->bytes;
    cbi_node_level(b, n)->memory_blocks++;
    cbi_node_level(b, n)->memory_bytes += contents->bytes;
}

void cbi_put_done(cb_block_task *task, cbi_node *n, const cbi_contents *contents,
                  cbi_on_disk on_disk, cb_block_ref *ref) {
    cb_blocks *b = task->blocks;
    cbi_lock_take(cbi_blocks_lock_of(b));
    if (contents->kind != CBI_ABSENT) {
        cbi_node_fill(b, n, contents);
    }
    if (on_disk.bytes > 0) {
        cbi_node_note_file(b, n, on_disk);
    }
    b->stats.replicas_missing += cb_level_replicas(n->level) - 1;
    if (cbi_blocks_is_heard(b)) {
        cbi_lock_give(cbi_blocks_lock_of(b));
        cbi_blocks_report(b, n, false);
        cbi_lock_take(cbi_blocks_lock_of(b));
    }
    n->writer = NULL;
    if (ref != NULL) {
        cbi_ref_fill(task, n, false, ref);
    } else {
        n->entry.pins--;
    }
    cbi_node_wake(n);
    cbi_lock_give(cbi_blocks_lock_of(b));
    cbi_blocks_settle(b);
}

void cbi_put_failed(cb_blocks *b, cbi_node *n) {
    cbi_lock_take(cbi_blocks_lock_of(b));
    cbi_index_leave(&b->index, n);
    cbi_node_wake(n);
    cbi_lock_give(cbi_blocks_lock_of(b));
    cbi_index_free(&b->index, n);
}

/* ---- bytes of a known size ---- */

/** The page of who has to leave for it is taken as it is, not given back and made anew. */
cb_status cbi_blocks_room(cb_blocks *b, const cbi_node *n, size_t count, cbi_contents *contents,
                          uint8_t **to, cb_error *err) {
    cb_mode mode = n->entry.mode;
    cbi_block *idle = NULL;
    CB_TRY(cbi_manager_acquire_storage(b->manager, mode, count, &n->entry.data_set,
                                       cbi_contents_capacity(&b->home, mode, count, false), &idle,
                                       err));
    cb_status status = cbi_contents_bytes_in(&b->home, mode, count, idle, contents, to, err);
    if (status != CB_OK) {
        cb_manager_release_storage(b->manager, mode, count);
    }
    return status;
}

/** In one request, before the first byte is copied. */
static cb_status bytes_to_memory(cb_blocks *b, const cbi_node *n, const void *bytes, size_t count,
                                 cbi_contents *contents, cb_error *err) {
    cb_mode mode = n->entry.mode;
    uint8_t *to = NULL;
    CB_TRY(cbi_blocks_room(b, n, count, contents, &to, err));
    cb_status status = CB_OK;
    contents->mode = mode;
    if (count > 0) {
        memcpy(to, bytes, count);
    }
    status = cbi_contents_seal(contents, err);
    if (status != CB_OK) {
        cbi_contents_free(&b->home, contents);
        cb_manager_release_storage(b->manager, mode, count);
    }
    return status;
}

static cb_status bytes_to_disk(cb_blocks *b, const cbi_node *n, const void *bytes, size_t count,
                               cbi_on_disk *on_disk, cb_error *err) {
    cbi_disk_writer w = {0};
    if (cbi_disk_pack(&b->disk, n->name, bytes, count, on_disk)) {
        return CB_OK;
    }
    cb_status status = cbi_disk_writer_open(&b->disk, n->name, &w, err);
    if (status == CB_OK) {
        status = cbi_disk_append_run(&w, bytes, count, err);
    }
    if (status == CB_OK) {
        status = cbi_disk_writer_finish(&w, n->level, on_disk, err);
    }
    cbi_disk_writer_cancel(&w);
    return status;
}

/** Bytes that are to be stored as records: read them as such. */
typedef struct byte_records {
    const cb_record_class *class;
    const uint8_t *at;
    size_t left;
} byte_records;

static cb_status read_bytes(void *ctx, void *bytes, size_t count, size_t *got, cb_error *err) {
    byte_records *r = ctx;
    (void)err;
    if (r->left == 0) {
        return CB_EEND;
    }
    size_t part = cbi_min(count, r->left);
    memcpy(bytes, r->at, part);
    r->at += part;
    r->left -= part;
    *got = part;
    return CB_OK;
}

static cb_status next_record(void *ctx, void **record, cb_error *err) {
    byte_records *r = ctx;
    const cb_byte_source source = {.read = read_bytes, .ctx = r};
    return r->left > 0 ? r->class->read(r->class->ctx, &source, record, err) : CB_EEND;
}

cb_status cb_blocks_put_bytes(cb_blocks *b, cb_block_task *task, const char *name, cb_level level,
                              const cb_record_class *class, const void *bytes, size_t count,
                              cb_block_ref *ref, cb_error *err) {
    if ((level & CB_LEVEL_IS_DESERIALISED) && (level & CB_LEVEL_IN_MEMORY) && class != NULL) {
        byte_records records = {.class = class, .at = bytes, .left = count};
        const cb_record_source source = {.next = next_record, .ctx = &records};
        return cb_blocks_put_records(b, task, name, level, class, &source, ref, NULL, err);
    }
    cbi_node *n = NULL;
    cbi_contents contents = {0};
    cbi_on_disk on_disk = {0};
    CB_TRY(cbi_put_begin(b, task, name, level, class, &n, err));
    cb_status status = CB_EBUDGET;
    if (level & CB_LEVEL_IN_MEMORY) {
        status = bytes_to_memory(b, n, bytes, count, &contents, err);
    }
    if (cbi_is_refusal(status) && (level & CB_LEVEL_ON_DISK)) {
        status = bytes_to_disk(b, n, bytes, count, &on_disk, err);
    }
    if (status != CB_OK) {
        cbi_put_failed(b, n);
        return status;
    }
    cbi_put_done(task, n, &contents, on_disk, ref);
    return CB_OK;
}

/* ---- records and streams ---- */

static cb_status append(void *ctx, const void *bytes, size_t count, cb_error *err) {
    return cbi_disk_append(ctx, bytes, count, err);
}

static cb_status rest_to_disk(cb_blocks *b, const cbi_node *n, cb_block_rest *rest,
                              cbi_on_disk *on_disk, cb_error *err) {
    cbi_disk_writer w = {0};
    const cb_byte_sink sink = {.write = append, .ctx = &w};
    cb_status status = cbi_disk_writer_open(&b->disk, n->name, &w, err);
    if (status == CB_OK) {
        status = cb_block_rest_write(rest, &sink, err);
    }
    if (status == CB_OK) {
        status = cbi_disk_writer_finish(&w, n->level, on_disk, err);
    }
    cbi_disk_writer_cancel(&w);
    return status;
}

/** Stores what the rest has, in memory or on disk; refused, it is handed back in *out. */
static cb_status put_rest(cb_block_task *task, cbi_node *n, cb_block_rest *rest, cb_block_ref *ref,
                          cb_block_rest **out, cb_error *err) {
    cb_blocks *b = task->blocks;
    cbi_contents contents = {0};
    cbi_on_disk on_disk = {0};
    cb_status status = CB_EBUDGET;
    if (n->level & CB_LEVEL_IN_MEMORY) {
        status = cbi_rest_unroll(rest, &contents, err);
    }
    bool whole = status == CB_EBUDGET; /* the rest has everything, from the first record on */
    if (whole && (n->level & CB_LEVEL_ON_DISK)) {
        whole = false;
        status = rest_to_disk(b, n, rest, &on_disk, err);
    }
    if (status == CB_OK) {
        cb_block_rest_close(rest);
        cbi_put_done(task, n, &contents, on_disk, ref);
        return CB_OK;
    }
    cbi_put_failed(b, n);
    if (whole && out != NULL) {
        *out = rest;
    } else {
        cb_block_rest_close(rest);
    }
    return status;
}

cb_status cb_blocks_put_records(cb_blocks *b, cb_block_task *task, const char *name, cb_level level,
                                const cb_record_class *class, const cb_record_source *source,
                                cb_block_ref *ref, cb_block_rest **out, cb_error *err) {
    if (class == NULL) {
        return cbi_fail(err, CB_EINVAL, "Records need their class.");
    }
    cbi_node *n = NULL;
    cb_block_rest *rest = NULL;
    CB_TRY(cbi_put_begin(b, task, name, level, class, &n, err));
    cb_status status = cbi_rest_create(task, n, level, class, source, NULL, &rest, err);
    if (status != CB_OK) {
        cbi_put_failed(b, n);
        return status;
    }
    return put_rest(task, n, rest, ref, out, err);
}

cb_status cb_blocks_put_stream(cb_blocks *b, cb_block_task *task, const char *name, cb_level level,
                               const cb_record_class *class, const cb_byte_source *source,
                               cb_block_ref *ref, cb_block_rest **out, cb_error *err) {
    if (level & CB_LEVEL_IS_DESERIALISED) {
        return cbi_fail(err, CB_EINVAL,
                        "A stream of bytes cannot be stored deserialised; put its records.");
    }
    cbi_node *n = NULL;
    cb_block_rest *rest = NULL;
    CB_TRY(cbi_put_begin(b, task, name, level, class, &n, err));
    cb_status status = cbi_rest_create(task, n, level, class, NULL, source, &rest, err);
    if (status != CB_OK) {
        cbi_put_failed(b, n);
        return status;
    }
    return put_rest(task, n, rest, ref, out, err);
}

/* ---- or compute ---- */

/** Opens the checkpoint, or what computes it. */
static cb_status open_lineage(cb_blocks *b, const cb_block_lineage *l, const char *name,
                              cb_record_source *source, cb_error *err) {
    if (l->checkpoint != NULL) {
        cb_status status = l->checkpoint(l->ctx, name, source, err);
        if (status != CB_ENOTFOUND) {
            return status;
        }
    }
    cbi_lock_take(cbi_blocks_lock_of(b));
    b->stats.computed++;
    cbi_lock_give(cbi_blocks_lock_of(b));
    return l->compute(l->ctx, name, source, err);
}

static cb_status compute(cb_block_task *task, cbi_node *n, const cb_record_class *class,
                         const cb_block_lineage *l, cb_block_ref *ref, cb_block_rest **out,
                         cb_error *err) {
    cb_record_source source = {0};
    cb_block_rest *rest = NULL;
    cb_status status = open_lineage(task->blocks, l, n->name, &source, err);
    if (status == CB_OK) {
        status = cbi_rest_create(task, n, n->level, class, &source, NULL, &rest, err);
        if (status != CB_OK && l->close != NULL) {
            l->close(l->ctx, &source);
        }
    }
    if (status != CB_OK) {
        cbi_put_failed(task->blocks, n);
        return status;
    }
    rest->lineage = *l; /* the rest may outlive the caller's */
    return put_rest(task, n, rest, ref, out, err);
}

/** The same among executors: what is not here may come from another one. `again`: that one broke
 *  off. */
static cb_status compute_shared(cb_block_task *task, cbi_node *n, const cb_record_class *class,
                                cbi_shared *s, cb_block_ref *ref, cb_block_rest **out, bool *again,
                                cb_error *err) {
    cb_blocks *b = task->blocks;
    cb_record_source source = {0};
    cb_block_rest *rest = NULL;
    bool computes = false;
    char name[CB_BLOCK_NAME_MAX + 1]; /* the node may go */
    memcpy(name, n->name, (size_t)n->name_bytes + 1);
    cb_status status = cbi_shared_ask(s, task, name, &source, &computes, err);
    if (status != CB_OK) {
        cbi_put_failed(b, n);
    } else if (computes) {
        cbi_shared_renew_begin(s, b, name);
        status = compute(task, n, class, s->lineage, ref, out, err);
        cbi_shared_renew_end(s);
    } else {
        status = cbi_rest_create(task, n, n->level, class, &source, NULL, &rest, err);
        if (status == CB_OK) {
            rest->lineage = *s->lineage;
            status = put_rest(task, n, rest, ref, out, err);
            *again = status != CB_OK && status != CB_EBUDGET && status != CB_ENOMEM;
        } else {
            cbi_put_failed(b, n);
            if (s->lineage->close != NULL) {
                s->lineage->close(s->lineage->ctx, &source);
            }
        }
    }
    cbi_shared_end(s, b, name, computes, status == CB_OK);
    return status;
}

cb_status cb_blocks_get_or_compute(cb_blocks *b, cb_block_task *task, const char *name,
                                   cb_level level, const cb_record_class *class,
                                   const cb_block_lineage *lineage, cb_block_ref *ref,
                                   cb_block_rest **rest, cb_error *err) {
    if (class == NULL) {
        return cbi_fail(err, CB_EINVAL, "Records need their class.");
    }
    cbi_shared shared;
    bool shares = cbi_shared_is_wanted(b, lineage);
    cbi_shared_init(&shared, lineage);
    for (;;) {
        bool again = false;
        cb_status status = cb_blocks_get(b, task, name, ref, err);
        if (status != CB_ENOTFOUND && status != CB_ECORRUPT && status != CB_EIO) {
            return status;
        }
        cbi_node *n = NULL;
        status = cbi_put_begin(b, task, name, level, class, &n, err);
        if (status == CB_OK && !shares) {
            return compute(task, n, class, lineage, ref, rest, err);
        }
        if (status == CB_OK) {
            status = compute_shared(task, n, class, &shared, ref, rest, &again, err);
        }
        if (status != CB_EEXISTS && !again) {
            return status;
        }
    }
}
