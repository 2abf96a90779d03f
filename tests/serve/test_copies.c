/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: an executor that leaves loses no block and leaves no client waiting, whatever is put,
 * removed or evicted just then; and one that cannot know all its blocks says so and stays. One that
 * returns has what it kept, but for what was removed after that was put. One that does not answer
 * has the directory asked at once who is there. Of copies that are too many to be sent at once none
 * is forgotten. A copy of what is here already is one when it is the same, and nothing is left of
 * its offer, whose time goes on only while the server does. What a directory says of a generation
 * that nobody believes removes nothing.
 *
 * Method: executors in this process and a directory in its memory. What would be a race is brought
 * about step by step, by the functions that the threads call. */
#include "serve/copies_private.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "serve/serve_kit.h"
#include "store/blocks.h"
#include "store/replica_private.h"

typedef struct executors {
    cb_local_directory *directory;
    cb_directory interface;
    kit a;
    cb_client *client;
} executors;

static void open_executor_in(const executors *x, kit *k, const char *name, const char *folder) {
    cb_server_options o = kit_options(k, UINT64_C(64) << 20);
    (void)snprintf(strrchr(k->path, '/'), 16, "/%s", name);
    o.directory = &x->interface;
    o.listen = "127.0.0.1:0";
    o.name = name;
    o.folder = folder;
    kit_open(k, &o);
}

static void open_executor(const executors *x, kit *k, const char *name) {
    open_executor_in(x, k, name, NULL);
}

static void begin_directory(executors *x) {
    assert_ok(cb_local_directory_create(UINT64_C(600000000000), NULL, NULL, &x->directory, NULL));
    x->interface = cb_local_directory_interface(x->directory);
}

static void begin(executors *x) {
    begin_directory(x);
    open_executor(x, &x->a, "a");
    x->client = kit_client(&x->a);
}

static void end(executors *x) {
    cb_client_close(x->client);
    kit_close(&x->a);
    kit_folder_end(&x->a);
    cb_local_directory_destroy(x->directory);
}

static void nap(void) {
    const struct timespec t = {.tv_nsec = 10000000};
    (void)nanosleep(&t, NULL);
}

static cb_block_status status_of(const kit *k, const char *name) {
    cb_block_status s;
    assert_ok(cb_blocks_status(k->server->blocks, name, &s, NULL));
    s.name = name;
    return s;
}

static void set_most(const kit *k, uint32_t blocks) {
    cbi_copies *cp = k->server->copies;
    cbi_mutex_lock(&cp->mutex);
    cp->machine->options.blocks_max = blocks;
    cbi_mutex_unlock(&cp->mutex);
}

static const cb_level ONE = CB_LEVEL_MEMORY_ONLY_SER;
static const cb_level TWO = CB_LEVEL_MEMORY_ONLY_SER_2;

static void test_leave__a_put_that_is_just_seen_is_answered(void **state) {
    (void)state;
    executors x;
    begin(&x);
    cbi_copies *cp = x.a.server->copies;
    cbi_copy_wait wait;
    uint32_t count = 0;
    cbi_connection *c = calloc(1, sizeof *c);
    (void)snprintf(c->name, sizeof c->name, "x");
    cbi_copies_expect(cp, &wait, c);
    assert_ok(kit_put(x.client, "x", ONE, 1, 100));
    const cb_block_status seen = status_of(&x.a, "x");
    assert_ok(cbi_copies_track(cp, &seen, false, NULL)); /* before its listener said so */
    cbi_copies_known(cp, &wait, seen.generation);
    assert_false(cbi_copies_wait(cp, &wait, &count));
    free(c);
    end(&x);
}

static void test_leave__a_copy_that_is_being_stored_is_told_by_who_stores_it(void **state) {
    (void)state;
    executors x;
    begin(&x);
    cbi_copies *cp = x.a.server->copies;
    cbi_copy_arrival arrival = {0};
    uint64_t older = 0;
    assert_ok(kit_put(x.client, "x", ONE, 1, 100));
    cb_block_status coming = status_of(&x.a, "x");
    coming.asked = TWO;
    const cbi_copy_offer offer = {.name = "x",
                                  .sender = "somebody",
                                  .generation = coming.generation,
                                  .checksum = coming.checksum,
                                  .bytes = 100,
                                  .copies = 2};
    assert_int_equal(cbi_copies_offered(cp, &offer, &arrival, &older), CBI_REPLICA_FAILED);
    assert_int_equal(cbi_copies_arrived(cp, &arrival, "x", coming.checksum), CBI_REPLICA_OK);
    assert_ok(cbi_copies_track(cp, &coming, false, NULL));
    assert_int_equal(cbi_copies_figures(cp).blocks, 0);
    /* whatever else happens meanwhile, the listener goes on looking for it */
    cbi_copies_note(cp, &(cb_block_status){.name = "other", .asked = TWO});
    assert_int_equal(atomic_load(&cp->tracked), 1);
    cbi_copies_note(cp, &coming);
    assert_int_equal(cbi_copies_generation(cp, "x"), coming.generation);
    assert_int_equal(cbi_copies_figures(cp).blocks, 1);
    cbi_copies_arrival_end(cp, &arrival);
    assert_int_equal(atomic_load(&cp->tracked), 1);
    /* what is said of before it took its name neither ends nor buries it */
    cb_block_status before = coming;
    before.generation--;
    cbi_copies_note(cp, &before);
    assert_int_equal(cbi_copies_generation(cp, "x"), coming.generation);
    cbi_copies_note(cp, &(cb_block_status){.name = "x", .asked = TWO});
    assert_int_equal(atomic_load(&cp->tracked), 0);
    end(&x);
}

