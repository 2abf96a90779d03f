/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream that starts in memory. Its segments keep room for a frame's header from the beginning,
 * so that they can go to disk from where they lie; when the owner gets no more they do, and are the
 * writer's ring from then on.
 */
#include "spill/channel.h"

#include "base/alloc.h"
#include "spill/spill.h"

struct cb_spilling {
    cb_output_view out;
    cb_input_view in;
    cb_channel *channel;
    cb_segment_owner *owner;
    cb_segment *items; /* all that it holds */
    uint32_t *limits;  /* where the content of each ends; in memory only */
    size_t count, room;
    size_t read; /* in memory: so many have been */
    cb_channel_writer *writer;
    cb_channel_reader *reader;
    bool on_disk, ended;
};

static cb_status reserve(cb_spilling *s, cb_error *err) {
    if (s->count < s->room) {
        return CB_OK;
    }
    size_t room = s->room > 0 ? s->room * 2 : 16;
    cb_segment *items = cbi_realloc(s->items, room * sizeof *items);
    s->items = items != NULL ? items : s->items;
    uint32_t *limits = items != NULL ? cbi_realloc(s->limits, room * sizeof *limits) : NULL;
    if (limits == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a list of %zu segments.",
                        room);
    }
    s->limits = limits;
    s->room = room;
    return CB_OK;
}

static cb_status go_to_disk(cb_spilling *s, cb_segment *segment, cb_error *err) {
    CB_TRY(cb_channel_writer_open(s->channel, s->items, s->count, &s->writer, err));
    s->on_disk = true;
    return cbi_channel_writer_adopt(s->writer, s->limits, segment, err);
}

static cb_status next_to_write(void *ctx, cb_segment *segment, uint32_t position, cb_error *err) {
    cb_spilling *s = ctx;
    if (s->ended) {
        return cbi_fail(err, CB_EMISUSE, "The stream is being read: nothing can be written.");
    }
    if (s->on_disk) {
        cb_output_view *disk = cb_channel_writer_view(s->writer);
        return disk->next(disk->ctx, segment, position, err);
    }
    if (s->count > 0) {
        s->limits[s->count - 1] = position;
    }
    CB_TRY(reserve(s, err));
    cb_error refusal = {0};
    cb_status status = cb_segment_take(s->owner, 1, &s->items[s->count], &refusal);
    if (status == CB_EBUDGET && s->count > 0) {
        return go_to_disk(s, segment, err);
    }
    if (status != CB_OK) {
        return cbi_fail(err, status, "%s", refusal.message);
    }
    *segment = s->items[s->count++];
    return CB_OK;
}

cb_status cb_spilling_create(cb_channel *channel, cb_segment_owner *owner, cb_spilling **spilling,
                             cb_error *err) {
    if (!cbi_channel_is_empty(channel)) {
        return cbi_fail(err, CB_EMISUSE, "The channel has been written already, or is being.");
    }
    cb_spilling *s = cbi_calloc(1, sizeof *s);
    if (s == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a stream.");
    }
    s->channel = channel;
    s->owner = owner;
    cb_status status =
        cb_output_view_init(&s->out, NULL, (uint32_t)cb_segment_owner_segment_bytes(owner),
                            CBI_FRAME_HEADER_BYTES, next_to_write, s, err);
    if (status != CB_OK) {
        cbi_free(s);
        return status;
    }
    *spilling = s;
    return CB_OK;
}

cb_output_view *cb_spilling_view(cb_spilling *s) {
    return &s->out;
}

bool cb_spilling_is_on_disk(const cb_spilling *s) {
    return s->on_disk;
}

static cb_status end_writing(cb_spilling *s, cb_error *err) {
    if (s->on_disk) {
        cb_output_view *disk = cb_channel_writer_view(s->writer);
        disk->segment = s->out.segment;
        disk->position = s->out.position;
        CB_TRY(cb_channel_writer_finish(s->writer, err));
        cb_channel_writer_close(s->writer);
        s->writer = NULL;
    } else if (s->count > 0) {
        s->limits[s->count - 1] = s->out.position;
    }
    cb_output_view_clear(&s->out);
    s->ended = true;
    return CB_OK;
}

static cb_status next_to_read(void *ctx, cb_segment *segment, uint32_t *limit, cb_error *err) {
    cb_spilling *s = ctx;
    if (s->read == s->count) {
        return cbi_fail(err, CB_EEND, "All %zu segments of the stream have been read.", s->count);
    }
    *segment = s->items[s->read];
    *limit = s->limits[s->read++];
    return CB_OK;
}

cb_status cb_spilling_read(cb_spilling *s, cb_input_view **view, cb_error *err) {
    if (!s->ended) {
        CB_TRY(end_writing(s, err));
    }
    if (!s->on_disk) {
        s->read = 0;
        CB_TRY(cb_input_view_init(&s->in, NULL, 0, CBI_FRAME_HEADER_BYTES, next_to_read, s, err));
        *view = &s->in;
        return CB_OK;
    }
    cb_channel_reader_close(s->reader);
    s->reader = NULL;
    CB_TRY(cb_channel_reader_open(s->channel, s->items, s->count, &s->reader, err));
    *view = cb_channel_reader_view(s->reader);
    return CB_OK;
}

void cb_spilling_destroy(cb_spilling *s) {
    if (s == NULL) {
        return;
    }
    cb_channel_reader_close(s->reader);
    cb_channel_writer_close(s->writer);
    for (size_t i = 0; i < s->count; i++) {
        if (!cb_segment_is_freed(&s->items[i])) { /* as when the owner gave all of its own back */
            cb_status status = cb_segment_give(&s->items[i], NULL);
            cb_assert_debug(status == CB_OK);
            (void)status;
        }
    }
    cbi_free(s->items);
    cbi_free(s->limits);
    cbi_free(s);
}
