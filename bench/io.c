/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the disk under a folder can do with direct I/O: write and read bandwidth for requests of 64
 * KiB to 4 MiB, by 1, 2 and 4 threads with blocking calls and, where liburing is there, by one
 * thread with 1, 2 and 4 requests in an io_uring, with and without registered buffers. Prints JSON.
 *
 *     io [FOLDER [MEBIBYTES [ROUNDS]]]        (., 512, 3)
 *
 * Rounds alternate all of them; the median counts, noise is the norm. Write runs go first, over
 * fresh space, then reads.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/sys.h"

#ifdef __has_include
#if __has_include(<liburing.h>) && defined(CARBIDE_BENCH_LIBURING)
#define HAVE_URING 1
#endif
#endif
#ifdef HAVE_URING
#include <liburing.h>
#else
#define HAVE_URING 0
#endif

enum { THREADS_MAX = 4, ROUNDS_MAX = 9, SIZES = 4, WAYS = 9 };

typedef enum way_kind { WAY_THREADS, WAY_RING, WAY_RING_FIXED } way_kind;

typedef struct way {
    const char *name;
    way_kind kind;
    unsigned depth;
} way;

static const way ways[WAYS] = {
    {"threads", WAY_THREADS, 1},
    {"threads", WAY_THREADS, 2},
    {"threads", WAY_THREADS, 4},
    {"io_uring", WAY_RING, 1},
    {"io_uring", WAY_RING, 2},
    {"io_uring", WAY_RING, 4},
    {"io_uring, registered buffers", WAY_RING_FIXED, 1},
    {"io_uring, registered buffers", WAY_RING_FIXED, 2},
    {"io_uring, registered buffers", WAY_RING_FIXED, 4},
};

static const size_t sizes[SIZES] = {64 * 1024, 256 * 1024, 1024 * 1024, 4096 * 1024};

typedef struct run {
    int fd;
    bool write;
    size_t size;
    uint64_t total;
    atomic_uint_fast64_t next;
    uint8_t *buffers; /* size bytes for each depth */
} run;

typedef struct worker {
    run *run;
    uint8_t *buffer;
    cbi_thread thread;
} worker;

_Noreturn static void die(const char *what, int result) {
    (void)fprintf(stderr, "io: %s: %s\n", what, strerror(result < 0 ? -result : result));
    exit(2);
}

static void work(void *ctx) {
    worker *w = ctx;
    run *r = w->run;
    for (;;) {
        uint64_t at = atomic_fetch_add(&r->next, r->size);
        if (at >= r->total) {
            return;
        }
        ssize_t result = r->write ? cbi_sys_pwrite(r->fd, w->buffer, r->size, at)
                                  : cbi_sys_pread(r->fd, w->buffer, r->size, at);
        if (result < 0) {
            die("transfer", (int)result);
        }
    }
}

static void run_threads(run *r, unsigned depth) {
    worker workers[THREADS_MAX] = {0};
    for (unsigned i = 0; i < depth; i++) {
        workers[i] = (worker){.run = r, .buffer = r->buffers + i * r->size};
        if (cbi_thread_start(&workers[i].thread, work, &workers[i], "io", NULL) != CB_OK) {
            die("thread", EAGAIN);
        }
    }
    for (unsigned i = 0; i < depth; i++) {
        cbi_thread_join(&workers[i].thread);
    }
}

