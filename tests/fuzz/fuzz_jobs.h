/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_JOBS_H
#define FUZZ_JOBS_H

/*
 * What the targets for whole operators share. An input is a few bytes of choices and then a table;
 * the same work is done twice, with plenty of memory by one thread, and with next to none by
 * several: what comes out must be the same, bit for bit, and so must be what is refused. A refusal
 * for want of memory is an answer where there is next to none.
 *
 * A few bytes spill nothing, so the lines of the table are repeated, each time with another number
 * in front of them (column n), and with something long (column p) where that is to be more than the
 * small budget holds.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/base.h"
#include "carbide/job.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_PLENTY = 96 << 20, FUZZ_BASELINE = 1 << 20, FUZZ_ROWS = 8000 };

/** The bytes of an input that have not been used yet. */
typedef struct fuzz_bytes {
    const uint8_t *at, *end;
} fuzz_bytes;

static inline unsigned fuzz_choice(fuzz_bytes *b, unsigned below) {
    return b->at < b->end ? *b->at++ % below : 0;
}

/** Bytes that grow. */
typedef struct fuzz_text {
    uint8_t *bytes;
    size_t used, capacity;
    uint64_t rows;
} fuzz_text;

static inline void fuzz_put(fuzz_text *t, const void *bytes, size_t n) {
    if (n > t->capacity - t->used) {
        size_t capacity = 2 * t->capacity + n + 4096;
        uint8_t *grown = realloc(t->bytes, capacity);
        cb_assert(grown != NULL);
        t->bytes = grown;
        t->capacity = capacity;
    }
    if (n > 0)
        memcpy(t->bytes + t->used, bytes, n);
    t->used += n;
}

static inline void fuzz_put_text(fuzz_text *t, const char *text) {
    fuzz_put(t, text, strlen(text));
}

/** A cb_row_write_fn. */
static inline cb_status fuzz_row(void *ctx, const void *row, size_t bytes, cb_error *err) {
    fuzz_text *t = ctx;
    (void)err;
    fuzz_put(t, row, bytes);
    fuzz_put(t, "\n", 1);
    t->rows++;
    return CB_OK;
}

/** A file that has no name, and the path by which it can be opened. */
typedef struct fuzz_file {
    int fd;
    char path[64];
} fuzz_file;

static inline void fuzz_file_make(fuzz_file *f, const fuzz_text *t) {
    f->fd = memfd_create("table", MFD_CLOEXEC);
    cb_assert(f->fd >= 0);
    for (size_t done = 0; done < t->used;) {
        ssize_t n = write(f->fd, t->bytes + done, t->used - done);
        cb_assert(n > 0);
        done += (size_t)n;
    }
    (void)snprintf(f->path, sizeof f->path, "/proc/self/fd/%d", f->fd);
}

static inline size_t fuzz_lines(fuzz_bytes from) {
    size_t lines = 0;
    for (const uint8_t *at = from.at; at < from.end; lines++) {
        at = memchr(at, '\n', (size_t)(from.end - at));
        at = at != NULL ? at + 1 : from.end;
    }
    return lines;
}

/** The table: at most `lines` lines, `times` times, or so often that there are `FUZZ_ROWS` rows
 * (times 0), behind `header`. */
static inline void fuzz_table(fuzz_text *t, const char *header, char separator, fuzz_bytes from,
                              unsigned times, size_t lines) {
    static const char pad[] =
        "as long as the longest rows of many tables that one meets and with nothing in it that "
        "stands out or that could be left out by a light codec without looking at the words of it";
    bool many = times == 0;
    lines = cbi_min(lines, fuzz_lines(from));
    for (; *header != 0; header++)
        fuzz_put(t, *header == ',' ? &separator : header, 1);
    if (many)
        times = (unsigned)(FUZZ_ROWS / (lines + 1));
    for (unsigned i = 0; i < times; i++) {
        const uint8_t *at = from.at;
        for (size_t k = 0; k < lines; k++) {
            const uint8_t *end = memchr(at, '\n', (size_t)(from.end - at));
            end = end != NULL ? end : from.end;
            char start[256];
            int n = snprintf(start, sizeof start, "%u%c%.*s%c", i, separator,
                             many ? (int)sizeof pad : 0, pad, separator);
            fuzz_put(t, start, (size_t)n);
            fuzz_put(t, at, (size_t)(end - at));
            fuzz_put(t, "\n", 1);
            at = end + (end < from.end);
        }
    }
}

/** Where a table of the right ends and another begins: at a byte of zeros; the left is before. */
static inline fuzz_bytes fuzz_split(fuzz_bytes *all) {
    size_t bytes = (size_t)(all->end - all->at);
    const uint8_t *zero = bytes > 0 ? memchr(all->at, 0, bytes) : NULL;
    fuzz_bytes left = {all->at, zero != NULL ? zero : all->end};
    all->at = zero != NULL ? zero + 1 : all->end;
    return left;
}

/** What says nothing of the work: there was too little memory, or the system refused something. */
static inline bool fuzz_is_luck(cb_status status) {
    return status == CB_EBUDGET || status == CB_ENOMEM || status == CB_EIO || status == CB_ENOSPC ||
           status == CB_ETHREAD;
}

/** Two runs have ended so. Of several flaws of an input any may be found first. */
static inline void fuzz_compare(cb_status plenty, const fuzz_text *a, cb_status little,
                                const fuzz_text *b, const cb_error *err) {
    if (fuzz_is_luck(plenty) || fuzz_is_luck(little) || (plenty != CB_OK && little != CB_OK))
        return;
    if (plenty != little)
        (void)fprintf(stderr, "%d with plenty of memory, %d with little: %s\n", (int)plenty,
                      (int)little, err->message);
    cb_assert(plenty == little && a->used == b->used);
    cb_assert(a->used == 0 || memcmp(a->bytes, b->bytes, a->used) == 0);
}

#endif
