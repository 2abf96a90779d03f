/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records that never lie about uncompressed.
 *
 * A partition has a block, as large as the codec's; a record is copied to the end of it, and when
 * it is full it is compressed while it is still in cache. What stays in memory is what the file
 * will hold, so a task's pages last as many times longer as its data can be compressed, most never
 * have to leave, and the end of a task only puts chunks one behind the other.
 *
 * That is worth it once there is more than the blocks take: a small task keeps its few raw pieces
 * (shuffle.c), and so does one with so many partitions that blocks would be tens of megabytes, or
 * one whose codec has frames that are longer than blocks. A spill takes the blocks along; what
 * comes after it begins with raw pieces again. What the file's readers see is the same either way.
 */
#include <string.h>

#include "operator/shuffle_private.h"

enum {
    SMALL_RECORDS = 8, /* of so many in a block none is cut */
    AHEAD = 4,         /* records */
    AHEAD_BYTES_MAX = 256
};
static const size_t BLOCKS_BYTES_MAX = 32 * CBI_MIB;

size_t cbi_shuffle_blocks_size(cb_shuffle_codec codec, uint32_t block_bytes, uint32_t partitions) {
    size_t size = (size_t)block_bytes * partitions;
    return codec == CB_SHUFFLE_LZ4_BLOCK && size <= BLOCKS_BYTES_MAX ? size : 0;
}

/** What a chunk takes of a page at most. */
static size_t chunk_cost(const cb_shuffle *s) {
    return cbi_round_up(sizeof(cbi_piece) + s->chunk_max, CBI_PIECE_ALIGN);
}

/** Of a page of packed chunks, when so many bytes come to a partition. */
static size_t cost(const cb_shuffle *s, const cbi_chain *c, size_t bytes) {
    return (c->filled + bytes) / s->encoder.block_bytes * chunk_cost(s);
}

/** [locked] */
static void pack(cb_shuffle *s, cbi_chain *c, const uint8_t *block, uint32_t count) {
    cbi_piece *p = (cbi_piece *)(void *)s->packed.at;
    p->next = NULL;
    p->bytes = (uint32_t)cbi_encoder_block(&s->encoder, (uint8_t *)(p + 1), block, count);
    p->page = s->packed_newest;
    *(c->packed_last != NULL ? &c->packed_last->next : &c->packed_first) = p;
    c->packed_last = p;
    s->packed.at += cbi_round_up(sizeof *p + p->bytes, CBI_PIECE_ALIGN);
}

/** [locked] There is room for what gets full. */
static void put(cb_shuffle *s, uint32_t partition, const uint8_t *bytes, size_t count) {
    cbi_chain *c = &s->chains[partition];
    uint32_t block_bytes = s->encoder.block_bytes;
    uint8_t *block = s->blocks + (size_t)partition * block_bytes;
    if (c->filled + count > block_bytes && count <= block_bytes / SMALL_RECORDS) {
        pack(s, c, block, c->filled);
        c->filled = 0;
    }
    while (count > 0) {
        size_t piece = cbi_min(count, block_bytes - c->filled);
        if (piece == block_bytes) { /* as it lies */
            pack(s, c, bytes, block_bytes);
        } else {
            memcpy(block + c->filled, bytes, piece);
            c->filled += (uint32_t)piece;
            if (c->filled == block_bytes) {
                c->filled = 0;
                pack(s, c, block, block_bytes);
            }
        }
        bytes += piece;
        count -= piece;
    }
}

/**
 * The record at *ahead will be copied soon: its block, one of many that are larger than the nearest
 * caches together, is fetched meanwhile. What cannot be a record is found out when its turn comes.
 */
static inline void fetch_ahead(const cb_shuffle *s, const uint8_t *batch, size_t bytes,
                               size_t *ahead) {
    const uint8_t *record = batch + *ahead;
    if (*ahead >= bytes || !cbi_shuffle_record_fits(s, record, bytes - *ahead)) {
        *ahead = bytes;
        return;
    }
    uint32_t partition = cbi_load_u32(record), length = cbi_load_u32(record + 4);
    const uint8_t *to =
        s->blocks + (size_t)partition * s->encoder.block_bytes + s->chains[partition].filled;
    for (uint32_t at = 0; at < cbi_min(length, AHEAD_BYTES_MAX); at += CBI_CACHE_LINE) {
        __builtin_prefetch(to + at, 1);
    }
    *ahead += CBI_RECORD_HEADER_BYTES + length;
}

