/* SPDX-License-Identifier: Apache-2.0 */
/* `carbide block`: puts, gets and looks at blocks of a `carbide serve`. */
#include "carbide/client.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "options.h"
#include "output.h"
#include "text.h"

enum { BLOCK_SOCKET = 1, BLOCK_LEVEL, BLOCK_OUTPUT, BLOCK_JSON, BLOCK_TIMEOUT, BLOCK_HELP };
enum { SPOOL_BYTES = 64 * 1024 };

static const cli_option options[] = {
    {.id = BLOCK_SOCKET,
     .name = "socket",
     .arg = CLI_ARG_NEEDED,
     .meta = "PATH",
     .values = "@file",
     .help = "of the server; CARBIDE_SOCKET otherwise"},
    {.id = BLOCK_LEVEL,
     .name = "level",
     .arg = CLI_ARG_NEEDED,
     .meta = "LEVEL",
     .values = "MEMORY_ONLY_SER MEMORY_AND_DISK_SER DISK_ONLY",
     .help = "put: a storage level of Spark's (the server's own)"},
    {.id = BLOCK_OUTPUT,
     .letter = 'o',
     .name = "output",
     .arg = CLI_ARG_NEEDED,
     .meta = "FILE",
     .values = "@file",
     .help = "get: there instead of standard output"},
    {.id = BLOCK_JSON, .name = "json", .help = "ls, stat: for machines"},
    {.id = BLOCK_TIMEOUT,
     .name = "timeout",
     .arg = CLI_ARG_NEEDED,
     .meta = "SECONDS",
     .help = "for the server to answer (30)"},
    {.id = BLOCK_HELP, .letter = 'h', .name = "help", .help = "this"},
};
static const cli_group groups[] = {{"Options", options, CLI_COUNT(options)}};
const cli_verb cli_verb_block = {
    .name = "block",
    .summary = "puts, gets and looks at blocks of a carbide serve",
    .usage = "block put NAME [FILE] [OPTION]...\n"
             "block get NAME [-o FILE]\n"
             "block ls [PREFIX]\n"
             "block rm NAME...\n"
             "block keep NAME...\n"
             "block stat [NAME]",
    .examples = "export CARBIDE_SOCKET=/run/user/1000/blocks\n"
                "sort big.txt | carbide block put step1           keeps it\n"
                "carbide block get step1 | wc -l                  for whoever wants it next\n"
                "carbide block ls\n"
                "carbide block stat                               the server's figures",
    .words = "put get ls rm keep stat",
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct block_args {
    const char *socket, *output;
    cb_level level;
    bool json;
    uint64_t timeout_ns;
    char **operands;
    size_t count;
} block_args;

static int tell(const cb_error *err) {
    cli_complain("%s", err->message);
    return cli_exit_code(err->status);
}

/* ---- put ---- */

typedef struct file_source {
    int fd;
    const char *name;
} file_source;

static cb_status read_file(void *ctx, void *bytes, size_t count, size_t *got, cb_error *err) {
    file_source *f = ctx;
    for (;;) {
        ssize_t n = read(f->fd, bytes, count);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err->status = CB_EIO;
            snprintf(err->message, sizeof err->message, "cannot read %s: %s", f->name,
                     strerror(errno));
            return CB_EIO;
        }
        *got = (size_t)n;
        return n > 0 ? CB_OK : CB_EEND;
    }
}

