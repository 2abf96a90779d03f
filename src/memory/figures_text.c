/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "base/text.h"
#include "carbide/level.h"
#include "carbide/monitor.h"

static const char *const regions[] = {"execution", "storage"};
static const char *const modes[] = {"heap", "off_heap"};

/** A string of both languages; what is neither printable nor ASCII becomes '?'. */
static void put_string(cbi_text *w, const char *s) {
    cbi_text_put(w, "\"");
    for (; *s != '\0'; s++) {
        if (*s == '"' || *s == '\\') {
            cbi_text_put(w, "\\%c", *s);
        } else {
            cbi_text_put(w, "%c", *s >= ' ' && *s < 127 ? *s : '?');
        }
    }
    cbi_text_put(w, "\"");
}

static const char *level_name(cb_level level, char text[CB_LEVEL_TEXT_MAX]) {
    cb_level_format(level, text);
    return text;
}

/* ---- counters that both have ---- */

typedef struct counter {
    const char *name;
    uint64_t value;
} counter;

enum { BLOCK_COUNTERS = 9, BLOCK_GAUGES = 8 };

static void block_counters(const cb_figures *f, counter c[BLOCK_COUNTERS]) {
    const cb_blocks_stats *b = &f->blocks;
    const counter all[BLOCK_COUNTERS] = {{"hits", b->hits},
                                         {"disk_hits", b->disk_hits},
                                         {"misses", b->misses},
                                         {"promoted", b->promoted},
                                         {"computed", b->computed},
                                         {"evicted", b->evicted},
                                         {"drops_failed", b->drops_failed},
                                         {"recovered", b->recovered},
                                         {"lost", b->lost}};
    for (int i = 0; i < BLOCK_COUNTERS; i++) {
        c[i] = all[i];
    }
}

static void block_gauges(const cb_figures *f, counter c[BLOCK_GAUGES]) {
    const cb_blocks_stats *b = &f->blocks;
    const counter all[BLOCK_GAUGES] = {{"blocks", b->blocks},
                                       {"memory_blocks", b->memory_blocks},
                                       {"memory_bytes", b->memory_bytes},
                                       {"disk_blocks", b->disk_blocks},
                                       {"disk_bytes", b->disk_bytes},
                                       {"overhead_bytes", b->overhead_bytes},
                                       {"kept", b->kept},
                                       {"replicas_missing", b->replicas_missing}};
    for (int i = 0; i < BLOCK_GAUGES; i++) {
        c[i] = all[i];
    }
}

/* ---- JSON ---- */

static void put_json_blocks(cbi_text *w, const cb_figures *f) {
    counter counters[BLOCK_COUNTERS], gauges[BLOCK_GAUGES];
    char text[CB_LEVEL_TEXT_MAX];
    block_counters(f, counters);
    block_gauges(f, gauges);
    cbi_text_put(w, ",\"blocks\":{");
    for (int i = 0; i < BLOCK_GAUGES; i++) {
        cbi_text_put(w, "\"%s\":%" PRIu64 ",", gauges[i].name, gauges[i].value);
    }
    for (int i = 0; i < BLOCK_COUNTERS; i++) {
        cbi_text_put(w, "\"%s\":%" PRIu64 ",", counters[i].name, counters[i].value);
    }
    cbi_text_put(w, "\"levels\":[");
    for (uint32_t i = 0; i < f->level_count; i++) {
        const cb_figures_level *l = &f->levels[i];
        cbi_text_put(w, "%s{\"level\":", i > 0 ? "," : "");
        put_string(w, level_name(l->level, text));
        cbi_text_put(w,
                     ",\"memory_blocks\":%" PRIu64 ",\"memory_bytes\":%" PRIu64
                     ",\"disk_blocks\":%" PRIu64 ",\"disk_bytes\":%" PRIu64 "}",
                     l->memory_blocks, l->memory_bytes, l->disk_blocks, l->disk_bytes);
    }
    cbi_text_put(w, "]}");
}

