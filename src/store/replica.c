/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The problem. Blocks have copies at other executors, and everything that can go wrong does: an
 * answer is lost after the copy was stored, a message comes a minute late or twice, an executor
 * dies while it sends, a directory forgets everything and is told anew by one after the other. No
 * copy may be counted that is not there, nothing that was removed may come back, no two executors
 * may mend the same block for long, and nobody may mend the whole cluster because a directory was
 * restarted.
 *
 * The idea. Nothing is remembered about what others are doing. A block has a state here, and each
 * step looks at what it still lacks; an action that was lost is simply found lacking again. What
 * is believed of others comes from three sources only: an answer that names generation and checksum
 * of the copy, what the directory says when it is asked for this block, and the list of peers.
 *
 *   a put     SENDING: as many peers as copies are missing are offered one, in the order of
 *             replica_peers.c. Each refusal or silence takes the next peer. When there are enough
 *             answers, or nobody is left, PUT_DONE says how many there are.
 *   a death   Who had sent to it, or had got his from it, knows that it had a copy. CHECK: the
 *             directory is asked who has the block now. The least of the holders sends; the others
 *             rest and look again, ever later, and step in when nothing has come of it.
 *   an audit  Every block is checked once in a while, for what nobody noticed: also whether another
 *             one has its name elsewhere. The older of both is removed everywhere then.
 *   leaving   replica_leave.c: who leaves counts the copies whose executors have said so
 * themselves. a restart of the directory: all is reported again, and until `grace_ns` have passed
 * nobody is missed and nothing is mended. An answer of the directory that does not name this
 *             executor for a block that it has reported is not believed either.
 *
 * Generations order what happened to a name: milliseconds of the clock, but never less than any
 * that was heard of, and 20 bits of this life of the executor (a hybrid logical clock). So nobody
 * has to be asked for one, and nobody who forgot everything can give one twice. A reader names
 * generation and checksum and takes nothing else.
 *
 * What it costs. A step touches what the event names. A tick touches what is due (replica_wait.c).
 * What concerns all blocks touches them once, some with each step that follows (replica_sweep.c).
 * 210 bytes a block and its name.
 */
#include <string.h>

#include "base/alloc.h"
#include "store/replica_private.h"

enum {
    ROUNDS_A_RANK = 6,  /* without success, until the next holder in order steps in */
    ROUNDS_LEAVING = 3, /* the same, until who leaves leaves the rest of the copies to others */
    TICK_SWEEPS = 16,   /* times sweep_max, with each tick */
    CLOCK_SHIFT = 20,
};
static const uint64_t CLOCK_MAX = UINT64_C(1) << 43; /* in milliseconds: the year 2248 */

/* ---- small things ---- */

cbi_replica_action *cbi_replica_emit(cbi_replica *r, cbi_replica_action_kind kind) {
    if (r->count == r->max) {
        return NULL;
    }
    cbi_replica_action *a = &r->actions[r->count++];
    *a = (cbi_replica_action){.kind = kind};
    return a;
}

void cbi_replica_retire(cbi_replica *r, void *object) {
    *(void **)object = r->retired;
    r->retired = object;
}

static void free_retired(cbi_replica *r) {
    while (r->retired != NULL) {
        void *next = *(void **)r->retired;
        cbi_free(r->retired);
        r->retired = next;
    }
}

void cbi_replica_heard_of(cbi_replica *r, uint64_t generation) {
    if (generation >> CLOCK_SHIFT > CLOCK_MAX) {
        return; /* nobody's clock: what is made next would begin at 0 again */
    }
    r->clock = cbi_max(r->clock, generation >> CLOCK_SHIFT);
}

uint64_t cbi_replica_mint(cbi_replica *r, uint64_t now_ns) {
    uint64_t passed_ns = now_ns > r->options.now_ns ? now_ns - r->options.now_ns : 0;
    r->clock = cbi_max(r->clock + 1, r->options.wall_ms + passed_ns / 1000000);
    return r->clock << CLOCK_SHIFT | r->id;
}

static uint32_t copies_of(const cbi_replica *r, const cbi_tracked *b) {
    uint64_t held = cbi_replica_living(r, b->held);
    return (r->draining ? 0u : 1u) + (uint32_t)__builtin_popcountll(held) + b->elsewhere;
}

/** There are copies enough. One at an executor that is not in the list is nobody's whose end would
 * be noticed: it is looked for again until it is, or has gone. */
