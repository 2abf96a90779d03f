/* SPDX-License-Identifier: Apache-2.0 */
#include "operator/sink.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"

/*
 * Direct I/O wants whole 4 KiB blocks, ranges end anywhere. A block that two ranges share is put
 * together in memory (an edge) and written by whoever brings its last byte. A block is incomplete
 * only where a range that is being written meets its neighbours, so 2 a writer and one more are
 * enough, however many ranges there are.
 *
 * A file appears whole or not at all: it is written without a name (O_TMPFILE; a hidden name where
 * that is not to be had) in the folder where it will live, synced, and then given its name. A file
 * of that name is replaced in one step by rename, which needs a name for a moment; its mode is
 * kept.
 */

enum { BLOCK = 4096 };

typedef struct edge {
    uint64_t block; /* number; UINT64_MAX: free */
    uint32_t filled;
    uint8_t *data;
} edge;

struct cbi_sink {
    cbi_sink_options o;
    cbi_compression compression;
    int fd;
    bool positional, direct, own_fd, named;
    char *target; /* where the name goes; NULL for streams */
    char *temp;   /* a name that is there now (fallback), or for the moment of replacing */
    mode_t mode;
    bool replace;
    atomic_ullong written;

    cbi_mutex mutex;
    cbi_cond changed;
    edge *edges;
    unsigned edge_count;
    cb_status failed;
    cb_error failure;

    uint64_t cursor; /* streams into regular files: bytes so far */
    uint64_t dropped;
    cbi_compressor *compressor;
    size_t block_fill; /* compressed streams: bytes in block_memory */
    bool any_block;
};

size_t cbi_sink_edge_bytes(unsigned writers) {
    return (2 * (size_t)writers + 2) * BLOCK;
}

size_t cbi_sink_block_bytes(cbi_compression c) {
    if (c == CBI_COMPRESSION_NONE)
        return 0;
    return CBI_COMPRESS_BLOCK_BYTES +
           cbi_round_up(cbi_compress_bound(c, CBI_COMPRESS_BLOCK_BYTES), BLOCK);
}

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return cbi_strdup(".");
    if (slash == path)
        return cbi_strdup("/");
    char *folder = cbi_strdup(path);
    if (folder != NULL)
        folder[slash - path] = 0;
    return folder;
}

/* A name beside the target that nobody else has: ".carbide-PID-CLOCK". */
static cb_status name_beside(cbi_sink *s, cb_error *err) {
    char *folder = folder_of(s->target);
    size_t bytes = folder != NULL ? strlen(folder) + 64 : 0;
    s->temp = folder != NULL ? cbi_alloc(bytes) : NULL;
    if (s->temp != NULL)
        snprintf(s->temp, bytes, "%s/.carbide-%ld-%llx", folder, (long)getpid(),
                 (unsigned long long)cbi_sys_clock_ns());
    cbi_free(folder);
    return s->temp != NULL ? CB_OK : cbi_fail(err, CB_ENOMEM, "no memory for a file name");
}

