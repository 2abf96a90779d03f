/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Whole runs of partition over any bytes as a table, twice (fuzz_jobs.h): targets and their rows in
 * one order, all rows somewhere, names that lead out of no folder.
 *
 * Input: choices, see choose(), then lines.
 */

#include "fuzz_jobs.h"

#include "carbide/partition.h"

enum { KEYS_MAX = 3 };

typedef struct choices {
    const char *keys[KEYS_MAX];
    size_t key_count;
    cb_partition_by by;
    uint32_t count;
    const char *pattern;
    cb_job_options job;
    unsigned times;
    uint64_t little;
    unsigned threads;
} choices;

typedef struct taker {
    fuzz_text out;
    char *before; /* the name of the target before */
    uint64_t rows;
} taker;

static void choose(fuzz_bytes *b, choices *c) {
    static const char *const keys[] = {"k", "i:num", "n"}, *const patterns[] = {"{}", "x/{}.csv",
                                                                                "{1}-{}"};
    *c = (choices){.by = (cb_partition_by)fuzz_choice(b, CB_PARTITION_RANGE + 1)};
    unsigned which = fuzz_choice(b, 8), flags = fuzz_choice(b, 256);
    which = c->by == CB_PARTITION_RANGE ? 2 : c->by == CB_PARTITION_VALUE && which == 0 ? 1 : which;
    for (unsigned i = 0; i < KEYS_MAX; i++)
        if ((which & 1U << i) != 0)
            c->keys[c->key_count++] = keys[i];
    c->count = 1 + fuzz_choice(b, 40);
    c->pattern = patterns[c->by == CB_PARTITION_VALUE ? fuzz_choice(b, 3) : 0];
    c->times = (flags & 3) == 3 ? 0 : (flags & 1) != 0 ? 20 : 1;
    c->job.bad_rows = (flags & 16) != 0 ? CB_BAD_ROWS_ERROR : CB_BAD_ROWS_SKIP;
    c->job.format = (flags & 32) != 0 ? CB_FORMAT_TSV : CB_FORMAT_CSV;
    c->little = (uint64_t)(4 + fuzz_choice(b, 8)) << 20;
    c->threads = 1 + fuzz_choice(b, 3);
    c->job.baseline_bytes = FUZZ_BASELINE;
}

static void check_name(const char *name) {
    cb_assert(name[0] != 0 && name[0] != '/' && strlen(name) < 4096);
    for (const char *part = name; part != NULL; part = strchr(part, '/')) {
        part += *part == '/';
        cb_assert(*part != '.');
    }
    for (const char *p = name; *p != 0; p++)
        cb_assert((uint8_t)*p > 0x20 && *p != 0x7f);
}

static cb_status take(void *ctx, const char *name, const void *row, size_t bytes, cb_error *err) {
    taker *t = ctx;
    bool header = t->before == NULL || strcmp(t->before, name) != 0;
    if (header) {
        check_name(name);
        free(t->before);
        t->before = strdup(name);
        cb_assert(t->before != NULL);
        fuzz_put_text(&t->out, name);
        fuzz_put(&t->out, ":", 1);
    }
    t->rows += !header;
    return fuzz_row(&t->out, row, bytes, err);
}

static cb_status run(const choices *c, taker *t, cb_error *err) {
    static const char *const bounds[] = {"-5", "0", "1.5", "700"};
    cb_partition_options o = {.struct_size = sizeof o,
                              .job = c->job,
                              .write = take,
                              .write_ctx = t,
                              .by = c->by,
                              .keys = c->keys,
                              .key_count = c->key_count,
                              .count = c->by == CB_PARTITION_HASH ? c->count : 0,
                              .name_template = c->pattern};
    if (c->by == CB_PARTITION_RANGE) {
        o.bounds = bounds;
        o.bound_count = sizeof bounds / sizeof *bounds;
    }
    cb_partition *p = NULL;
    cb_partition_stats stats = {.struct_size = sizeof stats};
    cb_status status = cb_partition_create(&o, &p, err);
    if (status == CB_OK) {
        status = cb_partition_run(p, err);
        cb_partition_get_stats(p, &stats);
    }
    if (status == CB_OK)
        cb_assert(t->rows <= stats.job.rows_in && stats.job.rows_out <= stats.job.rows_in);
    cb_partition_destroy(p);
    free(t->before);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_bytes b = {data, data + size};
    choices c;
    cb_error err = {.message = ""};
    fuzz_text table = {.used = 0};
    taker much = {.rows = 0}, few = {.rows = 0};
    fuzz_file file;
    choose(&b, &c);
    fuzz_table(&table, "n,p,k,i\n", c.job.format == CB_FORMAT_TSV ? '\t' : ',', b, c.times, 24);
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
    fuzz_compare(plenty, &much.out, little, &few.out, &err);
    (void)close(file.fd);
    free(table.bytes);
    free(much.out.bytes);
    free(few.out.bytes);
    return 0;
}
