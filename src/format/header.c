/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/alloc.h"
#include "format/input_private.h"

/*
 * The header is the first row of the first input that has any bytes. It stays as it was written,
 * quotes, line end and byte order mark included; names are what is left without them. Every other
 * input must begin with the same names: quoted or not, and whatever the line end, that is the same
 * header.
 */

static const uint8_t byte_order_mark[3] = {0xef, 0xbb, 0xbf};

/* Bytes of a mark that is not part of the first name. */
size_t input_header_mark(const cbi_input *input, const uint8_t *row, size_t bytes) {
    return input_delimited(input) && bytes >= 3 && memcmp(row, byte_order_mark, 3) == 0 ? 3 : 0;
}

static char *header_name(const uint8_t *base, cbi_span span) {
    size_t bytes = CBI_SPAN_BYTES(span);
    char *name = cbi_alloc(bytes + 1);
    if (!name)
        return NULL;
    if (span.bytes & CBI_SPAN_ESCAPED)
        bytes = cbi_csv_unescape(base + span.offset, bytes, (uint8_t *)name);
    else
        memcpy(name, base + span.offset, bytes);
    name[bytes] = '\0';
    return name;
}

static void names_free(char **names, size_t count) {
    for (size_t i = 0; i < count; i++)
        cbi_free(names[i]);
    cbi_free(names);
}

/* Splits the row on `line` into names; *names is the caller's. */
static cb_status header_split(const cbi_input *input, size_t file, uint64_t line,
                              const uint8_t *row, size_t bytes, char ***names, size_t *count,
                              cb_error *err) {
    cbi_dialect dialect = input->dialect;
    cbi_csv_row first;
    size_t mark = input_header_mark(input, row, bytes);
    dialect.columns = 0;
    cbi_csv_read_row(&dialect, row, mark, bytes, NULL, 0, NULL, &first);
    if (first.flaw != CBI_FLAW_NONE) {
        uint64_t start = 0;
        for (size_t i = 0; i < first.flaw_at; i++)
            if (row[i] == dialect.terminator) {
                line++;
                start = i + 1;
            }
        return input_flaw(input, file, first.flaw, line, first.flaw_at - start + 1, 0, err);
    }
    if (names == NULL) {
        *count = first.fields;
        return CB_OK;
    }
    char **list = cbi_calloc(first.fields, sizeof *list);
    size_t done = 0, at = mark;
    while (list && done < first.fields) {
        cbi_span span = {0, 0};
        (void)cbi_csv_read_field(&dialect, row, &at, bytes,
                                 &span); /* it could be read a moment ago */
        at++;
        list[done] = header_name(row, span);
        if (!list[done])
            break;
        done++;
    }
    if (!list || done < first.fields) {
        names_free(list, done);
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu column names", first.fields);
    }
    *names = list;
    *count = first.fields;
    return CB_OK;
}

/* Bytes of a row without what ends it. */
static size_t header_content(const cbi_input *input, const uint8_t *row, size_t bytes) {
    if (bytes > 0 && row[bytes - 1] == input->format.terminator)
        bytes--;
    if (input->format.terminator == '\n' && bytes > 0 && row[bytes - 1] == '\r')
        bytes--;
    return bytes;
}

static cb_status header_keep(cbi_input *input, size_t file, const uint8_t *row, size_t bytes,
                             cb_error *err) {
    bool ends = row[bytes - 1] == input->format.terminator;
    if (input_delimited(input)) {
        CB_TRY(header_split(input, file, 1, row, bytes, &input->names, &input->name_count, err));
        input->format.columns = input->dialect.columns = input->name_count;
    }
    input->header = cbi_alloc(bytes + 1);
    if (!input->header)
        return cbi_fail(err, CB_ENOMEM, "no memory for a header of %zu bytes", bytes);
    memcpy(input->header, row, bytes);
    if (!ends)
        input->header[bytes] = input->format.terminator;
    input->header_bytes = bytes + !ends;
    for (size_t i = 0; i < input->header_bytes; i++)
        input->header_lines += input->header[i] == input->format.terminator;
    return CB_OK;
}

static cb_status header_compare(const cbi_input *input, size_t file, const uint8_t *row,
                                size_t bytes, cb_error *err) {
    size_t a = header_content(input, row, bytes),
           b = header_content(input, input->header, input->header_bytes);
    if (a == b && memcmp(row, input->header, a) == 0)
        return CB_OK;
    bool same = input_delimited(input);
    if (same) {
        char **names = NULL;
        size_t count = 0;
        CB_TRY(header_split(input, file, 1, row, bytes, &names, &count, err));
        same = count == input->name_count;
        for (size_t i = 0; i < count && same; i++)
            same = strcmp(names[i], input->names[i]) == 0;
        names_free(names, count);
    }
    if (same)
        return CB_OK;
    return cbi_fail(err, CB_EDATA,
                    "%s:1:1: its header is not that of the first input: '%.*s%s' is not '%.*s%s'",
                    input->files[file].path, (int)cbi_min(a, 200), (const char *)row,
                    a > 200 ? "..." : "", (int)cbi_min(b, 200), (const char *)input->header,
                    b > 200 ? "..." : "");
}

cb_status input_header_read(input_reader *reader, size_t *header_bytes, cb_error *err) {
    cbi_input *input = reader->input;
    size_t at = 0, bytes = 0;
    *header_bytes = 0;
    if (!input->header_wanted && (!input_delimited(input) || input->format.columns != 0))
        return CB_OK;
    CB_TRY(input_reader_first_row(reader, !input->header_wanted, &at, &bytes, err));
    if (bytes == 0)
        return CB_OK;
    if (!input->header_wanted) {
        size_t columns = 0;
        uint64_t line = 1 + input->ops->count(reader->head, at, input->format.terminator);
        CB_TRY(
            header_split(input, reader->file, line, reader->head + at, bytes, NULL, &columns, err));
        input->format.columns = input->dialect.columns = columns;
        return CB_OK;
    }
    if (input->header)
        CB_TRY(header_compare(input, reader->file, reader->head, bytes, err));
    else
        CB_TRY(header_keep(input, reader->file, reader->head, bytes, err));
    input_reader_skip(reader, bytes);
    *header_bytes = bytes;
    return CB_OK;
}

void input_header_fini(cbi_input *input) {
    names_free(input->names, input->name_count);
    cbi_free(input->header);
}
