/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 400 */
/*
 * Goal: whatever the system refuses a server of blocks or its client, each call answers, a block
 * that was said to be there is there, and afterwards the server serves, holds nothing for anybody
 * and leaves nothing behind. Method: one scenario, server in a thread, in which the first, second,
 * third ... call of either side fails, once and for ever; then all is looked at with nothing
 * failing. Last, all transfers fall short by a byte, and nobody must notice.
 */
#include "../serve/serve_kit.h"

#include <errno.h>

enum { LARGE = 150000, SMALL = 300, PUTS = 5 };

typedef struct scene {
    kit k;
    bool put[PUTS], kept, removed;
    char what[64];
} scene;

static const struct {
    const char *name;
    cb_level level;
    size_t bytes;
} puts_made[PUTS] = {{"shared", 0, LARGE},
                     {"small", 0, SMALL},
                     {"disk", CB_LEVEL_DISK_ONLY, LARGE},
                     {"little disk", CB_LEVEL_DISK_ONLY, SMALL},
                     {"memory", CB_LEVEL_MEMORY_ONLY_SER, LARGE}};

static bool see(void *ctx, const cb_client_status *s) {
    (void)s;
    ++*(int *)ctx;
    return true;
}

static void same_as_put(cb_client *c, int i, cb_client_block *block) {
    assert_int_equal(block->bytes, puts_made[i].bytes);
    kit_same(block->data, (uint32_t)i, puts_made[i].bytes);
    cb_client_release(c, block);
}

/** Everything that a client can ask. All may fail; what succeeds must be right. */
static void ask_all(scene *s) {
    cb_client *c = NULL;
    cb_client_block block = {0};
    cb_client_status status;
    cb_server_stats stats;
    int seen = 0;
    if (cb_client_open(s->k.path, 3000000000, &c, NULL) != CB_OK) {
        return;
    }
    for (int i = 0; i < PUTS; i++) {
        s->put[i] = kit_put(c, puts_made[i].name, puts_made[i].level, (uint32_t)i,
                            puts_made[i].bytes) == CB_OK;
    }
    for (int i = 0; i < PUTS; i++) {
        if (cb_client_get(c, puts_made[i].name, &block, NULL) == CB_OK) {
            same_as_put(c, i, &block);
        }
    }
    s->kept = cb_client_keep(c, "disk", NULL) == CB_OK;
    if (cb_client_status_get(c, "small", &status, NULL) == CB_OK) {
        assert_int_equal(status.memory_bytes, SMALL);
    }
    if (cb_client_list(c, see, &seen, NULL) == CB_OK) {
        assert_in_range(seen, 0, PUTS);
    }
    if (cb_client_stats(c, &stats, NULL) == CB_OK) {
        assert_in_range(stats.blocks, 0, PUTS);
    }
    s->removed = cb_client_remove(c, "small", NULL) == CB_OK;
    s->put[1] = false; /* its answer may be all that is lost */
    cb_client_close(c);
}

static void check_if_there(cb_client *c, int i) {
    cb_client_block block = {0};
    cb_status status = cb_client_get(c, puts_made[i].name, &block, NULL);
    if (status == CB_OK) {
        same_as_put(c, i, &block);
    } else {
        assert_int_equal(status, CB_ENOTFOUND);
    }
}

/** Nothing fails now. */
static void look(scene *s, bool may_lose) {
    cb_client *c = kit_client(&s->k);
    for (int i = 0; i < PUTS; i++) {
        cb_client_status status;
        cb_status there = cb_client_status_get(c, puts_made[i].name, &status, NULL);
        if (s->put[i] && !may_lose && there != CB_OK) {
            fail_msg("block %s is lost after %s", puts_made[i].name, s->what);
        }
        assert_false(i == 1 && s->removed && there == CB_OK);
        if (there == CB_OK && s->put[i] && !may_lose) {
            (void)kit_check(c, puts_made[i].name, (uint32_t)i, puts_made[i].bytes);
        } else if (there == CB_OK) { /* it may be on its way out, but not be another */
            check_if_there(c, i);
        }
    }
    cb_server_stats stats = kit_stats(c);
    while (stats.leases > 0 || stats.unroll_bytes > 0 || stats.connections > 1) {
        (void)usleep(1000); /* those that ended are on their way out */
        stats = kit_stats(c);
    }
    cb_client_close(c);
}