static void test_leave__who_cannot_know_all_blocks_stays(void **state) {
    (void)state;
    executors x;
    begin(&x);
    cbi_copies *cp = x.a.server->copies;
    assert_ok(kit_put(x.client, "x", ONE, 1, 100));
    assert_ok(kit_put(x.client, "y", ONE, 2, 100));
    set_most(&x.a, 1);
    assert_int_equal(cbi_copies_leave(cp, NULL), CB_EBUDGET);
    assert_false(atomic_load(&cp->leaving));
    assert_ok(kit_put(x.client, "z", ONE, 3, 100));
    set_most(&x.a, 3);
    assert_ok(cbi_copies_leave(cp, NULL));
    assert_int_equal(cbi_copies_figures(cp).blocks, 3);
    /* one more, of which nobody could know beforehand, and then none */
    assert_ok(kit_put(x.client, "late", ONE, 4, 100));
    assert_int_equal(kit_put(x.client, "later", ONE, 5, 100), CB_EAGAIN);
    set_most(&x.a, 4);
    while (cbi_copies_figures(cp).blocks < 4) { /* the keeper looks once more */
        nap();
    }
    kit_check(x.client, "late", 4, 100);
    end(&x);
}

static void test_leave__a_block_that_is_being_ended_is_not_waited_for(void **state) {
    (void)state;
    executors x;
    begin(&x);
    cbi_copies *cp = x.a.server->copies;
    cb_blocks *b = x.a.server->blocks;
    cb_block_task *task = NULL;
    cbi_node *n = NULL;
    assert_ok(kit_put(x.client, "x", ONE, 1, 100));
    const cb_block_status seen = status_of(&x.a, "x");
    assert_ok(cb_block_task_create(b, 0, 0, &task, NULL));
    assert_ok(cbi_blocks_empty(b, task, "x", ONE, UINT64_MAX, true, &n, NULL));
    assert_ok(cbi_copies_track(cp, &seen, false, NULL)); /* it is in the index, and nothing of it */
    assert_int_equal(cbi_copies_figures(cp).blocks, 0);
    cbi_put_failed(b, n);
    assert_int_equal(cb_block_task_end(task), 0);
    end(&x);
}

static void
test_leave__a_block_of_which_there_is_nothing_is_found_out_when_it_is_sent(void **state) {
    (void)state;
    executors x;
    kit other;
    begin(&x);
    open_executor(&x, &other, "b");
    cbi_copies *cp = x.a.server->copies;
    const cb_block_status ghost = {.name = "ghost",
                                   .level = CB_LEVEL_IN_MEMORY,
                                   .memory_bytes = 10,
                                   .generation = 7,
                                   .checksum = 5,
                                   .asked = TWO};
    while (cbi_copies_figures(cp).peers == 0) {
        nap();
    }
    cbi_copies_note(cp, &ghost);
    while (cbi_copies_figures(cp).blocks > 0) {
        nap();
    }
    kit_close(&other);
    end(&x);
}

static void test_leave__nothing_is_taken_that_would_be_lost(void **state) {
    (void)state;
    executors x;
    void *status = NULL;
    begin(&x);
    cbi_copies *cp = x.a.server->copies;
    assert_ok(cbi_copies_put_begin(cp, "slow", NULL));
    assert_ok(cbi_copies_leave(cp, NULL)); /* there is nothing to be moved, but a put under way */
    assert_true(atomic_load(&cp->closing));
    assert_int_equal(kit_put(x.client, "late", ONE, 1, 100), CB_EAGAIN);
    for (int i = 0; i < 30; i++) { /* the keeper asks again meanwhile */
        nap();
    }
    kit_stats(x.client); /* it goes on as long as that */
    cbi_copies_put_end(cp);
    assert_int_equal(pthread_join(x.a.thread, &status), 0); /* now it ends */
    assert_int_equal((intptr_t)status, CB_OK);
    cb_client_close(x.client);
    cb_server_destroy(x.a.server);
    kit_folder_end(&x.a);
    cb_local_directory_destroy(x.directory);
}

static uint64_t next_beat(cbi_copies *cp) {
    cbi_mutex_lock(&cp->mutex);
    uint64_t beat_ns = cp->beat_ns;
    cbi_mutex_unlock(&cp->mutex);
    return beat_ns;
}

