/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two pages, as Spark's UI has them. Everything on them stands in the text: no script, nothing
 * loaded. The pictures are SVG with bars whose lengths are numbers made here; names that others
 * gave go through cbi_html_text alone. A page has room for so many bytes: before each row there
 * must be enough left for the longest one and for the page's end.
 */
#include "net/web_page.h"

#include <inttypes.h>
#include <string.h>

enum {
    TAIL_BYTES = 8 * 1024,
    ROW_BYTES = 6 * (CB_BLOCK_NAME_MAX + CB_EXECUTOR_ADDRESS_MAX + 4 * CB_EXECUTOR_NAME_MAX) + 2048,
    PICTURE_ROWS = 24,
    WIDTH = 900,
    LABEL = 260,
    BAR = 480,
    STEP = 26
};

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
    "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
    "<meta http-equiv=\"refresh\" content=\"10\"><link rel=\"icon\" href=\"data:,\">";
static const char style[] =
    "<style>:root{color-scheme:light dark;--a:#2a6fb0;--b:#c98a1b;--line:#8885;--soft:#8882}"
    "body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:76rem;padding:0 1rem 3rem}"
    "nav{display:flex;gap:1.2rem;align-items:baseline;border-bottom:1px solid var(--line);"
    "padding:.8rem 0}nav b{font-size:1.2rem}nav a{color:inherit}nav "
    "a[aria-current]{font-weight:600;"
    "text-decoration:none}h1{font-size:1.35rem}h2{font-size:1.1rem;margin-top:2rem}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .7rem .3rem 0;"
    "border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:anywhere}"
    "th{font-weight:600}.n{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".note{color:#888}.bad{border-left:4px solid #b33;padding-left:.6rem}svg{max-width:100%;"
    "height:auto}svg text{font-size:13px;fill:currentColor}.room{fill:var(--soft);"
    "stroke:var(--line)}.memory{fill:var(--a)}.disk{fill:var(--b)}</style>";

static bool has_row(const cbi_html *h) {
    return cbi_html_left(h) > (size_t)ROW_BYTES + TAIL_BYTES;
}

static void put_head(cbi_html *h, const char *title, bool storage) {
    cbi_html_put(h, "%s", head);
    cbi_html_put(h, "<title>carbide: %s</title>", title);
    cbi_html_put(h, "%s", style);
    cbi_html_put(h,
                 "</head><body><nav><b>carbide</b><a href=\"/storage\"%s>Storage</a>"
                 "<a href=\"/executors\"%s>Executors</a><a href=\"/status.json\">JSON</a>"
                 "<a href=\"/metrics\">OpenMetrics</a></nav><main><h1>%s</h1>",
                 storage ? " aria-current=\"page\"" : "", storage ? "" : " aria-current=\"page\"",
                 title);
}

static void put_tail(cbi_html *h) {
    cbi_html_put(h, "</main></body></html>\n");
}

static void put_number(cbi_html *h, uint64_t number) {
    cbi_html_put(h, "<td class=\"n\">%" PRIu64 "</td>", number);
}

static void put_size(cbi_html *h, uint64_t bytes) {
    cbi_html_put(h, "<td class=\"n\" title=\"%" PRIu64 " bytes\">", bytes);
    cbi_html_bytes(h, bytes);
    cbi_html_put(h, "</td>");
}

static void put_level(cbi_html *h, cb_level level) {
    char text[CB_LEVEL_TEXT_MAX];
    const char *name = cb_level_name(level);
    if (name == NULL) {
        cb_level_format(level, text);
        name = text;
    }
    cbi_html_text(h, name);
}

/** What the page can not tell. */
static void put_problems(cbi_html *h, const cbi_cluster *c) {
    if (c->problem.message[0] != '\0') {
        cbi_html_put(h, "<p class=\"bad\" id=\"problem\">The directory does not answer: ");
        cbi_html_text(h, c->problem.message);
        cbi_html_put(h, c->alone ? " What follows is this executor alone.</p>" : "</p>");
    } else if (c->alone) {
        cbi_html_put(h, "<p class=\"note\">There is no directory: this server alone.</p>");
    }
}

/* ---- pictures ---- */

static double length_of(uint64_t bytes, uint64_t most) {
    return most > 0 ? (double)bytes / (double)most * BAR : 0;
}

static void picture_begin(cbi_html *h, const char *id, const char *label, size_t rows) {
    cbi_html_put(h,
                 "<svg id=\"%s\" viewBox=\"0 0 %d %zu\" width=\"%d\" height=\"%zu\" role=\"img\" "
                 "aria-label=\"%s\">",
                 id, WIDTH, rows * STEP + 4, WIDTH, rows * STEP + 4, label);
}

static void put_bar(cbi_html *h, const char *class, double from, double length, size_t row) {
    cbi_html_put(h,
                 "<rect class=\"%s\" x=\"%.1f\" y=\"%zu\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>",
                 class, LABEL + from, row * STEP + 4, length, STEP - 8);
}

static void label_begin(cbi_html *h, size_t row) {
    cbi_html_put(h, "<text x=\"%d\" y=\"%zu\" text-anchor=\"end\">", LABEL - 10, row * STEP + 18);
}

static void figure_begin(cbi_html *h, size_t row) {
    cbi_html_put(h, "<text x=\"%d\" y=\"%zu\">", LABEL + BAR + 10, row * STEP + 18);
}

/** Memory of each executor: what it has room for, and what is in it. */
static void put_memory_picture(cbi_html *h, const cbi_cluster *c) {
    uint64_t most = 0;
    size_t rows = cbi_min(c->executor_count, PICTURE_ROWS);
    for (size_t i = 0; i < rows; i++) {
        most = cbi_max(most, cbi_max(c->executors[i].memory_max, c->executors[i].memory_bytes));
    }
    picture_begin(h, "memory", "Memory of each executor", rows);
    for (size_t i = 0; i < rows && has_row(h); i++) {
        const cb_executor_view *e = &c->executors[i];
        char name[33]; /* of UTF-8 perhaps half a character at the end: it is shown as such */
        size_t bytes = strnlen(e->name, sizeof name - 1);
        memcpy(name, e->name, bytes);
        name[bytes] = '\0';
        label_begin(h, i);
        cbi_html_text(h, name);
        cbi_html_put(h, "</text>");
        put_bar(h, "room", 0, length_of(e->memory_max, most), i);
        put_bar(h, "memory", 0, length_of(e->memory_bytes, most), i);
        figure_begin(h, i);
        cbi_html_bytes(h, e->memory_bytes);
        cbi_html_put(h, " of ");
        cbi_html_bytes(h, e->memory_max);
        cbi_html_put(h, "</text>");
    }
    cbi_html_put(h, "</svg>");
}

/** Bytes by level: memory, then disk. */
static void put_level_picture(cbi_html *h, const cbi_cluster *c) {
    uint64_t most = 0;
    size_t rows = 0, row = 0;
    for (size_t i = 0; i < CBI_CLUSTER_LEVELS; i++) {
        rows += c->levels[i].copies > 0;
        most = cbi_max(most, c->levels[i].memory_bytes + c->levels[i].disk_bytes);
    }
    if (rows == 0) {
        return;
    }
    cbi_html_put(h, "<h2>By level</h2><p class=\"note\"><svg width=\"12\" height=\"12\"><rect "
                    "class=\"memory\" width=\"12\" height=\"12\"/></svg> memory &nbsp; <svg "
                    "width=\"12\" height=\"12\"><rect class=\"disk\" width=\"12\" "
                    "height=\"12\"/></svg> disk</p>");
    picture_begin(h, "levels", "Bytes in memory and on disk by storage level", rows);
    for (size_t i = 0; i < CBI_CLUSTER_LEVELS; i++) {
        const cbi_cluster_sum *sum = &c->levels[i];
        if (sum->copies == 0) {
            continue;
        }
        double memory = length_of(sum->memory_bytes, most);
        label_begin(h, row);
        put_level(h, CB_LEVEL(i, 1));
        cbi_html_put(h, "</text>");
        put_bar(h, "memory", 0, memory, row);
        put_bar(h, "disk", memory, length_of(sum->disk_bytes, most), row);
        figure_begin(h, row);
        cbi_html_put(h, "%" PRIu64 ": ", sum->copies);
        cbi_html_bytes(h, sum->memory_bytes);
        cbi_html_put(h, ", ");
        cbi_html_bytes(h, sum->disk_bytes);
        cbi_html_put(h, "</text>");
        row++;
    }
    cbi_html_put(h, "</svg>");
}

/* ---- Storage ---- */

static unsigned count_executors(const cbi_cluster_set *set) {
    unsigned count = 0;
    for (size_t i = 0; i < sizeof set->at / sizeof *set->at; i++) {
        count += (unsigned)__builtin_popcountll(set->at[i]);
    }
    return count;
}

/** A name in a row's first cell, which leads to the copies of that set or executor. */
static void put_link(cbi_html *h, const char *argument, const char *name) {
    cbi_html_put(h, "<tr><td><a href=\"/storage?%s=", argument);
    cbi_html_url(h, name);
    cbi_html_put(h, "\">");
    cbi_html_text(h, name);
    cbi_html_put(h, "</a>");
}

static void put_sets(cbi_html *h, const cbi_cluster *c) {
    size_t shown = 0;
    cbi_html_put(h,
                 "<h2>Data sets</h2><table id=\"sets\"><thead><tr><th>Data set</th><th>Level</th>"
                 "<th class=\"n\">Copies of blocks</th><th class=\"n\">Executors</th>"
                 "<th class=\"n\">Size in memory</th><th class=\"n\">Size on disk</th></tr>"
                 "</thead><tbody>");
    for (; shown < c->set_count && has_row(h); shown++) {
        const cbi_cluster_set *set = &c->sets[shown];
        put_link(h, "set", set->name);
        cbi_html_put(h, "</td><td>");
        put_level(h, set->level);
        cbi_html_put(h, "</td>");
        put_number(h, set->sum.copies);
        put_number(h, count_executors(set));
        put_size(h, set->sum.memory_bytes);
        put_size(h, set->sum.disk_bytes);
        cbi_html_put(h, "</tr>");
    }
    cbi_html_put(h, "</tbody></table>");
    if (shown < c->set_count || c->sets_beyond > 0) {
        cbi_html_put(h, "<p class=\"note\">There are more.</p>");
    }
}

static void put_block(cbi_html *h, const cbi_cluster *c, const cbi_cluster_block *b) {
    cbi_html_put(h, "<tr><td>");
    cbi_html_text(h, b->name);
    cbi_html_put(h, "</td><td>");
    put_level(h, b->place.level);
    cbi_html_put(h, "</td><td>");
    cbi_html_text(h, c->executors[b->executor].name);
    cbi_html_put(h, "</td>");
    put_size(h, b->place.memory_bytes);
    put_size(h, b->place.disk_bytes);
    if (c->alone) {
        cbi_html_put(h, "<td></td></tr>");
    } else {
        cbi_html_put(h, "<td class=\"n\">%" PRIu64 "</td></tr>", b->place.block_generation);
    }
}

static void put_blocks(cbi_html *h, const cbi_cluster *c) {
    size_t shown = 0;
    cbi_html_put(h, "<h2>Blocks");
    if (c->only_set != NULL) {
        cbi_html_put(h, " of ");
        cbi_html_text(h, c->only_set);
    }
    if (c->only_executor != NULL) {
        cbi_html_put(h, " at ");
        cbi_html_text(h, c->only_executor);
    }
    cbi_html_put(h, "</h2>");
    if (c->only_set != NULL || c->only_executor != NULL) {
        cbi_html_put(h, "<p><a href=\"/storage\">all blocks</a></p>");
    }
    cbi_html_put(h, "<table id=\"blocks\"><thead><tr><th>Block</th><th>Level</th><th>Executor</th>"
                    "<th class=\"n\">Size in memory</th><th class=\"n\">Size on disk</th>"
                    "<th class=\"n\">Generation</th></tr></thead><tbody>");
    for (; shown < c->block_count && has_row(h); shown++) {
        put_block(h, c, &c->blocks[shown]);
    }
    cbi_html_put(h, "</tbody></table>");
    if (shown < c->matching || c->cut) {
        cbi_html_put(h, "<p class=\"note\" id=\"more\">%zu of %s%" PRIu64 " copies of blocks.</p>",
                     shown, c->cut ? "more than " : "", c->matching);
    }
}

void cbi_web_storage(cbi_html *h, const cbi_cluster *c) {
    put_head(h, "Storage", true);
    put_problems(h, c);
    if (c->cut) {
        cbi_html_put(h,
                     "<p class=\"bad\" id=\"cut\">Sums on this page are of the %" PRIu64
                     " copies of blocks that were looked at; there are more.</p>",
                     c->looked);
    }
    if (c->looked == 0) {
        cbi_html_put(h, "<p id=\"empty\">There are no blocks.</p>");
    } else {
        put_level_picture(h, c);
        put_sets(h, c);
        put_blocks(h, c);
    }
    put_tail(h);
}

/* ---- Executors ---- */

static void put_summary(cbi_html *h, const cbi_cluster *c) {
    uint64_t memory = 0, most = 0, disk = 0, blocks = 0;
    for (size_t i = 0; i < c->executor_count; i++) {
        memory += c->executors[i].memory_bytes;
        most += c->executors[i].memory_max;
        disk += c->executors[i].disk_bytes;
        blocks += c->executors[i].blocks;
    }
    cbi_html_put(h,
                 "<table id=\"summary\"><thead><tr><th class=\"n\">Executors</th>"
                 "<th class=\"n\">Copies of blocks</th><th class=\"n\">Storage memory used</th>"
                 "<th class=\"n\">of</th><th class=\"n\">Disk used</th></tr></thead><tbody><tr>");
    put_number(h, c->executor_count + c->executors_beyond);
    put_number(h, blocks);
    put_size(h, memory);
    put_size(h, most);
    put_size(h, disk);
    cbi_html_put(h, "</tr></tbody></table>");
}

static void put_executor(cbi_html *h, const cbi_cluster *c, size_t i) {
    const cb_executor_view *e = &c->executors[i];
    put_link(h, "executor", e->name);
    cbi_html_put(h, "%s</td><td>", i == c->self ? " <b>(this one)</b>" : "");
    cbi_html_text(h, e->address);
    cbi_html_put(h, "</td><td>");
    cbi_html_text(h, e->host);
    cbi_html_put(h, "</td><td>");
    cbi_html_text(h, e->rack);
    cbi_html_put(h, "</td>");
    put_number(h, e->blocks);
    put_size(h, e->memory_bytes);
    put_size(h, e->memory_max);
    put_size(h, e->disk_bytes);
    if (c->alone || e->lease_ns < c->now_ns) {
        cbi_html_put(h, "<td></td></tr>");
    } else {
        cbi_html_put(h, "<td class=\"n\">%.1f s</td></tr>",
                     (double)(e->lease_ns - c->now_ns) / 1e9);
    }
}

static void put_executors(cbi_html *h, const cbi_cluster *c) {
    size_t shown = 0;
    cbi_html_put(h, "<h2>Executors</h2><table id=\"executors\"><thead><tr><th>Executor</th>"
                    "<th>Address</th><th>Host</th><th>Rack</th><th class=\"n\">Blocks</th>"
                    "<th class=\"n\">Storage memory used</th><th class=\"n\">of</th>"
                    "<th class=\"n\">Disk used</th><th class=\"n\">Lease</th></tr></thead><tbody>");
    for (; shown < c->executor_count && has_row(h); shown++) {
        put_executor(h, c, shown);
    }
    cbi_html_put(h, "</tbody></table>");
    if (shown < c->executor_count + c->executors_beyond) {
        cbi_html_put(h, "<p class=\"note\">%zu of %zu.</p>", shown,
                     c->executor_count + c->executors_beyond);
    }
}

/** Who holds the memory of the server that is asked. */
static void put_budget(cbi_html *h, const cb_figures *f) {
    const cb_blocks_stats *s = &f->blocks;
    uint64_t looked = s->hits + s->disk_hits + s->misses;
    cbi_html_put(h, "<h2>Budget of this one</h2><table id=\"budget\"><thead><tr><th>Account</th>"
                    "<th class=\"n\">Bytes</th><th class=\"n\">Peak</th></tr></thead><tbody>");
    cbi_html_put(h, "<tr><td>budget</td>");
    put_size(h, f->budget);
    cbi_html_put(h, "<td></td></tr><tr><td>accounted</td>");
    put_size(h, f->accounted);
    put_size(h, f->accounted_peak);
    cbi_html_put(h, "</tr><tr><td>blocks in memory</td>");
    put_size(h, f->pools[CB_STORAGE][CB_HEAP].used);
    put_size(h, f->pools[CB_STORAGE][CB_HEAP].used_peak);
    cbi_html_put(h, "</tr>");
    for (uint32_t i = 0; i < f->ledger_count; i++) {
        cbi_html_put(h, "<tr><td>");
        cbi_html_text(h, f->ledger[i].name);
        cbi_html_put(h, "</td>");
        put_size(h, f->ledger[i].bytes);
        put_size(h, f->ledger[i].peak);
        cbi_html_put(h, "</tr>");
    }
    cbi_html_put(h,
                 "</tbody></table><p id=\"hits\">%" PRIu64 " reads: %.1f %% from memory, %.1f %% "
                 "from disk; %" PRIu64 " blocks evicted, %" PRIu64 " kept.</p>",
                 looked, looked > 0 ? 100.0 * (double)s->hits / (double)looked : 0.0,
                 looked > 0 ? 100.0 * (double)s->disk_hits / (double)looked : 0.0, s->evicted,
                 s->kept);
}

void cbi_web_executors(cbi_html *h, const cbi_cluster *c, const cb_figures *f) {
    put_head(h, "Executors", false);
    put_problems(h, c);
    put_summary(h, c);
    cbi_html_put(h, "<h2>Storage memory</h2>");
    put_memory_picture(h, c);
    put_executors(h, c);
    if (has_row(h)) {
        put_budget(h, f);
    }
    put_tail(h);
}
