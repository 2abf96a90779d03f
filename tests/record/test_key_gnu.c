/* SPDX-License-Identifier: Apache-2.0 */

/*
 * GNU's keys against GNU's sort: random lines over hostile alphabets and random options are sorted
 * by the sort of this machine and by memcmp of our keys; the outputs must be the same bytes, and so
 * must the messages when options are refused. CARBIDE_TEST_ROUNDS (default 300) and
 * CARBIDE_TEST_SEED make longer and other runs.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "carbide/sort.h"
#include "record/key.h"

enum {
    LINES_MAX = 48,
    LINE_MAX_BYTES = 400,
    ARGS_MAX = 24,
    KEY_MAX_BYTES = 4096,
    TEXT_MAX = 64 * 1024
};

typedef struct scene {
    uint8_t input[TEXT_MAX];
    size_t input_bytes;
    size_t count;
    cbi_span spans[LINES_MAX];
    bool zero_terminated, stable, unique;
    char key_texts[4][64];
    const char *keys[4];
    size_t key_count;
    char global[16];
    int separator;
} scene;

static uint64_t random_state;

static uint64_t random_u64(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static size_t random_below(size_t n) {
    return (size_t)(random_u64() >> 11) % n;
}

/* ---- what GNU says ---- */

static size_t run_sort(const scene *s, uint8_t *out, size_t cap, bool *ok) {
    const char *args[ARGS_MAX];
    char separator[3] = {0};
    char global[24];
    size_t n = 0;
    args[n++] = "sort";
    if (s->stable)
        args[n++] = "-s";
    if (s->unique)
        args[n++] = "-u";
    if (s->zero_terminated)
        args[n++] = "-z";
    if (s->separator >= 0) {
        args[n++] = "-t";
        separator[0] = (char)s->separator;
        if (!s->separator)
            memcpy(separator, "\\0", 2);
        args[n++] = separator;
    }
    if (s->global[0]) {
        snprintf(global, sizeof global, "-%s", s->global);
        args[n++] = global;
    }
    for (size_t i = 0; i < s->key_count; i++) {
        args[n++] = "-k";
        args[n++] = s->keys[i];
    }
    args[n] = NULL;
    int input = memfd_create("lines", 0), pipes[2];
    assert_true(input >= 0);
    assert_int_equal(write(input, s->input, s->input_bytes), (ssize_t)s->input_bytes);
    lseek(input, 0, SEEK_SET);
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(input, 0);
        dup2(pipes[1], 1);
        dup2(pipes[1], 2);
        close(pipes[0]);
        setenv("LC_ALL", "C", 1);
        execvp("sort", (char *const *)(uintptr_t)args);
        _exit(127);
    }
    close(pipes[1]);
    close(input);
    size_t got = 0;
    ssize_t r;
    while ((r = read(pipes[0], out + got, cap - got)) > 0)
        got += (size_t)r;
    close(pipes[0]);
    int status = 0;
    waitpid(child, &status, 0);
    *ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    return got;
}

/* ---- what we say ---- */

typedef struct entry {
    uint8_t key[KEY_MAX_BYTES];
    size_t key_bytes, index;
    const uint8_t *line;
    size_t line_bytes;
} entry;

static entry entries[LINES_MAX];
static const cbi_keys *sorting_by;

static int compare_bytes(const uint8_t *a, size_t an, const uint8_t *b, size_t bn) {
    int order = memcmp(a, b, an < bn ? an : bn);
    return order ? order : (an > bn) - (an < bn);
}

static int compare_keys(const entry *x, const entry *y) {
    int order = compare_bytes(x->key, x->key_bytes, y->key, y->key_bytes);
    return cbi_keys_inverted(sorting_by) ? -order : order;
}

