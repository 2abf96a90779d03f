/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the store answers as Spark's BlockManager does on one machine (the cases of its suite that
 * need no network; docs/store-cases.md says which is which). Method: their sequences, small
 * budgets.
 */
#include "block_kit.h"

#include "base/sys.h"
#include "carbide/task.h"

#define SER CB_LEVEL_MEMORY_ONLY_SER
#define MEM CB_LEVEL_MEMORY_ONLY
#define BOTH CB_LEVEL_MEMORY_AND_DISK
#define BOTH_SER CB_LEVEL_MEMORY_AND_DISK_SER

static const kit_options room = {
    .heap = 12000, .off_heap = 12000, .rules = CB_RULES_SPARK, .disk = true, .unroll = 512};

/* ---- one manager and its listener ---- */

static void test_blocks__what_is_put_is_there_and_told(void **state) {
    (void)state;
    kit k;
    cb_block_status s;
    kit_open(&k, room);
    assert_ok(kit_put(&k, "a1", SER, 4000));
    assert_int_equal(k.reports, 1);
    assert_string_equal(k.last_name, "a1");
    assert_int_equal(k.last.level, CB_LEVEL_MEMORY_ONLY_SER);
    assert_int_equal(k.last.memory_bytes, 4000);
    assert_ok(kit_put(&k, "a2", CB_LEVEL_DISK_ONLY, 4000));
    assert_int_equal(k.last.level, CB_LEVEL_DISK_ONLY);
    assert_int_equal(k.last.memory_bytes, 0);
    assert_true(k.last.disk_bytes > 4000);
    assert_ok(cb_blocks_status(k.blocks, "a1", &s, NULL));
    assert_int_equal(s.level, CB_LEVEL_MEMORY_ONLY_SER);
    assert_status(cb_blocks_status(k.blocks, "a3", &s, NULL), CB_ENOTFOUND);
    assert_status(kit_put(&k, "a1", SER, 10), CB_EEXISTS); /* the old one stays */
    assert_ok(kit_check(&k, "a1", 4000));
    assert_ok(kit_check(&k, "a2", 4000));
    assert_ok(cb_blocks_remove(k.blocks, k.task, "a1", NULL));
    assert_int_equal(k.last.level, CB_LEVEL_NONE);
    assert_int_equal(kit_storage(&k, CB_HEAP), 0);
    kit_close(&k);
}

static void test_blocks__every_change_is_told_in_order(void **state) {
    (void)state;
    kit k;
    kit_open(&k, room);
    assert_ok(kit_put_records(&k, "a1", BOTH, 40, 200, NULL));
    assert_int_equal(k.last.level, CB_LEVEL_MEMORY_ONLY); /* where it lies, not what was asked */
    assert_ok(kit_put(&k, "a2", SER, 12000));             /* a1 to disk, then a2 */
    assert_int_equal(k.reports, 3);
    assert_string_equal(k.last_name, "a2");
    assert_status(kit_check(&k, "a3", 1), CB_ENOTFOUND);
    assert_int_equal(k.reports, 3);
    assert_ok(kit_check_records(&k, "a1", 40, 200)); /* a2 leaves, a1 is in both */
    assert_int_equal(k.reports, 5);
    assert_int_equal(k.gone, 1);
    assert_string_equal(k.last_name, "a1");
    assert_int_equal(k.last.level, CB_LEVEL_MEMORY_AND_DISK);
    assert_ok(cb_blocks_remove(k.blocks, k.task, "a1", NULL));
    assert_int_equal(k.gone, 2);
    assert_int_equal(k.reports, 6);
    kit_close(&k);
}

static void test_blocks__data_sets_and_broadcasts_go_together(void **state) {
    (void)state;
    kit k;
    uint64_t count = 0;
    kit_open(&k, (kit_options){.heap = 1 << 20, .disk = true});
    for (int i = 0; i < 300; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "rdd_%d_%d", i % 3, i);
        assert_ok(kit_put(&k, name, i % 2 ? SER : CB_LEVEL_DISK_ONLY, 100));
    }
    assert_ok(kit_put(&k, "nonrddblock", SER, 100));
    assert_ok(kit_put(&k, "broadcast_0", SER, 100));
    assert_ok(kit_put(&k, "broadcast_0_piece0", SER, 100));
    assert_ok(kit_put(&k, "broadcast_1_a", SER, 100));
    assert_ok(cb_blocks_remove_data_set(k.blocks, k.task, 1, &count, NULL));
    assert_int_equal(count, 100);
    assert_false(kit_exists(&k, "rdd_1_1"));
    assert_true(kit_exists(&k, "rdd_2_2"));
    assert_ok(cb_blocks_remove_broadcast(k.blocks, k.task, 0, &count, NULL));
    assert_int_equal(count, 2);
    assert_true(kit_exists(&k, "broadcast_1_a") && kit_exists(&k, "nonrddblock"));
    assert_ok(cb_blocks_remove_data_set(k.blocks, k.task, 7, &count, NULL));
    assert_int_equal(count, 0);
    kit_close(&k);
}

