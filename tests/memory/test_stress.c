/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: many threads, tasks, consumers, blocks and evictions at once neither hang nor lose a byte,
 * and never exceed the budget. Method: each thread is a task that does random things for a while;
 * some are cancelled or have deadlines; spill functions take from who holds; a watchdog ends a hang
 * with the memory tree. With CARBIDE_STRESS_SECONDS (or an argument) the 64 threads go on for that
 * long; otherwise it is over in a second or two.
 *
 * ctest-timeout: 120
 */
#include "memory_test.h"

#include <pthread.h>
#include <stdatomic.h>

#include "base/lock.h"

enum { THREADS_MAX = 64, PAGES = 6, WATCHDOG_SECONDS = 90 };

static uint64_t run_ns = 250000000, long_ns = 250000000;
static cb_manager *the_manager;

static cbi_parker all_done;

/** Ends the process when the tests do not. */
static void *watch(void *ctx) {
    const uint64_t *until = ctx;
    if (!cbi_parker_wait(&all_done, *until)) {
        static char tree[1 << 16];
        (void)cb_manager_tree(the_manager, tree, sizeof tree);
        (void)fputs(tree, stderr);
        abort();
    }
    return NULL;
}

/* ---- what a task holds ---- */

/** A consumer of bytes: whoever swaps bytes out of `held` releases them. */
typedef struct hoard {
    cb_consumer *consumer;
    _Atomic uint64_t held;
} hoard;

static uint64_t take_out(hoard *h, uint64_t most) {
    uint64_t held = atomic_load(&h->held);
    while (held > 0) {
        uint64_t part = held < most ? held : most;
        if (atomic_compare_exchange_weak(&h->held, &held, held - part)) {
            return part;
        }
    }
    return 0;
}

static int64_t spill_hoard(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)asker;
    hoard *h = ctx;
    uint64_t part = take_out(h, bytes);
    cb_consumer_release(h->consumer, part);
    return (int64_t)part;
}

/** A consumer of pages. A spill that finds its owner at work takes nothing. */
typedef struct shelf {
    cb_consumer *consumer;
    pthread_mutex_t lock;
    cb_page pages[PAGES];
} shelf;

static int64_t free_one(shelf *s) {
    for (int i = 0; i < PAGES; i++) {
        if (s->pages[i].number >= 0) {
            uint64_t used = s->pages[i].bytes;
            assert_int_equal(cb_page_data(&s->pages[i])[0], (uint8_t)i);
            assert_int_equal(cb_page_free(s->consumer, &s->pages[i], NULL), CB_OK);
            return (int64_t)used;
        }
    }
    return 0;
}

static int64_t spill_shelf(void *ctx, uint64_t bytes, cb_consumer *asker) {
    (void)bytes;
    (void)asker;
    shelf *s = ctx;
    if (pthread_mutex_trylock(&s->lock) != 0) {
        return 0;
    }
    int64_t freed = free_one(s);
    pthread_mutex_unlock(&s->lock);
    return freed;
}

typedef struct worker {
    pthread_t thread;
    cb_task *task;
    hoard hoards[2];
    shelf shelf;
    uint64_t random;
    uint64_t operations, refusals, cancelled, deadlines, failures;
    cb_status failure; /* the last of them */
} worker;

static uint64_t next_random(worker *w) {
    w->random ^= w->random << 13, w->random ^= w->random >> 7, w->random ^= w->random << 17;
    return w->random >> 11;
}

static void count(worker *w, cb_status status) {
    w->refusals += status == CB_EBUDGET;
    w->cancelled += status == CB_ECANCELED;
    w->deadlines += status == CB_EDEADLINE;
    if (status != CB_OK && status != CB_EBUDGET && status != CB_ECANCELED &&
        status != CB_EDEADLINE) {
        w->failures++;
        w->failure = status;
    }
}

static void acquire_bytes(worker *w, hoard *h, uint64_t bytes) {
    uint64_t granted = 0;
    cb_status status = cb_consumer_acquire(h->consumer, bytes, &granted, NULL);
    count(w, status);
    if (status == CB_OK) {
        atomic_fetch_add(&h->held, granted);
    }
}

