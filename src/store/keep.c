/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks that outlive the process: keeping them, forgetting them, finding them again.
 *
 * A store with a name has its folder under that name, and a manifest in it (manifest.c). When it is
 * opened the manifest is read, every file that it names is read to its end and compared with its
 * checksums, and what is not as it was written is reported and removed; files that are not in the
 * manifest are left-overs of a process that died, and go as well. Then a fresh manifest is written.
 * So a store begins with blocks that are all there, and with nothing else in its folder.
 */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "store/blocks.h"

/* ---- finding ---- */

typedef struct recovery {
    cb_blocks *blocks;
    uint16_t class; /* of blocks of records; 0: none was given */
    cb_status status;
    cb_error *err;
} recovery;

static cbi_node *find(cb_blocks *b, const char *name) {
    size_t bytes = strlen(name);
    return cbi_index_find(&b->index, name, bytes, cbi_index_hash(name, bytes));
}

static void drop_node(cb_blocks *b, cbi_node *n) {
    cbi_index_leave(&b->index, n);
    cbi_index_free(&b->index, n);
}

/** One record of the manifest. */
static bool recover(void *ctx, const cbi_kept *k) {
    recovery *r = ctx;
    cb_blocks *b = r->blocks;
    cbi_node *n = find(b, k->name);
    if (n != NULL) {
        drop_node(b, n);
    }
    if (k->removed) {
        return true;
    }
    r->status = cbi_index_node(&b->index, k->name, &n, r->err);
    if (r->status != CB_OK) {
        return false;
    }
    n->level = r->class != 0 ? k->level : (cb_level)(k->level & ~CB_LEVEL_IS_DESERIALISED);
    n->record_class = r->class;
    n->entry.data_set = cbi_block_data_set(k->name);
    n->entry.mode = cb_level_mode(n->level);
    n->disk = cbi_on_disk_at(k->file_bytes, 0);
    n->kept = true;
    cbi_node_identify(
        &b->index, n,
        (cbi_identity){.generation = k->generation, .checksum = k->checksum}); /* as it was put */
    cbi_index_enter(&b->index, n);
    return true;
}

/** The file is there and is what it was, to its last byte. */
static cb_status verify(cb_blocks *b, const cbi_node *n, cb_error *err) {
    uint8_t piece[8192];
    cbi_disk_reader r;
    size_t got = 0;
    CB_TRY(cbi_disk_reader_open(&b->disk, n->name, n->disk, &r, err));
    cb_status status = r.file_bytes == n->disk.bytes ? CB_OK : CB_ECORRUPT;
    while (status == CB_OK) {
        status = cbi_disk_read(&r, piece, sizeof piece, &got, err);
    }
    cbi_disk_reader_close(&r);
    return status == CB_EEND ? CB_OK : status;
}

/** Marks those that are not what they were. Where there is only no memory or descriptor to look at
 *  one the store does not begin: what is kept is not given up for that. */
static cb_status verify_all(cb_blocks *b, cb_error *err) {
    size_t at = 0;
    for (cbi_node *n = NULL; (n = cbi_index_scan(&b->index, &at)) != NULL;) {
        for (; n != NULL; n = n->next) {
            cb_status status = verify(b, n, err);
            if (status != CB_OK && status != CB_ECORRUPT && status != CB_EIO) {
                return status;
            }
            n->doomed = status != CB_OK;
            if (!n->doomed) {
                b->stats.recovered++;
                b->stats.disk_blocks++;
                b->stats.disk_bytes += n->disk.bytes;
                cbi_node_level(b, n)->disk_blocks++;
                cbi_node_level(b, n)->disk_bytes += n->disk.bytes;
                b->stats.replicas_missing += cb_level_replicas(n->level) - 1;
                atomic_fetch_add(&b->disk.used, n->disk.bytes);
                cbi_blocks_report(b, n, false);
            }
        }
    }
    return CB_OK;
}

