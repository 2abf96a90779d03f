/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_SEGMENT_H
#define CARBIDE_SEGMENT_H

#include "carbide/task.h"

CB_EXTERN_C_BEGIN

/*
 * Segments: pages of one fixed size (Flink 1.9: MemoryManager, MemorySegment), here also the
 * buffers of spill files and partitions. All of a pool lie in one contiguous range of addresses, so
 * that an offset from its base is an address, and a run of neighbours is one piece. The range is
 * reserved at once; memory is resident only where it was touched.
 *
 * Two ways to have one. *Raw*: cb_segment_pool_take gives the address of one or of a run, and the
 * caller looks after it; this is what carbide's operators do. *Owned*: cb_segment_take gives
 * handles on behalf of an owner; a handle knows when its segment was given back, by itself or with
 * all of its owner's, and every access through it is checked.
 */

typedef struct cb_segment_pool cb_segment_pool;
typedef struct cb_segment_owner cb_segment_owner;

/** Flink: DEFAULT_PAGE_SIZE, MIN_PAGE_SIZE. */
enum { CB_SEGMENT_BYTES_DEFAULT = 32 * 1024, CB_SEGMENT_BYTES_MIN = 4096 };

/** Whose bytes a pool's are (Flink: MemoryType). The memory is of one kind, mapped from the system;
 *  what differs is the budget that pays. */
typedef enum cb_segment_type {
    CB_SEGMENTS_AS_MANAGER = 0, /**< the mode of the task's manager */
    CB_SEGMENTS_HEAP,
    CB_SEGMENTS_OFF_HEAP
} cb_segment_type;

typedef struct cb_segment_pool_options {
    size_t struct_size;
    cb_task *task;        /**< where the bytes come from */
    const char *name;     /**< of its consumer in the memory tree; copied */
    size_t segment_bytes; /**< a power of two, at least 4096; 0 = CB_SEGMENT_BYTES_DEFAULT */
    size_t segments_max;  /**< how many, at most 2^31 - 1 */
    uint64_t bytes;       /**< where segments_max is 0: as many as fit in so many bytes */
    unsigned slots;       /**< equal shares: cb_segment_pool_share; 0 = 1 */
    cb_segment_type type;
    bool preallocate; /**< all bytes now; otherwise in steps as segments are first taken */
    bool huge_pages;
} cb_segment_pool_options;

/**
 * Owned by the caller. CB_EINVAL names the rule that is broken. CB_EBUDGET: preallocated and the
 * task cannot have it all. CB_ENOMEM. May spill and wait, as cb_page_alloc.
 */
CB_API CB_MUST_USE cb_status cb_segment_pool_create(const cb_segment_pool_options *options,
                                                    cb_segment_pool **pool, cb_error *err);

/** All segments are gone with it, taken ones too, its owners and their handles; the bytes go back
 * to the task. NULL is fine. */
CB_API void cb_segment_pool_destroy(cb_segment_pool *pool);

/**
 * `count` contiguous segments, aligned to 4 KiB at least; NULL = refused now. One: the most
 * recently given first, so that touched memory is reused. Several: first fit from the low end.
 * Content is whatever it was. Any thread. Never waits; a pool that is not preallocated takes only
 * what its task can have without spilling and waiting.
 */
CB_API void *cb_segment_pool_take(cb_segment_pool *pool, size_t count);

/** Gives segments back, a whole run or a part of it. A second give ends the process (assert). Any
 *  thread. */
CB_API void cb_segment_pool_give(cb_segment_pool *pool, void *base, size_t count);

CB_API size_t cb_segment_pool_free_count(const cb_segment_pool *pool);
CB_API size_t cb_segment_pool_segment_bytes(const cb_segment_pool *pool);

/** All segments lie in [base, base + segments_max * segment_bytes). */
CB_API uint8_t *cb_segment_pool_base(const cb_segment_pool *pool);

/**
 * Nobody gets anything from now on (Flink: shutdown): handles that are out are stale, what lay in
 * the segments is gone, the bytes go back to the task. A second time: nothing. CB_EMISUSE, and
 * nothing happens, while raw segments are out: nobody could tell their holders.
 */
CB_API CB_MUST_USE cb_status cb_segment_pool_shutdown(cb_segment_pool *pool, cb_error *err);

