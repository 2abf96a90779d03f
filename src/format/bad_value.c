/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "format/input_private.h"

/* A value that is no good to whoever wanted to reckon with it: its row is treated as a malformed
 * one. Where it stands is found by counting line ends, which nobody does before there is need. */

typedef struct value_place {
    uint64_t line, column;
} value_place;

static void count_lines(const cbi_input *input, const uint8_t *p, size_t bytes,
                        value_place *place) {
    uint64_t lines = input->ops->count(p, bytes, input->format.terminator);
    const uint8_t *last = lines > 0 ? memrchr(p, input->format.terminator, bytes) : NULL;
    place->line += lines;
    place->column = last != NULL ? (uint64_t)(p + bytes - last) : place->column + bytes;
}

static cb_status find_in_file(cbi_input *input, const cbi_chunk *chunk, uint64_t until,
                              value_place *place, cb_error *err) {
    int fd = -1;
    CB_TRY(input_file_acquire(input, chunk->file, &fd, err));
    uint8_t *buf = cbi_alloc(INPUT_PIECE_BYTES);
    cb_status status =
        buf != NULL ? CB_OK : cbi_fail(err, CB_ENOMEM, "no memory to look for a value's line");
    for (uint64_t at = 0; status == CB_OK && at < until;) {
        size_t bytes = (size_t)(until - at < INPUT_PIECE_BYTES ? until - at : INPUT_PIECE_BYTES);
        status = input_file_read(input, chunk->file, fd, buf, bytes, at, err);
        if (status == CB_OK)
            count_lines(input, buf, bytes, place);
        at += bytes;
    }
    cbi_free(buf);
    input_file_release(input, chunk->file);
    return status;
}

cb_status cbi_input_bad_value(cbi_input *input, const cbi_chunk *chunk, cbi_span row, size_t at,
                              const char *what, cb_error *err) {
    if (input_lenient(input))
        return input_bad_row(input, chunk->rows + row.offset, row.bytes, true, err);
    value_place place = {.line = 1, .column = 1};
    if (input->seekable) {
        CB_TRY(find_in_file(input, chunk, chunk->file_offset + at, &place, err));
    } else {
        place.line = chunk->pending[INPUT_PENDING_START];
        count_lines(input, chunk->rows, at, &place);
    }
    return cbi_fail(err, CB_EDATA, "%s:%" PRIu64 ":%" PRIu64 ": %s", input->files[chunk->file].path,
                    place.line, place.column, what);
}
