/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_INPUT_PRIVATE_H
#define CBI_INPUT_PRIVATE_H

#include <stdatomic.h>

#include "base/sys.h"
#include "format/csv.h"
#include "format/decompress.h"
#include "format/format.h"
#include "format/simd.h"

enum {
    INPUT_PIECE_BYTES = 64 * 1024, /* what is read at a time where no chunk buffer is at hand */
    INPUT_HEADER_BYTES_MAX = 1024 * 1024, /* a first row that is larger is taken for a mistake */
    INPUT_FILES_OPEN_MAX = 64,  /* regular files beyond these are opened when they are read */
    INPUT_OVERLAP_BYTES = 4096, /* read behind a chunk for the end of its last row */
    INPUT_PEEK_BYTES = 16,      /* of a pipe, for its magic number */
    INPUT_AHEAD_CHUNKS =
        3, /* asked for before they are read, when they are not in the page cache */
    INPUT_COLD_RING = 64
};
#define INPUT_ROW_BYTES_MAX ((uint64_t)INT32_MAX) /* spans hold 31 bits */

/* One of the paths. Immutable after open but for the part under the input's lock. */
typedef struct input_file {
    char *path; /* ours; "standard input" for "-" */
    bool standard;
    bool regular;          /* can be read anywhere, has a size, can be opened again */
    bool nothing;          /* standard input for the second time: no bytes */
    cbi_compression codec; /* regular files; a pipe's is found when it is read */
    uint64_t device, inode;
    uint64_t origin; /* where the file's bytes begin: 0 but for standard input that somebody has
                        read from */
    uint64_t size;   /* from origin, at open */
    uint64_t data;   /* offset of the first row behind the header (seekable inputs) */
    uint64_t first_chunk; /* of the input; set when the chunk size is */
    /* under input->lock */
    int fd; /* -1: closed now */
    unsigned users;
    bool keep_open;
} input_file;

/* The decoded bytes of one file from its start, for one thread. */
typedef struct input_reader {
    cbi_input *input;
    size_t file;
    bool open;
    int fd;
    cbi_decoder *decoder; /* NULL: raw */
    uint64_t raw_at;      /* bytes of the file taken so far */
    uint8_t peek[INPUT_PEEK_BYTES];
    size_t peek_at, peek_bytes;
    uint8_t *head; /* decoded bytes to be given first */
    size_t head_at, head_bytes, head_capacity;
} input_reader;

/* Everything about reading in order: one worker fills a buffer at a time. */
typedef struct input_stream {
    bool busy; /* a worker reads, or keeps the place while it gets a larger buffer */
    bool ended;
    bool started; /* reader is of a file that has been entered */
    size_t next_file;
    input_reader reader;
    uint64_t sequence;
    uint64_t offset;     /* of the next chunk's first byte in the file */
    uint64_t line;       /* of that byte */
    cbi_csv_state state; /* behind all bytes read */
    bool discarding;     /* a malformed row too large for any buffer is being thrown away */
    uint8_t *carry;      /* the start of a row that the last chunk did not finish */
    size_t carry_bytes, carry_capacity;
} input_stream;

struct cbi_input {
    /* immutable after open */
    input_file *files;
    size_t file_count;
    cbi_format format; /* columns: a stream without header sets it with its first row */
    cbi_dialect dialect;
    const cbi_scan_ops *ops;
    bool header_wanted;
    bool seekable;
    bool direct_cold;
    cb_bad_rows bad_rows;
    uint8_t *header;
    size_t header_bytes;
    uint64_t header_lines;
    char **names;
    size_t name_count;
    uint64_t total_bytes;
    size_t decoder_bytes_max;
    uint64_t (*decoder_budget)(uint64_t need, double share);
    bool as_is;
    cbi_input_read_fn read; /* NULL: files */
    void *read_ctx;

    atomic_uint_fast64_t bytes_done;
    atomic_uint_fast64_t rows_bad;
    atomic_uint_fast64_t next_chunk; /* seekable: the next to be taken */

    cbi_mutex lock; /* everything down to slow_lock */
    cbi_cond changed;
    bool cancelled;
    size_t chunk_bytes;    /* C; 0 until the first call, then the same */
    size_t chunk_capacity; /* of the first call */
    uint64_t chunk_count;
    atomic_uchar cold[INPUT_COLD_RING]; /* was chunk k (modulo) on disk only when its read-ahead was
                                           asked for */
    uint64_t baton;                     /* the chunk whose state at its start is known */
    cbi_csv_state baton_state;
    cb_error failure; /* the first; status CB_OK: none */
    input_stream stream;

    cbi_mutex slow_lock; /* bad rows and the exact walk; taken without `lock` held */
    int bad_fd;
    uint8_t *bad_buffer;
    size_t bad_bytes;
    char *bad_path;
    cb_error bad_failure;
    cbi_csv_walk walk;
    size_t walk_file; /* SIZE_MAX: none yet */
    uint64_t walk_at;
};

/* input_file.c */
/** A descriptor of the file, opened again when need be; every answer >= 0 is followed by
 * input_file_release. */
