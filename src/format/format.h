/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_FORMAT_H
#define CBI_FORMAT_H

#include "carbide/sort.h"
#include "record/record.h"

/** How rows lie in bytes. Plain data. */
typedef struct cbi_format {
    cb_format_kind kind; /* never AUTO */
    uint8_t terminator;  /* '\n' or 0 */
    uint8_t separator;   /* CSV, TSV */
    size_t record_bytes; /* FIXED */
    size_t columns;      /* CSV, TSV: fields a row must have, from the first row; 0 = not known */
} cbi_format;

/* ---- input: files and streams -> chunks of whole rows, any number of threads ---- */

typedef struct cbi_input cbi_input;

/** The next bytes of an input that is no file: up to `bytes`, *got == 0 at the end. One thread at a
 * time. */
typedef cb_status (*cbi_input_read_fn)(void *ctx, uint8_t *buf, size_t bytes, size_t *got,
                                       cb_error *err);

typedef struct cbi_input_options {
    cbi_input_read_fn read; /* instead of what the one path names, which is for messages then */
    void *read_ctx;
    const char *const *paths; /* "-" is standard input */
    size_t path_count;
    cb_format_kind format; /* AUTO: by the first name, a compression suffix stripped */
    size_t record_bytes;
    bool zero_terminated;
    bool as_is;          /* nothing is decompressed, whatever the first bytes say (GNU sort) */
    int field_separator; /* -1: the format's own */
    cb_header header;
    cb_bad_rows bad_rows;
    const char *bad_rows_path;
    bool bad_rows_more; /* another input writes to it as well, and was opened before */
    bool direct_cold;   /* drop what was read from the page cache when it was not there before (best
                           effort) */
    size_t decoder_bytes_max; /* the most a decoder may hold, CB_EBUDGET beyond it; 0 = 160 MiB
                                 (zstd's usual limit) */
    /* With which budget would a decoder have `need` bytes, if it may have `share` of
     * decoder_bytes_max? A refusal names it. 0: with none. NULL: nobody knows. */
    uint64_t (*decoder_budget)(uint64_t need, double share);
} cbi_input_options;

/**
 * Opens all inputs (an unreadable one fails here), reads the header. .gz .zst .lz4 by magic number
 * (fixed records: by name and magic number). The state of codecs comes from cbi_alloc. A regular
 * file is read up to the size it has now: what is added later is not seen, and one that shrinks is
 * CB_EIO. Blocks while a pipe's writer keeps its first row back.
 */
cb_status cbi_input_open(const cbi_input_options *options, cbi_input **input, cb_error *err);
/** NULL is fine; no call may be under way. */
void cbi_input_close(cbi_input *input);
/** Everybody who waits or will wait in cbi_input_next gets CB_ECANCELED. Any thread. */
void cbi_input_cancel(cbi_input *input);
/** After the last row: writes out what bad_rows_path still lacks. CB_EIO, CB_ENOSPC. */
cb_status cbi_input_finish(cbi_input *input, cb_error *err);

const cbi_format *cbi_input_format(const cbi_input *input);
/** The header row as it is to be written, terminator included; NULL, 0 when there is none. Later
 * inputs must have the same header (CB_EDATA otherwise). */
const uint8_t *cbi_input_header(const cbi_input *input, size_t *bytes);
/** Unquoted column names. */
const char *const *cbi_input_names(const cbi_input *input, size_t *count);
/** All inputs are regular files that can be read anywhere, not compressed. */
bool cbi_input_seekable(const cbi_input *input);
/** Bytes of all inputs together (compressed size for compressed ones); 0 when one is not known. */
uint64_t cbi_input_bytes(const cbi_input *input);
/** The most that decoding may come to hold: what is compressed by name and number is known now,
 * what a pipe brings is not. */
size_t cbi_input_decoder_bytes(const cbi_input *input);
/** Bytes read so far, in the same measure. Any thread. */
uint64_t cbi_input_bytes_done(const cbi_input *input);
/** Output would replace this input: the same file. */
bool cbi_input_is(const cbi_input *input, uint64_t device, uint64_t inode);

/** A worker's chunk. The worker owns buf and tells its size; the rest is the input's.
 * Zero-initialise. */
typedef struct cbi_chunk {
    uint8_t *buf;
    size_t capacity;
    const uint8_t *
        rows; /* whole rows: [rows, rows + bytes); the last row of a file may lack its terminator */
    size_t bytes;
    uint64_t sequence; /* grows in the order of the input; a row larger than a chunk leaves a gap */
    size_t file;       /* index in paths */
    uint64_t file_offset; /* of rows, in the file's (uncompressed) bytes */
    uint64_t pending[4];  /* the input's own: what a too small buffer left behind */
    size_t judged;        /* the input's own: malformed rows before this have been counted */
} cbi_chunk;

