/* SPDX-License-Identifier: Apache-2.0 */
/* Folders, files and places: who lies where, what is used again, and what a full disk says. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "batch.h"
#include "spill/file.h"

enum { MIB_BLOCKS = 256 };

static cbi_places *places_make(const char *const *dirs, size_t count, uint64_t limit_bytes) {
    cbi_spill_options options = {
        .dirs = dirs, .dir_count = count, .limit_bytes = limit_bytes, .allow_memory_fs = true};
    cbi_places *p = calloc(1, sizeof *p);
    assert_non_null(p);
    assert_ok(cbi_places_init(p, &options, NULL));
    return p;
}

static void places_free(cbi_places *p) {
    cbi_places_fini(p);
    free(p);
}

static uint64_t reserve(cbi_places *p, uint32_t owner, uint64_t blocks) {
    uint64_t place = 0;
    assert_ok(cbi_places_reserve(p, owner, blocks, false, &place, NULL));
    return place;
}

/** Is what was written and read the kernel's to keep? */
static bool stays_cached(bool page_cache) {
    enum { BYTES = 64 * 1024 };
    const char *dir = test_folder();
    cbi_spill_options options = {
        .dirs = &dir, .dir_count = 1, .allow_memory_fs = true, .page_cache = page_cache};
    cbi_places p;
    assert_ok(cbi_places_init(&p, &options, NULL));
    uint8_t *bytes = aligned_alloc(CBI_SPILL_ALIGN, BYTES);
    assert_non_null(bytes);
    memset(bytes, 7, BYTES);
    struct iovec iov = {bytes, BYTES};
    assert_int_equal(cbi_spill_file_write(&p.files[0], &iov, 1, 0, BYTES), 0);
    memset(bytes, 0, BYTES);
    iov = (struct iovec){bytes, BYTES};
    assert_int_equal(cbi_spill_file_read(&p.files[0], &iov, 1, 0, BYTES), 0);
    assert_int_equal(bytes[BYTES - 1], 7);
    bool cached = cbi_sys_cached(p.files[0].fd, BYTES / 2);
    free(bytes);
    cbi_places_fini(&p);
    return cached;
}

static void test_only_by_order_files_stay_in_the_page_cache(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    test_path(path, test_folder(), "plain");
    int fd = cbi_sys_open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(cbi_sys_pwrite(fd, "plain", 5, 0), 0);
    bool tells = cbi_sys_cached(fd, 0);
    (void)cbi_sys_close(fd);
    if (!tells) { /* this file system does not say */
        skip();
    }
    assert_true(stays_cached(true));
    assert_false(stays_cached(false));
}

static void test_places_do_not_overlap(void **state) {
    (void)state;
    const char *dirs[2] = {test_folder(), test_folder()};
    cbi_places *p = places_make(dirs, 2, 0);
    enum { LIVE = 200, ROUNDS = 5000 };
    struct {
        uint64_t place, blocks;
    } live[LIVE] = {0};
    uint64_t seed = 7;
    for (unsigned round = 0; round < ROUNDS; round++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        unsigned i = (unsigned)(seed >> 33) % LIVE;
        if (live[i].blocks > 0) {
            (void)cbi_places_free(p, live[i].place, live[i].blocks);
            live[i].blocks = 0;
            continue;
        }
        uint64_t blocks = (seed >> 50) % 40 + 1;
        uint64_t place = reserve(p, (uint32_t)(seed >> 20) % 600, blocks);
        for (unsigned k = 0; k < LIVE; k++) {
            bool apart = live[k].blocks == 0 ||
                         cbi_place_file(live[k].place) != cbi_place_file(place) ||
                         cbi_place_block(place) + blocks <= cbi_place_block(live[k].place) ||
                         cbi_place_block(live[k].place) + live[k].blocks <= cbi_place_block(place);
            assert_true(apart);
        }
        live[i].place = place;
        live[i].blocks = blocks;
    }
    places_free(p);
}

static void test_neighbouring_owners_share_a_file(void **state) {
    (void)state;
    const char *dir = test_folder();
    cbi_places *p = places_make(&dir, 1, 0);
    const uint32_t next = CBI_SPILL_OWNERS_PER_GROUP;
    assert_int_equal(cbi_place_file(reserve(p, 0, 8)), cbi_place_file(reserve(p, next - 1, 8)));
    assert_int_not_equal(cbi_place_file(reserve(p, 0, 8)), cbi_place_file(reserve(p, next, 8)));
    places_free(p);
}

