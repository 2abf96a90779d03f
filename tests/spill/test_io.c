/* SPDX-License-Identifier: Apache-2.0 */
/* The queue and its threads, with work of the test's own. */
#include "batch.h"
#include "spill/io.h"

typedef struct scene {
    cbi_io *io;
    cbi_mutex lock;
    cbi_cond changed;
    bool open;          /* requests may go on */
    unsigned performed; /* and how many did */
    char order[256];    /* r, w */
    unsigned submitted_inside;
    cb_status last_inside;
    unsigned chores_left, chores_done;
    unsigned farewells, performing, performing_at_farewell;
} scene;

static void nothing_done(void *ctx, cb_status status, const cbi_extent *extent,
                         const cb_error *err) {
    (void)ctx;
    (void)status;
    (void)extent;
    (void)err;
}

static void perform(void *ctx, unsigned thread, const cbi_request *request) {
    scene *s = ctx;
    assert_true(thread < CBI_IO_THREADS_MAX);
    cbi_mutex_lock(&s->lock);
    s->performing++;
    while (!s->open) {
        cbi_cond_wait(&s->changed, &s->lock);
    }
    for (const cbi_request *r = request; r != NULL; r = r->next) {
        if (s->performed < sizeof s->order) {
            s->order[s->performed] = r->kind == CBI_IO_READ ? 'r' : r == request ? 'w' : '+';
        }
        s->performed++;
    }
    cbi_mutex_unlock(&s->lock);
    for (const cbi_request *r = request; r != NULL; r = r->next) {
        r->done(r->ctx, CB_OK, NULL, NULL);
    }
    cbi_mutex_lock(&s->lock);
    s->performing--;
    cbi_mutex_unlock(&s->lock);
}

static bool chore(void *ctx) {
    scene *s = ctx;
    cbi_mutex_lock(&s->lock);
    bool did = s->chores_left > 0;
    if (did) {
        s->chores_left--;
        s->chores_done++;
    }
    cbi_cond_broadcast(&s->changed);
    cbi_mutex_unlock(&s->lock);
    return did;
}

static void farewell(void *ctx) {
    scene *s = ctx;
    cbi_mutex_lock(&s->lock);
    s->farewells++;
    s->performing_at_farewell += s->performing;
    cbi_mutex_unlock(&s->lock);
}

static void scene_init(scene *s, unsigned threads, bool open) {
    memset(s, 0, sizeof *s);
    cbi_mutex_init(&s->lock, CBI_RANK_INNER);
    cbi_cond_init(&s->changed);
    s->open = open;
    s->io = calloc(1, sizeof *s->io);
    assert_non_null(s->io);
    cbi_io_work work = {.perform = perform, .chore = chore, .farewell = farewell, .ctx = s};
    assert_ok(cbi_io_init(s->io, threads, work, NULL));
}

static void scene_open(scene *s) {
    cbi_mutex_lock(&s->lock);
    s->open = true;
    cbi_cond_broadcast(&s->changed);
    cbi_mutex_unlock(&s->lock);
}

static void scene_fini(scene *s) {
    cbi_io_fini(s->io);
    free(s->io);
    cbi_cond_fini(&s->changed);
    cbi_mutex_fini(&s->lock);
}

static void submit(scene *s, cbi_io_kind kind) {
    cbi_request r = {.kind = kind, .done = nothing_done};
    assert_ok(cbi_io_submit(s->io, &r, NULL));
}

/* The first request is on the thread already when the others queue up. */
static void wait_performing(scene *s, unsigned count) {
    for (;;) {
        cbi_mutex_lock(&s->lock);
        bool there = s->performing == count;
        cbi_mutex_unlock(&s->lock);
        if (there) {
            return;
        }
        cbi_sys_sleep_ns(100000);
    }
}

static void test_everything_submitted_is_performed_before_the_end(void **state) {
    (void)state;
    for (unsigned threads = 1; threads <= CBI_IO_THREADS_MAX; threads++) {
        scene s;
        scene_init(&s, threads, true);
        for (unsigned i = 0; i < 500; i++) {
            submit(&s, i % 3 == 0 ? CBI_IO_READ : CBI_IO_WRITE);
        }
        scene_fini(&s);
        assert_int_equal(s.performed, 500);
        assert_int_equal(s.farewells, threads);
        assert_int_equal(s.performing_at_farewell, 0);
    }
}

static void test_reads_go_first_but_writes_do_not_starve(void **state) {
    (void)state;
    scene s;
    scene_init(&s, 1, false);
    submit(&s, CBI_IO_WRITE);
    wait_performing(&s, 1);
    for (unsigned i = 0; i < 3; i++) {
        submit(&s, CBI_IO_OUTPUT);
    }
    for (unsigned i = 0; i < 10; i++) {
        submit(&s, CBI_IO_READ);
    }
    scene_open(&s);
    scene_fini(&s);
    assert_int_equal(s.performed, 14);
    assert_memory_equal(s.order, "wrrrrwrrrrwrrw", 14);
}

static void submit_write(scene *s, size_t bytes, bool mergeable) {
    cbi_request r = {
        .kind = CBI_IO_WRITE, .bytes = bytes, .mergeable = mergeable, .done = nothing_done};
    assert_ok(cbi_io_submit(s->io, &r, NULL));
}

