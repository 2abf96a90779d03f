/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carbide's side of bench/originals; jvm/ has the other. Reads lines "CASE THREADS TASKS
 * MILLISECONDS" and answers each with the nanoseconds of one operation of one thread. An operation
 * takes something and gives it back:
 *
 *     spark:acquire                   4 KiB of execution memory, by Spark's rules
 *     spark:page-heap, -off-heap      a page of 1 MiB
 *     flink:segment-KIND-HOW          a segment of 32 KiB; KIND heap, off-heap; HOW preallocated,
 * lazy flink:segments-KIND-HOW         the same, 64 at a time; the time is that of one
 *
 * Thread t works for the tasks (owners) t, t + threads ...; with one task all work for that one.
 * `native:` instead of `spark:` takes the rules that carbide's own operators run on.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "carbide/carbide.h"

#include "bench.h"

enum { THREADS_MAX = 8, TASKS_MAX = 64, BATCH = 64, STEP = 256, MIB = 1024 * 1024 };

typedef enum what { ACQUIRE, PAGE, SEGMENT, SEGMENTS } what;

typedef struct setting {
    what what;
    unsigned threads, tasks;
    uint64_t millis;
    cb_manager *manager;
    cb_task *task[TASKS_MAX];
    cb_consumer *consumer[TASKS_MAX][THREADS_MAX];
    cb_segment_pool *pool;
    cb_segment_owner *owner[TASKS_MAX];
    pthread_barrier_t start;
} setting;

typedef struct worker {
    pthread_t thread;
    setting *s;
    unsigned index;
    double ns;
} worker;

static void make_tasks(setting *s, cb_mode mode) {
    cb_error err;
    for (unsigned i = 0; i < s->tasks; i++) {
        cb_task_options task = {.struct_size = sizeof task, .id = i};
        must(cb_task_create(s->manager, &task, &s->task[i], &err), &err);
        for (unsigned k = 0; k < s->threads; k++) {
            cb_consumer_options consumer = {
                .struct_size = sizeof consumer, .name = "bench", .mode = mode};
            must(cb_consumer_create(s->task[i], &consumer, &s->consumer[i][k], &err), &err);
        }
        must(cb_consumer_acquire_all(s->consumer[i][0], 4096, &err), &err);
    }
}

static void make_pool(setting *s, const char *name) {
    cb_error err;
    cb_task_options task = {.struct_size = sizeof task, .id = 1};
    must(cb_task_create(s->manager, &task, &s->task[0], &err), &err);
    cb_segment_pool_options pool = {.struct_size = sizeof pool,
                                    .task = s->task[0],
                                    .bytes = (uint64_t)256 * MIB,
                                    .preallocate = strstr(name, "preallocated") != NULL};
    must(cb_segment_pool_create(&pool, &s->pool, &err), &err);
    for (unsigned i = 0; i < s->tasks; i++) {
        cb_segment segment;
        must(cb_segment_owner_create(s->pool, "bench", &s->owner[i], &err), &err);
        must(cb_segment_take(s->owner[i], 1, &segment, &err), &err);
    }
}

static void set_up(setting *s, const char *name) {
    cb_error err;
    cb_mode mode = strstr(name, "off-heap") != NULL ? CB_OFF_HEAP : CB_HEAP;
    cb_manager_options options = {.struct_size = sizeof options,
                                  .rules = strncmp(name, "native:", 7) == 0 ? CB_RULES_NATIVE
                                                                            : CB_RULES_SPARK,
                                  .mode = mode,
                                  .heap_bytes = (uint64_t)1024 * MIB,
                                  .off_heap_bytes = (uint64_t)1024 * MIB,
                                  .storage_fraction = 0.5,
                                  .idle_max = (uint64_t)64 * MIB};
    must(cb_manager_create(&options, &s->manager, &err), &err);
    const char *verb = strchr(name, ':') + 1;
    s->what = strncmp(verb, "acquire", 7) == 0    ? ACQUIRE
              : strncmp(verb, "page", 4) == 0     ? PAGE
              : strncmp(verb, "segments", 8) == 0 ? SEGMENTS
                                                  : SEGMENT;
    if (s->what <= PAGE) {
        make_tasks(s, mode);
    } else {
        make_pool(s, name);
    }
}

