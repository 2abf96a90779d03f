/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a gzip, zstd or lz4 stream, in pieces: an answer or an error, never more memory than
 * allowed, and the same bytes whatever the pieces are. */

#include <string.h>

#include "base/alloc.h"
#include "format/decompress.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OUT_MAX = 256 * 1024, BYTES_MAX = 4 * 1024 * 1024 };

typedef struct source {
    const uint8_t *bytes;
    size_t left, step;
} source;

static cb_status source_read(void *ctx, uint8_t *buf, size_t bytes, size_t *got, cb_error *err) {
    source *s = ctx;
    (void)err;
    size_t n = cbi_min(cbi_min(bytes, s->step), s->left);
    if (n != 0)
        memcpy(buf, s->bytes, n);
    s->bytes += n;
    s->left -= n;
    *got = n;
    return CB_OK;
}

static cb_status decode(cbi_compression c, const uint8_t *data, size_t size, size_t step,
                        size_t piece, uint8_t *out, size_t *total) {
    source s = {data, size, step};
    cbi_decoder *decoder = NULL;
    size_t before = cbi_alloc_bytes();
    cb_error err = {0};
    *total = 0;
    if (cbi_decoder_create(c, "fuzz", BYTES_MAX, source_read, &s, &decoder, &err) != CB_OK)
        return CB_ENOMEM;
    cb_status status = CB_OK;
    while (status == CB_OK && *total < OUT_MAX) {
        size_t want = cbi_min(piece, OUT_MAX - *total), got = 0;
        status = cbi_decoder_read(decoder, out + *total, want, &got, &err);
        cb_assert(cbi_alloc_bytes() - before <= BYTES_MAX + 512 * CBI_KIB);
        if (status != CB_OK)
            break;
        *total += got;
        if (got < want)
            break;
    }
    cbi_decoder_destroy(decoder);
    cb_assert(cbi_alloc_bytes() == before);
    cb_assert(status == CB_OK || err.message[0] != '\0');
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t whole[OUT_MAX], pieces[OUT_MAX];
    size_t whole_bytes = 0, pieces_bytes = 0;
    if (size < 2)
        return 0;
    cbi_compression c = (cbi_compression)(1 + data[0] % 3);
    size_t step = 1 + data[1];
    cb_status a = decode(c, data + 2, size - 2, size, OUT_MAX, whole, &whole_bytes);
    cb_status b = decode(c, data + 2, size - 2, step, 1 + step * 7, pieces, &pieces_bytes);
    if (a == CB_OK && b == CB_OK) {
        cb_assert(whole_bytes == pieces_bytes);
        cb_assert(memcmp(whole, pieces, whole_bytes) == 0);
    }
    /* Who had all he asked for has not seen what comes after it: only then may the other know more.
     */
    cb_assert((a == CB_OK) == (b == CB_OK) || (a == CB_OK && whole_bytes == OUT_MAX) ||
              (b == CB_OK && pieces_bytes == OUT_MAX));
    return 0;
}
