/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_JOB_H
#define CBI_JOB_H

#include "carbide/job.h"
#include "format/format.h"
#include "operator/given.h"
#include "operator/ground.h"
#include "operator/merge.h"
#include "operator/run_table.h"
#include "operator/sink.h"

/*
 * The ground that group, dedupe, join and partition stand on. An operator is three passes, and each
 * is one call from here:
 *
 *   read    cbi_job_in_workers(job, fn): each worker takes chunks (cbi_job_next_chunk), rows with
 *           their columns (cbi_job_next_rows), and puts a record for each into the partition that a
 *           seeded hash of its key names (cbi_batch_begin, _end; cbi_job_hash).
 *   work    cbi_job_each(job, pass): partitions come back one by one, whole, to whichever worker is
 *           free, the next ones being read meanwhile. What does not fit in its memory is given to
 *           one worker alone, with the memory of all (pass->big): cbi_partition_next_part reads it
 *           in parts, and cbi_runs sorts them. Results go by cbi_batch to `job->results`, which are
 *           ranges of the output: of input positions, or of keys.
 *   write   cbi_job_write_results(job): each range is ordered and written at its place.
 *
 * Records are stored rows (stored.h) with an encoded key: cbi_record_put. A piece of a partition
 * carries the order that its batch was given: the number of the chunk in the high half. An operator
 * whose rows must know their places keeps the row's number in the chunk in the record's row.
 *
 * All segments belong to one pool, so partitions and results compete. It is settled thus: results
 * may always have job->sizes.reserve segments, which loading leaves alone; beyond that they let
 * their own ranges leave. For a join: two cbi_partitions with the same count and hash, one a side,
 * each filled by a read pass of its own input; a pass over one side whose work loads the other
 * side's partition (cbi_partition_load and _wait; count it in with pass->partner).
 */

typedef struct cbi_job cbi_job;
typedef struct cbi_job_worker cbi_job_worker;

/* ---- records ---- */

static inline size_t cbi_record_bytes(uint32_t key_bytes, uint32_t row_bytes) {
    return cbi_varint_bytes(row_bytes) + cbi_varint_bytes(key_bytes) + key_bytes + row_bytes;
}

/** Writes what stands before the row, which the caller appends. */
static inline uint8_t *cbi_record_put_key(uint8_t *p, const uint8_t *key, uint32_t key_bytes,
                                          uint32_t row_bytes) {
    p = cbi_varint_put(p, row_bytes);
    p = cbi_varint_put(p, key_bytes);
    cbi_copy_short(p, key, key_bytes);
    return p + key_bytes;
}

/** Says in the CBI_VARINT_MAX bytes at `p`, that were left for it, how many bytes its row has. */
static inline void cbi_record_put_row_bytes(uint8_t *p, uint32_t row_bytes) {
    for (unsigned i = 0; i < CBI_VARINT_MAX; i++, row_bytes >>= 7)
        p[i] = (uint8_t)((row_bytes & 0x7f) | (i + 1 < CBI_VARINT_MAX ? 0x80 : 0));
}

/** The layout of all records: an encoded key, ties by input order. */
extern const cbi_layout cbi_record_layout;
/** The same in runs. */
extern const cbi_layout cbi_record_run_layout;

/** Over the records of a list of segments, as cbi_partition_wait and _next_part answer it. */
typedef struct cbi_record_reader {
    const cbi_segment *segment;
    const uint8_t *at, *piece_end, *segment_end;
    uint64_t order; /* of the piece that is read */
} cbi_record_reader;

static inline void cbi_record_reader_init(cbi_record_reader *r, cbi_segment *list) {
    *r = (cbi_record_reader){.segment = list};
    if (list != NULL) {
        r->at = r->piece_end = cbi_segment_payload(list);
        r->segment_end = r->at + list->used;
    }
}

