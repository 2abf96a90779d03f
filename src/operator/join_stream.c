/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"
#include "operator/join_private.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/*
 * The left as a stream.
 *
 * Where memory holds everything nothing is gained by taking the left apart: once the right rows lie
 * in their partitions they get a table each, and the left is read chunk by chunk, looked up, and
 * written in its own order at once. Left rows are stored nowhere, results are not gathered and
 * ordered, the left is read once; and memory that is never touched costs nothing (a page that is
 * new to the process costs more than copying it a dozen times).
 *
 * A table is lines of 64 bytes: 12 rows' places, 8 bits of each one's hash, how many there are. A
 * row goes to its home line or the next one behind that has room, right rows in the order of their
 * positions, so that partners are found in it. A look-up is one line and one row, both fetched
 * before they are looked at, 64 left rows at a time. A key with more right rows than REACH lines
 * hold has no place here: then, and when the tables find no memory, the join goes on as ever
 * (join_work.c); nothing has been written by then.
 *
 * Where a chunk's results begin is known when those before it have been made: a worker makes them
 * in memory of its own, waits for its turn, takes its place and lets the next one go before it
 * writes. If there are more than it has memory for it waits first and keeps its turn.
 */

enum { WAYS = 12, MEAN = 8, REACH = 24, AHEAD = 64, OUT_BYTES = 2 << 20, KEY_BYTES = 64 << 10 };

typedef struct line {
    uint8_t tags[WAYS];
    uint32_t count;
    uint32_t places[WAYS]; /* from the pool's base */
} line;

/* Memory for what seldom is that large. */
typedef struct spare {
    uint8_t *base;
    size_t bytes, units;
} spare;

typedef struct probe {
    const uint8_t *key;
    uint32_t key_bytes, row;
    uint64_t hash;
    const line *home;
    bool none; /* a null that matches nothing */
} probe;

/* One worker. */
typedef struct streamer {
    uint64_t bound; /* job->mutex: all chunks that it still has are at or behind that */
    bool begun;     /* it has its turn, and the writer stands at the stream's cursor */
    uint8_t *out, *at, *end;
    spare keys, text, chunk;
    size_t key_used;
    uint64_t rows_out;
    probe probes[AHEAD];
} streamer;

struct join_stream {
    line *lines;
    size_t units;
    uint64_t *first; /* line of each partition, and one more */
    const uint8_t *base;
    streamer *workers;
    size_t worker_units;
    atomic_uint next;
    atomic_bool odd; /* the rows do not fit the tables */
};

/* ---- the tables ---- */

static inline const line *home_of(const cb_join *j, uint64_t hash) {
    const join_stream *s = j->stream;
    uint32_t part = cbi_job_part(hash, j->job.sizes.parts);
    uint64_t first = s->first[part], count = s->first[part + 1] - first - REACH - 1;
    return s->lines + first + (((hash & UINT32_MAX) * count) >> 32);
}

/* Where the hash names a row in the line: a bit each. */
static inline unsigned same_tags(const line *l, uint8_t tag) {
#if defined(__SSE2__)
    __m128i tags = _mm_loadu_si128((const __m128i *)(const void *)l);
    unsigned same = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(tags, _mm_set1_epi8((char)tag)));
#else
    unsigned same = 0;
    for (unsigned i = 0; i < WAYS; i++)
        same |= (unsigned)(l->tags[i] == tag) << i;
#endif
    return same & ((1u << l->count) - 1);
}

/* false: it has no place. */
static bool insert(const cb_join *j, const uint8_t *at, uint64_t hash) {
    line *l = (line *)(uintptr_t)home_of(j, hash), *last = l + REACH;
    uint64_t place = (uint64_t)(at - j->stream->base);
    while (l->count == WAYS && l < last)
        l++;
    if (l == last || place > UINT32_MAX)
        return false;
    l->tags[l->count] = (uint8_t)hash;
    l->places[l->count++] = (uint32_t)place;
    return true;
}

