/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REPLICA_PRIVATE_H
#define CBI_REPLICA_PRIVATE_H

#include "store/buckets.h"
#include "store/replica.h"

/* What the files of the machine share; see the essay in replica.c. */

/** What a block is waiting for. */
typedef enum cbi_replica_state {
    CBI_BLOCK_SETTLED,  /* nothing */
    CBI_BLOCK_SENDING,  /* copies on their way, or about to be */
    CBI_BLOCK_CHECK,    /* its turn to be looked after */
    CBI_BLOCK_LOCATING, /* what the directory says */
    CBI_BLOCK_RESTING,  /* due_ns, then CHECK */
    CBI_BLOCK_DROPPING, /* to be dropped */
    CBI_BLOCK_DROPPED   /* to hear that it has gone */
} cbi_replica_state;

/** Links of a block in one of the queues of work. */
typedef enum cbi_replica_queue {
    CBI_QUEUE_READY,    /* has actions to emit */
    CBI_QUEUE_CHECKS,   /* wants to be looked after, in turn */
    CBI_QUEUE_LOCATING, /* for the directory's answer, or due_ns; mending_max at most */
    CBI_QUEUE_AWAITED,  /* for a peer to take more again, and somebody for its PUT_DONE */
    CBI_QUEUE_HELD,     /* the same, and nobody does */
    CBI_QUEUE_WAITING,  /* for due_ns, in one of `waiting` */
    CBI_QUEUE_NONE
} cbi_replica_queue;

typedef struct cbi_tracked {
    struct cbi_tracked *chain; /* first: of its bucket, or of what is retired */
    struct cbi_tracked *next, *prev;
    struct cbi_tracked *report_next, *report_prev;
    cb_place place; /* generation and checksum too */
    uint64_t bytes;
    uint64_t held;    /* peers, by slot, that have a verified copy */
    uint64_t sending; /* that are offered one now */
    uint64_t tried;   /* that would not take one in this round */
    uint64_t named;   /* that are said to have one; who leaves asks themselves, and first */
    uint64_t due_ns, stored_ns;
    uint64_t hash;
    uint32_t copies;    /* that there shall be */
    uint32_t elsewhere; /* copies at executors that are not in the list of peers yet */
    uint8_t rounds;     /* without success */
    uint8_t state, queue;
    uint8_t slot; /* of `waiting`, or of the peer that it waits for */
    bool present;
    bool put_open; /* CBI_REPLICA_PUT_DONE is still owed, */
    bool awaited;  /* and waited for */
    bool unfound;  /* rests, for nobody has taken a copy, and may look for one again */
    bool reporting;
    bool mending; /* one of mending_max */
    bool mends;   /* copies are sent after a loss */
    bool moved;   /* enough of them are elsewhere; when decommissioned */
    char name[];
} cbi_tracked;

typedef struct cbi_queue {
    cbi_tracked *first, *last;
} cbi_queue;

enum {
    CBI_WAITING_QUEUES = 256,
    CBI_LOOK_NS = 1000000 /* what one look at a block that nobody takes may cost of the time: the
                             directory is asked */
};

/** Blocks that are due within the same time. */
typedef struct cbi_waiting {
    cbi_queue queue;
    size_t count;
} cbi_waiting;

/** Blocks that wait for a peer who takes no more now: one that is stopped may have a million, at
 *  which nobody looks until he takes more, or is not asked any more. */
typedef struct cbi_line {
    cbi_queue awaited, others;
    bool others_turn; /* they are next */
} cbi_line;

typedef struct cbi_offer {
    struct cbi_offer *next; /* first */
    uint64_t ticket, generation, checksum, bytes;
    uint32_t copies;
    bool arrived;
    uint64_t sender_generation; /* 0: it was not in the list */
    char sender[CB_EXECUTOR_NAME_MAX + 1];
    char name[];
} cbi_offer;

typedef struct cbi_grave {
    struct cbi_grave *chain; /* first */
    cbi_grave_kind kind;
    uint64_t number, generation, heard_ns, sequence, hash;
    char name[];
} cbi_grave;

