/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocks on disk, but for those of up to 2 MiB that nobody keeps, compresses or seals
 * (disk_pack.c).
 *
 * A block is a file in one of some sub-folders, so that no folder grows too long. The file's name
 * is 128 bits of hash of the block's name, which may hold anything; the name itself is in the
 * file's header and is compared.
 *
 *     header   512 bytes: magic, sizes, codec, level, the name, a checksum of all that
 *     frames   16 bytes {raw bytes, stored bytes, XXH3 of what is stored}, then what is stored
 *
 * A frame holds at most 256 KiB of the block and is compressed by itself or not at all, so a reader
 * needs no more memory than one of them, and no byte is used before its frame was verified. The
 * checksum's seed is made of the block's name, the frame's number and its sizes: a frame of another
 * block, or out of order, does not pass.
 *
 * With a cipher each frame is sealed after it was packed, under its number and beside its sizes,
 * and the header carries the tag of itself, sealed under the last of all numbers; checksums are of
 * what is stored. Where there is a cipher a file that is not sealed is none of ours.
 *
 * The header is written last, and the file gets its name after that: what has its name is whole.
 * Nothing is synced, since these files end with the process, but for blocks that are kept. A block
 * of a full frame or more goes past the page cache (disk_out.c), if memory for blocks is large
 * enough to have its buffer beside; its file ends with zeros, and the header says how many.
 */
#define XXH_INLINE_ALL
#define ZSTD_STATIC_LINKING_ONLY
#include "store/disk.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "store/sum.h"

enum {
    HEADER_BYTES = 512,
    HEADER_SEALED = 29,
    HEADER_SALT = 32,
    HEADER_TAG = 48,
    HEADER_NAME = 64,
    HEADER_SUM = HEADER_BYTES - 8,
    HEADER_PAD = HEADER_SUM - 8,
    FRAME_HEADER = 16,
    FRAME_HEADER_OPEN = 8, /* of it: what a sealed frame vouches for */
    FRAME_BYTES = 256 * 1024,
    PACKED_BYTES = FRAME_BYTES + FRAME_BYTES / 128 + 1024, /* bound of both codecs */
    LZ4_STATE = 20 * 1024,
    WRITE_OUT_BYTES = 8 * 1024 * 1024,
    DIRECT_MEMORY_MIN = 32 * 1024 * 1024,
    SUB_FOLDERS = 64,
    SUB_FOLDERS_MAX = 4096,
    ZSTD_LEVEL = 1,
    KEEP_BYTES_MAX = 32,
    WIDE_BYTES_MIN = 1024
};

static const char magic[8] = {'C', 'B', 'B', 'L', 'O', 'C', 'K', '2'};

/* ---- the folder ---- */

static bool is_name(const char *name) {
    size_t bytes = strlen(name);
    return bytes > 0 && bytes <= KEEP_BYTES_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               bytes;
}

static void close_named(cbi_private_folder *f) {
    if (f->owner_fd >= 0) {
        (void)cbi_sys_close(f->owner_fd);
    }
    if (f->fd >= 0) {
        (void)cbi_sys_close(f->fd);
    }
    *f = (cbi_private_folder){.fd = -1, .owner_fd = -1};
}

