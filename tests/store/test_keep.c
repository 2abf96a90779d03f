/* SPDX-License-Identifier: Apache-2.0 */
/* ctest-timeout: 240 */
/*
 * Goal: what is kept is there after the store's end, after the process's end and after kill -9 at
 * any moment, verified; what is not kept is gone; what was damaged meanwhile is told. Method:
 * stores that are opened again; files and manifests that are changed between; a child that keeps
 * and removes blocks and is killed, hundreds of times, while its parent knows what was answered.
 */
#include "block_kit.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "store/manifest.h"

#define BOTH CB_LEVEL_MEMORY_AND_DISK_SER
#define RECORDS CB_LEVEL_MEMORY_AND_DISK

static void open_kept(kit *k, const char *folder, cb_block_codec codec) {
    *k = (kit){.folder = folder};
    k->class = (cb_record_class){.struct_size = sizeof k->class,
                                 .size = kit_size,
                                 .write = kit_write,
                                 .read = kit_read,
                                 .destroy = kit_destroy,
                                 .ctx = k};
    const cb_manager_options m = {
        .struct_size = sizeof m, .heap_bytes = 4 << 20, .storage_fraction = 0.5};
    assert_ok(cb_manager_create(&m, &k->manager, NULL));
    const cb_blocks_options b = {.struct_size = sizeof b,
                                 .manager = k->manager,
                                 .folder = folder,
                                 .codec = codec,
                                 .keep = "test",
                                 .keep_class = &k->class,
                                 .listener = kit_listen,
                                 .listener_ctx = k};
    cb_error err = {.message = ""};
    if (cb_blocks_create(&b, &k->blocks, &err) != CB_OK) {
        fail_msg("%s", err.message);
    }
    assert_ok(cb_block_task_create(k->blocks, 0, 0, &k->task, NULL));
}

static cb_status keep(kit *k, const char *name) {
    return cb_blocks_keep(k->blocks, k->task, name, NULL);
}

static cb_blocks_stats stats_of(kit *k) {
    cb_blocks_stats stats;
    cb_blocks_stats_get(k->blocks, &stats);
    return stats;
}

/** Files below, but the owner's and the manifest; the last one's path. */
static int count_files(const char *folder, char path[TEST_PATH_MAX]) {
    int count = 0;
    DIR *d = opendir(folder);
    if (d == NULL) {
        return 0;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char below[TEST_PATH_MAX];
        struct stat st;
        if (e->d_name[0] == '.') {
            continue;
        }
        test_path(below, folder, e->d_name);
        assert_int_equal(lstat(below, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            count += count_files(below, path);
        } else if (strcmp(e->d_name, "owner") != 0 && strcmp(e->d_name, "spill.manifest") != 0) {
            (void)snprintf(path, TEST_PATH_MAX, "%s", below);
            count++;
        }
    }
    (void)closedir(d);
    return count;
}

static void flip(const char *path, long at) {
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fail_msg("%s cannot be opened", path);
        return;
    }
    off_t size = lseek(fd, 0, SEEK_END), place = at < 0 ? size + at : at;
    uint8_t byte = 0;
    assert_int_equal(pread(fd, &byte, 1, place), 1);
    byte ^= 0x20;
    assert_int_equal(pwrite(fd, &byte, 1, place), 1);
    (void)close(fd);
}

