/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: bytes that come piece by piece become a block or nothing, take memory only as they come,
 * and blocks that others may see are sealed and counted. Method: fills that are finished, refused,
 * given up; the system is asked what a descriptor allows.
 */
#include "block_kit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "store/blocks.h"

#define SER CB_LEVEL_MEMORY_ONLY_SER
#define BOTH_SER CB_LEVEL_MEMORY_AND_DISK_SER

enum { BIG = 3 << 20, SHARE = 64 * 1024 };

typedef struct world {
    cb_manager *manager;
    cb_blocks *blocks;
    cb_block_task *task;
} world;

static world open_world(uint64_t memory, uint32_t shares, bool disk) {
    world w;
    const cb_manager_options m = {
        .struct_size = sizeof m, .heap_bytes = memory, .storage_fraction = 0.5};
    assert_ok(cb_manager_create(&m, &w.manager, NULL));
    const cb_blocks_options o = {.struct_size = sizeof o,
                                 .manager = w.manager,
                                 .folder = disk ? test_folder() : NULL,
                                 .share_bytes_min = SHARE,
                                 .shares_max = shares,
                                 .identities = true};
    assert_ok(cb_blocks_create(&o, &w.blocks, NULL));
    assert_ok(cb_block_task_create(w.blocks, 1, 0, &w.task, NULL));
    return w;
}

static void close_world(world *w) {
    assert_int_equal(cb_block_task_end(w->task), 0);
    cb_blocks_destroy(w->blocks);
    cb_pool_stats pool;
    cb_manager_pool(w->manager, CB_STORAGE, CB_HEAP, &pool);
    assert_int_equal(pool.used, 0);
    cb_manager_destroy(w->manager);
}

static uint8_t byte_at(uint64_t i) {
    return (uint8_t)(i * 7 + i / 4096);
}

/** Feeds `bytes` of them; the status of the first failure. */
static cb_status feed(cbi_fill *f, uint64_t bytes) {
    static uint8_t piece[100000];
    while (bytes > 0) {
        uint8_t *to = NULL;
        size_t room = 0;
        cb_status status = cbi_fill_room(f, &to, &room, NULL);
        if (status != CB_OK) {
            return status;
        }
        size_t part = cbi_min(cbi_min((size_t)bytes, sizeof piece), to != NULL ? room : SIZE_MAX);
        for (size_t i = 0; i < part; i++) {
            piece[i] = byte_at(f->filled + i);
        }
        if (to != NULL) {
            memcpy(to, piece, part);
            cbi_fill_add(f, part);
        } else {
            assert_ok(cbi_fill_append(f, piece, part, NULL));
        }
        bytes -= part;
    }
    return CB_OK;
}

static cb_status put(world *w, const char *name, cb_level level, uint64_t bytes) {
    static cbi_fill f; /* stays where it is */
    cb_status status = cbi_fill_begin(w->task, name, level, bytes, &f, NULL);
    if (status != CB_OK) {
        return status;
    }
    status = feed(&f, bytes);
    if (status == CB_OK) {
        status = cbi_fill_finish(&f, NULL);
    }
    cbi_fill_cancel(&f);
    return status;
}

static void check(world *w, const char *name, uint64_t bytes) {
    cb_block_ref ref;
    cb_block_reader *reader = NULL;
    uint8_t piece[4096];
    size_t got = 0;
    uint64_t at = 0;
    assert_ok(cb_blocks_get(w->blocks, w->task, name, &ref, NULL));
    assert_int_equal(ref.bytes, bytes);
    assert_ok(cb_block_reader_open(&ref, &reader, NULL));
    while (cb_block_reader_read(reader, piece, sizeof piece, &got, NULL) == CB_OK) {
        for (size_t i = 0; i < got; i++) {
            assert_int_equal(piece[i], byte_at(at + i));
        }
        at += got;
    }
    assert_int_equal(at, bytes);
    cb_block_reader_close(reader);
    cb_block_release(&ref);
}

