/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_SORT_H
#define CARBIDE_SORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "carbide/monitor.h"
#include "carbide/status.h"

CB_EXTERN_C_BEGIN

/** What the bytes of the inputs are. AUTO goes by the first input's name (.csv, .tsv, lines
 * otherwise). */
typedef enum cb_format_kind {
    CB_FORMAT_AUTO = 0,
    CB_FORMAT_LINES, /**< rows end with LF (or NUL, see zero_terminated) */
    CB_FORMAT_CSV,  /**< RFC 4180: quoted fields may hold separators, quotes (doubled) and line ends
                     */
    CB_FORMAT_TSV,  /**< fields end with TAB, no quoting; backslash sequences are not interpreted */
    CB_FORMAT_FIXED /**< every record has record_bytes bytes */
} cb_format_kind;

typedef enum cb_codec {
    CB_CODEC_AUTO = 0, /**< what gets the work done sooner, by measuring */
    CB_CODEC_NONE,
    CB_CODEC_LZ4,
    CB_CODEC_DELTA, /**< what the byte before and the row above tell is left out: padding and
                     * columns, at memory speed
                     */
    CB_CODEC_NIBBLE /**< half a byte for the fifteen most frequent ones: numbers, at memory speed */
} cb_codec;

typedef enum cb_header { CB_HEADER_AUTO = 0, CB_HEADER_YES, CB_HEADER_NO } cb_header;

typedef enum cb_sort_action {
    CB_SORT_SORT = 0,
    CB_SORT_CHECK, /**< answers CB_EDISORDER with the place in the error's message */
    CB_SORT_MERGE  /**< each input is sorted already */
} cb_sort_action;

typedef enum cb_bad_rows { CB_BAD_ROWS_ERROR = 0, CB_BAD_ROWS_SKIP, CB_BAD_ROWS_FILE } cb_bad_rows;

/**
 * Everything a sort can be told. Zero-initialise, set struct_size, set what is wanted. All pointers
 * are borrowed until cb_sort_create returns (it copies).
 */
typedef struct cb_sort_options {
    size_t struct_size;
    cb_sort_action action;

    const char *const *inputs; /**< paths; "-" is standard input; none = standard input */
    size_t input_count;
    const char *output; /**< path; NULL or "-" is standard output. A file appears whole or not at
                           all; it may be an input */

    cb_format_kind format;
    size_t record_bytes; /**< CB_FORMAT_FIXED */
    cb_header header;    /**< first row stays on top; AUTO: yes for CSV and TSV */
    bool zero_terminated;
    cb_bad_rows bad_rows;
    const char *bad_rows_path; /**< CB_BAD_ROWS_FILE */

    /**
     * Keys, most significant first; none = the whole row. Each is `NAME[:TYPE][:OPTION]...` or a
     * GNU KEYDEF (begins with a digit), e.g. "price:num:desc", "2,2nr", "name=2:int". Types: str
     * num int float ver human month time u8 u16le u32le u64le i..le/be f32le f64be ... (@OFFSET for
     * fixed). Options: asc desc fold nulls=first nulls=last.
     */
    const char *const *keys;
    size_t key_count;
    const char *global_order; /**< GNU ordering letters for keys that have none and for the whole
                                 row: any of bdfgiMhnRrV; or NULL */
    int field_separator;      /**< -1 = the format's own (GNU: runs of blanks); else a byte */

    bool gnu;    /**< GNU sort's rules in the C locale: last-resort comparison, its messages */
    bool unique; /**< one row (the first in input order) of each set with equal keys */
    bool stable; /**< native sorts are stable anyway; for gnu: no last-resort comparison */

    uint64_t memory_bytes;  /**< budget of the whole process; 0 = auto */
    unsigned threads;       /**< 0 = one per usable CPU */
    size_t merge_width_max; /**< 0 = what the budget allows (GNU --batch-size) */
    const char *const
        *temp_dirs; /**< none: CARBIDE_TMPDIR, TMPDIR, else the output's folder, else /var/tmp */
    size_t temp_dir_count;
    uint64_t temp_limit_bytes; /**< 0 = what the disks have */
    cb_codec spill_codec;

    uint64_t baseline_bytes; /**< what the host process holds besides the sort; 0 = measure resident
                                memory at create */
    /** NULL: the budget is the process's. Otherwise the sort is a guest: what this manager's mode
     *  grants a task of its own, memory_bytes (which must be said) or less, is its budget; blocks
     *  give way for it as the manager's rules are. Taken when the sort is created, given back when
     *  it is destroyed; baseline_bytes 0 is 0 then. */
    cb_manager *manager;
} cb_sort_options;

