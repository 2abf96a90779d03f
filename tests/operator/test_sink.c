/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what writers put at their places is what the file holds, whoever writes when, and a file
 * appears whole or not at all. Method: byte i of every output is a function of i; ranges of all
 * sizes are written by several threads and read back.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

#include "operator/sink.h"
#include "operator_kit.h"

enum { BUFFER = 8192, BUFFERS = 3, WRITERS_MAX = 4, RANGES_MAX = 4000 };

static uint8_t byte_at(uint64_t i) {
    return (uint8_t)(i * 7 + i / 251 + (i >> 13));
}

typedef struct bench {
    stage s;
    cbi_sink *sink;
    uint8_t *edges, *block, *buffers;
} bench;

static cb_status bench_open(bench *b, const char *path, unsigned writers, uint64_t expected,
                            cb_error *err) {
    *b = (bench){.sink = NULL};
    stage_open(&b->s, 32, 0);
    size_t block = cbi_sink_block_bytes(cbi_compression_of_name(path == NULL ? "" : path));
    b->edges = aligned_alloc(4096, cbi_sink_edge_bytes(writers));
    b->block = aligned_alloc(4096, cbi_round_up(block + 4096, 4096));
    b->buffers = aligned_alloc(4096, (size_t)WRITERS_MAX * BUFFERS * BUFFER);
    assert_non_null(b->edges);
    assert_non_null(b->block);
    assert_non_null(b->buffers);
    cbi_sink_options options = {.path = path,
                                .io = b->s.spill,
                                .writers = writers,
                                .edge_memory = b->edges,
                                .block_memory = b->block,
                                .bytes_expected = expected};
    return cbi_sink_open(&options, &b->sink, err);
}

static void bench_close(bench *b) {
    cbi_spill_close(b->s.spill);
    b->s.spill = NULL;
    cbi_sink_close(b->sink);
    stage_close(&b->s, NULL);
    free(b->edges);
    free(b->block);
    free(b->buffers);
}

/* ---- many threads, many ranges ---- */

typedef struct job {
    bench *b;
    uint64_t offsets[RANGES_MAX + 1];
    uint32_t ranges;
    atomic_uint next, failed;
} job;

typedef struct hand {
    job *j;
    unsigned index;
    cbi_thread thread;
    cbi_writer writer;
} hand;

static cb_status put_range(cbi_writer *w, uint64_t from, uint64_t to, kit_random *r,
                           cb_error *err) {
    uint8_t some[700];
    CB_TRY(cbi_writer_begin(w, from, err));
    while (from < to) { /* in pieces of any size, some as rows */
        size_t n = cbi_min(1 + kit_below(r, 699), (size_t)(to - from));
        for (size_t i = 0; i < n; i++)
            some[i] = byte_at(from + i);
        if (kit_below(r, 2))
            CB_TRY(cbi_writer_put_row(w, some, n - 1, true, some[n - 1], err));
        else if (kit_below(r, 2))
            CB_TRY(cbi_writer_put_row(w, some, n, false, 'x', err));
        else
            CB_TRY(cbi_writer_put(w, some, n, err));
        from += n;
    }
    return cbi_writer_end(w, err);
}

static void write_ranges(void *ctx) {
    hand *h = ctx;
    job *j = h->j;
    kit_random r = {h->index};
    cbi_writer_init(&h->writer, j->b->sink, j->b->buffers + (size_t)h->index * BUFFERS * BUFFER,
                    BUFFER, BUFFERS);
    cb_status status = CB_OK;
    for (;;) {
        uint32_t i = atomic_fetch_add(&j->next, 1);
        if (i >= j->ranges)
            break;
        status = put_range(&h->writer, j->offsets[i], j->offsets[i + 1], &r, NULL);
        if (status != CB_OK)
            break;
    }
    if (cbi_writer_drain(&h->writer, NULL) != CB_OK || status != CB_OK)
        atomic_fetch_add(&j->failed, 1);
}

static void run_hands(job *j, unsigned writers) {
    static hand hands[WRITERS_MAX];
    for (unsigned i = 0; i < writers; i++) {
        hands[i] = (hand){.j = j, .index = i};
        assert_ok(cbi_thread_start(&hands[i].thread, write_ranges, &hands[i], "hand", NULL));
    }
    for (unsigned i = 0; i < writers; i++)
        cbi_thread_join(&hands[i].thread);
}

static void assert_pattern(const char *path, uint64_t bytes) {
    size_t count;
    char *got = test_read_file(path, &count);
    assert_int_equal(count, bytes);
    for (size_t i = 0; i < count; i++)
        if ((uint8_t)got[i] != byte_at(i))
            fail_msg("byte %zu of %zu differs", i, count);
    free(got);
}

