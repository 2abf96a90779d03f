/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes to other executors: copies of blocks, and what was removed. RESP, as anybody speaks it
 * to a server: CARBIDE.OFFER says what would come, so that a peer that has it, or no room, takes
 * nothing; CARBIDE.PUT brings it, from where the block lies to the socket. A block is locked for
 * reading meanwhile.
 *
 * A peer has up to three connections, each with one sender at a time. One is for small blocks and
 * removals, so that none of them waits for a large block; large ones have two, so that one is on
 * its way while the peer verifies the other. Nothing overtakes a removal that its peer is still to
 * hear of, or a block of the same name.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "serve/copies_private.h"

enum { LOCKED_MS = 5000, ANSWER_MS = 20000 };
/* Copies to one peer that are noted: 16 of small blocks, behind which one waits that somebody is
 * waiting for, and as many more as come with the step that begins with less. Large ones, which go
 * by other connections, count less: they would hold back the small ones. ALL_MAX: to all peers, for
 * the sake of memory. */
enum { SENDS_MAX = 64, SMALL_WEIGHS = 4, ALL_MAX = 512 };

static const uint64_t ms = 1000000;

/* ---- a copy ---- */

static cbi_replica_answer answer_of(const char *line) {
    static const struct {
        const char *word;
        cbi_replica_answer answer;
    } known[] = {{"-FULL ", CBI_REPLICA_FULL},
                 {"-OOM ", CBI_REPLICA_FULL},
                 {"-CORRUPT ", CBI_REPLICA_CORRUPT},
                 {"-CONFLICT ", CBI_REPLICA_CONFLICT},
                 {"-BURIED ", CBI_REPLICA_IS_BURIED},
                 {"-BUSY ", CBI_REPLICA_IS_BUSY},
                 {"-ERR ", CBI_REPLICA_FULL},
                 {"-CLOCK ", CBI_REPLICA_FULL},
                 {"+OK", CBI_REPLICA_OK}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strncmp(line, known[i].word, strlen(known[i].word)) == 0) {
            return known[i].answer;
        }
    }
    return CBI_REPLICA_FAILED;
}

/** All of its bytes, from where they lie. *mine: they could not be read. */
static bool send_block(cbi_wire *w, cbi_copy_sender *x, const cb_block_ref *ref, bool *mine) {
    cb_block_reader *reader = NULL;
    uint64_t left = ref->bytes;
    if (ref->data != NULL || left == 0) {
        return cbi_wire_send(w, ref->data, (size_t)left);
    }
    *mine = cb_block_reader_open(ref, &reader, NULL) != CB_OK;
    while (left > 0 && !*mine) {
        size_t got = 0;
        size_t most = (size_t)cbi_min(left, sizeof x->buffer);
        uint64_t begun_ns = cbi_sys_clock_ns();
        *mine = cb_block_reader_read(reader, x->buffer, most, &got, NULL) != CB_OK;
        x->own_ns += cbi_sys_clock_ns() - begun_ns;
        if (!*mine && !cbi_wire_send(w, x->buffer, got)) {
            break;
        }
        left -= got;
    }
    cb_block_reader_close(reader);
    return left == 0;
}

static cbi_replica_answer put(cbi_wire *w, cbi_copy_sender *x, const cbi_wish *wish,
                              const cb_block_ref *ref) {
    char line[CBI_COPIES_LINE];
    cbi_wire_request r;
    bool mine = false;
    x->put = true;
    cbi_wire_begin(&r, CBI_RESP_PUT_ARGS);
    cbi_wire_word(&r, "CARBIDE.PUT");
    cbi_wire_word(&r, wish->name);
    cbi_wire_number(&r, wish->generation);
    cbi_wire_number(&r, ref->level);
    cbi_wire_number(&r, wish->checksum);
    r.count += (size_t)snprintf(r.bytes + r.count, sizeof r.bytes - r.count, "$%llu\r\n",
                                (unsigned long long)ref->bytes);
    if (cbi_wire_send(w, r.bytes, r.count) && send_block(w, x, ref, &mine) &&
        cbi_wire_send(w, "\r\n", 2) && cbi_wire_line(w, line)) {
        return answer_of(line);
    }
    cbi_wire_close(w);
    return mine ? CBI_REPLICA_UNSENT : CBI_REPLICA_FAILED;
}

