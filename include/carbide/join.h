/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_JOIN_H
#define CARBIDE_JOIN_H

#include "carbide/job.h"

CB_EXTERN_C_BEGIN

/*
 * Rows of two inputs whose keys are equal, side by side. Neither input need be sorted; keys may
 * come up any number of times on both sides, also more often than memory has room for. The result
 * is in the order of the left rows, and for one of them of the right rows; right rows without a
 * partner come last, in their order.
 */

typedef enum cb_join_how {
    CB_JOIN_INNER = 0,
    CB_JOIN_LEFT,       /**< and left rows without a partner */
    CB_JOIN_RIGHT,      /**< and right rows without a partner */
    CB_JOIN_FULL,       /**< both */
    CB_JOIN_SEMI,       /**< left rows that have a partner, once */
    CB_JOIN_ANTI,       /**< left rows that have none */
    CB_JOIN_ALONE,      /**< left rows that have none, and right rows that have none */
    CB_JOIN_ALONE_LEFT, /**< the left ones of these; as ANTI, but with columns of both */
    CB_JOIN_ALONE_RIGHT /**< the right ones */
} cb_join_how;

/** What is known of the order of the inputs. */
typedef enum cb_join_order {
    CB_JOIN_UNSORTED = 0,
    /** Both are in the order of their keys (as cb_sort would have them). Rows stream through, and
     * only the right rows of one key are kept; the result is in the order of keys, rows without a
     * partner included. CB_EDISORDER names the row at which it is not true. */
    CB_JOIN_SORTED,
    CB_JOIN_SORTED_UNCHECKED /**< the same, and nobody looks: rows out of order lack partners */
} cb_join_order;

/** Zero-initialise, set struct_size and what is wanted. Pointers are borrowed until cb_join_create
 * returns. */
typedef struct cb_join_options {
    size_t struct_size;
    /** inputs: left and right, both with columns (CSV, TSV), less those that are iterators. AUTO
     * goes by the name of each; rows of iterators need a format. The output has the format of the
     * left one. */
    cb_job_options job;        /**< read: the left's rows, instead of a path */
    cb_row_read_fn right_read; /**< the right's, likewise. First rows are asked of both; then the
                                  right is read to its end, or with `order` both in turns */
    void *right_read_ctx;
    cb_join_how how;
    /** As for a sort: NAME[:TYPE][:OPTION]... The types of both sides must be the same; directions
     * have no meaning. right_keys NULL: as left_keys. */
    const char *const *left_keys;
    const char *const *right_keys;
    size_t key_count;
    /**
     * The columns of the result: NAME, left.NAME, right.NAME (or 1.N, 2.N by number); a NAME that
     * both have is the left one's. None: all of the left, then those of the right that are not
     * keys. A key column of the left has the right's value where the left row is missing.
     */
    const char *const *columns;
    size_t column_count;
    bool keys_first;       /**< without columns: the keys, the left's other columns, the right's; in
                              columns       0 is the key, and 1.N is the left's alone (GNU) */
    const char *suffix;    /**< of names from the right that the left has too; NULL = "_right" */
    bool match_nulls;      /**< empty keys (and those that cannot be read as their type) equal each
                              other;    otherwise they have no partner, as in SQL */
    const char *missing;   /**< stands in fields of a row that is missing; NULL = nothing */
    bool missing_if_empty; /**< and in empty fields of rows that are there (GNU) */
    bool whole_rows;       /**< with keys_first: rows alone have fields for the other side, too */
    cb_join_order order;
} cb_join_options;

typedef struct cb_join cb_join;

/** What a finished (or failed) run did. */
typedef struct cb_join_stats {
    size_t struct_size;
    cb_job_stats job;
    uint64_t rows_left, rows_right;
} cb_join_stats;

/** Checks the options, opens nothing yet. CB_EINVAL with the reason. cb_join_destroy frees it. */
CB_API CB_MUST_USE cb_status cb_join_create(const cb_join_options *options, cb_join **join,
                                            cb_error *err);

/** Opens the inputs, samples, plans; changes nothing on disk. Blocks for the sampling. Streams are
 * not read. Instead of a run, once an object. CB_ENOSPC, CB_EBUDGET: *plan says what is known. */
CB_API CB_MUST_USE cb_status cb_join_explain(cb_join *join, cb_job_plan *plan, cb_error *err);

/** Does the work; blocks until it is done, failed or cancelled. Once per object. As cb_sort_run. */
CB_API CB_MUST_USE cb_status cb_join_run(cb_join *join, cb_error *err);

/** Any thread, while cb_join_run runs and after. */
CB_API void cb_join_progress(const cb_join *join, cb_progress *progress);
/** Any thread, not a signal handler: the run ends soon with CB_ECANCELED. */
CB_API void cb_join_cancel(cb_join *join);
/** After cb_join_run. */
CB_API void cb_join_get_stats(const cb_join *join, cb_join_stats *stats);
/** As cb_sort_memory_tree. */
CB_API void cb_join_memory_tree(const cb_join *join, char *text, size_t bytes);
/** As cb_sort_figures. */
CB_API void cb_join_figures(const cb_join *join, cb_figures *figures);
/** NULL is fine. Not while cb_join_run runs. */
CB_API void cb_join_destroy(cb_join *join);

CB_EXTERN_C_END

#endif
