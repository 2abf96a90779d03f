/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "format/input_private.h"

/*
 * Chunks of what can only be read from its start: pipes, compressed files, and any list of inputs
 * with one of those in it. Workers take turns. The one whose turn it is puts what the last one left
 * (the start of a row) at the start of its buffer, fills it, keeps the whole rows and leaves the
 * rest. The turn is a flag, not a held lock, so that others can be woken while somebody waits for a
 * slow pipe.
 *
 * A row larger than the buffer keeps the turn: the worker comes back with a larger buffer that
 * begins with the same bytes, and the others wait for it. What a chunk leaves for the next one is
 * at most one usual buffer.
 *
 * The exact state of CSV goes along with the bytes, so ends of rows are right even behind a
 * malformed one.
 */

static cb_status stream_enter_file(cbi_input *input, cb_error *err) {
    input_stream *s = &input->stream;
    size_t header = 0;
    CB_TRY(input_reader_open(input, s->next_file, &s->reader, err));
    s->next_file++;
    s->started = true;
    CB_TRY(input_header_read(&s->reader, &header, err));
    s->state = CBI_CSV_START;
    s->offset = header;
    s->line = 1 + (header ? input->header_lines : 0);
    return CB_OK;
}

static void stream_leave_file(cbi_input *input) {
    input_stream *s = &input->stream;
    input_reader_close(&s->reader);
    s->started = false;
    s->ended = s->next_file == input->file_count;
}

cb_status input_stream_begin(cbi_input *input, cb_error *err) {
    input_stream *s = &input->stream;
    if (!input->header_wanted && !input_delimited(input))
        return CB_OK; /* nothing has to be known before the first row */
    while (s->next_file < input->file_count) {
        CB_TRY(stream_enter_file(input, err));
        if (input->header || input->format.columns != 0)
            return CB_OK;
        stream_leave_file(input);
    }
    return CB_OK;
}

void input_stream_fini(cbi_input *input) {
    input_reader_close(&input->stream.reader);
    cbi_free(input->stream.carry);
}

/* ---- turns ---- */

static cb_status stream_take_turn(cbi_input *input, const cbi_chunk *chunk, cb_error *err) {
    input_stream *s = &input->stream;
    cb_status status = CB_OK;
    cbi_mutex_lock(&input->lock);
    if (input->chunk_bytes == 0) {
        input->chunk_capacity = chunk->capacity;
        input->chunk_bytes = chunk->capacity - chunk->capacity / 8;
    }
    while (s->busy && chunk->pending[INPUT_PENDING_CHUNK] == 0 && input->failure.status == CB_OK &&
           !input->cancelled)
        cbi_cond_wait(&input->changed, &input->lock);
    if (input->failure.status != CB_OK) {
        *err = input->failure;
        status = input->failure.status;
    } else if (input->cancelled) {
        status = cbi_fail(err, CB_ECANCELED, "reading was cancelled");
    } else {
        s->busy = true;
    }
    cbi_mutex_unlock(&input->lock);
    return status;
}

static void stream_end_turn(cbi_input *input) {
    cbi_mutex_lock(&input->lock);
    input->stream.busy = false;
    cbi_cond_signal(&input->changed);
    if (input->stream.ended)
        cbi_cond_broadcast(&input->changed);
    cbi_mutex_unlock(&input->lock);
}

/* ---- a buffer ---- */

typedef struct stream_fill {
    size_t bytes;    /* in the buffer */
    size_t last_end; /* behind the last whole row; 0: none yet */
    bool file_ended;
} stream_fill;

/* What came in at [from, from + bytes): where does its last row end? */
static void stream_look(cbi_input *input, const uint8_t *buf, size_t from, size_t bytes,
                        stream_fill *fill) {
    input_stream *s = &input->stream;
    size_t last = 0;
    if (input->format.kind == CB_FORMAT_FIXED) {
        fill->last_end = (from + bytes) - (from + bytes) % input->format.record_bytes;
        return;
    }
    if (input_delimited(input)) {
        s->state = cbi_csv_run(&input->dialect, s->state, buf + from, bytes, &last);
    } else if (bytes != 0) {
        const uint8_t *end = memrchr(buf + from, input->format.terminator, bytes);
        last = end ? (size_t)(end - buf) - from + 1 : 0;
    }
    if (last != 0)
        fill->last_end = from + last;
}

