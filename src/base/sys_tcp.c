/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/sys.h"
#include "base/sys_call.h"

typedef union any_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} any_address;

/** The address for the system; answers its size, 0 when it is none. */
static socklen_t fill_address(const cbi_sys_address *a, any_address *to) {
    memset(to, 0, sizeof *to);
    if (a->v6) {
        to->v6.sin6_family = AF_INET6;
        to->v6.sin6_port = htons(a->port);
        return inet_pton(AF_INET6, a->host, &to->v6.sin6_addr) == 1 ? sizeof to->v6 : 0;
    }
    to->v4.sin_family = AF_INET;
    to->v4.sin_port = htons(a->port);
    return inet_pton(AF_INET, a->host, &to->v4.sin_addr) == 1 ? sizeof to->v4 : 0;
}

static bool is_loopback(const cbi_sys_address *a, const any_address *address) {
    return a->v6 ? IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr)
                 : ntohl(address->v4.sin_addr.s_addr) >> 24 == 127;
}

static bool is_anywhere(const cbi_sys_address *a, const any_address *address) {
    return a->v6 ? IN6_IS_ADDR_UNSPECIFIED(&address->v6.sin6_addr)
                 : address->v4.sin_addr.s_addr == 0;
}

static int parse_port(const char *text, uint16_t *port) {
    unsigned number = 0;
    for (const char *p = text; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || number > UINT16_MAX) {
            return -EINVAL;
        }
        number = number * 10 + (unsigned)(*p - '0');
    }
    if (text[0] == '\0' || number > UINT16_MAX) {
        return -EINVAL;
    }
    *port = (uint16_t)number;
    return 0;
}

int cbi_sys_address_parse(const char *text, cbi_sys_address *address) {
    cbi_sys_address a = {.v6 = text[0] == '['};
    any_address system;
    const char *colon = strrchr(text, ':');
    const char *first = text + a.v6, *end = colon;
    if (colon == NULL || (a.v6 && (colon == text || colon[-1] != ']'))) {
        return -EINVAL;
    }
    end -= a.v6;
    size_t length = end > first ? (size_t)(end - first) : 0;
    if (length == 0 || length > CBI_SYS_ADDRESS_MAX || parse_port(colon + 1, &a.port) < 0) {
        return -EINVAL;
    }
    memcpy(a.host, first, length);
    if (strcmp(a.host, "localhost") == 0) {
        (void)snprintf(a.host, sizeof a.host, "127.0.0.1");
    }
    if (fill_address(&a, &system) == 0) {
        return -EINVAL;
    }
    a.loopback = is_loopback(&a, &system);
    a.anywhere = is_anywhere(&a, &system);
    *address = a;
    return 0;
}

/** Connections have them from their listener. */
static void set_options(int fd, int receive_bytes, int send_bytes) {
    enum { IDLE_S = 30, BETWEEN_S = 10, PROBES = 3, UNANSWERED_MS = 60000 };
    const struct {
        int level, name, value;
    } all[] = {
        {SOL_SOCKET, SO_REUSEADDR, 1},
        {SOL_SOCKET, SO_RCVBUF, receive_bytes},
        {SOL_SOCKET, SO_SNDBUF, send_bytes},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, IDLE_S},
        {IPPROTO_TCP, TCP_KEEPINTVL, BETWEEN_S},
        {IPPROTO_TCP, TCP_KEEPCNT, PROBES},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, UNANSWERED_MS},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        (void)setsockopt(fd, all[i].level, all[i].name, &all[i].value, sizeof all[i].value);
    }
}

/**
 * Bytes that do not leave the machine have no network to be fair to. A congestion control that
 * paces, as BBR does, sends them by timers in small segments, which takes as long as to copy them
 * (measured: 6 GB/s, and 9.8 without). Each system has reno and lets everybody choose it; it is to
 * be chosen before the connection is there, for what paced once paces on.
 */
static void stay_inside(int fd, const cbi_sys_address *address) {
    static const char plain[] = "reno";
    if (address->loopback) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, plain, sizeof plain - 1);
    }
}

static uint16_t port_of(int fd) {
    any_address a;
    socklen_t bytes = sizeof a;
    memset(&a, 0, sizeof a);
    if (getsockname(fd, &a.any, &bytes) < 0) {
        return 0;
    }
    return ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

int cbi_sys_listen_tcp(cbi_sys_address *address, int receive_bytes, int send_bytes, int backlog) {
    any_address a;
    socklen_t bytes = fill_address(address, &a);
    if (bytes == 0) {
        return -EINVAL;
    }
    int fd, result;
    SYS_CALL(fd, CBI_FAULT_OPEN,
             socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0) {
        return -errno;
    }
    set_options(fd, receive_bytes, send_bytes);
    stay_inside(fd, address);
    SYS_CALL(result, CBI_FAULT_FILE, bind(fd, &a.any, bytes));
    if (result == 0) {
        SYS_CALL(result, CBI_FAULT_FILE, listen(fd, backlog));
    }
    if (result < 0) {
        result = -errno;
        (void)close(fd);
        return result;
    }
    address->port = port_of(fd);
    return fd;
}

/** What became of a connection that was begun: 0 or -errno. */
static int connected(int fd, int timeout_ms) {
    int ready = cbi_sys_wait_for(fd, true, timeout_ms);
    int why = 0;
    socklen_t bytes = sizeof why;
    if (ready <= 0) {
        return ready < 0 ? ready : -ETIMEDOUT;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &why, &bytes) < 0) {
        return -errno;
    }
    return -why;
}

int cbi_sys_connect_tcp(const cbi_sys_address *address, int timeout_ms) {
    any_address a;
    socklen_t bytes = fill_address(address, &a);
    int fd, result, on = 1;
    if (bytes == 0) {
        return -EINVAL;
    }
    SYS_CALL(fd, CBI_FAULT_OPEN,
             socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (fd < 0) {
        return -errno;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    stay_inside(fd, address);
    SYS_CALL(result, CBI_FAULT_OPEN, connect(fd, &a.any, bytes));
    result = result < 0 ? -errno : 0;
    if (result == -EINPROGRESS) {
        result = connected(fd, timeout_ms);
    }
    if (result < 0) {
        (void)close(fd);
        return result;
    }
    return fd;
}
