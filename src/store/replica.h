/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REPLICA_H
#define CBI_REPLICA_H

#include "carbide/directory.h"

/*
 * Copies of blocks at other executors: where they go, when a put is acknowledged, who mends what a
 * death left short, what was removed everywhere. One machine an executor; see the essay in
 * replica.c and docs/replicas.md. It is pure: an event in, actions out. It takes no lock (the owner
 * has one around it), calls nobody, reads no clock and waits for nothing. Who drives it carries the
 * actions out, in order, and tells what came of those that have an answer.
 */

typedef struct cbi_replica cbi_replica;

enum {
    CBI_REPLICA_PEERS_MAX = 64, /* that have copies of blocks here, */
    CBI_REPLICA_TOLD_MAX = 128, /* and with those that are only told of removals */
    CBI_REPLICA_OFFERS_MAX = 256,
    CBI_REPLICA_ACTIONS_MIN = 4
};

/** Zero means what stands behind. Names are copied. */
typedef struct cbi_replica_options {
    const char *name, *host, *rack; /* as it enters the directory */
    uint64_t wall_ms;               /* since 1970, now: its first generation is larger */
    uint64_t now_ns;                /* the same moment by the clock of events; may be 0 */
    uint64_t room_bytes;            /* for blocks, its own and copies for others */
    uint32_t blocks_max;            /* 2^20 */
    uint32_t graves_max; /* removals that are remembered: 16,384; more, up to blocks_max, while
                            somebody who is there has not heard of them */
    uint64_t graves_bytes_max; /* and while all of them take less: no limit */
    uint32_t mending_max;      /* blocks that are looked after at the same time: 32 */
    uint64_t answer_ns;        /* how long a copy may take: 30 s */
    uint64_t retry_ns;         /* first pause after a failure, doubled up to 32-fold: 500 ms */
    uint64_t grace_ns;         /* after it entered: nobody is missed yet. Longer than leases: 6 s */
    uint64_t settle_ns;        /* a block this young is not looked after yet: 2 s */
    uint64_t audit_ns;         /* every block is looked at once in so long: 10 min */
    uint64_t grave_ns;         /* how long a removal is remembered: 24 h */
    uint32_t sweep_max;        /* buckets of blocks that a step looks at, where all are concerned
                                  (a death, a data set that is removed, leaving): 1,024 */
    bool silent; /* CBI_REPLICA_REPORT is not wanted: the directory is told by somebody else */
} cbi_replica_options;

/** CB_ENOMEM, CB_EINVAL: a name that cannot be. */
cb_status cbi_replica_create(const cbi_replica_options *options, cbi_replica **replica,
                             cb_error *err);
void cbi_replica_destroy(cbi_replica *replica); /* NULL is fine */

/** What came of a copy that was offered or sent. */
typedef enum cbi_replica_answer {
    CBI_REPLICA_OK,        /* it is there, and its checksum is the right one */
    CBI_REPLICA_FULL,      /* no room, or it takes none any more, or has it and is to leave */
    CBI_REPLICA_CORRUPT,   /* what came is not what was offered */
    CBI_REPLICA_CONFLICT,  /* it has that name in another generation */
    CBI_REPLICA_IS_BURIED, /* that generation was removed everywhere */
    CBI_REPLICA_IS_BUSY,   /* the same block is just coming, or an older one is being read */
    CBI_REPLICA_UNSENT,    /* it could not be read here: whoever it was for is not to blame */
    CBI_REPLICA_FAILED     /* no answer: not reached, connection lost */
} cbi_replica_answer;

/** What is removed everywhere. */
typedef enum cbi_grave_kind {
    CBI_GRAVE_BLOCK,    /* `name` */
    CBI_GRAVE_DATA_SET, /* rdd_NUMBER_* */
    CBI_GRAVE_BROADCAST /* broadcast_NUMBER and its pieces */
} cbi_grave_kind;

