/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams in spill files.
 *
 * A segment of a channel is a batch of one: the view's header is the frame's, so nothing is copied
 * on its way. The writer hands a full segment to the I/O threads and goes on with another that is
 * not busy; the reader asks for the segment after next with the one it has just left. Both have a
 * ring of the caller's segments; a request's callback only notes what came of it and wakes who
 * waits. Where each segment lies, 16 bytes, is kept in memory.
 */
#include "spill/channel.h"

#include <string.h>

#include "base/alloc.h"
#include "spill/spill.h"

struct cb_channels {
    cbi_spill *spill;
    cb_segment_pool *pool;
    void *staging;
    size_t staging_segments;
    _Atomic uint32_t numbers; /* given out so far */
};

typedef enum phase { EMPTY, WRITING, WRITTEN } phase;

struct cb_channel {
    cb_channels *channels;
    uint32_t number;
    phase phase;
    cbi_extent *extents; /* while it is written: guarded by the writer's lock */
    uint32_t count, room;
    uint32_t segment_bytes;
    uint64_t bytes;
    uint32_t short_segments; /* not full, the last one included */
    bool last_is_short;
};

/** A segment of the ring and the request it is in. */
typedef struct slot {
    struct ring *ring;
    cb_segment segment;
    cbi_spill_segment frame;
    uint32_t sequence;
    bool busy; /* guarded by the ring's lock */
} slot;

/** What writer and reader have in common. */
typedef struct ring {
    cb_channel *channel;
    bool writes;
    uint32_t count;
    cbi_mutex lock;
    cbi_cond idle;    /* a slot is not busy any more */
    cb_error failure; /* the first one; guarded by the lock */
    slot slots[];
} ring;

struct cb_channel_writer {
    cb_output_view view;
    ring *ring;
    uint32_t current; /* slot that the view writes to */
};

struct cb_channel_reader {
    cb_input_view view;
    ring *ring;
    uint32_t first;            /* segment of the channel that reading began with */
    uint32_t requested, taken; /* and up to which it is now */
};

/* ---- the files ---- */

static cb_status take_staging(cb_channels *c, size_t bytes, cb_error *err) {
    size_t segment_bytes = cb_segment_pool_segment_bytes(c->pool);
    c->staging_segments = (bytes + segment_bytes - 1) / segment_bytes;
    if (c->staging_segments == 0) {
        return CB_OK;
    }
    c->staging = cb_segment_pool_take(c->pool, c->staging_segments);
    if (c->staging == NULL) {
        return cbi_fail_bytes(err, CB_EBUDGET, bytes,
                              cb_segment_pool_free_count(c->pool) * segment_bytes,
                              "Channels need %zu segments of the pool in a row to compress with: "
                              "make it larger, or use no codec.",
                              c->staging_segments);
    }
    return CB_OK;
}

static cb_status open_spill(cb_channels *c, const cb_channels_options *o, cb_error *err) {
    unsigned threads = o->no_threads ? 0 : o->io_threads > 0 ? o->io_threads : 2;
    size_t segment_bytes = cb_segment_pool_segment_bytes(c->pool);
    size_t bytes = cbi_spill_staging_bytes(threads, segment_bytes, o->codec);
    CB_TRY(take_staging(c, bytes, err));
    cbi_spill_options spill = {.dirs = o->dirs,
                               .dir_count = o->dir_count,
                               .limit_bytes = o->limit_bytes,
                               .codec = o->codec,
                               .io_threads = threads,
                               .segment_bytes = segment_bytes,
                               .staging = c->staging,
                               .staging_bytes = bytes,
                               .allow_memory_fs = o->allow_memory_fs,
                               .page_cache = o->page_cache};
    return cbi_spill_open(&spill, &c->spill, err);
}

