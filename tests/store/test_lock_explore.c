/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-wraps: cbi_parker_wait cb_manager_acquire_storage cbi_contents_free cbi_index_node */
/*
 * Goal: whatever order a few tasks come in, locks of blocks keep their promise: readers share, a
 * writer is alone, one computes, everybody gets on in the end and nothing is left. Method: all
 * orders of their steps, systematically. Each task is a thread, of which one runs at a time; it
 * can be stopped before each operation and, by calls that are wrapped when this test is linked,
 * wherever the store has just given its lock away or waits for somebody. What is to be done next is
 * a choice; a run is a list of choices, and the next run changes the last one that has another left
 * (with at most so many tasks stopped where they could have gone on: that bound, and the number of
 * runs of a scenario, is what CARBIDE_TEST_LONG raises).
 */
#include <semaphore.h>
#include <stdlib.h>

#include "base/sys.h"
#include "block_kit.h"
#include "store/blocks.h"

enum { ACTORS = 3, STEPS = 6, DEPTH = 400, BYTES = 1000 };

typedef enum step {
    END,
    GET,
    WRITE,
    RELEASE,
    DOWNGRADE,
    TASK_END,
    REMOVE,
    PUT,
    PUT_OTHER,
    COMPUTE
} step;

typedef struct actor {
    pthread_t thread;
    sem_t go;
    const step *steps;
    cb_block_task *task;
    cb_block_ref ref;
    bool writing, holding;
    bool finished;
    const cbi_parker *waits; /* NULL: can go on */
    kit_list list;
} actor;

typedef struct stage {
    kit k;
    actor actors[ACTORS];
    sem_t back; /* to who chooses */
    bool ending;
    int readers, writers, computing;
    const char *wrong;
    /* choices */
    int taken[DEPTH], options[DEPTH], depth, prefix;
    int stops, stops_max;
} stage;

static stage s;
static _Thread_local actor *self;

static void must(bool good, const char *what) {
    if (!good && s.wrong == NULL) {
        s.wrong = what;
    }
}

static void stop(void) {
    if (self != NULL) {
        sem_post(&s.back);
        while (sem_wait(&self->go) != 0) {
        }
    }
}

/* ---- where the store can be stopped ---- */

/* Each function is the store's way out of itself with no lock held. */
#define WRAPPED(type, name, parameters)                                                            \
    type real_##name parameters __asm__("__real_" #name);                                          \
    type wrap_##name parameters __asm__("__wrap_" #name);                                          \
    type wrap_##name parameters

WRAPPED(bool, cbi_parker_wait, (cbi_parker * parker, uint64_t deadline_ns)) {
    if (self == NULL) {
        return real_cbi_parker_wait(parker, deadline_ns);
    }
    self->waits = parker;
    stop();
    self->waits = NULL;
    return true;
}

WRAPPED(cb_status, cb_manager_acquire_storage,
        (cb_manager * manager, cb_mode mode, uint64_t bytes, const void *block, cb_error *err)) {
    stop();
    return real_cb_manager_acquire_storage(manager, mode, bytes, block, err);
}

WRAPPED(void, cbi_contents_free, (cbi_home * home, cbi_contents *contents)) {
    stop();
    real_cbi_contents_free(home, contents);
}

WRAPPED(cb_status, cbi_index_node,
        (cbi_index * index, const char *name, cbi_node **node, cb_error *err)) {
    cb_status status = real_cbi_index_node(index, name, node, err);
    stop();
    return status;
}

static void listen(void *ctx, const cb_block_status *status) {
    (void)ctx;
    (void)status;
    stop();
}

/* ---- what tasks do ---- */

static void hold(actor *a, cb_status status, bool writing) {
    if (status != CB_OK) {
        must(status == CB_ENOTFOUND || status == CB_EBUDGET, "a lock was refused");
        return;
    }
    a->holding = true;
    a->writing = writing;
    *(writing ? &s.writers : &s.readers) += 1;
    must(s.writers <= 1 && (s.writers == 0 || s.readers == 0), "a writer is not alone");
}

static void let_go(actor *a) {
    if (a->holding) {
        must(a->ref.data == NULL || a->ref.data[BYTES - 1] == 7, "a held block has changed");
        *(a->writing ? &s.writers : &s.readers) -= 1;
        a->holding = false;
    }
}

static cb_status next_computed(void *ctx, void **record, cb_error *err) {
    stop();
    return kit_list_next(ctx, record, err);
}

static cb_status compute(void *ctx, const char *name, cb_record_source *source, cb_error *err) {
    actor *a = ctx;
    (void)name;
    (void)err;
    must(++s.computing == 1, "two compute the same");
    a->list = (kit_list){.kit = &s.k, .count = 2, .bytes = 200};
    *source = (cb_record_source){.next = next_computed, .ctx = &a->list};
    return CB_OK;
}

