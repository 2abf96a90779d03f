/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/sys.h"
#include "base/sys_call.h"

/* ---- memory that others may see ---- */

enum { SEALS = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL };

int cbi_sys_memory_file(const char *name) {
    int fd;
    SYS_CALL(fd, CBI_FAULT_OPEN, memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    return answer(fd);
}

/*
 * What may be written cannot be sealed, so the mapping must go first; something has to keep its
 * place meanwhile. It comes back private: before Linux 6.7 a shared one counts as one that may
 * write even if it does not. Nobody writes, so nothing is ever copied.
 */
int cbi_sys_seal(int fd, void *base, size_t bytes) {
    int result = CBI_FAULT(CBI_FAULT_ALLOC);
    if (result != 0) {
        return -result;
    }
    if (mmap(base, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
        MAP_FAILED) {
        return -errno;
    }
    SYS_CALL(result, CBI_FAULT_FILE, fcntl(fd, F_ADD_SEALS, SEALS));
    if (result < 0) {
        return -errno;
    }
    return mmap(base, bytes, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0) != MAP_FAILED ? 0 : -errno;
}

bool cbi_sys_is_sealed(int fd) {
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && (seals & SEALS) == SEALS;
}

void *cbi_sys_map_file(int fd, size_t bytes, bool writable) {
    if (CBI_FAULT(CBI_FAULT_ALLOC) != 0) {
        return NULL;
    }
    void *base = mmap(NULL, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ,
                      writable ? MAP_SHARED : MAP_PRIVATE, fd, 0);
    return base != MAP_FAILED ? base : NULL;
}

uint64_t cbi_sys_descriptors_max(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 256;
    }
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit most = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
        limit = setrlimit(RLIMIT_NOFILE, &most) == 0 ? most : limit;
    }
    return limit.rlim_cur;
}

/* ---- sockets ---- */

/** A socket's address holds 107 bytes of path: longer ones are reached by way of an open folder. */
static bool address_of(int dir, const char *name, struct sockaddr_un *address) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    int length = dir == AT_FDCWD ? snprintf(address->sun_path, sizeof address->sun_path, "%s", name)
                                 : snprintf(address->sun_path, sizeof address->sun_path,
                                            "/proc/self/fd/%d/%s", dir, name);
    return length > 0 && (size_t)length < sizeof address->sun_path;
}

static int new_socket(void) {
    int fd;
    SYS_CALL(fd, CBI_FAULT_OPEN, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return answer(fd);
}

int cbi_sys_listen(int dir, const char *name, mode_t mode, int backlog) {
    struct sockaddr_un address;
    if (!address_of(dir, name, &address)) {
        return -ENAMETOOLONG;
    }
    int fd = new_socket();
    if (fd < 0) {
        return fd;
    }
    int result = fchmod(fd, S_IRUSR | S_IWUSR); /* what bind gives the name, less the umask */
    if (result == 0) {
        SYS_CALL(result, CBI_FAULT_FILE, bind(fd, (struct sockaddr *)&address, sizeof address));
    }
    if (result == 0) {
        SYS_CALL(result, CBI_FAULT_FILE, fchmodat(dir, name, mode, 0));
        if (result == 0) {
            SYS_CALL(result, CBI_FAULT_FILE, listen(fd, backlog));
        }
        if (result < 0) {
            int why = errno;
            (void)unlinkat(dir, name, 0);
            errno = why;
        }
    }
    if (result < 0) {
        result = -errno;
        (void)close(fd);
        return result;
    }
    return fd;
}

static int connect_address(const struct sockaddr_un *address) {
    int fd = new_socket();
    if (fd < 0) {
        return fd;
    }
    int result;
    SYS_CALL(result, CBI_FAULT_OPEN,
             connect(fd, (const struct sockaddr *)address, sizeof *address));
    if (result < 0) {
        result = -errno;
        (void)close(fd);
        return result;
    }
    return fd;
}

int cbi_sys_connect(const char *path) {
    struct sockaddr_un address;
    if (address_of(AT_FDCWD, path, &address)) {
        return connect_address(&address);
    }
    const char *slash = strrchr(path, '/');
    char folder[PATH_MAX];
    size_t length = slash != NULL ? (size_t)(slash - path) + 1 : 0;
    if (length == 0 || length >= sizeof folder) {
        return -ENAMETOOLONG;
    }
    memcpy(folder, path, length);
    folder[length] = '\0';
    int dir = cbi_sys_open(folder, O_PATH | O_DIRECTORY, 0);
    if (dir < 0) {
        return dir;
    }
    int result = address_of(dir, slash + 1, &address) ? connect_address(&address) : -ENAMETOOLONG;
    (void)close(dir);
    return result;
}

int cbi_sys_accept(int fd, int send_bytes) {
    int connection;
    SYS_CALL(connection, CBI_FAULT_OPEN, accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection >= 0 && send_bytes > 0) {
        (void)setsockopt(connection, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof send_bytes);
    }
    return answer(connection);
}

/** How much of it is asked for: the fault build makes it short where it is told to. */
static size_t part_of(size_t bytes) {
    return bytes > 1 && CBI_FAULT(CBI_FAULT_SHORT) != 0 ? bytes - 1 : bytes;
}

ssize_t cbi_sys_receive(int fd, void *buf, size_t bytes) {
    ssize_t got;
    SYS_CALL(got, CBI_FAULT_READ, recv(fd, buf, part_of(bytes), 0));
    return got < 0 ? -errno : got;
}

bool cbi_sys_has_ended(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    return poll(&p, 1, 0) > 0; /* that, or an error: those are always told */
}

/** The first descriptor that came; more than one is nobody's, and closed. */
static int take_descriptors(const struct msghdr *m) {
    int first = -1;
    const struct cmsghdr *c = CMSG_FIRSTHDR(m);
    if (c == NULL || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
        return -1;
    }
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        if (i == 0) {
            first = fd;
        } else {
            (void)close(fd);
        }
    }
    return first;
}

