/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/job.h"

#include "support/test.h"

/*
 * What workers do at the same time, and what becomes of those who run short: passes whose work is
 * to meet another worker, or to ask for memory.
 */

enum { PARTS = 8, THREADS = 2 };

typedef struct stand {
    cbi_job job;
    cbi_job_pass pass;
    cbi_mutex mutex; /* below */
    cbi_cond changed;
    unsigned inside, most; /* workers with a partition; the most of them at the same time */
    uint32_t among;        /* partitions that are waited in for another worker */
    size_t hold[PARTS];    /* segments that each asks for, one after another */
    size_t more[PARTS];
    unsigned holding, short_of, done;
} stand;

static void stand_open(stand *s) {
    const char *folder = test_folder();
    cb_job_options o = {.threads = THREADS,
                        .memory_bytes = 64 << 20,
                        .temp_dirs = &folder,
                        .temp_dir_count = 1,
                        .baseline_bytes = 8 << 20};
    cb_error err;
    *s = (stand){.most = 0};
    cbi_mutex_init(&s->mutex, CBI_RANK_DIVISION);
    cbi_cond_init(&s->changed);
    assert_ok(cbi_job_init(&s->job, &o, "test", &err));
    assert_ok(cbi_job_make_memory(&s->job, &err));
    s->job.demand = (cbi_job_demand){.stored_bytes = 1e9,
                                     .row_bytes = 100,
                                     .record_bytes = 100,
                                     .work_factor = 1,
                                     .result_factor = 1};
    assert_ok(cbi_job_size(&s->job, &err));
    assert_ok(cbi_job_make_ready(&s->job, &err));
    assert_int_equal(s->job.sizes.threads, THREADS);
    assert_ok(cbi_job_open_partitions(&s->job, PARTS, &s->job.parts, &err));
    assert_ok(cbi_job_open_partitions(&s->job, PARTS, &s->job.results, &err));
}

static void stand_close(stand *s) {
    cb_error err;
    cbi_job_end(&s->job, CB_OK, &err);
    cbi_job_fini(&s->job);
    cbi_cond_fini(&s->changed);
    cbi_mutex_fini(&s->mutex);
}

/* A record of so many bytes for a partition. */
static void put(stand *s, uint32_t index, size_t bytes) {
    cbi_job_worker *w = &s->job.workers[0];
    uint8_t *record = cbi_calloc(1, bytes + 64);
    assert_non_null(record);
    (void)cbi_record_put_key(record, (const uint8_t *)"key", 3, (uint32_t)bytes);
    cb_error err;
    (void)cbi_batch_init(&w->batch, w, s->job.parts, PARTS, w->scratch);
    assert_ok(cbi_batch_put(&w->batch, index, record, cbi_record_bytes(3, (uint32_t)bytes), &err));
    assert_ok(cbi_batch_flush(&w->batch, &err));
    cbi_free(record);
}

static bool fits_always(cbi_job *job, void *ctx, uint32_t index, const cbi_partition_info *info) {
    (void)job, (void)ctx, (void)index, (void)info;
    return true;
}

static cb_status never_alone(cbi_job_worker *w, void *ctx, uint32_t index, cb_error *err) {
    (void)w, (void)ctx;
    return cbi_fail(err, CB_EINVAL, "partition %u is worked on alone", index);
}

static cb_status run(stand *s, cb_status (*work)(cbi_job_worker *, void *, uint32_t, cbi_segment *,
                                                 cb_error *)) {
    cb_error err;
    s->pass = (cbi_job_pass){.parts = s->job.parts,
                             .count = PARTS,
                             .ctx = s,
                             .fits = fits_always,
                             .work = work,
                             .big = never_alone};
    return cbi_job_each(&s->job, &s->pass, s->job.results, PARTS, &err);
}

/* Until somebody changes something; long enough for a slow machine, should nobody come. */
static bool wait_for_change(stand *s) {
    return cbi_cond_wait_until(&s->changed, &s->mutex, cbi_sys_clock_ns() + UINT64_C(20000000000));
}

static cb_status meet(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                      cb_error *err) {
    (void)w, (void)list, (void)err;
    stand *s = ctx;
    cbi_mutex_lock(&s->mutex);
    s->inside++;
    s->most = s->inside > s->most ? s->inside : s->most;
    cbi_cond_broadcast(&s->changed);
    while (index < s->among && s->most < 2 && wait_for_change(s))
        ;
    s->inside--;
    cbi_mutex_unlock(&s->mutex);
    return CB_OK;
}

static size_t giant_bytes(const stand *s) {
    const cbi_job_sizes *z = &s->job.sizes;
    return (z->reserve / 2 + 1) * z->segment;
}

