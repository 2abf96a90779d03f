/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that were read at other executors may stay here (cb_server_options.cache_remote), for the
 * next who asks here. Such a block is no copy: nobody is told of it, nobody counts upon it, it lies
 * in memory alone and is the first to leave, and its name is one that no client can say. So
 * whatever is done with the block's own name goes on as if it were not here.
 *
 * It is given only to who would have been given the same bytes by another executor: the directory
 * is asked as before, and what it names as the newest, generation and checksum, must be what lies
 * here. A block that was removed or put anew is not named any more. So a read costs a question, not
 * the bytes; and who hears of a removal drops what he has of it.
 */
#include <string.h>

#include "serve/copies_private.h"

enum { PREFIX_BYTES = CBI_NAME_RESERVED_BYTES, BRIEFLY_MS = 500 };

bool cbi_cached_is(const char *name) {
    return strncmp(name, CBI_NAME_RESERVED, PREFIX_BYTES) == 0;
}

const char *cbi_cached_of(const char *name) {
    return cbi_cached_is(name) ? name + PREFIX_BYTES : name;
}

bool cbi_cached_name(const char *name, char cached[CB_BLOCK_NAME_MAX + 1]) {
    size_t bytes = strlen(name);
    if (bytes + PREFIX_BYTES > CB_BLOCK_NAME_MAX) {
        return false;
    }
    memcpy(cached, CBI_NAME_RESERVED, PREFIX_BYTES);
    memcpy(cached + PREFIX_BYTES, name, bytes + 1);
    return true;
}

bool cbi_cached_get(cbi_copies *cp, cbi_connection *c, const cb_place *place) {
    char cached[CB_BLOCK_NAME_MAX + 1];
    if (!cp->server->cache_remote || !cbi_cached_name(c->name, cached)) {
        return false;
    }
    c->task->deadline_ns = cbi_sys_clock_ns() + BRIEFLY_MS * UINT64_C(1000000);
    cb_status status = cb_blocks_get(cp->server->blocks, c->task, cached, &c->own, NULL);
    c->task->deadline_ns = 0;
    if (status != CB_OK) {
        return false;
    }
    cbi_identity is = cbi_node_identity(c->own.block);
    if (is.generation == place->block_generation && is.checksum == place->checksum) {
        atomic_fetch_add(&cp->cached_hits, 1);
        return true;
    }
    cb_block_release(&c->own); /* the next one takes its place */
    return false;
}

void cbi_cached_begin(const cbi_copies *cp, cbi_connection *c, char name[CB_BLOCK_NAME_MAX + 1]) {
    if (!cp->server->cache_remote || !cbi_cached_name(c->name, name)) {
        memcpy(name, c->name, strlen(c->name) + 1);
    }
}

cb_status cbi_cached_keep(cbi_connection *c, const cb_place *place, cb_error *err) {
    cbi_fill *f = &c->fill;
    if (!cbi_cached_is(f->name)) {
        return CB_OK;
    }
    f->identity =
        (cbi_identity){.generation = place->block_generation, .checksum = place->checksum};
    f->handed_over = f->cold = true;
    f->ref = &c->own;
    c->task->deadline_ns = cbi_sys_clock_ns() + BRIEFLY_MS * UINT64_C(1000000);
    cb_status status = cbi_fill_replace(f, false, NULL); /* an older one may be being read */
    c->task->deadline_ns = 0;
    return status == CB_OK || f->first != NULL /* it is sent from where it lies */
               ? CB_OK
               : cbi_fail(err, CB_EIO, "Block %s could not be kept here.", c->name);
}

void cbi_cached_drop(cbi_copies *cp, cb_block_task *task, const char *name, uint64_t generation) {
    char cached[CB_BLOCK_NAME_MAX + 1];
    if (cp->server->cache_remote && cbi_cached_name(name, cached)) {
        cbi_copies_end_block(cp, task, cached, generation);
    }
}

uint64_t cbi_cached_hits(const cbi_copies *cp) {
    return atomic_load(&cp->cached_hits);
}