/* ---- least recently used ---- */

static void test_blocks__the_least_recently_used_leave(void **state) {
    const cb_level levels[] = {SER, CB_LEVEL(CB_LEVEL_IN_MEMORY | CB_LEVEL_IN_OFF_HEAP, 1)};
    (void)state;
    for (int i = 0; i < 2; i++) {
        kit k;
        kit_open(&k, room);
        assert_ok(kit_put(&k, "a1", levels[i], 4000));
        assert_ok(kit_put(&k, "a2", levels[i], 4000));
        assert_ok(kit_put(&k, "a3", levels[i], 4001));
        assert_false(kit_exists(&k, "a1"));
        assert_ok(kit_check(&k, "a2", 4000)); /* used: the newest now */
        assert_ok(kit_put(&k, "a1", levels[i], 4000));
        assert_true(kit_exists(&k, "a2"));
        assert_false(kit_exists(&k, "a3"));
        kit_close(&k);
    }
}

static void test_blocks__kin_do_not_push_each_other_out(void **state) {
    (void)state;
    kit k;
    kit_open(&k, room);
    assert_ok(kit_put(&k, "rdd_0_1", SER, 4000));
    assert_ok(kit_put(&k, "rdd_0_2", SER, 4000));
    assert_status(kit_put(&k, "rdd_0_3", SER, 4001), CB_EBUDGET);
    assert_true(kit_exists(&k, "rdd_0_1") && kit_exists(&k, "rdd_0_2"));
    /* of two data sets: the other one goes, used or not */
    assert_ok(kit_put(&k, "rdd_1_1", SER, 4000));
    assert_ok(kit_check(&k, "rdd_0_1", 4000));
    assert_ok(kit_put(&k, "rdd_1_2", SER, 4000));
    assert_false(kit_exists(&k, "rdd_0_2"));
    assert_ok(kit_put(&k, "rdd_1_3", SER, 4000));
    assert_false(kit_exists(&k, "rdd_0_1"));
    assert_status(kit_put(&k, "rdd_1_4", SER, 4000), CB_EBUDGET);
    /* without the rule that a new block of the same set could have pushed out a used one */
    assert_ok(kit_put(&k, "rdd_0_1", SER, 4000));
    assert_false(kit_exists(&k, "rdd_1_1"));
    kit_close(&k);
}

static void test_blocks__those_being_read_stay(void **state) {
    (void)state;
    kit k;
    cb_block_ref refs[2];
    kit_open(&k, room);
    assert_ok(kit_put(&k, "a1", SER, 4000));
    assert_ok(kit_put(&k, "a2", SER, 4000));
    assert_ok(cb_blocks_get(k.blocks, k.task, "a1", &refs[0], NULL));
    assert_ok(cb_blocks_get(k.blocks, k.task, "a1", &refs[1], NULL));
    assert_non_null(refs[0].data);
    assert_ok(kit_put(&k, "a3", SER, 8000));
    assert_true(kit_exists(&k, "a1"));
    assert_false(kit_exists(&k, "a2"));
    cb_block_release(&refs[0]);
    assert_status(kit_put(&k, "a4", SER, 12000), CB_EBUDGET);
    assert_true(kit_exists(&k, "a3")); /* nothing leaves in vain */
    cb_block_release(&refs[1]);
    assert_ok(kit_put(&k, "a4", SER, 12000));
    assert_false(kit_exists(&k, "a1"));
    kit_close(&k);
}

/* ---- memory and disk ---- */

