/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Whole runs of join over any bytes as two tables, twice (fuzz_jobs.h). Besides: of the left rows
 * those that have a partner and those that have none are all there are, and an inner join has a row
 * for each pair that the full one has.
 *
 * Input: choices, see choose(), then lines of the left, a zero byte, lines of the right.
 */

#include "fuzz_jobs.h"

#include "carbide/join.h"

enum { LINES_MAX = 20, KEYS_MAX = 3 };

typedef struct choices {
    const char *keys[KEYS_MAX];
    size_t key_count;
    cb_join_how how;
    bool nulls, keys_first;
    cb_join_order order;
    cb_job_options job;
    unsigned times;
    uint64_t little;
    unsigned threads;
} choices;

static void choose(fuzz_bytes *b, choices *c) {
    static const char *const keys[] = {"k", "i:num", "n"};
    *c = (choices){.how = (cb_join_how)fuzz_choice(b, CB_JOIN_ALONE_RIGHT + 1)};
    unsigned which = fuzz_choice(b, 8), flags = fuzz_choice(b, 256);
    /* in many rows the number is a key, or each would have a partner in all repetitions */
    c->times = (flags & 3) == 3 ? 0 : (flags & 1) != 0 ? 20 : 1;
    which |= c->times == 0 ? 4 : which == 0;
    for (unsigned i = 0; i < 3; i++)
        if ((which & 1U << i) != 0)
            c->keys[c->key_count++] = keys[i];
    c->nulls = (flags & 4) != 0;
    c->keys_first = (flags & 8) != 0;
    c->job.bad_rows = (flags & 16) != 0 ? CB_BAD_ROWS_ERROR : CB_BAD_ROWS_SKIP;
    c->job.format = (flags & 32) != 0 ? CB_FORMAT_TSV : CB_FORMAT_CSV;
    c->order = (flags & 192) != 192 ? CB_JOIN_UNSORTED : CB_JOIN_SORTED;
    c->little = (uint64_t)(4 + fuzz_choice(b, 8)) << 20;
    c->threads = 1 + fuzz_choice(b, 3);
    c->job.baseline_bytes = FUZZ_BASELINE;
}

static cb_status run(const choices *c, cb_join_how how, fuzz_text *out, cb_join_stats *stats,
                     cb_error *err) {
    cb_join_options o = {.struct_size = sizeof o,
                         .job = c->job,
                         .how = how,
                         .left_keys = c->keys,
                         .key_count = c->key_count,
                         .keys_first = c->keys_first,
                         .match_nulls = c->nulls,
                         .order = c->order};
    cb_join *j = NULL;
    o.job.write = fuzz_row;
    o.job.write_ctx = out;
    cb_status status = cb_join_create(&o, &j, err);
    if (status == CB_OK) {
        status = cb_join_run(j, err);
        *stats = (cb_join_stats){.struct_size = sizeof *stats};
        cb_join_get_stats(j, stats);
    }
    cb_join_destroy(j);
    return status;
}

/* Rows of the result of another kind of join; UINT64_MAX: it could not be done here. */
static uint64_t count(const choices *c, cb_join_how how, uint64_t *left) {
    fuzz_text out = {.used = 0};
    cb_join_stats stats = {.rows_left = 0};
    cb_error err;
    cb_status status = run(c, how, &out, &stats, &err);
    free(out.bytes);
    *left = stats.rows_left;
    return status == CB_OK ? stats.job.rows_out : UINT64_MAX;
}

static void count_all(const choices *c) {
    uint64_t left, ignored, some = count(c, CB_JOIN_SEMI, &left);
    uint64_t none = count(c, CB_JOIN_ANTI, &ignored);
    if (some != UINT64_MAX && none != UINT64_MAX)
        cb_assert(some + none == left && left == ignored);
    uint64_t inner = count(c, CB_JOIN_INNER, &ignored), alone = count(c, CB_JOIN_ALONE, &ignored);
    uint64_t all = count(c, CB_JOIN_FULL, &ignored);
    if (inner != UINT64_MAX && alone != UINT64_MAX && all != UINT64_MAX)
        cb_assert(inner + alone == all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_bytes b = {data, data + size};
    choices c;
    cb_join_stats stats;
    cb_error err = {.message = ""};
    fuzz_text tables[2] = {{.used = 0}, {.used = 0}}, much = {.used = 0}, few = {.used = 0};
    fuzz_file files[2];
    choose(&b, &c);
    fuzz_bytes left = fuzz_split(&b);
    char separator = c.job.format == CB_FORMAT_TSV ? '\t' : ',';
    fuzz_table(&tables[0], "n,p,k,i,l\n", separator, left, c.times, LINES_MAX);
    fuzz_table(&tables[1], "n,p,k,i,r\n", separator, b, c.times, LINES_MAX);
    fuzz_file_make(&files[0], &tables[0]);
    fuzz_file_make(&files[1], &tables[1]);
    const char *paths[2] = {files[0].path, files[1].path};
    c.job.inputs = paths;
    c.job.input_count = 2;
    c.job.memory_bytes = FUZZ_PLENTY;
    c.job.threads = 1;
    cb_status plenty = run(&c, c.how, &much, &stats, &err);
    if (plenty == CB_OK && c.times == 1)
        count_all(&c);
    c.job.memory_bytes = c.little;
    c.job.threads = c.threads;
    cb_status little = run(&c, c.how, &few, &stats, &err);
    fuzz_compare(plenty, &much, little, &few, &err);
    for (int i = 0; i < 2; i++) {
        (void)close(files[i].fd);
        free(tables[i].bytes);
    }
    free(much.bytes);
    free(few.bytes);
    return 0;
}
