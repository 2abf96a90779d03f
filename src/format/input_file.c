/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "format/input_private.h"

/* ---- descriptors ---- */

/* A file that is opened again must be the one that was opened first. */
static cb_status file_reopen(const input_file *file, int *fd, cb_error *err) {
    struct stat st;
    int f = cbi_sys_open(file->path, O_RDONLY, 0);
    if (f < 0)
        return cbi_fail_sys(err, CB_EIO, -f, "cannot open %s again", file->path);
    int r = cbi_sys_fstat(f, &st);
    if (r < 0 || (uint64_t)st.st_dev != file->device || (uint64_t)st.st_ino != file->inode) {
        (void)cbi_sys_close(f);
        return r < 0 ? cbi_fail_sys(err, CB_EIO, -r, "cannot look at %s", file->path)
                     : cbi_fail(err, CB_EIO,
                                "%s was replaced by another file while it was being read",
                                file->path);
    }
    *fd = f;
    return CB_OK;
}

cb_status input_file_acquire(cbi_input *input, size_t index, int *fd, cb_error *err) {
    input_file *file = &input->files[index];
    cb_status status = CB_OK;
    cbi_mutex_lock(&input->lock);
    if (file->fd < 0 && input->read == NULL)
        status = file_reopen(file, &file->fd, err);
    if (status == CB_OK) {
        file->users++;
        *fd = file->fd;
    }
    cbi_mutex_unlock(&input->lock);
    return status;
}

void input_file_release(cbi_input *input, size_t index) {
    input_file *file = &input->files[index];
    cbi_mutex_lock(&input->lock);
    cb_assert(file->users > 0);
    if (--file->users == 0 && !file->keep_open) {
        (void)cbi_sys_close(file->fd);
        file->fd = -1;
    }
    cbi_mutex_unlock(&input->lock);
}

void input_file_fini(input_file *file) {
    if (file->fd >= 0 && !file->standard)
        (void)cbi_sys_close(file->fd);
    file->fd = -1;
    cbi_free(file->path);
    file->path = NULL;
}

/* ---- the first look ---- */

static cb_status file_open_fd(input_file *file, const char *path, cb_error *err) {
    struct stat st;
    if (file->standard) {
        file->fd = STDIN_FILENO;
    } else {
        int fd = cbi_sys_open(path, O_RDONLY, 0);
        if (fd < 0)
            return cbi_fail_sys(err, CB_EIO, -fd, "cannot open %s", path);
        file->fd = fd;
    }
    int r = cbi_sys_fstat(file->fd, &st);
    if (r < 0)
        return cbi_fail_sys(err, CB_EIO, -r, "cannot look at %s", file->path);
    if (S_ISDIR(st.st_mode))
        return cbi_fail_sys(err, CB_EIO, EISDIR, "cannot read %s", file->path);
    file->device = (uint64_t)st.st_dev;
    file->inode = (uint64_t)st.st_ino;
    file->regular = S_ISREG(st.st_mode);
    if (file->regular && file->standard) {
        file->regular = cbi_sys_position(file->fd, &file->origin) == 0;
        if (file->origin > (uint64_t)st.st_size)
            file->origin = (uint64_t)st.st_size;
    }
    if (file->regular)
        file->size = (uint64_t)st.st_size - file->origin;
    return CB_OK;
}

/* What is in the first bytes of a regular file: a magic number, or bytes although its size is said
 * to be 0 (/proc). */
static cb_status file_probe(cbi_input *input, input_file *file, cb_error *err) {
    uint8_t magic[INPUT_PEEK_BYTES];
    ssize_t n = cbi_sys_pread(file->fd, magic, sizeof magic, file->origin);
    if (n < 0)
        return cbi_fail_sys(err, CB_EIO, (int)-n, "cannot read %s", file->path);
    if (file->size == 0 && n > 0) {
        file->regular = false;
        return CB_OK;
    }
    if (input->as_is)
        return CB_OK;
    file->codec = cbi_compression_of_magic(magic, (size_t)n);
    if (input->format.kind == CB_FORMAT_FIXED && cbi_compression_of_name(file->path) != file->codec)
        file->codec = CBI_COMPRESSION_NONE;
    return CB_OK;
}

cb_status input_file_open(cbi_input *input, size_t index, const char *path, cb_error *err) {
    input_file *file = &input->files[index];
    file->fd = -1;
    file->standard = input->read == NULL && strcmp(path, "-") == 0;
    file->path = cbi_strdup(file->standard ? "standard input" : path);
    if (!file->path)
        return cbi_fail(err, CB_ENOMEM, "no memory for the name of an input");
    if (input->read != NULL) {
        file->keep_open = true;
        return CB_OK;
    }
    CB_TRY(file_open_fd(file, path, err));
    for (size_t i = 0; i < index && file->standard; i++)
        file->nothing |= input->files[i].standard;
    if (file->nothing) {
        file->regular = true;
        file->size = 0;
    } else if (file->regular) {
        CB_TRY(file_probe(input, file, err));
    }
    file->keep_open = !file->regular || file->standard || index < INPUT_FILES_OPEN_MAX;
    if (file->regular)
        (void)cbi_sys_fadvise(file->fd, 0, 0,
                              POSIX_FADV_RANDOM); /* samples come first; reading turns it */
    if (!file->keep_open) {
        (void)cbi_sys_close(file->fd);
        file->fd = -1;
    }
    return CB_OK;
}

cb_status input_file_read(cbi_input *input, size_t index, int fd, uint8_t *buf, size_t bytes,
                          uint64_t offset, cb_error *err) {
    const input_file *file = &input->files[index];
    ssize_t n = cbi_sys_pread(fd, buf, bytes, file->origin + offset);
    if (n < 0)
        return cbi_fail_sys(err, CB_EIO, (int)-n, "cannot read %s at byte %" PRIu64, file->path,
                            offset);
    if ((size_t)n < bytes)
        return cbi_fail(err, CB_EIO,
                        "%s became shorter while it was being read: it had %" PRIu64
                        " bytes, now it ends at %" PRIu64,
                        file->path, file->size, offset + (uint64_t)n);
    return CB_OK;
}
