/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "base/base.h"
#include "carbide/segment.h"

cb_status cb_segment_wrap(void *data, size_t bytes, cb_segment *segment, cb_error *err) {
    static const uint32_t never_given_back = 0;
    if (data == NULL) {
        return cbi_fail(err, CB_EINVAL, "There is no memory at NULL to make a segment of.");
    }
    if (bytes > UINT32_MAX || bytes > UINTPTR_MAX - (uintptr_t)data) {
        return cbi_fail(err, CB_EINVAL,
                        "A segment cannot have %zu bytes from there: at most %" PRIu32
                        ", and not past the last address.",
                        bytes, UINT32_MAX);
    }
    *segment = (cb_segment){.data = data, .stamp = &never_given_back, .bytes = (uint32_t)bytes};
    return CB_OK;
}

cb_status cb_segment_refuse(const cb_segment *s, size_t at, size_t bytes, cb_error *err) {
    if (s->stamp == NULL) {
        return cbi_fail(err, CB_EMISUSE, "This is no segment: the handle was never filled.");
    }
    if (cb_segment_is_freed(s)) {
        return cbi_fail(err, CB_EMISUSE,
                        "The segment has been given back: nothing can be read or written through "
                        "this handle any more.");
    }
    return cbi_fail_bytes(err, CB_EINVAL, bytes, s->bytes,
                          "%zu bytes at %zu are not all inside the segment, which has %u.", bytes,
                          at, s->bytes);
}

cb_status cb_segment_get(const cb_segment *s, size_t at, void *target, size_t bytes,
                         cb_error *err) {
    if (!cb_segment_has(s, at, bytes)) {
        return cb_segment_refused(s, at, bytes, err);
    }
    if (bytes > 0) {
        memcpy(target, s->data + at, bytes);
    }
    return CB_OK;
}

cb_status cb_segment_put(const cb_segment *s, size_t at, const void *source, size_t bytes,
                         cb_error *err) {
    if (!cb_segment_has(s, at, bytes)) {
        return cb_segment_refused(s, at, bytes, err);
    }
    if (bytes > 0) {
        memcpy(s->data + at, source, bytes);
    }
    return CB_OK;
}

static cb_status check_buffer(const cb_byte_buffer *b, size_t bytes, cb_error *err) {
    size_t left = b->limit >= b->position ? b->limit - b->position : 0;
    if (bytes > left) {
        return cbi_fail_bytes(err, CB_EINVAL, bytes, left,
                              "The buffer has %zu bytes left, not the %zu that were asked for.",
                              left, bytes);
    }
    return CB_OK;
}

cb_status cb_segment_get_buffer(const cb_segment *s, size_t at, cb_byte_buffer *target,
                                size_t bytes, cb_error *err) {
    if (target->read_only) {
        return cbi_fail(err, CB_EINVAL, "The buffer is for reading only.");
    }
    CB_TRY(check_buffer(target, bytes, err));
    CB_TRY(cb_segment_get(s, at, target->data + target->position, bytes, err));
    target->position += bytes;
    return CB_OK;
}

cb_status cb_segment_put_buffer(const cb_segment *s, size_t at, cb_byte_buffer *source,
                                size_t bytes, cb_error *err) {
    CB_TRY(check_buffer(source, bytes, err));
    CB_TRY(cb_segment_put(s, at, source->data + source->position, bytes, err));
    source->position += bytes;
    return CB_OK;
}

cb_status cb_segment_copy(const cb_segment *from, size_t from_at, const cb_segment *to,
                          size_t to_at, size_t bytes, cb_error *err) {
    uint8_t *source, *target;
    CB_TRY(cb_segment_at(from, from_at, bytes, &source, err));
    CB_TRY(cb_segment_at(to, to_at, bytes, &target, err));
    memmove(target, source, bytes);
    return CB_OK;
}

cb_status cb_segment_compare(const cb_segment *a, size_t a_at, const cb_segment *b, size_t b_at,
                             size_t bytes, int *order, cb_error *err) {
    uint8_t *left, *right;
    CB_TRY(cb_segment_at(a, a_at, bytes, &left, err));
    CB_TRY(cb_segment_at(b, b_at, bytes, &right, err));
    *order = memcmp(left, right, bytes);
    return CB_OK;
}

cb_status cb_segment_swap(const cb_segment *a, size_t a_at, const cb_segment *b, size_t b_at,
                          size_t bytes, cb_error *err) {
    uint8_t *left, *right, between[512];
    CB_TRY(cb_segment_at(a, a_at, bytes, &left, err));
    CB_TRY(cb_segment_at(b, b_at, bytes, &right, err));
    if (bytes > 0 && left < right + bytes && right < left + bytes) {
        return cbi_fail(err, CB_EINVAL,
                        "The two places of %zu bytes that shall change their content overlap.",
                        bytes);
    }
    for (size_t done = 0; done < bytes;) {
        size_t n = cbi_min(bytes - done, sizeof between);
        memcpy(between, left + done, n);
        memcpy(left + done, right + done, n);
        memcpy(right + done, between, n);
        done += n;
    }
    return CB_OK;
}
