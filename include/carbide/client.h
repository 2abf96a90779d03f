/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_CLIENT_H
#define CARBIDE_CLIENT_H

#include "carbide/server.h"

CB_EXTERN_C_BEGIN

/*
 * Blocks of a server on this machine (carbide/server.h). A client is one connection, used by one
 * thread at a time; threads that want to work at once open one each. Nothing here is a signal's
 * business: a server that is gone is CB_EIO. A connection that the server ended while it was idle,
 * for others' sake, is made again unnoticed.
 */

typedef struct cb_client cb_client;

/**
 * Connects. `timeout_ns`: for each call, from its beginning to its end, while the server says
 * nothing; 0 = 30 s. The server's user must be ours or root, or CB_EIO: else anybody could set one
 * up. CB_ENOTFOUND: nobody listens there; CB_EAGAIN: it has too many connections; CB_ENOMEM.
 */
CB_API CB_MUST_USE cb_status cb_client_open(const char *socket, uint64_t timeout_ns,
                                            cb_client **client, cb_error *err);

/** Its leases end: what was got without a copy must not be looked at any more. NULL is fine. */
CB_API void cb_client_close(cb_client *client);

/**
 * Puts a block under a new name. level 0: the server's own choice, memory, and disk if it has one.
 * CB_EEXISTS, CB_EBUDGET, CB_ENOSPC, CB_EINVAL; CB_EIO: the server is gone, and the block is there
 * or not; CB_EDEADLINE.
 */
CB_API CB_MUST_USE cb_status cb_client_put(cb_client *client, const char *name, cb_level level,
                                           const void *bytes, uint64_t count, cb_error *err);

/** The same for bytes that a source has; exactly `count`. When it has fewer, or fails, the
 *  connection is made anew and there is no block. What the source answers. */
CB_API CB_MUST_USE cb_status cb_client_put_from(cb_client *client, const char *name, cb_level level,
                                                const cb_byte_source *source, uint64_t count,
                                                cb_error *err);

/** A block's bytes, for reading. The struct lies in the caller's memory. */
typedef struct cb_client_block {
    const uint8_t *data; /**< not NULL, even if there are none */
    uint64_t bytes;
    bool leased; /**< the server's own pages; else a copy */
    uint64_t lease;
    uint64_t mapped;     /**< opaque */
    uint64_t connection; /**< opaque: which of the client's, when it was made again */
} cb_client_block;

/** All of a block, until cb_client_release. CB_ENOTFOUND, CB_ENOMEM, CB_EIO, CB_EDEADLINE,
 *  CB_ECORRUPT: its file is damaged, and it is gone. */
CB_API CB_MUST_USE cb_status cb_client_get(cb_client *client, const char *name,
                                           cb_client_block *block, cb_error *err);

/** Lets go; block->data is no address any more. NULL, zeroed, and twice are fine. */
CB_API void cb_client_release(cb_client *client, cb_client_block *block);

/** A block's bytes piece by piece to a sink, a copy where it cannot be leased, with no memory for
 *  all of it. When the sink fails: what it answered. *bytes: of the block. */
CB_API CB_MUST_USE cb_status cb_client_read(cb_client *client, const char *name,
                                            const cb_byte_sink *sink, uint64_t *bytes,
                                            cb_error *err);

/** CB_ENOTFOUND; CB_EAGAIN: somebody reads it or has a lease on it, so it stays. */
CB_API CB_MUST_USE cb_status cb_client_remove(cb_client *client, const char *name, cb_error *err);

/** The block outlives the server (cb_blocks_keep): it is on disk and in the manifest when this
 *  answers CB_OK. CB_EINVAL: the server keeps none, or the block's level has no disk; CB_ENOTFOUND,
 *  CB_ENOSPC, CB_EIO: it is not kept. */
CB_API CB_MUST_USE cb_status cb_client_keep(cb_client *client, const char *name, cb_error *err);

typedef struct cb_client_status {
    const char *name; /**< borrowed for the call */
    cb_level level;   /**< as it was put */
    cb_level now;     /**< where it lies */
    uint64_t memory_bytes, disk_bytes;
    uint32_t readers; /**< leases, and copies under way */
} cb_client_status;

/** status->name is `name`. CB_ENOTFOUND. Not a use of the block. */
CB_API CB_MUST_USE cb_status cb_client_status_get(cb_client *client, const char *name,
                                                  cb_client_status *status, cb_error *err);

/** Calls `fn` for each block; false ends it. Those that come or go meanwhile may be missed. */
typedef bool (*cb_client_visit_fn)(void *ctx, const cb_client_status *status);
CB_API CB_MUST_USE cb_status cb_client_list(cb_client *client, cb_client_visit_fn fn, void *ctx,
                                            cb_error *err);

CB_API CB_MUST_USE cb_status cb_client_stats(cb_client *client, cb_server_stats *stats,
                                             cb_error *err);

CB_EXTERN_C_END

#endif