#if HAVE_URING
static void queue_one(struct io_uring *ring, run *r, unsigned slot, bool fixed) {
    uint64_t at = atomic_fetch_add(&r->next, r->size);
    if (at >= r->total) {
        return;
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    uint8_t *buffer = r->buffers + slot * r->size;
    if (fixed && r->write) {
        io_uring_prep_write_fixed(sqe, r->fd, buffer, (unsigned)r->size, at, (int)slot);
    } else if (fixed) {
        io_uring_prep_read_fixed(sqe, r->fd, buffer, (unsigned)r->size, at, (int)slot);
    } else if (r->write) {
        io_uring_prep_write(sqe, r->fd, buffer, (unsigned)r->size, at);
    } else {
        io_uring_prep_read(sqe, r->fd, buffer, (unsigned)r->size, at);
    }
    io_uring_sqe_set_data(sqe, (void *)(uintptr_t)(slot + 1));
}

static bool run_ring(run *r, unsigned depth, bool fixed) {
    struct io_uring ring;
    if (io_uring_queue_init(8, &ring, 0) < 0) {
        return false;
    }
    struct iovec iov[THREADS_MAX];
    for (unsigned i = 0; i < depth; i++) {
        iov[i] = (struct iovec){r->buffers + i * r->size, r->size};
    }
    bool works = !fixed || io_uring_register_buffers(&ring, iov, depth) >= 0;
    for (unsigned i = 0; works && i < depth; i++) {
        queue_one(&ring, r, i, fixed);
    }
    for (uint64_t done = 0; works && done < r->total; done += r->size) {
        struct io_uring_cqe *cqe;
        int result = io_uring_submit_and_wait(&ring, 1);
        result = result < 0 ? result : io_uring_wait_cqe(&ring, &cqe);
        if (result < 0 || cqe->res != (int)r->size) {
            die("ring", result < 0 ? result : EIO);
        }
        unsigned slot = (unsigned)(uintptr_t)io_uring_cqe_get_data(cqe) - 1;
        io_uring_cqe_seen(&ring, cqe);
        queue_one(&ring, r, slot, fixed);
    }
    io_uring_queue_exit(&ring);
    return works;
}
#endif

/* GB/s; 0: this way does not work here. */
static double measure(run *r, const way *w) {
    atomic_store(&r->next, 0);
    uint64_t began = cbi_sys_clock_ns();
    if (w->kind == WAY_THREADS) {
        run_threads(r, w->depth);
    } else {
#if HAVE_URING
        if (!run_ring(r, w->depth, w->kind == WAY_RING_FIXED)) {
            return 0;
        }
#else
        return 0;
#endif
    }
    return (double)r->total / (double)(cbi_sys_clock_ns() - began);
}

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *figures, unsigned count) {
    qsort(figures, count, sizeof *figures, by_size);
    return figures[count / 2];
}

static int open_fresh(const char *folder, uint64_t total) {
    int fd = cbi_sys_open(folder, O_TMPFILE | O_RDWR, 0600);
    if (fd < 0) {
        die(folder, fd);
    }
    int result = cbi_sys_set_direct(fd, true);
    if (result < 0) {
        die("direct I/O", result);
    }
    result = cbi_sys_fallocate(fd, 0, 0, total);
    if (result < 0 && result != -EOPNOTSUPP) {
        die("fallocate", result);
    }
    return fd;
}

static void measure_size(const char *folder, size_t size, uint64_t total, unsigned rounds,
                         bool last) {
    static double figures[2][WAYS][ROUNDS_MAX];
    uint8_t *buffers = cbi_sys_map(size * THREADS_MAX);
    if (buffers == NULL) {
        die("memory", ENOMEM);
    }
    memset(buffers, 'x', size * THREADS_MAX);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned i = 0; i < WAYS; i++) {
            run r = {
                .size = size, .total = total, .buffers = buffers, .fd = open_fresh(folder, total)};
            r.write = true;
            figures[0][i][round] = measure(&r, &ways[i]);
            r.write = false;
            figures[1][i][round] = figures[0][i][round] > 0 ? measure(&r, &ways[i]) : 0;
            (void)cbi_sys_close(r.fd);
        }
    }
    for (unsigned i = 0; i < WAYS; i++) {
        double write = median(figures[0][i], rounds);
        double read = median(figures[1][i], rounds);
        (void)printf(
            "    {\"request_kib\": %zu, \"by\": \"%s\", \"at_once\": %u, \"write_gbs\": %.2f, "
            "\"read_gbs\": %.2f}%s\n",
            size / 1024, ways[i].name, ways[i].depth, write, read,
            last && i + 1 == WAYS ? "" : ",");
    }
    (void)fflush(stdout);
    cbi_sys_unmap(buffers, size * THREADS_MAX);
}

int main(int argc, char **argv) {
    const char *folder = argc > 1 ? argv[1] : ".";
    uint64_t mebibytes = argc > 2 ? strtoull(argv[2], NULL, 10) : 512;
    unsigned rounds = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : 3;
    rounds = (unsigned)cbi_clamp(rounds, 1, ROUNDS_MAX);
    uint64_t total = cbi_round_up(cbi_max(mebibytes, 4), 4) * CBI_MIB;
    (void)printf("{\n  \"folder\": \"%s\", \"mib\": %llu, \"rounds\": %u, \"io_uring\": %s,\n  "
                 "\"runs\": [\n",
                 folder, (unsigned long long)(total / CBI_MIB), rounds,
                 HAVE_URING ? "true" : "false");
    for (unsigned i = 0; i < SIZES; i++) {
        measure_size(folder, sizes[i], total, rounds, i + 1 == SIZES);
    }
    (void)printf("  ]\n}\n");
    return 0;
}