static void tear_down(setting *s) {
    if (s->manager == NULL) {
        return;
    }
    cb_segment_pool_destroy(s->pool);
    for (unsigned i = 0; i < TASKS_MAX; i++) {
        (void)cb_task_end(s->task[i], NULL, 0);
    }
    cb_manager_destroy(s->manager);
    *s = (setting){0};
}

static void check(bool good) {
    if (!good) {
        abort();
    }
}

static void acquire_release(cb_consumer *consumer) {
    for (int i = 0; i < STEP; i++) {
        uint64_t granted = 0;
        check(cb_consumer_acquire(consumer, 4096, &granted, NULL) == CB_OK && granted == 4096);
        cb_consumer_release(consumer, 4096);
    }
}

static void allocate_free(cb_consumer *consumer) {
    for (int i = 0; i < STEP; i++) {
        cb_page page;
        check(cb_page_alloc(consumer, MIB, &page, NULL) == CB_OK);
        check(cb_page_free(consumer, &page, NULL) == CB_OK);
    }
}

static void take_give(cb_segment_owner *owner) {
    for (int i = 0; i < STEP; i++) {
        cb_segment segment;
        check(cb_segment_take(owner, 1, &segment, NULL) == CB_OK);
        check(cb_segment_give(&segment, NULL) == CB_OK);
    }
}

static void take_give_batch(cb_segment_owner *owner) {
    cb_segment segments[BATCH];
    for (int i = 0; i < STEP; i += BATCH) {
        check(cb_segment_take(owner, BATCH, segments, NULL) == CB_OK);
        check(cb_segment_give_list(segments, BATCH, NULL) == CB_OK);
    }
}

static void work_for(const setting *s, unsigned task, unsigned thread) {
    switch (s->what) {
        case ACQUIRE: acquire_release(s->consumer[task][thread]); break;
        case PAGE: allocate_free(s->consumer[task][thread]); break;
        case SEGMENT: take_give(s->owner[task]); break;
        case SEGMENTS: take_give_batch(s->owner[task]); break;
    }
}

static void *work(void *ctx) {
    worker *w = ctx;
    setting *s = w->s;
    unsigned first = s->tasks == 1 ? 0 : w->index, task = first;
    pthread_barrier_wait(&s->start);
    double begin = now_ns(), now, end = begin + (double)s->millis * 1e6;
    double operations = 0;
    do {
        work_for(s, task, w->index);
        operations += (double)STEP;
        task += s->threads;
        if (task >= s->tasks) {
            task = first;
        }
        now = now_ns();
    } while (now < end);
    w->ns = (now - begin) / operations;
    return NULL;
}

static double measure(setting *s) {
    worker workers[THREADS_MAX];
    check(pthread_barrier_init(&s->start, NULL, s->threads) == 0);
    for (unsigned i = 0; i < s->threads; i++) {
        workers[i] = (worker){.s = s, .index = i};
        check(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
    }
    double sum = 0;
    for (unsigned i = 0; i < s->threads; i++) {
        pthread_join(workers[i].thread, NULL);
        sum += workers[i].ns;
    }
    pthread_barrier_destroy(&s->start);
    return sum / s->threads;
}

int main(void) {
    static setting s;
    char line[256], name[128], last[128] = "";
    while (fgets(line, sizeof line, stdin) != NULL) {
        unsigned threads, tasks;
        unsigned long long millis;
        if (sscanf(line, "%127s %u %u %llu", name, &threads, &tasks, &millis) != 4 ||
            strchr(name, ':') == NULL || threads == 0 || threads > THREADS_MAX || tasks == 0 ||
            tasks > TASKS_MAX) {
            fprintf(stderr, "originals: not a case: %s", line);
            return 2;
        }
        if (strcmp(name, last) != 0 || s.threads != threads || s.tasks != tasks) {
            tear_down(&s);
            s.threads = threads;
            s.tasks = tasks;
            set_up(&s, name);
            strcpy(last, name);
        }
        s.millis = millis;
        printf("%.2f\n", measure(&s));
        fflush(stdout);
    }
    tear_down(&s);
    return 0;
}
