/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_CHANNEL_H
#define CARBIDE_CHANNEL_H

#include "carbide/sort.h" /* cb_codec */
#include "carbide/view.h"

CB_EXTERN_C_BEGIN

/*
 * Views on disk (Flink 1.9: IOManager, ChannelWriterOutputView, ChannelReaderInputView). A channel
 * is a stream in temporary files: written once through a view, then read through views as often as
 * wanted. It lives in the spill files that carbide's own operators use: frames with owner, place
 * and checksum, written behind and read ahead by I/O threads, compressed when that pays, gone with
 * the process (docs/spill-format.md). Memory is the caller's segments and nothing else; two a view
 * let the disk and the caller work at the same time, one is enough.
 */

typedef struct cb_channels cb_channels; /**< the files; Flink: IOManager */
typedef struct cb_channel cb_channel;
typedef struct cb_channel_writer cb_channel_writer;
typedef struct cb_channel_reader cb_channel_reader;

typedef struct cb_channels_options {
    size_t struct_size;
    cb_segment_pool *pool;   /**< segments of channels are at most as large as its own; memory to
                                compress with is a run of them */
    const char *const *dirs; /**< at least one; striped */
    size_t dir_count;
    uint64_t limit_bytes; /**< of all files together; 0 = none */
    cb_codec codec;       /**< CB_CODEC_NONE needs no memory */
    unsigned io_threads;  /**< at most 8; 0 = 2 */
    bool allow_memory_fs; /**< temporary space on a memory file system is refused otherwise */
    bool page_cache;      /**< Files are written and read through the kernel's page cache and stay
                             in it while there is room; otherwise past it, which memory that is
                             measured from outside wants. */
    bool no_threads;      /**< Who writes or reads moves the bytes. With page_cache that is sooner
                             done than handed over; CB_CODEC_NONE only. */
} cb_channels_options;

/** CB_EINVAL; CB_EBUDGET: the pool has no run of segments for compressing; CB_ENOMEM; CB_ETHREAD;
 *  CB_EIO, CB_ENOSPC, CB_EUNSUPPORTED: a folder cannot be used. */
CB_API CB_MUST_USE cb_status cb_channels_open(const cb_channels_options *options,
                                              cb_channels **channels, cb_error *err);

/** All channels are gone, and their views before them. NULL is fine. */
CB_API void cb_channels_close(cb_channels *channels);

/** An empty channel. At most 2^32 - 1 in the life of `channels`. CB_ENOMEM. Any thread. */
CB_API CB_MUST_USE cb_status cb_channel_create(cb_channels *channels, cb_channel **channel,
                                               cb_error *err);

/** Its space can be used again. Its views are closed. NULL is fine. */
CB_API void cb_channel_destroy(cb_channel *channel);

/** What was written through the view, without headers, and in how many segments. After finish. */
CB_API uint64_t cb_channel_bytes(const cb_channel *channel);
CB_API size_t cb_channel_segments(const cb_channel *channel);

/**
 * Begins to write a channel with `count` segments, at least one, all of one size, aligned to 4 KiB
 * as those of pools are. They are busy until the writer is closed; the handles stay the caller's.
 * CB_EMISUSE: the channel has been written already, or is being. CB_EINVAL, CB_ENOMEM.
 */
CB_API CB_MUST_USE cb_status cb_channel_writer_open(cb_channel *channel, const cb_segment *segments,
                                                    size_t count, cb_channel_writer **writer,
                                                    cb_error *err);

/** The view to write through, borrowed. Its calls wait while all segments are on their way; they
 * and finish answer the first failure of a write, CB_EIO or CB_ENOSPC. */
CB_API cb_output_view *cb_channel_writer_view(cb_channel_writer *writer);

/** Writes the rest and waits until all is there. Nothing can be written any more. */
CB_API CB_MUST_USE cb_status cb_channel_writer_finish(cb_channel_writer *writer, cb_error *err);

/** Waits for what is under way. Without a finish before it the channel is empty again. NULL is
 *  fine. */
CB_API void cb_channel_writer_close(cb_channel_writer *writer);

/**
 * Begins to read a channel that was finished; as many readers as wanted, each with segments of its
 * own, at least as large as those it was written with. CB_EMISUSE: not finished. CB_EINVAL,
 * CB_ENOMEM.
 */
CB_API CB_MUST_USE cb_status cb_channel_reader_open(const cb_channel *channel,
                                                    const cb_segment *segments, size_t count,
                                                    cb_channel_reader **reader, cb_error *err);

/** The view to read from, borrowed. Its calls wait for the disk; CB_EIO, CB_ECORRUPT. */
CB_API cb_input_view *cb_channel_reader_view(cb_channel_reader *reader);

/**
 * The next byte is read at `position`, counted from the first one written (Flink:
 * SeekableFileChannelInputView). CB_EINVAL: behind the end, or the writer went on to a new segment
 * (cb_output_view_advance) before one was full, so that places cannot be counted. Waits.
 */
CB_API CB_MUST_USE cb_status cb_channel_reader_seek(cb_channel_reader *reader, uint64_t position,
                                                    cb_error *err);

/** Waits for what is under way. NULL is fine. */
CB_API void cb_channel_reader_close(cb_channel_reader *reader);

/* ---- in memory as long as it goes ---- */

/**
 * A stream that stays in memory while its owner can have segments, and goes to a channel from there
 * on (Flink: SpillingBuffer). Written once, then read from the start as often as wanted. What it
 * knows of its segments, about 150 bytes each, lies in small objects.
 */
typedef struct cb_spilling cb_spilling;

/** `channel` is empty, and is the stream's as long as it lives; both are borrowed. CB_EMISUSE: the
 *  channel is in use. CB_ENOMEM. */
CB_API CB_MUST_USE cb_status cb_spilling_create(cb_channel *channel, cb_segment_owner *owner,
                                                cb_spilling **spilling, cb_error *err);

/** The view to write through, borrowed. CB_EBUDGET when there is not even a first segment. */
CB_API cb_output_view *cb_spilling_view(cb_spilling *spilling);

/** Whether it went to disk. */
CB_API bool cb_spilling_is_on_disk(const cb_spilling *spilling);

/** Ends writing, the first time, and begins to read from the start; the view is borrowed until the
 *  next call. */
CB_API CB_MUST_USE cb_status cb_spilling_read(cb_spilling *spilling, cb_input_view **view,
                                              cb_error *err);

/** Gives the segments back to where they came from. NULL is fine. */
CB_API void cb_spilling_destroy(cb_spilling *spilling);

CB_EXTERN_C_END

#endif
