/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_BLOCK_KIT_H
#define CARBIDE_BLOCK_KIT_H

/*
 * What tests of blocks share: a small world of a manager and a store, records that know how many of
 * them are alive, sources of them, a listener that remembers.
 */

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "carbide/store.h"
#include "store/blocks.h"
#include "support/test.h"

typedef struct kit_record {
    uint32_t bytes; /* of payload */
    uint32_t number;
    uint8_t payload[];
} kit_record;

struct kit;

/** `count` records of `bytes`. */
typedef struct kit_list {
    struct kit *kit;
    uint32_t count, bytes, next;
} kit_list;

typedef struct kit {
    cb_manager *manager;
    cb_blocks *blocks;
    cb_block_task *task;
    cb_record_class class;
    _Atomic int64_t alive;   /* records */
    _Atomic int fail_writes; /* the class cannot write */
    atomic_flag listening;   /* guards the next four */
    uint64_t reports, gone;
    cb_block_status last;
    char last_name[CB_BLOCK_NAME_MAX + 1];
    kit_list lists[8]; /* sources of rests outlive the call that made them */
    unsigned list;
    const char *folder;
} kit;

static inline kit_record *kit_record_new(kit *k, uint32_t bytes, uint32_t number) {
    kit_record *r = malloc(sizeof *r + bytes);
    assert_non_null(r);
    r->bytes = bytes;
    r->number = number;
    for (uint32_t i = 0; i < bytes; i++) {
        r->payload[i] = (uint8_t)(number * 31 + i);
    }
    k->alive++;
    return r;
}

/** A record counts for its payload alone. */
static inline uint64_t kit_size(void *ctx, const void *record) {
    (void)ctx;
    return ((const kit_record *)record)->bytes;
}

static inline cb_status kit_write(void *ctx, const void *record, const cb_byte_sink *sink,
                                  cb_error *err) {
    kit *k = ctx;
    const kit_record *r = record;
    if (k->fail_writes > 0) {
        return CB_EDATA;
    }
    cb_status status = sink->write(sink->ctx, r, sizeof *r, err);
    return status == CB_OK ? sink->write(sink->ctx, r->payload, r->bytes, err) : status;
}

static inline cb_status kit_read_all(const cb_byte_source *source, void *to, size_t count,
                                     cb_error *err) {
    uint8_t *at = to;
    while (count > 0) {
        size_t got = 0;
        cb_status status = source->read(source->ctx, at, count, &got, err);
        if (status != CB_OK) {
            return at == to ? status : status == CB_EEND ? CB_EDATA : status;
        }
        at += got;
        count -= got;
    }
    return CB_OK;
}

static inline cb_status kit_read(void *ctx, const cb_byte_source *source, void **record,
                                 cb_error *err) {
    kit *k = ctx;
    kit_record head;
    cb_status status = kit_read_all(source, &head, sizeof head, err);
    if (status != CB_OK) {
        return status;
    }
    kit_record *r = malloc(sizeof *r + head.bytes);
    assert_non_null(r);
    memcpy(r, &head, sizeof head);
    k->alive++;
    status = head.bytes > 0 ? kit_read_all(source, r->payload, head.bytes, err) : CB_OK;
    assert_int_equal(status, CB_OK);
    *record = r;
    return CB_OK;
}

static inline void kit_destroy(void *ctx, void *record) {
    kit *k = ctx;
    k->alive--;
    free(record);
}

static inline cb_status kit_list_next(void *ctx, void **record, cb_error *err) {
    kit_list *l = ctx;
    (void)err;
    if (l->next == l->count) {
        return CB_EEND;
    }
    *record = kit_record_new(l->kit, l->bytes, l->next++);
    return CB_OK;
}

static inline void kit_listen(void *ctx, const cb_block_status *status) {
    kit *k = ctx;
    while (atomic_flag_test_and_set(&k->listening)) {
    }
    k->reports++;
    k->gone += status->level == CB_LEVEL_NONE;
    k->last = *status;
    memcpy(k->last_name, status->name, strlen(status->name) + 1);
    atomic_flag_clear(&k->listening);
}

typedef struct kit_options {
    uint64_t heap, off_heap;
    cb_rules rules;
    bool disk, files; /* files: one for each block, however small */
    cb_block_codec codec;
    uint64_t unroll, disk_max;
    const cb_cipher *cipher;
} kit_options;

static inline void kit_open(kit *k, kit_options o) {
    cb_error err = {.message = ""};
    *k = (kit){.manager = NULL};
    k->class = (cb_record_class){.struct_size = sizeof k->class,
                                 .size = kit_size,
                                 .write = kit_write,
                                 .read = kit_read,
                                 .destroy = kit_destroy,
                                 .ctx = k};
    const cb_manager_options m = {.struct_size = sizeof m,
                                  .rules = o.rules,
                                  .mode = CB_HEAP,
                                  .heap_bytes = o.heap,
                                  .off_heap_bytes = o.off_heap,
                                  .storage_fraction = 0.5};
    assert_ok(cb_manager_create(&m, &k->manager, &err));
    static const char *folder; /* one for all: a store leaves nothing in it */
    folder = folder != NULL || !o.disk ? folder : test_folder();
    k->folder = folder;
    const cb_blocks_options b = {.struct_size = sizeof b,
                                 .manager = k->manager,
                                 .folder = o.disk ? k->folder : NULL,
                                 .codec = o.codec,
                                 .disk_max = o.disk_max,
                                 .cipher = o.cipher,
                                 .unroll_bytes = o.unroll,
                                 .listener = kit_listen,
                                 .listener_ctx = k};
    cb_status status = cb_blocks_create(&b, &k->blocks, &err);
    if (status != CB_OK) {
        fail_msg("%s", err.message);
    }
    if (o.files) {
        cbi_pack_fini(&k->blocks->disk.pack);
        cbi_pack_fini(&k->blocks->disk.large);
    }
    assert_ok(cb_block_task_create(k->blocks, 0, 0, &k->task, &err));
}

