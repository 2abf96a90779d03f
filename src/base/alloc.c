/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/sys.h"

/*
 * What a block really takes is asked of the C library (malloc_usable_size) and not remembered
 * beside it: no header of ours, and what rounding wastes is counted too. One word of chunk header
 * is added, which is what glibc keeps.
 */
enum { CHUNK_HEADER_BYTES = sizeof(size_t) };

static atomic_size_t bytes_held;

static void *count_in(void *ptr) {
    if (CBI_LIKELY(ptr != NULL)) {
        atomic_fetch_add_explicit(&bytes_held, malloc_usable_size(ptr) + CHUNK_HEADER_BYTES,
                                  memory_order_relaxed);
    }
    return ptr;
}

static void count_out(size_t usable) {
    atomic_fetch_sub_explicit(&bytes_held, usable + CHUNK_HEADER_BYTES, memory_order_relaxed);
}

void *cbi_alloc(size_t bytes) {
    if (CBI_FAULT(CBI_FAULT_ALLOC) != 0) {
        return NULL;
    }
    return count_in(malloc(bytes > 0 ? bytes : 1));
}

void *cbi_calloc(size_t count, size_t bytes) {
    if (CBI_FAULT(CBI_FAULT_ALLOC) != 0) {
        return NULL;
    }
    if (count == 0 || bytes == 0) {
        count = bytes = 1;
    }
    return count_in(calloc(count, bytes));
}

void *cbi_realloc(void *ptr, size_t bytes) {
    if (ptr == NULL) {
        return cbi_alloc(bytes);
    }
    if (CBI_FAULT(CBI_FAULT_ALLOC) != 0) {
        return NULL;
    }
    size_t usable = malloc_usable_size(ptr);
    void *moved = realloc(ptr, bytes > 0 ? bytes : 1);
    if (moved == NULL) {
        return NULL; /* the old block stays the caller's */
    }
    count_out(usable);
    return count_in(moved);
}

void cbi_free(void *ptr) {
    if (ptr != NULL) {
        count_out(malloc_usable_size(ptr));
        free(ptr);
    }
}

char *cbi_strdup(const char *s) {
    size_t bytes = strlen(s) + 1;
    char *copy = cbi_alloc(bytes);
    return copy != NULL ? memcpy(copy, s, bytes) : NULL;
}

size_t cbi_alloc_held(void *ptr) {
    return malloc_usable_size(ptr) + CHUNK_HEADER_BYTES;
}

size_t cbi_alloc_bytes(void) {
    return atomic_load_explicit(&bytes_held, memory_order_relaxed);
}