static void drop_lost(cb_blocks *b) {
    for (bool found = true; found;) { /* buckets may be joined behind us: until there are none */
        size_t at = 0;
        found = false;
        for (cbi_node *n = NULL; !found && (n = cbi_index_scan(&b->index, &at)) != NULL;) {
            while (n != NULL && !n->doomed) {
                n = n->next;
            }
            if (n != NULL) {
                found = true;
                b->stats.lost++;
                cbi_blocks_report(b, n, true);
                drop_node(b, n);
            }
        }
    }
}

static bool is_kept(void *ctx, const char *name) {
    const cbi_node *n = find(ctx, name);
    return n != NULL && n->kept;
}

/* ---- the manifest anew ---- */

typedef struct survivors {
    cb_blocks *blocks;
    cbi_node **nodes;
    size_t count, next;
} survivors;

/** What the manifest says of it. */
static cbi_kept kept_of(const cbi_node *n) {
    cbi_identity identity = cbi_node_identity(n);
    cbi_kept k = {.level = n->level,
                  .file_bytes = n->disk.bytes,
                  .generation = identity.generation,
                  .checksum = identity.checksum};
    memcpy(k.name, n->name, (size_t)n->name_bytes + 1);
    return k;
}

static bool next_survivor(void *ctx, cbi_kept *k) {
    survivors *s = ctx;
    while (s->next < s->count) {
        const cbi_node *n = s->nodes[s->next++];
        *k = kept_of(n);
        return true;
    }
    return false;
}

/** [keep.mutex] Kept nodes are not freed meanwhile: that takes the mutex. */
static cb_status rewrite(cb_blocks *b, cb_error *err) {
    survivors s = {.blocks = b};
    size_t at = 0, room = 0;
    cbi_lock_take(cbi_blocks_lock_of(b));
    room = (size_t)b->stats.kept;
    cbi_lock_give(cbi_blocks_lock_of(b));
    s.nodes = cbi_alloc((room + 1) * sizeof(cbi_node *)); /* others only become fewer */
    if (s.nodes == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory to write a manifest.");
    }
    cbi_lock_take(cbi_blocks_lock_of(b)); /* or an index that changes could hide one */
    for (cbi_node *n = NULL; (n = cbi_index_scan(&b->index, &at)) != NULL;) {
        for (; n != NULL; n = n->next) {
            if (n->kept) {
                cb_assert(s.count < room);
                s.nodes[s.count++] = n;
            }
        }
    }
    cbi_lock_give(cbi_blocks_lock_of(b));
    cb_status status =
        cbi_manifest_rewrite(&b->keep.manifest, b->disk.folder.fd, next_survivor, &s, err);
    cbi_free(s.nodes);
    return status;
}

cb_status cbi_keep_open(cb_blocks *b, const cb_blocks_options *o, cb_error *err) {
    b->keep.manifest.fd = -1;
    cbi_mutex_init(&b->keep.mutex, CBI_RANK_KEEP);
    b->keep.ready = true;
    if (o->keep == NULL) {
        return CB_OK;
    }
    if (o->folder == NULL) {
        return cbi_fail(err, CB_EINVAL, "Blocks can be kept where there is a folder for them.");
    }
    recovery r = {.blocks = b, .err = err};
    CB_TRY(cbi_blocks_class(b, o->keep_class, &r.class, err));
    cb_status status =
        cbi_manifest_read(b->disk.folder.fd, recover, &r, &b->stats.manifest_damaged, err);
    CB_TRY(r.status != CB_OK ? r.status : status);
    CB_TRY(verify_all(b, err));
    drop_lost(b);
    b->stats.kept = b->index.count;
    CB_TRY(rewrite(b, err));
    cbi_disk_sweep(&b->disk, is_kept, b);
    b->keep.on = true;
    return CB_OK;
}

void cbi_keep_close(cb_blocks *b) {
    size_t at = 0;
    if (!b->keep.ready) {
        return;
    }
    for (cbi_node *n = NULL; b->keep.on && (n = cbi_index_scan(&b->index, &at)) != NULL;) {
        for (; n != NULL; n = n->next) {
            if (n->disk.bytes > 0 && !n->kept) {
                cbi_disk_remove(&b->disk, n->name, n->disk);
            }
        }
    }
    b->disk.stays = b->disk.named && (!b->keep.on || b->stats.kept > 0);
    cbi_manifest_close(&b->keep.manifest);
    cbi_mutex_fini(&b->keep.mutex);
}

