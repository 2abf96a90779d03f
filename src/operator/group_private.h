/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_GROUP_PRIVATE_H
#define CBI_GROUP_PRIVATE_H

#include "carbide/group.h"
#include "operator/group_table.h"
#include "operator/job.h"
#include "operator/splitters.h"
#include "record/aggregate.h"
#include "record/brief.h"

/*
 * A record of a group-by: the key, and as row
 *
 *     u32 row number in its chunk; the high bit: a state
 *     [varint bytes | key columns as they are written out]    keys with types, sorted output
 *     rows:   packed numbers of the columns that have one, then varint bytes | text of those that
 * have states: u64 position of the first row | a scale for each column | the state
 *
 * The key is what is written out for the key columns, separators included, where values are the
 * same if their bytes are ("plain"); in most inputs that is a piece of the row as it stands there.
 * Otherwise it is the normalised key (key.h), and the text is kept beside it. Keys of a few
 * characters that are seldom needed again (group_late.c) are made brief (brief.h).
 */

#define GROUP_STATE_BIT 0x80000000u /* of the row number */

enum { GROUP_BATCH = 16, GROUP_KEY_MAX = 16 * 1024 };

/** A column among the keys. */
typedef struct group_key {
    uint32_t column; /* 0-based */
    uint32_t slot;   /* among the fields that are scanned */
} group_key;

struct cb_group {
    cbi_job job;
    char *strings;   /* copies of keys */
    char *null_text; /* a value written so is missing; NULL: none is */
    size_t null_bytes;
    const char **keys; /* single ones */
    size_t key_count;
    group_key *key_columns;
    bool plain, sorted;
    bool display;    /* records carry the key columns as they are written out, beside their key */
    bool row_is_key; /* dedupe: the whole row */
    cbi_keys *typed; /* NULL: plain */
    uint32_t typed_slots[1024]; /* its fields among ours */
    size_t typed_count;
    cbi_aggregates *aggs;
    uint32_t *columns; /* scanned, ascending */
    size_t column_count;
    bool delimited; /* CSV, TSV */
    bool quoting;
    uint8_t separator; /* of the output */
    bool guarded;      /* it may stand in a number, or between numbers: these are quoted then */
    int line_separator;
    uint8_t *header;
    size_t packed_max; /* bytes of all packed columns */
    size_t text_count;

    /* what the read pass has found */
    uint8_t *scales;
    cbi_i128 *largest; /* magnitude of a column, at scales; aggregates of a fixed size */
    atomic_ullong chunks;
    cbi_splitters *splitters; /* sorted output of files */
    cbi_sample sample;
    uint8_t *sample_memory;
    double sample_rows, sample_row_bytes, sample_record_bytes;
    uint8_t *sample_scales; /* of each aggregated column */
    bool *sample_nulls;
    uint64_t sample_times[256]; /* of bytes in keys */
    cbi_brief_common sample_common;
    double sample_key_bytes, sample_slices;
    uint64_t table_units_max;

    bool brief; /* keys in records are */
    cbi_brief alphabet;

    /* group_late.c */
    bool places;           /* positions are places in the input */
    bool late_rows;        /* a result is text and then its row, not key columns and then text */
    double range_scale;    /* of a place, to its range */
    atomic_ullong *starts; /* of ranges, in the input, and one more */
    uint64_t *range_bytes; /* of the output, for each worker and range */
    struct group_again *again; /* one a worker */
};

/** One worker's, in its scratch. */
typedef struct group_worker {
    cb_group *group;
    group_table table;
    bool tables; /* rows go into the table first */
    void *table_base;
    size_t table_units;
    uint64_t rows_since; /* the table was emptied */
    uint64_t base;       /* position of a row with the number 0 */
    uint32_t range;      /* of the row before */
    uint8_t *scales_seen;
    bool *reckons;       /* cbi_agg_column_reckons */
    cbi_i128 *largest;   /* magnitudes so far, at scales_seen */
    uint8_t *key_memory; /* GROUP_BATCH keys */
    cbi_span *typed_fields;
    cbi_value *values; /* GROUP_BATCH times the columns */
    uint64_t *state;   /* one, aligned */
    cbi_span *line_fields;
    struct group_block *block; /* NULL: rows are read one by one */
} group_worker;

