/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spill alone, in the rhythm of a sort by ranges: two workers fill batches for ranges at random
 * and let them go, then bring back range after range, copy it once, and write it to its place in an
 * output file. Prints JSON with the seconds of each phase; what the disk could do beside it comes
 * from bench/io.
 *
 *     spill [FOLDER [MEBIBYTES [BATCH_KIB [IO_THREADS [CODEC [ROUNDS]]]]]]     (., 2048, 512, 2,
 * none, 3)
 *
 * CODEC: none, lz4, auto. Contents look like records of the sort benchmark (ratio of lz4
 * about 2.6).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "spill/spill.h"

enum {
    WORKERS = 2,
    RANGES = 256,
    SEGMENT_BYTES = 32 * 1024,
    SEGMENTS_MAX = 64,
    BATCHES = 24, /* in flight, all workers together */

};

typedef struct slot {
    struct bench *bench;
    uint8_t *base;
    cbi_spill_segment segments[SEGMENTS_MAX];
    uint32_t index; /* of the extent */
    bool busy;
} slot;

typedef struct bench {
    cbi_spill *spill;
    int output;
    uint32_t extents_total, segments;
    cbi_extent *extents;
    uint32_t *owners;
    slot slots[BATCHES];
    uint8_t *source;
    uint8_t *outputs; /* OUTPUT_BYTES * BATCHES */
    atomic_uint next;
    cbi_mutex lock;
    cbi_cond freed;
} bench;

_Noreturn static void die(const char *what) {
    (void)fprintf(stderr, "spill: %s\n", what);
    exit(2);
}

/* Ten printable characters, two blanks, the row's number, two blanks, thirteen digits four times
 * each. */
static void fill_source(uint8_t *at, size_t bytes) {
    uint64_t seed = 42;
    for (size_t i = 0; i + 100 <= bytes; i += 100) {
        uint8_t *row = at + i;
        char number[33];
        (void)snprintf(number, sizeof number, "%032zX", i / 100);
        memset(row, ' ', 98);
        memcpy(row + 12, number, 32);
        for (unsigned k = 0; k < 10 + 13; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            if (k < 10) {
                row[k] = (uint8_t)(' ' + (seed >> 33) % 95);
            } else {
                memset(row + 46 + (k - 10) * 4, "0123456789ABCDEF"[(seed >> 33) % 16], 4);
            }
        }
        memcpy(row + 98, "\r\n", 2);
    }
}

static slot *take_slot(bench *b) {
    cbi_mutex_lock(&b->lock);
    for (;;) {
        for (unsigned i = 0; i < BATCHES; i++) {
            if (!b->slots[i].busy) {
                b->slots[i].busy = true;
                cbi_mutex_unlock(&b->lock);
                return &b->slots[i];
            }
        }
        cbi_cond_wait(&b->freed, &b->lock);
    }
}

static void give_slot(slot *s) {
    cbi_mutex_lock(&s->bench->lock);
    s->busy = false;
    cbi_cond_broadcast(&s->bench->freed);
    cbi_mutex_unlock(&s->bench->lock);
}

static void written(void *ctx, cb_status status, const cbi_extent *extent, const cb_error *err) {
    slot *s = ctx;
    if (status != CB_OK) {
        die(err->message);
    }
    if (extent != NULL) {
        s->bench->extents[s->index] = *extent;
    }
    give_slot(s);
}

static void spill_some(void *ctx) {
    bench *b = ctx;
    for (;;) {
        uint32_t i = atomic_fetch_add(&b->next, 1);
        if (i >= b->extents_total) {
            return;
        }
        slot *s = take_slot(b);
        s->index = i;
        for (uint32_t k = 0; k < b->segments; k++) {
            uint32_t used = SEGMENT_BYTES - CBI_FRAME_HEADER_BYTES - 60;
            memcpy(s->segments[k].base + CBI_FRAME_HEADER_BYTES,
                   b->source + (i * 31 + k) % 64 * 1000, used);
            s->segments[k].used = used;
        }
        cb_error err;
        if (cbi_spill_write(b->spill, b->owners[i], i, s->segments, b->segments, written, s,
                            &err) != CB_OK) {
            die(err.message);
        }
    }
}

/* A loaded batch goes out right from the callback's thread's point of view: the worker copies, then
 * gives the slot back when the output is written. */
typedef struct load {
    slot *slot;
    cbi_mutex lock;
    cbi_cond arrived;
    bool done;
} load;

