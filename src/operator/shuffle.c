/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A map task's output, partition behind partition.
 *
 * A batch is ordered by partition while it is copied to a page: one look at its headers counts the
 * bytes of each partition, one walk copies them to their places. So a page holds *pieces*, each a
 * batch's bytes of one partition side by side, chained per partition through all pages; there is no
 * index beside them, nothing is sorted, and what is read back in the end is long runs of bytes
 * instead of single rows. Once pages hold what blocks of all partitions would, there are such
 * blocks, and only what is compressed stays (shuffle_blocks.c).
 *
 * When there is no more memory for chunks the older half of them leaves, which come first in their
 * partitions: a task that is short of little spills little, and goes on with the blocks it has.
 *
 * The lock guards pages, chains and runs. It is held for as long as a spill or the final write
 * takes, and never while the parent is asked: its thread may wait for one that wants to spill us.
 */
#include <fcntl.h>
#include <string.h>

#include "base/alloc.h"
#include "operator/shuffle_private.h"

enum {
    PAGE_BYTES_MIN = 64 * 1024,
    /* The task's page table comes out of the same steps as pages: room for it in the first one. */
    TABLE_BYTES = 8 * 1024,
    HALF_PAGES_MIN = 4,
    HALF_RUNS_MAX = CBI_RUNS_MAX / 2
};
static const uint32_t ALL_PAGES = UINT32_MAX;
static const size_t PAGE_BYTES_DEFAULT = CBI_MIB, PAGE_BYTES_MAX = CBI_GIB,
                    BATCH_BYTES_MAX = CBI_GIB;

/* ---- the parent, and how much it has given ---- */

static uint64_t parent_acquire(void *ctx, cb_mode mode, uint64_t bytes) {
    cb_shuffle *s = ctx;
    uint64_t got = s->parent.acquire(s->parent.ctx, mode, bytes);
    if (got > bytes) {
        s->parent.release(s->parent.ctx, mode, got - bytes);
        got = bytes;
    }
    uint64_t now = atomic_fetch_add(&s->drawn, got) + got;
    uint64_t peak = atomic_load(&s->drawn_peak);
    while (now > peak && !atomic_compare_exchange_weak(&s->drawn_peak, &peak, now)) {
    }
    return got;
}

static void parent_release(void *ctx, cb_mode mode, uint64_t bytes) {
    cb_shuffle *s = ctx;
    atomic_fetch_sub(&s->drawn, bytes);
    s->parent.release(s->parent.ctx, mode, bytes);
    atomic_fetch_add(&s->returned, bytes);
}

/* ---- create and destroy ---- */

static cb_status check_options(const cb_shuffle_options *o, cb_error *err) {
    if (o == NULL || o->struct_size != sizeof *o) {
        return cbi_fail(err, CB_EINVAL, "The options of a shuffle have another size.");
    }
    if (o->partitions == 0 || o->partitions > CB_SHUFFLE_PARTITIONS_MAX) {
        return cbi_fail(err, CB_EINVAL, "A shuffle has 1 to %d partitions, not %u.",
                        CB_SHUFFLE_PARTITIONS_MAX, o->partitions);
    }
    if ((unsigned)o->codec > CB_SHUFFLE_ZSTD || (unsigned)o->checksum > CB_CHECKSUM_CRC32C) {
        return cbi_fail(err, CB_EINVAL, "No codec is numbered %d, or no checksum %d.",
                        (int)o->codec, (int)o->checksum);
    }
    if (o->block_bytes != 0 && (o->block_bytes < 64 || o->block_bytes > 32 * CBI_MIB)) {
        return cbi_fail(err, CB_EINVAL, "A block has 64 bytes to 32 MiB, not %u bytes.",
                        o->block_bytes);
    }
    if (o->page_bytes != 0 && (o->page_bytes < PAGE_BYTES_MIN || o->page_bytes > PAGE_BYTES_MAX)) {
        return cbi_fail(err, CB_EINVAL, "A page has 64 KiB to 1 GiB, not %zu bytes.",
                        o->page_bytes);
    }
    if (o->parent.acquire == NULL || o->parent.release == NULL) {
        return cbi_fail(err, CB_EINVAL, "A shuffle has no parent to draw pages from.");
    }
    if (o->dirs == NULL || o->dir_count == 0) {
        return cbi_fail(err, CB_EINVAL, "A shuffle has no folder to spill to.");
    }
    return CB_OK;
}

