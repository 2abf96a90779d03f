/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CARBIDE_STATUS_H
#define CARBIDE_STATUS_H

#include <stdint.h>

#include "carbide/export.h"

CB_EXTERN_C_BEGIN

/**
 * Every answer a call can give. 0 is success, everything else is negative. A refusal (budget,
 * memory, cancelled, deadline) is a normal answer: nothing has changed and the call may be made
 * again. The other classes say what is left behind.
 */
#define CB_STATUS_MAP(X)                                                                           \
    X(CB_OK, 0, "success")                                                                         \
    X(CB_ENOMEM, -1, "the system refused memory")                                                  \
    X(CB_EBUDGET, -2, "the memory budget is too small")                                            \
    X(CB_ECANCELED, -3, "the task was cancelled")                                                  \
    X(CB_EDEADLINE, -4, "the deadline passed while waiting")                                       \
    X(CB_EAGAIN, -5, "not now, try again")                                                         \
    X(CB_EEND, -6, "there is no more data")                                                        \
    X(CB_EIO, -10, "input or output failed")                                                       \
    X(CB_ENOSPC, -11, "no space for temporary data")                                               \
    X(CB_ECORRUPT, -12, "stored data does not match its checksum")                                 \
    X(CB_ETHREAD, -13, "the system refused a thread")                                              \
    X(CB_EDATA, -20, "malformed input data")                                                       \
    X(CB_EDISORDER, -21, "the input is not in order")                                              \
    X(CB_EINVAL, -30, "an argument is not valid")                                                  \
    X(CB_EUNSUPPORTED, -31, "not supported")                                                       \
    X(CB_EMISUSE, -32, "the call breaks the rules of its object (double free, wrong owner ...)")   \
    X(CB_EEXISTS, -33, "it exists already")                                                        \
    X(CB_ENOTFOUND, -34, "there is no such thing")                                                 \
    X(CB_EINTERNAL, -40, "an invariant does not hold; this is a bug in carbide")

typedef enum cb_status {
#define CB_STATUS_ENUM(name, value, text) name = (value),
    CB_STATUS_MAP(CB_STATUS_ENUM)
#undef CB_STATUS_ENUM
} cb_status;

enum { CB_ERROR_MESSAGE_MAX = 1024 };

/**
 * The detail of a failure. Caller-owned; every function that takes one accepts NULL. Written only
 * on failure. `message` is one or more whole sentences: what happened, where, how much was asked
 * and there, what to do.
 */
typedef struct cb_error {
    cb_status status;
    int sys_errno;        /**< errno of the system call that failed, or 0 */
    uint64_t bytes_asked; /**< for refusals: what was asked, else 0 */
    uint64_t bytes_had; /**< for refusals: what was there; for CB_EBUDGET: the smallest budget that
                           will do */
    char message[CB_ERROR_MESSAGE_MAX];
} cb_error;

/** "CB_EBUDGET" for CB_EBUDGET; a constant, never NULL. Any thread. */
CB_API const char *cb_status_name(cb_status status);

/** The sentence of CB_STATUS_MAP; a constant, never NULL. Any thread. */
CB_API const char *cb_status_text(cb_status status);

CB_EXTERN_C_END

#endif
