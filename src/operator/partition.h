/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_PARTITION_H
#define CBI_PARTITION_H

#include "base/sys.h"
#include "carbide/segment.h"
#include "operator/stored.h"
#include "spill/spill.h"

/*
 * The partitions of an operator: rows go in from any thread, whole partitions leave when memory is
 * short (the highest first, then whichever holds most), and each comes back complete. Order among
 * partitions is their index.
 */

typedef struct cbi_partitions cbi_partitions;

/** What lies in the first bytes of a segment (the frame header's place) while it is in memory. */
typedef struct cbi_segment {
    struct cbi_segment *next;
    uint32_t used;  /* payload bytes */
    uint32_t units; /* segments in a row of the pool; more than 1 for a giant row */
} cbi_segment;

static inline uint8_t *cbi_segment_payload(cbi_segment *segment) {
    return (uint8_t *)segment + CBI_FRAME_HEADER_BYTES;
}

typedef struct cbi_partitions_options {
    uint32_t count;
    const cbi_layout *layout;  /* borrowed */
    cb_segment_pool *pool;     /* borrowed */
    size_t segment_bytes;      /* of the pool */
    size_t segments_max;       /* of the pool */
    cbi_spill *spill;          /* borrowed; NULL: nothing may leave */
    size_t batch_segments_max; /* most segments a spill request takes */
    bool populate;             /* segments are new memory every time */
    size_t low_water; /* segments that should be free or on their way out while rows come in */
    size_t tier;      /* pool segments that the spill has for what it keeps in memory */
    const atomic_bool *cancelled; /* borrowed */
    /* Others from the same pool, whose rows leave when there is no memory to read ours back; NULL.
     * Only where nobody else works on them. Borrowed. */
    struct cbi_partitions *yields;
    /* Asked when nothing of ours can leave any more: whoever holds memory of the pool that he can
     * do without gives it back, at once or when he is done with it. `again`: for the same need.
     * *gave: it is worth another try. Called without a lock or a claim; blocks. NULL: there is
     * nobody. */
    cb_status (*give_way)(void *ctx, bool again, bool *gave, cb_error *err);
    void *give_way_ctx;
} cbi_partitions_options;

cb_status cbi_partitions_create(const cbi_partitions_options *options, cbi_partitions **p,
                                cb_error *err);
/** Waits for what is under way. NULL is fine. */
void cbi_partitions_destroy(cbi_partitions *p);
/** Bytes that create will take through cbi_alloc. */
size_t cbi_partitions_bytes(uint32_t count, size_t batch_segments_max);

/** Rows of one chunk for one partition: rows[which[i]] for i in [0, count), keys beside them when
 * encoded. `stored`: the spans are of whole rows as they are stored (cbi_stored_put), keys
 * included.
 */
typedef struct cbi_group {
    const uint8_t *base; /* of the row spans */
    const cbi_span *rows;
    const uint8_t *key_base; /* of the key spans; NULL when not encoded */
    const cbi_span *keys;
    const uint32_t *which;
    uint32_t count;
    bool stored, counted;
    uint64_t order; /* of the first row; with `stored` and not `counted` of all of them */
} cbi_group;

/** Any thread. Blocks while memory is short and segments are on their way out. */
cb_status cbi_partition_append(cbi_partitions *p, uint32_t index, const cbi_group *group,
                               cb_error *err);
/** Contiguous segments for the caller; lets partitions leave until they are there. Blocks.
 * CB_EBUDGET: never. */
cb_status cbi_partitions_take(cbi_partitions *p, size_t units, void **base, cb_error *err);
/** Starts writing when fewer segments than the low water mark are free. Any thread; seldom blocks.
 */
cb_status cbi_partitions_relieve(cbi_partitions *p, cb_error *err);

/** Ends the tier: the spill writes out what it holds, its segments go to the pool, from then
 * on as so many more that should be free. For who needs many of them, in one piece or at all; who
 * takes more than one at a time does so by itself. Any thread, no lock held; blocks. Once that is
 * done, or where there is none, it costs a look. CB_ENOSPC: the disk had no room, it stays where it
 * is and holds what it held. */
cb_status cbi_partitions_end_tier(cbi_partitions *p, cb_error *err);
/** Segments in it now. */
size_t cbi_partitions_tier(const cbi_partitions *p);

/** Another low water mark from now on; nobody else may be in the partitions. */
void cbi_partitions_keep_free(cbi_partitions *p, size_t segments);

/** Lets what is worth a request leave, the fullest first, until `segments` are free; waits. Less
 * may be free in the end: nothing is torn for it. */
cb_status cbi_partitions_let_leave(cbi_partitions *p, size_t segments, cb_error *err);

/** Other `yields` from now on. */
void cbi_partitions_set_yields(cbi_partitions *p, cbi_partitions *yields);

/** What a partition holds in all. After the last append. */
typedef struct cbi_partition_info {
    uint64_t rows;
    uint64_t row_bytes; /* of the rows alone */
    uint64_t pieces;
    uint64_t segments;     /* pool segments it takes when it is whole in memory */
    uint64_t segments_out; /* of these, on disk */
    uint32_t units_max;    /* segments of its largest row, at least 1 */
} cbi_partition_info;
void cbi_partition_get_info(const cbi_partitions *p, uint32_t index, cbi_partition_info *info);
/** That alone; of one that is being loaded, too, whose other figures change. */
uint32_t cbi_partition_units_max(const cbi_partitions *p, uint32_t index);

/** Writes out what higher partitions (index > `above`) hold until `segments` are free or nothing is
 * left to write; waits. */
cb_status cbi_partitions_make_room(cbi_partitions *p, uint32_t above, size_t segments,
                                   cb_error *err);

/**
 * Starts to bring a partition back. CB_EAGAIN: not enough free segments now, nothing started. One
 * caller a partition.
 */
cb_status cbi_partition_load(cbi_partitions *p, uint32_t index, cb_error *err);
/** Forgets what a load has brought so far (it stays on disk). */
cb_status cbi_partition_unload(cbi_partitions *p, uint32_t index, cb_error *err);
/** Waits until it is whole; answers its segments (a list). */
cb_status cbi_partition_wait(cbi_partitions *p, uint32_t index, cbi_segment **segments,
                             cb_error *err);
/** Gives its memory back. */
void cbi_partition_drop(cbi_partitions *p, uint32_t index);

/**
 * A partition that does not fit, or a run: its next part, oldest first; NULL at the end. The
 * segments are the caller's, who gives them back with cbi_segments_give. One caller a partition.
 * Waits.
 */
cb_status cbi_partition_next_part(cbi_partitions *p, uint32_t index, cbi_segment **segments,
                                  cb_error *err);
/** Lets parts after that come in the background, `depth` at a time, while there is memory for them
 * (more than one: beyond the low water mark). Only with a depth of 1 do they come in order. */
cb_status cbi_partition_prefetch(cbi_partitions *p, uint32_t index, uint32_t depth, cb_error *err);
/** One row at the end of a run, which is written out batch by batch. One thread a run. */
cb_status cbi_partition_put(cbi_partitions *p, uint32_t index, const cbi_stored *row,
                            cb_error *err);
/** The run is complete: the rest of it goes out as well. */
cb_status cbi_partition_put_end(cbi_partitions *p, uint32_t index, cb_error *err);
/** Read to its end: the slot is as new. */
void cbi_partition_reset(cbi_partitions *p, uint32_t index);
void cbi_segments_give(cb_segment_pool *pool, cbi_segment *list);

/** The error of a background request, if one failed. */
cb_status cbi_partitions_failure(cbi_partitions *p, cb_error *err);

#endif
