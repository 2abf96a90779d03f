/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_CSV_H
#define CBI_CSV_H

#include "record/record.h"

/*
 * The exact rules of delimited rows, a byte at a time. The fast scanners (scan_kernels.h) come here
 * with every row that they do not like; ends of rows are looked for here.
 *
 * RFC 4180 with these decisions: a quote has a meaning at the start of a field only; inside quotes
 * it is doubled; behind the closing quote stand a separator, the end of the row, or a CR before the
 * end of the row. Anything else is malformed, and the row then ends at the next terminator,
 * whatever stands before it. A line with nothing on it (or a CR alone) is no row where rows have
 * several fields, and a row with one empty field where they have one.
 */

typedef struct cbi_dialect {
    uint8_t separator;
    uint8_t terminator;
    bool quoting;   /* CSV */
    bool strip_cr;  /* terminator is LF */
    size_t columns; /* 0 = any */
} cbi_dialect;

typedef enum cbi_csv_state {
    CBI_CSV_START, /* of a field */
    CBI_CSV_PLAIN,
    CBI_CSV_QUOTED,
    CBI_CSV_CLOSED,    /* behind a quote in a quoted field: its end, or the first of two */
    CBI_CSV_CLOSED_CR, /* and a CR behind that */
    CBI_CSV_BAD        /* until the next terminator */
} cbi_csv_state;

typedef enum cbi_flaw {
    CBI_FLAW_NONE,
    CBI_FLAW_STRAY_QUOTE, /* inside a field that does not begin with one */
    CBI_FLAW_AFTER_QUOTE, /* text behind a closing quote */
    CBI_FLAW_UNCLOSED,
    CBI_FLAW_RAGGED
} cbi_flaw;

/** One row, exactly. */
typedef struct cbi_csv_row {
    size_t end;  /* of the row, without its terminator */
    size_t next; /* where the next row starts */
    size_t fields;
    bool blank; /* no row at all */
    cbi_flaw flaw;
    size_t flaw_at;
} cbi_csv_row;

/** Reads the row at `from`; fields[i] becomes column wanted[i]. The end of `bytes` ends the row. */
void cbi_csv_read_row(const cbi_dialect *d, const uint8_t *base, size_t from, size_t bytes,
                      const uint32_t *wanted, size_t wanted_count, cbi_span *fields,
                      cbi_csv_row *row);

/** One field at *at; *at becomes the place behind it (a separator, a terminator, or the end).
 * False: malformed. */
bool cbi_csv_read_field(const cbi_dialect *d, const uint8_t *base, size_t *at, size_t bytes,
                        cbi_span *span);

/** What a state becomes over p; *last_end (when not NULL) the place behind the last row end in p,
 * untouched without one. Jumps from quote to quote. */
cbi_csv_state cbi_csv_run(const cbi_dialect *d, cbi_csv_state state, const uint8_t *p, size_t bytes,
                          size_t *last_end);

/** The place behind the first row end in p; SIZE_MAX and the state at the end when there is none.
 */
size_t cbi_csv_find_end(const cbi_dialect *d, cbi_csv_state *state, const uint8_t *p, size_t bytes);

/** The same where only the parity of quotes is known: *inside is turned by every quote. */
size_t cbi_csv_find_end_parity(const cbi_dialect *d, bool *inside, const uint8_t *p, size_t bytes);

/** A walk over a whole file in pieces: knows the line and column of everything. Start with
 * cbi_csv_walk_init. */
typedef struct cbi_csv_walk {
    cbi_dialect dialect;
    cbi_csv_state state;
    uint64_t at; /* offset in the file of the next byte */
    uint64_t line, line_start;
    uint64_t row_start, row_line;
    uint64_t fields;
    uint64_t mark_at, mark_line, mark_column; /* of the last opening quote */
    uint64_t surplus_at, surplus_line, surplus_column;
    uint8_t last_byte;
    /* the row that ended last */
    cbi_flaw flaw;
    uint64_t flaw_line, flaw_column;
} cbi_csv_walk;

void cbi_csv_walk_init(cbi_csv_walk *w, const cbi_dialect *d, uint64_t at, uint64_t line);
/** Goes on to the end of a row: answers how many bytes it took, *ended says whether that is a row's
 * end. The next row starts with the next call. */
size_t cbi_csv_walk_next(cbi_csv_walk *w, const uint8_t *p, size_t bytes, bool *ended);
/** The file ends here: ends the row in progress, if any. */
void cbi_csv_walk_finish(cbi_csv_walk *w);

/** "a quote inside a field ..." */
const char *cbi_flaw_text(cbi_flaw flaw);

/** Undoes doubled quotes: in -> out (may be the same), answers the bytes. */
size_t cbi_csv_unescape(const uint8_t *in, size_t bytes, uint8_t *out);

#endif
