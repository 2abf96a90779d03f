/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 240 */
/*
 * Goal: a server or a client that is killed at any moment leaves no hang, no lease or half a block
 * in the other one, no file, and every block that was said to be kept. Method: processes that are
 * killed after a random time, hundreds of times, while they put, keep, get and remove; who stays
 * must end by itself, and is asked what it still holds.
 */
#include "serve_kit.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

enum { NAMES = 10, HANG_SECONDS = 60 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
#define ROOM ((uint64_t)600 << 20)
enum { ROUNDS = 20 };
#else
#define ROOM ((uint64_t)64 << 20)
enum { ROUNDS = 100 };
#endif

static int rounds(void) {
    return getenv("CARBIDE_TEST_LONG") != NULL ? 3000 : ROUNDS;
}

static uint32_t draw(uint32_t *random, uint32_t limit) {
    *random = *random * 1664525u + 1013904223u;
    return (*random >> 8) % limit;
}

/** What a client is about to do, and in capitals that it was answered: keep, remove. */
typedef struct told {
    uint8_t name, step;
    uint32_t bytes;
} told;

static bool tell(int fd, uint32_t name, char step, uint32_t bytes) {
    const told t = {.name = (uint8_t)name, .step = (uint8_t)step, .bytes = bytes};
    return fd < 0 || write(fd, &t, sizeof t) == (ssize_t)sizeof t;
}

/** One deed: puts and keeps what is not there, gets or removes what is. */
static cb_status deed(cb_client *c, int fd, uint32_t *random, uint32_t bytes[NAMES], bool keeps) {
    uint32_t i = draw(random, NAMES), what = draw(random, 4);
    char name[16];
    cb_client_block block = {0};
    cb_status status = CB_OK;
    (void)snprintf(name, sizeof name, "rdd_1_%u", i);
    if (bytes[i] == 0) {
        uint32_t size = 1 + draw(random, what == 0 ? 1000 : 200000);
        (void)tell(fd, i, 'k', size);
        status = kit_put(c, name, 0, i, size);
        status = status == CB_OK && keeps ? cb_client_keep(c, name, NULL) : status;
        if (status == CB_OK) {
            (void)tell(fd, i, 'K', size);
            bytes[i] = size;
        }
    } else if (what > 0) {
        status = cb_client_get(c, name, &block, NULL);
        if (status == CB_OK) {
            kit_same(block.data, i, (size_t)block.bytes);
            cb_client_release(c, &block);
        }
    } else {
        (void)tell(fd, i, 'r', bytes[i]);
        status = cb_client_remove(c, name, NULL);
        if (status == CB_OK) {
            (void)tell(fd, i, 'R', bytes[i]);
            bytes[i] = 0;
        }
    }
    return status;
}

/** A child that works until it is killed, or its server is: then it ends with 0, and at once. */
static pid_t start_client(const kit *k, int fd, uint32_t random, const uint32_t *there,
                          bool keeps) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child > 0) {
        return child;
    }
    (void)alarm(HANG_SECONDS);
    uint32_t bytes[NAMES];
    cb_client *c = NULL;
    cb_status status = cb_client_open(k->path, 0, &c, NULL);
    memcpy(bytes, there, sizeof bytes);
    while (status == CB_OK) {
        status = deed(c, fd, &random, bytes, keeps);
    }
    _exit(status == CB_EIO || status == CB_ENOTFOUND ? 0 : 100 - (int)status);
}

static void test_kill__clients_leave_nothing_in_the_server(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    uint32_t random = 7, nothing[NAMES] = {0};
    o.folder = "/tmp";
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    for (int round = 0; round < 2 * rounds(); round++) {
        pid_t child = start_client(&k, -1, draw(&random, 1 << 20), nothing, false);
        (void)usleep(draw(&random, 12000));
        (void)kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        for (uint32_t i = 0; i < NAMES; i++) { /* the next one begins with none */
            char name[16];
            cb_status status = CB_EAGAIN;
            (void)snprintf(name, sizeof name, "rdd_1_%u", i);
            while (status == CB_EAGAIN) { /* until its lease has ended */
                status = cb_client_remove(c, name, NULL);
            }
            assert_true(status == CB_OK || status == CB_ENOTFOUND);
        }
    }
    cb_server_stats s = kit_stats(c);
    while (s.connections > 1) {
        (void)usleep(1000);
        s = kit_stats(c);
    }
    assert_int_equal(s.leases, 0);
    assert_int_equal(s.leased_bytes, 0);
    assert_int_equal(s.unroll_bytes, 0);
    assert_in_range(s.blocks, 0, 1); /* a put that came whole, and was done after we had looked */
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

/* ---- servers ---- */

static pid_t start_server(const cb_server_options *o) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        cb_server *server = NULL;
        cb_error err = {.message = ""};
        if (cb_server_create(o, &server, &err) != CB_OK) {
            (void)fprintf(stderr, "%s\n", err.message);
            _exit(1);
        }
        _exit(cb_server_run(server, NULL) == CB_OK ? 0 : 1);
    }
    return child;
}