static cb_status no_memory(cb_error *err, size_t bytes) {
    return cbi_fail_bytes(err, CB_ENOMEM, bytes, 0, "There is no memory for a shuffle's tables.");
}

static cb_status create_tables(cb_shuffle *s, const cb_shuffle_options *o, cb_error *err) {
    s->dirs = cbi_calloc(o->dir_count, sizeof *s->dirs);
    s->chains = cbi_calloc(s->partitions, sizeof *s->chains);
    s->touched = cbi_calloc(s->partitions, sizeof *s->touched);
    if (s->dirs == NULL || s->chains == NULL || s->touched == NULL) {
        return no_memory(err, s->partitions * (sizeof *s->chains + sizeof *s->touched));
    }
    for (; s->dir_count < o->dir_count; s->dir_count++) {
        s->dirs[s->dir_count] = cbi_strdup(o->dirs[s->dir_count]);
        if (s->dirs[s->dir_count] == NULL) {
            return no_memory(err, 0);
        }
    }
    uint32_t block_bytes = o->block_bytes != 0 ? o->block_bytes : 32 * (uint32_t)CBI_KIB;
    s->chunk_max = cbi_encoder_chunk_max(o->codec, block_bytes);
    s->out.size = cbi_max(CBI_OUT_BYTES, s->chunk_max + sizeof(uint32_t));
    s->blocks_size = cbi_shuffle_blocks_size(o->codec, block_bytes, s->partitions);
    s->out.buffer = cbi_alloc(s->out.size);
    if (s->out.buffer == NULL) {
        return no_memory(err, s->out.size);
    }
    CB_TRY(cbi_encoder_init(&s->encoder, o->codec, block_bytes, o->level != 0 ? o->level : 1, err));
    s->encoder.phases = s->out.phases = &s->phases;
    return CB_OK;
}

static cb_status create_source(cb_shuffle *s, cb_error *err) {
    cb_parent parent = {parent_acquire, parent_release, s};
    cb_manager_options manager = cb_manager_options_native((uint64_t)1 << 50);
    manager.parent = &parent;
    manager.page_bytes = s->page_bytes;
    manager.huge_pages = true;
    CB_TRY(cb_manager_create(&manager, &s->manager, err));
    cb_task_options task = {.struct_size = sizeof task, .name = "shuffle"};
    CB_TRY(cb_task_create(s->manager, &task, &s->task, err));
    cb_consumer_options consumer = {
        .struct_size = sizeof consumer, .name = "pages", .mode = CB_OFF_HEAP};
    return cb_consumer_create(s->task, &consumer, &s->consumer, err);
}

cb_status cb_shuffle_create(const cb_shuffle_options *o, cb_shuffle **shuffle, cb_error *err) {
    CB_TRY(check_options(o, err));
    cb_shuffle *s = cbi_calloc(1, sizeof *s);
    if (s == NULL) {
        return no_memory(err, sizeof *s);
    }
    cbi_mutex_init(&s->lock, CBI_RANK_SHUFFLE);
    cbi_cond_init(&s->freed);
    s->partitions = o->partitions;
    s->page_bytes = o->page_bytes != 0 ? o->page_bytes : PAGE_BYTES_DEFAULT;
    s->parent = o->parent;
    s->checksum = o->checksum;
    s->out.fd = -1;
    s->phases.since = cbi_sys_clock_ns();
    cb_status status = create_tables(s, o, err);
    if (status == CB_OK) {
        status = create_source(s, err);
    }
    if (status != CB_OK) {
        cb_shuffle_destroy(s);
        return status;
    }
    *shuffle = s;
    return CB_OK;
}

