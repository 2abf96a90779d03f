/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Goal: who watches a directory in Redis is told what changes, is told when he may have missed
 * something, and no nonsense. Method: a real redis-server, killed and started anew; two executors,
 * one of which ends; anybody's words on the same channel. What takes time is waited for.
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
#include "support/test.h"

enum { PATIENCE_S = 100, LEASE_MS = 600, MOST = 4000 };

static char folder[64], path[96], url[128];

static cbi_redis_link *try_link(void) {
    cbi_redis_link *l = calloc(1, sizeof *l);
    cbi_redis_url where;
    assert_non_null(l);
    assert_ok(cbi_redis_url_parse(url, &where, NULL));
    cbi_redis_link_init(l, UINT64_C(10) * 1000000000);
    if (cbi_redis_link_open(l, &where, NULL) == CB_OK) {
        return l;
    }
    cbi_redis_link_close(l);
    free(l);
    return NULL;
}

static void end_link(cbi_redis_link *l) {
    cbi_redis_link_close(l);
    free(l);
}

static pid_t server_start(void) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        int null = open("/dev/null", O_RDWR);
        if (null < 0) {
            _exit(126);
        }
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path, "--save",
                     "", "--appendonly", "no", "--dir", folder, (char *)NULL);
        _exit(127);
    }
    cbi_redis_link *l = NULL;
    for (int i = 0; i < PATIENCE_S * 100 && (l = try_link()) == NULL; i++) {
        usleep(10000);
    }
    assert_non_null(l);
    end_link(l);
    return pid;
}

static void server_kill(pid_t pid) {
    int status = 0;
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)unlink(path);
}

/* ---- what was told ---- */

typedef struct change {
    char block[300];
    cb_location l;
} change;

typedef struct told {
    pthread_mutex_t mutex;
    unsigned begun, count;
    change changes[MOST];
} told;

static told seen = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void note(void *ctx, const char *block, const cb_location *location) {
    told *t = ctx;
    (void)pthread_mutex_lock(&t->mutex);
    if (block == NULL) {
        t->begun++;
    } else if (t->count < MOST) {
        (void)snprintf(t->changes[t->count].block, sizeof t->changes->block, "%s", block);
        t->changes[t->count++].l = *location;
    }
    (void)pthread_mutex_unlock(&t->mutex);
}

static void wait_begun(unsigned times) {
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        (void)pthread_mutex_lock(&seen.mutex);
        bool good = seen.begun >= times;
        (void)pthread_mutex_unlock(&seen.mutex);
        if (good) {
            return;
        }
        usleep(10000);
    }
    fail_msg("no connection has begun %u times", times);
}

/** The last that was told of the block at that executor is that it is there, or not. */
static bool is_last(const char *block, const char *executor, bool there, change *which) {
    bool good = false;
    (void)pthread_mutex_lock(&seen.mutex);
    for (unsigned i = 0; i < seen.count; i++) {
        const change *c = &seen.changes[i];
        if (strcmp(c->block, block) == 0 && strcmp(c->l.executor, executor) == 0) {
            good = (c->l.place.level != CB_LEVEL_NONE) == there;
            *which = *c;
        }
    }
    (void)pthread_mutex_unlock(&seen.mutex);
    return good;
}

static change wait_told(const char *block, const char *executor, bool there) {
    change c = {.block = ""};
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        if (is_last(block, executor, there, &c)) {
            return c;
        }
        usleep(10000);
    }
    fail_msg("nothing was told of %s at %s", block, executor);
    return c;
}

/* ---- an executor whose blocks are those that it was last told to have ---- */

typedef struct one {
    pthread_mutex_t mutex;
    char block[300]; /* "": none */
    cb_redis_directory *redis;
    cb_directory d;
    const char *name;
    uint64_t generation;
} one;

static const cb_place place = {.level = CB_LEVEL_MEMORY_ONLY_SER_2,
                               .memory_bytes = 12,
                               .disk_bytes = 34,
                               .block_generation = UINT64_MAX - 1,
                               .checksum = UINT64_MAX - 2};

static void list(void *ctx, uint64_t *at, size_t each, size_t room, cb_place_fn tell,
                 void *tell_ctx) {
    one *o = ctx;
    (void)each;
    (void)room;
    (void)pthread_mutex_lock(&o->mutex);
    if (o->block[0] != '\0') {
        tell(tell_ctx, o->block, &place);
    }
    (void)pthread_mutex_unlock(&o->mutex);
    *at = 0;
}

static void report(one *o, const char *block, bool there) {
    const cb_place gone = {.level = CB_LEVEL_NONE};
    (void)pthread_mutex_lock(&o->mutex);
    (void)snprintf(o->block, sizeof o->block, "%s", there ? block : "");
    (void)pthread_mutex_unlock(&o->mutex);
    assert_ok(o->d.report(o->d.ctx, o->name, o->generation, block, there ? &place : &gone, NULL));
}

