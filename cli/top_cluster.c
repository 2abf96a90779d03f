/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The master's view in a terminal. Executors' sums are what they report themselves. What
 * there is of blocks is counted here from their lists, up to 20,000 copies or for two seconds, and
 * the view says so when there are more: then nothing is said of blocks that are short of copies,
 * for those that were not looked at would be.
 */
#include "top_cluster.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "carbide/block.h"
#include "carbide/level.h"
#include "options.h"
#include "text.h"

#ifdef CARBIDE_HAVE_NET
#include "carbide/redis_directory.h"

enum { EXECUTORS = 128, COPIES = 20000, SETS = 200, SET_NAME = 48, SHORT = 8, LOOK_S = 2 };

typedef struct copy {
    uint64_t generation;
    uint32_t hash, wanted;
    char name[48]; /* its beginning */
} copy;

typedef struct data_set {
    char name[SET_NAME];
    uint64_t copies, memory_bytes, disk_bytes;
} data_set;

static struct {
    cb_redis_directory *directory;
    cb_executor_view executors[EXECUTORS];
    size_t executor_count, executors_there;
    uint64_t now_ns;
    copy copies[COPIES];
    size_t copy_count;
    bool cut; /* there are more */
    data_set sets[SETS];
    size_t set_count;
    uint64_t blocks, short_blocks, short_copies;
    const copy *shorts[SHORT]; /* the first of those that are */
    uint64_t lacking[SHORT];
} seen;

static uint64_t clock_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int cli_top_cluster_begin(const char *url) {
    cb_error err;
    const cb_redis_directory_options o = {.struct_size = sizeof o, .url = url};
    cb_status status = cb_redis_directory_create(&o, &seen.directory, &err);
    if (status == CB_OK)
        return CLI_EXIT_OK;
    cli_complain("%s", err.message);
    return cli_exit_code(status);
}

void cli_top_cluster_end(void) {
    cb_redis_directory_destroy(seen.directory);
    seen.directory = NULL;
}

/* ---- looking ---- */

/** The data set, broadcast or shuffle that a block is a part of. */
static void set_of(const char *block, char name[SET_NAME]) {
    cb_block_id id = {.kind = CB_BLOCK_OTHER};
    const char *kind = NULL;
    if (cb_block_id_parse(block, &id, NULL) == CB_OK)
        kind = id.kind == CB_BLOCK_RDD                                               ? "rdd"
               : id.kind == CB_BLOCK_BROADCAST                                       ? "broadcast"
               : id.kind >= CB_BLOCK_SHUFFLE && id.kind <= CB_BLOCK_SHUFFLE_CHECKSUM ? "shuffle"
                                                                                     : NULL;
    if (kind == NULL)
        (void)snprintf(name, SET_NAME, "other blocks");
    else
        (void)snprintf(name, SET_NAME, "%s_%" PRIu64, kind, (uint64_t)id.numbers[0]);
}

static void add_to_set(const char *block, const cb_place *place) {
    char name[SET_NAME];
    set_of(block, name);
    size_t i = 0;
    while (i < seen.set_count && strcmp(seen.sets[i].name, name) != 0)
        i++;
    if (i == SETS)
        return;
    if (i == seen.set_count) {
        seen.sets[i] = (data_set){.copies = 0};
        (void)snprintf(seen.sets[i].name, SET_NAME, "%s", name);
        seen.set_count++;
    }
    seen.sets[i].copies++;
    seen.sets[i].memory_bytes += place->memory_bytes;
    seen.sets[i].disk_bytes += place->disk_bytes;
}

static void note(void *ctx, const char *block, const cb_place *place) {
    (void)ctx;
    if (seen.copy_count == COPIES) {
        seen.cut = true;
        return;
    }
    copy *c = &seen.copies[seen.copy_count++];
    *c = (copy){.generation = place->block_generation,
                .hash = 2166136261,
                .wanted = cb_level_replicas(place->level)};
    for (const char *at = block; *at != '\0'; at++)
        c->hash = (c->hash ^ (uint8_t)*at) * 16777619;
    (void)snprintf(c->name, sizeof c->name, "%s", block);
    add_to_set(block, place);
}

