/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 300 */
/*
 * Goal: whatever the system refuses while blocks are put and others must leave for them, no block
 * is lost that was said to be there. Method: puts with one of their first calls to the system
 * failing, each another one, a hundred thousand times; after every few hundred all blocks are read
 * and compared. Then one scenario in which the first, second, third ... call fails for ever.
 */
#include "../store/block_kit.h"

#include <errno.h>

#include "base/sys.h"

enum { NAMES = 48, FAULTS = 100000 };

static unsigned next_random(unsigned *seed) {
    *seed = *seed * 1103515245u + 12345u;
    return *seed >> 8;
}

static void name_of(unsigned i, char name[32]) {
    (void)snprintf(name, 32, "rdd_%u_%u", i % 7, i);
}

typedef struct scene {
    kit k;
    uint32_t bytes[NAMES]; /* of what is there; 0: nothing is */
    bool records[NAMES];
} scene;

static void check_all(scene *s) {
    for (unsigned i = 0; i < NAMES; i++) {
        char name[32];
        name_of(i, name);
        if (s->bytes[i] == 0) {
            assert_false(kit_exists(&s->k, name));
        } else if (s->records[i]) {
            assert_ok(kit_check_records(&s->k, name, s->bytes[i], 50));
        } else {
            assert_ok(kit_check(&s->k, name, s->bytes[i]));
        }
    }
}

static cb_status put(scene *s, unsigned i, unsigned r) {
    char name[32];
    name_of(i, name);
    s->records[i] = r & 1;
    uint32_t size = s->records[i] ? 1 + r / 8 % 30 : 1 + r / 8 % 3000;
    cb_status status =
        s->records[i]
            ? kit_put_records(&s->k, name,
                              r & 2 ? CB_LEVEL_MEMORY_AND_DISK : CB_LEVEL_MEMORY_AND_DISK_SER, size,
                              50, NULL)
            : kit_put(&s->k, name, r & 2 ? CB_LEVEL_MEMORY_AND_DISK_SER : CB_LEVEL_OFF_HEAP, size);
    s->bytes[i] = status == CB_OK ? size : 0;
    return status;
}

static void test_store__a_hundred_thousand_failures_lose_nothing(void **state) {
    static const int errors[] = {ENOSPC, EIO, EDQUOT, ENOMEM, EMFILE};
    static scene s;
    (void)state;
    unsigned seed = 7, fired = 0, failed = 0, puts = 0;
    kit_open(&s.k, (kit_options){.heap = 12000,
                                 .off_heap = 12000,
                                 .rules = CB_RULES_SPARK,
                                 .disk = true,
                                 .unroll = 512});
    while (fired < FAULTS) {
        unsigned r = next_random(&seed), i = r % NAMES;
        if (s.bytes[i] > 0) {
            char name[32];
            name_of(i, name);
            assert_ok(cb_blocks_remove(s.k.blocks, s.k.task, name, NULL));
            s.bytes[i] = 0;
        }
        bool is_short = r / 65536 % 16 == 0; /* transfers that end early are no failure */
        cbi_fault_arm(is_short ? CBI_FAULT_SHORT : CBI_FAULT_ALL, 1 + r / 64 % 12,
                      is_short || r / 1024 % 8 == 0, errors[r / 8192 % 5]);
        cb_status status = put(&s, i, next_random(&seed));
        fired += cbi_fault_fired() && !is_short;
        cbi_fault_arm(0, 0, false, 0);
        assert_true(!is_short || status == CB_OK);
        failed += status != CB_OK;
        if (++puts % 500 == 0) {
            check_all(&s);
        }
    }
    check_all(&s);
    assert_true(failed > 100);
    kit_close(&s.k);
}

static void test_store__each_call_may_fail_for_ever(void **state) {
    (void)state;
    for (uint64_t n = 1;; n++) {
        static scene s;
        memset(&s, 0, sizeof s);
        kit_open(&s.k, (kit_options){.heap = 1 << 20, .disk = true, .codec = CB_BLOCK_CODEC_ZSTD});
        for (unsigned i = 0; i < 8; i++) {
            (void)put(&s, i, i * 977);
        }
        cbi_fault_arm(CBI_FAULT_ALL, n, true, EIO);
        for (unsigned i = 8; i < 16; i++) {
            (void)put(&s, i, i * 977);
        }
        for (unsigned i = 0; i < 16; i++) { /* a read may fail, and a block may be gone then */
            char name[32];
            cb_block_ref ref = {.block = NULL};
            name_of(i, name);
            if (cb_blocks_get(s.k.blocks, s.k.task, name, &ref, NULL) == CB_OK) {
                cb_block_release(&ref);
            } else {
                s.bytes[i] = kit_exists(&s.k, name) ? s.bytes[i] : 0;
            }
        }
        bool fired = cbi_fault_fired();
        cbi_fault_arm(0, 0, false, 0);
        check_all(&s);
        kit_close(&s.k);
        if (!fired) {
            return;
        }
    }
}

/** Blocks that go past the page cache, to the pack or to files, let go by several threads. */
static void test_store__large_blocks_that_cannot_leave_stay(void **state) {
    enum { LARGE = 34, VICTIMS = 9, BYTES = 1 << 20 };
    (void)state;
    for (uint64_t n = 1;; n++) {
        static kit k;
        char name[32];
        kit_open(&k, (kit_options){.heap = LARGE * BYTES,
                                   .rules = CB_RULES_SPARK,
                                   .disk = true,
                                   .files = n % 4 == 0});
        for (unsigned i = 0; i < LARGE; i++) {
            (void)snprintf(name, sizeof name, "b%u", i);
            assert_ok(kit_put(&k, name, CB_LEVEL_MEMORY_AND_DISK_SER, BYTES));
        }
        cbi_fault_arm(n % 5 == 0 ? CBI_FAULT_ALL | CBI_FAULT_SHORT : CBI_FAULT_ALL, n, n % 2 == 0,
                      n % 3 == 0 ? ENOSPC : EIO);
        cb_status status = kit_put(&k, "big", CB_LEVEL_MEMORY_ONLY_SER, VICTIMS * BYTES);
        bool fired = cbi_fault_fired();
        cbi_fault_arm(0, 0, false, 0);
        assert_int_equal(kit_exists(&k, "big"), status == CB_OK);
        for (unsigned i = 0; i < LARGE; i++) {
            (void)snprintf(name, sizeof name, "b%u", i);
            assert_ok(kit_check(&k, name, BYTES));
        }
        kit_close(&k);
        if (!fired) {
            return;
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__a_hundred_thousand_failures_lose_nothing),
        cmocka_unit_test(test_store__each_call_may_fail_for_ever),
        cmocka_unit_test(test_store__large_blocks_that_cannot_leave_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
