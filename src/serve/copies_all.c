/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What concerns all blocks here, those of one copy too, of which the machine knows nothing: a data
 * set that is removed everywhere, and an executor that leaves. They are looked at a few at a time,
 * without any lock between; what comes meanwhile is the listener's business.
 */
#include <string.h>

#include "base/alloc.h"
#include "serve/copies_private.h"

enum { AT_A_TIME = 32 };

typedef struct some_block {
    cb_block_status status;
    char name[CB_BLOCK_NAME_MAX + 1];
} some_block;

typedef struct some_blocks {
    size_t count;
    some_block blocks[AT_A_TIME];
} some_blocks;

static void take(void *ctx, const cb_block_status *b, cb_level level, uint32_t readers) {
    some_blocks *some = ctx;
    (void)level;
    (void)readers;
    if (some->count < AT_A_TIME) {
        some_block *to = &some->blocks[some->count++];
        to->status = *b;
        memcpy(to->name, b->name, strlen(b->name) + 1);
    }
}

typedef cb_status (*each_fn)(cbi_copies *copies, void *ctx, const cb_block_status *block,
                             cb_error *err);

/** Until one fails. */
static cb_status for_each(cbi_copies *cp, each_fn fn, void *ctx, cb_error *err) {
    some_blocks *some = cbi_alloc(sizeof *some);
    cb_status status = CB_OK;
    uint64_t at = 0;
    if (some == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory to look at all blocks.");
    }
    do {
        some->count = 0;
        cbi_blocks_walk(cp->server->blocks, &at, sizeof some->blocks[0], sizeof some->blocks, take,
                        some);
        for (size_t i = 0; i < some->count && status == CB_OK; i++) {
            some->blocks[i].status.name = some->blocks[i].name;
            status = fn(cp, ctx, &some->blocks[i].status, err);
        }
    } while (at != 0 && status == CB_OK && !atomic_load(&cp->quit));
    cbi_free(some);
    return status;
}

/* ---- removed everywhere ---- */

typedef struct sweep {
    cb_block_task *task;
    const cbi_copy_grave *grave;
} sweep;

static cb_status sweep_one(cbi_copies *cp, void *ctx, const cb_block_status *b, cb_error *err) {
    const sweep *s = ctx;
    (void)err;
    if (b->generation <= s->grave->generation &&
        cbi_grave_covers(s->grave->kind, s->grave->number, "", cbi_cached_of(b->name))) {
        cbi_copies_end_block(cp, s->task, b->name, s->grave->generation);
    }
    return CB_OK;
}

cb_status cbi_copies_sweep(cbi_copies *cp, cb_block_task *task, const cbi_copy_grave *grave,
                           cb_error *err) {
    sweep s = {task, grave};
    return for_each(cp, sweep_one, &s, err);
}

/* ---- what is known ---- */

/** One that is being ended is still found by its name, and has told that it goes. */
static void note_generation(void *ctx, const cb_block_status *b, cb_level level, uint32_t readers) {
    (void)level;
    (void)readers;
    *(uint64_t *)ctx = (b->level & CB_LEVEL_FLAGS) != 0 ? b->generation : 0;
}

/** It was told of, but may have gone since it was looked at: then nobody has said so to the
 * machine.
 */
static void look_again(cbi_copies *cp, const cb_block_status *b) {
    uint64_t there = 0;
    (void)cbi_blocks_look(cp->server->blocks, b->name, note_generation, &there, NULL);
    if (there != b->generation) {
        cbi_copies_tell(cp, (cbi_replica_event){.kind = CBI_REPLICA_GONE,
                                                .name = b->name,
                                                .generation = b->generation});
    }
}

/* It moves what it knows. What nobody gave a generation stays. The block may be of a SET that is
 * just becoming visible, and then its client waits for PUT_DONE: so it is told as one that was put,
 * though mostly nobody waits. A copy that is being stored is told of with its ticket, by who stores
 * it. */