ssize_t cbi_sys_receive_fd(int fd, void *buf, size_t bytes, int *passed) {
    struct iovec iov = {.iov_base = buf, .iov_len = part_of(bytes)};
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))]; /* rounded up: two fit, and the system knows */
    } control;
    struct msghdr m = {.msg_iov = &iov,
                       .msg_iovlen = 1,
                       .msg_control = &control,
                       .msg_controllen = sizeof control};
    ssize_t got;
    SYS_CALL(got, CBI_FAULT_READ, recvmsg(fd, &m, MSG_CMSG_CLOEXEC));
    if (got < 0) {
        return -errno;
    }
    *passed = take_descriptors(&m);
    return got;
}

ssize_t cbi_sys_send(int fd, const struct iovec *iov, int count, int pass) {
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.room = {0}};
    struct iovec first = {.iov_base = iov[0].iov_base, .iov_len = part_of(iov[0].iov_len)};
    bool cut = first.iov_len < iov[0].iov_len;
    struct msghdr m = {.msg_iov = cut ? &first : (struct iovec *)(uintptr_t)iov,
                       .msg_iovlen = cut ? 1 : (size_t)count};
    if (pass >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &pass, sizeof pass);
    }
    ssize_t sent;
    SYS_CALL(sent, CBI_FAULT_WRITE, sendmsg(fd, &m, MSG_NOSIGNAL));
    return sent < 0 ? -errno : sent;
}

int cbi_sys_peer(int fd, pid_t *pid, uid_t *uid) {
    struct ucred who;
    socklen_t bytes = sizeof who;
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes));
    if (result < 0) {
        return -errno;
    }
    *pid = who.pid;
    *uid = who.uid;
    return 0;
}

uid_t cbi_sys_uid(void) {
    return geteuid();
}

int cbi_sys_lock_folder(int fd) {
    int result;
    SYS_CALL(result, CBI_FAULT_FILE, flock(fd, LOCK_EX | LOCK_NB));
    return answer(result);
}

void cbi_sys_unlock_folder(int fd) {
    (void)flock(fd, LOCK_UN);
}

/* ---- waiting ---- */

int cbi_sys_poll_create(void) {
    int fd;
    SYS_CALL(fd, CBI_FAULT_OPEN, epoll_create1(EPOLL_CLOEXEC));
    return answer(fd);
}

int cbi_sys_poll_set(int poll, int fd, bool is_new, bool readable, bool writable, uint64_t token) {
    struct epoll_event event = {.events = (readable ? (unsigned)(EPOLLIN | EPOLLRDHUP) : 0u) |
                                          (writable ? (unsigned)EPOLLOUT : 0u),
                                .data.u64 = token};
    int result;
    SYS_CALL(result, CBI_FAULT_FILE,
             epoll_ctl(poll, is_new ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event));
    return answer(result);
}

void cbi_sys_poll_forget(int poll, int fd) {
    (void)epoll_ctl(poll, EPOLL_CTL_DEL, fd, NULL); /* what is not there is forgotten already */
}

int cbi_sys_poll_wait(int poll, cbi_sys_event *events, int count, int timeout_ms) {
    enum { EVENTS_MAX = 64 };
    struct epoll_event ready[EVENTS_MAX];
    int n = epoll_wait(poll, ready, count < EVENTS_MAX ? count : EVENTS_MAX, timeout_ms);
    if (n < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    for (int i = 0; i < n; i++) {
        uint32_t what = ready[i].events;
        events[i] = (cbi_sys_event){.token = ready[i].data.u64,
                                    .readable = (what & (unsigned)EPOLLIN) != 0,
                                    .writable = (what & (unsigned)EPOLLOUT) != 0,
                                    .hung_up = (what & (unsigned)(EPOLLHUP | EPOLLERR)) != 0};
    }
    return n;
}

int cbi_sys_wait_for(int fd, bool writable, int timeout_ms) {
    struct pollfd one = {.fd = fd, .events = (short)(writable ? POLLOUT : POLLIN)};
    int n = poll(&one, 1, timeout_ms);
    return n < 0 && errno != EINTR ? -errno : n > 0 ? 1 : 0;
}

int cbi_sys_bell_create(void) {
    int fd;
    SYS_CALL(fd, CBI_FAULT_OPEN, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    return answer(fd);
}

void cbi_sys_bell_ring(int fd) {
    int why = errno; /* of what a signal interrupted */
    uint64_t one = 1;
    ssize_t put = write(fd, &one, sizeof one);
    (void)put; /* it is full: then it is rung already */
    errno = why;
}

void cbi_sys_bell_clear(int fd) {
    uint64_t count = 0;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got;
}