static void loaded(void *ctx, cb_status status, const cbi_extent *extent, const cb_error *err) {
    load *l = ctx;
    (void)extent;
    if (status != CB_OK) {
        die(err->message);
    }
    cbi_mutex_lock(&l->lock);
    l->done = true;
    cbi_cond_signal(&l->arrived);
    cbi_mutex_unlock(&l->lock);
}

enum { AHEAD = 6 }; /* loads under way for each worker */

static void start_load(bench *b, load *l, const uint32_t *order, uint32_t i) {
    l->slot = take_slot(b);
    l->slot->index = order[i];
    l->done = false;
    cb_error err;
    if (cbi_spill_read(b->spill, b->owners[order[i]], order[i], &b->extents[order[i]],
                       l->slot->segments, b->segments, loaded, l, &err) != CB_OK) {
        die(err.message);
    }
}

static const uint32_t *load_order;

static void finish_load(bench *b, load *l) {
    cbi_mutex_lock(&l->lock);
    while (!l->done) {
        cbi_cond_wait(&l->arrived, &l->lock);
    }
    cbi_mutex_unlock(&l->lock);
    slot *s = l->slot;
    cbi_spill_free(b->spill, &b->extents[s->index]);
    uint8_t *out = b->outputs + (size_t)(s - b->slots) * SEGMENTS_MAX * SEGMENT_BYTES;
    size_t bytes = (size_t)b->segments * SEGMENT_BYTES;
    for (uint32_t k = 0; k < b->segments; k++) {
        memcpy(out + (size_t)k * SEGMENT_BYTES, s->segments[k].base, SEGMENT_BYTES);
    }
    cb_error err;
    if (cbi_spill_pwrite(b->spill, b->output, out, bytes, (uint64_t)s->index * bytes, written, s,
                         &err) != CB_OK) {
        die(err.message);
    }
}

static void load_some(void *ctx) {
    bench *b = ctx;
    load loads[AHEAD];
    uint32_t started = 0, finished = 0;
    for (unsigned i = 0; i < AHEAD; i++) {
        cbi_mutex_init(&loads[i].lock, CBI_RANK_INNER);
        cbi_cond_init(&loads[i].arrived);
    }
    bool more = true;
    while (more || finished < started) {
        while (more && started - finished < AHEAD) {
            uint32_t i = atomic_fetch_add(&b->next, 1);
            more = i < b->extents_total;
            if (more) {
                start_load(b, &loads[started++ % AHEAD], load_order, i);
            }
        }
        if (finished < started) {
            finish_load(b, &loads[finished++ % AHEAD]);
        }
    }
    for (unsigned i = 0; i < AHEAD; i++) {
        cbi_cond_fini(&loads[i].arrived);
        cbi_mutex_fini(&loads[i].lock);
    }
}

static void wait_all(bench *b) {
    cbi_mutex_lock(&b->lock);
    for (unsigned i = 0; i < BATCHES; i++) {
        while (b->slots[i].busy) {
            cbi_cond_wait(&b->freed, &b->lock);
        }
    }
    cbi_mutex_unlock(&b->lock);
}

static double run_workers(bench *b, cbi_thread_fn fn) {
    cbi_thread threads[WORKERS];
    uint64_t began = cbi_sys_clock_ns();
    atomic_store(&b->next, 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        if (cbi_thread_start(&threads[i], fn, b, "worker", NULL) != CB_OK) {
            die("no thread");
        }
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        cbi_thread_join(&threads[i]);
    }
    wait_all(b);
    return (double)(cbi_sys_clock_ns() - began) * 1e-9;
}

static const uint32_t *sort_by_owner;
static int by_owner(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    uint32_t ox = sort_by_owner[x];
    uint32_t oy = sort_by_owner[y];
    return ox != oy ? (ox < oy ? -1 : 1) : x < y ? -1 : x > y;
}

