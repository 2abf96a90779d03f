/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_GROUP_LISTS_H
#define CBI_GROUP_LISTS_H

#include "operator/group_private.h"

/*
 * Groups as lists of rows, in input order: what aggregates without a state of a fixed size are made
 * from.
 */

/** A piece of text in a record. */
typedef struct list_text {
    const uint8_t *at; /* NULL: missing */
    uint32_t bytes;
} list_text;

/** One worker's memory for evaluating a group. */
typedef struct list_eval {
    cb_group *g;
    const uint8_t *key; /* of the group, for messages */
    uint32_t key_bytes;
    uint64_t *state;    /* of the aggregates that have one */
    cbi_value *values;  /* of a row */
    list_text *texts;   /* what aggregates have found, one each */
    uint8_t *registers; /* APPROX_REGISTERS */
    uint8_t *scratch;   /* 16 bytes a row of the largest group */
} list_eval;

enum { LIST_ROW_BYTES = 16, APPROX_BITS = 12, APPROX_REGISTERS = 1 << APPROX_BITS };

size_t list_eval_bytes(const cb_group *g);
/** Lays it out at `memory`; answers the end. The scratch comes from elsewhere. */
uint8_t *list_eval_init(list_eval *e, cb_group *g, uint8_t *memory);

list_text list_text_of(const cb_group *g, const uint8_t *body, size_t column);
/** The number of a row's column at the column's scale; false: missing. */
cb_status list_number_of(list_eval *e, const uint8_t *body, size_t column, cbi_i128 *v, bool *null,
                         cb_error *err);

/** The result of a group whose rows' bodies are given, to the worker's batch. */
cb_status list_put_result(list_eval *e, cbi_job_worker *w, uint64_t first, const uint8_t *key,
                          uint32_t key_bytes, const uint8_t *display, uint32_t display_bytes,
                          const uint8_t *const *rows, size_t count, cb_error *err);

/* group_lists.c: memory for a table of so many rows */
size_t group_list_table_bytes(uint64_t rows);
/* group_columns.c: lists of numbers only */
bool group_columns_possible(const cb_group *g);
/** *done false: this partition is not for it, and nothing has been done. */
cb_status group_columns_work(cb_group *g, cbi_job_worker *w, cbi_segment *list, size_t rows,
                             bool *done, cb_error *err);

/* group_values.c: shared with giant groups and columns */
uint8_t *list_put_number(const cb_group *g, const cbi_aggregate *item, cbi_i128 v, uint8_t *p);
uint8_t *list_put_quantile(const cb_group *g, const cbi_aggregate *item, cbi_i128 low,
                           cbi_i128 high, uint64_t n, uint8_t *p);
/** Places (from 0) of the two values between which a quantile lies. */
void list_quantile_places(const cbi_aggregate *item, uint64_t n, uint64_t *low, uint64_t *high);
void list_approx_add(uint8_t *registers, const void *bytes, size_t count);
uint64_t list_approx_result(const uint8_t *registers);

#endif
