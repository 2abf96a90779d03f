/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <malloc.h>
#include <sys/mman.h>

#include "base/fault.h"
#include "base/sys.h"

/*
 * glibc's defaults are made for speed with memory to spare: an arena for each thread, a threshold
 * for mmap that climbs to 32 MiB as blocks are freed, and freed memory kept. A budget wants the
 * opposite; small objects are few here, so one arena costs nothing that could be measured.
 */
void cbi_sys_start(void) {
#ifdef __GLIBC__
    (void)mallopt(M_ARENA_MAX, 1);
    (void)mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    (void)mallopt(M_TRIM_THRESHOLD, 128 * 1024);
    (void)mallopt(M_TOP_PAD, 64 * 1024);
#endif
}

void *cbi_sys_map(size_t bytes) {
    if (CBI_FAULT(CBI_FAULT_ALLOC) != 0) {
        return NULL;
    }
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        return NULL;
    }
    /* Where transparent huge pages are always on, the first byte touched of 2 MiB takes all of them
     * and khugepaged may do the same to what lies there: more would be resident than any account
     * says. Small mappings too: neighbours become one. */
    (void)madvise(base, bytes, MADV_NOHUGEPAGE);
    return base;
}

void cbi_sys_unmap(void *base, size_t bytes) {
    if (base != NULL) {
        int failed = munmap(base, bytes);
        cb_assert(failed == 0); /* only an address that was never mapped fails */
    }
}

void cbi_sys_advise_huge(void *base, size_t bytes) {
    (void)madvise(base, bytes, MADV_HUGEPAGE);
}

void cbi_sys_discard(void *base, size_t bytes) {
    int failed = madvise(base, bytes, MADV_DONTNEED);
    cb_assert(failed == 0); /* callers count on zeroes */
}

/** 0, or -errno: -EINVAL where the system does not know it (before Linux 5.14). */
static int populate(void *base, size_t bytes) {
#ifdef MADV_POPULATE_WRITE
    return madvise(base, bytes, MADV_POPULATE_WRITE) == 0 ? 0 : -errno;
#else
    (void)base;
    (void)bytes;
    return -EINVAL;
#endif
}

bool cbi_sys_populate(void *base, size_t bytes) {
    return populate(base, bytes) == 0;
}

bool cbi_sys_touch(void *base, size_t bytes) {
    enum { LEAST_PAGE = 4096 };
    int result = populate(base, bytes);
    if (result != -EINVAL) { /* who writes where there is no memory for it is killed */
        return result == 0;
    }
    volatile uint8_t *at = base;
    for (size_t i = 0; i < bytes; i += LEAST_PAGE) {
        at[i] = at[i]; /* a write: a read would get the page of zeroes that all share */
    }
    return true;
}

void cbi_sys_free_lazily(void *base, size_t bytes) {
    (void)madvise(base, bytes, MADV_FREE);
}
