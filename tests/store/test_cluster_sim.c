/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ctest-timeout: 1800
 * Goal: whatever happens to messages, executors, disks and the directory, no reader gets other
 * bytes than those of the generation that he names, nothing removed comes back, no copy is counted
 * that was never there, and once the trouble ends every block is back at its level and the
 * directory says what is true. Method: two to five executors with the machines of src/store
 * (replica.h, claim.h) and the directory of src/store/directory.c in one process and in made time,
 * driven by one seeded generator: messages late, lost, doubled, overtaking each other; deaths and
 * returns with nothing left, or with what was kept; full disks; bytes that change on their way and
 * at rest; executors cut off from the directory and from each other; directories that forget
 * everything. In every other seed the trouble never ends (safety alone); in the others it does, and
 * then one executor dies in peace.
 *
 * CARBIDE_SIM_SEED=N runs that seed alone and prints all of it; CARBIDE_SIM_SEEDS=COUNT so many,
 * from CARBIDE_SIM_FROM on; CARBIDE_TEST_LONG 100,000. A seed that fails is run again and its last
 * events are printed.
 */
#include "store/cluster_sim.h"

/* ---- life and death ---- */

static void start(world *w, executor *e) {
    const cbi_replica_options options = {.name = e->name,
                                         .host = e->host,
                                         .rack = e->rack,
                                         .wall_ms = 1000000 + e->skew_ms + w->now_ns / MS,
                                         .now_ns = w->now_ns,
                                         .room_bytes = e->room,
                                         .blocks_max = 64,
                                         .graves_max = 64,
                                         .mending_max = 2,
                                         .sweep_max = 1 + (w->seed & 15),
                                         .answer_ns = 800 * MS,
                                         .retry_ns = RETRY_NS,
                                         .grace_ns = LEASE_NS + 700 * MS,
                                         .settle_ns = 300 * MS,
                                         .audit_ns = 5000 * MS,
                                         .grave_ns = 3600000 * MS};
    assert_ok(cbi_replica_create(&options, &e->replica, NULL));
    e->alive = true;
    e->life = ++w->lives;
    e->beat_ns = w->now_ns + MS * below(w, 500);
    e->tick_ns = w->now_ns + MS * below(w, 100);
    say(w, "e%d: starts (%s %s, room %" PRIu64 ")", e->index, e->rack, e->host, e->room);
}

/** With some of what it had when it died, kept on disk. What is not as it was is found out at once,
 *  and is not counted as being here. */
static void come_back(world *w, executor *e) {
    start(w, e);
    for (int name = 0; name < NAMES; name++) {
        const held *h = &w->last[e->index].held[name];
        if (!is_good(w, name, h) || below(w, 3) == 0) {
            continue;
        }
        e->held[name] = *h;
        cb_status status = CB_OK;
        step(w, e,
             (cbi_replica_event){.kind = CBI_REPLICA_STORED,
                                 .returned = true,
                                 .name = names[name],
                                 .generation = h->generation,
                                 .checksum = h->checksum,
                                 .bytes = h->bytes,
                                 .copies = h->copies},
             &status);
        say(w, "e%d: has kept %s %" PRIx64 ": %d", e->index, names[name], h->generation,
            (int)status);
        e->held[name].here = status == CB_OK;
    }
}

static void kill_executor(world *w, executor *e) {
    say(w, "e%d: dies", e->index);
    w->last[e->index].died_ns = w->now_ns;
    memcpy(w->last[e->index].held, e->held, sizeof e->held);
    cbi_replica_destroy(e->replica);
    executor fresh = {.index = e->index, .room = e->room, .skew_ms = e->skew_ms};
    memcpy(fresh.name, e->name, sizeof fresh.name);
    memcpy(fresh.host, e->host, sizeof fresh.host);
    memcpy(fresh.rack, e->rack, sizeof fresh.rack);
    *e = fresh;
}

static void start_directory(world *w) {
    say(w, "a directory that knows nothing");
    w->directories++;
    cb_local_directory_destroy(w->local);
    assert_ok(cb_local_directory_create(LEASE_NS, NULL, NULL, &w->local, NULL));
    cbi_local_directory_clock(w->local, clock_of, w);
    w->directory = cb_local_directory_interface(w->local);
}

