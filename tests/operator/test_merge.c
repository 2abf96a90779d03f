/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a merge brings out what a stable sort of everything would, whatever runs it comes from.
 * Method: rows are given numbers in input order, spread over builders and runs, merged, and
 * compared with the order by (key, number) that a counting sort of the keys gives.
 */
#include "operator/merge.h"
#include "operator_kit.h"

enum { KEYS = 300, ROW_BYTES_MAX = 9000 };

typedef struct input {
    uint32_t *keys; /* of row i, below KEYS */
    size_t count;
    bool giants;
} input;

/* The first 8 bytes are the same in all keys: prefixes say nothing. */
static size_t make_key(uint32_t key, uint8_t *bytes) {
    return (size_t)snprintf((char *)bytes, 32, "prefix--%06u", key);
}

static uint32_t make_row(const input *in, uint64_t number, uint8_t *row) {
    size_t bytes = 12 + number % 90;
    if (in->giants && number % 97 == 0)
        bytes = ROW_BYTES_MAX - number % 3000;
    memset(row, (int)(number & 0xff), bytes);
    cbi_store_u64(row, number);
    cbi_store_u32(row + 8, in->keys[number]);
    return (uint32_t)bytes;
}

static input make_input(size_t count, uint32_t distinct, bool giants, uint64_t seed) {
    input in = {.keys = malloc((count + 1) * sizeof(uint32_t)), .count = count, .giants = giants};
    assert_non_null(in.keys);
    kit_random r = {seed};
    for (size_t i = 0; i < count; i++)
        in.keys[i] = (uint32_t)kit_below(&r, distinct);
    return in;
}

/* What comes out is looked at row by row. */
typedef struct expectation {
    const input *in;
    uint32_t *numbers; /* in order */
    size_t count, at;
    size_t fail_at; /* this row is refused; 0 = none */
} expectation;

static expectation expect(const input *in, bool unique, bool inverted) {
    expectation e = {.in = in, .numbers = malloc((in->count + 1) * sizeof(uint32_t))};
    assert_non_null(e.numbers);
    for (uint32_t k = 0; k < KEYS; k++) {
        uint32_t key = inverted ? KEYS - 1 - k : k;
        for (size_t i = 0, n = 0; i < in->count; i++)
            if (in->keys[i] == key && (!unique || n++ == 0))
                e.numbers[e.count++] = (uint32_t)i;
    }
    return e;
}

static cb_status compare_row(void *ctx, const cbi_stored *row, cb_error *err) {
    expectation *e = ctx;
    static uint8_t want[ROW_BYTES_MAX];
    if (e->fail_at != 0 && e->at == e->fail_at)
        return cbi_fail(err, CB_EIO, "on purpose");
    assert_true(e->at < e->count);
    assert_int_equal(cbi_load_u64(row->row), e->numbers[e->at]);
    assert_int_equal(make_row(e->in, e->numbers[e->at], want), row->row_bytes);
    assert_memory_equal(row->row, want, row->row_bytes);
    e->at++;
    return CB_OK;
}

typedef struct mill {
    stage s;
    cbi_partitions *runs;
    cbi_layout layout;
    atomic_bool stop;
    cbi_run_source *sources;
    cbi_source **list;
    uint32_t *tree;
    uint32_t count;
} mill;

static void mill_open(mill *m, uint32_t count, size_t segments, bool inverted) {
    *m = (mill){.layout = kit_ordered, .count = count};
    m->layout.inverted = inverted;
    stage_open(&m->s, segments, 0);
    m->runs = stage_partitions(&m->s, count, &m->layout, 2);
    m->sources = calloc(count, sizeof *m->sources);
    m->list = calloc(count, sizeof *m->list);
    m->tree = calloc(count + 1, sizeof *m->tree);
    assert_non_null(m->sources);
    assert_non_null(m->list);
    assert_non_null(m->tree);
}

static void mill_close(mill *m) {
    for (uint32_t i = 0; i < m->count; i++)
        cbi_run_source_fini(&m->sources[i]);
    stage_close(&m->s, m->runs);
    free(m->sources);
    free(m->list);
    free(m->tree);
}

/* Row i goes to run i % count, or into a random one, through a builder that is flushed at the end.
 */
