/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The problem. A machine decides about copies (store/replica.c) and must be told of everything at
 * once: by whoever puts a block, by the loop, by those who talk to others. What it wants takes
 * milliseconds or, with a peer that does not answer, many seconds. No client may wait for that but
 * those whose own block it is.
 *
 * The idea. A lock around the machine; each event is a step within it, and what comes out goes into
 * one of two lists. A keeper's thread has what concerns this executor and the directory: who is
 * there, who has a block, what is to be dropped or looked at. A few senders have what goes to
 * others (copies_send.c). A slow peer holds up one or two of them, for as long as nothing moves at
 * most; of copies for it only a few are in that list, and the machine keeps the rest.
 *
 * A SET of a level with several copies parks its connection: it is the loop's again when the
 * machine says that the put is done. The loop itself never waits.
 *
 * What is asked for here and lies elsewhere is a fetcher's work (copies_fetch.c).
 *
 * The directory is told by the store's listener (executor.c), not by the machine's reports: those
 * are dropped here. In what life it knows this executor is seen in its list of executors, twice a
 * second; a list without it is not believed.
 */
#include "serve/copies_private.h"

#include <string.h>

#include "base/alloc.h"

static const uint64_t ms = 1000000;
enum { TICK_MS = 100, BEAT_MS = 500, AGAIN_MS = 200, BRIEFLY_MS = 500, WISHES_MAX = 512 };
enum { GRAVES_SHARE = 32 /* of what storage may have, for removals to be told */ };

/* ---- wishes ---- */

static void append(cbi_wishes *list, cbi_wish *w) {
    w->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = w;
    list->last = w;
}

static void copy_text(char *to, size_t room, const char *from) {
    size_t bytes = from != NULL ? strnlen(from, room - 1) : 0;
    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    to[bytes] = '\0';
}

/** [mutex] It waits already: the machine tells of a removal until it is answered. */
static bool is_told_already(const cbi_wishes *list, const cbi_replica_action *a) {
    bool told = false;
    for (const cbi_wish *w = list->first; a->kind == CBI_REPLICA_TELL && w != NULL && !told;
         w = w->next) {
        told = w->kind == CBI_REPLICA_TELL && strcmp(w->peer, a->peer) == 0;
    }
    return told;
}

/** [mutex] What cannot be noted is found lacking again. */
static void wish(cbi_copies *cp, cbi_wishes *list, const cbi_replica_action *a) {
    if (is_told_already(list, a)) {
        return;
    }
    cbi_wish *w = cbi_alloc(sizeof *w);
    if (w == NULL) {
        return;
    }
    w->kind = a->kind;
    w->due_ns = 0;
    w->generation = a->generation;
    w->checksum = a->checksum;
    w->peer_generation = a->peer_generation;
    w->sequence = a->sequence;
    w->number = a->number;
    w->grave = a->grave;
    w->large = a->kind == CBI_REPLICA_SEND && a->bytes >= CBI_COPY_LARGE;
    copy_text(w->name, sizeof w->name, a->name);
    copy_text(w->peer, sizeof w->peer, a->peer);
    copy_text(w->address, sizeof w->address, a->peer_address);
    w->slot = a->slot;
    append(list, w);
    cp->wish_count++;
    if (w->kind == CBI_REPLICA_SEND) {
        cbi_copies_count_send(cp, w);
    }
    if (list == &cp->local) {
        cbi_cond_broadcast(&cp->wake_keeper);
    } else if (cbi_copies_can_send(cp, w)) { /* else whose end it waits for wakes them */
        cbi_cond_broadcast(&cp->wake_senders);
    }
}

static void forget_wishes(cbi_wishes *list) {
    for (cbi_wish *w = list->first, *next = NULL; w != NULL; w = next) {
        next = w->next;
        cbi_free(w);
    }
    *list = (cbi_wishes){NULL, NULL};
}

/* ---- puts that wait ---- */

/** [mutex] */
static void unlist(cbi_copies *cp, cbi_copy_wait *wait) {
    for (cbi_copy_wait **at = &cp->waits; *at != NULL; at = &(*at)->next) {
        if (*at == wait) {
            *at = wait->next;
            break;
        }
    }
    wait->listed = false;
}

/** [mutex] Its connection is the loop's again. */
static void unpark(cbi_copies *cp, cbi_copy_wait *wait) {
    unlist(cp, wait);
    wait->parked = false;
    cbi_server_hand_back(cp->server, wait->connection);
}

