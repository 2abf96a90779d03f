/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pools over a trace, as an SVG picture without script or outside parts: one panel a mode (and
 * one for Flink's pages). Execution grows from the bottom, storage hangs from the top, and the line
 * between them is the border that the two push to and fro. What was evicted, refused and waited for
 * is marked below.
 */
#include <string.h>

#include "simulate/simulate.h"

enum {
    WIDTH = 1000,
    LEFT = 110,
    RIGHT = 20,
    TOP = 70,
    PANEL = 200,
    MARKS = 34, /* the strip of marks below a panel */
    GAP = 30
};

static const char exec_colour[] = "#2b6cb0", stor_colour[] = "#dd8a1d", border_colour[] = "#1a202c";

/* ---- time ---- */

static void merge(cbi_sim_sample *into, const cbi_sim_sample *later) {
    cbi_sim_sample sum = *later;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        sum.evicted[mode] += into->evicted[mode];
        sum.refused[mode] += into->refused[mode];
        sum.blocked[mode] += into->blocked[mode];
    }
    sum.begins = into->begins || later->begins;
    for (int region = 0; region < 2 && !later->begins; region++) {
        for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
            uint64_t used = into->state.used[region][mode];
            uint64_t size = sum.state.size[region][mode];
            used = used < size ? used : size; /* the border may have moved since */
            if (used > sum.state.used[region][mode]) {
                sum.state.used[region][mode] = used;
            }
        }
    }
    *into = sum;
}

void cbi_sim_sample_add(cbi_sim_samples *samples, const cbi_sim_sample *sample) {
    if (samples->count > 0 && samples->in_last < samples->stride) {
        merge(&samples->at[samples->count - 1], sample);
        samples->in_last++;
        return;
    }
    if (samples->count == CBI_SIM_SAMPLES_MAX) {
        for (size_t i = 0; i < CBI_SIM_SAMPLES_MAX / 2; i++) {
            samples->at[i] = samples->at[2 * i];
            merge(&samples->at[i], &samples->at[2 * i + 1]);
        }
        samples->count /= 2;
        samples->stride *= 2;
        samples->in_last = samples->stride;
    }
    samples->at[samples->count++] = *sample;
    samples->in_last = 1;
}

/* ---- panels ---- */

typedef struct panel {
    const char *name;
    cbi_sim_kind kind;
    int mode;
    double top;
    double most; /* the largest total: the height of the panel */
} panel;

typedef struct drawing {
    const cbi_sim_samples *samples;
    cbi_sim_text *out;
} drawing;

static double x_of(const drawing *d, size_t sample) {
    size_t count = d->samples->count;
    return LEFT + (double)(WIDTH - LEFT - RIGHT) * (double)sample / (double)count;
}

static uint64_t total_of(const cbi_sim_sample *s, const panel *p) {
    return s->kind == p->kind
               ? s->state.size[CB_EXECUTION][p->mode] + s->state.size[CB_STORAGE][p->mode]
               : 0;
}

static double y_of(const panel *p, double bytes) {
    return p->top + PANEL - PANEL * bytes / p->most;
}

/** Where the top of execution's use is (line 0), the border (1), the bottom of storage's use (2),
 *  the top of all (3). */
static double height_of(const cbi_sim_sample *s, const panel *p, int line) {
    if (s->kind != p->kind) {
        return 0;
    }
    double exec = (double)s->state.size[CB_EXECUTION][p->mode];
    double total = (double)total_of(s, p);
    switch (line) {
        case 0: return (double)s->state.used[CB_EXECUTION][p->mode];
        case 1: return exec;
        case 2: return total - (double)s->state.used[CB_STORAGE][p->mode];
        default: return total;
    }
}

