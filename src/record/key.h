/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_KEY_H
#define CBI_KEY_H

#include "record/record.h"

/**
 * Keys in their normalised form: a byte string whose memcmp order (shorter is less when one is a
 * prefix of the other) is the order asked for, over all keys of the row, directions and nulls
 * included. So the operators know bytes only. A key may have no bytes at all (an empty last text; a
 * KEYDEF that ends before it begins).
 *
 * What a key's text may be:
 *   F[.C][OPTS][,F[.C][OPTS]]      GNU KEYDEF, coreutils 9.1 in the C locale. In CSV and TSV F is a
 * column and C a character of its content; without an end the key is that one column
 *   NAME[:TYPE][:OPTION]...        a column by name; "NAME" in quotes, doubled inside, or name=NAME
 * when the name begins with a digit (without a header name=N is column N) N[:TYPE][:OPTION]...
 * column N; in lines field N without its blanks (at least one colon) TYPE@OFFSET[+LENGTH][:OPTION]
 * fixed records; no TYPE is str Types: str    bytes. Empty ones are the smallest unless nulls= says
 * otherwise num    decimal, exact at any length; 1e5 = 100000.0. Exponents count up to +-10^18 int
 * num without a fraction other than zeros, without an exponent float  the nearest double, in IEEE
 * total order (-nan -inf ... -0 0 ... inf nan) ver    GNU's version order human  1.5K = 1500, 1.5Ki
 * = 1536, up to Q; a B may follow month  three letters of a name or more, or 1 to 12 time   ISO
 * 8601 dates and times with fractions and zones, or seconds since 1970 (key_time.c has the list) u8
 * i8, u|i 16|32|64 le|be, f 32|64 le|be   fixed records only Options: asc, desc, fold (ASCII; str
 * and ver), nulls=first, nulls=last. For all types that can be misread, what is empty or unreadable
 * is null, and nulls are last, also for desc, unless nulls=first. Blanks and a CR around a value do
 * not count, except for str and ver.
 *
 * Global letters go to KEYDEFs without letters, to native keys that say nothing but a name, and to
 * the whole row when there are no keys; a global r also turns native keys that say neither asc nor
 * desc.
 */
typedef struct cbi_keys cbi_keys;

/** How an operator gets at the key of a row. */
typedef enum cbi_key_shape {
    CBI_KEY_ROW,   /* the row's own bytes are the key */
    CBI_KEY_SLICE, /* bytes [slice_offset, slice_offset + slice_bytes) of the row (fixed records) */
    CBI_KEY_ENCODED /* cbi_keys_encode makes it */
} cbi_key_shape;

/** What happens among rows with equal keys. */
typedef enum cbi_key_tie {
    CBI_TIE_INPUT, /* input order: native sorts, GNU -s, and -u of both */
    CBI_TIE_ROW /* the whole row's bytes decide (GNU's last resort), then they are the same anyway
                 */
} cbi_key_tie;

typedef struct cbi_keys_options {
    const char *const *keys; /* see cb_sort_options */
    size_t key_count;
    const char *global_order;
    int field_separator; /* -1 or a byte; for lines */
    bool gnu, stable, unique;
    int format; /* cb_format_kind, AUTO resolved */
    size_t record_bytes;
} cbi_keys_options;

/** Parses; CB_EINVAL says which key and which column of its text is wrong. Column names are not
 * looked up yet. */
cb_status cbi_keys_create(const cbi_keys_options *options, cbi_keys **keys, cb_error *err);
void cbi_keys_destroy(cbi_keys *keys);

/** Looks the names up in the header row (CSV, TSV); CB_EINVAL names what is missing and what there
 * is. Names are given unquoted. With no header only numbers (KEYDEF, name=N) work: pass count 0. */
cb_status cbi_keys_bind(cbi_keys *keys, const char *const *names, size_t count, cb_error *err);

cbi_key_shape cbi_keys_shape(const cbi_keys *keys);
void cbi_keys_slice(const cbi_keys *keys, size_t *offset, size_t *bytes);
/** ROW and SLICE shapes only: the whole order is reversed (an encoded key has it in its bytes). */
bool cbi_keys_inverted(const cbi_keys *keys);
cbi_key_tie cbi_keys_tie(const cbi_keys *keys);
/** CBI_TIE_ROW: the last resort is reversed too (GNU -r). */
bool cbi_keys_tie_inverted(const cbi_keys *keys);
/** The 0-based columns the scanner must deliver as fields, in order; 0 for lines and fixed. */
size_t cbi_keys_columns(const cbi_keys *keys, const uint32_t **columns);

/**
 * The normalised key of row `i`. Answers its size; when that is more than `cap` nothing past `cap`
 * is written and the caller comes again with more room. Never fails: what cannot be read as its
 * type sorts as the type says (GNU: as 0 or before numbers; native: nulls and unreadable ones
 * together, by nulls=). Any thread.
 */
size_t cbi_keys_encode(const cbi_keys *keys, const cbi_rows *rows, size_t i, uint8_t *out,
                       size_t cap);

/** The same, and whether any part of it is null: nothing at all, or what its type cannot read. */
size_t cbi_keys_encode_null(const cbi_keys *keys, const cbi_rows *rows, size_t i, uint8_t *out,
                            size_t cap, bool *null);

/** Where every key is the bytes of one field as they stand (unless that is CBI_SPAN_ESCAPED; null
 * when it is empty): its place in cbi_rows.fields; -1 otherwise. After bind. */
int cbi_keys_raw_slot(const cbi_keys *keys);

/** How many keys there are. */
size_t cbi_keys_parts(const cbi_keys *keys);
/** The 0-based column a part is found in; -1: it is no column's. After bind. */
int64_t cbi_keys_part_column(const cbi_keys *keys, size_t part);
/** The part's own text in row `i`, as people would write it: quotes undone, no blanks around what
 * is not text. Answers its size; as much as fits is written. */
size_t cbi_keys_text(const cbi_keys *keys, size_t part, const cbi_rows *rows, size_t i,
                     uint8_t *out, size_t cap);
/** The encoding of a key of one part whose text is given. As cbi_keys_encode. */
size_t cbi_keys_encode_text(const cbi_keys *keys, size_t part, const char *text, size_t bytes,
                            uint8_t *out, size_t cap);

#endif