static executor *any(world *w) {
    executor *e = &w->executors[below(w, (uint32_t)w->count)];
    return e->alive && !e->moved_out ? e : NULL;
}

/* ---- what clients do ---- */

static void remove_something(world *w, executor *e) {
    cbi_grave_kind kind = (cbi_grave_kind)below(w, 3);
    int name = kind == CBI_GRAVE_BLOCK ? (int)below(w, COMPUTED) : -1;
    uint64_t number = kind == CBI_GRAVE_BLOCK ? 0 : 1 + below(w, 2);
    if (w->grave_count == GRAVES_MAX) {
        return;
    }
    heard_grave g = {kind, name, number, cbi_replica_mint(e->replica, w->now_ns), 0};
    say(w, "e%d: removes %s %d, up to %" PRIx64, e->index,
        kind == CBI_GRAVE_BLOCK      ? names[name]
        : kind == CBI_GRAVE_DATA_SET ? "data set"
                                     : "broadcast",
        (int)number, g.generation);
    w->graves[w->grave_count++] = g;
    for (int i = 0; i < w->content_count; i++) {
        if (covers(&g, w->contents[i].name, w->contents[i].generation)) {
            w->contents[i].buried = true;
        }
    }
    hear(w, e, kind, number, name, g.generation, CBI_REPLICA_REMOVE);
    look_for_the_dead(w, e);
}

/** Whether `from` gives out that content; what it gives must be that. */
static bool gives(world *w, executor *from, const content *c) {
    if (!from->alive || !cbi_replica_holds(from->replica, names[c->name], c->generation, NULL)) {
        return false;
    }
    const held *h = &from->held[c->name];
    if (!h->here || h->generation != c->generation) {
        violate(w, "e%d would give another generation of %s", from->index, names[c->name]);
        return false;
    }
    if (sum_of(h->word) != c->checksum) {
        lose(w, from, c->name, "bad bytes, seen by a reader");
        return false;
    }
    if (h->word != c->word) {
        violate(w, "e%d gives wrong bytes of %s", from->index, names[c->name]);
    }
    return true;
}

static void read_something(world *w, executor *e) {
    if (w->content_count == 0) {
        return;
    }
    const content *c = &w->contents[below(w, (uint32_t)w->content_count)];
    cb_location at[EXECUTORS_MAX + 1];
    size_t count = 0, order[EXECUTORS_MAX + 1];
    (void)w->directory.locate(w->directory.ctx, names[c->name], at, EXECUTORS_MAX + 1, &count,
                              NULL);
    size_t sources = cbi_replica_sources(e->replica, at, count, c->generation, c->checksum, order);
    for (size_t i = 0; i < sources; i++) {
        const cb_location *l = &at[order[i]];
        if (l->place.block_generation != c->generation || l->place.checksum != c->checksum) {
            violate(w, "e%d would read another generation of %s", e->index, names[c->name]);
        }
    }
    for (int i = 0; i < w->count; i++) { /* and from those whom only an old answer names */
        (void)gives(w, &w->executors[i], c);
    }
}

/* ---- get or compute ---- */

static cbi_claim_event look_for(world *w, executor *e, int name) {
    if (e->held[name].here) {
        return CBI_CLAIM_FOUND;
    }
    cb_location at[EXECUTORS_MAX + 1];
    size_t count = 0;
    if (!e->connected || w->directory.locate(w->directory.ctx, names[name], at, EXECUTORS_MAX + 1,
                                             &count, NULL) != CB_OK) {
        return CBI_CLAIM_UNKNOWN;
    }
    for (size_t i = 0; i < count; i++) {
        int from = executor_index(w, at[i].executor);
        const content *c = content_of(w, name, at[i].place.block_generation);
        if (c != NULL && reaches(w, e->index, from) && gives(w, &w->executors[from], c)) {
            return CBI_CLAIM_FOUND;
        }
    }
    return CBI_CLAIM_MISSING;
}

