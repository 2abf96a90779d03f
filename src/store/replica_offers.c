/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies that others offer: judged by what was offered, which reserves their room, and again when
 * the bytes are here, by what came. Between the two the block may have been removed everywhere.
 */
#include <string.h>

#include "base/alloc.h"
#include "store/replica_private.h"

cbi_offer **cbi_offers_find(cbi_replica *r, uint64_t ticket) {
    cbi_offer **at = &r->offers;
    while (*at != NULL && (*at)->ticket != ticket) {
        at = &(*at)->next;
    }
    return at;
}

void cbi_offers_end(cbi_replica *r, cbi_offer **at) {
    cbi_offer *o = *at;
    *at = o->next;
    r->offer_count--;
    r->reserved_bytes -= o->bytes;
    cbi_replica_retire(r, o);
}

static void refuse(cbi_replica *r, const char *name, uint64_t ticket, cbi_replica_answer answer) {
    cbi_replica_action *a = cbi_replica_emit(r, CBI_REPLICA_REFUSE);
    cb_assert(a != NULL);
    a->name = name;
    a->ticket = ticket;
    a->answer = answer;
    r->refused += answer != CBI_REPLICA_OK;
}

static bool is_coming(const cbi_replica *r, const char *name) {
    for (const cbi_offer *o = r->offers; o != NULL; o = o->next) {
        if (strcmp(o->name, name) == 0) {
            return true;
        }
    }
    return false;
}

/** What can be said of an offer before its bytes have come. */
static cbi_replica_answer judge(const cbi_replica *r, const cbi_replica_event *e) {
    if (cbi_graves_cover(r, e->name, e->generation)) {
        return CBI_REPLICA_IS_BURIED;
    }
    const cbi_tracked *b = cbi_tracked_find(r, e->name);
    if (b != NULL && b->present && b->place.block_generation == e->generation &&
        b->place.checksum == e->checksum && b->state < CBI_BLOCK_DROPPING) {
        /* two that leave may not each count upon the other */
        return r->draining ? CBI_REPLICA_FULL : CBI_REPLICA_OK;
    }
    if (b != NULL && b->present) {
        return CBI_REPLICA_CONFLICT;
    }
    if (is_coming(r, e->name)) {
        return CBI_REPLICA_IS_BUSY;
    }
    uint64_t taken = r->bytes + r->reserved_bytes;
    bool fits = taken <= r->options.room_bytes && e->bytes <= r->options.room_bytes - taken;
    return !fits || r->draining || r->offer_count == CBI_REPLICA_OFFERS_MAX ||
                   r->tracked >= r->options.blocks_max
               ? CBI_REPLICA_FULL
               : CBI_REPLICA_FAILED; /* nothing: take it */
}

void cbi_offers_offered(cbi_replica *r, const cbi_replica_event *e) {
    cbi_replica_heard_of(r, e->generation);
    size_t bytes = strnlen(e->name, CB_BLOCK_NAME_MAX + 1) + 1;
    cbi_replica_answer answer = judge(r, e);
    cbi_offer *o = NULL;
    if (answer == CBI_REPLICA_FAILED && bytes <= CB_BLOCK_NAME_MAX + 1) {
        o = cbi_calloc(1, sizeof *o + bytes);
    }
    if (o == NULL) {
        const cbi_peer *sender = cbi_replica_peer(r, e->peer);
        if (answer == CBI_REPLICA_OK && sender != NULL) {
            cbi_tracked_find(r, e->name)->held |= cbi_replica_bit(r, sender);
        }
        refuse(r, e->name, 0, answer == CBI_REPLICA_FAILED ? CBI_REPLICA_FULL : answer);
        return;
    }
    *o = (cbi_offer){.next = r->offers,
                     .ticket = ++r->ticket,
                     .generation = e->generation,
                     .checksum = e->checksum,
                     .bytes = e->bytes,
                     .copies = e->copies};
    memcpy(o->name, e->name, bytes);
    if (e->peer != NULL) {
        memcpy(o->sender, e->peer, strnlen(e->peer, CB_EXECUTOR_NAME_MAX));
        const cbi_peer *from = cbi_replica_peer(r, e->peer);
        o->sender_generation = from != NULL ? from->view.generation : 0;
    }
    r->offers = o;
    r->offer_count++;
    r->reserved_bytes += o->bytes;
    cbi_replica_action *a = cbi_replica_emit(r, CBI_REPLICA_ACCEPT);
    cb_assert(a != NULL);
    a->ticket = o->ticket;
    a->name = o->name;
    a->bytes = o->bytes;
}

void cbi_offers_arrived(cbi_replica *r, const cbi_replica_event *e) {
    cbi_offer **at = cbi_offers_find(r, e->ticket);
    cbi_offer *o = *at;
    if (o == NULL) {
        refuse(r, NULL, e->ticket, CBI_REPLICA_FAILED);
        return;
    }
    const cbi_tracked *b = cbi_tracked_find(r, o->name);
    cbi_replica_answer answer = CBI_REPLICA_OK;
    if (e->checksum != o->checksum) {
        answer = CBI_REPLICA_CORRUPT;
    } else if (cbi_graves_cover(r, o->name, o->generation)) {
        answer = CBI_REPLICA_IS_BURIED;
    } else if (b != NULL && b->present) {
        answer = CBI_REPLICA_CONFLICT;
    }
    if (answer != CBI_REPLICA_OK) {
        refuse(r, o->name, o->ticket, answer);
        cbi_offers_end(r, at);
        return;
    }
    o->arrived = true;
    cbi_replica_action *a = cbi_replica_emit(r, CBI_REPLICA_STORE);
    cb_assert(a != NULL);
    a->ticket = o->ticket;
    a->name = o->name;
    a->generation = o->generation;
    a->checksum = o->checksum;
    a->bytes = o->bytes;
    a->copies = o->copies;
}

void cbi_offers_missed(cbi_replica *r, const cbi_replica_event *e) {
    cbi_offer **at = cbi_offers_find(r, e->ticket);
    if (*at != NULL) {
        cbi_offers_end(r, at);
    }
}
