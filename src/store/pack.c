/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file for each block costs its making, naming and removing: several times what the bytes of a
 * small one do, and still half of the time at 256 KiB (measured: 0.6 GB/s where the disk
 * takes 1.4). So they share one: slabs of 2048 units, each cut into slots of one size, of which
 * there are eight a doubling. Which slots are taken is known in memory alone; the file ends with
 * the process. The lowest slot is taken first, so what is written again and again are the same
 * pages of the cache, which the system need neither find nor clear.
 *
 * Large blocks have a pack of their own, in units of a page, that is written past the cache. Its
 * slabs get their space ahead, some at once: writes that need not ask for any go side by side, and
 * those to a place that had a block before are the fastest there are (2.5 GB/s). Checksums stay in
 * memory, so that a block of whole pages takes no byte more.
 *
 * A slab whose last block has gone may become one of another size. When many are empty their space
 * goes back to the disk, a slab at a time. One that is not empty keeps its free slots: what a pack
 * takes may be more than what lies in it, by blocks of sizes that nobody stores any more.
 */
#include "store/pack.h"

#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"

enum {
    SLAB_UNITS = 2048,
    SLOTS_MAX = 1024,
    EMPTY_BYTES_MAX = 32 * 1024 * 1024,
    FINE_UNITS = 8,    /* up to here a class for each unit */
    WHOLE_UNITS = 16,  /* from here on slots are whole pages */
    LARGE_UNITS = 512, /* in units of a page: four to a slab at least */
    RESERVE_MAX = 8, /* slabs that get their space at once: half of what there is, up to so many */
    PUNCHED = UINT16_MAX, /* class of an empty slab whose space was given back */
    SLABS_MAX = (1 << CBI_PACK_PLACE_BITS) / SLAB_UNITS - 1
};

static uint64_t slab_bytes(const cbi_pack *p) {
    return (uint64_t)SLAB_UNITS * p->unit;
}

/** Size classes: 1 .. 8 units, then 8 a doubling, in whole pages from 16 units on. */
static uint32_t units_of(const cbi_pack *p, size_t bytes, uint32_t *class) {
    uint32_t units = (uint32_t)((bytes + p->unit - 1) / p->unit);
    uint32_t page = CBI_SYSTEM_PAGE_BYTES / p->unit;
    units = units > 0 ? units : 1;
    if (units <= FINE_UNITS) {
        *class = units - 1;
        return units;
    }
    uint32_t step = 1, first = FINE_UNITS, base = FINE_UNITS;
    while (units > 2 * first) {
        first *= 2;
        step *= 2;
        base += FINE_UNITS;
    }
    uint32_t n = (units - first + step - 1) / step; /* 1 .. 8 */
    *class = base + n - 1;
    units = first + n * step;
    return units < WHOLE_UNITS ? units : (units + page - 1) / page * page;
}

static uint32_t slots_of(uint32_t units) {
    uint32_t slots = SLAB_UNITS / units;
    return slots < SLOTS_MAX ? slots : SLOTS_MAX;
}

size_t cbi_pack_takes(const cbi_pack *p, size_t bytes) {
    uint32_t class = 0;
    return (size_t)units_of(p, bytes, &class) * p->unit;
}

size_t cbi_pack_written(const cbi_pack *p, size_t bytes) {
    uint32_t class = 0;
    bool whole = p->unit == CBI_SYSTEM_PAGE_BYTES || units_of(p, bytes, &class) >= WHOLE_UNITS;
    return whole ? cbi_round_up(bytes, CBI_SYSTEM_PAGE_BYTES) : bytes;
}

size_t cbi_pack_bytes_max(const cbi_pack *p) {
    return p->unit == CBI_PACK_UNIT ? CBI_PACK_BYTES_MAX : (size_t)LARGE_UNITS * p->unit;
}

