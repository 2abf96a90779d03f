/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small blocks on disk: one frame each, with its checksum, at a place of the pack (pack.c). There
 * is no header: who lies where is known to the index alone, and the pack's file has no name and
 * ends with the process. Nothing is packed where blocks may outlive it, or are compressed or
 * sealed: these have files.
 */
#include <fcntl.h>

#include "base/sys.h"
#include "store/disk.h"

enum { FRAME_HEADER = 16, FRAME_BYTES = 256 * 1024 };

void cbi_disk_pack_open(cbi_disk *d) {
    if (d->named || d->codec != CB_BLOCK_CODEC_NONE || d->cipher != NULL) {
        return;
    }
    int fd = cbi_sys_openat(d->folder.fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0) { /* what is named so goes with the folder */
        fd = cbi_sys_openat(d->folder.fd, "spill.pack",
                            O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600);
    }
    d->pack.fd = fd >= 0 ? fd : -1; /* without it there are files */
}

static int write_at(cbi_disk *d, const char *name, const void *bytes, uint32_t count,
                    uint32_t place) {
    static const uint8_t zeros[CBI_SYSTEM_PAGE_BYTES];
    uint8_t header[FRAME_HEADER];
    size_t whole = FRAME_HEADER + (size_t)count;
    cbi_store_u32(header, count);
    cbi_store_u32(header + 4, count);
    cbi_store_u64(header + 8, cbi_disk_sum(bytes, count, count, cbi_disk_seed(name), 0));
    struct iovec iov[3] = {{header, sizeof header},
                           {(void *)(uintptr_t)bytes, count},
                           {(void *)(uintptr_t)zeros, cbi_pack_written(whole) - whole}};
    return cbi_sys_pwritev(d->pack.fd, iov, iov[2].iov_len > 0 ? 3 : 2, cbi_pack_offset(place));
}

bool cbi_disk_pack(cbi_disk *d, const char *name, const void *bytes, size_t count,
                   cbi_on_disk *on_disk) {
    size_t most = d->direct ? FRAME_BYTES - 1 : FRAME_BYTES; /* larger ones go past the cache */
    size_t whole = FRAME_HEADER + count;
    if (d->pack.fd < 0 || count == 0 || count > most ||
        !cbi_disk_reserve(d, cbi_pack_takes(whole))) {
        return false;
    }
    uint32_t place = cbi_pack_take(&d->pack, whole);
    if (place != 0 && write_at(d, name, bytes, (uint32_t)count, place) == 0) {
        *on_disk = cbi_on_disk_at(whole, place);
        return true;
    }
    if (place != 0) {
        cbi_pack_give(&d->pack, place, whole);
    }
    atomic_fetch_sub(&d->used, cbi_pack_takes(whole));
    return false;
}

void cbi_disk_pack_reader(cbi_disk_reader *r, cbi_on_disk on_disk) {
    r->packed = true;
    r->fd = r->disk->pack.fd;
    r->codec = CB_BLOCK_CODEC_NONE;
    r->raw_bytes = on_disk.bytes - FRAME_HEADER;
    r->file_bytes = on_disk.bytes;
    r->offset = cbi_pack_offset(on_disk.place);
}

int cbi_disk_pack_read(cbi_disk_reader *r, void *bytes) {
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
