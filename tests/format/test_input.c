/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Whole inputs: random files are made together with what must be read from them, and read back at
 * many chunk sizes, with several threads, from files, from compressed files, and in pieces. The
 * rows must be those, in that order.
 */

#include <sys/wait.h>

#include "format/input_kit.h"

/* ---- files with known rows ---- */

typedef struct sheet {
    kit_text file, want, bad;
    size_t columns, malformed;
} sheet;

static void sheet_free(sheet *s) {
    kit_free(&s->file);
    kit_free(&s->want);
    kit_free(&s->bad);
}

/* A value and how it may stand in CSV. */
static void make_field(kit_random *r, size_t mean, kit_text *raw, kit_text *value) {
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789 .;\t-";
    static const char tricky[] = "ab\",\n\r\"\n";
    size_t bytes = kit_below(r, 2 * mean + 1);
    bool quoted = kit_below(r, 4) == 0, wild = quoted && kit_below(r, 2) == 0;
    if (quoted)
        kit_add_byte(raw, '"');
    for (size_t i = 0; i < bytes; i++) {
        char c =
            wild ? tricky[kit_below(r, sizeof tricky - 1)] : plain[kit_below(r, sizeof plain - 1)];
        if (c == '"')
            kit_add_byte(raw, '"');
        kit_add_byte(raw, c);
        kit_add_byte(value, c);
    }
    if (quoted)
        kit_add_byte(raw, '"');
}

/* A row that breaks the rules and what a reader takes it to be. None of these holds a quote that
 * stays open. */
static void make_malformed(kit_random *r, size_t columns, sheet *s) {
    static const char *const rows[] = {"a\"b,c",   "\"x\"y,z",    "stray \" quote \" twice",
                                       "\"a\" ,b", "\"cr\"\rx,1", "\"a\nb\"c\"d"};
    size_t kind = kit_below(r, sizeof rows / sizeof rows[0] + 1);
    kit_text row = {0};
    if (kind < sizeof rows / sizeof rows[0]) {
        kit_add_string(&row, rows[kind]);
    } else {
        size_t fields = columns + 1 + kit_below(r, 3);
        for (size_t i = 1; i < fields; i++)
            kit_add_string(&row, i % 2 ? "q," : "\"q,\n\",");
        kit_add_string(&row, "end");
    }
    kit_add(&s->file, row.bytes, row.count);
    kit_add_byte(&s->file, '\n');
    kit_add(&s->bad, row.bytes, row.count);
    kit_add_byte(&s->bad, '\n');
    s->malformed++;
    kit_free(&row);
}

/* Rows of CSV; `wanted` are the fields in what is expected. One row in `bad_every` is malformed. */
static void make_sheet(kit_random *r, size_t rows, size_t columns, size_t mean,
                       const uint32_t *wanted, size_t wanted_count, size_t bad_every, sheet *s) {
    bool crlf = kit_below(r, 2) == 0, last_ends = kit_below(r, 2) == 0;
    kit_text *values = calloc(columns, sizeof *values);
    *s = (sheet){.columns = columns};
    for (size_t i = 0; i < rows; i++) {
        size_t start = s->file.count;
        if (bad_every && i > 0 && kit_below(r, bad_every) == 0)
            make_malformed(r, columns, s);
        if (columns > 1 && kit_below(r, 50) == 0)
            kit_add_string(&s->file, crlf ? "\r\n" : "\n");
        start = s->file.count;
        for (size_t c = 0; c < columns; c++) {
            values[c].count = 0;
            if (c > 0)
                kit_add_byte(&s->file, ',');
            make_field(r, mean, &s->file, &values[c]);
        }
        bool last = i + 1 == rows, ends = !last || last_ends || s->file.count == start;
        if (crlf && ends)
            kit_add_byte(&s->file, '\r');
        kit_add(&s->want, s->file.bytes + start, s->file.count - start);
        for (size_t f = 0; f < wanted_count; f++) {
            kit_add_byte(&s->want, '\x01');
            if (wanted[f] < columns)
                kit_add(&s->want, values[wanted[f]].bytes, values[wanted[f]].count);
        }
        kit_add_byte(&s->want, '\x02');
        if (ends)
            kit_add_byte(&s->file, '\n');
    }
    for (size_t c = 0; c < columns; c++)
        kit_free(&values[c]);
    free(values);
}

static size_t random_capacity(kit_random *r) {
    static const size_t sizes[] = {16, 64, 100, 500, 4096, 20000, 200000};
    size_t base = sizes[kit_below(r, sizeof sizes / sizeof sizes[0])];
    return base + kit_below(r, base);
}