/** Copies of one block side by side, those of its newest generation first. */
static int by_block(const void *a, const void *b) {
    const copy *left = a, *right = b;
    int order = strcmp(left->name, right->name);
    if (order == 0)
        order = (left->hash > right->hash) - (left->hash < right->hash);
    return order != 0
               ? order
               : (right->generation > left->generation) - (right->generation < left->generation);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const cb_executor_view *)a)->name, ((const cb_executor_view *)b)->name);
}

static int set_by_name(const void *a, const void *b) {
    return strcmp(((const data_set *)a)->name, ((const data_set *)b)->name);
}

/** Blocks, and what they lack. */
static void count_blocks(void) {
    qsort(seen.copies, seen.copy_count, sizeof *seen.copies, by_block);
    for (size_t i = 0, next = 0; i < seen.copy_count; i = next) {
        const copy *c = &seen.copies[i];
        uint64_t there = 0;
        for (next = i; next < seen.copy_count && seen.copies[next].hash == c->hash &&
                       strcmp(seen.copies[next].name, c->name) == 0;
             next++)
            there += seen.copies[next].generation == c->generation;
        seen.blocks++;
        if (there >= c->wanted)
            continue;
        if (seen.short_blocks < SHORT) {
            seen.shorts[seen.short_blocks] = c;
            seen.lacking[seen.short_blocks] = c->wanted - there;
        }
        seen.short_blocks++;
        seen.short_copies += c->wanted - there;
    }
}

cb_status cli_top_cluster_look(cb_error *err) {
    const cb_directory d = cb_redis_directory_interface(seen.directory);
    size_t count = 0;
    uint64_t until_ns = clock_ns() + LOOK_S * UINT64_C(1000000000);
    cb_status status = d.peers(d.ctx, "", seen.executors, EXECUTORS, &count, err);
    if (status != CB_OK)
        return status;
    seen.executors_there = count;
    seen.executor_count = count < EXECUTORS ? count : EXECUTORS;
    seen.copy_count = seen.set_count = 0;
    seen.blocks = seen.short_blocks = seen.short_copies = 0;
    seen.cut = count >= EXECUTORS; /* it tells no more than so many */
    qsort(seen.executors, seen.executor_count, sizeof *seen.executors, by_name);
    for (size_t i = 0; i < seen.executor_count && status == CB_OK; i++) {
        uint64_t at = 0;
        do {
            status = cb_redis_directory_list(seen.directory, seen.executors[i].name,
                                             seen.executors[i].generation, &at, note, NULL, err);
            seen.cut = seen.cut || clock_ns() > until_ns;
        } while (status == CB_OK && at != 0 && !seen.cut);
    }
    seen.now_ns = clock_ns();
    qsort(seen.sets, seen.set_count, sizeof *seen.sets, set_by_name);
    count_blocks();
    return status;
}

/* ---- showing ---- */

static double lease_s(const cb_executor_view *e) {
    return e->lease_ns > seen.now_ns ? (double)(e->lease_ns - seen.now_ns) / 1e9 : 0;
}

static void draw_executors(cli_frame *f) {
    char a[16], b[16], c[16];
    cli_frame_line(f, "%-14s %-21s %-10s %9s %9s %5s %9s %8s %6s", "executor", "address", "host",
                   "memory", "of", "", "disk", "blocks", "lease");
    for (size_t i = 0; i < seen.executor_count; i++) {
        const cb_executor_view *e = &seen.executors[i];
        double part =
            e->memory_max > 0 ? 100.0 * (double)e->memory_bytes / (double)e->memory_max : 0;
        cli_frame_line(f, "%-14.14s %-21.21s %-10.10s %9s %9s %4.0f%% %9s %8" PRIu64 " %5.1fs",
                       e->name, e->address, e->host, cli_frame_size(e->memory_bytes, a),
                       cli_frame_size(e->memory_max, b), part, cli_frame_size(e->disk_bytes, c),
                       e->blocks, lease_s(e));
    }
}

static void draw_short(cli_frame *f) {
    if (seen.cut) {
        cli_frame_line(f, "there are more copies than were looked at: nothing is known of blocks "
                          "that lack some");
        return;
    }
    cli_frame_line(f, "short of copies: %" PRIu64 " blocks, which lack %" PRIu64 " copies",
                   seen.short_blocks, seen.short_copies);
    for (uint64_t i = 0; i < seen.short_blocks && i < SHORT; i++)
        cli_frame_line(f, "  %-48s lacks %" PRIu64 " of %u", seen.shorts[i]->name, seen.lacking[i],
                       (unsigned)seen.shorts[i]->wanted);
    if (seen.short_blocks > SHORT)
        cli_frame_line(f, "  ...");
}

