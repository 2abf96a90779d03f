/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_DISK_OUT_H
#define CBI_DISK_OUT_H

#include "base/base.h"

/*
 * A large file on its way to disk, past the page cache. See the essay in disk_out.c. One thread's.
 */

enum {
    CBI_DISK_OUT_ALIGN = 4096,
    CBI_DISK_OUT_ROOM = 1024 * 1024 + 64 * 1024,
    /** Of the buffer: what is gathered, and the file's first bytes, which are written again. */
    CBI_DISK_OUT_BYTES = CBI_DISK_OUT_ROOM + CBI_DISK_OUT_ALIGN
};

typedef struct cbi_disk_out {
    int fd;
    bool direct;
    uint8_t *bytes; /* NULL: not begun */
    size_t used;
    uint64_t at; /* in the file: where bytes[0] belongs */
} cbi_disk_out;

/** From the file's first byte on, `buffer` is CBI_DISK_OUT_BYTES of whole pages; all borrowed. */
void cbi_disk_out_begin(cbi_disk_out *out, int fd, uint8_t *buffer);
/** 0 or -errno. */
int cbi_disk_out_add(cbi_disk_out *out, const void *bytes, size_t count);
/** The zeros that the file will end with, if nothing is added any more. */
uint32_t cbi_disk_out_pad(const cbi_disk_out *out);
/** All of it is with the disk, `header` over its first bytes, at most CBI_DISK_OUT_ALIGN. */
int cbi_disk_out_end(cbi_disk_out *out, const void *header, size_t header_bytes);

#endif
