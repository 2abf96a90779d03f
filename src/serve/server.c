/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of a server of blocks, its workers, and who may come in.
 *
 * Everything that a peer could make it need is there from the beginning and in the budget: so many
 * connections, what the system holds for each socket, leases, streams, threads. When all
 * connections are taken, one that has nothing under way and no lease gives way, the one that was
 * idle longest: a thousand idle ones keep nobody out. Users who are not trusted share half of it;
 * who has to say the password is one of them until he has said it, and gives way when he was there
 * longest without, whatever else he says.
 */
#include "serve/serve.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

enum {
    TICK_MS = 1000,
    LATE_TICKS = 3,
    PAGE_MS = 500,
    EVENTS = 64,
    MOMENT = 200 /* of the timeout: a part */
};

static const uint64_t millisecond = 1000000;

/* ---- jobs ---- */

static void enqueue(cbi_connection **first, cbi_connection **last, cbi_connection *c) {
    c->next_job = NULL;
    *(*last != NULL ? &(*last)->next_job : first) = c;
    *last = c;
}

void cbi_server_hand_back(cb_server *s, cbi_connection *c) {
    cbi_mutex_lock(&s->mutex);
    bool ring = s->done == NULL;
    c->next_job = s->done;
    s->done = c;
    cbi_mutex_unlock(&s->mutex);
    if (ring) { /* without the lock: the loop would wake up and wait for it */
        cbi_sys_bell_ring(s->bell);
    }
}

static cbi_connection *dequeue(cbi_connection **first, cbi_connection **last) {
    cbi_connection *c = *first;
    *first = c->next_job;
    *last = *first != NULL ? *last : NULL;
    return c;
}

/** [mutex] What is tried again when it is time, before what comes: it costs little. NULL: the
 *  server ends, and nothing is left. */
static cbi_connection *next_job(cb_server *s) {
    for (;;) {
        const cbi_connection *later = s->later_first;
        if (later != NULL && cbi_sys_clock_ns() >= later->again_ns) {
            return dequeue(&s->later_first, &s->later_last);
        }
        if (s->jobs_first != NULL) {
            return dequeue(&s->jobs_first, &s->jobs_last);
        }
        if (later != NULL) {
            (void)cbi_cond_wait_until(&s->wake, &s->mutex, later->again_ns);
        } else if (s->quit) {
            return NULL;
        } else {
            cbi_cond_wait(&s->wake, &s->mutex);
        }
    }
}

void cbi_server_work(void *ctx) {
    cb_server *s = ((cbi_worker *)ctx)->server;
    cbi_mutex_lock(&s->mutex);
    for (cbi_connection *c = next_job(s); c != NULL; c = next_job(s)) {
        cbi_mutex_unlock(&s->mutex);
        cbi_request_work(s, c);
        bool again = c->again;
        if (!again) {
            cbi_server_hand_back(s, c);
        }
        cbi_mutex_lock(&s->mutex);
        if (again) {
            c->again = false;
            c->again_ns = cbi_sys_clock_ns() + 2 * millisecond;
            enqueue(&s->later_first, &s->later_last, c);
        }
    }
    cbi_mutex_unlock(&s->mutex);
}

bool cbi_server_has_jobs(cb_server *s) {
    cbi_mutex_lock(&s->mutex);
    bool any = s->jobs_first != NULL;
    cbi_mutex_unlock(&s->mutex);
    return any;
}

static void closed(cb_server *s, cbi_connection *c) {
    for (uint32_t i = 0; c->leases > 0 && i < s->leases_max; i++) {
        if (s->lease_table[i].owner == c && s->lease_table[i].given) {
            cbi_lease_give(s, &s->lease_table[i]);
        }
    }
    s->strangers -= !c->trusted;
    c->ending = true;
    if (s->copies != NULL && c->resp != NULL) {
        cbi_copies_known(s->copies, &c->resp->wait, 0);
        cbi_copies_arrival_end(s->copies, &c->resp->arrival);
        cbi_copies_claims_end(s->copies, c);
    }
    cbi_connection_let_go(s, c);
    c->state = CBI_FREE;
    c->next = s->free;
    s->free = c;
    s->stats.connections--;
    s->closing--;
}

