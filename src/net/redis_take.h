/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CBI_REDIS_TAKE_H
#define CBI_REDIS_TAKE_H

#include "carbide/directory.h"
#include "net/redis_link.h"

/* What a server answers, taken for what it should be. false: it is not, or does not fit; what was
 * to be filled is of no use then. Anybody may have written there. */

bool cbi_redis_take_number(const cbi_redis_value *v, uint64_t *number);
bool cbi_redis_take_text(const cbi_redis_value *v, char *to, size_t room);
/** "LEVEL MEMORY DISK GENERATION SUM" */
bool cbi_redis_take_place(const cbi_redis_value *v, cb_place *place);
/** CBI_REDIS_LOCATED values. */
bool cbi_redis_take_location(const cbi_redis_value *v, cb_location *l);
/** CBI_REDIS_PEER values. */
bool cbi_redis_take_view(const cbi_redis_value *v, cb_executor_view *e);

#endif
