/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_TICKER_H
#define CLI_TICKER_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "carbide/sort.h"
#include "cli.h"
#include "sort_args.h"

/**
 * The thread beside a running sort: takes the signals (all are blocked in every other thread) and
 * tells how far the work is. It allocates nothing.
 */
typedef struct cli_ticker {
    cb_sort *sort;         /* borrowed */
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
 * is told. */
bool cli_ticker_start(cli_ticker *ticker, cb_sort *sort, const cli_sort_args *args, bool streams);
/** Ends the thread and erases the line; answers the signal that cancelled the work, or 0. */
int cli_ticker_stop(cli_ticker *ticker);

#endif
