/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/alloc.h"
#include "store/blocks.h"

/* ---- getting, and bringing back from disk ---- */

/** A file's bytes as they are, into memory that is acquired. */
static cb_status load_bytes(cb_blocks *b, const cbi_node *n, cbi_contents *contents,
                            cb_error *err) {
    cbi_disk_reader r;
    uint8_t *to = NULL;
    CB_TRY(cbi_disk_reader_open(&b->disk, n->name, n->disk, &r, err));
    uint64_t bytes = r.raw_bytes;
    cb_status status = cbi_blocks_room(b, n, (size_t)bytes, contents, &to, err);
    if (status == CB_OK) {
        size_t at = 0, got = 0;
        while (status == CB_OK && at < bytes) {
            status = cbi_disk_read(&r, to + at, (size_t)bytes - at, &got, err);
            at += status == CB_OK ? got : 0;
        }
        status = status == CB_OK ? cbi_contents_seal(contents, err) : status;
        if (status != CB_OK) {
            cbi_contents_free(&b->home, contents);
            cb_manager_release_storage(b->manager, n->entry.mode, bytes);
        }
    }
    cbi_disk_reader_close(&r);
    contents->mode = n->entry.mode;
    return status;
}

typedef struct file_records {
    const cb_record_class *class;
    cbi_disk_reader reader;
} file_records;

static cb_status read_file(void *ctx, void *bytes, size_t count, size_t *got, cb_error *err) {
    return cbi_disk_read(ctx, bytes, count, got, err);
}

static cb_status next_of_file(void *ctx, void **record, cb_error *err) {
    file_records *f = ctx;
    const cb_byte_source source = {.read = read_file, .ctx = &f->reader};
    return f->class->read(f->class->ctx, &source, record, err);
}

/** A file's records, unrolled. */
static cb_status load_records(cb_block_task *task, const cbi_node *n, cbi_contents *contents,
                              cb_error *err) {
    cb_blocks *b = task->blocks;
    file_records f = {.class = cbi_node_class(b, n)};
    const cb_record_source source = {.next = next_of_file, .ctx = &f};
    cb_block_rest *rest = NULL;
    CB_TRY(cbi_disk_reader_open(&b->disk, n->name, n->disk, &f.reader, err));
    cb_status status = cbi_rest_create(task, n, n->level, f.class, &source, NULL, &rest, err);
    if (status == CB_OK) {
        status = cbi_rest_unroll(rest, contents, err);
        cb_block_rest_close(rest);
    }
    cbi_disk_reader_close(&f.reader);
    return status;
}