typedef enum cbi_replica_event_kind {
    /** Time has passed. Ten times a second will do. Any event also lets go on what did not fit into
     *  the actions before; CBI_REPLICA_TICK is the one that does nothing else. */
    CBI_REPLICA_TICK,
    /** A block is stored here: name, generation, checksum, bytes, copies, level. `ticket`: of an
     *  accepted offer; 0: a put here (generation from cbi_replica_mint), answered by
     *  CBI_REPLICA_PUT_DONE, or with `returned` one that has outlived a process. Not CB_OK: it
     *  cannot be tracked (CB_EEXISTS, CB_EBUDGET: blocks_max, CB_ENOMEM) or was removed
     * (CB_ENOTFOUND); remove it and answer whoever sent it CBI_REPLICA_FULL. */
    CBI_REPLICA_STORED,
    CBI_REPLICA_MOVED, /* name, generation: lies elsewhere here (`level`, sizes): report it */
    CBI_REPLICA_GONE,  /* name, generation: not here any more: evicted, dropped, unreadable */
    /** All others, as the directory has them: views, count. Only what was asked for after a renewal
     *  that the same directory answered with CB_OK: one that was just restarted knows nobody. */
    CBI_REPLICA_PEERS,
    CBI_REPLICA_UNREACHED, /* peer: not to be tried for a while. Dead is who is not in the list */
    CBI_REPLICA_LOCATED,   /* answer to LOCATE: name; locations, count: all that there are */
    CBI_REPLICA_SENT, /* answer to SEND: peer, peer_generation, name, generation, checksum, answer,
                         was_there, sequence of that SEND. May come late or twice */
    CBI_REPLICA_OFFERED, /* peer, name, generation, checksum, bytes, copies: somebody would send */
    CBI_REPLICA_ARRIVED, /* ticket, checksum: of the bytes that came, computed here */
    CBI_REPLICA_MISSED,  /* ticket: they will not come, or could not be stored */
    CBI_REPLICA_LOST, /* the directory is not there, or does not know us: nothing is asked of it */
    CBI_REPLICA_ENTERED,     /* generation: what the directory gave; everything is reported again */
    CBI_REPLICA_REMOVE,      /* grave, name or number, generation (from mint): remove everywhere */
    CBI_REPLICA_BURIED,      /* from a peer's TELL: grave, name or number, generation */
    CBI_REPLICA_TOLD,        /* answer to TELL: peer, peer_generation, sequence; none: told again */
    CBI_REPLICA_DECOMMISSION /* take nothing more, move everything, then say so; again: say so
                                again, if it is still so */
} cbi_replica_event_kind;

/** Zero what the kind does not name. Pointers are borrowed for the call. */
typedef struct cbi_replica_event {
    cbi_replica_event_kind kind;
    uint64_t now_ns; /* of a clock that does not go back */
    const char *name;
    uint64_t generation, checksum, bytes;
    uint64_t memory_bytes, disk_bytes; /* as reported; both 0: `bytes` of memory */
    cb_level level;                    /* as reported; 0: in memory, `copies` */
    uint32_t copies;                   /* that there shall be, this one too */
    bool returned;
    bool awaited;  /* STORED: somebody waits for its PUT_DONE */
    uint64_t hold; /* of any kind: no SEND now to these (1 << `slot` of a SEND), there are too many
                      under way. Whoever says so steps again as soon as one of them takes more:
                      blocks wait for it, and for no time */
    uint64_t ticket, sequence;
    const char *peer;
    uint64_t peer_generation;
    cbi_replica_answer answer;
    bool was_there; /* OK, and nothing had to be sent for it */
    const cb_executor_view *views;
    const cb_location *locations;
    size_t count;
    cbi_grave_kind grave;
    uint64_t number;
} cbi_replica_event;

typedef enum cbi_replica_action_kind {
    CBI_REPLICA_SEND, /* peer, peer_generation, name, generation, checksum, bytes, copies, sequence:
                         offer it there, then send it; tell SENT */
    CBI_REPLICA_LOCATE,   /* name: ask the directory, tell LOCATED, or LOST */
    CBI_REPLICA_REPORT,   /* name, place: cb_directory.report; failed: LOST, then ENTERED */
    CBI_REPLICA_PUT_DONE, /* name, generation, copies: so many are verified now; the put can be
                             answered. Fewer than asked for: there was nobody else to take one */
    CBI_REPLICA_ACCEPT,   /* ticket: room is reserved, let the bytes come; tell ARRIVED or MISSED */
    CBI_REPLICA_REFUSE, /* ticket (0: of an offer), answer: tell the sender; OK: it is here already.
                           Of an offer its name is the event's; of a ticket: discard the bytes */
    CBI_REPLICA_STORE,  /* ticket, name, generation, ...: store it, tell STORED with the ticket,
                           then the sender OK with cbi_replica_generation; or MISSED and FULL */
    CBI_REPLICA_DROP,   /* name, generation: it was removed everywhere; tell GONE */
    CBI_REPLICA_VERIFY, /* name, generation: somebody got other bytes; read it; bad: tell GONE */
    CBI_REPLICA_TELL,   /* peer, grave, name or number, generation, sequence: tell it; TOLD */
    CBI_REPLICA_MOVED_OUT /* everything has its copies elsewhere: leave the directory and end */
} cbi_replica_action_kind;