/** [mutex] */
static void put_done(cbi_copies *cp, const cbi_replica_action *a) {
    for (cbi_copy_wait *w = cp->waits, *next = NULL; w != NULL; w = next) {
        next = w->next;
        if (strcmp(w->connection->name, a->name) != 0 ||
            (w->generation != 0 && w->generation != a->generation)) {
            continue;
        }
        w->seen_generation = a->generation;
        w->seen_copies = a->copies;
        if (w->parked) {
            unpark(cp, w);
        }
    }
}

/** [mutex] Whether a client waits for the copies of what it puts by that name. */
static bool is_awaited(const cbi_copies *cp, const char *name) {
    const cbi_copy_wait *w = cp->waits;
    while (w != NULL && strcmp(w->connection->name, name) != 0) {
        w = w->next;
    }
    return w != NULL;
}

void cbi_copies_expect(cbi_copies *cp, cbi_copy_wait *w, cbi_connection *c) {
    cbi_mutex_lock(&cp->mutex);
    *w = (cbi_copy_wait){.connection = c, .listed = true, .next = cp->waits};
    cp->waits = w;
    cbi_mutex_unlock(&cp->mutex);
}

void cbi_copies_known(cbi_copies *cp, cbi_copy_wait *w, uint64_t generation) {
    cbi_mutex_lock(&cp->mutex);
    w->generation = generation;
    if (generation == 0) {
        unlist(cp, w);
    }
    cbi_mutex_unlock(&cp->mutex);
}

bool cbi_copies_wait(cbi_copies *cp, cbi_copy_wait *w, uint32_t *count) {
    cbi_mutex_lock(&cp->mutex);
    const char *name = w->connection->name;
    bool done = w->seen_generation == w->generation || cp->stopped ||
                !cbi_replica_holds(cp->machine, name, w->generation, NULL);
    *count = w->seen_generation == w->generation && w->seen_copies > 0 ? w->seen_copies - 1 : 0;
    if (w->listed && done) {
        unlist(cp, w);
    }
    w->parked = w->listed;
    bool parked = w->parked;
    cbi_mutex_unlock(&cp->mutex);
    return parked;
}

void cbi_copies_give_up(cbi_copies *cp, cbi_copy_wait *w) {
    cbi_mutex_lock(&cp->mutex);
    if (w->parked) {
        unpark(cp, w);
    }
    cbi_mutex_unlock(&cp->mutex);
}

/* ---- steps ---- */

/** [mutex] Puts that are about to be seen come first: what they bring has to be moved too. The
 *  machine is asked again then, for who has been counted upon may have died meanwhile. */
static void moved_out(cbi_copies *cp) {
    atomic_store(&cp->closing, true);
    if (atomic_load(&cp->puts) == 0 && !cp->untracked) {
        cb_server_stop(cp->server);
    }
}

cb_status cbi_copies_put_begin(cbi_copies *cp, const char *name, cb_error *err) {
    atomic_fetch_add(&cp->puts, 1); /* before it looks: one of both sees the other */
    bool refused = atomic_load(&cp->closing);
    if (!refused && atomic_load(&cp->leaving)) {
        cbi_mutex_lock(&cp->mutex);
        refused = cp->untracked;
        cbi_mutex_unlock(&cp->mutex);
    }
    if (refused) {
        cbi_copies_put_end(cp);
        return cbi_fail(err, CB_EAGAIN,
                        "This server is leaving and takes no more: put block %.255s elsewhere.",
                        name);
    }
    return CB_OK;
}

void cbi_copies_put_end(cbi_copies *cp) {
    atomic_fetch_sub(&cp->puts, 1);
}

/** [mutex] */
static void carry(cbi_copies *cp, const cbi_replica_action *a) {
    switch (a->kind) {
        case CBI_REPLICA_SEND:
        case CBI_REPLICA_TELL: wish(cp, &cp->remote, a); break;
        case CBI_REPLICA_LOCATE:
        case CBI_REPLICA_DROP:
        case CBI_REPLICA_VERIFY: wish(cp, &cp->local, a); break;
        case CBI_REPLICA_PUT_DONE: put_done(cp, a); break;
        case CBI_REPLICA_REPORT: /* the listener does */
        case CBI_REPLICA_ACCEPT: /* these three are looked at by who offers and stores */
        case CBI_REPLICA_REFUSE:
        case CBI_REPLICA_STORE: break;
        case CBI_REPLICA_MOVED_OUT: moved_out(cp); break;
        default: break;
    }
}

/** [mutex] *first, where it is wanted: the first action, valid as long as the mutex is held and no
 *  more steps are made. */
