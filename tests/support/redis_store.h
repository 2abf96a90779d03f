/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_TEST_REDIS_STORE_H
#define CBI_TEST_REDIS_STORE_H

/*
 * A redis-server on a socket in a folder, and executors whose blocks are a table here, for tests of
 * a directory in Redis. Where their server is: in_folder.
 */
#include "carbide/redis_directory.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/redis_link.h"
#include "net/redis_scripts.h"
#include "support/test.h"

#define SER CB_LEVEL_MEMORY_ONLY_SER

enum { PATIENCE_S = 100, LEASE_MS = 600, HOUR_MS = 3600 * 1000, BLOCKS = 2000 };

static char folder[64], path[96], url[128];

/** A folder of this process; main removes it. */
static inline void in_folder(void) {
    (void)snprintf(folder, sizeof folder, "/tmp/carbide-net-%d", (int)getpid());
    (void)snprintf(path, sizeof path, "%s/s", folder);
    (void)snprintf(url, sizeof url, "unix://%s", path);
    if (mkdir(folder, 0700) != 0) {
        perror(folder);
        exit(1);
    }
}

/* ---- a server ---- */

static inline pid_t server_start(void) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path, "--save",
                     "", "--appendonly", "no", "--dir", folder, (char *)NULL);
        _exit(127);
    }
    cbi_redis_link *l = calloc(1, sizeof *l);
    cbi_redis_url where;
    assert_non_null(l);
    assert_ok(cbi_redis_url_parse(url, &where, NULL));
    cbi_redis_link_init(l, UINT64_C(10) * 1000000000);
    for (int i = 0; i < PATIENCE_S * 100; i++) {
        if (cbi_redis_link_open(l, &where, NULL) == CB_OK) {
            break;
        }
        usleep(10000);
    }
    assert_true(l->fd >= 0);
    cbi_redis_link_close(l);
    free(l);
    return pid;
}

static inline void server_kill(pid_t pid) {
    int status = 0;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)unlink(path);
}

/* ---- an executor ---- */

typedef struct store {
    pthread_mutex_t mutex;
    bool has[BLOCKS];
    cb_redis_directory *redis;
    cb_directory d;
    char name[32];
    uint64_t generation;
} store;

static inline cb_place block_of(int i, char name[32], bool there) {
    (void)snprintf(name, 32, "rdd_7_%d", i);
    return (cb_place){.level = there ? SER : CB_LEVEL_NONE,
                      .memory_bytes = there ? 100 + (uint64_t)i : 0,
                      .block_generation = UINT64_MAX - (uint64_t)i,
                      .checksum = UINT64_MAX - 7};
}

static inline void list(void *ctx, uint64_t *at, size_t each, size_t room, cb_place_fn tell,
                        void *tell_ctx) {
    store *s = ctx;
    size_t i = (size_t)*at;
    (void)pthread_mutex_lock(&s->mutex);
    for (; i < BLOCKS && room >= each + 32; i++) {
        char name[32];
        if (s->has[i]) {
            cb_place b = block_of((int)i, name, true);
            tell(tell_ctx, name, &b);
            room -= each + strlen(name);
        }
    }
    (void)pthread_mutex_unlock(&s->mutex);
    *at = i < BLOCKS ? i : 0;
}

static inline cb_redis_directory *open_directory(uint64_t lease_ms) {
    cb_redis_directory *redis = NULL;
    const cb_redis_directory_options o = {.struct_size = sizeof o,
                                          .url = url,
                                          .lease_ns = lease_ms * 1000000,
                                          .timeout_ns = UINT64_C(60000000000)};
    assert_ok(cb_redis_directory_create(&o, &redis, NULL));
    return redis;
}

static inline cb_status store_enter(store *s) {
    const cb_executor_entry e = {.name = s->name,
                                 .address = "127.0.0.1:7",
                                 .host = "h",
                                 .rack = "r",
                                 .memory_max = 1000000,
                                 .list = list,
                                 .list_ctx = s};
    return s->d.enter(s->d.ctx, &e, &s->generation, NULL);
}