/** A folder that may have been there before, with its owner's lock. */
static cb_status open_named(cbi_disk *d, const cb_blocks_options *o, cb_error *err) {
    cbi_private_folder *f = &d->folder;
    if (!is_name(o->keep)) {
        return cbi_fail(err, CB_EINVAL,
                        "Blocks are kept under a name of up to %d letters, digits and . _ -.",
                        KEEP_BYTES_MAX);
    }
    (void)snprintf(f->name, sizeof f->name, "carbide-blocks.%s", o->keep);
    struct stat st;
    int result = cbi_sys_mkdirat(d->parent, f->name, 0700);
    if (result >= 0 || result == -EEXIST) {
        result = f->fd =
            cbi_sys_openat(d->parent, f->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    }
    if (result >= 0) {
        result = cbi_sys_fstat(f->fd, &st);
    }
    if (result >= 0 && (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)) {
        result = -EPERM;
    }
    if (result >= 0) {
        result = f->owner_fd =
            cbi_sys_openat(f->fd, "owner", O_CREAT | O_NOFOLLOW | O_RDWR | O_CLOEXEC, 0600);
    }
    if (result >= 0) {
        result = cbi_sys_lock_exclusive(f->owner_fd);
    }
    if (result >= 0) {
        result = cbi_sys_fsync(d->parent);
    }
    if (result < 0) {
        close_named(f);
        return result == -EAGAIN
                   ? cbi_fail(err, CB_EAGAIN, "Another store has the blocks kept as %s in %s.",
                              o->keep, o->folder)
                   : cbi_fail_sys(err, CB_EIO, result,
                                  "the folder %s/carbide-blocks.%s of blocks "
                                  "that are kept cannot be opened",
                                  o->folder, o->keep);
    }
    return CB_OK;
}

cb_status cbi_disk_init(cbi_disk *d, const cb_blocks_options *o, cbi_home *home, cb_error *err) {
    *d = (cbi_disk){.parent = -1, .home = home, .folder = {.fd = -1, .owner_fd = -1}};
    cbi_pack_init(&d->pack, CBI_PACK_UNIT, home);
    cbi_pack_init(&d->large, CBI_SYSTEM_PAGE_BYTES, home);
    if (o->folder == NULL) {
        return CB_OK;
    }
    if (o->sub_folders > SUB_FOLDERS_MAX || o->codec > CB_BLOCK_CODEC_ZSTD) {
        return cbi_fail(err, CB_EINVAL,
                        "A store has at most %d sub-folders, and codec none, lz4 "
                        "or zstd.",
                        SUB_FOLDERS_MAX);
    }
    d->sub_folders = o->sub_folders > 0 && o->keep == NULL ? o->sub_folders : SUB_FOLDERS;
    d->codec = o->codec;
    d->cipher = o->cipher;
    d->limit = o->disk_max > 0 ? o->disk_max : UINT64_MAX;
    d->direct = cb_manager_storage_max(o->manager, CB_HEAP) +
                    cb_manager_storage_max(o->manager, CB_OFF_HEAP) >=
                DIRECT_MEMORY_MIN;
    d->parent = cbi_sys_open(o->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (d->parent < 0) {
        return cbi_fail_sys(err, CB_EIO, d->parent, "the folder %s for blocks cannot be opened",
                            o->folder);
    }
    d->named = o->keep != NULL;
    cb_status status = d->named ? open_named(d, o, err)
                                : cbi_private_folder_open(&d->folder, d->parent, o->folder, err);
    d->path = status == CB_OK ? cbi_strdup(o->folder) : NULL;
    if (status == CB_OK && d->path == NULL) {
        status = cbi_fail(err, CB_ENOMEM, "The system has no memory for the name of a folder.");
    }
    if (status != CB_OK) {
        cbi_disk_fini(d);
        return status;
    }
    cbi_disk_pack_open(d);
    return CB_OK;
}

static void stage_free(const cbi_disk *d, uint8_t *stage, size_t bytes) {
    if (stage != NULL) {
        cbi_sys_unmap(stage, bytes);
        atomic_fetch_sub_explicit(&d->home->staging, (int64_t)bytes, memory_order_relaxed);
    }
}

void cbi_disk_fini(cbi_disk *d) {
    if (d->home == NULL || d->parent < 0) {
        return;
    }
    for (int i = 0; i < CBI_DISK_SPARES; i++) {
        stage_free(d, atomic_exchange(&d->spare[i], NULL), CBI_DISK_OUT_BYTES);
    }
    cbi_pack_fini(&d->pack);
    cbi_pack_fini(&d->large);
    if (d->stays) {
        (void)cbi_sys_close(d->folder.owner_fd);
        (void)cbi_sys_close(d->folder.fd);
    } else {
        cbi_private_folder_close(&d->folder, d->parent);
    }
    (void)cbi_sys_close(d->parent);
    cbi_free(d->path);
    *d = (cbi_disk){.parent = -1};
}

/** "spill.2a/0123...": the prefix is what the folder's remover knows as ours. */
static void path_of(const cbi_disk *d, const char *name, char path[CBI_DISK_PATH_BYTES]) {
    XXH128_hash_t h = XXH3_128bits(name, strlen(name));
    (void)snprintf(path, CBI_DISK_PATH_BYTES, "spill.%02x/%016" PRIx64 "%016" PRIx64,
                   (unsigned)(h.low64 % d->sub_folders), (uint64_t)h.high64, (uint64_t)h.low64);
}

static cb_status failed(const cbi_disk *d, cb_status status, int sys, const char *what,
                        const char *name, cb_error *err) {
    return cbi_fail_sys(err, status, sys, "block %s cannot be %s in the folder %s", name, what,
                        d->path);
}

uint64_t cbi_disk_seed(const char *name) {
    return XXH3_64bits(name, strlen(name));
}

uint64_t cbi_disk_sum(const void *stored, uint32_t bytes, uint32_t raw, uint64_t seed,
                      uint32_t frame) {
    uint64_t salt = seed + frame + ((uint64_t)raw << 32) + bytes;
    return bytes >= WIDE_BYTES_MIN && cbi_sys_cpu()->avx2
               ? cbi_disk_sum_avx2(stored, bytes, salt)
               : XXH3_64bits_withSeed(stored, bytes, salt);
}

void cbi_sum_add(XXH3_state_t *sum, const void *bytes, size_t count) {
    if (count >= WIDE_BYTES_MIN && cbi_sys_cpu()->avx2) {
        cbi_sum_add_avx2(sum, bytes, count);
    } else {
        (void)XXH3_64bits_update(sum, bytes, count);
    }
}

/* ---- stages: a frame raw, a frame packed, the codec's state ---- */

static size_t stage_size(cb_block_codec codec, bool sealed) {
    return codec == CB_BLOCK_CODEC_NONE && !sealed
               ? FRAME_BYTES
               : (size_t)FRAME_BYTES + PACKED_BYTES + LZ4_STATE + (sealed ? PACKED_BYTES : 0);
}

/** Where sealed frames lie in a stage. */
static uint8_t *sealed_part(uint8_t *stage) {
    return stage + FRAME_BYTES + PACKED_BYTES + LZ4_STATE;
}

static uint32_t tag_bytes(const cbi_disk *d) {
    return d->cipher != NULL ? CB_CIPHER_TAG_BYTES : 0;
}

static cb_status stage_new(const cbi_disk *d, size_t bytes, uint8_t **stage, cb_error *err) {
    *stage = cbi_sys_map(bytes);
    if (*stage == NULL) {
        return cbi_fail_bytes(
            err, CB_ENOMEM, bytes, 0,
            "The system refused %zu bytes for a block on its way from or to disk.", bytes);
    }
    atomic_fetch_add_explicit(&d->home->staging, (int64_t)bytes, memory_order_relaxed);
    return CB_OK;
}

/** One that can be done without: NULL when less than it is left of `most` bytes that were paid. */
static uint8_t *stage_spare(const cbi_disk *d, size_t bytes, int64_t most) {
    uint8_t *stage = NULL;
    if (d->home->staging_paid == 0) {
        (void)stage_new(d, bytes, &stage, NULL);
        return stage;
    }
    int64_t before =
        atomic_fetch_add_explicit(&d->home->staging, (int64_t)bytes, memory_order_relaxed);
    if (before + (int64_t)bytes <= most) {
        (void)stage_new(d, bytes, &stage, NULL);
    }
    atomic_fetch_sub_explicit(&d->home->staging, (int64_t)bytes, memory_order_relaxed);
    return stage;
}

/** A buffer for a large file; NULL where the system has none: then it goes through the page cache.
 */
uint8_t *cbi_disk_buffer(cbi_disk *d) {
    uint8_t *buffer = NULL;
    for (int i = 0; i < CBI_DISK_SPARES && buffer == NULL; i++) {
        buffer = atomic_exchange(&d->spare[i], NULL);
    }
    if (buffer == NULL) {
        buffer = stage_spare(d, CBI_DISK_OUT_BYTES, d->home->staging_paid / 2);
    }
    return buffer;
}

void cbi_disk_buffer_free(cbi_disk *d, uint8_t *buffer) {
    for (int i = 0; i < CBI_DISK_SPARES && buffer != NULL; i++) {
        uint8_t *none = NULL;
        if (atomic_compare_exchange_strong(&d->spare[i], &none, buffer)) {
            return;
        }
    }
    stage_free(d, buffer, CBI_DISK_OUT_BYTES);
}

static void *codec_alloc(void *ctx, size_t bytes) {
    (void)ctx;
    return cbi_alloc(bytes);
}

static void codec_free(void *ctx, void *piece) {
    (void)ctx;
    cbi_free(piece);
}

static const ZSTD_customMem codec_memory = {codec_alloc, codec_free, NULL};

/* ---- writing ---- */

static int create(const cbi_disk *d, const char *path) {
    const int flags = O_CREAT | O_TRUNC | O_RDWR | O_NOFOLLOW | O_CLOEXEC;
    int fd = cbi_sys_openat(d->folder.fd, path, flags, 0600);
    if (fd == -ENOENT) {
        char folder[CBI_DISK_PATH_BYTES];
        size_t bytes = (size_t)(strchr(path, '/') - path);
        memcpy(folder, path, bytes);
        folder[bytes] = '\0';
        int result = cbi_sys_mkdirat(d->folder.fd, folder, 0700);
        fd = result < 0 && result != -EEXIST ? result
                                             : cbi_sys_openat(d->folder.fd, path, flags, 0600);
    }
    return fd;
}

bool cbi_disk_reserve(cbi_disk *d, uint64_t bytes) {
    uint64_t used = atomic_load_explicit(&d->used, memory_order_relaxed);
    do {
        if (bytes > d->limit - used) {
            return false;
        }
    } while (!atomic_compare_exchange_weak(&d->used, &used, used + bytes));
    return true;
}

static cb_status reserve(cbi_disk_writer *w, uint64_t bytes, cb_error *err) {
    cbi_disk *d = w->disk;
    if (w->reserved + bytes > CBI_ON_DISK_BYTES_MAX || !cbi_disk_reserve(d, bytes)) {
        uint64_t used = atomic_load_explicit(&d->used, memory_order_relaxed);
        return cbi_fail_bytes(err, CB_ENOSPC, bytes, d->limit - used,
                              "Block %s does not fit on disk: the blocks in %s may take "
                              "%" PRIu64 " bytes and take %" PRIu64 ".",
                              w->name, d->path, d->limit, used);
    }
    w->reserved += bytes;
    return CB_OK;
}

enum { TEMPORARY_BYTES = CBI_DISK_PATH_BYTES + 16 };

static void temporary_of(const cbi_disk_writer *w, char temporary[TEMPORARY_BYTES]) {
    (void)snprintf(temporary, TEMPORARY_BYTES, "%s.%x.new", w->path, (unsigned)w->serial);
}

cb_status cbi_disk_writer_open(cbi_disk *d, const char *name, cbi_disk_writer *w, cb_error *err) {
    *w = (cbi_disk_writer){.disk = d, .name = name, .seed = cbi_disk_seed(name), .fd = -1};
    w->serial = atomic_fetch_add_explicit(&d->serials, 1, memory_order_relaxed);
    char temporary[TEMPORARY_BYTES];
    path_of(d, name, w->path);
    temporary_of(w, temporary);
    CB_TRY(reserve(w, HEADER_BYTES, err));
    w->fd = create(d, temporary);
    if (w->fd < 0) {
        return failed(d, CB_ENOSPC, w->fd, "begun", name, err);
    }
    w->offset = w->written_out = HEADER_BYTES;
    return d->cipher == NULL ? CB_OK
                             : d->cipher->begin(d->cipher->ctx, w->salt, true, &w->cipher, err);
}

/** A piece that compression makes no smaller is stored as it is: 0. */
static size_t pack(cbi_disk_writer *w, const void *bytes, size_t count) {
    char *to = (char *)w->stage + FRAME_BYTES;
    size_t packed = 0;
    if (w->disk->codec == CB_BLOCK_CODEC_LZ4) {
        int n =
            LZ4_compress_fast_extState(to + PACKED_BYTES, bytes, to, (int)count, PACKED_BYTES, 1);
        packed = n > 0 ? (size_t)n : 0;
    } else {
        w->zstd = w->zstd != NULL ? w->zstd : ZSTD_createCCtx_advanced(codec_memory);
        size_t n = w->zstd == NULL
                       ? 0
                       : ZSTD_compressCCtx(w->zstd, to, PACKED_BYTES, bytes, count, ZSTD_LEVEL);
        packed = ZSTD_isError(n) ? 0 : n;
    }
    return packed < count ? packed : 0;
}

static cb_status ensure_stage(cbi_disk_writer *w, cb_error *err) {
    if (w->stage == NULL) {
        w->stage_bytes = stage_size(w->disk->codec, w->cipher != NULL);
        CB_TRY(stage_new(w->disk, w->stage_bytes, &w->stage, err));
    }
    return CB_OK;
}

/** Header and payload of a frame to the file, or to the buffer of a large one. */
static int put_frame(cbi_disk_writer *w, const uint8_t header[FRAME_HEADER], const void *stored,
                     size_t stored_bytes) {
    static const uint8_t no_header[HEADER_BYTES];
    int result = 0;
    if (w->out.bytes == NULL) {
        struct iovec iov[2] = {{(void *)(uintptr_t)header, FRAME_HEADER},
                               {(void *)(uintptr_t)stored, stored_bytes}};
        return cbi_sys_pwritev(w->fd, iov, 2, w->offset);
    }
    if (w->frames == 0) {
        result = cbi_disk_out_add(&w->out, no_header, HEADER_BYTES);
    }
    if (result >= 0) {
        result = cbi_disk_out_add(&w->out, header, FRAME_HEADER);
    }
    return result < 0 ? result : cbi_disk_out_add(&w->out, stored, stored_bytes);
}

static cb_status write_frame(cbi_disk_writer *w, const void *bytes, size_t count, cb_error *err) {
    size_t packed = 0;
    if (w->frames == 0 && count == FRAME_BYTES && w->disk->direct) {
        uint8_t *buffer = cbi_disk_buffer(w->disk);
        if (buffer != NULL) {
            cbi_disk_out_begin(&w->out, w->fd, buffer);
        }
    }
    if (w->disk->codec != CB_BLOCK_CODEC_NONE && w->stage == NULL && w->cipher == NULL) {
        w->stage_bytes = stage_size(w->disk->codec, false);
        w->stage = stage_spare(w->disk, w->stage_bytes, w->disk->home->staging_paid);
    }
    if (w->disk->codec != CB_BLOCK_CODEC_NONE && (w->stage != NULL || w->cipher != NULL)) {
        CB_TRY(ensure_stage(w, err)); /* without memory for it now it is stored as it is */
        packed = pack(w, bytes, count);
    }
    const void *stored = packed > 0 ? w->stage + FRAME_BYTES : bytes;
    size_t stored_bytes = packed > 0 ? packed : count;
    uint8_t header[FRAME_HEADER];
    cbi_store_u32(header, (uint32_t)count);
    cbi_store_u32(header + 4, (uint32_t)stored_bytes + tag_bytes(w->disk));
    if (w->cipher != NULL) {
        CB_TRY(ensure_stage(w, err));
        uint8_t *sealed = sealed_part(w->stage);
        CB_TRY(w->disk->cipher->seal(w->cipher, w->frames, header, FRAME_HEADER_OPEN, stored,
                                     stored_bytes, sealed, err));
        stored = sealed;
        stored_bytes += CB_CIPHER_TAG_BYTES;
    }
    cbi_store_u64(header + 8, cbi_disk_sum(stored, (uint32_t)stored_bytes, (uint32_t)count, w->seed,
                                           w->frames));
    CB_TRY(reserve(w, FRAME_HEADER + stored_bytes, err));
    int result = put_frame(w, header, stored, stored_bytes);
    if (result < 0) {
        return failed(w->disk, CB_ENOSPC, result, "written", w->name, err);
    }
    w->offset += FRAME_HEADER + stored_bytes;
    w->raw += count;
    w->frames++;
    if (w->out.bytes == NULL && w->offset - w->written_out >= WRITE_OUT_BYTES) {
        cbi_sys_write_out(w->fd, w->written_out, w->offset - w->written_out);
        w->written_out = w->offset;
    }
    return CB_OK;
}

static cb_status flush_stage(cbi_disk_writer *w, cb_error *err) {
    size_t staged = w->staged;
    w->staged = 0;
    return staged > 0 ? write_frame(w, w->stage, staged, err) : CB_OK;
}

cb_status cbi_disk_append(cbi_disk_writer *w, const void *bytes, size_t count, cb_error *err) {
    const uint8_t *from = bytes;
    CB_TRY(ensure_stage(w, err));
    while (count > 0) {
        size_t part = cbi_min(count, FRAME_BYTES - w->staged);
        memcpy(w->stage + w->staged, from, part);
        w->staged += part;
        from += part;
        count -= part;
        if (w->staged == FRAME_BYTES) {
            CB_TRY(flush_stage(w, err));
        }
    }
    return CB_OK;
}

cb_status cbi_disk_append_run(cbi_disk_writer *w, const void *bytes, size_t count, cb_error *err) {
    const uint8_t *from = bytes;
    CB_TRY(flush_stage(w, err));
    while (count > 0) {
        size_t part = cbi_min(count, FRAME_BYTES);
        CB_TRY(write_frame(w, from, part, err));
        from += part;
        count -= part;
    }
    return CB_OK;
}

static void writer_end(cbi_disk_writer *w) {
    stage_free(w->disk, w->stage, w->stage_bytes);
    cbi_disk_buffer_free(w->disk, w->out.bytes);
    (void)ZSTD_freeCCtx(w->zstd);
    if (w->cipher != NULL) {
        w->disk->cipher->end(w->cipher);
    }
    if (w->fd >= 0) {
        (void)cbi_sys_close(w->fd);
    }
    *w = (cbi_disk_writer){.fd = -1};
}

cb_status cbi_disk_writer_settle(cbi_disk_writer *w, cb_level level, cb_error *err) {
    CB_TRY(flush_stage(w, err));
    uint8_t header[HEADER_BYTES] = {0};
    uint32_t pad = w->out.bytes != NULL ? cbi_disk_out_pad(&w->out) : 0;
    CB_TRY(reserve(w, pad, err));
    memcpy(header, magic, sizeof magic);
    cbi_store_u64(header + 8, w->raw);
    cbi_store_u64(header + 16, w->offset + pad);
    cbi_store_u32(header + HEADER_PAD, pad);
    cbi_store_u32(header + 24, w->frames);
    header[28] = (uint8_t)w->disk->codec;
    cb_level_encode(level, header + 30);
    memcpy(header + HEADER_NAME, w->name, strlen(w->name));
    if (w->cipher != NULL) {
        uint8_t tag[CB_CIPHER_TAG_BYTES];
        header[HEADER_SEALED] = 1;
        memcpy(header + HEADER_SALT, w->salt, sizeof w->salt);
        CB_TRY(w->disk->cipher->seal(w->cipher, UINT64_MAX, header, HEADER_SUM, "", 0, tag, err));
        memcpy(header + HEADER_TAG, tag, sizeof tag);
    }
    cbi_store_u64(header + HEADER_SUM, XXH3_64bits(header, HEADER_SUM));
    int result = w->out.bytes != NULL ? cbi_disk_out_end(&w->out, header, HEADER_BYTES)
                                      : cbi_sys_pwrite(w->fd, header, HEADER_BYTES, 0);
    if (result < 0) {
        return failed(w->disk, CB_ENOSPC, result, "finished", w->name, err);
    }
    w->offset += pad;
    w->settled = true;
    return CB_OK;
}

cb_status cbi_disk_writer_finish(cbi_disk_writer *w, cb_level level, cbi_on_disk *on_disk,
                                 cb_error *err) {
    if (!w->settled) {
        CB_TRY(cbi_disk_writer_settle(w, level, err));
    }
    char temporary[TEMPORARY_BYTES];
    temporary_of(w, temporary);
    int result = cbi_sys_renameat(w->disk->folder.fd, temporary, w->disk->folder.fd, w->path);
    if (result < 0) {
        return failed(w->disk, CB_ENOSPC, result, "finished", w->name, err);
    }
    *on_disk = cbi_on_disk_at(w->offset, 0);
    writer_end(w);
    return CB_OK;
}

void cbi_disk_writer_cancel(cbi_disk_writer *w) {
    if (w->disk == NULL) {
        return;
    }
    if (w->fd >= 0) {
        char temporary[TEMPORARY_BYTES];
        temporary_of(w, temporary);
        (void)cbi_sys_unlinkat(w->disk->folder.fd, temporary, 0);
    }
    atomic_fetch_sub(&w->disk->used, w->reserved);
    writer_end(w);
}

void cbi_disk_remove(cbi_disk *d, const char *name, cbi_on_disk on_disk) {
    uint64_t taken = on_disk.bytes;
    if (on_disk.place != 0) {
        taken = cbi_disk_unpack(d, on_disk);
    } else {
        char path[CBI_DISK_PATH_BYTES];
        path_of(d, name, path);
        (void)cbi_sys_unlinkat(d->folder.fd, path, 0);
    }
    atomic_fetch_sub(&d->used, taken);
}

/* ---- what is kept, and what is not ---- */

cb_status cbi_disk_settle(cbi_disk *d, const char *name, cb_error *err) {
    char path[CBI_DISK_PATH_BYTES];
    path_of(d, name, path);
    int fd = cbi_sys_openat(d->folder.fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
    int result = fd < 0 ? fd : cbi_sys_fsync(fd);
    if (fd >= 0) {
        (void)cbi_sys_close(fd);
    }
    if (result >= 0) {
        *strchr(path, '/') = '\0';
        fd = cbi_sys_openat(d->folder.fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
        result = fd < 0 ? fd : cbi_sys_fsync(fd);
        if (fd >= 0) {
            (void)cbi_sys_close(fd);
        }
    }
    if (result >= 0) {
        result = cbi_sys_fsync(d->folder.fd);
    }
    return result < 0 ? failed(d, CB_EIO, result, "synced", name, err) : CB_OK;
}

typedef struct sweep {
    cbi_disk *disk;
    cbi_disk_stays_fn stays;
    void *ctx;
    int fd; /* of the sub-folder */
    char folder[CBI_DISK_PATH_BYTES / 2];
} sweep;

/** Whether it is the finished file of a block that stays. One that cannot be looked at now does: it
 *  may be, and the next start looks again. */
static bool file_stays(const sweep *s, const char *file) {
    uint8_t header[HEADER_BYTES];
    char path[CBI_DISK_PATH_BYTES], found[CBI_DISK_PATH_BYTES];
    int fd = cbi_sys_openat(s->fd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
    ssize_t got = fd >= 0 ? cbi_sys_pread(fd, header, HEADER_BYTES, 0) : fd;
    bool valid =
        got == HEADER_BYTES && memchr(header + HEADER_NAME, '\0', HEADER_SUM - HEADER_NAME) != NULL;
    if (fd >= 0) {
        (void)cbi_sys_close(fd);
    }
    if (got < 0) {
        return true;
    }
    if (!valid || snprintf(found, sizeof found, "%s/%s", s->folder, file) >= (int)sizeof found) {
        return false;
    }
    path_of(s->disk, (const char *)header + HEADER_NAME, path);
    return strcmp(path, found) == 0 && s->stays(s->ctx, (const char *)header + HEADER_NAME);
}

static void sweep_file(void *ctx, const char *name) {
    const sweep *s = ctx;
    if (!file_stays(s, name)) {
        (void)cbi_sys_unlinkat(s->fd, name, 0);
    }
}

static void sweep_folder(void *ctx, const char *name) {
    sweep *s = ctx;
    if (strncmp(name, "spill.", strlen("spill.")) != 0 || strlen(name) >= sizeof s->folder) {
        return;
    }
    s->fd = cbi_sys_openat(s->disk->folder.fd, name,
                           O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (s->fd >= 0) {
        (void)snprintf(s->folder, sizeof s->folder, "%s", name);
        (void)cbi_sys_list(s->fd, sweep_file, s);
        (void)cbi_sys_close(s->fd);
    }
}

void cbi_disk_sweep(cbi_disk *d, cbi_disk_stays_fn stays, void *ctx) {
    sweep s = {.disk = d, .stays = stays, .ctx = ctx, .fd = -1};
    (void)cbi_sys_list(d->folder.fd, sweep_folder, &s);
}

/* ---- reading ---- */

/** Descriptors and memory come back; what else the system says tells of the file. */
static cb_status unread(const cbi_disk_reader *r, int sys, const char *what, cb_error *err) {
    bool short_of = sys == -EMFILE || sys == -ENFILE || sys == -ENOMEM;
    return failed(r->disk, short_of ? CB_ENOMEM : CB_EIO, sys, what, r->name, err);
}

static cb_status corrupt(const cbi_disk_reader *r, const char *what, cb_error *err) {
    char path[CBI_DISK_PATH_BYTES] = "(pack)";
    if (!r->packed) {
        path_of(r->disk, r->name, path);
    }
    return cbi_fail(err, CB_ECORRUPT,
                    "Block %s: its file %s/%s/%s %s, at byte %" PRIu64
                    ". It was changed or damaged after it was written.",
                    r->name, r->disk->path, r->disk->folder.name, path, what, r->offset);
}

/** Whether the header vouches for itself. */
static cb_status open_seal(cbi_disk_reader *r, uint8_t header[HEADER_BYTES], cb_error *err) {
    const cb_cipher *c = r->disk->cipher;
    if ((header[HEADER_SEALED] != 0) != (c != NULL)) {
        return corrupt(r, c != NULL ? "is not sealed" : "is sealed, and there is no key", err);
    }
    if (c == NULL) {
        return CB_OK;
    }
    uint8_t tag[CB_CIPHER_TAG_BYTES], nothing[1];
    CB_TRY(c->begin(c->ctx, header + HEADER_SALT, false, &r->cipher, err));
    memcpy(tag, header + HEADER_TAG, sizeof tag);
    memset(header + HEADER_TAG, 0, sizeof tag);
    cb_status status = c->open(r->cipher, UINT64_MAX, header, HEADER_SUM, tag, 0, nothing, err);
    return status == CB_ECORRUPT ? corrupt(r, "has a header that was changed, or another key", err)
                                 : status;
}

/** Whether the file ends with `pad` zeros, and nothing else. */
static cb_status check_pad(cbi_disk_reader *r, uint32_t pad, cb_error *err) {
    uint8_t end[CBI_DISK_OUT_ALIGN];
    if (pad == 0) {
        return CB_OK;
    }
    if (pad >= sizeof end || pad > r->file_bytes) {
        return corrupt(r, "has an end that cannot be", err);
    }
    ssize_t got = cbi_sys_pread(r->fd, end, sizeof end, r->file_bytes - pad);
    if (got < 0) {
        return unread(r, (int)got, "read", err);
    }
    uint8_t sum = 0;
    for (ssize_t i = 0; i < got; i++) {
        sum |= end[i];
    }
    return got == (ssize_t)pad && sum == 0 ? CB_OK : corrupt(r, "has a changed end", err);
}

static cb_status check_header(cbi_disk_reader *r, cb_error *err) {
    uint8_t header[HEADER_BYTES];
    ssize_t got = cbi_sys_pread(r->fd, header, HEADER_BYTES, 0);
    if (got < 0) {
        return unread(r, (int)got, "read", err);
    }
    if (got < HEADER_BYTES || memcmp(header, magic, sizeof magic) != 0 ||
        cbi_load_u64(header + HEADER_SUM) != XXH3_64bits(header, HEADER_SUM)) {
        return corrupt(r, "has no valid header", err);
    }
    if (strncmp((const char *)header + HEADER_NAME, r->name, HEADER_SUM - HEADER_NAME) != 0) {
        return corrupt(r, "is that of another block", err);
    }
    if (header[28] > CB_BLOCK_CODEC_ZSTD) {
        return corrupt(r, "has a codec that cannot be", err);
    }
    r->codec = (cb_block_codec)header[28];
    r->raw_bytes = cbi_load_u64(header + 8);
    r->file_bytes = cbi_load_u64(header + 16);
    r->offset = HEADER_BYTES;
    CB_TRY(check_pad(r, cbi_load_u32(header + HEADER_PAD), err));
    return open_seal(r, header, err);
}

cb_status cbi_disk_reader_open(cbi_disk *d, const char *name, cbi_on_disk on_disk,
                               cbi_disk_reader *r, cb_error *err) {
    *r = (cbi_disk_reader){.disk = d, .name = name, .seed = cbi_disk_seed(name), .fd = -1};
    if (on_disk.place != 0) {
        cbi_disk_pack_reader(r, on_disk);
        return CB_OK;
    }
    char path[CBI_DISK_PATH_BYTES];
    path_of(d, name, path);
    r->fd = cbi_sys_openat(d->folder.fd, path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (r->fd < 0) {
        return unread(r, r->fd, "found", err);
    }
    cb_status status = check_header(r, err);
    if (status != CB_OK) {
        cbi_disk_reader_close(r);
    }
    return status;
}

static bool unpack(cbi_disk_reader *r, const uint8_t *from, uint32_t stored, uint8_t *to,
                   uint32_t raw) {
    if (r->codec == CB_BLOCK_CODEC_LZ4) {
        return LZ4_decompress_safe((const char *)from, (char *)to, (int)stored, (int)raw) ==
               (int)raw;
    }
    return ZSTD_decompressDCtx(r->zstd, to, raw, from, stored) == raw;
}

/** The next frame's payload to `to`, which has room for `raw` bytes. */
static cb_status read_frame(cbi_disk_reader *r, const uint8_t header[FRAME_HEADER], uint8_t *to,
                            cb_error *err) {
    uint32_t raw = cbi_load_u32(header), stored = cbi_load_u32(header + 4);
    uint32_t inner = stored - tag_bytes(r->disk);
    cb_assert(to != NULL && (stored == raw || r->stage != NULL)); /* frame_header saw to that */
    uint8_t *plain = inner < raw ? r->stage + FRAME_BYTES : to;
    uint8_t *from = r->cipher != NULL ? sealed_part(r->stage) : plain;
    ssize_t got = cbi_sys_pread(r->fd, from, stored, r->offset + FRAME_HEADER);
    if (got < 0) {
        return unread(r, (int)got, "read", err);
    }
    if ((size_t)got < stored ||
        cbi_load_u64(header + 8) != cbi_disk_sum(from, stored, raw, r->seed, r->frames)) {
        return corrupt(r, "does not match its checksum", err);
    }
    if (r->cipher != NULL) {
        cb_status status = r->disk->cipher->open(r->cipher, r->frames, header, FRAME_HEADER_OPEN,
                                                 from, inner, plain, err);
        if (status != CB_OK) {
            return status == CB_ECORRUPT ? corrupt(r, "was tampered with", err) : status;
        }
    }
    if (inner < raw && r->codec == CB_BLOCK_CODEC_ZSTD && r->zstd == NULL) {
        r->zstd = ZSTD_createDCtx_advanced(codec_memory);
        if (r->zstd == NULL) {
            return cbi_fail(err, CB_ENOMEM, "The system has no memory to decompress block %s.",
                            r->name);
        }
    }
    if (inner < raw && !unpack(r, plain, inner, to, raw)) {
        return corrupt(r, "cannot be decompressed", err);
    }
    r->offset += FRAME_HEADER + stored;
    r->read += raw;
    r->frames++;
    return CB_OK;
}

static cb_status frame_header(cbi_disk_reader *r, uint8_t header[FRAME_HEADER], cb_error *err) {
    ssize_t got = cbi_sys_pread(r->fd, header, FRAME_HEADER, r->offset);
    if (got < 0) {
        return unread(r, (int)got, "read", err);
    }
    uint32_t raw = cbi_load_u32(header), stored = cbi_load_u32(header + 4);
    uint32_t tag = tag_bytes(r->disk), inner = stored - tag;
    if (got < FRAME_HEADER || raw == 0 || raw > FRAME_BYTES || stored <= tag || inner > raw ||
        raw > r->raw_bytes - r->read || (inner < raw && r->codec == CB_BLOCK_CODEC_NONE)) {
        return corrupt(r, "has a frame that cannot be", err);
    }
    return CB_OK;
}

static cb_status read_packed(cbi_disk_reader *r, void *bytes, size_t count, cb_error *err) {
    int result = cbi_disk_pack_read(r, bytes, count);
    return result == 0  ? CB_OK
           : result < 0 ? unread(r, result, "read", err)
                        : corrupt(r, "does not match its checksum", err);
}

/** The next frame, to the stage. */
static cb_status fill_stage(cbi_disk_reader *r, const uint8_t header[FRAME_HEADER], uint32_t raw,
                            cb_error *err) {
    r->at = 0;
    r->filled = 0;
    if (r->large) {
        CB_TRY(read_packed(r, r->stage, raw, err));
    } else {
        CB_TRY(read_frame(r, header, r->stage, err));
    }
    r->filled = raw;
    return CB_OK;
}

cb_status cbi_disk_read(cbi_disk_reader *r, void *bytes, size_t count, size_t *got, cb_error *err) {
    if (r->at == r->filled) {
        uint8_t header[FRAME_HEADER];
        if (r->read == r->raw_bytes) {
            return CB_EEND;
        }
        size_t fits =
            r->packed && (r->large || r->read == 0) ? cbi_disk_pack_fits(r, bytes, count) : 0;
        if (fits > 0) {
            CB_TRY(read_packed(r, bytes, fits, err));
            *got = fits;
            return CB_OK;
        }
        uint32_t raw = (uint32_t)cbi_min(r->raw_bytes - r->read, FRAME_BYTES);
        if (!r->large) {
            CB_TRY(frame_header(r, header, err));
            raw = cbi_load_u32(header);
        }
        bool straight = raw <= count && !r->large;
        if (r->stage == NULL &&
            (!straight || r->codec != CB_BLOCK_CODEC_NONE || r->cipher != NULL)) {
            r->stage_bytes = stage_size(r->codec, r->cipher != NULL);
            CB_TRY(stage_new(r->disk, r->stage_bytes, &r->stage, err));
        }
        if (straight) {
            CB_TRY(read_frame(r, header, bytes, err));
            *got = raw;
            return CB_OK;
        }
        CB_TRY(fill_stage(r, header, raw, err));
    }
    size_t part = cbi_min(count, r->filled - r->at);
    memcpy(bytes, r->stage + r->at, part);
    r->at += part;
    *got = part;
    return CB_OK;
}

void cbi_disk_reader_close(cbi_disk_reader *r) {
    if (r->disk == NULL) {
        return;
    }
    stage_free(r->disk, r->stage, r->stage_bytes);
    if (r->disk->direct && !r->packed &&
        r->offset >= FRAME_BYTES) { /* read once, like it was written */
        (void)cbi_sys_fadvise(r->fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    (void)ZSTD_freeDCtx(r->zstd);
    if (r->cipher != NULL) {
        r->disk->cipher->end(r->cipher);
    }
    if (r->fd >= 0 && !r->packed) {
        (void)cbi_sys_close(r->fd);
    }
    *r = (cbi_disk_reader){.fd = -1};
}
