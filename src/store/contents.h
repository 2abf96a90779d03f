/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_CONTENTS_H
#define CBI_CONTENTS_H

#include "carbide/store.h"
#include "memory/manager.h"
#include "store/index.h"

/*
 * What blocks are made of in memory: bytes in one small piece, bytes in pages, or the caller's
 * records. Who makes them has acquired the bytes they are said to take; what rounding and
 * descriptors take beside that is overhead. No locks here: contents belong to one thread until they
 * are entered in a block, and do not change after that.
 */

/** Where contents come from. */
typedef struct cbi_home {
    cb_manager *manager;
    _Atomic int64_t overhead; /* bytes beside what was acquired */
    /* buffers of blocks on their way to and from disk, and stacks of those who write; so much of
     * that is paid by who has the store, 0: nothing */
    _Atomic int64_t staging;
    int64_t staging_paid;
    /* bytes of a known size, from so many on, lie in files of memory that can be handed to other
     * processes; 0: never. As long as there are descriptors for it. */
    uint64_t share_min;
    uint32_t shares_max;
    _Atomic uint32_t shares;
} cbi_home;

typedef struct cbi_chunk {
    cb_page page;
    size_t used;
    int share; /* 0: a page of the manager's; else 1 + the descriptor of what is mapped there */
} cbi_chunk;

/** Bytes in pages, in order. */
typedef struct cbi_chunks {
    size_t count, room;
    uint64_t bytes; /* used, all of them together */
    cbi_chunk items[];
} cbi_chunks;

typedef struct cbi_record_chunk {
    struct cbi_record_chunk *next;
    size_t count, room;
    void *items[];
} cbi_record_chunk;

typedef struct cbi_records {
    cbi_home *home;
    const cb_record_class *class;
    cbi_record_chunk *first, *last;
    uint64_t count;
    uint64_t bytes; /* of the records, and of the chunks that point to them: what the allocator
                       makes of these is overhead, so that no eviction depends on its mood */
} cbi_records;

typedef struct cbi_contents {
    uint8_t kind; /* CBI_ABSENT, CBI_SMALL, CBI_CHUNKS, CBI_RECORDS */
    cb_mode mode;
    uint64_t bytes; /* as the accounts have them */
    void *data;     /* as cbi_node.contents */
} cbi_contents;

/** Room for so many bytes in one run, at *first. CB_ENOMEM. */
cb_status cbi_contents_bytes(cbi_home *home, cb_mode mode, size_t bytes, cbi_contents *contents,
                             uint8_t **first, cb_error *err);
/** The same in `block`, which the manager had and which becomes theirs, if it is not NULL; it is of
 *  cbi_contents_capacity. */
cb_status cbi_contents_bytes_in(cbi_home *home, cb_mode mode, size_t bytes, cbi_block *block,
                                cbi_contents *contents, uint8_t **first, cb_error *err);
/** The same for bytes that are still to come, and that are paid for as they do: without a `block`
 *  it is memory that takes none before it is written. `own`: nobody else is to map it. */
cb_status cbi_contents_bytes_to_come(cbi_home *home, cb_mode mode, size_t bytes, cbi_block *block,
                                     bool own, cbi_contents *contents, uint8_t **first,
                                     cb_error *err);
/** Of the block that backs such a run; 0: none does. */
size_t cbi_contents_capacity(const cbi_home *home, cb_mode mode, size_t bytes, bool own);
/** Whether such a run lies in a page that was used before, so that its memory is there already. */
bool cbi_contents_is_used(const cbi_contents *contents);
/** All bytes are there. What others may see is sealed: nobody can change it any more, and *first of
 *  above is for reading only. CB_EIO, CB_ENOMEM. */
cb_status cbi_contents_seal(const cbi_contents *contents, cb_error *err);
/** The descriptor of what others may see, borrowed; -1: there is none. */
int cbi_contents_descriptor(uint8_t kind, const void *data);
/** Zeroed is fine. Ends the records, if that is what they are; gives no bytes back to the manager.
 */
void cbi_contents_free(cbi_home *home, cbi_contents *contents);
/** The first byte when they lie in one run; else NULL. */
const uint8_t *cbi_contents_run(uint8_t kind, const void *data);

/** Bytes that are appended piece by piece. Zeroed is an empty one, but for its mode. */
typedef struct cbi_builder {
    cbi_home *home;
    cb_mode mode;
    cbi_chunks *chunks; /* NULL: nothing yet */
} cbi_builder;

cb_status cbi_builder_append(cbi_builder *builder, const void *bytes, size_t count, cb_error *err);
/** Where the next bytes may be put, at least one; then how many were. */
cb_status cbi_builder_room(cbi_builder *builder, uint8_t **to, size_t *room, cb_error *err);
void cbi_builder_fill(cbi_builder *builder, size_t count);
/** Only the first `bytes` stay. */
void cbi_builder_truncate(cbi_builder *builder, uint64_t bytes);
static inline uint64_t cbi_builder_bytes(const cbi_builder *b) {
    return b->chunks != NULL ? b->chunks->bytes : 0;
}
/** They become contents, in as little memory as there can be. On failure they stay. */
cb_status cbi_builder_finish(cbi_builder *builder, cbi_contents *contents, cb_error *err);
void cbi_builder_clear(cbi_builder *builder);

/** The record becomes theirs, but on failure. Its size is not added where it is sampled. */
cb_status cbi_records_append(cbi_records *records, void *record, cb_error *err);
/** One that is there; the last ones are found at once. */
void *cbi_records_at(const cbi_records *records, uint64_t number);
/** Gives the chunks back and ends the records that are still in them (NULL where none is). */
void cbi_records_clear(cbi_records *records);

#endif
