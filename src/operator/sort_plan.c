/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/sort_private.h"

/*
 * The plan: how many bytes everything gets, before anything is allocated.
 *
 *     budget = fixed (baseline, stacks, small objects, tables, headroom)
 *            + shared (staging of the spill, blocks of a compressed output, edges)
 *            + threads x worker scratch
 *            + segments
 *
 * The work comes in by chunks of up to 1 MiB, which stay in the second-level cache while their rows
 * are sorted by range.
 *
 * Ranges. While results go out, each worker holds a range and some more are on their way in, so a
 * range may take segments / (workers + 2); ranges come out uneven by the luck of the sample,
 * so 1.35 times less is aimed at. If everything fits in memory ranges are made small instead, for
 * the cache's sake. Each range needs an open segment, so segments get smaller as ranges get more;
 * when even that would take more than a third of the memory, there are fewer ranges than needed and
 * each is done by runs and a merge of its own (one more pass over the disk).
 *
 * Enough. What leaves at a time grows with the square of the memory (larger batches of fewer
 * ranges), and beyond what makes a request worth its while a larger budget only keeps rows from the
 * disk. Touching memory for the first time costs as well, and more than that saves where the disk
 * keeps up and the host of a virtual machine has to find each page: 2 GB at 256 MiB take a twelfth
 * less time with a plan for 124; at 1 GiB 3.0 to 3.3 s instead of 3.5 to 5.6, and at 4 GiB, where
 * they would fit, 2.6 to 3.0 instead of 2.9 to 6.1. So from an input of 1 GiB on, and before that
 * where most of it has to leave anyway, the plan is made for what is enough. The rest of the budget
 * is the spill's tier (spill/tier.c): it stays untouched while the disk keeps up, takes packed rows
 * as soon as it does not, and is there for rows that turn out to be giants.
 *
 * Where the temporary folders would not hold all of it beside the output, as much as can be stays
 * in memory all the same.
 */

enum {
    CODE_LATER_BYTES =
        896 * 1024, /* code and data that are not resident at the start but will be */
    DECODER_CODE_BYTES = 512 * 1024,
    USABLE_MIN = 2 << 20,   /* below that nothing is left for rows */
    USABLE_SPARE = 1 << 19, /* the next run may start with a little more resident */
    BUDGET_SPARE = 128 << 10,
    CHUNK_MAX = 1 << 20,
    CHUNK_MIN = 32 << 10,
    RANGES_MAX = 4096,
    RANGE_FINE = 4 << 20,
    RANGE_IN_MEMORY = 2 << 20,
    EXTENT_WORTH = 256 << 10,
    ENOUGH_MIN = 64 << 20,
    TIER_MIN = 4 << 20,
    ENOUGH_SQUARED = 8 << 20, /* times the input, in bytes squared: memory that is enough */
    ENOUGH_FACTOR = 6,        /* of the budget: a smaller input is better kept in memory */
    ENOUGH_FROM = 1 << 30,    /* ... unless it has so many bytes */
    STREAM_WORKER_MIN =
        1 << 20, /* less for each worker makes so many runs that merging them is all */
    SAMPLE_SPOTS_MIN = 256,
    SAMPLE_SPOTS_MAX = 8192,
    SAMPLE_ROWS_A_SPOT = 64
};

bool cbi_sort_by_range(const cb_sort *s) {
    return s->o.action == CB_SORT_SORT && cbi_input_seekable(s->input) &&
           cbi_input_bytes(s->input) > 0;
}

static double clamp_double(double x, double low, double high) {
    return x < low ? low : x > high ? high : x;
}

/* Places of what is on disk are kept in memory, 16 bytes an extent (extents.c). */
static size_t index_bytes(const cb_sort *s, uint64_t budget) {
    size_t most = (size_t)(budget / 10);
    if (!cbi_input_seekable(s->input) || s->o.action != CB_SORT_SORT)
        return cbi_clamp((size_t)(budget / 24), 64 * CBI_KIB, 64 * CBI_MIB);
    /* What leaves at a time is about what a range has in memory, and that is the less the more
     * ranges there must be for one to fit beside those of the others (choose_ranges). */
    double input = (double)cbi_input_bytes(s->input);
    double extent = clamp_double((double)budget * 0.14 * ((double)budget / input), 16 * 1024,
                                 (double)cbi_max(budget / 512, 16 * CBI_KIB));
    return cbi_min((size_t)(input / extent) * 28, most);
}

