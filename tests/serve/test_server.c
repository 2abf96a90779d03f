/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Goal: blocks go from client to client whole or not at all, leases hold what they promise and end
 * with who held them, and no client harms another. Method: a server in a thread; clients that
 * behave and raw connections that do not; the server's own figures afterwards.
 */
#include "serve_kit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SER CB_LEVEL_MEMORY_ONLY_SER

enum { MIB = 1 << 20 };

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROOM ((uint64_t)600 * MIB) /* for the sanitizer itself */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define ROOM ((uint64_t)600 * MIB)
#endif
#endif
#ifndef ROOM
#define ROOM ((uint64_t)64 * MIB)
#endif

/** Bytes for blocks in a server of that budget. */
static uint64_t blocks_room(cb_client *c) {
    return kit_stats(c).storage_max_bytes;
}

static void test_server__what_one_puts_another_gets(void **state) {
    const size_t sizes[] = {0, 1, 4096, 65535, 65536, 65537, 3 * MIB + 1};
    (void)state;
    for (int disk = 0; disk < 2; disk++) {
        kit k;
        cb_server_options o = kit_options(&k, ROOM);
        o.folder = disk ? "/tmp" : NULL;
        kit_open(&k, &o);
        cb_client *a = kit_client(&k), *b = kit_client(&k);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char name[16];
            (void)snprintf(name, sizeof name, "block%zu", i);
            cb_level level = disk ? CB_LEVEL_DISK_ONLY : 0;
            assert_ok(kit_put(a, name, level, (uint32_t)i, sizes[i]));
            assert_status(kit_put(b, name, level, 0, 10), CB_EEXISTS);
            bool leased = kit_check(b, name, (uint32_t)i, sizes[i]);
            assert_int_equal(leased, !disk && sizes[i] >= 65536);
        }
        cb_client_close(a);
        assert_true(kit_check(b, "block6", 6, sizes[6]) || disk); /* it outlives its maker */
        cb_client_close(b);
        kit_close(&k);
        kit_folder_end(&k);
    }
}

static void test_server__a_lease_holds_its_block(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    kit_open(&k, &o);
    cb_client *a = kit_client(&k), *b = kit_client(&k);
    cb_client_block lease = {0};
    cb_client_status s;
    size_t most = (size_t)blocks_room(a);
    size_t part = most / 5 * 2; /* two fit, three do not, whatever a tick makes of the books */
    assert_ok(kit_put(a, "one", SER, 1, part));
    assert_ok(cb_client_get(b, "one", &lease, NULL));
    assert_true(lease.leased);
    assert_ok(cb_client_status_get(a, "one", &s, NULL));
    assert_int_equal(s.readers, 1);
    assert_ok(kit_put(a, "two", SER, 2, part));
    assert_ok(kit_put(a, "three", SER, 3, part)); /* two had to go, one could not */
    assert_status(cb_client_status_get(a, "two", &s, NULL), CB_ENOTFOUND);
    assert_status(kit_put(a, "four", SER, 3, most - part / 2), CB_EBUDGET);
    assert_status(cb_client_remove(a, "one", NULL), CB_EAGAIN);
    kit_same(lease.data, 1, part);
    assert_int_equal(kit_stats(a).leases, 1);
    assert_int_equal(kit_stats(a).leased_bytes, part);
    cb_client_release(b, &lease);
    cb_client_release(b, &lease);
    while (kit_stats(a).leases > 0) { /* the test's time limit is the limit, here and below */
    }
    assert_ok(kit_put(a, "four", SER, 4, most - part / 2));
    assert_status(cb_client_status_get(a, "one", &s, NULL), CB_ENOTFOUND);
    cb_client_close(a);
    cb_client_close(b);
    kit_close(&k);
    assert_int_equal(k.end.leased_bytes, 0);
    kit_folder_end(&k);
}

