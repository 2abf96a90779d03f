/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What a normalised key costs: nanoseconds a row for kinds of keys over rows of nine columns in the
 * group-by benchmark's shape (about 70 bytes), 3 MiB of them, so that rows come from the cache that
 * a chunk of input is in. Best of several rounds.
 */

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "carbide/sort.h"
#include "record/key.h"

enum { ROWS = 32 * 1024, COLUMNS = 9, ROUNDS = 60, ROW_MAX = 200 };

static char *text;
static cbi_span rows[ROWS], columns[ROWS][COLUMNS], wanted[ROWS * COLUMNS];

static uint64_t random_next(void) {
    static uint64_t state = 42;
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static unsigned random_below(unsigned n) {
    return (unsigned)(random_next() % n);
}

static void make_rows(void) {
    text = malloc((size_t)ROWS * ROW_MAX);
    if (!text)
        exit(2);
    char *at = text;
    for (size_t i = 0; i < ROWS; i++) {
        char fields[COLUMNS][40];
        snprintf(fields[0], sizeof fields[0], "id%03u", random_below(100) + 1);
        snprintf(fields[1], sizeof fields[1], "v%u.%u.%u-rc%u", random_below(4), random_below(30),
                 random_below(200), random_below(9));
        snprintf(fields[2], sizeof fields[2], "id%010u", random_below(1000000) + 1);
        snprintf(fields[3], sizeof fields[3], "%u", random_below(1000000));
        snprintf(fields[4], sizeof fields[4], "2024-%02u-%02uT%02u:%02u:%02u.%03uZ",
                 random_below(12) + 1, random_below(28) + 1, random_below(24), random_below(60),
                 random_below(60), random_below(1000));
        snprintf(fields[5], sizeof fields[5], "%u.%u%c", random_below(1000), random_below(10),
                 "KMGT"[random_below(4)]);
        snprintf(fields[6], sizeof fields[6], "%.17g", (double)random_next() / (double)UINT64_MAX);
        snprintf(fields[7], sizeof fields[7], "%" PRIu64, random_next() >> 12);
        snprintf(fields[8], sizeof fields[8], "%u.%06u", random_below(100), random_below(1000000));
        rows[i].offset = (uint32_t)(at - text);
        for (unsigned c = 0; c < COLUMNS; c++) {
            size_t n = strlen(fields[c]);
            memcpy(at, fields[c], n);
            columns[i][c] = (cbi_span){(uint32_t)(at - text), (uint32_t)n};
            at += n;
            *at++ = ',';
        }
        rows[i].bytes = (uint32_t)(at - 1 - text) - rows[i].offset;
        at[-1] = '\n';
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void measure(const char *title, int format, const char *first, const char *second) {
    const char *texts[] = {first, second};
    cbi_keys_options options = {.keys = texts,
                                .key_count = second ? 2 : 1,
                                .field_separator = format == CB_FORMAT_LINES ? ',' : -1,
                                .format = format};
    cbi_keys *keys = NULL;
    cb_error err = {0};
    if (cbi_keys_create(&options, &keys, &err) != CB_OK ||
        cbi_keys_bind(keys, NULL, 0, &err) != CB_OK) {
        fprintf(stderr, "keys: %s\n", err.message);
        exit(2);
    }
    const uint32_t *list;
    size_t count = cbi_keys_columns(keys, &list);
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t k = 0; k < count; k++)
            wanted[i * count + k] = columns[i][list[k]];
    }
    cbi_rows view = {(const uint8_t *)text, ROWS, ROWS, rows, wanted, count};
    double best = 1e18;
    size_t bytes = 0;
    static uint8_t out[1024 * 1024 + 4096];
    for (int round = 0; round < ROUNDS; round++) {
        double start = now();
        size_t at = 0;
        bytes = 0;
        for (size_t i = 0; i < ROWS; i++) {
            size_t n = cbi_keys_encode(keys, &view, i, out + at, sizeof out - at);
            bytes += n;
            at = at + n > 1024 * 1024 ? 0 : at + n;
        }
        double took = (now() - start) / (double)ROWS;
        best = took < best ? took : best;
    }
    printf("%-34s %-12s %-20s %6.1f ns/row %6.1f key bytes/row\n", title, first,
           second ? second : "", best, (double)bytes / (double)ROWS);
    cbi_keys_destroy(keys);
}

int main(void) {
    make_rows();
    const int csv = CB_FORMAT_CSV, lines = CB_FORMAT_LINES;
    measure("csv string, decimal descending", csv, "3:str", "9:num:desc");
    measure("csv string (raw, last)", csv, "3:str", NULL);
    measure("csv string, short string", csv, "3:str", "1:str");
    measure("csv string descending", csv, "3:str:desc", NULL);
    measure("csv string folded", csv, "3:fold", NULL);
    measure("csv decimal", csv, "9:num", NULL);
    measure("csv integer, up to 6 digits", csv, "4:int", NULL);
    measure("csv integer, 16 digits", csv, "8:int", NULL);
    measure("csv decimal, 17 digits", csv, "7:num", NULL);
    measure("csv float, 8 digits", csv, "9:float", NULL);
    measure("csv float, 17 digits", csv, "7:float", NULL);
    measure("csv time", csv, "5:time", NULL);
    measure("csv human", csv, "6:human", NULL);
    measure("csv version", csv, "2:ver", NULL);
    measure("lines -t, -k1,1", lines, "1,1", NULL);
    measure("lines -t, -k4,4n", lines, "4,4n", NULL);
    measure("lines -t, -k3,3 -k9,9nr", lines, "3,3", "9,9nr");
    measure("lines -t, -k9,9g", lines, "9,9g", NULL);
    measure("lines -t, -k6,6h", lines, "6,6h", NULL);
    measure("lines -t, -k2,2V", lines, "2,2V", NULL);
    measure("lines -t, -k1,1f", lines, "1,1f", NULL);
    measure("lines -t, -k3,3R", lines, "3,3R", NULL);
    free(text);
    return 0;
}
