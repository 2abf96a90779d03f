/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: rows that go into partitions come out of them once, whole and in order, however little
 * memory there is and however many threads bring them; and whatever fails, every segment is back in
 * the pool at the end. Method: a row's number says all of its bytes. Pools of a few dozen segments
 * hold a fraction of the rows.
 */
#include "operator_kit.h"

enum { PARTS = 12, ROW_MAX = 40000, THREADS = 4 };

/* ---- rows that are known by their number ---- */

static uint64_t mixed(uint64_t number) {
    kit_random r = {number};
    return kit_next(&r);
}

static uint32_t part_of(uint64_t number) {
    return (uint32_t)(mixed(number) % PARTS);
}

/* Mostly small, now and then empty but for its number, seldom many segments long. */
static uint32_t make_row(uint64_t number, bool giants, uint8_t *row) {
    uint64_t m = mixed(number) >> 8;
    size_t bytes = 8 + m % 200;
    if (m % 17 == 0)
        bytes = 8;
    if (giants && m % 101 == 0)
        bytes = 8 + m % (ROW_MAX - 8);
    cbi_store_u64(row, number);
    memset(row + 8, (int)(m & 0xff), bytes - 8);
    return (uint32_t)bytes;
}

typedef struct seen {
    uint8_t *times;
    uint64_t count, rows;
    bool giants, ordered;
    uint64_t last; /* number of the row before, with `ordered` */
} seen;

static void look_at(const cbi_layout *layout, const cbi_segment *list, uint32_t index, seen *s) {
    static uint8_t want[ROW_MAX];
    for (const cbi_segment *g = list; g != NULL; g = g->next) {
        const uint8_t *at = cbi_segment_payload((cbi_segment *)(uintptr_t)g), *end = at + g->used;
        while (at < end) {
            uint64_t order = cbi_load_u64(at);
            uint32_t rows = cbi_load_u32(at + 8);
            const uint8_t *piece_end = at + CBI_PIECE_HEADER_BYTES + cbi_load_u32(at + 12);
            at += CBI_PIECE_HEADER_BYTES;
            for (uint32_t i = 0; i < rows; i++) {
                cbi_stored row;
                at = cbi_stored_get(layout, at, &row);
                uint64_t number = cbi_load_u64(row.row);
                assert_true(number < s->count);
                assert_int_equal(s->times[number]++, 0);
                assert_int_equal(make_row(number, s->giants, want), row.row_bytes);
                assert_memory_equal(row.row, want, row.row_bytes);
                assert_int_equal(row.key_bytes, 4);
                assert_memory_equal(row.key, want, 4);
                if (s->ordered) {
                    assert_true(s->rows == 0 || number > s->last);
                    s->last = number;
                } else {
                    assert_int_equal(part_of(number), index);
                    assert_int_equal(order + i, number * 3 + 1);
                }
                s->rows++;
            }
            assert_ptr_equal(at, piece_end);
        }
        assert_ptr_equal(at, end);
    }
}

/* ---- threads that bring rows ---- */

typedef struct bringer {
    cbi_partitions *p;
    cb_segment_pool *pool;
    uint64_t from, to;
    bool giants, takes;
    cb_status status;
    cbi_thread thread;
} bringer;

static cb_status bring(bringer *b, uint8_t *row) {
    for (uint64_t n = b->from; n < b->to; n++) {
        uint32_t bytes = make_row(n, b->giants, row), which = 1;
        cbi_span rows[2] = {{0, 0}, {0, bytes}}, keys[2] = {{0, 0}, {0, 4}};
        cbi_group group = {.base = row,
                           .rows = rows,
                           .key_base = row,
                           .keys = keys,
                           .which = &which,
                           .count = 1,
                           .order = n * 3 + 1};
        CB_TRY(cbi_partition_append(b->p, part_of(n), &group, NULL));
        if (n % 64 == 0)
            CB_TRY(cbi_partitions_relieve(b->p, NULL));
        if (b->takes && n % 300 == 0) {
            void *base;
            size_t units = 2 + n % 14;
            CB_TRY(cbi_partitions_take(b->p, units, &base, NULL));
            memset(base, 0xee, units * KIT_SEGMENT);
            cb_segment_pool_give(b->pool, base, units);
        }
    }
    return CB_OK;
}

static void bring_all(void *ctx) {
    bringer *b = ctx;
    uint8_t *row = malloc(ROW_MAX);
    b->status = bring(b, row);
    free(row);
}

