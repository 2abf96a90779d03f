/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>

#include "base/alloc.h"
#include "operator/split.h"

/*
 * The files of a partition are written below a private folder in the place where they will live,
 * under the names that they will have there: so a name that is wanted twice is found when the file
 * is made, nothing about the files must be remembered, and a killed run leaves one folder that the
 * next one removes. In the end the whole file system is synced once (a sync for each of thousands
 * of files would take longer than all the rest) and every file is moved to its place.
 *
 * A worker has a few pens: while the blocks of one file are on their way it fills the next.
 */

typedef struct pen {
    cbi_writer writer;
    cbi_sink *sink; /* NULL: idle */
    uint64_t bytes;
} pen;

struct cbi_pens {
    pen pens[SPLIT_PENS];
    unsigned count, current;
    bool open; /* the current one takes rows */
    uint8_t *memory;
    size_t buffer;
    uint8_t *blocks;
    uint8_t *key; /* of the present target */
    size_t key_bytes, key_capacity;
};

static unsigned workers_of(const cbi_pens *pens) {
    unsigned n = 0;
    while (pens[n].count > 0)
        n++;
    return n;
}

/* ---- folders ---- */

/* Makes the folders that `path` needs below its first `from` bytes. */
static int make_folders(char *path, size_t from, bool *made) {
    for (char *p = path + from; (p = strchr(p + 1, '/')) != NULL;) {
        *p = 0;
        int result = cbi_sys_mkdir(path, 0777);
        *p = '/';
        if (result < 0 && result != -EEXIST)
            return result;
        *made = result == 0;
    }
    return 0;
}

