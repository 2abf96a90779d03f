/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_SHUFFLE_H
#define CARBIDE_SHUFFLE_H

#include "carbide/manager.h"

CB_EXTERN_C_BEGIN

/*
 * The output of one map task of a shuffle (Spark: UnsafeShuffleWriter, ShuffleExternalSorter):
 * bytes come in batches, each piece with the partition that it belongs to, and leave as one file in
 * which partition follows partition, compressed and framed as Spark's readers expect. Within a
 * partition bytes keep the order in which they came, so that a record may come in several pieces.
 *
 * What is in memory lies in pages that are drawn from a parent (Spark: TaskMemoryManager); it goes
 * to disk when the parent refuses, and when anybody says so. With CB_SHUFFLE_LZ4_BLOCK and blocks
 * of all partitions that take at most 32 MiB, what fills them is compressed at once, and only that
 * stays.
 */
typedef struct cb_shuffle cb_shuffle;

typedef enum cb_shuffle_codec {
    CB_SHUFFLE_RAW = 0,
    CB_SHUFFLE_LZ4_BLOCK, /**< the blocks of lz4-java's LZ4BlockOutputStream */
    CB_SHUFFLE_ZSTD       /**< zstd frames */
} cb_shuffle_codec;

/** Of a partition's bytes as they lie in the file (spark.shuffle.checksum.algorithm). */
typedef enum cb_shuffle_checksum {
    CB_CHECKSUM_NONE = 0,
    CB_CHECKSUM_ADLER32,
    CB_CHECKSUM_CRC32,
    CB_CHECKSUM_CRC32C
} cb_shuffle_checksum;

enum { CB_SHUFFLE_PARTITIONS_MAX = 1 << 24 };

/** Zero-initialise, set struct_size and what is wanted. Copied, folders' names too. */
typedef struct cb_shuffle_options {
    size_t struct_size;
    uint32_t partitions; /**< 1 to CB_SHUFFLE_PARTITIONS_MAX */
    cb_shuffle_codec codec;
    int level;            /**< of zstd; 0 = 1 */
    uint32_t block_bytes; /**< of lz4, 64 to 32 MiB; 0 = 32 KiB */
    cb_shuffle_checksum checksum;
    /** Where bytes of pages come from, off-heap. Called with no lock held. The functions and ctx
     *  are used until the destroy. */
    cb_parent parent;
    size_t page_bytes;       /**< 64 KiB to 1 GiB; 0 = 1 MiB */
    const char *const *dirs; /**< for what is spilled: at least one */
    size_t dir_count;
} cb_shuffle_options;

/**
 * Owned by the caller. Beside the parent's pages it holds a fixed part: 52 bytes a partition,
 * buffers of 256 KiB and three blocks, what the codec needs (zstd: about 1 MiB at level 1), and
 * once it spills 2.2 MiB. CB_EINVAL, CB_ENOMEM.
 */
CB_API CB_MUST_USE cb_status cb_shuffle_create(const cb_shuffle_options *options,
                                               cb_shuffle **shuffle, cb_error *err);

/** NULL is fine. Gives all back and leaves no file of its own. No thread is inside. */
CB_API void cb_shuffle_destroy(cb_shuffle *shuffle);

/**
 * Takes pieces {uint32_t partition, uint32_t length, bytes}, one behind the other, in the machine's
 * order. One thread. Draws pages from the parent; where it gives none everything goes to disk.
 * CB_EINVAL: a partition or a length that cannot be; CB_EBUDGET: the parent does not even give what
 * a piece needs; CB_EMISUSE after cb_shuffle_write; CB_ENOSPC, CB_EIO of a spill. After a failure
 * only a destroy makes sense.
 */
CB_API CB_MUST_USE cb_status cb_shuffle_append(cb_shuffle *shuffle, const void *batch, size_t bytes,
                                               cb_error *err);

/**
 * Everything in memory goes to disk, and its bytes back to the parent: *released, with what other
 * threads gave back meanwhile (a spill of theirs, the end of a write); 0 when there was nothing.
 * Any thread, also while others are inside; waits for them, but not while they are in the parent's
 * acquire. Not from the parent's release. Acquires nothing.
 */
CB_API CB_MUST_USE cb_status cb_shuffle_spill(cb_shuffle *shuffle, uint64_t *released,
                                              cb_error *err);

/**
 * Writes the file `path`, which is made or emptied. Once, by the thread that appended. `lengths`
 * and, when not NULL, `checksums` have room for one figure a partition; that of an empty one is the
 * algorithm's of no bytes. Nothing is synced. A failure removes what it has begun. CB_EMISUSE: a
 * second time; CB_EIO, CB_ENOSPC, CB_ECORRUPT (what was spilled has changed).
 */
CB_API CB_MUST_USE cb_status cb_shuffle_write(cb_shuffle *shuffle, const char *path,
                                              int64_t *lengths, int64_t *checksums, cb_error *err);

typedef struct cb_shuffle_figures {
    uint64_t pages_peak;    /**< bytes drawn from the parent, at most */
    uint64_t spilled_bytes; /**< of pages that were spilled */
    uint64_t spill_bytes;   /**< as they went to disk */
    uint64_t spills;
    /** Where the time of these calls went, none of it counted twice, by the clock on the wall. */
    uint64_t copy_ns;     /**< records to the places of their partitions, which is all ordering */
    uint64_t compress_ns; /**< and hashing, as frames want it */
    uint64_t spill_ns;    /**< to disk */
    uint64_t merge_ns;    /**< and back; chunks come together; checksums */
    uint64_t write_ns;    /**< in calls that write the file */
} cb_shuffle_figures;

/** Any thread. */
CB_API void cb_shuffle_get_figures(const cb_shuffle *shuffle, cb_shuffle_figures *figures);

CB_EXTERN_C_END

#endif