static cb_server_options options_of(scene *s) {
    cb_server_options o = kit_options(&s->k, UINT64_C(64) << 20);
    static const char *folder;
    folder = folder != NULL ? folder : test_folder();
    o.folder = folder;
    o.keep = "test";
    o.timeout_ns = 3000000000;
    o.connections_max = 16;
    o.workers = 1;
    return o;
}

/** What was kept is there at the next start, and goes. */
static void look_at_kept(scene *s, bool may_lose) {
    cb_server_options o = options_of(s);
    kit_open(&s->k, &o);
    cb_client *c = kit_client(&s->k);
    cb_client_status status;
    cb_status there = cb_client_status_get(c, "disk", &status, NULL);
    if (s->kept && !may_lose && there != CB_OK) {
        fail_msg("a kept block is lost after %s", s->what);
    }
    if (there == CB_OK) {
        (void)kit_check(c, "disk", 2, LARGE);
        assert_ok(cb_client_remove(c, "disk", NULL));
    }
    assert_int_equal(kit_stats(c).blocks, 0);
    cb_client_close(c);
    kit_close(&s->k);
    assert_int_equal(s->k.end.leases, 0);
}

/** The n-th call of an existing server's and its client's fails; false: there are not so many. */
static bool turn(uint64_t n, bool ever, int why) {
    static scene s;
    s = (scene){.kept = false};
    cb_server_options o = options_of(&s);
    kit_open(&s.k, &o);
    cbi_fault_arm(CBI_FAULT_ALL, n, ever, why);
    ask_all(&s);
    bool fired = cbi_fault_fired();
    cbi_fault_arm(0, 0, false, 0);
    (void)snprintf(s.what, sizeof s.what, "call %llu%s, error %d", (unsigned long long)n,
                   ever ? " and all after it" : "", why);
    bool unread = why == EIO || why == ENOSPC; /* a file that cannot be read is given up */
    look(&s, unread);
    kit_close(&s.k);
    assert_int_equal(s.k.end.leases, 0);
    assert_int_equal(s.k.end.unroll_bytes, 0);
    look_at_kept(&s, unread);
    kit_folder_end(&s.k);
    return fired;
}

static void loop(bool ever) {
    static const int errors[] = {ENOMEM, EMFILE, EIO, ENOSPC};
    uint64_t quiet = 0; /* two threads do not make the same calls each time: some more turns */
    for (uint64_t n = 1; quiet < 8; n++) {
        quiet = turn(n, ever, errors[n % 4]) ? 0 : quiet + 1;
    }
}

static void test_serve__each_call_may_fail_once(void **state) {
    (void)state;
    loop(false);
}

static void test_serve__each_call_may_fail_for_ever(void **state) {
    (void)state;
    loop(true);
}

static void test_serve__a_start_that_fails_leaves_nothing(void **state) {
    (void)state;
    for (int ever = 0; ever < 2; ever++) {
        bool fired = true;
        for (uint64_t n = 1; fired; n++) {
            scene s = {.kept = false};
            cb_server_options o = options_of(&s);
            cb_error err = {.message = ""};
            cbi_fault_arm(CBI_FAULT_ALL, n, ever != 0, n % 2 ? EIO : ENOMEM);
            cb_status status = cb_server_create(&o, &s.k.server, &err);
            fired = cbi_fault_fired();
            cbi_fault_arm(0, 0, false, 0);
            if (status == CB_OK) {
                cb_server_destroy(s.k.server);
            } else {
                assert_true(err.message[0] != '\0');
            }
            kit_open(&s.k, &o); /* nothing stands in the way of the next one */
            kit_close(&s.k);
            kit_folder_end(&s.k);
        }
    }
}

static void test_serve__short_transfers_are_not_noticed(void **state) {
    (void)state;
    scene s = {.kept = false};
    cb_server_options o = options_of(&s);
    kit_open(&s.k, &o);
    cbi_fault_arm(CBI_FAULT_SHORT, 1, true, EIO);
    ask_all(&s);
    cbi_fault_arm(0, 0, false, 0);
    for (int i = 0; i < PUTS; i++) {
        assert_int_equal(s.put[i], i != 1); /* removed */
    }
    assert_true(s.kept);
    look(&s, false);
    kit_close(&s.k);
    look_at_kept(&s, false);
    kit_folder_end(&s.k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serve__short_transfers_are_not_noticed),
        cmocka_unit_test(test_serve__a_start_that_fails_leaves_nothing),
        cmocka_unit_test(test_serve__each_call_may_fail_once),
        cmocka_unit_test(test_serve__each_call_may_fail_for_ever),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
