/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/merge.h"

/*
 * One merge, by a tree of losers: each inner node holds the loser of the match played there, the
 * winner goes on. The next row of the winner's source plays the log2(k) losers on its way up and
 * nobody else. Matches are decided by the 8-byte prefix; only equal prefixes look at the rows.
 *
 * `unique` must compare a row with the last one that was let through, whose memory may belong to a
 * part that its source has finished. So sources then keep finished parts until told that nobody
 * looks at them any more (release), which is when another row has become the last one. Nobody else
 * looks at a row again once it has been handed out, and its part goes before the next one comes.
 */

/* ---- builder ---- */

void cbi_builder_init(cbi_builder *b, const cbi_layout *layout, uint8_t *memory, size_t bytes) {
    *b = (cbi_builder){.layout = layout, .base = memory, .bytes = bytes & ~(size_t)15};
    cbi_builder_reset(b);
}

void cbi_builder_reset(cbi_builder *b) {
    b->used = 0;
    b->count = 0;
    b->row_bytes = 0;
    b->sorted = false;
    b->entries = (cbi_entry *)(void *)(b->base + b->bytes);
}

bool cbi_builder_add(cbi_builder *b, const cbi_stored *row) {
    size_t bytes = cbi_stored_bytes(b->layout, row->key_bytes, row->row_bytes);
    if (b->used + bytes + (b->count + 1) * sizeof(cbi_entry) > b->bytes)
        return false;
    cbi_stored_put(b->layout, b->base + b->used, row->key, row->key_bytes, row->row, row->row_bytes,
                   row->order);
    *--b->entries =
        (cbi_entry){.prefix = cbi_entry_prefix(b->layout, row), .ref = cbi_ref(0, b->used)};
    b->sorted = false;
    b->used += bytes;
    b->count++;
    b->row_bytes += row->row_bytes;
    return true;
}

void cbi_builder_sort(cbi_builder *b) {
    if (!b->sorted)
        cbi_order(b->entries, b->count, b->layout, b->base);
    b->sorted = true;
}

cb_status cbi_builder_flush(cbi_builder *b, cbi_partitions *runs, uint32_t index, bool unique,
                            cb_error *err) {
    cbi_stored last = {.key = NULL};
    for (size_t i = 0; i < b->count; i++) {
        if (i + 8 < b->count)
            __builtin_prefetch(cbi_ref_row(b->base, b->entries[i + 8].ref));
        cbi_stored row;
        cbi_stored_get(b->layout, cbi_ref_row(b->base, b->entries[i].ref), &row);
        if (unique && last.key != NULL && cbi_same_key(&last, &row))
            continue;
        last = row;
        CB_TRY(cbi_partition_put(runs, index, &row, err));
    }
    cbi_builder_reset(b);
    return cbi_partition_put_end(runs, index, err);
}

/* ---- sources ---- */

static cb_status builder_next(cbi_source *source, cbi_stored *row, bool *more, cb_error *err) {
    (void)err;
    cbi_builder_source *s = (cbi_builder_source *)source;
    const cbi_builder *b = s->builder;
    *more = s->at < b->count;
    if (*more) {
        if (s->at + 8 < b->count)
            __builtin_prefetch(cbi_ref_row(b->base, b->entries[s->at + 8].ref));
        cbi_stored_get(b->layout, cbi_ref_row(b->base, b->entries[s->at++].ref), row);
    }
    return CB_OK;
}

void cbi_builder_source_init(cbi_builder_source *s, const cbi_builder *builder) {
    *s = (cbi_builder_source){.source = {.next = builder_next}, .builder = builder};
}

static void run_release(cbi_source *source) {
    cbi_run_source *s = (cbi_run_source *)source;
    cbi_segments_give(s->pool, s->done);
    s->done = NULL;
    source->kept = false;
}

static void open_segment(cbi_run_source *s) {
    s->at = cbi_segment_payload(s->segment);
    s->segment_end = s->at + s->segment->used;
    s->piece_end = s->at;
}