static uint64_t used(const world *w) {
    cb_pool_stats pool;
    cb_manager_pool(w->manager, CB_STORAGE, CB_HEAP, &pool);
    return pool.used;
}

static void test_fill__what_came_is_there(void **state) {
    const uint64_t sizes[] = {0, 1, 4095, SHARE - 1, SHARE, SHARE + 1, BIG + 5};
    (void)state;
    world w = open_world(64 << 20, 100, true);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char name[16];
        for (int disk = 0; disk < 2; disk++) {
            (void)snprintf(name, sizeof name, "%c%zu", disk ? 'd' : 'm', i);
            assert_ok(put(&w, name, disk ? CB_LEVEL_DISK_ONLY : SER, sizes[i]));
            check(&w, name, sizes[i]);
            assert_status(put(&w, name, SER, 10), CB_EEXISTS);
        }
    }
    assert_int_equal(cb_block_task_unroll(w.task), 0);
    close_world(&w);
}

static void test_fill__nobody_sees_one_that_is_not_whole(void **state) {
    (void)state;
    world w = open_world(64 << 20, 100, true);
    static cbi_fill f[2];
    cb_block_ref ref;
    for (int disk = 0; disk < 2; disk++) {
        cb_level level = disk ? CB_LEVEL_DISK_ONLY : SER;
        assert_ok(cbi_fill_begin(w.task, "a", level, BIG, &f[0], NULL));
        assert_ok(cbi_fill_begin(w.task, "a", level, BIG, &f[1], NULL)); /* two at once */
        assert_ok(feed(&f[0], BIG / 2));
        assert_ok(feed(&f[1], BIG));
        assert_status(cb_blocks_get(w.blocks, w.task, "a", &ref, NULL), CB_ENOTFOUND);
        assert_ok(cbi_fill_finish(&f[1], NULL));
        assert_ok(feed(&f[0], BIG - BIG / 2));
        assert_status(cbi_fill_finish(&f[0], NULL), CB_EEXISTS);
        cbi_fill_cancel(&f[0]);
        check(&w, "a", BIG);
        assert_ok(cb_blocks_remove(w.blocks, w.task, "a", NULL));
    }
    cb_blocks_stats s;
    cb_blocks_stats_get(w.blocks, &s);
    assert_int_equal(s.disk_bytes, 0);
    close_world(&w);
}

/** Puts it in the place of what there is, known to be of `level` when its bytes have come. */
static cb_status put_over(world *w, const char *name, cb_level guess, cb_level level,
                          uint64_t bytes) {
    static cbi_fill f;
    assert_ok(cbi_fill_begin_over(w->task, name, guess, bytes, false, &f, NULL));
    assert_ok(feed(&f, bytes));
    cb_status status = cbi_fill_level(&f, level, NULL);
    if (status == CB_OK) {
        status = cbi_fill_replace(&f, false, NULL);
    }
    if (status == CB_EAGAIN) { /* it may be tried again */
        assert_status(cbi_fill_replace(&f, false, NULL), CB_EAGAIN);
    }
    cbi_fill_cancel(&f);
    return status;
}

