/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <lz4.h>

#include "base/alloc.h"
#include "spill/codec.h"
#include "spill/delta.h"
#include "spill/file.h"
#include "spill/frame.h"
#include "spill/io.h"
#include "spill/nibble.h"

/*
 * The spill as its users see it: requests go into the queue (io.c), an I/O thread seals or packs
 * the frames (frame.c), finds them a place (place.c), moves the bytes (file.c) and tells the
 * caller.
 *
 * Nothing is allocated after cbi_spill_open: spilling is what happens when there is no memory left.
 * Raw extents are moved from and to the caller's segments; packed ones go through the thread's
 * slice of the staging memory that the caller gave at the start.
 *
 * The first failed write stops all later ones, temporary or output: whoever spills cannot go on
 * without the space, and a queue full of doomed writes should end quickly and say one thing. Reads
 * go on: they may be what rescues the work.
 */

struct cbi_spill {
    uint64_t salt;
    cbi_places places;
    cbi_io io;
    uint8_t *staging; /* staging_slice bytes for each I/O thread: buffer, then the state of lz4 */
    size_t staging_slice; /* 0: none */
    bool direct, tier_first;

    cbi_mutex lock; /* guards the rest */
    bool ready;
    cbi_codec_model codec;
    unsigned transfers; /* under way now */
    uint64_t busy_since_ns, busy_ns;
    cb_error write_failure, output_failure; /* status CB_OK: none yet */
    cbi_spill_stats stats;
};

enum {
    LZ4_STATE_BYTES = 20 * 1024, /* LZ4_sizeofState() is 16 KiB and a bit */
    STAGED_SEGMENTS = 32,
    STAGING_MIN_BYTES = 64 * 1024,
    STAGING_MAX_BYTES = 512 * 1024,
    SAMPLE_MAX_BYTES = 32 * 1024,
    MERGEABLE_BYTES = 64 * 1024 /* larger writes are worth a request of their own */
};

/* ---- staging ---- */

static size_t slice_bytes(size_t segment_bytes) {
    size_t buffer =
        cbi_clamp(segment_bytes * STAGED_SEGMENTS, STAGING_MIN_BYTES, STAGING_MAX_BYTES);
    return cbi_round_up(buffer, CBI_SPILL_ALIGN) + LZ4_STATE_BYTES;
}

size_t cbi_spill_staging_bytes(unsigned io_threads, size_t segment_bytes, cb_codec codec) {
    return codec == CB_CODEC_NONE ? 0 : io_threads * slice_bytes(segment_bytes);
}

static uint8_t *staging_of(const cbi_spill *spill, unsigned thread) {
    return spill->staging + thread * spill->staging_slice;
}

static size_t staging_capacity(const cbi_spill *spill) {
    return spill->staging_slice == 0 ? 0 : spill->staging_slice - LZ4_STATE_BYTES;
}

static void *lz4_state_of(const cbi_spill *spill, unsigned thread) {
    return staging_of(spill, thread) + staging_capacity(spill);
}

/* ---- figures ---- */

static void transfer_begins(cbi_spill *spill, uint64_t now) {
    cbi_mutex_lock(&spill->lock);
    if (spill->transfers++ == 0) {
        spill->busy_since_ns = now;
    }
    cbi_mutex_unlock(&spill->lock);
}

static void transfer_ends(cbi_spill *spill, uint64_t began, uint64_t *sum) {
    cbi_mutex_lock(&spill->lock);
    uint64_t now = cbi_sys_clock_ns();
    *sum += now - began;
    if (--spill->transfers == 0) {
        spill->busy_ns += now - spill->busy_since_ns;
    }
    cbi_mutex_unlock(&spill->lock);
}

/* Lock held. */
static uint64_t busy_so_far(const cbi_spill *spill, uint64_t now) {
    return spill->busy_ns + (spill->transfers > 0 ? now - spill->busy_since_ns : 0);
}

static void note_written(cbi_spill *spill, uint64_t raw, uint64_t stored) {
    uint64_t cpu = cbi_sys_cpu_ns();
    cbi_mutex_lock(&spill->lock);
    uint64_t now = cbi_sys_clock_ns();
    spill->stats.raw_bytes += raw;
    spill->stats.stored_bytes += stored;
    cbi_codec_note_write(&spill->codec, raw, now, cpu, busy_so_far(spill, now));
    cbi_mutex_unlock(&spill->lock);
}

/* ---- failures that stay ---- */

static cb_status failed_before(cbi_spill *spill, const cb_error *failure, cb_error *err) {
    cbi_mutex_lock(&spill->lock);
    cb_status status = failure->status;
    if (status != CB_OK && err != NULL) {
        *err = *failure;
    }
    cbi_mutex_unlock(&spill->lock);
    return status;
}

