/* SPDX-License-Identifier: Apache-2.0 */
#include "format/csv.h"

#include <string.h>

/* ---- one row ---- */

static void row_field(const uint32_t *wanted, size_t count, cbi_span *fields, size_t column,
                      cbi_span span) {
    for (size_t i = 0; i < count; i++)
        if (wanted[i] == column)
            fields[i] = span;
}

static void row_flaw(const cbi_dialect *d, const uint8_t *base, size_t bytes, cbi_flaw flaw,
                     size_t at, cbi_csv_row *row) {
    const uint8_t *end =
        flaw == CBI_FLAW_UNCLOSED ? NULL : memchr(base + at, d->terminator, bytes - at);
    row->flaw = flaw;
    row->flaw_at = at;
    row->end = end ? (size_t)(end - base) : bytes;
    row->next = end ? row->end + 1 : bytes;
}

/* The place of the closing quote of the field that opens at `at`, or `bytes`. */
static size_t row_closing(const uint8_t *base, size_t at, size_t bytes, bool *escaped) {
    *escaped = false;
    for (size_t p = at + 1; p < bytes;) {
        const uint8_t *q = memchr(base + p, '"', bytes - p);
        if (!q)
            break;
        p = (size_t)(q - base);
        if (p + 1 < bytes && base[p + 1] == '"') {
            *escaped = true;
            p += 2;
        } else {
            return p;
        }
    }
    return bytes;
}

/* Reads one field from *at; false when it is malformed. *span is its content, *at the place behind
 * it. */
static bool row_read_field(const cbi_dialect *d, const uint8_t *base, size_t *at, size_t bytes,
                           cbi_span *span, cbi_csv_row *row) {
    size_t p = *at;
    if (d->quoting && p < bytes && base[p] == '"') {
        bool escaped;
        size_t close = row_closing(base, p, bytes, &escaped);
        if (close == bytes) {
            row_flaw(d, base, bytes, CBI_FLAW_UNCLOSED, p, row);
            return false;
        }
        *span = (cbi_span){(uint32_t)(p + 1),
                           (uint32_t)(close - p - 1) | (escaped ? CBI_SPAN_ESCAPED : 0)};
        p = close + 1;
        bool cr = d->strip_cr && p < bytes && base[p] == '\r' &&
                  (p + 1 == bytes || base[p + 1] == d->terminator);
        p += cr;
        if (p < bytes && base[p] != d->terminator && (cr || base[p] != d->separator)) {
            row_flaw(d, base, bytes, CBI_FLAW_AFTER_QUOTE, p, row);
            return false;
        }
        *at = p;
        return true;
    }
    while (p < bytes && base[p] != d->separator && base[p] != d->terminator) {
        if (d->quoting && base[p] == '"') {
            row_flaw(d, base, bytes, CBI_FLAW_STRAY_QUOTE, p, row);
            return false;
        }
        p++;
    }
    size_t end = p;
    bool last = p == bytes || base[p] == d->terminator;
    if (last && d->strip_cr && end > *at && base[end - 1] == '\r')
        end--;
    *span = (cbi_span){(uint32_t)*at, (uint32_t)(end - *at)};
    *at = p;
    return true;
}

bool cbi_csv_read_field(const cbi_dialect *d, const uint8_t *base, size_t *at, size_t bytes,
                        cbi_span *span) {
    cbi_csv_row row;
    return row_read_field(d, base, at, bytes, span, &row);
}

void cbi_csv_read_row(const cbi_dialect *d, const uint8_t *base, size_t from, size_t bytes,
                      const uint32_t *wanted, size_t wanted_count, cbi_span *fields,
                      cbi_csv_row *row) {
    size_t at = from, surplus = SIZE_MAX;
    cbi_span span = {0, 0};

    *row = (cbi_csv_row){.flaw = CBI_FLAW_NONE};
    for (;;) {
        if (d->columns != 0 && row->fields == d->columns)
            surplus = at;
        if (!row_read_field(d, base, &at, bytes, &span, row))
            return;
        row_field(wanted, wanted_count, fields, row->fields, span);
        row->fields++;
        if (at == bytes || base[at] == d->terminator)
            break;
        at++;
    }
    row->end = at;
    row->next = at < bytes ? at + 1 : at;
    for (size_t i = 0; i < wanted_count; i++)
        if (wanted[i] >= row->fields)
            fields[i] = (cbi_span){(uint32_t)at, 0};
    if (d->columns == 0 || row->fields == d->columns)
        return;
    row->blank =
        row->fields == 1 && (at == from || (d->strip_cr && at == from + 1 && base[from] == '\r'));
    if (!row->blank) {
        row->flaw = CBI_FLAW_RAGGED;
        row->flaw_at = surplus == SIZE_MAX ? row->end : surplus;
    }
}