static void test_fill__takes_the_place_of_another(void **state) {
    static const cb_level levels[] = {SER, CB_LEVEL_DISK_ONLY, CB_LEVEL_MEMORY_AND_DISK_SER};
    (void)state;
    world w = open_world(64 << 20, 100, true);
    cb_blocks_stats s;
    cb_block_ref ref;
    for (int i = 0; i < 9; i++) {
        uint64_t bytes = i % 2 ? 100 : BIG + (uint64_t)i;
        assert_ok(put_over(&w, "a", CB_LEVEL_MEMORY_AND_DISK_SER, levels[i / 3], bytes));
        check(&w, "a", bytes);
        assert_ok(put_over(&w, "a", CB_LEVEL_MEMORY_AND_DISK_SER, levels[i % 3], bytes + 1));
        check(&w, "a", bytes + 1);
        cb_blocks_stats_get(w.blocks, &s);
        assert_int_equal(s.blocks, 1);
        assert_int_equal(s.memory_blocks + s.disk_blocks, 1);
        assert_int_equal(s.memory_bytes, used(&w));
        assert_int_equal(s.disk_bytes > 0, levels[i % 3] == CB_LEVEL_DISK_ONLY);
    }
    assert_ok(cb_blocks_get(w.blocks, w.task, "a", &ref, NULL));
    assert_status(put_over(&w, "a", SER, SER, 10), CB_EAGAIN);
    cb_block_release(&ref);
    assert_ok(put_over(&w, "a", SER, SER, 10));
    check(&w, "a", 10);
    assert_status(put_over(&w, "a", CB_LEVEL_DISK_ONLY, SER, 10), CB_EBUDGET);
    check(&w, "a", 10);
    assert_ok(cb_blocks_remove(w.blocks, w.task, "a", NULL));
    cb_blocks_stats_get(w.blocks, &s);
    assert_int_equal(s.memory_bytes + s.disk_bytes + used(&w), 0);
    assert_int_equal(cb_block_task_unroll(w.task), 0);
    close_world(&w);
}

static void note_generation(void *ctx, const cb_block_status *status, cb_level level,
                            uint32_t readers) {
    (void)level;
    (void)readers;
    *(uint64_t *)ctx = status->generation;
}

static cb_status replace(world *w, uint64_t generation, bool handed_over) {
    static cbi_fill f;
    assert_ok(cbi_fill_begin_over(w->task, "a", SER, 10, true, &f, NULL));
    assert_ok(feed(&f, 10));
    f.identity = (cbi_identity){.generation = generation};
    f.handed_over = handed_over;
    cb_status status = cbi_fill_replace(&f, false, NULL);
    cbi_fill_cancel(&f);
    return status;
}

static void test_fill__generations_of_a_name_only_grow(void **state) {
    (void)state;
    world w = open_world(16 << 20, 100, false);
    uint64_t generation = 0;
    assert_ok(replace(&w, 100, true));
    assert_status(replace(&w, 99, true), CB_EINVAL); /* somebody else's older one */
    check(&w, "a", 10);
    assert_ok(cbi_blocks_look(w.blocks, "a", note_generation, &generation, NULL));
    assert_int_equal(generation, 100);
    assert_ok(replace(&w, 7, false)); /* a new one of ours, whose clock is behind */
    assert_ok(cbi_blocks_look(w.blocks, "a", note_generation, &generation, NULL));
    assert_int_equal(generation, 101);
    assert_ok(replace(&w, 200, false));
    assert_ok(cbi_blocks_look(w.blocks, "a", note_generation, &generation, NULL));
    assert_int_equal(generation, 200);
    close_world(&w);
}

static void test_fill__who_sends_nothing_takes_nothing(void **state) {
    (void)state;
    world w = open_world(16 << 20, 100, false);
    static cbi_fill f;
    assert_ok(put(&w, "a", SER, 10 << 20));
    assert_ok(cbi_fill_begin(w.task, "b", SER, 14 << 20, &f, NULL));
    assert_int_equal(used(&w), 11 << 20);
    check(&w, "a", 10 << 20);
    cbi_fill_cancel(&f);
    assert_status(cbi_fill_begin(w.task, "c", SER, UINT64_MAX / 2, &f, NULL), CB_EBUDGET);
    close_world(&w);
}

