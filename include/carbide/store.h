/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_STORE_H
#define CARBIDE_STORE_H

#include "carbide/block.h"
#include "carbide/cipher.h"
#include "carbide/directory.h"
#include "carbide/manager.h"

CB_EXTERN_C_BEGIN

/*
 * Blocks: named data that lies in memory, on disk, or in both in turn (Spark: BlockManager with its
 * MemoryStore, DiskStore and BlockInfoManager). They live in the storage half of a manager's
 * budget: when others need memory the least recently used blocks leave, to disk if their level says
 * so, else for good. Blocks are immutable. Each has a lock, many readers or one writer, held by a
 * task and released when the task ends at the latest.
 *
 * Any thread may call any function; a task, a reader, a cursor or a rest is used by one thread at a
 * time, but for cb_block_release and cb_block_task_end, which may meet. No callback is called with
 * a lock of the library held. None of them may call the store for the block it is called for.
 */

typedef struct cb_blocks cb_blocks;

/* ---- records and bytes, in and out ---- */

/** Where bytes go. */
typedef struct cb_byte_sink {
    cb_status (*write)(void *ctx, const void *bytes, size_t count, cb_error *err);
    void *ctx;
} cb_byte_sink;

/** Where bytes come from: at least one unless CB_EEND. */
typedef struct cb_byte_source {
    cb_status (*read)(void *ctx, void *bytes, size_t count, size_t *got, cb_error *err);
    void *ctx;
} cb_byte_source;

/** Where records come from; CB_EEND after the last. The record becomes the caller's. */
typedef struct cb_record_source {
    cb_status (*next)(void *ctx, void **record, cb_error *err);
    void *ctx;
} cb_record_source;

/**
 * What the store must know of the records of a deserialised block: how large one is with all that
 * it refers to, how to write it and read it back, how to end it. Borrowed for the store's life.
 */
typedef struct cb_record_class {
    size_t struct_size;
    uint64_t (*size)(void *ctx, const void *record);
    cb_status (*write)(void *ctx, const void *record, const cb_byte_sink *sink, cb_error *err);
    /** Reads one; CB_EEND when the source has no more. */
    cb_status (*read)(void *ctx, const cb_byte_source *source, void **record, cb_error *err);
    void (*destroy)(void *ctx, void *record);
    void *ctx;
    /** size is dear: only some records of a block are asked, and what all take is estimated, step
     * by step and in the end, as Spark does (SizeTracker, SizeEstimator): of more than 400 records
     * it is twice 100, from the first to the last, each of which says what it alone refers to. */
    bool sampled;
} cb_record_class;

/* ---- a store ---- */

typedef enum cb_block_codec {
    CB_BLOCK_CODEC_NONE = 0,
    CB_BLOCK_CODEC_LZ4,
    CB_BLOCK_CODEC_ZSTD
} cb_block_codec;

/** What a block is after a change (Spark: BlockStatus with its id). level CB_LEVEL_NONE: it is
 *  gone. The level's flags say where it lies now, not what was asked for. */
typedef struct cb_block_status {
    const char *name; /**< borrowed for the call */
    cb_level level;
    uint64_t memory_bytes;
    uint64_t disk_bytes; /**< of its file */
    /** Which of the blocks that have had this name, and the XXH3 (64 bits, seed 0) of its bytes; 0:
     *  it was put by who does not say so. A server that is an executor does. */
    uint64_t generation, checksum;
    cb_level asked; /**< the level it was put at: how many copies there shall be, among others */
} cb_block_status;

/** Told of each change, in order for each block; for different blocks at the same time, by any
 * thread, threads of the store's own among them (several blocks that leave for the disk at once).
 * Must not call the store. The same threads call record classes' write and the cipher. */
typedef void (*cb_block_listener_fn)(void *ctx, const cb_block_status *status);

/** Zero-initialise, set struct_size and what is wanted. Pointers are borrowed for the store's life.
 */
