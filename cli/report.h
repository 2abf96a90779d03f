/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include "carbide/sort.h"
#include "cli.h"
#include "sort_args.h"

/** One line to standard error: what was promised, and what was taken. */
void cli_report_truth(const cb_sort_stats *stats);
/** The plan to standard output. */
int cli_report_plan(const cb_sort_plan *plan);
/**
 * JSON to where --stats points: options, plan or stats (either may be NULL), status. Answers the
 * exit code, with a message when the file could not be written.
 */
int cli_report_stats(const cli_sort_args *args, const cb_sort_plan *plan,
                     const cb_sort_stats *stats, cb_status status, const char *message);

/** The same for the other verbs: their figures alone. `path` NULL: standard error. */
int cli_report_job(const char *verb, const char *path, const cb_sort_stats *stats,
                   const char *extra_name, uint64_t extra, cb_status status, const char *message);

#endif
