/* SPDX-License-Identifier: Apache-2.0 */

/*
 * How fast rows are found in bytes that are in the cache: lines of 98 bytes, and the 9 columns of
 * the H2O group data with all, two and no columns delivered, without and with quotes. One thread,
 * each level this processor has, best of many rounds over 1 MiB.
 *
 *     build/release/bench/scan [SECONDS_EACH]
 *
 * With files: how fast they are read and split into rows by a number of threads, each with its own
 * buffer.
 *
 *     build/release/bench/scan THREADS BUFFER_KIB FILE...
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "format/csv.h"
#include "format/format.h"
#include "format/simd.h"

enum { BENCH_BYTES = 1024 * 1024, BENCH_ROWS = 8192 };

static uint64_t random_state = 42;

static unsigned bench_random(unsigned below) {
    uint64_t z = (random_state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((z ^ (z >> 31)) % below);
}

static size_t make_lines(uint8_t *buf, bool uneven) {
    size_t n = 0;
    while (n + 300 < BENCH_BYTES) {
        size_t bytes = uneven ? bench_random(200) : 98;
        for (size_t i = 0; i < bytes; i++)
            buf[n++] = (uint8_t)(' ' + bench_random(95));
        buf[n++] = '\r';
        buf[n++] = '\n';
    }
    return n;
}

static size_t make_csv(uint8_t *buf, bool quoted) {
    size_t n = 0;
    while (n + 200 < BENCH_BYTES) {
        unsigned v[10];
        static const unsigned below[10] = {100,     100, 1000000, 100, 100,
                                           1000000, 5,   15,      100, 1000000};
        for (int i = 0; i < 10; i++)
            v[i] = bench_random(below[i]);
        const char *q = quoted ? "\"" : "";
        n += (size_t)snprintf(
            (char *)buf + n, 200, "%sid%03u%s,%sid%03u%s,%sid%010u%s,%u,%u,%u,%u,%u,%s%u.%06u%s\n",
            q, v[0], q, q, v[1], q, q, v[2], q, v[3], v[4], v[5], v[6], v[7], q, v[8], v[9], q);
    }
    return n;
}

typedef struct bench_case {
    const char *name;
    const uint8_t *buf;
    size_t bytes;
    int kind; /* 0 lines, 1 csv, 2 tsv */
    const uint32_t *wanted;
    size_t wanted_count;
} bench_case;

static size_t bench_once(const cbi_scan_ops *ops, const bench_case *c, cbi_rows *rows) {
    const cbi_delimited d = {c->buf, c->bytes, ',', '\n', true, 9, c->wanted};
    size_t at = 0, count = 0;
    while (at < c->bytes) {
        rows->count = 0;
        cbi_scan_stop stop = c->kind == 0   ? ops->lines(c->buf, c->bytes, '\n', &at, rows)
                             : c->kind == 1 ? ops->csv(&d, &at, rows)
                                            : ops->tsv(&d, &at, rows);
        count += rows->count;
        if (stop == CBI_SCAN_EXACT)
            abort();
    }
    return count;
}

static double bench_rate(const cbi_scan_ops *ops, const bench_case *c, cbi_rows *rows,
                         uint64_t for_ns, size_t *count) {
    uint64_t start = cbi_sys_clock_ns(), best = UINT64_MAX;
    rows->field_count = c->wanted_count;
    do {
        uint64_t from = cbi_sys_clock_ns();
        *count = bench_once(ops, c, rows);
        uint64_t took = cbi_sys_clock_ns() - from;
        best = took < best ? took : best;
    } while (cbi_sys_clock_ns() - start < for_ns);
    return (double)c->bytes / (double)best;
}

/* ---- whole files ---- */

typedef struct bench_worker {
    cbi_input *input;
    size_t capacity;
    uint64_t rows, bytes;
    cb_error err;
} bench_worker;

static void bench_read(void *ctx) {
    bench_worker *w = ctx;
    static const uint32_t column = 0;
    cbi_chunk chunk = {.buf = aligned_alloc(4096, w->capacity), .capacity = w->capacity};
    cbi_rows rows = {.rows = malloc(BENCH_ROWS * sizeof(cbi_span)),
                     .fields = malloc(BENCH_ROWS * sizeof(cbi_span)),
                     .capacity = BENCH_ROWS};
    cb_format_kind kind = cbi_input_format(w->input)->kind;
    rows.field_count = kind == CB_FORMAT_CSV || kind == CB_FORMAT_TSV;
    if (!chunk.buf || !rows.rows || !rows.fields)
        abort();
    memset(chunk.buf, 0, chunk.capacity);
    while (cbi_input_next(w->input, &chunk, &w->err) == CB_OK && chunk.bytes != 0) {
        for (size_t at = 0; at < chunk.bytes;) {
            if (cbi_input_scan(w->input, &chunk, &at, &column, &rows, &w->err) != CB_OK)
                break;
            w->rows += rows.count;
        }
        w->bytes += chunk.bytes;
    }
    free(rows.rows);
    free(rows.fields);
    free(chunk.buf);
}

