/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From argv to cb_sort_options. Whatever GNU sort refuses is refused here with its words, so that
 * both personalities say the same; keys are not looked into, the library parses them.
 */
#include "sort_args.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "options.h"
#include "sort_table.h"
#include "text.h"

enum { GO_ON = -1, FILES0_BYTES_MAX = 64 * 1024 * 1024, GNU_BUDGET_MIN = 8 * 1024 * 1024 };

typedef struct reader {
    cli_sort_args *args;
    cli_parser parser;
    const char *memory, *memory_seen; /* the last -S and how it was written */
    const char *files0;
    char check; /* 'c', 'C' or 0 */
    bool order[128];
    bool have_separator, random_source;
} reader;

static int bad_number(cli_number why, const char *option, const char *value) {
    switch (why) {
        case CLI_NUMBER_SUFFIX:
            cli_complain("invalid suffix in %s argument '%s'", option, value);
            break;
        case CLI_NUMBER_TOO_LARGE: cli_complain("%s argument '%s' too large", option, value); break;
        case CLI_NUMBER_OK:
        case CLI_NUMBER_INVALID:
        default: cli_complain("invalid %s argument '%s'", option, value); break;
    }
    return CLI_EXIT_TROUBLE;
}

static int bad_word(const char *option, const char *value, const char *words, bool ambiguous) {
    return cli_usage_error("sort", "%s argument '%s' for '%s'; valid are: %s",
                           ambiguous ? "ambiguous" : "invalid", value, option, words);
}

/** Finds a value among words, abbreviated or not: its place into *found. */
static int read_word(const reader *r, const char *value, const char *words, int *found) {
    int place = cli_word_find(words, value);
    if (place < 0)
        return bad_word(r->parser.seen, value, words, place == -2);
    *found = place;
    return GO_ON;
}

static int read_separator(reader *r, const char *value) {
    int byte = (unsigned char)value[0];
    if (value[0] == '\0') {
        cli_complain("empty tab");
        return CLI_EXIT_TROUBLE;
    }
    if (value[1] != '\0') {
        if (strcmp(value, "\\0") == 0) {
            byte = '\0';
        } else if (strcmp(value, "\\t") == 0 && !r->args->gnu) {
            byte = '\t';
        } else {
            cli_complain("multi-character tab '%s'", value);
            return CLI_EXIT_TROUBLE;
        }
    }
    if (r->have_separator && r->args->options.field_separator != byte) {
        cli_complain("incompatible tabs");
        return CLI_EXIT_TROUBLE;
    }
    r->have_separator = true;
    r->args->options.field_separator = byte;
    return GO_ON;
}

static int read_format(reader *r, const char *value) {
    static const cb_format_kind kinds[] = {CB_FORMAT_LINES, CB_FORMAT_CSV, CB_FORMAT_TSV};
    cb_sort_options *o = &r->args->options;
    if (strncmp(value, "fixed:", 6) == 0) {
        uint64_t bytes = 0;
        cli_number why = cli_integer_parse(value + 6, &bytes);
        if (why != CLI_NUMBER_OK || bytes == 0)
            return bad_number(why, "--format=fixed", value + 6);
        o->format = CB_FORMAT_FIXED;
        o->record_bytes = (size_t)bytes;
        return GO_ON;
    }
    int place = cli_word_find("lines csv tsv", value);
    if (place < 0)
        return bad_word("--format", value, "lines csv tsv fixed:BYTES", place == -2);
    o->format = kinds[place];
    return GO_ON;
}

static int read_bad_rows(reader *r, const char *value) {
    cb_sort_options *o = &r->args->options;
    if (strcmp(value, "error") == 0) {
        o->bad_rows = CB_BAD_ROWS_ERROR;
    } else if (strcmp(value, "skip") == 0) {
        o->bad_rows = CB_BAD_ROWS_SKIP;
    } else {
        o->bad_rows = CB_BAD_ROWS_FILE;
        o->bad_rows_path = value;
    }
    return GO_ON;
}