static void test_keep__what_is_kept_is_there_again_and_nothing_else(void **state) {
    (void)state;
    for (int codec = 0; codec < 3; codec++) {
        const char *folder = test_folder();
        char path[TEST_PATH_MAX];
        kit k;
        open_kept(&k, folder, (cb_block_codec)codec);
        assert_ok(kit_put(&k, "rdd_1_1", BOTH, 300000));
        assert_ok(kit_put(&k, "rdd_1_2", CB_LEVEL_DISK_ONLY, 70000));
        assert_ok(kit_put(&k, "rdd_1_3", BOTH, 5000));
        assert_ok(kit_put(&k, "rdd_1_4", CB_LEVEL_DISK_ONLY, 5000));
        assert_ok(kit_put_records(&k, "rdd_2_1", RECORDS, 100, 200, NULL));
        assert_ok(keep(&k, "rdd_1_1"));
        assert_ok(keep(&k, "rdd_1_1")); /* twice is once */
        assert_ok(keep(&k, "rdd_1_2"));
        assert_ok(keep(&k, "rdd_2_1"));
        assert_ok(keep(&k, "rdd_1_3"));
        assert_ok(cb_blocks_remove(k.blocks, k.task, "rdd_1_3", NULL));
        assert_int_equal(keep(&k, "rdd_9_9"), CB_ENOTFOUND);
        assert_int_equal(stats_of(&k).kept, 3);
        kit_close(&k);
        assert_int_equal(count_files(folder, path), 3);

        open_kept(&k, folder, CB_BLOCK_CODEC_NONE); /* files say what they are packed with */
        assert_int_equal(stats_of(&k).recovered, 3);
        assert_int_equal(k.reports, 3);
        assert_ok(kit_check(&k, "rdd_1_1", 300000));
        assert_ok(kit_check(&k, "rdd_1_2", 70000));
        assert_ok(kit_check_records(&k, "rdd_2_1", 100, 200));
        assert_true(kit_in_memory(&k, "rdd_1_1")); /* brought back */
        assert_false(kit_exists(&k, "rdd_1_3"));
        assert_false(kit_exists(&k, "rdd_1_4"));
        assert_int_equal(kit_put(&k, "rdd_1_1", BOTH, 10), CB_EEXISTS);
        uint64_t removed = 0;
        assert_ok(cb_blocks_remove_data_set(k.blocks, k.task, 1, &removed, NULL));
        assert_int_equal(removed, 2);
        assert_ok(cb_blocks_remove(k.blocks, k.task, "rdd_2_1", NULL));
        kit_close(&k);
        DIR *d = opendir(folder); /* nothing is kept: not even the folder */
        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
            assert_int_equal(e->d_name[0], '.');
        }
        if (d != NULL) {
            (void)closedir(d);
        }
    }
}

static void test_keep__says_why_it_cannot(void **state) {
    (void)state;
    kit k, other;
    const char *folder = test_folder();
    cb_error err = {.message = ""};
    kit_open(&other, (kit_options){.heap = 1 << 20, .disk = true});
    assert_ok(kit_put(&other, "a", BOTH, 10));
    assert_int_equal(keep(&other, "a"), CB_EINVAL);
    kit_close(&other);
    open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
    assert_ok(kit_put(&k, "a", CB_LEVEL_MEMORY_ONLY_SER, 10));
    assert_int_equal(keep(&k, "a"), CB_EINVAL);
    const cb_manager_options m = {.struct_size = sizeof m, .heap_bytes = 4 << 20};
    cb_manager *manager = NULL;
    cb_blocks *blocks = NULL;
    assert_ok(cb_manager_create(&m, &manager, NULL));
    cb_blocks_options b = {
        .struct_size = sizeof b, .manager = manager, .folder = folder, .keep = "test"};
    assert_int_equal(cb_blocks_create(&b, &blocks, &err), CB_EAGAIN);
    const char *const bad[] = {"", "a/b", "..", "a name", "123456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        b.keep = bad[i];
        cb_status status = cb_blocks_create(&b, &blocks, &err);
        if (status == CB_OK) { /* ".." is a name like others behind the prefix */
            cb_blocks_destroy(blocks);
        } else {
            assert_int_equal(status, CB_EINVAL);
        }
    }
    cb_manager_destroy(manager);
    kit_close(&k);
}

