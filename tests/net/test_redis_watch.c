/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Goal: who watches a directory in Redis is told what changes, is told when he may have missed
 * something, and no nonsense. Method: a real redis-server, killed and started anew; two executors,
 * one of which ends; anybody's words on the same channel. What takes time is waited for.
 */
#include "carbide/redis_directory.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
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

/** At the socket, and at a port (0: at none). */
static pid_t server_start_at(unsigned port) {
    char number[16];
    (void)snprintf(number, sizeof number, "%u", port);
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
        (void)execlp("redis-server", "redis-server", "--port", number, "--bind", "127.0.0.1",
                     "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", folder,
                     (char *)NULL);
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

static pid_t server_start(void) {
    return server_start_at(0);
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

static unsigned begun_so_far(void) {
    (void)pthread_mutex_lock(&seen.mutex);
    unsigned begun = seen.begun;
    (void)pthread_mutex_unlock(&seen.mutex);
    return begun;
}

static void wait_for_begun(told *t, unsigned times) {
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        (void)pthread_mutex_lock(&t->mutex);
        bool good = t->begun >= times;
        (void)pthread_mutex_unlock(&t->mutex);
        if (good) {
            return;
        }
        usleep(10000);
    }
    fail_msg("no connection has begun %u times", times);
}

static void wait_begun(unsigned times) {
    wait_for_begun(&seen, times);
}

/** The last that was told of the block at that executor is that it is there, or not. */
static bool is_last_of(told *t, const char *block, const char *executor, bool there,
                       change *which) {
    bool good = false;
    (void)pthread_mutex_lock(&t->mutex);
    for (unsigned i = 0; i < t->count; i++) {
        const change *c = &t->changes[i];
        if (strcmp(c->block, block) == 0 && strcmp(c->l.executor, executor) == 0) {
            good = (c->l.place.level != CB_LEVEL_NONE) == there;
            *which = *c;
        }
    }
    (void)pthread_mutex_unlock(&t->mutex);
    return good;
}

static change wait_told_to(told *t, const char *block, const char *executor, bool there) {
    change c = {.block = ""};
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        if (is_last_of(t, block, executor, there, &c)) {
            return c;
        }
        usleep(10000);
    }
    fail_msg("nothing was told of %s at %s", block, executor);
    return c;
}

static change wait_told(const char *block, const char *executor, bool there) {
    return wait_told_to(&seen, block, executor, there);
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

static one *open_one_at(const char *name, const char *where) {
    one *o = calloc(1, sizeof *o);
    assert_non_null(o);
    (void)pthread_mutex_init(&o->mutex, NULL);
    o->name = name;
    const cb_redis_directory_options options = {
        .struct_size = sizeof options, .url = where, .lease_ns = UINT64_C(1000000) * LEASE_MS};
    assert_ok(cb_redis_directory_create(&options, &o->redis, NULL));
    o->d = cb_redis_directory_interface(o->redis);
    const cb_executor_entry e = {.name = name, .list = list, .list_ctx = o};
    assert_ok(o->d.enter(o->d.ctx, &e, &o->generation, NULL));
    return o;
}

static one *open_one(const char *name) {
    return open_one_at(name, url);
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
    assert_int_equal(c.l.place.level, place.level);
    assert_int_equal(c.l.place.memory_bytes, place.memory_bytes);
    assert_int_equal(c.l.place.disk_bytes, place.disk_bytes);
    assert_int_equal(c.l.place.block_generation, place.block_generation);
    assert_int_equal(c.l.place.checksum, place.checksum);
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
    unsigned begun = begun_so_far();
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

/** A port that was free a moment ago. */
static unsigned free_port(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, bytes), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &bytes), 0);
    (void)close(fd);
    return ntohs(at.sin_port);
}

/* The server has one set of channels for all of its databases. */
static void test_watch__hears_of_its_own_database_only(void **state) {
    (void)state;
    enum { DATABASES = 2 };
    char urls[DATABASES][64];
    one *a[DATABASES];
    cb_redis_watch *w[DATABASES];
    static told heard[DATABASES] = {{.mutex = PTHREAD_MUTEX_INITIALIZER},
                                    {.mutex = PTHREAD_MUTEX_INITIALIZER}};
    unsigned port = free_port();
    pid_t server = server_start_at(port);
    for (int i = 0; i < DATABASES; i++) {
        (void)snprintf(urls[i], sizeof urls[i], "redis://127.0.0.1:%u/%d", port, i);
        const cb_redis_directory_options options = {.struct_size = sizeof options, .url = urls[i]};
        assert_ok(cb_redis_watch_create(&options, note, &heard[i], &w[i], NULL));
        wait_for_begun(&heard[i], 1);
    }
    for (int i = 0; i < DATABASES; i++) {
        a[i] = open_one_at("a", urls[i]);
        report(a[i], i == 0 ? "of0" : "of1", true);
    }
    for (int i = 0; i < DATABASES;
         i++) { /* all that the other one's watch might hear comes first */
        (void)wait_told_to(&heard[i], i == 0 ? "of0" : "of1", "a", true);
    }
    for (int i = DATABASES - 1; i >= 0; i--) {
        report(a[i], "last", true);
        (void)wait_told_to(&heard[i], "last", "a", true);
    }
    for (int i = 0; i < DATABASES; i++) {
        change c;
        assert_false(is_last_of(&heard[i], i == 0 ? "of1" : "of0", "a", true, &c));
        cb_redis_watch_destroy(w[i]);
        close_one(a[i]);
    }
    server_kill(server);
}

