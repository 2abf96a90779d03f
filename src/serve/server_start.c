/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a server begins and ends. Its budget is divided before it listens: what the process takes
 * already, what connections can come to, and all the rest for blocks.
 *
 * A socket's name stays when its server is killed. Whether somebody is behind it is found by
 * connecting: refused means that nobody listens, and only then the name is taken over. That, the
 * binding and the listening are one step to others, for the folder is locked meanwhile (a lock that
 * goes with the process and leaves no file).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "serve/serve.h"

enum {
    BACKLOG = 128,
    STACK_BYTES = 48 * 1024,
    LEASES = 8192,
    WORKERS = 2,
    CONNECTIONS_LEAST = 16,
    CONNECTIONS_MOST = 1024,
    CONNECTIONS_ENOUGH = 64, /* more than that only as well as fast */
    /* replies on their way, the stack of who waits for them, and of those who send copies */
    DIRECTORY_BYTES = 256 * 1024 + CBI_COPIES_THREADS * STACK_BYTES,
    DESCRIPTORS_ELSE = 64, /* files of blocks, the library's own */
    STAGING_MOST = 12 * 1024 * 1024,
    LOCK_TURNS = 200,
    LOCK_PAUSE_NS = 10 * 1000 * 1000
};

static const uint64_t storage_least = UINT64_C(4) << 20;

/* ---- the budget ---- */

static uint64_t round_pages(uint64_t bytes) {
    return (bytes + 4095) & ~UINT64_C(4095);
}

static uint64_t resp_bytes(const cb_server *s) {
    return s->tcp_wanted ? round_pages(s->connections_max * sizeof(cbi_resp)) : 0;
}

/** Connections, leases and streams, in one piece. */
static size_t tables_size(const cb_server *s) {
    return (size_t)(round_pages(s->connections_max * sizeof(cbi_connection)) + resp_bytes(s) +
                    round_pages(s->leases_max * sizeof(cbi_lease)) +
                    (uint64_t)CBI_STREAMS * CBI_STREAM_BYTES);
}

/** What the system may hold for one. */
static uint64_t socket_cost(const cb_server *s) {
    return s->tcp_wanted ? 2 * (CBI_TCP_SEND_BYTES + (uint64_t)s->receive_bytes) : CBI_SOCKET_COST;
}

/** A sender of a large value stands still each time that we do, unless the socket holds some of it;
 * and what it may hold is in the budget for each connection that there can be. */
static void choose_receive(cb_server *s, const cb_server_options *o) {
    uint64_t connections = o->connections_max > 0 ? o->connections_max : CONNECTIONS_ENOUGH;
    s->receive_bytes = CBI_TCP_RECEIVE_BYTES_MAX;
    while (s->receive_bytes > CBI_TCP_RECEIVE_BYTES &&
           connections * socket_cost(s) > o->memory_bytes / 16) {
        s->receive_bytes /= 2;
    }
}

static void plan(cb_server *s, const cb_server_options *o) {
    s->tcp_wanted = o->listen != NULL;
    choose_receive(s, o);
    uint64_t most = o->memory_bytes / 16 / socket_cost(s);
    s->connections_max =
        o->connections_max > 0
            ? o->connections_max
            : (uint32_t)cbi_clamp((size_t)most, CONNECTIONS_LEAST, CONNECTIONS_MOST);
    uint64_t descriptors = cbi_sys_descriptors_max();
    uint64_t fit = cbi_max(descriptors / 2, descriptors - cbi_min(descriptors, DESCRIPTORS_ELSE));
    if (fit < s->connections_max) { /* files of blocks must be read whoever comes */
        s->connections_max = (uint32_t)cbi_max(fit, 1);
    }
    s->leases_max = o->leases_max > 0 ? o->leases_max : LEASES;
    s->worker_count = o->workers == CBI_NO_WORKERS ? 0 : o->workers > 0 ? o->workers : WORKERS;
    s->timeout_ns = o->timeout_ns > 0 ? o->timeout_ns : UINT64_C(20) * 1000000000;
    s->others = o->others;
    s->preallocates = o->preallocate;
    s->uid = cbi_sys_uid();
    s->level = o->folder != NULL ? CB_LEVEL_MEMORY_AND_DISK_SER : CB_LEVEL_MEMORY_ONLY_SER;
    s->disk_bytes = o->folder == NULL ? 0 : o->disk_max > 0 ? o->disk_max : UINT64_MAX / 4;
    s->table_bytes = tables_size(s);
}

