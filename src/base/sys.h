/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SYS_H
#define CBI_SYS_H

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/rank.h"

/*
 * The only place that talks to the operating system. Everything here can be made to fail by a test:
 * see cbi_fault_* at the end. Calls answer as the system does (negative = -errno), EINTR and short
 * transfers are handled here and nowhere else.
 */

/* ---- memory ---- */

/** For a process that is carbide's own, once, before it has threads: makes the C library's heap
 * strict (one arena, freed memory goes back to the system), so that small objects take what they
 * are counted for. */
void cbi_sys_start(void);

/** Anonymous private memory, zeroed, page aligned, in small pages wherever the system would take
 * huge ones unasked; NULL when refused. */
void *cbi_sys_map(size_t bytes);
void cbi_sys_unmap(void *base, size_t bytes);
/** Asks for transparent huge pages there (a hint). */
void cbi_sys_advise_huge(void *base, size_t bytes);
/** Gives the bytes back to the system now; the addresses stay valid and read as zero afterwards. */
void cbi_sys_discard(void *base, size_t bytes);
/** Makes them resident at once, which costs less than a fault each (a hint; at least one system
 * page). false: the system does not do that (kernels before 5.14), or has no memory. */
bool cbi_sys_populate(void *base, size_t bytes);
/** The same for memory that nobody else uses, and no hint: a page at a time where the system does
 *  not do that. false: it has no memory, and some of it may be resident. */
bool cbi_sys_touch(void *base, size_t bytes);
/** Lets the system take them when it wants (MADV_FREE). */
void cbi_sys_free_lazily(void *base, size_t bytes);

/* ---- files; int results are >= 0 or -errno ---- */

int cbi_sys_open(const char *path, int flags, mode_t mode);
int cbi_sys_openat(int dir, const char *path, int flags, mode_t mode);
int cbi_sys_close(int fd);
/** Reads until `bytes` are there or the file ends; answers how many, or -errno. */
ssize_t cbi_sys_pread(int fd, void *buf, size_t bytes, uint64_t offset);
ssize_t cbi_sys_read(int fd, void *buf, size_t bytes);
/** One read(2): what a pipe has now; 0 at the end. */
ssize_t cbi_sys_read_some(int fd, void *buf, size_t bytes);
/** Writes everything: 0 or -errno. */
int cbi_sys_pwrite(int fd, const void *buf, size_t bytes, uint64_t offset);
int cbi_sys_write(int fd, const void *buf, size_t bytes);
/** Vectors; the array is consumed (changed). Everything is transferred: 0 or -errno. preadv answers
 * -EIO at the end of the file. */
int cbi_sys_pwritev(int fd, struct iovec *iov, int count, uint64_t offset);
int cbi_sys_preadv(int fd, struct iovec *iov, int count, uint64_t offset);
int cbi_sys_fstat(int fd, struct stat *st);
int cbi_sys_stat(const char *path, struct stat *st);
int cbi_sys_statat(int dir, const char *name, struct stat *st); /* of the name itself, if a link */
int cbi_sys_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes);
int cbi_sys_truncate(int fd, uint64_t bytes);
int cbi_sys_fsync(int fd);
int cbi_sys_fdatasync(int fd);
int cbi_sys_syncfs(int fd); /* everything of that file system is on disk */
int cbi_sys_rename(const char *from, const char *to);
int cbi_sys_renameat(int from_dir, const char *from, int to_dir, const char *to);
int cbi_sys_linkat_fd(int fd, const char *path); /* gives an O_TMPFILE a name */
/** The path without links into `resolved`, which has PATH_MAX bytes: 0 or -errno. */
int cbi_sys_realpath(const char *path, char *resolved);
int cbi_sys_access(const char *path, int mode);
int cbi_sys_unlink(const char *path);
int cbi_sys_mkdir(const char *path, mode_t mode);
/** Relative to an open folder, so that nobody can swap the path underneath. mkdirat sets `mode`
 * whatever the umask is. */
int cbi_sys_mkdirat(int dir, const char *name, mode_t mode);
int cbi_sys_unlinkat(int dir, const char *name, int flags);
/** Calls `fn` for each name in the folder but "." and ".."; names that come or go meanwhile may or
 * may not be among them. */
typedef void (*cbi_sys_name_fn)(void *ctx, const char *name);
int cbi_sys_list(int dir, cbi_sys_name_fn fn, void *ctx);
int cbi_sys_fadvise(int fd, uint64_t offset, uint64_t bytes, int advice);
/** Where the next read of `fd` begins; -ESPIPE for what has no places. */
int cbi_sys_position(int fd, uint64_t *offset);
/** Whether the byte there can be read without waiting for a disk: it is in the page cache. false
 * when not known. */
