/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SIMD_H
#define CBI_SIMD_H

#include "record/record.h"

/*
 * The inner loops over input bytes, once for each level of instruction set. Which level runs is
 * chosen when an input is opened; every level gives the same answers (tests/format/test_simd.c
 * compares them).
 */

typedef enum cbi_simd {
    CBI_SIMD_BASELINE,
    CBI_SIMD_AVX2,
    CBI_SIMD_AVX512,
    CBI_SIMD_LEVELS
} cbi_simd;

/** What a delimited scan has to know. Plain data, the caller's. */
typedef struct cbi_delimited {
    const uint8_t *base; /* the chunk */
    size_t bytes;        /* of the chunk, < 2 GiB */
    uint8_t separator;
    uint8_t terminator;
    bool strip_cr;    /* a CR before the terminator is not part of the last field */
    uint32_t columns; /* fields a row must have; 0 = any number is an answer for the exact reader */
    const uint32_t *wanted; /* rows->field_count columns to deliver */
} cbi_delimited;

typedef enum cbi_scan_stop {
    CBI_SCAN_END,  /* the chunk has been read */
    CBI_SCAN_FULL, /* rows->capacity is reached */
    CBI_SCAN_EXACT /* the row at *at is for the exact reader: malformed, ragged, too wide, or only
                      unusual */
} cbi_scan_stop;

typedef struct cbi_scan_ops {
    const char *name;
    /** Appends to rows from *at on; lines end with `terminator`. Answers END or FULL. */
    cbi_scan_stop (*lines)(const uint8_t *base, size_t bytes, uint8_t terminator, size_t *at,
                           cbi_rows *rows);
    /** CSV with quotes; a row begins at *at. Blank lines are left out when there are several
     * columns. */
    cbi_scan_stop (*csv)(const cbi_delimited *d, size_t *at, cbi_rows *rows);
    /** The same where a quote is a byte like any other. */
    cbi_scan_stop (*tsv)(const cbi_delimited *d, size_t *at, cbi_rows *rows);
    /** How often `byte` occurs. */
    size_t (*count)(const uint8_t *p, size_t bytes, uint8_t byte);
} cbi_scan_ops;

/** The best level this processor has, or the one CARBIDE_CPU lowers it to. */
cbi_simd cbi_simd_best(void);
/** NULL when this processor or this build does not have the level. */
const cbi_scan_ops *cbi_scan_ops_get(cbi_simd level);

/* Implementation tables, NULL where the build has none. */
extern const cbi_scan_ops cbi_scan_ops_baseline;
#if defined(__x86_64__)
extern const cbi_scan_ops cbi_scan_ops_avx2;
extern const cbi_scan_ops cbi_scan_ops_avx512;
#endif

#endif