/** Until when nobody else may have the claim that it was just granted. */
static void note_claim(world *w, const executor *e, asker *a) {
    cb_executor_view views[EXECUTORS_MAX + 1];
    size_t count = 0;
    a->sure_ns = 0;
    a->sure_life = e->generation;
    a->sure_directory = w->directories;
    (void)w->directory.peers(w->directory.ctx, "", views, EXECUTORS_MAX + 1, &count, NULL);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(views[i].name, e->name) == 0 && views[i].generation == e->generation) {
            a->sure_ns = cbi_min(w->now_ns + a->claim.claim_ns, views[i].lease_ns);
        }
    }
}

/** Whether its claim lasts: neither it nor its life has passed, and the directory knows of it. */
static bool is_sure(const world *w, const executor *e, const asker *a) {
    return a->claim.claimed && a->sure_ns > w->now_ns && a->sure_life == e->generation &&
           a->sure_directory == w->directories;
}

/** Two may compute only when a lease or a claim has passed, or the directory has forgotten it. */
static void compute_alone(world *w, const executor *e, int name) {
    for (int i = 0; i < w->count && is_sure(w, e, &e->askers[name]); i++) {
        const executor *other = &w->executors[i];
        const asker *a = &other->askers[name];
        if (other != e && other->alive && a->on && a->doing == CBI_CLAIM_COMPUTE &&
            is_sure(w, other, a)) {
            violate(w, "e%d computes %s beside e%d", e->index, names[name], other->index);
        }
    }
}

static cbi_claim_event take_claim(world *w, executor *e, int name, uint64_t *wait_ns) {
    bool granted = false;
    if (!e->connected ||
        w->directory.claim(w->directory.ctx, e->name, e->generation, names[name],
                           e->askers[name].claim.claim_ns, &granted, wait_ns, NULL) != CB_OK) {
        return CBI_CLAIM_UNKNOWN;
    }
    if (granted) {
        note_claim(w, e, &e->askers[name]);
    }
    return granted ? CBI_CLAIM_GRANTED : CBI_CLAIM_HELD;
}

static cbi_claim_event finish_computing(world *w, executor *e, int name) {
    if (happens(w, 300)) {
        say(w, "e%d: cannot compute %s", e->index, names[name]);
        return CBI_CLAIM_COMPUTE_FAILED;
    }
    put(w, e, name, 2);
    if (!e->alive || !e->held[name].here) {
        return CBI_CLAIM_COMPUTE_FAILED; /* no room for it */
    }
    w->computed[name]++;
    return CBI_CLAIM_STORED;
}

/** One step, or as many as there is nothing to wait for. */
static void ask_on(world *w, executor *e, int name, cbi_claim_event event) {
    asker *a = &e->askers[name];
    uint64_t wait_ns = 0;
    while (a->on && w->failed[0] == 0) {
        a->doing = cbi_claim_step(&a->claim, event, wait_ns, w->now_ns);
        switch (a->doing) {
            case CBI_CLAIM_LOOK:
                event = look_for(w, e, name);
                if (below(w, 3) == 0) { /* much can happen before it is known */
                    a->parked = event;
                    a->parked_ns = w->now_ns + MS * (1 + below(w, 200));
                    return;
                }
                break;
            case CBI_CLAIM_RENEW:
            case CBI_CLAIM_TAKE: event = take_claim(w, e, name, &wait_ns); break;
            case CBI_CLAIM_GIVE:
                (void)w->directory.unclaim(w->directory.ctx, e->name, e->generation, names[name],
                                           NULL);
                event = CBI_CLAIM_PASSED;
                break;
            case CBI_CLAIM_COMPUTE:
                if (a->due_ns == 0) {
                    say(w, "e%d: computes %s", e->index, names[name]);
                    compute_alone(w, e, name);
                    a->due_ns = w->now_ns + MS * (50 + below(w, 1500));
                }
                return;
            case CBI_CLAIM_WAIT: return;
            case CBI_CLAIM_DONE:
            case CBI_CLAIM_FAILED: a->on = false; break;
        }
    }
}

static void ask(world *w, executor *e, int name) {
    asker *a = &e->askers[name];
    if (!a->on) {
        *a =
            (asker){.on = true,
                    .claim = {.claim_ns = 900 * MS, .poll_ns = 200 * MS, .patience_ns = 8000 * MS}};
        ask_on(w, e, name, CBI_CLAIM_BEGUN);
    }
}

