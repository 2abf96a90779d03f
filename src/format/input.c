/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "format/input_private.h"

/*
 * An input is a list of files that becomes chunks of whole rows. There are two ways to do that,
 * chosen once for all files together: when every file can be read anywhere (chunk_seek.c) workers
 * read their chunks by themselves and at the same time; otherwise (chunk_stream.c) they take turns.
 * What is asked of the bytes is the same in both: rows, a header, and an exact word on what is
 * malformed (locate.c).
 */

enum { INPUT_DECODER_BYTES_MAX = 160 * 1024 * 1024 };

/* ---- options ---- */

static bool name_has_suffix(const char *name, size_t bytes, const char *suffix) {
    size_t n = strlen(suffix);
    return bytes > n && strncasecmp(name + bytes - n, suffix, n) == 0;
}

/* By the first name, without what compression added to it. */
static cb_format_kind format_of_name(const char *name) {
    size_t bytes = strlen(name);
    if (name_has_suffix(name, bytes, ".gz"))
        bytes -= 3;
    else if (name_has_suffix(name, bytes, ".zst") || name_has_suffix(name, bytes, ".lz4"))
        bytes -= 4;
    if (name_has_suffix(name, bytes, ".csv"))
        return CB_FORMAT_CSV;
    if (name_has_suffix(name, bytes, ".tsv") || name_has_suffix(name, bytes, ".tab"))
        return CB_FORMAT_TSV;
    return CB_FORMAT_LINES;
}

static cb_status input_set_format(cbi_input *input, const cbi_input_options *options,
                                  cb_error *err) {
    cbi_format *f = &input->format;
    f->kind =
        options->format == CB_FORMAT_AUTO ? format_of_name(options->paths[0]) : options->format;
    f->terminator = options->zero_terminated ? 0 : '\n';
    f->separator = f->kind == CB_FORMAT_TSV ? '\t' : ',';
    if (options->field_separator >= 0)
        f->separator = (uint8_t)options->field_separator;
    f->record_bytes = f->kind == CB_FORMAT_FIXED ? options->record_bytes : 0;
    bool delimited = input_delimited(input);
    if (f->kind == CB_FORMAT_FIXED && f->record_bytes == 0)
        return cbi_fail(err, CB_EINVAL,
                        "records of a fixed size need that size, and it cannot be 0");
    if (f->record_bytes > INPUT_ROW_BYTES_MAX)
        return cbi_fail(err, CB_EUNSUPPORTED,
                        "records of %zu bytes: rows of 2 GiB or more are not supported",
                        f->record_bytes);
    if (f->kind == CB_FORMAT_FIXED && options->header == CB_HEADER_YES)
        return cbi_fail(err, CB_EINVAL, "records of a fixed size have no header");
    if (delimited && f->separator == f->terminator)
        return cbi_fail(err, CB_EINVAL, "fields and rows cannot end with the same byte");
    if (f->kind == CB_FORMAT_CSV &&
        (f->separator == '"' || f->separator == '\r' || f->separator == '\n'))
        return cbi_fail(err, CB_EINVAL, "a quote or a line end cannot separate the fields of CSV");
    input->header_wanted =
        options->header == CB_HEADER_YES || (options->header == CB_HEADER_AUTO && delimited);
    input->dialect = (cbi_dialect){.separator = delimited ? f->separator : f->terminator,
                                   .terminator = f->terminator,
                                   .quoting = f->kind == CB_FORMAT_CSV,
                                   .strip_cr = f->terminator == '\n'};
    return CB_OK;
}

/* ---- open and close ---- */

static cb_status input_open_files(cbi_input *input, const cbi_input_options *options,
                                  cb_error *err) {
    bool known = true;
    input->seekable = true;
    for (size_t i = 0; i < options->path_count; i++) {
        input->file_count = i + 1;
        CB_TRY(input_file_open(input, i, options->paths[i], err));
        const input_file *file = &input->files[i];
        known &= file->regular;
        input->seekable &= file->regular && file->codec == CBI_COMPRESSION_NONE;
        input->total_bytes += file->size;
    }
    if (!known)
        input->total_bytes = 0;
    return CB_OK;
}