/**
 * The next chunk; bytes == 0 means the end. Thread-safe, and sequence numbers are given so that
 * every chunk before `sequence` was given to somebody.
 *
 * All workers should come with the same capacity, at least CBI_CHUNK_BYTES_MIN: the first call
 * fixes how much of the input is a chunk (7/8 of it; the rest is for the end of the last row).
 * CB_EBUDGET with err->bytes_asked: one row (and the rows before it in its chunk) does not fit in
 * `capacity`; come again with the same chunk and a buffer of at least that size. Whatever the old
 * buffer held must then be at the start of the new one when chunk->pending[0] says so
 * (cbi_chunk_pending), and until then a stream's other readers wait. bytes_asked is exact for
 * seekable inputs, a doubling for streams. CB_EUNSUPPORTED: a row of 2 GiB or more. After a failure
 * every other worker gets that failure, too.
 */
enum { CBI_CHUNK_BYTES_MIN = 4096 };
cb_status cbi_input_next(cbi_input *input, cbi_chunk *chunk, cb_error *err);
/** Bytes at the start of the buffer that must be in the next one (after CB_EBUDGET). */
static inline size_t cbi_chunk_pending(const cbi_chunk *chunk) {
    return (size_t)chunk->pending[0];
}

/** Whole rows near spot i of n, for sampling (seekable inputs). CSV may misjudge a spot inside a
 * quoted field; that costs balance only. bytes == 0: nothing usable there. */
cb_status cbi_input_sample(cbi_input *input, size_t i, size_t n, cbi_chunk *chunk, cb_error *err);

/** Where cbi_input_reread is. Zero but for file, at and end at first. */
typedef struct cbi_reread {
    size_t file;
    uint64_t at, end; /* both where a row begins, or the file's end */
    bool begun, cold;
} cbi_reread;

/**
 * Whole rows of a seekable input once more: as many from from->at on, before from->end, as fit in
 * the chunk's buffer; advances from->at. bytes == 0: there are no more. A row larger than the
 * buffer is passed over. For cbi_input_scan the chunk is a sample. Any thread.
 */
cb_status cbi_input_reread(cbi_input *input, cbi_reread *from, cbi_chunk *chunk, cb_error *err);

/** Bytes of a seekable input once more, from from->at on and before from->end, as many as fit,
 * whatever they are: for who knows both where something begins and where it ends. */
cb_status cbi_input_reread_bytes(cbi_input *input, cbi_reread *from, cbi_chunk *chunk,
                                 cb_error *err);

/**
 * Finds rows in chunk->rows from *at on, until rows->capacity or the chunk's end; advances *at,
 * sets rows->base and rows->count (what was there before is forgotten). `columns` are the fields to
 * deliver (0-based), rows->field_count of them; a column that no row has is an empty field. CSV and
 * TSV only, other formats have no fields. CB_EDATA: a malformed row, with file, line and column in
 * the message. bad_rows skip/file: they are left out (written to the file) and counted; so are rows
 * of a sample, uncounted. Lines with nothing on them are no rows in CSV and TSV of several columns.
 * A caller that could not use all rows may set *at back to the first it lacks: no malformed row is
 * counted or written twice.
 */
cb_status cbi_input_scan(cbi_input *input, cbi_chunk *chunk, size_t *at, const uint32_t *columns,
                         cbi_rows *rows, cb_error *err);
/**
 * A value of the row just scanned, at offset `at` of the chunk's rows, is not what its reader needs
 * (`what` says why). Counts as a malformed row: CB_EDATA with file, line and column, or CB_OK when
 * such rows are left out, which is then the caller's to do. Once a row.
 */
cb_status cbi_input_bad_value(cbi_input *input, const cbi_chunk *chunk, cbi_span row, size_t at,
                              const char *what, cb_error *err);
uint64_t cbi_input_rows_bad(const cbi_input *input);
/** The path, or "standard input". */
const char *cbi_input_name(const cbi_input *input, size_t file);

/* ---- compressed output: blocks of a fixed size are frames of their own, so that bytes never
 * depend on chunking ---- */

typedef enum cbi_compression {
    CBI_COMPRESSION_NONE,
    CBI_COMPRESSION_GZIP,
    CBI_COMPRESSION_ZSTD,
    CBI_COMPRESSION_LZ4
} cbi_compression;
enum { CBI_COMPRESS_BLOCK_BYTES = 1024 * 1024 };
cbi_compression cbi_compression_of_name(const char *path);
size_t cbi_compress_bound(cbi_compression c, size_t bytes);
typedef struct cbi_compressor cbi_compressor; /* one a thread; its state is counted */
cb_status cbi_compressor_create(cbi_compression c, cbi_compressor **compressor, cb_error *err);
void cbi_compressor_destroy(cbi_compressor *compressor);
/** One block (at most CBI_COMPRESS_BLOCK_BYTES) -> one whole frame (gzip member, zstd frame, lz4
 * frame). */
cb_status cbi_compress(cbi_compressor *compressor, const uint8_t *in, size_t bytes, uint8_t *out,
                       size_t cap, size_t *out_bytes, cb_error *err);
/** What one compressor holds. */
size_t cbi_compressor_bytes(cbi_compression c);

#endif