static void ask_further(world *w, executor *e) {
    for (int name = COMPUTED; name < NAMES; name++) {
        asker *a = &e->askers[name];
        if (!a->on) {
            continue;
        }
        if (a->parked_ns != 0) {
            if (a->parked_ns <= w->now_ns) {
                a->parked_ns = 0;
                ask_on(w, e, name, a->parked);
            }
        } else if (a->doing == CBI_CLAIM_WAIT && a->claim.due_ns <= w->now_ns) {
            ask_on(w, e, name, CBI_CLAIM_PASSED);
        } else if (a->doing == CBI_CLAIM_COMPUTE && a->due_ns <= w->now_ns) {
            a->due_ns = 0;
            cbi_claim_event event = finish_computing(w, e, name);
            ask_on(w, e, name, event);
        } else if (a->doing == CBI_CLAIM_COMPUTE && a->claim.renew_ns <= w->now_ns) {
            ask_on(w, e, name, CBI_CLAIM_PASSED);
        }
    }
}

/* ---- what goes wrong ---- */

static void make_trouble(world *w) {
    executor *e = any(w);
    int i = (int)below(w, (uint32_t)w->count), j = (int)below(w, (uint32_t)w->count);
    if (e != NULL && happens(w, w->die)) {
        kill_executor(w, e);
    } else if (e != NULL && happens(w, w->cut)) {
        e->cut_ns = w->now_ns + MS * below(w, 4000);
        say(w, "e%d: cut off from the directory", e->index);
    } else if (e != NULL && happens(w, w->evict)) {
        lose(w, e, (int)below(w, NAMES), "evicted");
    } else if (happens(w, w->restart)) {
        start_directory(w);
    } else if (i != j && happens(w, w->cut)) {
        w->apart[i][j] = w->apart[j][i] = true;
        say(w, "e%d and e%d: apart", i, j);
    } else if (happens(w, 30)) {
        w->apart[i][j] = w->apart[j][i] = false;
    } else if (!w->executors[i].alive && happens(w, 200)) {
        (w->keeps ? come_back : start)(w, &w->executors[i]);
    } else if (e != NULL && w->count > 2 && happens(w, w->die / 4)) {
        say(w, "e%d: is to move out", e->index);
        e->draining = true;
        tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION});
    }
}

static void do_something(world *w) {
    executor *e = any(w);
    uint32_t what = below(w, 1000);
    if (e == NULL || !w->trouble) {
        return;
    }
    if (what < 120) {
        put(w, e, (int)below(w, COMPUTED), 1 + below(w, 3));
    } else if (what < 150) {
        remove_something(w, e);
    } else if (what < 230) {
        read_something(w, e);
    } else if (what < 260) {
        ask(w, e, COMPUTED + (int)below(w, FRESH - COMPUTED));
    }
}

/** Whether the executor has that content, or had it when it died a roll call ago at most. */
static bool is_counted_upon(world *w, int i, const content *c) {
    const executor *e = &w->executors[i];
    if (e->alive) {
        const held *h = &e->held[c->name];
        return is_good(w, c->name, h) && h->generation == c->generation;
    }
    const held *h = &w->last[i].held[c->name];
    return is_good(w, c->name, h) && h->generation == c->generation &&
           w->last[i].died_ns + 2 * RETRY_NS + STEP_NS >= w->now_ns;
}

/** Whoever leaves takes no block with him that nobody else has, whatever has died meanwhile. */
static void move_out(world *w, executor *e) {
    for (int name = 0; name < NAMES; name++) {
        const content *c =
            is_good(w, name, &e->held[name]) ? content_of(w, name, e->held[name].generation) : NULL;
        bool kept = c == NULL || c->buried || c->spoiled || is_superseded(w, c);
        for (int i = 0; i < w->count && !kept; i++) {
            kept = i != e->index && is_counted_upon(w, i, c);
        }
        if (!kept) {
            violate(w, "e%d leaves with the last copy of %s", e->index, names[name]);
        }
    }
    w->directory.leave(w->directory.ctx, e->name, e->generation);
    kill_executor(w, e);
}

