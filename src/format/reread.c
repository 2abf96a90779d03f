/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "format/input_private.h"

/*
 * Rows of a file once more, for who has noted where some of them begin. Nothing is counted and
 * nothing judged: that was done when they were read for the first time.
 */

/* What lies at *at, read into the buffer: the next part, which is asked for as well when it is on
 * disk only. */
static cb_status reread_bytes(cbi_input *input, const cbi_chunk *chunk, cbi_reread *from, int fd,
                              size_t bytes, cb_error *err) {
    const input_file *file = &input->files[from->file];
    uint64_t at = file->origin + from->at;
    if (!from->begun)
        from->cold = !cbi_sys_cached(fd, at);
    from->begun = true;
    if (from->cold) {
        uint64_t ahead = cbi_min((uint64_t)bytes * 2, from->end - from->at);
        (void)cbi_sys_fadvise(fd, at, ahead, POSIX_FADV_WILLNEED);
    }
    CB_TRY(input_file_read(input, from->file, fd, chunk->buf, bytes, from->at, err));
    if (from->cold && input->direct_cold)
        (void)cbi_sys_fadvise(fd, at, bytes, POSIX_FADV_DONTNEED);
    return CB_OK;
}

/* Goes on from *at: over the rest of a row that is too large for the buffer, or to the last whole
 * row in it. */
static void reread_rows(const cbi_input *input, cbi_chunk *chunk, cbi_reread *from, size_t have,
                        bool *inside, cbi_csv_state *state) {
    uint64_t at = from->at;
    size_t last = 0;
    if (*inside) {
        size_t end = cbi_csv_find_end(&input->dialect, state, chunk->buf, have);
        *inside = end == SIZE_MAX;
        from->at += *inside ? have : end;
        return;
    }
    *state = CBI_CSV_START;
    if (at + have == from->end)
        last = have;
    else
        *state = cbi_csv_run(&input->dialect, *state, chunk->buf, have, &last);
    *inside = last == 0;
    from->at += *inside ? have : last;
    chunk->rows = chunk->buf;
    chunk->bytes = last;
    chunk->file = from->file;
    chunk->file_offset = at;
}

cb_status cbi_input_reread(cbi_input *input, cbi_reread *from, cbi_chunk *chunk, cb_error *err) {
    bool inside = false;
    cbi_csv_state state = CBI_CSV_START;
    int fd = -1;
    cb_assert(input->seekable);
    memset(chunk->pending, 0, sizeof chunk->pending);
    chunk->pending[INPUT_PENDING_END] = INPUT_SAMPLE;
    chunk->bytes = chunk->judged = 0;
    from->end = cbi_min(from->end, input->files[from->file].size);
    CB_TRY(input_file_acquire(input, from->file, &fd, err));
    cb_status status = CB_OK;
    while (status == CB_OK && chunk->bytes == 0 && from->at < from->end) {
        size_t have = (size_t)cbi_min(from->end - from->at, (uint64_t)chunk->capacity);
        status = reread_bytes(input, chunk, from, fd, have, err);
        if (status == CB_OK)
            reread_rows(input, chunk, from, have, &inside, &state);
    }
    input_file_release(input, from->file);
    return status;
}

cb_status cbi_input_reread_bytes(cbi_input *input, cbi_reread *from, cbi_chunk *chunk,
                                 cb_error *err) {
    int fd = -1;
    cb_assert(input->seekable);
    chunk->bytes = 0;
    from->end = cbi_min(from->end, input->files[from->file].size);
    if (from->at >= from->end)
        return CB_OK;
    size_t have = (size_t)cbi_min(from->end - from->at, (uint64_t)chunk->capacity);
    CB_TRY(input_file_acquire(input, from->file, &fd, err));
    cb_status status = reread_bytes(input, chunk, from, fd, have, err);
    input_file_release(input, from->file);
    CB_TRY(status);
    chunk->rows = chunk->buf;
    chunk->bytes = have;
    chunk->file = from->file;
    chunk->file_offset = from->at;
    from->at += have;
    return CB_OK;
}
