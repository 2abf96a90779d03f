/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SPILL_FILE_H
#define CBI_SPILL_FILE_H

#include "spill/spill.h"

enum {
    CBI_SPILL_FOLDERS_MAX = 64,
    CBI_SPILL_FILES_MAX = 256, /* 8 bits of an extent's place */
    CBI_SPILL_GROUPS_MAX = 32, /* files a folder: neighbouring owners share one */
    CBI_SPILL_OWNERS_PER_GROUP = 32,
    CBI_SPILL_HOLES_MAX = 512,
    CBI_SPILL_VECTOR_MAX = 64 /* pieces of memory in one transfer */
};

/* cbi_extent.place: 8 bits of file, 1 flag, 55 of block. */
#define CBI_PLACE_PACKED (1ull << 55)

static inline uint64_t cbi_place_make(uint32_t file, uint64_t block, bool packed) {
    return (uint64_t)file << 56 | (packed ? CBI_PLACE_PACKED : 0) | block;
}
static inline uint32_t cbi_place_file(uint64_t place) {
    return (uint32_t)(place >> 56);
}
static inline bool cbi_place_packed(uint64_t place) {
    return (place & CBI_PLACE_PACKED) != 0;
}
static inline uint64_t cbi_place_block(uint64_t place) {
    return place & (CBI_PLACE_PACKED - 1);
}

/** What a named folder needs beside itself: see reclaim.h. */
typedef struct cbi_private_folder {
    int fd;       /* the 0700 folder; -1: files here have no names, nothing is needed */
    int owner_fd; /* its owner file, locked */
    char name[48];
} cbi_private_folder;

typedef struct cbi_folder {
    char *path;
    int fd;
    cbi_private_folder private_folder;
    bool direct;             /* the first file took O_DIRECT */
    bool full;               /* the disk said so; skipped from then on while others have room */
    uint64_t written_blocks; /* for messages */
} cbi_folder;

typedef struct cbi_spill_file {
    int fd;          /* -1: not open yet. Set once */
    uint32_t folder; /* immutable */
    bool page_cache; /* immutable: it may keep what is transferred */
    bool busy;       /* somebody extends, opens or empties it just now */
    atomic_bool direct;
    uint64_t tail_blocks;      /* what lies before it was given out at some time */
    uint64_t allocated_blocks; /* what the file system has promised */
    uint64_t live_blocks;
} cbi_spill_file;

typedef struct cbi_hole {
    uint64_t place; /* flag clear */
    uint64_t blocks;
} cbi_hole;

/**
 * Memory that is left over: extents lie there as they would in a file (tier.c). It is the last of
 * the files, has no folder, and goes to a stretch of one that has when the memory is wanted.
 */
typedef struct cbi_tier {
    uint8_t *memory; /* NULL: none, or it has gone */
    uint64_t blocks;
    unsigned users;        /* who copies from or to it just now */
    bool leaving;          /* somebody writes it out; nobody new comes */
    uint64_t moved;        /* where it begins on disk, once it has gone, */
    uint64_t moved_blocks; /* and how much of that is still taken */
} cbi_tier;

/** Folders, their files and who lies where. Its own lock, held over nothing slower than a look at a
 * table: whoever calls the file system marks the file busy meanwhile. */
typedef struct cbi_places {
    cbi_folder *folders; /* all but `full` and `written_blocks` immutable after init */
    uint32_t folder_count;
    uint32_t groups;       /* files a folder */
    cbi_spill_file *files; /* folder_count * groups; file = folder * groups + group; then that in
                              memory */
    uint64_t limit_blocks; /* UINT64_MAX: none */
    bool named;            /* no O_TMPFILE, by order or by need */
    bool buffered;         /* by order */
    bool page_cache;       /* buffered, and what was written or read stays in it */
    bool ready;            /* lock and condition exist */

    cbi_mutex lock; /* guards the rest, and the mutable parts of files and folders */
    cbi_cond idle;  /* a file is not busy any more */
    uint32_t next_folder;
    uint64_t allocated_blocks, live_blocks, live_peak_blocks;
    uint32_t hole_count;
    uint32_t empty_count; /* files that hold nothing alive and much space */
    cbi_tier tier;
    cbi_hole holes[CBI_SPILL_HOLES_MAX];
} cbi_places;

cb_status cbi_places_init(cbi_places *places, const cbi_spill_options *options, cb_error *err);
/** Closes one more file; false when none is left. Several threads may do it at once: closing frees
 * the space, which can take long. */
bool cbi_places_close_next(cbi_places *places);
/** Everything; zeroed is fine. */
void cbi_places_fini(cbi_places *places);

/** A place for `blocks` blocks, with `tier` in memory if there is room; `blocks` of extent and the
 * flag are the caller's. May extend a file. CB_ENOSPC. */
cb_status cbi_places_reserve(cbi_places *places, uint32_t owner, uint64_t blocks, bool tier,
                             uint64_t *place, cb_error *err);
/** True: its file holds nothing alive any more and is worth emptying. */
bool cbi_places_free(cbi_places *places, uint64_t place, uint64_t blocks);
/** A write there failed: the place is given back; when the disk is full, that folder is kept away
 * from. False: no other is left. */
bool cbi_places_refused(cbi_places *places, uint64_t place, uint64_t blocks, bool full);
/** Gives the space of one file that holds nothing alive back to the disk. False: there was none.
 * For quiet moments. */
bool cbi_places_empty_one(cbi_places *places);

/** The memory that a place lies in, which stays there until unpin; NULL: it lies on disk, at
 * `where`. Waits while the memory is being written out. */
uint8_t *cbi_places_pin(cbi_places *places, uint64_t place);
void cbi_places_unpin(cbi_places *places);
/** A place on disk for one on disk or in memory that has gone there. */
uint64_t cbi_places_where(cbi_places *places, uint64_t place);
/** A place in memory; false when there is no room. places->lock held. */
bool cbi_tier_take(cbi_places *places, uint64_t blocks, uint64_t *place);
bool cbi_tier_is(const cbi_places *places, uint64_t place);

/** Begins to write the memory out: nobody comes to it any more and it answers how many blocks are
 * to be written. False: there is none (any more). Waits for others who do the same. End it with
 * left (its blocks lie at `moved` now) or stayed. */
bool cbi_tier_leave(cbi_places *places, uint64_t *blocks);
void cbi_tier_left(cbi_places *places, uint64_t moved, uint64_t blocks);
void cbi_tier_stayed(cbi_places *places);

/** Transfers for files of ours: direct where it works, else written out and dropped from the page
 * cache behind us. The iovec is consumed. 0 or -errno. */
int cbi_spill_file_open(cbi_places *places,
                        uint32_t index); /* the file is nobody else's just now; its fd or -errno */
int cbi_spill_file_write(cbi_spill_file *file, struct iovec *iov, int count, uint64_t offset,
                         uint64_t bytes);
int cbi_spill_file_read(cbi_spill_file *file, struct iovec *iov, int count, uint64_t offset,
                        uint64_t bytes);

cb_status cbi_places_fail_limit(cbi_places *places, uint64_t bytes, cb_error *err);
/** CB_ENOSPC (or CB_EIO) with folder, figures and what to do. */
cb_status cbi_places_fail(cbi_places *places, uint64_t place, int sys_errno, const char *what,
                          uint64_t bytes, cb_error *err);

#endif
