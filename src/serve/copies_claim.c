/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CARBIDE.COMPUTE: a block that nobody has is computed by one client, the others wait for it. The
 * asker's connection is driven by the machine that the simulator tries (store/claim.h): a fetcher
 * looks for the block here and elsewhere, then claims it in the directory. Who waits for another
 * one is parked, and is a fetcher's again when it is time to look, at once when the block is put
 * here. Of those here who wait for the same block one asks the directory, as if for all.
 *
 * The directory knows which executor computes; which of its clients does is a list here. A claim is
 * over when a block by that name is stored here, when its client says so or is gone, or when it has
 * lasted as long as it was asked for. The keeper lets go of it in the directory, after a put not
 * before the directory names us: reports take their time, and whoever had it next would not find
 * the block.
 */
#include <string.h>

#include "base/alloc.h"
#include "serve/copies_private.h"

static const uint64_t ms = 1000000;
enum { POLL_MS = 50, TEND_MS = 20, AGAIN_MS = 500, KNOWN_MS = 5000, CLAIMS_MAX = 1024 };
enum { OWN_MAX = CLAIMS_MAX / 4 /* of one connection, so that others have some, too */ };

struct cbi_copy_claim {
    cbi_copy_claim *next;
    const cbi_connection *owner; /* NULL: it is gone */
    uint64_t token, until_ns;
    uint64_t life;   /* of this executor when it was claimed; 0: it is being asked for */
    uint64_t due_ns; /* over: it is looked after then, */
    uint64_t end_ns; /* and let go then whatever the directory knows */
    bool over, stored;
    char name[CB_BLOCK_NAME_MAX + 1];
};

/** [mutex] The one of that name; NULL. */
static cbi_copy_claim *find(const cbi_copies *cp, const char *name) {
    cbi_copy_claim *k = cp->claims;
    while (k != NULL && strcmp(k->name, name) != 0) {
        k = k->next;
    }
    return k;
}

/** [mutex] */
static void forget(cbi_copies *cp, const cbi_copy_claim *k) {
    for (cbi_copy_claim **at = &cp->claims; *at != NULL; at = &(*at)->next) {
        if (*at == k) {
            *at = k->next;
            cbi_free((void *)(uintptr_t)k);
            atomic_fetch_sub(&cp->claim_count, 1);
            return;
        }
    }
}

/** [mutex] */
static void end(cbi_copies *cp, cbi_copy_claim *k, bool stored) {
    uint64_t now = cbi_sys_clock_ns();
    if (!k->over && k->life != 0) { /* else it is being asked for, and whoever asks looks again */
        k->over = true;
        k->stored = stored;
        k->due_ns = now;
        k->end_ns = now + KNOWN_MS * ms;
        cbi_cond_signal(&cp->wake_keeper);
    }
}

/* ---- the asker's ---- */

/** [mutex] Goes to the fetchers, with the others that are there. */
static void requeue(cbi_copies *cp, cbi_connection *c) {
    c->next_job = NULL;
    *(cp->fetch_last != NULL ? &cp->fetch_last->next_job : &cp->fetch_first) = c;
    cp->fetch_last = c;
    cbi_cond_signal(&cp->wake_fetchers);
}

/** [mutex] Those who wait for that block look now. */
static void call(cbi_copies *cp, const char *name) {
    for (cbi_connection *c = cp->parked; c != NULL; c = c->next_job) {
        if (strcmp(c->name, name) == 0) {
            c->resp->due_ns = 0;
            cbi_cond_signal(&cp->wake_keeper);
        }
    }
}

static void note_there(void *ctx, const cb_block_status *status, cb_level level, uint32_t readers) {
    (void)level;
    (void)readers;
    *(bool *)ctx = (status->level & CB_LEVEL_FLAGS) != 0;
}

static bool is_here(const cbi_copies *cp, const char *name) {
    bool there = false;
    return cbi_blocks_look(cp->server->blocks, name, note_there, &there, NULL) == CB_OK && there;
}

/** Of those here who wait for the same, somebody has asked a moment ago. *due_ns: when to look. */
static bool was_asked(cbi_copies *cp, const cbi_connection *c, uint64_t now, uint64_t *due_ns) {
    bool asked = false;
    cbi_mutex_lock(&cp->mutex);
    for (const cbi_connection *w = cp->parked; w != NULL && !asked; w = w->next_job) {
        *due_ns = w->resp->asked_ns + POLL_MS * ms;
        asked = strcmp(w->name, c->name) == 0 && w->resp->asked_ns != 0 && *due_ns > now;
    }
    cbi_mutex_unlock(&cp->mutex);
    return asked;
}

