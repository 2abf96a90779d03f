/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What bench/ needs that must be fast and must not be carbide: inputs, a judge of outputs, the
 * limits of the machine.
 *
 *     tool gen-lines ROWS SEED FILE       100-byte text records in the sort benchmark's shape, CRLF
 * ends tool gen-fixed ROWS SEED FILE       100-byte binary records, 10-byte random key tool gen-csv
 * ROWS SEED FILE       nine columns: id1..id3 strings, id4..id6 and v1, v2 integers, v3 decimal
 *     tool check     KIND FILE            KIND: lines, fixed (key: bytes 0-9), csv (id3 ascending,
 * v3 descending, header) tool limits    FOLDER [BYTES]       direct disk bandwidth and memcpy
 *
 * check prints JSON: rows, bytes, whether they are in order (and the first row that is not), and
 * the sum of the rows' hashes, which is the same for any order of the same rows. The carriage
 * return before a line feed is left out of hash and order, because some peers read CRLF and write
 * LF.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    RECORD = 100,
    KEY = 10,
    OUT_SPACE = 1 << 20,
    CSV_FIELDS = 9,
    CSV_STRING = 2,
    CSV_NUMBER = 8
};

static _Noreturn void die(const char *what) {
    fprintf(stderr, "tool: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- generating ---- */

static uint64_t random_next(uint64_t *state) { /* splitmix64 */
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

typedef struct sink {
    int fd;
    size_t used;
    char *bytes;
} sink;

static void sink_open(sink *s, const char *path) {
    s->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    s->bytes = malloc(OUT_SPACE);
    s->used = 0;
    if (s->fd < 0 || s->bytes == NULL) {
        die(path);
    }
}

static void sink_flush(sink *s) {
    for (size_t done = 0; done < s->used;) {
        ssize_t n = write(s->fd, s->bytes + done, s->used - done);
        if (n < 0) {
            die("write");
        }
        done += (size_t)n;
    }
    s->used = 0;
}

/* Room for `bytes` more, at most OUT_SPACE. */
static char *sink_room(sink *s, size_t bytes) {
    if (s->used + bytes > OUT_SPACE) {
        sink_flush(s);
    }
    return s->bytes + s->used;
}

static void sink_close(sink *s) {
    sink_flush(s);
    if (close(s->fd) != 0) {
        die("close");
    }
    free(s->bytes);
}

static void gen_line(char *r, uint64_t row, uint64_t *seed) {
    static const char hex[] = "0123456789ABCDEF";
    for (int i = 0; i < KEY; i++) {
        r[i] = (char)(' ' + random_next(seed) % 95);
    }
    r[10] = r[11] = ' ';
    for (int i = 0; i < 32; i++) {
        r[12 + i] = i < 16 ? '0' : hex[(row >> (4 * (31 - i))) & 15];
    }
    r[44] = r[45] = ' ';
    uint64_t filler = random_next(seed);
    for (int i = 0; i < 52; i++) {
        r[46 + i] = hex[(filler >> (4 * (i / 4))) & 15];
    }
    r[98] = '\r';
    r[99] = '\n';
}

static void gen_fixed(char *r, uint64_t row, uint64_t *seed) {
    uint64_t words[2] = {random_next(seed), random_next(seed)};
    memcpy(r, words, KEY);
    memset(r + KEY, 0, RECORD - KEY);
    memcpy(r + 12, &row, sizeof row);
    uint64_t filler = random_next(seed);
    for (int i = 0; i < 72; i++) {
        r[28 + i] = (char)(filler >> (8 * (i % 8)));
    }
}

/* The number's shortest form, never whole, never below 0.001: every engine writes it as it stands
 * here. */
static int gen_decimal(char *out, size_t space, uint64_t *seed) {
    uint64_t micros = 1000 + random_next(seed) % (100u * 1000000u - 1000);
    if (micros % 1000000 == 0) {
        micros++;
    }
    int n = snprintf(out, space, "%" PRIu64 ".%06" PRIu64, micros / 1000000, micros % 1000000);
    while (out[n - 1] == '0') {
        n--;
    }
    return n;
}

static size_t gen_csv_row(char *out, size_t space, uint64_t rows, uint64_t *seed) {
    enum { K = 100 };
    uint64_t groups = rows / K + 1;
    int n = snprintf(out, space,
                     "id%03" PRIu64 ",id%03" PRIu64 ",id%010" PRIu64 ",%" PRIu64 ",%" PRIu64
                     ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",",
                     1 + random_next(seed) % K, 1 + random_next(seed) % K,
                     1 + random_next(seed) % groups, 1 + random_next(seed) % K,
                     1 + random_next(seed) % K, 1 + random_next(seed) % groups,
                     1 + random_next(seed) % 5, 1 + random_next(seed) % 15);
    n += gen_decimal(out + n, space - (size_t)n, seed);
    out[n++] = '\n';
    return (size_t)n;
}

static int generate(const char *kind, uint64_t rows, uint64_t seed, const char *path) {
    sink s;
    sink_open(&s, path);
    if (strcmp(kind, "gen-csv") == 0) {
        static const char header[] = "id1,id2,id3,id4,id5,id6,v1,v2,v3\n";
        memcpy(sink_room(&s, sizeof header), header, sizeof header - 1);
        s.used += sizeof header - 1;
    }
    for (uint64_t row = 0; row < rows; row++) {
        char *room = sink_room(&s, 256);
        if (strcmp(kind, "gen-csv") == 0) {
            s.used += gen_csv_row(room, 256, rows, &seed);
            continue;
        }
        if (strcmp(kind, "gen-lines") == 0) {
            gen_line(room, row, &seed);
        } else {
            gen_fixed(room, row, &seed);
        }
        s.used += RECORD;
    }
    sink_close(&s);
    return 0;
}

/* ---- checking ---- */

/* Order-independent and good enough to see one changed byte among 1e8 rows; not against an
 * adversary. */
static uint64_t hash_row(const unsigned char *p, size_t n) {
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t w;
        memcpy(&w, p, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    uint64_t w = 0;
    memcpy(&w, p, n);
    h = (h ^ w) * 0xc4ceb9fe1a85ec53u;
    return h ^ (h >> 29);
}

typedef struct span {
    const unsigned char *at;
    size_t bytes;
} span;

static int span_compare(span a, span b) {
    int order = memcmp(a.at, b.at, a.bytes < b.bytes ? a.bytes : b.bytes);
    return order != 0 ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

/* The generated CSV has no quotes, so commas split it. */
static void csv_fields(span row, span fields[CSV_FIELDS]) {
    const unsigned char *at = row.at, *end = row.at + row.bytes;
    for (int i = 0; i < CSV_FIELDS; i++) {
        const unsigned char *comma = memchr(at, ',', (size_t)(end - at));
        const unsigned char *stop = comma == NULL ? end : comma;
        fields[i] = (span){at, (size_t)(stop - at)};
        at = comma == NULL ? end : comma + 1;
    }
}

static double span_number(span s) {
    char text[64];
    size_t n = s.bytes < sizeof text - 1 ? s.bytes : sizeof text - 1;
    memcpy(text, s.at, n);
    text[n] = '\0';
    return strtod(text, NULL);
}

/* A copy without quotes, for peers that quote all strings; the two last rows have to stay. */
static span csv_unquoted(span row) {
    static unsigned char copies[2][512];
    static unsigned turn;
    if (row.bytes > sizeof copies[0] || memchr(row.at, '"', row.bytes) == NULL) {
        return row;
    }
    unsigned char *copy = copies[turn++ % 2];
    size_t n = 0;
    for (size_t i = 0; i < row.bytes; i++) {
        if (row.at[i] != '"') {
            copy[n++] = row.at[i];
        }
    }
    return (span){copy, n};
}

static bool csv_in_order(span a, span b) {
    span left[CSV_FIELDS], right[CSV_FIELDS];
    csv_fields(a, left);
    csv_fields(b, right);
    int order = span_compare(left[CSV_STRING], right[CSV_STRING]);
    return order != 0 ? order < 0 : span_number(left[CSV_NUMBER]) >= span_number(right[CSV_NUMBER]);
}

typedef enum check_kind { CHECK_LINES, CHECK_FIXED, CHECK_CSV } check_kind;

static bool rows_in_order(check_kind kind, span a, span b) {
    switch (kind) {
        case CHECK_FIXED: return memcmp(a.at, b.at, KEY) <= 0;
        case CHECK_CSV: return csv_in_order(a, b);
        case CHECK_LINES: break;
    }
    return span_compare(a, b) <= 0;
}

/* The next row, and where the one after it begins. */
static const unsigned char *row_next(check_kind kind, const unsigned char *at,
                                     const unsigned char *end, span *row) {
    if (kind == CHECK_FIXED) {
        size_t n = (size_t)(end - at) < RECORD ? (size_t)(end - at) : RECORD;
        *row = (span){at, n};
        return at + n;
    }
    const unsigned char *newline = memchr(at, '\n', (size_t)(end - at));
    const unsigned char *stop = newline == NULL ? end : newline;
    *row = (span){at, (size_t)(stop - at)};
    if (row->bytes > 0 && stop[-1] == '\r') {
        row->bytes--;
    }
    return newline == NULL ? end : newline + 1;
}

static int check(const char *kind_name, const char *path) {
    check_kind kind = strcmp(kind_name, "csv") == 0     ? CHECK_CSV
                      : strcmp(kind_name, "fixed") == 0 ? CHECK_FIXED
                                                        : CHECK_LINES;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) {
        die(path);
    }
    size_t bytes = (size_t)st.st_size;
    const unsigned char *base =
        bytes == 0 ? NULL : mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (base == MAP_FAILED) {
        die("mmap");
    }
    madvise((void *)(uintptr_t)base, bytes, MADV_SEQUENTIAL);
    uint64_t rows = 0, sum = 0, disorder = 0;
    span previous = {0}, row = {0}, header = {0};
    const unsigned char *at = base, *end = base + bytes;
    if (kind == CHECK_CSV && bytes > 0) {
        at = row_next(kind, at, end, &header);
        header = csv_unquoted(header);
        sum += hash_row(header.at, header.bytes);
    }
    while (at < end) {
        at = row_next(kind, at, end, &row);
        row = kind == CHECK_CSV ? csv_unquoted(row) : row;
        sum += hash_row(row.at, row.bytes);
        if (rows > 0 && disorder == 0 && !rows_in_order(kind, previous, row)) {
            disorder = rows + 1;
        }
        previous = row;
        rows++;
    }
    printf("{\"rows\": %" PRIu64 ", \"bytes\": %zu, \"sum\": \"%016" PRIx64
           "\", \"ordered\": %s, \"disorder_row\": %" PRIu64 "}\n",
           rows, bytes, sum, disorder == 0 ? "true" : "false", disorder);
    return 0;
}

/* ---- the machine's limits ---- */

enum { IO_REQUEST = 2 << 20, IO_THREADS = 2 };

typedef struct io_job {
    int fd;
    bool writing;
    uint64_t from, to; /* bytes of the file, multiples of IO_REQUEST */
    bool failed;
} io_job;

static void *io_work(void *ctx) {
    io_job *job = ctx;
    void *buffer = NULL;
    if (posix_memalign(&buffer, 4096, IO_REQUEST) != 0) {
        job->failed = true;
        return NULL;
    }
    memset(buffer, 0x5b, IO_REQUEST);
    for (uint64_t at = job->from; at < job->to && !job->failed; at += IO_REQUEST) {
        ssize_t n = job->writing ? pwrite(job->fd, buffer, IO_REQUEST, (off_t)at)
                                 : pread(job->fd, buffer, IO_REQUEST, (off_t)at);
        job->failed = n != IO_REQUEST;
    }
    free(buffer);
    return NULL;
}

/* Bytes a second, 0 when it failed. */
static double io_rate(int fd, bool writing, uint64_t bytes) {
    pthread_t threads[IO_THREADS];
    io_job jobs[IO_THREADS];
    uint64_t share = bytes / IO_THREADS / IO_REQUEST * IO_REQUEST;
    double start = seconds_now();
    for (int i = 0; i < IO_THREADS; i++) {
        jobs[i] = (io_job){.fd = fd,
                           .writing = writing,
                           .from = (uint64_t)i * share,
                           .to = (uint64_t)(i + 1) * share};
        if (pthread_create(&threads[i], NULL, io_work, &jobs[i]) != 0) {
            die("thread");
        }
    }
    bool failed = false;
    for (int i = 0; i < IO_THREADS; i++) {
        pthread_join(threads[i], NULL);
        failed = failed || jobs[i].failed;
    }
    return failed ? 0 : (double)(share * IO_THREADS) / (seconds_now() - start);
}

static double memcpy_rate(void) {
    enum { BYTES = 256 << 20, TIMES = 4 };
    char *from = malloc(BYTES), *to = malloc(BYTES);
    if (from == NULL || to == NULL) {
        die("memory");
    }
    memset(from, 1, BYTES);
    memset(to, 2, BYTES);
    double start = seconds_now();
    for (int i = 0; i < TIMES; i++) {
        from[i] = (char)i;
        memcpy(to, from, BYTES);
        __asm__ volatile("" ::"r"(to) : "memory");
    }
    double rate = (double)BYTES * (double)TIMES / (seconds_now() - start);
    free(from);
    free(to);
    return rate;
}

static int limits(const char *folder, uint64_t bytes) {
    char path[4096];
    snprintf(path, sizeof path, "%s/limits.tmp", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_DIRECT, 0600);
    bool direct = fd >= 0;
    if (!direct) {
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    }
    if (fd < 0) {
        die(path);
    }
    unlink(path);
    double written = io_rate(fd, true, bytes);
    double read = io_rate(fd, false, bytes);
    close(fd);
    printf("{\"direct\": %s, \"write_bytes_s\": %.0f, \"read_bytes_s\": %.0f, \"memcpy_bytes_s\": "
           "%.0f}\n",
           direct ? "true" : "false", written, read, memcpy_rate());
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 5 && strncmp(argv[1], "gen-", 4) == 0) {
        return generate(argv[1], strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10), argv[4]);
    }
    if (argc == 4 && strcmp(argv[1], "check") == 0) {
        return check(argv[2], argv[3]);
    }
    if ((argc == 3 || argc == 4) && strcmp(argv[1], "limits") == 0) {
        return limits(argv[2], argc == 4 ? strtoull(argv[3], NULL, 10) : (uint64_t)1 << 30);
    }
    fputs("usage: tool gen-lines|gen-fixed|gen-csv ROWS SEED FILE | check lines|fixed|csv FILE | "
          "limits FOLDER [BYTES]\n",
          stderr);
    return 2;
}
