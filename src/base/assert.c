/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

/* No allocation and no stdio stream here: the heap may be what is broken. */
_Noreturn void cbi_assert_failed(const char *expr, const char *file, int line, const char *func) {
    char text[512];
    int length =
        snprintf(text, sizeof text,
                 "carbide: invariant does not hold: %s (%s:%d, %s). This is a bug in carbide; "
                 "nothing more is written.\n",
                 expr, file, line, func);
    if (length > 0) {
        size_t bytes = cbi_min((size_t)length, sizeof text - 1);
        ssize_t ignored = write(STDERR_FILENO, text, bytes);
        (void)ignored;
    }
    abort();
}