static int read_check(reader *r, const char *value) {
    char letter = 'c';
    if (value != NULL) {
        int place = 0;
        int answer = read_word(r, value, "diagnose-first quiet silent", &place);
        if (answer != GO_ON)
            return answer;
        letter = place == 0 ? 'c' : 'C';
    }
    if (r->check != 0 && r->check != letter) {
        cli_complain("options '-cC' are incompatible");
        return CLI_EXIT_TROUBLE;
    }
    r->check = letter;
    return GO_ON;
}

static int read_output(reader *r, const char *value) {
    cb_sort_options *o = &r->args->options;
    if (o->output != NULL && strcmp(o->output, value) != 0) {
        cli_complain("multiple output files specified");
        return CLI_EXIT_TROUBLE;
    }
    o->output = value;
    return GO_ON;
}

static int read_threads(reader *r, const char *value) {
    uint64_t n = 0;
    cli_number why = cli_integer_parse(value, &n);
    if (why == CLI_NUMBER_TOO_LARGE || (why == CLI_NUMBER_OK && n > 1024))
        n = 1024; /* a wish that the engine cuts down to what helps */
    else if (why != CLI_NUMBER_OK)
        return bad_number(why, r->parser.seen, value);
    if (n == 0) {
        cli_complain("number in parallel must be nonzero");
        return CLI_EXIT_TROUBLE;
    }
    r->args->options.threads = (unsigned)n;
    return GO_ON;
}

static int read_batch_size(reader *r, const char *value) {
    uint64_t n = 0;
    cli_number why = cli_integer_parse(value, &n);
    if (why != CLI_NUMBER_OK)
        return bad_number(why, "--batch-size", value);
    if (n < 2) {
        cli_complain("invalid --batch-size argument '%s'", value);
        cli_complain("minimum --batch-size argument is '2'");
        return CLI_EXIT_TROUBLE;
    }
    r->args->options.merge_width_max = n > UINT32_MAX ? UINT32_MAX : (size_t)n;
    return GO_ON;
}

static int read_temp_limit(reader *r, const char *value) {
    uint64_t bytes = 0;
    cli_number why = cli_size_parse(value, 1, 0, &bytes);
    if (why == CLI_NUMBER_OK && bytes == 0)
        why = CLI_NUMBER_INVALID; /* nought would mean no limit */
    if (why != CLI_NUMBER_OK)
        return bad_number(why, "--temp-limit", value);
    r->args->options.temp_limit_bytes = bytes;
    return GO_ON;
}

static int read_order_word(reader *r, const char *value) {
    int place = 0;
    int answer =
        read_word(r, value, "general-numeric human-numeric month numeric random version", &place);
    if (answer == GO_ON)
        r->order[(unsigned char)"ghMnRV"[place]] = true;
    return answer;
}

static int read_codec(reader *r, const char *value) {
    static const cb_codec codecs[] = {CB_CODEC_AUTO, CB_CODEC_NONE, CB_CODEC_LZ4, CB_CODEC_DELTA,
                                      CB_CODEC_NIBBLE};
    int place = 0;
    int answer = read_word(r, value, "auto none lz4 delta nibble", &place);
    if (answer == GO_ON)
        r->args->options.spill_codec = codecs[place];
    return answer;
}

static int read_progress(reader *r, const char *value) {
    static const cli_progress whens[] = {CLI_PROGRESS_AUTO, CLI_PROGRESS_ALWAYS, CLI_PROGRESS_NEVER,
                                         CLI_PROGRESS_JSON};
    int place = 0;
    int answer = read_word(r, value, "auto always never json", &place);
    if (answer == GO_ON)
        r->args->progress = whens[place];
    return answer;
}

