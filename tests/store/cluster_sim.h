/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_CLUSTER_SIM_H
#define CARBIDE_CLUSTER_SIM_H

/*
 * The world of test_cluster_sim.c: executors that carry out what their machines want, messages
 * between them, the directory as each of them reaches it, and what is checked at each step. What
 * is done to them stands in the test.
 */
#define XXH_INLINE_ALL
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/base.h"
#include "store/claim.h"
#include "store/directory.h"
#include "store/replica.h"
#include "support/test.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SIM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SIM_SANITIZED 1
#endif
#endif

enum {
    EXECUTORS_MAX = 5,
    NAMES = 16,
    COMPUTED = 12, /* names from here on are only computed */
    FRESH = 15,    /* and this one only in peace */
    CONTENTS_MAX = 512,
    MESSAGES_MAX = 512,
    GRAVES_MAX = 256,
    PENDING_MAX = 64,
    ACTIONS_MAX = 12,
    LINES = 60,
    LINE_BYTES = 160,
    FAULT_STEPS = 400,
    PEACE_STEPS = 4000,
    LEAVING_STEPS = 14,
};

#define MS UINT64_C(1000000)
#define STEP_NS (20 * MS)
#define LEASE_NS (1500 * MS)
#define RETRY_NS (100 * MS)
#define DROPPED_NS (1000 * MS) /* what concerns all blocks goes step by step */

static const char *const names[NAMES] = {
    "rdd_1_0",     "rdd_1_1",      "rdd_2_0", "rdd_2_1", "broadcast_1", "broadcast_1_piece0",
    "broadcast_2", "broadcast_21", "alpha",   "beta",    "gamma",       "delta",
    "lazy0",       "lazy1",        "lazy2",   "fresh"};

/** What was put under a generation: the truth. */
typedef struct content {
    uint64_t generation, word, checksum, bytes;
    int name;
    uint32_t copies;
    uint32_t stored_by; /* executors that have had it, with the right bytes */
    uint32_t acked;     /* copies that the put was answered with */
    bool buried;
    bool spoiled; /* one copy at least was evicted or has rotted, whoever still counts upon it */
} content;

typedef struct held {
    bool here;
    uint64_t generation, word, checksum, bytes;
    uint32_t copies;
} held;

typedef enum message_kind {
    TO_DATA,    /* an offer with its bytes */
    TO_ARRIVE,  /* the bytes of one that was accepted; for that life of the executor only */
    TO_MISS,    /* they do not come */
    TO_ANSWER,  /* to SEND */
    TO_LOCATED, /* the directory's answer */
    TO_TELL,
    TO_TOLD,
    TO_REPORT, /* a report that is still on its way when its connection has ended */
} message_kind;

typedef struct message {
    uint64_t due_ns;
    message_kind kind;
    int from, to, name;
    uint64_t life; /* of the receiver; 0: whoever is there */
    uint64_t generation, checksum, bytes, word, ticket, sequence, number, executor_generation;
    uint32_t copies;
    cbi_replica_answer answer;
    cbi_grave_kind grave;
    cb_location locations[EXECUTORS_MAX + 1];
    size_t count;
    cb_place place;
} message;

typedef struct heard_grave {
    cbi_grave_kind kind;
    int name;
    uint64_t number, generation, heard_ns;
} heard_grave;

typedef struct asker {
    bool on;
    cbi_claim claim;
    cbi_claim_action doing;
    uint64_t due_ns;
    uint64_t parked_ns; /* an answer comes then; 0: none is awaited */
    cbi_claim_event parked;
    uint64_t sure_ns;                   /* its claim and its lease last until then, */
    uint64_t sure_life, sure_directory; /* in this life, and as this directory knows */
} asker;

typedef struct executor {
    int index;
    char name[16], host[8], rack[8];
    bool alive, connected, draining, moved_out;
    uint64_t life, generation, last_generation, room, beat_ns, tick_ns, cut_ns;
    uint64_t skew_ms; /* of its clock */
    cbi_replica *replica;
    held held[NAMES];
    struct {
        uint64_t ticket, bytes, word, generation, sequence;
        int name, from;
    } pending[PENDING_MAX];
    heard_grave heard[GRAVES_MAX];
    int heard_count;
    asker askers[NAMES];
    const message *offering;
} executor;

