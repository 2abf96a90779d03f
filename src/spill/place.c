/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

#include "spill/file.h"

/*
 * Where extents lie.
 *
 * Space is promised by the file system before it is written to (fallocate), so that a full disk is
 * found out at one clean point. The steps grow with what is taken already, from 16 to 64 MiB, so
 * that files lie in few, long pieces: that is what giving them back costs by.
 *
 * Giving space back is what takes thought. Where the disk is mounted with `discard` it costs no CPU
 * but waits for the disk, 10 ms and more a piece: for 1 GB 0.2 s with steps of 64 MiB, 0.3 to 0.8 s
 * with steps of 8 MiB, the same for close, truncate and punched holes. Punching a hole also locks
 * the file: all direct transfers on it wait (reading 2 GB and punching behind it: 0.9 GB/s, else
 * 1.3). And while the disk is what everybody waits for, doing it earlier only moves the time.
 * Hence:
 *
 * Nothing is punched. A freed place becomes a hole in a small table and is used again for a batch
 * of its size, which is what merge passes need to take no more space than their input.
 *
 * Extents of neighbouring owners (32 ranges or runs) share a file, of up to 32 in a folder. Ranges
 * are worked off in order, so one file after the other dies as a whole while the work goes on
 * elsewhere, and an I/O thread that has nothing to do at that moment truncates it.
 *
 * What is left at the end is closed by all I/O threads, a file each.
 */

enum {
    BLOCKS_PER_MIB = 256,
    STEP_MIN_BLOCKS = 16 * BLOCKS_PER_MIB,
    STEP_MAX_BLOCKS = 64 * BLOCKS_PER_MIB,
    EMPTY_MIN_BLOCKS = 8 * BLOCKS_PER_MIB /* below that it is not worth a system call */
};

static uint32_t file_count(const cbi_places *places) {
    return places->folder_count * places->groups;
}

static void wait_idle(cbi_places *places, const cbi_spill_file *file) {
    while (file->busy) {
        cbi_cond_wait(&places->idle, &places->lock);
    }
}

static void set_idle(cbi_places *places, cbi_spill_file *file) {
    file->busy = false;
    cbi_cond_broadcast(&places->idle);
}

static void note_taken(cbi_places *places, cbi_spill_file *file, uint64_t blocks) {
    file->live_blocks += blocks;
    places->live_blocks += blocks;
    places->folders[file->folder].written_blocks += blocks;
    if (places->live_blocks > places->live_peak_blocks) {
        places->live_peak_blocks = places->live_blocks;
    }
}

/* ---- holes ---- */

static void remove_hole(cbi_places *places, uint32_t index) {
    places->holes[index] = places->holes[--places->hole_count];
}

static bool take_hole(cbi_places *places, uint64_t blocks, bool exact, uint64_t *place) {
    for (uint32_t i = 0; i < places->hole_count; i++) {
        cbi_hole *hole = &places->holes[i];
        if (exact ? hole->blocks != blocks : hole->blocks < blocks) {
            continue;
        }
        *place = hole->place;
        hole->place += blocks;
        hole->blocks -= blocks;
        note_taken(places, &places->files[cbi_place_file(*place)], blocks);
        if (hole->blocks == 0) {
            remove_hole(places, i);
        }
        return true;
    }
    return false;
}

static void forget_holes_of(cbi_places *places, uint32_t file) {
    for (uint32_t i = places->hole_count; i-- > 0;) {
        if (cbi_place_file(places->holes[i].place) == file) {
            remove_hole(places, i);
        }
    }
}

/* ---- tails ---- */

static bool take_tail(cbi_places *places, uint32_t index, uint64_t blocks, uint64_t *place) {
    cbi_spill_file *file = &places->files[index];
    if (file->busy || file->fd < 0) {
        return false;
    }
    if (file->live_blocks == 0) {
        file->tail_blocks = 0; /* from the start again: its space is there already */
    }
    if (file->allocated_blocks - file->tail_blocks < blocks) {
        return false;
    }
    *place = cbi_place_make(index, file->tail_blocks, false);
    file->tail_blocks += blocks;
    note_taken(places, file, blocks);
    return true;
}

/* The system's part, without the lock: 0 or -errno; how much was promised is in *step. */
static int extend_without_lock(cbi_places *places, uint32_t index, uint64_t from, uint64_t need,
                               uint64_t *step) {
    cbi_spill_file *file = &places->files[index];
    int result = file->fd >= 0 ? 0 : cbi_spill_file_open(places, index);
    if (result < 0) {
        return result;
    }
    result = cbi_sys_fallocate(file->fd, 0, from * CBI_SPILL_ALIGN, *step * CBI_SPILL_ALIGN);
    if (result < 0 && *step > need && result != -EOPNOTSUPP && result != -ENOSYS) {
        *step = need;
        result = cbi_sys_fallocate(file->fd, 0, from * CBI_SPILL_ALIGN, need * CBI_SPILL_ALIGN);
    }
    return result == -EOPNOTSUPP || result == -ENOSYS
               ? 0
               : result; /* no promises there; writing will tell */
}