/** Frames of files, by each worker and each stream, and by those who help to let blocks go. */
static uint64_t staging_bytes(const cb_server *s, uint64_t memory_bytes) {
    uint64_t least = (s->worker_count + CBI_STREAMS) * (UINT64_C(640) << 10);
    return cbi_max(least, cbi_min(memory_bytes / 16, STAGING_MOST));
}

static uint64_t fixed_bytes(const cb_server *s, uint64_t memory_bytes) {
    return s->table_bytes + s->connections_max * socket_cost(s) +
           (uint64_t)s->worker_count * STACK_BYTES + staging_bytes(s, memory_bytes) +
           memory_bytes / 512 + (cbi_server_is_executor(s) ? DIRECTORY_BYTES : 0) +
           (s->preallocates ? STACK_BYTES + CBI_READY_STEP_BYTES : 0);
}

static cb_status charge(cb_server *s, const cb_server_options *o, cb_error *err) {
    uint64_t process = cbi_sys_rss();
    uint64_t fixed = fixed_bytes(s, o->memory_bytes) + cbi_min(o->beside_bytes, o->memory_bytes);
    uint64_t least = process + fixed + storage_least;
    if (least > o->memory_bytes) {
        return cbi_fail_bytes(err, CB_EBUDGET, o->memory_bytes, least,
                              "A server of blocks with %u connections needs %llu bytes at least, "
                              "not %llu.",
                              (unsigned)s->connections_max, (unsigned long long)least,
                              (unsigned long long)o->memory_bytes);
    }
    const cb_manager_options m = {
        .struct_size = sizeof m, .heap_bytes = o->memory_bytes, .storage_fraction = 0.5};
    CB_TRY(cb_manager_create(&m, &s->manager, err));
    CB_TRY(cb_ledger_add(s->manager, "process", NULL, NULL, &s->process, err));
    CB_TRY(cb_ledger_add(s->manager, "connections", NULL, NULL, &s->fixed, err));
    CB_TRY(
        cb_ledger_add(s->manager, "small objects", cb_ledger_small_objects, NULL, &s->small, err));
    CB_TRY(cb_ledger_set(s->process, process, err));
    CB_TRY(cb_ledger_set(s->fixed, fixed, err));
    s->stats.budget_bytes = o->memory_bytes;
    return CB_OK;
}

static cb_status make_tables(cb_server *s, cb_error *err) {
    uint8_t *at = s->tables = cbi_sys_map(s->table_bytes);
    if (at == NULL) {
        return cbi_fail_bytes(err, CB_ENOMEM, s->table_bytes, 0,
                              "The system refused %zu bytes for connections.", s->table_bytes);
    }
    s->connections = (void *)at;
    at += round_pages(s->connections_max * sizeof(cbi_connection));
    s->resps = s->tcp_wanted ? (void *)at : NULL;
    at += resp_bytes(s);
    s->lease_table = (void *)at;
    at += round_pages(s->leases_max * sizeof(cbi_lease));
    for (size_t i = 0; i < CBI_STREAMS; i++, at += CBI_STREAM_BYTES) {
        s->streams[i].buffer = at;
    }
    for (uint32_t i = s->connections_max; i-- > 0;) {
        s->connections[i].next = s->free;
        s->connections[i].fd = -1;
        s->free = &s->connections[i];
    }
    for (uint32_t i = s->leases_max; i-- > 0;) {
        s->lease_table[i].next = s->free_lease;
        s->free_lease = 1 + i;
    }
    return CB_OK;
}

