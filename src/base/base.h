/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_BASE_H
#define CBI_BASE_H

#include <assert.h> /* static_assert; the other assert is not used */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "carbide/status.h"

#define CBI_KIB ((size_t)1024)
#define CBI_MIB ((size_t)1024 * 1024)
#define CBI_GIB ((size_t)1024 * 1024 * 1024)

#define CBI_LIKELY(x) __builtin_expect(!!(x), 1)
#define CBI_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define CBI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define CBI_CACHE_LINE 64

/** Runs `expr`; on anything but CB_OK the enclosing function returns it. The only hidden control
 * flow in the house. */
#define CB_TRY(expr)                                                                               \
    do {                                                                                           \
        cb_status cbi_try_status_ = (expr);                                                        \
        if (CBI_UNLIKELY(cbi_try_status_ != CB_OK))                                                \
            return cbi_try_status_;                                                                \
    } while (0)

/**
 * Three prices of assertion. cb_assert stays in release builds: a broken invariant ends the process
 * before it can write a wrong byte. cb_assert_debug is for hot paths, cb_assert_slow for
 * whole-structure checks.
 */
_Noreturn void cbi_assert_failed(const char *expr, const char *file, int line, const char *func);
#define cb_assert(expr)                                                                            \
    (CBI_LIKELY(expr) ? (void)0 : cbi_assert_failed(#expr, __FILE__, __LINE__, __func__))
#ifdef CARBIDE_DEBUG
#define cb_assert_debug(expr) cb_assert(expr)
#else
#define cb_assert_debug(expr) ((void)0)
#endif
#ifdef CARBIDE_DEBUG_SLOW
#define cb_assert_slow(expr) cb_assert(expr)
#else
#define cb_assert_slow(expr) ((void)0)
#endif

/** Fills `err` (if any) and returns `status`, so that `return cbi_fail(...)` reads as one thought.
 */
cb_status cbi_fail(cb_error *err, cb_status status, const char *fmt, ...) CBI_PRINTF(3, 4);
/**
 * The same for a failed system call (errno or the -errno of a cbi_sys_* answer): ": <strerror>" is
 * appended. ENOMEM becomes CB_ENOMEM, every other errno becomes `status`; but CB_ENOSPC (a write of
 * temporary data) is kept for ENOSPC, EDQUOT and EFBIG, and any other errno is CB_EIO then.
 */
cb_status cbi_fail_sys(cb_error *err, cb_status status, int sys_errno, const char *fmt, ...)
    CBI_PRINTF(4, 5);
/** A refusal with its two figures. */
cb_status cbi_fail_bytes(cb_error *err, cb_status status, uint64_t asked, uint64_t had,
                         const char *fmt, ...) CBI_PRINTF(5, 6);

/** The message is `before`, the name (255 bytes of it at most), `after`: for answers that
 *  are no trouble and come by the million, where formatting takes longer than what was asked for.
 */
cb_status cbi_fail_name(cb_error *err, cb_status status, const char *before, const char *name,
                        const char *after);

/* What a reader knows and the static analyser does not: they answer the status that they were
 * given, which is no success. */
#if defined(__clang_analyzer__) && !defined(CBI_STATUS_IMPLEMENTATION)
#define cbi_fail(err, status, ...) ((void)cbi_fail(err, status, __VA_ARGS__), (status))
#define cbi_fail_name(err, status, ...) ((void)cbi_fail_name(err, status, __VA_ARGS__), (status))
#define cbi_fail_sys(err, status, ...) ((void)cbi_fail_sys(err, status, __VA_ARGS__), (status))
#define cbi_fail_bytes(err, status, ...) ((void)cbi_fail_bytes(err, status, __VA_ARGS__), (status))
#endif

static inline size_t cbi_round_up(size_t n, size_t power_of_two) {
    return (n + power_of_two - 1) & ~(power_of_two - 1);
}
static inline size_t cbi_min(size_t a, size_t b) {
    return a < b ? a : b;
}
static inline size_t cbi_max(size_t a, size_t b) {
    return a > b ? a : b;
}
static inline size_t cbi_clamp(size_t n, size_t low, size_t high) {
    return n < low ? low : n > high ? high : n;
}

/* Unaligned access without aliasing trouble; compilers turn these into one instruction. */
static inline uint64_t cbi_load_u64(const void *p) {
    uint64_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
static inline uint32_t cbi_load_u32(const void *p) {
    uint32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}
static inline void cbi_store_u64(void *p, uint64_t v) {
    __builtin_memcpy(p, &v, sizeof v);
}
static inline void cbi_store_u32(void *p, uint32_t v) {
    __builtin_memcpy(p, &v, sizeof v);
}
static inline uint64_t cbi_load_be64(const void *p) {
    return __builtin_bswap64(cbi_load_u64(p));
}

/** memcpy for what is mostly keys and short rows: up to 32 bytes are two moves that may overlap,
 * with no call. */
static inline void cbi_copy_short(void *restrict to, const void *restrict from, size_t bytes) {
    uint8_t *out = to;
    const uint8_t *in = from;
    if (CBI_UNLIKELY(bytes > 32)) {
        __builtin_memcpy(to, from, bytes);
    } else if (bytes >= 16) {
        __builtin_memcpy(out, in, 16);
        __builtin_memcpy(out + bytes - 16, in + bytes - 16, 16);
    } else if (bytes >= 8) {
        uint64_t last = cbi_load_u64(in + bytes - 8);
        cbi_store_u64(out, cbi_load_u64(in));
        cbi_store_u64(out + bytes - 8, last);
    } else if (bytes >= 4) {
        uint32_t last = cbi_load_u32(in + bytes - 4);
        cbi_store_u32(out, cbi_load_u32(in));
        cbi_store_u32(out + bytes - 4, last);
    } else {
        for (size_t i = 0; i < bytes; i++)
            out[i] = in[i];
    }
}

#endif
