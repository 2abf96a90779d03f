/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SPILL_IO_H
#define CBI_SPILL_IO_H

#include "spill/spill.h"

enum {
    CBI_IO_THREADS_MAX = 8,
    CBI_IO_DEPTH = 64,
    CBI_IO_RESERVE = 64,            /* for submissions from callbacks */
    CBI_IO_MERGE_BYTES = 256 * 1024 /* small writes that are performed together, at most */
};

typedef enum cbi_io_kind { CBI_IO_WRITE, CBI_IO_READ, CBI_IO_OUTPUT } cbi_io_kind;

/** One request, by value: the queue copies it. */
typedef struct cbi_request {
    struct cbi_request *next; /* the queue's own; in `perform`: the next one of those merged */
    bool mergeable;           /* WRITE */
    cbi_io_kind kind;
    uint32_t owner, sequence, count;
    const cbi_spill_segment *out; /* WRITE */
    cbi_spill_segment *in;        /* READ */
    cbi_extent extent;            /* READ */
    int fd;                       /* OUTPUT */
    const uint8_t *buf;
    size_t bytes; /* OUTPUT, WRITE */
    uint64_t offset;
    cbi_spill_done_fn done;
    void *ctx;
} cbi_request;

/** What the threads do. All are called with no lock held. */
typedef struct cbi_io_work {
    void (*perform)(
        void *ctx, unsigned thread,
        const cbi_request *request); /* one, or a list of merged ones; calls each `done` */
    bool (*chore)(void *ctx);        /* something for quiet moments; false: nothing left */
    void (*farewell)(void *ctx);     /* each thread's last act; without threads the end's */
    void *ctx;
} cbi_io_work;

typedef struct cbi_io {
    cbi_io_work work; /* immutable */
    unsigned thread_count;
    struct cbi_io_thread {
        struct cbi_io *io;
        unsigned index;
        cbi_thread thread;
    } threads[CBI_IO_THREADS_MAX];

    cbi_mutex lock;  /* guards the rest */
    cbi_cond wanted; /* a request, a chore, the end */
    cbi_cond room;
    struct cbi_io_list {
        cbi_request *head, *tail;
    } reads, writes;
    cbi_request *unused;
    unsigned used; /* requests queued or performed, chores */
    unsigned reads_in_row;
    bool chore;
    bool closing;
    bool ready;
    cbi_request slots[CBI_IO_DEPTH + CBI_IO_RESERVE];
} cbi_io;

/** With no threads who submits performs, and the callback is called before it returns. */
cb_status cbi_io_init(cbi_io *io, unsigned threads, cbi_io_work work, cb_error *err);
/** Everything submitted is performed first. Zeroed is fine. */
void cbi_io_fini(cbi_io *io);
/** Blocks while CBI_IO_DEPTH requests are under way; on a thread of `io` never: CB_EAGAIN when the
 * reserve is used up too. */
cb_status cbi_io_submit(cbi_io *io, const cbi_request *request, cb_error *err);
/** There may be something to do for `chore`. */
void cbi_io_wake(cbi_io *io);

#endif