/* ---- keeping and forgetting ---- */

/** [keep.mutex] The caller has a lock on the block. */
static cb_status keep(cb_blocks *b, cbi_node *n, cb_error *err) {
    if (n->disk.bytes == 0) {
        cbi_on_disk on_disk = {0};
        CB_TRY(cbi_blocks_write(b, n, &on_disk, err));
        cbi_lock_take(cbi_blocks_lock_of(b));
        cbi_node_note_file(b, n, on_disk);
        cbi_lock_give(cbi_blocks_lock_of(b));
        cbi_blocks_report(b, n, false);
    }
    const cbi_kept k = kept_of(n);
    CB_TRY(cbi_disk_settle(&b->disk, n->name, err));
    CB_TRY(cbi_manifest_append(&b->keep.manifest, &k, err));
    cbi_lock_take(cbi_blocks_lock_of(b));
    n->kept = true;
    b->stats.kept++;
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (cbi_manifest_is_long(&b->keep.manifest)) {
        (void)rewrite(b, NULL); /* the long one is as good */
    }
    return CB_OK;
}

cb_status cb_blocks_keep(cb_blocks *b, cb_block_task *task, const char *name, cb_error *err) {
    cbi_node *n = NULL;
    cb_block_ref ref;
    if (!b->keep.on) {
        return cbi_fail(err, CB_EINVAL,
                        "Block %.255s cannot be kept: the store was created without a name to "
                        "keep blocks under (cb_blocks_options.keep).",
                        name);
    }
    CB_TRY(cbi_node_acquire(b, task, name, false, true, false, &ref, &n, err));
    cbi_lock_give(cbi_blocks_lock_of(b));
    cb_status status = CB_OK;
    if (!(n->level & CB_LEVEL_ON_DISK)) {
        status = cbi_fail(err, CB_EINVAL, "Block %s cannot be kept: its level has no disk.", name);
    } else {
        cbi_mutex_lock(&b->keep.mutex);
        cbi_lock_take(cbi_blocks_lock_of(b));
        bool kept = n->kept, removed = n->removed;
        cbi_lock_give(cbi_blocks_lock_of(b));
        if (removed) { /* since it was found, and nobody would forget it any more */
            status = cbi_fail(err, CB_ENOTFOUND, "There is no block %s.", n->name);
        } else if (!kept) {
            status = keep(b, n, err);
        }
        cbi_mutex_unlock(&b->keep.mutex);
    }
    cb_block_release(&ref);
    return status;
}

/** [keep.mutex] */
static cb_status forget(cb_blocks *b, cbi_node *n) {
    cbi_kept k = kept_of(n);
    k.removed = true;
    return cbi_manifest_append(&b->keep.manifest, &k, NULL);
}

/** [keep.mutex] */
static void note_forgotten(cb_blocks *b, cbi_node *n) {
    cbi_lock_take(cbi_blocks_lock_of(b));
    n->kept = false;
    b->stats.kept--;
    cbi_lock_give(cbi_blocks_lock_of(b));
}

void cbi_keep_forget(cb_blocks *b, cbi_node *n) {
    if (!n->kept) {
        return;
    }
    cbi_mutex_lock(&b->keep.mutex);
    (void)forget(b, n); /* else the next start finds the file missing, and says so */
    note_forgotten(b, n);
    cbi_mutex_unlock(&b->keep.mutex);
}

void cbi_keep_forget_removed(cb_blocks *b, cbi_node *n) {
    if (!b->keep.on) {
        return;
    }
    cbi_mutex_lock(&b->keep.mutex); /* somebody may be about to keep it */
    cbi_lock_take(cbi_blocks_lock_of(b));
    bool kept = n->kept;
    cbi_lock_give(cbi_blocks_lock_of(b));
    if (kept && forget(b, n) == CB_OK) { /* else once more when its file goes */
        note_forgotten(b, n);
    }
    cbi_mutex_unlock(&b->keep.mutex);
}
