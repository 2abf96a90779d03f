/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_COPIES_H
#define CBI_COPIES_H

#include "carbide/directory.h"
#include "store/replica.h"

/*
 * The machine of src/store/replica.h in a server that is an executor: who tells it what happens,
 * and who does what it wants. One lock is around it, which is held for steps and never while
 * anything is waited for; it may be taken with a block's lock held, and the server's is taken
 * within it.
 */

typedef struct cbi_copies cbi_copies;
typedef struct cbi_copy_claim cbi_copy_claim;
struct cb_server;
struct cbi_connection;

/** A connection whose SET is to be answered when its copies are there. Zeroed: of none. */
typedef struct cbi_copy_wait {
    struct cbi_copy_wait *next;
    struct cbi_connection *connection;
    uint64_t generation;      /* of the block; 0: not known yet */
    uint64_t seen_generation; /* of the last block by that name whose put is done, */
    uint32_t seen_copies;     /* and what came of it */
    bool listed, parked;
} cbi_copy_wait;

/** A copy that was accepted and is coming by a connection. Zeroed: of none. */
typedef struct cbi_copy_arrival {
    struct cbi_copy_arrival *next;
    uint64_t ticket;     /* 0: the machine has been told what came of it, by whoever stored it */
    uint64_t generation; /* 0: none is coming */
    uint64_t until_ns;   /* when it is to begin, whatever else is said meanwhile: by the clock, less
                            what the server has missed */
    const char *name;    /* while it is being stored */
} cbi_copy_arrival;

/** What was removed everywhere. */
typedef struct cbi_copy_grave {
    cbi_grave_kind kind;
    uint64_t number, generation;
} cbi_copy_grave;

/** Of what a sender says. */
typedef struct cbi_copy_offer {
    const char *name, *sender;
    uint64_t generation, checksum, bytes;
    uint32_t copies;
} cbi_copy_offer;

enum { CBI_COPIES_THREADS = 8, CBI_COPIES_LINE = 512 };

/** Before the server has blocks. CB_ENOMEM, CB_EINVAL: a name that cannot be. */
cb_status cbi_copies_create(struct cb_server *server, const cb_executor_entry *entry,
                            cbi_copies **copies, cb_error *err);
/** The server is in the directory: threads begin. CB_ETHREAD, CB_ENOMEM. */
cb_status cbi_copies_start(cbi_copies *copies, cb_error *err);
/** Threads end; who waits is answered with what there is. */
void cbi_copies_stop(cbi_copies *copies);
/** After the blocks. NULL is fine. */
void cbi_copies_destroy(cbi_copies *copies);

/** The store's listener. */
void cbi_copies_note(cbi_copies *copies, const cb_block_status *status);
/** A block was removed here by who wanted it removed: everywhere. `generation` as it was. */
void cbi_copies_removed(cbi_copies *copies, const char *name, uint64_t generation);
/** The generation of the block by that name that has copies elsewhere, or shall; 0: none. */
uint64_t cbi_copies_generation(cbi_copies *copies, const char *name);

/** A put is about to be seen, whatever it is of. CB_EAGAIN: not here any more, for the server is
 *  about to leave and could not give the block to others; else put_end is to follow. */
cb_status cbi_copies_put_begin(cbi_copies *copies, const char *name, cb_error *err);
void cbi_copies_put_end(cbi_copies *copies);

/* A put: expect before it is done, known after (generation 0: it failed), and then wait, by the
 * loop: false, its copies are there, *count of them, or nobody will take one. */
void cbi_copies_expect(cbi_copies *copies, cbi_copy_wait *wait, struct cbi_connection *c);
void cbi_copies_known(cbi_copies *copies, cbi_copy_wait *wait, uint64_t generation);
bool cbi_copies_wait(cbi_copies *copies, cbi_copy_wait *wait, uint32_t *count);
/** Its connection is to end: it waits no more, and is handed back if it is parked. */
void cbi_copies_give_up(cbi_copies *copies, cbi_copy_wait *wait);

/** Somebody would send a copy. FAILED: he shall, and the arrival has its ticket. *older: CONFLICT
 *  with a block of that older generation, which goes when that is buried; else 0. */