cb_status cb_channels_open(const cb_channels_options *o, cb_channels **channels, cb_error *err) {
    if (o->struct_size != sizeof *o || o->pool == NULL || o->dir_count == 0 || o->io_threads > 8) {
        return cbi_fail(err, CB_EINVAL,
                        "Channels need a segment pool, a folder, at most 8 I/O threads, and "
                        "options of %zu bytes.",
                        sizeof *o);
    }
    cb_channels *c = cbi_calloc(1, sizeof *c);
    if (c == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for channels.");
    }
    c->pool = o->pool;
    cb_status status = open_spill(c, o, err);
    if (status != CB_OK) {
        cb_channels_close(c);
        return status;
    }
    *channels = c;
    return CB_OK;
}

void cb_channels_close(cb_channels *c) {
    if (c == NULL) {
        return;
    }
    cbi_spill_close(c->spill);
    if (c->staging != NULL) {
        cb_segment_pool_give(c->pool, c->staging, c->staging_segments);
    }
    cbi_free(c);
}

/* ---- channels ---- */

cb_status cb_channel_create(cb_channels *channels, cb_channel **channel, cb_error *err) {
    cb_channel *c = cbi_calloc(1, sizeof *c);
    if (c == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a channel.");
    }
    c->channels = channels;
    c->number = atomic_fetch_add(&channels->numbers, 1);
    *channel = c;
    return CB_OK;
}

/** Nothing is in it any more. No view is open. */
static void channel_clear(cb_channel *c) {
    for (uint32_t i = 0; i < c->count; i++) {
        if (c->extents[i].segments > 0) { /* 0: its write failed */
            cbi_spill_free(c->channels->spill, &c->extents[i]);
        }
    }
    c->count = 0;
    c->bytes = 0;
    c->short_segments = 0;
    c->last_is_short = false;
    c->phase = EMPTY;
}

void cb_channel_destroy(cb_channel *c) {
    if (c == NULL) {
        return;
    }
    cb_assert(c->phase != WRITING && "a channel is destroyed under its writer");
    channel_clear(c);
    cbi_free(c->extents);
    cbi_free(c);
}

uint64_t cb_channel_bytes(const cb_channel *c) {
    return c->bytes;
}

size_t cb_channel_segments(const cb_channel *c) {
    return c->count;
}

/** [ring's lock held] Room to note one more extent. */
static cb_status channel_reserve(cb_channel *c, cb_error *err) {
    if (c->count == c->room) {
        uint32_t room = c->room > 0 ? c->room * 2 : 64;
        cbi_extent *extents =
            c->room < UINT32_MAX / 2 ? cbi_realloc(c->extents, room * sizeof *extents) : NULL;
        if (extents == NULL) {
            return cbi_fail(err, CB_ENOMEM,
                            "The system has no memory for the places of %u segments.", room);
        }
        c->extents = extents;
        c->room = room;
    }
    c->extents[c->count] = (cbi_extent){0};
    return CB_OK;
}

bool cbi_channel_is_empty(const cb_channel *c) {
    return c->phase == EMPTY;
}

/* ---- rings ---- */

static cb_status check_segments(const cb_segment *segments, size_t count, size_t bytes,
                                cb_error *err) {
    if (count == 0 || count > INT32_MAX) {
        return cbi_fail(err, CB_EINVAL, "A view on disk needs 1 to 2147483647 segments, not %zu.",
                        count);
    }
    for (size_t i = 0; i < count; i++) {
        uint8_t *place = NULL;
        CB_TRY(cb_segment_at(&segments[i], 0, bytes, &place, err));
        if (segments[i].bytes != segments[0].bytes || (uintptr_t)place % CBI_SPILL_ALIGN != 0 ||
            segments[i].bytes % CBI_SPILL_ALIGN != 0) {
            return cbi_fail(err, CB_EINVAL,
                            "Segments of a view on disk have one size, a multiple of %d bytes, and "
                            "are aligned to that; see number %zu.",
                            (int)CBI_SPILL_ALIGN, i);
        }
    }
    return CB_OK;
}

