/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: blocks in memory come, unroll and leave as in Spark's MemoryStore (the cases of its
 * MemoryStoreSuite and PartiallySerializedBlockSuite; docs/store-cases.md says which is which).
 * Method: the same sequences at budgets of a few thousand bytes, under Spark's rules; then a
 * million random operations beside a plain model of what the suite's subject does.
 */
#include "block_kit.h"

#define MEM CB_LEVEL_MEMORY_ONLY
#define SER CB_LEVEL_MEMORY_ONLY_SER

static const kit_options small = {
    .heap = 12000, .off_heap = 12000, .rules = CB_RULES_SPARK, .unroll = 512};

/* ---- unrolling ---- */

static void test_memory_store__unrolls_and_evicts_step_by_step(void **state) {
    const cb_level levels[] = {
        MEM, SER, CB_LEVEL(CB_LEVEL_IN_MEMORY | CB_LEVEL_IN_OFF_HEAP | CB_LEVEL_IS_DESERIALISED, 1),
        CB_LEVEL(CB_LEVEL_IN_MEMORY | CB_LEVEL_IN_OFF_HEAP, 1)};
    (void)state;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        kit k;
        cb_block_rest *rest = NULL;
        kit_open(&k, small);
        /* 40 records of 110 bytes: two blocks fit, a third does not */
        assert_ok(kit_put_records(&k, "b1", levels[i], 40, 110, &rest));
        assert_ok(kit_put_records(&k, "b2", levels[i], 40, 110, &rest));
        assert_int_equal(cb_block_task_unroll(k.task), 0);
        assert_ok(kit_put_records(&k, "b3", levels[i], 40, 110, &rest));
        assert_false(kit_exists(&k, "b1"));
        assert_true(kit_in_memory(&k, "b2"));
        assert_ok(kit_check_records(&k, "b3", 40, 110));
        assert_int_equal(cb_block_task_unroll(k.task), 0);
        /* a huge one kicks out b2 on its way, cannot go on, and is handed back */
        assert_status(kit_put_records(&k, "b4", levels[i], 40, 250, &rest), CB_EBUDGET);
        assert_false(kit_exists(&k, "b2"));
        assert_true(kit_in_memory(&k, "b3"));
        assert_false(kit_exists(&k, "b4"));
        assert_true(cb_block_task_unroll(k.task) > 0);
        kit_drain(&k, rest, 40);
        assert_int_equal(cb_block_task_unroll(k.task), 0);
        cb_block_rest_close(rest);
        kit_close(&k);
    }
}

static void test_memory_store__a_rest_that_is_closed_gives_its_memory_back(void **state) {
    (void)state;
    for (int as_bytes = 0; as_bytes < 2; as_bytes++) {
        kit k;
        cb_block_rest *rest = NULL;
        kit_open(&k, small);
        assert_status(kit_put_records(&k, "b", as_bytes ? SER : MEM, 40, 1000, &rest), CB_EBUDGET);
        assert_true(cb_block_task_unroll(k.task) > 0);
        assert_int_equal(kit_storage(&k, CB_HEAP), cb_block_task_unroll(k.task));
        cb_block_rest_close(rest);
        assert_int_equal(cb_block_task_unroll(k.task), 0);
        kit_close(&k);
    }
}

static void test_memory_store__unroll_memory_of_rests_adds_up_until_there_is_none(void **state) {
    (void)state;
    kit k;
    cb_block_rest *rests[5] = {NULL};
    uint64_t held[5] = {0};
    kit_open(&k, small);
    assert_ok(kit_put_records(&k, "rdd_1_1", MEM, 40, 110, NULL));
    assert_ok(kit_put_records(&k, "rdd_1_2", MEM, 40, 110, NULL));
    for (int i = 0; i < 5; i++) { /* kin: none may push the two out */
        char name[16];
        (void)snprintf(name, sizeof name, "rdd_1_%d", i + 3);
        assert_status(kit_put_records(&k, name, MEM, 40, 110, &rests[i]), CB_EBUDGET);
        held[i] = cb_block_task_unroll(k.task);
    }
    for (uint64_t i = 0; i < 5; i++) {
        assert_int_equal(held[i], i < 4 ? (i + 1) * 512 : 4 * 512);
    }
    assert_true(kit_in_memory(&k, "rdd_1_1") && kit_in_memory(&k, "rdd_1_2"));
    for (int i = 0; i < 5; i++) {
        cb_block_rest_close(rests[i]);
    }
    kit_close(&k);
}

