/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_FORMAT_H
#define CBI_FORMAT_H

#include "carbide/sort.h"
#include "record/record.h"

/** How rows lie in bytes. Plain data. */
typedef struct cbi_format {
    cb_format_kind kind;  /* never AUTO */
    uint8_t terminator;   /* '\n' or 0 */
    uint8_t separator;    /* CSV, TSV */
    size_t record_bytes;  /* FIXED */
    size_t columns;       /* CSV, TSV: fields a row must have, from the first row; 0 = not known */
} cbi_format;

/* ---- input: files and streams -> chunks of whole rows, any number of threads ---- */

typedef struct cbi_input cbi_input;

typedef struct cbi_input_options {
    const char *const *paths; /* "-" is standard input */
    size_t path_count;
    cb_format_kind format; /* AUTO: by the first name, a compression suffix stripped */
    size_t record_bytes;
    bool zero_terminated;
    int field_separator; /* -1: the format's own */
    cb_header header;
    cb_bad_rows bad_rows;
    const char *bad_rows_path;
    bool direct_cold; /* drop what was read from the page cache when it was not there before (best effort) */
} cbi_input_options;

/** Opens all inputs (an unreadable one fails here), reads the header. .gz .zst .lz4 by magic number. The state of
 *  codecs comes from cbi_alloc. */
cb_status cbi_input_open(const cbi_input_options *options, cbi_input **input, cb_error *err);
void cbi_input_close(cbi_input *input);

const cbi_format *cbi_input_format(const cbi_input *input);
/** The header row as it is to be written, terminator included; NULL, 0 when there is none. Later inputs must have the
 *  same header (CB_EDATA otherwise). */
const uint8_t *cbi_input_header(const cbi_input *input, size_t *bytes);
/** Unquoted column names. */
const char *const *cbi_input_names(const cbi_input *input, size_t *count);
/** All inputs are regular files that can be read anywhere, not compressed. */
bool cbi_input_seekable(const cbi_input *input);
/** Bytes of all inputs together (compressed size for compressed ones); 0 when one is not known. */
uint64_t cbi_input_bytes(const cbi_input *input);
/** Bytes read so far, in the same measure. Any thread. */
uint64_t cbi_input_bytes_done(const cbi_input *input);
/** Output would replace this input: the same file. */
bool cbi_input_is(const cbi_input *input, uint64_t device, uint64_t inode);

/** A worker's chunk. The worker owns buf and tells its size; the rest is the input's. Zero-initialise. */
typedef struct cbi_chunk {
    uint8_t *buf;
    size_t capacity;
    const uint8_t *rows;  /* whole rows: [rows, rows + bytes); the last row of a file may lack its terminator */
    size_t bytes;
    uint64_t sequence;    /* 0, 1, 2 ... in the order of the input */
    size_t file;          /* index in paths */
    uint64_t file_offset; /* of rows, in the file's (uncompressed) bytes */
    uint64_t pending[4];  /* the input's own: what a too small buffer left behind */
} cbi_chunk;

/**
 * The next chunk; bytes == 0 means the end. Thread-safe, and sequence numbers are given so that every chunk before
 * `sequence` was given to somebody. CB_EBUDGET with err->bytes_asked: one row does not fit in `capacity`; come again with
 * the same chunk and a larger buffer (the old buffer's bytes, if any are pending, must be at the start of the new one).
 */
cb_status cbi_input_next(cbi_input *input, cbi_chunk *chunk, cb_error *err);

/** Whole rows near spot i of n, for sampling (seekable inputs). CSV may misjudge a spot inside a quoted field; that costs
 *  balance only. bytes == 0: nothing usable there. */
cb_status cbi_input_sample(cbi_input *input, size_t i, size_t n, cbi_chunk *chunk, cb_error *err);

/**
 * Finds rows in chunk->rows from *at on, until rows->capacity or the chunk's end; advances *at. `columns` are the fields to
 * deliver (0-based), rows->field_count of them. CB_EDATA: a malformed row, with file, line and column in the message.
 * bad_rows skip/file: they are left out (written to the file) and counted.
 */
cb_status cbi_input_scan(cbi_input *input, const cbi_chunk *chunk, size_t *at, const uint32_t *columns, cbi_rows *rows,
                         cb_error *err);
uint64_t cbi_input_rows_bad(const cbi_input *input);
/** The path, or "standard input". */
const char *cbi_input_name(const cbi_input *input, size_t file);
/** One input alone, read in order by one thread: for merging sorted inputs and for checking. Same options otherwise. */

/* ---- compressed output: blocks of a fixed size are frames of their own, so that bytes never depend on chunking ---- */

typedef enum cbi_compression { CBI_COMPRESSION_NONE, CBI_COMPRESSION_GZIP, CBI_COMPRESSION_ZSTD, CBI_COMPRESSION_LZ4 } cbi_compression;
enum { CBI_COMPRESS_BLOCK_BYTES = 1024 * 1024 };
cbi_compression cbi_compression_of_name(const char *path);
size_t cbi_compress_bound(cbi_compression c, size_t bytes);
typedef struct cbi_compressor cbi_compressor; /* one a thread; its state is counted */
cb_status cbi_compressor_create(cbi_compression c, cbi_compressor **compressor, cb_error *err);
void cbi_compressor_destroy(cbi_compressor *compressor);
/** One block (at most CBI_COMPRESS_BLOCK_BYTES) -> one whole frame (gzip member, zstd frame, lz4 frame). */
cb_status cbi_compress(cbi_compressor *compressor, const uint8_t *in, size_t bytes, uint8_t *out, size_t cap, size_t *out_bytes,
                       cb_error *err);
/** What one compressor holds. */
size_t cbi_compressor_bytes(cbi_compression c);

#endif