void cb_shuffle_destroy(cb_shuffle *s) {
    if (s == NULL) {
        return;
    }
    cbi_shuffle_runs_close(&s->runs);
    (void)cb_task_end(s->task, NULL, 0); /* frees the pages */
    cb_manager_destroy(s->manager);
    cbi_encoder_fini(&s->encoder);
    cbi_free(s->out.buffer);
    for (size_t i = 0; i < s->dir_count; i++) {
        cbi_free(s->dirs[i]);
    }
    cbi_free(s->dirs);
    cbi_free(s->touched);
    cbi_free(s->chains);
    cbi_cond_fini(&s->freed);
    cbi_mutex_fini(&s->lock);
    cbi_free(s);
}

/* ---- pages ---- */

/** [locked] Everything leaves memory; the pages are the caller's to free with no lock held. */
static cbi_shuffle_page *take_pages(cb_shuffle *s) {
    cbi_shuffle_page *pages = s->raw.first, **last = &pages;
    while (*last != NULL) {
        last = &(*last)->next;
    }
    *last = s->packed.first;
    s->freeing += pages != NULL;
    s->raw = s->packed = (cbi_shuffle_pages){0};
    s->blocks = NULL;
    s->blocks_tried = false;
    s->page_total = 0;
    memset(s->chains, 0, s->partitions * sizeof *s->chains);
    return pages;
}

void cbi_shuffle_free_pages(cb_shuffle *s, cbi_shuffle_page *pages) {
    while (pages != NULL) {
        cbi_shuffle_page *next = pages->next;
        cb_page page = pages->page;
        cb_status status = cb_page_free(s->consumer, &page, NULL);
        cb_assert(status == CB_OK);
        pages = next;
    }
    (void)cb_manager_shrink(s->manager, CB_OFF_HEAP, UINT64_MAX);
    cbi_mutex_lock(&s->lock);
    s->freeing--;
    s->frees++;
    cbi_cond_broadcast(&s->freed);
    cbi_mutex_unlock(&s->lock);
}

/** The older half of what is packed goes to disk, if it is worth it, and back to the parent. */
static cb_status spill_older_half(cb_shuffle *s, bool *done, cb_error *err);

/** [locked] Until nobody gives pages back: another thread may have taken all there were, and what
 * it has not given back yet nobody can draw. */
static void wait_for_freed(cb_shuffle *s) {
    while (s->freeing > 0) {
        cbi_cond_wait(&s->freed, &s->lock);
    }
}

/** Has anybody given pages back since *seen? Waits for who is about to. */
static bool is_more_free(cb_shuffle *s, uint64_t *seen) {
    cbi_mutex_lock(&s->lock);
    wait_for_freed(s);
    bool more = s->frees != *seen;
    *seen = s->frees;
    cbi_mutex_unlock(&s->lock);
    return more;
}

/** What a page of this kind should have. Until there are blocks raw ones hold no more than they do.
 */
static size_t page_wanted(cb_shuffle *s, const cbi_shuffle_pages *to, size_t least) {
    size_t wanted = s->page_bytes;
    cbi_mutex_lock(&s->lock); /* a spill by another thread ends what was tried */
    bool tried = s->blocks_tried;
    cbi_mutex_unlock(&s->lock);
    if (to == &s->raw && s->blocks_size > 0 && !tried) {
        wanted = cbi_min(wanted, cbi_max(s->blocks_size / 2, PAGE_BYTES_MIN));
    }
    return cbi_max(wanted - TABLE_BYTES, least);
}

/** A spill by somebody else took them: what a block was to become is not needed any more. */
static bool have_blocks_gone(cb_shuffle *s) {
    cbi_mutex_lock(&s->lock);
    bool gone = s->blocks == NULL;
    cbi_mutex_unlock(&s->lock);
    return gone;
}