typedef struct cb_blocks_options {
    size_t struct_size;
    cb_manager *manager;  /**< the store becomes its cb_store */
    const char *folder;   /**< for blocks on disk; NULL: none, levels with disk are CB_EINVAL */
    uint32_t sub_folders; /**< spark.diskStore.subDirectories; 0, or with keep: 64 */
    /** Bytes of files, at most; 0 = no limit. Small blocks that share a file count with the slots
     * they have there; slots that are free for others of their size do not. */
    uint64_t disk_max;
    cb_block_codec codec; /**< of files */
    const cb_cipher
        *cipher; /**< of files; NULL: they are plain. With one only sealed ones are read */
    uint64_t unroll_bytes;  /**< spark.storage.unrollMemoryThreshold; 0 = 1 MiB */
    uint32_t unroll_period; /**< records between looks at the size; 0 = 16 */
    double unroll_growth;   /**< 0 = 1.5 */
    /** Blocks may outlive the store and the process (cb_blocks_keep), in a folder
     * carbide-blocks.KEEP below `folder`: up to 32 of A-Z a-z 0-9 . _ -; NULL: none do. One store
     * at a time. */
    const char *keep;
    /** Of the records in blocks that were kept; NULL: these are read as bytes. */
    const cb_record_class *keep_class;
    size_t blocks_max; /**< 0 = what the budget could keep the books of, 2^24 at least */
    cb_block_listener_fn listener;
    void *listener_ctx;
    bool identities; /**< there is room (16 bytes a block) for generations and checksums */
    /** The store is an executor of this directory (Spark: BlockManager and its master): it enters
     *  when it is created, reports each change by itself, enters again and reports everything where
     *  it is not known any more, and leaves when it is destroyed. NULL: it is in none. Watchers of
     *  a directory in this process are told inside, as a listener is, and must not call the store.
     */
    const cb_directory *directory;
    /** As whom; copied. Its list is the store's own. memory_max 0: all that blocks can have. */
    const cb_executor_entry *executor;
    /** Serialised blocks of a known size, from so many bytes on, lie in sealed files of memory that
     *  can be handed to other processes (cb_block_descriptor); 64 KiB at least, 0 = none do. */
    uint64_t share_bytes_min;
    uint32_t shares_max; /**< descriptors for it, at most; blocks beyond lie in pages */
} cb_blocks_options;

/**
 * Owned by the caller. The folder gets a folder of the store's own, which goes with it, or when the
 * next store finds its owner dead. Under native rules what the store itself needs (index, tables,
 * buffers) is charged to the manager's ledger; under SPARK rules it is, as there, part of what is
 * reserved beside the pools, and cb_blocks_stats has it. With `keep` it begins with the blocks that
 * were kept, each read to its end and compared with its checksums (the listener is told of each);
 * those that are not what was written are gone (told too, and counted as lost). CB_EINVAL,
 * CB_ENOMEM, CB_EBUDGET, CB_EIO; CB_EAGAIN: another store keeps its blocks under that name.
 */
CB_API CB_MUST_USE cb_status cb_blocks_create(const cb_blocks_options *options, cb_blocks **blocks,
                                              cb_error *err);

/** Ends it with all blocks. All tasks have ended; nobody is inside. NULL is fine. */
CB_API void cb_blocks_destroy(cb_blocks *blocks);

typedef struct cb_blocks_stats {
    uint64_t blocks; /**< that exist */
    uint64_t memory_blocks, memory_bytes;
    uint64_t disk_blocks, disk_bytes;
    uint64_t unroll_bytes;   /**< held for blocks that are being unrolled, or for rests */
    uint64_t overhead_bytes; /**< index, tables, buffers, what rounding wastes */
    uint64_t evicted;        /**< blocks that left memory for others */
    uint64_t drops_failed;   /**< of these, that stayed: their disk failed */
    uint64_t hits, disk_hits, misses, promoted, computed;
    uint64_t replicas_missing; /**< asked for by levels, and nobody there to hold them */
    uint64_t kept;             /**< blocks that outlive the store */
    uint64_t recovered, lost;  /**< at its beginning: kept before, and found so or not */
    uint64_t manifest_damaged; /**< then: records that told nothing any more */
} cb_blocks_stats;

CB_API void cb_blocks_stats_get(cb_blocks *blocks, cb_blocks_stats *stats);

