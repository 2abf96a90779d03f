/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SIMULATE_H
#define CBI_SIMULATE_H

#include "base/base.h"
#include "carbide/pool.h"
#include "carbide/simulate.h"

/* ---- text that grows ---- */

/** data is NULL or terminated. After a refusal of memory nothing is added any more, and `failed`
 *  says so. */
typedef struct cbi_sim_text {
    char *data;
    size_t used, cap;
    bool failed;
} cbi_sim_text;

void cbi_sim_text_add(cbi_sim_text *text, const char *bytes, size_t count);
void cbi_sim_text_string(cbi_sim_text *text, const char *string);
void cbi_sim_text_number(cbi_sim_text *text, uint64_t number);
void cbi_sim_text_print(cbi_sim_text *text, const char *fmt, ...) CBI_PRINTF(2, 3);
void cbi_sim_text_clear(cbi_sim_text *text);
void cbi_sim_text_fini(cbi_sim_text *text);

/* ---- a line, taken apart ---- */

enum { CBI_SIM_WORDS_MAX = 64, CBI_SIM_NAME_MAX = 256 };

typedef struct cbi_sim_words {
    const char *line; /* begins at the first word, ends after the last: the operation as written */
    size_t bytes;
    uint64_t number;     /* of the line, from 1 */
    size_t first_column; /* of `line`, from 1 */
    size_t count;
    size_t at[CBI_SIM_WORDS_MAX], length[CBI_SIM_WORDS_MAX]; /* in `line` */
} cbi_sim_words;

/** Splits at spaces and cuts the comment. CB_EDATA: too many words, or a NUL. */
cb_status cbi_sim_split(const char *line, size_t bytes, uint64_t number, cbi_sim_words *words,
                        cb_error *err);
bool cbi_sim_word_is(const cbi_sim_words *words, size_t i, const char *text);

/** "LINE:COLUMN: ..." about word `i`, `offset` bytes into it; behind the last word for i == count.
 */
cb_status cbi_sim_complain(const cbi_sim_words *words, size_t i, size_t offset, cb_error *err,
                           const char *fmt, ...) CBI_PRINTF(5, 6);

/** Decimal digits up to `most` at `offset` of word i. `what` names it in messages. */
cb_status cbi_sim_number(const cbi_sim_words *words, size_t i, size_t offset, const char *what,
                         uint64_t most, uint64_t *number, cb_error *err);
/** A decimal number that is not negative: digits, a point, an exponent. */
cb_status cbi_sim_fraction(const cbi_sim_words *words, size_t i, size_t offset, const char *what,
                           double *fraction, cb_error *err);

/* ---- operations ---- */

typedef enum cbi_sim_op {
    CBI_SIM_ACQUIRE_EXECUTION,
    CBI_SIM_RELEASE_EXECUTION,
    CBI_SIM_RELEASE_ALL_EXECUTION,
    CBI_SIM_ACQUIRE_STORAGE,
    CBI_SIM_RELEASE_STORAGE,
    CBI_SIM_TOUCH,
    CBI_SIM_PIN,
    CBI_SIM_UNPIN,
    CBI_SIM_ACQUIRE_UNROLL,
    CBI_SIM_RELEASE_UNROLL,
    CBI_SIM_RAW_ACQUIRE_STORAGE,
    CBI_SIM_RAW_RELEASE_STORAGE,
    CBI_SIM_MAX_STORAGE,
    CBI_SIM_ALLOCATE,
    CBI_SIM_RELEASE,
    CBI_SIM_RELEASE_LIST,
    CBI_SIM_RELEASE_ALL,
    CBI_SIM_NUM_PAGES,
    CBI_SIM_MEMORY_SIZE,
    CBI_SIM_ROUND_DOWN,
    CBI_SIM_SHUTDOWN,
    CBI_SIM_STATE
} cbi_sim_op;

/** Whose operation it is. */
typedef enum cbi_sim_kind { CBI_SIM_SPARK = 1, CBI_SIM_FLINK = 2 } cbi_sim_kind;

/** A name of a block, canonical, with the data set it belongs to; or of an owner. */
typedef struct cbi_sim_name {
    char text[CBI_SIM_NAME_MAX];
    size_t bytes;
    int64_t data_set; /* R of rdd_R_P, or CBI_NO_DATA_SET */
} cbi_sim_name;

typedef struct cbi_sim_call {
    cbi_sim_op op;
    uint64_t task, bytes; /* bytes: or pages */
    cb_mode mode;
    double fraction;
    cbi_sim_name name;
} cbi_sim_call;

/** Reads an operation for a manager of that kind; everything but `config`. */
cb_status cbi_sim_read_call(const cbi_sim_words *words, cbi_sim_kind kind, cbi_sim_call *call,
                            cb_error *err);

/* ---- config ---- */

typedef struct cbi_sim_config {
    cbi_sim_kind kind;
    /* Spark */
    bool is_static;
    uint64_t execution, storage; /* on the heap */
    uint64_t off_heap;
    double storage_fraction, unroll_fraction;
    /* Flink */
    uint64_t memory, page, slots;
    bool off, preallocate;
    /* what the class throws at these figures, or NULL */
    const char *refusal;
} cbi_sim_config;

