/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_COPIES_PRIVATE_H
#define CBI_COPIES_PRIVATE_H

#include "serve/serve.h"

/* What the files of the machine's owner share; see the essay in copies.c. */

enum {
    CBI_COPY_SENDERS = 5, /* the first for small ones only */
    CBI_COPY_LANES = 3,   /* connections to one peer: one for what is small, the others not */
    CBI_COPY_LARGE = 256 * 1024,
    CBI_COPY_LINKS = CBI_REPLICA_PEERS_MAX + 32, /* who was used last stays connected */
    CBI_COPY_SILENCES = 32,
    CBI_COPY_FETCHERS = CBI_COPIES_THREADS - CBI_COPY_SENDERS - 1,
    CBI_COPY_VIEWS = 128
};

/** Something that the machine wants: with what was borrowed turned into what lasts. */
typedef struct cbi_wish {
    struct cbi_wish *next;
    cbi_replica_action_kind kind;
    uint64_t due_ns;
    uint64_t generation, checksum, peer_generation, sequence, number;
    cbi_grave_kind grave;
    bool large;   /* a block that is */
    uint8_t slot; /* of its peer, of a copy */
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
    bool large;
    const cbi_wish *wish; /* a sender has it, for that; NULL: nobody */
    uint64_t used_ns;
} cbi_copy_link;

/** Who was waited for and did not answer: he is not waited for again for a while. */
typedef struct cbi_copy_silence {
    char address[CB_EXECUTOR_ADDRESS_MAX + 1];
    uint64_t until_ns;
    uint32_t times; /* in a row */
} cbi_copy_silence;

/** A connection to another executor, and how long it has stood still. */
typedef struct cbi_wire {
    cbi_copies *copies;
    int fd;                         /* -1: none */
    uint64_t moved_ns, deadline_ns; /* whatever moves, it is over then: cbi_wire_limit */
} cbi_wire;

enum { CBI_WIRE_LINE_MS = 5000 /* until a reply of one line, or the next byte, has come */ };

/** A request of words; the bytes of its last one may come behind it. */
typedef struct cbi_wire_request {
    char bytes[1024];
    size_t count;
} cbi_wire_request;

typedef struct cbi_copy_sender {
    cbi_copies *copies;
    cbi_thread thread;
    bool small; /* it takes what is small only */
    cb_block_task *task;
    uint64_t own_ns;                  /* of a wish: spent on a block here, whoever it is for */
    bool put;                         /* its bytes were sent */
    uint8_t buffer[CBI_STREAM_BYTES]; /* of blocks that lie on disk */
} cbi_copy_sender;

/** Where a block is to be had. */
typedef struct cbi_copy_source {
    char address[CB_EXECUTOR_ADDRESS_MAX + 1];
    cb_place place;
} cbi_copy_source;

typedef struct cbi_copy_fetcher {
    cbi_copies *copies;
    cbi_thread thread;
    int fd; /* -1; to the one asked last */
    char address[CB_EXECUTOR_ADDRESS_MAX + 1];
    cb_location locations[CBI_COPY_VIEWS];
    cbi_copy_source sources[CBI_COPY_VIEWS];
} cbi_copy_fetcher;

struct cbi_copies {
    /* immutable */
    cb_server *server;
    cbi_thread keeper;
    cb_block_task *task;   /* the keeper's */
    _Atomic bool quit;     /* threads are to end; whatever is under way is given up */
    _Atomic bool leaving;  /* the machine is to know every block */
    _Atomic bool closing;  /* all of them have been moved: no put begins to be seen any more */
    _Atomic uint32_t puts; /* that are about to be seen */
    _Atomic uint32_t claim_count;
    _Atomic uint64_t cached_hits;
    _Atomic uint64_t tracked; /* blocks of the machine: without any, nobody needs to ask it */
    _Atomic uint64_t buried;  /* the newest generation that a grave covers */
    /* guarded by mutex */
    cbi_mutex mutex;
    cbi_cond wake_keeper, wake_senders, wake_fetchers;
    cbi_replica *machine;
    bool stopped;
    bool draining;    /* the machine was told to leave */
    bool untracked;   /* since it is to know every block there was one that it could not take */
    uint32_t leavers; /* who is telling it of all blocks */
    bool answers;     /* the directory did, when it was last asked */
    uint64_t entered; /* the life that the directory knows; 0: none */
    uint64_t beat_ns; /* when the directory is asked next who is there */
    cbi_wishes local, remote;
    size_t wish_count;                    /* in both, and in hand */
    int32_t send_count;                   /* those of them that are copies */
    int32_t sends[CBI_REPLICA_PEERS_MAX]; /* these by the slots of peers, weighed */
    uint64_t enough, hold;                /* slots of those who have so many; to whom no more go */
    cbi_connection *fetch_first, *fetch_last;
    cbi_connection *parked; /* who waits for what another one computes */
    cbi_copy_claim *claims; /* what clients of this one compute */
    uint64_t last_token;
    size_t view_count;
    cb_executor_view views[CBI_COPY_VIEWS]; /* who is there */
    cbi_copy_wait *waits;
    cbi_copy_arrival *arrivals;
    cbi_copy_link links[CBI_COPY_LINKS];
    cbi_copy_silence silences[CBI_COPY_SILENCES];
    cbi_replica_action actions[32];
    /* the keeper's */
    cb_executor_view new_views[CBI_COPY_VIEWS];
    cb_location locations[CBI_COPY_VIEWS];
    /* the senders' */
    cbi_copy_sender senders[CBI_COPY_SENDERS];
    cbi_copy_fetcher fetchers[CBI_COPY_FETCHERS];
};

