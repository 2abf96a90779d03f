/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A directory whose truth is elsewhere.
 *
 * The problem. What an executor has changes a hundred thousand times a second, under whoever puts
 * and reads; the server that is told of it may be slow, gone, or somebody else. Nobody who puts a
 * block may wait for it, no memory may grow because of it, and in the end it must know the truth.
 *
 * One thread talks to the server. Reports are copied into one of two buffers of fixed size, under a
 * lock that is held for the copy alone; the thread takes the full one and leaves the empty one.
 * When a buffer is full, when the connection ends with reports under way (which of them arrived?),
 * when the lease is not ours any more: in each of these cases there is one answer, to enter anew,
 * as somebody with a greater generation who has nothing yet, and to report everything. What the
 * older life had said is then said by nobody, so it cannot be wrong; the scripts (redis_scripts.h)
 * clean it away.
 *
 * A server that is full (maxmemory) answers, and forgets nothing: there the life goes on, what it
 * knows stays true as far as it goes, and what it would not take is said again at the next beat;
 * first what is gone, for that makes room. A life that began anew would have to be told from the
 * beginning, to who has no room: it does only when the buffers run over.
 *
 * Everything means: the store is walked, a few hundred blocks at a time, as fast as there is room
 * in the buffers, while changes go into the same buffers in between. The walk tells what a block is
 * while the store's lock is held, and whoever changes a block tells it afterwards: so the last that
 * is told of a block is what it is.
 *
 * Until the walk is over and has arrived, and while a server is full, it says so of us: who looks
 * for a block that nobody is known to have must not hear that nobody has it. That ends with the
 * lease, too.
 */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "carbide/redis_directory.h"
#include "net/redis_link.h"
#include "net/redis_news.h"
#include "net/redis_queue.h"
#include "net/redis_scripts.h"
#include "net/redis_take.h"
#include "store/directory.h"

enum {
    LOCATIONS_MAX = 256,
    PEERS_MAX = 128,
    CLEAN_BLOCKS = 500,
    CLEAN_TURNS = 20, /* at once; then others have their turn */
    BEATS = 4,        /* renewals in a lease */
};

static_assert(LOCATIONS_MAX * CBI_REDIS_LOCATED + 1 <= CBI_REDIS_VALUES_MAX, "they fit a reply");
static_assert(PEERS_MAX * CBI_REDIS_PEER <= CBI_REDIS_VALUES_MAX, "they fit a reply");

struct cb_redis_directory {
    /* immutable */
    cbi_redis_url url;
    char channel[CBI_REDIS_CHANNEL_MAX + 1];
    uint64_t lease_ns, beat_ns;
    cbi_thread thread;
    /* guarded by mutex, which nobody holds while he waits for anything but it */
    cbi_mutex mutex;
    cbi_cond wake, left;
    bool quit;
    bool here;    /* an executor has entered, and not left */
    bool leaving; /* the thread is to tell it */
    bool behind;  /* reports were dropped: everything is to be told */
    cb_executor_view who;
    cb_executor_list_fn list;
    void *list_ctx;
    cbi_redis_queue *filling; /* of the two; the other is the thread's */
    uint64_t last_generation;
    uint64_t life;    /* that the server knows, if it has not forgotten it meanwhile; 0: none */
    bool was_known;   /* by the server, since it entered */
    uint64_t told_ns; /* the server had forgotten us, so perhaps all: until then others tell it */
    cb_redis_directory_stats stats;
    cb_directory_state state;
    /* the thread's */
    cbi_redis_news news;
    cb_executor_view me; /* as `who` is, in the generation that the server knows */
    bool entered, walking;
    bool is_full; /* the server took nothing: what is in `sending` is sent again at the next beat */
    bool telling; /* the server says so to who looks for what nobody has */
    bool ousted;  /* somebody newer has our name: it is ours again when nobody has it */
    uint64_t walk_at, beat_at_ns;
    cbi_redis_queue *sending;
    cbi_redis_link link;
    cbi_redis_queue queues[2];
    /* guarded by look_mutex, which is held while the server is asked; no other is taken with it */
    cbi_mutex look_mutex;
    cbi_redis_link look;
};

/* ---- the queue ---- */

