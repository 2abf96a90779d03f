/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `carbide gen`: each thread takes the next block of rows, makes it in its own buffer, waits for
 * its turn to learn where the block goes (blocks of text differ in length), and writes it there
 * while the next one has its turn.
 */
#include "gen.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host.h"
#include "options.h"
#include "output.h"
#include "text.h"

enum { GO_ON = -1, BLOCK_BYTES = 1024 * 1024, THREADS_MAX = 64, LENGTH_MAX = 1024 * 1024 };

/* Ten digits are what an id of the finer columns has. */
#define GROUPS_MAX UINT64_C(9999999999)

enum {
    GEN_ROWS = 1,
    GEN_BYTES,
    GEN_SEED,
    GEN_START,
    GEN_OUTPUT,
    GEN_THREADS,
    GEN_ASCII,
    GEN_BINARY,
    GEN_KEYS,
    GEN_SKEW,
    GEN_GROUPS,
    GEN_LENGTH,
    GEN_NO_HEADER,
    GEN_TABLE,
    GEN_MISSING,
    GEN_HELP
};

#define JOIN_TABLES "x small medium big left right"

static const cli_option how_much[] = {
    {.id = GEN_ROWS,
     .letter = 'n',
     .name = "rows",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "that many rows; K M G T are thousands, millions, ..."},
    {.id = GEN_BYTES,
     .name = "bytes",
     .arg = CLI_ARG_NEEDED,
     .meta = "SIZE",
     .help = "as many whole rows as fit into SIZE (K M G T are\npowers of 1024)"},
    {.id = GEN_OUTPUT,
     .letter = 'o',
     .name = "output",
     .arg = CLI_ARG_NEEDED,
     .meta = "FILE",
     .values = "@file",
     .help = "there instead of standard output; appears whole or\nnot at all"},
    {.id = GEN_THREADS,
     .letter = 'j',
     .name = "parallel",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "threads; one per usable CPU otherwise"},
};
static const cli_option what[] = {
    {.id = GEN_SEED,
     .name = "seed",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "other data; 1 otherwise"},
    {.id = GEN_START,
     .name = "start",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "begin with row N of the endless file of that seed"},
    {.id = GEN_ASCII, .name = "ascii", .help = "records: printable, ended by CRLF (the default)"},
    {.id = GEN_BINARY, .name = "binary", .help = "records: binary keys, no line ends"},
    {.id = GEN_KEYS,
     .name = "keys",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "records, lines: only N different keys"},
    {.id = GEN_SKEW,
     .name = "skew",
     .help = "records, lines: the k-th key comes up 1/k as often\nas the first (of a million keys "
             "without --keys)"},
    {.id = GEN_GROUPS,
     .letter = 'K',
     .name = "groups",
     .arg = CLI_ARG_NEEDED,
     .meta = "K",
     .help = "group: K groups in id1, id2, id4, id5 and rows/K in\nid3, id6; 100 otherwise"},
    {.id = GEN_LENGTH,
     .name = "length",
     .arg = CLI_ARG_NEEDED,
     .meta = "N",
     .help = "lines: of 0 to N bytes; 120 otherwise"},
    {.id = GEN_TABLE,
     .name = "table",
     .arg = CLI_ARG_NEEDED,
     .meta = "NAME",
     .values = JOIN_TABLES,
     .help = "join: which table: x (N rows; the default), the right\nones small (N/1e6), medium "
             "(N/1e3), big (N), or the\nnarrower pair left and right (N each)"},
    {.id = GEN_MISSING,
     .name = "missing",
     .arg = CLI_ARG_NEEDED,
     .meta = "P",
     .help = "group, join: P percent of the values are missing"},
    {.id = GEN_NO_HEADER, .name = "no-header", .help = "group, join: no row of names"},
    {.id = GEN_HELP, .letter = 'h', .name = "help", .help = "this"},
};
static const cli_group groups[] = {
    {"How much, and where to", how_much, CLI_COUNT(how_much)},
    {"What", what, CLI_COUNT(what)},
};
const cli_verb cli_verb_gen = {
    .name = "gen",
    .summary = "makes test data, fast and the same every time",
    .usage = "gen records|lines|group|join [OPTION]...",
    .examples =
        "carbide gen records -n 20M -o s.txt           2 GB in the sort benchmark's shape\n"
        "carbide gen records --binary --bytes 1G       the same with binary keys, in 1 GiB\n"
        "carbide gen records -n 1M --skew --keys 1000  many equal keys\n"
        "carbide gen lines -n 1M --seed 7              lines of words, of differing length\n"
        "carbide gen group --bytes 1G -o g.csv         nine columns with a header ('csv' means it "
        "too)\n"
        "carbide gen join -n 10M -o x.csv              the left table of the join benchmark, and\n"
        "carbide gen join -n 10M --table big -o y.csv  what it is joined with",
    .notes =
        "records  100 bytes each: a key of 10 random bytes, the row's number in 32 "
        "hexadecimal digits, filler\n"
        "lines    lower-case words and blanks\n"
        "group    id1,id2,id3 (text), id4,id5,id6 (integers), v1,v2 (small integers), v3 (six "
        "decimals)\n"
        "join     x, big: id1,id2,id3 (integers), id4,id5,id6 (the same as text), v1 or v2\n"
        "         medium, small: without id3 and id6, id2 and id5; 90 % of the keys are common\n"
        "         left: id,g,v1; right: id,name,v2, ids are unique",
    .words = "records lines group join csv",
    .groups = groups,
    .group_count = CLI_COUNT(groups),
};