/** Options that need a look at their value. */
static int take_value(reader *r, int id, const char *value) {
    cb_sort_options *o = &r->args->options;
    switch (id) {
        case SORT_KEY: r->args->keys[o->key_count++] = value; return GO_ON;
        case SORT_TEMP: r->args->temp_dirs[o->temp_dir_count++] = value; return GO_ON;
        case SORT_SEPARATOR: return read_separator(r, value);
        case SORT_SORT: return read_order_word(r, value);
        case SORT_CHECK: return read_check(r, value);
        case SORT_OUTPUT: return read_output(r, value);
        case SORT_FORMAT: return read_format(r, value);
        case SORT_BAD_ROWS: return read_bad_rows(r, value);
        case SORT_FILES0_FROM: r->files0 = value; return GO_ON;
        case SORT_MEMORY:
            r->memory = value;
            r->memory_seen = strcmp(r->parser.seen, "-S") == 0 ? "-S"
                             : r->parser.seen[2] == 'b'        ? "--buffer-size"
                                                               : "--memory";
            return GO_ON;
        case SORT_THREADS: return read_threads(r, value);
        case SORT_TEMP_LIMIT: return read_temp_limit(r, value);
        case SORT_CODEC: return read_codec(r, value);
        case SORT_BATCH_SIZE: return read_batch_size(r, value);
        case SORT_COMPRESS_PROGRAM: o->spill_codec = CB_CODEC_LZ4; return GO_ON;
        case SORT_PROGRESS: return read_progress(r, value);
        case SORT_STATUS: r->args->status_path = value; return GO_ON;
        case SORT_STATS:
            r->args->stats = true;
            r->args->stats_path = value != NULL && strcmp(value, "-") != 0 ? value : NULL;
            return GO_ON;
        case SORT_RANDOM_SOURCE:
        default: r->random_source = true; return GO_ON;
    }
}

/** Options that only say yes. Answers GO_ON, an exit code, or 256 when it is not one of them. */
static int take_flag(reader *r, int id) {
    cli_sort_args *a = r->args;
    switch (id) {
        case SORT_REVERSE: r->order['r'] = true; return GO_ON;
        case SORT_UNIQUE: a->options.unique = true; return GO_ON;
        case SORT_STABLE: a->options.stable = true; return GO_ON;
        case SORT_CHECK_QUIET: return read_check(r, "quiet");
        case SORT_MERGE: a->options.action = CB_SORT_MERGE; return GO_ON;
        case SORT_HEADER: a->options.header = CB_HEADER_YES; return GO_ON;
        case SORT_NO_HEADER: a->options.header = CB_HEADER_NO; return GO_ON;
        case SORT_ZERO: a->options.zero_terminated = true; return GO_ON;
        case SORT_EXPLAIN: a->explain = true; return GO_ON;
        case SORT_QUIET: a->quiet = true; return GO_ON;
        case SORT_VERBOSE: a->verbose = true; return GO_ON;
        case SORT_DEBUG:
            cli_complain("--debug does nothing here: keys are not shown");
            return GO_ON;
        case SORT_GNU: return GO_ON; /* seen before */
        case SORT_HELP: return cli_help(&cli_verb_sort);
        case SORT_VERSION:
            return cli_print(a->gnu ? "sort (carbide) " CARBIDE_VERSION "\n"
                                    : "carbide " CARBIDE_VERSION "\n");
        default:
            if (id > 0 && id < 128) {
                r->order[id] = true;
                return GO_ON;
            }
            return 256;
    }
}

static int take_options(reader *r) {
    const char *value = NULL;
    int id;
    while ((id = cli_parser_next(&r->parser, &value)) != CLI_PARSE_END) {
        if (id == CLI_PARSE_ERROR)
            return CLI_EXIT_TROUBLE;
        int answer = take_flag(r, id);
        if (answer == 256)
            answer = take_value(r, id, value);
        if (answer != GO_ON)
            return answer;
    }
    return GO_ON;
}

