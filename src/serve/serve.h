/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SERVE_H
#define CBI_SERVE_H

#include "base/sys.h"
#include "carbide/directory.h"
#include "carbide/server.h"
#include "memory/ready.h"
#include "serve/copies.h"
#include "serve/protocol.h"
#include "serve/resp.h"
#include "store/blocks.h"
#include "store/claim.h"
#include "store/sum.h"

/*
 * The server from inside. One thread, the loop, owns all connections: it alone touches sockets and
 * changes states. What may take long, a disk, an eviction, a checksum of megabytes, is a job that a
 * worker does for a connection, which is the worker's while it is CBI_BUSY and the loop's
 * otherwise; it has one job at a time (`takes`: one that reads from the socket). Without workers
 * the loop does the jobs itself.
 */

enum {
    CBI_STREAMS = 4, /* blocks on their way from or to disk at one time */
    CBI_STREAM_BYTES = 64 * 1024,
    CBI_OUT_BYTES = CBI_HEAD_BYTES + CBI_REPLY_TEXT_MAX,
    CBI_WORKERS_MAX = 16,
    CBI_SERVER_SHARE_MIN = 64 * 1024,
    CBI_SOCKET_SEND_BYTES = 32 * 1024, /* the system doubles it */
    CBI_SOCKET_COST = 64 * 1024,
    CBI_TCP_SEND_BYTES = 128 * 1024,   /* as above */
    CBI_TCP_RECEIVE_BYTES = 64 * 1024, /* as above, at least; */
    CBI_TCP_RECEIVE_BYTES_MAX = 512 * 1024,
    CBI_RESP_IN_BYTES = 8 * 1024,
    CBI_RESP_OUT_BYTES = 8 * 1024,
    CBI_RESP_TEXT_MAX = 256,
    CBI_RESP_PUT_ARGS = 6 /* CARBIDE.PUT name generation level checksum value */
};

typedef enum cbi_state {
    CBI_FREE = 0,
    CBI_HEAD,  /* a request is waited for, or its rest */
    CBI_BODY,  /* a put's bytes */
    CBI_DRAIN, /* bytes of a put that was refused */
    CBI_REPLY, /* the answer is on its way */
    CBI_BUSY,  /* a worker has it */
    CBI_QUEUED /* for a stream */
} cbi_state;

typedef enum cbi_job {
    CBI_JOB_NONE = 0,
    CBI_JOB_GET,    /* what lies on disk */
    CBI_JOB_READ,   /* its next bytes, into the stream */
    CBI_JOB_BEGIN,  /* a put: room for its first bytes */
    CBI_JOB_ROOM,   /* for more */
    CBI_JOB_APPEND, /* the stream's bytes, to disk */
    CBI_JOB_FINISH,
    CBI_JOB_REMOVE,
    CBI_JOB_KEEP,
    CBI_JOB_CANCEL, /* a put, whose bytes have all come */
    CBI_JOB_COPIES, /* nobody's: its put waits for copies elsewhere */
    CBI_JOB_BURY,   /* a block was removed everywhere */
    CBI_JOB_FETCH,  /* a fetcher's: a get, from another executor */
    CBI_JOB_CLOSE
} cbi_job;

struct cbi_connection;

/** A buffer for a block on its way from or to disk, or a page of a listing. */
typedef struct cbi_stream {
    struct cbi_connection *owner;
    uint8_t *buffer;
} cbi_stream;

typedef struct cbi_lease {
    cb_block_ref ref; /* first */
    struct cbi_connection *owner;
    uint32_t next; /* free ones: 1 + the next */
    bool given;
} cbi_lease;