/* Files of fixed records hold whole records; a compressed one is found out at its end. */
static cb_status input_check_fixed(cbi_input *input, cb_error *err) {
    for (size_t i = 0; i < input->file_count && input->format.kind == CB_FORMAT_FIXED; i++) {
        input_file *file = &input->files[i];
        size_t rest = (size_t)(file->size % input->format.record_bytes), got = 0;
        if (rest == 0 || !file->regular || file->codec != CBI_COMPRESSION_NONE)
            continue;
        if (!input_lenient(input))
            return cbi_fail(err, CB_EDATA,
                            "%s: its %" PRIu64
                            " bytes are no whole number of records of %zu bytes: %zu "
                            "are left over at the end",
                            file->path, file->size, input->format.record_bytes, rest);
        file->size -= rest;
        for (uint8_t piece[512]; got < rest;) {
            size_t n = cbi_min(rest - got, sizeof piece);
            int fd = -1;
            CB_TRY(input_file_acquire(input, i, &fd, err));
            cb_status status = input_file_read(input, i, fd, piece, n, file->size + got, err);
            input_file_release(input, i);
            CB_TRY(status);
            got += n;
            CB_TRY(input_bad_row(input, piece, n, got == rest, err));
        }
    }
    return CB_OK;
}

/* Headers of all files when each can be read by itself. */
static cb_status input_read_headers(cbi_input *input, cb_error *err) {
    if (!input->seekable)
        return input_stream_begin(input, err);
    for (size_t i = 0; i < input->file_count; i++) {
        input_reader reader;
        if (input->files[i].size == 0 ||
            (!input->header_wanted && (!input_delimited(input) || input->format.columns != 0)))
            continue;
        CB_TRY(input_reader_open(input, i, &reader, err));
        size_t header = 0;
        cb_status status = input_header_read(&reader, &header, err);
        input_reader_close(&reader);
        CB_TRY(status);
        input->files[i].data = header;
        atomic_fetch_add(&input->bytes_done, header);
    }
    return CB_OK;
}

cb_status cbi_input_open(const cbi_input_options *options, cbi_input **input, cb_error *err) {
    cb_assert(options->path_count > 0);
    cbi_input *in = cbi_calloc(1, sizeof *in);
    input_file *files = cbi_calloc(options->path_count, sizeof *files);
    if (!in || !files) {
        cbi_free(in);
        cbi_free(files);
        return cbi_fail(err, CB_ENOMEM, "no memory for %zu inputs", options->path_count);
    }
    in->files = files;
    cbi_mutex_init(&in->lock, CBI_RANK_INPUT);
    cbi_mutex_init(&in->slow_lock, CBI_RANK_BAD_ROWS);
    cbi_cond_init(&in->changed);
    in->direct_cold = options->direct_cold;
    in->bad_rows = options->bad_rows;
    in->bad_fd = -1;
    in->walk_file = SIZE_MAX;
    in->stream.reader.fd = -1;
    in->as_is = options->as_is;
    in->read = options->read;
    in->read_ctx = options->read_ctx;
    in->decoder_budget = options->decoder_budget;
    in->decoder_bytes_max =
        options->decoder_bytes_max ? options->decoder_bytes_max : (size_t)INPUT_DECODER_BYTES_MAX;
    in->ops = cbi_scan_ops_get(cbi_simd_best());
    cb_status status = input_set_format(in, options, err);
    if (status == CB_OK)
        status = input_open_files(in, options, err);
    if (status == CB_OK && in->bad_rows == CB_BAD_ROWS_FILE)
        status = input_bad_open(in, options->bad_rows_path, options->bad_rows_more, err);
    if (status == CB_OK)
        status = input_check_fixed(in, err);
    if (status == CB_OK)
        status = input_read_headers(in, err);
    if (status != CB_OK) {
        cbi_input_close(in);
        return status;
    }
    *input = in;
    return CB_OK;
}