static cb_status make_blocks(cb_server *s, const cb_server_options *o, cb_error *err) {
    uint64_t descriptors = cbi_sys_descriptors_max();
    uint64_t other = (uint64_t)s->connections_max + DESCRIPTORS_ELSE;
    const cb_blocks_options b = {.struct_size = sizeof b,
                                 .manager = s->manager,
                                 .folder = o->folder,
                                 .disk_max = o->disk_max,
                                 .codec = o->codec,
                                 .keep = o->keep,
                                 .listener = cbi_server_is_executor(s) ? cbi_executor_note : NULL,
                                 .listener_ctx = s,
                                 .identities = cbi_server_is_executor(s),
                                 .share_bytes_min = s->path != NULL ? CBI_SERVER_SHARE_MIN : 0,
                                 .shares_max =
                                     descriptors > other ? (uint32_t)(descriptors - other) : 0};
    CB_TRY(cb_blocks_create(&b, &s->blocks, err));
    s->blocks->home.staging_paid = (int64_t)staging_bytes(s, o->memory_bytes);
    return CB_OK;
}

/* ---- the socket ---- */

static cb_status socket_failed(const cb_server *s, int sys, const char *what, cb_error *err) {
    return cbi_fail_sys(err, CB_EIO, sys, "the socket %s cannot be %s", s->path, what);
}

static cb_status open_folder(cb_server *s, cb_error *err) {
    char *slash = strrchr(s->path, '/');
    s->name = slash != NULL ? slash + 1 : s->path;
    if (s->name[0] == '\0') {
        return cbi_fail(err, CB_EINVAL, "A socket's path must not end in a slash: %s", s->path);
    }
    if (slash == NULL || slash == s->path) {
        s->dir = cbi_sys_open(slash == NULL ? "." : "/", O_RDONLY | O_DIRECTORY, 0);
    } else {
        *slash = '\0';
        s->dir = cbi_sys_open(s->path, O_RDONLY | O_DIRECTORY, 0);
        *slash = '/';
    }
    if (s->dir < 0) {
        return cbi_fail_sys(err, CB_EIO, s->dir, "the folder of the socket %s cannot be opened",
                            s->path);
    }
    return CB_OK;
}

static cb_status lock_folder(const cb_server *s, cb_error *err) {
    int result = -EAGAIN;
    for (int i = 0; i < LOCK_TURNS && result == -EAGAIN; i++) {
        result = cbi_sys_lock_folder(s->dir);
        if (result == -EAGAIN) {
            cbi_sys_sleep_ns(LOCK_PAUSE_NS);
        }
    }
    return result < 0 ? socket_failed(s, result, "made: its folder is locked", err) : CB_OK;
}

/** What is there under its name goes, if it is a socket without a server. */
static cb_status take_over(const cb_server *s, cb_error *err) {
    struct stat st;
    int result = cbi_sys_statat(s->dir, s->name, &st);
    if (result == -ENOENT) {
        return CB_OK;
    }
    if (result < 0) {
        return socket_failed(s, result, "looked at", err);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return cbi_fail(err, CB_EEXISTS, "There is something else at %s, which is no socket.",
                        s->path);
    }
    int fd = cbi_sys_connect(s->path);
    if (fd >= 0) {
        (void)cbi_sys_close(fd);
    }
    if (fd >= 0 || fd == -EAGAIN) {
        return cbi_fail(err, CB_EEXISTS, "A server answers at %s already.", s->path);
    }
    if (fd != -ECONNREFUSED) {
        return socket_failed(s, fd, "taken over", err);
    }
    result = cbi_sys_unlinkat(s->dir, s->name, 0);
    return result < 0 ? socket_failed(s, result, "taken over", err) : CB_OK;
}

static cb_status bind_socket(cb_server *s, cb_error *err) {
    const mode_t owner = S_IRUSR | S_IWUSR, all = owner | S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH;
    CB_TRY(take_over(s, err));
    s->listener = cbi_sys_listen(s->dir, s->name, s->others ? all : owner, BACKLOG);
    if (s->listener < 0) {
        return socket_failed(s, s->listener, "made", err);
    }
    int result = cbi_sys_statat(s->dir, s->name, &s->socket_id);
    return result < 0 ? socket_failed(s, result, "looked at", err) : CB_OK;
}

static cb_status make_socket(cb_server *s, cb_error *err) {
    CB_TRY(open_folder(s, err));
    CB_TRY(lock_folder(s, err));
    cb_status status = bind_socket(s, err);
    cbi_sys_unlock_folder(s->dir);
    return status;
}

