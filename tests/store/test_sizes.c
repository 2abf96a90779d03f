/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what sampled records are said to take is what Spark would say of objects of these sizes,
 * and few are asked. Method: beside a plain transcription of Spark's classes that asks all of them
 * again and again; tests/oracle/test_store.py compares with the classes themselves.
 */
#include "store/sizes.h"

#include <stdlib.h>
#include <string.h>

#include "store/block_kit.h"

enum { RECORDS = 5000 };

typedef struct world {
    uint64_t bytes[RECORDS];
    uint64_t added, asked;
} world;

static uint64_t ask(void *ctx, uint64_t number) {
    world *w = ctx;
    assert_true(number < w->added);
    w->asked++;
    return w->bytes[number];
}

static void fill(world *w, uint64_t seed, uint64_t most) {
    memset(w, 0, sizeof *w);
    for (int i = 0; i < RECORDS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        w->bytes[i] = (seed >> 33) % (most + (uint64_t)i);
    }
}

/* ---- Spark's, as plainly as can be ---- */

static int java_next_int(uint64_t *seed, int bound) {
    for (;;) {
        *seed = (*seed * 0x5DEECE66Du + 0xBu) & ((UINT64_C(1) << 48) - 1);
        int64_t u = (int64_t)(*seed >> 17);
        if ((bound & -bound) == bound) {
            return (int)((bound * u) >> 31);
        }
        int64_t r = u % bound;
        if (u - r + (bound - 1) <= INT32_MAX) {
            return (int)r;
        }
    }
}

/** SizeEstimator.visitArray, of an array with that many places of which `count` are filled. */
static uint64_t of_array(const world *w, int places, int count) {
    uint64_t sums[2] = {0};
    if (places <= 400) {
        for (int i = 0; i < count; i++) {
            sums[0] += w->bytes[i];
        }
        return sums[0];
    }
    bool *drawn = calloc((size_t)places, sizeof *drawn);
    assert_non_null(drawn);
    uint64_t seed = 42 ^ UINT64_C(0x5DEECE66D);
    for (int i = 0; i < 200; i++) {
        int at = 0;
        do {
            at = java_next_int(&seed, places);
        } while (drawn[at]);
        drawn[at] = true;
        sums[i / 100] += at < count ? w->bytes[at] : 0;
    }
    free(drawn);
    uint64_t least = sums[0] < sums[1] ? sums[0] : sums[1];
    return sums[0] + sums[1] - least + least * (uint64_t)((places - 100) / 100);
}

typedef struct tracker {
    int places, count;
    int64_t updates, next;
    struct {
        int64_t size, updates;
    } samples[2]; /* the last is [1] */
    int sample_count;
    double per_update;
} tracker;

static void sample(tracker *t, const world *w) {
    t->samples[0] = t->samples[1];
    t->samples[1].size = (int64_t)of_array(w, t->places, t->count);
    t->samples[1].updates = t->updates;
    t->sample_count++;
    double delta = t->sample_count < 2
                       ? 0
                       : (double)(t->samples[1].size - t->samples[0].size) /
                             (double)(t->samples[1].updates - t->samples[0].updates);
    t->per_update = delta > 0 ? delta : 0;
    t->next = (int64_t)((double)t->updates * 1.1);
    t->next += (double)t->next < (double)t->updates * 1.1;
}

static void reset(tracker *t, const world *w, int places) {
    t->places = places;
    t->updates = t->next = 1;
    t->sample_count = 0;
    sample(t, w);
}

static void add(tracker *t, const world *w) {
    if (t->count == t->places) {
        reset(t, w, 2 * t->places);
    }
    t->count++;
    if (++t->updates == t->next) {
        sample(t, w);
    }
}

static uint64_t estimate(const tracker *t) {
    double more = t->per_update * (double)(t->updates - t->samples[1].updates);
    return (uint64_t)((double)t->samples[1].size + more);
}

