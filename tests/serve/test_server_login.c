/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 120 */
/*
 * Goal: whoever knows the password gets in, whatever those do who do not say it, and has the time
 * to say it. Method: as many strangers as there may be at a server of few connections.
 */
#include <time.h>

#include "serve/serve_kit.h"

enum { CONNECTIONS = 16, STRANGERS = CONNECTIONS / 2, ANSWER = 64 };

static const uint64_t second = 1000000000;
static const char login[] = "AUTH sesame\r\n";

static cb_server_options options(kit *k, uint64_t timeout_ns) {
    cb_server_options o = kit_options(k, UINT64_C(64) << 20);
    o.listen = "127.0.0.1:0";
    o.password = "sesame";
    o.connections_max = CONNECTIONS;
    o.timeout_ns = timeout_ns;
    return o;
}

static void hear(int fd, const char *expected) {
    char answer[ANSWER] = "";
    size_t count = 0;
    while (count < 2 || answer[count - 1] != '\n') {
        ssize_t got = recv(fd, answer + count, ANSWER - 1 - count, 0);
        assert_true(got > 0);
        count += (size_t)got;
    }
    assert_string_equal(answer, expected);
}

/** Who is sent away comes back, as often as others come. */
static void check_with(const char *words) {
    kit k;
    int strangers[STRANGERS];
    cb_server_options o = options(&k, 20 * second);
    kit_open(&k, &o);
    for (int i = 0; i < STRANGERS; i++) {
        strangers[i] = kit_dial(&k);
        kit_say(strangers[i], words);
    }
    for (int i = 0; i < 3 * STRANGERS; i++) {
        int fd = kit_dial(&k), *oldest = &strangers[i % STRANGERS];
        kit_say(fd, login);
        hear(fd, "+OK\r\n");
        hear(*oldest, "-ERR max number of clients reached\r\n");
        (void)close(fd);
        (void)close(*oldest);
        *oldest = kit_dial(&k);
        kit_say(*oldest, words);
    }
    for (int i = 0; i < STRANGERS; i++) {
        (void)close(strangers[i]);
    }
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_login__silent_strangers_keep_nobody_out(void **state) {
    (void)state;
    check_with("");
}

static void test_login__nor_do_those_who_say_half(void **state) {
    (void)state;
    check_with("*2\r\n$4\r\nAU");
}

static void test_login__who_has_just_come_has_time_for_it(void **state) {
    (void)state;
    enum { MANY = CONNECTIONS - 2 };
    kit k;
    int fds[MANY];
    cb_server_options o = options(&k, 2000000 * second);
    kit_open(&k, &o);
    for (int i = 0; i < MANY; i++) { /* more than there may be: the others wait for that */
        fds[i] = kit_dial(&k);
    }
    for (int i = 0; i < MANY; i++) {
        kit_say(fds[i], login);
        hear(fds[i], "+OK\r\n");
    }
    for (int i = 0; i < MANY; i++) {
        (void)close(fds[i]);
    }
    kit_close(&k);
    assert_int_equal(k.end.connections_refused, 0);
    kit_folder_end(&k);
}

static void test_login__who_has_said_it_does_not_go_unheard(void **state) {
    (void)state;
    const struct timespec moment = {.tv_nsec = 50000000};
    kit k;
    int fds[STRANGERS + 1];
    cb_server_options o = options(&k, 2 * second);
    o.workers = CBI_NO_WORKERS;
    assert_ok(cb_server_create(&o, &k.server, NULL));
    for (int i = 0; i < STRANGERS; i++) {
        fds[i] = kit_dial(&k);
        assert_ok(cbi_server_step(k.server, -1, NULL));
    }
    assert_int_equal(k.server->strangers, STRANGERS);
    (void)nanosleep(&moment, NULL); /* each has had his, and may be sent away */
    assert_ok(cbi_server_step(k.server, 0, NULL));
    fds[STRANGERS] = kit_dial(&k); /* the loop hears of this first */
    kit_say(fds[0], login);
    for (int turn = 0; turn < 3; turn++) {
        assert_ok(cbi_server_step(k.server, 0, NULL));
    }
    hear(fds[0], "+OK\r\n");
    assert_int_equal(k.server->strangers, STRANGERS);
    assert_int_equal(k.server->stats.connections, STRANGERS + 1);
    for (int i = 0; i <= STRANGERS; i++) {
        (void)close(fds[i]);
    }
    cb_server_destroy(k.server);
    kit_folder_end(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_login__silent_strangers_keep_nobody_out),
        cmocka_unit_test(test_login__nor_do_those_who_say_half),
        cmocka_unit_test(test_login__who_has_just_come_has_time_for_it),
        cmocka_unit_test(test_login__who_has_said_it_does_not_go_unheard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