static void keep_failure(cbi_spill *spill, cb_error *failure, const cb_error *err) {
    cbi_mutex_lock(&spill->lock);
    if (failure->status == CB_OK) {
        *failure = *err;
    }
    cbi_mutex_unlock(&spill->lock);
}

/* ---- writing, on an I/O thread ---- */

static cbi_frame_origin origin_of(const cbi_spill *spill, const cbi_request *request,
                                  uint64_t place) {
    return (cbi_frame_origin){
        .salt = spill->salt,
        .owner = request->owner,
        .sequence = request->sequence,
        .position =
            (uint64_t)cbi_place_file(place) << 56 | cbi_place_block(place) * CBI_SPILL_ALIGN,
    };
}

static int write_piece(cbi_spill *spill, cbi_spill_file *file, struct iovec *iov, int count,
                       uint64_t offset, uint64_t bytes) {
    uint64_t began = cbi_sys_clock_ns();
    transfer_begins(spill, began);
    int result = cbi_spill_file_write(file, iov, count, offset, bytes);
    transfer_ends(spill, began, &spill->stats.write_ns);
    return result;
}

/* Pieces that touch in memory become one. */
static void add_piece(struct iovec *iov, int *count, struct iovec piece) {
    struct iovec *last = *count > 0 ? &iov[*count - 1] : NULL;
    if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == piece.iov_base) {
        last->iov_len += piece.iov_len;
        return;
    }
    iov[(*count)++] = piece;
}

static uint64_t payload_bytes(const cbi_spill_segment *segments, uint32_t count) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += segments[i].used;
    }
    return sum;
}

static uint64_t raw_blocks(const cbi_spill_segment *segments, uint32_t count) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += cbi_frame_raw_bytes(segments[i].used) / CBI_SPILL_ALIGN;
    }
    return sum;
}

/* Frames on their way to one stretch of a file. */
typedef struct stretch {
    cbi_spill_file *file;
    uint64_t at;    /* of what is not written yet */
    uint64_t bytes; /* sealed and not written yet */
    uint8_t *tier;  /* of `at`, in memory */
    int count;
    struct iovec iov[CBI_SPILL_VECTOR_MAX];
} stretch;

static int stretch_flush(cbi_spill *spill, stretch *s) {
    int result = 0;
    for (int i = 0; s->tier != NULL && i < s->count; i++) {
        memcpy(s->tier, s->iov[i].iov_base, s->iov[i].iov_len);
        s->tier += s->iov[i].iov_len;
    }
    if (s->tier == NULL && s->count > 0) {
        result = write_piece(spill, s->file, s->iov, s->count, s->at, s->bytes);
    }
    s->at += s->bytes;
    s->bytes = 0;
    s->count = 0;
    return result;
}

static int write_raw_one(cbi_spill *spill, const cbi_request *request, uint64_t place, stretch *s) {
    cbi_frame_origin origin = origin_of(spill, request, place);
    uint64_t offset = 0;
    for (uint32_t i = 0; i < request->count; i++) {
        if (s->count == CBI_SPILL_VECTOR_MAX) {
            int result = stretch_flush(spill, s);
            if (result < 0) {
                return result;
            }
        }
        size_t length = cbi_frame_seal(&request->out[i], &origin, (uint16_t)i, offset);
        add_piece(s->iov, &s->count, (struct iovec){request->out[i].base, length});
        s->bytes += length;
        offset += length;
    }
    return 0;
}

/* The whole list, one batch behind the other. `tier`: where it goes in memory, NULL: to disk. */
static int write_raw(cbi_spill *spill, const cbi_request *request, uint64_t place, uint8_t *tier) {
    uint64_t where = cbi_places_where(&spill->places, place);
    stretch s = {.file = &spill->places.files[cbi_place_file(where)],
                 .at = cbi_place_block(where) * CBI_SPILL_ALIGN,
                 .tier = tier};
    for (; request != NULL; request = request->next) {
        int result = write_raw_one(spill, request, place, &s);
        if (result < 0) {
            return result;
        }
        place += raw_blocks(request->out, request->count);
    }
    return stretch_flush(spill, &s);
}

