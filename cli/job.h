/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_JOB_H
#define CLI_JOB_H

#include "carbide/job.h"
#include "options.h"
#include "ticker.h"

/*
 * What the verbs besides sort have in common: options of files, memory and messages, and the way a
 * run is watched, reported and ended.
 */

/** Ids of the options below; a verb's own are less. */
enum {
    CLI_JOB_FIRST = 1000,
    CLI_JOB_OUTPUT,
    CLI_JOB_FORMAT,
    CLI_JOB_SEPARATOR,
    CLI_JOB_HEADER,
    CLI_JOB_NO_HEADER,
    CLI_JOB_ZERO,
    CLI_JOB_BAD_ROWS,
    CLI_JOB_MEMORY,
    CLI_JOB_THREADS,
    CLI_JOB_TEMP,
    CLI_JOB_TEMP_LIMIT,
    CLI_JOB_CODEC,
    CLI_JOB_PROGRESS,
    CLI_JOB_STATS,
    CLI_JOB_STATUS,
    CLI_JOB_EXPLAIN,
    CLI_JOB_QUIET,
    CLI_JOB_VERBOSE,
    CLI_JOB_HELP
};

/** For a verb's table of groups. A verb without one output leaves CLI_JOB_OUTPUT_GROUP out. */
enum { CLI_JOB_OUTPUTS = 1, CLI_JOB_FILES = 6, CLI_JOB_RESOURCES = 5, CLI_JOB_TELLING = 7 };
extern const cli_option cli_job_output[CLI_JOB_OUTPUTS];
extern const cli_option cli_job_files[CLI_JOB_FILES];
extern const cli_option cli_job_resources[CLI_JOB_RESOURCES];
extern const cli_option cli_job_telling[CLI_JOB_TELLING];
#define CLI_JOB_OUTPUT_GROUP {"Output", cli_job_output, CLI_JOB_OUTPUTS}
#define CLI_JOB_GROUPS                                                                             \
    {"Files and formats", cli_job_files, CLI_JOB_FILES},                                           \
        {"Memory, threads, temporary files", cli_job_resources, CLI_JOB_RESOURCES}, {              \
        "What is told", cli_job_telling, CLI_JOB_TELLING                                           \
    }
/** The end of every verb's notes. */
#define CLI_JOB_NOTES                                                                              \
    "Exit codes: 0 done; 2 usage, input or output; 3 malformed data; 4 no temporary space; 5 "     \
    "budget\ntoo small (the smallest that will do is named); 128+n on signal n.\n"                 \
    "\n"                                                                                           \
    "Environment: CARBIDE_MEMORY (as --memory), CARBIDE_TMPDIR, TMPDIR, NO_COLOR, "                \
    "POSIXLY_CORRECT."

typedef struct cli_job {
    const cli_verb *verb;
    cb_job_options options; /* pointers lead into argv and the arrays below */
    cli_progress progress;
    bool quiet, verbose, stats, explain;
    const char *stats_path, *status_path;
    const char *memory, *memory_seen;
    const char **temp_dirs;
} cli_job;

enum { CLI_GO_ON = -1, CLI_NOT_MINE = 256 };

/** CLI_GO_ON, or an exit code after a message. Fini is due in any case. */
int cli_job_init(cli_job *job, const cli_verb *verb, int argc);
/** Takes one of the options above; CLI_NOT_MINE: it is none of them. */
int cli_job_take(cli_job *job, int id, const char *seen, const char *value);
/** After the last option: the budget, the inputs. */
int cli_job_finish(cli_job *job, const char *const *inputs, size_t count);
void cli_job_fini(cli_job *job);

/** A byte for --field-separator; CLI_GO_ON or an exit code after a message. */
int cli_job_separator(const cli_job *job, const char *value, unsigned char *byte);

typedef cb_status (*cli_create_fn)(const void *options, void **object, cb_error *err);
typedef void (*cli_stats_fn)(const void *object, cb_job_stats *stats, const char **extra_name,
                             uint64_t *extra);
/** Creates, runs, reports, destroys. Answers the exit code. work.object is set here. */
int cli_job_run(const cli_job *job, const void *options, cli_create_fn create, cli_work work,
                cli_stats_fn stats);

#endif