cb_status cbi_shuffle_more_room(cb_shuffle *s, cbi_shuffle_pages *to, size_t bytes, cb_error *err) {
    size_t least = sizeof(cbi_shuffle_page) + bytes + 2 * CBI_PIECE_ALIGN;
    size_t wanted = page_wanted(s, to, least);
    cb_page page;
    uint64_t released, seen = 0;
    (void)is_more_free(s, &seen);
    cb_status status = cb_page_alloc_least(s->consumer, least, wanted, &page, err);
    while (status == CB_EBUDGET || status == CB_ENOMEM) {
        bool half = false;
        if (to == &s->packed) {
            CB_TRY(spill_older_half(s, &half, err));
        }
        if (!half) {
            CB_TRY(cb_shuffle_spill(s, &released, err));
        }
        if (!is_more_free(s, &seen) && !(to == &s->packed && have_blocks_gone(s))) {
            break;
        }
        if (to == &s->packed && (!half || have_blocks_gone(s))) {
            return CB_OK;
        }
        status = cb_page_alloc_least(s->consumer, least, wanted, &page, err);
    }
    CB_TRY(status);
    cbi_shuffle_page *header = (cbi_shuffle_page *)(void *)cb_page_data(&page);
    header->page = page;
    cbi_mutex_lock(&s->lock);
    header->number = to == &s->packed ? ++s->packed_newest : 0;
    header->next = to->first;
    to->first = header;
    to->at = (uint8_t *)header + cbi_round_up(sizeof *header, CBI_PIECE_ALIGN);
    to->end = (uint8_t *)header + page.bytes;
    s->page_total += page.bytes;
    cbi_mutex_unlock(&s->lock);
    return CB_OK;
}

/* ---- append ---- */

cb_status cbi_shuffle_refuse_record(const cb_shuffle *s, const uint8_t *record, size_t at,
                                    size_t bytes, cb_error *err) {
    bool whole = bytes - at >= CBI_RECORD_HEADER_BYTES;
    return cbi_fail(
        err, CB_EINVAL,
        "A batch of %zu bytes has a record at %zu with partition %u of %u and %u bytes, "
        "which cannot be.",
        bytes, at, whole ? cbi_load_u32(record) : UINT32_MAX, s->partitions,
        whole ? cbi_load_u32(record + 4) : 0);
}

/** [locked] Counts the bytes of each partition; checks every header before anything is written. */
static cb_status count_records(cb_shuffle *s, const uint8_t *batch, size_t bytes, cbi_fit *f,
                               cb_error *err) {
    size_t room = (size_t)(s->raw.end - s->raw.at), used = 0;
    while (f->bytes < bytes) {
        const uint8_t *record = batch + f->bytes;
        if (CBI_UNLIKELY(!cbi_shuffle_record_fits(s, record, bytes - f->bytes))) {
            for (uint32_t i = 0; i < f->touched; i++) {
                s->chains[s->touched[i]].bytes = 0;
            }
            return cbi_shuffle_refuse_record(s, record, f->bytes, bytes, err);
        }
        uint32_t partition = cbi_load_u32(record), length = cbi_load_u32(record + 4);
        cbi_chain *c = &s->chains[partition];
        size_t cost =
            length + (c->bytes == 0 && length > 0 ? sizeof(cbi_piece) + CBI_PIECE_ALIGN : 0);
        if (cost > room - used) {
            f->needed = sizeof(cbi_piece) + length;
            break;
        }
        used += cost;
        if (c->bytes == 0 && length > 0) {
            s->touched[f->touched++] = partition;
        }
        c->bytes += length;
        f->bytes += CBI_RECORD_HEADER_BYTES + length;
    }
    return CB_OK;
}

/** [locked] A piece for each partition that is touched, in the newest page. */
static void place_pieces(cb_shuffle *s, uint32_t touched) {
    for (uint32_t i = 0; i < touched; i++) {
        cbi_chain *c = &s->chains[s->touched[i]];
        cbi_piece *p = (cbi_piece *)(void *)s->raw.at;
        *p = (cbi_piece){.bytes = c->bytes};
        *(c->last != NULL ? &c->last->next : &c->first) = p;
        c->last = p;
        c->cursor = s->raw.at + sizeof *p;
        s->raw.at += cbi_round_up(sizeof *p + c->bytes, CBI_PIECE_ALIGN);
        c->bytes = 0;
    }
}

/** [locked] */
static void copy_records(cb_shuffle *s, const uint8_t *batch, size_t bytes) {
    for (size_t at = 0; at < bytes;) {
        cbi_chain *c = &s->chains[cbi_load_u32(batch + at)];
        uint32_t length = cbi_load_u32(batch + at + 4);
        if (length > 0) {
            memcpy(c->cursor, batch + at + CBI_RECORD_HEADER_BYTES, length);
            c->cursor += length;
        }
        at += CBI_RECORD_HEADER_BYTES + length;
    }
}