static void rest_or_settle(cbi_replica *r, cbi_tracked *b) {
    if (b->elsewhere > 0 && !r->draining) {
        cbi_tracked_back_off(r, b);
    } else {
        cbi_tracked_settle(r, b);
    }
}

/* ---- emitting ---- */

static void put_done(cbi_replica *r, cbi_tracked *b, uint32_t copies) {
    cbi_replica_action *a = b->put_open ? cbi_replica_emit(r, CBI_REPLICA_PUT_DONE) : NULL;
    if (a != NULL) {
        a->name = b->name;
        a->generation = b->place.block_generation;
        a->copies = copies;
        b->put_open = false;
    }
}

static void fill(cbi_replica_action *a, const cbi_tracked *b) {
    a->name = b->name;
    a->generation = b->place.block_generation;
    a->checksum = b->place.checksum;
    a->bytes = b->bytes;
    a->place = b->place;
    a->copies = b->copies;
}

static bool emit_send(cbi_replica *r, cbi_tracked *b, const cbi_peer *p) {
    cbi_replica_action *a = cbi_replica_emit(r, CBI_REPLICA_SEND);
    if (a == NULL) {
        return false;
    }
    fill(a, b);
    a->peer = p->view.name;
    a->peer_address = p->view.address;
    a->peer_generation = p->view.generation;
    a->slot = (uint8_t)(p - r->peers);
    a->sequence = r->asked = cbi_max(r->asked + 1, r->now_ns);
    b->due_ns = r->now_ns + r->options.answer_ns;
    return true;
}

/** false: no room for all of its actions. */
static bool serve_sending(cbi_replica *r, cbi_tracked *b) {
    uint32_t have = copies_of(r, b);
    uint32_t busy = (uint32_t)__builtin_popcountll(cbi_replica_living(r, b->sending));
    uint64_t held = 0; /* who is to have one, and takes no more now: others have theirs meanwhile */
    bool room = true;
    for (; have + busy < b->copies; busy++) {
        const cbi_peer *p = cbi_replica_candidate(r, b);
        uint64_t bit = p != NULL ? cbi_replica_bit(r, p) : 0;
        room = p == NULL || (r->hold & bit) != 0 || emit_send(r, b, p);
        if (p == NULL || !room) {
            break;
        }
        held |= r->hold & bit;
        b->sending |= bit;
    }
    b->sending &= ~held;
    if (!room) {
        return false;
    }
    if (held != 0) {
        cbi_tracked_hold(r, b, held);
        return true;
    }
    if (have < b->copies && busy > 0) {
        cbi_tracked_queue(r, b, CBI_QUEUE_WAITING);
        return true;
    }
    put_done(r, b, have);
    if (b->put_open) {
        return false;
    }
    if (have >= b->copies || (r->draining && have > 0 && b->rounds >= ROUNDS_LEAVING)) {
        rest_or_settle(r, b);
    } else {
        cbi_tracked_find_nobody(r, b);
    }
    return true;
}

static bool serve_dropping(cbi_replica *r, cbi_tracked *b) {
    put_done(r, b, 0);
    cbi_replica_action *a = b->put_open ? NULL : cbi_replica_emit(r, CBI_REPLICA_DROP);
    if (a == NULL) {
        return false;
    }
    fill(a, b);
    b->state = CBI_BLOCK_DROPPED;
    cbi_tracked_unqueue(r, b);
    return true;
}

static void serve_ready(cbi_replica *r) {
    cbi_tracked *b = NULL;
    while ((b = r->queues[CBI_QUEUE_READY].first) != NULL) {
        bool served = b->state == CBI_BLOCK_DROPPING ? serve_dropping(r, b) : serve_sending(r, b);
        if (!served) {
            return;
        }
    }
}

/** Lines that go on: he takes more, or is not asked now, so that another one is. */
static uint64_t find_open(const cbi_replica *r) {
    uint64_t open = r->lined & ~r->hold;
    for (uint64_t left = r->lined & r->hold; left != 0; left &= left - 1) {
        bool waits = cbi_replica_may_ask(r, &r->peers[__builtin_ctzll(left)]);
        open |= waits ? 0 : left & -left;
    }
    return open;
}

/** What was held back goes on, each line in its turn, and in a line those that somebody waits for
 *  and the others in turn: nobody stands behind all of the others, however many there are. */
