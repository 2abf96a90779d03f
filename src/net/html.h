/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_HTML_H
#define CBI_HTML_H

#include "base/base.h"

/*
 * A page that is written into a buffer of fixed size. Markup and foreign text have calls of their
 * own, so that no name can become markup. What does not fit whole is left out: who writes rows asks
 * for room first.
 */

typedef struct cbi_html {
    char *text;
    size_t used, room;
    bool full; /* something was left out */
} cbi_html;

/** Markup: constants and numbers only. */
void cbi_html_put(cbi_html *h, const char *fmt, ...) CBI_PRINTF(2, 3);
/** Foreign text, in markup or in an attribute's quotes. What is not UTF-8 or would not be seen as
 *  it is, is shown as \xNN or \u{N}. */
void cbi_html_text(cbi_html *h, const char *text);
/** The same as a part of a URL. */
void cbi_html_url(cbi_html *h, const char *text);
/** "12.5 MiB". */
void cbi_html_bytes(cbi_html *h, uint64_t bytes);
/** Bytes that still fit; a piece of foreign text takes up to six times its own. */
static inline size_t cbi_html_left(const cbi_html *h) {
    return h->room - h->used;
}

#endif