static int compare_entries(const void *a, const void *b) {
    const entry *x = a, *y = b;
    int order = compare_keys(x, y);
    if (order == 0 && cbi_keys_tie(sorting_by) == CBI_TIE_ROW) {
        order = compare_bytes(x->line, x->line_bytes, y->line, y->line_bytes);
        order = cbi_keys_tie_inverted(sorting_by) ? -order : order;
    }
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static void encode(const cbi_keys *keys, const cbi_rows *rows, size_t i, entry *e) {
    e->index = i;
    e->line = rows->base + rows->rows[i].offset;
    e->line_bytes = rows->rows[i].bytes;
    if (cbi_keys_shape(keys) == CBI_KEY_ROW) {
        memcpy(e->key, e->line, e->line_bytes);
        e->key_bytes = e->line_bytes;
        return;
    }
    e->key_bytes = cbi_keys_encode(keys, rows, i, e->key, sizeof e->key);
    assert_true(e->key_bytes <= sizeof e->key);
    /* Whatever the room, the same size and the same bytes as far as they go. */
    static uint8_t again[KEY_MAX_BYTES];
    size_t cap = random_below(e->key_bytes + 2);
    memset(again, 0xa5, sizeof again);
    assert_int_equal(cbi_keys_encode(keys, rows, i, again, cap), e->key_bytes);
    assert_memory_equal(again, e->key, cap < e->key_bytes ? cap : e->key_bytes);
    assert_int_equal(again[cap > e->key_bytes ? cap : e->key_bytes], 0xa5);
    if (cap < e->key_bytes)
        assert_int_equal(again[cap], 0xa5);
}

static size_t sort_ours(const scene *s, uint8_t *out, bool *ok) {
    cbi_keys_options options = {.keys = s->keys,
                                .key_count = s->key_count,
                                .global_order = s->global,
                                .field_separator = s->separator,
                                .gnu = true,
                                .stable = s->stable,
                                .unique = s->unique,
                                .format = CB_FORMAT_LINES};
    cbi_keys *keys = NULL;
    cb_error err = {0};
    *ok = cbi_keys_create(&options, &keys, &err) == CB_OK;
    if (!*ok)
        return (size_t)snprintf((char *)out, TEXT_MAX, "sort: %s\n", err.message);
    cbi_span spans[LINES_MAX];
    memcpy(spans, s->spans, sizeof spans);
    cbi_rows rows = {.base = s->input, .count = s->count, .capacity = s->count, .rows = spans};
    for (size_t i = 0; i < s->count; i++)
        encode(keys, &rows, i, &entries[i]);
    sorting_by = keys;
    qsort(entries, s->count, sizeof entries[0], compare_entries);
    size_t n = 0;
    for (size_t i = 0; i < s->count; i++) {
        if (s->unique && i > 0 && compare_keys(&entries[i - 1], &entries[i]) == 0)
            continue;
        memcpy(out + n, entries[i].line, entries[i].line_bytes);
        n += entries[i].line_bytes;
        out[n++] = s->zero_terminated ? 0 : '\n';
    }
    cbi_keys_destroy(keys);
    return n;
}

/* ---- scenes ---- */

static void print_scene(const scene *s) {
    print_message("options: -t %d global '%s' stable %d unique %d zero %d", s->separator, s->global,
                  s->stable, s->unique, s->zero_terminated);
    for (size_t i = 0; i < s->key_count; i++)
        print_message(" -k %s", s->keys[i]);
    print_message("\n");
}

static void print_lines(const char *title, const uint8_t *text, size_t bytes) {
    print_message("%s\n", title);
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] >= 0x20 && text[i] < 0x7f)
            print_message("%c", text[i]);
        else
            print_message(text[i] == '\n' ? "\n" : "\\%03o", text[i]);
    }
}

static void check_scene(const scene *s) {
    static uint8_t theirs[TEXT_MAX], ours[TEXT_MAX];
    bool they_ok, we_ok;
    size_t theirs_bytes = run_sort(s, theirs, sizeof theirs, &they_ok),
           ours_bytes = sort_ours(s, ours, &we_ok);
    if (they_ok == we_ok && theirs_bytes == ours_bytes && memcmp(theirs, ours, ours_bytes) == 0)
        return;
    print_scene(s);
    print_lines("GNU:", theirs, theirs_bytes);
    print_lines("ours:", ours, ours_bytes);
    fail_msg("the outputs differ");
}