/* Compresses into the thread's staging memory from `at` on; 0: it does not fit there. */
static size_t pack(cbi_spill *spill, unsigned thread, const cbi_packing *packing,
                   const cbi_spill_segment *segments, uint32_t count, uint32_t owner,
                   uint32_t sequence, size_t at) {
    cbi_frame_origin origin = {.salt = spill->salt, .owner = owner, .sequence = sequence};
    uint64_t began = cbi_sys_clock_ns();
    size_t packed = cbi_frames_pack(segments, count, &origin, packing,
                                    staging_of(spill, thread) + at, staging_capacity(spill) - at);
    uint64_t took = cbi_sys_clock_ns() - began;
    uint64_t raw = payload_bytes(segments, count);
    cbi_mutex_lock(&spill->lock);
    spill->stats.compress_ns += took;
    if (packing->codec == CB_CODEC_LZ4) {
        cbi_codec_note_sample(&spill->codec, raw, packed > 0 ? packed : raw, took);
    }
    cbi_mutex_unlock(&spill->lock);
    return packed;
}

/* The light codec that is asked for, or the one that makes less of these bytes. */
static cb_codec best_light(const cbi_spill *spill, const uint8_t *from, size_t count,
                           size_t *distance, size_t *stored) {
    *distance = cbi_delta_distance(from, count);
    size_t delta = cbi_delta_measure(from, count, *distance);
    size_t nibble = cbi_nibble_measure(from, count);
    cb_codec wanted = spill->codec.wanted; /* never changes */
    bool is_delta = wanted == CB_CODEC_DELTA || (wanted != CB_CODEC_NIBBLE && delta <= nibble);
    *stored = is_delta ? delta : nibble;
    return is_delta ? CB_CODEC_DELTA : CB_CODEC_NIBBLE;
}

/* What lz4 and the light codecs would make of the batch's beginning. */
static void take_sample(cbi_spill *spill, unsigned thread, const cbi_request *request) {
    cbi_spill_segment piece = request->out[0];
    piece.used = piece.used < SAMPLE_MAX_BYTES ? piece.used : SAMPLE_MAX_BYTES;
    cbi_packing lz4 = {.codec = CB_CODEC_LZ4, .state = lz4_state_of(spill, thread)};
    (void)pack(spill, thread, &lz4, &piece, 1, request->owner, request->sequence, 0);
    size_t distance, stored;
    cb_codec light =
        best_light(spill, piece.base + CBI_FRAME_HEADER_BYTES, piece.used, &distance, &stored);
    cbi_mutex_lock(&spill->lock);
    cbi_codec_note_light(&spill->codec, light, distance, piece.used, stored);
    cbi_mutex_unlock(&spill->lock);
}

/* The packing of now, after the sample that may be due. */
static cbi_packing choose_packing(cbi_spill *spill, unsigned thread, const cbi_request *request,
                                  double *ratio) {
    cbi_mutex_lock(&spill->lock);
    bool sample = staging_capacity(spill) > 0 && cbi_codec_wants_sample(&spill->codec);
    cbi_mutex_unlock(&spill->lock);
    if (sample) {
        take_sample(spill, thread, request);
    }
    cbi_mutex_lock(&spill->lock);
    cbi_packing packing = {.codec = CB_CODEC_NONE};
    if (staging_capacity(spill) > 0) {
        packing = (cbi_packing){.codec = spill->codec.now,
                                .distance = spill->codec.distance,
                                .state = lz4_state_of(spill, thread)};
    }
    *ratio = cbi_codec_ratio(&spill->codec);
    cbi_mutex_unlock(&spill->lock);
    return packing;
}

/* The first batches of a list, on their way to one stretch of a file. */
typedef struct group {
    unsigned count;
    bool packed;
    uint64_t blocks; /* of all */
    uint64_t payload;
    uint32_t each[CBI_IO_DEPTH];         /* blocks of each, if packed */
    uint32_t packed_bytes[CBI_IO_DEPTH]; /* of each, before they are rounded up to blocks */
} group;

/* Packs as many as fit in the staging memory and become smaller. */
static void pack_group(cbi_spill *spill, unsigned thread, const cbi_request *first, group *g) {
    double ratio = 1;
    cbi_packing packing = choose_packing(spill, thread, first, &ratio);
    size_t at = 0;
    for (const cbi_request *r = first; r != NULL && packing.codec != CB_CODEC_NONE; r = r->next) {
        cb_assert(g->count < CBI_IO_DEPTH);
        uint64_t payload = payload_bytes(r->out, r->count);
        if (at + (uint64_t)((double)payload / ratio) > staging_capacity(spill)) {
            return;
        }
        size_t packed = pack(spill, thread, &packing, r->out, r->count, r->owner, r->sequence, at);
        size_t whole = cbi_round_up(packed, CBI_SPILL_ALIGN);
        if (packed == 0 || whole >= raw_blocks(r->out, r->count) * CBI_SPILL_ALIGN) {
            return;
        }
        g->packed = true;
        g->packed_bytes[g->count] = (uint32_t)packed;
        g->each[g->count++] = (uint32_t)(whole / CBI_SPILL_ALIGN);
        g->blocks += whole / CBI_SPILL_ALIGN;
        g->payload += payload;
        at += whole;
    }
}

