/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unrolling (Spark: MemoryStore.putIterator): records whose size nobody knows become a block while
 * memory is reserved for them step by step.
 *
 * A first megabyte is reserved before the first record is read. Every 16 records, beginning with
 * the first, the size so far is looked at; when it has reached what is reserved, half as much again
 * as that size is asked for. At the end what is still missing is asked for, and all of it becomes
 * storage memory in one step, the surplus going back. A refusal anywhere ends it, and what has been
 * unrolled is not lost: it is one half of a cb_block_rest, the rest of the source being the other.
 *
 * A rest therefore exists from the beginning. It gives its records again one by one, reading back
 * those that were serialised, or writes all of them to a sink, which is how they go to disk. Its
 * memory goes as soon as the unrolled half has been consumed.
 */
#include <string.h>

#include "base/alloc.h"
#include "store/blocks.h"

static uint64_t ask_size(void *ctx, uint64_t number) {
    const cb_block_rest *r = ctx;
    return r->class->size(r->class->ctx, cbi_records_at(&r->records, number));
}

cb_status cbi_rest_create(cb_block_task *task, const cbi_node *n, cb_level level,
                          const cb_record_class *class, const cb_record_source *records,
                          const cb_byte_source *bytes, cb_block_rest **rest, cb_error *err) {
    bool as_records = bytes == NULL && (level & CB_LEVEL_IS_DESERIALISED) != 0;
    bool sampled = as_records && class->sampled;
    cb_block_rest *r = cbi_calloc(1, sizeof *r);
    cbi_sizes *sizes = sampled ? cbi_alloc(sizeof *sizes) : NULL;
    if (r == NULL || (sampled && sizes == NULL)) {
        cbi_free(sizes);
        cbi_free(r);
        return cbi_fail(err, CB_ENOMEM, "The system has no memory to unroll a block.");
    }
    r->blocks = task->blocks;
    r->task = task;
    r->data_set = n->entry.data_set;
    r->mode = n->entry.mode;
    r->class = class;
    r->of_bytes = bytes != NULL;
    r->as_records = as_records;
    if (r->of_bytes) {
        r->bytes_source = *bytes;
    } else {
        r->records_source = *records;
    }
    r->records.class = class;
    r->records.home = &r->blocks->home;
    r->builder = (cbi_builder){.home = &r->blocks->home, .mode = r->mode};
    r->sizes = sizes;
    if (sampled) {
        cbi_sizes_init(sizes, ask_size, r);
    }
    task->rests++;
    *rest = r;
    return CB_OK;
}

static void release_unrolled(cb_block_rest *r) {
    cbi_records_clear(&r->records);
    cbi_builder_clear(&r->builder);
    if (r->reserved > 0) {
        cb_manager_release_unroll(r->blocks->manager, r->mode, r->reserved);
        r->task->unroll[r->mode] -= r->reserved;
        r->reserved = 0;
    }
}

void cb_block_rest_close(cb_block_rest *r) {
    if (r == NULL) {
        return;
    }
    release_unrolled(r);
    if (r->pending != NULL) {
        r->class->destroy(r->class->ctx, r->pending);
    }
    if (r->lineage.close != NULL) {
        r->lineage.close(r->lineage.ctx, &r->records_source);
    }
    r->task->rests--;
    cbi_free(r->sizes);
    cbi_free(r);
}

/* ---- unrolling ---- */

static cb_status reserve(cb_block_rest *r, uint64_t bytes, cb_error *err) {
    cb_status status =
        cb_manager_acquire_unroll(r->blocks->manager, r->mode, bytes, &r->data_set, err);
    if (status == CB_OK) {
        r->reserved += bytes;
        r->task->unroll[r->mode] += bytes;
    }
    return status;
}

static cb_status to_builder(void *ctx, const void *bytes, size_t count, cb_error *err) {
    return cbi_builder_append(ctx, bytes, count, err);
}

/** The next record or piece of the stream, unrolled; CB_EEND. When the system has no memory for it
 *  a record is kept as pending, and CB_ENOMEM. */
