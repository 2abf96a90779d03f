/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carbide's half of bench/blocks, which says what is measured and why.
 *
 *     blocks talk FOLDER                   lines "CASE-BYTES OPERATIONS SEED" on standard input,
 * each answered "NANOSECONDS DIGEST"; bench/jvm's Blocks is the other side of it blocks drop FOLDER
 * MEBIBYTES BYTES   bytes a second of blocks that leave memory for disk, until they are there
 *     blocks zipf BLOCKS REQUESTS EXPONENT SEED
 *     blocks many COUNT
 */
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "carbide/carbide.h"

#include "bench.h"

enum { NAMES = 512, BYTES_MAX = 1024 * 1024, KIN = 8 };

static _Noreturn void die(const char *what) {
    (void)fprintf(stderr, "blocks: %s\n", what);
    exit(2);
}

typedef struct world {
    cb_manager *manager;
    cb_blocks *blocks;
    cb_block_task *task;
} world;

static void world_open(world *w, cb_rules rules, uint64_t bytes, double storage,
                       const char *folder) {
    cb_error err;
    const cb_manager_options m = {.struct_size = sizeof m,
                                  .rules = rules,
                                  .mode = CB_HEAP,
                                  .heap_bytes = bytes,
                                  .storage_fraction = storage};
    must(cb_manager_create(&m, &w->manager, &err), &err);
    const cb_blocks_options b = {.struct_size = sizeof b, .manager = w->manager, .folder = folder};
    must(cb_blocks_create(&b, &w->blocks, &err), &err);
    must(cb_block_task_create(w->blocks, 1, 0, &w->task, &err), &err);
}

static void world_close(world *w) {
    if (w->manager != NULL) {
        (void)cb_block_task_end(w->task);
        cb_blocks_destroy(w->blocks);
        cb_manager_destroy(w->manager);
        *w = (world){0};
    }
}

static cb_status put(const world *w, const char *name, cb_level level, const void *data,
                     size_t bytes) {
    cb_error err;
    cb_status status =
        cb_blocks_put_bytes(w->blocks, w->task, name, level, NULL, data, bytes, NULL, &err);
    if (status != CB_EEXISTS && status != CB_EBUDGET) {
        must(status, &err);
    }
    return status;
}

/* ---- beside Spark ---- */

typedef struct talk {
    world w;
    const char *folder;
    cb_level level;
    char names[NAMES][CB_BLOCK_NAME_MAX + 1];
    uint8_t *data, *read;
    uint32_t bytes;
    uint64_t digest;
} talk;

static uint32_t next_random(uint32_t x) { /* xorshift32 */
    x ^= x << 13;
    x ^= x >> 17;
    return x ^ x << 5;
}

static void note(talk *t, uint64_t answer) {
    t->digest = (t->digest ^ answer) * UINT64_C(0x100000001b3);
}

static void put_one(talk *t, uint32_t i) {
    memset(t->data, (int)(i % 251), 16);
    note(t, put(&t->w, t->names[i], t->level, t->data, t->bytes) == CB_OK);
}

/** The answer is its length and its first byte, wherever it is. */
static void get_one(talk *t, uint32_t i) {
    cb_block_ref ref;
    cb_error err;
    cb_status status = cb_blocks_get(t->w.blocks, t->w.task, t->names[i], &ref, &err);
    if (status == CB_ENOTFOUND) {
        note(t, 0);
        return;
    }
    must(status, &err);
    const uint8_t *first = ref.data;
    uint64_t bytes = ref.bytes;
    if (first == NULL) { /* not in memory, and no room for it there */
        cb_block_reader *reader = NULL;
        size_t at = 0, got = 0;
        must(cb_block_reader_open(&ref, &reader, &err), &err);
        while ((status = cb_block_reader_read(reader, t->read + at, t->bytes, &got, &err)) ==
               CB_OK) {
            at += got;
        }
        must(status == CB_EEND ? CB_OK : status, &err);
        cb_block_reader_close(reader);
        first = t->read;
        bytes = at;
    }
    note(t, bytes + first[0]);
    cb_block_release(&ref);
}