static group make_group(cbi_spill *spill, unsigned thread, const cbi_request *first) {
    group g = {0};
    pack_group(spill, thread, first, &g);
    for (const cbi_request *r = first; r != NULL && !g.packed; r = r->next) {
        g.count++;
        g.blocks += raw_blocks(r->out, r->count);
        g.payload += payload_bytes(r->out, r->count);
    }
    return g;
}

static int write_packed(cbi_spill *spill, unsigned thread, const cbi_request *request,
                        uint64_t place, uint8_t *tier, const group *g) {
    uint8_t *staging = staging_of(spill, thread);
    struct iovec iov = {staging, g->blocks * CBI_SPILL_ALIGN};
    uint64_t where = cbi_places_where(&spill->places, place);
    cbi_spill_file *file = &spill->places.files[cbi_place_file(where)];
    for (unsigned i = 0; i < g->count; i++, request = request->next) {
        cbi_frame_origin origin = origin_of(spill, request, place);
        staging += cbi_frames_seal_packed(staging, g->packed_bytes[i], &origin);
        place += g->each[i];
    }
    if (tier != NULL) {
        memcpy(tier, iov.iov_base, iov.iov_len);
        return 0;
    }
    return write_piece(spill, file, &iov, 1, cbi_place_block(where) * CBI_SPILL_ALIGN, iov.iov_len);
}

/* Only when the disk cannot follow, which is when nearly all threads wait for it: see tier.c. */
static bool wants_tier(cbi_spill *spill) {
    if (spill->places.tier.blocks == 0) {
        return false;
    }
    cbi_mutex_lock(&spill->lock);
    bool busy = spill->transfers * 4 >= spill->io.thread_count * 3;
    cbi_mutex_unlock(&spill->lock);
    return busy || spill->tier_first;
}

/* All of the group lies in one stretch; answers where it begins. */
static cb_status write_group(cbi_spill *spill, unsigned thread, const cbi_request *first,
                             const group *g, uint64_t *place, cb_error *err) {
    bool in_memory;
    for (;;) {
        CB_TRY(cbi_places_reserve(&spill->places, first->owner, g->blocks, wants_tier(spill), place,
                                  err));
        uint8_t *tier = cbi_places_pin(&spill->places, *place);
        in_memory = tier != NULL;
        int result = g->packed ? write_packed(spill, thread, first, *place, tier, g)
                               : write_raw(spill, first, *place, tier);
        if (in_memory) {
            cbi_places_unpin(&spill->places);
        }
        if (result >= 0) {
            break;
        }
        bool full = result == -ENOSPC || result == -EDQUOT || result == -EFBIG;
        bool another = cbi_places_refused(&spill->places, *place, g->blocks, full);
        if (!full || !another) {
            return cbi_places_fail(&spill->places, *place, result, "writing",
                                   g->blocks * CBI_SPILL_ALIGN, err);
        }
    }
    note_written(spill, g->payload, in_memory ? 0 : g->blocks * CBI_SPILL_ALIGN);
    return CB_OK;
}

/* Answers what is left of the list. */
static const cbi_request *perform_group(cbi_spill *spill, unsigned thread,
                                        const cbi_request *first) {
    cb_error err = {.status = CB_OK};
    uint64_t place = 0;
    group g = make_group(spill, thread, first);
    cb_status status = failed_before(spill, &spill->write_failure, &err);
    if (status == CB_OK) {
        status = write_group(spill, thread, first, &g, &place, &err);
        if (status != CB_OK) {
            keep_failure(spill, &spill->write_failure, &err);
        }
    }
    const cbi_request *r = first;
    for (unsigned i = 0; i < g.count; i++, r = r->next) {
        uint64_t blocks = g.packed ? g.each[i] : raw_blocks(r->out, r->count);
        cbi_extent extent = {.place = place | (g.packed ? CBI_PLACE_PACKED : 0),
                             .blocks = (uint32_t)blocks,
                             .segments = r->count};
        place += blocks;
        r->done(r->ctx, status, status == CB_OK ? &extent : NULL, status == CB_OK ? NULL : &err);
    }
    return r;
}

static void perform_write(cbi_spill *spill, unsigned thread, const cbi_request *list) {
    while (list != NULL) {
        list = perform_group(spill, thread, list);
    }
}

