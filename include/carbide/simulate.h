/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_SIMULATE_H
#define CARBIDE_SIMULATE_H

#include <stdbool.h>
#include <stddef.h>

#include "carbide/status.h"

CB_EXTERN_C_BEGIN

/*
 * What the memory managers do with a trace of calls. A trace is text, one operation a line:
 * carbide-simulate(1) describes it. The answers are those of Spark 4.2's UnifiedMemoryManager, of
 * Spark 2.4.8's StaticMemoryManager and of Flink 1.9.3's MemoryManager, line by line; what answers
 * is the code that carbide's own managers and segment pools run on, under SPARK rules, driven
 * without threads. Blocks claim their size only, so a trace may speak of terabytes.
 *
 * One simulation is one thread's at a time.
 */

typedef struct cb_simulation cb_simulation;

/** Zero-initialise, set struct_size and what is wanted. */
typedef struct cb_simulation_options {
    size_t struct_size;
    bool summary; /**< cb_simulation_summary will be asked for */
    bool picture; /**< cb_simulation_picture will be asked for */
} cb_simulation_options;

/** Owned by the caller. CB_EINVAL, CB_ENOMEM. */
CB_API CB_MUST_USE cb_status cb_simulation_create(const cb_simulation_options *options,
                                                  cb_simulation **simulation, cb_error *err);

/** NULL is fine. */
CB_API void cb_simulation_destroy(cb_simulation *simulation);

/**
 * Runs the next line of the trace; `line` has no line feed at its end. *answer is the line that
 * answers it, terminated by '\0' and without a line feed, borrowed until the next call; NULL when
 * there was no operation (blank, comment). CB_EDATA: the line cannot be read, and `err` says
 * "LINE:COLUMN: why"; the line counts, nothing else has happened. CB_ENOMEM: the simulation can
 * only be destroyed.
 */
CB_API CB_MUST_USE cb_status cb_simulation_line(cb_simulation *simulation, const char *line,
                                                size_t bytes, const char **answer, cb_error *err);

/**
 * What was granted, refused, evicted and waited for in each part of the trace (a `config` begins
 * one), and the smallest settings that would have avoided it: lines that begin with "# ", so that
 * they may follow the answers. The text is borrowed until the next call. CB_EINVAL without the
 * option.
 */
CB_API CB_MUST_USE cb_status cb_simulation_summary(cb_simulation *simulation, const char **text,
                                                   cb_error *err);

/** An SVG picture of the pools over the trace. As cb_simulation_summary. */
CB_API CB_MUST_USE cb_status cb_simulation_picture(cb_simulation *simulation, const char *title,
                                                   const char **text, cb_error *err);

CB_EXTERN_C_END

#endif