/** Steps along a line, forward or back. */
static void add_steps(const drawing *d, const panel *p, int line, bool back) {
    size_t count = d->samples->count;
    for (size_t i = 0; i < count; i++) {
        size_t at = back ? count - 1 - i : i;
        double y = y_of(p, height_of(&d->samples->at[at], p, line));
        double first = x_of(d, back ? at + 1 : at), second = x_of(d, back ? at : at + 1);
        cbi_sim_text_print(d->out, "%s%.1f,%.1f %.1f,%.1f", i > 0 ? " " : "", first, y, second, y);
    }
}

static void add_area(const drawing *d, const panel *p, int line, const char *colour) {
    cbi_sim_text_print(d->out, "<polygon fill=\"%s\" fill-opacity=\"0.75\" points=\"", colour);
    if (line == 0) {
        cbi_sim_text_print(d->out, "%.1f,%.1f ", x_of(d, 0), p->top + PANEL);
        add_steps(d, p, 0, false);
        cbi_sim_text_print(d->out, " %.1f,%.1f", x_of(d, d->samples->count), p->top + PANEL);
    } else {
        add_steps(d, p, 3, false);
        cbi_sim_text_string(d->out, " ");
        add_steps(d, p, 2, true);
    }
    cbi_sim_text_string(d->out, "\"/>\n");
}

static void add_size_label(cbi_sim_text *out, double bytes, bool pages) {
    static const char *const units[] = {"", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    int unit = 0;
    for (; !pages && bytes >= 1024 && unit < 6; unit++) {
        bytes /= 1024;
    }
    cbi_sim_text_print(out, bytes < 100 && unit > 0 ? "%.1f%s" : "%.0f%s", bytes, units[unit]);
}

static void add_axis(const drawing *d, const panel *p) {
    for (int quarter = 0; quarter <= 4; quarter += 2) {
        double bytes = p->most * quarter / 4, y = y_of(p, bytes);
        cbi_sim_text_print(
            d->out,
            "<line x1=\"%d\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" stroke=\"#cbd5e0\"/>\n"
            "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
            LEFT, y, WIDTH - RIGHT, y, LEFT - 8, y + 4);
        add_size_label(d->out, bytes, p->kind == CBI_SIM_FLINK);
        cbi_sim_text_string(d->out, "</text>\n");
    }
    cbi_sim_text_print(d->out, "<text x=\"%d\" y=\"%.1f\" font-weight=\"bold\">%s</text>\n", LEFT,
                       p->top - 8, p->name);
}

/** One row of marks: red where calls waited, and so on. */
static void add_marks(const drawing *d, const panel *p, int row) {
    static const char *const colours[] = {"#c53030", "#805ad5", "#4a5568"};
    for (size_t i = 0; i < d->samples->count; i++) {
        const cbi_sim_sample *s = &d->samples->at[i];
        uint32_t events = row == 0   ? s->blocked[p->mode]
                          : row == 1 ? s->evicted[p->mode]
                                     : s->refused[p->mode];
        if (events > 0 && s->kind == p->kind) {
            double x = (x_of(d, i) + x_of(d, i + 1)) / 2;
            cbi_sim_text_print(
                d->out,
                "<rect x=\"%.1f\" y=\"%.1f\" width=\"3\" height=\"7\" fill=\"%s\"><title>"
                "line %llu</title></rect>\n",
                x - 1.5, p->top + PANEL + 6 + 9 * row, colours[row], (unsigned long long)s->line);
        }
    }
}

static void add_panel(const drawing *d, const panel *p) {
    add_axis(d, p);
    add_area(d, p, 0, exec_colour);
    if (p->kind == CBI_SIM_SPARK) {
        add_area(d, p, 2, stor_colour);
        cbi_sim_text_print(d->out, "<polyline fill=\"none\" stroke=\"%s\" points=\"",
                           border_colour);
        add_steps(d, p, 1, false);
        cbi_sim_text_string(d->out, "\"/>\n");
    }
    for (size_t i = 1; i < d->samples->count; i++) {
        if (d->samples->at[i].begins) {
            double x = x_of(d, i);
            cbi_sim_text_print(
                d->out,
                "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#a0aec0\" "
                "stroke-dasharray=\"4 3\"/>\n",
                x, p->top, x, p->top + PANEL);
        }
    }
    for (int row = 0; row < 3; row++) {
        add_marks(d, p, row);
    }
}

/* ---- the whole ---- */

static void add_escaped(cbi_sim_text *out, const char *text) {
    for (const char *c = text; *c != '\0'; c++) {
        switch (*c) {
            case '&': cbi_sim_text_string(out, "&amp;"); break;
            case '<': cbi_sim_text_string(out, "&lt;"); break;
            case '>': cbi_sim_text_string(out, "&gt;"); break;
            default:
                if ((unsigned char)*c >= 0x20) { /* no control character may stand in XML */
                    cbi_sim_text_add(out, c, 1);
                }
                break;
        }
    }
}

static void add_legend(const drawing *d, bool spark) {
    static const struct {
        const char *colour, *text;
        bool spark_only;
    } entries[] = {{exec_colour, "execution", false},   {stor_colour, "storage", true},
                   {border_colour, "border", true},     {"#c53030", "waited", true},
                   {"#805ad5", "evicted blocks", true}, {"#4a5568", "got less than asked", false}};
    double x = LEFT;
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        if (spark || !entries[i].spark_only) {
            cbi_sim_text_print(
                d->out,
                "<rect x=\"%.0f\" y=\"34\" width=\"10\" height=\"10\" fill=\"%s\"/>\n"
                "<text x=\"%.0f\" y=\"43\">%s</text>\n",
                x, entries[i].colour, x + 15, spark || i > 0 ? entries[i].text : "pages taken");
            x += 40 + 7 * (double)strlen(entries[i].text);
        }
    }
}

