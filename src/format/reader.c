/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "format/input_private.h"

/* The file's own bytes: what was peeked at, then the rest; a regular file only up to the size it
 * had when it was opened. */
static cb_status reader_raw(void *ctx, uint8_t *buf, size_t bytes, size_t *got, cb_error *err) {
    input_reader *reader = ctx;
    cbi_input *input = reader->input;
    const input_file *file = &input->files[reader->file];
    size_t n = 0;
    if (input->read != NULL) {
        CB_TRY(input->read(input->read_ctx, buf, bytes, &n, err));
    } else if (file->regular) {
        n = (size_t)(file->size - reader->raw_at < bytes ? file->size - reader->raw_at : bytes);
        if (n != 0)
            CB_TRY(input_file_read(input, reader->file, reader->fd, buf, n, reader->raw_at, err));
    } else if (reader->peek_at < reader->peek_bytes) {
        n = cbi_min(reader->peek_bytes - reader->peek_at, bytes);
        memcpy(buf, reader->peek + reader->peek_at, n);
        reader->peek_at += n;
    } else {
        ssize_t r = cbi_sys_read_some(reader->fd, buf, bytes);
        if (r < 0)
            return cbi_fail_sys(err, CB_EIO, (int)-r, "cannot read %s at byte %" PRIu64, file->path,
                                reader->raw_at);
        n = (size_t)r;
    }
    reader->raw_at += n;
    *got = n;
    return CB_OK;
}

/* A pipe cannot be asked twice: its first bytes are kept. */
static cb_status reader_peek(input_reader *reader, cbi_compression *codec, cb_error *err) {
    const input_file *file = &reader->input->files[reader->file];
    *codec = CBI_COMPRESSION_NONE;
    if (reader->input->as_is || reader->input->read != NULL)
        return CB_OK;
    while (reader->peek_bytes < CBI_MAGIC_BYTES) {
        ssize_t n = cbi_sys_read_some(reader->fd, reader->peek + reader->peek_bytes,
                                      sizeof reader->peek - reader->peek_bytes);
        if (n < 0)
            return cbi_fail_sys(err, CB_EIO, (int)-n, "cannot read %s", file->path);
        if (n == 0)
            break;
        reader->peek_bytes += (size_t)n;
    }
    *codec = cbi_compression_of_magic(reader->peek, reader->peek_bytes);
    if (reader->input->format.kind == CB_FORMAT_FIXED &&
        cbi_compression_of_name(file->path) != *codec)
        *codec = CBI_COMPRESSION_NONE;
    return CB_OK;
}

cb_status input_reader_open(cbi_input *input, size_t index, input_reader *reader, cb_error *err) {
    const input_file *file = &input->files[index];
    cbi_compression codec = file->codec;
    *reader = (input_reader){.input = input, .file = index, .fd = -1};
    CB_TRY(input_file_acquire(input, index, &reader->fd, err));
    reader->open = true;
    cb_status status = CB_OK;
    if (!file->regular)
        status = reader_peek(reader, &codec, err);
    if (status == CB_OK && codec != CBI_COMPRESSION_NONE)
        status =
            cbi_decoder_create(codec, file->path, input_decoder_limit(input, file->regular, codec),
                               reader_raw, reader, &reader->decoder, err);
    if (status != CB_OK)
        input_reader_close(reader);
    return status;
}

void input_reader_close(input_reader *reader) {
    if (!reader->open)
        return;
    cbi_decoder_destroy(reader->decoder);
    cbi_free(reader->head);
    input_file_release(reader->input, reader->file);
    *reader = (input_reader){.fd = -1};
}

void input_reader_skip(input_reader *reader, size_t bytes) {
    cb_assert(bytes <= reader->head_bytes - reader->head_at);
    reader->head_at += bytes;
    if (reader->head_at == reader->head_bytes) {
        cbi_free(reader->head);
        reader->head = NULL;
        reader->head_at = reader->head_bytes = reader->head_capacity = 0;
    }
}

/* A decoder was refused: the budget that lets it have what it needs is named. */
static void name_budget(const cbi_input *input, cb_error *err) {
    if (input->decoder_budget == NULL)
        return;
    cb_error why = *err;
    double share = (double)why.bytes_had / (double)input->decoder_bytes_max;
    uint64_t least = input->decoder_budget(why.bytes_asked, share);
    if (least > 0)
        (void)cbi_fail_bytes(err, CB_EBUDGET, why.bytes_asked, least,
                             "%.800s; --memory %" PRIu64 "M will do", why.message, least / CBI_MIB);
}