/** What a connection that speaks RESP has besides. */
typedef struct cbi_resp {
    cbi_resp_request request;
    uint64_t login_ns;    /* until then, as arrival.until_ns, it must say the password; 0: it has */
    bool serving;         /* requests that are there are being served: the loop goes on with them */
    bool in_rest;         /* a SET's value has come; what follows it is next */
    bool only_new;        /* SET NX */
    bool puts;            /* CARBIDE.PUT: a SET that says what the block is */
    uint64_t generation;  /* CARBIDE.PUT, CARBIDE.GET: of the block; else 0 */
    uint32_t line_left;   /* of a SET in a line, after its value */
    uint8_t asks;         /* GET, GETRANGE or STRLEN */
    bool fetched;         /* it was asked of others */
    bool lent;            /* what is being sent are bytes of the fill, another executor's */
    bool offers;          /* CBI_JOB_BURY makes room for an offer, */
    bool removes, leaves; /* removes what a client wants removed, or is for all blocks */
    uint8_t wrong;        /* passwords */
    bool resp3;           /* it has said HELLO 3 */
    int64_t first, last;  /* GETRANGE */
    size_t at;            /* DEL: the next name, */
    uint32_t left;        /* how many there are, */
    int64_t removed;      /* how many are gone, */
    cb_status status;     /* what a job answered, or why a SET's value is not taken */
    uint32_t copies;      /* of the last SET's block, elsewhere */
    cbi_copy_wait wait;   /* for them */
    cbi_copy_grave grave; /* CBI_JOB_BURY */
    cbi_copy_arrival arrival; /* a copy that was offered on this connection */
    bool computes;            /* CARBIDE.COMPUTE: a GET that may be answered with a claim */
    bool here;                /* it is here by now */
    bool gone;                /* its client is: guarded by the copies' mutex */
    cbi_claim claim;
    uint64_t number;   /* of a claim that is to be renewed; 0: of none */
    uint64_t token;    /* of a claim that was granted; 0: none */
    uint64_t until_ns; /* another one who computes is waited for until then, */
    uint64_t due_ns;   /* parked: until then, */
    uint64_t asked_ns; /* and the directory was asked last */
    char text[CBI_RESP_TEXT_MAX];
    uint8_t in[CBI_RESP_IN_BYTES], out[CBI_RESP_OUT_BYTES];
} cbi_resp;

typedef struct cbi_connection {
    struct cbi_connection *next, *prev; /* free ones, or idle ones by use (who has to say
                                           the password: by when he came) */
    struct cbi_connection *next_job;    /* of workers' queues, or of those that wait for a stream */
    int fd;
    uint32_t generation;     /* tells events of an older one at this place */
    cbi_state state, wanted; /* wanted: what is polled for, CBI_HEAD or CBI_REPLY or CBI_BUSY */
    cbi_job job;
    bool trusted, close_after, idle, failed;
    bool ending;
    bool patient, again;  /* a put's end may wait; it was tried and must, or is tried again */
    uint64_t again_ns;    /* when, */
    uint64_t patience_ns; /* and how long it goes on; 0: it was not tried yet */
    bool broken;          /* the job found that it must end */
    bool summed;          /* the put's bytes are */
    bool takes;           /* its job reads from the socket: it is not to be closed meanwhile */
    uint64_t deadline_ns; /* of what is under way; 0: none */
    uint64_t busy_ns;     /* since when a worker has it */
    cb_block_task *task;
    uint32_t leases;
    cbi_resp *resp; /* NULL: it speaks the protocol of protocol.h */
    /* the request */
    uint8_t *in; /* own_in, or resp's */
    uint32_t in_at, in_end, in_max;
    cbi_head head;
    char name[CB_BLOCK_NAME_MAX + 1];
    /* what comes */
    cbi_fill fill;
    uint8_t *to;
    size_t room;
    uint64_t left, hashed; /* left: of the body, not yet received */
    XXH3_state_t sum;
    /* what goes */
    uint8_t *out;
    size_t out_at, out_end;
    const uint8_t *body;
    uint64_t body_left;   /* at `body` */
    uint64_t stream_left; /* still to be read, after that */
    uint64_t skip, want;  /* of a block on disk: not to be sent, and to be sent after that */
    uint32_t trailer;     /* "\r\n" that comes last: bytes to be sent */
    int pass;
    cb_block_ref own; /* being copied */
    cbi_lease *lease; /* the same, or to be given */
    cb_block_reader *reader;
    cbi_stream *stream;
    size_t staged; /* bytes of a put in the stream */
    uint8_t own_in[CBI_REQUEST_BYTES_MAX], own_out[CBI_OUT_BYTES];
} cbi_connection;

typedef struct cbi_worker {
    cbi_thread thread;
    cb_server *server;
} cbi_worker;

