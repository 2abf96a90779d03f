/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_NUMBERS_H
#define CBI_NUMBERS_H

#include "record/decimal.h"

/*
 * A column of numbers at a time: many fields -> integers at one scale. What is usual (up to 16
 * bytes of [-]digits[.digits] that fit) is read here; anything else is only noticed, and
 * cbi_decimal_parse has the say about that row.
 */

enum { CBI_NUMBERS_SCALE_MAX = 18 };

/** How a column is to be read; made once. */
typedef struct cbi_numbers_want {
    unsigned scale;                            /* of the answers */
    uint64_t limit[CBI_NUMBERS_SCALE_MAX + 1]; /* largest magnitude before a shift by so many */
} cbi_numbers_want;

/** `largest`: magnitude of an answer, at most INT64_MAX. */
void cbi_numbers_want_init(cbi_numbers_want *want, unsigned scale, uint64_t largest);

/**
 * fields[i * stride] for i in [0, count): values[i] is the number at the wanted scale, or 0 with
 * nulls[i] = 1 where there is nothing. odd[i] becomes 1 (and keeps a 1) where the field must be
 * looked at by somebody else. Answers the largest scale of a field that was odd for its scale
 * alone, 0 without one. Bytes from `base` on may be read.
 */
unsigned cbi_numbers_read(const cbi_numbers_want *want, const uint8_t *base, const cbi_span *fields,
                          size_t stride, size_t count, int64_t *values, uint8_t *nulls,
                          uint8_t *odd);

#endif
