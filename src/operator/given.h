/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_GIVEN_H
#define CBI_GIVEN_H

#include "base/base.h"
#include "carbide/job.h"

/** An input that is a caller's iterator: its rows as the bytes of a file. */
typedef struct cbi_given {
    cb_row_read_fn read; /* NULL: there is none */
    void *ctx;
    const uint8_t *at; /* what is left of the row */
    size_t bytes;
    bool ending; /* the row's end is still to be given */
    bool terminated;
    uint8_t terminator;
} cbi_given;

/** As `format` has it: rows of fixed size have no ends. */
void cbi_given_init(cbi_given *given, cb_row_read_fn read, void *ctx, cb_format_kind format,
                    bool zero_terminated);
/** For cbi_input_options.read; ctx is the cbi_given. */
cb_status cbi_given_read(void *ctx, uint8_t *buf, size_t bytes, size_t *got, cb_error *err);

#endif
