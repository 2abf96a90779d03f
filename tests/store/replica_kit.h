/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_REPLICA_KIT_H
#define CARBIDE_REPLICA_KIT_H

/* What test_replica.c does again and again to one executor's machine. */
#include "store/replica.h"

#include <stdio.h>
#include <string.h>

#include "support/test.h"

enum { ACTIONS = 16 };

#define SECOND UINT64_C(1000000000)

typedef struct kit {
    cbi_replica *r;
    uint64_t now_ns;
    cbi_replica_action actions[ACTIONS];
    size_t count;
    uint64_t hold;       /* steps want no SEND to these */
    uint64_t asked[128]; /* the number of the last SEND to each, by the first letter of his name */
} kit;

/** "me", if it has no other name. */
static inline void open_kit_with(kit *k, cbi_replica_options options) {
    *k = (kit){.now_ns = SECOND};
    options.name = options.name != NULL ? options.name : "me";
    options.host = "h0";
    options.rack = "r0";
    options.wall_ms = 1000;
    options.now_ns = k->now_ns;
    options.room_bytes = 1000;
    assert_ok(cbi_replica_create(&options, &k->r, NULL));
}

/** One that remembers four removals. */
static inline void open_kit_for(kit *k, const char *name, uint32_t blocks_max) {
    open_kit_with(k,
                  (cbi_replica_options){.name = name, .blocks_max = blocks_max, .graves_max = 4});
}

static inline void open_kit(kit *k, const char *name) {
    open_kit_for(k, name, 8);
}

static inline cb_status step(kit *k, cbi_replica_event event) {
    event.now_ns = k->now_ns;
    event.hold = k->hold;
    cb_status status = cbi_replica_step(k->r, &event, k->actions, ACTIONS, &k->count, NULL);
    for (size_t i = 0; i < k->count; i++) {
        if (k->actions[i].kind == CBI_REPLICA_SEND) {
            k->asked[k->actions[i].peer[0] & 127] = k->actions[i].sequence;
        }
    }
    return status;
}

static inline void pass(kit *k, uint64_t ns) {
    k->now_ns += ns;
    assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_TICK}));
}

/** The n-th action of that kind; NULL: there are fewer. */
static inline const cbi_replica_action *wanted(const kit *k, cbi_replica_action_kind kind,
                                               size_t n) {
    for (size_t i = 0; i < k->count; i++) {
        if (k->actions[i].kind == kind && n-- == 0) {
            return &k->actions[i];
        }
    }
    return NULL;
}

static inline const cbi_replica_action *want(const kit *k, cbi_replica_action_kind kind) {
    const cbi_replica_action *a = wanted(k, kind, 0);
    assert_non_null(a);
    return a;
}

/** To whom the first copy is offered, and his generation. */
static inline uint64_t asks(const kit *k, char name[32]) {
    const cbi_replica_action *a = want(k, CBI_REPLICA_SEND);
    (void)snprintf(name, 32, "%s", a->peer);
    return a->peer_generation;
}

static inline void want_none(const kit *k, cbi_replica_action_kind kind) {
    assert_null(wanted(k, kind, 0));
}

static inline cb_executor_view peer(const char *name, const char *host, const char *rack,
                                    uint64_t generation) {
    cb_executor_view v = {.generation = generation, .memory_max = 1000};
    (void)snprintf(v.name, sizeof v.name, "%s", name);
    (void)snprintf(v.host, sizeof v.host, "%s", host);
    (void)snprintf(v.rack, sizeof v.rack, "%s", rack);
    return v;
}

static inline void see(kit *k, const cb_executor_view *views, size_t count) {
    assert_ok(
        step(k, (cbi_replica_event){.kind = CBI_REPLICA_PEERS, .views = views, .count = count}));
}

static inline void enter(kit *k, uint64_t generation) {
    assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_ENTERED, .generation = generation}));
}

static inline cb_status put(kit *k, const char *name, uint64_t generation, uint32_t copies) {
    return step(k, (cbi_replica_event){.kind = CBI_REPLICA_STORED,
                                       .name = name,
                                       .generation = generation,
                                       .checksum = 7,
                                       .bytes = 100,
                                       .copies = copies});
}

static inline void sent(kit *k, const char *to, uint64_t to_generation, uint64_t generation,
                        uint64_t checksum, cbi_replica_answer answer) {
    assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_SENT,
                                          .name = "x",
                                          .peer = to,
                                          .peer_generation = to_generation,
                                          .generation = generation,
                                          .checksum = checksum,
                                          .sequence = k->asked[to[0] & 127],
                                          .answer = answer}));
}

static inline void offer(kit *k, const char *name, uint64_t generation, uint64_t bytes) {
    assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_OFFERED,
                                          .peer = "a",
                                          .name = name,
                                          .generation = generation,
                                          .checksum = 7,
                                          .bytes = bytes,
                                          .copies = 2}));
}

static inline void arrive(kit *k, uint64_t ticket, uint64_t checksum) {
    assert_ok(step(k, (cbi_replica_event){
                          .kind = CBI_REPLICA_ARRIVED, .ticket = ticket, .checksum = checksum}));
}

static inline void bury(kit *k, cbi_grave_kind kind, const char *name, uint64_t number,
                        uint64_t generation) {
    assert_ok(step(k, (cbi_replica_event){.kind = CBI_REPLICA_BURIED,
                                          .grave = kind,
                                          .name = name,
                                          .number = number,
                                          .generation = generation}));
}

static inline cb_location at(const char *executor, uint64_t generation, uint64_t block_generation) {
    cb_location l = {.generation = generation,
                     .place = {.level = CB_LEVEL_MEMORY_ONLY_SER_2,
                               .memory_bytes = 100,
                               .block_generation = block_generation,
                               .checksum = 7}};
    (void)snprintf(l.executor, sizeof l.executor, "%s", executor);
    return l;
}

static inline void locate(kit *k, const cb_location *locations, size_t count) {
    assert_ok(step(
        k, (cbi_replica_event){
               .kind = CBI_REPLICA_LOCATED, .name = "x", .locations = locations, .count = count}));
}

/** An executor e, in the directory as 10, long enough to look after others, with peers a, b, c. */
static inline void settle(kit *k) {
    const cb_executor_view views[] = {peer("a", "h1", "r0", 1), peer("b", "h2", "r0", 2),
                                      peer("c", "h3", "r0", 3)};
    enter(k, 10);
    see(k, views, 3);
    pass(k, 10 * SECOND);
}

static inline void settle_in(kit *k, const char *name) {
    open_kit(k, name);
    settle(k);
}

#endif
