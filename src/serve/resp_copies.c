/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What executors ask of each other, and what a client asks about copies. An offer is judged at
 * once; the bytes come as a CARBIDE.PUT on the same connection, and count as that copy when name
 * and generation are the ones that were offered. A connection that ends takes its offer with it.
 */
#include <string.h>

#include "serve/serve.h"

static cbi_resp_word next(cbi_resp_args *a) {
    return cbi_resp_next(a->bytes, a->request, &a->at);
}

static void finished(cbi_connection *c) {
    c->in_at += (uint32_t)c->resp->request.taken;
}

static void say_error(cbi_connection *c, const char *sentence) {
    cbi_resp_say_error(c, "ERR", sentence);
    finished(c);
}

/** What a sender understands. */
static void say_answer(cbi_connection *c, cbi_replica_answer answer) {
    switch (answer) {
        case CBI_REPLICA_OK: cbi_resp_say(c, "OK"); break;
        case CBI_REPLICA_FAILED: cbi_resp_say(c, "SEND"); break;
        case CBI_REPLICA_CORRUPT: cbi_resp_say_error(c, "CORRUPT", "it came otherwise"); break;
        case CBI_REPLICA_CONFLICT:
            cbi_resp_say_error(c, "CONFLICT", "another block has the name here");
            break;
        case CBI_REPLICA_IS_BURIED:
            cbi_resp_say_error(c, "BURIED", "that block was removed everywhere");
            break;
        case CBI_REPLICA_IS_BUSY:
            cbi_resp_say_error(c, "BUSY",
                               "one of that name is still coming, or is being read to its end");
            break;
        case CBI_REPLICA_FULL:
        case CBI_REPLICA_UNSENT:
        default: cbi_resp_say_error(c, "FULL", "there is no room for it"); break;
    }
}

static bool take_name(cbi_resp_word w, size_t most, char *to) {
    if (w.count == 0 || w.count > most || !cbi_name_check(w.bytes, w.count)) {
        return false;
    }
    memcpy(to, w.bytes, w.count);
    to[w.count] = '\0';
    return true;
}

static void say_clock(cbi_connection *c) {
    cbi_resp_say_error(c, "CLOCK", "that generation is more than a day ahead of the clock here");
}

/** What has not to be asked of the machine; false: it is answered. */
static bool can_be_offered(cb_server *s, cbi_connection *c, const cbi_copy_offer *o,
                           cb_level level) {
    const cbi_copy_grave older = {.kind = CBI_GRAVE_BLOCK, .generation = o->generation};
    if (!cbi_server_believes(o->generation)) {
        say_clock(c);
    } else if (strcmp(o->sender, s->me.name) == 0) {
        say_answer(c, CBI_REPLICA_FULL); /* somebody else has this address in the directory */
    } else if (cbi_request_generation(s, c->name) > o->generation) {
        /* also one of a single copy, which nobody tracks. The sender hears of the removal as all
         * do: else it would keep its block, give it to readers and look for who takes a copy for
         * ever
         */
        cb_status status = cbi_copies_bury(s->copies, &older, c->name, true, NULL);
        say_answer(c, status == CB_OK ? CBI_REPLICA_IS_BURIED : CBI_REPLICA_CONFLICT);
    } else if (cbi_put_check(s->blocks, level, NULL, NULL) != CB_OK) {
        say_answer(c, CBI_REPLICA_FULL); /* before all of its bytes have come */
    } else {
        return true;
    }
    return false;
}

