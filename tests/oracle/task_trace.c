/* SPDX-License-Identifier: Apache-2.0 */
/*
 * task_trace SEED OPERATIONS FILE: random operations on the memory of tasks. FILE gets them, one a
 * line, FILE.carbide what carbide's tasks answer under Spark's rules; Spark's TaskMemoryManager
 * answers the same lines (jvm/run.sh FILE), in FILE.answers.
 *
 *     config manager=task heap=B storageRegion=B [offheap=B] mode=on|off     (mode: of pages)
 *     consumer TASK C on|off KIND PAGE     a new one; KIND says what it does when it is to spill
 *     acquire|release TASK C BYTES
 *     page TASK C BYTES       a page of that size, or of what there is     -> NUMBER:SIZE
 *     need TASK C BYTES       a page of C's size that has at least so many
 *     array TASK C COUNT      of 8-byte words
 *     pages TASK C BYTES N    so many, until one is refused
 *     free TASK C NUMBER      again TASK C: the page that C freed last, once more
 *     address TASK C NUMBER OFFSET         there and back
 *     end TASK                             -> bytes leaked
 *
 * A line ends with who spilled, asked=released in order, and with how things stand: pools, and of
 * each task its bytes, peaks and consumers. The system refuses pages of more than 64 KiB on both
 * sides (mmap below; TaskEngine.java), so that grants are kept aside. An operation in which the
 * task would wait for others is taken back: the manager's part is run again without it.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "carbide/carbide.h"

enum {
    PART_MAX = 500,
    LINE_BYTES = 160,
    ANSWER_BYTES = 4096,
    TASKS_MAX = 4,
    CONSUMERS_MAX = 6,
    SPILLS_LISTED = 40,
    SYSTEM_MAX = 65536,
    HUGE_SPLIT = 50 /* a page that the system refuses is at least such a part of all */
};

typedef enum kind { ALL, SOME, NONE, HALF, OTHERS, PAGES, KINDS } kind;
static const char *const kind_words[KINDS] = {"all", "some", "none", "half", "others", "pages"};

typedef struct holder {
    cb_consumer *consumer;
    unsigned index; /* in its task */
    cb_mode mode;
    kind kind;
    uint64_t page_bytes;
    uint64_t bytes; /* acquired, without pages */
    cb_page *pages; /* in order of allocation */
    size_t page_count;
    cb_page last_freed;
    bool freed_one;
} holder;

typedef struct task {
    cb_task *task;
    holder holders[CONSUMERS_MAX];
    unsigned count;
} task;

typedef struct maker {
    uint64_t random;
    FILE *trace, *answers;
    uint64_t line;
    char lines[PART_MAX][LINE_BYTES];
    char (*results)[ANSWER_BYTES];
    int count;
    cb_manager *manager;
    task tasks[TASKS_MAX];
    bool off_heap, huge;
    cb_mode page_mode;
    uint64_t taken_back;
} maker;

/* Who spilled in the operation that runs: the first in full, of the others how many and how much.
 */
static char spilled[ANSWER_BYTES];
static unsigned spills;
static uint64_t others_spilled;
static bool system_is_short;

/** The library's only way to memory for pages; refuses what is too large while a page is asked for.
 */
void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if (system_is_short && bytes > SYSTEM_MAX) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);
}

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

/* ---- consumers ---- */

static void append(char *text, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void append(char *text, const char *fmt, ...) {
    size_t used = strlen(text);
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text + used, ANSWER_BYTES - used, fmt, args);
    va_end(args);
}

static void must(bool good, const char *what) {
    if (!good) {
        fprintf(stderr, "task_trace: %s\n", what);
        exit(2);
    }
}

static uint64_t free_page(holder *h, size_t i) {
    uint64_t bytes = h->pages[i].bytes;
    must(cb_page_free(h->consumer, &h->pages[i], NULL) == CB_OK, "a page was not freed");
    h->last_freed = h->pages[i];
    h->freed_one = true;
    memmove(&h->pages[i], &h->pages[i + 1], (h->page_count - i - 1) * sizeof *h->pages);
    h->page_count--;
    return bytes;
}