/** Its worker is done with it. */
static void finish(cb_server *s, cbi_connection *c) {
    cbi_job job = c->job;
    c->job = CBI_JOB_NONE;
    if (c->deadline_ns > 0 && c->busy_ns > 0) { /* what we took is not the peer's time */
        c->deadline_ns += cbi_sys_clock_ns() - c->busy_ns;
    }
    c->busy_ns = 0;
    c->takes = false;
    if (job == CBI_JOB_CLOSE) {
        closed(s, c);
        return;
    }
    c->state = CBI_HEAD;
    if (!c->ending && !c->broken) {
        cbi_request_done(s, c, job);
    }
    if (c->broken) {
        cbi_connection_end(s, c);
    }
}

/** After anything that changed a connection. */
static void settle(cb_server *s, cbi_connection *c) {
    if (c->state == CBI_REPLY && !c->ending) {
        cbi_connection_send(s, c);
    }
    bool reads = c->state == CBI_HEAD || c->state == CBI_BODY || c->state == CBI_DRAIN;
    if (reads && !c->ending && c->in_end > c->in_at) {
        cbi_connection_receive(s, c); /* what came together with what was done */
    }
    if (c->state == CBI_FREE || c->fd < 0) {
        if (c->state != CBI_FREE && c->state != CBI_BUSY) {
            cbi_connection_end(s, c);
        }
        return;
    }
    if (!c->ending) {
        cbi_connection_want(s, c);
    }
    if (c->ending) {
        cbi_connection_end(s, c);
    }
}

void cbi_server_submit(cb_server *s, cbi_connection *c) {
    c->state = CBI_BUSY;
    if (s->worker_count == 0 || c->idle) { /* who is idle holds nothing whose end could take time */
        cbi_idle_remove(s, c);
        cbi_request_work(s, c);
        finish(s, c);
        return;
    }
    c->busy_ns = cbi_sys_clock_ns();
    cbi_mutex_lock(&s->mutex);
    enqueue(&s->jobs_first, &s->jobs_last, c);
    cbi_mutex_unlock(&s->mutex);
    cbi_cond_signal(&s->wake);
}

void cbi_server_take_done(cb_server *s) {
    cbi_sys_bell_clear(s->bell);
    cbi_mutex_lock(&s->mutex);
    cbi_connection *c = s->done;
    s->done = NULL;
    cbi_mutex_unlock(&s->mutex);
    while (c != NULL) {
        cbi_connection *next = c->next_job;
        finish(s, c);
        settle(s, c);
        c = next;
    }
}

/* ---- coming in ---- */

static void listen_at(const cb_server *s, int fd, uint64_t token, bool on, bool *is) {
    if (on != *is && (fd < 0 || cbi_sys_poll_set(s->poll, fd, false, on, false, token) >= 0)) {
        *is = on;
    }
}

static bool has_many_strangers(const cb_server *s) {
    return s->strangers >= s->connections_max / 2;
}

/** Who would give way next; NULL: nobody. */
static cbi_connection *first_in_line(const cb_server *s, bool stranger) {
    cbi_connection *c = s->idle_first;
    while (c != NULL && stranger && c->trusted) {
        c = c->next;
    }
    return c;
}

/** So long those who have to say the password wait to be let in: who came before has a moment to
 *  say it, or each would send away another who was just about to. In milliseconds; 0: they may
 *  come. */
static int crowded_for(const cb_server *s) {
    bool crowd = s->password != NULL && has_many_strangers(s);
    const cbi_connection *c = crowd ? first_in_line(s, true) : NULL;
    if (c == NULL || c->resp == NULL) {
        return 0;
    }
    uint64_t came = c->resp->login_ns + s->missed_ns - s->timeout_ns;
    uint64_t until = came + s->timeout_ns / MOMENT, now = cbi_sys_clock_ns();
    return until > now ? (int)cbi_min((until - now) / millisecond + 1, TICK_MS) : 0;
}

static void listen_for(cb_server *s, bool on) {
    s->crowded_ms = on ? crowded_for(s) : 0;
    listen_at(s, s->listener, CBI_TOKEN_LISTENER, on, &s->listening);
    listen_at(s, s->tcp, CBI_TOKEN_TCP, on && s->crowded_ms == 0, &s->listening_tcp);
}

/** Who speaks RESP hears why he is sent away, as Redis says it, if his socket takes it now. What he
 *  has said is taken first: who is sent away with that unread does not get to hear anything. */
static void say_too_many(cb_server *s, int fd) {
    char text[] = CBI_RESP_TOO_MANY "\r\n";
    const struct iovec words = {.iov_base = text, .iov_len = sizeof text - 1};
    (void)cbi_sys_receive(fd, s->scratch, sizeof s->scratch);
    (void)cbi_sys_send(fd, &words, 1, -1);
}

