/* SPDX-License-Identifier: Apache-2.0 */
#include "store/contents.h"

#include <string.h>

#include "base/alloc.h"
#include "base/sys.h"

enum {
    /* From here on a page of its own. Off-heap pages are the system's, so what is smaller than one
     * of these is a small piece in that mode too. */
    SMALL_BYTES_MAX = CBI_MAPPED_BYTES_MIN - 1,
    SMALL_OFF_HEAP_BYTES_MAX = CBI_SYSTEM_PAGE_BYTES - 1,
    CHUNK_BYTES_MIN = 64 * 1024,
    CHUNK_BYTES_MAX = 1024 * 1024,
    CHUNKS_FIRST = 4,
    RECORDS_FIRST = 14,
    RECORDS_MAX = 8190
};

static void note_overhead(cbi_home *home, int64_t bytes) {
    atomic_fetch_add_explicit(&home->overhead, bytes, memory_order_relaxed);
}

/* ---- pages ---- */

static int64_t page_slack(const cb_page *page, size_t used) {
    return (int64_t)(((const cbi_block *)page->block)->capacity + sizeof(cbi_block)) -
           (int64_t)used;
}

static cb_status page_new(const cbi_home *home, cb_mode mode, size_t bytes, cb_page *page,
                          cb_error *err) {
    return cb_allocator_allocate(home->manager->allocators[mode], bytes > 0 ? bytes : 1, page, err);
}

/** One that takes no memory before it is written. */
static cb_status page_untouched(const cbi_home *home, cb_mode mode, size_t bytes, cb_page *page,
                                cb_error *err) {
    cb_allocator *a = home->manager->allocators[mode];
    cbi_block *block = NULL;
    CB_TRY(cbi_allocator_fresh(a, cbi_allocator_capacity(a, bytes), &block, err));
    cbi_allocator_enter_as_is(a, block, bytes, page); /* filled it would be touched */
    return CB_OK;
}

static void page_free(const cbi_home *home, cb_mode mode, cb_page *page) {
    cb_status status = cb_allocator_free(home->manager->allocators[mode], page, NULL);
    cb_assert(status == CB_OK);
}

/* ---- bytes that other processes may see: a sealed file in memory each ---- */

/** What the system needs for such a file: inode, entry, file, tree of pages. */
static size_t share_cost(size_t bytes) {
    enum { FILE_COST = 1536, NODE_COST = 576, NODE_PAGES = 64 };
    return FILE_COST + NODE_COST * (bytes / (CBI_SYSTEM_PAGE_BYTES * (size_t)NODE_PAGES) + 1);
}

static size_t share_capacity(size_t bytes) {
    return cbi_round_up(bytes, CBI_SYSTEM_PAGE_BYTES);
}

/** false: in a page, then. */
static bool share_new(cbi_home *home, size_t bytes, cbi_chunk *item) {
    if (home->share_min == 0 || bytes < home->share_min ||
        atomic_fetch_add_explicit(&home->shares, 1, memory_order_relaxed) >= home->shares_max) {
        if (home->share_min != 0 && bytes >= home->share_min) {
            atomic_fetch_sub_explicit(&home->shares, 1, memory_order_relaxed);
        }
        return false;
    }
    int fd = cbi_sys_memory_file("carbide-block");
    void *base = NULL;
    if (fd >= 0 && cbi_sys_truncate(fd, bytes) == 0) {
        base = cbi_sys_map_file(fd, share_capacity(bytes), true);
    }
    if (base == NULL) {
        atomic_fetch_sub_explicit(&home->shares, 1, memory_order_relaxed);
        if (fd >= 0) {
            (void)cbi_sys_close(fd);
        }
        return false;
    }
    item->page = (cb_page){.base = base, .bytes = bytes, .number = CB_PAGE_NONE};
    item->share = fd + 1;
    return true;
}

static void share_free(cbi_home *home, cbi_chunk *item) {
    cbi_sys_unmap(item->page.base, share_capacity(item->page.bytes));
    (void)cbi_sys_close(item->share - 1);
    atomic_fetch_sub_explicit(&home->shares, 1, memory_order_relaxed);
}

static size_t chunks_size(size_t room) {
    return sizeof(cbi_chunks) + room * sizeof(cbi_chunk);
}

/** What they take beside their bytes. */
static int64_t chunks_slack(const cbi_chunks *c) {
    int64_t slack = (int64_t)chunks_size(c->room);
    for (size_t i = 0; i < c->count; i++) {
        const cbi_chunk *item = &c->items[i];
        slack += item->share == 0
                     ? page_slack(&item->page, item->used)
                     : (int64_t)(share_capacity(item->used) - item->used + share_cost(item->used));
    }
    return slack;
}