static void test_server__leases_die_with_their_client(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    kit_open(&k, &o);
    cb_client *a = kit_client(&k);
    assert_ok(kit_put(a, "one", SER, 1, 5 * MIB));
    int go[2];
    char byte = 0;
    assert_int_equal(pipe(go), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        cb_client *c = kit_client(&k);
        cb_client_block lease;
        bool got = cb_client_get(c, "one", &lease, NULL) == CB_OK && lease.leased;
        ssize_t put = write(go[1], got ? "y" : "n", 1);
        (void)put;
        for (;;) {
            pause();
        }
    }
    assert_int_equal(read(go[0], &byte, 1), 1);
    assert_int_equal(byte, 'y');
    assert_int_equal(kit_stats(a).leases, 1);
    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitpid(child, NULL, 0), child);
    while (kit_stats(a).leases > 0) {
    }
    assert_ok(cb_client_remove(a, "one", NULL));
    assert_int_equal(kit_stats(a).memory_bytes, 0);
    cb_client_close(a);
    (void)close(go[0]);
    (void)close(go[1]);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_server__what_must_leave_goes_to_disk_and_comes_back(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    o.folder = "/tmp";
    o.codec = CB_BLOCK_CODEC_LZ4;
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    size_t part = (size_t)blocks_room(c) / 8;
    for (uint32_t i = 0; i < 20; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "rdd_%u_0", i);
        assert_ok(kit_put(c, name, 0, i, part));
    }
    assert_true(kit_stats(c).evicted > 0);
    for (uint32_t i = 0; i < 20; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "rdd_%u_0", i);
        (void)kit_check(c, name, i, part);
    }
    cb_server_stats s = kit_stats(c);
    assert_int_equal(s.blocks, 20);
    assert_true(s.promoted > 0);
    assert_in_range(s.accounted_peak_bytes, 0, s.budget_bytes);
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

typedef struct names {
    uint32_t count;
    uint64_t sum;
} names;

static bool add_name(void *ctx, const cb_client_status *s) {
    names *n = ctx;
    n->count++;
    n->sum += strtoull(s->name + 6, NULL, 10);
    return true;
}

static void test_server__lists_all(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    for (uint32_t i = 0; i < 5000; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "block-%u", i);
        assert_ok(cb_client_put(c, name, 0, &i, sizeof i, NULL));
    }
    names n = {0};
    assert_ok(cb_client_list(c, add_name, &n, NULL));
    assert_int_equal(n.count, 5000);
    assert_int_equal(n.sum, 5000u * 4999 / 2);
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

/* ---- those who do not behave ---- */

static bool ended(int fd) {
    char byte;
    return recv(fd, &byte, 1, 0) <= 0;
}

static void test_hostile__garbage_ends_only_its_own_connection(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    assert_ok(kit_put(c, "a", 0, 1, MIB));
    const cbi_head bad[] = {{.op = 99},
                            {.op = CBI_OP_RELEASE, .value = 5},
                            {.op = CBI_OP_RELEASE, .value = UINT64_MAX},
                            {.op = CBI_OP_PUT, .bytes = UINT64_MAX},
                            {.op = CBI_OP_GET, .bytes = 4}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = kit_raw(&k);
        kit_send_head(fd, &bad[i], bad[i].op == CBI_OP_PUT || bad[i].op == CBI_OP_GET ? "x" : "");
        assert_true(ended(fd));
        (void)close(fd);
    }
    int fd = kit_raw(&k);
    char noise[4096];
    memset(noise, 0x5c, sizeof noise);
    (void)send(fd, noise, sizeof noise, MSG_NOSIGNAL);
    assert_true(ended(fd));
    (void)close(fd);
    (void)kit_check(c, "a", 1, MIB);
    cb_client_close(c);
    kit_close(&k);
    assert_true(k.end.connections_refused >= 6);
    kit_folder_end(&k);
}

