/* SPDX-License-Identifier: Apache-2.0 */
#include "store/buckets.h"

#include "base/alloc.h"

static_assert(CBI_BUCKETS_FIRST == 1 << 6, "pieces are found by the highest bit");

bool cbi_buckets_init(cbi_buckets *b) {
    *b = (cbi_buckets){.count = CBI_BUCKETS_FIRST};
    b->pieces[0] = cbi_calloc(CBI_BUCKETS_FIRST, sizeof(void *));
    return b->pieces[0] != NULL;
}

void cbi_buckets_fini(cbi_buckets *b) {
    for (size_t i = 0; i < CBI_BUCKETS_PIECES; i++) {
        cbi_free(b->pieces[i]);
    }
    *b = (cbi_buckets){.count = 0};
}

bool cbi_buckets_add(cbi_buckets *b, size_t *from) {
    unsigned high = 63 - (unsigned)__builtin_clzll(b->count), piece = high - 5;
    if (piece >= CBI_BUCKETS_PIECES) {
        return false;
    }
    if (b->pieces[piece] == NULL) { /* large ones are new memory: nothing is cleared */
        b->pieces[piece] = cbi_calloc((size_t)1 << high, sizeof(void *));
    }
    if (b->pieces[piece] == NULL) {
        return false;
    }
    *from = b->count - ((size_t)1 << high);
    b->count++;
    return true;
}
