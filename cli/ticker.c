/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals are waited for, not handled: they are blocked everywhere, and one small thread sits in
 * sigtimedwait, whose timeout is the tick of the progress line. So nothing runs inside a handler,
 * and no system call of the workers is ever interrupted.
 *
 * The price: a worker that waits for a pipe or a terminal is not woken by ^C either. The sort is
 * told to stop, and when it has not within a second and an input is a stream (or the signal comes a
 * second time), the process ends as the signal would have ended it. Temporary files have no names
 * then, and the output has not taken its place yet, so nothing is left behind.
 */
#include "ticker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES ((size_t)512 * 1024)
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define STACK_BYTES ((size_t)512 * 1024)
#endif
#endif
#ifndef STACK_BYTES
#define STACK_BYTES ((size_t)64 * 1024)
#endif

enum { TICK_MS = 200, TICKS_A_SECOND = 1000 / TICK_MS, TREE_BYTES = 8 * 1024, LINE_BYTES = 512 };

static const int ending[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

bool cli_signals_is_default(int signal_number) {
    struct sigaction action;
    return sigaction(signal_number, NULL, &action) == 0 && action.sa_handler == SIG_DFL;
}

static int stop_signal(void) {
    return SIGRTMIN; /* never comes from outside by accident */
}

void cli_signals_block(sigset_t *before) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGXFSZ, &ignore, NULL); /* writes fail with EFBIG and say so */
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < CLI_COUNT(ending); i++)
        sigaddset(&set, ending[i]);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGPIPE); /* writes fail with EPIPE; the end is told by cli_signals_die */
    sigaddset(&set, stop_signal());
    (void)pthread_sigmask(SIG_BLOCK, &set, before);
}

void cli_signals_restore(const sigset_t *before) {
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGUSR1, &ignore, NULL); /* a question that came too late ends nothing */
    /* One that came too late to be taken would end the process now, after the work; there is
     * nothing to lose. */
    (void)pthread_sigmask(SIG_SETMASK, before, NULL);
}

_Noreturn void cli_signals_die(int signal_number) {
    struct sigaction fallback = {.sa_handler = SIG_DFL};
    sigset_t set;
    (void)sigaction(signal_number, &fallback, NULL);
    sigemptyset(&set);
    sigaddset(&set, signal_number);
    (void)kill(getpid(), signal_number);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    _exit(128 + signal_number);
}

static const char *phase_name(cb_phase phase) {
    switch (phase) {
        case CB_PHASE_START: return "start";
        case CB_PHASE_SAMPLE: return "sample";
        case CB_PHASE_READ: return "read";
        case CB_PHASE_MERGE: return "merge";
        case CB_PHASE_WRITE: return "write";
        case CB_PHASE_DONE:
        default: return "done";
    }
}

/** Bytes a second of what the phase moves, over about the last second. */
static void sample_rate(cli_ticker *t, const cb_progress *p) {
    uint64_t bytes =
        p->phase == CB_PHASE_WRITE || p->phase == CB_PHASE_DONE ? p->bytes_out : p->bytes_in;
    if (p->phase != t->rate_phase || bytes < t->rate_bytes) {
        t->rate_phase = p->phase;
        t->rate_bytes = bytes;
        t->rate_ns = p->elapsed_ns;
        t->rate = 0;
        return;
    }
    uint64_t ns = p->elapsed_ns - t->rate_ns;
    if (p->elapsed_ns <= t->rate_ns || ns < UINT64_C(150000000))
        return;
    double now = (double)(bytes - t->rate_bytes) * 1e9 / (double)ns;
    t->rate = t->rate > 0 ? 0.7 * t->rate + 0.3 * now : now;
    t->rate_bytes = bytes;
    t->rate_ns = p->elapsed_ns;
}

/** Nanoseconds left, or 0 when that cannot be said yet. */
static uint64_t time_left(const cb_progress *p) {
    if (p->fraction < 0.02 || p->fraction > 1 || p->elapsed_ns == 0)
        return 0;
    return (uint64_t)((double)p->elapsed_ns * (1 - p->fraction) / p->fraction);
}

/** "write  62% | 812 MiB/s | spilled 1.2 GiB | 3 s left", dropping what does not fit from the
 * right. */
static void line_text(const cli_ticker *t, const cb_progress *p, cli_text *out, unsigned width) {
    char figure[CLI_FIGURE_MAX];
    char part[64];
    cli_text_add(out, "%-6s", phase_name(p->phase));
    if (p->fraction >= 0)
        cli_text_add(out, " %3d%%", (int)(p->fraction * 100));
    for (int i = 0; i < 4; i++) {
        part[0] = '\0';
        if (i == 0 && t->rate > 0)
            snprintf(part, sizeof part, " | %s/s", cli_size_text((uint64_t)t->rate, figure));
        else if (i == 1 && time_left(p) >= UINT64_C(500000000))
            snprintf(part, sizeof part, " | %s left", cli_time_text(time_left(p), figure));
        else if (i == 2 && p->spilled_bytes > 0)
            snprintf(part, sizeof part, " | spilled %s", cli_size_text(p->spilled_bytes, figure));
        else if (i == 3 && p->rows_in > 0)
            snprintf(part, sizeof part, " | %s rows", cli_count_text(p->rows_in, figure));
        if (out->used + strlen(part) + 1 > width)
            break;
        cli_text_add(out, "%s", part);
    }
}