static void test_send__who_is_there_is_asked_anew_when_somebody_does_not_answer(void **state) {
    const uint64_t far = cbi_sys_clock_ns() + UINT64_C(3600000000000);
    (void)state;
    executors x;
    begin(&x);
    cbi_copies *cp = x.a.server->copies;
    uint64_t generation = 0; /* somebody whose lease lasts, and who is not there */
    const cb_executor_entry dead = {
        .name = "dead", .address = "127.0.0.1:1", .memory_max = 1 << 30};
    assert_ok(x.interface.enter(x.interface.ctx, &dead, &generation, NULL));
    while (cbi_copies_figures(cp).peers == 0) {
        nap();
    }
    cbi_mutex_lock(&cp->mutex);
    cp->beat_ns = far; /* nobody would ask by himself */
    cbi_mutex_unlock(&cp->mutex);
    assert_ok(kit_put(x.client, "x", TWO, 1, 100));
    while (next_beat(cp) == far) {
        nap();
    }
    end(&x);
}

/** One who answers what he is offered, that he has it: as soon as he looks. */
typedef struct slow_peer {
    int fd;
    pthread_t thread;
} slow_peer;

static void slow_peer_begin(slow_peer *p, const executors *x) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    uint64_t generation = 0;
    p->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (p->fd < 0) {
        abort();
    }
    assert_int_equal(bind(p->fd, (const struct sockaddr *)&at, bytes), 0);
    assert_int_equal(listen(p->fd, 8), 0);
    assert_int_equal(getsockname(p->fd, (struct sockaddr *)&at, &bytes), 0);
    cb_executor_entry entry = {.name = "slow", .memory_max = 1 << 30};
    char address[32];
    (void)snprintf(address, sizeof address, "127.0.0.1:%d", ntohs(at.sin_port));
    entry.address = address;
    assert_ok(x->interface.enter(x->interface.ctx, &entry, &generation, NULL));
    while (cbi_copies_figures(x->a.server->copies).peers == 0) {
        nap();
    }
}

static void *slow_peer_look(void *ctx) {
    enum { LINES_LEFT = 12 /* of an offer, behind its first word */ };
    const slow_peer *p = ctx;
    int fd = accept(p->fd, NULL, NULL);
    FILE *in = fd >= 0 ? fdopen(fd, "r") : NULL;
    char line[1024];
    for (int left = 0; in != NULL && fgets(line, sizeof line, in) != NULL;) {
        left = left > 0 ? left - 1 : strncmp(line, "CARBIDE.OFFER", 13) == 0 ? LINES_LEFT : -1;
        if (left == 0) {
            (void)send(fileno(in), "+OK\r\n", 5, MSG_NOSIGNAL);
        }
    }
    if (in != NULL) {
        (void)fclose(in);
    }
    return NULL;
}

/** [mutex] Copies that wait for a sender, or that one has in hand. */
static size_t count_sends(const cbi_copies *cp) {
    size_t count = 0;
    for (const cbi_wish *w = cp->remote.first; w != NULL; w = w->next) {
        count += w->kind == CBI_REPLICA_SEND;
    }
    for (const cbi_copy_link *l = cp->links; l < cp->links + CBI_COPY_LINKS; l++) {
        count += l->wish != NULL && l->wish->kind == CBI_REPLICA_SEND;
    }
    return count;
}

/** They are small objects of which nobody asks the budget: so many peers may not make them many. */
static void test_send__copies_noted_for_all_peers_are_bounded(void **state) {
    enum { ALL = 512 };
    (void)state;
    cbi_copies *cp = calloc(1, sizeof *cp);
    size_t count = 0;
    assert_non_null(cp);
    for (unsigned slot = 0; slot < CBI_REPLICA_PEERS_MAX; slot++) {
        const cbi_wish w = {
            .kind = CBI_REPLICA_SEND, .slot = (uint8_t)slot, .large = slot % 2 == 0};
        for (; (cp->hold >> slot & 1) == 0; count++) {
            assert_in_range(count, 0, ALL - 1);
            cbi_copies_count_send(cp, &w);
        }
        if (slot < 4) {
            assert_int_equal(cp->hold, (UINT64_C(2) << slot) - 1); /* nobody else */
        }
    }
    assert_int_equal(count, ALL);
    assert_true(cp->hold == UINT64_MAX);
    free(cp);
}

static void test_send__of_more_copies_than_can_be_sent_none_is_forgotten(void **state) {
    enum { MANY = 2500, A_FEW = 64 };
    (void)state;
    executors x;
    slow_peer slow;
    begin(&x);
    slow_peer_begin(&slow, &x);
    cbi_copies *cp = x.a.server->copies;
    for (int i = 0; i < MANY; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "x%d", i);
        assert_ok(kit_put(x.client, name, TWO, 1, 1));
    }
    while (cbi_copies_figures(cp).blocks < MANY) {
        nap();
    }
    cbi_mutex_lock(&cp->mutex);
    size_t sends = count_sends(cp), awaited = cp->machine->wait_count;
    cbi_mutex_unlock(&cp->mutex);
    assert_in_range(sends, 1, A_FEW);
    assert_int_equal(awaited, sends); /* an answer to each will come */
    assert_int_equal(pthread_create(&slow.thread, NULL, slow_peer_look, &slow), 0);
    while (cbi_copies_figures(cp).watched > 0) {
        nap();
    }
    assert_int_equal(cbi_copies_figures(cp).sent, 0); /* it had them */
    end(&x);
    assert_int_equal(pthread_join(slow.thread, NULL), 0);
    (void)close(slow.fd);
}