static void perform_output(cbi_spill *spill, const cbi_request *request) {
    cb_error err = {.status = CB_OK};
    cb_status status = failed_before(spill, &spill->output_failure, &err);
    if (status == CB_OK) {
        uint64_t began = cbi_sys_clock_ns();
        transfer_begins(spill, began);
        int result = cbi_sys_pwrite(request->fd, request->buf, request->bytes, request->offset);
        if (result >= 0) {
            cbi_sys_write_out(request->fd, request->offset, request->bytes);
        }
        transfer_ends(spill, began, &spill->stats.write_ns);
        if (result < 0) {
            status = cbi_fail_sys(&err, CB_EIO, result,
                                  "writing %zu bytes at byte %" PRIu64 " of the output failed",
                                  request->bytes, request->offset);
            keep_failure(spill, &spill->output_failure, &err);
        }
    }
    request->done(request->ctx, status, NULL, status == CB_OK ? NULL : &err);
}

/* ---- reading, on an I/O thread ---- */

static int read_piece(cbi_spill *spill, cbi_spill_file *file, struct iovec *iov, int count,
                      uint64_t offset, uint64_t bytes) {
    uint64_t began = cbi_sys_clock_ns();
    transfer_begins(spill, began);
    int result = cbi_spill_file_read(file, iov, count, offset, bytes);
    transfer_ends(spill, began, &spill->stats.read_ns);
    return result;
}

/* Back to back into the segments, each to its capacity. */
static int read_raw(cbi_spill *spill, const cbi_request *request, cbi_spill_file *file,
                    uint64_t start, uint64_t bytes) {
    struct iovec iov[CBI_SPILL_VECTOR_MAX];
    uint64_t done = 0;
    for (uint32_t i = 0; i < request->count && done < bytes;) {
        uint64_t piece = 0;
        int count = 0;
        while (i < request->count && count < CBI_SPILL_VECTOR_MAX && done + piece < bytes) {
            size_t length = cbi_min(request->in[i].capacity, bytes - done - piece);
            add_piece(iov, &count, (struct iovec){request->in[i].base, length});
            piece += length;
            i++;
        }
        int result = read_piece(spill, file, iov, count, start + done, piece);
        if (result < 0) {
            return result;
        }
        done += piece;
    }
    return 0;
}

static cb_status fail_read(cbi_spill *spill, uint64_t place, uint64_t bytes, int result,
                           cb_error *err) {
    const cbi_spill_file *file = &spill->places.files[cbi_place_file(place)];
    const char *path = spill->places.folders[file->folder].path;
    uint64_t start = cbi_place_block(place) * CBI_SPILL_ALIGN;
    struct stat st;
    if (result == -EIO && cbi_sys_fstat(file->fd, &st) >= 0 &&
        (uint64_t)st.st_size < start + bytes) {
        return cbi_fail(err, CB_ECORRUPT,
                        "temporary file %u in %s was cut off: it ends at byte %" PRIu64
                        ", and %" PRIu64 " were written. Nothing wrong was given out; run again",
                        cbi_place_file(place), path, (uint64_t)st.st_size, start + bytes);
    }
    return cbi_fail_sys(err, CB_EIO, result,
                        "reading %" PRIu64 " bytes at byte %" PRIu64
                        " of temporary file %u in %s failed",
                        bytes, start, cbi_place_file(place), path);
}

static cb_status fail_damaged(const cbi_spill *spill, uint64_t place, const cb_error *what,
                              cb_error *err) {
    if (cbi_tier_is(&spill->places, place)) {
        return cbi_fail(err, CB_ECORRUPT,
                        "what was kept in memory is not what was put there: %.300s. The memory is "
                        "at fault. Nothing wrong was given out; run again",
                        what->message);
    }
    const cbi_spill_file *file = &spill->places.files[cbi_place_file(place)];
    return cbi_fail(err, CB_ECORRUPT,
                    "what came back from temporary file %u in %s at byte %" PRIu64
                    " is not what was written: %.300s. The disk, "
                    "its driver or the memory is at fault. Nothing wrong was given out; run again, "
                    "with another folder (-T)",
                    cbi_place_file(place), spill->places.folders[file->folder].path,
                    cbi_place_block(place) * CBI_SPILL_ALIGN, what->message);
}