static void chunks_free(cbi_home *home, cb_mode mode, cbi_chunks *c) {
    for (size_t i = 0; i < c->count; i++) {
        if (c->items[i].share != 0) {
            share_free(home, &c->items[i]);
        } else {
            page_free(home, mode, &c->items[i].page);
        }
    }
    (void)cbi_allocator_small_free(c);
}

/* ---- bytes of a known size ---- */

static cb_status small_new(cbi_home *home, size_t bytes, cbi_contents *out, uint8_t **first,
                           cb_error *err) {
    size_t held = 0;
    void *piece = cbi_allocator_small(bytes, &held);
    if (piece == NULL) {
        return cbi_fail_bytes(err, CB_ENOMEM, bytes, 0,
                              "The system has no memory for a block of %zu bytes.", bytes);
    }
    note_overhead(home, (int64_t)held - (int64_t)bytes);
    *out = (cbi_contents){.kind = CBI_SMALL, .bytes = bytes, .data = piece, .mode = CB_HEAP};
    *first = piece;
    return CB_OK;
}

static bool is_small(cb_mode mode, size_t bytes) {
    return bytes <= (size_t)(mode == CB_HEAP ? SMALL_BYTES_MAX : SMALL_OFF_HEAP_BYTES_MAX);
}

size_t cbi_contents_capacity(const cbi_home *home, cb_mode mode, size_t bytes, bool own) {
    bool shared = !own && home->share_min != 0 && bytes >= home->share_min;
    return is_small(mode, bytes) || shared
               ? 0
               : cbi_allocator_capacity(home->manager->allocators[mode], bytes);
}

/** What a run may lie in where no block is given. */
typedef enum whereabouts {
    SHARED = 1,   /* what others may come to map */
    UNTOUCHED = 2 /* no page that was used before */
} whereabouts;

/** In `block`, or a new page. */
static cb_status bytes_new(cbi_home *home, cb_mode mode, size_t bytes, cbi_block *block,
                           unsigned where, cbi_contents *out, uint8_t **first, cb_error *err) {
    size_t held = 0;
    cb_allocator *allocator = home->manager->allocators[mode];
    if (is_small(mode, bytes)) {
        return small_new(home, bytes, out, first, err);
    }
    cb_page page = {0};
    if (block != NULL) {
        cbi_allocator_enter(allocator, block, bytes, &page);
    }
    cbi_chunks *c = cbi_allocator_small(chunks_size(1), &held);
    if (c == NULL) {
        if (block != NULL) {
            page_free(home, mode, &page);
        }
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a block's table.");
    }
    *c = (cbi_chunks){.room = 1, .bytes = bytes};
    c->items[0] = (cbi_chunk){.page = page};
    cb_status status = CB_OK;
    if (block == NULL && !((where & SHARED) && share_new(home, bytes, &c->items[0]))) {
        status = (where & UNTOUCHED ? page_untouched : page_new)(home, mode, bytes,
                                                                 &c->items[0].page, err);
    }
    if (status != CB_OK) {
        (void)cbi_allocator_small_free(c);
        return status;
    }
    c->count = 1;
    c->items[0].used = bytes;
    note_overhead(home, chunks_slack(c));
    *out = (cbi_contents){.kind = CBI_CHUNKS, .bytes = bytes, .data = c, .mode = mode};
    *first = cb_page_data(&c->items[0].page);
    return CB_OK;
}

cb_status cbi_contents_bytes_in(cbi_home *home, cb_mode mode, size_t bytes, cbi_block *block,
                                cbi_contents *out, uint8_t **first, cb_error *err) {
    return bytes_new(home, mode, bytes, block, SHARED, out, first, err);
}

cb_status cbi_contents_bytes(cbi_home *home, cb_mode mode, size_t bytes, cbi_contents *out,
                             uint8_t **first, cb_error *err) {
    return bytes_new(home, mode, bytes, NULL, SHARED, out, first, err);
}

cb_status cbi_contents_bytes_to_come(cbi_home *home, cb_mode mode, size_t bytes, cbi_block *block,
                                     bool own, cbi_contents *out, uint8_t **first, cb_error *err) {
    return bytes_new(home, mode, bytes, block, own ? UNTOUCHED : SHARED | UNTOUCHED, out, first,
                     err);
}

bool cbi_contents_is_used(const cbi_contents *contents) {
    const cbi_chunks *c = contents->data;
    return contents->kind == CBI_CHUNKS && c->count == 1 && c->items[0].share == 0 &&
           ((const cbi_block *)c->items[0].page.block)->stamp != 0;
}

