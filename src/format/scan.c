/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "format/input_private.h"

/*
 * From a chunk to rows. The fast scanners do nearly all of it; a row they stop at is read with the
 * exact rules, which either accept it (it was only unusual) or say what is wrong with it. Then the
 * fast one goes on behind it.
 */

static bool chunk_is_sample(const cbi_chunk *chunk) {
    return chunk->pending[INPUT_PENDING_END] == INPUT_SAMPLE;
}

static cb_status scan_fixed(const cbi_input *input, const cbi_chunk *chunk, size_t *at,
                            cbi_rows *rows) {
    size_t record = input->format.record_bytes;
    while (*at + record <= chunk->bytes && rows->count < rows->capacity) {
        rows->rows[rows->count++] = (cbi_span){(uint32_t)*at, (uint32_t)record};
        *at += record;
    }
    return CB_OK;
}

/* Which row of the input is the malformed one at rows[from, ...)? Streams know their lines; files
 * are walked. */
static cb_status scan_malformed(cbi_input *input, const cbi_chunk *chunk, size_t from,
                                const cbi_csv_row *row, cb_error *err) {
    if (input->seekable) {
        CB_TRY(input_locate(input, chunk->file, chunk->file_offset + row->next, err));
        return cbi_fail(err, CB_EIO,
                        "%s changed while it was being read: a row at byte %" PRIu64
                        " was malformed and is not now",
                        input->files[chunk->file].path, chunk->file_offset + from);
    }
    uint8_t terminator = input->format.terminator;
    const uint8_t *line = row->flaw_at ? memrchr(chunk->rows, terminator, row->flaw_at) : NULL;
    uint64_t lines = input->ops->count(chunk->rows, row->flaw_at, terminator);
    size_t line_start = line ? (size_t)(line - chunk->rows) + 1 : 0;
    return input_flaw(input, chunk->file, row->flaw, chunk->pending[INPUT_PENDING_START] + lines,
                      row->flaw_at - line_start + 1, row->fields, err);
}

/* The row at *at, exactly. */
static cb_status scan_exact(cbi_input *input, cbi_chunk *chunk, size_t *at, const uint32_t *columns,
                            cbi_rows *rows, cb_error *err) {
    cbi_csv_row row;
    cbi_span *fields = rows->field_count ? rows->fields + rows->count * rows->field_count : NULL;
    cbi_csv_read_row(&input->dialect, chunk->rows, *at, chunk->bytes, columns, rows->field_count,
                     fields, &row);
    if (row.flaw == CBI_FLAW_NONE) {
        if (!row.blank)
            rows->rows[rows->count++] = (cbi_span){(uint32_t)*at, (uint32_t)(row.end - *at)};
    } else if (!chunk_is_sample(chunk)) {
        if (!input_lenient(input))
            return scan_malformed(input, chunk, *at, &row, err);
        if (*at >= chunk->judged)
            CB_TRY(input_bad_row(input, chunk->rows + *at, row.end - *at, true, err));
        chunk->judged = cbi_max(chunk->judged, row.next);
    }
    *at = row.next;
    return CB_OK;
}

static cb_status scan_delimited(cbi_input *input, cbi_chunk *chunk, size_t *at,
                                const uint32_t *columns, cbi_rows *rows, cb_error *err) {
    const cbi_delimited d = {.base = chunk->rows,
                             .bytes = chunk->bytes,
                             .separator = input->format.separator,
                             .terminator = input->format.terminator,
                             .strip_cr = input->dialect.strip_cr,
                             .columns = (uint32_t)cbi_min(input->format.columns, UINT32_MAX),
                             .wanted = columns};
    while (*at < chunk->bytes && rows->count < rows->capacity) {
        cbi_scan_stop stop =
            input_quoting(input) ? input->ops->csv(&d, at, rows) : input->ops->tsv(&d, at, rows);
        if (stop != CBI_SCAN_EXACT)
            return CB_OK;
        if (rows->count == rows->capacity)
            return CB_OK;
        CB_TRY(scan_exact(input, chunk, at, columns, rows, err));
    }
    return CB_OK;
}

cb_status cbi_input_scan(cbi_input *input, cbi_chunk *chunk, size_t *at, const uint32_t *columns,
                         cbi_rows *rows, cb_error *err) {
    cb_assert(rows->capacity > 0);
    cb_assert(chunk->bytes <= INPUT_ROW_BYTES_MAX);
    rows->base = chunk->rows;
    rows->count = 0;
    if (*at >= chunk->bytes)
        return CB_OK;
    if (input_delimited(input))
        return scan_delimited(input, chunk, at, columns, rows, err);
    if (rows->field_count != 0)
        return cbi_fail(err, CB_EINVAL, "rows of this format have no columns");
    if (input->format.kind == CB_FORMAT_FIXED)
        return scan_fixed(input, chunk, at, rows);
    (void)input->ops->lines(chunk->rows, chunk->bytes, input->format.terminator, at, rows);
    return CB_OK;
}
