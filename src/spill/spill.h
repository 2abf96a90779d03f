/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SPILL_H
#define CBI_SPILL_H

#include "base/sys.h"
#include "carbide/sort.h"

/*
 * Segments leave memory in batches and come back in batches. A segment begins with
 * CBI_FRAME_HEADER_BYTES that belong to the frame, its payload follows; so a raw frame is written
 * from where it lies, without a copy. A batch becomes one extent: one contiguous, 4 KiB aligned
 * stretch of one temporary file.
 */

enum { CBI_FRAME_HEADER_BYTES = 48, CBI_SPILL_ALIGN = 4096 };

/** One segment of a batch. base is aligned to CBI_SPILL_ALIGN; capacity a multiple of it. */
typedef struct cbi_spill_segment {
    uint8_t *base;
    uint32_t capacity;
    uint32_t used; /* payload bytes after the header */
} cbi_spill_segment;

/** Where a batch lies. 16 bytes, kept by the caller. */
typedef struct cbi_extent {
    uint64_t place;    /* 8 bits of file, 56 of position in 4 KiB blocks */
    uint32_t blocks;   /* stored length in 4 KiB blocks */
    uint32_t segments; /* frames in it */
} cbi_extent;

typedef struct cbi_spill cbi_spill;

typedef struct cbi_spill_options {
    const char *const *dirs; /* striped, extent by extent */
    size_t dir_count;
    uint64_t limit_bytes; /* of all files together; 0 = none */
    cb_codec codec;
    unsigned io_threads;  /* up to 8; 0: who asks carries it out, and there is no codec */
    size_t segment_bytes; /* the largest usual segment: sizes the staging buffers for lz4 */
    uint8_t *staging; /* caller's memory for direct I/O and lz4: cbi_spill_staging_bytes(), aligned
                         to 4 KiB */
    size_t staging_bytes;
    uint8_t *tier; /* caller's memory where extents lie as they would on disk, when the disk cannot
                      follow (tier.c); NULL: none. Aligned to 4 KiB. See cbi_spill_give_back */
    size_t tier_bytes;
    bool allow_memory_fs; /* temporary space on tmpfs is refused otherwise (CB_EUNSUPPORTED) */
    bool page_cache;      /* files are the kernel's to keep: nothing waits for a disk */
    /* For tests: what happens by itself where the file system lacks O_TMPFILE or O_DIRECT. */
    bool named_files;
    bool buffered;
    bool tier_first; /* what happens where the disk is slow */
} cbi_spill_options;

enum { CBI_IO_THREADS_LEAST = 2 };

/** I/O threads that a budget can afford: each has its staging memory. Eight keep a fast disk busy
 * with reads and writes at once: a tenth faster than four where both go on, and no slower with
 * either alone; with small budgets, whose batches are small, several hide the disk's latency. */
static inline unsigned cbi_io_threads(uint64_t budget_bytes) {
    return budget_bytes < 12 * CBI_MIB   ? CBI_IO_THREADS_LEAST
           : budget_bytes < 28 * CBI_MIB ? 4
           : budget_bytes < 60 * CBI_MIB ? 6
                                         : 8;
}

/** From here on segments that are used again and again lie in huge pages. */
enum { CBI_HUGE_FROM_BYTES = 48 * 1024 * 1024, CBI_HUGE_PAGE_BYTES = 2 * 1024 * 1024 };

/** Threads that touch the same huge page at the same moment each get one and are charged for it;
 * all but one are given back. A container's limit counts them while they are there. */
static inline uint64_t cbi_huge_bytes(uint64_t budget_bytes, unsigned threads) {
    return budget_bytes < CBI_HUGE_FROM_BYTES
               ? 0
               : cbi_min((size_t)threads * CBI_HUGE_PAGE_BYTES, (size_t)(budget_bytes / 16));
}

/** What a container is charged for beside the pages of the process: the system's own tables for
 * requests and files, and chunks of a cold input on their way. Measured: 1.5 MiB at 32, 5 MiB at
 * 256; the headroom of the plan has the first of it. */