struct cb_server {
    /* immutable */
    cb_manager *manager;
    cb_blocks *blocks;
    char *path;
    const char *name;                   /* its last part */
    int dir, listener, tcp, poll, bell; /* listener, tcp: -1 where it does not listen */
    cbi_sys_address address;            /* of tcp */
    char *password;                     /* NULL: none is needed */
    struct stat socket_id;
    cb_level level;
    uint64_t disk_bytes; /* for blocks, at most */
    bool others, tcp_wanted;
    bool cache_remote; /* blocks that were read elsewhere stay */
    bool preallocates;
    uint32_t connections_max, leases_max, worker_count;
    uint32_t receive_bytes; /* of a socket of tcp, as above */
    uint64_t timeout_ns;
    uid_t uid;
    uint64_t started_ns;
    cb_status_page *page;   /* NULL: nobody watches */
    cb_directory directory; /* .ctx and functions NULL: it is no executor */
    cb_executor_view me;    /* in it; name "": it has not entered */
    cbi_copies *copies;     /* NULL: it is no executor */
    _Atomic uint64_t last_generation;
    _Atomic uint32_t waiting; /* workers that wait until a block is not read any more */
    void *tables;
    size_t table_bytes;
    cb_ledger_entry *process, *fixed, *small;
    /* the loop's */
    cbi_connection *connections, *free, *idle_first, *idle_last;
    cbi_resp *resps; /* of the connections with the same numbers; NULL without tcp */
    cbi_connection *stream_first, *stream_last;
    cbi_lease *lease_table;
    uint32_t free_lease; /* 1 + */
    cbi_stream streams[CBI_STREAMS];
    uint32_t strangers; /* connections of those who are not trusted */
    uint32_t stranger_streams;
    uint32_t closing; /* connections that a worker ends */
    uint64_t next_tick_ns, next_page_ns, looked_ns;
    uint64_t missed_ns;   /* in all, while it was stopped: nobody else's time */
    bool hurries;         /* and looks at the clock each tick */
    bool listening, deaf; /* deaf: not before the next tick */
    bool listening_tcp;   /* not while there are too many who still have to say the password: */
    int crowded_ms;       /* so long, then the first of them gives way; 0: there are not */
    bool calling;         /* the first of those who wait for a stream */
    int spare;            /* a descriptor to give up when there are no others */
    cb_server_stats stats;
    cb_figures figures; /* being published */
    uint8_t scratch[16 * 1024];
    _Atomic bool stop;
    /* guarded by mutex */
    cbi_mutex mutex;
    cbi_cond wake;
    cbi_connection *jobs_first, *jobs_last, *done;
    cbi_connection *later_first, *later_last; /* jobs that are tried again, by c->again_ns */
    bool quit;
    cbi_worker workers[CBI_WORKERS_MAX];
    /* preallocate.c */
    cbi_ready ready; /* the thread's */
    cbi_thread preparer;
    cbi_parker preparer_wake;
    _Atomic bool preparer_ends;
};

/** As cb_server_options.workers: the loop does all itself (tests want one order of things). */
#define CBI_NO_WORKERS UINT32_MAX

/** Events of no connection; others have its place, and its generation above that. */
#define CBI_TOKEN_LISTENER UINT32_MAX
#define CBI_TOKEN_BELL (UINT32_MAX - 1)
#define CBI_TOKEN_TCP (UINT32_MAX - 2)

/* ---- server.c ---- */

/** A worker's thread; ctx is its cbi_worker. */
void cbi_server_work(void *ctx);
/** Goes on with those whose workers are done. */
void cbi_server_take_done(cb_server *server);

/** Whether there is work that no worker has begun. */
bool cbi_server_has_jobs(cb_server *server);
/** Hands the connection to a worker for its c->job, or does that at once. */
void cbi_server_submit(cb_server *server, cbi_connection *c);
/** One turn of the loop: waits at most so long, then does what there is to do. CB_EIO. */
cb_status cbi_server_step(cb_server *server, int timeout_ms, cb_error *err);
/** The descriptor becomes a connection; false: there is no room, and it was closed. */
bool cbi_server_adopt(cb_server *server, int fd, bool trusted, bool resp);
/** Whether its blocks have generations. */
static inline bool cbi_server_is_executor(const cb_server *server) {
    return server->directory.enter != NULL;
}
/** Generations of blocks are below it, until the year 2112. Who says a greater one is not believed:
 *  nothing could be made that is newer. */
#define CBI_GENERATION_MAX (UINT64_C(1) << 62)
/** A generation for a block that is put here: larger than all that were heard of. */
uint64_t cbi_server_generation(cb_server *server);
/** Whether somebody's clock can have given it: it is at most a day ahead of the one here. What is
 * not believed is refused (-CLOCK), and nothing is made newer because of it: one number would else
 * put all that is made here beyond what others believe, for good. */
bool cbi_server_believes(uint64_t generation);
/** A generation that others have; one that is not believed is not heard. */
void cbi_server_heard_of(cb_server *server, uint64_t generation);
/** A connection that is CBI_BUSY goes on with what comes after its job. Any thread. */
void cbi_server_hand_back(cb_server *server, cbi_connection *c);
/** It has said the password. */
void cbi_server_trust(cb_server *server, cbi_connection *c);
void cbi_server_stats(cb_server *server, cb_server_stats *stats);

/* ---- connection.c: the loop's side ---- */