static cb_status ring_create(const cb_channel *channel, bool writes, const cb_segment *segments,
                             size_t count, ring **out, cb_error *err) {
    size_t pool_bytes = cb_segment_pool_segment_bytes(channel->channels->pool);
    size_t least = writes ? CBI_SPILL_ALIGN : channel->segment_bytes;
    CB_TRY(check_segments(segments, count, least, err));
    if (segments[0].bytes > pool_bytes) {
        return cbi_fail(err, CB_EINVAL,
                        "Segments of %u bytes are larger than those of the channels' pool, %zu.",
                        segments[0].bytes, pool_bytes);
    }
    ring *r = cbi_calloc(1, sizeof *r + count * sizeof r->slots[0]);
    if (r == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a view on disk.");
    }
    r->channel = (cb_channel *)channel; /* a reader does not change it */
    r->writes = writes;
    r->count = (uint32_t)count;
    cbi_mutex_init(&r->lock, CBI_RANK_CHANNEL);
    cbi_cond_init(&r->idle);
    for (uint32_t i = 0; i < r->count; i++) {
        r->slots[i] = (slot){.ring = r,
                             .segment = segments[i],
                             .frame = {.base = segments[i].data, .capacity = segments[i].bytes}};
    }
    *out = r;
    return CB_OK;
}

/** An I/O thread: the request of the slot is over. */
static void request_done(void *ctx, cb_status status, const cbi_extent *extent,
                         const cb_error *err) {
    slot *s = ctx;
    ring *r = s->ring;
    cbi_mutex_lock(&r->lock);
    if (status != CB_OK && r->failure.status == CB_OK) {
        r->failure = *err;
        r->failure.status = status;
    } else if (status == CB_OK && r->writes) {
        r->channel->extents[s->sequence] = *extent;
    }
    s->busy = false;
    cbi_cond_broadcast(&r->idle);
    cbi_mutex_unlock(&r->lock);
}

static cb_status fail_as(const cb_error *failure, cb_error *err) {
    if (err != NULL) {
        *err = *failure;
    }
    return failure->status;
}

/** Waits for one slot; answers the first failure of any. */
static cb_status ring_wait(ring *r, const slot *s, cb_error *err) {
    cbi_mutex_lock(&r->lock);
    while (s->busy) {
        cbi_cond_wait(&r->idle, &r->lock);
    }
    cb_status status = r->failure.status == CB_OK ? CB_OK : fail_as(&r->failure, err);
    cbi_mutex_unlock(&r->lock);
    return status;
}

static cb_status ring_wait_all(ring *r, cb_error *err) {
    cb_status status = CB_OK;
    for (uint32_t i = 0; i < r->count; i++) {
        status = ring_wait(r, &r->slots[i], i + 1 == r->count ? err : NULL);
    }
    return status;
}

static void ring_destroy(ring *r) {
    if (r == NULL) {
        return;
    }
    (void)ring_wait_all(r, NULL);
    cbi_cond_fini(&r->idle);
    cbi_mutex_fini(&r->lock);
    cbi_free(r);
}

static void set_busy(ring *r, slot *s, bool busy) {
    cbi_mutex_lock(&r->lock);
    s->busy = busy;
    cbi_mutex_unlock(&r->lock);
}

/* ---- writing ---- */