static void test_memory_store__the_reservation_follows_the_rule(void **state) {
    (void)state;
    kit k;
    cb_block_rest *rest = NULL;
    kit_open(&k, small);
    /* Serialised records of 100 bytes and 8 of header. Looks at 1, 17, 33, ... records: 512 is
     * reserved; at 17 x 108 = 1836 another 1836 x 1.5 - 512; at 33 x 108 = 3564 another
     * 3564 x 1.5 - 2754; at 65 x 108 = 7020 (49 x 108 = 5292 is below 5346) 7020 x 1.5 - 5346 is
     * 5184, 10530 together; at 113 x 108 = 12204 the next is refused. */
    assert_status(kit_put_records(&k, "b", SER, 1000, 100, &rest), CB_EBUDGET);
    assert_int_equal(cb_block_task_unroll(k.task), 10530);
    kit_drain(&k, rest, 1000);
    cb_block_rest_close(rest);
    assert_ok(kit_put_records(&k, "c", SER, 65, 100, NULL));
    assert_int_equal(kit_storage(&k, CB_HEAP), 65 * 108); /* and no more when it is done */
    kit_close(&k);
}

static void test_memory_store__one_request_for_bytes_of_a_known_size(void **state) {
    (void)state;
    kit k;
    kit_open(&k, small);
    assert_status(kit_put(&k, "rdd_3_10", SER, 13000), CB_EBUDGET);
    assert_false(kit_exists(&k, "rdd_3_10"));
    assert_ok(kit_put(&k, "rdd_3_10", SER, 10000));
    assert_int_equal(kit_storage(&k, CB_HEAP), 10000);
    assert_ok(kit_check(&k, "rdd_3_10", 10000));
    assert_status(kit_put(&k, "rdd_3_11", SER, 10000), CB_EBUDGET); /* kin */
    assert_ok(kit_put(&k, "rdd_4_1", SER, 10000));
    assert_false(kit_exists(&k, "rdd_3_10"));
    assert_ok(kit_put(&k, "none", SER, 0));
    assert_ok(kit_check(&k, "none", 0));
    kit_close(&k);
}

/* ---- rests ---- */

typedef struct collected {
    uint8_t bytes[64 * 1024];
    size_t count;
} collected;

static cb_status collect(void *ctx, const void *bytes, size_t count, cb_error *err) {
    collected *c = ctx;
    (void)err;
    assert_true(c->count + count <= sizeof c->bytes);
    memcpy(c->bytes + c->count, bytes, count);
    c->count += count;
    return CB_OK;
}

static void test_memory_store__a_rest_is_read_or_written_once(void **state) {
    static collected out;
    (void)state;
    for (int as_bytes = 0; as_bytes < 2; as_bytes++) {
        const cb_byte_sink sink = {.write = collect, .ctx = &out};
        kit k;
        cb_block_rest *rest = NULL;
        void *record = NULL;
        kit_open(&k, small);
        out.count = 0;
        assert_status(kit_put_records(&k, "b", as_bytes ? SER : MEM, 40, 1000, &rest), CB_EBUDGET);
        assert_ok(cb_block_rest_write(rest, &sink, NULL));
        assert_int_equal(out.count, 40 * 1008);
        assert_int_equal(cb_block_task_unroll(k.task), 0);
        assert_int_equal(k.alive, 0);
        for (uint32_t i = 0; i < 40; i++) {
            const kit_record *r = (const void *)(out.bytes + (size_t)i * 1008);
            assert_int_equal(r->number, i);
            assert_int_equal(r->payload[999], (uint8_t)(i * 31 + 999));
        }
        assert_status(cb_block_rest_write(rest, &sink, NULL), CB_EMISUSE);
        assert_status(cb_block_rest_next(rest, &record, NULL), CB_EMISUSE);
        cb_block_rest_close(rest);
        assert_status(kit_put_records(&k, "b", as_bytes ? SER : MEM, 40, 1000, &rest), CB_EBUDGET);
        assert_ok(cb_block_rest_next(rest, &record, NULL));
        kit_destroy(&k, record);
        assert_status(cb_block_rest_write(rest, &sink, NULL), CB_EMISUSE);
        assert_int_equal(as_bytes, as_bytes);
        cb_block_rest_close(rest); /* the others are ended */
        assert_int_equal(k.alive, 0);
        kit_close(&k);
    }
}