/** [mutex] Whether there is room for one more, also of this connection's. */
static bool has_room(const cbi_copies *cp, const cbi_connection *c) {
    size_t own = 0;
    for (const cbi_copy_claim *k = cp->claims; k != NULL; k = k->next) {
        own += k->owner == c && !k->over;
    }
    return own < OWN_MAX && atomic_load(&cp->claim_count) < CLAIMS_MAX;
}

/** The claim of this executor, for this client. It is renewed to who knows its number: connections
 *  are shared by those who have a pool of them. */
static cbi_claim_event take(cbi_copies *cp, cbi_connection *c, uint64_t *wait_ns) {
    const cb_server *s = cp->server;
    cbi_resp *r = c->resp;
    uint64_t now = cbi_sys_clock_ns();
    cbi_copy_claim *fresh = cbi_calloc(1, sizeof *fresh);
    cbi_mutex_lock(&cp->mutex);
    cbi_copy_claim *k = find(cp, c->name);
    bool lasts = k != NULL && !k->over && k->until_ns > now;
    if (fresh == NULL || (k == NULL && !has_room(cp, c)) ||
        (k != NULL &&
         (k->over || k->life == 0 || (lasts && (k->owner != c || k->token != r->number))))) {
        bool held = fresh != NULL && k != NULL;
        *wait_ns = lasts && k->life != 0 ? k->until_ns - now : POLL_MS * ms;
        cbi_mutex_unlock(&cp->mutex);
        cbi_free(fresh);
        return held ? CBI_CLAIM_HELD : CBI_CLAIM_UNKNOWN;
    }
    if (k == NULL) {
        k = fresh;
        fresh = NULL;
        memcpy(k->name, c->name, strlen(c->name) + 1);
        k->next = cp->claims;
        cp->claims = k;
        atomic_fetch_add(&cp->claim_count, 1);
    }
    if (!lasts) {
        k->token = cp->last_token = cbi_max(cp->last_token + 1, cbi_sys_time_ns() / 1000);
    }
    k->owner = c;
    k->life = 0; /* nobody else changes it */
    cbi_mutex_unlock(&cp->mutex);
    cbi_free(fresh);
    bool granted = false;
    cb_status status = s->directory.claim(s->directory.ctx, s->me.name, s->me.generation, k->name,
                                          r->claim.claim_ns, &granted, wait_ns, NULL);
    cbi_mutex_lock(&cp->mutex);
    if (status == CB_OK && granted) {
        k->life = s->me.generation;
        k->until_ns = cbi_sys_clock_ns() + r->claim.claim_ns;
        r->token = k->token;
    } else if (status == CB_OK) {
        forget(cp, k);
    } else { /* perhaps the directory has it, and only its answer is lost */
        k->life = s->me.generation;
        k->until_ns = cbi_sys_clock_ns() + r->claim.claim_ns;
        end(cp, k, false);
    }
    cbi_mutex_unlock(&cp->mutex);
    return status != CB_OK ? CBI_CLAIM_UNKNOWN : granted ? CBI_CLAIM_GRANTED : CBI_CLAIM_HELD;
}

/** Not computed, after all: it was found. */
static void give(cbi_copies *cp, const cbi_connection *c) {
    cbi_mutex_lock(&cp->mutex);
    cbi_copy_claim *k = find(cp, c->name);
    if (k != NULL && k->token == c->resp->token) { /* not the one that somebody has by now */
        end(cp, k, false);
    }
    cbi_mutex_unlock(&cp->mutex);
}

static cbi_claim_event look(cbi_copies *cp, cbi_copy_fetcher *f, cbi_connection *c,
                            cb_status *status, cb_error *err) {
    c->resp->here = is_here(cp, c->name);
    *status = c->resp->here ? CB_OK : cbi_copies_fetch_now(cp, f, c, err);
    return *status == CB_OK          ? CBI_CLAIM_FOUND
           : *status == CB_ENOTFOUND ? CBI_CLAIM_MISSING
                                     : CBI_CLAIM_UNKNOWN; /* also: nobody who should gives it */
}