static void test_keep__what_was_damaged_is_told_and_gone(void **state) {
    (void)state;
    const long places[] = {9, 70, 300, 512 + 4, 512 + 20, -1};
    for (size_t i = 0; i <= sizeof places / sizeof *places; i++) {
        const char *folder = test_folder();
        char path[TEST_PATH_MAX];
        kit k;
        open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
        assert_ok(kit_put(&k, "rdd_1_1", BOTH, 1000));
        assert_ok(keep(&k, "rdd_1_1"));
        kit_close(&k);
        assert_int_equal(count_files(folder, path), 1);
        if (i < sizeof places / sizeof *places) {
            flip(path, places[i]);
        } else {
            assert_int_equal(unlink(path), 0);
        }
        open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
        assert_int_equal(stats_of(&k).recovered, 0);
        assert_int_equal(stats_of(&k).lost, 1);
        assert_int_equal(k.gone, 1);
        assert_string_equal(k.last_name, "rdd_1_1");
        assert_false(kit_exists(&k, "rdd_1_1"));
        assert_ok(kit_put(&k, "rdd_1_1", BOTH, 1000)); /* and can be made again */
        kit_close(&k);
        assert_int_equal(count_files(folder, path), 0);
    }
}

static void test_keep__a_damaged_manifest_loses_only_what_its_record_said(void **state) {
    (void)state;
    for (long record = 0; record < 4; record++) {
        const char *folder = test_folder();
        char path[TEST_PATH_MAX];
        kit k;
        open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
        for (int i = 0; i < 4; i++) {
            char name[16];
            (void)snprintf(name, sizeof name, "rdd_1_%d", i);
            assert_ok(kit_put(&k, name, BOTH, 1000));
            assert_ok(keep(&k, name));
        }
        kit_close(&k);
        (void)snprintf(path, sizeof path, "%s/carbide-blocks.test/spill.manifest", folder);
        flip(path, record * CBI_MANIFEST_RECORD + 40);
        open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
        assert_int_equal(stats_of(&k).recovered, 3);
        /* the last one may have been on its way when the process died */
        assert_int_equal(stats_of(&k).manifest_damaged, record < 3 ? 1 : 0);
        kit_close(&k);
        assert_int_equal(count_files(folder, path), 3);
        open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
        assert_int_equal(stats_of(&k).recovered, 3);
        assert_int_equal(stats_of(&k).manifest_damaged, 0);
        kit_close(&k);
    }
}

static void test_keep__a_long_manifest_is_written_anew(void **state) {
    (void)state;
    const char *folder = test_folder();
    char path[TEST_PATH_MAX];
    struct stat st;
    kit k;
    open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
    assert_ok(kit_put(&k, "stays", BOTH, 1000));
    assert_ok(keep(&k, "stays"));
    for (int i = 0; i < 100; i++) {
        assert_ok(kit_put(&k, "rdd_1_1", BOTH, 10));
        assert_ok(keep(&k, "rdd_1_1"));
        assert_ok(cb_blocks_remove(k.blocks, k.task, "rdd_1_1", NULL));
    }
    (void)snprintf(path, sizeof path, "%s/carbide-blocks.test/spill.manifest", folder);
    assert_int_equal(stat(path, &st), 0);
    assert_in_range(st.st_size, CBI_MANIFEST_RECORD, 72 * CBI_MANIFEST_RECORD);
    kit_close(&k);
    open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
    assert_int_equal(stats_of(&k).recovered, 1);
    assert_ok(kit_check(&k, "stays", 1000));
    kit_close(&k);
}

/* ---- kill -9 ---- */

enum { NAMES = 12 };

/** One step, told before and after it through a pipe. */
typedef struct told {
    uint8_t name, step; /* 'k': kept, 'r': removed, in capitals when it was answered */
    uint16_t bytes;
} told;

static void tell(int fd, uint8_t name, uint8_t step, uint16_t bytes) {
    const told t = {.name = name, .step = step, .bytes = bytes};
    if (write(fd, &t, sizeof t) != (ssize_t)sizeof t) {
        _exit(1);
    }
}