static cb_status step(cbi_copies *cp, cbi_replica_event event, cbi_replica_action *first,
                      cb_error *err) {
    enum { MOST = sizeof cp->actions / sizeof *cp->actions };
    bool busy = cp->wish_count > WISHES_MAX; /* the machine keeps the rest */
    size_t count = 0, max = busy ? CBI_REPLICA_ACTIONS_MIN : MOST;
    event.now_ns = cbi_sys_clock_ns();
    event.hold = cp->hold;
    cb_status status = cbi_replica_step(cp->machine, &event, cp->actions, max, &count, err);
    atomic_store(&cp->buried, cbi_replica_buried(cp->machine));
    if (first != NULL && count > 0) {
        *first = cp->actions[0];
    }
    for (;;) {
        for (size_t i = 0; i < count; i++) {
            carry(cp, &cp->actions[i]);
        }
        busy = busy || cp->wish_count > WISHES_MAX;
        if (count < max || busy) {
            break;
        }
        const cbi_replica_event more = {
            .kind = CBI_REPLICA_TICK, .now_ns = event.now_ns, .hold = cp->hold};
        (void)cbi_replica_step(cp->machine, &more, cp->actions, max, &count, NULL);
    }
    return status;
}

cb_status cbi_copies_step(cbi_copies *cp, cbi_replica_event event, cb_error *err) {
    return step(cp, event, NULL, err);
}

void cbi_copies_tell(cbi_copies *cp, cbi_replica_event event) {
    cbi_mutex_lock(&cp->mutex);
    (void)step(cp, event, NULL, NULL);
    cbi_mutex_unlock(&cp->mutex);
}

/* ---- what happens to blocks here ---- */

/** [mutex] Also where those lie that were told of it. */
static void bury_block(cbi_copies *cp, const char *name, uint64_t generation) {
    (void)step(cp,
               (cbi_replica_event){.kind = CBI_REPLICA_REMOVE,
                                   .grave = CBI_GRAVE_BLOCK,
                                   .name = name,
                                   .generation = generation},
               NULL, NULL);
}

void cbi_copies_recount(cbi_copies *cp) {
    cbi_replica_figures f;
    cbi_replica_figures_get(cp->machine, &f);
    /* a copy that is being stored is as good as one: the listener is to look for it */
    atomic_store(&cp->tracked, f.blocks + (cp->arrivals != NULL ? 1 : 0));
}

cbi_copy_arrival *cbi_copies_arrival_of(cbi_copies *cp, const cb_block_status *b) {
    for (cbi_copy_arrival *a = cp->arrivals; a != NULL; a = a->next) {
        if (a->generation == b->generation && strcmp(a->name, b->name) == 0) {
            return a;
        }
    }
    return NULL;
}

cbi_replica_event cbi_copies_stored(const cb_block_status *b, uint64_t ticket, bool returned) {
    return (cbi_replica_event){.kind = CBI_REPLICA_STORED,
                               .ticket = ticket,
                               .returned = returned,
                               .name = b->name,
                               .generation = b->generation,
                               .checksum = b->checksum,
                               .bytes = b->memory_bytes > 0 ? b->memory_bytes : b->disk_bytes,
                               .memory_bytes = b->memory_bytes,
                               .disk_bytes = b->disk_bytes,
                               .level = b->level,
                               .copies = cb_level_replicas(b->asked)};
}

/** [mutex] */
static void note_new(cbi_copies *cp, const cb_block_status *b) {
    cbi_copy_arrival *arrival = cbi_copies_arrival_of(cp, b);
    uint64_t ticket = arrival != NULL ? arrival->ticket : 0;
    cbi_replica_event event = cbi_copies_stored(b, ticket, false);
    event.awaited = is_awaited(cp, b->name);
    cb_status status = step(cp, event, NULL, NULL);
    if (arrival != NULL) {
        arrival->ticket = 0; /* what came of it is seen by whether the block is tracked */
    } else if (status != CB_OK && status != CB_EEXISTS && status != CB_ENOTFOUND &&
               atomic_load(&cp->leaving)) {
        cp->untracked = true; /* it would be lost: nobody leaves without it */
    }
}