static void drop_socket(cb_server *s) {
    struct stat st;
    if (s->listener < 0) {
        return;
    }
    if (cbi_sys_statat(s->dir, s->name, &st) == 0 && st.st_ino == s->socket_id.st_ino &&
        st.st_dev == s->socket_id.st_dev) {
        (void)cbi_sys_unlinkat(s->dir, s->name, 0);
    }
    (void)cbi_sys_close(s->listener);
    s->listener = -1;
}

/** TCP, for those who speak RESP. Only who has a password is reachable from elsewhere. */
static cb_status listen_tcp(cb_server *s, const cb_server_options *o, cb_error *err) {
    if (cbi_sys_address_parse(o->listen, &s->address) < 0) {
        return cbi_fail(err, CB_EINVAL,
                        "This is no address to listen at: %.100s. It wants digits and a port, as "
                        "127.0.0.1:6380 or [::1]:6380.",
                        o->listen);
    }
    if (!s->address.loopback && s->password == NULL) {
        return cbi_fail(err, CB_EINVAL,
                        "Other machines reach %.100s: a server there needs a password.", o->listen);
    }
    bool holds_much = s->receive_bytes > CBI_TCP_RECEIVE_BYTES; /* for who is not let in yet, too */
    s->tcp = cbi_sys_listen_tcp(&s->address, (int)s->receive_bytes, CBI_TCP_SEND_BYTES,
                                holds_much ? (int)cbi_min(BACKLOG, s->connections_max) : BACKLOG);
    return s->tcp >= 0 ? CB_OK
                       : cbi_fail_sys(err, s->tcp == -EADDRINUSE ? CB_EEXISTS : CB_EIO, s->tcp,
                                      "the server cannot listen at %.100s", o->listen);
}

/* ---- beginning and end ---- */

static cb_status make_poll(cb_server *s, cb_error *err) {
    s->poll = cbi_sys_poll_create();
    s->bell = cbi_sys_bell_create();
    s->spare = cbi_sys_bell_create();
    int result = s->poll < 0 ? s->poll : s->bell < 0 ? s->bell : s->spare < 0 ? s->spare : 0;
    if (result == 0) {
        result = cbi_sys_poll_set(s->poll, s->bell, true, true, false, CBI_TOKEN_BELL);
    }
    if (result == 0 && s->listener >= 0) {
        result = cbi_sys_poll_set(s->poll, s->listener, true, true, false, CBI_TOKEN_LISTENER);
    }
    if (result == 0 && s->tcp >= 0) {
        result = cbi_sys_poll_set(s->poll, s->tcp, true, true, false, CBI_TOKEN_TCP);
    }
    s->listening = s->listening_tcp = true;
    return result < 0 ? cbi_fail_sys(err, CB_EIO, result, "the server cannot wait for connections")
                      : CB_OK;
}

static cb_status start(cb_server *s, const cb_server_options *o, cb_error *err) {
    CB_TRY(charge(s, o, err));
    CB_TRY(make_tables(s, err));
    CB_TRY(make_blocks(s, o, err));
    if (s->path != NULL) {
        CB_TRY(make_socket(s, err));
    }
    if (o->listen != NULL) {
        CB_TRY(listen_tcp(s, o, err));
    }
    CB_TRY(make_poll(s, err));
    s->started_ns = cbi_sys_clock_ns();
    if (o->status != NULL) {
        CB_TRY(cb_status_page_create(o->status, &s->page, err));
    }
    CB_TRY(cbi_executor_enter(s, o, err));
    for (uint32_t i = 0; i < s->worker_count; i++) {
        s->workers[i].server = s;
        CB_TRY(cbi_thread_start(&s->workers[i].thread, cbi_server_work, &s->workers[i],
                                "carbide-serve", err));
    }
    return cbi_preallocate_begin(s, err);
}