void cbi_pack_init(cbi_pack *p, uint32_t unit, cbi_home *home) {
    *p = (cbi_pack){.fd = -1, .unit = unit, .home = home};
    cbi_lock_init(&p->lock, CBI_RANK_PACK);
}

static int64_t held(const cbi_pack *p) {
    return (int64_t)((p->slabs != NULL ? cbi_alloc_held(p->slabs) : 0) +
                     (p->sums != NULL ? cbi_alloc_held(p->sums) : 0));
}

void cbi_pack_fini(cbi_pack *p) {
    if (p->home == NULL) {
        return;
    }
    if (p->fd >= 0) {
        (void)cbi_sys_close(p->fd);
    }
    atomic_fetch_sub_explicit(&p->home->overhead, held(p), memory_order_relaxed);
    cbi_free(p->slabs);
    cbi_free(p->sums);
    *p = (cbi_pack){.fd = -1};
}

/* ---- lists of slabs; all [locked] ---- */

static void link_slab(cbi_pack *p, uint32_t *list, uint32_t number) {
    cbi_pack_slab *s = &p->slabs[number - 1];
    s->prev = 0;
    s->next = *list;
    if (*list != 0) {
        p->slabs[*list - 1].prev = number;
    }
    *list = number;
}

static void unlink_slab(cbi_pack *p, uint32_t *list, uint32_t number) {
    const cbi_pack_slab *s = &p->slabs[number - 1];
    *(s->prev != 0 ? &p->slabs[s->prev - 1].next : list) = s->next;
    if (s->next != 0) {
        p->slabs[s->next - 1].prev = s->prev;
    }
}

static bool grow(cbi_pack *p) {
    if (p->slab_count == p->slab_room) {
        uint32_t room = p->slab_room > 0 ? 2 * p->slab_room : 16;
        int64_t before = held(p);
        cbi_pack_slab *more = cbi_realloc(p->slabs, room * sizeof *more);
        p->slabs = more != NULL ? more : p->slabs;
        bool fits = more != NULL;
        if (fits && p->unit == CBI_SYSTEM_PAGE_BYTES) {
            uint64_t(*sums)[CBI_PACK_SUMS] = cbi_realloc(p->sums, room * sizeof *sums);
            p->sums = sums != NULL ? sums : p->sums;
            fits = sums != NULL;
        }
        atomic_fetch_add_explicit(&p->home->overhead, held(p) - before, memory_order_relaxed);
        if (!fits) {
            return false;
        }
        p->slab_room = room;
    }
    return p->slab_count < SLABS_MAX;
}

/** A slab for that class, with all its slots free; 0: there is none. */
static uint32_t new_slab(cbi_pack *p, uint32_t class, uint32_t *fresh) {
    uint32_t number = p->empty;
    if (number != 0) {
        unlink_slab(p, &p->empty, number);
        p->empty_count--;
        *fresh = p->slabs[number - 1].class == PUNCHED;
    } else {
        if (!grow(p)) {
            return 0;
        }
        number = ++p->slab_count;
        if (number > p->reserved) {
            *fresh = (uint32_t)cbi_min(p->reserved / 2 + 1, RESERVE_MAX);
            p->reserved += *fresh;
        }
    }
    p->slabs[number - 1] = (cbi_pack_slab){.class = (uint16_t)class};
    link_slab(p, &p->with_room[class], number);
    return number;
}

static uint32_t first_free(const cbi_pack_slab *s) {
    uint32_t word = 0;
    while (s->taken[word] == UINT64_MAX) {
        word++;
    }
    return 64 * word + (uint32_t)__builtin_ctzll(~s->taken[word]);
}

/* ---- places ---- */

