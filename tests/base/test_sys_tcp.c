/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: connections that stay inside the machine are not paced, others are the system's business.
 * Method: a listener and a connection to it; the system is asked what each end has. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "base/sys.h"

static void control_of(int fd, char name[16]) {
    socklen_t bytes = 16;
    memset(name, 0, 16);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &bytes), 0);
}

static int listen_at(const char *text, cbi_sys_address *address) {
    assert_int_equal(cbi_sys_address_parse(text, address), 0);
    int fd = cbi_sys_listen_tcp(address, 64 * 1024, 64 * 1024, 4);
    assert_true(fd >= 0);
    return fd;
}

static void test_tcp__both_ends_on_loopback_are_not_paced(void **state) {
    (void)state;
    cbi_sys_address address;
    char name[16];
    int listener = listen_at("127.0.0.1:0", &address);
    int out = cbi_sys_connect_tcp(&address, 1000);
    assert_true(out >= 0);
    assert_int_equal(cbi_sys_wait_for(listener, false, 1000), 1);
    int in = cbi_sys_accept(listener, 0);
    assert_true(in >= 0);
    control_of(out, name);
    assert_string_equal(name, "reno");
    control_of(in, name);
    assert_string_equal(name, "reno");
    (void)cbi_sys_close(in);
    (void)cbi_sys_close(out);
    (void)cbi_sys_close(listener);
}

static void test_tcp__every_address_is_told_from_one(void **state) {
    static const char *const all[] = {"0.0.0.0:1", "[::]:0", "[0:0::0]:7"};
    static const char *const one[] = {"0.0.0.1:1", "[::1]:0", "127.0.0.1:7", "localhost:0"};
    cbi_sys_address address;
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(cbi_sys_address_parse(all[i], &address), 0);
        assert_true(address.anywhere);
    }
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
        assert_int_equal(cbi_sys_address_parse(one[i], &address), 0);
        assert_false(address.anywhere);
    }
}

static void test_tcp__what_others_reach_has_what_the_system_gives(void **state) {
    (void)state;
    cbi_sys_address address;
    char name[16], systems[16];
    int plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(plain >= 0);
    control_of(plain, systems);
    int listener = listen_at("0.0.0.0:0", &address);
    control_of(listener, name);
    assert_string_equal(name, systems);
    (void)cbi_sys_close(listener);
    (void)cbi_sys_close(plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tcp__both_ends_on_loopback_are_not_paced),
        cmocka_unit_test(test_tcp__every_address_is_told_from_one),
        cmocka_unit_test(test_tcp__what_others_reach_has_what_the_system_gives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