/** Answers where the record begins, NULL at the end. */
static inline const uint8_t *cbi_record_next(cbi_record_reader *r, cbi_stored *record) {
    while (CBI_UNLIKELY(r->at == r->piece_end)) {
        if (r->at < r->segment_end) {
            r->order = cbi_load_u64(r->at);
            r->piece_end = r->at + CBI_PIECE_HEADER_BYTES + cbi_load_u32(r->at + 12);
            r->at += CBI_PIECE_HEADER_BYTES;
            continue;
        }
        if (r->segment == NULL || r->segment->next == NULL)
            return NULL;
        r->segment = r->segment->next;
        r->at = r->piece_end = cbi_segment_payload((cbi_segment *)(uintptr_t)r->segment);
        r->segment_end = r->at + r->segment->used;
    }
    const uint8_t *start = r->at;
    r->at = cbi_stored_get(&cbi_record_layout, start, record);
    return start;
}

/* ---- places: results know where in the input they come from ---- */

enum { CBI_PLACE_BYTES_MAX = 6 };

/** Bytes for twice a place, counted from where its range begins, and a bit; `input` bytes are cut
 * into ranges of one length. */
static inline unsigned cbi_place_bytes(uint64_t input, uint32_t ranges) {
    uint64_t most = (input / (ranges > 0 ? ranges : 1) + 64) * 2 + 1;
    unsigned bytes = 3;
    while (bytes < CBI_PLACE_BYTES_MAX && most >> (8 * bytes) != 0)
        bytes++;
    return bytes;
}

/** The first `place_bytes` of a stored key, which it has at least, as a number. */
static inline uint64_t cbi_place_get(const uint8_t *key, unsigned place_bytes) {
    /* bytes of the record, or of its piece's header, stand before the key */
    return cbi_load_be64(key + place_bytes - 8) & UINT64_MAX >> (64 - 8 * place_bytes);
}

/* ---- batches: records on their way into partitions ---- */

/** One worker's; lives in its scratch. Records gather here and are appended partition by partition,
 * so that a lock is taken once for many. */
typedef struct cbi_batch {
    cbi_job *job;
    cbi_partitions *to;
    uint32_t parts;
    uint64_t order; /* of what is put from now on; set it between batches only */
    uint8_t *bytes, *at, *end;
    uint8_t *big; /* a record that is larger than the batch */
    size_t big_units;
    bool turn; /* it has the one for large results */
    cbi_span *spans;
    uint32_t *dest, *which, *counts;
    uint32_t count, capacity;
    bool counted;   /* a record's place among those of its piece belongs to its order */
    unsigned first; /* workers begin at different partitions, so that they seldom meet */
} cbi_batch;

/** Lays it out at `memory`; answers the end. */
uint8_t *cbi_batch_init(cbi_batch *b, cbi_job_worker *w, cbi_partitions *to, uint32_t parts,
                        uint8_t *memory);
/** Bytes of memory that takes. */
size_t cbi_batch_memory(size_t batch_bytes, uint32_t parts);
/** Room for a record of at most `bytes` for partition `dest`: write there, then end. Blocks while
 * memory is short. */
cb_status cbi_batch_begin_slow(cbi_batch *b, size_t bytes, cb_error *err);
cb_status cbi_batch_end_big(cbi_batch *b, uint8_t *end, cb_error *err);
cb_status cbi_batch_flush(cbi_batch *b, cb_error *err);
/** A record that is complete, in the caller's memory: a large one is put into its partition from
 * there. */
cb_status cbi_batch_put(cbi_batch *b, uint32_t dest, const uint8_t *record, size_t bytes,
                        cb_error *err);

