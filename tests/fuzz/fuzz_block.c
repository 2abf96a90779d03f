/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes are the file of a block: what is read from it is what was written, or an error. The
 * first byte says how the file was made and what becomes of the rest: a block of ours with some of
 * its bytes changed, or all of it made up, with checksums that fit, so that what lies behind them
 * is reached too.
 */
#define XXH_INLINE_ALL
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/sys.h"
#include "store/disk.h"

enum { HEADER = 512, SUM = HEADER - 8, FRAME = 16, ROOM = 600 * 1024, OURS = 70 * 1024 };

static const char name[] = "rdd_1_2";

typedef struct place {
    cbi_home home;
    cb_manager *manager;
    cbi_disk disks[3]; /* by codec */
    char folder[64], path[192];
} place;

static place *the_place(void) {
    static place p;
    if (p.manager != NULL) {
        return &p;
    }
    const cb_manager_options m = cb_manager_options_native((uint64_t)64 << 20);
    cb_assert(cb_manager_create(&m, &p.manager, NULL) == CB_OK);
    (void)snprintf(p.folder, sizeof p.folder, "/tmp/carbide-fuzz.XXXXXX");
    cb_assert(mkdtemp(p.folder) != NULL);
    p.home.manager = p.manager;
    for (int i = 0; i < 3; i++) {
        const cb_blocks_options o = {.struct_size = sizeof o,
                                     .manager = p.manager,
                                     .folder = p.folder,
                                     .sub_folders = 1,
                                     .codec = (cb_block_codec)i};
        cb_assert(cbi_disk_init(&p.disks[i], &o, &p.home, NULL) == CB_OK);
    }
    return &p;
}

static void leave(void) {
    place *p = the_place();
    for (int i = 0; i < 3; i++) {
        cbi_disk_fini(&p->disks[i]);
    }
    (void)rmdir(p->folder);
    cb_manager_destroy(p->manager);
}

static void write_ours(cbi_disk *d, const uint8_t *data, size_t bytes, cbi_on_disk *on_disk) {
    cbi_disk_writer w = {0};
    cb_assert(cbi_disk_writer_open(d, name, &w, NULL) == CB_OK);
    cb_assert(cbi_disk_append_run(&w, data, bytes, NULL) == CB_OK);
    cb_assert(cbi_disk_writer_finish(&w, CB_LEVEL_DISK_ONLY, on_disk, NULL) == CB_OK);
    cbi_disk_writer_cancel(&w);
}

/** The file of the block, opened beside the store. */
static int open_file(const cbi_disk *d) {
    XXH128_hash_t h = XXH3_128bits(name, strlen(name));
    char path[CBI_DISK_PATH_BYTES];
    (void)snprintf(path, sizeof path, "spill.00/%016llx%016llx", (unsigned long long)h.high64,
                   (unsigned long long)h.low64);
    int fd = openat(d->folder.fd, path, O_RDWR | O_CLOEXEC);
    cb_assert(fd >= 0);
    return fd;
}

/** Reads all of it, in pieces of that size; answers what it was. */
static cb_status read_all(cbi_disk *d, cbi_on_disk on_disk, uint8_t *to, size_t piece,
                          size_t *bytes) {
    cbi_disk_reader r;
    cb_status status = cbi_disk_reader_open(d, name, on_disk, &r, NULL);
    if (status != CB_OK) {
        return status;
    }
    *bytes = 0;
    while (status == CB_OK) {
        size_t got = 0;
        status = cbi_disk_read(&r, to, piece, &got, NULL);
        cb_assert(status != CB_OK || (got > 0 && got <= piece));
        *bytes += status == CB_OK ? got : 0;
        to += status == CB_OK && *bytes + piece <= ROOM ? got : 0;
    }
    cbi_disk_reader_close(&r);
    return status;
}

/** Checksums of header and frames are made to fit whatever stands there. */
static void make_fit(uint8_t *file, size_t bytes) {
    static const char magic[8] = {'C', 'B', 'B', 'L', 'O', 'C', 'K', '2'};
    uint64_t seed = XXH3_64bits(name, strlen(name));
    if (bytes < HEADER) {
        return;
    }
    memcpy(file, magic, sizeof magic);
    memset(file + 64, 0, 256);
    memcpy(file + 64, name, sizeof name);
    cbi_store_u64(file + SUM, XXH3_64bits(file, SUM));
    uint32_t number = 0;
    for (size_t at = HEADER; at + FRAME <= bytes; number++) {
        uint32_t raw = cbi_load_u32(file + at), stored = cbi_load_u32(file + at + 4);
        if (stored > bytes - at - FRAME) {
            break;
        }
        uint64_t salt = seed + number + ((uint64_t)raw << 32) + stored;
        cbi_store_u64(file + at + 8, XXH3_64bits_withSeed(file + at + FRAME, stored, salt));
        at += FRAME + stored;
    }
}

/** Bytes of `data` at odd places change ours: what is read is as it was, or nothing. */
static void check_changed(cbi_disk *d, const uint8_t *data, size_t size) {
    static uint8_t ours[OURS], seen[ROOM];
    cbi_on_disk on_disk = {0};
    size_t count = size * 997 % OURS + 1, bytes = 0;
    for (size_t i = 0; i < count; i++) {
        ours[i] = (uint8_t)(size > 0 ? data[i % size] + i / 64 : i);
    }
    write_ours(d, ours, count, &on_disk);
    int fd = open_file(d);
    bool changed = false;
    for (size_t i = 0; i + 3 <= size && i < 30; i += 3) {
        uint64_t at = (data[i] | (uint64_t)data[i + 1] << 8) % on_disk.bytes;
        uint8_t byte = 0;
        cb_assert(pread(fd, &byte, 1, (off_t)at) == 1);
        changed = changed || data[i + 2] != 0;
        byte ^= data[i + 2];
        cb_assert(pwrite(fd, &byte, 1, (off_t)at) == 1);
    }
    (void)close(fd);
    cb_status status = read_all(d, on_disk, seen, sizeof seen, &bytes);
    cb_assert(status == CB_EEND || changed);
    cb_assert(status != CB_EEND || (bytes == count && memcmp(seen, ours, count) == 0));
    cbi_disk_remove(d, name, on_disk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t file[ROOM], seen[ROOM];
    static bool first = true;
    place *p = the_place();
    if (first) {
        first = false;
        (void)atexit(leave);
    }
    if (size == 0) {
        return 0;
    }
    cbi_disk *d = &p->disks[data[0] % 3];
    if (data[0] & 4) {
        check_changed(d, data + 1, size - 1);
        return 0;
    }
    cbi_on_disk on_disk = {0};
    size_t count = cbi_min(size - 1, sizeof file), bytes = 0;
    write_ours(d, data, 1, &on_disk);
    memcpy(file, data + 1, count);
    make_fit(file, count);
    int fd = open_file(d);
    cb_assert(ftruncate(fd, 0) == 0 && pwrite(fd, file, count, 0) == (ssize_t)count);
    (void)close(fd);
    size_t piece = data[0] & 8 ? 1000 : sizeof seen / 2;
    cb_status status = read_all(d, on_disk, seen, piece, &bytes);
    cb_assert(status == CB_EEND || status == CB_ECORRUPT || status == CB_EIO);
    cbi_disk_remove(d, name, on_disk);
    return 0;
}