typedef struct cb_segment_pool_stats {
    size_t segments; /**< all of them; stays as it was after a shutdown */
    size_t taken;    /**< raw and owned */
    size_t owned;
    size_t segment_bytes;
    cb_mode mode; /**< whose bytes they are */
    bool preallocated;
    bool empty; /**< nothing is out, and the pool is not shut down (Flink: verifyEmpty) */
    bool shut_down;
} cb_segment_pool_stats;

/** One moment, any thread. */
CB_API void cb_segment_pool_get_stats(const cb_segment_pool *pool, cb_segment_pool_stats *stats);

/**
 * How many whole segments `fraction` of one slot's share is, rounded down (Flink:
 * computeNumberOfPages); computeMemorySize is that times the segment size. CB_EINVAL unless
 * 0 < fraction <= 1.
 */
CB_API CB_MUST_USE cb_status cb_segment_pool_share(const cb_segment_pool *pool, double fraction,
                                                   size_t *segments, cb_error *err);

/** `bytes` without what is less than a segment (Flink: roundDownToPageSizeMultiple). */
CB_API uint64_t cb_segment_pool_round_down(const cb_segment_pool *pool, uint64_t bytes);

/* ---- segments with owners ---- */

/**
 * A segment in the hands of an owner, or any memory seen as one (cb_segment_wrap). A value: copies
 * are the same segment. Once one of them was given back the others are stale, which every access
 * finds out, also when the memory has a new owner since; only 2^31 reuses of the same place between
 * two looks would hide it. A zeroed one is no segment. Dies with the pool.
 */
typedef struct cb_segment {
    uint8_t *data;         /**< its first byte; NULL when given back through this handle */
    const uint32_t *stamp; /**< `generation` as long as the segment is the owner's */
    uint32_t generation;
    uint32_t bytes;          /**< 0 when given back through this handle */
    cb_segment_owner *owner; /**< NULL: wrapped memory */
} cb_segment;

/**
 * Who holds segments: an operator, say. Belongs to the pool: ends with it, or by
 * cb_segment_owner_destroy. The first one makes a table of 4 bytes a segment. `name` is copied, for
 * messages. CB_ENOMEM.
 */
CB_API CB_MUST_USE cb_status cb_segment_owner_create(cb_segment_pool *pool, const char *name,
                                                     cb_segment_owner **owner, cb_error *err);

/** What it still holds is given back first. NULL is fine. No thread uses it. */
CB_API void cb_segment_owner_destroy(cb_segment_owner *owner);

CB_API const char *cb_segment_owner_name(const cb_segment_owner *owner);

/** The pool's cb_segment_pool_segment_bytes. */
CB_API size_t cb_segment_owner_segment_bytes(const cb_segment_owner *owner);

/** Segments that it holds. Any thread. */
CB_API size_t cb_segment_owner_count(const cb_segment_owner *owner);

/** Writes handles of up to `max` segments it holds, in no order; answers how many it holds. */
CB_API size_t cb_segment_owner_list(const cb_segment_owner *owner, cb_segment *segments,
                                    size_t max);

/**
 * `count` segments, not neighbours, all or nothing (Flink: allocatePages); 0 is fine. Their content
 * is whatever it was. CB_EBUDGET: not so many are free, or the pool's task has no bytes for them
 * without spilling and waiting. CB_EMISUSE: the pool was shut down. Any thread. Never waits.
 */
CB_API CB_MUST_USE cb_status cb_segment_take(cb_segment_owner *owner, size_t count,
                                             cb_segment *segments, cb_error *err);

/**
 * Gives one back (Flink: release); the handle is cleared. CB_EMISUSE, and nothing happens, when it
 * was given back before, through whatever copy, or is no owner's (Flink ignores that).
 */
CB_API CB_MUST_USE cb_status cb_segment_give(cb_segment *segment, cb_error *err);

/**
 * Gives a list back, under one lock; segments of several owners are fine, those of several pools
 * are not. All or nothing: when one of them was given back before, or is in the list twice, it is
 * CB_EMISUSE with its place, and none is given. NULL and 0 are fine. CB_EMISUSE when the pool was
 * shut down.
 */
CB_API CB_MUST_USE cb_status cb_segment_give_list(cb_segment *segments, size_t count,
                                                  cb_error *err);

/** Gives back all that the owner holds, and answers how many (Flink: releaseAll); handles that are
 *  out are stale. After a shutdown there is nothing to give: 0. */
CB_API size_t cb_segment_owner_give_all(cb_segment_owner *owner);

/* ---- what is in a segment ---- */

