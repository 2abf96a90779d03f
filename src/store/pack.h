/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_PACK_H
#define CBI_PACK_H

#include "base/lock.h"
#include "store/contents.h"

/*
 * Many blocks in one file. See the essay in pack.c. A place is one number, the first byte in units
 * of 1 KiB (or of a page where the file takes direct transfers) and one more, so that 0 is none.
 * Any thread; who has a place reads and writes there as he likes.
 */

enum {
    CBI_PACK_UNIT = 1024,
    CBI_PACK_BYTES_MAX = 288 * 1024, /* of what lies at one place, in units of 1 KiB */
    CBI_PACK_CLASSES = 64,
    CBI_PACK_PLACE_BITS = 26,
    CBI_PACK_SUMMED = 256 * 1024, /* bytes that share a checksum, */
    CBI_PACK_SUMS = 64            /* of which a slab has so many, in units of a page */
};

typedef struct cbi_pack_slab {
    uint64_t taken[16]; /* a bit a slot */
    uint16_t used, class;
    uint32_t next,
        prev; /* of its class with room, or of those that are empty; 1 + number, 0: none */
} cbi_pack_slab;

typedef struct cbi_pack {
    cbi_lock lock; /* guards the rest, but for what is set once; alone */
    int fd;        /* -1: none; set once */
    uint32_t unit; /* bytes; set once */
    cbi_home *home;
    cbi_pack_slab *slabs;
    uint64_t (*sums)[CBI_PACK_SUMS]; /* of each slab, in units of a page; else NULL */
    uint32_t slab_count, slab_room, reserved;
    uint32_t with_room[CBI_PACK_CLASSES], empty;
    uint32_t empty_count;
} cbi_pack;

/** In units of CBI_PACK_UNIT, or of CBI_SYSTEM_PAGE_BYTES: then it remembers checksums too. */
void cbi_pack_init(cbi_pack *pack, uint32_t unit, cbi_home *home);
/** Closes the file; it is whoever made it who removes it. Zeroed is fine. */
void cbi_pack_fini(cbi_pack *pack);
/** What can lie at one place. */
size_t cbi_pack_bytes_max(const cbi_pack *pack);
/** A place for so many bytes, at most cbi_pack_bytes_max; 0: there is none. *fresh: so many
 *  slabs, from that on in which it lies, have no space on the disk yet and should get it. */
uint32_t cbi_pack_take(cbi_pack *pack, size_t bytes, uint32_t *fresh);
/** As many bytes as it was taken for. */
void cbi_pack_give(cbi_pack *pack, uint32_t place, size_t bytes);
static inline uint64_t cbi_pack_offset(const cbi_pack *pack, uint32_t place) {
    return (uint64_t)(place - 1) * pack->unit;
}
/** What so many bytes take there. */
size_t cbi_pack_takes(const cbi_pack *pack, size_t bytes);
/** What is to be written there: so many, those after `bytes` zeros, so that no page of the file is
 *  written in part. */
size_t cbi_pack_written(const cbi_pack *pack, size_t bytes);
/** So many slabs, from that on in which the place lies, get their space now, as far as the file
 *  system can. */
void cbi_pack_reserve(const cbi_pack *pack, uint32_t place, uint32_t slabs);

/** The checksums of what lies at that place, one for each CBI_PACK_SUMMED bytes begun; in
 *  units of a page. Read from `first` on. */
void cbi_pack_note_sums(cbi_pack *pack, uint32_t place, size_t bytes, const uint64_t *sums,
                        uint32_t count);
void cbi_pack_sums(cbi_pack *pack, uint32_t place, size_t bytes, uint32_t first, uint64_t *sums,
                   uint32_t count);

#endif
