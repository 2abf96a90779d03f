/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_TICKER_H
#define CLI_TICKER_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "carbide/monitor.h"
#include "carbide/sort.h"
#include "cli.h"
#include "sort_args.h"

/** The work that is watched: an object of the library and what can be done with it. */
typedef struct cli_work {
    void *object;
    cb_status (*run)(void *object, cb_error *err);
    void (*progress)(const void *object, cb_progress *progress);
    void (*cancel)(void *object);
    void (*memory_tree)(const void *object, char *text, size_t bytes);
    void (*destroy)(void *object);
    cb_status (*explain)(void *object, cb_sort_plan *plan, cb_error *err); /* NULL: a sort's own */
    void (*figures)(const void *object, cb_figures *figures);
    cb_status_page *page; /* of --status; NULL: nobody watches from outside */
    const char *what;
} cli_work;

/**
 * The thread beside a running sort: takes the signals (all are blocked in every other thread) and
 * tells how far the work is. It allocates nothing.
 */
typedef struct cli_ticker {
    const cli_work *work;  /* borrowed */
    sigset_t waited;       /* what the thread takes */
    cli_progress progress; /* resolved: ALWAYS (lines), AUTO (one line redrawn), NEVER, JSON */
    bool colour, erase_to_end;
    bool streams; /* an input may keep its reader waiting for ever */
    bool drawn;
    unsigned width_drawn;
    uint64_t ticks;
    uint64_t rate_ns, rate_bytes; /* the last sample of the rate */
    double rate;
    cb_phase rate_phase;
    unsigned ticks_cancelled;
    atomic_int signal; /* that ended the work, or 0 */
    pthread_t thread;
    bool running;
} cli_ticker;

/** Blocks the signals of the work; before any thread is started. `before` is for
 * cli_signals_restore. */
void cli_signals_block(sigset_t *before);
void cli_signals_restore(const sigset_t *before);
/** Ends the process as that signal would have (cores and shells see it). Does not return. */
_Noreturn void cli_signals_die(int signal_number);
/** Is that signal still on its default? (A parent may have chosen to have it ignored.) */
bool cli_signals_is_default(int signal_number);

/** Starts the thread; false when the system refuses one: nobody takes the signals then, and nothing
 * is told. `quiet`: nothing by itself on a terminal. */
bool cli_ticker_start(cli_ticker *ticker, const cli_work *work, cli_progress progress, bool quiet,
                      bool streams);
/** Runs the work with a ticker beside it. A signal that ended it ends the process, after `destroy`.
 * Signals must be blocked (`before` is what they were). */
cb_status cli_ticker_watch(const cli_work *work, cli_progress progress, bool quiet, bool streams,
                           const sigset_t *before, cb_error *err);
/** Ends the thread and erases the line; answers the signal that cancelled the work, or 0. */
int cli_ticker_stop(cli_ticker *ticker);

#endif
