/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "format/input_private.h"

/*
 * Chunks of files that can be read anywhere, by any number of workers at once.
 *
 * Chunk k of a file covers the bytes [k*C, (k+1)*C) behind the header; workers take numbers from a
 * counter. Its rows are those between two boundaries: boundary(p) is the place behind the first row
 * end at or after p, so the end of one chunk's rows is the start of the next one's, whoever looks
 * for it, and nobody has to read the byte before his chunk. A worker reads its own bytes and a
 * little more for the end of its last row.
 *
 * For CSV a line end counts only outside quotes, and whether p is inside depends on every byte
 * before it. But only on the parity of the quotes: a worker counts those of its chunk as fast as
 * memory gives them, waits for the parity at its start, and hands the parity at its end on. That
 * baton is the only thing that goes from chunk to chunk in order, and it takes a few nanoseconds.
 * Files that break the rules are found out when rows are read (scan.c), since a chunk whose parity
 * is wrong has a malformed row before it. Where malformed rows are to be left out that is not good
 * enough: there the baton carries the exact state, and the chunk is run through while it is held.
 *
 * C is 7/8 of the first buffer. A chunk in which no row starts gives nothing and leaves a gap in
 * the sequence.
 */

/* ---- which bytes ---- */

/* The first call fixes the division of all files. The lock is held. */
static void seek_divide(cbi_input *input, size_t capacity) {
    size_t c = capacity - capacity / 8;
    uint64_t count = 0;
    if (c >= 64 * CBI_KIB)
        c &= ~(size_t)4095;
    if (input->format.kind == CB_FORMAT_FIXED)
        c = cbi_max(c / input->format.record_bytes, 1) * input->format.record_bytes;
    for (size_t i = 0; i < input->file_count; i++) {
        input_file *file = &input->files[i];
        file->first_chunk = count;
        count += (file->size - file->data + c - 1) / c;
    }
    input->chunk_bytes = c;
    input->chunk_capacity = cbi_max(capacity, c);
    input->chunk_count = count;
}

/* Makes sure of the division; tells of a failure. */
static cb_status seek_enter(cbi_input *input, const cbi_chunk *chunk, cb_error *err) {
    cb_status status = CB_OK;
    cbi_mutex_lock(&input->lock);
    if (input->chunk_bytes == 0)
        seek_divide(input, chunk->capacity);
    if (input->failure.status != CB_OK) {
        *err = input->failure;
        status = input->failure.status;
    } else if (input->cancelled) {
        status = cbi_fail(err, CB_ECANCELED, "reading was cancelled");
    }
    cbi_mutex_unlock(&input->lock);
    if (status == CB_OK && chunk->capacity < input->chunk_bytes)
        status = cbi_fail_bytes(err, CB_EBUDGET, input->chunk_capacity, chunk->capacity,
                                "a buffer of %zu bytes is too small, the others have %zu",
                                chunk->capacity, input->chunk_capacity);
    return status;
}

static input_span seek_span(const cbi_input *input, uint64_t number) {
    size_t low = 0, high = input->file_count; /* the last file with first_chunk <= number */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (input->files[middle].first_chunk <= number)
            low = middle;
        else
            high = middle;
    }
    const input_file *file = &input->files[low];
    input_span span = {.number = number, .file = low, .fd = -1, .state = CBI_CSV_START};
    span.base = file->data + (number - file->first_chunk) * input->chunk_bytes;
    span.limit =
        file->size - span.base < input->chunk_bytes ? file->size : span.base + input->chunk_bytes;
    span.own = (size_t)(span.limit - span.base);
    return span;
}

/* ---- the page cache ---- */

/* Asks for what will be read soon when it is not there, and remembers that it was not. */
static void seek_ahead(cbi_input *input, const input_span *span) {
    const input_file *file = &input->files[span->file];
    bool first = span->number == file->first_chunk;
    if (first) /* no reading ahead but ours: a disk's default may be larger than the container */
        (void)cbi_sys_fadvise(span->fd, 0, 0, POSIX_FADV_RANDOM);
    for (uint64_t i = first ? 0 : INPUT_AHEAD_CHUNKS; i <= INPUT_AHEAD_CHUNKS; i++) {
        uint64_t base = span->base + i * input->chunk_bytes;
        if (base >= file->size)
            return;
        bool cold = !cbi_sys_cached(span->fd, file->origin + base);
        if (cold)
            (void)cbi_sys_fadvise(span->fd, file->origin + base, input->chunk_bytes,
                                  POSIX_FADV_WILLNEED);
        if (input->direct_cold)
            atomic_store_explicit(&input->cold[(span->number + i) % INPUT_COLD_RING], cold,
                                  memory_order_relaxed);
    }
}