/** What comes from a pipe has no length yet: it goes to a file without a name first. */
static bool spool(file_source *f, uint64_t *bytes) {
    static char piece[SPOOL_BYTES];
    const char *folder = getenv("CARBIDE_TMPDIR");
    if (folder == NULL)
        folder = getenv("TMPDIR");
    if (folder == NULL)
        folder = "/var/tmp";
    cb_error err;
    size_t got = 0;
    cb_status status;
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) {
        cli_complain("cannot make a temporary file in %s: %s", folder, strerror(errno));
        return false;
    }
    *bytes = 0;
    while ((status = read_file(f, piece, sizeof piece, &got, &err)) == CB_OK) {
        if (!cli_write_all(fd, piece, got)) {
            cli_complain("cannot write a temporary file in %s: %s", folder, strerror(errno));
            close(fd);
            return false;
        }
        *bytes += got;
    }
    if (status != CB_EEND || lseek(fd, 0, SEEK_SET) != 0) {
        cli_complain("%s", status != CB_EEND ? err.message : strerror(errno));
        close(fd);
        return false;
    }
    if (f->fd != STDIN_FILENO)
        close(f->fd);
    f->fd = fd;
    return true;
}

static int put(cb_client *client, const block_args *a) {
    cb_error err;
    struct stat st;
    uint64_t bytes = 0;
    file_source f = {.fd = STDIN_FILENO, .name = "standard input"};
    if (a->count == 2 && strcmp(a->operands[1], "-") != 0) {
        f.name = a->operands[1];
        f.fd = open(f.name, O_RDONLY | O_CLOEXEC);
    }
    if (f.fd < 0 || fstat(f.fd, &st) != 0) {
        cli_complain("cannot open %s: %s", f.name, strerror(errno));
        return CLI_EXIT_TROUBLE;
    }
    off_t at = S_ISREG(st.st_mode) ? lseek(f.fd, 0, SEEK_CUR) : -1;
    if (at >= 0 && at <= st.st_size)
        bytes = (uint64_t)(st.st_size - at);
    else if (!spool(&f, &bytes))
        return CLI_EXIT_TROUBLE;
    const cb_byte_source source = {.read = read_file, .ctx = &f};
    cb_status status = cb_client_put_from(client, a->operands[0], a->level, &source, bytes, &err);
    if (f.fd != STDIN_FILENO)
        close(f.fd);
    return status == CB_OK ? CLI_EXIT_OK : tell(&err);
}

/* ---- get ---- */

typedef struct file_sink {
    cli_output output;
    uint64_t at;
} file_sink;

static cb_status write_file(void *ctx, const void *bytes, size_t count, cb_error *err) {
    file_sink *f = ctx;
    int why = cli_output_write(&f->output, bytes, count, f->at);
    f->at += count;
    if (why == 0)
        return CB_OK;
    err->status = CB_EIO;
    snprintf(err->message, sizeof err->message, "cannot write %s: %s", f->output.name,
             strerror(why));
    return CB_EIO;
}

static int get(cb_client *client, const block_args *a) {
    cb_error err;
    uint64_t bytes = 0;
    file_sink f = {.at = 0};
    if (!cli_output_open(&f.output, a->output))
        return CLI_EXIT_TROUBLE;
    const cb_byte_sink sink = {.write = write_file, .ctx = &f};
    cb_status status = cb_client_read(client, a->operands[0], &sink, &bytes, &err);
    int code = status == CB_OK ? CLI_EXIT_OK : tell(&err);
    int why = status == CB_OK ? cli_output_finish(&f.output, bytes) : 0;
    if (why != 0) {
        cli_complain("cannot write %s: %s", f.output.name, strerror(why));
        code = CLI_EXIT_TROUBLE;
    }
    cli_output_fini(&f.output);
    return code;
}

/* ---- ls and stat ---- */

typedef struct listing {
    const char *prefix;
    bool json, first, failed;
} listing;

static void json_entry(cli_text *t, const cb_client_status *s) {
    char level[CB_LEVEL_TEXT_MAX], now[CB_LEVEL_TEXT_MAX];
    cb_level_format(s->level, level);
    cb_level_format(s->now, now);
    cli_json_open(t, NULL, '{');
    cli_json_string(t, "name", s->name);
    cli_json_string(t, "level", cb_level_name(s->level) != NULL ? cb_level_name(s->level) : level);
    cli_json_string(t, "now", now);
    cli_json_uint(t, "memory_bytes", s->memory_bytes);
    cli_json_uint(t, "disk_bytes", s->disk_bytes);
    cli_json_uint(t, "readers", s->readers);
    cli_json_close(t, '}');
}