typedef struct cbi_peer {
    cb_executor_view view;
    bool used, seen;
    bool missing;     /* was not in the last list, which may have been too early */
    uint64_t shun_ns; /* not tried before */
    bool lacked;      /* room, for a block that rests: more of it is news */
    bool failed;      /* to answer, and has taken no copy since: one that it takes is news */
    uint64_t word;    /* the latest SEND that it has answered with having the copy */
    cbi_tracked
        *witness;     /* of who leaves: a block that counted upon it, as long as `held` says so */
    uint64_t told;    /* graves below this sequence */
    uint64_t tell_ns; /* the one after was told; again then */
} cbi_peer;

struct cbi_replica {
    cbi_replica_options options;
    char name[CB_EXECUTOR_NAME_MAX + 1], host[CB_EXECUTOR_NAME_MAX + 1];
    char rack[CB_EXECUTOR_NAME_MAX + 1];
    uint64_t generation; /* as an executor */
    bool entered, draining, moved_out;
    uint64_t asked;      /* of the last SEND: when it was, but each has its own */
    uint64_t left_at;    /* answers to those up to here were given before it was to leave */
    uint32_t roll_calls; /* before it left */
    uint64_t quiet_ns;   /* until then nobody is missed */
    uint64_t now_ns, tick_ns;
    uint64_t clock; /* of generations: 44 bits of milliseconds, see cbi_replica_mint */
    uint64_t id;    /* its lower 20 bits */
    /* blocks */
    cbi_buckets buckets;
    uint64_t tracked; /* entries, those included that have only to be reported as gone */
    uint64_t blocks, bytes, moved;
    cbi_queue queues[CBI_QUEUE_AWAITED];
    cbi_queue reports;
    /* replica_wait.c: a ring; all queues before number wait_at have been gone through, and
     * wait_left of that one's blocks are still to be looked at in this tick */
    cbi_waiting waiting[CBI_WAITING_QUEUES];
    uint64_t wait_at;
    size_t wait_count, wait_left;
    size_t unfound; /* of those that rest: who would be looked for again and again */
    /* those that rest are to look again, from the queue at that place on: in so many queues, and in
     * so many blocks of the first */
    size_t hurry_at, hurry_queues, hurry_left;
    bool hurry_wanted; /* as soon as it is hurry_ns */
    uint64_t hurry_ns;
    uint32_t mending;
    uint64_t hold; /* peers to whom this step emits no SEND */
    cbi_line lines[CBI_REPLICA_PEERS_MAX];
    uint64_t lined;   /* those in whose line there is, or was, somebody */
    unsigned line_at; /* the line that had its turn last */
    uint64_t watched;
    size_t audit_at;
    uint64_t audit_ns;
    /* slots of peers that are no more, whose bits are still to be taken out of blocks */
    uint64_t clearing;
    uint64_t returning; /* those of them whose executors have entered anew, */
    uint8_t returned_as[CBI_REPLICA_PEERS_MAX]; /* and in which slot */
    uint64_t unwitnessed; /* peers for whom a block that counts upon them is looked for, or was */
    /* replica_sweep.c: the last bucket that was visited, and how many are still to be, for what */
    size_t sweep_at, clear_left, bury_left, empty_left, seek_left;
    /* offers */
    cbi_offer *offers;
    uint32_t offer_count;
    uint64_t reserved_bytes, ticket;
    /* peers: those with a slot first, then those who are only told of removals */
    cbi_peer peers[CBI_REPLICA_TOLD_MAX];
    /* graves: a ring by sequence, and a table */
    cbi_grave **ring;
    uint64_t ring_size;
    cbi_buckets grave_table;
    uint64_t grave_first, grave_next, grave_count, grave_bytes, graves_lost;
    uint64_t buried; /* the newest generation that a grave covers, or covered */
    /* what is freed when the next step begins: actions refer to it until then */
    void *retired;
    /* this step's */
    cbi_replica_action *actions;
    size_t max, count;
    uint64_t sent, refused, mended;
};

/** The next action to fill; NULL: there is no room for more now. */
cbi_replica_action *cbi_replica_emit(cbi_replica *r, cbi_replica_action_kind kind);
/** Frees it when the next step begins. Its first member is a pointer. */
void cbi_replica_retire(cbi_replica *r, void *object);

