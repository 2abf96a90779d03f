/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CLI_GEN_H
#define CLI_GEN_H

#include "cli.h"

/*
 * Test data, a pure function of (kind, seed, row number): any range of rows can be made on its own,
 * by any thread, on any machine, and is always the same.
 */

typedef struct gen_rows gen_rows;

/** Tables of the join data: those of H2O.ai, and a narrower pair. */
typedef enum gen_join {
    GEN_JOIN_X = 0,
    GEN_JOIN_SMALL,
    GEN_JOIN_MEDIUM,
    GEN_JOIN_BIG,
    GEN_JOIN_LEFT,
    GEN_JOIN_RIGHT
} gen_join;

/** Writes rows [first, first + count) to `out`, which has room for count * row_bytes_max; answers
 * the bytes. */
typedef size_t (*gen_fill_fn)(const gen_rows *rows, uint64_t first, uint64_t count, char *out);

struct gen_rows {
    gen_fill_fn fill;
    size_t row_bytes_max;
    bool fixed;         /* all rows have row_bytes_max bytes; otherwise they end with LF */
    const char *header; /* or NULL */
    uint64_t seed;
    uint64_t keys;        /* how many different keys; 0 = no limit */
    bool skewed;          /* key number k comes up about 1/k as often as the first */
    uint64_t groups;      /* group: K */
    uint64_t groups_fine; /* group: N / K */
    uint64_t length_max;  /* lines: bytes of text in a line */
    unsigned missing;     /* group, join: percent of values that are not there */
    gen_join join_table;
    uint64_t join_rows; /* join: rows of x */
};

/** The sort benchmark's shape: 100 bytes, a key of 10 printable bytes, the row's number, filler,
 * CRLF. */
void gen_rows_init_ascii(gen_rows *rows);
/** The same with a binary key and no line end. */
void gen_rows_init_binary(gen_rows *rows);
/** Lines of lower-case words, of 0 to length_max bytes. */
void gen_rows_init_lines(gen_rows *rows);
/** CSV of the nine columns of the group-by benchmarks. */
void gen_rows_init_group(gen_rows *rows);
/** CSV of one table of the join data set whose x has `join_rows` rows. */
void gen_rows_init_join(gen_rows *rows, gen_join table, uint64_t join_rows);
/** How many rows that table has. */
uint64_t gen_join_rows(const gen_rows *rows);

#endif