static cbi_compression output_compression(const cb_sort *s) {
    return s->o.output == NULL || s->o.gnu ? CBI_COMPRESSION_NONE
                                           : cbi_compression_of_name(s->o.output);
}

/* Files that are written at the same time with a compressor each. */
static unsigned outputs(const cb_sort *s, unsigned threads) {
    return s->split != NULL ? threads : 1;
}

static uint64_t fixed_bytes(const cb_sort *s, unsigned threads, unsigned io_threads,
                            uint64_t budget) {
    uint64_t bytes = s->ground.baseline + CODE_LATER_BYTES +
                     (uint64_t)(threads + io_threads) * CBI_STACK_TOUCHED_BYTES;
    bytes += cbi_alloc_bytes() + 128 * CBI_KIB + index_bytes(s, budget);
    if (!cbi_input_seekable(s->input)) { /* a decoder with its code, and the end of a chunk that
                                            waits for the next one */
        size_t decoder = cbi_input_decoder_bytes(s->input);
        if (budget > s->o.memory_bytes) /* what it may take goes by the budget, too */
            decoder = (size_t)((double)decoder * (double)budget / (double)s->o.memory_bytes);
        bytes += decoder + (decoder > 0 ? DECODER_CODE_BYTES : 0) +
                 cbi_min((size_t)(budget / 24), CHUNK_MAX);
    }
    if (output_compression(s) != CBI_COMPRESSION_NONE)
        bytes +=
            DECODER_CODE_BYTES + outputs(s, threads) * cbi_compressor_bytes(output_compression(s));
    bytes += budget / 512; /* page tables of what is touched */
    bytes += cbi_clamp((size_t)(budget / 64), 192 * CBI_KIB, CBI_MIB); /* headroom */
    bytes += cbi_kernel_bytes(budget) + cbi_huge_bytes(budget, threads);
    return bytes;
}

static size_t power_of_two_below(size_t n) {
    size_t p = 1;
    while (p * 2 <= n)
        p *= 2;
    return p;
}

/* Entries (and the list of pieces) that a range of z->range_bytes needs, with a margin for uneven
 * ranges. */
static double entry_bytes(const cb_sort *s) {
    return 1.5 * 1.125 * sizeof(cbi_entry) / clamp_double(s->sample.stored_bytes, 2, 1 << 30);
}

/* Scratch of one worker for the sizes chosen so far. */
static size_t worker_bytes(const cb_sort *s, sort_sizes *z) {
    uint32_t const *columns;
    size_t fields = cbi_keys_columns(s->keys, &columns);
    bool encoded = s->layout.shape == CBI_KEY_ENCODED;
    size_t row = sizeof(cbi_span) * (1 + fields + (encoded ? 1 : 0)) + 2 * sizeof(uint32_t);
    double mean = clamp_double(s->sample.row_bytes + 1, 4, 1 << 20);
    z->batch_rows =
        cbi_clamp((size_t)((double)z->chunk / mean * 1.3) + 64, 64, z->chunk / row + 64);
    /* Keys of long rows: a batch ends when they have no room, and one alone gets segments. */
    size_t keys = (size_t)((double)z->batch_rows * (s->sample.key_bytes * 1.3 + 8));
    z->batch_keys = encoded ? cbi_clamp(keys, z->chunk / 8, 4 * z->chunk) : 0;
    size_t in =
        z->chunk + z->batch_rows * row + z->batch_keys + (z->ranges + 2) * sizeof(uint32_t) + 512;
    /* With large ones the disk has work while the next range is put in order. */
    z->writer_buffers = z->writer_buffer >= 512 * CBI_KIB ? 6 : 3;
    size_t out = z->writer_buffers * z->writer_buffer +
                 (size_t)((double)z->range_bytes * entry_bytes(s)) + 4096;
    size_t bytes = cbi_round_up(cbi_max(in, out), 4096);
    z->entries = (bytes - z->writer_buffers * z->writer_buffer) / sizeof(cbi_entry);
    return bytes;
}