static void test_input_csv_rows_are_the_same_at_every_chunk_size_and_thread_count(void **state) {
    (void)state;
    kit_random r = {1};
    for (int round = 0; round < 1500; round++) {
        uint32_t wanted[4];
        size_t columns = 1 + kit_below(&r, 9), wanted_count = kit_below(&r, 5);
        for (size_t i = 0; i < wanted_count; i++)
            wanted[i] = (uint32_t)kit_below(&r, columns + 1);
        sheet s;
        make_sheet(&r, 1 + kit_below(&r, 300), columns, 1 + kit_below(&r, 12), wanted, wanted_count,
                   0, &s);
        const char *path = kit_write("rows.csv", s.file.bytes, s.file.count);
        cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
        kit_text got = {0};
        cb_error err = {0};
        cb_status status = kit_read_all(&options, random_capacity(&r), (unsigned)kit_below(&r, 5),
                                        wanted, wanted_count, &got, &err);
        if (status != CB_OK)
            fail_msg("round %d: %s", round, err.message);
        kit_same(&got, &s.want, "csv");
        kit_free(&got);
        sheet_free(&s);
    }
}

static void test_input_compressed_csv_gives_the_same_rows(void **state) {
    (void)state;
    static const char *const names[] = {"", "rows.csv.gz", "rows.csv.zst", "rows.csv.lz4"};
    kit_random r = {2};
    for (int round = 0; round < 400; round++) {
        uint32_t wanted[2] = {0, 2};
        sheet s;
        make_sheet(&r, 1 + kit_below(&r, 400), 3, 1 + kit_below(&r, 12), wanted, 2, 0, &s);
        cbi_compression c = (cbi_compression)(1 + kit_below(&r, 3));
        const char *path =
            kit_write_compressed(names[c], s.file.bytes, s.file.count, c, 1 + kit_below(&r, 3000));
        cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
        kit_text got = {0};
        cb_error err = {0};
        cb_status status = kit_read_all(&options, random_capacity(&r), (unsigned)kit_below(&r, 4),
                                        wanted, 2, &got, &err);
        if (status != CB_OK)
            fail_msg("round %d: %s", round, err.message);
        kit_same(&got, &s.want, names[c]);
        kit_free(&got);
        sheet_free(&s);
    }
}

static void test_input_malformed_rows_are_left_out_and_written_exactly(void **state) {
    (void)state;
    kit_random r = {3};
    for (int round = 0; round < 800; round++) {
        uint32_t wanted[2] = {1, 0};
        size_t columns = 2 + kit_below(&r, 5);
        sheet s;
        make_sheet(&r, 1 + kit_below(&r, 200), columns, 1 + kit_below(&r, 12), wanted, 2,
                   1 + kit_below(&r, 20), &s);
        bool stream = kit_below(&r, 2);
        const char *path = stream ? kit_write_compressed("bad.csv.lz4", s.file.bytes, s.file.count,
                                                         CBI_COMPRESSION_LZ4, 5000)
                                  : kit_write("bad.csv", s.file.bytes, s.file.count);
        unsigned threads = (unsigned)kit_below(&r, 4);
        size_t capacity = random_capacity(&r);
        cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
        options.bad_rows = CB_BAD_ROWS_FILE;
        options.bad_rows_path = kit_path("bad.out");
        kit_text got = {0}, bad = {0};
        cb_error err = {0};
        cb_status status = kit_read_all(&options, capacity, threads, wanted, 2, &got, &err);
        if (status != CB_OK)
            fail_msg("round %d: %s", round, err.message);
        kit_same(&got, &s.want, "good rows");
        FILE *f = fopen(options.bad_rows_path, "rb");
        uint8_t piece[4096];
        for (size_t n; (n = fread(piece, 1, sizeof piece, f)) > 0;)
            kit_add(&bad, piece, n);
        (void)fclose(f);
        if (threads <= 1 &&
            capacity > 1000) /* a malformed row larger than a buffer overtakes others */
            kit_same(&bad, &s.bad, "bad rows");
        else
            assert_int_equal(bad.count, s.bad.count);
        kit_free(&bad);
        kit_free(&got);
        sheet_free(&s);
    }
}

