/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "format/input_private.h"

/*
 * Which malformed row is the first, and where? Workers read a seekable CSV file at many places at
 * once, each trusting the parity of the quotes before its chunk. A stray quote turns that parity
 * for everything behind it, so that several workers may find something wrong, most of them at
 * places where nothing is. So nobody reports what it found: the file is walked from its start with
 * the exact rules up to the place of doubt, and the first malformed row on the way is reported, the
 * same whatever thread came first. When there is none, the doubt was unfounded only if the file has
 * changed.
 *
 * The walk remembers where it was, so that a file of very large rows, each of which raises the
 * question whether a quote was never closed, is walked once.
 */

cb_status input_flaw(const cbi_input *input, size_t file, cbi_flaw flaw, uint64_t line,
                     uint64_t column, uint64_t fields, cb_error *err) {
    const char *path = input->files[file].path;
    if (flaw != CBI_FLAW_RAGGED)
        return cbi_fail(err, CB_EDATA, "%s:%" PRIu64 ":%" PRIu64 ": %s", path, line, column,
                        cbi_flaw_text(flaw));
    return cbi_fail(err, CB_EDATA,
                    "%s:%" PRIu64 ":%" PRIu64 ": the row has %" PRIu64 " field%s, %s has %zu", path,
                    line, column, fields, fields == 1 ? "" : "s",
                    input->header ? "the header" : "the first row", input->format.columns);
}

/* Walks on in one piece; *done when `until` is reached behind a whole row. */
static cb_status locate_piece(cbi_input *input, size_t file, const uint8_t *p, size_t bytes,
                              uint64_t until, bool *done, cb_error *err) {
    cbi_csv_walk *w = &input->walk;
    size_t at = 0;
    while (at < bytes && !*done) {
        bool ended;
        at += cbi_csv_walk_next(w, p + at, bytes - at, &ended);
        if (!ended)
            break;
        if (w->flaw != CBI_FLAW_NONE)
            return input_flaw(input, file, w->flaw, w->flaw_line, w->flaw_column, w->fields + 1,
                              err);
        *done = w->at >= until;
    }
    input->walk_at = w->at;
    return CB_OK;
}

static cb_status locate_walk(cbi_input *input, size_t file, int fd, uint8_t *buf, uint64_t until,
                             cb_error *err) {
    const input_file *f = &input->files[file];
    bool done = input->walk_at >= until && input->walk.row_start == UINT64_MAX;
    while (!done && input->walk_at < f->size) {
        size_t bytes =
            (size_t)(f->size - input->walk_at < INPUT_PIECE_BYTES ? f->size - input->walk_at
                                                                  : INPUT_PIECE_BYTES);
        CB_TRY(input_file_read(input, file, fd, buf, bytes, input->walk_at, err));
        CB_TRY(locate_piece(input, file, buf, bytes, until, &done, err));
    }
    if (input->walk_at < f->size)
        return CB_OK;
    cbi_csv_walk end = input->walk;
    cbi_csv_walk_finish(&end);
    if (end.flaw != CBI_FLAW_NONE)
        return input_flaw(input, file, end.flaw, end.flaw_line, end.flaw_column, end.fields + 1,
                          err);
    return CB_OK;
}

cb_status input_locate(cbi_input *input, size_t file, uint64_t until, cb_error *err) {
    int fd = -1;
    CB_TRY(input_file_acquire(input, file, &fd, err));
    uint8_t *buf = cbi_alloc(INPUT_PIECE_BYTES);
    cb_status status;
    if (!buf) {
        status = cbi_fail(err, CB_ENOMEM,
                          "no memory to look for what is malformed in %s before byte %" PRIu64,
                          input->files[file].path, until);
    } else {
        cbi_mutex_lock(&input->slow_lock);
        if (input->walk_file != file) {
            uint64_t start = input->files[file].data;
            cbi_csv_walk_init(&input->walk, &input->dialect, start,
                              1 + (start ? input->header_lines : 0));
            input->walk_file = file;
            input->walk_at = start;
        }
        status = locate_walk(input, file, fd, buf, until, err);
        if (status != CB_OK)
            input->walk_file = SIZE_MAX; /* the same question gets the same answer */
        cbi_mutex_unlock(&input->slow_lock);
    }
    cbi_free(buf);
    input_file_release(input, file);
    return status;
}
