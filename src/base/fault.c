/* SPDX-License-Identifier: Apache-2.0 */
#include "base/fault.h"

#ifdef CARBIDE_FAULTS

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * One counter for all kinds that are armed. A test runs its scenario with n = 1, 2, 3 ... until
 * nothing fires any more: then every call that the scenario makes has failed once. Threads make the
 * order of calls vary from run to run, which is fine: each run is a valid history, and the loop
 * ends all the same.
 *
 * A command that is run as a whole is armed by its environment before main:
 *     CARBIDE_FAULT=KINDS:N:once|ever:ERRNO    KINDS: a number or names joined by '+'
 * (alloc+write); ERRNO: name or number CARBIDE_FAULT_REPORT=FILE                at exit "count
 * COUNT fired 0|1" is written there
 */
static atomic_uint armed_kinds;
static _Atomic uint64_t calls;
static _Atomic bool fired;
static uint64_t fire_at;
static bool fire_for_ever;
static int fire_errno;

void cbi_fault_arm(unsigned kinds, uint64_t n, bool for_ever, int sys_errno) {
    atomic_store(&armed_kinds, 0);
    fire_at = n;
    fire_for_ever = for_ever;
    fire_errno = sys_errno;
    atomic_store(&calls, 0);
    atomic_store(&fired, false);
    atomic_store(&armed_kinds, kinds);
}

uint64_t cbi_fault_count(void) {
    return atomic_load(&calls);
}

bool cbi_fault_fired(void) {
    return atomic_load(&fired);
}

int cbi_fault_next(unsigned kind) {
    if (CBI_LIKELY((atomic_load_explicit(&armed_kinds, memory_order_acquire) & kind) == 0)) {
        return 0;
    }
    uint64_t call = atomic_fetch_add(&calls, 1) + 1;
    if (fire_at == 0 || call < fire_at || (call > fire_at && !fire_for_ever)) {
        return 0;
    }
    /* Interrupted for ever would be a hang and not a failure: every other call gets through. */
    if (fire_errno == EINTR && (call - fire_at) % 2 == 1) {
        return 0;
    }
    atomic_store(&fired, true);
    return fire_errno;
}

typedef struct name_value {
    const char *name;
    int value;
} name_value;

static const name_value kind_names[] = {
    {"alloc", CBI_FAULT_ALLOC}, {"open", CBI_FAULT_OPEN}, {"read", CBI_FAULT_READ},
    {"write", CBI_FAULT_WRITE}, {"file", CBI_FAULT_FILE}, {"thread", CBI_FAULT_THREAD},
    {"short", CBI_FAULT_SHORT}, {"all", CBI_FAULT_ALL},   {NULL, 0},
};
static const name_value errno_names[] = {
    {"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EFBIG", EFBIG},
    {"ENOMEM", ENOMEM}, {"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"EINTR", EINTR},
    {"EAGAIN", EAGAIN}, {"EACCES", EACCES}, {"EPERM", EPERM},   {"EROFS", EROFS},
    {"EINVAL", EINVAL}, {"ENOENT", ENOENT}, {"EPIPE", EPIPE},   {NULL, 0},
};

/* -1 when it is neither a name of the table nor a number. */
static int value_of(const char *word, size_t length, const name_value *names) {
    for (; names->name != NULL; names++) {
        if (strlen(names->name) == length && strncmp(names->name, word, length) == 0) {
            return names->value;
        }
    }
    int value = 0;
    for (size_t i = 0; i < length; i++) {
        if (word[i] < '0' || word[i] > '9' || value > 100000) {
            return -1;
        }
        value = value * 10 + (word[i] - '0');
    }
    return length > 0 ? value : -1;
}

static _Noreturn void bad_setting(const char *setting) {
    (void)fprintf(stderr, "carbide: CARBIDE_FAULT=%s is not KINDS:N:once|ever:ERRNO\n", setting);
    _Exit(2);
}

static void arm_from(const char *setting) {
    unsigned kinds = 0;
    const char *at = setting;
    for (;;) {
        size_t length = strcspn(at, "+:");
        int kind = value_of(at, length, kind_names);
        if (kind < 0 || at[length] == '\0') {
            bad_setting(setting);
        }
        kinds |= (unsigned)kind;
        at += length + 1;
        if (at[-1] == ':') {
            break;
        }
    }
    char *end = NULL;
    uint64_t n = strtoull(at, &end, 10);
    bool for_ever = strncmp(end, ":ever:", 6) == 0;
    if (!for_ever && strncmp(end, ":once:", 6) != 0) {
        bad_setting(setting);
    }
    int sys_errno = value_of(end + 6, strlen(end + 6), errno_names);
    if (sys_errno <= 0) {
        bad_setting(setting);
    }
    cbi_fault_arm(kinds, n, for_ever, sys_errno);
}

static void write_report(void) {
    const char *path = getenv("CARBIDE_FAULT_REPORT");
    FILE *file = path != NULL ? fopen(path, "w") : NULL;
    if (file != NULL) {
        (void)fprintf(file, "count %llu fired %d\n", (unsigned long long)cbi_fault_count(),
                      cbi_fault_fired() ? 1 : 0);
        (void)fclose(file);
    }
}

void cbi_fault_arm_from_environment(void) {
    const char *setting = getenv("CARBIDE_FAULT");
    if (setting != NULL && setting[0] != '\0') {
        arm_from(setting);
        (void)atexit(write_report);
    }
}

/* The command sees the public headers only, so nobody else could do this for it. */
__attribute__((constructor)) static void arm_before_main(void) {
    cbi_fault_arm_from_environment();
}

#else

void cbi_fault_arm(unsigned kinds, uint64_t n, bool for_ever, int sys_errno) {
    (void)kinds;
    (void)n;
    (void)for_ever;
    (void)sys_errno;
}

void cbi_fault_arm_from_environment(void) {}

uint64_t cbi_fault_count(void) {
    return 0;
}

bool cbi_fault_fired(void) {
    return false;
}

#endif
