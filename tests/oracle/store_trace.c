/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_trace SEED OPERATIONS TRACE ANSWERS FOLDER
 *
 * Random work on a real store of blocks: bytes and records of all sizes are put at all levels,
 * unrolled, read, locked, promoted, evicted, dropped to disk below FOLDER and removed, while
 * execution memory comes and goes. TRACE gets the operations, ANSWERS what the store did: each
 * result, the names and sizes of what was evicted in the order in which it went, and the pools.
 * StoreEngine (tests/oracle/jvm/store42) does the same with Spark's MemoryStore and
 * BlockInfoManager; the answers must be equal line by line.
 *
 * The work ends and begins anew with another manager every few hundred operations. Contents are
 * checked here, on one read in eight.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "carbide/task.h"
#include "store/blocks.h"

enum { PINS = 6, RESTS = 4, TEXT_BYTES = 1 << 16, NAME_BYTES = 32, KNOWN = 40 };

typedef struct record {
    uint32_t bytes, number;
    uint8_t payload[];
} record;

/** What makes the records of a block. The same formula stands in StoreEngine. */
typedef struct recipe {
    uint64_t seed, base;
    uint32_t count, next;
} recipe;

static uint32_t record_bytes(const recipe *r, uint32_t number) {
    uint64_t x = r->seed * UINT64_C(6364136223846793005) +
                 (number + UINT64_C(1)) * UINT64_C(1442695040888963407);
    return (uint32_t)((x >> 33) % (2 * r->base));
}

typedef struct known {
    char name[NAME_BYTES]; /* of one that was put; "": none */
    recipe made_of;        /* base 0: bytes of that `seed`, `count` of them */
} known;

typedef struct world {
    uint64_t random;
    FILE *trace, *answers;
    const char *folder;
    uint64_t line;
    cb_manager *manager;
    cb_blocks *blocks;
    cb_block_task *holder;
    cb_task *task;
    cb_consumer *consumers[CB_MODE_COUNT];
    cb_record_class class, sampled;
    cb_store store;
    cb_block_ref pins[PINS];
    cb_block_rest *rests[RESTS];
    bool rest_of_records[RESTS];
    recipe rest_recipes[RESTS]; /* sources outlive the put */
    known known[KNOWN];
    char result[64], evicted[TEXT_BYTES];
    size_t evicted_bytes;
    int64_t alive;
    uint64_t heap;
    bool has_off_heap, off_heap_execution;
} world;

static void die(const char *what) {
    fprintf(stderr, "store_trace: %s\n", what);
    exit(2);
}

static void must(cb_status status, const cb_error *err) {
    if (status != CB_OK) {
        die(err->message);
    }
}

static uint64_t below(world *w, uint64_t limit) {
    w->random = w->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    uint64_t x = (w->random ^ w->random >> 29) * UINT64_C(0x9e3779b97f4a7c15);
    return limit > 0 ? (x >> 11) % limit : 0;
}

/* ---- records ---- */

static uint64_t class_size(void *ctx, const void *r) {
    (void)ctx;
    return ((const record *)r)->bytes;
}

static cb_status class_write(void *ctx, const void *any, const cb_byte_sink *sink, cb_error *err) {
    (void)ctx;
    const record *r = any;
    return sink->write(sink->ctx, r, sizeof *r + r->bytes, err);
}

static cb_status read_fully(const cb_byte_source *source, void *to, size_t count, cb_error *err) {
    for (size_t at = 0, got = 0; at < count; at += got) {
        cb_status status = source->read(source->ctx, (uint8_t *)to + at, count - at, &got, err);
        if (status != CB_OK) {
            return at == 0 || status != CB_EEND ? status : CB_EDATA;
        }
    }
    return CB_OK;
}

static record *new_record(world *w, uint32_t bytes, uint32_t number) {
    record *r = malloc(sizeof *r + bytes);
    if (r == NULL) {
        die("no memory");
    }
    r->bytes = bytes;
    r->number = number;
    memset(r->payload, (int)(number & 0xff), bytes);
    w->alive++;
    return r;
}

