/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who watches a directory in Redis: a connection that subscribes to what the scripts publish. The
 * server drops who is too slow to hear, and says nothing when all is quiet; so silence is broken by
 * a PING, and a connection that does not answer that is begun anew. So is one that is refused, at
 * once or by an answer (too many clients, no right to the channel), each time after a pause.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/lock.h"
#include "carbide/redis_directory.h"
#include "net/redis_link.h"
#include "net/redis_scripts.h"

enum { PAUSE_MS = 500, LOOK_MS = 100, TIMEOUT_MS = 1000, MOST_MS = 3600 * 1000 };

static const uint64_t ms = 1000000;

struct cb_redis_watch {
    /* immutable */
    cbi_redis_url url;
    char channel[CBI_REDIS_CHANNEL_MAX + 1];
    cb_directory_watch_fn watch;
    void *watch_ctx;
    cbi_thread thread;
    _Atomic bool ends;
    cbi_parker wake;
    /* the thread's */
    uint64_t heard_ns;
    bool pinged;
    bool subscribed; /* the server has said so */
    cbi_redis_link link;
};

/** Up to the space behind it. */
static bool take_number(const char **at, uint64_t *number) {
    char *end = NULL;
    if (**at < '0' || **at > '9') {
        return false;
    }
    *number = strtoull(*at, &end, 10);
    *at = end + 1;
    return *end == ' ';
}

/** What a script has said, into the location; NULL: nothing that one of ours says. */
static const char *take_change(const cbi_redis_value *said, cb_location *l) {
    uint64_t n[7];
    const char *at = said->text, *end = said->text + said->count;
    if (said->kind != CBI_REDIS_TEXT || memchr(said->text, '\0', said->count) != NULL) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        if (!take_number(&at, &n[i])) {
            return NULL;
        }
    }
    bool gone = n[0] == 0;
    if (n[6] > CB_EXECUTOR_NAME_MAX || n[6] >= (uint64_t)(end - at) ||
        (uint64_t)(end - at) - n[6] > CB_BLOCK_NAME_MAX ||
        (!gone && (n[0] > UINT16_MAX || cb_level_check((cb_level)n[0], NULL) != CB_OK))) {
        return NULL;
    }
    *l = (cb_location){.generation = n[5],
                       .place = {.level = gone ? CB_LEVEL_NONE : (cb_level)n[0],
                                 .memory_bytes = n[1],
                                 .disk_bytes = n[2],
                                 .block_generation = n[3],
                                 .checksum = n[4]}};
    memcpy(l->executor, at, (size_t)n[6]);
    return at + n[6];
}

static void hear(cb_redis_watch *w, const cbi_redis_value *message) {
    cb_location l;
    const cbi_redis_value *items = message->items;
    w->heard_ns = cbi_sys_clock_ns();
    w->pinged = false;
    if (message->kind == CBI_REDIS_ERROR) {
        cbi_redis_link_close(&w->link);
        return;
    }
    if (message->kind != CBI_REDIS_ARRAY || message->count < 3 || items[0].kind != CBI_REDIS_TEXT) {
        return;
    }
    if (strcmp(items[0].text, "subscribe") == 0) {
        w->subscribed = true;
        w->watch(w->watch_ctx, NULL, NULL);
    } else if (strcmp(items[0].text, "message") == 0) {
        const char *block = take_change(&items[2], &l);
        if (block != NULL) {
            w->watch(w->watch_ctx, block, &l);
        }
    }
}

static void subscribe(cb_redis_watch *w) {
    if (cbi_redis_link_open(&w->link, &w->url, NULL) != CB_OK) {
        cbi_redis_link_close(&w->link);
        return;
    }
    cbi_redis_begin(&w->link, 2);
    cbi_redis_text(&w->link, "SUBSCRIBE");
    cbi_redis_text(&w->link, w->channel);
    w->heard_ns = cbi_sys_clock_ns();
    w->pinged = w->subscribed = false;
    (void)cbi_redis_say(&w->link, NULL);
}

/** Nothing has been heard for long: is it there? */
static void ask_whether_it_lives(cb_redis_watch *w) {
    if (w->pinged || !w->subscribed) {
        cbi_redis_link_close(&w->link);
        return;
    }
    cbi_redis_begin(&w->link, 1);
    cbi_redis_text(&w->link, "PING");
    w->heard_ns = cbi_sys_clock_ns();
    w->pinged = true;
    (void)cbi_redis_say(&w->link, NULL);
}

static void work(void *ctx) {
    cb_redis_watch *w = ctx;
    while (!atomic_load(&w->ends)) {
        const cbi_redis_value *message = NULL;
        if (w->link.fd < 0) {
            subscribe(w);
        }
        if (w->link.fd >= 0) {
            cb_status status = cbi_redis_hear(&w->link, LOOK_MS * ms, &message, NULL);
            bool late = cbi_sys_clock_ns() > w->heard_ns + w->link.timeout_ns;
            if (status == CB_OK) {
                hear(w, message);
            } else if (status == CB_EAGAIN && late) {
                ask_whether_it_lives(w);
            }
        }
        if (w->link.fd < 0) { /* however long it was there */
            (void)cbi_parker_wait(&w->wake, cbi_sys_clock_ns() + PAUSE_MS * ms);
        }
    }
}

cb_status cb_redis_watch_create(const cb_redis_directory_options *o, cb_directory_watch_fn watch,
                                void *watch_ctx, cb_redis_watch **watching, cb_error *err) {
    if (o->struct_size < sizeof *o || o->url == NULL || watch == NULL ||
        o->timeout_ns > MOST_MS * ms) {
        return cbi_fail(
            err, CB_EINVAL,
            "Who watches a directory needs its options' size, a URL, and whom to tell.");
    }
    cbi_redis_url url;
    CB_TRY(cbi_redis_url_parse(o->url, &url, err));
    cb_redis_watch *w = cbi_calloc(1, sizeof *w);
    if (w == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory to watch a directory.");
    }
    w->url = url;
    cbi_redis_channel(&url, w->channel);
    w->watch = watch;
    w->watch_ctx = watch_ctx;
    cbi_redis_link_init(&w->link, o->timeout_ns > 0 ? o->timeout_ns : TIMEOUT_MS * ms);
    cb_status status = cbi_thread_start(&w->thread, work, w, "carbide-watch", err);
    if (status != CB_OK) {
        cb_redis_watch_destroy(w);
        return status;
    }
    *watching = w;
    return CB_OK;
}

void cb_redis_watch_destroy(cb_redis_watch *w) {
    if (w == NULL) {
        return;
    }
    atomic_store(&w->ends, true);
    cbi_parker_open(&w->wake);
    cbi_thread_join(&w->thread);
    cbi_redis_link_close(&w->link);
    cbi_free(w);
}
