/* SPDX-License-Identifier: Apache-2.0 */
#include "carbide/view.h"

#include <string.h>

#include "base/base.h"

/** What of a 64-bit count one step can ask for. */
static size_t at_once(uint64_t count) {
    return count < SIZE_MAX ? (size_t)count : SIZE_MAX;
}

/* ---- writing ---- */

static cb_status check_output(const cb_segment *segment, uint32_t segment_bytes,
                              uint32_t header_bytes, uint32_t position, cb_error *err) {
    if (!cb_segment_has(segment, 0, segment_bytes)) {
        return cb_segment_refused(segment, 0, segment_bytes, err);
    }
    if (position < header_bytes || position > segment_bytes) {
        return cbi_fail(err, CB_EINVAL,
                        "A view writes from %u to %u of a segment; %u is outside of that.",
                        header_bytes, segment_bytes, position);
    }
    return CB_OK;
}

cb_status cb_output_view_init(cb_output_view *v, const cb_segment *first, uint32_t segment_bytes,
                              uint32_t header_bytes, cb_output_next_fn next, void *ctx,
                              cb_error *err) {
    if (header_bytes >= segment_bytes || next == NULL) {
        return cbi_fail(err, CB_EINVAL,
                        "A view needs a function that has the next segment, and room beside its "
                        "header of %u bytes in segments of %u.",
                        header_bytes, segment_bytes);
    }
    if (first != NULL) {
        CB_TRY(check_output(first, segment_bytes, header_bytes, header_bytes, err));
    }
    *v = (cb_output_view){
        .segment_bytes = segment_bytes, .header_bytes = header_bytes, .next = next, .ctx = ctx};
    cb_output_view_clear(v);
    if (first != NULL) {
        v->segment = *first;
        v->position = header_bytes;
    }
    return CB_OK;
}

void cb_output_view_clear(cb_output_view *v) {
    v->segment = (cb_segment){0};
    v->position = v->segment_bytes; /* full: the next write asks */
}

cb_status cb_output_view_advance(cb_output_view *v, cb_error *err) {
    cb_segment segment = v->segment;
    CB_TRY(v->next(v->ctx, &segment, segment.data != NULL ? v->position : 0, err));
    CB_TRY(check_output(&segment, v->segment_bytes, v->header_bytes, v->header_bytes, err));
    v->segment = segment;
    v->position = v->header_bytes;
    return CB_OK;
}

cb_status cb_output_view_seek(cb_output_view *v, const cb_segment *segment, uint32_t position,
                              cb_error *err) {
    CB_TRY(check_output(segment, v->segment_bytes, v->header_bytes, position, err));
    v->segment = *segment;
    v->position = position;
    return CB_OK;
}

/** Room for up to `count` bytes in one piece: at least one. */
static cb_status output_room(cb_output_view *v, size_t count, uint8_t **place, size_t *room,
                             cb_error *err) {
    if (v->position == v->segment_bytes) {
        CB_TRY(cb_output_view_advance(v, err));
    }
    *room = cbi_min(count, v->segment_bytes - v->position);
    return cb_segment_at(&v->segment, v->position, *room, place, err);
}

cb_status cb_output_view_write(cb_output_view *v, const void *bytes, size_t count, cb_error *err) {
    const uint8_t *from = bytes;
    while (count > 0) {
        uint8_t *place = NULL;
        size_t room = 0;
        CB_TRY(output_room(v, count, &place, &room, err));
        memcpy(place, from, room);
        v->position += (uint32_t)room;
        from += room;
        count -= room;
    }
    return CB_OK;
}

cb_status cb_output_view_skip(cb_output_view *v, uint64_t count, cb_error *err) {
    while (count > 0) {
        uint8_t *place = NULL;
        size_t room = 0;
        CB_TRY(output_room(v, at_once(count), &place, &room, err));
        v->position += (uint32_t)room;
        count -= room;
    }
    return CB_OK;
}

cb_status cb_output_view_write_segment(cb_output_view *v, const cb_segment *segment, size_t at,
                                       size_t count, cb_error *err) {
    uint8_t *from = NULL;
    CB_TRY(cb_segment_at(segment, at, count, &from, err));
    return cb_output_view_write(v, from, count, err);
}

/* ---- reading ---- */