static void test_input_lines_of_several_files(void **state) {
    (void)state;
    kit_random r = {4};
    for (int round = 0; round < 600; round++) {
        const char *paths[4];
        static const char *const names[] = {"a.txt", "b.txt", "c.txt", "d.txt"};
        kit_text want = {0}, got = {0};
        bool zero = kit_below(&r, 3) == 0, one_is_gzip = kit_below(&r, 2);
        char end = zero ? '\0' : '\n';
        for (size_t f = 0; f < 4; f++) {
            kit_text file = {0};
            size_t lines = kit_below(&r, 3) ? kit_below(&r, 200) : 0, mean = 1 + kit_below(&r, 150);
            for (size_t i = 0; i < lines; i++) {
                size_t bytes = kit_below(&r, 2 * mean);
                for (size_t b = 0; b < bytes; b++) {
                    char c = (char)kit_next(&r);
                    c = c == end ? 'x' : c;
                    kit_add_byte(&file, c);
                    kit_add_byte(&want, c);
                }
                kit_add_byte(&want, '\x02');
                if (i + 1 < lines || bytes == 0 || kit_below(&r, 2))
                    kit_add_byte(&file, end);
            }
            if (f == 2 && one_is_gzip)
                paths[f] = kit_write_compressed("c.gz", file.bytes, file.count,
                                                CBI_COMPRESSION_GZIP, 100 + kit_below(&r, 10000));
            else
                paths[f] = kit_write(names[f], file.bytes, file.count);
            kit_free(&file);
        }
        cbi_input_options options = kit_options(paths, 4, CB_FORMAT_LINES);
        options.zero_terminated = zero;
        cb_error err = {0};
        cb_status status = kit_read_all(&options, random_capacity(&r), (unsigned)kit_below(&r, 5),
                                        NULL, 0, &got, &err);
        if (status != CB_OK)
            fail_msg("round %d: %s", round, err.message);
        kit_same(&got, &want, "lines");
        kit_free(&got);
        kit_free(&want);
    }
}

static void test_input_tsv_has_no_quotes(void **state) {
    (void)state;
    const char *path = kit_write_string("t.tsv", "a\tb\r\n\"x\ty\"\r\n\n1\t\r\n\"\t\"\"");
    const uint32_t wanted[] = {0, 1};
    for (size_t capacity = 16; capacity < 40; capacity++) {
        cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
        kit_text got = {0}, want = {0};
        options.header = CB_HEADER_AUTO;
        assert_int_equal(kit_read_all(&options, capacity, 2, wanted, 2, &got, NULL), CB_OK);
        kit_add_string(&want, "\"x\ty\"\r\x01\"x\x01y\"\x02"
                              "1\t\r\x01"
                              "1\x01\x02\"\t\"\"\x01\"\x01\"\"\x02");
        kit_same(&got, &want, "tsv");
        kit_free(&got);
        kit_free(&want);
    }
}

static void test_input_fixed_records(void **state) {
    (void)state;
    kit_random r = {5};
    for (int round = 0; round < 200; round++) {
        size_t record = 1 + kit_below(&r, 300), count = kit_below(&r, 300);
        kit_text file = {0}, want = {0}, got = {0};
        for (size_t i = 0; i < count; i++) {
            for (size_t b = 0; b < record; b++)
                kit_add_byte(&file, (char)kit_next(&r));
            kit_add(&want, file.bytes + file.count - record, record);
            kit_add_byte(&want, '\x02');
        }
        const char *path = kit_below(&r, 2)
                               ? kit_write("f.bin", file.bytes, file.count)
                               : kit_write_compressed("f.bin.zst", file.bytes, file.count,
                                                      CBI_COMPRESSION_ZSTD, 777);
        cbi_input_options options = kit_options(&path, 1, CB_FORMAT_FIXED);
        options.record_bytes = record;
        assert_int_equal(kit_read_all(&options, random_capacity(&r), (unsigned)kit_below(&r, 4),
                                      NULL, 0, &got, NULL),
                         CB_OK);
        kit_same(&got, &want, "fixed");
        kit_free(&file);
        kit_free(&want);
        kit_free(&got);
    }
}

static void test_input_half_a_record_is_an_error_or_left_out(void **state) {
    (void)state;
    const char *paths[2] = {kit_write_string("half.bin", "aaabbbcc"), NULL};
    cb_error err = {0};
    kit_text got = {0};
    for (int stream = 0; stream < 2; stream++) {
        if (stream)
            paths[0] = kit_write_compressed("half.bin.gz", "aaabbbcc", 8, CBI_COMPRESSION_GZIP, 5);
        cbi_input_options options = kit_options(paths, 1, CB_FORMAT_FIXED);
        options.record_bytes = 3;
        assert_int_equal(kit_read_all(&options, 64, 0, NULL, 0, &got, &err), CB_EDATA);
        assert_non_null(strstr(err.message, "2"));
        options.bad_rows = CB_BAD_ROWS_SKIP;
        got.count = 0;
        assert_int_equal(kit_read_all(&options, 64, 0, NULL, 0, &got, &err), CB_OK);
        assert_memory_equal(got.bytes,
                            "aaa\x02"
                            "bbb\x02",
                            got.count);
        assert_int_equal(got.count, 8);
    }
    kit_free(&got);
}