static void add_page(worker *w, size_t bytes) {
    shelf *s = &w->shelf;
    cb_page page;
    /* Not under our lock: it may ask us to spill. */
    cb_status status =
        cb_page_alloc_least(s->consumer, w->operations % 2 == 0 ? bytes : 1, bytes, &page, NULL);
    count(w, status);
    if (status != CB_OK) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < PAGES; i++) {
        if (s->pages[i].number < 0) {
            cb_page_data(&page)[0] = (uint8_t)i;
            s->pages[i] = page;
            page.number = CB_PAGE_NONE;
            break;
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (page.number >= 0) {
        assert_int_equal(cb_page_free(s->consumer, &page, NULL), CB_OK);
    }
}

static void let_go(worker *w) {
    for (int i = 0; i < 2; i++) {
        cb_consumer_release(w->hoards[i].consumer, take_out(&w->hoards[i], UINT64_MAX));
    }
    pthread_mutex_lock(&w->shelf.lock);
    while (free_one(&w->shelf) > 0) {
    }
    pthread_mutex_unlock(&w->shelf.lock);
}

static void *work(void *ctx) {
    worker *w = ctx;
    uint64_t until = cbi_sys_clock_ns() + run_ns;
    while (cbi_sys_clock_ns() < until) {
        uint64_t r = next_random(w);
        hoard *h = &w->hoards[r & 1];
        switch ((r >> 1) % 8) {
            case 0:
            case 1: acquire_bytes(w, h, 1 + (r >> 8) % (64 * 1024)); break;
            case 2:
            case 3: cb_consumer_release(h->consumer, take_out(h, (r >> 8) % (64 * 1024))); break;
            case 4: add_page(w, (1 + (r >> 8) % 16) * 4096); break;
            case 5: (void)spill_shelf(&w->shelf, 0, NULL); break;
            case 6:
                if ((r >> 8) % 16 == 0) {
                    let_go(w);
                }
                break;
            default:
                if ((r >> 8) % 16 == 1) {
                    uint64_t released;
                    count(w, cb_consumer_spill(h->consumer, (r >> 16) % 4096, &released, NULL));
                }
                if ((r >> 8) % 64 == 0) {
                    cb_task_set_deadline(w->task,
                                         (r >> 16) % 2 == 0 ? 0 : cbi_sys_clock_ns() + 2000000);
                }
                break;
        }
        w->operations++;
    }
    let_go(w); /* while others may wait for us */
    return NULL;
}

/* ---- a store with anonymous blocks ---- */

typedef struct cellar {
    pthread_mutex_t lock;
    uint64_t stored, marked;
} cellar;

static uint64_t choose(void *ctx, cb_mode mode, uint64_t bytes, const void *block, void **victims) {
    (void)mode;
    (void)block;
    cellar *c = ctx;
    pthread_mutex_lock(&c->lock);
    uint64_t found = c->stored - c->marked >= bytes ? bytes : 0;
    c->marked += found;
    pthread_mutex_unlock(&c->lock);
    *victims = (void *)(uintptr_t)found;
    return found;
}

static uint64_t drop(void *ctx, void *victims) {
    cellar *c = ctx;
    uint64_t bytes = (uintptr_t)victims, dropped = bytes % 7 == 0 ? 0 : bytes; /* some drops fail */
    pthread_mutex_lock(&c->lock);
    c->marked -= bytes;
    c->stored -= dropped;
    pthread_mutex_unlock(&c->lock);
    return dropped;
}

static void undo(void *ctx, void *victims) {
    (void)ctx;
    (void)victims;
}

static cellar the_cellar = {.lock = PTHREAD_MUTEX_INITIALIZER};
static atomic_bool stop_storing;

static void *keep_storing(void *ctx) {
    uint64_t stored = 0;
    while (!stop_storing) {
        uint64_t bytes = 1000 + stored++ % 5000;
        if (cb_manager_acquire_storage(ctx, CB_OFF_HEAP, bytes, NULL, NULL) == CB_OK) {
            pthread_mutex_lock(&the_cellar.lock);
            the_cellar.stored += bytes;
            pthread_mutex_unlock(&the_cellar.lock);
        }
        if (stored % 3 == 0) {
            pthread_mutex_lock(&the_cellar.lock);
            uint64_t free_bytes = the_cellar.stored - the_cellar.marked;
            uint64_t part = free_bytes < 3000 ? free_bytes : 3000;
            the_cellar.stored -= part;
            pthread_mutex_unlock(&the_cellar.lock);
            cb_manager_release_storage(ctx, CB_OFF_HEAP, part);
        }
        cbi_sys_sleep_ns(20000);
    }
    return NULL;
}

/* ---- runs ---- */

static void prepare(worker *w, cb_task *task, size_t seed) {
    w->task = task;
    w->random = (seed + 1) * 0x9e3779b97f4a7c15u;
    for (int i = 0; i < 2; i++) {
        w->hoards[i].consumer = make_consumer_of(task, i == 0 ? "hoard" : "stiff", CB_OFF_HEAP,
                                                 i == 0 ? spill_hoard : NULL, &w->hoards[i]);
    }
    w->shelf.consumer = make_consumer_of(task, "shelf", CB_OFF_HEAP, spill_shelf, &w->shelf);
    pthread_mutex_init(&w->shelf.lock, NULL);
    for (int i = 0; i < PAGES; i++) {
        w->shelf.pages[i].number = CB_PAGE_NONE;
    }
}

/** `threads` threads for `tasks` tasks. */
static void run(size_t threads, size_t tasks, uint64_t budget, double storage_fraction) {
    cb_manager_options options = cb_manager_options_native(budget + tasks * 8 * KIB);
    options.storage_fraction = storage_fraction;
    cb_manager *m = the_manager = make_manager(&options);
    cb_store store = {.choose = choose, .drop = drop, .undo = undo, .ctx = &the_cellar};
    cb_manager_set_store(m, &store);
    the_cellar.stored = the_cellar.marked = 0;
    stop_storing = false;
    static worker workers[THREADS_MAX];
    memset(workers, 0, sizeof workers);
    cb_task *all[THREADS_MAX];
    for (size_t i = 0; i < tasks; i++) {
        all[i] = make_task(m, i);
    }
    for (size_t i = 0; i < threads; i++) {
        prepare(&workers[i], all[i % tasks], i);
    }
    pthread_t storing;
    assert_int_equal(pthread_create(&storing, NULL, keep_storing, m), 0);
    for (size_t i = 0; i < threads; i++) {
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
    }
    cbi_sys_sleep_ns(run_ns / 2);
    for (size_t i = 0; i < tasks; i += 4) {
        cb_task_cancel(all[i]);
    }
    uint64_t operations = 0, refusals = 0, deadlines = 0, cancelled = 0, failures = 0;
    for (size_t i = 0; i < threads; i++) { /* all of them, before anything is said of one */
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        operations += workers[i].operations;
        refusals += workers[i].refusals;
        deadlines += workers[i].deadlines;
        cancelled += workers[i].cancelled;
        failures += workers[i].failures;
        if (workers[i].failures > 0) {
            print_message("thread %zu: %llu times %s\n", i, (unsigned long long)workers[i].failures,
                          cb_status_name(workers[i].failure));
        }
    }
    stop_storing = true;
    assert_int_equal(pthread_join(storing, NULL), 0);
    print_message(
        "%zu threads, %zu tasks: %llu operations, %llu refused, %llu deadlines, %llu cancelled\n",
        threads, tasks, (unsigned long long)operations, (unsigned long long)refusals,
        (unsigned long long)deadlines, (unsigned long long)cancelled);
    assert_int_equal(failures, 0);
    for (size_t i = 0; i < tasks; i++) {
        char report[1024];
        assert_int_equal(cb_task_end(all[i], report, sizeof report), 0);
    }
    cb_manager_release_storage(m, CB_OFF_HEAP, the_cellar.stored);
    cb_pool_stats exec = pool_of(m, CB_EXECUTION, CB_OFF_HEAP),
                  stor = pool_of(m, CB_STORAGE, CB_OFF_HEAP);
    assert_int_equal(exec.used + exec.held + stor.used + stor.held, 0);
    assert_int_equal(exec.size + stor.size, budget + tasks * 8 * KIB);
    assert_true(cb_manager_accounted_peak(m) <= budget + tasks * 8 * KIB);
    assert_true(cb_manager_accounted_peak(m) > budget / 2);
    cb_manager_destroy(m);
}

static void test_many_tasks_share_little_memory(void **state) {
    (void)state;
    run(16, 16, MIB, 0);
}

static void test_tasks_and_blocks_share_memory(void **state) {
    (void)state;
    run(8, 8, MIB, 0.3);
}

static void test_threads_of_few_tasks_share_memory(void **state) {
    (void)state;
    run(12, 3, MIB, 0.2);
}

static void test_sixty_four_threads(void **state) {
    (void)state;
    run_ns = long_ns / 2;
    run(64, 64, 4 * MIB, 0.2);
    run(64, 16, 2 * MIB, 0.2); /* four threads of each task */
}

int main(int argc, char **argv) {
    const char *seconds = argc > 1 ? argv[1] : getenv("CARBIDE_STRESS_SECONDS");
    if (seconds != NULL) {
        long_ns = strtoull(seconds, NULL, 10) * 1000000000u;
    }
    uint64_t until = /* before the thread begins: the last test changes run_ns */
        cbi_sys_clock_ns() + 4 * run_ns + long_ns + WATCHDOG_SECONDS * (uint64_t)1000000000;
    pthread_t watchdog;
    if (pthread_create(&watchdog, NULL, watch, &until) != 0) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_tasks_share_little_memory),
        cmocka_unit_test(test_tasks_and_blocks_share_memory),
        cmocka_unit_test(test_threads_of_few_tasks_share_memory),
        cmocka_unit_test(test_sixty_four_threads),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cbi_parker_open(&all_done);
    pthread_join(watchdog, NULL);
    return failed;
}
