/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a sort through its public interface does what a stable sort in memory does, by every road
 * (ranges, large ranges, runs of a stream, sorted inputs), in budgets that hold a fraction of the
 * rows; and says no, stops and tells as it promises. Method: rows "KEY,NUMBER,filler" whose right
 * order is known from an ordering of (key, place in the input).
 *
 * ctest-timeout: 300
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "operator_kit.h"

/* ---- rows and their right order ---- */

typedef struct line {
    const uint8_t *bytes;
    uint32_t count, key_bytes, place;
} line;

typedef struct corpus {
    kit_text text, want;
    line *lines;
    size_t count;
    const char *path;
} corpus;

enum { SIGN_ASCENDING = 1, SIGN_DESCENDING = -1 };
static int direction;

static int by_key_and_place(const void *a, const void *b) {
    const line *x = a, *y = b;
    size_t common = cbi_min(x->key_bytes, y->key_bytes);
    int c = common > 0 ? memcmp(x->bytes, y->bytes, common) : 0;
    if (c == 0)
        c = x->key_bytes < y->key_bytes ? -1 : x->key_bytes > y->key_bytes;
    if (c != 0)
        return direction * c;
    return x->place < y->place ? -1 : x->place > y->place;
}

typedef size_t (*make_key)(kit_random *r, size_t i, char *key);

static size_t shared_beginning(kit_random *r, size_t i, char *key) {
    (void)i;
    return (size_t)snprintf(key, 64, "id%010zu", kit_below(r, 20000));
}
static size_t three_keys(kit_random *r, size_t i, char *key) {
    (void)i;
    return (size_t)snprintf(key, 64, "key %zu", kit_below(r, 3));
}
static size_t one_key(kit_random *r, size_t i, char *key) {
    (void)r, (void)i;
    return (size_t)snprintf(key, 64, "0000");
}
static size_t any_key(kit_random *r, size_t i, char *key) {
    (void)i;
    return (size_t)snprintf(key, 64, "%zx", (size_t)kit_next(r) >> kit_below(r, 60));
}

/* `row_bytes`: the mean length of what follows the key. */
static corpus make_corpus(make_key key, size_t count, size_t row_bytes, const char *header) {
    corpus c = {.count = count};
    kit_random r = {count};
    size_t *starts = malloc((count + 1) * sizeof *starts);
    c.lines = malloc((count + 1) * sizeof *c.lines);
    assert_non_null(starts);
    assert_non_null(c.lines);
    kit_add_string(&c.text, header);
    for (size_t i = 0; i < count; i++) {
        char row[256];
        size_t key_bytes = key(&r, i, row);
        size_t n = key_bytes + (size_t)snprintf(row + key_bytes, 64, ",%zu,", i);
        starts[i] = c.text.count;
        c.lines[i] = (line){.key_bytes = (uint32_t)key_bytes, .place = (uint32_t)i};
        kit_add(&c.text, row, n);
        for (size_t k = kit_below(&r, 2 * row_bytes + 1); k > 0; k -= cbi_min(k, 100)) {
            memset(row, (int)('a' + i % 26), 100);
            kit_add(&c.text, row, cbi_min(k, 100));
        }
        c.lines[i].count = (uint32_t)(c.text.count - starts[i]);
        kit_add_byte(&c.text, '\n');
    }
    for (size_t i = 0; i < count; i++)
        c.lines[i].bytes = c.text.bytes + starts[i];
    free(starts);
    c.path = strdup(kit_write("in.csv", c.text.bytes, c.text.count));
    return c;
}

static void put_in_order(corpus *c, const char *header, bool unique, int sign) {
    direction = sign;
    qsort(c->lines, c->count, sizeof *c->lines, by_key_and_place);
    c->want.count = 0;
    kit_add_string(&c->want, header);
    for (size_t i = 0; i < c->count; i++) {
        const line *last = i > 0 ? &c->lines[i - 1] : NULL, *now = &c->lines[i];
        if (unique && last != NULL && last->key_bytes == now->key_bytes &&
            memcmp(last->bytes, now->bytes, now->key_bytes) == 0)
            continue;
        kit_add(&c->want, now->bytes, now->count);
        kit_add_byte(&c->want, '\n');
    }
}

static void corpus_free(corpus *c) {
    kit_free(&c->text);
    kit_free(&c->want);
    free(c->lines);
    free((void *)(uintptr_t)c->path);
}

/* ---- sorts ---- */

static const char *temp_folder, *out_folder;
static char out_path[TEST_PATH_MAX];

