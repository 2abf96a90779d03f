/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_ALLOC_H
#define CBI_ALLOC_H

#include "base/base.h"

/**
 * Small objects of the library itself (handles, tables, the state of codecs): the only place that
 * calls malloc. Counted in one process-wide figure, which the ledger charges to the budget. Bulk
 * data never comes from here; it comes in pages and segments (src/memory). Any thread. NULL when
 * the system refuses (or a test says so).
 */
void *cbi_alloc(size_t bytes);
void *cbi_calloc(size_t count, size_t bytes);
void *cbi_realloc(void *ptr, size_t bytes);
void cbi_free(void *ptr); /* NULL is fine */
char *cbi_strdup(const char *s);

/** What one of them takes, the C library's header included. */
size_t cbi_alloc_held(void *ptr);

/** Bytes now held through this file, headers of the C library included as far as they can be known.
 */
size_t cbi_alloc_bytes(void);

#endif