/** [locked] */
static cb_status append_raw(cb_shuffle *s, const uint8_t *batch, size_t bytes, cbi_fit *f,
                            cb_error *err) {
    CB_TRY(count_records(s, batch, bytes, f, err));
    place_pieces(s, f->touched);
    copy_records(s, batch, f->bytes);
    return CB_OK;
}

/** [locked] */
static cb_status check_alive(const cb_shuffle *s, cb_error *err) {
    if (s->failure.status != CB_OK) {
        return cbi_fail(err, s->failure.status, "A spill failed before: %s", s->failure.message);
    }
    return s->written ? cbi_fail(err, CB_EMISUSE, "A shuffle's file is written already.") : CB_OK;
}

cb_status cb_shuffle_append(cb_shuffle *s, const void *batch, size_t bytes, cb_error *err) {
    const uint8_t *at = batch;
    if (bytes > BATCH_BYTES_MAX) {
        return cbi_fail(err, CB_EINVAL, "A batch has at most 1 GiB, not %zu bytes.", bytes);
    }
    while (bytes > 0) {
        cbi_fit f = {0};
        cbi_mutex_lock(&s->lock);
        (void)cbi_phase_enter(&s->phases, CBI_COPYING);
        cb_status status = check_alive(s, err);
        bool packs = s->blocks != NULL;
        if (status == CB_OK) {
            status = packs ? cbi_shuffle_blocks_append(s, at, bytes, &f, err)
                           : append_raw(s, at, bytes, &f, err);
        }
        bool enough = !packs && s->page_total >= s->blocks_size && !s->blocks_tried;
        (void)cbi_phase_enter(&s->phases, CBI_OUTSIDE);
        cbi_mutex_unlock(&s->lock);
        CB_TRY(status);
        at += f.bytes;
        bytes -= f.bytes;
        if (bytes > 0 && enough && s->blocks_size > 0) {
            CB_TRY(cbi_shuffle_blocks_begin(s, err));
        } else if (bytes > 0) {
            CB_TRY(cbi_shuffle_more_room(s, packs ? &s->packed : &s->raw, f.needed, err));
        }
    }
    return CB_OK;
}

/* ---- out of memory, to a run or to the file ---- */

static void prefetch_piece(const cbi_piece *p) {
    if (p != NULL) {
        __builtin_prefetch(p);
    }
}

/** Chunks in pages up to number `last`. */
static cb_status copy_packed(cb_shuffle *s, const cbi_piece *p, uint32_t last, cb_error *err) {
    for (; p != NULL && p->page <= last; p = p->next) {
        uint8_t *to;
        prefetch_piece(p->next);
        CB_TRY(cbi_out_reserve(&s->out, p->bytes, &to, err));
        memcpy(to, p + 1, p->bytes);
        cbi_out_commit(&s->out, p->bytes);
    }
    return CB_OK;
}

static cb_status encode_partition(cb_shuffle *s, uint32_t partition, cb_error *err) {
    const cbi_chain *c = &s->chains[partition];
    CB_TRY(copy_packed(s, c->packed_first, ALL_PAGES, err));
    if (c->filled > 0) {
        const uint8_t *block = s->blocks + (size_t)partition * s->encoder.block_bytes;
        CB_TRY(cbi_encoder_put(&s->encoder, &s->out, block, c->filled, err));
    }
    for (const cbi_piece *p = c->first; p != NULL; p = p->next) {
        prefetch_piece(p->next);
        CB_TRY(cbi_encoder_put(&s->encoder, &s->out, (const uint8_t *)(p + 1), p->bytes, err));
    }
    return cbi_encoder_flush(&s->encoder, &s->out, err);
}

