/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that share files, of which nobody but this process knows: where each lies stands in the
 * index, and the files have no names and end with the process. Nothing is packed where blocks may
 * outlive it, or are compressed or sealed: these have files of their own.
 *
 * Small ones, up to a frame, lie in one that goes through the page cache, each as a frame with its
 * checksum before it. Larger ones, up to 2 MiB, lie in one that goes past it (pack.c says what that
 * is worth): pages of the block are handed to the disk as they are, and come back the same way, so
 * that nothing is copied and no memory is needed while there is none. Only what is left of a last
 * page, and blocks that do not lie in pages, go through a buffer.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/sys.h"
#include "store/disk.h"

enum {
    FRAME_HEADER = 16,
    FRAME_BYTES = CBI_PACK_SUMMED,
    PAGE = CBI_SYSTEM_PAGE_BYTES,
    FRAMES_MAX = 8,          /* of a large block */
    STEP_BYTES = 1024 * 1024 /* of one that goes through a buffer */
};

static int open_pack(const cbi_disk *d, const char *name) {
    /* in the caller's folder: file systems put each new one elsewhere on the disk, and where
     * somebody has written before is faster (thin volumes: by a quarter) */
    int fd = cbi_sys_openat(d->parent, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) { /* what is named so goes with the folder */
        fd = cbi_sys_openat(d->folder.fd, name, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC,
                            0600);
    }
    return fd >= 0 ? fd : -1; /* without it there are files */
}

void cbi_disk_pack_open(cbi_disk *d) {
    if (d->named || d->codec != CB_BLOCK_CODEC_NONE || d->cipher != NULL) {
        return;
    }
    d->pack.fd = open_pack(d, "spill.pack");
    if (d->direct) {
        d->large.fd = open_pack(d, "spill.large");
    }
    if (d->large.fd >= 0 && cbi_sys_set_direct(d->large.fd, true) < 0) {
        (void)cbi_sys_close(d->large.fd);
        d->large.fd = -1;
    }
}

/** Where a packed block lies: small ones are shorter than a frame where there are large ones. */
static cbi_pack *pack_of(cbi_disk *d, cbi_on_disk on_disk) {
    return d->large.fd >= 0 && on_disk.bytes >= FRAME_HEADER + FRAME_BYTES ? &d->large : &d->pack;
}

/** What it has of its place: the header of a large one is in memory. */
static size_t stored_bytes(const cbi_disk *d, const cbi_pack *p, uint64_t bytes) {
    return (size_t)bytes - (p == &d->large ? FRAME_HEADER : 0);
}

/* ---- small ones ---- */

static int write_small(cbi_disk *d, const char *name, const void *bytes, uint32_t count,
                       uint32_t place) {
    static const uint8_t zeros[PAGE];
    uint8_t header[FRAME_HEADER];
    size_t whole = FRAME_HEADER + (size_t)count;
    cbi_store_u32(header, count);
    cbi_store_u32(header + 4, count);
    cbi_store_u64(header + 8, cbi_disk_sum(bytes, count, count, cbi_disk_seed(name), 0));
    struct iovec iov[3] = {{header, sizeof header},
                           {(void *)(uintptr_t)bytes, count},
                           {(void *)(uintptr_t)zeros, cbi_pack_written(&d->pack, whole) - whole}};
    return cbi_sys_pwritev(d->pack.fd, iov, iov[2].iov_len > 0 ? 3 : 2,
                           cbi_pack_offset(&d->pack, place));
}

static int read_small(cbi_disk_reader *r, void *bytes) {
    uint8_t header[FRAME_HEADER];
    uint32_t count = (uint32_t)r->raw_bytes;
    struct iovec iov[2] = {{header, sizeof header}, {bytes, count}};
    int result = cbi_sys_preadv(r->fd, iov, 2, r->offset);
    if (result < 0) {
        return result;
    }
    bool same = cbi_load_u32(header) == count && cbi_load_u32(header + 4) == count &&
                cbi_load_u64(header + 8) == cbi_disk_sum(bytes, count, count, r->seed, 0);
    r->read = same ? count : 0;
    r->offset += same ? FRAME_HEADER + (uint64_t)count : 0;
    r->frames = same;
    return same ? 0 : 1;
}

/* ---- large ones ---- */

static bool is_aligned(const void *bytes) {
    return (uintptr_t)bytes % PAGE == 0;
}

/** `count` bytes of whole pages, and those that are left of one more, past the page cache: in
 *  memory these go through `tail`. A file system that will not (EINVAL) is asked the usual way from
 *  then on. 0 or -errno. */
static int transfer(int fd, bool writing, void *bytes, size_t count, uint64_t offset) {
    _Alignas(PAGE) uint8_t tail[PAGE];
    size_t rest = count % PAGE, pages = count - rest;
    uint8_t *end = (uint8_t *)bytes + pages;
    if (writing && rest > 0) {
        memcpy(tail, end, rest);
        memset(tail + rest, 0, PAGE - rest);
    }
    int result = -EINVAL;
    for (int turn = 0; turn < 2 && result == -EINVAL; turn++) {
        struct iovec iov[2] = {{bytes, pages}, {tail, PAGE}};
        struct iovec *first = pages > 0 ? iov : iov + 1;
        int vectors = (pages > 0) + (rest > 0);
        if (turn > 0) {
            (void)cbi_sys_set_direct(fd, false);
        }
        result = writing ? cbi_sys_pwritev(fd, first, vectors, offset)
                         : cbi_sys_preadv(fd, first, vectors, offset);
    }
    if (!writing && rest > 0 && result >= 0) {
        memcpy(end, tail, rest);
    }
    return result;
}