static void remove_one(talk *t, uint32_t i) {
    note(t, cb_blocks_remove(t->w.blocks, t->w.task, t->names[i], NULL) == CB_OK);
}

static void open_case(talk *t, const char *name) {
    bool disk = strncmp(name, "disk", 4) == 0;
    world_close(&t->w);
    t->bytes = (uint32_t)strtoul(strrchr(name, '-') + 1, NULL, 10);
    /* of 512 blocks all fit, or a quarter: half of them are there at a time */
    world_open(&t->w, CB_RULES_SPARK, (uint64_t)(disk ? NAMES / 4 : 2 * NAMES) * t->bytes, 0.5,
               disk ? t->folder : NULL);
    t->level = disk ? CB_LEVEL_MEMORY_AND_DISK_SER : CB_LEVEL_MEMORY_ONLY_SER;
    t->digest = UINT64_C(0xcbf29ce484222325);
    for (uint32_t i = 0; i < NAMES; i++) {
        cb_block_name_rdd(i % KIN, i / KIN, t->names[i]);
        put_one(t, i);
    }
}

static void work(talk *t, const char *name, uint32_t operations, uint32_t seed) {
    bool only_get = strncmp(name, "get", 3) == 0;
    for (uint32_t k = 0; k < operations; k++) {
        seed = next_random(seed);
        uint32_t i = (seed >> 8) % NAMES, what = only_get ? 0 : (seed >> 20) % 10;
        if (what < 6) {
            get_one(t, i);
        } else if (what < 8) {
            put_one(t, i);
        } else {
            remove_one(t, i);
        }
    }
}

static int do_talk(const char *folder) {
    static talk t;
    char line[256], name[32], last[32] = "";
    t.folder = folder;
    t.data = calloc(2, BYTES_MAX);
    t.read = calloc(2, BYTES_MAX);
    while (fgets(line, sizeof line, stdin) != NULL) {
        uint32_t operations = 0, seed = 0;
        if (sscanf(line, "%31s %" SCNu32 " %" SCNu32, name, &operations, &seed) != 3) {
            die("not a case");
        }
        if (strcmp(name, last) != 0) {
            open_case(&t, name);
            memcpy(last, name, sizeof last);
        }
        double start = now_ns();
        work(&t, name, operations, seed);
        double took = now_ns() - start;
        cb_pool_stats pool;
        cb_manager_pool(t.w.manager, CB_STORAGE, CB_HEAP, &pool);
        note(&t, pool.used);
        (void)printf("%.2f %016" PRIx64 "\n", took / operations, t.digest);
        (void)fflush(stdout);
    }
    world_close(&t.w);
    free(t.data);
    free(t.read);
    return 0;
}

/* ---- dropping to disk ---- */

/** Puts as many as fit, then execution takes all memory, and everything is on disk. */
static int do_drop(const char *folder, uint64_t total, size_t bytes) {
    world w;
    cb_error err;
    uint8_t *data = malloc(bytes);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (data == NULL || fd < 0) {
        die(folder);
    }
    world_open(&w, CB_RULES_SPARK, total, 0, folder);
    uint64_t count = total / bytes, random = 1;
    for (uint64_t i = 0; i < count; i++) {
        char name[CB_BLOCK_NAME_MAX + 1];
        for (size_t k = 0; k + 8 <= bytes; k += 8) {
            random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
            memcpy(data + k, &random, 8);
        }
        cb_block_name_rdd((uint32_t)i % 16, (uint32_t)i, name);
        if (put(&w, name, CB_LEVEL_MEMORY_AND_DISK_SER, data, bytes) != CB_OK) {
            die("no room");
        }
    }
    if (syncfs(fd) != 0) {
        die("syncfs");
    }
    cb_task *task = NULL;
    cb_consumer *consumer = NULL;
    const cb_task_options to = {.struct_size = sizeof to, .id = 7};
    const cb_consumer_options co = {.struct_size = sizeof co, .name = "bench", .mode = CB_HEAP};
    must(cb_task_create(w.manager, &to, &task, &err), &err);
    must(cb_consumer_create(task, &co, &consumer, &err), &err);
    double start = now_ns();
    must(cb_consumer_acquire_all(consumer, count * bytes, &err), &err);
    double dropped = now_ns();
    if (syncfs(fd) != 0) {
        die("syncfs");
    }
    double done = now_ns();
    cb_blocks_stats stats;
    cb_blocks_stats_get(w.blocks, &stats);
    if (stats.evicted != count || stats.disk_blocks != count || stats.memory_blocks != 0) {
        die("not all were dropped");
    }
    (void)printf("{\"bytes\": %" PRIu64 ", \"dropped_s\": %.4f, \"on_disk_s\": %.4f}\n",
                 count * bytes, (dropped - start) / 1e9, (done - start) / 1e9);
    (void)cb_task_end(task, NULL, 0);
    world_close(&w);
    (void)close(fd);
    free(data);
    return 0;
}

