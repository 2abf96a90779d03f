/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What blocks cost in process: nanoseconds a get and release of a 64 KiB serialised block (pinned
 * and borrowed), a put and a remove of one, a lookup of one that is not there; and bytes of
 * bookkeeping a block with a million of them.
 *
 *     bench/store [ROUNDS]
 *
 * The figure to beat: get and release 200 ns (Spark 4.2's BlockManager takes 8.3 us). Best and
 * median of several rounds, one thread.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "carbide/carbide.h"

#include "bench.h"

enum {
    BLOCKS = 512,
    BYTES = 64 * 1024,
    GETS = 200000,
    PUTS = 2000,
    MANY = 1000000,
    ROUNDS_MAX = 99
};

typedef struct setting {
    cb_manager *manager;
    cb_blocks *blocks;
    cb_block_task *task;
    char names[BLOCKS][CB_BLOCK_NAME_MAX + 1];
    uint8_t *data;
    uint32_t seed;
    uint64_t sum;
} setting;

static void set_up(setting *s) {
    cb_error err;
    cb_manager_options m = cb_manager_options_native((uint64_t)1 << 30);
    m.heap_bytes = (uint64_t)1 << 30;
    m.mode = CB_HEAP;
    m.storage_fraction = 0.5;
    must(cb_manager_create(&m, &s->manager, &err), &err);
    cb_blocks_options b = {.struct_size = sizeof b, .manager = s->manager};
    must(cb_blocks_create(&b, &s->blocks, &err), &err);
    must(cb_block_task_create(s->blocks, 1, 0, &s->task, &err), &err);
    s->data = malloc(BYTES);
    memset(s->data, 7, BYTES);
    for (int i = 0; i < BLOCKS; i++) {
        cb_block_name_rdd(1, (uint32_t)i, s->names[i]);
    }
}

static void put(setting *s, const char *name, size_t bytes) {
    cb_error err;
    must(cb_blocks_put_bytes(s->blocks, s->task, name, CB_LEVEL_MEMORY_ONLY_SER, NULL, s->data,
                             bytes, NULL, &err),
         &err);
}

static void get_release(setting *s) {
    cb_error err;
    for (int i = 0; i < GETS; i++) {
        cb_block_ref ref;
        s->seed = s->seed * 1103515245u + 12345u;
        must(cb_blocks_get(s->blocks, s->task, s->names[s->seed >> 8 & (BLOCKS - 1)], &ref, &err),
             &err);
        s->sum += ref.data[0];
        cb_block_release(&ref);
    }
}

static void get_missing(setting *s) {
    for (int i = 0; i < GETS; i++) {
        cb_block_ref ref;
        s->sum += cb_blocks_get(s->blocks, s->task, "rdd_9_9", &ref, NULL) == CB_ENOTFOUND;
    }
}

static void put_remove(setting *s) {
    cb_error err;
    for (int i = 0; i < PUTS; i++) {
        put(s, "rdd_2_0", BYTES);
        must(cb_blocks_remove(s->blocks, s->task, "rdd_2_0", &err), &err);
    }
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *what, void (*run)(setting *), setting *s, int operations,
                    int rounds) {
    double times[ROUNDS_MAX];
    for (int i = 0; i < rounds; i++) {
        double start = now_ns();
        run(s);
        times[i] = (now_ns() - start) / operations;
    }
    qsort(times, (size_t)rounds, sizeof *times, compare);
    printf("%-32s %10.1f %10.1f\n", what, times[0], times[rounds / 2]);
}

int main(int argc, char **argv) {
    static setting s = {.seed = 1};
    int rounds = argc > 1 ? atoi(argv[1]) : 7;
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    set_up(&s);
    for (int i = 0; i < BLOCKS; i++) {
        put(&s, s.names[i], BYTES);
    }
    printf("%-32s %10s %10s  ns\n", "", "best", "median");
    measure("get + release, 64 KiB block", get_release, &s, GETS, rounds);
    measure("get of what is not there", get_missing, &s, GETS, rounds);
    measure("put + remove, 64 KiB block", put_remove, &s, PUTS, rounds);
    cb_blocks_stats before, after;
    cb_blocks_stats_get(s.blocks, &before);
    double start = now_ns();
    for (uint32_t i = 0; i < MANY; i++) {
        char name[CB_BLOCK_NAME_MAX + 1];
        cb_block_name_rdd(12345, i, name);
        put(&s, name, 16);
    }
    double each = (now_ns() - start) / (double)MANY;
    cb_blocks_stats_get(s.blocks, &after);
    printf("%-32s %10.1f\n", "put, 16 bytes, a million", each);
    printf("bookkeeping: %.1f bytes a block\n",
           (double)(after.overhead_bytes - before.overhead_bytes) / (double)MANY);
    (void)cb_block_task_end(s.task);
    cb_blocks_destroy(s.blocks);
    cb_manager_destroy(s.manager);
    free(s.data);
    return s.sum == 0;
}
