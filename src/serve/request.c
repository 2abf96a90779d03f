/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked for, and how it is done. A put is a cbi_fill: nobody sees the block before it is
 * whole, so nobody can be kept waiting by who sends it. A get holds the block's lock while its
 * bytes are on their way, or as long as the lease lasts; so what is being read or leased stays, and
 * everything else may be evicted. Nothing here waits for a client.
 */
#include <string.h>

#include "base/alloc.h"
#include "serve/serve.h"

enum {
    DRAIN_MAX = 4 * 1024 * 1024, /* of a refused put are read before the answer; else it ends */
    BRIEFLY_NS = 500 * 1000 * 1000,
    AT_ONCE_BYTES = 256 * 1024 /* puts that the loop does itself when there is room */
};

/* ---- replies ---- */

static void reply_head(cbi_connection *c, cbi_head *h) {
    h->op = c->head.op;
    h->flags |= CBI_FLAG_REPLY;
    h->tag = c->head.tag;
    cbi_head_encode(h, c->out);
    c->out_at = 0;
    c->out_end = CBI_HEAD_BYTES;
}

static void go(const cb_server *s, cbi_connection *c, uint64_t bytes) {
    c->state = CBI_REPLY;
    cbi_connection_hurry(s, c, bytes);
}

/** Fills the answer; who has the connection. */
static void answer(cbi_connection *c, cb_status status, const cb_error *err) {
    cbi_head h = {.code = status};
    size_t text = 0;
    if (status != CB_OK) {
        text = strnlen(err->message, CBI_REPLY_TEXT_MAX);
        h.bytes = text;
    }
    c->pass = -1;
    c->body = NULL;
    c->body_left = c->stream_left = 0;
    reply_head(c, &h);
    memcpy(c->out + CBI_HEAD_BYTES, text > 0 ? err->message : "", text);
    c->out_end += text;
}

/** A few bytes that lie in `out` already, behind the head. */
static void answer_bytes(const cb_server *s, cbi_connection *c, size_t bytes) {
    cbi_head h = {.code = CB_OK, .bytes = bytes};
    c->body_left = c->stream_left = 0;
    reply_head(c, &h);
    c->out_end += bytes;
    go(s, c, 0);
}

/** A put was refused while its bytes are on their way. */
static void refuse_rest(const cb_server *s, cbi_connection *c) {
    if (c->left == 0) {
        go(s, c, 0);
    } else if (c->left <= DRAIN_MAX) {
        c->state = CBI_DRAIN;
        cbi_connection_hurry(s, c, c->left);
    } else {
        c->close_after = true;
        go(s, c, 0);
    }
}

/* ---- get ---- */

static cb_block_ref *ref_of(cbi_connection *c) {
    return c->lease != NULL ? &c->lease->ref : &c->own;
}

/** The block is locked, in memory or on disk. */
static void reply_block(cb_server *s, cbi_connection *c) {
    cb_block_ref *ref = ref_of(c);
    cbi_head h = {.code = CB_OK, .extra = ref->bytes};
    int fd = cb_block_descriptor(ref);
    if (c->lease != NULL && fd >= 0) {
        h.flags = CBI_FLAG_LEASE;
        h.value = (uint64_t)(c->lease - s->lease_table);
        c->pass = fd;
    } else {
        h.bytes = ref->bytes;
        s->stats.copies++;
        if (ref->in_memory) {
            c->body = ref->data;
            c->body_left = ref->bytes;
        } else if (c->stream != NULL) { /* nothing at all needs none */
            c->body = c->stream->buffer;
            c->body_left = c->staged;
            c->stream_left = ref->bytes - c->staged;
        }
    }
    reply_head(c, &h);
    go(s, c, h.bytes);
}

static void get_done(cb_server *s, cbi_connection *c) {
    if (ref_of(c)->in_memory || ref_of(c)->bytes == 0) {
        c->staged = 0;
        reply_block(s, c);
    } else if (cbi_stream_take(s, c)) {
        c->skip = 0;
        c->want = ref_of(c)->bytes;
        c->job = CBI_JOB_READ;
        cbi_server_submit(s, c);
    }
}

