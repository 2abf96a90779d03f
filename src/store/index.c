/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of blocks.
 *
 * The problem. Ten million blocks are to cost at most 160 bytes each, counted; nobody may wait
 * while a table of that size is copied into one of twice the size; and a lookup has a few dozen
 * nanoseconds.
 *
 * Linear hashing (Litwin 1980). The buckets lie in one range of addresses that is reserved for the
 * most blocks there can be and becomes resident as it is touched. With each block that is entered
 * one bucket is split in two, in turn: bucket `split` gives those whose next bit of hash is set to
 * bucket `level_size + split`. When all of a level are split the level doubles. So there is one
 * bucket for each block, no copy and no pause, and 8 bytes a block. With blocks that leave buckets
 * are joined again in the reverse order.
 *
 * Nodes come from slabs, in sizes that differ by 16 bytes because of the name at their end, with no
 * header of their own. A slab is never given back before the end: what was needed once will be
 * needed again. Both are charged before they are touched.
 */
#define XXH_INLINE_ALL
#include "store/index.h"

#include <string.h>
#include <xxhash.h>

#include "base/sys.h"

enum { LEVEL_FIRST = 512, NODE_STEP = 16, NODE_LEAST = 112, TOUCH_STEP = 64 * 1024 };

static_assert(offsetof(cbi_node, name) + CB_BLOCK_NAME_MAX + 1 + sizeof(cbi_identity) <=
                  NODE_LEAST + (CBI_INDEX_CLASSES - 1) * NODE_STEP,
              "the largest class holds the longest name");

static size_t class_of(const cbi_index *index, size_t name_bytes) {
    size_t bytes =
        offsetof(cbi_node, name) + name_bytes + 1 + (index->identities ? sizeof(cbi_identity) : 0);
    return bytes <= NODE_LEAST ? 0 : (bytes - NODE_LEAST + NODE_STEP - 1) / NODE_STEP;
}

/* ---- nodes ---- */

cb_status cbi_index_init(cbi_index *index, cbi_lock *lock, size_t blocks_max,
                         cbi_index_charge_fn charge, void *ctx, cb_error *err) {
    *index = (cbi_index){.lock = lock,
                         .blocks_max = cbi_max(blocks_max, LEVEL_FIRST),
                         .level_size = LEVEL_FIRST,
                         .charge = charge,
                         .ctx = ctx};
    index->buckets = cbi_sys_map((index->blocks_max + LEVEL_FIRST) * sizeof *index->buckets);
    if (index->buckets == NULL) {
        return cbi_fail(
            err, CB_ENOMEM,
            "The system refused addresses for the index of %zu blocks; a smaller budget "
            "(or blocks_max) asks for fewer.",
            index->blocks_max);
    }
    return CB_OK;
}

void cbi_index_fini(cbi_index *index) {
    cb_assert(index->count == 0);
    if (index->buckets != NULL) {
        cbi_sys_unmap(index->buckets, (index->blocks_max + LEVEL_FIRST) * sizeof *index->buckets);
    }
    for (void *slab = index->slabs, *next = NULL; slab != NULL; slab = next) {
        memcpy(&next, slab, sizeof next);
        cbi_sys_unmap(slab, CBI_INDEX_SLAB_BYTES);
    }
    if (index->bytes > 0) {
        (void)index->charge(index->ctx, -(int64_t)index->bytes, NULL);
    }
    *index = (cbi_index){0};
}

static cb_status charge(cbi_index *index, size_t bytes, cb_error *err) {
    if (!index->charge(index->ctx, (int64_t)bytes, err)) {
        return CB_EBUDGET;
    }
    cbi_lock_take(index->lock);
    index->bytes += bytes;
    cbi_lock_give(index->lock);
    return CB_OK;
}

