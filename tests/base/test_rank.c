/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rank.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/sys.h"
#include "support/test.h"

#ifdef CARBIDE_DEBUG

/** Runs `body` in a process of its own, which is to die of a broken invariant that says `text`. */
static void assert_dies(void (*body)(void), const char *text) {
    char said[1024] = {0};
    size_t used = 0;
    int ends[2], how = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)dup2(ends[1], STDERR_FILENO);
        body();
        _exit(0);
    }
    (void)close(ends[1]);
    for (ssize_t got = 0; (got = read(ends[0], said + used, sizeof said - 1 - used)) > 0;) {
        used += (size_t)got;
    }
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(WTERMSIG(how), SIGABRT);
    assert_non_null(strstr(said, text));
}

static void take_upwards(void) {
    cbi_lock store = {0}, manager = {0};
    cbi_lock_init(&store, CBI_RANK_STORE);
    cbi_lock_init(&manager, CBI_RANK_MANAGER);
    cbi_lock_take(&manager);
    cbi_lock_take(&store);
}

static void take_a_mutex_under_a_lock(void) {
    cbi_lock store = {0};
    cbi_mutex sort;
    cbi_lock_init(&store, CBI_RANK_STORE);
    cbi_mutex_init(&sort, CBI_RANK_SORT);
    cbi_lock_take(&store);
    cbi_mutex_lock(&sort);
}

static void take_two_of_a_kind(void) {
    cbi_mutex one, other;
    cbi_mutex_init(&one, CBI_RANK_PARTITION);
    cbi_mutex_init(&other, CBI_RANK_PARTITION);
    cbi_mutex_lock(&one);
    cbi_mutex_lock(&other);
}

static void take_twice(void) {
    cbi_lock lock = {0};
    cbi_lock_init(&lock, CBI_RANK_PACK);
    cbi_lock_take(&lock);
    cbi_lock_take(&lock); /* without a rank it would wait for itself */
}

static void take_what_has_no_rank(void) {
    cbi_lock lock = {0};
    cbi_lock_take(&lock);
}

static void give_what_is_not_held(void) {
    cbi_lock lock = {0};
    cbi_lock_init(&lock, CBI_RANK_PACK);
    cbi_lock_give(&lock);
}

static void end_with_a_lock(void *ctx) {
    cbi_lock_take(ctx);
}

static void end_a_thread_with_a_lock(void) {
    static cbi_lock lock;
    cbi_thread thread;
    cbi_lock_init(&lock, CBI_RANK_PACK);
    if (cbi_thread_start(&thread, end_with_a_lock, &lock, "holder", NULL) == CB_OK) {
        cbi_thread_join(&thread);
    }
}

static void test_who_takes_locks_out_of_order_dies_and_says_which(void **state) {
    (void)state;
    assert_dies(take_upwards, "\"store lock\" is taken before \"manager lock\"");
    assert_dies(take_a_mutex_under_a_lock, "\"sort mutex\" is taken before \"store lock\"");
    assert_dies(take_two_of_a_kind,
                "\"a partition's lock\" is taken before \"a partition's lock\"");
    assert_dies(take_twice, "\"pack lock\" is taken before \"pack lock\"");
    assert_dies(take_what_has_no_rank, "rank != CBI_RANK_NONE");
}

static void test_locks_are_given_by_who_holds_them(void **state) {
    (void)state;
    assert_dies(give_what_is_not_held, "given by who holds it");
    assert_dies(end_a_thread_with_a_lock, "cbi_rank_held() == 0");
}

static void test_in_order_they_are_taken_and_given_in_any_order(void **state) {
    (void)state;
    cbi_mutex sort;
    cbi_cond changed;
    cbi_lock store = {0}, manager = {0};
    cbi_mutex_init(&sort, CBI_RANK_SORT);
    cbi_cond_init(&changed);
    cbi_lock_init(&store, CBI_RANK_STORE);
    cbi_lock_init(&manager, CBI_RANK_MANAGER);
    cbi_mutex_lock(&sort);
    cbi_lock_take(&store);
    cbi_lock_take(&manager);
    assert_int_equal(cbi_rank_held(), 3);
    cbi_lock_give(&store);
    assert_int_equal(cbi_rank_held(), 2);
    cbi_lock_give(&manager);
    cbi_lock_take(&store); /* the manager's is not held any more */
    cbi_lock_give(&store);
    assert_false(cbi_cond_wait_until(&changed, &sort, 1)); /* held again when it comes back */
    assert_int_equal(cbi_rank_held(), 1);
    cbi_mutex_unlock(&sort);
    assert_int_equal(cbi_rank_held(), 0);
    cbi_cond_fini(&changed);
    cbi_mutex_fini(&sort);
}

#else

static void test_locks_have_no_rank_in_a_release(void **state) {
    (void)state;
    assert_int_equal(sizeof(cbi_lock), sizeof(uint32_t));
    assert_int_equal(sizeof(cbi_mutex), sizeof(pthread_mutex_t));
}

#endif

int main(void) {
    const struct CMUnitTest tests[] = {
#ifdef CARBIDE_DEBUG
        cmocka_unit_test(test_who_takes_locks_out_of_order_dies_and_says_which),
        cmocka_unit_test(test_locks_are_given_by_who_holds_them),
        cmocka_unit_test(test_in_order_they_are_taken_and_given_in_any_order),
#else
        cmocka_unit_test(test_locks_have_no_rank_in_a_release),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
