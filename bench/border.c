/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cached blocks and sorts under one budget: how the border between them moves. One thread reads
 * blocks (few of them often), another sorts now and then as a guest of the same manager, a third
 * looks at the pools every few milliseconds and writes what it saw as JSON. bench/border makes the
 * picture.
 *
 *     border INPUT FOLDER     INPUT: what is sorted; blocks and sorts spill to FOLDER
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "carbide/carbide.h"

enum { MIB = 1 << 20, BUDGET_MIB = 96, BLOCK_BYTES = 512 * 1024, BLOCKS = 240, LOOK_MS = 10 };

typedef struct world {
    cb_manager *manager;
    cb_blocks *blocks;
    const char *input, *folder;
    _Atomic int sorting; /* MiB asked for, 0: none is */
    _Atomic bool done, failed;
} world;

static uint64_t now_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void wait_ms(long ms) {
    const struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

static void stop(world *w, const char *what, const cb_error *err) {
    (void)fprintf(stderr, "border: %s: %s\n", what, err->message);
    atomic_store(&w->failed, true);
    atomic_store(&w->done, true);
}

/** Blocks by a skewed draw; each is put when it is not there. */
static void *read_blocks(void *ctx) {
    world *w = ctx;
    cb_error err = {.message = ""};
    cb_block_task *task = NULL;
    uint32_t random = 1;
    uint8_t *bytes = malloc(BLOCK_BYTES);
    if (bytes == NULL || cb_block_task_create(w->blocks, 1, 0, &task, &err) != CB_OK) {
        free(bytes);
        stop(w, "blocks", &err);
        return NULL;
    }
    for (int i = 0; !atomic_load(&w->done); i++) {
        char name[24];
        cb_block_ref ref = {.block = NULL};
        random = random * 1664525u + 1013904223u;
        double part = (double)(random >> 8) / (1 << 24);
        int n = i < BLOCKS ? i : (int)(part * part * BLOCKS); /* each once, at first */
        (void)snprintf(name, sizeof name, "rdd_1_%d", n);
        cb_status status = cb_blocks_get(w->blocks, task, name, &ref, &err);
        if (status == CB_ENOTFOUND) {
            memset(bytes, n, BLOCK_BYTES);
            status = cb_blocks_put_bytes(w->blocks, task, name, CB_LEVEL_MEMORY_AND_DISK_SER, NULL,
                                         bytes, BLOCK_BYTES, NULL, &err);
        }
        cb_block_release(&ref);
        if (status != CB_OK) {
            stop(w, name, &err);
        }
        wait_ms(1);
    }
    (void)cb_block_task_end(task);
    free(bytes);
    return NULL;
}

static void sort_once(world *w, uint64_t mib) {
    cb_error err = {.message = ""};
    cb_sort *sort = NULL;
    const cb_sort_options o = {.struct_size = sizeof o,
                               .inputs = &w->input,
                               .input_count = 1,
                               .output = "/dev/null",
                               .format = CB_FORMAT_LINES,
                               .field_separator = -1,
                               .memory_bytes = mib * MIB,
                               .threads = 1,
                               .temp_dirs = &w->folder,
                               .temp_dir_count = 1,
                               .manager = w->manager};
    atomic_store(&w->sorting, (int)mib);
    cb_status status = cb_sort_create(&o, &sort, &err);
    if (status == CB_OK) {
        status = cb_sort_run(sort, &err);
    }
    cb_sort_destroy(sort);
    atomic_store(&w->sorting, 0);
    if (status != CB_OK) {
        stop(w, "sort", &err);
    }
}

static void *sort_now_and_then(void *ctx) {
    static const uint64_t sizes[] = {24, 80, 40};
    world *w = ctx;
    wait_ms(1200);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && !atomic_load(&w->done); i++) {
        sort_once(w, sizes[i]);
        wait_ms(1200);
    }
    atomic_store(&w->done, true);
    return NULL;
}

static void look(const world *w, uint64_t ms, bool first) {
    cb_pool_stats e, s;
    cb_blocks_stats b;
    cb_manager_pool(w->manager, CB_EXECUTION, CB_HEAP, &e);
    cb_manager_pool(w->manager, CB_STORAGE, CB_HEAP, &s);
    cb_blocks_stats_get(w->blocks, &b);
    printf("%s[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%d,%" PRIu64 ",%" PRIu64
           "]",
           first ? "" : ",\n", ms, e.size, e.used, s.size, s.used, atomic_load(&w->sorting), b.hits,
           b.disk_hits);
}

static cb_status make_world(world *w, cb_error *err) {
    const cb_manager_options m = {
        .struct_size = sizeof m, .heap_bytes = (uint64_t)BUDGET_MIB * MIB, .storage_fraction = 0.5};
    cb_status status = cb_manager_create(&m, &w->manager, err);
    if (status != CB_OK) {
        return status;
    }
    const cb_blocks_options b = {
        .struct_size = sizeof b, .manager = w->manager, .folder = w->folder};
    return cb_blocks_create(&b, &w->blocks, err);
}

int main(int argc, char **argv) {
    world w = {.sorting = 0};
    cb_error err = {.message = ""};
    pthread_t reader, sorter;
    if (argc != 3) {
        (void)fprintf(stderr, "usage: border INPUT FOLDER\n");
        return 2;
    }
    w.input = argv[1];
    w.folder = argv[2];
    if (make_world(&w, &err) != CB_OK || pthread_create(&reader, NULL, read_blocks, &w) != 0 ||
        pthread_create(&sorter, NULL, sort_now_and_then, &w) != 0) {
        stop(&w, "start", &err);
        return 1;
    }
    uint64_t begun = now_ms();
    printf("{\"budget\":%d,\"region\":%d,\"columns\":[\"ms\",\"execution_size\",\"execution_used\","
           "\"storage_size\",\"storage_used\",\"sort_mib\",\"hits\",\"disk_hits\"],\"rows\":[\n",
           BUDGET_MIB * MIB, BUDGET_MIB / 2 * MIB);
    for (bool first = true; !atomic_load(&w.done); first = false) {
        look(&w, now_ms() - begun, first);
        wait_ms(LOOK_MS);
    }
    printf("]}\n");
    (void)pthread_join(reader, NULL);
    (void)pthread_join(sorter, NULL);
    cb_blocks_destroy(w.blocks);
    cb_manager_destroy(w.manager);
    return atomic_load(&w.failed) ? 1 : 0;
}
