/* SPDX-License-Identifier: Apache-2.0 */
/*
 * random_trace unified|static|flink SEED OPERATIONS FILE: writes a random trace, the same for the
 * same seed. Hundreds of operations to a manager, then another one with other sizes.
 *
 * It runs each operation itself, to see how things stand: sizes are often exactly what is free,
 * what a task's share or floor is, or one byte beside it, because that is where rules differ. What
 * the originals leave to chance is kept out: with two who wait for one pool an operation that lets
 * only some of them go on, or evicts meanwhile, is taken back (and the manager's part run again
 * without).
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "carbide/simulate.h"

enum { PART_MAX = 600, LINE_BYTES = 200, TASKS_MAX = 10 };

typedef struct pool {
    uint64_t used, size;
} pool;

/** How the manager stands, read from its last answer. [0] on, [1] off. */
typedef struct standing {
    pool exec[2], stor[2];
    uint64_t held[TASKS_MAX][2];
    int waits[TASKS_MAX]; /* 0 no, 1 on, 2 off */
    uint64_t asked[TASKS_MAX];
    uint64_t tasks; /* who hold something */
} standing;

typedef struct maker {
    uint64_t random;
    FILE *out;
    cb_simulation *simulation;
    char lines[PART_MAX][LINE_BYTES];
    int count;
    standing now;
    bool off_heap, wild, is_static;
    int tasks;
    uint64_t total; /* pages, for Flink */
    uint64_t taken_back;
} maker;

/* ---- chance ---- */

