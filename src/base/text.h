/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "base/base.h"

/* Text of unknown length into a buffer of known length, as snprintf does it for one piece. */

typedef struct cbi_text {
    char *text;    /* ends with '\0' as long as bytes > 0; may be NULL when bytes is 0 */
    size_t bytes;  /* of text */
    size_t needed; /* what all of it takes so far, without the '\0' */
} cbi_text;

/** Starts with an empty text. */
static inline cbi_text cbi_text_init(char *text, size_t bytes) {
    if (bytes > 0)
        text[0] = '\0';
    return (cbi_text){.text = text, .bytes = bytes};
}

/** Appends what fits; `needed` grows by all of it. */
void cbi_text_put(cbi_text *w, const char *fmt, ...) CBI_PRINTF(2, 3);
