/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_RUN_TABLE_H
#define CBI_RUN_TABLE_H

/*
 * Sorted runs on disk and their merge, for the sort and for jobs. A run is a partition of `runs`
 * whose rows are in order; its number is a slot. The table has a fixed number of slots: complete
 * runs, free ones, and those that somebody writes, which are in neither list.
 */

#include "base/sys.h"
#include "operator/merge.h"
#include "operator/partition.h"

typedef struct cbi_run_table {
    cbi_partitions_options o;
    cbi_partitions *runs;
    cbi_mutex *mutex;   /* guards the lists; NULL: one thread has the table */
    uint32_t *complete; /* slots, then the idle ones, in one allocation */
    uint32_t *idle;
    uint32_t count, idle_count;
    uint32_t width_max; /* runs merged at once, at most; 0: as many as memory allows */
    bool unique;        /* one row of those with equal keys goes on */
} cbi_run_table;

/** `o`: as for cbi_partitions_create; o->count slots, o->batch_segments_max segments a request. */
cb_status cbi_run_table_open(cbi_run_table *t, const cbi_partitions_options *o, cb_error *err);
/** Zeroed is fine. No request of it is under way that will not end. */
void cbi_run_table_close(cbi_run_table *t);

/** A slot for a new run. There is one; the mutex is held. */
uint32_t cbi_run_table_take(cbi_run_table *t);
/** Its run is complete. Takes the mutex. */
void cbi_run_table_put(cbi_run_table *t, uint32_t slot);
/** Writes an ordered builder as the run of `slot`, which is complete then. */
cb_status cbi_run_table_flush(cbi_run_table *t, cbi_builder *builder, uint32_t slot, cb_error *err);
/** Merges sources that are no runs to a new run. */
cb_status cbi_run_table_merge_to_run(cbi_run_table *t, cbi_source **sources, uint32_t count,
                                     uint32_t *tree, cb_error *err);

/** How many runs can be merged in `segments` of memory, at least 2. */
uint32_t cbi_run_table_width(const cbi_run_table *t, size_t segments);
/** Merges the `count` smallest complete runs (all, if there are fewer) to one. One caller at a
 * time. */
cb_status cbi_run_table_merge_some(cbi_run_table *t, uint32_t count, cb_error *err);
/** Merges some until at most `width` are left: the smallest, as few as will do. */
cb_status cbi_run_table_narrow(cbi_run_table *t, uint32_t width, cb_error *err);
/** All rows of all complete runs in order to `fn`; the runs are empty then. */
cb_status cbi_run_table_merge(cbi_run_table *t, cbi_row_fn fn, void *ctx, cb_error *err);

#endif