static cb_client *connect_to(const kit *k) {
    cb_client *c = NULL;
    cb_error err = {.message = ""};
    for (int i = 0; i < HANG_SECONDS * 1000; i++) {
        if (cb_client_open(k->path, 0, &c, &err) == CB_OK) {
            return c;
        }
        (void)usleep(1000);
    }
    fail_msg("%s", err.message);
    return NULL;
}

/** What must be there by what was told; what was under way may be. */
static void read_told(int fd, uint32_t sure[NAMES], int *open_name, uint32_t *open_bytes) {
    told t;
    *open_name = -1;
    while (read(fd, &t, sizeof t) == (ssize_t)sizeof t) {
        bool answered = t.step == 'K' || t.step == 'R';
        if (answered) {
            sure[t.name] = t.step == 'K' ? t.bytes : 0;
        }
        *open_name = answered ? -1 : t.name;
        *open_bytes = t.bytes;
    }
}

static void check_kept(cb_client *c, uint32_t sure[NAMES], int open_name, uint32_t open_bytes) {
    assert_int_equal(kit_stats(c).lost, 0);
    for (int i = 0; i < NAMES; i++) {
        char name[16];
        cb_client_status status;
        (void)snprintf(name, sizeof name, "rdd_1_%d", i);
        bool there = cb_client_status_get(c, name, &status, NULL) == CB_OK;
        if (i == open_name) {
            sure[i] = there ? open_bytes : 0;
        }
        assert_int_equal(there, sure[i] > 0);
        if (there) {
            (void)kit_check(c, name, (uint32_t)i, sure[i]);
        }
    }
}

static void remove_kept(cb_client *c) {
    for (int i = 0; i < NAMES; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "rdd_1_%d", i);
        cb_status status = cb_client_remove(c, name, NULL);
        assert_true(status == CB_OK || status == CB_ENOTFOUND);
    }
}

static void test_kill__servers_leave_what_is_kept_and_nobody_waiting(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    uint32_t random = 11, sure[NAMES] = {0}, open_bytes = 0;
    int open_name = -1;
    o.folder = test_folder();
    o.keep = "test";
    for (int round = 0; round <= rounds(); round++) {
        int ends[2], status = 0;
        pid_t server = start_server(&o);
        cb_client *c = connect_to(&k);
        check_kept(c, sure, open_name, open_bytes);
        if (round == rounds()) {
            remove_kept(c);
            cb_client_close(c);
            assert_int_equal(kill(server, SIGKILL), 0);
            assert_int_equal(waitpid(server, NULL, 0), server);
            break;
        }
        cb_client_close(c);
        assert_int_equal(pipe(ends), 0);
        pid_t client = start_client(&k, ends[1], draw(&random, 1 << 20), sure, true);
        (void)close(ends[1]);
        (void)usleep(500 + draw(&random, 25000));
        assert_int_equal(kill(server, SIGKILL), 0);
        assert_int_equal(waitpid(server, NULL, 0), server);
        assert_int_equal(waitpid(client, &status, 0), client);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            fail_msg("the client ended with %#x", (unsigned)status);
        }
        read_told(ends[0], sure, &open_name, &open_bytes);
        (void)close(ends[0]);
    }
    kit_open(&k, &o); /* and this one ends as it should */
    kit_close(&k);
    DIR *d = opendir(o.folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        assert_int_equal(e->d_name[0], '.');
    }
    (void)closedir(d);
    kit_folder_end(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kill__clients_leave_nothing_in_the_server),
        cmocka_unit_test(test_kill__servers_leave_what_is_kept_and_nobody_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