/** [mutex] From now on there is nothing to be sent but everything. */
static void fall_behind(cb_redis_directory *d) {
    d->stats.collapsed += !d->behind;
    d->behind = true;
    d->filling->bytes = 0;
}

/** What the walk comes by. A lock of the store is held. */
static void note_walked(void *ctx, const char *block, const cb_place *place) {
    cb_redis_directory *d = ctx;
    cbi_mutex_lock(&d->mutex);
    if (!d->behind && !cbi_redis_queue_add(d->filling, block, place)) {
        fall_behind(d); /* changes took the room: once more from the beginning */
    }
    cbi_mutex_unlock(&d->mutex);
}

/* ---- what the thread says ---- */

/** [mutex] Generations grow, also from one process to the next by the same name. */
static uint64_t next_generation(cb_redis_directory *d, uint64_t last) {
    uint64_t now = cbi_sys_time_ns() / 1000, floor = cbi_max(last, d->last_generation);
    d->last_generation = cbi_max(now, floor + 1);
    return d->last_generation;
}

static void begin_script(cbi_redis_link *l, const char *script, size_t words) {
    cbi_redis_begin(l, words + 3);
    cbi_redis_text(l, "EVAL");
    cbi_redis_text(l, script);
    cbi_redis_text(l, "0");
}

/** Who says it, in which life. */
static void begin_mine(cb_redis_directory *d, const char *script, size_t words) {
    begin_script(&d->link, script, words + 2);
    cbi_redis_text(&d->link, d->me.name);
    cbi_redis_number(&d->link, d->me.generation);
}

static void note_failure(cb_redis_directory *d, cb_status status, const cb_error *err) {
    cbi_mutex_lock(&d->mutex);
    d->stats.failures++;
    cbi_redis_state_set(&d->state, status, err->message);
    cbi_mutex_unlock(&d->mutex);
}

static const int64_t unheard = INT64_MIN, full = INT64_MIN + 1;

/** What a script answers: 1, 0, -1, or how much. `unheard`: nothing, and the link is closed.
 *  `full`: the server has no memory for that. */
static int64_t ask_number(cb_redis_directory *d) {
    const cbi_redis_value *reply = NULL;
    cb_error err;
    cb_status status = cbi_redis_ask(&d->link, &reply, &err);
    if (status == CB_OK && reply->kind == CBI_REDIS_INTEGER) {
        return reply->integer;
    }
    if (status == CB_OK) {
        status = cbi_fail(&err, CB_EIO, "The directory's server answers something else.");
    }
    if (status != CB_EBUDGET) {
        cbi_redis_link_close(&d->link);
    }
    note_failure(d, status, &err);
    return status == CB_EBUDGET ? full : unheard;
}

/** The server does not know us, or not all that we have. */
static void lose(cb_redis_directory *d) {
    d->entered = d->walking = d->telling = d->is_full = false;
    d->sending->bytes = 0;
    cbi_mutex_lock(&d->mutex);
    d->stats.entered = false;
    d->life = 0;
    if (d->state.status == CB_OK) {
        cbi_redis_state_set(&d->state, CB_EAGAIN, "");
    }
    cbi_mutex_unlock(&d->mutex);
}

/** Asks what only the owner of the lease may. false: it is lost, or the server is full. */
static bool ask_mine(cb_redis_directory *d) {
    int64_t answer = ask_number(d);
    d->ousted = answer == -1;
    if (answer != 1 && answer != full) {
        lose(d);
    }
    return answer == 1;
}

/** Whether the server, new or flushed, does not know the life that we had, or its lease is over. */
static bool is_forgotten(cb_redis_directory *d) {
    if (!d->was_known) {
        return false;
    }
    begin_mine(d, CBI_REDIS_RENEW, 1);
    cbi_redis_number(&d->link, d->lease_ns / 1000000);
    return ask_number(d) == 0;
}

