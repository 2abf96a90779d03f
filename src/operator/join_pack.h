/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_JOIN_PACK_H
#define CBI_JOIN_PACK_H

#include <string.h>

#include "base/base.h"

/*
 * Half a byte for each character of what is stored: keys of both sides, and the right's text.
 *
 * A join's memory is filled by text of few characters: numbers, codes, dates and what stands
 * between them. Fifteen characters that a sample has shown are written in four bits each, so that a
 * row is one line of the cache, and rows, results and what of them leaves for disk are nearly half
 * as large. A text with any other character stays as it is, behind a byte that no packed text
 * begins with. Nothing is ever unpacked to be compared: one text has one packed form.
 *
 *     first | second << 4, ...      a last one alone: | 15 << 4
 *     0xff, bytes                   not packed
 *     (nothing)                     nothing
 */

enum {
    JOIN_PACK_LETTERS = 15,
    JOIN_PACK_RAW = 0xff,
    JOIN_PACK_MAX = 4096,    /* longer text stays as it is */
    JOIN_PACK_KEY_MAX = 100, /* so do longer keys */
    JOIN_PACK_SLACK = 64,    /* that may be written behind the end */
    JOIN_PACK_ASCII = 128
};

typedef struct join_pack {
    bool keys, text; /* what of it is packed */
    bool wide;       /* by AVX-512 */
    uint8_t alphabet[16];
    uint8_t codes[256];
    uint16_t letters[256];                            /* two for each byte */
    uint8_t pairs[JOIN_PACK_ASCII * JOIN_PACK_ASCII]; /* of neighbours; JOIN_PACK_RAW: no code */
} join_pack;

/** What samples show: how often each byte stands in keys and in text. */
typedef struct join_letters {
    uint64_t keys[256], text[256];
    uint64_t key_rows, text_rows;
} join_letters;

/** A table for what is worth it, or NULL: nothing is, or there is no memory. cbi_free. */
join_pack *join_pack_choose(const join_letters *letters);

/** Packs all of `text` into join_pack_half bytes, or answers false; writes JOIN_PACK_SLACK bytes
 * more than that at most. */
bool join_pack_try(const join_pack *k, const uint8_t *text, size_t bytes, uint8_t *at);

static inline size_t join_pack_half(size_t bytes) {
    return (bytes + 1) / 2;
}

/** A key, into at most one byte more than it has, and JOIN_PACK_SLACK; answers how many. */
static inline size_t join_pack_put(const join_pack *k, const uint8_t *text, size_t bytes,
                                   uint8_t *at) {
    if (CBI_LIKELY(bytes <= JOIN_PACK_KEY_MAX && join_pack_try(k, text, bytes, at)))
        return join_pack_half(bytes);
    at[0] = JOIN_PACK_RAW;
    memcpy(at + 1, text, bytes);
    return bytes + 1;
}

/** Bytes of the text whose packed form is that. */
static inline size_t join_pack_text_bytes(const uint8_t *packed, size_t bytes) {
    if (bytes == 0 || packed[0] == JOIN_PACK_RAW)
        return bytes - (bytes > 0);
    return 2 * bytes - (packed[bytes - 1] >= 0xf0);
}

/** The text, where there is room for it and JOIN_PACK_SLACK; its end. */
uint8_t *join_pack_get(const join_pack *k, const uint8_t *packed, size_t bytes, uint8_t *at);

#endif
