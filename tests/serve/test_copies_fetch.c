/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: a block is read as long as one executor gives it, whatever the others that should have it
 * do: other bytes, more of them than there are, or a few of them now and then, so that they are
 * never at their end. So does nobody who is told of a removal, or asked for a password's reply,
 * keep who asks him.
 *
 * Method: an executor, and peers made up here of a socket and a thread, the nearest of which
 * misbehave. Those who drip would go on for four times as long as is borne; that they were ended
 * before is what they saw, and no time is measured. */
#include "serve/copies_private.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "serve/serve_kit.h"

enum { X_BYTES = 5000, DRIPS = 400, DRIP_MS = 50, PEERS_MAX = 3 };

typedef enum deed { GIVES, OTHER_BYTES, TOO_MANY, DRIPS_HEAD, DRIPS_BYTES, DRIPS_LINES } deed;

/** Somebody in the directory. */
typedef struct peer {
    deed deed;
    int listener;
    pthread_t thread;
    _Atomic uint32_t asked, given_up, endured;
} peer;

typedef struct world {
    cb_local_directory *directory;
    cb_directory interface;
    kit a;
    const char *password;
    peer peers[PEERS_MAX];
    size_t count;
} world;

static void nap(unsigned milliseconds) {
    const struct timespec t = {.tv_nsec = (long)milliseconds * 1000000};
    (void)nanosleep(&t, NULL);
}

static int new_socket(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        abort();
    }
    return fd;
}

/* ---- peers ---- */

static void say(int fd, const void *bytes, size_t count) {
    (void)send(fd, bytes, count, MSG_NOSIGNAL);
}

static void drip(peer *p, int fd, char byte) {
    for (int i = 0; i < DRIPS; i++) {
        if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1) {
            atomic_fetch_add(&p->given_up, 1);
            return;
        }
        nap(DRIP_MS);
    }
    atomic_fetch_add(&p->endured, 1);
}

static void give(peer *p, int fd) {
    uint8_t bytes[X_BYTES + 2] = {0};
    atomic_fetch_add(&p->asked, 1);
    if (p->deed == DRIPS_HEAD) {
        say(fd, "$", 1);
        drip(p, fd, '0');
        return;
    }
    const char *head = p->deed == TOO_MANY ? "$999999999999\r\n" : "$5000\r\n";
    say(fd, head, strlen(head));
    if (p->deed == DRIPS_BYTES) {
        drip(p, fd, 'x');
        return;
    }
    for (size_t i = 0; i < X_BYTES; i++) {
        bytes[i] = kit_byte(p->deed == OTHER_BYTES ? 2 : 1, i);
    }
    bytes[X_BYTES] = '\r';
    bytes[X_BYTES + 1] = '\n';
    say(fd, bytes, sizeof bytes);
}

/** Until the other end is closed, or a block was given: the next one asks by a new connection. */
static void serve(peer *p, int fd) {
    char words[1024];
    ssize_t got = 0;
    while ((got = recv(fd, words, sizeof words - 1, 0)) > 0) {
        words[got] = '\0';
        if (strstr(words, "CARBIDE.GET") != NULL) {
            give(p, fd);
            return;
        }
        bool of_password = strstr(words, "AUTH") != NULL,
             of_removal = strstr(words, "BURY") != NULL;
        if (p->deed == DRIPS_LINES && (of_password || of_removal)) {
            atomic_fetch_add(&p->asked, 1);
            say(fd, "+", 1);
            drip(p, fd, 'O');
            return;
        }
        if (of_removal || strstr(words, "sesame") != NULL) { /* which may come in pieces */
            say(fd, "+OK\r\n", 5);
        }
    }
}

static void *run_peer(void *ctx) {
    peer *p = ctx;
    int fd = -1;
    while ((fd = accept(p->listener, NULL, NULL)) >= 0) {
        serve(p, fd);
        (void)close(fd);
    }
    return NULL;
}

