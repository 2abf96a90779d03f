/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: under Spark's rules the arbiter answers as Spark 4.2's own classes did. Method: a small
 * reader of the trace language drives the arbiter with a store of named blocks, and each line is
 * compared with what the original printed (tests/memory/traces).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "memory/arbiter.h"

enum { BLOCKS_MAX = 32, TASKS_MAX = 16, LINE_MAX_BYTES = 512 };

typedef struct block {
    char name[32];
    int data_set; /* R of rdd_R_P, -1 for others */
    cb_mode mode;
    uint64_t bytes;
    bool pinned;
} block;

typedef struct task {
    int id;
    bool joined, blocked;
    cbi_party party;
    cbi_request request;
} task;

/** One manager of a trace: the arbiter, a store in LRU order, and what the current line did. */
typedef struct world {
    cbi_arbiter arbiter;
    block blocks[BLOCKS_MAX]; /* least recently used first */
    size_t block_count;
    task tasks[TASKS_MAX]; /* by id */
    uint64_t unroll[CB_MODE_COUNT];
    char evicted[256], woke[256];
} world;

static CBI_PRINTF(3, 4) void append(char *text, size_t bytes, const char *fmt, ...) {
    size_t length = strlen(text);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text + length, bytes - length, fmt, args);
    va_end(args);
}

/* ---- the store ---- */

static int data_set_of(const char *name) {
    return strncmp(name, "rdd_", 4) == 0 ? atoi(name + 4) : -1;
}

static block *find_block(world *w, const char *name) {
    for (size_t i = 0; i < w->block_count; i++) {
        if (strcmp(w->blocks[i].name, name) == 0) {
            return &w->blocks[i];
        }
    }
    return NULL;
}

static void remove_block(world *w, block *b) {
    size_t i = (size_t)(b - w->blocks);
    memmove(b, b + 1, (w->block_count - i - 1) * sizeof *b);
    w->block_count--;
}

static void touch_block(world *w, block *b) {
    block copy = *b;
    remove_block(w, b);
    w->blocks[w->block_count++] = copy;
}

/** Least recently used first, same mode, not of the same data set, not pinned; all or nothing. */
static uint64_t evict(world *w, cb_mode mode, uint64_t bytes, const char *for_block) {
    int kin = for_block != NULL ? data_set_of(for_block) : -1;
    bool victim[BLOCKS_MAX] = {false};
    uint64_t freed = 0;
    for (size_t i = 0; i < w->block_count && freed < bytes; i++) {
        const block *b = &w->blocks[i];
        victim[i] = b->mode == mode && !b->pinned && (kin < 0 || b->data_set != kin);
        freed += victim[i] ? b->bytes : 0;
    }
    if (freed < bytes) {
        return 0;
    }
    size_t kept = 0;
    for (size_t i = 0; i < w->block_count; i++) {
        if (victim[i]) {
            append(w->evicted, sizeof w->evicted, "%s%s:%llu", w->evicted[0] != '\0' ? " " : "",
                   w->blocks[i].name, (unsigned long long)w->blocks[i].bytes);
        } else {
            w->blocks[kept++] = w->blocks[i];
        }
    }
    w->block_count = kept;
    return freed;
}

/** The three phases of an eviction in one go. */
static void evict_and_settle(world *w, cbi_request *r, const char *for_block) {
    uint64_t freed = evict(w, r->mode, r->evict_bytes, for_block);
    cbi_arbiter_marked(&w->arbiter, r, freed);
    (void)cbi_arbiter_settle(&w->arbiter, r, freed);
}

static void wake(world *w) {
    cbi_request *r;
    while ((r = cbi_arbiter_next(&w->arbiter)) != NULL) {
        task *t = (task *)(void *)((char *)r - offsetof(task, request));
        if (r->verdict == CBI_EVICT) {
            evict_and_settle(w, r, NULL);
        }
        if (r->verdict == CBI_GRANTED) {
            t->blocked = false;
            append(w->woke, sizeof w->woke, "%s%d=%llu", w->woke[0] != '\0' ? " " : "", t->id,
                   (unsigned long long)r->granted);
        }
    }
    cbi_arbiter_check(&w->arbiter);
}