static bool build_part(cb_join *j, cbi_job_worker *w, uint32_t part, cbi_segment *list) {
    join_stream *s = j->stream;
    cbi_entry *pieces = (cbi_entry *)(void *)w->scratch;
    memset(s->lines + s->first[part], 0, (s->first[part + 1] - s->first[part]) * sizeof(line));
    size_t count = join_list_pieces(j, s->base, list, pieces);
    for (size_t p = 0; p < count; p++) {
        const uint8_t *piece = s->base + pieces[p].ref, *at = piece + CBI_PIECE_HEADER_BYTES;
        for (uint32_t rows = cbi_load_u32(piece + 8); rows > 0; rows--) {
            cbi_stored record;
            const uint8_t *row = at;
            at = cbi_stored_get(&cbi_record_layout, at, &record);
            if (!insert(j, row, join_hash(j, record.key, record.key_bytes)))
                return false;
        }
    }
    return true;
}

static void build(void *ctx) {
    cbi_job_worker *w = ctx;
    cb_join *j = w->own;
    join_stream *s = j->stream;
    cb_error err;
    while (!cbi_job_stopped(w->job) && !atomic_load(&s->odd)) {
        uint32_t part = atomic_fetch_add(&s->next, 1);
        if (part >= j->job.sizes.parts)
            break;
        cbi_segment *list;
        cb_status status = cbi_partition_wait(j->job.partner, part, &list, &err);
        if (status != CB_OK)
            cbi_job_fail(w->job, status, &err);
        else if (!build_part(j, w, part, list))
            atomic_store(&s->odd, true);
    }
}

/* ---- turns ---- */

/* All results before those of this worker's chunk have their places. */
static cb_status wait_turn(const cb_join *j, cbi_job_worker *w, cb_error *err) {
    cbi_job *job = w->job;
    const streamer *all = j->stream->workers, *mine = &all[w->index];
    bool turn = false;
    cbi_mutex_lock(&job->mutex);
    while (!turn && !cbi_job_stopped(job)) {
        turn = true;
        for (unsigned i = 0; i < job->sizes.threads; i++)
            turn &= i == w->index || all[i].bound > mine->bound;
        if (!turn)
            cbi_cond_wait(&job->changed, &job->mutex);
    }
    cbi_mutex_unlock(&job->mutex);
    return turn ? CB_OK : cbi_fail(err, CB_ECANCELED, "cancelled");
}

static void set_bound(cbi_job *job, streamer *r, uint64_t bound) {
    cbi_mutex_lock(&job->mutex);
    r->bound = bound;
    cbi_cond_broadcast(&job->changed);
    cbi_mutex_unlock(&job->mutex);
}

/* What has been made goes to the writer, in turn. */
static cb_status flush(const cb_join *j, cbi_job_worker *w, streamer *r, cb_error *err) {
    size_t bytes = (size_t)(r->at - r->out);
    if (!r->begun) {
        CB_TRY(wait_turn(j, w, err));
        CB_TRY(cbi_writer_begin(&w->writer, w->job->cursor, err));
        r->begun = true;
    }
    r->at = r->out;
    w->job->cursor += bytes;
    return cbi_writer_put(&w->writer, r->out, bytes, err);
}

static cb_status end_chunk(const cb_join *j, cbi_job_worker *w, streamer *r, cb_error *err) {
    cbi_job *job = w->job;
    uint64_t bytes = (uint64_t)(r->at - r->out), next = w->chunk.sequence + 1;
    atomic_fetch_add_explicit(&job->rows_out, r->rows_out, memory_order_relaxed);
    r->rows_out = 0;
    if (r->begun || !cbi_sink_positional(job->sink)) {
        CB_TRY(flush(j, w, r, err));
        CB_TRY(cbi_writer_end(&w->writer, err));
        r->begun = false;
        set_bound(job, r, next);
        return CB_OK;
    }
    CB_TRY(wait_turn(j, w, err));
    uint64_t offset = job->cursor;
    job->cursor += bytes;
    set_bound(job, r, next);
    r->at = r->out;
    if (bytes == 0)
        return CB_OK;
    CB_TRY(cbi_writer_begin(&w->writer, offset, err));
    CB_TRY(cbi_writer_put(&w->writer, r->out, bytes, err));
    return cbi_writer_end(&w->writer, err);
}