/** Polls for what the state needs. */
void cbi_connection_want(cb_server *server, cbi_connection *c);
/** It ends: at once, or when its worker is done. */
void cbi_connection_end(cb_server *server, cbi_connection *c);
void cbi_connection_receive(cb_server *server, cbi_connection *c);
void cbi_connection_send(cb_server *server, cbi_connection *c);
/** It waits for the next request, some of which may be there already. */
void cbi_connection_rest(cb_server *server, cbi_connection *c);
/** The transfer of so many bytes has begun. */
void cbi_connection_hurry(const cb_server *server, cbi_connection *c, uint64_t bytes);
/** Gives back lease, ref, reader, stream and fill, but no lease that was given. */
void cbi_connection_let_go(cb_server *server, cbi_connection *c);
/** false: it waits for one, and begins anew when there is. */
bool cbi_stream_take(cb_server *server, cbi_connection *c);
void cbi_stream_give(cb_server *server, cbi_connection *c);
/** The first in line who may have one that is free, taken out of the line; NULL: nobody. */
cbi_connection *cbi_stream_next(cb_server *server);
cbi_lease *cbi_lease_take(cb_server *server, cbi_connection *c);
void cbi_lease_give(cb_server *server, cbi_lease *lease);
/** Takes it out of the line of those who give way. */
void cbi_idle_remove(cb_server *server, cbi_connection *c);
/** The same when he begins something; who has to say the password stays in his place until then:
 *  nothing that he says before lasts. */
void cbi_idle_leave(cb_server *server, cbi_connection *c);

/** What who speaks RESP hears when his connection is ended for want of places. */
#define CBI_RESP_TOO_MANY "-ERR max number of clients reached"

/* ---- resp_serve.c: the same for those that speak RESP ---- */

/** Serves the requests that are there, as far as it goes. */
void cbi_resp_serve(cb_server *server, cbi_connection *c);
/** By a worker: what the job came to. */
void cbi_resp_note(cbi_connection *c, cb_status status, const cb_error *err);
/** As cbi_request_done and cbi_request_stream. */
void cbi_resp_done(cb_server *server, cbi_connection *c, cbi_job job, bool failed);
void cbi_resp_stream(cb_server *server, cbi_connection *c);
/** All of a SET's value has come, or was read and dropped. */
void cbi_resp_value_done(cb_server *server, cbi_connection *c);

/* ---- executor.c ---- */

/** Takes what the options say of it. CB_EINVAL. */
cb_status cbi_executor_prepare(cb_server *server, const cb_server_options *options, cb_error *err);
/** The store's listener; ctx is the server. */
void cbi_executor_note(void *ctx, const cb_block_status *status);
/** Enters the directory, when it listens and has its blocks. */
cb_status cbi_executor_enter(cb_server *server, const cb_server_options *options, cb_error *err);
/** Before its blocks end. */
void cbi_executor_leave(cb_server *server);

/* ---- resp_commands.c ---- */

/** A request's arguments, one after the other. */
typedef struct cbi_resp_args {
    const uint8_t *bytes;
    const cbi_resp_request *request;
    size_t at;
} cbi_resp_args;
/** A number of 64 bits without a sign. */
bool cbi_resp_take_number(cbi_resp_word word, uint64_t *number);
/** A level's name, or number. */
bool cbi_resp_take_level(cbi_resp_word word, cb_level *level);
/** As which a server stores what comes at that level: bytes, in its own memory. */
static inline cb_level cbi_resp_plain(cb_level level) {
    return level & (cb_level) ~(CB_LEVEL_IS_DESERIALISED | CB_LEVEL_IN_OFF_HEAP);
}

/** The request in c->resp->request, at c->in + c->in_at; moves in_at on when it is done with it. */
void cbi_resp_execute(cb_server *server, cbi_connection *c);
/** It continues, when what it waited for has happened. */
void cbi_resp_got_block(cb_server *server, cbi_connection *c);
void cbi_resp_missed_block(cb_server *server, cbi_connection *c);
/** c->fill has it. */
void cbi_resp_fetched_block(cb_server *server, cbi_connection *c);
/** A GET of the name; and the same again, of c->name. */
void cbi_resp_read(cb_server *server, cbi_connection *c, cbi_resp_word name);
void cbi_resp_begin_read(cb_server *server, cbi_connection *c);
void cbi_resp_remove_next(cb_server *server, cbi_connection *c);
/** A SET's options, in the request that follows its value. false: an error was said. */
bool cbi_resp_set_options(cb_server *server, cbi_connection *c, const uint8_t *bytes,
                          const cbi_resp_request *rest);
