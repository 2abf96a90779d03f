/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_JOB_H
#define CARBIDE_JOB_H

#include "carbide/sort.h"

CB_EXTERN_C_BEGIN

/*
 * What group, dedupe, join and partition have in common: where rows come from and go to, and what
 * they may take. A part of the options of each of them.
 */

/**
 * An iterator of rows. Answers the next row in *row and *bytes (without its line end; valid until
 * the next call), or *more = false at the end. Called by one thread at a time, not always the same.
 * Any status but CB_OK ends the work with that status and `err`.
 */
typedef cb_status (*cb_row_read_fn)(void *ctx, const void **row, size_t *bytes, bool *more,
                                    cb_error *err);

/** Takes a row of the result (without its line end; the header first, when there is one), in the
 * order of the result. Called by one thread at a time. */
typedef cb_status (*cb_row_write_fn)(void *ctx, const void *row, size_t bytes, cb_error *err);

/** Zero-initialise, set what is wanted. All pointers are borrowed until the object that takes them
 * is created (it copies); the contexts of iterators until it is destroyed. */
typedef struct cb_job_options {
    const char *const *inputs; /**< paths; "-" is standard input; none = standard input */
    size_t input_count;
    cb_row_read_fn read; /**< instead of inputs: rows as they would stand in a file of `format` */
    void *read_ctx;
    const char *output;    /**< path; NULL or "-" is standard output. A file appears whole or not at
                              all; it may be an input */
    cb_row_write_fn write; /**< instead of output */
    void *write_ctx;

    cb_format_kind format;
    size_t record_bytes; /**< CB_FORMAT_FIXED */
    cb_header header;    /**< AUTO: yes for CSV and TSV */
    bool zero_terminated;
    bool has_field_separator;      /**< field_separator is meant */
    unsigned char field_separator; /**< otherwise the format's own */
    cb_bad_rows bad_rows;
    const char *bad_rows_path; /**< CB_BAD_ROWS_FILE */

    uint64_t memory_bytes; /**< budget of the whole process; 0 = auto */
    unsigned threads;      /**< 0 = one per usable CPU */
    const char *const
        *temp_dirs; /**< none: CARBIDE_TMPDIR, TMPDIR, else the output's folder, else /var/tmp */
    size_t temp_dir_count;
    uint64_t temp_limit_bytes; /**< 0 = what the disks have */
    cb_codec spill_codec;
    uint64_t baseline_bytes; /**< what the host process holds besides; 0 = measure resident memory
                                at create */
} cb_job_options;

/** What a finished (or failed) run did: the figures of a sort. `ranges` are partitions; `runs` and
 * `passes` tell of partitions that did not fit. */
typedef cb_sort_stats cb_job_stats;

/** What is expected before the work starts, as for a sort. `ranges` are partitions;
 * temp_bytes_estimate is about the most: rows of few groups never leave. */
typedef cb_sort_plan cb_job_plan;

CB_EXTERN_C_END

#endif