static void pass(world *w) {
    w->now_ns += STEP_NS;
    make_trouble(w);
    do_something(w);
    deliver_due(w);
    for (int i = 0; i < w->count && w->failed[0] == 0; i++) {
        executor *e = &w->executors[i];
        if (e->alive && e->beat_ns <= w->now_ns) {
            e->beat_ns = w->now_ns + 500 * MS;
            beat(w, e);
        }
        if (e->alive && e->tick_ns <= w->now_ns) {
            e->tick_ns = w->now_ns + 100 * MS;
            tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_TICK});
        }
        if (e->alive) {
            ask_further(w, e);
        }
        if (e->alive && e->moved_out) {
            move_out(w, e);
        }
    }
}

/* ---- whether all is in order ---- */

static const char *graves_in_order(world *w) {
    for (int g = 0; g < w->grave_count; g++) {
        int living = 0, knowing = 0;
        for (int i = 0; i < w->count; i++) {
            living += w->executors[i].alive;
            knowing += w->executors[i].alive && has_heard(&w->executors[i], &w->graves[g]);
        }
        if (knowing != 0 && knowing != living) {
            return "a removal that not all have heard of";
        }
    }
    return NULL;
}

static const char *directory_in_order(world *w) {
    for (int name = 0; name < NAMES; name++) {
        cb_location at[EXECUTORS_MAX + 1];
        size_t count = 0, right = 0;
        (void)w->directory.locate(w->directory.ctx, names[name], at, EXECUTORS_MAX + 1, &count,
                                  NULL);
        for (int i = 0; i < w->count; i++) {
            const executor *e = &w->executors[i];
            right += e->alive && e->held[name].here;
        }
        for (size_t i = 0; i < count; i++) {
            const executor *e = &w->executors[executor_index(w, at[i].executor)];
            if (!e->alive || !e->held[name].here || at[i].generation != e->generation ||
                at[i].place.block_generation != e->held[name].generation) {
                return "a directory that names somebody who does not have the block";
            }
        }
        if (count != right) {
            return "a directory that does not name all who have a block";
        }
    }
    return NULL;
}

static int holders(world *w, const content *c) {
    int count = 0;
    for (int i = 0; i < w->count; i++) {
        const held *h = &w->executors[i].held[c->name];
        count += w->executors[i].alive && h->here && h->generation == c->generation;
    }
    return count;
}

static bool could_take(const executor *e, const content *c) {
    return e->alive && !e->draining && !e->held[c->name].here && used_by(e) + c->bytes <= e->room;
}

static const char *levels_in_order(world *w) {
    for (int i = 0; i < w->content_count; i++) {
        const content *c = &w->contents[i];
        int count = holders(w, c);
        for (int j = 0; count > 0 && count < (int)c->copies && j < w->count; j++) {
            if (could_take(&w->executors[j], c)) {
                say(w, "short: %s %" PRIx64 " x%d of %u", names[c->name], c->generation, count,
                    c->copies);
                return "a block below its level, and somebody with room";
            }
        }
    }
    return NULL;
}

/** Of those that have a name the newest alone is held, if one of them has several copies: those of
 * a single copy are nobody's concern. */
static const char *names_in_order(world *w) {
    for (int name = 0; name < NAMES; name++) {
        uint64_t newest = 0, oldest = UINT64_MAX;
        bool several = false;
        for (int i = 0; i < w->count; i++) {
            const held *h = &w->executors[i].held[name];
            if (w->executors[i].alive && h->here) {
                newest = cbi_max(newest, h->generation);
                oldest = cbi_min(oldest, h->generation);
                several = several || h->copies > 1;
            }
        }
        if (several && oldest != newest) {
            say(w, "superseded: %s %" PRIx64 " by %" PRIx64, names[name], oldest, newest);
            return "a block that stays though a newer one has its name";
        }
    }
    return NULL;
}

/** What is not; NULL: everything is. */
static const char *out_of_order(world *w) {
    for (int i = 0; i < w->count; i++) {
        const executor *e = &w->executors[i];
        for (int name = 0; e->alive && name < NAMES; name++) {
            if (e->askers[name].on) {
                return "somebody who waits for a block";
            }
        }
        if (e->alive && !e->connected) {
            return "somebody who is not in the directory";
        }
    }
    const char *what = graves_in_order(w);
    what = what != NULL ? what : directory_in_order(w);
    what = what != NULL ? what : names_in_order(w);
    return what != NULL ? what : levels_in_order(w);
}