static void computed(void *ctx, cb_record_source *source) {
    (void)ctx;
    (void)source;
    s.computing--;
}

static void put(const actor *a, const char *name) {
    uint8_t data[BYTES];
    memset(data, 7, sizeof data);
    cb_status status = cb_blocks_put_bytes(s.k.blocks, a->task, name, CB_LEVEL_MEMORY_ONLY_SER,
                                           NULL, data, sizeof data, NULL, NULL);
    must(status == CB_OK || status == CB_EEXISTS || status == CB_EBUDGET, "a put failed");
}

static void take(actor *a, step what) {
    cb_blocks *b = s.k.blocks;
    const cb_block_lineage lineage = {.compute = compute, .close = computed, .ctx = a};
    switch (what) {
        case GET: hold(a, cb_blocks_get(b, a->task, "b", &a->ref, NULL), false); break;
        case WRITE:
            hold(a, cb_blocks_lock(b, a->task, "b", true, true, &a->ref, NULL), true);
            break;
        case COMPUTE:
            hold(a,
                 cb_blocks_get_or_compute(b, a->task, "b", CB_LEVEL_MEMORY_ONLY, &s.k.class,
                                          &lineage, &a->ref, NULL, NULL),
                 false);
            break;
        case RELEASE:
            if (a->holding) {
                let_go(a);
                cb_block_release(&a->ref);
            }
            break;
        case DOWNGRADE:
            if (a->holding) {
                s.writers--;
                s.readers++;
                a->writing = false;
                must(cb_block_downgrade(&a->ref, NULL) == CB_OK, "a downgrade failed");
            }
            break;
        case TASK_END:
            let_go(a);
            (void)cb_block_task_end(a->task);
            a->task = NULL;
            break;
        case REMOVE: {
            cb_status status = cb_blocks_remove(b, a->task, "b", NULL);
            must(status == CB_OK || status == CB_ENOTFOUND, "a removal failed");
            break;
        }
        case PUT: put(a, "b"); break;
        case PUT_OTHER: put(a, "other"); break;
        case END: break;
    }
}

static void *act(void *ctx) {
    actor *a = ctx;
    self = a;
    for (;;) {
        while (sem_wait(&a->go) != 0) {
        }
        if (s.ending) {
            return NULL;
        }
        for (const step *at = a->steps; *at != END; at++) {
            if (at != a->steps) {
                stop();
            }
            take(a, *at);
        }
        a->finished = true;
        sem_post(&s.back);
    }
}

/* ---- who goes on ---- */

static bool can_go(const actor *a) {
    return !a->finished &&
           (a->waits == NULL || atomic_load_explicit(&a->waits->word, memory_order_acquire) != 0);
}

/** Who is next: who went on last comes first, since stopping him costs. NULL: nobody can. */
static actor *choose(actor *last) {
    actor *enabled[ACTORS];
    int count = 0;
    bool goes_on = last != NULL && can_go(last);
    if (goes_on) {
        enabled[count++] = last;
    }
    for (int i = 0; i < ACTORS; i++) {
        if (&s.actors[i] != last && can_go(&s.actors[i])) {
            enabled[count++] = &s.actors[i];
        }
    }
    if (count == 0) {
        return NULL;
    }
    if (goes_on && s.stops == s.stops_max) {
        count = 1;
    }
    assert_true(s.depth < DEPTH);
    int choice = s.depth < s.prefix ? s.taken[s.depth] : 0;
    assert_true(choice < count); /* the same choices lead to the same place */
    s.taken[s.depth] = choice;
    s.options[s.depth++] = count;
    s.stops += goes_on && choice > 0;
    return enabled[choice];
}

/** With block b there or not; memory for two blocks. */
static void open_stage(const step steps[ACTORS][STEPS], bool there) {
    kit_open(&s.k, (kit_options){.heap = 2 * BYTES - 1, .rules = CB_RULES_SPARK, .unroll = 400});
    s.k.blocks->listener = NULL;
    if (there) {
        actor a = {.task = s.k.task};
        put(&a, "b");
    }
    s.k.blocks->listener = listen;
    for (int i = 0; i < ACTORS; i++) {
        actor *a = &s.actors[i];
        a->steps = steps[i];
        a->finished = a->holding = false;
        a->ref = (cb_block_ref){.block = NULL};
        assert_ok(cb_block_task_create(s.k.blocks, (uint64_t)i + 1, 0, &a->task, NULL));
    }
    s.readers = s.writers = s.computing = s.depth = s.stops = 0;
}

