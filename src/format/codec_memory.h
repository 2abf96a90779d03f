/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/alloc.h"

/* The memory of zlib, zstd and lz4: their allocation callbacks (`opaque` is not used) over ours, so
 * that it is counted and can be made to fail. */

static inline void *cbi_codec_alloc(void *opaque, size_t bytes) {
    (void)opaque;
    return cbi_alloc(bytes);
}
static inline void *cbi_codec_calloc(void *opaque, size_t bytes) {
    (void)opaque;
    return cbi_calloc(1, bytes);
}
static inline void *cbi_codec_calloc_items(void *opaque, unsigned items, unsigned bytes) {
    (void)opaque;
    return cbi_calloc(items, bytes);
}
static inline void cbi_codec_free(void *opaque, void *ptr) {
    (void)opaque;
    cbi_free(ptr);
}