/* What lies in memory, packed there and then or laid out as segments to their capacity. */
static cb_status read_tier(const cbi_request *request, const uint8_t *tier, uint64_t bytes,
                           const cbi_frame_origin *origin, cb_error *what) {
    if (cbi_place_packed(request->extent.place)) {
        return cbi_frames_unpack(tier, bytes, request->in, request->count, origin, what);
    }
    uint64_t done = 0;
    for (uint32_t i = 0; i < request->count && done < bytes; i++) {
        size_t length = cbi_min(request->in[i].capacity, bytes - done);
        memcpy(request->in[i].base, tier + done, length);
        done += length;
    }
    return cbi_frames_settle(request->in, request->count, bytes, origin, what);
}

static cb_status read_disk(cbi_spill *spill, unsigned thread, const cbi_request *request,
                           uint64_t place, uint64_t bytes, const cbi_frame_origin *origin,
                           cb_error *what, cb_error *err) {
    uint64_t start = cbi_place_block(place) * CBI_SPILL_ALIGN;
    cbi_spill_file *file = &spill->places.files[cbi_place_file(place)];
    bool packed = cbi_place_packed(request->extent.place);
    uint8_t *staging = packed ? staging_of(spill, thread) : NULL;
    struct iovec whole = {staging, bytes};
    int result = packed ? read_piece(spill, file, &whole, 1, start, bytes)
                        : read_raw(spill, request, file, start, bytes);
    if (result < 0) {
        return fail_read(spill, place, bytes, result, err);
    }
    cbi_mutex_lock(&spill->lock);
    spill->stats.read_bytes += bytes;
    cbi_mutex_unlock(&spill->lock);
    return packed ? cbi_frames_unpack(staging, bytes, request->in, request->count, origin, what)
                  : cbi_frames_settle(request->in, request->count, bytes, origin, what);
}

static cb_status read_batch(cbi_spill *spill, unsigned thread, const cbi_request *request,
                            cb_error *err) {
    uint64_t place = request->extent.place;
    uint64_t bytes = (uint64_t)request->extent.blocks * CBI_SPILL_ALIGN;
    cbi_frame_origin origin = origin_of(spill, request, place);
    cb_error what = {.status = CB_OK};
    const uint8_t *tier = cbi_places_pin(&spill->places, place);
    cb_status status;
    if (tier != NULL) {
        status = read_tier(request, tier, bytes, &origin, &what);
        cbi_places_unpin(&spill->places);
    } else {
        place = cbi_places_where(&spill->places, place);
        status = read_disk(spill, thread, request, place, bytes, &origin, &what, err);
    }
    if (status == CB_OK || what.status == CB_OK) { /* a failed transfer has told already */
        return status;
    }
    return fail_damaged(spill, place, &what, err);
}

static void perform_read(cbi_spill *spill, unsigned thread, const cbi_request *request) {
    cb_error err = {.status = CB_OK};
    cb_status status = read_batch(spill, thread, request, &err);
    request->done(request->ctx, status, status == CB_OK ? &request->extent : NULL,
                  status == CB_OK ? NULL : &err);
}

/* ---- the threads' work ---- */

static void perform(void *ctx, unsigned thread, const cbi_request *request) {
    switch (request->kind) {
        case CBI_IO_WRITE: perform_write(ctx, thread, request); break;
        case CBI_IO_READ: perform_read(ctx, thread, request); break;
        case CBI_IO_OUTPUT: perform_output(ctx, request); break;
    }
}

static bool empty_one(void *ctx) {
    cbi_spill *spill = ctx;
    return cbi_places_empty_one(&spill->places);
}

static void close_files(void *ctx) {
    cbi_spill *spill = ctx;
    while (cbi_places_close_next(&spill->places)) {
    }
}

/* ---- opening and closing ---- */

static cb_status check_options(const cbi_spill_options *o, cb_error *err) {
    if (o->dir_count < 1 || o->dir_count > CBI_SPILL_FOLDERS_MAX) {
        return cbi_fail(err, CB_EINVAL, "%zu temporary folders: from 1 to %d can be used",
                        o->dir_count, CBI_SPILL_FOLDERS_MAX);
    }
    if (o->io_threads > CBI_IO_THREADS_MAX || (o->io_threads == 0 && o->codec != CB_CODEC_NONE)) {
        return cbi_fail(err, CB_EINVAL,
                        "%u I/O threads: up to %d can be used, and none only without a codec",
                        o->io_threads, CBI_IO_THREADS_MAX);
    }
    size_t staging = cbi_spill_staging_bytes(o->io_threads, o->segment_bytes, o->codec);
    bool aligned = (uintptr_t)o->staging % CBI_SPILL_ALIGN == 0;
    if (staging > 0 && (o->staging == NULL || o->staging_bytes < staging || !aligned)) {
        return cbi_fail(err, CB_EINVAL,
                        "staging memory: %zu bytes are needed, aligned to %d, %zu are there",
                        staging, CBI_SPILL_ALIGN, o->staging_bytes);
    }
    return CB_OK;
}

