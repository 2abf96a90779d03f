/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a directory hears of a store's blocks (Spark: BlockManager.reportBlockStatus, reregister,
 * reportAllBlocks).
 *
 * Each change is reported by who made it, when it has been made and before the block is anybody
 * else's, with no lock held. A directory that answers that it does not know us (any more) is
 * entered again by the first who hears that, and told everything. Others who hear it meanwhile need
 * not wait: what they changed is in the index, and it is read only after the entering.
 *
 * Telling everything goes on beside changes and holds no lock while it tells, so what it read may
 * be old when it is told: after the block's own report of something newer. Therefore each block is
 * looked at again after it was told, and told again until it is what was said. Who changes it after
 * that look reports after it, too.
 */
#include "store/report.h"

#include <string.h>

#include "base/alloc.h"
#include "store/blocks.h"

cb_place cbi_place_of(const cb_block_status *s) {
    if (s->level == CB_LEVEL_NONE || (s->level & CB_LEVEL_FLAGS) == 0) {
        return (cb_place){.level = CB_LEVEL_NONE};
    }
    return (cb_place){.level = CB_LEVEL(s->level & CB_LEVEL_FLAGS, cb_level_replicas(s->asked)),
                      .memory_bytes = s->memory_bytes,
                      .disk_bytes = s->disk_bytes,
                      .block_generation = s->generation,
                      .checksum = s->checksum};
}

static bool is_same(const cb_place *a, const cb_place *b) {
    return a->level == b->level && a->memory_bytes == b->memory_bytes &&
           a->disk_bytes == b->disk_bytes && a->block_generation == b->block_generation &&
           a->checksum == b->checksum;
}

static cb_status report(const cb_blocks *b, uint64_t generation, const char *name,
                        const cb_place *place) {
    const cb_directory *d = &b->reporting.directory;
    return d->report(d->ctx, b->reporting.name, generation, name, place, NULL);
}

/* ---- everything ---- */

typedef struct told_block {
    cb_place place;
    char name[CB_BLOCK_NAME_MAX + 1];
} told_block;

enum { AT_A_TIME = 192 };

typedef struct batch {
    size_t count;
    told_block blocks[AT_A_TIME];
} batch;

static void collect(void *ctx, const cb_block_status *status, cb_level level, uint32_t readers) {
    batch *found = ctx;
    told_block *t = &found->blocks[found->count++];
    (void)level;
    (void)readers;
    t->place = cbi_place_of(status);
    memcpy(t->name, status->name, strlen(status->name) + 1);
}

/** Where it lies now. */
static cb_place look(cb_blocks *b, const char *name) {
    cb_block_status now = {.level = CB_LEVEL_NONE};
    bool there = cb_blocks_status(b, name, &now, NULL) == CB_OK;
    return there ? cbi_place_of(&now) : (cb_place){.level = CB_LEVEL_NONE};
}

static cb_status tell_until_right(cb_blocks *b, uint64_t generation, told_block *t) {
    for (;;) {
        CB_TRY(report(b, generation, t->name, &t->place));
        cb_place now = look(b, t->name);
        if (is_same(&now, &t->place)) {
            return CB_OK;
        }
        t->place = now;
    }
}

static cb_status tell_all(cb_blocks *b, uint64_t generation) {
    uint64_t at = 0;
    cb_status status = CB_OK;
    batch *found = cbi_alloc(sizeof *found);
    if (found == NULL) {
        return CB_ENOMEM;
    }
    do {
        found->count = 0;
        cbi_blocks_walk(b, &at, sizeof(told_block), sizeof found->blocks, collect, found);
        for (size_t i = 0; i < found->count && status == CB_OK; i++) {
            status = tell_until_right(b, generation, &found->blocks[i]);
        }
    } while (at != 0 && status == CB_OK);
    cbi_free(found);
    return status;
}

/* ---- entering ---- */