bool cbi_sys_cached(int fd, uint64_t offset);
int cbi_sys_sync_range(int fd, uint64_t offset, uint64_t bytes, unsigned flags);
/** Writes a stretch of a buffered file out, waits and drops it from the page cache, which is part
 * of a container's memory; next to nothing when it was written directly. Hints: no failure counts.
 */
void cbi_sys_write_out(int fd, uint64_t offset, uint64_t bytes);
int cbi_sys_set_direct(int fd, bool on);
int cbi_sys_lock_exclusive(
    int fd); /* open-file-description lock, does not wait: -EAGAIN when held */
/** Free bytes for this user on the file system of `fd`; and whether that file system lives in
 * memory. */
int cbi_sys_space(int fd, uint64_t *free_bytes, bool *in_memory);

/* ---- memory that other processes may see; int results are >= 0 or -errno ---- */

/** A file without a name that lies in memory and can be sealed. */
int cbi_sys_memory_file(const char *name);
/** From now on nobody can change it, whoever has it: no writing, growing or shrinking. What is
 *  mapped for writing at `base`, all there is, is mapped for reading instead, at the same place. */
int cbi_sys_seal(int fd, void *base, size_t bytes);
bool cbi_sys_is_sealed(int fd);
/** Maps it: shared for writing, or one that is sealed for reading. NULL when refused. */
void *cbi_sys_map_file(int fd, size_t bytes, bool writable);
/** The most descriptors this process may have, after asking for as many as there can be. */
uint64_t cbi_sys_descriptors_max(void);

/* ---- sockets of this machine, and waiting for them; int results are >= 0 or -errno ---- */

/** Binds to `name` in the open folder, with that mode, and listens; does not wait in accept. */
int cbi_sys_listen(int dir, const char *name, mode_t mode, int backlog);
/** -ECONNREFUSED: nobody listens there any more. */
int cbi_sys_connect(const char *path);
/** A connection that does not wait in transfers, with send buffers of so many bytes (0: as its
 *  listener's); -EAGAIN. */
int cbi_sys_accept(int fd, int send_bytes);
/** One call; 0 at the end; -EAGAIN. Descriptors that come along are refused. */
ssize_t cbi_sys_receive(int fd, void *buf, size_t bytes);
/** The other side has closed, or will say nothing more than what is there to be taken. Waits for
 *  nothing, takes nothing. */
bool cbi_sys_has_ended(int fd);
/** As cbi_sys_receive, and *passed is a descriptor that came with it, or -1. */
ssize_t cbi_sys_receive_fd(int fd, void *buf, size_t bytes, int *passed);
/** One call; with `pass` >= 0 that descriptor goes along. No signal; -EPIPE, -EAGAIN. */
ssize_t cbi_sys_send(int fd, const struct iovec *iov, int count, int pass);
/** Who is at the other end of the socket. */
int cbi_sys_peer(int fd, pid_t *pid, uid_t *uid);
uid_t cbi_sys_uid(void);

enum { CBI_SYS_ADDRESS_MAX = 63 };

/** Where "127.0.0.1:6380", "[::1]:6380" or "localhost:6380" is; names are not looked up. Port 0:
 *  one that is free. -EINVAL: it is no such address. */
typedef struct cbi_sys_address {
    char host[CBI_SYS_ADDRESS_MAX + 1]; /* in digits */
    uint16_t port;
    bool v6, loopback; /* loopback: only this machine reaches it */
    bool anywhere;     /* every address of this machine: to listen at, not to be reached at */
} cbi_sys_address;
int cbi_sys_address_parse(const char *text, cbi_sys_address *address);
/** Listens for TCP there; address->port is set. Connections have buffers of so many bytes (the
 *  system doubles them), send at once, and end when their peer has not been there for a minute. */
int cbi_sys_listen_tcp(cbi_sys_address *address, int receive_bytes, int send_bytes, int backlog);

/** A connection there that does not wait in transfers; connecting takes `timeout_ms` at most:
 *  -ETIMEDOUT. */
int cbi_sys_connect_tcp(const cbi_sys_address *address, int timeout_ms);

/** A lock on an open folder, until unlock or the end; does not wait: -EAGAIN. */
int cbi_sys_lock_folder(int fd);
void cbi_sys_unlock_folder(int fd);

typedef struct cbi_sys_event {
    uint64_t token;
    bool readable, writable, hung_up;
} cbi_sys_event;
int cbi_sys_poll_create(void);
/** Says what is waited for on `fd`, which is new to `poll` or not; neither: only its end. */
int cbi_sys_poll_set(int poll, int fd, bool is_new, bool readable, bool writable, uint64_t token);
/** Nothing is heard of it any more; it stays open. */
void cbi_sys_poll_forget(int poll, int fd);
/** Up to `count` events; 0 when the time has passed. */
int cbi_sys_poll_wait(int poll, cbi_sys_event *events, int count, int timeout_ms);
/** The same for one descriptor: 1 when it is ready (or ended), 0 when the time has passed. */
int cbi_sys_wait_for(int fd, bool writable, int timeout_ms);
/** A descriptor that becomes readable when rung. ring may be called in a signal handler. */
int cbi_sys_bell_create(void);
void cbi_sys_bell_ring(int fd);
void cbi_sys_bell_clear(int fd);