/* Differs from process to process and from spill to spill. */
static uint64_t make_salt(const cbi_spill *spill) {
    uint64_t seeds[3] = {cbi_sys_clock_ns(), cbi_sys_cpu_ns(), (uint64_t)(uintptr_t)spill};
    return cbi_frame_hash((const uint8_t *)seeds, sizeof seeds, (uint64_t)(uintptr_t)&seeds);
}

static cb_status open_parts(cbi_spill *spill, const cbi_spill_options *options, cb_error *err) {
    cb_assert(LZ4_sizeofState() <= LZ4_STATE_BYTES);
    spill->salt = make_salt(spill);
    cbi_mutex_init(&spill->lock, CBI_RANK_SPILL);
    spill->ready = true;
    if (options->codec != CB_CODEC_NONE) {
        spill->staging = options->staging;
        spill->staging_slice = slice_bytes(options->segment_bytes);
    }
    spill->tier_first = options->tier_first;
    cbi_codec_init(&spill->codec, options->codec, cbi_sys_cpus());
    CB_TRY(cbi_places_init(&spill->places, options, err));
    spill->direct = true;
    for (uint32_t i = 0; i < spill->places.folder_count; i++) {
        spill->direct = spill->direct && spill->places.folders[i].direct;
    }
    cbi_io_work work = {
        .perform = perform, .chore = empty_one, .farewell = close_files, .ctx = spill};
    return cbi_io_init(&spill->io, options->io_threads, work, err);
}

cb_status cbi_spill_open(const cbi_spill_options *options, cbi_spill **spill, cb_error *err) {
    CB_TRY(check_options(options, err));
    cbi_spill *made = cbi_calloc(1, sizeof *made);
    if (made == NULL) {
        return cbi_fail(err, CB_ENOMEM, "no memory for the table of temporary files");
    }
    cb_status status = open_parts(made, options, err);
    if (status != CB_OK) {
        cbi_spill_close(made);
        return status;
    }
    *spill = made;
    return CB_OK;
}

void cbi_spill_close(cbi_spill *spill) {
    if (spill == NULL) {
        return;
    }
    cbi_io_fini(&spill->io);
    cbi_places_fini(&spill->places);
    if (spill->ready) {
        cbi_mutex_fini(&spill->lock);
    }
    cbi_free(spill);
}

/* ---- requests ---- */

static cb_status check_segments(const cbi_spill_segment *segments, uint32_t count, cb_error *err) {
    bool good = count >= 1 && count <= UINT16_MAX;
    for (uint32_t i = 0; good && i < count; i++) {
        const cbi_spill_segment *s = &segments[i];
        good = (uintptr_t)s->base % CBI_SPILL_ALIGN == 0 && s->capacity >= CBI_SPILL_ALIGN &&
               s->capacity % CBI_SPILL_ALIGN == 0;
    }
    return good
               ? CB_OK
               : cbi_fail(err, CB_EMISUSE,
                          "a batch to spill has no segments, too many, or one that is not aligned");
}

cb_status cbi_spill_write(cbi_spill *spill, uint32_t owner, uint32_t sequence,
                          const cbi_spill_segment *segments, uint32_t count, cbi_spill_done_fn done,
                          void *ctx, cb_error *err) {
    CB_TRY(check_segments(segments, count, err));
    for (uint32_t i = 0; i < count; i++) {
        if (segments[i].used > segments[i].capacity - CBI_FRAME_HEADER_BYTES) {
            return cbi_fail(err, CB_EMISUSE, "a segment to spill says it holds more than it can");
        }
    }
    uint64_t blocks = raw_blocks(segments, count);
    if (blocks > UINT32_MAX) {
        return cbi_fail(err, CB_EMISUSE, "a batch to spill is larger than an extent can be");
    }
    CB_TRY(failed_before(spill, &spill->write_failure, err));
    size_t bytes = (size_t)blocks * CBI_SPILL_ALIGN;
    cbi_request request = {.kind = CBI_IO_WRITE,
                           .bytes = bytes,
                           .mergeable = bytes <= MERGEABLE_BYTES,
                           .owner = owner,
                           .sequence = sequence,
                           .out = segments,
                           .count = count,
                           .done = done,
                           .ctx = ctx};
    return cbi_io_submit(&spill->io, &request, err);
}