static void make_runs(mill *m, const input *in, bool unique, uint64_t seed) {
    static uint8_t row[ROW_BYTES_MAX], key[32];
    size_t bytes = in->count * 200 + 4096 + (in->giants ? in->count / 97 * ROW_BYTES_MAX : 0);
    uint8_t *memory = aligned_alloc(16, cbi_round_up(bytes, 16));
    assert_non_null(memory);
    for (uint32_t run = 0; run < m->count; run++) {
        cbi_builder b;
        kit_random r = {seed};
        cbi_builder_init(&b, &m->layout, memory, bytes);
        for (uint64_t i = 0; i < in->count; i++) {
            if (kit_below(&r, m->count) != run)
                continue;
            size_t key_bytes = make_key(in->keys[i], key);
            cbi_stored stored = kit_stored(key, key_bytes, row, make_row(in, i, row), i);
            assert_true(cbi_builder_add(&b, &stored));
        }
        cbi_builder_sort(&b);
        cbi_builder_sort(
            &b); /* the second time must be harmless: prefixes are not prefixes any more */
        assert_ok(cbi_builder_flush(&b, m->runs, run, unique, NULL));
        assert_int_equal(b.count, 0);
        cbi_run_source_init(&m->sources[run], m->runs, m->s.pool, &m->layout, run);
        m->list[run] = &m->sources[run].source;
    }
    free(memory);
}

static void merged(uint32_t count, size_t rows, uint32_t distinct, bool unique, bool giants,
                   bool inverted) {
    mill m;
    mill_open(&m, count, 40 + count * (giants ? 16 : 6), inverted);
    input in = make_input(rows, distinct, giants, count);
    expectation e = expect(&in, unique, inverted);
    make_runs(&m, &in, unique, rows);
    assert_ok(cbi_merge(m.list, count, m.tree, &m.layout, unique, &m.stop, compare_row, &e, NULL));
    assert_int_equal(e.at, e.count);
    free(in.keys);
    free(e.numbers);
    mill_close(&m);
}

static const uint32_t widths[] = {1, 2, 3, 5, 7, 64};
enum { WIDTHS = sizeof widths / sizeof *widths };

static void test_any_number_of_runs_merges_stably(void **state) {
    (void)state;
    for (size_t i = 0; i < WIDTHS; i++) {
        merged(widths[i], 6000, KEYS, false, false, false);
        merged(widths[i], 3000, KEYS, false, false, true);
        merged(widths[i], 3000, 1, false, false, false); /* all equal */
    }
}
static void test_unique_keeps_the_first_of_equal_keys_over_all_runs(void **state) {
    (void)state;
    for (size_t i = 0; i < WIDTHS; i++) {
        merged(widths[i], 6000, KEYS, true, false, false);
        merged(widths[i], 6000, 2, true, false, false); /* equals over many parts */
        merged(widths[i], 2000, 1, true, false, true);
    }
}
static void test_rows_of_many_segments_stay_readable_while_they_matter(void **state) {
    (void)state;
    for (size_t i = 0; i < WIDTHS; i++) {
        merged(widths[i], 5000, KEYS, false, true, false);
        merged(widths[i], 5000, 3, true, true, false);
    }
}
static void test_empty_runs_are_no_trouble(void **state) {
    (void)state;
    for (size_t i = 0; i < WIDTHS; i++) {
        merged(widths[i], 0, KEYS, false, false, false);
        merged(widths[i], 1, KEYS, true, false, false);
        merged(widths[i], 10, KEYS, false, false, false);
    }
    atomic_bool stop = false;
    assert_ok(cbi_merge(NULL, 0, NULL, &kit_ordered, false, &stop, compare_row, NULL, NULL));
}

static void test_refused_row_ends_the_merge_and_leaves_no_memory_taken(void **state) {
    (void)state;
    for (size_t fail_at = 1; fail_at < 3000; fail_at += 700) {
        mill m;
        mill_open(&m, 5, 70, false);
        input in = make_input(3000, KEYS, false, 1);
        expectation e = expect(&in, false, false);
        e.fail_at = fail_at;
        make_runs(&m, &in, false, 8);
        cb_error err;
        assert_status(
            cbi_merge(m.list, 5, m.tree, &m.layout, false, &m.stop, compare_row, &e, &err), CB_EIO);
        assert_int_equal(e.at, fail_at);
        free(in.keys);
        free(e.numbers);
        mill_close(&m); /* asserts that every segment came back */
    }
}

