/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_PACK_H
#define CBI_PACK_H

#include "base/lock.h"
#include "store/contents.h"

/*
 * Many small blocks in one file. See the essay in pack.c. A place is one number, the first byte in
 * units of 1 KiB and one more, so that 0 is none. Any thread; who has a place reads and writes
 * there as he likes.
 */

enum {
    CBI_PACK_UNIT = 1024,
    CBI_PACK_BYTES_MAX = 288 * 1024, /* of what lies at one place */
    CBI_PACK_CLASSES = 64,
    CBI_PACK_PLACE_BITS = 26
};

typedef struct cbi_pack_slab {
    uint64_t taken[16]; /* a bit a slot */
    uint16_t used, class;
    uint32_t next,
        prev; /* of its class with room, or of those that are empty; 1 + number, 0: none */
} cbi_pack_slab;

typedef struct cbi_pack {
    cbi_lock lock; /* guards the rest, but for fd; alone */
    int fd;        /* -1: none; set once */
    cbi_home *home;
    cbi_pack_slab *slabs;
    uint32_t slab_count, slab_room;
    uint32_t with_room[CBI_PACK_CLASSES], empty;
    uint32_t empty_count;
} cbi_pack;

void cbi_pack_init(cbi_pack *pack, cbi_home *home);
/** Closes the file; it is whoever made it who removes it. Zeroed is fine. */
void cbi_pack_fini(cbi_pack *pack);
/** A place for so many bytes, at most CBI_PACK_BYTES_MAX; 0: there is none. */
uint32_t cbi_pack_take(cbi_pack *pack, size_t bytes);
/** As many bytes as it was taken for. */
void cbi_pack_give(cbi_pack *pack, uint32_t place, size_t bytes);
static inline uint64_t cbi_pack_offset(uint32_t place) {
    return (uint64_t)(place - 1) * CBI_PACK_UNIT;
}
/** What so many bytes take there. */
size_t cbi_pack_takes(size_t bytes);
/** What is to be written there: so many, those after `bytes` zeros, so that no page of the file is
 *  written in part. */
size_t cbi_pack_written(size_t bytes);

#endif