cb_status cbi_spill_read(cbi_spill *spill, uint32_t owner, uint32_t sequence,
                         const cbi_extent *extent, cbi_spill_segment *segments, uint32_t count,
                         cbi_spill_done_fn done, void *ctx, cb_error *err) {
    CB_TRY(check_segments(segments, count, err));
    uint64_t capacity = 0;
    for (uint32_t i = 0; i < count; i++) {
        capacity += segments[i].capacity;
    }
    uint64_t bytes = (uint64_t)extent->blocks * CBI_SPILL_ALIGN;
    bool packed = cbi_place_packed(extent->place);
    bool known =
        cbi_place_file(extent->place) <= spill->places.folder_count * spill->places.groups &&
        bytes > 0 && (packed ? bytes <= staging_capacity(spill) : bytes <= capacity);
    if (count != extent->segments || !known) {
        return cbi_fail(err, CB_EMISUSE,
                        "an extent to read back has other segments than it was written from");
    }
    cbi_request request = {.kind = CBI_IO_READ,
                           .owner = owner,
                           .sequence = sequence,
                           .in = segments,
                           .count = count,
                           .extent = *extent,
                           .done = done,
                           .ctx = ctx};
    return cbi_io_submit(&spill->io, &request, err);
}

static int write_tier(cbi_spill *spill, uint64_t place, uint64_t blocks) {
    enum { PIECE_BLOCKS = 256 };
    cbi_spill_file *file = &spill->places.files[cbi_place_file(place)];
    uint64_t start = cbi_place_block(place);
    for (uint64_t at = 0; at < blocks; at += PIECE_BLOCKS) {
        size_t bytes = (size_t)cbi_min(blocks - at, PIECE_BLOCKS) * CBI_SPILL_ALIGN;
        struct iovec iov = {spill->places.tier.memory + at * CBI_SPILL_ALIGN, bytes};
        int result = write_piece(spill, file, &iov, 1, (start + at) * CBI_SPILL_ALIGN, bytes);
        if (result < 0) {
            return result;
        }
    }
    return 0;
}

cb_status cbi_spill_give_back(cbi_spill *spill, uint8_t **base, cb_error *err) {
    uint64_t blocks, place = 0;
    *base = NULL;
    if (!cbi_tier_leave(&spill->places, &blocks)) {
        return CB_OK;
    }
    uint8_t *memory = spill->places.tier.memory;
    cb_status status =
        blocks > 0 ? cbi_places_reserve(&spill->places, 0, blocks, false, &place, err) : CB_OK;
    int result = status == CB_OK && blocks > 0 ? write_tier(spill, place, blocks) : 0;
    if (result < 0) {
        (void)cbi_places_free(&spill->places, place, blocks);
        status = cbi_places_fail(&spill->places, place, result, "writing", blocks * CBI_SPILL_ALIGN,
                                 err);
    }
    if (status != CB_OK) {
        cbi_tier_stayed(&spill->places);
        return status;
    }
    cbi_tier_left(&spill->places, place, blocks);
    cbi_mutex_lock(&spill->lock);
    spill->stats.stored_bytes += blocks * CBI_SPILL_ALIGN;
    cbi_mutex_unlock(&spill->lock);
    *base = memory;
    return CB_OK;
}

void cbi_spill_free(cbi_spill *spill, const cbi_extent *extent) {
    if (cbi_places_free(&spill->places, extent->place, extent->blocks)) {
        cbi_io_wake(&spill->io);
    }
}

cb_status cbi_spill_pwrite(cbi_spill *spill, int fd, const uint8_t *buf, size_t bytes,
                           uint64_t offset, cbi_spill_done_fn done, void *ctx, cb_error *err) {
    CB_TRY(failed_before(spill, &spill->output_failure, err));
    cbi_request request = {.kind = CBI_IO_OUTPUT,
                           .fd = fd,
                           .buf = buf,
                           .bytes = bytes,
                           .offset = offset,
                           .done = done,
                           .ctx = ctx};
    return cbi_io_submit(&spill->io, &request, err);
}

void cbi_spill_get_stats(const cbi_spill *spill, cbi_spill_stats *stats) {
    cbi_spill *mutable = (cbi_spill *)(uintptr_t)spill; /* for its locks only */
    cbi_mutex_lock(&mutable->lock);
    *stats = mutable->stats;
    stats->codec = mutable->codec.now;
    cbi_mutex_unlock(&mutable->lock);
    cbi_mutex_lock(&mutable->places.lock);
    stats->live_bytes = mutable->places.live_blocks * CBI_SPILL_ALIGN;
    stats->live_peak_bytes = mutable->places.live_peak_blocks * CBI_SPILL_ALIGN;
    cbi_mutex_unlock(&mutable->places.lock);
    stats->direct = mutable->direct;
}