/** He says what he has to say by now; false: he goes himself, or he has logged in with that. */
static bool is_still_a_stranger(cb_server *s, cbi_connection *c) {
    uint32_t generation = c->generation;
    cbi_connection_receive(s, c);
    settle(s, c);
    return c->generation == generation && !c->trusted;
}

/** The first in line gives way; false: nobody is in it. */
static bool make_way(cb_server *s, bool stranger) {
    cbi_connection *c = first_in_line(s, stranger);
    while (c != NULL && c->resp != NULL && !c->trusted && !is_still_a_stranger(s, c)) {
        if (stranger || s->free != NULL) {
            return true;
        }
        c = first_in_line(s, stranger);
    }
    if (c == NULL) {
        return false;
    }
    if (c->resp != NULL) {
        say_too_many(s, c->fd);
    }
    cbi_connection_end(s, c);
    return true;
}

/** What it reads from and writes to, and who has to say who he is. */
static void equip(const cb_server *s, cbi_connection *c, bool resp) {
    c->in = c->own_in;
    c->in_max = sizeof c->own_in;
    c->out = c->own_out;
    if (!resp) {
        return;
    }
    c->resp = &s->resps[c - s->connections];
    c->resp->login_ns = c->trusted ? 0 : cbi_sys_clock_ns() + s->timeout_ns - s->missed_ns;
    c->resp->in_rest = c->resp->serving = c->resp->offers = c->resp->lent = false;
    c->resp->resp3 = false;
    c->resp->copies = 0;
    c->resp->wrong = 0;
    c->in = c->resp->in;
    c->in_max = sizeof c->resp->in;
    c->out = c->resp->out;
}

void cbi_server_trust(cb_server *s, cbi_connection *c) {
    s->strangers -= !c->trusted;
    c->trusted = true;
    c->resp->login_ns = 0;
    cbi_idle_remove(s, c); /* he has something under way: this */
}

bool cbi_server_adopt(cb_server *s, int fd, bool trusted, bool resp) {
    cbi_connection *c = s->free;
    bool full = c == NULL || (!trusted && has_many_strangers(s));
    cb_block_task *task = NULL;
    if (full || cb_block_task_create(s->blocks, 0, 0, &task, NULL) != CB_OK) {
        if (resp) {
            say_too_many(s, fd);
        }
        (void)cbi_sys_close(fd);
        return false;
    }
    uint32_t generation = c->generation;
    uint64_t token = (uint64_t)generation << 32 | (uint64_t)(c - s->connections);
    if (cbi_sys_poll_set(s->poll, fd, true, true, false, token) < 0) {
        (void)cb_block_task_end(task);
        (void)cbi_sys_close(fd);
        return false;
    }
    s->free = c->next;
    *c = (cbi_connection){.fd = fd,
                          .generation = generation,
                          .state = CBI_HEAD,
                          .wanted = CBI_HEAD,
                          .trusted = trusted,
                          .pass = -1,
                          .task = task};
    equip(s, c, resp);
    s->strangers += !trusted;
    s->stats.connections++;
    if (s->stats.connections > s->stats.connections_peak) {
        s->stats.connections_peak = s->stats.connections;
    }
    cbi_connection_rest(s, c);
    return true;
}

static void go_deaf(cb_server *s) {
    s->deaf = true;
    listen_for(s, false);
}

/** There are no descriptors, and nobody who gives one up: who waits is told so by being let in and
 * sent away. */
static void send_away(cb_server *s, int listener) {
    if (s->spare < 0) {
        go_deaf(s);
        return;
    }
    (void)cbi_sys_close(s->spare);
    int fd = cbi_sys_accept(listener, 0);
    if (fd >= 0) {
        if (listener == s->tcp) {
            say_too_many(s, fd);
        }
        (void)cbi_sys_close(fd);
    }
    s->spare = cbi_sys_bell_create();
    s->stats.connections_refused++;
}

/** Who it is that came in by the socket's name; false: he has no business here. */
static bool may_enter(const cb_server *s, int fd, bool *trusted) {
    pid_t pid = 0;
    uid_t uid = 0;
    bool known = cbi_sys_peer(fd, &pid, &uid) == 0;
    *trusted = known && (uid == s->uid || uid == 0);
    return known && (*trusted || s->others);
}

