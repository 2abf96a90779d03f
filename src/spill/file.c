/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "spill/file.h"
#include "spill/reclaim.h"

/*
 * Temporary folders and the files in them: opening, transferring, closing. Where an extent goes is
 * place.c's business.
 *
 * A file has no name if the file system can do that (O_TMPFILE): the kernel frees it when the
 * process ends, however it ends. O_EXCL there means that nobody can give it a name later on.
 * Otherwise the files lie in a private folder (reclaim.c).
 *
 * Direct I/O is asked of every file and given up, for that file and for good, when a transfer is
 * refused with EINVAL. Buffered transfers are written out and dropped from the page cache at once,
 * by the I/O thread that made them: in a container the page cache is part of the budget, and with
 * several I/O threads the others go on meanwhile. For the same reason the kernel is told not to
 * read ahead, which it would do behind an extent's end and nobody would drop (measured in a memory
 * cgroup: 88 MiB of cache, 3 MiB without).
 *
 * By order (page_cache) none of that is done: files are written and read as any program's are. That
 * is for those whose budget does not count the page cache and whose files live for seconds: what is
 * freed before the kernel writes it out never costs the disk anything.
 */

/* What open(O_TMPFILE) says where it does not exist: an old kernel sees a folder opened for
 * writing, a file system that lacks it says EOPNOTSUPP, some say EINVAL or ENOSYS. */
static bool is_tmpfile_unknown(int result) {
    return result == -EOPNOTSUPP || result == -EISDIR || result == -EINVAL || result == -ENOSYS ||
           result == -ENOENT;
}