static void test_hostile__half_messages_end_and_take_nothing(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    o.timeout_ns = 300 * 1000 * 1000;
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    int half = kit_raw(&k), body = kit_raw(&k);
    assert_int_equal(send(half, "CBS1", 4, MSG_NOSIGNAL), 4);
    const cbi_head put = {.op = CBI_OP_PUT, .bytes = 2 * MIB};
    kit_send_head(body, &put, "never");
    assert_true(ended(half)); /* in time: the server's, not ours */
    assert_true(ended(body));
    while (kit_stats(c).unroll_bytes > 0) { /* a worker ends it */
    }
    assert_int_equal(kit_stats(c).blocks, 0);
    (void)close(half);
    (void)close(body);
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_hostile__huge_sizes_are_refused(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    assert_ok(kit_put(c, "a", SER, 1, 4 * MIB));
    const uint64_t sizes[] = {1ull << 40, INT64_MAX, blocks_room(c) + MIB};
    for (size_t i = 0; i < 3; i++) {
        int fd = kit_raw(&k);
        uint8_t reply[CBI_HEAD_BYTES];
        cbi_head head;
        const cbi_head put = {.op = CBI_OP_PUT, .bytes = sizes[i]};
        kit_send_head(fd, &put, "huge");
        assert_int_equal(recv(fd, reply, sizeof reply, MSG_WAITALL), sizeof reply);
        assert_ok(cbi_head_decode(reply, &head, NULL));
        assert_int_equal(head.code, CB_EBUDGET);
        (void)close(fd);
    }
    (void)kit_check(c, "a", 1, 4 * MIB); /* nobody left for it */
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_hostile__a_thousand_idle_ones_keep_nobody_out(void **state) {
    (void)state;
    enum { MANY = 1000 };
    static int fds[MANY];
    kit k;
    struct rlimit files;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    if (files.rlim_cur < 2 * MANY) { /* theirs, and the server's */
        files.rlim_cur = files.rlim_max < 2 * MANY ? files.rlim_max : 2 * MANY;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    }
    const int many = files.rlim_cur >= 2 * MANY ? MANY : (int)files.rlim_cur / 2;
    cb_server_options o = kit_options(&k, ROOM);
    o.connections_max = 64;
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    cb_client_block lease = {0};
    assert_ok(kit_put(c, "a", 0, 1, MIB));
    assert_ok(cb_client_get(c, "a", &lease, NULL));
    for (int i = 0; i < many; i++) {
        fds[i] = kit_raw(&k);
    }
    cb_client *d = kit_client(&k);
    (void)kit_check(d, "a", 1, MIB);
    assert_true(kit_stats(c).connections <= 64); /* who has a lease was not sent away */
    kit_same(lease.data, 1, MIB);
    cb_client_release(c, &lease);
    for (int i = 0; i < many; i++) {
        (void)close(fds[i]);
    }
    (void)kit_check(d, "a", 1, MIB);
    cb_client_close(c);
    cb_client_close(d);
    kit_close(&k);
    kit_folder_end(&k);
}

/** In a server of little patience this client may be ended too, if the machine is slow: again. */
static void put_patiently(cb_client *c, const char *name, cb_level level, uint32_t seed,
                          size_t bytes) {
    cb_error err = {.message = ""};
    cb_status status = CB_EIO;
    while (status == CB_EIO) {
        status = kit_put_or(c, name, level, seed, bytes, &err);
    }
    if (status != CB_OK && status != CB_EEXISTS) { /* it is there when the answer alone was lost */
        fail_msg("%s", err.message);
    }
}

static void check_patiently(cb_client *c, const char *name, uint32_t seed, size_t bytes) {
    cb_client_block b = {0};
    cb_error err = {.message = ""};
    cb_status status = CB_EIO;
    while (status == CB_EIO) {
        status = cb_client_get(c, name, &b, &err);
    }
    if (status != CB_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(b.bytes, bytes);
    kit_same(b.data, seed, bytes);
    cb_client_release(c, &b);
}

static void test_hostile__who_does_not_read_makes_nothing_grow(void **state) {
    (void)state;
    enum { MANY = 20 };
    int fds[MANY];
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    o.folder = "/tmp";
    o.timeout_ns = 500 * 1000 * 1000;
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    put_patiently(c, "m", SER, 1, 60000);
    put_patiently(c, "d", CB_LEVEL_DISK_ONLY, 2, 700000);
    uint64_t before = kit_stats(c).accounted_bytes;
    for (int i = 0; i < MANY; i++) { /* more than there are streams; and several requests each */
        fds[i] = kit_raw(&k);
        for (int n = 0; n < 10; n++) {
            const cbi_head get = {.op = CBI_OP_GET};
            if (!kit_try_head(fds[i], &get, i % 2 ? "m" : "d")) {
                break; /* ended already */
            }
        }
    }
    check_patiently(c, "m", 1, 60000);
    check_patiently(c, "d", 2, 700000); /* in line, as the streams' owners are ended */
    assert_true(kit_stats(c).accounted_bytes < before + 8 * MIB);
    for (int i = 0; i < MANY; i++) {
        (void)close(fds[i]);
    }
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

static void test_hostile__a_small_put_that_waited_in_line_goes_on(void **state) {
    (void)state;
    enum { SMALL = 50 }; /* comes together with its head, and nothing after it */
    int fds[CBI_STREAMS];
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    o.folder = "/tmp";
    kit_open(&k, &o);
    for (int i = 0; i < CBI_STREAMS; i++) { /* all streams are with those who send no body */
        char name[16];
        const cbi_head put = {.op = CBI_OP_PUT, .code = CB_LEVEL_DISK_ONLY, .bytes = 300000};
        (void)snprintf(name, sizeof name, "half%d", i);
        fds[i] = kit_raw(&k);
        kit_send_head(fds[i], &put, name);
    }
    cb_client *c = kit_client(&k);
    uint64_t own = 1; /* the greeting */
    do {
        own++;
    } while (kit_stats(c).requests < CBI_STREAMS + own);
    int waits = kit_raw(&k);
    uint8_t bytes[CBI_HEAD_BYTES + 1 + SMALL] = {0};
    const cbi_head put = {
        .op = CBI_OP_PUT, .code = CB_LEVEL_DISK_ONLY, .bytes = SMALL, .name_bytes = 1};
    cbi_head_encode(&put, bytes);
    bytes[CBI_HEAD_BYTES] = 'x';
    assert_int_equal(send(waits, bytes, sizeof bytes, MSG_NOSIGNAL), sizeof bytes);
    while (kit_stats(c).requests < CBI_STREAMS + ++own + 1) {
    }
    (void)close(fds[0]);
    cbi_head reply;
    assert_int_equal(recv(waits, bytes, CBI_HEAD_BYTES, MSG_WAITALL), CBI_HEAD_BYTES);
    assert_ok(cbi_head_decode(bytes, &reply, NULL));
    assert_int_equal(reply.code, CB_OK);
    for (int i = 1; i < CBI_STREAMS; i++) {
        (void)close(fds[i]);
    }
    (void)close(waits);
    cb_client_close(c);
    kit_close(&k);
    assert_int_equal(k.end.blocks, 1);
    kit_folder_end(&k);
}

static void test_hostile__descriptors_sent_along_are_closed(void **state) {
    (void)state;
    kit k;
    cb_server_options o = kit_options(&k, ROOM);
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    int fd = kit_raw(&k), pipes[2];
    assert_int_equal(pipe(pipes), 0);
    uint8_t head[CBI_HEAD_BYTES];
    const cbi_head hello = {.op = CBI_OP_HELLO};
    cbi_head_encode(&hello, head);
    struct iovec one = {head, sizeof head};
    assert_int_equal(cbi_sys_send(fd, &one, 1, pipes[1]), sizeof head);
    assert_int_equal(recv(fd, head, sizeof head, MSG_WAITALL), sizeof head);
    (void)close(pipes[1]);
    char byte;
    assert_int_equal(read(pipes[0], &byte, 1), 0); /* nobody has its other end */
    (void)close(pipes[0]);
    (void)close(fd);
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

/* ---- the socket ---- */

static void test_socket__a_dead_servers_is_taken_over_a_live_ones_not(void **state) {
    (void)state;
    kit k;
    cb_server *second = NULL;
    cb_error err;
    cb_server_options o = kit_options(&k, ROOM);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, k.path, sizeof k.path);
    int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(dead, (struct sockaddr *)&a, sizeof a), 0);
    (void)close(dead);
    kit_open(&k, &o);
    struct stat st;
    assert_int_equal(stat(k.path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_status(cb_server_create(&o, &second, &err), CB_EEXISTS);
    cb_client_close(kit_client(&k));
    kit_close(&k);
    int file = open(k.path, O_CREAT | O_RDWR, 0600);
    assert_true(file >= 0);
    (void)close(file);
    assert_status(cb_server_create(&o, &second, &err), CB_EEXISTS);
    assert_int_equal(unlink(k.path), 0);
    cb_client *c = NULL;
    assert_status(cb_client_open(k.path, 0, &c, &err), CB_ENOTFOUND);
    kit_folder_end(&k);
}

static void test_socket__too_small_a_budget_says_the_smallest(void **state) {
    (void)state;
    kit k;
    cb_error err;
    cb_server_options o = kit_options(&k, 1 << 20);
    o.connections_max = 16;
    assert_status(cb_server_create(&o, &k.server, &err), CB_EBUDGET);
    /* what the process takes by itself may be more the next time */
    o.memory_bytes = err.bytes_had + err.bytes_had / 2;
    kit_open(&k, &o);
    cb_client *c = kit_client(&k);
    assert_ok(kit_put(c, "a", 0, 1, 2 * MIB));
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

/* ---- many at once ---- */

typedef struct crowd {
    kit *kit;
    uint32_t seed;
    char failed[400]; /* what went wrong first */
} crowd;

static void went_wrong(crowd *w, const char *what, cb_status status, const cb_error *err) {
    if (w->failed[0] == '\0') {
        (void)snprintf(w->failed, sizeof w->failed, "%s: %s %.300s", what, cb_status_name(status),
                       status != CB_OK ? err->message : "");
    }
}

static void get_and_look(crowd *w, cb_client *c, const char *name, uint32_t n) {
    cb_client_block b = {0};
    cb_error err = {.message = ""};
    cb_status status = cb_client_get(c, name, &b, &err);
    if (status != CB_OK && status != CB_ENOTFOUND) {
        went_wrong(w, "get", status, &err);
    }
    for (size_t at = 0; status == CB_OK && at < b.bytes; at += 999) {
        if (b.data[at] != kit_byte(n, at)) {
            went_wrong(w, "bytes", CB_OK, NULL);
        }
    }
    cb_client_release(c, &b);
}

static void do_one_thing(crowd *w, cb_client *c, uint32_t random) {
    uint32_t n = random >> 16 & 31;
    cb_error err = {.message = ""};
    cb_status status;
    char name[16];
    (void)snprintf(name, sizeof name, "b%u", n);
    switch (random >> 24 & 7) {
        case 0:
            status = cb_client_remove(c, name, &err);
            if (status != CB_OK && status != CB_ENOTFOUND && status != CB_EAGAIN) {
                went_wrong(w, "remove", status, &err);
            }
            break;
        case 1:
        case 2:
        case 3:
            status = kit_put_or(c, name, n & 1 ? SER : 0, n, (size_t)(n + 1) * 40000, &err);
            if (status != CB_OK && status != CB_EEXISTS && status != CB_EBUDGET) {
                went_wrong(w, "put", status, &err);
            }
            break;
        default: get_and_look(w, c, name, n); break;
    }
}

static void *crowd_member(void *ctx) {
    crowd *w = ctx;
    cb_client *c = NULL;
    cb_error err = {.message = ""};
    uint32_t random = w->seed;
    cb_status status = cb_client_open(w->kit->path, 0, &c, &err);
    if (status != CB_OK) {
        went_wrong(w, "open", status, &err);
        return NULL;
    }
    for (int i = 0; i < 150; i++) {
        random = random * 1664525 + 1013904223;
        do_one_thing(w, c, random);
    }
    cb_client_close(c);
    return NULL;
}

static void test_server__many_at_once(void **state) {
    (void)state;
    enum { MANY = 6 };
    pthread_t threads[MANY];
    crowd members[MANY];
    kit k;
    cb_server_options o = kit_options(&k, ROOM == 64 * MIB ? 48 * MIB : ROOM);
    o.folder = "/tmp";
    kit_open(&k, &o);
    for (int i = 0; i < MANY; i++) {
        members[i] = (crowd){.kit = &k, .seed = (uint32_t)i * 77 + 5};
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_member, &members[i]), 0);
    }
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (int i = 0; i < MANY; i++) {
        if (members[i].failed[0] != '\0') {
            fail_msg("%s", members[i].failed);
        }
    }
    cb_client *c = kit_client(&k);
    while (kit_stats(c).connections > 1) { /* it learns of their ends by itself */
    }
    cb_server_stats s = kit_stats(c);
    assert_int_equal(s.leases, 0);
    assert_int_equal(s.leased_bytes, 0);
    assert_int_equal(s.unroll_bytes, 0);
    cb_client_close(c);
    kit_close(&k);
    kit_folder_end(&k);
}

/** What one asks who does not answer before he was stopped for longer than he would wait. */
static void test_client__what_it_missed_while_it_was_stopped_is_not_counted(void **state) {
    (void)state;
    kit k;
    (void)kit_options(&k, ROOM);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, k.path, sizeof k.path);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), status = 0;
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(listener, 1), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        cb_client *c = NULL;
        _exit(cb_client_open(k.path, UINT64_C(6000000000), &c, NULL) == CB_OK ? 0 : 1);
    }
    int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    uint8_t head[CBI_HEAD_BYTES];
    cbi_head hello;
    assert_int_equal(recv(fd, head, sizeof head, MSG_WAITALL), sizeof head);
    assert_ok(cbi_head_decode(head, &hello, NULL));
    hello.flags = CBI_FLAG_REPLY;
    cbi_head_encode(&hello, head);
    assert_int_equal(kill(child, SIGSTOP), 0);
    (void)usleep(6500000);
    assert_int_equal(kill(child, SIGCONT), 0);
    (void)usleep(100000); /* it has looked at its clock */
    assert_int_equal(send(fd, head, sizeof head, MSG_NOSIGNAL), sizeof head);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    (void)close(fd);
    (void)close(listener);
    assert_int_equal(unlink(k.path), 0);
    kit_folder_end(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server__what_one_puts_another_gets),
        cmocka_unit_test(test_server__a_lease_holds_its_block),
        cmocka_unit_test(test_server__leases_die_with_their_client),
        cmocka_unit_test(test_server__what_must_leave_goes_to_disk_and_comes_back),
        cmocka_unit_test(test_server__lists_all),
        cmocka_unit_test(test_hostile__garbage_ends_only_its_own_connection),
        cmocka_unit_test(test_hostile__half_messages_end_and_take_nothing),
        cmocka_unit_test(test_hostile__huge_sizes_are_refused),
        cmocka_unit_test(test_hostile__a_thousand_idle_ones_keep_nobody_out),
        cmocka_unit_test(test_hostile__who_does_not_read_makes_nothing_grow),
        cmocka_unit_test(test_hostile__a_small_put_that_waited_in_line_goes_on),
        cmocka_unit_test(test_hostile__descriptors_sent_along_are_closed),
        cmocka_unit_test(test_socket__a_dead_servers_is_taken_over_a_live_ones_not),
        cmocka_unit_test(test_socket__too_small_a_budget_says_the_smallest),
        cmocka_unit_test(test_server__many_at_once),
        cmocka_unit_test(test_client__what_it_missed_while_it_was_stopped_is_not_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
