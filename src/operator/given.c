/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/given.h"

#include <string.h>

void cbi_given_init(cbi_given *given, cb_row_read_fn read, void *ctx, cb_format_kind format,
                    bool zero_terminated) {
    *given = (cbi_given){.read = read,
                         .ctx = ctx,
                         .terminated = format != CB_FORMAT_FIXED,
                         .terminator = zero_terminated ? 0 : '\n'};
}

cb_status cbi_given_read(void *ctx, uint8_t *buf, size_t bytes, size_t *got, cb_error *err) {
    cbi_given *given = ctx;
    size_t n = 0;
    while (n < bytes) {
        if (given->bytes > 0) {
            size_t part = cbi_min(given->bytes, bytes - n);
            memcpy(buf + n, given->at, part);
            given->at += part;
            given->bytes -= part;
            n += part;
            continue;
        }
        if (given->ending) {
            buf[n++] = given->terminator;
            given->ending = false;
            continue;
        }
        const void *row = NULL;
        bool more = false;
        size_t row_bytes = 0;
        CB_TRY(given->read(given->ctx, &row, &row_bytes, &more, err));
        if (!more)
            break;
        given->at = row;
        given->bytes = row_bytes;
        given->ending = given->terminated;
    }
    *got = n;
    return CB_OK;
}