/** After `least` steps, until all is in order; not for ever. */
static void settle_down(world *w, int least) {
    const char *what = "nothing";
    for (int i = 0; what != NULL && i < PEACE_STEPS && w->failed[0] == 0; i++) {
        pass(w);
        what = i >= least && i % 25 == 0 ? out_of_order(w) : what;
    }
    if (what != NULL) {
        violate(w, "still, after %d s of peace: %s", PEACE_STEPS / 50, what);
    }
}

/* ---- peace ---- */

static void make_peace(world *w) {
    w->trouble = false;
    memset(w->apart, 0, sizeof w->apart);
    bool all = below(w, 2) == 0;
    int living = 0;
    for (int i = 0; i < w->count; i++) {
        executor *e = &w->executors[i];
        e->cut_ns = 0;
        living += e->alive;
        if (!e->alive && (all || (i == w->count - 1 && living == 0))) {
            (w->keeps ? come_back : start)(w, e);
            living++;
        }
        for (int name = 0; e->alive && name < NAMES; name++) {
            if (e->held[name].here && !is_good(w, name, &e->held[name])) {
                lose(w, e, name, "bad bytes, at last");
            }
        }
    }
    say(w, "peace");
}

static void compute_together(world *w) {
    for (int i = 0; i < w->count; i++) {
        if (w->executors[i].alive && !w->executors[i].draining) {
            ask(w, &w->executors[i], FRESH);
        }
    }
    settle_down(w, 0);
    if (w->computed[FRESH] > 1) {
        violate(w, "%u executors computed the same block", w->computed[FRESH]);
    }
}

typedef struct copy_count {
    int living; /* executors */
    int holders[CONTENTS_MAX];
    int staying[CONTENTS_MAX]; /* those of them that are not to move out */
} copy_count;

static int leaving_holders(const world *w, const content *c) {
    int leaving = 0;
    for (int j = 0; j < w->count; j++) {
        leaving += w->executors[j].draining && w->executors[j].held[c->name].here;
    }
    return leaving;
}

static int staying_holders(world *w, const content *c) {
    int staying = holders(w, c);
    for (int j = 0; j < w->count; j++) {
        const executor *e = &w->executors[j];
        staying -= e->alive && e->draining && e->held[c->name].here &&
                   e->held[c->name].generation == c->generation;
    }
    return staying;
}

static void count_holders(world *w, copy_count *n) {
    n->living = 0;
    for (int j = 0; j < w->count; j++) {
        n->living += w->executors[j].alive;
    }
    for (int i = 0; i < w->content_count; i++) {
        n->holders[i] = holders(w, &w->contents[i]);
        n->staying[i] = staying_holders(w, &w->contents[i]);
    }
}

/** What had too few copies has as many as it shall have now, what had enough has no more. Who was
 *  to move out may have done so, and taken his copy with him when others have some; `leaves`: one
 *  makes copies for himself while others mend. */
static void compare_holders(world *w, const copy_count *before, bool leaves) {
    copy_count now = {0};
    count_holders(w, &now);
    for (int i = 0; i < w->content_count && w->failed[0] == 0; i++) {
        const content *c = &w->contents[i];
        if (is_superseded(w, c)) {
            continue;
        }
        int after = now.holders[i]; /* who is to move out does not count himself */
        bool less = now.staying[i] < before->staying[i] ||
                    (after < before->holders[i] && now.living == before->living);
        if (less || (after == 0 && before->holders[i] > 0)) {
            violate(w, "a copy of %s went away in peace", names[c->name]);
        }
        if (!leaves && after > (int)c->copies + leaving_holders(w, c) &&
            after > before->holders[i]) {
            violate(w, "%s was mended by more than one: x%d, to be x%u", names[c->name], after,
                    c->copies);
        }
    }
}

