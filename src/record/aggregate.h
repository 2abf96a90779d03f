/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_AGGREGATE_H
#define CBI_AGGREGATE_H

#include "record/decimal.h"
#include "record/real.h"

/*
 * What a group is asked for: `sum(x)`, `avg=mean(y)`, `p95(z)` ... An aggregate is one of two
 * kinds.
 *
 * Those of a fixed size (counts, sums and what is made of them, smallest and largest number) have a
 * *state* of a few words, to which values are added and other states; several of one column share
 * what they have in common, and the few largest or smallest are kept in order. Numbers in states
 * are integers at a scale that belongs to the table of states, one for each column: a value with
 * more decimal places raises it (cbi_states_raise). A column of floats has ranks instead, at scale
 * 0, and sums of any exponent (real.h).
 *
 * All others need the rows of their group: *lists*. If any aggregate does, all are made from lists.
 *
 * Empty values (nothing, or only blanks where a number is wanted) do not count, as NULL in SQL;
 * count() alone counts rows.
 */

typedef enum cbi_aggregate_kind {
    CBI_AGG_COUNT, /* rows, or values of a column */
    CBI_AGG_SUM,
    CBI_AGG_MEAN,
    CBI_AGG_MIN,
    CBI_AGG_MAX,
    CBI_AGG_VAR, /* of a sample */
    CBI_AGG_SD,
    CBI_AGG_VARP, /* of the whole */
    CBI_AGG_SDP,
    CBI_AGG_CORR,
    CBI_AGG_QUANTILE, /* median, pNN */
    CBI_AGG_DISTINCT,
    CBI_AGG_APPROX, /* distinct values, about */
    CBI_AGG_FIRST,
    CBI_AGG_LAST,
    CBI_AGG_MODE,
    CBI_AGG_COLLECT,
    CBI_AGG_TOP,
    CBI_AGG_BOTTOM,
    CBI_AGG_ARGMAX,
    CBI_AGG_ARGMIN
} cbi_aggregate_kind;

typedef enum cbi_value_type { CBI_VALUE_NUM, CBI_VALUE_STR } cbi_value_type;

/** A column that aggregates look at. */
typedef struct cbi_agg_column {
    char *name;      /* as it was asked for */
    uint32_t column; /* 0-based, of the input */
    bool row;        /* no column: the whole row */
    bool packed;     /* records carry it as a packed number, or 0 where only its presence counts */
    bool number;     /* it must be one */
    bool real;       /* :float; numbers are ranks (real.h) at scale 0, sums are of that kind */
    bool text;       /* records carry its text */
    uint32_t slot;   /* among the fields that the scanner delivers */
    uint32_t n, sum, square, min, max; /* offsets in a state; UINT32_MAX: not needed */
} cbi_agg_column;

typedef struct cbi_aggregate {
    cbi_aggregate_kind kind;
    cbi_value_type type;
    char *name;           /* of the result */
    const char *text;     /* as given; for messages */
    uint32_t a, b;        /* columns; UINT32_MAX: none */
    uint64_t part, whole; /* QUANTILE */
    uint32_t n;           /* TOP, BOTTOM */
    uint32_t own;         /* CORR, few TOP and BOTTOM: offset in a state */
} cbi_aggregate;

typedef struct cbi_aggregates {
    cbi_aggregate *items;
    size_t count;
    cbi_agg_column *columns;
    size_t column_count;
    char *names; /* all strings */
    bool lists;
    size_t state_bytes; /* a multiple of 8; the first word counts rows */
    size_t text_bytes;  /* of all fixed-size results and a byte behind each, at most */
} cbi_aggregates;

/** Parses; CB_EINVAL says which one is wrong, where and why. */
cb_status cbi_aggregates_parse(const char *const *texts, size_t count, cbi_aggregates **aggregates,
                               cb_error *err);
void cbi_aggregates_destroy(cbi_aggregates *a);
/** Looks columns up (numbers count from 1); lays states out. */
cb_status cbi_aggregates_bind(cbi_aggregates *a, const char *const *names, size_t name_count,
                              size_t column_count, cb_error *err);
