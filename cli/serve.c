/* SPDX-License-Identifier: Apache-2.0 */
/* `carbide serve`: blocks for the other processes of this machine, until a signal ends it. */
#include "carbide/level.h"
#include "carbide/server.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli.h"
#include "host.h"
#include "options.h"
#include "serve_web.h"
#include "text.h"

#ifdef CARBIDE_HAVE_NET
#include "carbide/redis_directory.h"
#endif

enum {
    SERVE_SOCKET = 1,
    SERVE_LISTEN,
    SERVE_PASSWORD,
    SERVE_MEMORY,
    SERVE_TEMP,
    SERVE_DISK,
    SERVE_CODEC,
    SERVE_OTHERS,
    SERVE_CONNECTIONS,
    SERVE_WORKERS,
    SERVE_TIMEOUT,
    SERVE_KEEP,
    SERVE_DIRECTORY,
    SERVE_NAME,
    SERVE_ADVERTISE,
    SERVE_HOST,
    SERVE_RACK,
    SERVE_CACHE,
    SERVE_PREALLOCATE,
    SERVE_STATUS,
    SERVE_WEB,
    SERVE_QUIET,
    SERVE_HELP
};

static const cli_option options[] = {
    {.id = SERVE_SOCKET,
     .name = "socket",
     .arg = CLI_ARG_NEEDED,
     .meta = "PATH",
     .values = "@file",
     .help = "where it listens; CARBIDE_SOCKET otherwise"},
    {.id = SERVE_LISTEN,
     .name = "listen",
     .arg = CLI_ARG_NEEDED,
     .meta = "ADDRESS:PORT",
     .help =
         "speak RESP there, for clients of Redis: 127.0.0.1:6380,\nport 0 for one that is free"},
    {.id = SERVE_PASSWORD,
     .name = "password-file",
     .arg = CLI_ARG_NEEDED,
     .meta = "FILE",
     .values = "@file",
     .help = "whose first line these clients must say (AUTH); needed\nwhere other machines reach "
             "the address"},
    {.id = SERVE_MEMORY,
     .letter = 'S',
     .name = "memory",
     .arg = CLI_ARG_NEEDED,
     .meta = "SIZE",
     .help =
         "budget of the whole process, blocks and all: 64M, 2G,\n50%; CARBIDE_MEMORY otherwise"},
    {.id = SERVE_TEMP,
     .letter = 'T',
     .name = "temporary-directory",
     .arg = CLI_ARG_NEEDED,
     .meta = "DIR",
     .values = "@dir",
     .help = "blocks that leave memory go there; without it they\nare gone"},
    {.id = SERVE_DISK,
     .name = "temp-limit",
     .arg = CLI_ARG_NEEDED,
     .meta = "SIZE",
     .help = "no more bytes of blocks on disk than that"},
    {.id = SERVE_CODEC,
     .name = "compress",
     .arg = CLI_ARG_NEEDED,
     .meta = "CODEC",
     .values = "none lz4 zstd",
     .help = "of blocks on disk (none)"},
    {.id = SERVE_OTHERS, .name = "others", .help = "other users may connect too; they get copies"},
    {.id = SERVE_CONNECTIONS,
     .name = "connections",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "at one time; the longest idle gives way"},
    {.id = SERVE_WORKERS,
     .letter = 'j',
     .name = "parallel",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "threads for disk and other long work (2)"},
    {.id = SERVE_TIMEOUT,
     .name = "timeout",
     .arg = CLI_ARG_NEEDED,
     .meta = "SECONDS",
     .help = "for a message under way, and a second a MiB (20)"},
    {.id = SERVE_KEEP,
     .name = "keep",
     .arg = CLI_ARG_NEEDED,
     .meta = "NAME",
     .help = "blocks may be kept in the folder (block keep): a server\nwith the same NAME begins "
             "with them"},
    {.id = SERVE_DIRECTORY,
     .name = "directory",
     .arg = CLI_ARG_NEEDED,
     .meta = "URL",
     .help = "be an executor: tell a Redis server which blocks are here:\n"
             "redis://[[USER]:PASSWORD@]HOST:PORT[/DB],\n"
             "unix://[[USER]:PASSWORD@]/PATH;\n"
             "CARBIDE_DIRECTORY otherwise, where others do not see it"},
    {.id = SERVE_NAME,
     .name = "name",
     .arg = CLI_ARG_NEEDED,
     .meta = "NAME",
     .help = "in the directory (the address)"},
    {.id = SERVE_ADVERTISE,
     .name = "advertise",
     .arg = CLI_ARG_NEEDED,
     .meta = "ADDRESS:PORT",
     .help = "where others reach it (where it listens)"},
    {.id = SERVE_HOST,
     .name = "host",
     .arg = CLI_ARG_NEEDED,
     .meta = "LABEL",
     .help = "the machine, for those who place copies (its name)"},
    {.id = SERVE_RACK,
     .name = "rack",
     .arg = CLI_ARG_NEEDED,
     .meta = "LABEL",
     .help = "what fails together with it"},
    {.id = SERVE_CACHE,
     .name = "cache-remote",
     .help = "blocks that were read at other executors stay here in\nmemory, and leave before all "
             "others"},
    {.id = SERVE_PREALLOCATE,
     .name = "preallocate",
     .help = "touch the whole budget at the start: no put waits for the\nsystem's pages"},
    {.id = SERVE_STATUS,
     .name = "status",
     .arg = CLI_ARG_NEEDED,
     .meta = "FILE",
     .values = "@file",
     .help = "publish who holds the memory in FILE, for carbide top"},
    {.id = SERVE_WEB,
     .name = "web",
     .arg = CLI_ARG_NEEDED,
     .meta = "ADDRESS:PORT",
     .help = "web pages there: executors, blocks, who holds the memory;\n"
             "as 127.0.0.1:8080, port 0 for one that is free"},
    {.id = SERVE_QUIET, .letter = 'q', .name = "quiet", .help = "errors only"},
    {.id = SERVE_HELP, .letter = 'h', .name = "help", .help = "this"},
};
static const cli_group groups[] = {{"Options", options, CLI_COUNT(options)}};
const cli_verb cli_verb_serve = {
    .name = "serve",
    .summary = "holds blocks for other processes, under one budget",
    .usage = "serve {--socket PATH | --listen ADDRESS:PORT}... --memory SIZE [OPTION]...",
    .examples =
        "carbide serve --socket /run/user/1000/blocks --memory 2G                  in memory\n"
        "carbide serve --socket ./blocks -S 512M -T /var/tmp --compress lz4        and on disk\n"
        "carbide serve --listen 127.0.0.1:6380 -S 2G                               for redis-cli\n"
        "carbide serve --listen 127.0.0.1:0 -S 2G --directory redis://127.0.0.1:6379  in a "
        "cluster",
    .notes = "It ends with SIGINT or SIGTERM; its blocks end with it. The man page has more.",
    .words = "",
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

static cb_server *volatile serving; /* for the signal handler */
static const char *directory_url, *web_listen;

static void on_signal(int number) {
    (void)number;
    if (serving != NULL)
        cb_server_stop(serving);
}

static void catch_signals(void) {
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < CLI_COUNT(numbers); i++) {
        struct sigaction old;
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
    }
}