/* The buffer begins with a malformed row that is too large for it (or with more of one): out with
 * that, up to its end. */
static cb_status stream_discard(cbi_input *input, uint8_t *buf, stream_fill *fill, cb_error *err) {
    input_stream *s = &input->stream;
    const uint8_t *end =
        s->discarding && fill->bytes ? memchr(buf, input->format.terminator, fill->bytes) : NULL;
    size_t bytes = end ? (size_t)(end - buf) : fill->bytes, gone = bytes + (end != NULL);
    CB_TRY(input_bad_row(input, buf, bytes, end || fill->file_ended, err));
    s->discarding = !end && !fill->file_ended;
    s->offset += gone;
    s->line += input->ops->count(buf, gone, input->format.terminator);
    memmove(buf, buf + gone, fill->bytes - gone);
    fill->bytes -= gone;
    fill->last_end -= cbi_min(fill->last_end, gone);
    return CB_OK;
}

/* Fills the buffer from fill->bytes on until there is a whole row and a chunk's worth, or no room,
 * or the file ends. */
static cb_status stream_read(cbi_input *input, cbi_chunk *chunk, stream_fill *fill, cb_error *err) {
    input_stream *s = &input->stream;
    while (!fill->file_ended && fill->bytes < chunk->capacity) {
        size_t room = chunk->capacity - fill->bytes, got = 0;
        if (fill->bytes < input->chunk_bytes)
            room = cbi_min(room, input->chunk_bytes - fill->bytes);
        else if (fill->last_end != 0)
            return CB_OK;
        else
            room = cbi_min(room,
                           cbi_min(INPUT_PIECE_BYTES,
                                   input->chunk_bytes)); /* so that little is left behind the row */
        CB_TRY(input_reader_read(&s->reader, chunk->buf + fill->bytes, room, &got, err));
        stream_look(input, chunk->buf, fill->bytes, got, fill);
        fill->bytes += got;
        fill->file_ended = got < room;
    }
    return CB_OK;
}

static cb_status stream_keep(cbi_input *input, const uint8_t *p, size_t bytes, cb_error *err) {
    input_stream *s = &input->stream;
    if (bytes > s->carry_capacity) {
        uint8_t *carry = cbi_realloc(s->carry, cbi_round_up(bytes, 4096));
        if (!carry)
            return cbi_fail_bytes(err, CB_ENOMEM, bytes, s->carry_capacity,
                                  "no memory for the start of a row of %zu bytes", bytes);
        s->carry = carry;
        s->carry_capacity = cbi_round_up(bytes, 4096);
    }
    if (bytes != 0)
        memcpy(s->carry, p, bytes);
    s->carry_bytes = bytes;
    return CB_OK;
}

/* Rows [buf, buf + bytes) are the chunk's, the rest is kept. */
static cb_status stream_deliver(cbi_input *input, cbi_chunk *chunk, size_t bytes, size_t have,
                                cb_error *err) {
    input_stream *s = &input->stream;
    CB_TRY(stream_keep(input, chunk->buf + bytes, have - bytes, err));
    chunk->rows = chunk->buf;
    chunk->bytes = bytes;
    chunk->file = s->reader.file;
    chunk->file_offset = s->offset;
    memset(chunk->pending, 0, sizeof chunk->pending);
    chunk->judged = 0;
    chunk->pending[INPUT_PENDING_START] = s->line;
    if (bytes != 0)
        chunk->sequence = s->sequence++;
    s->offset += bytes;
    if (input_delimited(input))
        s->line += input->ops->count(chunk->buf, bytes, input->format.terminator);
    return CB_OK;
}