/** A generation that others have: those that are minted here will be larger. */
void cbi_replica_heard_of(cbi_replica *r, uint64_t generation);

/* replica_table.c */
/** The head of a bucket's chain. */
static inline cbi_tracked **cbi_tracked_bucket(const cbi_replica *r, size_t i) {
    return (cbi_tracked **)cbi_buckets_head(&r->buckets, i);
}
cbi_tracked *cbi_tracked_find(const cbi_replica *r, const char *name);
/** The block, if it is here in that generation. */
cbi_tracked *cbi_tracked_here(const cbi_replica *r, const char *name, uint64_t generation);
cb_status cbi_tracked_enter(cbi_replica *r, const char *name, cbi_tracked **block, cb_error *err);
void cbi_queue_append(cbi_queue *q, cbi_tracked *b);
void cbi_queue_remove(cbi_queue *q, cbi_tracked *b);
/** With its due_ns, where it waits for that. */
void cbi_tracked_queue(cbi_replica *r, cbi_tracked *b, cbi_replica_queue queue);
void cbi_tracked_unqueue(cbi_replica *r, cbi_tracked *b);
void cbi_tracked_report(cbi_replica *r, cbi_tracked *b);
void cbi_tracked_unreport(cbi_replica *r, cbi_tracked *b);
void cbi_tracked_stop_mending(cbi_replica *r, cbi_tracked *b);
void cbi_tracked_set_moved(cbi_replica *r, cbi_tracked *b, bool moved);
/** Waits for one of these peers to take more. */
void cbi_tracked_hold(cbi_replica *r, cbi_tracked *b, uint64_t peers);
/** Rests, after a failure ever longer, and is checked then. */
void cbi_tracked_back_off(cbi_replica *r, cbi_tracked *b);
/** The same, when nobody has taken a copy: not before anything can have changed, and the longer the
 *  more blocks there are for which that is so, up to audit_ns. */
void cbi_tracked_find_nobody(cbi_replica *r, cbi_tracked *b);
/** Is looked after when its turn comes, and not before it has settled. */
void cbi_tracked_check(cbi_replica *r, cbi_tracked *b);
void cbi_tracked_settle(cbi_replica *r, cbi_tracked *b);
void cbi_tracked_send(cbi_replica *r, cbi_tracked *b, bool mends);
/** It was removed everywhere. */
void cbi_tracked_drop(cbi_replica *r, cbi_tracked *b);
/** It is not here any more, whatever is left to be said of that. */
void cbi_tracked_leave(cbi_replica *r, cbi_tracked *b);
void cbi_tracked_forget(cbi_replica *r, cbi_tracked *b);

/* replica_sweep.c: what concerns all blocks, some buckets with each step */
/** Those who are in `clearing` are to be forgotten; */
void cbi_sweep_clear(cbi_replica *r);
/** what graves of data sets and broadcasts cover is to be dropped; */
void cbi_sweep_bury(cbi_replica *r);
/** nobody is to be counted upon; */
void cbi_sweep_empty(cbi_replica *r);
/** blocks are looked for that count upon who is in `unwitnessed`. */
void cbi_sweep_seek(cbi_replica *r);
/** So many buckets more. */
void cbi_sweep_some(cbi_replica *r, size_t buckets);
/** A bucket was split: its blocks lie in these two. */
void cbi_sweep_split(cbi_replica *r, size_t from, size_t to);
/** Whether all is done. */
static inline bool cbi_sweep_is_over(const cbi_replica *r) {
    return (r->clear_left | r->bury_left | r->empty_left | r->seek_left) == 0;
}

/** Whether all of it is that says who is counted upon. What a grave covers is not waited for:
 *  graves may go on coming, and whoever has such a block is told of the grave. */
static inline bool cbi_sweep_counts(const cbi_replica *r) {
    return (r->clear_left | r->empty_left | r->seek_left) == 0;
}

