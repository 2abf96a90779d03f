/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: storage and unroll memory go as in the cases of Spark's MemoryStoreSuite: what is reserved,
 * evicted, kept and given back. Which test answers to which case: docs/spark-cases.md. Method: the
 * accounts and the manager are the real ones; rows are only sizes, unrolled here in Spark's steps
 * (512 bytes at first, a look every 16 rows, half as much again when it is not enough; serialised
 * rows are seen when the buffer is written, here at the end).
 */
#include "store/accounts.h"

#include "carbide/task.h"
#include "support/test.h"

enum { ROWS = 40, LOOK_EVERY = 16, THRESHOLD = 512, BLOCKS_MAX = 10 };

typedef struct shelf {
    cb_manager *manager;
    cbi_accounts accounts;
    cb_mode mode;
    bool buffers;            /* what is unrolled is seen at the end only */
    uint64_t unrolled;       /* reserved for unrolling, by all */
    uint32_t drops, refuses; /* from the refuses-th drop on blocks do not go */
} shelf;

typedef struct block {
    cbi_lru_entry entry;
    bool there;
} block;

static bool drop(void *ctx, cbi_lru_entry *entry) {
    shelf *s = ctx;
    if (s->drops >= s->refuses) {
        return false;
    }
    s->drops++;
    ((block *)entry)->there = false;
    return true;
}

static void open_shelf(shelf *s, uint64_t bytes, cb_mode mode) {
    *s = (shelf){.mode = mode, .refuses = UINT32_MAX};
    const cb_manager_options o = {.struct_size = sizeof o,
                                  .rules = CB_RULES_SPARK,
                                  .mode = mode,
                                  .heap_bytes = bytes,
                                  .off_heap_bytes = 12000,
                                  .storage_fraction = 0.5};
    assert_ok(cb_manager_create(&o, &s->manager, NULL));
    cbi_accounts_init(&s->accounts, s->manager, drop, s);
}

static uint64_t used(const shelf *s) {
    cb_pool_stats stats;
    cb_manager_pool(s->manager, CB_STORAGE, s->mode, &stats);
    assert_int_equal(stats.held, 0);
    return stats.used;
}

static void take_out(shelf *s, block *b) {
    assert_true(cbi_accounts_remove(&s->accounts, &b->entry));
    b->there = false;
}

static void close_shelf(shelf *s, block *blocks, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (blocks[i].there) {
            take_out(s, &blocks[i]);
        }
    }
    assert_int_equal(s->unrolled, 0);
    assert_int_equal(used(s), 0);
    cbi_accounts_fini(&s->accounts);
    cb_manager_destroy(s->manager);
}

static bool reserve(shelf *s, uint64_t bytes) {
    bool granted =
        cbi_accounts_acquire_unroll(&s->accounts, s->mode, bytes, CBI_NO_DATA_SET, NULL) == CB_OK;
    s->unrolled += granted ? bytes : 0;
    return granted;
}

static void give_back(shelf *s, uint64_t bytes) {
    cb_manager_release_unroll(s->manager, s->mode, bytes);
    s->unrolled -= bytes;
}

/** What has a known size is one request; false: refused, and nothing was made. */
static bool put(shelf *s, block *b, uint64_t bytes) {
    *b = (block){.entry = {.bytes = bytes, .data_set = CBI_NO_DATA_SET, .mode = s->mode}};
    b->there = cbi_accounts_add(&s->accounts, &b->entry, NULL) == CB_OK;
    return b->there;
}

/** Unrolls 40 rows of so many bytes. True: they are a block now, and the unroll memory has become
 *  storage memory. False: what was reserved on the way stays reserved, *kept says how much. */
static bool unroll(shelf *s, block *b, uint64_t row_bytes, uint64_t *kept) {
    uint64_t threshold = THRESHOLD, mine = 0, size = 0;
    *kept = 0;
    bool keeps = reserve(s, threshold);
    mine += keeps ? threshold : 0;
    for (int row = 0; row < ROWS && keeps; row++) {
        size += row_bytes;
        if (row % LOOK_EVERY == 0 && size >= threshold && !s->buffers) {
            uint64_t more = size + size / 2 - threshold;
            keeps = reserve(s, more);
            mine += keeps ? more : 0;
            threshold += more;
        }
    }
    if (keeps && size > mine) {
        keeps = reserve(s, size - mine);
        mine += keeps ? size - mine : 0;
    }
    if (!keeps) {
        *kept = mine;
        return false;
    }
    give_back(s, mine);
    return put(s, b, size);
}