static cb_status run_next(cbi_source *source, cbi_stored *row, bool *more, cb_error *err) {
    cbi_run_source *s = (cbi_run_source *)source;
    *more = true;
    while (s->at == s->piece_end) {
        if (s->at < s->segment_end) {
            s->piece_end = s->at + CBI_PIECE_HEADER_BYTES + cbi_load_u32(s->at + 12);
            s->at += CBI_PIECE_HEADER_BYTES;
            continue;
        }
        if (s->segment != NULL) {
            cbi_segment *finished = s->segment;
            s->segment = finished->next;
            finished->next = source->keeps ? s->done : NULL;
            if (source->keeps)
                s->done = finished;
            else
                cbi_segments_give(s->pool, finished);
            source->kept = source->keeps;
        }
        if (s->segment == NULL) {
            CB_TRY(cbi_partition_next_part(s->runs, s->index, &s->segment, err));
            if (s->segment == NULL) {
                *more = false;
                return CB_OK;
            }
            CB_TRY(cbi_partition_prefetch(s->runs, s->index, 1, err));
        }
        open_segment(s);
    }
    s->at = cbi_stored_get(s->layout, s->at, row);
    return CB_OK;
}

void cbi_run_source_init(cbi_run_source *s, cbi_partitions *runs, cb_segment_pool *pool,
                         const cbi_layout *layout, uint32_t index) {
    *s = (cbi_run_source){.source = {.next = run_next, .release = run_release},
                          .runs = runs,
                          .pool = pool,
                          .layout = layout,
                          .index = index};
}

void cbi_run_source_fini(cbi_run_source *s) {
    if (s->pool == NULL)
        return;
    cbi_segments_give(s->pool, s->segment);
    cbi_segments_give(s->pool, s->done);
    s->segment = s->done = NULL;
}

/* ---- the tree ---- */

static inline bool before(cbi_source **sources, uint32_t a, uint32_t b, const cbi_layout *layout) {
    const cbi_source *x = sources[a], *y = sources[b];
    if (x->live != y->live)
        return x->live;
    if (!x->live)
        return a < b;
    if (x->prefix != y->prefix)
        return x->prefix < y->prefix;
    int c = cbi_compare_stored(layout, &x->row, &y->row);
    return c != 0 ? c < 0 : a < b;
}

static inline cb_status advance(cbi_source *s, const cbi_layout *layout, cb_error *err) {
    CB_TRY(s->next(s, &s->row, &s->live, err));
    if (s->live)
        s->prefix = cbi_entry_prefix(layout, &s->row);
    return CB_OK;
}

/* Plays all matches below `node`; inner nodes are 1..count-1, leaves count..2*count-1. Answers the
 * winner. */
static uint32_t play(cbi_source **sources, uint32_t count, uint32_t *tree,
                     const cbi_layout *layout) {
    /* Bottom-up without recursion: each new leaf climbs until it meets an empty node, where it
     * waits for its sibling. */
    for (uint32_t i = 0; i < count; i++)
        tree[i] = UINT32_MAX;
    uint32_t champion = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t winner = i, node = (i + count) / 2;
        for (; node > 0; node /= 2) {
            if (tree[node] == UINT32_MAX) {
                tree[node] = winner;
                break;
            }
            if (before(sources, tree[node], winner, layout)) {
                uint32_t t = tree[node];
                tree[node] = winner;
                winner = t;
            }
        }
        if (node == 0)
            champion = winner;
    }
    return champion;
}

cb_status cbi_merge(cbi_source **sources, uint32_t count, uint32_t *tree, const cbi_layout *layout,
                    bool unique, const atomic_bool *cancelled, cbi_row_fn fn, void *ctx,
                    cb_error *err) {
    if (count == 0)
        return CB_OK;
    for (uint32_t i = 0; i < count; i++) {
        sources[i]->keeps = unique;
        CB_TRY(advance(sources[i], layout, err));
    }
    uint32_t winner = play(sources, count, tree, layout);
    cbi_stored last = {.key = NULL};
    uint64_t last_prefix = 0;
    uint32_t last_source = winner;
    for (uint64_t n = 0; sources[winner]->live; n++) {
        cbi_source *s = sources[winner];
        if ((n & 4095) == 0 && atomic_load_explicit(cancelled, memory_order_relaxed))
            return cbi_fail(err, CB_ECANCELED, "cancelled");
        if (!unique || last.key == NULL || last_prefix != s->prefix ||
            !cbi_same_key(&last, &s->row))
            CB_TRY(fn(ctx, &s->row, err));
        /* The current row, or its equal, is the last one now; nothing older is looked at again. */
        last = s->row;
        last_prefix = s->prefix;
        if (sources[last_source]->kept)
            sources[last_source]->release(sources[last_source]);
        if (s->kept)
            s->release(s);
        last_source = winner;
        CB_TRY(advance(s, layout, err));
        for (uint32_t node = (winner + count) / 2; node > 0; node /= 2)
            if (before(sources, tree[node], winner, layout)) {
                uint32_t t = tree[node];
                tree[node] = winner;
                winner = t;
            }
    }
    return CB_OK;
}