/* ---- the state alone ---- */

static cbi_csv_state state_step(const cbi_dialect *d, cbi_csv_state state, uint8_t c) {
    switch (state) {
        case CBI_CSV_START:
            if (c == '"' && d->quoting)
                return CBI_CSV_QUOTED;
            return c == d->separator || c == d->terminator ? CBI_CSV_START : CBI_CSV_PLAIN;
        case CBI_CSV_PLAIN:
            if (c == '"' && d->quoting)
                return CBI_CSV_BAD;
            return c == d->separator || c == d->terminator ? CBI_CSV_START : CBI_CSV_PLAIN;
        case CBI_CSV_QUOTED: return c == '"' ? CBI_CSV_CLOSED : CBI_CSV_QUOTED;
        case CBI_CSV_CLOSED:
            if (c == '"')
                return CBI_CSV_QUOTED;
            if (c == d->separator || c == d->terminator)
                return CBI_CSV_START;
            return c == '\r' && d->strip_cr ? CBI_CSV_CLOSED_CR : CBI_CSV_BAD;
        case CBI_CSV_CLOSED_CR:
        case CBI_CSV_BAD: return c == d->terminator ? CBI_CSV_START : CBI_CSV_BAD;
    }
    return CBI_CSV_BAD;
}

/* Whether a terminator ends a row here: everywhere but inside quotes. */
static bool state_ends(const cbi_dialect *d, cbi_csv_state state, uint8_t c) {
    return c == d->terminator && state != CBI_CSV_QUOTED;
}

cbi_csv_state cbi_csv_run(const cbi_dialect *d, cbi_csv_state state, const uint8_t *p, size_t bytes,
                          size_t *last_end) {
    size_t at = 0;
    while (at < bytes) {
        const uint8_t *from = p + at, *to;
        size_t left = bytes - at;
        if (state == CBI_CSV_QUOTED) {
            to = memchr(from, '"', left);
            at = to ? (size_t)(to - p) + 1 : bytes;
            state = to ? CBI_CSV_CLOSED : state;
        } else if (state == CBI_CSV_START || state == CBI_CSV_PLAIN) {
            to = d->quoting ? memchr(from, '"', left) : NULL;
            size_t n = to ? (size_t)(to - from) : left;
            if (n != 0) {
                const uint8_t *end = last_end ? memrchr(from, d->terminator, n) : NULL;
                if (end)
                    *last_end = (size_t)(end - p) + 1;
                uint8_t c = from[n - 1];
                state = c == d->separator || c == d->terminator ? CBI_CSV_START : CBI_CSV_PLAIN;
            }
            at += n;
            if (to) {
                state = state_step(d, state, '"');
                at++;
            }
        } else {
            if (state_ends(d, state, *from) && last_end)
                *last_end = at + 1;
            state = state_step(d, state, *from);
            at++;
        }
    }
    return state;
}

size_t cbi_csv_find_end(const cbi_dialect *d, cbi_csv_state *state, const uint8_t *p,
                        size_t bytes) {
    cbi_csv_state s = *state;
    for (size_t i = 0; i < bytes; i++) {
        bool end = state_ends(d, s, p[i]);
        s = state_step(d, s, p[i]);
        if (end) {
            *state = s;
            return i + 1;
        }
    }
    *state = s;
    return SIZE_MAX;
}

size_t cbi_csv_find_end_parity(const cbi_dialect *d, bool *inside, const uint8_t *p, size_t bytes) {
    bool in = *inside;
    for (size_t i = 0; i < bytes; i++) {
        in ^= p[i] == '"';
        if (p[i] == d->terminator && !in) {
            *inside = in;
            return i + 1;
        }
    }
    *inside = in;
    return SIZE_MAX;
}

/* ---- a walk that knows lines and columns ---- */

void cbi_csv_walk_init(cbi_csv_walk *w, const cbi_dialect *d, uint64_t at, uint64_t line) {
    *w = (cbi_csv_walk){
        .dialect = *d, .state = CBI_CSV_START, .at = at, .line = line, .line_start = at};
    w->row_start = at;
    w->row_line = line;
}