static void test_a_dead_file_gives_its_space_back_to_the_disk(void **state) {
    (void)state;
    const char *dir = test_folder();
    cbi_places *p = places_make(&dir, 1, 0);
    uint64_t a = reserve(p, 0, 8 * MIB_BLOCKS);
    uint64_t b = reserve(p, 0, MIB_BLOCKS);
    uint64_t other = reserve(p, 100, MIB_BLOCKS);
    assert_false(cbi_places_empty_one(p));
    assert_false(cbi_places_free(p, a, 8 * MIB_BLOCKS));
    assert_true(cbi_places_free(p, b, MIB_BLOCKS));
    uint64_t before = p->allocated_blocks;
    assert_true(cbi_places_empty_one(p));
    assert_true(p->allocated_blocks < before);
    assert_false(cbi_places_empty_one(p));
    struct stat st;
    assert_int_equal(cbi_sys_fstat(p->files[cbi_place_file(a)].fd, &st), 0);
    assert_int_equal(st.st_size, 0);
    assert_int_equal(p->live_blocks, MIB_BLOCKS);
    assert_int_equal(cbi_place_block(reserve(p, 0, 8)), 0); /* and is ready for more */
    (void)cbi_places_free(p, other, MIB_BLOCKS);
    places_free(p);
}

static void test_at_the_limit_every_hole_and_tail_is_used(void **state) {
    (void)state;
    const char *dir = test_folder();
    cbi_places *p = places_make(&dir, 1, 24 * CBI_MIB);
    /* Three files share it; all of it can be had by any owner. */
    uint64_t first = reserve(p, 0, 2 * MIB_BLOCKS);
    (void)reserve(p, CBI_SPILL_OWNERS_PER_GROUP, MIB_BLOCKS);
    (void)reserve(p, 2 * CBI_SPILL_OWNERS_PER_GROUP, MIB_BLOCKS);
    for (unsigned i = 0; i < 20; i++) {
        (void)reserve(p, 0, MIB_BLOCKS);
    }
    cb_error err;
    uint64_t place = 0;
    assert_status(cbi_places_reserve(p, 0, 1, false, &place, &err), CB_ENOSPC);
    assert_non_null(strstr(err.message, "24.0 MiB"));
    assert_non_null(strstr(err.message, "--temp-limit"));
    (void)cbi_places_free(p, first, 2 * MIB_BLOCKS);
    (void)reserve(p, 77, MIB_BLOCKS); /* a part of the hole */
    (void)reserve(p, 77, MIB_BLOCKS);
    assert_status(cbi_places_reserve(p, 0, 1, false, &place, &err), CB_ENOSPC);
    assert_int_equal(err.bytes_asked, CBI_SPILL_ALIGN);
    places_free(p);
}

static void test_a_folder_that_is_full_is_left_to_the_others(void **state) {
    (void)state;
    const char *dirs[2] = {test_folder(), test_folder()};
    cbi_places *p = places_make(dirs, 2, 0);
    uint64_t place = reserve(p, 0, 8);
    uint32_t folder = p->files[cbi_place_file(place)].folder;
    assert_true(cbi_places_refused(p, place, 8, true));
    for (unsigned i = 0; i < 10; i++) {
        assert_int_not_equal(p->files[cbi_place_file(reserve(p, 0, 8))].folder, folder);
    }
    place = reserve(p, 0, 8);
    assert_false(cbi_places_refused(p, place, 8, true)); /* none left */
    assert_int_equal(p->live_blocks, 80);
    places_free(p);
}

static void reserve_and_free(void *ctx) {
    cbi_places *p = ctx;
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t place = reserve(p, i % 64, 16);
        (void)cbi_places_free(p, place, 16);
        if (i % 64 == 0) {
            (void)cbi_places_empty_one(p);
        }
    }
}

static void test_many_threads_at_once(void **state) {
    (void)state;
    const char *dir = test_folder();
    cbi_places *p = places_make(&dir, 1, 0);
    cbi_thread threads[6];
    for (int i = 0; i < 6; i++) {
        assert_ok(cbi_thread_start(&threads[i], reserve_and_free, p, "places", NULL));
    }
    for (int i = 0; i < 6; i++) {
        cbi_thread_join(&threads[i]);
    }
    assert_int_equal(p->live_blocks, 0);
    places_free(p);
}

/* ---- full disks, real ones ---- */

/* Runs `body` in a child with a folder on a tmpfs of `size`; 77: that cannot be done here. */
static int in_small_folder(const char *size, int (*body)(const char *folder)) {
    const char *folder = test_folder();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char options[64];
        (void)snprintf(options, sizeof options, "size=%s,mode=0700", size);
        if (unshare(CLONE_NEWNS) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
            _exit(77);
        }
        (void)mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
        if (mount("none", folder, "tmpfs", 0, options) != 0) {
            _exit(77);
        }
        _exit(body(folder));
    }
    int how = 0;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how));
    return WEXITSTATUS(how);
}

