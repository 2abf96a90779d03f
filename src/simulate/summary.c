/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a trace got, and what would have been enough for it. Each line begins with "# ", so that the
 * answers and their summary together are still a text that tools for answers can read.
 */
#include <stdio.h>

#include "simulate/simulate.h"

static const uint64_t reserved = (uint64_t)300 * 1024 * 1024; /* Spark's default */

/** "1234 (1.2 KiB)" */
static void add_size(cbi_sim_text *out, uint64_t bytes) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double value = (double)bytes;
    int unit = -1;
    for (; value >= 1024 && unit < 5; unit++) {
        value /= 1024;
    }
    cbi_sim_text_number(out, bytes);
    if (unit >= 0) {
        cbi_sim_text_print(out, " (%.1f %s)", value, units[unit]);
    }
}

static void add_row(const cbi_sim_part *p, cb_region region, int mode, cbi_sim_text *out) {
    static const char *const names[2][CB_MODE_COUNT] = {
        {"execution on the heap", "execution off-heap"},
        {"storage on the heap", "storage off-heap"}};
    if (p->calls[region][mode] == 0) {
        return;
    }
    cbi_sim_text_print(out, "# %s: %llu calls, %llu of them got less than they asked for; asked ",
                       names[region][mode], (unsigned long long)p->calls[region][mode],
                       (unsigned long long)p->short_calls[region][mode]);
    add_size(out, p->asked[region][mode]);
    cbi_sim_text_string(out, ", granted at once ");
    add_size(out, p->granted[region][mode]);
    cbi_sim_text_string(out, ", peak ");
    add_size(out, p->peak[region][mode]);
    cbi_sim_text_string(out, "\n");
}

static bool went_well(const cbi_sim_part *p) {
    uint64_t trouble = p->blocked + p->evicted_blocks;
    for (int region = 0; region < 2; region++) {
        for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
            trouble += p->short_calls[region][mode];
        }
    }
    return trouble == 0;
}

static uint64_t whole_mib(double bytes) {
    return (uint64_t)(bytes / (double)CBI_MIB) + 1;
}

/** "# enough: heap=... " as words of a config line, then as Spark's settings. */
static void add_unified_need(const cbi_sim_part *p, cbi_sim_text *out) {
    const cbi_sim_config *c = &p->config;
    uint64_t heap = c->execution + c->storage, need = p->need.total[CB_HEAP];
    double part = heap > 0 ? (double)c->storage / (double)heap : 0;
    need = need > 1 ? need : 2; /* some for execution, whatever the trace wants */
    cbi_sim_text_string(out, "# enough: config manager=unified heap=");
    cbi_sim_text_number(out, need);
    cbi_sim_text_string(out, " storageRegion=");
    cbi_sim_text_number(out, (uint64_t)((double)need * part));
    if (c->off_heap > 0 || p->need.total[CB_OFF_HEAP] > 0) {
        cbi_sim_text_string(out, " offheap=");
        cbi_sim_text_number(out, p->need.total[CB_OFF_HEAP]);
        cbi_sim_text_print(out, " storageFraction=%g", c->storage_fraction);
    }
    cbi_sim_text_print(out, "\n# enough: spark.executor.memory=%llum",
                       (unsigned long long)whole_mib((double)need / 0.6 + (double)reserved));
    cbi_sim_text_print(out, " spark.memory.fraction=0.6 spark.memory.storageFraction=%.4g", part);
    if (p->need.total[CB_OFF_HEAP] > 0) {
        cbi_sim_text_print(out, " spark.memory.offHeap.enabled=true spark.memory.offHeap.size=%llu",
                           (unsigned long long)p->need.total[CB_OFF_HEAP]);
    }
    cbi_sim_text_string(out, "\n");
}

static void add_static_need(const cbi_sim_part *p, cbi_sim_text *out) {
    const cbi_sim_need *need = &p->need;
    cbi_sim_text_string(out, "# enough: config manager=static exec=");
    cbi_sim_text_number(out, need->execution[CB_HEAP]);
    cbi_sim_text_string(out, " storage=");
    cbi_sim_text_number(out, need->storage[CB_HEAP]);
    if (p->config.off_heap > 0 || need->execution[CB_OFF_HEAP] > 0) {
        cbi_sim_text_string(out, " offheap=");
        cbi_sim_text_number(out, need->execution[CB_OFF_HEAP]);
    }
    double of_execution = (double)need->execution[CB_HEAP] / (0.2 * 0.8);
    double of_storage = (double)need->storage[CB_HEAP] / (0.6 * 0.9);
    cbi_sim_text_print(
        out, "\n# enough: spark.memory.useLegacyMode=true spark.executor.memory=%llum\n",
        (unsigned long long)whole_mib(of_execution > of_storage ? of_execution : of_storage));
}

static void add_flink(const cbi_sim_part *p, cbi_sim_text *out) {
    uint64_t page = p->config.page, need = p->need.execution[CB_HEAP];
    cbi_sim_text_print(
        out,
        "# pages: %llu allocations, %llu refused; asked %llu, granted %llu, peak %llu of %llu\n",
        (unsigned long long)p->calls[CB_EXECUTION][CB_HEAP],
        (unsigned long long)p->short_calls[CB_EXECUTION][CB_HEAP],
        (unsigned long long)p->asked[CB_EXECUTION][CB_HEAP],
        (unsigned long long)p->granted[CB_EXECUTION][CB_HEAP],
        (unsigned long long)p->peak[CB_EXECUTION][CB_HEAP],
        (unsigned long long)(p->config.memory / page));
    if (p->need.beyond) {
        cbi_sim_text_string(out, "# enough: no size that a manager can have\n");
    } else if (!went_well(p)) {
        cbi_sim_text_print(out, "# enough: config memory=%llu page=%llu slots=%llu\n",
                           (unsigned long long)(need * page), (unsigned long long)page,
                           (unsigned long long)p->config.slots);
    }
}

static void add_spark(const cbi_sim_part *p, cbi_sim_text *out) {
    for (int region = 0; region < 2; region++) {
        for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
            add_row(p, (cb_region)region, mode, out);
        }
    }
    cbi_sim_text_print(out, "# waited: %llu calls, of which %llu went on\n",
                       (unsigned long long)p->blocked, (unsigned long long)p->woken);
    cbi_sim_text_print(out, "# evicted: %llu blocks, ", (unsigned long long)p->evicted_blocks);
    add_size(out, p->evicted_bytes);
    cbi_sim_text_string(out, "\n");
    if (went_well(p)) {
        return;
    }
    if (p->need.beyond) {
        cbi_sim_text_string(out, "# enough: no size that a manager can have\n");
    } else if (p->config.is_static) {
        add_static_need(p, out);
    } else {
        add_unified_need(p, out);
    }
}

void cbi_sim_write_summary(const cbi_sim_part *parts, cbi_sim_text *out) {
    for (const cbi_sim_part *p = parts; p != NULL; p = p->next) {
        cbi_sim_text_print(out, "# the manager of line %llu (%s): %llu operations, %llu errors%s\n",
                           (unsigned long long)p->line,
                           p->config.kind == CBI_SIM_FLINK ? "Flink's"
                           : p->config.is_static           ? "Spark's static"
                                                           : "Spark's unified",
                           (unsigned long long)p->operations, (unsigned long long)p->errors,
                           went_well(p) ? "; nothing was refused, evicted or waited for" : "");
        if (p->config.kind == CBI_SIM_FLINK) {
            add_flink(p, out);
        } else {
            add_spark(p, out);
        }
    }
}