/** The store's lease in its directory begins anew: to be called several times a lease. Where it is
 *  not known any more, or a report could not be taken, it enters again and reports everything.
 * CB_OK without a directory. CB_EAGAIN: not all could be reported; what the directory answers. */
CB_API CB_MUST_USE cb_status cb_blocks_renew(cb_blocks *blocks, cb_error *err);

/* ---- tasks and locks ---- */

typedef struct cb_block_task cb_block_task;

/** Who holds locks and unrolls. `deadline_ns`: of the monotonic clock, for waits; 0 = none. */
CB_API CB_MUST_USE cb_status cb_block_task_create(cb_blocks *blocks, uint64_t id,
                                                  uint64_t deadline_ns, cb_block_task **task,
                                                  cb_error *err);

/** Releases its locks and what it holds for unrolling; answers how many locks that were. Its rests
 *  have been closed. NULL answers 0. */
CB_API uint64_t cb_block_task_end(cb_block_task *task);

/** Bytes held for unrolling by the task. */
CB_API uint64_t cb_block_task_unroll(const cb_block_task *task);

/**
 * A lock on a block, and what can be seen through it. The struct lies in the caller's memory and
 * stays where it is until it is released or the task has ended. Fields are for reading only.
 */
typedef struct cb_block_ref {
    const uint8_t *data; /**< all of its bytes, borrowed, where they lie in memory in one run; else
                              NULL: see cb_block_reader_open and cb_block_cursor_open */
    uint64_t bytes;      /**< of data; in memory: what it takes there; on disk: before compression
                              when it is known, else 0 */
    cb_level level;      /**< as it was put */
    bool in_memory, on_disk;
    bool deserialised; /**< in memory as records */
    bool writing;
    void *block; /**< opaque; NULL: released */
    cb_blocks *blocks;
    cb_block_task *task;
    struct cb_block_ref *next, *prev;
} cb_block_ref;

/**
 * Locks a block for reading and makes it the most recently used. One that lies on disk only and
 * whose level has memory is brought back when there is room (others may leave for it). Waits for a
 * writer. CB_ENOTFOUND: there is none (any more). CB_ECORRUPT, CB_EIO: its file cannot be read; the
 * block is gone. CB_ENOMEM: memory or descriptors to read it lack now; it stays. CB_EDEADLINE.
 */
CB_API CB_MUST_USE cb_status cb_blocks_get(cb_blocks *blocks, cb_block_task *task, const char *name,
                                           cb_block_ref *ref, cb_error *err);

/** Only the lock, no use and no bringing back (Spark: lockForReading, lockForWriting). With wait
 *  false CB_EAGAIN instead of waiting. CB_EMISUSE: the task would wait for itself. */
CB_API CB_MUST_USE cb_status cb_blocks_lock(cb_blocks *blocks, cb_block_task *task,
                                            const char *name, bool write, bool wait,
                                            cb_block_ref *ref, cb_error *err);

/** A writer's lock becomes a reader's. CB_EMISUSE: it is none. */
CB_API CB_MUST_USE cb_status cb_block_downgrade(cb_block_ref *ref, cb_error *err);

/** The descriptor of the block's bytes as a sealed file in memory, for mapping or for passing to
 *  another process; borrowed as long as the ref is. -1: it lies elsewhere. Who maps it keeps the
 *  memory after the block has gone: the ref must stay as long as he may. */
CB_API int cb_block_descriptor(const cb_block_ref *ref);

/** NULL, zeroed, and one that was released, or whose task has ended, are fine. */
CB_API void cb_block_release(cb_block_ref *ref);

/* ---- reading ---- */

typedef struct cb_block_reader cb_block_reader;

/** The block's bytes in order, from wherever they are; records are written on the way. Of a ref
 *  that stays until the reader is closed. CB_ENOMEM, CB_EIO, CB_ECORRUPT. */
CB_API CB_MUST_USE cb_status cb_block_reader_open(const cb_block_ref *ref, cb_block_reader **reader,
                                                  cb_error *err);
/** At least one byte, or CB_EEND. CB_ECORRUPT: what is on disk is not what was written; the block
 *  goes with its last reader. */
CB_API CB_MUST_USE cb_status cb_block_reader_read(cb_block_reader *reader, void *bytes,
                                                  size_t count, size_t *got, cb_error *err);