static void serve_held(cbi_replica *r) {
    uint64_t open = find_open(r);
    for (size_t most = r->options.sweep_max; most > 0 && open != 0; most--) {
        uint64_t later = open & ~((UINT64_C(2) << r->line_at) - 1);
        unsigned at = (unsigned)__builtin_ctzll(later != 0 ? later : open);
        cbi_line *l = &r->lines[at];
        cbi_tracked *awaited = l->awaited.first, *other = l->others.first;
        bool others_turn = other != NULL && (l->others_turn || awaited == NULL);
        cbi_tracked *b = others_turn ? other : awaited;
        if (b == NULL) {
            open &= ~(UINT64_C(1) << at);
            r->lined &= ~(UINT64_C(1) << at);
            continue;
        }
        if (!serve_sending(r, b)) {
            return;
        }
        r->line_at = at;
        l->others_turn = !others_turn;
    }
}

static void serve_reports(cbi_replica *r) {
    cbi_tracked *b = NULL;
    while (r->entered && (b = r->reports.first) != NULL) {
        cbi_replica_action *a = cbi_replica_emit(r, CBI_REPLICA_REPORT);
        if (a == NULL) {
            return;
        }
        cbi_tracked_unreport(r, b);
        fill(a, b);
        if (!b->present) {
            a->place = (cb_place){.level = CB_LEVEL_NONE};
            cbi_tracked_forget(r, b);
        }
    }
}

static void serve_checks(cbi_replica *r) {
    cbi_tracked *b = NULL;
    while (r->entered && r->now_ns >= r->quiet_ns && r->mending < r->options.mending_max &&
           (b = r->queues[CBI_QUEUE_CHECKS].first) != NULL) {
        cbi_replica_action *a = cbi_replica_emit(r, CBI_REPLICA_LOCATE);
        if (a == NULL) {
            return;
        }
        fill(a, b);
        b->state = CBI_BLOCK_LOCATING;
        b->mending = true;
        r->mending++;
        b->due_ns = r->now_ns + r->options.answer_ns;
        cbi_tracked_queue(r, b, CBI_QUEUE_LOCATING);
    }
}

static void serve(cbi_replica *r) {
    cbi_sweep_some(r, r->options.sweep_max);
    cbi_wait_some(r, r->options.sweep_max);
    serve_ready(r);
    serve_reports(r);
    serve_checks(r);
    cbi_graves_tell(r);
    serve_held(r);
    if (r->draining) {
        cbi_leave_serve(r);
        serve_ready(r);
    }
}

/* ---- what happens here ---- */

static cb_status track(cbi_replica *r, const cbi_replica_event *e, cbi_tracked **block,
                       cb_error *err) {
    cbi_replica_heard_of(r, e->generation);
    if (cbi_graves_cover(r, e->name, e->generation)) {
        return cbi_fail(err, CB_ENOTFOUND, "Block %s has been removed everywhere meanwhile.",
                        e->name);
    }
    cbi_tracked *b = cbi_tracked_find(r, e->name);
    if (b != NULL && b->present) {
        return cbi_fail(err, CB_EEXISTS, "Block %s is here already.", e->name);
    }
    cb_status status = b == NULL ? cbi_tracked_enter(r, e->name, &b, err) : CB_OK;
    if (status != CB_OK) {
        return status;
    }
    b->copies = e->copies > 0 ? e->copies : 1;
    b->place =
        (cb_place){.level = e->level != 0 ? e->level : CB_LEVEL(CB_LEVEL_IN_MEMORY, b->copies),
                   .memory_bytes = e->memory_bytes + e->disk_bytes > 0 ? e->memory_bytes : e->bytes,
                   .disk_bytes = e->disk_bytes,
                   .block_generation = e->generation,
                   .checksum = e->checksum};
    b->bytes = e->bytes;
    b->held = b->sending = b->tried = b->named = 0;
    b->elsewhere = b->rounds = 0;
    b->stored_ns = r->now_ns;
    b->state = CBI_BLOCK_SETTLED;
    b->present = true;
    r->blocks++;
    r->bytes += b->bytes;
    cbi_tracked_report(r, b);
    *block = b;
    return CB_OK;
}

