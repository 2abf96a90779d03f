/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_DIRECTORY_H
#define CARBIDE_DIRECTORY_H

#include "carbide/block.h"

CB_EXTERN_C_BEGIN

/*
 * Who has which block (Spark: BlockManagerMaster). An executor is a store of blocks with a name. It
 * enters the directory, which gives it a generation; it reports each change of its blocks with
 * that; it renews its lease from time to time. Who enters again under the same name is somebody
 * new: what the old one reported is forgotten, and what it still reports is refused. So is who let
 * his lease pass: he enters again and reports all he has.
 *
 * A directory is an interface, so that it can be elsewhere; the one here is for one process.
 */

enum { CB_EXECUTOR_NAME_MAX = 63 };

/** One executor's part of a block. */
typedef struct cb_location {
    char executor[CB_EXECUTOR_NAME_MAX + 1];
    uint64_t generation;
    cb_level level; /**< where it lies there */
    uint64_t memory_bytes, disk_bytes;
} cb_location;

/** The directory's view of an executor. */
typedef struct cb_executor_view {
    char name[CB_EXECUTOR_NAME_MAX + 1];
    uint64_t generation;
    uint64_t memory_max;                       /**< as it said when it entered */
    uint64_t memory_bytes, disk_bytes, blocks; /**< of what it reported */
    uint64_t lease_ns;                         /**< until then, of the monotonic clock */
} cb_executor_view;

/** Told of each change after it was made, with no lock held. location->level CB_LEVEL_NONE: it is
 *  gone from there. */
typedef void (*cb_directory_watch_fn)(void *ctx, const char *block, const cb_location *location);

/** What a directory can do. Any thread. Names are borrowed for the call. */
typedef struct cb_directory {
    /** *generation is new with each call. The lease is as long as the directory's are. CB_EINVAL: a
     *  name of none or too many bytes; CB_ENOMEM. */
    cb_status (*enter)(void *ctx, const char *executor, uint64_t memory_max, uint64_t *generation,
                       cb_error *err);
    /** And all it reported is gone. A stale generation does nothing. */
    void (*leave)(void *ctx, const char *executor, uint64_t generation);
    /** level CB_LEVEL_NONE: it does not have the block any more. CB_ENOTFOUND: that generation is
     *  not there (any more): enter again and report everything. CB_ENOMEM. */
    cb_status (*report)(void *ctx, const char *executor, uint64_t generation, const char *block,
                        cb_level level, uint64_t memory_bytes, uint64_t disk_bytes, cb_error *err);
    /** The executor lives: its lease begins anew. CB_ENOTFOUND as for report. */
    cb_status (*renew)(void *ctx, const char *executor, uint64_t generation, cb_error *err);
    /** Who has the block: up to `max`, those with it in memory first; *count: how many there are.
     */
    cb_status (*locate)(void *ctx, const char *block, cb_location *locations, size_t max,
                        size_t *count, cb_error *err);
    /** All others, those with the most room first; up to `max`; *count: how many there are. */
    cb_status (*peers)(void *ctx, const char *executor, cb_executor_view *views, size_t max,
                       size_t *count, cb_error *err);
    void *ctx;
} cb_directory;

typedef struct cb_local_directory cb_local_directory;

/** `lease_ns` 0: leases do not end. CB_ENOMEM. */
CB_API CB_MUST_USE cb_status cb_local_directory_create(uint64_t lease_ns,
                                                       cb_directory_watch_fn watch, void *watch_ctx,
                                                       cb_local_directory **directory,
                                                       cb_error *err);
/** NULL is fine. */
CB_API void cb_local_directory_destroy(cb_local_directory *directory);

/** Its functions; valid as long as it is. */
CB_API cb_directory cb_local_directory_interface(cb_local_directory *directory);

/** Forgets executors whose lease has passed; answers how many. Every call of the interface that
 *  names one does the same for that one. */
CB_API uint32_t cb_local_directory_expire(cb_local_directory *directory);

CB_EXTERN_C_END

#endif