/* How many ranges, of which size, for `total` stored bytes in `rest` bytes of segments. */
static void choose_ranges(const cb_sort *s, sort_sizes *z, double total, uint64_t rest) {
    double ranges = total / (double)z->range_bytes + 1;
    double small = clamp_double(total / RANGE_IN_MEMORY + 1, ranges, RANGES_MAX * 0.5);
    double open = clamp_double(small, 1, RANGES_MAX) * 16 * 1024;
    z->in_memory = total * 1.04 + open + 64 * 1024 <= (double)rest;
    /* Small ranges are kinder to the cache, as long as what leaves at a time stays worth a request.
     */
    double fine = clamp_double((double)rest / EXTENT_WORTH, 1, total / RANGE_FINE + 1);
    double wanted = z->in_memory ? small : fine;
    if (ranges < wanted) {
        ranges = wanted;
        z->range_bytes = (uint64_t)(total / ranges) + 4096;
    }
    double all = total * 1.2 + 64 * 1024; /* no range is larger than everything */
    if ((double)z->range_bytes > all)
        z->range_bytes = (uint64_t)all;
    double most = clamp_double((double)rest / 3 / 4096, 4,
                               RANGES_MAX); /* open segments: a third of the memory */
    if (!z->in_memory) {
        /* The largest leaves first, so what leaves is near twice what a range has on average: with
         * too many ranges there would be more extents than the index has room for. */
        double extent = total * 18 / (double)cbi_max(index_bytes(s, z->budget), 4096);
        most = clamp_double((double)rest * 1.4 / extent, 4, most);
    }
    z->ranges = (uint32_t)clamp_double(ranges, 1, most);
}

/* Bytes of all rows as partitions hold them. */
static double stored_total(const cb_sort *s) {
    return (double)cbi_input_bytes(s->input) /
           clamp_double(s->sample.row_bytes + (double)cbi_row_overhead(s), 1, 1e18) *
           (s->sample.stored_bytes + 0.4);
}

static bool size_with(const cb_sort *s, unsigned threads, unsigned io_threads, sort_sizes *z) {
    z->threads = threads;
    z->io_threads = io_threads;
    z->fixed = fixed_bytes(s, threads, z->io_threads, z->budget);
    if (z->fixed + USABLE_MIN > z->budget)
        return false;
    z->usable = z->budget - z->fixed;
    z->chunk =
        power_of_two_below(cbi_clamp((size_t)(z->usable / 24 / threads), CHUNK_MIN, CHUNK_MAX));
    z->writer_buffer = power_of_two_below(
        cbi_clamp((size_t)(z->usable / 64 / threads * 2), 32 * CBI_KIB, CBI_MIB));
    z->segment = 64 * CBI_KIB;
    z->ranges = 1;
    double total = stored_total(s);
    bool by_range = cbi_sort_by_range(s);
    z->range_bytes = 0;
    for (unsigned round = 0; round < 4; round++) { /* sizes depend on each other: settles at once */
        z->worker = worker_bytes(s, z);
        z->staging = cbi_round_up(
            cbi_spill_staging_bytes(z->io_threads, z->segment, s->o.spill_codec), 4096);
        z->shared = z->staging + cbi_sink_edge_bytes(threads) +
                    outputs(s, threads) * cbi_sink_block_bytes(output_compression(s));
        uint64_t taken = z->shared + (uint64_t)threads * z->worker;
        if (taken + 32 * 4096 > z->usable)
            return false;
        uint64_t rest = z->usable - taken;
        if (round == 0 && by_range) { /* ranges and the entries for them share what is left */
            z->range_bytes =
                (uint64_t)((double)rest / (1.35 * (threads + 2) + threads * entry_bytes(s)));
            continue;
        }
        z->in_memory = false;
        if (by_range)
            choose_ranges(s, z, total, rest);
        size_t segment = (size_t)cbi_min(rest / 6 / z->ranges, rest / 64);
        z->segment = power_of_two_below(
            cbi_clamp(segment, 4096, z->in_memory ? 64 * CBI_KIB : 32 * CBI_KIB));
        z->segments = (size_t)(rest / z->segment);
    }
    size_t staging =
        cbi_round_up(cbi_spill_staging_bytes(z->io_threads, z->segment, s->o.spill_codec), 4096);
    if (staging > z->staging) { /* the last round chose another size of segments */
        z->segments -= cbi_min(z->segments, (staging - z->staging) / z->segment + 1);
        z->shared += staging - z->staging;
        z->staging = staging;
    }
    if ((z->shared + (uint64_t)threads * z->worker) % z->segment != 0)
        z->segments -= cbi_min(z->segments, 1); /* scratch is whole segments of the same pool */
    z->batch_segments = cbi_clamp(512 * CBI_KIB / z->segment, 1, cbi_max(z->segments / 32, 2));
    z->run_batch = cbi_clamp(z->segments / 256, 1, cbi_max(512 * CBI_KIB / z->segment, 1));
    return z->segments >= 24;
}