/** Those with something in them, one below the other. */
static size_t find_panels(const cbi_sim_samples *samples, panel panels[3]) {
    const panel all[3] = {{"on the heap", CBI_SIM_SPARK, CB_HEAP, 0, 0},
                          {"off-heap", CBI_SIM_SPARK, CB_OFF_HEAP, 0, 0},
                          {"pages", CBI_SIM_FLINK, CB_HEAP, 0, 0}};
    size_t count = 0;
    for (int i = 0; i < 3; i++) {
        panel p = all[i];
        for (size_t s = 0; s < samples->count; s++) {
            double total = (double)total_of(&samples->at[s], &p);
            p.most = total > p.most ? total : p.most;
        }
        if (p.most > 0) {
            p.top = TOP + GAP + (double)(count * (PANEL + MARKS + GAP));
            panels[count++] = p;
        }
    }
    return count;
}

void cbi_sim_write_picture(const cbi_sim_samples *samples, const char *title, cbi_sim_text *out) {
    panel panels[3];
    const drawing d = {samples, out};
    size_t count = find_panels(samples, panels);
    int height = TOP + GAP + (int)count * (PANEL + MARKS + GAP) + 20;
    cbi_sim_text_print(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
        "height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
        WIDTH, height, WIDTH, height);
    cbi_sim_text_print(out, "<text x=\"%d\" y=\"22\" font-size=\"16\">", LEFT);
    add_escaped(out, title);
    cbi_sim_text_string(out, "</text>\n");
    if (count > 0) {
        add_legend(&d, panels[0].kind == CBI_SIM_SPARK);
        for (size_t i = 0; i < count; i++) {
            add_panel(&d, &panels[i]);
        }
        cbi_sim_text_print(out,
                           "<text x=\"%d\" y=\"%d\">line %llu</text>\n"
                           "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">line %llu</text>\n",
                           LEFT, height - 10, (unsigned long long)samples->at[0].line,
                           WIDTH - RIGHT, height - 10,
                           (unsigned long long)samples->at[samples->count - 1].line);
    }
    cbi_sim_text_string(out, "</svg>\n");
}
