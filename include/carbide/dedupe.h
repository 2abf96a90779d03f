/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_DEDUPE_H
#define CARBIDE_DEDUPE_H

#include "carbide/job.h"

CB_EXTERN_C_BEGIN

/** Which row of those with equal keys stays. */
typedef enum cb_keep {
    CB_KEEP_FIRST = 0, /**< in input order */
    CB_KEEP_LAST,
    CB_KEEP_NONE, /**< only rows whose key no other row has */
    CB_KEEP_MAX,  /**< the one with the largest value of keep_column; the first of several */
    CB_KEEP_MIN
} cb_keep;

/**
 * One row of each set with equal keys. Zero-initialise, set struct_size and what is wanted. All
 * pointers are borrowed until cb_dedupe_create returns. Rows stay as they are, and in the order in
 * which they stand in the input; the result is the same at any budget and with any number of
 * threads.
 */
typedef struct cb_dedupe_options {
    size_t struct_size;
    cb_job_options job;
    const char *const *keys; /**< as in cb_group_options; none: the whole row */
    size_t key_count;
    cb_keep keep;
    const char *keep_column; /**< `COLUMN[:TYPE]`, num (otherwise) or str; a missing value is
                                neither large nor small */
    bool counts;            /**< how many rows there were goes before each: a column of CSV and TSV,
                               a figure of seven places and a blank before lines */
    const char *duplicates; /**< a file for the rows that do not stay, in input order; or NULL. It
                               appears before the output does */
    bool sorted_output;     /**< by key instead of by place in the input */
    const char *null_text;  /**< as in cb_group_options, for keep_column */
} cb_dedupe_options;

typedef struct cb_dedupe cb_dedupe;

/** Checks the options, opens nothing. CB_EINVAL with the reason. Owned by the caller,
 * cb_dedupe_destroy frees it. */
CB_API CB_MUST_USE cb_status cb_dedupe_create(const cb_dedupe_options *options, cb_dedupe **dedupe,
                                              cb_error *err);
/** Opens the inputs, samples, plans; changes nothing on disk. Blocks for the sampling. Streams are
 * not read. Instead of a run, once an object. CB_ENOSPC, CB_EBUDGET: *plan says what is known. */
CB_API CB_MUST_USE cb_status cb_dedupe_explain(cb_dedupe *dedupe, cb_job_plan *plan, cb_error *err);

/**
 * Does the work; blocks until it is done, failed or cancelled. Once an object. Failure leaves the
 * output as it was. CB_EBUDGET: err->bytes_had is the smallest budget that will do. CB_ENOSPC:
 * temporary space. CB_EDATA: malformed rows, values of keep_column that are no numbers.
 */
CB_API CB_MUST_USE cb_status cb_dedupe_run(cb_dedupe *dedupe, cb_error *err);
/** Any thread, while it runs and after. */
CB_API void cb_dedupe_progress(const cb_dedupe *dedupe, cb_progress *progress);
/** Any thread, not a signal handler: the run ends soon with CB_ECANCELED. */
CB_API void cb_dedupe_cancel(cb_dedupe *dedupe);
/** After the run. */
CB_API void cb_dedupe_get_stats(const cb_dedupe *dedupe, cb_job_stats *stats);
/** The memory tree as text, as much as fits. */
CB_API void cb_dedupe_memory_tree(const cb_dedupe *dedupe, char *text, size_t bytes);
/** As cb_sort_figures. */
CB_API void cb_dedupe_figures(const cb_dedupe *dedupe, cb_figures *figures);
/** NULL is fine. Not while it runs. */
CB_API void cb_dedupe_destroy(cb_dedupe *dedupe);

CB_EXTERN_C_END

#endif