static uint64_t peak_rss(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

static void tell_end(const cb_server_stats *s) {
    char a[CLI_FIGURE_MAX], b[CLI_FIGURE_MAX], c[CLI_FIGURE_MAX], d[CLI_FIGURE_MAX],
        e[CLI_FIGURE_MAX];
    cli_complain("%s requests, %s blocks evicted; budget %s, accounted %s, peak RSS %s",
                 cli_count_text(s->requests, a), cli_count_text(s->evicted, b),
                 cli_size_text(s->budget_bytes, c), cli_size_text(s->accounted_peak_bytes, d),
                 cli_size_text(peak_rss(), e));
}

/*
 * What the directory's thread has to say. It comes after the line that says where it serves, which
 * is the first one that scripts read.
 */
static struct {
    pthread_mutex_t mutex;
    bool shown, quiet, is_new;
    cb_directory_state state;
} news = {.mutex = PTHREAD_MUTEX_INITIALIZER};

/** [news.mutex] */
static void tell_news(void) {
    struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
    bool entered = news.state.status == CB_OK;
    bool wanted = news.shown && news.is_new;
    if (!wanted)
        return;
    news.is_new = false;
    if ((entered && news.quiet) || poll(&out, 1, 0) <= 0)
        return; /* who does not read does not hold up the lease */
    if (entered)
        cli_complain("in the directory: it knows this executor and its blocks");
    else
        cli_complain("not in the directory, and trying again: %s", news.state.words);
}

static void show_news(bool quiet) {
    (void)pthread_mutex_lock(&news.mutex);
    news.shown = true;
    news.quiet = quiet;
    tell_news();
    (void)pthread_mutex_unlock(&news.mutex);
}

static int run_server(const cb_server_options *o, bool quiet) {
    char budget[CLI_FIGURE_MAX], blocks[CLI_FIGURE_MAX], where[128] = "";
    cb_error err;
    cb_server_stats stats;
    cb_server *server = NULL;
    cb_status status = cb_server_create(o, &server, &err);
    if (status != CB_OK) {
        cli_complain("%s", err.message);
        if (status == CB_EBUDGET && err.bytes_had > o->memory_bytes)
            cli_complain("the smallest budget that will do is --memory %s",
                         cli_size_option(err.bytes_had, budget));
        return cli_exit_code(status);
    }
    serving = server;
    catch_signals();
    cb_server_stats_get(server, &stats);
    if (o->listen != NULL)
        (void)snprintf(where, sizeof where, "%.*s:%u", (int)(strrchr(o->listen, ':') - o->listen),
                       o->listen, (unsigned)cb_server_port(server));
    if (!quiet) {
        const char *first = o->socket != NULL ? o->socket : where;
        cli_complain("serving blocks at %s: budget %s, %s of it for blocks", first,
                     cli_size_text(stats.budget_bytes, budget),
                     cli_size_text(stats.storage_max_bytes, blocks));
        if (o->listen != NULL && first != where)
            cli_complain("speaking RESP at %s", where);
    }
    cli_serve_web_show(server,
                       o->name != NULL     ? o->name
                       : o->listen != NULL ? where
                                           : o->socket,
                       quiet);
    show_news(quiet);
    status = cb_server_run(server, &err);
    cb_server_stats_get(server, &stats);
    cli_serve_web_hide();
    serving = NULL; /* another signal may come while the end takes its time */
    cb_server_destroy(server);
    if (status != CB_OK)
        cli_complain("%s", err.message);
    else if (!quiet)
        tell_end(&stats);
    return cli_exit_code(status);
}

/** With its web pages, if they are wanted. */
static int run(cb_server_options *o, struct cb_redis_directory *redis, bool quiet) {
    int code = web_listen != NULL ? cli_serve_web_begin(web_listen, redis, o) : 0;
    if (code == 0)
        code = run_server(o, quiet);
    cli_serve_web_end();
    return code;
}

#ifdef CARBIDE_HAVE_NET
/** By the directory's thread, which has no signals: a pipe that nobody reads ends nothing. */
static void on_changed(void *ctx, const cb_directory_state *state) {
    (void)ctx;
    (void)pthread_mutex_lock(&news.mutex);
    news.state = *state;
    news.is_new = true;
    tell_news();
    (void)pthread_mutex_unlock(&news.mutex);
}

/** The same as a part of what --directory names. */
static int run_executor(cb_server_options *o, bool quiet) {
    static char host[64];
    cb_redis_directory *redis = NULL;
    cb_error err;
    const cb_redis_directory_options r = {
        .struct_size = sizeof r, .url = directory_url, .changed = on_changed};
    cb_status status = cb_redis_directory_create(&r, &redis, &err);
    if (status != CB_OK) {
        cli_complain("%s", err.message);
        return cli_exit_code(status);
    }
    if (o->host == NULL && gethostname(host, sizeof host - 1) == 0)
        o->host = host;
    const cb_directory directory = cb_redis_directory_interface(redis);
    o->directory = &directory;
    int code = run(o, redis, quiet);
    o->directory = NULL;
    cb_redis_directory_destroy(redis);
    return code;
}
#else
static int run_executor(cb_server_options *o, bool quiet) {
    (void)o;
    (void)quiet;
    return cli_usage_error("serve", "--directory is not there: carbide was built without hiredis");
}
#endif

/** The first line of a file; false after a message. */
static bool read_password(const char *path, char *password, size_t room) {
    FILE *f = fopen(path, "re");
    bool got = f != NULL && fgets(password, (int)room, f) != NULL;
    int why = f == NULL ? errno : 0;
    if (f != NULL)
        (void)fclose(f);
    password[got ? strcspn(password, "\r\n") : 0] = '\0';
    if (password[0] != '\0')
        return true;
    cli_complain("there is no password in %s%s%s", path, why != 0 ? ": " : "",
                 why != 0 ? strerror(why) : "");
    return false;
}

/** The value of an option that is a size or a number; false after a message. */
static bool take_number(const char *seen, const char *value, bool size, uint64_t most,
                        uint64_t *number) {
    uint64_t whole = size && strchr(value, '%') != NULL ? cli_host_memory_whole() : 0;
    cli_number answer =
        size ? cli_size_parse(value, 1, whole, number) : cli_integer_parse(value, number);
    if (answer == CLI_NUMBER_OK && *number > 0 && *number <= most)
        return true;
    (void)cli_usage_error("serve", "invalid %s argument '%s'", seen, value);
    return false;
}

static bool take_option(cli_parser *parser, int id, const char *value, cb_server_options *o,
                        bool *quiet) {
    enum { CONNECTIONS_MOST = 65536, WORKERS_MOST = 16, SECONDS_MOST = 86400 };
    uint64_t number = 0;
    int codec;
    switch (id) {
        case SERVE_SOCKET: o->socket = value; return true;
        case SERVE_LISTEN: o->listen = value; return true;
        case SERVE_PASSWORD: o->password = value; return true; /* the file, so far */
        case SERVE_MEMORY:
            return take_number(parser->seen, value, true, UINT64_MAX, &o->memory_bytes);
        case SERVE_TEMP: o->folder = value; return true;
        case SERVE_DISK: return take_number(parser->seen, value, true, UINT64_MAX, &o->disk_max);
        case SERVE_CODEC:
            codec = cli_word_find("none lz4 zstd", value);
            if (codec < 0) {
                (void)cli_usage_error("serve", "invalid argument '%s' for '%s'; valid are: %s",
                                      value, parser->seen, "none lz4 zstd");
                return false;
            }
            o->codec = (cb_block_codec)codec;
            return true;
        case SERVE_OTHERS: o->others = true; return true;
        case SERVE_CONNECTIONS:
            if (!take_number(parser->seen, value, false, CONNECTIONS_MOST, &number))
                return false;
            o->connections_max = (uint32_t)number;
            return true;
        case SERVE_WORKERS:
            if (!take_number(parser->seen, value, false, WORKERS_MOST, &number))
                return false;
            o->workers = (uint32_t)number;
            return true;
        case SERVE_TIMEOUT:
            if (!take_number(parser->seen, value, false, SECONDS_MOST, &number))
                return false;
            o->timeout_ns = number * UINT64_C(1000000000);
            return true;
        case SERVE_KEEP: o->keep = value; return true;
        case SERVE_DIRECTORY: directory_url = value; return true;
        case SERVE_NAME: o->name = value; return true;
        case SERVE_ADVERTISE: o->advertise = value; return true;
        case SERVE_HOST: o->host = value; return true;
        case SERVE_RACK: o->rack = value; return true;
        case SERVE_CACHE: o->cache_remote = true; return true;
        case SERVE_PREALLOCATE: o->preallocate = true; return true;
        case SERVE_STATUS: o->status = value; return true;
        case SERVE_WEB: web_listen = value; return true;
        default: *quiet = true; return id == SERVE_QUIET;
    }
}

/** What an option alone does not tell; false after a message. */
static bool check_options(cb_server_options *o) {
    const char *missing = NULL;
    if (o->socket != NULL && o->socket[0] == '\0')
        o->socket = NULL;
    if (o->socket == NULL && o->listen == NULL)
        missing = "where shall it listen? (--socket PATH, --listen ADDRESS:PORT)";
    else if (o->password != NULL && o->listen == NULL && web_listen == NULL)
        missing = "a password is for those who connect by TCP (--listen ADDRESS:PORT)";
    else if (directory_url != NULL && o->listen == NULL)
        missing = "where do other executors reach it? (--listen ADDRESS:PORT)";
    else if (directory_url == NULL && (o->name != NULL || o->advertise != NULL || o->host != NULL ||
                                       o->rack != NULL || o->cache_remote))
        missing = "these are for a directory (--directory URL)";
    else if (o->keep != NULL && o->folder == NULL)
        missing = "where shall blocks be kept? (-T DIR)";
    else if (o->memory_bytes == 0)
        missing = "how much memory may it use? (--memory SIZE)";
    if (missing != NULL)
        (void)cli_usage_error("serve", "%s", missing);
    return missing == NULL;
}

int cli_serve_main(int argc, char **argv) {
    static char password[1026];
    cb_server_options o = {.struct_size = sizeof o, .socket = getenv("CARBIDE_SOCKET")};
    cli_parser parser;
    const char *value = NULL;
    bool quiet = false;
    int id;
    directory_url = getenv("CARBIDE_DIRECTORY");
    if (directory_url != NULL && directory_url[0] == '\0')
        directory_url = NULL;
    cli_parser_init(&parser, &cli_verb_serve, argc, argv);
    while ((id = cli_parser_next(&parser, &value)) != CLI_PARSE_END) {
        if (id == SERVE_HELP)
            return cli_help(&cli_verb_serve);
        if (id == CLI_PARSE_ERROR || !take_option(&parser, id, value, &o, &quiet))
            return CLI_EXIT_TROUBLE;
    }
    if (parser.operand_count > 0)
        return cli_usage_error("serve", "extra operand '%s'", parser.argv[0]);
    const char *memory = getenv("CARBIDE_MEMORY");
    if (o.memory_bytes == 0 && memory != NULL &&
        !take_number("CARBIDE_MEMORY", memory, true, UINT64_MAX, &o.memory_bytes))
        return CLI_EXIT_TROUBLE;
    if (!check_options(&o) ||
        (o.password != NULL && !read_password(o.password, password, sizeof password)))
        return CLI_EXIT_TROUBLE;
    o.password = o.password != NULL ? password : NULL;
    return directory_url != NULL ? run_executor(&o, quiet) : run(&o, NULL, quiet);
}