static inline cb_status cbi_batch_begin(cbi_batch *b, uint32_t dest, size_t bytes, uint8_t **at,
                                        cb_error *err) {
    if (CBI_UNLIKELY(bytes > (size_t)(b->end - b->at) || b->count == b->capacity))
        CB_TRY(cbi_batch_begin_slow(b, bytes, err));
    b->dest[b->count] = dest;
    *at = b->big != NULL ? b->big : b->at;
    return CB_OK;
}
static inline cb_status cbi_batch_end(cbi_batch *b, uint8_t *end, cb_error *err) {
    if (CBI_UNLIKELY(b->big != NULL))
        return cbi_batch_end_big(b, end, err);
    b->spans[b->count++] =
        (cbi_span){.offset = (uint32_t)(b->at - b->bytes), .bytes = (uint32_t)(end - b->at)};
    b->at = end;
    return CB_OK;
}

/* ---- one thing of any size ---- */

/** Memory for a row or a key on its way, which grows with them: small from the heap (the plan
 * leaves some for small objects), large in segments. Zero-initialise. */
typedef struct cbi_room {
    uint8_t *bytes;
    size_t size, units; /* units 0: from the heap */
} cbi_room;

/** At least so many bytes; what was there is lost if there were fewer. Segments are taken by `via`,
 * which may let something leave for them. CB_EBUDGET: it is as it was, or empty. */
cb_status cbi_room_need(cbi_room *room, cbi_job *job, cbi_partitions *via, size_t bytes,
                        cb_error *err);
void cbi_room_give(cbi_room *room, cbi_job *job);

/* ---- sizes ---- */

/** What an operator knows of its work before it starts; the plan is made from it. */
typedef struct cbi_job_demand {
    double stored_bytes; /* of all records; 0 = not known */
    double row_bytes;    /* mean of an input row, with its end */
    double record_bytes; /* mean of a record */
    size_t fields;       /* columns that are scanned */
    size_t row_extra;    /* bytes an input row takes in the read pass besides its spans */
    size_t read_extra;   /* bytes a worker needs in the read pass besides */
    double work_factor;  /* bytes a worker needs for each stored byte of its partition */
    size_t work_least;   /* and whatever the partition is */
    size_t work_wanted;  /* for a partition of any size. Where there is no memory for that, one that
                            does not fit may be refused */
    double result_factor; /* result bytes for each stored byte, about the most */
    double result_rows;   /* 0: a range has as many rows as a partition */
    bool rereads;         /* writing has a chunk of rows besides: of sizes.batch_rows */
    unsigned outputs;     /* files that results go to; 0 = 1. Each has sizes.ranges of them */
    bool looks_up;        /* what is in memory is gone through in no order, again and again */
    unsigned workers;     /* exactly so many; 0 = as many as there are threads */
    unsigned row_times;   /* pages that a giant row wants, in its own size; 0: 20 */
    unsigned sides;       /* sets of partitions that are open at the same time; 0 = 1 */
} cbi_job_demand;

typedef struct cbi_job_sizes {
    uint64_t budget, fixed, usable;
    unsigned threads, io_threads;
    size_t chunk, batch_rows;
    size_t batch;        /* bytes of records in a cbi_batch */
    size_t batch_memory; /* what it takes with its tables */
    size_t work;         /* bytes behind the batch in the work pass */
    size_t writer_buffer;
    unsigned writer_buffers;
    size_t reread;  /* demand.rereads: what that takes */
    size_t entries; /* rows of a range that a worker can order */
    size_t worker;
    size_t staging, shared;
    size_t segment, segments, batch_segments, run_batch;
    size_t reserve;      /* segments that loading leaves to results */
    uint32_t parts;      /* partitions (of one side) */
    uint32_t ranges;     /* of results */
    uint64_t part_bytes; /* aimed at */
    bool in_memory;
    bool tight;   /* partitions are larger than aimed at */
    bool divides; /* there is memory to divide some */
    bool lean;    /* workers have demand.work_least, and not demand.work_wanted */
} cbi_job_sizes;

/* ---- workers ---- */

struct cbi_job_worker {
    cbi_job *job;
    cbi_thread thread;
    unsigned index;
    uint8_t *scratch; /* sizes.worker bytes: what for depends on the pass */
    cbi_batch batch;

