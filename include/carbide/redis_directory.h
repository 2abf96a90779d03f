/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_REDIS_DIRECTORY_H
#define CARBIDE_REDIS_DIRECTORY_H

#include "carbide/directory.h"

CB_EXTERN_C_BEGIN

/*
 * A directory that lies in a Redis or Valkey server, for executors on several machines
 * (docs/cluster.md has its keys). In a library of its own, libcarbide-net, which is there where
 * hiredis was when carbide was built.
 *
 * What lies there is soft: it can be lost at any time and costs seconds, no data. An executor has a
 * lease of two seconds that a thread of this object renews twice a second; when the server was
 * away, was started anew or has forgotten the lease, the executor enters again and reports all it
 * has. So enter, leave and report never wait for the server: reports lie in a queue of fixed size
 * until the thread has sent them, and when it is full they are dropped, and everything is reported
 * later. renew does nothing. locate, peers, claim and unclaim do wait, as long as `timeout_ns`.
 *
 * The server is not trusted with more than the truth of its answers: one that answers nonsense, too
 * much, half or nothing costs a connection, and the next one is tried half a second later.
 */

typedef struct cb_redis_directory cb_redis_directory;

/** Zero-initialise, set struct_size and what is wanted. Borrowed for the call. */
typedef struct cb_redis_directory_options {
    size_t struct_size;
    /** redis://[[USER]:PASSWORD@]HOST:PORT[/DATABASE], where HOST is digits or localhost, or
     *  unix://[[USER]:PASSWORD@]/PATH. Escapes (%40) are for the password. */
    const char *url;
    uint64_t lease_ns;   /**< of an executor, renewed four times in that; 0 = 2 s */
    uint64_t timeout_ns; /**< for an answer; 0 = 1 s */
    /** Told when the executor is entered (CB_OK: all it has is told) and when it cannot be, at once
     *  and then each time that changes or fails for another reason, failures not more often than
     *  each ten seconds: what is put right sooner than that may not be told at all. By the object's
     *  thread, with no lock held; the lease ends if it takes long. NULL: nobody is. A watch does
     * not look at it. */
    void (*changed)(void *ctx, const cb_directory_state *state);
    void *changed_ctx;
} cb_redis_directory_options;

/** Begins a thread; connects later. CB_EINVAL: no such URL; CB_ENOMEM, CB_ETHREAD. */
CB_API CB_MUST_USE cb_status cb_redis_directory_create(const cb_redis_directory_options *options,
                                                       cb_redis_directory **directory,
                                                       cb_error *err);
/** Who has not left leaves, if the server can be told within the timeout. NULL is fine. */
CB_API void cb_redis_directory_destroy(cb_redis_directory *directory);

/** Its functions; valid as long as it is. One executor at a time may be in it by this object:
 *  another one is CB_EMISUSE. Its `list` is called by the object's thread. The generation that
 * enter answers is for calls of this object; others see that of the last time the server was told.
 * report and renew: CB_ENOTFOUND for who is not in it by this object, else CB_OK, whatever the
 * server does. locate, peers and claim: CB_EIO when it does not answer. */
CB_API cb_directory cb_redis_directory_interface(cb_redis_directory *directory);

/** Tells some blocks of an executor, whose name and generation `peers` has said, from place *at on
 *  (0: the first); *at moves on, and is 0 at the end. What changes meanwhile is told or not; a
 * block may be told twice. `tell` calls nothing of the directory. Waits as locate does. CB_EIO. */
CB_API CB_MUST_USE cb_status cb_redis_directory_list(cb_redis_directory *directory,
                                                     const char *executor, uint64_t generation,
                                                     uint64_t *at, cb_place_fn tell, void *tell_ctx,
                                                     cb_error *err);

/*
 * Watching. A thread of its own tells each change of a block that any executor reports, in the
 * order in which the server heard of them: cb_directory_watch_fn, with no lock held. What a life
 * that is over had is told as gone when it is cleaned away, some of it each half second. That may
 * be after the executor's next life has told that it has the block: a block is gone from an
 * executor only if what says so has the generation of the life that was last told to have it. What
 * happens while there is no connection is not told; therefore block and location NULL say that one
 * begins: what was known before is to be looked up again.
 *
 * The server must be the one that the executors write to: they ask only it whether anybody listens,
 * so who watches a replica of it hears nothing by himself. A user of the server's ACL needs the
 * right to the channel (docs/cluster.md); as long as he has not, connections are ended and begun.
 */
typedef struct cb_redis_watch cb_redis_watch;

/** Begins a thread; connects later, and again half a second after a connection has ended. lease_ns
 *  is not looked at. CB_EINVAL: no such URL; CB_ENOMEM, CB_ETHREAD. */
CB_API CB_MUST_USE cb_status cb_redis_watch_create(const cb_redis_directory_options *options,
                                                   cb_directory_watch_fn watch, void *watch_ctx,
                                                   cb_redis_watch **watching, cb_error *err);
/** After it nobody is told any more. Not within `watch`. NULL is fine. */
CB_API void cb_redis_watch_destroy(cb_redis_watch *watching);

typedef struct cb_redis_directory_stats {
    uint64_t bytes;     /**< what it takes, all of it, from its beginning to its end */
    uint64_t connects;  /**< connections that were made for reports */
    uint64_t failures;  /**< that could not be made, or were ended for what came or did not */
    uint64_t entries;   /**< times the executor was entered: every one but the first is a loss */
    uint64_t reports;   /**< sent and heard */
    uint64_t collapsed; /**< times the queue was full */
    bool entered;       /**< the server knows the executor, and all it has but what is queued */
} cb_redis_directory_stats;

/** Any thread. */
CB_API void cb_redis_directory_stats_get(cb_redis_directory *directory,
                                         cb_redis_directory_stats *stats);

CB_EXTERN_C_END

#endif
