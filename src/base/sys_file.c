/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/sys.h"
#include "base/sys_call.h"

/*
 * Every transfer here ends in one of three ways: all bytes moved, the file ended, an errno.
 * Interrupted calls are made again, short ones are continued, and a descriptor that somebody else
 * made non-blocking (a terminal shared with another program) is waited for. The fault counter is
 * asked once per call to the system, so that what comes after a short transfer can fail as well.
 */

/* ---- names and descriptors ---- */

int cbi_sys_open(const char *path, int flags, mode_t mode) {
    return cbi_sys_openat(AT_FDCWD, path, flags, mode);
}

int cbi_sys_openat(int dir, const char *path, int flags, mode_t mode) {
    int fd;
    SYS_CALL(fd, CBI_FAULT_OPEN, openat(dir, path, flags | O_CLOEXEC, mode));
    return answer(fd);
}

int cbi_sys_close(int fd) {
    int fault = CBI_FAULT(CBI_FAULT_FILE);
    int result = close(fd);
    if (result < 0 && errno == EINTR) {
        return 0; /* Linux has closed it; again would hit somebody else's descriptor */
    }
    return fault != 0 && fault != EINTR ? -fault : answer(result);
}

int cbi_sys_fstat(int fd, struct stat *st) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, fstat(fd, st));
    return answer(result);
}

int cbi_sys_stat(const char *path, struct stat *st) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, stat(path, st));
    return answer(result);
}

int cbi_sys_statat(int dir, const char *name, struct stat *st) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW));
    return answer(result);
}

int cbi_sys_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, fallocate(fd, mode, (off_t)offset, (off_t)bytes));
    return answer(result);
}

int cbi_sys_truncate(int fd, uint64_t bytes) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, ftruncate(fd, (off_t)bytes));
    return answer(result);
}

int cbi_sys_fsync(int fd) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, fsync(fd));
    return answer(result);
}

int cbi_sys_fdatasync(int fd) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, fdatasync(fd));
    return answer(result);
}

int cbi_sys_syncfs(int fd) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, syncfs(fd));
    return answer(result);
}

int cbi_sys_renameat(int from_dir, const char *from, int to_dir, const char *to) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, renameat(from_dir, from, to_dir, to));
    return answer(result);
}

int cbi_sys_rename(const char *from, const char *to) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, rename(from, to));
    return answer(result);
}

int cbi_sys_linkat_fd(int fd, const char *path) {
    char self[64];
    (void)snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, linkat(AT_FDCWD, self, AT_FDCWD, path, AT_SYMLINK_FOLLOW));
    return answer(result);
}

int cbi_sys_realpath(const char *path, char *resolved) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, realpath(path, resolved) != NULL ? 0 : -1);
    return answer(result);
}

int cbi_sys_access(const char *path, int mode) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, access(path, mode));
    return answer(result);
}

int cbi_sys_unlink(const char *path) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, unlink(path));
    return answer(result);
}

int cbi_sys_mkdir(const char *path, mode_t mode) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, mkdir(path, mode));
    return answer(result);
}

int cbi_sys_fadvise(int fd, uint64_t offset, uint64_t bytes, int advice) {
    return -posix_fadvise(fd, (off_t)offset, (off_t)bytes, advice);
}

int cbi_sys_position(int fd, uint64_t *offset) {
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at < 0)
        return -errno;
    *offset = (uint64_t)at;
    return 0;
}

bool cbi_sys_cached(int fd, uint64_t offset) {
    char byte;
    struct iovec one = {.iov_base = &byte, .iov_len = 1};
    return preadv2(fd, &one, 1, (off_t)offset, RWF_NOWAIT) == 1;
}

int cbi_sys_sync_range(int fd, uint64_t offset, uint64_t bytes, unsigned flags) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, sync_file_range(fd, (off_t)offset, (off_t)bytes, flags));
    return answer(result);
}

void cbi_sys_write_out(int fd, uint64_t offset, uint64_t bytes) {
    (void)cbi_sys_sync_range(fd, offset, bytes,
                             SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                 SYNC_FILE_RANGE_WAIT_AFTER);
    (void)cbi_sys_fadvise(fd, offset, bytes, POSIX_FADV_DONTNEED);
}