/** Somebody has to: the directory does not know `stale` any more. True: somebody else just did. */
static bool enter_again(cb_blocks *b, uint64_t stale, cb_status *answer, cb_error *err) {
    cbi_reporting *r = &b->reporting;
    cbi_lock_take(cbi_blocks_lock_of(b));
    uint64_t generation = r->generation;
    bool mine = generation == stale && !r->entering;
    r->entering = r->entering || mine;
    uint64_t missed = r->missed += mine;
    cbi_lock_give(cbi_blocks_lock_of(b));
    *answer = CB_OK;
    if (!mine) {
        return generation != stale;
    }
    *answer = r->directory.enter(r->directory.ctx, &r->entry, &generation, err);
    cbi_lock_take(cbi_blocks_lock_of(b));
    r->entering = false;
    if (*answer == CB_OK) {
        r->generation = generation;
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (*answer == CB_OK && tell_all(b, generation) == CB_OK) {
        cbi_lock_take(cbi_blocks_lock_of(b));
        r->made_up = r->generation == generation ? missed : r->made_up;
        cbi_lock_give(cbi_blocks_lock_of(b));
    }
    return false;
}

static uint64_t generation_of(cb_blocks *b, bool *behind) {
    cbi_lock_take(cbi_blocks_lock_of(b));
    uint64_t generation = b->reporting.generation;
    *behind = b->reporting.missed != b->reporting.made_up;
    cbi_lock_give(cbi_blocks_lock_of(b));
    return generation;
}

void cbi_report_change(cb_blocks *b, const cb_block_status *status) {
    const cb_place place = cbi_place_of(status);
    cb_status answer = CB_ENOTFOUND;
    bool behind = false, again = true;
    while (b->reporting.on && answer == CB_ENOTFOUND && again) {
        uint64_t generation = generation_of(b, &behind);
        if (generation == 0) {
            return; /* what was kept is told when it enters */
        }
        answer = report(b, generation, status->name, &place);
        if (answer == CB_ENOTFOUND) {
            again = enter_again(b, generation, &answer, NULL);
            answer = again ? CB_ENOTFOUND : answer;
        }
    }
    if (b->reporting.on && answer != CB_OK) {
        cbi_lock_take(cbi_blocks_lock_of(b));
        b->reporting.missed++; /* made up for by the next cb_blocks_renew */
        cbi_lock_give(cbi_blocks_lock_of(b));
    }
}

cb_status cb_blocks_renew(cb_blocks *b, cb_error *err) {
    const cb_directory *d = &b->reporting.directory;
    bool behind = false;
    if (!b->reporting.on) {
        return CB_OK;
    }
    uint64_t generation = generation_of(b, &behind);
    cb_status status =
        behind ? CB_ENOTFOUND : d->renew(d->ctx, b->reporting.name, generation, NULL);
    if (status == CB_ENOTFOUND) {
        (void)enter_again(b, generation, &status, err);
        (void)generation_of(b, &behind);
        if (status == CB_OK && behind) {
            status = cbi_fail(err, CB_EAGAIN, "The directory has not heard of all blocks yet.");
        }
    } else if (status != CB_OK) {
        status = cbi_fail(err, status, "The lease of executor %s could not be renewed.",
                          b->reporting.name);
    }
    return status;
}

/* ---- from beginning to end ---- */

typedef struct listing {
    cb_place_fn tell;
    void *ctx;
} listing;

static void list_one(void *ctx, const cb_block_status *status, cb_level level, uint32_t readers) {
    const listing *l = ctx;
    const cb_place place = cbi_place_of(status);
    (void)level;
    (void)readers;
    l->tell(l->ctx, status->name, &place);
}

static void list(void *ctx, uint64_t *at, size_t each, size_t room, cb_place_fn tell,
                 void *tell_ctx) {
    listing l = {.tell = tell, .ctx = tell_ctx};
    cbi_blocks_walk(ctx, at, each, room, list_one, &l);
}

/** A copy that ends with the store; what is too long stays so, and the directory refuses it. */
static const char *copy(char *to, size_t room, const char *from) {
    size_t bytes = from != NULL ? strnlen(from, room - 1) : 0;
    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    to[bytes] = 0;
    return to;
}

cb_status cbi_report_open(cb_blocks *b, const cb_blocks_options *o, cb_error *err) {
    cbi_reporting *r = &b->reporting;
    cb_status answer = CB_OK;
    if (o->directory == NULL) {
        return CB_OK;
    }
    if (o->executor == NULL) {
        return cbi_fail(err, CB_EINVAL, "A store that enters a directory says as whom.");
    }
    r->directory = *o->directory;
    r->entry = (cb_executor_entry){
        .name = copy(r->name, sizeof r->name, o->executor->name),
        .address = copy(r->address, sizeof r->address, o->executor->address),
        .host = copy(r->host, sizeof r->host, o->executor->host),
        .rack = copy(r->rack, sizeof r->rack, o->executor->rack),
        .memory_max = o->executor->memory_max,
        .list = list,
        .list_ctx = b,
    };
    if (r->entry.memory_max == 0) {
        r->entry.memory_max = cb_manager_storage_max(b->manager, CB_HEAP) +
                              cb_manager_storage_max(b->manager, CB_OFF_HEAP);
    }
    r->on = true;
    (void)enter_again(b, 0, &answer, err);
    r->on = answer == CB_OK;
    return answer;
}

void cbi_report_close(cb_blocks *b) {
    cbi_reporting *r = &b->reporting;
    if (r->on) {
        r->directory.leave(r->directory.ctx, r->name, r->generation);
        r->on = false;
    }
}