cbi_replica_answer cbi_copies_offered(cbi_copies *copies, const cbi_copy_offer *offer,
                                      cbi_copy_arrival *arrival, uint64_t *older);
/** Whether the machine still wants to know what came of it. */
bool cbi_copies_awaits(cbi_copies *copies, const cbi_copy_arrival *arrival);
/** Its bytes are here; OK: they are to be stored, and when they are cbi_copies_generation says
 *  whether the machine looks after them. */
cbi_replica_answer cbi_copies_arrived(cbi_copies *copies, cbi_copy_arrival *arrival,
                                      const char *name, uint64_t checksum);
/** They need not be: the block of that generation is here. It is that copy from here on, if it was
 *  not tracked already.
 *  CB_EEXISTS: it has other bytes; CB_EBUDGET: it cannot be looked after, or has gone. */
cb_status cbi_copies_found(cbi_copies *copies, const cbi_copy_arrival *arrival, const char *name,
                           uint64_t checksum, cb_error *err);
/** They will not come, could not be stored, or are stored: it is over. */
void cbi_copies_arrival_end(cbi_copies *copies, cbi_copy_arrival *arrival);

/** Somebody says that it was removed everywhere; `name` where it is a block. CB_ENOMEM. */
cb_status cbi_copies_bury(cbi_copies *copies, const cbi_copy_grave *grave, const char *name,
                          bool is_mine, cb_error *err);
/** Nobody finds the block any more, if it is not newer than that; it goes with its last reader. By
 *  the keeper, in a moment, when it is being written or evicted. */
void cbi_copies_end_block(cbi_copies *copies, cb_block_task *task, const char *name,
                          uint64_t generation);
/** For who has just made a block be seen, which had its generation before that. Whether it was
 *  removed everywhere meanwhile: who removed it did not find it here, and now it is ended. */
bool cbi_copies_end_buried(cbi_copies *copies, cb_block_task *task, const char *name,
                           uint64_t generation);
/** All blocks here that a grave of a data set or a broadcast covers, those of one copy too.
 *  CB_ENOMEM. */
cb_status cbi_copies_sweep(cbi_copies *copies, cb_block_task *task, const cbi_copy_grave *grave,
                           cb_error *err);
/** No copies are taken any more, every block that nobody else has goes to another executor, and
 *  when all have the server ends. CB_ENOMEM, CB_EBUDGET: the machine cannot know all of them, and
 *  the server does not leave. */
cb_status cbi_copies_leave(cbi_copies *copies, cb_error *err);

/** A block that is not here is read where it is, into c->fill, while the connection is CBI_BUSY
 * with CBI_JOB_FETCH; then it is handed back. false: not any more. */
bool cbi_copies_fetch(cbi_copies *copies, struct cbi_connection *c);

/* Blocks of others that stay here (copies_cache.c). */

/** Whether it is the name of one. */
bool cbi_cached_is(const char *name);
/** The block's own name; of another block as it is. */
const char *cbi_cached_of(const char *name);
/** As cbi_copies_end_block, of what is kept of another executor's block. */
void cbi_cached_drop(cbi_copies *copies, cb_block_task *task, const char *name,
                     uint64_t generation);
/** How often one was given instead of being read elsewhere. */
uint64_t cbi_cached_hits(const cbi_copies *copies);

/* CARBIDE.COMPUTE (copies_claim.c): the rest is fetchers' business, as the above. */

/** The connection waits no more for what another one computes. false: it did not. */
bool cbi_copies_unpark(cbi_copies *copies, const struct cbi_connection *c);
/** A block was stored here: it is computed. Any thread that is the store's listener. */
void cbi_copies_claims_note(cbi_copies *copies, const cb_block_status *status);
/** Who computes is gone. */
void cbi_copies_claims_end(cbi_copies *copies, const struct cbi_connection *c);
/** He says that he does not. false: that is not his claim (any more). */
bool cbi_copies_unclaim(cbi_copies *copies, const char *name, uint64_t token);

cbi_replica_figures cbi_copies_figures(cbi_copies *copies);

#endif