static void begin_get(cb_server *s, cbi_connection *c) {
    cb_error err;
    if (c->trusted && (c->head.flags & CBI_FLAG_LEASE) != 0) {
        c->lease = cbi_lease_take(s, c);
    }
    cb_status status = cbi_blocks_get_now(s->blocks, c->task, c->name, ref_of(c), &err);
    if (status == CB_OK) {
        reply_block(s, c);
    } else if (status == CB_EAGAIN) {
        c->job = CBI_JOB_GET;
        cbi_server_submit(s, c);
    } else {
        answer(c, status, &err);
        go(s, c, 0);
    }
}

/** The next bytes, from the stream's buffer + `at` on; CB_EEND. */
static cb_status read_some(cbi_connection *c, size_t at, size_t most, size_t *got, cb_error *err) {
    return cb_block_reader_read(c->reader, c->stream->buffer + at, most, got, err);
}

/** As much as goes into the stream. */
static cb_status read_stream(cbi_connection *c, cb_error *err) {
    cb_status status = CB_OK;
    size_t got = 0;
    if (c->reader == NULL) {
        CB_TRY(cb_block_reader_open(ref_of(c), &c->reader, err));
    }
    for (; c->skip > 0 && status == CB_OK; c->skip -= got) {
        got = 0;
        status = read_some(c, 0, (size_t)(c->skip < CBI_STREAM_BYTES ? c->skip : CBI_STREAM_BYTES),
                           &got, err);
    }
    uint64_t left = c->stream_left > 0 ? c->stream_left : c->want;
    bool part = c->resp != NULL && left < CBI_STREAM_BYTES; /* of a block that may go on */
    size_t most = part ? (size_t)left : CBI_STREAM_BYTES;
    c->staged = 0;
    while (c->staged < most && status == CB_OK) {
        got = 0;
        status = read_some(c, c->staged, most - c->staged, &got, err);
        c->staged += got;
    }
    if (status != CB_OK && status != CB_EEND) {
        return status;
    }
    return c->staged > 0 && c->staged <= left
               ? CB_OK
               : cbi_fail(err, CB_ECORRUPT, "Block %s is not as long as it was.", c->name);
}

void cbi_request_sent(cb_server *s, cbi_connection *c) {
    if (c->stream_left > 0) {
        c->job = CBI_JOB_READ;
        cbi_server_submit(s, c);
    } else {
        if (c->resp != NULL && c->resp->lent) { /* else it may be the next request's already */
            c->resp->lent = false;
            cbi_fill_cancel(&c->fill);
        }
        cbi_connection_rest(s, c);
    }
}

/* ---- put ---- */

static cb_status begin_fill(const cb_server *s, cbi_connection *c, cb_error *err) {
    cb_level level = c->head.code != 0 ? (cb_level)c->head.code : s->level;
    level &= (cb_level) ~(CB_LEVEL_IS_DESERIALISED | CB_LEVEL_IN_OFF_HEAP);
    (void)XXH3_64bits_reset(&c->sum);
    c->hashed = 0;
    c->summed = (c->head.flags & CBI_FLAG_SUM) != 0 || cbi_server_is_executor(s);
    CB_TRY(c->resp == NULL ? cbi_fill_begin(c->task, c->name, level, c->head.bytes, &c->fill, err)
                           : cbi_fill_begin_over(c->task, c->name, level, c->head.bytes,
                                                 c->resp->puts, &c->fill, err));
    return cbi_fill_room(&c->fill, &c->to, &c->room, err);
}

/** What waits for others' replies under way does not wait long for them, and never in the last
 *  worker that is left: all else that needs one would wait, too. false: it is not to wait. */
static bool begin_waiting(cb_server *s, cbi_connection *c) {
    bool waits = atomic_fetch_add(&s->waiting, 1) + 1 < s->worker_count;
    if (waits) {
        c->task->deadline_ns =
            c->patience_ns != 0 ? c->patience_ns : cbi_sys_clock_ns() + BRIEFLY_NS;
    } else {
        atomic_fetch_sub(&s->waiting, 1);
    }
    return waits;
}

/** It is tried again in a moment, as long as another one could have waited. */
static void come_again(const cb_server *s, cbi_connection *c) {
    uint64_t now = cbi_sys_clock_ns();
    if (c->patience_ns == 0) {
        c->patience_ns = now + BRIEFLY_NS;
    }
    c->again = s->worker_count > 0 && now < c->patience_ns;
}