/* ---- operations ---- */

static task *find_task(world *w, int id) {
    assert_true(id >= 0 && id < TASKS_MAX);
    task *t = &w->tasks[id];
    if (!t->joined) {
        t->joined = true;
        t->id = id;
        cbi_arbiter_join(&w->arbiter, &t->party);
    }
    return t;
}

static void acquire_execution(world *w, int id, uint64_t bytes, cb_mode mode, char *result,
                              size_t cap) {
    task *t = find_task(w, id);
    if (t->blocked) {
        append(result, cap, "error:busy");
        return;
    }
    if (bytes == 0) {
        append(result, cap, "error:AssertionError");
        return;
    }
    t->request = (cbi_request){.party = &t->party, .mode = mode, .bytes = bytes, .may_wait = true};
    if (cbi_arbiter_acquire(&w->arbiter, &t->request) == CBI_EVICT) {
        evict_and_settle(w, &t->request, NULL);
    }
    t->blocked = t->request.verdict == CBI_BLOCKED;
    if (t->blocked) {
        append(result, cap, "blocked");
    } else {
        append(result, cap, "%llu", (unsigned long long)t->request.granted);
    }
}

static bool acquire_storage(world *w, const char *name, uint64_t bytes, cb_mode mode) {
    cbi_request r = {.mode = mode, .bytes = bytes};
    if (cbi_arbiter_acquire_storage(&w->arbiter, &r) == CBI_EVICT) {
        evict_and_settle(w, &r, name);
    }
    return r.verdict == CBI_GRANTED;
}

static void put_block(world *w, const char *name, uint64_t bytes, cb_mode mode, char *result,
                      size_t cap) {
    if (find_block(w, name) != NULL) {
        append(result, cap, "error:exists");
        return;
    }
    bool stored = acquire_storage(w, name, bytes, mode);
    if (stored) {
        block *b = &w->blocks[w->block_count++];
        *b = (block){.data_set = data_set_of(name), .mode = mode, .bytes = bytes};
        (void)snprintf(b->name, sizeof b->name, "%s", name);
    }
    append(result, cap, stored ? "true" : "false");
}

static bool configure(world *w, char *words[], int count) {
    uint64_t total[CB_MODE_COUNT] = {0, 0}, region[CB_MODE_COUNT] = {0, 0};
    double fraction = 0.5;
    for (int i = 1; i < count; i++) {
        char *value = strchr(words[i], '=') + 1;
        if (strncmp(words[i], "heap=", 5) == 0) {
            total[CB_HEAP] = strtoull(value, NULL, 10);
        } else if (strncmp(words[i], "offheap=", 8) == 0) {
            total[CB_OFF_HEAP] = strtoull(value, NULL, 10);
        } else if (strncmp(words[i], "storageRegion=", 14) == 0) {
            region[CB_HEAP] = strtoull(value, NULL, 10);
        } else if (strncmp(words[i], "storageFraction=", 16) == 0) {
            fraction = strtod(value, NULL);
        }
    }
    region[CB_OFF_HEAP] = (uint64_t)((double)total[CB_OFF_HEAP] * fraction);
    if (region[CB_HEAP] >= total[CB_HEAP]) {
        return false;
    }
    memset(w, 0, sizeof *w);
    cbi_arbiter_init(&w->arbiter, CB_RULES_SPARK, CB_POLICY_UNIFIED, total, region);
    return true;
}

static cb_mode mode_of(const char *word) {
    return strcmp(word, "off") == 0 ? CB_OFF_HEAP : CB_HEAP;
}