static void ask_server(unsigned words, const char *const *what) {
    cbi_redis_link *l = try_link();
    assert_non_null(l);
    cbi_redis_begin(l, words);
    for (unsigned i = 0; i < words; i++) {
        cbi_redis_text(l, what[i]);
    }
    assert_ok(cbi_redis_ask(l, NULL, NULL));
    end_link(l);
}

static void test_watch__hears_as_soon_as_it_may(void **state) {
    (void)state;
    cb_redis_watch *w = NULL;
    const cb_redis_directory_options options = {.struct_size = sizeof options, .url = url};
    static const char *const never[] = {"ACL", "SETUSER", "default", "resetchannels"};
    static const char *const now[] = {"ACL", "SETUSER", "default", "&cb:changes"};
    unsigned begun = begun_so_far();
    pid_t server = server_start();
    ask_server(4, never);
    assert_ok(cb_redis_watch_create(&options, note, &seen, &w, NULL));
    one *a = open_one("a"); /* an executor does without */
    cb_redis_directory_stats stats = {0};
    for (int i = 0; i < PATIENCE_S * 100 && !stats.entered; i++) {
        usleep(10000);
        cb_redis_directory_stats_get(a->redis, &stats);
    }
    assert_true(stats.entered);
    assert_int_equal(begun_so_far(), begun);
    ask_server(4, now);
    wait_begun(begun + 1);
    report(a, "may", true);
    (void)wait_told("may", "a", true);
    cb_redis_watch_destroy(w);
    close_one(a);
    server_kill(server);
}

/* ---- servers that let nobody in ---- */

typedef struct refuser {
    int fd;
    const char *says; /* then it waits for the other one to go; NULL: it closes at once */
    _Atomic unsigned accepted;
} refuser;

static void *refuse(void *ctx) {
    refuser *r = ctx;
    for (int fd = 0; (fd = accept(r->fd, NULL, NULL)) >= 0; close(fd)) {
        char words[256];
        atomic_fetch_add(&r->accepted, 1);
        if (r->says != NULL && recv(fd, words, sizeof words, 0) > 0) {
            (void)send(fd, r->says, strlen(r->says), MSG_NOSIGNAL);
            while (recv(fd, words, sizeof words, 0) > 0) {
            }
        }
    }
    return NULL;
}

static void refused(const char *says) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    refuser r = {.fd = socket(AF_UNIX, SOCK_STREAM, 0), .says = says};
    cb_redis_watch *w = NULL;
    pthread_t thread;
    const cb_redis_directory_options options = {
        .struct_size = sizeof options, .url = url, .timeout_ns = UINT64_C(3600000000000)};
    (void)snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
    assert_int_equal(bind(r.fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(r.fd, 16), 0);
    assert_int_equal(pthread_create(&thread, NULL, refuse, &r), 0);
    assert_ok(cb_redis_watch_create(&options, note, &seen, &w, NULL));
    usleep(1000000);
    assert_true(atomic_load(&r.accepted) <
                20); /* three, that is; and many thousands without pause */
    for (int i = 0; i < PATIENCE_S * 100 && atomic_load(&r.accepted) < 2; i++) {
        usleep(10000);
    }
    assert_true(atomic_load(&r.accepted) >= 2); /* it goes on trying */
    cb_redis_watch_destroy(w);
    (void)shutdown(r.fd, SHUT_RDWR);
    (void)pthread_join(thread, NULL);
    (void)close(r.fd);
    (void)unlink(path);
}

static void test_watch__who_is_not_let_in_tries_again_after_a_pause(void **state) {
    (void)state;
    unsigned begun = begun_so_far();
    refused(NULL);
    refused("-NOPERM this user has no permissions to access one of the channels\r\n");
    assert_int_equal(begun_so_far(), begun);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watch__is_told_what_changes),
        cmocka_unit_test(test_watch__waits_for_a_server_and_ends_without_one),
        cmocka_unit_test(test_watch__hears_of_its_own_database_only),
        cmocka_unit_test(test_watch__hears_as_soon_as_it_may),
        cmocka_unit_test(test_watch__who_is_not_let_in_tries_again_after_a_pause),
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