static void test_cancelled_merge_says_so(void **state) {
    (void)state;
    mill m;
    mill_open(&m, 3, 70, false);
    input in = make_input(3000, KEYS, false, 1);
    expectation e = expect(&in, false, false);
    make_runs(&m, &in, false, 8);
    atomic_store(&m.stop, true);
    assert_status(cbi_merge(m.list, 3, m.tree, &m.layout, false, &m.stop, compare_row, &e, NULL),
                  CB_ECANCELED);
    free(in.keys);
    free(e.numbers);
    mill_close(&m);
}

/* ---- builders ---- */

static void test_builders_merge_where_they_are(void **state) {
    (void)state;
    enum { BUILDERS = 3, BYTES = 1 << 19 };
    static uint8_t row[ROW_BYTES_MAX], key[32];
    for (unsigned unique = 0; unique < 2; unique++) {
        input in = make_input(9000, KEYS, false, 11);
        expectation e = expect(&in, unique != 0, false);
        cbi_builder builders[BUILDERS];
        cbi_builder_source sources[BUILDERS];
        cbi_source *list[BUILDERS];
        uint32_t tree[BUILDERS + 1];
        uint8_t *memory[BUILDERS];
        for (unsigned b = 0; b < BUILDERS; b++) {
            memory[b] = aligned_alloc(16, BYTES);
            assert_non_null(memory[b]);
            cbi_builder_init(&builders[b], &kit_ordered, memory[b], BYTES);
        }
        for (uint64_t i = 0; i < in.count; i++) {
            size_t key_bytes = make_key(in.keys[i], key);
            cbi_stored stored = kit_stored(key, key_bytes, row, make_row(&in, i, row), i);
            assert_true(cbi_builder_add(&builders[(i * 2654435761u >> 7) % BUILDERS], &stored));
        }
        for (unsigned b = 0; b < BUILDERS; b++) {
            cbi_builder_sort(&builders[b]);
            cbi_builder_source_init(&sources[b], &builders[b]);
            list[b] = &sources[b].source;
        }
        atomic_bool stop = false;
        assert_ok(cbi_merge(list, BUILDERS, tree, &kit_ordered, unique != 0, &stop, compare_row, &e,
                            NULL));
        assert_int_equal(e.at, e.count);
        for (unsigned b = 0; b < BUILDERS; b++)
            free(memory[b]);
        free(in.keys);
        free(e.numbers);
    }
}

static void test_full_builder_takes_nothing_more(void **state) {
    (void)state;
    uint8_t *memory = aligned_alloc(16, 1024);
    assert_non_null(memory);
    cbi_builder b;
    cbi_builder_init(&b, &kit_ordered, memory, 1024);
    cbi_stored row = kit_stored("k", 1, memory, 0, 0);
    size_t n = 0;
    while (cbi_builder_add(&b, &row))
        n++;
    assert_int_equal(n, 1024 / (cbi_stored_bytes(&kit_ordered, 1, 0) + sizeof(cbi_entry)));
    size_t used = b.used, count = b.count;
    assert_false(cbi_builder_add(&b, &row));
    assert_int_equal(b.used, used);
    assert_int_equal(b.count, count);
    cbi_builder_reset(&b);
    row = kit_stored("k", 1, memory, 2000, 0); /* never fits */
    assert_false(cbi_builder_add(&b, &row));
    assert_int_equal(b.count, 0);
    free(memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_runs_merges_stably),
        cmocka_unit_test(test_unique_keeps_the_first_of_equal_keys_over_all_runs),
        cmocka_unit_test(test_rows_of_many_segments_stay_readable_while_they_matter),
        cmocka_unit_test(test_empty_runs_are_no_trouble),
        cmocka_unit_test(test_refused_row_ends_the_merge_and_leaves_no_memory_taken),
        cmocka_unit_test(test_cancelled_merge_says_so),
        cmocka_unit_test(test_builders_merge_where_they_are),
        cmocka_unit_test(test_full_builder_takes_nothing_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