static cb_status stored(cbi_replica *r, const cbi_replica_event *e, cb_error *err) {
    cbi_tracked *b = NULL;
    if (e->ticket == 0) {
        cb_status status = track(r, e, &b, err);
        if (status == CB_OK && e->returned) {
            cbi_tracked_check(r, b);
        } else if (status == CB_OK) {
            b->put_open = true;
            b->awaited = e->awaited;
            cbi_tracked_send(r, b, false);
        }
        return status;
    }
    cbi_offer **at = cbi_offers_find(r, e->ticket);
    const cbi_offer *o = *at;
    if (o == NULL || !o->arrived) {
        return cbi_fail(err, CB_ENOTFOUND, "No copy is awaited under ticket %llu.",
                        (unsigned long long)e->ticket);
    }
    cbi_replica_event whole = *e;
    whole.name = o->name;
    whole.generation = o->generation;
    whole.checksum = o->checksum;
    whole.bytes = o->bytes;
    whole.copies = o->copies;
    const cbi_peer *sender = cbi_replica_peer(r, o->sender);
    if (sender != NULL && sender->view.generation != o->sender_generation) {
        sender = NULL; /* another life of it, which has nothing of that */
    }
    cbi_offers_end(r, at);
    cb_status status = track(r, &whole, &b, err);
    if (status == CB_OK) {
        b->held = sender != NULL ? cbi_replica_bit(r, sender) : 0;
        if (sender == NULL || r->draining) { /* nobody's death would tell that it is short */
            cbi_tracked_check(r, b);
        }
    }
    return status;
}

static void moved(cbi_replica *r, const cbi_replica_event *e) {
    cbi_tracked *b = cbi_tracked_here(r, e->name, e->generation);
    if (b != NULL && e->level != CB_LEVEL_NONE) {
        b->place.level = e->level;
        b->place.memory_bytes = e->memory_bytes;
        b->place.disk_bytes = e->disk_bytes;
        cbi_tracked_report(r, b);
    }
}

static void gone(cbi_replica *r, const cbi_replica_event *e) {
    cbi_tracked *b = cbi_tracked_here(r, e->name, e->generation);
    if (b == NULL) {
        return;
    }
    put_done(r, b, 0);
    cbi_tracked_leave(r, b);
    if (r->entered && !r->options.silent) {
        cbi_tracked_report(r, b);
    } else {
        cbi_tracked_forget(r, b); /* whatever directory there will be is told what is here then */
    }
}

/* ---- removals ---- */

static cb_status bury(cbi_replica *r, const cbi_replica_event *e, cb_error *err) {
    bool added = false;
    cbi_replica_heard_of(r, e->generation);
    cb_status status = cbi_graves_add(r, e, &added, err);
    if (status != CB_OK || !added) {
        return status;
    }
    r->buried = cbi_max(r->buried, e->generation);
    if (e->grave != CBI_GRAVE_BLOCK) {
        cbi_sweep_bury(r);
        return CB_OK;
    }
    cbi_tracked *b = cbi_tracked_find(r, e->name);
    if (b != NULL && b->present && b->state < CBI_BLOCK_DROPPING &&
        b->place.block_generation <= e->generation) {
        cbi_tracked_drop(r, b);
    }
    return CB_OK;
}

/* ---- what others answer ---- */

static void shun(const cbi_replica *r, cbi_peer *p) {
    p->shun_ns = r->now_ns + r->options.retry_ns;
    p->failed = true;
}

static void answered(cbi_replica *r, const cbi_replica_event *e) {
    cbi_tracked *b = cbi_tracked_here(r, e->name, e->generation);
    cbi_peer *p = cbi_replica_peer(r, e->peer);
    if (b == NULL || p == NULL || b->state >= CBI_BLOCK_DROPPING ||
        (e->answer != CBI_REPLICA_FAILED && e->peer_generation < p->view.generation)) {
        return; /* of another content, or of one who is no more */
    }
    uint64_t bit = cbi_replica_bit(r, p);
    bool awaited = (b->sending & bit) != 0;
    if (e->answer == CBI_REPLICA_OK && e->checksum == b->place.checksum) {
        if (((b->held | b->named) & bit) == 0) {
            r->sent += !e->was_there;
            r->mended += b->mends && !e->was_there;
        }
        p->word = cbi_max(p->word, e->sequence);
        if (p->failed) { /* who found nobody meanwhile finds it again */
            p->failed = false;
            cbi_wait_hurry_seldom(r);
        }
        if (r->draining && e->sequence <= r->left_at) { /* who leaves wants a later word */
            b->named |= bit;
            b->tried &= ~bit;
        } else {
            b->held |= bit;
            p->witness = r->draining ? b : NULL;
            r->unwitnessed &= ~bit;
        }
    } else if (awaited && e->answer == CBI_REPLICA_UNSENT) {
        b->tried = UINT64_MAX; /* it can be read for nobody else either, now */
    } else if (awaited) {
        b->tried |= bit;
    } else {
        return;
    }
    b->sending &= ~bit;
    b->named &= r->draining ? UINT64_MAX : ~bit; /* now it is known */
    if (e->answer == CBI_REPLICA_FAILED) {
        shun(r, p);
    }
    cbi_replica_action *a =
        e->answer == CBI_REPLICA_CORRUPT ? cbi_replica_emit(r, CBI_REPLICA_VERIFY) : NULL;
    if (a != NULL) {
        fill(a, b);
    }
    if (b->state == CBI_BLOCK_SENDING) {
        cbi_tracked_queue(r, b, CBI_QUEUE_READY);
    }
}

