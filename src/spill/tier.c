/* SPDX-License-Identifier: Apache-2.0 */
#include "spill/file.h"

/*
 * Memory that a plan has left over, as a second place for what is spilled.
 *
 * Rows leave because a plan keeps its working memory small (operator/sort_plan.c says why that is
 * faster), and they leave packed: two or three of them take the memory of one. So what a budget has
 * beyond the plan holds more of what was spilled than it would of rows.
 *
 * But memory is not free, either: a page that is touched for the first time has to be found, by the
 * system and often by a host below it, while a disk that keeps up works for nothing. 2 GB at 1 GiB
 * took 3.5 to 5.6 s with rows in all the memory, 3.0 to 4.4 with all that leaves in the tier, and
 * 3.0 to 3.3 with what the disk could not take at that moment. So the tier is for when the disk
 * does not follow: when most of the I/O threads wait for it. A slow disk sees little, a full one
 * nothing any more.
 *
 * It looks like one more file to everyone but the last step of a transfer. Who has use for the
 * memory (a giant row) gets it back: all of it is written to one stretch of a real file then, and
 * the places that were given out are translated from that moment on. Frames say where they were
 * first put, which is the place that their reader knows, so nothing in them changes.
 *
 * Whoever copies holds a pin and no lock; the one who writes it out waits until there is none.
 */

static uint32_t tier_index(const cbi_places *places) {
    return places->folder_count * places->groups;
}

bool cbi_tier_is(const cbi_places *places, uint64_t place) {
    return cbi_place_file(place) == tier_index(places);
}

bool cbi_tier_take(cbi_places *places, uint64_t blocks, uint64_t *place) {
    cbi_tier *tier = &places->tier;
    cbi_spill_file *file = &places->files[tier_index(places)];
    if (tier->memory == NULL || tier->leaving || tier->blocks - file->tail_blocks < blocks) {
        return false;
    }
    *place = cbi_place_make(tier_index(places), file->tail_blocks, false);
    file->tail_blocks += blocks;
    file->live_blocks += blocks;
    return true;
}

uint8_t *cbi_places_pin(cbi_places *places, uint64_t place) {
    if (!cbi_tier_is(places, place)) {
        return NULL;
    }
    uint8_t *memory = NULL;
    cbi_mutex_lock(&places->lock);
    while (places->tier.leaving) {
        cbi_cond_wait(&places->idle, &places->lock);
    }
    if (places->tier.memory != NULL) {
        memory = places->tier.memory + cbi_place_block(place) * CBI_SPILL_ALIGN;
        places->tier.users++;
    }
    cbi_mutex_unlock(&places->lock);
    return memory;
}

void cbi_places_unpin(cbi_places *places) {
    cbi_mutex_lock(&places->lock);
    places->tier.users--;
    if (places->tier.leaving && places->tier.users == 0) {
        cbi_cond_broadcast(&places->idle);
    }
    cbi_mutex_unlock(&places->lock);
}

uint64_t cbi_places_where(cbi_places *places, uint64_t place) {
    if (!cbi_tier_is(places, place)) {
        return place;
    }
    cbi_mutex_lock(&places->lock);
    uint64_t moved = places->tier.moved;
    cbi_mutex_unlock(&places->lock);
    return moved + cbi_place_block(place);
}

bool cbi_tier_leave(cbi_places *places, uint64_t *blocks) {
    cbi_tier *tier = &places->tier;
    cbi_mutex_lock(&places->lock);
    while (tier->leaving) {
        cbi_cond_wait(&places->idle, &places->lock);
    }
    bool there = tier->memory != NULL;
    tier->leaving = there;
    while (there && tier->users > 0) {
        cbi_cond_wait(&places->idle, &places->lock);
    }
    *blocks = places->files[tier_index(places)].tail_blocks;
    cbi_mutex_unlock(&places->lock);
    return there;
}

static void end_leaving(cbi_places *places) {
    places->tier.leaving = false;
    cbi_cond_broadcast(&places->idle);
}

void cbi_tier_left(cbi_places *places, uint64_t moved, uint64_t blocks) {
    cbi_mutex_lock(&places->lock);
    places->tier.memory = NULL;
    places->tier.moved = moved;
    places->tier.moved_blocks = blocks;
    end_leaving(places);
    cbi_mutex_unlock(&places->lock);
}

void cbi_tier_stayed(cbi_places *places) {
    cbi_mutex_lock(&places->lock);
    end_leaving(places);
    cbi_mutex_unlock(&places->lock);
}