/** Bytes that do not begin with a page. */
static int write_through(cbi_disk *d, const uint8_t *bytes, size_t count, uint64_t offset) {
    uint8_t *buffer = cbi_disk_buffer(d);
    int result = buffer != NULL ? 0 : -ENOMEM;
    for (size_t at = 0; at < count && result >= 0; at += STEP_BYTES) {
        size_t part = cbi_min(count - at, STEP_BYTES);
        memcpy(buffer, bytes + at, part);
        result = transfer(d->large.fd, true, buffer, part, offset + at);
    }
    cbi_disk_buffer_free(d, buffer);
    return result;
}

static int write_large(cbi_disk *d, const char *name, const void *bytes, size_t count,
                       uint32_t place) {
    uint64_t sums[FRAMES_MAX], seed = cbi_disk_seed(name);
    uint32_t frames = 0;
    for (size_t at = 0; at < count; at += FRAME_BYTES, frames++) {
        uint32_t part = (uint32_t)cbi_min(count - at, FRAME_BYTES);
        sums[frames] = cbi_disk_sum((const uint8_t *)bytes + at, part, part, seed, frames);
    }
    cbi_pack_note_sums(&d->large, place, count, sums, frames);
    uint64_t offset = cbi_pack_offset(&d->large, place);
    return is_aligned(bytes) ? transfer(d->large.fd, true, (void *)(uintptr_t)bytes, count, offset)
                             : write_through(d, bytes, count, offset);
}

/** So many bytes of the next frames, verified; whole frames, or all there are. */
static int read_large(cbi_disk_reader *r, uint8_t *bytes, size_t count) {
    uint64_t sums[FRAMES_MAX];
    uint32_t frames = (uint32_t)((count + FRAME_BYTES - 1) / FRAME_BYTES);
    cbi_pack_sums(&r->disk->large, r->place, (size_t)r->raw_bytes, r->frames, sums, frames);
    int result = transfer(r->fd, false, bytes, count, r->offset);
    if (result < 0) {
        return result;
    }
    for (uint32_t i = 0; i < frames; i++) {
        size_t at = (size_t)i * FRAME_BYTES;
        uint32_t part = (uint32_t)cbi_min(count - at, FRAME_BYTES);
        if (cbi_disk_sum(bytes + at, part, part, r->seed, r->frames + i) != sums[i]) {
            r->offset += at;
            return 1;
        }
    }
    r->read += count;
    r->offset += count;
    r->frames += frames;
    return 0;
}

/* ---- both ---- */

bool cbi_disk_pack(cbi_disk *d, const char *name, const void *bytes, size_t count,
                   cbi_on_disk *on_disk) {
    bool large = count >= FRAME_BYTES && d->large.fd >= 0;
    cbi_pack *p = large ? &d->large : &d->pack;
    size_t whole = FRAME_HEADER + count, stored = stored_bytes(d, p, whole);
    size_t most = large       ? cbi_pack_bytes_max(p)
                  : d->direct ? FRAME_BYTES - 1
                              : FRAME_BYTES; /* larger: past the cache */
    if (p->fd < 0 || count == 0 || count > most ||
        !cbi_disk_reserve(d, cbi_pack_takes(p, stored))) {
        return false;
    }
    uint32_t fresh = 0;
    uint32_t place = cbi_pack_take(p, stored, &fresh);
    if (fresh > 0 && large && d->limit == UINT64_MAX) { /* else it may be more than is allowed */
        cbi_pack_reserve(p, place, fresh);
    }
    if (place != 0 && (large ? write_large(d, name, bytes, count, place)
                             : write_small(d, name, bytes, (uint32_t)count, place)) == 0) {
        *on_disk = cbi_on_disk_at(whole, place);
        return true;
    }
    if (place != 0) {
        cbi_pack_give(p, place, stored);
    }
    atomic_fetch_sub(&d->used, cbi_pack_takes(p, stored));
    return false;
}

uint64_t cbi_disk_unpack(cbi_disk *d, cbi_on_disk on_disk) {
    cbi_pack *p = pack_of(d, on_disk);
    size_t stored = stored_bytes(d, p, on_disk.bytes);
    cbi_pack_give(p, on_disk.place, stored);
    return cbi_pack_takes(p, stored);
}

void cbi_disk_pack_reader(cbi_disk_reader *r, cbi_on_disk on_disk) {
    cbi_pack *p = pack_of(r->disk, on_disk);
    r->packed = true;
    r->large = p == &r->disk->large;
    r->place = on_disk.place;
    r->fd = p->fd;
    r->codec = CB_BLOCK_CODEC_NONE;
    r->raw_bytes = on_disk.bytes - FRAME_HEADER;
    r->file_bytes = on_disk.bytes;
    r->offset = cbi_pack_offset(p, on_disk.place);
}

size_t cbi_disk_pack_fits(const cbi_disk_reader *r, const void *bytes, size_t count) {
    uint64_t left = r->raw_bytes - r->read;
    if (count >= left) {
        return !r->large || is_aligned(bytes) ? (size_t)left : 0;
    }
    return r->large && is_aligned(bytes) ? count / FRAME_BYTES * FRAME_BYTES : 0;
}

int cbi_disk_pack_read(cbi_disk_reader *r, void *bytes, size_t count) {
    return r->large ? read_large(r, bytes, count) : read_small(r, bytes);
}