static void say_line(cli_ticker *t, const cb_progress *p) {
    char data[LINE_BYTES];
    cli_text out;
    cli_text_init(&out, data, sizeof data);
    cli_text_add(&out, "%s: ", cli_program);
    line_text(t, p, &out, 200);
    cli_text_add(&out, "\n");
    (void)cli_write_all(STDERR_FILENO, out.data, out.used);
}

static void erase(cli_ticker *t) {
    char data[LINE_BYTES];
    cli_text out;
    if (!t->drawn)
        return;
    cli_text_init(&out, data, sizeof data);
    if (t->erase_to_end)
        cli_text_add(&out, "\r\033[K");
    else
        cli_text_add(&out, "\r%*s\r", (int)t->width_drawn, "");
    (void)cli_write_all(STDERR_FILENO, out.data, out.used);
    t->drawn = false;
}

static void draw(cli_ticker *t, const cb_progress *p) {
    char text[LINE_BYTES], data[LINE_BYTES];
    cli_text line, out;
    struct winsize size = {0};
    unsigned width =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 8 ? size.ws_col : 80;
    width = width < 240 ? width : 240;
    cli_text_init(&line, text, sizeof text);
    line_text(t, p, &line, width);
    if (line.used >= width) {
        line.used = width - 1;
        text[line.used] = '\0';
    }
    cli_text_init(&out, data, sizeof data);
    size_t first = strcspn(text, " ");
    if (t->colour)
        cli_text_add(&out, "\r\033[1m%.*s\033[0m%s", (int)first, text, text + first);
    else
        cli_text_add(&out, "\r%s", text);
    if (t->erase_to_end)
        cli_text_add(&out, "\033[K");
    else if (line.used < t->width_drawn)
        cli_text_add(&out, "%*s", (int)(t->width_drawn - (unsigned)line.used), "");
    (void)cli_write_all(STDERR_FILENO, out.data, out.used);
    t->width_drawn = (unsigned)line.used;
    t->drawn = true;
}

static void say_json(const cli_ticker *t, const cb_progress *p) {
    char data[1024];
    cli_text json;
    cli_text_init(&json, data, sizeof data);
    cli_json_open(&json, NULL, '{');
    cli_json_string(&json, "event", "progress");
    cli_json_string(&json, "phase", phase_name(p->phase));
    if (p->fraction >= 0)
        cli_json_real(&json, "fraction", p->fraction, 4);
    else
        cli_json_null(&json, "fraction");
    cli_json_real(&json, "elapsed_s", (double)p->elapsed_ns / 1e9, 3);
    if (time_left(p) > 0)
        cli_json_real(&json, "left_s", (double)time_left(p) / 1e9, 3);
    else
        cli_json_null(&json, "left_s");
    cli_json_uint(&json, "bytes_in", p->bytes_in);
    cli_json_uint(&json, "bytes_in_total", p->bytes_in_total);
    cli_json_uint(&json, "bytes_out", p->bytes_out);
    cli_json_uint(&json, "bytes_out_total", p->bytes_out_total);
    cli_json_uint(&json, "rows_in", p->rows_in);
    cli_json_uint(&json, "spilled_bytes", p->spilled_bytes);
    cli_json_real(&json, "rate_bytes_s", t->rate, 0);
    cli_json_close(&json, '}');
    cli_text_add(&json, "\n");
    (void)cli_write_all(STDERR_FILENO, json.data, json.used);
}

static void look(cli_ticker *t, cb_progress *p) {
    *p = (cb_progress){.struct_size = sizeof *p};
    t->work->progress(t->work->object, p);
    sample_rate(t, p);
}

/** For carbide top. */
static void publish(const cli_work *work) {
    static cb_figures figures;
    if (work->page == NULL)
        return;
    memset(&figures, 0, sizeof figures);
    (void)snprintf(figures.what, sizeof figures.what, "%s", work->what);
    work->figures(work->object, &figures);
    if (cb_status_page_publish(work->page, &figures, NULL) != CB_OK)
        return; /* nothing depends on it */
}

static void tick(cli_ticker *t) {
    publish(t->work);
    cb_progress p;
    uint64_t n = t->ticks++;
    if (t->progress == CLI_PROGRESS_NEVER)
        return;
    look(t, &p);
    if (t->progress == CLI_PROGRESS_AUTO)
        draw(t, &p);
    else if (n % TICKS_A_SECOND != 0)
        return;
    else if (t->progress == CLI_PROGRESS_JSON)
        say_json(t, &p);
    else
        say_line(t, &p);
}

