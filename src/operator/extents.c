/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/extents.h"

#include <string.h>

#include "base/alloc.h"

enum { BLOCK_BYTES = CBI_EXTENTS_A_BLOCK * sizeof(cbi_extent), CHUNK_BLOCKS = 32 };

/* Idle blocks and chunks are linked through their first bytes. */
static void *pop(void **list) {
    void *first = *list;
    if (first != NULL)
        memcpy(list, first, sizeof(void *));
    return first;
}

static void push(void **list, void *item) {
    memcpy(item, list, sizeof(void *));
    *list = item;
}

static void *take_block(cbi_extent_slab *slab) {
    cbi_lock_take(&slab->lock);
    void *block = pop(&slab->idle);
    if (block == NULL) {
        uint8_t *chunk = cbi_alloc((CHUNK_BLOCKS + 1) * BLOCK_BYTES);
        if (chunk != NULL) {
            push(&slab->chunks, chunk); /* its first block is the link */
            for (size_t i = 1; i <= CHUNK_BLOCKS; i++)
                push(&slab->idle, chunk + i * BLOCK_BYTES);
            block = pop(&slab->idle);
        }
    }
    cbi_lock_give(&slab->lock);
    return block;
}

bool cbi_extents_add(cbi_extent_list *list, cbi_extent_slab *slab) {
    uint32_t block = list->count / CBI_EXTENTS_A_BLOCK;
    if (list->count % CBI_EXTENTS_A_BLOCK == 0) {
        if (block == list->capacity) {
            uint32_t capacity = list->capacity == 0 ? 4 : 2 * list->capacity;
            cbi_extent **blocks = cbi_realloc(list->blocks, capacity * sizeof *blocks);
            if (blocks == NULL)
                return false;
            list->blocks = blocks;
            list->capacity = capacity;
        }
        void *memory = take_block(slab);
        if (memory == NULL)
            return false;
        list->blocks[block] = memory;
    }
    list->count++;
    *cbi_extent_at(list, list->count - 1) = (cbi_extent){0};
    return true;
}

void cbi_extents_clear(cbi_extent_list *list, cbi_extent_slab *slab) {
    uint32_t blocks = (list->count + CBI_EXTENTS_A_BLOCK - 1) / CBI_EXTENTS_A_BLOCK;
    cbi_lock_take(&slab->lock);
    for (uint32_t i = 0; i < blocks; i++)
        push(&slab->idle, list->blocks[i]);
    cbi_lock_give(&slab->lock);
    cbi_free(list->blocks);
    *list = (cbi_extent_list){.blocks = NULL};
}

void cbi_extent_slab_fini(cbi_extent_slab *slab) {
    for (void *chunk = pop(&slab->chunks); chunk != NULL; chunk = pop(&slab->chunks))
        cbi_free(chunk);
    slab->idle = NULL;
}