/** A life begins. What is queued is forgotten: all will be told. */
static void enter_server(cb_redis_directory *d) {
    cbi_redis_link *l = &d->link;
    bool forgotten = is_forgotten(d);
    cbi_mutex_lock(&d->mutex);
    if (forgotten) { /* others find out within a quarter of a lease */
        d->told_ns = cbi_sys_clock_ns() + d->lease_ns;
    }
    d->me = d->who;
    d->me.generation = next_generation(d, 0);
    d->filling->bytes = d->sending->bytes = 0;
    d->behind = false;
    cbi_mutex_unlock(&d->mutex);
    begin_mine(d, CBI_REDIS_ENTER, 6);
    cbi_redis_number(l, d->lease_ns / 1000000);
    cbi_redis_text(l, d->me.address);
    cbi_redis_text(l, d->me.host);
    cbi_redis_text(l, d->me.rack);
    cbi_redis_number(l, d->me.memory_max);
    cbi_redis_number(l, d->ousted);
    int64_t answer = ask_number(d);
    d->walking = d->telling = d->entered = answer == 1;
    d->walk_at = 0;
    d->ousted = answer == -1 || (d->ousted && answer != 1);
    cbi_mutex_lock(&d->mutex);
    d->stats.entries += d->entered;
    d->was_known = d->was_known || d->entered;
    d->life = d->entered ? d->me.generation : 0;
    if (answer != unheard && answer != full) { /* else it is said why */
        cbi_redis_state_set(&d->state, d->ousted ? CB_EEXISTS : CB_EAGAIN,
                            d->ousted ? "Somebody else entered later by the same name." : "");
    }
    cbi_mutex_unlock(&d->mutex);
}

/** One request from `at` on, or its removals alone; *end: behind it. Answers as the server. */
static int64_t send_some(cb_redis_directory *d, size_t at, bool removals, size_t *end) {
    enum { HEAD_BYTES = sizeof(CBI_REDIS_REPORT) + 512 };
    const size_t room = sizeof d->link.out - HEAD_BYTES;
    const size_t count = cbi_redis_queue_fitting(d->sending, at, room, removals, end);
    if (count == 0) {
        return 1;
    }
    begin_mine(d, CBI_REDIS_REPORT, 1 + count * CBI_REDIS_REPORTED);
    cbi_redis_text(&d->link, d->channel);
    cbi_redis_queue_put(d->sending, at, *end, removals, &d->link);
    int64_t answer = ask_number(d);
    if (answer == 1 && !removals) {
        cbi_mutex_lock(&d->mutex);
        d->stats.reports += count;
        cbi_mutex_unlock(&d->mutex);
    }
    return answer;
}

/** All of the queue that is the thread's. false: it did not arrive, or in vain. */
static bool send_reports(cb_redis_directory *d) {
    cbi_redis_queue *q = d->sending;
    bool heard = true;
    for (size_t at = 0, end = 0; at < q->bytes && heard; at = end) {
        int64_t answer = send_some(d, at, false, &end);
        heard = answer == 1;
        d->ousted = answer == -1;
        if (answer == full) { /* what was tried, and all behind it, stays */
            cbi_redis_queue_drop(q, at);
            d->is_full = true;
            return true;
        }
    }
    q->bytes = 0;
    return heard;
}

/** To a server that was full: what it is rid of, also what was reported meanwhile, for that makes
 *  room. All of it is said once more in its place, when it does not matter. */
static void send_removals(cb_redis_directory *d) {
    cbi_mutex_lock(&d->mutex);
    if (!cbi_redis_queue_append(d->sending, d->filling)) {
        fall_behind(d); /* else what is removed there would not be said before there is room */
    }
    cbi_mutex_unlock(&d->mutex);
    for (size_t at = 0, end = 0; at < d->sending->bytes && send_some(d, at, true, &end) == 1;
         at = end) {
    } /* what is said next finds out what did not work */
}

/** What was reported meanwhile is the thread's to send. */
static void take_queue(cb_redis_directory *d) {
    cbi_mutex_lock(&d->mutex);
    cbi_redis_queue *filled = d->filling;
    d->filling = d->sending;
    d->sending = filled;
    cbi_mutex_unlock(&d->mutex);
}

/** The next blocks of the walk go into the queue, which has half of its room left for changes. */
static void walk(cb_redis_directory *d) {
    cbi_mutex_lock(&d->mutex);
    size_t room = (sizeof d->filling->at - d->filling->bytes) / 2;
    cbi_mutex_unlock(&d->mutex);
    if (room <
        32 * cbi_redis_report_bytes(CB_BLOCK_NAME_MAX)) { /* those of one bucket go together */
        return;                                           /* send first */
    }
    d->list(d->list_ctx, &d->walk_at, cbi_redis_report_bytes(1), room, note_walked, d);
    d->walking = d->walk_at != 0;
}