typedef struct gen_args {
    gen_rows rows;
    uint64_t count, bytes, start;
    bool binary, no_header;
    unsigned threads;
    const char *output;
    uint64_t seed, keys, groups, length, missing;
    gen_join table;
    bool skewed;
} gen_args;

typedef struct gen_job {
    const gen_rows *rows;
    cli_output *output;
    uint64_t first, count; /* rows */
    uint64_t bytes_max;    /* 0 = no limit */
    uint64_t block_rows;

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t turn_came;
    uint64_t block_next, turn;
    uint64_t offset;
    bool stop;
    int failed; /* errno */
} gen_job;

/** The whole rows in the first `room` of `bytes` bytes. */
static size_t whole_rows(const gen_rows *rows, const char *data, size_t bytes, uint64_t room) {
    if (bytes <= room)
        return bytes;
    if (rows->fixed)
        return (size_t)room / rows->row_bytes_max * rows->row_bytes_max;
    const char *end = room > 0 ? memrchr(data, '\n', (size_t)room) : NULL;
    return end != NULL ? (size_t)(end - data) + 1 : 0;
}

/** Waits for the turn of a block and places it; pipes are written in turn, files after it. */
static bool put_block(gen_job *job, uint64_t block, const char *data, size_t bytes) {
    pthread_mutex_lock(&job->lock);
    while (job->turn != block && !job->stop)
        pthread_cond_wait(&job->turn_came, &job->lock);
    if (job->stop) {
        pthread_mutex_unlock(&job->lock);
        return false;
    }
    uint64_t offset = job->offset;
    if (job->bytes_max > 0) {
        size_t whole = whole_rows(job->rows, data, bytes, job->bytes_max - offset);
        job->stop = whole < bytes;
        bytes = whole;
    }
    job->offset += bytes;
    bool seekable = job->output->seekable;
    int why = seekable ? 0 : cli_output_write(job->output, data, bytes, offset);
    job->turn++;
    job->stop |= why != 0;
    bool more = !job->stop;
    pthread_cond_broadcast(&job->turn_came);
    pthread_mutex_unlock(&job->lock);
    if (seekable)
        why = cli_output_write(job->output, data, bytes, offset);
    if (why != 0) {
        pthread_mutex_lock(&job->lock);
        job->failed = job->failed != 0 ? job->failed : why;
        job->stop = true;
        pthread_cond_broadcast(&job->turn_came);
        pthread_mutex_unlock(&job->lock);
    }
    return more && why == 0;
}