uint32_t cbi_pack_take(cbi_pack *p, size_t bytes, uint32_t *fresh) {
    uint32_t class = 0, place = 0, units = units_of(p, bytes, &class);
    cb_assert(bytes <= cbi_pack_bytes_max(p) && class < CBI_PACK_CLASSES);
    *fresh = 0;
    cbi_lock_take(&p->lock);
    uint32_t number = p->with_room[class];
    number = number != 0 ? number : new_slab(p, class, fresh);
    if (number != 0) {
        cbi_pack_slab *s = &p->slabs[number - 1];
        uint32_t slot = first_free(s);
        s->taken[slot / 64] |= UINT64_C(1) << slot % 64;
        if (++s->used == slots_of(units)) {
            unlink_slab(p, &p->with_room[class], number);
        }
        place = (number - 1) * SLAB_UNITS + slot * units + 1;
    }
    cbi_lock_give(&p->lock);
    return place;
}

/** [locked] Takes an empty slab out when there are many; 0: there are not. */
static uint32_t take_surplus(cbi_pack *p) {
    uint32_t number = p->empty;
    if (p->empty_count <= EMPTY_BYTES_MAX / slab_bytes(p)) {
        return 0;
    }
    unlink_slab(p, &p->empty, number);
    p->empty_count--;
    return number;
}

void cbi_pack_give(cbi_pack *p, uint32_t place, size_t bytes) {
    uint32_t class = 0, units = units_of(p, bytes, &class);
    uint32_t number = (place - 1) / SLAB_UNITS + 1, slot = (place - 1) % SLAB_UNITS / units;
    cbi_lock_take(&p->lock);
    cbi_pack_slab *s = &p->slabs[number - 1];
    uint64_t bit = UINT64_C(1) << slot % 64;
    cb_assert(s->class == class && (s->taken[slot / 64] & bit) != 0);
    s->taken[slot / 64] &= ~bit;
    if (s->used-- == slots_of(units)) {
        link_slab(p, &p->with_room[class], number);
    }
    uint32_t surplus = 0;
    if (s->used == 0) {
        unlink_slab(p, &p->with_room[class], number);
        link_slab(p, &p->empty, number);
        p->empty_count++;
        surplus = take_surplus(p);
    }
    cbi_lock_give(&p->lock);
    if (surplus != 0) { /* nobody's meanwhile; a file system that cannot keeps the space */
        (void)cbi_sys_fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                (surplus - 1) * slab_bytes(p), slab_bytes(p));
        cbi_lock_take(&p->lock);
        p->slabs[surplus - 1].class = PUNCHED;
        link_slab(p, &p->empty, surplus);
        p->empty_count++;
        cbi_lock_give(&p->lock);
    }
}

void cbi_pack_reserve(const cbi_pack *p, uint32_t place, uint32_t slabs) {
    (void)cbi_sys_fallocate(p->fd, 0, (place - 1) / SLAB_UNITS * slab_bytes(p),
                            slabs * slab_bytes(p));
}

/* ---- checksums ---- */

/** [locked] The first one of a place. */
static uint64_t *sums_at(cbi_pack *p, uint32_t place, size_t bytes, uint32_t count) {
    uint32_t class = 0, units = units_of(p, bytes, &class);
    uint32_t slot = (place - 1) % SLAB_UNITS / units;
    uint32_t each = (uint32_t)(((size_t)units * p->unit + CBI_PACK_SUMMED - 1) / CBI_PACK_SUMMED);
    cb_assert(count <= each && (slot + 1) * each <= CBI_PACK_SUMS);
    return p->sums[(place - 1) / SLAB_UNITS] + (size_t)slot * each;
}

void cbi_pack_note_sums(cbi_pack *p, uint32_t place, size_t bytes, const uint64_t *sums,
                        uint32_t count) {
    cbi_lock_take(&p->lock);
    memcpy(sums_at(p, place, bytes, count), sums, count * sizeof *sums);
    cbi_lock_give(&p->lock);
}

void cbi_pack_sums(cbi_pack *p, uint32_t place, size_t bytes, uint32_t first, uint64_t *sums,
                   uint32_t count) {
    cbi_lock_take(&p->lock);
    memcpy(sums, sums_at(p, place, bytes, first + count) + first, count * sizeof *sums);
    cbi_lock_give(&p->lock);
}