static one *open_one(const char *name) {
    one *o = calloc(1, sizeof *o);
    assert_non_null(o);
    (void)pthread_mutex_init(&o->mutex, NULL);
    o->name = name;
    const cb_redis_directory_options options = {
        .struct_size = sizeof options, .url = url, .lease_ns = UINT64_C(1000000) * LEASE_MS};
    assert_ok(cb_redis_directory_create(&options, &o->redis, NULL));
    o->d = cb_redis_directory_interface(o->redis);
    const cb_executor_entry e = {.name = name, .list = list, .list_ctx = o};
    assert_ok(o->d.enter(o->d.ctx, &e, &o->generation, NULL));
    return o;
}

static void close_one(one *o) {
    cb_redis_directory_destroy(o->redis);
    (void)pthread_mutex_destroy(&o->mutex);
    free(o);
}

static void publish(const char *words) {
    cbi_redis_link *l = try_link();
    assert_non_null(l);
    cbi_redis_begin(l, 3);
    cbi_redis_text(l, "PUBLISH");
    cbi_redis_text(l, "cb:changes");
    cbi_redis_text(l, words);
    assert_ok(cbi_redis_ask(l, NULL, NULL));
    end_link(l);
}

static void test_watch__is_told_what_changes(void **state) {
    (void)state;
    pid_t server = server_start();
    cb_redis_watch *w = NULL;
    const cb_redis_directory_options options = {.struct_size = sizeof options, .url = url};
    assert_ok(cb_redis_watch_create(&options, note, &seen, &w, NULL));
    wait_begun(1);
    one *a = open_one("a"), *b = open_one("b with spaces 7");
    report(a, "rdd_1 2 3", true);
    change c = wait_told("rdd_1 2 3", "a", true);
    assert_memory_equal(&c.l.place, &place, sizeof place);
    assert_true(c.l.generation > 0);
    report(b, "x", true);
    (void)wait_told("x", b->name, true);
    report(a, "rdd_1 2 3", false);
    (void)wait_told("rdd_1 2 3", "a", false);
    /* Anybody may say anything there. */
    static const char *const nonsense[] = {"",
                                           "x",
                                           "1 2 3",
                                           "4 1 1 1 1 1 1 a",
                                           "4 1 1 1 1 1 99 ab",
                                           "9999 1 1 1 1 1 1 ab",
                                           "4 1 1 1 1 1 -1 ab",
                                           "4 1 1 1 1 1 18446744073709551615 ab"};
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        publish(nonsense[i]);
    }
    publish("4 1 1 1 1 1 1 sblock");
    (void)wait_told("block", "s", true);
    for (unsigned i = 0; i < seen.count; i++) { /* nobody tells any more just now */
        const char *who = seen.changes[i].l.executor;
        assert_true(strcmp(who, "a") == 0 || strcmp(who, "s") == 0 || strcmp(who, b->name) == 0);
    }
    close_one(b); /* others clean up behind it */
    (void)wait_told("x", "b with spaces 7", false);
    /* The server dies: what there is then is to be looked up, and what changes is told again. */
    server_kill(server);
    server = server_start();
    wait_begun(2);
    for (int i = 0; i < 200; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "later%d", i);
        report(a, name, true);
    }
    (void)wait_told("later199", "a", true);
    cb_redis_watch_destroy(w);
    close_one(a);
    server_kill(server);
}

static void test_watch__waits_for_a_server_and_ends_without_one(void **state) {
    (void)state;
    cb_redis_watch *w = NULL;
    cb_redis_directory_options options = {.struct_size = sizeof options, .url = url};
    unsigned begun = seen.begun;
    assert_ok(cb_redis_watch_create(&options, note, &seen, &w, NULL));
    pid_t server = server_start();
    wait_begun(begun + 1);
    server_kill(server);
    cb_redis_watch_destroy(w);
    cb_redis_watch_destroy(NULL);
    options.url = "http://x";
    assert_status(cb_redis_watch_create(&options, note, &seen, &w, NULL), CB_EINVAL);
    options.url = url;
    assert_status(cb_redis_watch_create(&options, NULL, NULL, &w, NULL), CB_EINVAL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watch__is_told_what_changes),
        cmocka_unit_test(test_watch__waits_for_a_server_and_ends_without_one),
    };
    if (system("command -v redis-server >/dev/null 2>&1") != 0) { /* NOLINT(cert-env33-c) */
        (void)printf("skipped: redis-server is not installed\n");
        return 77;
    }
    (void)snprintf(folder, sizeof folder, "/tmp/carbide-watch-XXXXXX");
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(path, sizeof path, "%s/redis", folder);
    (void)snprintf(url, sizeof url, "unix://%s", path);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(folder);
    return failed;
}
