/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "format/input_private.h"

/*
 * A row that does not fit in a worker's buffer. How large it is has to be known before anybody is
 * asked for that much memory, and whether it is a row at all: a quote that is never closed makes
 * one row of the rest of a file. The worker's own buffer serves for looking ahead; what it held is
 * read again.
 */

/* Bytes of the next piece from `at` on; 0 at the end of the file. */
static cb_status large_piece(cbi_input *input, cbi_chunk *chunk, const input_span *span,
                             uint64_t at, size_t *bytes, cb_error *err) {
    uint64_t left = input->files[span->file].size - at;
    *bytes = (size_t)(left < chunk->capacity ? left : chunk->capacity);
    return *bytes ? input_file_read(input, span->file, span->fd, chunk->buf, *bytes, at, err)
                  : CB_OK;
}

/* Where the row ends, looked for from `at` on with the state the span has there. */
static cb_status large_find_end(cbi_input *input, cbi_chunk *chunk, input_span *span, uint64_t at,
                                uint64_t *end, cb_error *err) {
    for (;;) {
        size_t bytes;
        CB_TRY(large_piece(input, chunk, span, at, &bytes, err));
        size_t found = bytes ? input_find_end(input, &span->state, chunk->buf, bytes) : 0;
        if (found != SIZE_MAX) {
            *end = at + found;
            return CB_OK;
        }
        at += bytes;
    }
}

/* Writes the row [from, to) to where malformed rows go. */
static cb_status large_leave_out(cbi_input *input, cbi_chunk *chunk, const input_span *span,
                                 uint64_t from, uint64_t to, bool terminated, cb_error *err) {
    uint64_t end = to - terminated;
    for (uint64_t at = from; at < end;) {
        size_t bytes = (size_t)(end - at < chunk->capacity ? end - at : chunk->capacity);
        CB_TRY(input_file_read(input, span->file, span->fd, chunk->buf, bytes, at, err));
        CB_TRY(input_bad_row(input, chunk->buf, bytes, false, err));
        at += bytes;
    }
    return input_bad_row(input, NULL, 0, true, err);
}

/* The row from `row` on: is it malformed? *end is where it ends. */
static cb_status large_walk(cbi_input *input, cbi_chunk *chunk, const input_span *span,
                            uint64_t row, uint64_t *end, bool *terminated, cbi_flaw *flaw,
                            cb_error *err) {
    cbi_csv_walk w;
    cbi_csv_walk_init(&w, &input->dialect, row, 1);
    for (;;) {
        size_t bytes, at = 0;
        bool ended = false;
        CB_TRY(large_piece(input, chunk, span, w.at, &bytes, err));
        at = bytes ? cbi_csv_walk_next(&w, chunk->buf, bytes, &ended) : 0;
        if (ended || at == 0) {
            if (!ended)
                cbi_csv_walk_finish(&w);
            *terminated = ended;
            *flaw = w.flaw;
            *end = w.at;
            return CB_OK;
        }
    }
}

static cb_status large_refuse(const cbi_input *input, cbi_chunk *chunk, const input_span *span,
                              uint64_t start, uint64_t end, cb_error *err) {
    const char *path = input->files[span->file].path;
    if (end - start > INPUT_ROW_BYTES_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED,
                        "%s: the row at or behind byte %" PRIu64 " has about %" PRIu64
                        " bytes; rows of 2 GiB or more are not supported",
                        path, start, end - start);
    chunk->pending[INPUT_PENDING_BYTES] = 0;
    chunk->pending[INPUT_PENDING_CHUNK] = span->number + 1;
    chunk->pending[INPUT_PENDING_START] = start;
    chunk->pending[INPUT_PENDING_END] = end;
    chunk->bytes = 0;
    return cbi_fail_bytes(err, CB_EBUDGET, end - start, chunk->capacity,
                          "%s: a row at or behind byte %" PRIu64 " takes up to %" PRIu64
                          " bytes, the buffer has %zu",
                          path, start, end - start, chunk->capacity);
}

cb_status input_large_row(cbi_input *input, cbi_chunk *chunk, input_span *span, uint64_t start,
                          cb_error *err) {
    uint64_t seen = span->base + span->have, end = 0;
    if (!input_delimited(input) || !input_lenient(input)) {
        if (input_quoting(input))
            CB_TRY(input_locate(input, span->file, seen, err));
        CB_TRY(large_find_end(input, chunk, span, seen, &end, err));
        return large_refuse(input, chunk, span, start, end, err);
    }
    size_t last = 0;
    bool terminated = false;
    cbi_flaw flaw = CBI_FLAW_NONE;
    (void)cbi_csv_run(&input->dialect, CBI_CSV_START, chunk->buf + (start - span->base),
                      (size_t)(seen - start), &last);
    uint64_t row = start + last;
    CB_TRY(large_walk(input, chunk, span, row, &end, &terminated, &flaw, err));
    if (flaw == CBI_FLAW_NONE)
        return large_refuse(input, chunk, span, start, end, err);
    CB_TRY(large_leave_out(input, chunk, span, row, end, terminated, err));
    return row == start ? CB_OK : input_seek_load(input, chunk, span, start, row, err);
}
