/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REDIS_NEWS_H
#define CBI_REDIS_NEWS_H

#include "carbide/directory.h"

/* How an executor stands in a directory, and whether that is news to whoever wants to be told. */

/** The words come without what a terminal would obey, and cut to their room. */
void cbi_redis_state_set(cb_directory_state *state, cb_status status, const char *words);

typedef struct cbi_redis_news {
    void (*changed)(void *ctx, const cb_directory_state *state); /* NULL: nobody is told */
    void *changed_ctx;
    cb_directory_state said; /* CB_EAGAIN: nothing yet */
    uint64_t failure_ns;     /* when a failure was said last; 0: never */
} cbi_redis_news;

void cbi_redis_news_init(cbi_redis_news *news,
                         void (*changed)(void *ctx, const cb_directory_state *state),
                         void *changed_ctx);
/** Tells what is new: not that it is under way, nothing twice, and no failure within ten seconds of
 *  the last one, so who comes by often with failures that are never the same fills no log. */
void cbi_redis_news_tell(cbi_redis_news *news, const cb_directory_state *now, uint64_t clock_ns);

#endif