/** [locked] A run of all that is in memory, or of the chunks in pages up to number `last`. */
static cb_status write_run(cb_shuffle *s, uint32_t last, cb_error *err) {
    CB_TRY(cbi_shuffle_runs_open(&s->runs, (const char *const *)s->dirs, s->dir_count, err));
    CB_TRY(cbi_runs_merge_some(&s->runs, s->partitions, &s->out, s->chunk_max, err));
    cb_channel *channel;
    CB_TRY(cbi_runs_begin(&s->runs, &channel, &s->out, err));
    cb_status status = CB_OK;
    for (uint32_t p = 0; p < s->partitions && status == CB_OK; p++) {
        status = last == ALL_PAGES ? encode_partition(s, p, err)
                                   : copy_packed(s, s->chains[p].packed_first, last, err);
        if (status == CB_OK) {
            status = cbi_out_end_partition(&s->out, err);
        }
    }
    uint64_t bytes = 0;
    if (status == CB_OK) {
        status = cbi_runs_finish(&s->runs, channel, &s->out, &bytes, err);
    }
    if (status != CB_OK) {
        cbi_runs_abandon(&s->runs, channel);
        return status;
    }
    atomic_fetch_add(&s->spill_bytes, bytes);
    atomic_fetch_add(&s->spills, 1);
    return CB_OK;
}

/** [locked] */
static cb_status spill_to_run(cb_shuffle *s, uint32_t last, cb_error *err) {
    cbi_phase before = cbi_phase_enter(&s->phases, CBI_SPILLING);
    cb_status status = write_run(s, last, err);
    (void)cbi_phase_enter(&s->phases, before);
    return status;
}

cb_status cb_shuffle_spill(cb_shuffle *s, uint64_t *released, cb_error *err) {
    uint64_t before = atomic_load(&s->returned); /* what comes back while this waits counts */
    cbi_mutex_lock(&s->lock);
    cb_status status = CB_OK;
    cbi_shuffle_page *pages = NULL;
    if (s->page_total > 0 && !s->written && s->failure.status == CB_OK) {
        uint64_t bytes = s->page_total;
        status = spill_to_run(s, ALL_PAGES, &s->failure);
        if (status == CB_OK) {
            pages = take_pages(s);
            atomic_fetch_add(&s->spilled_bytes, bytes);
        } else if (err != NULL) {
            *err = s->failure;
        }
    } else {
        wait_for_freed(s);
    }
    cbi_mutex_unlock(&s->lock);
    CB_TRY(status);
    if (pages != NULL) {
        cbi_shuffle_free_pages(s, pages);
    }
    *released = atomic_load(&s->returned) - before;
    return CB_OK;
}

/** [locked] The number of the last page of the older half of packed chunks. 0: there are too few of
 * them, or runs enough: what leaves in smaller parts leaves in more of them. */
static uint32_t older_half(const cb_shuffle *s) {
    uint32_t count = 0;
    for (const cbi_shuffle_page *p = s->packed.first; p != NULL; p = p->next) {
        count += p->number != ALL_PAGES;
    }
    return count < HALF_PAGES_MIN || s->runs.count >= HALF_RUNS_MAX
               ? 0
               : s->packed_newest - count + count / 2;
}

/** [locked] Pages up to number `last` leave memory, as take_pages(). */
static cbi_shuffle_page *take_older(cb_shuffle *s, uint32_t last) {
    for (uint32_t i = 0; i < s->partitions; i++) {
        cbi_chain *c = &s->chains[i];
        while (c->packed_first != NULL && c->packed_first->page <= last) {
            c->packed_first = c->packed_first->next;
        }
        c->packed_last = c->packed_first != NULL ? c->packed_last : NULL;
    }
    cbi_shuffle_page *taken = NULL, **at = &s->packed.first;
    while (*at != NULL) {
        cbi_shuffle_page *p = *at;
        if (p->number > last) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        p->next = taken;
        taken = p;
        s->page_total -= p->page.bytes;
        atomic_fetch_add(&s->spilled_bytes, p->page.bytes);
    }
    s->freeing += taken != NULL;
    return taken;
}

static cb_status spill_older_half(cb_shuffle *s, bool *done, cb_error *err) {
    cbi_mutex_lock(&s->lock);
    cb_status status = CB_OK;
    cbi_shuffle_page *pages = NULL;
    uint32_t last = s->written || s->failure.status != CB_OK ? 0 : older_half(s);
    if (last > 0) {
        status = spill_to_run(s, last, &s->failure);
        if (status == CB_OK) {
            pages = take_older(s, last);
        } else if (err != NULL) {
            *err = s->failure;
        }
    }
    cbi_mutex_unlock(&s->lock);
    *done = pages != NULL;
    if (pages != NULL) {
        cbi_shuffle_free_pages(s, pages);
    }
    return status;
}