/** Operations on blocks that are there or not. */
static bool run_block_op(world *w, char *words[], char *result, size_t cap) {
    block *b = find_block(w, words[1]);
    const char *answer = b != NULL ? "true" : "false";
    if (strcmp(words[0], "touch") == 0) {
        if (b != NULL) {
            touch_block(w, b);
        }
    } else if (strcmp(words[0], "pin") == 0) {
        if (b != NULL) {
            b->pinned = true;
        }
    } else if (strcmp(words[0], "unpin") == 0) {
        answer = b != NULL ? "ok" : "error:SparkException";
        if (b != NULL) {
            b->pinned = false;
        }
    } else if (strcmp(words[0], "releaseStorage") == 0) {
        if (b != NULL) {
            (void)cbi_arbiter_release_storage(&w->arbiter, b->mode, b->bytes);
            remove_block(w, b);
        }
    } else {
        return false;
    }
    append(result, cap, "%s", answer);
    return true;
}

static bool run_unroll_op(world *w, char *words[], char *result, size_t cap) {
    if (strcmp(words[0], "acquireUnroll") == 0) {
        uint64_t bytes = strtoull(words[2], NULL, 10);
        bool granted = acquire_storage(w, words[1], bytes, mode_of(words[3]));
        w->unroll[mode_of(words[3])] += granted ? bytes : 0;
        append(result, cap, granted ? "true" : "false");
    } else if (strcmp(words[0], "releaseUnroll") == 0) {
        cb_mode mode = mode_of(words[2]);
        uint64_t bytes = strtoull(words[1], NULL, 10);
        bytes = bytes < w->unroll[mode] ? bytes : w->unroll[mode];
        w->unroll[mode] -= bytes;
        (void)cbi_arbiter_release_storage(&w->arbiter, mode, bytes);
        append(result, cap, "ok");
    } else {
        return false;
    }
    return true;
}

static void run_op(world *w, char *words[], int count, char *result, size_t cap) {
    const char *op = words[0];
    if (strcmp(op, "config") == 0) {
        append(result, cap, configure(w, words, count) ? "ok" : "error:IllegalArgumentException");
    } else if (strcmp(op, "acquireExecution") == 0) {
        acquire_execution(w, atoi(words[1]), strtoull(words[2], NULL, 10), mode_of(words[3]),
                          result, cap);
    } else if (strcmp(op, "releaseExecution") == 0) {
        (void)cbi_arbiter_release(&w->arbiter, &find_task(w, atoi(words[1]))->party,
                                  mode_of(words[3]), strtoull(words[2], NULL, 10));
        append(result, cap, "ok");
    } else if (strcmp(op, "releaseAllExecution") == 0) {
        uint64_t freed = cbi_arbiter_release_all(&w->arbiter, &find_task(w, atoi(words[1]))->party);
        append(result, cap, "%llu", (unsigned long long)freed);
    } else if (strcmp(op, "acquireStorage") == 0) {
        put_block(w, words[1], strtoull(words[2], NULL, 10), mode_of(words[3]), result, cap);
    } else if (strcmp(op, "rawAcquireStorage") == 0) {
        append(result, cap,
               acquire_storage(w, words[1], strtoull(words[2], NULL, 10), mode_of(words[3]))
                   ? "true"
                   : "false");
    } else if (strcmp(op, "rawReleaseStorage") == 0) {
        (void)cbi_arbiter_release_storage(&w->arbiter, mode_of(words[2]),
                                          strtoull(words[1], NULL, 10));
        append(result, cap, "ok");
    } else if (strcmp(op, "maxStorage") == 0) {
        append(result, cap, "%llu",
               (unsigned long long)cbi_arbiter_storage_max(&w->arbiter, mode_of(words[1])));
    } else if (strcmp(op, "state") == 0) {
        append(result, cap, "ok");
    } else if (!run_block_op(w, words, result, cap) && !run_unroll_op(w, words, result, cap)) {
        fail_msg("unknown operation %s", op);
    }
}

/* ---- lines ---- */

