/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_CLUSTER_H
#define CBI_CLUSTER_H

#include "carbide/redis_directory.h"
#include "carbide/server.h"

/*
 * A moment of all executors of a directory, or of one server where there is none: who is there, and
 * what blocks there are, as far as a page has room for them. Executors' sums are their own reports
 * and always whole; sets and levels are sums over the copies that were looked at.
 */

enum {
    CBI_CLUSTER_EXECUTORS = 128,
    CBI_CLUSTER_SETS = 200,
    CBI_CLUSTER_BLOCKS = 200,
    CBI_CLUSTER_LEVELS = 16, /* flags of a level */
    CBI_CLUSTER_LOOKS = 20000,
    CBI_CLUSTER_SET_NAME_MAX = 47
};

/** Copies of blocks: how many, and where they lie. */
typedef struct cbi_cluster_sum {
    uint64_t copies, memory_bytes, disk_bytes;
} cbi_cluster_sum;

typedef struct cbi_cluster_set {
    char name[CBI_CLUSTER_SET_NAME_MAX + 1];
    cb_level level; /* of the first that was seen */
    cbi_cluster_sum sum;
    uint64_t at[CBI_CLUSTER_EXECUTORS / 64]; /* a bit for each executor */
} cbi_cluster_set;

typedef struct cbi_cluster_block {
    char name[CB_BLOCK_NAME_MAX + 1];
    uint32_t executor; /* its number */
    cb_place place;
} cbi_cluster_block;

typedef struct cbi_cluster {
    /* what is asked for; NULL: anything */
    const char *only_set, *only_executor;
    /* what there is */
    cb_executor_view executors[CBI_CLUSTER_EXECUTORS]; /* by name */
    size_t executor_count, executors_beyond;           /* beyond: those for whom was no room */
    size_t self;       /* number of the server that is asked; executor_count: it is not there */
    bool alone;        /* there is no directory, or it does not answer */
    cb_error problem;  /* why not; "": there is none */
    uint64_t now_ns;   /* of the monotonic clock */
    uint64_t looked;   /* copies */
    bool cut;          /* there are more than were looked at */
    uint64_t matching; /* copies of what is asked for, among those that were looked at */
    cbi_cluster_sum levels[CBI_CLUSTER_LEVELS];
    cbi_cluster_set sets[CBI_CLUSTER_SETS];
    size_t set_count, sets_beyond;
    cbi_cluster_block blocks[CBI_CLUSTER_BLOCKS];
    size_t block_count;
    /* while it is collected */
    size_t current;
    uint64_t deadline_ns;
} cbi_cluster;

/** `directory` may be NULL; `server` goes by `name` there. only_* are taken as they are.
 *  Blocks are looked at if so said. */
void cbi_cluster_collect(cbi_cluster *cluster, cb_redis_directory *directory,
                         const cb_server *server, const char *name, const cb_figures *figures,
                         bool with_blocks);

#endif
