/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/group_private.h"

#include "format/csv.h"

/*
 * From a row to what a record keeps of it.
 *
 * Key columns are usually a piece of the row as it stands there: neighbours, none of them quoted.
 * Then nothing is looked at byte by byte. A quoted field is written out again with quotes only if
 * it needs them, so that "a" and a are the same key.
 */

/* ---- fields ---- */

static size_t doubled_quotes(const uint8_t *p, size_t bytes) {
    size_t n = 0;
    for (const uint8_t *q = p, *end = p + bytes; (q = memchr(q, '"', (size_t)(end - q))) != NULL;
         q += 2)
        n++;
    return n;
}

/* Bytes of the content. */
static size_t content_bytes(const uint8_t *base, cbi_span span) {
    size_t bytes = CBI_SPAN_BYTES(span);
    if (CBI_LIKELY((span.bytes & CBI_SPAN_ESCAPED) == 0))
        return bytes;
    return bytes - doubled_quotes(base + span.offset, bytes);
}

uint8_t *group_put_content(uint8_t *p, const uint8_t *base, cbi_span span) {
    size_t bytes = CBI_SPAN_BYTES(span);
    if (CBI_LIKELY((span.bytes & CBI_SPAN_ESCAPED) == 0)) {
        memcpy(p, base + span.offset, bytes);
        return p + bytes;
    }
    return p + cbi_csv_unescape(base + span.offset, bytes, p);
}

static bool needs_quotes(const cb_group *g, const uint8_t *p, size_t bytes) {
    if (!g->quoting)
        return false;
    for (size_t i = 0; i < bytes; i++)
        if (p[i] == g->separator || p[i] == '"' || p[i] == '\n' || p[i] == '\r')
            return true;
    return false;
}

size_t group_field_bytes(const cb_group *g, const uint8_t *content, size_t bytes) {
    if (!needs_quotes(g, content, bytes))
        return bytes;
    size_t quotes = 0;
    for (size_t i = 0; i < bytes; i++)
        quotes += content[i] == '"';
    return bytes + quotes + 2;
}

uint8_t *group_put_field(const cb_group *g, uint8_t *p, const uint8_t *content, size_t bytes) {
    if (!needs_quotes(g, content, bytes)) {
        memcpy(p, content, bytes);
        return p + bytes;
    }
    *p++ = '"';
    for (size_t i = 0; i < bytes; i++) {
        if (content[i] == '"')
            *p++ = '"';
        *p++ = content[i];
    }
    *p++ = '"';
    return p;
}

uint8_t *group_guard_field(const cb_group *g, uint8_t *from, uint8_t *end) {
    size_t bytes = (size_t)(end - from);
    if (!needs_quotes(g, from, bytes))
        return end;
    memmove(from + 1, from, bytes);
    *from = end[1] = '"';
    return end + 2;
}

/* ---- key columns as they are written out ---- */

bool group_keeps_quotes(const cb_group *g, const uint8_t *base, cbi_span span) {
    if ((span.bytes & CBI_SPAN_ESCAPED) != 0)
        return true;
    if (!g->quoting || span.offset == 0 || base[span.offset - 1] != '"')
        return false;
    return needs_quotes(g, base + span.offset, CBI_SPAN_BYTES(span));
}

size_t group_display_bytes(const cb_group *g, const group_row *row) {
    const uint8_t *from;
    size_t bytes = 0;
    if (CBI_LIKELY(group_key_slice(g, row, &from, &bytes)))
        return bytes;
    bytes = g->key_count > 0 ? g->key_count - 1 : 0;
    for (size_t i = 0; i < g->key_count; i++) {
        cbi_span span = row->fields[g->key_columns[i].slot];
        bytes += CBI_SPAN_BYTES(span) + (group_keeps_quotes(g, row->base, span) ? 2 : 0);
    }
    return bytes;
}

uint8_t *group_put_display(const cb_group *g, const group_row *row, uint8_t *p) {
    const uint8_t *from;
    size_t bytes = 0;
    if (CBI_LIKELY(group_key_slice(g, row, &from, &bytes))) {
        memcpy(p, from, bytes);
        return p + bytes;
    }
    for (size_t i = 0; i < g->key_count; i++) {
        cbi_span span = row->fields[g->key_columns[i].slot];
        bool quotes = group_keeps_quotes(g, row->base, span);
        if (i > 0)
            *p++ = g->separator;
        if (quotes)
            *p++ = '"';
        memcpy(p, row->base + span.offset, CBI_SPAN_BYTES(span));
        p += CBI_SPAN_BYTES(span);
        if (quotes)
            *p++ = '"';
    }
    return p;
}