/* Lock held, released meanwhile. 0 or -errno; -EDQUOT with *limit set: our own limit. */
static int extend(cbi_places *places, uint32_t index, uint64_t blocks, bool *limit) {
    cbi_spill_file *file = &places->files[index];
    uint64_t need = file->tail_blocks + blocks - file->allocated_blocks;
    uint64_t left = places->limit_blocks - places->allocated_blocks;
    if (need > left) {
        *limit = true;
        return -EDQUOT;
    }
    uint64_t wish = cbi_clamp(places->allocated_blocks / 4, STEP_MIN_BLOCKS, STEP_MAX_BLOCKS);
    uint64_t step = cbi_min(cbi_max(need, wish), left);
    uint64_t asked = step;
    places->allocated_blocks += asked; /* so that two threads do not pass the limit together */
    file->busy = true;
    cbi_mutex_unlock(&places->lock);
    int result = extend_without_lock(places, index, file->allocated_blocks, need, &step);
    cbi_mutex_lock(&places->lock);
    places->allocated_blocks -= result < 0 ? asked : asked - step;
    file->allocated_blocks += result < 0 ? 0 : step;
    set_idle(places, file);
    return result;
}

static bool is_full(int result) {
    return result == -ENOSPC || result == -EDQUOT || result == -EFBIG;
}

/* In the file of `owner`'s group in one folder. */
static int reserve_in(cbi_places *places, uint32_t folder, uint32_t owner, uint64_t blocks,
                      uint64_t *place, bool *limit) {
    uint32_t group = owner / CBI_SPILL_OWNERS_PER_GROUP % places->groups;
    uint32_t index = folder * places->groups + group;
    for (;;) {
        wait_idle(places, &places->files[index]);
        if (take_tail(places, index, blocks, place)) {
            return 0;
        }
        int result = extend(places, index, blocks, limit);
        if (result < 0) {
            if (places->files[index].fd < 0) {
                index = folder * places->groups; /* no descriptor for one more file: the first is
                                                    there in any case */
                continue;
            }
            if (is_full(result) && !*limit &&
                blocks <= STEP_MAX_BLOCKS) { /* not for a whole tier */
                places->folders[folder].full = true;
            }
            return result;
        }
    }
}

/* When nothing can be extended any more: whatever lies about. */
static bool reserve_leftover(cbi_places *places, uint64_t blocks, uint64_t *place) {
    if (take_hole(places, blocks, false, place)) {
        return true;
    }
    for (uint32_t i = 0; i < file_count(places); i++) {
        wait_idle(places, &places->files[i]);
        if (take_tail(places, i, blocks, place)) {
            return true;
        }
    }
    return false;
}

cb_status cbi_places_reserve(cbi_places *places, uint32_t owner, uint64_t blocks, bool tier,
                             uint64_t *place, cb_error *err) {
    cb_assert(blocks > 0);
    cbi_mutex_lock(&places->lock);
    uint32_t first = places->next_folder++;
    uint32_t tried = first % places->folder_count;
    bool limit = false;
    bool found =
        (tier && cbi_tier_take(places, blocks, place)) || take_hole(places, blocks, true, place);
    int result = -ENOSPC;
    for (uint32_t i = 0; i < places->folder_count && !found; i++) {
        uint32_t folder = (first + i) % places->folder_count;
        if (!places->folders[folder].full) {
            tried = folder;
            result = reserve_in(places, folder, owner, blocks, place, &limit);
            found = result == 0;
        }
    }
    found =
        found || reserve_leftover(places, blocks, place) || cbi_tier_take(places, blocks, place);
    cbi_mutex_unlock(&places->lock);
    if (found) {
        return CB_OK;
    }
    if (limit) {
        return cbi_places_fail_limit(places, blocks * CBI_SPILL_ALIGN, err);
    }
    return cbi_places_fail(places, cbi_place_make(tried * places->groups, 0, false), result,
                           "making room for", blocks * CBI_SPILL_ALIGN, err);
}

/* ---- giving back ---- */

bool cbi_places_free(cbi_places *places, uint64_t place, uint64_t blocks) {
    bool emptied = false;
    place &= ~CBI_PLACE_PACKED;
    uint32_t index = cbi_place_file(place);
    cbi_mutex_lock(&places->lock);
    cb_assert(index <= file_count(places));
    cbi_spill_file *file = &places->files[index];
    cb_assert(file->live_blocks >= blocks && cbi_place_block(place) + blocks <= file->tail_blocks);
    file->live_blocks -= blocks;
    if (index == file_count(places)) { /* kept in memory, or it was */
        bool last = cbi_place_block(place) + blocks == file->tail_blocks;
        file->tail_blocks = file->live_blocks == 0 ? 0 : file->tail_blocks - (last ? blocks : 0);
        uint64_t moved = places->tier.moved, all = 0;
        if (file->live_blocks == 0) { /* and where it went, if it did */
            all = places->tier.moved_blocks;
            places->tier.moved_blocks = 0;
        }
        cbi_mutex_unlock(&places->lock);
        return all > 0 && cbi_places_free(places, moved, all);
    }
    places->live_blocks -= blocks;
    if (file->live_blocks == 0) {
        forget_holes_of(places, index);
        emptied = file->allocated_blocks >= EMPTY_MIN_BLOCKS;
        places->empty_count += emptied ? 1 : 0;
    } else if (cbi_place_block(place) + blocks == file->tail_blocks) {
        file->tail_blocks -= blocks;
    } else if (places->hole_count < CBI_SPILL_HOLES_MAX) {
        places->holes[places->hole_count++] = (cbi_hole){place, blocks};
    } /* else it waits for the file to be empty */
    cbi_mutex_unlock(&places->lock);
    return emptied;
}

