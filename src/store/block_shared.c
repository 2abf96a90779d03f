/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block that this store and all others of its directory lack: one of them computes it (claim.h
 * says who), the others wait and read it from there.
 *
 * Who asks is the block's writer here meanwhile, so his neighbours in this store wait for him as
 * they do for anyone who computes, and one a store takes part. What he reads from another executor
 * is stored here, as what he computes is. A claim is let go only when the directory names this
 * store: reports may be on their way for a while, and whoever had the claim next would not find it.
 */
#include "store/block_shared.h"

#include <string.h>

#include "store/blocks.h"
#include "store/claim.h"

static const uint64_t ms = 1000000;

enum { CLAIM_MS = 10000, POLL_MS = 20, PATIENCE_MS = 10000, KNOWN_MS = 2000, PLACES = 32 };

bool cbi_shared_is_wanted(const cb_blocks *b, const cb_block_lineage *l) {
    return b->reporting.on && l->fetch != NULL;
}

static uint64_t life_of(cb_blocks *b) {
    cbi_lock_take(cbi_blocks_lock_of(b));
    uint64_t generation = b->reporting.generation;
    cbi_lock_give(cbi_blocks_lock_of(b));
    return generation;
}

/* ---- looking ---- */

static bool is_bad(const cbi_shared *s, const cb_location *l) {
    for (size_t i = 0; i < s->bad_count; i++) {
        if (s->bad[i] == l->generation) {
            return true;
        }
    }
    return s->bad_count == CBI_SHARED_BAD_MAX;
}

/** Opens it where its newest generation lies. FOUND: s->at has it. */
static cbi_claim_event open_elsewhere(cbi_shared *s, cb_blocks *b, const char *name,
                                      cb_record_source *source, cb_error *err) {
    const cb_directory *d = &b->reporting.directory;
    cb_location places[PLACES];
    size_t count = 0;
    uint64_t newest = 0;
    if (d->locate(d->ctx, name, places, PLACES, &count, err) != CB_OK) {
        return CBI_CLAIM_UNKNOWN;
    }
    count = cbi_min(count, PLACES);
    for (size_t i = 0; i < count; i++) {
        newest = cbi_max(newest, places[i].place.block_generation);
    }
    for (size_t i = 0; i < count; i++) {
        const cb_location *l = &places[i];
        bool mine = strcmp(l->executor, b->reporting.name) == 0; /* of a moment ago */
        if (!mine && l->place.block_generation == newest && !is_bad(s, l) &&
            s->lineage->fetch(s->lineage->ctx, name, l, source, err) == CB_OK) {
            s->at = l->generation;
            return CBI_CLAIM_FOUND;
        }
    }
    return CBI_CLAIM_MISSING;
}

/* ---- claiming ---- */

static cbi_claim_event take(cbi_shared *s, cb_blocks *b, const char *name, uint64_t *wait_ns) {
    const cb_directory *d = &b->reporting.directory;
    bool granted = false;
    s->life = life_of(b);
    cb_status status = d->claim(d->ctx, b->reporting.name, s->life, name, s->claim.claim_ns,
                                &granted, wait_ns, NULL);
    return status != CB_OK ? CBI_CLAIM_UNKNOWN : granted ? CBI_CLAIM_GRANTED : CBI_CLAIM_HELD;
}

/** Whether the directory names this store. */
static bool is_known(const cb_blocks *b, const char *name) {
    const cb_directory *d = &b->reporting.directory;
    cb_location places[PLACES];
    size_t count = 0;
    cb_status status = d->locate(d->ctx, name, places, PLACES, &count, NULL);
    bool found = status != CB_OK && status != CB_EAGAIN; /* nobody asks */
    for (size_t i = 0; i < count && i < PLACES; i++) {
        found = found || strcmp(places[i].executor, b->reporting.name) == 0;
    }
    return found || count > PLACES;
}

static void give(const cbi_shared *s, const cb_blocks *b, const char *name, bool stored) {
    const cb_directory *d = &b->reporting.directory;
    uint64_t until_ns = cbi_sys_clock_ns() + KNOWN_MS * ms;
    while (stored && !is_known(b, name) && cbi_sys_clock_ns() < until_ns) {
        cbi_sys_sleep_ns(ms);
    }
    if (d->unclaim(d->ctx, b->reporting.name, s->life, name, NULL) != CB_OK) {
        return; /* it ends by itself, in seconds */
    }
}

/* ---- renewing ---- */