static uint64_t next(maker *m) {
    uint64_t z = (m->random += UINT64_C(0x9e3779b97f4a7c15)); /* splitmix64 */
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t below(maker *m, uint64_t n) {
    return n > 0 ? next(m) % n : 0;
}

static bool chance(maker *m, unsigned percent) {
    return below(m, 100) < percent;
}

/* ---- running ---- */

static void restart(maker *m) {
    const cb_simulation_options o = {.struct_size = sizeof o};
    cb_simulation_destroy(m->simulation);
    if (cb_simulation_create(&o, &m->simulation, NULL) != CB_OK) {
        exit(2);
    }
}

static const char *answer(maker *m, const char *line) {
    static const char *text; /* static: gcc 12 takes what is answered for its address */
    cb_error err;
    if (cb_simulation_line(m->simulation, line, strlen(line), &text, &err) != CB_OK) {
        fprintf(stderr, "random_trace: %s: %s\n", line, err.message);
        exit(2);
    }
    return text;
}

static const char *read_pool(const char *at, const char *name, pool *p) {
    at = strstr(at, name) + strlen(name);
    p->used = strtoull(at, NULL, 10);
    at += strcspn(at, "/") + 1;
    p->size = strtoull(at, NULL, 10);
    return at + strspn(at, "0123456789");
}

static void read_state(standing *s, const char *text) {
    const char *at = strstr(text, " | on{");
    for (int mode = 0; mode < 2; mode++) {
        at = read_pool(at, "exec=", &s->exec[mode]);
        at = read_pool(at, "stor=", &s->stor[mode]);
    }
    memset(s->held, 0, sizeof s->held);
    s->tasks = 0;
    for (at = strstr(at, "tasks{") + 6; *at != '}'; at += *at == ' ') {
        char *end = NULL;
        uint64_t task = strtoull(at, &end, 10);
        uint64_t on = strtoull(end + 1, &end, 10), off = strtoull(end + 1, &end, 10);
        if (task < TASKS_MAX) {
            s->held[task][0] = on;
            s->held[task][1] = off;
        }
        s->tasks++;
        at = end;
    }
}

/** Reads who went on and answers whether it depends on an order that the originals do not promise.
 */
static bool read_woken(standing *s, const char *text) {
    int waiting[3] = {0}, woken[3] = {0};
    bool all_got_all = true;
    for (int task = 0; task < TASKS_MAX; task++) {
        waiting[s->waits[task]]++;
    }
    const char *end = strstr(text, " | on{"), *at = strstr(text, " woke{");
    const char *evicted = strstr(text, " evicted{");
    if (at != NULL && at < end) {
        for (at += 6; *at != '}'; at += *at == ' ') {
            char *after = NULL;
            uint64_t task = strtoull(at, &after, 10);
            all_got_all = all_got_all && strtoull(after + 1, NULL, 10) == s->asked[task];
            woken[s->waits[task]]++;
            s->waits[task] = 0;
            at = after + strcspn(after, " }");
        }
    }
    bool unsure = false;
    for (int mode = 1; mode < 3; mode++) {
        bool some = woken[mode] > 0 && (woken[mode] < waiting[mode] || !all_got_all);
        unsure = unsure || (waiting[mode] > 1 && some);
    }
    return unsure || (waiting[1] + waiting[2] > 1 && evicted != NULL && evicted < end);
}

/** Runs an operation of Spark's; false: it is not to be asked. */
static bool look(maker *m, const char *line) {
    standing before = m->now;
    const char *text = answer(m, line);
    if (read_woken(&m->now, text)) {
        m->now = before;
        return false;
    }
    uint64_t task = 0, bytes = 0;
    char mode[8] = "";
    if (strstr(text, "-> blocked") != NULL &&
        sscanf(line, "acquireExecution %" SCNu64 " %" SCNu64 " %7s", &task, &bytes, mode) == 3) {
        m->now.waits[task] = strcmp(mode, "off") == 0 ? 2 : 1;
        m->now.asked[task] = bytes;
    }
    read_state(&m->now, text);
    return true;
}

/** Adds an operation, or takes it back. */
static void add(maker *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(maker *m, const char *fmt, ...) {
    char *line = m->lines[m->count];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, LINE_BYTES, fmt, args);
    va_end(args);
    if (m->total > 0) { /* Flink's */
        (void)answer(m, line);
        m->count++;
    } else if (look(m, line)) {
        m->count++;
    } else {
        m->taken_back++;
        restart(m);
        memset(&m->now, 0, sizeof m->now);
        for (int i = 0; i < m->count; i++) {
            (void)look(m, m->lines[i]);
        }
    }
}

static void write_part(maker *m) {
    for (int i = 0; i < m->count; i++) {
        fprintf(m->out, "%s\n", m->lines[i]);
    }
}

/* ---- Spark ---- */

static const char *mode_word(int mode) {
    return mode == 0 ? "on" : "off";
}

static int any_mode(maker *m) {
    return m->off_heap && chance(m, 40) ? 1 : 0;
}

/** A size that means something as things stand, or any. */
static uint64_t any_size(maker *m, int mode, int task) {
    const standing *s = &m->now;
    uint64_t total = s->exec[mode].size + s->stor[mode].size;
    uint64_t exec_free = s->exec[mode].size - s->exec[mode].used;
    uint64_t stor_free = s->stor[mode].size - s->stor[mode].used;
    uint64_t n = s->tasks > 0 ? s->tasks : 1, size = 0;
    switch (below(m, 14)) {
        case 0: size = exec_free; break;
        case 1: size = stor_free; break;
        case 2: size = exec_free + stor_free; break;
        case 3: size = s->exec[mode].size / (2 * n); break;
        case 4: size = total / n; break;
        case 5: size = total / n - s->held[task][mode]; break;
        case 6: size = s->held[task][mode]; break;
        case 7: size = 1 + below(m, total); break;
        case 8: size = total; break;
        default: size = 1 + below(m, total / (1 + below(m, 20)) + 1); break;
    }
    if (chance(m, 25)) {
        size += below(m, 3) - 1;
    }
    return size > INT64_MAX ? 1 : size == 0 && chance(m, 90) ? 1 : size;
}

static const char *any_block(maker *m, char name[LINE_BYTES]) {
    unsigned which = (unsigned)below(m, 20);
    unsigned number = (unsigned)below(m, 4);
    if (which < 14) {
        (void)snprintf(name, LINE_BYTES, "rdd_%u_%u", number, (unsigned)below(m, 4));
    } else if (which < 17) {
        (void)snprintf(name, LINE_BYTES, "broadcast_%u%s", number, which == 16 ? "_piece0" : "");
    } else {
        (void)snprintf(name, LINE_BYTES, which == 17 ? "taskresult_%u" : "test_x%u", number);
    }
    return name;
}

static void add_execution(maker *m) {
    int mode = any_mode(m), task = 1 + (int)below(m, (uint64_t)m->tasks);
    unsigned what = (unsigned)below(m, 100);
    if (what < 60) {
        add(m, "acquireExecution %d %" PRIu64 " %s", task, any_size(m, mode, task),
            mode_word(mode));
    } else if (what < 90) {
        uint64_t held = m->now.held[task][mode];
        uint64_t size = chance(m, 50) ? held / (1 + below(m, 4)) : any_size(m, mode, task);
        add(m, "releaseExecution %d %" PRIu64 " %s", task, size, mode_word(mode));
    } else {
        add(m, "releaseAllExecution %d", task);
    }
}

static void add_storage(maker *m) {
    char name[LINE_BYTES];
    int mode = any_mode(m);
    unsigned what = (unsigned)below(m, 100);
    any_block(m, name);
    if (what < 40) {
        add(m, "acquireStorage %s %" PRIu64 " %s", name, any_size(m, mode, 0), mode_word(mode));
    } else if (what < 55) {
        add(m, "releaseStorage %s", name);
    } else if (what < 67) {
        add(m, "touch %s", name);
    } else if (what < 74) {
        add(m, "pin %s", name);
    } else if (what < 83) {
        add(m, "unpin %s", name);
    } else if (what < 92) {
        add(m, "acquireUnroll %s %" PRIu64 " %s", name, any_size(m, mode, 0) / (1 + below(m, 3)),
            mode_word(mode));
    } else {
        add(m, "releaseUnroll %" PRIu64 " %s", any_size(m, mode, 0), mode_word(mode));
    }
}

static void add_raw(maker *m) {
    char name[LINE_BYTES];
    int mode = any_mode(m);
    if (chance(m, 60)) {
        add(m, "rawAcquireStorage %s %" PRIu64 " %s", any_block(m, name), any_size(m, mode, 0),
            mode_word(mode));
    } else {
        add(m, "rawReleaseStorage %" PRIu64 " %s", any_size(m, mode, 0), mode_word(mode));
    }
}

/** Sizes from tens of bytes to exbibytes. */
static uint64_t any_total(maker *m) {
    static const uint64_t most[] = {30, 1000, 1000, 100000, UINT64_C(1) << 32, UINT64_C(1) << 61};
    return 2 + below(m, most[below(m, sizeof most / sizeof most[0])]);
}

static void add_spark_config(maker *m) {
    static const char *const fractions[] = {"0.5", "0.3", "0.75", "0", "0.999", "0.01", "1e-1"};
    static const char *const odd[] = {"1", "1.5", "0.9999999"};
    static const char *const unrolls[] = {"0.2", "0", "1", "0.5", "2", "0.05"};
    const char *fraction = chance(m, 3) ? odd[below(m, 3)] : fractions[below(m, 7)];
    uint64_t heap = any_total(m), region = below(m, heap);
    char off[64] = "", part[64] = "";
    if (m->off_heap) {
        (void)snprintf(off, sizeof off, " offheap=%" PRIu64, any_total(m));
    }
    if (chance(m, 60)) {
        (void)snprintf(part, sizeof part, " storageFraction=%s", fraction);
    }
    if (m->is_static) {
        char unroll[64] = "";
        if (chance(m, 60)) {
            (void)snprintf(unroll, sizeof unroll, " spark.storage.unrollFraction=%s",
                           unrolls[below(m, 6)]);
        }
        uint64_t exec = chance(m, 2) ? 0 : any_total(m), storage = chance(m, 2) ? 0 : any_total(m);
        add(m, "config manager=static exec=%" PRIu64 " storage=%" PRIu64 "%s%s%s", exec, storage,
            off, part, unroll);
        return;
    }
    region = chance(m, 3) ? heap + below(m, 3) : chance(m, 5) ? 0 : region;
    add(m, "config manager=unified heap=%" PRIu64 " storageRegion=%" PRIu64 "%s%s%s", heap, region,
        off, part, chance(m, 10) ? " cores=4" : "");
}

/** Sizes computed from settings; Spark takes the memory of its JVM from spark.testing.memory. */
static void add_spark_settings(maker *m) {
    static const char *const unified[] = {
        "spark.memory.fraction=0.75",         "spark.memory.fraction=0.01",
        "spark.memory.storageFraction=0.2",   "spark.memory.storageFraction=0.999",
        "spark.testing.reservedMemory=0",     "spark.testing.reservedMemory=123456789",
        "spark.memory.offHeap.size=64m",      "spark.memory.offHeap.size=1000001",
        "spark.memory.offHeap.enabled=true",  "spark.executor.memory=2g",
        "spark.executor.memory=449m",         "spark.memory.storageFraction=1",
        "spark.memory.storageFraction=0.001", "spark.memory.fraction=1"};
    static const char *const fixed[] = {
        "spark.shuffle.memoryFraction=0.5",  "spark.shuffle.safetyFraction=0.33",
        "spark.storage.memoryFraction=0.01", "spark.storage.safetyFraction=0.77",
        "spark.storage.unrollFraction=0.5",  "spark.memory.offHeap.size=3g",
        "spark.executor.memory=31m",         "spark.memory.offHeap.enabled=true",
        "spark.memory.storageFraction=0.1",  "spark.shuffle.memoryFraction=0"};
    char line[LINE_BYTES];
    const char *const *words = m->is_static ? fixed : unified;
    uint64_t count =
        m->is_static ? sizeof fixed / sizeof fixed[0] : sizeof unified / sizeof unified[0];
    int used = snprintf(line, sizeof line, "config manager=%s spark.testing.memory=%" PRIu64,
                        m->is_static ? "static" : "unified",
                        UINT64_C(30000000) + below(m, UINT64_C(1) << (26 + below(m, 16))));
    for (uint64_t i = below(m, 4), first = below(m, count); i > 0; i--) { /* no word twice */
        used += snprintf(line + used, sizeof line - (size_t)used, " %s",
                         words[(first + 3 * i) % count]);
    }
    m->off_heap = strstr(line, "offHeap.size") != NULL;
    add(m, "%s", line);
}

static void make_spark_part(maker *m) {
    m->off_heap = chance(m, 60);
    m->wild = chance(m, 25);
    m->tasks = 1 + (int)below(m, TASKS_MAX - 1);
    unsigned execution = 15 + (unsigned)below(m, 70);
    int length = 100 + (int)below(m, 400);
    if (chance(m, 15)) {
        add_spark_settings(m);
    } else {
        add_spark_config(m);
    }
    if (m->now.exec[0].size + m->now.stor[0].size == 0) {
        return; /* refused: there is nothing to go on with */
    }
    while (m->count < length) {
        if (m->wild && chance(m, 8)) {
            add_raw(m);
        } else if (chance(m, 2)) {
            add(m, "%s",
                chance(m, 50) ? "state"
                : any_mode(m) ? "maxStorage off"
                              : "maxStorage on");
        } else if (chance(m, 1) && chance(m, 20)) {
            add(m, "config manager=unified heap=5 storageRegion=5");
        } else if (chance(m, execution)) {
            add_execution(m);
        } else {
            add_storage(m);
        }
    }
}

/* ---- Flink ---- */

static const char *any_fraction(maker *m, char text[32]) {
    static const char *const some[] = {"1",   "1.0",          "0.5",  "0",
                                       "1.5", "0.3333333333", "1e-3", "0.7"};
    if (chance(m, 50)) {
        return some[below(m, sizeof some / sizeof some[0])];
    }
    (void)snprintf(text, 32, "0.%03u", (unsigned)below(m, 1000));
    return text;
}

static void add_flink(maker *m) {
    char text[32];
    unsigned what = (unsigned)below(m, 1000);
    unsigned owner = (unsigned)below(m, 6);
    uint64_t pages = chance(m, 60) ? below(m, 6) : below(m, m->total + 3);
    if (what < 450) {
        add(m, "allocate op%u %" PRIu64, owner, pages);
    } else if (what < 620) {
        add(m, "release op%u %" PRIu64, owner, pages);
    } else if (what < 790) {
        add(m, "releaseList op%u %" PRIu64, owner, pages);
    } else if (what < 860) {
        add(m, "releaseAll op%u", owner);
    } else if (what < 950) {
        add(m, "%s %s", chance(m, 50) ? "numPages" : "memorySize", any_fraction(m, text));
    } else if (what < 980) {
        add(m, "roundDown %" PRIu64, below(m, UINT64_C(1) << (1 + below(m, 62))));
    } else if (what < 984) {
        add(m, "config memory=%" PRIu64 " page=%s", below(m, 5000),
            chance(m, 50) ? "5000" : "2048");
    } else if (what < 987) {
        add(m, "shutdown");
    } else {
        add(m, "state");
    }
}

static void make_flink_part(maker *m) {
    uint64_t page = UINT64_C(4096) << below(m, chance(m, 80) ? 2 : 6);
    int length = 100 + (int)below(m, 400);
    m->total = 1 + below(m, chance(m, 70) ? 20 : 200);
    add(m, "config memory=%" PRIu64 "%s%" PRIu64 " slots=%" PRIu64 " type=%s preallocate=%s",
        m->total * page + below(m, page), " page=", page, chance(m, 3) ? 0 : 1 + below(m, 8),
        chance(m, 70) ? "heap" : "off", chance(m, 50) ? "true" : "false");
    while (m->count < length) {
        add_flink(m);
    }
}

int main(int argc, char **argv) {
    static maker m;
    uint64_t wanted = argc == 5 ? strtoull(argv[3], NULL, 10) : 0, made = 0, parts = 0;
    if (wanted == 0) {
        fprintf(stderr, "usage: random_trace unified|static|flink SEED OPERATIONS FILE\n");
        return 2;
    }
    m.random = strtoull(argv[2], NULL, 10) * UINT64_C(0x2545f4914f6cdd1d);
    m.is_static = strcmp(argv[1], "static") == 0;
    m.out = fopen(argv[4], "w");
    if (m.out == NULL) {
        perror(argv[4]);
        return 2;
    }
    for (; made < wanted; parts++, made += (uint64_t)m.count) {
        restart(&m);
        m.count = 0;
        m.total = 0;
        memset(&m.now, 0, sizeof m.now);
        if (strcmp(argv[1], "flink") == 0) {
            make_flink_part(&m);
        } else {
            make_spark_part(&m);
        }
        write_part(&m);
    }
    cb_simulation_destroy(m.simulation);
    printf("%" PRIu64 " operations on %" PRIu64 " managers; %" PRIu64 " left out, whose answer is "
           "left to chance\n",
           made, parts, m.taken_back);
    return fclose(m.out) == 0 ? 0 : 2;
}
