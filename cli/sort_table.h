/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_SORT_TABLE_H
#define CLI_SORT_TABLE_H

/** What the options of `carbide sort` are called inside; ordering options are called by their
 * letter. */
enum {
    SORT_KEY = 256,
    SORT_SEPARATOR,
    SORT_REVERSE,
    SORT_UNIQUE,
    SORT_STABLE,
    SORT_RANDOM_SOURCE,
    SORT_SORT,
    SORT_CHECK,
    SORT_CHECK_QUIET,
    SORT_MERGE,
    SORT_OUTPUT,
    SORT_FORMAT,
    SORT_HEADER,
    SORT_NO_HEADER,
    SORT_ZERO,
    SORT_BAD_ROWS,
    SORT_FILES0_FROM,
    SORT_MEMORY,
    SORT_THREADS,
    SORT_TEMP,
    SORT_TEMP_LIMIT,
    SORT_CODEC,
    SORT_BATCH_SIZE,
    SORT_COMPRESS_PROGRAM,
    SORT_EXPLAIN,
    SORT_PROGRESS,
    SORT_STATS,
    SORT_STATUS,
    SORT_QUIET,
    SORT_VERBOSE,
    SORT_DEBUG,
    SORT_GNU,
    SORT_HELP,
    SORT_VERSION
};

#endif
