/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_SYS_CALL_H
#define CBI_SYS_CALL_H

/* For the files that call the system (sys_*.c), and nobody else. */

#include <errno.h>

#include "base/fault.h"

/* The first errno of a call that has no loop of its own: ask the fault counter, call, make it again
 * when interrupted. */
#define SYS_CALL(result, kind, call)                                                               \
    do {                                                                                           \
        int sys_fault_ = CBI_FAULT(kind);                                                          \
        if (sys_fault_ != 0) {                                                                     \
            (result) = -1;                                                                         \
            errno = sys_fault_;                                                                    \
        } else {                                                                                   \
            (result) = (call);                                                                     \
        }                                                                                          \
    } while ((result) < 0 && errno == EINTR)

/* A call's result as sys.h answers it: not negative, or -errno. */
static inline int answer(int result) {
    return result < 0 ? -errno : result;
}

#endif