static void clean(cb_redis_directory *d) {
    int64_t done = 1;
    /* Until the lease is to be renewed, or cleaning would cost it. */
    for (int turn = 0; turn < CLEAN_TURNS && done > 0 && cbi_sys_clock_ns() < d->beat_at_ns;
         turn++) {
        begin_script(&d->link, CBI_REDIS_CLEAN, 2);
        cbi_redis_number(&d->link, CLEAN_BLOCKS);
        cbi_redis_text(&d->link, d->channel);
        done = ask_number(d);
    }
    if (done == unheard) {
        lose(d);
    }
}

/** Four times in a lease. */
static void beat(cb_redis_directory *d) {
    d->is_full = false; /* perhaps */
    if (d->link.fd < 0) {
        cb_error err;
        cb_status status = cbi_redis_link_open(&d->link, &d->url, &err);
        if (status != CB_OK) {
            note_failure(d, status, &err);
        }
        cbi_mutex_lock(&d->mutex);
        d->stats.connects += status == CB_OK;
        cbi_mutex_unlock(&d->mutex);
    } else if (d->entered) {
        begin_mine(d, CBI_REDIS_RENEW, 1);
        cbi_redis_number(&d->link, d->lease_ns / 1000000);
        (void)ask_mine(d);
    }
    if (d->link.fd >= 0 && !d->entered) {
        enter_server(d);
    }
    if (d->link.fd >= 0) { /* also by who does not get in, perhaps for want of room */
        clean(d);
    }
}

/** To a server that took not all: whoever looks for what nobody is known to have is told so, until
 *  all that we had when we entered, and whatever else was to be told, has arrived. */
static void say_how_it_stands(cb_redis_directory *d) {
    if (d->is_full && !d->telling) {
        begin_mine(d, CBI_REDIS_TELLING, 0);
        bool said = ask_mine(d);
        d->telling = said;
    } else if (d->telling && !d->walking && d->sending->bytes == 0) {
        begin_mine(d, CBI_REDIS_TOLD, 0);
        bool said = ask_mine(d);
        d->telling = d->telling && !said;
    }
}

/** What there is to be told now. */
static void tell(cb_redis_directory *d) {
    if (d->sending->bytes == 0) { /* else a server that was full did not take it */
        if (d->walking) {
            walk(d);
        }
        take_queue(d);
    } else {
        send_removals(d);
    }
    if (!send_reports(d)) {
        lose(d);
    }
    cbi_mutex_lock(&d->mutex);
    bool behind = d->behind;
    cbi_mutex_unlock(&d->mutex);
    if (behind) { /* what is queued does not say any more how it stands */
        lose(d);
    } else if (d->entered) {
        say_how_it_stands(d);
    }
    cbi_mutex_lock(&d->mutex);
    d->stats.entered = d->entered && !d->walking && !d->behind && !d->is_full;
    if (d->stats.entered) {
        cbi_redis_state_set(&d->state, CB_OK, "");
    }
    cbi_mutex_unlock(&d->mutex);
}

/** Whoever wants to know hears how it stands, if that is news. */
static void announce(cb_redis_directory *d) {
    cbi_mutex_lock(&d->mutex);
    d->state.failures = d->stats.failures;
    const cb_directory_state now = d->state;
    cbi_mutex_unlock(&d->mutex);
    cbi_redis_news_tell(&d->news, &now, cbi_sys_clock_ns());
}

static void say_farewell(cb_redis_directory *d) {
    if (d->entered) {
        begin_mine(d, CBI_REDIS_LEAVE, 0);
        (void)ask_number(d);
    }
    lose(d);
    cbi_mutex_lock(&d->mutex);
    d->was_known = false;
    cbi_redis_state_set(&d->state, CB_EAGAIN, "");
    cbi_mutex_unlock(&d->mutex);
}

/** [mutex] Whether there is something to do now. */
static bool has_work(const cb_redis_directory *d) {
    bool news = d->entered && !d->is_full &&
                (d->filling->bytes > 0 || d->sending->bytes > 0 || d->walking || d->behind);
    return d->quit || d->leaving || (d->here && (news || cbi_sys_clock_ns() >= d->beat_at_ns));
}

