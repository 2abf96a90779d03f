/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/ready.h"

#include "base/sys.h"

enum {
    SPARE_BYTES = 1024 * 1024, /* of the budget stay untouched: small accounts grow into them */
    MAP_BYTES_MIN = 64 * 1024 * 1024,
    PAUSE_MS = 100,
    PAUSE_SHIFT_MAX = 5
};

/** What neither pools nor idle pages take. */
static uint64_t room_of(const cbi_ready *r) {
    cb_manager *m = r->manager;
    cbi_lock_take(&m->lock);
    uint64_t unused = cbi_manager_unused(m, m->mode), idle = m->allocators[m->mode]->idle;
    cbi_lock_give(&m->lock);
    return unused > idle ? unused - idle : 0;
}

/** Addresses only, for all there is room for and more to come: runs side by side are one. */
static bool has_addresses(cbi_ready *r, uint64_t room) {
    const size_t step = CBI_READY_STEP_BYTES;
    size_t bytes = cbi_max((size_t)room / step * step, (size_t)MAP_BYTES_MIN);
    while (r->left == 0 && bytes > 0) {
        r->at = cbi_sys_map(bytes);
        r->left = r->at != NULL ? bytes : 0;
        bytes = bytes / 2 / step * step;
    }
    return r->left > 0;
}

/** The next piece, touched, and what it is described by; NULL: the system has no memory. */
static cbi_block *touch_piece(cbi_ready *r, cb_allocator *a, uint64_t room) {
    cbi_block *descriptor = has_addresses(r, room) ? cbi_allocator_descriptor(a) : NULL;
    if (descriptor != NULL && !cbi_sys_touch(r->at, CBI_READY_STEP_BYTES)) {
        cbi_sys_discard(r->at, CBI_READY_STEP_BYTES);
        cbi_allocator_descriptor_back(a, descriptor);
        descriptor = NULL;
    }
    return descriptor;
}

bool cbi_ready_step(cbi_ready *r) {
    cb_manager *m = r->manager;
    cb_allocator *a = m->allocators[m->mode];
    uint64_t room = room_of(r);
    if (room < CBI_READY_STEP_BYTES + SPARE_BYTES) {
        return false;
    }
    cbi_block *descriptor = touch_piece(r, a, room);
    if (descriptor == NULL) {
        r->failures++;
        return false;
    } /* it counts as resident from here on */
    r->failures = 0;
    cbi_lock_take(&m->lock);
    cbi_allocator_make_ready(a, descriptor, r->at, CBI_READY_STEP_BYTES);
    cbi_block *chain = cbi_manager_shed(m, m->mode); /* somebody may have needed it meanwhile */
    cbi_manager_note_peak(m);
    cbi_lock_give(&m->lock);
    (void)cbi_allocator_drop(a, chain);
    r->at += CBI_READY_STEP_BYTES;
    r->left -= CBI_READY_STEP_BYTES;
    return true;
}

uint64_t cbi_ready_pause_ns(const cbi_ready *r) {
    uint64_t doubled = r->failures > 0 ? r->failures - 1 : 0;
    return PAUSE_MS * UINT64_C(1000000) << cbi_min(doubled, (uint64_t)PAUSE_SHIFT_MAX);
}

void cbi_ready_close(cbi_ready *r) {
    if (r->left > 0) {
        cbi_sys_unmap(r->at, r->left);
        r->left = 0;
    }
}
