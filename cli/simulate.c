/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `carbide simulate`: reads a trace line by line, lets the library answer each, and writes the
 * answers. The trace may be longer than memory; one line of it may not be longer than
 * LINE_MAX_BYTES.
 */
#include "carbide/simulate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "options.h"
#include "output.h"

enum { SIMULATE_SUMMARY = 1, SIMULATE_SVG, SIMULATE_QUIET, SIMULATE_HELP };
enum { LINE_MAX_BYTES = 64 * 1024, OUT_BYTES = 64 * 1024 };

static const cli_option options[] = {
    {.id = SIMULATE_SUMMARY,
     .name = "summary",
     .help = "what was granted, refused, evicted and waited for,\nand the smallest settings that "
             "would have avoided it"},
    {.id = SIMULATE_SVG,
     .name = "svg",
     .arg = CLI_ARG_NEEDED,
     .meta = "FILE",
     .values = "@file",
     .help = "a picture of the pools over the trace"},
    {.id = SIMULATE_QUIET,
     .letter = 'q',
     .name = "quiet",
     .help = "no line for each operation: the summary only"},
    {.id = SIMULATE_HELP, .letter = 'h', .name = "help", .help = "this"},
};
static const cli_group groups[] = {{"Options", options, CLI_COUNT(options)}};
const cli_verb cli_verb_simulate = {
    .name = "simulate",
    .summary = "what Spark's and Flink's memory managers do with a trace of calls",
    .usage = "simulate [OPTION]... TRACE",
    .examples = "carbide simulate job.trace                       one answer for each operation\n"
                "carbide simulate -q --summary job.trace          what would have been enough?\n"
                "carbide simulate --svg job.svg job.trace >/dev/null",
    .notes = "A trace is a text with one operation a line; '-' is standard input. The man page has "
             "the language.",
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct simulate_args {
    const char *trace, *svg;
    bool summary, quiet;
} simulate_args;

/** Answers on their way to standard output. */
typedef struct answers {
    char data[OUT_BYTES];
    size_t used;
    int error; /* errno of the first failure */
} answers;

static void flush(answers *a) {
    if (a->error == 0 && !cli_write_all(STDOUT_FILENO, a->data, a->used))
        a->error = errno;
    a->used = 0;
}

static void add(answers *a, const char *text, size_t bytes) {
    if (bytes > sizeof a->data - a->used)
        flush(a);
    if (bytes > sizeof a->data) {
        if (a->error == 0 && !cli_write_all(STDOUT_FILENO, text, bytes))
            a->error = errno;
        return;
    }
    memcpy(a->data + a->used, text, bytes);
    a->used += bytes;
}

/** The lines of a file, one after the other. */
typedef struct lines {
    int fd;
    char data[2 * LINE_MAX_BYTES];
    size_t start, end;
    bool at_end;
    int error;
    answers *before_read; /* who writes to a pipe may wait for the answers to what it has written */
} lines;

/** The next line, without its line feed; false at the end, and when it is longer than can be. */
static bool next_line(lines *l, const char **line, size_t *bytes) {
    for (;;) {
        char *feed = memchr(l->data + l->start, '\n', l->end - l->start);
        if (feed != NULL || (l->at_end && l->end > l->start)) {
            *line = l->data + l->start;
            *bytes = feed != NULL ? (size_t)(feed - *line) : l->end - l->start;
            l->start += *bytes + (feed != NULL);
            return true;
        }
        if (l->at_end || l->end - l->start >= LINE_MAX_BYTES)
            return false;
        memmove(l->data, l->data + l->start, l->end - l->start);
        l->end -= l->start;
        l->start = 0;
        flush(l->before_read);
        ssize_t n = read(l->fd, l->data + l->end, sizeof l->data - l->end);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            l->error = errno;
            return false;
        }
        l->end += (size_t)n;
        l->at_end = n == 0;
    }
}

static int tell(const char *trace, const cb_error *err) {
    cli_complain(err->status == CB_EDATA ? "%s:%s" : "%s: %s", trace, err->message);
    return cli_exit_code(err->status);
}

