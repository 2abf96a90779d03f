/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_GROUP_H
#define CARBIDE_GROUP_H

#include "carbide/job.h"

CB_EXTERN_C_BEGIN

/**
 * Groups rows by keys and reckons with each group. Zero-initialise, set struct_size and what is
 * wanted. All pointers are borrowed until cb_group_create returns.
 *
 * The result has the key columns as they stand in the first row of each group, then a column for
 * each aggregate; its rows are in the order in which groups first appear in the input. It is the
 * same, bit for bit, at any budget and with any number of threads. (Source of semantics: SQL's
 * GROUP BY; missing values do not count.)
 */
typedef struct cb_group_options {
    size_t struct_size;
    cb_job_options job;
    /**
     * Columns by name or, where none is called so, by number: "carrier", "2"; with a type when
     * values that are written differently are to be the same ("price:num"; types as in
     * cb_sort_options). None: one group.
     */
    const char *const *keys;
    size_t key_count;
    /**
     * `[NAME=]FUNCTION(COLUMN[:TYPE])`: count() count(x) sum mean min max var sd varp sdp median
     * p95 p99.9 countdistinct approxdistinct first last mode collect top3 bottom3, corr(x,y),
     * argmax(COLUMN,BY), argmin(row,BY). Types: num (exact decimals; what reckons and compares has
     * it unless said otherwise), float (doubles of any exponent, inf, nan: summed exactly, rounded
     * once) and str. Sums and means are exact; a result that 128 bits do not
     * hold is CB_EDATA, as is what is no number where one is wanted.
     */
    const char *const *aggregates;
    size_t aggregate_count;
    bool sorted_output;    /**< by key instead of by first appearance */
    const char *null_text; /**< values written so ("NA") are missing, as empty ones are, for
                              aggregates; NULL = empty ones only */
} cb_group_options;

typedef struct cb_group cb_group;

/** Checks the options, opens nothing. CB_EINVAL with the reason. Owned by the caller,
 * cb_group_destroy frees it. */
CB_API CB_MUST_USE cb_status cb_group_create(const cb_group_options *options, cb_group **group,
                                             cb_error *err);
/** Opens the inputs, samples, plans; changes nothing on disk. Blocks for the sampling. Streams are
 * not read. Instead of a run, once an object. CB_ENOSPC, CB_EBUDGET: *plan says what is known. */
CB_API CB_MUST_USE cb_status cb_group_explain(cb_group *group, cb_job_plan *plan, cb_error *err);

/**
 * Does the work; blocks until it is done, failed or cancelled. Once an object. Failure leaves the
 * output as it was and nothing behind. CB_EBUDGET: err->bytes_had is the smallest budget that will
 * do. CB_ENOSPC: temporary space. CB_EDATA: malformed rows, values that are no numbers.
 */
CB_API CB_MUST_USE cb_status cb_group_run(cb_group *group, cb_error *err);
/** Any thread, while it runs and after. */
CB_API void cb_group_progress(const cb_group *group, cb_progress *progress);
/** Any thread, not a signal handler: the run ends soon with CB_ECANCELED. */
CB_API void cb_group_cancel(cb_group *group);
/** After the run. */
CB_API void cb_group_get_stats(const cb_group *group, cb_job_stats *stats);
/** The memory tree as text, as much as fits. */
CB_API void cb_group_memory_tree(const cb_group *group, char *text, size_t bytes);
/** As cb_sort_figures. */
CB_API void cb_group_figures(const cb_group *group, cb_figures *figures);
/** NULL is fine. Not while it runs. */
CB_API void cb_group_destroy(cb_group *group);

CB_EXTERN_C_END

#endif