    /* reading */
    cbi_input *input;
    const uint32_t *columns;
    cbi_chunk chunk;
    uint8_t *chunk_home;
    cbi_rows rows;
    uint8_t *extra; /* demand.row_extra for each row of a batch, demand.read_extra */
    uint8_t *big;
    size_t big_units;
    bool big_token;

    /* working: sizes.work bytes */
    uint8_t *work;

    /* writing */
    cbi_writer writer;
    uint8_t *reread; /* sizes.reread bytes */
    cbi_entry *entries;
    uint32_t range;

    void *own; /* the operator's */
    /** Segments are needed for a giant row: gives back what it holds of them. NULL: nothing. */
    cb_status (*yield)(cbi_job_worker *w, cb_error *err);
};

struct cbi_job {
    cb_job_options o; /* copies */
    const char *name; /* "group" */
    char *strings;
    uint64_t seed;
    cbi_input *input; /* the one that is read now, for progress and messages */
    cbi_input *other; /* one that is open besides; the plan counts it. NULL: none */
    cbi_job_demand demand;
    cbi_job_sizes sizes;
    cbi_given given[2]; /* o.read, and what an operator with a second input has */
    uint8_t *header;    /* of the output, owned by the operator */
    size_t header_bytes;
    bool no_terminator;   /* results already end as they should */
    bool short_keys;      /* of results: all different, CBI_SHORT_KEY_MAX bytes at most */
    unsigned place_bytes; /* results' keys begin with as many of a place; 0: they do not */
    /** A result is more than its row: writes it, in w->range. NULL: it is not. */
    cb_status (*put_result)(cbi_job_worker *w, const cbi_stored *row, cb_error *err);
    uint64_t (*range_bytes)(const cbi_job *job, uint32_t range); /* together with put_result */

    cbi_ground ground;
    cbi_partitions *parts, *partner; /* the operator's partitions; destroyed with the job */
    cbi_partitions *results;
    cbi_sink *sink;
    cbi_job_worker *workers;

    cbi_mutex mutex; /* all below */
    cbi_cond changed;
    struct cbi_job_pass *pass;
    struct cbi_job_division *division;
    uint32_t parts_done, parts_count; /* of the latest cbi_job_each */
    uint32_t turn;
    bool big_taken, turn_taken; /* for a large row; for a large result */
    uint64_t *offsets;
    uint64_t cursor;
    cb_status failed;
    cb_error failure;

    atomic_bool stop, cancelled;
    atomic_int phase;
    atomic_ullong rows_in, rows_out, bytes_out;
    uint64_t bytes_out_total, start_ns, end_ns, phase_ns[CB_PHASE_DONE + 1];
    uint64_t rows_bad_before, bytes_in_before; /* of inputs that have been read and closed */
    uint32_t passes, runs, divided;
    cb_job_stats stats;
    cb_job_plan *plan; /* it is explained, not run; NULL: run */
    const char *method;
    bool ran;
};

/** Kinds of rows that come out (dedupe's duplicates beside its rows); at least 1. */
static inline uint32_t cbi_job_outputs(const cbi_job *job) {
    return job->demand.outputs > 1 ? job->demand.outputs : 1;
}

/* job.c */
cb_status cbi_job_init(cbi_job *job, const cb_job_options *options, const char *name,
                       cb_error *err);
/** All inputs as one: paths, given rows, or standard input; becomes job->input. */
cb_status cbi_job_open_input(cbi_job *job, cbi_input **input, cb_error *err);
/** Paths [first, first + count) as one input; becomes job->input. */
cb_status cbi_job_open_paths(cbi_job *job, size_t first, size_t count, cbi_input **input,
                             cb_error *err);