/*
 * Every access through a handle is checked: inside the segment, whatever the figures (no sum can
 * overflow), and not given back meanwhile. CB_EINVAL says where the access was and how far the
 * segment goes, CB_EMISUSE that it was given back; then nothing was read or written. A scalar costs
 * its load or store, two compares and the load of the stamp. Any alignment. Threads: as with plain
 * memory; a give by another thread during an access is a race that no check can win.
 */

/** Memory of the caller's, seen as a segment: at most 2^32 - 1 bytes, none is fine too. Whoever
 * owns it sees to it that it outlives the handle. CB_EINVAL: NULL, or it would go past the last
 * address. */
CB_API CB_MUST_USE cb_status cb_segment_wrap(void *data, size_t bytes, cb_segment *segment,
                                             cb_error *err);

/** Says why an access to [at, at + bytes) is refused: CB_EMISUSE or CB_EINVAL. */
CB_API CB_MUST_USE cb_status cb_segment_refuse(const cb_segment *segment, size_t at, size_t bytes,
                                               cb_error *err);

/* The same, for compilers, which cannot see that it never answers CB_OK. */
static inline CB_MUST_USE cb_status cb_segment_refused(const cb_segment *s, size_t at, size_t bytes,
                                                       cb_error *err) {
    cb_status status = cb_segment_refuse(s, at, bytes, err);
    if (status == CB_OK) {
        __builtin_unreachable();
    }
    return status;
}

/** Whether it was given back, or never was one. */
static inline bool cb_segment_is_freed(const cb_segment *s) {
    return s->data == NULL || __atomic_load_n(s->stamp, __ATOMIC_RELAXED) != s->generation;
}

/** Whether [at, at + bytes) may be touched. */
static inline bool cb_segment_has(const cb_segment *s, size_t at, size_t bytes) {
    return s->data != NULL && bytes <= s->bytes && at <= s->bytes - bytes &&
           __atomic_load_n(s->stamp, __ATOMIC_RELAXED) == s->generation;
}

/** The place of [at, at + bytes): the check once, then plain memory (Flink: wrap). */
static inline CB_MUST_USE cb_status cb_segment_at(const cb_segment *s, size_t at, size_t bytes,
                                                  uint8_t **place, cb_error *err) {
    if (!cb_segment_has(s, at, bytes)) {
        return cb_segment_refused(s, at, bytes, err);
    }
    *place = s->data + at;
    return CB_OK;
}

/* NOLINTBEGIN(bugprone-macro-parentheses): a type in a declaration takes none. */
/* One scalar in one byte order: cb_segment_get_NAME, cb_segment_put_NAME. */
#define CB_SEGMENT_ACCESS(name, type, raw_type, to_order)                                          \
    static inline CB_MUST_USE cb_status cb_segment_get_##name(const cb_segment *s, size_t at,      \
                                                              type *value, cb_error *err) {        \
        raw_type raw;                                                                              \
        if (!cb_segment_has(s, at, sizeof raw)) {                                                  \
            return cb_segment_refused(s, at, sizeof raw, err);                                     \
        }                                                                                          \
        __builtin_memcpy(&raw, s->data + at, sizeof raw);                                          \
        raw = to_order(raw);                                                                       \
        __builtin_memcpy(value, &raw, sizeof raw);                                                 \
        return CB_OK;                                                                              \
    }                                                                                              \
    static inline CB_MUST_USE cb_status cb_segment_put_##name(const cb_segment *s, size_t at,      \
                                                              type value, cb_error *err) {         \
        raw_type raw;                                                                              \
        if (!cb_segment_has(s, at, sizeof raw)) {                                                  \
            return cb_segment_refused(s, at, sizeof raw, err);                                     \
        }                                                                                          \
        __builtin_memcpy(&raw, &value, sizeof raw);                                                \
        raw = to_order(raw);                                                                       \
        __builtin_memcpy(s->data + at, &raw, sizeof raw);                                          \
        return CB_OK;                                                                              \
    }

/* NOLINTEND(bugprone-macro-parentheses) */

#define CB_ORDER_SAME(raw) (raw)
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define CB_ORDER_LE(swap, raw) (raw)
#define CB_ORDER_BE(swap, raw) swap(raw)
#else
#define CB_ORDER_LE(swap, raw) swap(raw)
#define CB_ORDER_BE(swap, raw) (raw)
#endif
#define CB_ORDER_LE_16(raw) CB_ORDER_LE(__builtin_bswap16, raw)
#define CB_ORDER_BE_16(raw) CB_ORDER_BE(__builtin_bswap16, raw)
#define CB_ORDER_LE_32(raw) CB_ORDER_LE(__builtin_bswap32, raw)
#define CB_ORDER_BE_32(raw) CB_ORDER_BE(__builtin_bswap32, raw)
#define CB_ORDER_LE_64(raw) CB_ORDER_LE(__builtin_bswap64, raw)
#define CB_ORDER_BE_64(raw) CB_ORDER_BE(__builtin_bswap64, raw)