static void one_round(bench *b, const cbi_spill_options *options, const char *folder,
                      uint32_t *order, bool last) {
    cb_error err;
    if (cbi_spill_open(options, &b->spill, &err) != CB_OK) {
        die(err.message);
    }
    b->output = cbi_sys_open(folder, O_TMPFILE | O_RDWR, 0600);
    if (b->output < 0) {
        die("no output");
    }
    (void)cbi_sys_set_direct(b->output, true);
    (void)cbi_sys_fallocate(b->output, 0, 0,
                            (uint64_t)b->extents_total * b->segments * SEGMENT_BYTES);
    uint64_t seed = 1;
    for (uint32_t i = 0; i < b->extents_total; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        b->owners[i] = (uint32_t)(seed >> 40) % RANGES;
        order[i] = i;
    }
    sort_by_owner = b->owners;
    qsort(order, b->extents_total, sizeof *order, by_owner);
    load_order = order;
    double spill_s = run_workers(b, spill_some);
    double load_s = run_workers(b, load_some);
    cbi_spill_stats stats;
    cbi_spill_get_stats(b->spill, &stats);
    uint64_t began = cbi_sys_clock_ns();
    cbi_spill_close(b->spill);
    double close_s = (double)(cbi_sys_clock_ns() - began) * 1e-9;
    (void)cbi_sys_close(b->output);
    (void)printf("    {\"spill_s\": %.2f, \"load_and_write_s\": %.2f, \"close_s\": %.2f, "
                 "\"ratio\": %.2f, \"codec\": "
                 "\"%s\", \"direct\": %s, \"write_thread_s\": %.2f, \"read_thread_s\": %.2f, "
                 "\"compress_thread_s\": "
                 "%.2f}%s\n",
                 spill_s, load_s, close_s, (double)stats.raw_bytes / (double)stats.stored_bytes,
                 stats.codec == CB_CODEC_LZ4 ? "lz4" : "none", stats.direct ? "true" : "false",
                 (double)stats.write_ns * 1e-9, (double)stats.read_ns * 1e-9,
                 (double)stats.compress_ns * 1e-9, last ? "" : ",");
    (void)fflush(stdout);
}

static cb_codec codec_of(const char *name) {
    return strcmp(name, "lz4") == 0    ? CB_CODEC_LZ4
           : strcmp(name, "auto") == 0 ? CB_CODEC_AUTO
                                       : CB_CODEC_NONE;
}

static size_t argument(int argc, char **argv, int i, size_t otherwise) {
    return argc > i ? (size_t)strtoull(argv[i], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    static bench b;
    const char *folder = argc > 1 ? argv[1] : ".";
    size_t batch_kib =
        cbi_clamp(argument(argc, argv, 3, 512), 32, SEGMENTS_MAX * SEGMENT_BYTES / 1024);
    cbi_spill_options options = {
        .dirs = &folder,
        .dir_count = 1,
        .io_threads = (unsigned)argument(argc, argv, 4, 2),
        .codec = codec_of(argc > 5 ? argv[5] : "none"),
        .segment_bytes = SEGMENT_BYTES,
        .allow_memory_fs = true,
        .buffered = getenv("CARBIDE_BENCH_BUFFERED") != NULL,
    };
    b.segments = (uint32_t)(batch_kib * 1024 / SEGMENT_BYTES);
    b.extents_total =
        (uint32_t)(argument(argc, argv, 2, 2048) * CBI_MIB / (b.segments * SEGMENT_BYTES));
    options.staging_bytes =
        cbi_spill_staging_bytes(options.io_threads, options.segment_bytes, options.codec);
    options.staging = options.staging_bytes > 0 ? cbi_sys_map(options.staging_bytes) : NULL;
    size_t memory = (size_t)BATCHES * SEGMENTS_MAX * SEGMENT_BYTES;
    uint8_t *segments = cbi_sys_map(memory);
    b.outputs = cbi_sys_map(memory);
    b.source = cbi_alloc(256 * 1024);
    b.extents = cbi_calloc(b.extents_total, sizeof *b.extents);
    b.owners = cbi_calloc(b.extents_total, sizeof *b.owners);
    uint32_t *order = cbi_calloc(b.extents_total, sizeof *order);
    if (segments == NULL || b.outputs == NULL || b.source == NULL || b.extents == NULL ||
        b.owners == NULL || order == NULL) {
        die("no memory");
    }
    fill_source(b.source, 256 * 1024);
    cbi_mutex_init(&b.lock, CBI_RANK_INNER);
    cbi_cond_init(&b.freed);
    for (unsigned i = 0; i < BATCHES; i++) {
        slot *s = &b.slots[i];
        s->bench = &b;
        s->base = segments + (size_t)i * SEGMENTS_MAX * SEGMENT_BYTES;
        for (unsigned k = 0; k < SEGMENTS_MAX; k++) {
            s->segments[k] =
                (cbi_spill_segment){s->base + (size_t)k * SEGMENT_BYTES, SEGMENT_BYTES, 0};
        }
    }
    size_t rounds = argument(argc, argv, 6, 3);
    (void)printf("{\n  \"mib\": %zu, \"batch_kib\": %zu, \"io_threads\": %u,\n  \"rounds\": [\n",
                 argument(argc, argv, 2, 2048), batch_kib, options.io_threads);
    for (size_t i = 0; i < rounds; i++) {
        one_round(&b, &options, folder, order, i + 1 == rounds);
    }
    (void)printf("  ]\n}\n");
    return 0;
}