static void seek_behind(cbi_input *input, const input_span *span) {
    const input_file *file = &input->files[span->file];
    if (input->direct_cold &&
        atomic_load_explicit(&input->cold[span->number % INPUT_COLD_RING], memory_order_relaxed))
        (void)cbi_sys_fadvise(span->fd, file->origin + span->base, span->own, POSIX_FADV_DONTNEED);
}

/* ---- the baton ---- */

size_t input_find_end(const cbi_input *input, cbi_csv_state *state, const uint8_t *p,
                      size_t bytes) {
    if (input_quoting(input) && input_lenient(input))
        return cbi_csv_find_end(&input->dialect, state, p, bytes);
    if (input_quoting(input)) {
        bool inside = *state == CBI_CSV_QUOTED;
        size_t end = cbi_csv_find_end_parity(&input->dialect, &inside, p, bytes);
        *state = inside ? CBI_CSV_QUOTED : CBI_CSV_START;
        return end;
    }
    const uint8_t *end = bytes ? memchr(p, input->format.terminator, bytes) : NULL;
    return end ? (size_t)(end - p) + 1 : SIZE_MAX;
}

/* Waits for the state at the span's start, hands on the one at its limit; *out is that one. */
static cb_status seek_baton(cbi_input *input, input_span *span, const uint8_t *p,
                            cbi_csv_state *out, cb_error *err) {
    bool lenient = input_lenient(input);
    bool odd = !lenient && (input->ops->count(p, span->own, '"') & 1) != 0;
    bool last = span->limit == input->files[span->file].size;
    cb_status status = CB_OK;

    cbi_mutex_lock(&input->lock);
    while (input->baton != span->number && input->failure.status == CB_OK && !input->cancelled)
        cbi_cond_wait(&input->changed, &input->lock);
    if (input->baton == span->number) {
        span->state = input->baton_state;
        if (lenient) {
            cbi_mutex_unlock(&input->lock); /* nobody else moves the baton now */
            *out = cbi_csv_run(&input->dialect, span->state, p, span->own, NULL);
            cbi_mutex_lock(&input->lock);
        } else {
            *out = (span->state == CBI_CSV_QUOTED) != odd ? CBI_CSV_QUOTED : CBI_CSV_START;
        }
        input->baton++;
        input->baton_state = last ? CBI_CSV_START : *out;
        cbi_cond_broadcast(&input->changed);
    } else if (input->failure.status != CB_OK) {
        *err = input->failure;
        status = input->failure.status;
    } else {
        status = cbi_fail(err, CB_ECANCELED, "reading was cancelled");
    }
    cbi_mutex_unlock(&input->lock);
    return status;
}

/* ---- rows ---- */

static void seek_deliver(cbi_chunk *chunk, const input_span *span, uint64_t offset, size_t from,
                         size_t bytes) {
    chunk->rows = chunk->buf + from;
    chunk->bytes = bytes;
    chunk->sequence = span->number;
    chunk->file = span->file;
    chunk->file_offset = offset;
    memset(chunk->pending, 0, sizeof chunk->pending);
    chunk->judged = 0;
}

cb_status input_seek_load(cbi_input *input, cbi_chunk *chunk, const input_span *span,
                          uint64_t start, uint64_t end, cb_error *err) {
    size_t bytes = (size_t)(end - start);
    CB_TRY(input_file_read(input, span->file, span->fd, chunk->buf, bytes, start, err));
    seek_deliver(chunk, span, start, 0, bytes);
    return CB_OK;
}