/** job->given[which]; becomes job->input. */
cb_status cbi_job_open_given(cbi_job *job, unsigned which, cbi_input **input, cb_error *err);
/** The manager, its task and consumer: needed to look at samples. Once, before ready. */
cb_status cbi_job_make_memory(cbi_job *job, cb_error *err);
/** Begins an explanation instead of a run. */
cb_status cbi_job_explain(cbi_job *job, cb_job_plan *plan, cb_error *err);
/** The end of one: CB_OK when make_ready has stopped it. */
cb_status cbi_job_explained(cbi_job *job, cb_status status, cb_error *local, cb_error *err);
/** Pages, segments, spill, workers, by the sizes that cbi_job_size has made. CB_EAGAIN: job->plan
 * is wanted and filled. */
cb_status cbi_job_make_ready(cbi_job *job, cb_error *err);
/** Everything that can be known at the end; then all but the figures is taken down. */
void cbi_job_end(cbi_job *job, cb_status status, cb_error *err);
/** The end of every run: names the output if all went well, ends the job, answers what came of it.
 */
cb_status cbi_job_finish(cbi_job *job, cb_status status, cb_error *local, cb_error *err);
void cbi_job_fini(cbi_job *job);
void cbi_job_fail(cbi_job *job, cb_status status, const cb_error *err);
static inline bool cbi_job_stopped(cbi_job *job) {
    return atomic_load_explicit(&job->stop, memory_order_relaxed);
}
void cbi_job_phase(cbi_job *job, cb_phase phase);
void cbi_job_progress(cbi_job *job, cb_progress *progress);
void cbi_job_cancel(cbi_job *job);
void cbi_job_memory_tree(const cbi_job *job, char *text, size_t bytes);
/** For a status page. Any thread. */
void cbi_job_figures(const cbi_job *job, cb_figures *figures);
/** Runs `fn` (its context is the worker) in `count` workers; the first failure is the answer. */
cb_status cbi_job_in_workers(cbi_job *job, unsigned count, cbi_thread_fn fn, cb_error *err);
/** Seeded by the run: nothing of it may show in a result. */
uint64_t cbi_job_hash(const cbi_job *job, const void *key, size_t bytes);
/** The partition of a hash: its high bits, so that tables within a partition can use the low ones.
 */
static inline uint32_t cbi_job_part(uint64_t hash, uint32_t parts) {
    return (uint32_t)(((hash >> 32) * parts) >> 32);
}

/* job_plan.c */
/** Chooses all sizes. CB_EBUDGET: err->bytes_had is the smallest budget that will do. */
cb_status cbi_job_size(cbi_job *job, cb_error *err);
uint64_t cbi_job_least_budget(const cbi_job *job, uint64_t piece_bytes);
/** For what is known of the input. */
uint64_t cbi_job_smallest_budget(const cbi_job *job);
/** New partitions: `count` of them, sharing the pool. */
cb_status cbi_job_open_partitions(cbi_job *job, uint32_t count, cbi_partitions **parts,
                                  cb_error *err);
/** Those of a partition that has been divided `depth` times already. */
cb_status cbi_job_open_pieces(cbi_job *job, uint32_t count, unsigned depth, cbi_partitions **parts,
                              cb_error *err);
size_t cbi_job_piece_batch(const cbi_job_sizes *z, unsigned depth);
/** Mean bytes of rows and rows looked at, from spots all over the input; `row` sees the batches.
 * Does nothing for streams. After cbi_job_make_memory. */
typedef void (*cbi_job_sample_fn)(void *ctx, const cbi_rows *rows, size_t i);
cb_status cbi_job_sample(cbi_job *job, cbi_input *input, const uint32_t *columns, size_t fields,
                         cbi_job_sample_fn row, void *ctx, cb_error *err);

/* job_read.c */
void cbi_job_read_layout(cbi_job_worker *w, cbi_input *input, const uint32_t *columns,
                         size_t fields, cbi_partitions *to, uint32_t parts);