/** What the directory says of a block, counted. */
typedef struct census {
    uint64_t held;
    uint32_t elsewhere;
    uint32_t before_me; /* holders that mend rather than this one */
    bool named;         /* this one is among them */
} census;

static census count_holders(cbi_replica *r, const cbi_tracked *b, const cbi_replica_event *e) {
    census c = {0};
    uint64_t mine = cbi_replica_score(r->name, b->hash);
    for (size_t i = 0; i < e->count; i++) {
        const cb_location *l = &e->locations[i];
        cbi_replica_heard_of(r, l->place.block_generation);
        if (l->place.block_generation != b->place.block_generation ||
            l->place.checksum != b->place.checksum || l->place.level == CB_LEVEL_NONE) {
            continue;
        }
        if (strcmp(l->executor, r->name) == 0) {
            c.named = l->generation == r->generation;
            continue;
        }
        const cbi_peer *p = cbi_replica_peer(r, l->executor);
        if (p == NULL || p->view.generation < l->generation) {
            c.elsewhere++;
        } else if (p->view.generation == l->generation) {
            c.held |= cbi_replica_bit(r, p);
        } else {
            continue; /* of one who is no more */
        }
        c.before_me += cbi_replica_score(l->executor, b->hash) < mine;
    }
    return c;
}

/** Of the blocks that have a name at different executors the newest is the one, whoever put it: the
 *  others are removed everywhere, for their readers get them as long as they are there, and nobody
 *  who has it takes their copies. false: so is this one. */
static bool is_newest(cbi_replica *r, const cbi_tracked *b, const cbi_replica_event *e) {
    uint64_t newest = b->place.block_generation, older = 0;
    for (size_t i = 0; i < e->count; i++) {
        const cb_location *l = &e->locations[i];
        const cbi_peer *p = cbi_replica_anyone(r, l->executor);
        bool dead = p != NULL && p->view.generation > l->generation;
        uint64_t there = l->place.block_generation;
        if (dead || l->place.level == CB_LEVEL_NONE || strcmp(l->executor, r->name) == 0) {
            continue;
        }
        older = cbi_max(older, there < newest ? there : there > newest ? newest : 0);
        newest = cbi_max(newest, there);
    }
    const cbi_replica_event removal = {
        .grave = CBI_GRAVE_BLOCK, .name = b->name, .generation = older};
    if (older > 0) {
        (void)bury(r, &removal, NULL); /* without memory for it: the next time */
    }
    return b->state < CBI_BLOCK_DROPPING;
}

static void located(cbi_replica *r, const cbi_replica_event *e) {
    cbi_tracked *b = cbi_tracked_find(r, e->name);
    if (b == NULL || !b->present || b->state != CBI_BLOCK_LOCATING) {
        return;
    }
    census c = count_holders(r, b, e);
    if (!c.named) { /* it does not know enough */
        cbi_tracked_report(r, b);
        cbi_tracked_back_off(r, b);
        return;
    }
    if (!is_newest(r, b, e)) {
        return;
    }
    if (r->draining) {
        cbi_leave_count_nobody(b, c.held);
    } else {
        b->held = c.held;
        b->elsewhere = c.elsewhere;
    }
    if (copies_of(r, b) >= b->copies) {
        rest_or_settle(r, b);
    } else if (r->draining || b->rounds >= c.before_me * ROUNDS_A_RANK) {
        cbi_tracked_send(r, b, true);
    } else {
        cbi_tracked_back_off(r, b);
    }
}

/* ---- peers ---- */

static bool has_slot(const cbi_replica *r, const cbi_peer *p) {
    return p < r->peers + CBI_REPLICA_PEERS_MAX;
}