void cli_top_cluster_draw(cli_frame *f) {
    char a[16], b[16], c[16];
    uint64_t memory = 0, room = 0, disk = 0, copies = 0;
    for (size_t i = 0; i < seen.executor_count; i++) {
        memory += seen.executors[i].memory_bytes;
        room += seen.executors[i].memory_max;
        disk += seen.executors[i].disk_bytes;
        copies += seen.executors[i].blocks;
    }
    cli_frame_line(f, "carbide top: %zu executors, memory %s of %s, disk %s", seen.executors_there,
                   cli_frame_size(memory, a), cli_frame_size(room, b), cli_frame_size(disk, c));
    cli_frame_line(f, "%" PRIu64 "%s blocks in %" PRIu64 " copies", seen.blocks,
                   seen.cut ? " or more" : "", copies);
    draw_executors(f);
    draw_short(f);
    if (seen.set_count > 0)
        cli_frame_line(f, "%-48s %9s %9s %9s", "data set", "copies", "memory", "disk");
    for (size_t i = 0; i < seen.set_count; i++) {
        const data_set *s = &seen.sets[i];
        cli_frame_line(f, "%-48s %9" PRIu64 " %9s %9s", s->name, s->copies,
                       cli_frame_size(s->memory_bytes, a), cli_frame_size(s->disk_bytes, b));
    }
}

static void tell_executor(cli_text *json, const cb_executor_view *e) {
    cli_json_open(json, NULL, '{');
    cli_json_string(json, "name", e->name);
    cli_json_string(json, "address", e->address);
    cli_json_string(json, "host", e->host);
    cli_json_string(json, "rack", e->rack);
    cli_json_uint(json, "memory", e->memory_bytes);
    cli_json_uint(json, "memory_max", e->memory_max);
    cli_json_uint(json, "disk", e->disk_bytes);
    cli_json_uint(json, "blocks", e->blocks);
    cli_json_real(json, "lease", lease_s(e), 3);
    cli_json_close(json, '}');
}

int cli_top_cluster_tell(void) {
    static char text[512 * 1024]; /* executors and sets are so many at most */
    cli_text json;
    cli_text_init(&json, text, sizeof text);
    cli_json_open(&json, NULL, '{');
    cli_json_open(&json, "executors", '[');
    for (size_t i = 0; i < seen.executor_count; i++)
        tell_executor(&json, &seen.executors[i]);
    cli_json_close(&json, ']');
    cli_json_uint(&json, "blocks", seen.blocks);
    cli_json_uint(&json, "copies", seen.copy_count);
    cli_json_bool(&json, "more", seen.cut);
    if (seen.cut) {
        cli_json_null(&json, "short_blocks");
        cli_json_null(&json, "short_copies");
    } else {
        cli_json_uint(&json, "short_blocks", seen.short_blocks);
        cli_json_uint(&json, "short_copies", seen.short_copies);
    }
    cli_json_open(&json, "sets", '[');
    for (size_t i = 0; i < seen.set_count; i++) {
        cli_json_open(&json, NULL, '{');
        cli_json_string(&json, "name", seen.sets[i].name);
        cli_json_uint(&json, "copies", seen.sets[i].copies);
        cli_json_uint(&json, "memory", seen.sets[i].memory_bytes);
        cli_json_uint(&json, "disk", seen.sets[i].disk_bytes);
        cli_json_close(&json, '}');
    }
    cli_json_close(&json, ']');
    cli_json_close(&json, '}');
    cli_text_add(&json, "\n");
    return cli_print(text);
}

#else

int cli_top_cluster_begin(const char *url) {
    (void)url;
    return cli_usage_error("top", "--directory is not there: carbide was built without hiredis");
}

void cli_top_cluster_end(void) {}

cb_status cli_top_cluster_look(cb_error *err) {
    (void)err;
    return CB_EUNSUPPORTED;
}

void cli_top_cluster_draw(cli_frame *frame) {
    (void)frame;
}

int cli_top_cluster_tell(void) {
    return CLI_EXIT_TROUBLE;
}

#endif
