/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REDIS_QUEUE_H
#define CBI_REDIS_QUEUE_H

#include "carbide/directory.h"
#include "net/redis_link.h"

/* Reports of blocks that a directory's server has not been told yet, in their order, in memory of
 * fixed size. Whoever uses it says who may. */

enum { CBI_REDIS_QUEUE_BYTES = 128 * 1024 };

/** A report; the block's name follows. */
typedef struct cbi_redis_report {
    cb_place place; /* of level CB_LEVEL_NONE: it is gone */
    uint8_t name_bytes;
} cbi_redis_report;

typedef struct cbi_redis_queue {
    size_t bytes;
    uint8_t at[CBI_REDIS_QUEUE_BYTES];
} cbi_redis_queue;

/** How much of it one report takes. */
size_t cbi_redis_report_bytes(size_t name_bytes);
/** false: there is no room. */
bool cbi_redis_queue_add(cbi_redis_queue *q, const char *block, const cb_place *place);
/** All of `from`, which is empty then, comes behind; false, and nothing happens: no room. */
bool cbi_redis_queue_append(cbi_redis_queue *q, cbi_redis_queue *from);
/** What is before `at` is said. */
void cbi_redis_queue_drop(cbi_redis_queue *q, size_t at);
/** How many reports, from `at` on, have room in that much of a request, or removals alone; *end:
 *  where the next one begins. */
size_t cbi_redis_queue_fitting(const cbi_redis_queue *q, size_t at, size_t room, bool removals,
                               size_t *end);
/** Those into the request, CBI_REDIS_REPORTED words each. */
void cbi_redis_queue_put(const cbi_redis_queue *q, size_t at, size_t end, bool removals,
                         cbi_redis_link *l);

#endif
