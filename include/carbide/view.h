/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_VIEW_H
#define CARBIDE_VIEW_H

#include "carbide/segment.h"

CB_EXTERN_C_BEGIN

/*
 * Views: one stream of bytes over many segments (Flink 1.9: AbstractPagedOutputView and
 * AbstractPagedInputView, DataOutputView and DataInputView). Each segment begins with a header of
 * `header_bytes` that the stream leaves out; a record that does not fit goes on in the next
 * segment. Scalars are big endian, so that it does not matter where a border cuts them, and bytes
 * written here are those that Java's DataOutput writes.
 *
 * A view is a struct of the caller's, on its stack or inside something larger, with a function that
 * has the next segment. It holds no memory of its own and never allocates. One thread at a time.
 * Every byte is written and read through a segment's handle: one that was given back is CB_EMISUSE,
 * a limit outside of the segment is CB_EINVAL. Fields are for reading only.
 */

/* ---- writing ---- */

/**
 * Has the next segment. `*segment`: the one that is full (or that the caller advances from),
 * written up to `position`; zeroed when there is none yet. On CB_OK it is the next one. Anything
 * else is what the call that needed it answers; CB_EEND: there is no more room.
 */
typedef cb_status (*cb_output_next_fn)(void *ctx, cb_segment *segment, uint32_t position,
                                       cb_error *err);

typedef struct cb_output_view {
    cb_segment segment;     /**< where the next byte goes, unless `position` is at its end; zeroed:
                                 none yet */
    uint32_t position;      /**< in that segment, its header included */
    uint32_t segment_bytes; /**< written of each segment, at most its size */
    uint32_t header_bytes;
    cb_output_next_fn next;
    void *ctx;
} cb_output_view;

/** `first` NULL: the first write asks for a segment. CB_EINVAL: no room beside the header, or
 *  `first` is smaller than segment_bytes. */
CB_API CB_MUST_USE cb_status cb_output_view_init(cb_output_view *view, const cb_segment *first,
                                                 uint32_t segment_bytes, uint32_t header_bytes,
                                                 cb_output_next_fn next, void *ctx, cb_error *err);

/** Goes to the next segment now; the rest of this one stays as it is. */
CB_API CB_MUST_USE cb_status cb_output_view_advance(cb_output_view *view, cb_error *err);

/** The next byte goes to `position` of `segment`. CB_EINVAL outside of it or inside its header. */
CB_API CB_MUST_USE cb_status cb_output_view_seek(cb_output_view *view, const cb_segment *segment,
                                                 uint32_t position, cb_error *err);

/** No segment from now on: the next write asks for one. */
CB_API void cb_output_view_clear(cb_output_view *view);

/** When it fails half-way, what fitted is written. */
CB_API CB_MUST_USE cb_status cb_output_view_write(cb_output_view *view, const void *bytes,
                                                  size_t count, cb_error *err);

/** Leaves `count` bytes as they are, over segments if need be. */
CB_API CB_MUST_USE cb_status cb_output_view_skip(cb_output_view *view, uint64_t count,
                                                 cb_error *err);

/** [at, at + count) of a segment. */
CB_API CB_MUST_USE cb_status cb_output_view_write_segment(cb_output_view *view,
                                                          const cb_segment *segment, size_t at,
                                                          size_t count, cb_error *err);

/**
 * UTF-8 text as 16-bit characters (writeChars), and as Java's modified UTF-8 with its length in 16
 * bits before it (writeUTF). CB_EDATA: not UTF-8; CB_EINVAL: more than 65535 bytes when encoded;
 * both are found out before anything is written.
 */
CB_API CB_MUST_USE cb_status cb_output_view_write_chars(cb_output_view *view, const char *text,
                                                        size_t bytes, cb_error *err);
CB_API CB_MUST_USE cb_status cb_output_view_write_utf(cb_output_view *view, const char *text,
                                                      size_t bytes, cb_error *err);

/* ---- reading ---- */

/**
 * Has the next segment to read and where its content ends. `*segment`: the one that was read;
 * zeroed when there is none yet. CB_EEND: there is no more, today and when asked again; then
 * nothing is written.
 */
typedef cb_status (*cb_input_next_fn)(void *ctx, cb_segment *segment, uint32_t *limit,
                                      cb_error *err);

typedef struct cb_input_view {
    cb_segment segment;       /**< what the next byte is read from, unless `position` is at `limit`;
                                   zeroed: none yet */
    uint32_t position, limit; /**< in that segment, its header included */
    uint32_t header_bytes;
    cb_input_next_fn next;
    void *ctx;
} cb_input_view;

/** `first` NULL: the first read asks for a segment. CB_EINVAL: limit inside the header or outside
 * of the segment. */