/** On SIGUSR1: where the work is and who holds the memory. */
static void answer_question(cli_ticker *t) {
    static char tree[TREE_BYTES];
    cb_progress p;
    erase(t);
    look(t, &p);
    if (t->progress == CLI_PROGRESS_JSON)
        say_json(t, &p);
    else
        say_line(t, &p);
    tree[0] = '\0';
    t->work->memory_tree(t->work->object, tree, sizeof tree);
    (void)cli_write_all(STDERR_FILENO, tree, strlen(tree));
}

static void take_ending(cli_ticker *t, int number) {
    if (atomic_load(&t->signal) != 0) {
        if (t->ticks_cancelled >= TICKS_A_SECOND) {
            erase(t);
            cli_signals_die(number);
        }
        return; /* an impatient second one in the same second: the end is on its way */
    }
    atomic_store(&t->signal, number);
    t->work->cancel(t->work->object);
}

static void watch_cancelled(cli_ticker *t) {
    int number = atomic_load(&t->signal);
    if (number == 0 || ++t->ticks_cancelled <= TICKS_A_SECOND || !t->streams)
        return;
    erase(t);
    cli_signals_die(number);
}

static void *ticker_main(void *ctx) {
    cli_ticker *t = ctx;
    const struct timespec timeout = {.tv_nsec = TICK_MS * 1000000L};
    for (;;) {
        int number = sigtimedwait(&t->waited, NULL, &timeout);
        if (number == stop_signal())
            break;
        if (number == SIGUSR1) {
            answer_question(t);
        } else if (number > 0) {
            take_ending(t, number);
        } else if (errno == EAGAIN) {
            watch_cancelled(t);
            tick(t);
        }
    }
    return NULL;
}

static cli_progress resolve(cli_progress wanted, bool quiet, bool terminal) {
    if (wanted == CLI_PROGRESS_JSON || wanted == CLI_PROGRESS_NEVER)
        return wanted;
    if (wanted == CLI_PROGRESS_ALWAYS)
        return terminal ? CLI_PROGRESS_AUTO : CLI_PROGRESS_ALWAYS;
    return terminal && !quiet ? CLI_PROGRESS_AUTO : CLI_PROGRESS_NEVER;
}

bool cli_ticker_start(cli_ticker *t, const cli_work *work, cli_progress progress, bool quiet,
                      bool streams) {
    const char *term = getenv("TERM");
    const char *no_colour = getenv("NO_COLOR");
    pthread_attr_t attributes;
    *t = (cli_ticker){.work = work, .streams = streams};
    t->progress = resolve(progress, quiet, isatty(STDERR_FILENO) == 1);
    t->erase_to_end = term != NULL && strcmp(term, "dumb") != 0;
    t->colour = t->erase_to_end && (no_colour == NULL || no_colour[0] == '\0');
    sigemptyset(&t->waited);
    for (size_t i = 0; i < CLI_COUNT(ending); i++)
        if (cli_signals_is_default(ending[i])) /* nohup stays nohup */
            sigaddset(&t->waited, ending[i]);
    sigaddset(&t->waited, SIGUSR1);
    sigaddset(&t->waited, stop_signal());

    if (pthread_attr_init(&attributes) != 0)
        return false;
    if (pthread_attr_setstacksize(&attributes, STACK_BYTES) == 0)
        t->running = pthread_create(&t->thread, &attributes, ticker_main, t) == 0;
    (void)pthread_attr_destroy(&attributes);
    return t->running;
}

int cli_ticker_stop(cli_ticker *t) {
    if (!t->running)
        return 0;
    (void)pthread_kill(t->thread, stop_signal());
    (void)pthread_join(t->thread, NULL);
    t->running = false;
    erase(t);
    if (t->progress == CLI_PROGRESS_JSON) {
        cb_progress p;
        look(t, &p);
        say_json(t, &p);
    }
    return atomic_load(&t->signal);
}

cb_status cli_ticker_watch(const cli_work *work, cli_progress progress, bool quiet, bool streams,
                           const sigset_t *before, cb_error *err) {
    cli_ticker ticker;
    if (!cli_ticker_start(&ticker, work, progress, quiet, streams))
        cli_signals_restore(before); /* then they end the process as they always did */
    cb_status status = work->run(work->object, err);
    int number = cli_ticker_stop(&ticker);
    if (number == 0 && status == CB_EIO && err->sys_errno == EPIPE &&
        cli_signals_is_default(SIGPIPE))
        number = SIGPIPE;                 /* the reader has gone: a filter ends with it, quietly */
    if (number != 0 && status != CB_OK) { /* one that came too late changes nothing */
        cb_status_page_destroy(work->page);
        work->destroy(work->object);
        cli_signals_die(number);
    }
    return status;
}