static cbi_replica_answer offer(cbi_wire *w, cbi_copy_sender *x, const cbi_wish *wish,
                                const cb_block_ref *ref) {
    char line[CBI_COPIES_LINE];
    cbi_wire_request r;
    cbi_wire_begin(&r, 7);
    cbi_wire_word(&r, "CARBIDE.OFFER");
    cbi_wire_word(&r, wish->name);
    cbi_wire_number(&r, wish->generation);
    cbi_wire_number(&r, ref->level);
    cbi_wire_number(&r, wish->checksum);
    cbi_wire_number(&r, ref->bytes);
    cbi_wire_word(&r, x->copies->server->me.name);
    cbi_wire_limit(w, ANSWER_MS, ref->bytes);
    if (!cbi_wire_ask(w, &r, line)) {
        cbi_wire_close(w);
        return CBI_REPLICA_FAILED;
    }
    return strcmp(line, "+SEND") == 0 ? put(w, x, wish, ref) : answer_of(line);
}

/** UNSENT: there is nothing to send (any more), or it cannot be read. A file that is not what was
 *  written is given up by the store itself, which tells. */
static cbi_replica_answer send_copy(cbi_wire *w, cbi_copy_sender *x, const cbi_wish *wish) {
    cb_block_ref ref;
    uint64_t begun_ns = cbi_sys_clock_ns();
    x->task->deadline_ns = begun_ns + LOCKED_MS * ms;
    cb_status status =
        cbi_blocks_get_as_is(x->copies->server->blocks, x->task, wish->name, &ref, NULL);
    x->task->deadline_ns = 0;
    x->own_ns += cbi_sys_clock_ns() - begun_ns;
    bool there = status == CB_OK && cbi_node_identity(ref.block).generation == wish->generation;
    cbi_replica_answer answer = there ? offer(w, x, wish, &ref) : CBI_REPLICA_UNSENT;
    if (status == CB_OK) {
        cb_block_release(&ref);
    }
    if (!there && (status == CB_OK || status == CB_ENOTFOUND)) {
        /* whatever the machine was told: it would wait for this one for ever */
        cbi_copies_tell(x->copies, (cbi_replica_event){.kind = CBI_REPLICA_GONE,
                                                       .name = wish->name,
                                                       .generation = wish->generation});
    }
    return answer;
}

static bool tell_grave(cbi_wire *w, const cbi_wish *wish) {
    static const char *const kinds[] = {"BLOCK", "DATASET", "BROADCAST"};
    char line[CBI_COPIES_LINE];
    cbi_wire_request r;
    cbi_wire_begin(&r, 4);
    cbi_wire_word(&r, "CARBIDE.BURY");
    cbi_wire_word(&r, kinds[wish->grave]);
    if (wish->grave == CBI_GRAVE_BLOCK) {
        cbi_wire_word(&r, wish->name);
    } else {
        cbi_wire_number(&r, wish->number);
    }
    cbi_wire_number(&r, wish->generation);
    cbi_wire_limit(w, CBI_WIRE_LINE_MS, 0);
    if (!cbi_wire_ask(w, &r, line)) {
        cbi_wire_close(w);
        return false;
    }
    /* to whom it is in a far future it may be told for ever, and what comes behind it never */
    return strcmp(line, "+OK") == 0 || strncmp(line, "-CLOCK ", 7) == 0;
}

/* ---- how much there is for whom ---- */