CB_API CB_MUST_USE cb_status cb_input_view_init(cb_input_view *view, const cb_segment *first,
                                                uint32_t limit, uint32_t header_bytes,
                                                cb_input_next_fn next, void *ctx, cb_error *err);

/** Goes to the next segment now; what was left in this one is not read. */
CB_API CB_MUST_USE cb_status cb_input_view_advance(cb_input_view *view, cb_error *err);

/** The next byte is read at `position` of `segment`, up to `limit`. CB_EINVAL unless header <=
 *  position <= limit <= size. */
CB_API CB_MUST_USE cb_status cb_input_view_seek(cb_input_view *view, const cb_segment *segment,
                                                uint32_t position, uint32_t limit, cb_error *err);

CB_API void cb_input_view_clear(cb_input_view *view);

/** Up to `count` bytes; *got says how many, fewer only at the end. CB_EEND: there was nothing left
 *  (and count is not 0). */
CB_API CB_MUST_USE cb_status cb_input_view_read(cb_input_view *view, void *bytes, size_t count,
                                                size_t *got, cb_error *err);

/** All of `count` bytes. CB_EEND: there are not so many; those that there were are read. */
CB_API CB_MUST_USE cb_status cb_input_view_read_fully(cb_input_view *view, void *bytes,
                                                      size_t count, cb_error *err);

/** Over `count` bytes. CB_EEND: there are not so many. */
CB_API CB_MUST_USE cb_status cb_input_view_skip(cb_input_view *view, uint64_t count, cb_error *err);

/** All of `count` bytes to [at, at + count) of a segment. */
CB_API CB_MUST_USE cb_status cb_input_view_read_segment(cb_input_view *view,
                                                        const cb_segment *segment, size_t at,
                                                        size_t count, cb_error *err);

/** `count` bytes from one view to the other, without a copy between. */
CB_API CB_MUST_USE cb_status cb_output_view_copy(cb_output_view *view, cb_input_view *from,
                                                 uint64_t count, cb_error *err);

/**
 * A line without its end, \n or \r\n; the last one needs none. *bytes of it are in `text`, which is
 * not terminated. CB_EEND: there is no more line. CB_EINVAL: it has more than `max` bytes; it is
 * passed over. (Flink drops every \r and takes an empty line for the end.)
 */
CB_API CB_MUST_USE cb_status cb_input_view_read_line(cb_input_view *view, char *text, size_t max,
                                                     size_t *bytes, cb_error *err);

/**
 * What cb_output_view_write_utf or Java's writeUTF wrote, as UTF-8 (half a surrogate pair, which
 * Java allows, stays three bytes). *bytes are in `text`, which is not terminated; 65535 always do.
 * CB_EINVAL: it is longer than `max` when encoded; it is passed over. CB_EDATA: malformed, with the
 * place; it has been read to its end.
 */
CB_API CB_MUST_USE cb_status cb_input_view_read_utf(cb_input_view *view, char *text, size_t max,
                                                    size_t *bytes, cb_error *err);

/* ---- scalars: cb_output_view_write_NAME, cb_input_view_read_NAME ---- */

/* NOLINTBEGIN(bugprone-macro-parentheses): a type in a declaration takes none. */
#define CB_VIEW_SCALAR(name, type, raw_type, to_order)                                             \
    static inline CB_MUST_USE cb_status cb_output_view_write_##name(cb_output_view *v, type value, \
                                                                    cb_error *err) {               \
        raw_type raw;                                                                              \
        __builtin_memcpy(&raw, &value, sizeof raw);                                                \
        raw = to_order(raw);                                                                       \
        if (v->segment_bytes - v->position < sizeof raw ||                                         \
            !cb_segment_has(&v->segment, v->position, sizeof raw)) {                               \
            return cb_output_view_write(v, &raw, sizeof raw, err);                                 \
        }                                                                                          \
        __builtin_memcpy(v->segment.data + v->position, &raw, sizeof raw);                         \
        v->position += (uint32_t)sizeof raw;                                                       \
        return CB_OK;                                                                              \
    }                                                                                              \
    static inline CB_MUST_USE cb_status cb_input_view_read_##name(cb_input_view *v, type *value,   \
                                                                  cb_error *err) {                 \
        raw_type raw = 0;                                                                          \
        if (v->limit - v->position < sizeof raw ||                                                 \
            !cb_segment_has(&v->segment, v->position, sizeof raw)) {                               \
            cb_status status = cb_input_view_read_fully(v, &raw, sizeof raw, err);                 \
            if (status != CB_OK) {                                                                 \
                return status;                                                                     \
            }                                                                                      \
        } else {                                                                                   \
            __builtin_memcpy(&raw, v->segment.data + v->position, sizeof raw);                     \
            v->position += (uint32_t)sizeof raw;                                                   \
        }                                                                                          \
        raw = to_order(raw);                                                                       \
        __builtin_memcpy(value, &raw, sizeof raw);                                                 \
        return CB_OK;                                                                              \
    }