/** The next chunk, whatever it takes; chunk.bytes == 0 at the end. */
cb_status cbi_job_next_chunk(cbi_job_worker *w, cb_error *err);
/** The next rows of the chunk; rows.count == 0 at its end. */
cb_status cbi_job_next_rows(cbi_job_worker *w, size_t *at, cb_error *err);
void cbi_job_end_input(cbi_job_worker *w);

/* job_pass.c */
typedef struct cbi_job_pass {
    cbi_partitions *parts;
    cbi_partitions *partner; /* loaded and dropped together with parts; NULL: none */
    uint32_t first, count;   /* from, to */
    void *ctx;
    /** Does it fit what a worker has? (That it fits the pool is seen to.) */
    bool (*fits)(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info);
    /** `list` is the whole partition; it is dropped afterwards. */
    cb_status (*work)(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                      cb_error *err);
    /** The caller is the only worker at it, and nothing lies in memory. */
    cb_status (*big)(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err);
    /** What has chosen a record's partition. A partition that does not fit is divided by further
     * bits of it, and the pieces are worked on instead; only what that does not help goes to `big`.
     * NULL: all of it does. */
    uint64_t (*hash)(const cbi_job *job, const cbi_stored *record);
    bool partner_counted;  /* cbi_batch.counted was true for what the partner holds */
    unsigned result_times; /* as much memory as the largest record takes, for a result while it is
                              made; 0: twice, in the batch and in its range */
    /* its own */
    uint32_t next, next_load;
    unsigned busy; /* workers with a partition, or with the end of their batch */
    bool exclusive;
    bool strapped;    /* memory ran out once: nothing is read ahead any more */
    bool solo;        /* somebody runs short: none begins until all are done */
    bool scarce;      /* somebody did although no record is large: one after another from then on */
    size_t giants;    /* segments that results of large records may take now */
    unsigned waiting; /* of the busy ones, until something comes back: */
    uint64_t returns; /* how often something has, or a last call has been made */
    bool last_call;   /* nothing has since that */
    uint32_t scale;   /* partitions of this size that all records would make */
    unsigned depth;   /* how often these have been divided */
    uint64_t segments; /* of all of them, both sides */
    uint8_t *divided;  /* by index: it is to be divided. NULL: none is */
} cbi_job_pass;
/** Every partition once, by all workers. Each worker's batch goes to `to` (NULL: none). */
cb_status cbi_job_each(cbi_job *job, cbi_job_pass *pass, cbi_partitions *to, uint32_t to_parts,
                       cb_error *err);
/** All memory is in the pool again: what `parts` (from `index` on), partner and results hold goes
 * to disk. For `big`. */
cb_status cbi_job_clear_memory(cbi_job *job, uint32_t index, cb_error *err);

/** What was read ahead for the present pass, and what lies in memory for later, gives its memory
 * back; who finds no more after that waits until another worker is done with his partition or with
 * a large result. `ctx`: the job; for cbi_partitions_options. */
cb_status cbi_job_give_way(void *ctx, bool again, bool *gave, cb_error *err);

/** Where memory is short large results of a pass are made by one worker at a time, or each would
 * hold what another one waits for. Blocks; false: there is no turn, go on without: no pass is under
 * way, the job has stopped, or who has it waits for memory as do all others. */
bool cbi_job_take_turn(cbi_job *job);
void cbi_job_give_turn(cbi_job *job);

/** So many more of the partitions of cbi_job_each are done. */
void cbi_job_parts_done(cbi_job *job, uint32_t count);

/* job_divide.c */
/** Is it to be divided rather than given to one worker? */
bool cbi_job_divides(const cbi_job *job, const cbi_job_pass *pass, uint32_t index);
/** The rest of a pass: divides the partitions that were left for that, a few at a time, and works
 * on their pieces. */
cb_status cbi_job_divide(cbi_job *job, cbi_job_pass *pass, cbi_partitions *to, uint32_t to_parts,
                         cb_error *err);