static void put_json(cbi_text *w, const cb_figures *f) {
    cbi_text_put(w, "{\"what\":");
    put_string(w, f->what);
    cbi_text_put(w, ",\"pid\":%" PRId64 ",\"time_ns\":%" PRIu64 ",\"elapsed_ns\":%" PRIu64, f->pid,
                 f->time_ns, f->elapsed_ns);
    if (f->fraction >= 0) {
        cbi_text_put(w, ",\"fraction\":%.4f", f->fraction);
    }
    cbi_text_put(w,
                 ",\"budget\":%" PRIu64 ",\"accounted\":%" PRIu64 ",\"accounted_peak\":%" PRIu64
                 ",\"debt\":%" PRIu64 ",\"unroll_bytes\":%" PRIu64 ",\"spilled_bytes\":%" PRIu64
                 ",\"pools\":[",
                 f->budget, f->accounted, f->accounted_peak, f->debt, f->unroll_bytes,
                 f->spilled_bytes);
    for (int i = 0; i < 4; i++) {
        const cb_pool_stats *p = &f->pools[i % 2][i / 2];
        cbi_text_put(
            w, "%s{\"mode\":\"%s\",\"region\":\"%s\",\"size\":%" PRIu64 ",\"used\":%" PRIu64 "}",
            i > 0 ? "," : "", modes[i / 2], regions[i % 2], p->size, p->used);
    }
    cbi_text_put(w, "],\"storage_region\":[%" PRIu64 ",%" PRIu64 "],\"ledger\":[",
                 f->storage_region[CB_HEAP], f->storage_region[CB_OFF_HEAP]);
    for (uint32_t i = 0; i < f->ledger_count; i++) {
        cbi_text_put(w, "%s{\"name\":", i > 0 ? "," : "");
        put_string(w, f->ledger[i].name);
        cbi_text_put(w, ",\"bytes\":%" PRIu64 ",\"peak\":%" PRIu64 "}", f->ledger[i].bytes,
                     f->ledger[i].peak);
    }
    cbi_text_put(w, "],\"tasks\":%" PRIu64 ",\"tasks_waiting\":%" PRIu64 ",\"task\":[", f->tasks,
                 f->tasks_waiting);
    for (uint32_t i = 0; i < f->task_count; i++) {
        const cb_figures_task *t = &f->task[i];
        cbi_text_put(w, "%s{\"id\":%" PRIu64 ",\"name\":", i > 0 ? "," : "", t->id);
        put_string(w, t->name);
        cbi_text_put(w,
                     ",\"bytes\":%" PRIu64 ",\"peak\":%" PRIu64 ",\"spilled\":%" PRIu64
                     ",\"waiting\":%s}",
                     t->bytes, t->peak, t->spilled, t->waiting ? "true" : "false");
    }
    cbi_text_put(w, "]");
    if (f->has_blocks) {
        put_json_blocks(w, f);
    }
    cbi_text_put(w, "}\n");
}

/* ---- OpenMetrics ---- */

static void put_gauge(cbi_text *w, const char *name, const char *unit, const char *help,
                      uint64_t value) {
    cbi_text_put(w, "# TYPE carbide_%s gauge\n", name);
    if (unit[0] != '\0') {
        cbi_text_put(w, "# UNIT carbide_%s %s\n", name, unit);
    }
    cbi_text_put(w, "# HELP carbide_%s %s\ncarbide_%s %" PRIu64 "\n", name, help, name, value);
}