static const char *const alphabets[] = {
    "ab ",
    "abAB\t ",
    "019.- ",
    "0.-",
    "0123456789.",
    "1.0-K kMGTPEZY",
    "09eE+-.xXp ",
    "aA1~.-_ ",
    ".~a0",
    "a.~0b9-",
    "01a",
    "\001\002\003ab\177\200\377",
    "\377\3760123.K ",
    "\001\n\t a",
    "inftyINFTY(-+) ",
    "0x1.8aAfFpP+-3",
    "\r\v\f 1-",
};

/* clang-format off */
static const char *const words[] = {
    "", " ", "-", "0", "-0", "00", "1", "01", "-1", "1.0", "1.50", "-1.5", ".5", "-.5", "5.",
    "1e3", "1E-3", "1000", "inf", "-inf", "INFINITY", "0x10", "0x1p4", "0x.8", "0x", "16", "JAN",
    "feb", " Mar", "decade", "Ju", "jul", "1K", "1k", "1024", "-1K", "1M", "999K", "1.5G", "0K",
    "1.K", "2m", "1Ki", "a.tar.gz", "a.tar", "a", "a1.c", "a01.c", "a10.c", "a2.c", ".", "..",
    ".a", "..a", "a~", "a.b~", "~", "a.~1~", "a0", "a00", "a0.b", "1.2.3", "1.10", "1.2-rc",
    "file.1a", "a.1", "a.b.1", "1,000", "+1", "1_0", "\"x\"", "a\tb", "x y", "1e400", "1e5000",
    "1e-5000", "1e-4951", "1.000000000000000000001", "0.1", "0.10000000000000000000001",
    "18446744073709551616", "123456789012345678901234567890", "123456789012345678901234567891",
    "12345678.12345678", "12345678.123456781", "123456789.1", "1234567890123456.1234567890123456",
    "12345678901234567.1", "0.0000000000000001", "0.00000000000000001", "-12345678.5",
    "-123456789.25", "100", "1e2", "99999999", "100000000", "na", "+inf", "-infin",
};
/* clang-format on */

/* One or several fields of words or of bytes of one alphabet. */
static size_t random_line(uint8_t *out, bool zero_terminated, int separator) {
    size_t n = 0, fields = random_below(4) + (random_below(8) > 0);
    const char *alphabet = alphabets[random_below(sizeof alphabets / sizeof alphabets[0])];
    size_t letters = strlen(alphabet);
    for (size_t f = 0; f < fields; f++) {
        if (f > 0)
            out[n++] = separator >= 0 && random_below(8) ? (uint8_t)separator : ' ';
        if (random_below(3)) {
            const char *word = words[random_below(sizeof words / sizeof words[0])];
            size_t bytes = strlen(word);
            memcpy(out + n, word, bytes);
            n += bytes;
        } else {
            for (size_t left = random_below(random_below(20) ? 12 : 60); left; left--)
                out[n++] = (uint8_t)alphabet[random_below(letters)];
        }
        if (random_below(40) == 0)
            out[n++] = 0;
    }
    for (size_t i = 0; i < n; i++) {
        if (zero_terminated ? out[i] == 0 : out[i] == '\n')
            out[i] = 'n';
    }
    return n;
}

static void random_letters(char *out, size_t most, bool random) {
    static const char letters[] = "bdfgiMhnrVbrfnV";
    size_t n = random_below(most + 1);
    for (size_t i = 0; i < n; i++)
        *out++ = letters[random_below(sizeof letters - 1)];
    if (random && random_below(10) == 0)
        *out++ = 'R';
    *out = 0;
}

static void random_position(char *out, size_t cap, bool end) {
    size_t n = (size_t)snprintf(out, cap, "%zu", random_below(4) + (random_below(200) > 0));
    if (random_below(2))
        n += (size_t)snprintf(out + n, cap - n, ".%zu",
                              random_below(5) + (!end && random_below(100) > 0));
    if (random_below(300) == 0)
        snprintf(out + n, cap - n, "%s",
                 random_below(2) ? "0000999" : "x"); /* beyond 2^63 GNU wraps around */
}