/** Pointers are borrowed until the next step. */
typedef struct cbi_replica_action {
    cbi_replica_action_kind kind;
    const char *name;
    uint64_t generation, checksum, bytes;
    cb_place place; /* level CB_LEVEL_NONE: it has gone */
    uint32_t copies;
    uint64_t ticket, sequence;
    const char *peer; /* the address is in the directory's view of it: peer_address */
    const char *peer_address;
    uint64_t peer_generation;
    uint8_t slot; /* of SEND: that peer's, below CBI_REPLICA_PEERS_MAX, as long as it is there */
    cbi_replica_answer answer;
    cbi_grave_kind grave;
    uint64_t number;
} cbi_replica_action;

/**
 * `max` >= CBI_REPLICA_ACTIONS_MIN; *count == max: there may be more, step again with
 * CBI_REPLICA_TICK. Actions are to be carried out whatever the status is.
 */
cb_status cbi_replica_step(cbi_replica *replica, const cbi_replica_event *event,
                           cbi_replica_action *actions, size_t max, size_t *count, cb_error *err);

/** A generation for a block that is put, or a removal: larger than all that this executor has heard
 *  of, and than those of one that had its name before. */
uint64_t cbi_replica_mint(cbi_replica *replica, uint64_t now_ns);

/** What the directory gave at the last ENTERED: what answers to others carry. */
uint64_t cbi_replica_generation(const cbi_replica *replica);

/** Whether the block is here in that generation and may be read: what a reader at another executor
 *  is answered. generation 0: whichever there is; *generation_out (NULL is fine): which. */
bool cbi_replica_holds(const cbi_replica *replica, const char *name, uint64_t generation,
                       uint64_t *generation_out);

/** Was it removed everywhere, as far as this one has heard? */
bool cbi_replica_is_buried(const cbi_replica *r, const char *name, uint64_t generation);

/** The newest generation that one of them had: above it nothing was removed. */
uint64_t cbi_replica_buried(const cbi_replica *r);

/** Whether such a grave, of a block by that name or of a number, covers the block. */
bool cbi_grave_covers(cbi_grave_kind kind, uint64_t number, const char *grave_name,
                      const char *name);

/** The generation of the block by that name that is here, or is still to be dropped; 0: none. */
uint64_t cbi_replica_generation_of(const cbi_replica *replica, const char *name);

/**
 * Where to read: indices of those locations that have this generation and checksum (0: any), the
 * nearest first, this executor itself left out; answers how many. `order` has room for `count`.
 */
size_t cbi_replica_sources(const cbi_replica *replica, const cb_location *locations, size_t count,
                           uint64_t generation, uint64_t checksum, size_t *order);

typedef struct cbi_replica_figures {
    uint64_t blocks, bytes;         /* here */
    uint64_t reserved_bytes;        /* for copies that are coming */
    uint64_t room_bytes;            /* that is left */
    uint64_t watched;               /* blocks that are or may be short, or on their way */
    uint64_t graves;                /* removals remembered */
    uint64_t graves_lost;           /* forgotten before their time: there were too many */
    uint64_t sent, refused, mended; /* copies, so far; mended: of these, after a loss */
    uint64_t peers;
} cbi_replica_figures;

void cbi_replica_figures_get(const cbi_replica *replica, cbi_replica_figures *figures);

/** Another limit: the store's budget has changed. */
void cbi_replica_room(cbi_replica *replica, uint64_t room_bytes);

#endif