/* More I/O threads than two are for speed. */
static bool size_for(const cb_sort *s, unsigned threads, sort_sizes *z) {
    return size_with(s, threads, cbi_io_threads(z->budget), z) ||
           size_with(s, threads, CBI_IO_THREADS_LEAST, z);
}

/* The budget that the plan is made for; see above. */
static uint64_t enough(const cb_sort *s, uint64_t budget) {
    if (s->enough_bytes != 0)
        return cbi_min(budget, s->enough_bytes);
    double total = cbi_sort_by_range(s) ? stored_total(s) : 0;
    if (total < (double)budget * ENOUGH_FACTOR && total < ENOUGH_FROM)
        return budget;
    uint64_t least = ENOUGH_MIN;
    while (least < budget && (double)least * (double)least < total * ENOUGH_SQUARED)
        least += least / 16;
    return least < budget ? least : budget;
}

/* Whatever the budget has beyond the plan's: spare segments. */
static void add_spare(const cb_sort *s, uint64_t budget, sort_sizes *z) {
    uint64_t fixed = fixed_bytes(s, z->threads, z->io_threads, budget);
    uint64_t taken = z->budget - z->fixed + (fixed > z->fixed ? fixed : z->fixed);
    z->spare = budget > taken ? (size_t)((budget - taken) / z->segment) : 0;
    z->segments += z->spare;
    size_t tier = z->spare / 4 * 3; /* what the system needs beside it was measured without */
    z->tier = tier * z->segment >= TIER_MIN ? tier : 0;
}

/* Can everything leave, and the output be written, which may lie in the same place? */
static bool disk_has_room(const cb_sort *s) {
    uint64_t bytes_free = 0;
    bool in_memory = true;
    if (cbi_spill_space(s->o.temp_dirs, s->o.temp_dir_count, &bytes_free, &in_memory, NULL) !=
            CB_OK ||
        in_memory)
        return false;
    double temp = stored_total(s) * 1.1;
    if (s->o.temp_limit_bytes != 0 && temp >= (double)s->o.temp_limit_bytes)
        return false;
    return temp + (double)cbi_input_bytes(s->input) < (double)bytes_free;
}

/* The plan for z->budget. */
static bool plan_for(const cb_sort *s, unsigned threads, sort_sizes *z) {
    uint64_t budget = z->budget;
    z->budget = enough(s, budget);
    bool much = stored_total(s) >= (double)budget * ENOUGH_FACTOR; /* nearly all leaves anyway */
    if (z->budget < budget && s->enough_bytes == 0 && !much && !disk_has_room(s)) {
        z->budget = budget;
        if (size_for(s, threads, z)) {
            z->spare = z->tier = 0;
            return true;
        }
        z->budget = enough(s, budget);
    }
    bool fits = size_for(s, threads, z);
    if (fits)
        add_spare(s, budget, z);
    z->budget = budget;
    return fits;
}

/* A plan for a run that starts with a little more resident, too. */
static bool plan_roomy(const cb_sort *s, unsigned threads, sort_sizes *z) {
    sort_sizes less = {.budget = z->budget - BUDGET_SPARE};
    return plan_for(s, threads, &less) && plan_for(s, threads, z) &&
           z->usable >= USABLE_MIN + USABLE_SPARE;
}

