/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_DISK_H
#define CBI_DISK_H

#include "spill/reclaim.h"
#include "store/contents.h"
#include "store/disk_out.h"
#include "store/index.h"
#include "store/pack.h"

/*
 * Blocks on disk: a file each, below a folder that goes with the store or with the next one when
 * this process dies. See the essay in disk.c. Any thread; a writer or reader is one thread's. The
 * caller sees to it that a name has one writer and that nobody reads what is being removed.
 */

enum { CBI_DISK_PATH_BYTES = 64, CBI_DISK_SPARES = 3 };

typedef struct cbi_disk {
    int parent; /* the folder given; -1: there is no disk */
    char *path;
    cbi_private_folder folder;
    bool named; /* the folder has a name of its own, and was there before, perhaps */
    bool stays; /* and is there afterwards */
    uint32_t sub_folders;
    cb_block_codec codec;
    const cb_cipher *cipher; /* NULL: none */
    uint64_t limit;          /* UINT64_MAX: none */
    cbi_home *home;
    bool direct;          /* large files go past the page cache */
    cbi_pack pack, large; /* small blocks, and larger ones, if these files are there */
    _Atomic(uint8_t *) spare[CBI_DISK_SPARES]; /* buffers of writers that have ended */
    _Atomic uint64_t used;                     /* bytes of files, or promised to writers */
    _Atomic uint32_t serials;
} cbi_disk;

/** options->folder NULL: a disk that is not there. CB_EIO, CB_EINVAL, CB_ENOMEM. */
cb_status cbi_disk_init(cbi_disk *disk, const cb_blocks_options *options, cbi_home *home,
                        cb_error *err);
/** Removes everything, but what stays. Zeroed is fine. */
void cbi_disk_fini(cbi_disk *disk);
static inline bool cbi_disk_there(const cbi_disk *disk) {
    return disk->path != NULL;
}

typedef struct cbi_disk_writer {
    cbi_disk *disk;
    const char *name;
    char path[CBI_DISK_PATH_BYTES];
    uint64_t seed;
    int fd;
    bool settled;
    uint64_t raw, offset, reserved, written_out;
    uint32_t serial; /* tells writers of one name apart, of which one may finish */
    uint32_t frames;
    uint8_t *stage; /* NULL until it is needed */
    size_t stage_bytes, staged;
    cbi_disk_out out; /* of a large file */
    void *zstd, *cipher;
    uint8_t salt[CB_CIPHER_SALT_BYTES];
} cbi_disk_writer;

/** Begins a block's file under a name that is not its last one, and nobody else's. `name` is
 *  borrowed. On any failure of these: cbi_disk_writer_cancel. */
cb_status cbi_disk_writer_open(cbi_disk *disk, const char *name, cbi_disk_writer *writer,
                               cb_error *err);
/** Collects small pieces. */
cb_status cbi_disk_append(cbi_disk_writer *writer, const void *bytes, size_t count, cb_error *err);
/** A long run, straight from where it is. */
cb_status cbi_disk_append_run(cbi_disk_writer *writer, const void *bytes, size_t count,
                              cb_error *err);
/** All of it is written, and nothing but its name is missing. */
cb_status cbi_disk_writer_settle(cbi_disk_writer *writer, cb_level level, cb_error *err);
/** Settled if it was not, and it has its name; *on_disk is what it takes. */
cb_status cbi_disk_writer_finish(cbi_disk_writer *writer, cb_level level, cbi_on_disk *on_disk,
                                 cb_error *err);
/** Nothing is left of it. After finish it does nothing. */
void cbi_disk_writer_cancel(cbi_disk_writer *writer);

/** A block whose bytes are in one run goes to the pack. false: it is none for it, or that failed,
 *  and it may have a file. */
bool cbi_disk_pack(cbi_disk *disk, const char *name, const void *bytes, size_t count,
                   cbi_on_disk *on_disk);

typedef struct cbi_disk_reader {
    cbi_disk *disk;
    const char *name;
    uint64_t seed;
    int fd;
    bool packed, large; /* the fd is a pack's, */
    uint32_t place;     /* and where it lies there */
    uint64_t raw_bytes; /* of the block */
    uint64_t file_bytes;
    cb_block_codec codec; /* of the file */
    uint64_t read, offset;
    uint32_t frames;
    uint8_t *stage;
    size_t stage_bytes, at, filled; /* of the decoded frame */
    void *zstd, *cipher;
} cbi_disk_reader;

/** CB_EIO, CB_ECORRUPT: there is no such block there. */
cb_status cbi_disk_reader_open(cbi_disk *disk, const char *name, cbi_on_disk on_disk,
                               cbi_disk_reader *reader, cb_error *err);
/** At least one byte, verified, or CB_EEND. */
cb_status cbi_disk_read(cbi_disk_reader *reader, void *bytes, size_t count, size_t *got,
                        cb_error *err);
void cbi_disk_reader_close(cbi_disk_reader *reader);

/** The block's file and its name are on disk. CB_EIO. */
cb_status cbi_disk_settle(cbi_disk *disk, const char *name, cb_error *err);

/** Removes the files of all blocks but those that `stays` names, and what was never finished. */
typedef bool (*cbi_disk_stays_fn)(void *ctx, const char *name);
void cbi_disk_sweep(cbi_disk *disk, cbi_disk_stays_fn stays, void *ctx);

void cbi_disk_remove(cbi_disk *disk, const char *name, cbi_on_disk on_disk);

/** Of a frame as it is stored, with who it belongs to. */
uint64_t cbi_disk_sum(const void *stored, uint32_t bytes, uint32_t raw, uint64_t seed,
                      uint32_t frame);
uint64_t cbi_disk_seed(const char *name);
/** sum_avx2.c: XXH3, the same as everywhere. */
uint64_t cbi_disk_sum_avx2(const void *stored, size_t bytes, uint64_t seed);

/* ---- disk_pack.c, for disk.c ---- */

void cbi_disk_pack_open(cbi_disk *disk);
void cbi_disk_pack_reader(cbi_disk_reader *reader, cbi_on_disk on_disk);
/** How much of a packed block can be read straight there at once; 0: not even a frame. */
size_t cbi_disk_pack_fits(const cbi_disk_reader *reader, const void *bytes, size_t count);
/** So much, verified; -errno, or 1: it is not what was written. */
int cbi_disk_pack_read(cbi_disk_reader *reader, void *bytes, size_t count);
/** The place is anybody's; answers what it took. */
uint64_t cbi_disk_unpack(cbi_disk *disk, cbi_on_disk on_disk);
/** CBI_DISK_OUT_BYTES of whole pages; NULL where there are none to spare. */
uint8_t *cbi_disk_buffer(cbi_disk *disk);
void cbi_disk_buffer_free(cbi_disk *disk, uint8_t *buffer);
bool cbi_disk_reserve(cbi_disk *disk, uint64_t bytes);

#endif
