/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>

#include "base/alloc.h"
#include "base/fault.h"
#include "base/sys.h"

enum { NS_PER_SECOND = 1000000000 };

/* ---- clock ---- */

uint64_t cbi_sys_clock_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t cbi_sys_time_ns(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t cbi_sys_cpu_ns(void) {
    struct timespec used;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (uint64_t)used.tv_sec * NS_PER_SECOND + (uint64_t)used.tv_nsec;
}

static struct timespec timespec_of(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_SECOND),
                             .tv_nsec = (long)(ns % NS_PER_SECOND)};
}

void cbi_sys_sleep_ns(uint64_t ns) {
    struct timespec until = timespec_of(cbi_sys_clock_ns() + ns);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

/* ---- threads ---- */

/* Sanitizers put red zones and shadow state on the stack. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_FACTOR 4
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define STACK_FACTOR 4
#endif
#endif
#ifndef STACK_FACTOR
#define STACK_FACTOR 1
#endif

typedef struct thread_start {
    cbi_thread_fn fn;
    void *ctx;
    char name[16]; /* what Linux keeps */
} thread_start;

static void *run_thread(void *arg) {
    thread_start start = *(thread_start *)arg;
    cbi_free(arg);
    (void)pthread_setname_np(pthread_self(), start.name);
    start.fn(start.ctx);
#ifdef CARBIDE_DEBUG
    cb_assert(cbi_rank_held() == 0);
#endif
    return NULL;
}

/* Signals belong to the thread that main runs in: a new thread inherits a mask that blocks them
 * all. */
static int create_with_signals_blocked(pthread_t *id, const pthread_attr_t *attr,
                                       thread_start *start) {
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int refused = pthread_create(id, attr, run_thread, start);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return refused;
}

cb_status cbi_thread_start(cbi_thread *thread, cbi_thread_fn fn, void *ctx, const char *name,
                           cb_error *err) {
    thread->running = false;
    thread_start *start = cbi_alloc(sizeof *start);
    if (start == NULL) {
        return cbi_fail(err, CB_ENOMEM, "no memory to start the thread \"%s\"", name);
    }
    start->fn = fn;
    start->ctx = ctx;
    (void)snprintf(start->name, sizeof start->name, "%s", name);

    int refused = CBI_FAULT(CBI_FAULT_THREAD);
    if (refused == 0) {
        pthread_attr_t attr;
        (void)pthread_attr_init(&attr);
        (void)pthread_attr_setstacksize(&attr, (size_t)CBI_THREAD_STACK_BYTES * STACK_FACTOR);
        refused = create_with_signals_blocked(&thread->id, &attr, start);
        (void)pthread_attr_destroy(&attr);
    }
    if (refused != 0) {
        cbi_free(start);
        (void)cbi_fail_sys(err, CB_ETHREAD, refused, "cannot start the thread \"%s\"", name);
        if (err != NULL) {
            err->status = CB_ETHREAD; /* also where the system's reason was memory */
        }
        return CB_ETHREAD;
    }
    thread->running = true;
    return CB_OK;
}

void cbi_thread_join(cbi_thread *thread) {
    if (thread->running) {
        int failed = pthread_join(thread->id, NULL);
        cb_assert(failed == 0);
        thread->running = false;
    }
}

/* ---- locks: what can fail here are broken invariants only ---- */

void cbi_mutex_init(cbi_mutex *m, cbi_rank rank) {
    int failed = pthread_mutex_init(&m->system, NULL);
    cb_assert(failed == 0);
#ifdef CARBIDE_DEBUG
    m->rank = rank;
#else
    (void)rank;
#endif
}

void cbi_mutex_fini(cbi_mutex *m) {
    int failed = pthread_mutex_destroy(&m->system);
    cb_assert(failed == 0); /* EBUSY: somebody still holds it */
}

void cbi_mutex_lock(cbi_mutex *m) {
#ifdef CARBIDE_DEBUG
    cbi_rank_take(m, m->rank);
#endif
    int failed = pthread_mutex_lock(&m->system);
    cb_assert(failed == 0);
}

void cbi_mutex_unlock(cbi_mutex *m) {
#ifdef CARBIDE_DEBUG
    cbi_rank_give(m);
#endif
    int failed = pthread_mutex_unlock(&m->system);
    cb_assert(failed == 0);
}

void cbi_cond_init(cbi_cond *c) {
    pthread_condattr_t attr;
    int failed = pthread_condattr_init(&attr);
    failed |= pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    failed |= pthread_cond_init(c, &attr);
    cb_assert(failed == 0);
    (void)pthread_condattr_destroy(&attr);
}

void cbi_cond_fini(cbi_cond *c) {
    int failed = pthread_cond_destroy(c);
    cb_assert(failed == 0);
}

void cbi_cond_wait(cbi_cond *c, cbi_mutex *m) {
    int failed = pthread_cond_wait(c, &m->system);
    cb_assert(failed == 0);
}

bool cbi_cond_wait_until(cbi_cond *c, cbi_mutex *m, uint64_t deadline_ns) {
    struct timespec until = timespec_of(deadline_ns);
    int result = pthread_cond_timedwait(c, &m->system, &until);
    cb_assert(result == 0 || result == ETIMEDOUT);
    return result == 0;
}

void cbi_cond_signal(cbi_cond *c) {
    int failed = pthread_cond_signal(c);
    cb_assert(failed == 0);
}

void cbi_cond_broadcast(cbi_cond *c) {
    int failed = pthread_cond_broadcast(c);
    cb_assert(failed == 0);
}