static void test_fill__refused_half_way_it_goes_to_disk_or_away(void **state) {
    (void)state;
    world w = open_world(16 << 20, 100, true);
    cb_block_ref ref, small;
    assert_ok(put(&w, "pinned", SER, 10 << 20));
    assert_ok(cb_blocks_get(w.blocks, w.task, "pinned", &ref, NULL));
    assert_status(put(&w, "a", SER, 8 << 20), CB_EBUDGET);
    assert_int_equal(used(&w), 10 << 20);
    assert_ok(put(&w, "a", BOTH_SER, 8 << 20));
    cb_block_status s;
    assert_ok(cb_blocks_status(w.blocks, "a", &s, NULL));
    assert_int_equal(s.level, CB_LEVEL_DISK_ONLY);
    assert_status(cbi_blocks_get_now(w.blocks, w.task, "a", &small, NULL), CB_EAGAIN);
    check(&w, "a", 8 << 20);
    cb_block_release(&ref);
    check(&w, "a", 8 << 20); /* comes back: the other one went */
    assert_ok(cbi_blocks_get_now(w.blocks, w.task, "a", &small, NULL));
    assert_true(cb_block_descriptor(&small) >= 0);
    cb_block_release(&small);
    assert_status(cb_blocks_status(w.blocks, "pinned", &s, NULL), CB_ENOTFOUND);
    close_world(&w);
}