static void enter(cb_server *s, int fd, bool tcp) {
    bool trusted = s->password == NULL;
    if (!tcp && !may_enter(s, fd, &trusted)) {
        s->stats.connections_refused++;
        (void)cbi_sys_close(fd);
        return;
    }
    if (!trusted && has_many_strangers(s)) {
        (void)make_way(s, true);
    }
    if (!cbi_server_adopt(s, fd, trusted, tcp)) {
        s->stats.connections_refused++;
    }
}

/** false: nobody else is there, or there is no room. */
static bool let_in(cb_server *s, bool tcp) {
    int listener = tcp ? s->tcp : s->listener;
    if (tcp && crowded_for(s) > 0) {
        listen_for(s, s->listening); /* until somebody has logged in, or had the time for it */
        return false;
    }
    if (s->free == NULL && cbi_sys_wait_for(listener, false, 0) == 0) {
        return false; /* who came took the last place: nobody has to go for that */
    }
    if (s->free == NULL && (s->closing > 0 || make_way(s, false)) && s->free == NULL) {
        listen_for(s, false); /* until it is closed */
        return false;
    }
    if (s->free == NULL) {
        listen_for(s, false); /* until the next tick */
        return false;
    }
    int fd = cbi_sys_accept(listener, tcp ? 0 : CBI_SOCKET_SEND_BYTES);
    if (fd == -EMFILE || fd == -ENFILE) {
        if (make_way(s, false)) { /* its descriptor is free now */
            return true;
        }
        send_away(s, listener);
        return false;
    }
    if (fd < 0) {
        if (fd != -EAGAIN && fd != -ECONNABORTED) {
            go_deaf(s); /* it would fail as fast again */
        }
        return fd == -ECONNABORTED;
    }
    enter(s, fd, tcp);
    return true;
}

/* ---- the loop ---- */

/** A server that was stopped for a while, or had no processor, cannot know whether its peers were
 * in time: what it missed is not counted. */
static void forgive(cb_server *s, uint64_t missed_ns) {
    for (uint32_t i = 0; i < s->connections_max; i++) {
        cbi_connection *c = &s->connections[i];
        if (c->state != CBI_FREE && c->state != CBI_BUSY && c->deadline_ns > 0) {
            c->deadline_ns += missed_ns;
        }
    }
    s->missed_ns += missed_ns; /* what is a worker's just now hears of it later */
}

/** For what somebody else computes, for as long as it said: its socket is not polled meanwhile. */
static bool waits_for_another(const cbi_connection *c) {
    return c->state == CBI_BUSY && c->job == CBI_JOB_FETCH && c->resp->computes && c->fd >= 0;
}

/** Ends those whose time is over; answers whether somebody has a deadline. */
static bool look_at_clock(cb_server *s) {
    uint64_t now = cbi_sys_clock_ns(), since = now - s->looked_ns;
    if (s->hurries && since > LATE_TICKS * TICK_MS * millisecond) { /* it waits for one at most */
        forgive(s, since);
    }
    s->looked_ns = now;
    if (now < s->next_tick_ns) {
        return true;
    }
    s->next_tick_ns = now + TICK_MS * millisecond;
    bool any = false;
    for (uint32_t i = 0; i < s->connections_max; i++) {
        cbi_connection *c = &s->connections[i];
        if (waits_for_another(c) && cbi_sys_has_ended(c->fd)) {
            cbi_connection_end(s, c);
        }
        if (c->state == CBI_FREE || c->state == CBI_BUSY || c->deadline_ns == 0) {
            any = any || c->state == CBI_BUSY;
            continue;
        }
        any = true;
        if (c->deadline_ns <= now) {
            s->stats.connections_refused++;
            cbi_connection_end(s, c);
        }
    }
    s->deaf = false;
    listen_for(s, true);
    if (s->spare < 0) {
        s->spare = cbi_sys_bell_create();
    }
    cb_ledger_refresh(s->manager);
    return any;
}

/** Streams that were given back go to who waits for them. Not in the midst of another connection's
 *  turn: who gets one goes on as far as he can, and that may free the next one. */
static void call_waiting(cb_server *s) {
    for (cbi_connection *c = cbi_stream_next(s); c != NULL; c = cbi_stream_next(s)) {
        s->calling = true;
        cbi_request_stream(s, c);
        s->calling = false;
        settle(s, c);
    }
}

