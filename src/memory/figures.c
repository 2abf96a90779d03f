/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "carbide/monitor.h"
#include "memory/task.h"

/** The place of a row among those that are there, the largest first; `max` when it has none. */
static size_t place_of(uint64_t bytes, const uint64_t *sizes, uint32_t count) {
    size_t at = count;
    while (at > 0 && sizes[at - 1] < bytes) {
        at--;
    }
    return at;
}

static void add_ledger(const cb_ledger_entry *e, cb_figures *f, uint64_t *sizes) {
    size_t at = place_of(e->bytes, sizes, f->ledger_count);
    if (e->peak == 0 || at == CB_FIGURES_ROWS_MAX) {
        return;
    }
    size_t last = f->ledger_count < CB_FIGURES_ROWS_MAX ? f->ledger_count++ : f->ledger_count - 1u;
    memmove(&f->ledger[at + 1], &f->ledger[at], (last - at) * sizeof *f->ledger);
    memmove(&sizes[at + 1], &sizes[at], (last - at) * sizeof *sizes);
    cb_figures_row *row = &f->ledger[at];
    *row = (cb_figures_row){.bytes = e->bytes, .peak = e->peak};
    memcpy(row->name, e->name, sizeof row->name);
    sizes[at] = e->bytes;
}

static void add_task(const cb_task *t, cb_figures *f, uint64_t *sizes) {
    uint64_t bytes = t->party.bytes[CB_HEAP] + t->party.bytes[CB_OFF_HEAP], spilled = 0;
    for (const cb_consumer *c = t->consumers; c != NULL; c = c->next) {
        spilled += c->spilled;
    }
    f->tasks++;
    f->tasks_waiting += t->waiters != NULL;
    size_t at = place_of(bytes, sizes, f->task_count);
    if (at == CB_FIGURES_ROWS_MAX) {
        return;
    }
    size_t last = f->task_count < CB_FIGURES_ROWS_MAX ? f->task_count++ : f->task_count - 1u;
    memmove(&f->task[at + 1], &f->task[at], (last - at) * sizeof *f->task);
    memmove(&sizes[at + 1], &sizes[at], (last - at) * sizeof *sizes);
    cb_figures_task *row = &f->task[at];
    *row = (cb_figures_task){.id = t->id,
                             .bytes = bytes,
                             .peak = t->peak,
                             .spilled = spilled,
                             .waiting = t->waiters != NULL};
    memcpy(row->name, t->name, sizeof row->name);
    sizes[at] = bytes;
}

static_assert(CBI_NAME_BYTES == CB_FIGURES_NAME_MAX + 1, "names fit");

void cb_manager_figures(const cb_manager *m, cb_figures *f) {
    uint64_t ledger_sizes[CB_FIGURES_ROWS_MAX + 1], task_sizes[CB_FIGURES_ROWS_MAX + 1];
    f->accounted = cb_manager_accounted(m);
    f->accounted_peak = cb_manager_accounted_peak(m);
    f->debt = cb_manager_debt(m);
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        cb_manager_pool(m, CB_EXECUTION, (cb_mode)mode, &f->pools[CB_EXECUTION][mode]);
        cb_manager_pool(m, CB_STORAGE, (cb_mode)mode, &f->pools[CB_STORAGE][mode]);
    }
    cbi_lock *lock = &((cb_manager *)(uintptr_t)m)->lock;
    cbi_lock_take(lock);
    const cbi_arbiter *a = &m->arbiter;
    f->budget = m->ledger_bytes;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        f->budget += a->total[mode];
        f->budget -= a->debt[mode];
        f->storage_region[mode] = a->region[mode];
    }
    f->unroll_bytes = a->unroll[CB_HEAP] + a->unroll[CB_OFF_HEAP];
    for (const cb_ledger_entry *e = m->ledger; e != NULL; e = e->next) {
        add_ledger(e, f, ledger_sizes);
    }
    for (const cb_task *t = m->tasks; t != NULL; t = t->next) {
        add_task(t, f, task_sizes);
    }
    cbi_lock_give(lock);
}