static void test_memory_store__a_rest_of_nothing_and_of_all_but_nothing(void **state) {
    (void)state;
    for (uint32_t count = 0; count < 60; count += 12) {
        kit k;
        cb_block_rest *rest = NULL;
        kit_options o = small;
        o.unroll = 12001; /* refused before the first record */
        kit_open(&k, o);
        assert_status(kit_put_records(&k, "b", SER, count, 50, &rest), CB_EBUDGET);
        assert_int_equal(cb_block_task_unroll(k.task), 0);
        kit_drain(&k, rest, count);
        cb_block_rest_close(rest);
        kit_close(&k);
    }
}

typedef struct stream {
    size_t left, at;
} stream;

static cb_status read_stream(void *ctx, void *bytes, size_t count, size_t *got, cb_error *err) {
    stream *s = ctx;
    uint8_t *to = bytes;
    (void)err;
    if (s->left == 0) {
        return CB_EEND;
    }
    size_t part = count < 777 ? count : 777;
    part = part < s->left ? part : s->left;
    for (size_t i = 0; i < part; i++) {
        to[i] = (uint8_t)((s->at + i) * 7 + 'b');
    }
    s->at += part;
    s->left -= part;
    *got = part;
    return CB_OK;
}

static void test_memory_store__streams_unroll_too(void **state) {
    static collected out;
    (void)state;
    kit k;
    cb_block_rest *rest = NULL;
    kit_open(&k, small);
    stream s = {.left = 5000};
    cb_byte_source source = {.read = read_stream, .ctx = &s};
    assert_ok(cb_blocks_put_stream(k.blocks, k.task, "b", SER, NULL, &source, NULL, &rest, NULL));
    assert_ok(kit_check(&k, "b", 5000));
    assert_int_equal(kit_storage(&k, CB_HEAP), 5000);
    s = (stream){.left = 30000};
    assert_status(
        cb_blocks_put_stream(k.blocks, k.task, "bb", SER, NULL, &source, NULL, &rest, NULL),
        CB_EBUDGET);
    const cb_byte_sink sink = {.write = collect, .ctx = &out};
    void *record = NULL;
    assert_status(cb_block_rest_next(rest, &record, NULL), CB_EMISUSE);
    out.count = 0;
    assert_ok(cb_block_rest_write(rest, &sink, NULL));
    assert_int_equal(out.count, 30000);
    for (size_t i = 0; i < out.count; i++) {
        assert_int_equal(out.bytes[i], (uint8_t)(i * 7 + 'b'));
    }
    cb_block_rest_close(rest);
    kit_close(&k);
}

static void test_memory_store__a_source_or_writer_that_fails_leaves_nothing(void **state) {
    (void)state;
    kit k;
    cb_block_rest *rest = NULL;
    kit_open(&k, small);
    k.fail_writes = 1;
    assert_status(kit_put_records(&k, "b", SER, 10, 100, &rest), CB_EDATA);
    assert_null(rest);
    assert_false(kit_exists(&k, "b"));
    assert_int_equal(k.alive, 0);
    k.fail_writes = 0;
    assert_ok(kit_put_records(&k, "b", SER, 10, 100, &rest));
    kit_close(&k);
}

