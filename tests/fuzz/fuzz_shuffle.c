/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes are batches of a shuffle, in any framing, with any memory: what cannot be is refused,
 * and what was taken is in the file, partition by partition, as it came. The first bytes choose
 * options; then come commands: records that are right, bytes as they are, spills. And any bytes
 * are rows to be compressed, out of memory that ends where they do.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../operator/shuffle_kit.h"
#include "base/alloc.h"
#include "carbide/shuffle.h"
#include "operator/shuffle_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARTITIONS = 32, ROOM = 64 * 1024, BATCH = 8 * 1024, PATH_BYTES = 64, COMMANDS_MAX = 64 };

static char path[PATH_BYTES];
static uint8_t expected[PARTITIONS][ROOM], file[PARTITIONS * ROOM], out[ROOM];
static size_t counts[PARTITIONS];

static void remove_file(void) {
    (void)unlink(path);
}

static void name_file(void) {
    if (path[0] == '\0') {
        (void)snprintf(path, sizeof path, "/tmp/fuzz-shuffle-%ld", (long)getpid());
        (void)atexit(remove_file);
    }
}

/** A record of up to 255 times 16 bytes; what it is made of stands in one byte. */
static size_t make_record(uint8_t *to, uint32_t partition, uint8_t times, uint8_t what) {
    uint32_t length = (uint32_t)times * 16;
    if (length > ROOM - counts[partition]) {
        length = (uint32_t)(ROOM - counts[partition]);
    }
    cbi_store_u32(to, partition);
    cbi_store_u32(to + 4, length);
    for (uint32_t i = 0; i < length; i++) {
        to[8 + i] = (uint8_t)(what & 1 ? (i + what) * 2654435761u >> 13 : what + i % 7);
    }
    memcpy(expected[partition] + counts[partition], to + 8, length);
    counts[partition] += length;
    return 8 + length;
}

/** False: the shuffle has failed, as it should. */
static bool command(cb_shuffle *s, const cb_shuffle_options *o, const uint8_t *c, size_t left,
                    const source *parent) {
    static uint8_t batch[BATCH];
    cb_error err = {0};
    uint64_t released;
    if (c[0] % 16 == 0) {
        cb_assert(cb_shuffle_spill(s, &released, &err) == CB_OK);
        return true;
    }
    if (c[0] % 16 == 1) { /* bytes as they are: nothing is known of what it took */
        cb_status status = cb_shuffle_append(s, c + 4, left - 4, &err);
        cb_assert(status == CB_OK || err.message[0] != '\0');
        return false;
    }
    size_t bytes = make_record(batch, c[1] % o->partitions, c[2], c[3]);
    if (c[0] % 2 == 1) {
        bytes += make_record(batch + bytes, c[3] % o->partitions, c[2] / 2, c[1]);
    }
    cb_status status = cb_shuffle_append(s, batch, bytes, &err);
    cb_assert(status == CB_OK || (status == CB_EBUDGET && parent->limit < 2 * ROOM));
    return status == CB_OK;
}

static void check(const cb_shuffle_options *o, const int64_t *lengths) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    cb_assert(fd >= 0);
    ssize_t bytes = read(fd, file, sizeof file);
    (void)close(fd);
    size_t at = 0;
    for (uint32_t p = 0; p < o->partitions; p++) {
        cb_assert(lengths[p] >= 0 && at + (size_t)lengths[p] <= (size_t)bytes);
        size_t got = unpack(o, file + at, (size_t)lengths[p], out, sizeof out);
        cb_assert(got == counts[p] && memcmp(out, expected[p], got) == 0);
        at += (size_t)lengths[p];
    }
    cb_assert(at == (size_t)bytes);
}

static void compress_rows(const uint8_t *data, size_t size) {
    size_t room = (size_t)LZ4_compressBound((int)size);
    uint8_t *in = malloc(size), *packed = malloc(room), *back = malloc(size);
    void *tables = malloc(cbi_rows_state_bytes());
    cb_assert(in != NULL && packed != NULL && back != NULL && tables != NULL);
    memcpy(in, data, size);
    size_t stored = cbi_rows_encode(tables, data[0] % 3, packed, in, (uint32_t)size);
    if (stored > 0) {
        int got = LZ4_decompress_safe((const char *)packed, (char *)back, (int)stored, (int)size);
        cb_assert(stored <= room && got >= 0 && (size_t)got == size);
        cb_assert(memcmp(back, data, size) == 0);
    }
    free(tables);
    free(back);
    free(packed);
    free(in);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 5) {
        return 0;
    }
    compress_rows(data, size);
    name_file();
    memset(counts, 0, sizeof counts);
    size_t before = cbi_alloc_bytes();
    source parent = {.limit = (uint64_t)(32 + data[0] * 4) * CBI_KIB};
    const char *folder = "/tmp";
    cb_shuffle_options o = {.struct_size = sizeof o,
                            .partitions = 1 + data[1] % PARTITIONS,
                            .codec = (cb_shuffle_codec)(data[2] % 3),
                            .block_bytes = 64u << data[3] % 8,
                            .checksum = (cb_shuffle_checksum)(data[4] % 4),
                            .parent = {source_acquire, source_release, &parent},
                            .page_bytes = 64 * 1024,
                            .dirs = &folder,
                            .dir_count = 1};
    cb_shuffle *s = NULL;
    cb_status status = cb_shuffle_create(&o, &s, NULL);
    cb_assert(status == CB_OK);
    bool good = true;
    size = size < 5 + 4 * COMMANDS_MAX ? size : 5 + 4 * COMMANDS_MAX; /* each may spill */
    for (size_t at = 5; good && at + 4 <= size; at += 4) {
        good = command(s, &o, data + at, size - at, &parent);
    }
    int64_t lengths[PARTITIONS], checksums[PARTITIONS];
    if (good) {
        status = cb_shuffle_write(s, path, lengths, checksums, NULL);
        cb_assert(status == CB_OK);
        check(&o, lengths);
    }
    cb_shuffle_destroy(s);
    cb_assert(atomic_load(&parent.used) == 0 && cbi_alloc_bytes() == before);
    return 0;
}
