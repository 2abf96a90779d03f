/* SPDX-License-Identifier: Apache-2.0 */
#include "base/base.h"
#include "carbide/view.h"

/* ---- collecting ---- */

static cb_status next_collected(void *ctx, cb_segment *segment, uint32_t position, cb_error *err) {
    (void)position;
    cb_collecting_view *v = ctx;
    if (v->list->count == v->list->max) {
        return cbi_fail(err, CB_EEND, "The list of segments is full: it has room for %zu.",
                        v->list->max);
    }
    CB_TRY(cb_segment_take(v->owner, 1, segment, err));
    v->list->items[v->list->count++] = *segment;
    return CB_OK;
}

cb_status cb_collecting_view_open(cb_collecting_view *v, cb_segment_owner *owner,
                                  cb_segment_list *list, cb_error *err) {
    cb_collecting_view opened = {.owner = owner, .list = list, .first = list->count};
    cb_segment segment = {0};
    CB_TRY(next_collected(&opened, &segment, 0, err));
    CB_TRY(cb_output_view_init(&opened.view, &segment, segment.bytes, 0, next_collected, v, err));
    *v = opened;
    return CB_OK;
}

uint64_t cb_collecting_view_position(const cb_collecting_view *v) {
    return (uint64_t)(v->list->count - 1 - v->first) * v->view.segment_bytes + v->view.position;
}

/* ---- any place of a list ---- */

static cb_status check_list(const cb_segment *items, size_t count, uint32_t segment_bytes,
                            uint32_t last_limit, cb_error *err) {
    if (count == 0 || segment_bytes == 0 || last_limit > segment_bytes) {
        return cbi_fail(err, CB_EINVAL,
                        "A view needs segments of some size, the last of which has at most as many "
                        "bytes: not %zu of %u and %u.",
                        count, segment_bytes, last_limit);
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t *place = NULL;
        uint32_t bytes = i + 1 < count ? segment_bytes : last_limit;
        CB_TRY(cb_segment_at(&items[i], 0, bytes, &place, err));
    }
    return CB_OK;
}

static cb_status fail_behind(uint64_t position, uint64_t end, cb_error *err) {
    return cbi_fail_bytes(err, CB_EINVAL, position, end,
                          "The place %llu is behind the end of the list, which is %llu.",
                          (unsigned long long)position, (unsigned long long)end);
}

static uint32_t limit_of(const cb_random_input_view *v, size_t index) {
    return index + 1 < v->count ? v->segment_bytes : v->last_limit;
}

static cb_status next_to_read(void *ctx, cb_segment *segment, uint32_t *limit, cb_error *err) {
    cb_random_input_view *v = ctx;
    if (v->index + 1 >= v->count) {
        return cbi_fail(err, CB_EEND, "All %zu segments of the list have been read.", v->count);
    }
    *segment = v->items[++v->index];
    *limit = limit_of(v, v->index);
    return CB_OK;
}

cb_status cb_random_input_view_open(cb_random_input_view *v, const cb_segment *items, size_t count,
                                    uint32_t segment_bytes, uint32_t last_limit, cb_error *err) {
    CB_TRY(check_list(items, count, segment_bytes, last_limit, err));
    cb_random_input_view opened = {
        .items = items, .count = count, .segment_bytes = segment_bytes, .last_limit = last_limit};
    CB_TRY(
        cb_input_view_init(&opened.view, &items[0], limit_of(&opened, 0), 0, next_to_read, v, err));
    *v = opened;
    return CB_OK;
}

cb_status cb_random_input_view_seek(cb_random_input_view *v, uint64_t position, cb_error *err) {
    uint64_t end = (uint64_t)(v->count - 1) * v->segment_bytes + v->last_limit;
    if (position > end) {
        return fail_behind(position, end, err);
    }
    size_t index = (size_t)(position / v->segment_bytes);
    if (index == v->count) { /* the end of a last segment that is full */
        index--;
    }
    uint32_t at = (uint32_t)(position - (uint64_t)index * v->segment_bytes);
    CB_TRY(cb_input_view_seek(&v->view, &v->items[index], at, limit_of(v, index), err));
    v->index = index;
    return CB_OK;
}

uint64_t cb_random_input_view_position(const cb_random_input_view *v) {
    return (uint64_t)v->index * v->segment_bytes + v->view.position;
}

static cb_status next_to_write(void *ctx, cb_segment *segment, uint32_t position, cb_error *err) {
    (void)position;
    cb_random_output_view *v = ctx;
    if (v->index + 1 >= v->count) {
        return cbi_fail(err, CB_EEND, "All %zu segments of the list are full.", v->count);
    }
    *segment = v->items[++v->index];
    return CB_OK;
}

cb_status cb_random_output_view_open(cb_random_output_view *v, const cb_segment *items,
                                     size_t count, uint32_t segment_bytes, cb_error *err) {
    CB_TRY(check_list(items, count, segment_bytes, segment_bytes, err));
    cb_random_output_view opened = {.items = items, .count = count};
    CB_TRY(cb_output_view_init(&opened.view, &items[0], segment_bytes, 0, next_to_write, v, err));
    *v = opened;
    return CB_OK;
}

cb_status cb_random_output_view_seek(cb_random_output_view *v, uint64_t position, cb_error *err) {
    uint32_t bytes = v->view.segment_bytes;
    uint64_t end = (uint64_t)v->count * bytes;
    if (position > end) {
        return fail_behind(position, end, err);
    }
    size_t index = (size_t)(position / bytes);
    if (index == v->count) {
        index--;
    }
    uint32_t at = (uint32_t)(position - (uint64_t)index * bytes);
    CB_TRY(cb_output_view_seek(&v->view, &v->items[index], at, err));
    v->index = index;
    return CB_OK;
}