static uint64_t free_bytes(holder *h, uint64_t bytes) {
    cb_consumer_release(h->consumer, bytes);
    h->bytes -= bytes;
    return bytes;
}

static uint64_t spill_all(holder *h) {
    uint64_t released = 0;
    while (h->page_count > 0) {
        released += free_page(h, 0);
    }
    return released + free_bytes(h, h->bytes);
}

static uint64_t spill_pages(holder *h, uint64_t bytes) {
    uint64_t released = 0;
    while (released < bytes && h->page_count > 0) {
        released += free_page(h, h->page_count - 1);
    }
    return released;
}

static int64_t spill(void *ctx, uint64_t bytes, cb_consumer *asker) {
    holder *h = ctx;
    uint64_t released = 0;
    switch (h->kind) {
        case ALL: released = spill_all(h); break;
        case SOME: released = free_bytes(h, bytes < h->bytes ? bytes : h->bytes); break;
        case HALF: released = free_bytes(h, h->bytes - h->bytes / 2); break;
        case OTHERS: released = asker != h->consumer ? spill_all(h) : 0; break;
        case PAGES: released = spill_pages(h, bytes); break;
        case NONE:
        case KINDS: break;
    }
    if (++spills <= SPILLS_LISTED) {
        append(spilled, "%s%u:%" PRIu64 "=%" PRIu64, spills > 1 ? " " : " spilled{", h->index,
               bytes, released);
    } else {
        others_spilled += released;
    }
    return (int64_t)released;
}

/* ---- one operation ---- */

static holder *find(maker *m, unsigned t, unsigned c) {
    must(t < TASKS_MAX && c < m->tasks[t].count, "no such consumer");
    return &m->tasks[t].holders[c];
}

static cb_page *find_page(holder *h, int number) {
    for (size_t i = 0; i < h->page_count; i++) {
        if (h->pages[i].number == number) {
            return &h->pages[i];
        }
    }
    must(false, "no such page");
    return NULL;
}

static void end_task(task *t, uint64_t *leaked) {
    *leaked = cb_task_end(t->task, NULL, 0);
    for (unsigned i = 0; i < t->count; i++) {
        free(t->holders[i].pages);
    }
    memset(t, 0, sizeof *t);
}

static void clear(maker *m) {
    for (int i = 0; i < TASKS_MAX; i++) {
        uint64_t leaked;
        end_task(&m->tasks[i], &leaked);
    }
    cb_manager_destroy(m->manager);
    m->manager = NULL;
}

static void configure(maker *m, const char *line) {
    uint64_t heap = 0, region = 0, off = 0;
    const char *at = strstr(line, "offheap=");
    must(sscanf(line, "config manager=task heap=%" SCNu64 " storageRegion=%" SCNu64, &heap,
                &region) == 2,
         "a bad config");
    off = at != NULL ? strtoull(at + 8, NULL, 10) : 0;
    clear(m);
    m->page_mode = strstr(line, "mode=off") != NULL ? CB_OFF_HEAP : CB_HEAP;
    cb_manager_options options = {.struct_size = sizeof options,
                                  .rules = CB_RULES_SPARK,
                                  .mode = m->page_mode,
                                  .heap_bytes = heap,
                                  .heap_storage_bytes = region,
                                  .off_heap_bytes = off,
                                  .storage_fraction = 0.5};
    must(cb_manager_create(&options, &m->manager, NULL) == CB_OK, "a config that is refused");
}