/* The smallest budget from `from` on that has a plan with `pages` bytes of page memory for one
 * thread. */
static uint64_t least_budget(const cb_sort *s, uint64_t from, unsigned threads, double pages) {
    /* Sizes go by steps, so a little more memory can be too little again: what is named is what was
     * tried. */
    sort_sizes z = {.budget = cbi_round_up(from, CBI_MIB)};
    while (z.budget < (uint64_t)1 << 42 &&
           (!plan_roomy(s, threads, &z) || (double)z.segments * (double)z.segment < pages))
        z.budget = cbi_round_up(z.budget + (z.budget < 256 * CBI_MIB ? 1 : z.budget / 64), CBI_MIB);
    return z.budget;
}

double cbi_sort_row_factor(const cb_sort *s) {
    /* its chunk, its key, both again in a partition; streams: what a builder leaves free, and
     * buffers that double */
    double keys = s->layout.shape == CBI_KEY_ENCODED ? 2 : 1;
    return cbi_sort_by_range(s) ? 2.2 * keys : 20 * keys;
}

uint64_t cbi_sort_least_budget(const cb_sort *s, uint64_t row_bytes) {
    double pages = ((double)row_bytes + 128 * 1024) * cbi_sort_row_factor(s);
    uint64_t least = least_budget(s, s->o.memory_bytes, s->sizes.threads, pages);
    return least_budget(s, least + CBI_MIB, s->sizes.threads, pages);
}

cb_status cbi_sort_size(cb_sort *s, cb_error *err) {
    sort_sizes z = {.budget = s->o.memory_bytes};
    unsigned threads = s->o.threads != 0 ? s->o.threads : cbi_sys_cpus();
    threads = (unsigned)cbi_clamp(threads, 1, 64);
    if (s->o.threads == 0 && z.budget < 12 * CBI_MIB)
        threads = 1; /* what two would need is better spent on ranges */
    uint64_t bytes = cbi_input_bytes(s->input);
    if (cbi_input_seekable(s->input) && bytes < 512 * CBI_KIB)
        threads = 1; /* not worth a thread */
    bool stream = s->o.action == CB_SORT_SORT && !cbi_sort_by_range(s);
    while (!plan_for(s, threads, &z) ||
           (stream && threads > 1 && z.segments / threads * z.segment < STREAM_WORKER_MIN)) {
        if (threads > 1) {
            threads--;
            continue;
        }
        uint64_t least = least_budget(s, z.budget, 1, 0);
        return cbi_ground_refuse(z.budget, z.fixed, least, err);
    }
    s->sizes = z;
    return CB_OK;
}

/* ---- sampling ---- */

typedef struct sampler {
    cb_sort *s;
    cbi_sample sample;
    cbi_rows rows;
    cbi_chunk chunk;
    uint8_t *key;
    size_t key_capacity, row_limit;
    bool full;
} sampler;

static cb_status sample_chunk(sampler *p, cb_error *err) {
    cb_sort *s = p->s;
    size_t at = 0, taken = 0;
    while (at < p->chunk.bytes && taken < p->row_limit && !p->full) {
        p->rows.base = p->chunk.rows;
        p->rows.count = 0;
        size_t before = at;
        cb_status status = cbi_input_scan(s->input, &p->chunk, &at, s->columns, &p->rows, NULL);
        if (status ==
            CB_EDATA) /* a spot inside a quoted field reads as nonsense; the real pass will judge */
            return CB_OK;
        if (status != CB_OK)
            return cbi_fail(err, status, "sampling failed");
        for (size_t i = 0; i < p->rows.count && taken < p->row_limit; i++, taken++) {
            cbi_stored row = {.row = p->rows.base + p->rows.rows[i].offset,
                              .row_bytes = p->rows.rows[i].bytes};
            if (s->layout.shape == CBI_KEY_ENCODED) {
                size_t bytes = cbi_sort_key(s, &p->rows, i, p->key, p->key_capacity);
                row.key = p->key;
                row.key_bytes = (uint32_t)cbi_min(bytes, p->key_capacity);
                s->sample.key_bytes += (double)bytes;
                s->sample.stored_bytes +=
                    (double)cbi_stored_bytes(&s->layout, (uint32_t)bytes, row.row_bytes);
            } else {
                cbi_slice(&s->layout, &row);
                s->sample.stored_bytes += (double)cbi_stored_bytes(&s->layout, 0, row.row_bytes);
            }
            s->sample.rows++;
            s->sample.row_bytes += (double)row.row_bytes;
            if (row.row_bytes > s->sample.row_bytes_max)
                s->sample.row_bytes_max = row.row_bytes;
            if (!cbi_sample_add(&p->sample, row.key, row.key_bytes, s->layout.inverted)) {
                p->full = true;
                break;
            }
        }
        if (at == before)
            break;
    }
    return CB_OK;
}