static void test_unroll_memory_is_reserved_and_given_back(void **state) {
    (void)state;
    shelf s;
    open_shelf(&s, 12000, CB_HEAP);
    assert_true(reserve(&s, 100));
    assert_true(reserve(&s, 200));
    assert_true(reserve(&s, 500));
    assert_int_equal(used(&s), 800);
    assert_false(reserve(&s, 1000000));
    assert_int_equal(used(&s), 800);
    give_back(&s, 100);
    give_back(&s, 100);
    assert_int_equal(used(&s), 600);
    assert_true(reserve(&s, 4400));
    assert_int_equal(used(&s), 5000);
    assert_false(reserve(&s, 20000));
    assert_int_equal(used(&s), 5000);
    give_back(&s, 1000);
    assert_int_equal(used(&s), 4000);
    give_back(&s, 4000);
    close_shelf(&s, NULL, 0);
}

static void test_unrolling_evicts_the_oldest_and_keeps_what_it_has_when_refused(void **state) {
    (void)state;
    shelf s;
    block b[4] = {0};
    uint64_t kept;
    open_shelf(&s, 12000, CB_HEAP);
    assert_true(unroll(&s, &b[0], 130, &kept));
    assert_int_equal(s.unrolled, 0);
    take_out(&s, &b[0]);
    assert_true(unroll(&s, &b[1], 130, &kept));
    assert_true(unroll(&s, &b[2], 130, &kept));
    assert_true(unroll(&s, &b[0], 130, &kept)); /* the first of the two leaves for it */
    assert_int_equal(s.unrolled, 0);
    assert_false(b[1].there);
    assert_true(b[2].there);
    take_out(&s, &b[0]);
    assert_true(unroll(&s, &b[3], 130, &kept));
    assert_false(unroll(&s, &b[0], 1200, &kept)); /* too large; what it pushed out is gone */
    assert_true(kept > 0);
    assert_false(b[2].there);
    give_back(&s, kept); /* its rows have been read */
    close_shelf(&s, b, 4);
}

/** Two blocks fit; a third pushes the oldest out; one that is too large pushes the next out and is
 *  refused. */
static void fill(cb_mode mode, uint64_t bytes, bool buffers, uint64_t small, uint64_t big) {
    shelf s;
    block b[5] = {0};
    uint64_t kept;
    open_shelf(&s, bytes, mode);
    s.buffers = buffers;
    assert_true(unroll(&s, &b[1], small, &kept));
    assert_true(unroll(&s, &b[2], small, &kept));
    assert_int_equal(s.unrolled, 0);
    assert_true(b[1].there && b[2].there);
    assert_true(unroll(&s, &b[3], small, &kept));
    assert_int_equal(s.unrolled, 0);
    assert_true(!b[1].there && b[2].there && b[3].there);
    take_out(&s, &b[3]);
    assert_true(unroll(&s, &b[3], small, &kept));
    assert_false(unroll(&s, &b[4], big, &kept));
    assert_true(!b[2].there && b[3].there && !b[4].there);
    assert_int_equal(s.unrolled, kept);
    assert_true(kept > 0);
    give_back(&s, kept);
    close_shelf(&s, b, 5);
}

static void test_values_unroll_on_the_heap(void **state) {
    (void)state;
    fill(CB_HEAP, 12000, false, 130, 1200);
}

static void test_values_unroll_off_heap(void **state) {
    (void)state;
    fill(CB_OFF_HEAP, 12000, false, 130, 1200);
}

static void test_bytes_unroll_too(void **state) {
    (void)state;
    fill(CB_HEAP, 8400, true, 100, 1000);
}

/** Rows of a refused block are read from what is unrolled, or written elsewhere: afterwards nothing
 *  of it is reserved, and a block that fits is taken. */
static void test_refused_block_gives_its_memory_back_when_its_rows_are_gone(void **state) {
    (void)state;
    shelf s;
    block b[1] = {0};
    uint64_t kept;
    open_shelf(&s, 12000, CB_HEAP);
    assert_false(unroll(&s, &b[0], 1000, &kept));
    assert_true(kept > 0);
    assert_int_equal(used(&s), kept);
    give_back(&s, kept);
    assert_int_equal(used(&s), 0);
    assert_true(put(&s, &b[0], 12000));
    close_shelf(&s, b, 1);
}

static void test_refused_blocks_of_one_task_add_up_to_a_limit(void **state) {
    (void)state;
    shelf s;
    block b[BLOCKS_MAX] = {0};
    uint64_t kept, after[BLOCKS_MAX];
    open_shelf(&s, 12000, CB_HEAP);
    for (int i = 0; i < 2; i++) {
        assert_true(unroll(&s, &b[i], 130, &kept));
        assert_int_equal(s.unrolled, 0);
        assert_true(cbi_accounts_pin(&s.accounts, &b[i].entry)); /* being read: they stay */
    }
    for (int i = 2; i < 8; i++) {
        assert_false(unroll(&s, &b[i], 130, &kept));
        after[i] = s.unrolled;
    }
    assert_true(after[2] > 0);
    assert_true(after[3] > after[2]);
    assert_int_equal(after[6], after[5]);
    assert_int_equal(after[7], after[5]);
    give_back(&s, s.unrolled);
    for (int i = 0; i < 2; i++) {
        cbi_accounts_unpin(&s.accounts, &b[i].entry);
    }
    close_shelf(&s, b, BLOCKS_MAX);
}