static cb_status bring_from_threads(stage *s, cbi_partitions *p, uint64_t count, bool giants,
                                    bool takes) {
    bringer all[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        all[i] = (bringer){.p = p,
                           .pool = s->pool,
                           .from = count * i / THREADS,
                           .to = count * (i + 1) / THREADS,
                           .giants = giants,
                           .takes = takes};
        assert_ok(cbi_thread_start(&all[i].thread, bring_all, &all[i], "bring", NULL));
    }
    cb_status status = CB_OK;
    for (unsigned i = 0; i < THREADS; i++) {
        cbi_thread_join(&all[i].thread);
        if (all[i].status != CB_OK)
            status = all[i].status;
    }
    return status;
}

static void read_parts(stage *s, cbi_partitions *p, uint32_t index, uint32_t depth, seen *sight) {
    assert_ok(cbi_partitions_make_room(p, index - 1, s->segments / 2, NULL));
    for (;;) {
        cbi_segment *list;
        assert_ok(cbi_partition_next_part(p, index, &list, NULL));
        if (list == NULL)
            break;
        if (depth > 0)
            assert_ok(cbi_partition_prefetch(p, index, depth, NULL));
        look_at(&kit_encoded, list, index, sight);
        cbi_segments_give(s->pool, list);
    }
    cbi_partition_drop(p, index);
}

/* As the sort does it: whole if it can be, otherwise in parts. */
static void read_whole(stage *s, cbi_partitions *p, uint32_t index, seen *sight) {
    cbi_partition_info info;
    cbi_partition_get_info(p, index, &info);
    if (info.segments > s->segments) { /* many half-filled segments had to leave */
        read_parts(s, p, index, 1, sight);
        return;
    }
    assert_ok(cbi_partitions_make_room(p, index, info.segments_out + 1, NULL));
    cb_status status = cbi_partition_load(p, index, NULL);
    if (sight->giants && status == CB_EAGAIN) { /* memory enough, but not in one piece */
        assert_ok(cbi_partition_unload(p, index, NULL));
        read_parts(s, p, index, 1, sight);
        return;
    }
    assert_ok(status);
    cbi_segment *list;
    assert_ok(cbi_partition_wait(p, index, &list, NULL));
    look_at(&kit_encoded, list, index, sight);
    cbi_partition_drop(p, index);
}

static void check_info(cbi_partitions *p, uint64_t count, bool giants) {
    static uint8_t row[ROW_MAX];
    uint64_t rows[PARTS] = {0}, bytes[PARTS] = {0};
    for (uint64_t n = 0; n < count; n++) {
        rows[part_of(n)]++;
        bytes[part_of(n)] += make_row(n, giants, row);
    }
    for (uint32_t i = 0; i < PARTS; i++) {
        cbi_partition_info info;
        cbi_partition_get_info(p, i, &info);
        assert_int_equal(info.rows, rows[i]);
        assert_int_equal(info.row_bytes, bytes[i]);
        assert_true(info.segments_out <= info.segments);
    }
}

static void all_come_back(size_t segments, size_t batch, uint64_t count, bool giants, bool takes,
                          unsigned parts) {
    stage s;
    stage_open(&s, segments, 0);
    cbi_partitions *p = stage_partitions(&s, PARTS, &kit_encoded, batch);
    assert_ok(bring_from_threads(&s, p, count, giants, takes));
    check_info(p, count, giants);
    seen sight = {.times = calloc(count, 1), .count = count, .giants = giants};
    assert_non_null(sight.times);
    for (uint32_t i = 0; i < PARTS; i++) {
        if (parts > 0 && i % 2 == 0)
            read_parts(&s, p, i, i % (parts + 1), &sight);
        else
            read_whole(&s, p, i, &sight);
    }
    assert_int_equal(sight.rows, count);
    free(sight.times);
    assert_ok(cbi_partitions_failure(p, NULL));
    stage_close(&s, p);
}

static void test_rows_come_back_once_without_a_disk(void **state) {
    (void)state;
    all_come_back(600, 8, 10000, false, false, 0);
}
static void test_rows_come_back_once_from_the_disk(void **state) {
    (void)state;
    all_come_back(64, 8, 20000, false, false, 0);
    all_come_back(64, 1, 5000, false, false, 0);
}
static void test_giant_rows_come_back_whole(void **state) {
    (void)state;
    all_come_back(300, 8, 8000, true, false, 0);
}
static void test_several_who_claim_contiguous_memory_all_get_it(void **state) {
    (void)state;
    all_come_back(128, 8, 20000, false, true, 0);
    all_come_back(300, 8, 8000, true, true, 0);
}
static void test_parts_bring_every_row_once(void **state) {
    (void)state;
    all_come_back(64, 4, 20000, false, false, 1);
    all_come_back(300, 8, 8000, true, false, 1);
    all_come_back(128, 4, 20000, false, false, 4);
}