/** Another slab, cut into nodes of that class. */
static cb_status add_slab(cbi_index *index, size_t class, cb_error *err) {
    CB_TRY(charge(index, CBI_INDEX_SLAB_BYTES, err));
    uint8_t *slab = cbi_sys_map(CBI_INDEX_SLAB_BYTES);
    if (slab == NULL) {
        (void)index->charge(index->ctx, -CBI_INDEX_SLAB_BYTES, NULL);
        cbi_lock_take(index->lock);
        index->bytes -= CBI_INDEX_SLAB_BYTES;
        cbi_lock_give(index->lock);
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for the index of blocks.");
    }
    size_t step = NODE_LEAST + class * NODE_STEP;
    cbi_lock_take(index->lock);
    memcpy(slab, &index->slabs, sizeof index->slabs);
    index->slabs = slab;
    for (size_t at = NODE_STEP; at + step <= CBI_INDEX_SLAB_BYTES; at += step) {
        memcpy(slab + at, &index->spare[class], sizeof(void *));
        index->spare[class] = slab + at;
    }
    cbi_lock_give(index->lock);
    return CB_OK;
}

/** [locked] The buckets of one more block are paid for. */
static bool has_buckets(const cbi_index *index) {
    return index->touched >= (index->count + LEVEL_FIRST + 64) * sizeof(cbi_node *);
}

static cb_status touch_buckets(cbi_index *index, cb_error *err) {
    for (;;) {
        cbi_lock_take(index->lock);
        bool enough = has_buckets(index);
        if (!enough) {
            index->touched += TOUCH_STEP;
        }
        cbi_lock_give(index->lock);
        if (enough) {
            return CB_OK;
        }
        cb_status status = charge(index, TOUCH_STEP, err);
        if (status != CB_OK) {
            cbi_lock_take(index->lock);
            index->touched -= TOUCH_STEP;
            cbi_lock_give(index->lock);
            return status;
        }
    }
}

/** [locked] */
static cbi_node *pop_spare(cbi_index *index, size_t class) {
    void *node = index->spare[class];
    if (node != NULL) {
        memcpy(&index->spare[class], node, sizeof(void *));
    }
    return node;
}

static cbi_node *name_it(cbi_node *n, const char *name, size_t bytes, uint32_t hash) {
    memset(n, 0, offsetof(cbi_node, name));
    memcpy(n->name, name, bytes);
    n->name[bytes] = 0;
    n->name_bytes = (uint8_t)bytes;
    n->hash = hash;
    return n;
}

cbi_node *cbi_index_node_now(cbi_index *index, const char *name, size_t bytes, uint32_t hash) {
    if (bytes == 0 || bytes > CB_BLOCK_NAME_MAX || !has_buckets(index)) {
        return NULL;
    }
    cbi_node *n = pop_spare(index, class_of(index, bytes));
    return n != NULL ? name_it(n, name, bytes, hash) : NULL;
}

cb_status cbi_index_node(cbi_index *index, const char *name, cbi_node **node, cb_error *err) {
    size_t bytes = strnlen(name, CB_BLOCK_NAME_MAX + 1);
    if (bytes == 0 || bytes > CB_BLOCK_NAME_MAX) {
        return cbi_fail(err, CB_EINVAL, "The name of a block has 1 to %d bytes.",
                        CB_BLOCK_NAME_MAX);
    }
    CB_TRY(touch_buckets(index, err));
    size_t class = class_of(index, bytes);
    cbi_node *n = NULL;
    for (;;) {
        cbi_lock_take(index->lock);
        n = pop_spare(index, class);
        cbi_lock_give(index->lock);
        if (n != NULL) {
            break;
        }
        CB_TRY(add_slab(index, class, err));
    }
    *node = name_it(n, name, bytes, cbi_index_hash(name, bytes));
    return CB_OK;
}

void cbi_index_free_now(cbi_index *index, cbi_node *node) {
    size_t class = class_of(index, node->name_bytes);
    memcpy(node, &index->spare[class], sizeof(void *));
    index->spare[class] = node;
}

void cbi_index_free(cbi_index *index, cbi_node *node) {
    cbi_lock_take(index->lock);
    cbi_index_free_now(index, node);
    cbi_lock_give(index->lock);
}

