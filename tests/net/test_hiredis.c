/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: programs that talk to Redis through hiredis talk to a server of blocks as they are. Method:
 * hiredis itself, one request at a time and many at once, with and without a password.
 */
#include <hiredis/hiredis.h>

#include "serve/serve_kit.h"

static void open_server(kit *k, const char *password) {
    cb_server_options o = kit_options(k, UINT64_C(256) << 20);
    o.socket = NULL;
    o.listen = "127.0.0.1:0";
    o.password = password;
    kit_open(k, &o);
}

static redisContext *connect_to(const kit *k) {
    redisContext *c = redisConnect("127.0.0.1", cb_server_port(k->server));
    assert_non_null(c);
    assert_int_equal(c->err, 0);
    return c;
}

static void expect_status(redisReply *r, const char *status) {
    assert_non_null(r);
    assert_int_equal(r->type, REDIS_REPLY_STATUS);
    assert_string_equal(r->str, status);
    freeReplyObject(r);
}

static void expect_number(redisReply *r, long long number) {
    assert_non_null(r);
    assert_int_equal(r->type, REDIS_REPLY_INTEGER);
    assert_int_equal(r->integer, number);
    freeReplyObject(r);
}

static void expect_bytes(redisReply *r, const uint8_t *bytes, size_t count) {
    assert_non_null(r);
    assert_int_equal(r->type, REDIS_REPLY_STRING);
    assert_int_equal(r->len, count);
    assert_memory_equal(r->str, bytes, count);
    freeReplyObject(r);
}

static void test_hiredis__blocks_come_and_go(void **state) {
    enum { LARGE = 3000001 };
    (void)state;
    kit k;
    open_server(&k, NULL);
    redisContext *c = connect_to(&k);
    uint8_t *bytes = malloc(LARGE);
    for (size_t i = 0; i < LARGE; i++) {
        bytes[i] = kit_byte(3, i);
    }
    expect_status(redisCommand(c, "PING"), "PONG");
    static const size_t sizes[] = {0, 1, 16 * 1024, LARGE};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        expect_status(redisCommand(c, "SET x%d %b", (int)i, bytes, sizes[i]), "OK");
        expect_number(redisCommand(c, "STRLEN x%d", (int)i), (long long)sizes[i]);
        expect_bytes(redisCommand(c, "GET x%d", (int)i), bytes, sizes[i]);
    }
    expect_bytes(redisCommand(c, "GETRANGE x3 %d %d", 1000, 2000999), bytes + 1000, 2000000);
    expect_status(redisCommand(c, "SET d %b LEVEL MEMORY_ONLY_SER", bytes, (size_t)9), "OK");
    redisReply *r = redisCommand(c, "SCAN 0 COUNT 100");
    assert_int_equal(r->type, REDIS_REPLY_ARRAY);
    assert_int_equal(r->elements, 2);
    assert_in_range(r->element[1]->elements, 1, 5);
    freeReplyObject(r);
    expect_number(redisCommand(c, "EXISTS x0 x1 nobody"), 2);
    expect_number(redisCommand(c, "DEL x0 x1 x2 x3 d nobody"), 5);
    r = redisCommand(c, "GET x0");
    assert_int_equal(r->type, REDIS_REPLY_NIL);
    freeReplyObject(r);
    r = redisCommand(c, "FLUSHALL");
    assert_int_equal(r->type, REDIS_REPLY_ERROR);
    freeReplyObject(r);
    assert_int_equal(c->err, 0);
    free(bytes);
    redisFree(c);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_hiredis__many_requests_at_once(void **state) {
    enum { MANY = 3000 };
    (void)state;
    kit k;
    open_server(&k, NULL);
    redisContext *c = connect_to(&k);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(redisAppendCommand(c, "SET k%d value-%d", i, i), REDIS_OK);
        assert_int_equal(redisAppendCommand(c, "GET k%d", i), REDIS_OK);
    }
    for (int i = 0; i < MANY; i++) {
        char text[32];
        void *reply = NULL;
        int length = snprintf(text, sizeof text, "value-%d", i);
        assert_int_equal(redisGetReply(c, &reply), REDIS_OK);
        expect_status(reply, "OK");
        assert_int_equal(redisGetReply(c, &reply), REDIS_OK);
        expect_bytes(reply, (const uint8_t *)text, (size_t)length);
    }
    redisFree(c);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_hiredis__a_password_comes_first(void **state) {
    (void)state;
    kit k;
    open_server(&k, "secret");
    redisContext *c = connect_to(&k);
    redisReply *r = redisCommand(c, "GET x");
    assert_int_equal(r->type, REDIS_REPLY_ERROR);
    assert_memory_equal(r->str, "NOAUTH", 6);
    freeReplyObject(r);
    expect_status(redisCommand(c, "AUTH %s", "secret"), "OK");
    expect_status(redisCommand(c, "SET x %s", "v"), "OK");
    redisFree(c);
    kit_close(&k);
    kit_folder_end(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hiredis__blocks_come_and_go),
        cmocka_unit_test(test_hiredis__many_requests_at_once),
        cmocka_unit_test(test_hiredis__a_password_comes_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