void cbi_resp_offer(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    cbi_resp *r = c->resp;
    char sender[CB_EXECUTOR_NAME_MAX + 1];
    cb_level level = CB_LEVEL_NONE;
    uint64_t older = 0;
    cbi_copy_offer o = {.name = c->name, .sender = sender};
    bool good = take_name(next(a), CB_BLOCK_NAME_MAX, c->name) &&
                cbi_resp_take_number(next(a), &o.generation) && o.generation != 0 &&
                o.generation < CBI_GENERATION_MAX && cbi_resp_take_level(next(a), &level) &&
                cb_level_is_valid(level) && cbi_resp_take_number(next(a), &o.checksum) &&
                cbi_resp_take_number(next(a), &o.bytes) &&
                take_name(next(a), CB_EXECUTOR_NAME_MAX, sender);
    if (!good || s->copies == NULL) {
        say_error(c, "CARBIDE.OFFER NAME GENERATION LEVEL CHECKSUM BYTES SENDER, at an executor");
        return;
    }
    o.copies = cb_level_replicas(level);
    cbi_copies_arrival_end(s->copies, &r->arrival);
    if (!can_be_offered(s, c, &o, cbi_resp_plain(level))) {
        r->offers = false;
        finished(c);
        return;
    }
    cbi_replica_answer answer = cbi_copies_offered(s->copies, &o, &r->arrival, &older);
    if (older != 0 &&
        !r->offers) { /* its name goes to this one, and the offer is looked at again */
        r->offers = true;
        r->removes = r->leaves = false;
        r->grave = (cbi_copy_grave){.kind = CBI_GRAVE_BLOCK, .generation = older};
        c->job = CBI_JOB_BURY;
        cbi_server_submit(s, c);
        return;
    }
    r->offers = false;
    r->arrival.until_ns = cbi_sys_clock_ns() + s->timeout_ns - s->missed_ns;
    if (answer == CBI_REPLICA_FAILED && cbi_blocks_is_leaving(s->blocks, c->name)) {
        /* all of its bytes would come, and could not be stored: again and again, under a lease */
        cbi_copies_arrival_end(s->copies, &r->arrival);
        answer = CBI_REPLICA_IS_BUSY;
    }
    say_answer(c, answer);
    finished(c);
}

/** What was, or is to be, removed: into the grave and the name. */
static bool take_grave(cbi_connection *c, cbi_resp_args *a) {
    cbi_resp_word kind = next(a), what = next(a);
    cbi_copy_grave *g = &c->resp->grave;
    *g = (cbi_copy_grave){.kind = cbi_resp_is(kind, "BLOCK")     ? CBI_GRAVE_BLOCK
                                  : cbi_resp_is(kind, "DATASET") ? CBI_GRAVE_DATA_SET
                                                                 : CBI_GRAVE_BROADCAST};
    bool good = g->kind == CBI_GRAVE_BLOCK ? take_name(what, CB_BLOCK_NAME_MAX, c->name)
                                           : cbi_resp_take_number(what, &g->number);
    return good && (g->kind != CBI_GRAVE_BROADCAST || cbi_resp_is(kind, "BROADCAST"));
}

/** By a worker: it may have to look at all blocks. */
static void submit(cb_server *s, cbi_connection *c, bool removes, bool leaves) {
    c->resp->offers = false;
    c->resp->removes = removes;
    c->resp->leaves = leaves;
    c->job = CBI_JOB_BURY;
    cbi_server_submit(s, c);
}

void cbi_resp_bury(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    cbi_copy_grave *g = &c->resp->grave;
    bool good = take_grave(c, a) && cbi_resp_take_number(next(a), &g->generation) &&
                g->generation != 0 && g->generation < CBI_GENERATION_MAX;
    if (!good || s->copies == NULL) {
        say_error(c, "CARBIDE.BURY BLOCK|DATASET|BROADCAST NAME|NUMBER GENERATION, at an executor");
        return;
    }
    if (!cbi_server_believes(g->generation)) {
        say_clock(c);
        finished(c);
        return;
    }
    submit(s, c, false, false);
}

void cbi_resp_remove_all(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    if (!take_grave(c, a) || s->copies == NULL) {
        say_error(c, "CARBIDE.REMOVE BLOCK|DATASET|BROADCAST NAME|NUMBER, at an executor");
        return;
    }
    c->resp->grave.generation = cbi_server_generation(s);
    submit(s, c, true, false);
}

void cbi_resp_decommission(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    (void)a;
    if (s->copies == NULL) {
        say_error(c, "CARBIDE.DECOMMISSION is for an executor");
        return;
    }
    submit(s, c, false, true);
}

void cbi_resp_buried(cb_server *s, cbi_connection *c) {
    cbi_resp *r = c->resp;
    if (r->offers) {
        cbi_resp_args a = {c->in + c->in_at, &r->request, r->request.start};
        (void)next(&a);
        cbi_resp_offer(s, c, &a);
    } else {
        if (r->status == CB_OK) {
            cbi_resp_say(c, "OK");
        } else {
            cbi_resp_say_failed(c);
        }
        finished(c);
    }
    cbi_resp_go_on(c);
}

void cbi_resp_wait(cb_server *s, cbi_connection *c, cbi_resp_args *a) {
    (void)s;
    (void)a;
    cbi_resp_say_number(c, c->resp->copies); /* the SET has waited */
    finished(c);
}