static cb_status class_read(void *ctx, const cb_byte_source *source, void **out, cb_error *err) {
    record head;
    CB_TRY(read_fully(source, &head, sizeof head, err));
    record *r = new_record(ctx, head.bytes, head.number);
    *out = r;
    return head.bytes > 0 ? read_fully(source, r->payload, head.bytes, err) : CB_OK;
}

static void class_destroy(void *ctx, void *r) {
    ((world *)ctx)->alive--;
    free(r);
}

typedef struct source {
    world *world;
    recipe *recipe;
} source;

static source sources[RESTS + 1];

static cb_status next_record(void *ctx, void **out, cb_error *err) {
    const source *s = ctx;
    (void)err;
    if (s->recipe->next == s->recipe->count) {
        return CB_EEND;
    }
    *out = new_record(s->world, record_bytes(s->recipe, s->recipe->next), s->recipe->next);
    s->recipe->next++;
    return CB_OK;
}

/* ---- evictions, noted ---- */

static uint64_t note_choose(void *ctx, cb_mode mode, uint64_t bytes, const void *block,
                            void **victims) {
    const world *w = ctx;
    return w->store.choose(w->store.ctx, mode, bytes, block, victims);
}

static uint64_t note_drop(void *ctx, void *victims) {
    world *w = ctx;
    for (const cbi_lru_entry *e = victims; e != NULL; e = e->next_victim) {
        int n =
            snprintf(w->evicted + w->evicted_bytes, TEXT_BYTES - w->evicted_bytes, "%s%s:%" PRIu64,
                     w->evicted_bytes > 0 ? " " : "", ((const cbi_node *)e)->name, e->bytes);
        w->evicted_bytes += (size_t)n;
    }
    return w->store.drop(w->store.ctx, victims);
}

static void note_undo(void *ctx, void *victims) {
    const world *w = ctx;
    w->store.undo(w->store.ctx, victims);
}

/* ---- writing ---- */

static void print_state(const world *w) {
    static const char *const modes[] = {"on", "off"};
    fputs(" | ", w->answers);
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_pool_stats e, s;
        cb_manager_pool(w->manager, CB_EXECUTION, (cb_mode)mode, &e);
        cb_manager_pool(w->manager, CB_STORAGE, (cb_mode)mode, &s);
        fprintf(w->answers, "%s{exec=%" PRIu64 "/%" PRIu64 " stor=%" PRIu64 "/%" PRIu64 "} ",
                modes[mode], e.used, e.size, s.used, s.size);
    }
    cb_blocks_stats stats;
    cb_blocks_stats_get(w->blocks, &stats);
    const cbi_arbiter *a = &w->manager->arbiter;
    fprintf(w->answers,
            "unroll=%" PRIu64 " blocks=%" PRIu64 " memory=%" PRIu64 " disk=%" PRIu64 "\n",
            a->unroll[0] + a->unroll[1], stats.blocks, stats.memory_blocks, stats.disk_blocks);
}