/** Whoever had that place is no more. A slot is nobody's until no block refers to it. */
static void clear_place(cbi_replica *r, cbi_peer *p) {
    if (has_slot(r, p)) {
        r->clearing |= cbi_replica_bit(r, p);
        cbi_sweep_clear(r);
    }
    p->used = false;
}

static cbi_peer *free_slot(cbi_replica *r) {
    for (cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_PEERS_MAX; p++) {
        if (!p->used && cbi_replica_living(r, cbi_replica_bit(r, p)) != 0) {
            return p;
        }
    }
    return NULL;
}

/** For one who is new: a slot, or, as long as all are taken, a place among those who have none. */
static cbi_peer *free_place(cbi_replica *r) {
    cbi_peer *p = free_slot(r);
    for (cbi_peer *q = r->peers + CBI_REPLICA_PEERS_MAX;
         p == NULL && q < r->peers + CBI_REPLICA_TOLD_MAX; q++) {
        p = q->used ? NULL : q;
    }
    return p;
}

/** Answers whether there is somebody new. */
static bool see_peer(cbi_replica *r, const cb_executor_view *view) {
    cbi_peer *p = cbi_replica_anyone(r, view->name);
    bool is_new = p == NULL || p->view.generation != view->generation;
    uint64_t before = 0; /* the bit of one who enters anew */
    if (p != NULL && is_new) {
        bool same = has_slot(r, p) && strcmp(p->view.address, view->address) == 0;
        before = same ? cbi_replica_bit(r, p) : 0;
        clear_place(r, p);
    }
    cbi_peer *place = is_new ? free_place(r) : has_slot(r, p) ? NULL : free_slot(r);
    if (is_new && place == NULL) {
        return false;
    }
    if (is_new) {
        *place = (cbi_peer){.used = true, .told = r->grave_first};
    } else if (place != NULL) { /* there is a slot for it by now */
        *place = *p;
        p->used = false;
        is_new = true;
    }
    p = place != NULL ? place : p;
    if (before != 0 && has_slot(r, p)) {
        r->returning |= before;
        r->returned_as[__builtin_ctzll(before)] = (uint8_t)(p - r->peers);
    }
    if (!is_new && p->lacked &&
        (view->memory_max > p->view.memory_max || view->memory_bytes < p->view.memory_bytes)) {
        p->lacked = false; /* until it does for a block again */
        cbi_wait_hurry_seldom(r);
    }
    p->view = *view;
    p->seen = true;
    p->missing = false;
    return is_new;
}

static void see_peers(cbi_replica *r, const cbi_replica_event *e) {
    bool news = false;
    for (cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_TOLD_MAX; p++) {
        p->seen = false;
    }
    for (size_t i = 0; i < e->count; i++) {
        if (strcmp(e->views[i].name, r->name) != 0 && see_peer(r, &e->views[i])) {
            news = true;
        }
    }
    for (cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_TOLD_MAX; p++) {
        if (p->used && !p->seen && r->now_ns >= r->quiet_ns) {
            clear_place(r, p);
        } else if (p->used && !p->seen) {
            p->missing = true;
        }
    }
    if (news) {
        cbi_wait_hurry(r);
    }
}

/* ---- the directory ---- */

static void lost(cbi_replica *r) {
    r->entered = false;
    for (cbi_tracked *b = NULL; (b = r->queues[CBI_QUEUE_LOCATING].first) != NULL;) {
        cbi_tracked_check(r, b);
    }
}

static void entered(cbi_replica *r, uint64_t generation) {
    lost(r);
    r->entered = true;
    r->generation = generation;
    r->quiet_ns = r->now_ns + r->options.grace_ns;
    for (size_t i = 0; i < r->buckets.count && !r->options.silent; i++) {
        for (cbi_tracked *b = *cbi_tracked_bucket(r, i), *next = NULL; b != NULL; b = next) {
            next = b->chain;
            if (b->present) {
                cbi_tracked_report(r, b);
            } else {
                cbi_tracked_forget(r, b);
            }
        }
    }
}

/* ---- time ---- */

/** Looks at as many buckets as the time that has passed is worth, after a long one some with each
 *  tick. A block that is too young to be looked after would be short, for all that can be seen,
 *  until it is old enough: the next time. */