CB_API void cb_block_reader_close(cb_block_reader *reader); /**< NULL is fine */

typedef struct cb_block_cursor cb_block_cursor;

/** The block's records in order: the store's own, or read from its bytes by its class. CB_EINVAL:
 *  it was put without one. */
CB_API CB_MUST_USE cb_status cb_block_cursor_open(const cb_block_ref *ref, cb_block_cursor **cursor,
                                                  cb_error *err);
/** Borrowed until the next call. CB_EEND. Errors of the class's read. */
CB_API CB_MUST_USE cb_status cb_block_cursor_next(cb_block_cursor *cursor, const void **record,
                                                  cb_error *err);
CB_API void cb_block_cursor_close(cb_block_cursor *cursor); /**< NULL is fine */

/* ---- putting ---- */

/**
 * What could not be stored, from the first to the last: what was unrolled already and what its
 * source still has (Spark: PartiallyUnrolledIterator, PartiallySerializedBlock). Holds the unroll
 * memory until what was unrolled is consumed, or until it is closed. The source stays borrowed.
 */
typedef struct cb_block_rest cb_block_rest;

/** The next record, the caller's from now on; CB_EEND. CB_EMISUSE: of bytes, or begun as bytes. */
CB_API CB_MUST_USE cb_status cb_block_rest_next(cb_block_rest *rest, void **record, cb_error *err);
/** All of it as bytes; once. Records are ended on the way. CB_EMISUSE the second time, or after
 *  cb_block_rest_next. */
CB_API CB_MUST_USE cb_status cb_block_rest_write(cb_block_rest *rest, const cb_byte_sink *sink,
                                                 cb_error *err);
/** Ends the records that were not consumed. NULL is fine. */
CB_API void cb_block_rest_close(cb_block_rest *rest);

/**
 * Stores bytes (copied) under a new name. `record_class` may be NULL for levels that are not
 * deserialised. One request for all of them; refused, they go to disk if the level has it, else
 * CB_EBUDGET. `ref` not NULL: a reader's lock on the new block. CB_EEXISTS: there is one by that
 * name (Spark keeps the old one too). CB_ENOSPC, CB_EIO: the disk. Nothing is stored but on CB_OK.
 */
CB_API CB_MUST_USE cb_status cb_blocks_put_bytes(cb_blocks *blocks, cb_block_task *task,
                                                 const char *name, cb_level level,
                                                 const cb_record_class *record_class,
                                                 const void *bytes, size_t count, cb_block_ref *ref,
                                                 cb_error *err);

/**
 * Stores records under a new name, unrolling them step by step: as records or as bytes, as the
 * level says. Refused memory, they go to disk if the level has it. Else CB_EBUDGET, and nothing is
 * lost: *rest has them all. rest NULL: they are ended. Other failures end what was read so far.
 */
CB_API CB_MUST_USE cb_status cb_blocks_put_records(cb_blocks *blocks, cb_block_task *task,
                                                   const char *name, cb_level level,
                                                   const cb_record_class *record_class,
                                                   const cb_record_source *source,
                                                   cb_block_ref *ref, cb_block_rest **rest,
                                                   cb_error *err);

/** The same for a stream of bytes whose length is not known; the level is not deserialised. */
CB_API CB_MUST_USE cb_status cb_blocks_put_stream(cb_blocks *blocks, cb_block_task *task,
                                                  const char *name, cb_level level,
                                                  const cb_record_class *record_class,
                                                  const cb_byte_source *source, cb_block_ref *ref,
                                                  cb_block_rest **rest, cb_error *err);

/** How a block that is gone comes back. Each function opens a source; `close` ends the one that was
 *  opened. */