static void answer(world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void answer(world *w, const char *fmt, ...) {
    char line[512];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    fprintf(w->trace, "%s\n", line);
    fprintf(w->answers, "%" PRIu64 " %s -> %s", ++w->line, line, w->result);
    if (w->evicted_bytes > 0) {
        fprintf(w->answers, " evicted{%s}", w->evicted);
    }
    w->evicted_bytes = 0;
    print_state(w);
}

static void result(world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void result(world *w, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(w->result, sizeof w->result, fmt, args);
    va_end(args);
}

/* ---- a world ---- */

static void end_world(world *w) {
    if (w->manager == NULL) {
        return;
    }
    for (int i = 0; i < RESTS; i++) {
        cb_block_rest_close(w->rests[i]);
        w->rests[i] = NULL;
    }
    (void)cb_block_task_end(w->holder);
    (void)cb_task_end(w->task, NULL, 0);
    cb_blocks_destroy(w->blocks);
    cb_manager_destroy(w->manager);
    if (w->alive != 0) {
        die("records are left");
    }
    memset(w->pins, 0, sizeof w->pins);
    memset(w->known, 0, sizeof w->known);
    w->manager = NULL;
}

static void begin_world(world *w) {
    static const char *const fractions[] = {"0.5", "0.25", "0.75"};
    static const double values[] = {0.5, 0.25, 0.75};
    uint64_t fraction = below(w, 3);
    uint64_t heap = 2000 + below(w, UINT64_C(1) << (12 + below(w, 8)));
    uint64_t region = below(w, heap), unroll = UINT64_C(64) << below(w, 8);
    uint64_t off = below(w, 3) == 0 ? 0 : 2000 + below(w, UINT64_C(1) << (12 + below(w, 7)));
    cb_error err = {.message = ""};
    end_world(w);
    const cb_manager_options m = {.struct_size = sizeof m,
                                  .rules = CB_RULES_SPARK,
                                  .mode = CB_HEAP,
                                  .heap_bytes = heap,
                                  .off_heap_bytes = off,
                                  .heap_storage_bytes = region,
                                  .off_heap_storage_bytes =
                                      (uint64_t)((double)off * values[fraction])};
    must(cb_manager_create(&m, &w->manager, &err), &err);
    const cb_blocks_options b = {.struct_size = sizeof b,
                                 .manager = w->manager,
                                 .folder = w->folder,
                                 .sub_folders = 4,
                                 .unroll_bytes = unroll,
                                 .blocks_max = 4096};
    must(cb_blocks_create(&b, &w->blocks, &err), &err);
    must(cb_block_task_create(w->blocks, 0, 0, &w->holder, &err), &err);
    const cb_task_options t = {.struct_size = sizeof t, .id = 1};
    must(cb_task_create(w->manager, &t, &w->task, &err), &err);
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        const cb_consumer_options c = {
            .struct_size = sizeof c, .name = "stiff", .mode = (cb_mode)mode};
        must(cb_consumer_create(w->task, &c, &w->consumers[mode], &err), &err);
    }
    w->store = w->manager->store;
    const cb_store noting = {.choose = note_choose, .drop = note_drop, .undo = note_undo, .ctx = w};
    cb_manager_set_store(w->manager, &noting);
    w->heap = heap;
    w->has_off_heap = off > 0;
    result(w, "ok");
    answer(w,
           "config manager=store heap=%" PRIu64 " storageRegion=%" PRIu64 " offheap=%" PRIu64
           " storageFraction=%s spark.storage.unrollMemoryThreshold=%" PRIu64,
           heap, region, off, fractions[fraction], unroll);
}

/* ---- operations ---- */

/** "dmov": disk, memory, off-heap, values. */
static cb_level any_level(world *w, bool records, char text[8]) {
    static const char *const of_bytes[] = {"-m--", "-m--", "dm--", "dm--", "d---", "dmo-", "-mo-"};
    static const char *const of_records[] = {"-m-v", "-m-v", "dm-v", "dm-v", "-m--",
                                             "dm--", "d---", "dmo-", "-mo-"};
    uint64_t modes = w->has_off_heap ? 0 : 2;
    const char *word = records ? of_records[below(w, 9 - modes)] : of_bytes[below(w, 7 - modes)];
    memcpy(text, word, 5);
    return CB_LEVEL((word[0] == 'd' ? CB_LEVEL_ON_DISK : 0u) |
                        (word[1] == 'm' ? CB_LEVEL_IN_MEMORY : 0u) |
                        (word[2] == 'o' ? CB_LEVEL_IN_OFF_HEAP : 0u) |
                        (word[3] == 'v' ? CB_LEVEL_IS_DESERIALISED : 0u),
                    1);
}

static known *any_name(world *w, char name[NAME_BYTES]) {
    uint64_t n = below(w, KNOWN);
    if (n < 30) {
        (void)snprintf(name, NAME_BYTES, "rdd_%u_%u", (unsigned)(n % 5), (unsigned)(n / 5));
    } else if (n < 36) {
        (void)snprintf(name, NAME_BYTES, "broadcast_%u%s", (unsigned)(n / 2),
                       n % 2 ? "_piece0" : "");
    } else {
        (void)snprintf(name, NAME_BYTES, "taskresult_%u", (unsigned)n);
    }
    return &w->known[n];
}

static uint64_t any_bytes(world *w) {
    cb_pool_stats s;
    cb_manager_pool(w->manager, CB_STORAGE, below(w, 3) ? CB_HEAP : CB_OFF_HEAP, &s);
    uint64_t free_bytes = s.size - s.used;
    switch (below(w, 8)) {
        case 0: return free_bytes;
        case 1: return free_bytes + 1;
        case 2: return s.size;
        case 3: return below(w, 40);
        case 4: return below(w, w->heap);
        default: return below(w, w->heap / (1 + below(w, 16)));
    }
}

static const uint8_t *some_bytes(uint64_t count) {
    static uint8_t *bytes;
    static uint64_t room;
    if (count > room) {
        free(bytes);
        room = 2 * count;
        bytes = malloc(room);
        if (bytes == NULL) {
            die("no memory");
        }
        for (uint64_t i = 0; i < room; i++) {
            bytes[i] = (uint8_t)(i * 13);
        }
    }
    return bytes;
}

static const char *where(const world *w, const char *name, cb_status status) {
    cb_block_status s;
    if (status != CB_OK) {
        return status == CB_EEXISTS ? "exists" : status == CB_EBUDGET ? "none" : "failed";
    }
    if (cb_blocks_status(w->blocks, name, &s, NULL) != CB_OK) {
        return "lost";
    }
    return s.level & CB_LEVEL_IN_MEMORY ? "memory" : "disk";
}

static void remove_named(world *w, const char *name) {
    cb_status status = cb_blocks_remove(w->blocks, w->holder, name, NULL);
    result(w, "%s", status == CB_OK ? "true" : status == CB_EMISUSE ? "busy" : "false");
    answer(w, "remove %s", name);
}

/** One that is there makes room for others, mostly. */
static bool takes_place(world *w, const char *name) {
    cb_block_status status;
    bool there = cb_blocks_status(w->blocks, name, &status, NULL) == CB_OK;
    if (!there || below(w, 8) == 0) {
        return true;
    }
    remove_named(w, name);
    return false;
}

static void put_bytes(world *w) {
    char name[NAME_BYTES], level_word[8];
    known *k = any_name(w, name);
    if (!takes_place(w, name)) {
        return;
    }
    cb_level level = any_level(w, false, level_word);
    uint64_t count = any_bytes(w);
    cb_status status = cb_blocks_put_bytes(w->blocks, w->holder, name, level, NULL,
                                           some_bytes(count), (size_t)count, NULL, NULL);
    if (status == CB_OK) {
        *k = (known){.made_of = {.count = (uint32_t)count}};
        memcpy(k->name, name, sizeof name);
    }
    result(w, "%s", where(w, name, status));
    answer(w, "put %s %s %" PRIu64, name, level_word, count);
}

static void put_records(world *w) {
    char name[NAME_BYTES], level_word[8];
    known *k = any_name(w, name);
    if (!takes_place(w, name)) {
        return;
    }
    cb_level level = any_level(w, true, level_word);
    size_t slot = below(w, RESTS + 2);
    bool keep = slot < RESTS && w->rests[slot] == NULL;
    recipe *r = &w->rest_recipes[keep ? slot : 0];
    recipe scratch;
    r = keep ? r : &scratch;
    uint64_t total = any_bytes(w), count = 1 + below(w, below(w, 4) == 0 ? 400 : 30);
    bool sampled = below(w, 4) == 0;
    count = sampled && below(w, 4) == 0 ? 1 + below(w, 3000) : count;
    *r = (recipe){.seed = below(w, 1 << 30), .base = 1 + total / count, .count = (uint32_t)count};
    recipe as_put = *r;
    source *s = &sources[keep ? slot : RESTS];
    *s = (source){.world = w, .recipe = r};
    const cb_record_source from = {.next = next_record, .ctx = s};
    cb_status status =
        cb_blocks_put_records(w->blocks, w->holder, name, level, sampled ? &w->sampled : &w->class,
                              &from, NULL, keep ? &w->rests[slot] : NULL, NULL);
    if (keep && w->rests[slot] != NULL) {
        w->rest_of_records[slot] = level_word[3] == 'v';
    }
    if (status == CB_OK) {
        *k = (known){.made_of = as_put};
        memcpy(k->name, name, sizeof name);
    }
    result(w, "%s", where(w, name, status));
    answer(w, "%s %s %s %" PRIu64 " %" PRIu64 " %" PRIu64 " %d", sampled ? "sampled" : "records",
           name, level_word, count, as_put.base, as_put.seed, keep ? (int)slot : -1);
}

static void check_records(const cb_block_ref *ref, const recipe *r) {
    cb_block_cursor *cursor = NULL;
    cb_error err = {.message = ""};
    const void *any = NULL;
    uint32_t seen = 0;
    must(cb_block_cursor_open(ref, &cursor, &err), &err);
    cb_status status = CB_OK;
    while ((status = cb_block_cursor_next(cursor, &any, &err)) == CB_OK) {
        const record *one = any;
        if (one->number != seen || one->bytes != record_bytes(r, seen)) {
            die("a record is not what was put");
        }
        seen++;
    }
    cb_block_cursor_close(cursor);
    if (status != CB_EEND || seen != r->count) {
        die("records are missing");
    }
}

static void check_bytes(const cb_block_ref *ref, uint64_t count) {
    cb_block_reader *reader = NULL;
    cb_error err = {.message = ""};
    uint8_t piece[4096];
    uint64_t at = 0;
    size_t got = 0;
    must(cb_block_reader_open(ref, &reader, &err), &err);
    while (cb_block_reader_read(reader, piece, sizeof piece, &got, &err) == CB_OK) {
        if (at + got > count || memcmp(piece, some_bytes(count) + at, got) != 0) {
            die("bytes are not what was put");
        }
        at += got;
    }
    cb_block_reader_close(reader);
    if (at != count) {
        die("bytes are missing");
    }
}

static void get(world *w) {
    char name[NAME_BYTES];
    const known *k = any_name(w, name);
    cb_block_status before = {.level = CB_LEVEL_NONE};
    cb_status there = cb_blocks_status(w->blocks, name, &before, NULL);
    cb_block_ref ref;
    cb_status status = cb_blocks_get(w->blocks, w->holder, name, &ref, NULL);
    if ((status == CB_OK) != (there == CB_OK)) {
        die("a block is listed and not there, or the reverse");
    }
    if (status != CB_OK) {
        result(w, "none");
    } else {
        result(w, "%s",
               before.level & CB_LEVEL_IN_MEMORY ? "memory"
               : ref.in_memory                   ? "promoted"
                                                 : "disk");
        if (below(w, 8) == 0 && k->made_of.base > 0) {
            check_records(&ref, &k->made_of);
        } else if (below(w, 8) == 0 && k->made_of.base == 0) {
            check_bytes(&ref, k->made_of.count);
        }
        cb_block_release(&ref);
    }
    answer(w, "get %s", name);
}

static void pin_or_unpin(world *w) {
    char name[NAME_BYTES];
    size_t slot = below(w, PINS);
    if (w->pins[slot].block != NULL) {
        cb_block_release(&w->pins[slot]);
        result(w, "ok");
        answer(w, "unpin %zu", slot);
        return;
    }
    (void)any_name(w, name);
    cb_status status =
        cb_blocks_lock(w->blocks, w->holder, name, false, false, &w->pins[slot], NULL);
    result(w, "%s", status == CB_OK ? "true" : "false");
    answer(w, "pin %s %zu", name, slot);
}

static void remove_set(world *w) {
    uint64_t set = below(w, 5), count = 0;
    for (size_t i = 0; i < PINS; i++) { /* nothing may be locked */
        if (w->pins[i].block != NULL) {
            cb_block_release(&w->pins[i]);
            result(w, "ok");
            answer(w, "unpin %zu", i);
        }
    }
    cb_error err = {.message = ""};
    must(cb_blocks_remove_data_set(w->blocks, w->holder, (uint32_t)set, &count, &err), &err);
    result(w, "%" PRIu64, count);
    answer(w, "removeSet %" PRIu64, set);
}

static void execution(world *w) {
    cb_mode mode = w->has_off_heap && below(w, 3) == 0 ? CB_OFF_HEAP : CB_HEAP;
    const char *word = mode == CB_HEAP ? "on" : "off";
    uint64_t held = cb_consumer_used(w->consumers[mode]), granted = 0;
    if (held > 0 && below(w, 2) == 0) {
        uint64_t bytes = below(w, 2) == 0 ? held : 1 + below(w, held);
        cb_consumer_release(w->consumers[mode], bytes);
        result(w, "ok");
        answer(w, "free %" PRIu64 " %s", bytes, word);
        return;
    }
    uint64_t bytes = 1 + any_bytes(w);
    cb_error err = {.message = ""};
    must(cb_consumer_acquire(w->consumers[mode], bytes, &granted, &err), &err);
    result(w, "%" PRIu64, granted);
    answer(w, "exec %" PRIu64 " %s", bytes, word);
}

static void use_rest(world *w) {
    size_t slot = below(w, RESTS);
    if (w->rests[slot] == NULL) {
        return;
    }
    if (!w->rest_of_records[slot] || below(w, 3) == 0) {
        cb_block_rest_close(w->rests[slot]);
        w->rests[slot] = NULL;
        result(w, "ok");
        answer(w, "close %zu", slot);
        return;
    }
    uint64_t wanted = 1 + below(w, 50), taken = 0;
    void *any = NULL;
    while (taken < wanted && cb_block_rest_next(w->rests[slot], &any, NULL) == CB_OK) {
        class_destroy(w, any);
        taken++;
    }
    result(w, "%" PRIu64, taken);
    answer(w, "next %zu %" PRIu64, slot, wanted);
}

static void step(world *w) {
    uint64_t what = below(w, 1000);
    if (what < 230) {
        put_bytes(w);
    } else if (what < 460) {
        put_records(w);
    } else if (what < 690) {
        get(w);
    } else if (what < 740) {
        pin_or_unpin(w);
    } else if (what < 745) {
        remove_set(w);
    } else if (what < 900) {
        execution(w);
    } else {
        use_rest(w);
    }
}

int main(int argc, char **argv) {
    static world w;
    if (argc != 6) {
        fprintf(stderr, "usage: store_trace SEED OPERATIONS TRACE ANSWERS FOLDER\n");
        return 2;
    }
    w.random = strtoull(argv[1], NULL, 10) * UINT64_C(0x2545f4914f6cdd1d) + 1;
    w.trace = fopen(argv[3], "w");
    w.answers = fopen(argv[4], "w");
    w.folder = argv[5];
    if (w.trace == NULL || w.answers == NULL) {
        die("the trace or the answers cannot be written");
    }
    w.class = (cb_record_class){.struct_size = sizeof w.class,
                                .size = class_size,
                                .write = class_write,
                                .read = class_read,
                                .destroy = class_destroy,
                                .ctx = &w};
    w.sampled = w.class;
    w.sampled.sampled = true;
    uint64_t wanted = strtoull(argv[2], NULL, 10), next = 0;
    while (w.line < wanted) {
        if (w.line >= next) {
            begin_world(&w);
            next = w.line + 200 + below(&w, 800);
        }
        step(&w);
    }
    end_world(&w);
    printf("%" PRIu64 " operations\n", w.line);
    return fclose(w.trace) != 0 || fclose(w.answers) != 0 ? 2 : 0;
}
