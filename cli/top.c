/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `carbide top`: who holds the memory of a running process, from its status page. On a terminal it
 * is drawn again until q is pressed, as wide and high as the terminal is at that moment; elsewhere
 * it is written once, as many times as -n says, or as JSON or OpenMetrics.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "carbide/level.h"
#include "carbide/monitor.h"
#include "cli.h"
#include "frame.h"
#include "options.h"
#include "top_cluster.h"

enum { TOP_JSON = 1, TOP_OPENMETRICS, TOP_DIRECTORY, TOP_INTERVAL, TOP_COUNT, TOP_HELP };
enum { PATH_BYTES = 4096, WIDTH_PLAIN = 100, WIDTH_MAX = CLI_FRAME_WIDTH_MAX };

static const cli_option options[] = {
    {.id = TOP_JSON, .name = "json", .help = "one answer as JSON"},
    {.id = TOP_OPENMETRICS, .name = "openmetrics", .help = "one answer as OpenMetrics text"},
    {.id = TOP_DIRECTORY,
     .name = "directory",
     .arg = CLI_ARG_NEEDED,
     .meta = "URL",
     .help =
         "all executors of a Redis server and their blocks, as\nserve's web pages; without PAGE "
         "CARBIDE_DIRECTORY otherwise"},
    {.id = TOP_INTERVAL,
     .letter = 'd',
     .name = "interval",
     .arg = CLI_ARG_NEEDED,
     .meta = "SECONDS",
     .help = "between two looks (1)"},
    {.id = TOP_COUNT,
     .letter = 'n',
     .name = "count",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "so many looks, then the end (without a limit on a\nterminal, 1 elsewhere)"},
    {.id = TOP_HELP, .letter = 'h', .name = "help", .help = "this"},
};
static const cli_group groups[] = {{"Options", options, CLI_COUNT(options)}};
const cli_verb cli_verb_top = {
    .name = "top",
    .summary = "who holds the memory of a running process",
    .usage = "top [OPTION]... {PAGE|PID|--directory URL}",
    .examples = "carbide top /tmp/sort.status           watch it; q ends\n"
                "carbide top --json 12345               once, for a program\n"
                "carbide top --directory redis://127.0.0.1:6379      all executors",
    .notes = "PAGE is the file that the process was told to publish its figures in.",
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct top_args {
    const char *operand, *directory;
    bool json, openmetrics;
    double interval;
    uint64_t count; /* 0: no limit */
} top_args;

static volatile sig_atomic_t ended;

static void on_end(int number) {
    ended = number;
}
static void on_resize(int number) {
    (void)number;
}

/* ---- a frame ---- */

void cli_frame_line(cli_frame *f, const char *fmt, ...) {
    char text[WIDTH_MAX * 4];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n < 0 || (f->rows_max > 0 && f->rows >= f->rows_max))
        return;
    size_t bytes = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
    bytes = bytes < (size_t)f->width ? bytes : (size_t)f->width;
    for (size_t i = 0; i < bytes; i++) { /* names are others': none of them drives the terminal */
        uint8_t here = (uint8_t)text[i], before = i > 0 ? (uint8_t)text[i - 1] : 0;
        if (before == 0xc2 && (here & 0xe0) == 0x80)
            text[i - 1] = text[i] = '?';
        else if (here < ' ' || here == 0x7f)
            text[i] = '?';
    }
    const char *end = f->terminal ? (f->rows + 1 == f->rows_max ? "\033[K" : "\033[K\n") : "\n";
    if (f->used + bytes + strlen(end) >= sizeof f->text)
        return;
    memcpy(f->text + f->used, text, bytes);
    f->used += bytes;
    memcpy(f->text + f->used, end, strlen(end));
    f->used += strlen(end);
    f->rows++;
}

const char *cli_frame_size(uint64_t bytes, char text[16]) {
    static const char units[] = "BKMGTPE";
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1000 && unit + 2 < sizeof units) {
        value /= 1024;
        unit++;
    }
    (void)snprintf(text, 16,
                   unit == 0    ? "%.0f%c"
                   : value < 10 ? "%.2f%c"
                                : "%.1f%c",
                   value, units[unit]);
    return text;
}

static int cells_of(uint64_t bytes, uint64_t whole, int width) {
    return whole > 0 ? (int)((double)bytes / (double)whole * width + 0.5) : 0;
}

/** Execution from the left, storage from the right, the border between the pools where it stands;
 *  below it where storage's region begins. */