/** [mutex] */
static void note(cbi_copies *cp, const cb_block_status *b) {
    uint64_t had = cbi_replica_generation_of(cp->machine, b->name);
    cbi_replica_event event = {.kind = CBI_REPLICA_MOVED,
                               .name = b->name,
                               .generation = had,
                               .level = b->level,
                               .memory_bytes = b->memory_bytes,
                               .disk_bytes = b->disk_bytes};
    bool gone = b->level == CB_LEVEL_NONE;
    if (!gone && b->generation != 0 && had > b->generation) {
        return; /* of before it was replaced: who looked without a lock says so too late */
    }
    if (had != 0 && (gone || had != b->generation)) {
        event.kind = CBI_REPLICA_GONE;
    }
    if (had != 0) {
        (void)step(cp, event, NULL, NULL);
    }
    if (gone || had == b->generation) {
        return;
    }
    if (had != 0) { /* another block has taken its name */
        bury_block(cp, b->name, had);
    }
    bool several = cb_level_replicas(b->asked) > 1 || atomic_load(&cp->leaving);
    if (b->generation != 0 && (several || cbi_copies_arrival_of(cp, b) != NULL)) {
        note_new(cp, b);
    }
}

void cbi_copies_note(cbi_copies *cp, const cb_block_status *b) {
    if (cb_level_replicas(b->asked) <= 1 && atomic_load(&cp->tracked) == 0 &&
        !atomic_load(&cp->leaving)) {
        return; /* nobody's concern */
    }
    cbi_mutex_lock(&cp->mutex);
    if (!cp->stopped) {
        note(cp, b);
        cbi_copies_recount(cp);
    }
    cbi_mutex_unlock(&cp->mutex);
}

uint64_t cbi_copies_generation(cbi_copies *cp, const char *name) {
    if (atomic_load(&cp->tracked) == 0) {
        return 0;
    }
    cbi_mutex_lock(&cp->mutex);
    uint64_t generation = cbi_replica_generation_of(cp->machine, name);
    cbi_mutex_unlock(&cp->mutex);
    return generation;
}

void cbi_copies_removed(cbi_copies *cp, const char *name, uint64_t generation) {
    cbi_mutex_lock(&cp->mutex);
    if (!cp->stopped) {
        bury_block(cp, name, generation);
    }
    cbi_mutex_unlock(&cp->mutex);
}

/* ---- copies that others offer ---- */

cbi_replica_answer cbi_copies_offered(cbi_copies *cp, const cbi_copy_offer *o,
                                      cbi_copy_arrival *arrival, uint64_t *older) {
    cbi_replica_action first = {.kind = CBI_REPLICA_REFUSE, .answer = CBI_REPLICA_FULL};
    *older = 0;
    cbi_server_heard_of(cp->server, o->generation);
    cbi_mutex_lock(&cp->mutex);
    if (!cp->stopped) {
        (void)step(cp,
                   (cbi_replica_event){.kind = CBI_REPLICA_OFFERED,
                                       .peer = o->sender,
                                       .name = o->name,
                                       .generation = o->generation,
                                       .checksum = o->checksum,
                                       .bytes = o->bytes,
                                       .copies = o->copies},
                   &first, NULL);
    }
    if (first.kind == CBI_REPLICA_REFUSE && first.answer == CBI_REPLICA_CONFLICT) {
        uint64_t there = cbi_replica_generation_of(cp->machine, o->name);
        *older = there < o->generation ? there : 0;
    }
    cbi_mutex_unlock(&cp->mutex);
    if (first.kind == CBI_REPLICA_REFUSE) {
        return first.answer;
    }
    *arrival = (cbi_copy_arrival){.ticket = first.ticket, .generation = o->generation};
    return CBI_REPLICA_FAILED;
}

bool cbi_copies_awaits(cbi_copies *cp, const cbi_copy_arrival *arrival) {
    cbi_mutex_lock(&cp->mutex);
    bool awaits = arrival->ticket != 0;
    cbi_mutex_unlock(&cp->mutex);
    return awaits;
}

cbi_replica_answer cbi_copies_arrived(cbi_copies *cp, cbi_copy_arrival *arrival, const char *name,
                                      uint64_t checksum) {
    cbi_replica_action first = {.kind = CBI_REPLICA_REFUSE, .answer = CBI_REPLICA_FAILED};
    cbi_mutex_lock(&cp->mutex);
    if (!cp->stopped) {
        (void)step(cp,
                   (cbi_replica_event){.kind = CBI_REPLICA_ARRIVED,
                                       .ticket = arrival->ticket,
                                       .checksum = checksum},
                   &first, NULL);
    }
    bool stores = first.kind == CBI_REPLICA_STORE && strcmp(first.name, name) == 0;
    if (stores && arrival->name == NULL) {
        arrival->next = cp->arrivals;
        cp->arrivals = arrival;
        cbi_copies_recount(cp);
    }
    if (stores) {
        arrival->name = name;
    }
    cbi_mutex_unlock(&cp->mutex);
    return stores                            ? CBI_REPLICA_OK
           : first.kind == CBI_REPLICA_STORE ? CBI_REPLICA_FAILED
                                             : first.answer;
}

