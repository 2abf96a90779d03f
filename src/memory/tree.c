/* SPDX-License-Identifier: Apache-2.0 */

#include "base/text.h"
#include "memory/task.h"

/** "12.5 MiB"; exact below 10 KiB. */
static void put_bytes(cbi_text *w, uint64_t bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    if (bytes < 10 * CBI_KIB) {
        cbi_text_put(w, "%llu B", (unsigned long long)bytes);
        return;
    }
    double value = (double)bytes / 1024;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        unit++;
    }
    cbi_text_put(w, "%.1f %s", value, units[unit]);
}

static void put_used(cbi_text *w, uint64_t used, uint64_t peak) {
    put_bytes(w, used);
    cbi_text_put(w, " used, peak ");
    put_bytes(w, peak);
}

static void put_ledger(cbi_text *w, const cb_manager *m) {
    for (const cb_ledger_entry *e = m->ledger; e != NULL; e = e->next) {
        if (e->peak > 0) {
            cbi_text_put(w, "  %s: ", e->name);
            put_used(w, e->bytes, e->peak);
            cbi_text_put(w, "\n");
        }
    }
}

static void put_pools(cbi_text *w, const cb_manager *m) {
    static const char *const region_names[] = {"execution", "storage"};
    static const char *const mode_names[] = {"heap", "off-heap"};
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        for (int region = 0; region < 2; region++) {
            const cbi_pool *pool = &m->arbiter.pools[region][mode];
            if (pool->size + pool->used_peak > 0) {
                cbi_text_put(w, "  %s %s: ", mode_names[mode], region_names[region]);
                put_used(w, pool->used, pool->used_peak);
                cbi_text_put(w, " of ");
                put_bytes(w, pool->size);
                cbi_text_put(w, "\n");
            }
        }
        uint64_t idle = m->allocators[mode]->idle;
        if (idle > 0) {
            cbi_text_put(w, "  %s idle pages: ", mode_names[mode]);
            put_bytes(w, idle);
            cbi_text_put(w, "\n");
        }
    }
}

static void put_consumer(cbi_text *w, const cb_consumer *c) {
    uint64_t used = cb_consumer_used(c), peak = cb_consumer_peak(c);
    if (peak == 0) {
        return;
    }
    cbi_text_put(w, "    %s: ", c->name);
    put_used(w, used, peak);
    if (c->spilled > 0) {
        cbi_text_put(w, ", spilled ");
        put_bytes(w, c->spilled);
    }
    if (c->spill == NULL) {
        cbi_text_put(w, ", cannot spill");
    } else if (c->refusals > 0) {
        cbi_text_put(w, ", would not spill %llu times", (unsigned long long)c->refusals);
    }
    cbi_text_put(w, "\n");
}

static void put_task(cbi_text *w, const cb_task *t) {
    uint64_t used = t->party.bytes[CB_HEAP] + t->party.bytes[CB_OFF_HEAP], known = 0;
    cbi_text_put(w, "  task %llu%s%s: ", (unsigned long long)t->id, t->name[0] != '\0' ? " " : "",
                 t->name);
    put_used(w, used, t->peak);
    if (t->pages > 0) {
        cbi_text_put(w, ", %u pages", t->pages);
    }
    cbi_text_put(w, "%s\n", t->waiters != NULL ? ", waiting" : "");
    for (const cb_consumer *c = t->consumers; c != NULL; c = c->next) {
        put_consumer(w, c);
        known += cb_consumer_used(c);
    }
    if (used > known) {
        cbi_text_put(w, "    not of any consumer: ");
        put_bytes(w, used - known);
        cbi_text_put(w, "\n");
    }
}

size_t cbi_tree_write(const cb_manager *m, const cb_task *only, char *text, size_t bytes) {
    cbi_text w = cbi_text_init(text, bytes);
    if (only != NULL) {
        put_task(&w, only);
        return w.needed;
    }
    uint64_t total = m->ledger_bytes;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        total += m->arbiter.total[mode];
    }
    uint64_t debt = m->arbiter.debt[CB_HEAP] + m->arbiter.debt[CB_OFF_HEAP];
    cbi_text_put(&w, "budget ");
    put_bytes(&w, total - debt);
    cbi_text_put(&w, ": ");
    put_used(&w, cbi_manager_accounted(m), m->accounted_peak);
    if (debt > 0) {
        cbi_text_put(&w, ", ");
        put_bytes(&w, debt);
        cbi_text_put(&w, " over it");
    }
    cbi_text_put(&w, "\n");
    put_ledger(&w, m);
    put_pools(&w, m);
    for (const cb_task *t = m->tasks; t != NULL; t = t->next) {
        put_task(&w, t);
    }
    return w.needed;
}

size_t cb_manager_tree(const cb_manager *m, char *text, size_t bytes) {
    cbi_lock *lock = &((cb_manager *)(uintptr_t)m)->lock;
    cbi_lock_take(lock);
    size_t needed = cbi_tree_write(m, NULL, text, bytes);
    cbi_lock_give(lock);
    return needed;
}