/* ---- results ---- */

static cb_status grow(cbi_job *job, spare *s, size_t bytes, cb_error *err) {
    size_t segment = job->sizes.segment, units = (bytes + segment - 1) / segment;
    uint8_t *base = cb_segment_pool_take(job->ground.pool, units);
    if (base == NULL) {
        uint64_t least = cbi_job_least_budget(job, bytes);
        return cbi_fail_bytes(err, CB_EBUDGET, bytes, least,
                              "one row has %zu bytes or more, too much for a budget of %llu bytes; "
                              "--memory %lluM will do",
                              bytes, (unsigned long long)job->sizes.budget,
                              (unsigned long long)(least / CBI_MIB));
    }
    if (s->units > 0)
        cb_segment_pool_give(job->ground.pool, s->base, s->units);
    *s = (spare){.base = base, .bytes = units * segment, .units = units};
    return CB_OK;
}

/* Row `i` of the left as it would have been stored. */
static cb_status left_row(const cb_join *j, cbi_job_worker *w, streamer *r, size_t i, join_row *row,
                          cb_error *err) {
    const join_side *s = &j->sides[JOIN_LEFT];
    if (CBI_LIKELY(s->plain)) {
        uint32_t begin, end;
        join_raw_run(s, &w->rows, i, &s->runs[0], &begin, &end);
        *row = (join_row){.bytes = w->rows.base + begin, .end = w->rows.base + end};
        return CB_OK;
    }
    size_t bytes = join_payload_bytes(j, s, &w->rows, i);
    if (bytes > r->text.bytes)
        CB_TRY(grow(w->job, &r->text, bytes, err));
    *row = (join_row){.bytes = r->text.base};
    row->end = join_put_payload(j, s, &w->rows, i, r->text.base);
    return CB_OK;
}

static uint8_t *compose_alone(const cb_join *j, const join_row *left, uint8_t *at) {
    join_row row = *left;
    bool first = true;
    for (size_t i = 0; i < j->piece_count; i++) {
        const join_text *text = &j->missing[i];
        join_part p = {text->bytes, text->count};
        if (j->pieces[i].side == JOIN_LEFT)
            p = join_next_part(&row, j->pieces[i].last);
        else if (!text->shown)
            continue;
        if (!first)
            *at++ = j->separator;
        first = false;
        memcpy(at, p.bytes, p.count);
        at += p.count;
    }
    return at;
}

/* `right`: NULL for a left row alone. */
static cb_status emit(const cb_join *j, cbi_job_worker *w, streamer *r, const join_row *left,
                      const cbi_stored *right, cb_error *err) {
    uint8_t end = w->job->o.zero_terminated ? 0 : '\n';
    size_t most = (size_t)(left->end - left->bytes) + j->piece_count + JOIN_PACK_SLACK;
    most += right != NULL ? join_right_bytes(j, right->row, right->row_bytes) : j->missing_bytes;
    join_row rows[2] = {*left};
    if (right != NULL)
        rows[JOIN_RIGHT] = (join_row){.bytes = right->row, .end = right->row + right->row_bytes};
    r->rows_out++;
    if (CBI_UNLIKELY(most > (size_t)(r->end - r->at)))
        CB_TRY(flush(j, w, r, err));
    if (CBI_UNLIKELY(most > (size_t)(r->end - r->at))) {
        uint64_t bytes = 0;
        CB_TRY(join_put_parts(j, &w->writer, rows, right == NULL, &bytes, err));
        w->job->cursor += bytes + 1;
        return cbi_writer_put(&w->writer, &end, 1, err);
    }
    r->at = right != NULL ? join_compose(j, rows, r->at) : compose_alone(j, left, r->at);
    *r->at++ = end;
    return CB_OK;
}