/** [mutex not held] Until then, or its time is over. */
static bool park(cbi_copies *cp, cbi_connection *c, uint64_t due_ns) {
    cbi_mutex_lock(&cp->mutex);
    bool parks = !cp->stopped && !atomic_load(&cp->quit) && !c->resp->gone;
    if (parks) {
        c->resp->due_ns = cbi_min(due_ns, c->resp->until_ns);
        c->next_job = cp->parked;
        cp->parked = c;
        cbi_cond_signal(&cp->wake_keeper);
    }
    cbi_mutex_unlock(&cp->mutex);
    return parks;
}

bool cbi_copies_compute(cbi_copies *cp, cbi_copy_fetcher *f, cbi_connection *c, cb_status *status,
                        cb_error *err) {
    cbi_resp *r = c->resp;
    uint64_t wait_ns = 0, due_ns = 0, now = cbi_sys_clock_ns();
    cbi_claim_event event = r->claim.state == CBI_CLAIM_NEW ? CBI_CLAIM_BEGUN : CBI_CLAIM_PASSED;
    bool again = event == CBI_CLAIM_PASSED && now < r->until_ns && !is_here(cp, c->name);
    if (again && was_asked(cp, c, now, &due_ns) && park(cp, c, due_ns)) {
        return false;
    }
    *status = CB_ENOTFOUND;
    for (;;) {
        now = cbi_sys_clock_ns();
        switch (cbi_claim_step(&r->claim, event, wait_ns, now)) {
            case CBI_CLAIM_LOOK: event = look(cp, f, c, status, err); break;
            case CBI_CLAIM_TAKE:
                event = take(cp, c, &wait_ns);
                if (event == CBI_CLAIM_UNKNOWN) {
                    *status = cbi_fail(err, CB_EAGAIN, "Who computes block %s cannot be settled.",
                                       c->name);
                }
                break;
            case CBI_CLAIM_WAIT:
                r->asked_ns = now;
                if (r->token != 0) { /* directory has failed since: others may be luckier */
                    give(cp, c);
                    r->token = 0;
                }
                if (now < r->until_ns && (*status == CB_ENOTFOUND || *status == CB_EAGAIN)) {
                    if (park(cp, c, r->claim.due_ns)) {
                        return false;
                    }
                    *status = cbi_fail(err, CB_EAGAIN, "The server ends.");
                }
                return true; /* nil: it is being computed elsewhere; or why that is not known */
            case CBI_CLAIM_GIVE:
                give(cp, c);
                r->token = 0;
                event = CBI_CLAIM_PASSED;
                break;
            case CBI_CLAIM_DONE:
                cbi_mutex_lock(&cp->mutex);
                call(cp, c->name);
                cbi_mutex_unlock(&cp->mutex);
                return true;
            case CBI_CLAIM_COMPUTE: *status = CB_OK; return true;
            case CBI_CLAIM_RENEW:
            case CBI_CLAIM_FAILED:
            default: *status = CB_EAGAIN; return true;
        }
    }
}

bool cbi_copies_unpark(cbi_copies *cp, const cbi_connection *c) {
    bool found = false;
    cbi_mutex_lock(&cp->mutex);
    c->resp->gone = true; /* if it is a fetcher's it is not parked any more */
    for (cbi_connection **at = &cp->parked; *at != NULL; at = &(*at)->next_job) {
        if (*at == c) {
            *at = c->next_job;
            found = true;
            break;
        }
    }
    cbi_mutex_unlock(&cp->mutex);
    return found;
}

/* ---- what ends a claim ---- */

void cbi_copies_claims_note(cbi_copies *cp, const cb_block_status *b) {
    bool some = atomic_load(&cp->claim_count) > 0; /* who waits here has one here, or asks soon */
    if (!some || (b->level & CB_LEVEL_FLAGS) == 0) {
        return;
    }
    cbi_mutex_lock(&cp->mutex);
    cbi_copy_claim *k = find(cp, b->name);
    if (k != NULL) {
        end(cp, k, true);
    }
    call(cp, b->name);
    cbi_mutex_unlock(&cp->mutex);
}