static void test_share__is_sealed_and_the_same_bytes(void **state) {
    (void)state;
    world w = open_world(64 << 20, 2, false);
    cb_block_ref ref;
    uint8_t byte = 0;
    assert_ok(put(&w, "a", SER, BIG));
    assert_ok(cb_blocks_get(w.blocks, w.task, "a", &ref, NULL));
    int fd = cb_block_descriptor(&ref);
    assert_true(fd >= 0);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_size, BIG);
    assert_true(cbi_sys_is_sealed(fd));
    assert_ptr_equal(mmap(NULL, BIG, PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(pwrite(fd, &byte, 1, 0), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    const uint8_t *seen = mmap(NULL, BIG, PROT_READ, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(seen, MAP_FAILED);
    assert_memory_equal(seen, ref.data, BIG);
    cb_block_release(&ref);
    assert_ok(cb_blocks_remove(w.blocks, w.task, "a", NULL));
    assert_int_equal(seen[BIG - 1], byte_at(BIG - 1)); /* who has it mapped has it */
    assert_int_equal(munmap((void *)(uintptr_t)seen, BIG), 0);
    close_world(&w);
}

static void test_share__without_descriptors_it_is_a_page(void **state) {
    (void)state;
    world w = open_world(64 << 20, 2, false);
    cb_block_ref ref;
    int shared = 0;
    for (int i = 0; i < 4; i++) {
        char name[8];
        (void)snprintf(name, sizeof name, "b%d", i);
        assert_ok(put(&w, name, SER, SHARE + 10));
        check(&w, name, SHARE + 10);
        assert_ok(cb_blocks_get(w.blocks, w.task, name, &ref, NULL));
        shared += cb_block_descriptor(&ref) >= 0;
        cb_block_release(&ref);
    }
    assert_int_equal(shared, 2);
    close_world(&w);
}

typedef struct seen {
    uint32_t count;
} seen;

static void see(void *ctx, const cb_block_status *status, cb_level level, uint32_t readers) {
    seen *s = ctx;
    s->count++;
    assert_int_equal(level, SER);
    assert_int_equal(status->memory_bytes, 10);
    assert_int_equal(readers, 0);
}

static void test_fill__a_page_that_was_used_is_known_to_be_there(void **state) {
    (void)state;
    world w = open_world(64 << 20, 0, false);
    for (int turn = 0; turn < 2; turn++) {
        cbi_fill f;
        cb_block_ref ref;
        assert_ok(cbi_fill_begin_over(w.task, "x", SER, BIG, true, &f, NULL));
        assert_int_equal(cbi_contents_is_used(&f.contents), turn);
        assert_ok(feed(&f, BIG));
        assert_ok(cbi_fill_finish(&f, NULL));
        assert_ok(cb_blocks_get(w.blocks, w.task, "x", &ref, NULL));
        for (uint64_t i = 0; i < BIG; i++) {
            assert_int_equal(ref.data[i], byte_at(i));
        }
        cb_block_release(&ref);
        assert_ok(cb_blocks_remove(w.blocks, w.task, "x", NULL));
    }
    (void)cb_allocator_trim(w.manager->allocators[CB_HEAP], 0);
    cbi_fill f; /* the same descriptor, other memory */
    assert_ok(cbi_fill_begin_over(w.task, "x", SER, BIG, true, &f, NULL));
    assert_false(cbi_contents_is_used(&f.contents));
    cbi_fill_cancel(&f);
    close_world(&w);
}

/** It is resident whoever sends how much, so who takes it pays for all of it. */
static void test_fill__a_page_that_was_used_is_paid_for_as_a_whole(void **state) {
    (void)state;
    world w = open_world(64 << 20, 0, false);
    static cbi_fill f[2];
    assert_ok(put(&w, "x", SER, BIG));
    assert_ok(put(&w, "large", SER, 20 << 20));
    assert_ok(cb_blocks_remove(w.blocks, w.task, "x", NULL));
    assert_ok(cb_blocks_remove(w.blocks, w.task, "large", NULL));
    uint64_t idle = cb_allocator_idle(w.manager->allocators[CB_HEAP]);
    assert_true(idle >= BIG + (20 << 20));
    assert_ok(cbi_fill_begin_over(w.task, "x", SER, BIG, true, &f[0], NULL));
    assert_true(cbi_contents_is_used(&f[0].contents));
    assert_int_equal(used(&w), BIG);
    /* but it is no way to hold what is free without sending anything */
    assert_ok(cbi_fill_begin_over(w.task, "large", SER, 20 << 20, true, &f[1], NULL));
    assert_false(cbi_contents_is_used(&f[1].contents));
    assert_int_equal(used(&w), BIG + (1 << 20));
    cbi_fill_cancel(&f[0]);
    cbi_fill_cancel(&f[1]);
    assert_int_equal(used(&w), 0);
    close_world(&w);
}

/** What so many large blocks took. */
static void leave_idle(world *w, int count) {
    char name[16];
    for (int i = 0; i < count; i++) {
        (void)snprintf(name, sizeof name, "x%d", i);
        assert_ok(put(w, name, SER, BIG));
    }
    for (int i = 0; i < count; i++) {
        (void)snprintf(name, sizeof name, "x%d", i);
        assert_ok(cb_blocks_remove(w->blocks, w->task, name, NULL));
    }
}

/** Each may be small; all of them together hold no more than a part of what there is. */
static void test_fill__all_who_announce_and_send_nothing_hold_a_part_of_what_is_idle(void **state) {
    enum { COUNT = 12 };
    (void)state;
    world w = open_world(64 << 20, 0, false);
    static cbi_fill f[COUNT];
    char name[16];
    leave_idle(&w, COUNT);
    for (int round = 0; round < 3; round++) { /* what is over holds nothing any more */
        int holding = 0;
        for (int i = 0; i < COUNT; i++) {
            (void)snprintf(name, sizeof name, "x%d", i);
            assert_ok(cbi_fill_begin_over(w.task, name, SER, BIG, true, &f[i], NULL));
            holding += cbi_contents_is_used(&f[i].contents);
        }
        assert_in_range(holding, 2, (16 << 20) / BIG);
        assert_int_equal(used(&w), holding * BIG + (COUNT - holding) * (1 << 20));
        for (int i = 0; i < COUNT; i++) {
            if (round == 1) {
                assert_ok(feed(&f[i], BIG));
                assert_ok(cbi_fill_replace(&f[i], false, NULL));
                assert_ok(cb_blocks_remove(w.blocks, w.task, f[i].name, NULL));
            }
            cbi_fill_cancel(&f[i]);
        }
    }
    close_world(&w);
}

static void test_fill__what_has_come_leaves_room_for_others_to_announce(void **state) {
    enum { COUNT = 12 };
    (void)state;
    world w = open_world(64 << 20, 0, false);
    static cbi_fill f[COUNT];
    char name[16];
    int holding = 0;
    leave_idle(&w, COUNT);
    for (bool all = false; !all; holding += !all) {
        (void)snprintf(name, sizeof name, "x%d", holding);
        assert_ok(cbi_fill_begin_over(w.task, name, SER, BIG, true, &f[holding], NULL));
        all = !cbi_contents_is_used(&f[holding].contents);
    }
    cbi_fill_cancel(&f[holding]);
    assert_in_range(holding, 2, COUNT - 2);
    assert_ok(feed(&f[0], BIG)); /* and it is not at its end yet */
    assert_ok(cbi_fill_begin_over(w.task, "next", SER, BIG, true, &f[holding], NULL));
    assert_true(cbi_contents_is_used(&f[holding].contents));
    for (int i = 0; i <= holding; i++) {
        cbi_fill_cancel(&f[i]);
    }
    assert_int_equal(atomic_load(&w.blocks->announced), 0);
    close_world(&w);
}

static void test_walk__sees_each_once(void **state) {
    (void)state;
    world w = open_world(64 << 20, 2, false);
    seen s = {0};
    for (int i = 0; i < 3000; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "block-%d", i);
        assert_ok(put(&w, name, SER, 10));
    }
    uint64_t at = 0;
    do {
        cbi_blocks_walk(w.blocks, &at, 10, 500, see, &s);
    } while (at != 0);
    assert_int_equal(s.count, 3000);
    close_world(&w);
}

typedef struct seen_blocks {
    bool each[4000];
} seen_blocks;

static void see_which(void *ctx, const cb_block_status *status, cb_level level, uint32_t readers) {
    (void)level;
    (void)readers;
    int i = -1;
    assert_int_equal(sscanf(status->name, "block-%d", &i), 1);
    ((seen_blocks *)ctx)->each[i] = true;
}

/* Once buckets that were joined took blocks behind the walk. */
static void test_walk__misses_none_that_stays_whatever_goes_meanwhile(void **state) {
    enum { ALL = 4000, STAY = 10 };
    (void)state;
    for (int begin = 1; begin < 12; begin++) {
        world w = open_world(64 << 20, 2, false);
        seen_blocks s = {0};
        char name[16];
        for (int i = 0; i < ALL; i++) {
            (void)snprintf(name, sizeof name, "block-%d", i);
            assert_ok(put(&w, name, SER, 10));
        }
        uint64_t at = 0;
        int turn = 0;
        do {
            cbi_blocks_walk(w.blocks, &at, 10, UINT32_MAX, see_which, &s);
            if (++turn == begin) {
                for (int i = 0; i < ALL; i++) {
                    (void)snprintf(name, sizeof name, "block-%d", i);
                    assert_ok(i % STAY ? cb_blocks_remove(w.blocks, w.task, name, NULL) : CB_OK);
                }
            }
        } while (at != 0);
        for (int i = 0; i < ALL; i += STAY) {
            assert_true(s.each[i]);
        }
        close_world(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fill__what_came_is_there),
        cmocka_unit_test(test_fill__nobody_sees_one_that_is_not_whole),
        cmocka_unit_test(test_fill__takes_the_place_of_another),
        cmocka_unit_test(test_fill__generations_of_a_name_only_grow),
        cmocka_unit_test(test_fill__who_sends_nothing_takes_nothing),
        cmocka_unit_test(test_fill__refused_half_way_it_goes_to_disk_or_away),
        cmocka_unit_test(test_share__is_sealed_and_the_same_bytes),
        cmocka_unit_test(test_share__without_descriptors_it_is_a_page),
        cmocka_unit_test(test_fill__a_page_that_was_used_is_paid_for_as_a_whole),
        cmocka_unit_test(test_fill__a_page_that_was_used_is_known_to_be_there),
        cmocka_unit_test(test_fill__all_who_announce_and_send_nothing_hold_a_part_of_what_is_idle),
        cmocka_unit_test(test_fill__what_has_come_leaves_room_for_others_to_announce),
        cmocka_unit_test(test_walk__sees_each_once),
        cmocka_unit_test(test_walk__misses_none_that_stays_whatever_goes_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
