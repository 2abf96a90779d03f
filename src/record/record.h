/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_RECORD_H
#define CBI_RECORD_H

#include "base/base.h"

/** A piece of a chunk: offset from the chunk's base. */
typedef struct cbi_span {
    uint32_t offset;
    uint32_t bytes; /* the high bit: CBI_SPAN_ESCAPED */
} cbi_span;

/* A CSV field's content (without its outer quotes) that holds doubled quotes still to be undone. */
#define CBI_SPAN_ESCAPED 0x80000000u
#define CBI_SPAN_BYTES(span) ((span).bytes & 0x7fffffffu)

/**
 * Rows found in a chunk by a format's scanner: what formats produce and keys consume. Arrays belong
 * to the caller (a worker's scratch). A row's span excludes its terminator (LF or NUL) and keeps a
 * CR before it, since that is part of what must come out again.
 */
typedef struct cbi_rows {
    const uint8_t *base;
    size_t count, capacity;
    cbi_span *rows;
    cbi_span *fields;   /* field_count a row: fields[row * field_count + i], the columns the keys
                           need, in their order */
    size_t field_count; /* 0: keys look at the whole row */
} cbi_rows;

#endif
