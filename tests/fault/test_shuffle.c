/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 400 */
/*
 * Goal: whatever the system refuses, a shuffle's file has the right bytes, or there is an error and
 * no file; and nothing stays with the parent. Method: a shuffle that spills has its first, second,
 * third ... call to the system fail, once and for ever, in every framing.
 */
#include "../operator/shuffle_kit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/sys.h"
#include "support/test.h"

enum { PARTITIONS = 5, RECORDS = 400, RECORD_BYTES = 1000, BLOCK_BYTES = 4096 };

typedef struct scene {
    cb_shuffle_options options;
    source parent;
    const char *folder;
    char path[TEST_PATH_MAX];
    int64_t lengths[PARTITIONS], checksums[PARTITIONS];
} scene;

static void fill(uint8_t *to, uint32_t i) {
    for (uint32_t at = 0; at < RECORD_BYTES; at++) {
        to[at] = (uint8_t)(at % 3 == 0 ? i >> at % 8 : (at * 7919 + i) * 2654435761u >> 24);
    }
}

static cb_status run(scene *s, cb_shuffle *shuffle) {
    uint8_t record[8 + RECORD_BYTES];
    for (uint32_t i = 0; i < RECORDS; i++) {
        cbi_store_u32(record, i % PARTITIONS);
        cbi_store_u32(record + 4, RECORD_BYTES);
        fill(record + 8, i);
        cb_error err = {0};
        cb_status status = cb_shuffle_append(shuffle, record, sizeof record, &err);
        if (status != CB_OK) {
            assert_true(err.message[0] != '\0');
            return status;
        }
    }
    return cb_shuffle_write(shuffle, s->path, s->lengths, s->checksums, NULL);
}

static void check_file(const scene *s) {
    enum { ROOM = RECORDS * RECORD_BYTES };
    static uint8_t out[ROOM];
    uint8_t wanted[RECORD_BYTES];
    size_t bytes, at = 0;
    char *file = test_read_file(s->path, &bytes);
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        assert_true(at + (size_t)s->lengths[p] <= bytes);
        size_t got =
            unpack(&s->options, (uint8_t *)file + at, (size_t)s->lengths[p], out, sizeof out);
        assert_int_equal(got, RECORDS / PARTITIONS * RECORD_BYTES);
        for (uint32_t i = p, place = 0; i < RECORDS; i += PARTITIONS, place += RECORD_BYTES) {
            fill(wanted, i);
            assert_memory_equal(out + place, wanted, RECORD_BYTES);
        }
        at += (size_t)s->lengths[p];
    }
    assert_int_equal(at, bytes);
    free(file);
}

/** One shuffle with its n-th call failing; false: so many there were not. */
static bool turn(scene *s, uint64_t n, bool ever, int why) {
    size_t before = cbi_alloc_bytes();
    cb_shuffle *shuffle = NULL;
    (void)unlink(s->path);
    cbi_fault_arm(CBI_FAULT_ALL, n, ever, why);
    cb_status status = cb_shuffle_create(&s->options, &shuffle, NULL);
    if (status == CB_OK) {
        status = run(s, shuffle);
    }
    cb_shuffle_destroy(shuffle);
    bool fired = cbi_fault_fired();
    cbi_fault_arm(0, 0, false, 0);
    if (status == CB_OK) {
        check_file(s);
    } else if (!ever) { /* otherwise it cannot be removed either */
        assert_int_not_equal(access(s->path, F_OK), 0);
    }
    assert_int_equal(atomic_load(&s->parent.used), 0);
    assert_int_equal(cbi_alloc_bytes(), before);
    return fired;
}

static void run_all(cb_shuffle_codec codec) {
    static const int errors[] = {ENOMEM, EMFILE, EIO, ENOSPC};
    static scene s;
    s = (scene){.folder = test_folder(), .parent = {.limit = 160 * CBI_KIB}};
    s.options = (cb_shuffle_options){.struct_size = sizeof s.options,
                                     .partitions = PARTITIONS,
                                     .codec = codec,
                                     .block_bytes = BLOCK_BYTES,
                                     .checksum = CB_CHECKSUM_CRC32C,
                                     .parent = {source_acquire, source_release, &s.parent},
                                     .page_bytes = 64 * CBI_KIB,
                                     .dirs = &s.folder,
                                     .dir_count = 1};
    test_path(s.path, s.folder, "fault.data");
    for (int ever = 0; ever < 2; ever++) {
        for (uint64_t n = 1; turn(&s, n, ever != 0, errors[n % 4]); n += 1 + n / 64) {
        }
    }
}

static void test_shuffle__no_failure_writes_wrong_bytes(void **state) {
    (void)state;
    for (int codec = CB_SHUFFLE_RAW; codec <= CB_SHUFFLE_ZSTD; codec++) {
        run_all((cb_shuffle_codec)codec);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shuffle__no_failure_writes_wrong_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
