/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server as one of many: what the directory hears of its blocks. It is told by whoever changes a
 * block, in the store's listener, which waits for nobody; a directory that lost what it was told
 * asks for all of it (cb_executor_entry.list). The same listener tells copies.c.
 */
#include <stdio.h>
#include <string.h>

#include "serve/serve.h"

enum { STEPS_A_US = 1024 }; /* of generations, so that two executors seldom make the same */

uint64_t cbi_server_generation(cb_server *s) {
    uint64_t now = cbi_sys_time_ns() / 1000 * STEPS_A_US;
    now += cbi_index_hash(s->me.name, strlen(s->me.name)) % STEPS_A_US;
    uint64_t last = atomic_load(&s->last_generation), next = 0;
    do {
        next = now > last ? now : last + 1;
    } while (!atomic_compare_exchange_weak(&s->last_generation, &last, next));
    return next;
}

bool cbi_server_believes(uint64_t generation) {
    const uint64_t day_us = UINT64_C(86400) * 1000 * 1000;
    return generation <= (cbi_sys_time_ns() / 1000 + day_us) * STEPS_A_US;
}

void cbi_server_heard_of(cb_server *s, uint64_t generation) {
    uint64_t last = atomic_load(&s->last_generation);
    while (generation > last && cbi_server_believes(generation) &&
           !atomic_compare_exchange_weak(&s->last_generation, &last, generation)) {
    }
}

static cb_place place_of(const cb_block_status *b) {
    unsigned copies = b->level != CB_LEVEL_NONE ? cb_level_replicas(b->asked) : 1;
    return (cb_place){.level = CB_LEVEL(b->level & CB_LEVEL_FLAGS, copies),
                      .memory_bytes = b->memory_bytes,
                      .disk_bytes = b->disk_bytes,
                      .block_generation = b->generation,
                      .checksum = b->checksum};
}

void cbi_executor_note(void *ctx, const cb_block_status *b) {
    const cb_server *s = ctx;
    const cb_place place = place_of(b);
    if (cbi_cached_is(b->name)) {
        return; /* nobody counts upon it */
    }
    if (s->copies != NULL) {
        cbi_copies_note(s->copies, b);
        cbi_copies_claims_note(s->copies, b);
    }
    if (s->me.generation == 0) {
        return; /* what was kept is told when it enters */
    }
    if (s->directory.report(s->directory.ctx, s->me.name, s->me.generation, b->name, &place,
                            NULL) != CB_OK) {
        return; /* it will ask for everything */
    }
}

typedef struct listing {
    cb_place_fn tell;
    void *ctx;
} listing;

static void list_one(void *ctx, const cb_block_status *b, cb_level level, uint32_t readers) {
    const listing *l = ctx;
    const cb_place place = place_of(b);
    (void)level;
    (void)readers;
    if (!cbi_cached_is(b->name)) {
        l->tell(l->ctx, b->name, &place);
    }
}

void cb_server_list(const cb_server *s, uint64_t *at, size_t each, size_t room, cb_place_fn tell,
                    void *tell_ctx) {
    listing l = {.tell = tell, .ctx = tell_ctx};
    cbi_blocks_walk(s->blocks, at, each, room, list_one, &l);
}

static void list(void *ctx, uint64_t *at, size_t each, size_t room, cb_place_fn tell,
                 void *tell_ctx) {
    cb_server_list(ctx, at, each, room, tell, tell_ctx);
}

cb_status cbi_executor_prepare(cb_server *s, const cb_server_options *o, cb_error *err) {
    if (o->cache_remote && o->directory == NULL) {
        return cbi_fail(err, CB_EINVAL, "Who has no directory has no blocks of other executors.");
    }
    if (o->directory == NULL) {
        return CB_OK;
    }
    if (o->listen == NULL) {
        return cbi_fail(err, CB_EINVAL, "An executor must listen at an address for the others.");
    }
    cbi_sys_address at;
    bool anywhere = cbi_sys_address_parse(o->listen, &at) == 0 && at.anywhere;
    if (anywhere && o->advertise == NULL) {
        return cbi_fail(err, CB_EINVAL,
                        "An executor that listens at every address must say (advertise) at which "
                        "one others reach it.");
    }
    if (o->advertise != NULL &&
        (cbi_sys_address_parse(o->advertise, &at) < 0 || at.anywhere || at.port == 0)) {
        return cbi_fail(err, CB_EINVAL,
                        "\"%.80s\" is no address at which others reach an executor (advertise): "
                        "it wants ADDRESS:PORT with ADDRESS in digits, not every address (0.0.0.0, "
                        "[::]), and a port from 1 on.",
                        o->advertise);
    }
    s->directory = *o->directory;
    s->cache_remote = o->cache_remote;
    return CB_OK;
}

static void hear_of(void *ctx, const cb_block_status *b, cb_level level, uint32_t readers) {
    (void)level;
    (void)readers;
    cbi_server_heard_of(ctx, b->generation);
}

/* Blocks that were kept have generations of a clock that may have been ahead of today's. By more
 * than a day: nobody else takes a copy of such a block. */
static void hear_of_kept(cb_server *s) {
    uint64_t at = 0;
    do {
        cbi_blocks_walk(s->blocks, &at, CBI_ENTRY_BYTES, CBI_STREAM_BYTES, hear_of, s);
    } while (at != 0);
}

cb_status cbi_executor_enter(cb_server *s, const cb_server_options *o, cb_error *err) {
    char address[CBI_SYS_ADDRESS_MAX + 16];
    if (!cbi_server_is_executor(s)) {
        return CB_OK;
    }
    (void)snprintf(address, sizeof address, s->address.v6 ? "[%s]:%u" : "%s:%u", s->address.host,
                   (unsigned)s->address.port);
    const cb_executor_entry entry = {.name = o->name != NULL ? o->name : address,
                                     .address = o->advertise != NULL ? o->advertise : address,
                                     .host = o->host,
                                     .rack = o->rack,
                                     .memory_max = cb_manager_storage_max(s->manager, CB_HEAP),
                                     .list = list,
                                     .list_ctx = s};
    uint64_t generation = 0;
    CB_TRY(s->directory.enter(s->directory.ctx, &entry, &generation, err));
    (void)snprintf(s->me.name, sizeof s->me.name, "%s", entry.name);
    (void)snprintf(s->me.address, sizeof s->me.address, "%s", entry.address);
    s->me.generation = generation;
    hear_of_kept(s);
    CB_TRY(cbi_copies_create(s, &entry, &s->copies, err));
    return cbi_copies_start(s->copies, err);
}

void cbi_executor_leave(cb_server *s) {
    if (s->me.generation != 0) {
        s->directory.leave(s->directory.ctx, s->me.name, s->me.generation);
    }
}