static void add_consumer(maker *m, const char *line) {
    unsigned t = 0, c = 0;
    char mode[8], word[16];
    uint64_t page = 0;
    must(sscanf(line, "consumer %u %u %7s %15s %" SCNu64, &t, &c, mode, word, &page) == 5,
         "a bad consumer");
    task *of = &m->tasks[t];
    if (of->task == NULL) { /* who would wait does not: the deadline is past */
        cb_task_options options = {.struct_size = sizeof options, .id = t, .deadline_ns = 1};
        must(cb_task_create(m->manager, &options, &of->task, NULL) == CB_OK, "no task");
    }
    holder *h = &of->holders[of->count++];
    *h = (holder){.index = c,
                  .mode = strcmp(mode, "off") == 0 ? CB_OFF_HEAP : CB_HEAP,
                  .page_bytes = page,
                  .pages = calloc(CB_PAGE_TABLE_SIZE, sizeof(cb_page))};
    must(h->pages != NULL, "no memory");
    while (strcmp(kind_words[h->kind], word) != 0) {
        h->kind++;
    }
    cb_consumer_options options = {
        .struct_size = sizeof options, .name = word, .mode = h->mode, .spill = spill, .ctx = h};
    must(cb_consumer_create(of->task, &options, &h->consumer, NULL) == CB_OK, "no consumer");
}

/** What a refusal looks like; false: the task would have to wait. */
static bool refused(char *result, cb_status status, const cb_error *err) {
    if (status == CB_EBUDGET && strncmp(err->message, "Have", 4) != 0) {
        append(result, "none");
    } else if (status == CB_ENOMEM) {
        append(result, "none"); /* all there was is aside now */
    } else if (strstr(err->message, "come in the manager's mode") != NULL) {
        append(result, "error:mode");
    } else {
        append(result, "error:%s", err->message);
    }
    return status != CB_EDEADLINE;
}

/** page, need, array: false when it would have to wait. */
static bool allocate(holder *h, const char *verb, uint64_t bytes, char *result) {
    cb_error err = {0};
    cb_page page = {0};
    uint64_t least = strcmp(verb, "page") == 0 ? 1 : bytes;
    uint64_t size = strcmp(verb, "need") == 0 && bytes < h->page_bytes ? h->page_bytes : bytes;
    cb_status status;
    system_is_short = true;
    if (strcmp(verb, "array") == 0) {
        cb_array array = {0};
        status = cb_array_alloc(h->consumer, bytes, &array, &err);
        page = array.page;
    } else {
        status = cb_page_alloc_least(h->consumer, least, size, &page, &err);
    }
    system_is_short = false;
    if (status != CB_OK) {
        return refused(result, status, &err);
    }
    h->pages[h->page_count++] = page;
    append(result, "%d:%zu", page.number, page.bytes);
    return true;
}

static bool allocate_many(holder *h, uint64_t bytes, uint64_t count, char *result) {
    uint64_t done = 0;
    char one[ANSWER_BYTES];
    for (; done < count; done++) {
        size_t before = h->page_count;
        one[0] = '\0';
        if (!allocate(h, "page", bytes, one)) {
            return false;
        }
        if (h->page_count == before) {
            break;
        }
    }
    append(result, "%" PRIu64, done);
    if (done < count) {
        append(result, " then %s", one);
    }
    return true;
}

static void free_again(holder *h, char *result) {
    cb_error err = {0};
    cb_page page = h->last_freed;
    must(cb_page_free(h->consumer, &page, &err) != CB_OK, "a page was freed twice");
    append(result, "error:%s", err.message);
}

static bool acquire(holder *h, uint64_t bytes, char *result) {
    cb_error err = {0};
    uint64_t granted = 0;
    cb_status status = cb_consumer_acquire(h->consumer, bytes, &granted, &err);
    if (status != CB_OK) {
        return refused(result, status, &err);
    }
    h->bytes += granted;
    append(result, "%" PRIu64, granted);
    return true;
}

