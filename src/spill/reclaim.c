/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "spill/reclaim.h"

/*
 * Temporary files with names, for file systems without O_TMPFILE, and what becomes of them when
 * their owner is killed.
 *
 * Each process makes a folder of its own, carbide-spill.PID.NUMBER, mode 0700, with a file `owner`
 * in it on which it holds a lock for as long as it lives. The lock is the only sign of life that
 * counts: a process id can be somebody else's by now or mean nothing in another container, a time
 * stamp proves nothing, but the kernel drops a lock when its holder is gone and never before. So
 * the next start looks at every such folder and removes those whose lock it can take.
 *
 * Two starts and a newcomer may meet in one folder at any moment. The order of steps makes that
 * harmless:
 *
 *   making:    mkdir, create `owner`, lock it, look whether it still has its name, only then create
 * files removing:  lock `owner`, remove the files, remove `owner`, rmdir
 *
 * A remover that gets the lock between "create" and "lock" of a newcomer removes an empty folder;
 * the newcomer's lock then fails, or it succeeds on a file that has no name any more; either way it
 * starts again under another number. A folder without `owner` has no other files either (they are
 * removed before it, and made after it), so rmdir alone decides.
 *
 * Everything goes through descriptors of folders and with O_NOFOLLOW: a planted symbolic link is
 * refused, not followed, and what is not ours (another user's folder, a file with an unexpected
 * name) is left alone.
 */

enum { ATTEMPTS_MAX = 16 };

static const char PREFIX[] = "carbide-spill.";
static const char OWNER[] = "owner";
static const char FILE_PREFIX[] = "spill.";