static void test_blocks__levels_with_both_go_to_disk_and_come_back(void **state) {
    const cb_level levels[] = {BOTH, BOTH_SER, CB_LEVEL_OFF_HEAP};
    const cb_block_codec codecs[] = {CB_BLOCK_CODEC_NONE, CB_BLOCK_CODEC_LZ4, CB_BLOCK_CODEC_ZSTD};
    (void)state;
    for (int i = 0; i < 9; i++) {
        kit k;
        kit_options o = room;
        o.codec = codecs[i / 3];
        kit_open(&k, o);
        cb_level level = levels[i % 3];
        assert_ok(kit_put_records(&k, "a1", level, 40, 100, NULL));
        assert_ok(kit_put_records(&k, "a2", level, 40, 100, NULL));
        assert_ok(kit_put_records(&k, "a3", level, 40, 100, NULL));
        assert_false(kit_in_memory(&k, "a1"));
        assert_true(kit_on_disk(&k, "a1"));
        assert_false(kit_on_disk(&k, "a2"));
        assert_ok(kit_check_records(&k, "a1", 40, 100));
        assert_true(kit_in_memory(&k, "a1")); /* and a2 had to go for it */
        assert_false(kit_in_memory(&k, "a2"));
        assert_ok(kit_check_records(&k, "a2", 40, 100));
        assert_ok(kit_check_records(&k, "a3", 40, 100));
        cb_blocks_stats s;
        cb_blocks_stats_get(k.blocks, &s);
        assert_int_equal(s.promoted, 3);
        assert_int_equal(s.disk_blocks, 3); /* the files stay: they need not be written again */
        assert_int_equal(s.misses, 0);
        kit_close(&k);
    }
}

static void test_blocks__mixed_levels(void **state) {
    (void)state;
    kit k;
    kit_open(&k, room);
    assert_ok(kit_put(&k, "a1", SER, 4000));
    assert_ok(kit_put(&k, "a2", SER, 4000));
    assert_ok(kit_put(&k, "a3", CB_LEVEL_DISK_ONLY, 4000));
    assert_true(kit_exists(&k, "a1") && kit_exists(&k, "a2"));
    assert_ok(kit_check(&k, "a3", 4000));
    assert_false(kit_in_memory(&k, "a3"));
    assert_ok(kit_put(&k, "a4", BOTH_SER, 4001)); /* a1 goes for good */
    assert_false(kit_exists(&k, "a1"));
    assert_ok(kit_put(&k, "a5", SER, 8000)); /* a2 for good, a4 to disk */
    assert_false(kit_exists(&k, "a2"));
    assert_true(kit_on_disk(&k, "a4") && !kit_in_memory(&k, "a4"));
    assert_ok(kit_check(&k, "a4", 4001));
    kit_close(&k);
}

static void test_blocks__too_large_for_memory(void **state) {
    (void)state;
    kit k;
    kit_open(&k, room);
    assert_status(kit_put(&k, "a1", SER, 20000), CB_EBUDGET);
    assert_false(kit_exists(&k, "a1"));
    assert_ok(kit_put(&k, "a2", BOTH_SER, 20000));
    assert_true(kit_on_disk(&k, "a2"));
    assert_ok(kit_check(&k, "a2", 20000));
    assert_ok(kit_put_records(&k, "a3", BOTH, 40, 1000, NULL)); /* unrolled, refused, to disk */
    assert_int_equal(cb_block_task_unroll(k.task), 0);
    assert_false(kit_in_memory(&k, "a3"));
    assert_ok(kit_check_records(&k, "a3", 40, 1000));
    assert_ok(kit_put_records(&k, "a4", BOTH_SER, 40, 1000, NULL));
    assert_ok(kit_check_records(&k, "a4", 40, 1000));
    assert_ok(kit_put_records(&k, "a5", CB_LEVEL_DISK_ONLY, 40, 1000, NULL));
    assert_ok(kit_check_records(&k, "a5", 40, 1000));
    kit_close(&k);
}

static void test_blocks__compression_makes_files_smaller(void **state) {
    (void)state;
    uint64_t bytes[3];
    for (int i = 0; i < 3; i++) {
        kit k;
        kit_options o = room;
        o.codec = (cb_block_codec)i;
        kit_open(&k, o);
        assert_ok(kit_put(&k, "shuffle_0_0_0", CB_LEVEL_DISK_ONLY, 600000));
        assert_ok(kit_check(&k, "shuffle_0_0_0", 600000));
        bytes[i] = k.last.disk_bytes;
        kit_close(&k);
    }
    assert_true(bytes[0] > 600000);
    assert_true(bytes[1] < 100000 && bytes[2] < 100000);
}

