/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sizes by sample (Spark: SizeTracker, SizeTrackingVector, SizeEstimator), for records whose size
 * is dear to find out. To the letter, so that what is reserved for a block step by step, and what
 * it counts for in the end, is what Spark would have it be for objects of these sizes:
 *
 * The records stand in an array of 64 places, or twice as many as often as they do not suffice. A
 * sample is the size of all that are in it; it is taken when the array has grown, and then when
 * there have been a tenth more additions since that. Between samples, size grows by what it grew by
 * for each addition between the last two, if it grew.
 *
 * Where the array has more than 400 places a sample is an estimate itself. Places are drawn by
 * java.util.Random(42), two rounds of 100, none twice; one that is empty counts nothing. The larger
 * round counts once and the smaller as often as a round goes into the array, less one. At the end
 * the same is done with an array of exactly as many places as records.
 *
 * The draw depends on nothing but the places, so a record has to be asked once at most until the
 * array grows: when it comes, if it was drawn. Of a million records three thousand are asked.
 */
#include "store/sizes.h"

#include <stdlib.h>

enum { PLACES_FIRST = 64 };

#define PLACES_MAX ((uint64_t)INT32_MAX)

/* ---- java.util.Random ---- */

#define RANDOM_FACTOR UINT64_C(0x5DEECE66D)
#define RANDOM_MASK ((UINT64_C(1) << 48) - 1)

static int32_t random_31(uint64_t *seed) {
    *seed = (*seed * RANDOM_FACTOR + 0xB) & RANDOM_MASK;
    return (int32_t)(*seed >> 17);
}

static uint32_t random_below(uint64_t *seed, uint32_t bound) {
    uint32_t bits = (uint32_t)random_31(seed);
    if ((bound & (bound - 1)) == 0) {
        return (uint32_t)(((uint64_t)bound * bits) >> 31);
    }
    uint32_t value = bits % bound;
    while (bits - value + (bound - 1) > INT32_MAX) { /* of the last, incomplete interval */
        bits = (uint32_t)random_31(seed);
        value = bits % bound;
    }
    return value;
}

/* ---- a draw ---- */

static int by_number(const void *a, const void *b) {
    uint32_t x = 0, y = 0;
    __builtin_memcpy(&x, a, sizeof x); /* the first of its members */
    __builtin_memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

static void draw_from(cbi_sizes_draw *d, uint64_t places) {
    uint64_t seed = (42 ^ RANDOM_FACTOR) & RANDOM_MASK;
    *d = (cbi_sizes_draw){.places = cbi_min(places, PLACES_MAX)};
    if (places <= CBI_SIZES_ALL_MAX) {
        return;
    }
    for (uint32_t i = 0; i < 2 * CBI_SIZES_ROUND; i++) {
        uint32_t number = 0, before = 0;
        do {
            number = random_below(&seed, (uint32_t)d->places);
            for (before = 0; before < i && d->drawn[before].number != number; before++) {
            }
        } while (before < i);
        d->drawn[i].number = number;
        d->drawn[i].round = i / CBI_SIZES_ROUND;
    }
    qsort(d->drawn, 2 * CBI_SIZES_ROUND, sizeof d->drawn[0], by_number);
}

/** Asks those that are among the first `count` and were not asked yet. */
static void ask_up_to(const cbi_sizes *s, cbi_sizes_draw *d, uint64_t count) {
    if (d->places <= CBI_SIZES_ALL_MAX) {
        for (; d->next < count; d->next++) {
            d->said[0] += s->ask(s->ctx, d->next);
        }
        return;
    }
    for (; d->next < 2 * CBI_SIZES_ROUND && d->drawn[d->next].number < count; d->next++) {
        d->said[d->drawn[d->next].round] += s->ask(s->ctx, d->drawn[d->next].number);
    }
}

static uint64_t size_of(const cbi_sizes_draw *d) {
    if (d->places <= CBI_SIZES_ALL_MAX) {
        return d->said[0];
    }
    uint64_t least = d->said[0] < d->said[1] ? d->said[0] : d->said[1];
    uint64_t most = d->said[0] + d->said[1] - least;
    return most + least * ((d->places - CBI_SIZES_ROUND) / CBI_SIZES_ROUND);
}

/* ---- samples ---- */

static void take_sample(cbi_sizes *s, bool first) {
    uint64_t bytes = size_of(&s->draw);
    double more = first ? 0 : (double)bytes - (double)s->sampled_bytes;
    double updates = first ? 1 : (double)(s->updates - s->sampled_at);
    s->bytes_per_update = more > 0 ? more / updates : 0;
    s->sampled_bytes = bytes;
    s->sampled_at = s->updates;
    double next = (double)s->updates * 1.1;
    s->next_sample = (uint64_t)next;
    s->next_sample += (double)s->next_sample < next;
}

static void make_room(cbi_sizes *s, uint64_t places) {
    if (places <= CBI_SIZES_ALL_MAX && s->count > 0) {
        s->draw.places = places; /* all were asked, and none was drawn */
    } else {
        draw_from(&s->draw, places);
    }
    ask_up_to(s, &s->draw, s->count);
    s->updates = 1;
    take_sample(s, true);
}

void cbi_sizes_init(cbi_sizes *s, cbi_sizes_ask_fn ask, void *ctx) {
    *s = (cbi_sizes){.ask = ask, .ctx = ctx};
    make_room(s, PLACES_FIRST);
}

void cbi_sizes_add(cbi_sizes *s) {
    if (s->count == s->draw.places && s->count < PLACES_MAX) {
        make_room(s, 2 * s->draw.places);
    }
    s->count++;
    ask_up_to(s, &s->draw, s->count);
    s->updates++;
    if (s->updates == s->next_sample) {
        take_sample(s, false);
    }
}

uint64_t cbi_sizes_estimate(const cbi_sizes *s) {
    double more = s->bytes_per_update * (double)(s->updates - s->sampled_at);
    return (uint64_t)((double)s->sampled_bytes + more);
}

uint64_t cbi_sizes_final(cbi_sizes *s) {
    if (s->count <= CBI_SIZES_ALL_MAX && s->draw.places <= CBI_SIZES_ALL_MAX) {
        return size_of(&s->draw);
    }
    draw_from(&s->draw, s->count);
    ask_up_to(s, &s->draw, s->count);
    return size_of(&s->draw);
}