/** [mutex] */
cb_status cbi_copies_step(cbi_copies *copies, cbi_replica_event event, cb_error *err);
/** The same as cbi_copies_step, taking the mutex. */
void cbi_copies_tell(cbi_copies *copies, cbi_replica_event event);

/** [mutex] After blocks or arrivals have come or gone: `tracked`. */
void cbi_copies_recount(cbi_copies *copies);
/** [mutex] A copy that is being stored here; NULL: it is none. */
cbi_copy_arrival *cbi_copies_arrival_of(cbi_copies *copies, const cb_block_status *block);
/** The machine is to know the block, as it was seen a moment ago; `returned`: it was put by an
 *  earlier process. CB_EBUDGET, CB_ENOMEM: it cannot. */
cb_status cbi_copies_track(cbi_copies *copies, const cb_block_status *block, bool returned,
                           cb_error *err);
/** The same of all blocks here. */
cb_status cbi_copies_track_all(cbi_copies *copies, cb_error *err);
/** Before the threads begin: blocks of several replicas that were kept are looked after. Those that
 *  are too many for the machine are not. CB_ENOMEM. */
cb_status cbi_copies_returned(cbi_copies *copies, cb_error *err);

/** The event of a block that is here. */
cbi_replica_event cbi_copies_stored(const cb_block_status *block, uint64_t ticket, bool returned);

/* copies_wire.c: false is the end of the connection, which is closed by who has it */

/** Connects, and says the password. false: it is closed, or its peer has not answered of late. */
bool cbi_wire_open(cbi_copies *copies, const char *address, cbi_wire *wire);
void cbi_wire_close(cbi_wire *wire);
/** What is asked next is to be over after so long, and a second for each MiB of the bytes that go
 *  with it. Each request needs one: the connection may be of an earlier one. */
void cbi_wire_limit(cbi_wire *wire, uint32_t answer_ms, uint64_t bytes);
/** What came of asking there since `begun_ns`: who took long and failed is left alone, for a
 *  second, then two, then four. Takes the mutex. */
void cbi_wire_came_to(cbi_copies *copies, const char *address, uint64_t begun_ns, bool good);
/** Nothing has come that was not asked for, its end for one. */
bool cbi_wire_is_alive(const cbi_wire *wire);
bool cbi_wire_send(cbi_wire *wire, const void *bytes, size_t count);
/** At least one byte. */
bool cbi_wire_receive(cbi_wire *wire, void *to, size_t most, size_t *got);
/** A reply of one line, without its end. */
bool cbi_wire_line(cbi_wire *wire, char line[CBI_COPIES_LINE]);
void cbi_wire_begin(cbi_wire_request *request, unsigned words);
void cbi_wire_word(cbi_wire_request *request, const char *word);
void cbi_wire_number(cbi_wire_request *request, uint64_t number);
bool cbi_wire_ask(cbi_wire *wire, const cbi_wire_request *request, char line[CBI_COPIES_LINE]);

/* copies_fetch.c */

/** A block that lies elsewhere, into c->fill. CB_ENOTFOUND: nobody has it. CB_EAGAIN: that cannot
 *  be known, or nobody gives it. What is lacking to have it here. */
cb_status cbi_copies_fetch_now(cbi_copies *copies, cbi_copy_fetcher *fetcher, cbi_connection *c,
                               cb_error *err);

/** A fetcher's thread; ctx is its cbi_copy_fetcher. */
void cbi_copies_fetch_all(void *ctx);
/** After their end: who waits is told so. */
void cbi_copies_fetch_none(cbi_copies *copies);

/* copies_cache.c */

/** The name under which it is kept. false: it is not, for it is too long. */
bool cbi_cached_name(const char *name, char cached[CB_BLOCK_NAME_MAX + 1]);
/** What lies here of the block, if it is what the place says, into c->own. */
bool cbi_cached_get(cbi_copies *copies, cbi_connection *c, const cb_place *place);
/** Under what name its bytes are taken. */
void cbi_cached_begin(const cbi_copies *copies, cbi_connection *c,
                      char name[CB_BLOCK_NAME_MAX + 1]);
/** They are all in c->fill: they are kept, and c->own has them, if that is wanted and can be.
 * CB_EIO: and they are lost. */
cb_status cbi_cached_keep(cbi_connection *c, const cb_place *place, cb_error *err);

/* copies_claim.c */

/** The fetcher's part of CARBIDE.COMPUTE. false: it is parked, and a fetcher's again later. CB_OK:
 *  the block is in c->fill, or here, or the asker computes it (resp->token). CB_ENOTFOUND: somebody
 *  else does. CB_EAGAIN: that cannot be known. */
bool cbi_copies_compute(cbi_copies *copies, cbi_copy_fetcher *fetcher, cbi_connection *c,
                        cb_status *status, cb_error *err);
/** [mutex] Those who are parked and are to look again go to the fetchers; a claim that is over is
 *  let go, and the mutex is given away meanwhile: true. *due_ns: when there is more to do. */
bool cbi_copies_tend_claims(cbi_copies *copies, uint64_t now, uint64_t *due_ns);
/** After the keeper's end. */
void cbi_copies_claims_stop(cbi_copies *copies);

/* copies_send.c */

/** A sender's thread; ctx is its cbi_copy_sender. */
void cbi_copies_send(void *ctx);
/** [mutex] A copy is one of `remote` now; */
void cbi_copies_count_send(cbi_copies *copies, const cbi_wish *wish);
/** [mutex] one of `remote` is over: of copies that were held back others may go on. */
void cbi_copies_wish_sent(cbi_copies *copies, const cbi_wish *wish);
/** [mutex] Whether the wish, one of `remote`, waits for nothing but a sender. */
bool cbi_copies_can_send(cbi_copies *copies, const cbi_wish *wish);

#endif