static void test_blocks__records_and_bytes_are_the_same_block(void **state) {
    (void)state;
    kit k;
    cb_block_ref ref;
    cb_block_reader *reader = NULL;
    static uint8_t bytes[8000];
    size_t at = 0, got = 0;
    kit_open(&k, room);
    assert_ok(kit_put_records(&k, "values", MEM, 40, 100, NULL));
    assert_ok(cb_blocks_get(k.blocks, k.task, "values", &ref, NULL));
    assert_true(ref.deserialised);
    assert_null(ref.data);
    assert_ok(cb_block_reader_open(&ref, &reader, NULL));
    while (cb_block_reader_read(reader, bytes + at, 7, &got, NULL) == CB_OK) {
        at += got;
    }
    cb_block_reader_close(reader);
    cb_block_release(&ref);
    assert_int_equal(at, 40 * 108);
    /* and back: bytes stored at a deserialised level become records */
    assert_ok(cb_blocks_put_bytes(k.blocks, k.task, "again", MEM, &k.class, bytes, at, NULL, NULL));
    assert_ok(kit_check_records(&k, "again", 40, 100));
    assert_status(cb_blocks_put_bytes(k.blocks, k.task, "x", MEM, NULL, bytes, at, NULL, NULL),
                  CB_EINVAL);
    assert_status(cb_blocks_put_bytes(k.blocks, k.task, "", SER, NULL, bytes, at, NULL, NULL),
                  CB_EINVAL);
    assert_status(
        cb_blocks_put_bytes(k.blocks, k.task, "x", CB_LEVEL_NONE, NULL, bytes, at, NULL, NULL),
        CB_EINVAL);
    kit_close(&k);
}

/* ---- get or compute ---- */

typedef struct lineage {
    kit *k;
    kit_list list;
    _Atomic int computed, closed;
    bool has_checkpoint, fails;
    uint32_t count;
    uint64_t slow_ns;
} lineage;

static cb_status open_checkpoint(void *ctx, const char *name, cb_record_source *source,
                                 cb_error *err) {
    lineage *l = ctx;
    (void)err;
    (void)name;
    if (!l->has_checkpoint) {
        return CB_ENOTFOUND;
    }
    l->list = (kit_list){.kit = l->k, .count = l->count, .bytes = 100};
    *source = (cb_record_source){.next = kit_list_next, .ctx = &l->list};
    return CB_OK;
}

static cb_status compute(void *ctx, const char *name, cb_record_source *source, cb_error *err) {
    lineage *l = ctx;
    (void)err;
    (void)name;
    l->computed++;
    if (l->slow_ns > 0) {
        cbi_sys_sleep_ns(l->slow_ns);
    }
    if (l->fails) {
        return CB_EDATA;
    }
    l->list = (kit_list){.kit = l->k, .count = l->count, .bytes = 100};
    *source = (cb_record_source){.next = kit_list_next, .ctx = &l->list};
    return CB_OK;
}

static void close_source(void *ctx, cb_record_source *source) {
    lineage *l = ctx;
    (void)source;
    l->closed++;
}

static cb_status get_or_compute(lineage *l, cb_block_task *task, const char *name, cb_level level,
                                cb_block_ref *ref, cb_block_rest **rest) {
    const cb_block_lineage how = {
        .checkpoint = open_checkpoint, .compute = compute, .close = close_source, .ctx = l};
    return cb_blocks_get_or_compute(l->k->blocks, task, name, level, &l->k->class, &how, ref, rest,
                                    NULL);
}

static void test_blocks__what_is_gone_is_computed_again_or_taken_from_its_checkpoint(void **state) {
    (void)state;
    kit k;
    cb_block_ref ref;
    cb_block_rest *rest = NULL;
    kit_open(&k, room);
    lineage l = {.k = &k, .count = 40};
    assert_ok(get_or_compute(&l, k.task, "rdd_0_0", MEM, &ref, &rest));
    cb_block_release(&ref);
    assert_ok(get_or_compute(&l, k.task, "rdd_0_0", MEM, &ref, &rest));
    cb_block_release(&ref);
    assert_int_equal(l.computed, 1);
    assert_ok(cb_blocks_remove(k.blocks, k.task, "rdd_0_0", NULL));
    assert_ok(get_or_compute(&l, k.task, "rdd_0_0", MEM, &ref, &rest));
    cb_block_release(&ref);
    assert_int_equal(l.computed, 2);
    assert_ok(cb_blocks_remove(k.blocks, k.task, "rdd_0_0", NULL));
    l.has_checkpoint = true;
    assert_ok(get_or_compute(&l, k.task, "rdd_0_0", MEM, &ref, &rest));
    cb_block_release(&ref);
    assert_int_equal(l.computed, 2);
    assert_ok(kit_check_records(&k, "rdd_0_0", 40, 100));
    assert_int_equal(l.closed, 3);
    kit_close(&k);
}