static int set_up(void **state) {
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    temp_folder = test_folder();
    out_folder = test_folder();
    test_path(out_path, out_folder, "out");
    return 0;
}

/* The tests' own memory does not count: budgets mean the same in all builds. */
static cb_sort_options options_for(const char *const *inputs, size_t count, uint64_t memory,
                                   unsigned threads) {
    return (cb_sort_options){.struct_size = sizeof(cb_sort_options),
                             .inputs = inputs,
                             .input_count = count,
                             .output = out_path,
                             .field_separator = -1,
                             .memory_bytes = memory,
                             .threads = threads,
                             .temp_dirs = &temp_folder,
                             .temp_dir_count = 1,
                             .baseline_bytes = CBI_MIB / 2};
}

static cb_status run(const cb_sort_options *options, cb_sort_stats *stats, cb_error *err) {
    cb_sort *sort = NULL;
    CB_TRY(cb_sort_create(options, &sort, err));
    cb_status status = cb_sort_run(sort, err);
    if (stats != NULL) {
        stats->struct_size = sizeof *stats;
        cb_sort_get_stats(sort, stats);
    }
    cb_sort_destroy(sort);
    assert_int_equal(kit_names_in(temp_folder), 0);
    return status;
}

static void assert_sorted(const char *what, const kit_text *want) {
    kit_text got = {0};
    got.bytes = (uint8_t *)test_read_file(out_path, &got.count);
    kit_same(&got, want, what);
    kit_free(&got);
    assert_int_equal(unlink(out_path), 0);
    assert_int_equal(kit_names_in(out_folder), 0);
}

