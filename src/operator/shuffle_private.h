/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SHUFFLE_PRIVATE_H
#define CBI_SHUFFLE_PRIVATE_H

#include "base/sys.h"
#include "carbide/channel.h"
#include "carbide/shuffle.h"

/* ---- where the time goes ---- */

/** What a shuffle's lock is held for. OUTSIDE: it is not; records are made and handed over. */
typedef enum cbi_phase {
    CBI_OUTSIDE,
    CBI_COPYING,     /* records to the places of their partitions */
    CBI_COMPRESSING, /* and hashing, as the codec's frames want it */
    CBI_SPILLING,
    CBI_MERGING, /* what was spilled is read back, chunks come together, checksums */
    CBI_WRITING, /* calls that write the file */
    CBI_PHASES
} cbi_phase;

/** A clock that runs for one phase at a time. Guarded by the shuffle's lock; sums can be read by
 * any thread. */
typedef struct cbi_phases {
    _Atomic uint64_t ns[CBI_PHASES];
    uint64_t since;
    cbi_phase now;
} cbi_phases;

/** From now on it is this one; what it was before. NULL: nobody wants to know. */
static inline cbi_phase cbi_phase_enter(cbi_phases *phases, cbi_phase phase) {
    if (phases == NULL) {
        return CBI_OUTSIDE;
    }
    uint64_t now = cbi_sys_clock_ns();
    cbi_phase before = phases->now;
    _Atomic uint64_t *sum = &phases->ns[before];
    atomic_store_explicit(sum,
                          atomic_load_explicit(sum, memory_order_relaxed) + (now - phases->since),
                          memory_order_relaxed);
    phases->since = now;
    phases->now = phase;
    return before;
}

/* ---- where encoded bytes go (shuffle_out.c) ---- */

enum {
    CBI_OUT_BYTES = 256 * 1024, /* a write */
    CBI_CHUNK_BYTES_MAX = 128 * 1024 * 1024
};

/**
 * A file, or a run of a spill. In a run bytes are chunks {u32 length, bytes}, and a chunk of length
 * 0 ends a partition; in the file there is nothing between them.
 */
typedef struct cbi_out {
    uint8_t *buffer;
    size_t used, size;
    cb_output_view *view; /* of a run; NULL: the file */
    int fd;
    uint64_t offset; /* of the buffer's first byte */
    cb_shuffle_checksum algorithm;
    uint32_t checksum;  /* of the partition so far */
    cbi_phases *phases; /* or NULL */
} cbi_out;

/** Room for a chunk of at most `bytes`: where it goes, in *place. */
cb_status cbi_out_reserve(cbi_out *out, size_t bytes, uint8_t **place, cb_error *err);
/** So many bytes of what was reserved last are a chunk. */
void cbi_out_commit(cbi_out *out, size_t bytes);
cb_status cbi_out_flush(cbi_out *out, cb_error *err);
/** In a run: no more chunks of this partition. */
cb_status cbi_out_end_partition(cbi_out *out, cb_error *err);
static inline uint64_t cbi_out_position(const cbi_out *out) {
    return out->offset + out->used;
}

uint32_t cbi_checksum_start(cb_shuffle_checksum algorithm);
uint32_t cbi_checksum_update(cb_shuffle_checksum algorithm, uint32_t checksum, const uint8_t *bytes,
                             size_t count);

/* ---- codecs (shuffle_encode.c) ---- */

/** Ways to search a block for what LZ4 can leave out, the cheapest first. */
enum { CBI_WAY_ROWS, CBI_WAY_ROWS_HALF, CBI_WAY_ROWS_ALL, CBI_WAY_LZ4, CBI_WAYS };

typedef struct cbi_encoder {
    cb_shuffle_codec codec;
    uint32_t block_bytes;
    uint32_t filled; /* of the block */
    uint8_t *block;  /* lz4: what is not a block yet */
    void *state;     /* lz4: its table; zstd: its context lives in it */
    size_t state_bytes;
    void *rows;               /* lz4: tables of rows */
    uint64_t tried[CBI_WAYS]; /* lz4: what blocks took each way, the latest most */
    uint32_t blocks;
    unsigned way;
    void *zstd;
    bool open;          /* zstd: a frame has begun */
    cbi_phases *phases; /* or NULL */
} cbi_encoder;