void cbi_copies_claims_end(cbi_copies *cp, const cbi_connection *c) {
    if (atomic_load(&cp->claim_count) == 0) {
        return;
    }
    cbi_mutex_lock(&cp->mutex);
    for (cbi_copy_claim *k = cp->claims; k != NULL; k = k->next) {
        if (k->owner == c) {
            k->owner = NULL;
            end(cp, k, false);
            call(cp, k->name);
        }
    }
    cbi_mutex_unlock(&cp->mutex);
}

bool cbi_copies_unclaim(cbi_copies *cp, const char *name, uint64_t token) {
    cbi_mutex_lock(&cp->mutex);
    cbi_copy_claim *k = find(cp, name);
    bool mine = k != NULL && k->token == token && !k->over && k->life != 0 &&
                k->until_ns > cbi_sys_clock_ns();
    if (mine) {
        end(cp, k, false);
        call(cp, name);
    }
    cbi_mutex_unlock(&cp->mutex);
    return mine;
}

/* ---- the keeper's ---- */

/** Whether the directory names us, or it does not matter any more. */
static bool is_known(cbi_copies *cp, const char *name) {
    const cb_server *s = cp->server;
    size_t count = 0;
    if (!is_here(cp, name)) {
        return true;
    }
    cb_status status =
        s->directory.locate(s->directory.ctx, name, cp->locations, CBI_COPY_VIEWS, &count, NULL);
    if (status != CB_OK) {
        return status != CB_EAGAIN; /* not yet, or nobody says so */
    }
    for (size_t i = 0; i < count && i < CBI_COPY_VIEWS; i++) {
        if (strcmp(cp->locations[i].executor, s->me.name) == 0) {
            return true;
        }
    }
    return count > CBI_COPY_VIEWS;
}

/** [mutex] Given away meanwhile. A directory that did not hear of it keeps others from computing,
 *  so it is told again, as long as the claim could last there. */
static void let_go(cbi_copies *cp, cbi_copy_claim *k, uint64_t now) {
    const cb_server *s = cp->server;
    k->due_ns = UINT64_MAX; /* the keeper's alone: nobody else ends what is over */
    cbi_mutex_unlock(&cp->mutex);
    bool goes = !k->stored || now >= k->end_ns || is_known(cp, k->name), heard = true;
    if (goes && now < k->until_ns) {
        cb_status status =
            s->directory.unclaim(s->directory.ctx, s->me.name, k->life, k->name, NULL);
        heard = status == CB_OK || status == CB_ENOTFOUND;
    }
    cbi_mutex_lock(&cp->mutex);
    k->due_ns = cbi_sys_clock_ns() + (heard ? TEND_MS : AGAIN_MS) * ms;
    if (goes && heard) {
        call(cp, k->name);
        forget(cp, k);
    }
}

bool cbi_copies_tend_claims(cbi_copies *cp, uint64_t now, uint64_t *due_ns) {
    for (cbi_connection **at = &cp->parked; *at != NULL;) {
        cbi_connection *c = *at;
        if (c->resp->due_ns <= now) {
            *at = c->next_job;
            requeue(cp, c);
        } else {
            *due_ns = cbi_min(*due_ns, c->resp->due_ns);
            at = &c->next_job;
        }
    }
    for (cbi_copy_claim *k = cp->claims; k != NULL; k = k->next) {
        bool is_old = !k->over && k->life != 0 && k->until_ns <= now;
        if (is_old) {
            end(cp, k, false);
            call(cp, k->name);
        }
        if (k->over && k->due_ns <= now && (cp->answers || k->until_ns <= now)) {
            let_go(cp, k, now);
            return true;
        }
        if (k->over && k->due_ns <= now) { /* one that hangs is asked by the beats alone */
            k->due_ns = now + AGAIN_MS * ms;
        }
        uint64_t then = k->over ? k->due_ns : k->life != 0 ? k->until_ns : UINT64_MAX;
        *due_ns = cbi_min(*due_ns, then);
    }
    return false;
}

void cbi_copies_claims_stop(cbi_copies *cp) {
    cbi_mutex_lock(&cp->mutex);
    for (cbi_connection *c = cp->parked; c != NULL;) {
        cbi_connection *next = c->next_job;
        requeue(cp, c); /* and is told that the server ends, as those who wait to be fetched for */
        c = next;
    }
    cp->parked = NULL;
    while (cp->claims != NULL) {
        forget(cp, cp->claims);
    }
    cbi_mutex_unlock(&cp->mutex);
}