/** A column by name, by quoted name or, where no column is called so, by number (from 1). */
cb_status cbi_column_find(const char *text, size_t bytes, const char *const *names,
                          size_t name_count, size_t column_count, uint32_t *column, cb_error *err);

/* ---- states ---- */

typedef struct cbi_value {
    cbi_decimal number;
    bool null;
} cbi_value;

/** Words of a pair's state, for correlations; of floats. */
enum {
    CBI_PAIR_WORDS = 1 + 2 * CBI_WIDE_SUM + 3 * CBI_WIDE_SQUARE,
    CBI_REAL_PAIR_WORDS = 1 + 2 * CBI_REAL_SUM + 3 * CBI_REAL_SQUARE
};

/** Do states keep anything that is made of the column's numbers at their scale? Then each of them
 * must fit in 128 bits at the largest scale there is; sums, and sums of squares, of 2^64 do then.
 */
bool cbi_agg_column_reckons(const cbi_aggregates *a, size_t column);
/** Zeroed bytes are a state without rows. Values are those of the columns. False: a number does not
 * fit at the table's scale; *column says which. Scales must have been raised before. */
bool cbi_state_add(const cbi_aggregates *a, const uint8_t *scales, uint64_t *state,
                   const cbi_value *values, size_t *column);
/** Both at the same scales. */
void cbi_state_merge(const cbi_aggregates *a, uint64_t *state, const uint64_t *other);
/** Multiplies what is kept of `column` by 10^by; false: it does not fit. */
bool cbi_state_raise(const cbi_aggregates *a, uint64_t *state, size_t column, unsigned by);

typedef enum cbi_result { CBI_RESULT_OK, CBI_RESULT_OVERFLOW } cbi_result;
/** Between the values of collect, topN, bottomN. */
#define CBI_JOINT ((uint8_t)';')
/** So many largest or smallest numbers have a state; more are made from lists. */
enum { CBI_BEST_MAX = 8 };
/** Bytes of the longest text a state's aggregate can have. */
enum { CBI_STATE_TEXT_MAX = CBI_BEST_MAX * (CBI_DECIMAL_TEXT_MAX + 1) };
/** The text of a number of the column. */
uint8_t *cbi_column_format(const cbi_agg_column *c, cbi_i128 value, unsigned scale, uint8_t *p);
/** The text of a fixed-size aggregate; *end is where it ends. Nothing is a missing value. */
cbi_result cbi_state_format(const cbi_aggregates *a, const cbi_aggregate *item,
                            const uint8_t *scales, const uint64_t *state, uint8_t *p,
                            uint8_t **end);

/** Groups of one row: are all results its numbers as they are, or counts? If numbers are short
 * enough, that is; such ones cannot overflow at these scales. */
bool cbi_aggregates_as_is(const cbi_aggregates *a, const uint8_t *scales);
bool cbi_values_are_short(const cbi_aggregates *a, const cbi_value *values);
/** The same text as that of a state of this one row: at most CBI_AS_IS_MAX bytes. Some
 * CBI_AS_IS_SLACK behind it may be written. */
enum { CBI_AS_IS_MAX = 24, CBI_AS_IS_SLACK = 8 };
uint8_t *cbi_as_is_format(const cbi_aggregate *item, const cbi_value *values, uint8_t *p);
/** How many bytes that text has. */
size_t cbi_as_is_bytes(const cbi_aggregate *item, const cbi_value *values);

/** The n largest or smallest numbers, n being small. */
static inline bool cbi_aggregate_best(const cbi_aggregate *item) {
    return (item->kind == CBI_AGG_TOP || item->kind == CBI_AGG_BOTTOM) &&
           item->type == CBI_VALUE_NUM && item->n <= CBI_BEST_MAX;
}

static inline bool cbi_aggregate_fixed(const cbi_aggregate *item) {
    if (cbi_aggregate_best(item))
        return true;
    return item->kind <= CBI_AGG_CORR &&
           (item->type == CBI_VALUE_NUM || item->kind == CBI_AGG_COUNT);
}

#endif
