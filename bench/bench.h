/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

/* What the programs here have in common: the clock, and an end with a sentence. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "carbide/status.h"

static inline double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline void must(cb_status status, const cb_error *err) {
    if (status != CB_OK) {
        (void)fprintf(stderr, "%s: %s\n", program_invocation_short_name, err->message);
        exit(2);
    }
}

#endif