int cbi_sys_set_direct(int fd, bool on) {
    int flags;
    SYS_CALL(flags, CBI_FAULT_FILE, fcntl(fd, F_GETFL));
    if (flags < 0) {
        return -errno;
    }
    int wanted = on ? flags | O_DIRECT : flags & ~O_DIRECT;
    return wanted == flags ? 0 : answer(fcntl(fd, F_SETFL, wanted));
}

int cbi_sys_lock_exclusive(int fd) {
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, fcntl(fd, F_OFD_SETLK, &whole));
    return result < 0 && errno == EACCES ? -EAGAIN : answer(result);
}

int cbi_sys_space(int fd, uint64_t *free_bytes, bool *in_memory) {
    enum { TMPFS_KIND = 0x01021994 };
    const long ramfs_kind = 0x858458f6L;
    struct statfs fs;
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, fstatfs(fd, &fs));
    if (result < 0) {
        return -errno;
    }
    /* What is reserved is not counted even for root: whether root may use it depends on the mount.
     */
    uint64_t blocks = fs.f_bavail;
    /* A tmpfs without a size reports no blocks at all and takes whatever memory there is. */
    *free_bytes = fs.f_blocks == 0 ? UINT64_MAX : blocks * (uint64_t)fs.f_bsize;
    *in_memory = (long)fs.f_type == TMPFS_KIND || (long)fs.f_type == ramfs_kind;
    return 0;
}

/* ---- transfers ---- */

/*
 * How much of `bytes` this call asks the system for. The fault build cuts it short where it is
 * armed to; a direct transfer is cut by a block, as the system does it.
 */
static size_t transfer_size(int fd, size_t bytes) {
#ifdef CARBIDE_FAULTS
    enum { BLOCK = 4096 };
    if (bytes > 1 && CBI_FAULT(CBI_FAULT_SHORT) != 0) {
        int flags = fcntl(fd, F_GETFL);
        if (flags >= 0 && (flags & O_DIRECT) != 0) {
            return bytes > BLOCK ? bytes - BLOCK : bytes;
        }
        return bytes - 1;
    }
#else
    (void)fd;
#endif
    return bytes;
}

/* After a failed transfer: true = make the call again. Waits while a non-blocking descriptor is not
 * ready. */
static bool should_retry(int fd, short event) {
    if (errno == EINTR) {
        return true;
    }
    if (errno != EAGAIN) {
        return false;
    }
    struct pollfd ready = {.fd = fd, .events = event};
    int count = poll(&ready, 1, -1);
    if (count < 0 && errno != EINTR) {
        return false;
    }
    errno = EAGAIN;
    return true;
}

typedef enum transfer_kind { TRANSFER_READ, TRANSFER_WRITE } transfer_kind;

static const uint64_t no_offset = UINT64_MAX; /* the descriptor's own position */

/* One call to the system, with its chance to fail. */
static ssize_t transfer_once(transfer_kind kind, int fd, void *buf, size_t bytes, uint64_t offset) {
    int fault = CBI_FAULT(kind == TRANSFER_READ ? CBI_FAULT_READ : CBI_FAULT_WRITE);
    if (fault != 0) {
        errno = fault;
        return -1;
    }
    size_t size = transfer_size(fd, bytes);
    if (kind == TRANSFER_READ) {
        return offset == no_offset ? read(fd, buf, size) : pread(fd, buf, size, (off_t)offset);
    }
    return offset == no_offset ? write(fd, buf, size) : pwrite(fd, buf, size, (off_t)offset);
}

/*
 * A direct read ends off a block boundary only where the file ends; going on from there is refused
 * with EINVAL by some file systems instead of being answered with "no more".
 */
static bool is_direct_end(size_t done) {
    return errno == EINVAL && done % 512 != 0;
}

static ssize_t read_fully(int fd, char *buf, size_t bytes, uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
        uint64_t at = offset == no_offset ? no_offset : offset + done;
        ssize_t got = transfer_once(TRANSFER_READ, fd, buf + done, bytes - done, at);
        if (got == 0) {
            break;
        }
        if (got > 0) {
            done += (size_t)got;
        } else if (is_direct_end(done)) {
            break;
        } else if (!should_retry(fd, POLLIN)) {
            return -errno;
        }
    }
    return (ssize_t)done;
}