static cb_status reader_decode(input_reader *reader, uint8_t *buf, size_t bytes, size_t *got,
                               cb_error *err) {
    cb_error local;
    cb_status status = cbi_decoder_read(reader->decoder, buf, bytes, got, &local);
    if (status == CB_EBUDGET)
        name_budget(reader->input, &local);
    if (status != CB_OK && err != NULL)
        *err = local;
    return status;
}

/* Decoded bytes past head. */
static cb_status reader_decoded(input_reader *reader, uint8_t *buf, size_t bytes, size_t *got,
                                cb_error *err) {
    if (reader->decoder)
        return reader_decode(reader, buf, bytes, got, err);
    size_t done = 0;
    while (done < bytes) {
        size_t n = 0;
        CB_TRY(reader_raw(reader, buf + done, bytes - done, &n, err));
        if (n == 0)
            break;
        done += n;
    }
    *got = done;
    return CB_OK;
}

cb_status input_reader_read(input_reader *reader, uint8_t *buf, size_t bytes, size_t *got,
                            cb_error *err) {
    size_t first = cbi_min(reader->head_bytes - reader->head_at, bytes), rest = 0;
    uint64_t raw_before = reader->raw_at;
    if (first != 0) {
        memcpy(buf, reader->head + reader->head_at, first);
        input_reader_skip(reader, first);
    }
    if (first < bytes)
        CB_TRY(reader_decoded(reader, buf + first, bytes - first, &rest, err));
    atomic_fetch_add_explicit(&reader->input->bytes_done, reader->raw_at - raw_before,
                              memory_order_relaxed);
    *got = first + rest;
    return CB_OK;
}

/* One piece more in head. */
static cb_status reader_grow_head(input_reader *reader, size_t *got, cb_error *err) {
    if (reader->head_capacity - reader->head_bytes < INPUT_PIECE_BYTES) {
        size_t capacity = cbi_max(reader->head_capacity * 2, INPUT_PIECE_BYTES);
        uint8_t *head = cbi_realloc(reader->head, capacity);
        if (!head)
            return cbi_fail_bytes(err, CB_ENOMEM, capacity, reader->head_capacity,
                                  "no memory for the first row of %s",
                                  reader->input->files[reader->file].path);
        reader->head = head;
        reader->head_capacity = capacity;
    }
    uint64_t raw_before = reader->raw_at;
    CB_TRY(reader_decoded(reader, reader->head + reader->head_bytes, INPUT_PIECE_BYTES, got, err));
    if (!reader->input->seekable)
        atomic_fetch_add_explicit(&reader->input->bytes_done, reader->raw_at - raw_before,
                                  memory_order_relaxed);
    reader->head_bytes += *got;
    return CB_OK;
}

/* A line with nothing on it. */
static bool reader_blank(const cbi_input *input, const uint8_t *row, size_t bytes) {
    if (bytes > 0 && row[bytes - 1] == input->dialect.terminator)
        bytes--;
    return bytes == 0 || (bytes == 1 && input->dialect.strip_cr && row[0] == '\r');
}

cb_status input_reader_first_row(input_reader *reader, bool skip_blank, size_t *row_at,
                                 size_t *row_bytes, cb_error *err) {
    const cbi_input *input = reader->input;
    cbi_csv_state state = CBI_CSV_START;
    size_t start = 0, at = 0, got = INPUT_PIECE_BYTES;
    cb_assert(reader->head_at == 0);
    while (got == INPUT_PIECE_BYTES && reader->head_bytes < INPUT_HEADER_BYTES_MAX) {
        CB_TRY(reader_grow_head(reader, &got, err));
        if (at == 0)
            at = input_header_mark(input, reader->head, got);
        while (at < reader->head_bytes || got < INPUT_PIECE_BYTES) {
            size_t end = cbi_csv_find_end(&input->dialect, &state, reader->head + at,
                                          reader->head_bytes - at);
            at = end == SIZE_MAX ? reader->head_bytes : at + end;
            if (end == SIZE_MAX && got == INPUT_PIECE_BYTES)
                break;
            bool over = at == reader->head_bytes && got < INPUT_PIECE_BYTES;
            if (over || !skip_blank || !reader_blank(input, reader->head + start, at - start)) {
                *row_at = start;
                *row_bytes = at - start;
                return CB_OK;
            }
            start = at;
        }
    }
    return cbi_fail(err, CB_EDATA,
                    "%s: the first row does not end within %d bytes; is a quote never closed, or "
                    "is this not %s?",
                    input->files[reader->file].path, INPUT_HEADER_BYTES_MAX,
                    input->format.kind == CB_FORMAT_CSV   ? "CSV"
                    : input->format.kind == CB_FORMAT_TSV ? "TSV"
                                                          : "text");
}