/* ---- headers ---- */

static void test_input_header_is_kept_and_must_be_the_same(void **state) {
    (void)state;
    cbi_input *input = NULL;
    cb_error err = {0};
    size_t bytes = 0, count = 0;
    const char *paths[3];
    paths[0] = kit_write_string("empty.csv", "");
    paths[1] =
        kit_write_string("one.csv", "\xef\xbb\xbf\"first \"\"one\"\"\",\"sec\r\nond\"\r\n1,2\r\n");
    paths[2] = kit_write_string("two.csv", "\"first \"\"one\"\"\",\"sec\r\nond\"\n3,4");
    cbi_input_options options = kit_options(paths, 3, CB_FORMAT_AUTO);
    options.header = CB_HEADER_AUTO;
    assert_int_equal(cbi_input_open(&options, &input, &err), CB_OK);
    const uint8_t *header = cbi_input_header(input, &bytes);
    assert_int_equal(bytes, 3 + 28);
    assert_memory_equal(header, "\xef\xbb\xbf\"first \"\"one\"\"\",\"sec\r\nond\"\r\n", bytes);
    const char *const *names = cbi_input_names(input, &count);
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "first \"one\"");
    assert_string_equal(names[1], "sec\r\nond");
    assert_int_equal(cbi_input_format(input)->columns, 2);
    cbi_input_close(input);
    const uint32_t wanted[] = {1};
    kit_text got = {0}, want = {0};
    kit_add_string(&want, "1,2\r\x01"
                          "2\x02"
                          "3,4\x01"
                          "4\x02");
    assert_int_equal(kit_read_all(&options, 16, 2, wanted, 1, &got, &err), CB_OK);
    kit_same(&got, &want, "rows under headers");
    kit_free(&got);

    paths[0] = kit_write_compressed("one.csv.gz", "a,b\n0,0\n", 8, CBI_COMPRESSION_GZIP, 100);
    paths[1] = kit_write_string("one.csv", "\"a\",b\r\n1,1\r\n");
    paths[2] = kit_write_string("two.csv", "a,c\n2,2\n");
    options.path_count = 2;
    got.count = want.count = 0;
    kit_add_string(&want, "0,0\x01"
                          "0\x02"
                          "1,1\r\x01"
                          "1\x02");
    assert_int_equal(kit_read_all(&options, 100, 2, wanted, 1, &got, &err), CB_OK);
    kit_same(&got, &want, "rows of streams under headers");
    kit_free(&got);
    kit_free(&want);
    options.path_count = 3;
    assert_int_equal(kit_read_all(&options, 100, 0, wanted, 1, &got, &err), CB_EDATA);
    assert_non_null(strstr(err.message, "two.csv:1:1: its header"));
    options.paths = paths + 1;
    options.path_count = 2;
    assert_int_equal(kit_read_all(&options, 100, 0, wanted, 1, &got, &err), CB_EDATA);
    kit_free(&got);
}

static void test_input_header_of_lines_stays_out_of_the_rows(void **state) {
    (void)state;
    const char *path = kit_write_string("h.txt", "top");
    cbi_input_options options = kit_options(&path, 1, CB_FORMAT_LINES);
    options.header = CB_HEADER_YES;
    cbi_input *input = NULL;
    size_t bytes = 0;
    assert_int_equal(cbi_input_open(&options, &input, NULL), CB_OK);
    assert_memory_equal(cbi_input_header(input, &bytes), "top\n", 4);
    assert_int_equal(bytes, 4);
    cbi_input_close(input);
}

/* ---- what is wrong ---- */

static void expect_malformed(const char *file, size_t capacity, const char *message) {
    for (int stream = 0; stream < 2; stream++)
        for (unsigned threads = 0; threads < 4; threads++) {
            const char *path = stream ? kit_write_compressed("m.csv.gz", file, strlen(file),
                                                             CBI_COMPRESSION_GZIP, 1000)
                                      : kit_write_string("m.csv", file);
            cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
            cb_error err = {0};
            kit_text got = {0};
            options.header = CB_HEADER_AUTO;
            cb_status status = kit_read_all(&options, capacity, threads, NULL, 0, &got, &err);
            kit_free(&got);
            if (status != CB_EDATA || !strstr(err.message, message))
                fail_msg("stream %d, %u threads: %s: '%s' is not about '%s'", stream, threads,
                         cb_status_name(status), err.message, message);
        }
}