static void end_waiting(cb_server *s, cbi_connection *c) {
    c->task->deadline_ns = 0;
    atomic_fetch_sub(&s->waiting, 1);
}

static void note_identity(void *ctx, const cb_block_status *status, cb_level level,
                          uint32_t readers) {
    (void)level;
    (void)readers;
    *(cbi_identity *)ctx =
        (cbi_identity){.generation = status->generation, .checksum = status->checksum};
}

uint64_t cbi_request_generation(const cb_server *s, const char *name) {
    cbi_identity there = {0};
    (void)cbi_blocks_look(s->blocks, name, note_identity, &there, NULL);
    return there.generation;
}

/** What a CARBIDE.PUT finds by its name. *same: the same, so nothing is to be done. CB_EEXISTS:
 *  other bytes, which cannot be told apart. CB_EINVAL: a newer one. */
static cb_status compare(const cb_server *s, const cbi_connection *c, bool *same, cb_error *err) {
    const cbi_identity *sent = &c->fill.identity;
    cbi_identity there = {0};
    (void)cbi_blocks_look(s->blocks, c->name, note_identity, &there, NULL);
    *same = there.generation == sent->generation && there.checksum == sent->checksum;
    if (there.generation > sent->generation) {
        return cbi_fail(err, CB_EINVAL, "There is a newer block %s here.", c->name);
    }
    return there.generation < sent->generation || *same
               ? CB_OK
               : cbi_fail(err, CB_EEXISTS, "There is another block %s of that generation here.",
                          c->name);
}

/** The level stands behind the value, in a SET. */
static cb_status finish_set(cb_server *s, cbi_connection *c, cb_error *err) {
    CB_TRY(cbi_fill_level(&c->fill, (cb_level)c->head.code, err));
    if (c->resp->only_new) {
        return cbi_fill_finish(&c->fill, err);
    }
    cb_status status = cbi_fill_replace(&c->fill, false, err);
    if (status == CB_EAGAIN && c->patient && begin_waiting(s, c)) {
        status = cbi_fill_replace(&c->fill, true, err);
        end_waiting(s, c);
    } else if (status == CB_EAGAIN && c->patient && !c->resp->puts) { /* a sender comes again */
        come_again(s, c);
    }
    return status;
}

/** It can be seen by now. Who has removed it everywhere since it has its generation did not. */
static cb_status see_removals(const cb_server *s, cbi_connection *c, cb_error *err) {
    return s->copies != NULL &&
                   cbi_copies_end_buried(s->copies, c->task, c->name, c->fill.identity.generation)
               ? cbi_fail(err, CB_ENOTFOUND, "Block %s was removed everywhere while it was put.",
                          c->name)
               : CB_OK;
}

static bool is_offered(const cb_server *s, const cbi_connection *c) {
    const cbi_copy_arrival *a = &c->resp->arrival;
    return a->generation == c->resp->generation && cbi_copies_awaits(s->copies, a);
}

/** Whether what was offered is over with the end of this put: with that of its own, whatever came
 *  of it, and with another one's that failed. */
static bool ends_arrival(const cbi_connection *c, bool failed) {
    const cbi_copy_arrival *a = &c->resp->arrival;
    bool own = c->resp->puts && a->generation == c->resp->generation;
    return a->generation != 0 && (failed || (c->job == CBI_JOB_FINISH && own));
}

/** What the machine says to the bytes of a copy. */
static cb_status arrived(const cb_server *s, cbi_connection *c, cb_error *err) {
    cb_status status = CB_OK;
    switch (cbi_copies_arrived(s->copies, &c->resp->arrival, c->name, c->fill.identity.checksum)) {
        case CBI_REPLICA_OK: return CB_OK;
        case CBI_REPLICA_CORRUPT: status = CB_ECORRUPT; break;
        case CBI_REPLICA_CONFLICT: status = CB_EEXISTS; break;
        case CBI_REPLICA_IS_BURIED: status = CB_ENOTFOUND; break;
        case CBI_REPLICA_FULL:
        case CBI_REPLICA_IS_BUSY:
        case CBI_REPLICA_UNSENT:
        case CBI_REPLICA_FAILED:
        default: status = CB_EBUDGET; break;
    }
    return cbi_fail(err, status, "Block %s is not taken as it was offered.", c->name);
}

