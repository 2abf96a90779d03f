/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SCAN_REST_H
#define CBI_SCAN_REST_H

#include "format/simd.h"

/** Lines one at a time with memchr: the end of a chunk and small capacities, for all levels. */
cbi_scan_stop cbi_scan_lines_rest(const uint8_t *base, size_t bytes, uint8_t terminator, size_t *at,
                                  cbi_rows *rows);

#endif