static void test_input_malformed_rows_are_named_with_line_and_column(void **state) {
    (void)state;
    expect_malformed("a,b\n1,2\nx\"y,2\n", 4096, ":3:2: a quote inside a field");
    expect_malformed("a,b\n1,2\n\"x\"y,2\n", 4096, ":3:4: something other");
    expect_malformed("a,b\n1,2\n\"x\"\ry,2\n", 4096, ":3:4: something other");
    expect_malformed("a,b\n\"1\n\n\",2\n\"\n\"\"\",3\n4\n", 4096,
                     ":7:2: the row has 1 field, the header has 2");
    expect_malformed("a,b\n1,2\n1,2,3,4\n", 4096, ":3:5: the row has 4 fields, the header has 2");
    expect_malformed("a,b\n1,2\n3,\"4\n5,6\n", 4096, ":3:3: this quote is never closed");
    expect_malformed("a,\"b\n", 4096, ":1:3: this quote is never closed");
    expect_malformed("a,b\"\n", 4096, ":1:4: a quote inside");
}

/* The first error counts, wherever the threads were; a quote that opens everything behind it is not
 * a row too large. */
static void test_input_first_malformed_row_is_reported_whoever_finds_one(void **state) {
    (void)state;
    kit_text file = {0};
    kit_add_string(&file, "a,b\n");
    for (int i = 0; i < 20000; i++) {
        char row[64];
        if (i == 1234)
            kit_add_string(&file, "stray\"quote,1\n");
        (void)snprintf(row, sizeof row, "%d,\"text, %d\"\n", i, i * 7);
        kit_add_string(&file, row);
    }
    const char *path = kit_write("first.csv", file.bytes, file.count);
    for (int round = 0; round < 40; round++) {
        cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
        cb_error err = {0};
        kit_text got = {0};
        options.header = CB_HEADER_AUTO;
        assert_int_equal(kit_read_all(&options, 300 + (size_t)round * 100, 4, NULL, 0, &got, &err),
                         CB_EDATA);
        if (!strstr(err.message, "first.csv:1236:6: a quote inside"))
            fail_msg("%s", err.message);
        kit_free(&got);
    }
    kit_free(&file);
}

static void test_input_quote_never_closed_in_a_large_file_is_malformed_not_large(void **state) {
    (void)state;
    kit_text file = {0};
    for (int i = 0; i < 3000; i++)
        kit_add_string(&file, i == 100 ? "1,\"2\n" : "1,2\n");
    const char *path = kit_write("open.csv", file.bytes, file.count);
    for (unsigned threads = 0; threads < 4; threads++) {
        cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
        cb_error err = {0};
        kit_text got = {0};
        assert_int_equal(kit_read_all(&options, 256, threads, NULL, 0, &got, &err), CB_EDATA);
        assert_non_null(strstr(err.message, "open.csv:101:3: this quote is never closed"));
        kit_free(&got);
        options.bad_rows = CB_BAD_ROWS_SKIP;
        assert_int_equal(kit_read_all(&options, 256, threads, NULL, 0, &got, &err), CB_OK);
        assert_int_equal(got.count, 100 * 4);
        kit_free(&got);
    }
    kit_free(&file);
}

/* ---- large rows ---- */

static void test_input_row_larger_than_the_buffer_asks_for_what_it_takes(void **state) {
    (void)state;
    for (int stream = 0; stream < 2; stream++)
        for (int csv = 0; csv < 2; csv++)
            for (unsigned threads = 0; threads < 4; threads++) {
                kit_text file = {0}, want = {0}, got = {0};
                for (int i = 0; i < 200; i++) {
                    size_t bytes = i % 50 == 20 ? 30000 : 10, start = file.count;
                    kit_add_string(&file, csv ? "\"" : "");
                    for (size_t b = 0; b < bytes; b++)
                        kit_add_byte(&file, csv && b % 9 == 0 ? '\n' : 'x');
                    kit_add_string(&file, csv ? "\",y" : "");
                    kit_add(&want, file.bytes + start, file.count - start);
                    kit_add_byte(&want, '\x02');
                    kit_add_byte(&file, '\n');
                }
                const char *path = stream
                                       ? kit_write_compressed("large.lz4", file.bytes, file.count,
                                                              CBI_COMPRESSION_LZ4, 9999)
                                       : kit_write("large", file.bytes, file.count);
                cbi_input_options options =
                    kit_options(&path, 1, csv ? CB_FORMAT_CSV : CB_FORMAT_LINES);
                cb_error err = {0};
                cb_status status = kit_read_all(&options, 1000, threads, NULL, 0, &got, &err);
                if (status != CB_OK)
                    fail_msg("%s", err.message);
                kit_same(&got, &want, "large rows");
                kit_free(&file);
                kit_free(&want);
                kit_free(&got);
            }
}