static void test_blocks__what_cannot_be_stored_is_computed_all_the_same(void **state) {
    (void)state;
    kit k;
    cb_block_ref ref;
    cb_block_rest *rest = NULL;
    kit_open(&k, room);
    lineage l = {.k = &k, .count = 400};
    assert_status(get_or_compute(&l, k.task, "rdd_0_0", MEM, &ref, &rest), CB_EBUDGET);
    assert_false(kit_exists(&k, "rdd_0_0"));
    assert_int_equal(l.closed, 0);
    kit_drain(&k, rest, 400);
    cb_block_rest_close(rest);
    assert_int_equal(l.closed, 1);
    l.fails = true;
    assert_status(get_or_compute(&l, k.task, "rdd_0_0", MEM, &ref, &rest), CB_EDATA);
    assert_false(kit_exists(&k, "rdd_0_0"));
    assert_int_equal(l.closed, 1);
    kit_close(&k);
}

typedef struct asker {
    lineage *l;
    cb_status status;
} asker;

static void ask(void *ctx) {
    asker *a = ctx;
    cb_block_task *task = NULL;
    cb_block_ref ref;
    cb_block_rest *rest = NULL;
    assert_ok(cb_block_task_create(a->l->k->blocks, 1, 0, &task, NULL));
    a->status = get_or_compute(a->l, task, "rdd_0_0", BOTH, &ref, &rest);
    (void)cb_block_task_end(task);
}

static void test_blocks__computed_once_however_many_ask(void **state) {
    enum { ASKERS = 6 };
    (void)state;
    kit k;
    kit_open(&k, room);
    lineage l = {.k = &k, .count = 40, .slow_ns = 20000000};
    cbi_thread threads[ASKERS];
    asker askers[ASKERS];
    for (int i = 0; i < ASKERS; i++) {
        askers[i] = (asker){.l = &l};
        assert_ok(cbi_thread_start(&threads[i], ask, &askers[i], "asker", NULL));
    }
    for (int i = 0; i < ASKERS; i++) {
        cbi_thread_join(&threads[i]);
        assert_ok(askers[i].status);
    }
    assert_int_equal(l.computed, 1);
    assert_ok(kit_check_records(&k, "rdd_0_0", 40, 100));
    kit_close(&k);
}

/* ---- listing, statistics, budget ---- */

static bool count_them(void *ctx, const cb_block_status *status) {
    uint64_t *sums = ctx;
    sums[0]++;
    sums[1] += status->memory_bytes;
    sums[2] += status->disk_bytes;
    return sums[0] < sums[3];
}

static void test_blocks__lists_and_statistics_agree(void **state) {
    (void)state;
    kit k;
    cb_blocks_stats s;
    kit_open(&k, (kit_options){.heap = 1 << 20, .off_heap = 1 << 20, .disk = true});
    for (int i = 0; i < 900; i++) {
        const cb_level levels[] = {SER, CB_LEVEL_DISK_ONLY_2, CB_LEVEL_MEMORY_ONLY_SER_2,
                                   CB_LEVEL_OFF_HEAP};
        char name[32];
        (void)snprintf(name, sizeof name, "rdd_%d_%d", i % 7, i);
        assert_ok(kit_put(&k, name, levels[i % 4], 10 + (size_t)i % 90));
    }
    uint64_t sums[4] = {0, 0, 0, UINT64_MAX};
    assert_ok(cb_blocks_list(k.blocks, count_them, sums, NULL));
    cb_blocks_stats_get(k.blocks, &s);
    assert_int_equal(sums[0], 900);
    assert_int_equal(s.blocks, 900);
    assert_int_equal(sums[1], s.memory_bytes);
    assert_int_equal(sums[2], s.disk_bytes);
    assert_int_equal(s.memory_bytes, kit_storage(&k, CB_HEAP) + kit_storage(&k, CB_OFF_HEAP));
    assert_int_equal(s.memory_blocks + s.disk_blocks, 900);
    assert_int_equal(s.replicas_missing, 450); /* half of them at a level of two */
    uint64_t few[4] = {0, 0, 0, 5};
    assert_ok(cb_blocks_list(k.blocks, count_them, few, NULL));
    assert_int_equal(few[0], 5);
    uint64_t removed = 0;
    for (uint32_t set = 0; set < 7; set++) {
        uint64_t count = 0;
        assert_ok(cb_blocks_remove_data_set(k.blocks, k.task, set, &count, NULL));
        removed += count;
    }
    assert_int_equal(removed, 900);
    cb_blocks_stats_get(k.blocks, &s);
    assert_int_equal(s.blocks + s.memory_bytes + s.disk_bytes + s.replicas_missing, 0);
    kit_close(&k);
}