/* ---- hit rates ---- */

enum { ZIPF_BYTES = 4096 };

typedef struct zipf {
    uint32_t blocks, requests;
    double exponent;
    uint64_t random;
    double *upto; /* cumulative chance of names 0..i */
} zipf;

static uint32_t zipf_next(zipf *z) {
    z->random += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = z->random;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    double u = (double)((x ^ (x >> 31)) >> 11) * 0x1p-53;
    uint32_t low = 0, high = z->blocks - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (z->upto[middle] < u) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static void zipf_begin(zipf *z, uint64_t seed) {
    double sum = 0;
    for (uint32_t i = 0; i < z->blocks; i++) {
        sum += pow(1.0 + i, -z->exponent);
        z->upto[i] = sum;
    }
    for (uint32_t i = 0; i < z->blocks; i++) {
        z->upto[i] /= sum;
    }
    z->random = seed;
}

/** Of all requests but the first fifth, the share that was there. */
static double of_carbide(zipf *z, cb_rules rules, uint64_t memory, uint64_t seed) {
    static uint8_t data[ZIPF_BYTES];
    world w;
    uint32_t hits = 0, warm = z->requests / 5;
    world_open(&w, rules, memory, 0.5, NULL);
    zipf_begin(z, seed);
    for (uint32_t k = 0; k < z->requests; k++) {
        char name[CB_BLOCK_NAME_MAX + 1];
        cb_block_ref ref;
        uint32_t i = zipf_next(z);
        (void)snprintf(name, sizeof name, "cache_%" PRIu32, i);
        if (cb_blocks_get(w.blocks, w.task, name, &ref, NULL) == CB_OK) {
            hits += k >= warm;
            cb_block_release(&ref);
        } else {
            (void)put(&w, name, CB_LEVEL_MEMORY_ONLY_SER, data, sizeof data);
        }
    }
    world_close(&w);
    return (double)hits / (z->requests - warm);
}

/** The same requests through a list of `room` names in order of use. */
static double of_lru(zipf *z, uint32_t room, uint64_t seed) {
    uint32_t n = z->blocks, hits = 0, warm = z->requests / 5, there = 0;
    uint32_t *next = calloc(n + 1, sizeof *next), *prev = calloc(n + 1, sizeof *prev);
    if (next == NULL || prev == NULL) {
        die("memory");
    }
    for (uint32_t i = 0; i <= n; i++) { /* n is the ring's head; alone: not in it */
        next[i] = prev[i] = i;
    }
    zipf_begin(z, seed);
    for (uint32_t k = 0; k < z->requests; k++) {
        uint32_t i = zipf_next(z);
        bool hit = next[i] != i;
        hits += hit && k >= warm;
        if (!hit && there++ == room) {
            uint32_t oldest = prev[n];
            next[prev[oldest]] = n;
            prev[n] = prev[oldest];
            next[oldest] = prev[oldest] = oldest;
            there--;
        }
        next[prev[i]] = next[i];
        prev[next[i]] = prev[i];
        next[i] = next[n];
        prev[i] = n;
        prev[next[n]] = i;
        next[n] = i;
    }
    free(next);
    free(prev);
    return (double)hits / (z->requests - warm);
}

static double chance(const zipf *z, uint32_t i) {
    return z->upto[i] - (i > 0 ? z->upto[i - 1] : 0);
}

/** Che's approximation: a block stays for the time T in which `room` different ones are asked for.
 */
static double of_theory(const zipf *z, uint32_t room) {
    double low = 0, high = 1e12, hits = 0;
    for (int k = 0; k < 200; k++) {
        double t = (low + high) / 2, there = 0;
        for (uint32_t i = 0; i < z->blocks; i++) {
            there += -expm1(-chance(z, i) * t);
        }
        *(there < room ? &low : &high) = t;
    }
    for (uint32_t i = 0; i < z->blocks; i++) {
        hits += chance(z, i) * -expm1(-chance(z, i) * low);
    }
    return hits;
}

static int do_zipf(zipf *z, uint64_t seed) {
    uint32_t room = z->blocks / 10;
    uint64_t memory = (uint64_t)room * ZIPF_BYTES;
    z->upto = calloc(z->blocks, sizeof *z->upto);
    if (z->upto == NULL) {
        die("memory");
    }
    double spark = of_carbide(z, CB_RULES_SPARK, memory, seed);
    double native = of_carbide(z, CB_RULES_NATIVE, memory, seed);
    double lru = of_lru(z, room, seed);
    (void)printf("{\"carbide\": %.6f, \"carbide_books_inside\": %.6f, \"lru\": %.6f, "
                 "\"che\": %.6f}\n",
                 spark, native, lru, of_theory(z, room));
    free(z->upto);
    return 0;
}

/* ---- ten million ---- */

static int do_many(uint32_t count) {
    static const uint8_t data[16] = {1};
    static cb_figures figures;
    world w;
    world_open(&w, CB_RULES_NATIVE, (uint64_t)8 << 30, 0.5, NULL);
    for (uint32_t i = 0; i < count; i++) {
        char name[CB_BLOCK_NAME_MAX + 1];
        cb_block_name_rdd(12345, i, name);
        if (put(&w, name, CB_LEVEL_MEMORY_ONLY_SER, data, sizeof data) != CB_OK) {
            die("no room");
        }
    }
    cb_blocks_stats stats;
    cb_blocks_stats_get(w.blocks, &stats);
    cb_manager_figures(w.manager, &figures);
    uint64_t charged = 0;
    for (uint32_t i = 0; i < figures.ledger_count; i++) {
        charged += strcmp(figures.ledger[i].name, "blocks") == 0 ? figures.ledger[i].bytes : 0;
    }
    (void)printf("{\"blocks\": %" PRIu64 ", \"data_bytes\": %" PRIu64 ", \"books_bytes\": %" PRIu64
                 ", \"ledger_bytes\": %" PRIu64 "}\n",
                 stats.blocks, stats.memory_bytes, stats.overhead_bytes, charged);
    (void)fflush(stdout);
    _exit(0); /* what counts is the peak of now */
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "talk") == 0 && argc == 3) {
        return do_talk(argv[2]);
    }
    if (strcmp(what, "drop") == 0 && argc == 5) {
        return do_drop(argv[2], strtoull(argv[3], NULL, 10) << 20, strtoull(argv[4], NULL, 10));
    }
    if (strcmp(what, "zipf") == 0 && argc == 6) {
        zipf z = {.blocks = (uint32_t)strtoul(argv[2], NULL, 10),
                  .requests = (uint32_t)strtoul(argv[3], NULL, 10),
                  .exponent = strtod(argv[4], NULL)};
        return do_zipf(&z, strtoull(argv[5], NULL, 10));
    }
    if (strcmp(what, "many") == 0 && argc == 3) {
        return do_many((uint32_t)strtoul(argv[2], NULL, 10));
    }
    die("talk FOLDER | drop FOLDER MEBIBYTES BYTES | zipf BLOCKS REQUESTS EXPONENT SEED | many "
        "COUNT");
}
