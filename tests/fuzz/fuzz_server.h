/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FUZZ_SERVER_H
#define FUZZ_SERVER_H

/*
 * What the targets for a server share. The server lives as long as the process, and an input may
 * have put a block under any name: all of them go, so that the next input begins where this one
 * did. The table of blocks is no memory of malloc's, so that whatever a block has would be taken
 * for leaked, too.
 */

#include <string.h>

#include "serve/serve.h"

/** A name, copied: the walk holds the lock of the store. */
static void fuzz_note_name(void *ctx, const cb_block_status *status, cb_level level,
                           uint32_t readers) {
    char *name = ctx;
    (void)level;
    cb_assert(readers == 0);
    (void)strcpy(name, status->name);
}

/** Nobody is connected; no block is left afterwards. */
static inline void fuzz_remove_all(cb_server *server) {
    cb_block_task *task = NULL;
    cb_assert(cb_block_task_create(server->blocks, 1, 0, &task, NULL) == CB_OK);
    for (;;) {
        char name[CB_BLOCK_NAME_MAX + 1] = "";
        for (uint64_t at = 0;;) {
            cbi_blocks_walk(server->blocks, &at, 1, CB_BLOCK_NAME_MAX + 1, fuzz_note_name, name);
            if (at == 0 || name[0] != '\0')
                break;
        }
        if (name[0] == '\0')
            break;
        cb_assert(cb_blocks_remove(server->blocks, task, name, NULL) == CB_OK);
    }
    (void)cb_block_task_end(task);
}

#endif