void cbi_copies_arrival_end(cbi_copies *cp, cbi_copy_arrival *arrival) {
    cbi_mutex_lock(&cp->mutex);
    for (cbi_copy_arrival **at = &cp->arrivals; *at != NULL; at = &(*at)->next) {
        if (*at == arrival) {
            *at = arrival->next;
            break;
        }
    }
    if (arrival->ticket != 0 && !cp->stopped) {
        (void)step(cp, (cbi_replica_event){.kind = CBI_REPLICA_MISSED, .ticket = arrival->ticket},
                   NULL, NULL);
    }
    *arrival = (cbi_copy_arrival){0};
    cbi_copies_recount(cp);
    cbi_mutex_unlock(&cp->mutex);
}

/* ---- removals ---- */

cb_status cbi_copies_bury(cbi_copies *cp, const cbi_copy_grave *g, const char *name, bool is_mine,
                          cb_error *err) {
    cb_status status = CB_OK;
    cbi_server_heard_of(cp->server, g->generation);
    cbi_mutex_lock(&cp->mutex);
    if (!cp->stopped) {
        status = step(cp,
                      (cbi_replica_event){.kind = is_mine ? CBI_REPLICA_REMOVE : CBI_REPLICA_BURIED,
                                          .grave = g->kind,
                                          .name = name,
                                          .number = g->number,
                                          .generation = g->generation},
                      NULL, err);
    }
    cbi_mutex_unlock(&cp->mutex);
    return status;
}

bool cbi_copies_end_buried(cbi_copies *cp, cb_block_task *task, const char *name,
                           uint64_t generation) {
    if (generation == 0 || generation > atomic_load(&cp->buried)) {
        return false; /* as nearly always */
    }
    cbi_mutex_lock(&cp->mutex);
    bool buried = !cp->stopped && cbi_replica_is_buried(cp->machine, name, generation);
    cbi_mutex_unlock(&cp->mutex);
    if (buried) {
        cbi_copies_end_block(cp, task, name, generation);
    }
    return buried;
}

/* ---- the keeper ---- */

void cbi_copies_end_block(cbi_copies *cp, cb_block_task *task, const char *name,
                          uint64_t generation) {
    if (cbi_blocks_retire(cp->server->blocks, task, name, generation, NULL) != CB_EAGAIN) {
        return;
    }
    const cbi_replica_action a = {.kind = CBI_REPLICA_DROP, .name = name, .generation = generation};
    cbi_mutex_lock(&cp->mutex);
    cbi_wish *w = cp->local.first;
    while (w != NULL && (w->kind != CBI_REPLICA_DROP || strcmp(w->name, name) != 0)) {
        w = w->next;
    }
    if (w != NULL) { /* asked for again and again: one wish is enough */
        w->generation = cbi_max(w->generation, generation);
    } else {
        wish(cp, &cp->local, &a);
    }
    cbi_mutex_unlock(&cp->mutex);
}

/** false: once more, later. */
static bool drop(cbi_copies *cp, const cbi_wish *w) {
    cb_status status =
        cbi_blocks_retire(cp->server->blocks, cp->task, w->name, w->generation, NULL);
    if (status == CB_ENOTFOUND) {
        cbi_copies_tell(cp, (cbi_replica_event){.kind = CBI_REPLICA_GONE,
                                                .name = w->name,
                                                .generation = w->generation});
    }
    return status != CB_EAGAIN;
}

static cb_status sum_of(const cb_block_ref *ref, uint8_t *buffer, uint64_t *sum, cb_error *err) {
    XXH3_state_t state;
    cb_block_reader *reader = NULL;
    size_t got = 0;
    (void)XXH3_64bits_reset(&state);
    cb_status status = cb_block_reader_open(ref, &reader, err);
    while (status == CB_OK) {
        got = 0;
        status = cb_block_reader_read(reader, buffer, CBI_STREAM_BYTES, &got, err);
        cbi_sum_add(&state, buffer, got);
    }
    cb_block_reader_close(reader);
    *sum = XXH3_64bits_digest(&state);
    return status == CB_EEND ? CB_OK : status;
}