/* ---- looking up ---- */

static inline bool same_key(const cbi_stored *row, const probe *p) {
    return row->key_bytes == p->key_bytes && cbi_same_bytes(row->key, p->key, p->key_bytes);
}

static cb_status probe_one(const cb_join *j, cbi_job_worker *w, streamer *r, const probe *p,
                           cb_error *err) {
    join_row left = {.bytes = NULL};
    bool any = false, pairs = join_wants_pairs(j);
    for (const line *l = p->home; !p->none; l++) {
        for (unsigned same = same_tags(l, (uint8_t)p->hash); same != 0; same &= same - 1) {
            cbi_stored right;
            (void)cbi_stored_get(&cbi_record_layout,
                                 j->stream->base + l->places[__builtin_ctz(same)], &right);
            if (!same_key(&right, p))
                continue;
            if (!any)
                CB_TRY(left_row(j, w, r, p->row, &left, err));
            any = true;
            if (!pairs)
                break;
            CB_TRY(emit(j, w, r, &left, &right, err));
        }
        if (l->count < WAYS || (any && !pairs))
            break;
    }
    if (any ? j->o.how != CB_JOIN_SEMI : !join_wants_left(j))
        return CB_OK;
    if (!any)
        CB_TRY(left_row(j, w, r, p->row, &left, err));
    return j->o.how == CB_JOIN_ANTI && any ? CB_OK : emit(j, w, r, &left, NULL, err);
}

static cb_status probe_all(const cb_join *j, cbi_job_worker *w, streamer *r, size_t count,
                           cb_error *err) {
    for (size_t i = 0; i < count; i++) {
        unsigned same = same_tags(r->probes[i].home, (uint8_t)r->probes[i].hash);
        if (same == 0)
            continue;
        const uint8_t *row = j->stream->base + r->probes[i].home->places[__builtin_ctz(same)];
        __builtin_prefetch(row);
        __builtin_prefetch(row + 32);
    }
    for (size_t i = 0; i < count; i++)
        CB_TRY(probe_one(j, w, r, &r->probes[i], err));
    return CB_OK;
}

/* The key of row `i`; false: first those before it must be done with. */
static cb_status take_key(const cb_join *j, cbi_job_worker *w, streamer *r, size_t i, probe *p,
                          bool *taken, cb_error *err) {
    const join_side *s = &j->sides[JOIN_LEFT];
    bool null = false;
    size_t bytes = 0;
    *taken = true;
    p->row = (uint32_t)i;
    size_t room = r->keys.bytes - r->key_used, need = 0;
    uint8_t *here = r->keys.base + r->key_used;
    bool packs = join_packs_keys(j), raw = join_raw_key(s, &w->rows, i, &p->key, &bytes);
    if (CBI_LIKELY(raw)) {
        null = bytes == 0;
        need = packs ? bytes + 1 + JOIN_PACK_SLACK : 0;
    } else {
        p->key = here;
        bytes = cbi_keys_encode_null(s->keys, &w->rows, i, here, room, &null);
        need = packs ? 2 * bytes + 1 + JOIN_PACK_SLACK
                     : bytes; /* what it is packed from stands behind it */
    }
    *taken = need <= room;
    if (CBI_UNLIKELY(!*taken))
        return r->key_used == 0 ? grow(w->job, &r->keys, need, err) : CB_OK;
    if (packs) {
        if (!raw) {
            memmove(here + bytes + 1, here, bytes);
            p->key = here + bytes + 1;
        }
        bytes = join_pack_put(j->pack, p->key, bytes, here);
        p->key = here;
        need = bytes;
    }
    r->key_used += need;
    p->key_bytes = (uint32_t)bytes;
    p->none = null && !j->o.match_nulls;
    p->hash = join_hash(j, p->key, bytes);
    p->home = home_of(j, p->hash);
    __builtin_prefetch(p->home);
    return CB_OK;
}