static void test_input_large_row_is_asked_for_exactly(void **state) {
    (void)state;
    kit_text file = {0};
    kit_add_string(&file, "short\n");
    for (int i = 0; i < 50000; i++)
        kit_add_byte(&file, 'l');
    kit_add_string(&file, "\nend\n");
    const char *path = kit_write("exact", file.bytes, file.count);
    cbi_input_options options = kit_options(&path, 1, CB_FORMAT_LINES);
    cbi_input *input = NULL;
    cb_error err = {0};
    uint8_t buf[64 * 1024];
    cbi_chunk chunk = {.buf = buf, .capacity = 4096};
    assert_int_equal(cbi_input_open(&options, &input, NULL), CB_OK);
    assert_int_equal(cbi_input_next(input, &chunk, &err), CB_EBUDGET);
    assert_int_equal(err.bytes_asked, 6 + 50001);
    assert_int_equal(err.bytes_had, 4096);
    chunk.capacity = (size_t)err.bytes_asked;
    assert_int_equal(cbi_input_next(input, &chunk, &err), CB_OK);
    assert_int_equal(chunk.bytes, 6 + 50001);
    assert_int_equal(cbi_input_next(input, &chunk, &err), CB_OK);
    assert_memory_equal(chunk.rows, "end\n", 4);
    assert_int_equal(chunk.file_offset, 6 + 50001);
    assert_int_equal(cbi_input_next(input, &chunk, &err), CB_OK);
    assert_int_equal(chunk.bytes, 0);
    assert_int_equal(cbi_input_bytes_done(input), cbi_input_bytes(input));
    cbi_input_close(input);
    kit_free(&file);
}

/* A malformed row is never too large to be left out. */
static void test_input_large_malformed_row_is_left_out_in_pieces(void **state) {
    (void)state;
    for (int stream = 0; stream < 2; stream++)
        for (unsigned threads = 0; threads < 4; threads++) {
            kit_text file = {0}, got = {0}, bad = {0};
            kit_add_string(&file, "1,2\n3,4\nx\"");
            for (int i = 0; i < 30000; i++)
                kit_add_byte(&file, i % 7 ? 'x' : '"');
            kit_add_string(&file, "\n5,6\n");
            const char *path = stream ? kit_write_compressed("lm.csv.zst", file.bytes, file.count,
                                                             CBI_COMPRESSION_ZSTD, 5000)
                                      : kit_write("lm.csv", file.bytes, file.count);
            cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
            options.bad_rows = CB_BAD_ROWS_FILE;
            options.bad_rows_path = kit_path("lm.bad");
            cb_error err = {0};
            cb_status status = kit_read_all(&options, 512, threads, NULL, 0, &got, &err);
            if (status != CB_OK)
                fail_msg("%s", err.message);
            assert_int_equal(got.count, 12);
            assert_memory_equal(got.bytes,
                                "1,2\x02"
                                "3,4\x02"
                                "5,6\x02",
                                12);
            struct stat st;
            assert_int_equal(cbi_sys_stat(options.bad_rows_path, &st), 0);
            assert_int_equal(st.st_size, 30000 + 3);
            kit_free(&file);
            kit_free(&got);
            kit_free(&bad);
        }
}

/* ---- files that are not what they seem ---- */

static void expect_open_error(const char *path, const char *message) {
    cbi_input_options options = kit_options(&path, 1, CB_FORMAT_LINES);
    cbi_input *input = NULL;
    cb_error err = {0};
    assert_int_equal(cbi_input_open(&options, &input, &err), CB_EIO);
    assert_null(input);
    if (!strstr(err.message, message))
        fail_msg("'%s' does not say '%s'", err.message, message);
}

static void test_input_that_cannot_be_opened_says_why(void **state) {
    (void)state;
    expect_open_error("/nowhere/at all", "cannot open /nowhere/at all: No such file or directory");
    expect_open_error(test_folder(), "Is a directory");
}