/** Somebody got other bytes: is what lies here what it was? */
static void verify(cbi_copies *cp, const cbi_wish *w) {
    enum { PIECE = CBI_STREAM_BYTES };
    cb_block_ref ref;
    uint64_t sum = 0;
    uint8_t *buffer = cbi_alloc(PIECE);
    cp->task->deadline_ns = cbi_sys_clock_ns() + BRIEFLY_MS * ms;
    cb_status status = buffer == NULL ? CB_ENOMEM
                                      : cb_blocks_lock(cp->server->blocks, cp->task, w->name, false,
                                                       true, &ref, NULL);
    cp->task->deadline_ns = 0;
    if (status == CB_OK) {
        bool same = cbi_node_identity(ref.block).generation == w->generation;
        status = same ? sum_of(&ref, buffer, &sum, NULL) : CB_ENOTFOUND;
        cb_block_release(&ref);
        if (status == CB_OK && sum != w->checksum) {
            cbi_copies_end_block(cp, cp->task, w->name, w->generation);
        }
    }
    cbi_free(buffer);
}

/** What a directory says is no more to be believed than what an executor offers: of a clock that
 * was wrong for a day nothing makes good copies the older ones, which would be removed. That holds
 * for a block of our own, too. Answers how many are left. */
static size_t leave_believed(cbi_copies *cp, const cbi_wish *w, size_t count) {
    bool own = cbi_server_believes(w->generation);
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        const cb_location *l = &cp->locations[i];
        uint64_t generation = l->place.block_generation;
        if (generation == w->generation || (own && cbi_server_believes(generation)) ||
            strcmp(l->executor, cp->server->me.name) == 0) {
            cp->locations[left++] = *l;
        }
    }
    return left;
}

static void locate(cbi_copies *cp, const cbi_wish *w) {
    const cb_directory *d = &cp->server->directory;
    size_t count = 0;
    cb_status status = d->locate(d->ctx, w->name, cp->locations, CBI_COPY_VIEWS, &count, NULL);
    if (status != CB_OK && status != CB_EAGAIN) { /* the machine itself waits for what is told */
        cbi_mutex_lock(&cp->mutex);
        cp->answers = false;
        cp->entered = 0;
        (void)step(cp, (cbi_replica_event){.kind = CBI_REPLICA_LOST}, NULL, NULL);
        cbi_mutex_unlock(&cp->mutex);
        return;
    }
    count = leave_believed(cp, w, cbi_min(count, CBI_COPY_VIEWS));
    for (size_t i = 0; i < count; i++) {
        cbi_server_heard_of(cp->server, cp->locations[i].place.block_generation);
    }
    cbi_copies_tell(cp, (cbi_replica_event){.kind = CBI_REPLICA_LOCATED,
                                            .name = w->name,
                                            .locations = cp->locations,
                                            .count = count});
}

/** What there is room for, and how much of that is taken. */
static uint64_t whole_room(const cb_server *s, uint64_t *used) {
    cb_blocks_stats b;
    cb_blocks_stats_get(s->blocks, &b);
    *used = b.memory_bytes + b.disk_bytes;
    return cb_manager_storage_max(s->manager, CB_HEAP) + s->disk_bytes;
}

/** [mutex] Copies have what is not taken by blocks that the machine does not know. */
static void set_room(cbi_copies *cp, uint64_t whole, uint64_t used) {
    cbi_replica_figures f;
    cbi_replica_figures_get(cp->machine, &f);
    uint64_t others = used > f.bytes ? used - f.bytes : 0;
    cbi_replica_room(cp->machine, whole > others ? whole - others : 0);
}

/** Who is there, and whether the directory knows us, in which life. */
static void beat(cbi_copies *cp) {
    const cb_server *s = cp->server;
    size_t count = 0;
    const cb_executor_view *me = NULL;
    cb_status status =
        s->directory.peers(s->directory.ctx, "", cp->new_views, CBI_COPY_VIEWS, &count, NULL);
    count = status == CB_OK ? cbi_min(count, CBI_COPY_VIEWS) : 0;
    for (size_t i = 0; i < count; i++) {
        const cb_executor_view *v = &cp->new_views[i];
        if (strcmp(v->name, s->me.name) == 0 && v->generation >= s->me.generation &&
            strcmp(v->address, s->me.address) == 0) {
            me = v;
        }
    }
    uint64_t used = 0, whole = whole_room(s, &used);
    cbi_mutex_lock(&cp->mutex);
    cp->answers = status == CB_OK;
    if (me == NULL && cp->entered != 0) {
        (void)step(cp, (cbi_replica_event){.kind = CBI_REPLICA_LOST}, NULL, NULL);
    } else if (me != NULL && me->generation != cp->entered) {
        (void)step(cp,
                   (cbi_replica_event){.kind = CBI_REPLICA_ENTERED, .generation = me->generation},
                   NULL, NULL);
    }
    cp->entered = me != NULL ? me->generation : 0;
    if (me != NULL) {
        set_room(cp, whole, used);
        memcpy(cp->views, cp->new_views, count * sizeof *cp->views);
        cp->view_count = count;
        (void)step(
            cp, (cbi_replica_event){.kind = CBI_REPLICA_PEERS, .views = cp->views, .count = count},
            NULL, NULL);
    }
    cbi_mutex_unlock(&cp->mutex);
}

