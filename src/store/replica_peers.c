/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where copies go. Each pair of executor and block has a score that everybody computes alike
 * (rendezvous hashing), so all agree on an order of executors for a block, each block has another
 * one, and an executor that comes or goes changes nothing for those it is not concerned with. A
 * copy goes to another rack than all others if there is one, else to another host, else to another
 * port; among equals to the least score. Whoever mends is the least among the holders.
 */
#define XXH_INLINE_ALL
#include <string.h>
#include <xxhash.h>

#include "base/base.h"
#include "store/replica_private.h"

enum { NAMED = 4 /* before any distance */ };

uint64_t cbi_replica_hash(const char *name) {
    return XXH3_64bits(name, strlen(name));
}

uint64_t cbi_replica_score(const char *executor, uint64_t block_hash) {
    return XXH3_64bits_withSeed(executor, strlen(executor), block_hash);
}

static cbi_peer *find(cbi_replica *r, const char *name, size_t most) {
    for (cbi_peer *p = r->peers; name != NULL && p < r->peers + most; p++) {
        if (p->used && strcmp(p->view.name, name) == 0) {
            return p;
        }
    }
    return NULL;
}

cbi_peer *cbi_replica_peer(cbi_replica *r, const char *name) {
    return find(r, name, CBI_REPLICA_PEERS_MAX);
}

cbi_peer *cbi_replica_anyone(cbi_replica *r, const char *name) {
    return find(r, name, CBI_REPLICA_TOLD_MAX);
}

/** 3: another rack, 2: another host, 1: another port. What has no label is not known to differ. */
static int distance(const char *rack, const char *host, const char *other_rack,
                    const char *other_host) {
    if (rack[0] != 0 && other_rack[0] != 0 && strcmp(rack, other_rack) != 0) {
        return 3;
    }
    return strcmp(host, other_host) != 0 ? 2 : 1;
}

static int distance_from_me(const cbi_replica *r, const cbi_peer *p) {
    return distance(p->view.rack, p->view.host, r->rack, r->host);
}

/** From the nearest of those that have a copy or are about to. */
static int distance_from_all(const cbi_replica *r, const cbi_tracked *b, const cbi_peer *p) {
    int least = distance_from_me(r, p);
    for (int i = 0; i < CBI_REPLICA_PEERS_MAX; i++) {
        const cbi_peer *other = &r->peers[i];
        if (other->used && ((b->held | b->sending) >> i & 1) != 0) {
            int d = distance(p->view.rack, p->view.host, other->view.rack, other->view.host);
            least = d < least ? d : least;
        }
    }
    return least;
}

static bool has_room(const cbi_peer *p, const cbi_tracked *b) {
    const cb_executor_view *v = &p->view;
    return v->memory_max == 0 || (b->place.level & CB_LEVEL_ON_DISK) != 0 ||
           (v->memory_max > v->memory_bytes && v->memory_max - v->memory_bytes >= b->bytes);
}

cbi_peer *cbi_replica_candidate(cbi_replica *r, const cbi_tracked *b) {
    cbi_peer *best = NULL;
    int best_distance = 0;
    uint64_t best_score = 0, out = b->held | b->sending | b->tried;
    for (int i = 0; i < CBI_REPLICA_PEERS_MAX; i++) {
        cbi_peer *p = &r->peers[i];
        bool named = (b->named >> i & 1) != 0; /* has one, as it seems: no further room is needed */
        if (!cbi_replica_may_ask(r, p) || (out >> i & 1) != 0 || (!named && !has_room(p, b))) {
            continue;
        }
        int d = named ? NAMED : distance_from_all(r, b, p);
        uint64_t score = cbi_replica_score(p->view.name, b->hash);
        if (best == NULL || d > best_distance || (d == best_distance && score < best_score)) {
            best = p;
            best_distance = d;
            best_score = score;
        }
    }
    return best;
}

bool cbi_replica_may_find(cbi_replica *r, const cbi_tracked *b) {
    bool may = false;
    uint64_t refused = b->tried != UINT64_MAX ? b->tried : 0; /* else it is not for them */
    for (int i = 0; i < CBI_REPLICA_PEERS_MAX; i++) {
        cbi_peer *p = &r->peers[i];
        bool named = (b->named >> i & 1) != 0;
        if (!p->used || (b->held >> i & 1) != 0) {
            continue;
        }
        bool takes = p->missing || named || has_room(p, b);
        p->lacked = p->lacked || !takes || (refused >> i & 1) != 0;
        may = may || takes;
    }
    return may;
}

size_t cbi_replica_sources(const cbi_replica *r, const cb_location *locations, size_t count,
                           uint64_t generation, uint64_t checksum, size_t *order) {
    size_t found = 0;
    for (int d = 1; d <= 4; d++) { /* 4: not in the list of peers */
        for (size_t i = 0; i < count; i++) {
            const cb_location *l = &locations[i];
            if (l->place.block_generation != generation || l->place.level == CB_LEVEL_NONE ||
                (checksum != 0 && l->place.checksum != checksum) ||
                strcmp(l->executor, r->name) == 0) {
                continue;
            }
            int far = 4;
            for (const cbi_peer *p = r->peers; p < r->peers + CBI_REPLICA_TOLD_MAX; p++) {
                if (p->used && strcmp(p->view.name, l->executor) == 0) {
                    far = distance_from_me(r, p);
                }
            }
            if (far == d) {
                order[found++] = i;
            }
        }
    }
    return found;
}