static int fill_up(const char *const *dirs, size_t count, unsigned *written, cb_error *err) {
    test_spill t;
    cbi_spill_options options = {.dirs = dirs, .dir_count = count, .codec = CB_CODEC_NONE};
    if (test_spill_open(&t, options, err) != CB_OK) {
        return 1;
    }
    batch b = batch_make(16, TEST_SEGMENT_BYTES);
    batch_fill_all(&b, 1);
    cb_status status = CB_OK;
    *written = 0;
    for (unsigned i = 0; i < 200 && status == CB_OK; i++) {
        cbi_extent extent;
        status = write_and_wait(t.spill, i, i, &b, &extent, err);
        *written += status == CB_OK ? 1 : 0;
    }
    test_spill_close(&t);
    batch_free(&b);
    return status == CB_ENOSPC ? 0 : 2;
}

static int fill_small_folder(const char *folder) {
    cb_error err;
    unsigned written;
    if (fill_up(&folder, 1, &written, &err) != 0) {
        return 1;
    }
    bool says = err.sys_errno == ENOSPC && err.bytes_asked == 16 * TEST_SEGMENT_BYTES &&
                strstr(err.message, folder) != NULL && strstr(err.message, "(-T)") != NULL &&
                strstr(err.message, "3.0 MiB") != NULL;
    return !says ? 2 : written != 12 ? 3 : 0; /* 12 batches of 256 KiB are 3 MiB */
}

static void test_a_full_disk_is_told_with_its_folder_and_figures(void **state) {
    (void)state;
    int result = in_small_folder("3M", fill_small_folder);
    if (result == 77) {
        skip();
    }
    assert_int_equal(result, 0);
}

static const char *large_folder;

static int fill_both(const char *folder) {
    const char *dirs[2] = {folder, large_folder};
    test_spill t;
    cbi_spill_options options = {.dirs = dirs, .dir_count = 2, .codec = CB_CODEC_NONE};
    if (test_spill_open(&t, options, NULL) != CB_OK) {
        return 1;
    }
    enum { EXTENTS = 40 };
    cbi_extent extents[EXTENTS];
    batch out = batch_make(16, TEST_SEGMENT_BYTES);
    batch in = batch_make(16, TEST_SEGMENT_BYTES);
    for (uint32_t i = 0; i < EXTENTS; i++) {
        batch_fill_all(&out, i);
        if (write_and_wait(t.spill, i, i, &out, &extents[i], NULL) != CB_OK) {
            return 2;
        }
    }
    for (uint32_t i = 0; i < EXTENTS; i++) {
        batch_fill_all(&out, i);
        if (read_and_wait(t.spill, i, i, &extents[i], &in, NULL) != CB_OK) {
            return 3;
        }
        assert_same_payload(&out, &in);
    }
    test_spill_close(&t);
    batch_free(&out);
    batch_free(&in);
    return 0;
}

static void test_when_one_disk_is_full_the_other_takes_the_rest(void **state) {
    (void)state;
    large_folder = test_folder();
    int result = in_small_folder("2M", fill_both);
    if (result == 77) {
        skip();
    }
    assert_int_equal(result, 0);
}

static void test_the_file_size_limit_is_an_error_and_not_a_signal(void **state) {
    (void)state;
    const char *folder = test_folder();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        const struct rlimit limit = {1024 * 1024, 1024 * 1024};
        if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
            _exit(1);
        }
        cb_error err;
        unsigned written;
        int result = fill_up(&folder, 1, &written, &err);
        _exit(result != 0 ? result : err.sys_errno == EFBIG ? 0 : 3);
    }
    int how = 0;
    assert_int_equal(waitpid(pid, &how, 0), pid);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_by_order_files_stay_in_the_page_cache),
        cmocka_unit_test(test_places_do_not_overlap),
        cmocka_unit_test(test_neighbouring_owners_share_a_file),
        cmocka_unit_test(test_a_dead_file_gives_its_space_back_to_the_disk),
        cmocka_unit_test(test_at_the_limit_every_hole_and_tail_is_used),
        cmocka_unit_test(test_a_folder_that_is_full_is_left_to_the_others),
        cmocka_unit_test(test_many_threads_at_once),
        cmocka_unit_test(test_a_full_disk_is_told_with_its_folder_and_figures),
        cmocka_unit_test(test_when_one_disk_is_full_the_other_takes_the_rest),
        cmocka_unit_test(test_the_file_size_limit_is_an_error_and_not_a_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