cb_status cbi_contents_seal(const cbi_contents *contents, cb_error *err) {
    int fd = cbi_contents_descriptor(contents->kind, contents->data);
    if (fd < 0) {
        return CB_OK;
    }
    const cbi_chunk *item = &((const cbi_chunks *)contents->data)->items[0];
    int sealed = cbi_sys_seal(fd, item->page.base, share_capacity(item->page.bytes));
    return sealed < 0 ? cbi_fail_sys(err, CB_ENOMEM, sealed, "a block's memory cannot be sealed")
                      : CB_OK;
}

int cbi_contents_descriptor(uint8_t kind, const void *data) {
    const cbi_chunks *c = data;
    return kind == CBI_CHUNKS && c->count == 1 ? c->items[0].share - 1 : -1;
}

void cbi_contents_free(cbi_home *home, cbi_contents *c) {
    switch (c->kind) {
        case CBI_SMALL:
            note_overhead(home, (int64_t)c->bytes - (int64_t)cbi_allocator_small_free(c->data));
            break;
        case CBI_CHUNKS:
            note_overhead(home, -chunks_slack(c->data));
            chunks_free(home, c->mode, c->data);
            break;
        case CBI_RECORDS:
            cbi_records_clear(c->data);
            (void)cbi_allocator_small_free(c->data);
            break;
        default: break;
    }
    *c = (cbi_contents){0};
}

const uint8_t *cbi_contents_run(uint8_t kind, const void *data) {
    if (kind == CBI_SMALL) {
        return data;
    }
    const cbi_chunks *c = data;
    return kind == CBI_CHUNKS && c->count == 1 ? cb_page_data(&c->items[0].page) : NULL;
}

/* ---- bytes piece by piece ---- */