/* ---- values ---- */

/* A value that is written as a missing one is an empty one from here on. */
static inline cbi_span column_span(const cb_group *g, const cbi_agg_column *c,
                                   const group_row *row) {
    if (c->row)
        return row->row;
    cbi_span span = row->fields[c->slot];
    if (CBI_UNLIKELY(g->null_text != NULL) && span.bytes == g->null_bytes &&
        memcmp(row->base + span.offset, g->null_text, g->null_bytes) == 0)
        span.bytes = 0;
    return span;
}

cbi_number_kind group_read_values(const cb_group *g, const group_row *row, cbi_value *values,
                                  size_t *bad) {
    const cbi_aggregates *a = g->aggs;
    for (size_t i = 0; i < a->column_count; i++) {
        const cbi_agg_column *c = &a->columns[i];
        if (!c->packed)
            continue;
        cbi_span span = column_span(g, c, row);
        cbi_value *v = &values[i];
        if (!c->number) {
            *v = (cbi_value){.null = CBI_SPAN_BYTES(span) == 0};
            continue;
        }
        const uint8_t *text = row->base + span.offset;
        cbi_number_kind kind =
            CBI_UNLIKELY(c->real)
                ? cbi_real_parse(row->base, text, CBI_SPAN_BYTES(span), &v->number)
                : cbi_decimal_parse(row->base, text, CBI_SPAN_BYTES(span), &v->number);
        v->null = kind == CBI_NUMBER_NULL;
        if (CBI_UNLIKELY(kind >= CBI_NUMBER_BAD)) {
            *bad = i;
            return kind;
        }
    }
    return CBI_NUMBER;
}

size_t group_row_payload_bytes(const cb_group *g, const group_row *row, size_t display_bytes) {
    size_t bytes = 4 + g->packed_max;
    if (g->display)
        bytes += CBI_VARINT_MAX + display_bytes;
    for (size_t i = 0; g->text_count > 0 && i < g->aggs->column_count; i++) {
        const cbi_agg_column *c = &g->aggs->columns[i];
        if (c->text)
            bytes += CBI_VARINT_MAX + CBI_SPAN_BYTES(column_span(g, c, row));
    }
    return bytes;
}

uint8_t *group_put_body(const cb_group *g, const group_row *row, const cbi_value *values,
                        uint8_t *p) {
    const cbi_aggregates *a = g->aggs;
    for (size_t i = 0; i < a->column_count; i++) {
        if (a->columns[i].packed)
            p = values[i].null ? cbi_packed_put_null(p) : cbi_packed_put(p, &values[i].number);
    }
    for (size_t i = 0; g->text_count > 0 && i < a->column_count; i++) {
        const cbi_agg_column *c = &a->columns[i];
        if (!c->text)
            continue;
        cbi_span span = column_span(g, c, row);
        if (c->row)
            span.bytes &= ~CBI_SPAN_ESCAPED;
        p = cbi_varint_put(p, (uint32_t)content_bytes(row->base, span));
        p = group_put_content(p, row->base, span);
    }
    return p;
}

/* ---- back ---- */

void group_payload_get(const cb_group *g, const cbi_stored *record, uint64_t order,
                       group_payload *payload) {
    const uint8_t *p = record->row;
    uint32_t number = cbi_load_u32(p);
    p += 4;
    *payload = (group_payload){.state = (number & GROUP_STATE_BIT) != 0};
    if (g->display) {
        p = cbi_varint_get(p, &payload->display_bytes);
        payload->display = p;
        p += payload->display_bytes;
    }
    if (payload->state) {
        payload->position = cbi_load_u64(p);
        p += 8;
    } else {
        payload->position = order + (number & ~GROUP_STATE_BIT);
    }
    payload->body = p;
}

const uint8_t *group_values_get(const cb_group *g, const uint8_t *p, cbi_value *values) {
    for (size_t i = 0; i < g->aggs->column_count; i++)
        if (g->aggs->columns[i].packed)
            p = cbi_packed_get(p, &values[i].number, &values[i].null);
    return p;
}
