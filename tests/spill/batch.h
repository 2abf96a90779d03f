/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_TEST_BATCH_H
#define CARBIDE_TEST_BATCH_H

/* Batches of segments with contents that can be told apart, and calls that wait for their answer.
 */

#include <stdlib.h>
#include <string.h>

#include "base/sys.h"
#include "spill/spill.h"
#include "support/test.h"

enum { TEST_SEGMENT_BYTES = 16 * 1024, TEST_BATCH_MAX = 96 };

typedef struct batch {
    cbi_spill_segment segments[TEST_BATCH_MAX];
    uint32_t count;
} batch;

/** Segments of `capacity` bytes each, one by one in memory. */
static inline batch batch_make(uint32_t count, uint32_t capacity) {
    batch b = {.count = count};
    assert_true(count <= TEST_BATCH_MAX);
    for (uint32_t i = 0; i < count; i++) {
        void *base = NULL;
        assert_int_equal(posix_memalign(&base, CBI_SPILL_ALIGN, capacity), 0);
        memset(base, 0xa5, capacity);
        b.segments[i] = (cbi_spill_segment){base, capacity, 0};
    }
    return b;
}

static inline void batch_free(batch *b) {
    for (uint32_t i = 0; i < b->count; i++) {
        free(b->segments[i].base);
    }
    b->count = 0;
}

static inline uint8_t *batch_payload(const batch *b, uint32_t i) {
    return b->segments[i].base + CBI_FRAME_HEADER_BYTES;
}

/** Eight of a letter and eight of another, and so on: lz4 and delta halve them and more. */
static inline void batch_fill(batch *b, uint32_t i, uint32_t used, uint64_t seed) {
    b->segments[i].used = used;
    uint8_t *payload = batch_payload(b, i);
    for (uint32_t k = 0; k < used; k++) {
        if (k % 16 == 0) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
        }
        payload[k] = (uint8_t)("0123456789abcdef"[(seed >> (k / 8 % 2 * 4 + 32)) & 15]);
    }
}

/** Bytes that do not compress. */
static inline void batch_fill_noise(batch *b, uint32_t i, uint32_t used, uint64_t seed) {
    b->segments[i].used = used;
    uint8_t *payload = batch_payload(b, i);
    for (uint32_t k = 0; k < used; k++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        payload[k] = (uint8_t)(seed >> 56);
    }
}

static inline uint32_t batch_room(const batch *b, uint32_t i) {
    return b->segments[i].capacity - CBI_FRAME_HEADER_BYTES;
}

static inline void batch_fill_all(batch *b, uint64_t seed) {
    for (uint32_t i = 0; i < b->count; i++) {
        batch_fill(b, i, batch_room(b, i), seed + i);
    }
}

static inline void assert_same_payload(const batch *a, const batch *b) {
    assert_int_equal(a->count, b->count);
    for (uint32_t i = 0; i < a->count; i++) {
        assert_int_equal(a->segments[i].used, b->segments[i].used);
        assert_memory_equal(batch_payload(a, i), batch_payload(b, i), a->segments[i].used);
    }
}

/** One answer to wait for. */
typedef struct answer {
    cbi_mutex lock;
    cbi_cond arrived;
    bool done;
    cb_status status;
    cbi_extent extent;
    cb_error err;
} answer;

static inline void answer_init(answer *a) {
    memset(a, 0, sizeof *a);
    cbi_mutex_init(&a->lock, CBI_RANK_INNER);
    cbi_cond_init(&a->arrived);
}

static inline void answer_done(void *ctx, cb_status status, const cbi_extent *extent,
                               const cb_error *err) {
    answer *a = ctx;
    cbi_mutex_lock(&a->lock);
    a->done = true;
    a->status = status;
    if (extent != NULL) {
        a->extent = *extent;
    }
    if (err != NULL) {
        a->err = *err;
    }
    cbi_cond_signal(&a->arrived);
    cbi_mutex_unlock(&a->lock);
}

static inline cb_status answer_wait(answer *a) {
    cbi_mutex_lock(&a->lock);
    while (!a->done) {
        cbi_cond_wait(&a->arrived, &a->lock);
    }
    cbi_mutex_unlock(&a->lock);
    cbi_cond_fini(&a->arrived);
    cbi_mutex_fini(&a->lock);
    return a->status;
}

static inline cb_status write_and_wait(cbi_spill *spill, uint32_t owner, uint32_t sequence,
                                       const batch *b, cbi_extent *extent, cb_error *err) {
    answer a;
    answer_init(&a);
    cb_status status =
        cbi_spill_write(spill, owner, sequence, b->segments, b->count, answer_done, &a, err);
    if (status != CB_OK) {
        return status;
    }
    status = answer_wait(&a);
    if (status == CB_OK) {
        *extent = a.extent;
    } else if (err != NULL) {
        *err = a.err;
    }
    return status;
}

static inline cb_status read_and_wait(cbi_spill *spill, uint32_t owner, uint32_t sequence,
                                      const cbi_extent *extent, batch *b, cb_error *err) {
    answer a;
    answer_init(&a);
    cb_status status =
        cbi_spill_read(spill, owner, sequence, extent, b->segments, b->count, answer_done, &a, err);
    if (status != CB_OK) {
        return status;
    }
    status = answer_wait(&a);
    if (status != CB_OK && err != NULL) {
        *err = a.err;
    }
    return status;
}

/** A spill with its staging memory. */
typedef struct test_spill {
    cbi_spill *spill;
    void *staging;
} test_spill;

static inline cb_status test_spill_open(test_spill *t, cbi_spill_options options, cb_error *err) {
    *t = (test_spill){NULL, NULL};
    options.io_threads = options.io_threads == 0 ? 2 : options.io_threads;
    options.segment_bytes = options.segment_bytes == 0 ? TEST_SEGMENT_BYTES : options.segment_bytes;
    options.staging_bytes =
        cbi_spill_staging_bytes(options.io_threads, options.segment_bytes, options.codec);
    options.allow_memory_fs = true; /* wherever the tests are run */
    if (options.staging_bytes > 0) {
        assert_int_equal(posix_memalign(&t->staging, CBI_SPILL_ALIGN, options.staging_bytes), 0);
        options.staging = t->staging;
    }
    cb_status status = cbi_spill_open(&options, &t->spill, err);
    if (status != CB_OK) {
        free(t->staging);
        t->staging = NULL;
    }
    return status;
}

static inline void test_spill_close(test_spill *t) {
    cbi_spill_close(t->spill);
    free(t->staging);
    *t = (test_spill){NULL, NULL};
}

#endif
