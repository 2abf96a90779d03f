/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The manifest: which blocks outlive the process, and nothing else.
 *
 *     record   512 bytes: magic, kind, level, bytes of the block's file, the name, generation and
 *              checksum of the block (zero in what older versions wrote), a checksum that is seeded
 *              with the record's number
 *
 * A block is kept in this order: its file is synced, then its folder, then the record is appended
 * and synced. Only then does the caller hear of it. A kept block that is removed goes the other way
 * round: the record first, the file after. So at any moment, and at any place where the process or
 * the machine stops, what the manifest names is on disk, whole; what it does not name is nobody's.
 *
 * Records are as long as a disk's sector and lie at multiples of it: none is torn by a disk, and
 * one that is bad says nothing about the next. The last may be bad, since it was being written; any
 * other one that is bad was damaged later, which is told.
 *
 * When most records are about blocks that are gone the rest is written to a new file, which takes
 * the old one's place when it is on disk.
 */
#define XXH_INLINE_ALL
#include "store/manifest.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

#include "base/alloc.h"
#include "base/sys.h"

enum { KIND = 8, NAME_BYTES = 9, LEVEL = 10, FILE_BYTES = 16, NAME = 32 };
enum { GENERATION = NAME + CB_BLOCK_NAME_MAX + 1, CHECKSUM = GENERATION + 8 };
enum { SUM = CBI_MANIFEST_RECORD - 8, KEPT = 1, REMOVED = 2 };

static const char magic[8] = {'C', 'B', 'K', 'E', 'P', 'T', '0', '1'};
static const char file_name[] = "spill.manifest", new_name[] = "spill.manifest.new";

static_assert(CHECKSUM + 8 <= SUM, "the longest name fits a record");

/* ---- records ---- */

void cbi_manifest_record(const cbi_kept *k, uint64_t number, uint8_t r[CBI_MANIFEST_RECORD]) {
    size_t bytes = strlen(k->name);
    memset(r, 0, CBI_MANIFEST_RECORD);
    memcpy(r, magic, sizeof magic);
    r[KIND] = k->removed ? REMOVED : KEPT;
    r[NAME_BYTES] = (uint8_t)bytes;
    cb_level_encode(k->level, r + LEVEL);
    cbi_store_u64(r + FILE_BYTES, k->file_bytes);
    memcpy(r + NAME, k->name, bytes);
    cbi_store_u64(r + GENERATION, k->generation);
    cbi_store_u64(r + CHECKSUM, k->checksum);
    cbi_store_u64(r + SUM, XXH3_64bits_withSeed(r, SUM, number));
}

static bool read_record(const uint8_t *r, uint64_t number, cbi_kept *k) {
    size_t bytes = r[NAME_BYTES];
    if (memcmp(r, magic, sizeof magic) != 0 ||
        cbi_load_u64(r + SUM) != XXH3_64bits_withSeed(r, SUM, number) ||
        (r[KIND] != KEPT && r[KIND] != REMOVED) || bytes == 0 || bytes > CB_BLOCK_NAME_MAX ||
        memchr(r + NAME, '\0', bytes) != NULL ||
        cb_level_decode(r + LEVEL, &k->level, NULL) != CB_OK) {
        return false;
    }
    k->removed = r[KIND] == REMOVED;
    k->file_bytes = cbi_load_u64(r + FILE_BYTES);
    k->generation = cbi_load_u64(r + GENERATION);
    k->checksum = cbi_load_u64(r + CHECKSUM);
    memcpy(k->name, r + NAME, bytes);
    k->name[bytes] = '\0';
    return true;
}

bool cbi_manifest_parse(const uint8_t *bytes, size_t count, uint64_t first, cbi_kept_fn fn,
                        void *ctx, uint64_t *damaged) {
    cbi_kept kept;
    uint64_t bad = 0; /* since the last good one */
    for (size_t at = 0; at + CBI_MANIFEST_RECORD <= count; at += CBI_MANIFEST_RECORD) {
        if (!read_record(bytes + at, first + at / CBI_MANIFEST_RECORD, &kept)) {
            bad++;
            continue;
        }
        *damaged += bad;
        bad = 0;
        if (!fn(ctx, &kept)) {
            return false;
        }
    }
    *damaged += bad > 1 ? bad - 1 : 0;
    return true;
}

