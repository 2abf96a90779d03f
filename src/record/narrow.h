/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_NARROW_H
#define CBI_NARROW_H

#include "record/aggregate.h"
#include "record/numbers.h"

/*
 * Narrow states: what a table keeps of a group while it only sees rows that are as most rows are.
 *
 * A state (aggregate.h) must hold any sum of any numbers, and every addition to it asks what the
 * number is. A narrow state is a third as large, knows that all numbers are integers of 63 bits at
 * one scale, and is added to a column at a time, without a question. It cannot overflow: sums have
 * 128 bits, numbers whose squares are wanted have 47, and a table is emptied before it has seen
 * 2^32 rows. What does not obey (`odd` rows, numbers.h) never comes here, and in the end narrow
 * states are widened into states, so results are the same to the last digit.
 */

enum { CBI_NARROW_COLUMNS_MAX = 32 };
#define CBI_NARROW_NONE UINT32_MAX
#define CBI_NARROW_ROWS_MAX ((uint64_t)1 << 31)

typedef struct cbi_narrow_column {
    cbi_numbers_want want;
    bool nullable;                     /* nulls are counted; otherwise such a row is odd */
    uint32_t n, sum, square, min, max; /* words of a narrow state, or CBI_NARROW_NONE */
} cbi_narrow_column;

typedef struct cbi_narrow {
    const cbi_aggregates *aggs;
    size_t words; /* of a narrow state */
    cbi_narrow_column columns[CBI_NARROW_COLUMNS_MAX];
    uint32_t own[CBI_NARROW_COLUMNS_MAX]; /* of aggregates: a pair's, the best few */
} cbi_narrow;

/** False: these aggregates need wide states, or text. Where they need lists this has what those of
 * a fixed size are made from. `scales` and `nulls` are what a sample has shown of
 * each column. */
bool cbi_narrow_init(cbi_narrow *n, const cbi_aggregates *a, const uint8_t *scales,
                     const bool *nulls);
/** The column is read at another scale from now on: only when there is no state yet. */
void cbi_narrow_rescale(cbi_narrow *n, size_t column, unsigned scale);
/** A state without rows. */
void cbi_narrow_clear(const cbi_narrow *n, uint64_t *state);
/** Row i goes to states[i]; its numbers are values[c * stride + i]. `nulls` in the same way. */
void cbi_narrow_add(const cbi_narrow *n, uint64_t *const *states, size_t count,
                    const int64_t *values, const uint8_t *nulls, size_t stride);
/** What it means, as a state at the columns' scales. */
void cbi_narrow_widen(const cbi_narrow *n, const uint64_t *narrow, uint64_t rows, uint64_t *state);

#endif
