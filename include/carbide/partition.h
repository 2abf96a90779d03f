/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_PARTITION_H
#define CARBIDE_PARTITION_H

#include "carbide/job.h"

CB_EXTERN_C_BEGIN

/* The rows of the inputs into many files: one for each value of a key, or for each of N hash
 * values, or for each range between bounds. In each file rows keep the order of the input. */

typedef enum cb_partition_by {
    CB_PARTITION_VALUE = 0, /**< equal keys, one file */
    CB_PARTITION_HASH,      /**< `count` files by a hash of the key that is the same in every run */
    CB_PARTITION_RANGE      /**< below the first bound, from there to the second, ... */
} cb_partition_by;

/**
 * Takes a row of a target (without its line end; the header before its first row, when there is
 * one). `name` is what its file would be called; it and `row` are valid during the call. Rows of a
 * target come one after the other in input order, targets by key. Called by one thread at a time,
 * not always the same. Any status but CB_OK ends the work with that status and `err`.
 */
typedef cb_status (*cb_partition_write_fn)(void *ctx, const char *name, const void *row,
                                           size_t bytes, cb_error *err);

/** Zero-initialise, set struct_size and what is wanted. Pointers are borrowed until
 * cb_partition_create returns. */
typedef struct cb_partition_options {
    size_t struct_size;
    cb_job_options job; /**< inputs or read, format, budget; output and write are not used */
    cb_partition_write_fn write; /**< instead of files */
    void *write_ctx;
    cb_partition_by by;
    /** As for a sort; VALUE and RANGE need one at least (RANGE exactly one). HASH: none = the whole
     * row. */
    const char *const *keys;
    size_t key_count;
    uint32_t count;            /**< HASH: how many files at the most */
    const char *const *bounds; /**< RANGE: values of the key, ascending in its order */
    size_t bound_count;
    /**
     * The files' names. `{}` is the value (of several keys: each a folder in the one before), or
     * the number of the hash or range, with zeros before it; `{1}`, `{2}` ... and `{NAME}` are the
     * values of one key; `{{` and `}}` are braces. In values '/', '%', bytes below 0x21 and 0x7f
     * are written as % and two hexadecimal digits, so is a dot at the start: no value leads out of
     * its folder. An empty value is `%empty`. Long ones are cut and carry a hash. A name that ends
     * with .gz, .zst or .lz4 compresses. Missing folders are made. With `write` they are names
     * only, and NULL is `{}`.
     */
    const char *name_template;
} cb_partition_options;

typedef struct cb_partition cb_partition;

/** What a finished (or failed) run did. */
typedef struct cb_partition_stats {
    size_t struct_size;
    cb_job_stats job;
    uint64_t files;
} cb_partition_stats;

/** Checks the options, opens nothing yet. CB_EINVAL with the reason. cb_partition_destroy frees it.
 */
CB_API CB_MUST_USE cb_status cb_partition_create(const cb_partition_options *options,
                                                 cb_partition **partition, cb_error *err);

/** Opens the inputs, samples, plans; changes nothing on disk. Blocks for the sampling. Streams are
 * not read. Instead of a run, once an object. CB_ENOSPC, CB_EBUDGET: *plan says what is known. */
CB_API CB_MUST_USE cb_status cb_partition_explain(cb_partition *partition, cb_job_plan *plan,
                                                  cb_error *err);

/**
 * Does the work; blocks until it is done, failed or cancelled. Once per object. All files are
 * written to a private folder beside their places first and get their names when all are whole; one
 * that is there already is replaced. Failure before that leaves nothing behind; failure while names
 * are given (CB_EIO) says so. CB_EINVAL: two different values want the same name. With `write`:
 * what has been given away stays so, and names are not compared.
 */
CB_API CB_MUST_USE cb_status cb_partition_run(cb_partition *partition, cb_error *err);

/** Any thread, while cb_partition_run runs and after. */
CB_API void cb_partition_progress(const cb_partition *partition, cb_progress *progress);
/** Any thread, not a signal handler: the run ends soon with CB_ECANCELED. */
CB_API void cb_partition_cancel(cb_partition *partition);
/** After cb_partition_run. */
CB_API void cb_partition_get_stats(const cb_partition *partition, cb_partition_stats *stats);
/** As cb_sort_memory_tree. */
CB_API void cb_partition_memory_tree(const cb_partition *partition, char *text, size_t bytes);
/** As cb_sort_figures. */
CB_API void cb_partition_figures(const cb_partition *partition, cb_figures *figures);
/** NULL is fine. Not while cb_partition_run runs. */
CB_API void cb_partition_destroy(cb_partition *partition);

CB_EXTERN_C_END

#endif