static void test_small_writes_that_wait_together_go_together(void **state) {
    (void)state;
    scene s;
    scene_init(&s, 1, false);
    submit_write(&s, 16384, true);
    wait_performing(&s, 1);
    for (unsigned i = 0; i < 3; i++) {
        submit_write(&s, 16384, true);
    }
    submit_write(&s, 16384, false);
    for (unsigned i = 0; i < 3; i++) {
        submit_write(&s, CBI_IO_MERGE_BYTES / 2, true);
    }
    submit(&s, CBI_IO_OUTPUT);
    submit(&s, CBI_IO_READ);
    scene_open(&s);
    scene_fini(&s);
    assert_memory_equal(s.order, "wrw++ww+ww", 10);
    assert_int_equal(s.performed, 10);
}

typedef struct filler {
    scene *scene;
    atomic_uint submitted;
} filler;

static void fill(void *ctx) {
    filler *f = ctx;
    for (unsigned i = 0; i < CBI_IO_DEPTH + 10; i++) {
        submit(f->scene, CBI_IO_WRITE);
        atomic_fetch_add(&f->submitted, 1);
    }
}

static void test_a_full_queue_makes_the_submitter_wait(void **state) {
    (void)state;
    scene s;
    scene_init(&s, 1, false);
    filler f = {.scene = &s};
    cbi_thread thread;
    assert_ok(cbi_thread_start(&thread, fill, &f, "fill", NULL));
    while (atomic_load(&f.submitted) < CBI_IO_DEPTH) {
        cbi_sys_sleep_ns(100000);
    }
    cbi_sys_sleep_ns(20000000);
    assert_int_equal(atomic_load(&f.submitted), CBI_IO_DEPTH);
    scene_open(&s);
    cbi_thread_join(&thread);
    scene_fini(&s);
    assert_int_equal(s.performed, CBI_IO_DEPTH + 10);
}

static void submit_more(void *ctx, cb_status status, const cbi_extent *extent,
                        const cb_error *err) {
    (void)status;
    (void)extent;
    (void)err;
    scene *s = ctx;
    cbi_request r = {.kind = CBI_IO_READ, .done = nothing_done};
    for (;;) { /* until the reserve is used up, too */
        cb_status result = cbi_io_submit(s->io, &r, NULL);
        if (result != CB_OK) {
            s->last_inside = result;
            return;
        }
        s->submitted_inside++;
    }
}

static void test_a_callback_may_submit_and_is_never_made_to_wait(void **state) {
    (void)state;
    scene s;
    scene_init(&s, 1, false);
    cbi_request r = {.kind = CBI_IO_WRITE, .done = submit_more, .ctx = &s};
    assert_ok(cbi_io_submit(s.io, &r, NULL));
    wait_performing(&s, 1);
    for (unsigned i = 1; i < CBI_IO_DEPTH; i++) {
        submit(&s, CBI_IO_WRITE); /* full now */
    }
    scene_open(&s);
    scene_fini(&s);
    assert_status(s.last_inside, CB_EAGAIN);
    assert_int_equal(s.submitted_inside, CBI_IO_RESERVE);
    assert_int_equal(s.performed, CBI_IO_DEPTH + CBI_IO_RESERVE);
}

static void test_chores_are_done_in_quiet_moments(void **state) {
    (void)state;
    scene s;
    scene_init(&s, 2, true);
    cbi_mutex_lock(&s.lock);
    s.chores_left = 5;
    cbi_mutex_unlock(&s.lock);
    cbi_io_wake(s.io);
    cbi_mutex_lock(&s.lock);
    while (s.chores_done < 5) {
        cbi_cond_wait(&s.changed, &s.lock);
    }
    cbi_mutex_unlock(&s.lock);
    scene_fini(&s);
}

static void hammer(void *ctx) {
    scene *s = ctx;
    for (unsigned i = 0; i < 3000; i++) {
        submit(s, (cbi_io_kind)(i % 3));
        if (i % 50 == 0) {
            cbi_io_wake(s->io);
        }
    }
}

static void test_many_threads_at_once(void **state) {
    (void)state;
    scene s;
    scene_init(&s, 4, true);
    cbi_thread threads[6];
    for (unsigned i = 0; i < 6; i++) {
        assert_ok(cbi_thread_start(&threads[i], hammer, &s, "hammer", NULL));
    }
    for (unsigned i = 0; i < 6; i++) {
        cbi_thread_join(&threads[i]);
    }
    scene_fini(&s);
    assert_int_equal(s.performed, 18000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everything_submitted_is_performed_before_the_end),
        cmocka_unit_test(test_reads_go_first_but_writes_do_not_starve),
        cmocka_unit_test(test_small_writes_that_wait_together_go_together),
        cmocka_unit_test(test_a_full_queue_makes_the_submitter_wait),
        cmocka_unit_test(test_a_callback_may_submit_and_is_never_made_to_wait),
        cmocka_unit_test(test_chores_are_done_in_quiet_moments),
        cmocka_unit_test(test_many_threads_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