/** What is expected before the work starts. */
typedef struct cb_sort_plan {
    size_t struct_size;
    uint64_t input_bytes;   /**< 0 = not known (streams) */
    uint64_t rows_estimate; /**< 0 = not known */
    uint64_t budget_bytes;
    uint64_t
        budget_min_bytes; /**< the smallest budget that will do for what is known of this input */
    uint64_t temp_bytes_estimate;
    uint64_t temp_bytes_free;
    uint32_t ranges;          /**< partitions by key range; 0 when runs are merged */
    uint32_t runs_estimate;   /**< sorted runs, when ranges cannot be sampled */
    uint32_t passes_estimate; /**< times a row is written to temporary files */
    uint32_t threads;
    size_t segment_bytes;
    bool in_memory;  /**< nothing is expected to spill */
    char method[64]; /**< "range partition", "runs and merge", "merge", "check" */
} cb_sort_plan;

typedef enum cb_phase {
    CB_PHASE_START = 0,
    CB_PHASE_SAMPLE,
    CB_PHASE_READ,  /**< rows are read and partitioned, or runs are made */
    CB_PHASE_MERGE, /**< an intermediate merge pass */
    CB_PHASE_WRITE, /**< ranges are ordered and written, or the last merge */
    CB_PHASE_DONE
} cb_phase;

/** A moment of a running sort. */
typedef struct cb_progress {
    size_t struct_size;
    cb_phase phase;
    uint64_t bytes_in, bytes_in_total; /**< total 0 = not known */
    uint64_t bytes_out, bytes_out_total;
    uint64_t rows_in;
    uint64_t spilled_bytes;
    uint64_t elapsed_ns;
    double fraction; /**< of the whole work, 0..1; negative when it cannot be known */
} cb_progress;

/** What a finished (or failed) sort did. */
typedef struct cb_sort_stats {
    size_t struct_size;
    uint64_t rows_in, rows_out, rows_bad;
    uint64_t bytes_in, bytes_out;
    uint64_t budget_bytes;
    uint64_t accounted_peak_bytes; /**< the ledger's highest figure: baseline, stacks, pages, small
                                      objects, codecs */
    uint64_t rss_peak_bytes;       /**< of the process, from the system */
    uint64_t spilled_bytes;        /**< rows' bytes handed to temporary files */
    uint64_t spilled_stored_bytes; /**< what they took there */
    uint32_t ranges, runs, passes;
    uint32_t threads;
    uint64_t elapsed_ns, sample_ns, read_ns, merge_ns, write_ns;
    const char *codec;               /**< "none", "delta", "lz4" (a constant) */
    bool direct_temp, direct_output; /**< direct I/O was used */
    uint32_t divided;                /**< partitions that did not fit and were divided once more */
} cb_sort_stats;

typedef struct cb_sort cb_sort;

/** Checks the options, opens nothing yet. CB_EINVAL with the reason; *sort is written on success
 * only. Owned by the caller, cb_sort_destroy frees it. */
CB_API CB_MUST_USE cb_status cb_sort_create(const cb_sort_options *options, cb_sort **sort,
                                            cb_error *err);

/** Opens the inputs, samples, plans; changes nothing on disk. Blocks for the sampling. Streams are
 * not read. The sort can be run afterwards, by this plan. CB_ENOSPC, CB_EBUDGET: *plan says what is
 * known. */
CB_API CB_MUST_USE cb_status cb_sort_explain(cb_sort *sort, cb_sort_plan *plan, cb_error *err);

/**
 * Does the work; blocks until it is done, failed or cancelled. Once per object. Failure leaves the
 * output as it was and nothing behind. CB_EBUDGET: err->bytes_had is the smallest budget that will
 * do. CB_ENOSPC: temporary space. CB_EDATA: malformed rows. CB_EDISORDER: check found disorder.
 */
CB_API CB_MUST_USE cb_status cb_sort_run(cb_sort *sort, cb_error *err);

/** Any thread, while cb_sort_run runs and after. May wait a moment while reads are being queued. */
CB_API void cb_sort_progress(const cb_sort *sort, cb_progress *progress);

/** Any thread, not a signal handler: the run ends soon with CB_ECANCELED. A read that waits for a
 * pipe's writer is not cut short. */
CB_API void cb_sort_cancel(cb_sort *sort);

/** After cb_sort_run. */
CB_API void cb_sort_get_stats(const cb_sort *sort, cb_sort_stats *stats);

/** The memory tree as text: budget -> task -> consumer, used, peak. As much as fits in `bytes`,
 * always terminated. */
CB_API void cb_sort_memory_tree(const cb_sort *sort, char *text, size_t bytes);

/** Where it stands and who holds its memory, for a status page (carbide/monitor.h). Any thread. */
CB_API void cb_sort_figures(const cb_sort *sort, cb_figures *figures);

/** NULL is fine. Not while cb_sort_run runs. */
CB_API void cb_sort_destroy(cb_sort *sort);

CB_EXTERN_C_END

#endif