static void write_and_read(const char *path, unsigned writers, uint32_t ranges, size_t mean,
                           bool tell) {
    static job j;
    bench b;
    kit_random r = {mean};
    j = (job){.b = &b, .ranges = ranges};
    for (uint32_t i = 0; i < ranges; i++)
        j.offsets[i + 1] = j.offsets[i] + kit_below(&r, 2 * mean + 1);
    uint64_t bytes = j.offsets[ranges];
    assert_ok(bench_open(&b, path, writers, tell ? bytes : 0, NULL));
    assert_true(cbi_sink_positional(b.sink));
    run_hands(&j, writers);
    assert_int_equal(atomic_load(&j.failed), 0);
    assert_int_equal(cbi_sink_bytes(b.sink), bytes);
    assert_ok(cbi_sink_finish(b.sink, bytes, NULL));
    bench_close(&b);
    assert_pattern(path, bytes);
}

static void test_ranges_of_any_size_end_up_in_their_places(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "out");
    for (unsigned writers = 1; writers <= WRITERS_MAX; writers++) {
        write_and_read(path, writers, 1, 10, writers % 2);
        write_and_read(path, writers, 4000, 30, writers % 2); /* many in one block */
        write_and_read(path, writers, 1500, 1000, writers % 2);
        write_and_read(path, writers, 400, 4096, writers % 2);
        write_and_read(path, writers, 60, 50000, writers % 2);
    }
    for (unsigned i = 0; i < 30; i++)
        write_and_read(path, WRITERS_MAX, 4000, i + 1, true);
}

static void test_nothing_is_a_file_too(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "empty");
    write_and_read(path, 1, 0, 1, false);
    write_and_read(path, 2, 5, 0, true);
}

static void test_whole_blocks_have_no_edges(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "blocks");
    static job j;
    bench b;
    j = (job){.b = &b, .ranges = 16};
    for (uint32_t i = 0; i < 16; i++)
        j.offsets[i + 1] = j.offsets[i] + 4096 * (i % 5);
    assert_ok(bench_open(&b, path, 2, j.offsets[16], NULL));
    run_hands(&j, 2);
    assert_ok(cbi_sink_finish(b.sink, j.offsets[16], NULL));
    bench_close(&b);
    assert_pattern(path, j.offsets[16]);
}

/* ---- whole or not at all ---- */

static void test_unfinished_file_was_never_there(void **state) {
    (void)state;
    const char *folder = test_folder();
    char path[TEST_PATH_MAX];
    test_path(path, folder, "out");
    static job j;
    bench b;
    j = (job){.b = &b, .ranges = 3, .offsets = {0, 5000, 9000, 20000}};
    assert_ok(bench_open(&b, path, 2, 0, NULL));
    run_hands(&j, 2);
    bench_close(&b);
    assert_int_equal(kit_names_in(folder), 0);

    test_write_text(path, "as it was");
    j = (job){.b = &b, .ranges = 3, .offsets = {0, 5000, 9000, 20000}};
    assert_ok(bench_open(&b, path, 2, 20000, NULL));
    run_hands(&j, 2);
    bench_close(&b);
    assert_int_equal(kit_names_in(folder), 1);
    char *text = test_read_file(path, NULL);
    assert_string_equal(text, "as it was");
    free(text);
}

static void test_replaced_file_keeps_its_mode_and_links_stay_links(void **state) {
    (void)state;
    const char *folder = test_folder();
    char path[TEST_PATH_MAX], link[TEST_PATH_MAX];
    test_path(path, folder, "real");
    test_path(link, folder, "link");
    test_write_text(path, "before");
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(symlink("real", link), 0);
    write_and_read(link, 2, 10, 3000, true);
    struct stat st;
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    assert_int_equal(kit_names_in(folder), 2);
}

static void test_places_that_cannot_be_written_are_named(void **state) {
    (void)state;
    const char *folder = test_folder();
    char path[TEST_PATH_MAX];
    cb_error err;
    bench b;
    assert_status(bench_open(&b, folder, 1, 0, &err), CB_EIO); /* a folder */
    assert_non_null(strstr(err.message, folder));
    bench_close(&b);
    test_path(path, folder, "no/such/out");
    assert_status(bench_open(&b, path, 1, 0, &err), CB_EIO);
    assert_non_null(strstr(err.message, path));
    bench_close(&b);
    test_path(path, folder, "out");
    assert_status(bench_open(&b, path, 1, (uint64_t)1 << 55, &err),
                  CB_EIO); /* more than any disk has */
    assert_non_null(strstr(err.message, path));
    bench_close(&b);
    assert_int_equal(kit_names_in(folder), 0);
}

static void test_name_taken_meanwhile_is_replaced(void **state) {
    (void)state;
    const char *folder = test_folder();
    char path[TEST_PATH_MAX];
    test_path(path, folder, "out");
    static job j;
    bench b;
    j = (job){.b = &b, .ranges = 2, .offsets = {0, 5000, 9000}};
    assert_ok(bench_open(&b, path, 1, 9000, NULL));
    run_hands(&j, 1);
    test_write_text(path, "somebody was faster");
    assert_ok(cbi_sink_finish(b.sink, 9000, NULL));
    bench_close(&b);
    assert_pattern(path, 9000);
    assert_int_equal(kit_names_in(folder), 1);
}

/* ---- streams ---- */

