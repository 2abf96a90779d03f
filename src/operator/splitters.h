/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SPLITTERS_H
#define CBI_SPLITTERS_H

#include "operator/order.h"

/*
 * Key ranges of about equal weight, from a sample of keys. A key that fills more than a whole range
 * by itself gets a range of its own, where nothing is left to be sorted.
 */
typedef struct cbi_splitters cbi_splitters;

enum { CBI_SAMPLE_KEY_MAX = 256 }; /* longer sample keys are cut: a cut key is still a border */

/** The sample: filled by cbi_sample_add, memory from the caller. */
typedef struct cbi_sample {
    cbi_entry *entries; /* grows from the front of the memory */
    uint8_t *keys;      /* stored rows without a row, from the back */
    uint8_t *memory;
    size_t memory_bytes, count, key_bytes;
} cbi_sample;
void cbi_sample_init(cbi_sample *sample, uint8_t *memory, size_t bytes);
/** false: full. */
bool cbi_sample_add(cbi_sample *sample, const uint8_t *key, size_t bytes, bool inverted);

/** Sorts the sample and chooses at most `ranges` ranges. `inverted`: keys are in descending order.
 */
cb_status cbi_splitters_create(cbi_sample *sample, uint32_t ranges, bool inverted,
                               cbi_splitters **splitters, cb_error *err);
void cbi_splitters_destroy(cbi_splitters *splitters);
uint32_t cbi_splitters_ranges(const cbi_splitters *splitters);
/** All keys of this range are equal. */
bool cbi_splitters_single(const cbi_splitters *splitters, uint32_t range);
/** The range of a key. Any thread. */
uint32_t cbi_splitters_find(const cbi_splitters *splitters, const uint8_t *key, size_t bytes);

#endif