/** Hands the view's segment to the I/O threads. */
static cb_status write_out(cb_channel_writer *w, uint32_t position, cb_error *err) {
    ring *r = w->ring;
    cb_channel *c = r->channel;
    slot *s = &r->slots[w->current];
    uint32_t bytes = position - w->view.header_bytes;
    if (bytes == 0) {
        return CB_OK;
    }
    uint8_t *place = NULL;
    CB_TRY(cb_segment_at(&s->segment, 0, position, &place, err)); /* not given back meanwhile */
    cbi_mutex_lock(&r->lock);
    cb_status status = channel_reserve(c, err);
    if (status == CB_OK) {
        s->sequence = c->count++;
        s->busy = true;
    }
    cbi_mutex_unlock(&r->lock);
    CB_TRY(status);
    s->frame.used = bytes;
    c->bytes += bytes;
    c->last_is_short = position < c->segment_bytes;
    c->short_segments += c->last_is_short ? 1 : 0;
    cb_error why = {0};
    status = cbi_spill_write(c->channels->spill, c->number, s->sequence, &s->frame, 1, request_done,
                             s, &why);
    if (status != CB_OK) {
        request_done(s, status, NULL, &why);
        return fail_as(&why, err);
    }
    return CB_OK;
}

static cb_status next_to_write(void *ctx, cb_segment *segment, uint32_t position, cb_error *err) {
    cb_channel_writer *w = ctx;
    ring *r = w->ring;
    if (r->channel->phase != WRITING) {
        return cbi_fail(err, CB_EMISUSE, "The channel has been finished: nothing can be written.");
    }
    if (segment->data != NULL) {
        CB_TRY(write_out(w, position, err));
        w->current = (w->current + 1) % r->count; /* the one that has been on its way longest */
    }
    CB_TRY(ring_wait(r, &r->slots[w->current], err));
    *segment = r->slots[w->current].segment;
    return CB_OK;
}

cb_status cb_channel_writer_open(cb_channel *channel, const cb_segment *segments, size_t count,
                                 cb_channel_writer **writer, cb_error *err) {
    if (channel->phase != EMPTY) {
        return cbi_fail(err, CB_EMISUSE, "The channel has been written already, or is being.");
    }
    cb_channel_writer *w = cbi_calloc(1, sizeof *w);
    if (w == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a view on disk.");
    }
    cb_status status = ring_create(channel, true, segments, count, &w->ring, err);
    if (status == CB_OK) {
        status = cb_output_view_init(&w->view, NULL, segments[0].bytes, CBI_FRAME_HEADER_BYTES,
                                     next_to_write, w, err);
    }
    if (status != CB_OK) {
        ring_destroy(w->ring);
        cbi_free(w);
        return status;
    }
    channel->phase = WRITING;
    channel->segment_bytes = segments[0].bytes;
    *writer = w;
    return CB_OK;
}

cb_status cbi_channel_writer_adopt(cb_channel_writer *w, const uint32_t *limits,
                                   cb_segment *segment, cb_error *err) {
    ring *r = w->ring;
    for (uint32_t i = 0; i < r->count; i++) {
        w->current = i;
        CB_TRY(write_out(w, limits[i], err));
    }
    w->current = 0;
    CB_TRY(ring_wait(r, &r->slots[0], err));
    *segment = r->slots[0].segment;
    return CB_OK;
}

cb_output_view *cb_channel_writer_view(cb_channel_writer *w) {
    return &w->view;
}

cb_status cb_channel_writer_finish(cb_channel_writer *w, cb_error *err) {
    cb_channel *c = w->ring->channel;
    if (c->phase != WRITING) {
        return cbi_fail(err, CB_EMISUSE, "The channel has been finished before.");
    }
    if (w->view.segment.data != NULL) {
        CB_TRY(write_out(w, w->view.position, err));
        cb_output_view_clear(&w->view);
    }
    CB_TRY(ring_wait_all(w->ring, err));
    c->phase = WRITTEN;
    return CB_OK;
}

void cb_channel_writer_close(cb_channel_writer *w) {
    if (w == NULL) {
        return;
    }
    cb_channel *c = w->ring->channel;
    ring_destroy(w->ring);
    if (c->phase == WRITING) {
        channel_clear(c);
    }
    cbi_free(w);
}

/* ---- reading ---- */