static uint32_t draw(uint32_t *random, uint32_t limit) {
    *random = *random * 1664525u + 1013904223u;
    return (*random >> 8) % limit;
}

/** Puts, keeps and removes until it is killed; what was kept before is in `kept`. */
static void work(const char *folder, int fd, uint32_t random, const uint16_t *kept) {
    kit k;
    uint16_t bytes[NAMES];
    open_kept(&k, folder, CB_BLOCK_CODEC_LZ4);
    for (int i = 0; i < NAMES; i++) {
        bytes[i] = kept[i];
    }
    for (;;) {
        uint8_t i = (uint8_t)draw(&random, NAMES);
        char name[16];
        (void)snprintf(name, sizeof name, "rdd_1_%u", i);
        if (bytes[i] == 0) {
            uint16_t size = (uint16_t)(1 + draw(&random, 9000));
            tell(fd, i, 'k', size);
            if (kit_put(&k, name, BOTH, size) != CB_OK || keep(&k, name) != CB_OK) {
                _exit(2);
            }
            tell(fd, i, 'K', size);
            bytes[i] = size;
        } else {
            tell(fd, i, 'r', bytes[i]);
            if (cb_blocks_remove(k.blocks, k.task, name, NULL) != CB_OK) {
                _exit(3);
            }
            tell(fd, i, 'R', bytes[i]);
            bytes[i] = 0;
        }
    }
}

/** What must be there, by what was told; `maybe` has the one that was under way. */
static void read_told(int fd, uint16_t sure[NAMES], int *open_name, uint16_t *open_bytes) {
    told t;
    *open_name = -1;
    while (read(fd, &t, sizeof t) == (ssize_t)sizeof t) {
        switch (t.step) {
            case 'K':
                sure[t.name] = t.bytes;
                *open_name = -1;
                break;
            case 'R':
                sure[t.name] = 0;
                *open_name = -1;
                break;
            default:
                *open_name = t.name;
                *open_bytes = t.bytes;
                break;
        }
    }
}

static void check_recovered(const char *folder, uint16_t sure[NAMES], int open_name,
                            uint16_t open_bytes) {
    kit k;
    open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
    assert_int_equal(stats_of(&k).lost, 0);
    assert_int_equal(stats_of(&k).manifest_damaged, 0);
    for (int i = 0; i < NAMES; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "rdd_1_%d", i);
        bool there = kit_exists(&k, name);
        if (i == open_name) {
            sure[i] = there ? open_bytes : 0;
        }
        assert_int_equal(there, sure[i] > 0);
        if (there) {
            assert_ok(kit_check(&k, name, sure[i]));
        }
    }
    kit_close(&k);
}

static void test_keep__killed_at_any_moment(void **state) {
    (void)state;
    const char *folder = test_folder();
    int rounds = getenv("CARBIDE_TEST_LONG") != NULL ? 2000 : 200;
    uint16_t sure[NAMES] = {0};
    uint32_t random = 12345;
    for (int round = 0; round < rounds; round++) {
        int ends[2], status = 0, open_name = -1;
        uint16_t open_bytes = 0;
        uint32_t seed = draw(&random, 1 << 20);
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)close(ends[0]);
            work(folder, ends[1], seed, sure);
            _exit(0);
        }
        (void)close(ends[1]);
        (void)usleep(500 + draw(&random, 14000));
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status)); /* or a step failed */
        read_told(ends[0], sure, &open_name, &open_bytes);
        (void)close(ends[0]);
        check_recovered(folder, sure, open_name, open_bytes);
    }
}

