/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: places of a pack never overlap, are used again, and space comes back; small blocks that lie
 * in it are what they were or are found to be changed. Method: random takes and gives beside a
 * table of all that is alive; a pack whose every byte is changed in turn.
 */
#include "block_kit.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK CB_LEVEL_DISK_ONLY
#define BOTH_SER CB_LEVEL_MEMORY_AND_DISK_SER

enum { ALIVE = 2000, UNITS = 600 * 1024 };

typedef struct alive {
    uint32_t place;
    size_t bytes;
} alive;

static uint32_t next(uint32_t *random) {
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

/** Marks the units of a place; they were not marked. */
static void mark(uint8_t *units, const alive *a, bool on) {
    size_t first = a->place - 1, count = (cbi_pack_written(a->bytes) + 1023) / CBI_PACK_UNIT;
    assert_true(first + count <= UNITS);
    for (size_t i = first; i < first + count; i++) {
        assert_int_equal(units[i], !on);
        units[i] = on;
    }
}

static void test_pack__places_never_overlap_and_are_used_again(void **state) {
    static alive table[ALIVE];
    static uint8_t units[UNITS];
    cbi_home home = {0};
    cbi_pack pack;
    uint32_t random = 5, highest = 0;
    (void)state;
    cbi_pack_init(&pack, &home);
    for (uint32_t round = 0; round < 400000; round++) {
        alive *a = &table[next(&random) % ALIVE];
        if (a->place != 0) {
            mark(units, a, false);
            cbi_pack_give(&pack, a->place, a->bytes);
            a->place = 0;
            continue;
        }
        uint32_t most = next(&random) % 8 == 0 ? CBI_PACK_BYTES_MAX : 9000;
        a->bytes = 1 + next(&random) % most;
        a->place = cbi_pack_take(&pack, a->bytes);
        assert_int_not_equal(a->place, 0);
        mark(units, a, true);
        highest = a->place > highest ? a->place : highest;
    }
    for (uint32_t i = 0; i < ALIVE; i++) {
        if (table[i].place != 0) {
            cbi_pack_give(&pack, table[i].place, table[i].bytes);
        }
    }
    assert_int_equal(pack.empty_count, pack.slab_count); /* each slab is nobody's again */
    uint32_t before = pack.slab_count;
    for (uint32_t i = 0; i < before; i++) {
        assert_int_not_equal(cbi_pack_take(&pack, CBI_PACK_BYTES_MAX), 0);
    }
    assert_int_equal(pack.slab_count, before);
    cbi_pack_fini(&pack);
    assert_int_equal(home.overhead, 0);
}

static void test_pack__small_blocks_share_a_file_that_nobody_sees(void **state) {
    kit k;
    cb_blocks_stats s;
    (void)state;
    kit_open(&k, (kit_options){.heap = 100000, .rules = CB_RULES_SPARK, .disk = true});
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 300; i++) {
            char name[16];
            (void)snprintf(name, sizeof name, "b%d", i);
            assert_ok(kit_put(&k, name, i % 3 == 0 ? DISK : BOTH_SER, (size_t)(1 + i * 37)));
        }
        for (int i = 0; i < 300; i++) {
            char name[16];
            (void)snprintf(name, sizeof name, "b%d", i);
            assert_ok(kit_check(&k, name, (size_t)(1 + i * 37)));
            if (i % 2 != turn % 2) {
                assert_ok(cb_blocks_remove(k.blocks, k.task, name, NULL));
            }
        }
        for (int i = 0; i < 300; i++) {
            char name[16];
            (void)snprintf(name, sizeof name, "b%d", i);
            if (kit_exists(&k, name)) {
                assert_ok(kit_check(&k, name, (size_t)(1 + i * 37)));
                assert_ok(cb_blocks_remove(k.blocks, k.task, name, NULL));
            }
        }
    }
    cb_blocks_stats_get(k.blocks, &s);
    assert_int_equal(s.disk_bytes + s.disk_blocks, 0);
    assert_int_equal(k.blocks->disk.used, 0);
    assert_int_equal(k.blocks->disk.pack.empty_count, k.blocks->disk.pack.slab_count);
    kit_close(&k);
}

static void test_pack__no_changed_byte_gets_through(void **state) {
    enum { BYTES = 900 };
    kit k;
    (void)state;
    kit_open(&k, (kit_options){.heap = 1 << 20, .disk = true});
    int fd = k.blocks->disk.pack.fd;
    assert_true(fd >= 0);
    assert_ok(kit_put(&k, "b", DISK, BYTES));
    for (off_t at = 0; at < BYTES + 16; at++) {
        uint8_t byte = 0;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= (uint8_t)(1u << at % 8);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        assert_status(kit_check(&k, "b", BYTES), CB_ECORRUPT);
        assert_false(kit_exists(&k, "b")); /* it is gone, and may be put again */
        assert_ok(kit_put(&k, "b", DISK, BYTES));
    }
    assert_int_equal(ftruncate(fd, 500), 0);
    assert_status(kit_check(&k, "b", BYTES), CB_EIO);
    assert_ok(kit_put(&k, "b", DISK, BYTES));
    assert_ok(kit_put(&k, "c", DISK, BYTES)); /* in the next place */
    uint8_t bytes[BYTES + 16];
    assert_int_equal(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
    assert_int_equal(pwrite(fd, bytes, sizeof bytes, CBI_PACK_UNIT), sizeof bytes);
    assert_status(kit_check(&k, "c", BYTES), CB_ECORRUPT); /* it is another block's */
    assert_ok(kit_check(&k, "b", BYTES));
    kit_close(&k);
}

/** In pieces, by a reader that has no room for all. */
static void test_pack__reads_piece_by_piece(void **state) {
    kit k;
    cb_block_ref ref;
    cb_block_reader *reader = NULL;
    uint8_t piece[1000];
    size_t got = 0, sum = 0;
    (void)state;
    kit_open(&k, (kit_options){.heap = 1 << 20, .disk = true});
    assert_ok(kit_put(&k, "b", DISK, 70000));
    assert_ok(cb_blocks_get(k.blocks, k.task, "b", &ref, NULL));
    assert_ok(cb_block_reader_open(&ref, &reader, NULL));
    while (cb_block_reader_read(reader, piece, sizeof piece, &got, NULL) == CB_OK) {
        sum += got;
    }
    assert_int_equal(sum, 70000);
    cb_block_reader_close(reader);
    cb_block_release(&ref);
    kit_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack__places_never_overlap_and_are_used_again),
        cmocka_unit_test(test_pack__small_blocks_share_a_file_that_nobody_sees),
        cmocka_unit_test(test_pack__no_changed_byte_gets_through),
        cmocka_unit_test(test_pack__reads_piece_by_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