/** False: the operation would have to wait, and is not to be asked. */
static bool run(maker *m, const char *line, char *result) {
    char verb[16];
    unsigned t = 0, c = 0;
    uint64_t a = 0, b = 0;
    int words = sscanf(line, "%15s %u %u %" SCNu64 " %" SCNu64, verb, &t, &c, &a, &b);
    result[0] = spilled[0] = '\0';
    spills = 0;
    others_spilled = 0;
    if (strcmp(verb, "config") == 0) {
        configure(m, line);
        append(result, "ok");
        return true;
    }
    if (strcmp(verb, "consumer") == 0) {
        add_consumer(m, line);
        append(result, "ok");
        return true;
    }
    if (strcmp(verb, "end") == 0) {
        uint64_t leaked = 0;
        end_task(&m->tasks[t], &leaked);
        append(result, "%" PRIu64, leaked);
        return true;
    }
    holder *h = find(m, t, c);
    must(words >= 3, "a bad line");
    if (strcmp(verb, "acquire") == 0) {
        return acquire(h, a, result);
    }
    if (strcmp(verb, "pages") == 0) {
        return allocate_many(h, a, b, result);
    }
    if (strcmp(verb, "page") == 0 || strcmp(verb, "need") == 0 || strcmp(verb, "array") == 0) {
        return allocate(h, verb, a, result);
    }
    if (strcmp(verb, "again") == 0) {
        free_again(h, result);
    } else if (strcmp(verb, "address") == 0) {
        cb_address address = cb_address_of(find_page(h, (int)a), b);
        append(result, "%u:%" PRIu64, (unsigned)cb_address_page(address),
               (uint64_t)cb_address_offset(address));
    } else if (strcmp(verb, "free") == 0) {
        (void)free_page(h, (size_t)(find_page(h, (int)a) - h->pages));
        append(result, "ok");
    } else {
        must(strcmp(verb, "release") == 0, "no such operation");
        (void)free_bytes(h, a);
        append(result, "ok");
    }
    return true;
}

static void write_state(maker *m, char *text) {
    static const char *const words[] = {"on", "off"};
    if (spills > SPILLS_LISTED) {
        append(text, " +%u=%" PRIu64, spills - SPILLS_LISTED, others_spilled);
    }
    append(text, "%s |", spills > 0 ? "}" : "");
    for (int mode = 0; mode < 2; mode++) {
        cb_pool_stats exec, stor;
        cb_manager_pool(m->manager, CB_EXECUTION, (cb_mode)mode, &exec);
        cb_manager_pool(m->manager, CB_STORAGE, (cb_mode)mode, &stor);
        append(text, " %s=%" PRIu64 "/%" PRIu64 "+%" PRIu64, words[mode], exec.used, exec.size,
               stor.size);
    }
    for (unsigned i = 0; i < TASKS_MAX; i++) {
        const task *t = &m->tasks[i];
        if (t->task == NULL) {
            continue;
        }
        append(text, " task%u{%" PRIu64 " peak=%" PRIu64 "+%" PRIu64, i, cb_task_used(t->task),
               cb_task_peak_in(t->task, CB_HEAP), cb_task_peak_in(t->task, CB_OFF_HEAP));
        for (unsigned c = 0; c < t->count; c++) {
            append(text, " %u=%" PRIu64, c, cb_consumer_used(t->holders[c].consumer));
        }
        append(text, "}");
    }
}

/** Adds an operation, or takes it back. */
static void add(maker *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void add(maker *m, const char *fmt, ...) {
    char *line = m->lines[m->count], *result = m->results[m->count];
    char answer[ANSWER_BYTES];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, LINE_BYTES, fmt, args);
    va_end(args);
    if (run(m, line, answer)) {
        (void)snprintf(result, ANSWER_BYTES, "%s", answer);
        append(result, "%s", spilled);
        write_state(m, result);
        m->count++;
        return;
    }
    m->taken_back++;
    for (int i = 0; i < m->count; i++) {
        must(run(m, m->lines[i], answer), "what could be done cannot be done again");
    }
}

/* ---- parts ---- */

static uint64_t any_total(maker *m) {
    static const uint64_t most[] = {30, 1000, 1000, 50000, 500000};
    return m->huge ? (UINT64_C(1) << 24) + below(m, UINT64_C(1) << (25 + below(m, 14)))
                   : 2 + below(m, most[below(m, sizeof most / sizeof most[0])]);
}

