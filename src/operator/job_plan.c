/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/job.h"

/*
 * The plan of a job, as that of a sort (sort_plan.c):
 *
 *     budget = fixed (baseline, stacks, small objects, tables, headroom)
 *            + shared (staging of the spill, blocks of a compressed output, edges)
 *            + threads x worker scratch
 *            + segments
 *
 * A worker's scratch is used three times, one after the other:
 *
 *     read    batch | chunk | rows, fields | the operator's
 *     work    batch | what a partition needs in the operator's hands
 *     write   buffers of the output | rows that are read again | entries of a range
 *
 * Partitions are so many that each worker holds one, and one more is on its way for each, while
 * results have room of their own. They may come out uneven, so 1.35 times smaller ones are aimed
 * at. In memory they are as small as caches like them.
 */

enum {
    CODE_LATER_BYTES = 1024 * 1024,
    DECODER_CODE_BYTES = 512 * 1024,
    USABLE_MIN = 2 << 20,
    USABLE_SPARE = 1 << 19,
    BUDGET_SPARE = 128 << 10,
    SIDES_USABLE = 6 << 20,
    DIVIDES_LEAST = 2 << 20, /* the pieces' segments take more than they bring where it is less */
    CHUNK_MAX = 1 << 20,
    CHUNK_MIN = 32 << 10,
    PARTS_MAX = 2048,
    PARTS_STREAM = 256,
    PART_IN_CACHE = 1 << 20,
    PART_FINE = 2 << 20,
    PART_FINE_LEAST = PART_FINE / 4,
    EXTENT_WORTH = 64 << 10,
    WORK_SHARE = 12,
    SAMPLE_ROWS = 16,
    SAMPLE_SPOTS = 512
};

/* A partition of two sides has results as large as itself, nearly. */
static const double SIDES_ROOM = 1.4;

