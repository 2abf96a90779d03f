/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SPLIT_H
#define CBI_SPLIT_H

#include "carbide/partition.h"
#include "operator/sink.h"
#include "operator/stored.h"
#include "spill/reclaim.h"

/*
 * What makes a sort a partition: keys that name targets instead of an order, and many files instead
 * of one. A sort has one of these, or none.
 */

typedef struct cbi_split cbi_split;
typedef struct cbi_pens cbi_pens;

enum { SPLIT_VALUE_MAX = 180, SPLIT_KEYS_MAX = 64, SPLIT_PENS = 4 };

/* A piece of the template: text, or the value of a key (KEY_ALL: of all). */
typedef struct split_piece {
    const char *text;
    uint32_t bytes;
    int key; /* -1: text */
} split_piece;
enum { SPLIT_TEXT = -1, SPLIT_ALL = -2 };

struct cbi_split {
    cb_partition_by by;
    uint32_t count;
    cb_partition_write_fn write; /* instead of files; NULL: files */
    void *write_ctx;
    char *name; /* of the present target, for write: whose turn it is has it */
    char *text; /* the template's copy; pieces point into it */
    char *root; /* the folder that holds all names */
    bool made_root;
    split_piece *pieces;
    size_t piece_count;
    const char *suffix; /* the end of all names */
    char **bounds;
    size_t bound_count;
    uint8_t *bound_keys; /* encoded, one after the other */
    cbi_span *bound_spans;
    unsigned digits;

    /* bound to an input */
    const cbi_keys *keys;
    size_t key_parts;
    cbi_format format;
    const uint32_t *columns;
    size_t column_count;
    const uint8_t *header;
    size_t header_bytes;

    /* the run */
    int root_fd;
    cbi_private_folder folder; /* everything is written in here first */
    char *tree;                /* path of the folder inside it that mirrors the root */
    cbi_pens *pens;            /* one a worker */
    cbi_spill *io;
    uint8_t *unused_edges;
    atomic_ullong files, bytes;
    bool named; /* all files have their names */
};

/** Checks and copies. CB_EINVAL. */
cb_status cbi_split_create(const cb_partition_options *options, cbi_split **split, cb_error *err);
/** After a run, whatever became of it: what has no name yet is removed. */
void cbi_split_clear(cbi_split *split);
void cbi_split_destroy(cbi_split *split);
/** Keys and format are known now. Everything is borrowed until clear. */
cb_status cbi_split_bind(cbi_split *split, const cbi_keys *keys, const cbi_input *input,
                         cb_error *err);
/** As cbi_keys_encode; the key of a row is its target. */
size_t cbi_split_key(const cbi_split *split, const cbi_rows *rows, size_t i, uint8_t *out,
                     size_t cap);

/* split_write.c */
/** `memory`: `bytes` for each of the workers, `stride` apart; `blocks`: cbi_sink_block_bytes for
 * each when names are compressed ones. */
cb_status cbi_split_open(cbi_split *split, cbi_spill *io, unsigned workers, uint8_t *memory,
                         size_t stride, size_t bytes, uint8_t *blocks, size_t block_bytes,
                         uint8_t *edges, cb_error *err);
/** The next row in the order of targets. One thread a worker. */
cb_status cbi_split_put(cbi_split *split, unsigned worker, const cbi_stored *row, cb_error *err);
/** No more rows of this worker's present target. */
cb_status cbi_split_end(cbi_split *split, unsigned worker, cb_error *err);
/** All of this worker's files are whole. */
cb_status cbi_split_drain(cbi_split *split, unsigned worker, cb_error *err);
/** Gives all files their names. One thread. */
cb_status cbi_split_finish(cbi_split *split, cb_error *err);
void cbi_split_close_pens(cbi_split *split);

/* split_name.c */
/** Where the row's file goes, below the tree; as much as fits in PATH_MAX. `row` is a row of the
 * target. CB_EINVAL: too long. */
cb_status cbi_split_name(const cbi_split *split, const cbi_stored *row, char *path, size_t cap,
                         cb_error *err);

#endif