static bool has_prefix(const char *name, const char *prefix) {
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool is_ours(const struct stat *st, mode_t kind) {
    return (st->st_mode & S_IFMT) == kind && st->st_uid == geteuid();
}

static void close_if_open(int *fd) {
    if (*fd >= 0) {
        (void)cbi_sys_close(*fd);
    }
    *fd = -1;
}

/* ---- making ---- */

/* Anybody who may write in a folder without the sticky bit may put another thing in the place of
 * ours. */
static cb_status check_parent(int fd, const char *path, cb_error *err) {
    struct stat st;
    int result = cbi_sys_fstat(fd, &st);
    if (result < 0) {
        return cbi_fail_sys(err, CB_EIO, result, "the temporary folder %s cannot be looked at",
                            path);
    }
    bool others_write = (st.st_mode & (S_IWGRP | S_IWOTH)) != 0;
    if (others_write && (st.st_mode & S_ISVTX) == 0) {
        return cbi_fail(
            err, CB_EIO,
            "others may write in the temporary folder %s and replace what is not theirs (mode "
            "%04o, not sticky), and "
            "its file system has no nameless files; chmod +t it or give another folder (-T)",
            path, (unsigned)(st.st_mode & 07777));
    }
    if (st.st_uid != geteuid() && st.st_uid != 0) {
        return cbi_fail(err, CB_EIO,
                        "the temporary folder %s belongs to another user, and its file system has "
                        "no nameless files; give "
                        "another folder (-T)",
                        path);
    }
    return CB_OK;
}

/* `owner` in the fresh folder, locked, and still under its name. -EAGAIN: somebody took the folder
 * for a dead one. */
static int make_owner(cbi_private_folder *folder) {
    folder->owner_fd =
        cbi_sys_openat(folder->fd, OWNER, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
    if (folder->owner_fd < 0) {
        return folder->owner_fd == -ENOENT ? -EAGAIN : folder->owner_fd;
    }
    int result = cbi_sys_lock_exclusive(folder->owner_fd);
    if (result < 0) {
        return result;
    }
    struct stat st;
    result = cbi_sys_fstat(folder->owner_fd, &st);
    return result < 0 ? result : st.st_nlink == 0 ? -EAGAIN : 0;
}

static int try_make(cbi_private_folder *folder, int parent, uint64_t number) {
    (void)snprintf(folder->name, sizeof folder->name, "%s%ld.%08" PRIx32, PREFIX, (long)getpid(),
                   (uint32_t)(number ^ number >> 32));
    int result = cbi_sys_mkdirat(parent, folder->name, 0700);
    if (result < 0) {
        return result == -EEXIST || result == -ENOENT ? -EAGAIN : result;
    }
    folder->fd =
        cbi_sys_openat(parent, folder->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (folder->fd < 0) {
        result = folder->fd == -ENOENT ? -EAGAIN : folder->fd;
        (void)cbi_sys_unlinkat(parent, folder->name, AT_REMOVEDIR);
        return result;
    }
    result = make_owner(folder);
    if (result < 0) {
        cbi_private_folder_close(folder, parent);
    }
    return result;
}

cb_status cbi_private_folder_open(cbi_private_folder *folder, int fd, const char *path,
                                  cb_error *err) {
    CB_TRY(check_parent(fd, path, err));
    return cbi_private_folder_make(folder, fd, path, err);
}

cb_status cbi_private_folder_make(cbi_private_folder *folder, int fd, const char *path,
                                  cb_error *err) {
    (void)cbi_reclaim(fd);
    int result = -EAGAIN;
    for (uint64_t i = 0; i < ATTEMPTS_MAX && result == -EAGAIN; i++) {
        *folder = (cbi_private_folder){.fd = -1, .owner_fd = -1};
        result = try_make(folder, fd, (cbi_sys_clock_ns() + i) * 0x9e3779b97f4a7c15u);
    }
    if (result < 0) {
        cb_status status = result == -ENOSPC || result == -EDQUOT ? CB_ENOSPC : CB_EIO;
        return cbi_fail_sys(err, status, result, "no private folder can be made in the folder %s",
                            path);
    }
    return CB_OK;
}

/* ---- removing ---- */

typedef struct removal {
    int fd;
    bool all; /* nothing was left so far */
} removal;

static void remove_anything(void *ctx, const char *name);

/* A folder of ours with all that is in it. The depth is that of a template's folders. */
static bool remove_tree(int parent, const char *name) {
    int fd = cbi_sys_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    removal r = {.fd = fd, .all = true};
    r.all = cbi_sys_list(fd, remove_anything, &r) >= 0 && r.all;
    (void)cbi_sys_close(fd);
    return cbi_sys_unlinkat(parent, name, AT_REMOVEDIR) >= 0 && r.all;
}

static void remove_anything(void *ctx, const char *name) {
    removal *r = ctx;
    int result = cbi_sys_unlinkat(r->fd, name, 0);
    bool gone = result == -EISDIR || result == -EPERM ? remove_tree(r->fd, name) : result >= 0;
    r->all = gone && r->all;
}

static void remove_file(void *ctx, const char *name) {
    removal *r = ctx;
    if (has_prefix(name, FILE_PREFIX)) {
        remove_anything(r, name);
    } else if (strcmp(name, OWNER) != 0) {
        r->all = false; /* not ours */
    }
}

/* The lock is ours. `owner` stays while something else does, so that somebody may come back to it.
 */
static bool remove_folder(int parent, int fd, const char *name) {
    removal r = {.fd = fd, .all = true};
    if (cbi_sys_list(fd, remove_file, &r) < 0 || !r.all) {
        return false;
    }
    int result = cbi_sys_unlinkat(fd, OWNER, 0);
    return (result >= 0 || result == -ENOENT) && cbi_sys_unlinkat(parent, name, AT_REMOVEDIR) >= 0;
}

void cbi_private_folder_close(cbi_private_folder *folder, int parent) {
    if (folder->fd >= 0 && !remove_folder(parent, folder->fd, folder->name)) {
        (void)remove_folder(parent, folder->fd, folder->name); /* what failed may have passed */
    }
    close_if_open(&folder->owner_fd); /* the lock goes last */
    close_if_open(&folder->fd);
}

typedef struct reclaim_state {
    int parent;
    uint32_t removed;
} reclaim_state;

static bool reclaim_opened(int parent, int fd, const char *name) {
    struct stat st;
    if (cbi_sys_fstat(fd, &st) < 0 || !is_ours(&st, S_IFDIR)) {
        return false;
    }
    int owner = cbi_sys_openat(fd, OWNER, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (owner == -ENOENT) {
        return cbi_sys_unlinkat(parent, name, AT_REMOVEDIR) >= 0;
    }
    if (owner < 0) {
        return false;
    }
    bool dead = cbi_sys_fstat(owner, &st) >= 0 && is_ours(&st, S_IFREG) &&
                cbi_sys_lock_exclusive(owner) >= 0;
    bool removed = dead && remove_folder(parent, fd, name);
    (void)cbi_sys_close(owner);
    return removed;
}

static void reclaim_one(void *ctx, const char *name) {
    reclaim_state *state = ctx;
    if (!has_prefix(name, PREFIX)) {
        return;
    }
    int fd =
        cbi_sys_openat(state->parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd >= 0) {
        state->removed += reclaim_opened(state->parent, fd, name) ? 1 : 0;
        (void)cbi_sys_close(fd);
    }
}

uint32_t cbi_reclaim(int fd) {
    reclaim_state state = {.parent = fd};
    (void)cbi_sys_list(fd, reclaim_one, &state);
    return state.removed;
}