cb_status input_file_acquire(cbi_input *input, size_t file, int *fd, cb_error *err);
void input_file_release(cbi_input *input, size_t file);
/** Opens for the first time: kind, size, magic number. */
cb_status input_file_open(cbi_input *input, size_t file, const char *path, cb_error *err);
/** bytes at `offset` of the file (from its origin) or CB_EIO: it has become shorter. */
cb_status input_file_read(cbi_input *input, size_t file, int fd, uint8_t *buf, size_t bytes,
                          uint64_t offset, cb_error *err);
void input_file_fini(input_file *file);

/* reader.c */
cb_status input_reader_open(cbi_input *input, size_t file, input_reader *reader, cb_error *err);
void input_reader_close(input_reader *reader);
/** Up to `bytes`; fewer means the end. */
cb_status input_reader_read(input_reader *reader, uint8_t *buf, size_t bytes, size_t *got,
                            cb_error *err);
/** Reads the first row (that is not blank): *row_bytes at *row_at of reader->head with its
 * terminator (if it has one); nothing is taken. 0 bytes: the file is empty. */
cb_status input_reader_first_row(input_reader *reader, bool skip_blank, size_t *row_at,
                                 size_t *row_bytes, cb_error *err);
/** Takes bytes of head. */
void input_reader_skip(input_reader *reader, size_t bytes);

/* header.c */
/** The header row (or, without one, the first row) of a file whose reader has just been opened:
 * kept when it is the first, compared and taken otherwise. */
cb_status input_header_read(input_reader *reader, size_t *header_bytes, cb_error *err);
/** Bytes of a byte order mark that a first row begins with. */
size_t input_header_mark(const cbi_input *input, const uint8_t *row, size_t bytes);
void input_header_fini(cbi_input *input);

/* chunk_seek.c */
typedef struct input_span {
    uint64_t number; /* of the chunk */
    size_t file;
    int fd;
    uint64_t base,
        limit;  /* rows that start behind the first row end at or after base, up to that of limit */
    size_t own; /* limit - base */
    size_t have;         /* bytes in the buffer, from base */
    cbi_csv_state state; /* at base; then wherever the search for the end has come */
} input_span;
cb_status input_seek_next(cbi_input *input, cbi_chunk *chunk, cb_error *err);
/** The place behind the first row end of p, SIZE_MAX without one; by exact state or by parity, as
 * the input needs. */
size_t input_find_end(const cbi_input *input, cbi_csv_state *state, const uint8_t *p, size_t bytes);
/** Rows [start, end) of the file become the chunk's. */
cb_status input_seek_load(cbi_input *input, cbi_chunk *chunk, const input_span *span,
                          uint64_t start, uint64_t end, cb_error *err);

/* chunk_large.c */
/** A row that starts in the span does not fit in the buffer, whose first rows start at byte `start`
 * of the file: CB_EBUDGET with the exact size, CB_EDATA, or CB_OK when it was malformed and has
 * been left out. */
cb_status input_large_row(cbi_input *input, cbi_chunk *chunk, input_span *span, uint64_t start,
                          cb_error *err);

/* chunk_stream.c */
cb_status input_stream_next(cbi_input *input, cbi_chunk *chunk, cb_error *err);
/** Enters the first file that is not empty, so that header and columns are known. */
cb_status input_stream_begin(cbi_input *input, cb_error *err);
void input_stream_fini(cbi_input *input);

/* bad_rows.c */
cb_status input_bad_open(cbi_input *input, const char *path, bool more, cb_error *err);
/** Counts a malformed row and writes it where it is to go, in pieces if need be. */
cb_status input_bad_row(cbi_input *input, const uint8_t *row, size_t bytes, bool ends,
                        cb_error *err);
cb_status input_bad_flush(cbi_input *input, cb_error *err);
void input_bad_fini(cbi_input *input);

/* locate.c */
/** Walks the file exactly up to `until`: CB_EDATA with line and column when anything before it is
 * malformed. */
cb_status input_locate(cbi_input *input, size_t file, uint64_t until, cb_error *err);
/** The message for a malformed row. */
cb_status input_flaw(const cbi_input *input, size_t file, cbi_flaw flaw, uint64_t line,
                     uint64_t column, uint64_t fields, cb_error *err);

/** Puts `status` down as the input's failure, so that nobody waits for one who has given up. */
cb_status input_failed(cbi_input *input, cb_status status, const cb_error *err);

static inline bool input_delimited(const cbi_input *input) {
    return input->format.kind == CB_FORMAT_CSV || input->format.kind == CB_FORMAT_TSV;
}
static inline bool input_quoting(const cbi_input *input) {
    return input->format.kind == CB_FORMAT_CSV;
}
/* What cbi_chunk.pending holds. Only BYTES has a meaning outside. */
enum {
    INPUT_PENDING_BYTES, /* stream: bytes in the buffer that must be in the next one */
    INPUT_PENDING_CHUNK, /* seekable: number + 1 of a chunk that is to be read again; stream: 1, the
                            place is kept */
    INPUT_PENDING_START, /* seekable: where its rows begin; stream: line of the first row */
    INPUT_PENDING_END    /* seekable: where they end; INPUT_SAMPLE: a sample */
};
#define INPUT_SAMPLE UINT64_MAX

static inline bool input_lenient(const cbi_input *input) {
    return input->bad_rows != CB_BAD_ROWS_ERROR;
}

/* What the decoder of such a file may hold. */
size_t input_decoder_limit(const cbi_input *input, bool regular, cbi_compression codec);

#endif