static int bench_files(unsigned threads, size_t capacity, const char *const *paths, size_t count) {
    enum { THREADS_MAX = 64 };
    static bench_worker workers[THREADS_MAX];
    static cbi_thread ids[THREADS_MAX];
    cbi_input_options options = {.paths = paths, .path_count = count, .field_separator = -1};
    cb_error err = {0};
    uint64_t start = cbi_sys_clock_ns(), rows = 0, bytes = 0;
    cbi_input *input = NULL;
    if (threads < 1 || threads > THREADS_MAX || capacity == 0)
        return 2;
    if (cbi_input_open(&options, &input, &err) != CB_OK) {
        (void)fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    for (unsigned i = 0; i < threads; i++) {
        workers[i] = (bench_worker){.input = input, .capacity = capacity};
        if (cbi_thread_start(&ids[i], bench_read, &workers[i], "bench", &err) != CB_OK)
            abort();
    }
    for (unsigned i = 0; i < threads; i++) {
        cbi_thread_join(&ids[i]);
        rows += workers[i].rows;
        bytes += workers[i].bytes;
        if (workers[i].err.status != CB_OK)
            (void)fprintf(stderr, "%s\n", workers[i].err.message);
    }
    double seconds = (double)(cbi_sys_clock_ns() - start) / 1e9;
    printf("%llu rows, %llu bytes, %.3f s, %.2f GB/s\n", (unsigned long long)rows,
           (unsigned long long)bytes, seconds, (double)bytes / seconds / 1e9);
    cbi_input_close(input);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 3)
        return bench_files((unsigned)atoi(argv[1]), (size_t)atoi(argv[2]) * CBI_KIB,
                           (const char *const *)argv + 3, (size_t)argc - 3);
    static uint8_t lines[BENCH_BYTES], uneven[BENCH_BYTES], plain[BENCH_BYTES], quoted[BENCH_BYTES];
    static cbi_span spans[BENCH_ROWS], fields[BENCH_ROWS * 9];
    static const uint32_t all[] = {0, 1, 2, 3, 4, 5, 6, 7, 8}, two[] = {2, 8};
    size_t lines_bytes = make_lines(lines, false), uneven_bytes = make_lines(uneven, true);
    size_t plain_bytes = make_csv(plain, false), quoted_bytes = make_csv(quoted, true);
    uint64_t each = (uint64_t)((argc > 1 ? atof(argv[1]) : 0.2) * 1e9);
    const bench_case cases[] = {
        {"lines of 100 bytes", lines, lines_bytes, 0, NULL, 0},
        {"lines of 2 to 201 bytes", uneven, uneven_bytes, 0, NULL, 0},
        {"CSV, no column", plain, plain_bytes, 1, NULL, 0},
        {"CSV, 2 of 9 columns", plain, plain_bytes, 1, two, 2},
        {"CSV, 9 of 9 columns", plain, plain_bytes, 1, all, 9},
        {"CSV with quotes, 2 of 9", quoted, quoted_bytes, 1, two, 2},
        {"CSV with quotes, 9 of 9", quoted, quoted_bytes, 1, all, 9},
        {"no quoting, 2 of 9", plain, plain_bytes, 2, two, 2},
    };
    cbi_rows rows = {.rows = spans, .fields = fields, .capacity = BENCH_ROWS};

    printf("%-26s", "GB/s, 1 thread");
    for (int level = 0; level < CBI_SIMD_LEVELS; level++)
        if (cbi_scan_ops_get((cbi_simd)level))
            printf("%12s", cbi_scan_ops_get((cbi_simd)level)->name);
    printf("%12s\n", "bytes/row");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        size_t count = 1;
        printf("%-26s", cases[i].name);
        for (int level = 0; level < CBI_SIMD_LEVELS; level++)
            if (cbi_scan_ops_get((cbi_simd)level))
                printf("%12.2f", bench_rate(cbi_scan_ops_get((cbi_simd)level), &cases[i], &rows,
                                            each, &count));
        printf("%12.1f\n", (double)cases[i].bytes / (double)count);
    }
    return 0;
}