cb_status cbi_copies_track(cbi_copies *cp, const cb_block_status *b, bool returned, cb_error *err) {
    if (b->generation == 0) {
        return CB_OK;
    }
    cbi_mutex_lock(&cp->mutex);
    bool known = cp->stopped || cbi_replica_generation_of(cp->machine, b->name) != 0 ||
                 cbi_copies_arrival_of(cp, b) != NULL;
    cb_status status =
        known ? CB_EEXISTS : cbi_copies_step(cp, cbi_copies_stored(b, 0, returned), err);
    cbi_copies_recount(cp);
    cbi_mutex_unlock(&cp->mutex);
    if (status != CB_OK) { /* known or removed everywhere: fine */
        return status == CB_EEXISTS || status == CB_ENOTFOUND ? CB_OK : status;
    }
    look_again(cp, b);
    return CB_OK;
}

static cb_status track_returned(cbi_copies *cp, void *ctx, const cb_block_status *b,
                                cb_error *err) {
    (void)ctx;
    (void)err;
    if (cb_level_replicas(b->asked) > 1) { /* who cannot be known has no copies made, and stays */
        (void)cbi_copies_track(cp, b, true, NULL);
    }
    return CB_OK;
}

cb_status cbi_copies_returned(cbi_copies *cp, cb_error *err) {
    return for_each(cp, track_returned, NULL, err);
}

cb_status cbi_copies_found(cbi_copies *cp, const cbi_copy_arrival *arrival, const char *name,
                           uint64_t checksum, cb_error *err) {
    cb_block_status b;
    cb_status status = cb_blocks_status(cp->server->blocks, name, &b, NULL);
    if (status == CB_OK && b.generation == arrival->generation && b.checksum != checksum) {
        return cbi_fail(err, CB_EEXISTS, "There is another block %.255s of that generation.", name);
    }
    if (status == CB_OK) {
        b.name = name;
        cbi_copies_note(cp, &b);
        look_again(cp, &b);
    }
    return status == CB_OK && cbi_copies_generation(cp, name) == arrival->generation
               ? CB_OK
               : cbi_fail(err, CB_EBUDGET, "Block %.255s cannot be looked after here.", name);
}

/* ---- leaving ---- */

static cb_status track_one(cbi_copies *cp, void *ctx, const cb_block_status *b, cb_error *err) {
    (void)ctx;
    if (cbi_cached_is(b->name)) {
        return CB_OK;
    }
    return cbi_copies_track(cp, b, false, err);
}

cb_status cbi_copies_track_all(cbi_copies *cp, cb_error *err) {
    cbi_mutex_lock(&cp->mutex);
    cp->untracked = false; /* what is put from here on, and cannot be known, says so again */
    cbi_mutex_unlock(&cp->mutex);
    cb_status status = for_each(cp, track_one, NULL, err);
    if (status != CB_OK) {
        cbi_mutex_lock(&cp->mutex);
        cp->untracked = true;
        cbi_mutex_unlock(&cp->mutex);
    }
    return status;
}

cb_status cbi_copies_leave(cbi_copies *cp, cb_error *err) {
    cbi_mutex_lock(&cp->mutex);
    cp->leavers++;
    atomic_store(&cp->leaving, true); /* whatever is put from here on is known to it */
    cbi_mutex_unlock(&cp->mutex);
    cb_status status = cbi_copies_track_all(cp, err);
    cbi_mutex_lock(&cp->mutex);
    cp->leavers--;
    if (status == CB_OK) {
        cp->draining = true;
        (void)cbi_copies_step(cp, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION}, NULL);
    } else if (!cp->draining && cp->leavers == 0) { /* it stays, with all its blocks */
        atomic_store(&cp->leaving, false);
        cp->untracked = false;
    }
    cbi_mutex_unlock(&cp->mutex);
    return status;
}
