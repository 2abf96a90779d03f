/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_EXTENTS_H
#define CBI_EXTENTS_H

#include "base/lock.h"
#include "spill/spill.h"

/*
 * What is remembered of spilled data: lists of extents that grow by blocks of a fixed size and
 * never move. (Arrays that grow side by side leave holes that nobody fits into: a heap of three
 * times what they hold.)
 */

enum { CBI_EXTENTS_A_BLOCK = 32 };

/** Where blocks come from and go back to. Zeroed, and its lock initialised. Any thread. */
typedef struct cbi_extent_slab {
    cbi_lock lock;
    void *chunks; /* all memory, linked */
    void *idle;   /* blocks, linked */
} cbi_extent_slab;

/** Zero-initialise. Guarded by its owner. */
typedef struct cbi_extent_list {
    cbi_extent **blocks;
    uint32_t count, capacity; /* extents; places in `blocks` */
} cbi_extent_list;

static inline cbi_extent *cbi_extent_at(const cbi_extent_list *list, uint32_t i) {
    return &list->blocks[i / CBI_EXTENTS_A_BLOCK][i % CBI_EXTENTS_A_BLOCK];
}

/** One more, zeroed; false when there is no memory, and nothing has changed. */
bool cbi_extents_add(cbi_extent_list *list, cbi_extent_slab *slab);
void cbi_extents_clear(cbi_extent_list *list, cbi_extent_slab *slab);
/** Lists that were not cleared are void afterwards, their directories still to be cleared. */
void cbi_extent_slab_fini(cbi_extent_slab *slab);

#endif