static cb_status stream_rows(const cb_join *j, cbi_job_worker *w, streamer *r, cb_error *err) {
    for (size_t i = 0; i < w->rows.count;) {
        size_t count = 0;
        bool taken = true;
        r->key_used = 0;
        for (; taken && count < AHEAD && i < w->rows.count; count += taken, i += taken)
            CB_TRY(take_key(j, w, r, i, &r->probes[count], &taken, err));
        CB_TRY(probe_all(j, w, r, count, err));
    }
    return cbi_job_stopped(w->job) ? cbi_fail(err, CB_ECANCELED, "cancelled") : CB_OK;
}

/* ---- the left comes in ---- */

/* As cbi_job_next_chunk; a large row has memory that nobody waits for. */
static cb_status next_chunk(cbi_job_worker *w, streamer *r, cb_error *err) {
    cbi_job *job = w->job;
    if (r->chunk.units > 0) {
        cb_segment_pool_give(job->ground.pool, r->chunk.base, r->chunk.units);
        r->chunk = (spare){.base = NULL};
        w->chunk.buf = w->chunk_home;
        w->chunk.capacity = job->sizes.chunk;
    }
    for (;;) {
        cb_error local = {.bytes_asked = 0};
        cb_status status = cbi_input_next(w->input, &w->chunk, &local);
        if (status != CB_EBUDGET || local.bytes_had != w->chunk.capacity) {
            if (status != CB_OK && err != NULL)
                *err = local;
            return status;
        }
        spare room = {.base = NULL}, before = r->chunk;
        CB_TRY(grow(job, &room, local.bytes_asked, err));
        if (cbi_chunk_pending(&w->chunk) > 0)
            memcpy(room.base, w->chunk.buf, cbi_min(w->chunk.capacity, room.bytes));
        if (before.units > 0)
            cb_segment_pool_give(job->ground.pool, before.base, before.units);
        r->chunk = room;
        w->chunk.buf = room.base;
        w->chunk.capacity = room.bytes;
    }
}

static cb_status stream_chunk(cb_join *j, cbi_job_worker *w, streamer *r, cb_error *err) {
    uint64_t rows = 0;
    set_bound(w->job, r, w->chunk.sequence);
    for (size_t at = 0;;) {
        CB_TRY(cbi_job_next_rows(w, &at, err));
        if (w->rows.count == 0)
            break;
        rows += w->rows.count;
        CB_TRY(stream_rows(j, w, r, err));
    }
    atomic_fetch_add_explicit(&w->job->rows_in, rows, memory_order_relaxed);
    atomic_fetch_add_explicit(&j->sides[JOIN_LEFT].rows, rows, memory_order_relaxed);
    return end_chunk(j, w, r, err);
}

static void stream(void *ctx) {
    cbi_job_worker *w = ctx;
    cb_join *j = w->own;
    join_side *s = &j->sides[JOIN_LEFT];
    streamer *r = &j->stream->workers[w->index];
    cb_error err;
    cb_status status = CB_OK;
    cbi_job_read_layout(w, s->input, s->columns, s->field_count, j->job.partner,
                        j->job.sizes.parts);
    while (!cbi_job_stopped(w->job)) {
        status = next_chunk(w, r, &err);
        if (status != CB_OK || w->chunk.bytes == 0)
            break;
        status = stream_chunk(j, w, r, &err);
        if (status != CB_OK)
            break;
    }
    if (status != CB_OK && !cbi_job_stopped(w->job))
        cbi_job_fail(w->job, status, &err); /* before anybody has the turn behind what is missing */
    set_bound(w->job, r, UINT64_MAX);
    if (cbi_job_stopped(w->job))
        return;
    status = cbi_writer_drain(&w->writer, &err);
    if (status != CB_OK && !cbi_job_stopped(w->job))
        cbi_job_fail(w->job, status, &err);
}