/** A copy that was offered. */
static cb_status finish_copy(cb_server *s, cbi_connection *c, cb_error *err) {
    CB_TRY(arrived(s, c, err));
    CB_TRY(finish_set(s, c, err));
    if (cbi_copies_generation(s->copies, c->name) == c->resp->generation) {
        return CB_OK;
    } /* else removed meanwhile, or not to be tracked */
    cbi_copies_end_block(s->copies, c->task, c->name, c->resp->generation);
    return cbi_fail(err, CB_EBUDGET, "Block %s cannot be looked after here.", c->name);
}

/** The same block is here. It may be one of a single copy that nobody looks after: if another is
 *  wanted here, the one that is counts as that. */
static cb_status finish_same(const cb_server *s, cbi_connection *c, cb_error *err) {
    cb_status status = CB_OK;
    if (is_offered(s, c)) {
        status = arrived(s, c, err);
        bool known = status == CB_EEXISTS /* it may be looked after by now */
                     && cbi_copies_generation(s->copies, c->name) == c->resp->generation;
        if (status == CB_OK || known) {
            status = cbi_copies_found(s->copies, &c->resp->arrival, c->name,
                                      c->fill.identity.checksum, err);
        }
    }
    cbi_fill_cancel(&c->fill);
    return status == CB_OK ? see_removals(s, c, err) : status;
}

/** A SET here, which waits for its copies later. */
static cb_status finish_own(cb_server *s, cbi_connection *c, cb_error *err) {
    bool waits = s->copies != NULL && cb_level_replicas((cb_level)c->head.code) > 1;
    if (waits) {
        cbi_copies_expect(s->copies, &c->resp->wait, c);
    }
    cb_status status = finish_set(s, c, err);
    if (status == CB_OK) {
        status = see_removals(s, c, err);
    }
    if (waits) {
        cbi_copies_known(s->copies, &c->resp->wait,
                         status == CB_OK ? c->fill.identity.generation : 0);
    }
    return status;
}

static cb_status finish_whole(cb_server *s, cbi_connection *c, cb_error *err) {
    bool puts = c->resp != NULL && c->resp->puts;
    if (c->summed) {
        cbi_body_sum_memory(c);
        uint64_t sum = XXH3_64bits_digest(&c->sum);
        if ((c->head.flags & CBI_FLAG_SUM) && sum != c->head.value) {
            return cbi_fail(err, CB_ECORRUPT, "Block %s did not arrive as it was sent.", c->name);
        }
        c->fill.identity = (cbi_identity){
            .generation = puts ? c->resp->generation : cbi_server_generation(s), .checksum = sum};
        c->fill.handed_over = puts;
    }
    if (puts) {
        bool same = false;
        CB_TRY(compare(s, c, &same, err));
        if (same) {
            return finish_same(s, c, err);
        }
        if (is_offered(s, c)) {
            return finish_copy(s, c, err);
        }
        CB_TRY(finish_set(s, c, err));
        return see_removals(s, c, err);
    }
    if (c->resp != NULL) {
        return finish_own(s, c, err);
    }
    CB_TRY(cbi_fill_finish(&c->fill, err));
    return see_removals(s, c, err);
}

static cb_status finish_fill(cb_server *s, cbi_connection *c, cb_error *err) {
    if (s->copies == NULL) {
        return finish_whole(s, c, err);
    }
    CB_TRY(cbi_copies_put_begin(s->copies, c->name, err));
    cb_status status = finish_whole(s, c, err);
    cbi_copies_put_end(s->copies);
    return status;
}

static void note_work(void *ctx, const cb_block_status *status, cb_level level, uint32_t readers) {
    (void)level;
    (void)readers;
    *(bool *)ctx = status->disk_bytes > 0 || status->memory_bytes > AT_ONCE_BYTES;
}

/** The end of a put that only a worker does: it makes a file, ends a large older block or one of a
 * file, seals or sums many bytes. */
static bool is_work(const cb_server *s, const cbi_connection *c) {
    bool large = c->head.bytes > AT_ONCE_BYTES;
    bool ends =
        large && (c->resp == NULL || (c->summed && c->hashed < c->fill.filled) ||
                  cbi_contents_descriptor(c->fill.contents.kind, c->fill.contents.data) >= 0);
    if (c->resp == NULL || ends) {
        return ends;
    }
    (void)cbi_blocks_look(s->blocks, c->name, note_work, &ends, NULL);
    return !(c->head.code & CB_LEVEL_IN_MEMORY) || ends;
}