static cb_status add_chunk(cbi_builder *b, size_t wanted, cb_error *err) {
    cbi_chunks *c = b->chunks;
    if (c == NULL || c->count == c->room) {
        size_t room = c == NULL ? CHUNKS_FIRST : 2 * c->room, held = 0;
        cbi_chunks *larger = cbi_allocator_small(chunks_size(room), &held);
        if (larger == NULL) {
            return cbi_fail(err, CB_ENOMEM, "The system has no memory for a block's table.");
        }
        *larger = (cbi_chunks){.room = room};
        if (c != NULL) {
            larger->count = c->count;
            larger->bytes = c->bytes;
            memcpy(larger->items, c->items, c->count * sizeof *c->items);
            (void)cbi_allocator_small_free(c);
        }
        b->chunks = c = larger;
    }
    /* a quarter of what is there: the waste stays below the half that unrolling reserves ahead */
    size_t bytes = cbi_clamp(cbi_round_up((size_t)c->bytes / 4 + wanted, CHUNK_BYTES_MIN),
                             CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
    cbi_chunk *item = &c->items[c->count];
    CB_TRY(page_new(b->home, b->mode, bytes, &item->page, err));
    item->used = 0;
    item->share = 0;
    c->count++;
    return CB_OK;
}

/** The chunk that the next bytes go to, which has room for one at least. */
static cb_status open_chunk(cbi_builder *b, size_t wanted, cbi_chunk **chunk, cb_error *err) {
    const cbi_chunks *c = b->chunks;
    if (c == NULL || c->count == 0 ||
        c->items[c->count - 1].used == c->items[c->count - 1].page.bytes) {
        CB_TRY(add_chunk(b, cbi_min(wanted, CHUNK_BYTES_MAX), err));
    }
    *chunk = &b->chunks->items[b->chunks->count - 1];
    return CB_OK;
}

cb_status cbi_builder_room(cbi_builder *b, uint8_t **to, size_t *room, cb_error *err) {
    cbi_chunk *chunk = NULL;
    CB_TRY(open_chunk(b, 1, &chunk, err));
    *to = cb_page_data(&chunk->page) + chunk->used;
    *room = chunk->page.bytes - chunk->used;
    return CB_OK;
}

void cbi_builder_fill(cbi_builder *b, size_t count) {
    b->chunks->items[b->chunks->count - 1].used += count;
    b->chunks->bytes += count;
}

cb_status cbi_builder_append(cbi_builder *b, const void *bytes, size_t count, cb_error *err) {
    const uint8_t *from = bytes;
    while (count > 0) {
        cbi_chunk *chunk = NULL;
        CB_TRY(open_chunk(b, count, &chunk, err));
        size_t part = cbi_min(count, chunk->page.bytes - chunk->used);
        memcpy(cb_page_data(&chunk->page) + chunk->used, from, part);
        cbi_builder_fill(b, part);
        from += part;
        count -= part;
    }
    return CB_OK;
}

void cbi_builder_truncate(cbi_builder *b, uint64_t bytes) {
    cbi_chunks *c = b->chunks;
    while (c != NULL && c->bytes > bytes) {
        cbi_chunk *last = &c->items[c->count - 1];
        uint64_t part = c->bytes - bytes < last->used ? c->bytes - bytes : last->used;
        last->used -= (size_t)part;
        c->bytes -= part;
        if (last->used == 0 && c->count > 1) {
            page_free(b->home, b->mode, &last->page);
            c->count--;
        }
    }
}

/** All of it in one run when it is small; else the last chunk in a page of its size. */
static cb_status tighten(cbi_builder *b, cb_error *err) {
    cbi_chunks *c = b->chunks;
    cbi_chunk *last = &c->items[c->count - 1];
    if (last->used == last->page.bytes) {
        return CB_OK;
    }
    if (last->used == 0) {
        page_free(b->home, b->mode, &last->page);
        c->count--;
        return CB_OK;
    }
    cb_page page;
    CB_TRY(page_new(b->home, b->mode, last->used, &page, err));
    memcpy(cb_page_data(&page), cb_page_data(&last->page), last->used);
    page_free(b->home, b->mode, &last->page);
    last->page = page;
    return CB_OK;
}

cb_status cbi_builder_finish(cbi_builder *b, cbi_contents *out, cb_error *err) {
    cbi_chunks *c = b->chunks;
    uint64_t bytes = cbi_builder_bytes(b);
    if (c == NULL || c->count == 1) {
        cbi_contents made;
        uint8_t *to = NULL;
        CB_TRY(cbi_contents_bytes(b->home, b->mode, (size_t)bytes, &made, &to, err));
        if (c != NULL && bytes > 0) {
            memcpy(to, cb_page_data(&c->items[0].page), (size_t)bytes);
        }
        cb_status status = cbi_contents_seal(&made, err);
        if (status != CB_OK) {
            cbi_contents_free(b->home, &made);
            return status;
        }
        cbi_builder_clear(b);
        *out = made;
        return CB_OK;
    }
    CB_TRY(tighten(b, err));
    note_overhead(b->home, chunks_slack(c));
    *out = (cbi_contents){.kind = CBI_CHUNKS, .bytes = bytes, .data = c, .mode = b->mode};
    b->chunks = NULL;
    return CB_OK;
}

void cbi_builder_clear(cbi_builder *b) {
    if (b->chunks != NULL) {
        chunks_free(b->home, b->mode, b->chunks);
        b->chunks = NULL;
    }
}

/* ---- records ---- */

static size_t records_size(size_t room) {
    return sizeof(cbi_record_chunk) + room * sizeof(void *);
}

cb_status cbi_records_append(cbi_records *r, void *record, cb_error *err) {
    cbi_record_chunk *last = r->last;
    if (last == NULL || last->count == last->room) {
        size_t room = last == NULL ? RECORDS_FIRST : cbi_min(2 * last->room + 3, RECORDS_MAX);
        size_t held = 0;
        size_t bytes = records_size(room);
        cbi_record_chunk *more = cbi_allocator_small(bytes, &held);
        if (more == NULL) {
            return cbi_fail(err, CB_ENOMEM, "The system has no memory for a block's records.");
        }
        *more = (cbi_record_chunk){.room = room};
        *(last != NULL ? &last->next : &r->first) = more;
        r->last = last = more;
        r->bytes += bytes;
        note_overhead(r->home, (int64_t)held - (int64_t)bytes);
    }
    last->items[last->count++] = record;
    r->count++;
    r->bytes += r->class->sampled ? 0 : r->class->size(r->class->ctx, record);
    return CB_OK;
}

void *cbi_records_at(const cbi_records *r, uint64_t number) {
    const cbi_record_chunk *c = r->first;
    if (number >= r->count - r->last->count) {
        c = r->last;
        number -= r->count - r->last->count;
    }
    for (; number >= c->count; c = c->next) {
        number -= c->count;
    }
    return c->items[number];
}

void cbi_records_clear(cbi_records *r) {
    for (cbi_record_chunk *c = r->first, *next = NULL; c != NULL; c = next) {
        next = c->next;
        for (size_t i = 0; i < c->count; i++) {
            if (c->items[i] != NULL) {
                r->class->destroy(r->class->ctx, c->items[i]);
            }
        }
        size_t bytes = records_size(c->room);
        note_overhead(r->home, (int64_t)bytes - (int64_t)cbi_allocator_small_free(c));
    }
    r->first = r->last = NULL;
    r->count = r->bytes = 0;
}