static void append_state(const world *w, char *out, size_t cap) {
    static const char *const names[] = {"on", "off"};
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        const cbi_pool *exec = &w->arbiter.pools[CB_EXECUTION][mode],
                       *stor = &w->arbiter.pools[CB_STORAGE][mode];
        append(out, cap, "%s{exec=%llu/%llu stor=%llu/%llu} ", names[mode],
               (unsigned long long)exec->used, (unsigned long long)exec->size,
               (unsigned long long)stor->used, (unsigned long long)stor->size);
    }
    append(out, cap, "unroll=%llu tasks{",
           (unsigned long long)(w->unroll[CB_HEAP] + w->unroll[CB_OFF_HEAP]));
    const char *between = "";
    for (int id = 0; id < TASKS_MAX; id++) {
        const cbi_party *p = &w->tasks[id].party;
        if (p->bytes[CB_HEAP] + p->bytes[CB_OFF_HEAP] > 0) {
            append(out, cap, "%s%d=%llu+%llu", between, id, (unsigned long long)p->bytes[CB_HEAP],
                   (unsigned long long)p->bytes[CB_OFF_HEAP]);
            between = " ";
        }
    }
    append(out, cap, "}");
}

static void run_line(world *w, int number, char *line, char *out, size_t cap) {
    (void)snprintf(out, cap, "%d %s -> ", number, line);
    char *words[10] = {NULL};
    int count = 0;
    for (char *word = strtok(line, " "); word != NULL && count < 10; word = strtok(NULL, " ")) {
        words[count++] = word;
    }
    w->evicted[0] = w->woke[0] = '\0';
    run_op(w, words, count, out, cap);
    wake(w);
    if (w->evicted[0] != '\0') {
        append(out, cap, " evicted{%s}", w->evicted);
    }
    if (w->woke[0] != '\0') {
        append(out, cap, " woke{%s}", w->woke);
    }
    append(out, cap, " | ");
    append_state(w, out, cap);
}

static FILE *open_trace(const char *name, const char *kind) {
    const char *source = getenv("CARBIDE_SOURCE");
    char path[512];
    (void)snprintf(path, sizeof path, "%s/tests/memory/traces/%s.%s", source != NULL ? source : ".",
                   name, kind);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fail_msg("%s is not there", path);
    }
    return file;
}

/** Cuts the comment and the space before it; false for a line with nothing else. */
static bool strip(char *line) {
    line[strcspn(line, "#\n")] = '\0';
    size_t length = strlen(line);
    while (length > 0 && line[length - 1] == ' ') {
        line[--length] = '\0';
    }
    return length > 0;
}

static void run_trace(const char *name) {
    static world w;
    FILE *trace = open_trace(name, "trace"), *expected = open_trace(name, "expected");
    char line[LINE_MAX_BYTES], want[2 * LINE_MAX_BYTES], got[2 * LINE_MAX_BYTES];
    for (int number = 1; fgets(line, sizeof line, trace) != NULL; number++) {
        if (strip(line)) {
            run_line(&w, number, line, got, sizeof got);
            assert_non_null(fgets(want, sizeof want, expected));
            want[strcspn(want, "\n")] = '\0';
            assert_string_equal(got, want);
        }
    }
    assert_null(fgets(want, sizeof want, expected));
    fclose(trace);
    fclose(expected);
}

static void test_unified_manager_answers_as_the_original_in_trace_1(void **state) {
    (void)state;
    run_trace("t1");
}

static void test_unified_manager_answers_as_the_original_in_trace_4(void **state) {
    (void)state;
    run_trace("t4");
}

static void test_unified_manager_answers_as_the_original_in_trace_5(void **state) {
    (void)state;
    run_trace("t5");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unified_manager_answers_as_the_original_in_trace_1),
        cmocka_unit_test(test_unified_manager_answers_as_the_original_in_trace_4),
        cmocka_unit_test(test_unified_manager_answers_as_the_original_in_trace_5),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