static void test_unloaded_partition_is_read_in_parts(void **state) {
    (void)state;
    enum { COUNT = 6000 };
    stage s;
    stage_open(&s, 96, 0);
    cbi_partitions *p = stage_partitions(&s, PARTS, &kit_encoded, 4);
    assert_ok(bring_from_threads(&s, p, COUNT, false, false));
    seen sight = {.times = calloc(COUNT, 1), .count = COUNT};
    assert_non_null(sight.times);
    for (uint32_t i = 0; i < PARTS; i++) {
        cbi_partition_info before, after;
        assert_ok(cbi_partitions_make_room(p, i - 1, s.segments - 4, NULL));
        cbi_partition_get_info(p, i, &before);
        assert_ok(cbi_partition_load(p, i, NULL));
        assert_ok(cbi_partition_unload(p, i, NULL));
        cbi_partition_get_info(p, i, &after);
        assert_int_equal(after.segments_out, before.segments_out);
        read_parts(&s, p, i, 1, &sight);
    }
    assert_int_equal(sight.rows, COUNT);
    free(sight.times);
    stage_close(&s, p);
}

static void test_loading_without_memory_says_later(void **state) {
    (void)state;
    enum { COUNT = 6000 };
    stage s;
    stage_open(&s, 96, 0);
    cbi_partitions *p = stage_partitions(&s, PARTS, &kit_encoded, 4);
    assert_ok(bring_from_threads(&s, p, COUNT, false, false));
    assert_ok(cbi_partitions_make_room(p, UINT32_MAX, s.segments, NULL));
    size_t free_now = cb_segment_pool_free_count(s.pool), taken = 0;
    void *held[96];
    while (taken < free_now && (held[taken] = cb_segment_pool_take(s.pool, 1)) != NULL)
        taken++;
    assert_status(cbi_partition_load(p, 0, NULL), CB_EAGAIN);
    for (size_t i = 0; i < taken; i++)
        cb_segment_pool_give(s.pool, held[i], 1);
    seen sight = {.times = calloc(COUNT, 1), .count = COUNT};
    assert_non_null(sight.times);
    for (uint32_t i = 0; i < PARTS; i++)
        read_whole(&s, p, i, &sight);
    assert_int_equal(sight.rows, COUNT);
    free(sight.times);
    stage_close(&s, p);
}

/* ---- failures ---- */

static void test_full_disk_ends_every_thread_and_leaves_nothing(void **state) {
    (void)state;
    static const uint64_t limits[] = {64 * 1024, 256 * 1024, 1024 * 1024};
    for (size_t i = 0; i < 3; i++)
        for (unsigned takes = 0; takes < 2; takes++) {
            stage s;
            stage_open(&s, 64 + 64 * takes, limits[i]);
            cbi_partitions *p = stage_partitions(&s, PARTS, &kit_encoded, 4);
            assert_status(bring_from_threads(&s, p, 40000, false, takes != 0), CB_ENOSPC);
            cb_error err;
            assert_status(cbi_partitions_failure(p, &err), CB_ENOSPC);
            assert_int_equal(err.status, CB_ENOSPC);
            cbi_segment *list;
            assert_status(cbi_partition_wait(p, 0, &list, NULL), CB_ENOSPC);
            assert_status(cbi_partition_next_part(p, 0, &list, NULL), CB_ENOSPC);
            stage_close(&s, p);
        }
}

static void test_without_a_spill_memory_ends_with_a_refusal(void **state) {
    (void)state;
    stage s;
    stage_open(&s, 64, 0);
    cbi_spill *spill = s.spill;
    s.spill = NULL;
    cbi_partitions *p = stage_partitions(&s, PARTS, &kit_encoded, 4);
    assert_status(bring_from_threads(&s, p, 40000, false, false), CB_EBUDGET);
    s.spill = spill;
    stage_close(&s, p);
}

static void test_row_larger_than_the_pool_is_refused(void **state) {
    (void)state;
    stage s;
    stage_open(&s, 32, 0);
    cbi_partitions *p = stage_partitions(&s, PARTS, &kit_encoded, 4);
    void *base;
    cb_error err;
    assert_ok(bring_from_threads(&s, p, 3000, false, false));
    assert_status(cbi_partitions_take(p, 33, &base, &err), CB_EBUDGET);
    assert_int_equal(err.bytes_asked, 33 * KIT_SEGMENT);
    assert_ok(cbi_partitions_take(p, 32, &base, NULL)); /* everything leaves for it */
    cb_segment_pool_give(s.pool, base, 32);
    stage_close(&s, p);
}

