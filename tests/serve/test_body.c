/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a worker takes a large put's bytes from its socket only as long as they come: who stops
 * costs nobody else, who ends half-way leaves nothing. Method: a server with one worker, and raw
 * connections that send as they like. */
#include "serve/serve_kit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <time.h>

enum { LARGE = 8 << 20 };

static void nap(void) {
    const struct timespec t = {.tv_nsec = 10000000};
    (void)nanosleep(&t, NULL);
}

static void open_server(kit *k, bool socket) {
    cb_server_options o = kit_options(k, UINT64_C(128) << 20);
    if (!socket) {
        o.socket = NULL;
    }
    o.listen = "127.0.0.1:0";
    o.workers = 1;
    kit_open(k, &o);
}

static int connect_tcp(const kit *k) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(cb_server_port(k->server))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        fail_msg("no connection");
    }
    return fd;
}

static void send_all(int fd, const void *bytes, size_t count) {
    for (size_t at = 0; at < count;) {
        ssize_t sent = send(fd, (const char *)bytes + at, count - at, MSG_NOSIGNAL);
        assert_true(sent > 0);
        at += (size_t)sent;
    }
}

static uint8_t *value_of(uint32_t seed) {
    uint8_t *value = malloc(LARGE);
    for (size_t i = 0; i < LARGE; i++) {
        value[i] = kit_byte(seed, i);
    }
    return value;
}

static void send_set(int fd, const char *name) {
    char head[128];
    int length = snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%d\r\n",
                          strlen(name), name, LARGE);
    send_all(fd, head, (size_t)length);
}

static void expect(int fd, const char *line) {
    char got[64] = {0};
    for (size_t at = 0; at < strlen(line);) {
        ssize_t count = recv(fd, got + at, strlen(line) - at, 0);
        assert_true(count > 0);
        at += (size_t)count;
    }
    assert_string_equal(got, line);
}

static void set_all(int fd, const char *name, uint32_t seed) {
    uint8_t *value = value_of(seed);
    send_set(fd, name);
    send_all(fd, value, LARGE);
    send_all(fd, "\r\n", 2);
    expect(fd, "+OK\r\n");
    free(value);
}

static void test_body__who_stops_half_way_keeps_no_worker(void **state) {
    (void)state;
    kit k;
    open_server(&k, true);
    cb_client *client = kit_client(&k);
    int slow = connect_tcp(&k), other = connect_tcp(&k);
    uint8_t *value = value_of(1);
    send_set(slow, "slow");
    send_all(slow, value, LARGE / 2 + 12345);
    set_all(other, "other", 2);
    (void)kit_check(client, "other", 2, LARGE);
    send_all(slow, value + LARGE / 2 + 12345, LARGE - LARGE / 2 - 12345);
    send_all(slow, "\r\n", 2);
    expect(slow, "+OK\r\n");
    (void)kit_check(client, "slow", 1, LARGE);
    free(value);
    (void)close(slow);
    (void)close(other);
    cb_client_close(client);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_body__who_ends_half_way_leaves_nothing(void **state) {
    (void)state;
    kit k;
    open_server(&k, true);
    cb_client *client = kit_client(&k);
    uint8_t *value = value_of(1);
    for (uint32_t turn = 0; turn < 20; turn++) {
        int fd = connect_tcp(&k);
        send_set(fd, "none");
        send_all(fd, value, LARGE / 20 * (turn + 1) - 1);
        if (turn % 2 == 0) { /* its end is told at once, whatever is on its way */
            const struct linger now = {.l_onoff = 1};
            assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
        }
        (void)close(fd);
    }
    free(value);
    while (kit_stats(client).connections > 1 || kit_stats(client).unroll_bytes > 0) {
        nap();
    }
    assert_int_equal(kit_stats(client).blocks, 0);
    int fd = connect_tcp(&k);
    set_all(fd, "some", 3);
    (void)kit_check(client, "some", 3, LARGE);
    (void)close(fd);
    cb_client_close(client);
    kit_close(&k);
    kit_folder_end(&k);
}

/** Its turn is over where there is no room for the next byte: the loop has none to give. */
static void test_body__a_turn_ends_with_room_for_more(void **state) {
    (void)state;
    enum { STEP = 1 << 20, STEPS = 140, REST_AT = 45 };
    kit k;
    cb_server_options o = kit_options(&k, UINT64_C(512) << 20);
    o.socket = NULL;
    o.listen = "127.0.0.1:0";
    kit_open(&k, &o);
    uint8_t *zeros = calloc(1, STEP);
    int fd = connect_tcp(&k);
    for (int turn = 0; turn < 3; turn++) { /* what is in the socket when it goes on is luck */
        char head[64];
        int length =
            snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$%d\r\n", STEPS * STEP);
        send_all(fd, head, (size_t)length);
        for (int i = 0; i < STEPS; i++) {
            for (int rest = 0; i == REST_AT && rest < 30; rest++) {
                nap();
            }
            send_all(fd, zeros, STEP);
        }
        send_all(fd, "\r\n", 2);
        expect(fd, "+OK\r\n");
    }
    free(zeros);
    (void)close(fd);
    kit_close(&k);
    kit_folder_end(&k);
}

/** Whether the block's memory is a file of its own, which others could map. */
static bool is_shared(const kit *k, const char *name) {
    cb_block_task *task = NULL;
    cb_block_ref ref;
    assert_ok(cb_block_task_create(k->server->blocks, 0, 0, &task, NULL));
    assert_ok(cb_blocks_get(k->server->blocks, task, name, &ref, NULL));
    bool shared = cb_block_descriptor(&ref) >= 0;
    cb_block_release(&ref);
    assert_int_equal(cb_block_task_end(task), 0);
    return shared;
}

static void test_body__nobody_maps_blocks_where_there_is_no_socket_by_name(void **state) {
    (void)state;
    for (int socket = 0; socket <= 1; socket++) {
        kit k;
        open_server(&k, socket != 0);
        int fd = connect_tcp(&k);
        set_all(fd, "x", 4);
        assert_int_equal(is_shared(&k, "x"), socket);
        (void)close(fd);
        kit_close(&k);
        kit_folder_end(&k);
    }
}

static void test_body__many_that_a_server_may_have_are_paid_for(void **state) {
    (void)state;
    cb_server *s = NULL;
    kit k;
    cb_server_options o = kit_options(&k, UINT64_C(4) << 30);
    o.listen = "127.0.0.1:0";
    assert_ok(cb_server_create(&o, &s, NULL));
    assert_true(s->receive_bytes > CBI_TCP_RECEIVE_BYTES); /* few are fast */
    assert_true(s->connections_max * 2 * (uint64_t)(s->receive_bytes + CBI_TCP_SEND_BYTES) <=
                o.memory_bytes / 16);
    cb_server_destroy(s);
    o.connections_max = 1000; /* many are wanted */
    o.memory_bytes = UINT64_C(1) << 30;
    assert_ok(cb_server_create(&o, &s, NULL));
    assert_int_equal(s->receive_bytes, CBI_TCP_RECEIVE_BYTES);
    cb_server_destroy(s);
    kit_folder_end(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_body__who_stops_half_way_keeps_no_worker),
        cmocka_unit_test(test_body__a_turn_ends_with_room_for_more),
        cmocka_unit_test(test_body__who_ends_half_way_leaves_nothing),
        cmocka_unit_test(test_body__nobody_maps_blocks_where_there_is_no_socket_by_name),
        cmocka_unit_test(test_body__many_that_a_server_may_have_are_paid_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