static void draw_mode(cli_frame *f, const cb_figures *g, cb_mode mode) {
    const cb_pool_stats *e = &g->pools[CB_EXECUTION][mode], *s = &g->pools[CB_STORAGE][mode];
    uint64_t whole = e->size + s->size;
    char bar[WIDTH_MAX + 1], a[16], b[16], c[16], d[16];
    int width = f->width - 2;
    if (whole == 0)
        return;
    width = width > WIDTH_MAX - 2 ? WIDTH_MAX - 2 : width < 10 ? 10 : width;
    cli_frame_line(f, "%-9s execution %s of %s, storage %s of %s",
                   mode == CB_HEAP ? "heap" : "off-heap", cli_frame_size(e->used, a),
                   cli_frame_size(e->size, b), cli_frame_size(s->used, c),
                   cli_frame_size(s->size, d));
    int border = cells_of(e->size, whole, width), used = cells_of(e->used, whole, width);
    int stored = cells_of(s->used, whole, width);
    for (int i = 0; i < width; i++)
        bar[i] = i < used ? '#' : i >= width - stored ? '=' : '.';
    if (border < width)
        bar[border] = '|';
    bar[width] = '\0';
    cli_frame_line(f, "[%s]", bar);
    int region = width - cells_of(g->storage_region[mode], whole, width);
    if (region < width && g->storage_region[mode] > 0)
        cli_frame_line(f, " %*s^ storage's own region from here: %s", region, "",
                       cli_frame_size(g->storage_region[mode], a));
}

static void draw_tree(cli_frame *f, const cb_figures *g) {
    char a[16], b[16];
    if (g->ledger_count > 0)
        cli_frame_line(f, "%-28s %10s %10s", "ledger", "bytes", "peak");
    for (uint32_t i = 0; i < g->ledger_count; i++)
        cli_frame_line(f, "  %-26.26s %10s %10s", g->ledger[i].name,
                       cli_frame_size(g->ledger[i].bytes, a), cli_frame_size(g->ledger[i].peak, b));
    cli_frame_line(f, "tasks %" PRIu64 ", waiting for memory %" PRIu64, g->tasks, g->tasks_waiting);
    for (uint32_t i = 0; i < g->task_count; i++)
        cli_frame_line(f, "  %-6" PRIu64 " %-19.19s %10s %10s%s", g->task[i].id, g->task[i].name,
                       cli_frame_size(g->task[i].bytes, a), cli_frame_size(g->task[i].peak, b),
                       g->task[i].waiting ? "  waits" : "");
}

static void draw_blocks(cli_frame *f, const cb_figures *g) {
    const cb_blocks_stats *s = &g->blocks;
    uint64_t looked = s->hits + s->disk_hits + s->misses;
    char a[16], b[16], level[CB_LEVEL_TEXT_MAX];
    if (!g->has_blocks)
        return;
    cli_frame_line(f, "blocks %" PRIu64 ", hits %.1f %% in memory and %.1f %% on disk of %" PRIu64,
                   s->blocks, looked > 0 ? 100.0 * (double)s->hits / (double)looked : 0.0,
                   looked > 0 ? 100.0 * (double)s->disk_hits / (double)looked : 0.0, looked);
    cli_frame_line(f,
                   "  evicted %" PRIu64 ", promoted %" PRIu64 ", computed %" PRIu64
                   ", drops that failed %" PRIu64 ", kept %" PRIu64,
                   s->evicted, s->promoted, s->computed, s->drops_failed, s->kept);
    if (g->level_count > 0)
        cli_frame_line(f, "  %-34s %9s %9s %9s %9s", "level", "memory", "bytes", "disk", "bytes");
    for (uint32_t i = 0; i < g->level_count; i++) {
        const cb_figures_level *l = &g->levels[i];
        cb_level_format(l->level, level);
        cli_frame_line(f, "  %-34.34s %9" PRIu64 " %9s %9" PRIu64 " %9s", level, l->memory_blocks,
                       cli_frame_size(l->memory_bytes, a), l->disk_blocks,
                       cli_frame_size(l->disk_bytes, b));
    }
}

static void draw(cli_frame *f, const cb_figures *g, bool alive) {
    char a[16], b[16], c[16], done[32] = "";
    if (g->fraction > 0)
        (void)snprintf(done, sizeof done, ", %.0f %% done", 100 * g->fraction);
    cli_frame_line(f, "carbide top: %s, pid %" PRId64 ", %.1f s%s%s", g->what, g->pid,
                   (double)g->elapsed_ns / 1e9, done, alive ? "" : " -- has ended");
    cli_frame_line(f, "budget %s, accounted %s, peak %s%s%s, spilled %s",
                   cli_frame_size(g->budget, a), cli_frame_size(g->accounted, b),
                   cli_frame_size(g->accounted_peak, c), g->debt > 0 ? ", debt " : "",
                   g->debt > 0 ? "yes" : "", cli_frame_size(g->spilled_bytes, done));
    draw_mode(f, g, CB_HEAP);
    draw_mode(f, g, CB_OFF_HEAP);
    draw_blocks(f, g);
    draw_tree(f, g);
}