typedef struct cb_block_lineage {
    /** What was saved of it; CB_ENOTFOUND: nothing. NULL: there are no checkpoints. */
    cb_status (*checkpoint)(void *ctx, const char *name, cb_record_source *source, cb_error *err);
    cb_status (*compute)(void *ctx, const char *name, cb_record_source *source, cb_error *err);
    void (*close)(void *ctx, cb_record_source *source); /**< NULL: nothing to do */
    void *ctx;
    /** Opens the block where another executor of the store's directory has it (Spark: getRemote);
     *  `at` says where, in which generation and with which checksum, and whoever reads it answers
     *  for these, and for how long he waits: the task's deadline does not reach him. Who serves it
     *  there must not wait for a block that is being written (cb_blocks_lock with wait false), or
     *  two that ask each other never end. Anything but CB_OK: not from him, the next one is asked.
     *  NULL: others are not asked, and every executor computes for himself. May be called by any
     *  thread that asks. */
    cb_status (*fetch)(void *ctx, const char *name, const cb_location *at, cb_record_source *source,
                       cb_error *err);
} cb_block_lineage;

/**
 * The block, or what its lineage makes of it, which is stored (Spark: getOrElseUpdate). However
 * many ask at once, one computes and the others wait for it; when its computation fails or cannot
 * be stored the next of them computes. CB_EBUDGET: computed but not stored; *rest has the records
 * (and keeps the source open until it is closed), *ref is not set. What the lineage answers.
 *
 * In a store with a directory, and a lineage that can fetch, the same goes for all executors: what
 * another one has is read there and stored here too, at `level`; of what nobody has one computes,
 * with a claim in the directory, and the others wait. The claim lasts ten seconds and is renewed
 * by a thread meanwhile; it ends with the computation, with the executor's lease, or by itself, and
 * then the next one computes. It is soft: where the directory forgets it, or does not answer for
 * ten seconds, two may compute, and each stores what he made. Waits for others without limit but
 * the task's deadline (CB_EDEADLINE).
 */
CB_API CB_MUST_USE cb_status cb_blocks_get_or_compute(cb_blocks *blocks, cb_block_task *task,
                                                      const char *name, cb_level level,
                                                      const cb_record_class *record_class,
                                                      const cb_block_lineage *lineage,
                                                      cb_block_ref *ref, cb_block_rest **rest,
                                                      cb_error *err);

/* ---- removing and looking ---- */

/** Waits for its readers. CB_ENOTFOUND; CB_EMISUSE when they include the task. One that was kept
 * may be there again at the next start when the disk takes neither the record of this nor the end
 * of its file. */
CB_API CB_MUST_USE cb_status cb_blocks_remove(cb_blocks *blocks, cb_block_task *task,
                                              const char *name, cb_error *err);

/** All blocks rdd_SET_*, or broadcast_ID and its pieces; *count: how many. Those that come
 * meanwhile may stay. */
CB_API CB_MUST_USE cb_status cb_blocks_remove_data_set(cb_blocks *blocks, cb_block_task *task,
                                                       uint32_t data_set, uint64_t *count,
                                                       cb_error *err);
CB_API CB_MUST_USE cb_status cb_blocks_remove_broadcast(cb_blocks *blocks, cb_block_task *task,
                                                        uint64_t broadcast, uint64_t *count,
                                                        cb_error *err);

/**
 * The block outlives the store: when this answers CB_OK it is on disk, synced, and in the manifest,
 * and the next store with the same `keep` begins with it, whatever becomes of this process or the
 * machine, until it is removed. What is not kept is gone with the store. The level has disk
 * (CB_EINVAL else). CB_ENOTFOUND, CB_ENOSPC, CB_EIO: it is not kept. Waits for a writer and for the
 * disk.
 */
CB_API CB_MUST_USE cb_status cb_blocks_keep(cb_blocks *blocks, cb_block_task *task,
                                            const char *name, cb_error *err);

/** Where it is now; status->name is `name`. CB_ENOTFOUND. Neither a lock nor a use. */
CB_API CB_MUST_USE cb_status cb_blocks_status(cb_blocks *blocks, const char *name,
                                              cb_block_status *status, cb_error *err);

/** Calls `fn` for each block, with no lock held; false ends it. Blocks that come or go meanwhile
 * may be missed. CB_ENOMEM. */
typedef bool (*cb_block_visit_fn)(void *ctx, const cb_block_status *status);
CB_API CB_MUST_USE cb_status cb_blocks_list(cb_blocks *blocks, cb_block_visit_fn fn, void *ctx,
                                            cb_error *err);

CB_EXTERN_C_END

#endif