static double clamp_double(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

static size_t power_of_two_below(size_t n) {
    size_t p = 1;
    while (p * 2 <= n)
        p *= 2;
    return p;
}

static cbi_compression output_compression(const cbi_job *job) {
    return job->o.output == NULL ? CBI_COMPRESSION_NONE : cbi_compression_of_name(job->o.output);
}

/* Places of what is on disk are kept in memory (extents.c), for records and for results. */
static size_t index_bytes(const cbi_job *job, uint64_t budget) {
    double stored = job->demand.stored_bytes * (1 + job->demand.result_factor);
    if (stored <= 0)
        return cbi_clamp((size_t)(budget / 24), 64 * CBI_KIB, 64 * CBI_MIB);
    uint64_t extent = budget / 512 < 16 * CBI_KIB ? 16 * CBI_KIB : budget / 512;
    return (size_t)clamp_double(stored / (double)extent * 40, 0, (double)budget / 10);
}

/* A decoder, and the end of a chunk that waits for the next one; its code only once. */
static uint64_t stream_bytes(const cbi_job *job, const cbi_input *input, uint64_t budget,
                             size_t *code) {
    if (input == NULL || cbi_input_seekable(input))
        return 0;
    size_t decoder = cbi_input_decoder_bytes(input);
    if (budget > job->o.memory_bytes) /* what it may take goes by the budget, too */
        decoder = (size_t)((double)decoder * (double)budget / (double)job->o.memory_bytes);
    *code = decoder > 0 ? DECODER_CODE_BYTES : *code;
    return decoder + cbi_min((size_t)(budget / 24), CHUNK_MAX);
}

static uint64_t fixed_bytes(const cbi_job *job, const cbi_job_sizes *z) {
    uint64_t budget = z->budget;
    unsigned threads = z->threads + z->io_threads;
    uint64_t bytes =
        job->ground.baseline + CODE_LATER_BYTES + (uint64_t)threads * CBI_STACK_TOUCHED_BYTES;
    bytes += cbi_alloc_bytes() + 128 * CBI_KIB + index_bytes(job, budget);
    size_t code = 0;
    bytes += stream_bytes(job, job->input, budget, &code);
    bytes += stream_bytes(job, job->other, budget, &code);
    bytes += code;
    if (output_compression(job) != CBI_COMPRESSION_NONE)
        bytes += DECODER_CODE_BYTES + cbi_compressor_bytes(output_compression(job));
    bytes += budget / 512;                                             /* page tables */
    bytes += cbi_clamp((size_t)(budget / 64), 192 * CBI_KIB, CBI_MIB); /* headroom */
    bytes += cbi_kernel_bytes(budget) + cbi_huge_bytes(budget, z->threads);
    return bytes;
}

/* Partition tables and requests that are made later; 3 sets of them at most, and those of pieces
 * where partitions must be divided: a full one for each side and one more, which those of pieces
 * that are divided again share. */
static size_t table_bytes(const cbi_job *job, const cbi_job_sizes *z, unsigned sides) {
    size_t pieces = z->divides ? cbi_partitions_bytes(CBI_PIECES_MAX, z->batch_segments) : 0;
    uint32_t ranges = z->ranges * cbi_job_outputs(job);
    size_t known = job->demand.rereads ? ranges * (z->threads + 1) * sizeof(uint64_t) : 0;
    return sides * (cbi_partitions_bytes(z->parts, z->batch_segments) + pieces) + pieces +
           cbi_partitions_bytes(ranges, z->batch_segments) + known;
}

/* What a worker may have for the entries of a range. */
static double entries_most(const cbi_job_sizes *z) {
    return (double)z->usable / 8 / z->threads;
}

static size_t worker_bytes(const cbi_job *job, cbi_job_sizes *z) {
    const cbi_job_demand *d = &job->demand;
    double row = clamp_double(d->row_bytes, 4, 1 << 20);
    size_t row_tables = sizeof(cbi_span) * (1 + d->fields) + d->row_extra;
    z->batch_rows = cbi_clamp((size_t)((double)z->chunk / row * 1.3) + 64, 64,
                              z->chunk / (row_tables < 1 ? 1 : row_tables) + 64);
    z->batch = cbi_clamp(z->chunk, 32 * CBI_KIB, CBI_MIB);
    uint32_t most = (uint32_t)cbi_max(z->parts, z->ranges * cbi_job_outputs(job));
    z->batch_memory = cbi_batch_memory(z->batch, most);
    size_t in = z->chunk + z->batch_rows * row_tables + d->read_extra + 1024;
    z->work = (size_t)((double)z->part_bytes * d->work_factor * 1.5) + 64 * CBI_KIB;
    z->work = cbi_max(z->work, z->lean ? d->work_least : cbi_max(d->work_least, d->work_wanted));
    z->writer_buffers = 3;
    size_t pens = z->writer_buffers * z->writer_buffer;
    z->reread =
        d->rereads ? cbi_round_up(z->chunk + z->batch_rows * row_tables + 4096 + 256, 64) : 0;
    double wanted = (d->result_rows / z->ranges * 1.5 + 256) * sizeof(cbi_entry);
    size_t entries =
        d->result_rows > 0 ? (size_t)clamp_double(wanted, 0, entries_most(z)) : z->work / 2;
    size_t out = pens + z->reread + entries;
    size_t bytes = cbi_round_up(cbi_max(z->batch_memory + cbi_max(in, z->work), out), 4096);
    z->work = bytes - z->batch_memory;
    z->entries = (bytes - pens - z->reread) / sizeof(cbi_entry);
    return bytes;
}

/* As few as can be ordered, for each has less memory the more there are; but none larger than
 * caches are. */
static double choose_ranges(const cbi_job *job, const cbi_job_sizes *z) {
    const cbi_job_demand *d = &job->demand;
    double bytes = d->stored_bytes * d->result_factor;
    double cached = bytes / (double)(z->in_memory ? PART_IN_CACHE : PART_FINE) + 1;
    double ordered = d->result_rows * 1.6 * sizeof(cbi_entry) / entries_most(z) + 1;
    return cached > ordered ? cached : ordered;
}

/* How many partitions, of which size, for what is known of the records, in `rest` bytes of
 * segments. */
static void choose_parts(const cbi_job *job, cbi_job_sizes *z, uint64_t rest) {
    const cbi_job_demand *d = &job->demand;
    unsigned sides = d->sides > 1 ? d->sides : 1;
    double most = clamp_double((double)rest / 8 / 4096 / sides, 4, PARTS_MAX);
    if (d->stored_bytes <= 0) {
        z->in_memory = false;
        z->divides = rest >= DIVIDES_LEAST;
        z->parts = (uint32_t)clamp_double((double)rest / (128 * 1024.0), 8,
                                          clamp_double(PARTS_STREAM, 4, most));
        z->ranges = z->parts;
        return;
    }
    double total = d->stored_bytes;
    double parts = total / (double)z->part_bytes + 1;
    double small = clamp_double(total / (double)PART_IN_CACHE + 1, parts, PARTS_MAX);
    double open = small * 2 * 16 * 1024;
    z->in_memory = total * (1.04 + 0.1 * d->result_factor) + open + 256 * 1024 <= (double)rest;
    /* smaller ones are read ahead in less memory; two sides have twice as many extents */
    double worth = sides > 1 ? 4 * EXTENT_WORTH : EXTENT_WORTH;
    /* and the work on one must not take the memory that rows meet in before they are put into any
     */
    double worked = (double)rest / (WORK_SHARE * (d->work_factor > 1 ? d->work_factor : 1));
    double least =
        sides > 1 ? (double)PART_FINE / 2 : clamp_double(worked, PART_FINE_LEAST, PART_FINE);
    double fine = clamp_double((double)rest / worth, 1, total / sides / least + 1);
    double wanted = z->in_memory ? small : fine;
    if (parts < wanted) {
        parts = wanted;
        z->part_bytes = (uint64_t)(total / parts) + 4096;
    }
    double all = total * 1.2 + 64 * 1024;
    if ((double)z->part_bytes > all)
        z->part_bytes = (uint64_t)all;
    /* Of two sides one is open at a time. */
    if (parts > most && sides > 1)
        most = clamp_double((double)rest / 6 / 4096, most, PARTS_MAX);
    z->tight = parts > most;
    z->divides = z->tight && rest >= DIVIDES_LEAST;
    z->parts = (uint32_t)clamp_double(parts, 1, most);
    z->ranges = (uint32_t)clamp_double(parts * d->result_factor, 1, most);
    if (d->result_rows > 0)
        z->ranges = (uint32_t)clamp_double(choose_ranges(job, z), 1, most);
}

/* There may be more partitions than when the worker's memory was divided: its batch counts them. */
static size_t grow_batch(const cbi_job *job, cbi_job_sizes *z) {
    uint32_t most = (uint32_t)cbi_max(z->parts, z->ranges * cbi_job_outputs(job));
    size_t memory = cbi_batch_memory(z->batch, most);
    if (memory <= z->batch_memory)
        return 0;
    size_t more = cbi_round_up(memory - z->batch_memory, 4096);
    z->batch_memory += more;
    z->worker += more;
    return more;
}

static bool size_with(const cbi_job *job, unsigned threads, unsigned io_threads, cbi_job_sizes *z) {
    const cbi_job_demand *d = &job->demand;
    unsigned sides = d->sides > 1 ? d->sides : 1;
    z->threads = threads;
    z->io_threads = io_threads;
    z->fixed = fixed_bytes(job, z);
    if (z->fixed + USABLE_MIN > z->budget)
        return false;
    z->usable = z->budget - z->fixed;
    z->chunk =
        power_of_two_below(cbi_clamp((size_t)(z->usable / 32 / threads), CHUNK_MIN, CHUNK_MAX));
    z->writer_buffer = power_of_two_below(
        cbi_clamp((size_t)(z->usable / 64 / threads * 2), 32 * CBI_KIB, CBI_MIB));
    z->segment = 16 * CBI_KIB;
    z->parts = z->ranges = 1;
    z->part_bytes = 0;
    z->divides = false;
    z->batch_segments = 8;
    for (unsigned round = 0; round < 4; round++) {
        z->worker = worker_bytes(job, z);
        z->staging = cbi_round_up(
            cbi_spill_staging_bytes(z->io_threads, z->segment, job->o.spill_codec), 4096);
        z->shared = z->staging + cbi_sink_block_bytes(output_compression(job)) +
                    cbi_sink_edge_bytes(threads);
        uint64_t taken = z->shared + (uint64_t)threads * z->worker + table_bytes(job, z, sides);
        if (taken + 32 * 4096 > z->usable)
            return false;
        uint64_t rest = z->usable - taken;
        if (round == 0) { /* partitions and the work on them share what is left, results have some
                           */
            double room = sides > 1 ? SIDES_ROOM : 1;
            z->part_bytes = (uint64_t)((double)rest / (1.35 * room * (threads + 2.5) +
                                                       1.5 * threads * d->work_factor));
            continue;
        }
        choose_parts(job, z, rest);
        size_t segment = (size_t)cbi_min(rest / 8 / (z->parts * sides), rest / 64);
        z->segment = power_of_two_below(
            cbi_clamp(segment, 4096, z->in_memory ? 64 * CBI_KIB : 32 * CBI_KIB));
        z->segments = (size_t)(rest / z->segment);
        z->batch_segments = cbi_clamp(512 * CBI_KIB / z->segment, 1, cbi_max(z->segments / 32, 2));
    }
    size_t staging =
        cbi_round_up(cbi_spill_staging_bytes(z->io_threads, z->segment, job->o.spill_codec), 4096);
    size_t tables = table_bytes(job, z, sides);
    size_t batches = threads * grow_batch(job, z);
    if (staging + tables + batches > z->staging) { /* the last round chose other sizes */
        size_t more = staging > z->staging ? staging - z->staging : 0;
        more += tables + batches;
        z->segments -= cbi_min(z->segments, more / z->segment + 1);
        z->shared += staging > z->staging ? staging - z->staging : 0;
        z->staging = cbi_max(z->staging, staging);
    }
    if ((z->shared + (uint64_t)threads * z->worker) % z->segment != 0)
        z->segments -= cbi_min(z->segments, 1); /* scratch is whole segments of the same pool */
    z->run_batch = cbi_clamp(z->segments / 256, 1, cbi_max(512 * CBI_KIB / z->segment, 1));
    size_t most = sides > 1 ? z->segments / 4 : z->segments / 8; /* the rest is for reading ahead */
    z->reserve =
        cbi_max(cbi_min(most, 2 * (size_t)z->ranges * cbi_job_outputs(job)), z->segments / 8);
    return z->segments >= 32;
}

/* More I/O threads than two are for speed. */
static bool size_for(const cbi_job *job, unsigned threads, cbi_job_sizes *z) {
    return size_with(job, threads, cbi_io_threads(z->budget), z) ||
           size_with(job, threads, CBI_IO_THREADS_LEAST, z);
}

/* The next run may start with a little more resident, and still has to find a plan. */
static bool size_roomy(const cbi_job *job, unsigned threads, cbi_job_sizes *z) {
    cbi_job_sizes less = {.budget = z->budget - BUDGET_SPARE};
    return size_for(job, threads, &less) && size_for(job, threads, z) &&
           z->usable >= USABLE_MIN + USABLE_SPARE;
}

static uint64_t least_budget(const cbi_job *job, uint64_t from, unsigned threads, double pages) {
    cbi_job_sizes z = {.budget = cbi_round_up(from, CBI_MIB)};
    while (z.budget < (uint64_t)1 << 42 &&
           (!size_roomy(job, threads, &z) || (double)z.segments * (double)z.segment < pages))
        z.budget = cbi_round_up(z.budget + (z.budget < 256 * CBI_MIB ? 1 : z.budget / 64), CBI_MIB);
    return z.budget;
}

uint64_t cbi_job_least_budget(const cbi_job *job, uint64_t piece_bytes) {
    double times = job->demand.row_times > 0 ? job->demand.row_times : 20;
    double pages = ((double)piece_bytes + 128 * 1024) * times;
    return least_budget(job, job->o.memory_bytes, job->demand.workers > 0 ? job->demand.workers : 1,
                        pages);
}

uint64_t cbi_job_smallest_budget(const cbi_job *job) {
    return least_budget(job, 2 * CBI_MIB, job->demand.workers > 0 ? job->demand.workers : 1, 0);
}

/* With as many threads as go, at most `threads`. */
static bool size_threads(const cbi_job *job, unsigned threads, unsigned fewest, cbi_job_sizes *z) {
    while (!size_for(job, threads, z))
        if (threads-- == fewest)
            return false;
    return true;
}

cb_status cbi_job_size(cbi_job *job, cb_error *err) {
    cbi_job_sizes z = {.budget = job->o.memory_bytes};
    unsigned threads = job->o.threads != 0 ? job->o.threads : cbi_sys_cpus();
    threads = (unsigned)cbi_clamp(threads, 1, 64);
    if (job->o.threads == 0 && z.budget < 12 * CBI_MIB)
        threads = 1;
    if (job->demand.stored_bytes > 0 && job->demand.stored_bytes < 256.0 * 1024)
        threads = 1; /* not worth a thread */
    unsigned fewest = job->demand.workers > 0 ? job->demand.workers : 1;
    threads = job->demand.workers > 0 ? fewest : threads;
    if (!size_threads(job, threads, fewest, &z)) {
        z.lean = true;
        if (!size_threads(job, threads, fewest, &z))
            return cbi_ground_refuse(z.budget, z.fixed, least_budget(job, z.budget, fewest, 0),
                                     err);
    }
    cbi_job_sizes one = {.budget = z.budget, .lean = z.lean};
    if (z.tight && threads > 1 && job->demand.sides > 1 && z.usable < SIDES_USABLE &&
        size_for(job, 1, &one))
        z = one; /* two workers would have next to nothing */
    job->sizes = z;
    return CB_OK;
}

size_t cbi_job_piece_batch(const cbi_job_sizes *z, unsigned depth) {
    return depth == 0 ? z->batch_segments : cbi_max(z->batch_segments / CBI_DEEPER_SHARE, 1);
}

cb_status cbi_job_open_partitions(cbi_job *job, uint32_t count, cbi_partitions **parts,
                                  cb_error *err) {
    return cbi_job_open_pieces(job, count, 0, parts, err);
}

cb_status cbi_job_open_pieces(cbi_job *job, uint32_t count, unsigned depth, cbi_partitions **parts,
                              cb_error *err) {
    const cbi_job_sizes *z = &job->sizes;
    cbi_partitions_options options = {.count = count,
                                      .layout = &cbi_record_layout,
                                      .pool = job->ground.pool,
                                      .segment_bytes = z->segment,
                                      .segments_max = z->segments,
                                      .spill = job->ground.spill,
                                      .batch_segments_max = cbi_job_piece_batch(z, depth),
                                      .populate = z->in_memory && z->segment >= 32 * CBI_KIB,
                                      .low_water = z->segments / 8,
                                      .cancelled = &job->stop,
                                      .give_way = cbi_job_give_way,
                                      .give_way_ctx = job};
    return cbi_partitions_create(&options, parts, err);
}

/* ---- sampling ---- */

cb_status cbi_job_sample(cbi_job *job, cbi_input *input, const uint32_t *columns, size_t fields,
                         cbi_job_sample_fn row, void *ctx, cb_error *err) {
    if (!cbi_input_seekable(input) || cbi_input_bytes(input) == 0)
        return CB_OK;
    enum { ROWS = 1024, READ = 64 * 1024 };
    size_t all = READ + ROWS * sizeof(cbi_span) * (1 + fields);
    if (job->ground.baseline + all + CBI_MIB > job->o.memory_bytes)
        return CB_OK; /* sizing will say so */
    cb_page page;
    CB_TRY(cb_page_alloc(job->ground.consumer, all, &page, err));
    uint8_t *base = cb_page_data(&page);
    cb_status status = CB_OK;
    for (size_t read = 8 * CBI_KIB, seen = 0; status == CB_OK && seen == 0 && read <= READ;
         read *= 2) {
        cbi_chunk chunk = {.buf = base, .capacity = read};
        cbi_rows rows = {.capacity = ROWS, .field_count = fields};
        rows.rows = (cbi_span *)(void *)(base + READ);
        rows.fields = rows.rows + ROWS;
        uint64_t bytes = cbi_input_bytes(input);
        size_t spots = (size_t)cbi_clamp((size_t)(bytes / read / 2), 1, SAMPLE_SPOTS);
        size_t limit = spots < 64 ? ROWS : SAMPLE_ROWS;
        for (size_t i = 0; status == CB_OK && i < spots; i++) {
            status = cbi_input_sample(input, i, spots, &chunk, err);
            if (status != CB_OK || chunk.bytes == 0)
                continue;
            size_t at = 0;
            if (cbi_input_scan(input, &chunk, &at, columns, &rows, NULL) != CB_OK)
                continue; /* a spot inside a quoted field reads as nonsense; the real pass will
                             judge */
            size_t n = cbi_min(rows.count, limit);
            for (size_t k = 0; k < n; k++)
                row(ctx, &rows, k);
            seen += n;
        }
    }
    cb_error ignored;
    cb_status freed = cb_page_free(job->ground.consumer, &page, &ignored);
    cb_assert(freed == CB_OK);
    return status;
}
