/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_COPIES_PRIVATE_H
#define CBI_COPIES_PRIVATE_H

#include "serve/serve.h"

/* What the files of the machine's owner share; see the essay in copies.c. */

enum { CBI_COPY_SENDERS = CBI_COPIES_THREADS - 1, CBI_COPY_VIEWS = 128 };

/** Something that the machine wants: with what was borrowed turned into what lasts. */
typedef struct cbi_wish {
    struct cbi_wish *next;
    cbi_replica_action_kind kind;
    uint64_t due_ns;
    uint64_t generation, checksum, peer_generation, sequence, number;
    cbi_grave_kind grave;
    char name[CB_BLOCK_NAME_MAX + 1];
    char peer[CB_EXECUTOR_NAME_MAX + 1], address[CB_EXECUTOR_ADDRESS_MAX + 1];
} cbi_wish;

typedef struct cbi_wishes {
    cbi_wish *first, *last;
} cbi_wishes;

/** A connection to another executor, that of one sender at a time. */
typedef struct cbi_copy_link {
    char peer[CB_EXECUTOR_NAME_MAX + 1], address[CB_EXECUTOR_ADDRESS_MAX + 1];
    int fd; /* -1 */
    bool busy;
    uint64_t used_ns;
} cbi_copy_link;

typedef struct cbi_copy_sender {
    cbi_copies *copies;
    cbi_thread thread;
    cb_block_task *task;
    uint8_t buffer[CBI_STREAM_BYTES]; /* of blocks that lie on disk */
} cbi_copy_sender;

struct cbi_copies {
    /* immutable */
    cb_server *server;
    cbi_thread keeper;
    cb_block_task *task;      /* the keeper's */
    _Atomic bool quit;        /* threads are to end; whatever is under way is given up */
    _Atomic uint64_t tracked; /* blocks of the machine: without any, nobody needs to ask it */
    /* guarded by mutex */
    cbi_mutex mutex;
    cbi_cond wake_keeper, wake_senders;
    cbi_replica *machine;
    bool stopped;
    uint64_t entered; /* the life that the directory knows; 0: none */
    uint64_t beat_ns; /* when the directory is asked next who is there */
    cbi_wishes local, remote;
    cbi_copy_wait *waits;
    cbi_copy_arrival *arrivals;
    cbi_copy_link links[CBI_REPLICA_PEERS_MAX];
    cbi_replica_action actions[32];
    /* the keeper's */
    cb_executor_view views[CBI_COPY_VIEWS];
    cb_location locations[CBI_COPY_VIEWS];
    /* the senders' */
    cbi_copy_sender senders[CBI_COPY_SENDERS];
};

/** [mutex] */
cb_status cbi_copies_step(cbi_copies *copies, cbi_replica_event event, cb_error *err);
/** The same, taking the mutex. */
void cbi_copies_tell(cbi_copies *copies, cbi_replica_event event);

/* copies_send.c */

/** A sender's thread; ctx is its cbi_copy_sender. */
void cbi_copies_send(void *ctx);

#endif