void cbi_put_submit(cb_server *s, cbi_connection *c, cbi_job job) {
    cb_pool_stats pool;
    cb_manager_pool(s->manager, CB_STORAGE, CB_HEAP, &pool);
    bool room = pool.used + 2 * (uint64_t)CBI_MIB < cb_manager_storage_max(s->manager, CB_HEAP);
    bool now = room && !c->fill.on_disk;
    now = now && (job == CBI_JOB_FINISH ? !is_work(s, c) : c->head.bytes <= AT_ONCE_BYTES);
    c->job = job;
    c->patient = !now;
    if (now) {
        cbi_request_work(s, c);
        now = !c->again;
        c->again = false;
    }
    if (now) {
        c->job = CBI_JOB_NONE;
        cbi_request_done(s, c, job);
    } else {
        c->patient = true;
        c->takes = s->worker_count > 0 && c->head.bytes > AT_ONCE_BYTES &&
                   (job == CBI_JOB_BEGIN || job == CBI_JOB_ROOM);
        cbi_server_submit(s, c);
    }
}

static void begin_put(cb_server *s, cbi_connection *c) {
    c->left = c->head.bytes;
    cbi_connection_hurry(s, c, c->left); /* all of it, not its head alone */
    cbi_put_submit(s, c, CBI_JOB_BEGIN);
}

static void all_there(cb_server *s, cbi_connection *c) {
    if (c->resp != NULL) {
        cbi_resp_value_done(s, c);
    } else {
        cbi_put_submit(s, c, CBI_JOB_FINISH);
    }
}

void cbi_put_room(cb_server *s, cbi_connection *c) {
    if (c->left == 0) {
        all_there(s, c);
        return;
    }
    if (c->fill.on_disk) {
        if (!cbi_stream_take(s, c)) {
            return;
        }
        c->to = c->stream->buffer;
        c->room = CBI_STREAM_BYTES;
        c->staged = 0;
    }
    c->state = CBI_BODY;
    if (c->deadline_ns == 0) {
        cbi_connection_hurry(s, c, c->left);
    }
}

void cbi_request_body(cb_server *s, cbi_connection *c) {
    if (c->fill.on_disk) {
        c->job = CBI_JOB_APPEND;
        cbi_server_submit(s, c);
    } else if (c->left == 0) {
        all_there(s, c);
    } else {
        cbi_put_submit(s, c, CBI_JOB_ROOM);
    }
}

void cbi_request_stream(cb_server *s, cbi_connection *c) {
    c->state = CBI_BUSY;
    if (c->resp != NULL) {
        cbi_resp_stream(s, c);
    } else if (c->head.op == CBI_OP_PUT) {
        cbi_put_room(s, c);
    } else if (c->head.op == CBI_OP_GET) {
        get_done(s, c);
    } else {
        cbi_request_begin(s, c);
    }
}

/* ---- looking ---- */

static cb_status remove_block(cb_server *s, cbi_connection *c, cb_error *err) {
    cb_block_ref ref;
    cb_status status = cb_blocks_lock(s->blocks, c->task, c->name, true, false, &ref, err);
    if (status == CB_EAGAIN && c->resp != NULL && begin_waiting(s, c)) { /* a DEL counts on it */
        status = cb_blocks_lock(s->blocks, c->task, c->name, true, true, &ref, err);
        end_waiting(s, c);
    } else if (status == CB_EAGAIN && c->resp != NULL) {
        come_again(s, c);
    }
    if (status == CB_EAGAIN || status == CB_EMISUSE || status == CB_EDEADLINE) {
        return cbi_fail(err, CB_EAGAIN, "Block %s is being read, or there is a lease on it.",
                        c->name);
    }
    CB_TRY(status);
    /* with the lock: of this block, and not of one that it has taken the name from meanwhile */
    uint64_t generation = s->copies != NULL ? cbi_copies_generation(s->copies, c->name) : 0;
    cbi_blocks_end_locked(&ref);
    if (generation != 0) {
        cbi_copies_removed(s->copies, c->name, generation);
    }
    return CB_OK;
}