static void random_scene(scene *s, bool refusals) {
    memset(s, 0, sizeof *s);
    static const int separators[] = {-1, -1, -1, ',', '\t', ' ', 'a', '1', '.', 0, 0xff};
    s->zero_terminated = random_below(6) == 0;
    s->stable = random_below(3) > 0;
    s->unique = random_below(6) == 0;
    s->separator = separators[random_below(sizeof separators / sizeof separators[0])];
    if (s->separator > 0 && random_below(2))
        s->separator = ',';
    random_letters(s->global, random_below(3) ? 0 : 2, refusals);
    s->key_count = random_below(4);
    for (size_t i = 0; i < s->key_count; i++) {
        char start[32], start_letters[8], end[32] = "", end_letters[8] = "";
        random_position(start, sizeof start, false);
        random_letters(start_letters, 2, refusals);
        if (random_below(3)) {
            end[0] = ',';
            random_position(end + 1, sizeof end - 1, true);
            random_letters(end_letters, 1, false);
        }
        snprintf(s->key_texts[i], sizeof s->key_texts[i], "%.24s%.7s%.24s%.7s", start,
                 start_letters, end, end_letters);
        s->keys[i] = s->key_texts[i];
    }
    s->count = 1 + random_below(LINES_MAX);
    for (size_t i = 0; i < s->count; i++) {
        uint8_t *at = s->input + s->input_bytes;
        size_t n = random_line(at, s->zero_terminated, s->separator);
        assert_true(n < LINE_MAX_BYTES);
        s->spans[i] = (cbi_span){(uint32_t)s->input_bytes, (uint32_t)n};
        at[n] = s->zero_terminated ? 0 : '\n';
        s->input_bytes += n + 1;
    }
}

static size_t rounds(void) {
    const char *text = getenv("CARBIDE_TEST_ROUNDS"), *seed = getenv("CARBIDE_TEST_SEED");
    random_state = (seed ? strtoull(seed, NULL, 10) : 1) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    return text ? strtoull(text, NULL, 10) : 300;
}

/* The oracle must be the version whose rules we follow: later ones changed -V and nans. */
static void require_oracle(void) {
    char line[80] = "";
    FILE *version = popen("LC_ALL=C sort --version", "r");
    if (version && !fgets(line, sizeof line, version))
        line[0] = 0;
    if (version)
        pclose(version);
    if (strcmp(line, "sort (GNU coreutils) 9.1\n") != 0) {
        print_message("not compared: this machine's sort is %s", line[0] ? line : "missing\n");
        skip();
    }
}

/* No key has R here, whose order is everybody's own. */
static void test_keys_random_lines_are_sorted_as_gnu_sorts_them(void **state) {
    (void)state;
    require_oracle();
    static scene s;
    for (size_t left = rounds(); left; left--) {
        random_scene(&s, false);
        check_scene(&s);
    }
}

/* Nans of different bits only: whether GNU finds equal ones equal depends on what was in its
 * registers. */
static void test_keys_nans_are_ordered_as_gnu_orders_them(void **state) {
    (void)state;
    require_oracle();
    static const char *const nans[] = {"nan(07)",      "-nan",   "nan(99999999999999999999)",
                                       "inf",          "nan",    "-inf",
                                       "-nan(0x5)",    "NaN(1)", "x",
                                       "nan(0x10000)", "-1e400"};
    static scene s;
    memset(&s, 0, sizeof s);
    s.separator = -1;
    s.stable = true;
    for (size_t i = 0; i < sizeof nans / sizeof nans[0]; i++) {
        size_t n = strlen(nans[i]);
        s.spans[s.count++] = (cbi_span){(uint32_t)s.input_bytes, (uint32_t)n};
        memcpy(s.input + s.input_bytes, nans[i], n);
        s.input[s.input_bytes + n] = '\n';
        s.input_bytes += n + 1;
    }
    snprintf(s.global, sizeof s.global, "g");
    check_scene(&s);
    snprintf(s.global, sizeof s.global, "gr");
    check_scene(&s);
}