static void work(void *ctx) {
    cb_redis_directory *d = ctx;
    cbi_mutex_lock(&d->mutex);
    while (!d->quit) {
        while (!has_work(d)) {
            if (d->here) {
                (void)cbi_cond_wait_until(&d->wake, &d->mutex, d->beat_at_ns);
            } else {
                cbi_cond_wait(&d->wake, &d->mutex);
            }
        }
        bool here = d->here, leaving = d->leaving;
        cbi_mutex_unlock(&d->mutex);
        if (leaving) {
            say_farewell(d);
        } else if (here) {
            uint64_t now = cbi_sys_clock_ns();
            if (now >= d->beat_at_ns) {
                d->beat_at_ns = now + d->beat_ns;
                beat(d);
            }
            if (d->entered) {
                tell(d);
            }
            announce(d);
        }
        cbi_mutex_lock(&d->mutex);
        if (leaving) {
            d->leaving = d->ousted = false;
            d->beat_at_ns = 0; /* who enters next does so at once */
            d->filling->bytes = 0;
            d->behind = false;
            cbi_cond_broadcast(&d->left);
        }
    }
    cbi_mutex_unlock(&d->mutex);
}

/* ---- executors ---- */

static cb_status enter(void *ctx, const cb_executor_entry *who, uint64_t *generation,
                       cb_error *err) {
    cb_redis_directory *d = ctx;
    cb_executor_view view;
    CB_TRY(cbi_directory_view(who, &view, err));
    if (who->list == NULL) {
        return cbi_fail(err, CB_EINVAL, "This directory must be able to ask for everything.");
    }
    cbi_mutex_lock(&d->mutex);
    bool taken = d->here || d->leaving;
    if (!taken) {
        view.generation = next_generation(d, *generation);
        d->who = view;
        d->list = who->list;
        d->list_ctx = who->list_ctx;
        d->here = true;
        d->behind = false;
        d->filling->bytes = 0;
        *generation = view.generation;
        cbi_cond_signal(&d->wake);
    }
    cbi_mutex_unlock(&d->mutex);
    return taken ? cbi_fail(err, CB_EMISUSE, "An executor is in the directory by this object.")
                 : CB_OK;
}

/** [mutex] */
static bool is_here(const cb_redis_directory *d, const char *name, uint64_t generation) {
    return d->here && d->who.generation == generation && strcmp(d->who.name, name) == 0;
}

static void leave(void *ctx, const char *name, uint64_t generation) {
    cb_redis_directory *d = ctx;
    cbi_mutex_lock(&d->mutex);
    if (is_here(d, name, generation)) {
        d->here = false;
        d->leaving = true;
        cbi_cond_signal(&d->wake);
        while (d->leaving) { /* the store that the thread may be walking is about to end */
            cbi_cond_wait(&d->left, &d->mutex);
        }
    }
    cbi_mutex_unlock(&d->mutex);
}

static cb_status unknown(const char *name, uint64_t generation, cb_error *err) {
    return cbi_fail(err, CB_ENOTFOUND, "Executor %.63s is not in the directory in generation %llu.",
                    name, (unsigned long long)generation);
}

static cb_status renew(void *ctx, const char *name, uint64_t generation, cb_error *err) {
    cb_redis_directory *d = ctx;
    cbi_mutex_lock(&d->mutex);
    bool here = is_here(d, name, generation);
    cbi_mutex_unlock(&d->mutex);
    return here ? CB_OK : unknown(name, generation, err);
}

static cb_status report(void *ctx, const char *name, uint64_t generation, const char *block,
                        const cb_place *place, cb_error *err) {
    cb_redis_directory *d = ctx;
    cbi_mutex_lock(&d->mutex);
    bool here = is_here(d, name, generation);
    bool first = d->filling->bytes == 0;
    if (here && !d->behind && !cbi_redis_queue_add(d->filling, block, place)) {
        fall_behind(d);
    }
    if (here && first) {
        cbi_cond_signal(&d->wake);
    }
    cbi_mutex_unlock(&d->mutex);
    return here ? CB_OK : unknown(name, generation, err);
}

/* ---- looking ---- */

/** Who asks, if the server has to know him. */
static void take_asker(cb_redis_directory *d, char name[CB_EXECUTOR_NAME_MAX + 1]) {
    name[0] = '\0';
    cbi_mutex_lock(&d->mutex);
    if (d->was_known && d->here) {
        memcpy(name, d->who.name, sizeof d->who.name);
    }
    cbi_mutex_unlock(&d->mutex);
}

