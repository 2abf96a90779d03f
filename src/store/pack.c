/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file for each small block costs its making, naming and removing, several times what its bytes
 * do. So they share one: slabs of 2 MiB, each cut into slots of one size, of which there are eight
 * a doubling. Which slots are taken is known in memory alone; the file ends with the process. The
 * lowest slot is taken first, so what is written again and again are the same pages of the cache,
 * which the system need neither find nor clear.
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
    EMPTY_MAX = 16,
    FINE_UNITS = 8,   /* up to here a class for each unit */
    WHOLE_UNITS = 16, /* from here on slots are whole pages */
    PAGE_UNITS = CBI_SYSTEM_PAGE_BYTES / CBI_PACK_UNIT,
    SLABS_MAX = (1 << CBI_PACK_PLACE_BITS) / SLAB_UNITS - 1
};

/** Size classes: 1 .. 8 units, then 8 a doubling, in whole pages from 16 units on. */
static uint32_t units_of(size_t bytes, uint32_t *class) {
    uint32_t units = (uint32_t)((bytes + CBI_PACK_UNIT - 1) / CBI_PACK_UNIT);
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
    return units < WHOLE_UNITS ? units : (units + PAGE_UNITS - 1) / PAGE_UNITS * PAGE_UNITS;
}

static uint32_t slots_of(uint32_t units) {
    uint32_t slots = SLAB_UNITS / units;
    return slots < SLOTS_MAX ? slots : SLOTS_MAX;
}

size_t cbi_pack_takes(size_t bytes) {
    uint32_t class = 0;
    return (size_t)units_of(bytes, &class) * CBI_PACK_UNIT;
}

size_t cbi_pack_written(size_t bytes) {
    uint32_t class = 0;
    return units_of(bytes, &class) < WHOLE_UNITS ? bytes
                                                 : cbi_round_up(bytes, CBI_SYSTEM_PAGE_BYTES);
}

void cbi_pack_init(cbi_pack *p, cbi_home *home) {
    *p = (cbi_pack){.fd = -1, .home = home};
}

void cbi_pack_fini(cbi_pack *p) {
    if (p->home == NULL) {
        return;
    }
    if (p->fd >= 0) {
        (void)cbi_sys_close(p->fd);
    }
    int64_t held = p->slabs != NULL ? (int64_t)cbi_alloc_held(p->slabs) : 0;
    atomic_fetch_sub_explicit(&p->home->overhead, held, memory_order_relaxed);
    cbi_free(p->slabs);
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
        int64_t before = p->slabs != NULL ? (int64_t)cbi_alloc_held(p->slabs) : 0;
        cbi_pack_slab *more = cbi_realloc(p->slabs, room * sizeof *more);
        if (more == NULL) {
            return false;
        }
        atomic_fetch_add_explicit(&p->home->overhead, (int64_t)cbi_alloc_held(more) - before,
                                  memory_order_relaxed);
        p->slabs = more;
        p->slab_room = room;
    }
    return p->slab_count < SLABS_MAX;
}

/** A slab for that class, with all its slots free; 0: there is none. */
static uint32_t new_slab(cbi_pack *p, uint32_t class) {
    uint32_t number = p->empty;
    if (number != 0) {
        unlink_slab(p, &p->empty, number);
        p->empty_count--;
    } else {
        if (!grow(p)) {
            return 0;
        }
        number = ++p->slab_count;
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

uint32_t cbi_pack_take(cbi_pack *p, size_t bytes) {
    uint32_t class = 0, place = 0, units = units_of(bytes, &class);
    cb_assert(bytes <= CBI_PACK_BYTES_MAX && class < CBI_PACK_CLASSES);
    cbi_lock_take(&p->lock);
    uint32_t number = p->with_room[class];
    number = number != 0 ? number : new_slab(p, class);
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
    if (p->empty_count <= EMPTY_MAX) {
        return 0;
    }
    unlink_slab(p, &p->empty, number);
    p->empty_count--;
    return number;
}

void cbi_pack_give(cbi_pack *p, uint32_t place, size_t bytes) {
    uint32_t class = 0, units = units_of(bytes, &class);
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
        const uint64_t slab_bytes = (uint64_t)SLAB_UNITS * CBI_PACK_UNIT;
        (void)cbi_sys_fallocate(p->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                (surplus - 1) * slab_bytes, slab_bytes);
        cbi_lock_take(&p->lock);
        link_slab(p, &p->empty, surplus);
        p->empty_count++;
        cbi_lock_give(&p->lock);
    }
}