static void open_keeping(executors *x, const char *folder) {
    cb_server_options o = kit_options(&x->a, UINT64_C(64) << 20);
    o.directory = &x->interface;
    o.listen = "127.0.0.1:0";
    o.name = "a";
    o.folder = folder;
    o.keep = "test";
    kit_open(&x->a, &o);
    x->client = kit_client(&x->a);
}

static void begin_keeping(executors *x, char folder[TEST_PATH_MAX]) {
    (void)snprintf(folder, TEST_PATH_MAX, "/tmp/carbide-keep-%d", (int)getpid());
    (void)mkdir(folder, 0700);
    begin_directory(x);
    open_keeping(x, folder);
}

/** Another process, with what the one before has kept. */
static void return_with(executors *x, const char *folder) {
    cb_client_close(x->client);
    kit_close(&x->a);
    open_keeping(x, folder);
}

static cb_status drop(const executors *x, const char *name, uint64_t up_to) {
    cbi_copies *cp = x->a.server->copies;
    cb_block_task *task = NULL;
    assert_ok(cb_block_task_create(x->a.server->blocks, 0, 0, &task, NULL));
    cbi_copies_end_block(cp, task, name, up_to); /* as who hears of a removal */
    assert_int_equal(cb_block_task_end(task), 0);
    cb_block_status s;
    return cb_blocks_status(x->a.server->blocks, name, &s, NULL);
}

static void test_return__what_was_kept_is_as_old_as_it_was(void **state) {
    (void)state;
    executors x;
    char folder[TEST_PATH_MAX];
    begin_keeping(&x, folder);
    assert_ok(kit_put(x.client, "x", CB_LEVEL_DISK_ONLY, 1, 1000));
    assert_ok(kit_put(x.client, "y", CB_LEVEL_DISK_ONLY, 2, 1000));
    assert_ok(cb_client_keep(x.client, "x", NULL));
    assert_ok(cb_client_keep(x.client, "y", NULL));
    const uint64_t ahead = cbi_server_generation(x.a.server) + (UINT64_C(1) << 40);
    cbi_server_heard_of(x.a.server, ahead); /* from one whose clock is */
    assert_ok(kit_put(x.client, "z", CB_LEVEL_DISK_ONLY, 3, 1000));
    assert_ok(cb_client_keep(x.client, "z", NULL));
    const cb_block_status was = status_of(&x.a, "x"), other = status_of(&x.a, "y");
    assert_true(was.generation != 0);
    return_with(&x, folder);
    assert_true(status_of(&x.a, "x").generation == was.generation);
    assert_true(status_of(&x.a, "x").checksum == was.checksum);
    assert_ok(drop(&x, "x", was.generation - 1)); /* removed before it was put */
    kit_check(x.client, "x", 1, 1000);
    assert_int_equal(drop(&x, "y", other.generation), CB_ENOTFOUND); /* and after */
    assert_int_equal(drop(&x, "x", was.generation), CB_ENOTFOUND);
    const uint64_t later = cbi_server_generation(x.a.server);
    assert_true(later > status_of(&x.a, "z").generation && later > ahead);
    assert_int_equal(drop(&x, "z", later), CB_ENOTFOUND); /* by who removes it now */
    end(&x);
    assert_int_equal(rmdir(folder), 0);
}

/* Who had the other copy may have died meanwhile, and nobody but the one who comes back would know.
 */
static void test_return__what_was_kept_of_two_copies_is_looked_after(void **state) {
    (void)state;
    executors x;
    char folder[TEST_PATH_MAX];
    begin_keeping(&x, folder);
    assert_ok(kit_put(x.client, "one", CB_LEVEL_DISK_ONLY, 1, 1000));
    assert_ok(kit_put(x.client, "two", CB_LEVEL_MEMORY_AND_DISK_SER_2, 2, 1000));
    assert_ok(cb_client_keep(x.client, "one", NULL));
    assert_ok(cb_client_keep(x.client, "two", NULL));
    const uint64_t generation = status_of(&x.a, "two").generation;
    return_with(&x, folder);
    cbi_copies *cp = x.a.server->copies;
    assert_int_equal(cbi_copies_figures(cp).blocks, 1);
    assert_int_equal(cbi_copies_generation(cp, "two"), generation);
    assert_int_equal(cbi_copies_generation(cp, "one"), 0); /* it shall have no copy */
    const cb_block_status two = status_of(&x.a, "two");
    const cb_place here = {.level = CB_LEVEL(CB_LEVEL_ON_DISK, 2),
                           .disk_bytes = two.disk_bytes,
                           .block_generation = generation,
                           .checksum = two.checksum};
    assert_ok(x.interface.report(x.interface.ctx, "a", x.a.server->me.generation, "two", &here,
                                 NULL)); /* one in Redis asks by itself for all that is here */
    kit b;
    open_executor_in(&x, &b, "b", folder);
    while (cbi_copies_figures(b.server->copies).blocks == 0) { /* once a misses somebody: 6 s */
        nap();
    }
    assert_int_equal(status_of(&b, "two").generation, generation);
    assert_int_equal(drop(&x, "one", CBI_GENERATION_MAX - 1), CB_ENOTFOUND);
    assert_int_equal(drop(&x, "two", CBI_GENERATION_MAX - 1), CB_ENOTFOUND);
    kit_close(&b);
    end(&x);
    assert_int_equal(rmdir(folder), 0);
}