static void test_keep__what_is_removed_while_it_is_read_does_not_come_back(void **state) {
    (void)state;
    const char *folder = test_folder();
    int status = 0;
    kit k;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        cb_block_ref ref;
        cb_block_task *other = NULL;
        open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
        assert_ok(cb_block_task_create(k.blocks, 0, 0, &other, NULL));
        for (int i = 0; i < 2; i++) {
            const char *name = i == 0 ? "rdd_1_1" : "rdd_1_2";
            assert_ok(kit_put(&k, name, CB_LEVEL_DISK_ONLY, 300000));
            assert_ok(keep(&k, name));
            assert_ok(cb_blocks_lock(k.blocks, other, name, false, true, &ref, NULL));
        }
        assert_ok(cbi_blocks_retire(k.blocks, k.task, "rdd_1_2", 0, NULL));
        assert_int_equal(stats_of(&k).kept, 1);
        assert_int_equal(keep(&k, "rdd_1_2"), CB_ENOTFOUND);
        cb_block_reader *reader = NULL; /* its file is there as long as he reads */
        size_t got = 1, all = 0;
        uint8_t piece[5000];
        assert_ok(cb_block_reader_open(&ref, &reader, NULL));
        while (cb_block_reader_read(reader, piece, sizeof piece, &got, NULL) == CB_OK) {
            all += got;
        }
        assert_int_equal(all, 300000);
        (void)kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    open_kept(&k, folder, CB_BLOCK_CODEC_NONE);
    assert_true(kit_exists(&k, "rdd_1_1"));
    assert_false(kit_exists(&k, "rdd_1_2"));
    assert_int_equal(stats_of(&k).kept, 1);
    assert_int_equal(stats_of(&k).lost, 0);
    kit_close(&k);
}

typedef struct keeping {
    kit *kit;
    cb_block_task *task;
} keeping;

static void *keep_it(void *ctx) {
    const keeping *x = ctx;
    return (void *)(intptr_t)cb_blocks_keep(x->kit->blocks, x->task, "rdd_1_1", NULL);
}

static void test_keep__what_is_removed_while_it_is_being_kept_is_not_kept(void **state) {
    (void)state;
    kit k;
    cb_block_task *reads = NULL, *keeps = NULL;
    open_kept(&k, test_folder(), CB_BLOCK_CODEC_NONE);
    assert_ok(cb_block_task_create(k.blocks, 0, 0, &reads, NULL));
    assert_ok(cb_block_task_create(k.blocks, 0, 0, &keeps, NULL));
    for (int round = 0; round < 100; round++) {
        keeping x = {&k, keeps};
        pthread_t thread;
        cb_block_ref ref;
        void *said = NULL;
        assert_ok(kit_put(&k, "rdd_1_1", CB_LEVEL_DISK_ONLY, 3000));
        assert_ok(cb_blocks_lock(k.blocks, reads, "rdd_1_1", false, true, &ref, NULL));
        assert_int_equal(pthread_create(&thread, NULL, keep_it, &x), 0);
        assert_ok(cbi_blocks_retire(k.blocks, k.task, "rdd_1_1", 0, NULL));
        assert_int_equal(pthread_join(thread, &said), 0);
        assert_true((intptr_t)said == CB_OK || (intptr_t)said == CB_ENOTFOUND);
        assert_int_equal(stats_of(&k).kept, 0);
        cb_block_release(&ref);
    }
    (void)cb_block_task_end(keeps);
    (void)cb_block_task_end(reads);
    kit_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep__what_is_kept_is_there_again_and_nothing_else),
        cmocka_unit_test(test_keep__says_why_it_cannot),
        cmocka_unit_test(test_keep__what_was_damaged_is_told_and_gone),
        cmocka_unit_test(test_keep__a_damaged_manifest_loses_only_what_its_record_said),
        cmocka_unit_test(test_keep__a_long_manifest_is_written_anew),
        cmocka_unit_test(test_keep__what_is_removed_while_it_is_read_does_not_come_back),
        cmocka_unit_test(test_keep__what_is_removed_while_it_is_being_kept_is_not_kept),
        cmocka_unit_test(test_keep__killed_at_any_moment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
