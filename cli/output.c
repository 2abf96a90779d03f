/* SPDX-License-Identifier: Apache-2.0 */
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/** "DIR/" of a path into `folder`; its length, 0 when it has none. */
static size_t folder_of(const char *path, char folder[PATH_BYTES]) {
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    if (length >= PATH_BYTES)
        length = 0;
    memcpy(folder, path, length);
    folder[length] = '\0';
    return length;
}

static mode_t mode_for_new_files(void) {
    mode_t mask = umask(0); /* before any thread is started */
    umask(mask);
    return 0666 & ~mask;
}

static int open_file(cli_output *o) {
    char folder[PATH_BYTES];
    struct stat st;
    bool there = stat(o->path, &st) == 0;
    if (there && !S_ISREG(st.st_mode))
        return open(o->path, O_WRONLY | O_CLOEXEC);
    size_t length = folder_of(o->path, folder);
    int fd = open(length > 0 ? folder : ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    o->seekable = true;
    o->hidden = fd >= 0;
    if (fd >= 0)
        return fchmod(fd, there ? st.st_mode & 07777 : mode_for_new_files()) == 0 ? fd
                                                                                  : (close(fd), -1);
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT)
        return -1;
    return open(o->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
                0666); /* no nameless files here */
}

bool cli_output_open(cli_output *o, const char *path) {
    struct stat st;
    bool standard = path == NULL || strcmp(path, "-") == 0;
    *o = (cli_output){.path = standard ? NULL : path, .name = standard ? "standard output" : path};
    if (!standard) {
        o->resolved = realpath(path, NULL); /* a link keeps pointing where it does */
        if (o->resolved != NULL)
            o->path = o->resolved;
        o->fd = open_file(o);
        if (o->fd >= 0)
            return true;
        cli_complain("cannot open %s: %s", path, strerror(errno));
        cli_output_fini(o);
        return false;
    }
    o->fd = STDOUT_FILENO;
    int flags = fcntl(o->fd, F_GETFL);
    if (fstat(o->fd, &st) == 0 && S_ISREG(st.st_mode) && flags >= 0 && (flags & O_APPEND) == 0) {
        off_t at = lseek(o->fd, 0, SEEK_CUR);
        o->seekable = at >= 0;
        o->base = at >= 0 ? (uint64_t)at : 0;
    }
    return true;
}

int cli_output_write(cli_output *o, const char *data, size_t bytes, uint64_t offset) {
    if (!o->seekable)
        return cli_write_all(o->fd, data, bytes) ? 0 : errno;
    while (bytes > 0) {
        ssize_t n = pwrite(o->fd, data, bytes, (off_t)(o->base + offset));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        data += n;
        bytes -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/** A nameless file gets a name beside the wanted one and takes its place. */
static int give_name(cli_output *o) {
    char from[64], beside[PATH_BYTES + 64], folder[PATH_BYTES];
    snprintf(from, sizeof from, "/proc/self/fd/%d", o->fd);
    if (linkat(AT_FDCWD, from, AT_FDCWD, o->path, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    if (errno != EEXIST)
        return errno;
    folder_of(o->path, folder);
    snprintf(beside, sizeof beside, "%s.carbide-gen-%ld", folder, (long)getpid());
    (void)unlink(beside); /* of an earlier process with this number that was killed just here */
    if (linkat(AT_FDCWD, from, AT_FDCWD, beside, AT_SYMLINK_FOLLOW) != 0)
        return errno;
    if (rename(beside, o->path) == 0)
        return 0;
    int why = errno;
    (void)unlink(beside);
    return why;
}

int cli_output_finish(cli_output *o, uint64_t bytes) {
    int why = 0;
    if (o->path == NULL && o->seekable && lseek(o->fd, (off_t)(o->base + bytes), SEEK_SET) < 0)
        return errno;
    if (o->hidden && o->path != NULL)
        why = give_name(o);
    if (close(o->fd) != 0 && why == 0)
        why = errno;
    o->fd = -1;
    return why;
}

void cli_output_fini(cli_output *o) {
    if (o->fd > STDERR_FILENO)
        close(o->fd);
    o->fd = -1;
    free(o->resolved);
    o->resolved = NULL;
}