static void test_blocks__bookkeeping_is_small_and_in_the_budget(void **state) {
    enum { COUNT = 100000 };
    (void)state;
    kit k;
    cb_blocks_stats s;
    const uint64_t budget = 64 << 20;
    kit_open(&k, (kit_options){.heap = budget});
    uint64_t before = cb_manager_accounted(k.manager);
    for (int i = 0; i < COUNT; i++) {
        char name[32];
        uint8_t byte = 1;
        (void)snprintf(name, sizeof name, "rdd_1234567_%d", i);
        assert_ok(cb_blocks_put_bytes(k.blocks, k.task, name, SER, NULL, &byte, 1, NULL, NULL));
    }
    cb_blocks_stats_get(k.blocks, &s);
    assert_int_equal(s.blocks, COUNT);
    /* with the piece of memory that each byte lies in, of which 1 is not overhead */
    assert_in_range(s.overhead_bytes / COUNT, 100, 176);
    uint64_t accounted = cb_manager_accounted(k.manager) - before;
    assert_in_range(accounted, s.overhead_bytes + COUNT - (128 << 10),
                    s.overhead_bytes + COUNT + (128 << 10));
    kit_close(&k);
}

static void test_blocks__execution_takes_back_what_storage_borrowed(void **state) {
    (void)state;
    kit k;
    kit_open(&k, (kit_options){.heap = 1 << 20, .disk = true});
    for (int i = 0; i < 9; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "rdd_0_%d", i);
        assert_ok(kit_put(&k, name, BOTH_SER, 64 << 10));
    }
    /* a task wants the other half and a bit: blocks give way down to the region, not below */
    cb_task_options to = {.struct_size = sizeof to, .id = 1};
    cb_consumer_options co = {.struct_size = sizeof co, .mode = CB_HEAP, .name = "sort"};
    cb_task *task = NULL;
    cb_consumer *consumer = NULL;
    uint64_t granted = 0;
    assert_ok(cb_task_create(k.manager, &to, &task, NULL));
    assert_ok(cb_consumer_create(task, &co, &consumer, NULL));
    assert_ok(cb_consumer_acquire(consumer, 1 << 20, &granted, NULL));
    assert_true(granted > (256 << 10) && granted <= (512 << 10));
    assert_true(kit_storage(&k, CB_HEAP) <= (512 << 10));
    assert_true(kit_storage(&k, CB_HEAP) >= (448 << 10));
    for (int i = 0; i < 9; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "rdd_0_%d", i);
        assert_ok(kit_check(&k, name, 64 << 10));
    }
    (void)cb_task_end(task, NULL, 0);
    kit_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks__what_is_put_is_there_and_told),
        cmocka_unit_test(test_blocks__every_change_is_told_in_order),
        cmocka_unit_test(test_blocks__data_sets_and_broadcasts_go_together),
        cmocka_unit_test(test_blocks__the_least_recently_used_leave),
        cmocka_unit_test(test_blocks__kin_do_not_push_each_other_out),
        cmocka_unit_test(test_blocks__those_being_read_stay),
        cmocka_unit_test(test_blocks__levels_with_both_go_to_disk_and_come_back),
        cmocka_unit_test(test_blocks__mixed_levels),
        cmocka_unit_test(test_blocks__too_large_for_memory),
        cmocka_unit_test(test_blocks__compression_makes_files_smaller),
        cmocka_unit_test(test_blocks__records_and_bytes_are_the_same_block),
        cmocka_unit_test(test_blocks__what_is_gone_is_computed_again_or_taken_from_its_checkpoint),
        cmocka_unit_test(test_blocks__what_cannot_be_stored_is_computed_all_the_same),
        cmocka_unit_test(test_blocks__computed_once_however_many_ask),
        cmocka_unit_test(test_blocks__lists_and_statistics_agree),
        cmocka_unit_test(test_blocks__bookkeeping_is_small_and_in_the_budget),
        cmocka_unit_test(test_blocks__execution_takes_back_what_storage_borrowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