static inline store *store_open(const char *name, uint64_t lease_ms) {
    store *s = calloc(1, sizeof *s);
    assert_non_null(s);
    (void)pthread_mutex_init(&s->mutex, NULL);
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    s->redis = open_directory(lease_ms);
    s->d = cb_redis_directory_interface(s->redis);
    assert_ok(store_enter(s));
    return s;
}

static inline void store_close(store *s) {
    cb_redis_directory_destroy(s->redis);
    (void)pthread_mutex_destroy(&s->mutex);
    free(s);
}

/** The change is made, and then reported, as a store does it. */
static inline void set(store *s, int i, bool there) {
    char name[32];
    (void)pthread_mutex_lock(&s->mutex);
    s->has[i] = there;
    (void)pthread_mutex_unlock(&s->mutex);
    const cb_place b = block_of(i, name, there);
    assert_ok(s->d.report(s->d.ctx, s->name, s->generation, name, &b, NULL));
}

static inline size_t located(const cb_directory *d, int i, cb_location at[4]) {
    char name[32];
    size_t count = 0;
    (void)block_of(i, name, true);
    return d->locate(d->ctx, name, at, 4, &count, NULL) == CB_OK ? count : 99;
}

/** Whoever had no processor for a while has lost his lease and gets it again: so all is waited for.
 */
static inline void wait_located_at(const cb_directory *d, int i, size_t wanted, cb_location at[4]) {
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        if (located(d, i, at) == wanted) {
            return;
        }
        usleep(10000);
    }
    fail_msg("block %d is not where it should be: %zu places, not %zu", i, located(d, i, at),
             wanted);
}

static inline void wait_located(const cb_directory *d, int i, size_t wanted) {
    cb_location at[4];
    wait_located_at(d, i, wanted, at);
}

/** Until there are so many others, and the first has so many blocks. */
static inline void wait_peers(const store *s, size_t wanted, uint64_t blocks,
                              cb_executor_view views[4]) {
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        size_t count = 99;
        if (s->d.peers(s->d.ctx, s->name, views, 4, &count, NULL) == CB_OK && count == wanted &&
            (count == 0 || views[0].blocks == blocks)) {
            return;
        }
        usleep(10000);
    }
    fail_msg("%s does not see %zu others", s->name, wanted);
}

static inline cb_redis_directory_stats stats_of(const store *s) {
    cb_redis_directory_stats t;
    cb_redis_directory_stats_get(s->redis, &t);
    return t;
}

static inline void wait_entered(const store *s, uint64_t entries) {
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        cb_redis_directory_stats t = stats_of(s);
        if (t.entered && t.entries >= entries) {
            return;
        }
        usleep(10000);
    }
    fail_msg("%s has not entered %llu times", s->name, (unsigned long long)entries);
}

/** What the server answers to a command of these words, and more. */
static inline int64_t command(const char *const words[3], const char *const *args, size_t count) {
    cbi_redis_link *l = calloc(1, sizeof *l);
    cbi_redis_url where;
    const cbi_redis_value *reply = NULL;
    assert_non_null(l);
    assert_ok(cbi_redis_url_parse(url, &where, NULL));
    cbi_redis_link_init(l, UINT64_C(20) * 1000000000);
    assert_ok(cbi_redis_link_open(l, &where, NULL));
    cbi_redis_begin(l, count + 3);
    for (size_t i = 0; i < 3; i++) {
        cbi_redis_text(l, words[i]);
    }
    for (size_t i = 0; i < count; i++) {
        cbi_redis_text(l, args[i]);
    }
    assert_ok(cbi_redis_ask(l, &reply, NULL));
    int64_t answer = reply->integer;
    cbi_redis_link_close(l);
    free(l);
    return answer;
}

/** The same of a script. */
static inline int64_t script(const char *text, const char *const *args, size_t count) {
    return command((const char *const[]){"EVAL", text, "0"}, args, count);
}

/* ---- with a server ---- */

#endif