static void put_metrics_pools(cbi_text *w, const cb_figures *f) {
    cbi_text_put(w, "# TYPE carbide_pool_size_bytes gauge\n# UNIT carbide_pool_size_bytes bytes\n"
                    "# HELP carbide_pool_size_bytes Where the border between the pools stands.\n");
    for (int i = 0; i < 4; i++) {
        cbi_text_put(w, "carbide_pool_size_bytes{mode=\"%s\",region=\"%s\"} %" PRIu64 "\n",
                     modes[i / 2], regions[i % 2], f->pools[i % 2][i / 2].size);
    }
    cbi_text_put(w, "# TYPE carbide_pool_used_bytes gauge\n# UNIT carbide_pool_used_bytes bytes\n"
                    "# HELP carbide_pool_used_bytes Bytes in use.\n");
    for (int i = 0; i < 4; i++) {
        cbi_text_put(w, "carbide_pool_used_bytes{mode=\"%s\",region=\"%s\"} %" PRIu64 "\n",
                     modes[i / 2], regions[i % 2], f->pools[i % 2][i / 2].used);
    }
    cbi_text_put(w, "# TYPE carbide_ledger_bytes gauge\n# UNIT carbide_ledger_bytes bytes\n"
                    "# HELP carbide_ledger_bytes What is neither page nor block.\n");
    for (uint32_t i = 0; i < f->ledger_count; i++) {
        cbi_text_put(w, "carbide_ledger_bytes{entry=");
        put_string(w, f->ledger[i].name);
        cbi_text_put(w, "} %" PRIu64 "\n", f->ledger[i].bytes);
    }
}

static void put_metrics_blocks(cbi_text *w, const cb_figures *f) {
    counter counters[BLOCK_COUNTERS], gauges[BLOCK_GAUGES];
    char text[CB_LEVEL_TEXT_MAX];
    block_counters(f, counters);
    block_gauges(f, gauges);
    for (int i = 0; i < BLOCK_GAUGES; i++) {
        cbi_text_put(w, "# TYPE carbide_block_store_%s gauge\ncarbide_block_store_%s %" PRIu64 "\n",
                     gauges[i].name, gauges[i].name, gauges[i].value);
    }
    for (int i = 0; i < BLOCK_COUNTERS; i++) {
        cbi_text_put(
            w, "# TYPE carbide_block_store_%s counter\ncarbide_block_store_%s_total %" PRIu64 "\n",
            counters[i].name, counters[i].name, counters[i].value);
    }
    cbi_text_put(w, "# TYPE carbide_block_level_blocks gauge\n");
    for (uint32_t i = 0; i < f->level_count; i++) {
        const cb_figures_level *l = &f->levels[i];
        cbi_text_put(w, "carbide_block_level_blocks{level=");
        put_string(w, level_name(l->level, text));
        cbi_text_put(w, ",place=\"memory\"} %" PRIu64 "\ncarbide_block_level_blocks{level=",
                     l->memory_blocks);
        put_string(w, text);
        cbi_text_put(w, ",place=\"disk\"} %" PRIu64 "\n", l->disk_blocks);
    }
}

static void put_metrics(cbi_text *w, const cb_figures *f) {
    cbi_text_put(w, "# TYPE carbide_process info\ncarbide_process_info{what=");
    put_string(w, f->what);
    cbi_text_put(w, ",pid=\"%" PRId64 "\"} 1\n", f->pid);
    put_gauge(w, "budget_bytes", "bytes", "The budget.", f->budget);
    put_gauge(w, "accounted_bytes", "bytes", "Bytes in all accounts.", f->accounted);
    put_gauge(w, "accounted_peak_bytes", "bytes", "The most so far.", f->accounted_peak);
    put_gauge(w, "debt_bytes", "bytes", "Charged beyond the budget.", f->debt);
    put_gauge(w, "unroll_bytes", "bytes", "Held for blocks being unrolled.", f->unroll_bytes);
    put_gauge(w, "tasks", "", "Tasks.", f->tasks);
    put_gauge(w, "tasks_waiting", "", "Tasks that wait for memory.", f->tasks_waiting);
    cbi_text_put(w,
                 "# TYPE carbide_spilled_bytes counter\n# UNIT carbide_spilled_bytes bytes\n"
                 "carbide_spilled_bytes_total %" PRIu64 "\n",
                 f->spilled_bytes);
    put_metrics_pools(w, f);
    if (f->has_blocks) {
        put_metrics_blocks(w, f);
    }
    cbi_text_put(w, "# EOF\n");
}

size_t cb_figures_write(const cb_figures *f, cb_figures_format format, char *text, size_t bytes) {
    cbi_text w = cbi_text_init(text, bytes);
    if (format == CB_FIGURES_JSON) {
        put_json(&w, f);
    } else {
        put_metrics(&w, f);
    }
    return w.needed;
}