#define assert_sort_ok(expression, err)                                                            \
    do {                                                                                           \
        if ((expression) != CB_OK)                                                                 \
            fail_msg("%s: %s", #expression, (err).message);                                        \
    } while (0)

static const char *const first_column[] = {"k"};
static const char header[] = "k,n,filler\n";

/* ---- a pipe that feeds a sort ---- */

typedef struct feeder {
    const char *path;
    const kit_text *text;
    cbi_thread thread;
} feeder;

static void feed(void *ctx) {
    feeder *f = ctx;
    int fd = open(f->path, O_WRONLY);
    for (size_t at = 0; fd >= 0 && at < f->text->count;) {
        size_t n = cbi_min(f->text->count - at, 300001);
        ssize_t done = write(fd, f->text->bytes + at, n);
        if (done <= 0)
            break;
        at += (size_t)done;
    }
    if (fd >= 0)
        close(fd);
}

static void feeder_start(feeder *f, const kit_text *text) {
    *f = (feeder){.path = strdup(kit_path("pipe.csv")), .text = text};
    (void)unlink(f->path);
    assert_int_equal(mkfifo(f->path, 0600), 0);
    assert_ok(cbi_thread_start(&f->thread, feed, f, "feeder", NULL));
}

static void feeder_end(feeder *f) {
    cbi_thread_join(&f->thread);
    free((void *)(uintptr_t)f->path);
}

/* ---- right order ---- */

static void by_every_road(make_key key, size_t count, size_t row_bytes, uint64_t memory,
                          bool unique, bool descending) {
    static const char *const down[] = {"k:desc"};
    corpus c = make_corpus(key, count, row_bytes, header);
    put_in_order(&c, header, unique, descending ? SIGN_DESCENDING : SIGN_ASCENDING);
    for (unsigned threads = 1; threads <= 4; threads += 3)
        for (unsigned pipe = 0; pipe < 2; pipe++) {
            feeder f;
            if (pipe)
                feeder_start(&f, &c.text);
            const char *input = pipe ? f.path : c.path;
            cb_sort_options options = options_for(&input, 1, memory, threads);
            options.keys = descending ? down : first_column;
            options.key_count = 1;
            options.unique = unique;
            cb_error err = {.message = ""};
            cb_sort_stats stats;
            assert_sort_ok(run(&options, &stats, &err), err);
            if (pipe)
                feeder_end(&f);
            assert_int_equal(stats.rows_in, count);
            assert_int_equal(stats.bytes_out, c.want.count);
            assert_true(stats.accounted_peak_bytes <= memory);
            if (c.text.count > 2 * memory)
                assert_true(stats.spilled_bytes > 0);
            char what[64];
            (void)snprintf(what, sizeof what, "%s, %u threads", pipe ? "pipe" : "file", threads);
            assert_sorted(what, &c.want);
        }
    corpus_free(&c);
}

static void test_rows_that_fit_in_memory(void **state) {
    (void)state;
    by_every_road(any_key, 20000, 40, 32 * CBI_MIB, false, false);
    by_every_road(any_key, 20000, 40, 32 * CBI_MIB, true, true);
}
/* Once a builder that had been ordered was ordered again by what ordering had left in its prefixes.
 */
static void test_keys_that_begin_alike_survive_being_spilled(void **state) {
    (void)state;
    by_every_road(shared_beginning, 160000, 60, 8 * CBI_MIB, false, false);
    by_every_road(shared_beginning, 120000, 60, 8 * CBI_MIB, false, true);
}
/* Once rows of ranges too large for memory lost their input order. */
static void test_equal_keys_stay_in_input_order_in_large_ranges(void **state) {
    (void)state;
    by_every_road(three_keys, 160000, 70, 6 * CBI_MIB, false, false);
    by_every_road(one_key, 160000, 70, 6 * CBI_MIB, false, false);
}
static void test_unique_rows_of_spilled_inputs_are_the_first_ones(void **state) {
    (void)state;
    by_every_road(shared_beginning, 120000, 60, 6 * CBI_MIB, true, false);
    by_every_road(three_keys, 120000, 60, 6 * CBI_MIB, true, false);
}
static void test_rows_of_many_lengths(void **state) {
    (void)state;
    by_every_road(any_key, 3000, 5000, 12 * CBI_MIB, false, false);
    by_every_road(any_key, 150000, 0, 6 * CBI_MIB, false, false);
}

/* Once a worker that wanted its builder's memory back after a merge waited for the merge of another
 * one, which waited for it: seconds a time, and in the end no memory. */
static void test_streams_of_many_runs_and_workers(void **state) {
    (void)state;
    corpus c = make_corpus(any_key, 200000, 100, header);
    put_in_order(&c, header, false, SIGN_ASCENDING);
    for (uint64_t memory = 10; memory <= 16; memory += 3) {
        feeder f;
        feeder_start(&f, &c.text);
        const char *input = f.path;
        cb_sort_options options = options_for(&input, 1, memory * CBI_MIB, 6);
        options.keys = first_column;
        options.key_count = 1;
        options.merge_width_max = 2;
        cb_error err = {.message = ""};
        cb_sort_stats stats;
        assert_sort_ok(run(&options, &stats, &err), err);
        feeder_end(&f);
        assert_int_equal(stats.passes, 2);
        assert_sorted("many runs", &c.want);
    }
    corpus_free(&c);
}

/* Once the sampler's buffer was doubled beyond its end when few spots had a whole row. */
static void test_rows_larger_than_any_sampled_spot(void **state) {
    (void)state;
    corpus c = make_corpus(any_key, 120, 200000, header);
    put_in_order(&c, header, false, SIGN_ASCENDING);
    for (uint64_t memory = 24; memory < 64; memory += 5) {
        const char *input = c.path;
        cb_sort_options options = options_for(&input, 1, memory * CBI_MIB, 1);
        options.keys = first_column;
        options.key_count = 1;
        cb_error err = {.message = ""};
        cb_status status = run(&options, NULL, &err);
        if (status == CB_EBUDGET)
            continue;
        assert_sort_ok(status, err);
        assert_sorted("long rows", &c.want);
    }
    corpus_free(&c);
}

static void test_nothing_one_row_and_only_a_header(void **state) {
    (void)state;
    static const char *const texts[] = {"", "k,n,filler\n", "k,n,filler", "k,n,filler\n1,2,3\n",
                                        "k,n,filler\n1,2,3"};
    static const char *const wants[] = {"", "k,n,filler\n", "k,n,filler\n", "k,n,filler\n1,2,3\n",
                                        "k,n,filler\n1,2,3\n"};
    for (unsigned i = 0; i < 5; i++)
        for (unsigned pipe = 0; pipe < 2; pipe++) {
            feeder f;
            kit_text text = {0}, want = {0};
            kit_add_string(&text, texts[i]);
            kit_add_string(&want, wants[i]);
            const char *input = kit_write("in.csv", text.bytes, text.count);
            if (pipe) {
                feeder_start(&f, &text);
                input = f.path;
            }
            cb_sort_options options = options_for(&input, 1, 16 * CBI_MIB, 2);
            cb_error err = {.message = ""};
            assert_sort_ok(run(&options, NULL, &err), err);
            if (pipe)
                feeder_end(&f);
            assert_sorted(texts[i], &want);
            kit_free(&text);
            kit_free(&want);
        }
}

static void test_fixed_records_by_a_slice(void **state) {
    (void)state;
    enum { COUNT = 200000, BYTES = 64 };
    static const char *const keys[] = {"str@0+10"};
    uint8_t *records = malloc((size_t)COUNT * BYTES);
    assert_non_null(records);
    kit_random r = {6};
    for (size_t i = 0; i < (size_t)COUNT * BYTES; i++)
        records[i] = (uint8_t)(kit_next(&r) % (i % BYTES < 10 ? 4 : 256));
    const char *input = kit_write("records", records, (size_t)COUNT * BYTES);
    cb_sort_options options = options_for(&input, 1, 8 * CBI_MIB, 2);
    options.format = CB_FORMAT_FIXED;
    options.record_bytes = BYTES;
    options.keys = keys;
    options.key_count = 1;
    cb_error err = {.message = ""};
    cb_sort_stats stats;
    assert_sort_ok(run(&options, &stats, &err), err);
    assert_true(stats.ranges > 0);
    size_t bytes;
    uint8_t *got = (uint8_t *)test_read_file(out_path, &bytes);
    assert_int_equal(bytes, (size_t)COUNT * BYTES);
    uint64_t sum = 0, sum_got = 0;
    for (size_t i = 0; i < COUNT; i++) {
        if (i > 0)
            assert_true(memcmp(got + (i - 1) * BYTES, got + i * BYTES, 10) <= 0);
        for (size_t k = 0; k < BYTES; k++) {
            sum += (uint64_t)records[i * BYTES + k] * (k + 1);
            sum_got += (uint64_t)got[i * BYTES + k] * (k + 1);
        }
    }
    assert_int_equal(sum, sum_got);
    free(got);
    free(records);
    assert_int_equal(unlink(out_path), 0);
}

/* ---- sorted inputs ---- */

/* Once two rows larger than a chunk, one behind the other, waited for each other for ever. */
static void test_giant_rows_in_sorted_inputs(void **state) {
    (void)state;
    kit_text text = {0};
    for (char letter = 'a'; letter <= 'e'; letter++) {
        char *row = malloc(1500000);
        assert_non_null(row);
        memset(row, letter, 1500000);
        kit_add(&text, row, 1500000);
        kit_add_byte(&text, '\n');
        free(row);
    }
    const char *inputs[] = {kit_write("giant", text.bytes, text.count),
                            kit_write_string("small", "aa\nb\nz\n")};
    cb_sort_options options = options_for(inputs, 1, 160 * CBI_MIB, 1);
    cb_error err = {.message = ""};
    options.action = CB_SORT_CHECK;
    assert_sort_ok(run(&options, NULL, &err), err);
    options.action = CB_SORT_MERGE;
    options.input_count = 2;
    cb_sort_stats stats;
    assert_sort_ok(run(&options, &stats, &err), err);
    assert_int_equal(stats.rows_out, 8);
    assert_int_equal(stats.bytes_out, text.count + 7);
    assert_int_equal(unlink(out_path), 0);
    kit_free(&text);
}

static void test_many_sorted_inputs_merge_like_one(void **state) {
    (void)state;
    enum { INPUTS = 40 };
    corpus c = make_corpus(shared_beginning, 20000, 30, "");
    put_in_order(&c, "", false, SIGN_ASCENDING);
    const char *folder = test_folder();
    char paths[INPUTS][TEST_PATH_MAX];
    const char *inputs[INPUTS];
    for (unsigned i = 0; i < INPUTS;
         i++) { /* input i: places [i, i + 1) * count / INPUTS, in order */
        kit_text part = {0};
        for (size_t k = 0; k < c.count; k++)
            if (c.lines[k].place / (c.count / INPUTS) == i) {
                kit_add(&part, c.lines[k].bytes, c.lines[k].count);
                kit_add_byte(&part, '\n');
            }
        char name[32];
        (void)snprintf(name, sizeof name, "part%02u", i);
        inputs[i] = test_path(paths[i], folder, name);
        test_write_file(inputs[i], part.bytes, part.count);
        kit_free(&part);
    }
    static const char *const keys[] = {"1,1"};
    for (size_t width = 0; width < 4; width += 3) {
        cb_sort_options options = options_for(inputs, INPUTS, 64 * CBI_MIB, 1);
        options.action = CB_SORT_MERGE;
        options.field_separator = ',';
        options.keys = keys;
        options.key_count = 1;
        options.merge_width_max = width;
        cb_error err = {.message = ""};
        assert_sort_ok(run(&options, NULL, &err), err);
        assert_sorted("merged", &c.want);
    }
    corpus_free(&c);
}

static void test_disorder_is_found_where_it_is(void **state) {
    (void)state;
    const char *input = kit_write_string("lines", "a\nb\nb\na\nc\n");
    cb_sort_options options = options_for(&input, 1, 16 * CBI_MIB, 1);
    options.action = CB_SORT_CHECK;
    cb_error err;
    assert_status(run(&options, NULL, &err), CB_EDISORDER);
    assert_non_null(strstr(err.message, "lines:4: disorder: a"));
    options.unique = true;
    assert_status(run(&options, NULL, &err), CB_EDISORDER);
    assert_non_null(strstr(err.message, "lines:3: disorder: b"));
    test_write_file(input, "b\na\0c\n", 6);
    assert_status(run(&options, NULL, &err), CB_EDISORDER);
    assert_non_null(strstr(err.message, "lines:2: disorder: a\\0c"));
    assert_int_equal(kit_names_in(out_folder), 0);
}

/* ---- options ---- */

static void refused(cb_sort_options options, const char *part) {
    cb_sort *sort = (cb_sort *)&options;
    cb_error err;
    assert_status(cb_sort_create(&options, &sort, &err), CB_EINVAL);
    assert_int_equal(err.status, CB_EINVAL);
    assert_non_null(strstr(err.message, part));
    assert_ptr_equal(sort, (cb_sort *)&options); /* written on success only */
    assert_status(cb_sort_create(&options, &sort, NULL), CB_EINVAL);
}

static void test_options_that_make_no_sense_are_refused(void **state) {
    (void)state;
    static const char *const inputs[] = {"a", "b"};
    cb_sort_options good = options_for(inputs, 2, 16 * CBI_MIB, 1), o = good;
    o.struct_size--;
    refused(o, "struct_size");
    o = good, o.format = CB_FORMAT_FIXED;
    refused(o, "fixed records");
    o = good, o.action = CB_SORT_CHECK;
    refused(o, "only one input");
    o = good, o.bad_rows = CB_BAD_ROWS_FILE;
    refused(o, "malformed rows");
    o = good, o.field_separator = 256;
    refused(o, "separator");
    o = good, o.inputs = NULL;
    refused(o, "not given");
    o = good, o.key_count = 1;
    refused(o, "not given");
    o = good, o.temp_dirs = NULL;
    refused(o, "not given");
    o = good, o.action = (cb_sort_action)77;
    refused(o, "does not exist");
    o = good, o.spill_codec = (cb_codec)(CB_CODEC_NIBBLE + 1);
    refused(o, "does not exist");
    cb_sort_destroy(NULL);
}

static void test_what_only_the_input_can_tell_fails_the_run(void **state) {
    (void)state;
    const char *input = kit_write_string("in.csv", "k,n\n1,2\n");
    static const char *const missing[] = {"price"}, *const nonsense[] = {"k:what"};
    cb_error err;
    cb_sort_options options = options_for(&input, 1, 16 * CBI_MIB, 1);
    options.key_count = 1;
    options.keys = missing;
    assert_status(run(&options, NULL, &err), CB_EINVAL);
    assert_non_null(strstr(err.message, "price"));
    options.keys = nonsense;
    assert_status(run(&options, NULL, &err), CB_EINVAL);
    options.key_count = 0;
    input = kit_path("not-there");
    assert_status(run(&options, NULL, &err), CB_EIO);
    assert_non_null(strstr(err.message, "not-there"));
    assert_int_equal(kit_names_in(out_folder), 0);
}

static void test_sort_runs_once(void **state) {
    (void)state;
    const char *input = kit_write_string("lines", "b\na\n");
    cb_sort_options options = options_for(&input, 1, 16 * CBI_MIB, 1);
    cb_sort *sort;
    assert_ok(cb_sort_create(&options, &sort, NULL));
    cb_sort_plan plan = {.struct_size = sizeof plan};
    assert_ok(cb_sort_explain(sort, &plan, NULL));
    assert_int_equal(plan.struct_size, sizeof plan);
    assert_int_equal(plan.input_bytes, 4);
    assert_true(plan.in_memory);
    assert_string_equal(plan.method, "range partition");
    assert_int_equal(kit_names_in(out_folder), 0);
    assert_ok(cb_sort_explain(sort, &plan, NULL));
    assert_ok(cb_sort_run(sort, NULL));
    assert_status(cb_sort_run(sort, NULL), CB_EMISUSE);
    assert_status(cb_sort_explain(sort, &plan, NULL), CB_EMISUSE);
    char tree[4096], tiny[8];
    cb_sort_memory_tree(sort, tree, sizeof tree);
    assert_non_null(strstr(tree, "sort"));
    cb_sort_memory_tree(sort, tiny, sizeof tiny);
    assert_true(strlen(tiny) < sizeof tiny);
    cb_sort_memory_tree(sort, tiny, 0);
    cb_sort_destroy(sort);
    assert_int_equal(unlink(out_path), 0);
}

/* ---- refusals ---- */

static void test_budget_that_is_named_will_do(void **state) {
    (void)state;
    corpus c = make_corpus(any_key, 100000, 40, header);
    put_in_order(&c, header, false, SIGN_ASCENDING);
    for (unsigned pipe = 0; pipe < 2; pipe++) {
        cb_error err = {.message = ""};
        uint64_t memory = 2 * CBI_MIB;
        for (unsigned tries = 0;; tries++) {
            feeder f;
            const char *input = c.path;
            if (pipe) {
                feeder_start(&f, &c.text);
                input = f.path;
            }
            cb_sort_options options = options_for(&input, 1, memory, 1);
            options.keys = first_column;
            options.key_count = 1;
            cb_status status = run(&options, NULL, &err);
            if (pipe)
                feeder_end(&f);
            if (status == CB_OK)
                break;
            assert_status(status, CB_EBUDGET);
            assert_int_equal(tries, 0); /* once is enough */
            assert_true(err.bytes_had > memory);
            assert_true(err.bytes_had <= 10 * CBI_MIB);
            assert_non_null(strstr(err.message, "--memory"));
            assert_int_equal(kit_names_in(out_folder), 0);
            memory = err.bytes_had;
        }
        assert_sorted("named budget", &c.want);
    }
    corpus_free(&c);
}

static void test_row_that_is_too_large_names_the_budget_for_it(void **state) {
    (void)state;
    kit_text text = {0};
    char *row = malloc(4000000);
    assert_non_null(row);
    memset(row, 'x', 4000000);
    kit_add_string(&text, "z\n");
    kit_add(&text, row, 4000000);
    kit_add_string(&text, "\na\n");
    const char *input = kit_write("giant", text.bytes, text.count);
    uint64_t memory = 8 * CBI_MIB;
    for (unsigned tries = 0;; tries++) {
        cb_sort_options options = options_for(&input, 1, memory, 2);
        cb_error err;
        cb_status status = run(&options, NULL, &err);
        if (status == CB_OK)
            break;
        assert_status(status, CB_EBUDGET);
        assert_int_equal(tries, 0);
        assert_int_equal(kit_names_in(out_folder), 0);
        memory = err.bytes_had;
    }
    assert_int_equal(unlink(out_path), 0);
    free(row);
    kit_free(&text);
}

static void test_full_disk_leaves_the_output_as_it_was(void **state) {
    (void)state;
    corpus c = make_corpus(any_key, 150000, 60, header);
    for (unsigned pipe = 0; pipe < 2; pipe++)
        for (uint64_t limit = 300000; limit < 6000000; limit *= 4) {
            feeder f;
            const char *input = c.path;
            test_write_text(out_path, "as it was");
            if (pipe) {
                feeder_start(&f, &c.text);
                input = f.path;
            }
            cb_sort_options options = options_for(&input, 1, 6 * CBI_MIB, 2);
            options.keys = first_column;
            options.key_count = 1;
            options.temp_limit_bytes = limit;
            cb_error err;
            cb_sort_stats stats;
            assert_status(run(&options, &stats, &err), CB_ENOSPC);
            if (pipe)
                feeder_end(&f);
            char *text = test_read_file(out_path, NULL);
            assert_string_equal(text, "as it was");
            free(text);
            assert_int_equal(kit_names_in(out_folder), 1);
        }
    assert_int_equal(unlink(out_path), 0);
    corpus_free(&c);
}

static void test_malformed_row_is_placed(void **state) {
    (void)state;
    const char *input = kit_write_string("in.csv", "k,n\n1,2\n3,4,5\n6,7\n");
    cb_sort_options options = options_for(&input, 1, 16 * CBI_MIB, 1);
    cb_error err;
    cb_sort_stats stats;
    assert_status(run(&options, NULL, &err), CB_EDATA);
    assert_non_null(strstr(err.message, "in.csv:3"));
    assert_int_equal(kit_names_in(out_folder), 0);
    options.bad_rows = CB_BAD_ROWS_SKIP;
    assert_sort_ok(run(&options, &stats, &err), err);
    assert_int_equal(stats.rows_bad, 1);
    assert_int_equal(stats.rows_out, 2);
    assert_int_equal(unlink(out_path), 0);
}

/* ---- looked at and stopped from outside ---- */

typedef struct watcher {
    cb_sort *sort;
    atomic_bool end;
    uint64_t cancel_after_ns; /* 0 = never */
    unsigned looks;
    bool wrong;
    cbi_thread thread;
} watcher;

static void watch(void *ctx) {
    watcher *w = ctx;
    uint64_t start = cbi_sys_clock_ns(), rows = 0;
    bool done = false;
    do {
        cb_progress p = {.struct_size = sizeof p};
        cb_sort_progress(w->sort, &p);
        w->looks++;
        w->wrong |= p.struct_size != sizeof p || p.phase > CB_PHASE_DONE || p.fraction > 1 ||
                    p.rows_in < rows || (done && p.phase != CB_PHASE_DONE) ||
                    (p.phase == CB_PHASE_DONE && p.fraction < 1);
        rows = p.rows_in;
        done = p.phase == CB_PHASE_DONE;
        if (w->cancel_after_ns != 0 && cbi_sys_clock_ns() - start > w->cancel_after_ns)
            cb_sort_cancel(w->sort);
        cbi_sys_sleep_ns(50000);
    } while (!atomic_load(&w->end));
}

static cb_status run_watched(const cb_sort_options *options, uint64_t cancel_after_ns) {
    watcher w = {.cancel_after_ns = cancel_after_ns};
    assert_ok(cb_sort_create(options, &w.sort, NULL));
    assert_ok(cbi_thread_start(&w.thread, watch, &w, "watcher", NULL));
    cb_status status = cb_sort_run(w.sort, NULL);
    cbi_sys_sleep_ns(200000);
    atomic_store(&w.end, true);
    cbi_thread_join(&w.thread);
    assert_false(w.wrong);
    assert_true(w.looks > 0);
    cb_progress p = {.struct_size = sizeof p};
    cb_sort_progress(w.sort, &p);
    assert_int_equal(p.phase, CB_PHASE_DONE);
    cb_sort_destroy(w.sort);
    assert_int_equal(kit_names_in(temp_folder), 0);
    return status;
}

static void test_progress_can_be_seen_from_another_thread(void **state) {
    (void)state;
    corpus c = make_corpus(any_key, 120000, 60, header);
    put_in_order(&c, header, false, SIGN_ASCENDING);
    for (unsigned pipe = 0; pipe < 2; pipe++) {
        feeder f;
        const char *input = c.path;
        if (pipe) {
            feeder_start(&f, &c.text);
            input = f.path;
        }
        cb_sort_options options = options_for(&input, 1, 6 * CBI_MIB, 2);
        options.keys = first_column;
        options.key_count = 1;
        assert_ok(run_watched(&options, 0));
        if (pipe)
            feeder_end(&f);
        assert_sorted("watched", &c.want);
    }
    corpus_free(&c);
}

static void test_cancelled_anywhere_it_ends_and_leaves_nothing(void **state) {
    (void)state;
    static const make_key makers[] = {any_key, one_key};
    unsigned cancelled = 0;
    for (unsigned kind = 0; kind < 2; kind++) {
        corpus c = make_corpus(makers[kind], 120000, 60, header);
        put_in_order(&c, header, false, SIGN_ASCENDING);
        for (unsigned pipe = 0; pipe < 2; pipe++)
            for (uint64_t after = 1000; after < 400000000; after *= 4) {
                feeder f;
                const char *input = c.path;
                if (pipe) {
                    feeder_start(&f, &c.text);
                    input = f.path;
                }
                cb_sort_options options =
                    options_for(&input, 1, 6 * CBI_MIB, 1 + (unsigned)(after % 3));
                options.keys = first_column;
                options.key_count = 1;
                cb_status status = run_watched(&options, after);
                if (pipe)
                    feeder_end(&f);
                if (status == CB_OK) {
                    assert_sorted("not cancelled", &c.want);
                    continue;
                }
                assert_status(status, CB_ECANCELED);
                cancelled++;
                assert_int_equal(kit_names_in(out_folder), 0);
            }
        corpus_free(&c);
    }
    assert_true(cancelled > 4);
}

static void test_cancelled_before_it_runs(void **state) {
    (void)state;
    const char *input = kit_write_string("lines", "b\na\n");
    cb_sort_options options = options_for(&input, 1, 16 * CBI_MIB, 1);
    cb_sort *sort;
    cb_error err;
    assert_ok(cb_sort_create(&options, &sort, NULL));
    cb_sort_cancel(sort);
    assert_status(cb_sort_run(sort, &err), CB_ECANCELED);
    assert_int_equal(err.status, CB_ECANCELED);
    cb_sort_destroy(sort);
    assert_int_equal(kit_names_in(out_folder), 0);
}

static void test_figures_add_up(void **state) {
    (void)state;
    corpus c = make_corpus(any_key, 120000, 60, header);
    const char *input = c.path;
    cb_sort_options options = options_for(&input, 1, 6 * CBI_MIB, 2);
    options.keys = first_column;
    options.key_count = 1;
    options.spill_codec = CB_CODEC_LZ4;
    cb_error err = {.message = ""};
    cb_sort_stats stats;
    assert_sort_ok(run(&options, &stats, &err), err);
    assert_int_equal(stats.rows_in, 120000);
    assert_int_equal(stats.rows_out, 120000);
    assert_int_equal(stats.rows_bad, 0);
    assert_int_equal(stats.bytes_in, c.text.count);
    assert_int_equal(stats.bytes_out, c.text.count);
    assert_int_equal(stats.budget_bytes, 6 * CBI_MIB);
    assert_in_range(stats.accounted_peak_bytes, CBI_MIB, 6 * CBI_MIB);
    assert_true(stats.spilled_bytes > 0);
    assert_in_range(stats.spilled_stored_bytes, 1, stats.spilled_bytes + stats.spilled_bytes / 4);
    assert_true(stats.ranges > 1);
    assert_int_equal(stats.passes, 1);
    assert_string_equal(stats.codec, "lz4");
    assert_true(stats.elapsed_ns >= stats.read_ns);
    assert_true(stats.elapsed_ns >= stats.write_ns);
    assert_int_equal(unlink(out_path), 0);
    corpus_free(&c);
}

static void test_output_may_be_an_input(void **state) {
    (void)state;
    const char *input = out_path;
    kit_text want = {0};
    kit_add_string(&want, "a\nb\nc\n");
    test_write_text(out_path, "c\na\nb\n");
    cb_sort_options options = options_for(&input, 1, 16 * CBI_MIB, 1);
    cb_error err = {.message = ""};
    assert_sort_ok(run(&options, NULL, &err), err);
    assert_sorted("in place", &want);
    kit_free(&want);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_that_fit_in_memory),
        cmocka_unit_test(test_keys_that_begin_alike_survive_being_spilled),
        cmocka_unit_test(test_equal_keys_stay_in_input_order_in_large_ranges),
        cmocka_unit_test(test_unique_rows_of_spilled_inputs_are_the_first_ones),
        cmocka_unit_test(test_rows_of_many_lengths),
        cmocka_unit_test(test_streams_of_many_runs_and_workers),
        cmocka_unit_test(test_rows_larger_than_any_sampled_spot),
        cmocka_unit_test(test_nothing_one_row_and_only_a_header),
        cmocka_unit_test(test_fixed_records_by_a_slice),
        cmocka_unit_test(test_giant_rows_in_sorted_inputs),
        cmocka_unit_test(test_many_sorted_inputs_merge_like_one),
        cmocka_unit_test(test_disorder_is_found_where_it_is),
        cmocka_unit_test(test_options_that_make_no_sense_are_refused),
        cmocka_unit_test(test_what_only_the_input_can_tell_fails_the_run),
        cmocka_unit_test(test_sort_runs_once),
        cmocka_unit_test(test_budget_that_is_named_will_do),
        cmocka_unit_test(test_row_that_is_too_large_names_the_budget_for_it),
        cmocka_unit_test(test_full_disk_leaves_the_output_as_it_was),
        cmocka_unit_test(test_malformed_row_is_placed),
        cmocka_unit_test(test_progress_can_be_seen_from_another_thread),
        cmocka_unit_test(test_cancelled_anywhere_it_ends_and_leaves_nothing),
        cmocka_unit_test(test_cancelled_before_it_runs),
        cmocka_unit_test(test_figures_add_up),
        cmocka_unit_test(test_output_may_be_an_input),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