/** Claims again while the block is being computed, which may take any time. */
static void renew(void *ctx) {
    cbi_shared *s = ctx;
    uint64_t wait_ns = 0;
    cbi_mutex_lock(&s->mutex);
    while (!s->computed) {
        cbi_claim_action a = cbi_claim_step(&s->claim, CBI_CLAIM_PASSED, 0, cbi_sys_clock_ns());
        if (a == CBI_CLAIM_RENEW) {
            cbi_mutex_unlock(&s->mutex);
            cbi_claim_event event = take(s, s->blocks, s->name, &wait_ns);
            cbi_mutex_lock(&s->mutex);
            (void)cbi_claim_step(&s->claim, event, wait_ns, cbi_sys_clock_ns());
        } else {
            (void)cbi_cond_wait_until(&s->wake, &s->mutex, s->claim.renew_ns);
        }
    }
    cbi_mutex_unlock(&s->mutex);
}

void cbi_shared_renew_begin(cbi_shared *s, cb_blocks *b, const char *name) {
    s->blocks = b;
    s->name = name;
    s->computed = false;
    if (!s->claim.claimed) {
        return;
    }
    cbi_mutex_init(&s->mutex, CBI_RANK_INNER);
    cbi_cond_init(&s->wake);
    s->renews = true;
    if (cbi_thread_start(&s->renewer, renew, s, "carbide-claim", NULL) != CB_OK) {
        return; /* it has as long as one claim lasts; then two may compute */
    }
}

void cbi_shared_renew_end(cbi_shared *s) {
    if (!s->renews) {
        return;
    }
    cbi_mutex_lock(&s->mutex);
    s->computed = true;
    cbi_cond_signal(&s->wake);
    cbi_mutex_unlock(&s->mutex);
    cbi_thread_join(&s->renewer);
    cbi_cond_fini(&s->wake);
    cbi_mutex_fini(&s->mutex);
    s->renews = false;
}

/* ---- all of it ---- */

void cbi_shared_init(cbi_shared *s, const cb_block_lineage *lineage) {
    *s = (cbi_shared){.lineage = lineage,
                      .claim = {.claim_ns = CLAIM_MS * ms,
                                .poll_ns = POLL_MS * ms,
                                .patience_ns = PATIENCE_MS * ms}};
}

static cb_status wait_for(const cbi_shared *s, const cb_block_task *task, const char *name,
                          cb_error *err) {
    uint64_t now = cbi_sys_clock_ns(), until = s->claim.due_ns;
    if (task->deadline_ns != 0 && until > task->deadline_ns) {
        until = task->deadline_ns;
    }
    if (task->deadline_ns != 0 && now >= task->deadline_ns) {
        return cbi_fail(err, CB_EDEADLINE,
                        "Another executor computes block %.255s, until the deadline.", name);
    }
    if (until > now) {
        cbi_sys_sleep_ns(until - now);
    }
    return CB_OK;
}

cb_status cbi_shared_ask(cbi_shared *s, cb_block_task *task, const char *name,
                         cb_record_source *source, bool *computes, cb_error *err) {
    cb_blocks *b = task->blocks;
    cbi_claim_event event = CBI_CLAIM_BEGUN;
    uint64_t wait_ns = 0;
    for (;;) {
        switch (cbi_claim_step(&s->claim, event, wait_ns, cbi_sys_clock_ns())) {
            case CBI_CLAIM_LOOK:
                event = open_elsewhere(s, b, name, source, err);
                if (event == CBI_CLAIM_FOUND) { /* the claim is let go when it is stored */
                    *computes = false;
                    return CB_OK;
                }
                break;
            case CBI_CLAIM_TAKE: event = take(s, b, name, &wait_ns); break;
            case CBI_CLAIM_WAIT:
                CB_TRY(wait_for(s, task, name, err));
                event = CBI_CLAIM_PASSED;
                break;
            case CBI_CLAIM_COMPUTE: *computes = true; return CB_OK;
            case CBI_CLAIM_RENEW:
            case CBI_CLAIM_GIVE:
            case CBI_CLAIM_DONE:
            case CBI_CLAIM_FAILED:
            default: return cbi_fail(err, CB_EMISUSE, "A claim that ended was asked of.");
        }
    }
}

void cbi_shared_end(cbi_shared *s, const cb_blocks *b, const char *name, bool computes,
                    bool stored) {
    if (!computes && !stored && s->at != 0 && s->bad_count < CBI_SHARED_BAD_MAX) {
        s->bad[s->bad_count++] = s->at; /* it broke off: the next one, or nobody */
    }
    s->at = 0;
    if (s->claim.claimed) {
        give(s, b, name, stored);
    }
    s->claim = (cbi_claim){.claim_ns = s->claim.claim_ns,
                           .poll_ns = s->claim.poll_ns,
                           .patience_ns = s->claim.patience_ns};
}