void cbi_input_close(cbi_input *input) {
    if (!input)
        return;
    input_stream_fini(input);
    input_bad_fini(input);
    input_header_fini(input);
    for (size_t i = 0; i < input->file_count; i++)
        input_file_fini(&input->files[i]);
    cbi_free(input->files);
    cbi_cond_fini(&input->changed);
    cbi_mutex_fini(&input->slow_lock);
    cbi_mutex_fini(&input->lock);
    cbi_free(input);
}

void cbi_input_cancel(cbi_input *input) {
    cbi_mutex_lock(&input->lock);
    input->cancelled = true;
    cbi_cond_broadcast(&input->changed);
    cbi_mutex_unlock(&input->lock);
}

cb_status cbi_input_finish(cbi_input *input, cb_error *err) {
    return input_bad_flush(input, err);
}

cb_status input_failed(cbi_input *input, cb_status status, const cb_error *err) {
    cbi_mutex_lock(&input->lock);
    if (input->failure.status == CB_OK) {
        input->failure = *err;
        input->failure.status = status;
    }
    cbi_cond_broadcast(&input->changed);
    cbi_mutex_unlock(&input->lock);
    return status;
}

/* ---- what is known ---- */

const cbi_format *cbi_input_format(const cbi_input *input) {
    return &input->format;
}

const uint8_t *cbi_input_header(const cbi_input *input, size_t *bytes) {
    *bytes = input->header_bytes;
    return input->header;
}

const char *const *cbi_input_names(const cbi_input *input, size_t *count) {
    *count = input->name_count;
    return (const char *const *)input->names;
}

bool cbi_input_seekable(const cbi_input *input) {
    return input->seekable;
}
uint64_t cbi_input_bytes(const cbi_input *input) {
    return input->total_bytes;
}
size_t input_decoder_limit(const cbi_input *input, bool regular, cbi_compression codec) {
    size_t most = input->decoder_bytes_max;
    if (!regular) /* most pipes bring nothing compressed, and this is set aside before that is known
                   */
        return most / 3;
    switch (codec) {
        case CBI_COMPRESSION_GZIP: return cbi_min(most, 64 * CBI_KIB);
        case CBI_COMPRESSION_ZSTD: return most / 3 * 2;
        case CBI_COMPRESSION_LZ4:
            return cbi_min(most, 9 * CBI_MIB); /* two blocks of 4 MiB and more */
        case CBI_COMPRESSION_NONE: break;
    }
    return 0;
}

size_t cbi_input_decoder_bytes(const cbi_input *input) {
    size_t most = 0;
    bool never = input->as_is || input->read != NULL; /* rows that are given are as they are */
    for (size_t i = 0; i < input->file_count && !never; i++) {
        const input_file *file = &input->files[i];
        most = cbi_max(most, input_decoder_limit(input, file->regular, file->codec));
    }
    return most;
}
uint64_t cbi_input_bytes_done(const cbi_input *input) {
    return atomic_load_explicit(&input->bytes_done, memory_order_relaxed);
}
uint64_t cbi_input_rows_bad(const cbi_input *input) {
    return atomic_load_explicit(&input->rows_bad, memory_order_relaxed);
}

bool cbi_input_is(const cbi_input *input, uint64_t device, uint64_t inode) {
    for (size_t i = 0; i < input->file_count; i++)
        if (input->files[i].device == device && input->files[i].inode == inode)
            return true;
    return false;
}

const char *cbi_input_name(const cbi_input *input, size_t file) {
    return input->files[file].path;
}

cb_status cbi_input_next(cbi_input *input, cbi_chunk *chunk, cb_error *err) {
    cb_error local = {0};
    cb_assert(chunk->capacity > 0 && chunk->buf != NULL);
    cb_status status = input->seekable ? input_seek_next(input, chunk, &local)
                                       : input_stream_next(input, chunk, &local);
    if (status != CB_OK && status != CB_EBUDGET)
        (void)input_failed(input, status, &local);
    if (status != CB_OK && err)
        *err = local;
    return status;
}