static void test_input_that_shrinks_is_an_error_and_growth_is_not_read(void **state) {
    (void)state;
    const char *path = kit_write_string("s.txt", "one\ntwo\nthree\n");
    cbi_input_options options = kit_options(&path, 1, CB_FORMAT_LINES);
    cbi_input *input = NULL;
    cb_error err = {0};
    uint8_t buf[64];
    cbi_chunk chunk = {.buf = buf, .capacity = sizeof buf};
    assert_int_equal(cbi_input_open(&options, &input, &err), CB_OK);
    (void)kit_write_string("s.txt", "one\ntwo");
    assert_int_equal(cbi_input_next(input, &chunk, &err), CB_EIO);
    assert_non_null(strstr(err.message, "became shorter while it was being read"));
    cbi_input_close(input);

    assert_int_equal(cbi_input_open(&options, &input, &err), CB_OK);
    (void)kit_write_string("s.txt", "one\ntwo and more\nmore\n");
    memset(&chunk.pending, 0, sizeof chunk.pending);
    assert_int_equal(cbi_input_next(input, &chunk, &err), CB_OK);
    assert_int_equal(chunk.bytes, 7);
    cbi_input_close(input);
}

static void test_input_failure_wakes_all_who_wait(void **state) {
    (void)state;
    kit_text file = {0};
    for (int i = 0; i < 5000; i++)
        kit_add_string(&file, "\"a\",b\n");
    const char *path = kit_write("w.csv", file.bytes, file.count);
    for (int round = 0; round < 20; round++) {
        (void)kit_write("w.csv", file.bytes, file.count);
        cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
        kit_reading r = {.capacity = 256, .rows_capacity = 100};
        kit_text got = {0};
        assert_int_equal(cbi_input_open(&options, &r.input, NULL), CB_OK);
        (void)kit_write("w.csv", file.bytes, file.count / 2);
        assert_int_equal(kit_read(&r, 4, &got), CB_EIO);
        cbi_input_close(r.input);
        kit_free(&got);
    }
    kit_free(&file);
}

static void test_input_from_a_pipe_is_recognised_by_its_first_bytes(void **state) {
    (void)state;
    kit_text file = {0}, want = {0};
    for (int i = 0; i < 30000; i++) {
        char row[32];
        int n = snprintf(row, sizeof row, "line %d\n", i);
        kit_add(&file, row, (size_t)n);
        kit_add(&want, row, (size_t)n - 1);
        kit_add_byte(&want, '\x02');
    }
    const char *plain = kit_write("p.txt", file.bytes, file.count);
    const char *gzip =
        kit_write_compressed("p.gz", file.bytes, file.count, CBI_COMPRESSION_GZIP, 100000);
    for (int compressed = 0; compressed < 2; compressed++) {
        char command[3 * TEST_PATH_MAX];
        const char *fifo = kit_path("fifo");
        (void)snprintf(command, sizeof command, "rm -f %s; mkfifo %s; (cat %s > %s) &", fifo, fifo,
                       compressed ? gzip : plain, fifo);
        assert_int_equal(system(command), 0);
        cbi_input_options options = kit_options(&fifo, 1, CB_FORMAT_LINES);
        kit_text got = {0};
        cb_error err = {0};
        cb_status status = kit_read_all(&options, 5000, 3, NULL, 0, &got, &err);
        if (status != CB_OK)
            fail_msg("%s", err.message);
        kit_same(&got, &want, "pipe");
        kit_free(&got);
    }
    kit_free(&file);
    kit_free(&want);
}

static void test_input_of_proc_is_read_although_it_has_no_size(void **state) {
    (void)state;
    const char *path = "/proc/self/status";
    cbi_input_options options = kit_options(&path, 1, CB_FORMAT_LINES);
    kit_text got = {0};
    assert_int_equal(kit_read_all(&options, 5000, 0, NULL, 0, &got, NULL), CB_OK);
    assert_true(got.count > 100);
    kit_free(&got);
}

static void test_input_more_files_than_are_kept_open(void **state) {
    (void)state;
    char names[200][40];
    const char *paths[200];
    kit_text want = {0};
    for (size_t i = 0; i < 200; i++) {
        (void)snprintf(names[i], sizeof names[i], "many%zu.csv", i);
        char text[64];
        (void)snprintf(text, sizeof text, "k,v\n%zu,a\n%zu,b\n", i, i);
        const char *path = kit_write_string(names[i], text);
        paths[i] = strdup(path);
        (void)snprintf(text, sizeof text, "%zu,a\x02%zu,b\x02", i, i);
        kit_add_string(&want, text);
    }
    cbi_input_options options = kit_options(paths, 200, CB_FORMAT_AUTO);
    options.header = CB_HEADER_AUTO;
    for (unsigned threads = 0; threads < 4; threads++) {
        kit_text got = {0};
        assert_int_equal(kit_read_all(&options, 4096, threads, NULL, 0, &got, NULL), CB_OK);
        kit_same(&got, &want, "many files");
        kit_free(&got);
    }
    kit_free(&want);
    for (size_t i = 0; i < 200; i++)
        free((void *)(uintptr_t)paths[i]);
}