/* NOLINTEND(bugprone-macro-parentheses) */
CB_VIEW_SCALAR(u8, uint8_t, uint8_t, CB_ORDER_SAME)
CB_VIEW_SCALAR(i8, int8_t, uint8_t, CB_ORDER_SAME)
CB_VIEW_SCALAR(u16, uint16_t, uint16_t, CB_ORDER_BE_16)
CB_VIEW_SCALAR(i16, int16_t, uint16_t, CB_ORDER_BE_16)
CB_VIEW_SCALAR(u32, uint32_t, uint32_t, CB_ORDER_BE_32)
CB_VIEW_SCALAR(i32, int32_t, uint32_t, CB_ORDER_BE_32)
CB_VIEW_SCALAR(u64, uint64_t, uint64_t, CB_ORDER_BE_64)
CB_VIEW_SCALAR(i64, int64_t, uint64_t, CB_ORDER_BE_64)
CB_VIEW_SCALAR(f32, float, uint32_t, CB_ORDER_BE_32)
CB_VIEW_SCALAR(f64, double, uint64_t, CB_ORDER_BE_64)

static inline CB_MUST_USE cb_status cb_output_view_write_bool(cb_output_view *v, bool value,
                                                              cb_error *err) {
    return cb_output_view_write_u8(v, value ? 1 : 0, err);
}
/** What is not 0 is true (Java's DataInput; Flink takes 1 alone). */
static inline CB_MUST_USE cb_status cb_input_view_read_bool(cb_input_view *v, bool *value,
                                                            cb_error *err) {
    uint8_t raw = 0;
    cb_status status = cb_input_view_read_u8(v, &raw, err);
    if (status == CB_OK) {
        *value = raw != 0;
    }
    return status;
}

/* ---- views on lists of segments, without headers ---- */

/** Segments in an array of the caller's with room for `max`. */
typedef struct cb_segment_list {
    cb_segment *items;
    size_t count, max;
} cb_segment_list;

/** Writes to segments that it takes for an owner as it goes, and puts into a list (Flink:
 *  SimpleCollectingOutputView). The list and the segments stay the caller's. */
typedef struct cb_collecting_view {
    cb_output_view view; /**< to write to */
    cb_segment_owner *owner;
    cb_segment_list *list;
    size_t first; /**< where in the list it began */
} cb_collecting_view;

/** Takes the first segment. Later writes: CB_EEND when the list is full, what cb_segment_take
 *  answers when the pool is empty. Must not move while it is written to. */
CB_API CB_MUST_USE cb_status cb_collecting_view_open(cb_collecting_view *view,
                                                     cb_segment_owner *owner, cb_segment_list *list,
                                                     cb_error *err);

/** Where the next byte goes, counted from the first one written. */
CB_API uint64_t cb_collecting_view_position(const cb_collecting_view *view);

/** Reads a list of equal segments, from any place (Flink: RandomAccessInputView). */
typedef struct cb_random_input_view {
    cb_input_view view; /**< to read from */
    const cb_segment *items;
    size_t count, index;
    uint32_t segment_bytes, last_limit;
} cb_random_input_view;

/**
 * `last_limit`: bytes of the last segment that are content; segment_bytes: of the others. Begins at
 * place 0. The array is borrowed; the view must not move. CB_EINVAL: no segment, or limits outside.
 */
CB_API CB_MUST_USE cb_status cb_random_input_view_open(cb_random_input_view *view,
                                                       const cb_segment *items, size_t count,
                                                       uint32_t segment_bytes, uint32_t last_limit,
                                                       cb_error *err);

/** The next byte is read at `position`, counted from the first. CB_EINVAL behind the end; the end
 *  itself is fine. */
CB_API CB_MUST_USE cb_status cb_random_input_view_seek(cb_random_input_view *view,
                                                       uint64_t position, cb_error *err);
CB_API uint64_t cb_random_input_view_position(const cb_random_input_view *view);

/** Writes over a list of equal segments, at any place (Flink: RandomAccessOutputView). CB_EEND
 *  behind the last. */
typedef struct cb_random_output_view {
    cb_output_view view; /**< to write to */
    const cb_segment *items;
    size_t count, index;
} cb_random_output_view;

CB_API CB_MUST_USE cb_status cb_random_output_view_open(cb_random_output_view *view,
                                                        const cb_segment *items, size_t count,
                                                        uint32_t segment_bytes, cb_error *err);
CB_API CB_MUST_USE cb_status cb_random_output_view_seek(cb_random_output_view *view,
                                                        uint64_t position, cb_error *err);

CB_EXTERN_C_END

#endif
