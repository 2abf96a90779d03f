/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "memory/manager.h"

cb_status cb_ledger_add(cb_manager *m, const char *name, cb_ledger_measure_fn measure, void *ctx,
                        cb_ledger_entry **entry, cb_error *err) {
    cb_ledger_entry *e = cbi_calloc(1, sizeof *e);
    if (e == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a ledger entry.");
    }
    e->manager = m;
    e->measure = measure;
    e->ctx = ctx;
    cbi_name_copy(e->name, name);
    cbi_lock_take(&m->lock);
    cb_ledger_entry **at = &m->ledger;
    while (*at != NULL) { /* in the order in which they came: the tree reads better */
        at = &(*at)->next;
    }
    *at = e;
    cbi_lock_give(&m->lock);
    *entry = e;
    return CB_OK;
}

/** [locked] Notes the new figure; the pools know it already. */
static void note(cb_ledger_entry *e, uint64_t bytes) {
    cb_manager *m = e->manager;
    m->ledger_bytes = m->ledger_bytes - e->bytes + bytes;
    e->bytes = bytes;
    if (bytes > e->peak) {
        e->peak = bytes;
    }
}

void cbi_ledger_force(cb_ledger_entry *e, uint64_t bytes) {
    cb_manager *m = e->manager;
    if (bytes > e->bytes) {
        cbi_arbiter_charge(&m->arbiter, m->mode, bytes - e->bytes);
    } else if (bytes < e->bytes) {
        cbi_arbiter_grow(&m->arbiter, m->mode, e->bytes - bytes);
        cbi_manager_pass_on(m);
    }
    note(e, bytes);
}

void cb_ledger_force(cb_ledger_entry *e, uint64_t bytes) {
    cb_manager *m = e->manager;
    cbi_lock_take(&m->lock);
    cbi_ledger_force(e, bytes);
    cbi_block *chain = cbi_manager_shed(m, m->mode);
    cbi_manager_note_peak(m);
    cbi_lock_give(&m->lock);
    (void)cbi_allocator_drop(m->allocators[m->mode], chain);
}

cb_status cb_ledger_set(cb_ledger_entry *e, uint64_t bytes, cb_error *err) {
    cb_manager *m = e->manager;
    cbi_lock_take(&m->lock);
    uint64_t more = bytes > e->bytes ? bytes - e->bytes : 0;
    if (m->has_parent && more > 0) {
        cbi_manager_draw(m, m->mode, more);
    }
    uint64_t taken = cbi_arbiter_shrink(&m->arbiter, m->mode, more);
    if (taken < more) {
        cbi_arbiter_grow(&m->arbiter, m->mode, taken);
        cbi_manager_pass_on(m);
        cbi_lock_give(&m->lock);
        return cbi_fail_bytes(err, CB_EBUDGET, more, taken,
                              "\"%s\" needs %llu bytes of the budget and only %llu are free.",
                              e->name, (unsigned long long)more, (unsigned long long)taken);
    }
    if (more > 0) {
        note(e, bytes);
    } else {
        cbi_ledger_force(e, bytes);
    }
    cbi_block *chain = cbi_manager_shed(m, m->mode);
    cbi_manager_note_peak(m);
    cbi_lock_give(&m->lock);
    (void)cbi_allocator_drop(m->allocators[m->mode], chain);
    return CB_OK;
}

uint64_t cb_ledger_bytes(const cb_ledger_entry *e) {
    cbi_lock_take(&e->manager->lock);
    uint64_t bytes = e->bytes;
    cbi_lock_give(&e->manager->lock);
    return bytes;
}

uint64_t cb_ledger_peak(const cb_ledger_entry *e) {
    cbi_lock_take(&e->manager->lock);
    uint64_t bytes = e->peak;
    cbi_lock_give(&e->manager->lock);
    return bytes;
}

void cb_ledger_remove(cb_ledger_entry *e) {
    if (e == NULL) {
        return;
    }
    cb_manager *m = e->manager;
    cbi_lock_take(&m->lock);
    cbi_ledger_force(e, 0);
    for (cb_ledger_entry **at = &m->ledger; *at != NULL; at = &(*at)->next) {
        if (*at == e) {
            *at = e->next;
            break;
        }
    }
    cbi_lock_give(&m->lock);
    cbi_free(e);
}

void cb_ledger_refresh(cb_manager *m) {
    cbi_lock_take(&m->lock);
    cb_ledger_entry *e = m->ledger;
    while (e != NULL) { /* nobody removes entries meanwhile: see cb_ledger_remove */
        cb_ledger_measure_fn measure = e->measure;
        if (measure != NULL) {
            void *ctx = e->ctx;
            cbi_lock_give(&m->lock);
            uint64_t bytes = measure(ctx);
            cbi_lock_take(&m->lock);
            cbi_ledger_force(e, bytes);
        }
        e = e->next;
    }
    cbi_block *chain = cbi_manager_shed(m, m->mode);
    cbi_manager_note_peak(m);
    cbi_lock_give(&m->lock);
    (void)cbi_allocator_drop(m->allocators[m->mode], chain);
}

uint64_t cb_ledger_small_objects(void *ctx) {
    (void)ctx;
    size_t held = cbi_alloc_bytes(), pages = cbi_allocator_small_bytes();
    return held > pages ? held - pages : 0;
}