/* ---- where the page is ---- */

static bool is_number(const char *text) {
    return text[0] != '\0' && strspn(text, "0123456789") == strlen(text);
}

/** The page among the files that the process has open. */
static bool find_page(const char *pid, char path[PATH_BYTES], cb_figures *figures) {
    char folder[64];
    bool found = false, alive = false;
    (void)snprintf(folder, sizeof folder, "/proc/%.20s/fd", pid);
    DIR *d = opendir(folder);
    if (d == NULL)
        return false;
    for (struct dirent *e; !found && (e = readdir(d)) != NULL;) {
        struct stat st;
        int fd = dirfd(d);
        ssize_t n = fd >= 0 ? readlinkat(fd, e->d_name, path, PATH_BYTES - 1) : -1;
        if (n <= 0 || path[0] != '/')
            continue;
        path[n] = '\0';
        found = stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
                cb_status_page_read(path, figures, &alive, NULL) == CB_OK;
    }
    (void)closedir(d);
    return found;
}

/* ---- the terminal ---- */

static struct termios termios_before;

static bool terminal_begin(void) {
    struct termios raw;
    const struct sigaction end = {.sa_handler = on_end}, resize = {.sa_handler = on_resize};
    if (isatty(STDOUT_FILENO) != 1 || isatty(STDIN_FILENO) != 1 ||
        tcgetattr(STDIN_FILENO, &termios_before) != 0)
        return false;
    raw = termios_before;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    (void)sigaction(SIGINT, &end, NULL);
    (void)sigaction(SIGTERM, &end, NULL);
    (void)sigaction(SIGHUP, &end, NULL);
    (void)sigaction(SIGWINCH, &resize, NULL);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    static const char enter[] = "\033[?1049h\033[?25l";
    (void)cli_write_all(STDOUT_FILENO, enter, sizeof enter - 1);
    return true;
}

static void terminal_end(void) {
    static const char leave[] = "\033[?25h\033[?1049l";
    (void)cli_write_all(STDOUT_FILENO, leave, sizeof leave - 1);
    (void)tcsetattr(STDIN_FILENO, TCSANOW, &termios_before);
}

/** Waits; false when q was pressed or a signal came. A change of size ends the wait early. */
static bool rest(double seconds, bool terminal) {
    struct pollfd in = {.fd = terminal ? STDIN_FILENO : -1, .events = POLLIN};
    char key = 0;
    if (poll(&in, 1, (int)(seconds * 1000)) > 0 && read(STDIN_FILENO, &key, 1) == 1 &&
        (key == 'q' || key == 'Q' || key == 4))
        return false;
    return ended == 0;
}

static void measure(cli_frame *f) {
    struct winsize size = {0};
    f->used = 0;
    f->rows = 0;
    f->width = WIDTH_PLAIN;
    f->rows_max = 0;
    if (f->terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        f->width = size.ws_col < WIDTH_MAX ? size.ws_col : WIDTH_MAX;
        f->rows_max = size.ws_row;
    }
}

static void begin_frame(cli_frame *f) {
    measure(f);
    if (f->terminal) {
        memcpy(f->text, "\033[H", 3);
        f->used = 3;
    }
}

static bool end_frame(cli_frame *f) {
    if (f->terminal) {
        memcpy(f->text + f->used, "\033[J", 3);
        f->used += 3;
    }
    return cli_write_all(STDOUT_FILENO, f->text, f->used);
}

static bool show(cli_frame *f, const cb_figures *figures, bool alive) {
    begin_frame(f);
    draw(f, figures, alive);
    return end_frame(f);
}

/* ---- the command ---- */

static int tell_once(const top_args *a, const cb_figures *figures) {
    static char text[CLI_FRAME_BYTES];
    (void)cb_figures_write(figures, a->json ? CB_FIGURES_JSON : CB_FIGURES_OPENMETRICS, text,
                           sizeof text);
    return cli_print(text);
}

static int watch(const top_args *a, const char *path) {
    static cli_frame f;
    static cb_figures figures;
    cb_error err = {0};
    cb_status status = CB_OK;
    bool alive = true, written = true;
    f.terminal = terminal_begin();
    uint64_t count = a->count > 0 ? a->count : f.terminal ? UINT64_MAX : 1;
    for (uint64_t i = 0; i < count && alive && written; i++) {
        if (i > 0 && !rest(a->interval, f.terminal))
            break;
        status = cb_status_page_read(path, &figures, &alive, &err);
        if (status == CB_EDATA && i > 0)
            continue; /* begun anew */
        if (status != CB_OK)
            break;
        written = show(&f, &figures, alive);
    }
    if (f.terminal)
        terminal_end();
    if (!written)
        cli_complain("write failed: 'standard output': %s", strerror(errno));
    else if (status != CB_OK && !(status == CB_ENOTFOUND && figures.pid != 0)) /* it has ended */
        cli_complain("%s", err.message);
    else
        return CLI_EXIT_OK;
    return written ? cli_exit_code(status) : CLI_EXIT_TROUBLE;
}