static bool is_being_told(cb_redis_directory *d) {
    cbi_mutex_lock(&d->mutex);
    bool told = d->told_ns > 0 && cbi_sys_clock_ns() < d->told_ns;
    cbi_mutex_unlock(&d->mutex);
    return told;
}

/** [look_mutex] */
static cb_status look(cb_redis_directory *d, const cbi_redis_value **reply, cb_error *err) {
    CB_TRY(cbi_redis_ask(&d->look, reply, err));
    if ((*reply)->kind != CBI_REDIS_ARRAY) {
        cbi_redis_link_close(&d->look);
        return cbi_fail(err, CB_EIO, "The directory's server answers something else.");
    }
    return CB_OK;
}

/** [look_mutex] */
static cb_status open_look(cb_redis_directory *d, cb_error *err) {
    return d->look.fd >= 0 ? CB_OK : cbi_redis_link_open(&d->look, &d->url, err);
}

static cb_status locate(void *ctx, const char *block, cb_location *locations, size_t max,
                        size_t *count, cb_error *err) {
    cb_redis_directory *d = ctx;
    const cbi_redis_value *reply = NULL;
    size_t name_bytes = strnlen(block, CB_BLOCK_NAME_MAX + 1), taken = 0;
    char asker[CB_EXECUTOR_NAME_MAX + 1];
    bool forgotten = false;
    if (name_bytes == 0 || name_bytes > CB_BLOCK_NAME_MAX) {
        *count = 0;
        return CB_OK;
    }
    take_asker(d, asker);
    cbi_mutex_lock(&d->look_mutex);
    cb_status status = open_look(d, err);
    if (status == CB_OK) {
        begin_script(&d->look, CBI_REDIS_LOCATE, 3);
        cbi_redis_word(&d->look, block, name_bytes);
        cbi_redis_number(&d->look, cbi_min(max, LOCATIONS_MAX));
        cbi_redis_text(&d->look, asker);
        status = look(d, &reply, err);
    }
    if (status == CB_OK) {
        size_t found = 0;
        for (uint32_t i = 1; i + CBI_REDIS_LOCATED <= reply->count; i += CBI_REDIS_LOCATED) {
            if (taken < max && cbi_redis_take_location(&reply->items[i], &locations[taken])) {
                taken++;
            }
        }
        if (reply->count > 0 && reply->items[0].kind == CBI_REDIS_INTEGER) {
            int64_t said = reply->items[0].integer;
            found = said > 0 && taken == max ? (size_t)said : 0;
            forgotten = said < 0;
        }
        *count = cbi_max(found, taken);
    }
    cbi_mutex_unlock(&d->look_mutex);
    if (status == CB_OK && *count == 0 && (forgotten || is_being_told(d))) {
        return cbi_fail(err, CB_EAGAIN, "The directory is being told again who has what.");
    }
    return status;
}

static cb_status peers(void *ctx, const char *name, cb_executor_view *views, size_t max,
                       size_t *count, cb_error *err) {
    cb_redis_directory *d = ctx;
    const cbi_redis_value *reply = NULL;
    cbi_mutex_lock(&d->look_mutex);
    cb_status status = open_look(d, err);
    if (status == CB_OK) {
        begin_script(&d->look, CBI_REDIS_PEERS, 1);
        cbi_redis_number(&d->look, PEERS_MAX);
        status = look(d, &reply, err);
    }
    if (status == CB_OK) {
        size_t found = 0;
        for (uint32_t i = 0; i + CBI_REDIS_PEER <= reply->count; i += CBI_REDIS_PEER) {
            cb_executor_view e;
            if (cbi_redis_take_view(&reply->items[i], &e) && strcmp(e.name, name) != 0) {
                cbi_directory_insert(views, max, found, &e);
                found++;
            }
        }
        *count = found;
    }
    cbi_mutex_unlock(&d->look_mutex);
    return status;
}