/* ---- group.c: shared with dedupe ---- */
cb_status group_split_keys(cb_group *g, const char *const *keys, size_t count, cb_error *err);
cb_status group_set_null(cb_group *g, const char *text, cb_error *err);
/** Finds columns and lays out what is read; the input is open. */
cb_status group_bind(cb_group *g, cb_error *err);
/** Looks at a sample, and chooses sizes by it. `work_bytes`: of a worker's memory for a record. */
cb_status group_make_plan(cb_group *g, double work_bytes, double result_bytes, cb_error *err);
void group_fini(cb_group *g);

/* ---- group_record.c ---- */

/** Where the fields of row i are. */
typedef struct group_row {
    const uint8_t *base;
    cbi_span row;
    const cbi_span *fields;
} group_row;

/** A field that was quoted in the input and must be in the output. */
bool group_keeps_quotes(const cb_group *g, const uint8_t *base, cbi_span span);

/** The piece of the row that is all key columns; false when they have to be put together. */
static inline bool group_key_slice(const cb_group *g, const group_row *row, const uint8_t **from,
                                   size_t *bytes) {
    if (g->key_count == 0 || !g->delimited)
        return false;
    const cbi_span *first = &row->fields[g->key_columns[0].slot], *last = first;
    if (g->quoting && first->offset > 0 && row->base[first->offset - 1] == '"')
        return false;
    for (size_t i = 1; i < g->key_count; i++) {
        const cbi_span *next = &row->fields[g->key_columns[i].slot];
        if (next->offset != last->offset + last->bytes + 1)
            return false;
        last = next;
    }
    /* with escapes or quotes inside, the next field would not have begun there, and the last: */
    if ((last->bytes & CBI_SPAN_ESCAPED) != 0)
        return false;
    *from = row->base + first->offset;
    *bytes = last->offset + last->bytes - first->offset;
    return true;
}

/** The content of a field, quotes undone. */
uint8_t *group_put_content(uint8_t *p, const uint8_t *base, cbi_span span);
/** The key columns as they are written out: measured, then put. */
size_t group_display_bytes(const cb_group *g, const group_row *row);
uint8_t *group_put_display(const cb_group *g, const group_row *row, uint8_t *p);
/** A field of the output from its content. */
size_t group_field_bytes(const cb_group *g, const uint8_t *content, size_t bytes);
uint8_t *group_put_field(const cb_group *g, uint8_t *p, const uint8_t *content, size_t bytes);
/** Reads the numbers of a row; *bad is the column that is no number, or SIZE_MAX. */
cbi_number_kind group_read_values(const cb_group *g, const group_row *row, cbi_value *values,
                                  size_t *bad);
/** What has been written from `from` on is a field: with quotes around it if it must have them, for
 * which there is room behind it. */
uint8_t *group_guard_field(const cb_group *g, uint8_t *from, uint8_t *end);
static inline uint8_t *group_guard_number(const cb_group *g, uint8_t *from, uint8_t *end) {
    return CBI_UNLIKELY(g->guarded) ? group_guard_field(g, from, end) : end;
}
size_t group_row_payload_bytes(const cb_group *g, const group_row *row, size_t display_bytes);

/** Packed numbers and texts. May write 8 bytes more than that. */
uint8_t *group_put_body(const cb_group *g, const group_row *row, const cbi_value *values,
                        uint8_t *p);

/** What stands in a record behind its key. */
typedef struct group_payload {
    uint64_t position;
    bool state;
    const uint8_t *display; /* NULL: the key is what is written out */
    uint32_t display_bytes;
    const uint8_t *body;
} group_payload;
void group_payload_get(const cb_group *g, const cbi_stored *record, uint64_t order,
                       group_payload *payload);
/** In runs a record's order is its position: what group_payload_get is to be told instead. */
static inline uint64_t group_run_order(const cbi_stored *record) {
    return record->order - (cbi_load_u32(record->row) & ~GROUP_STATE_BIT);
}
/** The packed numbers of a row; answers where its texts begin. */
const uint8_t *group_values_get(const cb_group *g, const uint8_t *body, cbi_value *values);