static int run(cb_simulation *simulation, const simulate_args *args, lines *in, answers *out) {
    cb_error err;
    const char *line = NULL, *answer = NULL;
    size_t bytes = 0;
    uint64_t number = 0;
    while (next_line(in, &line, &bytes) && out->error == 0) {
        number++;
        if (cb_simulation_line(simulation, line, bytes, &answer, &err) != CB_OK) {
            flush(out);
            return tell(args->trace, &err);
        }
        if (answer != NULL && !args->quiet) {
            add(out, answer, strlen(answer));
            add(out, "\n", 1);
        }
    }
    if (in->error != 0) {
        flush(out);
        cli_complain("cannot read %s: %s", args->trace, strerror(in->error));
        return CLI_EXIT_TROUBLE;
    }
    if (!in->at_end && out->error == 0) {
        flush(out);
        cli_complain("%s:%" PRIu64 ":1: the line is longer than %d bytes", args->trace, number + 1,
                     LINE_MAX_BYTES);
        return CLI_EXIT_DATA;
    }
    return CLI_EXIT_OK;
}

static int draw(cb_simulation *simulation, const simulate_args *args) {
    cb_error err;
    cli_output output;
    const char *picture = NULL;
    if (cb_simulation_picture(simulation, args->trace, &picture, &err) != CB_OK)
        return tell(args->trace, &err);
    if (!cli_output_open(&output, args->svg))
        return CLI_EXIT_TROUBLE;
    size_t bytes = strlen(picture);
    int why = cli_output_write(&output, picture, bytes, 0);
    if (why == 0)
        why = cli_output_finish(&output, bytes);
    if (why != 0)
        cli_complain("cannot write %s: %s", output.name, strerror(why));
    cli_output_fini(&output);
    return why == 0 ? CLI_EXIT_OK : CLI_EXIT_TROUBLE;
}

static int look_back(cb_simulation *simulation, const simulate_args *args, answers *out) {
    cb_error err;
    const char *text = NULL;
    if (args->summary) {
        if (cb_simulation_summary(simulation, &text, &err) != CB_OK)
            return tell(args->trace, &err);
        add(out, text, strlen(text));
    }
    flush(out);
    return args->svg != NULL ? draw(simulation, args) : CLI_EXIT_OK;
}

static int simulate(const simulate_args *args) {
    static lines in;
    static answers out;
    cb_error err;
    cb_simulation *simulation = NULL;
    const cb_simulation_options o = {
        .struct_size = sizeof o, .summary = args->summary, .picture = args->svg != NULL};
    bool standard = strcmp(args->trace, "-") == 0;
    in.before_read = &out;
    in.fd = standard ? STDIN_FILENO : open(args->trace, O_RDONLY | O_CLOEXEC);
    if (in.fd < 0) {
        cli_complain("cannot open %s: %s", args->trace, strerror(errno));
        return CLI_EXIT_TROUBLE;
    }
    int code = cb_simulation_create(&o, &simulation, &err) == CB_OK ? CLI_EXIT_OK
                                                                    : tell(args->trace, &err);
    if (code == CLI_EXIT_OK)
        code = run(simulation, args, &in, &out);
    if (code == CLI_EXIT_OK)
        code = look_back(simulation, args, &out);
    if (code == CLI_EXIT_OK && out.error == 0 && close(STDOUT_FILENO) != 0)
        out.error = errno;
    if (out.error != 0) {
        cli_complain("write failed: 'standard output': %s", strerror(out.error));
        code = CLI_EXIT_TROUBLE;
    }
    cb_simulation_destroy(simulation);
    if (!standard)
        close(in.fd);
    return code;
}

int cli_simulate_main(int argc, char **argv) {
    simulate_args args = {0};
    cli_parser parser;
    const char *value = NULL;
    int id;
    cli_parser_init(&parser, &cli_verb_simulate, argc, argv);
    while ((id = cli_parser_next(&parser, &value)) != CLI_PARSE_END) {
        switch (id) {
            case SIMULATE_SUMMARY: args.summary = true; break;
            case SIMULATE_SVG: args.svg = value; break;
            case SIMULATE_QUIET: args.quiet = true; break;
            case SIMULATE_HELP: return cli_help(&cli_verb_simulate);
            default: return CLI_EXIT_TROUBLE;
        }
    }
    if (parser.operand_count == 0)
        return cli_usage_error("simulate", "which trace shall it be? ('-' is standard input)");
    if (parser.operand_count > 1)
        return cli_usage_error("simulate", "extra operand '%s'", parser.argv[1]);
    args.trace = parser.argv[0];
    return simulate(&args);
}