/** Asks for the channel's next segment, when there is one, with the slot whose turn it is. */
static cb_status read_ahead(cb_channel_reader *reader, cb_error *err) {
    ring *r = reader->ring;
    const cb_channel *c = r->channel;
    if (reader->requested == c->count) {
        return CB_OK;
    }
    slot *s = &r->slots[reader->requested % r->count];
    uint8_t *place = NULL;
    CB_TRY(cb_segment_at(&s->segment, 0, c->segment_bytes, &place, err));
    s->sequence = reader->requested;
    set_busy(r, s, true);
    cb_status status = cbi_spill_read(c->channels->spill, c->number, s->sequence,
                                      &c->extents[s->sequence], &s->frame, 1, request_done, s, err);
    if (status != CB_OK) {
        set_busy(r, s, false);
        return status;
    }
    reader->requested++;
    return CB_OK;
}

static cb_status next_to_read(void *ctx, cb_segment *segment, uint32_t *limit, cb_error *err) {
    cb_channel_reader *reader = ctx;
    ring *r = reader->ring;
    if (reader->taken == r->channel->count) {
        return cbi_fail(err, CB_EEND, "All %u segments of the channel have been read.",
                        reader->taken);
    }
    if (reader->taken > reader->first && reader->requested < reader->taken + r->count) {
        CB_TRY(read_ahead(reader, err));
    }
    const slot *s = &r->slots[reader->taken % r->count];
    CB_TRY(ring_wait(r, s, err));
    *segment = s->segment;
    *limit = CBI_FRAME_HEADER_BYTES + s->frame.used;
    reader->taken++;
    return CB_OK;
}

cb_status cb_channel_reader_open(const cb_channel *channel, const cb_segment *segments,
                                 size_t count, cb_channel_reader **reader, cb_error *err) {
    if (channel->phase != WRITTEN) {
        return cbi_fail(err, CB_EMISUSE, "The channel has not been finished: it cannot be read.");
    }
    cb_channel_reader *r = cbi_calloc(1, sizeof *r);
    if (r == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a view on disk.");
    }
    cb_status status = ring_create(channel, false, segments, count, &r->ring, err);
    if (status == CB_OK) {
        status =
            cb_input_view_init(&r->view, NULL, 0, CBI_FRAME_HEADER_BYTES, next_to_read, r, err);
    }
    for (size_t i = 0; i < count && status == CB_OK; i++) {
        status = read_ahead(r, err);
    }
    if (status != CB_OK) {
        ring_destroy(r->ring);
        cbi_free(r);
        return status;
    }
    *reader = r;
    return CB_OK;
}

cb_status cb_channel_reader_seek(cb_channel_reader *r, uint64_t position, cb_error *err) {
    const cb_channel *c = r->ring->channel;
    if (c->short_segments > (c->last_is_short ? 1 : 0)) {
        return cbi_fail(err, CB_EINVAL,
                        "Places of this channel cannot be counted: some of its segments were left "
                        "before they were full.");
    }
    if (position > c->bytes) {
        return cbi_fail_bytes(err, CB_EINVAL, position, c->bytes,
                              "The place %llu is behind the end of the channel, which is %llu.",
                              (unsigned long long)position, (unsigned long long)c->bytes);
    }
    uint32_t payload = c->segment_bytes - CBI_FRAME_HEADER_BYTES;
    uint64_t index = position / payload;
    CB_TRY(ring_wait_all(r->ring, err)); /* segments that are read for nothing */
    cb_input_view_clear(&r->view);
    r->requested = r->taken = (uint32_t)index;
    r->first = (uint32_t)index;
    for (uint32_t i = 0; i < r->ring->count; i++) {
        CB_TRY(read_ahead(r, err));
    }
    return cb_input_view_skip(&r->view, position - index * payload, err);
}

cb_input_view *cb_channel_reader_view(cb_channel_reader *r) {
    return &r->view;
}

void cb_channel_reader_close(cb_channel_reader *r) {
    if (r == NULL) {
        return;
    }
    ring_destroy(r->ring);
    cbi_free(r);
}