static void plain_entry(cli_text *t, const cb_client_status *s) {
    char memory[CLI_FIGURE_MAX], disk[CLI_FIGURE_MAX], level[CB_LEVEL_TEXT_MAX];
    const char *name = cb_level_name(s->level);
    if (name == NULL)
        cb_level_format(s->level, level);
    cli_text_add(t, "%-10s %-10s %3" PRIu32 "  %-22s ",
                 (s->now & CB_LEVEL_IN_MEMORY) ? cli_size_text(s->memory_bytes, memory) : "-",
                 (s->now & CB_LEVEL_ON_DISK) ? cli_size_text(s->disk_bytes, disk) : "-", s->readers,
                 name != NULL ? name : level);
    for (const char *p = s->name; *p != '\0'; p++) /* nothing that would move a terminal's cursor */
        cli_text_add(t, (unsigned char)*p < ' ' || *p == 127 ? "\\x%02x" : "%c", (unsigned char)*p);
    cli_text_add(t, "\n");
}

static bool list_one(void *ctx, const cb_client_status *s) {
    listing *l = ctx;
    char line[4096];
    cli_text t;
    if (l->prefix != NULL && strncmp(s->name, l->prefix, strlen(l->prefix)) != 0)
        return true;
    cli_text_init(&t, line, sizeof line);
    if (l->json) {
        cli_text_add(&t, "%s", l->first ? "[\n" : ",\n");
        json_entry(&t, s);
    } else {
        if (l->first)
            cli_text_add(&t, "%-10s %-10s %3s  %-22s %s\n", "MEMORY", "DISK", "USE", "LEVEL",
                         "NAME");
        plain_entry(&t, s);
    }
    l->first = false;
    l->failed = !cli_write_all(STDOUT_FILENO, line, t.used);
    return !l->failed;
}

static int list(cb_client *client, const block_args *a) {
    cb_error err;
    listing l = {.prefix = a->count > 0 ? a->operands[0] : NULL, .json = a->json, .first = true};
    if (cb_client_list(client, list_one, &l, &err) != CB_OK)
        return tell(&err);
    if (l.failed) {
        cli_complain("write failed: 'standard output': %s", strerror(errno));
        return CLI_EXIT_TROUBLE;
    }
    return a->json ? cli_print(l.first ? "[]\n" : "\n]\n") : CLI_EXIT_OK;
}

static int stat_one(cb_client *client, const block_args *a) {
    cb_error err;
    cb_client_status s;
    char page[4096];
    cli_text t;
    if (cb_client_status_get(client, a->operands[0], &s, &err) != CB_OK)
        return tell(&err);
    cli_text_init(&t, page, sizeof page);
    if (a->json) {
        json_entry(&t, &s);
        cli_text_add(&t, "\n");
    } else {
        plain_entry(&t, &s);
    }
    return cli_print(page);
}