static void audit(cbi_replica *r, uint64_t passed_ns) {
    size_t count = r->buckets.count;
    size_t most = cbi_min(count, (size_t)TICK_SWEEPS * r->options.sweep_max);
    uint64_t each_ns = cbi_max(r->options.audit_ns / count, 1);
    r->audit_ns = cbi_min(r->audit_ns + passed_ns, each_ns * count); /* of more than all */
    for (size_t n = 0; r->audit_ns >= each_ns && n < most; n++) {
        r->audit_ns -= each_ns;
        r->audit_at = (r->audit_at + 1) % count;
        for (cbi_tracked *b = *cbi_tracked_bucket(r, r->audit_at); b != NULL; b = b->chain) {
            if (b->present && b->state == CBI_BLOCK_SETTLED && (b->copies > 1 || r->draining) &&
                b->stored_ns + r->options.settle_ns <= r->now_ns) {
                cbi_tracked_check(r, b);
            }
        }
    }
}

static void pass_time(cbi_replica *r) {
    if (r->now_ns == r->tick_ns) {
        return;
    }
    for (cbi_tracked *b = r->queues[CBI_QUEUE_LOCATING].first, *next = NULL; b != NULL; b = next) {
        next = b->next;
        if (b->due_ns <= r->now_ns) {
            cbi_tracked_check(r, b);
        }
    }
    uint64_t passed_ns = r->now_ns - r->tick_ns;
    r->tick_ns = r->now_ns;
    cbi_wait_tick(r);
    audit(r, passed_ns);
    cbi_sweep_some(r, (size_t)TICK_SWEEPS * r->options.sweep_max);
    cbi_graves_expire(r);
}

/* ---- the step ---- */

static cb_status apply(cbi_replica *r, const cbi_replica_event *e, cb_error *err) {
    cbi_peer *p = NULL;
    switch (e->kind) {
        case CBI_REPLICA_TICK: pass_time(r); break;
        case CBI_REPLICA_STORED: return stored(r, e, err);
        case CBI_REPLICA_MOVED: moved(r, e); break;
        case CBI_REPLICA_GONE: gone(r, e); break;
        case CBI_REPLICA_PEERS: see_peers(r, e); break;
        case CBI_REPLICA_UNREACHED:
            p = cbi_replica_peer(r, e->peer);
            if (p != NULL) {
                shun(r, p);
            }
            break;
        case CBI_REPLICA_LOCATED: located(r, e); break;
        case CBI_REPLICA_SENT: answered(r, e); break;
        case CBI_REPLICA_OFFERED: cbi_offers_offered(r, e); break;
        case CBI_REPLICA_ARRIVED: cbi_offers_arrived(r, e); break;
        case CBI_REPLICA_MISSED: cbi_offers_missed(r, e); break;
        case CBI_REPLICA_LOST: lost(r); break;
        case CBI_REPLICA_ENTERED: entered(r, e->generation); break;
        case CBI_REPLICA_REMOVE:
        case CBI_REPLICA_BURIED: return bury(r, e, err);
        case CBI_REPLICA_TOLD: cbi_graves_told(r, e); break;
        case CBI_REPLICA_DECOMMISSION: cbi_leave_begin(r); break;
    }
    return CB_OK;
}

cb_status cbi_replica_step(cbi_replica *r, const cbi_replica_event *event,
                           cbi_replica_action *actions, size_t max, size_t *count, cb_error *err) {
    cb_assert(max >= CBI_REPLICA_ACTIONS_MIN);
    free_retired(r);
    r->actions = actions;
    r->max = max;
    r->count = 0;
    r->hold = event->hold;
    r->now_ns = cbi_max(r->now_ns, event->now_ns);
    cb_status status = apply(r, event, err);
    serve(r);
    *count = r->count;
    r->actions = NULL;
    return status;
}

/* ---- looking ---- */

uint64_t cbi_replica_generation(const cbi_replica *r) {
    return r->generation;
}

bool cbi_replica_holds(const cbi_replica *r, const char *name, uint64_t generation,
                       uint64_t *generation_out) {
    const cbi_tracked *b = cbi_tracked_find(r, name);
    if (b == NULL || !b->present || b->state >= CBI_BLOCK_DROPPING ||
        (generation != 0 && b->place.block_generation != generation) ||
        (r->bury_left > 0 && cbi_graves_cover_kin(r, name, b->place.block_generation))) {
        return false;
    }
    if (generation_out != NULL) {
        *generation_out = b->place.block_generation;
    }
    return true;
}

uint64_t cbi_replica_generation_of(const cbi_replica *r, const char *name) {
    const cbi_tracked *b = cbi_tracked_find(r, name);
    return b != NULL && b->present ? b->place.block_generation : 0;
}