static void walk_flaw(cbi_csv_walk *w, cbi_flaw flaw, uint64_t line, uint64_t column) {
    if (w->flaw == CBI_FLAW_NONE) {
        w->flaw = flaw;
        w->flaw_line = line;
        w->flaw_column = column;
    }
}

/* The row ends at w->at; was it ragged? */
static void walk_end_row(cbi_csv_walk *w) {
    const cbi_dialect *d = &w->dialect;
    uint64_t fields = w->fields + 1, bytes = w->at - w->row_start;
    if (w->flaw != CBI_FLAW_NONE || d->columns == 0 || fields == d->columns)
        return;
    if (fields == 1 && (bytes == 0 || (d->strip_cr && bytes == 1 && w->last_byte == '\r')))
        return;
    if (fields > d->columns)
        walk_flaw(w, CBI_FLAW_RAGGED, w->surplus_line, w->surplus_column);
    else
        walk_flaw(w, CBI_FLAW_RAGGED, w->line, w->at - w->line_start + 1);
}

static void walk_begin_row(cbi_csv_walk *w) {
    w->row_start = w->at;
    w->row_line = w->line;
    w->fields = 0;
    w->flaw = CBI_FLAW_NONE;
}

size_t cbi_csv_walk_next(cbi_csv_walk *w, const uint8_t *p, size_t bytes, bool *ended) {
    const cbi_dialect *d = &w->dialect;
    if (w->row_start == UINT64_MAX)
        walk_begin_row(w);
    *ended = false;
    for (size_t i = 0; i < bytes; i++) {
        uint8_t c = p[i];
        cbi_csv_state was = w->state, now = state_step(d, was, c);
        uint64_t column = w->at - w->line_start + 1;
        if (CBI_UNLIKELY(now == CBI_CSV_BAD && was != CBI_CSV_BAD)) {
            walk_flaw(w, was == CBI_CSV_PLAIN ? CBI_FLAW_STRAY_QUOTE : CBI_FLAW_AFTER_QUOTE,
                      w->line, column - (was == CBI_CSV_CLOSED_CR));
        } else if (now == CBI_CSV_QUOTED && was == CBI_CSV_START) {
            w->mark_at = w->at;
            w->mark_line = w->line;
            w->mark_column = column;
        }
        bool end = state_ends(d, was, c);
        if (end)
            walk_end_row(w);
        else if (c == d->separator && now == CBI_CSV_START && ++w->fields == d->columns) {
            w->surplus_line = w->line;
            w->surplus_column = column + 1;
        }
        w->state = now;
        w->last_byte = c;
        w->at++;
        if (c == d->terminator) {
            w->line++;
            w->line_start = w->at;
        }
        if (end) {
            *ended = true;
            w->row_start = UINT64_MAX; /* the next call begins a row */
            return i + 1;
        }
    }
    return bytes;
}

void cbi_csv_walk_finish(cbi_csv_walk *w) {
    if (w->row_start == UINT64_MAX || w->at == w->row_start) {
        w->flaw = CBI_FLAW_NONE;
        return;
    }
    if (w->state == CBI_CSV_QUOTED)
        walk_flaw(w, CBI_FLAW_UNCLOSED, w->mark_line, w->mark_column);
    walk_end_row(w);
}

const char *cbi_flaw_text(cbi_flaw flaw) {
    switch (flaw) {
        case CBI_FLAW_NONE: break;
        case CBI_FLAW_STRAY_QUOTE:
            return "a quote inside a field that does not begin with one; put the whole field in "
                   "quotes and double those "
                   "inside it";
        case CBI_FLAW_AFTER_QUOTE:
            return "something other than a separator or the end of the row follows a closing "
                   "quote; a quote inside a quoted field "
                   "must be doubled";
        case CBI_FLAW_UNCLOSED: return "this quote is never closed";
        case CBI_FLAW_RAGGED: return "the row has the wrong number of fields";
    }
    return "nothing is wrong";
}

size_t cbi_csv_unescape(const uint8_t *in, size_t bytes, uint8_t *out) {
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) {
        out[n++] = in[i];
        if (in[i] == '"' && i + 1 < bytes && in[i + 1] == '"')
            i++;
    }
    return n;
}