/** In one of three seeds somebody else is to leave. */
static bool send_away(world *w) {
    executor *e = below(w, 3) == 0 && w->failed[0] == 0 ? any(w) : NULL;
    if (e != NULL) {
        say(w, "e%d: is to move out, after a death", e->index);
        e->draining = true;
        tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION});
    }
    return e != NULL;
}

static void die_in_peace(world *w) {
    executor *e = any(w);
    copy_count before = {0};
    if (e != NULL && w->failed[0] == 0) {
        kill_executor(w, e);
        for (int i = (int)below(w, LEAVING_STEPS); i > 0 && w->failed[0] == 0; i--) {
            pass(w);
        }
        bool leaves = send_away(w); /* before the directory knows of the death */
        count_holders(w, &before);
        settle_down(w, 150);
        compare_holders(w, &before, leaves);
    }
}

/** Nothing was lost, so nothing is to be mended. */
static void forget_in_peace(world *w) {
    copy_count before = {0};
    if (w->failed[0] == 0) {
        count_holders(w, &before);
        start_directory(w);
        settle_down(w, 200);
        compare_holders(w, &before, false);
    }
}

/** Whether its word that it has a block is on its way to the other, and will be for a while. */
static bool has_just_answered(const world *w, const executor *e, const executor *to) {
    for (int i = 0; i < w->message_count; i++) {
        const message *m = &w->messages[i];
        if (m->kind == TO_ANSWER && m->from == e->index && m->to == to->index &&
            m->answer == CBI_REPLICA_OK && m->due_ns > w->now_ns + 3 * RETRY_NS) {
            return true;
        }
    }
    return false;
}

/** One is to leave, and while he does somebody dies, at any moment, or just when he has answered.
 * What he counted upon just then may go with both; move_out looks after all else. */
static void die_while_one_leaves(world *w) {
    executor *e = any(w), *other = any(w);
    if (e == NULL || w->failed[0] != 0) {
        return;
    }
    w->slow = below(w, 2) == 0;
    e->draining = true;
    say(w, "e%d: is to move out, and somebody is to die", e->index);
    tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION});
    bool waits = below(w, 2) == 0, dies = other != NULL && other != e;
    for (int i = (int)below(w, 12 * LEAVING_STEPS); i > 0 && w->failed[0] == 0; i--) {
        pass(w);
        if (dies && waits && e->alive && other->alive && has_just_answered(w, other, e)) {
            break;
        }
    }
    if (dies && other->alive && w->failed[0] == 0) {
        kill_executor(w, other);
    }
    for (int i = 0; i < 15 * LEAVING_STEPS && w->failed[0] == 0; i++) {
        pass(w); /* what he said before is still on its way */
    }
    w->slow = false;
    settle_down(w, 250);
}

/** The same with few blocks, so that most of what is counted upon goes with one who dies. */
static void leave_with_little(world *w) {
    w->trouble = false;
    for (uint32_t i = 1 + below(w, 3); i > 0; i--) {
        put(w, any(w), (int)below(w, COMPUTED), 1 + below(w, 2));
    }
    for (uint32_t i = below(w, 200); i > 0 && w->failed[0] == 0; i--) {
        pass(w);
    }
    die_while_one_leaves(w);
}

static void move_out_in_peace(world *w) {
    executor *e = any(w);
    if (e == NULL || w->failed[0] != 0) {
        return;
    }
    held had[NAMES];
    memcpy(had, e->held, sizeof had);
    e->draining = true;
    say(w, "e%d: is to move out, in peace", e->index);
    tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION});
    for (int i = 0; i < PEACE_STEPS && e->alive && w->failed[0] == 0; i++) {
        pass(w);
    }
    if (!e->alive && w->failed[0] == 0) { /* others mend what was left to them */
        settle_down(w, 250);
    }
    for (int name = 0; name < NAMES && w->failed[0] == 0; name++) {
        const content *c = had[name].here ? content_of(w, name, had[name].generation) : NULL;
        if (c == NULL || is_superseded(w, c)) {
            continue;
        }
        int left = holders(w, c) - (e->alive && e->held[name].here);
        bool could = false;
        for (int j = 0; j < w->count; j++) {
            could = could || could_take(&w->executors[j], c);
        }
        if ((left == 0 && !e->alive) || (left < (int)c->copies && could)) {
            violate(w, "e%d moved out or did not, and %s is x%d of %u", e->index, names[name], left,
                    c->copies);
        }
    }
}