static int stat_all(cb_client *client, const block_args *a) {
    cb_error err;
    cb_server_stats s;
    char page[4096];
    cli_text t;
    if (cb_client_stats(client, &s, &err) != CB_OK)
        return tell(&err);
    cli_text_init(&t, page, sizeof page);
    if (a->json)
        cli_json_open(&t, NULL, '{');
#define STAT_FIGURE(name)                                                                          \
    if (a->json)                                                                                   \
        cli_json_uint(&t, #name, s.name);                                                          \
    else                                                                                           \
        cli_text_add(&t, "%-22s%" PRIu64 "\n", #name, s.name);
    CB_SERVER_STATS_MAP(STAT_FIGURE)
#undef STAT_FIGURE
    if (a->json) {
        cli_json_close(&t, '}');
        cli_text_add(&t, "\n");
    }
    return cli_print(page);
}

static int stat_block(cb_client *client, const block_args *a) {
    return a->count > 0 ? stat_one(client, a) : stat_all(client, a);
}

/** With each of them; the last failure is the exit code. */
static int each(cb_client *client, const block_args *a,
                cb_status (*what)(cb_client *client, const char *name, cb_error *err)) {
    int code = CLI_EXIT_OK;
    for (size_t i = 0; i < a->count; i++) {
        cb_error err;
        if (what(client, a->operands[i], &err) != CB_OK)
            code = tell(&err);
    }
    return code;
}

static int remove_blocks(cb_client *client, const block_args *a) {
    return each(client, a, cb_client_remove);
}

static int keep_blocks(cb_client *client, const block_args *a) {
    return each(client, a, cb_client_keep);
}

/* ---- the verb ---- */

typedef struct action {
    const char *name;
    int (*run)(cb_client *client, const block_args *args);
    size_t least, most;
} action;

static const action actions[] = {
    {"put", put, 1, 2},
    {"get", get, 1, 1},
    {"ls", list, 0, 1},
    {"rm", remove_blocks, 1, SIZE_MAX},
    {"keep", keep_blocks, 1, SIZE_MAX},
    {"stat", stat_block, 0, 1},
};

static int act(const action *what, const block_args *a) {
    cb_error err;
    cb_client *client = NULL;
    if (cb_client_open(a->socket, a->timeout_ns, &client, &err) != CB_OK)
        return tell(&err);
    int code = what->run(client, a);
    cb_client_close(client);
    return code;
}

static bool take_option(const cli_parser *parser, int id, const char *value, block_args *a) {
    uint64_t seconds = 0;
    switch (id) {
        case BLOCK_SOCKET: a->socket = value; return true;
        case BLOCK_LEVEL:
            if (cb_level_parse(value, &a->level, NULL) == CB_OK && cb_level_is_valid(a->level))
                return true;
            break;
        case BLOCK_OUTPUT: a->output = value; return true;
        case BLOCK_JSON: a->json = true; return true;
        case BLOCK_TIMEOUT:
            if (cli_integer_parse(value, &seconds) == CLI_NUMBER_OK && seconds > 0 &&
                seconds < 86400) {
                a->timeout_ns = seconds * UINT64_C(1000000000);
                return true;
            }
            break;
        default: return false;
    }
    (void)cli_usage_error("block", "invalid %s argument '%s'", parser->seen, value);
    return false;
}

int cli_block_main(int argc, char **argv) {
    block_args a = {.socket = getenv("CARBIDE_SOCKET")};
    cli_parser parser;
    const char *value = NULL;
    int id;
    cli_parser_init(&parser, &cli_verb_block, argc, argv);
    while ((id = cli_parser_next(&parser, &value)) != CLI_PARSE_END) {
        if (id == BLOCK_HELP)
            return cli_help(&cli_verb_block);
        if (id == CLI_PARSE_ERROR || !take_option(&parser, id, value, &a))
            return CLI_EXIT_TROUBLE;
    }
    if (parser.operand_count == 0)
        return cli_usage_error("block", "what shall be done: put, get, ls, rm, keep or stat?");
    a.operands = parser.argv + 1;
    a.count = parser.operand_count - 1;
    for (size_t i = 0; i < CLI_COUNT(actions); i++) {
        if (strcmp(parser.argv[0], actions[i].name) != 0)
            continue;
        if (a.count < actions[i].least)
            return cli_usage_error("block", "%s needs the name of a block", actions[i].name);
        if (a.count > actions[i].most)
            return cli_usage_error("block", "extra operand '%s'", a.operands[actions[i].most]);
        if (a.socket == NULL || a.socket[0] == '\0')
            return cli_usage_error("block", "which server? (--socket PATH)");
        return act(&actions[i], &a);
    }
    return cli_usage_error("block", "there is no '%s': it is put, get, ls, rm, keep or stat",
                           parser.argv[0]);
}