/** The budget: the last -S, else CARBIDE_MEMORY, else what the engine finds. */
static int finish_memory(reader *r) {
    const char *text = r->memory, *from = r->memory_seen;
    uint64_t unit = r->args->gnu ? 1024 : 1; /* GNU sort counts in KiB when nothing else is said */
    if (text == NULL) {
        text = getenv("CARBIDE_MEMORY");
        from = "CARBIDE_MEMORY";
        unit = 1;
    }
    if (text == NULL || *text == '\0' || strcmp(text, "auto") == 0)
        return GO_ON;
    uint64_t whole = strchr(text, '%') != NULL ? cli_host_memory_whole() : 0;
    uint64_t bytes = 0;
    cli_number why = cli_size_parse(text, unit, whole, &bytes);
    if (why != CLI_NUMBER_OK)
        return bad_number(why, from, text);
    if (r->args->gnu && bytes < GNU_BUDGET_MIN)
        bytes = GNU_BUDGET_MIN; /* GNU sort raises a small figure too, and scripts rely on it */
    r->args->options.memory_bytes = bytes > 0 ? bytes : 1;
    return GO_ON;
}

/** GNU sort's rule of which orders exclude each other, for the whole row; the library judges the
 * keys. */
static int finish_order(reader *r) {
    static const char letters[] = "bdfgiMhnRrV";
    const bool *on = r->order;
    size_t n = 0;
    for (const char *l = letters; *l != '\0'; l++)
        if (on[(unsigned char)*l])
            r->args->global_order[n++] = *l;
    r->args->options.global_order = n > 0 ? r->args->global_order : NULL;

    int kinds = on['n'] + on['g'] + on['h'] + on['M'] + (on['V'] || on['R'] || on['d'] || on['i']);
    if (kinds < 2 || r->args->options.key_count > 0)
        return GO_ON;
    char both[16];
    n = 0;
    for (const char *l = "dfghiMnRV"; *l != '\0'; l++)
        if (on[(unsigned char)*l] && !(*l == 'i' && on['d']))
            both[n++] = *l;
    both[n] = '\0';
    cli_complain("options '-%s' are incompatible", both);
    return CLI_EXIT_TROUBLE;
}

/** GNU sort looks at the source only when something is shuffled. */
static int finish_random(const reader *r) {
    bool random = r->order['R'];
    for (size_t i = 0; i < r->args->options.key_count; i++) {
        const char *key = r->args->keys[i];
        random = random || (key[0] >= '0' && key[0] <= '9' && strchr(key, 'R') != NULL);
    }
    if (!random || !r->random_source)
        return GO_ON;
    cli_complain("--random-source is not supported: a random order is the same in every run here");
    return CLI_EXIT_TROUBLE;
}

static int finish_check(reader *r) {
    cb_sort_options *o = &r->args->options;
    if (r->check == 0)
        return GO_ON;
    r->args->check_quiet = r->check == 'C';
    o->action = CB_SORT_CHECK;
    if (o->input_count > 1) {
        cli_complain("extra operand '%s' not allowed with -%c", o->inputs[1], r->check);
        return CLI_EXIT_TROUBLE;
    }
    if (o->output != NULL) {
        cli_complain("options '-%co' are incompatible", r->check);
        return CLI_EXIT_TROUBLE;
    }
    return GO_ON;
}

/** Reads the whole of a file of names into args->names, with a NUL after the last; *bytes without
 * that. */
static int read_names(cli_sort_args *args, const char *path, size_t *bytes) {
    int result = CLI_EXIT_TROUBLE;
    size_t cap = 0, used = 0;
    int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        cli_complain("open failed: %s: %s", path, strerror(errno));
        return CLI_EXIT_TROUBLE;
    }
    for (;;) {
        if (used + 1 >= cap) {
            cap = cap == 0 ? 4096 : cap * 2;
            char *names = cap <= FILES0_BYTES_MAX ? realloc(args->names, cap) : NULL;
            if (names == NULL) {
                cli_complain("too many names in %s", path);
                goto out;
            }
            args->names = names;
        }
        ssize_t n = read(fd, args->names + used, cap - used - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            cli_complain("read failed: %s: %s", path, strerror(errno));
            goto out;
        }
        if (n == 0)
            break;
        used += (size_t)n;
    }
    args->names[used] = '\0';
    *bytes = used;
    result = GO_ON;