/* Looks for the end of the last row from `out` (the state at limit) on, reading more as needed. */
static cb_status seek_find_limit(cbi_input *input, cbi_chunk *chunk, input_span *span, size_t start,
                                 cbi_csv_state out, cb_error *err) {
    const input_file *file = &input->files[span->file];
    size_t from = span->own; /* searched up to here */
    uint64_t base = span->base;
    span->state = out;
    for (;;) {
        size_t end = input_find_end(input, &span->state, chunk->buf + from, span->have - from);
        if (end != SIZE_MAX || base + span->have == file->size) {
            end = end == SIZE_MAX ? span->have : from + end;
            seek_deliver(chunk, span, base + start, start, end - start);
            return CB_OK;
        }
        from = span->have;
        if (span->have == chunk->capacity &&
            start > 0) { /* room that the end of another's row takes */
            memmove(chunk->buf, chunk->buf + start, span->have - start);
            base += start;
            span->have -= start;
            from -= start;
            start = 0;
        }
        if (span->have == chunk->capacity) {
            uint64_t first = base + start;
            span->base = base;
            return input_large_row(input, chunk, span, first, err);
        }
        size_t more =
            cbi_min(chunk->capacity - span->have,
                    cbi_max(span->have - (size_t)(span->limit - base), INPUT_OVERLAP_BYTES));
        if (file->size - base - span->have < more)
            more = (size_t)(file->size - base - span->have);
        CB_TRY(input_file_read(input, span->file, span->fd, chunk->buf + span->have, more,
                               base + span->have, err));
        span->have += more;
    }
}

static cb_status seek_rows(cbi_input *input, cbi_chunk *chunk, input_span *span, cb_error *err) {
    const input_file *file = &input->files[span->file];
    bool fixed = input->format.kind == CB_FORMAT_FIXED, whole = span->limit == file->size;
    size_t want =
        fixed || whole ? span->own : cbi_min(span->own + INPUT_OVERLAP_BYTES, chunk->capacity);
    cbi_csv_state out = CBI_CSV_START;

    if (file->size - span->base < want)
        want = (size_t)(file->size - span->base);
    seek_ahead(input, span);
    CB_TRY(input_file_read(input, span->file, span->fd, chunk->buf, want, span->base, err));
    seek_behind(input, span);
    span->have = want;
    atomic_fetch_add_explicit(&input->bytes_done, span->own, memory_order_relaxed);
    if (input_quoting(input))
        CB_TRY(seek_baton(input, span, chunk->buf, &out, err));
    if (fixed) {
        seek_deliver(chunk, span, span->base, 0, span->own);
        return CB_OK;
    }
    size_t start = 0;
    if (span->base != file->data) {
        start = input_find_end(input, &span->state, chunk->buf, span->own);
        if (start == SIZE_MAX || (start == span->own && whole))
            return CB_OK; /* no row starts here */
    }
    if (whole) {
        seek_deliver(chunk, span, span->base + start, start, span->own - start);
        return CB_OK;
    }
    return seek_find_limit(input, chunk, span, start, out, err);
}

static cb_status seek_again(cbi_input *input, cbi_chunk *chunk, cb_error *err) {
    uint64_t start = chunk->pending[INPUT_PENDING_START], end = chunk->pending[INPUT_PENDING_END];
    input_span span = seek_span(input, chunk->pending[INPUT_PENDING_CHUNK] - 1);
    if (end - start > chunk->capacity)
        return cbi_fail_bytes(err, CB_EBUDGET, end - start, chunk->capacity,
                              "%s: rows of %" PRIu64 " bytes at byte %" PRIu64
                              " do not fit in a buffer of %zu bytes",
                              input->files[span.file].path, end - start, start, chunk->capacity);
    CB_TRY(input_file_acquire(input, span.file, &span.fd, err));
    cb_status status = input_seek_load(input, chunk, &span, start, end, err);
    input_file_release(input, span.file);
    return status;
}

cb_status input_seek_next(cbi_input *input, cbi_chunk *chunk, cb_error *err) {
    chunk->bytes = 0;
    CB_TRY(seek_enter(input, chunk, err));
    if (chunk->pending[INPUT_PENDING_CHUNK] != 0 &&
        chunk->pending[INPUT_PENDING_END] != INPUT_SAMPLE)
        return seek_again(input, chunk, err);
    memset(chunk->pending, 0, sizeof chunk->pending);
    chunk->judged = 0;
    while (chunk->bytes == 0) {
        uint64_t number = atomic_fetch_add(&input->next_chunk, 1);
        if (number >= input->chunk_count)
            return CB_OK;
        input_span span = seek_span(input, number);
        CB_TRY(input_file_acquire(input, span.file, &span.fd, err));
        cb_status status = seek_rows(input, chunk, &span, err);
        input_file_release(input, span.file);
        CB_TRY(status);
    }
    return CB_OK;
}

