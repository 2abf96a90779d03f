/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The status page: a file of one cb_figures between a head and a checksum. It is written whole, in
 * one call, and a reader that comes in between sees that the checksum is wrong and reads again:
 * nobody locks, nobody waits. The publisher holds a lock on the file for as long as it lives, which
 * is how readers know.
 */
#define XXH_INLINE_ALL
#include "carbide/monitor.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/sys.h"

typedef struct page_image {
    char magic[8];
    uint64_t bytes; /* of the figures: other versions have others */
    cb_figures figures;
    uint64_t sum;
} page_image;

enum { TRIES = 100 };

static const char magic[8] = {'C', 'B', 'S', 'T', 'A', 'T', '0', '1'};

struct cb_status_page {
    int fd;
    char *path;
    page_image image;
};

static uint64_t sum_of(const page_image *p) {
    return XXH3_64bits(p, offsetof(page_image, sum));
}

static cb_status claim(int fd, const char *path, cb_error *err) {
    page_image head;
    int result = cbi_sys_lock_exclusive(fd);
    if (result == -EAGAIN) {
        return cbi_fail(err, CB_EEXISTS, "%s is the status page of a process that lives.", path);
    }
    ssize_t got = result < 0 ? result : cbi_sys_pread(fd, &head, sizeof head.magic, 0);
    if (got < 0) {
        return cbi_fail_sys(err, CB_EIO, (int)got, "the status page %s cannot be read", path);
    }
    if (got != 0 && (got < (ssize_t)sizeof magic || memcmp(head.magic, magic, sizeof magic) != 0)) {
        return cbi_fail(err, CB_EEXISTS, "%s is there already, and is no status page.", path);
    }
    return CB_OK;
}

cb_status cb_status_page_create(const char *path, cb_status_page **page, cb_error *err) {
    cb_status_page *p = cbi_calloc(1, sizeof *p);
    char *copy = cbi_strdup(path);
    if (p == NULL || copy == NULL) {
        cbi_free(p);
        cbi_free(copy);
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a status page.");
    }
    p->path = copy;
    p->fd = cbi_sys_open(path, O_CREAT | O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0644);
    cb_status status =
        p->fd < 0 ? cbi_fail_sys(err, CB_EIO, p->fd, "the status page %s cannot be created", path)
                  : claim(p->fd, path, err);
    if (status != CB_OK) {
        if (p->fd >= 0) {
            (void)cbi_sys_close(p->fd);
        }
        cbi_free(copy);
        cbi_free(p);
        return status;
    }
    *page = p;
    return CB_OK;
}

cb_status cb_status_page_publish(cb_status_page *p, const cb_figures *figures, cb_error *err) {
    p->image.figures = *figures;
    p->image.figures.pid = getpid();
    p->image.figures.time_ns = cbi_sys_clock_ns();
    memcpy(p->image.magic, magic, sizeof magic);
    p->image.bytes = sizeof *figures;
    p->image.sum = sum_of(&p->image);
    int result = cbi_sys_pwrite(p->fd, &p->image, sizeof p->image, 0);
    return result < 0
               ? cbi_fail_sys(err, CB_EIO, result, "the status page %s cannot be written", p->path)
               : CB_OK;
}

void cb_status_page_destroy(cb_status_page *p) {
    if (p != NULL) {
        (void)cbi_sys_unlink(p->path);
        (void)cbi_sys_close(p->fd);
        cbi_free(p->path);
        cbi_free(p);
    }
}

/** Reads until it is whole. */
static cb_status read_image(int fd, const char *path, page_image *image, cb_error *err) {
    for (int i = 0; i < TRIES; i++) {
        ssize_t got = cbi_sys_pread(fd, image, sizeof *image, 0);
        if (got < 0) {
            return cbi_fail_sys(err, CB_EIO, (int)got, "the status page %s cannot be read", path);
        }
        if (got == 0) {
            return cbi_fail(err, CB_EDATA, "Nothing was published in the status page %s yet.",
                            path);
        }
        if (got < (ssize_t)sizeof image->magic || memcmp(image->magic, magic, sizeof magic) != 0) {
            break;
        }
        if (got == (ssize_t)sizeof *image && image->bytes == sizeof image->figures &&
            image->sum == sum_of(image)) {
            return CB_OK;
        }
        cbi_sys_sleep_ns(1000000);
    }
    return cbi_fail(err, CB_EDATA, "%s is no status page of this version of carbide.", path);
}

cb_status cb_status_page_read(const char *path, cb_figures *figures, bool *alive, cb_error *err) {
    int fd = cbi_sys_open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK, 0);
    bool can_lock = fd >= 0;
    if (fd == -EACCES || fd == -EROFS) { /* somebody else's: whether it lives cannot be seen */
        fd = cbi_sys_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    }
    if (fd < 0) {
        return cbi_fail_sys(err, fd == -ENOENT ? CB_ENOTFOUND : CB_EIO, fd,
                            "the status page %s cannot be opened", path);
    }
    page_image *image = cbi_alloc(sizeof *image);
    cb_status status = image == NULL
                           ? cbi_fail(err, CB_ENOMEM, "The system has no memory for figures.")
                           : read_image(fd, path, image, err);
    if (status == CB_OK) {
        *figures = image->figures;
        figures->ledger_count = (uint32_t)cbi_min(figures->ledger_count, CB_FIGURES_ROWS_MAX);
        figures->task_count = (uint32_t)cbi_min(figures->task_count, CB_FIGURES_ROWS_MAX);
        figures->level_count = (uint32_t)cbi_min(figures->level_count, CB_FIGURES_ROWS_MAX);
        *alive = !can_lock || cbi_sys_lock_exclusive(fd) < 0;
    }
    cbi_free(image);
    (void)cbi_sys_close(fd);
    return status;
}
