/* SPDX-License-Identifier: Apache-2.0 */
#include "disk.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST_BYTES = 1024 * 1024, ALIGNMENT = 4096, THREADS = 2 };

static const struct {
    uint32_t magic;
    const char *name;
    bool in_memory;
} file_systems[] = {
    {0xef53, "ext4", false},         {0x58465342, "xfs", false},    {0x9123683e, "btrfs", false},
    {0x01021994, "tmpfs", true},     {0x858458f6, "ramfs", true},   {0x794c7630, "overlay", false},
    {0x6969, "nfs", false},          {0xff534d42, "cifs", false},   {0xfe534d42, "smb2", false},
    {0x2fc12fc1, "zfs", false},      {0xf2f52010, "f2fs", false},   {0x65735546, "fuse", false},
    {0x00c36400, "ceph", false},     {0x0bd00bd0, "lustre", false}, {0x4d44, "vfat", false},
    {0x2011bab0, "exfat", false},    {0x01021997, "9p", false},     {0xca451a4e, "bcachefs", false},
    {0x958458f6, "hugetlbfs", true},
};

static void look_at_file_system(cli_disk *disk, const char *folder) {
    struct statfs st;
    if (statfs(folder, &st) != 0) {
        snprintf(disk->file_system, sizeof disk->file_system, "unknown");
        return;
    }
    uint32_t magic = (uint32_t)st.f_type;
    uint64_t blocks =
        (uint64_t)(geteuid() == 0 ? st.f_bfree : st.f_bavail); /* some are kept for root */
    disk->free_bytes = blocks * (uint64_t)st.f_bsize;
    snprintf(disk->file_system, sizeof disk->file_system, "file system 0x%x", magic);
    for (size_t i = 0; i < CLI_COUNT(file_systems); i++) {
        if (file_systems[i].magic == magic) {
            snprintf(disk->file_system, sizeof disk->file_system, "%s", file_systems[i].name);
            disk->in_memory = file_systems[i].in_memory;
        }
    }
}

/** A file there without a name, or with one that is taken away at once. */
static int open_nameless(cli_disk *disk, const char *folder) {
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    disk->nameless = fd >= 0;
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd;
    char path[4096];
    snprintf(path, sizeof path, "%s/.carbide-doctor-XXXXXX", folder);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        (void)unlink(path);
    return fd;
}

typedef struct pass {
    int fd;
    bool write;
    uint64_t bytes;
    _Atomic uint64_t next;
    atomic_int failed;
} pass;

static void *pass_worker(void *ctx) {
    pass *p = ctx;
    char *data = aligned_alloc(ALIGNMENT, REQUEST_BYTES);
    if (data == NULL) {
        atomic_store(&p->failed, ENOMEM);
        return NULL;
    }
    for (size_t i = 0; i < REQUEST_BYTES; i++)
        data[i] = (char)(i * 2654435761U >> 24); /* not all the same, should the disk compress */
    while (atomic_load(&p->failed) == 0) {
        uint64_t at = atomic_fetch_add(&p->next, REQUEST_BYTES);
        if (at + REQUEST_BYTES > p->bytes)
            break;
        ssize_t n = p->write ? pwrite(p->fd, data, REQUEST_BYTES, (off_t)at)
                             : pread(p->fd, data, REQUEST_BYTES, (off_t)at);
        if (n != REQUEST_BYTES)
            atomic_store(&p->failed, n < 0 ? errno : EIO);
    }
    free(data);
    return NULL;
}

static double seconds_now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/** Bytes a second, or 0 with errno in *why. */
static double run_pass(int fd, bool write, uint64_t bytes, bool sync, int *why) {
    pass p = {.fd = fd, .write = write, .bytes = bytes};
    pthread_t others[THREADS];
    unsigned started = 0;
    double start = seconds_now();
    while (started + 1 < THREADS && pthread_create(&others[started], NULL, pass_worker, &p) == 0)
        started++;
    (void)pass_worker(&p);
    while (started > 0)
        (void)pthread_join(others[--started], NULL);
    *why = atomic_load(&p.failed);
    if (*why == 0 && sync && fdatasync(fd) != 0)
        *why = errno;
    double seconds = seconds_now() - start;
    return *why == 0 && seconds > 0 ? (double)bytes / seconds : 0;
}

static void measure(cli_disk *disk, int fd, uint64_t bytes) {
    int why = 0;
    if (disk->free_bytes / 2 < bytes)
        bytes = disk->free_bytes / 2;
    bytes -= bytes % REQUEST_BYTES;
    if (bytes == 0)
        return;
    disk->write_bytes_s = run_pass(fd, true, bytes, !disk->direct, &why);
    if (why == 0 && !disk->direct)
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (why == 0)
        disk->read_bytes_s = run_pass(fd, false, bytes, false, &why);
    if (why != 0)
        snprintf(disk->message, sizeof disk->message, "the disk could not be measured: %s",
                 strerror(why));
}

void cli_disk_look(cli_disk *disk, const char *folder, uint64_t bytes) {
    *disk = (cli_disk){0};
    look_at_file_system(disk, folder);
    int fd = open_nameless(disk, folder);
    if (fd < 0) {
        snprintf(disk->message, sizeof disk->message, "no file can be made there: %s",
                 strerror(errno));
        return;
    }
    disk->usable = true;
    int flags = fcntl(fd, F_GETFL);
    disk->direct = flags >= 0 && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
    if (bytes > 0 && !disk->in_memory)
        measure(disk, fd, bytes);
    close(fd);
}
