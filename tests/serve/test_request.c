/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: who sets or deletes a block that others read waits for them a little, and keeps nobody
 * waiting who wants something else.
 *
 * Method: a block is locked for reading, clients say SET and DEL of it and then something else;
 * what is looked at is who is answered before whom. On a machine that stands still for half a
 * second the order may be another one: so once in some attempts is enough, and without a worker
 * that is left it would be never. */
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "serve/serve_kit.h"
#include "store/blocks.h"

enum { ATTEMPTS = 20 };

static void nap(void) {
    const struct timespec t = {.tv_nsec = 50000000};
    (void)nanosleep(&t, NULL);
}

/** One reply, which is short. */
static void hear(int fd, char answer[256]) {
    size_t count = 0;
    while (count < 2 || answer[count - 1] != '\n') {
        ssize_t got = recv(fd, answer + count, 255 - count, 0);
        assert_true(got > 0);
        count += (size_t)got;
    }
    answer[count] = '\0';
}

static bool is_answered(int fd) {
    char byte = 0;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/** Whether somebody else was answered while they waited, and they when it was not read any more. */
static bool attempt(const kit *k) {
    char answer[256];
    cb_block_task *task = NULL;
    cb_block_ref ref;
    int first = kit_dial(k), second = kit_dial(k), other = kit_dial(k);
    assert_ok(cb_block_task_create(k->server->blocks, 0, 0, &task, NULL));
    assert_ok(cb_blocks_get(k->server->blocks, task, "x", &ref, NULL));
    kit_say(first, "SET x new\r\n");
    nap();
    kit_say(second, "DEL x\r\n");
    nap();
    kit_say(other, "DEL nothing\r\n");
    hear(other, answer);
    assert_string_equal(answer, ":0\r\n");
    bool wait = !is_answered(first) && !is_answered(second);
    cb_block_release(&ref);
    hear(first, answer);
    bool is_set = strcmp(answer, "+OK\r\n") == 0;
    assert_true(is_set || strncmp(answer, "-BUSY ", 6) == 0);
    hear(second, answer);
    bool is_gone = strcmp(answer, ":1\r\n") == 0;
    assert_true(is_gone || strncmp(answer, "-BUSY ", 6) == 0);
    assert_int_equal(cb_block_task_end(task), 0);
    (void)close(first);
    (void)close(second);
    (void)close(other);
    return wait && is_set && is_gone;
}

static void check_with(uint32_t workers) {
    kit k;
    char answer[256];
    cb_server_options o = kit_options(&k, UINT64_C(64) << 20);
    o.listen = "127.0.0.1:0";
    o.workers = workers;
    kit_open(&k, &o);
    int fd = kit_dial(&k);
    bool seen = false;
    for (int i = 0; i < ATTEMPTS && !seen; i++) {
        kit_say(fd, "SET x old\r\n");
        hear(fd, answer);
        assert_string_equal(answer, "+OK\r\n");
        seen = attempt(&k);
    }
    assert_true(seen);
    assert_int_equal(atomic_load(&k.server->waiting), 0);
    (void)close(fd);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_busy__who_waits_for_readers_leaves_a_worker_for_others(void **state) {
    (void)state;
    check_with(2);
}

static void test_busy__nobody_waits_in_the_only_worker(void **state) {
    (void)state;
    check_with(1);
}

static void test_busy__who_is_read_for_long_is_busy_in_the_end(void **state) {
    (void)state;
    kit k;
    char answer[256];
    cb_block_task *task = NULL;
    cb_block_ref ref;
    int fds[4];
    cb_server_options o = kit_options(&k, UINT64_C(64) << 20);
    o.listen = "127.0.0.1:0";
    o.workers = 2;
    kit_open(&k, &o);
    for (int i = 0; i < 4; i++) {
        fds[i] = kit_dial(&k);
    }
    kit_say(fds[0], "SET x old\r\n");
    hear(fds[0], answer);
    assert_ok(cb_block_task_create(k.server->blocks, 0, 0, &task, NULL));
    assert_ok(cb_blocks_get(k.server->blocks, task, "x", &ref, NULL));
    for (int i = 0; i < 4; i++) {
        kit_say(fds[i], i % 2 == 0 ? "SET x new\r\n" : "DEL x\r\n");
    }
    for (int i = 0; i < 4; i++) {
        hear(fds[i], answer);
        assert_int_equal(strncmp(answer, "-BUSY ", 6), 0);
    }
    cb_block_release(&ref);
    assert_int_equal(cb_block_task_end(task), 0);
    kit_say(fds[1], "DEL x\r\n");
    hear(fds[1], answer);
    assert_string_equal(answer, ":1\r\n");
    for (int i = 0; i < 4; i++) {
        (void)close(fds[i]);
    }
    kit_close(&k);
    kit_folder_end(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_busy__who_waits_for_readers_leaves_a_worker_for_others),
        cmocka_unit_test(test_busy__nobody_waits_in_the_only_worker),
        cmocka_unit_test(test_busy__who_is_read_for_long_is_busy_in_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