/* ---- the file ---- */

static cb_status failed(cb_status status, int result, const char *what, cb_error *err) {
    return cbi_fail_sys(err, status, result,
                        "the manifest of the blocks that are kept cannot be %s", what);
}

cb_status cbi_manifest_read(int folder, cbi_kept_fn fn, void *ctx, uint64_t *damaged,
                            cb_error *err) {
    int fd = cbi_sys_openat(folder, file_name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (fd == -ENOENT) {
        return CB_OK;
    }
    if (fd < 0) {
        return failed(CB_EIO, fd, "opened", err);
    }
    struct stat st;
    int result = cbi_sys_fstat(fd, &st);
    uint64_t size = result >= 0 ? (uint64_t)st.st_size : 0;
    uint8_t *bytes = cbi_alloc(cbi_max(size, CBI_MANIFEST_RECORD));
    cb_status status = CB_OK;
    if (bytes == NULL) {
        status = cbi_fail(err, CB_ENOMEM, "The system has no memory to read a manifest.");
    } else {
        ssize_t got = result >= 0 ? cbi_sys_pread(fd, bytes, size, 0) : result;
        if (got < 0) {
            status = failed(CB_EIO, (int)got, "read", err);
        } else if (!cbi_manifest_parse(bytes, (size_t)got, 0, fn, ctx, damaged)) {
            status = CB_EINTERNAL;
        }
    }
    cbi_free(bytes);
    (void)cbi_sys_close(fd);
    return status;
}

static int write_all(int fd, cbi_manifest_next_fn next, void *ctx, uint64_t *records) {
    uint8_t batch[8 * CBI_MANIFEST_RECORD];
    cbi_kept kept;
    size_t filled = 0;
    uint64_t written = 0;
    int result = 0;
    bool more = true;
    *records = 0;
    while (more && result >= 0) {
        more = next(ctx, &kept);
        if (more) {
            cbi_manifest_record(&kept, *records, batch + filled);
            filled += CBI_MANIFEST_RECORD;
            ++*records;
        }
        if (filled > 0 && (!more || filled == sizeof batch)) {
            result = cbi_sys_pwrite(fd, batch, filled, written);
            written += filled;
            filled = 0;
        }
    }
    return result < 0 ? result : cbi_sys_fsync(fd);
}

cb_status cbi_manifest_rewrite(cbi_manifest *m, int folder, cbi_manifest_next_fn next, void *ctx,
                               cb_error *err) {
    uint64_t records = 0;
    int fd =
        cbi_sys_openat(folder, new_name, O_CREAT | O_TRUNC | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return failed(CB_ENOSPC, fd, "begun", err);
    }
    int result = write_all(fd, next, ctx, &records);
    if (result >= 0) {
        result = cbi_sys_renameat(folder, new_name, folder, file_name);
    }
    if (result < 0) {
        (void)cbi_sys_close(fd);
        (void)cbi_sys_unlinkat(folder, new_name, 0);
        return failed(CB_ENOSPC, result, "written", err);
    }
    if (m->fd >= 0) {
        (void)cbi_sys_close(m->fd);
    }
    *m = (cbi_manifest){.folder = folder, .fd = fd, .records = records, .live = records};
    result = cbi_sys_fsync(folder);
    return result < 0 ? failed(CB_EIO, result, "synced", err) : CB_OK;
}

cb_status cbi_manifest_append(cbi_manifest *m, const cbi_kept *kept, cb_error *err) {
    uint8_t record[CBI_MANIFEST_RECORD];
    cbi_manifest_record(kept, m->records, record);
    int result = cbi_sys_pwrite(m->fd, record, sizeof record, m->records * CBI_MANIFEST_RECORD);
    if (result >= 0) {
        result = cbi_sys_fdatasync(m->fd);
    }
    if (result < 0) { /* the next one goes to the same place */
        return failed(CB_ENOSPC, result, "written", err);
    }
    m->records++;
    m->live = kept->removed ? m->live - 1 : m->live + 1;
    return CB_OK;
}

void cbi_manifest_close(cbi_manifest *m) {
    if (m->fd >= 0) {
        (void)cbi_sys_close(m->fd);
    }
    *m = (cbi_manifest){.fd = -1};
}
