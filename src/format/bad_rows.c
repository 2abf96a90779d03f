/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "format/input_private.h"

/* Malformed rows that are left out: counted, and written to a file when one is named, as they stood
 * in the input. Rows of one chunk stay in order; chunks come as workers get to them. */

enum { BAD_BUFFER_BYTES = 16 * 1024 };

cb_status input_bad_open(cbi_input *input, const char *path, bool more, cb_error *err) {
    if (!path)
        return cbi_fail(err, CB_EINVAL,
                        "malformed rows are to be written to a file, but its name is missing");
    struct stat st;
    /* Appending: the inputs of a join write to the same file. */
    int fd = cbi_sys_open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0)
        return cbi_fail_sys(err, CB_EIO, -fd, "cannot open %s for malformed rows", path);
    input->bad_fd = fd;
    int r = cbi_sys_fstat(fd, &st);
    if (r < 0)
        return cbi_fail_sys(err, CB_EIO, -r, "cannot look at %s", path);
    /* Only now that it is known to be no input may it lose what it holds. */
    if (cbi_input_is(input, (uint64_t)st.st_dev, (uint64_t)st.st_ino))
        return cbi_fail(err, CB_EINVAL, "%s is an input and cannot take its malformed rows", path);
    if (!more && S_ISREG(st.st_mode) && (r = cbi_sys_truncate(fd, 0)) < 0)
        return cbi_fail_sys(err, CB_EIO, -r, "cannot empty %s", path);
    input->bad_path = cbi_strdup(path);
    input->bad_buffer = cbi_alloc(BAD_BUFFER_BYTES);
    if (!input->bad_path || !input->bad_buffer)
        return cbi_fail(err, CB_ENOMEM, "no memory for malformed rows");
    return CB_OK;
}

/* slow_lock is held by these. */

static cb_status bad_write(cbi_input *input, const uint8_t *p, size_t bytes, cb_error *err) {
    int r = cbi_sys_write(input->bad_fd, p, bytes);
    return r < 0
               ? cbi_fail_sys(err, CB_EIO, -r, "cannot write malformed rows to %s", input->bad_path)
               : CB_OK;
}

static cb_status bad_drain(cbi_input *input, cb_error *err) {
    size_t bytes = input->bad_bytes;
    input->bad_bytes = 0;
    return bytes ? bad_write(input, input->bad_buffer, bytes, err) : CB_OK;
}

static cb_status bad_put(cbi_input *input, const uint8_t *p, size_t bytes, cb_error *err) {
    if (input->bad_bytes + bytes > BAD_BUFFER_BYTES)
        CB_TRY(bad_drain(input, err));
    if (bytes > BAD_BUFFER_BYTES)
        return bad_write(input, p, bytes, err);
    memcpy(input->bad_buffer + input->bad_bytes, p, bytes);
    input->bad_bytes += bytes;
    return CB_OK;
}

cb_status input_bad_row(cbi_input *input, const uint8_t *row, size_t bytes, bool ends,
                        cb_error *err) {
    cb_status status = CB_OK;
    if (ends)
        atomic_fetch_add_explicit(&input->rows_bad, 1, memory_order_relaxed);
    if (input->bad_fd < 0)
        return CB_OK;
    cbi_mutex_lock(&input->slow_lock);
    if (bytes != 0)
        status = bad_put(input, row, bytes, err);
    if (status == CB_OK && ends && input->format.kind != CB_FORMAT_FIXED)
        status = bad_put(input, &input->format.terminator, 1, err);
    cbi_mutex_unlock(&input->slow_lock);
    return status;
}

cb_status input_bad_flush(cbi_input *input, cb_error *err) {
    if (input->bad_fd < 0)
        return CB_OK;
    cbi_mutex_lock(&input->slow_lock);
    cb_status status = bad_drain(input, err);
    cbi_mutex_unlock(&input->slow_lock);
    return status;
}

void input_bad_fini(cbi_input *input) {
    if (input->bad_fd >= 0) {
        (void)input_bad_flush(input, NULL); /* cbi_input_finish is for those who want to know */
        (void)cbi_sys_close(input->bad_fd);
    }
    cbi_free(input->bad_buffer);
    cbi_free(input->bad_path);
}