/** [the lock is held before, not after] The caller reads the block, which is on disk only. */
static cb_status promote(cb_block_task *task, cbi_node *n, cb_block_ref *ref, cb_error *err) {
    cb_blocks *b = task->blocks;
    n->promoting = true;
    cbi_lock_give(cbi_blocks_lock_of(b));
    cbi_contents contents = {0};
    cb_status status = n->level & CB_LEVEL_IS_DESERIALISED ? load_records(task, n, &contents, err)
                                                           : load_bytes(b, n, &contents, err);
    cbi_lock_take(cbi_blocks_lock_of(b));
    n->promoting = false;
    if (status == CB_OK) {
        cbi_node_fill(b, n, &contents);
        b->stats.promoted++;
        ref->in_memory = true;
        ref->deserialised = n->kind == CBI_RECORDS;
        ref->data = ref->deserialised ? NULL : cbi_contents_run(n->kind, n->contents);
        ref->bytes = n->entry.bytes;
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (status == CB_OK) {
        cbi_blocks_report(b, n, false);
    }
    return cbi_is_refusal(status) ? CB_OK : status; /* then it is read where it lies */
}

/** A file that is not what was written is of no use. Want of memory or descriptors passes. */
static void give_up(cb_blocks *b, cbi_node *n, cb_status status) {
    if (status == CB_ECORRUPT || status == CB_EIO) {
        cbi_node_doom(b, n);
    }
}

static cb_status check_file(cb_blocks *b, const cbi_node *n, cb_block_ref *ref, cb_error *err) {
    cbi_disk_reader r;
    CB_TRY(cbi_disk_reader_open(&b->disk, n->name, n->disk, &r, err));
    ref->bytes = r.raw_bytes;
    cbi_disk_reader_close(&r);
    return CB_OK;
}

cb_status cb_blocks_get(cb_blocks *b, cb_block_task *task, const char *name, cb_block_ref *ref,
                        cb_error *err) {
    cbi_node *n = NULL;
    cb_status status = cbi_node_acquire(b, task, name, false, true, true, ref, &n, err);
    if (status != CB_OK) {
        return status;
    }
    if (CBI_LIKELY(ref->in_memory)) {
        b->stats.hits++;
        cbi_lock_give(cbi_blocks_lock_of(b));
        return CB_OK;
    }
    b->stats.disk_hits++;
    if ((n->level & CB_LEVEL_IN_MEMORY) && !n->promoting) {
        status = promote(task, n, ref, err);
    } else {
        cbi_lock_give(cbi_blocks_lock_of(b));
    }
    if (status == CB_OK && !ref->in_memory) {
        status = check_file(b, n, ref, err);
    }
    if (status != CB_OK) {
        give_up(b, n, status);
        cb_block_release(ref);
    }
    return status;
}

cb_status cbi_blocks_get_as_is(cb_blocks *b, cb_block_task *task, const char *name,
                               cb_block_ref *ref, cb_error *err) {
    cbi_node *n = NULL;
    CB_TRY(cbi_node_acquire(b, task, name, false, true, false, ref, &n, err));
    cbi_lock_give(cbi_blocks_lock_of(b));
    cb_status status = ref->in_memory ? CB_OK : check_file(b, n, ref, err);
    if (status != CB_OK) {
        give_up(b, n, status);
        cb_block_release(ref);
    }
    return status;
}

/* ---- bytes ---- */

struct cb_block_reader {
    const cb_block_ref *ref;
    cb_blocks *blocks;
    cbi_node *node;
    uint8_t kind; /* CBI_ABSENT: from disk */
    cbi_disk_reader disk;
    size_t at, chunk;                /* in memory: where it is */
    const cbi_record_chunk *records; /* records: the next */
    cbi_builder pending;             /* records: written, not yet read */
};

cb_status cb_block_reader_open(const cb_block_ref *ref, cb_block_reader **reader, cb_error *err) {
    if (ref->block == NULL) {
        return cbi_fail(err, CB_EMISUSE, "A block is read by who has a lock on it.");
    }
    cb_block_reader *r = cbi_calloc(1, sizeof *r);
    if (r == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a reader.");
    }
    r->ref = ref;
    r->blocks = ref->blocks;
    r->node = ref->block;
    r->kind = ref->in_memory ? r->node->kind : CBI_ABSENT;
    cb_status status = CB_OK;
    if (r->kind == CBI_RECORDS) {
        r->records = ((const cbi_records *)r->node->contents)->first;
        r->pending = (cbi_builder){.home = &r->blocks->home, .mode = CB_HEAP};
    } else if (r->kind == CBI_ABSENT) {
        status =
            cbi_disk_reader_open(&r->blocks->disk, r->node->name, r->node->disk, &r->disk, err);
    }
    if (status != CB_OK) {
        give_up(r->blocks, r->node, status);
        cbi_free(r);
        return status;
    }
    *reader = r;
    return CB_OK;
}

static cb_status read_run(cb_block_reader *r, const uint8_t *from, size_t bytes, void *to,
                          size_t count, size_t *got) {
    size_t part = cbi_min(count, bytes - r->at);
    memcpy(to, from + r->at, part);
    r->at += part;
    *got = part;
    return part > 0 ? CB_OK : CB_EEND;
}

static cb_status read_chunks(cb_block_reader *r, const cbi_chunks *c, void *to, size_t count,
                             size_t *got) {
    while (r->chunk < c->count && r->at == c->items[r->chunk].used) {
        r->chunk++;
        r->at = 0;
    }
    if (r->chunk == c->count) {
        return CB_EEND;
    }
    const cbi_chunk *chunk = &c->items[r->chunk];
    return read_run(r, cb_page_data(&chunk->page), chunk->used, to, count, got);
}

static cb_status to_pending(void *ctx, const void *bytes, size_t count, cb_error *err) {
    return cbi_builder_append(ctx, bytes, count, err);
}

/** Writes one record after the other to `pending` and reads that; `chunk` counts records here. */
static cb_status read_records(cb_block_reader *r, void *to, size_t count, size_t *got,
                              cb_error *err) {
    const cbi_records *records = r->node->contents;
    const cb_byte_sink sink = {.write = to_pending, .ctx = &r->pending};
    while (r->at == cbi_builder_bytes(&r->pending)) {
        cbi_builder_truncate(&r->pending, 0);
        r->at = 0;
        while (r->records != NULL && r->chunk == r->records->count) {
            r->records = r->records->next;
            r->chunk = 0;
        }
        if (r->records == NULL) {
            return CB_EEND;
        }
        const void *record = r->records->items[r->chunk++];
        CB_TRY(records->class->write(records->class->ctx, record, &sink, err));
    }
    size_t skip = r->at;
    const cbi_chunks *c = r->pending.chunks;
    for (size_t i = 0; i < c->count; i++) {
        if (skip < c->items[i].used) {
            size_t part = cbi_min(count, c->items[i].used - skip);
            memcpy(to, cb_page_data(&c->items[i].page) + skip, part);
            r->at += part;
            *got = part;
            return CB_OK;
        }
        skip -= c->items[i].used;
    }
    return cbi_fail(err, CB_EINTERNAL, "A record's bytes are not where they were written.");
}

cb_status cb_block_reader_read(cb_block_reader *r, void *bytes, size_t count, size_t *got,
                               cb_error *err) {
    cb_status status = CB_OK;
    switch (r->kind) {
        case CBI_SMALL:
            return read_run(r, r->node->contents, (size_t)r->ref->bytes, bytes, count, got);
        case CBI_CHUNKS: return read_chunks(r, r->node->contents, bytes, count, got);
        case CBI_RECORDS: return read_records(r, bytes, count, got, err);
        default: status = cbi_disk_read(&r->disk, bytes, count, got, err); break;
    }
    if (status != CB_OK) {
        give_up(r->blocks, r->node, status);
    }
    return status;
}

void cb_block_reader_close(cb_block_reader *r) {
    if (r == NULL) {
        return;
    }
    cbi_disk_reader_close(&r->disk);
    cbi_builder_clear(&r->pending);
    cbi_free(r);
}

/* ---- records ---- */

struct cb_block_cursor {
    const cb_record_class *class;
    const cbi_record_chunk *chunk; /* of the store's own; NULL: read from bytes */
    size_t at;
    cb_block_reader *reader;
    void *record; /* read, and to be ended */
};

cb_status cb_block_cursor_open(const cb_block_ref *ref, cb_block_cursor **cursor, cb_error *err) {
    cbi_node *n = ref->block;
    const cb_record_class *class = n != NULL ? cbi_node_class(ref->blocks, n) : NULL;
    if (class == NULL) {
        return n == NULL ? cbi_fail(err, CB_EMISUSE, "A block is read by who has a lock on it.")
                         : cbi_fail(err, CB_EINVAL, "Block %s was put without a class of records.",
                                    n->name);
    }
    cb_block_cursor *c = cbi_calloc(1, sizeof *c);
    if (c == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a cursor.");
    }
    c->class = class;
    if (ref->deserialised) {
        c->chunk = ((const cbi_records *)n->contents)->first;
    } else {
        cb_status status = cb_block_reader_open(ref, &c->reader, err);
        if (status != CB_OK) {
            cbi_free(c);
            return status;
        }
    }
    *cursor = c;
    return CB_OK;
}

static cb_status read_reader(void *ctx, void *bytes, size_t count, size_t *got, cb_error *err) {
    return cb_block_reader_read(ctx, bytes, count, got, err);
}

cb_status cb_block_cursor_next(cb_block_cursor *c, const void **record, cb_error *err) {
    if (c->reader != NULL) {
        const cb_byte_source source = {.read = read_reader, .ctx = c->reader};
        if (c->record != NULL) {
            c->class->destroy(c->class->ctx, c->record);
            c->record = NULL;
        }
        CB_TRY(c->class->read(c->class->ctx, &source, &c->record, err));
        *record = c->record;
        return CB_OK;
    }
    while (c->chunk != NULL && c->at == c->chunk->count) {
        c->chunk = c->chunk->next;
        c->at = 0;
    }
    if (c->chunk == NULL) {
        return CB_EEND;
    }
    *record = c->chunk->items[c->at++];
    return CB_OK;
}

void cb_block_cursor_close(cb_block_cursor *c) {
    if (c == NULL) {
        return;
    }
    if (c->record != NULL) {
        c->class->destroy(c->class->ctx, c->record);
    }
    cb_block_reader_close(c->reader);
    cbi_free(c);
}
