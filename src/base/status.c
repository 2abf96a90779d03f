/* SPDX-License-Identifier: Apache-2.0 */
#define CBI_STATUS_IMPLEMENTATION
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/base.h"

const char *cb_status_name(cb_status status) {
    switch (status) {
#define STATUS_NAME(name, value, text)                                                             \
    case name: return #name;
        CB_STATUS_MAP(STATUS_NAME)
#undef STATUS_NAME
    }
    return "CB_UNKNOWN";
}

const char *cb_status_text(cb_status status) {
    switch (status) {
#define STATUS_TEXT(name, value, text)                                                             \
    case name: return text;
        CB_STATUS_MAP(STATUS_TEXT)
#undef STATUS_TEXT
    }
    return "an unknown status";
}

static CBI_PRINTF(2, 0) size_t fill_message(cb_error *err, const char *fmt, va_list args) {
    int written = vsnprintf(err->message, sizeof err->message, fmt, args);
    if (written < 0) {
        err->message[0] = '\0';
        return 0;
    }
    return cbi_min((size_t)written, sizeof err->message - 1);
}

static void fill_numbers(cb_error *err, cb_status status, int sys_errno, uint64_t asked,
                         uint64_t had) {
    err->status = status;
    err->sys_errno = sys_errno;
    err->bytes_asked = asked;
    err->bytes_had = had;
}

cb_status cbi_fail(cb_error *err, cb_status status, const char *fmt, ...) {
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        (void)fill_message(err, fmt, args);
        va_end(args);
        fill_numbers(err, status, 0, 0, 0);
    }
    return status;
}

cb_status cbi_fail_name(cb_error *err, cb_status status, const char *before, const char *name,
                        const char *after) {
    enum { NAME_MAX_SHOWN = 255 };
    if (err != NULL) {
        const char *const parts[] = {before, name, after};
        size_t used = 0;
        for (size_t i = 0; i < 3; i++) {
            size_t room =
                cbi_min(sizeof err->message - 1 - used, i == 1 ? NAME_MAX_SHOWN : SIZE_MAX);
            size_t bytes = strnlen(parts[i], room);
            memcpy(err->message + used, parts[i], bytes);
            used += bytes;
        }
        err->message[used] = '\0';
        fill_numbers(err, status, 0, 0, 0);
    }
    return status;
}

static bool is_out_of_space(int sys_errno) {
    return sys_errno == ENOSPC || sys_errno == EDQUOT || sys_errno == EFBIG;
}

static cb_status status_of_errno(cb_status status, int sys_errno) {
    if (sys_errno == ENOMEM) {
        return CB_ENOMEM;
    }
    if (status == CB_ENOSPC && !is_out_of_space(sys_errno)) {
        return CB_EIO;
    }
    return status;
}

cb_status cbi_fail_sys(cb_error *err, cb_status status, int sys_errno, const char *fmt, ...) {
    if (sys_errno < 0) { /* the negative answer of a cbi_sys_* call is as good */
        sys_errno = -sys_errno;
    }
    status = status_of_errno(status, sys_errno);
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        size_t used = fill_message(err, fmt, args);
        va_end(args);
        const char *reason = strerrordesc_np(sys_errno);
        size_t room = sizeof err->message - used;
        if (reason != NULL) {
            (void)snprintf(err->message + used, room, ": %s", reason);
        } else {
            (void)snprintf(err->message + used, room, ": error %d", sys_errno);
        }
        fill_numbers(err, status, sys_errno, 0, 0);
    }
    return status;
}

cb_status cbi_fail_bytes(cb_error *err, cb_status status, uint64_t asked, uint64_t had,
                         const char *fmt, ...) {
    if (err != NULL) {
        va_list args;
        va_start(args, fmt);
        (void)fill_message(err, fmt, args);
        va_end(args);
        fill_numbers(err, status, 0, asked, had);
    }
    return status;
}