static void *worker(void *ctx) {
    gen_job *job = ctx;
    char *data = malloc((size_t)job->block_rows * job->rows->row_bytes_max);
    bool more = data != NULL;
    while (more) {
        pthread_mutex_lock(&job->lock);
        uint64_t block = job->block_next;
        uint64_t skipped = block * job->block_rows;
        bool left = !job->stop && skipped < job->count;
        job->block_next += left;
        pthread_mutex_unlock(&job->lock);
        if (!left)
            break;
        uint64_t rows =
            job->count - skipped < job->block_rows ? job->count - skipped : job->block_rows;
        size_t bytes = job->rows->fill(job->rows, job->first + skipped, rows, data);
        more = put_block(job, block, data, bytes);
    }
    if (data == NULL) {
        pthread_mutex_lock(&job->lock);
        job->failed = ENOMEM;
        job->stop = true;
        pthread_cond_broadcast(&job->turn_came);
        pthread_mutex_unlock(&job->lock);
    }
    free(data);
    return NULL;
}

/** errno, or 0. */
static int make(gen_job *job, unsigned threads) {
    pthread_t others[THREADS_MAX];
    unsigned started = 0;
    const char *header = job->rows->header;
    if (header != NULL) {
        job->offset = strlen(header);
        if (job->bytes_max > 0 && job->bytes_max < job->offset)
            job->bytes_max = job->offset;
        int why = cli_output_write(job->output, header, (size_t)job->offset, 0);
        if (why != 0)
            return why;
    }
    pthread_mutex_init(&job->lock, NULL);
    pthread_cond_init(&job->turn_came, NULL);
    while (started + 1 < threads && pthread_create(&others[started], NULL, worker, job) == 0)
        started++; /* fewer than wished for are enough */
    (void)worker(job);
    while (started > 0)
        (void)pthread_join(others[--started], NULL);
    pthread_cond_destroy(&job->turn_came);
    pthread_mutex_destroy(&job->lock);
    return job->failed;
}

static int bad_value(const char *option, const char *value) {
    return cli_usage_error("gen", "invalid %s argument '%s'", option, value);
}

static int take(gen_args *a, int id, const char *seen, const char *value) {
    uint64_t n = 0;
    bool counted = value != NULL && cli_count_parse(value, &n) == CLI_NUMBER_OK;
    switch (id) {
        case GEN_OUTPUT: a->output = value; return GO_ON;
        case GEN_ASCII: a->binary = false; return GO_ON;
        case GEN_BINARY: a->binary = true; return GO_ON;
        case GEN_SKEW: a->skewed = true; return GO_ON;
        case GEN_NO_HEADER: a->no_header = true; return GO_ON;
        case GEN_TABLE: {
            int place = cli_word_find(JOIN_TABLES, value);
            a->table = (gen_join)place;
            return place >= 0 ? GO_ON : bad_value(seen, value);
        }
        case GEN_HELP: return cli_help(&cli_verb_gen);
        case GEN_BYTES:
            if (cli_size_parse(value, 1, 0, &a->bytes) != CLI_NUMBER_OK || a->bytes == 0)
                return bad_value(seen, value);
            return GO_ON;
        default: break;
    }
    if (!counted || (n == 0 && (id == GEN_KEYS || id == GEN_GROUPS || id == GEN_THREADS)) ||
        (id == GEN_LENGTH && n > LENGTH_MAX) || (id == GEN_MISSING && n > 100) ||
        (id == GEN_GROUPS && n > GROUPS_MAX) || n > INT64_MAX)
        return bad_value(seen, value);
    switch (id) {
        case GEN_ROWS: a->count = n; break;
        case GEN_SEED: a->seed = n; break;
        case GEN_START: a->start = n; break;
        case GEN_KEYS: a->keys = n; break;
        case GEN_GROUPS: a->groups = n; break;
        case GEN_LENGTH: a->length = n; break;
        case GEN_MISSING: a->missing = n; break;
        default: a->threads = n > THREADS_MAX ? THREADS_MAX : (unsigned)n; break;
    }
    return GO_ON;
}