static cb_status check(const cb_server_options *o, cb_error *err) {
    bool somewhere = (o->socket != NULL && o->socket[0] != '\0') || o->listen != NULL;
    if (o->struct_size < sizeof *o || !somewhere ||
        (o->workers > CBI_WORKERS_MAX && o->workers != CBI_NO_WORKERS) ||
        o->connections_max > CONNECTIONS_MOST * 64 || o->leases_max > CBI_MIB) {
        return cbi_fail(
            err, CB_EINVAL,
            "A server needs its options' size and a socket or an address, and has at most %d "
            "workers, %d connections and %zu leases.",
            CBI_WORKERS_MAX, CONNECTIONS_MOST * 64, CBI_MIB);
    }
    if (o->password != NULL && (o->password[0] == '\0' || strlen(o->password) > CBI_RESP_ARG_MAX)) {
        return cbi_fail(err, CB_EINVAL, "A password has 1 to %d bytes.", CBI_RESP_ARG_MAX);
    }
    return CB_OK;
}

static cb_status copy_names(cb_server *s, const cb_server_options *o, cb_error *err) {
    if (o->socket != NULL && o->socket[0] != '\0') {
        s->path = cbi_strdup(o->socket);
    }
    if (o->password != NULL) {
        s->password = cbi_strdup(o->password);
    }
    bool there = (o->password == NULL || s->password != NULL) &&
                 (o->socket == NULL || o->socket[0] == '\0' || s->path != NULL);
    return there ? CB_OK : cbi_fail(err, CB_ENOMEM, "The system has no memory for a path.");
}

cb_status cb_server_create(const cb_server_options *o, cb_server **server, cb_error *err) {
    CB_TRY(check(o, err));
    cb_server *s = cbi_calloc(1, sizeof *s);
    if (s == NULL) {
        return cbi_fail(err, CB_ENOMEM, "The system has no memory for a server.");
    }
    s->dir = s->listener = s->tcp = s->poll = s->bell = s->spare = -1;
    cbi_mutex_init(&s->mutex, CBI_RANK_SERVER);
    cbi_cond_init(&s->wake);
    plan(s, o);
    cb_status status = cbi_executor_prepare(s, o, err);
    if (status == CB_OK) {
        status = copy_names(s, o, err);
    }
    if (status == CB_OK) {
        status = start(s, o, err);
    }
    if (status != CB_OK) {
        cb_server_destroy(s);
        return status;
    }
    *server = s;
    return CB_OK;
}

uint16_t cb_server_port(const cb_server *s) {
    return s->tcp >= 0 ? s->address.port : 0;
}

static void stop_workers(cb_server *s) {
    cbi_mutex_lock(&s->mutex);
    s->quit = true;
    cbi_cond_broadcast(&s->wake);
    cbi_mutex_unlock(&s->mutex);
    for (uint32_t i = 0; i < CBI_WORKERS_MAX; i++) {
        cbi_thread_join(&s->workers[i].thread);
    }
    s->worker_count = 0;
}

static void end_connections(cb_server *s) {
    for (uint32_t i = 0; s->connections != NULL && i < s->connections_max; i++) {
        if (s->connections[i].state != CBI_FREE) {
            cbi_connection_end(s, &s->connections[i]);
        }
    }
}

static void close_all(const int *fds, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            (void)cbi_sys_close(fds[i]);
        }
    }
}

void cb_server_destroy(cb_server *s) {
    if (s == NULL) {
        return;
    }
    cb_status_page_destroy(s->page);
    cbi_copies_stop(s->copies);
    cbi_executor_leave(s);
    drop_socket(s);  /* nobody new */
    stop_workers(s); /* they do first what is in the queue */
    cbi_preallocate_end(s);
    if (s->blocks != NULL && s->bell >= 0) {
        cbi_server_take_done(s);
        end_connections(s);
    }
    cb_blocks_destroy(s->blocks);
    cbi_copies_destroy(s->copies);
    cb_ledger_remove(s->small);
    cb_ledger_remove(s->fixed);
    cb_ledger_remove(s->process);
    cb_manager_destroy(s->manager);
    if (s->tables != NULL) {
        cbi_sys_unmap(s->tables, s->table_bytes);
    }
    const int fds[] = {s->dir, s->tcp, s->poll, s->bell, s->spare};
    close_all(fds, sizeof fds / sizeof *fds);
    cbi_cond_fini(&s->wake);
    cbi_mutex_fini(&s->mutex);
    cbi_free(s->password);
    cbi_free(s->path);
    cbi_free(s);
}