static inline uint64_t cbi_kernel_bytes(uint64_t budget_bytes) {
    return budget_bytes < 16 * CBI_MIB
               ? 0
               : cbi_min((size_t)((budget_bytes - 16 * CBI_MIB) / 64), 6 * CBI_MIB);
}

/** Staging memory: 0 for CB_CODEC_NONE, else for each I/O thread up to 32 segments or 512 KiB, at
 * least 64 KiB. A batch whose compressed frames do not fit is written raw. */
size_t cbi_spill_staging_bytes(unsigned io_threads, size_t segment_bytes, cb_codec codec);
cb_status cbi_spill_open(const cbi_spill_options *options, cbi_spill **spill, cb_error *err);
/** Waits for what is under way, closes, leaves nothing. NULL is fine. */
void cbi_spill_close(cbi_spill *spill);

/**
 * Called on an I/O thread, no lock held, once for each request. `status` not CB_OK: `err` has the
 * story. For a write `extent` is where it lies now. The segments are the caller's again.
 */
typedef void (*cbi_spill_done_fn)(void *ctx, cb_status status, const cbi_extent *extent,
                                  const cb_error *err);

/**
 * Writes the batch behind the caller's back. `owner` (range or run number) and `sequence` go into
 * every frame and are checked when it comes back. `segments` must stay until done. Fails at once
 * only when stopped by an earlier failure or a limit. Never allocates. Blocks while the queue (64
 * deep) is full.
 */
cb_status cbi_spill_write(cbi_spill *spill, uint32_t owner, uint32_t sequence,
                          const cbi_spill_segment *segments, uint32_t count, cbi_spill_done_fn done,
                          void *ctx, cb_error *err);

/**
 * Reads an extent back into `count` == extent->segments segments of at least the original
 * capacities; fills `used`. Frames are verified: length, owner, sequence, position, XXH3.
 * CB_ECORRUPT says file, position and what differs.
 */
cb_status cbi_spill_read(cbi_spill *spill, uint32_t owner, uint32_t sequence,
                         const cbi_extent *extent, cbi_spill_segment *segments, uint32_t count,
                         cbi_spill_done_fn done, void *ctx, cb_error *err);

/** The place may be used again by later writes. Nothing is punched: see docs/spill-format.md. */
void cbi_spill_free(cbi_spill *spill, const cbi_extent *extent);

/**
 * Writes out what lies in the memory that was given as `tier`, which is the caller's again then:
 * *base, once; NULL when it was given back before or there was none. Extents stay where they are
 * for all who read them. Blocks for as long as that takes, also when another thread does it. Not
 * on a thread of the spill. On failure (CB_ENOSPC, CB_EIO) nothing has changed.
 */
cb_status cbi_spill_give_back(cbi_spill *spill, uint8_t **base, cb_error *err);

/** General write-behind for output files, by the same threads: `done` as above (extent NULL).
 * Alignment is the caller's care. */
cb_status cbi_spill_pwrite(cbi_spill *spill, int fd, const uint8_t *buf, size_t bytes,
                           uint64_t offset, cbi_spill_done_fn done, void *ctx, cb_error *err);

typedef struct cbi_spill_stats {
    uint64_t raw_bytes, stored_bytes, read_bytes; /* stored, read: on disk */
    uint64_t live_bytes, live_peak_bytes;
    bool direct;                             /* O_DIRECT took */
    cb_codec codec;                          /* what pays now */
    uint64_t write_ns, read_ns, compress_ns; /* sums over threads */
} cbi_spill_stats;
void cbi_spill_get_stats(const cbi_spill *spill, cbi_spill_stats *stats);
/** Free bytes over all folders; false in *on_disk when one lives in memory. For planning, before
 * anything is opened. */
cb_status cbi_spill_space(const char *const *dirs, size_t count, uint64_t *free_bytes,
                          bool *in_memory, cb_error *err);

#endif