/* Spots in an order that spreads any beginning of it over the whole input, so that running out of
 * memory is no bias. */
static cb_status sample_spots(sampler *p, size_t spots, cb_error *err) {
    size_t step = (size_t)((double)spots * 0.6180339887) | 1;
    while (step > 1) { /* must have no common factor with spots */
        size_t a = spots, b = step;
        while (b != 0) {
            size_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1)
            break;
        step += 2;
    }
    size_t spot = 0;
    for (size_t i = 0; i < spots && !p->full; i++, spot = (spot + step) % spots) {
        if (atomic_load(&p->s->cancelled))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
        CB_TRY(cbi_input_sample(p->s->input, spot, spots, &p->chunk, err));
        if (p->chunk.bytes > 0)
            CB_TRY(sample_chunk(p, err));
    }
    return CB_OK;
}

cb_status cbi_sort_measure(cb_sort *s, cb_error *err) {
    s->sample = (sort_sample){.row_bytes = 80,
                              .stored_bytes = 90,
                              .key_bytes = s->layout.shape == CBI_KEY_ENCODED ? 16 : 0};
    if (!cbi_sort_by_range(s))
        return CB_OK;
    uint64_t fixed = fixed_bytes(s, 1, 1, s->o.memory_bytes);
    if (fixed + CBI_MIB > s->o.memory_bytes)
        return CB_OK; /* sizing will say so */
    uint64_t input = cbi_input_bytes(s->input);
    size_t memory = (size_t)((s->o.memory_bytes - fixed) / 2);
    memory = cbi_clamp(memory, 256 * CBI_KIB, 12 * CBI_MIB) & ~(size_t)4095;
    size_t rows = 4096;
    size_t read = cbi_clamp(memory / 16, 16 * CBI_KIB, 256 * CBI_KIB) & ~(size_t)4095;
    if (input < 4 * (uint64_t)memory && input < 2 * CBI_MIB)
        memory = cbi_round_up(cbi_min(memory, (size_t)input * 2 + 128 * CBI_KIB), 4096);
    uint32_t const *columns;
    size_t fields = cbi_keys_columns(s->keys, &columns);
    s->columns = columns;
    size_t tables = rows * sizeof(cbi_span) * (1 + fields);
    size_t key = 16 * CBI_KIB, all = memory + read + tables + key;
    cb_page page;
    CB_TRY(cb_page_alloc(s->ground.consumer, all, &page, err));
    uint8_t *base = cb_page_data(&page);
    sampler p = {.s = s, .key_capacity = key};
    cbi_sample_init(&p.sample, base, memory);
    p.chunk = (cbi_chunk){.buf = base + memory, .capacity = cbi_min(read, 8 * CBI_KIB)};
    p.rows = (cbi_rows){.capacity = rows, .field_count = fields};
    p.rows.rows = (cbi_span *)(void *)(base + memory + read);
    p.rows.fields = p.rows.rows + rows;
    p.key = base + memory + read + tables;

    cb_status status = CB_OK;
    /* larger spots for larger rows */
    for (; p.sample.count < 64; p.chunk.capacity = cbi_min(p.chunk.capacity * 2, read)) {
        s->sample = (sort_sample){.rows = 0};
        cbi_sample_init(&p.sample, base, memory);
        size_t spots =
            (size_t)cbi_clamp((size_t)(input / p.chunk.capacity / 2), 1, SAMPLE_SPOTS_MAX);
        size_t want = (size_t)(input / (s->o.memory_bytes / 8 + 1) * 16);
        spots = cbi_min(spots, cbi_clamp(want, SAMPLE_SPOTS_MIN * 4, SAMPLE_SPOTS_MAX));
        p.row_limit = cbi_clamp(memory / spots / 48, 1, SAMPLE_ROWS_A_SPOT);
        if (spots < 64)
            p.row_limit = rows;
        p.full = false;
        status = sample_spots(&p, spots, err);
        if (status != CB_OK || p.chunk.capacity >= read)
            break;
    }
    if (status == CB_OK && s->sample.rows > 0) {
        double n = (double)s->sample.rows;
        s->sample.row_bytes /= n;
        s->sample.stored_bytes /= n;
        s->sample.key_bytes /= n;
    } else if (status == CB_OK) { /* rows longer than a spot: a guess that errs on the large side */
        s->sample.row_bytes = s->sample.stored_bytes = (double)read;
    }
    if (status == CB_OK)
        status = cbi_sort_size(s, err);
    if (status == CB_OK) {
        cbi_splitters_destroy(s->splitters);
        s->splitters = NULL;
        status = cbi_splitters_create(&p.sample, s->sizes.ranges, s->layout.inverted, &s->splitters,
                                      err);
    }
    if (status == CB_OK)
        s->sizes.ranges = cbi_splitters_ranges(s->splitters);
    cb_error ignored;
    cb_status freed = cb_page_free(s->ground.consumer, &page, &ignored);
    cb_assert(freed == CB_OK);
    return status;
}