cb_status cbi_shuffle_blocks_append(cb_shuffle *s, const uint8_t *batch, size_t bytes, cbi_fit *f,
                                    cb_error *err) {
    size_t ahead = f->bytes;
    for (int i = 0; i < AHEAD; i++) {
        fetch_ahead(s, batch, bytes, &ahead);
    }
    while (f->bytes < bytes) {
        const uint8_t *record = batch + f->bytes;
        fetch_ahead(s, batch, bytes, &ahead);
        if (CBI_UNLIKELY(!cbi_shuffle_record_fits(s, record, bytes - f->bytes))) {
            return cbi_shuffle_refuse_record(s, record, f->bytes, bytes, err);
        }
        uint32_t partition = cbi_load_u32(record), length = cbi_load_u32(record + 4);
        f->needed = cost(s, &s->chains[partition], length);
        if (f->needed > (size_t)(s->packed.end - s->packed.at)) {
            return CB_OK;
        }
        put(s, partition, record + CBI_RECORD_HEADER_BYTES, length);
        f->bytes += CBI_RECORD_HEADER_BYTES + length;
    }
    return CB_OK;
}

/* ---- from raw pieces to blocks ---- */

/** [locked] Raw pieces from *partition on go to the blocks, while there is room: what is missing.
 */
static size_t move_pieces(cb_shuffle *s, uint32_t *partition) {
    for (; *partition < s->partitions; (*partition)++) {
        cbi_chain *c = &s->chains[*partition];
        for (; c->first != NULL; c->first = c->first->next) {
            size_t needed = cost(s, c, c->first->bytes);
            if (needed > (size_t)(s->packed.end - s->packed.at)) {
                return needed;
            }
            put(s, *partition, (const uint8_t *)(c->first + 1), c->first->bytes);
        }
        c->last = NULL;
    }
    return 0;
}

/** [locked] A page for the blocks, among those of packed chunks: it goes when they do. */
static void add_blocks(cb_shuffle *s, const cb_page *page) {
    cbi_shuffle_page *header = (cbi_shuffle_page *)(void *)cb_page_data(page);
    header->page = *page;
    header->next = s->packed.first;
    header->number = UINT32_MAX; /* it never leaves alone */
    s->packed.first = header;
    s->page_total += page->bytes;
    s->blocks = (uint8_t *)header + cbi_round_up(sizeof *header, CBI_CACHE_LINE);
}

/** [locked] What they held has moved. */
static cbi_shuffle_page *take_raw(cb_shuffle *s) {
    cbi_shuffle_page *pages = s->raw.first;
    for (const cbi_shuffle_page *p = pages; p != NULL; p = p->next) {
        s->page_total -= p->page.bytes;
    }
    s->freeing += pages != NULL;
    s->raw = (cbi_shuffle_pages){0};
    return pages;
}

cb_status cbi_shuffle_blocks_begin(cb_shuffle *s, cb_error *err) {
    size_t size = s->blocks_size + cbi_round_up(sizeof(cbi_shuffle_page), CBI_CACHE_LINE);
    cb_page page;
    cb_status status = cb_page_alloc_least(s->consumer, size, size, &page, err);
    cbi_mutex_lock(&s->lock);
    s->blocks_tried = true;
    if (status != CB_OK) { /* raw pieces will do, until they have to leave */
        cbi_mutex_unlock(&s->lock);
        return status == CB_EBUDGET || status == CB_ENOMEM ? CB_OK : status;
    }
    (void)cbi_phase_enter(&s->phases, CBI_COPYING);
    add_blocks(s, &page);
    uint32_t partition = 0;
    size_t missing;
    while (s->blocks != NULL && (missing = move_pieces(s, &partition)) > 0) {
        (void)cbi_phase_enter(&s->phases, CBI_OUTSIDE);
        cbi_mutex_unlock(&s->lock);
        CB_TRY(cbi_shuffle_more_room(s, &s->packed, missing, err));
        cbi_mutex_lock(&s->lock);
        (void)cbi_phase_enter(&s->phases, CBI_COPYING);
    }
    cbi_shuffle_page *pages = s->blocks != NULL ? take_raw(s) : NULL;
    (void)cbi_phase_enter(&s->phases, CBI_OUTSIDE);
    cbi_mutex_unlock(&s->lock);
    if (pages != NULL) {
        cbi_shuffle_free_pages(s, pages);
    }
    return CB_OK;
}
