/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/sys.h"
#include "support/test.h"

static int open_new(const char *folder, const char *name) {
    char path[TEST_PATH_MAX];
    int fd = cbi_sys_open(test_path(path, folder, name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    return fd;
}

static void test_what_is_written_is_read_back_at_its_offset(void **state) {
    (void)state;
    int fd = open_new(test_folder(), "a");
    assert_int_equal(cbi_sys_pwrite(fd, "carbide", 7, 100), 0);
    char buf[16];
    assert_int_equal(cbi_sys_pread(fd, buf, 7, 100), 7);
    assert_memory_equal(buf, "carbide", 7);
    assert_int_equal(cbi_sys_pread(fd, buf, sizeof buf, 104), 3); /* the file ends */
    assert_int_equal(cbi_sys_pread(fd, buf, sizeof buf, 200), 0);
    assert_int_equal(cbi_sys_close(fd), 0);
}

static void test_failures_are_the_negative_errno(void **state) {
    (void)state;
    struct stat st;
    char byte = 0;
    assert_int_equal(cbi_sys_open("/nowhere/at/all", O_RDONLY, 0), -ENOENT);
    assert_int_equal(cbi_sys_stat("/nowhere/at/all", &st), -ENOENT);
    assert_int_equal(cbi_sys_unlink("/nowhere/at/all"), -ENOENT);
    assert_int_equal(cbi_sys_pread(-1, &byte, 1, 0), -EBADF);
    assert_int_equal(cbi_sys_pwrite(-1, &byte, 1, 0), -EBADF);
    assert_int_equal(cbi_sys_close(-1), -EBADF);
    int full = cbi_sys_open("/dev/full", O_WRONLY, 0);
    assert_int_equal(cbi_sys_write(full, &byte, 1), -ENOSPC);
    assert_int_equal(cbi_sys_close(full), 0);
}

static void test_descriptors_do_not_leak_into_children(void **state) {
    (void)state;
    int fd = open_new(test_folder(), "a");
    assert_true((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    assert_int_equal(cbi_sys_close(fd), 0);
}

static void test_vectors_move_everything_and_skip_empty_entries(void **state) {
    (void)state;
    enum { COUNT = 3000 }; /* more than one call takes */
    int fd = open_new(test_folder(), "a");
    struct iovec *iov = calloc(COUNT, sizeof *iov);
    char *bytes = malloc(COUNT);
    char *back = malloc(COUNT);
    size_t total = 0;
    for (size_t i = 0; i < COUNT; i++) {
        bytes[i] = (char)('a' + i % 26);
        size_t length = i % 3 == 0 ? 0 : 1;
        iov[i] = (struct iovec){bytes + total, length};
        total += length;
    }
    assert_int_equal(cbi_sys_pwritev(fd, iov, COUNT, 10), 0);
    struct iovec two[2] = {{back, 100}, {back + 100, total - 100}};
    assert_int_equal(cbi_sys_preadv(fd, two, 2, 10), 0);
    assert_memory_equal(bytes, back, total);
    struct iovec past = {back, COUNT};
    assert_int_equal(cbi_sys_preadv(fd, &past, 1, 10), -EIO); /* asked for more than there is */
    assert_int_equal(cbi_sys_pwritev(fd, iov, 0, 0), 0);
    free(iov);
    free(bytes);
    free(back);
    assert_int_equal(cbi_sys_close(fd), 0);
}

typedef struct slow_writer {
    int fd;
    int pieces;
} slow_writer;

static void write_slowly(void *ctx) {
    slow_writer *w = ctx;
    for (int i = 0; i < w->pieces; i++) {
        cbi_sys_sleep_ns(2000000);
        (void)cbi_sys_write(w->fd, "0123456789", 10);
    }
    (void)cbi_sys_close(w->fd);
}

static void test_a_slow_pipe_is_read_to_its_end_even_when_it_does_not_block(void **state) {
    (void)state;
    for (int flags = 0; flags <= O_NONBLOCK; flags += O_NONBLOCK) {
        int ends[2];
        assert_int_equal(pipe2(ends, flags), 0);
        slow_writer writer = {ends[1], 10};
        cbi_thread thread;
        assert_ok(cbi_thread_start(&thread, write_slowly, &writer, "writer", NULL));
        char buf[200];
        assert_int_equal(cbi_sys_read(ends[0], buf, 15), 15);
        assert_true(cbi_sys_read_some(ends[0], buf, sizeof buf) > 0);
        while (cbi_sys_read_some(ends[0], buf, sizeof buf) > 0) {
        }
        cbi_thread_join(&thread);
        assert_int_equal(cbi_sys_close(ends[0]), 0);
    }
}

static void ignore_signal(int number) {
    (void)number;
}

static void test_signals_do_not_break_transfers(void **state) {
    (void)state;
    struct sigaction action = {.sa_handler = ignore_signal}; /* no SA_RESTART */
    struct sigaction before;
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    struct itimerval often = {{0, 1000}, {0, 1000}};
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    int ends[2];
    assert_int_equal(pipe2(ends, 0), 0);
    slow_writer writer = {ends[1], 20};
    cbi_thread thread;
    assert_ok(cbi_thread_start(&thread, write_slowly, &writer, "writer", NULL));
    char buf[200];
    assert_int_equal(cbi_sys_read(ends[0], buf, sizeof buf), 200);
    cbi_thread_join(&thread);
    struct itimerval never = {{0, 0}, {0, 0}};
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
    assert_int_equal(cbi_sys_close(ends[0]), 0);
}

static void test_a_file_size_limit_is_an_error_and_not_the_end(void **state) {
    (void)state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    struct rlimit low = {10000, before.rlim_max};
    int fd = open_new(test_folder(), "a");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    char *bytes = calloc(1, 20000);
    int answer = cbi_sys_pwrite(fd, bytes, 20000, 0); /* short at first, then refused */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(answer, -EFBIG);
    (void)signal(SIGXFSZ, handler);
    free(bytes);
    assert_int_equal(cbi_sys_close(fd), 0);
}

static void test_direct_reads_end_where_the_file_ends(void **state) {
    (void)state;
    enum { BLOCK = 4096, SIZE = 2 * BLOCK + 100 };
    int fd = open_new(test_folder(), "a");
    char *buf = aligned_alloc(BLOCK, 4 * BLOCK);
    memset(buf, 'x', 4 * BLOCK);
    assert_int_equal(cbi_sys_pwrite(fd, buf, SIZE, 0), 0);
    assert_int_equal(cbi_sys_fsync(fd), 0);
    int answer = cbi_sys_set_direct(fd, true);
    if (answer < 0) {
        print_message("no direct I/O here (%s): not tested\n", strerror(-answer));
        skip();
    }
    assert_int_equal(cbi_sys_pread(fd, buf, (size_t)4 * BLOCK, 0), SIZE);
    assert_int_equal(cbi_sys_pread(fd, buf, (size_t)2 * BLOCK, (uint64_t)2 * BLOCK), 100);
    assert_int_equal(cbi_sys_set_direct(fd, false), 0);
    assert_int_equal(cbi_sys_pread(fd, buf, 50, SIZE - 50), 50);
    free(buf);
    assert_int_equal(cbi_sys_close(fd), 0);
}

static void test_a_nameless_file_gets_a_name_when_it_is_ready(void **state) {
    (void)state;
    const char *folder = test_folder();
    int fd = cbi_sys_open(folder, O_TMPFILE | O_RDWR, 0600);
    if (fd == -EOPNOTSUPP) {
        print_message("no O_TMPFILE here: not tested\n");
        skip();
    }
    assert_true(fd >= 0);
    assert_int_equal(cbi_sys_write(fd, "whole", 5), 0);
    char path[TEST_PATH_MAX];
    struct stat st;
    test_path(path, folder, "named");
    assert_int_equal(cbi_sys_stat(path, &st), -ENOENT);
    assert_int_equal(cbi_sys_linkat_fd(fd, path), 0);
    assert_int_equal(cbi_sys_linkat_fd(fd, path), -EEXIST);
    assert_int_equal(cbi_sys_stat(path, &st), 0);
    assert_int_equal(st.st_size, 5);
    assert_int_equal(cbi_sys_close(fd), 0);
}

static void test_a_lock_excludes_another_descriptor_of_the_same_file(void **state) {
    (void)state;
    char path[TEST_PATH_MAX];
    const char *folder = test_folder();
    int first = open_new(folder, "a");
    int second = cbi_sys_open(test_path(path, folder, "a"), O_RDWR, 0);
    assert_int_equal(cbi_sys_lock_exclusive(first), 0);
    assert_int_equal(cbi_sys_lock_exclusive(second), -EAGAIN);
    assert_int_equal(cbi_sys_close(first), 0);
    assert_int_equal(cbi_sys_lock_exclusive(second), 0);
    assert_int_equal(cbi_sys_close(second), 0);
}

static void test_space_tells_a_disk_from_memory(void **state) {
    (void)state;
    int fd = open_new(test_folder(), "a");
    uint64_t bytes = 0;
    bool in_memory = false;
    assert_int_equal(cbi_sys_space(fd, &bytes, &in_memory), 0);
    assert_true(bytes > 0);
    assert_int_equal(cbi_sys_close(fd), 0);
    int shm = cbi_sys_open("/dev/shm", O_RDONLY | O_DIRECTORY, 0);
    if (shm >= 0) {
        assert_int_equal(cbi_sys_space(shm, &bytes, &in_memory), 0);
        assert_true(in_memory);
        assert_int_equal(cbi_sys_close(shm), 0);
    }
    assert_int_equal(cbi_sys_space(-1, &bytes, &in_memory), -EBADF);
}

static void test_size_space_and_names_can_be_changed(void **state) {
    (void)state;
    const char *folder = test_folder();
    char from[TEST_PATH_MAX];
    char to[TEST_PATH_MAX];
    struct stat st;
    int fd = open_new(folder, "a");
    int reserved = cbi_sys_fallocate(fd, 0, 0, 65536);
    assert_true(reserved == 0 || reserved == -EOPNOTSUPP);
    assert_int_equal(cbi_sys_truncate(fd, 1000), 0);
    assert_int_equal(cbi_sys_fstat(fd, &st), 0);
    assert_int_equal(st.st_size, 1000);
    assert_int_equal(cbi_sys_fdatasync(fd), 0);
    assert_int_equal(cbi_sys_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    int synced = cbi_sys_sync_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
    assert_true(synced == 0 || synced == -ENOSYS);
    assert_int_equal(cbi_sys_rename(test_path(from, folder, "a"), test_path(to, folder, "b")), 0);
    assert_int_equal(cbi_sys_stat(from, &st), -ENOENT);
    assert_int_equal(cbi_sys_unlink(to), 0);
    assert_int_equal(cbi_sys_mkdir(to, 0700), 0);
    assert_int_equal(cbi_sys_mkdir(to, 0700), -EEXIST);
    assert_int_equal(cbi_sys_close(fd), 0);
}

static void test_a_link_resolves_to_what_it_names(void **state) {
    (void)state;
    const char *folder = test_folder();
    char target[TEST_PATH_MAX];
    char link[TEST_PATH_MAX];
    char expected[TEST_PATH_MAX];
    char resolved[TEST_PATH_MAX];
    assert_int_equal(cbi_sys_close(open_new(folder, "target")), 0);
    test_path(target, folder, "target");
    assert_int_equal(symlink("target", test_path(link, folder, "link")), 0);
    assert_int_equal(cbi_sys_realpath(target, expected), 0);
    assert_int_equal(cbi_sys_realpath(link, resolved), 0);
    assert_string_equal(resolved, expected);
    assert_int_equal(cbi_sys_access(link, R_OK), 0);
    assert_int_equal(cbi_sys_unlink(target), 0);
    assert_int_equal(cbi_sys_realpath(link, resolved), -ENOENT);
    assert_int_equal(cbi_sys_access(link, R_OK), -ENOENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read_back_at_its_offset),
        cmocka_unit_test(test_failures_are_the_negative_errno),
        cmocka_unit_test(test_descriptors_do_not_leak_into_children),
        cmocka_unit_test(test_vectors_move_everything_and_skip_empty_entries),
        cmocka_unit_test(test_a_slow_pipe_is_read_to_its_end_even_when_it_does_not_block),
        cmocka_unit_test(test_signals_do_not_break_transfers),
        cmocka_unit_test(test_a_file_size_limit_is_an_error_and_not_the_end),
        cmocka_unit_test(test_direct_reads_end_where_the_file_ends),
        cmocka_unit_test(test_a_nameless_file_gets_a_name_when_it_is_ready),
        cmocka_unit_test(test_a_link_resolves_to_what_it_names),
        cmocka_unit_test(test_a_lock_excludes_another_descriptor_of_the_same_file),
        cmocka_unit_test(test_space_tells_a_disk_from_memory),
        cmocka_unit_test(test_size_space_and_names_can_be_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