static int write_fully(int fd, const char *buf, size_t bytes, uint64_t offset) {
    size_t done = 0;
    while (done < bytes) {
        uint64_t at = offset == no_offset ? no_offset : offset + done;
        void *from = (void *)(uintptr_t)(buf + done); /* transfer_once only reads it */
        ssize_t put = transfer_once(TRANSFER_WRITE, fd, from, bytes - done, at);
        if (put > 0) {
            done += (size_t)put;
        } else if (put == 0) {
            return -EIO; /* a file that takes nothing and gives no reason */
        } else if (!should_retry(fd, POLLOUT)) {
            return -errno;
        }
    }
    return 0;
}

ssize_t cbi_sys_pread(int fd, void *buf, size_t bytes, uint64_t offset) {
    return read_fully(fd, buf, bytes, offset);
}

ssize_t cbi_sys_read(int fd, void *buf, size_t bytes) {
    return read_fully(fd, buf, bytes, no_offset);
}

ssize_t cbi_sys_read_some(int fd, void *buf, size_t bytes) {
    for (;;) {
        ssize_t got = transfer_once(TRANSFER_READ, fd, buf, bytes, no_offset);
        if (got >= 0) {
            return got;
        }
        if (!should_retry(fd, POLLIN)) {
            return -errno;
        }
    }
}

int cbi_sys_pwrite(int fd, const void *buf, size_t bytes, uint64_t offset) {
    return write_fully(fd, buf, bytes, offset);
}

int cbi_sys_write(int fd, const void *buf, size_t bytes) {
    return write_fully(fd, buf, bytes, no_offset);
}

/* ---- vectors ---- */

enum { VECTOR_MAX = 1024 }; /* IOV_MAX of Linux */

/* Takes `bytes` off the front; answers how many entries are used up. */
static int consume(struct iovec *iov, int count, size_t bytes) {
    int used = 0;
    while (used < count && bytes >= iov[used].iov_len) {
        bytes -= iov[used].iov_len;
        used++;
    }
    if (used < count && bytes > 0) {
        iov[used].iov_base = (char *)iov[used].iov_base + bytes;
        iov[used].iov_len -= bytes;
    }
    return used;
}

static ssize_t vector_once(transfer_kind kind, int fd, struct iovec *iov, int count,
                           uint64_t offset) {
    int fault = CBI_FAULT(kind == TRANSFER_READ ? CBI_FAULT_READ : CBI_FAULT_WRITE);
    if (fault != 0) {
        errno = fault;
        return -1;
    }
    size_t whole = iov[0].iov_len;
    size_t cut = transfer_size(fd, whole);
    if (cut < whole) { /* short on purpose: the first entry alone, and not all of it */
        void *base = iov[0].iov_base;
        return kind == TRANSFER_READ ? pread(fd, base, cut, (off_t)offset)
                                     : pwrite(fd, base, cut, (off_t)offset);
    }
    int batch = count < VECTOR_MAX ? count : VECTOR_MAX;
    return kind == TRANSFER_READ ? preadv(fd, iov, batch, (off_t)offset)
                                 : pwritev(fd, iov, batch, (off_t)offset);
}

static int vector_fully(transfer_kind kind, int fd, struct iovec *iov, int count, uint64_t offset) {
    int used = consume(iov, count, 0); /* empty entries at the front */
    iov += used;
    count -= used;
    while (count > 0) {
        ssize_t moved = vector_once(kind, fd, iov, count, offset);
        if (moved == 0) {
            return -EIO;
        }
        if (moved > 0) {
            offset += (uint64_t)moved;
            used = consume(iov, count, (size_t)moved);
            iov += used;
            count -= used;
        } else if (!should_retry(fd, kind == TRANSFER_READ ? POLLIN : POLLOUT)) {
            return -errno;
        }
    }
    return 0;
}

int cbi_sys_pwritev(int fd, struct iovec *iov, int count, uint64_t offset) {
    return vector_fully(TRANSFER_WRITE, fd, iov, count, offset);
}

int cbi_sys_preadv(int fd, struct iovec *iov, int count, uint64_t offset) {
    return vector_fully(TRANSFER_READ, fd, iov, count, offset);
}
