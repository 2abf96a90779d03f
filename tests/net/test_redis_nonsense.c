/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Goal: a server that is none harms nobody who takes it for his directory. Method: its answers are
 * wrong in each of the ways we could think of.
 */
#include "carbide/redis_directory.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "support/redis_store.h"
#include "support/test.h"

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

static void test_redis_nonsense__nonsense_harms_nobody(void **state) {
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

int main(void) {
    in_folder();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redis_nonsense__nonsense_harms_nobody),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(folder);
    return failed;
}