/** [mutex] For who has enough the machine keeps the rest, and for nobody else. */
static void weigh(cbi_copies *cp, const cbi_wish *w, int count) {
    const uint64_t bit = UINT64_C(1) << w->slot;
    cp->sends[w->slot] += count * (w->large ? 1 : SMALL_WEIGHS);
    cp->send_count += count;
    cp->enough = cp->sends[w->slot] >= SENDS_MAX ? cp->enough | bit : cp->enough & ~bit;
    cp->hold = cp->send_count >= ALL_MAX ? UINT64_MAX : cp->enough;
}

void cbi_copies_count_send(cbi_copies *cp, const cbi_wish *w) {
    weigh(cp, w, 1);
}

void cbi_copies_wish_sent(cbi_copies *cp, const cbi_wish *w) {
    uint64_t held = cp->hold;
    cp->wish_count--;
    if (w->kind != CBI_REPLICA_SEND) {
        return;
    }
    weigh(cp, w, -1);
    if ((held & ~cp->hold) != 0) { /* what waited for that goes on */
        (void)cbi_copies_step(cp, (cbi_replica_event){.kind = CBI_REPLICA_TICK}, NULL);
    }
}

/* ---- the threads ---- */

/** [mutex] A connection to that peer for such wishes, or a place for one; NULL: none is free now.
 */
static cbi_copy_link *link_of(cbi_copies *cp, const cbi_wish *w) {
    cbi_copy_link *best = NULL, *oldest = NULL;
    size_t there = 0, large_senders = 0;
    for (cbi_copy_link *l = cp->links; l < cp->links + CBI_COPY_LINKS; l++) {
        large_senders += l->wish != NULL && l->large;
        bool its = l->large == w->large && strcmp(l->peer, w->peer) == 0;
        there += its && l->wish != NULL;
        if (its && l->wish == NULL && (best == NULL || l->fd >= 0)) {
            best = l;
        }
        if (l->wish == NULL && (oldest == NULL || l->used_ns < oldest->used_ns)) {
            oldest = l;
        }
    }
    /* a peer's second one only as long as that leaves a sender for others */
    size_t most = !w->large ? 1 : large_senders + 2 < CBI_COPY_SENDERS ? CBI_COPY_LANES - 1 : 1;
    return there >= most ? NULL : best != NULL ? best : oldest;
}

/** Whether the one has to be over before the other. */
static bool comes_before(const cbi_wish *first, const cbi_wish *w) {
    return strcmp(first->peer, w->peer) == 0 &&
           (first->kind == CBI_REPLICA_TELL || strcmp(first->name, w->name) == 0);
}

/** [mutex] Whether nothing that waits before it, or is on its way, has to be over first. */
static bool is_next(const cbi_copies *cp, const cbi_wish *w) {
    for (const cbi_copy_link *l = cp->links; l < cp->links + CBI_COPY_LINKS; l++) {
        if (l->wish != NULL && comes_before(l->wish, w)) {
            return false;
        }
    }
    const cbi_wish *first = cp->remote.first;
    while (first != w && !comes_before(first, w)) {
        first = first->next;
    }
    return first == w;
}

bool cbi_copies_can_send(cbi_copies *cp, const cbi_wish *w) {
    return link_of(cp, w) != NULL && is_next(cp, w);
}

/** [mutex] Who waits is woken when there is something for him; those who would find nothing take
 *  the processors from those who send. */
static void wake_others(cbi_copies *cp) {
    for (const cbi_wish *w = cp->remote.first; w != NULL; w = w->next) {
        if (cbi_copies_can_send(cp, w)) {
            cbi_cond_broadcast(&cp->wake_senders);
            return;
        }
    }
}

/** [mutex] The first wish that this sender may take and whose peer has a connection for it, taken
 *  out. */