out:
    if (fd != STDIN_FILENO)
        close(fd);
    return result;
}

static int take_names(reader *r) {
    cli_sort_args *a = r->args;
    size_t bytes = 0, count = 0;
    if (r->parser.operand_count > 0) {
        return cli_usage_error("sort",
                               "extra operand '%s'\n"
                               "file operands cannot be combined with --files0-from",
                               r->parser.argv[0]);
    }
    int answer = read_names(a, r->files0, &bytes);
    if (answer != GO_ON)
        return answer;
    for (size_t i = 0; i < bytes; i += strlen(a->names + i) + 1)
        count++;
    if (count == 0) {
        cli_complain("no input from '%s'", r->files0);
        return CLI_EXIT_TROUBLE;
    }
    a->inputs = malloc(count * sizeof *a->inputs);
    if (a->inputs == NULL) {
        cli_complain("memory exhausted");
        return CLI_EXIT_TROUBLE;
    }
    count = 0;
    for (size_t i = 0; i < bytes; i += strlen(a->names + i) + 1) {
        a->inputs[count++] = a->names + i;
        if (a->names[i] == '\0') {
            cli_complain("%s:%zu: invalid zero-length file name", r->files0, count);
            return CLI_EXIT_TROUBLE;
        }
        if (strcmp(r->files0, "-") == 0 && strcmp(a->names + i, "-") == 0) {
            cli_complain("when reading file names from stdin, no file name of '-' allowed");
            return CLI_EXIT_TROUBLE;
        }
    }
    a->options.inputs = a->inputs;
    a->options.input_count = count;
    return GO_ON;
}

static int finish_inputs(reader *r) {
    cb_sort_options *o = &r->args->options;
    if (r->files0 != NULL)
        return take_names(r);
    o->input_count = r->parser.operand_count;
    o->inputs = (const char *const *)r->parser.argv;
    return GO_ON;
}

static bool asks_for_gnu(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--gnu") == 0)
            return true;
    return false;
}

int cli_sort_args_read(cli_sort_args *args, int argc, char **argv, bool gnu) {
    reader r = {.args = args};
    *args = (cli_sort_args){.gnu = gnu || asks_for_gnu(argc, argv)};
    if (args->gnu)
        cli_program = "sort";
    args->options.struct_size = sizeof args->options;
    args->options.field_separator = -1;
    args->options.gnu = args->gnu;
    if (args->gnu)
        args->options.format = CB_FORMAT_LINES; /* whatever the files are called */
    args->keys = calloc((size_t)argc, sizeof *args->keys);
    args->temp_dirs = calloc((size_t)argc, sizeof *args->temp_dirs);
    if (args->keys == NULL || args->temp_dirs == NULL) {
        cli_complain("memory exhausted");
        return CLI_EXIT_TROUBLE;
    }
    cli_parser_init(&r.parser, &cli_verb_sort, argc, argv);
    int answer = take_options(&r);
    if (answer == GO_ON)
        answer = finish_inputs(&r);
    if (answer == GO_ON)
        answer = finish_order(&r);
    if (answer == GO_ON)
        answer = finish_random(&r);
    if (answer == GO_ON)
        answer = finish_check(&r);
    if (answer == GO_ON)
        answer = finish_memory(&r);
    args->options.keys = args->keys;
    args->options.temp_dirs = args->temp_dirs;
    return answer;
}

void cli_sort_args_fini(cli_sort_args *args) {
    free(args->keys);
    free(args->temp_dirs);
    free(args->inputs);
    free(args->names);
    *args = (cli_sort_args){0};
}