uint64_t cbi_replica_buried(const cbi_replica *r) {
    return r->buried;
}

void cbi_replica_room(cbi_replica *r, uint64_t room_bytes) {
    r->options.room_bytes = room_bytes;
}

void cbi_replica_figures_get(const cbi_replica *r, cbi_replica_figures *figures) {
    uint64_t taken = r->bytes + r->reserved_bytes, peers = 0;
    for (const cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_TOLD_MAX; p++) {
        peers += p->used;
    }
    *figures = (cbi_replica_figures){
        .blocks = r->blocks,
        .bytes = r->bytes,
        .reserved_bytes = r->reserved_bytes,
        .room_bytes = r->options.room_bytes > taken ? r->options.room_bytes - taken : 0,
        .watched = r->watched,
        .graves = r->grave_count,
        .graves_lost = r->graves_lost,
        .sent = r->sent,
        .refused = r->refused,
        .mended = r->mended,
        .peers = peers};
}

/* ---- from beginning to end ---- */

static void set_default(uint64_t *option, uint64_t value) {
    *option = *option != 0 ? *option : value;
}

static void set_defaults(cbi_replica_options *o) {
    o->blocks_max = o->blocks_max != 0 ? o->blocks_max : 1u << 20;
    o->graves_max = o->graves_max != 0 ? o->graves_max : 1u << 14;
    o->mending_max = o->mending_max != 0 ? o->mending_max : 32;
    o->sweep_max = o->sweep_max != 0 ? o->sweep_max : 1024;
    set_default(&o->answer_ns, UINT64_C(30000000000));
    set_default(&o->retry_ns, UINT64_C(500000000));
    set_default(&o->grace_ns, UINT64_C(6000000000));
    set_default(&o->settle_ns, UINT64_C(2000000000));
    set_default(&o->audit_ns, UINT64_C(600000000000));
    set_default(&o->grave_ns, UINT64_C(86400000000000));
}

/** false: too long. */
static bool copy_name(char to[CB_EXECUTOR_NAME_MAX + 1], const char *from) {
    size_t bytes = from != NULL ? strnlen(from, CB_EXECUTOR_NAME_MAX + 1) : 0;
    if (bytes > CB_EXECUTOR_NAME_MAX) {
        return false;
    }
    if (bytes > 0) {
        memcpy(to, from, bytes);
    }
    return true;
}

cb_status cbi_replica_create(const cbi_replica_options *options, cbi_replica **replica,
                             cb_error *err) {
    cbi_replica *r = cbi_calloc(1, sizeof *r);
    cb_status status = CB_OK;
    if (r == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for an executor's copies.");
    }
    r->options = *options;
    r->options.name = r->options.host = r->options.rack = NULL; /* copied */
    set_defaults(&r->options);
    if (!copy_name(r->name, options->name) || !copy_name(r->host, options->host) ||
        !copy_name(r->rack, options->rack) || r->name[0] == 0) {
        status = cbi_fail(err, CB_EINVAL, "Name, host and rack of an executor have up to %d bytes.",
                          CB_EXECUTOR_NAME_MAX);
        goto out;
    }
    /* of this life: one before may have been ahead of the clock, for what it had heard of */
    r->id = cbi_replica_score(r->name, options->wall_ms) & ((1u << CLOCK_SHIFT) - 1);
    r->now_ns = r->tick_ns = options->now_ns;
    cbi_wait_begin(r);
    if (!cbi_buckets_init(&r->buckets)) {
        status = cbi_fail(err, CB_ENOMEM, "The system has no memory for an executor's copies.");
        goto out;
    }
    status = cbi_graves_init(r, err);
out:
    if (status != CB_OK) {
        cbi_replica_destroy(r);
        return status;
    }
    *replica = r;
    return CB_OK;
}

void cbi_replica_destroy(cbi_replica *r) {
    if (r == NULL) {
        return;
    }
    free_retired(r);
    for (size_t i = 0; r->buckets.pieces[0] != NULL && i < r->buckets.count; i++) {
        for (cbi_tracked *b = *cbi_tracked_bucket(r, i), *next = NULL; b != NULL; b = next) {
            next = b->chain;
            cbi_free(b);
        }
    }
    for (cbi_offer *o = r->offers, *next = NULL; o != NULL; o = next) {
        next = o->next;
        cbi_free(o);
    }
    cbi_graves_fini(r);
    cbi_buckets_fini(&r->buckets);
    cbi_free(r);
}