static cb_status open_fresh(cbi_sink *s, cb_error *err) {
    s->target = cbi_strdup(s->o.path);
    if (s->target == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a file name");
    s->fd = cbi_sys_open(s->o.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (s->fd < 0)
        return cbi_fail_sys(err, CB_EIO, -s->fd, "cannot create %s", s->o.path);
    s->own_fd = true;
    return CB_OK;
}

static cb_status open_target(cbi_sink *s, cb_error *err) {
    if (s->o.fresh)
        return open_fresh(s, err);
    struct stat st;
    const char *path = s->o.path;
    int found = cbi_sys_stat(path, &st);
    if (found == 0 && !S_ISREG(st.st_mode)) {
        if (S_ISDIR(st.st_mode))
            return cbi_fail_sys(err, CB_EIO, EISDIR, "cannot write %s", path);
        s->fd = cbi_sys_open(path, O_WRONLY | O_CLOEXEC, 0);
        if (s->fd < 0)
            return cbi_fail_sys(err, CB_EIO, -s->fd, "cannot open %s for writing", path);
        s->own_fd = true;
        return CB_OK;
    }
    if (found < 0 && found != -ENOENT)
        return cbi_fail_sys(err, CB_EIO, -found, "cannot open %s for writing", path);
    s->replace = found == 0;
    int allowed = found == 0 ? cbi_sys_access(path, W_OK) : 0;
    if (allowed < 0)
        return cbi_fail_sys(err, CB_EIO, -allowed, "cannot open %s for writing", path);
    char real[PATH_MAX];
    bool resolved = found == 0 && cbi_sys_realpath(path, real) == 0; /* a link stays a link */
    s->target = cbi_strdup(resolved ? real : path);
    s->mode = found == 0 ? st.st_mode & 07777 : 0666 & ~cbi_sys_umask();
    char *folder = s->target != NULL ? folder_of(s->target) : NULL;
    if (folder == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a file name");
    s->fd = cbi_sys_open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    cbi_free(folder);
    if (s->fd == -EOPNOTSUPP || s->fd == -EISDIR || s->fd == -EINVAL || s->fd == -ENOENT) {
        CB_TRY(name_beside(s, err));
        s->fd = cbi_sys_open(s->temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        s->named = s->fd >= 0;
    }
    if (s->fd < 0)
        return cbi_fail_sys(err, CB_EIO, -s->fd, "cannot create %s", path);
    s->own_fd = true;
    return CB_OK;
}

static cb_status reserve_space(cbi_sink *s, cb_error *err) {
    uint64_t bytes = s->o.bytes_expected;
    if (bytes == 0)
        return CB_OK;
    int done = cbi_sys_fallocate(s->fd, 0, 0, bytes);
    if (done == -ENOSPC || done == -EDQUOT || done == -EFBIG) {
        uint64_t space = 0;
        bool in_memory;
        (void)cbi_sys_space(s->fd, &space, &in_memory);
        return cbi_fail_sys(err, CB_EIO, -done,
                            "cannot reserve %llu bytes for %s (%llu are free there)",
                            (unsigned long long)bytes, s->o.path, (unsigned long long)space);
    }
    return CB_OK; /* a file system without fallocate finds out later */
}

cb_status cbi_sink_open(const cbi_sink_options *o, cbi_sink **out, cb_error *err) {
    cbi_sink *s = cbi_calloc(1, sizeof *s);
    if (s == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for the output");
    s->o = *o;
    s->fd = -1;
    s->failed = CB_OK;
    cbi_mutex_init(&s->mutex, CBI_RANK_SINK);
    cbi_cond_init(&s->changed);
    cb_status status = CB_OK;
    bool standard = o->path == NULL || strcmp(o->path, "-") == 0;
    s->compression = standard || o->as_is ? CBI_COMPRESSION_NONE : cbi_compression_of_name(o->path);
    if (standard)
        s->fd = STDOUT_FILENO;
    else
        status = open_target(s, err);
    if (status == CB_OK && s->compression != CBI_COMPRESSION_NONE)
        status = cbi_compressor_create(s->compression, &s->compressor, err);
    if (status == CB_OK && s->target != NULL && s->compression == CBI_COMPRESSION_NONE) {
        s->positional = true;
        s->direct = cbi_sys_set_direct(s->fd, true) == 0;
        s->edge_count = 2 * o->writers + 2;
        s->edges = cbi_calloc(s->edge_count, sizeof *s->edges);
        if (s->edges == NULL)
            status = cbi_fail(err, CB_ENOMEM, "no memory for the output");
        for (unsigned i = 0; s->edges != NULL && i < s->edge_count; i++)
            s->edges[i] = (edge){.block = UINT64_MAX, .data = o->edge_memory + (size_t)i * BLOCK};
        if (status == CB_OK)
            status = reserve_space(s, err);
    }
    if (status != CB_OK) {
        cbi_sink_close(s);
        return status;
    }
    *out = s;
    return CB_OK;
}

bool cbi_sink_positional(const cbi_sink *s) {
    return s->positional;
}

bool cbi_sink_direct(const cbi_sink *s) {
    return s->direct;
}

uint64_t cbi_sink_bytes(const cbi_sink *s) {
    return atomic_load_explicit(&s->written, memory_order_relaxed);
}

static const char *sink_name(const cbi_sink *s) {
    return s->o.path == NULL || strcmp(s->o.path, "-") == 0 ? "standard output" : s->o.path;
}

static cb_status sink_failed(cbi_sink *s, cb_error *err) {
    cbi_mutex_lock(&s->mutex);
    cb_status status = s->failed;
    if (status != CB_OK && err != NULL)
        *err = s->failure;
    cbi_mutex_unlock(&s->mutex);
    return status;
}

static cb_status write_failed(cbi_sink *s, int error, cb_error *err) {
    return cbi_fail_sys(err, CB_EIO, -error, "cannot write %s after %llu bytes", sink_name(s),
                        (unsigned long long)cbi_sink_bytes(s));
}

/* Without direct I/O dirty pages would pile up in the page cache, which counts in a container:
 * starts writing these bytes and drops those before. */
static void drop_behind(cbi_sink *s, uint64_t offset, uint64_t bytes) {
    enum { WINDOW = 8 << 20 };
    (void)cbi_sys_sync_range(s->fd, offset, bytes, SYNC_FILE_RANGE_WRITE);
    if (offset < WINDOW)
        return;
    uint64_t behind = (offset - WINDOW) & ~(uint64_t)(BLOCK - 1);
    cbi_sys_write_out(s->fd, behind, bytes);
}

/* ---- positional ---- */

static cb_status edge_put(cbi_sink *s, uint64_t offset, const uint8_t *data, size_t bytes,
                          cb_error *err) {
    uint64_t block = offset / BLOCK;
    edge *slot = NULL, *unused = NULL;
    cbi_mutex_lock(&s->mutex);
    for (unsigned i = 0; i < s->edge_count && slot == NULL; i++) {
        if (s->edges[i].block == block)
            slot = &s->edges[i];
        else if (s->edges[i].block == UINT64_MAX && unused == NULL)
            unused = &s->edges[i];
    }
    if (slot == NULL) {
        slot = unused;
        cb_assert(slot != NULL);
        slot->block = block;
        slot->filled = 0;
        memset(slot->data, 0, BLOCK);
    }
    memcpy(slot->data + offset % BLOCK, data, bytes);
    slot->filled += (uint32_t)bytes;
    cb_assert(slot->filled <= BLOCK);
    bool whole = slot->filled == BLOCK;
    cbi_mutex_unlock(&s->mutex);
    if (!whole)
        return CB_OK;
    int done = cbi_sys_pwrite(s->fd, slot->data, BLOCK, block * BLOCK);
    cbi_mutex_lock(&s->mutex);
    slot->block = UINT64_MAX;
    cbi_mutex_unlock(&s->mutex);
    return done < 0 ? write_failed(s, done, err) : CB_OK;
}

void cbi_writer_init(cbi_writer *w, cbi_sink *sink, uint8_t *memory, size_t buffer_bytes,
                     unsigned buffers) {
    *w = (cbi_writer){
        .sink = sink, .memory = memory, .buffer_bytes = buffer_bytes, .buffers = buffers};
    atomic_init(&w->busy, 0);
    w->start = w->at = memory;
    w->end = memory + buffer_bytes;
}

static cb_status wait_for_buffers(cbi_writer *w, unsigned mask, cb_error *err) {
    cbi_sink *s = w->sink;
    if ((atomic_load_explicit(&w->busy, memory_order_acquire) & mask) != 0) {
        cbi_mutex_lock(&s->mutex);
        while ((atomic_load_explicit(&w->busy, memory_order_acquire) & mask) != 0)
            cbi_cond_wait(&s->changed, &s->mutex);
        cbi_mutex_unlock(&s->mutex);
    }
    return sink_failed(s, err);
}

/* The buffer's number travels in the low bits of the writer's address, which is aligned: no
 * allocation a request. */
static void *pack_ctx(cbi_writer *w, unsigned buffer) {
    cb_assert(((uintptr_t)w & 7) == 0 && buffer < 8);
    return (void *)((uintptr_t)w | buffer);
}

static void written(void *ctx, cb_status status, const cbi_extent *extent, const cb_error *err) {
    (void)extent;
    cbi_writer *w = (cbi_writer *)((uintptr_t)ctx & ~(uintptr_t)7);
    unsigned buffer = (unsigned)((uintptr_t)ctx & 7);
    cbi_sink *s = w->sink;
    cbi_mutex_lock(&s->mutex);
    if (status != CB_OK && s->failed == CB_OK) {
        s->failed = status == CB_ENOSPC ? CB_EIO : status;
        if (err != NULL)
            s->failure = *err;
        s->failure.status = s->failed;
    }
    atomic_fetch_and_explicit(&w->busy, ~(1u << buffer), memory_order_release);
    cbi_cond_broadcast(&s->changed);
    cbi_mutex_unlock(&s->mutex);
}

static void next_buffer(cbi_writer *w) {
    w->current = (w->current + 1) % w->buffers;
    w->start = w->at = w->memory + w->current * w->buffer_bytes;
    w->end = w->start + w->buffer_bytes;
}

/* Sends the current buffer: its first and last block as edges where they are not whole. */
static cb_status send_buffer(cbi_writer *w, cb_error *err) {
    cbi_sink *s = w->sink;
    uint8_t *base = w->memory + w->current * w->buffer_bytes;
    size_t from = (size_t)(w->start - base), to = (size_t)(w->at - base);
    atomic_fetch_add_explicit(&s->written, to - from, memory_order_relaxed);
    if (from % BLOCK != 0 && from < to) {
        size_t n = cbi_min(BLOCK - from % BLOCK, to - from);
        CB_TRY(edge_put(s, w->offset + from, base + from, n, err));
        from += n;
    }
    size_t whole = from < to ? (to - from) & ~(size_t)(BLOCK - 1) : 0;
    if (from + whole < to)
        CB_TRY(edge_put(s, w->offset + from + whole, base + from + whole, to - from - whole, err));
    if (whole > 0) {
        atomic_fetch_or_explicit(&w->busy, 1u << w->current, memory_order_relaxed);
        cb_status status = cbi_spill_pwrite(s->o.io, s->fd, base + from, whole, w->offset + from,
                                            written, pack_ctx(w, w->current), err);
        if (status != CB_OK) {
            atomic_fetch_and_explicit(&w->busy, ~(1u << w->current), memory_order_relaxed);
            return status;
        }
    }
    return CB_OK;
}

/* ---- streams ---- */

static cb_status stream_write(cbi_sink *s, const uint8_t *data, size_t bytes, cb_error *err) {
    int done = cbi_sys_write(s->fd, data, bytes);
    if (done < 0)
        return write_failed(s, done, err);
    if (s->target != NULL)
        drop_behind(s, s->cursor, bytes);
    s->cursor += bytes;
    return CB_OK;
}

static cb_status compress_block(cbi_sink *s, cb_error *err) {
    uint8_t *out = s->o.block_memory + CBI_COMPRESS_BLOCK_BYTES;
    size_t bytes;
    CB_TRY(cbi_compress(s->compressor, s->o.block_memory, s->block_fill, out,
                        cbi_compress_bound(s->compression, CBI_COMPRESS_BLOCK_BYTES), &bytes, err));
    s->block_fill = 0;
    s->any_block = true;
    return stream_write(s, out, bytes, err);
}

static cb_status stream_put(cbi_sink *s, const uint8_t *data, size_t bytes, cb_error *err) {
    atomic_fetch_add_explicit(&s->written, bytes, memory_order_relaxed);
    if (s->compression == CBI_COMPRESSION_NONE)
        return stream_write(s, data, bytes, err);
    while (bytes > 0) {
        size_t n = cbi_min(bytes, CBI_COMPRESS_BLOCK_BYTES - s->block_fill);
        memcpy(s->o.block_memory + s->block_fill, data, n);
        s->block_fill += n;
        data += n;
        bytes -= n;
        if (s->block_fill == CBI_COMPRESS_BLOCK_BYTES)
            CB_TRY(compress_block(s, err));
    }
    return CB_OK;
}

/* ---- the pen ---- */

cb_status cbi_writer_begin(cbi_writer *w, uint64_t offset, cb_error *err) {
    CB_TRY(wait_for_buffers(w, 1u << w->current, err));
    if (!w->sink->positional)
        return CB_OK;
    uint8_t *base = w->memory + w->current * w->buffer_bytes;
    w->offset = offset & ~(uint64_t)(BLOCK - 1);
    w->start = w->at = base + offset % BLOCK;
    w->end = base + w->buffer_bytes;
    return CB_OK;
}

static cb_status flush_full(cbi_writer *w, cb_error *err) {
    if (!w->sink->positional) {
        CB_TRY(stream_put(w->sink, w->start, (size_t)(w->at - w->start), err));
        w->at = w->start;
        return CB_OK;
    }
    CB_TRY(send_buffer(w, err));
    w->offset += w->buffer_bytes;
    next_buffer(w);
    return wait_for_buffers(w, 1u << w->current, err);
}

cb_status cbi_writer_put_slow(cbi_writer *w, const uint8_t *data, size_t bytes, cb_error *err) {
    while (bytes > 0) {
        size_t n = cbi_min(bytes, (size_t)(w->end - w->at));
        memcpy(w->at, data, n);
        w->at += n;
        data += n;
        bytes -= n;
        if (w->at == w->end)
            CB_TRY(flush_full(w, err));
    }
    return CB_OK;
}

cb_status cbi_writer_end(cbi_writer *w, cb_error *err) {
    if (!w->sink->positional)
        return flush_full(w, err);
    CB_TRY(send_buffer(w, err));
    next_buffer(w);
    return CB_OK;
}

cb_status cbi_writer_drain(cbi_writer *w, cb_error *err) {
    return wait_for_buffers(w, (1u << w->buffers) - 1, err);
}

/* ---- the end ---- */

static cb_status give_name(cbi_sink *s, cb_error *err) {
    int done = fchmod(s->fd, s->mode) == 0 ? 0 : -errno;
    if (done < 0)
        return cbi_fail_sys(err, CB_EIO, -done, "cannot set the mode of %s", s->o.path);
    if (!s->named && !s->replace) {
        done = cbi_sys_linkat_fd(s->fd, s->target);
        if (done == 0)
            return CB_OK;
        if (done != -EEXIST) /* somebody was faster: replace it */
            return cbi_fail_sys(err, CB_EIO, -done, "cannot give the result its name %s",
                                s->o.path);
    }
    if (!s->named) {
        CB_TRY(name_beside(s, err));
        done = cbi_sys_linkat_fd(s->fd, s->temp);
        if (done < 0)
            return cbi_fail_sys(err, CB_EIO, -done, "cannot give the result its name %s",
                                s->o.path);
        s->named = true;
    }
    done = cbi_sys_rename(s->temp, s->target);
    if (done < 0)
        return cbi_fail_sys(err, CB_EIO, -done, "cannot replace %s", s->o.path);
    s->named = false;
    return CB_OK;
}

cb_status cbi_sink_finish(cbi_sink *s, uint64_t bytes, cb_error *err) {
    CB_TRY(sink_failed(s, err));
    if (s->compression != CBI_COMPRESSION_NONE && (s->block_fill > 0 || !s->any_block))
        CB_TRY(compress_block(s, err));
    if (s->target == NULL)
        return CB_OK;
    int done = 0;
    for (unsigned i = 0; s->positional && i < s->edge_count && done == 0; i++)
        if (s->edges[i].block != UINT64_MAX) {
            done = cbi_sys_pwrite(s->fd, s->edges[i].data, BLOCK, s->edges[i].block * BLOCK);
            s->edges[i].block = UINT64_MAX;
        }
    if (done == 0 && s->positional)
        done = cbi_sys_truncate(s->fd, bytes);
    if (done == 0 && !s->o.fresh)
        done = cbi_sys_fsync(s->fd);
    if (done < 0)
        return write_failed(s, done, err);
    return s->o.fresh ? CB_OK : give_name(s, err);
}

void cbi_sink_close(cbi_sink *s) {
    if (s == NULL)
        return;
    if (s->named && s->temp != NULL)
        (void)cbi_sys_unlink(s->temp);
    if (s->own_fd && s->fd >= 0)
        (void)cbi_sys_close(s->fd);
    cbi_compressor_destroy(s->compressor);
    cbi_free(s->temp);
    cbi_free(s->target);
    cbi_free(s->edges);
    cbi_cond_fini(&s->changed);
    cbi_mutex_fini(&s->mutex);
    cbi_free(s);
}