/* ---- both ---- */

static void test_sizes__are_those_of_sparks_tracker(void **state) {
    (void)state;
    static world w;
    static cbi_sizes sizes;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        tracker t = {0};
        fill(&w, seed, seed * 50);
        reset(&t, &w, 64);
        cbi_sizes_init(&sizes, ask, &w);
        for (int i = 0; i < RECORDS; i++) {
            assert_int_equal(cbi_sizes_estimate(&sizes), estimate(&t));
            w.added++;
            cbi_sizes_add(&sizes);
            add(&t, &w);
        }
        assert_int_equal(cbi_sizes_estimate(&sizes), estimate(&t));
        assert_int_equal(cbi_sizes_final(&sizes), of_array(&w, RECORDS, RECORDS));
    }
}

static void test_sizes__in_the_end_few_are_all_asked_and_many_are_not(void **state) {
    (void)state;
    static world w;
    static cbi_sizes sizes;
    static const int counts[] = {0, 1, 63, 64, 65, 256, 257, 399, 400, 401, 511, 512, 513, RECORDS};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        fill(&w, c + 9, 1000);
        cbi_sizes_init(&sizes, ask, &w);
        for (int i = 0; i < counts[c]; i++) {
            w.added++;
            cbi_sizes_add(&sizes);
        }
        assert_int_equal(cbi_sizes_final(&sizes), of_array(&w, counts[c], counts[c]));
        if (counts[c] <= 256) {
            assert_int_equal(w.asked, counts[c]); /* once each */
        }
    }
    assert_true(w.asked <
                256 + 200 * 6); /* of RECORDS: 200 each time the array grew, and at last */
}

static uint64_t counted_size(void *ctx, const void *record) {
    kit *k = ctx;
    k->reports++; /* nobody listens in this test */
    return ((const kit_record *)record)->bytes;
}

static void test_sizes__a_block_of_sampled_records_counts_for_what_they_take(void **state) {
    (void)state;
    enum { COUNT = 20000, BYTES = 50 };
    kit k;
    cb_block_status status;
    cb_block_rest *rest = NULL;
    kit_open(&k, (kit_options){.heap = 8 * CBI_MIB, .disk = true});
    k.class.sampled = true;
    k.class.size = counted_size;
    assert_ok(kit_put_records(&k, "some", CB_LEVEL_MEMORY_AND_DISK, COUNT, BYTES, NULL));
    assert_ok(cb_blocks_status(k.blocks, "some", &status, NULL));
    uint64_t lists = status.memory_bytes - (uint64_t)COUNT * BYTES;
    assert_true(lists > COUNT * sizeof(void *) && lists < COUNT * sizeof(void *) * 2);
    assert_int_equal(kit_storage(&k, CB_HEAP), status.memory_bytes);
    assert_true(k.reports < COUNT / 8);
    assert_int_equal(cb_block_task_unroll(k.task), 0);
    /* too much: what was unrolled comes back, and its memory with it */
    assert_status(kit_put_records(&k, "all", CB_LEVEL_MEMORY_ONLY, COUNT, 4096, &rest), CB_EBUDGET);
    assert_true(cb_block_task_unroll(k.task) > 0);
    void *record = NULL;
    for (uint32_t i = 0; i < COUNT; i++) {
        assert_ok(cb_block_rest_next(rest, &record, NULL));
        assert_int_equal(((kit_record *)record)->number, i);
        kit_destroy(&k, record);
    }
    assert_status(cb_block_rest_next(rest, &record, NULL), CB_EEND);
    assert_int_equal(cb_block_task_unroll(k.task), 0);
    cb_block_rest_close(rest);
    kit_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes__are_those_of_sparks_tracker),
        cmocka_unit_test(test_sizes__in_the_end_few_are_all_asked_and_many_are_not),
        cmocka_unit_test(test_sizes__a_block_of_sampled_records_counts_for_what_they_take),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