/* ---- one seed ---- */

static uint32_t rate(world *w, uint32_t most) {
    return below(w, 3) == 0 ? 0 : 1 + below(w, most);
}

static void make_world(world *w) {
    w->random = w->seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    w->now_ns = 1000 * MS;
    w->count = 2 + (int)below(w, EXECUTORS_MAX - 1);
    w->lose = rate(w, 200);
    w->late = rate(w, 200);
    w->twice = rate(w, 150);
    w->flip = rate(w, 300);
    w->rot = rate(w, 100);
    w->full = rate(w, 200);
    w->die = rate(w, 12);
    w->cut = rate(w, 12);
    w->restart = rate(w, 8);
    w->break_off = rate(w, 60);
    w->evict = rate(w, 30);
    w->unread = rate(w, 100);
    w->trouble = true;
    w->keeps = below(w, 2) == 0;
    bool roomy = below(w, 2) == 0;
    start_directory(w);
    for (int i = 0; i < w->count; i++) {
        executor *e = &w->executors[i];
        e->index = i;
        e->room = roomy ? 5000 : 100 + below(w, 900);
        e->skew_ms = below(w, 10000);
        (void)snprintf(e->name, sizeof e->name, "e%d", i);
        (void)snprintf(e->host, sizeof e->host, "h%u", below(w, 3));
        (void)snprintf(e->rack, sizeof e->rack, "r%u", below(w, 2));
        start(w, e);
    }
}

static void end_world(world *w) {
    for (int i = 0; i < w->count; i++) {
        cbi_replica_destroy(w->executors[i].replica);
    }
    cb_local_directory_destroy(w->local);
}

static void run(world *w, uint64_t seed, bool logging, bool loud) {
    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->logging = logging;
    w->loud = loud;
    make_world(w);
    if (seed % 8 == 6) {
        leave_with_little(w);
        end_world(w);
        return;
    }
    for (int i = 0; i < FAULT_STEPS && w->failed[0] == 0; i++) {
        pass(w);
    }
    if (seed % 2 == 0 && w->failed[0] == 0) {
        make_peace(w);
        settle_down(w, 300); /* the latest messages have come */
        compute_together(w);
        forget_in_peace(w);
        switch (below(w, 4)) {
            case 0: move_out_in_peace(w); break;
            case 1: die_while_one_leaves(w); break;
            default: die_in_peace(w); break;
        }
    }
    end_world(w);
}

static uint64_t number_of(const char *variable, uint64_t otherwise) {
    const char *text = getenv(variable);
    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void test_cluster__keeps_its_promises_whatever_happens(void **state) {
    (void)state;
#ifdef SIM_SANITIZED
    uint64_t count = 200;
#else
    uint64_t count = 2000;
#endif
    count = number_of("CARBIDE_SIM_SEEDS", getenv("CARBIDE_TEST_LONG") != NULL ? 100000 : count);
    uint64_t alone = number_of("CARBIDE_SIM_SEED", UINT64_MAX);
    uint64_t from = alone != UINT64_MAX ? alone : number_of("CARBIDE_SIM_FROM", 0);
    uint64_t to = alone != UINT64_MAX ? alone + 1 : from + count;
    world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    for (uint64_t seed = from; seed < to; seed++) {
        run(w, seed, alone != UINT64_MAX, alone != UINT64_MAX);
        if (w->failed[0] == 0) {
            continue;
        }
        run(w, seed, true, false); /* the same again, and this time it is written down */
        uint64_t first = w->line_count > LINES ? w->line_count - LINES : 0;
        for (uint64_t i = first; i < w->line_count; i++) {
            (void)fprintf(stderr, "%s\n", w->lines[i % LINES]);
        }
        char failed[LINE_BYTES];
        memcpy(failed, w->failed, sizeof failed);
        free(w);
        fail_msg("seed %" PRIu64 ": %s. CARBIDE_SIM_SEED=%" PRIu64 " runs it alone.", seed, failed,
                 seed);
        return; /* it has not come back */
    }
    free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cluster__keeps_its_promises_whatever_happens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
