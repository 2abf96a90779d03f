/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What dead owners left is removed, what living ones hold is not, and what somebody planted is
 * neither followed nor touched. Owners that die are child processes killed with SIGKILL.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "batch.h"
#include "spill/reclaim.h"

static unsigned names_in(const char *folder) {
    DIR *stream = opendir(folder);
    assert_non_null(stream);
    unsigned count = 0;
    for (struct dirent *e; (e = readdir(stream)) != NULL;) {
        count += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 ? 1 : 0;
    }
    (void)closedir(stream);
    return count;
}

static int open_folder(const char *path) {
    int fd = cbi_sys_open(path, O_PATH | O_DIRECTORY, 0);
    assert_true(fd >= 0);
    return fd;
}

static cbi_spill_options named_options(const char *const *folder) {
    return (cbi_spill_options){
        .dirs = folder, .dir_count = 1, .codec = CB_CODEC_NONE, .named_files = true};
}

static void spill_something(test_spill *t, const char *const *folder) {
    assert_ok(test_spill_open(t, named_options(folder), NULL));
    batch b = batch_make(4, TEST_SEGMENT_BYTES);
    batch_fill_all(&b, 1);
    cbi_extent extent;
    for (uint32_t i = 0; i < 4; i++) {
        assert_ok(write_and_wait(t->spill, i * 16, i, &b, &extent, NULL));
    }
    batch_free(&b);
}

/* A child that spills and then waits to be killed. Answers when its files are there. */
static pid_t start_owner(const char *folder) {
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        test_spill t;
        spill_something(&t, &folder);
        ssize_t written = write(ready[1], "x", 1);
        (void)written;
        for (;;) {
            (void)pause();
        }
    }
    char byte;
    (void)close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    (void)close(ready[0]);
    return pid;
}

