/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_DECOMPRESS_H
#define CBI_DECOMPRESS_H

#include "format/format.h"

/** Gives compressed bytes: up to `bytes`, *got == 0 is the end. */
typedef cb_status (*cbi_decoder_read_fn)(void *ctx, uint8_t *buf, size_t bytes, size_t *got,
                                         cb_error *err);

enum { CBI_MAGIC_BYTES = 4 };
/** What the first bytes of a file say; fewer than CBI_MAGIC_BYTES are no magic number. */
cbi_compression cbi_compression_of_magic(const uint8_t *magic, size_t bytes);

/** One compressed stream: members or frames one after the other. One thread. All memory from
 * cbi_alloc, at most `bytes_max` (a frame that asks for more is refused with CB_EBUDGET and
 * bytes_asked). `name` and `ctx` are borrowed. */
typedef struct cbi_decoder cbi_decoder;
cb_status cbi_decoder_create(cbi_compression c, const char *name, size_t bytes_max,
                             cbi_decoder_read_fn read, void *ctx, cbi_decoder **decoder,
                             cb_error *err);
void cbi_decoder_destroy(cbi_decoder *decoder);
/** Fills `buf`; fewer bytes than asked means the end of the stream. CB_EDATA: corrupt or cut off,
 * with the offset. */
cb_status cbi_decoder_read(cbi_decoder *decoder, uint8_t *buf, size_t bytes, size_t *got,
                           cb_error *err);

#endif
