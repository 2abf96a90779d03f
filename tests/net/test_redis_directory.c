/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Goal: a directory in Redis tells the truth again whatever happened to its server, and harms
 * nobody meanwhile. Method: real redis-servers on a socket in a folder, killed and started anew;
 * executors whose blocks are a table here; a process that is killed. What takes time is waited for,
 * for as long as it takes up to a minute; no time is measured.
 */
#include "carbide/redis_directory.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/redis_link.h"
#include "net/redis_scripts.h"
#include "support/redis_store.h"
#include "support/test.h"

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
    set(a, 0, false); /* behind what is refused */
    for (int turn = 0; stats_of(a).failures < failures + 5 && turn < PATIENCE_S * 100; turn++) {
        usleep(10000); /* beats have passed, it was tried again */
    }
    assert_true(stats_of(a).failures >= failures + 5);
    assert_false(stats_of(a).entered);
    assert_int_equal(located(&b->d, 50, (cb_location[4]){0}), 1);
    assert_status(look_for(&b->d, 100), CB_EAGAIN);
    assert_status(look_for(&b->d, 0), CB_EAGAIN);
    wait_peers(b, 1, 99, views);
    set_memory_max("0");
    wait_located(&b->d, 100, 1);
    wait_located(&b->d, 0, 0);
    wait_entered(a, entries);
    assert_int_equal(stats_of(a).connects, connects);
    assert_int_equal(stats_of(a).entries, entries); /* the same life all the time */
    store_close(a);
    store_close(b);
    server_kill(server);
}

static void
test_redis_directory__a_full_server_is_told_all_anew_when_buffers_run_over(void **state) {
    (void)state;
    cb_executor_view views[4];
    pid_t server = server_start();
    store *a = store_open("a", LEASE_MS), *b = store_open("b", LEASE_MS);
    set(a, 1, true);
    wait_located(&b->d, 1, 1);
    set_memory_max("1");
    for (int i = 0; i < BLOCKS; i++) {
        for (int times = 0; times < 4; times++) {
            set(a, i, times % 2 == i % 2);
            assert_int_not_equal(located(&b->d, 1, (cb_location[4]){0}), 0); /* it is there */
        }
    }
    assert_true(stats_of(a).collapsed > 0);
    for (int i = 2; i < BLOCKS; i++) {
        set(a, i, false);
    }
    set(a, 1, false);
    wait_peers(b, 1, 0, views); /* nothing is left of what is gone, though nothing new is taken */
    set(a, 1, true);
    set_memory_max("0");
    for (int i = 0; i < BLOCKS; i++) {
        wait_located(&b->d, i, (size_t)(i == 1));
    }
    store_close(a);
    store_close(b);
    server_kill(server);
}

static void test_redis_directory__a_server_that_is_full_of_the_dead_is_cleaned(void **state) {
    (void)state;
    pid_t server = server_start();
    const char *const dead[] = {"a", "5", "3600000", "x", "x", "x", "1", "0"};
    const char *const had[] = {"a", "5", "x", "block", "5", "1", "0", "1", "1"};
    assert_int_equal(script(CBI_REDIS_ENTER, dead, 8), 1);
    assert_int_equal(script(CBI_REDIS_REPORT, had, 9), 1);
    set_memory_max("1");
    assert_int_equal(script("return redis.call('DEL', 'cb:exec:a')", NULL, 0), 1);
    store *b = store_open("b", LEASE_MS);
    wait_entered(b, 1);
    for (int turn = 0; turn < PATIENCE_S * 100; turn++) {
        if (script("return redis.call('SCARD', 'cb:lives')", NULL, 0) == 1) {
            break;
        }
        usleep(10000);
    }
    assert_int_equal(script("return redis.call('DBSIZE')", NULL, 0), 3);
    store_close(b);
    server_kill(server);
}

