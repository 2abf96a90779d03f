/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SIZES_H
#define CBI_SIZES_H

#include "base/base.h"

/*
 * How large many records are together, of which only some are asked. See the essay in sizes.c.
 */

enum {
    CBI_SIZES_ALL_MAX = 400, /* up to so many places all are asked; */
    CBI_SIZES_ROUND = 100    /* else two rounds of so many */
};

/** The size of record `number`. */
typedef uint64_t (*cbi_sizes_ask_fn)(void *ctx, uint64_t number);

/** Which records are asked, and what they said. */
typedef struct cbi_sizes_draw {
    uint64_t places; /* that were drawn from */
    struct {
        uint32_t number, round; /* by number */
    } drawn[2 * CBI_SIZES_ROUND];
    uint32_t next;    /* the first of these that is not there yet */
    uint64_t said[2]; /* of each round; of all: said[0] */
} cbi_sizes_draw;

typedef struct cbi_sizes {
    cbi_sizes_ask_fn ask;
    void *ctx;
    uint64_t count;
    uint64_t updates, next_sample; /* since the last time that room was made */
    uint64_t sampled_at, sampled_bytes;
    double bytes_per_update;
    cbi_sizes_draw draw;
} cbi_sizes;

/** `ask` is called for records that were added, and the one that is. */
void cbi_sizes_init(cbi_sizes *sizes, cbi_sizes_ask_fn ask, void *ctx);
/** One more, which can be asked from now on. */
void cbi_sizes_add(cbi_sizes *sizes);
/** What they take, about. */
uint64_t cbi_sizes_estimate(const cbi_sizes *sizes);
/** What they take, when no more will come. */
uint64_t cbi_sizes_final(cbi_sizes *sizes);

#endif