/* ---- samples ---- */

/* The place behind the first row end of p when p begins inside quotes or not; bytes when there is
 * none. */
static size_t sample_start(const cbi_input *input, bool inside, const uint8_t *p, size_t bytes) {
    cbi_csv_state any = CBI_CSV_START;
    size_t end = input_quoting(input) ? cbi_csv_find_end_parity(&input->dialect, &inside, p, bytes)
                                      : cbi_csv_find_end(&input->dialect, &any, p, bytes);
    return end == SIZE_MAX ? bytes : end;
}

/* How well the first rows of p look, when a row starts there. */
static int sample_score(const cbi_input *input, const uint8_t *p, size_t bytes) {
    int score = 0;
    size_t at = 0;
    for (int i = 0; i < 16 && at < bytes; i++) {
        cbi_csv_row row;
        cbi_csv_read_row(&input->dialect, p, at, bytes, NULL, 0, NULL, &row);
        if (row.next < bytes) /* the last one may have been cut off */
            score += row.flaw == CBI_FLAW_NONE ? 1 : -1;
        at = row.next;
    }
    return score;
}

/* Whole rows of what is in the buffer, which holds the file's bytes from `offset` on. Whether a
 * spot in CSV is inside quotes cannot be known here; what gives better rows is believed. */
static void sample_rows(const cbi_input *input, cbi_chunk *chunk, size_t file, uint64_t offset,
                        size_t have) {
    const input_file *f = &input->files[file];
    const uint8_t *buf = chunk->buf;
    size_t start = 0, end = 0, last = 0;
    if (input->format.kind == CB_FORMAT_FIXED) {
        end = have - have % input->format.record_bytes;
    } else {
        if (offset != f->data) {
            start = sample_start(input, false, buf, have);
            size_t inside = input_quoting(input) ? sample_start(input, true, buf, have) : start;
            if (inside != start && sample_score(input, buf + inside, have - inside) >
                                       sample_score(input, buf + start, have - start))
                start = inside;
        }
        (void)cbi_csv_run(&input->dialect, CBI_CSV_START, buf + start, have - start, &last);
        end = offset + have == f->size ? have : start + last;
    }
    if (end > start) {
        chunk->rows = buf + start;
        chunk->bytes = end - start;
        chunk->file = file;
        chunk->file_offset = offset + start;
    }
}

cb_status cbi_input_sample(cbi_input *input, size_t i, size_t n, cbi_chunk *chunk, cb_error *err) {
    uint64_t total = 0, spot;
    size_t file = 0;
    int fd = -1;
    cb_assert(input->seekable && i < n);
    chunk->bytes = 0;
    chunk->sequence = i;
    memset(chunk->pending, 0, sizeof chunk->pending);
    chunk->judged = 0;
    chunk->pending[INPUT_PENDING_END] = INPUT_SAMPLE;
    for (size_t f = 0; f < input->file_count; f++)
        total += input->files[f].size - input->files[f].data;
    if (total == 0)
        return CB_OK;
    spot = total / n * i + total % n * i / n;
    while (spot >= input->files[file].size - input->files[file].data) {
        spot -= input->files[file].size - input->files[file].data;
        file++;
    }
    const input_file *f = &input->files[file];
    if (input->format.kind == CB_FORMAT_FIXED)
        spot -= spot % input->format.record_bytes;
    uint64_t offset = f->data + spot;
    size_t bytes =
        (size_t)(f->size - offset < chunk->capacity ? f->size - offset : chunk->capacity);
    CB_TRY(input_file_acquire(input, file, &fd, err));
    cb_status status = input_file_read(input, file, fd, chunk->buf, bytes, offset, err);
    input_file_release(input, file);
    CB_TRY(status);
    sample_rows(input, chunk, file, offset, bytes);
    return CB_OK;
}
