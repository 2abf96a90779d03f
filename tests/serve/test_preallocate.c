/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a server that touches its memory at the start answers meanwhile, keeps to its budget, and
 * touches again what was given back. Method: puts by several connections beside it, and the
 * manager's accounts. */
#include "serve/serve_kit.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <time.h>

static const uint64_t budget = UINT64_C(192) << 20;

static void nap(void) {
    const struct timespec t = {.tv_nsec = 5000000};
    (void)nanosleep(&t, NULL);
}

static void open_server(kit *k) {
    cb_server_options o = kit_options(k, budget);
    o.socket = NULL;
    o.listen = "127.0.0.1:0";
    o.preallocate = true;
    kit_open(k, &o);
}

static void await_idle(const kit *k, uint64_t bytes) {
    while (cb_allocator_idle(k->server->manager->allocators[CB_HEAP]) < bytes) {
        nap();
    }
}

/** In a thread of its own: cmocka's would jump to another one's. */
static void must(bool good) {
    if (!good) {
        abort();
    }
}

static void say(int fd, const void *bytes, size_t count) {
    for (size_t at = 0; at < count;) {
        ssize_t sent = send(fd, (const char *)bytes + at, count - at, MSG_NOSIGNAL);
        must(sent > 0);
        at += (size_t)sent;
    }
}

static void expect_ok(int fd) {
    char got[5];
    for (size_t at = 0; at < sizeof got;) {
        ssize_t count = recv(fd, got + at, sizeof got - at, 0);
        must(count > 0);
        at += (size_t)count;
    }
    must(memcmp(got, "+OK\r\n", sizeof got) == 0);
}

static int connect_tcp(const kit *k) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(cb_server_port(k->server))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(fd >= 0);
    must(connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    return fd;
}

typedef struct putter {
    const kit *k;
    unsigned number;
} putter;

static void *put_many(void *ctx) {
    enum { BLOCKS = 40, LARGEST = 6 << 20 };
    const putter *p = ctx;
    int fd = connect_tcp(p->k);
    uint8_t *zeros = calloc(1, LARGEST);
    for (unsigned i = 0; i < BLOCKS; i++) {
        char head[64];
        size_t bytes = i % 3 == 0 ? LARGEST : 100000u * (i + p->number);
        int length = snprintf(head, sizeof head, "*3\r\n$3\r\nSET\r\n$4\r\n%02u%02u\r\n$%zu\r\n",
                              p->number, i % 25, bytes);
        say(fd, head, (size_t)length);
        say(fd, zeros, bytes);
        say(fd, "\r\n", 2);
        expect_ok(fd);
    }
    free(zeros);
    (void)close(fd);
    return NULL;
}

static void test_preallocate__goes_on_beside_puts_and_within_the_budget(void **state) {
    enum { PUTTERS = 2 };
    (void)state;
    kit k;
    open_server(&k);
    pthread_t threads[PUTTERS];
    putter putters[PUTTERS];
    for (unsigned i = 0; i < PUTTERS; i++) {
        putters[i] = (putter){.k = &k, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, &putters[i]), 0);
    }
    for (unsigned i = 0; i < PUTTERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_true(cb_manager_accounted_peak(k.server->manager) <= budget);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_preallocate__what_was_given_back_is_touched_again(void **state) {
    const uint64_t some = UINT64_C(16) << 20;
    (void)state;
    kit k;
    open_server(&k);
    await_idle(&k, some);
    (void)cb_allocator_trim(k.server->manager->allocators[CB_HEAP], 0);
    await_idle(&k, some);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_preallocate__a_server_that_ends_at_once_does_not_wait_for_it(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++) {
        kit k;
        open_server(&k);
        kit_close(&k);
        kit_folder_end(&k);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_preallocate__goes_on_beside_puts_and_within_the_budget),
        cmocka_unit_test(test_preallocate__what_was_given_back_is_touched_again),
        cmocka_unit_test(test_preallocate__a_server_that_ends_at_once_does_not_wait_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