static void run_once(const step steps[ACTORS][STEPS], bool there) {
    open_stage(steps, there);
    for (actor *a = NULL; (a = choose(a)) != NULL && s.wrong == NULL;) {
        sem_post(&a->go);
        while (sem_wait(&s.back) != 0) {
        }
    }
    for (int i = 0; i < ACTORS && s.wrong == NULL; i++) {
        must(s.actors[i].finished, "some wait for each other for ever");
    }
    if (s.wrong != NULL) {
        for (int i = 0; i < s.depth; i++) {
            (void)fprintf(stderr, "%d ", s.taken[i]);
        }
        (void)fprintf(stderr, "\n%s after these choices\n", s.wrong);
        abort(); /* the others stand somewhere inside */
    }
    s.k.blocks->listener = NULL;
    for (int i = 0; i < ACTORS; i++) {
        let_go(&s.actors[i]);
        (void)cb_block_task_end(s.actors[i].task);
    }
    must(s.readers == 0 && s.writers == 0 && s.computing == 0, "something is held at the end");
    cb_status status = cb_blocks_remove(s.k.blocks, s.k.task, "b", NULL);
    must(status == CB_OK || status == CB_ENOTFOUND, "a lock was left behind");
    kit_close(&s.k);
}

/** Every order, or so many runs; answers whether it was every one. */
static bool explore(const step steps[ACTORS][STEPS], bool there, const char *what) {
    bool is_long = getenv("CARBIDE_TEST_LONG") != NULL;
    uint64_t runs = 0, most = is_long ? 20000 : 1500;
    s.stops_max = is_long ? 4 : 2;
    s.prefix = 0;
    for (;;) {
        run_once(steps, there);
        runs++;
        int at = s.depth;
        while (at > 0 && s.taken[at - 1] + 1 >= s.options[at - 1]) {
            at--;
        }
        if (at == 0 || runs == most) {
            (void)printf("%s: %llu orders, %s with up to %d stops\n", what,
                         (unsigned long long)runs, at == 0 ? "all" : "some", s.stops_max);
            return at == 0;
        }
        s.taken[at - 1]++;
        s.prefix = at;
    }
}

static int start(void **state) {
    (void)state;
    assert_int_equal(sem_init(&s.back, 0, 0), 0);
    for (int i = 0; i < ACTORS; i++) {
        assert_int_equal(sem_init(&s.actors[i].go, 0, 0), 0);
        assert_int_equal(pthread_create(&s.actors[i].thread, NULL, act, &s.actors[i]), 0);
    }
    return 0;
}

static int end(void **state) {
    (void)state;
    s.ending = true;
    for (int i = 0; i < ACTORS; i++) {
        sem_post(&s.actors[i].go);
        (void)pthread_join(s.actors[i].thread, NULL);
    }
    return 0;
}

static void test_locks__readers_and_writers(void **state) {
    static const step steps[ACTORS][STEPS] = {
        {GET, RELEASE, GET, RELEASE}, {WRITE, DOWNGRADE, RELEASE}, {GET, TASK_END}};
    (void)state;
    (void)explore(steps, true, "readers and a writer that downgrades");
}

static void test_locks__writers_and_a_task_that_ends(void **state) {
    static const step steps[ACTORS][STEPS] = {
        {WRITE, TASK_END}, {WRITE, RELEASE, GET, RELEASE}, {WRITE, DOWNGRADE, TASK_END}};
    (void)state;
    (void)explore(steps, true, "three writers, tasks that end");
}

static void test_locks__removal(void **state) {
    static const step steps[ACTORS][STEPS] = {
        {GET, RELEASE, PUT}, {REMOVE, GET, RELEASE}, {WRITE, RELEASE, REMOVE}};
    (void)state;
    (void)explore(steps, true, "readers, writers and removals");
}

static void test_locks__computing(void **state) {
    static const step steps[ACTORS][STEPS] = {{COMPUTE, RELEASE}, {COMPUTE, TASK_END}, {REMOVE}};
    (void)state;
    (void)explore(steps, false, "two compute and one removes");
}

static void test_locks__eviction(void **state) {
    static const step steps[ACTORS][STEPS] = {
        {GET, RELEASE, GET, RELEASE}, {PUT_OTHER}, {REMOVE, PUT}};
    (void)state;
    (void)explore(steps, true, "readers, an eviction and a removal");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_locks__readers_and_writers),
        cmocka_unit_test(test_locks__writers_and_a_task_that_ends),
        cmocka_unit_test(test_locks__removal),
        cmocka_unit_test(test_locks__computing),
        cmocka_unit_test(test_locks__eviction),
    };
    return cmocka_run_group_tests(tests, start, end);
}