static void test_memory_store__records_are_destroyed_with_their_block(void **state) {
    (void)state;
    static const char *const names[] = {"someId", "rdd_1_0", "rdd_1_1"};
    kit k;
    uint64_t count = 0;
    kit_open(&k, small);
    for (unsigned i = 0; i < 3; i++) {
        assert_ok(kit_put_records(&k, names[i], MEM, 10, 40, NULL));
        assert_int_equal(k.alive, 10 * (i + 1));
    }
    assert_ok(cb_blocks_remove(k.blocks, k.task, names[0], NULL));
    assert_int_equal(k.alive, 20);
    assert_status(cb_blocks_remove(k.blocks, k.task, names[0], NULL), CB_ENOTFOUND);
    assert_int_equal(k.alive, 20);
    assert_ok(cb_blocks_remove_data_set(k.blocks, k.task, 1, &count, NULL));
    assert_int_equal(count, 2);
    assert_int_equal(k.alive, 0);
    assert_int_equal(kit_storage(&k, CB_HEAP), 0);
    assert_ok(kit_put_records(&k, names[0], MEM, 10, 40, NULL));
    kit_close(&k); /* clears it: nothing is alive and no byte is left */
}

static void test_memory_store__large_blocks_keep_their_bytes(void **state) {
    (void)state;
    kit k;
    kit_open(&k, (kit_options){.heap = 64 << 20, .off_heap = 64 << 20});
    const cb_level levels[] = {SER, CB_LEVEL(CB_LEVEL_IN_MEMORY | CB_LEVEL_IN_OFF_HEAP, 1), MEM};
    const char *const names[] = {"heap", "off", "records"};
    for (int i = 0; i < 3; i++) {
        assert_ok(kit_put_records(&k, names[i], levels[i], 3000, 3333, NULL));
        assert_ok(kit_check_records(&k, names[i], 3000, 3333));
    }
    assert_ok(kit_put(&k, "one", SER, 3 << 20));
    assert_ok(kit_check(&k, "one", 3 << 20));
    cb_blocks_stats stats;
    cb_blocks_stats_get(k.blocks, &stats);
    assert_int_equal(stats.memory_blocks, 4);
    assert_int_equal(kit_storage(&k, CB_HEAP) + kit_storage(&k, CB_OFF_HEAP), stats.memory_bytes);
    kit_close(&k);
}

/* ---- a million operations beside a model ---- */

enum { NAMES = 60, MODEL_BYTES = 100000, OPERATIONS = 1000000 };

/** Spark's MemoryStore for bytes, as plainly as it can be said: an array in order of use. */
typedef struct model {
    int order[NAMES], count;
    size_t bytes[NAMES]; /* 0: not there */
    int pins[NAMES];
    size_t used;
} model;

static int kin(int name) {
    return name / 12; /* five data sets; the last has none */
}

static void model_take(model *m, int name) {
    int i = 0;
    while (m->order[i] != name) {
        i++;
    }
    memmove(m->order + i, m->order + i + 1, (size_t)(--m->count - i) * sizeof *m->order);
}

static void model_remove(model *m, int name) {
    model_take(m, name);
    m->used -= m->bytes[name];
    m->bytes[name] = 0;
}

static bool model_put(model *m, int name, size_t bytes) {
    if (bytes > MODEL_BYTES) {
        return false;
    }
    size_t need = m->used + bytes > MODEL_BYTES ? m->used + bytes - MODEL_BYTES : 0, sum = 0;
    int victims[NAMES], count = 0;
    for (int i = 0; i < m->count && sum < need; i++) {
        int v = m->order[i];
        if (m->pins[v] == 0 && (kin(name) == 4 || kin(v) != kin(name))) {
            victims[count++] = v;
            sum += m->bytes[v];
        }
    }
    if (sum < need) {
        return false;
    }
    for (int i = 0; i < count; i++) {
        model_remove(m, victims[i]);
    }
    m->order[m->count++] = name;
    m->bytes[name] = bytes;
    m->used += bytes;
    return true;
}