static inline uint64_t kit_storage(const kit *k, cb_mode mode) {
    cb_pool_stats stats;
    cb_manager_pool(k->manager, CB_STORAGE, mode, &stats);
    return stats.used;
}

/** Nothing is left of anything. */
static inline void kit_close(kit *k) {
    (void)cb_block_task_end(k->task);
    cb_blocks_destroy(k->blocks);
    assert_int_equal(kit_storage(k, CB_HEAP), 0);
    assert_int_equal(kit_storage(k, CB_OFF_HEAP), 0);
    assert_int_equal(k->alive, 0);
    cb_manager_destroy(k->manager);
}

static inline cb_status kit_put(kit *k, const char *name, cb_level level, size_t bytes) {
    uint8_t *data = malloc(bytes + 1);
    assert_non_null(data);
    for (size_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)(i * 7 + (uint8_t)name[strlen(name) - 1]);
    }
    cb_status status =
        cb_blocks_put_bytes(k->blocks, k->task, name, level, NULL, data, bytes, NULL, NULL);
    free(data);
    return status;
}

static inline cb_status kit_put_records(kit *k, const char *name, cb_level level, uint32_t count,
                                        uint32_t bytes, cb_block_rest **rest) {
    kit_list *list = &k->lists[k->list++ % 8];
    *list = (kit_list){.kit = k, .count = count, .bytes = bytes};
    const cb_record_source source = {.next = kit_list_next, .ctx = list};
    return cb_blocks_put_records(k->blocks, k->task, name, level, &k->class, &source, NULL, rest,
                                 NULL);
}

static inline bool kit_in_memory(kit *k, const char *name) {
    cb_block_status status;
    return cb_blocks_status(k->blocks, name, &status, NULL) == CB_OK && status.memory_bytes > 0;
}

static inline bool kit_on_disk(kit *k, const char *name) {
    cb_block_status status;
    return cb_blocks_status(k->blocks, name, &status, NULL) == CB_OK && status.disk_bytes > 0;
}

static inline bool kit_exists(kit *k, const char *name) {
    cb_block_status status;
    return cb_blocks_status(k->blocks, name, &status, NULL) == CB_OK;
}

/** Reads all of it through a reader and compares with what kit_put made. */
static inline cb_status kit_check(kit *k, const char *name, size_t bytes) {
    cb_block_ref ref;
    cb_block_reader *reader = NULL;
    cb_status status = cb_blocks_get(k->blocks, k->task, name, &ref, NULL);
    if (status != CB_OK) {
        return status;
    }
    status = cb_block_reader_open(&ref, &reader, NULL);
    size_t at = 0;
    while (status == CB_OK) {
        uint8_t piece[5000];
        size_t got = 0;
        status = cb_block_reader_read(reader, piece, sizeof piece, &got, NULL);
        for (size_t i = 0; status == CB_OK && i < got; i++, at++) {
            if (piece[i] != (uint8_t)(at * 7 + (uint8_t)name[strlen(name) - 1])) {
                fail_msg("block %s differs at byte %zu", name, at);
            }
        }
    }
    cb_block_reader_close(reader);
    cb_block_release(&ref);
    if (status == CB_EEND) {
        assert_int_equal(at, bytes);
        return CB_OK;
    }
    return status;
}

/** The same for what kit_put_records made. */
static inline cb_status kit_check_records(kit *k, const char *name, uint32_t count,
                                          uint32_t bytes) {
    cb_block_ref ref;
    cb_block_cursor *cursor = NULL;
    cb_status status = cb_blocks_get(k->blocks, k->task, name, &ref, NULL);
    if (status != CB_OK) {
        return status;
    }
    assert_ok(cb_block_cursor_open(&ref, &cursor, NULL));
    uint32_t seen = 0;
    const void *record = NULL;
    while ((status = cb_block_cursor_next(cursor, &record, NULL)) == CB_OK) {
        const kit_record *r = record;
        assert_int_equal(r->number, seen);
        assert_int_equal(r->bytes, bytes);
        for (uint32_t i = 0; i < bytes; i++) {
            assert_int_equal(r->payload[i], (uint8_t)(r->number * 31 + i));
        }
        seen++;
    }
    cb_block_cursor_close(cursor);
    cb_block_release(&ref);
    assert_int_equal(status, CB_EEND);
    assert_int_equal(seen, count);
    return CB_OK;
}

/** All records of a rest, in order. */
static inline void kit_drain(kit *k, cb_block_rest *rest, uint32_t count) {
    void *record = NULL;
    uint32_t seen = 0;
    cb_status status = CB_OK;
    while ((status = cb_block_rest_next(rest, &record, NULL)) == CB_OK) {
        assert_int_equal(((kit_record *)record)->number, seen++);
        kit_destroy(k, record);
    }
    assert_int_equal(status, CB_EEND);
    assert_int_equal(seen, count);
}

#endif