/** [look_mutex] Fields and values of a part of a hash; CB_EIO. */
static cb_status scan_blocks(cb_redis_directory *d, const char *executor, uint64_t generation,
                             uint64_t at, uint64_t some, const cbi_redis_value **reply,
                             cb_error *err) {
    char key[CB_EXECUTOR_NAME_MAX + 64];
    (void)snprintf(key, sizeof key, "cb:have:%llu:%.63s", (unsigned long long)generation, executor);
    CB_TRY(open_look(d, err));
    cbi_redis_begin(&d->look, 5);
    cbi_redis_text(&d->look, "HSCAN");
    cbi_redis_text(&d->look, key);
    cbi_redis_number(&d->look, at);
    cbi_redis_text(&d->look, "COUNT");
    cbi_redis_number(&d->look, some);
    return look(d, reply, err);
}

cb_status cb_redis_directory_list(cb_redis_directory *d, const char *executor, uint64_t generation,
                                  uint64_t *at, cb_place_fn fn, void *ctx, cb_error *err) {
    enum { SOME = 64, FEW = 4 }; /* names of 255 bytes, or buckets of many, may not fit otherwise */
    const cbi_redis_value *reply = NULL;
    uint64_t next = 0;
    cbi_mutex_lock(&d->look_mutex);
    cb_status status = scan_blocks(d, executor, generation, *at, SOME, &reply, err);
    if (status != CB_OK && d->look.full) {
        status = scan_blocks(d, executor, generation, *at, FEW, &reply, err);
    }
    if (status == CB_OK && (reply->count != 2 || !cbi_redis_take_number(&reply->items[0], &next) ||
                            reply->items[1].kind != CBI_REDIS_ARRAY)) {
        cbi_redis_link_close(&d->look);
        status = cbi_fail(err, CB_EIO, "The directory's server answers something else.");
    }
    if (status == CB_OK) {
        const cbi_redis_value *all = &reply->items[1];
        for (uint32_t i = 0; i + 2 <= all->count; i += 2) {
            char name[CB_BLOCK_NAME_MAX + 1];
            cb_place place;
            if (cbi_redis_take_text(&all->items[i], name, sizeof name) &&
                cbi_redis_take_place(&all->items[i + 1], &place)) {
                fn(ctx, name, &place);
            }
        }
        *at = next;
    }
    cbi_mutex_unlock(&d->look_mutex);
    return status;
}

/* ---- claims ---- */

/** What a script answers for the life that the server knows; CB_ENOTFOUND: it knows none. */
static cb_status ask_claim(cb_redis_directory *d, const char *name, uint64_t generation,
                           const char *script, const char *block, uint64_t claim_ns,
                           int64_t *answer, cb_error *err) {
    const cbi_redis_value *reply = NULL;
    cbi_mutex_lock(&d->mutex);
    uint64_t life = is_here(d, name, generation) ? d->life : 0;
    cbi_mutex_unlock(&d->mutex);
    size_t bytes = strnlen(block, CB_BLOCK_NAME_MAX + 1);
    if (life == 0 || bytes == 0 || bytes > CB_BLOCK_NAME_MAX) {
        return unknown(name, generation, err);
    }
    cbi_mutex_lock(&d->look_mutex);
    cb_status status = open_look(d, err);
    if (status == CB_OK) {
        begin_script(&d->look, script, 4);
        cbi_redis_text(&d->look, name);
        cbi_redis_number(&d->look, life);
        cbi_redis_word(&d->look, block, bytes);
        cbi_redis_number(&d->look, cbi_max(claim_ns / 1000000, 1));
        status = cbi_redis_ask(&d->look, &reply, err);
    }
    if (status == CB_OK && reply->kind != CBI_REDIS_INTEGER) {
        cbi_redis_link_close(&d->look);
        status = cbi_fail(err, CB_EIO, "The directory's server answers something else.");
    }
    if (status == CB_OK) {
        *answer = reply->integer;
    }
    cbi_mutex_unlock(&d->look_mutex);
    return status;
}

static cb_status claim(void *ctx, const char *name, uint64_t generation, const char *block,
                       uint64_t claim_ns, bool *granted, uint64_t *wait_ns, cb_error *err) {
    int64_t answer = -1;
    CB_TRY(ask_claim(ctx, name, generation, CBI_REDIS_CLAIM, block, claim_ns, &answer, err));
    if (answer < 0) {
        return unknown(name, generation, err);
    }
    *granted = answer == 0;
    *wait_ns = cbi_min((uint64_t)answer, UINT32_MAX) * 1000000;
    return CB_OK;
}