void cbi_resp_scan(cb_server *server, cbi_connection *c);
/** Short replies, into c->out: there is room for one. */
void cbi_resp_say(cbi_connection *c, const char *word);
void cbi_resp_say_number(cbi_connection *c, int64_t number);
void cbi_resp_say_nil(cbi_connection *c);
void cbi_resp_say_error(cbi_connection *c, const char *kind, const char *sentence);
void cbi_resp_say_bulk(cbi_connection *c, const void *bytes, size_t count);
/** The items follow; */
void cbi_resp_say_array(cbi_connection *c, int64_t count);
/** so many names, each with what it names: in RESP2 an array of twice as many. */
void cbi_resp_say_map(cbi_connection *c, int64_t count);
/** What the job answered. */
void cbi_resp_say_failed(cbi_connection *c);
/** The next request, or the reply to those that were served. */
void cbi_resp_go_on(cbi_connection *c);

/** How many there are. */
uint32_t cbi_resp_command_count(void);

/* ---- resp_info.c: what a server says of itself ---- */

int64_t cbi_resp_id(const cb_server *server, const cbi_connection *c);
void cbi_resp_client(cb_server *server, cbi_connection *c, cbi_resp_args *args);
void cbi_resp_config(cb_server *server, cbi_connection *c, cbi_resp_args *args);
void cbi_resp_info(cb_server *server, cbi_connection *c, cbi_resp_args *args);
void cbi_resp_command(cb_server *server, cbi_connection *c, cbi_resp_args *args);

/* ---- resp_compute.c ---- */

void cbi_resp_compute(cb_server *server, cbi_connection *c, cbi_resp_args *args);
void cbi_resp_unclaim(cb_server *server, cbi_connection *c, cbi_resp_args *args);
/** What the fetcher came to. */
void cbi_resp_computed(cb_server *server, cbi_connection *c, bool failed);

/* ---- resp_copies.c: what executors ask of each other ---- */

void cbi_resp_offer(cb_server *server, cbi_connection *c, cbi_resp_args *args);
void cbi_resp_bury(cb_server *server, cbi_connection *c, cbi_resp_args *args);
void cbi_resp_remove_all(cb_server *server, cbi_connection *c, cbi_resp_args *args);
void cbi_resp_decommission(cb_server *server, cbi_connection *c, cbi_resp_args *args);
void cbi_resp_wait(cb_server *server, cbi_connection *c, cbi_resp_args *args);
/** After CBI_JOB_BURY. */
void cbi_resp_buried(cb_server *server, cbi_connection *c);

/* ---- body.c: a put's bytes ---- */

/** Takes more of them into the sum; they lie there only for now. */
void cbi_body_sum(cbi_connection *c, const uint8_t *bytes, uint64_t count);
/** What has come into memory and is not in the sum yet. */
void cbi_body_sum_memory(cbi_connection *c);
/** By a worker: takes bytes from the socket, with room for them, as long as they come fast. As
 *  cbi_fill_room. */
cb_status cbi_body_take(cb_server *server, cbi_connection *c, cb_error *err);

/* ---- preallocate.c ---- */

/** Begins to touch what the budget has for blocks, if that is wanted. CB_ETHREAD, CB_ENOMEM. */
cb_status cbi_preallocate_begin(cb_server *server, cb_error *err);
/** Also where it has not begun. */
void cbi_preallocate_end(cb_server *server);

/* ---- request.c ---- */

/** The stream has the next bytes of the reply. */
void cbi_request_more(cbi_connection *c);
/** Begins or continues a put of c->head.bytes under c->name, here or by a worker. */
void cbi_put_submit(cb_server *server, cbi_connection *c, cbi_job job);
/** There is room for more of its bytes, or a stream is needed, or all are there. */
void cbi_put_room(cb_server *server, cbi_connection *c);

/** The request in c->head and c->name begins. */
void cbi_request_begin(cb_server *server, cbi_connection *c);
/** c->job, by a worker. */
void cbi_request_work(cb_server *server, cbi_connection *c);
/** What comes after it, by the loop. */
void cbi_request_done(cb_server *server, cbi_connection *c, cbi_job job);
/** A put's bytes have come up to c->room, or all have. */
void cbi_request_body(cb_server *server, cbi_connection *c);
/** There is a stream now. */
void cbi_request_stream(cb_server *server, cbi_connection *c);
/** The reply's bytes at c->body are sent. */
void cbi_request_sent(cb_server *server, cbi_connection *c);
/** Of the block by that name here, tracked or not; 0: there is none. */
uint64_t cbi_request_generation(const cb_server *server, const char *name);

#endif
