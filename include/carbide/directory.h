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
 * All that a directory knows is soft: one that was restarted is empty, refuses everybody, and is
 * told everything again. A block has a generation too, which says which of the contents that
 * name has had this is; whoever put it made it, and the directory only passes it on.
 *
 * A directory is an interface, so that it can be elsewhere; the one here is for one process.
 */

enum { CB_EXECUTOR_NAME_MAX = 63, CB_EXECUTOR_ADDRESS_MAX = 127 };

/** What lies at one executor. */
typedef struct cb_place {
    cb_level level; /**< where it lies there, and how many copies there shall be */
    uint64_t memory_bytes, disk_bytes;
    uint64_t block_generation; /**< 0: of none */
    uint64_t checksum;         /**< XXH3 of 64 bits over all of its bytes */
} cb_place;

typedef void (*cb_place_fn)(void *ctx, const char *block, const cb_place *place);

/** Calls `tell` for some blocks from place *at on (0: the first), so many that `each` bytes and the
 *  name of each fit into `room`; *at moves on, and is 0 at the end. `tell` waits for nothing and
 *  calls nothing of the store: it may be called with the store's lock held, so that what it is told
 *  comes before any change that is reported later. */
typedef void (*cb_executor_list_fn)(void *ctx, uint64_t *at, size_t each, size_t room,
                                    cb_place_fn tell, void *tell_ctx);

/** Who enters. Borrowed for the call; NULL is the same as "". */
typedef struct cb_executor_entry {
    const char *name;
    const char *address; /**< where others reach it: HOST:PORT */
    const char *host;    /**< copies go to another host before another port of the same, */
    const char *rack;    /**< and to another rack before that; labels, only compared */
    uint64_t memory_max; /**< bytes of blocks it has room for */
    /** What it has, for a directory that asks for everything by itself (carbide/redis_directory.h,
     *  where it is needed; the local one does not). Until it has left. */
    cb_executor_list_fn list;
    void *list_ctx;
} cb_executor_entry;

/** One executor's part of a block. */
typedef struct cb_location {
    char executor[CB_EXECUTOR_NAME_MAX + 1];
    uint64_t generation; /**< the executor's */
    cb_place place;
} cb_location;

/** The directory's view of an executor. */
typedef struct cb_executor_view {
    char name[CB_EXECUTOR_NAME_MAX + 1];
    char address[CB_EXECUTOR_ADDRESS_MAX + 1];
    char host[CB_EXECUTOR_NAME_MAX + 1];
    char rack[CB_EXECUTOR_NAME_MAX + 1];
    uint64_t generation;
    uint64_t memory_max;                       /**< as it said when it entered */
    uint64_t memory_bytes, disk_bytes, blocks; /**< of what it reported */
    uint64_t lease_ns;                         /**< until then, of the monotonic clock */
} cb_executor_view;

/** Told of each change after it was made, with no lock held. location->place.level CB_LEVEL_NONE:
 * it is gone from there. */
typedef void (*cb_directory_watch_fn)(void *ctx, const char *block, const cb_location *location);

enum { CB_DIRECTORY_WORDS_MAX = 255 };

/** How the executor stands in a directory that is elsewhere. */
typedef struct cb_directory_state {
    /** CB_OK: it is in it, with all it has but what is on its way; CB_EAGAIN: it is entering, or
     * all is being told again; CB_EEXISTS: somebody newer has its name; CB_EIO, CB_ENOMEM: the
     *  directory cannot be used, which is tried again. */
    cb_status status;
    uint64_t failures; /**< connections that failed or were ended, since the beginning */
    /** Of a failure, for people, often in a server's own words: no control characters, no password;
     *  else "". */
    char words[CB_DIRECTORY_WORDS_MAX + 1];
} cb_directory_state;

/** What a directory can do. Any thread. Names are borrowed for the call. */
typedef struct cb_directory {
    /** *generation: in, the last one it had (0: none); out, one that is larger than that, than all
     *  that were given before, and than those of a directory that was here before a restart. The
     *  lease is as long as the directory's are. CB_EINVAL: a name of none or too many bytes, labels
     *  or an address of too many; CB_ENOMEM. */
    cb_status (*enter)(void *ctx, const cb_executor_entry *entry, uint64_t *generation,
                       cb_error *err);
    /** And all it reported is gone. A stale generation does nothing. */
    void (*leave)(void *ctx, const char *executor, uint64_t generation);
    /** place->level CB_LEVEL_NONE: it does not have the block any more. CB_ENOTFOUND: that
     *  generation is not there (any more): enter again and report everything. CB_ENOMEM. */
    cb_status (*report)(void *ctx, const char *executor, uint64_t generation, const char *block,
                        const cb_place *place, cb_error *err);
    /** The executor lives: its lease begins anew. CB_ENOTFOUND as for report. */
    cb_status (*renew)(void *ctx, const char *executor, uint64_t generation, cb_error *err);
    /** Who has the block: up to `max`, those with it in memory first; *count: how many there are.
     *  CB_EAGAIN: nobody, but the directory has forgotten what it knew and is being told again, or
     *  an executor is still telling it what it has. */
    cb_status (*locate)(void *ctx, const char *block, cb_location *locations, size_t max,
                        size_t *count, cb_error *err);
    /** All others, those with the most room first; up to `max`; *count: how many there are. */
    cb_status (*peers)(void *ctx, const char *executor, cb_executor_view *views, size_t max,
                       size_t *count, cb_error *err);
    /** One computes a block that nobody has. *granted: this executor does, for `claim_ns` or until
     *  it claims again (which begins them anew), lets go, leaves, or its lease ends. Else another
     *  one does, for *wait_ns at most unless it claims again. Advice, and soft: after a restart two
     *  may compute. CB_ENOTFOUND as for report; CB_ENOMEM. */
    cb_status (*claim)(void *ctx, const char *executor, uint64_t generation, const char *block,
                       uint64_t claim_ns, bool *granted, uint64_t *wait_ns, cb_error *err);
    /** It is stored, or could not be computed. Not its claim (any more): does nothing. CB_ENOTFOUND
     *  as for report; anything else: it is not known, and otherwise the claim ends by itself. */
    cb_status (*unclaim)(void *ctx, const char *executor, uint64_t generation, const char *block,
                         cb_error *err);
    /** Waits for nothing. NULL: a directory of this process, which is always there. */
    void (*state)(void *ctx, cb_directory_state *state);
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