static cb_status check_input(const cb_segment *segment, uint32_t header_bytes, uint32_t position,
                             uint32_t limit, cb_error *err) {
    if (!cb_segment_has(segment, 0, limit)) {
        return cb_segment_refused(segment, 0, limit, err);
    }
    if (position < header_bytes || position > limit) {
        return cbi_fail(err, CB_EINVAL,
                        "A view reads from %u to its limit of a segment; %u with a limit of %u is "
                        "outside of that.",
                        header_bytes, position, limit);
    }
    return CB_OK;
}

cb_status cb_input_view_init(cb_input_view *v, const cb_segment *first, uint32_t limit,
                             uint32_t header_bytes, cb_input_next_fn next, void *ctx,
                             cb_error *err) {
    if (next == NULL) {
        return cbi_fail(err, CB_EINVAL, "A view needs a function that has the next segment.");
    }
    if (first != NULL) {
        CB_TRY(check_input(first, header_bytes, header_bytes, limit, err));
    }
    *v = (cb_input_view){.header_bytes = header_bytes, .next = next, .ctx = ctx};
    cb_input_view_clear(v);
    if (first != NULL) {
        v->segment = *first;
        v->limit = limit;
    }
    return CB_OK;
}

void cb_input_view_clear(cb_input_view *v) {
    v->segment = (cb_segment){0};
    v->position = v->limit = v->header_bytes;
}

cb_status cb_input_view_advance(cb_input_view *v, cb_error *err) {
    cb_segment segment = v->segment;
    uint32_t limit = 0;
    CB_TRY(v->next(v->ctx, &segment, &limit, err)); /* the end leaves all as it was */
    CB_TRY(check_input(&segment, v->header_bytes, v->header_bytes, limit, err));
    v->segment = segment;
    v->position = v->header_bytes;
    v->limit = limit;
    return CB_OK;
}

cb_status cb_input_view_seek(cb_input_view *v, const cb_segment *segment, uint32_t position,
                             uint32_t limit, cb_error *err) {
    CB_TRY(check_input(segment, v->header_bytes, position, limit, err));
    v->segment = *segment;
    v->position = position;
    v->limit = limit;
    return CB_OK;
}

/** Up to `count` bytes in one piece: at least one. Segments without content are passed over. */
static cb_status input_piece(cb_input_view *v, size_t count, uint8_t **place, size_t *there,
                             cb_error *err) {
    while (v->position == v->limit) {
        CB_TRY(cb_input_view_advance(v, err));
    }
    *there = cbi_min(count, v->limit - v->position);
    return cb_segment_at(&v->segment, v->position, *there, place, err);
}

cb_status cb_input_view_read(cb_input_view *v, void *bytes, size_t count, size_t *got,
                             cb_error *err) {
    uint8_t *to = bytes;
    size_t done = 0;
    while (done < count) {
        uint8_t *place = NULL;
        size_t there = 0;
        cb_status status = input_piece(v, count - done, &place, &there, err);
        if (status == CB_EEND && done > 0) {
            break;
        }
        CB_TRY(status);
        memcpy(to + done, place, there);
        v->position += (uint32_t)there;
        done += there;
    }
    *got = done;
    return CB_OK;
}

cb_status cb_input_view_read_fully(cb_input_view *v, void *bytes, size_t count, cb_error *err) {
    size_t got = 0;
    CB_TRY(cb_input_view_read(v, bytes, count, &got, err));
    if (got < count) {
        return cbi_fail_bytes(err, CB_EEND, count, got,
                              "There are only %zu bytes left in the view, not the %zu that were "
                              "asked for.",
                              got, count);
    }
    return CB_OK;
}

cb_status cb_input_view_skip(cb_input_view *v, uint64_t count, cb_error *err) {
    while (count > 0) {
        uint8_t *place = NULL;
        size_t there = 0;
        CB_TRY(input_piece(v, at_once(count), &place, &there, err));
        v->position += (uint32_t)there;
        count -= there;
    }
    return CB_OK;
}

cb_status cb_input_view_read_segment(cb_input_view *v, const cb_segment *segment, size_t at,
                                     size_t count, cb_error *err) {
    uint8_t *to = NULL;
    CB_TRY(cb_segment_at(segment, at, count, &to, err));
    return cb_input_view_read_fully(v, to, count, err);
}

cb_status cb_output_view_copy(cb_output_view *v, cb_input_view *from, uint64_t count,
                              cb_error *err) {
    while (count > 0) {
        uint8_t *place = NULL;
        size_t there = 0;
        CB_TRY(input_piece(from, at_once(count), &place, &there, err));
        CB_TRY(cb_output_view_write(v, place, there, err));
        from->position += (uint32_t)there;
        count -= there;
    }
    return CB_OK;
}
