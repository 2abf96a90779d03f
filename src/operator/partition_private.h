/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_PARTITION_PRIVATE_H
#define CBI_PARTITION_PRIVATE_H

/* Shared by partition.c (rows come in, partitions leave) and partition_back.c (they come back;
 * runs). */

#include "memory/segment.h"
#include "operator/extents.h"
#include "operator/partition.h"

enum {
    REQUESTS = 64,
    REQUESTS_TO_WRITE = 8, /* of these, not for partitions that come back whole */
    EXTENT_JUMBO = 0x40000000,
    EXTENT_LOADED = 0x20000000,
    EXTENT_UNITS = 0x1fffffff
};

static const uint32_t PARTITION_NONE = UINT32_MAX;

typedef struct partition {
    cbi_mutex lock;
    cbi_segment *open;             /* being filled; not in the list */
    cbi_segment *first, *last;     /* full, oldest first */
    cbi_segment *back, *back_last; /* came back from disk */
    uint8_t *piece;                /* cbi_partition_put: the piece that grows in the open segment */
    atomic_uint full;              /* pool segments in the list */
    uint64_t rows, row_bytes, pieces, segments, segments_out;
    cbi_extent_list extents; /* .segments: EXTENT_JUMBO | units for a giant row, EXTENT_LOADED */
    uint32_t next_extent;    /* cbi_partition_next_part */
    uint32_t units_max;      /* of one row */
    uint32_t loading;        /* read requests under way */
    uint32_t load_at;        /* coming back whole: the next extent to ask for */
    uint32_t load_next;      /* the partition that comes back after this one */
    bool load_pending;       /* it is in that list */
    cbi_segment *reserved;   /* what the rest of it will lie in */
} partition;

typedef struct request {
    cbi_partitions *p;
    struct request *next;
    uint32_t index, extent;
    uint32_t count;
    bool write;
    bool last_read;              /* nobody will read that extent again */
    uint32_t units;              /* pool segments in the batch */
    cbi_spill_segment *segments; /* batch_segments_max */
} request;

struct cbi_partitions {
    cbi_partitions_options o;
    uint32_t payload; /* of one segment */
    partition *parts;
    cbi_extent_slab slab;
    request *requests;
    cbi_spill_segment *request_segments;

    cbi_mutex ending_tier; /* before all others: held while the tier goes to disk */
    atomic_size_t tier, low_water;
    atomic_bool claim; /* the same for those who look without the lock */
    cbi_mutex mutex;   /* guards all below */
    cbi_cond changed;
    request *idle;
    unsigned idle_count;
    unsigned wanting;               /* threads that wait for a request */
    uint32_t load_first, load_last; /* partitions that come back, in the order of asking */
    bool closing;
    uint32_t frontier;
    size_t leaving;      /* pool segments on their way out */
    bool claimed;        /* somebody collects contiguous segments */
    unsigned under_way;  /* requests */
    atomic_uint in_hand; /* segments on their way from wait_for_memory into a partition */
    cb_status failed;
    cb_error failure;
};

/* Takes a request, waiting for one. p->mutex held. */
request *parts_request_take(cbi_partitions *p);

/* Nobody uses it any more. p->mutex held. */
void parts_request_idle(cbi_partitions *p, request *r);

/* Asks for up to `most` more extents of the partitions that come back. p->mutex held on entry and
 * exit, not meanwhile. */
void parts_continue_loading(cbi_partitions *p, unsigned most);

/* The request did not start: as if it had never been taken. p->mutex not held. */
void parts_request_return(cbi_partitions *p, request *r, cb_status status, const cb_error *err);

void parts_request_done(void *ctx, cb_status status, const cbi_extent *extent, const cb_error *err);

/* Lets one batch of a partition go. p->mutex held on entry and exit, not meanwhile. */
cb_status parts_spill_batch(cbi_partitions *p, uint32_t index, cb_error *err);

cb_status parts_stopped(cbi_partitions *p, cb_error *err);

/* Puts a segment that takes no more rows into the list. part->lock held. */
void parts_retire_open(partition *part);

/* Closes the open segments of partitions at or above the frontier, so that they can leave. p->mutex
 * held. */
bool parts_close_open(cbi_partitions *p, uint32_t from);

/*
 * Waits until `units` contiguous segments could be taken. Who needs more than one claims the pool:
 * nobody else takes from it (in this object) until it has them, or what leaves would never be in
 * one piece.
 *
 * `for_partition`: the caller will put them into a partition and count in_hand down. Until then
 * nobody can make them leave, which is no reason for another one to give up.
 */
cb_status parts_wait_for_memory(cbi_partitions *p, size_t units, bool for_partition, void **base,
                                cb_error *err);

/* The quick way, which respects a claim. */
void *parts_take_quickly(cbi_partitions *p, size_t units);

#endif
