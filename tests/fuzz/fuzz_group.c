/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Whole runs of group and dedupe over any bytes as a table, twice (fuzz_jobs.h). Besides: all rows
 * are in some group, and each row stays or is a duplicate.
 *
 * Input: choices, see choose(), then lines.
 */

#include "fuzz_jobs.h"

#include "carbide/dedupe.h"
#include "carbide/group.h"

static const char *const aggregates[] = {
    "count()",     "sum(i)",        "mean(i)",    "min(i)",      "max(i)",     "sd(i)",
    "last(p)",     "corr(i,n)",     "median(i)",  "p90(i)",      "collect(p)", "countdistinct(k)",
    "first(k)",    "last(i:str)",   "mode(k)",    "collect(i)",  "top2(i)",    "bottom3(k:str)",
    "argmax(k,i)", "argmin(row,i)", "min(k:str)", "mode(i:num)", "max(n)",     "approxdistinct(k)"};

enum { AGGREGATES = sizeof aggregates / sizeof *aggregates, WANTED_MAX = 6, KEYS_MAX = 3 };

typedef struct choices {
    bool dedupe;
    const char *keys[KEYS_MAX], *wanted[WANTED_MAX];
    size_t key_count, wanted_count;
    bool sorted, counts;
    cb_keep keep;
    cb_job_options job;
    unsigned times;
    uint64_t little;
    unsigned threads;
} choices;

static void choose(fuzz_bytes *b, choices *c) {
    static const char *const keys[] = {"k", "i:num", "n:int", "i"};
    *c = (choices){.dedupe = fuzz_choice(b, 3) == 0};
    unsigned which = fuzz_choice(b, 16);
    for (unsigned i = 0; i < 4; i++)
        if ((which & 1U << i) != 0 && c->key_count < KEYS_MAX)
            c->keys[c->key_count++] = keys[i];
    for (unsigned n = fuzz_choice(b, WANTED_MAX); c->wanted_count < n;)
        c->wanted[c->wanted_count++] = aggregates[fuzz_choice(b, AGGREGATES)];
    c->wanted[c->wanted_count++] = "count()";
    unsigned flags = fuzz_choice(b, 256);
    c->sorted = (flags & 1) != 0 && c->key_count > 0;
    c->counts = (flags & 2) != 0;
    c->job.format = (flags & 4) != 0 ? CB_FORMAT_TSV : CB_FORMAT_CSV;
    c->job.bad_rows = (flags & 8) != 0 ? CB_BAD_ROWS_ERROR : CB_BAD_ROWS_SKIP;
    c->times = (flags & 48) == 48 ? 0 : (flags & 16) != 0 ? 20 : 1;
    if ((flags & 64) != 0) {
        c->job.has_field_separator = true;
        c->job.field_separator = ';';
    }
    c->keep = (cb_keep)fuzz_choice(b, CB_KEEP_MIN + 1);
    c->little = (uint64_t)(4 + fuzz_choice(b, 8)) << 20;
    c->threads = 1 + fuzz_choice(b, 3);
    c->job.baseline_bytes = FUZZ_BASELINE;
}

static cb_status group(const choices *c, fuzz_text *out, cb_error *err) {
    cb_group_options o = {.struct_size = sizeof o,
                          .job = c->job,
                          .keys = c->keys,
                          .key_count = c->key_count,
                          .aggregates = c->wanted,
                          .aggregate_count = c->wanted_count,
                          .sorted_output = c->sorted};
    cb_group *g = NULL;
    o.job.write = fuzz_row;
    o.job.write_ctx = out;
    cb_status status = cb_group_create(&o, &g, err);
    if (status == CB_OK)
        status = cb_group_run(g, err);
    cb_group_destroy(g);
    return status;
}

static cb_status dedupe(const choices *c, fuzz_text *out, cb_job_stats *stats, cb_error *err) {
    cb_dedupe_options o = {.struct_size = sizeof o,
                           .job = c->job,
                           .keys = c->keys,
                           .key_count = c->key_count,
                           .keep = c->keep,
                           .keep_column = c->keep >= CB_KEEP_MAX ? "i" : NULL,
                           .counts = c->counts,
                           .sorted_output = c->sorted};
    cb_dedupe *d = NULL;
    o.job.write = fuzz_row;
    o.job.write_ctx = out;
    cb_status status = cb_dedupe_create(&o, &d, err);
    if (status == CB_OK) {
        status = cb_dedupe_run(d, err);
        cb_dedupe_get_stats(d, stats);
    }
    cb_dedupe_destroy(d);
    return status;
}

static cb_status run(const choices *c, fuzz_text *out, cb_error *err) {
    if (!c->dedupe)
        return group(c, out, err);
    cb_job_stats stats = {.rows_in = 0};
    cb_status status = dedupe(c, out, &stats, err);
    if (status == CB_OK)
        cb_assert(stats.rows_out <= stats.rows_in && stats.rows_out <= out->rows);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_bytes b = {data, data + size};
    choices c;
    cb_error err = {.message = ""};
    fuzz_text table = {.used = 0}, much = {.used = 0}, few = {.used = 0};
    fuzz_file file;
    choose(&b, &c);
    char separator = c.job.has_field_separator ? ';' : c.job.format == CB_FORMAT_TSV ? '\t' : ',';
    fuzz_table(&table, "n,p,k,i\n", separator, b, c.times, 24);
    fuzz_file_make(&file, &table);
    const char *path = file.path;
    c.job.inputs = &path;
    c.job.input_count = 1;
    c.job.memory_bytes = FUZZ_PLENTY;
    c.job.threads = 1;
    cb_status plenty = run(&c, &much, &err);
    c.job.memory_bytes = c.little;
    c.job.threads = c.threads;
    cb_status little = run(&c, &few, &err);
    fuzz_compare(plenty, &much, little, &few, &err);
    (void)close(file.fd);
    free(table.bytes);
    free(much.bytes);
    free(few.bytes);
    return 0;
}