/** A size that means something as things stand, or any. */
static uint64_t any_size(maker *m, const holder *h) {
    cb_pool_stats exec, stor;
    cb_manager_pool(m->manager, CB_EXECUTION, h->mode, &exec);
    cb_manager_pool(m->manager, CB_STORAGE, h->mode, &stor);
    uint64_t total = exec.size + stor.size, spare = total - exec.used, size = 0;
    uint64_t held = cb_consumer_used(h->consumer);
    switch (below(m, 12)) {
        case 0: size = spare; break;
        case 1: size = spare + held; break;
        case 2: size = total / (1 + below(m, TASKS_MAX)); break;
        case 3: size = spare + 1 + below(m, held + 1); break;
        case 4: size = held; break;
        case 5: size = total; break;
        default: size = 1 + below(m, total / (1 + below(m, 30)) + 1); break;
    }
    size += chance(m, 25) ? below(m, 3) - 1 : 0;
    return size > INT64_MAX || size == 0 ? 1 : size;
}

/** The same for a page: large ones not so small beside all that there are many tries. */
static uint64_t any_page_size(maker *m, const holder *h) {
    uint64_t size = any_size(m, h);
    if (m->huge && chance(m, 70)) {
        size = 1 + below(m, SYSTEM_MAX);
    } else if (m->huge && size > SYSTEM_MAX) {
        cb_pool_stats exec, stor;
        cb_manager_pool(m->manager, CB_EXECUTION, h->mode, &exec);
        cb_manager_pool(m->manager, CB_STORAGE, h->mode, &stor);
        uint64_t least = (exec.size + stor.size) / HUGE_SPLIT + SYSTEM_MAX;
        size = size > least ? size : least;
    }
    return chance(m, 1) ? CB_PAGE_BYTES_MAX + 1 + below(m, 1000) : size;
}

static void add_config(maker *m) {
    uint64_t heap = any_total(m), region = 1 + below(m, heap - 1);
    char off[64] = "";
    m->off_heap = chance(m, 50);
    if (m->off_heap) {
        (void)snprintf(off, sizeof off, " offheap=%" PRIu64, any_total(m));
    }
    add(m, "config manager=task heap=%" PRIu64 " storageRegion=%" PRIu64 "%s mode=%s", heap, region,
        off, m->off_heap && chance(m, 50) ? "off" : "on");
}

static void add_some_consumer(maker *m, unsigned t) {
    bool off = m->off_heap && chance(m, 50);
    kind k = chance(m, 40) ? ALL : (kind)below(m, KINDS);
    add(m, "consumer %u %u %s %s %" PRIu64, t, m->tasks[t].count, off ? "off" : "on", kind_words[k],
        1 + below(m, chance(m, 50) ? 40 : 4096));
}

static void add_allocation(maker *m, unsigned t, holder *h) {
    unsigned what = (unsigned)below(m, 100);
    if (h->mode != m->page_mode && chance(m, 95)) {
        add(m, "acquire %u %u %" PRIu64, t, h->index, any_size(m, h));
    } else if (h->page_count > CB_PAGE_TABLE_SIZE - 100) {
        return;
    } else if (what < 50) {
        add(m, "page %u %u %" PRIu64, t, h->index, any_page_size(m, h));
    } else if (what < 85) { /* larger: docs/simulate.md, "what differs on purpose" */
        add(m, "need %u %u %" PRIu64, t, h->index, any_page_size(m, h) % SYSTEM_MAX + 1);
    } else if (what < 98) {
        add(m, "array %u %u %" PRIu64, t, h->index, 1 + below(m, any_size(m, h) / 8 % 8000 + 1));
    } else {
        add(m, "pages %u %u %" PRIu64 " %" PRIu64, t, h->index, 1 + below(m, 50), below(m, 20));
    }
}