static cb_status stream_refuse(cbi_input *input, cbi_chunk *chunk, const stream_fill *fill,
                               cb_error *err) {
    input_stream *s = &input->stream;
    const char *path = input->files[s->reader.file].path;
    uint64_t need = (uint64_t)chunk->capacity * 2;
    if (need > INPUT_ROW_BYTES_MAX && chunk->capacity < INPUT_ROW_BYTES_MAX)
        need = INPUT_ROW_BYTES_MAX;
    if (need > INPUT_ROW_BYTES_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED,
                        "%s: the row at byte %" PRIu64
                        " has more than %zu bytes; rows of 2 GiB or more "
                        "are not supported",
                        path, s->offset, fill->bytes);
    chunk->bytes = 0;
    chunk->pending[INPUT_PENDING_BYTES] = fill->bytes;
    chunk->pending[INPUT_PENDING_CHUNK] = 1;
    return cbi_fail_bytes(err, CB_EBUDGET, need, chunk->capacity,
                          "%s: the row at byte %" PRIu64 " has more than %zu bytes%s", path,
                          s->offset, fill->bytes,
                          s->state == CBI_CSV_QUOTED ? "; is a quote never closed?" : "");
}

/* The end of a file of fixed records may be half a record. */
static cb_status stream_cut_record(cbi_input *input, const cbi_chunk *chunk, stream_fill *fill,
                                   cb_error *err) {
    input_stream *s = &input->stream;
    size_t rest =
        input->format.kind == CB_FORMAT_FIXED ? fill->bytes % input->format.record_bytes : 0;
    if (rest == 0)
        return CB_OK;
    if (!input_lenient(input))
        return cbi_fail(err, CB_EDATA,
                        "%s: it ends after %" PRIu64 " bytes, %zu bytes into a record of %zu",
                        input->files[s->reader.file].path, s->offset + fill->bytes, rest,
                        input->format.record_bytes);
    fill->bytes -= rest;
    return input_bad_row(input, chunk->buf + fill->bytes, rest, true, err);
}

static cb_status stream_turn(cbi_input *input, cbi_chunk *chunk, cb_error *err) {
    input_stream *s = &input->stream;
    stream_fill fill = {.bytes = (size_t)chunk->pending[INPUT_PENDING_BYTES]};
    if (chunk->pending[INPUT_PENDING_CHUNK] == 0) {
        if (s->carry_bytes >
            chunk->capacity) /* only when this buffer is smaller than the first one was */
            return cbi_fail_bytes(err, CB_EBUDGET, input->chunk_capacity, chunk->capacity,
                                  "a buffer of %zu bytes is too small, the others have %zu",
                                  chunk->capacity, input->chunk_capacity);
        if (s->carry_bytes != 0)
            memcpy(chunk->buf, s->carry, s->carry_bytes);
        fill.bytes = s->carry_bytes;
        s->carry_bytes = 0;
        if (input->format.kind == CB_FORMAT_FIXED)
            stream_look(input, chunk->buf, 0, fill.bytes, &fill);
    }
    while (!s->ended) {
        if (!s->started) {
            if (s->next_file == input->file_count) {
                s->ended = true;
                break;
            }
            CB_TRY(stream_enter_file(input, err));
        }
        CB_TRY(stream_read(input, chunk, &fill, err));
        bool hopeless = fill.last_end == 0 && !fill.file_ended && s->state == CBI_CSV_BAD &&
                        input_lenient(input);
        if (s->discarding || hopeless) {
            CB_TRY(stream_discard(input, chunk->buf, &fill, err));
            continue;
        }
        if (fill.file_ended) {
            CB_TRY(stream_cut_record(input, chunk, &fill, err));
            CB_TRY(stream_deliver(input, chunk, fill.bytes, fill.bytes, err));
            stream_leave_file(input);
            if (chunk->bytes != 0)
                return CB_OK;
            fill = (stream_fill){0};
        } else if (fill.last_end != 0) {
            return stream_deliver(input, chunk, fill.last_end, fill.bytes, err);
        } else {
            return stream_refuse(input, chunk, &fill, err);
        }
    }
    return CB_OK;
}

cb_status input_stream_next(cbi_input *input, cbi_chunk *chunk, cb_error *err) {
    chunk->bytes = 0;
    CB_TRY(stream_take_turn(input, chunk, err));
    cb_status status = stream_turn(input, chunk, err);
    if (status == CB_OK || chunk->pending[INPUT_PENDING_CHUNK] == 0)
        stream_end_turn(input);
    return status;
}