/* ---- group_read.c ---- */
cb_status group_read(cb_group *g, cb_error *err);
cb_status group_put_state(cb_group *g, cbi_batch *batch, const group_table *table,
                          const group_entry *entry, cb_error *err);

/** Bytes of scratch a worker needs for all that. */
size_t group_worker_bytes(const cb_group *g);

/* ---- group_late.c: results that leave their text in the input ---- */

enum { GROUP_LATE_MAX = 4096 /* bytes of a row, or of key columns, that may be left there */ };

/** Of the input: so much less to carry about pays for reading it again. */
#define GROUP_LATE_WORTH 0.2
/** Can rows be found again? Before the plan is made, which must know. */
bool group_late_possible(const cb_group *g);
/** If so: before rows are read, behind them, at the end. */
cb_status group_late_begin(cb_group *g, cb_error *err);
void group_late_know_starts(cb_group *g);
void group_late_end(cb_group *g);
/** Rows of the batch that was scanned: where ranges begin. */
void group_late_note(cb_group *g, const cbi_job_worker *w, uint32_t *range);
/** Is it worth reading the input once more for all results, if a partition has `groups` of them
 * which show so many bytes of it? */
bool group_late_worth(const cb_group *g, uint64_t groups, double shown);

/** Position of row `i` of the batch, what is shown of which begins at `shown`; NULL: it is no piece
 * of the input. */
static inline uint64_t group_position_of(const cbi_job_worker *w, size_t i, const uint8_t *shown) {
    const cbi_span row = w->rows.rows[i];
    const uint8_t *from = shown != NULL ? shown : w->rows.base + row.offset;
    return (w->chunk.file_offset + (uint64_t)(from - w->chunk.rows)) << 1 |
           (shown == NULL || row.bytes > GROUP_LATE_MAX);
}
/** The same where it is not known. */
uint64_t group_position_at(const cb_group *g, const cbi_job_worker *w, size_t i);

/** Where a result goes, and what orders it there. */
typedef struct group_result {
    uint32_t range, order_bytes;
    const uint8_t *order;
    uint8_t position[8];
} group_result;

/** The range of results that a position belongs to. */
uint32_t group_position_range(const cb_group *g, uint64_t position);
/** `key`: orders it where the output is sorted by key. NULL: it is not. */
void group_result_place(const cb_group *g, uint64_t first, const uint8_t *key, uint32_t key_bytes,
                        group_result *r);
/** Of a result that has been placed: if what it shows of the input can stay there, its row begins
 * with the number of these bytes (a varint; of groups: group_left). Otherwise the answer is false.
 */
bool group_result_leave(group_result *r, uint64_t first, size_t shown);
/** What a group's result says of bytes that stay in the input. `numbers`: behind it stand packed
 * values of which text is made when it is written, as cbi_as_is_format does. */
static inline uint32_t group_left(uint32_t shown, bool numbers) {
    return shown << 1 | numbers;
}
enum { GROUP_LEFT_COLUMNS = 8 /* values at most, and aggregates made of them */ };
/** A result of so many bytes, all told, goes to the range. */
static inline void group_result_count(const cb_group *g, const cbi_job_worker *w, uint32_t range,
                                      uint64_t bytes) {
    const cbi_job *job = &g->job;
    if (g->places)
        g->range_bytes[((size_t)w->index * cbi_job_outputs(job)) * job->sizes.ranges + range] +=
            bytes + 1;
}

/* ---- group_states.c, group_lists.c: the work pass ---- */
cb_status group_work(cb_group *g, cb_error *err);
/** What the read pass chooses partitions by. */
uint64_t group_part_hash(const cbi_job *job, const cbi_stored *record);
/** What a worker needs in the work pass whatever the partition is. */
size_t group_states_least(const cb_group *g);
size_t group_lists_least(const cb_group *g);
/** And for a partition of any size. */
size_t group_states_wanted(const cb_group *g);
bool group_lists_fit(const cb_group *g, const cbi_partition_info *info, size_t bytes);
cb_status group_lists_work(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                           cb_error *err);
cb_status group_lists_big(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err);
/** An aggregate that does not fit in 128 bits. `key`: as it is stored, what is written out of it
 * behind it; not a brief one. */
cb_status group_overflow(const cb_group *g, const uint8_t *key, size_t key_bytes, size_t column,
                         cb_error *err);

#endif
