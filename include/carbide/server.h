/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_SERVER_H
#define CARBIDE_SERVER_H

#include "carbide/directory.h"
#include "carbide/monitor.h"

CB_EXTERN_C_BEGIN

/*
 * A store of blocks for the other processes of a machine, behind a Unix socket (carbide/client.h;
 * docs/serve-protocol.md). Blocks outlive the clients that put them. Who is trusted, the server's
 * own user and root, gets blocks of 64 KiB and more without a copy: a descriptor of sealed memory,
 * and a lease that keeps the block where it is until the client lets go or its connection ends.
 * Others, where they are let in at all, get copies.
 *
 * Blocks are bytes: levels are taken without CB_LEVEL_IS_DESERIALISED, and CB_LEVEL_IN_OFF_HEAP
 * makes no difference. The budget is the whole process: code, connections and what the system holds
 * for them, descriptors' memory, blocks.
 */

/*
 * With `directory` and `listen` it is an executor: it enters the directory, reports each change of
 * its blocks there, and leaves at its end. Its blocks have generations then, and others ask for one
 * of them by CARBIDE.GET and hand one over by CARBIDE.PUT. Blocks of levels with several replicas
 * are copied to other executors (docs/cluster.md).
 */

/*
 * With `listen` it also speaks RESP2 and RESP3, the protocols of Redis, over TCP: clients of Redis
 * read and write blocks: GET, GETRANGE, SET (LEVEL, NX), EXISTS, DEL, STRLEN, SCAN and what comes
 * with these (docs/serve-protocol.md).
 */

typedef struct cb_server cb_server;

/** Zero-initialise, set struct_size and what is wanted. Borrowed for cb_server_create. */
typedef struct cb_server_options {
    size_t struct_size;
    const char *socket;       /**< its path; NULL: there is none, but `listen` */
    const char *listen;       /**< RESP over TCP there, as "127.0.0.1:6380" (port 0: a free one);
                                 NULL: not */
    const char *password;     /**< for `listen`, up to 1024 bytes; NULL: none is asked for, and the
                                 address must be this machine's own (127.0.0.1, ::1) */
    uint64_t memory_bytes;    /**< of the whole process */
    const char *folder;       /**< for blocks on disk; NULL: none */
    uint64_t disk_max;        /**< as in cb_blocks_options; 0 = no limit */
    cb_block_codec codec;     /**< of files */
    bool others;              /**< other users may connect, and get copies */
    uint32_t connections_max; /**< 0 = 16 to 1024, by the budget */
    uint32_t leases_max;      /**< at one time; 0 = 8192 */
    uint32_t workers;         /**< threads for what takes long; 0 = 2 */
    uint64_t timeout_ns;      /**< for a message under way, plus a second a MiB; 0 = 20 s */
    const char *keep; /**< blocks may outlive the server: cb_blocks_options.keep, and the next
                         server with that name and folder begins with them; NULL: none do */
    const cb_directory *directory; /**< one that renews leases itself (carbide/redis_directory.h) or
                                      has none; NULL: it is no executor */
    const char *name;              /**< there; NULL: its address */
    const char *advertise;         /**< the address it says there, not 0.0.0.0, [::] or port 0;
                                      NULL: where it listens */
    const char *host;              /**< labels, see cb_executor_entry */
    const char *rack;
    const char *status; /**< figures are published in that file (carbide/monitor.h), twice a second;
                           NULL: they are not */
    uint64_t beside_bytes; /**< of the budget, kept for what else the process will take */
    /** Blocks that are read at other executors stay here in memory, for the next who asks, while
     *  nothing else wants it; the directory is asked each time whether they are still what it
     *  names. They count as nobody's copies. */
    bool cache_remote;
    /** All memory for blocks is touched at the beginning, by a thread beside the server's work, and
     *  again what was given back to the system and is free: puts never wait for the system's pages,
     *  and the process is as large as its budget from the first second on. Blocks that go through
     *  the Unix socket lie in memory of their own and gain nothing. */
    bool preallocate;
} cb_server_options;

/**
 * Listens when it answers. A socket whose server is dead is taken over. CB_EEXISTS: a server
 * answers there, or the path is something else; CB_EBUDGET: err->bytes_had is the smallest budget;
 * CB_EINVAL, CB_EIO, CB_ENOMEM, CB_ETHREAD.
 */
CB_API CB_MUST_USE cb_status cb_server_create(const cb_server_options *options, cb_server **server,
                                              cb_error *err);

/** Serves until cb_server_stop, or until an executor that was told to leave (CARBIDE.DECOMMISSION,
 *  by any client that may speak to it) has given its blocks to others: CB_OK, both. CB_EIO: the
 *  system failed it. */
CB_API CB_MUST_USE cb_status cb_server_run(cb_server *server, cb_error *err);

/** cb_server_run comes to its end. Any thread, and a signal handler may. */
CB_API void cb_server_stop(cb_server *server);

/** Where it listens for TCP; 0: nowhere. */
CB_API uint16_t cb_server_port(const cb_server *server);

/** Ends connections and blocks; the socket's name goes. Not while it runs. NULL is fine. */
CB_API void cb_server_destroy(cb_server *server);

#define CB_SERVER_STATS_MAP(X)                                                                     \
    X(budget_bytes)                                                                                \
    X(accounted_bytes)                                                                             \
    X(accounted_peak_bytes)                                                                        \
    X(storage_max_bytes) /* for blocks, if nothing else changes */                                 \
    X(blocks)                                                                                      \
    X(memory_blocks)                                                                               \
    X(memory_bytes)                                                                                \
    X(disk_blocks)                                                                                 \
    X(disk_bytes)                                                                                  \
    X(unroll_bytes) /* of puts under way */                                                        \
    X(overhead_bytes)                                                                              \
    X(evicted)                                                                                     \
    X(drops_failed)                                                                                \
    X(hits)                                                                                        \
    X(disk_hits)                                                                                   \
    X(misses)                                                                                      \
    X(promoted)                                                                                    \
    X(replicas_missing)                                                                            \
    X(connections)                                                                                 \
    X(connections_peak)                                                                            \
    X(connections_refused) /* not let in, or ended for what they sent or did not take */           \
    X(leases)                                                                                      \
    X(leased_bytes) /* a block that is leased twice counts twice */                                \
    X(requests)                                                                                    \
    X(copies)                                                                                      \
    X(kept)       /* blocks that outlive the server */                                             \
    X(recovered)  /* at its beginning */                                                           \
    X(lost)       /* then: kept once, and not what was written any more */                         \
    X(idle_bytes) /* resident, used before or preallocated, and no block's */

/** All uint64_t, in this order on the wire too; new ones come at the end. */
typedef struct cb_server_stats {
#define CB_SERVER_STATS_FIELD(name) uint64_t name;
    CB_SERVER_STATS_MAP(CB_SERVER_STATS_FIELD)
#undef CB_SERVER_STATS_FIELD
} cb_server_stats;

/** Who holds its memory, and which blocks, for a status page. Any thread. */
CB_API void cb_server_figures(const cb_server *server, cb_figures *figures);

/** Tells its blocks, as cb_executor_list_fn says. Any thread. */
CB_API void cb_server_list(const cb_server *server, uint64_t *at, size_t each, size_t room,
                           cb_place_fn tell, void *tell_ctx);

/** After cb_server_run has ended, or in its thread. Others ask by cb_client_stats. */
CB_API void cb_server_stats_get(cb_server *server, cb_server_stats *stats);

CB_EXTERN_C_END

#endif