cbi_identity cbi_node_identity(const cbi_node *node) {
    cbi_identity identity = {0};
    if (node->identified) {
        memcpy(&identity, node->name + node->name_bytes + 1, sizeof identity);
    }
    return identity;
}

void cbi_node_identify(const cbi_index *index, cbi_node *node, cbi_identity identity) {
    if (index->identities) {
        memcpy(node->name + node->name_bytes + 1, &identity, sizeof identity);
        node->identified = true;
    }
}

/* ---- the table ---- */

uint32_t cbi_index_hash(const char *name, size_t bytes) {
    return (uint32_t)XXH3_64bits(name, bytes);
}

static size_t bucket_of(const cbi_index *index, uint32_t hash) {
    size_t at = hash & (index->level_size - 1);
    return at < index->split ? hash & (2 * index->level_size - 1) : at;
}

cbi_node *cbi_index_find(const cbi_index *index, const char *name, size_t bytes, uint32_t hash) {
    cbi_node *n = index->buckets[bucket_of(index, hash)];
    while (n != NULL &&
           (n->hash != hash || n->name_bytes != bytes || memcmp(n->name, name, bytes) != 0)) {
        n = n->next;
    }
    return n;
}

/** One bucket becomes two. */
static void split_one(cbi_index *index) {
    cbi_node **low = &index->buckets[index->split];
    cbi_node **high = &index->buckets[index->level_size + index->split];
    *high = NULL;
    while (*low != NULL) {
        cbi_node *n = *low;
        if (n->hash & index->level_size) {
            *low = n->next;
            n->next = *high;
            *high = n;
        } else {
            low = &n->next;
        }
    }
    if (++index->split == index->level_size) {
        index->level_size *= 2;
        index->split = 0;
    }
}

/** The last split, undone. */
static void join_one(cbi_index *index) {
    if (index->split == 0) {
        index->level_size /= 2;
        index->split = index->level_size;
    }
    index->split--;
    cbi_node **end = &index->buckets[index->split];
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = index->buckets[index->level_size + index->split];
    index->buckets[index->level_size + index->split] = NULL;
}

void cbi_index_enter(cbi_index *index, cbi_node *node) {
    cbi_node **bucket = &index->buckets[bucket_of(index, node->hash)];
    node->next = *bucket;
    *bucket = node;
    index->count++;
    if (index->count > index->level_size + index->split && index->count < index->blocks_max) {
        split_one(index);
    }
}

void cbi_index_leave(cbi_index *index, cbi_node *node) {
    cbi_node **at = &index->buckets[bucket_of(index, node->hash)];
    while (*at != node) {
        cb_assert_debug(*at != NULL);
        at = &(*at)->next;
    }
    *at = node->next;
    node->next = NULL;
    index->count--;
    size_t buckets = index->level_size + index->split;
    if (buckets > LEVEL_FIRST && index->count + index->count / 8 + 64 < buckets) {
        join_one(index);
    }
}

cbi_node *cbi_index_scan(const cbi_index *index, size_t *at) {
    while (*at < index->level_size + index->split) {
        cbi_node *n = index->buckets[(*at)++];
        if (n != NULL) {
            return n;
        }
    }
    return NULL;
}

/** The bits of a hash, the last one first. In that order the hashes of a bucket stand side by side,
 *  and a bucket that is split or joined is an interval that is cut or widened: nothing moves. */
static uint32_t turned(uint32_t bits) {
    uint32_t to = 0;
    for (int i = 0; i < 32; i++) {
        to = to << 1 | (bits >> i & 1);
    }
    return to;
}

const cbi_node *cbi_index_look(const cbi_index *index, uint64_t *place) {
    uint32_t hash = turned((uint32_t)*place);
    size_t at = bucket_of(index, hash);
    bool is_split = at < index->split || at >= index->level_size;
    uint64_t width = CBI_INDEX_PLACES / (is_split ? 2 * index->level_size : index->level_size);
    *place = (*place | (width - 1)) + 1;
    return index->buckets[at];
}