static void test_redis_directory__nobody_has_it_is_not_said_while_somebody_tells_it(void **state) {
    (void)state;
    cb_executor_view views[4];
    pid_t server = server_start();
    store *a = store_open("a", HOUR_MS), *b = store_open("b", HOUR_MS);
    set(a, 5, true);
    set(b, 7, true);
    wait_located(&b->d, 5, 1);
    wait_located(&b->d, 7, 1);
    a->d.leave(a->d.ctx, "a", a->generation);
    assert_status(look_for(&b->d, 5), CB_OK); /* he is not there, nor is what he had */
    uint64_t entries = stats_of(a).entries;
    (void)pthread_mutex_lock(&a->mutex); /* his walk stands still in the first block */
    assert_ok(store_enter(a));
    wait_peers(b, 1, 0, views);
    assert_status(look_for(&b->d, 5), CB_EAGAIN);
    assert_status(look_for(&b->d, 6), CB_EAGAIN);
    wait_located(&b->d, 7, 1);            /* what somebody has is said */
    while (look_for(&a->d, 6) != CB_OK) { /* what he has himself he does not look for */
        usleep(10000);
    }
    (void)pthread_mutex_unlock(&a->mutex);
    wait_entered(a, entries + 1);
    wait_located(&b->d, 5, 1);
    assert_status(look_for(&b->d, 6), CB_OK);
    store_close(a);
    store_close(b);
    server_kill(server);
}

static void
test_redis_directory__who_dies_while_he_tells_is_waited_for_until_his_lease_ends(void **state) {
    (void)state;
    pid_t server = server_start();
    store *b = store_open("b", HOUR_MS);
    wait_entered(b, 1);
    const char *const dead[] = {"a", "5", "3600000", "x", "x", "x", "1", "0"};
    assert_int_equal(script(CBI_REDIS_ENTER, dead, 8), 1);
    assert_status(look_for(&b->d, 6), CB_EAGAIN);
    const char *const older[] = {"a", "4"};
    assert_int_equal(script(CBI_REDIS_TOLD, older, 2), -1); /* it is another life's to say */
    assert_status(look_for(&b->d, 6), CB_EAGAIN);
    const char *const renewed[] = {"a", "5", "1"};
    assert_int_equal(script(CBI_REDIS_RENEW, renewed, 3), 1);
    while (look_for(&b->d, 6) != CB_OK) {
        usleep(10000);
    }
    /* of an earlier version, which says nothing about it */
    (void)script("redis.call('HSET', 'cb:exec:old', 'generation', 1) "
                 "redis.call('SADD', 'cb:execs', 'old') return 1",
                 NULL, 0);
    assert_status(look_for(&b->d, 6), CB_OK);
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
    assert_int_equal(script(CBI_REDIS_TOLD, newer, 2), 1);
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
    in_folder();
    const struct CMUnitTest without[] = {
        cmocka_unit_test(test_redis_directory__takes_addresses_and_refuses_what_is_none),
    };
    const struct CMUnitTest with[] = {
        cmocka_unit_test(test_redis_directory__knows_who_has_what),
        cmocka_unit_test(test_redis_directory__everything_is_reported_to_a_new_server),
        cmocka_unit_test(
            test_redis_directory__nobody_has_it_is_not_said_while_everything_is_told_again),
        cmocka_unit_test(test_redis_directory__says_that_it_cannot_be_used_and_why),
        cmocka_unit_test(test_redis_directory__nobody_has_it_is_not_said_while_somebody_tells_it),
        cmocka_unit_test(
            test_redis_directory__who_dies_while_he_tells_is_waited_for_until_his_lease_ends),
        cmocka_unit_test(test_redis_directory__what_a_full_server_knows_stays_true),
        cmocka_unit_test(
            test_redis_directory__a_full_server_is_told_all_anew_when_buffers_run_over),
        cmocka_unit_test(test_redis_directory__a_server_that_is_full_of_the_dead_is_cleaned),
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