/** [mutex] The first wish that is due, taken out; *due_ns: when the next one is. */
static cbi_wish *take_local(cbi_copies *cp, uint64_t now, uint64_t *due_ns) {
    cbi_wish *before = NULL;
    for (cbi_wish *w = cp->local.first; w != NULL; before = w, w = w->next) {
        if (w->due_ns <= now) {
            *(before != NULL ? &before->next : &cp->local.first) = w->next;
            cp->local.last = cp->local.last == w ? before : cp->local.last;
            return w;
        }
        *due_ns = cbi_min(*due_ns, w->due_ns);
    }
    return NULL;
}

static void carry_out(cbi_copies *cp, cbi_wish *w) {
    bool done = true;
    switch (w->kind) {
        case CBI_REPLICA_LOCATE: locate(cp, w); break;
        case CBI_REPLICA_DROP: done = drop(cp, w); break;
        case CBI_REPLICA_VERIFY: verify(cp, w); break;
        case CBI_REPLICA_SEND:
        case CBI_REPLICA_REPORT:
        case CBI_REPLICA_PUT_DONE:
        case CBI_REPLICA_ACCEPT:
        case CBI_REPLICA_REFUSE:
        case CBI_REPLICA_STORE:
        case CBI_REPLICA_TELL:
        case CBI_REPLICA_MOVED_OUT:
        default: break;
    }
    w->due_ns = cbi_sys_clock_ns() + AGAIN_MS * ms;
    cbi_mutex_lock(&cp->mutex);
    if (done) {
        cp->wish_count--;
        cbi_free(w);
    } else {
        append(&cp->local, w);
    }
    cbi_mutex_unlock(&cp->mutex);
}

static void keep(void *ctx) {
    cbi_copies *cp = ctx;
    uint64_t tick_ns = 0;
    cbi_mutex_lock(&cp->mutex);
    while (!atomic_load(&cp->quit)) {
        uint64_t now = cbi_sys_clock_ns();
        uint64_t due_ns = cbi_min(tick_ns, cp->beat_ns);
        if (now >= cp->beat_ns) {
            bool lacks = cp->draining && cp->untracked;
            cp->beat_ns = now + BEAT_MS * ms;
            cbi_mutex_unlock(&cp->mutex);
            beat(cp);
            if (lacks) { /* others have gone by now, perhaps */
                (void)cbi_copies_track_all(cp, NULL);
            }
            cbi_mutex_lock(&cp->mutex);
            continue;
        }
        if (now >= tick_ns) {
            tick_ns = now + TICK_MS * ms;
            (void)step(cp, (cbi_replica_event){.kind = CBI_REPLICA_TICK}, NULL, NULL);
            if (atomic_load(&cp->closing)) { /* is it still so, now that puts may be over? */
                (void)step(cp, (cbi_replica_event){.kind = CBI_REPLICA_DECOMMISSION}, NULL, NULL);
            }
            continue;
        }
        if (cbi_copies_tend_claims(cp, now, &due_ns)) {
            due_ns = now; /* there may be more, and wishes have their turn between */
        }
        cbi_wish *w = take_local(cp, now, &due_ns);
        if (w == NULL) {
            (void)cbi_cond_wait_until(&cp->wake_keeper, &cp->mutex, due_ns);
            continue;
        }
        cbi_mutex_unlock(&cp->mutex);
        carry_out(cp, w);
        cbi_mutex_lock(&cp->mutex);
    }
    cbi_mutex_unlock(&cp->mutex);
}

/* ---- beginning and end ---- */

cb_status cbi_copies_create(cb_server *s, const cb_executor_entry *entry, cbi_copies **copies,
                            cb_error *err) {
    cbi_copies *cp = cbi_calloc(1, sizeof *cp);
    if (cp == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for an executor's copies.");
    }
    cp->server = s;
    cp->answers = true;
    cbi_mutex_init(&cp->mutex, CBI_RANK_COPIES);
    cbi_cond_init(&cp->wake_keeper);
    cbi_cond_init(&cp->wake_senders);
    cbi_cond_init(&cp->wake_fetchers);
    for (size_t i = 0; i < CBI_COPY_LINKS; i++) {
        cp->links[i].fd = -1;
    }
    for (size_t i = 0; i < CBI_COPY_FETCHERS; i++) {
        cp->fetchers[i].fd = -1;
    }
    const cbi_replica_options o = {.name = entry->name,
                                   .host = entry->host,
                                   .rack = entry->rack,
                                   .wall_ms = cbi_sys_time_ns() / ms,
                                   .now_ns = cbi_sys_clock_ns(),
                                   .silent = true,
                                   .room_bytes = entry->memory_max,
                                   .graves_bytes_max = entry->memory_max / GRAVES_SHARE + 1};
    cb_status status = cbi_replica_create(&o, &cp->machine, err);
    if (status != CB_OK) {
        cbi_copies_destroy(cp);
        return status;
    }
    *copies = cp;
    return CB_OK;
}

