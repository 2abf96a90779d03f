/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks leave memory because there is too little of it. Written through the page cache they would
 * take the same memory once more until the disk has them, and the system holds writers up when much
 * of that is waiting (measured: 0.4 GB/s where the disk takes 1.2). So a file of some size is
 * gathered in one buffer and written straight to the disk, in requests of a megabyte: most blocks
 * are one request. Such transfers end at a multiple of 4 KiB, so the file ends with zeros. Where
 * the file system does not take them (EINVAL) the same goes through the page cache.
 *
 * Small files stay with the page cache: what they cost is the making of a file, and a request to
 * the disk each would cost more.
 */
#include "store/disk_out.h"

#include <errno.h>
#include <string.h>

#include "base/sys.h"

void cbi_disk_out_begin(cbi_disk_out *out, int fd, uint8_t *buffer) {
    *out = (cbi_disk_out){.fd = fd, .bytes = buffer, .direct = cbi_sys_set_direct(fd, true) >= 0};
}

static int write_at(cbi_disk_out *out, const uint8_t *bytes, size_t count, uint64_t at) {
    int result = cbi_sys_pwrite(out->fd, bytes, count, at);
    if (result == -EINVAL && out->direct) {
        out->direct = false;
        result = cbi_sys_set_direct(out->fd, false);
        result = result < 0 ? result : cbi_sys_pwrite(out->fd, bytes, count, at);
    }
    return result;
}

static int flush(cbi_disk_out *out) {
    int result = write_at(out, out->bytes, out->used, out->at);
    if (result < 0) {
        return result;
    }
    if (out->at == 0) {
        memcpy(out->bytes + CBI_DISK_OUT_ROOM, out->bytes, CBI_DISK_OUT_ALIGN);
    }
    if (!out->direct) { /* on its way, and not in the cache for longer than that */
        cbi_sys_write_out(out->fd, out->at, out->used);
    }
    out->at += out->used;
    out->used = 0;
    return 0;
}

int cbi_disk_out_add(cbi_disk_out *out, const void *bytes, size_t count) {
    const uint8_t *from = bytes;
    while (count > 0) {
        if (out->used == CBI_DISK_OUT_ROOM) {
            int result = flush(out);
            if (result < 0) {
                return result;
            }
        }
        size_t part = cbi_min(count, CBI_DISK_OUT_ROOM - out->used);
        memcpy(out->bytes + out->used, from, part);
        out->used += part;
        from += part;
        count -= part;
    }
    return 0;
}

uint32_t cbi_disk_out_pad(const cbi_disk_out *out) {
    return (uint32_t)(-out->used % CBI_DISK_OUT_ALIGN);
}

int cbi_disk_out_end(cbi_disk_out *out, const void *header, size_t header_bytes) {
    size_t pad = cbi_disk_out_pad(out);
    memset(out->bytes + out->used, 0, pad); /* the room is a multiple of it */
    out->used += pad;
    if (out->at == 0) {
        memcpy(out->bytes, header, header_bytes);
        return flush(out);
    }
    int result = flush(out);
    uint8_t *first = out->bytes + CBI_DISK_OUT_ROOM;
    memcpy(first, header, header_bytes);
    return result < 0 ? result : write_at(out, first, CBI_DISK_OUT_ALIGN, 0);
}