static void test_block_that_cannot_fit_is_refused_before_it_is_made(void **state) {
    (void)state;
    shelf s;
    block b[2] = {0};
    open_shelf(&s, 12000, CB_HEAP);
    assert_true(put(&s, &b[0], 500));
    assert_false(put(&s, &b[1], 13000));
    assert_true(b[0].there); /* and nobody had to leave for it */
    close_shelf(&s, b, 2);
}

static void test_block_that_fits_has_its_size(void **state) {
    (void)state;
    shelf s;
    block b[1] = {0};
    open_shelf(&s, 12000, CB_HEAP);
    assert_true(put(&s, &b[0], 10000));
    assert_int_equal(used(&s), 10000);
    close_shelf(&s, b, 1);
}

/** Ten blocks must leave for a large one, and from the n-th on they cannot: those stay, are not
 *  marked for ever, and can leave the next time. */
static void test_eviction_that_fails_on_the_way_leaves_nobody_marked(void **state) {
    (void)state;
    const uint32_t fails_at[] = {0, 3, 10};
    for (size_t k = 0; k < 3; k++) {
        shelf s;
        block b[BLOCKS_MAX] = {0}, large = {0};
        open_shelf(&s, 100, CB_HEAP);
        for (int i = 0; i < BLOCKS_MAX; i++) {
            assert_true(put(&s, &b[i], 10));
        }
        s.refuses = fails_at[k];
        assert_int_equal(put(&s, &large, 100), fails_at[k] == 10); /* SPARK-22083 */
        uint64_t left = 0;
        for (int i = 0; i < BLOCKS_MAX; i++) {
            left += b[i].there;
            if (b[i].there) { /* readers can have it */
                assert_true(cbi_accounts_pin(&s.accounts, &b[i].entry));
                cbi_accounts_unpin(&s.accounts, &b[i].entry);
            }
        }
        assert_int_equal(left, BLOCKS_MAX - fails_at[k]);
        assert_int_equal(used(&s), large.there ? 100 : left * 10);
        s.refuses = UINT32_MAX;
        if (!large.there) {
            assert_true(put(&s, &large, 100));
            assert_int_equal(used(&s), 100);
        }
        take_out(&s, &large);
        close_shelf(&s, b, BLOCKS_MAX);
    }
}

static void test_removed_blocks_give_their_memory_back(void **state) {
    (void)state;
    shelf s;
    block b[2] = {0};
    uint64_t kept;
    open_shelf(&s, 12000, CB_HEAP);
    assert_true(unroll(&s, &b[0], 100, &kept));
    assert_true(unroll(&s, &b[1], 100, &kept));
    assert_int_equal(used(&s), 8000);
    take_out(&s, &b[0]);
    assert_int_equal(used(&s), 4000);
    take_out(&s, &b[1]);
    close_shelf(&s, b, 2);
}

/** Both modes: clearing a store must not forget what lies off-heap. */
static void test_clearing_gives_all_memory_back(void **state) {
    (void)state;
    for (int mode = 0; mode < CB_MODE_COUNT; mode++) {
        shelf s;
        block b[3] = {0};
        uint64_t kept;
        open_shelf(&s, 12000, (cb_mode)mode);
        assert_true(unroll(&s, &b[0], 100, &kept));
        assert_true(unroll(&s, &b[1], 100, &kept));
        assert_true(reserve(&s, 1000));
        while (s.accounts.lru.others.oldest != NULL) {
            take_out(&s, (block *)s.accounts.lru.others.oldest);
        }
        assert_int_equal(used(&s), 1000);
        give_back(&s, 1000);
        close_shelf(&s, b, 3);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unroll_memory_is_reserved_and_given_back),
        cmocka_unit_test(test_unrolling_evicts_the_oldest_and_keeps_what_it_has_when_refused),
        cmocka_unit_test(test_values_unroll_on_the_heap),
        cmocka_unit_test(test_values_unroll_off_heap),
        cmocka_unit_test(test_bytes_unroll_too),
        cmocka_unit_test(test_refused_block_gives_its_memory_back_when_its_rows_are_gone),
        cmocka_unit_test(test_refused_blocks_of_one_task_add_up_to_a_limit),
        cmocka_unit_test(test_block_that_cannot_fit_is_refused_before_it_is_made),
        cmocka_unit_test(test_block_that_fits_has_its_size),
        cmocka_unit_test(test_eviction_that_fails_on_the_way_leaves_nobody_marked),
        cmocka_unit_test(test_removed_blocks_give_their_memory_back),
        cmocka_unit_test(test_clearing_gives_all_memory_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