static void test_an_outlier_keeps_only_its_own_partition_alone(void **ctx) {
    (void)ctx;
    stand s;
    stand_open(&s);
    for (uint32_t i = 0; i < PARTS; i++)
        put(&s, i, i < PARTS - 1 ? 100 : giant_bytes(&s));
    s.among = 2;
    assert_ok(run(&s, meet));
    assert_int_equal(s.most, 2);
    stand_close(&s);
}

static void test_results_that_the_reserve_does_not_hold_are_made_one_by_one(void **ctx) {
    (void)ctx;
    stand s;
    stand_open(&s);
    for (uint32_t i = 0; i < PARTS; i++)
        put(&s, i, giant_bytes(&s));
    assert_ok(run(&s, meet));
    assert_int_equal(s.most, 1);
    stand_close(&s);
}

/** Both workers take what they hold before either goes on. */
static cb_status hold(stand *s, uint32_t index, void **held, cb_error *err) {
    cb_status status = cbi_partitions_take(s->job.results, s->hold[index], held, err);
    cbi_mutex_lock(&s->mutex);
    s->holding++;
    cbi_cond_broadcast(&s->changed);
    while (s->holding < 2 && wait_for_change(s))
        ;
    cbi_mutex_unlock(&s->mutex);
    return status;
}

/** Asks for more, if all was well so far, and gives all of it back. */
static cb_status ask_for_more(stand *s, uint32_t index, void *held, cb_status status,
                              cb_error *err) {
    void *more = NULL;
    if (status == CB_OK && s->more[index] > 0)
        status = cbi_partitions_take(s->job.results, s->more[index], &more, err);
    if (more != NULL)
        cb_segment_pool_give(s->job.ground.pool, more, s->more[index]);
    if (held != NULL)
        cb_segment_pool_give(s->job.ground.pool, held, s->hold[index]);
    cbi_mutex_lock(&s->mutex);
    s->done += status == CB_OK;
    cbi_mutex_unlock(&s->mutex);
    return status;
}

static cb_status ask(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                     cb_error *err) {
    (void)w, (void)list;
    stand *s = ctx;
    void *held = NULL;
    if (s->hold[index] == 0)
        return CB_OK;
    cb_status status = hold(s, index, &held, err);
    return ask_for_more(s, index, held, status, err);
}

/* What comes back does so before the one who is short sleeps, meanwhile or after: by chance. */
static void test_who_is_short_goes_on_when_another_is_done(void **ctx) {
    (void)ctx;
    for (int i = 0; i < 30; i++) {
        stand s;
        stand_open(&s);
        size_t all = s.job.sizes.segments;
        s.hold[0] = s.hold[1] = all / 2 - 1;
        s.more[i & 1] = all / 2 - 1 - (size_t)(i & 2);
        assert_ok(run(&s, ask));
        assert_int_equal(s.done, 2);
        stand_close(&s);
    }
}

/* Neither is done before the other one is; it is said instead of waited for. */
static void test_two_who_are_short_for_each_other_fail(void **ctx) {
    (void)ctx;
    stand s;
    stand_open(&s);
    size_t all = s.job.sizes.segments;
    s.hold[0] = s.hold[1] = all / 2 - 1;
    s.more[0] = s.more[1] = all / 4;
    assert_status(run(&s, ask), CB_EBUDGET);
    stand_close(&s);
}

/* Who has the turn waits for memory that only the one behind him can give. */
static cb_status take_turns(cbi_job_worker *w, void *ctx, uint32_t index, cbi_segment *list,
                            cb_error *err) {
    (void)list;
    stand *s = ctx;
    void *held = NULL;
    if (index > 1)
        return CB_OK;
    bool turn = index == 0 && cbi_job_take_turn(w->job);
    cb_status status = hold(s, index, &held, err);
    turn = (index == 1 && cbi_job_take_turn(w->job)) || turn;
    status = ask_for_more(s, index, held, status, err);
    if (turn)
        cbi_job_give_turn(w->job);
    return status;
}

static void test_a_turn_whose_owner_waits_for_memory_is_not_waited_for(void **ctx) {
    (void)ctx;
    stand s;
    stand_open(&s);
    size_t all = s.job.sizes.segments;
    s.hold[0] = s.hold[1] = all / 2 - 8;
    s.more[0] = all / 2;
    s.more[1] = 1;
    assert_ok(run(&s, take_turns));
    assert_int_equal(s.done, 2);
    stand_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_outlier_keeps_only_its_own_partition_alone),
        cmocka_unit_test(test_results_that_the_reserve_does_not_hold_are_made_one_by_one),
        cmocka_unit_test(test_who_is_short_goes_on_when_another_is_done),
        cmocka_unit_test(test_two_who_are_short_for_each_other_fail),
        cmocka_unit_test(test_a_turn_whose_owner_waits_for_memory_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
