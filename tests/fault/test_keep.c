/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 400 */
/*
 * Goal: whatever the system refuses, a block that was said to be kept is there at the next start,
 * as it was, and one that was said to be removed is not; sealed or plain. Method: a store keeps,
 * reads and removes blocks while its first, second, third ... call to the system fails, once and
 * for ever; then it is opened, with that failing too; then it is opened and looked at.
 */
#include "../store/block_kit.h"

#include <errno.h>

#include "base/sys.h"

enum { NAMES = 6, SIZE = 70000 };

typedef enum fate { MAYBE, KEPT, GONE } fate;

typedef struct scene {
    kit k;
    const char *folder;
    const cb_cipher *cipher;
    cb_block_codec codec;
    fate fates[NAMES];
    char what[64];
} scene;

static void name_of(int i, char name[16]) {
    (void)snprintf(name, 16, "rdd_1_%d", i);
}

static cb_status open_store(scene *s) {
    s->k = (kit){.folder = s->folder};
    const cb_manager_options m = {
        .struct_size = sizeof m, .heap_bytes = 4 << 20, .storage_fraction = 0.5};
    cb_status status = cb_manager_create(&m, &s->k.manager, NULL);
    if (status != CB_OK) {
        return status;
    }
    const cb_blocks_options b = {.struct_size = sizeof b,
                                 .manager = s->k.manager,
                                 .folder = s->folder,
                                 .sub_folders = 2,
                                 .codec = s->codec,
                                 .cipher = s->cipher,
                                 .keep = "test"};
    status = cb_blocks_create(&b, &s->k.blocks, NULL);
    if (status == CB_OK) {
        status = cb_block_task_create(s->k.blocks, 0, 0, &s->k.task, NULL);
    }
    return status;
}

static void close_store(scene *s) {
    (void)cb_block_task_end(s->k.task);
    cb_blocks_destroy(s->k.blocks);
    cb_manager_destroy(s->k.manager);
    s->k = (kit){.manager = NULL};
}

static void must_open(scene *s) {
    cb_status status = open_store(s);
    assert_int_equal(status, CB_OK);
}

/** Three blocks that are kept. */
static void prepare(scene *s) {
    must_open(s);
    for (int i = 0; i < NAMES; i++) {
        char name[16];
        name_of(i, name);
        s->fates[i] = i < 3 ? KEPT : GONE;
        if (i < 3) {
            assert_ok(kit_put(&s->k, name, CB_LEVEL_MEMORY_AND_DISK_SER, SIZE));
            assert_ok(cb_blocks_keep(s->k.blocks, s->k.task, name, NULL));
        }
    }
    close_store(s);
}

/** Removes two, makes three more; reads one. */
static void work(scene *s, bool ever, bool data_may_go) {
    char name[16];
    for (int i = 0; i < 2; i++) {
        name_of(i, name);
        cb_status status = cb_blocks_remove(s->k.blocks, s->k.task, name, NULL);
        s->fates[i] = status == CB_OK && !ever ? GONE : MAYBE; /* neither noted nor unlinked */
    }
    for (int i = 3; i < NAMES; i++) {
        name_of(i, name);
        if (kit_put(&s->k, name, CB_LEVEL_MEMORY_AND_DISK_SER, SIZE) == CB_OK) {
            cb_status status = cb_blocks_keep(s->k.blocks, s->k.task, name, NULL);
            s->fates[i] = status == CB_OK ? KEPT : MAYBE;
        }
    }
    name_of(2, name);
    cb_block_ref ref = {.block = NULL};
    cb_status status = cb_blocks_get(s->k.blocks, s->k.task, name, &ref, NULL);
    cb_block_release(&ref);
    if (status != CB_OK && data_may_go) {
        s->fates[2] = MAYBE;
    }
}

/** No fault any more: what was promised. */
static void check(scene *s) {
    must_open(s);
    for (int i = 0; i < NAMES; i++) {
        char name[16];
        name_of(i, name);
        bool there = kit_exists(&s->k, name);
        if (there == (s->fates[i] == GONE) && s->fates[i] != MAYBE) {
            fail_msg("block %s is %s after %s", name, there ? "there again" : "lost", s->what);
        }
        if (there) {
            assert_ok(kit_check(&s->k, name, SIZE));
            assert_ok(cb_blocks_remove(s->k.blocks, s->k.task, name, NULL));
        }
    }
    close_store(s);
}

/** One turn with the n-th call failing; false: so many there were not. What is not want of memory
 *  or descriptors may cost a block that was being read: its file tells nothing then. */
static bool turn(scene *s, uint64_t n, bool ever, int why, bool at_start) {
    bool unread = why == EIO || why == ENOSPC;
    prepare(s);
    if (at_start) {
        cbi_fault_arm(CBI_FAULT_ALL, n, ever, why);
    }
    bool opened = open_store(s) == CB_OK;
    if (!at_start) {
        assert_true(opened);
        cbi_fault_arm(CBI_FAULT_ALL, n, ever, why);
    }
    if (opened) {
        work(s, ever, unread);
    }
    close_store(s);
    bool fired = cbi_fault_fired();
    cbi_fault_arm(0, 0, false, 0);
    (void)snprintf(s->what, sizeof s->what, "call %llu%s, error %d, %s", (unsigned long long)n,
                   ever ? " and all after it" : "", why, at_start ? "at start" : "at work");
    for (int i = 0; at_start && unread && i < 3; i++) {
        s->fates[i] = s->fates[i] == KEPT ? MAYBE : s->fates[i];
    }
    check(s);
    return fired;
}

static void run_all(const cb_cipher *cipher, cb_block_codec codec) {
    static const int errors[] = {ENOMEM, EMFILE, EIO, ENOSPC};
    static scene s;
    s = (scene){.folder = test_folder(), .cipher = cipher, .codec = codec};
    for (int start = 0; start < 2; start++) {
        for (int ever = 0; ever < 2; ever++) {
            for (uint64_t n = 1;;
                 n += ever != 0 || cipher != NULL ? 3 : 1) { /* 3 and 4: all errors */
                if (!turn(&s, n, ever != 0, errors[n % 4], start != 0)) {
                    break;
                }
            }
        }
    }
}

static void test_keep__no_failure_loses_what_is_kept(void **state) {
    (void)state;
    run_all(NULL, CB_BLOCK_CODEC_ZSTD);
}

static void test_keep__nor_where_files_are_sealed(void **state) {
    static const uint8_t key[32] = {7};
    cb_cipher *cipher = NULL;
    (void)state;
    if (cb_cipher_aes_gcm_create(key, &cipher, NULL) != CB_OK) {
        skip(); /* built without OpenSSL */
    }
    run_all(cipher, CB_BLOCK_CODEC_LZ4);
    cb_cipher_aes_gcm_destroy(cipher);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep__no_failure_loses_what_is_kept),
        cmocka_unit_test(test_keep__nor_where_files_are_sealed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