static cb_status unclaim(void *ctx, const char *name, uint64_t generation, const char *block,
                         cb_error *err) {
    int64_t answer = 0;
    return ask_claim(ctx, name, generation, CBI_REDIS_UNCLAIM, block, 0, &answer, err);
}

static void state(void *ctx, cb_directory_state *to) {
    cb_redis_directory *d = ctx;
    cbi_mutex_lock(&d->mutex);
    *to = d->state;
    to->failures = d->stats.failures;
    cbi_mutex_unlock(&d->mutex);
}

/* ---- beginning and end ---- */

cb_status cb_redis_directory_create(const cb_redis_directory_options *o,
                                    cb_redis_directory **directory, cb_error *err) {
    enum { LEASE_MS = 2000, TIMEOUT_MS = 1000, LEAST_MS = 40, MOST_MS = 3600 * 1000 };
    const uint64_t ms = 1000000;
    if (o->struct_size < sizeof *o || o->url == NULL ||
        (o->lease_ns > 0 && o->lease_ns < LEAST_MS * ms) || o->lease_ns > MOST_MS * ms ||
        o->timeout_ns > MOST_MS * ms) {
        return cbi_fail(err, CB_EINVAL,
                        "A directory needs its options' size, a URL, and a lease of 40 ms to an "
                        "hour.");
    }
    cbi_redis_url url;
    CB_TRY(cbi_redis_url_parse(o->url, &url, err));
    cb_redis_directory *d = cbi_calloc(1, sizeof *d);
    if (d == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a directory.");
    }
    d->url = url;
    cbi_redis_channel(&url, d->channel);
    d->lease_ns = o->lease_ns > 0 ? o->lease_ns : LEASE_MS * ms;
    d->beat_ns = d->lease_ns / BEATS;
    cbi_redis_news_init(&d->news, o->changed, o->changed_ctx);
    d->state.status = CB_EAGAIN;
    d->filling = &d->queues[0];
    d->sending = &d->queues[1];
    uint64_t timeout_ns = o->timeout_ns > 0 ? o->timeout_ns : TIMEOUT_MS * ms;
    cbi_redis_link_init(&d->link, timeout_ns);
    cbi_redis_link_init(&d->look, timeout_ns);
    d->stats.bytes = sizeof *d + 2 * (uint64_t)CBI_REDIS_REPLY_BYTES_MAX + CBI_STACK_TOUCHED_BYTES;
    cbi_mutex_init(&d->mutex, CBI_RANK_REPORT);
    cbi_mutex_init(&d->look_mutex, CBI_RANK_LOOK);
    cbi_cond_init(&d->wake);
    cbi_cond_init(&d->left);
    cb_status status = cbi_thread_start(&d->thread, work, d, "carbide-redis", err);
    if (status != CB_OK) {
        cb_redis_directory_destroy(d);
        return status;
    }
    *directory = d;
    return CB_OK;
}

void cb_redis_directory_destroy(cb_redis_directory *d) {
    if (d == NULL) {
        return;
    }
    if (d->thread.running) {
        leave(d, d->who.name, d->who.generation);
    }
    cbi_mutex_lock(&d->mutex);
    d->quit = true;
    cbi_cond_signal(&d->wake);
    cbi_mutex_unlock(&d->mutex);
    cbi_thread_join(&d->thread);
    cbi_redis_link_close(&d->link);
    cbi_redis_link_close(&d->look);
    cbi_cond_fini(&d->left);
    cbi_cond_fini(&d->wake);
    cbi_mutex_fini(&d->look_mutex);
    cbi_mutex_fini(&d->mutex);
    cbi_free(d);
}

cb_directory cb_redis_directory_interface(cb_redis_directory *d) {
    return (cb_directory){.enter = enter,
                          .leave = leave,
                          .report = report,
                          .renew = renew,
                          .locate = locate,
                          .peers = peers,
                          .claim = claim,
                          .unclaim = unclaim,
                          .state = state,
                          .ctx = d};
}

void cb_redis_directory_stats_get(cb_redis_directory *d, cb_redis_directory_stats *stats) {
    cbi_mutex_lock(&d->mutex);
    *stats = d->stats;
    cbi_mutex_unlock(&d->mutex);
}