static void serve_event(cb_server *s, const cbi_sys_event *e) {
    uint32_t place = (uint32_t)e->token;
    if (place == CBI_TOKEN_BELL) {
        cbi_server_take_done(s);
        return;
    }
    if (place == CBI_TOKEN_LISTENER || place == CBI_TOKEN_TCP) {
        for (int i = 0; i < EVENTS && let_in(s, place == CBI_TOKEN_TCP); i++) {
        }
        return;
    }
    cbi_connection *c = &s->connections[place];
    if (c->generation != e->token >> 32 || c->state == CBI_FREE || c->fd < 0) {
        return; /* it ended a moment ago */
    }
    if (c->state == CBI_BUSY || c->state == CBI_QUEUED) {
        if (e->hung_up) {
            cbi_connection_end(s, c);
        }
        return;
    }
    if (c->state == CBI_REPLY) {
        cbi_connection_send(s, c);
    } else {
        cbi_connection_receive(s, c);
    }
    settle(s, c);
}

cb_status cbi_server_step(cb_server *s, int timeout_ms, cb_error *err) {
    cbi_sys_event events[EVENTS];
    int count = cbi_sys_poll_wait(s->poll, events, EVENTS, timeout_ms);
    if (count < 0) {
        return cbi_fail_sys(err, CB_EIO, count, "the server cannot wait for its connections");
    }
    for (int i = 0; i < count; i++) {
        serve_event(s, &events[i]);
    }
    call_waiting(s);
    if (s->free != NULL && !s->deaf) {
        listen_for(s, true);
    }
    return CB_OK;
}

/** For carbide top. */
static void publish(cb_server *s) {
    uint64_t now = cbi_sys_clock_ns();
    if (now < s->next_page_ns) {
        return;
    }
    s->next_page_ns = now + PAGE_MS * millisecond;
    memset(&s->figures, 0, sizeof s->figures);
    cb_server_figures(s, &s->figures);
    if (cb_status_page_publish(s->page, &s->figures, NULL) != CB_OK) {
        s->next_page_ns += TICK_MS * millisecond; /* nothing depends on it */
    }
}

cb_status cb_server_run(cb_server *s, cb_error *err) {
    while (!atomic_load(&s->stop)) {
        bool hurry = look_at_clock(s) || !s->listening;
        s->hurries = hurry;
        if (s->page != NULL) {
            publish(s);
        }
        int timeout_ms = s->page != NULL ? PAGE_MS : hurry ? TICK_MS : -1;
        bool crowded = s->crowded_ms > 0 && (timeout_ms < 0 || s->crowded_ms < timeout_ms);
        CB_TRY(cbi_server_step(s, crowded ? s->crowded_ms : timeout_ms, err));
    }
    return CB_OK;
}

void cb_server_stop(cb_server *s) {
    atomic_store(&s->stop, true);
    cbi_sys_bell_ring(s->bell);
}

/* ---- figures ---- */

void cbi_server_stats(cb_server *s, cb_server_stats *out) {
    cb_blocks_stats b;
    cb_pool_stats pool;
    cb_blocks_stats_get(s->blocks, &b);
    cb_manager_pool(s->manager, CB_STORAGE, CB_HEAP, &pool);
    *out = s->stats;
    out->accounted_bytes = cb_manager_accounted(s->manager);
    out->accounted_peak_bytes = cb_manager_accounted_peak(s->manager);
    out->storage_max_bytes = cb_manager_storage_max(s->manager, CB_HEAP);
    out->blocks = b.blocks;
    out->memory_blocks = b.memory_blocks;
    out->memory_bytes = b.memory_bytes;
    out->disk_blocks = b.disk_blocks;
    out->disk_bytes = b.disk_bytes;
    out->unroll_bytes = pool.used > b.memory_bytes ? pool.used - b.memory_bytes : 0;
    out->overhead_bytes = b.overhead_bytes;
    out->evicted = b.evicted;
    out->drops_failed = b.drops_failed;
    out->hits = b.hits;
    out->disk_hits = b.disk_hits;
    out->misses = b.misses;
    out->promoted = b.promoted;
    out->replicas_missing = b.replicas_missing;
    out->kept = b.kept;
    out->recovered = b.recovered;
    out->lost = b.lost;
    out->idle_bytes = cb_allocator_idle(s->manager->allocators[CB_HEAP]);
}

void cb_server_figures(const cb_server *s, cb_figures *f) {
    memcpy(f->what, "serve", sizeof "serve");
    f->elapsed_ns = cbi_sys_clock_ns() - s->started_ns;
    f->fraction = -1;
    cb_manager_figures(s->manager, f);
    cb_blocks_figures(s->blocks, f);
}

void cb_server_stats_get(cb_server *s, cb_server_stats *stats) {
    cbi_server_stats(s, stats);
}