static void test_cancelled_ones_do_not_wait(void **state) {
    (void)state;
    stage s;
    stage_open(&s, 64, 0);
    cbi_partitions *p = stage_partitions(&s, PARTS, &kit_encoded, 4);
    assert_ok(bring_from_threads(&s, p, 5000, false, false));
    atomic_store(&s.stop, true);
    void *base;
    cbi_segment *list;
    assert_status(cbi_partitions_take(p, 40, &base, NULL), CB_ECANCELED);
    assert_status(cbi_partition_wait(p, 0, &list, NULL), CB_ECANCELED);
    assert_status(cbi_partition_load(p, 0, NULL), CB_ECANCELED);
    assert_status(cbi_partition_next_part(p, 0, &list, NULL), CB_ECANCELED);
    assert_status(bring_from_threads(&s, p, 40000, false, true), CB_ECANCELED);
    stage_close(&s, p);
}

/* ---- runs ---- */

static void put_run(cbi_partitions *p, uint32_t run, uint64_t first, uint64_t count, uint64_t step,
                    bool giants) {
    static uint8_t row[ROW_MAX];
    for (uint64_t n = first; n < count; n += step) {
        uint32_t bytes = make_row(n, giants, row);
        cbi_stored stored = kit_stored(row, 4, row, bytes, n);
        assert_ok(cbi_partition_put(p, run, &stored, NULL));
    }
    assert_ok(cbi_partition_put_end(p, run, NULL));
}

static void get_run(stage *s, cbi_partitions *p, uint32_t run, seen *sight) {
    for (;;) {
        cbi_segment *list;
        assert_ok(cbi_partition_next_part(p, run, &list, NULL));
        if (list == NULL)
            break;
        assert_ok(cbi_partition_prefetch(p, run, 1, NULL));
        look_at(&kit_ordered, list, run, sight);
        cbi_segments_give(s->pool, list);
    }
    cbi_partition_reset(p, run);
}

static void test_runs_come_back_in_order_and_slots_are_used_again(void **state) {
    (void)state;
    enum { RUNS = 3, COUNT = 12000 };
    for (unsigned giants = 0; giants < 2; giants++) {
        stage s;
        stage_open(&s, giants ? 128 : 32, 0);
        cbi_partitions *p = stage_partitions(&s, RUNS, &kit_ordered, 4);
        for (unsigned round = 0; round < 3; round++) {
            seen sight = {
                .times = calloc(COUNT, 1), .count = COUNT, .giants = giants, .ordered = true};
            assert_non_null(sight.times);
            for (uint32_t run = 0; run < RUNS; run++)
                put_run(p, run, run, COUNT, RUNS, giants);
            uint64_t all = 0;
            for (uint32_t run = 0; run < RUNS; run++) {
                cbi_partition_info info;
                cbi_partition_get_info(p, run, &info);
                assert_int_equal(info.rows, COUNT / RUNS);
                sight.rows = 0;
                get_run(&s, p, run, &sight);
                all += sight.rows;
                cbi_partition_get_info(p, run, &info);
                assert_int_equal(info.rows + info.segments + info.pieces, 0);
            }
            assert_int_equal(all, COUNT);
            free(sight.times);
        }
        assert_int_equal(cb_segment_pool_free_count(s.pool), s.segments);
        stage_close(&s, p);
    }
}

static void test_empty_partitions_and_runs_are_empty(void **state) {
    (void)state;
    stage s;
    stage_open(&s, 32, 0);
    cbi_partitions *p = stage_partitions(&s, 2, &kit_ordered, 4);
    cbi_segment *list = (cbi_segment *)&s;
    assert_ok(cbi_partition_put_end(p, 0, NULL));
    assert_ok(cbi_partition_next_part(p, 0, &list, NULL));
    assert_null(list);
    assert_ok(cbi_partition_load(p, 1, NULL));
    list = (cbi_segment *)&s;
    assert_ok(cbi_partition_wait(p, 1, &list, NULL));
    assert_null(list);
    cbi_partition_drop(p, 1);
    cbi_partition_reset(p, 0);
    stage_close(&s, p);
    cbi_partitions_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_come_back_once_without_a_disk),
        cmocka_unit_test(test_rows_come_back_once_from_the_disk),
        cmocka_unit_test(test_giant_rows_come_back_whole),
        cmocka_unit_test(test_several_who_claim_contiguous_memory_all_get_it),
        cmocka_unit_test(test_parts_bring_every_row_once),
        cmocka_unit_test(test_unloaded_partition_is_read_in_parts),
        cmocka_unit_test(test_loading_without_memory_says_later),
        cmocka_unit_test(test_full_disk_ends_every_thread_and_leaves_nothing),
        cmocka_unit_test(test_without_a_spill_memory_ends_with_a_refusal),
        cmocka_unit_test(test_row_larger_than_the_pool_is_refused),
        cmocka_unit_test(test_cancelled_ones_do_not_wait),
        cmocka_unit_test(test_runs_come_back_in_order_and_slots_are_used_again),
        cmocka_unit_test(test_empty_partitions_and_runs_are_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