static cbi_wish *take_remote(cbi_copies *cp, const cbi_copy_sender *x, cbi_copy_link **link) {
    cbi_wish *before = NULL;
    for (cbi_wish *w = cp->remote.first; w != NULL; before = w, w = w->next) {
        *link = x->small && w->large ? NULL : link_of(cp, w);
        if (*link != NULL && is_next(cp, w)) {
            *(before != NULL ? &before->next : &cp->remote.first) = w->next;
            cp->remote.last = cp->remote.last == w ? before : cp->remote.last;
            return w;
        }
    }
    return NULL;
}

/** The link is this sender's meanwhile. */
static void carry_out(cbi_copy_sender *x, cbi_copy_link *l, const cbi_wish *wish) {
    cbi_copies *cp = x->copies;
    bool same = strcmp(l->peer, wish->peer) == 0 && strcmp(l->address, wish->address) == 0;
    cbi_wire w = {.copies = cp, .fd = l->fd};
    if (w.fd >= 0 && (!same || !cbi_wire_is_alive(&w))) {
        cbi_wire_close(&w);
    }
    uint64_t begun_ns = cbi_sys_clock_ns();
    x->own_ns = 0;
    x->put = false;
    bool there = w.fd >= 0 || cbi_wire_open(cp, wish->address, &w);
    cbi_replica_event e = {.kind = CBI_REPLICA_SENT,
                           .name = wish->name,
                           .generation = wish->generation,
                           .checksum = wish->checksum,
                           .peer = wish->peer,
                           .peer_generation = wish->peer_generation,
                           .sequence = wish->sequence,
                           .answer = CBI_REPLICA_FAILED};
    if (wish->kind == CBI_REPLICA_SEND) {
        e.answer = there ? send_copy(&w, x, wish) : CBI_REPLICA_FAILED;
        e.was_there = e.answer == CBI_REPLICA_OK && !x->put;
    } else {
        bool told = there && tell_grave(&w, wish);
        e.kind = told ? CBI_REPLICA_TOLD : CBI_REPLICA_UNREACHED;
    }
    bool mine = e.kind == CBI_REPLICA_SENT && e.answer == CBI_REPLICA_UNSENT;
    if (!mine) {
        cbi_wire_came_to(cp, wish->address, begun_ns + x->own_ns, w.fd >= 0);
    }
    cbi_mutex_lock(&cp->mutex);
    memcpy(l->address, wish->address, sizeof l->address);
    l->fd = w.fd;
    l->used_ns = cbi_sys_clock_ns();
    l->wish = NULL;
    if (w.fd < 0 && !mine) { /* who is there? */
        cp->beat_ns = 0;
        cbi_cond_signal(&cp->wake_keeper);
    }
    (void)cbi_copies_step(cp, e, NULL);
    cbi_mutex_unlock(&cp->mutex);
}

void cbi_copies_send(void *ctx) {
    cbi_copy_sender *x = ctx;
    cbi_copies *cp = x->copies;
    bool done = false; /* a wish, and others do not know yet */
    cbi_mutex_lock(&cp->mutex);
    while (!atomic_load(&cp->quit)) {
        cbi_copy_link *link = NULL;
        cbi_wish *w = take_remote(cp, x, &link);
        if (w == NULL) {
            if (done) { /* what waited for the end of that may be for others */
                wake_others(cp);
            }
            done = false;
            cbi_cond_wait(&cp->wake_senders, &cp->mutex);
            continue;
        }
        if (strcmp(link->peer, w->peer) != 0) { /* another one's place */
            memcpy(link->peer, w->peer, sizeof link->peer);
            link->address[0] = '\0';
        }
        link->large = w->large;
        link->wish = w;
        if (done) {
            wake_others(cp);
        }
        cbi_mutex_unlock(&cp->mutex);
        carry_out(x, link, w);
        cbi_mutex_lock(&cp->mutex);
        cbi_copies_wish_sent(cp, w);
        cbi_free(w);
        done = true;
    }
    cbi_mutex_unlock(&cp->mutex);
}