bool cbi_places_refused(cbi_places *places, uint64_t place, uint64_t blocks, bool full) {
    uint32_t index = cbi_place_file(place);
    bool another = false;
    cbi_mutex_lock(&places->lock);
    places->files[index].live_blocks -= blocks; /* and no hole: the disk does not have it */
    if (cbi_tier_is(places, place)) {           /* it lies where all of that memory went */
        index = cbi_place_file(places->tier.moved);
    } else {
        places->live_blocks -= blocks;
    }
    if (full) {
        places->folders[places->files[index].folder].full = true;
    }
    for (uint32_t i = 0; i < places->folder_count; i++) {
        another = another || !places->folders[i].full;
    }
    cbi_mutex_unlock(&places->lock);
    return another;
}

bool cbi_places_empty_one(cbi_places *places) {
    cbi_mutex_lock(&places->lock);
    cbi_spill_file *file = NULL;
    for (uint32_t i = 0; i < file_count(places) && file == NULL && places->empty_count > 0; i++) {
        cbi_spill_file *f = &places->files[i];
        if (!f->busy && f->fd >= 0 && f->live_blocks == 0 &&
            f->allocated_blocks >= EMPTY_MIN_BLOCKS) {
            file = f;
        }
    }
    if (file == NULL) {
        places->empty_count = 0;
        cbi_mutex_unlock(&places->lock);
        return false;
    }
    file->busy = true;
    cbi_mutex_unlock(&places->lock);
    int result = cbi_sys_truncate(file->fd, 0);
    cbi_mutex_lock(&places->lock);
    if (result >= 0) {
        places->allocated_blocks -= file->allocated_blocks;
        file->allocated_blocks = 0;
        file->tail_blocks = 0;
    } else {
        places->empty_count = 0; /* it is only a kindness; the end will do it */
    }
    set_idle(places, file);
    cbi_mutex_unlock(&places->lock);
    return result >= 0;
}

/* ---- saying so ---- */

typedef struct size_text {
    char text[24];
} size_text;

static size_text text_of_size(uint64_t bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    size_text out;
    (void)snprintf(out.text, sizeof out.text, unit == 0 ? "%.0f %s" : "%.1f %s", value,
                   units[unit]);
    return out;
}

cb_status cbi_places_fail_limit(cbi_places *places, uint64_t bytes, cb_error *err) {
    cbi_mutex_lock(&places->lock);
    uint64_t taken = places->allocated_blocks * CBI_SPILL_ALIGN;
    cbi_mutex_unlock(&places->lock);
    uint64_t limit = places->limit_blocks * CBI_SPILL_ALIGN;
    return cbi_fail_bytes(
        err, CB_ENOSPC, bytes, limit - taken,
        "the limit of %s for temporary files is used up: %s are taken and %s more are needed; "
        "raise it (--temp-limit) or give more memory",
        text_of_size(limit).text, text_of_size(taken).text, text_of_size(bytes).text);
}

cb_status cbi_places_fail(cbi_places *places, uint64_t place, int sys_errno, const char *what,
                          uint64_t bytes, cb_error *err) {
    int number = sys_errno < 0 ? -sys_errno : sys_errno;
    const cbi_folder *folder = &places->folders[places->files[cbi_place_file(place)].folder];
    if (!is_full(-number)) {
        return cbi_fail_sys(err, CB_EIO, number, "%s %s in the temporary folder %s failed", what,
                            text_of_size(bytes).text, folder->path);
    }
    uint64_t free_bytes = 0;
    bool in_memory;
    if (cbi_sys_space(folder->fd, &free_bytes, &in_memory) < 0) {
        free_bytes = 0;
    }
    cbi_mutex_lock(&places->lock);
    uint64_t written = folder->written_blocks * CBI_SPILL_ALIGN;
    cbi_mutex_unlock(&places->lock);
    cb_status status =
        cbi_fail_bytes(err, CB_ENOSPC, bytes, free_bytes,
                       "%s %s in the temporary folder %s failed after %s of temporary files there: "
                       "%s; %s are free on that disk; "
                       "give a folder on a larger one, or several (-T), or more memory",
                       what, text_of_size(bytes).text, folder->path, text_of_size(written).text,
                       number == EDQUOT  ? "the quota is used up"
                       : number == EFBIG ? "the file would be too large"
                                         : "the disk is full",
                       text_of_size(free_bytes).text);
    if (err != NULL) {
        err->sys_errno = number;
    }
    return status;
}
