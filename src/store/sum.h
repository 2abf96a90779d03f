/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SUM_H
#define CBI_SUM_H

#include <stddef.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

/** The bytes of a block as they come: XXH3_64bits_update with what the processor has. */
void cbi_sum_add(XXH3_state_t *sum, const void *bytes, size_t count);
/** sum_avx2.c */
void cbi_sum_add_avx2(XXH3_state_t *sum, const void *bytes, size_t count);

#endif