/** A double as Java makes a long of it: cut, and no larger than the largest. */
static inline uint64_t cbi_sim_to_long(double value) {
    return value >= 9223372036854775807.0 ? (uint64_t)INT64_MAX : (uint64_t)value;
}

cb_status cbi_sim_read_config(const cbi_sim_words *words, cbi_sim_config *config, cb_error *err);

/* ---- engines ---- */

/** What one operation did, for the summary and the picture. */
typedef struct cbi_sim_effect {
    uint64_t asked, granted; /* bytes; of the operation itself */
    bool refused, blocked, error;
    uint64_t evicted_blocks, evicted_bytes;
    uint64_t woken;
} cbi_sim_effect;

/** The pools after an operation; Flink: `used` and `size` of the first in pages. */
typedef struct cbi_sim_state {
    uint64_t size[2][CB_MODE_COUNT], used[2][CB_MODE_COUNT]; /* [cb_region][cb_mode] */
} cbi_sim_state;

/** What enough would have been (asked of a manager that never ran out). Bytes; Flink: pages. */
typedef struct cbi_sim_need {
    uint64_t execution[CB_MODE_COUNT]; /* static policy: of that pool alone */
    uint64_t storage[CB_MODE_COUNT];
    uint64_t total[CB_MODE_COUNT]; /* unified policy: of both */
    bool beyond;                   /* more than can be said */
} cbi_sim_need;

typedef struct cbi_sim_spark cbi_sim_spark;
typedef struct cbi_sim_flink cbi_sim_flink;

/** `boundless`: the same split, but of 2^60 bytes and more, to see what was wanted. NULL: no
 * memory.
 */
cbi_sim_spark *cbi_sim_spark_create(const cbi_sim_config *config, bool boundless);
void cbi_sim_spark_destroy(cbi_sim_spark *spark);
/** Adds the answer (and what was evicted and woken), not the state. false: no memory. */
bool cbi_sim_spark_run(cbi_sim_spark *spark, const cbi_sim_call *call, cbi_sim_text *out,
                       cbi_sim_effect *effect);
void cbi_sim_spark_print(const cbi_sim_spark *spark, cbi_sim_text *out);
void cbi_sim_spark_state(const cbi_sim_spark *spark, cbi_sim_state *state);
void cbi_sim_spark_need(const cbi_sim_spark *spark, cbi_sim_need *need);
/** Adds the state of no manager at all. */
void cbi_sim_spark_print_nothing(cbi_sim_text *out);

/** `boundless`: of as many pages as there can be. */
cbi_sim_flink *cbi_sim_flink_create(const cbi_sim_config *config, bool boundless);
void cbi_sim_flink_destroy(cbi_sim_flink *flink);
bool cbi_sim_flink_run(cbi_sim_flink *flink, const cbi_sim_call *call, cbi_sim_text *out,
                       cbi_sim_effect *effect);
void cbi_sim_flink_print(const cbi_sim_flink *flink, cbi_sim_text *out);
void cbi_sim_flink_state(const cbi_sim_flink *flink, cbi_sim_state *state);
void cbi_sim_flink_print_nothing(cbi_sim_text *out);

/* ---- the parts of a trace ---- */

/** From one `config` to the next. */
typedef struct cbi_sim_part {
    struct cbi_sim_part *next;
    uint64_t line;
    cbi_sim_config config;
    uint64_t operations;
    /* execution and storage (unroll too), [cb_mode]; Flink: pages, under execution and heap */
    uint64_t calls[2][CB_MODE_COUNT], short_calls[2][CB_MODE_COUNT];
    uint64_t asked[2][CB_MODE_COUNT], granted[2][CB_MODE_COUNT];
    uint64_t peak[2][CB_MODE_COUNT];
    uint64_t blocked, woken, errors, evicted_blocks, evicted_bytes;
    cbi_sim_need need;
} cbi_sim_part;

/** A piece of the picture's time: one operation, or as many as fit `stride`. */
typedef struct cbi_sim_sample {
    uint64_t line; /* the last one */
    cbi_sim_kind kind;
    cbi_sim_state state; /* `used` is the most in this time */
    uint32_t evicted[CB_MODE_COUNT], refused[CB_MODE_COUNT], blocked[CB_MODE_COUNT]; /* calls */
    bool begins; /* a new manager */
} cbi_sim_sample;

enum { CBI_SIM_SAMPLES_MAX = 1024 };

typedef struct cbi_sim_samples {
    cbi_sim_sample *at; /* CBI_SIM_SAMPLES_MAX of them */
    size_t count;
    uint64_t stride, in_last; /* operations a sample, and so far in the last one */
} cbi_sim_samples;

void cbi_sim_sample_add(cbi_sim_samples *samples, const cbi_sim_sample *sample);

void cbi_sim_write_summary(const cbi_sim_part *parts, cbi_sim_text *out);
void cbi_sim_write_picture(const cbi_sim_samples *samples, const char *title, cbi_sim_text *out);

#endif
