/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_INDEX_H
#define CBI_INDEX_H

#include "base/lock.h"
#include "carbide/block.h"
#include "store/lru.h"

/*
 * Which blocks there are, by name. See the essay in index.c. The owner's lock guards everything;
 * only cbi_index_node and _free are called without it.
 */

/** What a block is in memory. */
enum {
    CBI_ABSENT = 0,  /* it is not there */
    CBI_SMALL = 1,   /* bytes in one small piece: `contents` is its first */
    CBI_CHUNKS = 2,  /* bytes in pages: cbi_chunks */
    CBI_RECORDS = 3, /* the caller's records: cbi_records */
};

/** Where a block lies on disk. */
typedef struct cbi_on_disk {
    uint64_t bytes : 38; /* of its file, or at its place; 0: it is not on disk */
    uint64_t place : 26; /* in the pack; 0: it has a file of its own */
} cbi_on_disk;

#define CBI_ON_DISK_BYTES_MAX ((UINT64_C(1) << 38) - 1)
#define CBI_ON_DISK_PLACE_MAX ((1u << 26) - 1)

static inline cbi_on_disk cbi_on_disk_at(uint64_t bytes, uint32_t place) {
    return (cbi_on_disk){.bytes = bytes & CBI_ON_DISK_BYTES_MAX,
                         .place = place & CBI_ON_DISK_PLACE_MAX};
}

/** Who waits for a block's lock; on the waiting thread's stack. */
typedef struct cbi_block_waiter {
    cbi_parker parker;
    struct cbi_block_waiter *next;
} cbi_block_waiter;

/**
 * A block's bookkeeping. `entry` counts its locks too: pins are readers and the writer, marked is
 * an eviction under way, and either keeps the block from being chosen.
 */
typedef struct cbi_node {
    cbi_lru_entry entry;   /* first: bytes, mode, data set, place in the order of use */
    struct cbi_node *next; /* of the bucket */
    cbi_block_waiter *waiters;
    void *contents;     /* see kind */
    const void *writer; /* the task that writes it; NULL: none */
    cbi_on_disk disk;
    uint32_t hash;
    cb_level level;
    uint16_t record_class; /* 0: none was given */
    uint8_t kind;          /* CBI_ABSENT ... */
    bool promoting : 1;    /* somebody brings it back from disk */
    bool doomed : 1;       /* its file is bad: goes when the last reader has left */
    bool kept : 1;         /* in the manifest */
    bool removed : 1;      /* nobody finds it any more: goes when the last reader has left */
    bool identified;       /* a cbi_identity stands behind the name; read without the lock */
    uint8_t name_bytes;
    char name[]; /* terminated */
} cbi_node;

/** Which of the blocks that have had its name it is, and what its bytes are. */
typedef struct cbi_identity {
    uint64_t generation, checksum; /* as in cb_block_status */
} cbi_identity;

enum { CBI_INDEX_CLASSES = 26, CBI_INDEX_SLAB_BYTES = 64 * 1024 };

/** Asked before the index takes more memory from the system, and told when it gave it back
 *  (negative): false = no. No lock is held. */
typedef bool (*cbi_index_charge_fn)(void *ctx, int64_t bytes, cb_error *err);

typedef struct cbi_index {
    cbi_lock *lock;
    cbi_node **buckets; /* one range of addresses for the most there can be */
    size_t blocks_max, count;
    bool identities;          /* nodes have room for one; set before the first of them */
    size_t level_size, split; /* linear hashing: buckets 0 .. level_size + split - 1 are there */
    size_t touched;           /* bytes of `buckets` that are resident, and charged */
    void *slabs;              /* linked by their first word */
    uint64_t bytes;           /* slabs and touched buckets */
    void *spare[CBI_INDEX_CLASSES]; /* free nodes of 112, 128, ... bytes */
    cbi_index_charge_fn charge;
    void *ctx;
} cbi_index;

/** `blocks_max`: more can never be entered. CB_ENOMEM. */
cb_status cbi_index_init(cbi_index *index, cbi_lock *lock, size_t blocks_max,
                         cbi_index_charge_fn charge, void *ctx, cb_error *err);
/** No nodes are left. */
void cbi_index_fini(cbi_index *index);

/** A node for that name, zeroed, in no list. Takes the lock itself. CB_ENOMEM, what charge said,
 *  CB_EINVAL for a name that cannot be. */
cb_status cbi_index_node(cbi_index *index, const char *name, cbi_node **node, cb_error *err);
/** The same with the lock held, where nothing has to be asked of the system; else NULL. */
cbi_node *cbi_index_node_now(cbi_index *index, const char *name, size_t bytes, uint32_t hash);
/** Takes the lock itself. */
void cbi_index_free(cbi_index *index, cbi_node *node);
/** The same with the lock held. */
void cbi_index_free_now(cbi_index *index, cbi_node *node);

/** Zeros where it has none. */
cbi_identity cbi_node_identity(const cbi_node *node);
/** Where the index has identities. */
void cbi_node_identify(const cbi_index *index, cbi_node *node, cbi_identity identity);

uint32_t cbi_index_hash(const char *name, size_t bytes);
cbi_node *cbi_index_find(const cbi_index *index, const char *name, size_t bytes, uint32_t hash);
/** It is not there yet. */
void cbi_index_enter(cbi_index *index, cbi_node *node);
void cbi_index_leave(cbi_index *index, cbi_node *node);

/** The nodes of buckets from *at on: the first that has any, and *at goes behind it; NULL at the
 *  end. Those that come or go meanwhile may be missed or seen twice. */
cbi_node *cbi_index_scan(const cbi_index *index, size_t *at);

#define CBI_INDEX_PLACES (UINT64_C(1) << 32)
/** The nodes of the bucket at *place (NULL: none), which is below CBI_INDEX_PLACES, and *place goes
 *  behind it. Whoever goes from 0 to the end sees all that stay meanwhile, some perhaps twice. */
const cbi_node *cbi_index_look(const cbi_index *index, uint64_t *place);

#endif