/* One letter at a time, so that every order meets all the words beside each other. */
static void test_keys_each_letter_orders_words_as_gnu_does(void **state) {
    (void)state;
    require_oracle();
    static scene s;
    static const char *const orders[] = {"",    "b",  "d",  "f",  "i",  "g",  "M",  "h",
                                         "n",   "V",  "r",  "df", "fh", "fV", "dV", "iV",
                                         "dfr", "nr", "gr", "Vr", "hr", "Mr"};
    for (size_t left = rounds(); left; left--) {
        random_scene(&s, false);
        s.key_count = 0;
        s.unique = false;
        s.stable = true;
        snprintf(s.global, sizeof s.global, "%s",
                 orders[random_below(sizeof orders / sizeof orders[0])]);
        check_scene(&s);
    }
}

static void test_keys_refusals_are_gnus(void **state) {
    (void)state;
    require_oracle();
    static scene s;
    static const char *const texts[] = {
        "0",   "x",     "",     "1.0",   "1.x", "1,",    "1,0",  "1,x",         "1q",    "1,1q",
        "1nM", "1nVrb", "1dVR", "1,1.0", "-1",  " 1",    "+1",   "1 ",          "1.2.3", "1'\\\a",
        "1gh", "1Mi",   "1hd",  "2nR",   "1id", "1\303", "1,2,", "1.1bg,1.2bhd"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (size_t second = 0; second < 3; second++) {
            memset(&s, 0, sizeof s);
            s.separator = -1;
            s.stable = true;
            s.count = 1;
            s.input[0] = '\n';
            s.input_bytes = 1;
            s.keys[s.key_count++] = texts[i];
            if (second)
                s.keys[s.key_count++] = second == 1 ? "1nM" : "0";
            check_scene(&s);
        }
    }
    for (size_t left = rounds() / 4; left; left--) {
        random_scene(&s, true);
        s.count = 1; /* only R's messages are GNU's, not its order */
        s.input_bytes = s.spans[0].bytes + 1;
        check_scene(&s);
    }
}

/* -R: equal keys side by side, different ones in an order that is not theirs. */
static void test_keys_random_order_keeps_equal_keys_together(void **state) {
    (void)state;
    static const char *const texts[] = {"1,1Rf"};
    cbi_keys_options options = {.keys = texts,
                                .key_count = 1,
                                .field_separator = -1,
                                .gnu = true,
                                .stable = true,
                                .format = CB_FORMAT_LINES};
    cbi_keys *keys = NULL;
    assert_int_equal(cbi_keys_create(&options, &keys, NULL), CB_OK);
    static const char text[] = "ab 1ax 2AB 3ac 4";
    cbi_span spans[] = {{0, 4}, {4, 4}, {8, 4}, {12, 4}};
    cbi_rows rows = {.base = (const uint8_t *)text, .count = 4, .capacity = 4, .rows = spans};
    for (size_t i = 0; i < 4; i++)
        encode(keys, &rows, i, &entries[i]);
    assert_true(compare_bytes(entries[0].key, entries[0].key_bytes, entries[2].key,
                              entries[2].key_bytes) == 0);
    assert_true(compare_bytes(entries[0].key, entries[0].key_bytes, entries[1].key,
                              entries[1].key_bytes) != 0);
    assert_true(compare_bytes(entries[1].key, entries[1].key_bytes, entries[3].key,
                              entries[3].key_bytes) != 0);
    cbi_keys_destroy(keys);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_each_letter_orders_words_as_gnu_does),
        cmocka_unit_test(test_keys_random_lines_are_sorted_as_gnu_sorts_them),
        cmocka_unit_test(test_keys_nans_are_ordered_as_gnu_orders_them),
        cmocka_unit_test(test_keys_refusals_are_gnus),
        cmocka_unit_test(test_keys_random_order_keeps_equal_keys_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