static void model_name(int name, char text[32]) {
    if (kin(name) == 4) {
        (void)snprintf(text, 32, "broadcast_%d", name);
    } else {
        (void)snprintf(text, 32, "rdd_%d_%d", kin(name), name);
    }
}

static void test_memory_store__a_million_operations_beside_a_model(void **state) {
    static uint8_t data[120000];
    static cb_block_ref refs[NAMES][3];
    (void)state;
    kit k;
    model m = {.count = 0};
    uint64_t seed = 42, granted = 0, evicted = 0;
    kit_open(&k, (kit_options){.heap = MODEL_BYTES, .rules = CB_RULES_SPARK, .unroll = 512});
    for (int op = 0; op < OPERATIONS; op++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned r = (unsigned)(seed >> 33);
        int name = (int)(r % NAMES), what = (int)(r / NAMES % 16);
        char text[32];
        model_name(name, text);
        if (what < 8) {
            size_t bytes = 1 + (r >> 12) % (what == 0 ? 110000 : 9000);
            cb_status status =
                cb_blocks_put_bytes(k.blocks, k.task, text, SER, NULL, data, bytes, NULL, NULL);
            uint64_t before = (uint64_t)m.count;
            cb_status expected = m.bytes[name] > 0            ? CB_EEXISTS
                                 : model_put(&m, name, bytes) ? CB_OK
                                                              : CB_EBUDGET;
            assert_int_equal(status, expected);
            granted += status == CB_OK;
            evicted += status == CB_OK ? before + 1 - (uint64_t)m.count : 0;
        } else if (what < 13) {
            cb_block_ref *ref = &refs[name][m.pins[name] < 3 ? m.pins[name] : 2];
            if (m.pins[name] == 3) {
                continue;
            }
            cb_status status = cb_blocks_get(k.blocks, k.task, text, ref, NULL);
            assert_int_equal(status, m.bytes[name] > 0 ? CB_OK : CB_ENOTFOUND);
            if (status == CB_OK) {
                assert_int_equal(ref->bytes, m.bytes[name]);
                model_take(&m, name);
                m.order[m.count++] = name;
                if (what == 12) {
                    m.pins[name]++;
                } else {
                    cb_block_release(ref);
                }
            }
        } else if (what < 15) {
            if (m.pins[name] > 0) {
                cb_block_release(&refs[name][--m.pins[name]]);
            }
        } else if (m.pins[name] == 0) {
            cb_status status = cb_blocks_remove(k.blocks, k.task, text, NULL);
            assert_int_equal(status, m.bytes[name] > 0 ? CB_OK : CB_ENOTFOUND);
            if (status == CB_OK) {
                model_remove(&m, name);
            }
        }
        if (op % 64 == 0) {
            assert_int_equal(kit_storage(&k, CB_HEAP), m.used);
            for (int i = 0; i < NAMES; i++) {
                model_name(i, text);
                assert_int_equal(kit_in_memory(&k, text), m.bytes[i] > 0);
            }
        }
    }
    assert_true(granted > 1000 && evicted > 1000);
    kit_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_store__unrolls_and_evicts_step_by_step),
        cmocka_unit_test(test_memory_store__a_rest_that_is_closed_gives_its_memory_back),
        cmocka_unit_test(test_memory_store__unroll_memory_of_rests_adds_up_until_there_is_none),
        cmocka_unit_test(test_memory_store__the_reservation_follows_the_rule),
        cmocka_unit_test(test_memory_store__one_request_for_bytes_of_a_known_size),
        cmocka_unit_test(test_memory_store__a_rest_is_read_or_written_once),
        cmocka_unit_test(test_memory_store__a_rest_of_nothing_and_of_all_but_nothing),
        cmocka_unit_test(test_memory_store__streams_unroll_too),
        cmocka_unit_test(test_memory_store__a_source_or_writer_that_fails_leaves_nothing),
        cmocka_unit_test(test_memory_store__records_are_destroyed_with_their_block),
        cmocka_unit_test(test_memory_store__large_blocks_keep_their_bytes),
        cmocka_unit_test(test_memory_store__a_million_operations_beside_a_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