static int open_file(const cbi_places *places, const cbi_folder *folder, uint32_t index,
                     bool *direct) {
    int fd;
    if (folder->private_folder.fd < 0) {
        fd = cbi_sys_openat(folder->fd, ".", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    } else {
        char name[32];
        (void)snprintf(name, sizeof name, "spill.%" PRIu32, index);
        fd = cbi_sys_openat(folder->private_folder.fd, name,
                            O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
    }
    if (places->page_cache) {
        *direct = false;
        return fd;
    }
    *direct = fd >= 0 && !places->buffered && cbi_sys_set_direct(fd, true) >= 0;
    if (fd >= 0 && !*direct) { /* whole extents are asked for; what lies behind one is another's */
        (void)cbi_sys_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    }
    return fd;
}

int cbi_spill_file_open(cbi_places *places, uint32_t index) {
    cbi_spill_file *file = &places->files[index];
    bool direct = false;
    int fd = open_file(places, &places->folders[file->folder], index, &direct);
    if (fd >= 0) {
        atomic_store(&file->direct, direct);
        file->fd = fd;
    }
    return fd;
}

static cb_status fail_open(cb_error *err, const char *path, int result) {
    cb_status status = result == -ENOSPC || result == -EDQUOT ? CB_ENOSPC : CB_EIO;
    return cbi_fail_sys(err, status, result,
                        "a temporary file cannot be made in %s; give another folder (-T)", path);
}

/* The first file of a folder shows what the folder can do. */
static cb_status open_first_file(cbi_places *places, uint32_t folder_index, cb_error *err) {
    cbi_folder *folder = &places->folders[folder_index];
    uint32_t first = folder_index * places->groups;
    int result = places->named ? -EOPNOTSUPP : cbi_spill_file_open(places, first);
    if (result < 0 && (places->named || is_tmpfile_unknown(result))) {
        CB_TRY(cbi_private_folder_open(&folder->private_folder, folder->fd, folder->path, err));
        result = cbi_spill_file_open(places, first);
    }
    if (result < 0) {
        return fail_open(err, folder->path, result);
    }
    folder->direct = atomic_load(&places->files[first].direct);
    return CB_OK;
}

static cb_status open_folder(cbi_places *places, uint32_t index, const cbi_spill_options *options,
                             cb_error *err) {
    cbi_folder *folder = &places->folders[index];
    const char *path = options->dirs[index];
    folder->path = cbi_strdup(path);
    if (folder->path == NULL) {
        return cbi_fail(err, CB_ENOMEM, "no memory for the name of a temporary folder");
    }
    folder->fd = cbi_sys_open(path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (folder->fd < 0) {
        return cbi_fail_sys(err, CB_EIO, folder->fd, "the temporary folder %s cannot be opened",
                            path);
    }
    uint64_t free_bytes = 0;
    bool in_memory = false;
    int result = cbi_sys_space(folder->fd, &free_bytes, &in_memory);
    if (result < 0) {
        return cbi_fail_sys(err, CB_EIO, result,
                            "the temporary folder %s does not tell its free space", path);
    }
    if (in_memory && !options->allow_memory_fs) {
        return cbi_fail(err, CB_EUNSUPPORTED,
                        "the temporary folder %s lies in memory, where spilled data would take "
                        "what spilling is to save; "
                        "give a folder on a disk (-T)",
                        path);
    }
    return open_first_file(places, index, err);
}

/* Zeroed descriptors would be somebody else's: each table is usable for cbi_places_fini as soon as
 * it is there. */
static cb_status make_tables(cbi_places *places, cb_error *err) {
    uint32_t file_count = places->folder_count * places->groups + 1;
    places->folders = cbi_calloc(places->folder_count, sizeof *places->folders);
    for (uint32_t i = 0; places->folders != NULL && i < places->folder_count; i++) {
        places->folders[i].fd = -1;
        places->folders[i].private_folder = (cbi_private_folder){.fd = -1, .owner_fd = -1};
    }
    places->files = cbi_calloc(file_count, sizeof *places->files);
    for (uint32_t i = 0; places->files != NULL && i < file_count; i++) {
        places->files[i].fd = -1;
        places->files[i].folder = i + 1 < file_count ? i / places->groups : 0;
        places->files[i].page_cache = places->page_cache;
    }
    if (places->folders == NULL || places->files == NULL) {
        return cbi_fail(err, CB_ENOMEM, "no memory for the tables of temporary files");
    }
    return CB_OK;
}

cb_status cbi_places_init(cbi_places *places, const cbi_spill_options *options, cb_error *err) {
    *places = (cbi_places){
        .folder_count = (uint32_t)options->dir_count,
        .groups =
            (uint32_t)cbi_min((CBI_SPILL_FILES_MAX - 1) / options->dir_count, CBI_SPILL_GROUPS_MAX),
        .limit_blocks =
            options->limit_bytes == 0 ? UINT64_MAX : options->limit_bytes / CBI_SPILL_ALIGN,
        .named = options->named_files,
        .buffered = options->buffered,
        .page_cache = options->page_cache,
        .tier = {.memory = options->tier, .blocks = options->tier_bytes / CBI_SPILL_ALIGN},
    };
    cbi_mutex_init(&places->lock, CBI_RANK_PLACES);
    cbi_cond_init(&places->idle);
    places->ready = true;
    CB_TRY(make_tables(places, err));
    for (uint32_t i = 0; i < places->folder_count; i++) {
        CB_TRY(open_folder(places, i, options, err));
    }
    return CB_OK;
}

bool cbi_places_close_next(cbi_places *places) {
    int fd = -1;
    cbi_mutex_lock(&places->lock);
    for (uint32_t i = 0;
         places->files != NULL && i < places->folder_count * places->groups && fd < 0; i++) {
        fd = places->files[i].fd;
        places->files[i].fd = -1;
    }
    cbi_mutex_unlock(&places->lock);
    if (fd < 0) {
        return false;
    }
    (void)cbi_sys_close(fd); /* nothing in it is wanted any more */
    return true;
}

void cbi_places_fini(cbi_places *places) {
    if (!places->ready) {
        return;
    }
    while (cbi_places_close_next(places)) {
    }
    for (uint32_t i = 0; places->folders != NULL && i < places->folder_count; i++) {
        cbi_folder *folder = &places->folders[i];
        cbi_private_folder_close(&folder->private_folder, folder->fd);
        if (folder->fd >= 0) {
            (void)cbi_sys_close(folder->fd);
        }
        cbi_free(folder->path);
    }
    cbi_free(places->folders);
    cbi_free(places->files);
    cbi_cond_fini(&places->idle);
    cbi_mutex_fini(&places->lock);
    *places = (cbi_places){0};
}

/* ---- transfers ---- */

typedef int (*transfer_fn)(int fd, struct iovec *iov, int count, uint64_t offset);

/* Direct as long as it is taken. The vector is kept aside, since a refusal can come after a part
 * was moved. */
static int transfer(cbi_spill_file *file, transfer_fn fn, struct iovec *iov, int count,
                    uint64_t offset) {
    struct iovec again[CBI_SPILL_VECTOR_MAX];
    cb_assert(count > 0 && count <= CBI_SPILL_VECTOR_MAX);
    memcpy(again, iov, (size_t)count * sizeof *iov);
    int result = fn(file->fd, iov, count, offset);
    if (result != -EINVAL || !atomic_load(&file->direct)) {
        return result;
    }
    if (cbi_sys_set_direct(file->fd, false) < 0) {
        return result;
    }
    atomic_store(&file->direct, false);
    (void)cbi_sys_fadvise(file->fd, 0, 0, POSIX_FADV_RANDOM);
    return fn(file->fd, again, count, offset);
}

int cbi_spill_file_write(cbi_spill_file *file, struct iovec *iov, int count, uint64_t offset,
                         uint64_t bytes) {
    int result = transfer(file, cbi_sys_pwritev, iov, count, offset);
    if (result >= 0 && !atomic_load(&file->direct) && !file->page_cache) {
        cbi_sys_write_out(file->fd, offset, bytes);
    }
    return result;
}

int cbi_spill_file_read(cbi_spill_file *file, struct iovec *iov, int count, uint64_t offset,
                        uint64_t bytes) {
    int result = transfer(file, cbi_sys_preadv, iov, count, offset);
    if (!atomic_load(&file->direct) && !file->page_cache) {
        (void)cbi_sys_fadvise(file->fd, offset, bytes, POSIX_FADV_DONTNEED);
    }
    return result;
}

/* ---- before anything is opened ---- */

static cb_status open_for_space(const char *path, int *fd, struct stat *st, cb_error *err) {
    *fd = cbi_sys_open(path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    int result = *fd < 0 ? *fd : cbi_sys_fstat(*fd, st);
    if (result < 0) {
        if (*fd >= 0) {
            (void)cbi_sys_close(*fd);
        }
        return cbi_fail_sys(err, CB_EIO, result, "the temporary folder %s cannot be opened", path);
    }
    return CB_OK;
}

/* Has one of the folders before `index` the same file system? */
static bool seen_before(const char *const *dirs, size_t index, dev_t device) {
    for (size_t i = 0; i < index; i++) {
        struct stat st;
        if (cbi_sys_stat(dirs[i], &st) >= 0 && st.st_dev == device) {
            return true;
        }
    }
    return false;
}

cb_status cbi_spill_space(const char *const *dirs, size_t count, uint64_t *free_bytes,
                          bool *in_memory, cb_error *err) {
    uint64_t sum = 0;
    bool any_in_memory = false;
    for (size_t i = 0; i < count; i++) {
        int fd = -1;
        struct stat st = {0};
        CB_TRY(open_for_space(dirs[i], &fd, &st, err));
        uint64_t here = 0;
        bool memory = false;
        int result = cbi_sys_space(fd, &here, &memory);
        (void)cbi_sys_close(fd);
        if (result < 0) {
            return cbi_fail_sys(err, CB_EIO, result,
                                "the temporary folder %s does not tell its free space", dirs[i]);
        }
        if (!seen_before(dirs, i, st.st_dev)) {
            sum = here > UINT64_MAX - sum ? UINT64_MAX : sum + here;
        }
        any_in_memory = any_in_memory || memory;
    }
    *free_bytes = sum;
    *in_memory = any_in_memory;
    return CB_OK;
}
