/* SPDX-License-Identifier: Apache-2.0 */
#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>

void cbi_text_put(cbi_text *w, const char *fmt, ...) {
    size_t room = w->needed < w->bytes ? w->bytes - w->needed : 0;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(room > 0 ? w->text + w->needed : NULL, room, fmt, args);
    va_end(args);
    w->needed += n > 0 ? (size_t)n : 0;
}