cb_status cbi_copies_start(cbi_copies *cp, cb_error *err) {
    CB_TRY(cb_block_task_create(cp->server->blocks, 0, 0, &cp->task, err));
    CB_TRY(cbi_copies_returned(cp, err));
    CB_TRY(cbi_thread_start(&cp->keeper, keep, cp, "carbide-copies", err));
    for (size_t i = 0; i < CBI_COPY_SENDERS; i++) {
        cbi_copy_sender *x = &cp->senders[i];
        x->copies = cp;
        x->small = i == 0;
        CB_TRY(cb_block_task_create(cp->server->blocks, 0, 0, &x->task, err));
        CB_TRY(cbi_thread_start(&x->thread, cbi_copies_send, x, "carbide-send", err));
    }
    for (size_t i = 0; i < CBI_COPY_FETCHERS; i++) {
        cbi_copy_fetcher *f = &cp->fetchers[i];
        f->copies = cp;
        CB_TRY(cbi_thread_start(&f->thread, cbi_copies_fetch_all, f, "carbide-fetch", err));
    }
    return CB_OK;
}

void cbi_copies_stop(cbi_copies *cp) {
    if (cp == NULL) {
        return;
    }
    cbi_mutex_lock(&cp->mutex);
    atomic_store(&cp->quit, true);
    cbi_cond_broadcast(&cp->wake_keeper);
    cbi_cond_broadcast(&cp->wake_senders);
    cbi_cond_broadcast(&cp->wake_fetchers);
    cbi_mutex_unlock(&cp->mutex);
    cbi_thread_join(&cp->keeper);
    for (size_t i = 0; i < CBI_COPY_SENDERS; i++) {
        cbi_thread_join(&cp->senders[i].thread);
    }
    for (size_t i = 0; i < CBI_COPY_FETCHERS; i++) {
        cbi_thread_join(&cp->fetchers[i].thread);
    }
    cbi_copies_claims_stop(cp);
    cbi_copies_fetch_none(cp);
    cbi_mutex_lock(&cp->mutex);
    cp->stopped = true;
    for (cbi_copy_wait *w = cp->waits, *next = NULL; w != NULL; w = next) {
        next = w->next;
        if (w->parked) {
            unpark(cp, w);
        }
    }
    cbi_mutex_unlock(&cp->mutex);
    for (size_t i = 0; i < CBI_COPY_SENDERS; i++) {
        if (cp->senders[i].task != NULL) {
            (void)cb_block_task_end(cp->senders[i].task);
            cp->senders[i].task = NULL;
        }
    }
    if (cp->task != NULL) {
        (void)cb_block_task_end(cp->task);
        cp->task = NULL;
    }
}

void cbi_copies_destroy(cbi_copies *cp) {
    if (cp == NULL) {
        return;
    }
    for (size_t i = 0; i < CBI_COPY_LINKS; i++) {
        if (cp->links[i].fd >= 0) {
            (void)cbi_sys_close(cp->links[i].fd);
        }
    }
    for (size_t i = 0; i < CBI_COPY_FETCHERS; i++) {
        if (cp->fetchers[i].fd >= 0) {
            (void)cbi_sys_close(cp->fetchers[i].fd);
        }
    }
    forget_wishes(&cp->local);
    forget_wishes(&cp->remote);
    cbi_replica_destroy(cp->machine);
    cbi_cond_fini(&cp->wake_fetchers);
    cbi_cond_fini(&cp->wake_senders);
    cbi_cond_fini(&cp->wake_keeper);
    cbi_mutex_fini(&cp->mutex);
    cbi_free(cp);
}

cbi_replica_figures cbi_copies_figures(cbi_copies *cp) {
    cbi_replica_figures f;
    cbi_mutex_lock(&cp->mutex);
    cbi_replica_figures_get(cp->machine, &f);
    cbi_mutex_unlock(&cp->mutex);
    return f;
}