/* In the machine's order, in little endian, in big endian. */
#define CB_SEGMENT_ACCESS_ALL(name, type, bits)                                                    \
    CB_SEGMENT_ACCESS(name, type, uint##bits##_t, CB_ORDER_SAME)                                   \
    CB_SEGMENT_ACCESS(name##_le, type, uint##bits##_t, CB_ORDER_LE_##bits)                         \
    CB_SEGMENT_ACCESS(name##_be, type, uint##bits##_t, CB_ORDER_BE_##bits)

CB_SEGMENT_ACCESS(u8, uint8_t, uint8_t, CB_ORDER_SAME)
CB_SEGMENT_ACCESS(i8, int8_t, uint8_t, CB_ORDER_SAME)
CB_SEGMENT_ACCESS_ALL(u16, uint16_t, 16) /* Flink: getChar ... */
CB_SEGMENT_ACCESS_ALL(i16, int16_t, 16)
CB_SEGMENT_ACCESS_ALL(u32, uint32_t, 32)
CB_SEGMENT_ACCESS_ALL(i32, int32_t, 32)
CB_SEGMENT_ACCESS_ALL(u64, uint64_t, 64)
CB_SEGMENT_ACCESS_ALL(i64, int64_t, 64)
CB_SEGMENT_ACCESS_ALL(f32, float, 32)
CB_SEGMENT_ACCESS_ALL(f64, double, 64)

/** A byte: what is not 0 is true; true is written as 1. */
static inline CB_MUST_USE cb_status cb_segment_get_bool(const cb_segment *s, size_t at, bool *value,
                                                        cb_error *err) {
    uint8_t raw = 0;
    cb_status status = cb_segment_get_u8(s, at, &raw, err);
    if (status == CB_OK) {
        *value = raw != 0;
    }
    return status;
}
static inline CB_MUST_USE cb_status cb_segment_put_bool(const cb_segment *s, size_t at, bool value,
                                                        cb_error *err) {
    return cb_segment_put_u8(s, at, value ? 1 : 0, err);
}

/** `bytes` from the segment into `target`, and from `source` into it. */
CB_API CB_MUST_USE cb_status cb_segment_get(const cb_segment *segment, size_t at, void *target,
                                            size_t bytes, cb_error *err);
CB_API CB_MUST_USE cb_status cb_segment_put(const cb_segment *segment, size_t at,
                                            const void *source, size_t bytes, cb_error *err);

/** Memory with a position (Java: ByteBuffer): what is read or written next, up to `limit`. */
typedef struct cb_byte_buffer {
    uint8_t *data;
    size_t position, limit;
    bool read_only;
} cb_byte_buffer;

/**
 * The same with a buffer, whose position goes on by `bytes`. CB_EINVAL, and nothing happens, when
 * it has less than that left or, for cb_segment_get_buffer, may not be written.
 */
CB_API CB_MUST_USE cb_status cb_segment_get_buffer(const cb_segment *segment, size_t at,
                                                   cb_byte_buffer *target, size_t bytes,
                                                   cb_error *err);
CB_API CB_MUST_USE cb_status cb_segment_put_buffer(const cb_segment *segment, size_t at,
                                                   cb_byte_buffer *source, size_t bytes,
                                                   cb_error *err);

/** From one segment to another, or within one, also when the two places overlap. */
CB_API CB_MUST_USE cb_status cb_segment_copy(const cb_segment *from, size_t from_at,
                                             const cb_segment *to, size_t to_at, size_t bytes,
                                             cb_error *err);

/** *order < 0, 0, > 0: as unsigned bytes, first difference first. */
CB_API CB_MUST_USE cb_status cb_segment_compare(const cb_segment *a, size_t a_at,
                                                const cb_segment *b, size_t b_at, size_t bytes,
                                                int *order, cb_error *err);

/** The two places change their content. They must not overlap (CB_EINVAL). Needs no memory. */
CB_API CB_MUST_USE cb_status cb_segment_swap(const cb_segment *a, size_t a_at, const cb_segment *b,
                                             size_t b_at, size_t bytes, cb_error *err);

CB_EXTERN_C_END

#endif