static cb_status open_root(cbi_split *s, cb_error *err) {
    s->root_fd = cbi_sys_open(s->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (s->root_fd == -ENOENT) {
        char path[PATH_MAX];
        bool made = false;
        if (strlen(s->root) + 2 > sizeof path)
            return cbi_fail(err, CB_EINVAL, "the folder's name is too long: %.80s...", s->root);
        (void)snprintf(path, sizeof path, "%s/", s->root);
        int result = make_folders(path, 0, &made);
        s->made_root = made;
        s->root_fd =
            result < 0 ? result : cbi_sys_open(s->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    }
    if (s->root_fd < 0)
        return cbi_fail_sys(err, CB_EIO, s->root_fd, "the folder %s cannot be used", s->root);
    return cbi_private_folder_make(&s->folder, s->root_fd, s->root, err);
}

static const char TREE[] = "spill.out";

/* Rows go to the caller: there are no files, and only keys and a name to remember. */
static cb_status open_given(cbi_split *s, unsigned workers, cb_error *err) {
    s->pens = cbi_calloc(workers + 1, sizeof *s->pens);
    s->name = cbi_alloc(PATH_MAX);
    if (s->pens == NULL || s->name == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a partition's names");
    for (unsigned i = 0; i < workers; i++)
        s->pens[i].count = 1;
    return CB_OK;
}

cb_status cbi_split_open(cbi_split *s, cbi_spill *io, unsigned workers, uint8_t *memory,
                         size_t stride, size_t bytes, uint8_t *blocks, size_t block_bytes,
                         uint8_t *edges, cb_error *err) {
    if (s->write != NULL)
        return open_given(s, workers, err);
    CB_TRY(open_root(s, err));
    int made = cbi_sys_mkdirat(s->folder.fd, TREE, 0700);
    size_t length = strlen(s->root) + strlen(s->folder.name) + sizeof TREE + 2;
    s->tree = cbi_alloc(length);
    s->pens = cbi_calloc(workers + 1, sizeof *s->pens); /* the last one has no pens */
    if (s->tree == NULL || s->pens == NULL)
        return cbi_fail(err, CB_ENOMEM, "no memory for a partition's files");
    (void)snprintf(s->tree, length, "%s/%s/%s", s->root, s->folder.name, TREE);
    if (made < 0)
        return cbi_fail_sys(err, CB_EIO, made, "cannot create the folder %s", s->tree);
    s->io = io;
    s->unused_edges = edges;
    for (unsigned i = 0; i < workers; i++) {
        cbi_pens *p = &s->pens[i];
        p->count = block_bytes > 0 ? 1 : SPLIT_PENS;
        p->memory = memory + i * stride;
        p->buffer = bytes / p->count / 2 & ~(size_t)4095;
        p->blocks = blocks + i * block_bytes;
        cb_assert(p->buffer >= 4096);
    }
    return CB_OK;
}

void cbi_split_close_pens(cbi_split *s) {
    if (s->pens == NULL)
        return;
    for (unsigned i = 0, n = workers_of(s->pens); i < n; i++) {
        for (unsigned k = 0; k < s->pens[i].count; k++)
            cbi_sink_close(s->pens[i].pens[k].sink);
        cbi_free(s->pens[i].key);
    }
    cbi_free(s->pens);
    s->pens = NULL;
}

/* ---- files ---- */

static cb_status open_file(cbi_split *s, cbi_pens *p, char *path, cb_error *err) {
    pen *w = &p->pens[p->current];
    cbi_sink_options options = {.path = path,
                                .io = s->io,
                                .writers = 1,
                                .edge_memory = s->unused_edges,
                                .block_memory = p->blocks,
                                .fresh = true};
    cb_error why;
    cb_status status = cbi_sink_open(&options, &w->sink, &why);
    if (status != CB_OK && why.sys_errno == ENOENT) {
        bool made;
        int result = make_folders(path, strlen(s->tree), &made);
        if (result < 0)
            return cbi_fail_sys(err, CB_EIO, result, "cannot create the folders of %s",
                                path + strlen(s->tree) + 1);
        status = cbi_sink_open(&options, &w->sink, &why);
    }
    if (status != CB_OK && (why.sys_errno == EEXIST || why.sys_errno == EISDIR))
        return cbi_fail(err, CB_EINVAL,
                        "two different values want the same name, %s/%s; let the template have all "
                        "keys, apart from each other",
                        s->root, path + strlen(s->tree) + 1);
    if (status != CB_OK) {
        if (err != NULL)
            *err = why;
        return status;
    }
    cbi_writer_init(&w->writer, w->sink, p->memory + 2 * p->current * p->buffer, p->buffer, 2);
    return cbi_writer_begin(&w->writer, 0, err);
}

/* Everything of the current file is on its way. The end of the last block is filled up, so that all
 * of it goes in one piece; the file is cut when it is finished. */
static cb_status end_file(cbi_split *s, cbi_pens *p, cb_error *err) {
    static const uint8_t padding[4096];
    pen *w = &p->pens[p->current];
    p->open = false;
    size_t rest = (size_t)(w->bytes % sizeof padding);
    if (cbi_sink_positional(w->sink) && rest > 0)
        CB_TRY(cbi_writer_put(&w->writer, padding, sizeof padding - rest, err));
    CB_TRY(cbi_writer_end(&w->writer, err));
    atomic_fetch_add_explicit(&s->bytes, w->bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->files, 1, memory_order_relaxed);
    p->current = (p->current + 1) % p->count;
    return CB_OK;
}

static cb_status finish_file(pen *w, cb_error *err) {
    if (w->sink == NULL)
        return CB_OK;
    CB_TRY(cbi_writer_drain(&w->writer, err));
    CB_TRY(cbi_sink_finish(w->sink, w->bytes, err));
    cbi_sink_close(w->sink);
    w->sink = NULL;
    return CB_OK;
}

static cb_status remember_key(cbi_pens *p, const cbi_stored *row, cb_error *err) {
    if (p->key_capacity < row->key_bytes) {
        uint8_t *key = cbi_realloc(p->key, row->key_bytes);
        if (key == NULL)
            return cbi_fail(err, CB_ENOMEM, "no memory for a key of %u bytes", row->key_bytes);
        p->key = key;
        p->key_capacity = row->key_bytes;
    }
    if (row->key_bytes > 0)
        memcpy(p->key, row->key, row->key_bytes);
    p->key_bytes = row->key_bytes;
    return CB_OK;
}

static bool ends_rows(const cbi_split *s) {
    return s->format.kind != CB_FORMAT_FIXED;
}

static cb_status begin_given(cbi_split *s, cbi_pens *p, const cbi_stored *row, cb_error *err) {
    CB_TRY(cbi_split_name(s, row, s->name, PATH_MAX, err));
    atomic_fetch_add_explicit(&s->files, 1, memory_order_relaxed);
    p->open = true;
    return s->header_bytes == 0
               ? CB_OK
               : s->write(s->write_ctx, s->name, s->header, s->header_bytes - ends_rows(s), err);
}

static cb_status begin_file(cbi_split *s, cbi_pens *p, const cbi_stored *row, cb_error *err) {
    char path[PATH_MAX];
    pen *w = &p->pens[p->current];
    CB_TRY(finish_file(w, err));
    size_t tree = strlen(s->tree) + 1;
    if (tree >= sizeof path)
        return cbi_fail(err, CB_EINVAL, "the folder's name is too long: %.80s...", s->root);
    memcpy(path, s->tree, tree - 1);
    path[tree - 1] = '/';
    CB_TRY(cbi_split_name(s, row, path + tree, sizeof path - tree, err));
    CB_TRY(open_file(s, p, path, err));
    p->open = true;
    w->bytes = s->header_bytes;
    return s->header_bytes > 0 ? cbi_writer_put(&w->writer, s->header, s->header_bytes, err)
                               : CB_OK;
}

cb_status cbi_split_put(cbi_split *s, unsigned worker, const cbi_stored *row, cb_error *err) {
    cbi_pens *p = &s->pens[worker];
    bool same = p->open && row->key_bytes == p->key_bytes &&
                (row->key_bytes == 0 || memcmp(row->key, p->key, row->key_bytes) == 0);
    if (CBI_UNLIKELY(!same)) {
        CB_TRY(cbi_split_end(s, worker, err));
        CB_TRY(remember_key(p, row, err));
        CB_TRY(s->write != NULL ? begin_given(s, p, row, err) : begin_file(s, p, row, err));
    }
    bool terminated = ends_rows(s);
    if (s->write != NULL) {
        atomic_fetch_add_explicit(&s->bytes, row->row_bytes + terminated, memory_order_relaxed);
        return s->write(s->write_ctx, s->name, row->row, row->row_bytes, err);
    }
    pen *w = &p->pens[p->current];
    w->bytes += row->row_bytes + terminated;
    return cbi_writer_put_row(&w->writer, row->row, row->row_bytes, terminated,
                              s->format.terminator, err);
}

cb_status cbi_split_end(cbi_split *s, unsigned worker, cb_error *err) {
    cbi_pens *p = &s->pens[worker];
    if (s->write != NULL)
        p->open = false;
    return p->open ? end_file(s, p, err) : CB_OK;
}

cb_status cbi_split_drain(cbi_split *s, unsigned worker, cb_error *err) {
    cbi_pens *p = &s->pens[worker];
    CB_TRY(cbi_split_end(s, worker, err));
    for (unsigned i = 0; i < p->count; i++)
        CB_TRY(finish_file(&p->pens[i], err));
    return CB_OK;
}

/* ---- names ---- */

typedef struct mover {
    int from, to;
    const char *folder; /* for messages */
    cb_status status;
    cb_error *err;
} mover;

static void move_one(void *ctx, const char *name);

/* The folder is there already and not empty. */
static cb_status move_content(const mover *m, const char *name) {
    mover inner = {.folder = name, .status = CB_OK, .err = m->err};
    inner.from = cbi_sys_openat(m->from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    inner.to = cbi_sys_openat(m->to, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    int result = inner.from < 0 ? inner.from : inner.to < 0 ? inner.to : 0;
    if (result == 0)
        result = cbi_sys_list(inner.from, move_one, &inner);
    if (inner.from >= 0)
        (void)cbi_sys_close(inner.from);
    if (inner.to >= 0)
        (void)cbi_sys_close(inner.to);
    if (inner.status != CB_OK)
        return inner.status;
    return result < 0 ? cbi_fail_sys(m->err, CB_EIO, -result,
                                     "cannot give the files of the folder %s their names", name)
                      : CB_OK;
}

/* A file, or a folder with all that is in it. */
static void move_one(void *ctx, const char *name) {
    mover *m = ctx;
    if (m->status != CB_OK)
        return;
    int result = cbi_sys_renameat(m->from, name, m->to, name);
    if (result == -ENOTEMPTY || result == -EEXIST)
        m->status = move_content(m, name);
    else if (result < 0)
        m->status = cbi_fail_sys(m->err, CB_EIO, -result,
                                 "cannot give %s its place in the folder %s; others may have "
                                 "theirs already",
                                 name, m->folder);
}

cb_status cbi_split_finish(cbi_split *s, cb_error *err) {
    if (s->write != NULL)
        return CB_OK;
    int result = cbi_sys_syncfs(s->root_fd);
    if (result < 0)
        return cbi_fail_sys(err, CB_EIO, -result, "cannot sync the files in %s", s->root);
    int from = cbi_sys_openat(s->folder.fd, TREE, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (from < 0)
        return cbi_fail_sys(err, CB_EIO, -from, "cannot look into %s", s->tree);
    mover m = {.from = from, .to = s->root_fd, .folder = s->root, .status = CB_OK, .err = err};
    result = cbi_sys_list(from, move_one, &m);
    (void)cbi_sys_close(from);
    if (m.status == CB_OK && result < 0)
        m.status = cbi_fail_sys(err, CB_EIO, -result, "cannot look into %s", s->tree);
    s->named = true;
    return m.status;
}