static cb_status stream_left(cb_join *j, cb_error *err) {
    cbi_job *job = &j->job;
    const join_side *left = &j->sides[JOIN_LEFT];
    cbi_mutex_lock(&job->mutex);
    job->input = left->input;
    cbi_mutex_unlock(&job->mutex);
    CB_TRY(cbi_job_in_workers(job, job->sizes.threads, stream, err));
    return cbi_input_finish(left->input, err);
}

/* ---- from outside ---- */

/* Tables of the right's rows, and what workers need, if there is memory. */
static bool prepare(cb_join *j, cb_error *err) {
    cbi_job *job = &j->job;
    join_stream *s = j->stream;
    const cbi_job_sizes *z = &job->sizes;
    uint64_t lines = 0;
    (void)err;
    for (uint32_t p = 0; p < z->parts; p++) {
        cbi_partition_info info;
        cbi_partition_get_info(job->partner, p, &info);
        if (info.segments_out > 0 || info.pieces * sizeof(cbi_entry) > z->worker)
            return false;
        s->first[p] = lines;
        lines += info.rows / MEAN + REACH + 2;
    }
    s->first[z->parts] = lines;
    size_t pens = (size_t)z->writer_buffer * z->writer_buffers;
    s->units = (lines * sizeof(line) + z->segment - 1) / z->segment;
    s->worker_units = (pens + OUT_BYTES + KEY_BYTES + JOIN_AWAY_MAX + z->segment - 1) / z->segment;
    size_t all = s->units + s->worker_units * z->threads;
    size_t left_free = cbi_max(all / 8 + 64, z->segments / 4); /* for giant left rows */
    if (all + left_free > cb_segment_pool_free_count(job->ground.pool))
        return false;
    s->lines = cb_segment_pool_take(job->ground.pool, all);
    if (s->lines == NULL)
        return false;
    uint8_t *at = (uint8_t *)s->lines + s->units * z->segment;
    for (unsigned i = 0; i < z->threads; i++, at += s->worker_units * z->segment) {
        streamer *r = &s->workers[i];
        cbi_writer_init(&job->workers[i].writer, NULL, at, z->writer_buffer, z->writer_buffers);
        r->out = r->at = at + pens;
        r->end = r->out + OUT_BYTES;
        r->keys = (spare){.base = r->end, .bytes = KEY_BYTES};
        r->text = (spare){.base = r->end + KEY_BYTES, .bytes = JOIN_AWAY_MAX};
    }
    s->units = all;
    return true;
}

cb_status join_stream_try(cb_join *j, bool *streamed, cb_error *err) {
    cbi_job *job = &j->job;
    const cbi_job_sizes *z = &job->sizes;
    *streamed = false;
    if (!j->late || !z->in_memory || join_wants_right(j))
        return CB_OK;
    join_stream *s = j->stream = cbi_calloc(1, sizeof *s);
    if (s == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a join");
    s->base = cb_segment_pool_base(job->ground.pool);
    s->first = cbi_calloc((size_t)z->parts + 1, sizeof *s->first);
    s->workers = cbi_calloc(z->threads, sizeof *s->workers);
    if (s->first == NULL || s->workers == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the tables of %u partitions", z->parts);
    if (!prepare(j, err))
        return CB_OK;
    CB_TRY(cbi_job_in_workers(job, z->threads, build, err));
    if (atomic_load(&s->odd)) {
        cb_segment_pool_give(job->ground.pool, s->lines, s->units);
        return CB_OK;
    }
    *streamed = true;
    uint64_t bytes = cbi_input_bytes(j->sides[0].input) + cbi_input_bytes(j->sides[1].input);
    CB_TRY(cbi_job_begin_output(job, bytes, err));
    CB_TRY(stream_left(j, err));
    cbi_mutex_lock(&job->mutex);
    job->bytes_out_total = job->cursor;
    cbi_mutex_unlock(&job->mutex);
    return CB_OK;
}

void join_stream_end(cb_join *j) {
    if (j->stream == NULL)
        return;
    cbi_free(j->stream->first);
    cbi_free(j->stream->workers);
    cbi_free(j->stream);
}