/** lz4: `count` bytes, at most a block, as a chunk of at most cbi_encoder_chunk_max(); its size. */
size_t cbi_encoder_block(cbi_encoder *encoder, uint8_t *to, const uint8_t *bytes, uint32_t count);
/** The largest chunk that an encoder reserves. */
size_t cbi_encoder_chunk_max(cb_shuffle_codec codec, uint32_t block_bytes);
cb_status cbi_encoder_init(cbi_encoder *encoder, cb_shuffle_codec codec, uint32_t block_bytes,
                           int level, cb_error *err);
void cbi_encoder_fini(cbi_encoder *encoder);
cb_status cbi_encoder_put(cbi_encoder *encoder, cbi_out *out, const uint8_t *bytes, size_t count,
                          cb_error *err);
/** What was put so far is complete. */
cb_status cbi_encoder_flush(cbi_encoder *encoder, cbi_out *out, cb_error *err);
/** Behind a partition's last byte in the file, when it has any. */
cb_status cbi_encoder_end(cbi_encoder *encoder, cbi_out *out, cb_error *err);

/* ---- rows as LZ4 (shuffle_rows.c) ---- */

enum { CBI_ROWS_BYTES_MIN = 256 };

size_t cbi_rows_state_bytes(void);
/** Rows framed by their sizes as an LZ4 block of at most LZ4_compressBound(count) bytes: its size;
 * 0: these are not rows, or no 256 to 65,535 bytes. Every `period`th row is searched better. */
size_t cbi_rows_encode(void *state, uint32_t period, uint8_t *to, const uint8_t *bytes,
                       uint32_t count);

/* ---- spilled runs (shuffle_runs.c) ---- */

enum {
    CBI_RUNS_MAX = 16,   /* more are merged first */
    CBI_RUNS_MERGED = 8, /* at a time */
    CBI_RUN_SEGMENT_BYTES = 128 * 1024,
    CBI_RUN_WRITER_SEGMENTS = 1,
    CBI_RUN_READER_SEGMENTS = 1
};

typedef struct cbi_run {
    cb_channel *channel;
    cb_channel_reader *reader;
    cb_segment segments[CBI_RUN_READER_SEGMENTS];
} cbi_run;

/** The runs in the order in which they were spilled. */
typedef struct cbi_runs {
    cb_manager *manager; /* owns the memory below */
    cb_task *task;
    cb_segment_pool *pool;
    cb_segment_owner *owner;
    cb_channels *channels;
    cb_channel_writer *writer;
    cb_segment segments[CBI_RUN_WRITER_SEGMENTS];
    cbi_run items[CBI_RUNS_MAX];
    uint32_t count;
} cbi_runs;

cb_status cbi_shuffle_runs_open(cbi_runs *runs, const char *const *dirs, size_t dir_count,
                                cb_error *err);
void cbi_shuffle_runs_close(cbi_runs *runs);
/** A new run, written through out->view. */
cb_status cbi_runs_begin(cbi_runs *runs, cb_channel **channel, cbi_out *out, cb_error *err);
/** It is complete: the last one from now on. */
cb_status cbi_runs_finish(cbi_runs *runs, cb_channel *channel, cbi_out *out, uint64_t *bytes,
                          cb_error *err);
/** It failed. */
void cbi_runs_abandon(cbi_runs *runs, cb_channel *channel);
/** Readers of `count` runs from `first` on. */
cb_status cbi_runs_read(cbi_runs *runs, uint32_t first, uint32_t count, cb_error *err);
void cbi_runs_read_end(cbi_runs *runs, uint32_t first, uint32_t count);
/** The next partition of these runs goes to `out`. */
cb_status cbi_runs_copy_partition(cbi_runs *runs, uint32_t first, uint32_t count, cbi_out *out,
                                  size_t chunk_max, cb_error *err);
/** Makes room for one more run where there is none. */
cb_status cbi_runs_merge_some(cbi_runs *runs, uint32_t partitions, cbi_out *out, size_t chunk_max,
                              cb_error *err);

/* ---- what is in memory (shuffle.c) ---- */

enum { CBI_PIECE_ALIGN = 8, CBI_RECORD_HEADER_BYTES = 8 };

