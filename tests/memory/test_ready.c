/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: what nobody uses of a budget is there before it is needed, pages of any size are cut from
 * it, and the budget takes it back to the byte. Method: one thread makes it ready step by step;
 * the system is asked which pages are resident. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "memory_test.h"

#include "memory/ready.h"

enum { BUDGET_MIB = 24 };

static cb_manager *open_manager(void) {
    const cb_manager_options o = {
        .struct_size = sizeof o, .heap_bytes = BUDGET_MIB * MIB, .storage_fraction = 0.5};
    return make_manager(&o);
}

static uint64_t make_all(cbi_ready *r) {
    uint64_t steps = 0;
    while (cbi_ready_step(r)) {
        steps++;
    }
    return steps * CBI_READY_STEP_BYTES;
}

static bool is_resident(const void *base, size_t bytes) {
    unsigned char there[1024];
    assert_true(bytes <= sizeof there * 4096);
    assert_int_equal(mincore((void *)(uintptr_t)base, bytes, there), 0);
    for (size_t i = 0; i < (bytes + 4095) / 4096; i++) {
        if (!(there[i] & 1)) {
            return false;
        }
    }
    return true;
}

static cb_page allocate(cb_allocator *a, size_t bytes) {
    cb_page page;
    assert_ok(cb_allocator_allocate(a, bytes, &page, err));
    return page;
}

static void test_ready__what_is_free_is_there_and_pages_of_any_size_are_cut_from_it(void **state) {
    static const size_t sizes[] = {64 * 1024, 4 << 20, 64 * 1024 + 4096, 1 << 20, 70001};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    (void)state;
    cb_manager *m = open_manager();
    cb_allocator *a = m->allocators[CB_HEAP];
    cbi_ready r = {.manager = m};
    uint64_t made = make_all(&r);
    assert_true(made >= (BUDGET_MIB - 2) * MIB && made < BUDGET_MIB * MIB);
    assert_int_equal(cb_allocator_idle(a), made);
    assert_true(cb_manager_accounted_peak(m) <= BUDGET_MIB * MIB);
    cb_page pages[COUNT];
    uint64_t taken = 0;
    for (size_t i = 0; i < COUNT; i++) {
        pages[i] = allocate(a, sizes[i]);
        taken += cbi_allocator_capacity(a, sizes[i]);
        assert_true(is_resident(cb_page_data(&pages[i]), sizes[i]));
        memset(cb_page_data(&pages[i]), (int)i, sizes[i]);
        assert_int_equal(cb_allocator_idle(a), made - taken);
    }
    for (size_t i = 0; i < COUNT; i++) { /* none lies in another */
        const uint8_t *bytes = cb_page_data(&pages[i]);
        assert_int_equal(bytes[0], i);
        assert_int_equal(bytes[sizes[i] - 1], i);
    }
    cb_page small = allocate(a, 1000); /* a small object, as ever */
    assert_int_equal(cb_allocator_idle(a), made - taken);
    assert_ok(cb_allocator_free(a, &small, err));
    for (size_t i = 0; i < COUNT; i++) {
        assert_ok(cb_allocator_free(a, &pages[i], err));
    }
    cbi_ready_close(&r);
    cb_manager_destroy(m);
}

static void test_ready__the_budget_takes_it_back_to_the_byte(void **state) {
    (void)state;
    cb_manager *m = open_manager();
    cb_allocator *a = m->allocators[CB_HEAP];
    cbi_ready r = {.manager = m};
    (void)make_all(&r);
    assert_ok(cb_manager_acquire_storage(m, CB_HEAP, 7 * MIB + 4096, NULL, err));
    assert_int_equal(cb_allocator_idle(a), (BUDGET_MIB - 7) * MIB - 4096);
    assert_int_equal(cb_manager_accounted(m), BUDGET_MIB * MIB);
    assert_false(cbi_ready_step(&r)); /* nothing is free */
    cb_manager_release_storage(m, CB_HEAP, 7 * MIB + 4096);
    assert_true(make_all(&r) >= 5 * MIB); /* and made again when it is */
    assert_true(cb_manager_accounted(m) <= BUDGET_MIB * MIB);
    cb_page large = allocate(a, 16 * MIB); /* runs side by side are one */
    assert_true(is_resident(cb_page_data(&large), 4 * MIB));
    assert_ok(cb_allocator_free(a, &large, err));
    cbi_ready_close(&r);
    assert_int_equal(cb_allocator_trim(a, 0) > 0, 1);
    assert_int_equal(cb_allocator_idle(a), 0);
    cb_manager_destroy(m);
}