static int dial(const kit *k) {
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(cb_server_port(k->server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) {
        abort();
    }
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/** What is answered to a request of some lines. */
static void say(int fd, const char *request, char *answer, size_t room) {
    assert_int_equal(send(fd, request, strlen(request), 0), strlen(request));
    ssize_t got = recv(fd, answer, room - 1, 0);
    assert_true(got > 0);
    answer[got] = '\0';
}

static void ask(const kit *k, const char *request, char *answer, size_t room) {
    int fd = dial(k);
    say(fd, request, answer, room);
    (void)close(fd);
}

/* Its generation is older than the removal, and it is seen after who removed has looked for what is
 * here: brought about by a removal of which the server's clock has not heard. */
static void test_removal__what_was_put_before_and_is_seen_after_it_does_not_stay(void **state) {
    (void)state;
    executors x;
    char answer[256];
    begin(&x);
    cbi_copies *cp = x.a.server->copies;
    const cbi_replica_event removal = {.kind = CBI_REPLICA_BURIED,
                                       .grave = CBI_GRAVE_DATA_SET,
                                       .number = 5,
                                       .generation =
                                           cbi_server_generation(x.a.server) + (UINT64_C(1) << 44)};
    cbi_mutex_lock(&cp->mutex);
    assert_ok(cbi_copies_step(cp, removal, NULL));
    cbi_mutex_unlock(&cp->mutex);
    cb_block_status s;
    assert_int_equal(kit_put(x.client, "rdd_5_0", ONE, 1, 100), CB_ENOTFOUND);
    assert_int_equal(kit_put(x.client, "rdd_5_1", TWO, 1, 100), CB_ENOTFOUND);
    ask(&x.a, "SET rdd_5_2 v\r\n", answer, sizeof answer);
    assert_non_null(strstr(answer, "-ERR Block rdd_5_2 was removed everywhere"));
    static const char two[] = "*5\r\n$3\r\nSET\r\n$7\r\nrdd_5_3\r\n$1\r\nv\r\n$5\r\nLEVEL\r\n"
                              "$17\r\nMEMORY_ONLY_SER_2\r\n";
    ask(&x.a, two, answer, sizeof answer);
    assert_non_null(strstr(answer, "-ERR Block rdd_5_3 was removed everywhere"));
    for (int i = 0; i < 4; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "rdd_5_%d", i);
        assert_int_equal(cb_blocks_status(x.a.server->blocks, name, &s, NULL), CB_ENOTFOUND);
    }
    assert_ok(kit_put(x.client, "rdd_6_0", ONE, 1, 100));
    ask(&x.a, "SET rdd_6_1 v\r\n", answer, sizeof answer);
    assert_string_equal(answer, "+OK\r\n");
    end(&x);
}

/* ---- a copy of what is here already ---- */

/** x has the bytes "v", at one executor. */
static cb_block_status begin_with_x(executors *x) {
    char answer[64];
    begin(x);
    ask(&x->a, "SET x v\r\n", answer, sizeof answer);
    assert_string_equal(answer, "+OK\r\n");
    cb_block_status s = status_of(&x->a, "x");
    s.asked = TWO;
    return s;
}

static void offer_x(cbi_copies *cp, const cb_block_status *x, cbi_copy_arrival *arrival) {
    uint64_t older = 0;
    const cbi_copy_offer offer = {.name = "x",
                                  .sender = "somebody",
                                  .generation = x->generation,
                                  .checksum = x->checksum,
                                  .bytes = 1,
                                  .copies = 2};
    assert_int_equal(cbi_copies_offered(cp, &offer, arrival, &older), CBI_REPLICA_FAILED);
    assert_int_equal(cbi_copies_arrived(cp, arrival, "x", x->checksum), CBI_REPLICA_OK);
}

static void test_found__what_is_looked_after_is_a_copy_whatever_was_said_before(void **state) {
    (void)state;
    executors x;
    const cb_block_status s = begin_with_x(&x);
    cbi_copies *cp = x.a.server->copies;
    cbi_copy_arrival first = {0}, second = {0};
    offer_x(cp, &s, &first);
    set_most(&x.a, 1);
    cbi_copies_note(
        cp, &(cb_block_status){
                .name = "y", .level = ONE, .memory_bytes = 1, .generation = 1, .asked = TWO});
    assert_int_equal(cbi_copies_found(cp, &first, "x", s.checksum, NULL), CB_EBUDGET);
    set_most(&x.a, 4);
    offer_x(cp, &s, &second); /* from another one, and now there is room */
    assert_ok(cbi_copies_found(cp, &second, "x", s.checksum, NULL));
    assert_ok(cbi_copies_found(cp, &first, "x", s.checksum, NULL));
    assert_int_equal(cbi_copies_found(cp, &first, "x", s.checksum + 1, NULL), CB_EEXISTS);
    cbi_copies_arrival_end(cp, &first);
    cbi_copies_arrival_end(cp, &second);
    end(&x);
}

/* ---- what the directory says ---- */

static const uint64_t FAR = CBI_GENERATION_MAX - 1, PAST = 7;
static struct {
    cb_status (*locate)(void *ctx, const char *block, cb_location *locations, size_t max,
                        size_t *count, cb_error *err);
    cb_location extra;
    _Atomic uint32_t asked; /* of y */
} world;

/** Both have another one by their names, at an executor that is not there. */
static cb_status locate_more(void *ctx, const char *block, cb_location *locations, size_t max,
                             size_t *count, cb_error *err) {
    cb_status status = world.locate(ctx, block, locations, max, count, err);
    bool is_y = strcmp(block, "y") == 0;
    if (status == CB_OK && *count < max) {
        locations[*count] = world.extra;
        locations[(*count)++].place.block_generation = is_y ? PAST : FAR;
    }
    atomic_fetch_add(&world.asked, is_y);
    return status;
}

static void test_located__a_generation_of_a_far_future_removes_nothing(void **state) {
    (void)state;
    executors x;
    kit b;
    begin_directory(&x);
    world.locate = x.interface.locate;
    world.extra = (cb_location){
        .executor = "c",
        .generation = 1,
        .place = {.level = CB_LEVEL_MEMORY_ONLY_SER_2, .memory_bytes = 1, .checksum = 1}};
    atomic_store(&world.asked, 0);
    x.interface.locate = locate_more;
    open_executor(&x, &x.a, "a");
    x.client = kit_client(&x.a);
    cbi_copies *cp = x.a.server->copies;
    /* x is an ordinary one; y was put here while the clock was wrong, and c's is not to pay for it
     */
    assert_ok(kit_put(x.client, "x", TWO, 1, 100));
    const cb_place here = {.level = TWO, .memory_bytes = 1, .block_generation = FAR, .checksum = 2};
    assert_ok(
        x.interface.report(x.interface.ctx, "a", x.a.server->me.generation, "y", &here, NULL));
    cbi_copies_note(cp, &(cb_block_status){.name = "y",
                                           .level = ONE,
                                           .memory_bytes = 1,
                                           .generation = FAR,
                                           .checksum = 2,
                                           .asked = TWO});
    assert_int_equal(cbi_copies_generation(cp, "y"), FAR);
    open_executor(&x, &b, "b"); /* which is to have what lacks a copy */
    uint64_t had = status_of(&x.a, "x").generation;
    while (cbi_copies_generation(b.server->copies, "x") != had &&
           cbi_copies_generation(cp, "x") == had) {
        nap();
    }
    assert_int_equal(cbi_copies_generation(cp, "x"), had);
    /* until an answer has been heard: then it is sent, and found to be gone, or asked about again
     */
    while (atomic_load(&world.asked) < 2 && cbi_copies_generation(cp, "y") == FAR) {
        nap();
    }
    cbi_mutex_lock(&cp->mutex);
    bool buried = cbi_replica_is_buried(cp->machine, "y", PAST);
    cbi_mutex_unlock(&cp->mutex);
    assert_false(buried);
    kit_close(&b);
    kit_folder_end(&b);
    end(&x);
}

/** CARBIDE.OFFER, with the checksum of that byte, and CARBIDE.PUT. */
static void send_x(int fd, uint64_t generation, char byte, bool offers, char *answer, size_t room) {
    char request[512];
    unsigned long long g = generation, sum = XXH3_64bits(&byte, 1);
    if (offers) {
        (void)snprintf(request, sizeof request,
                       "CARBIDE.OFFER x %llu MEMORY_ONLY_SER_2 %llu 1 somebody\r\n", g, sum);
        say(fd, request, answer, room);
        if (strcmp(answer, "+SEND\r\n") != 0) {
            return;
        }
    }
    char number[32], checksum[32];
    (void)snprintf(number, sizeof number, "%llu", g);
    (void)snprintf(checksum, sizeof checksum, "%llu", sum);
    (void)snprintf(request, sizeof request,
                   "*6\r\n$11\r\nCARBIDE.PUT\r\n$1\r\nx\r\n$%zu\r\n%s\r\n"
                   "$17\r\nMEMORY_ONLY_SER_2\r\n$%zu\r\n%s\r\n$1\r\n%c\r\n",
                   strlen(number), number, strlen(checksum), checksum, byte);
    say(fd, request, answer, room);
}

static bool has_arrivals(cbi_copies *cp) {
    cbi_mutex_lock(&cp->mutex);
    bool has = cp->arrivals != NULL;
    cbi_mutex_unlock(&cp->mutex);
    return has || cbi_copies_figures(cp).reserved_bytes > 0;
}

static void test_found__other_bytes_of_that_generation_are_no_copy(void **state) {
    (void)state;
    executors x;
    char answer[256];
    const cb_block_status s = begin_with_x(&x);
    cbi_copies *cp = x.a.server->copies;
    for (int offers = 0; offers < 2; offers++) {
        int fd = dial(&x.a);
        send_x(fd, s.generation, 'w', offers == 1, answer, sizeof answer);
        assert_memory_equal(answer, "-CONFLICT ", 10);
        assert_false(has_arrivals(cp));
        assert_int_equal(cbi_copies_generation(cp, "x"), 0);
        (void)close(fd);
    }
    int fd = dial(&x.a);
    send_x(fd, s.generation, 'v', true, answer, sizeof answer);
    assert_string_equal(answer, "+OK\r\n");
    assert_false(has_arrivals(cp));
    assert_int_equal(cbi_copies_generation(cp, "x"), s.generation);
    (void)close(fd);
    end(&x);
}

static void stop_loop(const kit *k) {
    void *status = NULL;
    cb_server_stop(k->server);
    assert_int_equal(pthread_join(k->thread, &status), 0);
    assert_int_equal((intptr_t)status, CB_OK);
}

static void go_on(kit *k) {
    atomic_store(&k->server->stop, false);
    assert_int_equal(pthread_create(&k->thread, NULL, kit_run, k), 0);
}

/** A connection on which one was offered, while the loop stands; NULL: there is none. */
static cbi_connection *find_offered(const cb_server *s) {
    for (uint32_t i = 0; i < s->connections_max; i++) {
        if (s->resps[i].arrival.generation != 0) {
            return &s->connections[i];
        }
    }
    return NULL;
}

/* Its end was tried and is tried again, and the machine has been told of it meanwhile. */
static void test_found__nothing_of_an_offer_is_left_when_its_put_is_answered(void **state) {
    (void)state;
    executors x;
    char answer[256], request[128];
    const cb_block_status s = begin_with_x(&x);
    cbi_copies *cp = x.a.server->copies;
    int fd = dial(&x.a);
    (void)snprintf(request, sizeof request,
                   "CARBIDE.OFFER x %llu MEMORY_ONLY_SER_2 %llu 1 somebody\r\n",
                   (unsigned long long)s.generation, (unsigned long long)s.checksum);
    say(fd, request, answer, sizeof answer);
    assert_string_equal(answer, "+SEND\r\n");
    stop_loop(&x.a);
    const cbi_connection *c = find_offered(x.a.server);
    assert_non_null(c);
    assert_int_equal(cbi_copies_arrived(cp, &c->resp->arrival, c->name, s.checksum),
                     CBI_REPLICA_OK);
    cbi_copies_note(cp, &s);
    assert_int_equal(c->resp->arrival.ticket, 0);
    go_on(&x.a);
    send_x(fd, s.generation, 'v', false, answer, sizeof answer);
    assert_string_equal(answer, "+OK\r\n");
    assert_false(has_arrivals(cp));
    stop_loop(&x.a);
    assert_null(find_offered(x.a.server));
    go_on(&x.a);
    (void)close(fd);
    end(&x);
}

/* ---- an offer's time ---- */

/* Time is made: the loop is stopped, and what it looked at last was long ago. */
static void test_offer__what_the_server_misses_while_a_worker_has_it_is_not_counted(void **state) {
    const uint64_t second = UINT64_C(1000000000);
    (void)state;
    executors x;
    char answer[256];
    begin(&x);
    cb_server *s = x.a.server;
    int fd = dial(&x.a);
    say(fd, "CARBIDE.OFFER y 7 MEMORY_ONLY_SER_2 5 1 somebody\r\n", answer, sizeof answer);
    assert_string_equal(answer, "+SEND\r\n");
    stop_loop(&x.a);
    cbi_connection *c = find_offered(s);
    assert_non_null(c);
    cbi_copy_arrival *arrival = &c->resp->arrival;
    arrival->until_ns = cbi_sys_clock_ns() - second; /* all of it was missed, and more */
    const cbi_copy_arrival was = *arrival;
    c->state = CBI_BUSY; /* with a worker, for something */
    c->job = CBI_JOB_CANCEL;
    s->hurries = true;
    s->looked_ns = cbi_sys_clock_ns() - 60 * second;
    go_on(&x.a);
    (void)kit_stats(x.client); /* it has looked at the clock */
    assert_memory_equal(arrival, &was, sizeof was);
    cbi_server_hand_back(s, c);
    say(fd, "EXISTS y\r\n", answer, sizeof answer);
    assert_string_equal(answer, ":0\r\n");
    stop_loop(&x.a);
    assert_in_range(c->deadline_ns - cbi_sys_clock_ns(), 1, 59 * second);
    go_on(&x.a);
    (void)close(fd);
    end(&x);
}

static void test_offer__what_could_not_be_stored_is_refused_before_it_is_sent(void **state) {
    (void)state;
    executors x;
    char answer[256];
    begin(&x); /* without a folder */
    ask(&x.a, "CARBIDE.OFFER x 7 MEMORY_AND_DISK_SER_2 5 6 b\r\n", answer, sizeof answer);
    assert_memory_equal(answer, "-FULL ", 6);
    ask(&x.a, "CARBIDE.OFFER x 7 MEMORY_ONLY_SER_2 5 6 b\r\n", answer, sizeof answer);
    assert_string_equal(answer, "+SEND\r\n");
    ask(&x.a, "CARBIDE.OFFER y 7 MEMORY_ONLY_2 5 6 b\r\n", answer, sizeof answer);
    assert_string_equal(answer, "+SEND\r\n"); /* as bytes */
    end(&x);
}

/* All of its bytes would come for nothing, with each try, as long as somebody reads the other. */
static void test_offer__what_has_a_name_that_is_still_read_is_not_sent(void **state) {
    (void)state;
    executors x;
    char answer[256], offer[128], offer_same[128];
    const cb_block_status s = begin_with_x(&x);
    cb_blocks *blocks = x.a.server->blocks;
    cb_block_task *reader = NULL;
    cb_block_ref ref;
    (void)snprintf(offer, sizeof offer, "CARBIDE.OFFER x %llu MEMORY_ONLY_SER_2 5 6 b\r\n",
                   (unsigned long long)s.generation + 2);
    (void)snprintf(offer_same, sizeof offer_same,
                   "CARBIDE.OFFER x %llu MEMORY_ONLY_SER_2 5 6 b\r\n",
                   (unsigned long long)s.generation);
    assert_ok(cb_block_task_create(blocks, 0, 0, &reader, NULL));
    assert_ok(cb_blocks_get(blocks, reader, "x", &ref, NULL));
    assert_ok(
        cbi_copies_bury(x.a.server->copies,
                        &(cbi_copy_grave){.kind = CBI_GRAVE_BLOCK, .generation = s.generation + 1},
                        "x", true, NULL));
    assert_ok(cbi_blocks_retire(blocks, reader, "x", s.generation, NULL));
    ask(&x.a, offer, answer, sizeof answer);
    assert_memory_equal(answer, "-BUSY ", 6);
    assert_int_equal(cbi_copies_figures(x.a.server->copies).reserved_bytes, 0);
    ask(&x.a, offer_same, answer, sizeof answer); /* what is not to come at all is still said */
    assert_memory_equal(answer, "-BURIED ", 8);
    cb_block_release(&ref);
    ask(&x.a, offer, answer, sizeof answer);
    assert_string_equal(answer, "+SEND\r\n");
    (void)cb_block_task_end(reader);
    end(&x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_leave__a_put_that_is_just_seen_is_answered),
        cmocka_unit_test(test_leave__a_copy_that_is_being_stored_is_told_by_who_stores_it),
        cmocka_unit_test(test_leave__who_cannot_know_all_blocks_stays),
        cmocka_unit_test(test_leave__a_block_that_is_being_ended_is_not_waited_for),
        cmocka_unit_test(
            test_leave__a_block_of_which_there_is_nothing_is_found_out_when_it_is_sent),
        cmocka_unit_test(test_leave__nothing_is_taken_that_would_be_lost),
        cmocka_unit_test(test_send__who_is_there_is_asked_anew_when_somebody_does_not_answer),
        cmocka_unit_test(test_return__what_was_kept_is_as_old_as_it_was),
        cmocka_unit_test(test_return__what_was_kept_of_two_copies_is_looked_after),
        cmocka_unit_test(test_removal__what_was_put_before_and_is_seen_after_it_does_not_stay),
        cmocka_unit_test(test_found__what_is_looked_after_is_a_copy_whatever_was_said_before),
        cmocka_unit_test(test_found__other_bytes_of_that_generation_are_no_copy),
        cmocka_unit_test(test_located__a_generation_of_a_far_future_removes_nothing),
        cmocka_unit_test(test_found__nothing_of_an_offer_is_left_when_its_put_is_answered),
        cmocka_unit_test(test_offer__what_could_not_be_stored_is_refused_before_it_is_sent),
        cmocka_unit_test(test_offer__what_has_a_name_that_is_still_read_is_not_sent),
        cmocka_unit_test(test_offer__what_the_server_misses_while_a_worker_has_it_is_not_counted),
        cmocka_unit_test(test_send__copies_noted_for_all_peers_are_bounded),
        cmocka_unit_test(test_send__of_more_copies_than_can_be_sent_none_is_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