/* ---- clock ---- */

uint64_t cbi_sys_clock_ns(void); /* monotonic */
uint64_t cbi_sys_time_ns(void);  /* since 1970; it may go back */
uint64_t cbi_sys_cpu_ns(void);   /* CPU time of all threads of this process */
void cbi_sys_sleep_ns(uint64_t ns);

/* ---- threads ---- */

enum {
    CBI_THREAD_STACK_BYTES = 256 * 1024
}; /* address space; what is touched is what is counted */

typedef struct cbi_thread {
    pthread_t id;
    bool running;
} cbi_thread;
typedef void (*cbi_thread_fn)(void *ctx);
/** What a thread of ours touches of its stack, at most: its account. */
enum { CBI_STACK_TOUCHED_BYTES = 40 * 1024 };
/** All signals are blocked in the new thread. CB_ETHREAD when the system refuses. */
cb_status cbi_thread_start(cbi_thread *thread, cbi_thread_fn fn, void *ctx, const char *name,
                           cb_error *err);
void cbi_thread_join(cbi_thread *thread); /* nothing when it never ran */

typedef struct cbi_mutex {
    pthread_mutex_t system;
#ifdef CARBIDE_DEBUG
    cbi_rank rank;
#endif
} cbi_mutex;
typedef pthread_cond_t cbi_cond; /* on the monotonic clock */
void cbi_mutex_init(cbi_mutex *m, cbi_rank rank);
void cbi_mutex_fini(cbi_mutex *m);
void cbi_mutex_lock(cbi_mutex *m);
void cbi_mutex_unlock(cbi_mutex *m);
void cbi_cond_init(cbi_cond *c);
void cbi_cond_fini(cbi_cond *c);
void cbi_cond_wait(cbi_cond *c, cbi_mutex *m);
/** false when `deadline_ns` (of cbi_sys_clock_ns) has passed. */
bool cbi_cond_wait_until(cbi_cond *c, cbi_mutex *m, uint64_t deadline_ns);
void cbi_cond_signal(cbi_cond *c);
void cbi_cond_broadcast(cbi_cond *c);

/* ---- what this process has and may have ---- */

unsigned cbi_sys_cpus(void); /* allowed by affinity and by the cgroup's quota, at least 1 */
uint64_t cbi_sys_memory_total(void);
uint64_t cbi_sys_memory_available(void);
/** The tightest memory limit of this process's cgroup and its ancestors, v1 or v2; UINT64_MAX when
 * there is none. */
uint64_t cbi_sys_cgroup_limit(void);
/** What that tightest cgroup uses now without what the kernel can drop at once (clean file pages);
 * 0 when unknown. */
uint64_t cbi_sys_cgroup_used(void);
uint64_t cbi_sys_rss(void);      /* now */
uint64_t cbi_sys_rss_peak(void); /* VmHWM */

/** The file mode creation mask, read without changing it. */
mode_t cbi_sys_umask(void);

typedef struct cbi_cpu {
    bool avx2;
    bool avx512; /* F, BW, VL, DQ, VBMI (bytes across), VBMI2 (compress) */
} cbi_cpu;
const cbi_cpu *cbi_sys_cpu(void); /* CARBIDE_CPU=baseline|avx2 lowers it, for tests */

/* ---- faults: every call above goes through one counter ---- */

/**
 * In builds with CARBIDE_FAULTS the n-th call of the chosen kinds fails with `sys_errno`, once or
 * from then on. kinds: a bit set of CBI_FAULT_*. The command of such a build reads
 * CARBIDE_FAULT=KINDS:N:once|ever:ERRNO.
 */
enum {
    CBI_FAULT_ALLOC = 1, /* cbi_alloc & co, cbi_sys_map, cbi_sys_map_file */
    CBI_FAULT_OPEN = 2,  /* sockets and accept too */
    CBI_FAULT_READ = 4,  /* receive too */
    CBI_FAULT_WRITE = 8, /* send too */
    CBI_FAULT_FILE = 16, /* stat, fallocate, truncate, sync, rename, link, unlink, mkdir, space,
                            seal, poll */
    CBI_FAULT_THREAD = 32,
    CBI_FAULT_SHORT =
        64, /* reads and writes transfer one byte less than could be; never an error */
    CBI_FAULT_ALL = 63
};
void cbi_fault_arm(unsigned kinds, uint64_t n, bool for_ever, int sys_errno);
void cbi_fault_arm_from_environment(void);
uint64_t cbi_fault_count(void); /* calls of the armed kinds so far */
bool cbi_fault_fired(void);

#endif