/** MADV_POPULATE_WRITE fails like that; as EINVAL, it is a kernel before 5.14. false: not here. */
static bool populate_fails(unsigned why) {
    enum { POPULATE_WRITE = 23 };
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_madvise, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, POPULATE_WRITE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | why),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const struct sock_fprog program = {sizeof rules / sizeof *rules, rules};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

enum { GOOD, BAD, CANNOT };

/** In a process of its own, where populating fails like that. */
static void check_where_populate_fails(unsigned why, bool (*is_good)(cb_manager *, cbi_ready *)) {
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        if (!populate_fails(why)) {
            _exit(CANNOT);
        }
        cbi_ready r = {.manager = open_manager()};
        _exit(is_good(r.manager, &r) ? GOOD : BAD);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == CANNOT) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), GOOD);
}

static bool all_is_there(cb_manager *m, cbi_ready *r) {
    (void)m;
    while (cbi_ready_step(r)) { /* before a page of it is filled for debugging */
        if (!is_resident(r->at - CBI_READY_STEP_BYTES, CBI_READY_STEP_BYTES)) {
            return false;
        }
    }
    return r->at != NULL;
}

static void test_ready__is_there_where_the_system_does_not_populate(void **state) {
    (void)state;
    check_where_populate_fails(EINVAL, all_is_there);
}

static bool nothing_is_touched(cb_manager *m, cbi_ready *r) {
    bool made = cbi_ready_step(r);
    bool idle = cb_allocator_idle(m->allocators[CB_HEAP]) > 0;
    bool touched = is_resident(r->at, 4096);
    cbi_ready_close(r);
    return !made && !idle && !touched;
}

/* Writing page by page then would be the end of the process. */
static void test_ready__gives_up_where_the_system_has_no_memory(void **state) {
    (void)state;
    check_where_populate_fails(ENOMEM, nothing_is_touched);
}

static bool pauses_double(cb_manager *m, cbi_ready *r) {
    uint64_t pause_ns = cbi_ready_pause_ns(r), most = pause_ns * 32;
    (void)m;
    for (int i = 0; i < 8; i++) {
        if (cbi_ready_step(r) || cbi_ready_pause_ns(r) != pause_ns) {
            return false;
        }
        pause_ns = pause_ns < most ? pause_ns * 2 : most;
    }
    return pause_ns == most;
}

static void test_ready__asks_ever_more_seldom_while_the_system_has_no_memory(void **state) {
    (void)state;
    check_where_populate_fails(ENOMEM, pauses_double);
    cb_manager *m = open_manager();
    cbi_ready r = {.manager = m};
    const uint64_t pause_ns = cbi_ready_pause_ns(&r);
    r.failures = 7; /* until it has some, */
    assert_true(make_all(&r) > 0);
    assert_true(cbi_ready_pause_ns(&r) == pause_ns); /* and not while there is nothing to be done */
    cbi_ready_close(&r);
    cb_manager_destroy(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready__is_there_where_the_system_does_not_populate),
        cmocka_unit_test(test_ready__gives_up_where_the_system_has_no_memory),
        cmocka_unit_test(test_ready__asks_ever_more_seldom_while_the_system_has_no_memory),
        cmocka_unit_test(test_ready__what_is_free_is_there_and_pages_of_any_size_are_cut_from_it),
        cmocka_unit_test(test_ready__the_budget_takes_it_back_to_the_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