static int choose_rows(gen_args *a, const char *kind) {
    if (strcmp(kind, "records") == 0) {
        if (a->binary)
            gen_rows_init_binary(&a->rows);
        else
            gen_rows_init_ascii(&a->rows);
    } else if (strcmp(kind, "lines") == 0) {
        gen_rows_init_lines(&a->rows);
        if (a->length != UINT64_MAX) {
            a->rows.length_max = a->length;
            a->rows.row_bytes_max = (size_t)a->length + 8; /* see fill_lines */
        }
    } else if (strcmp(kind, "group") == 0 || strcmp(kind, "csv") == 0) {
        gen_rows_init_group(&a->rows);
        uint64_t rows = a->count != UINT64_MAX ? a->count : a->bytes / 50;
        a->rows.groups = a->groups > 0 ? a->groups : a->rows.groups;
        uint64_t fine = rows > a->rows.groups ? rows / a->rows.groups : 1;
        a->rows.groups_fine = fine < GROUPS_MAX ? fine : GROUPS_MAX;
    } else if (strcmp(kind, "join") == 0) {
        if (a->count == UINT64_MAX || a->count > GROUPS_MAX / 2)
            return cli_usage_error("gen", "join: -n says how many rows the left table has");
        gen_rows_init_join(&a->rows, a->table, a->count);
        uint64_t rows = gen_join_rows(&a->rows);
        a->count = rows > a->start ? rows - a->start : 0;
    } else {
        return cli_usage_error("gen", "there is no kind of data called '%s'", kind);
    }
    a->rows.header = a->no_header ? NULL : a->rows.header;
    a->rows.missing = (unsigned)a->missing;
    a->rows.seed = a->seed;
    a->rows.keys = a->skewed && a->keys == 0 ? 1000000 : a->keys;
    a->rows.skewed = a->skewed;
    return GO_ON;
}

static int read_args(gen_args *a, int argc, char **argv) {
    cli_parser parser;
    const char *value = NULL;
    int id;
    *a = (gen_args){.count = UINT64_MAX, .seed = 1, .length = UINT64_MAX};
    cli_parser_init(&parser, &cli_verb_gen, argc, argv);
    while ((id = cli_parser_next(&parser, &value)) != CLI_PARSE_END) {
        int answer = id == CLI_PARSE_ERROR ? CLI_EXIT_TROUBLE : take(a, id, parser.seen, value);
        if (answer != GO_ON)
            return answer;
    }
    if (parser.operand_count == 0)
        return cli_usage_error("gen", "what shall it be: records, lines, group or join?");
    if (parser.operand_count > 1)
        return cli_usage_error("gen", "extra operand '%s'", parser.argv[1]);
    if (a->count == UINT64_MAX && a->bytes == 0)
        return cli_usage_error("gen", "how much shall it be: -n ROWS or --bytes SIZE?");
    return choose_rows(a, parser.argv[0]);
}

int cli_gen_main(int argc, char **argv) {
    gen_args args;
    cli_output output;
    int answer = read_args(&args, argc, argv);
    if (answer != GO_ON)
        return answer;
    if (!cli_output_open(&output, args.output))
        return CLI_EXIT_TROUBLE;
    size_t row_bytes = args.rows.row_bytes_max > 0 ? args.rows.row_bytes_max : 1;
    uint64_t block_rows = BLOCK_BYTES / row_bytes;
    gen_job job = {
        .rows = &args.rows,
        .output = &output,
        .first = args.start,
        .count = args.count,
        .bytes_max = args.bytes,
        .block_rows = block_rows > 0 ? block_rows : 1,
    };
    unsigned threads = args.threads;
    if (threads == 0) {
        cli_host host;
        cli_host_look(&host);
        threads = host.cpus_allowed < THREADS_MAX ? host.cpus_allowed : THREADS_MAX;
    }
    int why = make(&job, threads);
    if (why == 0)
        why = cli_output_finish(&output, job.offset);
    if (why != 0)
        cli_complain("cannot write %s: %s", output.name, strerror(why));
    cli_output_fini(&output);
    return why == 0 ? CLI_EXIT_OK : CLI_EXIT_TROUBLE;
}
