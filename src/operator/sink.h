/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SINK_H
#define CBI_SINK_H

#include <string.h>

#include "base/sys.h"
#include "format/format.h"
#include "spill/spill.h"

/*
 * Where results go. A regular file is written by all workers at once at places known beforehand
 * (with direct I/O where the file system takes it), beside its name, and gets its name when it is
 * whole. Anything else (pipes, devices, compressed files) is one stream that workers write to in
 * turn.
 */

typedef struct cbi_sink cbi_sink;

typedef struct cbi_sink_options {
    const char *path; /* NULL or "-": standard output */
    bool as_is;       /* not compressed, whatever the name says (GNU sort) */
    cbi_spill *io;    /* borrowed; its threads write behind */
    unsigned writers;
    uint8_t *edge_memory;    /* cbi_sink_edge_bytes(writers), 4 KiB aligned */
    uint8_t *block_memory;   /* cbi_sink_block_bytes(compression) */
    uint64_t bytes_expected; /* 0 = not known; space is reserved for them */
    bool fresh; /* `path` is not there yet and is the file itself from the start: the caller sees to
                   it that it appears when it is whole. Not synced. CB_EIO, EEXIST */
} cbi_sink_options;

size_t cbi_sink_edge_bytes(unsigned writers);
size_t cbi_sink_block_bytes(cbi_compression compression);

cb_status cbi_sink_open(const cbi_sink_options *options, cbi_sink **sink, cb_error *err);
/** Writers may be used at any offset, all at once. */
bool cbi_sink_positional(const cbi_sink *sink);
bool cbi_sink_direct(const cbi_sink *sink);
uint64_t cbi_sink_bytes(const cbi_sink *sink); /* written so far; any thread */
/** Everything is on its way: syncs and names the file, `bytes` long. */
cb_status cbi_sink_finish(cbi_sink *sink, uint64_t bytes, cb_error *err);
/** Without finish nothing stays behind. No I/O may be under way. NULL is fine. */
void cbi_sink_close(cbi_sink *sink);

/** One worker's pen. Plain data; the fields are cbi_writer_*'s own. */
typedef struct cbi_writer {
    cbi_sink *sink;
    uint8_t *memory;
    size_t buffer_bytes;
    unsigned buffers, current;
    uint8_t *start, *at, *end; /* of the current buffer: first valid byte, next, end */
    uint64_t offset;           /* in the file, of the current buffer's first byte */
    atomic_uint busy;          /* bit i: buffer i is being written */
} cbi_writer;

/** `memory`: `buffers` (2 to 8) buffers of `buffer_bytes` (a multiple of 4 KiB), 4 KiB aligned, the
 * caller's. */
void cbi_writer_init(cbi_writer *w, cbi_sink *sink, uint8_t *memory, size_t buffer_bytes,
                     unsigned buffers);
/** Starts at `offset` (positional sinks; streams go on where the last writer ended). */
cb_status cbi_writer_begin(cbi_writer *w, uint64_t offset, cb_error *err);
cb_status cbi_writer_put_slow(cbi_writer *w, const uint8_t *data, size_t bytes, cb_error *err);
/** What was put is on its way; a stream's is written. Blocks while buffers are busy. */
cb_status cbi_writer_end(cbi_writer *w, cb_error *err);
/** Waits until all its buffers are written. */
cb_status cbi_writer_drain(cbi_writer *w, cb_error *err);

static inline cb_status cbi_writer_put(cbi_writer *w, const uint8_t *data, size_t bytes,
                                       cb_error *err) {
    if (CBI_LIKELY(bytes <= (size_t)(w->end - w->at))) {
        memcpy(w->at, data, bytes);
        w->at += bytes;
        return CB_OK;
    }
    return cbi_writer_put_slow(w, data, bytes, err);
}

/** A row and, when `terminated`, its terminator. */
static inline cb_status cbi_writer_put_row(cbi_writer *w, const uint8_t *row, size_t bytes,
                                           bool terminated, uint8_t terminator, cb_error *err) {
    if (CBI_LIKELY(bytes < (size_t)(w->end - w->at))) {
        memcpy(w->at, row, bytes);
        w->at += bytes;
        *w->at = terminator;
        w->at += terminated;
        return CB_OK;
    }
    CB_TRY(cbi_writer_put_slow(w, row, bytes, err));
    return terminated ? cbi_writer_put_slow(w, &terminator, 1, err) : CB_OK;
}

#endif