static void test_input_bad_rows_never_go_over_an_input(void **state) {
    (void)state;
    const char *path = kit_write_string("self.csv", "1,2\n");
    cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
    cbi_input *input = NULL;
    options.bad_rows = CB_BAD_ROWS_FILE;
    options.bad_rows_path = path;
    assert_int_equal(cbi_input_open(&options, &input, NULL), CB_EINVAL);
    struct stat st;
    assert_int_equal(cbi_sys_stat(path, &st), 0);
    assert_int_equal(st.st_size, 4);
}

static void test_input_samples_are_whole_rows_from_everywhere(void **state) {
    (void)state;
    kit_text file = {0};
    kit_add_string(&file, "k,v\n");
    for (int i = 0; i < 10000; i++) {
        char row[64];
        (void)snprintf(row, sizeof row, "%05d,\"%d\n,\"\n", i, i);
        kit_add_string(&file, row);
    }
    const char *path = kit_write("sample.csv", file.bytes, file.count);
    cbi_input_options options = kit_options(&path, 1, CB_FORMAT_AUTO);
    cbi_input *input = NULL;
    options.header = CB_HEADER_AUTO;
    assert_int_equal(cbi_input_open(&options, &input, NULL), CB_OK);
    uint8_t buf[300];
    cbi_span spans[64], fields[64];
    const uint32_t column = 0;
    cbi_chunk chunk = {.buf = buf, .capacity = sizeof buf};
    int good = 0, last = -1;
    for (size_t i = 0; i < 100; i++) {
        cbi_rows rows = {.rows = spans, .fields = fields, .field_count = 1, .capacity = 64};
        size_t at = 0;
        assert_int_equal(cbi_input_sample(input, i, 100, &chunk, NULL), CB_OK);
        assert_int_equal(cbi_input_scan(input, &chunk, &at, &column, &rows, NULL), CB_OK);
        if (rows.count != 0) {
            char key[16] = "";
            memcpy(key, rows.base + fields[0].offset,
                   CBI_SPAN_BYTES(fields[0]) < 15 ? CBI_SPAN_BYTES(fields[0]) : 15);
            if (strlen(key) == 5 && atoi(key) > last) {
                good++;
                last = atoi(key);
            }
        }
    }
    assert_int_equal(good, 100);
    assert_int_equal(cbi_input_rows_bad(input), 0);
    kit_text got = {0};
    kit_reading r = {.input = input, .capacity = 500, .rows_capacity = 10};
    assert_int_equal(kit_read(&r, 2, &got), CB_OK);
    assert_int_equal(r.rows, 10000);
    kit_free(&got);
    cbi_input_close(input);
    kit_free(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_input_csv_rows_are_the_same_at_every_chunk_size_and_thread_count),
        cmocka_unit_test(test_input_compressed_csv_gives_the_same_rows),
        cmocka_unit_test(test_input_malformed_rows_are_left_out_and_written_exactly),
        cmocka_unit_test(test_input_lines_of_several_files),
        cmocka_unit_test(test_input_tsv_has_no_quotes),
        cmocka_unit_test(test_input_fixed_records),
        cmocka_unit_test(test_input_half_a_record_is_an_error_or_left_out),
        cmocka_unit_test(test_input_header_is_kept_and_must_be_the_same),
        cmocka_unit_test(test_input_header_of_lines_stays_out_of_the_rows),
        cmocka_unit_test(test_input_malformed_rows_are_named_with_line_and_column),
        cmocka_unit_test(test_input_first_malformed_row_is_reported_whoever_finds_one),
        cmocka_unit_test(test_input_quote_never_closed_in_a_large_file_is_malformed_not_large),
        cmocka_unit_test(test_input_row_larger_than_the_buffer_asks_for_what_it_takes),
        cmocka_unit_test(test_input_large_row_is_asked_for_exactly),
        cmocka_unit_test(test_input_large_malformed_row_is_left_out_in_pieces),
        cmocka_unit_test(test_input_that_cannot_be_opened_says_why),
        cmocka_unit_test(test_input_that_shrinks_is_an_error_and_growth_is_not_read),
        cmocka_unit_test(test_input_failure_wakes_all_who_wait),
        cmocka_unit_test(test_input_from_a_pipe_is_recognised_by_its_first_bytes),
        cmocka_unit_test(test_input_of_proc_is_read_although_it_has_no_size),
        cmocka_unit_test(test_input_more_files_than_are_kept_open),
        cmocka_unit_test(test_input_bad_rows_never_go_over_an_input),
        cmocka_unit_test(test_input_samples_are_whole_rows_from_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