typedef struct cbi_piece {
    struct cbi_piece *next; /* of the same partition */
    uint32_t bytes;         /* they follow */
    uint32_t page;          /* packed: the number of the page that it lies in */
} cbi_piece;

/** At the start of each page. */
typedef struct cbi_shuffle_page {
    cb_page page;
    struct cbi_shuffle_page *next;
    uint32_t number; /* packed: the newer the higher */
} cbi_shuffle_page;

/** Pages of one kind, and what is left of the newest. */
typedef struct cbi_shuffle_pages {
    cbi_shuffle_page *first;
    uint8_t *at, *end;
} cbi_shuffle_pages;

/** What is known of a partition. Its bytes came in this order: packed, in its block, raw. */
typedef struct cbi_chain {
    cbi_piece *packed_first, *packed_last; /* chunks as they lie in the file */
    cbi_piece *first, *last;               /* raw */
    uint8_t *cursor;                       /* in an append */
    uint32_t bytes;                        /* of the batch at hand */
    uint32_t filled;                       /* of its block */
} cbi_chain;

/** A batch as far as there is room for it. */
typedef struct cbi_fit {
    size_t bytes;     /* of the batch */
    size_t needed;    /* by what comes next, when not all fitted */
    uint32_t touched; /* partitions in it */
} cbi_fit;

struct cb_shuffle {
    cbi_mutex lock;
    uint32_t partitions;
    size_t page_bytes;
    char **dirs;
    size_t dir_count;
    cb_parent parent;
    cb_manager *manager;
    cb_task *task;
    cb_consumer *consumer;
    cbi_chain *chains;
    uint32_t *touched; /* partitions of the batch at hand */
    cbi_shuffle_pages raw, packed;
    uint32_t packed_newest; /* number of a page */
    uint64_t page_total;
    uint8_t *blocks;    /* one a partition, in a page among the packed ones; NULL: there are none */
    size_t blocks_size; /* 0: there never will be any */
    bool blocks_tried;  /* since the last spill */
    bool written;
    cb_error failure; /* of a spill: what is in memory is lost */
    cbi_encoder encoder;
    cbi_out out;
    size_t chunk_max;
    cb_shuffle_checksum checksum;
    cbi_runs runs;
    unsigned freeing; /* threads that give pages back just now */
    uint64_t frees;   /* times that was done */
    cbi_cond freed;
    _Atomic uint64_t drawn, drawn_peak, returned; /* bytes of the parent; given back, ever */
    _Atomic uint64_t spilled_bytes, spill_bytes, spills;
    cbi_phases phases;
};

/** A page among `to`, with room for `bytes`, made by a spill if there is no other way. Among the
 *  packed ones there may be none, and no blocks, when it returns. */
cb_status cbi_shuffle_more_room(cb_shuffle *shuffle, cbi_shuffle_pages *to, size_t bytes,
                                cb_error *err);
/** A record {partition, length, bytes} at the start of `left` bytes. */
static inline bool cbi_shuffle_record_fits(const cb_shuffle *shuffle, const uint8_t *record,
                                           size_t left) {
    return left >= CBI_RECORD_HEADER_BYTES && cbi_load_u32(record) < shuffle->partitions &&
           cbi_load_u32(record + 4) <= left - CBI_RECORD_HEADER_BYTES;
}
cb_status cbi_shuffle_refuse_record(const cb_shuffle *shuffle, const uint8_t *record, size_t at,
                                    size_t bytes, cb_error *err);
/** Gives back pages that no chain knows any more; no lock is held. */
void cbi_shuffle_free_pages(cb_shuffle *shuffle, cbi_shuffle_page *pages);

/* ---- blocks of partitions, compressed as they fill (shuffle_blocks.c) ---- */

/** What blocks of all partitions take; 0: they would be too large, or do not suit the codec. */
size_t cbi_shuffle_blocks_size(cb_shuffle_codec codec, uint32_t block_bytes, uint32_t partitions);
/** From raw pieces to blocks, where there is memory for them. */
cb_status cbi_shuffle_blocks_begin(cb_shuffle *shuffle, cb_error *err);
/** [locked] Records to the blocks, while there is room for what gets full. */
cb_status cbi_shuffle_blocks_append(cb_shuffle *shuffle, const uint8_t *batch, size_t bytes,
                                    cbi_fit *fit, cb_error *err);

#endif