/** Those that are not divided. */
cb_status cbi_job_pass_once(cbi_job *job, cbi_job_pass *pass, cbi_partitions *to, uint32_t to_parts,
                            cb_error *err);
/** Most pieces that are open at the same time; how often what is too large is divided; how much
 * smaller the tables of pieces of pieces are. */
enum { CBI_PIECES_MAX = 128, CBI_DEPTH_MAX = 3, CBI_DEEPER_SHARE = 4 };

/** How many parts of something too large are read ahead where their order does not matter. */
enum { CBI_PARTS_AHEAD = 8 };

/* job_out.c */
/** Opens the output, the workers' writers are at its disposal, and puts the header in: results are
 * written from job->cursor on, by the operator itself. `bytes_most`: about the most that comes. */
cb_status cbi_job_begin_output(cbi_job *job, uint64_t bytes_most, cb_error *err);
/** Orders job->results range by range by their keys and writes their rows. */
cb_status cbi_job_write_results(cbi_job *job, cb_error *err);
/** The same for some of the ranges and another file, which is complete and has its name when this
 * returns. */
cb_status cbi_job_write_ranges(cbi_job *job, uint32_t first, uint32_t end, const char *path,
                               cb_error *err);

/** Rows that are written as they come: worker 0's pen is behind the header then (when there is no
 * o.write); its buffers come from the pool. */
cb_status cbi_job_begin_rows(cbi_job *job, cbi_partitions *parts, cb_error *err);
cb_status cbi_job_end_rows(cbi_job *job, cb_error *err);

/* job_slices.c */
__extension__ typedef unsigned __int128 cbi_wide_key;
enum { CBI_SHORT_KEY_MAX = 16, CBI_SLICE_BUCKETS = 1024 };

/** Rows with short keys that differ, taken slice by slice in the order of the keys; within a slice
 * they are not in order yet. */
typedef struct cbi_slices {
    cbi_segment *list;
    uint64_t left;            /* rows */
    cbi_wide_key low, last;   /* of those; the others are done with */
    cbi_wide_key start, high; /* that have been counted */
    unsigned shift;
    uint32_t next; /* bucket */
    uint32_t counts[CBI_SLICE_BUCKETS];
} cbi_slices;
void cbi_slices_init(cbi_slices *s, cbi_segment *list, uint64_t rows);
/** An entry of each row of the next slice, `most` (at least 1) at most; 0: there are no more. */
size_t cbi_slices_next(cbi_slices *s, cbi_entry *entries, size_t most, const uint8_t *base);

/* job_runs.c */
/**
 * Sorts what does not fit: records in, one merge, records out in the order of their keys (equal
 * ones by their `order`). For one worker that is alone. Several may be open one after another, not
 * at the same time.
 */
typedef struct cbi_runs {
    cbi_job *job;
    const cbi_layout *layout;
    cbi_run_table table;
    size_t batch;
    cbi_builder builder;
    size_t builder_units, outside;
    bool rows_large;    /* of more than a segment: they need a builder that is */
    size_t merge_units; /* segments that a merge may use */
} cbi_runs;
/** `need`: bytes of all records and their entries, about. `units_max`: segments of the largest. */
cb_status cbi_runs_open(cbi_runs *r, cbi_job *job, uint64_t need, uint32_t units_max,
                        cb_error *err);
/** A second one, beside one whose merge is under way: it makes do with `units` segments of what
 * that left outside, and as many again for its merge. */
cb_status cbi_runs_open_inside(cbi_runs *r, cbi_job *job, size_t units, cb_error *err);
cb_status cbi_runs_add(cbi_runs *r, const cbi_stored *row, cb_error *err);
cb_status cbi_runs_merge(cbi_runs *r, cbi_row_fn fn, void *ctx, cb_error *err);
/** NULL members are fine. After a failure, too. */
void cbi_runs_close(cbi_runs *r);

#endif