/** The same of all executors; on a terminal a directory that does not answer is waited for. */
static int watch_directory(const top_args *a) {
    static cli_frame f;
    cb_error err = {0};
    cb_status status = CB_OK;
    bool written = true;
    f.terminal = terminal_begin();
    uint64_t count = a->count > 0 ? a->count : f.terminal ? UINT64_MAX : 1;
    for (uint64_t i = 0; i < count && written; i++) {
        if (i > 0 && !rest(a->interval, f.terminal))
            break;
        status = cli_top_cluster_look(&err);
        if (status != CB_OK && !f.terminal)
            break;
        begin_frame(&f);
        if (status == CB_OK)
            cli_top_cluster_draw(&f);
        else
            cli_frame_line(&f, "carbide top: %s", err.message);
        written = end_frame(&f);
    }
    if (f.terminal)
        terminal_end();
    if (!written)
        cli_complain("write failed: 'standard output': %s", strerror(errno));
    else if (status != CB_OK)
        cli_complain("%s", err.message);
    return !written ? CLI_EXIT_TROUBLE : cli_exit_code(status);
}

static int run_directory(const top_args *a) {
    cb_error err = {0};
    int code = cli_top_cluster_begin(a->directory);
    if (code != CLI_EXIT_OK)
        return code;
    if (!a->json) {
        code = watch_directory(a);
    } else if (cli_top_cluster_look(&err) == CB_OK) {
        code = cli_top_cluster_tell();
    } else {
        cli_complain("%s", err.message);
        code = CLI_EXIT_TROUBLE;
    }
    cli_top_cluster_end();
    return code;
}

static int run(const top_args *a) {
    static char path[PATH_BYTES];
    static cb_figures figures;
    cb_error err = {0};
    bool alive = false;
    (void)snprintf(path, sizeof path, "%s", a->operand);
    if (is_number(a->operand) && !find_page(a->operand, path, &figures)) {
        cli_complain("process %s publishes no figures (or may not be looked at)", a->operand);
        return CLI_EXIT_TROUBLE;
    }
    if (!a->json && !a->openmetrics)
        return watch(a, path);
    cb_status status = cb_status_page_read(path, &figures, &alive, &err);
    if (status != CB_OK) {
        cli_complain("%s", err.message);
        return cli_exit_code(status);
    }
    return tell_once(a, &figures);
}

static bool read_number(const char *value, double least, double most, double *number) {
    char *end = NULL;
    *number = strtod(value, &end);
    return end != value && *end == '\0' && *number >= least && *number <= most;
}

int cli_top_main(int argc, char **argv) {
    top_args a = {.interval = 1};
    cli_parser parser;
    const char *value = NULL;
    double number = 0;
    int id = 0;
    cli_parser_init(&parser, &cli_verb_top, argc, argv);
    while ((id = cli_parser_next(&parser, &value)) > 0) {
        switch (id) {
            case TOP_JSON: a.json = true; break;
            case TOP_OPENMETRICS: a.openmetrics = true; break;
            case TOP_DIRECTORY: a.directory = value; break;
            case TOP_INTERVAL:
                if (!read_number(value, 0.05, 3600, &a.interval))
                    return cli_usage_error("top", "'%s' is no number of seconds from 0.05 to 3600",
                                           value);
                break;
            case TOP_COUNT:
                if (!read_number(value, 1, 1e15, &number))
                    return cli_usage_error("top", "'%s' is no number of looks", value);
                a.count = (uint64_t)number;
                break;
            default: return cli_help(&cli_verb_top);
        }
    }
    if (id == CLI_PARSE_ERROR)
        return CLI_EXIT_TROUBLE;
    if (parser.operand_count == 0 && a.directory == NULL)
        a.directory = getenv("CARBIDE_DIRECTORY");
    if (a.directory != NULL && a.directory[0] != '\0') {
        if (parser.operand_count > 0)
            return cli_usage_error("top", "extra operand '%s'", parser.argv[0]);
        if (a.openmetrics)
            return cli_usage_error("top", "--openmetrics is for one process: each executor has it "
                                          "at its /metrics (serve --web)");
        return run_directory(&a);
    }
    if (parser.operand_count != 1)
        return cli_usage_error("top", "one status page, or one process, is needed");
    if (a.json && a.openmetrics)
        return cli_usage_error("top", "--json and --openmetrics exclude each other");
    a.operand = parser.argv[0];
    return run(&a);
}