static cb_status unroll_next(cb_block_rest *r, cb_error *err) {
    if (r->of_bytes) {
        uint8_t *to = NULL;
        size_t room = 0, got = 0;
        CB_TRY(cbi_builder_room(&r->builder, &to, &room, err));
        CB_TRY(r->bytes_source.read(r->bytes_source.ctx, to, room, &got, err));
        cb_assert(got > 0 && got <= room);
        cbi_builder_fill(&r->builder, got);
        return CB_OK;
    }
    void *record = NULL;
    CB_TRY(r->records_source.next(r->records_source.ctx, &record, err));
    cb_status status = CB_OK;
    if (r->as_records) {
        status = cbi_records_append(&r->records, record, err);
        if (status == CB_OK && r->sizes != NULL) {
            cbi_sizes_add(r->sizes);
        }
    } else {
        const cb_byte_sink sink = {.write = to_builder, .ctx = &r->builder};
        uint64_t before = cbi_builder_bytes(&r->builder);
        status = r->class->write(r->class->ctx, record, &sink, err);
        if (status == CB_OK) {
            r->class->destroy(r->class->ctx, record);
        } else {
            cbi_builder_truncate(&r->builder, before);
        }
    }
    r->pending = status == CB_OK ? NULL : record;
    return status;
}

static uint64_t unrolled_bytes(const cb_block_rest *r) {
    uint64_t sampled = r->sizes != NULL ? cbi_sizes_estimate(r->sizes) : 0;
    return r->as_records ? r->records.bytes + sampled : cbi_builder_bytes(&r->builder);
}

/** Reads the source to its end, reserving ahead of what has been read. */
static cb_status unroll_all(cb_block_rest *r, cb_error *err) {
    const cb_blocks *b = r->blocks;
    uint64_t threshold = b->unroll_bytes;
    uint32_t period = r->of_bytes ? 1 : b->unroll_period;
    CB_TRY(reserve(r, threshold, err));
    for (uint64_t count = 0;; count++) {
        cb_status status = unroll_next(r, err);
        if (status != CB_OK) {
            return status == CB_EEND ? CB_OK : status;
        }
        uint64_t bytes = count % period == 0 ? unrolled_bytes(r) : 0;
        if (bytes > 0 && bytes >= threshold) {
            uint64_t more = (uint64_t)((double)bytes * b->unroll_growth) - threshold;
            CB_TRY(reserve(r, more, err));
            threshold += more;
        }
    }
}

static cb_status make_contents(cb_block_rest *r, cbi_contents *contents, cb_error *err) {
    if (!r->as_records) {
        return cbi_builder_finish(&r->builder, contents, err);
    }
    size_t held = 0;
    cbi_records *records = cbi_allocator_small(sizeof *records, &held);
    if (records == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a block's records.");
    }
    *records = r->records;
    *contents = (cbi_contents){
        .kind = CBI_RECORDS, .mode = r->mode, .bytes = records->bytes, .data = records};
    r->records.first = r->records.last = NULL;
    r->records.count = r->records.bytes = 0;
    return CB_OK;
}

cb_status cbi_rest_unroll(cb_block_rest *r, cbi_contents *contents, cb_error *err) {
    cb_status status = unroll_all(r, err);
    if (status == CB_OK && r->sizes != NULL) {
        r->records.bytes += cbi_sizes_final(r->sizes);
        cbi_free(r->sizes);
        r->sizes = NULL; /* they are measured */
    }
    uint64_t bytes = unrolled_bytes(r);
    if (status == CB_OK && bytes > r->reserved) {
        status = reserve(r, bytes - r->reserved, err);
    }
    if (status == CB_OK) {
        status = make_contents(r, contents, err);
    }
    if (status != CB_OK) {
        return cbi_is_refusal(status) ? CB_EBUDGET : status;
    }
    contents->mode = r->mode;
    cb_manager_finish_unroll(r->blocks->manager, r->mode, r->reserved, contents->bytes);
    r->task->unroll[r->mode] -= r->reserved;
    r->reserved = 0;
    return CB_OK;
}

/* ---- giving back one by one ---- */

static cb_status read_unrolled(void *ctx, void *bytes, size_t count, size_t *got, cb_error *err) {
    cb_block_rest *r = ctx;
    const cbi_chunks *c = r->builder.chunks;
    (void)err;
    while (c != NULL && r->next_page < c->count && r->next_item == c->items[r->next_page].used) {
        r->next_page++;
        r->next_item = 0;
    }
    if (c == NULL || r->next_page == c->count) {
        return CB_EEND;
    }
    const cbi_chunk *chunk = &c->items[r->next_page];
    size_t part = cbi_min(count, chunk->used - r->next_item);
    memcpy(bytes, cb_page_data(&chunk->page) + r->next_item, part);
    r->next_item += part;
    *got = part;
    return CB_OK;
}