void cbi_sort_fill_plan(cb_sort *s, cb_sort_plan *plan) {
    const sort_sizes *z = &s->sizes;
    size_t size = plan->struct_size;
    memset(plan, 0, sizeof *plan);
    plan->struct_size = size;
    plan->input_bytes = cbi_input_bytes(s->input);
    plan->budget_bytes = z->budget;
    plan->threads = z->threads;
    plan->segment_bytes = z->segment;
    plan->budget_min_bytes = least_budget(s, 2 * CBI_MIB, 1, 0);
    double rows = (double)plan->input_bytes /
                  clamp_double(s->sample.row_bytes + (double)cbi_row_overhead(s), 1, 1e18);
    double total = rows * s->sample.stored_bytes;
    uint64_t pages = (uint64_t)(z->segments - z->spare) * z->segment;
    const char *method = "runs and merge";
    if (s->o.action == CB_SORT_CHECK)
        method = "check";
    else if (s->o.action == CB_SORT_MERGE)
        method = "merge";
    else if (cbi_sort_by_range(s)) {
        method = "range partition";
        plan->rows_estimate = (uint64_t)rows;
        plan->ranges = z->ranges;
        plan->in_memory = z->in_memory;
        bool small_ranges = total / z->ranges <= (double)pages / 2;
        plan->passes_estimate = z->in_memory ? 0 : small_ranges ? 1 : 2;
        if (!z->in_memory) {
            double stays = (double)pages / 4;
            plan->temp_bytes_estimate =
                (uint64_t)(total * (plan->passes_estimate == 2 ? 2.05 : 1.03));
            if (plan->passes_estimate == 1 && total > stays)
                plan->temp_bytes_estimate -= (uint64_t)cbi_min((size_t)stays, (size_t)(total / 8));
        }
        if (!small_ranges)
            plan->runs_estimate = (uint32_t)(total / ((double)pages * 0.7)) + 1;
    } else if (plan->input_bytes > 0 && s->o.action == CB_SORT_SORT) {
        plan->runs_estimate =
            (uint32_t)((double)plan->input_bytes / ((double)pages * 0.7 / z->threads)) + 1;
        plan->passes_estimate = plan->runs_estimate > z->threads ? 1 : 0;
        plan->temp_bytes_estimate = plan->passes_estimate ? plan->input_bytes * 21 / 20 : 0;
        plan->in_memory = plan->passes_estimate == 0;
    }
    memcpy(plan->method, method, strlen(method) + 1);
}
