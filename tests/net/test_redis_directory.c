/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Goal: a directory in Redis tells the truth again whatever happened to its server, and harms
 * nobody meanwhile. Method: real redis-servers on a socket in a folder, killed and started anew;
 * executors whose blocks are a table here; a process that is killed; and a server that is none,
 * whose answers are wrong in each of the ways we could think of. What takes time is waited for, for
 * as long as it takes up to a minute; no time is measured.
 */
#include "carbide/redis_directory.h"

#include <errno.h>
#include <fcntl.h>
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
#include "net/redis_scripts.h"
#include "support/test.h"

#define SER CB_LEVEL_MEMORY_ONLY_SER

enum { PATIENCE_S = 100, LEASE_MS = 600, HOUR_MS = 3600 * 1000, BLOCKS = 2000 };

static char folder[64], path[96], url[128];

/* ---- a server ---- */

static pid_t server_start(void) {
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

static void server_kill(pid_t pid) {
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

static cb_place block_of(int i, char name[32], bool there) {
    (void)snprintf(name, 32, "rdd_7_%d", i);
    return (cb_place){.level = there ? SER : CB_LEVEL_NONE,
                      .memory_bytes = there ? 100 + (uint64_t)i : 0,
                      .block_generation = UINT64_MAX - (uint64_t)i,
                      .checksum = UINT64_MAX - 7};
}

static void list(void *ctx, uint64_t *at, size_t each, size_t room, cb_place_fn tell,
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

static cb_redis_directory *open_directory(uint64_t lease_ms) {
    cb_redis_directory *redis = NULL;
    const cb_redis_directory_options o = {.struct_size = sizeof o,
                                          .url = url,
                                          .lease_ns = lease_ms * 1000000,
                                          .timeout_ns = UINT64_C(60000000000)};
    assert_ok(cb_redis_directory_create(&o, &redis, NULL));
    return redis;
}

static cb_status store_enter(store *s) {
    const cb_executor_entry e = {.name = s->name,
                                 .address = "127.0.0.1:7",
                                 .host = "h",
                                 .rack = "r",
                                 .memory_max = 1000000,
                                 .list = list,
                                 .list_ctx = s};
    return s->d.enter(s->d.ctx, &e, &s->generation, NULL);
}

static store *store_open(const char *name, uint64_t lease_ms) {
    store *s = calloc(1, sizeof *s);
    assert_non_null(s);
    (void)pthread_mutex_init(&s->mutex, NULL);
    (void)snprintf(s->name, sizeof s->name, "%s", name);
    s->redis = open_directory(lease_ms);
    s->d = cb_redis_directory_interface(s->redis);
    assert_ok(store_enter(s));
    return s;
}

static void store_close(store *s) {
    cb_redis_directory_destroy(s->redis);
    (void)pthread_mutex_destroy(&s->mutex);
    free(s);
}

/** The change is made, and then reported, as a store does it. */
static void set(store *s, int i, bool there) {
    char name[32];
    (void)pthread_mutex_lock(&s->mutex);
    s->has[i] = there;
    (void)pthread_mutex_unlock(&s->mutex);
    const cb_place b = block_of(i, name, there);
    assert_ok(s->d.report(s->d.ctx, s->name, s->generation, name, &b, NULL));
}

static size_t located(const cb_directory *d, int i, cb_location at[4]) {
    char name[32];
    size_t count = 0;
    (void)block_of(i, name, true);
    return d->locate(d->ctx, name, at, 4, &count, NULL) == CB_OK ? count : 99;
}

/** Whoever had no processor for a while has lost his lease and gets it again: so all is waited for.
 */
static void wait_located_at(const cb_directory *d, int i, size_t wanted, cb_location at[4]) {
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        if (located(d, i, at) == wanted) {
            return;
        }
        usleep(10000);
    }
    fail_msg("block %d is not where it should be: %zu places, not %zu", i, located(d, i, at),
             wanted);
}

static void wait_located(const cb_directory *d, int i, size_t wanted) {
    cb_location at[4];
    wait_located_at(d, i, wanted, at);
}

/** Until there are so many others, and the first has so many blocks. */
static void wait_peers(const store *s, size_t wanted, uint64_t blocks, cb_executor_view views[4]) {
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

static cb_redis_directory_stats stats_of(const store *s) {
    cb_redis_directory_stats t;
    cb_redis_directory_stats_get(s->redis, &t);
    return t;
}

static void wait_entered(const store *s, uint64_t entries) {
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
static int64_t command(const char *const words[3], const char *const *args, size_t count) {
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
static int64_t script(const char *text, const char *const *args, size_t count) {
    return command((const char *const[]){"EVAL", text, "0"}, args, count);
}

/* ---- with a server ---- */

static void test_redis_directory__knows_who_has_what(void **state) {
    (void)state;
    cb_location at[4];
    cb_executor_view views[4];
    pid_t server = server_start();
    store *a = store_open("a", LEASE_MS), *b = store_open("b", LEASE_MS);
    set(a, 1, true);
    set(a, 2, true);
    set(b, 1, true);
    wait_located(&b->d, 1, 2);
    wait_located_at(&b->d, 2, 1, at);
    assert_string_equal(at[0].executor, "a");
    assert_int_equal(at[0].place.level, SER);
    assert_int_equal(at[0].place.memory_bytes, 102);
    assert_true(at[0].place.block_generation == UINT64_MAX - 2);
    assert_true(at[0].place.checksum == UINT64_MAX - 7);
    wait_peers(a, 1, 1, views);
    assert_string_equal(views[0].name, "b");
    assert_string_equal(views[0].address, "127.0.0.1:7");
    assert_string_equal(views[0].host, "h");
    assert_string_equal(views[0].rack, "r");
    assert_int_equal(views[0].memory_bytes, 101);
    assert_status(store_enter(a), CB_EMISUSE);
    set(a, 1, false);
    wait_located(&b->d, 1, 1);
    a->d.leave(a->d.ctx, "a", a->generation);
    assert_status(a->d.renew(a->d.ctx, "a", a->generation, NULL), CB_ENOTFOUND);
    wait_located(&b->d, 2, 0);
    wait_peers(b, 0, 0, views);
    assert_ok(store_enter(a)); /* and says again what it has */
    wait_located(&b->d, 2, 1);
    store_close(a);
    wait_located(&b->d, 2, 0);
    store_close(b);
    server_kill(server);
}

static void test_redis_directory__everything_is_reported_to_a_new_server(void **state) {
    (void)state;
    cb_location at[4];
    pid_t server = server_start();
    store *a = store_open("a", LEASE_MS), *b = store_open("b", LEASE_MS);
    for (int i = 0; i < BLOCKS; i++) {
        set(a, i, true);
    }
    for (int i = 0; i < BLOCKS; i++) {
        wait_located(&b->d, i, 1);
    }
    uint64_t entries = stats_of(a).entries;
    server_kill(server);
    assert_int_equal(located(&b->d, 3, at), 99); /* it says so, and does not wait for ever */
    for (int i = 0; i < BLOCKS; i += 2) {
        set(a, i, false);
    }
    server = server_start();
    wait_entered(a, entries + 1);
    for (int i = 0; i < BLOCKS; i++) {
        wait_located(&b->d, i, (size_t)(i % 2));
    }
    entries = stats_of(a).entries;
    (void)script("redis.call('FLUSHALL') return 1", NULL,
                 0); /* the same connection, all forgotten */
    wait_entered(a, entries + 1);
    for (int i = 0; i < BLOCKS; i++) {
        wait_located(&b->d, i, (size_t)(i % 2));
    }
    store_close(a);
    store_close(b);
    server_kill(server);
}

static cb_status look_for(const cb_directory *d, int i) {
    char name[32];
    cb_location at[4];
    size_t count = 0;
    (void)block_of(i, name, true);
    return d->locate(d->ctx, name, at, 4, &count, NULL);
}

static void
test_redis_directory__nobody_has_it_is_not_said_while_everything_is_told_again(void **state) {
    (void)state;
    pid_t server = server_start();
    /* a does not find out in this test, b at its next beat: in up to ten seconds */
    store *a = store_open("a", HOUR_MS), *b = store_open("b", 40000);
    wait_entered(a, 1);
    wait_entered(b, 1);
    set(a, 5, true);
    wait_located(&b->d, 5, 1);
    assert_status(look_for(&b->d, 6), CB_OK);
    (void)script("redis.call('FLUSHALL') return 1", NULL, 0);
    assert_status(look_for(&b->d, 5), CB_EAGAIN); /* before it has entered anew, */
    set(b, 9, true);
    wait_entered(b, 2);
    assert_status(look_for(&b->d, 5), CB_EAGAIN); /* and after that */
    wait_located(&b->d, 9, 1);
    store *c = store_open("c", HOUR_MS); /* and who is new has nothing to compare with */
    wait_entered(c, 1);
    assert_status(look_for(&c->d, 5), CB_OK);
    store_close(a);
    store_close(b);
    store_close(c);
    server_kill(server);
}

/* ---- how it stands ---- */

typedef struct told {
    pthread_mutex_t mutex;
    unsigned failures, entries;
    cb_directory_state last;
} told;

static void note_told(void *ctx, const cb_directory_state *state) {
    told *t = ctx;
    (void)pthread_mutex_lock(&t->mutex);
    t->failures += state->status != CB_OK;
    t->entries += state->status == CB_OK;
    t->last = *state;
    (void)pthread_mutex_unlock(&t->mutex);
}

static told wait_told(told *t, unsigned failures, unsigned entries) {
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        (void)pthread_mutex_lock(&t->mutex);
        const told now = *t;
        (void)pthread_mutex_unlock(&t->mutex);
        if (now.failures >= failures && now.entries >= entries) {
            return now;
        }
        usleep(10000);
    }
    fail_msg("not told of %u failures and %u entries", failures, entries);
    return *t;
}

static void wait_state(const store *s, cb_status wanted) {
    cb_directory_state is;
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        s->d.state(s->d.ctx, &is);
        if (is.status == wanted) {
            return;
        }
        usleep(10000);
    }
    fail_msg("state %d, not %d: %s", is.status, wanted, is.words);
}

static void test_redis_directory__says_that_it_cannot_be_used_and_why(void **state) {
    (void)state;
    told t = {.mutex = PTHREAD_MUTEX_INITIALIZER};
    store s = {.mutex = PTHREAD_MUTEX_INITIALIZER, .name = "told"};
    const cb_redis_directory_options o = {.struct_size = sizeof o,
                                          .url = url,
                                          .lease_ns = LEASE_MS * UINT64_C(1000000),
                                          .changed = note_told,
                                          .changed_ctx = &t};
    assert_ok(cb_redis_directory_create(&o, &s.redis, NULL));
    s.d = cb_redis_directory_interface(s.redis);
    cb_directory_state is;
    s.d.state(s.d.ctx, &is);
    assert_int_equal(is.status, CB_EAGAIN);
    assert_ok(store_enter(&s)); /* nobody is there */
    told now = wait_told(&t, 1, 0);
    assert_int_equal(now.last.status, CB_EIO);
    assert_non_null(strstr(now.last.words, "cannot be reached"));
    assert_true(now.last.failures > 0);
    wait_state(&s, CB_EIO);
    pid_t pid = server_start();
    now = wait_told(&t, 1, 1);
    assert_int_equal(now.last.status, CB_OK);
    assert_string_equal(now.last.words, "");
    wait_state(&s, CB_OK);
    /* Somebody newer takes the name. */
    store *other = store_open("told", LEASE_MS);
    wait_entered(other, 1);
    wait_state(&s, CB_EEXISTS);
    store_close(other);
    wait_state(&s, CB_OK);
    server_kill(pid);
    wait_state(&s, CB_EIO);
    cb_redis_directory_destroy(s.redis);
}

/** 1: no more than it has. */
static void set_memory_max(const char *bytes) {
    (void)command((const char *const[]){"CONFIG", "SET", "maxmemory"}, &bytes, 1);
}

static void test_redis_directory__what_a_full_server_knows_stays_true(void **state) {
    (void)state;
    cb_executor_view views[4];
    pid_t server = server_start();
    store *a = store_open("a", LEASE_MS), *b = store_open("b", LEASE_MS);
    for (int i = 0; i < 100; i++) {
        set(a, i, true);
    }
    for (int i = 0; i < 100; i++) {
        wait_located(&b->d, i, 1);
    }
    wait_entered(a, 1);
    uint64_t entries = stats_of(a).entries, failures = stats_of(a).failures;
    uint64_t connects = stats_of(a).connects;
    set_memory_max("1");
    set(a, 100, true);
    set(a, 0, false);
    for (int turn = 0; stats_of(a).failures < failures + 5 && turn < PATIENCE_S * 100; turn++) {
        usleep(10000); /* beats have passed, it was tried again */
    }
    assert_true(stats_of(a).failures >= failures + 5);
    assert_false(stats_of(a).entered);
    assert_int_equal(located(&b->d, 50, (cb_location[4]){0}), 1);
    wait_peers(b, 1, 100, views);
    set_memory_max("0");
    wait_located(&b->d, 100, 1);
    wait_located(&b->d, 0, 0);
    wait_entered(a, entries);
    assert_int_equal(stats_of(a).connects, connects);
    assert_int_equal(stats_of(a).entries, entries); /* the same life all the time */
    set_memory_max("1");
    for (int i = 0; i < BLOCKS;
         i++) { /* more than there is room for: then it is to hear all again */
        for (int times = 0; times < 4; times++) {
            set(a, i, times % 2 == i % 2);
        }
    }
    assert_true(stats_of(a).collapsed > 0);
    assert_int_equal(located(&b->d, 50, (cb_location[4]){0}), 1);
    set_memory_max("0");
    for (int i = 0; i < BLOCKS; i++) {
        wait_located(&b->d, i, (size_t)(i % 2));
    }
    store_close(a);
    store_close(b);
    server_kill(server);
}

static void test_redis_directory__a_server_that_is_away_takes_no_memory(void **state) {
    (void)state;
    store *a = store_open("a", LEASE_MS);
    for (int turn = 0; turn < 20; turn++) {
        for (int i = 0; i < BLOCKS; i++) {
            set(a, i, (turn + i) % 3 != 0);
        }
    }
    cb_redis_directory_stats t = stats_of(a);
    assert_int_equal(t.collapsed, 1); /* it fell behind, and stays so until there is a server */
    assert_false(t.entered);
    pid_t server = server_start();
    wait_entered(a, 1);
    for (int i = 0; i < BLOCKS; i++) {
        wait_located(&a->d, i, (19 + i) % 3 != 0);
    }
    store_close(a);
    server_kill(server);
}

static void test_redis_directory__late_words_of_an_older_life_change_nothing(void **state) {
    (void)state;
    pid_t server = server_start();
    store *a = store_open("a", HOUR_MS); /* no lease ends here, however slow this is */
    set(a, 5, true);
    wait_located(&a->d, 5, 1);
    const char *const late[] = {"a", "12345", "c", "rdd_7_5", "", "0", "0", "0", "0"};
    assert_int_equal(script(CBI_REDIS_REPORT, late, 9), -1);
    assert_int_equal(script(CBI_REDIS_RENEW, late, 3), -1);
    assert_int_equal(script(CBI_REDIS_LEAVE, late, 2), -1);
    const char *const older[] = {"a", "12345", "5000", "x", "x", "x", "1", "0"};
    assert_int_equal(script(CBI_REDIS_ENTER, older, 8), -1);
    wait_located(&a->d, 5, 1);
    store_close(a);
    server_kill(server);
}

static void
test_redis_directory__an_older_one_is_silent_while_a_newer_one_has_its_name(void **state) {
    (void)state;
    pid_t server = server_start();
    store *a = store_open("a", LEASE_MS);
    set(a, 5, true);
    wait_located(&a->d, 5, 1);
    uint64_t entries = stats_of(a).entries;
    const char *const newer[] = {"a", "9000000000000000000", "3600000", "x", "x", "x", "1", "0"};
    assert_int_equal(script(CBI_REDIS_ENTER, newer, 8), 1);
    wait_located(&a->d, 5, 0);
    assert_int_equal(script(CBI_REDIS_LEAVE, newer, 2), 1);
    wait_located(&a->d, 5, 1);
    assert_true(stats_of(a).entries > entries);
    store_close(a);
    server_kill(server);
}

/* Once it took the name back when it was a report that heard of the newer one. */
static void test_redis_directory__a_report_in_vain_does_not_take_a_name_back(void **state) {
    (void)state;
    static const char newer[] =
        "local g = redis.call('HGET', 'cb:exec:a', 'generation')\n"
        "if not g then return 0 end\n"
        "redis.call('HSET', 'cb:exec:a', 'generation', string.format('%.0f', g + 1))\n"
        "redis.call('SET', 'newer', string.format('%.0f', g + 1))\n"
        "redis.call('PEXPIRE', 'cb:exec:a', 3600000)\n"
        "return 1\n";
    static const char stays[] =
        "local g = redis.call('HGET', 'cb:exec:a', 'generation')\n"
        "if g == redis.call('GET', 'newer') then return 1 else return 0 end\n";
    pid_t server = server_start();
    store *a = store_open("a", LEASE_MS);
    set(a, 5, true);
    wait_located(&a->d, 5, 1);
    while (script(newer, NULL, 0) == 0) { /* its lease was over just then */
        usleep(10000);
    }
    for (int i = 0; i < 300 || stats_of(a).entered; i++) {
        set(a, 6, i % 2 == 0);
        assert_int_equal(script(stays, NULL, 0), 1);
        usleep(5000);
    }
    set(a, 6, true);
    (void)script("return redis.call('DEL', 'cb:exec:a')", NULL, 0);
    wait_located(&a->d, 5, 1);
    wait_located(&a->d, 6, 1);
    store_close(a);
    server_kill(server);
}

/* Once a scan that began among what had been cleaned found nothing, for ever. */
static void test_redis_directory__large_lives_are_cleaned_to_the_end(void **state) {
    (void)state;
    static const char make[] = "for i = 1, 40000 do\n"
                               "  redis.call('HSET', 'cb:have:77:dead', 'b' .. i, '4 1 0 1 1')\n"
                               "  redis.call('SADD', 'cb:where:b' .. i, '77:dead')\n"
                               "end\n"
                               "return redis.call('SADD', 'cb:lives', '77:dead')\n";
    const char *const at_a_time[] = {"500", "c"};
    pid_t server = server_start();
    assert_int_equal(script(make, NULL, 0), 1);
    int64_t done = 0;
    for (int64_t n = 1; n > 0; done += n) {
        n = script(CBI_REDIS_CLEAN, at_a_time, 2);
    }
    assert_int_equal(done, 40000);
    assert_int_equal(script("return redis.call('DBSIZE')", NULL, 0), 0);
    server_kill(server);
}

static void test_redis_directory__one_claims_a_block_that_nobody_has(void **state) {
    (void)state;
    const uint64_t hour_ns = UINT64_C(1000000) * HOUR_MS;
    uint64_t wait_ns = 0;
    bool granted = false;
    pid_t server = server_start();
    store *a = store_open("a", HOUR_MS), *b = store_open("b", HOUR_MS);
    wait_entered(a, 1);
    wait_entered(b, 1);
    const cb_directory *d = &a->d, *e = &b->d;
    assert_ok(d->claim(d->ctx, "a", a->generation, "x", hour_ns, &granted, &wait_ns, NULL));
    assert_true(granted);
    assert_ok(d->claim(d->ctx, "a", a->generation, "x", hour_ns, &granted, &wait_ns, NULL));
    assert_true(granted); /* again */
    assert_ok(e->claim(e->ctx, "b", b->generation, "x", hour_ns, &granted, &wait_ns, NULL));
    assert_false(granted);
    assert_in_range(wait_ns, 1, hour_ns);
    assert_ok(e->unclaim(e->ctx, "b", b->generation, "x", NULL)); /* not its own */
    assert_ok(e->claim(e->ctx, "b", b->generation, "x", hour_ns, &granted, &wait_ns, NULL));
    assert_false(granted);
    assert_ok(d->unclaim(d->ctx, "a", a->generation, "x", NULL));
    assert_ok(e->claim(e->ctx, "b", b->generation, "x", hour_ns, &granted, &wait_ns, NULL));
    assert_true(granted);
    b->d.leave(b->d.ctx, "b", b->generation); /* and its claims with it */
    assert_ok(d->claim(d->ctx, "a", a->generation, "x", hour_ns, &granted, &wait_ns, NULL));
    assert_true(granted);
    assert_status(e->claim(e->ctx, "b", b->generation, "x", hour_ns, &granted, &wait_ns, NULL),
                  CB_ENOTFOUND);
    store_close(a);
    store_close(b);
    server_kill(server);
}

static void test_redis_directory__a_killed_executor_is_gone_and_cleaned_away(void **state) {
    (void)state;
    pid_t server = server_start();
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        store *a = store_open("a", LEASE_MS);
        for (int i = 0; i < BLOCKS; i++) {
            set(a, i, true);
        }
        wait_located(&a->d, BLOCKS - 1, 1);
        (void)!write(ready[1], "x", 1);
        for (;;) {
            (void)pause();
        }
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    store *b = store_open("b", LEASE_MS);
    set(b, 0, true);
    wait_located(&b->d, 0, 2);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    wait_located(&b->d, 0, 1);
    wait_located(&b->d, 1, 0);
    int64_t left = -1;
    for (int i = 0; i < PATIENCE_S * 100 && left != 5; i++) { /* what is b's alone */
        left = script("return redis.call('DBSIZE')", NULL, 0);
        usleep(10000);
    }
    assert_int_equal(left, 5); /* cb:exec:b cb:execs cb:lives cb:have:..b cb:where:rdd_7_0 */
    store_close(b);
    (void)close(ready[0]);
    (void)close(ready[1]);
    server_kill(server);
}

/* ---- with one that is none ---- */

/** What a connection hears; NULL: it is closed at once. */
static const char *const nonsense[] = {
    NULL,
    "",
    "\r\n",
    "hello\r\n",
    ":\r\n",
    ":99999999999999999999999999\r\n",
    "$-5\r\n",
    "$5\r\nab",
    "$99999999999999999999\r\nx\r\n",
    "$9223372036854775807\r\nx\r\n",
    "*-7\r\n",
    "*2147483647\r\n:1\r\n",
    "*4294967297\r\n:1\r\n",
    "*1048576\r\n*1048576\r\n*1048576\r\n",
    "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
    "*4\r\n:3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    "*4\r\n:3\r\n$1\r\na\r\n$1\r\n7\r\n$9\r\n4 1 1 1 x\r\n",
    "*4\r\n:-3\r\n$1\r\na\r\n$1\r\n7\r\n$13\r\n65535 1 1 1 1\r\n",
    "*5\r\n*0\r\n*0\r\n*-1\r\n$-1\r\n*1\r\n:1\r\n",
    "+OK\r\n+OK\r\n+OK\r\n+OK\r\n",
    "-ERR no\r\n",
    "-\r\n",
    ":1\r\n",
    ":0\r\n",
    ":-1\r\n",
    "%1\r\n+a\r\n:1\r\n",
    "#t\r\n",
    ",1.5\r\n",
    "(123\r\n",
    "_\r\n",
    "~2\r\n:1\r\n:2\r\n",
    "=15\r\ntxt:Some string\r\n",
    "\xff\xfe\xfd\0garbage\r\n",
    "endless",
};
enum { NONSENSE = sizeof nonsense / sizeof *nonsense };

typedef struct liar {
    int listener;
    pthread_t thread;
    _Atomic unsigned lie, connections;
    _Atomic bool stop;
} liar;

static void lie_to(const liar *l, int fd) {
    const char *lie = nonsense[l->lie % NONSENSE];
    char bytes[4096];
    const struct timeval brief = {.tv_usec = 20000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof brief);
    if (lie == NULL) {
        return;
    }
    for (int i = 0; i < 5; i++) { /* to this and some more requests */
        if (recv(fd, bytes, sizeof bytes, 0) == 0) {
            return;
        }
        if (strcmp(lie, "endless") == 0) {
            memset(bytes, 'x', sizeof bytes);
            memcpy(bytes, "$999999999\r\n", 12);
            while (!l->stop && send(fd, bytes, sizeof bytes, MSG_NOSIGNAL) > 0) {
            }
        } else if (send(fd, lie, strlen(lie), MSG_NOSIGNAL) < 0) {
            return;
        }
    }
}

static void *lie(void *ctx) {
    liar *l = ctx;
    while (!l->stop) {
        int fd = accept(l->listener, NULL, NULL);
        if (fd < 0) {
            break;
        }
        l->connections++;
        lie_to(l, fd);
        l->lie++; /* another one for the next */
        (void)close(fd);
    }
    return NULL;
}

static void test_redis_directory__nonsense_harms_nobody(void **state) {
    (void)state;
    liar l = {.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    assert_int_equal(bind(l.listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(l.listener, 64), 0);
    assert_int_equal(pthread_create(&l.thread, NULL, lie, &l), 0);
    store *s = calloc(1, sizeof *s);
    assert_non_null(s);
    (void)pthread_mutex_init(&s->mutex, NULL);
    (void)snprintf(s->name, sizeof s->name, "a");
    cb_redis_directory *redis = NULL;
    const cb_redis_directory_options o = {.struct_size = sizeof o,
                                          .url = url,
                                          .lease_ns = UINT64_C(40000000),
                                          .timeout_ns = UINT64_C(100000000)};
    assert_ok(cb_redis_directory_create(&o, &redis, NULL));
    s->redis = redis;
    s->d = cb_redis_directory_interface(redis);
    assert_ok(store_enter(s));
    for (int i = 0; i < BLOCKS; i++) {
        set(s, i, true);
    }
    /* Two ask, the object's thread and this one, and each lie is met by both sooner or later. */
    for (int turn = 0; turn < PATIENCE_S * 1000 && l.connections < 3 * NONSENSE; turn++) {
        cb_location at[4];
        cb_executor_view views[4];
        size_t count = 0;
        cb_error err;
        (void)located(&s->d, turn % BLOCKS, at);
        (void)s->d.peers(s->d.ctx, "a", views, 4, &count, &err);
        (void)s->d.unclaim(s->d.ctx, "a", s->generation, "x", &err);
        set(s, turn % BLOCKS, turn % 2 == 0);
        usleep(1000);
    }
    assert_true(l.connections >= 3 * NONSENSE);
    l.stop = true;
    (void)shutdown(l.listener, SHUT_RDWR);
    store_close(s);
    assert_int_equal(pthread_join(l.thread, NULL), 0);
    (void)close(l.listener);
    (void)unlink(path);
}

static void test_redis_directory__takes_addresses_and_refuses_what_is_none(void **state) {
    (void)state;
    cbi_redis_url u;
    assert_ok(cbi_redis_url_parse("redis://127.0.0.1:6379", &u, NULL));
    assert_string_equal(u.address.host, "127.0.0.1");
    assert_int_equal(u.address.port, 6379);
    assert_ok(cbi_redis_url_parse("redis://:p%40s%3as@[::1]:1/15", &u, NULL));
    assert_string_equal(u.password, "p@s:s");
    assert_string_equal(u.user, "");
    assert_int_equal(u.database, 15);
    assert_ok(cbi_redis_url_parse("redis://me:x@localhost:2/", &u, NULL));
    assert_string_equal(u.user, "me");
    assert_ok(cbi_redis_url_parse("unix:///run/redis.sock", &u, NULL));
    assert_string_equal(u.path, "/run/redis.sock");
    assert_ok(cbi_redis_url_parse("unix://:x@/run/redis.sock", &u, NULL));
    assert_string_equal(u.password, "x");
    const char *const wrong[] = {"",
                                 "redis",
                                 "redis://",
                                 "http://127.0.0.1:1",
                                 "redis://127.0.0.1",
                                 "redis://127.0.0.1:0",
                                 "redis://127.0.0.1:1/x",
                                 "redis://127.0.0.1:1/99999999999",
                                 "redis://example.org:1",
                                 "redis://nopassword@127.0.0.1:1",
                                 "redis://:@127.0.0.1:1",
                                 "redis://:%4@127.0.0.1:1",
                                 "redis://:%zz@127.0.0.1:1",
                                 "redis://:%00@127.0.0.1:1",
                                 "unix://",
                                 "unix://relative"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_status(cbi_redis_url_parse(wrong[i], &u, NULL), CB_EINVAL);
    }
    cb_redis_directory *redis = NULL;
    cb_redis_directory_options o = {.struct_size = sizeof o, .url = "nonsense"};
    assert_status(cb_redis_directory_create(&o, &redis, NULL), CB_EINVAL);
    o.url = "redis://127.0.0.1:1";
    o.lease_ns = 1;
    assert_status(cb_redis_directory_create(&o, &redis, NULL), CB_EINVAL);
    cb_redis_directory_destroy(NULL);
}

static bool has_redis(void) {
    return system("command -v redis-server >/dev/null 2>&1") == 0; /* NOLINT(cert-env33-c) */
}

int main(void) {
    (void)snprintf(folder, sizeof folder, "/tmp/carbide-net-%d", (int)getpid());
    (void)snprintf(path, sizeof path, "%s/s", folder);
    (void)snprintf(url, sizeof url, "unix://%s", path);
    if (mkdir(folder, 0700) != 0) {
        return 1;
    }
    const struct CMUnitTest without[] = {
        cmocka_unit_test(test_redis_directory__takes_addresses_and_refuses_what_is_none),
        cmocka_unit_test(test_redis_directory__nonsense_harms_nobody),
    };
    const struct CMUnitTest with[] = {
        cmocka_unit_test(test_redis_directory__knows_who_has_what),
        cmocka_unit_test(test_redis_directory__everything_is_reported_to_a_new_server),
        cmocka_unit_test(
            test_redis_directory__nobody_has_it_is_not_said_while_everything_is_told_again),
        cmocka_unit_test(test_redis_directory__says_that_it_cannot_be_used_and_why),
        cmocka_unit_test(test_redis_directory__what_a_full_server_knows_stays_true),
        cmocka_unit_test(test_redis_directory__a_server_that_is_away_takes_no_memory),
        cmocka_unit_test(test_redis_directory__late_words_of_an_older_life_change_nothing),
        cmocka_unit_test(
            test_redis_directory__an_older_one_is_silent_while_a_newer_one_has_its_name),
        cmocka_unit_test(test_redis_directory__a_report_in_vain_does_not_take_a_name_back),
        cmocka_unit_test(test_redis_directory__large_lives_are_cleaned_to_the_end),
        cmocka_unit_test(test_redis_directory__one_claims_a_block_that_nobody_has),
        cmocka_unit_test(test_redis_directory__a_killed_executor_is_gone_and_cleaned_away),
    };
    int failed = cmocka_run_group_tests(without, NULL, NULL);
    bool redis = has_redis();
    if (redis) {
        failed += cmocka_run_group_tests(with, NULL, NULL);
    }
    (void)rmdir(folder);
    if (failed == 0 && !redis) {
        (void)fprintf(stderr, "redis-server is not installed: half of the tests were skipped\n");
        return 77;
    }
    return failed;
}