/** What others say was removed, or what a newer block takes the name from. */
static cb_status bury(cb_server *s, cbi_connection *c, cb_error *err) {
    const cbi_resp *r = c->resp;
    const cbi_copy_grave *g = &r->grave;
    if (r->leaves) {
        return cbi_copies_leave(s->copies, err);
    }
    CB_TRY(cbi_copies_bury(s->copies, g, c->name, r->offers || r->removes, err));
    if (g->kind != CBI_GRAVE_BLOCK) {
        return cbi_copies_sweep(s->copies, c->task, g, err);
    }
    cbi_copies_end_block(s->copies, c->task, c->name, g->generation);
    cbi_cached_drop(s->copies, c->task, c->name, g->generation);
    return CB_OK;
}

typedef struct page {
    uint8_t *at;
    size_t bytes;
} page;

static void write_entry(void *ctx, const cb_block_status *status, cb_level level,
                        uint32_t readers) {
    page *p = ctx;
    if (cbi_cached_is(status->name)) {
        return;
    }
    const cbi_entry e = {.memory_bytes = status->memory_bytes,
                         .disk_bytes = status->disk_bytes,
                         .readers = readers,
                         .level = level,
                         .now = status->level,
                         .name_bytes = (uint8_t)strlen(status->name),
                         .name = status->name};
    p->bytes += cbi_entry_encode(&e, p->at + p->bytes);
}

static void begin_status(cb_server *s, cbi_connection *c) {
    cb_error err;
    page p = {.at = c->out + CBI_HEAD_BYTES};
    cb_status status = cbi_blocks_look(s->blocks, c->name, write_entry, &p, &err);
    if (status == CB_OK) {
        answer_bytes(s, c, p.bytes);
    } else {
        answer(c, status, &err);
        go(s, c, 0);
    }
}

static void begin_list(cb_server *s, cbi_connection *c) {
    if (!cbi_stream_take(s, c)) {
        return;
    }
    page p = {.at = c->stream->buffer};
    uint64_t at = c->head.value;
    cbi_blocks_walk(s->blocks, &at, CBI_ENTRY_BYTES, CBI_STREAM_BYTES, write_entry, &p);
    cbi_head h = {.code = CB_OK, .bytes = p.bytes, .value = at};
    c->body = c->stream->buffer;
    c->body_left = p.bytes;
    c->stream_left = 0;
    reply_head(c, &h);
    go(s, c, p.bytes);
}

static void begin_stats(cb_server *s, cbi_connection *c) {
    cb_server_stats stats;
    cbi_server_stats(s, &stats);
    static_assert(sizeof stats <= CBI_REPLY_TEXT_MAX, "the figures fit into a reply");
    memcpy(c->out + CBI_HEAD_BYTES, &stats, sizeof stats);
    answer_bytes(s, c, sizeof stats);
}

static void release_lease(cb_server *s, cbi_connection *c) {
    cbi_lease *l = c->head.value < s->leases_max ? &s->lease_table[c->head.value] : NULL;
    if (l == NULL || l->owner != c || !l->given) {
        s->stats.connections_refused++;
        c->ending = true; /* it does not know what it holds */
        return;
    }
    cbi_lease_give(s, l);
    cbi_connection_rest(s, c);
}

void cbi_request_begin(cb_server *s, cbi_connection *c) {
    cbi_head hello = {.code = CB_OK, .flags = c->trusted ? CBI_FLAG_LEASE : 0};
    switch (c->head.op) {
        case CBI_OP_PUT: begin_put(s, c); break;
        case CBI_OP_GET: begin_get(s, c); break;
        case CBI_OP_RELEASE: release_lease(s, c); break;
        case CBI_OP_REMOVE:
            c->job = CBI_JOB_REMOVE;
            cbi_server_submit(s, c);
            break;
        case CBI_OP_KEEP:
            c->job = CBI_JOB_KEEP;
            cbi_server_submit(s, c);
            break;
        case CBI_OP_STATUS: begin_status(s, c); break;
        case CBI_OP_LIST: begin_list(s, c); break;
        case CBI_OP_STATS: begin_stats(s, c); break;
        default:
            reply_head(c, &hello);
            go(s, c, 0);
            break;
    }
}

/* ---- jobs ---- */