static void put_stream(bench *b, uint64_t bytes, uint64_t seed, cb_status *status) {
    kit_random r = {seed};
    cbi_writer w[2]; /* taking turns */
    for (unsigned i = 0; i < 2; i++)
        cbi_writer_init(&w[i], b->sink, b->buffers + (size_t)i * BUFFERS * BUFFER, BUFFER, BUFFERS);
    *status = CB_OK;
    for (uint64_t at = 0; at < bytes && *status == CB_OK;) {
        uint64_t n = cbi_min((size_t)(bytes - at), kit_below(&r, 90000));
        *status = put_range(&w[kit_below(&r, 2)], at, at + n, &r, NULL);
        at += n;
    }
}

typedef struct pipe_end {
    int fd;
    kit_text text;
    cbi_thread thread;
} pipe_end;

static void read_pipe(void *ctx) {
    pipe_end *p = ctx;
    uint8_t some[5000];
    ssize_t n;
    while ((n = read(p->fd, some, sizeof some)) > 0)
        kit_add(&p->text, some, (size_t)n);
    close(p->fd);
}

static void test_stream_is_written_in_turn(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    pipe_end end = {.fd = open(path, O_RDONLY | O_NONBLOCK)};
    assert_true(end.fd >= 0);
    bench b;
    assert_ok(bench_open(&b, path, 2, 0, NULL));
    assert_int_equal(fcntl(end.fd, F_SETFL, 0), 0);
    assert_false(cbi_sink_positional(b.sink));
    assert_ok(cbi_thread_start(&end.thread, read_pipe, &end, "reader", NULL));
    cb_status status;
    put_stream(&b, 700001, 5, &status);
    assert_ok(status);
    assert_ok(cbi_sink_finish(b.sink, 700001, NULL));
    bench_close(&b);
    cbi_thread_join(&end.thread);
    assert_int_equal(end.text.count, 700001);
    for (size_t i = 0; i < end.text.count; i++)
        assert_int_equal(end.text.bytes[i], byte_at(i));
    kit_free(&end.text);
}

static void test_pipe_that_nobody_reads_is_an_error(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(fd >= 0);
    bench b;
    assert_ok(bench_open(&b, path, 2, 0, NULL));
    close(fd);
    cb_status status;
    put_stream(&b, 700001, 5, &status);
    assert_status(status, CB_EIO);
    bench_close(&b);
}

static void test_compressed_bytes_do_not_depend_on_how_they_were_put(void **state) {
    (void)state;
    static const char *const names[] = {"out.gz", "out.zst", "out.lz4"};
    enum { BYTES = 2 * CBI_COMPRESS_BLOCK_BYTES + 12345 };
    for (unsigned i = 0; i < 3; i++) {
        char *first = NULL;
        size_t first_bytes = 0;
        for (uint64_t seed = 1; seed < 4; seed++) {
            char path[TEST_PATH_MAX];
            const char *folder = test_folder();
            test_path(path, folder, names[i]);
            bench b;
            cb_status status;
            assert_ok(bench_open(&b, path, 2, 0, NULL));
            assert_false(cbi_sink_positional(b.sink));
            put_stream(&b, BYTES, seed, &status);
            assert_ok(status);
            assert_ok(cbi_sink_finish(b.sink, BYTES, NULL));
            bench_close(&b);
            assert_int_equal(kit_names_in(folder), 1);
            size_t bytes;
            char *now = test_read_file(path, &bytes);
            if (first == NULL) {
                first = now;
                first_bytes = bytes;
                continue;
            }
            assert_int_equal(bytes, first_bytes);
            assert_memory_equal(now, first, bytes);
            free(now);
        }
        free(first);
    }
}

static void test_nothing_compressed_is_an_empty_frame(void **state) {
    (void)state;
    static const char *const names[] = {"e.gz", "e.zst", "e.lz4"};
    for (unsigned i = 0; i < 3; i++) {
        char path[TEST_PATH_MAX];
        test_path(path, test_folder(), names[i]);
        bench b;
        assert_ok(bench_open(&b, path, 1, 0, NULL));
        assert_ok(cbi_sink_finish(b.sink, 0, NULL));
        bench_close(&b);
        size_t bytes;
        free(test_read_file(path, &bytes));
        assert_in_range(bytes, 5, 40);
    }
}

int main(void) {
    (void)signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_of_any_size_end_up_in_their_places),
        cmocka_unit_test(test_nothing_is_a_file_too),
        cmocka_unit_test(test_whole_blocks_have_no_edges),
        cmocka_unit_test(test_unfinished_file_was_never_there),
        cmocka_unit_test(test_replaced_file_keeps_its_mode_and_links_stay_links),
        cmocka_unit_test(test_places_that_cannot_be_written_are_named),
        cmocka_unit_test(test_name_taken_meanwhile_is_replaced),
        cmocka_unit_test(test_stream_is_written_in_turn),
        cmocka_unit_test(test_pipe_that_nobody_reads_is_an_error),
        cmocka_unit_test(test_compressed_bytes_do_not_depend_on_how_they_were_put),
        cmocka_unit_test(test_nothing_compressed_is_an_empty_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
