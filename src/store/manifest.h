/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_MANIFEST_H
#define CBI_MANIFEST_H

#include "base/lock.h"
#include "carbide/block.h"
#include "carbide/level.h"

/*
 * Which blocks outlive the process: a file that is only appended to. See the essay in manifest.c.
 * One thread at a time.
 */

enum { CBI_MANIFEST_RECORD = 512 };

/** What one record says. */
typedef struct cbi_kept {
    char name[CB_BLOCK_NAME_MAX + 1];
    cb_level level;
    uint64_t file_bytes;
    uint64_t generation, checksum; /* of the block; 0: it has none */
    bool removed;
} cbi_kept;

/** Called for each record in order; false ends the reading. */
typedef bool (*cbi_kept_fn)(void *ctx, const cbi_kept *kept);

/** Reads bytes as they lie in the file. *damaged: records that are not what was written, but for
 *  one at the end, which was being written when the process died. false: fn ended it. */
bool cbi_manifest_parse(const uint8_t *bytes, size_t count, uint64_t first, cbi_kept_fn fn,
                        void *ctx, uint64_t *damaged);

/** The record as it is written at place `number`. */
void cbi_manifest_record(const cbi_kept *kept, uint64_t number,
                         uint8_t record[CBI_MANIFEST_RECORD]);

typedef struct cbi_manifest {
    int folder; /* borrowed */
    int fd;     /* -1: not open */
    uint64_t records, live;
} cbi_manifest;

/** Reads what is there. A manifest that is not there has no records. CB_EIO, CB_ENOMEM, and what
 *  made fn say false: CB_EINTERNAL. */
cb_status cbi_manifest_read(int folder, cbi_kept_fn fn, void *ctx, uint64_t *damaged,
                            cb_error *err);

/** The next record of a manifest to be written anew; false at its end. */
typedef bool (*cbi_manifest_next_fn)(void *ctx, cbi_kept *kept);

/** A manifest of just these, in the place of the one before, when this is on disk. On failure the
 *  one before stays, open if it was. */
cb_status cbi_manifest_rewrite(cbi_manifest *manifest, int folder, cbi_manifest_next_fn next,
                               void *ctx, cb_error *err);
/** On disk when it answers CB_OK. */
cb_status cbi_manifest_append(cbi_manifest *manifest, const cbi_kept *kept, cb_error *err);
/** Whether most of it is of blocks that are gone. */
static inline bool cbi_manifest_is_long(const cbi_manifest *m) {
    return m->records > 2 * m->live + 64;
}
/** Zeroed but for fd -1 is fine. */
void cbi_manifest_close(cbi_manifest *manifest);

#endif