static void add_release(maker *m, unsigned t, holder *h) {
    unsigned what = (unsigned)below(m, 100);
    if (what < 40 && h->page_count > 0) {
        add(m, "free %u %u %d", t, h->index, h->pages[below(m, h->page_count)].number);
    } else if (what < 50 && h->page_count > 0) {
        const cb_page *page = &h->pages[below(m, h->page_count)];
        add(m, "address %u %u %d %" PRIu64, t, h->index, page->number, below(m, page->bytes));
    } else if (what < 52 && h->freed_one) {
        add(m, "again %u %u", t, h->index);
    } else {
        uint64_t part = chance(m, 50) ? h->bytes : below(m, h->bytes + 1);
        add(m, "release %u %u %" PRIu64, t, h->index, part);
    }
}

static void add_operation(maker *m, unsigned tasks) {
    unsigned t = (unsigned)below(m, tasks), what = (unsigned)below(m, 1000);
    task *of = &m->tasks[t];
    if (of->count == 0 || (of->count < CONSUMERS_MAX && what < 20)) {
        add_some_consumer(m, t);
        return;
    }
    holder *h = &of->holders[below(m, of->count)];
    if (what < 30) {
        add(m, "end %u", t);
    } else if (what < 400) {
        add(m, "acquire %u %u %" PRIu64, t, h->index, chance(m, 1) ? 0 : any_size(m, h));
    } else if (what < 700) {
        add_allocation(m, t, h);
    } else {
        add_release(m, t, h);
    }
}

/** One task with all page numbers in use, now and then. */
static void use_up_numbers(maker *m) {
    m->off_heap = false;
    add(m, "config manager=task heap=100000 storageRegion=%" PRIu64 " mode=on",
        1 + below(m, 90000));
    add(m, "consumer 0 0 on %s 8", kind_words[below(m, KINDS)]);
    add(m, "consumer 0 1 on %s 8", kind_words[below(m, KINDS)]);
    add(m, "pages 0 0 8 %" PRIu64, 8000 + below(m, 400));
    add(m, "pages 0 1 8 %" PRIu64, below(m, 400));
    for (int i = 0; i < 20; i++) {
        holder *h = &m->tasks[0].holders[below(m, 2)];
        if (chance(m, 50)) {
            add(m, "page 0 %u %" PRIu64, h->index, 1 + below(m, 30));
        } else {
            add_release(m, 0, h);
        }
    }
    add(m, "end 0");
}

static void make_part(maker *m) {
    m->count = 0;
    if (chance(m, 1)) {
        m->huge = false;
        use_up_numbers(m);
    } else {
        unsigned tasks = 1 + (unsigned)below(m, TASKS_MAX);
        int length = 50 + (int)below(m, 250);
        m->huge = chance(m, 15);
        add_config(m);
        for (int tries = 0; m->count < length && tries < 4 * length; tries++) {
            add_operation(m, tasks);
        }
    }
    for (int i = 0; i < m->count; i++) {
        fprintf(m->trace, "%s\n", m->lines[i]);
        fprintf(m->answers, "%" PRIu64 " %s -> %s\n", ++m->line, m->lines[i], m->results[i]);
    }
}

int main(int argc, char **argv) {
    static maker m;
    uint64_t wanted = argc == 4 ? strtoull(argv[2], NULL, 10) : 0, parts = 0;
    if (wanted == 0) {
        fprintf(stderr, "usage: task_trace SEED OPERATIONS FILE\n");
        return 2;
    }
    char name[4096];
    (void)snprintf(name, sizeof name, "%s.carbide", argv[3]);
    m.random = strtoull(argv[1], NULL, 10) * UINT64_C(0x2545f4914f6cdd1d);
    m.trace = fopen(argv[3], "w");
    m.answers = fopen(name, "w");
    m.results = calloc(PART_MAX, sizeof *m.results);
    must(m.trace != NULL && m.answers != NULL && m.results != NULL, "cannot write the trace");
    for (; m.line < wanted; parts++) {
        make_part(&m);
    }
    clear(&m);
    free(m.results);
    printf("%" PRIu64 " operations on %" PRIu64 " managers; %" PRIu64 " left out, in which a task "
           "would have waited\n",
           m.line, parts, m.taken_back);
    return fclose(m.trace) == 0 && fclose(m.answers) == 0 ? 0 : 2;
}
