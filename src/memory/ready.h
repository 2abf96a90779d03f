/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_READY_H
#define CBI_READY_H

#include "memory/manager.h"

/*
 * Memory that is there before anybody needs it, as Flink's taskmanager.memory.preallocate and the
 * JVM's AlwaysPreTouch have it: a page's first touch costs a fault and its clearing, as long as the
 * bytes that are to go there take. What nobody uses of the budget is mapped and touched, and lies
 * idle in the allocator of the manager's mode: pages are cut from it, and the budget takes it back
 * as it takes other idle pages. One thread calls these; others use the manager meanwhile.
 */

/** What is being touched is nobody's yet: the caller has paid for it once and for all. */
#define CBI_READY_STEP_BYTES ((size_t)1024 * 1024)

typedef struct cbi_ready {
    cb_manager *manager;
    uint8_t *at;       /* mapped, not touched yet: */
    size_t left;       /* so many bytes */
    uint64_t failures; /* in a row: the system had no memory */
} cbi_ready;

/** Makes a piece ready, in about a millisecond. false: nothing of the budget is left that is worth
 *  it, or the system has no memory; later there may be. `ready` is zeroed but for the manager. */
bool cbi_ready_step(cbi_ready *ready);
/** How long to wait after a step that made nothing: 100 ms, and while the system has no memory,
 *  which each step asks it for anew, doubled up to 3.2 s. */
uint64_t cbi_ready_pause_ns(const cbi_ready *ready);
/** What was made ready stays. */
void cbi_ready_close(cbi_ready *ready);

#endif