/* replica_wait.c: blocks that wait for due_ns */
void cbi_wait_begin(cbi_replica *r);
void cbi_wait_add(cbi_replica *r, cbi_tracked *b);
void cbi_wait_remove(cbi_replica *r, cbi_tracked *b);
/** Those that rest are due as soon as they are old enough: nobody would take a copy, and now
 *  somebody may. */
void cbi_wait_hurry(cbi_replica *r);
/** The same, for what may come again and again: not at once when that has been lately, and the
 * later the more of them there are. */
void cbi_wait_hurry_seldom(cbi_replica *r);
/** Time has passed, up to tick_ns: wakes those that are due, some of them when there are many; */
void cbi_wait_tick(cbi_replica *r);
/** and so many more. */
void cbi_wait_some(cbi_replica *r, size_t most);

/* replica_leave.c */
/** It is to leave, or asked again whether it may. */
void cbi_leave_begin(cbi_replica *r);
/** A block that is here when it is to leave. */
void cbi_leave_visit(cbi_replica *r, cbi_tracked *b);
/** Whoever is said to have a copy is asked himself. */
void cbi_leave_count_nobody(cbi_tracked *b, uint64_t named);
/** Whether everything is elsewhere as far as is known, but for who is counted upon: those are asked
 *  for their word, or, if all have given it just now, MOVED_OUT is emitted. */
void cbi_leave_serve(cbi_replica *r);

/* replica_offers.c: each emits one action at most, first in its step */
cbi_offer **cbi_offers_find(cbi_replica *r, uint64_t ticket);
void cbi_offers_end(cbi_replica *r, cbi_offer **at);
void cbi_offers_offered(cbi_replica *r, const cbi_replica_event *e);
void cbi_offers_arrived(cbi_replica *r, const cbi_replica_event *e);
void cbi_offers_missed(cbi_replica *r, const cbi_replica_event *e);

/* replica_peers.c */
uint64_t cbi_replica_hash(const char *name);
/** Who has a slot; NULL: nobody by that name. */
cbi_peer *cbi_replica_peer(cbi_replica *r, const char *name);
/** One without a slot, too. */
cbi_peer *cbi_replica_anyone(cbi_replica *r, const char *name);
static inline uint64_t cbi_replica_bit(const cbi_replica *r, const cbi_peer *p) {
    return UINT64_C(1) << (p - r->peers);
}
/** Whether it is there, as far as is known, and has answered of late. */
static inline bool cbi_replica_may_ask(const cbi_replica *r, const cbi_peer *p) {
    return p->used && !p->missing && p->shun_ns <= r->now_ns;
}
/** Those of a block's peers that are still there. */
static inline uint64_t cbi_replica_living(const cbi_replica *r, uint64_t bits) {
    return bits & ~r->clearing;
}
/** Rendezvous: the order of executors for that block; least first. */
uint64_t cbi_replica_score(const char *executor, uint64_t block_hash);
/** Where the next copy goes; NULL: nowhere. */
cbi_peer *cbi_replica_candidate(cbi_replica *r, const cbi_tracked *b);
/** Of a block that has found nobody: whether anybody who is there may take a copy at some time,
 * else there must be news of them first. Remembers whose news those are. */
bool cbi_replica_may_find(cbi_replica *r, const cbi_tracked *b);

/* replica_graves.c */
cb_status cbi_graves_init(cbi_replica *r, cb_error *err);
void cbi_graves_fini(cbi_replica *r);
/** Whether that generation of the block was removed; */
bool cbi_graves_cover(const cbi_replica *r, const char *name, uint64_t generation);
/** with its data set or broadcast. */
bool cbi_graves_cover_kin(const cbi_replica *r, const char *name, uint64_t generation);
/** *added false: it, or a later one, is known. CB_ENOMEM. */
cb_status cbi_graves_add(cbi_replica *r, const cbi_replica_event *event, bool *added,
                         cb_error *err);
void cbi_graves_expire(cbi_replica *r);
/** Emits what peers have still to be told. */
void cbi_graves_tell(cbi_replica *r);
void cbi_graves_told(cbi_replica *r, const cbi_replica_event *event);
/** Whether everybody who is there was told everything. */
bool cbi_graves_all_told(const cbi_replica *r);

#endif