/** `said`: how many bytes of x the directory is told; 0: it does not have x. */
static void add_peer(world *w, deed what, const char *host, uint64_t said) {
    peer *p = &w->peers[w->count];
    char name[8], address[32];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    uint64_t generation = 0;
    *p = (peer){.deed = what, .listener = new_socket()};
    assert_int_equal(bind(p->listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(p->listener, 8), 0);
    assert_int_equal(getsockname(p->listener, (struct sockaddr *)&at, &bytes), 0);
    (void)snprintf(name, sizeof name, "p%zu", w->count++);
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", (unsigned)ntohs(at.sin_port));
    assert_int_equal(pthread_create(&p->thread, NULL, run_peer, p), 0);
    const cb_executor_entry entry = {
        .name = name, .address = address, .host = host, .memory_max = 1 << 30};
    assert_ok(w->interface.enter(w->interface.ctx, &entry, &generation, NULL));
    if (said > 0) {
        uint8_t x[X_BYTES];
        for (size_t i = 0; i < X_BYTES; i++) {
            x[i] = kit_byte(1, i);
        }
        const cb_place place = {.level = CB_LEVEL_MEMORY_ONLY_SER,
                                .memory_bytes = said,
                                .block_generation = 5,
                                .checksum = XXH3_64bits(x, X_BYTES)};
        assert_ok(w->interface.report(w->interface.ctx, name, generation, "x", &place, NULL));
    }
}

/* ---- the executor ---- */

static void begin(world *w, const char *password) {
    *w = (world){.password = password};
    assert_ok(cb_local_directory_create(UINT64_C(600000000000), NULL, NULL, &w->directory, NULL));
    w->interface = cb_local_directory_interface(w->directory);
}

/** After the peers are there. */
static void open_a(world *w) {
    cb_server_options o = kit_options(&w->a, UINT64_C(64) << 20);
    o.directory = &w->interface;
    o.listen = "127.0.0.1:0";
    o.name = "a";
    o.host = "near";
    o.password = w->password;
    kit_open(&w->a, &o);
    while (cbi_copies_figures(w->a.server->copies).peers < w->count) {
        nap(10);
    }
}

static void end(world *w) {
    kit_close(&w->a);
    kit_folder_end(&w->a);
    for (size_t i = 0; i < w->count; i++) {
        (void)shutdown(w->peers[i].listener, SHUT_RDWR);
        (void)pthread_join(w->peers[i].thread, NULL);
        (void)close(w->peers[i].listener);
    }
    cb_local_directory_destroy(w->directory);
}

static size_t ask(const world *w, const char *request, char *answer, size_t room) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(cb_server_port(w->a.server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = new_socket();
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    if (w->password != NULL) {
        say(fd, "AUTH sesame\r\n", 13);
        assert_int_equal(recv(fd, answer, 5, MSG_WAITALL), 5);
    }
    say(fd, request, strlen(request));
    (void)shutdown(fd, SHUT_WR);
    size_t count = 0;
    ssize_t got = 0;
    while (count < room - 1 && (got = recv(fd, answer + count, room - 1 - count, 0)) > 0) {
        count += (size_t)got;
    }
    (void)close(fd);
    answer[count] = '\0';
    return count;
}

static void check_x(const world *w) {
    char answer[X_BYTES + 100];
    size_t count = ask(w, "GET x\r\n", answer, sizeof answer);
    if (strncmp(answer, "$5000\r\n", 7) != 0) {
        fail_msg("answered %.200s", answer);
    }
    assert_int_equal(count, 7 + X_BYTES + 2);
    kit_same((const uint8_t *)answer + 7, 1, X_BYTES);
}

static void check_refused(const world *w, const char *kind) {
    char answer[X_BYTES + 100];
    (void)ask(w, "GET x\r\n", answer, sizeof answer);
    if (strncmp(answer, kind, strlen(kind)) != 0) {
        fail_msg("answered %.200s and not %s", answer, kind);
    }
}

/* ---- tests ---- */

static cb_status (*locate_at_all)(void *ctx, const char *block, cb_location *locations, size_t max,
                                  size_t *count, cb_error *err);

/** A directory that is being told again: of y it has not heard yet. */
static cb_status locate_some(void *ctx, const char *block, cb_location *locations, size_t max,
                             size_t *count, cb_error *err) {
    return strcmp(block, "y") == 0 ? CB_EAGAIN
                                   : locate_at_all(ctx, block, locations, max, count, err);
}

static void test_fetch__nothing_is_not_said_while_the_directory_is_told_again(void **state) {
    (void)state;
    world w;
    char answer[300];
    begin(&w, NULL);
    locate_at_all = w.interface.locate;
    w.interface.locate = locate_some;
    add_peer(&w, GIVES, "far", X_BYTES);
    open_a(&w);
    (void)ask(&w, "GET y\r\n", answer, sizeof answer);
    assert_int_equal(strncmp(answer, "-BUSY ", 6), 0);
    check_x(&w); /* what it has heard of it says: at once, and not after the next beat */
    (void)ask(&w, "CARBIDE.COMPUTE y 1000\r\n", answer, sizeof answer);
    assert_int_equal(strncmp(answer, "-BUSY ", 6), 0);
    (void)ask(&w, "GET z\r\n", answer, sizeof answer);
    assert_string_equal(answer, "$-1\r\n");
    end(&w);
}

static void test_fetch__after_other_bytes_the_next_one_is_asked(void **state) {
    (void)state;
    world w;
    begin(&w, NULL);
    add_peer(&w, OTHER_BYTES, "near", X_BYTES);
    add_peer(&w, GIVES, "far", X_BYTES);
    open_a(&w);
    check_x(&w);
    assert_int_equal(atomic_load(&w.peers[0].asked), 1);
    end(&w);
}

static void test_fetch__after_too_many_bytes_the_next_one_is_asked(void **state) {
    (void)state;
    world w;
    begin(&w, NULL);
    add_peer(&w, TOO_MANY, "near", X_BYTES);                /* the directory knows better, */
    add_peer(&w, TOO_MANY, "near", UINT64_C(999999999999)); /* or was told the same */
    add_peer(&w, GIVES, "far", X_BYTES);
    open_a(&w);
    check_x(&w);
    assert_int_equal(atomic_load(&w.peers[0].asked), 1);
    assert_int_equal(atomic_load(&w.peers[1].asked), 1);
    end(&w);
}

static void
test_fetch__a_block_without_room_and_one_that_nobody_gives_are_told_apart(void **state) {
    (void)state;
    static const uint64_t said[] = {X_BYTES, UINT64_C(999999999999)};
    for (size_t i = 0; i < 2; i++) {
        world w;
        begin(&w, NULL);
        add_peer(&w, TOO_MANY, "near", said[i]);
        open_a(&w);
        check_refused(&w, i == 0 ? "-BUSY " : "-OOM ");
        end(&w);
    }
}

static void test_fetch__who_sends_a_byte_now_and_then_is_given_up(void **state) {
    (void)state;
    world w;
    begin(&w, NULL);
    add_peer(&w, DRIPS_HEAD, "near", X_BYTES);
    add_peer(&w, DRIPS_BYTES, "near", X_BYTES);
    add_peer(&w, GIVES, "far", X_BYTES);
    open_a(&w);
    check_x(&w);
    for (size_t i = 0; i < 2; i++) {
        while (atomic_load(&w.peers[i].given_up) + atomic_load(&w.peers[i].endured) == 0) {
            nap(10);
        }
        assert_int_equal(atomic_load(&w.peers[i].endured), 0);
    }
    end(&w);
}

static void test_log_in__who_answers_a_byte_now_and_then_is_given_up(void **state) {
    (void)state;
    world w;
    begin(&w, "sesame");
    add_peer(&w, DRIPS_LINES, "near", X_BYTES);
    add_peer(&w, GIVES, "far", X_BYTES);
    open_a(&w);
    check_x(&w);
    assert_true(atomic_load(&w.peers[0].asked) > 0);
    assert_int_equal(atomic_load(&w.peers[0].endured), 0);
    end(&w);
}

static void test_removal__who_answers_a_byte_now_and_then_is_given_up(void **state) {
    (void)state;
    world w;
    char answer[100];
    begin(&w, NULL);
    add_peer(&w, DRIPS_LINES, "near", 0);
    open_a(&w);
    (void)ask(&w, "CARBIDE.REMOVE BLOCK y\r\n", answer, sizeof answer);
    assert_string_equal(answer, "+OK\r\n");
    while (atomic_load(&w.peers[0].given_up) + atomic_load(&w.peers[0].endured) == 0) {
        nap(10);
    }
    assert_int_equal(atomic_load(&w.peers[0].endured), 0);
    end(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fetch__after_other_bytes_the_next_one_is_asked),
        cmocka_unit_test(test_fetch__after_too_many_bytes_the_next_one_is_asked),
        cmocka_unit_test(test_fetch__a_block_without_room_and_one_that_nobody_gives_are_told_apart),
        cmocka_unit_test(test_fetch__who_sends_a_byte_now_and_then_is_given_up),
        cmocka_unit_test(test_fetch__nothing_is_not_said_while_the_directory_is_told_again),
        cmocka_unit_test(test_log_in__who_answers_a_byte_now_and_then_is_given_up),
        cmocka_unit_test(test_removal__who_answers_a_byte_now_and_then_is_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