/** One that was unrolled; CB_EEND when there is none left. */
static cb_status next_unrolled(cb_block_rest *r, void **record, cb_error *err) {
    if (!r->as_records) {
        const cb_byte_source source = {.read = read_unrolled, .ctx = r};
        return r->class->read(r->class->ctx, &source, record, err);
    }
    while (r->next_chunk != NULL && r->next_item == r->next_chunk->count) {
        r->next_chunk = r->next_chunk->next;
        r->next_item = 0;
    }
    if (r->next_chunk == NULL) {
        return CB_EEND;
    }
    *record = r->next_chunk->items[r->next_item];
    r->next_chunk->items[r->next_item++] = NULL;
    return CB_OK;
}

cb_status cb_block_rest_next(cb_block_rest *r, void **record, cb_error *err) {
    if (r->of_bytes || r->state == CBI_REST_WRITTEN) {
        return cbi_fail(err, CB_EMISUSE,
                        "A rest is either read record by record or written as bytes, once.");
    }
    if (r->state == CBI_REST_FRESH) {
        r->state = CBI_REST_NEXT;
        r->next_chunk = r->records.first;
    }
    if (r->reserved > 0 || r->records.first != NULL || r->builder.chunks != NULL) {
        cb_status status = next_unrolled(r, record, err);
        if (status != CB_EEND) {
            return status;
        }
        release_unrolled(r);
    }
    if (r->pending != NULL) {
        *record = r->pending;
        r->pending = NULL;
        return CB_OK;
    }
    return r->records_source.next(r->records_source.ctx, record, err);
}

/* ---- giving back as bytes ---- */

static cb_status write_record(cb_block_rest *r, void *record, const cb_byte_sink *sink,
                              cb_error *err) {
    cb_status status = r->class->write(r->class->ctx, record, sink, err);
    r->class->destroy(r->class->ctx, record);
    return status;
}

static cb_status write_unrolled(cb_block_rest *r, const cb_byte_sink *sink, cb_error *err) {
    for (cbi_record_chunk *c = r->records.first; c != NULL; c = c->next) {
        for (size_t i = 0; i < c->count; i++) {
            void *record = c->items[i];
            c->items[i] = NULL;
            CB_TRY(write_record(r, record, sink, err));
        }
    }
    const cbi_chunks *c = r->builder.chunks;
    for (size_t i = 0; c != NULL && i < c->count; i++) {
        CB_TRY(sink->write(sink->ctx, cb_page_data(&c->items[i].page), c->items[i].used, err));
    }
    return CB_OK;
}

static cb_status write_stream(cb_block_rest *r, const cb_byte_sink *sink, cb_error *err) {
    uint8_t piece[8192];
    for (;;) {
        size_t got = 0;
        cb_status status =
            r->bytes_source.read(r->bytes_source.ctx, piece, sizeof piece, &got, err);
        if (status != CB_OK) {
            return status == CB_EEND ? CB_OK : status;
        }
        CB_TRY(sink->write(sink->ctx, piece, got, err));
    }
}

cb_status cb_block_rest_write(cb_block_rest *r, const cb_byte_sink *sink, cb_error *err) {
    if (r->state != CBI_REST_FRESH) {
        return cbi_fail(err, CB_EMISUSE,
                        "A rest is either read record by record or written as bytes, once.");
    }
    r->state = CBI_REST_WRITTEN;
    CB_TRY(write_unrolled(r, sink, err));
    release_unrolled(r);
    if (r->of_bytes) {
        return write_stream(r, sink, err);
    }
    void *record = r->pending;
    r->pending = NULL;
    for (cb_status status = CB_OK;;) {
        if (record != NULL) {
            CB_TRY(write_record(r, record, sink, err));
        }
        status = r->records_source.next(r->records_source.ctx, &record, err);
        if (status != CB_OK) {
            return status == CB_EEND ? CB_OK : status;
        }
    }
}