static void kill_owner(pid_t pid) {
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_nothing_is_left_after_a_close(void **state) {
    (void)state;
    const char *folder = test_folder();
    test_spill t;
    spill_something(&t, &folder);
    assert_int_equal(names_in(folder), 1);
    test_spill_close(&t);
    assert_int_equal(names_in(folder), 0);
}

static void test_files_without_names_leave_nothing_when_killed(void **state) {
    (void)state;
    const char *folder = test_folder();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        test_spill t;
        cbi_spill_options options = named_options(&folder);
        options.named_files = false;
        assert_ok(test_spill_open(&t, options, NULL));
        (void)raise(SIGKILL);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(names_in(folder), 0);
}

static void test_the_next_start_removes_what_dead_owners_left(void **state) {
    (void)state;
    const char *folder = test_folder();
    for (int i = 0; i < 3; i++) {
        kill_owner(start_owner(folder));
    }
    assert_true(names_in(folder) >= 1); /* the last one, at least: each start reclaims */
    test_spill t;
    spill_something(&t, &folder);
    assert_int_equal(names_in(folder), 1);
    test_spill_close(&t);
    assert_int_equal(names_in(folder), 0);
}

static void test_a_living_owner_is_never_touched(void **state) {
    (void)state;
    const char *folder = test_folder();
    enum { OWNERS = 4 };
    pid_t owners[OWNERS];
    for (int i = 0; i < OWNERS; i++) {
        owners[i] = start_owner(folder);
    }
    assert_int_equal(names_in(folder), OWNERS);
    int fd = open_folder(folder);
    assert_int_equal(cbi_reclaim(fd), 0);
    assert_int_equal(names_in(folder), OWNERS);
    kill_owner(owners[1]);
    assert_int_equal(cbi_reclaim(fd), 1);
    assert_int_equal(names_in(folder), OWNERS - 1);
    for (int i = 0; i < OWNERS; i++) {
        if (i != 1) {
            kill_owner(owners[i]);
        }
    }
    assert_int_equal(cbi_reclaim(fd), OWNERS - 1);
    assert_int_equal(names_in(folder), 0);
    (void)cbi_sys_close(fd);
}

static void test_our_own_living_spill_is_not_taken_for_a_dead_one(void **state) {
    (void)state;
    const char *folder = test_folder();
    test_spill a, b;
    spill_something(&a, &folder);
    spill_something(&b, &folder); /* locks of the same process must count as well */
    assert_int_equal(names_in(folder), 2);
    test_spill_close(&a);
    assert_int_equal(names_in(folder), 1);
    test_spill_close(&b);
    assert_int_equal(names_in(folder), 0);
}

static void test_planted_links_are_not_followed(void **state) {
    (void)state;
    const char *folder = test_folder();
    const char *victim = test_folder();
    char path[TEST_PATH_MAX], target[TEST_PATH_MAX], precious[TEST_PATH_MAX];
    test_write_text(test_path(precious, victim, "spill.0"), "precious");
    test_write_text(test_path(target, victim, "owner"), "");
    /* A link in place of a whole folder. */
    assert_int_equal(symlink(victim, test_path(path, folder, "carbide-spill.1.00000000")), 0);
    /* A dead folder whose files are links, and one whose owner file is a link. */
    assert_int_equal(mkdir(test_path(path, folder, "carbide-spill.2.00000000"), 0700), 0);
    test_write_text(test_path(path, folder, "carbide-spill.2.00000000/owner"), "");
    assert_int_equal(symlink(precious, test_path(path, folder, "carbide-spill.2.00000000/spill.0")),
                     0);
    assert_int_equal(link(precious, test_path(path, folder, "carbide-spill.2.00000000/spill.1")),
                     0);
    assert_int_equal(mkdir(test_path(path, folder, "carbide-spill.3.00000000"), 0700), 0);
    assert_int_equal(symlink(target, test_path(path, folder, "carbide-spill.3.00000000/owner")), 0);
    /* A FIFO as owner would make an open wait for ever. */
    assert_int_equal(mkdir(test_path(path, folder, "carbide-spill.4.00000000"), 0700), 0);
    assert_int_equal(mkfifo(test_path(path, folder, "carbide-spill.4.00000000/owner"), 0600), 0);
    /* A plain file with such a name. */
    test_write_text(test_path(path, folder, "carbide-spill.5.00000000"), "precious");

    int fd = open_folder(folder);
    assert_int_equal(cbi_reclaim(fd), 1); /* number 2 */
    (void)cbi_sys_close(fd);
    assert_int_equal(names_in(folder), 4);
    char *text = test_read_file(precious, NULL);
    assert_string_equal(text, "precious");
    free(text);
    text = test_read_file(path, NULL);
    assert_string_equal(text, "precious");
    free(text);
}

static void test_unexpected_files_stop_the_removal_of_their_folder(void **state) {
    (void)state;
    const char *folder = test_folder();
    char path[TEST_PATH_MAX];
    assert_int_equal(mkdir(test_path(path, folder, "carbide-spill.2.00000000"), 0700), 0);
    test_write_text(test_path(path, folder, "carbide-spill.2.00000000/owner"), "");
    test_write_text(test_path(path, folder, "carbide-spill.2.00000000/letters.txt"), "dear");
    int fd = open_folder(folder);
    assert_int_equal(cbi_reclaim(fd), 0);
    (void)cbi_sys_close(fd);
    assert_int_equal(access(path, F_OK), 0);
}

static void test_an_empty_folder_without_an_owner_goes(void **state) {
    (void)state;
    const char *folder = test_folder();
    char path[TEST_PATH_MAX];
    assert_int_equal(mkdir(test_path(path, folder, "carbide-spill.2.00000000"), 0700), 0);
    int fd = open_folder(folder);
    assert_int_equal(cbi_reclaim(fd), 1);
    (void)cbi_sys_close(fd);
    assert_int_equal(names_in(folder), 0);
}

static void test_names_and_files_are_private_whatever_the_umask(void **state) {
    (void)state;
    const mode_t masks[] = {0, 022, 0777};
    for (int i = 0; i < 3; i++) {
        const char *folder = test_folder();
        mode_t before = umask(masks[i]);
        test_spill t;
        cb_error err;
        assert_ok(test_spill_open(&t, named_options(&folder), &err));
        (void)umask(before);
        DIR *stream = opendir(folder);
        assert_non_null(stream);
        struct stat st;
        for (struct dirent *e; (e = readdir(stream)) != NULL;) {
            if (e->d_name[0] == '.') {
                continue;
            }
            char path[TEST_PATH_MAX];
            assert_int_equal(stat(test_path(path, folder, e->d_name), &st), 0);
            assert_int_equal(st.st_mode & 0777, 0700);
            char file[TEST_PATH_MAX];
            assert_int_equal(stat(test_path(file, path, "spill.0"), &st), 0);
            assert_int_equal(st.st_mode & 0177, 0);
            assert_int_equal(stat(test_path(file, path, "owner"), &st), 0);
            assert_int_equal(st.st_mode & 0177, 0);
        }
        (void)closedir(stream);
        test_spill_close(&t);
        assert_int_equal(names_in(folder), 0);
    }
}

static void test_names_are_not_made_where_others_could_replace_them(void **state) {
    (void)state;
    const char *folder = test_folder();
    cb_error err;
    test_spill t;
    assert_int_equal(chmod(folder, 0777), 0);
    assert_status(test_spill_open(&t, named_options(&folder), &err), CB_EIO);
    assert_non_null(strstr(err.message, "sticky"));
    assert_int_equal(chmod(folder, 01777), 0);
    assert_ok(test_spill_open(&t, named_options(&folder), &err));
    test_spill_close(&t);
    assert_int_equal(chmod(folder, 0777), 0);
    cbi_spill_options nameless = named_options(&folder);
    nameless.named_files = false; /* nothing to replace */
    assert_ok(test_spill_open(&t, nameless, &err));
    test_spill_close(&t);
}

static void test_another_users_things_are_left_alone(void **state) {
    (void)state;
    const uid_t nobody = 65534;
    const char *folder = test_folder();
    char path[TEST_PATH_MAX];
    if (geteuid() != 0) {
        skip(); /* only root can make another user's things */
    }
    assert_int_equal(mkdir(test_path(path, folder, "carbide-spill.2.00000000"), 0700), 0);
    test_write_text(test_path(path, folder, "carbide-spill.2.00000000/owner"), "");
    test_path(path, folder, "carbide-spill.2.00000000");
    assert_int_equal(chown(path, nobody, nobody), 0);
    int fd = open_folder(folder);
    assert_int_equal(cbi_reclaim(fd), 0);
    (void)cbi_sys_close(fd);
    assert_int_equal(names_in(folder), 1);
    /* Nor are names made in another user's folder. */
    cb_error err;
    test_spill t;
    assert_int_equal(chown(folder, nobody, nobody), 0);
    assert_status(test_spill_open(&t, named_options(&folder), &err), CB_EIO);
    assert_non_null(strstr(err.message, "another user"));
}

/* Many processes make, use and reclaim in one folder at the same time; each must find its data
 * again. */
static void test_many_processes_share_a_folder(void **state) {
    (void)state;
    const char *folder = test_folder();
    enum { PROCESSES = 8, ROUNDS = 15 };
    pid_t pids[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            for (int round = 0; round < ROUNDS; round++) {
                test_spill t;
                if (test_spill_open(&t, named_options(&folder), NULL) != CB_OK) {
                    _exit(1);
                }
                batch out = batch_make(4, TEST_SEGMENT_BYTES);
                batch in = batch_make(4, TEST_SEGMENT_BYTES);
                batch_fill_all(&out, (uint64_t)(i * 100 + round));
                cbi_extent extent;
                if (write_and_wait(t.spill, 1, 1, &out, &extent, NULL) != CB_OK ||
                    read_and_wait(t.spill, 1, 1, &extent, &in, NULL) != CB_OK ||
                    memcmp(batch_payload(&out, 3), batch_payload(&in, 3), batch_room(&out, 3)) !=
                        0) {
                    _exit(2);
                }
                batch_free(&out);
                batch_free(&in);
                if (round == ROUNDS - 1 && i % 2 == 0) {
                    (void)raise(SIGKILL); /* every other one never says good-bye */
                }
                test_spill_close(&t);
            }
            _exit(0);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int how = 0;
        assert_int_equal(waitpid(pids[i], &how, 0), pids[i]);
        if (i % 2 == 0) {
            assert_true(WIFSIGNALED(how));
        } else {
            assert_true(WIFEXITED(how));
            assert_int_equal(WEXITSTATUS(how), 0);
        }
    }
    int fd = open_folder(folder);
    (void)cbi_reclaim(fd);
    (void)cbi_sys_close(fd);
    assert_int_equal(names_in(folder), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_left_after_a_close),
        cmocka_unit_test(test_files_without_names_leave_nothing_when_killed),
        cmocka_unit_test(test_the_next_start_removes_what_dead_owners_left),
        cmocka_unit_test(test_a_living_owner_is_never_touched),
        cmocka_unit_test(test_our_own_living_spill_is_not_taken_for_a_dead_one),
        cmocka_unit_test(test_planted_links_are_not_followed),
        cmocka_unit_test(test_unexpected_files_stop_the_removal_of_their_folder),
        cmocka_unit_test(test_an_empty_folder_without_an_owner_goes),
        cmocka_unit_test(test_names_and_files_are_private_whatever_the_umask),
        cmocka_unit_test(test_names_are_not_made_where_others_could_replace_them),
        cmocka_unit_test(test_another_users_things_are_left_alone),
        cmocka_unit_test(test_many_processes_share_a_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
