/* SPDX-License-Identifier: Apache-2.0 */
#include "net/cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sys.h"

enum { LOOK_S = 2, WALK_BLOCKS = 64 };

/** The data set, broadcast or shuffle that a block is a part of. */
static void set_of(const char *block, char name[CBI_CLUSTER_SET_NAME_MAX + 1]) {
    cb_block_id id = {.kind = CB_BLOCK_OTHER};
    const char *kind = NULL;
    if (cb_block_id_parse(block, &id, NULL) == CB_OK) {
        kind = id.kind == CB_BLOCK_RDD                                               ? "rdd"
               : id.kind == CB_BLOCK_BROADCAST                                       ? "broadcast"
               : id.kind >= CB_BLOCK_SHUFFLE && id.kind <= CB_BLOCK_SHUFFLE_CHECKSUM ? "shuffle"
                                                                                     : NULL;
    }
    if (kind == NULL) {
        memcpy(name, "other blocks", sizeof "other blocks");
        return;
    }
    (void)snprintf(name, CBI_CLUSTER_SET_NAME_MAX + 1, "%s_%llu", kind,
                   (unsigned long long)id.numbers[0]);
}

static void add(cbi_cluster_sum *sum, const cb_place *place) {
    sum->copies++;
    sum->memory_bytes += place->memory_bytes;
    sum->disk_bytes += place->disk_bytes;
}

static cbi_cluster_set *find_set(cbi_cluster *c, const char *name, cb_level level) {
    for (size_t i = c->set_count; i-- > 0;) {
        if (strcmp(c->sets[i].name, name) == 0) {
            return &c->sets[i];
        }
    }
    if (c->set_count == CBI_CLUSTER_SETS) {
        return NULL;
    }
    cbi_cluster_set *set = &c->sets[c->set_count++];
    *set = (cbi_cluster_set){.level = level};
    (void)snprintf(set->name, sizeof set->name, "%s", name);
    return set;
}

static void note_block(void *ctx, const char *block, const cb_place *place) {
    cbi_cluster *c = ctx;
    char name[CBI_CLUSTER_SET_NAME_MAX + 1];
    if (c->looked == CBI_CLUSTER_LOOKS) {
        c->cut = true;
        return;
    }
    c->looked++;
    set_of(block, name);
    add(&c->levels[place->level & CB_LEVEL_FLAGS], place);
    cbi_cluster_set *set = find_set(c, name, place->level);
    if (set != NULL) {
        add(&set->sum, place);
        set->at[c->current / 64] |= UINT64_C(1) << (c->current % 64);
    } else {
        c->sets_beyond++;
    }
    if ((c->only_set != NULL && strcmp(c->only_set, name) != 0) ||
        (c->only_executor != NULL &&
         strcmp(c->only_executor, c->executors[c->current].name) != 0)) {
        return;
    }
    c->matching++;
    if (c->block_count < CBI_CLUSTER_BLOCKS) {
        cbi_cluster_block *b = &c->blocks[c->block_count++];
        b->executor = (uint32_t)c->current;
        b->place = *place;
        (void)snprintf(b->name, sizeof b->name, "%s", block);
    }
}

static int by_name(const void *a, const void *b) {
    const cb_executor_view *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static int set_by_name(const void *a, const void *b) {
    const cbi_cluster_set *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static int block_by_name(const void *a, const void *b) {
    const cbi_cluster_block *left = a, *right = b;
    int order = strcmp(left->name, right->name);
    return order != 0 ? order
                      : (left->executor > right->executor) - (left->executor < right->executor);
}

/** false: the directory does not answer, and the problem says why. */
static bool take_executors(cbi_cluster *c, cb_redis_directory *directory, const char *name) {
    const cb_directory d = cb_redis_directory_interface(directory);
    size_t count = 0;
    if (d.peers(d.ctx, "", c->executors, CBI_CLUSTER_EXECUTORS, &count, &c->problem) != CB_OK) {
        return false;
    }
    c->executor_count = cbi_min(count, CBI_CLUSTER_EXECUTORS);
    c->executors_beyond = count - c->executor_count;
    qsort(c->executors, c->executor_count, sizeof *c->executors, by_name);
    c->self = 0;
    while (c->self < c->executor_count && strcmp(c->executors[c->self].name, name) != 0) {
        c->self++;
    }
    return true;
}

static void take_server(cbi_cluster *c, const char *name, const cb_figures *f) {
    cb_executor_view *e = &c->executors[0];
    const cb_pool_stats *execution = &f->pools[CB_EXECUTION][CB_HEAP];
    *e = (cb_executor_view){.memory_bytes = f->blocks.memory_bytes,
                            .disk_bytes = f->blocks.disk_bytes,
                            .blocks = f->blocks.blocks,
                            .memory_max = f->pools[CB_STORAGE][CB_HEAP].size + execution->free};
    (void)snprintf(e->name, sizeof e->name, "%s", name);
    c->executor_count = 1;
    c->alone = true;
}

static bool may_go_on(cbi_cluster *c, uint64_t at) {
    if (at != 0 && (c->looked == CBI_CLUSTER_LOOKS || cbi_sys_clock_ns() > c->deadline_ns)) {
        c->cut = true;
    }
    return at != 0 && !c->cut;
}

static void list_executor(cbi_cluster *c, cb_redis_directory *directory) {
    const cb_executor_view *e = &c->executors[c->current];
    uint64_t at = 0;
    do {
        if (cb_redis_directory_list(directory, e->name, e->generation, &at, note_block, c,
                                    &c->problem) != CB_OK) {
            c->cut = true;
        }
    } while (may_go_on(c, at));
}

static void list_server(cbi_cluster *c, const cb_server *server) {
    const size_t each = 1, room = WALK_BLOCKS * (each + CB_BLOCK_NAME_MAX);
    uint64_t at = 0;
    do {
        cb_server_list(server, &at, each, room, note_block, c);
    } while (may_go_on(c, at));
}

void cbi_cluster_collect(cbi_cluster *c, cb_redis_directory *directory, const cb_server *server,
                         const char *name, const cb_figures *figures, bool with_blocks) {
    const char *only_set = c->only_set, *only_executor = c->only_executor;
    memset(c, 0, sizeof *c);
    c->only_set = only_set;
    c->only_executor = only_executor;
    c->now_ns = cbi_sys_clock_ns();
    c->deadline_ns = c->now_ns + LOOK_S * UINT64_C(1000000000);
    if (directory == NULL || !take_executors(c, directory, name)) {
        take_server(c, name, figures);
    }
    if (c->alone && with_blocks) {
        list_server(c, server);
    }
    for (c->current = 0; !c->alone && with_blocks && c->current < c->executor_count; c->current++) {
        if (!c->cut) {
            list_executor(c, directory);
        }
    }
    c->current = 0;
    qsort(c->sets, c->set_count, sizeof *c->sets, set_by_name);
    qsort(c->blocks, c->block_count, sizeof *c->blocks, block_by_name);
}
