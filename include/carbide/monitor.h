/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_MONITOR_H
#define CARBIDE_MONITOR_H

#include "carbide/manager.h"
#include "carbide/store.h"

CB_EXTERN_C_BEGIN

/*
 * Figures of a running process for those who watch it: `carbide top` and monitoring. A process
 * publishes them in a file, its status page; others read it as often as they like, and neither
 * waits for the other. The page goes with its process; when that is killed, readers see that nobody
 * holds it any more.
 */

enum { CB_FIGURES_ROWS_MAX = 16, CB_FIGURES_NAME_MAX = 47 };

typedef struct cb_figures_row {
    char name[CB_FIGURES_NAME_MAX + 1];
    uint64_t bytes, peak;
} cb_figures_row;

typedef struct cb_figures_task {
    char name[CB_FIGURES_NAME_MAX + 1];
    uint64_t id, bytes, peak, spilled;
    bool waiting;
} cb_figures_task;

/** Blocks of one level, as they were put. */
typedef struct cb_figures_level {
    cb_level level; /**< flags only, one replica */
    uint64_t memory_blocks, memory_bytes, disk_blocks, disk_bytes;
} cb_figures_level;

/** A moment of a process. Zero-initialise; what is not collected is zero. */
typedef struct cb_figures {
    char what[CB_FIGURES_NAME_MAX + 1]; /**< "sort" ... */
    int64_t pid;
    uint64_t time_ns;    /**< of the monotonic clock, when they were published */
    uint64_t elapsed_ns; /**< since the work began; 0 = not known */
    double fraction;     /**< of the work that is done, 0..1; negative = not known */
    /* the budget tree */
    uint64_t budget, accounted, accounted_peak, debt;
    cb_pool_stats pools[2][CB_MODE_COUNT];  /**< [cb_region][cb_mode] */
    uint64_t storage_region[CB_MODE_COUNT]; /**< storage up to here is not evicted for execution */
    uint64_t unroll_bytes;
    uint64_t tasks, tasks_waiting;
    uint64_t spilled_bytes;
    uint32_t ledger_count, task_count, level_count; /**< rows below */
    cb_figures_row ledger[CB_FIGURES_ROWS_MAX];     /**< the largest */
    cb_figures_task task[CB_FIGURES_ROWS_MAX];      /**< those with the most bytes */
    /* blocks */
    bool has_blocks;
    cb_blocks_stats blocks;
    cb_figures_level levels[CB_FIGURES_ROWS_MAX];
} cb_figures;

/** Adds what a manager can tell. Any thread. */
CB_API void cb_manager_figures(const cb_manager *manager, cb_figures *figures);
/** Adds what a store can tell. Any thread. */
CB_API void cb_blocks_figures(cb_blocks *blocks, cb_figures *figures);

typedef struct cb_status_page cb_status_page;

/** A page at `path`, which is not there yet or is that of a process that died. CB_EEXISTS: it is
 *  something else, or its process lives. CB_EIO, CB_ENOMEM. */
CB_API CB_MUST_USE cb_status cb_status_page_create(const char *path, cb_status_page **page,
                                                   cb_error *err);
/** pid and time are filled in. One thread at a time. CB_EIO. */
CB_API CB_MUST_USE cb_status cb_status_page_publish(cb_status_page *page, const cb_figures *figures,
                                                    cb_error *err);
/** The file goes too. NULL is fine. */
CB_API void cb_status_page_destroy(cb_status_page *page);

/** What was published last; *alive: its process still holds the page. CB_ENOTFOUND: there is no
 *  such file; CB_EDATA: it is no status page, or nothing was published yet; CB_EIO. */
CB_API CB_MUST_USE cb_status cb_status_page_read(const char *path, cb_figures *figures, bool *alive,
                                                 cb_error *err);

typedef enum cb_figures_format { CB_FIGURES_JSON = 0, CB_FIGURES_OPENMETRICS } cb_figures_format;

/** As text: one JSON object and a line feed, or OpenMetrics with its end mark. As much as fits in
 *  `bytes`, terminated; answers the bytes that all of it takes, without the terminator. */
CB_API size_t cb_figures_write(const cb_figures *figures, cb_figures_format format, char *text,
                               size_t bytes);

CB_EXTERN_C_END

#endif