typedef struct world {
    uint64_t seed, random, now_ns;
    int count;
    executor executors[EXECUTORS_MAX];
    struct {
        uint64_t died_ns;
        held held[NAMES];
    } last[EXECUTORS_MAX]; /* lives that are over */
    cb_local_directory *local;
    cb_directory directory;
    content contents[CONTENTS_MAX];
    int content_count;
    heard_grave graves[GRAVES_MAX];
    int grave_count;
    message messages[MESSAGES_MAX];
    int message_count;
    bool apart[EXECUTORS_MAX][EXECUTORS_MAX];
    bool trouble; /* faults may happen */
    bool slow;    /* some messages take long, though nothing else goes wrong */
    bool keeps;   /* who comes back has some of what he had */
    uint64_t lives, directories;
    /* how much of what, in thousandths; each seed its own */
    uint32_t lose, late, twice, flip, full, die, cut, restart, break_off, evict, rot, unread;
    uint32_t computed[NAMES];
    char failed[LINE_BYTES];
    bool logging, loud;
    char lines[LINES][LINE_BYTES];
    uint64_t line_count;
} world;

/* ---- the world's hand ---- */

static uint64_t draw(world *w) {
    uint64_t z = w->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t below(world *w, uint32_t limit) {
    return (uint32_t)((draw(w) >> 32) * limit >> 32);
}

static bool happens(world *w, uint32_t thousandths) {
    return w->trouble && below(w, 1000) < thousandths;
}

__attribute__((format(printf, 2, 3))) static void say(world *w, const char *format, ...) {
    if (!w->logging) {
        return;
    }
    char text[LINE_BYTES];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    char *line = w->lines[w->line_count++ % LINES];
    (void)snprintf(line, LINE_BYTES, "%7.2f %.140s", (double)w->now_ns / 1e9, text);
    if (w->loud) {
        (void)fprintf(stderr, "%s\n", line);
    }
}

__attribute__((format(printf, 2, 3))) static void violate(world *w, const char *format, ...) {
    if (w->failed[0] == 0) {
        va_list list;
        va_start(list, format);
        (void)vsnprintf(w->failed, sizeof w->failed, format, list);
        va_end(list);
        say(w, "VIOLATED: %s", w->failed);
    }
}

static uint64_t clock_of(void *ctx) {
    return ((const world *)ctx)->now_ns;
}

static int name_index(const char *name) {
    for (int i = 0; name != NULL && i < NAMES; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

static int executor_index(const world *w, const char *name) {
    for (int i = 0; name != NULL && i < w->count; i++) {
        if (strcmp(w->executors[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static uint64_t sum_of(uint64_t word) {
    return XXH3_64bits(&word, sizeof word);
}

static content *content_of(world *w, int name, uint64_t generation) {
    for (int i = w->content_count - 1; i >= 0; i--) {
        if (w->contents[i].name == name && w->contents[i].generation == generation) {
            return &w->contents[i];
        }
    }
    return NULL;
}

/** A newer one has been put by its name: it may go. */
static bool is_superseded(const world *w, const content *c) {
    bool newer = false;
    for (int i = 0; i < w->content_count && !newer; i++) {
        newer = w->contents[i].name == c->name && w->contents[i].generation > c->generation;
    }
    return newer;
}

static bool is_good(world *w, int name, const held *h) {
    const content *c = h->here ? content_of(w, name, h->generation) : NULL;
    return c != NULL && c->word == h->word;
}

static uint64_t used_by(const executor *e) {
    uint64_t used = 0;
    for (int i = 0; i < NAMES; i++) {
        used += e->held[i].here ? e->held[i].bytes : 0;
    }
    for (int i = 0; i < PENDING_MAX; i++) {
        used += e->pending[i].ticket != 0 ? e->pending[i].bytes : 0;
    }
    return used;
}

static bool covers(const heard_grave *g, int name, uint64_t generation) {
    if (g->generation < generation) {
        return false;
    }
    if (g->kind == CBI_GRAVE_BLOCK) {
        return g->name == name;
    }
    char prefix[32];
    bool set = g->kind == CBI_GRAVE_DATA_SET;
    int n = snprintf(prefix, sizeof prefix, set ? "rdd_%d_" : "broadcast_%d", (int)g->number);
    char end = strncmp(names[name], prefix, (size_t)n) == 0 ? names[name][n] : '?';
    return set ? end != '?' : end == 0 || end == '_';
}

/* ---- messages ---- */

static bool reaches(const world *w, int from, int to) {
    return !w->apart[from][to];
}

/** `reliable`: within one executor, or from the directory over a connection that holds. */
static void post(world *w, message m, bool reliable) {
    for (int copy = 0; copy < 2; copy++) {
        if (w->message_count == MESSAGES_MAX || (!reliable && happens(w, w->lose))) {
            say(w, "  lost: kind %d from %d to %d", (int)m.kind, m.from, m.to);
        } else {
            m.due_ns = w->now_ns + MS * (1 + below(w, 60));
            if (happens(w, w->late)) {
                m.due_ns += MS * below(w, 5000);
            } else if (w->slow && !reliable && below(w, 3) == 0) {
                m.due_ns += MS * below(w, 2000);
            }
            w->messages[w->message_count++] = m;
        }
        if (reliable || !happens(w, w->twice)) {
            break;
        }
    }
}

static void step(world *w, executor *e, cbi_replica_event event, cb_status *status);

static void tell(world *w, executor *e, cbi_replica_event event) {
    cb_status status = CB_OK;
    step(w, e, event, &status);
}

/* ---- the directory, as an executor reaches it ---- */

static void disconnect(world *w, executor *e) {
    if (e->connected) {
        say(w, "e%d: lost the directory", e->index);
        e->connected = false;
        tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_LOST});
    }
}

static void report(world *w, executor *e, int name, const cb_place *place) {
    if (!e->connected) {
        return;
    }
    if (happens(w, w->break_off)) { /* the connection breaks: who knows what became of it */
        if (below(w, 2) == 0) {
            message m = {.kind = TO_REPORT,
                         .from = e->index,
                         .to = e->index,
                         .name = name,
                         .place = *place,
                         .executor_generation = e->generation};
            post(w, m, false);
        }
        disconnect(w, e);
        return;
    }
    cb_status status =
        w->directory.report(w->directory.ctx, e->name, e->generation, names[name], place, NULL);
    if (status != CB_OK) {
        disconnect(w, e);
    }
}

static void locate(world *w, executor *e, int name) {
    message m = {.kind = TO_LOCATED, .from = e->index, .to = e->index, .name = name};
    m.life = e->life;
    m.executor_generation = e->generation;
    cb_status status = CB_EIO;
    if (e->connected && !happens(w, w->break_off)) {
        status = w->directory.locate(w->directory.ctx, names[name], m.locations, EXECUTORS_MAX + 1,
                                     &m.count, NULL);
    }
    if (status != CB_OK) {
        disconnect(w, e);
        return;
    }
    post(w, m, true);
}

static void beat(world *w, executor *e) {
    cb_directory *d = &w->directory;
    if (e->cut_ns > w->now_ns) {
        disconnect(w, e);
        return;
    }
    if (e->connected && d->renew(d->ctx, e->name, e->generation, NULL) != CB_OK) {
        disconnect(w, e);
    }
    if (!e->connected) {
        const cb_executor_entry entry = {
            .name = e->name, .host = e->host, .rack = e->rack, .memory_max = e->room};
        uint64_t generation = e->last_generation;
        if (d->enter(d->ctx, &entry, &generation, NULL) != CB_OK) {
            violate(w, "e%d may not enter", e->index);
            return;
        }
        e->connected = true;
        e->generation = e->last_generation = generation;
        say(w, "e%d: entered as %" PRIu64, e->index, generation);
        tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_ENTERED, .generation = generation});
    }
    cb_executor_view views[EXECUTORS_MAX];
    size_t count = 0;
    if (e->connected && d->peers(d->ctx, e->name, views, EXECUTORS_MAX, &count, NULL) == CB_OK) {
        tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_PEERS, .views = views, .count = count});
    }
}

/* ---- blocks of an executor ---- */

static void put_away(world *w, executor *e, int name, const content *c, uint64_t word) {
    e->held[name] = (held){.here = true,
                           .generation = c->generation,
                           .word = word,
                           .checksum = c->checksum,
                           .bytes = c->bytes,
                           .copies = c->copies};
    (void)w;
}

static void lose(world *w, executor *e, int name, const char *why) {
    if (e->held[name].here) {
        say(w, "e%d: %s is gone (%s)", e->index, names[name], why);
        content *c = content_of(w, name, e->held[name].generation);
        if (c != NULL) {
            c->spoiled = true;
        }
        e->held[name].here = false;
        tell(w, e,
             (cbi_replica_event){.kind = CBI_REPLICA_GONE,
                                 .name = names[name],
                                 .generation = e->held[name].generation});
    }
}

static void put(world *w, executor *e, int name, uint32_t copies) {
    if (e->held[name].here || w->content_count == CONTENTS_MAX || e->draining) {
        return;
    }
    uint64_t bytes = 1 + below(w, 100);
    if (used_by(e) + bytes > e->room) {
        return;
    }
    content c = {.generation = cbi_replica_mint(e->replica, w->now_ns),
                 .word = draw(w),
                 .bytes = bytes,
                 .name = name,
                 .copies = copies};
    c.checksum = sum_of(c.word);
    if (content_of(w, name, c.generation) != NULL) {
        violate(w, "generation %" PRIx64 " was given twice", c.generation);
    }
    for (int i = 0; i < e->heard_count; i++) {
        if (covers(&e->heard[i], name, c.generation)) {
            violate(w, "e%d gives %s a generation that it knows was removed", e->index,
                    names[name]);
        }
    }
    for (int i = 0; i < w->grave_count; i++) { /* not heard of yet, and this clock is behind */
        c.buried = c.buried || covers(&w->graves[i], name, c.generation);
    }
    content *mine = &w->contents[w->content_count++];
    *mine = c;
    mine->stored_by = 1u << e->index;
    put_away(w, e, name, &c, c.word);
    say(w, "e%d: puts %s %" PRIx64 " x%u", e->index, names[name], c.generation, copies);
    cb_status status = CB_OK;
    step(w, e,
         (cbi_replica_event){.kind = CBI_REPLICA_STORED,
                             .name = names[name],
                             .generation = c.generation,
                             .checksum = c.checksum,
                             .bytes = bytes,
                             .copies = copies},
         &status);
    if (status != CB_OK) {
        e->held[name].here = false;
    }
}

static int pending_of(const executor *e, uint64_t ticket) {
    for (int i = 0; i < PENDING_MAX; i++) {
        if (e->pending[i].ticket == ticket) {
            return i;
        }
    }
    return -1;
}

static void answer(world *w, executor *e, int to, const message *about, cbi_replica_answer what) {
    message m = {.kind = TO_ANSWER,
                 .from = e->index,
                 .to = to,
                 .name = about->name,
                 .generation = about->generation,
                 .checksum = about->checksum,
                 .sequence = about->sequence,
                 .answer = what,
                 .executor_generation = cbi_replica_generation(e->replica)};
    say(w, "e%d: answers e%d %d for %s", e->index, to, (int)what, names[about->name]);
    if (reaches(w, e->index, to)) {
        post(w, m, false);
    }
}

static void store_copy(world *w, executor *e, uint64_t ticket) {
    int at = pending_of(e, ticket);
    if (at < 0) {
        violate(w, "e%d stores what did not come", e->index);
        return;
    }
    int name = e->pending[at].name, from = e->pending[at].from;
    uint64_t word = e->pending[at].word;
    content *c = content_of(w, name, e->pending[at].generation);
    e->pending[at].ticket = 0;
    if (c == NULL || c->word != word) {
        violate(w, "e%d stores wrong bytes as %s", e->index, names[name]);
        return;
    }
    message about = {.name = name,
                     .generation = c->generation,
                     .checksum = c->checksum,
                     .sequence = e->pending[at].sequence};
    if (e->held[name].here || happens(w, w->full)) {
        tell(w, e, (cbi_replica_event){.kind = CBI_REPLICA_MISSED, .ticket = ticket});
        answer(w, e, from, &about, CBI_REPLICA_FULL);
        return;
    }
    put_away(w, e, name, c, word);
    c->stored_by |= 1u << e->index;
    cb_status status = CB_OK;
    step(w, e, (cbi_replica_event){.kind = CBI_REPLICA_STORED, .ticket = ticket}, &status);
    if (status != CB_OK) {
        e->held[name].here = false;
    }
    say(w, "e%d: stores a copy of %s: %d", e->index, names[name], (int)status);
    answer(w, e, from, &about, status == CB_OK ? CBI_REPLICA_OK : CBI_REPLICA_FULL);
}

static void accept_offer(world *w, executor *e, uint64_t ticket) {
    const message *o = e->offering;
    int at = pending_of(e, 0);
    if (at < 0 || o == NULL) {
        violate(w, "e%d accepts what nobody offered, or too much", e->index);
        return;
    }
    if (used_by(e) + o->bytes > e->room) {
        violate(w, "e%d accepts more than it has room for", e->index);
    }
    e->pending[at].ticket = ticket;
    e->pending[at].bytes = o->bytes;
    e->pending[at].word = o->word;
    e->pending[at].generation = o->generation;
    e->pending[at].sequence = o->sequence;
    e->pending[at].name = o->name;
    e->pending[at].from = o->from;
    message m = {.kind = happens(w, w->lose) ? TO_MISS : TO_ARRIVE,
                 .from = e->index,
                 .to = e->index,
                 .life = e->life,
                 .ticket = ticket,
                 .checksum = sum_of(o->word)};
    post(w, m, true);
}

static void drop_copy(world *w, executor *e, int name) {
    const held *h = &e->held[name];
    const content *c = h->here ? content_of(w, name, h->generation) : NULL;
    if (c != NULL && !c->buried && !is_superseded(w, c)) {
        violate(w, "e%d drops %s, which nobody removed", e->index, names[name]);
    }
    lose(w, e, name, "removed");
}

static void done_putting(world *w, executor *e, int name, uint64_t generation, uint32_t copies) {
    content *c = content_of(w, name, generation);
    say(w, "e%d: %s is put, x%u", e->index, names[name], copies);
    if (c == NULL || (int)copies > __builtin_popcount(c->stored_by)) {
        violate(w, "e%d answers %u copies of %s, there were %d", e->index, copies, names[name],
                c != NULL ? __builtin_popcount(c->stored_by) : 0);
    } else {
        c->acked = copies;
    }
}

/* ---- what a machine wants ---- */

/** With what was borrowed turned into what lasts. */
typedef struct wish {
    cbi_replica_action a;
    int name, peer;
} wish;

static void send_copy(world *w, executor *e, const wish *x) {
    held *h = &e->held[x->name];
    if (!h->here || h->generation != x->a.generation) {
        return; /* gone because of an action before this one; the machine knows */
    }
    cbi_replica_event event = {.kind = CBI_REPLICA_SENT,
                               .name = names[x->name],
                               .generation = x->a.generation,
                               .peer = w->executors[x->peer].name,
                               .sequence = x->a.sequence,
                               .answer = CBI_REPLICA_FAILED};
    if (happens(w, w->unread)) {
        event.answer = CBI_REPLICA_UNSENT;
        tell(w, e, event);
        return;
    }
    content *c = content_of(w, x->name, h->generation);
    if (c != NULL && happens(w, w->rot)) {
        h->word ^= 1;
        c->spoiled = true;
    }
    message m = {.kind = TO_DATA,
                 .from = e->index,
                 .to = x->peer,
                 .name = x->name,
                 .generation = x->a.generation,
                 .checksum = x->a.checksum,
                 .bytes = x->a.bytes,
                 .word = happens(w, w->flip) ? h->word ^ 4 : h->word,
                 .sequence = x->a.sequence,
                 .copies = x->a.copies};
    say(w, "e%d: sends %s to e%d", e->index, names[x->name], x->peer);
    if (reaches(w, e->index, x->peer)) {
        post(w, m, false);
    } else if (below(w, 2) == 0) { /* refused at once; else silence */
        tell(w, e, event);
    }
}

static void tell_grave(world *w, executor *e, const wish *x) {
    message m = {.kind = TO_TELL,
                 .from = e->index,
                 .to = x->peer,
                 .name = x->name,
                 .grave = x->a.grave,
                 .number = x->a.number,
                 .generation = x->a.generation,
                 .sequence = x->a.sequence};
    if (reaches(w, e->index, x->peer)) {
        post(w, m, false);
    }
}

static void refuse_offer(world *w, executor *e, const wish *x) {
    if (x->a.ticket == 0) {
        answer(w, e, e->offering->from, e->offering, x->a.answer);
        return;
    }
    int at = pending_of(e, x->a.ticket);
    if (at >= 0) {
        const content *c = content_of(w, e->pending[at].name, e->pending[at].generation);
        message about = {.name = e->pending[at].name,
                         .generation = e->pending[at].generation,
                         .sequence = e->pending[at].sequence,
                         .checksum = c != NULL ? c->checksum : 0};
        e->pending[at].ticket = 0;
        answer(w, e, e->pending[at].from, &about, x->a.answer);
    }
}

static void carry_out(world *w, executor *e, const wish *x) {
    switch (x->a.kind) {
        case CBI_REPLICA_SEND: send_copy(w, e, x); break;
        case CBI_REPLICA_LOCATE: locate(w, e, x->name); break;
        case CBI_REPLICA_REPORT: report(w, e, x->name, &x->a.place); break;
        case CBI_REPLICA_PUT_DONE: done_putting(w, e, x->name, x->a.generation, x->a.copies); break;
        case CBI_REPLICA_ACCEPT: accept_offer(w, e, x->a.ticket); break;
        case CBI_REPLICA_REFUSE: refuse_offer(w, e, x); break;
        case CBI_REPLICA_STORE: store_copy(w, e, x->a.ticket); break;
        case CBI_REPLICA_DROP: drop_copy(w, e, x->name); break;
        case CBI_REPLICA_VERIFY:
            if (e->held[x->name].here && !is_good(w, x->name, &e->held[x->name])) {
                lose(w, e, x->name, "bad bytes");
            }
            break;
        case CBI_REPLICA_TELL: tell_grave(w, e, x); break;
        case CBI_REPLICA_MOVED_OUT:
            say(w, "e%d: moved out", e->index);
            e->moved_out = true;
            break;
    }
}

/** Nothing that this life of the executor has heard was removed may be said to be here, nor stay.
 */
static void look_for_the_dead(world *w, executor *e) {
    for (int n = 0; n < NAMES; n++) {
        for (int i = 0; e->held[n].here && i < e->heard_count; i++) {
            if (covers(&e->heard[i], n, e->held[n].generation) &&
                (w->now_ns > e->heard[i].heard_ns + DROPPED_NS ||
                 cbi_replica_holds(e->replica, names[n], e->held[n].generation, NULL))) {
                violate(w, "e%d has %s, of which it has heard that it was removed", e->index,
                        names[n]);
            }
        }
    }
}

static void step(world *w, executor *e, cbi_replica_event event, cb_status *status) {
    cbi_replica_action actions[ACTIONS_MAX];
    size_t max = CBI_REPLICA_ACTIONS_MIN + below(w, ACTIONS_MAX - CBI_REPLICA_ACTIONS_MIN + 1);
    size_t count = max;
    event.now_ns = w->now_ns;
    uint32_t which = below(w, 16); /* other steps let what was held back go on */
    event.hold = which == 0 ? UINT64_MAX : which < 4 ? below(w, 64) : 0;
    event.awaited = below(w, 2) == 0;
    for (int round = 0; count == max && e->alive && w->failed[0] == 0; round++) {
        cb_status came = cbi_replica_step(e->replica, &event, actions, max, &count, NULL);
        *status = round == 0 ? came : *status;
        wish wishes[ACTIONS_MAX];
        for (size_t i = 0; i < count; i++) {
            wishes[i] = (wish){.a = actions[i],
                               .name = name_index(actions[i].name),
                               .peer = executor_index(w, actions[i].peer)};
        }
        for (size_t i = 0; i < 2 * count; i++) { /* reports first: others step on meanwhile */
            const wish *x = &wishes[i % count];
            if ((x->a.kind == CBI_REPLICA_REPORT) == (i < count)) {
                carry_out(w, e, x);
            }
        }
        event = (cbi_replica_event){.kind = CBI_REPLICA_TICK, .now_ns = w->now_ns};
    }
}

/* ---- what messages do ---- */

static bool has_heard(const executor *e, const heard_grave *g) {
    for (int i = 0; i < e->heard_count; i++) {
        const heard_grave *h = &e->heard[i];
        if (h->kind == g->kind && h->name == g->name && h->number == g->number &&
            h->generation >= g->generation) {
            return true;
        }
    }
    return false;
}

static void hear(world *w, executor *e, cbi_grave_kind kind, uint64_t number, int name,
                 uint64_t generation, cbi_replica_event_kind how) {
    cb_status status = CB_OK;
    step(w, e,
         (cbi_replica_event){.kind = how,
                             .grave = kind,
                             .number = number,
                             .name = name >= 0 ? names[name] : "",
                             .generation = generation},
         &status);
    heard_grave g = {kind, name, number, generation, w->now_ns};
    if (status == CB_OK && !has_heard(e, &g)) {
        cb_assert(e->heard_count < GRAVES_MAX);
        e->heard[e->heard_count++] = g;
    }
}

static void tell_located(world *w, executor *e, const message *m) {
    if (e->connected && m->executor_generation == e->generation) {
        tell(w, e,
             (cbi_replica_event){.kind = CBI_REPLICA_LOCATED,
                                 .name = names[m->name],
                                 .locations = m->locations,
                                 .count = m->count});
    }
}

/** Of a block that is older than the one here everybody hears that it was removed. */
static void take_offer(world *w, executor *e, const message *m, cbi_replica_event event) {
    if (e->held[m->name].here && e->held[m->name].generation > m->generation) {
        hear(w, e, CBI_GRAVE_BLOCK, 0, m->name, m->generation, CBI_REPLICA_REMOVE);
        answer(w, e, m->from, m, CBI_REPLICA_IS_BURIED);
        return;
    }
    event.kind = CBI_REPLICA_OFFERED;
    e->offering = m;
    tell(w, e, event);
    e->offering = NULL;
}

static void deliver(world *w, const message *m) {
    executor *e = &w->executors[m->to];
    const char *from = w->executors[m->from].name;
    if (m->kind == TO_REPORT) { /* nobody has to be there for that */
        (void)w->directory.report(w->directory.ctx, e->name, m->executor_generation, names[m->name],
                                  &m->place, NULL);
        return;
    }
    if (!e->alive || (m->life != 0 && m->life != e->life)) {
        return;
    }
    cbi_replica_event event = {.peer = from,
                               .name = m->name >= 0 ? names[m->name] : NULL,
                               .generation = m->generation,
                               .checksum = m->checksum,
                               .bytes = m->bytes,
                               .copies = m->copies,
                               .ticket = m->ticket,
                               .sequence = m->sequence,
                               .peer_generation = m->executor_generation,
                               .answer = m->answer};
    int at = -1;
    switch (m->kind) {
        case TO_DATA: take_offer(w, e, m, event); break;
        case TO_ARRIVE:
            event.kind = CBI_REPLICA_ARRIVED;
            tell(w, e, event);
            break;
        case TO_MISS:
            at = pending_of(e, m->ticket);
            if (at >= 0) {
                e->pending[at].ticket = 0;
            }
            event.kind = CBI_REPLICA_MISSED;
            tell(w, e, event);
            break;
        case TO_ANSWER:
            event.kind = CBI_REPLICA_SENT;
            tell(w, e, event);
            break;
        case TO_LOCATED: tell_located(w, e, m); break;
        case TO_TELL:
            hear(w, e, m->grave, m->number, m->name, m->generation, CBI_REPLICA_BURIED);
            if (reaches(w, m->to, m->from)) {
                message told = {.kind = TO_TOLD,
                                .from = m->to,
                                .to = m->from,
                                .name = -1,
                                .sequence = m->sequence,
                                .executor_generation = cbi_replica_generation(e->replica)};
                post(w, told, false);
            }
            break;
        case TO_TOLD:
            event.kind = CBI_REPLICA_TOLD;
            tell(w, e, event);
            break;
        case TO_REPORT: break;
    }
    look_for_the_dead(w, e);
}

static void deliver_due(world *w) {
    for (int i = 0; i < w->message_count && w->failed[0] == 0;) {
        if (w->messages[i].due_ns > w->now_ns) {
            i++;
            continue;
        }
        message m = w->messages[i];
        w->messages[i] = w->messages[--w->message_count];
        deliver(w, &m);
    }
}

#endif