/* ---- the file ---- */

static cb_status write_partition(cb_shuffle *s, uint32_t p, cb_error *err) {
    cbi_out *out = &s->out;
    uint64_t start = cbi_out_position(out);
    out->checksum = cbi_checksum_start(s->checksum);
    CB_TRY(cbi_runs_copy_partition(&s->runs, 0, s->runs.count, out, s->chunk_max, err));
    CB_TRY(encode_partition(s, p, err));
    return cbi_out_position(out) > start ? cbi_encoder_end(&s->encoder, out, err) : CB_OK;
}

static cb_status write_partitions(cb_shuffle *s, int64_t *lengths, int64_t *checksums,
                                  cb_error *err) {
    for (uint32_t p = 0; p < s->partitions; p++) {
        uint64_t start = cbi_out_position(&s->out);
        CB_TRY(write_partition(s, p, err));
        lengths[p] = (int64_t)(cbi_out_position(&s->out) - start);
        if (checksums != NULL) {
            checksums[p] = s->out.checksum;
        }
    }
    return cbi_out_flush(&s->out, err);
}

/** [locked] */
static cb_status write_file(cb_shuffle *s, const char *path, int64_t *lengths, int64_t *checksums,
                            cb_error *err) {
    CB_TRY(check_alive(s, err));
    s->written = true;
    CB_TRY(cbi_runs_read(&s->runs, 0, s->runs.count, err));
    int fd = cbi_sys_open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return cbi_fail_sys(err, CB_EIO, fd, "%s cannot be made", path);
    }
    s->out.view = NULL;
    s->out.fd = fd;
    s->out.used = 0;
    s->out.offset = 0;
    s->out.algorithm = checksums != NULL ? s->checksum : CB_CHECKSUM_NONE;
    cb_status status = write_partitions(s, lengths, checksums, err);
    int closed = cbi_sys_close(fd);
    if (status == CB_OK && closed != 0) {
        status = cbi_fail_sys(err, CB_ENOSPC, closed, "%s cannot be closed", path);
    }
    if (status != CB_OK) {
        (void)cbi_sys_unlink(path);
    }
    return status;
}

cb_status cb_shuffle_write(cb_shuffle *s, const char *path, int64_t *lengths, int64_t *checksums,
                           cb_error *err) {
    cbi_mutex_lock(&s->lock);
    (void)cbi_phase_enter(&s->phases, CBI_MERGING);
    cb_status status = write_file(s, path, lengths, checksums, err);
    cbi_shuffle_runs_close(&s->runs);
    (void)cbi_phase_enter(&s->phases, CBI_OUTSIDE);
    cbi_shuffle_page *pages = status == CB_OK ? take_pages(s) : NULL;
    cbi_mutex_unlock(&s->lock);
    if (pages != NULL) {
        cbi_shuffle_free_pages(s, pages);
    }
    return status;
}

static uint64_t phase_ns(const cb_shuffle *s, cbi_phase phase) {
    return atomic_load_explicit(&s->phases.ns[phase], memory_order_relaxed);
}

void cb_shuffle_get_figures(const cb_shuffle *s, cb_shuffle_figures *figures) {
    *figures = (cb_shuffle_figures){.pages_peak = atomic_load(&s->drawn_peak),
                                    .spilled_bytes = atomic_load(&s->spilled_bytes),
                                    .spill_bytes = atomic_load(&s->spill_bytes),
                                    .spills = atomic_load(&s->spills),
                                    .copy_ns = phase_ns(s, CBI_COPYING),
                                    .compress_ns = phase_ns(s, CBI_COMPRESSING),
                                    .spill_ns = phase_ns(s, CBI_SPILLING),
                                    .merge_ns = phase_ns(s, CBI_MERGING),
                                    .write_ns = phase_ns(s, CBI_WRITING)};
}