static cb_status work(cb_server *s, cbi_connection *c, cb_error *err) {
    switch (c->job) {
        case CBI_JOB_GET: return cb_blocks_get(s->blocks, c->task, c->name, ref_of(c), err);
        case CBI_JOB_READ: return read_stream(c, err);
        case CBI_JOB_BEGIN:
            CB_TRY(begin_fill(s, c, err));
            return c->takes ? cbi_body_take(s, c, err) : CB_OK;
        case CBI_JOB_ROOM:
            cbi_body_sum_memory(c);
            CB_TRY(cbi_fill_room(&c->fill, &c->to, &c->room, err));
            return c->takes ? cbi_body_take(s, c, err) : CB_OK;
        case CBI_JOB_APPEND:
            cbi_body_sum(c, c->stream->buffer, c->staged);
            return cbi_fill_append(&c->fill, c->stream->buffer, c->staged, err);
        case CBI_JOB_FINISH: return finish_fill(s, c, err);
        case CBI_JOB_REMOVE: return remove_block(s, c, err);
        case CBI_JOB_KEEP: return cb_blocks_keep(s->blocks, c->task, c->name, err);
        case CBI_JOB_CANCEL: cbi_fill_cancel(&c->fill); return CB_OK;
        case CBI_JOB_BURY: return bury(s, c, err);
        case CBI_JOB_CLOSE:
            cbi_fill_cancel(&c->fill);
            cb_block_reader_close(c->reader);
            c->reader = NULL;
            (void)cb_block_task_end(c->task);
            c->task = NULL;
            return CB_OK;
        case CBI_JOB_NONE:
        case CBI_JOB_COPIES:
        case CBI_JOB_FETCH:
        default: return CB_OK;
    }
}

void cbi_request_work(cb_server *s, cbi_connection *c) {
    cb_error err = {.message = ""};
    cb_status status = work(s, c, &err);
    bool midway = c->job == CBI_JOB_READ && c->stream_left > 0;
    if (c->task != NULL) {
        c->task->deadline_ns = 0;
    }
    if (c->resp != NULL && c->job == CBI_JOB_FINISH && status == CB_EAGAIN && !c->patient) {
        c->again = true; /* by a worker, who may wait a little */
    }
    if (c->again) {
        return;
    }
    c->patience_ns = 0;
    if (midway) {
        c->broken = status != CB_OK; /* its head is sent: there is no other way to say it */
        return;
    }
    bool is_put = c->job >= CBI_JOB_BEGIN && c->job <= CBI_JOB_FINISH, failed = status != CB_OK;
    if (is_put && failed) {
        cbi_fill_cancel(&c->fill);
    }
    if (is_put && c->resp != NULL && ends_arrival(c, failed)) {
        cbi_copies_arrival_end(s->copies, &c->resp->arrival);
    }
    if (c->resp != NULL) {
        cbi_resp_note(c, status, &err);
    } else { /* used as it is, or written anew by what comes after success */
        answer(c, status, &err);
    }
    c->failed = failed;
}

void cbi_request_more(cbi_connection *c) {
    c->body = c->stream->buffer;
    c->body_left = c->staged;
    c->stream_left -= c->staged;
    c->state = CBI_REPLY;
}

void cbi_request_done(cb_server *s, cbi_connection *c, cbi_job job) {
    bool failed = c->failed;
    c->failed = false;
    if (c->resp != NULL) {
        cbi_resp_done(s, c, job, failed);
        return;
    }
    switch (job) {
        case CBI_JOB_GET: failed ? go(s, c, 0) : get_done(s, c); break;
        case CBI_JOB_READ:
            if (c->stream_left > 0) {
                cbi_request_more(c);
            } else if (failed) {
                go(s, c, 0);
            } else {
                reply_block(s, c);
            }
            break;
        case CBI_JOB_BEGIN:
        case CBI_JOB_ROOM:
        case CBI_JOB_APPEND: failed ? refuse_rest(s, c) : cbi_put_room(s, c); break;
        case CBI_JOB_FINISH:
        case CBI_JOB_REMOVE:
        case CBI_JOB_KEEP: go(s, c, 0); break;
        case CBI_JOB_NONE:
        case CBI_JOB_CANCEL:
        case CBI_JOB_COPIES:
        case CBI_JOB_BURY:
        case CBI_JOB_FETCH:
        case CBI_JOB_CLOSE:
        default: break;
    }
}
