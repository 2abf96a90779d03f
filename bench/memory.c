/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the memory core costs: nanoseconds an operation, best and median of several rounds.
 *
 *     bench/memory [ROUNDS]
 *
 * The figures to beat, one thread: acquire and release of execution memory by one task 40 ns,
 * allocate and free of a pooled 1 MiB page 40 ns, decoding an address 1 ns. Rounds are short, so
 * that a noisy machine shows in the spread and not in the best. With two threads each works for a
 * task of its own; the time is that of one operation of one of them.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "carbide/carbide.h"

#include "bench.h"

enum { OPERATIONS = 200000, ROUNDS_MAX = 1000, ADDRESSES = 4096, MIB = 1024 * 1024 };

typedef struct setting {
    cb_manager *manager;
    cb_task *task;
    cb_consumer *consumer;
    cb_allocator *heap, *off_heap;
    cb_segment_pool *segments;
    uint8_t *const *table;
    cb_address *addresses;
} setting;

static void set_up(setting *s, cb_rules rules) {
    cb_error err;
    cb_manager_options options = cb_manager_options_native((uint64_t)1024 * MIB);
    options.rules = rules;
    options.heap_bytes = rules == CB_RULES_SPARK ? MIB : 0;
    must(cb_manager_create(&options, &s->manager, &err), &err);
    cb_task_options task = {.struct_size = sizeof task, .id = 1};
    must(cb_task_create(s->manager, &task, &s->task, &err), &err);
    cb_consumer_options consumer = {
        .struct_size = sizeof consumer, .name = "bench", .mode = CB_OFF_HEAP};
    must(cb_consumer_create(s->task, &consumer, &s->consumer, &err), &err);
    cb_allocator_options heap = {.struct_size = sizeof heap, .mode = CB_HEAP};
    must(cb_allocator_create(&heap, &s->heap, &err), &err);
    cb_allocator_options off_heap = {
        .struct_size = sizeof heap, .mode = CB_OFF_HEAP, .idle_max = 64 * MIB};
    must(cb_allocator_create(&off_heap, &s->off_heap, &err), &err);
    cb_segment_pool_options segments = {.struct_size = sizeof segments,
                                        .task = s->task,
                                        .name = "segments",
                                        .segment_bytes = 32 * 1024,
                                        .segments_max = 1024,
                                        .preallocate = true};
    must(cb_segment_pool_create(&segments, &s->segments, &err), &err);
}

static void tear_down(setting *s) {
    cb_segment_pool_destroy(s->segments);
    cb_allocator_destroy(s->heap);
    cb_allocator_destroy(s->off_heap);
    (void)cb_task_end(s->task, NULL, 0);
    cb_manager_destroy(s->manager);
}

static void acquire_release(setting *s) {
    for (int i = 0; i < OPERATIONS; i++) {
        uint64_t granted = 0;
        if (cb_consumer_acquire(s->consumer, 4096, &granted, NULL) != CB_OK || granted != 4096) {
            abort();
        }
        cb_consumer_release(s->consumer, 4096);
    }
}

static void *acquire_release_aside(void *s) {
    acquire_release(s);
    return NULL;
}

/** The setting's own task here, another one of the same manager in a second thread. */
static void acquire_release_twice(setting *s) {
    setting other = {.manager = s->manager};
    cb_error err;
    cb_task_options task = {.struct_size = sizeof task, .id = 2};
    must(cb_task_create(s->manager, &task, &other.task, &err), &err);
    cb_consumer_options consumer = {
        .struct_size = sizeof consumer, .name = "other", .mode = CB_OFF_HEAP};
    must(cb_consumer_create(other.task, &consumer, &other.consumer, &err), &err);
    pthread_t thread;
    if (pthread_create(&thread, NULL, acquire_release_aside, &other) != 0) {
        abort();
    }
    acquire_release(s);
    pthread_join(thread, NULL);
    (void)cb_task_end(other.task, NULL, 0);
}

static void allocate_free(cb_allocator *allocator) {
    cb_page page;
    for (int i = 0; i < OPERATIONS; i++) {
        if (cb_allocator_allocate(allocator, MIB, &page, NULL) != CB_OK ||
            cb_allocator_free(allocator, &page, NULL) != CB_OK) {
            abort();
        }
    }
}

static void allocate_free_heap(setting *s) {
    allocate_free(s->heap);
}

static void allocate_free_off_heap(setting *s) {
    allocate_free(s->off_heap);
}

static void task_page(setting *s) {
    cb_page page;
    for (int i = 0; i < OPERATIONS; i++) {
        if (cb_page_alloc(s->consumer, MIB, &page, NULL) != CB_OK ||
            cb_page_free(s->consumer, &page, NULL) != CB_OK) {
            abort();
        }
    }
}

static void segment_take_give(setting *s) {
    for (int i = 0; i < OPERATIONS; i++) {
        void *segment = cb_segment_pool_take(s->segments, 1);
        cb_segment_pool_give(s->segments, segment, 1);
    }
}

static volatile uint64_t sink;

static void decode(setting *s) {
    uint64_t sum = 0;
    for (int i = 0; i < OPERATIONS; i++) {
        sum += (uintptr_t)cb_address_data(s->table, s->addresses[i & (ADDRESSES - 1)]);
    }
    sink = sum;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *name, void (*run)(setting *), setting *s, int rounds) {
    static double ns[ROUNDS_MAX];
    run(s);
    for (int i = 0; i < rounds; i++) {
        double begin = now_ns();
        run(s);
        ns[i] = (now_ns() - begin) / OPERATIONS;
    }
    qsort(ns, (size_t)rounds, sizeof ns[0], ascending);
    printf("%-44s best %7.2f ns   median %7.2f ns   worst %7.2f ns\n", name, ns[0], ns[rounds / 2],
           ns[rounds - 1]);
}

/** Pages to point into, and addresses in them in no order. */
static void make_addresses(setting *s, cb_page *pages, size_t count) {
    cb_error err;
    for (size_t i = 0; i < count; i++) {
        must(cb_page_alloc(s->consumer, 64 * 1024, &pages[i], &err), &err);
    }
    s->addresses = malloc(ADDRESSES * sizeof *s->addresses);
    uint64_t random = 88172645463325252u;
    for (size_t i = 0; s->addresses != NULL && i < ADDRESSES; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        s->addresses[i] = cb_address_of(&pages[random % count], random >> 48);
    }
    s->table = cb_task_page_table(s->task);
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 25;
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    setting s = {0};
    set_up(&s, CB_RULES_NATIVE);
    measure("acquire + release, native rules", acquire_release, &s, rounds);
    measure("acquire + release, two threads", acquire_release_twice, &s, rounds);
    measure("allocator: allocate + free 1 MiB, heap", allocate_free_heap, &s, rounds);
    measure("allocator: allocate + free 1 MiB, off-heap", allocate_free_off_heap, &s, rounds);
    measure("task: page of 1 MiB, allocate + free", task_page, &s, rounds);
    measure("segment: take + give", segment_take_give, &s, rounds);
    cb_page pages[64];
    make_addresses(&s, pages, 64);
    measure("address: decode", decode, &s, rounds);
    free(s.addresses);
    for (size_t i = 0; i < 64; i++) {
        must(cb_page_free(s.consumer, &pages[i], NULL), &(cb_error){0});
    }
    tear_down(&s);
    set_up(&s, CB_RULES_SPARK);
    measure("acquire + release, Spark's rules", acquire_release, &s, rounds);
    tear_down(&s);
    return 0;
}
